/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/cache.h - all that is held or fetched: records by name, blobs by digest, and the way to
 * upstream.
 *
 *   record  (kind, name) -> small value, with the time it was checked      in the index (LMDB)
 *   blob    digest -> bytes, immutable; 40 hex: git's sha1, 64: sha256     blobs/aa/bb/<hex>
 *
 *   ABSENT --cache_part_create--> PARTIAL --every granule, digest right--> WHOLE
 *                                 parts/<hex>.part + .map
 *
 * One struct cache per process, opened after fork. "Loop": never blocks. "Job": blocks until its
 * deadline, job threads only. One thread of the cache's own, the fetcher, moves the bytes of large
 * fills; cache_close joins it. Everything below `dir` is derived: removing it (stopped) costs only
 * time. An unknown newer format is set aside.
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "base/str.h"
#include "base/want.h"

#define CACHE_GRANULE (1u << 20) /* bytes whose validity is tracked together */
/* A blob up to this is one job: fetched, verified, linked, then served. */
#define CACHE_SMALL_MAX (1u << 20)
#define CACHE_DIGEST_MAX 64u
#define CACHE_SLOTS 64u
#define CACHE_NAME_MAX 16384u       /* bytes of a record's name */
#define CACHE_RECORD_MAX (8u << 20) /* bytes of a record's value */

/* ---- shared memory of all workers of all cycles: fixed tables and atomics, no allocation ---- */
#define CACHE_SHARED_VERSION 8u
struct cache_slot {
    /* Goes up at every claim; with the slot number it names an owner, never a bare pid. */
    _Atomic uint32_t generation;
    _Atomic int32_t pid; /* 0: free */
    /* Made once, before the first fork, so that old and new cycles share it; -1: none. */
    _Atomic int32_t eventfd;
    _Atomic uint32_t wake_pending; /* a wake is on its way: saves writes */
    /* Threads inside LMDB: a worker that died with it set damaged pages, or met them. */
    _Atomic uint32_t in_index;
    _Atomic uint32_t demanded; /* a reader of another process wants something of our fills */
    /* Start time of pid: a pid that came back is another process; 0: not known. */
    _Atomic uint64_t started;
    _Atomic uint32_t fills; /* that its process owns: fetches, hashes */
    /* of them, what is fetched just now, and how many connections bring it: places.c */
    _Atomic uint32_t blobs, transfers;
    uint8_t pad[20]; /* a cache line each */
};
/* Of what jobs and the fetcher do; they only go up. gateway/metrics.c shows them: a row each. */
struct cache_counters {
    _Atomic uint64_t fills, blob_bytes_filled, fills_adopted, integrity_failures, maps_dropped,
        index_resets;
    /* failures: no connection, cut, timed out, 429, 5xx */
    _Atomic uint64_t upstream_calls, upstream_failures, upstream_bytes;
    /* names and blobs; values that are wrong (also misses); calls that no server answered */
    _Atomic uint64_t share_hits, share_misses, share_rejected, share_errors;
    _Atomic uint64_t node_bytes;   /* of large files, from other nodes */
    _Atomic uint64_t node_refused; /* requests of nodes that are not of this cluster */
};
/* What upstream allows (limit.c): one gateway is one account, its budget is the whole company's. */
enum cache_limit_kind {
    CACHE_LIMIT_API,
    CACHE_LIMIT_RESOLVERS, /* files */
    CACHE_LIMIT_PAGES,
    CACHE_LIMIT_KINDS
};
struct cache_limit {
    _Atomic int64_t not_before_ms;       /* wall: nothing is asked before; 0: none */
    _Atomic int64_t remaining, reset_ms; /* requests left until then (wall); never negative */
    _Atomic int64_t quota;               /* per window; 0: not said */
    _Atomic uint64_t refused, held_back; /* 429 of upstream; calls that were not made */
};
/* What is held of blobs/ and parts/, and what was done about it. gateway/metrics.c shows them. */
struct cache_usage_counters {
    _Atomic uint64_t evictions, evicted_bytes;          /* blobs and parts, to keep the budget */
    _Atomic uint64_t scrubbed, scrubbed_bytes, damaged; /* blobs hashed again; removed of them */
    /* now: as of the last second */
    _Atomic uint64_t blobs, blob_bytes, part_bytes, max_bytes;
};
struct cache_shared {
    uint32_t version;
    _Atomic uint32_t index_epoch;      /* goes up when the index is set aside: all reopen */
    _Atomic uint32_t index_suspect;    /* somebody died in it or met damage: it is set aside next */
    _Atomic int64_t index_checked_ms;  /* monotonic: the once-a-second work of one worker */
    _Atomic uint32_t fills_orphaned;   /* goes up when a fill is given back: somebody looks */
    _Atomic int64_t fills_scanned_ms;  /* monotonic: parts/ is looked through by one worker */
    _Atomic uint64_t share_heard;      /* place in the stream of revocations; 0: not known */
    _Atomic int64_t share_failed_ms;   /* monotonic: when a failing Redis was logged */
    _Atomic int64_t share_rejected_ms; /* and a value that was refused */
    _Atomic uint32_t use_epoch;        /* goes up when all are to write down what they served */
    _Atomic uint32_t walk_wanted;      /* goes up when entries and files may differ */
    _Atomic uint32_t walk_done;        /* walk_wanted when the last finished walk began */
    _Atomic uint64_t room_wanted;      /* bytes of a file that waits for room; 0: none */
    _Atomic uint64_t zone; /* random: names this memory, of this master, in maps; 0: not yet */
    struct cache_slot slots[CACHE_SLOTS];
    struct cache_counters counters;
    struct cache_limit limits[CACHE_LIMIT_KINDS];
    struct cache_usage_counters usage;
};
/* In zeroed memory, before the first fork. @return GW_OK; GW_IO (eventfd) */
int cache_shared_init(struct cache_shared *s, struct gw_error *err) GW_MUST_CHECK;
/* Takes a free or dead slot. @return the slot number, or -1: all taken */
int cache_slot_claim(struct cache_shared *s);
void cache_slot_release(struct cache_shared *s, unsigned slot);
bool cache_slot_alive(const struct cache_shared *s, unsigned slot, uint32_t generation);
/* Any thread, any process of this shm: makes the loop of that slot run cache_tick. Publish the
 * state first. */
