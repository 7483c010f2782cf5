/* SPDX-License-Identifier: Apache-2.0 */
/* base/str.c - text with a length, and the growing buffer. */
#include "base/str.h"

#include "base/alloc.h"
#include "base/sha.h"

#include <stdio.h>

/* Below this a buffer grows by copying, so that gw_buf_wipe leaves no earlier copy of a secret in
 * the heap. */
#define WIPED_GROWTH_MAX (64u << 10)

struct gw_str gw_str_c(const char *nul_terminated)
{
    if (nul_terminated == NULL) {
        return GW_STR("");
    }
    return (struct gw_str){nul_terminated, strlen(nul_terminated)};
}

bool gw_str_eq(struct gw_str a, struct gw_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool gw_str_eq_c(struct gw_str a, const char *b)
{
    return gw_str_eq(a, gw_str_c(b));
}

static unsigned char fold(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool gw_str_ieq(struct gw_str a, struct gw_str b)
{
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (fold(a.p[i]) != fold(b.p[i])) {
            return false;
        }
    }
    return true;
}

bool gw_str_ieq_c(struct gw_str a, const char *b)
{
    return gw_str_ieq(a, gw_str_c(b));
}

int gw_str_cmp(struct gw_str a, struct gw_str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n != 0 ? memcmp(a.p, b.p, n) : 0;

    if (order != 0) {
        return order;
    }
    return (a.n > b.n) - (a.n < b.n);
}

bool gw_str_starts(struct gw_str s, struct gw_str prefix)
{
    return s.n >= prefix.n && gw_str_eq(gw_str_sub(s, 0, prefix.n), prefix);
}

bool gw_str_ends(struct gw_str s, struct gw_str suffix)
{
    return s.n >= suffix.n && gw_str_eq(gw_str_sub(s, s.n - suffix.n, suffix.n), suffix);
}

struct gw_str gw_str_sub(struct gw_str s, size_t from, size_t n)
{
    if (s.p == NULL) {
        return s;
    }
    if (from > s.n) {
        from = s.n;
    }
    if (n > s.n - from) {
        n = s.n - from;
    }
    return (struct gw_str){s.p + from, n};
}

struct gw_str gw_str_trim(struct gw_str s)
{
    while (s.n != 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n != 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) {
        s.n--;
    }
    return s;
}

bool gw_str_split(struct gw_str *rest, char sep, struct gw_str *head)
{
    const char *at;

    if (rest->p == NULL) {
        return false;
    }
    at = rest->n != 0 ? memchr(rest->p, sep, rest->n) : NULL;
    if (at == NULL) {
        *head = *rest;
        *rest = (struct gw_str){NULL, 0};
        return true;
    }
    *head = (struct gw_str){rest->p, (size_t)(at - rest->p)};
    rest->n -= head->n + 1;
    rest->p = at + 1;
    return true;
}

bool gw_str_u64(struct gw_str s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v)) {
            return false;
        }
    }
    *out = v;
    return true;
}

size_t gw_utf8_char(struct gw_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned char lo = 0x80, hi = 0xbf;
    size_t n;

    if (s.n == 0) {
        return 0;
    }
    /* RFC 3629 section 4: only the second byte's range depends on the first */
    if (p[0] < 0x80) {
        return 1;
    } else if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        n = 3;
        lo = p[0] == 0xe0 ? 0xa0 : lo;
        hi = p[0] == 0xed ? 0x9f : hi;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n = 4;
        lo = p[0] == 0xf0 ? 0x90 : lo;
        hi = p[0] == 0xf4 ? 0x8f : hi;
    } else {
        return 0;
    }
    if (s.n < n || p[1] < lo || p[1] > hi) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

bool gw_utf8_valid(struct gw_str s)
{
    while (s.n != 0) {
        uint64_t eight;
        size_t n;

        if (s.n >= sizeof(eight)) {
            memcpy(&eight, s.p, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                s.p += sizeof(eight);
                s.n -= sizeof(eight);
                continue;
            }
        }
        n = gw_utf8_char(s);
        if (n == 0) {
            return false;
        }
        s.p += n;
        s.n -= n;
    }
    return true;
}

void gw_buf_init(struct gw_buf *b, size_t max)
{
    *b = (struct gw_buf){.max = max};
}

/* Room for n more bytes and the NUL. */
static bool reserve(struct gw_buf *b, size_t n)
{
    size_t need, cap;
    char *p;

    if (b->failed || n > b->max - b->n || n > SIZE_MAX / 4 - b->n) {
        b->failed = true;
        return false;
    }
    need = b->n + n + 1;
    if (need <= b->cap) {
        return true;
    }
    cap = need < 64 ? 64 : need + need / 2;
    if (cap - 1 > b->max) {
        cap = b->max + 1;
    }
    if (b->cap > WIPED_GROWTH_MAX) {
        p = gw_realloc(b->p, cap);
    } else {
        p = gw_alloc(cap);
        if (p != NULL && b->p != NULL) {
            memcpy(p, b->p, b->n);
            gw_wipe(b->p, b->n);
            gw_free(b->p);
        }
    }
    if (p == NULL) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void gw_buf_add(struct gw_buf *b, struct gw_str s)
{
    if (!reserve(b, s.n)) {
        return;
    }
    if (s.n != 0) {
        memcpy(b->p + b->n, s.p, s.n);
    }
    b->n += s.n;
    b->p[b->n] = '\0';
}

void gw_buf_add_c(struct gw_buf *b, const char *nul_terminated)
{
    gw_buf_add(b, gw_str_c(nul_terminated));
}

void gw_buf_add_char(struct gw_buf *b, char c)
{
    if (!reserve(b, 1)) {
        return;
    }
    b->p[b->n++] = c;
    b->p[b->n] = '\0';
}

void gw_buf_add_i64(struct gw_buf *b, int64_t v)
{
    char text[24], *p = text + sizeof(text);
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do {
        *--p = (char)('0' + u % 10);
        u /= 10;
    } while (u != 0);
    if (v < 0) {
        *--p = '-';
    }
    gw_buf_add(b, (struct gw_str){p, (size_t)(text + sizeof(text) - p)});
}

void gw_buf_addf(struct gw_buf *b, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        b->failed = true;
        return;
    }
    if (!reserve(b, (size_t)n)) {
        return;
    }
    va_start(args, fmt);
    n = vsnprintf(b->p + b->n, (size_t)n + 1, fmt, args);
    va_end(args);
    b->n += (size_t)n;
}

void gw_buf_reset(struct gw_buf *b)
{
    b->n = 0;
    b->failed = false;
    if (b->p != NULL) {
        b->p[0] = '\0';
    }
}

int gw_buf_ok(const struct gw_buf *b, struct gw_error *err)
{
    if (b->failed) {
        return gw_fail(err, GW_TOO_LARGE, 0, "text is over its ceiling of %zu bytes", b->max);
    }
    return GW_OK;
}

struct gw_str gw_buf_str(const struct gw_buf *b)
{
    return (struct gw_str){b->p != NULL ? b->p : "", b->n};
}

void gw_buf_release(struct gw_buf *b)
{
    gw_free(b->p);
    *b = (struct gw_buf){.max = b->max};
}

void gw_buf_wipe(struct gw_buf *b)
{
    if (b->p != NULL) {
        gw_wipe(b->p, b->cap);
    }
    gw_buf_release(b);
}
