/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/scrub.c - hashing what is held again: bits that rotted, files cut short, files under
 * another one's name. What is wrong loses its name, so it is never opened again and the next
 * request fetches it anew.
 *
 * In the background a round over all blobs, in the order of their digests, takes options.scrub_ms;
 * where it is stays in the index. A blob that a process had open when it ended is begun again.
 */
#include "cache/budget_internal.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1u << 20)
#define AHEAD (4u << 20) /* bytes that a round may be ahead of its time */
#define SAVE_MS 30000
#define PAUSE_MAX_MS 200

struct scrub_state { /* as the index holds it */
    int64_t started_ms;
    uint64_t done;
    uint8_t at[BLOB_KEY], on, pad[7];
};

struct scrub_file {
    struct usage held;
    char hex[CACHE_DIGEST_MAX + 1], path[CACHE_PATH_MAX];
    int fd;
    struct stat st;
    uint64_t at;
    struct cache_proof proof;
    uint8_t *buffer;
};

static struct gw_str digest_of(const struct scrub_file *f)
{
    return (struct gw_str){f->hex, 2u * f->held.id.n};
}

static void file_close(struct scrub_file *f)
{
    if (f == NULL) {
        return;
    }
    if (f->fd >= 0) {
        close(f->fd);
    }
    gw_free(f->buffer);
    gw_free(f);
}

/* NULL: it is not held any more, or cannot be looked at. */
static struct scrub_file *file_open(struct cache *c, const struct usage *held)
{
    struct scrub_file *f = gw_alloc(sizeof(*f));

    if (f == NULL) {
        return NULL;
    }
    f->fd = -1;
    f->held = *held;
    f->buffer = gw_alloc(PIECE);
    if (f->buffer == NULL ||
        !cache_blob_path(c, blob_id_hex(&held->id, f->hex), f->path, sizeof(f->path)) ||
        (f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) < 0 ||
        fstat(f->fd, &f->st) != 0 || !S_ISREG(f->st.st_mode)) {
        file_close(f);
        return NULL;
    }
    cache_proof_init(&f->proof, digest_of(f), (uint64_t)f->st.st_size);
    return f;
}

