/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/fill_internal.h - large fills: who holds what, and the map that all processes share.
 *
 *   table     one per process: the attached parts, one mutex for memory work, one fetcher thread
 *   fill      one attached part, shared by its readers, the fetcher and the jobs; counted
 *   map       the mapping itself (map.c): immutable head, live words, one byte per granule
 *   transfer  one range on its way (fetcher.c); several per fill, all of them of its owner
 *
 * A fill belongs to the process whose word is in the map's `owner`: it fetches, hashes and
 * publishes. Everybody else reads, and takes the fill over (compare and swap) when the owner is
 * dead or says nothing for long. An owner that finds another word there has lost the fill and lets
 * go: it looks before each write, before a hash state is saved, and before names are made or
 * removed (under the lock). One that was stopped in the middle of a write could still change what
 * another one has proved: it holds a lock on the part meanwhile, and nothing is hashed before that
 * is free; if that takes long, the blob is a copy of the part.
 *
 * A reader in any process says in the map what it wants: a granule is WANTED, or DEMANDED when
 * somebody waits for it now, or the whole is. It bumps `demands` and wakes the owner, whose fetcher
 * decides; with nothing wanted the owner lets go, and the next reader owns it.
 *
 * Removing or replacing names in parts/ happens under flock(parts/.lock) only, in jobs and in the
 * fetcher; looking does not need it, because a map gets its name after it is complete and names the
 * inode of its part.
 */
#ifndef CACHE_FILL_INTERNAL_H
#define CACHE_FILL_INTERNAL_H

#include <limits.h>
#include <pthread.h>

#include "base/sha.h"
#include "cache/cache_internal.h"

/* ---- the map: parts/<digest>.map, version 2, native byte order (the cache is local) ---- */
#define MAP_VERSION 2u
#define MAP_PAGE 4096u            /* head, then live words, each its own page */
#define MAP_GRANULES_AT 8192u     /* then one byte per granule */
#define MAP_SIZE_MAX (1ull << 44) /* bytes of a blob; 16 MiB of granule bytes */
#define MAP_SOURCE_MAX 3072u
#define MAP_TRANSFERS 16u
/* flags */
#define MAP_FROM_FILE 1u /* source is a path of data/, not of upstream (local.c) */
#define MAP_LINKED 2u    /* ... and the part is that very file: it is never written */
#define MAP_PASSING 4u   /* larger than the budget: read here, never a blob, gone soon after */

struct map_head { /* written once, before the file has its name */
    char magic[8];
    uint32_t version;
    uint32_t granule;
    uint64_t size;
    uint64_t part_ino;
    uint64_t generation; /* random */
    uint32_t digest_len, source_len;
    char digest[CACHE_DIGEST_MAX];
    char source[MAP_SOURCE_MAX];
    uint32_t flags;
    uint8_t reserved[904];
    uint32_t crc; /* of everything above */
};
_Static_assert(sizeof(struct map_head) == MAP_PAGE, "the head is a page");

/* Words, so that a flipped bit of one makes none of the others. */
enum map_state {
    MAP_FILLING = 0x4c4c4946,
    MAP_PROVEN = 0x564f5250,  /* the digest is right; nothing is held back any more */
    MAP_WHOLE = 0x4c4f4857,   /* linked into blobs/, durable */
    MAP_CORRUPT = 0x54524f43, /* every byte came, the digest is wrong: cut the readers */
    MAP_DROPPED = 0x504f5244  /* removed for another reason */
};

/* Two of them, written in turn: a kill in mid-save leaves the other. */
struct map_hash {
    uint64_t seq;
    struct gw_sha256 sha;
    uint32_t pad;
    uint32_t crc; /* of everything above, begun with the head's crc: it belongs to this map only */
};

struct map_live {
    _Atomic uint64_t boot;    /* of whoever wrote last */
    _Atomic uint64_t clean;   /* 0, or a seal: what it covers has reached the disk */
    _Atomic uint64_t owner;   /* zone << 40 | (slot + 1) << 32 | generation; 0: nobody */
    _Atomic uint64_t beat;    /* monotonic ms of the owner's last sign of life */
    _Atomic uint64_t waiters; /* slots to be woken at the next progress */
    _Atomic uint64_t failure; /* until ms << 24 | kind << 16 | errno, HTTP status, CURLcode; 0 */
    _Atomic uint64_t transfers[MAP_TRANSFERS]; /* live bit | granule << 21 | its bytes there */
    _Atomic uint32_t state;                    /* enum map_state */
    _Atomic uint32_t all;     /* not 0: the whole is wanted, also by whoever adopts the fill */
    _Atomic uint32_t demands; /* goes up when a reader changed what is wanted */
    struct map_hash hash[2];
};
_Static_assert(sizeof(struct map_live) <= MAP_PAGE, "the live words fit their page");

