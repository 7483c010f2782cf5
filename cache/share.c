/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/share.c - records and small blobs that nodes share through Redis.
 *
 * A get brings into the index (or blobs/) what another node put; a put shares what is held here.
 * Whatever is wrong with a value, it counts as missing, and the next put writes over it.
 */
#include "cache/cache_internal.h"
#include "cache/share_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"

#include <stdio.h>
#include <unistd.h>

#define REPLY_MAX (CACHE_SHARE_MAX + SHARE_FRAME_BYTES + 64u)
#define BATCH 100u               /* commands in one round trip, puts in one transaction */
#define BATCH_BYTES (1u << 20)   /* of values, likewise, or one more value */
#define AHEAD_MS 5000            /* clocks of nodes may differ by so much */
#define LIFE_FOREVER "604800000" /* ms: 7 days; what never changes is fetched again after them */
#define LIFE_MOVING "3600000"    /* 1 hour: upstream.stale_max, mostly */
#define LIFE_ABSENT "60000"      /* "there is none" is asked again soon */

bool cache_share_on(const struct cache *c)
{
    return c->redis != NULL;
}

int cache_share_off(struct gw_error *err)
{
    return gw_fail(err, GW_UNAVAILABLE, 0, "redis: no servers are named");
}

/* ---- records: get ---- */

static bool is_shared(enum cache_kind kind)
{
    return kind == CACHE_REF || kind == CACHE_FILE || kind == CACHE_DOCUMENT ||
           kind == CACHE_TREE || kind == CACHE_COMMIT;
}

struct getting {
    struct cache *c;
    const struct cache_share_name *names;
    size_t n;
    bool *found;
    struct cache_put puts[BATCH]; /* not in the index yet; values in the arena */
    size_t index[BATCH], n_puts;  /* which names */
    struct gw_arena arena;
    uint64_t hits, misses;
    const struct cache_share_name *oversized; /* met: the names behind it were not asked for */
};

static void begin_puts(struct getting *g)
{
    gw_arena_release(&g->arena);
    gw_arena_init(&g->arena, BATCH_BYTES + CACHE_SHARE_MAX + (64u << 10));
    g->n_puts = 0;
}

static int put_found(struct getting *g, struct gw_error *err)
{
    int rc = cache_put(g->c, g->puts, g->n_puts, err);

    for (size_t i = 0; i < g->n_puts; i++) {
        g->found[g->index[i]] = rc == GW_OK;
    }
    g->hits += rc == GW_OK ? g->n_puts : 0;
    begin_puts(g);
    return rc;
}

/* Is it worth more than what is held here? A replayed value is not. */
static bool is_newer(struct cache *c, const struct cache_share_name *name, int64_t checked_ms,
                     struct gw_arena *a)
{
    struct cache_record held;

    return cache_get(c, name->kind, name->name, a, &held) != GW_OK || held.checked_ms < checked_ms;
}

