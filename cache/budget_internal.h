/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/budget_internal.h - how much is held, what was used when, and what is done about it.
 *
 *   usage.c   one entry per blob in the index, ordered by last use; their sum
 *   notes.c   what this process served or changed -> entries
 *   walk.c    entries against files
 *   budget.c  who keeps the budget, and eviction
 *   scrub.c   hashing what is held again
 *
 * The entries follow the files, not the other way round: a kill between a link (or unlink) and its
 * entry leaves them apart until the next walk, and an eviction that finds no file only drops the
 * entry. Bytes are a file's size; 0 when its inode has another name (a private object of data/):
 * such a blob costs nothing, so evicting it would free nothing.
 */
#ifndef CACHE_BUDGET_INTERNAL_H
#define CACHE_BUDGET_INTERNAL_H

#include "base/sha.h"
#include "cache/cache_internal.h"

#define BLOB_KEY 16u /* bytes of a digest that tell blobs apart in the index */

struct blob_id {
    uint8_t n; /* 20 or 32 */
    uint8_t raw[32];
};
bool blob_id_of(struct gw_str digest, struct blob_id *out); /* false: not a digest */
struct gw_str blob_id_hex(const struct blob_id *id, char hex[CACHE_DIGEST_MAX + 1]);

/* ---- usage.c: jobs and the command ---- */
struct usage {
    struct blob_id id;
    uint64_t bytes;
    int64_t used_ms; /* wall */
};
enum usage_what {
    USAGE_TOUCH, /* used_ms of an entry that is there, unless it makes no difference */
    USAGE_SET,   /* bytes, and used_ms if it is later */
    USAGE_REMOVE
};
struct usage_change {
    enum usage_what what;
    struct usage u;
};
#define USAGE_CHANGES_MAX 256u
/* One transaction, n <= USAGE_CHANGES_MAX. @return GW_OK; GW_IO; GW_NO_MEMORY */
int usage_apply(struct cache *c, const struct usage_change *changes, size_t n,
                struct gw_error *err) GW_MUST_CHECK;
int usage_totals(struct cache *c, uint64_t *bytes, uint64_t *blobs,
                 struct gw_error *err) GW_MUST_CHECK;
