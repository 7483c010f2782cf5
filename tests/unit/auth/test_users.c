/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/auth/test_users.c - the account file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "auth/auth.h"
#include "base/alloc.h"

/* made by Python's hashlib.scrypt: another implementation agrees on the format */
#define ALICE                                                                                      \
    "scrypt:15:AAECAwQFBgcICQoLDA0ODw==:w8MTObzbEwgcUGatgjfezfRaCOupRSkYnfiHy2cYakA=" /* "wonder   \
                                                                                         land" */
#define BOB                                                                                        \
    "scrypt:14:AAECAwQFBgcICQoLDA0ODw==:2GQJ8I26cdRA0MRrowAhfyvg0YoL+wYXESJmTWHTYB8=" /* "builder" \
                                                                                       */

static const char file[] = "users:\n"
                           "  bob: {password: \"" BOB "\", disabled: true}\n"
                           "  alice:\n"
                           "    password: " ALICE "\n"
                           "    groups: [eng, \"Model Users\"]\n"
                           "    display: \"Alice \\\"the\\\" \xc3\x84rger\"\n"
                           "    email: alice@corp.example\n"
                           "  no:\n"
                           "    password: " BOB "\n"
                           "    disabled: false\n";

static struct auth_users *parse(struct gw_str yaml)
{
    struct auth_users *u = NULL;
    struct gw_error err = {0};

    if (auth_users_parse(&u, GW_STR("users.yaml"), yaml, &err) != GW_OK) {
        fail_msg("%s", err.text);
    }
    return u;
}

static void login(void **state)
{
    static const struct {
        struct gw_str user, password;
        int rc;
    } rows[] = {
        {GW_STR_INIT("alice"), GW_STR_INIT("wonder land"), GW_OK},
        {GW_STR_INIT("ALICE"), GW_STR_INIT("wonder land"), GW_OK},
        {GW_STR_INIT("alice"), GW_STR_INIT("wonder lanD"), GW_UNAUTHENTICATED},
        {GW_STR_INIT("alice"), GW_STR_INIT(""), GW_UNAUTHENTICATED},
        {GW_STR_INIT("alice"), GW_STR_INIT("wonder land\0"), GW_UNAUTHENTICATED},
        {GW_STR_INIT("no"), GW_STR_INIT("builder"), GW_OK},               /* not YAML 1.1's false */
        {GW_STR_INIT("bob"), GW_STR_INIT("builder"), GW_UNAUTHENTICATED}, /* disabled */
        {GW_STR_INIT("carol"), GW_STR_INIT("builder"), GW_UNAUTHENTICATED},
        {GW_STR_INIT(""), GW_STR_INIT("builder"), GW_UNAUTHENTICATED},
        {GW_STR_INIT("al\0ce"), GW_STR_INIT("wonder land"), GW_UNAUTHENTICATED},
    };
    struct auth_users *u = parse(gw_str_c(file));
    char text[240] = "";

    assert_int_equal(auth_users_count(u), 3);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a = {0};
        struct auth_subject s = {0};
        struct gw_error err = {0};

        gw_arena_init(&a, 65536);
        int rc = auth_users_login(u, rows[i].user, rows[i].password, &a, &s, &err);
        if (rc != rows[i].rc) {
            fail_msg("row %zu: %s", i, gw_status_name(rc));
        }
        if (rc != GW_OK) { /* one text for wrong, unknown and disabled */
            assert_true(text[0] == '\0' || strcmp(text, err.text) == 0);
            memcpy(text, err.text, sizeof(text));
            assert_null(s.id.p);
        }
        gw_arena_release(&a);
    }
    auth_users_free(u);
}

static void find(void **state)
{
    struct auth_users *u = parse(gw_str_c(file));
    struct gw_arena a = {0};
    struct auth_subject s;

    gw_arena_init(&a, 65536);
    assert_int_equal(auth_users_find(u, GW_STR("Alice"), &a, &s, NULL), GW_OK);
    assert_true(gw_str_eq_c(s.id, "file-2bd806c97f0e00af1a1fc3328fa763a9"));
    assert_true(gw_str_eq_c(s.realm, "file") && gw_str_eq_c(s.source_id, "alice"));
    assert_true(gw_str_eq_c(s.name, "alice") && gw_str_eq_c(s.email, "alice@corp.example"));
    assert_true(gw_str_eq_c(s.display, "Alice \"the\" \xc3\x84rger"));
    assert_int_equal(s.state, AUTH_ACTIVE);
    assert_false(s.service);
    assert_true(s.checked_ms > 0);
    assert_int_equal(s.n_groups, 2);
    assert_true(gw_str_eq_c(s.groups[0], "eng") && gw_str_eq_c(s.groups[1], "Model Users"));

    assert_int_equal(auth_users_find(u, GW_STR("bob"), &a, &s, NULL), GW_OK);
    assert_int_equal(s.state, AUTH_SUSPENDED);
    assert_int_equal(auth_users_find(u, GW_STR("carol"), &a, &s, NULL), GW_NOT_FOUND);
    assert_int_equal(auth_users_find(NULL, GW_STR("carol"), &a, &s, NULL), GW_NOT_FOUND);
    auth_users_free(u);
    auth_users_free(NULL);
    gw_arena_release(&a);
}

