/* SPDX-License-Identifier: Apache-2.0 */
/* base/encode.c - bytes to text and back. */
#include "base/encode.h"

#include <zlib.h>

#include "base/sha.h"

static const char hex_digits[] = "0123456789abcdef";
static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base62_digits[] =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

void gw_hex_encode(char *out, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < n; i++) {
        *out++ = hex_digits[p[i] >> 4];
        *out++ = hex_digits[p[i] & 15];
    }
    *out = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

bool gw_hex_decode(void *out, size_t n, struct gw_str hex)
{
    unsigned char *p = out;

    if (hex.n % 2 != 0 || hex.n / 2 != n) {
        return false;
    }
    for (size_t i = 0; i < hex.n; i++) { /* all of it first: nothing is written on failure */
        if (hex_value(hex.p[i]) < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < n; i++) {
        p[i] = (unsigned char)(hex_value(hex.p[2 * i]) << 4 | hex_value(hex.p[2 * i + 1]));
    }
    return true;
}

bool gw_is_hex_lower(struct gw_str s, size_t n)
{
    if (s.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f'))) {
            return false;
        }
    }
    return true;
}

bool gw_hex_lower(char *out, struct gw_str s, size_t n)
{
    if (s.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = s.p[i] >= 'A' && s.p[i] <= 'F' ? (char)(s.p[i] + ('a' - 'A')) : s.p[i];
    }
    return gw_is_hex_lower((struct gw_str){out, n}, n);
}

void gw_base64_encode(struct gw_buf *out, struct gw_str bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.p;

    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0);
        char four[4] = {base64_digits[v >> 18], base64_digits[v >> 12 & 63],
                        left > 1 ? base64_digits[v >> 6 & 63] : '=',
                        left > 2 ? base64_digits[v & 63] : '='};

        gw_buf_add(out, (struct gw_str){four, sizeof(four)});
    }
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool gw_base64_decode(struct gw_str in, void *out, size_t cap, size_t *n)
{
    size_t pad = 0, len, done = 0;
    unsigned char *p = out;
    uint32_t v = 0;

    if (in.n % 4 != 0) {
        return false;
    }
    while (pad < 2 && pad < in.n && in.p[in.n - 1 - pad] == '=') {
        pad++;
    }
    len = in.n / 4 * 3 - pad;
    if (len > cap) {
        return false;
    }
    for (size_t i = 0; i < in.n; i++) {
        int digit = i < in.n - pad ? base64_value(in.p[i]) : 0;

        if (digit < 0) {
            return false;
        }
        v = v << 6 | (uint32_t)digit;
        if (i % 4 == 3) {
            for (int shift = 16; shift >= 0; shift -= 8) {
                unsigned char byte = (unsigned char)(v >> shift);

                if (done < len) {
                    p[done++] = byte;
                } else if (byte != 0) {
                    return false; /* stray bits under the padding: two texts for one value (RFC
                                     4648 3.5) */
                }
            }
            v = 0;
        }
    }
    *n = len;
    return true;
}

bool gw_base62_u64(char *out, size_t width, uint64_t v)
{
    uint64_t rest = v;

    for (size_t i = 0; i < width; i++) {
        rest /= 62;
    }
    if (rest != 0) {
        return false;
    }
    for (size_t i = width; i > 0; i--) {
        out[i - 1] = base62_digits[v % 62];
        v /= 62;
    }
    return true;
}

bool gw_base62_random(char *out, size_t width)
{
    unsigned char bytes[64];
    size_t done = 0;

    while (done < width) {
        if (!gw_random(bytes, sizeof(bytes))) {
            gw_wipe(bytes, sizeof(bytes));
            return false;
        }
        for (size_t i = 0; i < sizeof(bytes) && done < width; i++) {
            if (bytes[i] <
                62 * 4) { /* the rest of the byte's range would favour the first digits */
                out[done++] = base62_digits[bytes[i] % 62];
            }
        }
    }
    gw_wipe(bytes, sizeof(bytes));
    return true;
}

uint32_t gw_crc32(uint32_t crc, const void *bytes, size_t n)
{
    return (uint32_t)crc32_z(crc, bytes, n);
}

bool gw_percent_decode(struct gw_arena *a, struct gw_str in, bool plus_is_space, struct gw_str *out)
{
    char *p = in.n < SIZE_MAX ? gw_arena_alloc(a, in.n + 1) : NULL;
    size_t n = 0;

    if (p == NULL) {
        return false;
    }
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];

        if (c == '%') {
            int high = in.n - i > 2 ? hex_value(in.p[i + 1]) : -1;
            int low = high >= 0 ? hex_value(in.p[i + 2]) : -1;

            if (low < 0) {
                return false;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        p[n++] = c;
    }
    p[n] = '\0';
    *out = (struct gw_str){p, n};
    return true;
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void gw_percent_encode(struct gw_buf *out, struct gw_str in, bool keep_slash)
{
    size_t plain = 0;

    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];

        if (!is_unreserved(c) && !(c == '/' && keep_slash)) {
            char three[3] = {'%', "0123456789ABCDEF"[(unsigned char)c >> 4],
                             "0123456789ABCDEF"[(unsigned char)c & 15]};

            gw_buf_add(out, gw_str_sub(in, plain, i - plain));
            gw_buf_add(out, (struct gw_str){three, sizeof(three)});
            plain = i + 1;
        }
    }
    gw_buf_add(out, gw_str_sub(in, plain, in.n));
}
