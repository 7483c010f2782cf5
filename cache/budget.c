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

#include <dirent.h>
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
#define FLUSH_CHANGED_MS 1000
#define FLUSH_SERVED_MS 60000
#define LEAD_MS 1000
#define DUTY_MS 1000
#define ASK_MS 600 /* the workers' ticks come every 250 ms */
#define JOB_LOST_MS 120000
#define SLICE_MS 60
#define EVICT_AT_ONCE 64u
#define FREE_REST_MS 5000 /* freed bytes show late where a reader is still open */
#define VAIN_REST_MS 30000
#define SAY_MS 600000
#define WALK_EVERY_MS (24 * 3600 * 1000)
#define WALK_FILES 1000u
#define PROBES 16u
#define ROOM_MS 10000
#define ROOM_LOOK_MS 50

/* ---- notes ---- */

void cache_note_use(struct cache *c, struct gw_str digest)
{
    struct budget *b = c->budget;
    struct blob_id id;
    size_t at;

    if (b == NULL || pthread_equal(pthread_self(), c->loop) == 0 || !blob_id_of(digest, &id)) {
        return;
    }
    memcpy(&at, id.raw, sizeof(at));
    for (unsigned i = 0; i < PROBES; i++) {
        struct note *n = &b->served->slot[(at + i) % NOTES];

        if (n->id.n == 0 || memcmp(&n->id, &id, sizeof(id)) == 0) {
            b->served->n += n->id.n == 0;
            *n = (struct note){gw_wall_ms(), id};
            return;
        }
    }
}

void cache_note_change(struct cache *c, struct gw_str digest)
{
    struct budget *b = c->budget;
    struct blob_id id;

    if (b == NULL || !blob_id_of(digest, &id)) {
        return;
    }
    pthread_mutex_lock(&b->mutex);
    if (b->n_changed == CHANGED_MAX) {
        atomic_fetch_add(&c->shared->walk_wanted, 1);
    } else {
        b->changed[b->n_changed++] = id;
    }
    if (atomic_load(&b->changed_ms) == 0) {
        atomic_store(&b->changed_ms, gw_mono_ms());
    }
    pthread_mutex_unlock(&b->mutex);
}

/* What the file says. false: there is none. */
static bool look(struct cache *c, const struct blob_id *id, struct usage *out)
{
    char path[CACHE_PATH_MAX], hex[CACHE_DIGEST_MAX + 1];
    struct stat st;

    if (!cache_blob_path(c, blob_id_hex(id, hex), path, sizeof(path)) || lstat(path, &st) != 0 ||
        !S_ISREG(st.st_mode)) {
        return false;
    }
    *out =
        (struct usage){.id = *id,
                       .bytes = st.st_nlink > 1 ? 0 : (uint64_t)st.st_size,
                       .used_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000};
    return true;
}

/* A batch of changes that is applied when it is full. */
struct batch {
    struct cache *c;
    struct usage_change changes[USAGE_CHANGES_MAX];
    size_t n;
    int rc;
    struct gw_error *err;
};

static void batch_end(struct batch *b)
{
    if (b->rc == GW_OK) {
        b->rc = usage_apply(b->c, b->changes, b->n, b->err);
    }
    b->n = 0;
}

static void batch_add(struct batch *b, enum usage_what what, const struct usage *u)
{
    if (b->n == USAGE_CHANGES_MAX) {
        batch_end(b);
    }
    b->changes[b->n++] = (struct usage_change){what, *u};
}

/* Brings an entry in line with its file. */
static void batch_look(struct batch *b, const struct blob_id *id, int64_t used_ms)
{
    struct usage u = {.id = *id};

    if (look(b->c, id, &u)) {
        u.used_ms = used_ms != 0 ? used_ms : u.used_ms;
        batch_add(b, USAGE_SET, &u);
    } else {
        batch_add(b, USAGE_REMOVE, &u);
    }
}

