/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/blob.c - whole blobs: blobs/aa/bb/<hex>, immutable, identified by content.
 *
 *   bytes --digest right--> tmp/<..> --link--> blobs/aa/bb/<hex>
 *
 * A small blob is not fsync'ed (a snapshot of 200 would wait for 200 disk flushes), so a power cut
 * may leave its name with other bytes. Its mode says so: 0600 is a blob that was never synced, 0440
 * one that was. The first open of an unsynced one that is older than this boot (a worker notes the
 * first sight of each boot id) has it hashed again, by a job; right: its mtime becomes now, wrong:
 * it is removed and counts as not held. kill -9 needs none of this, the page cache survives it.
 * Large blobs are always synced.
 */
#include "cache/budget_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNSYNCED_MODE 0600
#define SYNCED_MODE 0440
#define COPY_BYTES (256u << 10)

/* ---- names ---- */

bool cache_digest_valid(struct gw_str digest)
{
    return gw_is_hex_lower(digest, 40) || gw_is_hex_lower(digest, 64);
}

bool cache_blob_path(const struct cache *c, struct gw_str digest, char *out, size_t cap)
{
    int n = snprintf(out, cap, "%s/%.2s/%.2s/" GW_STR_FMT, c->blobs_dir, digest.p, digest.p + 2,
                     GW_STR_ARG(digest));

    return n > 0 && (size_t)n < cap;
}

bool cache_temp_path(struct cache *c, struct gw_str digest, char *out, size_t cap)
{
    int n = snprintf(out, cap, "%s/" GW_STR_FMT ".%d.%u.%u", c->tmp_dir, GW_STR_ARG(digest),
                     (int)getpid(), (unsigned)c->generation,
                     (unsigned)atomic_fetch_add(&c->temp_counter, 1));

    return n > 0 && (size_t)n < cap;
}

static int bad_digest(struct gw_error *err)
{
    return gw_fail(err, GW_INVALID, 0, "blob: a digest that is neither 40 nor 64 hex digits");
}

static int fail_io(struct gw_error *err, const char *what)
{
    int sys = errno;

    return gw_fail(err, GW_IO, sys, "blob: %s: %s", what, strerror(sys));
}

/* ---- proof ---- */

void cache_proof_init(struct cache_proof *p, struct gw_str digest, uint64_t size)
{
    p->sha256 = digest.n == 64;
    if (p->sha256) {
        gw_sha256_init(&p->long_one);
    } else {
        gw_git_sha1_init(&p->git, size);
    }
}

void cache_proof_update(struct cache_proof *p, const void *bytes, size_t n)
{
    if (p->sha256) {
        gw_sha256_update(&p->long_one, bytes, n);
    } else {
        gw_git_sha1_update(&p->git, bytes, n);
    }
}

bool cache_proof_right(struct cache_proof *p, struct gw_str digest)
{
    uint8_t sum[32];
    char hex[CACHE_DIGEST_MAX + 1];

    if (p->sha256) {
        gw_sha256_final(&p->long_one, sum);
    } else {
        gw_git_sha1_final(&p->git, sum);
    }
    gw_hex_encode(hex, sum, p->sha256 ? 32 : 20);
    return gw_str_eq_c(digest, hex);
}

static bool bytes_right(struct gw_str digest, struct gw_str bytes)
{
    struct cache_proof p;

    cache_proof_init(&p, digest, bytes.n);
    cache_proof_update(&p, bytes.p, bytes.n);
    return cache_proof_right(&p, digest);
}

/* Hashes exactly size bytes of an open file, and copies them to `to` unless it is -1.
 * @return GW_OK; GW_CORRUPT (digest or size differ); GW_IO; GW_NO_MEMORY */
