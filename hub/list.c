/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/list.c - lists of repositories: what a query asks of a private one, and the items of
 * upstream's answer one by one.
 *
 * Upstream understands more than we do and more every month, so its query is what the client sent,
 * in a normal form and within bounds. Of it only what is read here selects private repositories.
 */
#include "hub/hub_internal.h"

#include "base/encode.h"

#include <stdio.h>

#define PAIRS_MAX 64u
#define KEY_MAX 64u
#define VALUE_MAX 512u
#define CURSOR_MAX 6144u

/* ---- the normal form ---- */

struct pairs {
    struct hub_pair pair[PAIRS_MAX];
    size_t n;
};

static bool is_key(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-' || c == '.')) {
            return false;
        }
    }
    return s.n != 0 && s.n <= KEY_MAX;
}

static int take(struct hub_target *t, struct pairs *all, struct hub_pair pair, struct gw_arena *a,
                struct gw_error *err)
{
    uint64_t number;
    size_t at = all->n;

    if (pair.bad || !is_key(pair.key) || !hub_text_ok(pair.value)) {
        return gw_fail(err, GW_INVALID, 0, "a key or value of the query that is none");
    }
    if (gw_str_eq_c(pair.key, "cursor")) {
        t->cursor = pair.value;
        return pair.value.n <= CURSOR_MAX
                   ? GW_OK
                   : gw_fail(err, GW_TOO_LARGE, 0, "cursor: more than %u bytes", CURSOR_MAX);
    }
    if (gw_str_eq_c(pair.key, "p")) { /* a page's number: pages go by cursor here */
        return GW_OK;
    }
    if (pair.value.n > VALUE_MAX || all->n == PAIRS_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "a list's query has up to %u values of up to %u bytes",
                       PAIRS_MAX, VALUE_MAX);
    }
    if (gw_str_eq_c(pair.key, "limit")) {
        if (!gw_str_u64(pair.value, &number)) {
            return gw_fail(err, GW_INVALID, 0, "limit: not a number");
        }
        t->limit = number > HUB_PAGE ? HUB_PAGE : (uint32_t)number;
        pair.value = gw_arena_printf(a, "%u", (unsigned)t->limit);
        if (pair.value.p == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a query");
        }
    }
    /* requests 0.x writes True, everybody else true: one question for upstream */
    if (gw_str_eq_c(pair.value, "True") || gw_str_eq_c(pair.value, "False")) {
        pair.value = hub_truth(pair.value) ? GW_STR("true") : GW_STR("false");
    }
    while (at > 0 && gw_str_cmp(all->pair[at - 1].key, pair.key) > 0) {
        all->pair[at] = all->pair[at - 1];
        at--;
    }
    all->pair[at] = pair;
    all->n++;
    return GW_OK;
}

int hub_list_query(struct hub_target *t, struct gw_str raw_query, struct gw_arena *a,
                   struct gw_error *err)
{
    struct pairs all = {.n = 0};
    struct hub_pair pair;
    struct gw_buf b;
    int rc;

