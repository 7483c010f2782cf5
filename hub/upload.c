/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/upload.c - what clients ask before and while they send large objects: preupload, and git-lfs
 * batch. What they do with the answers, and break on, is in docs/clients.md.
 */
#include "hub/hub_internal.h"

#include "base/encode.h"
#include "base/json.h"

#define TEXT_MAX (1u << 20) /* .gitignore, .gitattributes; a sample is far below */
#define SAMPLE_MAX 1024u

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a request body");
}

/* ---- preupload ---- */

struct preupload {
    struct hub_preupload *out;
    struct gw_arena *a;
    struct gw_error error;
    enum { NO_TOP, FILES, IGNORE, ATTRIBUTES } top;
    enum { NO_MEMBER, PATH, SIZE, SAMPLE } member;
    struct hub_preupload_file file;
    bool has_path, has_size;
};

static int failed(struct preupload *s, enum gw_status status, const char *what)
{
    return gw_fail(&s->error, status, 0, "preupload: %s", what);
}

static int keep(struct preupload *s, struct gw_str *to, struct gw_str text)
{
    *to = gw_arena_dup(s->a, text);
    return to->p != NULL ? GW_OK : no_memory(&s->error);
}

static int keep_sample(struct preupload *s, struct gw_str text)
{
    char bytes[SAMPLE_MAX];
    size_t n;

    /* it is a hint: one that is longer, or no base64, is as if it were not there */
    if (!gw_base64_decode(text, bytes, sizeof(bytes), &n)) {
        return GW_OK;
    }
    return keep(s, &s->file.sample, (struct gw_str){bytes, n});
}

static int end_file(struct preupload *s)
{
    struct hub_preupload *out = s->out;

    if (!s->has_path || !s->has_size) {
        return failed(s, GW_INVALID, "a file without path or size");
    }
    if (out->n == HUB_PREUPLOAD_MAX) {
        return failed(s, GW_TOO_LARGE, "more than 1,000 files in one call");
    }
    out->files[out->n++] = s->file;
    return GW_OK;
}

static int on_top(struct preupload *s, enum gw_json_event ev, struct gw_str text)
{
    if (ev == GW_JSON_KEY) {
        s->top = gw_str_eq_c(text, "files")           ? FILES
                 : gw_str_eq_c(text, "gitIgnore")     ? IGNORE
                 : gw_str_eq_c(text, "gitAttributes") ? ATTRIBUTES
                                                      : NO_TOP;
        return GW_OK;
    }
    if (ev != GW_JSON_STRING || (s->top != IGNORE && s->top != ATTRIBUTES)) {
        return GW_OK;
    }
    return keep(s, s->top == IGNORE ? &s->out->ignore : &s->out->attributes, text);
}

static int on_file(struct preupload *s, enum gw_json_event ev, struct gw_str text)
{
    if (ev == GW_JSON_KEY) {
        s->member = gw_str_eq_c(text, "path")     ? PATH
                    : gw_str_eq_c(text, "size")   ? SIZE
                    : gw_str_eq_c(text, "sample") ? SAMPLE
                                                  : NO_MEMBER;
        return GW_OK;
    }
    if (ev == GW_JSON_STRING && s->member == PATH) {
        s->has_path = true;
        return text.n <= HUB_PATH_MAX ? keep(s, &s->file.path, text)
                                      : failed(s, GW_TOO_LARGE, "a path of more than 4,096 bytes");
    }
    if (ev == GW_JSON_NUMBER && s->member == SIZE) {
        s->has_size = gw_str_u64(text, &s->file.size) && s->file.size <= INT64_MAX;
        return s->has_size ? GW_OK : failed(s, GW_INVALID, "a size that is no number of bytes");
    }
    return ev == GW_JSON_STRING && s->member == SAMPLE ? keep_sample(s, text) : GW_OK;
}

/* {"files": [{"path", "size", "sample"}], "gitIgnore", "gitAttributes"} */
static int on_preupload(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct preupload *s = ctx;

    if (depth == 0) {
        return ev == GW_JSON_OBJECT_BEGIN || ev == GW_JSON_OBJECT_END
                   ? GW_OK
                   : failed(s, GW_INVALID, "not a JSON object");
    }
    if (depth == 1) {
        return on_top(s, ev, text);
    }
    if (s->top != FILES) {
        return GW_OK; /* what a later client adds */
    }
    if (depth == 2 && ev == GW_JSON_OBJECT_BEGIN) {
        s->file = (struct hub_preupload_file){.path = GW_STR(""), .sample = GW_STR("")};
        s->has_path = s->has_size = false;
        return GW_OK;
    }
    if (depth == 2) {
        return ev == GW_JSON_OBJECT_END ? end_file(s)
                                        : failed(s, GW_INVALID, "\"files\" is a list of objects");
    }
    return depth == 3 ? on_file(s, ev, text) : GW_OK;
}

