/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/share_stream.c - nodes tell each other which records of data/ changed, by a stream in
 * Redis.
 *
 *   place: not known --first call--> the end --entries, each a removal from our index--> the end
 *                 ^------------- the stream begins anew, or its ids make no sense --------/
 *
 * What is lost here costs 30 s at most: records of data/ are read again after that. So nothing is
 * asked for twice, and a gap is only passed. The place is one word in shared memory: the
 * milliseconds of an id and, in the low bits, its number within them.
 */
#include "cache/cache_internal.h"
#include "cache/share_internal.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>

#define STREAM GW_STR("gw:s")
#define FIELD GW_STR("v")
#define STREAM_ENTRIES GW_STR("10000") /* about */
#define READ_ENTRIES GW_STR("500")
#define ENTRY_MAX (CACHE_NAME_MAX + SHARE_FRAME_BYTES)
#define REPLY_MAX (500u * 512u + 16u * ENTRY_MAX)
#define NUMBER_BITS 20u
#define BEFORE_ALL UINT64_C(1) /* "0-1": what was never told has no id below it */

static bool is_told(int kind)
{
    return kind == CACHE_TOKEN || kind == CACHE_SUBJECT || kind == CACHE_REF;
}

/* ---- ids ---- */

static bool place_of(struct gw_str id, uint64_t *place)
{
    struct gw_str ms_text;
    uint64_t ms, number;

    if (!gw_str_split(&id, '-', &ms_text) || id.p == NULL || !gw_str_u64(ms_text, &ms) ||
        !gw_str_u64(id, &number) || ms >> (64 - NUMBER_BITS) != 0 || number >> NUMBER_BITS != 0) {
        return false;
    }
    *place = ms << NUMBER_BITS | number;
    return *place != 0;
}

/* ---- telling ---- */

struct telling {
    struct gw_str frame;
};

static int add_entry(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct telling *t = ctx;
    struct redis_value *v;
    int rc;

    REDIS_SAY(s, GW_STR("XADD"), STREAM, GW_STR("MAXLEN"), GW_STR("~"), STREAM_ENTRIES, GW_STR("*"),
              FIELD, t->frame);
    rc = redis_read(s, &v, err);
    return rc != GW_OK || v->kind == REDIS_IS_TEXT
               ? rc
               : gw_fail(err, GW_UNAVAILABLE, 0, "redis: " GW_STR_FMT, GW_STR_ARG(v->text));
}

int cache_share_tell(struct cache *c, enum cache_kind kind, struct gw_str name, int64_t deadline_ms,
                     struct gw_error *err)
{
    struct share_value v = {.checked_ms = gw_wall_ms(), .bytes = name};
    struct telling t;
    struct gw_buf frame;
    int rc;

    if (!cache_share_on(c)) {
        return cache_share_off(err);
    }
    if (!is_told(kind) || name.n > CACHE_NAME_MAX) {
        return gw_fail(err, GW_INVALID, 0, "redis: not a change that is told");
    }
    gw_buf_init(&frame, ENTRY_MAX);
    share_encode(&frame, c->options.share.cluster_key, SHARE_TOLD, kind, GW_STR(""), &v);
    t.frame = gw_buf_str(&frame);
    rc = frame.failed ? gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory")
                      : redis_run(c, deadline_ms, REPLY_MAX, add_entry, &t, err);
    gw_buf_release(&frame);
    return rc;
}

/* ---- listening ---- */

struct listening {
    struct cache *c;
    bool foreign; /* it is no stream, too large, or its ids are not those of a clock */
};

/* [id, [field, value]] */
static bool read_entry(const struct redis_value *e, uint64_t *place, struct gw_str *frame)
{
    const struct redis_value *fields;

    if (e->kind != REDIS_IS_LIST || e->n != 2 || e->items[0]->kind != REDIS_IS_TEXT ||
        !place_of(e->items[0]->text, place)) {
        return false;
    }
    fields = e->items[1];
    *frame =
        fields->kind == REDIS_IS_LIST && fields->n == 2 && fields->items[1]->kind == REDIS_IS_TEXT
            ? fields->items[1]->text
            : GW_STR("");
    return true;
}

