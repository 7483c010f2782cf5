/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/token.c - access tokens: hf_gw + kind + id(10) + secret(32) + CRC32(6).
 *
 * The id finds the record, the secret is compared as its SHA-256 in constant time; a slow hash
 * would protect 190 random bits no better and be a handle for denial of service (auth-policy 4.2).
 * The CRC keeps typos from costing a look-up.
 */
#include "auth/auth_internal.h"

#include "base/encode.h"
#include "base/sha.h"

#define PURPOSE "token"
#define PREFIX "hf_gw"
#define KIND_AT (sizeof(PREFIX) - 1)
#define ID_AT (KIND_AT + 1)
#define SECRET_AT (ID_AT + AUTH_TOKEN_ID_LEN)
#define SECRET_LEN 32u
#define CRC_AT (SECRET_AT + SECRET_LEN)
#define CRC_LEN 6u
#define NAME_MAX_BYTES 96u
#define LIFE_MAX_MS (366 * INT64_C(86400000))

_Static_assert(CRC_AT + CRC_LEN == AUTH_TOKEN_LEN, "token layout");

static const char *const role_names[] = {
    [AUTH_ROLE_NONE] = "", [AUTH_ROLE_READ] = "read", [AUTH_ROLE_WRITE] = "write"};

static bool is_kind(char c)
{
    return c == 'p' || c == 's';
}

static bool is_base62(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))) {
            return false;
        }
    }
    return true;
}

/* 62^6 > 2^32: it always fits */
static void put_crc(char out[CRC_LEN], const char *text)
{
    if (!gw_base62_u64(out, CRC_LEN, gw_crc32(0, text, CRC_AT))) {
        memset(out, '-', CRC_LEN);
    }
}

int auth_token_mint(char text[AUTH_TOKEN_LEN + 1], struct auth_token *record, char kind,
                    struct gw_str subject, struct gw_str name, enum auth_role role, int64_t now_ms,
                    int64_t expires_ms, struct gw_error *err)
{
    struct auth_token t = {.kind = kind,
                           .subject = subject,
                           .name = name,
                           .role = role,
                           .created_ms = now_ms,
                           .expires_ms = expires_ms};

    if (!is_kind(kind)) {
        return gw_fail(err, GW_INVALID, 0, "a token is personal or of a service");
    }
    if (!auth_is_subject_id(subject)) {
        return gw_fail(err, GW_INVALID, 0, "not the id of a subject");
    }
    if (role != AUTH_ROLE_READ && role != AUTH_ROLE_WRITE) {
        return gw_fail(err, GW_INVALID, 0, "the role of a token is read or write");
    }
    if (name.n == 0 || !auth_is_text(name, NAME_MAX_BYTES)) {
        return gw_fail(err, GW_INVALID, 0, "the name of a token is one line of 1 to %u bytes",
                       NAME_MAX_BYTES);
    }
    if (now_ms <= 0 || expires_ms <= now_ms) {
        return gw_fail(err, GW_INVALID, 0, "the token would expire in the past");
    }
    if (expires_ms - now_ms > LIFE_MAX_MS) {
        return gw_fail(err, GW_INVALID, 0, "a token lives at most 366 days");
    }

    memcpy(text, PREFIX, KIND_AT);
    text[KIND_AT] = kind;
    if (!gw_base62_random(text + ID_AT, AUTH_TOKEN_ID_LEN + SECRET_LEN)) {
        gw_wipe(text, AUTH_TOKEN_LEN + 1);
        return gw_fail(err, GW_IO, 0, "the system gives no randomness");
    }
    put_crc(text + CRC_AT, text);
    text[AUTH_TOKEN_LEN] = '\0';
    memcpy(t.id, text + ID_AT, AUTH_TOKEN_ID_LEN);
    gw_sha256_once(text + SECRET_AT, SECRET_LEN, t.secret_sha256);
    *record = t;
    return GW_OK;
}

bool auth_token_id(struct gw_str text, char id[AUTH_TOKEN_ID_LEN + 1])
{
    char crc[CRC_LEN];

    if (text.n != AUTH_TOKEN_LEN || !gw_str_starts(text, GW_STR(PREFIX)) ||
        !is_kind(text.p[KIND_AT]) || !is_base62(gw_str_sub(text, ID_AT, SIZE_MAX))) {
        return false;
    }
    put_crc(crc, text.p);
    if (memcmp(crc, text.p + CRC_AT, CRC_LEN) != 0) {
        return false;
    }
    memcpy(id, text.p + ID_AT, AUTH_TOKEN_ID_LEN);
    id[AUTH_TOKEN_ID_LEN] = '\0';
    return true;
}

int auth_token_check(struct gw_str text, const struct auth_token *record, int64_t now_ms,
                     struct gw_error *err)
{
    static const struct auth_token nobody = {.kind = 'p', .revoked = true};
    const struct auth_token *t = record != NULL ? record : &nobody;
    char id[AUTH_TOKEN_ID_LEN + 1];
    uint8_t got[32];

