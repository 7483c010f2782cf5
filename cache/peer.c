/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/peer.c - other nodes and fills: who of the cluster asks the Hub, and how the others prove
 * that they may ask that one.
 *
 *   OFF      one node
 *   ASKED --nobody else has it--> OURS    to the Hub; renewed while the fill is owned
 *         --another node has it-> THEIRS  to that node, by digest; asked again when no byte comes
 *         --no answer, or nobody to turn to-> ALONE  to the Hub
 *
 * A lease is asked for by a job that cache_tick names; the fetcher waits for it only as long as
 * Redis may take. It says who should fetch, it protects nothing: bytes are proved by their digest,
 * wherever they came from. Whoever holds a lease asks the Hub and nobody else, so no two nodes wait
 * for each other. The lease of a blob that became whole stays for a while, to say where it is; who
 * finds nobody there takes it over, as one that is not renewed would end.
 *
 * What a node sends to another is an HMAC under the cluster key over method, digest and time.
 */
#include "cache/fill_internal.h"

#include "base/clock.h"
#include "base/encode.h"

#include <inttypes.h>
#include <stdio.h>

#define SCHEME "Hubgate-Node "
#define CLOCKS_DIFFER_S 60

#define LEASE_MS 6000 /* a node that is gone is waited for so long */
#define LEASE_WHOLE_MS (10 * 60 * 1000)
#define LEASE_RENEW_MS 2000
#define LEASE_SILENT_MS 4000 /* a node that has all of it, and sends nothing for so long */
#define LEASE_CALL_MS 2000   /* a ceiling: each round trip has its own */
#define LEASE_LOST_MS 5000   /* a job that was named and never begun is named again */
#define WAIT_MS 200          /* as redis.timeout has it, and a little for the way */
#define WAIT_MORE_MS 50
#define QUIET_MS 5000 /* Redis did not answer: new fills do not wait for it */
#define BROKEN_MAX 3u /* a node that breaks off so often without a byte is left alone */
#define BAN_BROKEN_MS 10000
#define BAN_REFUSED_MS 60000
#define BAN_WRONG_MS (10 * 60 * 1000)

/* ---- what nodes say to each other ---- */

static void credential_mac(struct gw_str key, struct gw_str method, struct gw_str digest,
                           int64_t now_s, char hex[65])
{
    char text[256];
    uint8_t mac[32];
    int n = snprintf(text, sizeof(text), "hubgate-node 1\n" GW_STR_FMT "\n" GW_STR_FMT "\n%" PRId64,
                     GW_STR_ARG(method), GW_STR_ARG(digest), now_s);

    gw_hmac_sha256(key, (struct gw_str){text, (size_t)n}, mac);
    gw_hex_encode(hex, mac, sizeof(mac));
    hex[64] = '\0';
}

void cache_node_credential(const struct cache *c, struct gw_str method, struct gw_str digest,
                           int64_t now_s, char out[CACHE_NODE_CREDENTIAL_MAX])
{
    char hex[65];

    credential_mac(c->options.share.cluster_key, method, digest, now_s, hex);
    snprintf(out, CACHE_NODE_CREDENTIAL_MAX, SCHEME "%" PRId64 ".%s", now_s, hex);
}

/* "Hubgate-Node <time>.<64 characters>" */
static bool credential_parse(struct gw_str value, uint64_t *then, struct gw_str *mac)
{
    struct gw_str scheme = GW_STR(SCHEME), rest = gw_str_sub(value, scheme.n, value.n), text;

    if (!gw_str_starts(value, scheme) || !gw_str_split(&rest, '.', &text) || rest.n != 64 ||
        text.n > 12 || !gw_str_u64(text, then)) {
        return false;
    }
    *mac = rest;
    return true;
}

bool cache_node_credential_formed(const struct cache *c, struct gw_str digest, struct gw_str value)
{
    struct gw_str mac;
    uint64_t then;

    return c->options.share.cluster_key.n != 0 && cache_digest_valid(digest) &&
           credential_parse(value, &then, &mac);
}

bool cache_node_credential_ok(const struct cache *c, struct gw_str method, struct gw_str digest,
                              struct gw_str value, int64_t now_s)
{
    struct gw_str mac;
    uint64_t then;
    char hex[65];

    if (c->options.share.cluster_key.n == 0 || !cache_digest_valid(digest) || method.n > 16 ||
        !credential_parse(value, &then, &mac) || (int64_t)then < now_s - CLOCKS_DIFFER_S ||
        (int64_t)then > now_s + CLOCKS_DIFFER_S) {
        return false;
    }
    credential_mac(c->options.share.cluster_key, method, digest, (int64_t)then, hex);
    return gw_equal_secret(hex, mac.p, 64);
}

/* ---- nodes that are not asked for a while; under the mutex ---- */

static bool banned(const struct fill_table *t, const char *url, const char *digest, int64_t now)
{
    for (size_t i = 0; i < FILL_BANS; i++) {
        const struct fill_ban *b = &t->bans[i];

        if (b->until_ms > now && strcmp(b->url, url) == 0 &&
            (b->digest[0] == '\0' || strcmp(b->digest, digest) == 0)) {
            return true;
        }
    }
    return false;
}