/* A damaged entry is counted and passed. */
static int hear(struct listening *l, struct gw_str frame, struct gw_error *err)
{
    int kind = frame.n > 5 ? (uint8_t)frame.p[5] : 0; /* what it says it is; the MAC holds it */
    struct share_value v;
    struct gw_error why;
    int rc = share_decode(&v, l->c->options.share.cluster_key, SHARE_TOLD, kind, GW_STR(""), frame,
                          &why);

    if (rc == GW_OK && (!is_told(kind) || v.bytes.n > CACHE_NAME_MAX)) {
        rc = gw_fail(&why, GW_CORRUPT, 0, "a kind that is not told");
    }
    if (rc != GW_OK) {
        cache_share_reject(l->c, "told change", &why);
        return GW_OK;
    }
    return cache_remove(l->c, (enum cache_kind)kind, v.bytes, err);
}

/* Where the stream ends: the reply to XREVRANGE + - COUNT 1. */
static bool end_of(const struct redis_value *v, uint64_t *end)
{
    struct gw_str frame;

    *end = BEFORE_ALL;
    return v->kind == REDIS_IS_LIST && (v->n == 0 || read_entry(v->items[0], end, &frame));
}

/* The reply to XREAD: nil, or [[stream, entries]]. */
static int hear_all(struct listening *l, const struct redis_value *v, uint64_t *place,
                    struct gw_error *err)
{
    const struct redis_value *stream, *entries;
    struct gw_str frame;
    int rc = GW_OK;

    if (v->kind == REDIS_IS_NIL) {
        return GW_OK;
    }
    stream = v->kind == REDIS_IS_LIST && v->n == 1 ? v->items[0] : NULL;
    entries =
        stream != NULL && stream->kind == REDIS_IS_LIST && stream->n == 2 ? stream->items[1] : NULL;
    l->foreign = entries == NULL || entries->kind != REDIS_IS_LIST;
    for (size_t i = 0; rc == GW_OK && !l->foreign && i < entries->n; i++) {
        if (!read_entry(entries->items[i], place, &frame)) {
            l->foreign = true;
            break;
        }
        rc = hear(l, frame, err);
        if (rc == GW_OK) {
            atomic_store(&l->c->shared->share_heard, *place);
        }
    }
    return rc;
}

static int listen_once(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct listening *l = ctx;
    uint64_t place = atomic_load(&l->c->shared->share_heard), end;
    bool first = place == 0;
    struct redis_value *v;
    char id[48];
    int rc = GW_OK;

    l->foreign = false;
    if (!first) {
        snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, place >> NUMBER_BITS,
                 place & ((UINT64_C(1) << NUMBER_BITS) - 1));
        REDIS_SAY(s, GW_STR("XREAD"), GW_STR("COUNT"), READ_ENTRIES, GW_STR("STREAMS"), STREAM,
                  gw_str_c(id));
    }
    REDIS_SAY(s, GW_STR("XREVRANGE"), STREAM, GW_STR("+"), GW_STR("-"), GW_STR("COUNT"),
              GW_STR("1"));
    if (!first) {
        rc = redis_read(s, &v, err);
        rc = rc != GW_OK ? rc : hear_all(l, v, &place, err);
    }
    rc = rc != GW_OK ? rc : redis_read(s, &v, err);
    if (rc == GW_TOO_LARGE) {
        l->foreign = true;
        return GW_OK;
    }
    if (rc != GW_OK) {
        return rc;
    }
    l->foreign = l->foreign || !end_of(v, &end);
    if (!l->foreign && (first || end < place)) { /* the latter: flushed, or another server's */
        atomic_store(&l->c->shared->share_heard, end);
    }
    return GW_OK;
}

int cache_share_listen(struct cache *c, int64_t deadline_ms, struct gw_error *err)
{
    struct listening l = {.c = c};
    struct gw_error why;
    int rc;

    if (!cache_share_on(c)) {
        return cache_share_off(err);
    }
    rc = redis_run(c, deadline_ms, REPLY_MAX, listen_once, &l, err);
    if (rc != GW_OK || !l.foreign) {
        return rc;
    }
    /* none of us wrote it: it makes room for one that can be read */
    gw_fail(&why, GW_CORRUPT, 0, "not written by us; it begins anew");
    cache_share_reject(c, "stream", &why);
    atomic_store(&c->shared->share_heard, BEFORE_ALL);
    return redis_remove(c, STREAM, deadline_ms, err);
}
