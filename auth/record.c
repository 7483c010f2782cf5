/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/record.c - one JSON line with a version and a MAC.
 *
 * The MAC covers the bytes as they stand, so a line needs no canonical form; the purpose inside it
 * keeps a token record from passing as a subject.
 */
#include "auth/auth_internal.h"

#include "base/encode.h"
#include "base/sha.h"

#define MAC_KEY ",\"mac\":\""
#define MAC_TAIL_LEN (sizeof(MAC_KEY) - 1 + 64 + 2) /* ,"mac":"<64 hex>"} */

static bool mac_of(struct gw_str body, const char *purpose, struct gw_str key, uint8_t out[32])
{
    struct gw_buf b;

    gw_buf_init(&b, body.n + strlen(purpose) + 2);
    gw_buf_add_c(&b, purpose);
    gw_buf_add_char(&b, '\0');
    gw_buf_add(&b, body);
    bool ok = !b.failed;
    if (ok) {
        gw_hmac_sha256(key, gw_buf_str(&b), out);
    }
    gw_buf_release(&b);
    return ok;
}

size_t auth_record_begin(struct gw_buf *out)
{
    size_t begin = out->n;

    gw_buf_addf(out, "{\"v\":%d", AUTH_RECORD_VERSION);
    return begin;
}

void auth_record_seal(struct gw_buf *out, size_t begin, const char *purpose, struct gw_str key)
{
    uint8_t mac[32];
    char hex[65];

    if (out->failed) {
        return;
    }
    if (!mac_of(gw_str_sub(gw_buf_str(out), begin, SIZE_MAX), purpose, key, mac)) {
        out->failed = true;
        return;
    }
    gw_hex_encode(hex, mac, sizeof(mac));
    gw_buf_addf(out, "%s%s\"}\n", MAC_KEY, hex);
}

/* The bytes before the MAC, if the line ends as seal writes it and the MAC is right. */
static bool mac_right(struct gw_str line, const char *purpose, struct gw_str key, bool *no_memory)
{
    uint8_t want[32], got[32];

    if (line.n <= MAC_TAIL_LEN) {
        return false;
    }
    struct gw_str body = gw_str_sub(line, 0, line.n - MAC_TAIL_LEN);
    struct gw_str tail = gw_str_sub(line, body.n, MAC_TAIL_LEN);
    struct gw_str hex = gw_str_sub(tail, sizeof(MAC_KEY) - 1, 64);
    if (!gw_str_starts(tail, GW_STR(MAC_KEY)) || !gw_str_ends(tail, GW_STR("\"}")) ||
        !gw_is_hex_lower(hex, 64) || !gw_hex_decode(got, 32, hex)) {
        return false;
    }
    *no_memory = !mac_of(body, purpose, key, want);
    return !*no_memory && gw_equal_secret(want, got, sizeof(want));
}

int auth_record_open(struct gw_json **out, struct gw_str line, const char *purpose,
                     struct gw_str key, struct gw_error *err)
{
    struct gw_json *doc = NULL;
    bool no_memory = false;
    int64_t v;

    if (gw_str_ends(line, GW_STR("\n"))) {
        line.n--;
    }
    int rc = gw_json_parse(&doc, line, err);
    if (rc == GW_NO_MEMORY) {
        return rc;
    }
    if (rc != GW_OK) {
        if (err != NULL) {
            err->status = GW_CORRUPT; /* held data, not a client's */
        }
        return GW_CORRUPT;
    }
    if (!gw_json_int(gw_json_get(doc, "v"), &v) || v < 1) {
        rc = gw_fail(err, GW_CORRUPT, 0, "%s record without a version", purpose);
    } else if (v > AUTH_RECORD_VERSION) {
        rc = gw_fail(
            err, GW_INVALID, 0,
            "%s record of version %lld, written by a newer hubgate: this one reads up to %d",
            purpose, (long long)v, AUTH_RECORD_VERSION);
    } else if (!mac_right(line, purpose, key, &no_memory)) {
        rc = no_memory
                 ? gw_fail(err, GW_NO_MEMORY, 0, "no memory")
                 : gw_fail(
                       err, GW_CORRUPT, 0,
                       "%s record with a wrong MAC: changed by hand, or written under another key",
                       purpose);
    }
    if (rc != GW_OK) {
        gw_json_free(doc);
        return rc;
    }
    *out = doc;
    return GW_OK;
}

int auth_record_string(const struct gw_json *doc, const char *key, struct gw_arena *a,
                       struct gw_str *out, struct gw_error *err)
{
    const struct gw_json *node = gw_json_get(doc, key);
    struct gw_str s = gw_json_string(node);

    if (!gw_json_is_string(node) || (s.n > 0 && memchr(s.p, '\0', s.n) != NULL)) {
        return gw_fail(err, GW_CORRUPT, 0, "record without a usable \"%s\"", key);
    }
    s = gw_arena_dup(a, s);
    if (s.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    *out = s;
    return GW_OK;
}
