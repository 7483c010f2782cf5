/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/share_lease.c - at most one node does this: leases in Redis.
 *
 *   absent, expired, not to be trusted --take--> held by (fence, node_url) for life_ms --renew,
 * drop
 *
 * WATCH, GET, then MULTI ... EXEC, which does nothing when somebody was faster: no script, so the
 * ACL needs no EVAL. Fences come from one counter, which begins at the clock's microseconds when it
 * is not there: it never falls behind what was handed out before it was lost.
 */
#include "cache/cache_internal.h"
#include "cache/share_internal.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define FENCE_KEY GW_STR("gw:f")
#define FENCE_BYTES 8u
#define FENCE_TRIES 2u
#define TRIES 5u /* to be faster than others */
#define REPLY_MAX 4096u
#define LATE_MS                                                                                    \
    10000 /* clocks of nodes may differ by so much: an older end is a replayed value               \
           */

struct leasing {
    struct cache *c;
    struct gw_str name;
    uint64_t mine;
    int64_t life_ms;
    struct cache_lease *out;
    bool renew; /* what is not ours any more is not taken */
    char key[SHARE_KEY_BYTES + 1];
    bool oversized; /* what is there is so large that the connection is of no more use */
};

static struct gw_str key_of(const struct leasing *l)
{
    return (struct gw_str){l->key, SHARE_KEY_BYTES};
}

/* ---- the value: fence, node_url; checked_ms is its end ---- */

static void encode(struct gw_buf *out, const struct leasing *l, uint64_t fence)
{
    struct gw_str url = l->c->options.share.node_url;
    char bytes[FENCE_BYTES + CACHE_NODE_URL_MAX];
    struct share_value v = {.checked_ms = gw_wall_ms() + l->life_ms};

    for (unsigned i = 0; i < FENCE_BYTES; i++) {
        bytes[i] = (char)(fence >> (56 - 8 * i));
    }
    memcpy(bytes + FENCE_BYTES, url.p, url.n);
    v.bytes = (struct gw_str){bytes, FENCE_BYTES + url.n};
    gw_buf_reset(out);
    share_encode(out, l->c->options.share.cluster_key, SHARE_LEASE, 0, l->name, &v);
}

static int decode(const struct leasing *l, struct gw_str frame, struct cache_lease *out,
                  struct gw_error *err)
{
    struct share_value v;
    int rc = share_decode(&v, l->c->options.share.cluster_key, SHARE_LEASE, 0, l->name, frame, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (v.bytes.n < FENCE_BYTES || v.bytes.n > FENCE_BYTES + CACHE_NODE_URL_MAX) {
        return gw_fail(err, GW_CORRUPT, 0, "signed, but not understood");
    }
    if (v.checked_ms < gw_wall_ms() - LATE_MS) {
        return gw_fail(err, GW_CORRUPT, 0, "its end is long past");
    }
    *out = (struct cache_lease){.ends_ms = v.checked_ms};
    for (unsigned i = 0; i < FENCE_BYTES; i++) {
        out->fence = out->fence << 8 | (uint8_t)v.bytes.p[i];
    }
    memcpy(out->node_url, v.bytes.p + FENCE_BYTES, v.bytes.n - FENCE_BYTES);
    return GW_OK;
}

/* ---- the conversation ---- */

/* WATCH and GET. *held: a good value is there, in *now. */
static int look(struct leasing *l, struct redis_session *s, struct cache_lease *now, bool *held,
                struct gw_error *err)
{
    struct redis_value *v;
    struct gw_error why;
    int rc;

