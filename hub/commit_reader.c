/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/commit_reader.c - the body of a commit: one JSON object a line (application/x-ndjson).
 *
 * A line is {"key": ..., "value": {...}}. Members may come in any order, so a line is collected and
 * handed on at its end. The keys are a table; one that is not in it is an error, because what is
 * passed over in silence is a commit that says it succeeded (hub-write 7).
 */
#include "hub/hub_internal.h"

#include "base/alloc.h"
#include "base/encode.h"
#include "base/json.h"

#define TEXT_MAX (64u << 10) /* of every member but content */
#define VALUE_DEPTH 2u

enum member {
    PATH,
    CONTENT,
    ENCODING,
    ALGO,
    OID,
    SIZE,
    SUMMARY,
    DESCRIPTION,
    PARENT,
    OLD_PATH,
    MEMBERS,
    OTHER
};

static const char *const members[MEMBERS] = {"path",         "content", "encoding", "algo",
                                             "oid",          "size",    "summary",  "description",
                                             "parentCommit", "oldPath"};

struct hub_commit_reader {
    const struct hub_commit_sink *sink;
    void *ctx;
    struct gw_json_reader *json; /* of all lines: its memory is too much to be made for each */
    bool in_line;
    struct gw_error error; /* of a callback */
    unsigned long line;
    size_t line_bytes;
    bool header_seen;
    /* the line */
    enum member member;
    bool in_key, key_seen;
    struct gw_buf key;
    struct gw_buf text[MEMBERS];
    bool set[MEMBERS];
    char *decoded; /* HUB_COMMIT_LINE_MAX, made when it is needed */
};

static int bad(struct hub_commit_reader *r, const char *what)
{
    return gw_fail(&r->error, GW_INVALID, 0, "line %lu of the commit: %s", r->line, what);
}

/* ---- one line's JSON ---- */

static enum member member_of(struct gw_str name)
{
    for (int i = 0; i < MEMBERS; i++) {
        if (gw_str_eq_c(name, members[i])) {
            return (enum member)i;
        }
    }
    return OTHER;
}

static int on_value(struct hub_commit_reader *r, struct gw_str text)
{
    if (r->member == OTHER) {
        return GW_OK; /* a member that a later client adds to a key we know */
    }
    if (r->set[r->member]) {
        return bad(r, "a member that is there twice");
    }
    gw_buf_add(&r->text[r->member], text);
    r->set[r->member] = true;
    return r->text[r->member].failed
               ? gw_fail(&r->error, GW_TOO_LARGE, 0, "line %lu of the commit: %s is too long",
                         r->line, members[r->member])
               : GW_OK;
}

static int on_event(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct hub_commit_reader *r = ctx;

    if (depth == 0 && ev != GW_JSON_OBJECT_BEGIN && ev != GW_JSON_OBJECT_END) {
        return bad(r, "not a JSON object");
    }
    if (ev == GW_JSON_KEY && depth == 1) {
        r->in_key = gw_str_eq_c(text, "key");
        return GW_OK;
    }
    if (ev == GW_JSON_STRING && depth == 1 && r->in_key) {
        if (r->key_seen) {
            return bad(r, "\"key\" is there twice");
        }
        r->key_seen = true;
        gw_buf_add(&r->key, text);
        return GW_OK;
    }
    if (ev == GW_JSON_KEY && depth == VALUE_DEPTH) {
        r->member = member_of(text);
        return GW_OK;
    }
    if (depth == VALUE_DEPTH && (ev == GW_JSON_STRING || ev == GW_JSON_NUMBER)) {
        return on_value(r, text);
    }
    return GW_OK; /* null is as if it were not there */
}

/* ---- what a line says ---- */

static struct gw_str text_of(const struct hub_commit_reader *r, enum member m)
{
    return r->set[m] ? gw_buf_str(&r->text[m]) : GW_STR("");
}

