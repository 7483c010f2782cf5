/* SPDX-License-Identifier: Apache-2.0 */
/* base/alloc.c - the C library's allocator; counted only once a test has asked, so that threads
 * share nothing. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static atomic_bool watched;
static atomic_size_t made, fail_from;

static bool must_fail(void)
{
    size_t nth, from;

    if (!atomic_load_explicit(&watched, memory_order_relaxed)) {
        return false;
    }
    nth = atomic_fetch_add(&made, 1) + 1;
    from = atomic_load(&fail_from);
    return from != 0 && nth >= from;
}

void *gw_alloc(size_t n)
{
    return must_fail() ? NULL : calloc(1, n != 0 ? n : 1);
}

void *gw_realloc(void *p, size_t n)
{
    return must_fail() ? NULL : realloc(p, n != 0 ? n : 1);
}

char *gw_strndup(const char *p, size_t n)
{
    char *copy;

    if (n == SIZE_MAX || (copy = gw_alloc(n + 1)) == NULL) {
        return NULL;
    }
    if (n != 0) {
        memcpy(copy, p, n);
    }
    return copy;
}

void gw_free(void *p)
{
    free(p);
}

size_t gw_alloc_fail_at(size_t n)
{
    atomic_store(&fail_from, n);
    atomic_store(&watched, true);
    return atomic_exchange(&made, 0);
}
