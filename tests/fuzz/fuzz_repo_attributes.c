/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, NUL, a path: any answer, in time. And the line for a path covers that path. */
#include "repo/repo_internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str text = {(const char *)data, size}, attributes, rest, part;
    struct repo_rules *rules;
    struct gw_arena a;
    struct gw_buf b;
    bool plain = true;

    if (size > 4096 || !gw_str_split(&text, '\0', &attributes) || text.p == NULL || text.n == 0) {
        return 0;
    }
    gw_arena_init(&a, 1u << 20);
    if (repo_rules_parse(&rules, attributes, 0, NULL, &a, NULL) == GW_OK) {
        repo_rules_lfs(rules, text);
    }
    for (rest = text; gw_str_split(&rest, '/', &part);) {
        plain = plain && repo_component_refused(part) == NULL;
    }
    gw_buf_init(&b, 1u << 20);
    repo_rules_put_path(&b, text);
    if (plain && repo_rules_parse(&rules, gw_buf_str(&b), 0, NULL, &a, NULL) == GW_OK &&
        !repo_rules_lfs(rules, text)) {
        abort();
    }
    gw_buf_release(&b);
    gw_arena_release(&a);
    return 0;
}
