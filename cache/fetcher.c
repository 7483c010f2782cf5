/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/fetcher.c - the thread that moves the bytes of large fills: a libcurl multi loop.
 *
 *   transfer  begun (redirects followed by hand, each hop checked), body written and marked, ended
 *   fill      active: has transfers, or waits for its next try, or for a free place
 *
 * A transfer has a share of some MiB before it and claims one granule at a time. A granule that
 * somebody waits for gets one of its own, and ends the one that had it before it, unless that one
 * comes by as soon. Shares are planned here only; the map knows what is there, what is under way,
 * and what is wanted. All but the first transfer go where the first was redirected to; when that
 * place refuses, the Hub is asked again. A fill that another node of the cluster fetches comes from
 * there (peer.c says which): in order and by one transfer, besides what somebody waits for, because
 * that node has the same to give to its own. What a transfer does with its answer is transfer.c.
 */
#include "cache/fetcher_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define SHARE_MIN 4u /* granules before one transfer; fewer only where no more are wanted */
#define SHARE_MAX 16u
#define PATIENCE_MS 200 /* a transfer that will be there so soon is waited for */
#define LOOK_AGAIN_MS 50
#define KNOWN_MS 1000 /* the first answer is waited for so long before others are asked for */
#define YIELD_MS 500
#define SLOW 8.0 /* a transfer that is so many times slower than another was is begun anew */
#define SLOW_MS 2000
#define HURRY_MS 5000
#define CHECK_MS 500
#define URL_MS (10 * 60 * 1000) /* a redirect's target is used so long: signatures end */
#define LOCATION_MAX (16u << 10)
#define TRIES 4u                 /* weight of failures without progress in between */
#define RETRY_AFTER_MAX_MS 10000 /* waited for; a longer one fails the fill for that long */
#define REST_MAX_MS 60000
#define REST_DISK_MS 30000
#define HOUSEKEEP_MS 100
#define LOOK_MS 1000
#define SCAN_MS 5000
#define IDLE_MS 500
#define RESOLVE_MS 20 /* until a name is asked for again */
#define RESOLVED_MS 10000

/* ---- transfers ---- */

/* keep: what came is written; not when the fill was taken away in between and the map is another's
 * work. */
static void end_transfer(struct transfer *t, bool keep)
{
    struct fetcher *x = t->fetcher;
    struct fill *f = t->fill;

    if (t->added) {
        curl_multi_remove_handle(x->multi, t->easy);
    }
    if (t->easy != NULL) {
        curl_easy_cleanup(t->easy);
    }
    cache_transfer_release(&t->extra);
    if (t->pos > t->start) {
        double rate = (double)(t->pos - t->start) / (double)(gw_mono_ms() - t->started_ms + 1);

        f->best = rate > f->best ? rate : f->best;
    }
    if (keep && transfer_flush(t) && fill_ours(f) && !fill_ended(f)) {
        if (t->pos < t->end && t->pos % CACHE_GRANULE == 0) { /* nothing of this granule came */
            atomic_store(&f->map.live->transfers[t->index], 0);
            transfer_mark_granule(&f->map, t->pos / CACHE_GRANULE, GRANULE_LIVE,
                                  t->demanded && t->pos == t->start ? GRANULE_DEMANDED
                                                                    : GRANULE_WANTED);
        }
    }
    for (struct transfer **p = &x->live; *p != NULL; p = &(*p)->next) {
        if (*p == t) {
            *p = t->next;
            x->n_live--;
            f->n_transfers--;
            places_give(x);
            break;
        }
    }
    for (struct fill *other = x->active; other != NULL; other = other->active_next) {
        other->due_ms = 0; /* there is a free place */
    }
    gw_buf_release(&t->url);
    gw_buf_release(&t->answer.location);
    gw_free(t->buffer);
    gw_free(t);
    x->again = true;
}

/* Leaves the fill to whoever wants it again. */
static void give_up(struct fill *f, enum fill_failure kind, int sys, int64_t rest_ms)
{
    f->not_before_ms = gw_mono_ms() + rest_ms;
    fill_fail(f, kind, sys, f->not_before_ms);
    if (kind == FILL_DISK) { /* what is there takes the room that others need: a job drops it */
        pthread_mutex_lock(&f->table->mutex);
        f->drop = true;
        pthread_mutex_unlock(&f->table->mutex);
        f->not_before_ms = INT64_MAX;
        fill_progress(f);
        return;
    }
    fill_let_go(f);
}

