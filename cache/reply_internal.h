/* SPDX-License-Identifier: Apache-2.0 */
/* cache/reply_internal.h - the head of an answer to a blocking call (reply.c). Pure but for the
 * arena. */
#ifndef CACHE_REPLY_INTERNAL_H
#define CACHE_REPLY_INTERNAL_H

#include "cache/cache_internal.h"

struct reply_head {
    struct gw_arena *arena;    /* of what is kept in reply */
    struct cache_reply *reply; /* the caller's */
    bool own;                  /* it comes from the upstream's own origin */
    bool in_body;              /* what comes now is a trailer */
    size_t header_bytes;
    enum gw_status refused; /* why it is of no use; GW_OK: it is */
    const char *why;
};

/* One line as it came, with its end. @return false: refused says why, the transfer is to end */
bool reply_line(struct reply_head *h, struct gw_str line);

#endif
