/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/body.c - the small bodies that clients send on the read path: forms (Python, curl) and JSON
 * (huggingface.js, Rust).
 */
#include "hub/hub_internal.h"

#define PATHS_MAX 1000u

enum format { FORM, JSON, NEITHER };

static enum format format_of(struct gw_str content_type)
{
    struct gw_str word;

    if (!gw_str_split(&content_type, ';', &word)) {
        return NEITHER;
    }
    word = gw_str_trim(word);
    if (gw_str_ieq_c(word, "application/x-www-form-urlencoded")) {
        return FORM;
    }
    return gw_str_ieq_c(word, "application/json") ? JSON : NEITHER;
}

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a request body");
}

static int neither(struct gw_error *err)
{
    return gw_fail(err, GW_INVALID, 0, "the body is neither a form nor JSON (by its Content-Type)");
}

/* ---- paths-info ---- */

struct paths {
    struct gw_arena *a;
    struct gw_str *list;
    size_t n, cap;
    bool expand;
    /* JSON */
    struct gw_error error;
    enum { OTHER, PATHS, EXPAND } member;
};

static int add_path(struct paths *s, struct gw_str path, bool copy, struct gw_error *err)
{
    struct gw_str rest = path, part;
    bool exists = path.n != 0;

    if (path.n > HUB_PATH_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "a path of more than %u bytes", HUB_PATH_MAX);
    }
    if (!hub_text_ok(path)) {
        return gw_fail(err, GW_INVALID, 0, "a character in a path that is not allowed there");
    }
    while (gw_str_split(&rest, '/', &part)) {
        if (gw_str_eq_c(part, ".") || gw_str_eq_c(part, "..")) {
            return gw_fail(err, GW_INVALID, 0, "\".\" or \"..\" in a path");
        }
        exists = exists && part.n != 0;
    }
    if (!exists) { /* "", "/a", "a/": no entry has such a path, and what is missing is left out */
        return GW_OK;
    }
    if (s->n == PATHS_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "more than %u paths", PATHS_MAX);
    }
    if (s->n == s->cap) {
        size_t cap = s->cap != 0 ? s->cap * 2 : 16;
        struct gw_str *list = gw_arena_alloc(s->a, cap * sizeof(*list));

        if (list == NULL) {
            return no_memory(err);
        }
        if (s->n != 0) {
            memcpy(list, s->list, s->n * sizeof(*list));
        }
        s->list = list;
        s->cap = cap;
    }
    if (copy && (path = gw_arena_dup(s->a, path)).p == NULL) {
        return no_memory(err);
    }
    s->list[s->n++] = path;
    return GW_OK;
}

static int form_paths(struct paths *s, struct gw_str body, struct gw_error *err)
{
    struct hub_pair pair;
    int rc;

    while ((rc = hub_next_pair(&pair, &body, s->a)) == GW_OK) {
        if (pair.bad) {
            return gw_fail(err, GW_INVALID, 0, "a bad %%-escape in the body");
        }
        if (gw_str_eq_c(pair.key, "expand")) {
            s->expand = hub_truth(pair.value);
        } else if (gw_str_eq_c(pair.key, "paths")) {
            rc = add_path(s, pair.value, false, err);
            if (rc != GW_OK) {
                return rc;
            }
        }
    }
    return rc == GW_NO_MEMORY ? no_memory(err) : GW_OK;
}

/* {"paths": ["a", ..] or "a", "expand": true}; other members are read over. */
static int on_json(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct paths *s = ctx;

    if (depth == 0 && ev != GW_JSON_OBJECT_BEGIN && ev != GW_JSON_OBJECT_END) {
        return gw_fail(&s->error, GW_INVALID, 0, "the body is not a JSON object");
    }
    if (depth == 1 && ev == GW_JSON_KEY) {
        s->member = gw_str_eq_c(text, "paths")    ? PATHS
                    : gw_str_eq_c(text, "expand") ? EXPAND
                                                  : OTHER;
    } else if (depth == 1 && s->member == EXPAND) {
        s->expand = ev == GW_JSON_TRUE ||
                    ((ev == GW_JSON_STRING || ev == GW_JSON_NUMBER) && hub_truth(text));
    } else if ((depth == 1 || depth == 2) && s->member == PATHS) {
        if (ev == GW_JSON_STRING) {
            return add_path(s, text, true, &s->error);
        }
        if (depth == 2 || (ev != GW_JSON_ARRAY_BEGIN && ev != GW_JSON_ARRAY_END)) {
            return gw_fail(&s->error, GW_INVALID, 0, "\"paths\" is not a list of strings");
        }
    }
    return GW_OK;
}

