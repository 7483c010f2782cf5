/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_body.c - paths-info and token bodies, as forms and as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define FORM "application/x-www-form-urlencoded"
#define JSON "application/json"

/* "a|b/c expand", or the status. */
static void outcome(struct gw_buf *out, const char *content_type, struct gw_str body)
{
    struct gw_str *paths = NULL;
    struct gw_error err = {0};
    struct gw_arena a;
    size_t n = 99;
    bool expand = false;
    int rc;

    gw_arena_init(&a, 8 << 20);
    rc = hub_paths_parse(&paths, &n, &expand, gw_str_c(content_type), body, &a, &err);
    if (rc == GW_OK) {
        for (size_t i = 0; i < n; i++) {
            gw_buf_addf(out, "%s" GW_STR_FMT, i != 0 ? "|" : "", GW_STR_ARG(paths[i]));
        }
        gw_buf_add_c(out, expand ? " expand" : "");
    } else {
        assert_int_equal(err.status, rc);
        assert_int_equal(n, 99);
        gw_buf_add_c(out, gw_status_name((enum gw_status)rc));
    }
    gw_arena_release(&a);
}

static void paths(void **state)
{
    static const struct {
        const char *content_type, *body, *expected;
    } rows[] = {
        {FORM, "paths=a&paths=b%2Fc&expand=true", "a|b/c expand"},
        {FORM, "paths=a&paths=b%2Fc&expand=True", "a|b/c expand"},
        {FORM "; charset=utf-8", "paths=a+b&expand=False", "a b"},
        {FORM, "paths[]=a&paths%5B%5D=b&other=%20", "a|b"},
        {FORM, "", ""},
        {FORM, "expand=1", " expand"},
        {FORM, "paths=&paths=%2Fa&paths=a%2F&paths=a%2F%2Fb&paths=ok", "ok"},
        {FORM, "paths=%zz", "GW_INVALID"},
        {FORM, "paths=a%00b", "GW_INVALID"},
        {FORM, "paths=..%2Fa", "GW_INVALID"},
        {FORM, "paths=a%2F.%2Fb", "GW_INVALID"},
        {FORM, "paths=%ff", "GW_INVALID"},
        {FORM, "paths=a%5Cb", "GW_INVALID"},
        {JSON, "{\"paths\":[\"a\",\"b/c\"],\"expand\":true}", "a|b/c expand"},
        {JSON "; charset=UTF-8", " { \"expand\" : false, \"paths\" : [ \"\\u00e9\" ] } ",
         "\xc3\xa9"},
        {"Application/JSON", "{\"paths\":\"a\",\"expand\":1}", "a expand"},
        {JSON, "{\"expand\":\"true\",\"paths\":[]}", " expand"},
        {JSON, "{\"other\":{\"paths\":[1,{}]},\"paths\":[\"a\"]}", "a"},
        {JSON, "{}", ""},
        {JSON, "[]", "GW_INVALID"},
        {JSON, "\"a\"", "GW_INVALID"},
        {JSON, "", "GW_INVALID"},
        {JSON, "{\"paths\":[\"a\"", "GW_INVALID"},
        {JSON, "{\"paths\":[1]}", "GW_INVALID"},
        {JSON, "{\"paths\":[[\"a\"]]}", "GW_INVALID"},
        {JSON, "{\"paths\":{\"a\":\"b\"}}", "GW_INVALID"},
        {JSON, "{\"paths\":null}", "GW_INVALID"},
        {JSON, "{\"paths\":[\"a\\u0000b\"]}", "GW_INVALID"},
        {JSON, "{\"paths\":[\"../x\"]}", "GW_INVALID"},
        {"", "paths=a", "GW_INVALID"},
        {"text/plain", "paths=a", "GW_INVALID"},
        {"multipart/form-data; boundary=x", "paths=a", "GW_INVALID"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_buf b;

        gw_buf_init(&b, 65536);
        outcome(&b, rows[i].content_type, gw_str_c(rows[i].body));
        if (!gw_str_eq_c(gw_buf_str(&b), rows[i].expected)) {
            fail_msg("%s %s: got \"%s\"", rows[i].content_type, rows[i].body, b.p);
        }
        gw_buf_release(&b);
    }
}

static void path_ceilings(void **state)
{
    for (int json = 0; json < 2; json++) {
        for (int count = 1000; count <= 1001; count++) {
            struct gw_buf body, got;
            char expected_first[] = "p0|";

            gw_buf_init(&body, 1 << 20);
            gw_buf_init(&got, 1 << 20);
            gw_buf_add_c(&body, json ? "{\"paths\":[" : "");
            for (int i = 0; i < count; i++) {
                gw_buf_addf(&body, json ? "%s\"p%d\"" : "%spaths=p%d",
                            i == 0 ? ""
                            : json ? ","
                                   : "&",
                            i);
            }
            gw_buf_add_c(&body, json ? "]}" : "");
            outcome(&got, json ? JSON : FORM, gw_buf_str(&body));
            if (count == 1000) {
                assert_true(gw_str_starts(gw_buf_str(&got), gw_str_c(expected_first)));
                assert_true(gw_str_ends(gw_buf_str(&got), GW_STR("|p999")));
            } else {
                assert_string_equal(got.p, "GW_TOO_LARGE");
            }
            gw_buf_release(&body);
            gw_buf_release(&got);
        }
        for (size_t n = HUB_PATH_MAX; n <= HUB_PATH_MAX + 1; n++) {
            struct gw_buf body, got;

            gw_buf_init(&body, 1 << 20);
            gw_buf_init(&got, 1 << 20);
            gw_buf_add_c(&body, json ? "{\"paths\":[\"" : "paths=");
            for (size_t i = 0; i < n; i++) {
                gw_buf_add_char(&body, 'x');
            }
            gw_buf_add_c(&body, json ? "\"]}" : "");
            outcome(&got, json ? JSON : FORM, gw_buf_str(&body));
            if (n == HUB_PATH_MAX) {
                assert_int_equal(got.n, HUB_PATH_MAX);
            } else {
                assert_string_equal(got.p, "GW_TOO_LARGE");
            }
            gw_buf_release(&body);
            gw_buf_release(&got);
        }
    }
}

static void field(void **state)
{
    static const struct {
        const char *content_type, *body, *expected;
    } rows[] = {
        {FORM, "name=my+laptop&role=read", "my laptop"},
        {FORM, "role=read", ""},
        {FORM, "name=", ""},
        {FORM, "name", ""},
        {FORM, "name=%C3%A9", "\xc3\xa9"},
        {FORM, "name=a&name=b", "GW_INVALID"},
        {FORM, "name=%0a", "GW_INVALID"},
        {FORM, "name=%zz", "GW_INVALID"},
        {FORM, "other=%zz", "GW_INVALID"},
        {JSON, "{\"name\":\"my laptop\",\"role\":\"read\"}", "my laptop"},
        {JSON, "{\"name\":30}", "30"},
        {JSON, "{\"name\":true}", "true"},
        {JSON, "{\"name\":null}", ""},
        {JSON, "{\"name\":\"null\"}", "null"},
        {JSON, "{}", ""},
        {JSON, "{\"name\":[]}", "GW_INVALID"},
        {JSON, "{\"name\":{}}", "GW_INVALID"},
        {JSON, "{\"name\":\"a\\u0000\"}", "GW_INVALID"},
        {JSON, "{\"name\":\"a\",\"name\":\"b\"}", "GW_INVALID"},
        {JSON, "[\"name\"]", "GW_INVALID"},
        {JSON, "name=x", "GW_INVALID"},
        {"", "name=x", "GW_INVALID"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_str value = GW_STR("untouched");
        struct gw_error err = {0};
        struct gw_arena a;
        int rc;

        gw_arena_init(&a, 65536);
        rc = hub_field(&value, "name", gw_str_c(rows[i].content_type), gw_str_c(rows[i].body), &a,
                       &err);
        if (rc != GW_OK) {
            assert_true(gw_str_eq_c(value, "untouched"));
            assert_int_equal(err.status, rc);
            value = gw_str_c(gw_status_name((enum gw_status)rc));
        }
        if (!gw_str_eq_c(value, rows[i].expected)) {
            fail_msg("%s: got \"" GW_STR_FMT "\"", rows[i].body, GW_STR_ARG(value));
        }
        gw_arena_release(&a);
    }
}

static void field_ceiling(void **state)
{
    struct gw_str value;
    struct gw_arena a;
    char *body = gw_alloc(GW_JSON_DOC_MAX + 2);

    gw_arena_init(&a, 65536);
    memset(body, 'x', GW_JSON_DOC_MAX + 1);
    assert_int_equal(hub_field(&value, "name", GW_STR(FORM),
                               (struct gw_str){body, GW_JSON_DOC_MAX + 1}, &a, NULL),
                     GW_TOO_LARGE);
    gw_arena_release(&a);
    gw_free(body);
}

struct call {
    const char *content_type, *body;
};

static int parse_once(void *ctx)
{
    const struct call *c = ctx;
    struct gw_str *list;
    struct gw_str value;
    struct gw_arena a;
    bool expand;
    size_t n;
    int rc;

    gw_arena_init(&a, 1 << 20);
    rc =
        hub_paths_parse(&list, &n, &expand, gw_str_c(c->content_type), gw_str_c(c->body), &a, NULL);
    if (rc == GW_OK) {
        rc = hub_field(&value, "x", gw_str_c(c->content_type), gw_str_c(c->body), &a, NULL);
    }
    gw_arena_release(&a);
    return rc;
}

static void no_memory(void **state)
{
    struct call form = {FORM, "paths=%61&paths=b&x=%61"};
    struct call json = {JSON, "{\"paths\":[\"a\",\"b\"],\"x\":1}"};

    with_failing_alloc(parse_once, &form, 1);
    with_failing_alloc(parse_once, &json, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),         cmocka_unit_test(path_ceilings), cmocka_unit_test(field),
        cmocka_unit_test(field_ceiling), cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
