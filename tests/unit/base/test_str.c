/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "tests/unit/failing.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct gw_str none = {NULL, 0};

static void assert_str(struct gw_str s, const char *expected)
{
    assert_int_equal(s.n, strlen(expected));
    if (s.n != 0) {
        assert_memory_equal(s.p, expected, s.n);
    }
}

static void test_equality_and_order(void **state)
{
    static const struct {
        const char *a, *b;
        int order;
        bool ieq;
    } rows[] = {
        {"", "", 0, true},
        {"a", "", 1, false},
        {"", "a", -1, false},
        {"abc", "abc", 0, true},
        {"abc", "ABC", 1, true},
        {"ab", "abc", -1, false},
        {"a\xff", "a\x01", 1, false},        /* unsigned */
        {"[", "{", -1, false},               /* not letters: 0x5b and 0x7b differ by the case bit */
        {"\xc3\x84", "\xc3\xa4", -1, false}, /* only ASCII is folded */
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_str a = gw_str_c(rows[i].a), b = gw_str_c(rows[i].b);
        int order = gw_str_cmp(a, b);

        assert_int_equal((order > 0) - (order < 0), rows[i].order);
        assert_int_equal(gw_str_eq(a, b), rows[i].order == 0);
        assert_int_equal(gw_str_eq_c(a, rows[i].b), rows[i].order == 0);
        assert_int_equal(gw_str_ieq(a, b), rows[i].ieq);
        assert_int_equal(gw_str_ieq_c(a, rows[i].b), rows[i].ieq);
    }
    assert_true(gw_str_eq(none, GW_STR("")));
    assert_false(gw_str_eq(GW_STR("a\0b"), GW_STR("a\0c")));
    assert_str(gw_str_c(NULL), "");
}

static void test_parts(void **state)
{
    struct gw_str s = GW_STR("hello");

    assert_true(gw_str_starts(s, GW_STR("he")) && gw_str_starts(s, none) && gw_str_starts(s, s));
    assert_false(gw_str_starts(s, GW_STR("hello!")) || gw_str_starts(s, GW_STR("el")));
    assert_true(gw_str_ends(s, GW_STR("lo")) && gw_str_ends(s, none) && gw_str_ends(s, s));
    assert_false(gw_str_ends(s, GW_STR("hhello")) || gw_str_ends(s, GW_STR("l")));
    assert_str(gw_str_sub(s, 1, 3), "ell");
    assert_str(gw_str_sub(s, 4, 99), "o");
    assert_str(gw_str_sub(s, 99, SIZE_MAX), "");
    assert_str(gw_str_sub(none, 1, 1), "");
    assert_str(gw_str_trim(GW_STR(" \t a b\t ")), "a b");
    assert_str(gw_str_trim(GW_STR("\n")), "\n");
    assert_str(gw_str_trim(GW_STR("  ")), "");
    assert_str(gw_str_trim(none), "");
}

static void test_split(void **state)
{
    static const struct {
        const char *in, *parts; /* joined by | */
    } rows[] = {
        {"", "|"}, {"a", "a|"}, {"a/b", "a|b|"}, {"a//b", "a||b|"}, {"/", "||"}, {"a/", "a||"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_str rest = gw_str_c(rows[i].in), head;
        char joined[64] = "";

        while (gw_str_split(&rest, '/', &head)) {
            snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined), GW_STR_FMT "|",
                     GW_STR_ARG(head));
        }
        assert_string_equal(joined, rows[i].parts);
        assert_null(rest.p);
    }
}