static int do_header(struct hub_commit_reader *r)
{
    if (r->header_seen) {
        return bad(r, "a second header");
    }
    r->header_seen = true;
    return r->sink->header(r->ctx, text_of(r, SUMMARY), text_of(r, DESCRIPTION), text_of(r, PARENT),
                           &r->error);
}

static int do_file(struct hub_commit_reader *r)
{
    struct gw_str content = text_of(r, CONTENT), encoding = text_of(r, ENCODING);
    size_t n;

    if (!r->set[CONTENT]) {
        return bad(r, "a file without content");
    }
    if (encoding.n == 0 || gw_str_eq_c(encoding, "utf-8")) { /* huggingface.js's types name it */
        return r->sink->file(r->ctx, text_of(r, PATH), content, &r->error);
    }
    if (!gw_str_eq_c(encoding, "base64")) {
        return bad(r, "an encoding that is neither base64 nor utf-8");
    }
    if (r->decoded == NULL) {
        r->decoded = gw_realloc(NULL, HUB_COMMIT_LINE_MAX); /* not cleared: large */
    }
    if (r->decoded == NULL) {
        return gw_fail(&r->error, GW_NO_MEMORY, 0, "no memory for a commit");
    }
    if (!gw_base64_decode(content, r->decoded, HUB_COMMIT_LINE_MAX, &n)) {
        return bad(r, "content that is no base64");
    }
    return r->sink->file(r->ctx, text_of(r, PATH), (struct gw_str){r->decoded, n}, &r->error);
}

static int do_object(struct hub_commit_reader *r)
{
    struct gw_str algo = text_of(r, ALGO);
    uint64_t size = UINT64_MAX;

    if (algo.n != 0 && !gw_str_eq_c(algo, "sha256")) {
        return bad(r, "an algo that is not sha256");
    }
    if (r->set[SIZE] && (!gw_str_u64(text_of(r, SIZE), &size) || size > INT64_MAX)) {
        return bad(r, "a size that is no number of bytes");
    }
    return r->sink->object(r->ctx, text_of(r, PATH), text_of(r, OID), size, &r->error);
}

static int do_remove_file(struct hub_commit_reader *r)
{
    return r->sink->remove(r->ctx, text_of(r, PATH), false, &r->error);
}

static int do_remove_folder(struct hub_commit_reader *r)
{
    return r->sink->remove(r->ctx, text_of(r, PATH), true, &r->error);
}

static const struct {
    const char *key;
    int (*run)(struct hub_commit_reader *r);
} keys[] = {
    {"header", do_header},
    {"file", do_file},
    {"lfsFile", do_object},
    {"deletedFile", do_remove_file},
    {"deletedFolder", do_remove_folder},
};

static int run_line(struct hub_commit_reader *r)
{
    struct gw_str key = gw_buf_str(&r->key);

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (!gw_str_eq_c(key, keys[i].key)) {
            continue;
        }
        if (i != 0 && !r->header_seen) {
            return bad(r, "the first line has to be the header");
        }
        if (i != 0 && !r->set[PATH]) {
            return bad(r, "no path");
        }
        if (r->set[OLD_PATH]) {
            return bad(r, "\"oldPath\" (renaming in a commit) is not known here");
        }
        return keys[i].run(r);
    }
    return gw_fail(&r->error, GW_INVALID, 0, "line %lu of the commit: unknown key \"%.40s\"",
                   r->line, key.n != 0 && gw_utf8_valid(key) ? r->key.p : "");
}

/* ---- lines ---- */

static void begin_line(struct hub_commit_reader *r)
{
    gw_json_reader_again(r->json);
    r->in_line = true;
    r->line++;
    r->line_bytes = 0;
    r->member = OTHER;
    r->in_key = r->key_seen = false;
    gw_buf_reset(&r->key);
    for (int i = 0; i < MEMBERS; i++) {
        gw_buf_reset(&r->text[i]);
        r->set[i] = false;
    }
}

