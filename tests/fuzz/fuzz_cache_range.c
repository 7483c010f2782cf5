/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_cache_range.c - any Content-Range: refused, or one range inside of its total. */
#include "cache/fill_internal.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t start, end, total;

    if (fetcher_content_range((struct gw_str){(const char *)data, size}, &start, &end, &total) &&
        (start >= end || end > total)) {
        abort();
    }
    return 0;
}