void cache_wake(struct cache_shared *s, unsigned slot);

/* ---- open ---- */
struct cache_upstream_options {
    struct gw_str url;           /* "https://huggingface.co", no trailing slash */
    struct gw_str token;         /* the organisation's own, sent to this host only; empty: none */
    const char *ca_file, *proxy; /* NULL: none */
    /* "host", "host:port", "host:*", "*.domain": where a redirect may lead besides the url's own
     * origin. Without a port: the scheme's. https only, unless url itself is http. */
    const struct gw_str *redirect_hosts;
    size_t n_redirect_hosts;
    /* "HOST:ADDRESS" (IPv6 without brackets): not asked, never changes. */
    const struct gw_str *resolve;
    size_t n_resolve;
    struct gw_str
        dns; /* "ADDRESS[:PORT]" of whom upstream's names are asked; empty: the machine's */
    int64_t connect_timeout_ms, stall_timeout_ms; /* 0: 5 s, 30 s */
    /* Of one blob, 1 to 8, besides one for who cannot wait; of all processes that share the memory,
     * 1 to 64. 0: 4, 16 */
    unsigned transfers, max_transfers;
    struct gw_str via; /* our Via token; requests carry it */
};
/* Other nodes, through Redis. Without servers there are none. */
struct cache_redis_server {
    struct gw_str host; /* name or literal; names are kept by the resolver thread */
    uint16_t port;
    bool tls;
};
/* "rediss://HOST[:PORT]", or "redis://" where HOST is a loopback address: what is in Redis is
 * signed, not hidden. No user, no path; 6379 by default, an IPv6 address in brackets. The host is
 * the arena's. @return GW_OK; GW_INVALID (text says why); GW_NO_MEMORY */
int cache_redis_url_parse(struct gw_str url, struct gw_arena *a, struct cache_redis_server *out,
                          struct gw_error *err) GW_MUST_CHECK;
