/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hub_body.c - the same bytes as a form and as JSON. */
#include <stdint.h>
#include <stdlib.h>

#include "hub/hub.h"

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_text(struct gw_str s)
{
    demand(gw_utf8_valid(s));
    for (size_t i = 0; i < s.n; i++) {
        demand((unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f);
    }
}

static void check(struct gw_str content_type, struct gw_str body)
{
    struct gw_str *paths, value;
    struct gw_arena a;
    bool expand;
    size_t n;

    gw_arena_init(&a, 8 << 20);
    if (hub_paths_parse(&paths, &n, &expand, content_type, body, &a, NULL) == GW_OK) {
        demand(n <= 1000);
        for (size_t i = 0; i < n; i++) {
            struct gw_str rest = paths[i], part;

            demand(paths[i].n != 0 && paths[i].n <= HUB_PATH_MAX);
            check_text(paths[i]);
            while (gw_str_split(&rest, '/', &part)) {
                demand(part.n != 0 && !gw_str_eq_c(part, ".") && !gw_str_eq_c(part, ".."));
            }
        }
    }
    if (hub_field(&value, "name", content_type, body, &a, NULL) == GW_OK) {
        check_text(value);
    }
    gw_arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str body = {(const char *)data, size};

    check(GW_STR("application/x-www-form-urlencoded"), body);
    check(GW_STR("application/json"), body);
    return 0;
}
