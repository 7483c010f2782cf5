/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <time.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void test_clocks(void **state)
{
    int64_t wall = gw_wall_ms(), mono = gw_mono_ms();
    time_t now = time(NULL);

    assert_true(wall / 1000 <= now && wall / 1000 >= now - 5);
    assert_true(gw_mono_ms() >= mono);
    assert_true(mono > 0);
}

static void test_iso_both_ways(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1795568523456, "2026-11-25T01:02:03.456Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {951868799999, "2000-02-29T23:59:59.999Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {-62135596800000, "0001-01-01T00:00:00.000Z"},
        {-62167219200000, "0000-01-01T00:00:00.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
    };
    char out[GW_ISO_LEN + 1];
    int64_t ms;

    for (size_t i = 0; i < COUNT(rows); i++) {
        gw_iso_format(out, rows[i].ms);
        assert_string_equal(out, rows[i].text);
        assert_true(gw_iso_parse(gw_str_c(rows[i].text), &ms));
        assert_true(ms == rows[i].ms);
    }
    gw_iso_format(out, INT64_MAX); /* no year has five digits */
    assert_string_equal(out, "9999-12-31T23:59:59.999Z");
    gw_iso_format(out, INT64_MIN);
    assert_string_equal(out, "0000-01-01T00:00:00.000Z");
}

static void test_iso_agrees_with_libc(void **state)
{
    for (int64_t t = -3000000000; t < 6000000000; t += 86400 * 17 + 4711) {
        char out[GW_ISO_LEN + 1], expected[64];
        time_t at = t;
        struct tm tm;

        gmtime_r(&at, &tm);
        strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
        gw_iso_format(out, t * 1000);
        assert_string_equal(out, expected);
    }
}

static void test_iso_parse(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        int64_t ms;
    } rows[] = {
        {"1970-01-01T00:00:01Z", true, 1000},
        {"1970-01-01T00:00:01.5Z", true, 1500},
        {"1970-01-01T00:00:00.123456789Z", true, 123},
        {"1970-01-01T00:00:00.1234567890Z", false, 0},
        {"1970-01-01T00:00:00.Z", false, 0},
        {"1970-01-01T00:00:00", false, 0},
        {"1970-01-01T00:00:00+00:00", false, 0},
        {"1970-01-01 00:00:00Z", false, 0},
        {"1970-01-01T00:00:00Zx", false, 0},
        {"1970-00-01T00:00:00Z", false, 0},
        {"1970-13-01T00:00:00Z", false, 0},
        {"1970-01-00T00:00:00Z", false, 0},
        {"1970-04-31T00:00:00Z", false, 0},
        {"1900-02-29T00:00:00Z", false, 0},
        {"1970-01-01T24:00:00Z", false, 0},
        {"1970-01-01T00:60:00Z", false, 0},
        {"1970-01-01T00:00:60Z", false, 0},
        {"-970-01-01T00:00:00Z", false, 0},
        {"", false, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        int64_t ms = 4711;

        assert_int_equal(gw_iso_parse(gw_str_c(rows[i].text), &ms), rows[i].ok);
        assert_true(ms == (rows[i].ok ? rows[i].ms : 4711));
    }
}

static void test_duration(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        int64_t ms;
    } rows[] = {
        {"90s", true, 90000},
        {"15m", true, 900000},
        {"12h", true, 43200000},
        {"30d", true, 2592000000},
        {"500ms", true, 500},
        {"7", true, 7000},
        {"0", true, 0},
        {"36500d", true, 3153600000000},
        {"36501d", false, 0},
        {"99999999999999999999d", false, 0},
        {"18446744073709551615", false, 0},
        {"", false, 0},
        {"s", false, 0},
        {"-1s", false, 0},
        {"1.5h", false, 0},
        {"1 h", false, 0},
        {"1H", false, 0},
        {"1h30m", false, 0},
        {"1y", false, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        int64_t ms = 4711;

        assert_int_equal(gw_duration_parse(gw_str_c(rows[i].text), &ms), rows[i].ok);
        assert_true(ms == (rows[i].ok ? rows[i].ms : 4711));
    }
}

static void test_bytes(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        uint64_t n;
    } rows[] = {
        {"1024", true, 1024},
        {"64k", true, 65536},
        {"100m", true, 104857600},
        {"20g", true, 21474836480},
        {"2t", true, 2199023255552},
        {"0", true, 0},
        {"16777215t", true, UINT64_C(16777215) << 40},
        {"16777216t", false, 0},
        {"", false, 0},
        {"k", false, 0},
        {"1kb", false, 0},
        {"1.5g", false, 0},
        {"-1", false, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t n = 4711;

        assert_int_equal(gw_bytes_parse(gw_str_c(rows[i].text), &n), rows[i].ok);
        assert_true(n == (rows[i].ok ? rows[i].n : 4711));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_iso_both_ways),
        cmocka_unit_test(test_iso_agrees_with_libc),
        cmocka_unit_test(test_iso_parse),
        cmocka_unit_test(test_duration),
        cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
