/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/net.h - one blocking connection with one absolute deadline: TCP, TLS (OpenSSL), STARTTLS.
 * Job threads only.
 *
 * Used for LDAP (and later Redis), whose libraries are codecs here because none of their time-outs
 * bounds every stall (auth-policy 1.1). Verification cannot be switched off. Every call ends at the
 * deadline, whatever the peer does.
 */
#ifndef BASE_NET_H
#define BASE_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

struct gw_conn;

struct gw_dial {
    /* name or address literal; also the name that TLS verifies and sends (SNI) */
    struct gw_str host;
    uint16_t port;
    /* numeric address to connect to; empty: host is resolved here (command line only: getaddrinfo
     * has no time-out) */
    struct gw_str address;
    const char *ca_file; /* PEM; NULL: the system's store */
    int64_t deadline_ms; /* gw_mono_ms */
};

/* TCP only. @return GW_OK and *out (close it); GW_UNAVAILABLE (refused, unreachable); GW_TIMEOUT;
 * GW_NO_MEMORY */
int gw_conn_dial(struct gw_conn **out, const struct gw_dial *d, struct gw_error *err) GW_MUST_CHECK;
/* TLS >= 1.2 over it, verified for d->host; refused if the peer has already sent something. @return
 * GW_OK; GW_UNAVAILABLE (text: the reason of the verification); GW_TIMEOUT. After a failure nothing
 * may be sent any more: only close. */
int gw_conn_start_tls(struct gw_conn *c, const struct gw_dial *d,
                      struct gw_error *err) GW_MUST_CHECK;
void gw_conn_deadline(struct gw_conn *c, int64_t deadline_ms);
/* At least 1 byte (n >= 1); 0: the peer closed, over TLS also without close_notify: what is above
 * frames its messages; < 0: -1 with err filled (GW_TIMEOUT, GW_UNAVAILABLE). */
ptrdiff_t gw_conn_read(struct gw_conn *c, void *p, size_t n, struct gw_error *err);
/* All n, or -1: then nothing more may be sent. */
ptrdiff_t gw_conn_write(struct gw_conn *c, const void *p, size_t n, struct gw_error *err);
/* Bytes are waiting to be read (STARTTLS injection check), or the peer closed. Does not wait. */
bool gw_conn_pending(const struct gw_conn *c);
bool gw_conn_is_tls(const struct gw_conn *c);
int gw_conn_fd(const struct gw_conn *c); /* borrowed */
void gw_conn_close(struct gw_conn *c);   /* NULL is fine */

/* Fills buf with the numeric address of host: the address itself, or getaddrinfo's first. Blocking
 * without a bound: the resolver thread and the command only. @return GW_OK; GW_UNAVAILABLE;
 * GW_TOO_LARGE (cap); GW_NO_MEMORY */
int gw_resolve(struct gw_str host, char *buf, size_t cap, struct gw_error *err) GW_MUST_CHECK;

#endif
