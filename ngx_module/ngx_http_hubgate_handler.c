/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ngx_http_hubgate_handler.c - the one content handler: copies what the corridor needs of a request, runs its step, parks
 * the request while a fact is fetched, and runs the same step again.
 */

#include "ngx_http_hubgate.h"


static void ngx_http_hubgate_body_handler(ngx_http_request_t *r);
static void ngx_http_hubgate_body_read(ngx_http_request_t *r);
static ngx_int_t ngx_http_hubgate_take(ngx_http_hubgate_ctx_t *ctx);
static void ngx_http_hubgate_take_handler(ngx_http_request_t *r);
static void ngx_http_hubgate_take_read(ngx_http_request_t *r);
static ngx_int_t ngx_http_hubgate_take_bufs(ngx_http_hubgate_ctx_t *ctx);
static ngx_int_t ngx_http_hubgate_body_add(ngx_http_hubgate_ctx_t *ctx);
static void ngx_http_hubgate_wake(struct gateway_request *req);
static void ngx_http_hubgate_deadline(ngx_event_t *ev);
static void ngx_http_hubgate_cleanup(void *data);


static struct gw_str
ngx_http_hubgate_str(ngx_str_t s)
{
    struct gw_str  g;

    g.p = (char *) s.data;
    g.n = s.len;

    return g;
}


static struct gw_str
ngx_http_hubgate_value(ngx_table_elt_t *h)
{
    struct gw_str  none = { NULL, 0 };

    return h ? ngx_http_hubgate_str(h->value) : none;
}


/* headers that nginx has no field for, and how often Authorization came */

static void
ngx_http_hubgate_headers(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    struct gateway_request  *req = &ctx->req;

    part = &ctx->r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == sizeof("Authorization") - 1
            && ngx_strncasecmp(h[i].key.data, (u_char *) "Authorization",
                               h[i].key.len) == 0)
        {
            req->n_authorization++;
            req->authorization = ngx_http_hubgate_str(h[i].value);

        } else if (h[i].key.len == sizeof("Via") - 1
                   && ngx_strncasecmp(h[i].key.data, (u_char *) "Via", 3) == 0)
        {
            /* several are one list: the one with our mark counts */

            if (req->via.n == 0
                || ngx_strnstr(h[i].value.data, "hubgate", h[i].value.len))
            {
                req->via = ngx_http_hubgate_str(h[i].value);
            }

        } else if (h[i].key.len == sizeof("Origin") - 1
                   && ngx_strncasecmp(h[i].key.data, (u_char *) "Origin", 6)
                      == 0)
        {
            req->origin = ngx_http_hubgate_str(h[i].value);

        } else if (h[i].key.len == sizeof("Git-Protocol") - 1
                   && ngx_strncasecmp(h[i].key.data,
                                      (u_char *) "Git-Protocol",
                                      h[i].key.len) == 0)
        {
            req->git_protocol = ngx_http_hubgate_str(h[i].value);

        } else if (h[i].key.len == sizeof("Content-Encoding") - 1
                   && ngx_strncasecmp(h[i].key.data,
                                      (u_char *) "Content-Encoding",
                                      h[i].key.len) == 0)
        {
            req->content_encoding = ngx_http_hubgate_str(h[i].value);
        }
    }
}


static void
ngx_http_hubgate_fill(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_http_request_t         *r = ctx->r;
    struct gateway_request     *req = &ctx->req;
    ngx_http_hubgate_worker_t  *w = &ngx_http_hubgate_worker;

    req->method = ngx_http_hubgate_str(r->method_name);
    req->target = ngx_http_hubgate_str(r->unparsed_uri);
    req->host = ngx_http_hubgate_value(r->headers_in.host);

    if (r->host_start) {               /* absolute-form: Host does not count */
        req->host.p = (char *) r->host_start;
        req->host.n = (r->port_end ? r->port_end : r->host_end)
                      - r->host_start;
    }

    if (req->host.n == 0) {            /* HTTP/2 has :authority only */
        req->host = ngx_http_hubgate_str(r->headers_in.server);
    }

    req->scheme = ngx_http_hubgate_str(r->schema);
    req->content_type = ngx_http_hubgate_value(r->headers_in.content_type);
    req->user_agent = ngx_http_hubgate_value(r->headers_in.user_agent);
    req->range = ngx_http_hubgate_value(r->headers_in.range);
    req->if_range = ngx_http_hubgate_value(r->headers_in.if_range);

    /* RFC 9110 13.2.2: these count before Range, and nginx asks them of a 200 only */

    if (r->headers_in.if_none_match || r->headers_in.if_match) {
        req->range.n = 0;
        r->headers_in.range = NULL;
    }

    req->peer_ip = ngx_http_hubgate_str(r->connection->addr_text);

    ngx_http_hubgate_headers(ctx);

    req->id.p = (char *) ctx->id;
    req->id.n = ngx_sprintf(ctx->id, "%08xD%012xL", w->seed, ++w->requests)
                - ctx->id;

    req->wake = ngx_http_hubgate_wake;
    req->ctx = ctx;
}


