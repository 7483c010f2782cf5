/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/auth/test_subject.c - the id of a subject, and its record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "auth/auth.h"
#include "base/alloc.h"

static const struct gw_str key = GW_STR_INIT("0123456789abcdef0123456789abcdef");

static const struct gw_str groups[] = {
    GW_STR_INIT("cn=eng,ou=groups,dc=x"),
    GW_STR_INIT("cn=a\\2Cb \"q\" (\xc3\xbc),ou=groups,dc=x"),
};

static struct auth_subject alice(struct gw_arena *a)
{
    struct auth_subject s = {
        .realm = GW_STR("corp"),
        .source_id = GW_STR("5e9f6e2a-7c3b-4c7e-8f1e-0d7c1d0d9a11"),
        .dn = GW_STR("uid=alice,ou=people,dc=x"),
        .name = GW_STR("alice"),
        .display = GW_STR("Alice \xc3\x84rger"),
        .email = GW_STR("alice@corp.example"),
        .state = AUTH_ACTIVE,
        .groups = groups,
        .n_groups = 2,
        .checked_ms = 1700000000000,
    };
    s.id = auth_subject_id(s.realm, s.source_id, a);
    assert_non_null(s.id.p);
    return s;
}

static void ids(void **state)
{
    struct gw_arena a = {0};

    gw_arena_init(&a, 65536);
    /* printf '%s' alice | sha256sum */
    assert_string_equal(auth_subject_id(GW_STR("file"), GW_STR("alice"), &a).p,
                        "file-2bd806c97f0e00af1a1fc3328fa763a9");
    assert_string_equal(auth_subject_id(GW_STR("service"), GW_STR("ci"), &a).p, "service-ci");
    assert_false(gw_str_eq(auth_subject_id(GW_STR("corp"), GW_STR("x"), &a),
                           auth_subject_id(GW_STR("corp2"), GW_STR("x"), &a)));
    gw_arena_release(&a);
}

static void round_trip(void **state)
{
    struct gw_arena a = {0};
    struct gw_buf line;
    struct auth_subject back;

    gw_arena_init(&a, 1 << 20);
    for (int i = 0; i < 3; i++) {
        struct auth_subject s = alice(&a);
        if (i == 1) {
            s.state = AUTH_SUSPENDED;
            s.n_groups = 0;
        }
        if (i == 2) {
            s.service = true;
            s.realm = GW_STR("service");
            s.source_id = s.name = GW_STR("ci");
            s.dn = s.display = s.email = GW_STR("");
            s.id = GW_STR("service-ci");
        }
        gw_buf_init(&line, 8192);
        auth_subject_format(&line, &s, key);
        assert_false(line.failed);
        assert_int_equal(auth_subject_parse(&back, gw_buf_str(&line), s.id, key, &a, NULL), GW_OK);
        assert_true(gw_str_eq(back.id, s.id) && gw_str_eq(back.realm, s.realm) &&
                    gw_str_eq(back.source_id, s.source_id));
        assert_true(gw_str_eq(back.dn, s.dn) && gw_str_eq(back.name, s.name) &&
                    gw_str_eq(back.display, s.display) && gw_str_eq(back.email, s.email));
        assert_int_equal(back.state, s.state);
        assert_int_equal(back.service, s.service);
        assert_true(back.checked_ms == s.checked_ms);
        assert_int_equal(back.n_groups, s.n_groups);
        for (size_t g = 0; g < s.n_groups; g++) {
            assert_true(gw_str_eq(back.groups[g], groups[g]));
        }
        gw_buf_release(&line);
    }
    gw_arena_release(&a);
}

