/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_doc_reader.c - documents without Xet hints, compact, in any pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define SHA "0123456789abcdef0123456789abcdef01234567"

struct got {
    struct gw_buf out;
    char sha[64], id[256];
};

static int read_doc(struct got *g, struct gw_str json, size_t max, struct gw_error *err)
{
    struct hub_doc_reader *r;
    struct gw_str s;
    int rc = GW_OK;

    gw_buf_init(&g->out, max);
    r = hub_doc_reader_new(&g->out);
    if (r == NULL) {
        return GW_NO_MEMORY;
    }
    for (size_t at = 0; at < json.n && rc == GW_OK;) {
        size_t n = 1 + (size_t)rand() % 13;
        struct gw_str part = gw_str_sub(json, at, n);
        char *copy = malloc(part.n);

        memcpy(copy, part.p, part.n);
        rc = hub_doc_reader_feed(r, (struct gw_str){copy, part.n}, err);
        free(copy);
        at += n;
    }
    if (rc == GW_OK) {
        rc = hub_doc_reader_finish(r, err);
    }
    s = hub_doc_reader_sha(r);
    snprintf(g->sha, sizeof(g->sha), GW_STR_FMT, GW_STR_ARG(s));
    s = hub_doc_reader_id(r);
    snprintf(g->id, sizeof(g->id), GW_STR_FMT, GW_STR_ARG(s));
    hub_doc_reader_free(r);
    return rc;
}

static void documents(void **state)
{
    static const struct {
        const char *json, *out, *sha, *id;
    } rows[] = {
        {"{}", "{}", "", ""},
        {" { \"a\" : [ 1 , 2 , { } , [ ] , null , true , false ] } ",
         "{\"a\":[1,2,{},[],null,true,false]}", "", ""},
        {"{\"id\":\"openai-community/gpt2\",\"sha\":\"" SHA "\"}",
         "{\"id\":\"openai-community/gpt2\",\"sha\":\"" SHA "\"}", SHA, "openai-community/gpt2"},
        {"{\"xetEnabled\":true,\"id\":\"a\"}", "{\"id\":\"a\"}", "", "a"},
        {"{\"id\":\"a\",\"xetEnabled\":true}", "{\"id\":\"a\"}", "", "a"},
        {"{\"a\":1,\"xetHash\":{\"deep\":[{\"xetHash\":1}]},\"b\":2}", "{\"a\":1,\"b\":2}", "", ""},
        {"{\"siblings\":[{\"rfilename\":\"f\",\"xetHash\":\"x\",\"lfs\":{\"xetHash\":\"y\"}}]}",
         "{\"siblings\":[{\"rfilename\":\"f\",\"lfs\":{}}]}", "", ""},
        {"{\"xet\\u0048ash\":1}", "{}", "", ""}, /* spelled otherwise, read the same */
        {"{\"xetHash\":1,\"xetHash\":2}", "{}", "", ""},
        {"[{\"sha\":\"" SHA "\",\"id\":\"x\"}]", "[{\"sha\":\"" SHA "\",\"id\":\"x\"}]", "", ""},
        {"[[\"sha\",\"" SHA "\"]]", "[[\"sha\",\"" SHA "\"]]", "", ""},
        {"{\"sub\":{\"sha\":\"" SHA "\",\"id\":\"x\"}}",
         "{\"sub\":{\"sha\":\"" SHA "\",\"id\":\"x\"}}", "", ""},
        {"{\"sha\":\"main\",\"id\":\"a/b/c\"}", "{\"sha\":\"main\",\"id\":\"a/b/c\"}", "", ""},
        {"{\"sha\":[\"" SHA "\"],\"id\":7}", "{\"sha\":[\"" SHA "\"],\"id\":7}", "", ""},
        {"{\"id\":\"../x\"}", "{\"id\":\"../x\"}", "", ""},
        {"{\"id\":\"datasets/x\"}", "{\"id\":\"datasets/x\"}", "", ""},
        {"{\"id\":\"a\",\"id\":\"b\"}", "{\"id\":\"a\",\"id\":\"b\"}", "", "b"},
        {"{\"id\":\"a\",\"id\":null}", "{\"id\":\"a\",\"id\":null}", "", ""},
        {"\"text\\n\\u00e9\"", "\"text\\n\xc3\xa9\"", "", ""},
        {"12.50e+3", "12.50e+3", "", ""},
        {"[\"xetHash\",\"xetEnabled\"]", "[\"xetHash\",\"xetEnabled\"]", "", ""},
    };

    srand(1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int again = 0; again < 8; again++) {
            struct gw_error err = {0};
            struct got g;
            int rc = read_doc(&g, gw_str_c(rows[i].json), 65536, &err);

            if (rc != GW_OK || strcmp(g.out.p, rows[i].out) != 0) {
                fail_msg("%s: %s %s", rows[i].json, err.text, g.out.p);
            }
            assert_string_equal(g.sha, rows[i].sha);
            assert_string_equal(g.id, rows[i].id);
            gw_buf_release(&g.out);
        }
    }
}

static void refused(void **state)
{
    static const struct {
        const char *json;
        size_t max;
        int rc;
    } rows[] = {
        {"", 100, GW_INVALID},
        {"{", 100, GW_INVALID},
        {"{\"a\":}", 100, GW_INVALID},
        {"{} {}", 100, GW_INVALID},
        {"<!doctype html>", 100, GW_INVALID},
        {"\"\xff\"", 100, GW_INVALID},
        {"[\"0123456789\"]", 5, GW_TOO_LARGE},
        {"[1,2,3,4,5,6]", 12, GW_TOO_LARGE},
        {"[1,2,3,4,5,6]", 13, GW_OK},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_error err = {0};
        struct got g;
        int rc = read_doc(&g, gw_str_c(rows[i].json), rows[i].max, &err);

        if (rc != rows[i].rc) {
            fail_msg("%s: got %s", rows[i].json, gw_status_name((enum gw_status)rc));
        }
        assert_true(rc == GW_OK || err.text[0] != '\0');
        gw_buf_release(&g.out);
    }
}

/* Behind what out holds already. */
static void appends(void **state)
{
    struct hub_doc_reader *r;
    struct gw_buf out;

    gw_buf_init(&out, 100);
    gw_buf_add_c(&out, "[1,");
    r = hub_doc_reader_new(&out);
    assert_int_equal(hub_doc_reader_feed(r, GW_STR("{\"a\":1}"), NULL), GW_OK);
    assert_int_equal(hub_doc_reader_finish(r, NULL), GW_OK);
    hub_doc_reader_free(r);
    hub_doc_reader_free(NULL);
    assert_string_equal(out.p, "[1,{\"a\":1}");
    gw_buf_release(&out);
}

static int read_once(void *ctx)
{
    struct got g;
    int rc = read_doc(&g,
                      GW_STR("{\"a\":[1,2,{\"b\":\"a longer text, so that the buffer must grow: "
                             "0123456789012345678901234567890123456789\"}]}"),
                      65536, NULL);

    gw_buf_release(&g.out);
    return rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(read_once, NULL, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents),
        cmocka_unit_test(refused),
        cmocka_unit_test(appends),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
