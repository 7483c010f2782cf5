/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wants.c - who waits for which job. One job per key and process; those who want the same fact park
 * behind it. Per peer a cap on jobs under way (more are queued, their requests stay parked until
 * their own deadline) and a breaker, so a hung peer starves nobody. All of it is counted on the
 * loop: no locks.
 */
#include "gateway/internal.h"
#include "gateway/nodes.h"

#include "base/alloc.h"

#define JOB_ARENA_MAX (256u << 20)
#define BACKGROUND_PAUSE_MS 1000 /* after a failure that nobody waited for */
#define LOOK_MS 250              /* whether the worker that is waited for lives */

static const struct {
    const char *verb;
    int (*run)(struct gateway_job *job);
} verbs[] = {
    {"token", job_token},
    {"subject", job_subject},
    {"login", job_login},
    {"mint", job_mint},
    {"info", job_info},
    {"tree", job_tree},
    {"wholetree", job_whole_tree},
    {"paths", job_paths},
    {"document", job_document},
    {"blob", job_blob},
    {"part", job_part},
    {"ppart", job_part},
    {"pref", job_private_ref},
    {"pinfo", job_private_info},
    {"ptree", job_private_tree},
    {"ppaths", job_private_paths},
    {"prefs", job_private_refs},
    {"pcommits", job_private_commits},
    {"pblob", job_private_blob},
    {"prove", job_prove},
    {"fill", job_fill},
    {"usage", job_usage},
    {"budget", job_budget},
    {"lease", job_lease},
    {"audit", job_audit},
    {"ask", job_ask},
    {"give", job_give},
    {"renew", job_renew},
    {"tell", job_tell},
    {"listen", job_listen},
    {"create", job_create},
    {"delete", job_delete},
    {"ref", job_ref},
    {"preupload", job_preupload},
    {"yaml", job_yaml},
    {"batch", job_batch},
    {"upload", job_upload},
    {"repack", job_repack},
    {"complete", job_complete},
    {"move", job_move},
    {"squash", job_squash},
    {"bring", job_bring},
    {"catalogue", job_catalogue},
    {"downloads", job_downloads},
    {"cards", job_cards},
    {"listed", job_listed},
};

static void split_fields(struct gateway_job *job)
{
    struct gw_str rest = job->key, field;

    while (job->n_fields < GATEWAY_FIELDS_MAX && gw_str_split(&rest, '\n', &field))
        job->fields[job->n_fields++] = field;
}

struct gateway_job *wants_new_job(struct gateway *gw, const struct gw_want *want,
                                  int64_t deadline_ms)
{
    struct gateway_job *job = gw_alloc(sizeof(*job));

    if (job == NULL)
        return NULL;
    gw_arena_init(&job->arena, JOB_ARENA_MAX);
    gw_arena_keep_secret(&job->arena);
    job->gw = gw;
    job->peer = want->peer;
    job->deadline_ms = deadline_ms;
    job->key = gw_arena_dup(&job->arena, want->key);
    job->arg = gw_arena_dup(&job->arena, want->arg);
    if (job->key.p == NULL || job->arg.p == NULL) {
        gw_arena_release(&job->arena);
        gw_free(job);
        return NULL;
    }
    split_fields(job);
    return job;
}

static void job_free(struct gateway_job *job)
{
    gw_arena_release(&job->arena);
    gw_free(job);
}

/* Jobs that read a repository, whose packs may go into another one under their eyes: seen once in
 * some thousand reads beside commits. */
static bool reads_repo(struct gw_str verb)
{
    static const char *const words[] = {"pref",     "pinfo", "ptree", "ppaths",   "prefs",
                                        "pcommits", "pblob", "batch", "preupload"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (gw_str_eq_c(verb, words[i]))
            return true;
    return false;
}

static int run_verb(struct gateway_job *job)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (gw_str_eq_c(job->fields[0], verbs[i].verb)) {
            int rc = verbs[i].run(job);

            return (rc == GW_CORRUPT || rc == GW_IO) && reads_repo(job->fields[0])
                       ? verbs[i].run(job)
                       : rc;
        }
    return gw_fail(&job->result.err, GW_INVALID, 0, "no such job: " GW_STR_FMT,
                   GW_STR_ARG(job->fields[0]));
}

