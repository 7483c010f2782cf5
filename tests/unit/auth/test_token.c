/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/auth/test_token.c - the format of auth-policy 4.1, its check, and the record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "auth/auth.h"
#include "base/alloc.h"
#include "base/encode.h"
#include "base/sha.h"

#define VECTOR "hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUF"
#define DAY INT64_C(86400000)
#define NOW INT64_C(1700000000000)

static const struct gw_str key = GW_STR_INIT("0123456789abcdef0123456789abcdef");
static const struct gw_str other_key = GW_STR_INIT("0123456789abcdef0123456789abcdeF");
static const struct gw_str subject = GW_STR_INIT("corp-00112233445566778899aabbccddeeff");

static void test_vector(void **state)
{
    char id[AUTH_TOKEN_ID_LEN + 1];

    assert_true(auth_token_id(GW_STR(VECTOR), id));
    assert_string_equal(id, "0123456789");
}

static void shapes(void **state)
{
    static const char *const wrong[] = {
        "",
        "hf_",
        "hf_gwp",
        "hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXU",   /* short */
        "hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUFF", /* long */
        "hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUG",  /* CRC */
        "hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdeg1ZJXUF",  /* secret changed */
        "hf_gws0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUF",  /* kind changed */
        "hf_gwx0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUF",
        "HF_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUF",
        "hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcde_1ZJXUF",
        "hf_abcdefghijklmnopqrstuvwxyzabcdefgh", /* one of huggingface.co */
    };
    char id[AUTH_TOKEN_ID_LEN + 1] = "untouched!";

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        if (auth_token_id(gw_str_c(wrong[i]), id)) {
            fail_msg("accepted %s", wrong[i]);
        }
        assert_int_equal(auth_token_check(gw_str_c(wrong[i]), NULL, NOW, NULL), GW_UNAUTHENTICATED);
    }
    assert_string_equal(id, "untouched!");
}

static void mint_rows(void **state)
{
    static const char long_name[] =
        "0123456789012345678901234567890123456789012345678901234567890123"
        "456789012345678901234567890123456";
    static const struct {
        char kind;
        struct gw_str subject, name;
        enum auth_role role;
        int64_t life;
        int rc;
    } rows[] = {
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("laptop"), AUTH_ROLE_READ, DAY, GW_OK},
        {'s', GW_STR_INIT("service-ci"), GW_STR_INIT("CI \xc3\xbc"), AUTH_ROLE_WRITE, 366 * DAY,
         GW_OK},
        {'p', GW_STR_INIT("file-0011"), {long_name, 96}, AUTH_ROLE_READ, 1, GW_OK},
        {'p', GW_STR_INIT("file-0011"), {long_name, 97}, AUTH_ROLE_READ, 1, GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("laptop"), AUTH_ROLE_READ, 366 * DAY + 1,
         GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("laptop"), AUTH_ROLE_READ, 0, GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("laptop"), AUTH_ROLE_READ, -DAY, GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("laptop"), AUTH_ROLE_NONE, DAY, GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("laptop"), (enum auth_role)3, DAY, GW_INVALID},
        {'x', GW_STR_INIT("file-0011"), GW_STR_INIT("laptop"), AUTH_ROLE_READ, DAY, GW_INVALID},
        {'p', GW_STR_INIT(""), GW_STR_INIT("laptop"), AUTH_ROLE_READ, DAY, GW_INVALID},
        {'p', GW_STR_INIT("../etc"), GW_STR_INIT("laptop"), AUTH_ROLE_READ, DAY, GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT(""), AUTH_ROLE_READ, DAY, GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("a\nb"), AUTH_ROLE_READ, DAY, GW_INVALID},
        {'p', GW_STR_INIT("file-0011"), GW_STR_INIT("\xff"), AUTH_ROLE_READ, DAY, GW_INVALID},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[AUTH_TOKEN_LEN + 1] = "";
        struct auth_token t = {0};
        struct gw_error err = {0};
        int rc = auth_token_mint(text, &t, rows[i].kind, rows[i].subject, rows[i].name,
                                 rows[i].role, NOW, NOW + rows[i].life, &err);
        if (rc != rows[i].rc) {
            fail_msg("row %zu: %s (%s)", i, gw_status_name(rc), err.text);
        }
        if (rc != GW_OK) {
            assert_string_equal(text, "");
            continue;
        }
        char id[AUTH_TOKEN_ID_LEN + 1];
        assert_int_equal(strlen(text), AUTH_TOKEN_LEN);
        assert_true(auth_token_id(gw_str_c(text), id));
        assert_string_equal(id, t.id);
        assert_int_equal(auth_token_check(gw_str_c(text), &t, NOW, NULL), GW_OK);
    }
}

