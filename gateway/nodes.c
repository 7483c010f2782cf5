/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nodes.c - other nodes, through Redis: one call upstream for all of them, and what it brought.
 *
 * A job of upstream's that has its turn is preceded by one of Redis ("ask"):
 *
 *   held by another node ------------------> into the index, the requests look again: no call
 *   nobody has it, the lease is ours ------> call, then ("give") share what came, drop the lease
 *   another node has the lease: it calls --> ask again every 150 ms, for 20 s at most, then call
 *                                            (it renews its lease each second; dead, it ends by 4
 * s) Redis does not answer, or is left alone -> call
 *
 * So a warm request knows nothing of Redis, and without it everything is as on one node. Private
 * repositories are in data/ for all nodes, and their records are never shared. What changed in
 * data/ (a revoked token) is told to the others, who hear it about once a second.
 */
#include "gateway/nodes.h"
#include "gateway/jobs.h"

#include "base/alloc.h"

#include <stdio.h>

#define ASK_MS 2000   /* all round trips of one job */
#define LEASE_MS 4000 /* how long others believe that we call; renewed while we do */
#define RENEW_MS 1000
#define AGAIN_MS 150 /* they ask again */
#define ALONE_MS GATEWAY_UPSTREAM_MS
#define GIVE_QUEUE_MAX 1000u  /* jobs; past it nothing is shared: Redis is slower than upstream */
#define GIVE_NAMES_MAX 50000u /* of one job; a larger tree is fetched by each node */
#define LISTEN_MS 1000
#define TELL_MS 3000

/* ---- what a job brings ---- */

static int64_t within(const struct gateway_job *job, int64_t ms)
{
    int64_t soon = gw_mono_ms() + ms;

    return soon < job->deadline_ms ? soon : job->deadline_ms;
}

static bool is_blob(const struct gateway_job *job)
{
    return gw_str_eq_c(job->fields[0], "blob") && job->n_fields >= 2;
}

static size_t names_of_paths(const struct gateway_job *job, struct gw_arena *a,
                             struct cache_share_name **out)
{
    const struct gw_str *f = job->fields;
    struct gw_str rest = job->arg, path;
    size_t n = 0;

    *out = gw_arena_alloc(a, CACHE_SHARE_NAMES_MAX * sizeof(**out));
    while (*out != NULL && n < CACHE_SHARE_NAMES_MAX && gw_str_split(&rest, '\n', &path))
        (*out)[n++] =
            (struct cache_share_name){CACHE_FILE, FACT_JOIN(a, f[1], f[2], f[3], f[4], path)};
    return n;
}

/* The records that whoever wants this job looks for. 0: none are shared, or no memory. */
static size_t names_of(const struct gateway_job *job, struct gw_arena *a,
                       struct cache_share_name **out)
{
    const struct gw_str *f = job->fields;
    struct cache_share_name *names;

    if (gw_str_eq_c(f[0], "paths") && job->n_fields >= 6)
        return names_of_paths(job, a, out);
    *out = names = gw_arena_alloc(a, 2 * sizeof(*names));
    if (names == NULL)
        return 0;
    if (gw_str_eq_c(f[0], "info") && job->n_fields >= 6) {
        names[0] = (struct cache_share_name){CACHE_REF, FACT_JOIN(a, f[1], f[2], f[3], f[4])};
        names[1] = (struct cache_share_name){CACHE_DOCUMENT, job->key};
        return 2;
    }
    if (gw_str_eq_c(f[0], "tree") && job->n_fields >= 9)
        names[0] = (struct cache_share_name){
            CACHE_TREE, FACT_JOIN(a, f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8])};
    else if (gw_str_eq_c(f[0], "wholetree") && job->n_fields >= 5)
        names[0] = (struct cache_share_name){CACHE_COMMIT, FACT_JOIN(a, f[1], f[2], f[3], f[4])};
    else if (gw_str_eq_c(f[0], "document") && job->n_fields >= 2)
        names[0] = (struct cache_share_name){CACHE_DOCUMENT, f[1]};
    else
        return 0;
    return 1;
}

/* ---- ask ---- */

/* Did it come another way since it was wanted? (The tree of a commit brings entries too.) To Redis
 * that looks as if nobody had anything newer. */
