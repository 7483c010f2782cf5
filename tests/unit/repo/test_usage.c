/* SPDX-License-Identifier: Apache-2.0 */
/* How many bytes repositories hold: the note, and what makes it wrong. */
#include "base/encode.h"
#include "base/sha.h"
#include "tests/unit/repo/repo_test.h"

#define NOTE LLM_GIT "/.gw.usage"

static int fresh(void **state)
{
    struct gw_error err;

    sh("rm -rf data");
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS, &err), err);
    return 0;
}

static uint64_t usage(void)
{
    uint64_t bytes = 0;
    struct gw_error err;

    assert_ok(repo_usage("data", LLM, &bytes, &err), err);
    return bytes;
}

static uint64_t of_namespace(const char *ns)
{
    uint64_t bytes = 1;
    struct gw_error err;

    assert_ok(repo_ns_usage("data", gw_str_c(ns), &bytes, &err), err);
    return bytes;
}

static uint64_t du(void)
{
    char out[64];

    assert_int_equal(output(out, sizeof(out),
                            "find " LLM_GIT "/objects " LLM_GIT
                            "/lfs/objects -type f -printf '%%s\\n' 2>/dev/null | "
                            "awk '{n += $1} END {print n + 0}'"),
                     0);
    return strtoull(out, NULL, 10);
}

static void add_object(const char *text)
{
    struct repo_upload *u = NULL;
    uint8_t sum[32];
    char hex[65];
    struct gw_error err;

    gw_sha256_once(text, strlen(text), sum);
    gw_hex_encode(hex, sum, 32);
    assert_ok(repo_upload_open(&u, "data", &err), err);
    assert_ok(repo_upload_write(u, gw_str_c(text), &err), err);
    assert_ok(repo_upload_finish(u, LLM, gw_str_c(hex), strlen(text), &err), err);
    repo_upload_close(u);
}

static void age(void)
{
    sh("touch -d '1 hour ago' " LLM_GIT "/objects/pack && test ! -d " LLM_GIT
       "/lfs/objects || touch -d '1 hour ago' " LLM_GIT "/lfs/objects");
}

/* Each new object and each commit is seen, although the note was right a moment ago. */
static void test_what_changes(void **state)
{
    struct repo_change *c = NULL;
    char commit[41];
    struct gw_error err;
    uint64_t before;

    age();
    assert_int_equal(usage(), du());
    sh("test -s " NOTE);
    for (int i = 0; i < 20; i++) {
        char text[32];

        snprintf(text, sizeof(text), "object %d", i);
        before = usage();
        add_object(text);
        assert_int_equal(usage(), before + strlen(text));
        assert_int_equal(usage(), du());
    }
    age();
    before = usage();
    assert_ok(repo_change_open(&c, "data", LLM, GW_STR("main"), &err), err);
    assert_ok(repo_change_put(c, GW_STR("a"), GW_STR("some text"), &err), err);
    assert_ok(repo_change_commit(c, GW_STR("m"), AUTHOR, GW_STR(""), NOW_MS, commit, &err), err);
    repo_change_close(c);
    assert_true(usage() > before);
    assert_int_equal(usage(), du());
    assert_int_equal(of_namespace("acme"), du());
}

/* The note is believed while the times are the same; one that is damaged is not. */
static void test_the_note(void **state)
{
    static const char *const damaged[] = {"", "hubgate usage 2 1 1 1 1 1.", "hubgate usage 1 7 x",
                                          "hubgate usage 1 7 1 1 1 1.more"};
    char note[256], changed[300];

    add_object("something");
    age();
    assert_int_equal(usage(), du());
    assert_int_equal(output(note, sizeof(note), "cat " NOTE), 0);
    snprintf(changed, sizeof(changed), "hubgate usage 1 7%s", strchr(note + 16, ' '));
    put_text(NOTE, changed);
    assert_int_equal(usage(), 7);
    for (size_t i = 0; i < COUNT(damaged); i++) {
        put_text(NOTE, damaged[i]);
        assert_int_equal(usage(), du());
    }
    sh("rm " NOTE " && mkdir " NOTE);
    assert_int_equal(usage(), du());
}

static void test_namespaces(void **state)
{
    struct gw_error err;
    uint64_t bytes;

    assert_int_equal(of_namespace("none"), 0);
    bytes = of_namespace("acme");
    assert_true(bytes > 0 && bytes == of_namespace("ACME"));
    assert_ok(repo_create("data", ID("dataset", "acme", "d"), AUTHOR, NOW_MS, &err), err);
    assert_ok(repo_create("data", ID("model", "lab", "d"), AUTHOR, NOW_MS, &err), err);
    assert_true(of_namespace("acme") > bytes);
    assert_ok(repo_delete("data", LLM, NOW_MS, &err), err);
    assert_ok(repo_delete("data", ID("dataset", "acme", "d"), NOW_MS, &err), err);
    assert_int_equal(of_namespace("acme"), 0);
    assert_int_equal(repo_usage("data", LLM, &bytes, &err), GW_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_what_changes, fresh),
        cmocka_unit_test_setup(test_the_note, fresh),
        cmocka_unit_test_setup(test_namespaces, fresh),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
