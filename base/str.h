/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/str.h - text with a length, and a buffer that grows up to a ceiling.
 *
 * A gw_str borrows: whoever made the bytes frees them. It need not end in NUL unless a function
 * says so.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"

struct gw_str {
    const char *p; /* may be NULL only when n == 0 */
    size_t n;
};

#define GW_STR(literal) ((struct gw_str){(literal), sizeof(literal) - 1})
/* clang-format off */
#define GW_STR_INIT(literal) { (literal), sizeof(literal) - 1 } /* for static tables */
/* clang-format on */
#define GW_STR_FMT "%.*s"
#define GW_STR_ARG(s) (int)(s).n, (s).n ? (s).p : ""

struct gw_str gw_str_c(const char *nul_terminated); /* NULL gives the empty string */
bool gw_str_eq(struct gw_str a, struct gw_str b);
bool gw_str_eq_c(struct gw_str a, const char *b);
bool gw_str_ieq(struct gw_str a, struct gw_str b); /* ASCII case folding */
bool gw_str_ieq_c(struct gw_str a, const char *b);
int gw_str_cmp(struct gw_str a, struct gw_str b); /* as memcmp, then by length */
bool gw_str_starts(struct gw_str s, struct gw_str prefix);
bool gw_str_ends(struct gw_str s, struct gw_str suffix);
struct gw_str gw_str_sub(struct gw_str s, size_t from, size_t n); /* clipped to s */
struct gw_str gw_str_trim(struct gw_str s);                       /* blanks and tabs at both ends */

/* Takes the part of *rest before sep into *head and leaves what follows sep. false: *rest was
 * exhausted (p == NULL). "a//b" gives "a", "", "b"; "" gives one empty part. */
bool gw_str_split(struct gw_str *rest, char sep, struct gw_str *head);

/* Whole string, decimal digits only, no sign, no overflow. */
bool gw_str_u64(struct gw_str s, uint64_t *out);

bool gw_utf8_valid(struct gw_str s); /* no overlong forms, no surrogates, <= U+10FFFF */
/* Bytes of the character at the front, 1 to 4; 0: none, or not UTF-8. */
size_t gw_utf8_char(struct gw_str s);

/* ---- a buffer with a ceiling. Failure is sticky: write freely, check `failed` (or gw_buf_ok) once
 * at the end. ---- */
struct gw_buf {
    char *p; /* heap; NUL-terminated after every successful write */
    size_t n, cap;
    size_t max;  /* bytes it may hold; from gw_buf_init */
    bool failed; /* over the ceiling, or no memory: content is undefined, still to be released */
};

void gw_buf_init(struct gw_buf *b, size_t max);
void gw_buf_add(struct gw_buf *b, struct gw_str s); /* s is not a part of b */
void gw_buf_add_c(struct gw_buf *b, const char *nul_terminated);
void gw_buf_add_char(struct gw_buf *b, char c);
void gw_buf_add_i64(struct gw_buf *b, int64_t v); /* decimal */
void gw_buf_addf(struct gw_buf *b, const char *fmt, ...) GW_PRINTF(2, 3);
void gw_buf_reset(struct gw_buf *b); /* empty again, memory kept, failed cleared */
/* GW_OK or GW_TOO_LARGE (no memory counts as it). */
int gw_buf_ok(const struct gw_buf *b, struct gw_error *err) GW_MUST_CHECK;
struct gw_str gw_buf_str(const struct gw_buf *b); /* borrowed until the next write */
void gw_buf_release(struct gw_buf *b);            /* any state, also zeroed memory */
void gw_buf_wipe(struct gw_buf *b); /* OPENSSL_cleanse, then release: for secrets of up to 64 KiB */

#endif
