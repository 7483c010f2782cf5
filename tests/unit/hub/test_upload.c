/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of writes: as the real clients send them, and as nobody should. */
#include "base/alloc.h"
#include "base/encode.h"
#include "hub/hub.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SHA "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* ---- commit ---- */

static char said[4096]; /* one line for each callback */

static int on_header(void *ctx, struct gw_str summary, struct gw_str description,
                     struct gw_str parent, struct gw_error *err)
{
    snprintf(said + strlen(said), sizeof(said) - strlen(said),
             "header " GW_STR_FMT "|" GW_STR_FMT "|" GW_STR_FMT "\n", GW_STR_ARG(summary),
             GW_STR_ARG(description), GW_STR_ARG(parent));
    return GW_OK;
}

static int on_file(void *ctx, struct gw_str path, struct gw_str bytes, struct gw_error *err)
{
    if (gw_str_eq_c(path, "stop")) {
        return gw_fail(err, GW_CONFLICT, 7, "stopped");
    }
    snprintf(said + strlen(said), sizeof(said) - strlen(said), "file " GW_STR_FMT " %zu %.*s\n",
             GW_STR_ARG(path), bytes.n, (int)(bytes.n < 20 ? bytes.n : 20), bytes.n ? bytes.p : "");
    return GW_OK;
}

static int on_object(void *ctx, struct gw_str path, struct gw_str sha256, uint64_t size,
                     struct gw_error *err)
{
    snprintf(said + strlen(said), sizeof(said) - strlen(said), "object " GW_STR_FMT " %.4s %lld\n",
             GW_STR_ARG(path), sha256.n ? sha256.p : "", (long long)size);
    return GW_OK;
}

static int on_remove(void *ctx, struct gw_str path, bool folder, struct gw_error *err)
{
    snprintf(said + strlen(said), sizeof(said) - strlen(said), "remove%s " GW_STR_FMT "\n",
             folder ? " folder" : "", GW_STR_ARG(path));
    return GW_OK;
}

static const struct hub_commit_sink sink = {on_header, on_file, on_object, on_remove};

static int read_commit(struct gw_str body, size_t piece, struct gw_error *err)
{
    struct hub_commit_reader *r = hub_commit_reader_new(&sink, NULL);
    int rc = GW_OK;

    assert_non_null(r);
    said[0] = '\0';
    for (size_t at = 0; rc == GW_OK && at < body.n; at += piece) {
        rc = hub_commit_reader_feed(r, gw_str_sub(body, at, piece), err);
    }
    if (rc == GW_OK) {
        rc = hub_commit_reader_finish(r, err);
    }
    hub_commit_reader_free(r);
    return rc;
}

#define HEADER "{\"key\": \"header\", \"value\": {\"summary\": \"s\", \"description\": \"d\"}}\n"

static void test_commit(void **state)
{
    static const char body[] =
        "{\"key\": \"header\", \"value\": {\"summary\": \"Upload\", \"description\": \"\", "
        "\"parentCommit\": \"abc12\"}}\n"
        "{\"key\": \"file\", \"value\": {\"content\": \"aGVsbG8=\", \"path\": \"a.txt\", "
        "\"encoding\": \"base64\"}}\n"
        "{\"key\":\"file\",\"value\":{\"content\":\"plain\",\"path\":\"b\",\"encoding\":\"utf-8\"}}"
        "\r\n"
        "\n"
        "{\"value\":{\"path\":\"w.bin\",\"algo\":\"sha256\",\"oid\":\"" SHA
        "\",\"size\":12},\"key\":\"lfsFile\"}\n"
        "{\"key\":\"lfsFile\",\"value\":{\"path\":\"copy\",\"algo\":\"sha256\",\"oid\":\"" SHA
        "\",\"size\":null}}\n"
        "{\"key\": \"deletedFile\", \"value\": {\"path\": \"old\"}}\n"
        "{\"key\": \"deletedFolder\", \"value\": {\"path\": \"sub/\", \"later\": [1, {}]}}";
    struct gw_error err;

    for (size_t piece = 1; piece < sizeof(body); piece = piece * 3) {
        assert_int_equal(read_commit(GW_STR(body), piece, &err), GW_OK);
        assert_string_equal(said, "header Upload||abc12\n"
                                  "file a.txt 5 hello\n"
                                  "file b 5 plain\n"
                                  "object w.bin e3b0 12\n"
                                  "object copy e3b0 -1\n"
                                  "remove old\n"
                                  "remove folder sub/\n");
    }
}

