/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "tests/unit/repo/repo_test.h"

#include <sys/file.h>

static int create(const struct repo_id *id, struct gw_error *err)
{
    return repo_create("data", id, AUTHOR, NOW_MS, err);
}

static void test_version(void **state)
{
    static const struct {
        const char *text;
        int rc;
    } rows[] = {
        {"1\n", GW_OK},
        {"1", GW_OK},
        {"2\n", GW_INVALID},
        {"0\n", GW_INVALID},
        {"", GW_INVALID},
        {"one\n", GW_INVALID},
        {"-1\n", GW_INVALID},
        {"1 \n", GW_INVALID},
        {"99999999999999999999", GW_INVALID},
        {"1111111111111111111111111111111111111111111111111111111111111111111111111111",
         GW_INVALID},
    };
    struct gw_error err;

    assert_ok(repo_data_open("v/data", &err), err);
    assert_sh("1", "cat v/data/VERSION");
    for (size_t i = 0; i < COUNT(rows); i++) {
        put_text("v/data/VERSION", rows[i].text);
        assert_int_equal(repo_data_open("v/data", &err), rows[i].rc);
    }
    put_text("v/data/VERSION", "2\n");
    assert_int_equal(repo_data_open("v/data", &err), GW_INVALID);
    assert_string_equal(
        err.text, "v/data is in data format 2, this program knows up to 1: use a newer hubgate");
    put_text("file", "");
    assert_int_equal(repo_data_open("file/data", &err), GW_IO);
}

static void test_first_commit(void **state)
{
    struct gw_error err;

    assert_ok(create(LLM, &err), err);
    assert_fsck(LLM_GIT);
    assert_no_temp();
    assert_sh("refs/heads/main", "git --git-dir=" LLM_GIT " symbolic-ref HEAD");
    assert_sh(".gitattributes", "git --git-dir=" LLM_GIT " ls-tree -r --name-only main");
    assert_sh("36", "git --git-dir=" LLM_GIT " show main:.gitattributes | wc -l");
    assert_sh("*.7z filter=lfs diff=lfs merge=lfs -text",
              "git --git-dir=" LLM_GIT " show main:.gitattributes | head -1");
    assert_sh("Ada Lovelace|ada@corp.example|1764000000|Ada Lovelace|initial commit|",
              "git --git-dir=" LLM_GIT " log --format='%%an|%%ae|%%at|%%cn|%%s|%%P' main");
    assert_sh("count: 0\nin-pack: 3\npacks: 1\ngarbage: 0",
              "git --git-dir=" LLM_GIT
              " count-objects -v | grep -E '^(count|in-pack|packs|garbage)'");
    assert_sh("", "find " LLM_GIT " -name '*.lock' ! -name .gw.lock");
    sh("git clone -q " LLM_GIT " clone && test -f clone/.gitattributes");
}

static void test_datasets_begin_with_parquet_as_lfs(void **state)
{
    struct gw_error err;

    assert_ok(create(ID("dataset", "acme", "d"), &err), err);
    assert_sh("2", "git --git-dir=data/repos/dataset/acme/d.git show main:.gitattributes | "
                   "grep -c -e '^\\*.parquet filter=lfs' -e '^\\*.png filter=lfs'");
}

static void test_conflicts(void **state)
{
    static const struct {
        const char *type, *ns, *name;
        int rc;
    } rows[] = {
        {"model", "Corp", "Llm", GW_OK},          {"model", "Corp", "Llm", GW_CONFLICT},
        {"model", "Corp", "LLM", GW_CONFLICT},    {"model", "corp", "llm", GW_CONFLICT},
        {"model", "CORP", "other", GW_OK},        {"dataset", "corp", "llm", GW_OK},
        {"space", "corp", "api", GW_OK},          {"model", "api", "llm", GW_INVALID},
        {"model", "Corp", "resolve", GW_INVALID}, {"model", "Corp", "../x", GW_INVALID},
        {"model", "Corp", "Llm.git", GW_INVALID},
    };
    struct gw_error err;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct repo_id id = {gw_str_c(rows[i].type), gw_str_c(rows[i].ns), gw_str_c(rows[i].name)};

        if (create(&id, &err) != rows[i].rc) {
            fail_msg("row %zu: %s", i, err.text);
        }
    }
    /* one namespace, one spelling */
    assert_sh("data/repos/dataset/Corp/llm.git\ndata/repos/model/Corp/Llm.git\n"
              "data/repos/model/Corp/other.git\ndata/repos/space/Corp/api.git",
              "ls -d data/repos/*/[Cc]*/*.git");
    assert_no_temp();
}

static void test_found_in_any_case(void **state)
{
    static const struct {
        const char *ns, *name;
        int rc;
    } rows[] = {
        {"Corp", "Llm", GW_OK},         {"corp", "llm", GW_OK},
        {"CORP", "LLM", GW_OK},         {"Corp", "llm", GW_OK},
        {"Corp", "Llm2", GW_NOT_FOUND}, {"Cor", "Llm", GW_NOT_FOUND},
        {"..", "Llm", GW_NOT_FOUND},    {"Corp", "Llm.git", GW_NOT_FOUND},
        {"Corp", "", GW_NOT_FOUND},
    };
    struct gw_error err;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct repo_id id = {GW_STR("model"), gw_str_c(rows[i].ns), gw_str_c(rows[i].name)};
        struct repo *r = NULL;

        if (repo_open(&r, "data", &id, &err) != rows[i].rc) {
            fail_msg("row %zu: %s", i, err.text);
        }
        if (r != NULL) {
            assert_true(gw_str_eq_c(repo_canonical_ns(r), "Corp"));
            assert_true(gw_str_eq_c(repo_canonical_name(r), "Llm"));
            assert_int_equal(repo_created_ms(r), NOW_MS);
        }
        repo_close(r);
    }
}