/* @param weight of this failure: 1 for what passes by itself, 2 for what hardly does, TRIES for
 * what does not */
static void failed(struct fill *f, enum fill_failure kind, int sys, unsigned weight,
                   int64_t retry_after_ms)
{
    int64_t delay;

    f->failures += weight;
    if (kind == FILL_DISK) {
        give_up(f, kind, sys, REST_DISK_MS);
        return;
    }
    if (f->n_transfers > 0 && kind != FILL_CHANGED && kind != FILL_REFUSED) {
        /* What one of them met is no reason to stop the others; the last one decides. */
        f->failures = f->failures < TRIES ? f->failures : TRIES - 1;
        retry_after_ms = retry_after_ms < REST_MAX_MS ? retry_after_ms : REST_MAX_MS;
    } else if (f->failures >= TRIES || retry_after_ms > RETRY_AFTER_MAX_MS) {
        delay = retry_after_ms > f->table->rest_ms ? retry_after_ms : f->table->rest_ms;
        give_up(f, kind, sys, delay < REST_MAX_MS ? delay : REST_MAX_MS);
        return;
    }
    delay = f->table->retry_ms << (f->failures > 0 ? f->failures - 1 : 0);
    f->not_before_ms = gw_mono_ms() + (delay > retry_after_ms ? delay : retry_after_ms);
    f->due_ms = 0;
}

static int status_weight(const struct transfer *t)
{
    switch (t->answer.status) {
    case 408:
    case 429:
        return 1;
    case 401:
    case 403:
        return t->own
                   ? (int)TRIES
                   : 2; /* another host's: the signature has expired, ask the Hub for a new one */
    default:
        return t->answer.status >= 500 ? 1 : (int)TRIES;
    }
}

static void fail_transfer(struct transfer *t, enum fill_failure kind, int sys, int weight,
                          int64_t retry_after_ms)
{
    struct fill *f = t->fill;
    bool refused =
        t->short_cut && kind == FILL_STATUS && sys >= 400 && sys < 500 && sys != 408 && sys != 429;

    if (t->node && kind != FILL_DISK && kind != FILL_MEMORY) {
        bool moved = t->pos > t->start;

        end_transfer(t, true);
        lease_source_failed(f, kind, sys, moved);
        f->not_before_ms = gw_mono_ms() + f->table->retry_ms / 4; /* not in a circle without end */
        f->due_ms = 0;
        return;
    }
    if (kind == FILL_NETWORK || (kind == FILL_STATUS && (sys == 408 || sys == 429 || sys >= 500))) {
        atomic_fetch_add(&f->table->cache->shared->counters.upstream_failures, 1);
    }
    end_transfer(t, true);
    transfer_forget_url(f); /* whatever it was, the Hub may know better */
    if (!refused && fill_ours(f) && !fill_ended(f)) {
        failed(f, kind, sys, (unsigned)weight, retry_after_ms);
    }
}

/* The next request of a transfer, to t->url. */
static void hop(struct transfer *t)
{
    struct cache *c = t->fill->table->cache;
    char range[64], credential[32 + CACHE_NODE_CREDENTIAL_MAX] = "Authorization: ";
    size_t n = strlen(credential);
    struct gw_error err = {0};
    int rc;

    curl_easy_reset(t->easy);
    cache_transfer_release(&t->extra);
    memset(&t->extra, 0, sizeof(t->extra));
    t->again_ms = 0;
    if (t->node) {
        cache_node_credential(c, GW_STR("GET"), fill_digest(t->fill), gw_wall_ms() / 1000,
                              credential + n);
        rc = cache_upstream_setup_node(c, t->easy, t->url.p, credential, &t->extra, &err);
    } else if (cache_upstream_may_ask(c, t->url.p, NULL) != GW_OK) {
        /* as if it had said so again */
        fail_transfer(t, FILL_STATUS, 429, 1,
                      cache_limit_wait_ms(c->shared, CACHE_LIMIT_RESOLVERS));
        return;
    } else {
        rc = cache_upstream_setup(c, t->easy, t->url.p, NULL, 0, 0, &t->extra, &err);
    }
    if (rc == GW_AGAIN && gw_mono_ms() - t->begun_ms < RESOLVED_MS) {
        t->again_ms = gw_mono_ms() + RESOLVE_MS;
        return;
    }
    if (rc != GW_OK) {
        fail_transfer(t, rc == GW_INVALID ? FILL_SOURCE : FILL_NETWORK,
                      rc == GW_INVALID ? 0 : CURLE_COULDNT_RESOLVE_HOST,
                      rc == GW_INVALID ? (int)TRIES : 1, 0);
        return;
    }
    t->asked = t->end;
    if (t->end < t->fill->map.head->size) {
        snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)t->start,
                 (unsigned long long)(t->end - 1));
    } else {
        snprintf(range, sizeof(range), "%llu-", (unsigned long long)t->start);
    }
    transfer_reset_answer(&t->answer);
    t->answer.header_bytes = 0;
    t->ignored = 0;
    t->own = !t->node && cache_upstream_own(c, t->url.p);
    curl_easy_setopt(t->easy, CURLOPT_RANGE, range);
    curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, transfer_on_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, transfer_on_body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    if (curl_multi_add_handle(t->fetcher->multi, t->easy) != CURLM_OK) {
        fail_transfer(t, FILL_MEMORY, 0, 1, 0);
        return;
    }
    t->added = true;
    atomic_fetch_add(&c->shared->counters.upstream_calls, t->node ? 0 : 1);
}

