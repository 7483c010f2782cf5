/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "tests/unit/repo/repo_test.h"

#include <sys/socket.h>
#include <sys/un.h>

#define GIT "git --git-dir=" LLM_GIT " "
#define MIB (1u << 20)

/* What git itself would make of src/, with git-lfs's clean filter: the same tree id. */
static void assert_tree_like_git(const char *src, const char *git_dir)
{
    char ours[64];

    assert_int_equal(output(ours, sizeof(ours), "git --git-dir=%s rev-parse main^{tree}", git_dir),
                     0);
    assert_sh(ours,
              "rm -rf judge && cp -a %s judge && find judge -mindepth 2 -name .git -prune -exec rm "
              "-rf {} + ; "
              "git --git-dir=%s show main:.gitattributes > judge/.gitattributes && cd judge && "
              "git init -q . && git config filter.lfs.clean 'git-lfs clean -- %%f' && "
              "git config filter.lfs.required true && git add -A -f . >/dev/null && git write-tree",
              src, git_dir);
}

static void assert_one_pack(const char *git_dir, int packs)
{
    char expected[64];

    snprintf(expected, sizeof(expected), "count: 0\npacks: %d\ngarbage: 0", packs);
    assert_sh(expected, "git --git-dir=%s count-objects -v | grep -E '^(count|packs|garbage)'",
              git_dir);
    assert_sh("", "git --git-dir=%s fsck --full --strict --unreachable 2>&1", git_dir);
    assert_fsck(git_dir);
}

/* Every object file has the digest of its name and cannot be written. */
static void assert_objects(int n)
{
    char expected[16];

    snprintf(expected, sizeof(expected), "%d", n);
    assert_sh(expected, "find data/lfs -type f | wc -l");
    assert_sh(
        "", "find data/lfs -type f | while read f; do "
            "[ \"$(sha256sum < $f | cut -c1-64)\" = \"$(basename $f)\" ] || echo bad $f; "
            "h=$(basename $f); [ $f = data/lfs/$(echo $h | cut -c1-2)/$(echo $h | cut -c3-4)/$h ] "
            "|| echo place $f; [ $(stat -c %%a $f) = 440 ] || echo mode $f; done");
}

static void make_source(void)
{
    sh("rm -rf src && mkdir -p 'src/sub/deep er/\xc3\xa9t\xc3\xa9' src/empty/nested src/tool/.git "
       "src/.cache/huggingface/download src/a src/a.b && "
       "echo '{}' > src/config.json && : > src/zero && : > src/zero.bin && "
       "printf 'x y' > 'src/sub/a file.txt' && printf 'nfc' > 'src/sub/\xc3\xa9.txt' && "
       "printf 'nfd' > 'src/sub/e\xcc\x81.txt' && ln -s ../config.json src/sub/link && "
       "ln -s /etc/passwd src/outside && ln -s nowhere src/dangling && "
       "printf '#!/bin/sh\\n' > src/run.sh && chmod 755 src/run.sh && "
       "printf 'w' > 'src/sub/deep er/\xc3\xa9t\xc3\xa9/w.txt' && echo x > src/tool/.git/config && "
       "echo t > src/tool/t.c && echo c > src/.cache/huggingface/download/x.metadata && "
       "echo k > src/.cache/keep && echo 1 > src/a/1 && echo 2 > src/a.b/2 && echo 3 > src/a-b && "
       "echo 4 > src/a0 && printf tiny > src/tiny.bin && cp src/tiny.bin src/same.bin && "
       "printf q > 'src/q\"uo'\\''te$.txt' && printf h > 'src/ lead' && printf d > src/-dash");
    put_noise("src/model.safetensors", 3 * MIB + 17, 1);
}

