/* SPDX-License-Identifier: Apache-2.0 */
/* base/address.c - see address.h */
#include "base/address.h"

#include <arpa/inet.h>
#include <string.h>

/* @return bits of an address of this kind: 32, 128; 0: not an address */
static unsigned parse_address(uint8_t out[16], struct gw_str text)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    char s[INET6_ADDRSTRLEN];

    if (text.n == 0 || text.n >= sizeof(s) || memchr(text.p, '\0', text.n) != NULL) {
        return 0;
    }
    memcpy(s, text.p, text.n);
    s[text.n] = '\0';
    if (inet_pton(AF_INET6, s, out) == 1) {
        return 128;
    }
    memcpy(out, mapped, sizeof(mapped));
    return inet_pton(AF_INET, s, out + sizeof(mapped)) == 1 ? 32 : 0;
}

/* Of the bytes, only the first `bits` bits are kept. */
static void cut(uint8_t bytes[16], unsigned bits)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned kept = bits <= 8 * i ? 0 : bits - 8 * i;

        if (kept < 8) {
            bytes[i] &= (uint8_t)(0xff00u >> kept);
        }
    }
}

bool gw_network_parse(struct gw_network *out, struct gw_str text)
{
    struct gw_str rest = text, address;
    uint8_t whole[16];
    uint64_t prefix;
    unsigned size;

    gw_str_split(&rest, '/', &address);
    size = parse_address(out->bytes, address);
    if (size == 0) {
        return false;
    }
    prefix = size;
    if (rest.p != NULL && (!gw_str_u64(rest, &prefix) || prefix > size)) {
        return false;
    }
    out->bits = 128 - size + (unsigned)prefix;
    memcpy(whole, out->bytes, sizeof(whole));
    cut(out->bytes, out->bits);
    return memcmp(whole, out->bytes, sizeof(whole)) == 0;
}

bool gw_network_has(const struct gw_network *n, struct gw_str address)
{
    uint8_t bytes[16];

    if (parse_address(bytes, address) == 0) {
        return false;
    }
    cut(bytes, n->bits);
    return memcmp(bytes, n->bytes, sizeof(bytes)) == 0;
}
