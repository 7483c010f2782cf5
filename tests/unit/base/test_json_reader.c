/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"
#include "tests/unit/failing.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SPLIT_MAX 64u

/* Events as text: { } [ ] k(key) s(string) n(number) T F N, each with its depth. */
static int on_event(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    static const char *const names[] = {"{", "}", "[", "]", "k", "s", "n", "T", "F", "N"};
    struct gw_buf *out = ctx;

    gw_buf_addf(out, "%s%u", names[ev], depth);
    if (ev == GW_JSON_KEY || ev == GW_JSON_STRING || ev == GW_JSON_NUMBER) {
        gw_buf_add_char(out, '(');
        gw_buf_add(out, text);
        gw_buf_add_char(out, ')');
    } else {
        assert_int_equal(text.n, 0);
    }
    gw_buf_add_char(out, ' ');
    return gw_str_eq_c(text, "stop") ? GW_CANCELLED : GW_OK;
}

/* In pieces of that size, each in memory of its own. @return what the reader says; the events are
 * in out */
static int read_in_pieces(struct gw_str text, size_t piece, size_t max_token, struct gw_buf *out,
                          struct gw_error *err)
{
    struct gw_json_reader *r = gw_json_reader_new(max_token, on_event, out);
    int rc = GW_OK;

    gw_buf_reset(out);
    assert_non_null(r);
    for (size_t i = 0; i < text.n && rc == GW_OK; i += piece) {
        struct gw_str part = gw_str_sub(text, i, piece);
        char *copy = gw_strndup(part.p, part.n);

        rc = gw_json_reader_feed(r, (struct gw_str){copy, part.n}, err);
        memset(copy, 'x', part.n);
        gw_free(copy);
        assert_int_equal(gw_json_reader_feed(r, GW_STR(""), NULL),
                         rc == GW_OK ? GW_OK : GW_INVALID);
    }
    if (rc == GW_OK) {
        rc = gw_json_reader_finish(r, err);
    }
    gw_json_reader_free(r);
    return rc;
}

static void test_events(void **state)
{
    static const struct {
        struct gw_str text;
        const char *events;
    } rows[] = {
        {GW_STR_INIT("{}"), "{0 }0 "},
        {GW_STR_INIT(" [ ] \n"), "[0 ]0 "},
        {GW_STR_INIT("\t\r\n null"), "N0 "},
        {GW_STR_INIT("true"), "T0 "},
        {GW_STR_INIT("\"\""), "s0() "},
        {GW_STR_INIT("-0"), "n0(-0) "},
        {GW_STR_INIT("[0,-1,10,1.5,0.0e0,1E+2,1e-10,-0.5]"),
         "[0 n1(0) n1(-1) n1(10) n1(1.5) n1(0.0e0) n1(1E+2) n1(1e-10) n1(-0.5) ]0 "},
        {GW_STR_INIT("{\"a\":1,\"b\":[true,false,null],\"c\":{\"\":\"x\"}}"),
         "{0 k1(a) n1(1) k1(b) [1 T2 F2 N2 ]1 k1(c) {1 k2() s2(x) }1 }0 "},
        {GW_STR_INIT("[[[]],{}]"), "[0 [1 [2 ]2 ]1 {1 }1 ]0 "},
        {GW_STR_INIT("{\"a\":1,\"a\":2}"), "{0 k1(a) n1(1) k1(a) n1(2) }0 "},
        {GW_STR_INIT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), "s0(\"\\/\b\f\n\r\t) "},
        {GW_STR_INIT("\"x\\u0041y\\u00e9\\u20AC\""), "s0(xAy\xc3\xa9\xe2\x82\xac) "},
        {GW_STR_INIT("\"\\ud83e\\udd17\""), "s0(\xf0\x9f\xa4\x97) "},
        {GW_STR_INIT("\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa4\x97\""),
         "s0(\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa4\x97) "},
        {GW_STR_INIT("\"a long enough run of plain text, \\n then more of it ................\""),
         "s0(a long enough run of plain text, \n then more of it ................) "},
        /* surrogates without their other half */
        {GW_STR_INIT("\"\\ud83e\""), "s0(\xef\xbf\xbd) "},
        {GW_STR_INIT("\"\\udd17x\""), "s0(\xef\xbf\xbdx) "},
        {GW_STR_INIT("\"\\ud83ex\""), "s0(\xef\xbf\xbdx) "},
        {GW_STR_INIT("\"\\ud83e\\n\""), "s0(\xef\xbf\xbd\n) "},
        {GW_STR_INIT("\"\\ud83e\\u0041\""), "s0(\xef\xbf\xbd"
                                            "A) "},
        {GW_STR_INIT("\"\\ud83e\\ud83e\\udd17\""), "s0(\xef\xbf\xbd\xf0\x9f\xa4\x97) "},
        {GW_STR_INIT("\"\\ud83e\xe2\x82\xac\""), "s0(\xef\xbf\xbd\xe2\x82\xac) "},
    };
    struct gw_error e;
    struct gw_buf out;

    gw_buf_init(&out, 1 << 16);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t piece = 1; piece < SPLIT_MAX; piece++) {
            int rc = read_in_pieces(rows[i].text, piece, 100, &out, &e);

            if (rc != GW_OK) {
                fail_msg("%s in pieces of %zu: %s", rows[i].text.p, piece, e.text);
            }
            assert_string_equal(gw_buf_str(&out).p, rows[i].events);
        }
    }
    assert_int_equal(read_in_pieces(GW_STR("\"a\\u0000b\""), 3, 3, &out, &e), GW_OK);
    assert_memory_equal(out.p, "s0(a\0b) ", 8);
    gw_buf_release(&out);
}

