/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_gateway_range.c - 8 bytes of size, then a Range header: what is taken lies within
 * the file, whatever was sent; the client's name is read without harm. */
#include <stdint.h>
#include <stdlib.h>

#include "gateway/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool yes)
{
    if (!yes) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str header = {(const char *)data, size};
    uint64_t total = 0, first = 0, end = 0;
    bool open = false;

    if (size < 8) {
        return 0;
    }
    memcpy(&total, data, 8);
    header = gw_str_sub(header, 8, header.n);
    switch (range_parse(header, total, &first, &end, &open)) {
    case RANGE_ONE:
        demand(first < end && end <= total);
        demand(!open || end == total);
        break;
    case RANGE_SEVERAL:
        demand(memchr(header.p, ',', header.n) != NULL && total > 0);
        break;
    case RANGE_UNSATISFIABLE:
    case RANGE_NONE:
        break;
    default:
        abort();
    }
    (void)range_client_restarts(header);
    return 0;
}