static void test_hard_cases(void **state)
{
    struct gw_error err;
    char commit[41];

    make_source();
    assert_ok(import("src", commit, &err), err);
    assert_sh(commit, GIT "rev-parse main");
    assert_one_pack(LLM_GIT, 1);
    assert_no_temp();
    sh("rm -rf src/.cache/huggingface && rm -rf src/tool/.git");
    assert_tree_like_git("src", LLM_GIT);
    assert_sh("1", GIT "rev-list --count main");
    assert_sh("Import", GIT "log --format=%%s main");
    assert_sh("100755 run.sh\n120000 dangling\n120000 outside\n120000 sub/link",
              GIT "ls-tree -r --format='%%(objectmode) %%(path)' main | grep -v ^100644 | sort");
    assert_sh("/etc/passwd", GIT "cat-file blob main:outside");
    assert_sh("100644 blob e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\tzero\n"
              "100644 blob e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\tzero.bin",
              GIT "ls-tree main zero zero.bin");
    assert_sh("", GIT "ls-tree -r --name-only main | grep -E 'huggingface|\\.git/|empty'; true");
    assert_sh(".cache/keep\ntool/t.c", GIT "ls-tree -r --name-only main | grep -E 'keep|t\\.c'");
    assert_objects(2); /* the model, and two files of the same four bytes */
    assert_sh("3145745", GIT "cat-file blob main:model.safetensors | sed -n 's/^size //p'");
    assert_sh("", GIT
              "cat-file blob main:model.safetensors | git lfs pointer --check --strict --stdin");
}

static void test_again_is_the_tip(void **state)
{
    struct gw_error err;
    char first[41], second[41], third[41];

    make_source();
    assert_ok(import("src", first, &err), err);
    assert_ok(import("src", second, &err), err);
    assert_string_equal(first, second);
    assert_one_pack(LLM_GIT, 1);

    sh("echo '{\"a\":1}' > src/config.json && rm src/a0");
    put_noise("src/model.safetensors", 3 * MIB, 2);
    assert_ok(import("src", third, &err), err);
    assert_string_not_equal(first, third);
    assert_sh(first, GIT "rev-parse main^");
    assert_sh("D a0\nM config.json\nM model.safetensors",
              GIT "diff --name-status main^ main | tr '\\t' ' '");
    assert_one_pack(LLM_GIT, 2);
    /* what was there already is not packed again: commit, root tree, config, pointer */
    assert_sh("4", "for i in data/repos/model/acme/llm.git/objects/pack/*.idx; do "
                   "git show-index < $i | wc -l; done | sort -n | head -1");
    assert_objects(3);
    sh("rm -rf src/.cache/huggingface src/tool/.git");
    assert_tree_like_git("src", LLM_GIT);
    assert_no_temp();
}

static void test_new_and_other_types(void **state)
{
    struct gw_error err;
    struct gw_str none = GW_STR("");
    char commit[41];

    sh("mkdir -p d && printf p > d/x.parquet && printf i > d/i.png");
    assert_ok(repo_import("data", ID("dataset", "acme", "d"), "d", none, none, NOW_MS, NULL, commit,
                          &err),
              err);
    assert_one_pack("data/repos/dataset/acme/d.git", 1);
    assert_sh(
        "2",
        "git --git-dir=data/repos/dataset/acme/d.git grep -c 'oid sha256' main -- '*.p*' | wc -l");
    assert_ok(
        repo_import("data", ID("space", "acme", "d"), "d", none, none, NOW_MS, NULL, commit, &err),
        err);
    assert_sh("i", "git --git-dir=data/repos/space/acme/d.git cat-file blob main:i.png");
    /* into the one that is there, whatever the case */
    sh("echo more > d/more");
    assert_ok(repo_import("data", ID("dataset", "ACME", "D"), "d", none, none, NOW_MS, NULL, commit,
                          &err),
              err);
    assert_sh("2", "git --git-dir=data/repos/dataset/acme/d.git rev-list --count main");
    /* after repo_create: on top of its first commit */
    assert_ok(repo_create("data", ID("model", "acme", "made"), AUTHOR, NOW_MS, &err), err);
    assert_ok(repo_import("data", ID("model", "acme", "made"), "d", GW_STR("a\n\nb"), AUTHOR,
                          NOW_MS, NULL, commit, &err),
              err);
    assert_sh("a\ninitial commit",
              "git --git-dir=data/repos/model/acme/made.git log --format=%%s main");
    assert_one_pack("data/repos/model/acme/made.git", 2);
}

