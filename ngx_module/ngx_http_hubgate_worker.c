/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ngx_http_hubgate_worker.c - one worker: opens the gateway after fork, runs its jobs in the thread pool, wakes it by the
 * eventfd of its slot and a slow tick (which covers a lost wake).
 */

#include "ngx_http_hubgate.h"


#define NGX_HTTP_HUBGATE_TICK  250


ngx_http_hubgate_worker_t  ngx_http_hubgate_worker;


static void
ngx_http_hubgate_log_write(void *ctx, enum gw_log_level level,
    struct gw_str line)
{
    ngx_str_t  s;

    static const ngx_uint_t  levels[] = {
        NGX_LOG_ERR, NGX_LOG_WARN, NGX_LOG_NOTICE, NGX_LOG_INFO
    };

    /* any thread: only the cycle's log, which writes with one write(2) */

    s.data = (u_char *) line.p;
    s.len = line.n;

    ngx_log_error(levels[level], (ngx_log_t *) ctx, 0, "hubgate: %V", &s);
}


static void
ngx_http_hubgate_job_run(void *data, ngx_log_t *log)
{
    gateway_job_run(*(struct gateway_job **) data);
}


static void
ngx_http_hubgate_job_done(ngx_event_t *ev)
{
    ngx_thread_task_t   *task = ev->data;
    struct gateway_job  *job;

    job = *(struct gateway_job **) task->ctx;

    ngx_free(task);

    gateway_job_done(job);
}


static bool
ngx_http_hubgate_job_post(void *ctx, struct gateway_job *job)
{
    ngx_thread_task_t  *task;

    task = ngx_calloc(sizeof(ngx_thread_task_t) + sizeof(job),
                      ngx_cycle->log);
    if (task == NULL) {
        return false;
    }

    task->ctx = task + 1;
    ngx_memcpy(task->ctx, &job, sizeof(job));

    task->handler = ngx_http_hubgate_job_run;
    task->event.handler = ngx_http_hubgate_job_done;
    task->event.data = task;
    task->event.log = ngx_cycle->log;

    if (ngx_thread_task_post(ngx_http_hubgate_worker.thread_pool, task)
        != NGX_OK)
    {
        ngx_free(task);
        return false;
    }

    return true;
}


static void
ngx_http_hubgate_tick(void)
{
    ngx_queue_t             *q, waiting;
    ngx_http_hubgate_ctx_t  *ctx;

    ngx_http_hubgate_worker_t  *w = &ngx_http_hubgate_worker;

    if (ngx_exiting || ngx_terminate) {
        gateway_leave(w->gw);
    }

    gateway_tick(w->gw);

    if (ngx_queue_empty(&w->waiting)) {
        return;
    }

    /* who still has nothing comes back into w->waiting meanwhile */

    ngx_queue_init(&waiting);
    ngx_queue_add(&waiting, &w->waiting);
    ngx_queue_init(&w->waiting);

    while (!ngx_queue_empty(&waiting)) {
        q = ngx_queue_head(&waiting);
        ngx_queue_remove(q);

        ctx = ngx_queue_data(q, ngx_http_hubgate_ctx_t, queue);
        ctx->is_waiting = 0;

        ngx_post_event(ctx->r->connection->write, &ngx_posted_events);
    }
}


static void
ngx_http_hubgate_tick_handler(ngx_event_t *ev)
{
    ngx_http_hubgate_tick();

    ngx_add_timer(ev, NGX_HTTP_HUBGATE_TICK);
}


static void
ngx_http_hubgate_wake_handler(ngx_event_t *ev)
{
    uint64_t           n;
    ngx_connection_t  *c;

    c = ev->data;

    while (read(c->fd, &n, sizeof(n)) == (ssize_t) sizeof(n)) { /* void */ }

    ngx_http_hubgate_tick();
}


static ngx_int_t
ngx_http_hubgate_add_wake(ngx_cycle_t *cycle, int fd)
{
    ngx_connection_t  *c;

    static ngx_log_t   log;

    c = ngx_get_connection(fd, cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    log = *cycle->log;

    c->read->handler = ngx_http_hubgate_wake_handler;
    c->read->log = &log;
    c->write->log = &log;
    c->log = &log;
    c->read->channel = 1;              /* not a leak when the worker exits */
    c->write->channel = 1;

    if (ngx_add_event(c->read, NGX_READ_EVENT, NGX_LEVEL_EVENT) != NGX_OK) {
        ngx_free_connection(c);
        return NGX_ERROR;
    }

    ngx_http_hubgate_worker.wake = c;

    return NGX_OK;
}


ngx_int_t
ngx_http_hubgate_init_worker(ngx_cycle_t *cycle)
{
    struct gw_error                err;
    struct gateway_options         o;
    ngx_http_hubgate_main_conf_t  *hmcf;

    static ngx_connection_t     dumb;
    ngx_http_hubgate_worker_t  *w = &ngx_http_hubgate_worker;

    dumb.fd = (ngx_socket_t) -1;

    /* the cache manager and loader run init_process too */

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) {
        return NGX_OK;
    }

    if (ngx_get_conf(cycle->conf_ctx, ngx_http_module) == NULL) {
        return NGX_OK;
    }

    hmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_hubgate_module);

    if (hmcf == NULL || hmcf->snapshot == NULL) {
        return NGX_OK;
    }

    ngx_memzero(w, sizeof(*w));
    ngx_queue_init(&w->waiting);

    w->thread_pool = hmcf->thread_pool;
    w->seed = (uint32_t) ngx_random() ^ (uint32_t) ngx_pid;

    ngx_memzero(&o, sizeof(o));

    o.snapshot = hmcf->snapshot;
    o.shared = hmcf->shm_zone->data;
    o.log.write = ngx_http_hubgate_log_write;
    o.log.ctx = cycle->log;
    o.log.level = GW_LOG_NOTICE;
    o.post = ngx_http_hubgate_job_post;

    if (gateway_open(&w->gw, &o, &err) != GW_OK) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "hubgate: %s", err.text);
        return NGX_ERROR;
    }

    if (gateway_eventfd(w->gw) >= 0
        && ngx_http_hubgate_add_wake(cycle, gateway_eventfd(w->gw)) != NGX_OK)
    {
        return NGX_ERROR;
    }

    w->tick.handler = ngx_http_hubgate_tick_handler;
    w->tick.log = cycle->log;
    w->tick.data = &dumb;              /* debug logs read a connection there */
    w->tick.cancelable = 1;

    ngx_add_timer(&w->tick, NGX_HTTP_HUBGATE_TICK);

    return NGX_OK;
}


/* before the threads of the pool are joined: a job may be waiting for a peer that says nothing */

void
ngx_http_hubgate_leave_worker(ngx_cycle_t *cycle)
{
    if (ngx_http_hubgate_worker.gw != NULL) {
        gateway_cancel(ngx_http_hubgate_worker.gw);
    }
}


void
ngx_http_hubgate_exit_worker(ngx_cycle_t *cycle)
{
    ngx_http_hubgate_worker_t  *w = &ngx_http_hubgate_worker;

    if (w->gw == NULL) {
        return;
    }

    /* nginx has joined the pool's threads before: no job runs any more */

    gateway_leave(w->gw);
    gateway_close(w->gw);
    w->gw = NULL;
}