static void follow(struct transfer *t)
{
    struct cache *c = t->fill->table->cache;
    struct gw_buf to;
    bool own = false;
    int rc = GW_FORBIDDEN;

    gw_buf_init(&to, LOCATION_MAX);
    if (t->hops++ < CACHE_REDIRECTS_MAX && t->answer.location.n > 0 && !t->answer.location.failed) {
        rc = cache_upstream_redirect(c, t->url.p, gw_buf_str(&t->answer.location), &to, &own, NULL);
    }
    if (rc != GW_OK) {
        gw_buf_release(&to);
        fail_transfer(t, rc == GW_NO_MEMORY ? FILL_MEMORY : FILL_REDIRECT, 0, (int)TRIES, 0);
        return;
    }
    gw_buf_release(&t->url);
    t->url = to;
    t->begun_ms = gw_mono_ms();
    hop(t);
}

/* A request has ended, one way or the other. */
static void finish(struct transfer *t, CURLcode code)
{
    struct fill *f = t->fill;
    int status = t->answer.status;
    curl_off_t retry_after = 0;

    curl_multi_remove_handle(t->fetcher->multi, t->easy);
    t->added = false;
    cache_upstream_heard(f->table->cache, t->easy, t->url.p, status);
    if (!transfer_flush(t) && t->bad == 0) {
        end_transfer(t, false); /* lost, or ended */
        return;
    }
    if (t->bad != 0) {
        fail_transfer(t, t->bad, t->bad_sys, t->bad == FILL_CHANGED ? (int)TRIES : 2, 0);
        return;
    }
    if (!fill_ours(f) || fill_ended(f) || t->complete) {
        end_transfer(t, true);
        return;
    }
    if (status >= 300 || (status != 200 && status != 206 && status != 0)) {
        if (cache_is_redirect(status)) {
            enum fill_failure bad = t->node ? 0 : transfer_check_identity(t);

            if (bad != 0) {
                fail_transfer(t, bad, 0, (int)TRIES, 0);
            } else if (t->node) {
                fail_transfer(t, FILL_REDIRECT, 0, (int)TRIES, 0);
            } else {
                follow(t);
            }
            return;
        }
        curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &retry_after);
        if (retry_after < 0 || retry_after > REST_MAX_MS / 1000) {
            retry_after = REST_MAX_MS / 1000;
        }
        fail_transfer(t, t->own && (status == 401 || status == 403) ? FILL_REFUSED : FILL_STATUS,
                      status, status_weight(t), (int64_t)retry_after * 1000);
        return;
    }
    if (code != CURLE_OK) {
        cache_upstream_unreached(f->table->cache, (int)code, t->url.p, t->node);
        fail_transfer(t, FILL_NETWORK, (int)code, 1, 0);
        return;
    }
    /* Ended properly, and is less than what was asked for: fine if it was an honest 206 and brought
     * something. */
    if (t->checked && status == 206 && t->pos == t->answer.end && t->pos > t->start) {
        end_transfer(t, true);
        return;
    }
    fail_transfer(t, FILL_RANGE, 0, 2, 0);
}

/* ---- what is fetched next ---- */

