/* SPDX-License-Identifier: Apache-2.0 */
/*
 * breaker.c - a peer that does not answer is left alone for a while, by all workers of the node: in
 * shared memory, atomics only.
 *
 *   closed --5 failures in a row--> open (1 s, doubling to 30 s) --over--> one job tries
 * --answer--> closed \--failure--> open
 */
#include "gateway/internal.h"

#define FAILURES 5u
#define FIRST_MS 1000
#define MAX_MS 30000
#define PROBE_MS 30000 /* whoever tries may die of it; then another one may */
#define SAY_MS 60000   /* a log line at most so often */

const char *breaker_peer_name(enum gw_peer peer)
{
    static const char *const names[GW_PEER_COUNT] = {
        [GW_PEER_LDAP] = "the directory",
        [GW_PEER_REDIS] = "redis",
        [GW_PEER_UPSTREAM] = "upstream",
        [GW_PEER_REPO] = "the repositories",
        [GW_PEER_DISK] = "the disk",
        [GW_PEER_READ] = "the cache's disk",
        [GW_PEER_GIT] = "git",
    };

    return names[peer];
}

static bool open_at(const struct gateway_breaker *b, int64_t now)
{
    int64_t until = atomic_load(&b->open_until_ms);

    return until != 0 && (now < until || now < atomic_load(&b->probe_until_ms));
}

bool wants_open(const struct gateway *gw, enum gw_peer peer)
{
    return open_at(&gw->shared->breakers[peer], gw_mono_ms());
}

int breaker_refuse(const struct gateway *gw, enum gw_peer peer, struct gw_error *err)
{
    const struct gateway_breaker *b = &gw->shared->breakers[peer];
    int status = atomic_load(&b->status);

    return gw_fail(err, status == GW_TIMEOUT ? GW_TIMEOUT : GW_UNAVAILABLE, atomic_load(&b->sys),
                   "%s does not answer for now", breaker_peer_name(peer));
}

bool breaker_probe(struct gateway *gw, enum gw_peer peer)
{
    struct gateway_breaker *b = &gw->shared->breakers[peer];
    int64_t now = gw_mono_ms(), until = atomic_load(&b->probe_until_ms);

    return atomic_load(&b->open_until_ms) != 0 && until <= now &&
           atomic_compare_exchange_strong(&b->probe_until_ms, &until, now + PROBE_MS);
}

static void answered(struct gateway *gw, enum gw_peer peer, struct gateway_breaker *b)
{
    if (atomic_load(&b->failures) != 0)
        atomic_store(&b->failures, 0);
    if (atomic_exchange(&b->open_until_ms, 0) != 0 && atomic_exchange(&b->told, 0) != 0)
        gw_log_write(&gw->log, GW_LOG_NOTICE, "%s answers again", breaker_peer_name(peer));
}

static void failed(struct gateway *gw, enum gw_peer peer, struct gateway_breaker *b,
                   const struct gw_error *err)
{
    int64_t now = gw_mono_ms(), pause = FIRST_MS, said;
    uint32_t n;

    if (now < atomic_load(&b->open_until_ms))
        return; /* it began before the breaker opened: nothing new */
    atomic_store(&b->status, (int32_t)err->status);
    atomic_store(&b->sys, err->sys);
    n = atomic_fetch_add(&b->failures, 1) + 1;
    if (n < FAILURES)
        return;
    for (uint32_t i = FAILURES; i < n && pause < MAX_MS; i++)
        pause *= 2;
    pause = pause < MAX_MS ? pause : MAX_MS;
    atomic_store(&b->open_until_ms, now + pause);
    atomic_fetch_add(&b->opened, 1);
    said = atomic_load(&b->said_ms);
    if ((said == 0 || now - said >= SAY_MS) &&
        atomic_compare_exchange_strong(&b->said_ms, &said, now)) {
        atomic_store(&b->told, 1);
        if (peer != GW_PEER_REDIS) /* of that one cache/ writes a line itself, as often */
            gw_log_write(&gw->log, GW_LOG_WARN, "%s fails, next try in %lld ms: %s",
                         breaker_peer_name(peer), (long long)pause, err->text);
    }
}

/* Only what is across a network is down as a whole: an "unavailable" of a disk or a repository is
 * about one blob or one file, and nearly every request needs those lanes. A rate limit is an
 * answer. */
void breaker_learn(struct gateway *gw, const struct gateway_job *job)
{
    struct gateway_breaker *b = &gw->shared->breakers[job->peer];
    const struct gateway_result *r = &job->result;

    if (job->peer == GW_PEER_DISK || job->peer == GW_PEER_REPO || job->peer == GW_PEER_READ ||
        job->peer == GW_PEER_GIT)
        return;
    if (job->probe)
        atomic_store(&b->probe_until_ms, 0);
    if (!job->ran || job->skipped || r->status == GW_CANCELLED)
        return;
    if ((r->status == GW_UNAVAILABLE && r->err.sys != 429) || r->status == GW_TIMEOUT)
        failed(gw, job->peer, b, &r->err);
    else
        answered(gw, job->peer, b);
}