static void check_rows(void **state)
{
    char text[AUTH_TOKEN_LEN + 1], text2[AUTH_TOKEN_LEN + 1];
    struct auth_token t, t2, changed;
    struct gw_error err = {0};

    assert_int_equal(
        auth_token_mint(text, &t, 'p', subject, GW_STR("a"), AUTH_ROLE_READ, NOW, NOW + DAY, NULL),
        GW_OK);
    assert_int_equal(auth_token_mint(text2, &t2, 'p', subject, GW_STR("a"), AUTH_ROLE_READ, NOW,
                                     NOW + DAY, NULL),
                     GW_OK);
    assert_string_not_equal(text, text2);

    assert_int_equal(auth_token_check(gw_str_c(text), &t, NOW + DAY - 1, &err), GW_OK);
    assert_int_equal(auth_token_check(gw_str_c(text), &t, NOW + DAY, &err), GW_UNAUTHENTICATED);
    assert_non_null(strstr(err.text, "expired"));
    assert_int_equal(auth_token_check(gw_str_c(text), &t2, NOW, &err), GW_UNAUTHENTICATED);
    assert_non_null(strstr(err.text, "wrong secret"));
    assert_int_equal(auth_token_check(gw_str_c(text), NULL, NOW, &err), GW_UNAUTHENTICATED);
    assert_non_null(strstr(err.text, "unknown"));
    assert_null(strstr(err.text, text + 16)); /* the id may be logged, the secret not */

    changed = t;
    changed.revoked = true;
    assert_int_equal(auth_token_check(gw_str_c(text), &changed, NOW, &err), GW_UNAUTHENTICATED);
    assert_non_null(strstr(err.text, "revoked"));
    changed = t;
    changed.kind = 's';
    assert_int_equal(auth_token_check(gw_str_c(text), &changed, NOW, &err), GW_UNAUTHENTICATED);
    changed = t;
    changed.id[0] ^= 1;
    assert_int_equal(auth_token_check(gw_str_c(text), &changed, NOW, &err), GW_UNAUTHENTICATED);
    changed = t;
    changed.secret_sha256[31] ^= 1;
    assert_int_equal(auth_token_check(gw_str_c(text), &changed, NOW, &err), GW_UNAUTHENTICATED);

    /* a zeroed record never answers to anything */
    changed = (struct auth_token){0};
    assert_int_equal(auth_token_check(gw_str_c(text), &changed, 0, &err), GW_UNAUTHENTICATED);
}

static void make_line(struct gw_buf *line, struct auth_token *t, bool revoked)
{
    char text[AUTH_TOKEN_LEN + 1];

    assert_int_equal(auth_token_mint(text, t, 's', subject, GW_STR("back\\slash \"q\" \xc3\xbc"),
                                     AUTH_ROLE_WRITE, NOW, NOW + DAY, NULL),
                     GW_OK);
    t->revoked = revoked;
    gw_buf_init(line, 4096);
    auth_token_format(line, t, key);
    assert_false(line->failed);
    assert_null(strstr(line->p, text + 16)); /* no secret in it */
}

static void record_round_trip(void **state)
{
    for (int revoked = 0; revoked < 2; revoked++) {
        struct gw_buf line;
        struct auth_token t, back;
        struct gw_arena a = {0};

        gw_arena_init(&a, 65536);
        make_line(&line, &t, revoked);
        assert_int_equal(line.p[line.n - 1], '\n');
        assert_ptr_equal(memchr(line.p, '\n', line.n), line.p + line.n - 1);
        for (size_t cut = 0; cut < 2; cut++) { /* with its newline and without */
            struct gw_str s = gw_str_sub(gw_buf_str(&line), 0, line.n - cut);
            assert_int_equal(auth_token_parse(&back, s, gw_str_c(t.id), key, &a, NULL), GW_OK);
            assert_string_equal(back.id, t.id);
            assert_int_equal(back.kind, 's');
            assert_memory_equal(back.secret_sha256, t.secret_sha256, 32);
            assert_true(gw_str_eq(back.subject, t.subject));
            assert_true(gw_str_eq(back.name, t.name));
            assert_int_equal(back.role, AUTH_ROLE_WRITE);
            assert_true(back.created_ms == NOW && back.expires_ms == NOW + DAY);
            assert_int_equal(back.revoked, revoked);
        }
        gw_buf_release(&line);
        gw_arena_release(&a);
    }
}

/* Every single changed byte, and every cut, is refused. */
static void record_damage(void **state)
{
    struct gw_buf line;
    struct auth_token t, back = {.kind = 'z'};

    make_line(&line, &t, true);
    for (size_t i = 0; i + 1 < line.n; i++) {
        struct gw_arena a = {0};
        gw_arena_init(&a, 65536);
        line.p[i] ^= 1;
        int rc = auth_token_parse(&back, gw_buf_str(&line), gw_str_c(t.id), key, &a, NULL);
        if (rc != GW_CORRUPT && rc != GW_INVALID) {
            fail_msg("byte %zu: %s", i, gw_status_name(rc));
        }
        line.p[i] ^= 1;
        rc = auth_token_parse(&back, gw_str_sub(gw_buf_str(&line), 0, i), gw_str_c(t.id), key, &a,
                              NULL);
        assert_int_equal(rc, GW_CORRUPT);
        gw_arena_release(&a);
    }
    assert_int_equal(back.kind, 'z'); /* untouched */

    struct gw_arena a = {0};
    gw_arena_init(&a, 65536);
    assert_int_equal(
        auth_token_parse(&back, gw_buf_str(&line), GW_STR("0123456789"), key, &a, NULL),
        GW_CORRUPT);
    assert_int_equal(
        auth_token_parse(&back, gw_buf_str(&line), gw_str_c(t.id), other_key, &a, NULL),
        GW_CORRUPT);
    gw_arena_release(&a);
    gw_buf_release(&line);
}

