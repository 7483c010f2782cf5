/* SPDX-License-Identifier: Apache-2.0 */
/* Commits of many changes, judged by git itself; and random ones against a model. */
#include "base/encode.h"
#include "base/sha.h"
#include "tests/unit/repo/repo_test.h"

#define GIT "git --git-dir=" LLM_GIT " "
#define LS GIT "ls-tree -r --format='%%(objectmode) %%(path)' main"

static char tip[41];

/* What is put and then put again, or removed, in one commit is in its pack and in no tree. */
static void assert_sound(void)
{
    char out[8192];

    if (output(out, sizeof(out), GIT "fsck --full --strict --no-dangling 2>&1") != 0) {
        fail_msg("%s", out);
    }
    assert_string_equal(out, "");
}

static int fresh(void **state)
{
    struct gw_error err;

    sh("rm -rf data");
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS, &err), err);
    assert_int_equal(output(tip, 41, GIT "rev-parse main"), 0);
    return 0;
}

static struct repo_change *begun(void)
{
    struct repo_change *c = NULL;
    struct gw_error err;

    assert_ok(repo_change_open(&c, "data", LLM, GW_STR("main"), &err), err);
    return c;
}

static void put_file(struct repo_change *c, const char *path, const char *text)
{
    struct gw_error err;

    assert_ok(repo_change_put(c, gw_str_c(path), gw_str_c(text), &err), err);
}

static void drop(struct repo_change *c, const char *path, bool folder)
{
    struct gw_error err;

    assert_ok(repo_change_remove(c, gw_str_c(path), folder, &err), err);
}

static int commit_on(struct repo_change *c, const char *parent, struct gw_error *err)
{
    int rc =
        repo_change_commit(c, GW_STR("Change\n\nmore"), AUTHOR, gw_str_c(parent), NOW_MS, tip, err);

    repo_change_close(c);
    return rc;
}

/* Nothing called "locked" is touched. */
static int ask(void *ctx, struct gw_str path, struct gw_error *err)
{
    ++*(unsigned *)ctx;
    return memmem(path.p, path.n, "locked", 6) == NULL
               ? GW_OK
               : gw_fail(err, GW_FORBIDDEN, 7, GW_STR_FMT, GW_STR_ARG(path));
}

static void committed(struct repo_change *c)
{
    struct gw_error err;

    assert_ok(commit_on(c, "", &err), err);
}

static void test_files_and_folders(void **state)
{
    struct repo_change *c = begun();

    put_file(c, "a/b/c.txt", "c");
    put_file(c, "a-b", "1");
    put_file(c, "a.txt", "2");
    put_file(c, "a/z", "3");
    put_file(c, "empty", "");
    put_file(c, "\xc3\xa9 #%+.txt", "name");
    committed(c);
    assert_sh("100644 .gitattributes\n100644 a-b\n100644 a.txt\n100644 a/b/c.txt\n100644 a/z\n"
              "100644 empty\n100644 \"\\303\\251 #%+.txt\"",
              LS);
    assert_sh("c", GIT "show main:a/b/c.txt");
    assert_sh("Change\n\nmore\nAda Lovelace <ada@corp.example>",
              GIT "log -1 --format='%%s%%n%%n%%b%%an <%%ae>' main");
    c = begun();
    drop(c, "a/b", true);
    drop(c, "a-b", false);
    put_file(c, "a/b/new", "n");
    put_file(c, "a/z", "3");
    committed(c);
    assert_sh("100644 .gitattributes\n100644 a.txt\n100644 a/b/new\n100644 a/z\n100644 empty\n"
              "100644 \"\\303\\251 #%+.txt\"",
              LS);
    c = begun();
    drop(c, "a/", true); /* with a slash, as some clients say it */
    drop(c, "empty", false);
    committed(c);
    assert_sh("100644 .gitattributes\n100644 a.txt\n100644 \"\\303\\251 #%+.txt\"", LS);
    assert_sound();
    assert_sh("0", "find " LLM_GIT "/objects -type f ! -path '*/pack/*' | wc -l");
    assert_no_temp();
}

static void test_order_within_a_commit(void **state)
{
    struct repo_change *c = begun();

    put_file(c, "x/1", "1");
    drop(c, "x", true);
    put_file(c, "x", "a file now");
    put_file(c, "y", "1");
    put_file(c, "y", "2");
    put_file(c, "z", "1");
    drop(c, "z", false);
    committed(c);
    assert_sh("100644 .gitattributes\n100644 x\n100644 y", LS);
    assert_sh("2", GIT "show main:y");
    c = begun();
    drop(c, "x", false);
    put_file(c, "x/in/it", "a folder again");
    committed(c);
    assert_sh("100644 .gitattributes\n100644 x/in/it\n100644 y", LS);
    assert_sound();
}

