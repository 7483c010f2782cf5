/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_cache_limit.c - any RateLimit, RateLimit-Policy and Retry-After: whatever they
 * say, nothing is waited for longer than a few windows. */
#include "cache/limit_internal.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cache_shared shared;
    struct gw_str text = {(const char *)data, size};
    struct limit_said said = LIMIT_SAID_NOTHING;
    int64_t wait = limit_retry_after(text, 1764043200000);

    if (wait < -1 || wait > 900) {
        abort();
    }
    limit_read(&said, text);
    limit_learn(&shared, limit_kind_of(text), 429, wait, &said);
    for (int kind = 0; kind < CACHE_LIMIT_KINDS; kind++) {
        const struct limit_bucket *b = &said.buckets[kind];

        if (b->reset_s > 900 || b->remaining > 1000000000 ||
            (b->reset_s < 0) != (b->remaining < 0) ||
            cache_limit_wait_ms(&shared, (enum cache_limit_kind)kind) > 901000) {
            abort();
        }
    }
    return 0;
}
