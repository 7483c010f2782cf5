/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/data.c - the folder data/: its version, temporary folders and who owns them, locks, the list
 * of repositories, paths of objects.
 */
#include "repo/repo_internal.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DATA_VERSION 1u
#define DATA_FILE_MAX 64u
#define TEMP_PREFIX "repo-"
#define LOCK_SUFFIX ".lock"
#define LOCK_POLL_MS 20
#define LOCK_OBJECTS_MS 30000 /* it is held for milliseconds */
#define LISTED_MAX 2000000u   /* folders of one namespace, namespaces of one type */

/* ---- version ---- */

static int check_version(const char *data_dir, struct gw_str text, struct gw_error *err)
{
    uint64_t v;

    if (gw_str_ends(text, GW_STR("\n"))) {
        text.n--;
    }
    if (!gw_str_u64(text, &v) || v == 0) {
        return gw_fail(err, GW_INVALID, 0,
                       "%s/VERSION is not the number of a data format: is this "
                       "hubgate's data folder?",
                       data_dir);
    }
    if (v > DATA_VERSION) {
        return gw_fail(
            err, GW_INVALID, 0,
            "%s is in data format %llu, this program knows up to %u: use a newer hubgate", data_dir,
            (unsigned long long)v, DATA_VERSION);
    }
    return GW_OK;
}

static int open_version(const char *data_dir, struct gw_arena *a, struct gw_error *err)
{
    struct gw_str path = gw_arena_printf(a, "%s/VERSION", data_dir), text;
    char line[16];
    int rc;

    if (path.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s/VERSION: no memory for a path", data_dir);
    }
    rc = gw_file_read(path.p, DATA_FILE_MAX, a, &text, err);
    if (rc == GW_NOT_FOUND) {
        rc = gw_dir_make(data_dir, 0750, err);
        if (rc != GW_OK) {
            return rc;
        }
        snprintf(line, sizeof(line), "%u\n", DATA_VERSION);
        rc = gw_file_create(data_dir, "VERSION", gw_str_c(line), 0640, err);
        if (rc != GW_CONFLICT) {
            return rc;
        }
        rc = gw_file_read(path.p, DATA_FILE_MAX, a, &text, err); /* somebody was faster */
    }
    if (rc == GW_TOO_LARGE) {
        return check_version(data_dir, GW_STR(""), err);
    }
    return rc != GW_OK ? rc : check_version(data_dir, text, err);
}

int repo_data_open(const char *data_dir, struct gw_error *err)
{
    struct gw_arena a;
    int rc;

    gw_arena_init(&a, 64u << 10);
    rc = open_version(data_dir, &a, err);
    gw_arena_release(&a);
    return rc;
}

/* ---- locks ---- */

static int fail_io(struct gw_error *err, const char *verb, const char *path)
{
    int saved = errno;

    return gw_fail(err, GW_IO, saved, "%s %s: %s", verb, path, strerrordesc_np(saved));
}

/* A file and flock, not a lock file: the kernel lets go of it when its owner dies. A file and not
 * the folder: over NFS an exclusive flock needs a descriptor that may write. */
static int lock_file(int *fd, const char *path, int how, int64_t wait_ms, struct gw_error *err)
{
    int64_t deadline = gw_mono_ms() + wait_ms;
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    struct stat ours, there;

    if (lock < 0) {
        return fail_io(err, "open", path);
    }
    while (flock(lock, how | LOCK_NB) != 0) {
        struct timespec pause = {.tv_nsec = LOCK_POLL_MS * 1000000L};

        if (errno != EWOULDBLOCK && errno != EINTR) {
            int rc = fail_io(err, "lock", path);

            close(lock);
            return rc;
        }
        if (gw_mono_ms() >= deadline) {
            close(lock);
            return gw_fail(err, GW_CONFLICT, 0, "another write is in progress (%s is locked)",
                           path);
        }
        nanosleep(&pause, NULL);
    }
    /* a repository that was moved or deleted while we waited has its lock elsewhere */
    if (fstat(lock, &ours) != 0 || stat(path, &there) != 0 || ours.st_ino != there.st_ino ||
        ours.st_dev != there.st_dev) {
        close(lock);
        return gw_fail(err, GW_CONFLICT, 0, "%s went away while it was waited for", path);
    }
    *fd = lock;
    return GW_OK;
}

