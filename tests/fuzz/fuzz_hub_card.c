/* SPDX-License-Identifier: Apache-2.0 */
/* A body of validate-yaml: any answer, and that is JSON. */
#include "hub/hub.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct gw_str body)
{
    struct gw_arena a;
    struct gw_json *root;
    struct gw_buf out;
    bool valid = false;

    gw_arena_init(&a, 4u << 20);
    gw_buf_init(&out, 1u << 20);
    if (hub_card_check(&out, &valid, body, &a, NULL) == GW_OK) {
        if (gw_json_parse(&root, gw_buf_str(&out), NULL) != GW_OK ||
            valid != (gw_json_count(gw_json_get(root, "errors")) == 0)) {
            abort();
        }
        gw_json_free(root);
    }
    gw_buf_release(&out);
    gw_arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str text = {(const char *)data, size};
    struct gw_buf b;

    if (size > 16384) {
        return 0;
    }
    check(text);
    gw_buf_init(&b, 1u << 20);
    gw_buf_add_c(&b, "{\"content\":");
    gw_json_put_string(&b, text);
    gw_buf_add_c(&b, "}");
    check(gw_buf_str(&b));
    gw_buf_release(&b);
    return 0;
}
