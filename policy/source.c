/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/source.c - directory values: group names and DNs, compared as directories do.
 *
 * ASCII case is folded, blanks around `,` `=` `+` and at both ends do not count; an escaped
 * character stays as it is (ldap_dn_normalize folds neither case nor aliases: auth-policy 1.2).
 */
#include "policy/policy_internal.h"

static bool is_separator(char c)
{
    return c == ',' || c == '=' || c == '+';
}

struct spelling {
    struct gw_str s;
    size_t i;
    bool after; /* a separator, or the start */
    bool escaped;
};

/* The next byte of the normal form; -1: the end. */
static int next_byte(struct spelling *w)
{
    size_t k;
    char c;

    if (!w->escaped && w->i < w->s.n && w->s.p[w->i] == ' ') {
        for (k = w->i; k < w->s.n && w->s.p[k] == ' '; k++)
            ;
        if (w->after || k == w->s.n || is_separator(w->s.p[k])) {
            w->i = k;
        }
    }
    if (w->i == w->s.n) {
        return -1;
    }
    c = w->s.p[w->i++];
    w->after = !w->escaped && is_separator(c);
    w->escaped = !w->escaped && c == '\\';
    return policy_fold((unsigned char)c);
}

/* Eight bytes folded at once. */
static uint64_t fold_word(const char *p)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x80 * ones;
    uint64_t w, low, past_z, from_a;

    memcpy(&w, p, sizeof(w));
    low = w & ~high;
    past_z = low + (0x7f - 'Z') * ones;
    from_a = low + (0x80 - 'A') * ones;
    return w | ((~w & high & (from_a ^ past_z)) >> 2);
}

/* Equal but for case: how directories nearly always spell what a file took from them. */
static bool same_letters(struct gw_str a, struct gw_str b)
{
    size_t i;

    if (a.n != b.n || a.n < 8) {
        return gw_str_ieq(a, b);
    }
    for (i = 0; i + 8 < a.n; i += 8) {
        if (fold_word(a.p + i) != fold_word(b.p + i)) {
            return false;
        }
    }
    return fold_word(a.p + a.n - 8) == fold_word(b.p + a.n - 8);
}

bool policy_source_same(struct gw_str key, struct gw_str value)
{
    struct spelling a = {.s = key, .after = true}, b = {.s = value, .after = true};
    int x, y;

    if (same_letters(key, value)) {
        return true;
    }
    do {
        x = next_byte(&a);
        y = next_byte(&b);
    } while (x == y && x >= 0);
    return x == y;
}

/* Of the first 32 bytes up to a comma that are no blanks: enough to tell groups apart, and a
 * subject may bring 1,024. */
uint32_t policy_source_hash(struct gw_str value)
{
    uint32_t h = 0x811c9dc5u;
    size_t i, n = 0;

    for (i = 0; i < value.n && n < 32; i++) {
        unsigned char c = policy_fold((unsigned char)value.p[i]);

        if (c == ',') {
            break;
        }
        if (c == ' ') {
            continue;
        }
        h = (h << 5 | h >> 27) ^ c;
        n++;
    }
    h = (h ^ h >> 15) * 0x9e3779b1u;
    return h ^ h >> 16;
}
