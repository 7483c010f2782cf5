/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/yaml.c - libyaml's events built into a tree, minus everything of YAML that surprises.
 *
 * What libyaml would quietly accept is refused here: characters that YAML 1.1 takes for line ends
 * although an editor shows one line (U+0085, U+2028, U+2029, a lone CR), tabs as indentation in
 * flow style, duplicate keys.
 */
#include "base/yaml.h"

#include "base/alloc.h"

#include <yaml.h>

#include <stdio.h>
#include <stdlib.h>

#define DEPTH_MAX 16u
#define FEW_KEYS 16u /* up to here, comparing each with each is cheaper than sorting */

struct build {
    struct gw_str name;
    struct gw_arena *arena;
    struct gw_error *err;
    yaml_parser_t parser;
    struct level {
        struct gw_yaml *node;
        struct gw_yaml **tail; /* where the next child goes */
    } levels[DEPTH_MAX];
    unsigned depth;
    struct gw_yaml *root, *key; /* key: a map's child that waits for its value */
};

/* ---- messages ---- */

/* The end of a long path says more than its beginning, and must not push the message out of
 * gw_error. */
static struct gw_str short_name(struct gw_str name)
{
    const size_t max = 80;

    return name.n > max ? gw_str_sub(name, name.n - max, max) : name;
}

static int fail_at(const struct build *b, enum gw_status s, size_t line, size_t column,
                   const char *what)
{
    struct gw_str name = short_name(b->name);

    return gw_fail(b->err, s, 0, GW_STR_FMT ":%zu:%zu: %s", GW_STR_ARG(name), line, column, what);
}

static int fail_mark(const struct build *b, const yaml_mark_t *at, const char *what)
{
    return fail_at(b, GW_INVALID, at->line + 1, at->column + 1, what);
}

static int fail_memory(const struct build *b)
{
    struct gw_str name = short_name(b->name);

    /* the arena does not tell which of the two it was */
    return gw_fail(b->err, GW_TOO_LARGE, 0,
                   GW_STR_FMT ": over the ceiling of %zu bytes, or no memory", GW_STR_ARG(name),
                   b->arena->max);
}

int gw_yaml_fail(struct gw_error *err, struct gw_str name, const struct gw_yaml *at, bool at_key,
                 const char *fmt, ...)
{
    struct gw_str shown = short_name(name);
    char text[sizeof(err->text)];
    va_list args;

    va_start(args, fmt);
    if (vsnprintf(text, sizeof(text), fmt, args) < 0) {
        text[0] = '\0';
    }
    va_end(args);
    if (at == NULL) {
        return gw_fail(err, GW_INVALID, 0, GW_STR_FMT ": %s", GW_STR_ARG(shown), text);
    }
    at_key = at_key && at->key_line != 0;
    return gw_fail(err, GW_INVALID, 0, GW_STR_FMT ":%u:%u: %s", GW_STR_ARG(shown),
                   at_key ? at->key_line : at->line, at_key ? at->key_column : at->column, text);
}

/* ---- the text, before libyaml sees it ---- */

