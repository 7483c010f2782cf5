/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/arena.h - memory that lives and dies with one request, job or snapshot.
 *
 * Chunks of 4 KiB (larger when asked for more), a ceiling given at init, NULL when it is reached.
 * The ceiling counts what is handed out, each piece rounded up to the alignment. One thread at a
 * time.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

#include "base/error.h"
#include "base/str.h"

struct gw_arena_chunk;
struct gw_arena {
    struct gw_arena_chunk *chunks;
    size_t used, max;
    bool secret;
};

void gw_arena_init(struct gw_arena *a, size_t max_bytes);
void gw_arena_keep_secret(struct gw_arena *a); /* its memory is cleansed when released */

/* Zeroed, aligned for any type; NULL: the ceiling, or no memory. */
void *gw_arena_alloc(struct gw_arena *a, size_t n);
/* A NUL-terminated copy; p == NULL on failure and never otherwise, also for "". */
struct gw_str gw_arena_dup(struct gw_arena *a, struct gw_str s);
/* The same of formatted text. */
struct gw_str gw_arena_printf(struct gw_arena *a, const char *fmt, ...) GW_PRINTF(2, 3);
/* A copy as a C string; NULL on failure or if s holds a NUL. */
const char *gw_arena_cstr(struct gw_arena *a, struct gw_str s);

/* What is handed out after the mark is released by the rewind (and cleansed, if secret). */
struct gw_arena_mark {
    struct gw_arena_chunk *chunk, *next;
    size_t n, used;
};
struct gw_arena_mark gw_arena_mark(const struct gw_arena *a);
void gw_arena_rewind(struct gw_arena *a, struct gw_arena_mark mark);

/* Everything; a may be used again. Zeroed memory is fine. */
void gw_arena_release(struct gw_arena *a);

#endif