static ngx_http_hubgate_ctx_t *
ngx_http_hubgate_create_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_hubgate_ctx_t  *ctx;

    cln = ngx_pool_cleanup_add(r->pool, 0);
    ctx = ngx_pcalloc(r->pool, sizeof(*ctx));

    if (cln == NULL || ctx == NULL) {
        return NULL;
    }

    ctx->r = r;

    ctx->timer.handler = ngx_http_hubgate_deadline;
    ctx->timer.data = r->connection;   /* debug logs read a connection there */
    ctx->timer.log = r->connection->log;

    cln->handler = ngx_http_hubgate_cleanup;
    cln->data = ctx;

    ngx_http_set_ctx(r, ctx, ngx_http_hubgate_module);

    return ctx;
}


ngx_int_t
ngx_http_hubgate_handler(ngx_http_request_t *r)
{
    size_t                   body;
    ngx_int_t                rc;
    ngx_http_hubgate_ctx_t  *ctx;

    if (ngx_http_hubgate_worker.gw == NULL) {
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    /* one request, one decision: no subrequest or redirect leads here */

    if (r != r->main || r->internal) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "hubgate: subrequests and internal redirects "
                      "are refused");
        return NGX_HTTP_FORBIDDEN;
    }

    ctx = ngx_http_hubgate_create_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_hubgate_fill(ctx);

    body = gateway_begin(ngx_http_hubgate_worker.gw, &ctx->req);

    if (body == GATEWAY_BODY_STREAM) {  /* admitted before it is read */
        return ngx_http_hubgate_run(ctx);
    }

    if (body == 0) {
        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }

        return ngx_http_hubgate_run(ctx);
    }

    if (r->headers_in.content_length_n > (off_t) body) {
        return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
    }

    ctx->body_max = body;

    r->request_body_no_buffering = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_hubgate_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static void
ngx_http_hubgate_body_handler(ngx_http_request_t *r)
{
    ngx_http_hubgate_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_hubgate_module);
    ctx->counted = 1;

    if (r->request_body == NULL) {
        ngx_http_hubgate_finalize(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    r->read_event_handler = ngx_http_hubgate_body_read;

    ngx_http_hubgate_body_read(r);
}


/*
 * A body comes in pieces into memory, up to what the route takes: one of
 * unknown length nginx would write to disk, all of it, before it asks anybody.
 */

static void
ngx_http_hubgate_body_read(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_http_hubgate_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_hubgate_module);

    for ( ;; ) {

        rc = ngx_http_hubgate_body_add(ctx);

        if (rc != NGX_OK) {
            ngx_http_hubgate_finalize(ctx, rc);
            return;
        }

        if (!r->reading_body) {
            break;
        }

        rc = ngx_http_read_unbuffered_request_body(r);

        if (rc >= NGX_HTTP_SPECIAL_RESPONSE || rc == NGX_ERROR) {
            ngx_http_hubgate_finalize(ctx, rc);
            return;
        }

        if (rc == NGX_AGAIN && r->request_body->bufs == NULL) {
            return;
        }
    }

    rc = ngx_http_hubgate_run(ctx);

    if (rc != NGX_DONE) {
        ngx_http_hubgate_finalize(ctx, rc);
    }
}


