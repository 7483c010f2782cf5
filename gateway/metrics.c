/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c - what is counted, as Prometheus text (exposition format 0.0.4). One table: a row names
 * a metric, says what it means and where its cells are; docs/operations.md lists them all
 * (tests/lint/metrics-doc). A scrape reads shared memory, and nothing else: no job, no peer, no
 * secret.
 */
#include "gateway/internal.h"

#include "base/address.h"

#define TEXT_MAX (256u << 10)

/* ---- the table ---- */

enum kind { COUNTER, GAUGE, HISTOGRAM };

enum where {
    CACHE,   /* cache_counters: one cell for all workers */
    USAGE,   /* cache_usage_counters: likewise */
    WORKERS, /* gateway_counters: added up over all slots */
    OWNED,   /* the same over the slots that have an owner now */
    SLOTS,   /* cache_slot, 32 bits, of the slots that have an owner now */
    ONE,     /* 1 for each slot that has an owner now */
    BUILD,   /* 1 */
    OPEN,    /* breakers: 1 while open */
    OPENED,  /* breakers: how often */
    LIMITS,  /* cache_limit, 64 bits */
    WAIT,    /* limits: seconds in which nothing is asked */
};

struct label { /* NULL name: none */
    const char *name;
    const char *const *values;
    size_t n;
};

#define LABEL(name, list)                                                                          \
    {                                                                                              \
        name, list, sizeof(list) / sizeof(list[0])                                                 \
    }

static const char *const came_names[CAME_COUNT] = {"hit", "stale", "miss", "fill", "none"};
static const char *const route_names[METRICS_ROUTE_COUNT] = {"file", "document", "identity",
                                                             "other", "unknown"};
static const char *const status_names[METRICS_STATUSES] = {"none", "1xx", "2xx",
                                                           "3xx",  "4xx", "5xx"};
static const char *const peer_names[GW_PEER_COUNT] = {"ldap", "redis", "upstream", "repo",
                                                      "disk", "read",  "git"};
static const char *const limit_names[CACHE_LIMIT_KINDS] = {"api", "resolvers", "pages"};
static const char *const held_names[2] = {"blobs", "parts"};
static const char *const login_names[2] = {"ok", "failed"};
static const char *const versions[1] = {HUBGATE_VERSION};

#define CACHE_AT(member) CACHE, offsetof(struct cache_counters, member)
#define USAGE_AT(member) USAGE, offsetof(struct cache_usage_counters, member)
#define WORKERS_AT(member) WORKERS, offsetof(struct gateway_counters, member)
#define OWNED_AT(member) OWNED, offsetof(struct gateway_counters, member)
#define LIMITS_AT(member) LIMITS, offsetof(struct cache_limit, member)
#define SLOTS_AT(member) SLOTS, offsetof(struct cache_slot, member)