static void damage(void **state)
{
    struct gw_arena a = {0};
    struct gw_buf line;
    struct auth_subject back = {.checked_ms = 7};

    gw_arena_init(&a, 16 << 20);
    struct auth_subject s = alice(&a);
    gw_buf_init(&line, 8192);
    auth_subject_format(&line, &s, key);
    for (size_t i = 0; i + 1 < line.n; i++) {
        line.p[i] ^= 2;
        int rc = auth_subject_parse(&back, gw_buf_str(&line), s.id, key, &a, NULL);
        if (rc != GW_CORRUPT && rc != GW_INVALID) {
            fail_msg("byte %zu: %s", i, gw_status_name(rc));
        }
        line.p[i] ^= 2;
        assert_int_equal(
            auth_subject_parse(&back, gw_str_sub(gw_buf_str(&line), 0, i), s.id, key, &a, NULL),
            GW_CORRUPT);
    }
    assert_int_equal(auth_subject_parse(&back, gw_buf_str(&line), GW_STR("corp-00"), key, &a, NULL),
                     GW_CORRUPT);
    assert_int_equal(auth_subject_parse(&back, gw_buf_str(&line), s.id,
                                        GW_STR("another key of 32 bytes........."), &a, NULL),
                     GW_CORRUPT);

    /* a token record is not a subject, whatever it says */
    struct auth_token t;
    char text[AUTH_TOKEN_LEN + 1];
    assert_int_equal(auth_token_mint(text, &t, 'p', s.id, GW_STR("n"), AUTH_ROLE_READ, 1, 2, NULL),
                     GW_OK);
    gw_buf_reset(&line);
    auth_token_format(&line, &t, key);
    struct gw_error err = {0};
    assert_int_equal(auth_subject_parse(&back, gw_buf_str(&line), s.id, key, &a, &err), GW_CORRUPT);
    assert_non_null(strstr(err.text, "MAC"));
    assert_true(back.checked_ms == 7);
    gw_buf_release(&line);
    gw_arena_release(&a);
}

/* format writes what it is given; parse refuses what no subject may be */
static void unusable(void **state)
{
    struct gw_arena a = {0};
    struct auth_subject back;

    gw_arena_init(&a, 16 << 20);
    for (int i = 0; i < 7; i++) {
        struct auth_subject s = alice(&a);
        struct gw_buf line;
        struct gw_str *many = gw_arena_alloc(&a, (AUTH_GROUPS_MAX + 1) * sizeof(*many));
        assert_non_null(many);

        switch (i) {
        case 0:
            s.name = GW_STR("Alice");
            break;
        case 1:
            s.name = GW_STR("");
            break;
        case 2:
            s.realm = GW_STR("co-rp");
            break;
        case 3:
            s.source_id = GW_STR("");
            break;
        case 4:
            s.id = GW_STR("../alice");
            break;
        case 5:
            s.checked_ms = -1;
            break;
        default:
            s.groups = many;
            s.n_groups = AUTH_GROUPS_MAX + 1;
            break;
        }
        gw_buf_init(&line, 65536);
        auth_subject_format(&line, &s, key);
        assert_int_equal(auth_subject_parse(&back, gw_buf_str(&line), s.id, key, &a, NULL),
                         GW_CORRUPT);
        gw_buf_release(&line);
    }
    gw_arena_release(&a);
}

static void no_memory(void **state)
{
    struct gw_arena a = {0};
    struct gw_buf line;
    struct auth_subject back;

    gw_arena_init(&a, 1 << 20);
    struct auth_subject s = alice(&a);
    gw_buf_init(&line, 8192);
    auth_subject_format(&line, &s, key);
    for (size_t n = 1;; n++) {
        struct gw_arena b = {0};
        gw_arena_init(&b, 1 << 20);
        gw_alloc_fail_at(n);
        int rc = auth_subject_parse(&back, gw_buf_str(&line), s.id, key, &b, NULL);
        gw_alloc_fail_at(0);
        gw_arena_release(&b);
        if (rc == GW_OK) {
            assert_true(n > 2);
            break;
        }
        assert_int_equal(rc, GW_NO_MEMORY);
    }
    struct gw_arena small = {0};
    gw_arena_init(&small, 64); /* the ceiling, not the system */
    assert_int_equal(auth_subject_parse(&back, gw_buf_str(&line), s.id, key, &small, NULL),
                     GW_NO_MEMORY);
    gw_arena_release(&small);
    gw_buf_release(&line);
    gw_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids),      cmocka_unit_test(round_trip), cmocka_unit_test(damage),
        cmocka_unit_test(unusable), cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
