/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/notes.c - what this process served, linked and removed: noted in its memory, written down
 * by the "usage" job.
 *
 * The loop fills one set of notes while the job empties the other. Noting costs no lock and no
 * system call; what jobs change is a list under a mutex.
 */
#include "cache/budget_internal.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <string.h>

#define CHANGED_MS 1000
#define SERVED_MS 60000
#define PROBES 16u

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

int notes_flush(struct cache *c, struct notes *served, struct gw_error *err)
{
    struct budget *b = c->budget;
    struct usage_batch *batch = gw_alloc(sizeof(*batch));
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
    *batch = (struct usage_batch){.c = c, .err = err};
    for (size_t i = 0; i < n; i++) {
        usage_batch_look(batch, &changed[i], now);
    }
    for (size_t i = 0; i < NOTES && served->n > 0; i++) {
        const struct note *note = &served->slot[i];
        struct usage held;

        if (note->id.n == 0) {
            continue;
        }
        rc = usage_get(c, &note->id, &held, err);
        if (rc == GW_NOT_FOUND) { /* nobody has told of it yet */
            usage_batch_look(batch, &note->id, note->used_ms);
        } else if (rc == GW_OK) {
            usage_batch_add(batch, USAGE_TOUCH,
                            &(struct usage){.id = note->id, .used_ms = note->used_ms});
        } else {
            batch->rc = rc;
            break;
        }
    }
    usage_batch_end(batch);
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
    rc = notes_flush(c, b->flushed, err);
    memset(b->flushed, 0, sizeof(*b->flushed));
    atomic_store(&b->flush_out, false);
    return rc;
}

bool notes_due(struct cache *c, int64_t now)
{
    struct budget *b = c->budget;
    uint32_t epoch = atomic_load(&c->shared->use_epoch);
    int64_t changed = atomic_load(&b->changed_ms);

    if (atomic_load(&b->flush_out)) { /* one that was never begun ends with the process's jobs */
        return now - b->flush_out_ms > BUDGET_JOB_LOST_MS;
    }
    if (!(changed != 0 && (now - changed >= CHANGED_MS || epoch != b->epoch)) &&
        !(b->served->n > 0 &&
          (now - b->flush_ms >= SERVED_MS || b->served->n > NOTES / 2 || epoch != b->epoch))) {
        b->epoch = epoch;
        return false;
    }
    b->epoch = epoch;
    return true;
}