static void test_commit_refused(void **state)
{
    static const struct {
        const char *body, *why;
        int status;
    } rows[] = {
        {"", "no header", GW_INVALID},
        {"\n\n", "no header", GW_INVALID},
        {"[]\n", "not a JSON object", GW_INVALID},
        {"{\"key\":\"file\",\"value\":{}}\n", "first line", GW_INVALID},
        {HEADER HEADER, "second header", GW_INVALID},
        {HEADER "{\"key\":\"copyFile\",\"value\":{\"path\":\"x\"}}\n", "unknown key \"copyFile\"",
         GW_INVALID},
        {HEADER "{\"value\":{\"path\":\"x\"}}\n", "unknown key", GW_INVALID},
        {HEADER "{\"key\":\"file\",\"value\":{\"path\":\"x\"}}\n", "without content", GW_INVALID},
        {HEADER "{\"key\":\"file\",\"value\":{\"content\":\"eA==\"}}\n", "no path", GW_INVALID},
        {HEADER "{\"key\":\"file\",\"value\":{\"path\":\"x\",\"content\":\"e\",\"encoding\":"
                "\"base64\"}}\n",
         "no base64", GW_INVALID},
        {HEADER "{\"key\":\"file\",\"value\":{\"path\":\"x\",\"content\":\"e\",\"encoding\":"
                "\"hex\"}}\n",
         "encoding", GW_INVALID},
        {HEADER "{\"key\":\"file\",\"value\":{\"path\":\"x\",\"path\":\"y\",\"content\":\"\"}}\n",
         "twice", GW_INVALID},
        {HEADER
         "{\"key\":\"lfsFile\",\"value\":{\"path\":\"x\",\"oid\":\"o\",\"oldPath\":\"y\"}}\n",
         "oldPath", GW_INVALID},
        {HEADER "{\"key\":\"lfsFile\",\"value\":{\"path\":\"x\",\"algo\":\"md5\"}}\n", "sha256",
         GW_INVALID},
        {HEADER "{\"key\":\"lfsFile\",\"value\":{\"path\":\"x\",\"size\":-1}}\n", "size",
         GW_INVALID},
        {HEADER "{\"key\":\"deletedFile\",\"value\":\n", "line 2", GW_INVALID},
        {HEADER "{\"key\":\"file\",\"value\":{\"path\":\"stop\",\"content\":\"\"}}\n", "stopped",
         GW_CONFLICT},
    };
    struct gw_error err;

    for (size_t i = 0; i < COUNT(rows); i++) {
        err.text[0] = '\0';
        assert_int_equal(read_commit(gw_str_c(rows[i].body), 7, &err), rows[i].status);
        if (strstr(err.text, rows[i].why) == NULL) {
            fail_msg("%s: %s", rows[i].body, err.text);
        }
    }
}

static void test_commit_line_without_end(void **state)
{
    static const char start[] = HEADER "{\"key\":\"file\",\"value\":{\"content\":\"";
    struct hub_commit_reader *r = hub_commit_reader_new(&sink, NULL);
    static char piece[1u << 20];
    struct gw_error err;
    int rc, fed = 0;

    said[0] = '\0';
    memset(piece, 'A', sizeof(piece));
    rc = hub_commit_reader_feed(r, GW_STR(start), &err);
    while (rc == GW_OK && fed < 1000) {
        rc = hub_commit_reader_feed(r, (struct gw_str){piece, sizeof(piece)}, &err);
        fed++;
    }
    assert_int_equal(rc, GW_TOO_LARGE);
    assert_true(fed <= 15);
    hub_commit_reader_free(r);
}

/* ---- preupload, batch ---- */

