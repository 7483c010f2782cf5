/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/sha.c - digests over OpenSSL's block functions.
 *
 * EVP cannot store and restore a half-done state, the low-level API can; it is deprecated, not
 * slower (it runs the same SHA-NI code). HMAC is built on it as well: EVP looks algorithms up by
 * name, may fail, and a MAC must not.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "base/sha.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

/* OpenSSL keeps the pending bytes as bytes in data[], and the length in bits in two halves. */
static void load(SHA256_CTX *c, const struct gw_sha256 *s)
{
    memset(c, 0, sizeof(*c));
    for (size_t i = 0; i < 8; i++) {
        c->h[i] = s->h[i];
    }
    c->Nl = (SHA_LONG)(s->bytes << 3);
    c->Nh = (SHA_LONG)(s->bytes >> 29);
    c->num = (unsigned)(s->bytes % 64); /* never from the file: it indexes data[] */
    c->md_len = SHA256_DIGEST_LENGTH;
    memcpy(c->data, s->pending, c->num);
}

static void store(struct gw_sha256 *s, const SHA256_CTX *c, uint64_t bytes)
{
    for (size_t i = 0; i < 8; i++) {
        s->h[i] = c->h[i];
    }
    s->bytes = bytes;
    memset(s->pending, 0, sizeof(s->pending));
    memcpy(s->pending, c->data, (size_t)(bytes % 64));
}

void gw_sha256_init(struct gw_sha256 *s)
{
    SHA256_CTX c;

    SHA256_Init(&c);
    store(s, &c, 0);
}

void gw_sha256_update(struct gw_sha256 *s, const void *p, size_t n)
{
    SHA256_CTX c;

    if (n == 0) {
        return;
    }
    load(&c, s);
    SHA256_Update(&c, p, n);
    store(s, &c, s->bytes + n);
    OPENSSL_cleanse(&c, sizeof(c));
}

void gw_sha256_final(const struct gw_sha256 *s, uint8_t out[32])
{
    SHA256_CTX c;

    load(&c, s);
    SHA256_Final(out, &c); /* cleanses c */
}

void gw_sha256_once(const void *p, size_t n, uint8_t out[32])
{
    SHA256_CTX c;

    SHA256_Init(&c);
    SHA256_Update(&c, p, n);
    SHA256_Final(out, &c);
}

_Static_assert(sizeof(SHA_CTX) <= sizeof(struct gw_git_sha1), "the opaque state holds OpenSSL's");
_Static_assert(_Alignof(SHA_CTX) <= _Alignof(struct gw_git_sha1), "and is aligned for it");

void gw_git_sha1_init(struct gw_git_sha1 *s, uint64_t size)
{
    SHA_CTX c;
    char head[32];
    int n = snprintf(head, sizeof(head), "blob %llu", (unsigned long long)size);

    SHA1_Init(&c);
    SHA1_Update(&c, head, (size_t)n + 1); /* with its NUL */
    memset(s, 0, sizeof(*s));
    memcpy(s, &c, sizeof(c));
}

void gw_git_sha1_plain(struct gw_git_sha1 *s)
{
    SHA_CTX c;

    SHA1_Init(&c);
    memset(s, 0, sizeof(*s));
    memcpy(s, &c, sizeof(c));
}

void gw_git_sha1_update(struct gw_git_sha1 *s, const void *p, size_t n)
{
    SHA_CTX c;

    memcpy(&c, s, sizeof(c));
    SHA1_Update(&c, p, n);
    memcpy(s, &c, sizeof(c));
}

void gw_git_sha1_final(struct gw_git_sha1 *s, uint8_t out[20])
{
    SHA_CTX c;

    memcpy(&c, s, sizeof(c));
    SHA1_Final(out, &c);
    memset(s, 0, sizeof(*s));
}

/* RFC 2104 */
void gw_hmac_sha256(struct gw_str key, struct gw_str data, uint8_t out[32])
{
    unsigned char block[SHA256_CBLOCK] = {0};
    SHA256_CTX c;

    if (key.n > sizeof(block)) {
        gw_sha256_once(key.p, key.n, block);
    } else if (key.n != 0) {
        memcpy(block, key.p, key.n);
    }
    for (size_t i = 0; i < sizeof(block); i++) {
        block[i] ^= 0x36;
    }
    SHA256_Init(&c);
    SHA256_Update(&c, block, sizeof(block));
    SHA256_Update(&c, data.p, data.n);
    SHA256_Final(out, &c);

    for (size_t i = 0; i < sizeof(block); i++) {
        block[i] ^= 0x36 ^ 0x5c;
    }
    SHA256_Init(&c);
    SHA256_Update(&c, block, sizeof(block));
    SHA256_Update(&c, out, SHA256_DIGEST_LENGTH);
    SHA256_Final(out, &c);
    OPENSSL_cleanse(block, sizeof(block));
}

bool gw_equal_secret(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

bool gw_random(void *out, size_t n)
{
    unsigned char *p = out;

    while (n != 0) {
        ssize_t got =
            getrandom(p, n, 0); /* the kernel's: nothing to seed, nothing shared after fork */

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        p += got;
        n -= (size_t)got;
    }
    return true;
}

void gw_wipe(void *p, size_t n)
{
    if (n != 0) {
        OPENSSL_cleanse(p, n);
    }
}

#define SCRYPT_R 8
#define SCRYPT_P 1
#define SCRYPT_LOG2_N_MAX 20u /* 1 GiB: an account file must not be able to ask for more */

bool gw_scrypt(struct gw_str password, const uint8_t salt[16], unsigned log2_n, uint8_t out[32])
{
    uint64_t n, memory;

    if (log2_n < 1 || log2_n > SCRYPT_LOG2_N_MAX) {
        return false;
    }
    n = UINT64_C(1) << log2_n;
    memory = 128 * SCRYPT_R * (n + SCRYPT_P + 2);
    return EVP_PBE_scrypt(password.n != 0 ? password.p : "", password.n, salt, 16, n, SCRYPT_R,
                          SCRYPT_P, memory, out, 32) == 1;
}
