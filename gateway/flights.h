/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway/flights.h - one call upstream for one fact, whichever workers of this node want it. A
 * fixed table in shared memory, atomics only: nobody holds a lock, who waits is woken by the
 * eventfd of its slot.
 *
 *   free --begin--> flown by (slot, generation) --end, owner dead or overdue--> free
 *
 * A place is found by a hash of the key of the want. Two keys that meet in one place are rare; the
 * second then flies without the table, that is, not alone.
 */
#ifndef GATEWAY_FLIGHTS_H
#define GATEWAY_FLIGHTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "cache/cache.h"

#define FLIGHT_PLACES 4096u
#define FLIGHT_OVERDUE_MS 25000 /* a stopped owner is not waited for longer; more than one call */

struct flight_place {
    _Atomic uint64_t owner;     /* 36 bits of the hash, slot, 22 bits of its generation; 0: free */
    _Atomic uint64_t waiting;   /* a bit per slot: wake it at the end */
    _Atomic uint64_t last;      /* how the last one ended: time, 16 bits of the hash, status, sys */
    _Atomic int64_t overdue_ms; /* monotonic */
};
struct flights {
    struct flight_place places[FLIGHT_PLACES];
};

uint64_t flight_hash(struct gw_str key);

enum flight_turn {
    FLIGHT_OURS,   /* call, then flight_end */
    FLIGHT_THEIRS, /* another worker calls; a wake comes when it has ended */
    FLIGHT_OVER    /* another worker called since then: *status, *sys say how it ended */
};
struct flight {
    uint64_t hash;
    uint64_t theirs;  /* FLIGHT_THEIRS: the owner that is waited for */
    int64_t since_ms; /* monotonic: what ended before is no answer */
    bool waited;
};
/* Any thread. */
enum flight_turn flight_begin(struct flights *t, struct cache_shared *s, unsigned slot,
                              struct flight *f, int status[1], int sys[1]);
/* Has the flight that f waits for ended? Cheap; an owner's death shows in flight_begin alone. */
bool flight_moved(const struct flights *t, const struct flight *f);
/* The owner makes another call. */
void flight_keep(struct flights *t, uint64_t hash);
/* Of the owner; harmless for somebody else. status GW_CANCELLED: nothing is known, who waits calls
 * itself. */
void flight_end(struct flights *t, struct cache_shared *s, unsigned slot, uint64_t hash, int status,
                int sys);

#endif