    REDIS_SAY(s, GW_STR("WATCH"), key_of(l));
    REDIS_SAY(s, GW_STR("GET"), key_of(l));
    rc = redis_read(s, &v, err);
    rc = rc != GW_OK ? rc : redis_read(s, &v, err);
    *held = false;
    l->oversized = rc == GW_TOO_LARGE;
    if (rc != GW_OK || v->kind == REDIS_IS_NIL) {
        return rc;
    }
    rc = v->kind == REDIS_IS_TEXT ? decode(l, v->text, now, &why)
                                  : gw_fail(&why, GW_CORRUPT, 0, "a value of another type");
    if (rc != GW_OK) {
        cache_share_reject(l->c, "lease", &why); /* it is taken over */
    }
    *held = rc == GW_OK;
    return GW_OK;
}

static int unwatch(struct redis_session *s, struct gw_error *err)
{
    struct redis_value *v;

    REDIS_SAY(s, GW_STR("UNWATCH"));
    return redis_read(s, &v, err);
}

static int next_fence(struct redis_session *s, uint64_t *fence, struct gw_error *err)
{
    struct redis_value *v;
    struct timespec now;
    char first[24];
    int rc = GW_OK;

    clock_gettime(CLOCK_REALTIME, &now); /* finer than leases are taken */
    snprintf(first, sizeof(first), "%" PRId64, now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000);
    for (unsigned i = 0; i < FENCE_TRIES; i++) {
        REDIS_SAY(s, GW_STR("SET"), FENCE_KEY, gw_str_c(first), GW_STR("NX"));
        REDIS_SAY(s, GW_STR("INCR"), FENCE_KEY);
        rc = redis_read(s, &v, err);
        rc = rc != GW_OK ? rc : redis_read(s, &v, err);
        if (rc != GW_OK) {
            return rc;
        }
        if (v->kind == REDIS_IS_NUMBER && v->number > 0) {
            *fence = (uint64_t)v->number;
            return GW_OK;
        }
        REDIS_SAY(s, GW_STR("DEL"), FENCE_KEY); /* somebody made it something else */
        rc = redis_read(s, &v, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    return gw_fail(err, GW_UNAVAILABLE, 0, "redis: the counter of leases is not a number");
}

/* One command, if the watched key is as it was. GW_AGAIN: it is not. */
static int exec(struct redis_session *s, const struct gw_str *words, size_t n, struct gw_error *err)
{
    struct redis_value *v;
    int rc = GW_OK;

    REDIS_SAY(s, GW_STR("MULTI"));
    redis_say(s, words, n);
    REDIS_SAY(s, GW_STR("EXEC"));
    for (int i = 0; rc == GW_OK && i < 3; i++) {
        rc = redis_read(s, &v, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (v->kind == REDIS_IS_NIL) {
        return GW_AGAIN;
    }
    if (v->kind != REDIS_IS_LIST || v->n != 1 || v->items[0]->kind == REDIS_IS_ERROR) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "redis: EXEC did not do it");
    }
    return GW_OK;
}

/* Writes our value with this fence. */
static int write_lease(struct leasing *l, struct redis_session *s, uint64_t fence,
                       struct gw_error *err)
{
    struct gw_str url = l->c->options.share.node_url;
    struct gw_buf frame;
    char life[24];
    int rc;

    gw_buf_init(&frame, REPLY_MAX);
    encode(&frame, l, fence);
    if (frame.failed) {
        gw_buf_release(&frame);
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    }
    snprintf(life, sizeof(life), "%" PRId64, l->life_ms);
    rc = exec(s,
              (const struct gw_str[]){GW_STR("SET"), key_of(l), gw_buf_str(&frame), GW_STR("PX"),
                                      gw_str_c(life)},
              5, err);
    gw_buf_release(&frame);
    if (rc == GW_OK) {
        *l->out = (struct cache_lease){.fence = fence, .ends_ms = gw_wall_ms() + l->life_ms};
        memcpy(l->out->node_url, url.p, url.n);
    }
    return rc;
}

static int take_once(struct leasing *l, struct redis_session *s, struct gw_error *err)
{
    struct cache_lease now;
    uint64_t fence = l->mine;
    bool held;
    int rc = look(l, s, &now, &held, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (l->renew && !held) {
        rc = unwatch(s, err);
        return rc != GW_OK ? rc : gw_fail(err, GW_CONFLICT, 0, "this lease has ended");
    }
    if (held && now.fence != l->mine) {
        *l->out = now;
        rc = unwatch(s, err);
        return rc != GW_OK ? rc
                           : gw_fail(err, GW_CONFLICT, 0, "another node holds this lease: %s",
                                     now.node_url[0] != '\0' ? now.node_url : "it has no node_url");
    }
    rc = held ? GW_OK : next_fence(s, &fence, err);
    return rc == GW_OK ? write_lease(l, s, fence, err) : rc;
}

static int take(struct redis_session *s, void *ctx, struct gw_error *err)
{
    int rc = GW_AGAIN;

    for (unsigned i = 0; rc == GW_AGAIN && i < TRIES; i++) {
        rc = take_once(ctx, s, err);
    }
    return rc == GW_AGAIN ? gw_fail(err, GW_UNAVAILABLE, 0, "redis: a lease that never rests") : rc;
}

static int drop(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct leasing *l = ctx;
    struct cache_lease now;
    bool held;
    int rc = look(l, s, &now, &held, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (!held || now.fence != l->mine) {
        return unwatch(s, err);
    }
    rc = exec(s, (const struct gw_str[]){GW_STR("DEL"), key_of(l)}, 2, err);
    return rc == GW_AGAIN ? GW_OK : rc; /* somebody else's by now */
}

static int run(struct leasing *l, int (*work)(struct redis_session *, void *, struct gw_error *),
               int64_t deadline_ms, struct gw_error *err)
{
    struct gw_error why;
    int rc;

    if (!cache_share_on(l->c)) {
        return cache_share_off(err);
    }
    share_key(l->key, l->c->options.share.cluster_key, SHARE_LEASE, 0, l->name);
    rc = redis_run(l->c, deadline_ms, REPLY_MAX, work, l, &why);
    if (rc == GW_TOO_LARGE && l->oversized) {
        cache_share_reject(l->c, "lease", &why);
        rc = redis_remove(l->c, key_of(l), deadline_ms, &why);
        rc = rc != GW_OK ? rc : redis_run(l->c, deadline_ms, REPLY_MAX, work, l, &why);
    }
    return rc == GW_OK ? GW_OK
                       : gw_fail(err, rc == GW_TOO_LARGE ? GW_UNAVAILABLE : why.status, why.sys,
                                 "%s", why.text);
}

int cache_lease_take(struct cache *c, struct gw_str name, uint64_t mine, int64_t life_ms,
                     struct cache_lease *out, int64_t deadline_ms, struct gw_error *err)
{
    struct leasing l = {.c = c, .name = name, .mine = mine, .life_ms = life_ms, .out = out};

    return run(&l, take, deadline_ms, err);
}

int cache_lease_renew(struct cache *c, struct gw_str name, uint64_t mine, int64_t life_ms,
                      int64_t deadline_ms, struct gw_error *err)
{
    struct cache_lease out;
    struct leasing l = {
        .c = c, .name = name, .mine = mine, .life_ms = life_ms, .out = &out, .renew = true};

    return run(&l, take, deadline_ms, err);
}

int cache_lease_drop(struct cache *c, struct gw_str name, uint64_t mine, int64_t deadline_ms,
                     struct gw_error *err)
{
    struct leasing l = {.c = c, .name = name, .mine = mine};

    return run(&l, drop, deadline_ms, err);
}