static int json_paths(struct paths *s, struct gw_str body, struct gw_error *err)
{
    struct gw_json_reader *r = gw_json_reader_new(HUB_PATH_MAX + 1, on_json, s);
    int rc;

    if (r == NULL) {
        return no_memory(err);
    }
    rc = gw_json_reader_feed(r, body, err);
    if (rc == GW_OK) {
        rc = gw_json_reader_finish(r, err);
    }
    if (s->error.status != GW_OK && err != NULL) {
        *err = s->error;
    }
    gw_json_reader_free(r);
    return rc;
}

int hub_paths_parse(struct gw_str **paths, size_t *n, bool *expand, struct gw_str content_type,
                    struct gw_str body, struct gw_arena *a, struct gw_error *err)
{
    struct paths s = {.a = a};
    enum format format = format_of(content_type);
    int rc;

    if (format == NEITHER) {
        return neither(err);
    }
    rc = format == FORM ? form_paths(&s, body, err) : json_paths(&s, body, err);
    if (rc == GW_OK) {
        *paths = s.list;
        *n = s.n;
        *expand = s.expand;
    }
    return rc;
}

/* ---- one field ---- */

static int form_field(struct gw_str *value, const char *key, struct gw_str body, struct gw_arena *a,
                      struct gw_error *err)
{
    struct hub_pair pair;
    bool found = false;
    int rc;

    *value = GW_STR("");
    while ((rc = hub_next_pair(&pair, &body, a)) == GW_OK) {
        if (pair.bad) {
            return gw_fail(err, GW_INVALID, 0, "a bad %%-escape in the body");
        }
        if (!gw_str_eq_c(pair.key, key)) {
            continue;
        }
        if (found) {
            return gw_fail(err, GW_INVALID, 0, "\"%s\" is given twice", key);
        }
        found = true;
        *value = pair.value;
    }
    return rc == GW_NO_MEMORY ? no_memory(err) : GW_OK;
}

static int scalar_text(struct gw_str *value, const char *key, const struct gw_json *v,
                       struct gw_arena *a, struct gw_error *err)
{
    struct gw_buf b;

    if (v == NULL) {
        *value = GW_STR("");
        return GW_OK;
    }
    if (gw_json_is_object(v) || gw_json_is_array(v)) {
        return gw_fail(err, GW_INVALID, 0, "\"%s\" is not a text or a number", key);
    }
    if (gw_json_is_string(v)) {
        *value = gw_arena_dup(a, gw_json_string(v));
        return value->p != NULL ? GW_OK : no_memory(err);
    }
    gw_buf_init(&b, 64);
    gw_json_put_node(&b, v);
    *value = b.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    if (value->p == NULL) {
        return no_memory(err);
    }
    if (gw_str_eq_c(*value, "null")) {
        *value = GW_STR("");
    }
    return GW_OK;
}

static int json_field(struct gw_str *value, const char *key, struct gw_str body, struct gw_arena *a,
                      struct gw_error *err)
{
    struct gw_json *root;
    int rc = gw_json_parse(&root, body, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (gw_json_is_object(root)) {
        rc = scalar_text(value, key, gw_json_get(root, key), a, err);
    } else {
        rc = gw_fail(err, GW_INVALID, 0, "the body is not a JSON object");
    }
    gw_json_free(root);
    return rc;
}

int hub_field(struct gw_str *value, const char *key, struct gw_str content_type, struct gw_str body,
              struct gw_arena *a, struct gw_error *err)
{
    enum format format = format_of(content_type);
    struct gw_str found;
    int rc;

    if (format == NEITHER) {
        return neither(err);
    }
    if (body.n > GW_JSON_DOC_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "a body of more than %u bytes", GW_JSON_DOC_MAX);
    }
    rc = format == FORM ? form_field(&found, key, body, a, err)
                        : json_field(&found, key, body, a, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (!hub_text_ok(found)) {
        return gw_fail(err, GW_INVALID, 0, "\"%s\": a character that is not allowed there", key);
    }
    *value = found;
    return GW_OK;
}
