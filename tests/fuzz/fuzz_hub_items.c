/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as an array of upstream's list (items are slices of it, in order), as the head of a README
 * (JSON, or nothing) and as a list's query (what is kept of it reads the same again). */
#include "hub/hub.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_items(struct gw_str text)
{
    struct gw_str rest = text, item, id;
    const char *end = text.p;

    while (hub_next_item(&rest, &item, &id)) {
        if (item.p < end || item.n < 2 || item.p + item.n > text.p + text.n ||
            (id.n != 0 && (id.p < item.p || id.p + id.n > item.p + item.n))) {
            abort();
        }
        end = item.p + item.n;
    }
}

static void check_card(struct gw_str text)
{
    struct gw_json *root;
    struct gw_arena a;
    struct gw_buf out;

    gw_arena_init(&a, 4u << 20);
    gw_buf_init(&out, 1u << 20);
    hub_card_json(&out, text, &a);
    if (out.n != 0) {
        /* a card may nest no deeper, nor name a key twice, than JSON's reader takes */
        if (gw_json_parse(&root, gw_buf_str(&out), NULL) != GW_OK || !gw_json_is_object(root)) {
            abort();
        }
        gw_json_free(root);
    }
    gw_buf_release(&out);
    gw_arena_release(&a);
}

static void check_query(struct gw_str text)
{
    struct hub_target t, again;
    struct hub_list list;
    struct gw_arena a;
    struct gw_str raw;
    struct gw_buf b;

    gw_arena_init(&a, 4u << 20);
    gw_buf_init(&b, 1u << 20);
    raw = gw_arena_printf(&a, "/api/models?" GW_STR_FMT, GW_STR_ARG(text));
    if (raw.p != NULL && hub_target_parse(&t, GW_STR("GET"), raw, &a, NULL) == GW_OK) {
        (void)!hub_list_parse(&list, &t, &a, NULL);
        hub_put_list_target(&b, &t, GW_STR(""));
        if (b.n <= HUB_TARGET_MAX && t.query.n != 0 &&
            (hub_target_parse(&again, GW_STR("GET"), gw_buf_str(&b), &a, NULL) != GW_OK ||
             !gw_str_eq(again.query, t.query))) {
            abort();
        }
    }
    gw_buf_release(&b);
    gw_arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str text = {(const char *)data, size};
    struct gw_buf b;

    if (size > 8192 || size == 0) {
        return 0;
    }
    check_items(text);
    check_card(text);
    gw_buf_init(&b, 1u << 20);
    gw_buf_addf(&b, "---\n" GW_STR_FMT "\n---\n", GW_STR_ARG(text));
    check_card(gw_buf_str(&b));
    gw_buf_release(&b);
    check_query(text);
    return 0;
}
