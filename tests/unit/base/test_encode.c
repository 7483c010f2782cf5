/* SPDX-License-Identifier: Apache-2.0 */
#include "base/encode.h"
#include "tests/unit/failing.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void test_hex(void **state)
{
    static const struct {
        const char *hex;
        size_t n;
        bool ok;
    } rows[] = {
        {"00ff7a", 3, true},    {"00FF7A", 3, true},  {"", 0, true},        {"00ff7", 3, false},
        {"00ff7a00", 3, false}, {"00fg7a", 3, false}, {"0x00ff", 3, false},
    };
    const unsigned char bytes[] = {0x00, 0xff, 0x7a};
    char text[7], lower[4];

    gw_hex_encode(text, bytes, sizeof(bytes));
    assert_string_equal(text, "00ff7a");
    gw_hex_encode(text, bytes, 0);
    assert_string_equal(text, "");
    for (size_t i = 0; i < COUNT(rows); i++) {
        unsigned char out[3] = {1, 2, 3};

        assert_int_equal(gw_hex_decode(out, rows[i].n, gw_str_c(rows[i].hex)), rows[i].ok);
        assert_memory_equal(out, rows[i].ok ? bytes : (const unsigned char *)"\1\2\3", rows[i].n);
    }
    assert_true(gw_is_hex_lower(GW_STR("09af"), 4));
    assert_false(gw_is_hex_lower(GW_STR("09aF"), 4) || gw_is_hex_lower(GW_STR("09af"), 3) ||
                 gw_is_hex_lower(GW_STR("09ag"), 4) || gw_is_hex_lower(GW_STR("09a/"), 4));
    assert_true(gw_hex_lower(lower, GW_STR("09aF"), 4));
    assert_memory_equal(lower, "09af", 4);
    assert_false(gw_hex_lower(lower, GW_STR("09AG"), 4) || gw_hex_lower(lower, GW_STR("09A"), 4) ||
                 gw_hex_lower(lower, GW_STR("09A@"), 4));
}

static void test_base64_both_ways(void **state)
{
    static const struct { /* RFC 4648 section 10, and the last digits of the alphabet */
        const char *bytes, *text;
    } rows[] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xbf", "+/+/"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_buf b;
        char out[16];
        size_t n;

        gw_buf_init(&b, 64);
        gw_base64_encode(&b, gw_str_c(rows[i].bytes));
        assert_string_equal(gw_buf_str(&b).p, rows[i].text);
        gw_buf_release(&b);
        assert_true(gw_base64_decode(gw_str_c(rows[i].text), out, strlen(rows[i].bytes), &n));
        assert_int_equal(n, strlen(rows[i].bytes));
        assert_memory_equal(out, rows[i].bytes, n);
        if (n != 0) {
            assert_false(gw_base64_decode(gw_str_c(rows[i].text), out, n - 1, &n));
        }
    }
}

static void test_base64_refused(void **state)
{
    static const char *const rows[] = {
        "Zg=",   "Zg",   "Z",    "=",    "====", "Z===", "Zg==Zg==", "Zm9v\n",
        " Zm9v", "Zm-v", "Zm_v", "Zh==", "Zm9=", "Z=g=", "Zm9vZ"};
    char out[16];
    size_t n;

    for (size_t i = 0; i < COUNT(rows); i++) {
        if (gw_base64_decode(gw_str_c(rows[i]), out, sizeof(out), &n)) {
            fail_msg("accepted: %s", rows[i]);
        }
    }
}

static void test_base62(void **state)
{
    static const struct {
        uint64_t v;
        size_t width;
        const char *text; /* NULL: does not fit */
    } rows[] = {
        {0, 1, "0"},
        {61, 1, "z"},
        {62, 1, NULL},
        {62, 2, "10"},
        {35, 3, "00Z"},
        {UINT32_MAX, 6, "4gfFC3"},
        {UINT64_MAX, 11, "LygHa16AHYF"},
        {UINT64_MAX, 10, NULL},
        {0, 0, ""},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char out[12] = {0};
        bool ok = gw_base62_u64(out, rows[i].width, rows[i].v);

        assert_int_equal(ok, rows[i].text != NULL);
        if (ok) {
            assert_string_equal(out, rows[i].text);
        }
    }
}