static void test_attributes(void **state)
{
    struct gw_error err;
    char commit[41];

    sh("rm -rf at && mkdir -p at/sub/keep && "
       "printf '*.dat filter=lfs diff=lfs merge=lfs -text' > at/.gitattributes && "
       "printf '*.dat -filter\\n' > at/sub/.gitattributes && "
       "printf 'x.dat filter=lfs\\n' > at/sub/keep/.gitattributes && "
       "printf 1 > at/a.dat && printf 2 > at/b.bin && printf 3 > at/sub/c.dat && "
       "printf 4 > at/sub/keep/x.dat && printf 5 > at/sub/keep/y.dat");
    assert_ok(repo_import("data", ID("model", "acme", "at"), "at", GW_STR(""), AUTHOR, NOW_MS, NULL,
                          commit, &err),
              err);
    assert_sh("a.dat\nsub/keep/x.dat",
              "git --git-dir=data/repos/model/acme/at.git grep -l 'oid sha256' main | cut -d: -f2");
    assert_tree_like_git("at", "data/repos/model/acme/at.git");
    /* the folder's own attributes, byte for byte */
    assert_sh("same",
              "git --git-dir=data/repos/model/acme/at.git cat-file blob main:.gitattributes | "
              "cmp - at/.gitattributes && echo same");
}

/* Over 10 MiB is a large object whatever its name, and a clone must know. */
static void test_size_rule(void **state)
{
    struct gw_error err;
    char commit[41];

    sh("rm -rf big && mkdir -p 'big/s u b'");
    put_noise("big/at", 10 * MIB, 3);
    put_noise("big/s u b/over[1].txt", 10 * MIB + 1, 4);
    put_text("big/.gitattributes", "*.dat filter=lfs diff=lfs merge=lfs -text");
    assert_ok(repo_import("data", ID("model", "acme", "big"), "big", GW_STR(""), AUTHOR, NOW_MS,
                          NULL, commit, &err),
              err);
    assert_sh(
        "10485760 at\n133 s u b/over[1].txt",
        "git --git-dir=data/repos/model/acme/big.git ls-tree -r --format='%%(objectsize) %%(path)' "
        "main | grep -v gitattr");
    assert_sh("*.dat filter=lfs diff=lfs merge=lfs -text\n"
              "/s[[:space:]]u[[:space:]]b/over\\[1\\].txt filter=lfs diff=lfs merge=lfs -text",
              "git --git-dir=data/repos/model/acme/big.git cat-file blob main:.gitattributes");
    assert_tree_like_git("big", "data/repos/model/acme/big.git");
    assert_one_pack("data/repos/model/acme/big.git", 1);
    sh("rm -rf big judge");
}

static void test_refused(void **state)
{
    static const struct {
        const char *make, *text;
    } rows[] = {
        {"mkfifo bad/x/pipe", "neither a file, a folder nor a symbolic link: x/pipe"},
        {"printf . > \"$(printf 'bad/x/a\\nb')\"", "a name has a control character: x/a\\x0ab"},
        {"printf . > 'bad/x/a\\b'",
         "a name has a backslash, which is a folder on other systems: x/a\\b"},
        {"printf . > \"$(printf 'bad/x/\\377')\"", "a name is not UTF-8: x/\\xff"},
        {"mkdir bad/x/.GIT", "a name that git reserves: x/.GIT"},
        {"printf . > 'bad/x/git~1'", "a name that git reserves: x/git~1"},
        {"printf . > bad/.gitmodules", "submodules are not supported: .gitmodules"},
        {"ln -s x bad/x/.gitattributes",
         "git reads this name by itself, so it must be a plain file: x/.gitattributes"},
        {"mkdir bad/.gitattributes && echo . > bad/.gitattributes/x",
         "git reads this name by itself, so it must be a plain file: .gitattributes"},
        {"printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 5\\n' 7 > "
         "bad/x/p.txt",
         "a git-lfs pointer and not the file itself (git lfs pull fetches it): x/p.txt"},
        {"p=bad; for i in $(seq 130); do p=$p/d; done; mkdir -p $p; touch $p/f",
         "more than 128 folders deep: "},
        {"n=$(printf '%0250d' 1); p=bad; for i in $(seq 15); do p=$p/$n; mkdir $p; cd $p; p=.; "
         "done; "
         "m=$(printf '%0250d' 2); mkdir $m; cd $m; mkdir $m; touch $m/f",
         "a path of 4,096 bytes or more: "},
        {"rm -rf bad/* && mkdir -p bad/only/folders", "bad holds no file"},
    };
    struct gw_error err;
    char commit[41] = "unchanged";

    for (size_t i = 0; i < COUNT(rows); i++) {
        char command[1024];

        sh("rm -rf bad && mkdir -p bad/x && echo fine > bad/fine");
        /* in a shell of its own: percent signs are printf's there */
        put_text("make.sh", rows[i].make);
        snprintf(command, sizeof(command), "sh -e make.sh");
        sh("%s", command);
        if (repo_import("data", ID("model", "acme", "bad"), "bad", GW_STR(""), AUTHOR, NOW_MS, NULL,
                        commit, &err) != GW_INVALID ||
            strstr(err.text, rows[i].text) != err.text) {
            fail_msg("row %zu: %s", i, err.text);
        }
    }
    assert_string_equal(commit, "unchanged");
    assert_sh("", "ls -d data/repos/model/acme/bad.git 2>/dev/null; true");
    assert_no_temp();
    sh("rm -rf bad");
}

