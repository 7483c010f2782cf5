/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/budget.c - keeping the cache within its budget.
 *
 *   served, linked, removed --note--> memory of this process --"usage" job--> entries (usage.c)
 *   over the budget --"budget" job of the one that leads, slice by slice--> the oldest names go
 *   entries and files apart (a start, a killed process, a day) --walk over blobs/--> together again
 *
 * Whoever holds <dir>/budget.lock leads; the kernel lets go of it with the process. Everything here
 * works on names: a reader's descriptor stays good, data/ has names of its own. All changes of the
 * entries are idempotent, so the command may evict meanwhile; what two of them leave wrong costs a
 * stat or a walk, never a blob.
 */
#include "cache/budget_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cache/fill_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LOW_PERCENT 90u         /* eviction begins above the budget and goes down to this */
#define FREE_SHARE 20u          /* min_free is at most this part of the disk */
#define SPACE_SPARE (64u << 20) /* as in part.c: left besides a new file */
#define LEAD_MS 1000
#define DUTY_MS 1000
#define ASK_MS 600 /* the workers' ticks come every 250 ms */
#define SLICE_MS 60
#define EVICT_AT_ONCE 64u
#define FREE_REST_MS 5000 /* freed bytes show late where a reader is still open */
#define VAIN_REST_MS 30000
#define SAY_MS 600000
#define WALK_EVERY_MS (24 * 3600 * 1000)
#define ROOM_MS 10000
#define ROOM_LOOK_MS 50

/* ---- the tick ---- */

/* Takes the lock that makes a process lead, or holds it already. */
static bool leads(struct cache *c, struct budget *b, int64_t now)
{
    char path[CACHE_PATH_MAX];
    int fd;

    if (b->lead_fd >= 0 || b->retired || now - b->lead_ms < LEAD_MS) {
        return b->lead_fd >= 0;
    }
    b->lead_ms = now;
    snprintf(path, sizeof(path), "%s/budget.lock", c->dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        fd = -1;
    }
    b->lead_fd = fd;
    return fd >= 0;
}

int cache_budget_tick(struct cache *c, struct gw_want *want)
{
    struct budget *b = c->budget;
    int64_t now = gw_mono_ms();

    if (notes_due(c, now)) {
        if (!atomic_load(&b->flush_out)) {
            struct notes *full = b->served;

            b->served = b->flushed; /* empty */
            b->flushed = full;
            b->flush_ms = now;
            atomic_store(&b->flush_out, true);
        }
        b->flush_out_ms = now;
        *want = (struct gw_want){.peer = GW_PEER_DISK, .key = GW_STR("usage"), .arg = GW_STR("")};
        return GW_OK;
    }
    if (!leads(c, b, now) ||
        (now < atomic_load(&b->duty_ms) && atomic_load(&c->shared->room_wanted) == 0) ||
        (atomic_load(&b->duty_out) && now - b->duty_out_ms < BUDGET_JOB_LOST_MS)) {
        return GW_NOT_FOUND;
    }
    atomic_store(&b->duty_out, true);
    b->duty_out_ms = now;
    *want = (struct gw_want){.peer = GW_PEER_DISK, .key = GW_STR("budget"), .arg = GW_STR("")};
    return GW_OK;
}

void cache_retire(struct cache *c)
{
    struct budget *b = c->budget;

    if (b != NULL && !b->retired && !atomic_load(&b->duty_out)) {
        b->retired = true;
        if (b->lead_fd >= 0) {
            close(b->lead_fd);
            b->lead_fd = -1;
        }
    }
}

/* ---- how much ---- */

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t budget_excess(const struct budget_measure *m)
{
    uint64_t low = m->max / 100 * LOW_PERCENT, floor = m->disk_size / FREE_SHARE, free = 0, need;
    uint64_t used = m->used + m->coming, spare = m->disk_size / 50;

    if (m->max != 0 && used > m->max) {
        free = used - low;
    }
    floor = m->min_free < floor ? m->min_free : floor;
    if (m->disk_free < floor) {
        free = larger(free, floor - m->disk_free + floor / 10);
    }
    need = m->wanted + m->promised + (spare < SPACE_SPARE ? spare : SPACE_SPARE);
    if (m->wanted != 0 && m->disk_free < need && need - m->disk_free <= m->used) {
        free = larger(free, need - m->disk_free);
    }
    return free;
}

