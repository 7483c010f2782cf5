/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_auth_users.c - any account file. What is accepted survives an edit: the same
 * users, the same data. */
#include <stdlib.h>

#include "auth/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void same(const struct auth_users *a, const struct auth_users *b, struct gw_str name)
{
    struct gw_arena arena = {0};
    struct auth_subject x, y;

    gw_arena_init(&arena, 65536);
    int rc = auth_users_find(a, name, &arena, &x, NULL);
    require(auth_users_find(b, name, &arena, &y, NULL) == rc);
    if (rc == GW_OK) {
        require(gw_str_eq(x.id, y.id) && gw_str_eq(x.display, y.display) &&
                gw_str_eq(x.email, y.email) && x.state == y.state && x.n_groups == y.n_groups);
        for (size_t i = 0; i < x.n_groups; i++) {
            require(gw_str_eq(x.groups[i], y.groups[i]));
        }
    }
    gw_arena_release(&arena);
}

/* Writes the file again with alice as she is, and reads it. */
static void edit(const struct auth_users *u)
{
    struct gw_arena arena = {0};
    struct auth_subject alice;
    struct auth_users *again = NULL;
    struct gw_buf out;

    gw_arena_init(&arena, 65536);
    gw_buf_init(&out, 4 << 20);
    if (auth_users_find(u, GW_STR("alice"), &arena, &alice, NULL) == GW_OK) {
        require(auth_users_edit(&out, u, GW_STR("alice"), GW_STR(""), alice.groups, alice.n_groups,
                                NULL) == GW_OK);
        if (out.n <= 1 << 20) {
            require(auth_users_parse(&again, GW_STR("again"), gw_buf_str(&out), NULL) == GW_OK);
            require(auth_users_count(again) == auth_users_count(u));
            same(u, again, GW_STR("alice"));
            same(u, again, GW_STR("bob"));
            same(u, again, GW_STR("0"));
        }
    } else {
        require(auth_users_edit(&out, u, GW_STR("alice"), GW_STR(""), NULL, 0, NULL) ==
                GW_NOT_FOUND);
    }
    auth_users_free(again);
    gw_buf_release(&out);
    gw_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct auth_users *u = NULL;
    struct gw_error err = {0};

    int rc =
        auth_users_parse(&u, GW_STR("users.yaml"), (struct gw_str){(const char *)data, size}, &err);
    require(rc == GW_OK || rc == GW_INVALID || rc == GW_TOO_LARGE);
    require((rc == GW_OK) == (u != NULL));
    if (rc == GW_OK) {
        edit(u);
    } else if (rc == GW_INVALID) {
        require(strncmp(err.text, "users.yaml:", 11) == 0);
    }
    auth_users_free(u);
    return 0;
}
