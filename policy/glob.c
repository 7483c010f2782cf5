/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/glob.c - compile and match globs.
 *
 * Compiling: lex (operators become single bytes), expand braces, join neighbouring stars. Matching:
 * two pointers while all stars are of one kind; a set of states when kinds are mixed, because going
 * back over both `*` and `**` with two pointers is cubic.
 */
#include "policy/glob_internal.h"

#include <string.h>

/* Braces while compiling; gone after expand. */
enum { BRACE_OPEN = POLICY_GLOB_OP_COUNT, BRACE_COMMA, BRACE_CLOSE };

#define CODE_MAX (POLICY_GLOB_MAX_BYTES + POLICY_GLOB_MAX_USERS * POLICY_GLOB_MAX_NAME)

static bool is_star(char c)
{
    return c == POLICY_GLOB_SEGMENT || c == POLICY_GLOB_ACROSS || c == POLICY_GLOB_FOLDERS;
}

/* Pattern text to operators and folded literals; never longer than the text. */
static const char *lex(struct gw_str in, char *out, size_t *out_n)
{
    static const struct gw_str user = GW_STR_INIT("${user}");
    bool inside = false;
    size_t i = 0, n = 0;

    while (i < in.n) {
        struct gw_str rest = gw_str_sub(in, i, in.n - i);
        unsigned char c = (unsigned char)in.p[i];

        if (c < 0x20 || c == 0x7f) {
            return "control characters are not allowed";
        }
        if (c == '[' || c == ']') {
            return "[...] classes are not part of globs; use {a,b} or ?";
        }
        if (c == '\\') {
            return "backslashes are not part of globs; ? stands for any one character";
        }
        if (c == '!' && i == 0) {
            return "a leading ! is not part of globs; use files_not or unless";
        }
        if (gw_str_starts(rest, user)) {
            out[n++] = POLICY_GLOB_USER;
            i += user.n;
            continue;
        }
        if (gw_str_starts(rest, GW_STR("${"))) {
            return "the only variable is ${user}";
        }
        if (gw_str_starts(rest, GW_STR("***"))) {
            return "write * (within a segment) or ** (across segments)";
        }
        if (gw_str_starts(rest, GW_STR("**"))) {
            out[n++] = POLICY_GLOB_ACROSS;
            i += 2;
            continue;
        }
        i++;
        if (c == '*') {
            out[n++] = POLICY_GLOB_SEGMENT;
        } else if (c == '?') {
            out[n++] = POLICY_GLOB_ONE;
        } else if (c == '{') {
            if (inside) {
                return "braces cannot be nested";
            }
            inside = true;
            out[n++] = BRACE_OPEN;
        } else if (c == '}') {
            if (!inside) {
                return "} without {";
            }
            inside = false;
            out[n++] = BRACE_CLOSE;
        } else if (c == ',' && inside) {
            out[n++] = BRACE_COMMA;
        } else {
            out[n++] = (char)policy_fold(c);
        }
    }
    *out_n = n;
    return inside ? "{ without }" : NULL;
}

/* Replaces the first braces of alternative i by their first member, and appends one alternative for
 * each other. */
static bool expand_one(struct policy_glob_set *set, size_t i, size_t open)
{
    char whole[POLICY_GLOB_MAX_BYTES];
    size_t n = set->alt[i].n, close = open, at = open + 1, to = i;

    memcpy(whole, set->alt[i].code, n);
    while (whole[close] != BRACE_CLOSE) {
        close++;
    }
    for (;;) {
        size_t end = at, len;

        while (whole[end] != BRACE_COMMA && whole[end] != BRACE_CLOSE) {
            end++;
        }
        len = end - at;
        memcpy(set->alt[to].code, whole, open);
        memcpy(set->alt[to].code + open, whole + at, len);
        memcpy(set->alt[to].code + open + len, whole + close + 1, n - close - 1);
        set->alt[to].n = open + len + n - close - 1;
        if (end == close) {
            return true;
        }
        if (set->n == POLICY_GLOB_MAX_ALTERNATIVES) {
            return false;
        }
        to = set->n++;
        at = end + 1;
    }
}

