/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/fill.c - the fills of this process: attaching, owning, proving, publishing.
 *
 *   attached --claim--> owned: the fetcher brings bytes, jobs hash what is there, in order
 *            <-let go--        after a failure, a lost ownership, the end, when the process leaves
 *
 * The proof runs behind the fetcher in steps; the state after each step is in the map, so whoever
 * takes the fill over goes on from there. Order of the end: digest right -> PROVEN (readers get
 * their last granule), fdatasync, link into blobs/, fsync of the folder, WHOLE, names in parts/
 * removed. A kill between two of these repeats the rest.
 */
#include "cache/fill_internal.h"

#include "cache/budget_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)
#define OWNER_ASK_MS 50
#define JOB_LOST_MS 60000 /* a job that was named and never begun is named again */
#define JOB_RETRY_MS 5000
#define JOB_IDLE_MS 100
#define SETTLE_MS 5000        /* whoever is stopped within a write is waited for so long */
#define FAILURE_MAX_MS 120000 /* beyond it the time is of another boot */
#define SEAL_MS                                                                                    \
    700 /* a leaving process syncs so long; what it cannot seal costs time after a reboot only */
#define SEAL_CHUNK (8u << 20)

/* ---- references ---- */

void fill_free(struct fill *f)
{
    map_detach(&f->map);
    gw_free(f->url);
    gw_free(f->node);
    gw_free(f);
}

void fill_ref(struct fill *f)
{
    pthread_mutex_lock(&f->table->mutex);
    f->refs++;
    pthread_mutex_unlock(&f->table->mutex);
}

struct fill *fill_drop_ref(struct fill *f)
{
    if (--f->refs > 0) {
        return NULL;
    }
    for (struct fill **p = &f->table->list; *p != NULL; p = &(*p)->next) {
        if (*p == f) {
            *p = f->next;
            break;
        }
    }
    return f;
}

void fill_unref(struct fill *f)
{
    struct fill_table *t;
    struct fill *last;

    if (f == NULL) {
        return;
    }
    t = f->table;
    pthread_mutex_lock(&t->mutex);
    last = fill_drop_ref(f);
    pthread_mutex_unlock(&t->mutex);
    if (last != NULL) {
        fill_free(last);
    }
}

/* Under the mutex. */
static struct fill *find(struct fill_table *t, struct gw_str digest)
{
    for (struct fill *f = t->list; f != NULL; f = f->next) {
        if (f->listed && gw_str_eq(fill_digest(f), digest)) {
            f->refs++;
            return f;
        }
    }
    return NULL;
}

int fill_get(struct fill **out, struct fill_table *t, struct gw_str digest, struct gw_error *err)
{
    struct fill *f, *other;
    int rc;

    pthread_mutex_lock(&t->mutex);
    f = find(t, digest);
    pthread_mutex_unlock(&t->mutex);
    if (f != NULL) {
        *out = f;
        return GW_OK;
    }
    f = gw_alloc(sizeof(*f));
    if (f == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a fill");
    }
    rc = map_attach(&f->map, t->cache->parts_dir, digest, t->boot, err);
    if (rc != GW_OK) {
        gw_free(f);
        return rc;
    }
    f->table = t;
    f->refs = 1;
    f->listed = true;
    snprintf(f->digest, sizeof(f->digest), GW_STR_FMT, GW_STR_ARG(digest));
    snprintf(f->key, sizeof(f->key), "fill\n%s", f->digest);
    snprintf(f->lease_key, sizeof(f->lease_key), "lease\n%s", f->digest);
    f->looked_ms = gw_mono_ms();

    pthread_mutex_lock(&t->mutex);
    other = find(t, digest); /* the loop and the fetcher may both come here */
    if (other == NULL) {
        f->next = t->list;
        t->list = f;
    }
    pthread_mutex_unlock(&t->mutex);
    if (other != NULL) {
        fill_free(f);
    }
    *out = other != NULL ? other : f;
    return GW_OK;
}

void fill_unlist(struct fill *f)
{
    pthread_mutex_lock(&f->table->mutex);
    f->listed = false;
    pthread_mutex_unlock(&f->table->mutex);
}

