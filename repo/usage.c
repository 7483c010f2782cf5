/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/usage.c - how many bytes a repository, and a namespace, hold.
 *
 * Measured by a walk, and noted in the repository:
 *
 *   <name>.git/.gw.usage     "hubgate usage 1 <bytes> <stamp> <stamp> <when> <cost>."
 *
 * The stamps are the times of objects/pack and lfs/objects, which every commit and every new object
 * changes: as long as they are the same the note is right, whoever wrote it, on whatever node. It
 * is derived: what is damaged or absent is measured. A long walk is not repeated before twenty
 * times its own cost is over, so that uploads into a repository of 50,000 objects do not wait for
 * it.
 */
#include "repo/repo_internal.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NOTE ".gw.usage"
#define NOTE_MAX 256u
#define LONG_MS 50   /* a walk that is not repeated at once */
#define REST 20      /* times its cost, between two walks */
#define COARSE_MS 20 /* what changed within it may change again without another time */
#define NAMES_MAX 10000000u

struct note {
    uint64_t bytes;
    int64_t packs_ns, objects_ns, when_ms, cost_ms;
};

static int64_t time_of(const char *path, const char *below)
{
    char name[4096];
    struct stat st;
    int n = snprintf(name, sizeof(name), "%s/%s", path, below);

    if (n < 0 || (size_t)n >= sizeof(name) || stat(name, &st) != 0) {
        return 0;
    }
    return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

static bool read_note(const char *path, struct note *n)
{
    char text[NOTE_MAX];
    int used = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : -1;

    if (fd >= 0) {
        close(fd);
    }
    if (got <= 0) {
        return false;
    }
    text[got] = '\0';
    return sscanf(text,
                  "hubgate usage 1 %" SCNu64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 ".%n",
                  &n->bytes, &n->packs_ns, &n->objects_ns, &n->when_ms, &n->cost_ms, &used) == 5 &&
           used == (int)got;
}

/* It may get lost, and that costs a walk: nothing is synced. */
static void write_note(const char *path, const struct note *n)
{
    char text[NOTE_MAX];
    int size =
        snprintf(text, sizeof(text),
                 "hubgate usage 1 %" PRIu64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 ".",
                 n->bytes, n->packs_ns, n->objects_ns, n->when_ms, n->cost_ms);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);

    if (fd < 0) {
        return;
    }
    if (pwrite(fd, text, (size_t)size, 0) != size || ftruncate(fd, size) != 0) {
        unlink(path);
    }
    close(fd);
}

/* Of all files in both folders of objects; what goes away meanwhile is not counted. */
static int walk(const char *path, uint64_t *bytes, struct gw_arena *a, struct gw_error *err)
{
    char *const roots[] = {(char *)gw_arena_printf(a, "%s/objects", path).p,
                           (char *)gw_arena_printf(a, "%s/lfs/objects", path).p, NULL};
    FTS *fts = roots[0] && roots[1] ? fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL) : NULL;
    FTSENT *e;
    int saved;

    if (fts == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory to measure %s", path);
    }
    *bytes = 0;
    for (errno = 0; (e = fts_read(fts)) != NULL; errno = 0) {
        if (e->fts_info == FTS_F) {
            *bytes += (uint64_t)e->fts_statp->st_size;
        }
    }
    saved = errno;
    fts_close(fts);
    return saved == 0 ? GW_OK
                      : gw_fail(err, GW_IO, saved, "measure %s: %s", path, strerrordesc_np(saved));
}

static bool is_too_early(const struct note *old, int64_t now_ms)
{
    return old->cost_ms >= LONG_MS && now_ms >= old->when_ms &&
           now_ms - old->when_ms < REST * old->cost_ms;
}

static int measure(const char *path, uint64_t *bytes, struct gw_error *err)
{
    struct gw_arena a;
    struct note now, old;
    const char *file;
    bool any;
    int rc;

    gw_arena_init(&a, 64u << 10);
    file = gw_arena_printf(&a, "%s/" NOTE, path).p;
    now = (struct note){.packs_ns = time_of(path, "objects/pack"),
                        .objects_ns = time_of(path, "lfs/objects"),
                        .when_ms = gw_wall_ms()};
    any = file != NULL && read_note(file, &old);
    if (any && ((old.packs_ns == now.packs_ns && old.objects_ns == now.objects_ns) ||
                is_too_early(&old, now.when_ms))) {
        *bytes = old.bytes;
        gw_arena_release(&a);
        return GW_OK;
    }
    rc = file != NULL ? walk(path, &now.bytes, &a, err)
                      : gw_fail(err, GW_NO_MEMORY, 0, "no memory to measure %s", path);
    if (rc == GW_OK) {
        *bytes = now.bytes;
        now.cost_ms = gw_wall_ms() - now.when_ms;
        if (now.when_ms - now.packs_ns / 1000000 > COARSE_MS) {
            write_note(file, &now);
        }
    }
    gw_arena_release(&a);
    return rc;
}

void repo_usage_touch(const char *repo_path)
{
    char name[4096];
    struct timespec now[2];
    int n = snprintf(name, sizeof(name), "%s/lfs/objects", repo_path);

    clock_gettime(CLOCK_REALTIME, &now[0]); /* finer than the kernel's own for files */
    now[1] = now[0];
    if (n > 0 && (size_t)n < sizeof(name) && utimensat(AT_FDCWD, name, now, 0) != 0) {
        return; /* counted with the next one */
    }
}

int repo_usage(const char *data_dir, const struct repo_id *id, uint64_t *bytes,
               struct gw_error *err)
{
    struct repo_place place;
    struct gw_arena a;
    int rc;

    gw_arena_init(&a, 1u << 20);
    rc = repo_locate(data_dir, id, &a, &place, err);
    if (rc == GW_OK) {
        rc = measure(place.path, bytes, err);
    }
    gw_arena_release(&a);
    return rc;
}

/* Of one type; dir: its folder of the namespace */
static int add_type(const char *dir, uint64_t *bytes, struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str *names;
    size_t n = 0;
    int rc;

    gw_arena_init(&a, 1u << 30);
    rc = gw_dir_list(dir, NAMES_MAX, &a, &names, &n, err);
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        uint64_t more = 0;
        char path[4096];
        int used = snprintf(path, sizeof(path), "%s/" GW_STR_FMT, dir, GW_STR_ARG(names[i]));

        if (used < 0 || (size_t)used >= sizeof(path) || !gw_str_ends(names[i], GW_STR(".git"))) {
            continue;
        }
        rc = measure(path, &more, err);
        *bytes += more;
    }
    gw_arena_release(&a);
    return rc == GW_NOT_FOUND ? GW_OK : rc;
}

int repo_ns_usage(const char *data_dir, struct gw_str ns, uint64_t *bytes, struct gw_error *err)
{
    struct gw_arena a;
    int rc = GW_OK;

    *bytes = 0;
    gw_arena_init(&a, 1u << 20);
    for (size_t i = 0; rc == GW_OK && repo_types[i] != NULL; i++) {
        const struct repo_id any = {gw_str_c(repo_types[i]), ns, GW_STR("x")};
        struct repo_place place;

        rc = repo_locate(data_dir, &any, &a, &place, err);
        if (rc == GW_OK || rc == GW_NOT_FOUND) {
            rc = add_type(place.dir, bytes, err);
        }
    }
    gw_arena_release(&a);
    return rc;
}
