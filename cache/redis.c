/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/redis.c - conversations with the first Redis that answers.
 *
 *   server  tried --fails--> passed over for RETRY_MS, then one call tries it --answers--> tried
 *
 * base/net dials, does TLS and ends every wait; hiredis is the codec. A connection that is in step
 * (all replies read, nothing failed) is kept for the next call. One mutex around what threads
 * share, held for memory work only.
 */
#include "cache/cache_internal.h"
#include "cache/share_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/net.h"
#include "base/sha.h"

#include <hiredis/hiredis.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_MS 200
#define RETRY_MS 1000
#define IDLE_MAX 8u
#define IDLE_MS 30000
#define LEAVE_MS 500 /* a process that leaves is noticed within */
#define LOG_EVERY_MS 60000
#define READ_BYTES (64u << 10)
#define WORDS_MAX 12u
#define SAID_MAX (16u << 20)

struct redis_link { /* a connection that AUTH has passed */
    struct redis_link *next;
    struct gw_conn *conn;
    struct redis_parser parser;
    size_t server;
    int64_t idle_ms; /* monotonic: since when */
    bool used;       /* it answered before: that it is closed now says nothing of the server */
};

struct server {
    int64_t retry_ms; /* monotonic: not before; 0: fine */
};

struct cache_redis {
    pthread_mutex_t mutex;
    struct redis_link *idle;
    size_t n_idle;
    struct server *servers; /* as in the options */
    struct gw_error last;   /* why the last server failed */
};

enum blame { BLAME_NONE, BLAME_CALL /* this command */, BLAME_SERVER };

struct redis_session {
    struct cache *c;
    struct redis_link *link;
    struct gw_buf said;
    size_t unread;       /* replies that are owed to us */
    int64_t deadline_ms; /* of the call */
    int64_t until_ms;    /* of this round trip */
    bool given;          /* it got at least half of the time that is its due */
    bool begun;          /* the first round trip has its time already, with the connecting */
    enum blame blame;
};

/* ---- what fails ---- */

/* Errors that say something about the server or our rights at it, not about a value. */
static const struct refusal {
    const char *word;
    bool all; /* it will say so to everything */
} refusals[] = {
    {"READONLY", true},  {"LOADING", true}, {"MASTERDOWN", true},  {"NOAUTH", true},
    {"WRONGPASS", true}, {"MOVED", true},   {"CLUSTERDOWN", true}, {"BUSY", true},
    {"OOM", false},      {"NOPERM", false}, {"MISCONF", false},    {"NOREPLICAS", false},
};

static bool is_word(struct gw_str text, const char *word)
{
    size_t n = strlen(word);

    return gw_str_starts(text, (struct gw_str){word, n}) && (text.n == n || text.p[n] == ' ');
}

static struct gw_str server_name(const struct cache *c, size_t i, char *buf, size_t cap)
{
    const struct cache_redis_server *s = &c->options.share.servers[i];

    snprintf(buf, cap, GW_STR_FMT ":%u", GW_STR_ARG(s->host), (unsigned)s->port);
    return gw_str_c(buf);
}

/* An error reply. The text is the server's, so it is cut. */
static int refused(struct redis_session *s, struct gw_str text, struct gw_error *err)
{
    char name[320];

    s->blame = BLAME_CALL;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        if (is_word(text, refusals[i].word) && refusals[i].all) {
            s->blame = BLAME_SERVER;
        }
    }
    return gw_fail(err, GW_UNAVAILABLE, 0, GW_STR_FMT ": " GW_STR_FMT,
                   GW_STR_ARG(server_name(s->c, s->link->server, name, sizeof(name))),
                   GW_STR_ARG(gw_str_sub(text, 0, 120)));
}

/* One line a minute and node, whatever fails. */
static bool may_log(_Atomic int64_t *last_ms)
{
    int64_t now = gw_mono_ms(), last = atomic_load(last_ms);

    return (last == 0 || now - last >= LOG_EVERY_MS) &&
           atomic_compare_exchange_strong(last_ms, &last, now);
}

void cache_share_reject(struct cache *c, const char *what, const struct gw_error *why)
{
    atomic_fetch_add(&c->shared->counters.share_rejected, 1);
    if (may_log(&c->shared->share_rejected_ms)) {
        gw_log_write(&c->log, GW_LOG_WARN, "redis: a %s is refused and counts as missing: %s", what,
                     why->text);
    }
}

/* ---- which server ---- */

/* Of a server that failed one call in RETRY_MS is told to try it. */
static bool may_try(struct cache_redis *r, size_t i)
{
    int64_t now = gw_mono_ms();
    bool may;

    pthread_mutex_lock(&r->mutex);
    may = now >= r->servers[i].retry_ms;
    if (may && r->servers[i].retry_ms != 0) {
        r->servers[i].retry_ms = now + RETRY_MS;
    }
    pthread_mutex_unlock(&r->mutex);
    return may;
}

