/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/limit.c - what upstream allows. The Hub counts the requests of an account (or an address)
 * in fixed windows of five minutes, apart for its API, for files ("resolvers") and for pages; one
 * gateway is one account, so the whole company has one budget. What answers say of it is kept in
 * shared memory; when it is used up nothing is asked before the window ends.
 *
 * Headers: Retry-After (RFC 9110 10.2.3), and as huggingface.co sends them (hub-read 2.1, 4.4)
 *   RateLimit: "api";r=499;t=55                          left in this window; seconds until it ends
 *   RateLimit-Policy: "fixed window";"api";q=500;w=300   requests per window
 */
#include "cache/cache_internal.h"
#include "cache/limit_internal.h"

#include "base/clock.h"

#include <curl/curl.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#define WINDOW_MAX_S 900   /* nothing that is said holds longer */
#define UNKNOWN_WAIT_S 5   /* a 429 that does not say how long */
#define LOW_PART 10        /* of the quota; less is left for who waits */
#define QUOTA_SMALLEST 500 /* the Hub's for nobody in particular, when it names none */

static const char *const names[CACHE_LIMIT_KINDS] = {"api", "resolvers", "pages"};

enum cache_limit_kind limit_kind_of(struct gw_str path)
{
    static const char verb[] = "/resolve/";

    if (gw_str_starts(path, GW_STR("/api/resolve-cache/"))) {
        return CACHE_LIMIT_RESOLVERS;
    }
    if (gw_str_starts(path, GW_STR("/api/"))) {
        return CACHE_LIMIT_API;
    }
    return path.n != 0 && memmem(path.p, path.n, verb, sizeof(verb) - 1) != NULL
               ? CACHE_LIMIT_RESOLVERS
               : CACHE_LIMIT_PAGES;
}

/* ---- reading ---- */

static int64_t capped(uint64_t seconds)
{
    return seconds < WINDOW_MAX_S ? (int64_t)seconds : WINDOW_MAX_S;
}

int64_t limit_retry_after(struct gw_str value, int64_t now_ms)
{
    char text[40];
    struct tm tm = {0};
    uint64_t seconds;
    int64_t at;
    const char *end;

    value = gw_str_trim(value);
    if (gw_str_u64(value, &seconds)) {
        return capped(seconds);
    }
    if (value.n == 0 || value.n >= sizeof(text)) {
        return -1;
    }
    memcpy(text, value.p, value.n);
    text[value.n] = '\0';
    end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (end == NULL || *end != '\0') {
        return -1;
    }
    at = (int64_t)timegm(&tm) * 1000 - now_ms;
    return at <= 0 ? 0 : capped((uint64_t)(at + 999) / 1000);
}

/* One member of the list: strings in quotes, then parameters. The last string is the name. */
static void read_member(struct gw_str member, struct limit_said *said)
{
    struct gw_str part, value, name = GW_STR("");
    int64_t r = -1, t = -1, q = -1;
    uint64_t n;

    while (gw_str_split(&member, ';', &part)) {
        part = gw_str_trim(part);
        if (part.n >= 2 && part.p[0] == '"' && part.p[part.n - 1] == '"') {
            name = gw_str_sub(part, 1, part.n - 2);
            continue;
        }
        value = gw_str_sub(part, 2, part.n);
        if (part.n < 3 || part.p[1] != '=' || !gw_str_u64(value, &n)) {
            continue;
        }
        n = n < 1000000000 ? n : 1000000000;
        r = part.p[0] == 'r' ? (int64_t)n : r;
        t = part.p[0] == 't' ? capped(n) : t;
        q = part.p[0] == 'q' ? (int64_t)n : q;
    }
    for (int kind = 0; kind < CACHE_LIMIT_KINDS; kind++) {
        struct limit_bucket *b = &said->buckets[kind];

        if (!gw_str_eq_c(name, names[kind])) {
            continue;
        }
        if (r >= 0 && t >= 0) {
            b->remaining = r;
            b->reset_s = t;
        }
        b->quota = q > 0 ? q : b->quota;
    }
}