static void test_nothing_new_is_the_tip(void **state)
{
    struct repo_change *c = begun();
    struct gw_error err;
    char before[41], again[41];

    put_file(c, "a", "1");
    committed(c);
    memcpy(before, tip, sizeof(before));
    committed(begun());
    assert_string_equal(tip, before);
    c = begun();
    put_file(c, "a", "1");
    assert_ok(
        repo_change_commit(c, GW_STR("again"), AUTHOR, GW_STR(""), NOW_MS + 9000, again, &err),
        err);
    repo_change_close(c);
    assert_string_equal(again, before);
    assert_sh("2", GIT "rev-list --count main");
}

static void test_parent(void **state)
{
    char first[41], second[41];
    struct gw_error err;
    struct repo_change *c = begun();

    memcpy(first, tip, sizeof(first));
    put_file(c, "a", "1");
    assert_ok(commit_on(c, first, &err), err);
    memcpy(second, tip, sizeof(second));
    c = begun(); /* the answer was lost: the same again is the same commit */
    put_file(c, "a", "1");
    assert_ok(commit_on(c, first, &err), err);
    assert_string_equal(tip, second);
    c = begun();
    put_file(c, "a", "2");
    assert_int_equal(commit_on(c, first, &err), GW_CONFLICT);
    assert_int_equal(err.sys, REPO_MOVED);
    c = begun();
    put_file(c, "a", "2");
    second[7] = '\0';
    assert_ok(commit_on(c, second, &err), err);
    for (size_t i = 0; i < 3; i++) {
        static const char *const bad[] = {"abc", "ABCDEF0", "xyzxyzxyz"};

        c = begun();
        assert_int_equal(commit_on(c, bad[i], &err), GW_INVALID);
    }
}

static void test_refused(void **state)
{
    static const char *const paths[] = {"",       "/a",   "a/",       "a//b",   "../a",
                                        "a/../b", ".",    "a/.git/b", ".GIT/x", "a\\b",
                                        "a\nb",   "\xff", ".git ",    "git~1"};
    struct repo_change *c = begun();
    struct gw_error err;
    char *large = calloc(1, (10u << 20) + 1);

    for (size_t i = 0; i < COUNT(paths); i++) {
        if (repo_change_put(c, gw_str_c(paths[i]), GW_STR("x"), &err) != GW_INVALID) {
            fail_msg("%s", paths[i]);
        }
    }
    assert_non_null(large);
    assert_int_equal(
        repo_change_put(c, GW_STR("large"), (struct gw_str){large, (10u << 20) + 1}, &err),
        GW_TOO_LARGE);
    free(large);
    repo_change_close(c);
    assert_int_equal(repo_change_open(&c, "data", LLM, GW_STR("absent"), &err), GW_NOT_FOUND);
    assert_int_equal(err.sys, REPO_NO_COMMIT);
    assert_int_equal(repo_change_open(&c, "data", ID("model", "acme", "no"), GW_STR("main"), &err),
                     GW_NOT_FOUND);
    for (size_t i = 0; i < 5; i++) {
        static const char *const branches[] = {"", "refs/tags/x", "a..b", "refs/heads/x.lock",
                                               "refs/convert/parquet"};

        assert_int_equal(repo_change_open(&c, "data", LLM, gw_str_c(branches[i]), &err),
                         GW_INVALID);
    }
    assert_no_temp();
}

static void test_refused_at_the_commit(void **state)
{
    struct gw_error err;
    struct repo_change *c = begun();

    put_file(c, "dir/file", "1");
    put_file(c, "file", "1");
    committed(c);
    c = begun();
    drop(c, "absent", false);
    assert_int_equal(commit_on(c, "", &err), GW_NOT_FOUND);
    assert_int_equal(err.sys, REPO_NO_PATH);
    c = begun();
    drop(c, "file", true);
    assert_int_equal(commit_on(c, "", &err), GW_NOT_FOUND);
    c = begun();
    drop(c, "dir", false);
    assert_int_equal(commit_on(c, "", &err), GW_NOT_FOUND);
    c = begun();
    put_file(c, "dir", "a file");
    assert_int_equal(commit_on(c, "", &err), GW_INVALID);
    c = begun();
    put_file(c, "file/in", "it");
    assert_int_equal(commit_on(c, "", &err), GW_INVALID);
    assert_sh("100644 .gitattributes\n100644 dir/file\n100644 file", LS);
    assert_no_temp();
}

