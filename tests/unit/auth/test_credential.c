/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/auth/test_credential.c - a row per sentence of auth_credential_parse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "auth/auth.h"
#include "base/alloc.h"
#include "base/encode.h"

#define TOKEN "hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUF"

static struct gw_str basic(struct gw_arena *a, struct gw_str plain, const char *scheme)
{
    struct gw_buf b;

    gw_buf_init(&b, 16384);
    gw_buf_add_c(&b, scheme);
    gw_base64_encode(&b, plain);
    assert_false(b.failed);
    struct gw_str s = gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    return s;
}

static void header_rows(void **state)
{
    static const struct {
        const char *header;
        int rc;
        enum auth_scheme scheme;
        const char *secret;
    } rows[] = {
        {"", GW_OK, AUTH_NONE, ""},
        {"   ", GW_OK, AUTH_NONE, ""},
        {"Bearer " TOKEN, GW_OK, AUTH_TOKEN, TOKEN},
        {"bearer   " TOKEN "  ", GW_OK, AUTH_TOKEN, TOKEN},
        {"BEARER anything.visible~", GW_OK, AUTH_TOKEN, "anything.visible~"},
        {"Bearer", GW_INVALID, 0, ""},
        {"Bearer ", GW_INVALID, 0, ""},
        {"Bearer two words", GW_INVALID, 0, ""},
        {"Bearer a\tb", GW_INVALID, 0, ""},
        {"Bearer a\x7f", GW_INVALID, 0, ""},
        {"Bearer \xc3\xa9", GW_INVALID, 0, ""},
        {TOKEN, GW_INVALID, 0, ""},
        {"Digest username=a", GW_INVALID, 0, ""},
        {"Basic", GW_INVALID, 0, ""},
        {"Basic !!!!", GW_INVALID, 0, ""},
        {"Basic YTp", GW_INVALID, 0, ""},
        {"Basic YWxpY2U6cGFzcw==", GW_OK, AUTH_PASSWORD, "pass"},
        {"bAsIc YWxpY2U6cGFzcw==", GW_OK, AUTH_PASSWORD, "pass"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a = {0};
        struct gw_error err = {0};
        struct auth_credential c = {.secret = GW_STR("untouched")};

        gw_arena_init(&a, 65536);
        gw_arena_keep_secret(&a);
        int rc = auth_credential_parse(&c, gw_str_c(rows[i].header), &a, &err);
        if (rc != rows[i].rc) {
            fail_msg("\"%s\": got %s (%s)", rows[i].header, gw_status_name(rc), err.text);
        }
        if (rc == GW_OK) {
            assert_int_equal(c.scheme, rows[i].scheme);
            assert_true(gw_str_eq_c(c.secret, rows[i].secret));
        } else {
            assert_true(gw_str_eq_c(c.secret, "untouched"));
            assert_null(strstr(err.text, TOKEN));
        }
        gw_arena_release(&a);
    }
}

#define P(s) GW_STR_INIT(s)

static void basic_rows(void **state)
{
    static const struct {
        struct gw_str plain;
        int rc;
        enum auth_scheme scheme;
        const char *user, *secret;
    } rows[] = {
        {P("alice:secret"), GW_OK, AUTH_PASSWORD, "alice", "secret"},
        {P("alice:se:cret:"), GW_OK, AUTH_PASSWORD, "alice", "se:cret:"},
        {P("Al.i_c-e@corp:x"), GW_OK, AUTH_PASSWORD, "Al.i_c-e@corp", "x"},
        {P("alice:p\xc3\xa4ss"), GW_OK, AUTH_PASSWORD, "alice", "p\xc3\xa4ss"},
        /* a secret that starts with hf_ is a token and never a password */
        {P("alice:" TOKEN), GW_OK, AUTH_TOKEN, "alice", TOKEN},
        {P("hf_user:" TOKEN), GW_OK, AUTH_TOKEN, "hf_user", TOKEN},
        {P(":" TOKEN), GW_OK, AUTH_TOKEN, "", TOKEN},
        {P("alice:hf_notatoken"), GW_OK, AUTH_TOKEN, "alice", "hf_notatoken"},
        {P(TOKEN ":"), GW_OK, AUTH_TOKEN, "", TOKEN},
        {P(TOKEN ":x-oauth-basic"), GW_OK, AUTH_TOKEN, "", TOKEN},
        /* a token in the place of the name is not sent to a directory either */
        {P(TOKEN ":password"), GW_INVALID, 0, "", ""},
        {P("hf_smith:password"), GW_OK, AUTH_PASSWORD, "hf_smith", "password"},
        {P("alice:hf_with blank"), GW_INVALID, 0, "", ""},
        {P("al ice:" TOKEN), GW_INVALID, 0, "", ""},
        {P("alice:"), GW_INVALID, 0, "", ""},
        {P("alice"), GW_INVALID, 0, "", ""},
        {P(":secret"), GW_INVALID, 0, "", ""},
        {P(""), GW_INVALID, 0, "", ""},
        {P("alice:\0guess"), GW_INVALID, 0, "", ""}, /* auth-policy 2.2: would bind as nobody */
        {P("alice:gue\0ss"), GW_INVALID, 0, "", ""},
        {P("al\0ice:x"), GW_INVALID, 0, "", ""},
        {P("alice:a\nb"), GW_INVALID, 0, "", ""},
        {P("alice:a\x7f"), GW_INVALID, 0, "", ""},
        {P("alice:\xff\xfe"), GW_INVALID, 0, "", ""},
        {P("alice:\xc0\x80"), GW_INVALID, 0, "", ""},
        {P("*:x"), GW_INVALID, 0, "", ""},
        {P("alice)(objectClass=*:x"), GW_INVALID, 0, "", ""},
        {P("al ice:x"), GW_INVALID, 0, "", ""},
        {P("CORP\\alice:x"), GW_INVALID, 0, "", ""},
        {P("\xef\xbd\x81lice:x"), GW_INVALID, 0, "", ""}, /* full-width a */
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a = {0};
        struct gw_error err = {0};
        struct auth_credential c = {0};

        gw_arena_init(&a, 65536);
        int rc = auth_credential_parse(&c, basic(&a, rows[i].plain, "Basic "), &a, &err);
        if (rc != rows[i].rc) {
            fail_msg("row %zu: got %s (%s)", i, gw_status_name(rc), err.text);
        }
        if (rc == GW_OK) {
            assert_int_equal(c.scheme, rows[i].scheme);
            assert_true(gw_str_eq_c(c.user, rows[i].user));
            assert_true(gw_str_eq_c(c.secret, rows[i].secret));
        }
        gw_arena_release(&a);
    }
}

static void lengths(void **state)
{
    char text[8192];
    static const struct {
        size_t user, password;
        int rc;
    } rows[] = {
        {128, 1, GW_OK},
        {129, 1, GW_INVALID},
        {1, 1024, GW_OK},
        {1, 1025, GW_INVALID},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a = {0};
        struct auth_credential c;

        gw_arena_init(&a, 65536);
        memset(text, 'a', sizeof(text));
        text[rows[i].user] = ':';
        struct gw_str plain = {text, rows[i].user + 1 + rows[i].password};
        assert_int_equal(auth_credential_parse(&c, basic(&a, plain, "Basic "), &a, NULL),
                         rows[i].rc);
        gw_arena_release(&a);
    }
    struct gw_arena a = {0};
    struct auth_credential c;
    gw_arena_init(&a, 65536);
    memset(text, 'a', sizeof(text));
    memcpy(text, "Bearer ", 7);
    assert_int_equal(auth_credential_parse(&c, (struct gw_str){text, 4096}, &a, NULL), GW_OK);
    assert_int_equal(auth_credential_parse(&c, (struct gw_str){text, 4097}, &a, NULL), GW_INVALID);
    gw_arena_release(&a);
}

static void no_memory(void **state)
{
    static const char *const headers[] = {"Bearer " TOKEN, "Basic YWxpY2U6cGFzcw=="};

    for (size_t h = 0; h < 2; h++) {
        for (size_t n = 1;; n++) {
            struct gw_arena a = {0};
            struct auth_credential c;

            gw_arena_init(&a, 65536);
            gw_alloc_fail_at(n);
            int rc = auth_credential_parse(&c, gw_str_c(headers[h]), &a, NULL);
            gw_alloc_fail_at(0);
            gw_arena_release(&a);
            if (rc == GW_OK) {
                assert_true(n > 1);
                break;
            }
            assert_int_equal(rc, GW_NO_MEMORY);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_rows),
        cmocka_unit_test(basic_rows),
        cmocka_unit_test(lengths),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
