/* SPDX-License-Identifier: Apache-2.0 */
/*
 * facts.c - a fact is a record of the index that is young enough, or the want of the job that gets
 * it. Here is the whole of "within ttl, stale, expired, upstream down".
 */
#include "gateway/internal.h"

struct gw_str fact_join(struct gw_arena *a, const struct gw_str *fields, size_t n)
{
    struct gw_str out = {NULL, 0};
    char *p;

    for (size_t i = 0; i < n; i++)
        out.n += fields[i].n + (i > 0);
    p = gw_arena_alloc(a, out.n + 1);
    if (p == NULL)
        return (struct gw_str){NULL, 0};
    out.p = p;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            *p++ = '\n';
        if (fields[i].n)
            memcpy(p, fields[i].p, fields[i].n);
        p += fields[i].n;
    }
    return out;
}

static void came_at_least(struct gateway_state *st, enum gateway_came came)
{
    if (st->came < came)
        st->came = came;
}

int fact_need(struct gateway *gw, struct gateway_request *req, const struct gw_want *want,
              struct gateway_result **result, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    struct gateway_result *r;
    int rc;

    if (want->key.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for this request");
    r = wants_result(st, want->key);
    if (r == NULL) {
        if (st->expired)
            return gw_fail(err, GW_TIMEOUT, 0, "no answer in time");
        if (st->n_wants - st->n_elsewhere >= GATEWAY_WANTS_MAX)
            return gw_fail(err, GW_UNAVAILABLE, 0, "this request needs too many steps");
        st->n_wants++;
        if (want->peer == GW_PEER_UPSTREAM || want->peer == GW_PEER_REPO)
            came_at_least(st, CAME_MISS);
        rc = wants_park(gw, req, want);
        if (rc == GW_AGAIN)
            return GW_AGAIN;
        r = wants_result(st, want->key);
        if (r == NULL)
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory for this request");
    }
    if (result != NULL)
        *result = r;
    if (r->status != GW_OK && err != NULL)
        *err = r->err;
    return r->status;
}

static int64_t ttl_of(const struct gateway *gw, const struct fact *f,
                      const struct cache_record *rec)
{
    int64_t ttl = f->life == FACT_PRIVATE  ? GATEWAY_PRIVATE_TTL_MS
                  : f->life == FACT_RECORD ? GATEWAY_RECORD_AGE_MS
                                           : gw->config->upstream.ttl_ms;

    if (rec->status != GW_OK && ttl > GATEWAY_NEGATIVE_TTL_MS)
        ttl = GATEWAY_NEGATIVE_TTL_MS;
    return ttl;
}

static int use(struct gateway_state *st, const struct fact *f, const struct cache_record *rec,
               int64_t age, bool stale)
{
    if (f->life != FACT_RECORD && (st->age_ms < 0 || age > st->age_ms))
        st->age_ms = age > 0 ? age : 0;
    if (stale)
        came_at_least(st, CAME_STALE);
    return GW_OK;
}

int fact_get(struct gateway *gw, struct gateway_request *req, const struct fact *f,
             struct cache_record *out, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    struct gateway_result *result = NULL;
    bool held, mutable_public = f->life == FACT_TTL;
    int64_t age = 0;
    int rc;

    if (f->name.p == NULL || f->want.key.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for this request");
    rc = cache_get(gw->cache, f->kind, f->name, &st->arena, out);
    if (rc == GW_NO_MEMORY)
        return gw_fail(err, rc, 0, "no memory for this request");
    held = rc == GW_OK;
    if (held) {
        age = st->started_ms - out->checked_ms;
        if (f->life == FACT_FOREVER && (out->status == GW_OK || out->detail == HUB_ENTRY_NOT_FOUND))
            return use(st, f, out, age, false);
        if (age <= ttl_of(gw, f, out) &&
            age > -600000) /* a record of the far future is a clock that was set back */
            return use(st, f, out, age, false);
        if (mutable_public && out->status == GW_OK && age > 0 &&
            age <= gw->config->upstream.stale_max_ms) {
            if (wants_open(gw, f->want.peer))
                st->warn_stale = true;
            else
                wants_background(gw, &f->want);
            return use(st, f, out, age, true);
        }
    }
    rc = fact_need(gw, req, &f->want, &result, err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_OK && f->life == FACT_RECORD && result->text.n) { /* the index could not keep it */
        *out = (struct cache_record){
            .status = GW_OK, .checked_ms = st->started_ms, .value = result->text};
        return use(st, f, out, 0, false);
    }
    if (held && rc != GW_OK && out->status == GW_OK &&
        mutable_public) { /* upstream is down: the old answer, saying so */
        st->warn_stale = true;
        st->came = CAME_STALE; /* the call that was waited for brought nothing */
        return use(st, f, out, age, true);
    }
    if (rc != GW_OK)
        return rc;
    if (!held) /* the job is done and the index has nothing: it is full, or damaged, or somebody was
                  faster */
        return gw_fail(err, GW_UNAVAILABLE, 0, "the index did not keep the answer");
    return use(st, f, out, age, false);
}