/* What Redis says of one name. */
static int take(struct getting *g, size_t i, const struct redis_value *v, struct gw_error *err)
{
    const struct cache_share_name *name = &g->names[i];
    int64_t now = gw_wall_ms();
    struct share_value value;
    struct cache_record *to;
    struct gw_arena held;
    struct gw_error why;
    bool newer;
    int rc;

    if (v->kind == REDIS_IS_NIL) {
        g->misses++;
        return GW_OK;
    }
    rc = v->kind == REDIS_IS_TEXT
             ? share_decode(&value, g->c->options.share.cluster_key, SHARE_RECORD, name->kind,
                            name->name, v->text, &why)
             : gw_fail(&why, GW_CORRUPT, 0, "a value of another type");
    if (rc == GW_OK && value.checked_ms > now + AHEAD_MS) {
        rc = gw_fail(&why, GW_CORRUPT, 0, "of the future: the clocks of the nodes differ");
    }
    if (rc != GW_OK) {
        cache_share_reject(g->c, "record", &why);
        g->misses++;
        return GW_OK;
    }
    gw_arena_init(&held, CACHE_RECORD_MAX + (64u << 10));
    newer = is_newer(g->c, name, value.checked_ms, &held);
    gw_arena_release(&held);
    if (!newer) {
        g->misses++;
        return GW_OK;
    }
    if (g->n_puts == BATCH || g->arena.used + value.bytes.n > BATCH_BYTES + CACHE_SHARE_MAX) {
        rc = put_found(g, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    g->puts[g->n_puts] = (struct cache_put){.kind = name->kind, .name = name->name};
    to = &g->puts[g->n_puts].record;
    to->status = (enum gw_status)value.status;
    to->detail = value.detail;
    to->checked_ms = value.checked_ms < now ? value.checked_ms : now;
    to->value = gw_arena_dup(&g->arena, value.bytes);
    if (to->value.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    }
    g->index[g->n_puts++] = i;
    return GW_OK;
}

static void say_get(struct redis_session *s, struct cache *c, enum share_purpose purpose, int kind,
                    struct gw_str name)
{
    char key[SHARE_KEY_BYTES + 1];

    share_key(key, c->options.share.cluster_key, purpose, kind, name);
    REDIS_SAY(s, GW_STR("GET"), (struct gw_str){key, SHARE_KEY_BYTES});
}

/* The names [from, to). A reply over the limit ends it: what is behind it is on that connection. */
static int get_batch(struct getting *g, struct redis_session *s, size_t from, size_t to,
                     struct gw_error *err)
{
    struct redis_value *v;
    int rc;

    for (size_t i = from; i < to; i++) {
        if (is_shared(g->names[i].kind)) {
            say_get(s, g->c, SHARE_RECORD, g->names[i].kind, g->names[i].name);
        }
    }
    for (size_t i = from; i < to; i++) {
        if (!is_shared(g->names[i].kind)) {
            continue;
        }
        rc = redis_read(s, &v, err);
        if (rc == GW_TOO_LARGE) {
            cache_share_reject(g->c, "record", err);
            g->oversized = &g->names[i];
            return GW_OK;
        }
        rc = rc != GW_OK ? rc : take(g, i, v, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    return GW_OK;
}

/* Of a value that costs a connection each time it is asked for. Failing is no failure. */
static void remove_value(struct cache *c, enum share_purpose purpose, int kind, struct gw_str name,
                         int64_t deadline_ms)
{
    char key[SHARE_KEY_BYTES + 1];
    struct gw_error err;
    int rc;

    share_key(key, c->options.share.cluster_key, purpose, kind, name);
    rc = redis_remove(c, (struct gw_str){key, SHARE_KEY_BYTES}, deadline_ms, &err);
    (void)rc;
}

static int get_all(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct getting *g = ctx;
    int rc = GW_OK;

    g->oversized = NULL;
    g->hits = g->misses = 0;
    begin_puts(g);
    for (size_t i = 0; i < g->n; i++) {
        g->found[i] = false;
    }
    for (size_t i = 0; rc == GW_OK && g->oversized == NULL && i < g->n; i += BATCH) {
        rc = get_batch(g, s, i, i + BATCH < g->n ? i + BATCH : g->n, err);
    }
    return rc == GW_OK ? put_found(g, err) : rc;
}

int cache_share_get(struct cache *c, const struct cache_share_name *names, size_t n, bool *found,
                    int64_t deadline_ms, struct gw_error *err)
{
    struct getting *g;
    int rc;

    for (size_t i = 0; i < n; i++) {
        found[i] = false;
    }
    if (!cache_share_on(c)) {
        return cache_share_off(err);
    }
    if (n > CACHE_SHARE_NAMES_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "redis: more than %u names", CACHE_SHARE_NAMES_MAX);
    }
    g = gw_alloc(sizeof(*g));
    if (g == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    }
    *g = (struct getting){.c = c, .names = names, .n = n, .found = found};
    rc = redis_run(c, deadline_ms, REPLY_MAX, get_all, g, err);
    if (rc == GW_OK && g->oversized != NULL) {
        remove_value(c, SHARE_RECORD, g->oversized->kind, g->oversized->name, deadline_ms);
    }
    atomic_fetch_add(&c->shared->counters.share_hits, g->hits);
    atomic_fetch_add(&c->shared->counters.share_misses, g->misses);
    gw_arena_release(&g->arena);
    gw_free(g);
    return rc;
}

/* ---- records: put ---- */

struct putting {
    struct cache *c;
    const struct cache_share_name *names;
    size_t n;
    struct gw_buf frame;
};

static const char *life_of(enum cache_kind kind, enum gw_status status)
{
    if (status != GW_OK) {
        return LIFE_ABSENT;
    }
    return kind == CACHE_REF || kind == CACHE_DOCUMENT ? LIFE_MOVING : LIFE_FOREVER;
}

static void say_set(struct redis_session *s, struct cache *c, enum share_purpose purpose, int kind,
                    struct gw_str name, struct gw_str frame, const char *life_ms)
{
    char key[SHARE_KEY_BYTES + 1];

    share_key(key, c->options.share.cluster_key, purpose, kind, name);
    REDIS_SAY(s, GW_STR("SET"), (struct gw_str){key, SHARE_KEY_BYTES}, frame, GW_STR("PX"),
              gw_str_c(life_ms));
}

/* One record, if it is held and small enough. *said goes up by the number of commands. */
static int say_record(struct putting *p, struct redis_session *s, size_t i, size_t *said,
                      struct gw_error *err)
{
    const struct cache_share_name *name = &p->names[i];
    struct cache_record r;
    struct share_value v;
    struct gw_arena a;
    int rc;

    gw_arena_init(&a, CACHE_RECORD_MAX + (64u << 10));
    rc = is_shared(name->kind) ? cache_get(p->c, name->kind, name->name, &a, &r) : GW_NOT_FOUND;
    if (rc == GW_OK && r.value.n <= CACHE_SHARE_MAX) {
        v = (struct share_value){.status = (int32_t)r.status,
                                 .detail = r.detail,
                                 .checked_ms = r.checked_ms,
                                 .bytes = r.value};
        gw_buf_reset(&p->frame);
        share_encode(&p->frame, p->c->options.share.cluster_key, SHARE_RECORD, name->kind,
                     name->name, &v);
        if (p->frame.failed) {
            rc = GW_NO_MEMORY;
        } else {
            say_set(s, p->c, SHARE_RECORD, name->kind, name->name, gw_buf_str(&p->frame),
                    life_of(name->kind, r.status));
            (*said)++;
        }
    }
    gw_arena_release(&a);
    return rc == GW_NO_MEMORY ? gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory") : GW_OK;
}

static int read_all(struct redis_session *s, size_t n, struct gw_error *err)
{
    struct redis_value *v;
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        rc = redis_read(s, &v, err);
    }
    return rc;
}

static int put_all(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct putting *p = ctx;
    size_t said = 0;
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < p->n; i++) {
        rc = say_record(p, s, i, &said, err);
        if (rc == GW_OK && (said == BATCH || redis_unsent(s) > BATCH_BYTES)) {
            rc = read_all(s, said, err);
            said = 0;
        }
    }
    return rc == GW_OK ? read_all(s, said, err) : rc;
}

int cache_share_put(struct cache *c, const struct cache_share_name *names, size_t n,
                    int64_t deadline_ms, struct gw_error *err)
{
    struct putting p = {.c = c, .names = names, .n = n};
    int rc;

    if (!cache_share_on(c)) {
        return cache_share_off(err);
    }
    if (n > CACHE_SHARE_NAMES_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "redis: more than %u names", CACHE_SHARE_NAMES_MAX);
    }
    gw_buf_init(&p.frame, CACHE_SHARE_MAX + SHARE_FRAME_BYTES);
    rc = redis_run(c, deadline_ms, REPLY_MAX, put_all, &p, err);
    gw_buf_release(&p.frame);
    return rc;
}

