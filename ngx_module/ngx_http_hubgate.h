/* SPDX-License-Identifier: Apache-2.0 */
/* ngx_http_hubgate.h - what the files of the door share. nginx types live in this folder and nowhere else. */

#ifndef _NGX_HTTP_HUBGATE_H_INCLUDED_
#define _NGX_HTTP_HUBGATE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "gateway/gateway.h"


#define NGX_HTTP_HUBGATE_BODY_BUFFER  (128 * 1024)


typedef struct {
    struct gateway_snapshot  *snapshot;
    ngx_shm_zone_t           *shm_zone;
    ngx_thread_pool_t        *thread_pool;
    ngx_str_t                 file;
    unsigned                  on:1;        /* some location says "hubgate on" */
} ngx_http_hubgate_main_conf_t;


/* one worker */
typedef struct {
    struct gateway           *gw;
    ngx_thread_pool_t        *thread_pool;
    ngx_connection_t         *wake;        /* the eventfd of our slot */
    ngx_event_t               tick;
    ngx_queue_t               waiting;     /* answers that wait for bytes of a fill */
    uint64_t                  requests;
    uint32_t                  seed;
} ngx_http_hubgate_worker_t;


/* one request */
typedef struct {
    ngx_http_request_t       *r;
    struct gateway_request    req;
    struct gateway_answer     ans;
    ngx_event_t               timer;
    ngx_queue_t               queue;       /* in worker.waiting */
    uint64_t                  offset;      /* GATEWAY_FILE: the next byte to hand to nginx */
    ngx_file_t                file;
    ngx_connection_t         *pipe;        /* GATEWAY_PIPE: what is read from */
    u_char                   *piece;       /* and into */
    ngx_buf_t                 buf;         /* of the window that is on its way */
    size_t                    body_max;    /* bytes that the route takes */
    size_t                    body_size;   /* of the memory of req.body */
    u_char                    id[24];
    off_t                     sent;        /* at the end, for the audit record */
    ngx_uint_t                status;
    unsigned                  counted:1;   /* r->main->count was taken: we finalize */
    unsigned                  is_waiting:1;
    unsigned                  taking:1;    /* the body is being given away */
    unsigned                  sending:1;   /* a file: what wakes us is for the next bytes */
    unsigned                  header_sent:1;
    unsigned                  complete:1;
    unsigned                  pipe_ended:1;
} ngx_http_hubgate_ctx_t;


extern ngx_module_t               ngx_http_hubgate_module;
extern ngx_module_t               ngx_thread_pool_module;
extern ngx_http_hubgate_worker_t  ngx_http_hubgate_worker;


/* worker.c */
ngx_int_t ngx_http_hubgate_init_worker(ngx_cycle_t *cycle);
void ngx_http_hubgate_leave_worker(ngx_cycle_t *cycle);
void ngx_http_hubgate_exit_worker(ngx_cycle_t *cycle);

/* handler.c */
ngx_int_t ngx_http_hubgate_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_hubgate_log_handler(ngx_http_request_t *r);
/* NGX_DONE: parked, or sending by itself; else for finalize */
ngx_int_t ngx_http_hubgate_run(ngx_http_hubgate_ctx_t *ctx);
void ngx_http_hubgate_finalize(ngx_http_hubgate_ctx_t *ctx, ngx_int_t rc);

/* send.c: NGX_DONE: it goes on by itself and finalizes; else for ngx_http_finalize_request() */
ngx_int_t ngx_http_hubgate_send(ngx_http_hubgate_ctx_t *ctx);
void ngx_http_hubgate_file_write(ngx_http_request_t *r);
ngx_int_t ngx_http_hubgate_headers_out(ngx_http_hubgate_ctx_t *ctx);

/* pipe.c: as ngx_http_hubgate_send() */
ngx_int_t ngx_http_hubgate_send_pipe(ngx_http_hubgate_ctx_t *ctx);
void ngx_http_hubgate_pipe_close(ngx_http_hubgate_ctx_t *ctx);


#endif /* _NGX_HTTP_HUBGATE_H_INCLUDED_ */
