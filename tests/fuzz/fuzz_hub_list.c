/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hub_list.c - a list of upstream: each entry that is handed out is safe, survives
 * the index, and its JSON is JSON without a Xet hint; pieces of any size give the same. */
#include <stdint.h>
#include <stdlib.h>

#include "hub/hub.h"

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static int on_json(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    demand(ev != GW_JSON_KEY ||
           (!gw_str_eq_c(text, "xetHash") && !gw_str_eq_c(text, "xetEnabled")));
    demand(depth != 0 || ev == GW_JSON_OBJECT_BEGIN || ev == GW_JSON_OBJECT_END);
    return GW_OK;
}

static void check_json(struct gw_str json)
{
    struct gw_json_reader *r = gw_json_reader_new(1 << 20, on_json, NULL);

    demand(r != NULL);
    demand(gw_json_reader_feed(r, json, NULL) == GW_OK);
    demand(gw_json_reader_finish(r, NULL) == GW_OK);
    gw_json_reader_free(r);
}

static void check_codec(const struct hub_entry *e)
{
    struct hub_entry again;
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    hub_entry_encode(&b, e);
    demand(!b.failed);
    demand(hub_entry_decode(&again, gw_buf_str(&b), NULL) == GW_OK);
    demand(gw_str_eq(again.path, e->path) && again.size == e->size && again.lfs == e->lfs &&
           again.directory == e->directory && gw_str_eq(again.xet, e->xet));
    gw_buf_release(&b);
}

static int on_entry(void *ctx, const struct hub_entry *e, struct gw_str json)
{
    struct gw_buf *all = ctx;
    struct gw_str rest = e->path, part;

    demand(e->path.n != 0 && e->path.n <= HUB_PATH_MAX && json.n <= 65536);
    while (gw_str_split(&rest, '/', &part)) {
        demand(part.n != 0 && !gw_str_eq_c(part, "..") && memchr(part.p, '\0', part.n) == NULL);
    }
    check_json(json);
    check_codec(e);
    gw_buf_add(all, json);
    return GW_OK;
}

static int read_list(struct gw_buf *all, struct gw_str json, size_t piece)
{
    struct hub_list_reader *r = hub_list_reader_new(on_entry, all);
    int rc = GW_OK;

    demand(r != NULL);
    for (size_t at = 0; at < json.n && rc == GW_OK; at += piece) {
        rc = hub_list_reader_feed(r, gw_str_sub(json, at, piece), NULL);
    }
    if (rc == GW_OK) {
        rc = hub_list_reader_finish(r, NULL);
    }
    hub_list_reader_free(r);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str json = {(const char *)data, size};
    struct gw_buf whole, pieces;

    gw_buf_init(&whole, 16 << 20);
    gw_buf_init(&pieces, 16 << 20);
    demand(read_list(&whole, json, size + 1) == read_list(&pieces, json, 1 + size % 7));
    demand(gw_str_eq(gw_buf_str(&whole), gw_buf_str(&pieces)));
    gw_buf_release(&whole);
    gw_buf_release(&pieces);
    return 0;
}
