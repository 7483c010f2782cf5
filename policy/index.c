/* SPDX-License-Identifier: Apache-2.0 */
/* policy/index.c - open addressing, and an index of globs by literal prefix. */
#include "policy/index_internal.h"

#include <string.h>

/* FNV-1a, with a last mix because tables take the low bits. */
#define HASH_START 0xcbf29ce484222325u
static inline uint64_t hash_step(uint64_t h, unsigned char c)
{
    return (h ^ c) * 0x100000001b3u;
}
static inline uint32_t hash_end(uint64_t h)
{
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

uint32_t policy_hash(struct gw_str s)
{
    uint64_t h = HASH_START;
    size_t i;

    for (i = 0; i < s.n; i++) {
        h = hash_step(h, policy_fold((unsigned char)s.p[i]));
    }
    return hash_end(h);
}

uint32_t policy_map_find(const struct policy_map *m, uint32_t hash, struct gw_str probe,
                         policy_same same)
{
    uint32_t i;

    if (m->n == 0) {
        return POLICY_NONE;
    }
    for (i = hash & (m->cap - 1); m->slots[i].id; i = (i + 1) & (m->cap - 1)) {
        if (m->slots[i].hash == hash && same(m->keys[m->slots[i].id - 1], probe)) {
            return m->slots[i].id - 1;
        }
    }
    return POLICY_NONE;
}

static void put_slot(struct policy_map *m, uint32_t hash, uint32_t id)
{
    uint32_t i = hash & (m->cap - 1);

    while (m->slots[i].id) {
        i = (i + 1) & (m->cap - 1);
    }
    m->slots[i] = (struct policy_map_slot){hash, id + 1};
}

/* Doubles; what it grew out of stays in the arena, together no more than the new size. */
static bool grow(struct policy_map *m, struct gw_arena *a)
{
    struct policy_map old = *m;
    uint32_t i;

    m->cap = old.cap ? old.cap * 2 : 16;
    m->slots = gw_arena_alloc(a, m->cap * sizeof(*m->slots));
    m->keys = gw_arena_alloc(a, m->cap / 2 * sizeof(*m->keys));
    if (!m->slots || !m->keys) {
        *m = old;
        return false;
    }
    if (old.n) {
        memcpy(m->keys, old.keys, old.n * sizeof(*m->keys));
    }
    for (i = 0; i < old.cap; i++) {
        if (old.slots[i].id) {
            put_slot(m, old.slots[i].hash, old.slots[i].id - 1);
        }
    }
    return true;
}

uint32_t policy_map_add(struct policy_map *m, struct gw_arena *a, uint32_t hash, struct gw_str key)
{
    if (m->n == m->cap / 2 && !grow(m, a)) {
        return POLICY_NONE;
    }
    m->keys[m->n] = key;
    put_slot(m, hash, m->n);
    return m->n++;
}

uint32_t policy_name_find(const struct policy_map *m, struct gw_str name)
{
    return policy_map_find(m, policy_hash(name), name, gw_str_ieq);
}

uint32_t policy_name_intern(struct policy_map *m, struct gw_arena *a, struct gw_str name)
{
    uint32_t hash = policy_hash(name), id = policy_map_find(m, hash, name, gw_str_ieq);

    return id != POLICY_NONE ? id : policy_map_add(m, a, hash, name);
}

static struct gw_str key_of(const struct policy_entry *e)
{
    return e->glob ? gw_str_sub(e->glob->code, 0, e->glob->prefix) : GW_STR("");
}

static bool is_whole(const struct policy_entry *e)
{
    return e->glob && e->glob->prefix == e->glob->code.n;
}

/* Every key of a kind an id (*ids), every id a span behind the ones before it. */
static bool count_spans(struct policy_map *m, struct policy_span **spans, uint32_t *ids,
                        struct gw_arena *a, const struct policy_entry *all, size_t n, bool whole)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (is_whole(&all[i]) != whole) {
            continue;
        }
        ids[i] = policy_name_intern(m, a, key_of(&all[i]));
        if (ids[i] == POLICY_NONE) {
            return false;
        }
    }
    *spans = gw_arena_alloc(a, (m->n + 1) * sizeof(**spans));
    if (!*spans) {
        return false;
    }
    for (i = 0; i < n; i++) {
        if (is_whole(&all[i]) == whole) {
            (*spans)[ids[i]].n++;
        }
    }
    return true;
}

static uint32_t place_spans(const struct policy_map *m, struct policy_span *spans, uint32_t first)
{
    uint32_t i;

    for (i = 0; i < m->n; i++) {
        spans[i].first = first;
        first += spans[i].n;
        spans[i].n = 0;
    }
    return first;
}

bool policy_index_build(struct policy_index *x, struct gw_arena *a, const struct policy_entry *all,
                        size_t n)
{
    uint32_t *ids = gw_arena_alloc(a, (n + 1) * sizeof(*ids));
    size_t i;

    x->entries = gw_arena_alloc(a, (n + 1) * sizeof(*x->entries));
    if (!ids || !x->entries || !count_spans(&x->whole, &x->in_whole, ids, a, all, n, true) ||
        !count_spans(&x->prefix, &x->in_prefix, ids, a, all, n, false)) {
        return false;
    }
    place_spans(&x->prefix, x->in_prefix, place_spans(&x->whole, x->in_whole, 0));
    for (i = 0; i < n; i++) {
        struct policy_span *s = is_whole(&all[i]) ? &x->in_whole[ids[i]] : &x->in_prefix[ids[i]];
        size_t len = key_of(&all[i]).n;

        x->entries[s->first + s->n++] = all[i];
        if (!is_whole(&all[i])) {
            x->lengths[len / 64] |= 1ull << (len % 64);
        }
    }
    return true;
}

static bool visit_span(const struct policy_index *x, const struct policy_map *m,
                       const struct policy_span *spans, uint64_t hash, struct gw_str key,
                       bool whole, policy_visit visit, void *ctx)
{
    uint32_t id = policy_map_find(m, hash_end(hash), key, gw_str_eq);

    return id != POLICY_NONE && visit(ctx, x->entries + spans[id].first, spans[id].n, whole);
}

bool policy_index_walk(const struct policy_index *x, struct gw_str text, policy_visit visit,
                       void *ctx)
{
    uint64_t h = HASH_START;
    size_t i;

    for (i = 0;; i++) {
        if (i <= POLICY_GLOB_MAX_BYTES && x->lengths[i / 64] >> (i % 64) & 1 &&
            visit_span(x, &x->prefix, x->in_prefix, h, gw_str_sub(text, 0, i), false, visit, ctx)) {
            return true;
        }
        if (i == text.n) {
            break;
        }
        h = hash_step(h, (unsigned char)text.p[i]);
    }
    return visit_span(x, &x->whole, x->in_whole, h, text, true, visit, ctx);
}