int hub_preupload_parse(struct hub_preupload *out, struct gw_str body, struct gw_arena *a,
                        struct gw_error *err)
{
    struct preupload s = {.out = out, .a = a};
    struct gw_json_reader *json;
    int rc;

    *out =
        (struct hub_preupload){.files = gw_arena_alloc(a, HUB_PREUPLOAD_MAX * sizeof(*out->files))};
    json = gw_json_reader_new(TEXT_MAX, on_preupload, &s);
    if (out->files == NULL || json == NULL) {
        gw_json_reader_free(json);
        return no_memory(err);
    }
    rc = gw_json_reader_feed(json, body, err);
    if (rc == GW_OK) {
        rc = gw_json_reader_finish(json, err);
    }
    gw_json_reader_free(json);
    if (rc != GW_OK && s.error.status != GW_OK && err != NULL) {
        *err = s.error;
    }
    return rc;
}

void hub_put_preupload(struct gw_buf *out, struct gw_str path, bool lfs, bool ignore,
                       struct gw_str oid)
{
    gw_json_put_comma(out);
    gw_buf_add_c(out, "{");
    gw_json_put_key(out, "path");
    gw_json_put_string(out, path);
    gw_json_put_key(out, "uploadMode");
    gw_buf_add_c(out, lfs ? "\"lfs\"" : "\"regular\"");
    gw_json_put_key(out, "shouldIgnore"); /* huggingface_hub indexes it */
    gw_buf_add_c(out, ignore ? "true" : "false");
    if (oid.n != 0) {
        gw_json_put_key(out, "oid");
        gw_json_put_string(out, oid);
    }
    gw_buf_add_c(out, "}");
}

/* ---- git-lfs batch ---- */

static int parse_objects(struct hub_batch *out, const struct gw_json *list, struct gw_arena *a,
                         struct gw_error *err)
{
    size_t n = gw_json_count(list);

    if (!gw_json_is_array(list)) {
        return gw_fail(err, GW_INVALID, 0, "batch: \"objects\" is no list");
    }
    if (n > HUB_BATCH_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "batch: more than %u objects", HUB_BATCH_MAX);
    }
    out->objects = gw_arena_alloc(a, (n + 1) * sizeof(*out->objects));
    if (out->objects == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < n; i++) {
        const struct gw_json *o = gw_json_at(list, i);
        struct gw_str oid = gw_json_string(gw_json_get(o, "oid"));
        int64_t size;

        if (!gw_is_hex_lower(oid, 64) || !gw_json_int(gw_json_get(o, "size"), &size) || size < 0) {
            return gw_fail(err, GW_INVALID, 0,
                           "batch: an object is an oid (sha256, lower-case hex) and a size");
        }
        memcpy(out->objects[i].oid, oid.p, 64);
        out->objects[i].oid[64] = '\0';
        out->objects[i].size = (uint64_t)size;
    }
    out->n = n;
    return GW_OK;
}

static int parse_batch(struct hub_batch *out, const struct gw_json *root, struct gw_arena *a,
                       struct gw_error *err)
{
    struct gw_str operation = gw_json_string(gw_json_get(root, "operation"));
    struct gw_str hash = gw_json_string(gw_json_get(root, "hash_algo"));
    const struct gw_json *transfers = gw_json_get(root, "transfers");

    *out = (struct hub_batch){.upload = gw_str_eq_c(operation, "upload")};
    if (!out->upload && !gw_str_eq_c(operation, "download")) {
        return gw_fail(err, GW_INVALID, 0, "batch: the operation is upload or download");
    }
    /* huggingface.js says sha_256 */
    if (hash.n != 0 && !gw_str_eq_c(hash, "sha256") && !gw_str_eq_c(hash, "sha_256")) {
        return gw_fail(err, GW_INVALID, 0, "batch: objects are named by their sha256 here");
    }
    for (size_t i = 0; i < gw_json_count(transfers); i++) {
        out->multipart =
            out->multipart || gw_str_eq_c(gw_json_string(gw_json_at(transfers, i)), "multipart");
    }
    out->ref = gw_arena_dup(a, gw_json_string(gw_json_get(gw_json_get(root, "ref"), "name")));
    if (out->ref.p == NULL) {
        return no_memory(err);
    }
    return parse_objects(out, gw_json_get(root, "objects"), a, err);
}

int hub_batch_parse(struct hub_batch *out, struct gw_str body, struct gw_arena *a,
                    struct gw_error *err)
{
    struct gw_json *root;
    int rc = gw_json_parse(&root, body, err);

    if (rc == GW_OK) {
        rc = parse_batch(out, root, a, err);
        gw_json_free(root);
    }
    return rc;
}

