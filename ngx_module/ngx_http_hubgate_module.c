/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ngx_http_hubgate_module.c - the directives, and what a cycle is made of: a snapshot of the configuration, the shared
 * zone, a thread pool. All of it is checked here, at "nginx -t"; a bad file leaves the old cycle running.
 */

#include "ngx_http_hubgate.h"

#include <pwd.h>


static void *ngx_http_hubgate_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_hubgate_init_main_conf(ngx_conf_t *cf, void *conf);
static ngx_int_t ngx_http_hubgate_postconfiguration(ngx_conf_t *cf);
static char *ngx_http_hubgate_config(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_hubgate_on(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_hubgate_init_zone(ngx_shm_zone_t *zone, void *data);
static void ngx_http_hubgate_free_snapshot(void *data);


static ngx_command_t  ngx_http_hubgate_commands[] = {

    { ngx_string("hubgate_config"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_hubgate_config,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("hubgate"),
      NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_http_hubgate_on,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_hubgate_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_hubgate_postconfiguration,    /* postconfiguration */

    ngx_http_hubgate_create_main_conf,     /* create main configuration */
    ngx_http_hubgate_init_main_conf,       /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_hubgate_module = {
    NGX_MODULE_V1,
    &ngx_http_hubgate_module_ctx,          /* module context */
    ngx_http_hubgate_commands,             /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_hubgate_init_worker,          /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_hubgate_exit_worker,          /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_core_module_t  ngx_hubgate_leave_module_ctx = {
    ngx_string("hubgate_leave"),
    NULL,                                  /* create configuration */
    NULL                                   /* init configuration */
};


/* stands before the thread pool's module (see config), whose exit joins */

ngx_module_t  ngx_hubgate_leave_module = {
    NGX_MODULE_V1,
    &ngx_hubgate_leave_module_ctx,         /* module context */
    NULL,                                  /* module directives */
    NGX_CORE_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_hubgate_leave_worker,         /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_str_t  ngx_http_hubgate_name = ngx_string("hubgate");


static void *
ngx_http_hubgate_create_main_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_hubgate_main_conf_t));
}


static char *
ngx_http_hubgate_config(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_hubgate_main_conf_t  *hmcf = conf;

    ngx_str_t           *value;
    struct gw_buf        report;
    struct gw_error      err;
    ngx_pool_cleanup_t  *cln;

    if (hmcf->snapshot != NULL) {
        return "is duplicate";
    }

    value = cf->args->elts;
    hmcf->file = value[1];

    if (ngx_conf_full_name(cf->cycle, &hmcf->file, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_CONF_ERROR;
    }

    gw_buf_init(&report, 64 * 1024);

    if (gateway_snapshot_load(&hmcf->snapshot, (char *) hmcf->file.data,
                              &report, &err)
        != GW_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "hubgate: %s", err.text);

        if (report.n != 0) {
            ngx_log_error(NGX_LOG_ERR, cf->log, 0, "hubgate: all of it:\n%s",
                          report.p);
        }

        gw_buf_release(&report);
        return NGX_CONF_ERROR;
    }

    gw_buf_release(&report);

    cln->handler = ngx_http_hubgate_free_snapshot;
    cln->data = hmcf->snapshot;

    hmcf->shm_zone = ngx_shared_memory_add(cf, &ngx_http_hubgate_name,
                                           2 * gateway_shared_bytes()
                                           + 16 * ngx_pagesize,
                                           &ngx_http_hubgate_module);
    if (hmcf->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    hmcf->shm_zone->init = ngx_http_hubgate_init_zone;

    return NGX_CONF_OK;
}


static void
ngx_http_hubgate_free_snapshot(void *data)
{
    gateway_snapshot_free(data);
}


static char *
ngx_http_hubgate_on(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                     *value;
    ngx_http_core_loc_conf_t      *clcf;
    ngx_http_hubgate_main_conf_t  *hmcf;

    value = cf->args->elts;

    if (ngx_strcasecmp(value[1].data, (u_char *) "off") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcasecmp(value[1].data, (u_char *) "on") != 0) {
        return "must be \"on\" or \"off\"";
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler != NULL) {
        return "is duplicate, or the location has another handler";
    }

    clcf->handler = ngx_http_hubgate_handler;

    /* bodies are limited by route, and read into memory up to that limit */

    if (clcf->client_max_body_size == NGX_CONF_UNSET) {
        clcf->client_max_body_size = 0;
    }

    /* uploads come in pieces of this size; a body that is smaller takes less */

    if (clcf->client_body_buffer_size == NGX_CONF_UNSET_SIZE) {
        clcf->client_body_buffer_size = NGX_HTTP_HUBGATE_BODY_BUFFER;
    }

    hmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_hubgate_module);
    hmcf->on = 1;

    return NGX_CONF_OK;
}


/*
 * The pool's parameters are private to nginx, so a pool that the administrator
 * did not declare is declared by running his directive.
 */

static char *
ngx_http_hubgate_add_pool(ngx_conf_t *cf)
{
    char           *rv;
    ngx_str_t      *value;
    ngx_conf_t      pcf;
    ngx_command_t  *cmd;

    static ngx_str_t  words[] = {
        ngx_string("thread_pool"), ngx_string("hubgate"),
        ngx_string("threads=64"), ngx_string("max_queue=4096")
    };

    pcf = *cf;
    pcf.args = ngx_array_create(cf->temp_pool, 4, sizeof(ngx_str_t));
    if (pcf.args == NULL) {
        return NGX_CONF_ERROR;
    }

    value = ngx_array_push_n(pcf.args, 4);
    if (value == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memcpy(value, words, sizeof(words));

    pcf.ctx = cf->cycle->conf_ctx;
    pcf.module_type = NGX_CORE_MODULE;
    pcf.cmd_type = NGX_MAIN_CONF;

    cmd = &ngx_thread_pool_module.commands[0];

    rv = cmd->set(&pcf, cmd,
                  cf->cycle->conf_ctx[ngx_thread_pool_module.index]);

    return rv;
}


static char *
ngx_http_hubgate_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_hubgate_main_conf_t  *hmcf = conf;

    if (hmcf->snapshot == NULL) {
        return NGX_CONF_OK;
    }

    if (ngx_thread_pool_get(cf->cycle, &ngx_http_hubgate_name) == NULL
        && ngx_http_hubgate_add_pool(cf) != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    hmcf->thread_pool = ngx_thread_pool_add(cf, &ngx_http_hubgate_name);
    if (hmcf->thread_pool == NULL) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_hubgate_worker_user(ngx_conf_t *cf, uid_t *uid, gid_t *gid)
{
    struct passwd    *pwd;
    ngx_core_conf_t  *ccf;

    *uid = geteuid();
    *gid = getegid();

    if (*uid != 0) {
        return NGX_OK;
    }

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);

    if (ccf->user != (ngx_uid_t) NGX_CONF_UNSET_UINT) {
        *uid = ccf->user;
        *gid = ccf->group;
        return NGX_OK;
    }

    pwd = getpwnam(NGX_USER);
    if (pwd == NULL) {
        return NGX_ERROR;
    }

    *uid = pwd->pw_uid;
    *gid = pwd->pw_gid;

    return NGX_OK;
}


static ngx_int_t
ngx_http_hubgate_postconfiguration(ngx_conf_t *cf)
{
    uid_t                          uid;
    gid_t                          gid;
    struct gw_error                err;
    ngx_http_handler_pt           *h;
    ngx_http_core_main_conf_t     *cmcf;
    ngx_http_hubgate_main_conf_t  *hmcf;

    hmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_hubgate_module);

    if (hmcf->snapshot == NULL) {

        if (hmcf->on) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"hubgate on\" needs \"hubgate_config FILE;\" "
                          "in the http block");
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    if (ngx_http_hubgate_worker_user(cf, &uid, &gid) != NGX_OK) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "hubgate: the workers' user does not exist");
        return NGX_ERROR;
    }

    if (gateway_check_folders(hmcf->snapshot, uid, gid, &err) != GW_OK) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "hubgate: %V: %s",
                      &hmcf->file, err.text);
        return NGX_ERROR;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_hubgate_log_handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_hubgate_init_zone(ngx_shm_zone_t *zone, void *data)
{
    void             *shared;
    struct gw_error   err;
    ngx_slab_pool_t  *shpool;

    /* a reload hands the zone over: workers of both cycles share the slots */

    if (data != NULL && gateway_shared_known(data)) {
        zone->data = data;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    shared = ngx_slab_calloc(shpool, gateway_shared_bytes());
    if (shared == NULL) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0,
                      "hubgate: the shared zone is too small");
        return NGX_ERROR;
    }

    if (gateway_shared_init(shared, &err) != GW_OK) {
        ngx_log_error(NGX_LOG_EMERG, zone->shm.log, 0, "hubgate: %s",
                      err.text);
        return NGX_ERROR;
    }

    zone->data = shared;

    return NGX_OK;
}
