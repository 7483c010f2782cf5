/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/share_value.c - a value as it lies in Redis.
 *
 *   0   "HGS1"                      the last byte is the version
 *   4   purpose, kind, two zeroes
 *   8   status, detail              big-endian, as all that follows
 *   16  checked_ms
 *   24  number of bytes
 *   28  bytes
 *   +   HMAC-SHA256 of the SHA-256 of: label of the purpose, kind, name, all of the above
 *
 * The name is in the MAC and not in the frame, so a value that was put under another name, kind or
 * purpose is as wrong as one of another key.
 */
#include "cache/share_internal.h"

#include "base/encode.h"
#include "base/error.h"
#include "base/sha.h"

#include <string.h>

#define HEAD_BYTES 28u
#define MAC_BYTES 32u
#define MAGIC 0x48475331u /* "HGS1" */

_Static_assert(HEAD_BYTES + MAC_BYTES == SHARE_FRAME_BYTES, "what is around the bytes");

/* With the NUL, so that none begins another. */
static const char *const labels[] = {
    [SHARE_RECORD] = "hubgate shared record",
    [SHARE_BLOB] = "hubgate shared blob",
    [SHARE_LEASE] = "hubgate lease",
    [SHARE_TOLD] = "hubgate told",
};

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> (24 - 8 * i));
    }
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

/* Label, what it is for, kind, name: each with its end. */
static void begin(struct gw_sha256 *s, enum share_purpose purpose, const char *use, int kind,
                  struct gw_str name)
{
    uint8_t lengths[12];

    put32(lengths, (uint32_t)kind);
    put64(lengths + 4, name.n);
    gw_sha256_init(s);
    gw_sha256_update(s, labels[purpose], strlen(labels[purpose]) + 1);
    gw_sha256_update(s, use, strlen(use) + 1);
    gw_sha256_update(s, lengths, sizeof(lengths));
    gw_sha256_update(s, name.n != 0 ? name.p : "", name.n);
}

static void finish(struct gw_sha256 *s, struct gw_str cluster_key, uint8_t mac[MAC_BYTES])
{
    uint8_t digest[32];

    gw_sha256_final(s, digest);
    gw_hmac_sha256(cluster_key, (struct gw_str){(const char *)digest, sizeof(digest)}, mac);
}

void share_key(char out[SHARE_KEY_BYTES + 1], struct gw_str cluster_key, enum share_purpose purpose,
               int kind, struct gw_str name)
{
    static const char letters[] = {
        [SHARE_RECORD] = 'r', [SHARE_BLOB] = 'b', [SHARE_LEASE] = 'l', [SHARE_TOLD] = 't'};
    uint8_t mac[MAC_BYTES];
    struct gw_sha256 s;

    begin(&s, purpose, "key", kind, name);
    finish(&s, cluster_key, mac);
    memcpy(out, "gw:?:", 5);
    out[3] = letters[purpose];
    gw_hex_encode(out + 5, mac, 16);
}

void share_encode(struct gw_buf *out, struct gw_str cluster_key, enum share_purpose purpose,
                  int kind, struct gw_str name, const struct share_value *v)
{
    uint8_t head[HEAD_BYTES] = {0}, mac[MAC_BYTES];
    struct gw_sha256 s;

    put32(head, MAGIC);
    head[4] = (uint8_t)purpose;
    head[5] = (uint8_t)kind;
    put32(head + 8, (uint32_t)v->status);
    put32(head + 12, (uint32_t)v->detail);
    put64(head + 16, (uint64_t)v->checked_ms);
    put32(head + 24, (uint32_t)v->bytes.n);
    begin(&s, purpose, "value", kind, name);
    gw_sha256_update(&s, head, sizeof(head));
    gw_sha256_update(&s, v->bytes.n != 0 ? v->bytes.p : "", v->bytes.n);
    finish(&s, cluster_key, mac);
    gw_buf_add(out, (struct gw_str){(const char *)head, sizeof(head)});
    gw_buf_add(out, v->bytes);
    gw_buf_add(out, (struct gw_str){(const char *)mac, sizeof(mac)});
}

int share_decode(struct share_value *out, struct gw_str cluster_key, enum share_purpose purpose,
                 int kind, struct gw_str name, struct gw_str frame, struct gw_error *err)
{
    const uint8_t *p = (const uint8_t *)frame.p;
    struct share_value v;
    uint8_t mac[MAC_BYTES];
    struct gw_sha256 s;

    if (frame.n < SHARE_FRAME_BYTES || frame.n > SHARE_FRAME_BYTES + CACHE_SHARE_MAX) {
        return gw_fail(err, GW_CORRUPT, 0, "%zu bytes are no shared value", frame.n);
    }
    if (get32(p) != MAGIC) {
        return gw_fail(err, GW_CORRUPT, 0,
                       get32(p) >> 8 == MAGIC >> 8 ? "written by another version"
                                                   : "no shared value of this program");
    }
    begin(&s, purpose, "value", kind, name);
    gw_sha256_update(&s, p, frame.n - MAC_BYTES);
    finish(&s, cluster_key, mac);
    if (!gw_equal_secret(mac, p + frame.n - MAC_BYTES, MAC_BYTES)) {
        return gw_fail(err, GW_CORRUPT, 0,
                       "the signature is wrong (damaged, put under another name, or another "
                       "cluster_key_file)");
    }
    v = (struct share_value){.status = (int32_t)get32(p + 8),
                             .detail = (int32_t)get32(p + 12),
                             .checked_ms = (int64_t)get64(p + 16),
                             .bytes = {frame.p + HEAD_BYTES, frame.n - SHARE_FRAME_BYTES}};
    /* the signer is one of us, but perhaps of another build */
    if (p[4] != purpose || p[5] != kind || p[6] != 0 || p[7] != 0 || get32(p + 24) != v.bytes.n ||
        v.status > GW_OK || v.status < GW_IO || v.checked_ms < 0) {
        return gw_fail(err, GW_CORRUPT, 0, "signed, but not understood");
    }
    *out = v;
    return GW_OK;
}