/* The sum made anew from all entries: damage may have changed one. */
int usage_recount(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
/* GW_OK; GW_NOT_FOUND */
int usage_get(struct cache *c, const struct blob_id *id, struct usage *out,
              struct gw_error *err) GW_MUST_CHECK;
/* Entries with bytes by last use, oldest first, after *last (NULL: from the oldest on). n == 0: no
 * more. */
int usage_oldest(struct cache *c, const struct usage *last, struct usage *out, size_t cap,
                 size_t *n, struct gw_error *err) GW_MUST_CHECK;
/* Entries by digest, from `from` up to and with `to`. */
int usage_range(struct cache *c, const uint8_t from[BLOB_KEY], const uint8_t to[BLOB_KEY],
                struct usage *out, size_t cap, size_t *n, struct gw_error *err) GW_MUST_CHECK;
/* The key after this one. false: it was the last. */
bool usage_next_key(uint8_t key[BLOB_KEY]);
/* Small things to be remembered over a restart; name: up to BLOB_KEY bytes. get: GW_NOT_FOUND if
 * there is none of this size. */
int usage_state_get(struct cache *c, const char *name, void *out, size_t n,
                    struct gw_error *err) GW_MUST_CHECK;
int usage_state_put(struct cache *c, const char *name, const void *p, size_t n,
                    struct gw_error *err) GW_MUST_CHECK;

/* ---- budget.c ---- */
#define NOTES 4096u /* a power of 2 */
struct note {
    int64_t used_ms;
    struct blob_id id; /* n == 0: free */
};
struct notes { /* a set; when it is crowded, a note is lost, and with it one use of one blob */
    struct note slot[NOTES];
    unsigned n;
};
#define CHANGED_MAX                                                                                \
    8192u /* blobs linked or removed since the last flush; more: a walk finds them */

struct scrub { /* the duty's own */
    bool known, on;
    int64_t started_ms, saved_ms; /* of the round: wall; monotonic */
    uint64_t done;                /* bytes in this round */
    uint8_t at[BLOB_KEY];         /* next blob, or the one that is open */
    struct scrub_file *file;      /* NULL: none is open */
};

struct budget {
    struct notes *served, *flushed; /* the loop's; the job's while flush_out */
    int64_t flush_ms, lead_ms;      /* loop; monotonic: last flush, last try to lead */
    uint32_t epoch;                 /* loop: of shared->use_epoch */
    atomic_bool flush_out, duty_out;
    int64_t flush_out_ms, duty_out_ms;
    _Atomic int64_t duty_ms; /* monotonic: the duty is due */
    int lead_fd;             /* the lock of the one process that does the upkeep; -1 */
    bool retired;

    pthread_mutex_t mutex; /* memory work only */
    struct blob_id *changed, *spare;
    size_t n_changed;
    _Atomic int64_t changed_ms; /* monotonic, of the first; 0: none */
    uint8_t (*pins)[BLOB_KEY];  /* sorted */
    size_t n_pins;

    /* the duty's own */
    uint64_t to_free, freed; /* of the round of eviction under way; 0: none */
    int64_t asked_ms;        /* monotonic: when the workers were asked for their notes; 0: not */
    int64_t rest_ms;         /* monotonic: no eviction for want of free space before */
    int64_t vain_ms;         /* monotonic: nothing was left to evict; not tried again before */
    int64_t said_ms;         /* when it was last logged that nothing is left to evict */
    struct usage last;       /* evicted or passed over; of this round */
    bool begun;              /* last is one */
    unsigned walk_at;        /* first 16 bits of a digest */
    uint32_t walk_goal;      /* of shared->walk_wanted; 0: no walk under way */
    int64_t walked_ms;       /* monotonic */
    struct scrub scrub;
};

/* ---- walk.c: entries against files. Jobs and the command ---- */
/* What the file says. false: there is none. */
bool usage_look(struct cache *c, const struct blob_id *id, struct usage *out);
/* Changes that are applied when there are enough of them. The first failure stays in rc. */
struct usage_batch {
    struct cache *c;
    struct usage_change changes[USAGE_CHANGES_MAX];
    size_t n;
    int rc;
    struct gw_error *err;
};
void usage_batch_add(struct usage_batch *b, enum usage_what what, const struct usage *u);
/* Brings an entry in line with its file. used_ms 0: when it was written. */
void usage_batch_look(struct usage_batch *b, const struct blob_id *id, int64_t used_ms);
void usage_batch_end(struct usage_batch *b);

/* ---- notes.c ---- */
#define BUDGET_JOB_LOST_MS 120000 /* a job that was named and never begun is named again */
/* Loop: is it time to write them down? */
bool notes_due(struct cache *c, int64_t now);
/* Job, or at the end. served is not emptied. */
int notes_flush(struct cache *c, struct notes *served, struct gw_error *err);

/* ---- open and close ---- */
int cache_budget_open(struct cache *c, struct gw_error *err) GW_MUST_CHECK;
void cache_budget_close(struct cache *c); /* writes what was noted; no job runs any more */
/* Loop. Names a job that is due. @return GW_OK; GW_NOT_FOUND */
int cache_budget_tick(struct cache *c, struct gw_want *want);
/* Loop: a blob was opened to be sent. No lock, no system call. */
void cache_note_use(struct cache *c, struct gw_str digest);
/* Any thread, after the name in blobs/ was made or removed, and after its other names of the cache
 * (a part, a temporary file) are gone. */
void cache_note_change(struct cache *c, struct gw_str digest);
/* Job. Waits until whoever does the upkeep made room for a file of this size, or could not; 10 s at
 * most. @return worth another try */
bool cache_budget_room(struct cache *c, uint64_t bytes);
bool cache_pinned(struct cache *c, const struct blob_id *id);

/* How much is to be freed now; 0: nothing. Pure. */
struct budget_measure {
    uint64_t max, used; /* max 0: no budget */
    uint64_t coming;    /* what the fills under way still bring */
    uint64_t promised;  /* the same, with those that nobody is at just now */
    uint64_t min_free, disk_free, disk_size;
    uint64_t wanted; /* a file of this size waits for room */
};
uint64_t budget_excess(const struct budget_measure *m);
/* One folder or more of blobs/, up to ~1,000 files, from *at on, against the entries. *at is
 * BUDGET_WALK_END after the last. Job. */
#define BUDGET_WALK_END 65536u
int budget_walk(struct cache *c, unsigned *at, struct gw_error *err) GW_MUST_CHECK;

/* ---- scrub.c ---- */
/* The duty: hashes for up to `ms`, if the round is behind its time. */
void scrub_slice(struct cache *c, int64_t ms);
void scrub_close(struct scrub *s);
/* When the round began (wall, 0: none yet), and how far it is. */
int scrub_state(struct cache *c, int64_t *started_ms, uint64_t *done,
                struct gw_error *err) GW_MUST_CHECK;

#endif
