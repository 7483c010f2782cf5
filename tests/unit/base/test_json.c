/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"
#include "tests/unit/failing.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- reading a document ---- */

static void test_parse_refuses(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "line 1"},
        {"{", "line 1"},
        {"{\n\"a\": }", "line 2, column 6"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"a\":1} x", "line 1"},
        {"\"\xff\"", "decode byte"},
        {"\"\xed\xa0\x80\"", "decode byte"},
        {"[1,]", "line 1"},
        {"nul", "line 1"},
        {"01", "line 1"},
    };
    struct gw_error e;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_json *root = (struct gw_json *)&e;

        assert_int_equal(gw_json_parse(&root, gw_str_c(rows[i].text), &e), GW_INVALID);
        assert_ptr_equal(root, &e); /* left alone */
        if (strstr(e.text, rows[i].says) == NULL) {
            fail_msg("%s: %s", rows[i].text, e.text);
        }
    }
}

static void test_parse_refuses_nul(void **state)
{
    static const struct gw_str rows[] = {GW_STR_INIT("0\0"), GW_STR_INIT("[1\0,true\0]"),
                                         GW_STR_INIT("\0"), GW_STR_INIT("\"a\0\"")};
    struct gw_json *root;
    struct gw_error e;

    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(gw_json_parse(&root, rows[i], &e), GW_INVALID);
    }
}

static void test_error_shows_nothing_of_the_document(void **state)
{
    struct gw_json *root;
    struct gw_error e;

    assert_int_equal(gw_json_parse(&root, GW_STR("{\"password\": hunter2}"), &e), GW_INVALID);
    assert_null(strstr(e.text, "hunter2"));
}

static void test_parse_ceilings(void **state)
{
    struct gw_json *root;
    struct gw_error e;
    struct gw_buf b;

    gw_buf_init(&b, 1 << 20);
    for (unsigned depth = 63; depth <= 66; depth++) {
        gw_buf_reset(&b);
        for (unsigned i = 0; i < depth; i++) {
            gw_buf_add_char(&b, i % 2 ? '[' : '[');
        }
        gw_buf_add_c(&b, "\"[[[\\\"[[\""); /* brackets in a string do not count */
        for (unsigned i = 0; i < depth; i++) {
            gw_buf_add_char(&b, ']');
        }
        assert_int_equal(gw_json_parse(&root, gw_buf_str(&b), &e),
                         depth <= 64 ? GW_OK : GW_INVALID);
        if (depth <= 64) {
            gw_json_free(root);
        }
    }
    gw_buf_reset(&b);
    gw_buf_addf(&b, "%*s", (int)GW_JSON_DOC_MAX, "1");
    assert_int_equal(gw_json_parse(&root, gw_buf_str(&b), &e), GW_OK);
    gw_json_free(root);
    gw_buf_add_char(&b, ' ');
    assert_int_equal(gw_json_parse(&root, gw_buf_str(&b), &e), GW_TOO_LARGE);
    gw_buf_release(&b);
}

static void test_getters(void **state)
{
    struct gw_json *root;
    const struct gw_json *list;
    struct gw_error e;
    int64_t v = 0;

    assert_int_equal(
        gw_json_parse(&root,
                      GW_STR("{\"s\":\"a\\u0000b\",\"n\":-9007199254740993,\"r\":1.0,"
                             "\"t\":true,\"f\":false,\"z\":null,\"l\":[1,{\"k\":\"v\"}]}"),
                      &e),
        GW_OK);
    assert_int_equal(gw_json_count(root), 7);
    assert_true(gw_json_is_object(root) && !gw_json_is_array(root) && !gw_json_is_string(root));
    assert_int_equal(gw_json_string(gw_json_get(root, "s")).n, 3);
    assert_memory_equal(gw_json_string(gw_json_get(root, "s")).p, "a\0b", 3);
    assert_true(gw_json_int(gw_json_get(root, "n"), &v));
    assert_true(v == -9007199254740993);
    assert_false(gw_json_int(gw_json_get(root, "r"), &v));
    assert_false(gw_json_int(gw_json_get(root, "s"), &v));
    assert_true(v == -9007199254740993);
    assert_true(gw_json_bool(gw_json_get(root, "t")));
    assert_false(gw_json_bool(gw_json_get(root, "f")) || gw_json_bool(gw_json_get(root, "n")));
    list = gw_json_get(root, "l");
    assert_true(gw_json_is_array(list));
    assert_int_equal(gw_json_count(list), 2);
    assert_string_equal(gw_json_string(gw_json_get(gw_json_at(list, 1), "k")).p, "v");
    assert_null(gw_json_at(list, 2));
    assert_null(gw_json_at(root, 0));
    assert_null(gw_json_get(list, "k"));
    assert_null(gw_json_get(root, "absent"));
    gw_json_free(root);
    gw_json_free(NULL);
}

static void test_getters_of_nothing(void **state)
{
    int64_t v;

    assert_null(gw_json_get(gw_json_get(NULL, "a"), "b"));
    assert_null(gw_json_at(NULL, 0));
    assert_int_equal(gw_json_count(NULL), 0);
    assert_false(gw_json_is_string(NULL) || gw_json_is_object(NULL) || gw_json_is_array(NULL) ||
                 gw_json_bool(NULL) || gw_json_int(NULL, &v));
    assert_string_equal(gw_json_string(NULL).p, "");
    assert_int_equal(gw_json_each(NULL, NULL, NULL), 0);
}

