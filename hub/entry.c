/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/entry.c - one entry of a commit as bytes for the index.
 *
 *   version 1 | flags 1 | path length 2 | size 8 | oid 20 | LFS: sha256 32, pointer size 4 | Xet:
 * 64 | path | CRC-32 of it all
 *
 * Little endian. The Xet id is kept as the 64 digits that it is compared and sent as.
 */
#include "hub/hub_internal.h"

#include "base/encode.h"

#define VERSION 1u

enum { DIRECTORY = 1, LFS = 2, XET = 4, KNOWN_FLAGS = 7 };

static void put_le(struct gw_buf *out, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        gw_buf_add_char(out, (char)(v >> (8 * i) & 0xff));
    }
}

static void put_digest(struct gw_buf *out, struct gw_str hex, size_t n)
{
    unsigned char bytes[32];

    if (!gw_is_hex_lower(hex, 2 * n) || !gw_hex_decode(bytes, n, hex)) {
        out->failed = true; /* not an entry */
        return;
    }
    gw_buf_add(out, (struct gw_str){(const char *)bytes, n});
}

void hub_entry_encode(struct gw_buf *out, const struct hub_entry *e)
{
    size_t start = out->n;
    unsigned flags =
        (e->directory ? DIRECTORY : 0) | (e->lfs ? LFS : 0) | (e->xet.n != 0 ? XET : 0);

    if ((e->directory && (e->lfs || e->xet.n != 0)) || !hub_path_safe(e->path)) {
        out->failed = true;
        return;
    }
    put_le(out, VERSION, 1);
    put_le(out, flags, 1);
    put_le(out, e->path.n, 2);
    put_le(out, e->size, 8);
    put_digest(out, gw_str_c(e->oid), 20);
    if (e->lfs) {
        put_digest(out, gw_str_c(e->sha256), 32);
        put_le(out, e->pointer_size, 4);
    }
    if (e->xet.n != 0) {
        if (!gw_is_hex_lower(e->xet, 64)) {
            out->failed = true;
            return;
        }
        gw_buf_add(out, e->xet);
    }
    gw_buf_add(out, e->path);
    if (!out->failed) {
        put_le(out, gw_crc32(0, out->p + start, out->n - start), 4);
    }
}

/* ---- reading ---- */

struct input {
    const unsigned char *p;
    size_t n;
    bool failed; /* it ended early: all reads give zeros from then on */
};

static const unsigned char *take(struct input *in, size_t n)
{
    static const unsigned char zeros[64];
    const unsigned char *p = in->p;

    if (in->failed || n > in->n) {
        in->failed = true;
        return n <= sizeof(zeros) ? zeros : NULL;
    }
    in->p += n;
    in->n -= n;
    return p;
}

static uint64_t take_le(struct input *in, size_t n)
{
    const unsigned char *p = take(in, n);
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

static bool crc_ok(struct gw_str bytes)
{
    struct input tail = {(const unsigned char *)bytes.p + bytes.n - 4, 4, false};

    return gw_crc32(0, bytes.p, bytes.n - 4) == take_le(&tail, 4);
}

static bool decode(struct hub_entry *e, struct gw_str bytes)
{
    struct input in = {(const unsigned char *)bytes.p, 0, false};
    uint64_t flags, path_n;

    if (bytes.n < 4 || !crc_ok(bytes)) {
        return false;
    }
    in.n = bytes.n - 4;
    if (take_le(&in, 1) != VERSION) {
        return false;
    }
    flags = take_le(&in, 1);
    path_n = take_le(&in, 2);
    if ((flags & ~(uint64_t)KNOWN_FLAGS) != 0 ||
        ((flags & DIRECTORY) != 0 && (flags & (LFS | XET)) != 0)) {
        return false;
    }
    e->directory = (flags & DIRECTORY) != 0;
    e->lfs = (flags & LFS) != 0;
    e->size = take_le(&in, 8);
    gw_hex_encode(e->oid, take(&in, 20), 20);
    if (e->lfs) {
        gw_hex_encode(e->sha256, take(&in, 32), 32);
        e->pointer_size = (uint32_t)take_le(&in, 4);
    }
    if ((flags & XET) != 0) {
        e->xet = (struct gw_str){(const char *)take(&in, 64), 64};
    }
    if (in.failed || in.n != path_n) {
        return false;
    }
    e->path = (struct gw_str){(const char *)in.p, in.n};
    return hub_path_safe(e->path) && (e->xet.n == 0 || gw_is_hex_lower(e->xet, 64));
}

int hub_entry_decode(struct hub_entry *out, struct gw_str bytes, struct gw_error *err)
{
    struct hub_entry e = {.directory = false};

    if (!decode(&e, bytes)) {
        return gw_fail(err, GW_CORRUPT, 0, "a record of %zu bytes is not an entry", bytes.n);
    }
    *out = e;
    return GW_OK;
}
