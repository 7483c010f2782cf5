/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway/gateway.h - the corridor: the only code that knows all rooms. One request is parse ->
 * admit -> resolve -> serve on one stack, run again from the start whenever a job brought a missing
 * fact.
 *
 * Threads: everything here belongs to the loop (one thread per process) except gateway_job_run (job
 * threads) and gateway_snapshot_* (start-up, before fork). The command drives the same functions
 * without nginx (gateway/cli).
 */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "base/str.h"
#include "base/want.h"

#define GATEWAY_WANTS_MAX 8u /* facts one request may wait for, one after the other */
#define GATEWAY_BODY_MAX                                                                           \
    (4u << 20) /* bytes of a request body that is read into memory (paths-info) */
#define GATEWAY_HEADERS_MAX 24u

struct config;

/* ---- snapshot: configuration, rules and secrets of one cycle. Immutable, read before fork and
 * before rights are dropped ---- */
struct gateway_snapshot;
/* @param report every error of the policy, a line each; may be NULL
 * @return GW_OK; GW_INVALID and the others of config_load, policy_parse and gw_file_read_secret:
 * text says FILE:LINE:COLUMN */
int gateway_snapshot_load(struct gateway_snapshot **out, const char *config_path,
                          struct gw_buf *report, struct gw_error *err) GW_MUST_CHECK;
void gateway_snapshot_free(struct gateway_snapshot *s); /* NULL is fine */
const struct config *gateway_snapshot_config(const struct gateway_snapshot *s);
/* Do data/ and cache/ exist, belong to this user, and are they writable for him? A sentence that
 * says what to do. */
int gateway_check_folders(const struct gateway_snapshot *s, uid_t uid, gid_t gid,
                          struct gw_error *err) GW_MUST_CHECK;

/* ---- shared memory of all workers of all cycles ---- */
#define GATEWAY_SHARED_VERSION 6u
size_t gateway_shared_bytes(void);
int gateway_shared_init(void *zeroed,
                        struct gw_error *err) GW_MUST_CHECK; /* once, before the first fork */
bool gateway_shared_known(const void *memory);               /* the layout is this version's */

/* ---- jobs: one job gets exactly one fact, blocking, in a thread of the door's pool ---- */
struct gateway_job;
struct gateway;
void gateway_job_run(struct gateway_job *job);  /* job thread */
void gateway_job_done(struct gateway_job *job); /* loop: wakes who waited, frees the job */

/* ---- one process ---- */
struct gateway_options {
    const struct gateway_snapshot *snapshot; /* outlives the gateway */
    void *shared;                            /* from gateway_shared_init; outlives it */
    struct gw_log log;
    bool command; /* the command line: no fetcher, no audit */
    bool fetches; /* a command that has a fetcher all the same */
    bool (*post)(void *ctx, struct gateway_job *job); /* runs gateway_job_run in a thread, then
                                                         gateway_job_done; false: refused */
    void *ctx;
};
/* After fork. @return GW_OK; GW_IO, GW_INVALID, GW_CONFLICT (no free worker slot): text for the
 * error log */
int gateway_open(struct gateway **out, const struct gateway_options *o,
                 struct gw_error *err) GW_MUST_CHECK;
void gateway_leave(struct gateway *gw); /* the process is leaving: who waits is served, nothing new
                                           is fetched ahead */
/* The process ends now, before its threads are joined: calls to upstream end within a second, jobs
 * that still wait for a thread at once. */
void gateway_cancel(struct gateway *gw);
void gateway_close(struct gateway *gw); /* all jobs are done; joins the fetcher; writes the audit
                                           out. NULL is fine */
int gateway_eventfd(const struct gateway *gw); /* readable: call gateway_tick. -1: none */
void gateway_tick(struct gateway *gw);         /* also every 250 ms */

/* ---- one request ---- */
struct gateway_header {
    struct gw_str name, value;
};

enum gateway_body {
    GATEWAY_EMPTY = 0,
    GATEWAY_MEMORY,
    GATEWAY_FILE, /* in windows: gateway_file_want */
    GATEWAY_PIPE, /* until a pipe ends: gateway_pipe; the size is not known */
    GATEWAY_TAKE  /* no answer yet: read the body, gateway_give it, then step again */
};

