/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/list_reader.c - a tree or paths-info answer of any length, one entry at a time.
 *
 * While an entry's events pass, its compact text grows in `json` and what we need of it is
 * captured; at its end both are handed out and forgotten. So memory is bounded by one entry,
 * whatever the page (the Hub has sent 50,000).
 */
#include "hub/hub_internal.h"

#include "base/alloc.h"
#include "base/encode.h"

#define ENTRY_MAX (64u << 10) /* bytes of one entry's JSON, as we send it */

/* Members we capture. */
enum field {
    NOTHING,
    TYPE,
    OID,
    SIZE,
    PATH,
    XET_HASH,
    LFS,
    LFS_OID,
    LFS_SIZE,
    LFS_POINTER_SIZE,
};

struct hub_list_reader {
    struct gw_json_reader *json_reader;
    hub_on_entry on;
    void *ctx;
    struct gw_error error;
    struct hub_rewriter rewriter;
    struct gw_buf json;

    /* the entry under way */
    enum field field;
    bool in_lfs;
    enum { NO_TYPE, FILE_TYPE, DIRECTORY_TYPE, OTHER_TYPE } type;
    bool has_size, has_lfs_size, has_pointer_size;
    uint64_t size, lfs_size;
    struct hub_entry entry;
    char xet[64];
    struct gw_buf path;
};

static int invalid(struct hub_list_reader *r, const char *what)
{
    return gw_fail(&r->error, GW_INVALID, 0, "upstream's list of files: %s", what);
}

/* ---- captures ---- */

static enum field field_of(const struct hub_list_reader *r, struct gw_str key)
{
    static const struct {
        const char *key;
        bool in_lfs;
        enum field field;
    } fields[] = {
        {"type", false, TYPE},        {"oid", false, OID},
        {"size", false, SIZE},        {"path", false, PATH},
        {"xetHash", false, XET_HASH}, {"lfs", false, LFS},
        {"oid", true, LFS_OID},       {"sha256", true, LFS_OID}, /* as in info documents */
        {"size", true, LFS_SIZE},     {"pointerSize", true, LFS_POINTER_SIZE},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (fields[i].in_lfs == r->in_lfs && gw_str_eq_c(key, fields[i].key)) {
            return fields[i].field;
        }
    }
    return NOTHING;
}

static int take_digest(struct hub_list_reader *r, char *to, size_t digits, enum gw_json_event ev,
                       struct gw_str text)
{
    if (ev != GW_JSON_STRING || !gw_hex_lower(to, text, digits)) {
        return invalid(r, "an oid that is no digest");
    }
    to[digits] = '\0';
    return GW_OK;
}

static int take_number(struct hub_list_reader *r, uint64_t *to, enum gw_json_event ev,
                       struct gw_str text)
{
    if (ev != GW_JSON_NUMBER || !gw_str_u64(text, to) || *to > INT64_MAX) {
        return invalid(r, "a size that is no whole number, or none of a file");
    }
    return GW_OK;
}

static int take_path(struct hub_list_reader *r, enum gw_json_event ev, struct gw_str text)
{
    if (ev != GW_JSON_STRING || !hub_path_safe(text)) {
        return invalid(r, "a path with \"..\", a control character or over its ceiling");
    }
    gw_buf_reset(&r->path);
    gw_buf_add(&r->path, text);
    return r->path.failed ? gw_fail(&r->error, GW_NO_MEMORY, 0, "no memory for a path") : GW_OK;
}

static int capture(struct hub_list_reader *r, enum gw_json_event ev, struct gw_str text)
{
    uint64_t number;
    int rc;

    switch (r->field) {
    case TYPE:
        r->type = ev != GW_JSON_STRING             ? OTHER_TYPE
                  : gw_str_eq_c(text, "file")      ? FILE_TYPE
                  : gw_str_eq_c(text, "directory") ? DIRECTORY_TYPE
                                                   : OTHER_TYPE;
        return GW_OK;
    case OID:
        return take_digest(r, r->entry.oid, 40, ev, text);
    case SIZE:
        r->has_size = true;
        return take_number(r, &r->size, ev, text);
    case PATH:
        return take_path(r, ev, text);
    case XET_HASH: /* 64 '*' for gated repos */
        r->entry.xet = GW_STR("");
        if (ev == GW_JSON_STRING && gw_is_hex_lower(text, 64)) {
            memcpy(r->xet, text.p, 64);
            r->entry.xet = (struct gw_str){r->xet, 64};
        }
        return GW_OK;
    case LFS_OID:
        return take_digest(r, r->entry.sha256, 64, ev, text);
    case LFS_SIZE:
        r->has_lfs_size = true;
        return take_number(r, &r->lfs_size, ev, text);
    case LFS_POINTER_SIZE:
        rc = take_number(r, &number, ev, text);
        if (rc != GW_OK || number > UINT32_MAX) {
            return rc != GW_OK ? rc : invalid(r, "a pointer of more than 4 GiB");
        }
        r->has_pointer_size = true;
        r->entry.pointer_size = (uint32_t)number;
        return GW_OK;
    case LFS: /* null, or no object */
        r->entry.lfs = false;
        return GW_OK;
    case NOTHING:
        return GW_OK;
    }
    return GW_OK;
}

/* ---- entries ---- */