void limit_read(struct limit_said *said, struct gw_str value)
{
    struct gw_str member;

    for (int members = 0; members < 16 && gw_str_split(&value, ',', &member); members++) {
        read_member(member, said);
    }
}

/* ---- keeping ---- */

void cache_limit_until(struct cache_shared *s, enum cache_limit_kind kind, int64_t not_before_ms)
{
    _Atomic int64_t *at = &s->limits[kind].not_before_ms;
    int64_t old = atomic_load(at), most = gw_wall_ms() + WINDOW_MAX_S * INT64_C(1000);

    not_before_ms = not_before_ms < most ? not_before_ms : most;
    while (old < not_before_ms && !atomic_compare_exchange_weak(at, &old, not_before_ms)) {
    }
}

void limit_learn(struct cache_shared *s, enum cache_limit_kind asked, int status,
                 int64_t retry_after_s, const struct limit_said *said)
{
    int64_t now = gw_wall_ms(), wait_s = 0;

    for (int kind = 0; kind < CACHE_LIMIT_KINDS; kind++) {
        const struct limit_bucket *b = &said->buckets[kind];
        struct cache_limit *l = &s->limits[kind];

        if (b->quota > 0) {
            atomic_store(&l->quota, b->quota);
        }
        if (b->reset_s < 0) {
            continue;
        }
        atomic_store(&l->remaining, b->remaining);
        atomic_store(&l->reset_ms, now + b->reset_s * 1000);
        if (b->remaining == 0) {
            cache_limit_until(s, (enum cache_limit_kind)kind, now + b->reset_s * 1000);
        }
    }
    if (status != 429) {
        return;
    }
    atomic_fetch_add(&s->limits[asked].refused, 1);
    wait_s = retry_after_s >= 0                  ? retry_after_s
             : said->buckets[asked].reset_s >= 0 ? said->buckets[asked].reset_s
                                                 : UNKNOWN_WAIT_S;
    cache_limit_until(s, asked, now + (wait_s > 0 ? wait_s : 1) * 1000);
}

int64_t cache_limit_wait_ms(const struct cache_shared *s, enum cache_limit_kind kind)
{
    int64_t until = atomic_load(&s->limits[kind].not_before_ms), now;

    if (until == 0) {
        return 0;
    }
    now = gw_wall_ms();
    /* a clock that was set back does not make a window longer */
    return until <= now || until > now + 2 * WINDOW_MAX_S * INT64_C(1000) ? 0 : until - now;
}

bool cache_limit_low(const struct cache_shared *s, enum cache_limit_kind kind)
{
    const struct cache_limit *l = &s->limits[kind];
    int64_t quota = atomic_load(&l->quota);

    if (cache_limit_wait_ms(s, kind) > 0) {
        return true;
    }
    return gw_wall_ms() < atomic_load(&l->reset_ms) &&
           atomic_load(&l->remaining) * LOW_PART < (quota > 0 ? quota : QUOTA_SMALLEST);
}

int limit_check(struct cache_shared *s, struct gw_str path, struct gw_error *err)
{
    enum cache_limit_kind kind = limit_kind_of(path);
    int64_t wait = cache_limit_wait_ms(s, kind);

    if (wait == 0) {
        return GW_OK;
    }
    atomic_fetch_add(&s->limits[kind].held_back, 1);
    return gw_fail(err, GW_UNAVAILABLE, 429,
                   "upstream's rate limit of this whole gateway (%s) is used up for %lld s",
                   names[kind], (long long)(wait + 999) / 1000);
}

static struct gw_str header(CURL *easy, const char *name)
{
    struct curl_header *h;

    return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &h) == CURLHE_OK ? gw_str_c(h->value)
                                                                              : GW_STR("");
}

void limit_hear(struct cache_shared *s, void *easy, struct gw_str path, int status)
{
    struct limit_said said = LIMIT_SAID_NOTHING;

    limit_read(&said, header(easy, "RateLimit"));
    limit_read(&said, header(easy, "RateLimit-Policy"));
    limit_learn(s, limit_kind_of(path), status,
                limit_retry_after(header(easy, "Retry-After"), gw_wall_ms()), &said);
}