void gateway_job_run(struct gateway_job *job)
{
    struct gateway_result *r = &job->result;

    job->ran = true;
    if (gw_mono_ms() >= job->deadline_ms) {
        job->skipped = true;
        r->status = gw_fail(&r->err, GW_TIMEOUT, 0, "waited too long for its turn");
        return;
    }
    if (atomic_load(&job->gw->cancelled)) {
        r->status = gw_fail(&r->err, GW_CANCELLED, 0, "the process ends");
        return;
    }
    /* those who queued for it when it fell silent would each wait for its silence */
    if (job->peer == GW_PEER_REDIS && !job->probe && wants_open(job->gw, job->peer)) {
        job->skipped = true;
        r->status = breaker_refuse(job->gw, job->peer, &r->err);
        return;
    }
    r->status = run_verb(job);
    if (r->status != GW_OK && r->err.status != (enum gw_status)r->status) /* a bare status */
        gw_fail(&r->err, r->status, 0, "%s", gw_status_name(r->status));
}

int wants_run(struct gateway *gw, const struct gw_want *want, struct gw_error *err)
{
    struct gateway_job *job =
        want->key.p != NULL ? wants_new_job(gw, want, gw_mono_ms() + WANTS_BACKGROUND_MS) : NULL;
    int rc;

    if (job == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a job");
    gateway_job_run(job);
    rc = job->result.status;
    if (rc != GW_OK)
        *err = job->result.err;
    job_free(job);
    return rc;
}

/* ---- starting ---- */

/* One call upstream for all workers. A job that is over is ended by the next tick: here its
 * requests may be in the middle of their step. */
static bool may_fly(struct gateway *gw, struct gateway_job *job, int64_t now)
{
    if (job->peer != GW_PEER_UPSTREAM)
        return true;
    if (job->waits || job->over || job->again_ms > now)
        return false;
    if (job->flying)
        return true;
    switch (flight_begin(&gw->shared->flights, &gw->shared->cache, gw->slot, &job->flight,
                         &job->result.status, &job->result.err.sys)) {
    case FLIGHT_OURS:
        job->flying = true;
        return true;
    case FLIGHT_THEIRS:
        job->waits = true;
        job->look_ms = gw_mono_ms() + LOOK_MS;
        return false;
    case FLIGHT_OVER:
        job->over = true;
        cache_wake(&gw->shared->cache, gw->slot);
        return false;
    }
    return false;
}

static void run_queue(struct gateway *gw, enum gw_peer peer)
{
    struct gateway_lane *lane = &gw->lanes[peer];
    int64_t now = gw_mono_ms();

    for (struct gateway_job *job = lane->jobs; job != NULL && lane->running < lane->cap;
         job = job->next) {
        if (job->running || !may_fly(gw, job, now))
            continue;
        if (!nodes_ask(gw, job) && !gw->post(gw->ctx, job))
            return; /* the pool is full: the next completion or tick tries again */
        job->running = true;
        lane->running++;
    }
}

void wants_list_job(struct gateway *gw, struct gateway_job *job)
{
    struct gateway_job **at = &gw->lanes[job->peer].jobs;

    while (*at != NULL)
        at = &(*at)->next;
    job->next = NULL;
    *at = job;
    job->probe = breaker_probe(gw, job->peer);
    run_queue(gw, job->peer);
}

static struct gateway_job *find_or_start(struct gateway *gw, const struct gw_want *want,
                                         int64_t deadline_ms)
{
    struct gateway_job *job = gw->lanes[want->peer].jobs;

    for (; job != NULL; job = job->next)
        if (gw_str_eq(job->key, want->key))
            return job;
    job = wants_new_job(gw, want, deadline_ms);
    if (job == NULL)
        return NULL;
    if (want->peer == GW_PEER_UPSTREAM)
        job->flight = (struct flight){.hash = flight_hash(job->key), .since_ms = gw_mono_ms()};
    wants_list_job(gw, job);
    return job;
}

static void attach_result(struct gateway_request *req, struct gw_str key, int status,
                          const struct gw_error *err, struct gw_str text)
{
    struct gateway_state *st = req->state;
    struct gateway_result *r = wants_result(st, key);

    if (r == NULL) {
        if (st->n_results == GATEWAY_WANTS_MAX) {
            st->no_memory = true;
            return;
        }
        r = &st->results[st->n_results++];
    }
    r->key = gw_arena_dup(&st->arena, key);
    r->status = status;
    r->err = *err;
    r->text = gw_arena_dup(&st->arena, text);
    if (r->key.p == NULL || r->text.p == NULL)
        st->no_memory = true;
}

struct gateway_result *wants_result(struct gateway_state *st, struct gw_str key)
{
    for (size_t i = 0; i < st->n_results; i++)
        if (gw_str_eq(st->results[i].key, key))
            return &st->results[i];
    return NULL;
}

void wants_unpark(struct gateway_request *req)
{
    struct gateway_waiter *w = &req->state->waiter;

    if (w->link == NULL)
        return;
    *w->link = w->next;
    if (w->next != NULL)
        w->next->link = w->link;
    w->link = NULL;
    w->next = NULL;
}

static void park(struct gateway_job *job, struct gateway_request *req)
{
    struct gateway_waiter *w = &req->state->waiter;

    wants_unpark(req); /* in one list at most, whatever the door does */
    w->req = req;
    w->next = job->waiters;
    if (w->next != NULL)
        w->next->link = &w->next;
    w->link = &job->waiters;
    job->waiters = w;
}

int wants_park(struct gateway *gw, struct gateway_request *req, const struct gw_want *want)
{
    struct gateway_job *job;
    struct gw_error err;

    if (wants_open(gw, want->peer)) {
        (void)breaker_refuse(gw, want->peer, &err);
        attach_result(req, want->key, err.status, &err, GW_STR(""));
        return err.status;
    }
    job = find_or_start(gw, want, req->state->deadline_ms);
    if (job == NULL) {
        req->state->no_memory = true;
        return GW_NO_MEMORY;
    }
    if (!job->running && job->deadline_ms < req->state->deadline_ms)
        job->deadline_ms = req->state->deadline_ms; /* who came first may have less time left */
    park(job, req);
    return GW_AGAIN;
}

/* What is left of upstream's limit is for who waits. (Small files are never fetched ahead.) */
static bool is_spare(const struct gateway *gw, enum gw_peer peer)
{
    return peer != GW_PEER_UPSTREAM || !cache_limit_low(&gw->shared->cache, CACHE_LIMIT_API);
}

void wants_background(struct gateway *gw, const struct gw_want *want)
{
    if (!is_spare(gw, want->peer) || want->key.p == NULL ||
        (gw->leaving && want->peer != GW_PEER_DISK) || wants_open(gw, want->peer) ||
        gw_mono_ms() < gw->lanes[want->peer].quiet_until_ms)
        return;
    (void)find_or_start(gw, want, gw_mono_ms() + WANTS_BACKGROUND_MS);
}

void wants_next_step(struct gateway *gw, const struct gw_want *want)
{
    for (struct gateway_job *job = gw->lanes[want->peer].jobs; job != NULL; job = job->next)
        if (gw_str_eq(job->key, want->key)) {
            job->again = job->again || job->running; /* it has ended, or it would not be named */
            return;
        }
    (void)find_or_start(gw, want, gw_mono_ms() + WANTS_BACKGROUND_MS);
}

/* Other workers may call for this fact again. */
static void land(struct gateway_job *job, int status)
{
    flight_end(&job->gw->shared->flights, &job->gw->shared->cache, job->gw->slot, job->flight.hash,
               status, job->result.err.sys);
    job->flying = false;
}

/* Takes it out of its lane. */
static void unlist(struct gateway_job *job)
{
    struct gateway_job **at = &job->gw->lanes[job->peer].jobs;

    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
}

/* Everybody who waited steps anew. */
static void wake_all(struct gateway_job *job)
{
    const struct gateway_result *r = &job->result;
    struct gateway_waiter *w;

    while ((w = job->waiters) != NULL) {
        wants_unpark(w->req);
        if (job->over && r->status == GW_OK) /* the index has it, or they want it again */
            w->req->state->n_elsewhere++;
        else
            attach_result(w->req, job->key, r->status, &r->err, r->text);
        w->req->wake(w->req);
    }
}

/* What another worker's call met, in our words. */
static void explain(struct gateway_result *r)
{
    enum gw_status status = (enum gw_status)r->status;
    int sys = r->err.sys;

    if (sys == 429)
        gw_fail(&r->err, status, sys, "upstream's rate limit of this whole gateway is used up");
    else if (sys >= 400 && sys < 600)
        gw_fail(&r->err, status, sys, "upstream answered %d just now", sys);
    else
        gw_fail(&r->err, status, sys, "the call upstream failed just now (%s)",
                gw_status_name(status));
}

/* Another worker's call has ended: what it brought is in the index, how it failed is told. */
static void end_over(struct gateway_job *job)
{
    unlist(job);
    breaker_learn(job->gw, job);
    if (job->result.status != GW_OK)
        explain(&job->result);
    wake_all(job);
    job_free(job);
}

void gateway_expire(struct gateway *gw, struct gateway_request *req)
{
    if (req->state == NULL)
        return;
    wants_unpark(req);
    req->state->expired = true;
}

/* Redis was asked for a job of upstream's, which counts as under way meanwhile. */
static void end_ask(struct gateway_job *ask)
{
    struct gateway *gw = ask->gw;
    struct gateway_job *job = ask->ahead_of;

    unlist(ask);
    gw->lanes[ask->peer].running--;
    gw->lanes[job->peer].running--;
    job->running = false;
    breaker_learn(gw, ask);
    if (nodes_asked(ask)) {
        land(job, GW_OK);
        job->over = true;
        end_over(job);
    }
    job_free(ask);
    run_queue(gw, GW_PEER_REDIS);
    run_queue(gw, GW_PEER_UPSTREAM);
}

void gateway_job_done(struct gateway_job *job)
{
    struct gateway *gw = job->gw;
    struct gateway_lane *lane = &gw->lanes[job->peer];

    if (job->ahead_of != NULL) {
        end_ask(job);
        return;
    }
    unlist(job);
    lane->running--;
    if (job->flying) /* what was only our own trouble is not told */
        land(job, job->skipped || job->result.status == GW_NO_MEMORY ? GW_CANCELLED
                                                                     : job->result.status);
    breaker_learn(gw, job);
    audit_done(gw, job);
    if (job->tell_kind != 0)
        nodes_tell(gw, job->tell_kind, job->tell_id);
    if (job->waiters == NULL && job->result.status != GW_OK) /* else each request tries it again */
        lane->quiet_until_ms = gw_mono_ms() + BACKGROUND_PAUSE_MS;
    wake_all(job);
    if (job->result.status != GW_OK && job->result.status != GW_UNAVAILABLE &&
        job->result.status != GW_TIMEOUT && job->result.status != GW_UNAUTHENTICATED &&
        job->result.status != GW_NOT_FOUND && job->result.status != GW_CANCELLED &&
        job->result.status != GW_CONFLICT && job->result.status != GW_FORBIDDEN)
        gw_log_write(&gw->log, GW_LOG_WARN, "job " GW_STR_FMT ": %s", GW_STR_ARG(job->fields[0]),
                     job->result.err.text);
    if (job->again) {
        struct gw_want want = {.peer = job->peer, .key = job->key, .arg = GW_STR("")};
        (void)find_or_start(gw, &want, gw_mono_ms() + WANTS_BACKGROUND_MS);
    }
    run_queue(gw, (enum gw_peer)(lane - gw->lanes));
    if (!nodes_give(gw, job))
        job_free(job);
}

static struct gateway_job *next_over(struct gateway *gw)
{
    for (struct gateway_job *job = gw->lanes[GW_PEER_UPSTREAM].jobs; job != NULL; job = job->next)
        if (job->over)
            return job;
    return NULL;
}

void wants_tick(struct gateway *gw)
{
    struct gateway_job *job;
    int64_t now = gw_mono_ms();

    for (job = gw->lanes[GW_PEER_UPSTREAM].jobs; job != NULL; job = job->next)
        if (job->waits)
            job->waits = now < job->look_ms && !flight_moved(&gw->shared->flights, &job->flight);
    for (int p = 0; p < GW_PEER_COUNT; p++)
        run_queue(gw, (enum gw_peer)p);
    while ((job = next_over(gw)) != NULL)
        end_over(job);
}

void wants_close(struct gateway *gw)
{
    struct gateway_job *job;

    for (int p = 0; p < GW_PEER_COUNT; p++)
        while ((job = gw->lanes[p].jobs) != NULL) {
            gw->lanes[p].jobs = job->next;
            while (job->waiters != NULL)
                wants_unpark(job->waiters->req);
            if (job->flying)
                land(job, GW_CANCELLED);
            if (!job->ran || job->result.status != GW_OK)
                audit_unwritten(gw, job);
            job_free(job);
        }
}