static void test_refused_arguments(void **state)
{
    struct gw_error err;
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "sock/s"};
    char commit[41];
    int fd;

    assert_int_equal(import("nowhere", commit, &err), GW_INVALID);
    put_text("plain", "x");
    assert_int_equal(import("plain", commit, &err), GW_INVALID);
    sh("mkdir -p outer && cp -a data outer/data");
    assert_int_equal(
        repo_import("outer/data", LLM, "outer", GW_STR(""), AUTHOR, NOW_MS, NULL, commit, &err),
        GW_INVALID);
    assert_string_equal(err.text, "the folder contains hubgate's own data folder");
    sh("mkdir sock");
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    close(fd);
    assert_int_equal(import("sock", commit, &err), GW_INVALID);
    assert_int_equal(repo_import("data", ID("model", "api", "x"), "src", GW_STR(""), AUTHOR, NOW_MS,
                                 NULL, commit, &err),
                     GW_INVALID);
    assert_int_equal(
        repo_import("data", LLM, "src", GW_STR("a\0b"), AUTHOR, NOW_MS, NULL, commit, &err),
        GW_INVALID);
    assert_int_equal(
        repo_import("data", LLM, "src", GW_STR("\xff"), AUTHOR, NOW_MS, NULL, commit, &err),
        GW_INVALID);
    assert_no_temp();
}

/* An object whose file was cut short is healed by the next import of its bytes; a good one is kept.
 */
static void test_damaged_object_is_replaced(void **state)
{
    struct gw_error err;
    char commit[41], before[64];

    sh("rm -rf one && mkdir one && printf 'some bytes' > one/x.bin");
    assert_ok(import("one", commit, &err), err);
    assert_int_equal(output(before, sizeof(before),
                            "f=$(find data/lfs -name $(sha256sum < one/x.bin | cut -c1-64)); "
                            "stat -c %%i $f"),
                     0);
    assert_ok(import("one", commit, &err), err);
    assert_sh(before,
              "f=$(find data/lfs -name $(sha256sum < one/x.bin | cut -c1-64)); stat -c %%i $f");
    sh("f=$(find data/lfs -name $(sha256sum < one/x.bin | cut -c1-64)); chmod 600 $f; : > $f; "
       "chmod 440 $f");
    assert_ok(import("one", commit, &err), err);
    assert_sh("some bytes", "cat $(find data/lfs -name $(sha256sum < one/x.bin | cut -c1-64))");
}

/* A file that did not change is read, not written again; one that only kept its size is. */
static void test_unchanged_objects(void **state)
{
    struct gw_error err;
    char commit[41], tip[41];

    sh("rm -rf un && mkdir un && printf 'some bytes' > un/x.bin && printf 'other' > un/y.bin");
    assert_ok(import("un", commit, &err), err);
    sh("printf 'SOME BYTES' > un/x.bin");
    assert_ok(import("un", tip, &err), err);
    assert_string_not_equal(commit, tip);
    assert_sh("x.bin", GIT "diff --name-only %s main", commit);
    assert_sh("SOME BYTES", "cat $(find data/lfs -name $(sha256sum < un/x.bin | cut -c1-64))");
    /* and one whose object was lost is stored again */
    sh("rm -f $(find data/lfs -name $(sha256sum < un/y.bin | cut -c1-64))");
    assert_ok(import("un", commit, &err), err);
    assert_string_equal(commit, tip);
    assert_sh("other", "cat $(find data/lfs -name $(sha256sum < un/y.bin | cut -c1-64))");
}

struct seen {
    uint64_t done, total;
    size_t calls;
    bool backwards;
};