static void test_refused(void **state)
{
    static const struct gw_str rows[] = {
        GW_STR_INIT(""),
        GW_STR_INIT(" \n"),
        GW_STR_INIT("{"),
        GW_STR_INIT("}"),
        GW_STR_INIT("[1"),
        GW_STR_INIT("[1}"),
        GW_STR_INIT("{]"),
        GW_STR_INIT("[1,]"),
        GW_STR_INIT("[,1]"),
        GW_STR_INIT("[1 2]"),
        GW_STR_INIT("{\"a\"}"),
        GW_STR_INIT("{\"a\":}"),
        GW_STR_INIT("{\"a\":1,}"),
        GW_STR_INIT("{\"a\" 1}"),
        GW_STR_INIT("{a:1}"),
        GW_STR_INIT("{1:1}"),
        GW_STR_INIT("{,}"),
        GW_STR_INIT("1 2"),
        GW_STR_INIT("{} x"),
        GW_STR_INIT("tru"),
        GW_STR_INIT("trux"),
        GW_STR_INIT("nulll"),
        GW_STR_INIT("True"),
        GW_STR_INIT("NaN"),
        GW_STR_INIT("'a'"),
        GW_STR_INIT("\"a"),
        GW_STR_INIT("\"\\x\""),
        GW_STR_INIT("\"\\\0\""),
        GW_STR_INIT("\"\\u12g4\""),
        GW_STR_INIT("\"\\u12\""),
        GW_STR_INIT("\"a\nb\""),
        GW_STR_INIT("\"\0\""),
        GW_STR_INIT("\"\x1f\""),
        GW_STR_INIT("\"aaaaaaaaaaaaaaa\x1f\""),
        GW_STR_INIT("-"),
        GW_STR_INIT("+1"),
        GW_STR_INIT("01"),
        GW_STR_INIT("-01"),
        GW_STR_INIT("1."),
        GW_STR_INIT(".5"),
        GW_STR_INIT("1e"),
        GW_STR_INIT("1e+"),
        GW_STR_INIT("1.e1"),
        GW_STR_INIT("1e1.5"),
        GW_STR_INIT("0x10"),
        GW_STR_INIT("[-]"),
        GW_STR_INIT("[1.]"),
        GW_STR_INIT("--1"),
        GW_STR_INIT("\xef\xbb\xbf{}"),
        GW_STR_INIT("\"\x80\""),
        GW_STR_INIT("\"\xc0\x80\""),
        GW_STR_INIT("\"\xe0\x9f\xbf\""),
        GW_STR_INIT("\"\xed\xa0\x80\""),
        GW_STR_INIT("\"\xf4\x90\x80\x80\""),
        GW_STR_INIT("\"\xf5\x80\x80\x80\""),
        GW_STR_INIT("\"\xe2\x82\""),
        GW_STR_INIT("\"\xe2\x82x\""),
        GW_STR_INIT("\"\xe2\\n\""),
        GW_STR_INIT("{\"\xff\":1}"),
        GW_STR_INIT("\xff"),
        GW_STR_INIT("\f1"),
    };
    struct gw_error e;
    struct gw_buf out;

    gw_buf_init(&out, 1 << 16);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t piece = 1; piece < SPLIT_MAX; piece++) {
            int rc = read_in_pieces(rows[i], piece, 100, &out, &e);

            if (rc != GW_INVALID) {
                fail_msg("%s in pieces of %zu: status %d", rows[i].p, piece, rc);
            }
        }
    }
    gw_buf_release(&out);
}

