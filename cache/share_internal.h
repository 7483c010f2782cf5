/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/share_internal.h - what the files about other nodes share.
 *
 *   redis_text.c   URLs; replies (RESP2) as values, hiredis is the parser. Pure
 *   redis.c        connections to the first server that answers; commands, each with its deadline
 *   share_value.c  values framed, signed and bound to their names. Pure
 *   share.c        records and small blobs      share_lease.c   leases
 *   share_stream.c what changed in data/        share_probe.c   for `hubgate check`
 *
 * Handles of hiredis are void pointers here: its headers stay in redis_text.c and redis.c.
 */
#ifndef CACHE_SHARE_INTERNAL_H
#define CACHE_SHARE_INTERNAL_H

#include "cache/cache.h"

#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- redis_text.c ---- */
enum redis_kind {
    REDIS_IS_TEXT,
    REDIS_IS_NUMBER,
    REDIS_IS_NIL,
    REDIS_IS_STATUS,
    REDIS_IS_ERROR,
    REDIS_IS_LIST,
};
struct redis_value {
    enum redis_kind kind;
    int64_t number;
    struct gw_str text;         /* text, status, error */
    struct redis_value **items; /* list; all n are set once the reply is whole */
    size_t n;
};
/* The arena holds the last reply, and never more than a few times max: a reply that announces more
 * is refused when it does so. */
struct redis_parser {
    void *reader; /* redisReader */
    struct gw_arena arena;
    size_t held; /* bytes fed that no whole reply has taken yet */
    size_t max;  /* of one reply; may be changed between replies */
    bool over;   /* hiredis got no memory because the reply is too large */
};
int redis_parser_init(struct redis_parser *p, struct gw_error *err) GW_MUST_CHECK;
void redis_parser_release(struct redis_parser *p); /* zeroed memory is fine */
int redis_parser_feed(struct redis_parser *p, struct gw_str bytes,
                      struct gw_error *err) GW_MUST_CHECK;
/* The next reply, which lives until the call after this one. @return GW_OK; GW_AGAIN: feed more;
 * GW_TOO_LARGE (max); GW_INVALID (no RESP2); GW_NO_MEMORY. After a failure the connection is of no
 * use. */
int redis_parser_next(struct redis_parser *p, struct redis_value **out,
                      struct gw_error *err) GW_MUST_CHECK;
bool redis_is_status(const struct redis_value *v, const char *text);

/* ---- redis.c ---- */
/* A conversation on one connection: say commands, read their replies in order. */
struct redis_session;
/* Something in Redis is not what it should be: counted, and logged once a minute for the node. */
void cache_share_reject(struct cache *c, const char *what, const struct gw_error *why);
/**
 * Runs work with the first server that answers. When a server fails (refused, silent, READONLY,
 * LOADING, no rights, ...) the next one is tried and work runs from its start; what failed is
 * passed over for a second, and logged once a minute if another one stands in.
 * @param reply_max  bytes of one reply
 * @return what work returned; GW_UNAVAILABLE or GW_TIMEOUT: no server answers; GW_CANCELLED;
 * GW_NO_MEMORY
 */
int redis_run(struct cache *c, int64_t deadline_ms, size_t reply_max,
              int (*work)(struct redis_session *s, void *ctx, struct gw_error *err), void *ctx,
              struct gw_error *err) GW_MUST_CHECK;
/* Adds a command, to be sent with the next read. What fails here fails there. */
void redis_say(struct redis_session *s, const struct gw_str *words, size_t n);
#define REDIS_SAY(s, ...)                                                                          \
    redis_say(s, (const struct gw_str[]){__VA_ARGS__},                                             \
              sizeof((const struct gw_str[]){__VA_ARGS__}) / sizeof(struct gw_str))
/* DEL, in a conversation of its own. */
int redis_remove(struct cache *c, struct gw_str key, int64_t deadline_ms,
                 struct gw_error *err) GW_MUST_CHECK;
size_t redis_unsent(const struct redis_session *s); /* bytes */
/* The next reply; the time of one round trip begins when commands are sent. An error is returned as
 * a value only when it is about the value (WRONGTYPE). @return GW_OK; GW_TOO_LARGE (reply_max:
 * what was said after it stays without an answer); the others mean: return this from work */
int redis_read(struct redis_session *s, struct redis_value **out,
               struct gw_error *err) GW_MUST_CHECK;

/* ---- share.c ---- */
int cache_share_off(struct gw_error *err); /* GW_UNAVAILABLE: no servers are named */

/* ---- share_value.c ---- */
enum share_purpose { SHARE_RECORD = 1, SHARE_BLOB, SHARE_LEASE, SHARE_TOLD };
#define SHARE_FRAME_BYTES 60u /* around the bytes */
#define SHARE_KEY_BYTES 37u   /* "gw:r:" and 32 hex digits */
struct share_value {
    int32_t status, detail; /* as in a record */
    int64_t checked_ms;
    struct gw_str bytes;
};
/* What Redis calls it: shows the purpose, but no name. */
void share_key(char out[SHARE_KEY_BYTES + 1], struct gw_str cluster_key, enum share_purpose purpose,
               int kind, struct gw_str name);
void share_encode(struct gw_buf *out, struct gw_str cluster_key, enum share_purpose purpose,
                  int kind, struct gw_str name, const struct share_value *v);
/* @return GW_OK (bytes borrow from frame); GW_CORRUPT: damaged, another version, of another
 * purpose, kind, name or key */
int share_decode(struct share_value *out, struct gw_str cluster_key, enum share_purpose purpose,
                 int kind, struct gw_str name, struct gw_str frame,
                 struct gw_error *err) GW_MUST_CHECK;

#endif
