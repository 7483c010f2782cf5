/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_cache_map.c - a .map file with any content: refused, or safe to work with.
 *
 * The input is an image. It is judged as it is, and once more with its CRCs made right, so that
 * what is behind them is reached: whatever is accepted must bear every operation of a fill.
 */
#include "base/encode.h"
#include "cache/fill_internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INO 77u
#define BOOT 5u

static const char digest[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(uint8_t *image, size_t n)
{
    struct map m = {.map_fd = -1, .part_fd = -1, .bytes = n};
    struct gw_sha256 s;
    uint64_t size, missing;

    m.head = (const struct map_head *)image;
    m.live = (struct map_live *)(image + MAP_PAGE);
    m.granule = (_Atomic uint8_t *)(image + MAP_GRANULES_AT);
    size = m.head->size;
    m.granules = size / CACHE_GRANULE + (size % CACHE_GRANULE != 0);
    for (int settled = 0; settled < 2; settled++) {
        for (uint64_t at = 0; at < size; at += at < 4096 ? 511 : CACHE_GRANULE / 2 + 1) {
            if (map_ready(&m, at, size) > size - at || map_ready(&m, at, at + 10) > 10) {
                abort();
            }
        }
        missing = map_missing(&m, 0);
        if (missing > m.granules || map_wanted(&m, 0) > m.granules ||
            map_demanded(&m, missing) > m.granules ||
            (missing == m.granules && (m.head->flags & MAP_LINKED) == 0 && !map_unfinished(&m)) ||
            (missing < m.granules && map_ask(&m, missing, GRANULE_DEMANDED) &&
             map_demanded(&m, 0) > missing) ||
            map_bytes(&m, missing) > size) {
            abort();
        }
        map_hash_load(&m, &s);
        if (s.bytes > map_bytes(&m, missing)) {
            abort();
        }
        map_hash_save(&m, &s);
        (void)map_seal(&m);
        map_settle(&m);
    }
    for (unsigned i = 0; i < MAP_TRANSFERS; i++) { /* what is left can be resumed */
        uint64_t word = atomic_load(&m.live->transfers[i]);

        if (word != 0 && (transfer_granule(word) >= m.granules ||
                          transfer_granule(word) * CACHE_GRANULE + transfer_bytes(word) >= size)) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str wanted = {digest, 64};
    uint8_t *image = malloc(size != 0 ? size : 1);

    if (image == NULL) {
        return 0;
    }
    memcpy(image, data, size);
    for (int mended = 0; mended < 2; mended++) {
        struct map_head *h = (struct map_head *)image;
        uint64_t part = size >= MAP_PAGE ? h->size : 0;

        if (map_doubt(image, size, wanted, part, INO, BOOT) == NULL) {
            use(image, size);
        }
        if (size < MAP_GRANULES_AT) {
            break;
        }
        h->crc = gw_crc32(0, h, offsetof(struct map_head, crc));
        for (unsigned i = 0; i < 2; i++) {
            struct map_hash *hash = &((struct map_live *)(image + MAP_PAGE))->hash[i];

            hash->crc = gw_crc32(h->crc, hash, offsetof(struct map_hash, crc));
        }
    }
    free(image);
    return 0;
}
