/* SPDX-License-Identifier: Apache-2.0 */
/* What nobody refers to goes, all else stays; fsck says what is not whole. */
#include "base/encode.h"
#include "base/sha.h"
#include "tests/unit/repo/repo_test.h"

#define GIT "git --git-dir=" LLM_GIT " "
#define HELD LLM_GIT "/lfs/objects"
#define OLD_MS                                                                                     \
    (-2000) /* a grace time by which everything is old enough: nobody can set a ctime              \
             */

static char findings[8192];

static void on_finding(void *ctx, const char *text)
{
    size_t n = strlen(findings);

    snprintf(findings + n, sizeof(findings) - n, "%s\n", text);
}

/* One repository and all objects. */
static size_t fsck(bool deep)
{
    struct repo_fsck o = {.deep = deep, .on = on_finding};
    struct gw_error err;
    size_t one = 0, all = 0;

    findings[0] = '\0';
    assert_ok(repo_fsck("data", LLM, &o, &one, &err), err);
    assert_ok(repo_fsck_objects("data", &o, &all, &err), err);
    return one + all;
}

static void assert_found(const char *text, bool deep)
{
    size_t n = fsck(deep);

    if (n == 0 || strstr(findings, text) == NULL) {
        fail_msg("%zu findings, not \"%s\": %s", n, text, findings);
    }
}

static struct repo_gc_sum gc(int64_t grace_ms, bool dry_run)
{
    struct repo_gc o = {.grace_ms = grace_ms, .dry_run = dry_run, .blobs = "blobs"};
    struct repo_gc_sum sum;
    struct gw_error err;

    assert_ok(repo_gc("data", &o, &sum, &err), err);
    return sum;
}

static void upload(const struct repo_id *id, const char *text, char hex[65])
{
    struct repo_upload *u = NULL;
    struct gw_error err;
    uint8_t sum[32];

    gw_sha256_once(text, strlen(text), sum);
    gw_hex_encode(hex, (const char *)sum, sizeof(sum));
    assert_ok(repo_upload_open(&u, "data", &err), err);
    assert_ok(repo_upload_write(u, gw_str_c(text), &err), err);
    assert_ok(repo_upload_finish(u, id, gw_str_c(hex), strlen(text), &err), err);
    repo_upload_close(u);
}

static int commit(const struct repo_id *id, const char *path, const char *sha, bool clean_before,
                  struct gw_error *err)
{
    struct repo_change *c = NULL;
    char tip[41];
    int rc;

    assert_ok(repo_change_open(&c, "data", id, GW_STR("main"), err), *err);
    assert_ok(repo_change_put_object(c, gw_str_c(path), gw_str_c(sha), UINT64_MAX, err), *err);
    if (clean_before) {
        (void)gc(OLD_MS, false);
    }
    rc = repo_change_commit(c, GW_STR("m"), AUTHOR, GW_STR(""), NOW_MS, tip, err);
    repo_change_close(c);
    return rc;
}

static void begin(void)
{
    struct gw_error err;

    sh("chmod -R u+rwX data src 2>/dev/null; rm -rf data src blobs; mkdir src");
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS, &err), err);
}

static void test_uploads(void **state)
{
    char used[65], unused[65];
    struct repo_gc_sum s;
    struct gw_error err;

    begin();
    upload(LLM, "used", used);
    upload(LLM, "never used", unused);
    assert_ok(commit(LLM, "w.bin", used, false, &err), err);
    s = gc(7 * 24 * 3600 * 1000, false);
    assert_int_equal(s.unused + s.objects + s.failed + s.mended, 0);
    s = gc(OLD_MS, true);
    assert_int_equal(s.unused, 1);
    assert_sh("2", "find " HELD " -type f | wc -l");
    s = gc(OLD_MS, false);
    assert_int_equal(s.unused, 1);
    assert_int_equal(s.objects, 1);
    assert_int_equal(s.object_bytes, strlen("never used"));
    assert_sh("1", "find " HELD " -type f | wc -l");
    assert_sh("1", "find data/lfs -type f -name '[0-9a-f]*' | wc -l");
    assert_int_equal(fsck(true), 0);
    assert_no_temp();
}

/* The cache's own link is no use of it; a link by anybody else is. */
static void test_other_links(void **state)
{
    char a[65];
    struct repo_gc_sum s;

    begin();
    upload(LLM, "in the cache", a);
    sh("mkdir -p blobs/%.2s/%.2s && ln data/lfs/%.2s/%.2s/%s blobs/%.2s/%.2s/%s", a, a + 2, a,
       a + 2, a, a, a + 2, a);
    sh("ln data/lfs/%.2s/%.2s/%s somewhere", a, a + 2, a);
    s = gc(OLD_MS, false);
    assert_int_equal(s.unused, 1);
    assert_int_equal(s.objects, 0);
    sh("rm somewhere");
    s = gc(OLD_MS, false);
    assert_int_equal(s.objects, 1);
    sh("test -e blobs/%.2s/%.2s/%s", a, a + 2, a);
}

/* A commit was told that the object is there, and then it went. */
static void test_gone_before_the_commit(void **state)
{
    char a[65], tip[64], now[64];
    struct gw_error err;

    begin();
    upload(LLM, "between", a);
    output(tip, sizeof(tip), GIT "rev-parse main");
    assert_int_equal(commit(LLM, "w.bin", a, true, &err), GW_NOT_FOUND);
    assert_int_equal(err.sys, REPO_NO_OBJECT);
    output(now, sizeof(now), GIT "rev-parse main");
    assert_string_equal(tip, now);
    upload(LLM, "between", a); /* which is what a client does then */
    assert_ok(commit(LLM, "w.bin", a, false, &err), err);
    assert_int_equal(fsck(true), 0);
}