/* The transfer that has this granule before it, or is in it. */
static struct transfer *planned(const struct fetcher *x, const struct fill *f, uint64_t g)
{
    for (struct transfer *t = x->live; t != NULL; t = t->next) {
        if (t->fill == f && g >= t->pos / CACHE_GRANULE && g * CACHE_GRANULE < t->end) {
            return t;
        }
    }
    return NULL;
}

/* One past the last granule of a transfer that begins at g: a share of what is wanted from there
 * on. What somebody began, and what another one has before it, ends it. */
static uint64_t share_end(const struct fetcher *x, const struct fill *f, uint64_t g)
{
    const struct map *m = &f->map;
    uint64_t most = (uint64_t)x->table->transfers * SHARE_MAX, n = 1, share;
    bool all = atomic_load(&m->live->all) != 0,
         alone = f->no_ranges || f->node != NULL || x->table->transfers == 1;

    while (g + n < m->granules && (n < most || alone)) {
        uint8_t now = atomic_load(&m->granule[g + n]);
        bool wanted = now == GRANULE_WANTED || now == GRANULE_DEMANDED;

        if (now == GRANULE_VALID || now == GRANULE_LIVE || !(all || wanted) ||
            planned(x, f, g + n) != NULL) {
            break;
        }
        n++;
    }
    if (alone) {
        return g + n;
    }
    share = (n + x->table->transfers - 1) / x->table->transfers;
    share = share < SHARE_MIN ? SHARE_MIN : share > SHARE_MAX ? SHARE_MAX : share;
    return g + (n < share ? n : share);
}

/* A word of the map for a transfer that begins in g: the one of whoever began it and wrote *had
 * bytes of it, else one that nobody uses. */
static unsigned take_word(const struct fetcher *x, const struct fill *f, uint64_t g, uint64_t *had)
{
    const struct map *m = &f->map;
    uint32_t used = 0;
    unsigned index = MAP_TRANSFERS;

    for (const struct transfer *t = x->live; t != NULL; t = t->next) {
        used |= t->fill == f ? 1u << t->index : 0;
    }
    *had = 0;
    for (unsigned i = 0; i < MAP_TRANSFERS; i++) {
        uint64_t word = atomic_load(&m->live->transfers[i]);

        if ((used >> i & 1) != 0) {
            continue;
        }
        if (word != 0 && transfer_granule(word) == g &&
            atomic_load(&m->granule[g]) == GRANULE_LIVE &&
            transfer_bytes(word) < map_bytes(m, g + 1) - g * CACHE_GRANULE) {
            *had = transfer_bytes(word);
            return i;
        }
        if (index == MAP_TRANSFERS || (word == 0 && atomic_load(&m->live->transfers[index]) != 0)) {
            index = i; /* an unused one; if there is none, of what somebody left: fetched again */
        }
    }
    return index;
}

/* With a place that was taken for it. */
static void start(struct fetcher *x, struct fill *f, uint64_t g, bool demanded)
{
    struct map *m = &f->map;
    struct cache *c = x->table->cache;
    struct transfer *t = gw_alloc(sizeof(*t));
    uint64_t had;
    int rc;

    if (t == NULL || (t->buffer = gw_alloc(BUFFER_BYTES)) == NULL ||
        (t->easy = curl_easy_init()) == NULL) {
        if (t != NULL) {
            gw_free(t->buffer);
        }
        gw_free(t);
        places_give(x);
        failed(f, FILL_MEMORY, 0, 1, 0);
        return;
    }
    t->fetcher = x;
    t->fill = f;
    t->demanded = demanded;
    t->index = take_word(x, f, g, &had);
    t->start = t->pos = g * CACHE_GRANULE + had;
    t->end = map_bytes(m, share_end(x, f, g));
    t->started_ms = t->begun_ms = gw_mono_ms();
    gw_buf_init(&t->url, LOCATION_MAX);
    gw_buf_init(&t->answer.location, LOCATION_MAX);
    transfer_reset_answer(&t->answer);
    atomic_store(&m->live->transfers[t->index], transfer_word(g, had));
    transfer_enter_granule(m, g);
    t->next = x->live;
    x->live = t;
    x->n_live++;
    f->n_transfers++;
    f->turn = ++x->turns;
    if (f->url != NULL && t->begun_ms - f->url_ms > URL_MS) {
        transfer_forget_url(f);
    }
    if (f->node != NULL) {
        t->node = true;
        gw_buf_addf(&t->url, "%s/-/blob/%s", f->node, f->digest);
        rc = gw_buf_ok(&t->url, NULL);
    } else if (f->url != NULL) { /* the Hub is asked once per file, not once per share: it counts */
        t->short_cut = true;
        gw_buf_add(&t->url, gw_str_c(f->url));
        rc = t->url.failed ? GW_NO_MEMORY : GW_OK;
    } else {
        rc = cache_upstream_url(c, (struct gw_str){m->head->source, m->head->source_len}, &t->url,
                                NULL);
    }
    if (rc != GW_OK) {
        fail_transfer(t, FILL_SOURCE, 0, (int)TRIES, 0);
        return;
    }
    hop(t);
}