static void test_ceilings(void **state)
{
    static const struct {
        const char *text;
        size_t max_token;
        int rc;
    } rows[] = {
        {"\"12345\"", 5, GW_OK},
        {"\"123456\"", 5, GW_TOO_LARGE},
        {"12345", 5, GW_OK},
        {"123456", 5, GW_TOO_LARGE},
        {"{\"123456\":1}", 5, GW_TOO_LARGE},
        {"\"\\u20ac\\u00e9\"", 5, GW_OK}, /* decoded bytes count */
        {"\"\\u20ac\\u20ac\"", 5, GW_TOO_LARGE},
        {"[\"12345\",\"12345\",12345]", 5, GW_OK},
        {"[\"\",{}]", 0, GW_OK},
        {"1", 0, GW_TOO_LARGE},
    };
    struct gw_error e;
    struct gw_buf out, deep;

    gw_buf_init(&out, 1 << 16);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t piece = 1; piece < 30; piece++) {
            assert_int_equal(
                read_in_pieces(gw_str_c(rows[i].text), piece, rows[i].max_token, &out, &e),
                rows[i].rc);
        }
    }
    gw_buf_init(&deep, 1000);
    for (unsigned depth = GW_JSON_DEPTH_MAX - 1; depth <= GW_JSON_DEPTH_MAX + 1; depth++) {
        gw_buf_reset(&deep);
        for (unsigned i = 0; i < depth; i++) { /* an object in every second one: both bits */
            gw_buf_add_c(&deep, i % 2 ? "{\"k\":" : "[");
        }
        gw_buf_add_c(&deep, "1");
        for (unsigned i = depth; i > 0; i--) {
            gw_buf_add_c(&deep, (i - 1) % 2 ? "}" : "]");
        }
        assert_int_equal(read_in_pieces(gw_buf_str(&deep), 7, 10, &out, &e),
                         depth <= GW_JSON_DEPTH_MAX ? GW_OK : GW_TOO_LARGE);
    }
    gw_buf_release(&deep);
    gw_buf_release(&out);
    assert_null(gw_json_reader_new(SIZE_MAX, on_event, &out));
}

static void test_white_space_has_a_ceiling(void **state)
{
    struct gw_error e;
    struct gw_buf out, text;

    gw_buf_init(&out, 1000);
    gw_buf_init(&text, 1 << 20);
    for (int more = 0; more < 2; more++) {
        gw_buf_reset(&text);
        gw_buf_add_char(&text, '[');
        for (int i = 0; i < (64 << 10) + more; i++) {
            gw_buf_add_char(&text, "\n \t\r"[i % 4]);
        }
        gw_buf_add_c(&text, "1\n,\n2]\n");
        assert_int_equal(read_in_pieces(gw_buf_str(&text), 1000, 10, &out, &e),
                         more ? GW_TOO_LARGE : GW_OK);
    }
    gw_buf_release(&text);
    gw_buf_release(&out);
}

static void test_callback_stops(void **state)
{
    static const char *const rows[] = {"[\"a\",\"stop\",\"b\"]", "{\"stop\":1}", "\"stop\""};
    struct gw_error e = {.text = "untouched"};
    struct gw_buf out;

    gw_buf_init(&out, 1000);
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(read_in_pieces(gw_str_c(rows[i]), 3, 10, &out, &e), GW_CANCELLED);
        assert_string_equal(e.text, "untouched");
    }
    gw_buf_release(&out);
}

static void test_message_has_the_place(void **state)
{
    struct gw_error e;
    struct gw_buf out;

    gw_buf_init(&out, 1000);
    for (size_t piece = 1; piece < 12; piece++) {
        assert_int_equal(read_in_pieces(GW_STR("[1, 2, secret]"), piece, 10, &out, &e), GW_INVALID);
        assert_string_equal(e.text, "JSON byte 7: expected a value");
    }
    gw_buf_release(&out);
}

/* Stopped anywhere, whole or refused: the next document is read as by a new reader. */
static void test_again(void **state)
{
    static const char first[] = "{\"a\": [1, \"\\ud83d\\ude00\", \"caf\xc3\xa9\", true]} x";
    struct gw_buf out;
    struct gw_json_reader *r;

    gw_buf_init(&out, 1000);
    r = gw_json_reader_new(100, on_event, &out);
    assert_non_null(r);
    for (size_t n = 0; n < sizeof(first); n++) {
        (void)!gw_json_reader_feed(r, (struct gw_str){first, n}, NULL);
        gw_json_reader_again(r);
        gw_buf_reset(&out);
        assert_int_equal(gw_json_reader_feed(r, GW_STR("[\"x\"]"), NULL), GW_OK);
        assert_int_equal(gw_json_reader_finish(r, NULL), GW_OK);
        assert_true(gw_str_eq_c(gw_buf_str(&out), "[0 s1(x) ]0 "));
        gw_json_reader_again(r);
    }
    gw_json_reader_free(r);
    gw_buf_release(&out);
}

static int make_reader(void *ctx)
{
    struct gw_json_reader *r = gw_json_reader_new(100, on_event, ctx);

    gw_json_reader_free(r);
    return r != NULL ? GW_OK : GW_NO_MEMORY;
}

static void test_without_memory(void **state)
{
    with_failing_alloc(make_reader, NULL, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ceilings),       cmocka_unit_test(test_white_space_has_a_ceiling),
        cmocka_unit_test(test_callback_stops), cmocka_unit_test(test_message_has_the_place),
        cmocka_unit_test(test_again),          cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