static ngx_int_t
ngx_http_hubgate_body_add(ngx_http_hubgate_ctx_t *ctx)
{
    size_t               n, size;
    u_char              *p;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r = ctx->r;

    while (r->request_body->bufs) {
        cl = r->request_body->bufs;
        n = ngx_buf_size(cl->buf);

        if (n > ctx->body_max - ctx->req.body.n) {
            return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
        }

        if (n > ctx->body_size - ctx->req.body.n) {
            size = ngx_max(2 * ctx->body_size, ctx->req.body.n + n);
            size = ngx_min(ngx_max(size, ngx_pagesize), ctx->body_max);

            p = ngx_palloc(r->pool, size);
            if (p == NULL) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            if (ctx->req.body.n) {
                ngx_memcpy(p, ctx->req.body.p, ctx->req.body.n);
                (void) ngx_pfree(r->pool, (char *) ctx->req.body.p);
            }

            ctx->req.body.p = (char *) p;
            ctx->body_size = size;
        }

        if (n) {                       /* the last one may be bare */
            ngx_memcpy((char *) ctx->req.body.p + ctx->req.body.n,
                       cl->buf->pos, n);
            ctx->req.body.n += n;
        }

        cl->buf->pos = cl->buf->last;

        r->request_body->bufs = cl->next;
        ngx_free_chain(r->pool, cl);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_hubgate_run(ngx_http_hubgate_ctx_t *ctx)
{
    int64_t              left;
    ngx_http_request_t  *r = ctx->r;

    if (gateway_step(ngx_http_hubgate_worker.gw, &ctx->req, &ctx->ans)
        == GW_AGAIN)
    {
        if (!ctx->counted) {
            ctx->counted = 1;
            r->main->count++;
        }

        if (!ctx->timer.timer_set) {
            left = gateway_deadline(&ctx->req)
                   - (int64_t) (ngx_current_msec);
            ngx_add_timer(&ctx->timer, left > 1 ? (ngx_msec_t) left : 1);
        }

        /* a client that leaves ends the request, and nothing else */

        r->read_event_handler = ngx_http_test_reading;
        r->write_event_handler = ngx_http_request_empty_handler;

        return NGX_DONE;
    }

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->ans.kind == GATEWAY_TAKE) {
        return ngx_http_hubgate_take(ctx);
    }

    return ngx_http_hubgate_send(ctx);
}


/*
 * A body that the corridor keeps as it comes.  "100 Continue" goes out here,
 * after the decision; reading stops while the corridor has no room.
 */

static ngx_int_t
ngx_http_hubgate_take(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_uint_t           parked = ctx->counted;
    ngx_http_request_t  *r = ctx->r;

    ctx->taking = 1;

    if (parked) {                      /* reading the body counts for itself */
        r->main->count--;
    }

    r->request_body_no_buffering = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_hubgate_take_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        r->main->count += parked;
        return rc;
    }

    return NGX_DONE;
}


static void
ngx_http_hubgate_take_handler(ngx_http_request_t *r)
{
    ngx_http_hubgate_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_hubgate_module);
    ctx->counted = 1;

    if (r->request_body == NULL) {
        ngx_http_hubgate_finalize(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    r->read_event_handler = ngx_http_hubgate_take_read;

    ngx_http_hubgate_take_read(r);
}


static void
ngx_http_hubgate_take_read(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_http_hubgate_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_hubgate_module);

    for ( ;; ) {

        rc = ngx_http_hubgate_take_bufs(ctx);

        if (rc == NGX_DECLINED) {      /* what else comes is lingered away */
            break;
        }

        if (rc == NGX_AGAIN) {
            r->read_event_handler = ngx_http_block_reading;

            if (r->connection->read->timer_set) {
                ngx_del_timer(r->connection->read);
            }

            return;                    /* the corridor wakes us */
        }

        if (!r->reading_body) {
            break;
        }

        r->read_event_handler = ngx_http_hubgate_take_read;

        rc = ngx_http_read_unbuffered_request_body(r);

        if (rc >= NGX_HTTP_SPECIAL_RESPONSE || rc == NGX_ERROR) {
            ngx_http_hubgate_finalize(ctx, rc);
            return;
        }

        if (rc == NGX_AGAIN && r->request_body->bufs == NULL) {
            return;
        }
    }

    if (gateway_given(ngx_http_hubgate_worker.gw, &ctx->req) == GW_AGAIN) {
        r->read_event_handler = ngx_http_test_reading;
        return;
    }

    ctx->taking = 0;

    rc = ngx_http_hubgate_run(ctx);

    if (rc != NGX_DONE) {
        ngx_http_hubgate_finalize(ctx, rc);
    }
}