static void on_progress(void *ctx, uint64_t done, uint64_t total, struct gw_str file)
{
    struct seen *s = ctx;

    s->backwards = s->backwards || done < s->done || done > total;
    s->done = done;
    s->total = total;
    s->calls++;
}

static void test_progress(void **state)
{
    struct seen s = {0};
    struct repo_progress p = {on_progress, &s};
    struct gw_error err;
    char commit[41];

    sh("rm -rf pr && mkdir pr && printf 12345 > pr/a && : > pr/.gitattributes");
    put_noise("pr/b.bin", 5 * MIB, 9);
    assert_ok(repo_import("data", ID("model", "acme", "pr"), "pr", GW_STR(""), AUTHOR, NOW_MS, &p,
                          commit, &err),
              err);
    assert_true(s.calls >= 1 && !s.backwards);
    assert_int_equal(s.done, s.total);
    assert_int_equal(s.total, 5 * MIB + 5);
}

static void test_many_files(void **state)
{
    struct gw_error err;
    char commit[41];

    sh("rm -rf many && mkdir many && for i in $(seq 3000); do mkdir -p many/$((i %% 20)); "
       "echo file $i > many/$((i %% 20))/$i.txt; done");
    assert_ok(repo_import("data", ID("model", "acme", "many"), "many", GW_STR(""), AUTHOR, NOW_MS,
                          NULL, commit, &err),
              err);
    assert_one_pack("data/repos/model/acme/many.git", 1);
    assert_tree_like_git("many", "data/repos/model/acme/many.git");
    sh("rm -rf many judge");
}

/* A stale lock of the ref, as a killed writer leaves it, delays but does not stop. */
static void test_stale_ref_lock(void **state)
{
    struct gw_error err;
    char commit[41];

    sh("rm -rf st && mkdir st && echo 1 > st/a");
    assert_ok(import("st", commit, &err), err);
    sh("echo 2 > st/a && touch " LLM_GIT "/refs/heads/main.lock");
    assert_ok(import("st", commit, &err), err);
    assert_sh(commit, GIT "rev-parse main");
    assert_sh("", "find " LLM_GIT " -name 'main.lock'");
}

/* Root reads everything, so the import runs as nobody. */
static void test_unreadable(void **state)
{
    int status;
    pid_t pid;

    sh("rm -rf un data2 && mkdir un data2 && echo 1 > un/a && echo 2 > un/b && chmod 0 un/b");
    if (geteuid() == 0) {
        sh("chown -R 65534 un data2 && chmod 755 .");
    }
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct gw_error err;
        char commit[41];

        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) {
            _exit(99);
        }
        status = -repo_import("data2", LLM, "un", GW_STR(""), AUTHOR, NOW_MS, NULL, commit, &err);
        _exit(status == -GW_IO && strcmp(err.text, "open b: Permission denied") == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_sh("", "find data2/repos -name '*.git' 2>/dev/null; true");
}

static void test_no_memory(void **state)
{
    struct gw_error err;
    char commit[41], tip[41];

    sh("rm -rf om && mkdir -p om/sub && echo 1 > om/a && echo 2 > om/sub/b.bin && "
       "printf '*.x filter=lfs\\n' > om/sub/.gitattributes");
    assert_ok(import("om", tip, &err), err);
    sh("echo 3 > om/a");
    for (size_t at = 1; at < 10000; at++) {
        int rc;

        gw_alloc_fail_at(at);
        rc = import("om", commit, &err);
        gw_alloc_fail_at(0);
        if (rc == GW_OK) {
            assert_true(at > 30);
            break;
        }
        if (rc != GW_NO_MEMORY && rc != GW_TOO_LARGE) {
            fail_msg("allocation %zu: %s", at, err.text);
        }
    }
    assert_sh(commit, GIT "rev-parse main");
    assert_sh(tip, GIT "rev-parse main^");
    assert_sh("", GIT "fsck --full --strict --no-dangling 2>&1");
    assert_ok(import("om", tip, &err), err);
    assert_no_temp();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hard_cases),
        cmocka_unit_test(test_again_is_the_tip),
        cmocka_unit_test(test_new_and_other_types),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_size_rule),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_arguments),
        cmocka_unit_test(test_damaged_object_is_replaced),
        cmocka_unit_test(test_unchanged_objects),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_many_files),
        cmocka_unit_test(test_stale_ref_lock),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