static int fail_offset(const struct build *b, struct gw_str text, size_t offset, const char *what)
{
    size_t line = 1, column = 1;

    for (size_t i = 0; i < offset && i < text.n; i++) {
        if (text.p[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text.p[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return fail_at(b, GW_INVALID, line, column, what);
}

/* What is wrong with the character at the front of s, of n bytes (0: not UTF-8); NULL: nothing. */
static const char *odd_character(struct gw_str s, size_t n)
{
    if (n == 0) {
        return "not UTF-8";
    }
    if (s.p[0] == '\0') {
        return "a NUL byte";
    }
    if (s.p[0] == '\r' && (s.n < 2 || s.p[1] != '\n')) {
        return "a carriage return without a line feed";
    }
    if (n > 1 &&
        (gw_str_starts(s, GW_STR("\xc2\x85")) || gw_str_starts(s, GW_STR("\xe2\x80\xa8")) ||
         gw_str_starts(s, GW_STR("\xe2\x80\xa9")))) {
        return "a line separator that editors do not show (U+0085, U+2028 or U+2029)";
    }
    return NULL;
}

static int check_text(const struct build *b, struct gw_str text)
{
    bool indentation = true, tab = false;

    for (size_t i = 0; i < text.n;) {
        struct gw_str rest = {text.p + i, text.n - i};
        unsigned char c = (unsigned char)*rest.p;
        size_t n = c < 0x80 ? 1 : gw_utf8_char(rest);
        const char *odd = c >= 0x80 || c == '\0' || c == '\r' ? odd_character(rest, n) : NULL;

        if (odd != NULL) {
            return fail_offset(b, text, i, odd);
        }
        if (c == '\n') {
            indentation = true;
            tab = false;
        } else if (indentation && c == '\t') {
            tab = true;
        } else if (indentation && c != ' ' && c != '\r') {
            if (tab) {
                return fail_offset(b, text, i, "a tab in the indentation: use blanks");
            }
            indentation = false;
        }
        i += n;
    }
    return GW_OK;
}

/* ---- nodes ---- */

static bool in_map(const struct build *b)
{
    return b->depth != 0 && b->levels[b->depth - 1].node->kind == GW_YAML_MAP;
}

/* A place for the value that begins at mark: the waiting key's node, the next item, or the root.
 * NULL: no memory */
static struct gw_yaml *place(struct build *b, enum gw_yaml_kind kind, const yaml_mark_t *at)
{
    struct gw_yaml *n = b->key;

    if (n == NULL) {
        n = gw_arena_alloc(b->arena, sizeof(*n));
        if (n == NULL) {
            return NULL;
        }
        if (b->depth == 0) {
            b->root = n;
        } else {
            struct level *l = &b->levels[b->depth - 1];

            *l->tail = n;
            l->tail = &n->next;
            l->node->count++;
        }
    }
    b->key = NULL;
    n->kind = kind;
    n->line = (unsigned)at->line + 1;
    n->column = (unsigned)at->column + 1;
    return n;
}

static int on_key(struct build *b, const yaml_event_t *e)
{
    struct gw_str text = {(const char *)e->data.scalar.value, e->data.scalar.length};
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    struct level *l = &b->levels[b->depth - 1];
    struct gw_yaml *n;

    if (plain && gw_str_eq_c(text, "<<")) {
        return fail_mark(b, &e->start_mark, "merge keys (<<) are not supported");
    }
    if (plain && text.n == 0) {
        return fail_mark(b, &e->start_mark, "a key is missing");
    }
    n = gw_arena_alloc(b->arena, sizeof(*n));
    if (n == NULL) {
        return fail_memory(b);
    }
    n->key = gw_arena_dup(b->arena, text);
    if (n->key.p == NULL) {
        return fail_memory(b);
    }
    n->key_line = (unsigned)e->start_mark.line + 1;
    n->key_column = (unsigned)e->start_mark.column + 1;
    *l->tail = n;
    l->tail = &n->next;
    l->node->count++;
    b->key = n;
    return GW_OK;
}

static int on_scalar(struct build *b, const yaml_event_t *e)
{
    struct gw_str text = {(const char *)e->data.scalar.value, e->data.scalar.length};
    struct gw_yaml *n;

    if (e->data.scalar.anchor != NULL) {
        return fail_mark(b, &e->start_mark, "anchors (&) are not supported");
    }
    if (e->data.scalar.tag != NULL) {
        return fail_mark(b, &e->start_mark,
                         "tags (!) are not supported; quote the text if it begins with '!'");
    }
    if (text.n != 0 && memchr(text.p, '\0', text.n) != NULL) {
        return fail_mark(b, &e->start_mark, "a NUL character");
    }
    if (in_map(b) && b->key == NULL) {
        return on_key(b, e);
    }
    n = place(b, GW_YAML_SCALAR, &e->start_mark);
    if (n == NULL) {
        return fail_memory(b);
    }
    n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    n->value = gw_arena_dup(b->arena, text);
    return n->value.p != NULL ? GW_OK : fail_memory(b);
}

static int on_begin(struct build *b, enum gw_yaml_kind kind, const yaml_char_t *anchor,
                    const yaml_char_t *tag, const yaml_mark_t *at)
{
    struct gw_yaml *n;

    if (anchor != NULL) {
        return fail_mark(b, at, "anchors (&) are not supported");
    }
    if (tag != NULL) {
        return fail_mark(b, at, "tags (!) are not supported");
    }
    if (in_map(b) && b->key == NULL) {
        return fail_mark(b, at, "a key must be a word, not a list or map");
    }
    if (b->depth == DEPTH_MAX) {
        return fail_mark(b, at, "nested deeper than 16");
    }
    n = place(b, kind, at);
    if (n == NULL) {
        return fail_memory(b);
    }
    b->levels[b->depth++] = (struct level){n, &n->child};
    return GW_OK;
}

/* ---- duplicate keys ---- */

static int by_key_then_place(const void *a, const void *b)
{
    const struct gw_yaml *x = *(struct gw_yaml *const *)a, *y = *(struct gw_yaml *const *)b;
    int order = gw_str_cmp(x->key, y->key);

    if (order == 0) {
        order = (x->key_line > y->key_line) - (x->key_line < y->key_line);
    }
    return order != 0 ? order : (x->key_column > y->key_column) - (x->key_column < y->key_column);
}

static int fail_duplicate(const struct build *b, const struct gw_yaml *n,
                          const struct gw_yaml *first)
{
    return gw_yaml_fail(b->err, b->name, n, true, "the key \"%.64s\" is there already, in line %u",
                        n->key.p, first->key_line);
}

static int check_few_keys(const struct build *b, const struct gw_yaml *map)
{
    for (const struct gw_yaml *n = map->child; n != NULL; n = n->next) {
        for (const struct gw_yaml *first = map->child; first != n; first = first->next) {
            if (gw_str_eq(first->key, n->key)) {
                return fail_duplicate(b, n, first);
            }
        }
    }
    return GW_OK;
}

static int check_many_keys(const struct build *b, const struct gw_yaml *map)
{
    struct gw_yaml **sorted = gw_alloc(map->count * sizeof(struct gw_yaml *));
    size_t n = 0;
    int rc = GW_OK;

    if (sorted == NULL) {
        return gw_fail(b->err, GW_NO_MEMORY, 0, "no memory for a map of %zu keys", map->count);
    }
    for (struct gw_yaml *c = map->child; c != NULL; c = c->next) {
        sorted[n++] = c;
    }
    qsort(sorted, n, sizeof(struct gw_yaml *), by_key_then_place);
    for (size_t i = 1; i < n && rc == GW_OK; i++) {
        if (gw_str_eq(sorted[i - 1]->key, sorted[i]->key)) {
            rc = fail_duplicate(b, sorted[i], sorted[i - 1]);
        }
    }
    gw_free(sorted);
    return rc;
}

static int on_end(struct build *b)
{
    const struct gw_yaml *n = b->levels[--b->depth].node;

    if (n->kind != GW_YAML_MAP) {
        return GW_OK;
    }
    return n->count <= FEW_KEYS ? check_few_keys(b, n) : check_many_keys(b, n);
}

/* ---- events ---- */

static int on_document(struct build *b, const yaml_event_t *e)
{
    if (e->data.document_start.version_directive != NULL ||
        e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end) {
        return fail_mark(b, &e->start_mark, "directives (%) are not supported");
    }
    if (b->root != NULL) {
        return fail_mark(b, &e->start_mark, "a second document: one file is one document");
    }
    return GW_OK;
}

static int on_event(struct build *b, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return on_document(b, e);
    case YAML_ALIAS_EVENT:
        return fail_mark(b, &e->start_mark,
                         "aliases (*) are not supported; quote the text if it begins with '*'");
    case YAML_SCALAR_EVENT:
        return on_scalar(b, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_begin(b, GW_YAML_LIST, e->data.sequence_start.anchor, e->data.sequence_start.tag,
                        &e->start_mark);
    case YAML_MAPPING_START_EVENT:
        return on_begin(b, GW_YAML_MAP, e->data.mapping_start.anchor, e->data.mapping_start.tag,
                        &e->start_mark);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(b);
    default:
        return GW_OK;
    }
}

/* libyaml's own refusal; its sentences are constants, nothing of the text is in them. */
static int fail_libyaml(const struct build *b, struct gw_str text)
{
    const yaml_parser_t *p = &b->parser;
    char what[160];

    switch (p->error) {
    case YAML_MEMORY_ERROR:
        return gw_fail(b->err, GW_NO_MEMORY, 0, "no memory to read YAML");
    case YAML_READER_ERROR:
        return fail_offset(b, text, p->problem_offset, p->problem);
    default:
        break;
    }
    if (p->context != NULL && p->context_mark.line != p->problem_mark.line) {
        snprintf(what, sizeof(what), "%s (%s that begins in line %zu)", p->problem, p->context,
                 p->context_mark.line + 1);
    } else {
        snprintf(what, sizeof(what), "%s", p->problem);
    }
    return fail_mark(b, &p->problem_mark, what);
}

static int read_events(struct build *b, struct gw_str text)
{
    bool end = false;
    int rc = GW_OK;

    while (rc == GW_OK && !end) {
        yaml_event_t e;

        if (!yaml_parser_parse(&b->parser, &e)) {
            return fail_libyaml(b, text);
        }
        end = e.type == YAML_STREAM_END_EVENT;
        rc = on_event(b, &e);
        yaml_event_delete(&e);
    }
    return rc;
}

/* Nothing, or nothing but "---": a map without keys. */
static int settle_empty_root(struct build *b)
{
    if (b->root == NULL) {
        const yaml_mark_t start = {0};

        return place(b, GW_YAML_MAP, &start) != NULL ? GW_OK : fail_memory(b);
    }
    if (b->root->kind == GW_YAML_SCALAR && !b->root->quoted && b->root->value.n == 0) {
        b->root->kind = GW_YAML_MAP;
    }
    return GW_OK;
}

int gw_yaml_parse(struct gw_yaml **out, struct gw_str name, struct gw_str text, struct gw_arena *a,
                  struct gw_error *err)
{
    struct build b = {.name = name, .arena = a, .err = err};
    int rc;

    if (gw_str_starts(text, GW_STR("\xef\xbb\xbf"))) { /* a BOM would shift the columns of line 1 */
        text = gw_str_sub(text, 3, text.n);
    }
    rc = check_text(&b, text);
    if (rc != GW_OK) {
        return rc;
    }
    if (!yaml_parser_initialize(&b.parser)) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory to read YAML");
    }
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING); /* else two bytes make it UTF-16 */
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)(text.n != 0 ? text.p : ""),
                                 text.n);
    rc = read_events(&b, text);
    yaml_parser_delete(&b.parser);
    if (rc == GW_OK) {
        rc = settle_empty_root(&b);
    }
    if (rc == GW_OK) {
        *out = b.root;
    }
    return rc;
}