static bool is_here(struct gateway_job *job, const struct cache_share_name *names, size_t n)
{
    int64_t wanted_ms = gw_wall_ms() - (gw_mono_ms() - job->ahead_of->flight.since_ms);
    struct cache_record rec;

    for (size_t i = 0; i < n; i++)
        if (cache_get(job->gw->cache, names[i].kind, names[i].name, &job->arena, &rec) == GW_OK &&
            (names[i].kind == CACHE_FILE || rec.checked_ms > wanted_ms))
            return true;
    return false;
}

static int look(struct gateway_job *job, const struct cache_share_name *names, size_t n)
{
    const struct gateway_job *ahead = job->ahead_of;
    struct gw_error *err = &job->result.err;
    struct gw_str rest, size;
    uint64_t bytes;
    bool *found;
    int rc;

    if (is_blob(ahead)) {
        rest = ahead->arg;
        if (!gw_str_split(&rest, '\n', &size) || !gw_str_u64(size, &bytes))
            return gw_fail(err, GW_NOT_FOUND, 0, "ask: fields");
        return cache_share_blob_get(job->gw->cache, ahead->fields[1], bytes, within(job, ASK_MS),
                                    err);
    }
    found = gw_arena_alloc(&job->arena, n * sizeof(*found));
    if (found == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    rc = cache_share_get(job->gw->cache, names, n, found, within(job, ASK_MS), err);
    for (size_t i = 0; rc == GW_OK && i < n; i++)
        if (found[i]) /* the others are asked for anew, without it */
            return GW_OK;
    if (rc == GW_OK && !is_here(job, names, n))
        rc = gw_fail(err, GW_NOT_FOUND, 0, "no node has it");
    return rc;
}

/* Of job->ahead_of, which does not change meanwhile. GW_OK: the index has something new;
 * GW_NOT_FOUND: call, the lease is ours; GW_CONFLICT: another node calls; else: without Redis */
int job_ask(struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    struct cache_share_name *names = NULL;
    struct cache_lease lease;
    size_t n = 0;
    int rc;

    if (!is_blob(job->ahead_of)) {
        n = names_of(job->ahead_of, &job->arena, &names);
        for (size_t i = 0; i < n; i++)
            if (names[i].name.p == NULL)
                n = 0;
        if (n == 0)
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    rc = look(job, names, n);
    if (rc != GW_NOT_FOUND)
        return rc;
    rc = cache_lease_take(job->gw->cache, job->ahead_of->key, job->fence, LEASE_MS, &lease,
                          within(job, ASK_MS), err);
    if (rc != GW_OK)
        return rc;
    if (job->fence == lease.fence)
        return gw_fail(err, GW_NOT_FOUND, 0, "no node has it");
    job->fence = lease.fence;
    /* whoever had it may have given, and let go, in between */
    rc = look(job, names, n);
    if (rc == GW_OK && cache_lease_drop(job->gw->cache, job->ahead_of->key, job->fence,
                                        within(job, ASK_MS), err) == GW_OK)
        job->fence = 0;
    return rc == GW_OK ? GW_OK : gw_fail(err, GW_NOT_FOUND, 0, "no node has it");
}

bool nodes_ask(struct gateway *gw, struct gateway_job *job)
{
    struct gw_want want = {.peer = GW_PEER_REDIS, .arg = GW_STR("")};
    struct gateway_job *ask;

    if (job->peer != GW_PEER_UPSTREAM || job->asked || !cache_share_on(gw->cache) ||
        wants_open(gw, GW_PEER_REDIS) || (job->alone_ms != 0 && gw_mono_ms() >= job->alone_ms))
        return false;
    want.key = FACT_JOIN(&job->arena, GW_STR("ask"), job->key);
    if (want.key.p == NULL)
        return false;
    ask = wants_new_job(gw, &want, job->deadline_ms);
    if (ask == NULL)
        return false;
    ask->ahead_of = job;
    ask->fence = job->fence;
    job->asked = true;
    wants_list_job(gw, ask);
    return true;
}

bool nodes_asked(struct gateway_job *ask)
{
    struct gateway_job *job = ask->ahead_of;

    job->fence = ask->fence;
    job->renew_ms = gw_mono_ms() + RENEW_MS;
    if (ask->result.status == GW_CONFLICT) {
        job->asked = false;
        job->again_ms = gw_mono_ms() + AGAIN_MS;
        if (job->alone_ms == 0)
            job->alone_ms = gw_mono_ms() + ALONE_MS;
    }
    return ask->result.status == GW_OK;
}

/* ---- the lease of a call that takes long ---- */

/* key: renew, fence; arg: the key of the call */
int job_renew(struct gateway_job *job)
{
    uint64_t fence;

    if (job->n_fields != 2 || !gw_str_u64(job->fields[1], &fence))
        return gw_fail(&job->result.err, GW_INVALID, 0, "renew: fields");
    return cache_lease_renew(job->gw->cache, job->arg, fence, LEASE_MS, within(job, ASK_MS),
                             &job->result.err);
}

static void renew_leases(struct gateway *gw, int64_t now)
{
    struct gw_want want = {.peer = GW_PEER_REDIS};
    char key[32];

    for (struct gateway_job *job = gw->lanes[GW_PEER_UPSTREAM].jobs; job != NULL; job = job->next) {
        if (job->fence == 0 || now < job->renew_ms)
            continue;
        job->renew_ms = now + RENEW_MS;
        snprintf(key, sizeof(key), "renew\n%llu", (unsigned long long)job->fence);
        want.key = gw_str_c(key);
        want.arg = job->key;
        wants_background(gw, &want);
    }
}

/* ---- give ---- */

void nodes_brought(struct gateway_job *job, const struct cache_put *puts, size_t n)
{
    struct cache_share_name *grown;
    size_t cap;

    if (job->peer != GW_PEER_UPSTREAM || !cache_share_on(job->gw->cache) || job->too_many)
        return;
    if (job->n_names + n > job->cap_names) {
        cap = 2 * (job->n_names + n);
        grown =
            cap <= 2 * GIVE_NAMES_MAX ? gw_arena_alloc(&job->arena, cap * sizeof(*grown)) : NULL;
        job->too_many = grown == NULL;
        if (job->too_many)
            return;
        if (job->n_names != 0)
            memcpy(grown, job->names, job->n_names * sizeof(*grown));
        job->names = grown;
        job->cap_names = cap;
    }
    for (size_t i = 0; i < n; i++) {
        struct gw_str name = gw_arena_dup(&job->arena, puts[i].name);

        if (name.p == NULL) {
            job->too_many = true;
            return;
        }
        job->names[job->n_names++] = (struct cache_share_name){puts[i].kind, name};
    }
}

bool nodes_give(struct gateway *gw, struct gateway_job *job)
{
    const struct gateway_lane *lane = &gw->lanes[GW_PEER_REDIS];
    bool well = job->result.status == GW_OK && job->ran;
    size_t queued = 0;
    struct gw_str key;

    if (job->peer != GW_PEER_UPSTREAM || !cache_share_on(gw->cache) ||
        wants_open(gw, GW_PEER_REDIS))
        return false;
    if (!well || job->too_many)
        job->n_names = 0;
    job->give_blob = well && is_blob(job);
    if (job->n_names == 0 && !job->give_blob && job->fence == 0)
        return false;
    for (const struct gateway_job *j = lane->jobs; j != NULL; j = j->next)
        queued++;
    key = FACT_JOIN(&job->arena, GW_STR("give"), job->key);
    if (queued >= GIVE_QUEUE_MAX || key.p == NULL)
        return false;
    job->lease = job->key;
    job->key = key;
    job->fields[0] = GW_STR("give");
    job->peer = GW_PEER_REDIS;
    job->deadline_ms = gw_mono_ms() + WANTS_BACKGROUND_MS;
    job->running = job->flying = job->ran = job->again = false;
    job->result = (struct gateway_result){0};
    wants_list_job(gw, job);
    return true;
}

/* The last round trips of a job of upstream's, which has become one of Redis. */
int job_give(struct gateway_job *job)
{
    struct cache *c = job->gw->cache;
    struct gw_error *err = &job->result.err;
    int rc = GW_OK;

    if (job->give_blob)
        rc = cache_share_blob_put(c, job->fields[1], within(job, ASK_MS), err);
    for (size_t at = 0; rc == GW_OK && at < job->n_names; at += CACHE_SHARE_NAMES_MAX) {
        size_t n = job->n_names - at;

        n = n < CACHE_SHARE_NAMES_MAX ? n : CACHE_SHARE_NAMES_MAX;
        rc = cache_share_put(c, job->names + at, n, within(job, ASK_MS), err);
    }
    if (job->fence != 0 && rc != GW_UNAVAILABLE && rc != GW_TIMEOUT)
        rc = cache_lease_drop(c, job->lease, job->fence, within(job, ASK_MS), err);
    return rc;
}

/* ---- what changed in data/, and upstream's limits ---- */

/* key: tell, kind, name */
int job_tell(struct gateway_job *job)
{
    uint64_t kind;

    if (job->n_fields < 3 || !gw_str_u64(job->fields[1], &kind))
        return gw_fail(&job->result.err, GW_INVALID, 0, "tell: fields");
    return cache_share_tell(job->gw->cache, (enum cache_kind)kind, job->fields[2],
                            within(job, TELL_MS), &job->result.err);
}

void nodes_tell(struct gateway *gw, enum cache_kind kind, struct gw_str id)
{
    struct gw_want want = {.peer = GW_PEER_REDIS, .arg = GW_STR("")};
    struct gw_arena a;

    if (!cache_share_on(gw->cache))
        return;
    gw_arena_init(&a, 4096);
    want.key = FACT_JOIN(&a, GW_STR("tell"), gw_arena_printf(&a, "%d", (int)kind), id);
    wants_background(gw, &want);
    gw_arena_release(&a);
}

int nodes_tell_now(struct gateway *gw, enum cache_kind kind, struct gw_str id, struct gw_error *err)
{
    return cache_share_on(gw->cache)
               ? cache_share_tell(gw->cache, kind, id, gw_mono_ms() + TELL_MS, err)
               : GW_OK;
}

static struct gw_str limit_name(int kind)
{
    static const struct gw_str names[CACHE_LIMIT_KINDS] = {
        {"limit\napi", 9}, {"limit\nresolvers", 15}, {"limit\npages", 11}};

    return names[kind];
}

/* One account, one budget: until when upstream is not asked is a record that nodes share. */
static int share_limit(struct gateway_job *job, int kind)
{
    struct cache *c = job->gw->cache;
    struct cache_shared *s = &job->gw->shared->cache;
    struct cache_share_name name = {CACHE_DOCUMENT, limit_name(kind)};
    int64_t ours = atomic_load(&s->limits[kind].not_before_ms);
    struct cache_record rec;
    uint64_t theirs = 0;
    bool found = false;
    int rc = cache_share_get(c, &name, 1, &found, within(job, ASK_MS), &job->result.err);

    if (rc != GW_OK)
        return rc;
    if (cache_get(c, name.kind, name.name, &job->arena, &rec) == GW_OK &&
        gw_str_u64(rec.value, &theirs) && theirs < INT64_MAX && (int64_t)theirs > ours)
        cache_limit_until(s, (enum cache_limit_kind)kind, (int64_t)theirs);
    if (ours <= gw_wall_ms() || (int64_t)theirs >= ours)
        return GW_OK;
    rc = job_put(job, name.kind, name.name, GW_OK, 0,
                 gw_arena_printf(&job->arena, "%lld", (long long)ours));
    return rc == GW_OK ? cache_share_put(c, &name, 1, within(job, ASK_MS), &job->result.err) : rc;
}

/* key: listen */
int job_listen(struct gateway_job *job)
{
    int rc = cache_share_listen(job->gw->cache, within(job, ASK_MS), &job->result.err);

    for (int kind = 0; rc == GW_OK && kind < CACHE_LIMIT_KINDS; kind++)
        rc = share_limit(job, kind);
    return rc;
}

void nodes_tick(struct gateway *gw)
{
    static const struct gw_want want = {GW_PEER_REDIS, {"listen", 6}, {"", 0}};
    int64_t now = gw_mono_ms(), last = atomic_load(&gw->shared->listened_ms);

    if (!cache_share_on(gw->cache))
        return;
    renew_leases(gw, now);
    if (gw->leaving || now - last < LISTEN_MS || wants_open(gw, GW_PEER_REDIS) ||
        !atomic_compare_exchange_strong(&gw->shared->listened_ms, &last, now))
        return;
    wants_background(gw, &want);
}
