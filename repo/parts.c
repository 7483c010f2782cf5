/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/parts.c - an object that comes in parts.
 *
 *   data/tmp/parts-<upload>         the bytes: sparse, each part at its place
 *   data/tmp/parts-<upload>.state   which parts are whole and on the disk, and the hash of the
 *                                   first ones
 *
 * The state is read and written whole, under flock of its file; who works on the hash holds flock
 * of the bytes. A part is written in steps, each under the shared lock of the state, and only while
 * the upload is open and nobody opened the part after us: so nothing is ever written to bytes that
 * were hashed, or to the inode after it became an object. A part is marked whole after fdatasync,
 * so after a power cut the state never says more than the disk has.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define OBJECT_MODE 0440
#define MAGIC "hgparts1"  /* the layout, in this machine's order of bytes */
#define HASHED_AT_ONCE 4u /* parts that the end of one hashes at most: its client waits */
#define TRIES 8u

struct state {
    uint8_t check[8]; /* of what follows: the beginning of its sha256 */
    char magic[8];
    uint64_t size, chunk;
    uint64_t closed; /* 1: all parts came, nothing is written any more */
    struct gw_sha256 sha;
    struct {
        uint32_t opened, whole;
    } part[REPO_PARTS_MAX];
};

struct files {
    struct gw_arena a;
    const char *tmp, *bytes_path, *state_path;
    int bytes, state;
};

struct repo_part {
    struct repo_parts o;
    struct files f;
    uint64_t part; /* from 0 */
    uint32_t opened;
    uint64_t written;
};

uint64_t repo_parts_chunk(uint64_t size, uint64_t least)
{
    uint64_t chunk = size / REPO_PARTS_MAX + 1;

    return chunk <= least ? least : (chunk + MIB - 1) / MIB * MIB;
}

uint64_t repo_parts_count(uint64_t size, uint64_t chunk)
{
    return chunk != 0 ? size / chunk + (size % chunk != 0) : 0;
}

static uint64_t length_of(const struct repo_parts *o, uint64_t part)
{
    uint64_t left = o->size - part * o->chunk;

    return left < o->chunk ? left : o->chunk;
}

static int fail_io(struct gw_error *err, const char *what)
{
    int code = errno;

    return gw_fail(err, GW_IO, code, "an upload in parts: %s: %s", what, strerrordesc_np(code));
}

/* ---- files ---- */

static int begin_files(struct files *f, const struct repo_parts *o, struct gw_error *err)
{
    *f = (struct files){.bytes = -1, .state = -1};
    gw_arena_init(&f->a, 64u << 10);
    if (!gw_is_hex_lower(o->upload, 64) || o->size == 0 || o->size > INT64_MAX || o->chunk == 0 ||
        repo_parts_count(o->size, o->chunk) > REPO_PARTS_MAX) {
        return gw_fail(err, GW_INVALID, 0, "no sizes of an upload in parts");
    }
    f->tmp = gw_arena_printf(&f->a, "%s/tmp", o->data_dir).p;
    f->bytes_path = gw_arena_printf(&f->a, "%s/" REPO_PARTS_PREFIX GW_STR_FMT, f->tmp ? f->tmp : "",
                                    GW_STR_ARG(o->upload))
                        .p;
    f->state_path =
        gw_arena_printf(&f->a, "%s" REPO_PARTS_STATE, f->bytes_path ? f->bytes_path : "").p;
    if (f->tmp == NULL || f->bytes_path == NULL || f->state_path == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for an upload in parts");
    }
    return GW_OK;
}

static void end_files(struct files *f)
{
    if (f->bytes >= 0) {
        close(f->bytes);
    }
    if (f->state >= 0) {
        close(f->state);
    }
    gw_arena_release(&f->a);
}

static int lock(int fd, int how, struct gw_error *err)
{
    while (flock(fd, how) != 0) {
        if (errno != EINTR) {
            return fail_io(err, "lock");
        }
    }
    return GW_OK;
}

