/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/attr.c - .gitattributes, as far as filter=lfs goes: which files are large objects.
 *
 * gitattributes(5): the last matching line decides, deeper folders win over higher ones. Macros
 * ([attr]) are not expanded: no hub client writes them.
 */
#include "repo/repo_internal.h"

#include <stdio.h>

#define LFS_ATTRIBUTES " filter=lfs diff=lfs merge=lfs -text\n"
#define NONE SIZE_MAX

struct rule {
    struct rule *next;     /* the line before: the last line is asked first */
    struct gw_str pattern; /* without a leading slash */
    bool whole_path, lfs;
};

struct repo_rules {
    const struct repo_rules *up;
    size_t base;
    struct rule *last;
};

/* hub-write 4.5 */
static const char *const default_patterns[] = {
    "*.7z",          "*.arrow",
    "*.bin",         "*.bz2",
    "*.ckpt",        "*.ftz",
    "*.gz",          "*.h5",
    "*.joblib",      "*.lfs.*",
    "*.mlmodel",     "*.model",
    "*.msgpack",     "*.npy",
    "*.npz",         "*.onnx",
    "*.ot",          "*.parquet",
    "*.pb",          "*.pickle",
    "*.pkl",         "*.pt",
    "*.pth",         "*.rar",
    "*.safetensors", "saved_model/**/*",
    "*.tar.*",       "*.tar",
    "*.tflite",      "*.tgz",
    "*.wasm",        "*.xz",
    "*.zip",         "*.zst",
    "*tfevents*",    "*.gguf",
};

static const char *const dataset_patterns[] = {
    "*.lz4", "*.mds", "*.pcm", "*.sam",  "*.raw", "*.aac",  "*.flac", "*.mp3", "*.ogg",  "*.wav",
    "*.bmp", "*.gif", "*.png", "*.tiff", "*.jpg", "*.jpeg", "*.webp", "*.mp4", "*.webm",
};

static void put_patterns(struct gw_buf *out, const char *const *patterns, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        gw_buf_add_c(out, patterns[i]);
        gw_buf_add(out, GW_STR(LFS_ATTRIBUTES));
    }
}

void repo_rules_put_default(struct gw_buf *out, struct gw_str type)
{
    put_patterns(out, default_patterns, sizeof(default_patterns) / sizeof(default_patterns[0]));
    if (gw_str_eq_c(type, "dataset")) {
        put_patterns(out, dataset_patterns, sizeof(dataset_patterns) / sizeof(dataset_patterns[0]));
    }
}

/* With a leading slash no character is special at the beginning, and it is this one path only. A
 * blank would end the pattern (hub-write 2.5). */
void repo_rules_put_path(struct gw_buf *out, struct gw_str path)
{
    gw_buf_add_char(out, '/');
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];

        if (c == ' ') {
            gw_buf_add(out, GW_STR("[[:space:]]"));
            continue;
        }
        if (c == '*' || c == '?' || c == '[' || c == ']' || c == '\\') {
            gw_buf_add_char(out, '\\');
        }
        gw_buf_add_char(out, c);
    }
    gw_buf_add(out, GW_STR(LFS_ATTRIBUTES));
}

/* ---- patterns: git's wildmatch with WM_PATHNAME, without its recursion ---- */

struct named_class {
    struct gw_str name;
    bool (*is)(unsigned char c);
};