/* How long until this transfer is at that granule, as it goes now. */
static int64_t arrives_ms(const struct transfer *t, uint64_t g, int64_t now)
{
    uint64_t moved = t->pos - t->start, left = g * CACHE_GRANULE - t->pos;
    int64_t age = now - t->started_ms;

    if (moved == 0) {
        return age < PATIENCE_MS ? 0 : INT64_MAX;
    }
    return (int64_t)((double)left * (double)(age + 1) / (double)moved);
}

/* Somebody waits and there is no place: the transfer with the most before it ends with its granule;
 * not too often, because a connection is lost by it. of: NULL: of any fill. */
static void make_room(struct fetcher *x, struct fill *f, const struct fill *of, int64_t now)
{
    struct transfer *most = NULL;

    if (now - f->yielded_ms < YIELD_MS) {
        return;
    }
    for (struct transfer *t = x->live; t != NULL; t = t->next) {
        if ((of == NULL || t->fill == of) && t->used == 0 && !t->fill->no_ranges &&
            t->end - t->pos > 2 * (uint64_t)CACHE_GRANULE &&
            !(t->demanded && t->pos - t->start < CACHE_GRANULE) &&
            (most == NULL || t->end - t->pos > most->end - most->pos)) {
            most = t;
        }
    }
    if (most != NULL) {
        most->end = (most->pos / CACHE_GRANULE + 1) * CACHE_GRANULE;
        f->yielded_ms = now;
    }
}

/* Granules that somebody waits for get a transfer of their own, unless one that is on its way will
 * be there as soon. */
static void serve_demands(struct fetcher *x, struct fill *f, int64_t now)
{
    struct fill_table *table = x->table;
    const struct map *m = &f->map;

    for (uint64_t g = map_demanded(m, 0); g < m->granules; g = map_demanded(m, g + 1)) {
        struct transfer *t = planned(x, f, g);

        if (f->not_before_ms > now || f->n_transfers >= (f->no_ranges ? 1 : table->transfers + 1)) {
            if (!f->no_ranges && f->not_before_ms <= now) {
                make_room(x, f, f, now);
            }
            f->due_ms = now + LOOK_AGAIN_MS;
            return;
        }
        if (t != NULL && (g == t->pos / CACHE_GRANULE || f->no_ranges || t->used > 0)) {
            continue;
        }
        if (t != NULL && arrives_ms(t, g, now) < PATIENCE_MS) {
            f->due_ms = now + LOOK_AGAIN_MS;
            continue;
        }
        if (!places_take(x, true)) {
            make_room(x, f, NULL, now);
            f->due_ms = now + LOOK_AGAIN_MS;
            return;
        }
        if (t != NULL) { /* it ends where the new one begins */
            t->end = g * CACHE_GRANULE;
        }
        start(x, f, g, true);
    }
}

/* One connection can be slow where another one is not: it would hold up whoever waits behind it,
 * and the end. It begins anew, where it was; not often, and with less hope each time. */
static void hurry(struct fetcher *x, struct fill *f, int64_t now)
{
    struct transfer *slow = NULL;

    for (struct transfer *t = x->live; t != NULL; t = t->next) {
        int64_t age = now - t->started_ms;
        double rate = (double)(t->pos - t->start) / (double)(age + 1);
        uint64_t left = CACHE_GRANULE - t->pos % CACHE_GRANULE;

        if (t->fill != f || !t->checked || t->used > 0 || age < CHECK_MS) {
            continue;
        }
        f->best = rate > f->best ? rate : f->best;
        if (age >= SLOW_MS && rate * SLOW < f->best && (double)left > rate * SLOW_MS) {
            slow = t;
        }
    }
    if (slow != NULL && !f->no_ranges && f->node == NULL && now - f->hurried_ms >= HURRY_MS) {
        f->hurried_ms = now;
        f->best /= 2;
        end_transfer(slow, true);
    }
}