size_t fill_snapshot(struct fill_table *t, struct fill ***array, size_t *cap)
{
    size_t n = 0, wanted = 0;

    pthread_mutex_lock(&t->mutex);
    for (const struct fill *f = t->list; f != NULL; f = f->next) {
        wanted++;
    }
    if (wanted > *cap) {
        struct fill **more = gw_realloc(*array, wanted * 2 * sizeof(*more));

        if (more != NULL) {
            *array = more;
            *cap = wanted * 2;
        }
    }
    for (struct fill *f = t->list; f != NULL && n < *cap; f = f->next) {
        f->refs++;
        (*array)[n++] = f;
    }
    pthread_mutex_unlock(&t->mutex);
    return n;
}

/* ---- who owns it ---- */

static bool leaving(const struct fill_table *t)
{
    return atomic_load(&t->stopping) || atomic_load(&t->cache->leaving);
}

static uint64_t owner_word(uint64_t zone, unsigned slot, uint32_t generation)
{
    return (zone & 0xffffff) << 40 | (uint64_t)(slot + 1) << 32 | generation;
}

static bool owner_alive(const struct fill_table *t, uint64_t word, uint64_t beat, int64_t now)
{
    unsigned slot = (unsigned)(word >> 32 & 0xff);
    int64_t silent = (int64_t)((uint64_t)now - beat);

    if (word == 0 || slot == 0) {
        return false;
    }
    if (silent < -1000) { /* in the future: of another boot */
        return false;
    }
    if (word >> 40 != t->self >> 40) { /* another master's shared memory, or what is left of it */
        return silent < t->foreign_ms;
    }
    return silent < t->silent_ms && cache_slot_alive(t->cache->shared, slot - 1, (uint32_t)word);
}

bool fill_ended(const struct fill *f)
{
    uint32_t state;

    if (atomic_load(&f->gone)) {
        return true;
    }
    state = atomic_load(&f->map.live->state);
    return state != MAP_FILLING && state != MAP_PROVEN;
}

bool fill_ours(const struct fill *f)
{
    return !atomic_load(&f->gone) && atomic_load(&f->map.live->owner) == f->table->self;
}

bool fill_has_owner(struct fill *f)
{
    struct fill_table *t = f->table;
    uint64_t word = atomic_load(&f->map.live->owner);
    int64_t now;
    bool ask;

    if (word == 0) {
        return false;
    }
    now = gw_mono_ms();
    pthread_mutex_lock(&t->mutex);
    if (word ==
        t->self) { /* ours, unless it is the word of somebody who had our slot before a fork */
        bool owned = f->owned;

        pthread_mutex_unlock(&t->mutex);
        return owned;
    }
    ask = now - f->asked_ms >= OWNER_ASK_MS;
    if (ask) {
        f->asked_ms = now;
    }
    pthread_mutex_unlock(&t->mutex);
    return !ask || owner_alive(t, word, atomic_load(&f->map.live->beat), now);
}

void fill_enqueue(struct fill *f)
{
    struct fill_table *t = f->table;

    if (!f->queued) {
        f->queued = true;
        f->refs++;
        f->queue_next = t->queue;
        t->queue = f;
    }
}

bool fill_claim(struct fill *f, bool fresh)
{
    struct fill_table *t = f->table;
    struct map_live *live = f->map.live;
    int64_t now = gw_mono_ms();
    bool ours = false, adopted;
    uint64_t was, failed;

    if (t->fetcher == NULL || leaving(t) || fill_ended(f)) {
        return false;
    }
    was = atomic_load(&live->owner);
    if (was != 0 && was != t->self && owner_alive(t, was, atomic_load(&live->beat), now)) {
        return false;
    }
    failed = atomic_load(&live->failure);
    if (!fresh && ((was == 0 && failed != 0) || !map_unfinished(&f->map))) {
        return false; /* it failed, or nobody wants it: only a reader's demand starts it again */
    }
    pthread_mutex_lock(&t->mutex);
    if (f->owned && was == t->self) {
        pthread_mutex_unlock(&t->mutex);
        return true;
    }
    atomic_store(&live->beat, (uint64_t)now); /* first: whoever sees the word sees us alive */
    if (atomic_compare_exchange_strong(&live->owner, &was, t->self)) {
        ours = true;
        f->claimed_ms = now;
        atomic_store(&f->settled, false);
        if (!f->owned) {
            f->owned = true;
            f->refs++;
            t->n_owned++;
            atomic_store(&t->cache->shared->slots[t->cache->slot].fills, t->n_owned);
        }
        fill_enqueue(f);
    }
    pthread_mutex_unlock(&t->mutex);
    if (!ours) {
        return false;
    }
    adopted =
        failed == 0 && (was != 0 || (atomic_load(&live->all) != 0 && map_missing(&f->map, 0) > 0));
    atomic_store(&live->clean, 0);
    atomic_store(&live->failure, 0);
    if (adopted) {
        atomic_fetch_add(&t->cache->shared->counters.fills_adopted, 1);
    }
    fetcher_wake(t->fetcher);
    return true;
}