/* A line with a right MAC and fields that we never write: what a bug or another program with the
 * key makes. */
static void record_fields(void **state)
{
    static const char good_hash[] =
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    static const struct {
        const char *body;
        int rc;
    } rows[] = {
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"live\"",
         GW_OK},
        {"{\"v\":2,\"id\":\"0123456789\"", GW_INVALID},
        {"{\"v\":\"1\",\"id\":\"0123456789\"", GW_CORRUPT},
        {"{\"v\":0,\"id\":\"0123456789\"", GW_CORRUPT},
        {"{\"v\":1,\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\",\"name\":\"n\","
         "\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"../"
         "456789a\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\",\"name\":\"n\","
         "\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"q\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"0%s\",\"subject\":"
         "\"a\",\"name\":\"n\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":"
         "\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"A/"
         "B\",\"name\":\"n\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":"
         "\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\\u0000\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":"
         "\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":7,\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"admin\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"read\",\"created_ms\":2,\"expires_ms\":2,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2.5,\"state\":\"live\"",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2",
         GW_CORRUPT},
        {"{\"v\":1,\"id\":\"0123456789\",\"kind\":\"p\",\"secret_sha256\":\"%s\",\"subject\":\"a\","
         "\"name\":\"n\",\"role\":\"read\",\"created_ms\":1,\"expires_ms\":2,\"state\":\"LIVE\"",
         GW_CORRUPT},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_buf body, line;
        struct gw_arena a = {0};
        struct auth_token t;
        uint8_t mac[32];
        char hex[65];
        const char *at = strstr(rows[i].body, "%s");
        size_t head = at != NULL ? (size_t)(at - rows[i].body) : strlen(rows[i].body);

        gw_arena_init(&a, 65536);
        gw_buf_init(&body, 4096);
        gw_buf_add(&body, GW_STR("token\0"));
        gw_buf_add(&body, (struct gw_str){rows[i].body, head});
        if (at != NULL) {
            gw_buf_add_c(&body, good_hash);
            gw_buf_add_c(&body, at + 2);
        }
        gw_hmac_sha256(key, gw_buf_str(&body), mac);
        gw_hex_encode(hex, mac, 32);
        gw_buf_init(&line, 4096);
        gw_buf_add(&line, gw_str_sub(gw_buf_str(&body), 6, SIZE_MAX));
        gw_buf_addf(&line, ",\"mac\":\"%s\"}\n", hex);
        struct gw_error err = {0};
        int rc = auth_token_parse(&t, gw_buf_str(&line), GW_STR("0123456789"), key, &a, &err);
        if (rc != rows[i].rc) {
            fail_msg("row %zu: %s (%s)", i, gw_status_name(rc), err.text);
        }
        if (rc == GW_INVALID) {
            assert_non_null(strstr(err.text, "newer hubgate"));
        }
        gw_buf_release(&body);
        gw_buf_release(&line);
        gw_arena_release(&a);
    }
}

static void no_memory(void **state)
{
    struct gw_buf line;
    struct auth_token t, back;

    make_line(&line, &t, false);
    for (size_t n = 1;; n++) {
        struct gw_arena a = {0};
        gw_arena_init(&a, 65536);
        gw_alloc_fail_at(n);
        int rc = auth_token_parse(&back, gw_buf_str(&line), gw_str_c(t.id), key, &a, NULL);
        gw_alloc_fail_at(0);
        gw_arena_release(&a);
        if (rc == GW_OK) {
            assert_true(n > 2);
            break;
        }
        assert_int_equal(rc, GW_NO_MEMORY);
    }
    gw_buf_release(&line);
    for (size_t n = 1;; n++) {
        gw_buf_init(&line, 4096);
        gw_alloc_fail_at(n);
        auth_token_format(&line, &t, key);
        gw_alloc_fail_at(0);
        bool failed = line.failed;
        gw_buf_release(&line);
        if (!failed) {
            break;
        }
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector),       cmocka_unit_test(shapes),
        cmocka_unit_test(mint_rows),         cmocka_unit_test(check_rows),
        cmocka_unit_test(record_round_trip), cmocka_unit_test(record_damage),
        cmocka_unit_test(record_fields),     cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
