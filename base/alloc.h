/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/alloc.h - malloc that tests can fail.
 *
 * Rooms allocate long-lived objects only through these, so that a unit test can make the n-th call
 * fail (nghttp2's failmalloc). Any thread.
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>

void *gw_alloc(size_t n);            /* zeroed; NULL on failure; n == 0 gives a unique pointer */
void *gw_realloc(void *p, size_t n); /* NULL on failure, p stays valid; new bytes are not zeroed */
char *gw_strndup(const char *p, size_t n); /* adds a NUL */
void gw_free(void *p);                     /* NULL is fine */

/* Tests only: the n-th allocation from now on (1 = the next) and all after it fail; 0 switches
 * failing off. Returns how many allocations were made (tried) since the last call; counting begins
 * with the first call. */
size_t gw_alloc_fail_at(size_t n);

#endif
