/* SPDX-License-Identifier: Apache-2.0 */
/* A tree that was accepted keeps the promises of base/yaml.h; a refusal names the place. */
#include "base/yaml.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static bool is_clean(struct gw_str s)
{
    return s.p[s.n] == '\0' && strlen(s.p) == s.n && gw_utf8_valid(s);
}

static void check(const struct gw_yaml *n, unsigned depth)
{
    size_t count = 0;

    require(n->line >= 1 && n->column >= 1 && depth <= 16);
    if (n->kind == GW_YAML_SCALAR) {
        require(n->child == NULL && is_clean(n->value));
    }
    for (const struct gw_yaml *c = n->child; c != NULL; c = c->next) {
        if (n->kind == GW_YAML_MAP) {
            require(is_clean(c->key) && c->key_line >= 1 && c->key_column >= 1);
            require(gw_yaml_get(n, c->key.p) == c); /* no duplicates */
        }
        check(c, depth + 1);
        count++;
    }
    require(count == n->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const words[] = {"cache", "upstream", "id", ""};
    struct gw_str text = {(const char *)data, size};
    struct gw_yaml *root;
    struct gw_arena arena;
    struct gw_error err;
    int rc;

    if (size > 65536) { /* check() is quadratic in the keys of a map */
        return 0;
    }
    gw_arena_init(&arena, 64u << 20);
    rc = gw_yaml_parse(&root, GW_STR("f"), text, &arena, &err);
    if (rc == GW_OK) {
        check(root, 0);
    } else {
        require(rc == GW_INVALID);
        require(strncmp(err.text, "f:", 2) == 0 && err.text[2] >= '1' && err.text[2] <= '9');
    }
    gw_arena_release(&arena);
    gw_nearest(text, words, 4);
    return 0;
}