void fill_let_go(struct fill *f)
{
    struct fill_table *t = f->table;
    struct fill *last = NULL;
    uint64_t self = t->self;
    bool was;

    pthread_mutex_lock(&t->mutex);
    was = f->owned;
    if (was) {
        f->owned = false;
        t->n_owned--;
        atomic_store(&t->cache->shared->slots[t->cache->slot].fills, t->n_owned);
        if (!atomic_load(&f->gone) &&
            atomic_compare_exchange_strong(&f->map.live->owner, &self, 0) && !leaving(t)) {
            /* whoever takes it over in this node has the lease as well; nobody does if it ended */
            lease_end(f, atomic_load(&f->map.live->state) == MAP_WHOLE);
        }
    }
    pthread_mutex_unlock(&t->mutex);
    if (!was) {
        return;
    }
    if (!fill_ended(f) && atomic_load(&f->map.live->failure) == 0 && map_unfinished(&f->map)) {
        atomic_fetch_add(&t->cache->shared->fills_orphaned, 1);
    }
    fill_wake(f);
    pthread_mutex_lock(&t->mutex);
    last = fill_drop_ref(f);
    pthread_mutex_unlock(&t->mutex);
    if (last != NULL) {
        fill_free(last);
    }
}

void fill_wake(struct fill *f)
{
    uint64_t waiting;

    if (atomic_load(&f->gone)) { /* the map may not be touched: all of this process look */
        cache_wake(f->table->cache->shared, f->table->cache->slot);
        return;
    }
    waiting = atomic_exchange(&f->map.live->waiters, 0);
    while (waiting != 0) {
        unsigned slot = (unsigned)__builtin_ctzll(waiting);

        waiting &= waiting - 1;
        cache_wake(f->table->cache->shared, slot);
    }
}

void fill_demand(struct fill *f)
{
    struct fill_table *t = f->table;
    uint64_t owner;
    unsigned slot;

    atomic_fetch_add(&f->map.live->demands, 1);
    owner = atomic_load(&f->map.live->owner);
    slot = (unsigned)(owner >> 32 & 0xff);
    if (owner == t->self) {
        if (t->fetcher != NULL) {
            fetcher_wake(t->fetcher);
        }
    } else if (owner >> 40 == t->self >> 40 && slot > 0 && slot <= CACHE_SLOTS) {
        atomic_store(&t->cache->shared->slots[slot - 1].demanded, 1);
        cache_wake(t->cache->shared, slot - 1);
    } /* of another master: it looks by itself, several times a second */
}

static void lose(struct fill *f, const char *what)
{
    if (!atomic_exchange(&f->gone, true)) {
        fill_unlist(f);
        fill_wake(f);
        gw_log_write(&f->table->cache->log, GW_LOG_WARN, "cache: fill of %s given up: %s",
                     f->digest, what);
    }
}

bool fill_safe(struct fill *f)
{
    struct stat st;

    if (atomic_load(&f->gone)) {
        return false;
    }
    if (fstat(f->map.map_fd, &st) == 0 && (uint64_t)st.st_size >= f->map.bytes) {
        return true;
    }
    lose(f, "its map was cut short");
    return false;
}

void fill_look(struct fill *f)
{
    struct stat of_map, of_part;
    const char *what;

    if (!fill_safe(f) || fstat(f->map.map_fd, &of_map) != 0 ||
        fstat(f->map.part_fd, &of_part) != 0) {
        return;
    }
    if (fill_ended(f)) {
        return; /* looked at after the links: the state is set before the names go */
    }
    if ((uint64_t)of_part.st_size != f->map.head->size) {
        what = "its part has another size";
    } else if (of_map.st_nlink == 0 || of_part.st_nlink == 0) {
        what = "its files were removed";
    } else {
        return;
    }
    atomic_store(&f->map.live->state, MAP_DROPPED); /* for the other processes */
    fill_wake(f);
    lose(f, what);
}

