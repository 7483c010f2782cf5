/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_entry.c - the binary form: there and back, and every damage is seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/encode.h"
#include "hub/hub.h"
#include "tests/unit/failing.h"

#define OID "0123456789abcdef0123456789abcdef01234567"
#define DIGEST OID "0123456789abcdef01234567"

static struct hub_entry sample(int i)
{
    static const char *const paths[] = {"config.json", "a/b/c.bin", "dir", "\xf0\x9f\x98\x80/x y"};
    struct hub_entry e = {.path = gw_str_c(paths[i % 4]), .size = (uint64_t)i * 1000003};

    memcpy(e.oid, OID, sizeof(e.oid));
    e.directory = i % 4 == 2;
    if (i % 4 == 1) {
        e.lfs = true;
        memcpy(e.sha256, DIGEST, sizeof(e.sha256));
        e.pointer_size = 135;
        e.size = UINT64_MAX;
        e.xet = GW_STR(DIGEST);
    }
    if (i % 4 == 3) {
        e.xet = GW_STR(DIGEST); /* the Hub has small files in Xet, too */
    }
    return e;
}

static void encode(struct gw_buf *b, const struct hub_entry *e)
{
    gw_buf_init(b, 65536);
    hub_entry_encode(b, e);
    assert_false(b->failed);
}

static void there_and_back(void **state)
{
    for (int i = 0; i < 4; i++) {
        struct hub_entry e = sample(i), got;
        struct gw_buf b;

        encode(&b, &e);
        assert_int_equal(hub_entry_decode(&got, gw_buf_str(&b), NULL), GW_OK);
        assert_int_equal(got.directory, e.directory);
        assert_int_equal(got.lfs, e.lfs);
        assert_true(gw_str_eq(got.path, e.path));
        assert_string_equal(got.oid, e.oid);
        assert_string_equal(got.sha256, e.sha256);
        assert_true(got.size == e.size);
        assert_int_equal(got.pointer_size, e.pointer_size);
        assert_true(gw_str_eq(got.xet, e.xet));
        gw_buf_release(&b);
    }
}

static void appends(void **state)
{
    struct hub_entry e = sample(0), got;
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    gw_buf_add_c(&b, "before");
    hub_entry_encode(&b, &e);
    assert_false(b.failed);
    assert_int_equal(hub_entry_decode(&got, gw_str_sub(gw_buf_str(&b), 6, b.n), NULL), GW_OK);
    gw_buf_release(&b);
}

static void no_entries(void **state)
{
    for (int i = 0; i < 8; i++) {
        struct hub_entry e = sample(1);
        struct gw_buf b;

        switch (i) {
        case 0:
            e.path = GW_STR("");
            break;
        case 1:
            e.path = GW_STR("a/../b");
            break;
        case 2:
            e.path = GW_STR("a\nb");
            break;
        case 3:
            e.oid[0] = 'X';
            break;
        case 4:
            e.oid[39] = '\0';
            break;
        case 5:
            e.sha256[0] = '\0';
            break;
        case 6:
            e.xet = GW_STR("********");
            break;
        default:
            e.directory = true;
        }
        gw_buf_init(&b, 65536);
        hub_entry_encode(&b, &e);
        assert_true(b.failed);
        gw_buf_release(&b);
    }
}

static void corrupt(struct gw_str bytes)
{
    struct hub_entry got = {.size = 77};
    struct gw_error err;

    assert_int_equal(hub_entry_decode(&got, bytes, &err), GW_CORRUPT);
    assert_int_equal(got.size, 77);
}

static void damage(void **state)
{
    for (int i = 0; i < 4; i++) {
        struct hub_entry e = sample(i);
        struct gw_buf b;

        encode(&b, &e);
        for (size_t n = 0; n < b.n; n++) {
            corrupt(gw_str_sub(gw_buf_str(&b), 0, n));
        }
        for (size_t bit = 0; bit < b.n * 8; bit++) {
            b.p[bit / 8] ^= (char)(1 << bit % 8);
            corrupt(gw_buf_str(&b));
            b.p[bit / 8] ^= (char)(1 << bit % 8);
        }
        gw_buf_add_char(&b, '\0');
        corrupt(gw_buf_str(&b));
        gw_buf_release(&b);
    }
}

/* With a right checksum: a record that somebody made. */
static void forged(void **state)
{
    static const struct {
        size_t at;
        unsigned char value;
    } rows[] = {
        {0, 0},    /* version */
        {0, 2},    /* a newer one */
        {1, 8},    /* an unknown flag */
        {1, 3},    /* a directory in LFS */
        {2, 0xff}, /* length of the path */
        {32, 0},   /* NUL in the path */
        {32, '/'},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hub_entry e = sample(0);
        uint32_t crc;
        struct gw_buf b;

        encode(&b, &e);
        b.p[rows[i].at] = (char)rows[i].value;
        crc = gw_crc32(0, b.p, b.n - 4);
        for (int k = 0; k < 4; k++) {
            b.p[b.n - 4 + (size_t)k] = (char)(crc >> (8 * k));
        }
        corrupt(gw_buf_str(&b));
        gw_buf_release(&b);
    }
    corrupt(GW_STR(""));
    corrupt(GW_STR("\0\0\0\0"));
}

static int encode_once(void *ctx)
{
    struct hub_entry e = sample(1);
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 65536);
    hub_entry_encode(&b, &e);
    rc = gw_buf_ok(&b, NULL);
    gw_buf_release(&b);
    return rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(encode_once, NULL, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back), cmocka_unit_test(appends), cmocka_unit_test(no_entries),
        cmocka_unit_test(damage),         cmocka_unit_test(forged),  cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
