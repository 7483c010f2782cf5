/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c - "/-/blob/<digest>": another node of the cluster fetches what this one holds or fetches.
 * It shows a MAC under the cluster key; policy was asked there, about the file that led to this
 * digest. For everybody else there is no such route; a node with another key is told so.
 */
#include "gateway/internal.h"

#include <unistd.h>

static int open_blob(struct gateway *gw, struct gateway_request *req, uint64_t *size,
                     struct gw_error *err)
{
    struct gateway_state *st = req->state;
    int64_t modified_s;

    if (st->fd >= 0) {
        close(st->fd);
        st->fd = -1;
    }
    return cache_blob_open(gw->cache, st->digest, &st->fd, size, &modified_s, err);
}

static int answer_bytes(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                        uint64_t size)
{
    struct span span = {RANGE_NONE, 0, size};
    bool open;
    int rc;

    span.kind = range_parse(req->range, size, &span.first, &span.end, &open);
    if (span.kind == RANGE_UNSATISFIABLE)
        return serve_range_error(gw, req, ans, size, GW_STR(""));
    if (span.kind != RANGE_ONE)
        span = (struct span){RANGE_NONE, 0, size};
    if (req->state->reader != NULL)
        req->state->came = CAME_FILL;
    rc = serve_span(req, ans, size, &span);
    if (rc == GW_OK && req->state->target.head) {
        ans->kind = GATEWAY_EMPTY;
        ans->size = span.end - span.first;
    }
    return rc;
}

static int answer_blob(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_error err;
    uint64_t size;
    int rc = open_blob(gw, req, &size, &err);

    if (rc == GW_NOT_FOUND) {
        rc = cache_reader_open_node(&st->reader, gw->cache, st->digest, &size, &err);
        if (rc == GW_CONFLICT) /* it is whole since a moment ago */
            rc = open_blob(gw, req, &size, &err);
    }
    if (rc == GW_AGAIN || rc == GW_NOT_FOUND)
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    return rc == GW_OK ? answer_bytes(gw, req, ans, size) : answer_failure(gw, req, ans, &err);
}

int serve_node(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    int rc;

    if (st->target.allow != NULL || req->n_authorization != 1 ||
        !cache_node_credential_formed(gw->cache, st->target.path, req->authorization))
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    if (!cache_node_credential_ok(gw->cache, req->method, st->target.path, req->authorization,
                                  gw_wall_ms() / 1000)) {
        atomic_fetch_add(&gw->shared->cache.counters.node_refused, 1);
        return answer_refuse(gw, req, ans, HUB_BLOCKED,
                             GW_STR("This node has another cluster key (cluster_key_file), or its "
                                    "clock differs by more than a minute."),
                             0);
    }
    st->node = true;
    st->digest = st->target.path;
    rc = answer_blob(gw, req, ans);
    if (rc == GW_OK && ans->status < 400) {
        ans->etag = gw_arena_printf(&st->arena, "\"" GW_STR_FMT "\"", GW_STR_ARG(st->digest));
        ans->content_type = "application/octet-stream";
        rc = ans->etag.p != NULL ? GW_OK : GW_NO_MEMORY;
    }
    return rc;
}