struct cache_share_options {
    const struct cache_redis_server *servers; /* READONLY, LOADING or silence: the next one */
    size_t n_servers;
    const char *ca_file;          /* NULL: the system's store */
    struct gw_str user, password; /* ACL; empty: none */
    struct gw_str cluster_key;    /* >= 32 bytes, the same on all nodes: MAC of every value */
    struct gw_str node_url;       /* how other nodes reach this one; empty: they cannot */
    const char *node_ca_file;     /* for their https; NULL: the system's store */
    int64_t timeout_ms;           /* of one round trip; 0: 200 ms */
};
struct cache_options {
    const char *dir;
    bool verify_before;   /* serve nothing of a part before its digest is right */
    bool read_only_index; /* command: do not start a fetcher; nothing is claimed */
    struct cache_upstream_options upstream;
    struct cache_share_options share;
    struct cache_shared *shared; /* outlives the cache */
    unsigned slot;               /* claimed by the caller */
    size_t index_map_bytes;      /* 0: 64 GiB of address space */
    uint64_t max_bytes;          /* blobs and parts together; 0: as many as the disk takes */
    uint64_t min_free_bytes;     /* kept free on the disk, at most a 20th of it */
    int64_t scrub_ms;            /* each blob is hashed again once in so long; 0: never */
    struct gw_log log;
};
struct cache;
/* Makes the folders, opens the index (a damaged or foreign one is moved aside with a log line),
 * starts the fetcher.
 * @return GW_OK; GW_IO; GW_INVALID (another user's files, mixed owners); GW_NO_MEMORY */
int cache_open(struct cache **out, const struct cache_options *o,
               struct gw_error *err) GW_MUST_CHECK;
/* Any thread. The process is leaving: calls under way end with GW_CANCELLED within a second, new
 * ones at once. Before cache_close. */
void cache_leave(struct cache *c);
/* Loop, when no job is inside any more. Stops and joins the threads, gives fills back; NULL is
 * fine. */
void cache_close(struct cache *c);

/* ---- records: loop and job ---- */
enum cache_kind {
    CACHE_REF = 1,  /* "model/ns/name@main" -> commit */
    CACHE_FILE,     /* "model/ns/name@<commit>//path" -> hub_entry */
    CACHE_DOCUMENT, /* info, refs, commits ... -> JSON */
    CACHE_TREE,     /* a page of a tree -> JSON and the next cursor */
    CACHE_COMMIT,   /* "model/ns/name@<commit>" -> hashes of all its paths */
    CACHE_TOKEN,
    CACHE_SUBJECT, /* as last read from data/ */
};
struct cache_record {
    enum gw_status status; /* GW_OK, or what is known instead: GW_NOT_FOUND, GW_FORBIDDEN,
                              GW_UNAVAILABLE ... */
    int32_t detail;        /* the corridor's: e.g. a hub_reason; 0 */
    int64_t checked_ms;    /* wall */
    struct gw_str value;   /* get: copied into the arena; put: borrowed */
};
/* Loop or job. The name is bound into the value, so a hash collision or a swapped page is a miss.
 * Where CACHE_COMMIT decides about a missing CACHE_FILE, ask for the file first: the damage that a
 * look-up meets makes all later ones miss.
 * @return GW_OK (a record of any status); GW_NOT_FOUND (none held); GW_NO_MEMORY. A damaged index
 * is GW_NOT_FOUND. */
int cache_get(struct cache *c, enum cache_kind kind, struct gw_str name, struct gw_arena *a,
              struct cache_record *out) GW_MUST_CHECK;
struct cache_put {
    enum cache_kind kind;
    struct gw_str name;
    struct cache_record record;
};
/* Job. One transaction, n <= 1,000. @return GW_OK; GW_IO (disk full, index full): the caller's
 * answer may still go out; GW_TOO_LARGE (n, CACHE_NAME_MAX, CACHE_RECORD_MAX) */
int cache_put(struct cache *c, const struct cache_put *puts, size_t n,
              struct gw_error *err) GW_MUST_CHECK;
int cache_remove(struct cache *c, enum cache_kind kind, struct gw_str name,
                 struct gw_error *err) GW_MUST_CHECK;

/* Job, command. All records of a kind, in no order, borrowed for the call; damaged ones are left
 * out. `on` is called inside a read transaction: nothing that waits, no call of this room. Its
 * failure ends it and is returned. */
int cache_each(struct cache *c, enum cache_kind kind,
               int (*on)(void *ctx, struct gw_str name, const struct cache_record *record),
               void *ctx, struct gw_error *err) GW_MUST_CHECK;