int gw_yaml_syntax(struct gw_str name, struct gw_str text, struct gw_error *err)
{
    struct build b = {.name = name, .err = err};
    bool end = false;
    int rc = GW_OK;

    if (!yaml_parser_initialize(&b.parser)) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory to read YAML");
    }
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)(text.n != 0 ? text.p : ""),
                                 text.n);
    while (rc == GW_OK && !end) {
        yaml_event_t e;

        if (!yaml_parser_parse(&b.parser, &e)) {
            rc = fail_libyaml(&b, text);
            break;
        }
        end = e.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&b.parser);
    return rc;
}

const struct gw_yaml *gw_yaml_get(const struct gw_yaml *map, const char *key)
{
    if (map == NULL || map->kind != GW_YAML_MAP) {
        return NULL;
    }
    for (const struct gw_yaml *n = map->child; n != NULL; n = n->next) {
        if (gw_str_eq_c(n->key, key)) {
            return n;
        }
    }
    return NULL;
}

/* ---- the nearest word ---- */

#define WORD_MAX 64u
#define NEAR 2u

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    a = a < b ? a : b;
    return a < c ? a : c;
}

/* Levenshtein; both at most WORD_MAX bytes. */
static unsigned distance(struct gw_str a, struct gw_str b)
{
    unsigned row[WORD_MAX + 1];

    for (unsigned j = 0; j <= b.n; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned diagonal = row[0];

        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned above = row[j];

            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a.p[i - 1] != b.p[j - 1]));
            diagonal = above;
        }
    }
    return row[b.n];
}

const char *gw_nearest(struct gw_str word, const char *const *words, size_t n)
{
    unsigned best = NEAR + 1;
    const char *nearest = NULL;

    for (size_t i = 0; i < n; i++) {
        struct gw_str w = gw_str_c(words[i]);
        unsigned d;

        if (w.n > WORD_MAX || word.n > WORD_MAX || w.n > word.n + NEAR || word.n > w.n + NEAR) {
            continue;
        }
        d = distance(word, w);
        if (d < best && d < word.n) { /* every letter changed is another word, not a misspelt one */
            best = d;
            nearest = words[i];
        }
    }
    return nearest;
}
