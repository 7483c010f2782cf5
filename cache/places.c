/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/places.c - how many transfers run at once on this node: upstream.max_transfers of all
 * workers together, a quarter of them kept for what somebody waits for.
 *
 * Each worker counts its own in its slot of shared memory, so that what a dead one held goes with
 * its slot. It takes a place by counting first and looking then: two that meet may both step back,
 * never both go on. A worker's part of the places is that of its blobs: who has more of them when
 * all are taken lets one go, as its transfer passes the next MiB.
 */
#include "cache/fetcher_internal.h"

static struct cache_slot *own(const struct fetcher *x)
{
    const struct cache *c = x->table->cache;

    return &c->shared->slots[c->slot];
}

static unsigned taken(const struct fetcher *x)
{
    struct cache_shared *s = x->table->cache->shared;
    unsigned n = 0;

    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        n += atomic_load(&s->slots[i].transfers);
    }
    return n;
}

static unsigned not_kept(const struct fetcher *x)
{
    return x->table->max_transfers - x->table->max_transfers / 4;
}

/* What is ours of them; at least one. all: the blobs that somebody fetches just now. */
static unsigned our_part(const struct fetcher *x, unsigned *all)
{
    struct cache_shared *s = x->table->cache->shared;
    unsigned ours = atomic_load(&own(x)->blobs);

    *all = 0;
    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        *all += atomic_load(&s->slots[i].blobs);
    }
    return ours == 0 || *all < ours ? 1 : (not_kept(x) * ours + *all - 1) / *all;
}

void places_want(struct fetcher *x, unsigned blobs)
{
    if (atomic_load(&own(x)->blobs) != blobs) {
        atomic_store(&own(x)->blobs, blobs);
    }
}

bool places_take(struct fetcher *x, bool demanded)
{
    unsigned most = demanded ? x->table->max_transfers : not_kept(x), all;

    if (!demanded && x->n_live >= our_part(x, &all)) {
        return false;
    }
    atomic_fetch_add(&own(x)->transfers, 1);
    if (taken(x) > most) {
        places_give(x);
        return false;
    }
    return true;
}

void places_give(struct fetcher *x)
{
    atomic_fetch_sub(&own(x)->transfers, 1);
}

bool places_over(const struct fetcher *x)
{
    unsigned all, part = our_part(x, &all);

    return all > atomic_load(&own(x)->blobs) && x->n_live > 1 && x->n_live > part &&
           taken(x) >= not_kept(x);
}