/* digest "": whatever is asked of it. */
static void ban(struct fill_table *t, const char *url, const char *digest, int64_t until_ms)
{
    struct fill_ban *oldest = &t->bans[0];

    for (size_t i = 1; i < FILL_BANS; i++) {
        oldest = t->bans[i].until_ms < oldest->until_ms ? &t->bans[i] : oldest;
    }
    snprintf(oldest->url, sizeof(oldest->url), "%s", url);
    snprintf(oldest->digest, sizeof(oldest->digest), "%s", digest);
    oldest->until_ms = until_ms;
}

/* ---- the fetcher's side ---- */

static int64_t wait_ms(const struct fill_table *t)
{
    int64_t timeout = t->cache->options.share.timeout_ms;

    return (timeout > 0 ? timeout : WAIT_MS) + WAIT_MORE_MS;
}

/* Under the mutex. */
static void ask(struct fill *f, int64_t now)
{
    struct fill_table *t = f->table;

    f->lease.state = LEASE_ASKED;
    f->lease.due_ms = now;
    f->lease.wait_until_ms = now < t->quiet_until_ms ? now : now + wait_ms(t);
}

void lease_begin(struct fill *f)
{
    struct fill_table *t = f->table;
    bool hub_only;

    if (!t->shares || fill_local(f)) {
        return;
    }
    /* What did not have its digest may have been another node's: now it is fetched by ourselves. */
    hub_only = cache_recently_mismatched(t->cache, fill_digest(f));
    pthread_mutex_lock(&t->mutex);
    if (f->lease.ending) { /* wanted again before it was given back */
        f->lease.ending = false;
        f->refs -= f->lease.running ? 0 : 1; /* the owner has one */
    }
    f->lease.hub_only = hub_only;
    f->lease.broken = 0;
    ask(f, gw_mono_ms());
    pthread_mutex_unlock(&t->mutex);
    cache_wake(t->cache->shared, t->cache->slot);
}

enum lease_source lease_source(struct fill *f, int64_t now, char url[CACHE_NODE_URL_MAX + 1],
                               int64_t *until_ms)
{
    struct fill_table *t = f->table;
    enum lease_source source = SOURCE_HUB;

    if (!t->shares) {
        return source;
    }
    pthread_mutex_lock(&t->mutex);
    if (f->lease.state == LEASE_ASKED && now < f->lease.wait_until_ms) {
        *until_ms = f->lease.wait_until_ms;
        source = SOURCE_WAIT;
    } else if (f->lease.state == LEASE_THEIRS) {
        memcpy(url, f->lease.node_url, sizeof(f->lease.node_url));
        source = SOURCE_NODE;
    }
    pthread_mutex_unlock(&t->mutex);
    return source;
}

void lease_flowed(struct fill *f)
{
    atomic_store(&f->lease.flowed_ms, gw_mono_ms());
}

void lease_source_failed(struct fill *f, enum fill_failure kind, int sys, bool moved)
{
    struct fill_table *t = f->table;
    int64_t now = gw_mono_ms();

    pthread_mutex_lock(&t->mutex);
    if (f->lease.state == LEASE_THEIRS) {
        const char *url = f->lease.node_url;

        f->lease.broken = moved ? 1 : f->lease.broken + 1;
        f->lease.theirs_gone = (kind == FILL_STATUS && sys == 404) ||
                               (kind == FILL_NETWORK && !moved &&
                                (f->lease.theirs_whole || f->lease.broken >= BROKEN_MAX));
        if (kind == FILL_NETWORK) {
            if (f->lease.broken >= BROKEN_MAX) {
                ban(t, url, "", now + BAN_BROKEN_MS);
            }
        } else if (kind == FILL_STATUS) {
            ban(t, url, f->digest, now + BAN_REFUSED_MS);
        } else {
            ban(t, url, f->digest, now + BAN_WRONG_MS);
        }
        gw_log_write(&t->cache->log, GW_LOG_NOTICE, "cache: node %s does not send %.12s (%d, %d)",
                     url, f->digest, (int)kind, sys);
        ask(f, now);
    }
    pthread_mutex_unlock(&t->mutex);
    cache_wake(t->cache->shared, t->cache->slot);
}

/* ---- the loop's side; under the mutex ---- */

bool lease_due(const struct fill *f, int64_t now)
{
    if (f->lease.state == LEASE_OFF || (!f->owned && !f->lease.ending) || now < f->lease.due_ms) {
        return false;
    }
    if (f->lease.state == LEASE_THEIRS && !f->lease.ending &&
        now - atomic_load(&f->lease.flowed_ms) < LEASE_RENEW_MS) {
        return false; /* it comes: whose lease it is does not matter */
    }
    return !f->lease.out || (!f->lease.running && now - f->lease.out_ms >= LEASE_LOST_MS);
}

void lease_name(struct fill *f, struct gw_want *want, int64_t now)
{
    if (!f->lease.out) {
        f->lease.out = true;
        f->refs++;
    }
    f->lease.out_ms = now;
    want->peer = GW_PEER_REDIS;
    want->key = gw_str_c(f->lease_key);
    want->arg = (struct gw_str){NULL, 0};
}