static void test_u64(void **state)
{
    static const struct {
        const char *in;
        bool ok;
        uint64_t v;
    } rows[] = {
        {"0", true, 0},
        {"007", true, 7},
        {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0},
        {"99999999999999999999", false, 0},
        {"", false, 0},
        {"-1", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"0x1", false, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t v = 4711;

        assert_int_equal(gw_str_u64(gw_str_c(rows[i].in), &v), rows[i].ok);
        assert_int_equal(v, rows[i].ok ? rows[i].v : 4711);
    }
}

static void test_utf8(void **state)
{
    static const struct {
        const char *in;
        size_t first; /* bytes of the first character, 0: not valid */
        bool valid;
    } rows[] = {
        {"", 0, true},
        {"a", 1, true},
        {"\xc2\x80", 2, true},
        {"\xdf\xbf", 2, true},
        {"\xe0\xa0\x80", 3, true},
        {"\xed\x9f\xbf", 3, true},
        {"\xee\x80\x80", 3, true},
        {"\xef\xbf\xbf", 3, true},
        {"\xf0\x90\x80\x80", 4, true},
        {"\xf4\x8f\xbf\xbf", 4, true},
        {"\x80", 0, false},
        {"\xc0\x80", 0, false}, /* overlong NUL */
        {"\xc1\xbf", 0, false},
        {"\xe0\x9f\xbf", 0, false},     /* overlong */
        {"\xed\xa0\x80", 0, false},     /* surrogate */
        {"\xf0\x8f\xbf\xbf", 0, false}, /* overlong */
        {"\xf4\x90\x80\x80", 0, false}, /* U+110000 */
        {"\xf5\x80\x80\x80", 0, false},
        {"\xff", 0, false},
        {"\xc3", 0, false},
        {"\xe2\x82", 0, false},
        {"\xf0\x9f\xa4", 0, false},
        {"\xe2\x82\x41", 0, false},
        {"abcdefgh\xe2\x82\xac", 1, true},
        {"abcdefghijk\xe2\x82", 1, false},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(gw_utf8_valid(gw_str_c(rows[i].in)), rows[i].valid);
        assert_int_equal(gw_utf8_char(gw_str_c(rows[i].in)), rows[i].first);
    }
    assert_true(gw_utf8_valid(none));
    assert_true(gw_utf8_valid(GW_STR("a\0b")));
}

/* ---- buffers ---- */

static void test_buf_grows_and_ends_in_nul(void **state)
{
    struct gw_buf b;
    size_t n = 0;

    gw_buf_init(&b, 1 << 20);
    assert_str(gw_buf_str(&b), "");
    assert_non_null(gw_buf_str(&b).p);
    gw_buf_add(&b, none);
    assert_int_equal(b.p[0], '\0');
    for (int i = 0; i < 40000; i++) {
        gw_buf_add_c(&b, "ab");
        gw_buf_add_char(&b, 'c');
        n += 3;
        assert_int_equal(b.n, n);
        assert_int_equal(b.p[n], '\0');
    }
    gw_buf_addf(&b, "%s-%d", "x", 42);
    assert_int_equal(gw_buf_ok(&b, NULL), GW_OK);
    assert_string_equal(b.p + n, "x-42");
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(b.p[i], "abc"[i % 3]);
    }
    gw_buf_reset(&b);
    assert_str(gw_buf_str(&b), "");
    gw_buf_add_c(&b, "again");
    assert_str(gw_buf_str(&b), "again");
    gw_buf_release(&b);
    gw_buf_release(&b);
    assert_null(b.p);
}

static void test_buf_ceiling_is_sticky(void **state)
{
    static const struct {
        size_t max;
        const char *first, *second;
        bool ok;
    } rows[] = {
        {5, "abc", "de", true}, {5, "abc", "def", false}, {0, "", "", true},
        {0, "", "a", false},    {100, "abc", "de", true},
    };
    struct gw_error e;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_buf b;

        gw_buf_init(&b, rows[i].max);
        gw_buf_add_c(&b, rows[i].first);
        gw_buf_addf(&b, "%s", rows[i].second);
        assert_int_equal(gw_buf_ok(&b, &e), rows[i].ok ? GW_OK : GW_TOO_LARGE);
        if (!rows[i].ok) {
            gw_buf_add_c(&b, "");
            assert_int_equal(gw_buf_ok(&b, &e), GW_TOO_LARGE);
            gw_buf_reset(&b);
            assert_int_equal(gw_buf_ok(&b, &e), GW_OK);
        }
        gw_buf_wipe(&b);
        assert_null(b.p);
    }
}

static void test_buf_of_zeroed_memory(void **state)
{
    struct gw_buf b = {0};

    gw_buf_release(&b);
    gw_buf_wipe(&b);
    gw_buf_add_char(&b, 'x'); /* its ceiling is 0 */
    assert_true(b.failed);
}

static int fill(void *ctx)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 1 << 20);
    for (int i = 0; i < 30000; i++) {
        gw_buf_add_c(&b, "0123456789");
    }
    rc = gw_buf_ok(&b, NULL);
    gw_buf_release(&b);
    return rc;
}

static void test_buf_without_memory(void **state)
{
    with_failing_alloc(fill, NULL, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equality_and_order),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_u64),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_buf_grows_and_ends_in_nul),
        cmocka_unit_test(test_buf_ceiling_is_sticky),
        cmocka_unit_test(test_buf_of_zeroed_memory),
        cmocka_unit_test(test_buf_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