#define GRANULE_ABSENT 0u
#define GRANULE_VALID 1u
#define GRANULE_LIVE 2u     /* a transfer is in it; its word in transfers[] says how far */
#define GRANULE_WANTED 3u   /* absent; somebody will read it */
#define GRANULE_DEMANDED 4u /* absent; somebody waits for it. Any other value: absent */

struct map {
    int map_fd, part_fd;
    void *image;
    size_t bytes; /* mapped */
    uint64_t granules;
    const struct map_head *head; /* a copy: what was judged is what is used, whatever happens to
                                    the file */
    struct map_live *live;
    _Atomic uint8_t *granule;
};

uint64_t map_file_bytes(uint64_t size);
extern const char map_ended[]; /* a doubt that is no damage: its fill is over */
/* Would this image be a trustworthy map of that digest, with that part? Pure. @return NULL, or what
 * is wrong with it */
const char *map_doubt(const void *image, size_t n, struct gw_str digest, uint64_t part_size,
                      uint64_t part_ino, uint64_t boot);
/* Fills a new image (map_file_bytes long, zeroed) of a part without any byte. */
void map_format(void *image, struct gw_str digest, uint64_t size, struct gw_str source,
                uint32_t flags, uint64_t part_ino, uint64_t generation, uint64_t boot);
/* Opens map and part and maps the former. @return GW_OK; GW_NOT_FOUND (no map); GW_CORRUPT (not to
 * be trusted, or its part is not there: whoever holds the lock drops both); GW_CONFLICT (ended);
 * GW_IO; GW_NO_MEMORY */
int map_attach(struct map *m, const char *parts, struct gw_str digest, uint64_t boot,
               struct gw_error *err) GW_MUST_CHECK;
void map_detach(struct map *m);
/* Bytes that may be read from offset on, at most up to end; looks no further than 64 granules. */
uint64_t map_ready(const struct map *m, uint64_t offset, uint64_t end);
/* First granule >= from that is not valid; m->granules if there is none. */
uint64_t map_missing(const struct map *m, uint64_t from);
/* First granule >= from that is to be fetched, or is being: somebody wants it, or began it, or the
 * whole is wanted. m->granules if there is none. */
uint64_t map_wanted(const struct map *m, uint64_t from);
/* First granule >= from that somebody waits for and no transfer is in; m->granules */
uint64_t map_demanded(const struct map *m, uint64_t from);
/* Is there work that does not depend on a reader: something wanted, or all there and not proven? */
bool map_unfinished(const struct map *m);
/* The reader's part: WANTED or DEMANDED if it is absent and not so already. @return it changed */
bool map_ask(struct map *m, uint64_t g, uint8_t how);
/* Bytes of granules [0, g), which may end with the blob. */
uint64_t map_bytes(const struct map *m, uint64_t g);
/* After a change of owner: what no transfer vouches for becomes absent, and stays wanted. */
void map_settle(struct map *m);
/* The newest hash state whose CRC is right and whose bytes are all there; else a fresh one. */
void map_hash_load(const struct map *m, struct gw_sha256 *out);
void map_hash_save(struct map *m, const struct gw_sha256 *s);
/* What `clean` must hold for another boot to trust the map as it is now. */
uint64_t map_seal(const struct map *m);

#define TRANSFER_LIVE (1ull << 63)
static inline uint64_t transfer_word(uint64_t granule, uint64_t bytes)
{
    return TRANSFER_LIVE | granule << 21 | bytes;
}
static inline uint64_t transfer_granule(uint64_t word)
{
    return (word & ~TRANSFER_LIVE) >> 21;
}
static inline uint64_t transfer_bytes(uint64_t word)
{
    return word & ((1u << 21) - 1);
}

/* ---- fills of this process ---- */
enum fill_failure {
    FILL_NETWORK = 1, /* sys: CURLcode */
    FILL_STATUS,      /* sys: HTTP status */
    FILL_REDIRECT,    /* to where we do not go, or too often */
    FILL_CHANGED,     /* upstream has other content under this name */
    FILL_RANGE,       /* the answer is not the range that was asked for */
    FILL_ENCODED,     /* a compressed body */
    FILL_DISK,        /* sys: errno */
    FILL_MEMORY,
    FILL_SOURCE,  /* the target in the map makes no URL */
    FILL_REFUSED, /* by the Hub itself; sys: 401 or 403 */
    FILL_FILE     /* the object in data/ cannot be read; sys: errno */
};