/* ---- cards: what there is to list, by words and in order (catalogue.c). Jobs, command ---- */
enum cache_order { CACHE_BY_UPDATED, CACHE_BY_CREATED, CACHE_BY_DOWNLOADS, CACHE_ORDERS };
#define CACHE_WORDS_MAX 63u
#define CACHE_CARD_NAME_MAX 512u
#define CACHE_PLACE_ID 16u
struct cache_card {
    uint8_t type;               /* the corridor's: lists are of one type */
    struct gw_str name;         /* one card each, ASCII case folded */
    int64_t sort[CACHE_ORDERS]; /* not negative */
    struct gw_str words;        /* what it is found by, one a line, each once */
    struct gw_str value;        /* the corridor's */
};
bool cache_card_has(const struct cache_card *card, struct gw_str word); /* "": always */
/* In place of the one of that name. @return GW_OK; GW_TOO_LARGE; GW_IO; GW_NO_MEMORY */
int cache_card_put(struct cache *c, const struct cache_card *card,
                   struct gw_error *err) GW_MUST_CHECK;
/* GW_OK also if there is none */
int cache_card_remove(struct cache *c, uint8_t type, struct gw_str name,
                      struct gw_error *err) GW_MUST_CHECK;
/* In the arena. @return GW_OK; GW_NOT_FOUND; GW_IO; GW_NO_MEMORY */
int cache_card_get(struct cache *c, uint8_t type, struct gw_str name, struct gw_arena *a,
                   struct cache_card *out, struct gw_error *err) GW_MUST_CHECK;
/* Where in an order a card is: a list goes on behind it, whatever came and went around it. */
struct cache_place {
    uint64_t sort;
    uint8_t id[CACHE_PLACE_ID];
};
struct cache_card_query {
    uint8_t type;
    enum cache_order order; /* the greatest first */
    bool ascending;         /* the least first */
    struct gw_str word;     /* "": all. Others than what has it may come too: cache_card_has */
    const struct cache_place *after; /* NULL: from the beginning */
};
/* Borrowed for the call; inside a read transaction: nothing that waits, no call of this room. */
typedef int (*cache_on_card)(void *ctx, const struct cache_card *card,
                             const struct cache_place *at);
/* @return GW_OK: no more; what `on` returned, which ends it; GW_IO; GW_NO_MEMORY */
int cache_cards(struct cache *c, const struct cache_card_query *q, cache_on_card on, void *ctx,
                struct gw_error *err) GW_MUST_CHECK;
/* What the corridor notes of them, up to 1 KiB; "": nothing yet (a new index). */
int cache_cards_state(struct cache *c, struct gw_arena *a, struct gw_str *out,
                      struct gw_error *err) GW_MUST_CHECK;
int cache_cards_set_state(struct cache *c, struct gw_str state, struct gw_error *err) GW_MUST_CHECK;

/* ---- names: one thread asks every 30 s and keeps the last good answer ---- */
/* Any thread. From now on this host of the company is asked too (the directory's), of the machine's
 * own name service. A literal address or one known
 * already is fine. */
void cache_resolve_also(struct cache *c, struct gw_str host);
/* Job. The numeric address of a host, from memory; the first time it waits for the answer, 2 s at
 * most.
 * @return GW_OK; GW_UNAVAILABLE (no address, or none yet); GW_TOO_LARGE (cap; 46 always does) */
int cache_address_of(struct cache *c, struct gw_str host, char *buf, size_t cap) GW_MUST_CHECK;

/* ---- upstream documents: job ---- */
struct cache_call {
    const char *method;   /* "GET", "HEAD", "POST" */
    struct gw_str target; /* path and query, percent-encoded, begins with '/' */
    struct gw_str body, content_type;
    int64_t deadline_ms; /* monotonic */
};
struct cache_reply {
    int status; /* of the last hop */
    /* Path and query on the upstream host after its own redirects (renames). */
    struct gw_str final_target;
    struct gw_str etag, linked_etag, linked_size, repo_commit, error_code, error_message, link,
        content_type, location, retry_after, ratelimit;
    int64_t content_length; /* -1: not known */
};
/* Redirects: relative ones and ones to the same origin are followed (5 at most, token kept); HEAD
 * stops at another host and returns that answer; GET follows to an allowed host without the token,
 * to any other, or back from there: GW_FORBIDDEN. X-* and RateLimit are the upstream's own words,
 * X-Linked-* and X-Repo-Commit are kept over a redirect to the bytes. sink gets the body of a 2xx
 * in pieces; its failure ends the call and is returned, with its words when it fills *err. Strings
 * live in the arena.
 * @return GW_OK for any HTTP status; GW_UNAVAILABLE (connect, TLS, DNS); GW_TIMEOUT; GW_FORBIDDEN;
 * GW_INVALID (not HTTP, compressed body); GW_TOO_LARGE (headers over 64 KiB); GW_CANCELLED */
