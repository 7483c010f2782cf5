/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/repo/repo_test.h"

#define HEX "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
#define V "version https://git-lfs.github.com/spec/v1\n"

static void test_format(void **state)
{
    char out[200];
    size_t n = repo_pointer_format(out, GW_STR(HEX), 12345);

    assert_int_equal(n, strlen(out));
    assert_string_equal(out, V "oid sha256:" HEX "\nsize 12345\n");
}

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        uint64_t size;
    } rows[] = {
        {V "oid sha256:" HEX "\nsize 12345\n", true, 12345},
        {V "oid sha256:" HEX "\nsize 0\n", true, 0},
        {V "oid sha256:" HEX "\nsize 9223372036854775807\n", true, INT64_MAX},
        {V "oid sha256:" HEX "\nsize 9223372036854775808\n", false, 0},
        {V "oid sha256:" HEX "\nsize 99999999999999999999\n", false, 0},
        {"", false, 0},
        {V, false, 0},
        {V "oid sha256:" HEX "\nsize 12345", false, 0},
        {V "oid sha256:" HEX "\nsize 12345\n\n", false, 0},
        {V "oid sha256:" HEX "\nsize 012345\n", false, 0},
        {V "oid sha256:" HEX "\nsize +12345\n", false, 0},
        {V "oid sha256:" HEX "\nsize  12345\n", false, 0},
        {V "oid sha256:" HEX "\nsize 12345 \n", false, 0},
        {V "oid sha256:" HEX "\nsize -1\n", false, 0},
        {V "oid sha256:" HEX "\nsize \n", false, 0},
        {V "oid sha256:" HEX "\nsize 1\nx-more 1\n", false, 0},
        {V "ext-0-foo sha256:" HEX "\noid sha256:" HEX "\nsize 1\n", false, 0},
        {V "oid sha1:" HEX "\nsize 12345\n", false, 0},
        {V "oid sha256:4D7A214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize "
           "12345\n",
         false, 0},
        {V "oid sha256:4d7a\nsize 12345\n", false, 0},
        {V "size 12345\noid sha256:" HEX "\n", false, 0},
        {"version https://git-lfs.github.com/spec/v2\noid sha256:" HEX "\nsize 12345\n", false, 0},
        {"version https://hawser.github.com/spec/v1\noid sha256:" HEX "\nsize 12345\n", false, 0},
        {"version https://git-lfs.github.com/spec/v1\r\noid sha256:" HEX "\r\nsize 12345\r\n",
         false, 0},
        {" " V "oid sha256:" HEX "\nsize 12345\n", false, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char sha[65] = "untouched";
        uint64_t size = 77;

        if (repo_pointer_parse(gw_str_c(rows[i].text), sha, &size) != rows[i].ok) {
            fail_msg("row %zu: %s", i, rows[i].text);
        }
        assert_string_equal(sha, rows[i].ok ? HEX : "untouched");
        assert_int_equal(size, rows[i].ok ? rows[i].size : 77);
    }
}

static void test_every_cut_and_flip_is_refused(void **state)
{
    char text[200], copy[200], sha[65];
    size_t n = repo_pointer_format(text, GW_STR(HEX), 10);
    uint64_t size;

    for (size_t i = 0; i < n; i++) {
        assert_false(repo_pointer_parse((struct gw_str){text, i}, sha, &size));
        memcpy(copy, text, n);
        copy[i] ^= 0x40; /* no digit becomes a digit, no hex digit a hex digit in lower case */
        if (repo_pointer_parse((struct gw_str){copy, n}, sha, &size)) {
            fail_msg("byte %zu", i);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_every_cut_and_flip_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