    if (!auth_token_id(text, id)) {
        return gw_fail(err, GW_UNAUTHENTICATED, 0, "not a token of this gateway");
    }
    gw_sha256_once(text.p + SECRET_AT, SECRET_LEN, got);
    bool same = gw_equal_secret(got, t->secret_sha256, sizeof(got));
    bool this_one = text.p[KIND_AT] == t->kind && memcmp(id, t->id, AUTH_TOKEN_ID_LEN) == 0;

    if (record == NULL) {
        return gw_fail(err, GW_UNAUTHENTICATED, 0, "unknown token %s", id);
    }
    if (!same || !this_one) {
        return gw_fail(err, GW_UNAUTHENTICATED, 0, "wrong secret for token %s", id);
    }
    if (t->revoked) {
        return gw_fail(err, GW_UNAUTHENTICATED, 0, "token %s is revoked", id);
    }
    if (now_ms >= t->expires_ms) {
        return gw_fail(err, GW_UNAUTHENTICATED, 0, "token %s has expired", id);
    }
    return GW_OK;
}

void auth_token_format(struct gw_buf *out, const struct auth_token *t, struct gw_str key)
{
    char hex[65];
    size_t begin = auth_record_begin(out);

    gw_json_put_key(out, "id");
    gw_json_put_string(out, gw_str_c(t->id));
    gw_json_put_key(out, "kind");
    gw_json_put_string(out, (struct gw_str){&t->kind, 1});
    gw_json_put_key(out, "secret_sha256");
    gw_hex_encode(hex, t->secret_sha256, sizeof(t->secret_sha256));
    gw_json_put_string(out, gw_str_c(hex));
    gw_json_put_key(out, "subject");
    gw_json_put_string(out, t->subject);
    gw_json_put_key(out, "name");
    gw_json_put_string(out, t->name);
    gw_json_put_key(out, "role");
    gw_json_put_string(out, gw_str_c(role_names[t->role]));
    gw_json_put_key(out, "created_ms");
    gw_buf_addf(out, "%lld", (long long)t->created_ms);
    gw_json_put_key(out, "expires_ms");
    gw_buf_addf(out, "%lld", (long long)t->expires_ms);
    gw_json_put_key(out, "state");
    gw_json_put_string(out, t->revoked ? GW_STR("revoked") : GW_STR("live"));
    auth_record_seal(out, begin, PURPOSE, key);
}

static enum auth_role role_of(struct gw_str s)
{
    for (size_t i = AUTH_ROLE_READ; i < sizeof(role_names) / sizeof(role_names[0]); i++) {
        if (gw_str_eq_c(s, role_names[i])) {
            return (enum auth_role)i;
        }
    }
    return AUTH_ROLE_NONE;
}

/* Everything but the strings, which need the arena. false: not as format writes it. */
static bool read_plain(struct auth_token *t, const struct gw_json *doc)
{
    struct gw_str id = gw_json_string(gw_json_get(doc, "id")),
                  kind = gw_json_string(gw_json_get(doc, "kind"));
    struct gw_str state = gw_json_string(gw_json_get(doc, "state"));

    if (id.n != AUTH_TOKEN_ID_LEN || !is_base62(id) || kind.n != 1 || !is_kind(kind.p[0])) {
        return false;
    }
    memcpy(t->id, id.p, AUTH_TOKEN_ID_LEN);
    t->kind = kind.p[0];
    t->role = role_of(gw_json_string(gw_json_get(doc, "role")));
    t->revoked = !gw_str_eq(state, GW_STR("live"));
    return t->role != AUTH_ROLE_NONE && (!t->revoked || gw_str_eq(state, GW_STR("revoked"))) &&
           gw_hex_decode(t->secret_sha256, 32, gw_json_string(gw_json_get(doc, "secret_sha256"))) &&
           gw_json_int(gw_json_get(doc, "created_ms"), &t->created_ms) &&
           gw_json_int(gw_json_get(doc, "expires_ms"), &t->expires_ms) && t->created_ms > 0 &&
           t->expires_ms > t->created_ms;
}

int auth_token_parse(struct auth_token *out, struct gw_str line, struct gw_str expected_id,
                     struct gw_str key, struct gw_arena *a, struct gw_error *err)
{
    struct gw_json *doc = NULL;
    struct auth_token t = {.kind = 0};

    int rc = auth_record_open(&doc, line, PURPOSE, key, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (!read_plain(&t, doc)) {
        rc = gw_fail(err, GW_CORRUPT, 0, "token record with a missing or unusable field");
        goto done;
    }
    if (!gw_str_eq_c(expected_id, t.id)) {
        rc = gw_fail(err, GW_CORRUPT, 0, "the record is of another token");
        goto done;
    }
    rc = auth_record_string(doc, "subject", a, &t.subject, err);
    if (rc != GW_OK) {
        goto done;
    }
    rc = auth_record_string(doc, "name", a, &t.name, err);
    if (rc != GW_OK) {
        goto done;
    }
    if (!auth_is_subject_id(t.subject) || t.name.n == 0 || !auth_is_text(t.name, NAME_MAX_BYTES)) {
        rc = gw_fail(err, GW_CORRUPT, 0, "token record with an unusable subject or name");
        goto done;
    }
    *out = t;
done:
    gw_json_free(doc);
    return rc;
}