int repo_lock(int *fd, const char *path, int64_t wait_ms, struct gw_error *err)
{
    return lock_file(fd, path, LOCK_EX, wait_ms, err);
}

int repo_objects_lock(int *fd, const char *data_dir, bool alone, struct gw_error *err)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/.lfs.lock", data_dir);

    if (n < 0 || (size_t)n >= sizeof(path)) {
        return gw_fail(err, GW_IO, ENAMETOOLONG, "the path of the data folder is too long");
    }
    return lock_file(fd, path, alone ? LOCK_EX : LOCK_SH, LOCK_OBJECTS_MS, err);
}

void repo_unlock(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/* ---- temporary folders ----
 *
 * data/tmp/repo-X.lock is made and locked first, then data/tmp/repo-X/. Whoever can take the lock
 * of another one knows that its owner is dead. A sweeper that comes between an owner's open and its
 * flock removes the file; the owner sees that its file has no name any more and takes another.
 */

static void sweep_one(const char *tmp, struct gw_str lock_name)
{
    struct gw_arena a;
    const char *lock, *dir;
    int fd;

    gw_arena_init(&a, 64u << 10);
    lock = gw_arena_printf(&a, "%s/" GW_STR_FMT, tmp, GW_STR_ARG(lock_name)).p;
    lock_name.n -= sizeof(LOCK_SUFFIX) - 1;
    dir = gw_arena_printf(&a, "%s/" GW_STR_FMT, tmp, GW_STR_ARG(lock_name)).p;
    fd = lock != NULL && dir != NULL ? open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd >= 0) {
        /* what cannot be removed is somebody else's, and tried again at the next import */
        if (flock(fd, LOCK_EX | LOCK_NB) == 0 && gw_dir_remove(dir, NULL) == GW_OK) {
            unlink(lock);
        }
        close(fd);
    }
    gw_arena_release(&a);
}