static int file_right(int fd, int to, struct gw_str digest, uint64_t size, struct gw_error *err)
{
    char *block = gw_alloc(COPY_BYTES);
    struct cache_proof p;
    uint64_t at = 0;
    int rc = GW_OK;

    if (block == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "blob: no memory");
    }
    cache_proof_init(&p, digest, size);
    for (;;) {
        ssize_t n = pread(fd, block, COPY_BYTES, (off_t)at);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            rc = fail_io(err, "read");
            break;
        }
        at += (uint64_t)n;
        if (n == 0 || at > size) {
            break;
        }
        cache_proof_update(&p, block, (size_t)n);
        rc = to >= 0 ? gw_write_all(to, block, (size_t)n, err) : GW_OK;
        if (rc != GW_OK) {
            break;
        }
    }
    if (rc == GW_OK && (at != size || !cache_proof_right(&p, digest))) {
        rc = gw_fail(err, GW_CORRUPT, 0, "blob %.12s: the bytes do not match the digest", digest.p);
    }
    gw_free(block);
    return rc;
}

/* ---- open ---- */

static bool unproven(const struct cache *c, const struct stat *st)
{
    int64_t ms = (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;

    if ((st->st_mode & S_IWUSR) == 0 || st->st_size > (off_t)CACHE_SMALL_MAX) {
        return false;
    }
    return ms < c->boot_seen_ms || ms > gw_wall_ms() + 1000 /* the clock was set back */;
}

/* After another boot. GW_OK: as good as new. */
static int prove_again(struct cache *c, struct gw_str digest, int fd, const struct stat *st,
                       const char *path)
{
    struct timespec now[2];
    struct gw_error err;
    int rc = file_right(fd, -1, digest, (uint64_t)st->st_size, &err);

    if (rc == GW_OK) {
        /* it need not be proved twice in one boot; the kernel's own "now" is some ms late */
        clock_gettime(CLOCK_REALTIME, &now[0]);
        now[1] = now[0];
        futimens(fd, now);
    } else if (rc == GW_CORRUPT) {
        atomic_fetch_add(&c->shared->counters.integrity_failures, 1);
        gw_log_write(&c->log, GW_LOG_WARN, "%s, after another boot: removed", err.text);
        unlink(path);
        cache_note_change(c, digest);
    }
    return rc;
}

/* prove: here and now, in a job; else GW_AGAIN. */
static int open_blob(struct cache *c, struct gw_str digest, bool prove, int *fd, uint64_t *size,
                     int64_t *modified_s, struct gw_error *err)
{
    char path[CACHE_PATH_MAX];
    struct stat st;
    int opened;

    if (!cache_digest_valid(digest) || !cache_blob_path(c, digest, path, sizeof(path))) {
        return gw_fail(err, GW_NOT_FOUND, 0, "blob: not a digest");
    }
    opened = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (opened < 0) {
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
                   ? gw_fail(err, GW_NOT_FOUND, errno, "blob %.12s: not held", digest.p)
                   : fail_io(err, "open");
    }
    if (fstat(opened, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(opened);
        return gw_fail(err, GW_NOT_FOUND, 0, "blob %.12s: not held", digest.p);
    }
    if (unproven(c, &st) && !prove) {
        close(opened);
        return gw_fail(err, GW_AGAIN, 0, "blob %.12s: of another boot", digest.p);
    }
    if (unproven(c, &st) && prove_again(c, digest, opened, &st, path) != GW_OK) {
        close(opened);
        return gw_fail(err, GW_NOT_FOUND, 0, "blob %.12s: not held", digest.p);
    }
    *fd = opened;
    *size = (uint64_t)st.st_size;
    *modified_s = (int64_t)st.st_mtim.tv_sec;
    cache_note_use(c, digest);
    return GW_OK;
}

int cache_blob_open(struct cache *c, struct gw_str digest, int *fd, uint64_t *size,
                    int64_t *modified_s, struct gw_error *err)
{
    return open_blob(c, digest, false, fd, size, modified_s, err);
}

int cache_blob_open_proved(struct cache *c, struct gw_str digest, int *fd, uint64_t *size,
                           struct gw_error *err)
{
    int64_t modified_s;

    return open_blob(c, digest, true, fd, size, &modified_s, err);
}

int cache_blob_prove(struct cache *c, struct gw_str digest, struct gw_error *err)
{
    uint64_t size;
    int fd, rc = cache_blob_open_proved(c, digest, &fd, &size, err);

    if (rc == GW_OK) {
        close(fd);
    }
    return rc;
}

static bool held(struct cache *c, struct gw_str digest)
{
    return cache_blob_prove(c, digest, NULL) == GW_OK;
}

void cache_blob_drop(struct cache *c, struct gw_str digest)
{
    char path[CACHE_PATH_MAX];

    if (cache_digest_valid(digest) && cache_blob_path(c, digest, path, sizeof(path)) &&
        unlink(path) == 0) {
        atomic_fetch_add(&c->shared->counters.integrity_failures, 1);
        cache_note_change(c, digest);
        gw_log_write(&c->log, GW_LOG_WARN, "blob %.12s: not what it was; removed", digest.p);
    }
}

/* ---- into blobs/ ---- */

enum folder { FOLDER_ROOT, FOLDER_AA, FOLDER_BB, FOLDER_COUNT };

static void folder_path(const struct cache *c, struct gw_str digest, enum folder level, char *out,
                        size_t cap)
{
    static const int digits[FOLDER_COUNT] = {0, 2, 2};

    snprintf(out, cap, level == FOLDER_BB ? "%s/%.*s/%.2s" : "%s/%.*s", c->blobs_dir, digits[level],
             digest.p, digest.p + 2);
}

/* Without fsync: who wants it durable syncs all three. blobs/ as well, it may have been removed. */
static int make_folders(struct cache *c, struct gw_str digest, struct gw_error *err)
{
    char path[CACHE_PATH_MAX];

    for (enum folder level = FOLDER_ROOT; level < FOLDER_COUNT; level++) {
        folder_path(c, digest, level, path, sizeof(path));
        if (mkdir(path, 0750) != 0 && errno != EEXIST) {
            return fail_io(err, "mkdir");
        }
    }
    return GW_OK;
}

/* errno in *sys on failure. */
static int link_in(struct cache *c, struct gw_str digest, const char *from, int *sys,
                   struct gw_error *err)
{
    char path[CACHE_PATH_MAX];
    int rc;

    if (!cache_blob_path(c, digest, path, sizeof(path))) {
        *sys = ENAMETOOLONG;
        return gw_fail(err, GW_IO, ENAMETOOLONG, "blob: the path is too long");
    }
    for (int i = 0; i < 2; i++) {
        if (link(from, path) == 0) {
            return GW_OK;
        }
        *sys = errno;
        if (*sys == EEXIST) {
            /* somebody was first, or something is there that is no blob */
            return held(c, digest) || rename(from, path) == 0 ? GW_OK : fail_io(err, "rename");
        }
        if (*sys != ENOENT) {
            break;
        }
        rc = make_folders(c, digest, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    return gw_fail(err, GW_IO, *sys, "blob %.12s: link: %s", digest.p, strerror(*sys));
}

int cache_blob_publish(struct cache *c, struct gw_str digest, const char *path,
                       struct gw_error *err)
{
    char folder[CACHE_PATH_MAX];
    struct stat st;
    int sys, rc;

    if (!cache_digest_valid(digest)) {
        return bad_digest(err);
    }
    if (chmod(path, SYNCED_MODE) != 0 && (stat(path, &st) != 0 || (st.st_mode & S_IWUSR) != 0)) {
        return fail_io(err, "chmod"); /* else: an object of data/ with another owner */
    }
    rc = link_in(c, digest, path, &sys, err);
    /* all three: a small blob may have made the folders and left them unsynced */
    for (int level = FOLDER_BB; rc == GW_OK && level >= FOLDER_ROOT; level--) {
        folder_path(c, digest, (enum folder)level, folder, sizeof(folder));
        rc = gw_dir_sync(folder, err);
    }
    return rc;
}

/* A new file in tmp/, open for writing; -1: err is filled. */
static int open_temp(struct cache *c, struct gw_str digest, char *path, size_t cap,
                     struct gw_error *err)
{
    int fd;

    if (!cache_temp_path(c, digest, path, cap)) {
        gw_fail(err, GW_IO, ENAMETOOLONG, "blob: the path is too long");
        return -1;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, UNSYNCED_MODE);
    if (fd < 0 && errno == ENOENT && mkdir(c->tmp_dir, 0700) == 0) {
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, UNSYNCED_MODE);
    }
    if (fd < 0 && errno == EEXIST && unlink(path) == 0) { /* of a process of our pid, long gone */
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, UNSYNCED_MODE);
    }
    if (fd < 0) {
        fail_io(err, "temporary file");
    }
    return fd;
}

/* Ends a temp file: closes it, links it in when it is good, and removes its name in any case. */
static int finish_temp(struct cache *c, struct gw_str digest, const char *path, int fd,
                       uint64_t size, int rc, struct gw_error *err)
{
    int sys;

    if (rc == GW_OK && size > CACHE_SMALL_MAX && fdatasync(fd) != 0) {
        rc = fail_io(err, "fdatasync");
    }
    if (close(fd) != 0 && rc == GW_OK) {
        rc = fail_io(err, "close");
    }
    if (rc == GW_OK) {
        rc = size > CACHE_SMALL_MAX ? cache_blob_publish(c, digest, path, err)
                                    : link_in(c, digest, path, &sys, err);
    }
    unlink(path);
    if (rc == GW_OK) {
        cache_note_change(c, digest);
    }
    return rc;
}

static int write_blob(struct cache *c, struct gw_str digest, struct gw_str bytes,
                      struct gw_error *err)
{
    char path[CACHE_PATH_MAX];
    int fd = open_temp(c, digest, path, sizeof(path), err);

    if (fd < 0) {
        return GW_IO;
    }
    return finish_temp(c, digest, path, fd, bytes.n, gw_write_all(fd, bytes.p, bytes.n, err), err);
}

int cache_blob_put(struct cache *c, struct gw_str digest, struct gw_str bytes, struct gw_error *err)
{
    if (!cache_digest_valid(digest)) {
        return bad_digest(err);
    }
    if (!bytes_right(digest, bytes)) {
        return gw_fail(err, GW_CORRUPT, 0, "blob %.12s: the bytes do not match the digest",
                       digest.p);
    }
    return held(c, digest) ? GW_OK : write_blob(c, digest, bytes, err);
}

int cache_blob_copy(struct cache *c, struct gw_str digest, uint64_t size, int from,
                    struct gw_error *err)
{
    char path[CACHE_PATH_MAX];
    int fd = open_temp(c, digest, path, sizeof(path), err);

    if (fd < 0) {
        return GW_IO;
    }
    return finish_temp(c, digest, path, fd, size, file_right(from, fd, digest, size, err), err);
}

int cache_blob_take(struct cache *c, struct gw_str digest, uint64_t size, const char *path,
                    struct gw_error *err)
{
    struct stat st;
    int fd, sys = 0, rc;

    if (!cache_digest_valid(digest)) {
        return bad_digest(err);
    }
    if (held(c, digest)) {
        return GW_OK;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return fail_io(err, "open");
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size) {
        rc = gw_fail(err, GW_CORRUPT, 0, "blob %.12s: not a file of %llu bytes", digest.p,
                     (unsigned long long)size);
    } else {
        rc = file_right(fd, -1, digest, size, err);
        if (rc == GW_OK) {
            rc = link_in(c, digest, path, &sys, err);
        }
        if (rc == GW_OK) {
            cache_note_change(c, digest);
        }
        /* another file system, another owner, too many links, no links at all */
        if (rc == GW_IO && (sys == EXDEV || sys == EPERM || sys == EMLINK || sys == EOPNOTSUPP)) {
            rc = cache_blob_copy(c, digest, size, fd, err);
        }
    }
    close(fd);
    return rc;
}

/* ---- small ones from upstream ---- */

struct body {
    char *p;
    size_t n, size; /* held so far; promised */
};

static int on_bytes(void *ctx, struct gw_str bytes)
{
    struct body *b = ctx;

    if (bytes.n > b->size - b->n) {
        return GW_CORRUPT; /* longer than promised */
    }
    if (bytes.n != 0) {
        memcpy(b->p + b->n, bytes.p, bytes.n);
        b->n += bytes.n;
    }
    return GW_OK;
}

/* A refusal is one only from the Hub itself. Another host's 403 is a signature that ran out, and
 * an outage must not look like an absence. */
static int status_of(int http, bool own, struct gw_str digest, struct gw_error *err)
{
    if (http == 200) {
        return GW_OK;
    }
    if (own && (http == 404 || http == 410)) {
        return gw_fail(err, GW_NOT_FOUND, http, "blob %.12s: upstream says %d", digest.p, http);
    }
    if (own && (http == 401 || http == 403)) {
        return gw_fail(err, GW_FORBIDDEN, http, "blob %.12s: upstream says %d", digest.p, http);
    }
    return gw_fail(err, GW_UNAVAILABLE, http, "blob %.12s: %s says %d", digest.p,
                   own ? "upstream" : "the host it leads to", http);
}

static int fetch_once(struct cache *c, struct gw_str digest, struct body *b,
                      const struct cache_call *call, bool *cut, struct gw_error *err)
{
    struct cache_reply reply;
    struct gw_arena a;
    bool own;
    int rc;

    b->n = 0;
    gw_arena_init(&a, 1u << 20);
    rc = cache_upstream_call_from(c, call, on_bytes, b, &reply, &own, &a, err);
    *cut = rc == GW_UNAVAILABLE && b->n != 0;
    if (rc == GW_OK) {
        rc = status_of(reply.status, own, digest, err);
    }
    gw_arena_release(&a);
    if (rc == GW_CORRUPT ||
        (rc == GW_OK && (b->n != b->size || !bytes_right(digest, (struct gw_str){b->p, b->n})))) {
        atomic_fetch_add(&c->shared->counters.integrity_failures, 1);
        rc = gw_fail(err, GW_CORRUPT, 0, "blob %.12s: upstream sends other bytes than its digest",
                     digest.p);
    }
    return rc;
}

int cache_blob_fetch(struct cache *c, struct gw_str digest, uint64_t size, struct gw_str target,
                     int64_t deadline_ms, struct gw_error *err)
{
    struct cache_call call = {.method = "GET", .target = target, .deadline_ms = deadline_ms};
    struct body b = {.size = (size_t)size};
    bool cut = false;
    int rc = GW_OK;

    if (!cache_digest_valid(digest)) {
        return bad_digest(err);
    }
    if (size > CACHE_SMALL_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "blob %.12s: too large to be fetched whole", digest.p);
    }
    if (held(c, digest)) {
        return GW_OK;
    }
    b.p = gw_alloc(b.size);
    if (b.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "blob: no memory");
    }
    for (int i = 0; i < 2; i++) { /* once more after wrong bytes or a cut */
        rc = fetch_once(c, digest, &b, &call, &cut, err);
        if (rc != GW_CORRUPT && !cut) {
            break;
        }
    }
    if (rc == GW_OK) {
        rc = write_blob(c, digest, (struct gw_str){b.p, b.n}, err);
    }
    if (rc == GW_OK) {
        atomic_fetch_add(&c->shared->counters.fills, 1);
        atomic_fetch_add(&c->shared->counters.blob_bytes_filled, size);
    }
    gw_free(b.p);
    return rc;
}
