/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/error.h - how a function fails: a status that callers branch on, and one line for people.
 *
 * A function either succeeds, or fills the caller's gw_error and changes nothing. Who returns an
 * error does not log it; who swallows it does. The struct is a value, so it crosses from a job
 * thread to the event loop.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#define GW_MUST_CHECK __attribute__((warn_unused_result))
#define GW_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* A status exists only if some caller branches on it; HTTP codes live in hub/. */
enum gw_status {
    GW_OK = 0,
    GW_AGAIN = -1,           /* not an error: a fact is missing, see struct gw_want */
    GW_NOT_FOUND = -2,       /* it does not exist, and that is known */
    GW_UNAUTHENTICATED = -3, /* the credential is wrong, expired or revoked */
    GW_FORBIDDEN = -4,       /* somebody known, who may not */
    GW_INVALID = -5,         /* bytes from outside that do not follow their grammar */
    GW_TOO_LARGE = -6,       /* over a stated ceiling */
    GW_CONFLICT = -7,        /* it exists already, or changed in between */
    GW_CORRUPT = -8,         /* held data that does not match its digest, MAC or format */
    GW_UNAVAILABLE = -9,     /* a peer is down or refuses for now; worth a later try */
    GW_TIMEOUT = -10,        /* the one deadline passed */
    GW_CANCELLED = -11,      /* the process is leaving */
    GW_NO_MEMORY = -12,
    GW_IO = -13, /* disk: errno is in sys */
};

/* The caller's; copied freely, never freed. text is one line without any secret. */
struct gw_error {
    enum gw_status status;
    int sys; /* errno, LDAP result, CURLcode, HTTP status of a peer; 0: none */
    char text[240];
};

/* Records the failure and returns s. err may be NULL. Text longer than the field is cut, control
 * bytes become '?'; an argument may be err->text itself. */
int gw_fail(struct gw_error *err, enum gw_status s, int sys, const char *fmt, ...) GW_PRINTF(4, 5);

/* Puts "prefix: " before the text that is already there; returns err->status (GW_IO if err is
 * NULL). */
int gw_fail_prefix(struct gw_error *err, const char *fmt, ...) GW_PRINTF(2, 3);

/* "GW_TIMEOUT" and so on: for logs and tests. */
const char *gw_status_name(enum gw_status s);

#endif
