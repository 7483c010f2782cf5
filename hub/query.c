/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/query.c - the query of a target: what a route knows becomes fields and one normal form, the
 * rest is ignored.
 *
 * The Hub's clients write booleans as true, True or 1 and lists as k=a&k=b or k[]=a
 * (huggingface_hub 0.36 with requests, 1.x with httpx, huggingface.js). A resolve URL may carry
 * anything (?download=true, signatures): it is not even read.
 */
#include "hub/hub_internal.h"

#include "base/encode.h"

#include <stddef.h>
#include <stdio.h>

#define PAIRS_MAX 256u
#define CURSOR_MAX 4096u
#define WORD_MAX 128u /* a filter's text: author, status, type */

enum kind {
    BOOLEAN, /* to the bool at offset; written as yes */
    LIMIT,
    CURSOR,
    PAGE, /* a page number: kept as cursor "p:N" */
    LIST, /* to keys, and sets expand */
    WORD, /* only to the normal form */
};

/* In the order of the normal form: sorted by key. */
struct known {
    const char *key;
    const char *written; /* how upstream is asked */
    enum kind kind;
    const char *yes;
    size_t offset;
};

#define FLAG(name, yes, field)                                                                     \
    {                                                                                              \
        name, name, BOOLEAN, yes, offsetof(struct hub_target, field)                               \
    }
#define KEY(name, kind)                                                                            \
    {                                                                                              \
        name, name, kind, NULL, 0                                                                  \
    }
#define KNOWN_MAX 5

static const struct known info_keys[] = {
    FLAG("blobs", "true", blobs),
    KEY("expand", LIST),
    FLAG("securityStatus", "true", security_status),
};
static const struct known tree_keys[] = {
    KEY("cursor", CURSOR), FLAG("expand", "true", expand),       KEY("limit", LIMIT),
    KEY("p", PAGE),        FLAG("recursive", "true", recursive),
};
static const struct known refs_keys[] = {
    FLAG("include_prs", "1", include_prs),
};
static const struct known commits_keys[] = {
    KEY("cursor", CURSOR),
    {"expand", "expand[]", LIST, NULL, 0},
    KEY("limit", LIMIT),
    KEY("p", PAGE),
};
static const struct known discussions_keys[] = {
    KEY("author", WORD),
    KEY("p", PAGE),
    KEY("status", WORD),
    KEY("type", WORD),
};
static const struct known tags_keys[] = {
    KEY("type", WORD),
};

static const struct known write_keys[] = {
    FLAG("create_pr", "1", create_pr),
};

struct table {
    const struct known *rows;
    size_t n;
};
#define TABLE(t)                                                                                   \
    {                                                                                              \
        t, sizeof(t) / sizeof(t[0])                                                                \
    }

static const struct table tables[HUB_ROUTE_COUNT] = {
    [HUB_INFO] = TABLE(info_keys),
    [HUB_TREE] = TABLE(tree_keys),
    [HUB_REFS] = TABLE(refs_keys),
    [HUB_COMMITS] = TABLE(commits_keys),
    [HUB_DISCUSSIONS] = TABLE(discussions_keys),
    [HUB_TAGS_BY_TYPE] = TABLE(tags_keys),
    [HUB_PREUPLOAD] = TABLE(write_keys),
    [HUB_COMMIT] = TABLE(write_keys),
};

/* ---- pairs ---- */

bool hub_truth(struct gw_str word)
{
    return gw_str_eq_c(word, "true") || gw_str_eq_c(word, "True") || gw_str_eq_c(word, "1");
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool hub_escapes_ok(struct gw_str raw)
{
    for (size_t i = 0; i < raw.n; i++) {
        if (raw.p[i] == '%') {
            if (raw.n - i < 3 || !is_hex(raw.p[i + 1]) || !is_hex(raw.p[i + 2])) {
                return false;
            }
            i += 2;
        }
    }
    return true;
}

static int decode(struct gw_str *out, bool *bad, struct gw_str raw, struct gw_arena *a)
{
    *out = raw;
    if (raw.n == 0 || (memchr(raw.p, '%', raw.n) == NULL && memchr(raw.p, '+', raw.n) == NULL)) {
        return GW_OK;
    }
    if (!hub_escapes_ok(raw)) {
        *bad = true;
        return GW_OK;
    }
    return gw_percent_decode(a, raw, true, out) ? GW_OK : GW_NO_MEMORY;
}

int hub_next_pair(struct hub_pair *out, struct gw_str *rest, struct gw_arena *a)
{
    struct gw_str pair, key;
    int rc;

    do {
        if (!gw_str_split(rest, '&', &pair)) {
            return GW_NOT_FOUND;
        }
    } while (pair.n == 0);
    gw_str_split(&pair, '=', &key);
    out->bad = false;
    rc = decode(&out->key, &out->bad, key, a);
    if (rc != GW_OK) {
        return rc;
    }
    if (gw_str_ends(out->key, GW_STR("[]"))) {
        out->key.n -= 2;
    }
    if (pair.p == NULL) { /* no '=' */
        pair = GW_STR("");
    }
    return decode(&out->value, &out->bad, pair, a);
}

/* ---- values ---- */

struct values {
    struct gw_str keys[HUB_KEYS_MAX]; /* sorted, each once */
    size_t n_keys;
    struct gw_str word[KNOWN_MAX];
};

static bool is_key_name(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-')) {
            return false;
        }
    }
    return s.n != 0 && s.n <= 64;
}

