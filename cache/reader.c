/* SPDX-License-Identifier: Apache-2.0 */
/* cache/reader.c - one response that follows a fill: what may go out now, and who is asked for
 * more. */
#include "cache/fill_internal.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <sys/stat.h>
#include <unistd.h>

/* Granules that a bounded range asks for ahead of what was sent: enough for all transfers. */
#define AHEAD 64u

struct cache_reader {
    struct fill *fill;
    uint64_t asked;     /* granules before it were asked for */
    bool other;         /* it came through another repository than the one that is asked */
    bool before;        /* nothing before the digest is right */
    bool node;          /* another node reads: it proves the digest itself */
    int64_t touched_ms; /* monotonic */
};

static bool blob_exists(const struct cache *c, struct gw_str digest)
{
    char path[CACHE_PATH_MAX];

    return cache_blob_path(c, digest, path, sizeof(path)) && access(path, F_OK) == 0;
}

/* size 0: whatever it is. */
static int open_reader(struct cache_reader **out, struct cache *c, struct gw_str digest,
                       uint64_t size, struct gw_str target, struct gw_error *err)
{
    struct cache_reader *r;
    struct fill *f = NULL;
    int rc;

    if (!cache_digest_valid(digest)) {
        return gw_fail(err, GW_IO, 0, "not a digest");
    }
    r = gw_alloc(sizeof(*r));
    if (r == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a reader");
    }
    rc = fill_get(&f, c->fills, digest, err);
    if (rc == GW_OK) {
        fill_look(f); /* a part that was removed is not joined */
        if (fill_ended(f)) {
            fill_unlist(f);
            rc = GW_NOT_FOUND;
        } else if (size != 0 && f->map.head->size != size) {
            rc = GW_CORRUPT; /* the job decides */
        } else if (!source_is(f, target) && fill_source_failed(f)) {
            rc = GW_CORRUPT; /* likewise */
        }
    }
    switch (rc) {
    case GW_OK:
        (void)futimens(f->map.map_fd, NULL); /* its last use: what nobody asks for is swept */
        r->touched_ms = gw_mono_ms();
        r->fill = f;
        r->before = c->options.verify_before;
        r->other = !source_is(f, target);
        *out = r;
        return GW_OK;
    case GW_NOT_FOUND:
    case GW_CORRUPT:
    case GW_CONFLICT:
        rc = blob_exists(c, digest) ? GW_CONFLICT : GW_AGAIN;
        break;
    default:
        break;
    }
    fill_unref(f);
    gw_free(r);
    return rc;
}

int cache_reader_open(struct cache_reader **out, struct cache *c, struct gw_str digest,
                      uint64_t size, struct gw_str target, struct gw_error *err)
{
    return open_reader(out, c, digest, size != 0 ? size : UINT64_MAX, target, err);
}

bool cache_reader_other_failed(const struct cache_reader *r)
{
    return r->other && fill_safe(r->fill) && fill_source_failed(r->fill);
}

int cache_reader_open_node(struct cache_reader **out, struct cache *c, struct gw_str digest,
                           uint64_t *size, struct gw_error *err)
{
    int rc = open_reader(out, c, digest, 0, GW_STR(""), err);

    if (rc == GW_OK) {
        (*out)->node = true;
        (*out)->before = false; /* it proves the digest itself */
        *size = (*out)->fill->map.head->size;
    }
    return rc;
}

/* No response is the whole file and wrong, and a client that resumes after a cut cannot have got
 * the last byte of wrong content: design 4, proof. Only a short tail goes at once. */
static bool held_back(const struct cache_reader *r, uint64_t offset, uint64_t end, uint64_t begun)
{
    return !r->node && end == r->fill->map.head->size &&
           (begun == offset || begun + (end - offset) > FILL_HOLD_BACK);
}

/* Says in the map what this response wants: the whole, when it waits for the digest, else its own
 * granules. waits: nothing of the first one is there. */
