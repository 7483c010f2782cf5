/* SPDX-License-Identifier: Apache-2.0 */
/* cache/limit_internal.h - reading upstream's rate limits: for upstream.c, the fetcher and tests.
 * Any thread. */
#ifndef CACHE_LIMIT_INTERNAL_H
#define CACHE_LIMIT_INTERNAL_H

#include "cache/cache.h"

struct limit_bucket {
    int64_t remaining, reset_s, quota; /* -1: not said; seconds <= 900 */
};
struct limit_said {
    struct limit_bucket buckets[CACHE_LIMIT_KINDS];
};
#define LIMIT_SAID_NOTHING                                                                         \
    {                                                                                              \
        {                                                                                          \
            {-1, -1, -1}, {-1, -1, -1},                                                            \
            {                                                                                      \
                -1, -1, -1                                                                         \
            }                                                                                      \
        }                                                                                          \
    }

enum cache_limit_kind limit_kind_of(struct gw_str path); /* of a target on the Hub */
/* RateLimit or RateLimit-Policy. What cannot be read is left out. */
void limit_read(struct limit_said *said, struct gw_str value);
/* Retry-After: seconds or a date. @return seconds, at most 900; -1: neither */
int64_t limit_retry_after(struct gw_str value, int64_t now_ms);
/* An answer of the Hub itself to a request of this kind. retry_after_s -1: not said */
void limit_learn(struct cache_shared *s, enum cache_limit_kind asked, int status,
                 int64_t retry_after_s, const struct limit_said *said);
/* The same from the headers of a finished request on a curl handle. path: of its URL */
void limit_hear(struct cache_shared *s, void *easy, struct gw_str path, int status);
/* Before a request to the Hub itself. @return GW_OK; GW_UNAVAILABLE with err->sys 429 */
int limit_check(struct cache_shared *s, struct gw_str path, struct gw_error *err) GW_MUST_CHECK;

#endif