static int check_parts(const struct gw_json *root, struct gw_str sha256, uint64_t n_parts,
                       struct gw_error *err)
{
    const struct gw_json *parts = gw_json_get(root, "parts");
    bool named[HUB_PARTS_MAX] = {false};

    if (!gw_str_eq(gw_json_string(gw_json_get(root, "oid")), sha256)) {
        return gw_fail(err, GW_INVALID, 0, "\"oid\" is not that of this upload");
    }
    for (size_t i = 0; i < gw_json_count(parts); i++) {
        int64_t number;

        if (!gw_json_int(gw_json_get(gw_json_at(parts, i), "partNumber"), &number) || number < 1 ||
            (uint64_t)number > n_parts || named[number - 1]) {
            return gw_fail(err, GW_INVALID, 0, "\"partNumber\" is each number from 1 to %llu, once",
                           (unsigned long long)n_parts);
        }
        named[number - 1] = true;
    }
    for (uint64_t i = 0; i < n_parts; i++) {
        if (!named[i]) {
            return gw_fail(err, GW_INVALID, 0, "part %llu is not named", (unsigned long long)i + 1);
        }
    }
    return GW_OK;
}

int hub_complete_check(struct gw_str body, struct gw_str sha256, uint64_t n_parts,
                       struct gw_error *err)
{
    struct gw_json *root;
    int rc = n_parts <= HUB_PARTS_MAX ? gw_json_parse(&root, body, err)
                                      : gw_fail(err, GW_INVALID, 0, "too many parts");

    if (rc == GW_OK) {
        rc = check_parts(root, sha256, n_parts, err);
        gw_json_free(root);
    }
    return rc;
}

void hub_batch_begin(struct gw_buf *out, bool multipart)
{
    gw_buf_addf(out, "{\"transfer\":\"%s\",\"objects\":[", multipart ? "multipart" : "basic");
}

void hub_batch_end(struct gw_buf *out)
{
    gw_buf_add_c(out, "],\"hash_algo\":\"sha256\"}");
}

static void put_action(struct gw_buf *out, struct gw_str name, struct gw_str href, int64_t expires)
{
    gw_json_put_comma(out);
    gw_json_put_string(out, name);
    gw_buf_add_c(out, ":{");
    gw_json_put_key(out, "href");
    gw_json_put_string(out, href);
    gw_buf_addf(out, ",\"expires_in\":%lld", (long long)expires);
}

/* `hf lfs-multipart-upload` takes every header but chunk_size as a part's URL, in this order. */
static void put_parts(struct gw_buf *out, const struct hub_batch_answer *a)
{
    gw_buf_add_c(out, ",\"header\":{");
    gw_json_put_key(out, "chunk_size");
    gw_json_put_string(out, a->chunk_size);
    for (size_t i = 0; i < a->n_parts; i++) {
        gw_buf_addf(out, ",\"%05zu\":", i + 1);
        gw_json_put_string(out, a->parts[i]);
    }
    gw_buf_add_c(out, "}");
}

void hub_put_batch(struct gw_buf *out, const struct hub_batch_answer *a)
{
    gw_json_put_comma(out);
    gw_buf_addf(out, "{\"oid\":\"%s\",\"size\":%llu", a->object->oid,
                (unsigned long long)a->object->size);
    if (a->error != 0) {
        gw_buf_addf(out, ",\"error\":{\"code\":%d,\"message\":", a->error);
        gw_json_put_string(out, a->message);
        gw_buf_add_c(out, "}");
    } else if (a->href.n != 0) { /* else no "actions" at all: a null one ends the Python clients */
        gw_buf_add_c(out, ",\"actions\":{");
        put_action(out, a->action, a->href, a->expires_in_s);
        if (a->n_parts != 0) {
            put_parts(out, a);
        }
        gw_buf_add_c(out, "}");
        if (a->verify_href.n != 0) {
            put_action(out, GW_STR("verify"), a->verify_href, a->expires_in_s);
            gw_buf_add_c(out, "}");
        }
        gw_buf_add_c(out, "}");
    }
    gw_buf_add_c(out, "}");
}

/* ---- the answer to a commit ---- */

void hub_put_committed(struct gw_buf *out, struct gw_str commit, struct gw_str commit_url,
                       struct gw_str pull_url)
{
    gw_buf_add_c(out, "{\"success\":true");
    gw_json_put_key(out, "commitOid");
    gw_json_put_string(out, commit);
    gw_json_put_key(out, "commitUrl");
    gw_json_put_string(out, commit_url);
    gw_buf_add_c(out, ",\"hookOutput\":\"\"");
    gw_json_put_key(out, "pullRequestUrl");
    if (pull_url.n != 0) {
        gw_json_put_string(out, pull_url);
    } else {
        gw_buf_add_c(out, "null");
    }
    gw_buf_add_c(out, "}");
}