static void test_imports(void **state)
{
    char id[41];
    struct repo_gc_sum s;
    struct gw_error err;

    begin();
    put_noise("src/a.safetensors", 5000, 1);
    put_noise("src/b.bin", 5000, 2);
    assert_ok(import("src", id, &err), err);
    assert_sh("2", "find " HELD " -type f | wc -l");
    s = gc(OLD_MS, false);
    assert_int_equal(s.unused + s.objects + s.mended, 0);
    sh("rm -rf " HELD); /* as old versions left it */
    assert_found("is not linked", false);
    s = gc(OLD_MS, false);
    assert_int_equal(s.mended, 2);
    assert_int_equal(s.objects, 0);
    assert_int_equal(fsck(true), 0);
}

static void test_deleted(void **state)
{
    char a[65], b[65];
    struct repo_gc_sum s;
    struct gw_error err;

    begin();
    assert_ok(repo_create("data", ID("model", "acme", "other"), AUTHOR, NOW_MS, &err), err);
    upload(LLM, "of both", a);
    upload(LLM, "of the deleted one", b);
    upload(ID("model", "acme", "other"), "of both", a);
    assert_ok(commit(LLM, "a.bin", a, false, &err), err);
    assert_ok(commit(LLM, "b.bin", b, false, &err), err);
    assert_ok(commit(ID("model", "acme", "other"), "a.bin", a, false, &err), err);
    assert_ok(repo_delete("data", LLM, INT64_C(32503680000000), &err), err); /* in a far future */
    s = gc(OLD_MS, false);
    assert_int_equal(s.deleted + s.objects + s.unused, 0);
    assert_ok(repo_restore("data", LLM, &err), err);
    assert_int_equal(fsck(true), 0);
    assert_ok(repo_delete("data", LLM, NOW_MS, &err), err);
    s = gc(OLD_MS, true);
    assert_int_equal(s.deleted, 1);
    s = gc(OLD_MS, false);
    assert_int_equal(s.deleted, 1);
    assert_int_equal(s.objects, 1);
    assert_int_equal(repo_restore("data", LLM, &err), GW_NOT_FOUND);
    sh("test -e data/lfs/%.2s/%.2s/%s", a, a + 2, a);
    assert_no_temp();
}

/* Where links cannot tell, nothing goes. */
static void test_in_doubt(void **state)
{
    char a[65], b[65];
    struct repo_gc_sum s;
    struct gw_error err;

    begin();
    upload(LLM, "used", a);
    assert_ok(commit(LLM, "w.bin", a, false, &err), err);
    upload(LLM, "not used", b);
    sh("cp -r data copied && chmod -R u+rwX data && rm -rf data && mv copied data"); /* no links */
    assert_found("is a copy, no link", false);
    s = gc(OLD_MS, false);
    assert_true(s.objects_kept);
    assert_int_equal(s.objects, 0);
    assert_sh("2", "find data/lfs -type f -name '[0-9a-f]*' | wc -l");
    begin();
    upload(LLM, "used", a);
    assert_ok(commit(LLM, "w.bin", a, false, &err), err);
    sh("for p in " LLM_GIT "/objects/pack/*.idx; do chmod u+w $p; echo broken > $p; done");
    s = gc(OLD_MS, false);
    assert_int_equal(s.failed, 1);
    assert_true(s.objects_kept);
    sh("test -e data/lfs/%.2s/%.2s/%s", a, a + 2, a);
}

static void test_temporary(void **state)
{
    struct repo_gc_sum s;

    begin();
    sh("mkdir -p data/tmp/.tmp-x data/tmp/repo-dead && echo x > " LLM_GIT
       "/objects/pack/tmp_pack_x && "
       "mkdir " LLM_GIT "/objects/tmp_objdir-incoming-x");
    s = gc(3600 * 1000, false);
    assert_int_equal(s.temporary, 0);
    s = gc(OLD_MS, false);
    assert_int_equal(s.temporary, 4);
    assert_no_temp();
    assert_fsck(LLM_GIT);
}

static void test_findings(void **state)
{
    char a[65];
    struct gw_error err;

    begin();
    upload(LLM, "these are the bytes", a);
    assert_ok(commit(LLM, "w.bin", a, false, &err), err);
    assert_int_equal(fsck(true), 0);
    sh("f=data/lfs/%.2s/%.2s/%s; chmod u+w $f; printf X | dd of=$f conv=notrunc 2>/dev/null", a,
       a + 2, a);
    assert_int_equal(fsck(false), 0);
    assert_found("its bytes have the sha256", true);
    sh("f=data/lfs/%.2s/%.2s/%s; printf more >> $f", a, a + 2, a);
    assert_found("has 23 bytes, a pointer says 19", false);
    sh("rm -f data/lfs/%.2s/%.2s/%s", a, a + 2, a);
    assert_found("is missing", false);
    sh("touch " HELD "/%.2s/%.2s/stray", a, a + 2);
    assert_found("does not belong here", false);
    begin();
    sh("p=$(ls " LLM_GIT "/objects/pack/*.pack); chmod u+w $p; printf XXXX | dd of=$p bs=1 seek=30 "
       "conv=notrunc 2>/dev/null");
    assert_found("git: ", false);
    assert_int_equal(repo_fsck("data", ID("model", "acme", "none"),
                               &(struct repo_fsck){.on = on_finding}, &(size_t){0}, &err),
                     GW_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uploads),
        cmocka_unit_test(test_other_links),
        cmocka_unit_test(test_gone_before_the_commit),
        cmocka_unit_test(test_imports),
        cmocka_unit_test(test_deleted),
        cmocka_unit_test(test_in_doubt),
        cmocka_unit_test(test_temporary),
        cmocka_unit_test(test_findings),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
