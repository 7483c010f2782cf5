/* SPDX-License-Identifier: Apache-2.0 */
#include "base/encode.h"
#include "base/sha.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void assert_hex(const uint8_t *digest, size_t n, const char *expected)
{
    char hex[65];

    gw_hex_encode(hex, digest, n);
    assert_string_equal(hex, expected);
}

static void test_sha256_vectors(void **state)
{
    static const struct { /* FIPS 180-4 examples */
        const char *in, *digest;
    } rows[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    uint8_t out[32];

    for (size_t i = 0; i < COUNT(rows); i++) {
        gw_sha256_once(rows[i].in, strlen(rows[i].in), out);
        assert_hex(out, 32, rows[i].digest);
    }
    gw_sha256_once(NULL, 0, out);
    assert_hex(out, 32, rows[0].digest);
}

static void test_sha256_in_pieces(void **state)
{
    uint8_t data[1000], once[32], out[32];

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 7);
    }
    gw_sha256_once(data, sizeof(data), once);
    for (size_t piece = 1; piece < 200; piece++) {
        struct gw_sha256 s;

        gw_sha256_init(&s);
        for (size_t i = 0; i < sizeof(data); i += piece) {
            struct gw_sha256 stored;
            size_t n = sizeof(data) - i < piece ? sizeof(data) - i : piece;

            gw_sha256_update(&s, data + i, n);
            memcpy(&stored, &s, sizeof(s)); /* through a file, into another process */
            memset(&s, 0xaa, sizeof(s));
            memcpy(&s, &stored, sizeof(s));
            assert_int_equal(s.bytes, i + n);
            assert_memory_equal(s.pending, data + (i + n) / 64 * 64, (i + n) % 64);
        }
        gw_sha256_final(&s, out);
        assert_memory_equal(out, once, 32);
        gw_sha256_final(&s, out); /* stays usable */
        assert_memory_equal(out, once, 32);
    }
}

/* A stored state is bytes from a disk: any of them must be safe, and the length counts in bits
 * beyond 32. */
static void test_sha256_of_any_state(void **state)
{
    struct gw_sha256 s;
    uint8_t out[32], big[32];

    memset(&s, 0xff, sizeof(s));
    gw_sha256_update(&s, "abc", 3);
    gw_sha256_final(&s, out);

    gw_sha256_init(&s);
    gw_sha256_final(&s, out);
    s.bytes = UINT64_C(1) << 32;
    gw_sha256_final(&s, big);
    assert_memory_not_equal(out, big, 32);
}

static void test_git_sha1(void **state)
{
    struct gw_git_sha1 s;
    uint8_t out[20];

    gw_git_sha1_init(&s, 0);
    gw_git_sha1_final(&s, out);
    assert_hex(out, 20, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"); /* git hash-object /dev/null */
    gw_git_sha1_init(&s, 6);
    gw_git_sha1_update(&s, "hel", 3);
    gw_git_sha1_update(&s, "", 0);
    gw_git_sha1_update(&s, "lo\n", 3);
    gw_git_sha1_final(&s, out);
    assert_hex(
        out, 20,
        "ce013625030ba8dba906f756967f9e9ca394464a"); /* echo hello | git hash-object --stdin */
}

static void test_hmac(void **state)
{
    static const struct { /* RFC 4231, cases 2 and 6 */
        struct gw_str key, data;
        const char *mac;
    } rows[] = {
        {GW_STR_INIT("Jefe"), GW_STR_INIT("what do ya want for nothing?"),
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {{NULL, 0}, {NULL, 0}, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"},
    };
    uint8_t out[32];
    char key[131];

    for (size_t i = 0; i < COUNT(rows); i++) {
        gw_hmac_sha256(rows[i].key, rows[i].data, out);
        assert_hex(out, 32, rows[i].mac);
    }
    memset(key, 0xaa, sizeof(key)); /* longer than a block */
    gw_hmac_sha256((struct gw_str){key, sizeof(key)},
                   GW_STR("Test Using Larger Than Block-Size Key - Hash Key First"), out);
    assert_hex(out, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void test_secrets(void **state)
{
    uint8_t a[64], b[64];

    assert_true(gw_equal_secret("abc", "abc", 3));
    assert_false(gw_equal_secret("abc", "abd", 3));
    assert_false(gw_equal_secret("abc", "bbc", 3));
    assert_true(gw_equal_secret("a", "b", 0));
    assert_true(gw_random(a, sizeof(a)) && gw_random(b, sizeof(b)) && gw_random(a, 0));
    assert_memory_not_equal(a, b, sizeof(a));
    gw_wipe(a, sizeof(a));
    gw_wipe(NULL, 0);
    for (size_t i = 0; i < sizeof(a); i++) {
        assert_int_equal(a[i], 0);
    }
}

static void test_scrypt(void **state)
{
    static const uint8_t salt[16] = "0123456789abcdef";
    uint8_t out[32], other[32];

    assert_true(gw_scrypt(GW_STR("secret"), salt, 10, out));
    /* python3: hashlib.scrypt(b"secret", salt=b"0123456789abcdef", n=1024, r=8, p=1, dklen=32) */
    assert_hex(out, 32, "4bb17006fa6efb3f0ad0f51551a805453500076740c48669cd51ef2d98abfbdf");
    assert_true(gw_scrypt(GW_STR("secreu"), salt, 10, other));
    assert_memory_not_equal(out, other, 32);
    assert_true(gw_scrypt((struct gw_str){NULL, 0}, salt, 4, out));
    assert_false(gw_scrypt(GW_STR("secret"), salt, 0, out));
    assert_false(gw_scrypt(GW_STR("secret"), salt, 21, out));
    assert_false(gw_scrypt(GW_STR("secret"), salt, 64, out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_vectors),
        cmocka_unit_test(test_sha256_in_pieces),
        cmocka_unit_test(test_sha256_of_any_state),
        cmocka_unit_test(test_git_sha1),
        cmocka_unit_test(test_hmac),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_scrypt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