/* The reader's own error when it has one (a callback, ours), else the JSON parser's. */
static int line_failed(struct hub_commit_reader *r, int rc, const struct gw_error *json,
                       struct gw_error *err)
{
    if (r->error.status == GW_OK) {
        return gw_fail(err, (enum gw_status)rc, 0, "line %lu of the commit: %s", r->line,
                       json->text);
    }
    if (err != NULL) {
        *err = r->error;
    }
    return rc;
}

static int end_line(struct hub_commit_reader *r, struct gw_error *err)
{
    struct gw_error json = {0};
    int rc = gw_json_reader_finish(r->json, &json);

    r->in_line = false;
    if (rc != GW_OK) {
        return line_failed(r, rc, &json, err);
    }
    rc = run_line(r);
    if (rc != GW_OK && err != NULL) {
        *err = r->error;
    }
    return rc;
}

static bool is_blank(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != ' ' && s.p[i] != '\t' && s.p[i] != '\r') {
            return false;
        }
    }
    return true;
}

static int feed_line(struct hub_commit_reader *r, struct gw_str bytes, struct gw_error *err)
{
    struct gw_error json = {0};
    int rc;

    if (!r->in_line) {
        if (is_blank(bytes)) {
            return GW_OK;
        }
        begin_line(r);
    }
    r->line_bytes += bytes.n;
    if (r->line_bytes > HUB_COMMIT_LINE_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0,
                       "line %lu of the commit has more than %u MiB: files over 10 MiB have to be "
                       "uploaded as large objects",
                       r->line, HUB_COMMIT_LINE_MAX >> 20);
    }
    rc = gw_json_reader_feed(r->json, bytes, &json);
    return rc != GW_OK ? line_failed(r, rc, &json, err) : GW_OK;
}

int hub_commit_reader_feed(struct hub_commit_reader *r, struct gw_str bytes, struct gw_error *err)
{
    while (bytes.n != 0) {
        const char *newline = memchr(bytes.p, '\n', bytes.n);
        size_t n = newline != NULL ? (size_t)(newline - bytes.p) : bytes.n;
        int rc = feed_line(r, gw_str_sub(bytes, 0, n), err);

        if (rc == GW_OK && newline != NULL && r->in_line) {
            rc = end_line(r, err);
        }
        if (rc != GW_OK) {
            return rc;
        }
        bytes = gw_str_sub(bytes, n + (newline != NULL), bytes.n);
    }
    return GW_OK;
}

int hub_commit_reader_finish(struct hub_commit_reader *r, struct gw_error *err)
{
    int rc = r->in_line ? end_line(r, err) : GW_OK; /* huggingface.js: no newline at the end */

    if (rc == GW_OK && !r->header_seen) {
        rc = gw_fail(err, GW_INVALID, 0, "the commit has no header");
    }
    return rc;
}

struct hub_commit_reader *hub_commit_reader_new(const struct hub_commit_sink *sink, void *ctx)
{
    struct hub_commit_reader *r = gw_alloc(sizeof(*r));

    if (r == NULL) {
        return NULL;
    }
    r->json = gw_json_reader_new(HUB_COMMIT_LINE_MAX, on_event, r);
    if (r->json == NULL) {
        gw_free(r);
        return NULL;
    }
    r->sink = sink;
    r->ctx = ctx;
    gw_buf_init(&r->key, 256);
    for (int i = 0; i < MEMBERS; i++) {
        gw_buf_init(&r->text[i], i == CONTENT ? HUB_COMMIT_LINE_MAX : TEXT_MAX);
    }
    return r;
}

void hub_commit_reader_free(struct hub_commit_reader *r)
{
    if (r == NULL) {
        return;
    }
    gw_json_reader_free(r->json);
    gw_buf_release(&r->key);
    for (int i = 0; i < MEMBERS; i++) {
        gw_buf_release(&r->text[i]);
    }
    gw_free(r->decoded);
    gw_free(r);
}