    while ((rc = hub_next_pair(&pair, &raw_query, a)) == GW_OK) {
        rc = take(t, &all, pair, a, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    if (rc == GW_NO_MEMORY) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a query");
    }
    gw_buf_init(&b, 4 * HUB_TARGET_MAX);
    for (size_t i = 0; i < all.n; i++) {
        if (i != 0) {
            gw_buf_add_char(&b, '&');
        }
        gw_percent_encode(&b, all.pair[i].key, false);
        gw_buf_add_char(&b, '=');
        gw_percent_encode(&b, all.pair[i].value, false);
    }
    t->query = b.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    return t->query.p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a query");
}

/* ---- what it asks of ours ---- */

enum asks { TAG, TAGS, DATASET, SEARCH, AUTHOR, SORT, DIRECTION, NONE_HAS, GATED, EXPAND, FULL };

static const struct {
    const char *key;
    enum asks asks;
} known[] = {
    {"filter", TAGS},
    {"tags", TAGS},
    {"library", TAGS},
    {"language", TAGS},
    {"pipeline_tag", TAG},
    {"task", TAG},
    {"trained_dataset", DATASET},
    {"dataset", DATASET},
    {"search", SEARCH},
    {"author", AUTHOR},
    {"sort", SORT},
    {"direction", DIRECTION},
    {"gated", GATED},
    {"inference", NONE_HAS},
    {"inference_provider", NONE_HAS},
    {"expand", EXPAND},
    {"full", FULL},
    {"cardData", FULL},
    {"config", FULL},
};

static const char *const plain_fields[] = {
    [HUB_MODEL] = "modelId,likes,trendingScore,private,gated,downloads,tags,pipeline_tag,"
                  "library_name,createdAt,lastModified",
    [HUB_DATASET] = "author,disabled,gated,lastModified,likes,trendingScore,private,sha,"
                    "downloads,tags,createdAt",
    [HUB_SPACE] = "likes,trendingScore,private,sdk,tags,createdAt,lastModified,sha",
};

static bool add_text(struct gw_str *list, size_t *n, size_t most, struct gw_str text)
{
    if (text.n == 0) {
        return true;
    }
    if (*n == most) {
        return false;
    }
    list[(*n)++] = text;
    return true;
}

static bool add_tags(struct hub_list *out, struct gw_str value)
{
    struct gw_str tag;

    while (gw_str_split(&value, ',', &tag)) {
        if (!add_text(out->words, &out->n_words, HUB_LIST_WORDS_MAX, tag)) {
            return false;
        }
    }
    return true;
}

static bool add_search(struct hub_list *out, struct gw_str value)
{
    struct gw_str part;

    while (gw_str_split(&value, ' ', &part)) {
        if (!add_text(out->search, &out->n_search, HUB_LIST_SEARCH_MAX, part)) {
            return false;
        }
    }
    return true;
}

static enum hub_sort sort_of(struct gw_str word)
{
    if (gw_str_eq_c(word, "createdAt") || gw_str_eq_c(word, "created_at")) {
        return HUB_BY_CREATED;
    }
    return gw_str_eq_c(word, "downloads") ? HUB_BY_DOWNLOADS : HUB_BY_UPDATED;
}

static void add_fields(struct gw_buf *keys, struct gw_str fields)
{
    if (keys->n != 0) {
        gw_buf_add_char(keys, ',');
    }
    gw_buf_add(keys, fields);
}

static bool apply(struct hub_list *out, enum asks asks, const struct hub_pair *pair,
                  struct gw_buf *expand, struct gw_buf *more, struct gw_arena *a)
{
    struct gw_str value = pair->value;

    switch (asks) {
    case TAG:
        return add_text(out->words, &out->n_words, HUB_LIST_WORDS_MAX, value);
    case TAGS:
        return add_tags(out, value);
    case DATASET:
        value = gw_arena_printf(a, "dataset:" GW_STR_FMT, GW_STR_ARG(value));
        return value.p != NULL && add_text(out->words, &out->n_words, HUB_LIST_WORDS_MAX, value);
    case SEARCH:
        return add_search(out, value);
    case AUTHOR:
        out->author = value;
        break;
    case SORT:
        out->sort = sort_of(value);
        break;
    case DIRECTION:
        out->ascending = gw_str_eq_c(value, "1") || gw_str_eq_c(value, "asc");
        break;
    case GATED:
        out->nothing = out->nothing || hub_truth(value);
        break;
    case NONE_HAS:
        out->nothing = true;
        break;
    case EXPAND:
        add_fields(expand, value);
        break;
    case FULL:
        if (hub_truth(value)) {
            add_fields(more, gw_str_eq_c(pair->key, "full")
                                 ? GW_STR("author,sha,disabled,siblings,spaces")
                                 : pair->key);
        }
        break;
    }
    return true;
}

int hub_list_parse(struct hub_list *out, const struct hub_target *t, struct gw_arena *a,
                   struct gw_error *err)
{
    struct gw_str query = t->query;
    struct hub_pair pair;
    struct gw_buf expand, more;
    bool fits = true;
    int rc;