static void unlock(int fd)
{
    (void)flock(fd, LOCK_UN);
}

static void sum(const struct state *s, uint8_t out[8])
{
    uint8_t all[32];

    gw_sha256_once((const uint8_t *)s + sizeof(s->check), sizeof(*s) - sizeof(s->check), all);
    memcpy(out, all, 8);
}

static int read_state(const struct files *f, const struct repo_parts *o, struct state *s,
                      struct gw_error *err)
{
    uint8_t check[8];
    int rc = gw_pread_all(f->state, s, sizeof(*s), 0, err);

    if (rc != GW_OK) {
        return rc;
    }
    sum(s, check);
    if (memcmp(check, s->check, 8) != 0 || memcmp(s->magic, MAGIC, 8) != 0 || s->size != o->size ||
        s->chunk != o->chunk) {
        return gw_fail(err, GW_CORRUPT, 0, "the state of this upload is damaged: upload again");
    }
    return GW_OK;
}

static int write_state(const struct files *f, struct state *s, struct gw_error *err)
{
    sum(s, s->check);
    return gw_pwrite_all(f->state, s, sizeof(*s), 0, err);
}

/* Both files of an upload that begins; under the lock of its state, which is empty. A state that
 * could not be written is left empty. */
static int make_files(struct files *f, const struct repo_parts *o, struct gw_error *err)
{
    struct state s = {.size = o->size, .chunk = o->chunk};
    struct statvfs disk;
    int rc;

    if (statvfs(f->tmp, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize < o->size) {
        errno = ENOSPC;
        return fail_io(err, "room for all of it");
    }
    f->bytes = open(f->bytes_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->bytes < 0) {
        return fail_io(err, "create");
    }
    memcpy(s.magic, MAGIC, 8);
    gw_sha256_init(&s.sha);
    rc = write_state(f, &s, err);
    if (rc != GW_OK && ftruncate(f->state, 0) != 0) {
        unlink(f->state_path);
    }
    return rc;
}

/* GW_OK: open, the state locked exclusively; GW_CONFLICT: swept between open and lock */
static int open_once(struct files *f, const struct repo_parts *o, bool make, struct gw_error *err)
{
    struct stat st;
    int rc;

    f->state = open(f->state_path, O_RDWR | (make ? O_CREAT : 0) | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->state < 0 && errno == ENOENT && !make) {
        return gw_fail(err, GW_NOT_FOUND, REPO_NO_OBJECT,
                       "nothing of this upload is here: begin it again");
    }
    if (f->state < 0) {
        return fail_io(err, "open");
    }
    rc = lock(f->state, LOCK_EX, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (fstat(f->state, &st) != 0) {
        return fail_io(err, "look at it");
    }
    if (st.st_nlink == 0) {
        close(f->state);
        f->state = -1;
        return gw_fail(err, GW_CONFLICT, 0, "the upload was ended by somebody else");
    }
    if (st.st_size == 0 && make) {
        return make_files(f, o, err);
    }
    f->bytes = open(f->bytes_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return f->bytes >= 0 ? GW_OK : fail_io(err, "open its bytes");
}

static int open_files(struct files *f, const struct repo_parts *o, bool make, struct gw_error *err)
{
    int rc = begin_files(f, o, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (make) {
        rc = gw_dir_make(f->tmp, 0750, err);
        if (rc != GW_OK) {
            return rc;
        }
        repo_tmp_sweep(f->tmp);
    }
    rc = GW_CONFLICT;
    for (unsigned i = 0; i < TRIES && rc == GW_CONFLICT; i++) {
        rc = open_once(f, o, make, err);
    }
    return rc;
}

static void remove_files(const struct files *f)
{
    unlink(f->bytes_path);
    unlink(f->state_path); /* last: the sweep goes by it */
}

void repo_parts_sweep(const char *tmp, struct gw_str name)
{
    struct gw_arena a;
    struct stat st, bytes;
    struct files f = {.bytes = -1, .state = -1};
    struct gw_str upload = gw_str_sub(name, 0, name.n - (sizeof(REPO_PARTS_STATE) - 1));
    time_t before = time(NULL) - REPO_PARTS_IDLE_S;

    gw_arena_init(&a, 64u << 10);
    f.state_path = gw_arena_printf(&a, "%s/" GW_STR_FMT, tmp, GW_STR_ARG(name)).p;
    f.bytes_path = gw_arena_printf(&a, "%s/" GW_STR_FMT, tmp, GW_STR_ARG(upload)).p;
    if (f.state_path != NULL && f.bytes_path != NULL && stat(f.state_path, &st) == 0 &&
        st.st_mtime < before && (stat(f.bytes_path, &bytes) != 0 || bytes.st_mtime < before)) {
        f.bytes = open(f.bytes_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        f.state = open(f.state_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        /* who hashes the rest of a large one writes nothing for a while */
        if (f.state >= 0 && flock(f.state, LOCK_EX | LOCK_NB) == 0 &&
            (f.bytes < 0 || flock(f.bytes, LOCK_EX | LOCK_NB) == 0)) {
            remove_files(&f);
        }
    }
    if (f.bytes >= 0) {
        close(f.bytes);
    }
    if (f.state >= 0) {
        close(f.state);
    }
    gw_arena_release(&a);
}

/* ---- the hash ---- */

static int hash_part(const struct files *f, struct gw_sha256 *sha, uint64_t n, struct gw_error *err)
{
    char *buffer = gw_alloc(MIB);
    int rc = buffer != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory to hash a part");

    while (rc == GW_OK && n > 0) {
        size_t piece = n < MIB ? (size_t)n : (size_t)MIB;

        rc = gw_pread_all(f->bytes, buffer, piece, sha->bytes, err);
        if (rc == GW_OK) {
            gw_sha256_update(sha, buffer, piece);
            n -= piece;
        }
    }
    gw_free(buffer);
    return rc;
}

/* The next part in order, if it is whole. Under the lock of the bytes. @return GW_OK: *s is the
 * new state; GW_AGAIN: there is none; a failure */
static int hash_next(const struct files *f, const struct repo_parts *o, struct state *s,
                     struct gw_error *err)
{
    struct gw_sha256 sha;
    uint64_t part, start;
    uint32_t opened;
    int rc = lock(f->state, LOCK_SH, err);

    if (rc == GW_OK) {
        rc = read_state(f, o, s, err);
        unlock(f->state);
    }
    if (rc != GW_OK) {
        return rc;
    }
    sha = s->sha;
    start = sha.bytes;
    part = start / o->chunk;
    if (start >= o->size || !s->part[part].whole) {
        return GW_AGAIN;
    }
    opened = s->part[part].opened;
    rc = hash_part(f, &sha, length_of(o, part), err);
    if (rc != GW_OK || (rc = lock(f->state, LOCK_EX, err)) != GW_OK) {
        return rc;
    }
    rc = read_state(f, o, s, err);
    if (rc == GW_OK &&
        (s->sha.bytes != start || !s->part[part].whole || s->part[part].opened != opened)) {
        rc = GW_AGAIN; /* a part of it is being sent again */
    }
    if (rc == GW_OK) {
        s->sha = sha;
        rc = write_state(f, s, err);
    }
    unlock(f->state);
    return rc;
}

/* ---- one part ---- */

/* Is it ours, and still to be written? Under a lock of the state. */
static int check_ours(const struct repo_part *p, struct state *s, struct gw_error *err)
{
    int rc = read_state(&p->f, &p->o, s, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (s->closed) {
        return gw_fail(err, GW_CONFLICT, 0, "this upload is complete: nothing more is taken");
    }
    if (s->part[p->part].opened != p->opened) {
        return gw_fail(err, GW_CONFLICT, 0, "part %llu is being sent again by another connection",
                       (unsigned long long)p->part + 1);
    }
    return GW_OK;
}

static int take_part(struct repo_part *p, struct gw_error *err)
{
    struct state s;
    int rc = open_files(&p->f, &p->o, true, err);

    if (rc != GW_OK || (rc = read_state(&p->f, &p->o, &s, err)) != GW_OK) {
        return rc;
    }
    p->opened = s.part[p->part].opened + 1;
    s.part[p->part].opened = p->opened;
    s.part[p->part].whole = 0;
    if (s.sha.bytes > p->part * p->o.chunk) {
        gw_sha256_init(&s.sha);
    }
    if (s.closed) {
        return gw_fail(err, GW_CONFLICT, 0, "this upload is complete: nothing more is taken");
    }
    rc = write_state(&p->f, &s, err);
    unlock(p->f.state);
    return rc;
}

int repo_part_open(struct repo_part **out, const struct repo_parts *o, uint64_t part,
                   struct gw_error *err)
{
    struct repo_part *p;
    int rc;

    if (part == 0 || part > repo_parts_count(o->size, o->chunk)) {
        return gw_fail(err, GW_INVALID, 0, "no such part");
    }
    p = gw_alloc(sizeof(*p));
    if (p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for an upload in parts");
    }
    p->o = *o;
    p->part = part - 1;
    rc = take_part(p, err);
    if (rc != GW_OK) {
        repo_part_close(p);
        return rc;
    }
    *out = p;
    return GW_OK;
}

int repo_part_write(struct repo_part *p, struct gw_str bytes, struct gw_error *err)
{
    struct state s;
    int rc;

    if (bytes.n > length_of(&p->o, p->part) - p->written) {
        return gw_fail(err, GW_TOO_LARGE, 0, "part %llu has more bytes than it may have",
                       (unsigned long long)p->part + 1);
    }
    rc = lock(p->f.state, LOCK_SH, err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = check_ours(p, &s, err);
    if (rc == GW_OK) {
        rc = gw_pwrite_all(p->f.bytes, bytes.p, bytes.n, p->part * p->o.chunk + p->written, err);
    }
    unlock(p->f.state);
    p->written += rc == GW_OK ? bytes.n : 0;
    return rc;
}

static int mark_whole(struct repo_part *p, struct gw_error *err)
{
    struct state s;
    int rc = lock(p->f.state, LOCK_EX, err);

    if (rc != GW_OK) {
        return rc;
    }
    rc = check_ours(p, &s, err);
    if (rc == GW_OK) {
        s.part[p->part].whole = 1;
        rc = write_state(&p->f, &s, err);
    }
    unlock(p->f.state);
    return rc;
}

int repo_part_finish(struct repo_part *p, struct gw_error *err)
{
    uint64_t length = length_of(&p->o, p->part);
    struct state s;
    int rc;

    if (p->written != length) {
        return gw_fail(err, GW_CORRUPT, 0, "part %llu has %llu bytes, not %llu",
                       (unsigned long long)p->part + 1, (unsigned long long)p->written,
                       (unsigned long long)length);
    }
    if (fdatasync(p->f.bytes) != 0) {
        return fail_io(err, "sync");
    }
    rc = mark_whole(p, err);
    if (rc != GW_OK || flock(p->f.bytes, LOCK_EX | LOCK_NB) != 0) {
        return rc; /* who is at the hash goes on with this part, or the next end of a part does */
    }
    for (unsigned i = 0; i < HASHED_AT_ONCE && rc == GW_OK; i++) {
        rc = hash_next(&p->f, &p->o, &s, NULL);
    }
    unlock(p->f.bytes);
    return GW_OK; /* the part is here; what is wrong with the rest shows at the end */
}

void repo_part_close(struct repo_part *p)
{
    if (p == NULL) {
        return;
    }
    end_files(&p->f);
    gw_free(p);
}

/* ---- all of them ---- */

/* From here on nothing is written to the bytes. */
static int close_upload(const struct files *f, const struct repo_parts *o, struct gw_error *err)
{
    struct state s;
    int rc = read_state(f, o, &s, err);

    for (uint64_t i = 0; rc == GW_OK && i < repo_parts_count(o->size, o->chunk); i++) {
        if (!s.part[i].whole) {
            rc = gw_fail(err, GW_INVALID, 0, "part %llu has not been sent",
                         (unsigned long long)i + 1);
        }
    }
    if (rc == GW_OK && !s.closed) {
        s.closed = 1;
        rc = write_state(f, &s, err);
    }
    return rc;
}

static int hash_rest(const struct files *f, const struct repo_parts *o, struct state *s,
                     int64_t until_ms, struct gw_error *err)
{
    int rc;

    while ((rc = hash_next(f, o, s, err)) == GW_OK) {
        if (gw_mono_ms() >= until_ms) {
            return gw_fail(err, GW_TIMEOUT, 0, "the object is still being hashed: ask again");
        }
    }
    if (rc == GW_AGAIN && s->sha.bytes != o->size) {
        rc = gw_fail(err, GW_CORRUPT, 0, "the state of this upload is damaged: upload again");
    }
    return rc == GW_AGAIN ? GW_OK : rc;
}

static int check_bytes(const struct files *f, const struct repo_parts *o, const struct state *s,
                       struct gw_str sha256, struct gw_error *err)
{
    uint8_t digest[32];
    char hex[65];
    struct stat st;

    gw_sha256_final(&s->sha, digest);
    gw_hex_encode(hex, digest, sizeof(digest));
    if (fstat(f->bytes, &st) != 0) {
        return fail_io(err, "look at its bytes");
    }
    if ((uint64_t)st.st_size != o->size || !gw_str_eq_c(sha256, hex)) {
        return gw_fail(err, GW_CORRUPT, 0, "the bytes have the sha256 %.12s..., not %.12s...", hex,
                       sha256.p);
    }
    return GW_OK;
}

static int complete(struct files *f, const struct repo_parts *o, const struct repo_id *id,
                    struct gw_str sha256, int64_t until_ms, struct gw_error *err)
{
    struct state s;
    int rc = close_upload(f, o, err);

    unlock(f->state);
    if (rc != GW_OK) {
        return rc;
    }
    if (flock(f->bytes, LOCK_EX | LOCK_NB) != 0) {
        return gw_fail(err, GW_TIMEOUT, 0, "the object is being hashed: ask again");
    }
    rc = hash_rest(f, o, &s, until_ms, err);
    if (rc == GW_OK) {
        rc = check_bytes(f, o, &s, sha256, err);
    }
    if (rc == GW_OK && (fchmod(f->bytes, OBJECT_MODE) != 0 || fdatasync(f->bytes) != 0)) {
        rc = fail_io(err, "sync");
    }
    if (rc == GW_OK) {
        rc = repo_object_take(o->data_dir, id, sha256, f->bytes_path, err);
    }
    if (rc == GW_OK || rc == GW_CORRUPT) {
        remove_files(f);
    }
    return rc;
}

int repo_parts_complete(const struct repo_parts *o, const struct repo_id *id, struct gw_str sha256,
                        int64_t until_ms, struct gw_error *err)
{
    struct files f;
    uint64_t held;
    int rc;

    if (repo_object_held(o->data_dir, id, sha256, &held, NULL) == GW_OK && held == o->size) {
        rc = begin_files(&f, o, err);
        if (rc == GW_OK) {
            remove_files(&f); /* of one that was killed after its object was durable */
        }
        end_files(&f);
        return rc;
    }
    rc = open_files(&f, o, false, err);
    if (rc == GW_OK) {
        rc = complete(&f, o, id, sha256, until_ms, err);
    }
    end_files(&f);
    return rc;
}
