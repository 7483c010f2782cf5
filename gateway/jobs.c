/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.c - what jobs share: putting records, calling upstream, reading its refusals. */
#include "gateway/jobs.h"
#include "gateway/nodes.h"

bool job_target(struct gateway_job *job, enum hub_route route, struct hub_target *t)
{
    memset(t, 0, sizeof(*t));
    t->route = route;
    t->has_repo = true;
    if (job->n_fields < 4 || !hub_type_parse(job->fields[1], &t->type))
        return false;
    t->ns = job->fields[2];
    t->name = job->fields[3];
    return true;
}

struct gw_str job_upstream_target(struct gateway_job *job, const struct hub_target *t,
                                  struct gw_str revision)
{
    return upstream_target(&job->arena, t, revision);
}

int64_t job_call_deadline(const struct gateway_job *job)
{
    int64_t soon = gw_mono_ms() + GATEWAY_UPSTREAM_MS;

    return soon < job->deadline_ms ? soon : job->deadline_ms;
}

int job_call(struct gateway_job *job, struct cache_call *c,
             int (*sink)(void *ctx, struct gw_str bytes), void *ctx, struct cache_reply *reply)
{
    c->deadline_ms = job_call_deadline(job);
    flight_keep(&job->gw->shared->flights, job->flight.hash);
    if (c->target.p == NULL)
        return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    return cache_upstream_call(job->gw->cache, c, sink, ctx, reply, &job->arena, &job->result.err);
}

/* Upstream is well and does not like this one question (a cursor that a client made up): that must
 * not open the breaker for everybody. */
static bool is_refusal(int status)
{
    return status >= 400 && status < 500 && status != 401 && status != 403 && status != 407 &&
           status != 408 && status != 425 && status != 429;
}

/* An outage or a rate limit is the job's failure, not a fact to keep. */
int job_outage(struct gateway_job *job, const struct cache_reply *reply, enum hub_reason why)
{
    if (why == HUB_BUSY)
        return gw_fail(&job->result.err, GW_UNAVAILABLE, 429,
                       "upstream limits the rate of this whole gateway; retry later");
    return gw_fail(&job->result.err, is_refusal(reply->status) ? GW_INVALID : GW_UNAVAILABLE,
                   reply->status, "upstream answered %d%s" GW_STR_FMT, reply->status,
                   reply->error_message.n ? ": " : "",
                   GW_STR_ARG(gw_str_sub(reply->error_message, 0, 120)));
}

bool job_is_outage(enum hub_reason why)
{
    return why != HUB_REPO_NOT_FOUND && why != HUB_REVISION_NOT_FOUND &&
           why != HUB_ENTRY_NOT_FOUND && why != HUB_GATED_UPSTREAM;
}

int job_puts(struct gateway_job *job, const struct cache_put *puts, size_t n)
{
    int rc = cache_put(job->gw->cache, puts, n, &job->result.err);

    if (rc == GW_OK)
        nodes_brought(job, puts, n);
    return rc;
}

int job_put(struct gateway_job *job, enum cache_kind kind, struct gw_str name,
            enum gw_status status, int detail, struct gw_str value)
{
    struct cache_put put = {
        .kind = kind,
        .name = name,
        .record = {.status = status, .detail = detail, .checked_ms = gw_wall_ms(), .value = value},
    };

    if (name.p == NULL || value.p == NULL)
        return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    return job_puts(job, &put, 1);
}

/* There is a next page, and no way to ask for it: better an error than a list cut short. */
int job_bad_link(struct gateway_job *job)
{
    return gw_fail(&job->result.err, GW_INVALID, 0,
                   "upstream's Link to the next page cannot be read");
}