    *out = (struct hub_list){.author = GW_STR(""), .keys = GW_STR("")};
    gw_buf_init(&expand, HUB_TARGET_MAX);
    gw_buf_init(&more, HUB_TARGET_MAX);
    while (fits && (rc = hub_next_pair(&pair, &query, a)) == GW_OK) {
        for (size_t i = 0; fits && i < sizeof(known) / sizeof(known[0]); i++) {
            if (gw_str_eq_c(pair.key, known[i].key)) {
                fits = apply(out, known[i].asks, &pair, &expand, &more, a);
            }
        }
    }
    if (expand.n == 0) {
        add_fields(&more, gw_str_c(plain_fields[t->type <= HUB_SPACE ? t->type : HUB_MODEL]));
    }
    out->keys = expand.failed || more.failed
                    ? (struct gw_str){NULL, 0}
                    : gw_arena_dup(a, gw_buf_str(expand.n != 0 ? &expand : &more));
    gw_buf_release(&expand);
    gw_buf_release(&more);
    if (!fits) {
        return gw_fail(err, GW_TOO_LARGE, 0, "a list is asked for by up to %u tags and %u words",
                       HUB_LIST_WORDS_MAX, HUB_LIST_SEARCH_MAX);
    }
    return out->keys.p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a query");
}

void hub_put_list_target(struct gw_buf *out, const struct hub_target *t, struct gw_str cursor)
{
    hub_put_target_path(out, t, GW_STR(""));
    if (t->query.n != 0 || cursor.n != 0) {
        hub_put_page_query(out, t, cursor);
    }
}

/* ---- items of a list as hub_doc_reader wrote it ---- */

/* i is at the opening quote. @return behind the closing one */
static size_t behind_string(struct gw_str s, size_t i)
{
    for (i++; i < s.n && s.p[i] != '"'; i++) {
        i += s.p[i] == '\\';
    }
    return i < s.n ? i + 1 : s.n;
}

/* The string from i on, if it is a member "id" of the item: its value. */
static void note_id(struct gw_str s, size_t i, size_t end, struct gw_str *id)
{
    if (end - i == 4 && memcmp(s.p + i, "\"id\"", 4) == 0 && end + 1 < s.n && s.p[end] == ':' &&
        s.p[end + 1] == '"') {
        size_t close = behind_string(s, end + 1);

        *id = gw_str_sub(s, end + 2, close - end - 3);
    }
}

bool hub_next_item(struct gw_str *rest, struct gw_str *item, struct gw_str *id)
{
    struct gw_str s = *rest;
    size_t depth = 0, i = 0;

    *id = GW_STR("");
    while (i < s.n && (s.p[i] == '[' || s.p[i] == ',')) {
        i++;
    }
    s = gw_str_sub(s, i, s.n);
    if (s.n == 0 || s.p[0] != '{') {
        return false;
    }
    for (i = 0; i < s.n;) {
        size_t end = i + 1;

        if (s.p[i] == '"') {
            end = behind_string(s, i);
            if (depth == 1 && i > 0 && (s.p[i - 1] == '{' || s.p[i - 1] == ',')) {
                note_id(s, i, end, id);
            }
        } else if (s.p[i] == '{' || s.p[i] == '[') {
            depth++;
        } else if (s.p[i] == '}' || s.p[i] == ']') {
            depth--;
        }
        i = end;
        if (depth == 0) {
            *item = gw_str_sub(s, 0, i);
            *rest = gw_str_sub(s, i, s.n);
            return true;
        }
    }
    return false;
}

/* ---- what the files of a repository say of it ---- */

static const char *tag_of(enum hub_type type, struct gw_str path)
{
    static const struct {
        enum hub_type type;
        const char *end, *tag;
    } ends[] = {
        {HUB_MODEL, ".safetensors", "safetensors"},
        {HUB_MODEL, ".gguf", "gguf"},
        {HUB_MODEL, ".onnx", "onnx"},
        {HUB_MODEL, ".keras", "keras"},
        {HUB_MODEL, ".tflite", "tflite"},
        {HUB_MODEL, "pytorch_model.bin", "pytorch"},
        {HUB_MODEL, ".msgpack", "jax"},
        {HUB_MODEL, "tf_model.h5", "tf"},
        {HUB_MODEL, "adapter_config.json", "peft"},
        {HUB_DATASET, ".parquet", "format:parquet"},
        {HUB_DATASET, ".csv", "format:csv"},
        {HUB_DATASET, ".json", "format:json"},
        {HUB_DATASET, ".jsonl", "format:json"},
        {HUB_DATASET, ".arrow", "format:arrow"},
    };

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (ends[i].type == type && gw_str_ends(path, gw_str_c(ends[i].end))) {
            return ends[i].tag;
        }
    }
    return NULL;
}

void hub_info_note_file(struct hub_info *i, struct gw_str path)
{
    const char *tag = tag_of(i->type, path);

    for (size_t k = 0; tag != NULL && k < i->n_file_tags; k++) {
        if (strcmp(i->file_tags[k], tag) == 0) {
            tag = NULL;
        }
    }
    if (tag != NULL && i->n_file_tags < HUB_FILE_TAGS_MAX) {
        i->file_tags[i->n_file_tags++] = tag;
    }
}
