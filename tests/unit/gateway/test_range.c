/* SPDX-License-Identifier: Apache-2.0 */
/* The Range header of RFC 9110 14, and which clients start anew. */
#include "gateway_fixture.h"

static void test_ranges(void **state)
{
    enum { NONE = RANGE_NONE, ONE = RANGE_ONE, MANY = RANGE_SEVERAL, BAD = RANGE_UNSATISFIABLE };
    static const struct {
        const char *header;
        uint64_t size;
        int kind;
        uint64_t first, end;
        bool open;
    } rows[] = {
        {"bytes=0-0", 10, ONE, 0, 1, false},
        {"bytes=0-9", 10, ONE, 0, 10, false},
        {"bytes=0-99", 10, ONE, 0, 10, false}, /* the end is cut to the size */
        {"bytes=9-9", 10, ONE, 9, 10, false},
        {"bytes=3-5", 10, ONE, 3, 6, false},
        {"bytes=3-", 10, ONE, 3, 10, true},
        {"bytes=0-", 10, ONE, 0, 10, true},
        {"bytes=-1", 10, ONE, 9, 10, false}, /* the last byte */
        {"bytes=-10", 10, ONE, 0, 10, false},
        {"bytes=-11", 10, ONE, 0, 10, false}, /* more than there is: all of it */
        {"bytes=-18446744073709551615", 10, ONE, 0, 10, false},
        {"bytes=0-18446744073709551615", 10, ONE, 0, 10, false},
        {"bytes=1099511627776-1099511627777", UINT64_C(1) << 41, ONE, UINT64_C(1) << 40,
         (UINT64_C(1) << 40) + 2, false},
        {"bytes=18446744073709551614-", UINT64_MAX, ONE, UINT64_MAX - 1, UINT64_MAX, true},
        /* the unit is a token: any case; blanks at the ends */
        {"Bytes=1-2", 10, ONE, 1, 3, false},
        {"  bytes=1-2\t", 10, ONE, 1, 3, false},
        {"bytes= 1-2", 10, ONE, 1, 3, false},
        /* nothing of it is there */
        {"bytes=10-", 10, BAD, 0, 0, true},
        {"bytes=10-20", 10, BAD, 0, 0, false},
        {"bytes=18446744073709551615-", 10, BAD, 0, 0, true},
        {"bytes=-0", 10, BAD, 0, 0, false},
        {"bytes=0-0", 0, BAD, 0, 0, false},
        {"bytes=0-", 0, BAD, 0, 0, true},
        {"bytes=-5", 0, BAD, 0, 0, false},
        /* the header is not used: the whole is always allowed */
        {"", 10, NONE, 0, 0, false},
        {"bytes", 10, NONE, 0, 0, false},
        {"bytes=", 10, NONE, 0, 0, false},
        {"bytes=-", 10, NONE, 0, 0, false},
        {"bytes=5", 10, NONE, 0, 0, false},
        {"bytes=5-4", 10, NONE, 0, 0, false}, /* invalid by the RFC */
        {"bytes=0-1,3-4", 10, MANY, 0, 0, false},
        {"bytes=0-1 , -1,5-", 10, MANY, 0, 0, false},
        {"bytes=0-1,10-", 10, MANY, 0, 0, false},
        {"bytes=11-12,10-,-0", 10, BAD, 0, 0, false},
        {"bytes=0-1,4-3", 10, NONE, 0, 0, false},
        {"bytes=0-1,x", 10, NONE, 0, 0, false},
        {"bytes=,0-1", 10, NONE, 0, 0, false},
        {"bytes=0-1,,3-4", 10, NONE, 0, 0, false},
        {"bytes=0-1,", 10, NONE, 0, 0, false},
        {"bytes=a-b", 10, NONE, 0, 0, false},
        {"bytes=1-b", 10, NONE, 0, 0, false},
        {"bytes=+1-2", 10, NONE, 0, 0, false},
        {"bytes=--1", 10, NONE, 0, 0, false},
        {"bytes=1--2", 10, NONE, 0, 0, false},
        {"bytes=1-2-3", 10, NONE, 0, 0, false},
        {"bytes=0x1-2", 10, NONE, 0, 0, false},
        {"bytes=18446744073709551616-", 10, NONE, 0, 0, false},
        {"bytes=0-18446744073709551616", 10, NONE, 0, 0, false},
        {"bytes=0000000000000000000000000000000000000000000000000000000000000000000-1", 10, NONE, 0,
         0, false},
        {"items=0-1", 10, NONE, 0, 0, false},
        {"bytes 0-1", 10, NONE, 0, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t first = 0, end = 0;
        bool open = true;
        int kind = (int)range_parse(gw_str_c(rows[i].header), rows[i].size, &first, &end, &open);

        if (kind != rows[i].kind || (kind == ONE && (first != rows[i].first || end != rows[i].end ||
                                                     open != rows[i].open))) {
            fail_msg("\"%s\" of %llu: kind %d, %llu to %llu%s", rows[i].header,
                     (unsigned long long)rows[i].size, kind, (unsigned long long)first,
                     (unsigned long long)end, open ? ", open" : "");
        }
    }
}

static void test_pieces(void **state)
{
    static const struct {
        const char *header, *pieces; /* of a file of 100 bytes */
    } rows[] = {
        {"bytes=5-9", "5-10"},     {"bytes=0-0, 5-9 ,-7", "0-1 5-10 93-100"},
        {"BYTES = 90-", "90-100"}, {"bytes=200-300,1-1", "1-2"}, /* what is not there is left out */
        {"bytes=100-", ""},        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct range_piece pieces[RANGES_MAX];
        size_t n = range_pieces(gw_str_c(rows[i].header), 100, pieces);
        char got[200] = "";

        for (size_t k = 0; k < n; k++) {
            snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%llu-%llu", k ? " " : "",
                     (unsigned long long)pieces[k].first, (unsigned long long)pieces[k].end);
        }
        assert_string_equal(got, rows[i].pieces);
    }
}

static void test_clients(void **state)
{
    static const struct {
        const char *agent;
        bool restarts;
    } rows[] = {
        {"unknown/None; hf_hub/0.36.2; python/3.11.2; torch/2.1", true},
        {"unknown/None; hf_hub/0.36.2", true},
        {"hf_hub/1.5.0", true},
        {"hf_hub/1.5.0.dev0; python/3.12", true},
        {"transformers/4; hf_hub/2.4.0; python/3.11", true},
        {"hf_hub/10.0", true},
        {"unknown/None; hf_hub/0.36.1; python/3.11.2", false},
        {"hf_hub/0.36.20", false},
        {"hf_hub/1.4.9", false},
        {"hf_hub/1.10.0", true},
        {"hf_hub/", false},
        {"hf_hub/1", false},
        {"hf_hub/a.b", false},
        {"hf_hub/99999999999999999999.5", false},
        {"hf_hub", false},
        {"curl/7.88.1", false},
        {"", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (range_client_restarts(gw_str_c(rows[i].agent)) != rows[i].restarts) {
            fail_msg("%s", rows[i].agent);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_clients),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