int cache_upstream_call(struct cache *c, const struct cache_call *call,
                        int (*sink)(void *ctx, struct gw_str bytes), void *ctx,
                        struct cache_reply *out, struct gw_arena *a,
                        struct gw_error *err) GW_MUST_CHECK;

/* ---- upstream's rate limits: any thread. Calls and transfers keep to them: GW_UNAVAILABLE with
 * err->sys 429, without a call ---- */
/* How long nothing is asked; 0: it may be. */
int64_t cache_limit_wait_ms(const struct cache_shared *s, enum cache_limit_kind kind);
/* So little is left of this window that nothing should be fetched ahead of who needs it. */
bool cache_limit_low(const struct cache_shared *s, enum cache_limit_kind kind);
/* Another node knows better. wall ms */
void cache_limit_until(struct cache_shared *s, enum cache_limit_kind kind, int64_t not_before_ms);

/* ---- other nodes (Redis): job, peer REDIS ----
 * Never trusted and never needed. Every value is framed: version, kind, name, time, bytes, MAC
 * under the cluster key, so what is damaged, foreign, replayed under another name, too large or of
 * another type is a miss, counted. Each call ends at its deadline; none of them touches upstream.
 * Common to all: GW_UNAVAILABLE, GW_TIMEOUT (no server answers: the caller goes on without),
 * GW_CANCELLED, GW_NO_MEMORY. */
#define CACHE_SHARE_MAX (1u << 20) /* bytes of a record or blob that is shared */
#define CACHE_SHARE_NAMES_MAX 1000u
bool cache_share_on(const struct cache *c); /* any thread: are there servers? */
/* The command. Without a cache: does this server answer, know us, and give us the rights to all
 * that we do there? Resolves the name itself. @return GW_OK; GW_UNAVAILABLE, GW_TIMEOUT: text says
 * what */
int cache_share_probe(const struct cache_share_options *o, size_t server, int64_t deadline_ms,
                      struct gw_error *err) GW_MUST_CHECK;
struct cache_share_name {
    enum cache_kind kind; /* not CACHE_TOKEN, CACHE_SUBJECT: those are read from data/ */
    struct gw_str name;
};
/* Puts what other nodes shared of these into the index; older than what is held there already, or
 * checked in the future, counts as not found.
 * @param found  n of them, out. @return GW_OK (also with none found) */
int cache_share_get(struct cache *c, const struct cache_share_name *names, size_t n, bool *found,
                    int64_t deadline_ms, struct gw_error *err) GW_MUST_CHECK;
/* Shares what the index holds of these (larger than CACHE_SHARE_MAX: left out). */
int cache_share_put(struct cache *c, const struct cache_share_name *names, size_t n,
                    int64_t deadline_ms, struct gw_error *err) GW_MUST_CHECK;
/* A blob of up to CACHE_SHARE_MAX bytes into blobs/, its digest checked. @return GW_OK: held now;
 * GW_NOT_FOUND */
int cache_share_blob_get(struct cache *c, struct gw_str digest, uint64_t size, int64_t deadline_ms,
                         struct gw_error *err) GW_MUST_CHECK;
int cache_share_blob_put(struct cache *c, struct gw_str digest, int64_t deadline_ms,
                         struct gw_error *err) GW_MUST_CHECK;
/* A lease: at most one node does this. Its fence goes up at every change of hands, so a holder that
 * was stopped finds that it lost it. */
#define CACHE_NODE_URL_MAX 255u
struct cache_lease {
    uint64_t fence;                        /* of whoever holds it */
    int64_t ends_ms;                       /* wall, by the clock of whoever holds it */
    char node_url[CACHE_NODE_URL_MAX + 1]; /* of whoever holds it; "": cannot be reached */
};
/* Takes it, or renews it when mine is the fence that is held (0: none).
 * @return GW_OK: ours for life_ms from now; GW_CONFLICT: *out is somebody else's */