static void parse_rows(void **state)
{
    static const struct {
        const char *yaml, *error; /* error NULL: accepted */
    } rows[] = {
        {"", NULL},
        {"users:\n", NULL},
        {"users: {}\n", NULL},
        {"users: {a: {password: \"" BOB "\"}}\n", NULL},
        {"users: {a: {password: \"" BOB "\", groups: []}}\n", NULL},
        {"people: {}\n", "users.yaml:1:1: "},
        {"- a\n", "users.yaml:1:1: "},
        {"users: [a]\n", "users.yaml:1:8: "},
        {"users:\n  Alice: {password: \"" BOB "\"}\n", "users.yaml:2:3: "},
        {"users:\n  a b: {password: \"" BOB "\"}\n", "users.yaml:2:3: "},
        {"users:\n  .a: {password: \"" BOB "\"}\n", "users.yaml:2:3: "},
        {"users:\n  a: x\n", "users.yaml:2:6: "},
        {"users:\n  a: {groups: [x]}\n", "users.yaml:2:3: user without a password"},
        {"users:\n  a: {password: \"" BOB "\", group: [x]}\n", "did you mean groups?"},
        {"users:\n  a: {password: secret99}\n", "users.yaml:2:17: password is scrypt"},
        {"users:\n  a: {password: [x]}\n", "users.yaml:2:17: "},
        {"users:\n  a: {password: "
         "\"scrypt:13:AAECAwQFBgcICQoLDA0ODw==:AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=\"}\n",
         "password is"},
        {"users:\n  a: {password: "
         "\"scrypt:18:AAECAwQFBgcICQoLDA0ODw==:AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=\"}\n",
         "password is"},
        {"users:\n  a: {password: "
         "\"scrypt:15:AAECAwQFBgcICQoLDA0O:AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=\"}\n",
         "password is"},
        {"users:\n  a: {password: "
         "\"scrypt:15:AAECAwQFBgcICQoLDA0ODw==:AAECAwQFBgcICQoLDA0ODw==\"}\n",
         "password is"},
        {"users:\n  a: {password: "
         "\"scrypt:15:AAECAwQFBgcICQoLDA0ODw==:AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=:\"}\n",
         "password is"},
        {"users:\n  a: {password: "
         "\"bcrypt:15:AAECAwQFBgcICQoLDA0ODw==:AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=\"}\n",
         "password is"},
        {"users:\n  a: {password: \"" BOB "\", groups: x}\n", "groups is a list"},
        {"users:\n  a: {password: \"" BOB "\", groups: [\"\"]}\n", "a group is"},
        {"users:\n  a: {password: \"" BOB "\", groups: [[x]]}\n", "a group is"},
        {"users:\n  a: {password: \"" BOB "\", disabled: yes}\n", "disabled is true or false"},
        {"users:\n  a: {password: \"" BOB "\", disabled: {}}\n", "disabled is true or false"},
        {"users:\n  a: {password: \"" BOB "\", display: \"a\\nb\"}\n", "display is one line"},
        {"users:\n  a: {password: \"" BOB "\", email: [x]}\n", "email is one line"},
        {"users:\n  a: {password: \"" BOB "\"}\n  a: {password: \"" BOB "\"}\n",
         "users.yaml:3:3: "},
        {"users: &x {}\n", "users.yaml:1:"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct auth_users *u = NULL;
        struct gw_error err = {0};
        int rc = auth_users_parse(&u, GW_STR("users.yaml"), gw_str_c(rows[i].yaml), &err);

        if (rc != (rows[i].error == NULL ? GW_OK : GW_INVALID)) {
            fail_msg("row %zu: %s %s", i, gw_status_name(rc), err.text);
        }
        if (rc != GW_OK) {
            if (strstr(err.text, rows[i].error) == NULL) {
                fail_msg("row %zu: %s", i, err.text);
            }
            assert_null(strstr(err.text, "secret99"));
            assert_null(u);
        }
        auth_users_free(u);
    }
    static char big[(1 << 20) + 1];
    struct auth_users *u = NULL;
    memset(big, '#', sizeof(big));
    assert_int_equal(auth_users_parse(&u, GW_STR("u"), (struct gw_str){big, sizeof(big)}, NULL),
                     GW_TOO_LARGE);
    assert_int_equal(auth_users_parse(&u, GW_STR("u"), (struct gw_str){big, sizeof(big) - 1}, NULL),
                     GW_OK);
    auth_users_free(u);
}

static struct auth_users *edit(const struct auth_users *old, const char *user, const char *password,
                               const struct gw_str *groups, size_t n)
{
    struct gw_buf out;
    struct gw_error err = {0};

    gw_buf_init(&out, 1 << 20);
    if (auth_users_edit(&out, old, gw_str_c(user), gw_str_c(password), groups, n, &err) != GW_OK) {
        fail_msg("%s", err.text);
    }
    struct auth_users *u = parse(gw_buf_str(&out));
    gw_buf_release(&out);
    return u;
}

static void edits(void **state)
{
    static const struct gw_str groups[] = {GW_STR_INIT("eng"),
                                           GW_STR_INIT("we \"quote\\\" \xc3\xbc: #x")};
    struct gw_arena a = {0};
    struct auth_subject s;

    gw_arena_init(&a, 1 << 20);
    struct auth_users *u1 = edit(NULL, "Dora", "explorer: #1", groups, 2); /* a new file */
    assert_int_equal(auth_users_count(u1), 1);
    assert_int_equal(auth_users_login(u1, GW_STR("dora"), GW_STR("explorer: #1"), &a, &s, NULL),
                     GW_OK);
    assert_int_equal(s.n_groups, 2);
    assert_true(gw_str_eq(s.groups[1], groups[1]));

    struct auth_users *u2 = parse(gw_str_c(file));
    struct auth_users *u3 =
        edit(u2, "alice", "", groups, 1); /* keeps the hash, the display name and everybody else */
    assert_int_equal(auth_users_count(u3), 3);
    assert_int_equal(auth_users_login(u3, GW_STR("alice"), GW_STR("wonder land"), &a, &s, NULL),
                     GW_OK);
    assert_int_equal(s.n_groups, 1);
    assert_true(gw_str_eq_c(s.display, "Alice \"the\" \xc3\x84rger"));
    assert_int_equal(auth_users_find(u3, GW_STR("bob"), &a, &s, NULL), GW_OK);
    assert_int_equal(s.state, AUTH_SUSPENDED);
    assert_int_equal(auth_users_find(u3, GW_STR("no"), &a, &s, NULL), GW_OK);

    struct auth_users *u4 =
        edit(u3, "bob", "new one", NULL, 0); /* a new password does not enable */
    assert_int_equal(auth_users_find(u4, GW_STR("bob"), &a, &s, NULL), GW_OK);
    assert_int_equal(s.state, AUTH_SUSPENDED);
    struct auth_users *u5 = edit(u4, "zed", "last", NULL, 0);
    struct auth_users *u6 = edit(u5, "0", "first", NULL, 0);
    assert_int_equal(auth_users_count(u6), 5);
    assert_int_equal(auth_users_login(u6, GW_STR("zed"), GW_STR("last"), &a, &s, NULL), GW_OK);
    assert_int_equal(auth_users_login(u6, GW_STR("alice"), GW_STR("wonder land"), &a, &s, NULL),
                     GW_OK);

    auth_users_free(u1);
    auth_users_free(u2);
    auth_users_free(u3);
    auth_users_free(u4);
    auth_users_free(u5);
    auth_users_free(u6);
    gw_arena_release(&a);
}

static void edit_refusals(void **state)
{
    static const struct gw_str bad_group[] = {GW_STR_INIT("a\nb")};
    static const struct {
        struct gw_str user, password;
        const struct gw_str *groups;
        int rc;
    } rows[] = {
        {GW_STR_INIT("new"), GW_STR_INIT(""), NULL, GW_NOT_FOUND},
        {GW_STR_INIT("a b"), GW_STR_INIT("x"), NULL, GW_INVALID},
        {GW_STR_INIT("x: {}\n"), GW_STR_INIT("x"), NULL, GW_INVALID},
        {GW_STR_INIT("new"), GW_STR_INIT("hf_gwp"), NULL, GW_INVALID},
        {GW_STR_INIT("new"), GW_STR_INIT("a\0b"), NULL, GW_INVALID},
        {GW_STR_INIT("new"), GW_STR_INIT("\xff"), NULL, GW_INVALID},
        {GW_STR_INIT("new"), GW_STR_INIT("x"), bad_group, GW_INVALID},
    };
    struct auth_users *u = parse(gw_str_c(file));

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_buf out;
        gw_buf_init(&out, 1 << 20);
        assert_int_equal(auth_users_edit(&out, u, rows[i].user, rows[i].password, rows[i].groups,
                                         rows[i].groups != NULL, NULL),
                         rows[i].rc);
        gw_buf_release(&out);
    }
    struct gw_buf out;
    gw_buf_init(&out, 64); /* the caller's ceiling */
    assert_int_equal(auth_users_edit(&out, u, GW_STR("alice"), GW_STR(""), NULL, 0, NULL),
                     GW_TOO_LARGE);
    gw_buf_release(&out);
    auth_users_free(u);
}

static void no_memory(void **state)
{
    for (size_t n = 1;; n++) {
        struct auth_users *u = NULL;
        gw_alloc_fail_at(n);
        int rc = auth_users_parse(&u, GW_STR("u"), gw_str_c(file), NULL);
        gw_alloc_fail_at(0);
        auth_users_free(u);
        if (rc == GW_OK) {
            assert_true(n > 1);
            break;
        }
        if (rc != GW_NO_MEMORY && rc != GW_TOO_LARGE) {
            fail_msg("allocation %zu: %s", n, gw_status_name(rc));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(login), cmocka_unit_test(find),          cmocka_unit_test(parse_rows),
        cmocka_unit_test(edits), cmocka_unit_test(edit_refusals), cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