static int measure(struct cache *c, struct budget_measure *m, struct gw_error *err)
{
    struct cache_usage_counters *u = &c->shared->usage;
    struct parts_sum parts;
    struct statvfs fs;
    uint64_t bytes, blobs;
    int rc = usage_totals(c, &bytes, &blobs, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (statvfs(c->blobs_dir, &fs) != 0) {
        return gw_fail(err, GW_IO, errno, "statvfs %s: %s", c->blobs_dir, strerror(errno));
    }
    parts_measure(c, &parts);
    *m = (struct budget_measure){.max = c->options.max_bytes,
                                 .used = bytes + parts.bytes,
                                 .coming = parts.coming,
                                 .promised = parts.promised,
                                 .min_free = c->options.min_free_bytes,
                                 .disk_free = (uint64_t)fs.f_bavail * fs.f_frsize,
                                 .disk_size = (uint64_t)fs.f_blocks * fs.f_frsize,
                                 .wanted = atomic_load(&c->shared->room_wanted)};
    atomic_store(&u->blobs, blobs);
    atomic_store(&u->blob_bytes, bytes);
    atomic_store(&u->part_bytes, parts.bytes);
    atomic_store(&u->max_bytes, m->max);
    return GW_OK;
}

bool cache_budget_room(struct cache *c, uint64_t bytes)
{
    int64_t deadline = gw_mono_ms() + ROOM_MS;
    uint64_t held = atomic_load(&c->shared->room_wanted);

    while (held < bytes && !atomic_compare_exchange_weak(&c->shared->room_wanted, &held, bytes)) {
    }
    while (atomic_load(&c->shared->room_wanted) != 0 && !atomic_load(&c->leaving)) {
        const struct timespec pause = {0, ROOM_LOOK_MS * 1000000};

        if (gw_mono_ms() > deadline) { /* nobody leads: the command alone, or a worker stopped */
            atomic_store(&c->shared->room_wanted, 0);
            return false;
        }
        nanosleep(&pause, NULL);
    }
    return !atomic_load(&c->leaving);
}

/* ---- pins ---- */

static int by_key(const void *a, const void *b)
{
    return memcmp(a, b, BLOB_KEY);
}

int cache_pins_set(struct cache *c, const struct gw_str *digests, size_t n, struct gw_error *err)
{
    struct budget *b = c->budget;
    uint8_t(*pins)[BLOB_KEY] = n > 0 ? gw_alloc(n * BLOB_KEY) : NULL;
    uint8_t(*old)[BLOB_KEY];
    struct blob_id id;
    size_t used = 0;

    if (n > 0 && pins == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for %zu pinned files", n);
    }
    for (size_t i = 0; i < n; i++) {
        if (blob_id_of(digests[i], &id)) {
            memcpy(pins[used++], id.raw, BLOB_KEY);
        }
    }
    if (used > 0) {
        qsort(pins, used, BLOB_KEY, by_key);
    }
    pthread_mutex_lock(&b->mutex);
    old = b->pins;
    b->pins = pins;
    b->n_pins = used;
    pthread_mutex_unlock(&b->mutex);
    gw_free(old);
    return GW_OK;
}

bool cache_pinned(struct cache *c, const struct blob_id *id)
{
    struct budget *b = c->budget;
    bool found;

    pthread_mutex_lock(&b->mutex);
    found = b->n_pins > 0 && bsearch(id->raw, b->pins, b->n_pins, BLOB_KEY, by_key) != NULL;
    pthread_mutex_unlock(&b->mutex);
    return found;
}

/* ---- eviction ---- */

/* Removes the name of a blob unless that frees nothing. What happened goes into the batch.
 * @return what the sum is less by */
static uint64_t evict_one(struct usage_batch *batch, const struct usage *held)
{
    char path[CACHE_PATH_MAX], hex[CACHE_DIGEST_MAX + 1];
    struct usage is = {.id = held->id};

    if (!usage_look(batch->c, &held->id, &is)) {
        usage_batch_add(batch, USAGE_REMOVE, &is);
        return held->bytes;
    }
    if (is.bytes == 0 && held->bytes != 0) { /* data/ has it too since it was entered */
        usage_batch_add(batch, USAGE_SET, &is);
        return held->bytes;
    }
    if (!cache_blob_path(batch->c, blob_id_hex(&held->id, hex), path, sizeof(path)) ||
        unlink(path) != 0) {
        return 0;
    }
    usage_batch_add(batch, USAGE_REMOVE, &is);
    atomic_fetch_add(&batch->c->shared->usage.evictions, 1);
    atomic_fetch_add(&batch->c->shared->usage.evicted_bytes, is.bytes);
    return held->bytes;
}

/* The idle parts that were used before that time go first. @return when the next one was */
static int64_t evict_parts(struct cache *c, int64_t used_ms)
{
    struct budget *b = c->budget;
    char digest[CACHE_DIGEST_MAX + 1];
    int64_t next = INT64_MAX;
    uint64_t bytes;

    while (b->freed < b->to_free && (next = parts_idle(c->fills, digest)) < used_ms) {
        bytes = part_evict(c->fills, gw_str_c(digest));
        if (bytes == 0) {
            return INT64_MAX; /* somebody came */
        }
        b->freed += bytes;
        atomic_fetch_add(&c->shared->usage.evictions, 1);
        atomic_fetch_add(&c->shared->usage.evicted_bytes, bytes);
    }
    return next;
}

/* The oldest of blobs and idle parts, until b->to_free are freed or the slice is over.
 * @return GW_OK: the round goes on, or is done; GW_NOT_FOUND: nothing is left that may go */
static int evict_slice(struct cache *c, struct usage_batch *batch)
{
    struct budget *b = c->budget;
    int64_t until = gw_mono_ms() + SLICE_MS, part = evict_parts(c, 0);
    struct usage rows[EVICT_AT_ONCE];
    size_t n;
    int rc;

    do {
        rc = usage_oldest(c, b->begun ? &b->last : NULL, rows, EVICT_AT_ONCE, &n, batch->err);
        if (rc != GW_OK) {
            return rc;
        }
        for (size_t i = 0; i < n && b->freed < b->to_free; i++) {
            if (part < rows[i].used_ms) {
                part = evict_parts(c, rows[i].used_ms);
            }
            if (b->freed < b->to_free) {
                b->freed += cache_pinned(c, &rows[i].id) ? 0 : evict_one(batch, &rows[i]);
                b->last = rows[i];
                b->begun = true;
            }
        }
        usage_batch_end(batch);
        if (batch->rc != GW_OK) {
            return batch->rc;
        }
        if (n == 0 && b->freed < b->to_free) {
            (void)evict_parts(c, INT64_MAX);
            return b->freed < b->to_free ? GW_NOT_FOUND : GW_OK;
        }
    } while (b->freed < b->to_free && gw_mono_ms() < until);
    return GW_OK;
}

static void end_round(struct cache *c)
{
    struct budget *b = c->budget;

    b->to_free = b->freed = 0;
    b->asked_ms = 0;
    b->begun = false;
    atomic_store(&c->shared->room_wanted, 0);
}

/* @return it goes on at once */
static bool evict(struct cache *c, struct gw_error *err)
{
    struct budget *b = c->budget;
    struct usage_batch *batch;
    struct budget_measure m;
    int64_t now = gw_mono_ms();
    int rc = GW_OK;

    if (b->to_free == 0) {
        if (measure(c, &m, err) != GW_OK) {
            return false;
        }
        if (now < b->rest_ms) { /* what a reader still has open is freed when he has gone */
            m.min_free = 0;
        }
        b->to_free = now < b->vain_ms ? 0 : budget_excess(&m);
        if (b->to_free == 0) {
            end_round(c);
            return false;
        }
        atomic_fetch_add(&c->shared->use_epoch, 1);
        b->asked_ms = now;
        return false;
    }
    if (now - b->asked_ms < ASK_MS) {
        return false;
    }
    batch = gw_alloc(sizeof(*batch));
    if (batch == NULL) {
        return false;
    }
    *batch = (struct usage_batch){.c = c, .err = err};
    rc = evict_slice(c, batch);
    gw_free(batch);
    if (rc == GW_OK && b->freed < b->to_free) {
        return true;
    }
    b->vain_ms = rc == GW_NOT_FOUND ? now + VAIN_REST_MS : 0;
    if (rc == GW_NOT_FOUND && (b->said_ms == 0 || now - b->said_ms > SAY_MS)) {
        gw_log_write(&c->log, GW_LOG_WARN,
                     "cache: %llu MB over what it may hold, and nothing is left to evict: the rest "
                     "is pinned, being fetched, or not ours",
                     (unsigned long long)((b->to_free - b->freed) >> 20));
        b->said_ms = now;
    }
    b->rest_ms = now + FREE_REST_MS;
    end_round(c);
    return false;
}

/* ---- the duty ---- */

/* @return it goes on soon */
static bool walk(struct cache *c, struct gw_error *err)
{
    struct budget *b = c->budget;
    uint32_t wanted = atomic_load(&c->shared->walk_wanted);
    int64_t now = gw_mono_ms();

    if (b->walk_goal == 0) {
        if (wanted == atomic_load(&c->shared->walk_done) &&
            (b->walked_ms == 0 || now - b->walked_ms < WALK_EVERY_MS)) {
            b->walked_ms = b->walked_ms != 0 ? b->walked_ms : now;
            return false;
        }
        b->walk_goal = wanted;
        b->walk_at = 0;
    }
    if (budget_walk(c, &b->walk_at, err) != GW_OK) {
        return false; /* the index cannot just now: at the next duty */
    }
    if (b->walk_at < BUDGET_WALK_END) {
        return true;
    }
    atomic_store(&c->shared->walk_done, b->walk_goal);
    b->walk_goal = 0;
    b->walked_ms = now;
    return false;
}

int cache_budget_job(struct cache *c, struct gw_error *err)
{
    struct budget *b = c->budget;
    bool soon;

    if (!atomic_load(&b->duty_out)) {
        return GW_OK; /* a late twin */
    }
    soon = evict(c, err);
    if (soon || b->to_free != 0) {
        atomic_store(&b->duty_ms, soon ? 0 : b->asked_ms + ASK_MS);
    } else {
        soon = walk(c, err);
        scrub_slice(c, SLICE_MS);
        atomic_store(&b->duty_ms, soon ? 0 : gw_mono_ms() + DUTY_MS);
        soon = false; /* the walk takes a step at each tick of the loop, no more */
    }
    atomic_store(&b->duty_out, false);
    if (soon) {
        cache_wake(c->shared, c->slot);
    }
    return GW_OK; /* what failed is tried again; a peer that fails says so by itself */
}

/* ---- the command ---- */

int cache_held(struct cache *c, struct cache_held *out, struct gw_error *err)
{
    struct budget_measure m;
    struct parts_sum parts;
    int rc = measure(c, &m, err);

    if (rc != GW_OK) {
        return rc;
    }
    parts_measure(c, &parts);
    *out = (struct cache_held){.blobs = atomic_load(&c->shared->usage.blobs),
                               .blob_bytes = atomic_load(&c->shared->usage.blob_bytes),
                               .parts = parts.parts,
                               .part_bytes = parts.bytes,
                               .max_bytes = m.max,
                               .disk_free = m.disk_free,
                               .disk_bytes = m.disk_size};
    return scrub_state(c, &out->scrub_started_ms, &out->scrub_bytes, err);
}

int cache_each_blob(struct cache *c, int (*on)(void *ctx, const struct cache_blob *b), void *ctx,
                    struct gw_error *err)
{
    uint8_t from[BLOB_KEY] = {0}, to[BLOB_KEY];
    struct usage held[EVICT_AT_ONCE];
    bool more = true;
    size_t n;
    int rc = GW_OK;

    memset(to, 0xff, sizeof(to));
    while (rc == GW_OK && more) {
        rc = usage_range(c, from, to, held, EVICT_AT_ONCE, &n, err);
        for (size_t i = 0; rc == GW_OK && i < n; i++) {
            char hex[CACHE_DIGEST_MAX + 1];
            struct cache_blob b = {blob_id_hex(&held[i].id, hex), held[i].bytes, held[i].used_ms};

            rc = on(ctx, &b);
        }
        more = n > 0;
        if (more) {
            memcpy(from, held[n - 1].id.raw, BLOB_KEY);
            more = usage_next_key(from);
        }
    }
    return rc;
}

/* What is there of one that is not whole; whoever is reading gets that, and is cut then. */
static int evict_part_of(struct cache *c, struct gw_str digest, uint64_t *freed,
                         struct gw_error *err)
{
    char path[CACHE_PATH_MAX];
    uint64_t bytes = part_evict(c->fills, digest);

    if (bytes > 0) {
        *freed = bytes - 1;
        return GW_OK;
    }
    snprintf(path, sizeof(path), "%s/" GW_STR_FMT ".map", c->parts_dir, GW_STR_ARG(digest));
    return access(path, F_OK) == 0 ? gw_fail(err, GW_CONFLICT, 0, "being fetched")
                                   : gw_fail(err, GW_NOT_FOUND, 0, "not held");
}

int cache_evict(struct cache *c, struct gw_str digest, uint64_t *freed, struct gw_error *err)
{
    struct usage_change change = {.what = USAGE_REMOVE};
    char path[CACHE_PATH_MAX];
    bool known;

    *freed = 0;
    if (!blob_id_of(digest, &change.u.id)) {
        return gw_fail(err, GW_NOT_FOUND, 0, "not held");
    }
    known = usage_look(c, &change.u.id, &change.u);
    if (cache_pinned(c, &change.u.id)) {
        return gw_fail(err, GW_FORBIDDEN, 0, "pinned");
    }
    if (!known) {
        return evict_part_of(c, digest, freed, err);
    }
    if (!cache_blob_path(c, digest, path, sizeof(path)) || unlink(path) != 0) {
        return gw_fail(err, GW_IO, errno, "blob %.12s: %s", digest.p, strerror(errno));
    }
    *freed = change.u.bytes;
    return usage_apply(c, &change, 1, err);
}

int cache_evict_to(struct cache *c, uint64_t bytes, uint64_t *n, uint64_t *freed,
                   struct gw_error *err)
{
    struct budget *b = c->budget;
    struct usage_batch *batch = gw_alloc(sizeof(*batch));
    uint64_t before = atomic_load(&c->shared->usage.evictions);
    struct budget_measure m;
    int rc = measure(c, &m, err);

    *n = *freed = 0;
    if (batch == NULL || rc != GW_OK) {
        gw_free(batch);
        return rc != GW_OK ? rc : gw_fail(err, GW_NO_MEMORY, 0, "no memory to evict");
    }
    *batch = (struct usage_batch){.c = c, .err = err};
    b->to_free = m.used > bytes ? m.used - bytes : 0;
    while (rc == GW_OK && b->freed < b->to_free) {
        rc = evict_slice(c, batch);
    }
    *freed = b->freed;
    *n = atomic_load(&c->shared->usage.evictions) - before;
    end_round(c);
    gw_free(batch);
    return rc == GW_NOT_FOUND
               ? gw_fail(err, GW_UNAVAILABLE, 0,
                         "what is left is pinned, being fetched, or shared with data/")
               : rc;
}

/* ---- open and close ---- */

static void budget_free(struct budget *b)
{
    gw_free(b->changed);
    gw_free(b->spare);
    gw_free(b->pins);
    gw_free(b->served);
    gw_free(b->flushed);
    gw_free(b);
}

int cache_budget_open(struct cache *c, struct gw_error *err)
{
    struct budget *b = gw_alloc(sizeof(*b));

    if (b != NULL) {
        b->served = gw_alloc(sizeof(*b->served));
        b->flushed = gw_alloc(sizeof(*b->flushed));
        b->changed = gw_alloc(CHANGED_MAX * sizeof(*b->changed));
        b->spare = gw_alloc(CHANGED_MAX * sizeof(*b->spare));
        if (b->served == NULL || b->flushed == NULL || b->changed == NULL || b->spare == NULL) {
            budget_free(b);
            b = NULL;
        }
    }
    if (b == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "cache: no memory");
    }
    b->lead_fd = -1;
    b->flush_ms = gw_mono_ms();
    pthread_mutex_init(&b->mutex, NULL);
    c->budget = b;
    return GW_OK;
}

void cache_budget_close(struct cache *c)
{
    struct budget *b = c->budget;
    struct gw_error err;

    if (b == NULL) {
        return;
    }
    if (atomic_load(&b->flush_out)) { /* named, and never begun */
        (void)notes_flush(c, b->flushed, &err);
    }
    if (b->served->n > 0 || b->n_changed > 0) {
        (void)notes_flush(c, b->served, &err);
    }
    scrub_close(&b->scrub);
    if (b->lead_fd >= 0) {
        close(b->lead_fd);
    }
    c->budget = NULL;
    pthread_mutex_destroy(&b->mutex);
    budget_free(b);
}