/* ---- why it failed ---- */

static const struct {
    enum fill_failure kind;
    enum gw_status status;
    const char *text;
} failures[] = {
    {FILL_NETWORK, GW_UNAVAILABLE, "upstream cannot be reached"},
    {FILL_STATUS, GW_UNAVAILABLE, "upstream answered"},
    {FILL_REDIRECT, GW_UNAVAILABLE,
     "upstream redirects to a place that is not allowed, or without end"},
    {FILL_CHANGED, GW_UNAVAILABLE, "upstream has other content under this name now"},
    {FILL_RANGE, GW_UNAVAILABLE, "upstream's answer is not the range that was asked for"},
    {FILL_ENCODED, GW_UNAVAILABLE, "upstream sent a compressed body"},
    {FILL_DISK, GW_IO, "the cache's disk"},
    {FILL_MEMORY, GW_UNAVAILABLE, "no memory for a transfer"},
    {FILL_SOURCE, GW_UNAVAILABLE, "the source of this part is no URL"},
    {FILL_REFUSED, GW_FORBIDDEN, "upstream answered"},
    {FILL_FILE, GW_IO, "the object in data/"},
};

void fill_fail(struct fill *f, enum fill_failure kind, int sys, int64_t until_ms)
{
    if (!atomic_load(&f->gone)) {
        atomic_store(&f->map.live->failure,
                     (uint64_t)until_ms << 24 | (uint64_t)kind << 16 | (uint64_t)(sys & 0xffff));
    }
}

static bool counts_now(uint64_t word)
{
    int64_t left = (int64_t)(word >> 24) - gw_mono_ms();

    return word != 0 && left > 0 && left <= FAILURE_MAX_MS;
}

bool fill_source_failed(const struct fill *f)
{
    uint64_t word = atomic_load(&f->map.live->failure);
    unsigned kind = (unsigned)(word >> 16 & 0xff);
    int sys = (int)(word & 0xffff);

    return counts_now(word) &&
           (kind == FILL_REFUSED || kind == FILL_CHANGED || kind == FILL_SOURCE ||
            kind == FILL_FILE ||
            (kind == FILL_STATUS && sys >= 400 && sys < 500 && sys != 408 && sys != 429));
}

int fill_failure(const struct fill *f, struct gw_error *err)
{
    return fill_failure_of(atomic_load(&f->map.live->failure), err);
}

int fill_failure_of(uint64_t word, struct gw_error *err)
{
    unsigned kind = (unsigned)(word >> 16 & 0xff);
    int sys = (int)(word & 0xffff);

    if (!counts_now(word)) {
        return GW_OK;
    }
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        if (failures[i].kind != kind) {
            continue;
        }
        switch (failures[i].kind) {
        case FILL_NETWORK:
            return gw_fail(err, failures[i].status, sys, "%s: %s", failures[i].text,
                           curl_easy_strerror((CURLcode)sys));
        case FILL_STATUS:
            return gw_fail(err, failures[i].status, sys, "%s %d", failures[i].text, sys);
        case FILL_REFUSED:
            return gw_fail(err, failures[i].status, sys,
                           "%s %d: may the organisation's token read this repository?",
                           failures[i].text, sys);
        case FILL_DISK:
        case FILL_FILE:
            return gw_fail(err, failures[i].status, sys, "%s: %s", failures[i].text,
                           strerrordesc_np(sys) != NULL ? strerrordesc_np(sys) : "unknown error");
        default:
            return gw_fail(err, failures[i].status, sys, "%s", failures[i].text);
        }
    }
    return GW_OK; /* a damaged word */
}

/* ---- jobs ---- */

/* Under the mutex. */
static bool job_due(const struct fill *f, int64_t now)
{
    uint64_t there;

    if (!f->owned || now < f->job_after_ms || atomic_load(&f->gone)) {
        return false;
    }
    if (f->job_out && (f->job_running || now - f->job_out_ms < JOB_LOST_MS)) {
        return false;
    }
    if (f->drop) {
        return true;
    }
    if (f->contiguous == f->map.granules) {
        return atomic_load(&f->settled) || now >= f->claimed_ms + SETTLE_MS;
    }
    if (!atomic_load(&f->settled)) {
        return false;
    }
    if (f->bring) {
        return true;
    }
    there = map_bytes(&f->map, f->contiguous);
    return f->map.head->digest_len == 64 && there >= f->hashed + FILL_STEP_MIN;
}

