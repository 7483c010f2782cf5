/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hub_entry.c - a record of the index, as it is and with its checksum made right:
 * what is accepted is what we would have written. */
#include <stdint.h>
#include <stdlib.h>

#include "base/encode.h"
#include "hub/hub.h"

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check(struct gw_str bytes)
{
    struct hub_entry e;
    struct gw_buf b;

    if (hub_entry_decode(&e, bytes, NULL) != GW_OK) {
        return;
    }
    gw_buf_init(&b, 1 << 20);
    hub_entry_encode(&b, &e);
    demand(!b.failed && gw_str_eq(gw_buf_str(&b), bytes));
    gw_buf_reset(&b);
    hub_put_entry(&b, &e, GW_STR(""));
    demand(!b.failed);
    gw_buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy;
    uint32_t crc;

    check((struct gw_str){(const char *)data, size});
    if (size < 4) {
        return 0;
    }
    copy = malloc(size);
    demand(copy != NULL);
    memcpy(copy, data, size);
    crc = gw_crc32(0, copy, size - 4);
    for (size_t i = 0; i < 4; i++) {
        copy[size - 4 + i] = (char)(crc >> (8 * i));
    }
    check((struct gw_str){copy, size});
    free(copy);
    return 0;
}
