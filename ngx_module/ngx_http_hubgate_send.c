/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ngx_http_hubgate_send.c - an answer onto the wire: memory, or bytes of a file in windows: a window that is there and in
 * memory is sent from the file (sendfile), the next one in the next turn of the loop; else the request waits for it.
 */

#include "ngx_http_hubgate.h"


#define NGX_HTTP_HUBGATE_LOOK   30000              /* a waiting answer looks */


static ngx_int_t ngx_http_hubgate_send_memory(ngx_http_hubgate_ctx_t *ctx);
static ngx_int_t ngx_http_hubgate_send_file(ngx_http_hubgate_ctx_t *ctx);


static ngx_int_t
ngx_http_hubgate_add_header(ngx_http_request_t *r, struct gw_str name,
    struct gw_str value, ngx_table_elt_t **out)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif
    h->key.data = (u_char *) name.p;
    h->key.len = name.n;
    h->value.data = (u_char *) value.p;
    h->value.len = value.n;
    h->lowcase_key = NULL;

    if (out != NULL) {
        *out = h;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_hubgate_headers_out(ngx_http_hubgate_ctx_t *ctx)
{
    size_t                  i;
    ngx_http_request_t     *r = ctx->r;
    struct gateway_answer  *ans = &ctx->ans;

    r->headers_out.status = ans->status;

    if (ans->content_type != NULL) {
        r->headers_out.content_type.data = (u_char *) ans->content_type;
        r->headers_out.content_type.len = ngx_strlen(ans->content_type);
        r->headers_out.content_type_len = r->headers_out.content_type.len;
    }

    for (i = 0; i < ans->n_headers; i++) {
        if (ngx_http_hubgate_add_header(r, ans->headers[i].name,
                                        ans->headers[i].value, NULL)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ans->etag.n) {
        if (ngx_http_hubgate_add_header(r, GW_STR("ETag"), ans->etag,
                                        &r->headers_out.etag)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        /*
         * bytes of files are never compressed: clients check lengths and
         * strong tags (rust hf-hub 0.5 sends Accept-Encoding with a Range)
         */

        r->gzip_tested = 1;
        r->gzip_ok = 0;
    }

    r->allow_ranges = ans->ranges;

    return NGX_OK;
}


ngx_int_t
ngx_http_hubgate_send(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_int_t               rc;
    ngx_http_request_t     *r = ctx->r;
    struct gateway_answer  *ans = &ctx->ans;

    if (ans->kind == GATEWAY_FILE) {
        return ngx_http_hubgate_send_file(ctx);
    }

    if (ans->kind == GATEWAY_PIPE) {
        return ngx_http_hubgate_send_pipe(ctx);
    }

    if (ngx_http_hubgate_headers_out(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.content_length_n = ans->status == 204 ? -1
                                                         : (off_t) ans->size;

    switch (ans->kind) {

    case GATEWAY_MEMORY:
        return ngx_http_hubgate_send_memory(ctx);

    default:
        r->header_only = 1;
        rc = ngx_http_send_header(r);

        if (rc == NGX_ERROR || rc > NGX_OK) {
            return rc;
        }

        return NGX_OK;
    }
}


static ngx_int_t
ngx_http_hubgate_send_memory(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_int_t               rc;
    ngx_buf_t              *b;
    ngx_chain_t             out;
    ngx_http_request_t     *r = ctx->r;
    struct gateway_answer  *ans = &ctx->ans;

    if (ans->size == 0) {
        r->header_only = 1;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    /* the arena of the request lives until its log phase */

    b->pos = (u_char *) ans->memory.p;
    b->last = b->pos + ans->memory.n;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static ngx_int_t
ngx_http_hubgate_send_file(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_http_request_t  *r = ctx->r;

    if (!ctx->counted) {
        ctx->counted = 1;
        r->main->count++;
    }

    ctx->sending = 1;
    ctx->offset = ctx->ans.first;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_hubgate_file_write;

    ngx_http_hubgate_file_write(r);

    return NGX_DONE;
}


/* until a tick (more bytes of a fill) or the end of a job (a window was read) */

static void
ngx_http_hubgate_file_wait(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_event_t  *wev = ctx->r->connection->write;

    if (wev->timer_set) {
        ngx_del_timer(wev);
    }

    if (!ctx->is_waiting) {
        ctx->is_waiting = 1;
        ngx_queue_insert_tail(&ngx_http_hubgate_worker.waiting, &ctx->queue);
    }

    /* not cancelable: it keeps an exiting worker alive for its client */

    ngx_add_timer(&ctx->timer, NGX_HTTP_HUBGATE_LOOK);
}


static void
ngx_http_hubgate_file_fail(ngx_http_hubgate_ctx_t *ctx,
    const struct gw_error *err)
{
    ngx_int_t  rc;

    if (!ctx->header_sent) {           /* the second fetch, or say why instead */
        ctx->sending = 0;

        if (gateway_file_again(ngx_http_hubgate_worker.gw, &ctx->req, err)) {
            rc = ngx_http_hubgate_run(ctx);

            if (rc != NGX_DONE) {
                ngx_http_hubgate_finalize(ctx, rc);
            }

            return;
        }

        gateway_file_refuse(ngx_http_hubgate_worker.gw, &ctx->req, &ctx->ans,
                            err);

        ngx_http_hubgate_finalize(ctx, ngx_http_hubgate_send(ctx));
        return;
    }

    ngx_log_error(NGX_LOG_WARN, ctx->r->connection->log, 0,
                  "hubgate: the answer is cut: %s", err->text);

    ngx_http_hubgate_finalize(ctx, NGX_ERROR);
}


static ngx_int_t
ngx_http_hubgate_file_header(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_http_request_t  *r = ctx->r;

    ctx->header_sent = 1;

    if (ngx_http_hubgate_headers_out(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    r->headers_out.content_length_n = (off_t) (ctx->ans.end - ctx->ans.first);

    return ngx_http_send_header(r);
}


/* the buffer of the last window is free: nothing is buffered */

static ngx_int_t
ngx_http_hubgate_file_output(ngx_http_hubgate_ctx_t *ctx, int fd,
    uint64_t bytes)
{
    ngx_buf_t    *b = &ctx->buf;
    ngx_chain_t   out;

    ctx->file.fd = fd;
    ctx->file.log = ctx->r->connection->log;
    ngx_str_set(&ctx->file.name, "hubgate file");

    ngx_memzero(b, sizeof(*b));

    b->file = &ctx->file;
    b->file_pos = (off_t) ctx->offset;
    b->file_last = (off_t) (ctx->offset + bytes);
    b->in_file = 1;
    b->flush = 1;

    ctx->offset += bytes;

    if (ctx->offset == ctx->ans.end) {
        b->last_buf = 1;
        b->last_in_chain = 1;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(ctx->r, &out);
}


static ngx_uint_t
ngx_http_hubgate_file_buffered(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_http_request_t  *r = ctx->r;

    return ctx->header_sent
           && (r->connection->buffered || r->buffered || r->postponed);
}


/* what nginx holds of the window goes on, unless it has left memory */

static ngx_int_t
ngx_http_hubgate_file_flush(ngx_http_hubgate_ctx_t *ctx)
{
    int               rc;
    ngx_buf_t        *b = &ctx->buf;
    struct gw_error   err;

    if (b->in_file && b->file_pos < b->file_last) {
        rc = gateway_file_warm(ngx_http_hubgate_worker.gw, &ctx->req,
                               (uint64_t) b->file_pos, (uint64_t) b->file_last,
                               &err);
        if (rc == GW_AGAIN) {
            ngx_http_hubgate_file_wait(ctx);
            return NGX_DONE;
        }

        if (rc != GW_OK) {
            ngx_http_hubgate_file_fail(ctx, &err);
            return NGX_DONE;
        }
    }

    if (ngx_http_output_filter(ctx->r, NULL) == NGX_ERROR) {
        ngx_http_hubgate_finalize(ctx, NGX_ERROR);
        return NGX_DONE;
    }

    return NGX_OK;
}


/* the next window, with the header before the first */

static ngx_int_t
ngx_http_hubgate_file_next(ngx_http_hubgate_ctx_t *ctx)
{
    int               fd;
    uint64_t          avail;
    ngx_int_t         rc;
    struct gw_error   err;

    if (gateway_file_want(ngx_http_hubgate_worker.gw, &ctx->req, ctx->offset,
                          &avail, &fd, &err)
        != GW_OK)
    {
        ngx_http_hubgate_file_fail(ctx, &err);
        return NGX_DONE;
    }

    if (avail == 0) {
        ngx_http_hubgate_file_wait(ctx);
        return NGX_DONE;
    }

    if (!ctx->header_sent) {
        rc = ngx_http_hubgate_file_header(ctx);

        if (rc == NGX_ERROR || rc > NGX_OK || ctx->r->header_only) {
            ngx_http_hubgate_finalize(ctx, rc);
            return NGX_DONE;
        }
    }

    if (ngx_http_hubgate_file_output(ctx, fd, avail) == NGX_ERROR) {
        ngx_http_hubgate_finalize(ctx, NGX_ERROR);
        return NGX_DONE;
    }

    return NGX_OK;
}


void
ngx_http_hubgate_file_write(ngx_http_request_t *r)
{
    ngx_int_t                  rc;
    ngx_event_t               *wev;
    ngx_connection_t          *c;
    ngx_http_hubgate_ctx_t    *ctx;
    ngx_http_core_loc_conf_t  *clcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_hubgate_module);
    c = r->connection;
    wev = c->write;

    if (ctx->is_waiting) {
        ngx_queue_remove(&ctx->queue);
        ctx->is_waiting = 0;
    }

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (wev->posted) {     /* epoll was first: else two windows in one turn */
        ngx_delete_posted_event(wev);
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");
        c->timedout = 1;
        ngx_http_hubgate_finalize(ctx, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (wev->delayed || r->aio) {      /* limit_rate, or a read in a thread */
        if (ngx_handle_write_event(wev, clcf->send_lowat) != NGX_OK) {
            ngx_http_hubgate_finalize(ctx, NGX_ERROR);
        }

        return;
    }

    if (ngx_http_hubgate_file_buffered(ctx)) {
        rc = ngx_http_hubgate_file_flush(ctx);

    } else if (ctx->offset != ctx->ans.end) {
        rc = ngx_http_hubgate_file_next(ctx);

    } else {
        rc = NGX_OK;
    }

    if (rc != NGX_OK) {
        return;
    }

    if (ngx_http_hubgate_file_buffered(ctx) || wev->delayed) {

        if (!wev->delayed) {           /* from now: something was taken */
            ngx_add_timer(wev, clcf->send_timeout);
        }

        if (ngx_handle_write_event(wev, clcf->send_lowat) != NGX_OK) {
            ngx_http_hubgate_finalize(ctx, NGX_ERROR);
        }

        return;
    }

    if (wev->timer_set) {
        ngx_del_timer(wev);
    }

    if (ctx->offset == ctx->ans.end) {
        ngx_http_hubgate_finalize(ctx, NGX_OK);
        return;
    }

    /*
     * One fast reader does not own the worker: the rest in the next turn. The
     * timer keeps an exiting worker until then: nginx leaves as soon as there
     * is none, whatever is posted.
     */

    ngx_add_timer(&ctx->timer, NGX_HTTP_HUBGATE_LOOK);

    ngx_post_event(wev, &ngx_posted_next_events);
}
