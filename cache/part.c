/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/part.c - the names in parts/: made, dropped, swept.
 *
 *   <digest>.part, <digest>.map   a fill; the map gets its name last and loses it first
 *   <digest>.map.new              a map that is being made
 *   <digest>.bad                  how often the digest did not match; the time is the file's
 *   .lock                         flock: whoever makes or removes names holds it
 */
#include "cache/fill_internal.h"

#include "cache/budget_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SPACE_SPARE (64u << 20) /* or a 50th of a small disk: for the index, maps, small blobs */
#define SCAN_MAX 8192u          /* names looked at by one scan */
#define SCAN_OWNED_MAX 16u      /* a scan takes no more orphans than that at a time */
#define SWEEP_S 3600            /* rubbish is left alone so long */
#define SWEEP_FAILED_S (3 * 24 * 3600)
#define LOCK_WAIT_MS 10000
#define LOCK_LOOK_US 2000

static void path_of(const struct fill_table *t, struct gw_str digest, const char *suffix,
                    char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/" GW_STR_FMT "%s", t->cache->parts_dir, GW_STR_ARG(digest),
             suffix);
}

int parts_lock(struct fill_table *t, bool wait)
{
    char path[PATH_MAX];
    int64_t until;
    int fd, rc;

    path_of(t, GW_STR(""), ".lock", path);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == ENOENT && gw_dir_make(t->cache->parts_dir, 0700, NULL) == GW_OK) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    if (fd < 0) {
        return -1;
    }
    /* By open file, so threads of one process exclude each other as well. Asked again and again and
     * not waited for: a process that was stopped with it would hold up all jobs of all others. */
    until = gw_mono_ms() + (wait ? LOCK_WAIT_MS : 0);
    while ((rc = flock(fd, LOCK_EX | LOCK_NB)) != 0 &&
           (errno == EINTR || (errno == EWOULDBLOCK && gw_mono_ms() < until))) {
        usleep(LOCK_LOOK_US);
    }
    if (rc != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

void parts_unlock(int lock)
{
    if (lock >= 0) {
        close(lock);
    }
}

/* ---- making ---- */

/* The map that stands beside a name in parts/. */
static int open_map(int dir, const char *part)
{
    char name[NAME_MAX + 1];

    snprintf(name, sizeof(name), "%.*s.map", (int)strcspn(part, "."), part);
    return openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* Is the whole of this part wanted? A sparse one promises nothing: most are never filled. */
static bool promised(int dir, const char *part)
{
    uint32_t all = 0;
    int fd = open_map(dir, part);

    if (fd < 0) {
        return false;
    }
    if (pread(fd, &all, sizeof(all), MAP_PAGE + (off_t)offsetof(struct map_live, all)) < 0) {
        all = 0;
    }
    close(fd);
    return all != 0;
}

/* Does somebody work on it? Its owner says so several times a second. */
static bool tended(int dir, const char *part)
{
    uint64_t words[2] = {0, 0}; /* owner, beat */
    int64_t silent;
    int fd = open_map(dir, part);

    _Static_assert(offsetof(struct map_live, beat) ==
                       offsetof(struct map_live, owner) + sizeof(uint64_t),
                   "one read for both");
    if (fd < 0) {
        return false;
    }
    if (pread(fd, words, sizeof(words), MAP_PAGE + (off_t)offsetof(struct map_live, owner)) < 0) {
        words[0] = 0;
    }
    close(fd);
    silent = gw_mono_ms() - (int64_t)words[1];
    return words[0] != 0 && silent > -1000 && silent < FILL_SILENT_MS;
}

void parts_measure(const struct cache *c, struct parts_sum *out)
{
    DIR *dir = opendir(c->parts_dir);
    const struct dirent *e;
    unsigned seen = 0;

    *out = (struct parts_sum){0};
    while (dir != NULL && seen++ < SCAN_MAX && (e = readdir(dir)) != NULL) {
        struct stat st;
        uint64_t size, there;
        bool passing; /* not for keeping: nothing is to be evicted for it */

        if (!gw_str_ends(gw_str_c(e->d_name), GW_STR(".part")) ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        if (st.st_nlink > 1) { /* an object of data/, or just becoming a blob: it takes no room */
            out->parts++;
            continue;
        }
        size = (uint64_t)st.st_size;
        there = (uint64_t)st.st_blocks * 512 < size ? (uint64_t)st.st_blocks * 512 : size;
        passing = c->options.max_bytes != 0 && size > c->options.max_bytes;
        out->parts++;
        out->bytes += passing ? 0 : there;
        if (there < size && promised(dirfd(dir), e->d_name)) {
            out->promised += size - there;
            out->coming += !passing && tended(dirfd(dir), e->d_name) ? size - there : 0;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

static int check_space(const struct fill_table *t, uint64_t size, struct gw_error *err)
{
    uint64_t have, spare, promised;
    struct parts_sum sum;
    struct statvfs fs;

    if (statvfs(t->cache->parts_dir, &fs) != 0) {
        return gw_fail(err, GW_IO, errno, "statvfs %s: %s", t->cache->parts_dir,
                       strerrordesc_np(errno));
    }
    have = (uint64_t)fs.f_bavail * fs.f_frsize;
    spare = (uint64_t)fs.f_blocks * fs.f_frsize / 50;
    spare = spare < SPACE_SPARE ? spare : SPACE_SPARE;
    parts_measure(t->cache, &sum);
    promised = sum.promised;
    if (have < spare || have - spare < promised || have - spare - promised < size) {
        return gw_fail(
            err, GW_IO, ENOSPC,
            "no room in the cache for a file of %llu MB (free %llu MB, promised %llu MB)",
            (unsigned long long)(size >> 20), (unsigned long long)(have >> 20),
            (unsigned long long)(promised >> 20));
    }
    return GW_OK;
}

/* All granules of a part that is an object of data/. */
static int mark_all(int fd, uint64_t size, struct gw_error *err)
{
    uint64_t end = map_file_bytes(size);
    uint8_t valid[4096];
    int rc = GW_OK;

    memset(valid, GRANULE_VALID, sizeof(valid));
    for (uint64_t at = MAP_GRANULES_AT; rc == GW_OK && at < end; at += sizeof(valid)) {
        rc = gw_pwrite_all(fd, valid, end - at < sizeof(valid) ? (size_t)(end - at) : sizeof(valid),
                           at, err);
    }
    return rc;
}

static int write_map(struct fill_table *t, struct gw_str digest, uint64_t size,
                     struct gw_str source, uint32_t flags, uint64_t ino, struct gw_error *err)
{
    char temp[PATH_MAX], path[PATH_MAX];
    uint8_t *image = gw_alloc(MAP_GRANULES_AT); /* zeroed; all granules are absent: 0 */
    uint64_t generation;
    int fd = -1, rc, sys;

    path_of(t, digest, ".map.new", temp);
    path_of(t, digest, ".map", path);
    if (image == NULL || !gw_random(&generation, sizeof(generation))) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for a map");
        goto done;
    }
    map_format(image, digest, size, source, flags, ino, generation, t->boot);
    (void)unlink(temp);
    fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        rc = gw_fail(err, GW_IO, errno, "map: %s", strerrordesc_np(errno));
        goto done;
    }
    sys =
        posix_fallocate(fd, 0, (off_t)map_file_bytes(size)); /* a hole in a full disk is a SIGBUS */
    if (sys != 0) {
        rc = gw_fail(err, GW_IO, sys, "map: %s", strerrordesc_np(sys));
        goto done;
    }
    rc = gw_pwrite_all(fd, image, MAP_GRANULES_AT, 0, err);
    if (rc == GW_OK && (flags & MAP_LINKED) != 0) {
        rc = mark_all(fd, size, err);
    }
    if (rc == GW_OK && link(temp, path) != 0) {
        rc = gw_fail(err, errno == EEXIST ? GW_CONFLICT : GW_IO, errno, "map: %s",
                     strerrordesc_np(errno));
    }
done:
    if (fd >= 0) {
        close(fd);
        (void)unlink(temp);
    }
    gw_free(image);
    return rc;
}

static bool larger_than_budget(const struct fill_table *t, uint64_t size)
{
    return t->cache->options.max_bytes != 0 && size > t->cache->options.max_bytes;
}

static int make_sparse(const char *path, uint64_t size, struct gw_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), rc = GW_OK;

    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        rc = gw_fail(err, GW_IO, errno, "part: %s", strerrordesc_np(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

int part_make(struct fill_table *t, struct gw_str digest, uint64_t size, struct gw_str source,
              uint32_t flags, struct gw_error *err)
{
    char path[PATH_MAX];
    struct stat st;
    int rc;

    path_of(t, digest, ".map", path);
    if (lstat(path, &st) == 0) {
        return gw_fail(err, GW_CONFLICT, 0, "a part is there");
    }
    part_remove(t, digest); /* a part without a map is nothing */
    path_of(t, digest, ".part", path);
    if ((flags & MAP_LINKED) != 0 && !local_link(source, size, path)) {
        flags &= ~MAP_LINKED;
    }
    if ((flags & MAP_LINKED) == 0) {
        flags |= larger_than_budget(t, size) ? MAP_PASSING : 0;
        rc = check_space(t, size, err);
        if (rc == GW_OK) {
            rc = make_sparse(path, size, err);
        }
        if (rc != GW_OK) {
            return rc;
        }
    }
    rc = lstat(path, &st) != 0
             ? gw_fail(err, GW_IO, errno, "part: %s", strerrordesc_np(errno))
             : write_map(t, digest, size, source, flags, (uint64_t)st.st_ino, err);
    if (rc != GW_OK) {
        (void)unlink(path);
    } else {
        atomic_fetch_add(&t->cache->shared->counters.fills, 1);
    }
    return rc;
}

static bool blob_exists(const struct cache *c, struct gw_str digest)
{
    char path[CACHE_PATH_MAX];

    return cache_blob_path(c, digest, path, sizeof(path)) && access(path, F_OK) == 0;
}

/* Under the lock. A map that is not to be trusted goes, with its part. @return GW_OK: a good one is
 * there; GW_NOT_FOUND */
static int settle_names(struct fill_table *t, struct gw_str digest, uint64_t *size,
                        struct gw_error *err)
{
    struct gw_error why = {0};
    struct map m;
    int rc = map_attach(&m, t->cache->parts_dir, digest, t->boot, &why);

    switch (rc) {
    case GW_OK:
        *size = m.head->size;
        map_detach(&m);
        return GW_OK;
    case GW_CORRUPT:
        atomic_fetch_add(&t->cache->shared->counters.maps_dropped, 1);
        gw_log_write(&t->cache->log, GW_LOG_WARN, "cache: part of " GW_STR_FMT " dropped: %s",
                     GW_STR_ARG(digest), why.text);
        /* fall through */
    case GW_CONFLICT:
        part_remove(t, digest);
        return GW_NOT_FOUND;
    case GW_NOT_FOUND:
        return GW_NOT_FOUND;
    default:
        if (err != NULL) {
            *err = why;
        }
        return rc;
    }
}

/* Under the lock. A part that lives: is it what is asked for? One of another size that nobody works
 * on makes room, one that its repository refuses goes on from this one. */
static int keep_or_replace(struct fill_table *t, struct gw_str digest, uint64_t size, uint64_t is,
                           struct gw_str target, uint32_t flags, struct gw_error *err)
{
    struct fill *f = NULL;
    int rc;

    if (is == size) {
        return source_change(t, digest, target, flags, err);
    }
    rc = fill_get(&f, t, digest, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (fill_has_owner(f)) {
        rc = gw_fail(err, GW_UNAVAILABLE, 0, "being fetched with another size");
    } else {
        atomic_store(&f->map.live->state, MAP_DROPPED);
        part_remove(t, digest);
        fill_unlist(f);
        fill_wake(f);
        rc = GW_NOT_FOUND;
    }
    fill_unref(f);
    return rc;
}

static int make_unless_there(struct fill_table *t, struct gw_str digest, uint64_t size,
                             struct gw_str target, uint32_t flags, struct gw_error *err)
{
    struct cache *c = t->cache;
    uint64_t is = 0;
    int rc, lock = parts_lock(t, true);

    if (lock < 0) {
        return gw_fail(err, GW_IO, errno, "%s/.lock: %s", c->parts_dir, strerrordesc_np(errno));
    }
    rc = settle_names(t, digest, &is, err);
    if (rc == GW_OK) {
        rc = keep_or_replace(t, digest, size, is, target, flags, err);
    }
    if (rc == GW_NOT_FOUND) {
        rc = blob_exists(c, digest) ? GW_OK : part_make(t, digest, size, target, flags, err);
    }
    parts_unlock(lock);
    return rc;
}

int cache_part_create(struct cache *c, struct gw_str digest, uint64_t size,
                      const struct cache_source *src, struct gw_error *err)
{
    struct fill_table *t = c->fills;
    struct gw_error why = {0};
    struct fill *f = NULL;
    uint32_t flags = 0;
    int rc;

    if (t == NULL || !cache_digest_valid(digest) || size == 0 || size > MAP_SIZE_MAX ||
        src->target.n == 0 || src->target.n > MAP_SOURCE_MAX || src->target.p[0] != '/' ||
        memchr(src->target.p, '\0', src->target.n) != NULL) {
        return gw_fail(err, GW_INVALID, 0, "not a part that can be made");
    }
    if (part_resting(t, digest)) {
        return gw_fail(err, GW_CORRUPT, 0,
                       "%.12s: %s bytes did not have this digest, more than once within the hour",
                       digest.p, src->file ? "its" : "upstream's");
    }
    rc = source_refused(t, digest, src->target, err);
    if (rc == GW_OK && src->file) {
        rc = local_look(t, src->target, size, &flags, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    rc = make_unless_there(t, digest, size, src->target, flags, &why);
    if (rc == GW_IO && why.sys == ENOSPC && !larger_than_budget(t, size) &&
        cache_budget_room(c, size)) {
        rc = make_unless_there(t, digest, size, src->target, flags, &why);
    }
    if (rc != GW_OK && err != NULL) {
        *err = why;
    }
    if (src->all && rc == GW_OK && fill_get(&f, t, digest, NULL) == GW_OK) {
        if (atomic_exchange(&f->map.live->all, 1) == 0) {
            fill_demand(f);
        }
        if (!fill_has_owner(f)) {
            fill_claim(f, true); /* whoever asked need not come back first */
        }
        fill_unref(f);
    }
    return rc;
}

/* ---- dropping ---- */

void part_remove(struct fill_table *t, struct gw_str digest)
{
    static const char *const suffixes[] = {".map", ".part", ".map.new"};
    char path[PATH_MAX];

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        path_of(t, digest, suffixes[i], path);
        if (unlink(path) != 0 && errno == EISDIR && gw_dir_remove(path, NULL) != GW_OK) {
            continue; /* somebody's joke; making the part will say what is wrong */
        }
    }
}

bool part_drop(struct fill *f, enum map_state state)
{
    struct fill_table *t = f->table;
    char path[PATH_MAX];
    struct stat named, held;
    bool first = false;
    int lock;

    if (!atomic_load(&f->gone)) {
        uint32_t now = atomic_load(&f->map.live->state);

        while ((now == MAP_FILLING || now == MAP_PROVEN) &&
               !(first = atomic_compare_exchange_weak(&f->map.live->state, &now, state))) {
            continue;
        }
    }
    if (first) {
        lock = parts_lock(t, true);
        path_of(t, fill_digest(f), ".map", path);
        if (lock >= 0 && stat(path, &named) == 0 && fstat(f->map.map_fd, &held) == 0 &&
            named.st_ino == held.st_ino) {
            part_remove(t, fill_digest(f));
        }
        parts_unlock(lock);
    }
    fill_unlist(f);
    fill_wake(f);
    fill_let_go(f);
    return first;
}

/* ---- writing ---- */

/* By open file (Linux), so a process that attached the part twice is two. @return false: somebody
 * else's lock is in the way */
static bool write_lock(struct fill *f, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

    return fcntl(f->map.part_fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES);
}

bool part_write_begin(struct fill *f)
{
    return write_lock(f, F_RDLCK);
}

void part_write_end(struct fill *f)
{
    (void)write_lock(f, F_UNLCK);
}

bool part_at_rest(struct fill *f)
{
    bool free = write_lock(f, F_WRLCK);

    (void)write_lock(f, F_UNLCK);
    return free;
}

/* ---- mismatches ---- */

static int64_t age_ms(const struct stat *st)
{
    return gw_wall_ms() - ((int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000);
}

static bool within_hour(const struct stat *st)
{
    return age_ms(st) < MISMATCH_MS && age_ms(st) > -MISMATCH_MS;
}

/* How often within the hour, and how long ago the last time was. */
static unsigned mismatches(struct fill_table *t, struct gw_str digest, int64_t *ago_ms)
{
    char path[PATH_MAX], text[16] = "";
    struct stat st;
    unsigned long n;
    int fd;

    path_of(t, digest, ".bad", path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return 0;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || !within_hour(&st) ||
        read(fd, text, sizeof(text) - 1) < 0) {
        close(fd);
        return 0;
    }
    close(fd);
    *ago_ms = age_ms(&st);
    n = strtoul(text, NULL, 10);
    return n > 0 && n < 1000 ? (unsigned)n : 1; /* the file itself says that there was one */
}

bool part_resting(struct fill_table *t, struct gw_str digest)
{
    int64_t ago = 0;
    unsigned n = mismatches(t, digest, &ago);

    return n > 1 && ago < (int64_t)MISMATCH_REST_MS << (n < 8 ? n - 2 : 6);
}

unsigned part_note_mismatch(struct fill_table *t, struct gw_str digest)
{
    int64_t ago;
    unsigned n = mismatches(t, digest, &ago) + 1;
    char name[CACHE_DIGEST_MAX + 8], text[16];

    snprintf(name, sizeof(name), GW_STR_FMT ".bad", GW_STR_ARG(digest));
    snprintf(text, sizeof(text), "%u\n", n);
    if (gw_file_replace(t->cache->parts_dir, name, gw_str_c(text), 0600, NULL) != GW_OK) {
        return 2; /* what cannot be remembered is not tried again */
    }
    return n;
}

bool cache_recently_mismatched(struct cache *c, struct gw_str digest)
{
    char path[CACHE_PATH_MAX];
    struct stat st;

    if (!cache_digest_valid(digest)) {
        return false;
    }
    snprintf(path, sizeof(path), "%s/" GW_STR_FMT ".bad", c->parts_dir, GW_STR_ARG(digest));
    return lstat(path, &st) == 0 && within_hour(&st);
}

/* ---- the scan ---- */

static int64_t age_s(int dir, const char *name)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? gw_wall_ms() / 1000 - st.st_mtime
                                                             : -1;
}

/* A map: adopt it, leave it, or drop it. */
static void scan_map(struct fill_table *t, int dir, const char *name, struct gw_str digest)
{
    struct fill *f = NULL;
    uint64_t size;
    unsigned owned;
    int lock, rc = fill_get(&f, t, digest, NULL);

    if (rc == GW_OK) {
        bool passing = (f->map.head->flags & MAP_PASSING) != 0;
        bool old = age_s(dir, name) > (passing ? PART_PASSED_S : SWEEP_FAILED_S);

        pthread_mutex_lock(&t->mutex);
        owned = t->n_owned;
        pthread_mutex_unlock(&t->mutex);
        if (owned < SCAN_OWNED_MAX && !fill_claim(f, false) && old && !fill_has_owner(f)) {
            part_drop(f, MAP_DROPPED); /* failed or sparse or passed, and nobody asks */
        }
        fill_unref(f);
        return;
    }
    if (rc != GW_CORRUPT && rc != GW_CONFLICT) {
        return;
    }
    lock = parts_lock(t, false);
    if (lock >= 0) { /* again: it may have been in the middle of being removed */
        (void)settle_names(t, digest, &size, NULL);
        parts_unlock(lock);
    }
}

static void sweep(struct fill_table *t, int dir, const char *name, struct gw_str digest)
{
    char path[PATH_MAX];
    int lock = parts_lock(t, false);

    if (lock < 0) {
        return;
    }
    path_of(t, digest, ".map", path);
    if (access(path, F_OK) != 0 || !gw_str_ends(gw_str_c(name), GW_STR(".part"))) {
        (void)unlinkat(dir, name, 0);
    }
    parts_unlock(lock);
}

int64_t parts_idle(struct fill_table *t, char digest[CACHE_DIGEST_MAX + 1])
{
    int64_t limit = gw_wall_ms() - PART_IDLE_MS, oldest = INT64_MAX;
    DIR *dir = opendir(t->cache->parts_dir);
    const struct dirent *e;
    unsigned seen = 0;

    while (dir != NULL && seen++ < SCAN_MAX && (e = readdir(dir)) != NULL) {
        struct gw_str rest = gw_str_c(e->d_name), head;
        struct stat st;
        int64_t used;

        if (!gw_str_split(&rest, '.', &head) || !cache_digest_valid(head) ||
            !gw_str_eq_c(rest, "map") ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        used = (int64_t)st.st_mtim.tv_sec * 1000;
        if (used < limit && used < oldest && !tended(dirfd(dir), e->d_name)) {
            oldest = used;
            snprintf(digest, CACHE_DIGEST_MAX + 1, GW_STR_FMT, GW_STR_ARG(head));
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return oldest;
}

uint64_t part_evict(struct fill_table *t, struct gw_str digest)
{
    struct fill *f = NULL;
    uint64_t bytes = 0;
    struct stat st;

    if (fill_get(&f, t, digest, NULL) != GW_OK) {
        return 0;
    }
    if (!fill_has_owner(f) && fstat(f->map.part_fd, &st) == 0) {
        /* an object of data/ frees nothing; a part of nothing but holes is one, too */
        bytes = (st.st_nlink > 1 ? 0 : (uint64_t)st.st_blocks * 512) + 1;
        part_drop(f, MAP_DROPPED);
    }
    fill_unref(f);
    return bytes;
}

void parts_scan(struct fill_table *t)
{
    DIR *dir = opendir(t->cache->parts_dir);
    const struct dirent *e;
    unsigned seen = 0;

    if (dir == NULL) {
        return;
    }
    while (seen++ < SCAN_MAX && !atomic_load(&t->stopping) && (e = readdir(dir)) != NULL) {
        struct gw_str name = gw_str_c(e->d_name), digest, rest = name;

        if (!gw_str_split(&rest, '.', &digest) || !cache_digest_valid(digest) || rest.p == NULL) {
            continue;
        }
        if (gw_str_eq_c(rest, "map")) {
            scan_map(t, dirfd(dir), e->d_name, digest);
        } else if (age_s(dirfd(dir), e->d_name) > SWEEP_S) {
            sweep(t, dirfd(dir), e->d_name, digest);
        }
    }
    closedir(dir);
}