/* ---- small blobs ---- */

struct small {
    struct cache *c;
    struct gw_str digest;
    uint64_t size;
    struct gw_str frame;
    bool oversized;
};

static int get_blob(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct small *b = ctx;
    struct share_value value;
    struct redis_value *v;
    struct gw_error why;
    int rc;

    say_get(s, b->c, SHARE_BLOB, 0, b->digest);
    rc = redis_read(s, &v, err);
    if (rc == GW_TOO_LARGE) {
        cache_share_reject(b->c, "blob", err);
        b->oversized = true;
        return gw_fail(err, GW_NOT_FOUND, 0, "blob %.12s: not shared", b->digest.p);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (v->kind == REDIS_IS_NIL) {
        return gw_fail(err, GW_NOT_FOUND, 0, "blob %.12s: not shared", b->digest.p);
    }
    rc = v->kind == REDIS_IS_TEXT ? share_decode(&value, b->c->options.share.cluster_key,
                                                 SHARE_BLOB, 0, b->digest, v->text, &why)
                                  : gw_fail(&why, GW_CORRUPT, 0, "a value of another type");
    if (rc == GW_OK && value.bytes.n != b->size) {
        rc = gw_fail(&why, GW_CORRUPT, 0, "of another size");
    }
    if (rc == GW_OK) {
        rc = cache_blob_put(b->c, b->digest, value.bytes, &why);
    }
    if (rc == GW_CORRUPT) {
        cache_share_reject(b->c, "blob", &why);
        return gw_fail(err, GW_NOT_FOUND, 0, "blob %.12s: not shared", b->digest.p);
    }
    return rc == GW_OK ? GW_OK : gw_fail(err, why.status, why.sys, "%s", why.text);
}

int cache_share_blob_get(struct cache *c, struct gw_str digest, uint64_t size, int64_t deadline_ms,
                         struct gw_error *err)
{
    struct small b = {.c = c, .digest = digest, .size = size};
    int rc;

    if (!cache_share_on(c)) {
        return cache_share_off(err);
    }
    if (!cache_digest_valid(digest) || size > CACHE_SHARE_MAX) {
        return gw_fail(err, GW_NOT_FOUND, 0, "blob: not one that is shared");
    }
    rc = redis_run(c, deadline_ms, REPLY_MAX, get_blob, &b, err);
    if (b.oversized) {
        remove_value(c, SHARE_BLOB, 0, digest, deadline_ms);
    }
    if (rc == GW_OK) {
        atomic_fetch_add(&c->shared->counters.share_hits, 1);
    } else if (rc == GW_NOT_FOUND) {
        atomic_fetch_add(&c->shared->counters.share_misses, 1);
    }
    return rc;
}

static int put_blob(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct small *b = ctx;

    say_set(s, b->c, SHARE_BLOB, 0, b->digest, b->frame, LIFE_FOREVER);
    return read_all(s, 1, err);
}

/* The bytes of a blob that is held. */
static int read_blob(struct cache *c, struct gw_str digest, struct gw_str *out,
                     struct gw_error *err)
{
    uint64_t size;
    char *bytes;
    int fd, rc = cache_blob_open_proved(c, digest, &fd, &size, err);

    if (rc != GW_OK) {
        return rc;
    }
    bytes = size <= CACHE_SHARE_MAX ? gw_alloc((size_t)size) : NULL;
    if (bytes == NULL) {
        rc = size > CACHE_SHARE_MAX
                 ? gw_fail(err, GW_TOO_LARGE, 0, "blob %.12s: too large to be shared", digest.p)
                 : gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    } else {
        rc = gw_pread_all(fd, bytes, (size_t)size, 0, err);
    }
    close(fd);
    if (rc != GW_OK) {
        gw_free(bytes);
        return rc;
    }
    *out = (struct gw_str){bytes, (size_t)size};
    return GW_OK;
}

int cache_share_blob_put(struct cache *c, struct gw_str digest, int64_t deadline_ms,
                         struct gw_error *err)
{
    struct small b = {.c = c, .digest = digest};
    struct share_value v = {.status = GW_OK};
    struct gw_buf frame;
    int rc;

    if (!cache_share_on(c)) {
        return cache_share_off(err);
    }
    rc = read_blob(c, digest, &v.bytes, err);
    if (rc != GW_OK) {
        return rc;
    }
    gw_buf_init(&frame, CACHE_SHARE_MAX + SHARE_FRAME_BYTES);
    share_encode(&frame, c->options.share.cluster_key, SHARE_BLOB, 0, digest, &v);
    gw_free((void *)(uintptr_t)v.bytes.p);
    b.frame = gw_buf_str(&frame);
    rc = frame.failed ? gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory")
                      : redis_run(c, deadline_ms, REPLY_MAX, put_blob, &b, err);
    gw_buf_release(&frame);
    return rc;
}
