/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_cache_head.c - any header lines of an upstream, before a byte of its body is
 * used.
 *
 * The first byte says what was asked for; the rest are lines, handed over one by one as libcurl
 * does. Whatever is accepted must be the range that was asked for, of the size that is known, not
 * encoded; lines of any kind cost no more than CACHE_HEADERS_MAX.
 */
#include "cache/fetcher_internal.h"
#include "cache/fill_internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GRANULES 5u
#define SIZE (GRANULES * CACHE_GRANULE - 1000u)

static const char digest[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static char image[MAP_GRANULES_AT + GRANULES] __attribute__((aligned(8)));

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(const struct transfer *t)
{
    const struct answer *a = &t->answer;

    if (t->checked && (t->bad != 0 || a->status != 206 || a->encoded || !a->has_range ||
                       a->total != SIZE || a->start != t->start || a->end > t->asked)) {
        abort();
    }
    if (a->length < -1 || a->linked_size < -1 || strlen(a->etag) > 64 ||
        strlen(a->linked_etag) > 64 || a->location.n > CACHE_HEADERS_MAX) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fetcher fetcher = {.again = false};
    struct fill fill = {.digest = ""};
    struct transfer t = {.fetcher = &fetcher, .fill = &fill};
    const char *p = (const char *)data + 1, *end = (const char *)data + size, *line_end;
    char *line;
    size_t taken = 0;

    if (size == 0) {
        return 0;
    }
    memset(image, 0, sizeof(image));
    map_format(image, (struct gw_str){digest, 64}, SIZE, GW_STR("/a/b"), 0, 1, 1, 1);
    fill.map = (struct map){.map_fd = -1, .part_fd = -1, .image = image, .bytes = sizeof(image)};
    fill.map.head = (const struct map_head *)(const void *)image;
    fill.map.live = (struct map_live *)(void *)(image + MAP_PAGE);
    fill.map.granule = (_Atomic uint8_t *)(image + MAP_GRANULES_AT);
    fill.map.granules = GRANULES;
    memcpy(fill.digest, digest, 64);
    t.own = data[0] & 1;
    t.node = data[0] & 2;
    fill.digest_etags = data[0] & 4;
    t.start = t.pos = (data[0] >> 4) % GRANULES * CACHE_GRANULE;
    t.end = t.asked = t.start + CACHE_GRANULE < SIZE ? t.start + CACHE_GRANULE : SIZE;
    gw_buf_init(&t.url, 4096);
    gw_buf_add_c(&t.url, "https://cdn.example/x");
    gw_buf_init(&t.answer.location, 8192);
    transfer_reset_answer(&t.answer);

    while (p < end && t.bad == 0) {
        line_end = memchr(p, '\n', (size_t)(end - p));
        line_end = line_end != NULL ? line_end + 1 : end;
        line = malloc((size_t)(line_end - p)); /* of its own: what is read behind it is seen */
        memcpy(line, p, (size_t)(line_end - p));
        taken = transfer_on_header(line, 1, (size_t)(line_end - p), &t);
        free(line);
        judge(&t);
        if (taken != (size_t)(line_end - p)) {
            if (t.bad == 0) {
                abort(); /* ended without a reason */
            }
            break;
        }
        p = line_end;
    }
    transfer_forget_url(&fill);
    gw_buf_release(&t.url);
    gw_buf_release(&t.answer.location);
    return 0;
}