/* "**" + "/" at the start of a segment becomes one operator; neighbouring stars become the wider
 * one. */
static size_t join_stars(char *code, size_t n)
{
    size_t i, w = 0;

    for (i = 0; i < n; i++) {
        bool begins = w == 0 || code[w - 1] == '/' || code[w - 1] == POLICY_GLOB_FOLDERS;

        if (code[i] == POLICY_GLOB_ACROSS && i + 1 < n && code[i + 1] == '/' && begins) {
            if (w == 0 || code[w - 1] != POLICY_GLOB_FOLDERS) {
                code[w++] = POLICY_GLOB_FOLDERS;
            }
            i++;
        } else if (w && (code[i] == POLICY_GLOB_SEGMENT || code[i] == POLICY_GLOB_ACROSS) &&
                   (code[w - 1] == POLICY_GLOB_SEGMENT || code[w - 1] == POLICY_GLOB_ACROSS)) {
            if (code[i] == POLICY_GLOB_ACROSS) {
                code[w - 1] = POLICY_GLOB_ACROSS;
            }
        } else {
            code[w++] = code[i];
        }
    }
    return w;
}

const char *policy_glob_compile(struct policy_glob_set *out, struct gw_str pattern)
{
    const char *why;
    size_t i, k, users;

    if (pattern.n == 0) {
        return "it is empty";
    }
    if (pattern.n > POLICY_GLOB_MAX_BYTES) {
        return "it is longer than 256 bytes";
    }
    out->n = 1;
    why = lex(pattern, out->alt[0].code, &out->alt[0].n);
    if (why) {
        return why;
    }
    for (i = 0; i < out->n;) {
        const char *open = memchr(out->alt[i].code, BRACE_OPEN, out->alt[i].n);

        if (!open) {
            i++;
            continue;
        }
        if (!expand_one(out, i, (size_t)(open - out->alt[i].code))) {
            return "its braces stand for more than 64 patterns";
        }
    }
    for (i = 0; i < out->n; i++) {
        if (out->alt[i].n == 0) {
            return "one of its alternatives is empty";
        }
        for (k = 0, users = 0; k < out->alt[i].n; k++) {
            users += out->alt[i].code[k] == POLICY_GLOB_USER;
        }
        if (users > POLICY_GLOB_MAX_USERS) {
            return "${user} appears more than 4 times";
        }
        out->alt[i].n = join_stars(out->alt[i].code, out->alt[i].n);
    }
    return NULL;
}

struct policy_glob policy_glob_of(struct gw_str code)
{
    struct policy_glob g = {.code = code, .prefix = (uint16_t)code.n};
    char star = 0;
    size_t i;

    for (i = code.n; i-- > 0;) {
        if ((unsigned char)code.p[i] >= POLICY_GLOB_OP_COUNT) {
            continue;
        }
        g.prefix = (uint16_t)i;
        g.user = g.user || code.p[i] == POLICY_GLOB_USER;
        if (!is_star(code.p[i])) {
            continue;
        }
        g.mixed = g.mixed || code.p[i] == POLICY_GLOB_FOLDERS || (star && star != code.p[i]);
        star = code.p[i];
    }
    return g;
}

static bool one_matches(char op, unsigned char c)
{
    return op == POLICY_GLOB_ONE ? c != '/' : (unsigned char)op == policy_fold(c);
}

/* Stars of one kind: only the last one passed needs to be tried again. An earlier `*` could not
 * help: without `**` the segments of text and pattern pair up, and within a segment the leftmost
 * match leaves the most to the rest. */
