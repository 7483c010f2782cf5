/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway.c - a process of the corridor, and one request: parse -> who -> admit -> resolve ->
 * serve, on one stack, from the start each time a fact arrived.
 */
#include "gateway/catalogue.h"
#include "gateway/internal.h"
#include "gateway/nodes.h"
#include "gateway/upload.h"

#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"

#define REQUEST_ARENA_MAX (96u << 20)
/* Larger ones are mapped, and go back when they are freed. Left alone, glibc raises this to what
 * was freed last, up to 32 MiB, and each job thread's arena keeps as much. */
#define MALLOC_MAPPED (512 << 10)

/* ---- the process ---- */

size_t gateway_shared_bytes(void)
{
    return sizeof(struct gateway_shared);
}

int gateway_shared_init(void *zeroed, struct gw_error *err)
{
    struct gateway_shared *s = zeroed;

    s->version = GATEWAY_SHARED_VERSION;
    return cache_shared_init(&s->cache, err);
}

bool gateway_shared_known(const void *memory)
{
    const struct gateway_shared *s = memory;

    return s->version == GATEWAY_SHARED_VERSION && s->cache.version == CACHE_SHARED_VERSION;
}

static int open_cache(struct gateway *gw, struct gw_error *err)
{
    const struct config *c = gw->config;
    struct cache_options o = {
        .dir = c->cache.dir,
        .verify_before = c->cache.verify_before,
        .read_only_index = gw->command && !gw->fetches,
        .max_bytes = c->cache.max_bytes,
        .min_free_bytes = c->cache.min_free_bytes,
        .scrub_ms = c->cache.scrub_ms,
        .upstream =
            {
                .url = c->upstream.url,
                .token = gw->snapshot->upstream_token,
                .ca_file = c->upstream.ca_file,
                .proxy = c->upstream.proxy.n ? c->upstream.proxy.p : NULL,
                .redirect_hosts = c->upstream.redirect_hosts.items,
                .n_redirect_hosts = c->upstream.redirect_hosts.n,
                .resolve = c->upstream.resolve.items,
                .n_resolve = c->upstream.resolve.n,
                .dns = c->upstream.dns,
                .connect_timeout_ms = c->upstream.connect_timeout_ms,
                .stall_timeout_ms = c->upstream.stall_timeout_ms,
                .transfers = (unsigned)c->upstream.transfers,
                .max_transfers = (unsigned)c->upstream.max_transfers,
                .via = GW_STR("hubgate"),
            },
        .share = gateway_share_options(gw->snapshot),
        .shared = &gw->shared->cache,
        .slot = gw->slot,
        .log = gw->log,
    };
    int rc = cache_open(&gw->cache, &o, err);

    for (size_t i = 0; rc == GW_OK && i < c->n_ldap; i++)
        for (size_t k = 0; k < gw->snapshot->ldap[i].n_servers; k++)
            cache_resolve_also(gw->cache, gw->snapshot->ldap[i].servers[k].host);
    return rc;
}