static void begin_entry(struct hub_list_reader *r)
{
    gw_buf_reset(&r->json);
    gw_buf_reset(&r->path);
    r->entry = (struct hub_entry){.xet = GW_STR("")};
    r->field = NOTHING;
    r->in_lfs = false;
    r->type = NO_TYPE;
    r->has_size = r->has_lfs_size = r->has_pointer_size = false;
    r->size = r->lfs_size = 0;
}

/* What git-lfs writes: version, "oid sha256:" and "size", one line each. */
static uint32_t pointer_size_of(uint64_t size)
{
    uint32_t n = 125;

    do {
        n++;
        size /= 10;
    } while (size != 0);
    return n;
}

static int end_entry(struct hub_list_reader *r)
{
    struct hub_entry *e = &r->entry;
    int rc;

    if (r->type == OTHER_TYPE) {
        return GW_OK; /* "unknown" (a submodule) has no bytes, and hf-hub 1.0 refuses the whole list
                         for it */
    }
    if (r->type == NO_TYPE || r->path.n == 0 || e->oid[0] == '\0') {
        return invalid(r, "an entry without type, path or oid");
    }
    e->directory = r->type == DIRECTORY_TYPE;
    e->path = gw_buf_str(&r->path);
    if (e->directory) {
        e->lfs = false;
        e->xet = GW_STR("");
    } else if (!r->has_size && !r->has_lfs_size) {
        return invalid(r, "a file without a size");
    }
    if (e->lfs && e->sha256[0] == '\0') {
        return invalid(r, "an LFS file without its sha256");
    }
    e->size = e->lfs && r->has_lfs_size ? r->lfs_size : r->size;
    if (e->lfs && !r->has_pointer_size) {
        e->pointer_size = pointer_size_of(e->size);
    }
    rc = r->on(r->ctx, e, gw_buf_str(&r->json));
    return rc == GW_OK ? GW_OK : gw_fail(&r->error, (enum gw_status)rc, 0, "stopped by its reader");
}

static int on_event(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct hub_list_reader *r = ctx;
    int rc = GW_OK;

    if (depth == 0) {
        return ev == GW_JSON_ARRAY_BEGIN || ev == GW_JSON_ARRAY_END ? GW_OK
                                                                    : invalid(r, "not an array");
    }
    if (depth == 1) {
        if (ev != GW_JSON_OBJECT_BEGIN && ev != GW_JSON_OBJECT_END) {
            return invalid(r, "an item that is no object");
        }
        if (ev == GW_JSON_OBJECT_BEGIN) {
            begin_entry(r);
        }
    } else if (depth == 2) {
        if (ev == GW_JSON_KEY) {
            r->field = field_of(r, text);
        } else if (r->field == LFS && ev == GW_JSON_OBJECT_BEGIN) {
            r->in_lfs = r->entry.lfs = true;
        } else if (r->in_lfs && ev == GW_JSON_OBJECT_END) {
            r->in_lfs = false;
        } else {
            rc = capture(r, ev, text);
        }
    } else if (depth == 3 && r->in_lfs) {
        if (ev == GW_JSON_KEY) {
            r->field = field_of(r, text);
        } else {
            rc = capture(r, ev, text);
        }
    }
    if (rc != GW_OK) {
        return rc;
    }
    hub_rewrite(&r->rewriter, ev, text, depth);
    if (r->json.failed) {
        return gw_fail(&r->error, GW_TOO_LARGE, 0,
                       "upstream's list of files: an entry of more than %u bytes", ENTRY_MAX);
    }
    return depth == 1 && ev == GW_JSON_OBJECT_END ? end_entry(r) : GW_OK;
}

/* ---- the reader ---- */

struct hub_list_reader *hub_list_reader_new(hub_on_entry on, void *ctx)
{
    struct hub_list_reader *r = gw_alloc(sizeof(*r));

    if (r == NULL) {
        return NULL;
    }
    r->on = on;
    r->ctx = ctx;
    gw_buf_init(&r->json, ENTRY_MAX);
    gw_buf_init(&r->path, HUB_PATH_MAX);
    r->rewriter = (struct hub_rewriter){.out = &r->json, .base = 1};
    r->json_reader = gw_json_reader_new(ENTRY_MAX, on_event, r);
    if (r->json_reader == NULL) {
        gw_free(r);
        return NULL;
    }
    return r;
}

/* The parser knows that we stopped it, we know why. */
static int explain(const struct hub_list_reader *r, int rc, struct gw_error *err)
{
    if (rc != GW_OK && r->error.status != GW_OK && err != NULL) {
        *err = r->error;
    }
    return rc;
}

int hub_list_reader_feed(struct hub_list_reader *r, struct gw_str bytes, struct gw_error *err)
{
    return explain(r, gw_json_reader_feed(r->json_reader, bytes, err), err);
}

int hub_list_reader_finish(struct hub_list_reader *r, struct gw_error *err)
{
    return explain(r, gw_json_reader_finish(r->json_reader, err), err);
}

void hub_list_reader_free(struct hub_list_reader *r)
{
    if (r == NULL) {
        return;
    }
    gw_json_reader_free(r->json_reader);
    gw_buf_release(&r->json);
    gw_buf_release(&r->path);
    gw_free(r);
}
