/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/glob_internal.h - the globs of the policy language: `*` within a segment, `**` across,
 * `?`, `{a,b}`, `${user}`.
 *
 * Anchored at both ends, ASCII case folded. Braces are expanded when a policy is compiled, so that
 * matching never branches: its time is at most (bytes of pattern x bytes of text), whatever the
 * pattern. Inside policy/ only.
 */
#ifndef POLICY_GLOB_INTERNAL_H
#define POLICY_GLOB_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define POLICY_GLOB_MAX_BYTES 256u       /* as written */
#define POLICY_GLOB_MAX_ALTERNATIVES 64u /* after braces */
#define POLICY_GLOB_MAX_USERS 4u         /* ${user} in one alternative */
#define POLICY_GLOB_MAX_NAME 256u        /* a longer caller's name matches no ${user} */

/* A compiled alternative: folded literal bytes with these operators between them. A pattern with
 * control bytes is refused, so no literal is ever taken for one. */
enum policy_glob_op {
    POLICY_GLOB_ONE = 1, /* ?   one byte, not '/' */
    POLICY_GLOB_SEGMENT, /* *   any bytes but '/' */
    POLICY_GLOB_ACROSS,  /* **  any bytes */
    POLICY_GLOB_FOLDERS, /* **\/ at the start of a segment: no folder, or any bytes that end in '/'
                          */
    POLICY_GLOB_USER,    /* ${user} */
    POLICY_GLOB_OP_COUNT
};

struct policy_glob {
    struct gw_str code;
    uint16_t prefix; /* literal bytes at the start; == code.n: no operator at all */
    bool mixed;      /* stars of more than one kind */
    bool user;       /* holds ${user} */
};

/* All alternatives of one pattern, by value: compiling allocates nothing. */
struct policy_glob_set {
    size_t n;
    struct {
        size_t n;
        char code[POLICY_GLOB_MAX_BYTES];
    } alt[POLICY_GLOB_MAX_ALTERNATIVES];
};

/* NULL: compiled. Else why not, a static text. */
const char *policy_glob_compile(struct policy_glob_set *out, struct gw_str pattern);
/* The description of compiled bytes; code is borrowed. */
struct policy_glob policy_glob_of(struct gw_str code);

/* user: what ${user} stands for; empty: a glob with ${user} does not match. */
bool policy_glob_match(const struct policy_glob *g, struct gw_str text, struct gw_str user);
/* The pattern as one would write it. */
void policy_glob_put(struct gw_buf *out, const struct policy_glob *g);

static inline unsigned char policy_fold(unsigned char c)
{
    return (unsigned char)(c - 'A') < 26 ? (unsigned char)(c | 0x20) : c;
}

#endif