static void test_preupload(void **state)
{
    struct hub_preupload p;
    struct gw_arena a;
    struct gw_error err;
    struct gw_buf b;

    gw_arena_init(&a, 4u << 20);
    assert_int_equal(
        hub_preupload_parse(
            &p,
            GW_STR("{\"files\": [{\"path\": \"m.bin\", \"size\": 123, \"sample\": \"AAE=\"}, "
                   "{\"sample\": \"***\", \"size\": 0, \"path\": \"e\", \"new\": {\"path\": 1}}], "
                   "\"other\": [{\"path\": 5}], \"gitIgnore\": \"*.tmp\"}"),
            &a, &err),
        GW_OK);
    assert_int_equal(p.n, 2);
    assert_true(gw_str_eq_c(p.files[0].path, "m.bin") && p.files[0].size == 123);
    assert_int_equal(p.files[0].sample.n, 2);
    assert_true(gw_str_eq_c(p.files[1].path, "e") && p.files[1].size == 0);
    assert_int_equal(p.files[1].sample.n, 0);
    assert_true(gw_str_eq_c(p.ignore, "*.tmp") && p.attributes.p == NULL);
    for (size_t i = 0; i < 5; i++) {
        static const char *const bad[] = {"[]", "{\"files\":[{\"path\":\"x\"}]}",
                                          "{\"files\":[{\"size\":1}]}", "{\"files\":[1]}",
                                          "{\"files\":[{\"path\":\"x\",\"size\":1.5}]}"};

        assert_int_equal(hub_preupload_parse(&p, gw_str_c(bad[i]), &a, &err), GW_INVALID);
    }
    gw_buf_init(&b, 4096);
    gw_buf_add_c(&b, "[");
    hub_put_preupload(&b, GW_STR("a\"b"), true, false, GW_STR(SHA));
    hub_put_preupload(&b, GW_STR("c"), false, true, GW_STR(""));
    assert_string_equal(
        b.p, "[{\"path\":\"a\\\"b\",\"uploadMode\":\"lfs\",\"shouldIgnore\":false,\"oid\":\"" SHA
             "\"},{\"path\":\"c\",\"uploadMode\":\"regular\",\"shouldIgnore\":true}");
    gw_buf_release(&b);
    gw_arena_release(&a);
}

static void test_preupload_limit(void **state)
{
    struct hub_preupload p;
    struct gw_arena a;
    struct gw_error err;
    struct gw_buf b;

    gw_arena_init(&a, 16u << 20);
    gw_buf_init(&b, 1u << 20);
    gw_buf_add_c(&b, "{\"files\":[");
    for (unsigned i = 0; i <= HUB_PREUPLOAD_MAX; i++) {
        gw_buf_addf(&b, "%s{\"path\":\"%u\",\"size\":1}", i ? "," : "", i);
    }
    gw_buf_add_c(&b, "]}");
    assert_int_equal(hub_preupload_parse(&p, gw_buf_str(&b), &a, &err), GW_TOO_LARGE);
    gw_buf_release(&b);
    gw_arena_release(&a);
}

static void test_batch(void **state)
{
    struct hub_batch x;
    struct gw_arena a;
    struct gw_error err;
    struct gw_buf b;

    gw_arena_init(&a, 4u << 20);
    assert_int_equal(hub_batch_parse(&x,
                                     GW_STR("{\"operation\":\"upload\",\"transfers\":[\"basic\","
                                            "\"multipart\"],\"objects\":[{\"oid\":\"" SHA
                                            "\",\"size\":0}],\"hash_algo\":\"sha_256\",\"ref\":"
                                            "{\"name\":\"main\"}}"),
                                     &a, &err),
                     GW_OK);
    assert_true(x.upload && x.multipart && x.n == 1 && gw_str_eq_c(x.ref, "main"));
    assert_string_equal(x.objects[0].oid, SHA);
    for (size_t i = 0; i < 6; i++) {
        static const char *const bad[] = {
            "{}",
            "{\"operation\":\"verify\",\"objects\":[]}",
            "{\"operation\":\"upload\"}",
            "{\"operation\":\"upload\",\"objects\":[{\"oid\":\"x\",\"size\":1}]}",
            "{\"operation\":\"upload\",\"objects\":[{\"oid\":\"" SHA "\",\"size\":-1}]}",
            "{\"operation\":\"upload\",\"objects\":[],\"hash_algo\":\"md5\"}"};

        assert_int_equal(hub_batch_parse(&x, gw_str_c(bad[i]), &a, &err), GW_INVALID);
    }
    assert_int_equal(
        hub_batch_parse(&x, GW_STR("{\"operation\":\"download\",\"objects\":[]}"), &a, &err),
        GW_OK);
    assert_true(!x.upload && !x.multipart && x.n == 0);
    gw_buf_init(&b, 1u << 16);
    {
        struct hub_batch_object o = {.oid = SHA, .size = 7};
        struct gw_str parts[] = {GW_STR("p1"), GW_STR("p2")};

        hub_batch_begin(&b, true);
        hub_put_batch(&b, &(struct hub_batch_answer){.object = &o});
        hub_put_batch(
            &b, &(struct hub_batch_answer){.object = &o, .error = 507, .message = GW_STR("full")});
        hub_put_batch(&b, &(struct hub_batch_answer){.object = &o,
                                                     .action = GW_STR("upload"),
                                                     .href = GW_STR("h"),
                                                     .verify_href = GW_STR("v"),
                                                     .chunk_size = GW_STR("5"),
                                                     .parts = parts,
                                                     .n_parts = 2,
                                                     .expires_in_s = 60});
        hub_batch_end(&b);
    }
    assert_string_equal(
        b.p, "{\"transfer\":\"multipart\",\"objects\":[{\"oid\":\"" SHA "\",\"size\":7},"
             "{\"oid\":\"" SHA "\",\"size\":7,\"error\":{\"code\":507,\"message\":\"full\"}},"
             "{\"oid\":\"" SHA "\",\"size\":7,\"actions\":{\"upload\":{\"href\":\"h\","
             "\"expires_in\":60,\"header\":{\"chunk_size\":\"5\",\"00001\":\"p1\",\"00002\":"
             "\"p2\"}},\"verify\":{\"href\":\"v\",\"expires_in\":60}}}],\"hash_algo\":\"sha256\"}");
    gw_buf_release(&b);
    gw_arena_release(&a);
}

