/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ngx_http_hubgate_pipe.c - an answer that a child writes into a pipe: a piece is read when nginx holds nothing of the last
 * one, so a slow client slows the child down, and one answer takes one piece of memory.
 */

#include "ngx_http_hubgate.h"


#define NGX_HTTP_HUBGATE_PIECE   262144
#define NGX_HTTP_HUBGATE_PIECES  4                 /* in one turn of the loop */
#define NGX_HTTP_HUBGATE_LOOK    30000


static void ngx_http_hubgate_pipe_read(ngx_event_t *ev);
static void ngx_http_hubgate_pipe_write(ngx_http_request_t *r);
static ngx_uint_t ngx_http_hubgate_pipe_buffered(ngx_http_hubgate_ctx_t *ctx);


ngx_int_t
ngx_http_hubgate_send_pipe(ngx_http_hubgate_ctx_t *ctx)
{
    int                  fd;
    ngx_connection_t    *c;
    ngx_http_request_t  *r = ctx->r;

    fd = gateway_pipe(&ctx->req);
    if (fd == -1) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    c = ngx_get_connection(fd, r->connection->log);
    if (c == NULL) {
        (void) close(fd);
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    c->data = ctx;
    c->read->handler = ngx_http_hubgate_pipe_read;
    c->read->log = r->connection->log;
    c->write->log = r->connection->log;
    c->log = r->connection->log;
    c->read->channel = 1;              /* not a leak when the worker exits */
    c->write->channel = 1;

    ctx->pipe = c;

    ctx->piece = ngx_palloc(r->pool, NGX_HTTP_HUBGATE_PIECE);

    if (ctx->piece == NULL
        || ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!ctx->counted) {
        ctx->counted = 1;
        r->main->count++;
    }

    ctx->sending = 1;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_hubgate_pipe_write;

    ngx_http_hubgate_pipe_write(r);

    return NGX_DONE;
}


void
ngx_http_hubgate_pipe_close(ngx_http_hubgate_ctx_t *ctx)
{
    if (ctx->pipe) {
        ngx_close_connection(ctx->pipe);
        ctx->pipe = NULL;
    }
}


static void
ngx_http_hubgate_pipe_end(ngx_http_hubgate_ctx_t *ctx, ngx_int_t rc)
{
    ngx_http_hubgate_pipe_close(ctx);
    ngx_http_hubgate_finalize(ctx, rc);
}


static void
ngx_http_hubgate_pipe_read(ngx_event_t *ev)
{
    ngx_connection_t        *pipe = ev->data, *c;
    ngx_http_hubgate_ctx_t  *ctx = pipe->data;

    c = ctx->r->connection;

    if (ngx_http_hubgate_pipe_buffered(ctx)) {
        return;                        /* the client's turn: it is read then */
    }

    ngx_http_set_log_request(c->log, ctx->r);
    ngx_http_hubgate_pipe_write(ctx->r);
    ngx_http_run_posted_requests(c);
}


static ngx_int_t
ngx_http_hubgate_pipe_header(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_http_request_t  *r = ctx->r;

    ctx->header_sent = 1;

    if (ngx_http_hubgate_headers_out(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    r->headers_out.content_length_n = -1;

    r->gzip_tested = 1;                /* packs are compressed */
    r->gzip_ok = 0;

    return ngx_http_send_header(r);
}


/* NGX_OK: a piece was handed on; NGX_AGAIN: there is none yet; NGX_DONE: it is over */

static ngx_int_t
ngx_http_hubgate_pipe_piece(ngx_http_hubgate_ctx_t *ctx)
{
    ssize_t       n;
    ngx_int_t     rc;
    ngx_buf_t    *b = &ctx->buf;
    ngx_chain_t   out;

    do {
        n = read(ctx->pipe->fd, ctx->piece, NGX_HTTP_HUBGATE_PIECE);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    if (n == -1 && ngx_errno == NGX_EAGAIN) {
        return NGX_AGAIN;
    }

    if (n == -1) {
        ngx_log_error(NGX_LOG_ERR, ctx->r->connection->log, ngx_errno,
                      "hubgate: read from a child");
        return NGX_ERROR;
    }

    if (!ctx->header_sent) {
        rc = ngx_http_hubgate_pipe_header(ctx);

        if (rc == NGX_ERROR || rc > NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_memzero(b, sizeof(*b));

    if (n == 0) {
        ctx->pipe_ended = 1;
        b->last_buf = 1;
        b->last_in_chain = 1;

    } else {
        b->pos = ctx->piece;
        b->last = ctx->piece + n;
        b->start = b->pos;
        b->end = b->last;
        b->temporary = 1;
        b->flush = 1;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(ctx->r, &out) == NGX_ERROR ? NGX_ERROR
                                                             : NGX_OK;
}


static ngx_uint_t
ngx_http_hubgate_pipe_buffered(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_http_request_t  *r = ctx->r;

    return ctx->header_sent
           && (r->connection->buffered || r->buffered || r->postponed);
}


/* the client can take more, or the child has written more */

static void
ngx_http_hubgate_pipe_write(ngx_http_request_t *r)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_event_t               *wev;
    ngx_connection_t          *c;
    ngx_http_hubgate_ctx_t    *ctx;
    ngx_http_core_loc_conf_t  *clcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_hubgate_module);
    c = r->connection;
    wev = c->write;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");
        c->timedout = 1;
        ngx_http_hubgate_pipe_end(ctx, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ngx_http_hubgate_pipe_buffered(ctx) && !wev->delayed
        && ngx_http_output_filter(r, NULL) == NGX_ERROR)
    {
        ngx_http_hubgate_pipe_end(ctx, NGX_ERROR);
        return;
    }

    for (i = 0; i < NGX_HTTP_HUBGATE_PIECES; i++) {

        if (ngx_http_hubgate_pipe_buffered(ctx) || wev->delayed
            || ctx->pipe_ended)
        {
            break;
        }

        rc = ngx_http_hubgate_pipe_piece(ctx);

        if (rc == NGX_ERROR) {
            ngx_http_hubgate_pipe_end(ctx, NGX_ERROR);
            return;
        }

        if (rc == NGX_AGAIN) {         /* the pipe's event calls us */
            if (wev->timer_set) {
                ngx_del_timer(wev);
            }

            /* not cancelable: it keeps an exiting worker for its client */

            ngx_add_timer(&ctx->timer, NGX_HTTP_HUBGATE_LOOK);
            return;
        }
    }

    if (ngx_http_hubgate_pipe_buffered(ctx) || wev->delayed) {

        if (!wev->delayed) {           /* from now: something was taken */
            ngx_add_timer(wev, clcf->send_timeout);
        }

        if (ngx_handle_write_event(wev, clcf->send_lowat) != NGX_OK) {
            ngx_http_hubgate_pipe_end(ctx, NGX_ERROR);
        }

        return;
    }

    if (wev->timer_set) {
        ngx_del_timer(wev);
    }

    if (ctx->pipe_ended) {
        ngx_http_hubgate_pipe_end(ctx, NGX_OK);
        return;
    }

    /* others have their turn first; the timer keeps an exiting worker */

    ngx_add_timer(&ctx->timer, NGX_HTTP_HUBGATE_LOOK);

    ngx_post_event(ctx->pipe->read, &ngx_posted_next_events);
}