/* The next granule that nobody has before it. */
static uint64_t next_wanted(const struct fetcher *x, struct fill *f)
{
    const struct map *m = &f->map;
    const struct transfer *t;
    uint64_t g;

    pthread_mutex_lock(&f->table->mutex);
    g = f->contiguous;
    pthread_mutex_unlock(&f->table->mutex);
    for (g = map_wanted(m, g); g < m->granules && (t = planned(x, f, g)) != NULL;) {
        g = map_wanted(m, (t->end - 1) / CACHE_GRANULE + 1);
    }
    return g;
}

/* May more be asked for? While nobody knows where, and whether ranges are understood, one asks. */
static bool known(const struct fetcher *x, const struct fill *f, int64_t now)
{
    for (const struct transfer *t = x->live; t != NULL && !f->answered; t = t->next) {
        if (t->fill == f && !t->checked && now - t->started_ms < KNOWN_MS) {
            return false;
        }
    }
    return true;
}

/* Of the fills that may have one more transfer, the one with the fewest; then who waited longest.
 */
static struct fill *neediest(const struct fetcher *x, int64_t now)
{
    struct fill *best = NULL;

    for (struct fill *f = x->active; f != NULL; f = f->active_next) {
        unsigned most = f->no_ranges || f->node != NULL ? 1 : x->table->transfers;

        if (!f->served && f->not_before_ms <= now && f->n_transfers < most && known(x, f, now) &&
            (best == NULL || f->n_transfers < best->n_transfers ||
             (f->n_transfers == best->n_transfers && f->turn < best->turn))) {
            best = f;
        }
    }
    return best;
}

/* ---- fills ---- */

static void end_all(struct fetcher *x, struct fill *f, bool keep)
{
    for (struct transfer *t = x->live, *next; t != NULL; t = next) {
        next = t->next;
        if (t->fill == f) {
            end_transfer(t, keep);
        }
    }
}

static void deactivate(struct fetcher *x, struct fill *f)
{
    for (struct fill **p = &x->active; *p != NULL; p = &(*p)->active_next) {
        if (*p == f) {
            *p = f->active_next;
            break;
        }
    }
    f->active = false;
    end_all(x, f, true);
    fill_unref(f);
}

/* Whom the next transfers ask. What is on its way from somebody else ends: it is known why it is no
 * longer right. @return false: nobody yet */
static bool choose_source(struct fetcher *x, struct fill *f, int64_t now)
{
    char url[CACHE_NODE_URL_MAX + 1];
    enum lease_source source = lease_source(f, now, url, &f->due_ms);

    if (source == SOURCE_WAIT) {
        return false;
    }
    if (source == SOURCE_NODE ? f->node != NULL && strcmp(f->node, url) == 0 : f->node == NULL) {
        return true;
    }
    end_all(x, f, true);
    transfer_forget_url(f);
    gw_free(f->node);
    f->node = source == SOURCE_NODE ? gw_strndup(url, strlen(url)) : NULL;
    f->no_ranges = false;
    f->best = 0;
    f->failures = 0;
    f->due_ms = 0;
    return source == SOURCE_HUB || f->node != NULL;
}

static void activate(struct fetcher *x, struct fill *f)
{
    struct gw_sha256 s;

    if (f->active) { /* lost and taken again in between */
        end_all(x, f, false);
        fill_unref(f);
    } else {
        f->active = true;
        f->active_next = x->active;
        x->active = f;
    }
    f->failures = 0;
    f->not_before_ms = f->due_ms = 0;
    f->answered = f->no_ranges = false;
    f->best = 0;
    f->hurried_ms = 0;
    if (!fill_safe(f)) {
        return;
    }
    lease_begin(f);
    map_settle(&f->map);
    map_hash_load(&f->map, &s);
    pthread_mutex_lock(&f->table->mutex);
    f->contiguous = 0;
    if (!f->job_out) {
        f->hashed = s.bytes;
    }
    pthread_mutex_unlock(&f->table->mutex);
    fill_progress(f);
}

