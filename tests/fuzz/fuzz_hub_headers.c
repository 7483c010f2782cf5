/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hub_headers.c - header values from outside, and text from outside in ours. */
#include <stdint.h>
#include <stdlib.h>

#include "hub/hub.h"

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_header(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        demand(s.p[i] >= 0x20 && s.p[i] < 0x7f);
    }
}

static void check_refusals(struct gw_str text, struct gw_arena *a)
{
    for (int why = 0; why < HUB_REASON_COUNT; why++) {
        struct gw_json *root = NULL;
        struct hub_refusal r;

        hub_refuse(&r, (enum hub_reason)why, text, true, 0, a);
        check_header(gw_str_sub(r.body, 0, r.body.n - 1));
        hub_refuse(&r, (enum hub_reason)why, text, false, 0, a);
        check_header(r.message);
        demand(r.message.n != 0 && r.message.n <= 512);
        demand(gw_json_parse(&root, r.body, NULL) == GW_OK);
        gw_json_free(root);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str text = {(const char *)data, size}, s;
    struct gw_arena a;
    struct gw_buf b;

    gw_arena_init(&a, 4 << 20);
    gw_buf_init(&b, 8 << 20);
    s = hub_link_cursor(text, &a);
    demand(s.p == NULL || gw_utf8_valid(s));
    s = hub_etag_digest(text);
    demand(s.n == 0 || s.n == 40 || s.n == 64);
    hub_put_content_disposition(&b, text);
    demand(!b.failed);
    check_header(gw_buf_str(&b));
    demand(hub_content_type(text) != NULL);
    demand(hub_classify_upstream(404, text, text) < HUB_REASON_COUNT);
    check_refusals(text, &a);
    gw_buf_release(&b);
    gw_arena_release(&a);
    return 0;
}