static void test_complete(void **state)
{
    static const struct {
        const char *body;
        int status;
        const char *text;
    } rows[] = {
        {"{\"oid\":\"" SHA
         "\",\"parts\":[{\"partNumber\":2,\"etag\":\"\\\"b\\\"\"},{\"partNumber\":1}]}",
         GW_OK, NULL},
        {"{\"oid\":\"" SHA "\",\"parts\":[{\"partNumber\":2}]}", GW_INVALID, "part 1 is not named"},
        {"{\"oid\":\"" SHA "\"}", GW_INVALID, "part 1 is not named"},
        {"{\"oid\":\"" SHA "\",\"parts\":[{\"partNumber\":1},{\"partNumber\":1}]}", GW_INVALID,
         NULL},
        {"{\"oid\":\"" SHA "\",\"parts\":[{\"partNumber\":0}]}", GW_INVALID, NULL},
        {"{\"oid\":\"" SHA "\",\"parts\":[{\"partNumber\":3}]}", GW_INVALID, NULL},
        {"{\"oid\":\"" SHA "\",\"parts\":[1]}", GW_INVALID, NULL},
        {"{\"oid\":\"x\",\"parts\":[]}", GW_INVALID, "\"oid\" is not that of this upload"},
        {"[]", GW_INVALID, NULL},
        {"", GW_INVALID, NULL},
    };
    struct gw_error err;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(hub_complete_check(gw_str_c(rows[i].body), GW_STR(SHA), 2, &err),
                         rows[i].status);
        if (rows[i].text != NULL) {
            assert_string_equal(err.text, rows[i].text);
        }
    }
    assert_int_equal(hub_complete_check(GW_STR("{}"), GW_STR(SHA), 1001, &err), GW_INVALID);
}

static void test_settings(void **state)
{
    static const struct {
        const char *body;
        int status;
        enum hub_settings found;
    } rows[] = {
        {"{}", GW_OK, HUB_SETTINGS_SAME},
        {"{\"private\":true,\"gated\":false}", GW_OK, HUB_SETTINGS_SAME},
        {"{\"visibility\":\"private\"}", GW_OK, HUB_SETTINGS_SAME},
        {"{\"private\":false}", GW_OK, HUB_SETTINGS_VISIBILITY},
        {"{\"private\":\"x\"}", GW_OK, HUB_SETTINGS_VISIBILITY},
        {"{\"visibility\":\"public\",\"gated\":\"auto\"}", GW_OK, HUB_SETTINGS_VISIBILITY},
        {"{\"visibility\":\"private\",\"gated\":\"manual\"}", GW_OK, HUB_SETTINGS_OTHER},
        {"{\"gated\":0}", GW_OK, HUB_SETTINGS_OTHER},
        {"{\"description\":false}", GW_OK, HUB_SETTINGS_OTHER},
        {"[]", GW_INVALID, 0},
        {"", GW_INVALID, 0},
    };
    enum hub_settings found;
    struct gw_error err;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(hub_settings_parse(&found, gw_str_c(rows[i].body), &err), rows[i].status);
        if (rows[i].status == GW_OK) {
            assert_int_equal(found, rows[i].found);
        }
    }
}

static void test_committed(void **state)
{
    struct gw_buf b;

    gw_buf_init(&b, 4096);
    hub_put_committed(&b, GW_STR("c0"), GW_STR("https://h/a/b/commit/c0"), GW_STR(""));
    assert_string_equal(b.p, "{\"success\":true,\"commitOid\":\"c0\",\"commitUrl\":"
                             "\"https://h/a/b/commit/c0\",\"hookOutput\":\"\","
                             "\"pullRequestUrl\":null}");
    gw_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit),
        cmocka_unit_test(test_commit_refused),
        cmocka_unit_test(test_commit_line_without_end),
        cmocka_unit_test(test_preupload),
        cmocka_unit_test(test_preupload_limit),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_committed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