/* Who of the cluster fetches a fill: peer.c */
enum lease_state { LEASE_OFF, LEASE_ASKED, LEASE_OURS, LEASE_THEIRS, LEASE_ALONE };

struct fill_lease {
    /* under table->mutex */
    enum lease_state state;
    bool ending, whole; /* it is given back, or left as a sign of where the blob is */
    bool out, running;  /* its job */
    bool hub_only;
    bool theirs_whole; /* nobody renews it: it says where the blob is */
    bool theirs_gone;
    unsigned broken; /* how often in a row the other node broke off */
    int64_t due_ms, out_ms, wait_until_ms;
    uint64_t mine, theirs; /* fences; 0: none */
    char node_url[CACHE_NODE_URL_MAX + 1];

    _Atomic int64_t flowed_ms; /* when a byte of the other node last came */
};

#define FILL_BANS 16u
struct fill_ban {
    int64_t until_ms;
    char url[CACHE_NODE_URL_MAX + 1], digest[CACHE_DIGEST_MAX + 1];
};

struct fill_refused {
    uint64_t source, failure; /* digest and target; the word of the map */
};

struct fill_table {
    struct cache *cache;
    uint64_t boot, self; /* self: our owner word */
    atomic_bool stopping;
    struct fetcher *fetcher; /* NULL: read only, nothing is claimed */
    pthread_mutex_t mutex;   /* memory work only */
    struct fill *list;       /* all that are attached */
    struct fill *queue;      /* newly owned, for the fetcher; by queue_next */
    unsigned n_owned;
    int64_t retry_ms;              /* before the first repetition of a request; doubles */
    int64_t rest_ms;               /* a failed fill rests so long */
    int64_t silent_ms, foreign_ms; /* an owner that gives no sign of life is dead after */
    unsigned transfers, max_transfers;
    bool shares;            /* there are other nodes */
    int64_t quiet_until_ms; /* under the mutex, like bans: see peer.c */
    struct fill_ban bans[FILL_BANS];
    struct fill_refused refused[FILL_BANS]; /* under the mutex: see source.c */
    unsigned n_refused;
    int (*lease_take)(struct cache *c, struct gw_str name, uint64_t mine, int64_t life_ms,
                      struct cache_lease *out, int64_t deadline_ms, struct gw_error *err);
    int (*lease_drop)(struct cache *c, struct gw_str name, uint64_t mine, int64_t deadline_ms,
                      struct gw_error *err);
};

struct transfer;

struct fill {
    struct fill *next, *queue_next;
    struct fill_table *table;
    char digest[CACHE_DIGEST_MAX + 1];
    char key[CACHE_DIGEST_MAX + sizeof("fill:")], lease_key[CACHE_DIGEST_MAX + sizeof("lease:")];
    struct map map;
    /* Nobody who had it before is still writing: what is hashed from now on stays as it is. */
    atomic_bool settled;
    atomic_bool gone; /* its names or sizes are no longer what they were: touch the map no more */

    /* under table->mutex */
    unsigned refs; /* readers, the owner, the fetcher, the job: one each */
    bool listed;   /* new readers join this one */
    bool owned, queued;
    bool drop;  /* the next job drops it */
    bool bring; /* the next job copies from data/ */
    bool job_out, job_running;
    int64_t claimed_ms;
    int64_t job_after_ms, job_out_ms, asked_ms; /* asked_ms: when the owner was last looked up */
    uint64_t contiguous;                        /* granules valid from the first on */
    uint64_t hashed;                            /* bytes */

    struct fill_lease lease;

    /* the fetcher's thread only */
    bool active;
    char *node; /* the node it comes from; NULL: the Hub */
    struct fill *active_next;
    unsigned n_transfers;
    unsigned failures; /* weight, since the last progress */
    int64_t not_before_ms;
    int64_t due_ms;        /* when it is looked at next; INT64_MAX: when something happens */
    int64_t yielded_ms;    /* when a transfer was last asked to make room */
    double best;           /* bytes per ms of its fastest transfer; less as time goes by */
    int64_t hurried_ms;    /* when a slow one was last begun anew */
    uint64_t turn;         /* of its last start: who waited longest comes first */
    uint32_t demands_seen; /* map.live->demands */
    bool served;           /* in this turn: nothing more is done for it */
    bool answered;         /* upstream has begun to send, at `url` or itself */
    bool no_ranges;        /* it sends the whole whatever is asked: one transfer */
    char *url;             /* where the Hub's redirect led; NULL: not known, or not any more */
    int64_t url_ms;
    bool digest_etags; /* its redirect target gave our digest as ETag */
    int64_t looked_ms;
};