static ngx_int_t
ngx_http_hubgate_take_bufs(ngx_http_hubgate_ctx_t *ctx)
{
    size_t               n, taken;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r = ctx->r;

    while (r->request_body->bufs) {
        cl = r->request_body->bufs;
        n = ngx_buf_size(cl->buf);

        if (n) {
            taken = gateway_give(ngx_http_hubgate_worker.gw, &ctx->req,
                                 (char *) cl->buf->pos, n);

            if (taken == GATEWAY_ENOUGH) {
                return NGX_DECLINED;
            }

            cl->buf->pos += taken;

            if (taken < n) {
                return NGX_AGAIN;
            }
        }

        r->request_body->bufs = cl->next;
        ngx_free_chain(r->pool, cl);
    }

    return NGX_OK;
}


static void
ngx_http_hubgate_rerun(ngx_http_hubgate_ctx_t *ctx)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = ctx->r->connection;

    ngx_http_set_log_request(c->log, ctx->r);

    rc = ngx_http_hubgate_run(ctx);

    if (rc != NGX_DONE) {
        ngx_http_hubgate_finalize(ctx, rc);
    }

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_hubgate_wake(struct gateway_request *req)
{
    ngx_connection_t        *c;
    ngx_http_hubgate_ctx_t  *ctx = req->ctx;

    c = ctx->r->connection;

    if (ctx->sending) {
        ngx_post_event(c->write, &ngx_posted_events);
        return;
    }

    if (!ctx->taking) {
        ngx_http_hubgate_rerun(ctx);
        return;
    }

    ngx_http_set_log_request(c->log, ctx->r);
    ngx_http_hubgate_take_read(ctx->r);
    ngx_http_run_posted_requests(c);
}


static void
ngx_http_hubgate_deadline(ngx_event_t *ev)
{
    ngx_connection_t        *c = ev->data;
    ngx_http_hubgate_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx((ngx_http_request_t *) c->data,
                                  ngx_http_hubgate_module);

    if (ctx->sending) {                /* bytes of a file: look again */
        ngx_post_event(c->write, &ngx_posted_events);
        return;
    }

    gateway_expire(ngx_http_hubgate_worker.gw, &ctx->req);

    ngx_http_hubgate_rerun(ctx);
}


void
ngx_http_hubgate_finalize(ngx_http_hubgate_ctx_t *ctx, ngx_int_t rc)
{
    ngx_http_finalize_request(ctx->r, rc);
}


/*
 * How the request ended. Its answer lives until the pool goes: log handlers
 * that run after this one may read headers of it.
 */

ngx_int_t
ngx_http_hubgate_log_handler(ngx_http_request_t *r)
{
    ngx_http_hubgate_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_hubgate_module);

    if (ctx == NULL) {
        return NGX_OK;
    }

    ctx->sent = r->connection->sent - (off_t) r->header_size;
    ctx->status = r->err_status ? r->err_status : r->headers_out.status;
    ctx->complete = r->connection->error == 0 && r->header_sent
                    && (ctx->ans.kind != GATEWAY_FILE
                        || ctx->offset == ctx->ans.end)
                    && (ctx->ans.kind != GATEWAY_PIPE || ctx->pipe_ended);

    return NGX_OK;
}


static void
ngx_http_hubgate_cleanup(void *data)
{
    ngx_http_hubgate_ctx_t  *ctx = data;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->is_waiting) {
        ngx_queue_remove(&ctx->queue);
        ctx->is_waiting = 0;
    }

    ngx_http_hubgate_pipe_close(ctx);

    gateway_end(ngx_http_hubgate_worker.gw, &ctx->req, (int) ctx->status,
                ctx->sent > 0 ? (uint64_t) ctx->sent : 0, ctx->complete);
}