static int add_key(struct values *v, struct gw_str key, struct gw_error *err)
{
    size_t at = 0;

    if (!is_key_name(key)) {
        return gw_fail(err, GW_INVALID, 0, "expand: not the name of a field");
    }
    while (at < v->n_keys && gw_str_cmp(v->keys[at], key) < 0) {
        at++;
    }
    if (at < v->n_keys && gw_str_eq(v->keys[at], key)) {
        return GW_OK;
    }
    if (v->n_keys == HUB_KEYS_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "expand: more than %u fields", HUB_KEYS_MAX);
    }
    memmove(&v->keys[at + 1], &v->keys[at], (v->n_keys - at) * sizeof(v->keys[0]));
    v->keys[at] = key;
    v->n_keys++;
    return GW_OK;
}

bool hub_page_cursor(struct gw_str number, struct gw_arena *a, struct gw_str *cursor)
{
    uint64_t page;

    if (!gw_str_u64(number, &page) || page > 999999999) {
        return false;
    }
    *cursor = page == 0 ? GW_STR("") : gw_arena_printf(a, "p:%llu", (unsigned long long)page);
    return true;
}

static bool is_page_cursor(struct gw_str cursor)
{
    uint64_t page;

    return gw_str_starts(cursor, GW_STR("p:")) && cursor.n > 2 && cursor.n <= 2 + 9 &&
           cursor.p[2] != '0' && gw_str_u64(gw_str_sub(cursor, 2, cursor.n), &page);
}

static int take(struct hub_target *t, struct values *v, size_t i, const struct hub_pair *pair,
                struct gw_arena *a, struct gw_error *err)
{
    const struct known *known = &tables[t->route].rows[i];
    struct gw_str value = pair->value;
    uint64_t number;

    if (pair->bad || !hub_text_ok(value)) {
        return gw_fail(err, GW_INVALID, 0, "%s: not a value", known->key);
    }
    switch (known->kind) {
    case BOOLEAN:
        *(bool *)((char *)t + known->offset) = hub_truth(value);
        return GW_OK;
    case LIMIT:
        if (!gw_str_u64(value, &number)) {
            return gw_fail(err, GW_INVALID, 0, "limit: not a number");
        }
        t->limit = number > HUB_PAGE ? HUB_PAGE : (uint32_t)number;
        return GW_OK;
    case CURSOR:
        if (value.n > CURSOR_MAX) {
            return gw_fail(err, GW_TOO_LARGE, 0, "cursor: more than %u bytes", CURSOR_MAX);
        }
        t->cursor = value;
        return GW_OK;
    case PAGE:
        if (!hub_page_cursor(value, a, &t->cursor)) {
            return gw_fail(err, GW_INVALID, 0, "p: not the number of a page");
        }
        return t->cursor.p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a query");
    case LIST:
        return add_key(v, value, err);
    case WORD:
        if (value.n > WORD_MAX) {
            return gw_fail(err, GW_TOO_LARGE, 0, "%s: more than %u bytes", known->key, WORD_MAX);
        }
        v->word[i] = value;
        return GW_OK;
    }
    return GW_OK;
}

/* ---- the normal form ---- */

static void put_pair(struct gw_buf *out, const char *key, struct gw_str value)
{
    if (out->n != 0) {
        gw_buf_add_char(out, '&');
    }
    gw_percent_encode(out, gw_str_c(key), false);
    gw_buf_add_char(out, '=');
    gw_percent_encode(out, value, false);
}