static int flush(struct cache *c, struct notes *served, struct gw_error *err)
{
    struct budget *b = c->budget;
    struct batch *batch = gw_alloc(sizeof(*batch));
    struct blob_id *changed;
    int64_t now = gw_wall_ms();
    size_t n;
    int rc;

    if (batch == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory to write down what was used");
    }
    pthread_mutex_lock(&b->mutex);
    changed = b->changed;
    n = b->n_changed;
    b->changed = b->spare;
    b->spare = changed;
    b->n_changed = 0;
    atomic_store(&b->changed_ms, 0);
    pthread_mutex_unlock(&b->mutex);
    *batch = (struct batch){.c = c, .err = err};
    for (size_t i = 0; i < n; i++) {
        batch_look(batch, &changed[i], now);
    }
    for (size_t i = 0; i < NOTES && served->n > 0; i++) {
        const struct note *note = &served->slot[i];
        struct usage held;

        if (note->id.n == 0) {
            continue;
        }
        rc = usage_get(c, &note->id, &held, err);
        if (rc == GW_NOT_FOUND) { /* nobody has told of it yet */
            batch_look(batch, &note->id, note->used_ms);
        } else if (rc == GW_OK) {
            batch_add(batch, USAGE_TOUCH,
                      &(struct usage){.id = note->id, .used_ms = note->used_ms});
        } else {
            batch->rc = rc;
            break;
        }
    }
    batch_end(batch);
    rc = batch->rc;
    if (rc != GW_OK && n > 0) {
        atomic_fetch_add(&c->shared->walk_wanted, 1);
    }
    gw_free(batch);
    return rc;
}

int cache_usage_job(struct cache *c, struct gw_error *err)
{
    struct budget *b = c->budget;
    int rc;

    if (!atomic_load(&b->flush_out)) {
        return GW_OK; /* a late twin */
    }
    rc = flush(c, b->flushed, err);
    memset(b->flushed, 0, sizeof(*b->flushed));
    atomic_store(&b->flush_out, false);
    return rc;
}

/* ---- the tick ---- */