void repo_tmp_sweep(const char *tmp)
{
    DIR *d = opendir(tmp);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) {
        struct gw_str name = gw_str_c(e->d_name);

        if (gw_str_starts(name, GW_STR(TEMP_PREFIX)) && gw_str_ends(name, GW_STR(LOCK_SUFFIX))) {
            sweep_one(tmp, name);
        } else if (gw_str_starts(name, GW_STR(REPO_PARTS_PREFIX)) &&
                   gw_str_ends(name, GW_STR(REPO_PARTS_STATE))) {
            repo_parts_sweep(tmp, name);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
}

/* GW_CONFLICT: swept between open and flock */
static int own(struct repo_work *w, struct gw_error *err)
{
    struct stat st;

    w->lock_fd = open(w->lock_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->lock_fd < 0) {
        return fail_io(err, "create", w->lock_path);
    }
    if (flock(w->lock_fd, LOCK_EX) != 0 || fstat(w->lock_fd, &st) != 0) {
        return fail_io(err, "lock", w->lock_path);
    }
    if (st.st_nlink == 0) {
        close(w->lock_fd);
        w->lock_fd = -1;
        return gw_fail(err, GW_CONFLICT, 0, "%s was swept", w->lock_path);
    }
    if (mkdir(w->dir, 0750) != 0) {
        return fail_io(err, "make folder", w->dir);
    }
    return GW_OK;
}

static int begin(struct repo_work *w, const char *data_dir, struct gw_error *err)
{
    const char *tmp = gw_arena_printf(&w->a, "%s/tmp", data_dir).p;
    unsigned char random[12];
    char hex[2 * sizeof(random) + 1];
    int rc;

    if (tmp == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    rc = gw_dir_make(tmp, 0750, err);
    if (rc != GW_OK) {
        return rc;
    }
    repo_tmp_sweep(tmp);
    do {
        if (!gw_random(random, sizeof(random))) {
            return gw_fail(err, GW_IO, EIO, "the system gives no randomness");
        }
        gw_hex_encode(hex, random, sizeof(random));
        w->dir = gw_arena_printf(&w->a, "%s/" TEMP_PREFIX "%s", tmp, hex).p;
        w->lock_path = gw_arena_printf(&w->a, "%s/" TEMP_PREFIX "%s" LOCK_SUFFIX, tmp, hex).p;
        if (w->dir == NULL || w->lock_path == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
        }
        rc = own(w, err);
    } while (rc == GW_CONFLICT);
    return rc;
}

int repo_work_begin(struct repo_work *w, const char *data_dir, struct gw_error *err)
{
    *w = (struct repo_work){.lock_fd = -1};
    gw_arena_init(&w->a, 256u << 10);
    return begin(w, data_dir, err);
}

void repo_work_end(struct repo_work *w)
{
    if (w->lock_fd >= 0) {
        /* a failure leaves garbage that the next sweep finds by its lock */
        if (gw_dir_remove(w->dir, NULL) == GW_OK) {
            unlink(w->lock_path);
        }
        close(w->lock_fd);
    }
    gw_arena_release(&w->a);
    *w = (struct repo_work){.lock_fd = -1};
}

/* ---- objects ---- */

struct gw_str repo_object_path(const char *data_dir, struct gw_str sha256, struct gw_arena *a)
{
    if (!gw_is_hex_lower(sha256, 64)) {
        return (struct gw_str){NULL, 0};
    }
    return gw_arena_printf(a, "%s/lfs/%.2s/%.2s/%.64s", data_dir, sha256.p, sha256.p + 2, sha256.p);
}

/* ---- all repositories ---- */

struct walk {
    int (*on)(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name);
    void *ctx;
};

/* Names of a folder; none if it is absent, or is a file. */
static int list(const char *path, struct gw_arena *a, struct gw_str **names, size_t *n,
                struct gw_error *err)
{
    int rc;

    *n = 0;
    if (path == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    rc = gw_dir_list(path, LISTED_MAX, a, names, n, err);
    if (rc == GW_NOT_FOUND) {
        *n = 0;
        return GW_OK;
    }
    return rc;
}

static int each_repo(const struct walk *w, const char *data_dir, const char *type, struct gw_str ns,
                     struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str *names;
    size_t n;
    int rc;

    gw_arena_init(&a, 512u << 20);
    rc = list(gw_arena_printf(&a, "%s/repos/%s/" GW_STR_FMT, data_dir, type, GW_STR_ARG(ns)).p, &a,
              &names, &n, err);
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        struct gw_str name = names[i];

        if (!gw_str_ends(name, GW_STR(".git"))) {
            continue;
        }
        name.n -= 4;
        if (repo_name_valid(name)) {
            rc = w->on(w->ctx, gw_str_c(type), ns, name);
        }
    }
    gw_arena_release(&a);
    return rc;
}

static int each_ns(const struct walk *w, const char *data_dir, const char *type,
                   struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str *names;
    size_t n;
    int rc;

    gw_arena_init(&a, 512u << 20);
    rc = list(gw_arena_printf(&a, "%s/repos/%s", data_dir, type).p, &a, &names, &n, err);
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        if (repo_ns_valid(names[i])) {
            rc = each_repo(w, data_dir, type, names[i], err);
        }
    }
    gw_arena_release(&a);
    return rc;
}

int repo_each(const char *data_dir,
              int (*on)(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name),
              void *ctx, struct gw_error *err)
{
    struct walk w = {.on = on, .ctx = ctx};
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && repo_types[i] != NULL; i++) {
        rc = each_ns(&w, data_dir, repo_types[i], err);
    }
    return rc;
}
