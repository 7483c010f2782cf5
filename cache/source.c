/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/source.c - whom a part is fetched from: one of the repositories that hold its digest.
 *
 * What the Hub refuses of that one (403, 404, other content under the name), or cannot be read of
 * data/, says nothing of the others: a reader who came through another one has the part go on from
 * there. The map is written anew with its source, over the same part: what is there stays, and is
 * hashed from its beginning. A source that failed is remembered until it may be asked again, else
 * two of them that are both refused would send each other to the Hub with every request.
 */
#include "cache/fill_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static struct gw_str source_of(const struct fill *f)
{
    return (struct gw_str){f->map.head->source, f->map.head->source_len};
}

bool source_is(const struct fill *f, struct gw_str target)
{
    return target.n == 0 || gw_str_eq(source_of(f), target);
}

/* ---- what was refused ---- */

static uint64_t name_of(struct gw_str digest, struct gw_str target)
{
    struct gw_sha256 s;
    uint8_t sum[32];
    uint64_t name;

    gw_sha256_init(&s);
    gw_sha256_update(&s, digest.p, digest.n);
    gw_sha256_update(&s, target.p, target.n);
    gw_sha256_final(&s, sum);
    memcpy(&name, sum, sizeof(name));
    return name;
}

static void remember(struct fill *f)
{
    struct fill_table *t = f->table;
    uint64_t name = name_of(fill_digest(f), source_of(f));

    pthread_mutex_lock(&t->mutex);
    t->refused[t->n_refused++ % FILL_BANS] =
        (struct fill_refused){name, atomic_load(&f->map.live->failure)};
    pthread_mutex_unlock(&t->mutex);
}

int source_refused(struct fill_table *t, struct gw_str digest, struct gw_str target,
                   struct gw_error *err)
{
    uint64_t name = name_of(digest, target), word = 0;

    pthread_mutex_lock(&t->mutex);
    for (size_t i = 0; i < FILL_BANS; i++) {
        if (t->refused[i].source == name) {
            word = t->refused[i].failure;
        }
    }
    pthread_mutex_unlock(&t->mutex);
    return fill_failure_of(word, err);
}

/* ---- another one ---- */

/* Granules and whether the whole is wanted; not the hash state, which is bound to the old head. */
static void copy_state(struct map *to, const struct map *from)
{
    atomic_store(&to->live->all, atomic_load(&from->live->all));
    for (uint64_t g = 0; g < from->granules; g++) {
        uint8_t now = atomic_load(&from->granule[g]);

        if (now != GRANULE_ABSENT && now <= GRANULE_DEMANDED) {
            atomic_store(&to->granule[g], now == GRANULE_LIVE ? GRANULE_WANTED : now);
        }
    }
}

static int write_over(struct fill *f, struct gw_str target, uint32_t flags, int fd,
                      struct gw_error *err)
{
    struct fill_table *t = f->table;
    const struct map_head *h = f->map.head;
    struct map to = {.map_fd = -1, .part_fd = -1, .granules = f->map.granules};
    uint64_t generation;
    int sys;

    if (!gw_random(&generation, sizeof(generation))) {
        return gw_fail(err, GW_IO, 0, "no randomness");
    }
    sys = posix_fallocate(fd, 0, (off_t)f->map.bytes);
    if (sys != 0) {
        return gw_fail(err, GW_IO, sys, "map: %s", strerrordesc_np(sys));
    }
    to.image = mmap(NULL, f->map.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (to.image == MAP_FAILED) {
        return gw_fail(err, GW_IO, errno, "map: %s", strerrordesc_np(errno));
    }
    map_format(to.image, fill_digest(f), h->size, target, flags, h->part_ino, generation, t->boot);
    to.live = (struct map_live *)(void *)((char *)to.image + MAP_PAGE);
    to.granule = (_Atomic uint8_t *)((char *)to.image + MAP_GRANULES_AT);
    copy_state(&to, &f->map);
    munmap(to.image, f->map.bytes);
    return GW_OK;
}

static int change(struct fill *f, struct gw_str target, uint32_t flags, struct gw_error *err)
{
    struct fill_table *t = f->table;
    char temp[PATH_MAX], path[PATH_MAX];
    int rc, fd;

    snprintf(temp, sizeof(temp), "%s/%s.map.new", t->cache->parts_dir, f->digest);
    snprintf(path, sizeof(path), "%s/%s.map", t->cache->parts_dir, f->digest);
    (void)unlink(temp);
    fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return gw_fail(err, GW_IO, errno, "map: %s", strerrordesc_np(errno));
    }
    /* From here on nobody takes the old one over; whoever did so just now writes what he has to the
     * same part, and is waited for by the next owner as ever. */
    atomic_store(&f->map.live->state, MAP_DROPPED);
    rc = write_over(f, target, flags, fd, err);
    if (rc == GW_OK && rename(temp, path) != 0) {
        rc = gw_fail(err, GW_IO, errno, "map: %s", strerrordesc_np(errno));
    }
    close(fd);
    if (rc != GW_OK) {
        (void)unlink(temp);
    }
    fill_unlist(f);
    fill_wake(f);
    return rc;
}

int source_change(struct fill_table *t, struct gw_str digest, struct gw_str target, uint32_t flags,
                  struct gw_error *err)
{
    struct fill *f = NULL;
    int rc = fill_get(&f, t, digest, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (!source_is(f, target) && fill_source_failed(f) && !fill_has_owner(f) && !fill_ended(f) &&
        (f->map.head->flags & MAP_LINKED) == 0) {
        remember(f);
        gw_log_write(&t->cache->log, GW_LOG_NOTICE,
                     "cache: %.12s goes on from another repository that has it", f->digest);
        rc = change(f, target, (flags & ~MAP_LINKED) | (f->map.head->flags & MAP_PASSING), err);
    }
    fill_unref(f);
    return rc;
}