static bool match_pointers(struct gw_str code, struct gw_str text)
{
    size_t c = 0, t = 0, star = SIZE_MAX, mark = 0;

    while (t < text.n) {
        if (c < code.n && is_star(code.p[c])) {
            star = c++;
            mark = t;
        } else if (c < code.n && one_matches(code.p[c], (unsigned char)text.p[t])) {
            c++;
            t++;
        } else if (star == SIZE_MAX ||
                   (code.p[star] == POLICY_GLOB_SEGMENT && text.p[mark] == '/')) {
            return false;
        } else {
            t = ++mark;
            c = star + 1;
        }
    }
    while (c < code.n && is_star(code.p[c])) {
        c++;
    }
    return c == code.n;
}

/* State j: the first j operators are matched. A star also lets the next one begin at once. */
static void enter(char *states, struct gw_str code, size_t j)
{
    states[j] = 1;
    while (j < code.n && is_star(code.p[j])) {
        states[++j] = 1;
    }
}

/* Stars of several kinds: all states at once, one pass over the text. */
static bool match_states(struct gw_str code, struct gw_str text)
{
    char sets[2][CODE_MAX + 1], *now = sets[0], *next = sets[1], *swap;
    size_t j, t;
    bool any = true;

    memset(now, 0, code.n + 1);
    enter(now, code, 0);
    for (t = 0; t < text.n && any; t++) {
        unsigned char c = (unsigned char)text.p[t];

        memset(next, 0, code.n + 1);
        any = false;
        for (j = 0; j < code.n; j++) {
            if (!now[j]) {
                continue;
            }
            if (code.p[j] == POLICY_GLOB_ACROSS || (code.p[j] == POLICY_GLOB_SEGMENT && c != '/')) {
                enter(next, code, j);
                any = true;
            } else if (code.p[j] == POLICY_GLOB_FOLDERS) {
                next[j] = 1; /* inside a folder's name: what follows begins only after its '/' */
                any = true;
                if (c == '/') {
                    enter(next, code, j + 1);
                }
            } else if (!is_star(code.p[j]) && one_matches(code.p[j], c)) {
                enter(next, code, j + 1);
                any = true;
            }
        }
        swap = now;
        now = next;
        next = swap;
    }
    return now[code.n] && t == text.n;
}

/* A name is text, never a pattern: bytes that are operators, and the separator, match nothing. */
static bool name_is_plain(struct gw_str name)
{
    size_t i;

    if (name.n == 0 || name.n > POLICY_GLOB_MAX_NAME) {
        return false;
    }
    for (i = 0; i < name.n; i++) {
        if ((unsigned char)name.p[i] < 0x20 || name.p[i] == '/') {
            return false;
        }
    }
    return true;
}

static size_t put_user(char *out, struct gw_str code, struct gw_str user)
{
    size_t i, k, n = 0;

    for (i = 0; i < code.n; i++) {
        if (code.p[i] != POLICY_GLOB_USER) {
            out[n++] = code.p[i];
            continue;
        }
        for (k = 0; k < user.n; k++) {
            out[n++] = (char)policy_fold((unsigned char)user.p[k]);
        }
    }
    return n;
}

bool policy_glob_match(const struct policy_glob *g, struct gw_str text, struct gw_str user)
{
    char with_user[CODE_MAX];
    struct gw_str code = g->code;

    if (g->user) {
        if (!name_is_plain(user)) {
            return false;
        }
        code = (struct gw_str){with_user, put_user(with_user, code, user)};
    }
    return g->mixed ? match_states(code, text) : match_pointers(code, text);
}

void policy_glob_put(struct gw_buf *out, const struct policy_glob *g)
{
    static const char *const ops[POLICY_GLOB_OP_COUNT] = {"", "?", "*", "**", "**/", "${user}"};
    size_t i;

    for (i = 0; i < g->code.n; i++) {
        unsigned char c = (unsigned char)g->code.p[i];

        if (c < POLICY_GLOB_OP_COUNT) {
            gw_buf_add_c(out, ops[c]);
        } else {
            gw_buf_add_char(out, (char)c);
        }
    }
}