int gateway_open(struct gateway **out, const struct gateway_options *o, struct gw_error *err)
{
    struct gateway *gw = gw_alloc(sizeof(*gw));
    int slot, rc;

    if (gw == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the gateway");
    mallopt(M_MMAP_THRESHOLD, MALLOC_MAPPED);
    pthread_mutex_init(&gw->quotas.lock, NULL);
    gw->snapshot = o->snapshot;
    gw->config = o->snapshot->config;
    gw->policy = o->snapshot->policy;
    gw->shared = o->shared;
    gw->log = o->log;
    gw->command = o->command;
    gw->fetches = o->fetches;
    gw->post = o->post;
    gw->ctx = o->ctx;
    gw_buf_init(&gw->audit.lines, 4u << 20);
    gw_buf_init(&gw->downloads.lines, 1u << 20);
    for (int p = 0; p < GW_PEER_COUNT; p++)
        gw->lanes[p].cap = gw->config->limits.jobs[p] ? gw->config->limits.jobs[p] : 1;
    slot = cache_slot_claim(&gw->shared->cache);
    if (slot < 0) {
        gw_free(gw);
        return gw_fail(
            err, GW_CONFLICT, 0,
            "all %u worker slots are taken: too many workers, or too many old ones still serving",
            CACHE_SLOTS);
    }
    gw->slot = (unsigned)slot;
    metrics_open(gw);
    rc = gw_random(gw->boot_key, sizeof(gw->boot_key))
             ? GW_OK
             : gw_fail(err, GW_IO, 0, "the system gives no randomness");
    if (rc == GW_OK)
        rc = repo_init(err);
    if (rc == GW_OK)
        rc = data_open(gw->config->data, gw->key, err);
    if (rc == GW_OK)
        rc = open_cache(gw, err);
    if (rc != GW_OK) {
        gateway_close(gw);
        return rc;
    }
    *out = gw;
    return GW_OK;
}

void gateway_leave(struct gateway *gw)
{
    gw->leaving = true;
    cache_retire(gw->cache);
}

void gateway_cancel(struct gateway *gw)
{
    gw->leaving = true;
    atomic_store(&gw->cancelled, true);
    cache_leave(gw->cache);
}

void gateway_close(struct gateway *gw)
{
    if (gw == NULL)
        return;
    wants_close(gw);
    audit_tick(gw, true);
    catalogue_close(gw);
    cache_close(gw->cache);
    cache_slot_release(&gw->shared->cache, gw->slot);
    repo_exit();
    gw_buf_release(&gw->audit.lines);
    pthread_mutex_destroy(&gw->quotas.lock);
    gw_wipe(gw->key, sizeof(gw->key));
    gw_wipe(gw->boot_key, sizeof(gw->boot_key));
    gw_free(gw);
}

int gateway_eventfd(const struct gateway *gw)
{
    return atomic_load(&gw->shared->cache.slots[gw->slot].eventfd);
}

void gateway_tick(struct gateway *gw)
{
    struct gw_want want;

    for (int i = 0; i < 64 && cache_tick(gw->cache, &want) == GW_OK; i++)
        if (want.peer == GW_PEER_REDIS && wants_open(gw, GW_PEER_REDIS))
            (void)cache_lease_job(gw->cache, want.key, 0, NULL);
        else
            wants_next_step(gw, &want);
    audit_tick(gw, false);
    catalogue_tick(gw);
    wants_tick(gw);
    nodes_tick(gw);
    metrics_tick(gw);
}

int job_fill(struct gateway_job *job)
{
    return cache_fill_job(job->gw->cache, job->key, &job->result.err);
}

int job_lease(struct gateway_job *job)
{
    return cache_lease_job(job->gw->cache, job->key, job->deadline_ms, &job->result.err);
}

/* ---- one request ---- */

size_t gateway_begin(struct gateway *gw, struct gateway_request *req)
{
    struct gateway_state *st = gw_alloc(sizeof(*st));

    req->state = st;
    if (st == NULL)
        return 0;
    gw_arena_init(&st->arena, REQUEST_ARENA_MAX);
    gw_arena_keep_secret(&st->arena);
    st->fd = -1;
    st->started_ms = gw_wall_ms();
    st->started_us = gw_mono_us();
    st->first_byte_us = -1;
    st->deadline_ms = st->started_us / 1000 + gw->config->limits.wait_ms;
    st->parse_status =
        hub_target_parse(&st->target, req->method, req->target, &st->arena, &st->parse_error);
    if (st->parse_status != GW_OK || st->target.allow != NULL)
        return 0;
    switch (st->target.route) {
    case HUB_PATHS_INFO:
        return GATEWAY_BODY_MAX;
    case HUB_GATEWAY_TOKENS:
        return 64u << 10;
    case HUB_COMMIT:
    case HUB_OBJECT:
    case HUB_OBJECT_PART:
    case HUB_GIT_UPLOAD_PACK:
    case HUB_GIT_RECEIVE_PACK:
        return GATEWAY_BODY_STREAM;
    case HUB_PREUPLOAD:
    case HUB_VALIDATE_YAML:
        return GATEWAY_BODY_MAX;
    case HUB_REPO_CREATE:
    case HUB_REPO_DELETE:
    case HUB_REPO_MOVE:
    case HUB_SETTINGS:
    case HUB_SQUASH:
    case HUB_BRANCH:
    case HUB_TAG:
    case HUB_LFS_BATCH:
    case HUB_OBJECT_VERIFY:
    case HUB_OBJECT_COMPLETE:
        return GW_JSON_DOC_MAX;
    default:
        return 0;
    }
}

int64_t gateway_deadline(const struct gateway_request *req)
{
    return req->state ? req->state->deadline_ms : 0;
}

static int refuse_parse(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_str text = gw_arena_dup(&st->arena, gw_str_c(st->parse_error.text));

    switch (st->parse_status) {
    case GW_NOT_FOUND:
        if (st->parse_error.sys == HUB_NO_SUCH_API) /* a 404 would read "no such repository" */
            return answer_refuse(gw, req, ans, HUB_NOT_BUILT,
                                 GW_STR("This gateway does not offer this part of the Hub's API: "
                                        "see its docs/clients.md for what it does."),
                                 0);
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    case GW_TOO_LARGE:
        return answer_refuse(gw, req, ans, HUB_TOO_LARGE, text, 0);
    case GW_NO_MEMORY:
        return answer_refuse(gw, req, ans, HUB_OUTAGE, GW_STR("not enough memory"), 5);
    default:
        return answer_refuse(gw, req, ans, HUB_BAD_REQUEST, text, 0);
    }
}

static int answer_preflight(struct gateway_request *req, struct gateway_answer *ans)
{
    ans->status = 204;
    ANSWER_HEADER(ans, "Access-Control-Allow-Methods",
                  GW_STR("GET, HEAD, POST, PUT, DELETE, OPTIONS"));
    ANSWER_HEADER(ans, "Access-Control-Allow-Headers",
                  GW_STR("Authorization, Range, Content-Type, Accept, X-Requested-With"));
    ANSWER_HEADER(ans, "Access-Control-Max-Age", GW_STR("86400"));
    (void)req;
    return GW_OK;
}

/* Routes that answer everybody the same and know nobody. GW_NOT_FOUND: not one of them. */
static int answer_open_route(struct gateway *gw, struct gateway_request *req,
                             struct gateway_answer *ans)
{
    switch (req->state->target.route) {
    case HUB_HEALTH:
    case HUB_READY:
        return health_answer(gw, req, ans);
    case HUB_METRICS:
        return metrics_answer(gw, req, ans);
    case HUB_AGENT_HARNESSES: /* kept 24 h by hfh >= 1.19 after a 200; asked by every process after
                                 a 404 */
        return answer_json(req, ans, GW_STR("{\"standardEnvVars\":[],\"harnesses\":{}}"));
    case HUB_TELEMETRY:
        ans->status = 204;
        return GW_OK;
    case HUB_PREFLIGHT:
        return answer_preflight(req, ans);
    case HUB_OAUTH_DEVICE:
        return answer_refuse(gw, req, ans, HUB_NO_DEVICE_LOGIN, GW_STR(""), 0);
    default:
        return GW_NOT_FOUND;
    }
}

static int answer_route(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                        const struct auth_credential *cred)
{
    switch (req->state->target.route) {
    case HUB_RESOLVE:
    case HUB_RAW:
        return serve_file(gw, req, ans);
    case HUB_INFO:
        return document_info(gw, req, ans);
    case HUB_TREE:
        return document_tree(gw, req, ans);
    case HUB_PATHS_INFO:
        return document_paths(gw, req, ans);
    case HUB_DISCUSSIONS:
        if (gw_str_eq_c(req->method, "POST"))
            return answer_refuse(
                gw, req, ans, HUB_NOT_BUILT,
                GW_STR("There are no discussions here. To propose a change, commit "
                       "it with create_pr."),
                0);
        return document_other(gw, req, ans);
    case HUB_REFS:
    case HUB_COMMITS:
    case HUB_TREESIZE:
        return document_other(gw, req, ans);
    case HUB_AUTH_CHECK:
        return document_auth_check(gw, req, ans);
    case HUB_XET_READ_TOKEN:
        return answer_refuse(gw, req, ans, HUB_NO_XET, GW_STR(""), 0);
    case HUB_WHOAMI:
        return document_whoami(gw, req, ans);
    case HUB_LIST:
        return list_repos(gw, req, ans);
    case HUB_TAGS_BY_TYPE:
        return list_tags(gw, req, ans);
    case HUB_ORGANIZATION:
        return list_organization(gw, req, ans);
    case HUB_XET_WRITE_TOKEN:
        return answer_refuse(gw, req, ans, HUB_NOT_BUILT,
                             GW_STR("This gateway has no Xet storage: set HF_HUB_DISABLE_XET=1 and "
                                    "upload again."),
                             0);
    case HUB_REPO_CREATE:
        return write_create(gw, req, ans);
    case HUB_REPO_DELETE:
        return write_delete(gw, req, ans);
    case HUB_REPO_MOVE:
        return write_move(gw, req, ans);
    case HUB_BRANCH:
    case HUB_TAG:
        return write_ref(gw, req, ans);
    case HUB_PREUPLOAD:
        return write_preupload(gw, req, ans);
    case HUB_COMMIT:
        return write_commit(gw, req, ans);
    case HUB_VALIDATE_YAML:
        return write_yaml(gw, req, ans);
    case HUB_SETTINGS:
        return write_settings(gw, req, ans);
    case HUB_SQUASH:
        return write_squash(gw, req, ans);
    case HUB_LFS_BATCH:
        return lfs_batch(gw, req, ans);
    case HUB_GIT_REFS:
        return git_refs(gw, req, ans);
    case HUB_GIT_UPLOAD_PACK:
    case HUB_GIT_RECEIVE_PACK:
        return git_service(gw, req, ans);
    case HUB_LFS_LOCKS:
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    case HUB_GATEWAY_TOKENS:
        return document_mint(gw, req, ans, cred);
    default:
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    }
}

static bool came_back(struct gw_str via)
{
    static const char mark[] = "hubgate";

    for (size_t i = 0; i + sizeof(mark) - 1 <= via.n; i++)
        if (memcmp(via.p + i, mark, sizeof(mark) - 1) == 0)
            return true;
    return false;
}

static int step(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct auth_credential cred;
    enum hub_reason why;
    struct gw_str detail;
    int rc;

    if (st->parse_status != GW_OK)
        return refuse_parse(gw, req, ans);
    if (st->target.route == HUB_METRICS && !metrics_allowed(gw, req))
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    if (st->target.route == HUB_NODE_BLOB) /* whatever Host: nodes use node_url */
        return serve_node(gw, req, ans);
    if (came_back(req->via))
        return answer_refuse(gw, req, ans, HUB_LOOP, GW_STR(""), 0);
    if (st->target.allow != NULL)
        return answer_refuse(gw, req, ans, HUB_METHOD, GW_STR(""), 0);
    if (st->target.route != HUB_HEALTH && st->target.route != HUB_READY &&
        st->target.route != HUB_METRICS && request_public_url(gw, req).p == NULL)
        return answer_refuse(gw, req, ans, HUB_WRONG_HOST, GW_STR(""), 0);
    rc = answer_open_route(gw, req, ans);
    if (rc != GW_NOT_FOUND)
        return rc;
    /* the address is the credential */
    if (st->target.route == HUB_OBJECT || st->target.route == HUB_OBJECT_PART)
        return lfs_object(gw, req, ans);
    if (st->target.route == HUB_OBJECT_COMPLETE)
        return lfs_complete(gw, req, ans);
    if (st->target.route == HUB_OBJECT_VERIFY)
        return lfs_verify(gw, req, ans);
    if (st->target.route == HUB_OBJECT_GET)
        return lfs_get(gw, req, ans);
    rc = identity_of(gw, req, &cred, &st->who, &why, &detail);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK) {
        memset(&st->who.subject, 0, sizeof(st->who.subject));
        return answer_refuse(gw, req, ans, why, detail, why == HUB_OUTAGE ? 5 : 0);
    }
    return answer_route(gw, req, ans, &cred);
}