static void ask(struct cache_reader *r, uint64_t offset, uint64_t end, uint64_t begun, bool waits)
{
    struct fill *f = r->fill;
    struct map *m = &f->map;
    uint64_t from = offset / CACHE_GRANULE, upto = (end - 1) / CACHE_GRANULE + 1;
    bool changed = false;

    if (r->before || held_back(r, offset, end, begun)) {
        changed = atomic_load(&m->live->all) == 0 && atomic_exchange(&m->live->all, 1) == 0;
    } else {
        upto = upto - from > AHEAD ? from + AHEAD : upto;
        if (r->asked < upto && (upto - r->asked >= AHEAD / 2 || r->asked <= from ||
                                upto == (end - 1) / CACHE_GRANULE + 1)) {
            for (uint64_t g = r->asked > from ? r->asked : from; g < upto; g++) {
                changed = map_ask(m, g, GRANULE_WANTED) || changed;
            }
            r->asked = upto;
        }
    }
    if (waits) {
        changed = map_ask(m, from, GRANULE_DEMANDED) || changed;
    }
    if (changed) {
        fill_demand(f);
    }
}

/* What is there and may be shown. */
static uint64_t ready(const struct cache_reader *r, uint64_t offset, uint64_t end, uint64_t begun)
{
    const struct map *m = &r->fill->map;
    uint64_t size = m->head->size, limit = end;
    uint32_t state = atomic_load(&m->live->state);

    if (state == MAP_WHOLE) {
        return end - offset;
    }
    if (state != MAP_PROVEN) {
        if (r->before) {
            return 0;
        }
        if (held_back(r, offset, end, begun)) {
            limit = (size - 1) / CACHE_GRANULE * CACHE_GRANULE;
        }
    }
    return offset < limit ? map_ready(m, offset, limit) : 0;
}

/* All of an object of data/ is there without an owner: one is needed once its digest is. */
static void prove(struct fill *f)
{
    if ((f->map.head->flags & MAP_LINKED) != 0 && atomic_load(&f->map.live->owner) == 0 &&
        atomic_load(&f->map.live->all) != 0) {
        (void)fill_claim(f, false);
    }
}

int cache_reader_want(struct cache_reader *r, uint64_t offset, uint64_t end, uint64_t begun,
                      uint64_t *avail, struct gw_error *err)
{
    struct fill *f = r->fill;
    struct fill_table *t = f->table;
    int rc;

    *avail = 0;
    if (atomic_load(&t->stopping)) {
        return gw_fail(err, GW_CANCELLED, 0, "leaving");
    }
    if (!fill_safe(f)) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "the part was removed");
    }
    if (end > f->map.head->size || offset > end) {
        return gw_fail(err, GW_IO, 0, "a range outside of the file");
    }
    if (offset == end) {
        return GW_OK;
    }
    if (gw_mono_ms() - r->touched_ms > PART_TOUCH_MS) { /* or it would be evicted under us */
        (void)futimens(f->map.map_fd, NULL);
        r->touched_ms = gw_mono_ms();
    }
    if (atomic_load(&f->map.live->state) != MAP_CORRUPT) {
        *avail = ready(r, offset, end, begun);
        if (*avail > 0) {
            if (atomic_load(&f->map.live->state) == MAP_FILLING) {
                ask(r, offset, end, begun, false);
                prove(f);
            }
            return GW_OK;
        }
        /* First the bit, then another look: whoever publishes does it the other way round. */
        atomic_fetch_or(&f->map.live->waiters, 1ull << t->cache->slot);
        *avail = ready(r, offset, end, begun);
        if (*avail > 0) {
            return GW_OK;
        }
    }
    switch (atomic_load(&f->map.live->state)) {
    case MAP_FILLING:
        ask(r, offset, end, begun, true);
        break;
    case MAP_PROVEN:
        break;
    case MAP_WHOLE: /* just now */
        *avail = end - offset;
        return GW_OK;
    case MAP_CORRUPT:
        return gw_fail(err, GW_CORRUPT, 0, "upstream's bytes do not have this digest");
    default:
        rc = fill_failure(f, err);
        return rc != GW_OK ? rc : gw_fail(err, GW_UNAVAILABLE, 0, "the part was dropped");
    }
    if (!fill_has_owner(f)) {
        rc = fill_failure(f, err);
        if (rc != GW_OK) {
            return rc;
        }
        (void)fill_claim(f, true);
    }
    return GW_OK;
}

void cache_reader_verify_before(struct cache_reader *r)
{
    r->before = true;
}

int cache_reader_fd(const struct cache_reader *r)
{
    return r->fill->map.part_fd;
}

void cache_reader_close(struct cache_reader *r)
{
    if (r != NULL) {
        fill_unref(r->fill);
        gw_free(r);
    }
}