static void put_known(struct gw_buf *out, const struct hub_target *t, const struct values *v,
                      size_t i)
{
    const struct known *known = &tables[t->route].rows[i];
    char digits[16];

    switch (known->kind) {
    case BOOLEAN:
        if (*(const bool *)((const char *)t + known->offset)) {
            put_pair(out, known->written, gw_str_c(known->yes));
        }
        break;
    case LIMIT:
        if (t->limit != 0) {
            snprintf(digits, sizeof(digits), "%u", (unsigned)t->limit);
            put_pair(out, known->written, gw_str_c(digits));
        }
        break;
    case CURSOR:
        if (t->cursor.n != 0 && !is_page_cursor(t->cursor)) {
            put_pair(out, known->written, t->cursor);
        }
        break;
    case PAGE:
        if (is_page_cursor(t->cursor)) {
            put_pair(out, known->written, gw_str_sub(t->cursor, 2, t->cursor.n));
        }
        break;
    case LIST:
        for (size_t k = 0; k < v->n_keys; k++) {
            put_pair(out, known->written, v->keys[k]);
        }
        break;
    case WORD:
        if (v->word[i].n != 0) {
            put_pair(out, known->written, v->word[i]);
        }
        break;
    }
}

/* b's text into the arena; b is released. */
static int keep(struct gw_str *out, struct gw_buf *b, struct gw_arena *a, struct gw_error *err)
{
    *out = b->failed ? (struct gw_str){NULL, 0} : gw_arena_dup(a, gw_buf_str(b));
    gw_buf_release(b);
    return out->p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a query");
}

static int put_normal_form(struct hub_target *t, const struct values *v, struct gw_arena *a,
                           struct gw_error *err)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 4 * HUB_TARGET_MAX); /* %XX of each byte, and key names */
    for (size_t k = 0; k < v->n_keys; k++) {
        if (k != 0) {
            gw_buf_add_char(&b, ',');
        }
        gw_buf_add(&b, v->keys[k]);
    }
    rc = keep(&t->keys, &b, a, err);
    if (rc != GW_OK) {
        return rc;
    }
    gw_buf_init(&b, 4 * HUB_TARGET_MAX);
    for (size_t i = 0; i < tables[t->route].n; i++) {
        put_known(&b, t, v, i);
    }
    return keep(&t->query, &b, a, err);
}

int hub_query_parse(struct hub_target *t, struct gw_str raw_query, struct gw_arena *a,
                    struct gw_error *err)
{
    const struct table *table = &tables[t->route];
    struct values v = {.n_keys = 0};
    struct hub_pair pair;
    unsigned pairs = 0;
    int rc;

    if (t->route == HUB_LIST) {
        return hub_list_query(t, raw_query, a, err);
    }
    if (raw_query.n == 0 || table->n == 0) {
        return GW_OK;
    }
    while ((rc = hub_next_pair(&pair, &raw_query, a)) == GW_OK) {
        if (++pairs > PAIRS_MAX) {
            return gw_fail(err, GW_TOO_LARGE, 0, "a query of more than %u parameters", PAIRS_MAX);
        }
        for (size_t i = 0; i < table->n && rc == GW_OK; i++) {
            if (gw_str_eq_c(pair.key, table->rows[i].key)) {
                rc = take(t, &v, i, &pair, a, err);
            }
        }
        if (rc != GW_OK) {
            return rc;
        }
    }
    if (rc == GW_NO_MEMORY) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a query");
    }
    if (v.n_keys != 0) {
        t->expand = true;
    }
    return put_normal_form(t, &v, a, err);
}

void hub_put_page_query(struct gw_buf *out, const struct hub_target *t, struct gw_str cursor)
{
    struct gw_str rest = t->query, pair;
    char sep = '?';

    while (gw_str_split(&rest, '&', &pair)) {
        if (pair.n != 0 && !gw_str_starts(pair, GW_STR("cursor=")) &&
            !gw_str_starts(pair, GW_STR("p="))) {
            gw_buf_add_char(out, sep);
            gw_buf_add(out, pair);
            sep = '&';
        }
    }
    if (cursor.n != 0) {
        gw_buf_add_char(out, sep);
        gw_buf_add_c(out, is_page_cursor(cursor) ? "p=" : "cursor=");
        gw_percent_encode(out, is_page_cursor(cursor) ? gw_str_sub(cursor, 2, cursor.n) : cursor,
                          false);
    }
}