static void take_queue(struct fetcher *x)
{
    struct fill_table *t = x->table;

    for (;;) {
        struct fill *f;

        pthread_mutex_lock(&t->mutex);
        f = t->queue;
        if (f != NULL) {
            t->queue = f->queue_next;
            f->queue_next = NULL;
            f->queued = false;
        }
        pthread_mutex_unlock(&t->mutex);
        if (f == NULL) {
            return;
        }
        activate(x, f);
    }
}

/* Ends what is over, and finds out whose turn it is to be looked at. */
static void review(struct fetcher *x, int64_t now)
{
    for (struct fill *f = x->active, *next; f != NULL; f = next) {
        uint32_t demands;

        next = f->active_next;
        if (!fill_safe(f) || !fill_ours(f) || fill_ended(f)) {
            if (!fill_ended(f) && map_unfinished(&f->map)) {
                gw_log_write(&f->table->cache->log, GW_LOG_NOTICE,
                             "cache: fill of %s was taken over by another process", f->digest);
            }
            fill_let_go(f); /* nothing, if whoever ended it did so */
            deactivate(x, f);
            continue;
        }
        if (f->not_before_ms == INT64_MAX) { /* a job drops it */
            end_all(x, f, false);
        }
        demands = atomic_load(&f->map.live->demands);
        if (demands != f->demands_seen) {
            f->demands_seen = demands;
            f->due_ms = 0;
        }
        if (!atomic_load(&f->settled) && part_at_rest(f)) {
            atomic_store(&f->settled, true);
            fill_progress(f); /* jobs may hash now */
        }
        if (!choose_source(x, f, now)) {
            f->served = true;
            continue;
        }
        f->served = f->due_ms > now;
        if (!f->served) {
            f->due_ms =
                f->n_transfers > 0 ? now + (f->answered ? CHECK_MS : KNOWN_MS / 4) : INT64_MAX;
            if (f->not_before_ms > now && f->not_before_ms < f->due_ms) {
                f->due_ms = f->not_before_ms;
            }
            if (!atomic_load(&f->settled) && f->due_ms > now + LOOK_AGAIN_MS) {
                f->due_ms = now + LOOK_AGAIN_MS;
            }
        }
    }
}

static void look_again(struct fetcher *x, int64_t now)
{
    for (struct fill *f = x->active; f != NULL; f = f->active_next) {
        f->due_ms = f->due_ms < now + LOOK_AGAIN_MS ? f->due_ms : now + LOOK_AGAIN_MS;
    }
}

static void work(struct fetcher *x, int64_t now)
{
    unsigned blobs = 0;
    struct fill *f;

    review(x, now);
    for (f = x->active; f != NULL; f = f->active_next) {
        blobs += !fill_local(f);
    }
    places_want(x, blobs);
    if (places_over(x)) {
        make_room(x, x->live->fill, NULL, now);
    }
    for (f = x->active; f != NULL; f = f->active_next) {
        if (!f->served && !fill_local(f)) {
            hurry(x, f, now);
            serve_demands(x, f, now);
        }
    }
    while ((f = neediest(x, now)) != NULL) {
        uint64_t g = next_wanted(x, f);

        if (g < f->map.granules && fill_local(f)) {
            f->served = true;
            local_wanted(f);
            continue;
        }
        if (g < f->map.granules && !places_take(x, false)) {
            look_again(x, now); /* nobody says when another worker gives one back */
            break;
        }
        if (g < f->map.granules) {
            start(x, f, g, false);
            continue;
        }
        f->served = true;
        if (f->n_transfers == 0 &&
            atomic_load(&f->settled)) { /* nothing is wanted: a job ends it, or a reader comes */
            if (map_missing(&f->map, 0) < f->map.granules) {
                fill_let_go(f);
            }
            deactivate(x, f);
        }
    }
    for (struct transfer *t = x->live, *next; t != NULL; t = next) {
        next = t->next;
        if (t->again_ms != 0 && t->again_ms <= now) {
            hop(t);
        }
    }
}