static int on_repo(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name)
{
    struct gw_buf *b = ctx;

    gw_buf_addf(b, GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT " ", GW_STR_ARG(type), GW_STR_ARG(ns),
                GW_STR_ARG(name));
    return b->n > 60 ? GW_CANCELLED : GW_OK;
}

static void test_each(void **state)
{
    struct gw_error err;
    struct gw_buf b;

    sh("mkdir -p e/repos/model/acme/b.git e/repos/model/acme/a.git e/repos/dataset/acme/c.git "
       "e/repos/model/acme/.tmp-1.git e/repos/model/acme/plain e/repos/other/acme/x.git "
       "e/repos/model/empty e/repos/model/.hidden/x.git && touch e/repos/.lock e/repos/model/file");
    gw_buf_init(&b, 4096);
    assert_ok(repo_each("e", on_repo, &b, &err), err);
    assert_string_equal(b.p, "model:acme/a model:acme/b dataset:acme/c ");
    gw_buf_reset(&b);
    assert_ok(repo_each("nowhere", on_repo, &b, &err), err);
    assert_int_equal(b.n, 0);
    sh("mkdir -p e/repos/space/acme/d.git e/repos/space/acme/e.git e/repos/space/acme/f.git");
    assert_int_equal(repo_each("e", on_repo, &b, &err), GW_CANCELLED); /* what the callback says */
    gw_buf_release(&b);
}

static void test_object_path(void **state)
{
    struct gw_arena a;

    gw_arena_init(&a, 4096);
    assert_string_equal(
        repo_object_path(
            "data", GW_STR("4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"), &a)
            .p,
        "data/lfs/4d/7a/4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393");
    assert_null(repo_object_path("data", GW_STR("4d7a"), &a).p);
    assert_null(repo_object_path(
                    "data",
                    GW_STR("../../../../../../../../../../../../../../../../../../etc/passwd00"),
                    &a)
                    .p);
    gw_arena_release(&a);
}

static void test_authors(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"ada", "ada <>"},
        {"Ada <ada@x>", "Ada <ada@x>"},
        {" Ada  < ada@x >", "Ada < ada@x >"},
        {"", "hubgate <>"},
        {"<>", "hubgate <>"},
        {"A<b>c\nauthor x <y> 1 +0000\n", "Abcauthor x y 1 +0000 <>"},
        {"\xc3\x89va", "\xc3\x89va <>"},
    };
    struct gw_error err;

    for (size_t i = 0; i < COUNT(rows); i++) {
        char name[16];
        struct repo_id id = {GW_STR("model"), GW_STR("who"), {name, 2}};

        snprintf(name, sizeof(name), "a%zu", i);
        assert_ok(repo_create("data", &id, gw_str_c(rows[i].in), NOW_MS, &err), err);
        assert_sh(rows[i].out,
                  "git --git-dir=data/repos/model/who/a%zu.git log --format='%%an <%%ae>' "
                  "main",
                  i);
        sh("git --git-dir=data/repos/model/who/a%zu.git fsck --full --strict 2>&1", i);
    }
}

/* A dead owner's folder goes, a living one's stays. */
static void test_sweep(void **state)
{
    struct gw_error err;
    int fd;

    sh("mkdir -p data/tmp/repo-dead/new.git data/tmp/repo-alive data/tmp/other && "
       "touch data/tmp/repo-dead.lock data/tmp/repo-alive.lock data/tmp/repo-dead/new.git/x "
       "data/tmp/upload.lock data/tmp/repo-nofolder.lock");
    fd = open("data/tmp/repo-alive.lock", O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_ok(create(ID("model", "acme", "swept"), &err), err);
    assert_sh("other\nrepo-alive\nrepo-alive.lock\nupload.lock", "ls data/tmp");
    close(fd);
    sh("rm -rf data/tmp/other data/tmp/upload.lock");
    assert_ok(create(ID("model", "acme", "swept2"), &err), err);
    assert_no_temp();
}

static int try_create(void *ctx)
{
    int *n = ctx;
    char name[16];
    struct repo_id id = {GW_STR("space"), GW_STR("oom"), {name, 0}};
    struct gw_error err;
    struct repo *r = NULL;
    int rc, opened;

    id.name.n = (size_t)snprintf(name, sizeof(name), "r%d", ++*n);
    rc = repo_create("data", &id, AUTHOR, NOW_MS, &err);
    gw_alloc_fail_at(0);
    opened = repo_open(&r, "data", &id, NULL);
    repo_close(r);
    /* all or nothing; the last step, telling the folder to the disk, may fail after it is there */
    if ((rc == GW_OK) != (opened == GW_OK)) {
        fail_msg("%s, but it opens with %s", gw_status_name((enum gw_status)rc),
                 gw_status_name((enum gw_status)opened));
    }
    return rc;
}

static void test_no_memory(void **state)
{
    struct gw_error err;
    int n = 0;

    for (size_t at = 1; at < 10000; at++) {
        int rc;

        gw_alloc_fail_at(at);
        rc = try_create(&n);
        if (rc == GW_OK) {
            break;
        }
        if (rc != GW_NO_MEMORY && rc != GW_TOO_LARGE) {
            fail_msg("allocation %zu: %s", at, gw_status_name((enum gw_status)rc));
        }
    }
    assert_true(n > 10);
    assert_ok(create(ID("space", "oom", "last"), &err), err);
    assert_no_temp();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_first_commit),
        cmocka_unit_test(test_datasets_begin_with_parquet_as_lfs),
        cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_found_in_any_case),
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_object_path),
        cmocka_unit_test(test_authors),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
