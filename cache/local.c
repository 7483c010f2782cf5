/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/local.c - parts whose bytes are in data/: a private object, which nobody needs to fetch.
 *
 *   one file system   the part is another name of the object, never written: all of it is there at
 *                     once, and is hashed when the first response wants the whole
 *   two of them       what is wanted is copied by the fill's jobs, then hashed as ever
 *
 * A digest that does not match is damage in data/: nobody gets the last bytes, and it is not tried
 * again by itself. The folder may be a share that hangs, so it is only met in jobs, and before the
 * lock of parts/ is taken.
 */
#include "cache/fill_internal.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static bool path_of_source(struct gw_str source, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, GW_STR_FMT, GW_STR_ARG(source));

    return n > 0 && n < PATH_MAX;
}

int local_look(const struct fill_table *t, struct gw_str file, uint64_t size, uint32_t *flags,
               struct gw_error *err)
{
    char path[PATH_MAX];
    struct stat of_file, of_parts;

    *flags = MAP_FROM_FILE;
    if (!path_of_source(file, path) || lstat(path, &of_file) != 0) {
        return gw_fail(err, GW_IO, errno, "object " GW_STR_FMT ": %s", GW_STR_ARG(file),
                       strerrordesc_np(errno));
    }
    if (!S_ISREG(of_file.st_mode) || (uint64_t)of_file.st_size != size) {
        return gw_fail(err, GW_CORRUPT, 0, "object " GW_STR_FMT ": not a file of %llu bytes",
                       GW_STR_ARG(file), (unsigned long long)size);
    }
    if (stat(t->cache->parts_dir, &of_parts) == 0 && of_parts.st_dev == of_file.st_dev) {
        *flags |= MAP_LINKED;
    }
    return GW_OK;
}

bool local_link(struct gw_str file, uint64_t size, const char *part)
{
    char path[PATH_MAX];
    struct stat st;

    if (!path_of_source(file, path) || link(path, part) != 0) {
        return false; /* another owner, too many links, no links at all: it is copied */
    }
    if (lstat(part, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size) {
        return true;
    }
    (void)unlink(part);
    return false;
}

/* Demanded ones first. m->granules: nothing is wanted. */
static uint64_t next_granule(const struct map *m)
{
    uint64_t g = map_demanded(m, 0);

    return g < m->granules ? g : map_wanted(m, 0);
}

/* @return GW_OK; GW_CONFLICT: the fill is not ours any more; GW_IO */
static int write_granule(struct fill *f, const uint8_t *bytes, uint64_t g, size_t n,
                         struct gw_error *err)
{
    int rc = GW_CONFLICT;

    if (!part_write_begin(f)) {
        return rc;
    }
    if (fill_safe(f) && fill_ours(f) && !fill_ended(f)) {
        rc = gw_pwrite_all(f->map.part_fd, bytes, n, g * CACHE_GRANULE, err);
        if (rc == GW_OK) {
            atomic_store(&f->map.granule[g], GRANULE_VALID);
        }
    }
    part_write_end(f);
    return rc;
}

static int copy_from(struct fill *f, int fd, uint8_t *buffer, enum fill_failure *bad,
                     struct gw_error *err)
{
    struct fill_table *t = f->table;
    const struct map *m = &f->map;
    uint64_t g, done = 0;
    int rc = GW_OK;

    while (rc == GW_OK && done < FILL_STEP && !atomic_load(&t->stopping) &&
           !atomic_load(&t->cache->leaving) && (g = next_granule(m)) < m->granules) {
        size_t n = (size_t)(map_bytes(m, g + 1) - g * CACHE_GRANULE);

        *bad = FILL_FILE;
        rc = gw_pread_all(fd, buffer, n, g * CACHE_GRANULE, err);
        if (rc == GW_OK) {
            *bad = FILL_DISK;
            rc = write_granule(f, buffer, g, n, err);
        }
        if (rc == GW_OK) {
            atomic_fetch_add(&t->cache->shared->counters.blob_bytes_filled, n);
            fill_wake(f);
            done += n;
        }
    }
    return rc;
}

int local_copy(struct fill *f, uint8_t *buffer, struct gw_error *err)
{
    struct fill_table *t = f->table;
    struct gw_str source = {f->map.head->source, f->map.head->source_len};
    enum fill_failure bad = FILL_FILE;
    struct gw_error why = {0};
    char path[PATH_MAX];
    int rc, fd = -1;

    if (path_of_source(source, path)) {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    }
    rc = fd >= 0 ? copy_from(f, fd, buffer, &bad, &why)
                 : gw_fail(&why, GW_IO, errno, "object %s: %s", path, strerrordesc_np(errno));
    if (fd >= 0) {
        close(fd);
    }
    fill_progress(f);
    if (rc == GW_OK || rc == GW_CONFLICT) { /* whoever has it now goes on */
        return GW_OK;
    }
    fill_fail(f, bad, why.sys != 0 ? why.sys : EIO, gw_mono_ms() + t->rest_ms);
    if (bad == FILL_DISK) { /* what is there takes the room that others need */
        part_drop(f, MAP_DROPPED);
    } else {
        fill_let_go(f);
    }
    if (err != NULL) {
        *err = why;
    }
    return GW_IO;
}

void local_rest(struct fill *f)
{
    struct fill_table *t = f->table;
    bool bring = !fill_ended(f) && next_granule(&f->map) < f->map.granules;

    pthread_mutex_lock(&t->mutex);
    f->bring = bring;
    pthread_mutex_unlock(&t->mutex);
    if (!bring && !fill_ended(f)) {
        fill_demand(f); /* the fetcher lets go of what nobody wants */
    }
}

void local_wanted(struct fill *f)
{
    struct fill_table *t = f->table;

    pthread_mutex_lock(&t->mutex);
    f->bring = true;
    pthread_mutex_unlock(&t->mutex);
    cache_wake(t->cache->shared, t->cache->slot);
}