static void test_objects(void **state)
{
    char sha[65], other[65];
    uint64_t size;
    struct gw_error err;
    struct repo_change *c;

    put_noise("data/tmp/up", 100000, 7);
    assert_int_equal(output(sha, 65, "sha256sum data/tmp/up | cut -c1-64"), 0);
    assert_int_equal(repo_object_held("data", LLM, gw_str_c(sha), &size, &err), GW_NOT_FOUND);
    assert_int_equal(err.sys, REPO_NO_OBJECT);
    c = begun();
    assert_int_equal(repo_change_put_object(c, GW_STR("w.bin"), gw_str_c(sha), 100000, &err),
                     GW_NOT_FOUND); /* knowing a digest gives nothing */
    repo_change_close(c);
    assert_ok(repo_object_take("data", LLM, gw_str_c(sha), "data/tmp/up", &err), err);
    assert_ok(repo_object_take("data", LLM, gw_str_c(sha), "data/tmp/up", &err), err);
    assert_ok(repo_object_held("data", LLM, gw_str_c(sha), &size, &err), err);
    assert_int_equal(size, 100000);
    sh("rm data/tmp/up");
    assert_sh("2", "stat -c %%h data/lfs/%.2s/%.2s/%s", sha, sha + 2, sha);
    c = begun();
    assert_int_equal(repo_change_put_object(c, GW_STR("w.bin"), gw_str_c(sha), 5, &err),
                     GW_INVALID);
    assert_ok(repo_change_put_object(c, GW_STR("w.bin"), gw_str_c(sha), 100000, &err), err);
    assert_ok(repo_change_put_object(c, GW_STR("odd name.xyz"), gw_str_c(sha), UINT64_MAX, &err),
              err);
    put_file(c, "small.bin", "bytes that the attributes want as an object");
    committed(c);
    assert_sh("/odd[[:space:]]name.xyz filter=lfs diff=lfs merge=lfs -text",
              GIT "show main:.gitattributes | tail -1");
    assert_sh("version https://git-lfs.github.com/spec/v1", GIT "show main:small.bin | head -1");
    assert_int_equal(output(other, 65, GIT "show main:small.bin | sed -n 's/oid sha256://p'"), 0);
    assert_sh("bytes that the attributes want as an object", "cat data/lfs/%.2s/%.2s/%s", other,
              other + 2, other);
    assert_ok(repo_object_held("data", LLM, gw_str_c(other), &size, &err), err);
    c = begun(); /* a pointer to what the repository does not hold is no way to get it */
    put_text("p", "");
    {
        char text[200];
        size_t n;

        memset(sha, 'a', 64);
        n = repo_pointer_format(text, gw_str_c(sha), 5);
        assert_int_equal(repo_change_put(c, GW_STR("p.txt"), (struct gw_str){text, n}, &err),
                         GW_NOT_FOUND);
    }
    repo_change_close(c);
    assert_sound();
    assert_no_temp();
}

/* Who may write is asked about each file, also about those that go with their folder. */
static void test_asked_for_each_file(void **state)
{
    struct repo_change *c = begun();
    struct gw_error err;
    unsigned asked = 0;

    put_file(c, "d/locked/x", "1");
    put_file(c, "d/free/y", "2");
    put_file(c, "e/z", "3");
    committed(c);
    c = begun();
    repo_change_ask(c, ask, &asked);
    assert_int_equal(repo_change_put(c, GW_STR("locked"), GW_STR("x"), &err), GW_FORBIDDEN);
    assert_int_equal(repo_change_remove(c, GW_STR("d/locked/x"), false, &err), GW_FORBIDDEN);
    assert_int_equal(repo_change_put_object(c, GW_STR("locked.bin"), GW_STR("00"), 1, &err),
                     GW_FORBIDDEN);
    assert_int_equal(asked, 3);
    assert_int_equal(repo_change_put(c, GW_STR("../locked"), GW_STR("x"), &err), GW_INVALID);
    drop(c, "d", true);
    assert_int_equal(asked, 3); /* its files: at the commit */
    assert_int_equal(commit_on(c, "", &err), GW_FORBIDDEN);
    assert_int_equal(err.sys, 7);
    assert_string_equal(err.text, "d/locked/x");
    c = begun();
    repo_change_ask(c, ask, &asked);
    drop(c, "d/locked", true);
    put_file(c, "d/loc", "1");
    assert_int_equal(commit_on(c, "", &err), GW_FORBIDDEN);
    asked = 0;
    c = begun();
    repo_change_ask(c, ask, &asked);
    drop(c, "d/free", true);
    drop(c, "e", true);
    put_file(c, "d/new", "4");
    committed(c);
    assert_int_equal(asked, 3);
    assert_sh("100644 .gitattributes\n100644 d/locked/x\n100644 d/new", LS);
    assert_no_temp();
}