/* Its bytes are in data/: jobs bring them, not the fetcher. */
static inline bool fill_local(const struct fill *f)
{
    return (f->map.head->flags & MAP_FROM_FILE) != 0;
}

static inline struct gw_str fill_digest(const struct fill *f)
{
    return (struct gw_str){f->digest, strlen(f->digest)};
}

/* A reference to the attached part of that digest; attaches it if need be. Loop or fetcher.
 * @return as map_attach, GW_NO_MEMORY */
int fill_get(struct fill **out, struct fill_table *t, struct gw_str digest,
             struct gw_error *err) GW_MUST_CHECK;
void fill_ref(struct fill *f);
void fill_unref(struct fill *f); /* NULL is fine */
/* Under the mutex. @return f if that was the last one: for fill_free, after the mutex */
struct fill *fill_drop_ref(struct fill *f);
void fill_free(struct fill *f);
/* Is there somebody who works on it? Asks the system at most every 50 ms. */
bool fill_has_owner(struct fill *f);
/* Take it over if nobody has it. fresh: also one whose last try failed. @return it is ours */
bool fill_claim(struct fill *f, bool fresh);
/* Ours no more; for whoever comes. */
void fill_let_go(struct fill *f);
void fill_wake(struct fill *f);
/* A reader changed what is wanted: tells the owner, in whatever process it is. */
void fill_demand(struct fill *f);
bool fill_ours(const struct fill *f); /* by the map: false also when somebody took it away */
bool fill_ended(const struct fill *f);
/* Records why, for until_ms at least; before letting go. */
void fill_fail(struct fill *f, enum fill_failure kind, int sys, int64_t until_ms);
/* GW_OK: no failure that counts now. */
int fill_failure(const struct fill *f, struct gw_error *err);
int fill_failure_of(uint64_t word, struct gw_error *err);
/* It failed, and for a reason that is about the repository it is fetched from. */
bool fill_source_failed(const struct fill *f);
/* Counts what is valid from the front, and wakes our loop when that makes a job due. */
void fill_progress(struct fill *f);
/* No new readers for it. */
void fill_unlist(struct fill *f);
/* Are its names and sizes still what they were? If not, it is gone. A few system calls. */
void fill_look(struct fill *f);
/* May its map be touched? One system call; asked before each piece of work, because a map that
 * somebody cut short is a SIGBUS. */
bool fill_safe(struct fill *f);
/* Puts it into the fetcher's queue, once. Under the mutex. */
void fill_enqueue(struct fill *f);
/* All attached fills, each with a reference, into a growing array of the caller. */
size_t fill_snapshot(struct fill_table *t, struct fill ***array, size_t *cap);

/* ---- part.c ---- */
/* Held while names in parts/ are made or removed. @return a descriptor, -1 with errno */
int parts_lock(struct fill_table *t, bool wait);
void parts_unlock(int lock);
/* Under the lock: makes part and map. @return GW_OK; GW_CONFLICT (one is there); GW_IO */
int part_make(struct fill_table *t, struct gw_str digest, uint64_t size, struct gw_str source,
              uint32_t flags, struct gw_error *err) GW_MUST_CHECK;
/* Under the lock: removes both names whatever they are. */
void part_remove(struct fill_table *t, struct gw_str digest);
/* Job, fetcher. Ends a fill in that state: names removed if they are still its own, let go, woken.
 * An end that came first stands: whoever lost the fill in between comes too late to drop a blob.
 * @return it was this call that ended it */
bool part_drop(struct fill *f, enum map_state state);
/* Fetcher, around each write: false: somebody else is about to prove it, do not write. */
bool part_write_begin(struct fill *f);
void part_write_end(struct fill *f);
/* Fetcher, not within a write. Is no other process within one? */
bool part_at_rest(struct fill *f);
/* Job. The mismatches of the last hour, this one included. */
unsigned part_note_mismatch(struct fill_table *t, struct gw_str digest);
/* More than one within the hour: nobody tries again for a while, longer each time. */
bool part_resting(struct fill_table *t, struct gw_str digest);
/* How much is in parts/, and how much those that are wanted whole will still need. */
struct parts_sum {
    uint64_t parts, bytes;
    uint64_t promised, coming; /* coming: of it, what somebody fetches now */
};
void parts_measure(const struct cache *c, struct parts_sum *out);
/* Job. The part that was asked for longest ago of those that nobody is at.
 * @return when that was (wall); INT64_MAX: there is none */