int cache_lease_take(struct cache *c, struct gw_str name, uint64_t mine, int64_t life_ms,
                     struct cache_lease *out, int64_t deadline_ms,
                     struct gw_error *err) GW_MUST_CHECK;
/* Only if it is still ours. @return GW_OK; GW_CONFLICT: it is not */
int cache_lease_renew(struct cache *c, struct gw_str name, uint64_t mine, int64_t life_ms,
                      int64_t deadline_ms, struct gw_error *err) GW_MUST_CHECK;
/* Gives it back if it is still ours. */
int cache_lease_drop(struct cache *c, struct gw_str name, uint64_t mine, int64_t deadline_ms,
                     struct gw_error *err) GW_MUST_CHECK;
/* Job, peer REDIS, named by cache_tick: asks for the lease of a fill, renews it, gives it back.
 * deadline_ms 0, any thread: Redis is known not to answer, do not ask. @return GW_OK, also when
 * another node has it; as cache_lease_take */
int cache_lease_job(struct cache *c, struct gw_str key, int64_t deadline_ms, struct gw_error *err);
/* What a node shows another one that has a blob, or fetches it: "/-/blob/<digest>", by a MAC under
 * the cluster key of method, digest and time. */
#define CACHE_NODE_CREDENTIAL_MAX 112u
/* Any thread. Was this Authorization made with our cluster key for that method and digest, within a
 * minute of now_s (wall)? false without a key. */
bool cache_node_credential_ok(const struct cache *c, struct gw_str method, struct gw_str digest,
                              struct gw_str value, int64_t now_s);
/* Any thread. Is it at least such a credential, whoever signed it? false without a key. */
bool cache_node_credential_formed(const struct cache *c, struct gw_str digest, struct gw_str value);
/* The revocation stream: tells all nodes that a record of data/ changed (CACHE_TOKEN,
 * CACHE_SUBJECT, CACHE_REF of a private repo). */
int cache_share_tell(struct cache *c, enum cache_kind kind, struct gw_str name, int64_t deadline_ms,
                     struct gw_error *err) GW_MUST_CHECK;
/* Removes from the index what others told since the last call of any worker of this node (the place
 * in the stream is in shared memory); asked about once a second by one worker. A first call, and
 * one after a gap (the stream was cut or flushed), removes nothing: records of data/ are read again
 * after 30 s anyway. */
int cache_share_listen(struct cache *c, int64_t deadline_ms, struct gw_error *err) GW_MUST_CHECK;

/* ---- blobs ---- */
/* Loop: one open(2). modified_s: mtime, which may change (it is also the last use).
 * @return GW_OK: *fd is the caller's to close; GW_NOT_FOUND; GW_AGAIN: a small blob of another boot
 * that was never synced, run cache_blob_prove in a DISK job; GW_IO */
int cache_blob_open(struct cache *c, struct gw_str digest, int *fd, uint64_t *size,
                    int64_t *modified_s, struct gw_error *err) GW_MUST_CHECK;
/* Job. Is it held, and right if that was open? Once a boot it is hashed for this. @return GW_OK;
 * GW_NOT_FOUND; GW_IO */
int cache_blob_prove(struct cache *c, struct gw_str digest, struct gw_error *err) GW_MUST_CHECK;
/* Loop. A held blob turned out not to be what its record says (another size): it is removed and
 * counted; the next look-up misses. */
void cache_blob_drop(struct cache *c, struct gw_str digest);
/* Job. Fetch target (<= CACHE_SMALL_MAX bytes, else GW_TOO_LARGE), verify, link. Wrong bytes or a
 * cut are tried once more. @return GW_OK; GW_CORRUPT (twice wrong); as cache_upstream_call; by the
 * HTTP status (err->sys holds it) GW_NOT_FOUND (404, 410), GW_FORBIDDEN (401, 403), GW_UNAVAILABLE
 * (any other, and every refusal of the host that upstream leads to) */
int cache_blob_fetch(struct cache *c, struct gw_str digest, uint64_t size, struct gw_str target,
                     int64_t deadline_ms, struct gw_error *err) GW_MUST_CHECK;
/* Job. Take bytes or a file in as a blob after checking the digest: bytes are written; a path is
 * hard-linked when on one file system, else copied. Held already is GW_OK. @return GW_OK;
 * GW_CORRUPT (digest or size differs); GW_IO */