static void learn(struct cache *c, size_t i, enum blame blame, const struct gw_error *err)
{
    struct cache_redis *r = c->redis;

    pthread_mutex_lock(&r->mutex);
    r->servers[i].retry_ms = blame == BLAME_SERVER ? gw_mono_ms() + RETRY_MS : 0;
    if (blame != BLAME_NONE) {
        r->last = *err;
    }
    pthread_mutex_unlock(&r->mutex);
}

/* The next server stands in for those that failed; when none does, the caller hears why. */
static void log_swallowed(struct cache *c, const struct gw_error *why)
{
    if (why->status != GW_OK && may_log(&c->shared->share_failed_ms)) {
        gw_log_write(&c->log, GW_LOG_WARN, "redis: %s; the next server answers", why->text);
    }
}

/* ---- links ---- */

static void close_link(struct redis_link *l)
{
    if (l != NULL) {
        redis_parser_release(&l->parser);
        gw_conn_close(l->conn);
        gw_free(l);
    }
}

/* An idle one to this server; those that are too old or closed go. */
static struct redis_link *take_idle(struct cache_redis *r, size_t server)
{
    struct redis_link *l, **at;

    for (;;) {
        pthread_mutex_lock(&r->mutex);
        for (at = &r->idle; *at != NULL && (*at)->server != server; at = &(*at)->next) {
            continue;
        }
        l = *at;
        if (l != NULL) {
            *at = l->next;
            r->n_idle--;
        }
        pthread_mutex_unlock(&r->mutex);
        if (l == NULL || (gw_mono_ms() - l->idle_ms < IDLE_MS && !gw_conn_pending(l->conn))) {
            return l;
        }
        close_link(l);
    }
}

static void give_back(struct cache_redis *r, struct redis_link *l)
{
    l->used = true;
    l->idle_ms = gw_mono_ms();
    pthread_mutex_lock(&r->mutex);
    if (r->n_idle < IDLE_MAX) {
        l->next = r->idle; /* the latest is used first: the others grow old and go */
        r->idle = l;
        r->n_idle++;
        l = NULL;
    }
    pthread_mutex_unlock(&r->mutex);
    close_link(l);
}

static int dial(struct redis_session *s, size_t server, struct gw_error *err)
{
    const struct cache_share_options *o = &s->c->options.share;
    const struct cache_redis_server *to = &o->servers[server];
    struct gw_dial d = {
        .host = to->host, .port = to->port, .ca_file = o->ca_file, .deadline_ms = s->until_ms};
    char address[INET6_ADDRSTRLEN];
    int rc;

    rc = s->c->resolver != NULL
             ? cache_address_before(s->c, to->host, s->until_ms, address, sizeof(address), err)
             : gw_resolve(to->host, address, sizeof(address), err);
    if (rc != GW_OK) {
        return rc;
    }
    d.address = gw_str_c(address);
    s->link = gw_alloc(sizeof(*s->link));
    if (s->link == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    }
    s->link->server = server;
    rc = redis_parser_init(&s->link->parser, err);
    rc = rc != GW_OK ? rc : gw_conn_dial(&s->link->conn, &d, err);
    return rc == GW_OK && to->tls ? gw_conn_start_tls(s->link->conn, &d, err) : rc;
}

/* ---- saying and reading ---- */

void redis_say(struct redis_session *s, const struct gw_str *words, size_t n)
{
    const char *argv[WORDS_MAX];
    size_t lengths[WORDS_MAX];
    char *command = NULL;
    int bytes;

    for (size_t i = 0; i < n && i < WORDS_MAX; i++) {
        argv[i] = words[i].n != 0 ? words[i].p : "";
        lengths[i] = words[i].n;
    }
    bytes = n <= WORDS_MAX ? redisFormatCommandArgv(&command, (int)n, argv, lengths) : -1;
    if (bytes < 0) {
        s->said.failed = true;
        return;
    }
    gw_buf_add(&s->said, (struct gw_str){command, (size_t)bytes});
    gw_wipe(command, (size_t)bytes < 4096 ? (size_t)bytes : 4096); /* AUTH has the password */
    redisFreeCommand(command);
    s->unread++;
}

size_t redis_unsent(const struct redis_session *s)
{
    return s->said.n;
}

static void begin_round_trip(struct redis_session *s)
{
    int64_t now = gw_mono_ms(), ms = s->c->options.share.timeout_ms;

    ms = ms != 0 ? ms : TIMEOUT_MS;
    s->until_ms = s->deadline_ms < now + ms ? s->deadline_ms : now + ms;
    s->given = s->until_ms - now >= ms / 2;
}