int64_t parts_idle(struct fill_table *t, char digest[CACHE_DIGEST_MAX + 1]);
/* Job. Drops it unless somebody is at it. @return its bytes; 0: it stays */
uint64_t part_evict(struct fill_table *t, struct gw_str digest);
/* Fetcher. A look at parts/: orphans are claimed, rubbish is swept. */
void parts_scan(struct fill_table *t);

/* ---- local.c ---- */
/* Job. An object of data/ as the source of a part; flags: out. @return GW_OK; GW_IO; GW_CORRUPT
 * (another size) */
int local_look(const struct fill_table *t, struct gw_str file, uint64_t size, uint32_t *flags,
               struct gw_error *err) GW_MUST_CHECK;
/* Under the lock. false: it has to be copied. */
bool local_link(struct gw_str file, uint64_t size, const char *part);
/* Job of the fill's owner. Copies what is wanted, a step of it; on failure the fill is given up.
 * buffer: of a granule */
int local_copy(struct fill *f, uint8_t *buffer, struct gw_error *err) GW_MUST_CHECK;
void local_rest(struct fill *f);   /* after a step: is more wanted? */
void local_wanted(struct fill *f); /* fetcher: a job is to bring something */

/* ---- source.c ---- */
/* Is that where it is fetched from? Empty: whatever it is. */
bool source_is(const struct fill *f, struct gw_str target);
/* Job. How the last try from there failed, if that was just now; GW_OK */
int source_refused(struct fill_table *t, struct gw_str digest, struct gw_str target,
                   struct gw_error *err);
/* Job, under the lock. A part that lives, but is refused where it is fetched from, goes on from
 * target. @return GW_OK (also when there is nothing to change); GW_IO; as fill_get */
int source_change(struct fill_table *t, struct gw_str digest, struct gw_str target, uint32_t flags,
                  struct gw_error *err) GW_MUST_CHECK;

/* ---- peer.c ---- */
void cache_node_credential(const struct cache *c, struct gw_str method, struct gw_str digest,
                           int64_t now_s, char out[CACHE_NODE_CREDENTIAL_MAX]);
enum lease_source { SOURCE_HUB, SOURCE_NODE, SOURCE_WAIT };
/* Fetcher. The fill is ours now: asks who fetches it. */
void lease_begin(struct fill *f);
/* Fetcher. Whom to ask now; url: of the node; until_ms: nobody before. */
enum lease_source lease_source(struct fill *f, int64_t now, char url[CACHE_NODE_URL_MAX + 1],
                               int64_t *until_ms);
void lease_flowed(struct fill *f); /* bytes came from the node */
/* Fetcher. The node is no good; moved: but it sent something first. */
void lease_source_failed(struct fill *f, enum fill_failure kind, int sys, bool moved);
/* Under the mutex: is a job to be named? Names it, with a reference. */
bool lease_due(const struct fill *f, int64_t now);
void lease_name(struct fill *f, struct gw_want *want, int64_t now);
/* Under the mutex. The fill is no longer ours, and nobody else's: what it held is given back by one
 * more job. */
void lease_end(struct fill *f, bool whole);

/* ---- fetcher.c ---- */
int fetcher_open(struct fetcher **out, struct fill_table *t, struct gw_error *err) GW_MUST_CHECK;
void fetcher_wake(struct fetcher *f);
void fetcher_close(struct fetcher *f); /* joins; what was on its way is written and marked */
/* RFC 9110, 14.4: "bytes 0-9/100", nothing else. *end is one past the last byte. Pure. */
bool fetcher_content_range(struct gw_str value, uint64_t *start, uint64_t *end, uint64_t *total);

#define PART_TOUCH_MS 60000      /* a reader says so often that it is there */
#define PART_IDLE_MS (5 * 60000) /* without a word of a reader: it may be evicted */
#define PART_PASSED_S 90         /* likewise, one that is larger than the budget: it goes */
#define FILL_STEP (64u << 20)    /* bytes of one hash job */
#define FILL_STEP_MIN (8u << 20) /* a job is worth it from here on */
#define FILL_HOLD_BACK (16u << 20)
#define FILL_TRANSFERS 4u
#define FILL_MAX_TRANSFERS 16u
#define FILL_RETRY_MS 1000
#define FILL_REST_MS 5000
#define FILL_BEAT_MS 250
#define FILL_SILENT_MS 15000 /* an owner of this zone that is alive but says nothing: stopped */
#define FILL_FOREIGN_MS 3000 /* an owner of another zone: no other way to tell */
#define MISMATCH_MS (3600 * 1000) /* of wall time */
#define MISMATCH_REST_MS 60000    /* after the second one; doubles */

#endif