/* Cells of a row with labels lie one after the other, the last label runs fastest. */
static const struct row {
    const char *name;
    enum kind kind;
    const char *help;
    enum where where;
    size_t offset;
    struct label labels[2];
} rows[] = {
    {"hubgate_build_info",
     GAUGE,
     "1; the version that runs",
     BUILD,
     0,
     {LABEL("version", versions)}},
    {"hubgate_workers", GAUGE, "worker processes, old cycles' too", ONE, 0, {{0}}},
    /* to clients */
    {"hubgate_requests_total",
     COUNTER,
     "requests that ended",
     WORKERS_AT(requests),
     {LABEL("route", route_names), LABEL("status", status_names)}},
    {"hubgate_answers_total",
     COUNTER,
     "answers by where they came from",
     WORKERS_AT(answers),
     {LABEL("cache", came_names)}},
    {"hubgate_sent_bytes_total",
     COUNTER,
     "bytes of bodies sent to clients",
     WORKERS_AT(bytes),
     {LABEL("cache", came_names)}},
    {"hubgate_first_byte_seconds",
     HISTOGRAM,
     "from the request to the first byte of its answer",
     WORKERS_AT(first_byte),
     {LABEL("cache", came_names)}},
    {"hubgate_requests_parked", GAUGE, "requests that wait for a job", OWNED_AT(parked), {{0}}},
    {"hubgate_cold_reads_total",
     COUNTER,
     "answers that waited for pages of a file from disk",
     WORKERS_AT(cold_reads),
     {{0}}},
    {"hubgate_readers", GAUGE, "answers that follow a fill", OWNED_AT(readers), {{0}}},
    {"hubgate_readers_waiting",
     GAUGE,
     "those that wait for bytes",
     OWNED_AT(readers_waiting),
     {{0}}},
    {"hubgate_logins_total",
     COUNTER,
     "passwords checked",
     WORKERS_AT(logins),
     {LABEL("result", login_names)}},
    {"hubgate_policy_denies_total",
     COUNTER,
     "requests that policy refused",
     WORKERS_AT(denies),
     {{0}}},
    {"hubgate_audit_dropped_total",
     COUNTER,
     "audit records lost",
     WORKERS_AT(audit_dropped),
     {{0}}},
    /* jobs */
    {"hubgate_jobs_running",
     GAUGE,
     "jobs under way",
     OWNED_AT(jobs_running),
     {LABEL("peer", peer_names)}},
    {"hubgate_jobs_queued",
     GAUGE,
     "jobs that wait for their turn",
     OWNED_AT(jobs_queued),
     {LABEL("peer", peer_names)}},
    {"hubgate_breakers_open",
     GAUGE,
     "1 while the peer is left alone",
     OPEN,
     0,
     {LABEL("peer", peer_names)}},
    {"hubgate_breakers_opened_total",
     COUNTER,
     "times the peer was left alone",
     OPENED,
     0,
     {LABEL("peer", peer_names)}},
    /* upstream and fills */
    {"hubgate_upstream_requests_total",
     COUNTER,
     "HTTP requests to upstream",
     CACHE_AT(upstream_calls),
     {{0}}},
    {"hubgate_upstream_failures_total",
     COUNTER,
     "those without a usable answer",
     CACHE_AT(upstream_failures),
     {{0}}},
    {"hubgate_upstream_received_bytes_total",
     COUNTER,
     "bytes of bodies from upstream",
     CACHE_AT(upstream_bytes),
     {{0}}},
    {"hubgate_upstream_limit_remaining",
     GAUGE,
     "requests that upstream allows in this window, as it last said",
     LIMITS_AT(remaining),
     {LABEL("limit", limit_names)}},
    {"hubgate_upstream_limit_wait_seconds",
     GAUGE,
     "how long nothing is asked of upstream",
     WAIT,
     0,
     {LABEL("limit", limit_names)}},
    {"hubgate_upstream_limited_total",
     COUNTER,
     "429 of upstream",
     LIMITS_AT(refused),
     {LABEL("limit", limit_names)}},
    {"hubgate_upstream_held_back_total",
     COUNTER,
     "calls that were not made because of a limit",
     LIMITS_AT(held_back),
     {LABEL("limit", limit_names)}},
    {"hubgate_node_received_bytes_total",
     COUNTER,
     "bytes of large files from other nodes",
     CACHE_AT(node_bytes),
     {{0}}},
    {"hubgate_node_refused_total",
     COUNTER,
     "requests of nodes with another cluster key, or another time",
     CACHE_AT(node_refused),
     {{0}}},
    {"hubgate_fills_total", COUNTER, "files whose fetch was begun", CACHE_AT(fills), {{0}}},
    {"hubgate_filled_bytes_total",
     COUNTER,
     "bytes of files fetched",
     CACHE_AT(blob_bytes_filled),
     {{0}}},
    {"hubgate_fills_in_flight",
     GAUGE,
     "large files being fetched or hashed",
     SLOTS_AT(fills),
     {{0}}},
    {"hubgate_fills_adopted_total",
     COUNTER,
     "fills taken over from another worker",
     CACHE_AT(fills_adopted),
     {{0}}},
    {"hubgate_shared_hits_total",
     COUNTER,
     "records and small files that another node had shared",
     CACHE_AT(share_hits),
     {{0}}},
    {"hubgate_shared_misses_total",
     COUNTER,
     "those that none had shared, or none newer",
     CACHE_AT(share_misses),
     {{0}}},
    {"hubgate_shared_rejected_total",
     COUNTER,
     "values in Redis that were refused",
     CACHE_AT(share_rejected),
     {{0}}},
    {"hubgate_redis_failures_total",
     COUNTER,
     "calls that no Redis answered",
     CACHE_AT(share_errors),
     {{0}}},
    {"hubgate_integrity_failures_total",
     COUNTER,
     "files whose digest or size was wrong",
     CACHE_AT(integrity_failures),
     {{0}}},
    {"hubgate_maps_dropped_total",
     COUNTER,
     "parts that could not be trusted any more",
     CACHE_AT(maps_dropped),
     {{0}}},
    {"hubgate_index_resets_total",
     COUNTER,
     "times the index was set aside",
     CACHE_AT(index_resets),
     {{0}}},
    /* what is held */
    {"hubgate_held_bytes",
     GAUGE,
     "bytes that the cache holds and could free",
     USAGE_AT(blob_bytes),
     {LABEL("kind", held_names)}},
    {"hubgate_held_files", GAUGE, "whole files held", USAGE_AT(blobs), {{0}}},
    {"hubgate_budget_bytes", GAUGE, "cache.max_bytes; 0: none", USAGE_AT(max_bytes), {{0}}},
    {"hubgate_evictions_total",
     COUNTER,
     "files and parts evicted to keep the budget",
     USAGE_AT(evictions),
     {{0}}},
    {"hubgate_evicted_bytes_total", COUNTER, "their bytes", USAGE_AT(evicted_bytes), {{0}}},
    {"hubgate_scrubbed_files_total",
     COUNTER,
     "held files hashed again in the background",
     USAGE_AT(scrubbed),
     {{0}}},
    {"hubgate_scrubbed_bytes_total", COUNTER, "bytes read for it", USAGE_AT(scrubbed_bytes), {{0}}},
    {"hubgate_damaged_files_total",
     COUNTER,
     "held files found damaged by it",
     USAGE_AT(damaged),
     {{0}}},
};