void lease_end(struct fill *f, bool whole)
{
    if (f->lease.state == LEASE_OURS && !f->lease.ending) {
        f->lease.ending = true;
        f->lease.whole = whole;
        f->lease.due_ms = 0;
        f->refs++;
    }
}

/* ---- the job ---- */

struct lease_try {
    bool ending, whole, steal;
    uint64_t fence; /* the one that is ours, or whose holder has nothing */
    struct cache_lease got;
    int rc;
};

static void call(const struct fill *f, struct lease_try *y, int64_t deadline_ms,
                 struct gw_error *err)
{
    struct fill_table *t = f->table;
    struct gw_str own = t->cache->options.share.node_url, name;
    int64_t life = y->ending ? LEASE_WHOLE_MS : LEASE_MS;
    char text[sizeof(f->lease_key)];

    snprintf(text, sizeof(text), "fill:%s", f->digest);
    name = gw_str_c(text);
    if ((y->ending && !y->whole) || y->steal) {
        y->rc = t->lease_drop(t->cache, name, y->fence, deadline_ms, err);
        if (y->rc != GW_OK || y->ending) {
            return;
        }
        y->fence = 0;
    }
    y->rc = t->lease_take(t->cache, name, y->fence, life, &y->got, deadline_ms, err);
    if (y->rc == GW_CONFLICT && own.n != 0 && gw_str_eq_c(own, y->got.node_url)) {
        /* another worker of this node has left it to us */
        y->rc = t->lease_take(t->cache, name, y->got.fence, life, &y->got, deadline_ms, err);
    }
}

/* Under the mutex. */
static void learn(struct fill *f, const struct lease_try *y)
{
    struct fill_table *t = f->table;
    int64_t now = gw_mono_ms();
    bool silent = f->lease.state == LEASE_THEIRS && y->got.fence == f->lease.theirs &&
                  now - atomic_load(&f->lease.flowed_ms) >= LEASE_SILENT_MS;

    f->lease.due_ms = now + LEASE_RENEW_MS;
    switch (y->rc) {
    case GW_OK:
        f->lease.state = LEASE_OURS;
        f->lease.mine = y->got.fence;
        break;
    case GW_CONFLICT:
        if (f->lease.state != LEASE_THEIRS) {
            lease_flowed(f); /* from now on it is silent */
        }
        f->lease.theirs_whole = y->got.ends_ms - gw_wall_ms() > 2 * LEASE_MS;
        if (silent && f->lease.theirs_whole) { /* it has all, and sends nothing */
            ban(t, y->got.node_url, "", now + BAN_BROKEN_MS);
            f->lease.theirs_gone = true;
            f->lease.due_ms = now;
        }
        f->lease.state = f->lease.hub_only || y->got.node_url[0] == '\0' ||
                                 banned(t, y->got.node_url, f->digest, now)
                             ? LEASE_ALONE
                             : LEASE_THEIRS;
        f->lease.mine = 0;
        f->lease.theirs = y->got.fence;
        memcpy(f->lease.node_url, y->got.node_url, sizeof(f->lease.node_url));
        break;
    default: /* who has it, or follows somebody, goes on */
        t->quiet_until_ms = now + QUIET_MS;
        if (f->lease.state == LEASE_ASKED) {
            f->lease.state = LEASE_ALONE;
        }
    }
}

int cache_lease_job(struct cache *c, struct gw_str key, int64_t deadline_ms, struct gw_error *err)
{
    struct fill_table *t = c->fills;
    struct lease_try y = {0};
    struct fill *f, *last;

    if (t == NULL) {
        return GW_OK;
    }
    pthread_mutex_lock(&t->mutex);
    for (f = t->list; f != NULL; f = f->next) {
        if (f->lease.out && !f->lease.running && gw_str_eq_c(key, f->lease_key)) {
            f->lease.running = true;
            y.ending = f->lease.ending;
            y.whole = f->lease.whole;
            y.steal = f->lease.theirs_gone;
            y.fence = y.steal ? f->lease.theirs : f->lease.mine;
            f->lease.theirs_gone = false;
            break;
        }
    }
    pthread_mutex_unlock(&t->mutex);
    if (f == NULL) {
        return GW_OK; /* a late twin */
    }
    y.rc = GW_UNAVAILABLE;
    if (deadline_ms != 0) {
        int64_t most = gw_mono_ms() + LEASE_CALL_MS;

        call(f, &y, deadline_ms < most ? deadline_ms : most, err);
    }
    pthread_mutex_lock(&t->mutex);
    f->lease.out = f->lease.running = false;
    if (!y.ending) {
        learn(f, &y);
    } else {
        f->lease.ending = false;
        (void)fill_drop_ref(f); /* never the last */
    }
    last = fill_drop_ref(f);
    pthread_mutex_unlock(&t->mutex);
    if (last != NULL) {
        fill_free(last);
    } else if (t->fetcher != NULL) {
        fetcher_wake(t->fetcher);
    }
    return y.rc == GW_CONFLICT ? GW_OK : y.rc;
}