static void test_base62_random(void **state)
{
    static char text[62 * 1000];
    unsigned seen[256] = {0};

    assert_true(gw_base62_random(text, sizeof(text)));
    for (size_t i = 0; i < sizeof(text); i++) {
        seen[(unsigned char)text[i]]++;
    }
    for (int c = 0; c < 256; c++) {
        bool digit = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

        if (!digit) {
            assert_int_equal(seen[c], 0);
        } else if (seen[c] < 700 || seen[c] > 1300) { /* 1,000 +- 32: 9 sigma */
            fail_msg("%c is drawn %u times of 1000", c, seen[c]);
        }
    }
}

static void test_crc32(void **state)
{
    uint32_t crc = gw_crc32(0, "12345", 5);

    assert_int_equal(gw_crc32(0, "", 0), 0);
    assert_int_equal(gw_crc32(0, "123456789", 9), 0xcbf43926); /* the check value of CRC-32 */
    assert_int_equal(gw_crc32(crc, "6789", 4), 0xcbf43926);    /* in pieces */
}

static void test_percent_decode(void **state)
{
    static const struct {
        const char *in;
        bool plus;
        const char *out; /* NULL: refused */
    } rows[] = {
        {"", false, ""},       {"a%2Fb%2fc", false, "a/b/c"}, {"%252F", false, "%2F"}, /* once */
        {"a+b", false, "a+b"}, {"a+b%2B", true, "a b+"},      {"%e2%82%AC", false, "\xe2\x82\xac"},
        {"%", false, NULL},    {"%4", false, NULL},           {"%4g", false, NULL},
        {"%g4", false, NULL},  {"abc%2", false, NULL},        {"%-1", false, NULL},
    };
    struct gw_arena a;
    struct gw_str out;

    gw_arena_init(&a, 1 << 16);
    for (size_t i = 0; i < COUNT(rows); i++) {
        bool ok = gw_percent_decode(&a, gw_str_c(rows[i].in), rows[i].plus, &out);

        assert_int_equal(ok, rows[i].out != NULL);
        if (ok) {
            assert_string_equal(out.p, rows[i].out);
            assert_int_equal(out.n, strlen(rows[i].out));
        }
    }
    assert_true(gw_percent_decode(&a, GW_STR("a%00b"), false, &out)); /* any byte */
    assert_int_equal(out.n, 3);
    gw_arena_release(&a);
    gw_arena_init(&a, 4);
    assert_false(gw_percent_decode(&a, GW_STR("abcdefgh"), false, &out));
    gw_arena_release(&a);
}

static void test_percent_encode(void **state)
{
    static const struct {
        const char *in;
        bool keep_slash;
        const char *out;
    } rows[] = {
        {"", false, ""},
        {"azAZ09-._~", false, "azAZ09-._~"},
        {"a/b", false, "a%2Fb"},
        {"a/b", true, "a/b"},
        {" %+&=?#\"'", false, "%20%25%2B%26%3D%3F%23%22%27"},
        {"\xe2\x82\xac\n", false, "%E2%82%AC%0A"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_buf b;

        gw_buf_init(&b, 256);
        gw_percent_encode(&b, gw_str_c(rows[i].in), rows[i].keep_slash);
        assert_string_equal(gw_buf_str(&b).p, rows[i].out);
        gw_buf_release(&b);
    }
}

static int decode_once(void *ctx)
{
    struct gw_arena a;
    struct gw_str out;
    bool ok;

    gw_arena_init(&a, 1 << 16);
    ok = gw_percent_decode(&a, GW_STR("a%20b"), false, &out);
    gw_arena_release(&a);
    return ok ? GW_OK : GW_NO_MEMORY;
}

static void test_without_memory(void **state)
{
    with_failing_alloc(decode_once, NULL, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_base64_both_ways),
        cmocka_unit_test(test_base64_refused),
        cmocka_unit_test(test_base62),
        cmocka_unit_test(test_base62_random),
        cmocka_unit_test(test_crc32),
        cmocka_unit_test(test_percent_decode),
        cmocka_unit_test(test_percent_encode),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
