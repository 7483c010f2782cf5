/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_cache_share.c - any bytes as a shared value: refused, or what share_encode makes
 * of it again.
 *
 * The input is judged as it is and once more with a right signature, so that what is behind it is
 * reached. Under another key, name, kind or purpose it is refused in any case.
 */
#include "cache/share_internal.h"

#include "base/error.h"
#include "base/sha.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KEY GW_STR("0123456789abcdef0123456789abcdef")
#define MAC_BYTES 32u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(struct gw_str frame, enum share_purpose purpose, int kind, struct gw_str name)
{
    static const struct gw_str other = GW_STR_INIT("another key, which is as long as it should be");
    struct share_value v, again;
    struct gw_buf out;

    if (share_decode(&v, KEY, purpose, kind, name, frame, NULL) != GW_OK) {
        return;
    }
    gw_buf_init(&out, frame.n);
    share_encode(&out, KEY, purpose, kind, name, &v);
    if (out.failed || !gw_str_eq(gw_buf_str(&out), frame) || v.status > 0 || v.status < GW_IO ||
        share_decode(&again, other, purpose, kind, name, frame, NULL) == GW_OK ||
        share_decode(&again, KEY, purpose, kind + 1, name, frame, NULL) == GW_OK ||
        share_decode(&again, KEY, purpose, kind, gw_str_sub(name, 1, name.n), frame, NULL) ==
            GW_OK ||
        share_decode(&again, KEY, purpose == SHARE_RECORD ? SHARE_BLOB : SHARE_RECORD, kind, name,
                     frame, NULL) == GW_OK) {
        abort();
    }
    gw_buf_release(&out);
}

/* What share_value.c says is signed, once more by hand. */
static void sign(uint8_t *frame, size_t n, const char *label, int kind, struct gw_str name)
{
    uint8_t lengths[12] = {0}, digest[32];
    struct gw_sha256 s;

    lengths[3] = (uint8_t)kind;
    lengths[11] = (uint8_t)name.n;
    gw_sha256_init(&s);
    gw_sha256_update(&s, label, strlen(label) + 1);
    gw_sha256_update(&s, "value", sizeof("value"));
    gw_sha256_update(&s, lengths, sizeof(lengths));
    gw_sha256_update(&s, name.p, name.n);
    gw_sha256_update(&s, frame, n - MAC_BYTES);
    gw_sha256_final(&s, digest);
    gw_hmac_sha256(KEY, (struct gw_str){(const char *)digest, sizeof(digest)},
                   frame + n - MAC_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const labels[] = {
        [SHARE_RECORD] = "hubgate shared record", [SHARE_LEASE] = "hubgate lease"};
    static const enum share_purpose purposes[] = {SHARE_RECORD, SHARE_LEASE};
    struct gw_str name = GW_STR("model/a/b@main");
    uint8_t *copy = malloc(size + 1);

    if (copy == NULL) {
        return 0;
    }
    for (size_t i = 0; i < 2; i++) {
        int kind = purposes[i] == SHARE_RECORD ? CACHE_REF : 0;

        memcpy(copy, data, size);
        judge((struct gw_str){(const char *)copy, size}, purposes[i], kind, name);
        if (size >= MAC_BYTES) {
            sign(copy, size, labels[purposes[i]], kind, name);
            judge((struct gw_str){(const char *)copy, size}, purposes[i], kind, name);
        }
    }
    free(copy);
    return 0;
}