void fill_progress(struct fill *f)
{
    struct fill_table *t = f->table;
    bool due;

    pthread_mutex_lock(&t->mutex);
    f->contiguous = map_missing(&f->map, f->contiguous);
    due = job_due(f, gw_mono_ms());
    pthread_mutex_unlock(&t->mutex);
    if (due) {
        cache_wake(t->cache->shared, t->cache->slot);
    }
}

int cache_tick(struct cache *c, struct gw_want *want)
{
    struct fill_table *t = c->fills;
    int64_t now = gw_mono_ms();
    int rc = GW_NOT_FOUND;

    cache_wake_rearm(c->shared, c->slot);
    cache_index_tick(c);
    if (t == NULL || leaving(t)) {
        return GW_NOT_FOUND;
    }
    if (cache_budget_tick(c, want) == GW_OK) {
        return GW_OK;
    }
    if (atomic_exchange(&c->shared->slots[c->slot].demanded, 0) != 0 && t->fetcher != NULL) {
        fetcher_wake(t->fetcher);
    }
    pthread_mutex_lock(&t->mutex);
    for (struct fill *f = t->list; f != NULL; f = f->next) {
        if (lease_due(f, now)) {
            lease_name(f, want, now);
            rc = GW_OK;
            break;
        }
        if (!job_due(f, now)) {
            continue;
        }
        if (!f->job_out) {
            f->job_out = true;
            f->refs++;
        }
        f->job_out_ms = now;
        want->peer = GW_PEER_DISK;
        want->key = gw_str_c(f->key);
        want->arg = (struct gw_str){NULL, 0};
        rc = GW_OK;
        break;
    }
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

static int read_failed(struct fill *f, struct gw_error *err, struct gw_error *why)
{
    part_drop(f, MAP_DROPPED); /* what is marked valid cannot be read: nothing of it is believed */
    if (err != NULL) {
        *err = *why;
    }
    return gw_fail_prefix(err, "part of %s dropped", f->digest);
}

static int publish(struct fill *f, struct gw_error *err)
{
    struct fill_table *t = f->table;
    char path[CACHE_PATH_MAX];
    struct stat st;
    uint32_t filling = MAP_FILLING;
    int lock, rc;

    atomic_compare_exchange_strong(&f->map.live->state, &filling, MAP_PROVEN);
    fill_wake(f);
    if (fdatasync(f->map.part_fd) != 0) {
        rc = gw_fail(err, GW_IO, errno, "fdatasync of the part of %s: %s", f->digest,
                     strerrordesc_np(errno));
        part_drop(
            f,
            MAP_DROPPED); /* after a failed sync the kernel calls the pages clean: reliability C3 */
        return rc;
    }
    if ((f->map.head->flags & MAP_PASSING) != 0) { /* who reads it finds it in parts/ */
        fill_let_go(f);
        return GW_OK;
    }
    lock = parts_lock(t, true);
    if (lock < 0) {
        return gw_fail(err, GW_IO, errno, "parts/.lock: %s", strerrordesc_np(errno));
    }
    snprintf(path, sizeof(path), "%s/%s.part", t->cache->parts_dir, f->digest);
    if (!fill_ours(f) || fill_ended(f)) {
        parts_unlock(lock);
        return GW_OK; /* somebody took it over and does this, or did */
    }
    if (stat(path, &st) != 0 || (uint64_t)st.st_ino != f->map.head->part_ino) {
        parts_unlock(lock);
        part_drop(f, MAP_DROPPED);
        return gw_fail(err, GW_IO, 0, "part of %s was removed before it became a blob", f->digest);
    }
    rc = cache_blob_publish(t->cache, fill_digest(f), path, err);
    if (rc == GW_OK) {
        atomic_store(&f->map.live->state, MAP_WHOLE);
        part_remove(t, fill_digest(f));
        cache_note_change(t->cache, fill_digest(f));
    }
    parts_unlock(lock);
    if (rc == GW_OK) {
        fill_unlist(f);
        fill_wake(f);
        fill_let_go(f);
    }
    return rc;
}

/* All parts dropped, counted, and fetched once more; the second time within the hour nobody tries
 * again. */
static int mismatch(struct fill *f, struct gw_error *err)
{
    struct fill_table *t = f->table;
    struct gw_str source = {f->map.head->source, f->map.head->source_len};
    struct fill *again = NULL;
    unsigned times = part_note_mismatch(t, fill_digest(f));
    int lock, rc = GW_CORRUPT;

    atomic_fetch_add(&t->cache->shared->counters.integrity_failures, 1);
    part_drop(f, MAP_CORRUPT);
    if (fill_local(f)) {
        return gw_fail(err, GW_CORRUPT, 0, GW_STR_FMT ": damaged, its bytes do not have its digest",
                       GW_STR_ARG(source));
    }
    if (times < 2) {
        lock = parts_lock(t, true);
        rc = lock < 0 ? GW_IO : part_make(t, fill_digest(f), f->map.head->size, source, 0, NULL);
        parts_unlock(lock);
        rc = rc == GW_CONFLICT ? GW_OK : rc; /* somebody was quicker */
    }
    if (rc == GW_OK && fill_get(&again, t, fill_digest(f), NULL) == GW_OK) {
        atomic_store(&again->map.live->all, 1); /* all of it was there */
        fill_claim(again, true);
        fill_unref(again);
    }
    return gw_fail(err, GW_CORRUPT, 0, "%s: the bytes from upstream do not have this digest (%s)",
                   f->digest, rc == GW_OK ? "fetched once more" : "not tried again for now");
}

/* Whoever had it before is stopped within a write to this very file, and may wake up at any time:
 * what is proved, and becomes the blob, is a copy. */
static int finish_by_copy(struct fill *f, struct gw_error *err)
{
    struct fill_table *t = f->table;
    int lock, rc;

    rc = cache_blob_copy(t->cache, fill_digest(f), f->map.head->size, f->map.part_fd, err);
    if (rc != GW_OK) {
        return rc == GW_CORRUPT ? mismatch(f, err) : rc;
    }
    lock = parts_lock(t, true);
    if (lock >= 0 && fill_ours(f) && !fill_ended(f)) {
        atomic_store(&f->map.live->state, MAP_WHOLE);
        part_remove(t, fill_digest(f));
    }
    parts_unlock(lock);
    fill_unlist(f);
    fill_wake(f);
    fill_let_go(f);
    return GW_OK;
}

static int finish(struct fill *f, bool right, struct gw_error *err)
{
    return right ? publish(f, err) : mismatch(f, err);
}

static int hash_step(struct fill *f, uint8_t *buffer, struct gw_error *err)
{
    struct fill_table *t = f->table;
    const struct map_head *h = f->map.head;
    uint64_t there = map_bytes(&f->map, map_missing(&f->map, 0)), begun, end;
    uint8_t have[32], wanted[32];
    struct gw_error why = {0};
    struct gw_sha256 s;

    map_hash_load(&f->map, &s);
    begun = s.bytes;
    end = there - begun > FILL_STEP ? begun + FILL_STEP : there;
    while (s.bytes < end && !leaving(t)) {
        size_t n = end - s.bytes < READ_BYTES ? (size_t)(end - s.bytes) : READ_BYTES;

        if (gw_pread_all(f->map.part_fd, buffer, n, s.bytes, &why) != GW_OK) {
            return read_failed(f, err, &why);
        }
        gw_sha256_update(&s, buffer, n);
    }
    if (!fill_safe(f) || !fill_ours(f)) {
        return GW_OK;
    }
    if (s.bytes > begun) {
        map_hash_save(&f->map, &s);
    }
    pthread_mutex_lock(&t->mutex);
    f->hashed = s.bytes;
    pthread_mutex_unlock(&t->mutex);
    if (s.bytes < h->size) {
        return GW_OK;
    }
    gw_sha256_final(&s, have);
    return finish(f,
                  gw_hex_decode(wanted, sizeof(wanted), fill_digest(f)) &&
                      memcmp(have, wanted, sizeof(have)) == 0,
                  err);
}

/* git's blobs are small in practice: no state is kept, the whole is read at the end. */
static int hash_git(struct fill *f, uint8_t *buffer, struct gw_error *err)
{
    const struct map_head *h = f->map.head;
    uint8_t have[20], wanted[20];
    struct gw_error why = {0};
    struct gw_git_sha1 s;
    uint64_t at = 0;

    gw_git_sha1_init(&s, h->size);
    while (at < h->size) {
        size_t n = h->size - at < READ_BYTES ? (size_t)(h->size - at) : READ_BYTES;

        if (leaving(f->table)) {
            return gw_fail(err, GW_CANCELLED, 0, "leaving");
        }
        if (gw_pread_all(f->map.part_fd, buffer, n, at, &why) != GW_OK) {
            return read_failed(f, err, &why);
        }
        gw_git_sha1_update(&s, buffer, n);
        at += n;
    }
    gw_git_sha1_final(&s, have);
    return finish(f,
                  gw_hex_decode(wanted, sizeof(wanted), fill_digest(f)) &&
                      memcmp(have, wanted, sizeof(have)) == 0,
                  err);
}

static int run_job(struct fill *f, bool drop, struct gw_error *err)
{
    struct fill_table *t = f->table;
    uint64_t missing;
    uint8_t *buffer;
    int rc;

    if (!fill_safe(f) || !fill_ours(f) || fill_ended(f)) {
        pthread_mutex_lock(&t->mutex);
        f->job_after_ms = gw_mono_ms() + JOB_IDLE_MS; /* the fetcher lets it go meanwhile */
        pthread_mutex_unlock(&t->mutex);
        return GW_OK;
    }
    if (drop) {
        part_drop(f, MAP_DROPPED);
        return GW_OK;
    }
    missing = map_missing(&f->map, 0);
    pthread_mutex_lock(&t->mutex);
    if (missing < f->contiguous) { /* somebody wrote into our map: fetch what it says */
        f->contiguous = missing;
        f->job_after_ms = gw_mono_ms() + JOB_IDLE_MS;
        fill_enqueue(f);
    }
    pthread_mutex_unlock(&t->mutex);
    if (!atomic_load(&f->settled)) {
        return missing == f->map.granules ? finish_by_copy(f, err) : GW_OK;
    }
    buffer = gw_alloc(READ_BYTES);
    if (buffer == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory to hash a part");
    }
    if (fill_local(f) && missing < f->map.granules) {
        rc = local_copy(f, buffer, err);
        local_rest(f);
        if (rc != GW_OK || !fill_ours(f) || fill_ended(f)) {
            gw_free(buffer);
            return rc;
        }
        missing = map_missing(&f->map, 0);
    }
    if (f->map.head->digest_len == 64) {
        rc = hash_step(f, buffer, err);
    } else {
        rc = missing == f->map.granules ? hash_git(f, buffer, err) : GW_OK;
    }
    gw_free(buffer);
    return rc;
}

int cache_fill_job(struct cache *c, struct gw_str key, struct gw_error *err)
{
    struct fill_table *t = c->fills;
    struct fill *f, *last;
    bool drop = false;
    int rc;

    if (t == NULL) {
        return GW_OK;
    }
    pthread_mutex_lock(&t->mutex);
    for (f = t->list; f != NULL; f = f->next) {
        if (f->job_out && !f->job_running && gw_str_eq_c(key, f->key)) {
            f->job_running = true;
            drop = f->drop;
            break;
        }
    }
    pthread_mutex_unlock(&t->mutex);
    if (f == NULL) {
        return GW_OK; /* a late twin */
    }
    cache_thread_yields();
    rc = run_job(f, drop, err);

    pthread_mutex_lock(&t->mutex);
    f->job_out = f->job_running = false;
    if (rc != GW_OK) {
        f->job_after_ms = gw_mono_ms() + JOB_RETRY_MS;
    }
    last = fill_drop_ref(f);
    pthread_mutex_unlock(&t->mutex);
    if (last != NULL) {
        fill_free(last);
    }
    cache_wake(c->shared, c->slot); /* the next step may be due already */
    return rc;
}

/* ---- open and close ---- */

static uint64_t boot_word(const struct cache *c)
{
    uint8_t digest[32];
    uint64_t word;

    gw_sha256_once(c->boot_id, strlen(c->boot_id), digest);
    memcpy(&word, digest, sizeof(word));
    return word | 1;
}

int cache_fills_open(struct cache *c, struct gw_error *err)
{
    struct fill_table *t;
    uint64_t zone, none = 0;
    int rc;

    if (c->boot_id[0] == '\0') {
        return gw_fail(err, GW_IO, 0, "the system does not tell its boot id");
    }
    if (!gw_random(&zone, sizeof(zone))) {
        return gw_fail(err, GW_IO, 0, "no randomness");
    }
    t = gw_alloc(sizeof(*t));
    if (t == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the fills");
    }
    zone |= 1; /* the first who comes names this shared memory */
    if (!atomic_compare_exchange_strong(&c->shared->zone, &none, zone)) {
        zone = none;
    }
    t->cache = c;
    t->retry_ms = FILL_RETRY_MS;
    t->rest_ms = FILL_REST_MS;
    t->silent_ms = FILL_SILENT_MS;
    t->foreign_ms = FILL_FOREIGN_MS;
    t->transfers = c->options.upstream.transfers;
    t->transfers = t->transfers > 0 && t->transfers <= 8 ? t->transfers : FILL_TRANSFERS;
    t->max_transfers = c->options.upstream.max_transfers;
    t->max_transfers =
        t->max_transfers > 0 && t->max_transfers <= 64 ? t->max_transfers : FILL_MAX_TRANSFERS;
    t->shares = cache_share_on(c) && c->options.share.cluster_key.n != 0;
    t->lease_take = cache_lease_take;
    t->lease_drop = cache_lease_drop;
    t->boot = boot_word(c);
    t->self = owner_word(zone, c->slot, c->generation);
    pthread_mutex_init(&t->mutex, NULL);
    if (!c->options.read_only_index) {
        rc = fetcher_open(&t->fetcher, t, err);
        if (rc != GW_OK) {
            pthread_mutex_destroy(&t->mutex);
            gw_free(t);
            return rc;
        }
    }
    c->fills = t;
    return GW_OK;
}

/* Makes a given-back fill trustworthy for another boot, if the disk is quick. Its owner may be
 * another process already: then the seal no longer fits, and says nothing. */
static void seal(struct fill *f, int64_t deadline)
{
    uint64_t word = map_seal(&f->map); /* before the sync: all that it covers was written before */

    for (uint64_t at = 0; at < f->map.head->size; at += SEAL_CHUNK) {
        if (gw_mono_ms() > deadline ||
            sync_file_range(f->map.part_fd, (off_t)at, SEAL_CHUNK,
                            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                SYNC_FILE_RANGE_WAIT_AFTER) != 0) {
            return;
        }
    }
    if (fdatasync(f->map.part_fd) == 0) { /* the pages are there: this is for the block map */
        atomic_store(&f->map.live->clean, word);
    }
}

/* What was claimed too late for the fetcher. */
static void drop_queue(struct fill_table *t)
{
    for (;;) {
        struct fill *f;

        pthread_mutex_lock(&t->mutex);
        f = t->queue;
        if (f != NULL) {
            t->queue = f->queue_next;
            f->queued = false;
        }
        pthread_mutex_unlock(&t->mutex);
        if (f == NULL) {
            return;
        }
        fill_unref(f);
    }
}

void cache_fills_close(struct cache *c)
{
    struct fill_table *t = c->fills;
    struct fill **all = NULL;
    size_t cap = 0, n;
    int64_t deadline;
    bool in_use;

    if (t == NULL) {
        return;
    }
    atomic_store(&t->stopping, true);
    fetcher_close(t->fetcher);

    drop_queue(t);
    n = fill_snapshot(t, &all, &cap);
    deadline = gw_mono_ms() + SEAL_MS;
    for (size_t i = 0; i < n; i++) {
        bool owned;

        pthread_mutex_lock(&t->mutex);
        owned = all[i]->owned;
        if (all[i]->job_out && !all[i]->job_running) { /* named, and nobody will come for it */
            all[i]->job_out = false;
            all[i]->refs--; /* never the last: the snapshot's is there */
        }
        if (all[i]->lease.out) {
            all[i]->lease.out = false;
            all[i]->refs--;
        }
        if (all[i]->lease.ending) {
            all[i]->lease.ending = false;
            all[i]->refs--;
        }
        pthread_mutex_unlock(&t->mutex);
        fill_look(all[i]);
        fill_let_go(all[i]); /* first of all: others go on while we sync */
        if (!owned || fill_ended(all[i])) {
            fill_unref(all[i]);
            all[i] = NULL;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (all[i] != NULL) {
            seal(all[i], deadline);
            fill_unref(all[i]);
        }
    }
    gw_free(all);
    c->fills = NULL;

    pthread_mutex_lock(&t->mutex);
    in_use = t->list != NULL;
    pthread_mutex_unlock(&t->mutex);
    if (!in_use) { /* a reader that was not closed keeps the table: better lost than used after free
                    */
        pthread_mutex_destroy(&t->mutex);
        gw_free(t);
    }
}
