/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"
#include "base/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void test_fail_records_and_returns(void **state)
{
    struct gw_error e = {0};

    assert_int_equal(gw_fail(&e, GW_IO, 5, "write %s: %d", "f", 7), GW_IO);
    assert_int_equal(e.status, GW_IO);
    assert_int_equal(e.sys, 5);
    assert_string_equal(e.text, "write f: 7");
    assert_int_equal(gw_fail(NULL, GW_TIMEOUT, 0, "x"), GW_TIMEOUT);
}

static void test_text_is_one_line_and_fits(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"plain", "plain"},
        {"two\nlines\r\t\x01\x7f", "two?lines????"},
        {"\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9"},
    };
    struct gw_error e;

    for (size_t i = 0; i < COUNT(rows); i++) {
        gw_fail(&e, GW_INVALID, 0, "%s", rows[i].in);
        assert_string_equal(e.text, rows[i].out);
    }
}

static void test_cut_keeps_whole_characters(void **state)
{
    static const char *const characters[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\xa4\x97"};
    struct gw_error e;

    for (size_t c = 0; c < COUNT(characters); c++) {
        for (size_t shift = 0; shift < 4; shift++) {
            char in[600] = "xxxx";
            size_t n = shift, len = strlen(characters[c]);

            while (n + len < sizeof(in)) {
                memcpy(in + n, characters[c], len);
                n += len;
            }
            in[n] = '\0';
            gw_fail(&e, GW_INVALID, 0, "%s", in);
            assert_true(strlen(e.text) < sizeof(e.text));
            assert_true(strlen(e.text) + len > sizeof(e.text) - 1);
            assert_int_equal((strlen(e.text) - shift) % len, 0);
            assert_memory_equal(e.text, in, strlen(e.text));
        }
    }
}

static void test_prefix(void **state)
{
    struct gw_error e;

    gw_fail(&e, GW_CONFLICT, 17, "inner");
    assert_int_equal(gw_fail_prefix(&e, "outer %d", 1), GW_CONFLICT);
    assert_string_equal(e.text, "outer 1: inner");
    assert_int_equal(e.sys, 17);
    assert_int_equal(gw_fail_prefix(NULL, "x"), GW_IO);
    gw_fail(&e, GW_INVALID, 0, "%s again", e.text); /* its own text as an argument */
    assert_string_equal(e.text, "outer 1: inner again");
}

static void test_names(void **state)
{
    assert_string_equal(gw_status_name(GW_OK), "GW_OK");
    assert_string_equal(gw_status_name(GW_TIMEOUT), "GW_TIMEOUT");
    assert_string_equal(gw_status_name(GW_IO), "GW_IO");
    for (int s = GW_IO; s <= GW_OK; s++) {
        assert_memory_equal(gw_status_name((enum gw_status)s), "GW_", 3);
    }
    assert_string_equal(gw_status_name((enum gw_status) - 99), "unknown status");
}

/* ---- log ---- */

static struct {
    int count;
    enum gw_log_level level;
    char line[2000];
    size_t n;
} seen;

static void on_line(void *ctx, enum gw_log_level level, struct gw_str line)
{
    assert_ptr_equal(ctx, &seen);
    seen.count++;
    seen.level = level;
    seen.n = line.n;
    memcpy(seen.line, line.p, line.n);
    seen.line[line.n] = '\0';
}

static void test_log(void **state)
{
    struct gw_log log = {on_line, &seen, GW_LOG_WARN}, silent = {NULL, NULL, GW_LOG_DEBUG};
    char big[3000];

    memset(&seen, 0, sizeof(seen));
    gw_log_write(&log, GW_LOG_NOTICE, "too fine");
    gw_log_write(&silent, GW_LOG_ERROR, "nowhere");
    gw_log_write(NULL, GW_LOG_ERROR, "nowhere");
    assert_int_equal(seen.count, 0);

    gw_log_write(&log, GW_LOG_ERROR, "a %s\n%d\x1b[0m", "b", 3);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.level, GW_LOG_ERROR);
    assert_string_equal(seen.line, "a b?3?[0m");

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    gw_log_write(&log, GW_LOG_WARN, "%s", big);
    assert_int_equal(seen.n, 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail_records_and_returns),
        cmocka_unit_test(test_text_is_one_line_and_fits),
        cmocka_unit_test(test_cut_keeps_whole_characters),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
