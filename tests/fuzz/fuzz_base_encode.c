/* SPDX-License-Identifier: Apache-2.0 */
/* What is encoded decodes to itself; what decodes strictly has one text, so encoding gives it back.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_hex(struct gw_str in)
{
    char *text = gw_alloc(2 * in.n + 1), *back = gw_alloc(in.n);

    require(text != NULL && back != NULL);
    gw_hex_encode(text, in.p, in.n);
    require(gw_is_hex_lower((struct gw_str){text, 2 * in.n}, 2 * in.n));
    require(gw_hex_decode(back, in.n, (struct gw_str){text, 2 * in.n}));
    require(memcmp(back, in.p, in.n) == 0);
    gw_hex_decode(back, in.n / 2, in);
    gw_free(text);
    gw_free(back);
}

static void check_base64(struct gw_str in)
{
    struct gw_buf text;
    char *out = gw_alloc(in.n);
    size_t n;

    require(out != NULL);
    gw_buf_init(&text, SIZE_MAX / 4);
    gw_base64_encode(&text, in);
    require(gw_base64_decode(gw_buf_str(&text), out, in.n, &n));
    require(n == in.n && memcmp(out, in.p, n) == 0);
    if (gw_base64_decode(in, out, in.n / 4 * 3, &n)) {
        gw_buf_reset(&text);
        gw_base64_encode(&text, (struct gw_str){out, n});
        require(gw_str_eq(gw_buf_str(&text), in));
    }
    gw_buf_release(&text);
    gw_free(out);
}

static void check_percent(struct gw_str in)
{
    struct gw_arena arena;
    struct gw_buf text;
    struct gw_str out;

    gw_arena_init(&arena, SIZE_MAX / 4);
    gw_buf_init(&text, SIZE_MAX / 4);
    for (int keep = 0; keep < 2; keep++) {
        gw_buf_reset(&text);
        gw_percent_encode(&text, in, keep);
        require(gw_percent_decode(&arena, gw_buf_str(&text), false, &out) && gw_str_eq(out, in));
        require(gw_percent_decode(&arena, gw_buf_str(&text), true, &out) && gw_str_eq(out, in));
    }
    if (gw_percent_decode(&arena, in, true, &out)) {
        require(out.n <= in.n && out.p[out.n] == '\0');
    }
    gw_buf_release(&text);
    gw_arena_release(&arena);
}

static void check_numbers(struct gw_str in)
{
    char iso[GW_ISO_LEN + 1];
    int64_t ms, again;
    uint64_t bytes;

    if (gw_iso_parse(in, &ms)) {
        gw_iso_format(iso, ms);
        require(gw_iso_parse(gw_str_c(iso), &again) && again == ms);
    }
    if (gw_duration_parse(in, &ms)) {
        require(ms >= 0);
    }
    gw_bytes_parse(in, &bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str in = {(const char *)data, size};

    check_hex(in);
    check_base64(in);
    check_percent(in);
    check_numbers(in);
    return 0;
}