/* The server did not do its part, unless the caller had no time for it. */
static int failed(struct redis_session *s, int rc)
{
    if ((rc == GW_TIMEOUT && s->given) || rc == GW_UNAVAILABLE) {
        s->blame = BLAME_SERVER;
    }
    return rc;
}

static int send_said(struct redis_session *s, struct gw_error *err)
{
    if (s->said.failed) {
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory for what is to be said");
    }
    if (s->begun) {
        begin_round_trip(s);
    }
    gw_conn_deadline(s->link->conn, s->until_ms);
    if (gw_conn_write(s->link->conn, s->said.p, s->said.n, err) < 0) {
        return failed(s, err->status);
    }
    gw_buf_reset(&s->said);
    return GW_OK;
}

/* In steps, because a process that leaves does not wake who reads. */
static int read_some(struct redis_session *s, char *block, struct gw_error *err)
{
    struct redis_link *l = s->link;
    ptrdiff_t n;

    for (;;) {
        int64_t now = gw_mono_ms();
        int64_t step = now + LEAVE_MS < s->until_ms ? now + LEAVE_MS : s->until_ms;

        if (atomic_load(&s->c->leaving)) {
            return gw_fail(err, GW_CANCELLED, 0, "redis: the process is leaving");
        }
        gw_conn_deadline(l->conn, step);
        n = gw_conn_read(l->conn, block, READ_BYTES, err);
        if (n > 0) {
            return redis_parser_feed(&l->parser, (struct gw_str){block, (size_t)n}, err);
        }
        if (n == 0) {
            char name[320];

            gw_fail(err, GW_UNAVAILABLE, 0, GW_STR_FMT ": the connection was closed",
                    GW_STR_ARG(server_name(s->c, l->server, name, sizeof(name))));
            return failed(s, GW_UNAVAILABLE);
        }
        if (err->status != GW_TIMEOUT || step == s->until_ms) {
            return failed(s, err->status);
        }
    }
}

static int next_reply(struct redis_session *s, struct redis_value **out, struct gw_error *err)
{
    char *block = NULL, name[320];
    int rc;

    for (;;) {
        rc = redis_parser_next(&s->link->parser, out, err);
        if (rc != GW_AGAIN) {
            break;
        }
        block = block != NULL ? block : gw_alloc(READ_BYTES);
        rc = block != NULL ? read_some(s, block, err)
                           : gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
        if (rc != GW_OK) {
            break;
        }
    }
    gw_free(block);
    if (rc == GW_INVALID) {
        s->blame = BLAME_SERVER;
        err->status = GW_UNAVAILABLE;
        return gw_fail_prefix(err, GW_STR_FMT,
                              GW_STR_ARG(server_name(s->c, s->link->server, name, sizeof(name))));
    }
    return rc;
}

int redis_read(struct redis_session *s, struct redis_value **out, struct gw_error *err)
{
    int rc = s->said.n != 0 || s->said.failed ? send_said(s, err) : GW_OK;

    rc = rc != GW_OK ? rc : next_reply(s, out, err);
    s->begun = true;
    if (rc != GW_OK) {
        return rc;
    }
    s->unread--;
    begin_round_trip(s); /* a batch of large values takes longer, but it comes */
    return (*out)->kind == REDIS_IS_ERROR && !is_word((*out)->text, "WRONGTYPE") &&
                   !gw_str_starts((*out)->text, GW_STR("ERR value is not"))
               ? refused(s, (*out)->text, err)
               : GW_OK;
}

/* ---- a call ---- */

static int log_in(struct redis_session *s, struct gw_error *err)
{
    const struct cache_share_options *o = &s->c->options.share;
    struct redis_value *v;
    int rc;

    if (o->password.n == 0) {
        return GW_OK;
    }
    if (o->user.n != 0) {
        REDIS_SAY(s, GW_STR("AUTH"), o->user, o->password);
    } else {
        REDIS_SAY(s, GW_STR("AUTH"), o->password);
    }
    rc = redis_read(s, &v, err);
    gw_buf_wipe(&s->said);
    gw_buf_init(&s->said, SAID_MAX);
    s->begun = false; /* the first round trip shares its time with this one */
    s->blame = rc == GW_UNAVAILABLE ? BLAME_SERVER : s->blame;
    return rc;
}

static int connect_to(struct redis_session *s, size_t server, struct gw_error *err)
{
    int rc = dial(s, server, err);

    if (rc != GW_OK) {
        return failed(s, rc);
    }
    s->link->parser.max = READ_BYTES;
    return log_in(s, err);
}