static void test_branches(void **state)
{
    struct gw_error err;
    struct repo_change *c;

    sh(GIT "branch a/b main && " GIT "update-ref refs/pr/1 main");
    assert_ok(repo_change_open(&c, "data", LLM, GW_STR("a/b"), &err), err);
    put_file(c, "on-branch", "1");
    assert_ok(commit_on(c, "", &err), err);
    assert_ok(repo_change_open(&c, "data", LLM, GW_STR("refs/pr/1"), &err), err);
    put_file(c, "on-pr", "1");
    assert_ok(commit_on(c, "", &err), err);
    assert_sh(".gitattributes", GIT "ls-tree -r --name-only main");
    assert_sh(".gitattributes\non-branch", GIT "ls-tree -r --name-only a/b");
    assert_sh(".gitattributes\non-pr", GIT "ls-tree -r --name-only refs/pr/1");
    assert_ok(repo_change_open(&c, "data", LLM, GW_STR("a/b"), &err), err);
    put_file(c, "late", "1");
    sh(GIT "branch -D a/b");
    assert_int_equal(commit_on(c, "", &err), GW_NOT_FOUND);
    assert_int_equal(err.sys, REPO_NO_COMMIT);
}

static void test_many_files(void **state)
{
    struct repo_change *c = begun();
    char path[64];

    for (int i = 0; i < 20000; i++) {
        snprintf(path, sizeof(path), i % 2 ? "one/%d" : "many/%d/f", i);
        put_file(c, path, path);
    }
    committed(c);
    c = begun();
    put_file(c, "one/1", "changed");
    drop(c, "many/0", true);
    committed(c);
    assert_sh("20000", GIT "ls-tree -r main | wc -l");
    assert_sh("changed", GIT "show main:one/1");
    assert_sound();
}

/* ---- random changes against a model: a flat list of paths ---- */

struct model {
    char path[64];
    int text;
};

static struct model files[256];
static size_t n_files;

