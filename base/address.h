/* SPDX-License-Identifier: Apache-2.0 */
/* base/address.h - numeric addresses and networks of them. Pure, any thread. */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct gw_network {
    uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2), so both kinds compare alike */
    unsigned bits;     /* of them that count */
};

/* "10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1". Bits behind the prefix must be 0. */
bool gw_network_parse(struct gw_network *out, struct gw_str text);
/* Is this address in it? What is no address ("unix:") is in none. */
bool gw_network_has(const struct gw_network *n, struct gw_str address);

#endif
