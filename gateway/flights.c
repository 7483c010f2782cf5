/* SPDX-License-Identifier: Apache-2.0 */
/* flights.c - see flights.h. */
#include "gateway/flights.h"

#include "base/clock.h"
#include "base/sha.h"

#include <string.h>

#define SLOT_BITS 6
#define GENERATION_BITS 22
#define GENERATION_MASK ((1u << GENERATION_BITS) - 1)
#define TAG_SHIFT (SLOT_BITS + GENERATION_BITS)

_Static_assert(CACHE_SLOTS <= 1u << SLOT_BITS, "a slot fits");
_Static_assert((FLIGHT_PLACES & (FLIGHT_PLACES - 1)) == 0, "a power of two");

uint64_t flight_hash(struct gw_str key)
{
    uint8_t sum[32];
    uint64_t hash;

    gw_sha256_once(key.p, key.n, sum);
    memcpy(&hash, sum, sizeof(hash));
    return hash;
}

static struct flight_place *place_of(struct flights *t, uint64_t hash)
{
    return &t->places[hash % FLIGHT_PLACES];
}

static uint64_t tag_of(uint64_t hash)
{
    return hash >> TAG_SHIFT;
}

static uint64_t owner_of(const struct cache_shared *s, unsigned slot, uint64_t hash)
{
    uint32_t generation = atomic_load(&s->slots[slot].generation);

    return tag_of(hash) << TAG_SHIFT | (uint64_t)slot << GENERATION_BITS |
           (generation & GENERATION_MASK);
}

static bool alive(const struct cache_shared *s, uint64_t owner)
{
    unsigned slot = (unsigned)(owner >> GENERATION_BITS) & (CACHE_SLOTS - 1);
    uint32_t generation = atomic_load(&s->slots[slot].generation);

    return ((generation ^ owner) & GENERATION_MASK) == 0 && cache_slot_alive(s, slot, generation);
}

/* ---- how the last one ended ---- */

static uint64_t last_word(uint64_t hash, int status, int sys)
{
    uint64_t shown = sys >= 0 && sys < 1024 ? (uint64_t)sys : 0;

    return (uint64_t)(uint32_t)gw_mono_ms() << 32 | (hash >> TAG_SHIFT & 0xffff) << 16 |
           (uint64_t)(-status & 63) << 10 | shown;
}

static bool ended_since(uint64_t last, const struct flight *f, int *status, int *sys)
{
    int32_t after = (int32_t)((uint32_t)(last >> 32) - (uint32_t)f->since_ms);

    /* in the same millisecond: only who saw it flying can know that it ended later */
    if (last == 0 || (last >> 16 & 0xffff) != (f->hash >> TAG_SHIFT & 0xffff) ||
        after < (f->waited ? 0 : 1))
        return false;
    *status = -(int)(last >> 10 & 63);
    *sys = (int)(last & 1023);
    return true;
}

/* ---- begin and end ---- */

enum flight_turn flight_begin(struct flights *t, struct cache_shared *s, unsigned slot,
                              struct flight *f, int status[1], int sys[1])
{
    struct flight_place *p = place_of(t, f->hash);
    uint64_t mine = owner_of(s, slot, f->hash);
    uint64_t owner = atomic_load(&p->owner);

    for (;;) {
        if (ended_since(atomic_load(&p->last), f, status, sys))
            return FLIGHT_OVER;
        if (owner == 0 || !alive(s, owner) || gw_mono_ms() > atomic_load(&p->overdue_ms)) {
            /* before it is ours, or somebody would find it overdue: the worst of this order is
             * that a dead owner's place lives longer */
            atomic_store(&p->overdue_ms, gw_mono_ms() + FLIGHT_OVERDUE_MS);
            if (!atomic_compare_exchange_strong(&p->owner, &owner, mine))
                continue;
            if (!ended_since(atomic_load(&p->last), f, status, sys))
                return FLIGHT_OURS;
            flight_end(t, s, slot, f->hash, GW_CANCELLED, 0); /* it ended just before */
            return FLIGHT_OVER;
        }
        if (owner >> TAG_SHIFT != tag_of(f->hash) || owner == mine)
            return FLIGHT_OURS; /* another fact in this place */
        f->theirs = owner;
        f->waited = true;
        atomic_fetch_or(&p->waiting, UINT64_C(1) << slot);
        if (atomic_load(&p->owner) == owner)
            return FLIGHT_THEIRS; /* its end sees our bit */
        owner = atomic_load(&p->owner);
    }
}

bool flight_moved(const struct flights *t, const struct flight *f)
{
    return atomic_load(&t->places[f->hash % FLIGHT_PLACES].owner) != f->theirs;
}

void flight_keep(struct flights *t, uint64_t hash)
{
    struct flight_place *p = place_of(t, hash);

    if (atomic_load(&p->owner) >> TAG_SHIFT == tag_of(hash))
        atomic_store(&p->overdue_ms, gw_mono_ms() + FLIGHT_OVERDUE_MS);
}

void flight_end(struct flights *t, struct cache_shared *s, unsigned slot, uint64_t hash, int status,
                int sys)
{
    struct flight_place *p = place_of(t, hash);
    uint64_t mine = owner_of(s, slot, hash), waiting;

    if (atomic_load(&p->owner) != mine)
        return; /* it was taken over */
    if (status != GW_CANCELLED)
        atomic_store(&p->last, last_word(hash, status, sys));
    if (!atomic_compare_exchange_strong(&p->owner, &mine, 0))
        return;
    waiting = atomic_exchange(&p->waiting, 0);
    for (unsigned i = 0; waiting != 0; i++, waiting >>= 1)
        if (waiting & 1)
            cache_wake(s, i);
}
