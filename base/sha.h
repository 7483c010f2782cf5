/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/sha.h - digests. SHA-256 with a state that can be stored and continued by another process.
 *
 * The state is our own layout (design: proof of a fill); sha.c alone uses OpenSSL's low-level API,
 * which keeps SHA-NI.
 */
#ifndef BASE_SHA_H
#define BASE_SHA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct gw_sha256 {
    uint32_t h[8];
    uint64_t bytes; /* fed so far; the last bytes % 64 of them are in pending */
    uint8_t pending[64];
};

void gw_sha256_init(struct gw_sha256 *s);
void gw_sha256_update(struct gw_sha256 *s, const void *p, size_t n);
void gw_sha256_final(const struct gw_sha256 *s, uint8_t out[32]); /* s stays usable */
void gw_sha256_once(const void *p, size_t n, uint8_t out[32]);

/* git's blob id: SHA-1 of "blob <size>\0" and the bytes. Opaque state on the caller's stack; final
 * ends it. */
struct gw_git_sha1 {
    uint64_t opaque[16];
};
void gw_git_sha1_init(struct gw_git_sha1 *s, uint64_t size);
void gw_git_sha1_plain(
    struct gw_git_sha1 *s); /* of the bytes alone: checksums of git's own files */
void gw_git_sha1_update(struct gw_git_sha1 *s, const void *p, size_t n);
void gw_git_sha1_final(struct gw_git_sha1 *s, uint8_t out[20]);

void gw_hmac_sha256(struct gw_str key, struct gw_str data, uint8_t out[32]);
bool gw_equal_secret(const void *a, const void *b, size_t n); /* constant time */
bool gw_random(void *out, size_t n); /* false: the system has none; do not go on */
void gw_wipe(void *p, size_t n);     /* cannot be optimised away */

/* scrypt (RFC 7914) for account files: blocking, about 60 ms; job threads and the command only.
 * r = 8, p = 1, N = 2^log2_n, 1 to 20 (1 GiB); 15 is the 60 ms. false: out of range, or no memory.
 */
bool gw_scrypt(struct gw_str password, const uint8_t salt[16], unsigned log2_n, uint8_t out[32]);

#endif