static const uint32_t bounds_us[METRICS_BUCKETS - 1] = {
    100,   250,    500,    1000,    2500,    5000,     10000,   25000,
    50000, 100000, 250000, 1000000, 2500000, 10000000, 30000000};

/* ---- counting ---- */

void metrics_open(struct gateway *gw)
{
    gw->counters = &gw->shared->slots[gw->slot];
    for (_Atomic uint64_t *at = &gw->counters->parked; (void *)at < (void *)gw->counters->pad; at++)
        atomic_store(at, 0);
}

void metrics_tick(struct gateway *gw)
{
    struct gateway_counters *c = gw->counters;

    for (int p = 0; p < GW_PEER_COUNT; p++) {
        uint64_t queued = 0;

        for (const struct gateway_job *job = gw->lanes[p].jobs; job != NULL; job = job->next)
            queued += !job->running;
        atomic_store_explicit(&c->jobs_running[p], gw->lanes[p].running, memory_order_relaxed);
        atomic_store_explicit(&c->jobs_queued[p], queued, memory_order_relaxed);
    }
}

void metrics_first_byte(struct gateway_state *st)
{
    if (st->first_byte_us < 0)
        st->first_byte_us = gw_mono_us() - st->started_us;
}

void metrics_parked(struct gateway *gw, struct gateway_state *st, bool parked)
{
    metrics_gauge(&gw->counters->parked, &st->parked, parked);
}

static enum metrics_route route_of(const struct gateway_state *st)
{
    if (st->parse_status != GW_OK)
        return METRICS_UNKNOWN;
    switch (st->target.route) {
    case HUB_RESOLVE:
    case HUB_RAW:
        return METRICS_FILE;
    case HUB_INFO:
    case HUB_TREE:
    case HUB_PATHS_INFO:
    case HUB_REFS:
    case HUB_COMMITS:
    case HUB_DISCUSSIONS:
    case HUB_TREESIZE:
        return METRICS_DOCUMENT;
    case HUB_AUTH_CHECK:
    case HUB_WHOAMI:
    case HUB_GATEWAY_TOKENS:
        return METRICS_IDENTITY;
    default:
        return METRICS_OTHER;
    }
}

void metrics_end(struct gateway *gw, const struct gateway_request *req, int status,
                 uint64_t bytes_sent)
{
    struct gateway_state *st = req->state;
    struct gateway_counters *c = gw->counters;
    bool ok = status >= 200 && status < 400;
    enum gateway_came came = st->target.has_repo && ok ? st->came : CAME_NOWHERE;
    unsigned class = status >= 100 && status < 600 ? (unsigned)status / 100 : 0, bucket = 0;

    metrics_parked(gw, st, false);
    metrics_gauge(&c->readers_waiting, &st->waiting, false);
    if (st->reader != NULL)
        metrics_add(&c->readers, UINT64_MAX);
    metrics_add(&c->requests[route_of(st)][class], 1);
    metrics_add(&c->answers[came], 1);
    metrics_add(&c->bytes[came], bytes_sent);
    if (st->login != 0)
        metrics_add(&c->logins[st->login - 1], 1);
    if (st->decided && !st->allowed)
        metrics_add(&c->denies, 1);
    if (st->first_byte_us < 0)
        return;
    while (bucket < METRICS_BUCKETS - 1 && st->first_byte_us > (int64_t)bounds_us[bucket])
        bucket++;
    metrics_add(&c->first_byte[came][bucket], 1);
    metrics_add(&c->first_byte_us[came], (uint64_t)st->first_byte_us);
}

/* ---- the text ---- */