struct call {
    int64_t deadline_ms;
    size_t reply_max;
    int (*work)(struct redis_session *s, void *ctx, struct gw_error *err);
    void *ctx;
};

/* One conversation. *stale: a kept connection was closed meanwhile, a new one may do. */
static int converse(struct cache *c, size_t server, const struct call *call, bool fresh,
                    bool *stale, enum blame *blame, struct gw_error *err)
{
    struct redis_session s = {.c = c, .deadline_ms = call->deadline_ms};
    int rc = GW_OK;

    begin_round_trip(&s);
    gw_buf_init(&s.said, SAID_MAX);
    s.link = fresh ? NULL : take_idle(c->redis, server);
    if (s.link == NULL) {
        rc = connect_to(&s, server, err);
    }
    if (rc == GW_OK) {
        s.link->parser.max = call->reply_max;
        rc = call->work(&s, call->ctx, err);
    }
    *blame = s.blame;
    *stale = rc == GW_UNAVAILABLE && s.blame == BLAME_SERVER && s.link != NULL && s.link->used;
    if (s.blame == BLAME_NONE && s.unread == 0 && s.link != NULL &&
        (rc == GW_OK || rc == GW_NOT_FOUND || rc == GW_CONFLICT)) {
        give_back(c->redis, s.link);
    } else {
        close_link(s.link);
    }
    gw_buf_release(&s.said);
    return rc;
}

int redis_run(struct cache *c, int64_t deadline_ms, size_t reply_max,
              int (*work)(struct redis_session *s, void *ctx, struct gw_error *err), void *ctx,
              struct gw_error *err)
{
    const struct call call = {deadline_ms, reply_max, work, ctx};
    struct gw_error none, *e = err != NULL ? err : &none, swallowed = {.status = GW_OK};
    bool tried = false;
    int rc = GW_UNAVAILABLE;

    for (size_t i = 0; i < c->options.share.n_servers; i++) {
        enum blame blame = BLAME_NONE;
        bool stale = false;

        if (atomic_load(&c->leaving)) {
            return gw_fail(e, GW_CANCELLED, 0, "redis: the process is leaving");
        }
        if (!may_try(c->redis, i)) {
            continue;
        }
        tried = true;
        rc = converse(c, i, &call, false, &stale, &blame, e);
        if (stale) {
            rc = converse(c, i, &call, true, &stale, &blame, e);
        }
        if (rc == GW_CANCELLED || rc == GW_NO_MEMORY) {
            return rc; /* says nothing of the server */
        }
        learn(c, i, blame, e);
        if (blame == BLAME_NONE) {
            if (rc == GW_TIMEOUT) {
                break; /* the caller's own time is over */
            }
            log_swallowed(c, &swallowed);
            return rc;
        }
        swallowed = *e;
    }
    atomic_fetch_add(&c->shared->counters.share_errors, 1);
    if (!tried) {
        pthread_mutex_lock(&c->redis->mutex);
        *e = c->redis->last;
        pthread_mutex_unlock(&c->redis->mutex);
        rc = gw_fail(e, GW_UNAVAILABLE, e->sys, "no server is tried just now: %s", e->text);
    }
    gw_fail_prefix(e, "redis");
    return rc;
}

static int del(struct redis_session *s, void *ctx, struct gw_error *err)
{
    struct redis_value *v;

    REDIS_SAY(s, GW_STR("DEL"), *(const struct gw_str *)ctx);
    return redis_read(s, &v, err);
}

int redis_remove(struct cache *c, struct gw_str key, int64_t deadline_ms, struct gw_error *err)
{
    return redis_run(c, deadline_ms, READ_BYTES, del, &key, err);
}

/* ---- open and close ---- */

int cache_redis_open(struct cache *c, struct gw_error *err)
{
    const struct cache_share_options *o = &c->options.share;
    struct cache_redis *r;

    if (o->n_servers == 0) {
        return GW_OK;
    }
    r = gw_arena_alloc(&c->memory, sizeof(*r));
    if (r != NULL) {
        r->servers = gw_arena_alloc(&c->memory, o->n_servers * sizeof(*r->servers));
    }
    if (r == NULL || r->servers == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    }
    pthread_mutex_init(&r->mutex, NULL);
    for (size_t i = 0; c->resolver != NULL && i < o->n_servers; i++) {
        cache_resolve_also(c, o->servers[i].host);
    }
    c->redis = r;
    return GW_OK;
}

void cache_redis_close(struct cache *c)
{
    struct redis_link *next;

    if (c->redis == NULL) {
        return;
    }
    for (struct redis_link *l = c->redis->idle; l != NULL; l = next) {
        next = l->next;
        close_link(l);
    }
    pthread_mutex_destroy(&c->redis->mutex);
    c->redis = NULL;
}