int cache_blob_put(struct cache *c, struct gw_str digest, struct gw_str bytes,
                   struct gw_error *err) GW_MUST_CHECK;
int cache_blob_take(struct cache *c, struct gw_str digest, uint64_t size, const char *path,
                    struct gw_error *err) GW_MUST_CHECK;

/* ---- pages ---- */
/* Bytes of a file that are sent and brought at a time; windows begin at multiples. */
#define CACHE_WINDOW (2u << 20)
/* Bytes that are looked at together: each look costs some 4 % of what TLS takes for a window. */
#define CACHE_LOOK (4 * CACHE_WINDOW)
/* Loop: never waits for a disk. Are these bytes (<= CACHE_LOOK) of an open file in memory? Also
 * true when nothing can say so (the file of another user). */
bool cache_in_memory(int fd, uint64_t offset, uint64_t n);
/* Job. Reads the window at offset of a blob or part into memory, and asks the kernel for the next
 * ones. @return GW_OK; GW_NOT_FOUND (neither is held any more); GW_IO; GW_NO_MEMORY */
int cache_bring(struct cache *c, struct gw_str digest, uint64_t offset,
                struct gw_error *err) GW_MUST_CHECK;

/* ---- large fills ---- */
struct cache_reader;
/* Where the bytes come from; kept in the map, so that whoever adopts the fill can go on. */
struct cache_source {
    /* Upstream path, percent-encoded, <= 3,072 bytes: /ns/name/resolve/<commit>/path */
    struct gw_str target;
    bool all;  /* fetch the whole, also if nobody ever reads */
    bool file; /* target is the path of an object of data/: nothing is fetched, it is proved here */
};
/* Loop. Attach to the part of a blob that is not whole.
 * @param target  as in cache_source: where this reader would have it fetched from; empty: anywhere
 * @return GW_OK: *out, to be closed; GW_AGAIN: no part yet, or one that upstream refuses under
 * another target: run cache_part_create in a DISK job; GW_CONFLICT: it became whole just now, open
 * the blob; GW_IO; GW_NO_MEMORY */
int cache_reader_open(struct cache_reader **out, struct cache *c, struct gw_str digest,
                      uint64_t size, struct gw_str target, struct gw_error *err) GW_MUST_CHECK;
/* Loop. Is what cache_reader_want failed with about another target than this reader's? Then it is
 * worth opening again. */
bool cache_reader_other_failed(const struct cache_reader *r);
/* The same for another node, which proves what it gets: nothing is held back, and only what it asks
 * for is fetched because of it. *size: out */
int cache_reader_open_node(struct cache_reader **out, struct cache *c, struct gw_str digest,
                           uint64_t *size, struct gw_error *err) GW_MUST_CHECK;
/* Job. Makes part and map (space is checked first); what is fetched is what readers want, or all.
 * Somebody else's live one is GW_OK, and goes on from this target if its own is refused. @return
 * GW_OK; GW_IO (errno ENOSPC); GW_INVALID; GW_CORRUPT
 * (twice wrong within the hour); GW_UNAVAILABLE (being fetched with another size); or, for a while,
 * how upstream refused this very target */
int cache_part_create(struct cache *c, struct gw_str digest, uint64_t size,
                      const struct cache_source *src, struct gw_error *err) GW_MUST_CHECK;
/**
 * Loop. Bytes readable from offset on, now; if none, asks for them (claims a fill that nobody owns)
 * and arranges that this worker's eventfd is written when there are more. Holds back the last
 * granule of a whole or long response until the digest is right; such a response starts the fill of
 * the whole, any other one is fetched by its own granules alone, a few ahead of what is sent.
 * @param end   one past the last byte of this response
 * @param begun bytes of this response sent so far
 * @param avail out: 0: none yet, wait for the eventfd (a tick of 250 ms covers a lost wake)
 * @return GW_OK; GW_UNAVAILABLE (upstream failed; err says how); GW_FORBIDDEN (the Hub refuses the
 * file: err->sys is 401 or 403); GW_CORRUPT (dropped: cut the connection); GW_IO; GW_CANCELLED
 */
int cache_reader_want(struct cache_reader *r, uint64_t offset, uint64_t end, uint64_t begun,
                      uint64_t *avail, struct gw_error *err) GW_MUST_CHECK;