/* What was read is not kept in memory for its own sake. A blob that is in use is there anyway. */
static void forget(const struct scrub_file *f, uint64_t at, uint64_t n)
{
    if (gw_wall_ms() - f->held.used_ms > 3600 * 1000) {
        (void)posix_fadvise(f->fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
    }
}

enum piece { PIECE_MORE, PIECE_RIGHT, PIECE_WRONG, PIECE_UNREADABLE };

static enum piece file_step(struct scrub_file *f, uint64_t *n)
{
    ssize_t got;

    do {
        got = pread(f->fd, f->buffer, PIECE, (off_t)f->at);
    } while (got < 0 && errno == EINTR);
    *n = got > 0 ? (uint64_t)got : 0;
    if (got < 0) {
        return PIECE_UNREADABLE;
    }
    if (got == 0) {
        return f->at == (uint64_t)f->st.st_size && cache_proof_right(&f->proof, digest_of(f))
                   ? PIECE_RIGHT
                   : PIECE_WRONG;
    }
    cache_proof_update(&f->proof, f->buffer, (size_t)got);
    forget(f, f->at, *n);
    f->at += *n;
    return f->at <= (uint64_t)f->st.st_size ? PIECE_MORE : PIECE_WRONG;
}

/* Takes its name away, if it is still the one that was read. @return what was wrong; NULL: it was
 * replaced meanwhile */
static const char *remove_damaged(struct cache *c, const struct scrub_file *f, enum piece how)
{
    const char *what =
        how == PIECE_UNREADABLE ? "it cannot be read" : "its bytes do not have this digest";
    struct usage_change change = {.what = USAGE_REMOVE, .u = f->held};
    struct gw_error err;
    struct stat now;

    if (lstat(f->path, &now) != 0 || now.st_ino != f->st.st_ino || now.st_dev != f->st.st_dev ||
        unlink(f->path) != 0) {
        return NULL;
    }
    atomic_fetch_add(&c->shared->usage.damaged, 1);
    atomic_fetch_add(&c->shared->counters.integrity_failures, 1);
    if (usage_apply(c, &change, 1, &err) != GW_OK) {
        cache_note_change(c, digest_of(f));
    }
    return what;
}

/* ---- in the background ---- */

static void save(struct cache *c, struct scrub *s, bool now)
{
    struct scrub_state state = {.started_ms = s->started_ms, .done = s->done, .on = s->on};
    struct gw_error err;

    if (!now && gw_mono_ms() - s->saved_ms < SAVE_MS) {
        return;
    }
    memcpy(state.at, s->at, sizeof(state.at));
    if (usage_state_put(c, "scrub", &state, sizeof(state), &err) == GW_OK) {
        s->saved_ms = gw_mono_ms();
    }
}

int scrub_state(struct cache *c, int64_t *started_ms, uint64_t *done, struct gw_error *err)
{
    struct scrub_state state;
    int rc = usage_state_get(c, "scrub", &state, sizeof(state), err);

    *started_ms = rc == GW_OK ? state.started_ms : 0;
    *done = rc == GW_OK ? state.done : 0;
    return rc == GW_NOT_FOUND ? GW_OK : rc;
}

/* false: no round is to be under way now. */
static bool round_on(struct cache *c, struct scrub *s)
{
    int64_t now = gw_wall_ms();
    struct scrub_state state;
    struct gw_error err;
    int rc;

    if (!s->known) {
        rc = usage_state_get(c, "scrub", &state, sizeof(state), &err);
        if (rc != GW_OK && rc != GW_NOT_FOUND) {
            return false;
        }
        s->known = true;
        if (rc == GW_OK) {
            s->started_ms = state.started_ms;
            s->done = state.done;
            s->on = state.on != 0;
            memcpy(s->at, state.at, sizeof(s->at));
        }
    }
    if (!s->on &&
        (s->started_ms == 0 || now - s->started_ms >= c->options.scrub_ms || now < s->started_ms)) {
        s->on = true;
        s->started_ms = now;
        s->done = 0;
        memset(s->at, 0, sizeof(s->at));
        save(c, s, true);
    }
    return s->on;
}

static void round_end(struct cache *c, struct scrub *s)
{
    s->on = false;
    save(c, s, true);
}

/* The next blob, or the end of the round. */
static void next_file(struct cache *c, struct scrub *s)
{
    uint8_t to[BLOB_KEY];
    struct gw_error err;
    struct usage held;
    size_t n;

    memset(to, 0xff, sizeof(to));
    if (usage_range(c, s->at, to, &held, 1, &n, &err) != GW_OK) {
        return;
    }
    if (n == 0) {
        round_end(c, s);
        return;
    }
    memcpy(s->at, held.id.raw, sizeof(s->at));
    s->file = file_open(c, &held);
    if (s->file == NULL && !usage_next_key(s->at)) {
        round_end(c, s);
    }
}

static void end_file(struct cache *c, struct scrub *s, enum piece how)
{
    const char *what;

    atomic_fetch_add(&c->shared->usage.scrubbed, 1);
    if (how != PIECE_RIGHT && (what = remove_damaged(c, s->file, how)) != NULL) {
        gw_log_write(&c->log, GW_LOG_WARN, "cache: blob %s was damaged on the disk: %s; removed%s",
                     s->file->hex, what,
                     s->file->st.st_nlink > 1 ? ". data/ has the same file: restore it" : "");
    }
    file_close(s->file);
    s->file = NULL;
    if (!usage_next_key(s->at)) {
        round_end(c, s);
    } else {
        save(c, s, false);
    }
}

void scrub_slice(struct cache *c, int64_t ms)
{
    struct scrub *s = &c->budget->scrub;
    int64_t until = gw_mono_ms() + ms;
    struct stat now;

    if (c->options.scrub_ms == 0 || !round_on(c, s)) {
        return;
    }
    if (s->file != NULL && fstat(s->file->fd, &now) == 0 && now.st_nlink == 0) {
        scrub_close(s); /* evicted: only we keep its bytes on the disk */
    }
    while (s->on && gw_mono_ms() < until && !atomic_load(&c->leaving)) {
        double share = (double)(gw_wall_ms() - s->started_ms) / (double)c->options.scrub_ms;
        uint64_t n = 0;
        enum piece how;

        if ((double)s->done > share * (double)atomic_load(&c->shared->usage.blob_bytes) + AHEAD) {
            return;
        }
        if (s->file == NULL) {
            uint8_t was[BLOB_KEY];

            memcpy(was, s->at, sizeof(was));
            next_file(c, s);
            if (s->file == NULL && s->on && memcmp(was, s->at, sizeof(was)) == 0) {
                return; /* the index cannot just now */
            }
            continue;
        }
        how = file_step(s->file, &n);
        s->done += n;
        atomic_fetch_add(&c->shared->usage.scrubbed_bytes, n);
        if (how != PIECE_MORE) {
            end_file(c, s, how);
        }
    }
}

void scrub_close(struct scrub *s)
{
    file_close(s->file);
    s->file = NULL;
}

/* ---- all at once: the command ---- */

static void pause_for(const struct cache_verify *v, int64_t began_ms)
{
    int64_t due =
        v->rate != 0 ? began_ms + (int64_t)((double)v->bytes / (double)v->rate * 1000) : 0;

    for (int64_t left = due - gw_mono_ms(); left > 0; left = due - gw_mono_ms()) {
        int64_t ms = left < PAUSE_MAX_MS ? left : PAUSE_MAX_MS;
        const struct timespec pause = {ms / 1000, ms % 1000 * 1000000};

        nanosleep(&pause, NULL);
        if (v->progress != NULL) {
            v->progress(v->ctx, v);
        }
    }
}

static void verify_one(struct cache *c, struct cache_verify *v, const struct usage *held,
                       int64_t began_ms)
{
    struct scrub_file *f = file_open(c, held);
    enum piece how = PIECE_MORE;
    const char *what;
    uint64_t n;

    if (f == NULL) {
        return; /* evicted meanwhile */
    }
    while (how == PIECE_MORE) {
        how = file_step(f, &n);
        v->bytes += n;
        pause_for(v, began_ms);
        if (v->progress != NULL) {
            v->progress(v->ctx, v);
        }
    }
    v->blobs++;
    if (how != PIECE_RIGHT && (what = remove_damaged(c, f, how)) != NULL) {
        v->n_damaged++;
        if (v->damaged != NULL) {
            v->damaged(v->ctx, digest_of(f), what, f->st.st_nlink > 1);
        }
    }
    file_close(f);
}

int cache_verify_all(struct cache *c, struct cache_verify *v, struct gw_error *err)
{
    uint8_t at[BLOB_KEY] = {0}, to[BLOB_KEY];
    int64_t began = gw_mono_ms();
    struct usage held[16];
    unsigned folder = 0;
    bool more = true;
    size_t n;
    int rc = GW_OK;

    while (rc == GW_OK && folder < BUDGET_WALK_END) {
        rc = budget_walk(c, &folder, err);
    }
    rc = rc != GW_OK ? rc : usage_totals(c, &v->total_bytes, &v->total_blobs, err);
    memset(to, 0xff, sizeof(to));
    while (rc == GW_OK && more) {
        rc = usage_range(c, at, to, held, sizeof(held) / sizeof(held[0]), &n, err);
        for (size_t i = 0; rc == GW_OK && i < n; i++) {
            verify_one(c, v, &held[i], began);
        }
        more = rc == GW_OK && n > 0;
        if (more) {
            memcpy(at, held[n - 1].id.raw, sizeof(at));
            more = usage_next_key(at);
        }
    }
    return rc;
}
