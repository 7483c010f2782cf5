/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_auth_token.c - tokens from outside, and lines of token and subject files.
 *
 * First byte modulo 4: a token; a line as it is; a token record or a subject record whose MAC is
 * made right here. A line as it is never passes. What passes is written again and reads the same.
 */
#include <stdlib.h>

#include "auth/auth.h"
#include "base/encode.h"
#include "base/sha.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct gw_str key = GW_STR_INIT("0123456789abcdef0123456789abcdef");

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void token(struct gw_str text)
{
    static const struct auth_token nobody;
    char id[AUTH_TOKEN_ID_LEN + 1], crc[6];

    if (auth_token_id(text, id)) {
        require(text.n == AUTH_TOKEN_LEN && memcmp(id, text.p + 6, 10) == 0 && id[10] == '\0');
        require(gw_base62_u64(crc, 6, gw_crc32(0, text.p, 48)) && memcmp(crc, text.p + 48, 6) == 0);
    }
    require(auth_token_check(text, NULL, 1, NULL) == GW_UNAUTHENTICATED);
    require(auth_token_check(text, &nobody, 0, NULL) == GW_UNAUTHENTICATED);
}

/* BODY,"mac":"..."} */
static void seal(struct gw_buf *line, struct gw_str body, const char *purpose)
{
    struct gw_buf b;
    uint8_t mac[32];
    char hex[65];

    gw_buf_init(&b, 2 << 20);
    gw_buf_add(&b, (struct gw_str){purpose, strlen(purpose) + 1});
    gw_buf_add(&b, body);
    require(!b.failed);
    gw_hmac_sha256(key, gw_buf_str(&b), mac);
    gw_buf_release(&b);
    gw_hex_encode(hex, mac, 32);
    gw_buf_add(line, body);
    gw_buf_addf(line, ",\"mac\":\"%s\"}\n", hex);
    require(!line->failed);
}

static void token_line(struct gw_str line, struct gw_arena *a)
{
    struct auth_token t, again;
    struct gw_buf out;
    struct gw_error err = {0};

    int rc = auth_token_parse(&t, line, GW_STR("0123456789"), key, a, &err);
    require(rc == GW_OK || rc == GW_CORRUPT || rc == GW_INVALID || rc == GW_NO_MEMORY);
    if (rc != GW_OK) {
        return;
    }
    require(strcmp(t.id, "0123456789") == 0 &&
            (t.role == AUTH_ROLE_READ || t.role == AUTH_ROLE_WRITE) && t.expires_ms > t.created_ms);
    gw_buf_init(&out, 8 << 20);
    auth_token_format(&out, &t, key);
    require(!out.failed && auth_token_parse(&again, gw_buf_str(&out), GW_STR("0123456789"), key, a,
                                            NULL) == GW_OK);
    require(gw_str_eq(again.name, t.name) && gw_str_eq(again.subject, t.subject) &&
            again.revoked == t.revoked && again.kind == t.kind);
    gw_buf_release(&out);
}

static void subject_line(struct gw_str line, struct gw_arena *a)
{
    struct auth_subject s, again;
    struct gw_buf out;

    int rc = auth_subject_parse(&s, line, GW_STR("corp-1"), key, a, NULL);
    require(rc == GW_OK || rc == GW_CORRUPT || rc == GW_INVALID || rc == GW_NO_MEMORY);
    if (rc != GW_OK) {
        return;
    }
    require(gw_str_eq_c(s.id, "corp-1") && s.name.n > 0 && s.name.n <= 64 &&
            s.n_groups <= AUTH_GROUPS_MAX);
    gw_buf_init(&out, 8 << 20);
    auth_subject_format(&out, &s, key);
    require(!out.failed);
    rc = auth_subject_parse(&again, gw_buf_str(&out), s.id, key, a, NULL);
    if (rc == GW_OK) { /* escapes can make it too long a document, or the arena end */
        require(again.n_groups == s.n_groups && again.state == s.state &&
                gw_str_eq(again.dn, s.dn));
    }
    gw_buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_arena a = {0};
    struct auth_token t;
    struct gw_buf line;

    if (size == 0) {
        return 0;
    }
    struct gw_str rest = {(const char *)data + 1, size - 1};
    gw_arena_init(&a, 4 << 20);
    gw_buf_init(&line, 2 << 20);
    switch (data[0] % 4) {
    case 0:
        token(rest);
        break;
    case 1:
        require(auth_token_parse(&t, rest, GW_STR("0123456789"), key, &a, NULL) != GW_OK);
        break;
    case 2:
        seal(&line, rest, "token");
        token_line(gw_buf_str(&line), &a);
        break;
    default:
        seal(&line, rest, "subject");
        subject_line(gw_buf_str(&line), &a);
        break;
    }
    gw_buf_release(&line);
    gw_arena_release(&a);
    return 0;
}