static uint64_t read_cell(const struct gateway *gw, enum where where, size_t offset, size_t i)
{
    const struct gateway_shared *s = gw->shared;
    uint64_t sum = 0;

    if (where == BUILD)
        return 1;
    if (where == WAIT)
        return (uint64_t)(cache_limit_wait_ms(&s->cache, (enum cache_limit_kind)i) + 999) / 1000;
    if (where == LIMITS)
        return atomic_load((const _Atomic uint64_t *)((const char *)&s->cache.limits[i] + offset));
    if (where == OPEN)
        return wants_open(gw, (enum gw_peer)i);
    if (where == OPENED)
        return atomic_load(&s->breakers[i].opened);
    if (where == CACHE)
        return atomic_load((const _Atomic uint64_t *)((const char *)&s->cache.counters + offset) +
                           i);
    if (where == USAGE)
        return atomic_load((const _Atomic uint64_t *)((const char *)&s->cache.usage + offset) + i);
    for (size_t slot = 0; slot < CACHE_SLOTS; slot++) {
        const struct cache_slot *owner = &s->cache.slots[slot];

        if (where != WORKERS && atomic_load(&owner->pid) == 0)
            continue;
        if (where == ONE)
            sum++;
        else if (where == SLOTS)
            sum += atomic_load((const _Atomic uint32_t *)((const char *)owner + offset) + i);
        else
            sum += atomic_load_explicit(
                (const _Atomic uint64_t *)((const char *)&s->slots[slot] + offset) + i,
                memory_order_relaxed);
    }
    return sum;
}

static void put_sample(struct gw_buf *out, const struct gateway *gw, const struct row *row,
                       size_t i)
{
    const struct label *a = &row->labels[0], *b = &row->labels[1];

    gw_buf_add_c(out, row->name);
    if (b->name != NULL)
        gw_buf_addf(out, "{%s=\"%s\",%s=\"%s\"}", a->name, a->values[i / b->n], b->name,
                    b->values[i % b->n]);
    else if (a->name != NULL)
        gw_buf_addf(out, "{%s=\"%s\"}", a->name, a->values[i]);
    gw_buf_addf(out, " %llu\n", (unsigned long long)read_cell(gw, row->where, row->offset, i));
}

/* Of the first-byte times, the only histogram: buckets are cumulative, the sum is in seconds. */
static void put_histogram(struct gw_buf *out, const struct gateway *gw, const struct row *row,
                          size_t i)
{
    const char *label = row->labels[0].name, *value = row->labels[0].values[i];
    uint64_t count = 0, sum_us;

    for (size_t k = 0; k < METRICS_BUCKETS; k++) {
        count += read_cell(gw, row->where, row->offset, i * METRICS_BUCKETS + k);
        gw_buf_addf(out, "%s_bucket{%s=\"%s\",le=\"", row->name, label, value);
        if (k < METRICS_BUCKETS - 1)
            gw_buf_addf(out, "%g", bounds_us[k] / 1e6);
        else
            gw_buf_add_c(out, "+Inf");
        gw_buf_addf(out, "\"} %llu\n", (unsigned long long)count);
    }
    sum_us = read_cell(gw, WORKERS, offsetof(struct gateway_counters, first_byte_us), i);
    gw_buf_addf(out, "%s_sum{%s=\"%s\"} %llu.%06u\n%s_count{%s=\"%s\"} %llu\n", row->name, label,
                value, (unsigned long long)(sum_us / 1000000), (unsigned)(sum_us % 1000000),
                row->name, label, value, (unsigned long long)count);
}

static void put_row(struct gw_buf *out, const struct gateway *gw, const struct row *row)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    size_t n = 1;

    gw_buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
                kinds[row->kind]);
    for (size_t i = 0; i < 2 && row->labels[i].name != NULL; i++)
        n *= row->labels[i].n;
    for (size_t i = 0; i < n; i++)
        (row->kind == HISTOGRAM ? put_histogram : put_sample)(out, gw, row, i);
}

bool metrics_allowed(const struct gateway *gw, const struct gateway_request *req)
{
    const struct config_list *list = &gw->config->metrics_allow;
    struct gw_network network;

    for (size_t i = 0; i < list->n; i++)
        if (gw_network_parse(&network, list->items[i]) && gw_network_has(&network, req->peer_ip))
            return true;
    return false;
}

int metrics_answer(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gw_buf out;
    int rc;

    metrics_tick(gw);
    gw_buf_init(&out, TEXT_MAX);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        put_row(&out, gw, &rows[i]);
    rc = out.failed ? GW_NO_MEMORY
                    : answer_json(req, ans, gw_arena_dup(&req->state->arena, gw_buf_str(&out)));
    gw_buf_release(&out);
    if (rc == GW_OK)
        ans->content_type = "text/plain; version=0.0.4; charset=utf-8";
    return rc;
}
