/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/index_internal.h - two structures of a compiled policy: names to small integers, and text
 * to the globs that may match it.
 *
 * Both live in the arena of the policy, are filled while it is compiled and only read afterwards.
 * Inside policy/ only.
 */
#ifndef POLICY_INDEX_INTERNAL_H
#define POLICY_INDEX_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/str.h"
#include "policy/glob_internal.h"

#define POLICY_NONE UINT32_MAX

/* ---- names: each key gets the next integer, 0 first ---- */
struct policy_map_slot {
    uint32_t hash, id; /* id + 1; 0: free */
};
struct policy_map {
    struct policy_map_slot *slots;
    struct gw_str *keys; /* by id */
    uint32_t n, cap;     /* cap: slots, a power of 2, at least twice n */
};

typedef bool (*policy_same)(struct gw_str key, struct gw_str probe);

uint32_t policy_hash(struct gw_str s); /* folded: equal for names that differ in case */
/* POLICY_NONE: not there. */
uint32_t policy_map_find(const struct policy_map *m, uint32_t hash, struct gw_str probe,
                         policy_same same);
/* The key is borrowed and must not be there yet. POLICY_NONE: no memory. */
uint32_t policy_map_add(struct policy_map *m, struct gw_arena *a, uint32_t hash, struct gw_str key);

/* The same for plain names. */
uint32_t policy_name_find(const struct policy_map *m, struct gw_str name);
uint32_t policy_name_intern(struct policy_map *m, struct gw_arena *a,
                            struct gw_str name); /* finds or adds; borrows name */

/* ---- globs, by the literal bytes they begin with ---- */
struct policy_entry {
    const struct policy_glob *glob; /* NULL: matches every text */
    uint32_t rank;                  /* the caller's; entries are added in rising rank */
    uint8_t actions, types, hubs; /* the caller's masks, here to reject without touching the rule */
};
struct policy_span {
    uint32_t first, n;
};
struct policy_index {
    struct policy_map whole, prefix; /* patterns without operators; all others */
    struct policy_span *in_whole, *in_prefix;
    struct policy_entry *entries;
    uint64_t lengths[POLICY_GLOB_MAX_BYTES / 64 + 1]; /* which lengths of prefix exist */
};

/* @return false: no memory */
bool policy_index_build(struct policy_index *x, struct gw_arena *a, const struct policy_entry *all,
                        size_t n);

/* Hands every span whose globs may match text (folded by the caller) to visit: literal ones have
 * matched already. A true from visit ends the walk and is returned. */
typedef bool (*policy_visit)(void *ctx, const struct policy_entry *entries, size_t n, bool matched);
bool policy_index_walk(const struct policy_index *x, struct gw_str text, policy_visit visit,
                       void *ctx);

#endif
