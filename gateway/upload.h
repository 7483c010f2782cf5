/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway/upload.h - a body that is kept as it comes: two halves of memory, filled on the loop,
 * emptied by DISK jobs one after the other; reading stops while both are full. So an upload of any
 * size takes 2 MiB, less where there are many, and what is wrong with it shows while it comes.
 */
#ifndef GATEWAY_UPLOAD_H
#define GATEWAY_UPLOAD_H

#include "gateway/internal.h"

struct upload;

/* What the jobs do with the bytes. All run in job threads, one at a time, in this order. */
struct upload_sink {
    int (*open)(struct upload *u, struct gw_error *err);
    int (*write)(struct upload *u, struct gw_str bytes, struct gw_error *err);
    int (*finish)(struct upload *u, struct gateway_job *job, struct gw_error *err);
    void (*close)(struct upload *u); /* after any of them, also without open */
};

struct upload {
    _Atomic int refs; /* the request, and a job under way */
    _Atomic bool busy;
    const struct upload_sink *sink;
    enum gw_peer peer;  /* of the last step; REPO */
    int64_t wait_ms;    /* for it */
    struct gateway *gw; /* its quotas, for jobs */
    const struct config *config;
    struct gw_arena arena; /* what finish needs to know; filled before the first byte */
    void *store;           /* the sink's */
    bool opened;
    int status; /* of the jobs; read when not busy */
    struct gw_error err;
    uint64_t given, limit, forgotten;
    unsigned filling, seq;
    size_t room; /* of each half */
    struct {
        char *p;
        size_t n;
    } half[2];
    /* what it is: strings in the arena */
    struct repo_id id;
    struct gw_str revision, sha256, author;
    struct gw_str sender; /* to be noted with the object; empty: not */
    bool proposal;        /* a commit that becomes a pull request */
    uint64_t size;
    struct { /* one of an object's parts; part 0: the whole */
        struct gw_str upload;
        uint64_t chunk, part;
    } parts;
};

/* limits.uploads of a worker are under way, or this request is one of them from now on; *ans says
 * so otherwise: GW_OK or GW_FORBIDDEN. Before upload_new. */
int upload_admit(struct gateway *gw, struct gateway_request *req,
                 struct gateway_answer *ans) GW_MUST_CHECK;
/* For this request, which owns it from now on (gateway_end lets it go). NULL: no memory */
struct upload *upload_new(struct gateway *gw, struct gateway_request *req,
                          const struct upload_sink *sink, uint64_t limit);
void upload_unref(struct upload *u); /* NULL is fine */
/* After gateway_given: the sink's finish, as a want. GW_AGAIN; GW_OK (*text: what it said); else
 * what went wrong, with any of the bytes or at the end */
int upload_finish(struct gateway *gw, struct gateway_request *req, struct gw_str *text,
                  struct gw_error *err) GW_MUST_CHECK;
int job_upload(struct gateway_job *job);

#endif