/* Loop, before the first cache_reader_want: this response too gets nothing before the digest is
 * right, whatever the option verify_before says. */
void cache_reader_verify_before(struct cache_reader *r);
int cache_reader_fd(const struct cache_reader *r); /* borrowed, for sendfile(2) */
/* Loop. A client that leaves does not stop the fill. NULL is fine. */
void cache_reader_close(struct cache_reader *r);

/* Loop, after a wake and on each tick: re-arms the eventfd and names the next job that a fill of
 * this worker needs (a hash step, publishing, its lease); fills of dead owners are adopted by the
 * fetcher and by readers that wait. want->key is good until that job ends. @return GW_OK: run
 * cache_fill_job with want->key in a DISK job, call again; GW_NOT_FOUND: nothing to do. Until that
 * job ended its key is not given out again. */
int cache_tick(struct cache *c, struct gw_want *want);
/* Job. Hashes up to 64 MiB from the page cache, saves the state in the map; at the end compares,
 * fdatasync, link, unlink. */
int cache_fill_job(struct cache *c, struct gw_str key, struct gw_error *err) GW_MUST_CHECK;

/* ---- how much is held: budget.c, scrub.c ----
 * cache_tick also names "usage" (each process writes down what it served) and "budget" (one process
 * of the node, the holder of <dir>/budget.lock: eviction, the walk over blobs/, the scrub). */
/* Job. */
int cache_usage_job(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
/* Job. A slice: at most ~100 ms. */
int cache_budget_job(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
/* Loop. This process is leaving: another one does the upkeep. */
void cache_retire(struct cache *c);
/* Any thread. Blobs that are not evicted, in place of those named before; digests borrowed. */
int cache_pins_set(struct cache *c, const struct gw_str *digests, size_t n,
                   struct gw_error *err) GW_MUST_CHECK;

struct cache_held {
    uint64_t blobs, blob_bytes; /* bytes that eviction could free: not those shared with data/ */
    uint64_t parts, part_bytes;
    uint64_t max_bytes, disk_free, disk_bytes;
    int64_t scrub_started_ms; /* of the round, wall; 0: none yet */
    uint64_t scrub_bytes;     /* done in it */
};
/* Job, command: these wait for the disk. */
int cache_held(struct cache *c, struct cache_held *out, struct gw_error *err) GW_MUST_CHECK;
struct cache_blob {
    struct gw_str digest;
    uint64_t bytes; /* 0: data/ has it too */
    int64_t used_ms;
};
/* All that are held, by the index, in the order of their digests; borrowed for the call. The
 * failure of `on` ends it and is returned. */
int cache_each_blob(struct cache *c, int (*on)(void *ctx, const struct cache_blob *b), void *ctx,
                    struct gw_error *err) GW_MUST_CHECK;
/* A blob, or what is there of one that nobody fetches just now. @return GW_OK: removed, *freed
 * bytes; GW_NOT_FOUND; GW_FORBIDDEN (pinned); GW_CONFLICT (being fetched); GW_IO */
int cache_evict(struct cache *c, struct gw_str digest, uint64_t *freed,
                struct gw_error *err) GW_MUST_CHECK;
/* The oldest go until blobs and parts hold no more than so many bytes. @return GW_OK;
 * GW_UNAVAILABLE (what is left is pinned, or a part in use); GW_IO */
int cache_evict_to(struct cache *c, uint64_t bytes, uint64_t *n, uint64_t *freed,
                   struct gw_error *err) GW_MUST_CHECK;
struct cache_verify {
    uint64_t rate; /* bytes per second; 0: as fast as it goes */
    void (*progress)(void *ctx, const struct cache_verify *v);
    /* A blob that is not what its name says; removed. shared: data/ has the same inode. */
    void (*damaged)(void *ctx, struct gw_str digest, const char *what, bool shared);
    void *ctx;
    /* out */
    uint64_t blobs, bytes, total_blobs, total_bytes, n_damaged;
};
/* Brings the entries in line with the files, then hashes every blob. */
int cache_verify_all(struct cache *c, struct cache_verify *v, struct gw_error *err) GW_MUST_CHECK;

/* Is this digest within the hour after a mismatch, when generations must not be joined? (hub-read:
 * resume after mismatch) */
bool cache_recently_mismatched(struct cache *c, struct gw_str digest);

#endif