struct gateway_answer {
    int status;
    struct gateway_header headers[GATEWAY_HEADERS_MAX];
    size_t n_headers;
    const char *content_type; /* NULL: none */
    struct gw_str etag;       /* quoted; empty: none */
    enum gateway_body kind;
    struct gw_str memory; /* GATEWAY_MEMORY */
    uint64_t size;        /* of the whole representation */
    uint64_t first, end;  /* GATEWAY_FILE: send [first, end); status and Content-Range are set */
    bool ranges;          /* Accept-Ranges: bytes, nginx's range filter may work */
};

struct gateway_state;

struct gateway_request {
    /* from the door, borrowed until gateway_end */
    struct gw_str method, target, host, scheme; /* target: raw, as on the request line */
    struct gw_str authorization, content_type, user_agent, range, if_range, via, origin, peer_ip,
        git_protocol, content_encoding, id;
    unsigned n_authorization;                  /* how many such headers: more than one is refused */
    struct gw_str body;                        /* once read */
    void (*wake)(struct gateway_request *req); /* loop: run gateway_step again */
    void *ctx;                                 /* the door's */
    /* gateway's */
    struct gateway_state *state;
};

/* Parses the target. @return bytes of body the route takes: 0: discard it; GATEWAY_BODY_STREAM:
 * step first, which says GATEWAY_TAKE or answers; else read at most so much into req->body before
 * gateway_step. Errors show in gateway_step. Without memory gateway_step answers 503. */
#define GATEWAY_BODY_STREAM SIZE_MAX
size_t gateway_begin(struct gateway *gw, struct gateway_request *req);
/**
 * One step, from the start. @return GW_OK: *ans is complete, its memory lives until gateway_end (a
 * refusal is an answer too); GW_AGAIN: the request is parked, req->wake will be called.
 */
int gateway_step(struct gateway *gw, struct gateway_request *req,
                 struct gateway_answer *ans) GW_MUST_CHECK;
/* GATEWAY_TAKE: the next n bytes of the body. @return how many were taken: fewer: stop reading, and
 * give the rest when req->wake is called; GATEWAY_ENOUGH: it failed, and so much came since that no
 * more is to be read: step */
#define GATEWAY_ENOUGH SIZE_MAX
size_t gateway_give(struct gateway *gw, struct gateway_request *req, const char *p, size_t n);
/* The body is complete. @return GW_AGAIN: it is being written, call again when req->wake is called;
 * GW_OK: step */
int gateway_given(struct gateway *gw, struct gateway_request *req) GW_MUST_CHECK;
/* The deadline passed: a parked request is taken out; the next step answers (503, or something
 * stale). */
void gateway_expire(struct gateway *gw, struct gateway_request *req);
int64_t gateway_deadline(const struct gateway_request *req); /* gw_mono_ms */

/* GATEWAY_FILE: bytes of the answer that may be sent from offset on, now: they are there, and in
 * memory. 0: wait for a tick, or req->wake. fd is borrowed.
 * @return GW_OK; anything else: cut the connection, err says why */
int gateway_file_want(struct gateway *gw, struct gateway_request *req, uint64_t offset,
                      uint64_t *avail, int *fd, struct gw_error *err) GW_MUST_CHECK;
/* Bytes that gateway_file_want gave and the client has not taken yet: are they still in memory?
 * @return GW_OK; GW_AGAIN: wait for req->wake; anything else as above */
int gateway_file_warm(struct gateway *gw, struct gateway_request *req, uint64_t offset,
                      uint64_t end, struct gw_error *err) GW_MUST_CHECK;
/* GATEWAY_FILE failed before anything was sent. true: its bytes were dropped for a wrong digest and
 * are fetched once more: run gateway_step again, with a new deadline; at most once a request. */
bool gateway_file_again(struct gateway *gw, struct gateway_request *req,
                        const struct gw_error *err) GW_MUST_CHECK;
/* ... false: *ans becomes the refusal to send instead. */
void gateway_file_refuse(struct gateway *gw, struct gateway_request *req,
                         struct gateway_answer *ans, const struct gw_error *err);

/* GATEWAY_PIPE: what to read, not blocking; once, and the caller's from then on. Whoever writes
 * into it is ended by gateway_end. -1: none */
int gateway_pipe(struct gateway_request *req);

/* The request is over (also when the client left): one audit record, everything of it is freed.
 * status 0: never answered. */
void gateway_end(struct gateway *gw, struct gateway_request *req, int status, uint64_t bytes_sent,
                 bool complete);

#endif
