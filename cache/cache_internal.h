/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/cache_internal.h - what the files of this room share.
 *
 *   cache.c     open and close, folders, VERSION, owners, options
 *   shared.c    slots, counters, wakes
 *   index.c     records in LMDB
 *   resolve.c   names, by a thread of their own
 *   upstream.c  curl: rules for every request, documents, redirects
 *   reply.c     the head of an answer to a blocking call
 *   limit.c     what upstream allows: rate limits
 *   blob.c      whole blobs: open, fetch small, put, take
 *   pages.c     what is in memory
 *   fill.c      large blobs, and what it uses: map, part, local,
 *               source, fetcher, places, transfer, reader, peer
 *   share*.c    other nodes (share_internal.h)
 *
 * Handles of libcurl and LMDB are void pointers here: their headers stay in the one .c file that
 * needs them.
 */
#ifndef CACHE_CACHE_INTERNAL_H
#define CACHE_CACHE_INTERNAL_H

#include "cache/cache.h"

#include "base/sha.h"
#include "base/str.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CACHE_VERSION_LINE "hubgate-cache 1\n" /* of the whole folder; another one is set aside */
#define CACHE_PATH_MAX 4096u                   /* of a full path, with the NUL */
#define CACHE_BOOT_ID_LEN 36u
#define CACHE_REDIRECTS_MAX 5u
#define CACHE_HEADERS_MAX (64u << 10)

struct cache_index;    /* index.c */
struct cache_upstream; /* upstream.c */
struct cache_resolver; /* resolve.c */
struct cache_redis;    /* redis.c */
struct fill_table;     /* fill.c */
struct budget;         /* budget.c */

struct cache {
    struct cache_options
        options;            /* a copy; every string in it is ours, NUL-terminated, in `memory` */
    struct gw_arena memory; /* lives as long as the cache */
    char *dir, *blobs_dir, *parts_dir, *tmp_dir, *index_dir;
    struct gw_log log;
    struct cache_shared *shared;
    unsigned slot;
    uint32_t generation; /* of the slot when we opened: (slot, generation) names us in maps and temp
                            files */
    char boot_id[CACHE_BOOT_ID_LEN + 1];
    int64_t boot_seen_ms; /* wall: no worker wrote under this boot id before */
    pthread_t loop;       /* the thread that opened */
    bool curl_started;
    atomic_bool leaving; /* every wait ends with GW_CANCELLED */
    _Atomic uint32_t temp_counter;
    struct cache_index *index;
    struct cache_upstream *upstream;
    struct cache_resolver *resolver;
    struct cache_redis *redis; /* NULL: no other nodes */
    struct fill_table *fills;
    struct budget *budget;
};

/* ---- cache.c ---- */
/* <dir>/lock, held until *fd is closed: one process at a time opens the index, moves a format
 * aside, notes a boot. @return GW_OK; GW_AGAIN (held by another, wait was false); GW_IO */
int cache_folder_lock(struct cache *c, bool wait, int *fd, struct gw_error *err) GW_MUST_CHECK;

/* Did it fail for want of room? */
bool cache_disk_full(const struct gw_error *err);

/* ---- shared.c ---- */
/* Loop, first thing of a tick: drains the eventfd and re-arms it. Look at the state after it, not
 * before. */
void cache_wake_rearm(struct cache_shared *s, unsigned slot);
/* Frees dead slots, and says in index_suspect when one died inside the index. Any thread. */
void cache_slots_bury(struct cache_shared *s);
/* pthread_create with every signal blocked in the new thread but those of a fault (nginx's loop
 * must get its own). */
int cache_thread_start(pthread_t *out, void *(*run)(void *), void *arg);
/* This thread moves or hashes bytes: where cores are scarce the event loop comes first. For the
 * rest of its life, because giving back takes privileges; jobs wait more than they compute. */
void cache_thread_yields(void);

