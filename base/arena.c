/* SPDX-License-Identifier: Apache-2.0 */
/* base/arena.c - a list of chunks, the first of which is being filled; a large piece gets a chunk
 * of its own behind it. */
#include "base/arena.h"

#include "base/alloc.h"
#include "base/sha.h"

#include <stddef.h>
#include <stdio.h>

#define CHUNK_BYTES 4096u
#define ALIGNMENT _Alignof(max_align_t)

struct gw_arena_chunk {
    struct gw_arena_chunk *next;
    size_t n, cap; /* of data */
    _Alignas(max_align_t) unsigned char data[];
};

#define CHUNK_DATA (CHUNK_BYTES - sizeof(struct gw_arena_chunk))

void gw_arena_init(struct gw_arena *a, size_t max_bytes)
{
    *a = (struct gw_arena){.max = max_bytes};
}

void gw_arena_keep_secret(struct gw_arena *a)
{
    a->secret = true;
}

static struct gw_arena_chunk *add_chunk(struct gw_arena *a, size_t n)
{
    bool own = n > CHUNK_DATA / 4; /* else at most a quarter of the old chunk is left unused */
    size_t cap = own ? n : CHUNK_DATA;
    struct gw_arena_chunk *c = gw_alloc(sizeof(*c) + cap);

    if (c == NULL) {
        return NULL;
    }
    c->cap = cap;
    if (own && a->chunks != NULL) {
        c->next = a->chunks->next;
        a->chunks->next = c;
    } else {
        c->next = a->chunks;
        a->chunks = c;
    }
    return c;
}

void *gw_arena_alloc(struct gw_arena *a, size_t n)
{
    struct gw_arena_chunk *c = a->chunks;
    void *p;

    if (n == 0) {
        n = 1;
    }
    if (n > a->max - a->used || n > SIZE_MAX / 2) {
        return NULL;
    }
    n = (n + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (n > a->max - a->used) {
        n = a->max - a->used; /* the last piece may end unaligned: nothing follows it */
    }
    if ((c == NULL || n > c->cap - c->n) && (c = add_chunk(a, n)) == NULL) {
        return NULL;
    }
    p = c->data + c->n;
    c->n += n;
    a->used += n;
    return p;
}

struct gw_str gw_arena_dup(struct gw_arena *a, struct gw_str s)
{
    char *p = s.n < SIZE_MAX ? gw_arena_alloc(a, s.n + 1) : NULL;

    if (p == NULL) {
        return (struct gw_str){NULL, 0};
    }
    if (s.n != 0) {
        memcpy(p, s.p, s.n);
    }
    return (struct gw_str){p, s.n};
}

struct gw_str gw_arena_printf(struct gw_arena *a, const char *fmt, ...)
{
    va_list args;
    char *p;
    int n;

    /* measured first: no copy of a secret stays on the stack */
    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || (p = gw_arena_alloc(a, (size_t)n + 1)) == NULL) {
        return (struct gw_str){NULL, 0};
    }
    va_start(args, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, args);
    va_end(args);
    return (struct gw_str){p, (size_t)n};
}

const char *gw_arena_cstr(struct gw_arena *a, struct gw_str s)
{
    if (s.n != 0 && memchr(s.p, '\0', s.n) != NULL) {
        return NULL;
    }
    return gw_arena_dup(a, s).p;
}

struct gw_arena_mark gw_arena_mark(const struct gw_arena *a)
{
    struct gw_arena_chunk *c = a->chunks;

    return (struct gw_arena_mark){c, c != NULL ? c->next : NULL, c != NULL ? c->n : 0, a->used};
}

/* Frees the chunks from c up to (not with) end. */
static void drop_chunks(const struct gw_arena *a, struct gw_arena_chunk *c,
                        const struct gw_arena_chunk *end)
{
    while (c != end) {
        struct gw_arena_chunk *next = c->next;

        if (a->secret) {
            gw_wipe(c->data, c->n);
        }
        gw_free(c);
        c = next;
    }
}

void gw_arena_rewind(struct gw_arena *a, struct gw_arena_mark mark)
{
    struct gw_arena_chunk *c = mark.chunk;

    drop_chunks(a, a->chunks, c);
    a->chunks = c;
    a->used = mark.used;
    if (c != NULL) {
        drop_chunks(a, c->next, mark.next); /* large pieces went behind it */
        c->next = mark.next;
        gw_wipe(c->data + mark.n, c->n - mark.n); /* what is handed out is zeroed */
        c->n = mark.n;
    }
}

void gw_arena_release(struct gw_arena *a)
{
    drop_chunks(a, a->chunks, NULL);
    a->chunks = NULL;
    a->used = 0;
}
