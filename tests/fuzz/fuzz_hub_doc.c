/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hub_doc.c - a document of upstream: what comes out is JSON without a Xet hint,
 * and filtered again it stays as it is. */
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

static int filter(struct gw_buf *out, struct gw_str json, size_t piece)
{
    struct hub_doc_reader *r = hub_doc_reader_new(out);
    struct gw_str sha, id;
    int rc = GW_OK;

    demand(r != NULL);
    for (size_t at = 0; at < json.n && rc == GW_OK; at += piece) {
        rc = hub_doc_reader_feed(r, gw_str_sub(json, at, piece), NULL);
    }
    if (rc == GW_OK) {
        rc = hub_doc_reader_finish(r, NULL);
    }
    sha = hub_doc_reader_sha(r);
    id = hub_doc_reader_id(r);
    demand(sha.n == 0 || hub_is_commit(sha));
    demand(id.n <= 193 && (id.n == 0 || memmem(id.p, id.n, "..", 2) == NULL));
    hub_doc_reader_free(r);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str json = {(const char *)data, size};
    struct gw_buf once, twice, selected;
    int rc;

    gw_buf_init(&once, 16 << 20);
    gw_buf_init(&twice, 16 << 20);
    gw_buf_init(&selected, 16 << 20);
    if (filter(&once, json, 1 + size % 11) == GW_OK) {
        check_json(gw_buf_str(&once));
        demand(filter(&twice, gw_buf_str(&once), size + 1) == GW_OK);
        demand(gw_str_eq(gw_buf_str(&once), gw_buf_str(&twice)));
        rc = hub_info_select(&selected, gw_buf_str(&once), GW_STR("sha,siblings"), NULL);
        demand(rc == GW_INVALID || rc == GW_OK);
        if (rc == GW_OK) {
            check_json(gw_buf_str(&selected));
        }
    }
    gw_buf_release(&once);
    gw_buf_release(&twice);
    gw_buf_release(&selected);
    return 0;
}