static size_t find(const char *path)
{
    for (size_t i = 0; i < n_files; i++) {
        if (strcmp(files[i].path, path) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

static bool below(const char *folder, const char *path)
{
    size_t n = strlen(folder);

    return strncmp(folder, path, n) == 0 && path[n] == '/';
}

static bool any_below(const char *folder)
{
    for (size_t i = 0; i < n_files; i++) {
        if (below(folder, files[i].path)) {
            return true;
        }
    }
    return false;
}

static void remove_at(size_t i)
{
    files[i] = files[--n_files];
}

static bool under_a_file(const char *path)
{
    for (size_t i = 0; i < n_files; i++) {
        if (below(files[i].path, path)) {
            return true;
        }
    }
    return false;
}

static void random_path(char out[64])
{
    static const char *const names[] = {"a", "b", "a-b", "a.c", "z"};
    int depth = 1 + rand() % 3;

    out[0] = '\0';
    for (int i = 0; i < depth; i++) {
        snprintf(out + strlen(out), 64 - strlen(out), "%s%s", i ? "/" : "",
                 names[(size_t)rand() % COUNT(names)]);
    }
}

static void random_change(struct repo_change *c)
{
    char path[64], text[16];
    size_t i;

    random_path(path);
    i = find(path);
    if (rand() % 3 != 0) { /* put, where it is neither below a file nor a folder itself */
        if (under_a_file(path) || any_below(path)) {
            return;
        }
        if (i == SIZE_MAX) {
            i = n_files++;
            snprintf(files[i].path, sizeof(files[i].path), "%s", path);
        }
        files[i].text = rand() % 1000;
        snprintf(text, sizeof(text), "%d", files[i].text);
        put_file(c, path, text);
    } else if (i != SIZE_MAX) {
        remove_at(i);
        drop(c, path, false);
    } else if (any_below(path)) {
        for (i = 0; i < n_files;) {
            if (below(path, files[i].path)) {
                remove_at(i);
            } else {
                i++;
            }
        }
        drop(c, path, true);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct model *)a)->path, ((const struct model *)b)->path);
}

static void test_random(void **state)
{
    static char expected[16384];

    srand(4711);
    n_files = 0;
    for (int round = 0; round < 60; round++) {
        struct repo_change *c = begun();
        int changes = 1 + rand() % 40;
        size_t n = 0;

        for (int i = 0; i < changes; i++) {
            random_change(c);
        }
        committed(c);
        qsort(files, n_files, sizeof(files[0]), by_name);
        expected[0] = '\0';
        for (size_t i = 0; i < n_files; i++) {
            n += (size_t)snprintf(expected + n, sizeof(expected) - n, "%s%s", n ? "\n" : "",
                                  files[i].path);
        }
        assert_sh(expected, GIT "ls-tree -r --name-only main | grep -vx .gitattributes | LC_ALL=C "
                                "sort; true");
        for (size_t i = 0; i < n_files; i += 7) {
            char text[16];

            snprintf(text, sizeof(text), "%d", files[i].text);
            assert_sh(text, GIT "show main:%s", files[i].path);
        }
    }
    assert_sound();
}

static void test_squash(void **state)
{
    struct repo_change *c;
    struct gw_error err;
    char commit[41];

    for (int i = 0; i < 3; i++) {
        c = begun();
        put_file(c, i == 2 ? "b" : "a", i == 1 ? "2" : "1");
        committed(c);
    }
    assert_ok(repo_tag_create("data", LLM, GW_STR("v1"), GW_STR("main"), GW_STR(""), AUTHOR, NOW_MS,
                              &err),
              err);
    assert_ok(
        repo_squash("data", LLM, GW_STR(""), GW_STR("All in one"), AUTHOR, NOW_MS, commit, &err),
        err);
    assert_sh(commit, GIT "rev-parse main");
    assert_sh("1", GIT "rev-list --count main");
    assert_sh("4", GIT "rev-list --count v1");
    assert_sh("All in one", GIT "log -1 --format=%%B main");
    assert_sh("100644 .gitattributes\n100644 a\n100644 b", LS);
    assert_sound();
    assert_int_equal(
        repo_squash("data", LLM, GW_STR("v1"), GW_STR("x"), AUTHOR, NOW_MS, commit, &err),
        GW_NOT_FOUND);
    assert_int_equal(err.sys, REPO_NO_COMMIT);
    assert_int_equal(repo_squash("data", LLM, GW_STR("refs/heads/main"), GW_STR("x"), AUTHOR,
                                 NOW_MS, commit, &err),
                     GW_INVALID);
}

/* Around what a pack's heads and the pieces of its writer hold, of bytes that compress and that do
 * not: git takes each apart as it was. */
static void test_sizes(void **state)
{
    static const size_t sizes[] = {0,     1,     15,     16,     2047,   2048,   65535,
                                   65536, 65537, 131071, 131072, 262143, 262144, 10u << 20};
    char *bytes = malloc(10u << 20), name[40], sum[41];
    struct repo_change *c = begun();
    struct gw_error err;
    FILE *f;

    assert_non_null(bytes);
    for (unsigned kind = 0; kind < 2; kind++) {
        uint32_t at = 1;

        for (size_t i = 0; i < 10u << 20; i++) {
            at = at * 1664525u + 1013904223u;
            bytes[i] = (char)(kind != 0 ? at >> 24 : 'a');
        }
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            snprintf(name, sizeof(name), "%u-%zu", kind, sizes[i]);
            assert_ok(repo_change_put(c, gw_str_c(name), (struct gw_str){bytes, sizes[i]}, &err),
                      err);
        }
        snprintf(name, sizeof(name), "want-%u", kind);
        f = fopen(name, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(bytes, 1, 10u << 20, f), 10u << 20);
        assert_int_equal(fclose(f), 0);
    }
    free(bytes);
    committed(c);
    assert_sound();
    for (unsigned kind = 0; kind < 2; kind++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            assert_int_equal(output(sum, sizeof(sum), "head -c %zu want-%u | sha1sum | cut -c1-40",
                                    sizes[i], kind),
                             0);
            assert_sh(sum, GIT "cat-file blob main:%u-%zu | sha1sum | cut -c1-40", kind, sizes[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_files_and_folders, fresh),
        cmocka_unit_test_setup(test_order_within_a_commit, fresh),
        cmocka_unit_test_setup(test_nothing_new_is_the_tip, fresh),
        cmocka_unit_test_setup(test_parent, fresh),
        cmocka_unit_test_setup(test_refused, fresh),
        cmocka_unit_test_setup(test_refused_at_the_commit, fresh),
        cmocka_unit_test_setup(test_objects, fresh),
        cmocka_unit_test_setup(test_asked_for_each_file, fresh),
        cmocka_unit_test_setup(test_branches, fresh),
        cmocka_unit_test_setup(test_many_files, fresh),
        cmocka_unit_test_setup(test_squash, fresh),
        cmocka_unit_test_setup(test_sizes, fresh),
        cmocka_unit_test_setup(test_random, fresh),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
