/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/want.h - with GW_AGAIN: the one fact that a job must get before the same step is run again
 * (design: two lanes).
 */
#ifndef BASE_WANT_H
#define BASE_WANT_H

#include "base/str.h"

enum gw_peer {
    GW_PEER_LDAP,
    GW_PEER_REDIS,
    GW_PEER_UPSTREAM,
    GW_PEER_REPO,
    GW_PEER_DISK,
    GW_PEER_READ, /* the disk too: pages of files that are not in memory, and nothing else */
    GW_PEER_GIT,  /* git as a child that takes a push: minutes */
    GW_PEER_COUNT
};

struct gw_want {
    enum gw_peer peer; /* whose cap and breaker count */
    /* identifies the fact: equal keys share one job per worker. Holds no secret. */
    struct gw_str key;
    /* what the job needs and a key must not show (a password) or is long: copied into the job,
     * wiped */
    struct gw_str arg;
};

#endif