/* ---- index.c ---- */
int cache_index_open(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
void cache_index_close(struct cache *c);
/* Loop, from cache_tick (any rate): once a second one worker clears dead readers, sets a suspect
 * index aside; each reopens when the epoch has changed. */
void cache_index_tick(struct cache *c);

/* ---- resolve.c ---- */
int cache_resolver_open(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
void cache_resolver_close(struct cache *c);
/* Up to four numeric addresses, as CURLOPT_RESOLVE wants them: "1.2.3.4,[::1]". A literal is its
 * own address. deadline_ms 0: does not wait. @return GW_OK; GW_AGAIN (not resolved yet, only
 * without a deadline; it is asked for); GW_UNAVAILABLE (the name has no address); GW_TIMEOUT;
 * GW_CANCELLED; GW_NO_MEMORY */
int cache_addresses(struct cache *c, struct gw_str host, int64_t deadline_ms, char *buf, size_t cap,
                    struct gw_error *err) GW_MUST_CHECK;

/* As cache_resolve_also, of a name outside: upstream.dns is asked, if there is one. */
void cache_resolve_upstream(struct cache *c, struct gw_str host);
/* Nobody is at the address of this host: it may have moved. Asked again at once, at most every 2 s.
 */
void cache_resolve_again(struct cache *c, struct gw_str host);

/* ---- dns.c. Any thread ---- */
struct sockaddr_in;
/* "192.0.2.53" or "192.0.2.53:5353" */
bool cache_dns_parse(struct gw_str text, struct sockaddr_in *out);
/* Up to max numeric addresses of a name: IPv4, or IPv6 where there are no others; some seconds at
 * most. @return how many; 0: *failure is a code of gai_strerror */
size_t cache_dns_look_up(const struct sockaddr_in *server, const char *name, char out[][46],
                         size_t max, int *failure);

/* cache_address_of with a deadline. @return as cache_addresses */
int cache_address_before(struct cache *c, struct gw_str host, int64_t deadline_ms, char *buf,
                         size_t cap, struct gw_error *err) GW_MUST_CHECK;

/* ---- redis.c: without servers none of it happens ---- */
int cache_redis_open(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
void cache_redis_close(struct cache *c);

/* ---- upstream.c ---- */
int cache_upstream_open(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
void cache_upstream_close(struct cache *c);
/* The URL of a target on the upstream: NUL-terminated in out. */
int cache_upstream_url(struct cache *c, struct gw_str target, struct gw_buf *out,
                       struct gw_error *err) GW_MUST_CHECK;
/* Is this URL on the upstream's own origin (scheme, host, port)? Only there the token goes. */
bool cache_upstream_own(struct cache *c, const char *url);

/* Before and after each request (limit.c): may the Hub be asked for this URL now? What did its
 * answer say of the limits? Other hosts have none. @return GW_OK; GW_UNAVAILABLE with err->sys 429
 */
int cache_upstream_may_ask(struct cache *c, const char *url, struct gw_error *err) GW_MUST_CHECK;
void cache_upstream_heard(struct cache *c, void *easy, const char *url, int status);

/* What one request on an easy handle needs to live as long as it, at a place that does not move;
 * zeroed before the first use. */
struct cache_transfer {
    void *headers, *resolve; /* struct curl_slist * */
    char reason[256];        /* curl's own words for a failure */
};
/**
 * Everything that is the same for every request, on an easy handle fresh from curl_easy_init or
 * curl_easy_reset: URL, CA, proxy, addresses (no look-up happens in curl), HTTP/1.1, http and https
 * only, NOSIGNAL, QUICK_EXIT, no redirects, no cookies, connect and stall limits, User-Agent, Via,
 * Accept-Encoding: identity, no Expect, and the token if and only if url is on the upstream's own
 * origin. Left to the caller: method, body, range, callbacks, CURLOPT_TIMEOUT_MS.
 * @param extra    more header lines ("If-Match: \"x\""), copied
 * @param deadline_ms  as cache_addresses; 0 never waits: GW_AGAIN, try again a little later
 * @return GW_OK; GW_AGAIN; GW_UNAVAILABLE; GW_TIMEOUT; GW_CANCELLED; GW_INVALID (url);
 * GW_NO_MEMORY. t is released by the caller in every case, after the transfer has ended and before
 * the handle is used again
 */
int cache_upstream_setup(struct cache *c, void *easy, const char *url, const char *const *extra,
                         size_t n_extra, int64_t deadline_ms, struct cache_transfer *t,
                         struct gw_error *err) GW_MUST_CHECK;
/* The same for a request to another node of the cluster: its CA, no proxy, no Via, no token but
 * this header line. It never waits. */
int cache_upstream_setup_node(struct cache *c, void *easy, const char *url, const char *credential,
                              struct cache_transfer *t, struct gw_error *err) GW_MUST_CHECK;
void cache_transfer_release(struct cache_transfer *t);
/**
 * Where a Location leads. Own origin: yes. Another one: https (or http, if the upstream itself is
 * http), listed in redirect_hosts with its port, no user name. Its host is handed to the resolver.
 * @param from  the URL that answered
 * @param to    the absolute URL, NUL-terminated; own: it is on the upstream's origin
 * @return GW_OK; GW_FORBIDDEN; GW_INVALID (no URL); GW_NO_MEMORY
 */
int cache_upstream_redirect(struct cache *c, const char *from, struct gw_str location,
                            struct gw_buf *to, bool *own, struct gw_error *err) GW_MUST_CHECK;
bool cache_is_redirect(int status); /* 301 302 303 307 308 */
/* What a finished transfer means (CURLcode): GW_OK, GW_UNAVAILABLE, GW_TIMEOUT (only if the
 * deadline passed; 0: none), GW_INVALID, GW_CANCELLED, GW_NO_MEMORY; err->sys is the CURLcode. */
int cache_upstream_outcome(struct cache *c, int curl_code, const char *url,
                           const struct cache_transfer *t, int64_t deadline_ms,
                           struct gw_error *err);
/* A transfer failed (CURLcode): if nobody was at the address, the name is asked for again. node: it
 * was one of the cluster. cache_upstream_outcome does so itself. */
void cache_upstream_unreached(struct cache *c, int curl_code, const char *url, bool node);
/* cache_upstream_call, and whether the last hop was on the upstream's own origin: a 403 of another
 * host is an expired signature, not a refusal. */
int cache_upstream_call_from(struct cache *c, const struct cache_call *call,
                             int (*sink)(void *ctx, struct gw_str bytes), void *ctx,
                             struct cache_reply *out, bool *own, struct gw_arena *a,
                             struct gw_error *err) GW_MUST_CHECK;

/* ---- blob.c ---- */
bool cache_digest_valid(struct gw_str digest); /* 40 or 64 lower-case hex */
/* blobs/aa/bb/<hex>. false: does not fit. digest is valid. */
bool cache_blob_path(const struct cache *c, struct gw_str digest, char *out, size_t cap);
/* tmp/<hex>.<pid>.<generation>.<n>, unique */
bool cache_temp_path(struct cache *c, struct gw_str digest, char *out, size_t cap);
/* Job. cache_blob_open after cache_blob_prove. */
int cache_blob_open_proved(struct cache *c, struct gw_str digest, int *fd, uint64_t *size,
                           struct gw_error *err) GW_MUST_CHECK;
/* Job. Links a finished, verified, fdatasync'ed file in as a blob (mode 0440: see blob.c on what
 * 0600 means) and syncs the folder. path stays for the caller to unlink. Held already: GW_OK.
 * @return GW_OK; GW_IO */
int cache_blob_publish(struct cache *c, struct gw_str digest, const char *path,
                       struct gw_error *err) GW_MUST_CHECK;

/* Does a stream of bytes have that digest? */
struct cache_proof {
    bool sha256;
    struct gw_sha256 long_one;
    struct gw_git_sha1 git;
};
void cache_proof_init(struct cache_proof *p, struct gw_str digest, uint64_t size);
void cache_proof_update(struct cache_proof *p, const void *bytes, size_t n);
bool cache_proof_right(struct cache_proof *p, struct gw_str digest);

/* Job. The bytes of an open file into a blob of its own; what is copied is proved. @return GW_OK;
 * GW_CORRUPT; GW_IO */
int cache_blob_copy(struct cache *c, struct gw_str digest, uint64_t size, int from,
                    struct gw_error *err) GW_MUST_CHECK;

/* ---- fill.c: the other half of the room ---- */
int cache_fills_open(struct cache *c, struct gw_error *err)
    GW_MUST_CHECK;                       /* everything above is open; starts the fetcher */
void cache_fills_close(struct cache *c); /* joins it; c->fills may be NULL */

#endif