static bool flush_due(struct cache *c, struct budget *b, int64_t now)
{
    uint32_t epoch = atomic_load(&c->shared->use_epoch);
    int64_t changed = atomic_load(&b->changed_ms);

    if (atomic_load(&b->flush_out)) { /* one that was never begun ends with the process's jobs */
        return now - b->flush_out_ms > JOB_LOST_MS;
    }
    if (!(changed != 0 && (now - changed >= FLUSH_CHANGED_MS || epoch != b->epoch)) &&
        !(b->served->n > 0 && (now - b->flush_ms >= FLUSH_SERVED_MS || b->served->n > NOTES / 2 ||
                               epoch != b->epoch))) {
        b->epoch = epoch;
        return false;
    }
    b->epoch = epoch;
    return true;
}

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

    if (flush_due(c, b, now)) {
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
        (atomic_load(&b->duty_out) && now - b->duty_out_ms < JOB_LOST_MS)) {
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
static uint64_t evict_one(struct batch *batch, const struct usage *held)
{
    char path[CACHE_PATH_MAX], hex[CACHE_DIGEST_MAX + 1];
    struct usage is = {.id = held->id};

    if (!look(batch->c, &held->id, &is)) {
        batch_add(batch, USAGE_REMOVE, &is);
        return held->bytes;
    }
    if (is.bytes == 0 && held->bytes != 0) { /* data/ has it too since it was entered */
        batch_add(batch, USAGE_SET, &is);
        return held->bytes;
    }
    if (!cache_blob_path(batch->c, blob_id_hex(&held->id, hex), path, sizeof(path)) ||
        unlink(path) != 0) {
        return 0;
    }
    batch_add(batch, USAGE_REMOVE, &is);
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

    while (c->fills != NULL && b->freed < b->to_free &&
           (next = parts_idle(c->fills, digest)) < used_ms) {
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
static int evict_slice(struct cache *c, struct batch *batch)
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
        batch_end(batch);
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
    struct batch *batch;
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
    *batch = (struct batch){.c = c, .err = err};
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

/* ---- the walk ---- */

static int by_id(const void *a, const void *b)
{
    const struct usage *x = a, *y = b;

    return memcmp(x->id.raw, y->id.raw, BLOB_KEY);
}

struct found {
    struct usage *p;
    size_t n, cap;
    bool failed;
};

/* All blobs of blobs/aa/bb. */
static void list_folder(struct cache *c, unsigned at, struct found *f)
{
    char path[CACHE_PATH_MAX];
    const struct dirent *e;
    struct usage u;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/%02x/%02x", c->blobs_dir, at >> 8, at & 0xff);
    dir = opendir(path);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        struct blob_id id;

        if (!blob_id_of(gw_str_c(e->d_name), &id) || ((unsigned)id.raw[0] << 8 | id.raw[1]) != at ||
            !look(c, &id, &u)) {
            continue; /* nobody looks for it here */
        }
        if (f->n == f->cap) {
            struct usage *more = gw_realloc(f->p, (f->cap * 2 + 256) * sizeof(*more));

            if (more == NULL) {
                f->failed = true;
                break;
            }
            f->p = more;
            f->cap = f->cap * 2 + 256;
        }
        f->p[f->n++] = u;
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

/* From folder *at on, all that exist; *at becomes the first that was not looked at. */
static void list_some(struct cache *c, unsigned *at, struct found *f)
{
    char path[CACHE_PATH_MAX];
    struct stat st;

    while (*at < BUDGET_WALK_END && f->n < WALK_FILES && !f->failed) {
        if ((*at & 0xff) == 0) {
            snprintf(path, sizeof(path), "%s/%02x", c->blobs_dir, *at >> 8);
            if (stat(path, &st) != 0) {
                *at += 256;
                continue;
            }
        }
        list_folder(c, *at, f);
        ++*at;
    }
}

/* The entries of these folders against the files found there. */
static void compare(struct batch *batch, unsigned first, unsigned end, struct found *f)
{
    uint8_t from[BLOB_KEY] = {(uint8_t)(first >> 8), (uint8_t)first}, to[BLOB_KEY];
    struct usage held[EVICT_AT_ONCE], *file;
    bool *known = gw_alloc(f->n + 1);
    bool more = true;
    size_t n;

    if (known == NULL) {
        batch->rc = gw_fail(batch->err, GW_NO_MEMORY, 0, "no memory for the walk");
        return;
    }
    memset(to, 0xff, sizeof(to));
    to[0] = (uint8_t)((end - 1) >> 8);
    to[1] = (uint8_t)(end - 1);
    if (f->n > 1) {
        qsort(f->p, f->n, sizeof(f->p[0]), by_id);
    }
    while (more && batch->rc == GW_OK) {
        batch->rc = usage_range(batch->c, from, to, held, EVICT_AT_ONCE, &n, batch->err);
        for (size_t i = 0; i < n && batch->rc == GW_OK; i++) {
            file = f->n > 0 ? bsearch(&held[i], f->p, f->n, sizeof(f->p[0]), by_id) : NULL;
            if (file == NULL) {
                batch_look(batch, &held[i].id, 0); /* it may have come just now */
                continue;
            }
            known[file - f->p] = true;
            if (file->bytes != held[i].bytes) {
                batch_add(batch, USAGE_SET, file);
            }
        }
        more = n == EVICT_AT_ONCE;
        if (more) {
            memcpy(from, held[n - 1].id.raw, BLOB_KEY);
            more = usage_next_key(from);
        }
    }
    for (size_t i = 0; i < f->n && batch->rc == GW_OK; i++) {
        if (!known[i]) {
            batch_add(batch, USAGE_SET, &f->p[i]);
        }
    }
    gw_free(known);
}

int budget_walk(struct cache *c, unsigned *at, struct gw_error *err)
{
    struct batch *batch = gw_alloc(sizeof(*batch));
    struct found f = {0};
    unsigned first = *at, end = *at;
    int rc;

    if (batch == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the walk");
    }
    *batch = (struct batch){.c = c, .err = err};
    list_some(c, &end, &f);
    end = end > BUDGET_WALK_END ? BUDGET_WALK_END : end;
    if (f.failed) {
        batch->rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for the walk");
    } else if (end > first) {
        compare(batch, first, end, &f);
        batch_end(batch);
    }
    rc = batch->rc;
    if (rc == GW_OK && end == BUDGET_WALK_END) {
        rc = usage_recount(c, err);
    }
    if (rc == GW_OK) {
        *at = end;
    }
    gw_free(f.p);
    gw_free(batch);
    return rc;
}

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

int cache_evict(struct cache *c, struct gw_str digest, uint64_t *freed, struct gw_error *err)
{
    struct usage_change change = {.what = USAGE_REMOVE};
    char path[CACHE_PATH_MAX];

    *freed = 0;
    if (!blob_id_of(digest, &change.u.id) || !look(c, &change.u.id, &change.u)) {
        return gw_fail(err, GW_NOT_FOUND, 0, "not held");
    }
    if (cache_pinned(c, &change.u.id)) {
        return gw_fail(err, GW_FORBIDDEN, 0, "pinned");
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
    struct batch *batch = gw_alloc(sizeof(*batch));
    uint64_t before = atomic_load(&c->shared->usage.evictions);
    struct budget_measure m;
    int rc = measure(c, &m, err);

    *n = *freed = 0;
    if (batch == NULL || rc != GW_OK) {
        gw_free(batch);
        return rc != GW_OK ? rc : gw_fail(err, GW_NO_MEMORY, 0, "no memory to evict");
    }
    *batch = (struct batch){.c = c, .err = err};
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
        (void)flush(c, b->flushed, &err);
    }
    if (b->served->n > 0 || b->n_changed > 0) {
        (void)flush(c, b->served, &err);
    }
    scrub_close(&b->scrub);
    if (b->lead_fd >= 0) {
        close(b->lead_fd);
    }
    c->budget = NULL;
    pthread_mutex_destroy(&b->mutex);
    budget_free(b);
}