static int on_member(void *ctx, struct gw_str key, const struct gw_json *value)
{
    struct gw_buf *out = ctx;

    gw_buf_add(out, key);
    gw_buf_add(out, gw_json_string(value));
    return gw_str_eq_c(key, "stop") ? 42 : 0;
}

static void test_each(void **state)
{
    struct gw_json *root;
    struct gw_error e;
    struct gw_buf b;

    gw_buf_init(&b, 100);
    assert_int_equal(
        gw_json_parse(&root, GW_STR("{\"z\":\"1\",\"a\":\"2\",\"stop\":\"3\",\"x\":\"4\"}"), &e),
        GW_OK);
    assert_int_equal(gw_json_each(root, on_member, &b), 42);
    assert_string_equal(gw_buf_str(&b).p, "z1a2stop3"); /* document order */
    gw_json_free(root);
    gw_buf_release(&b);
}

/* ---- writing ---- */

static void test_put_string(void **state)
{
    static const struct {
        struct gw_str in;
        const char *out;
    } rows[] = {
        {{NULL, 0}, "\"\""},
        {GW_STR_INIT("plain / text"), "\"plain / text\""},
        {GW_STR_INIT("\"\\"), "\"\\\"\\\\\""},
        {GW_STR_INIT("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\""},
        {GW_STR_INIT("\0\x01\x1f\x7f"), "\"\\u0000\\u0001\\u001f\x7f\""},
        {GW_STR_INIT("\xc3\xa9\xf0\x9f\xa4\x97"), "\"\xc3\xa9\xf0\x9f\xa4\x97\""},
        {GW_STR_INIT("a\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa"), "\"a\\u2028\\u2029\xe2\x80\xaa\""},
        {GW_STR_INIT("a\xff"
                     "b"),
         "\"a\xef\xbf\xbd"
         "b\""},
        {GW_STR_INIT("\xe2\x82"), "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {GW_STR_INIT("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {GW_STR_INIT("\xc3\""), "\"\xef\xbf\xbd\\\"\""}, /* a broken character hides no quote */
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_buf b;

        gw_buf_init(&b, 256);
        gw_json_put_string(&b, rows[i].in);
        assert_string_equal(gw_buf_str(&b).p, rows[i].out);
        gw_buf_release(&b);
    }
}

static void test_put_object(void **state)
{
    struct gw_buf b;

    gw_buf_init(&b, 256);
    gw_buf_add_char(&b, '{');
    gw_json_put_key(&b, "a");
    gw_buf_add_char(&b, '[');
    gw_json_put_comma(&b);
    gw_buf_add_c(&b, "1");
    gw_json_put_comma(&b);
    gw_buf_add_c(&b, "2]");
    gw_json_put_key(&b, "b");
    gw_json_put_string(&b, GW_STR("{"));
    gw_json_put_key(&b, "c");
    gw_buf_add_c(&b, "{}");
    gw_json_put_key(&b, "d");
    gw_buf_add_c(&b, "null}");
    assert_string_equal(b.p, "{\"a\":[1,2],\"b\":\"{\",\"c\":{},\"d\":null}");
    gw_buf_release(&b);
}

static void test_put_node_gives_what_was_read(void **state)
{
    static const char *const rows[] = {
        "{}",
        "[]",
        "\"\"",
        "null",
        "true",
        "[false,null,-1,9223372036854775807]",
        "[0.1,1.5,-2.0,1e+300,5e-324,0.30000000000000004]",
        "{\"z\":[{\"a\":\"\\u0000\\n\"},[[]]],\"b\":{}}",
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_json *root;
        struct gw_error e;
        struct gw_buf b;

        gw_buf_init(&b, 256);
        assert_int_equal(gw_json_parse(&root, gw_str_c(rows[i]), &e), GW_OK);
        gw_json_put_node(&b, root);
        if (i == 6) { /* 5e-324 is the smallest double; 15 digits name it as well */
            assert_string_equal(b.p,
                                "[0.1,1.5,-2.0,1e+300,4.94065645841247e-324,0.30000000000000004]");
        } else {
            assert_string_equal(b.p, rows[i]);
        }
        gw_json_free(root);
        gw_buf_release(&b);
    }
}

static int write_and_check(void *ctx)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 1 << 20);
    gw_json_put_node(&b, ctx);
    gw_json_put_key(&b, "k");
    gw_json_put_string(&b, GW_STR("\n\xff"));
    rc = gw_buf_ok(&b, NULL);
    gw_buf_release(&b);
    return rc;
}

static void test_writing_without_memory(void **state)
{
    struct gw_json *root;
    struct gw_error e;

    assert_int_equal(
        gw_json_parse(&root, GW_STR("[1,{\"a\":[1.5,\"xxxxxxxxxxxxxxxxxxxxxxx\"]}]"), &e), GW_OK);
    with_failing_alloc(write_and_check, root, 1);
    gw_json_free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_parse_refuses_nul),
        cmocka_unit_test(test_error_shows_nothing_of_the_document),
        cmocka_unit_test(test_parse_ceilings),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_getters_of_nothing),
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_put_string),
        cmocka_unit_test(test_put_object),
        cmocka_unit_test(test_put_node_gives_what_was_read),
        cmocka_unit_test(test_writing_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