static bool is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static bool is_upper(unsigned char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_lower(unsigned char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_alpha(unsigned char c)
{
    return is_upper(c) || is_lower(c);
}

static bool is_alnum(unsigned char c)
{
    return is_alpha(c) || is_digit(c);
}

static bool is_blank(unsigned char c)
{
    return c == ' ' || c == '\t';
}

static bool is_punct(unsigned char c)
{
    return c > 0x20 && c < 0x7f && !is_alnum(c);
}

static bool is_xdigit(unsigned char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static const struct named_class classes[] = {
    {GW_STR_INIT("space"), is_space},   {GW_STR_INIT("digit"), is_digit},
    {GW_STR_INIT("upper"), is_upper},   {GW_STR_INIT("lower"), is_lower},
    {GW_STR_INIT("alpha"), is_alpha},   {GW_STR_INIT("alnum"), is_alnum},
    {GW_STR_INIT("blank"), is_blank},   {GW_STR_INIT("punct"), is_punct},
    {GW_STR_INIT("xdigit"), is_xdigit},
};

/* "[:name:]" at p[*at]; moves behind it. false: no such class, which matches nothing. */
static bool match_named(struct gw_str p, size_t *at, unsigned char c, bool *hit)
{
    size_t from = *at + 2, to = from;
    struct gw_str name;

    while (to < p.n && p.p[to] != ']') {
        to++;
    }
    if (to >= p.n || to == from || p.p[to - 1] != ':') {
        return false;
    }
    name = gw_str_sub(p, from, to - 1 - from);
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (gw_str_eq(name, classes[i].name)) {
            *hit = *hit || classes[i].is(c);
            *at = to + 1;
            return true;
        }
    }
    return false;
}

/* The set that begins behind '['; *end behind its ']'. An unfinished one matches nothing. */
static bool match_set(struct gw_str p, size_t at, unsigned char c, size_t *end)
{
    bool negated = at < p.n && (p.p[at] == '!' || p.p[at] == '^'), hit = false;
    size_t first;

    at += negated;
    for (first = at; at < p.n && (p.p[at] != ']' || at == first);) {
        unsigned char low, high;

        if (p.p[at] == '[' && at + 1 < p.n && p.p[at + 1] == ':') {
            if (!match_named(p, &at, c, &hit)) {
                return false;
            }
            continue;
        }
        if (p.p[at] == '\\' && ++at == p.n) {
            return false;
        }
        low = high = (unsigned char)p.p[at++];
        if (at + 1 < p.n && p.p[at] == '-' && p.p[at + 1] != ']') {
            at += 1 + (p.p[at + 1] == '\\');
            if (at == p.n) {
                return false;
            }
            high = (unsigned char)p.p[at++];
        }
        hit = hit || (c >= low && c <= high);
    }
    if (at >= p.n) {
        return false;
    }
    *end = at + 1;
    return hit != negated && c != '/';
}

/* One element that is no star against one byte; *next behind the element. */
static bool match_one(struct gw_str p, size_t at, char c, size_t *next)
{
    *next = at + 1;
    switch (p.p[at]) {
    case '?':
        return c != '/';
    case '[':
        return match_set(p, at + 1, (unsigned char)c, next);
    case '\\':
        *next = at + 2;
        return at + 1 < p.n && p.p[at + 1] == c;
    default:
        return p.p[at] == c;
    }
}

/* Two places to come back to are enough: a later star makes the earlier ones of its kind settled,
 * and a double star settles the single ones before it. So the time is bounded by the product of the
 * lengths, whatever the pattern. */
bool repo_glob(struct gw_str p, struct gw_str s)
{
    size_t at = 0, i = 0, next;
    size_t star = NONE, star_i = 0, deep = NONE, deep_i = 0;

    for (;;) {
        if (at < p.n && p.p[at] == '*') {
            size_t to = at;

            while (to < p.n && p.p[to] == '*') {
                to++;
            }
            if (to - at >= 2 && (at == 0 || p.p[at - 1] == '/') && (to == p.n || p.p[to] == '/')) {
                if (to == p.n) {
                    return true;
                }
                deep = at = to + 1; /* zero or more folders */
                deep_i = i;
                star = NONE;
            } else {
                star = at = to;
                star_i = i;
            }
            continue;
        }
        if (at == p.n && i == s.n) {
            return true;
        }
        if (at < p.n && i < s.n && match_one(p, at, s.p[i], &next)) {
            at = next;
            i++;
            continue;
        }
        if (star != NONE && star_i < s.n && s.p[star_i] != '/') {
            i = ++star_i;
            at = star;
            continue;
        }
        while (deep != NONE && deep_i < s.n && s.p[deep_i] != '/') {
            deep_i++;
        }
        if (deep == NONE || deep_i == s.n) {
            return false;
        }
        i = ++deep_i;
        at = deep;
        star = NONE;
    }
}

/* ---- lines ---- */

static bool take_word(struct gw_str *line, struct gw_str *word)
{
    size_t from = 0, to;

    while (from < line->n && strchr(" \t\r", line->p[from]) != NULL) {
        from++;
    }
    for (to = from; to < line->n && strchr(" \t\r", line->p[to]) == NULL; to++) {
    }
    *word = gw_str_sub(*line, from, to - from);
    *line = gw_str_sub(*line, to, line->n);
    return word->n != 0;
}

static bool is_octal(const struct gw_str *line, size_t i)
{
    return i < line->n && line->p[i] >= '0' && line->p[i] <= '7';
}

/* A pattern in double quotes, with C's escapes (git's quote.c). */
static bool take_quoted(struct gw_str *line, struct gw_arena *a, struct gw_str *word)
{
    static const char letters[] = "abfnrtv\"\\", values[] = "\a\b\f\n\r\t\v\"\\";
    char *out = gw_arena_alloc(a, line->n);
    size_t n = 0;

    for (size_t i = 1; out != NULL && i < line->n; i++) {
        const char *letter;
        char c = line->p[i];

        if (c == '"') {
            *word = (struct gw_str){out, n};
            *line = gw_str_sub(*line, i + 1, line->n);
            return n != 0;
        }
        if (c != '\\') {
            out[n++] = c;
            continue;
        }
        c = ++i < line->n ? line->p[i] : '\0';
        if (c >= '0' && c <= '3' && is_octal(line, i + 1) && is_octal(line, i + 2)) {
            out[n++] =
                (char)(((c - '0') << 6) | ((line->p[i + 1] - '0') << 3) | (line->p[i + 2] - '0'));
            i += 2;
            continue;
        }
        letter = c != '\0' ? strchr(letters, c) : NULL;
        if (letter == NULL) {
            return false;
        }
        out[n++] = values[letter - letters];
    }
    return false;
}

/* Does the rest of the line say anything about filter, and is it lfs? */
static bool says_filter(struct gw_str rest, bool *lfs)
{
    struct gw_str word;
    bool said = false;

    while (take_word(&rest, &word)) {
        if (gw_str_eq_c(word, "filter=lfs")) {
            said = *lfs = true;
        } else if (gw_str_starts(word, GW_STR("filter=")) || gw_str_eq_c(word, "filter") ||
                   gw_str_eq_c(word, "-filter") || gw_str_eq_c(word, "!filter")) {
            said = true;
            *lfs = false;
        }
    }
    return said;
}

static int add_line(struct repo_rules *r, struct gw_str line, struct gw_arena *a,
                    struct gw_error *err)
{
    struct gw_str pattern;
    struct rule *rule;
    bool lfs = false;

    while (line.n != 0 && is_blank((unsigned char)line.p[0])) {
        line = gw_str_sub(line, 1, line.n);
    }
    if (line.n == 0 || line.p[0] == '#' || memchr(line.p, '\0', line.n) != NULL) {
        return GW_OK;
    }
    if (line.p[0] != '"' || !take_quoted(&line, a, &pattern)) {
        if (!take_word(&line, &pattern)) {
            return GW_OK;
        }
    }
    /* "!": git forbids negative patterns; a final slash is a folder, and folders have no filter */
    if (pattern.p[0] == '!' || pattern.p[pattern.n - 1] == '/' ||
        gw_str_starts(pattern, GW_STR("[attr]")) || !says_filter(line, &lfs)) {
        return GW_OK;
    }
    rule = gw_arena_alloc(a, sizeof(*rule));
    if (rule == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, ".gitattributes: no memory for its lines");
    }
    rule->whole_path = memchr(pattern.p, '/', pattern.n) != NULL;
    rule->pattern = pattern.p[0] == '/' ? gw_str_sub(pattern, 1, pattern.n) : pattern;
    rule->lfs = lfs;
    rule->next = r->last;
    r->last = rule;
    return GW_OK;
}

int repo_rules_parse(struct repo_rules **out, struct gw_str text, size_t base,
                     const struct repo_rules *up, struct gw_arena *a, struct gw_error *err)
{
    struct repo_rules *r = gw_arena_alloc(a, sizeof(*r));
    struct gw_str line;
    int rc = GW_OK;

    if (r == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, ".gitattributes: no memory");
    }
    r->up = up;
    r->base = base;
    if (gw_str_starts(text, GW_STR("\xef\xbb\xbf"))) {
        text = gw_str_sub(text, 3, text.n);
    }
    while (rc == GW_OK && gw_str_split(&text, '\n', &line)) {
        rc = add_line(r, line, a, err);
    }
    if (rc == GW_OK) {
        *out = r;
    }
    return rc;
}

bool repo_rules_lfs(const struct repo_rules *rules, struct gw_str path)
{
    const char *slash = path.n != 0 ? memrchr(path.p, '/', path.n) : NULL;
    struct gw_str base =
        slash != NULL ? gw_str_sub(path, (size_t)(slash - path.p) + 1, path.n) : path;

    for (; rules != NULL; rules = rules->up) {
        struct gw_str below = gw_str_sub(path, rules->base, path.n);

        for (const struct rule *r = rules->last; r != NULL; r = r->next) {
            if (repo_glob(r->pattern, r->whole_path ? below : base)) {
                return r->lfs;
            }
        }
    }
    return false;
}