/* Signs of life, dead owners, files that were removed; now and then a look at parts/. */
static void housekeep(struct fetcher *x, int64_t now)
{
    struct fill_table *t = x->table;
    struct cache_shared *shared = t->cache->shared;
    uint32_t orphaned = atomic_load(&shared->fills_orphaned);
    int64_t scanned = atomic_load(&shared->fills_scanned_ms);
    size_t n;

    if (now - x->housekept_ms < HOUSEKEEP_MS) {
        return;
    }
    n = x->attached = fill_snapshot(t, &x->array, &x->cap);
    for (size_t i = 0; i < n; i++) {
        struct fill *f = x->array[i];
        bool owned;

        (void)fill_safe(f);
        if (now - f->looked_ms >= LOOK_MS) {
            f->looked_ms = now;
            fill_look(f);
        }
        pthread_mutex_lock(&t->mutex);
        owned = f->owned;
        pthread_mutex_unlock(&t->mutex);
        if (owned && fill_ours(f)) {
            atomic_store(&f->map.live->beat, (uint64_t)now);
        } else if (owned) {
            if (!f->active) {
                fill_let_go(f);
            }
        } else if (!fill_ended(f) && !fill_has_owner(f)) {
            (void)fill_claim(f, false);
        }
        fill_unref(f);
    }
    if (x->housekept_ms == 0 || orphaned != x->orphans_seen ||
        (now - scanned >= SCAN_MS &&
         atomic_compare_exchange_strong(&shared->fills_scanned_ms, &scanned, now))) {
        x->orphans_seen = orphaned;
        atomic_store(&shared->fills_scanned_ms, now);
        parts_scan(t);
    }
    x->housekept_ms = now;
}

/* After each turn: readers see bytes soon, and buffers are written in pieces as large as the turn
 * allows. */
static void flush_all(struct fetcher *x)
{
    for (struct transfer *t = x->live, *next; t != NULL; t = next) {
        next = t->next;
        if (!transfer_flush(t) && t->bad == FILL_DISK) {
            fail_transfer(t, FILL_DISK, t->bad_sys, 1, 0);
        }
    }
}

static int wait_ms(const struct fetcher *x, int64_t now)
{
    int64_t until = now + (x->attached > 0 ? FILL_BEAT_MS : IDLE_MS);

    if (x->again) {
        return 0;
    }
    for (const struct fill *f = x->active; f != NULL; f = f->active_next) {
        until = f->due_ms < until ? f->due_ms : until;
    }
    for (const struct transfer *t = x->live; t != NULL; t = t->next) {
        if (t->again_ms != 0 && t->again_ms < until) {
            until = t->again_ms;
        }
    }
    return until > now ? (int)(until - now) : 0;
}

static void *run(void *arg)
{
    struct fetcher *x = arg;

    cache_thread_yields();
    while (!atomic_load(&x->table->stopping)) {
        int64_t now = gw_mono_ms();
        int running, left;
        CURLMsg *msg;

        x->again = false;
        take_queue(x);
        housekeep(x, now);
        work(x, now);
        curl_multi_perform(x->multi, &running);
        flush_all(x);
        while ((msg = curl_multi_info_read(x->multi, &left)) != NULL) {
            struct transfer *t = NULL;
            CURLcode code = msg->data.result;

            if (msg->msg == CURLMSG_DONE &&
                curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&t) == CURLE_OK &&
                t != NULL) {
                finish(t, code);
            }
        }
        curl_multi_poll(x->multi, NULL, 0, wait_ms(x, gw_mono_ms()), NULL);
    }
    while (x->active !=
           NULL) { /* what came is written and marked; cache_fills_close gives it back */
        deactivate(x, x->active);
    }
    return NULL;
}

int fetcher_open(struct fetcher **out, struct fill_table *t, struct gw_error *err)
{
    struct fetcher *x = gw_alloc(sizeof(*x));
    int sys;

    if (x == NULL || (x->multi = curl_multi_init()) == NULL) {
        gw_free(x);
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the fetcher");
    }
    x->table = t;
    curl_multi_setopt(x->multi, CURLMOPT_MAXCONNECTS, 2L * t->max_transfers);
    curl_multi_setopt(x->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    *out = x; /* before the thread: it claims what it finds */
    sys = cache_thread_start(&x->thread, run, x);
    if (sys != 0) {
        *out = NULL;
        curl_multi_cleanup(x->multi);
        gw_free(x);
        return gw_fail(err, GW_IO, sys, "the fetcher's thread: %s", strerrordesc_np(sys));
    }
    return GW_OK;
}

void fetcher_wake(struct fetcher *x)
{
    curl_multi_wakeup(x->multi);
}

void fetcher_close(struct fetcher *x)
{
    if (x == NULL) {
        return;
    }
    curl_multi_wakeup(x->multi);
    pthread_join(x->thread, NULL);
    curl_multi_cleanup(x->multi);
    gw_free(x->array);
    gw_free(x);
}
