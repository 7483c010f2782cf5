/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hub_target.c - "METHOD TARGET": what is parsed has no dangerous part, and written
 * again it is the same target. */
#include <stdint.h>
#include <stdlib.h>

#include "hub/hub.h"

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_part(struct gw_str s, bool is_path)
{
    struct gw_str rest = s, part;

    demand(s.p != NULL);
    demand(gw_utf8_valid(s));
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        demand(c >= 0x20 && c != 0x7f && c != '\\');
    }
    if (is_path && s.n != 0) {
        while (gw_str_split(&rest, '/', &part)) {
            demand(part.n != 0 && !gw_str_eq_c(part, ".") && !gw_str_eq_c(part, ".."));
        }
    }
}

static void check_name(struct gw_str s)
{
    check_part(s, true);
    demand(s.n <= 96);
    demand(s.n == 0 || memchr(s.p, '/', s.n) == NULL);
    demand(memmem(s.p, s.n, "..", 2) == NULL && memmem(s.p, s.n, "--", 2) == NULL);
}

static bool same(const struct hub_target *a, const struct hub_target *b)
{
    return a->route == b->route && a->type == b->type && a->action == b->action &&
           a->has_repo == b->has_repo && a->head == b->head && gw_str_eq(a->ns, b->ns) &&
           gw_str_eq(a->name, b->name) && gw_str_eq(a->revision, b->revision) &&
           gw_str_eq(a->path, b->path) && a->recursive == b->recursive && a->expand == b->expand &&
           a->blobs == b->blobs && a->include_prs == b->include_prs &&
           a->security_status == b->security_status && a->limit == b->limit &&
           gw_str_eq(a->cursor, b->cursor) && gw_str_eq(a->keys, b->keys) &&
           gw_str_eq(a->query, b->query);
}

static void write_and_parse(const struct hub_target *t, struct gw_str method, struct gw_arena *a)
{
    struct hub_target again;
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 1 << 20);
    hub_put_upstream_target(&b, t, t->revision);
    demand(!b.failed);
    if (b.n != 0) {
        for (size_t i = 0; i < b.n; i++) {
            demand(b.p[i] > 0x20 && b.p[i] < 0x7f && b.p[i] != '#' && b.p[i] != ',');
        }
        rc = hub_target_parse(&again, method, gw_buf_str(&b), a, NULL);
        /* quoting makes it three times as long at most */
        demand(rc == GW_OK ? same(t, &again) : rc == GW_TOO_LARGE && b.n > HUB_TARGET_MAX);
    }
    gw_buf_reset(&b);
    hub_put_link_next(&b, GW_STR("https://hub"), t, GW_STR("a,b\"c\n>"));
    demand(!b.failed && memchr(b.p, ',', b.n) == NULL && memchr(b.p, '\n', b.n) == NULL);
    gw_buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str target = {(const char *)data, size}, method;
    struct hub_target t;
    struct gw_arena a;

    if (size == 0 || !gw_str_split(&target, ' ', &method) || target.p == NULL) {
        return 0;
    }
    gw_arena_init(&a, 1 << 20);
    if (hub_target_parse(&t, method, target, &a, NULL) == GW_OK) {
        demand(t.route < HUB_ROUTE_COUNT);
        demand(t.has_repo == (t.name.n != 0));
        demand(t.path.n <= HUB_PATH_MAX && t.revision.n <= HUB_REVISION_MAX);
        demand(memmem(t.revision.p, t.revision.n, "..", 2) == NULL);
        check_name(t.ns);
        check_name(t.name);
        check_part(t.revision, true);
        check_part(t.path, true);
        check_part(t.cursor, false);
        check_part(t.query, false);
        write_and_parse(&t, method, &a);
    }
    gw_arena_release(&a);
    return 0;
}
