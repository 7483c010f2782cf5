/* SPDX-License-Identifier: Apache-2.0 */
/* base/encode.h - hex, base64, base62, percent-encoding, CRC32. Pure; any thread. */
#ifndef BASE_ENCODE_H
#define BASE_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/str.h"

/* Lower case, NUL at the end. */
void gw_hex_encode(char *out /* 2n + 1 */, const void *bytes, size_t n);
/* Exactly 2n digits, either case; out is left alone on failure. */
bool gw_hex_decode(void *out, size_t n, struct gw_str hex);
bool gw_is_hex_lower(struct gw_str s, size_t n); /* exactly n of [0-9a-f] */
/* Exactly n hex digits of any case, in lower case into out (n bytes, no NUL). false: others; out is
 * not defined. */
bool gw_hex_lower(char *out, struct gw_str s, size_t n);

/* RFC 4648 with padding. decode: strict alphabet, whole input, one text per value (no stray bits
 * under the padding); false also when the bytes are more than cap. */
void gw_base64_encode(struct gw_buf *out, struct gw_str bytes);
bool gw_base64_decode(struct gw_str in, void *out, size_t cap, size_t *n);

/* Alphabet 0-9A-Za-z, most significant first, left-padded with '0' to width.
 * false: does not fit. */
bool gw_base62_u64(char *out /* width, no NUL */, size_t width, uint64_t v);
/* width unbiased characters of randomness; false: no randomness. */
bool gw_base62_random(char *out /* width, no NUL */, size_t width);

uint32_t gw_crc32(uint32_t crc /* 0 to start */, const void *bytes, size_t n); /* as zlib */

/* Percent-decodes one path segment or query value ONCE into the arena. plus_is_space: form and
 * query values. false: bad escape, or no memory. The result may hold any byte: the caller's grammar
 * decides. */
bool gw_percent_decode(struct gw_arena *a, struct gw_str in, bool plus_is_space,
                       struct gw_str *out);
/* Everything but RFC 3986 unreserved characters (and '/' if keep_slash) becomes %XX. The one quoter
 * for URLs. */
void gw_percent_encode(struct gw_buf *out, struct gw_str in, bool keep_slash);

#endif