int gateway_step(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    int rc;

    memset(ans, 0, sizeof(*ans));
    if (st == NULL) {
        ans->status = 503; /* no arena to say it nicely in */
        return GW_OK;
    }
    st->came = st->n_wants > 0 ? st->came : CAME_HIT;
    st->age_ms = -1;
    st->warn_stale = false;
    st->why = NULL;
    st->commit = st->digest = GW_STR("");
    rc = st->no_memory ? GW_NO_MEMORY : step(gw, req, ans);
    metrics_parked(gw, st, rc == GW_AGAIN);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        answer_refuse(gw, req, ans, HUB_OUTAGE, GW_STR("not enough memory"), 5);
    answer_common(gw, req, ans);
    st->status = ans->status;
    if (ans->kind != GATEWAY_FILE)
        metrics_first_byte(st);
    return GW_OK;
}

void gateway_end(struct gateway *gw, struct gateway_request *req, int status, uint64_t bytes_sent,
                 bool complete)
{
    struct gateway_state *st = req->state;

    if (st == NULL)
        return;
    wants_unpark(req);
    if (gw != NULL) {
        audit_record(gw, req, status, bytes_sent, complete);
        catalogue_count(gw, req, status, bytes_sent);
        metrics_end(gw, req, status, bytes_sent);
        gw->n_uploads -= st->uploading;
        git_end(gw, st);
    }
    cache_reader_close(st->reader);
    upload_unref(st->upload);
    if (st->fd >= 0)
        close(st->fd);
    gw_arena_release(&st->arena);
    gw_free(st);
    req->state = NULL;
}
