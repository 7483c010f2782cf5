/* SPDX-License-Identifier: Apache-2.0 */
/* jobs_keep.c - what keeps private repositories fast while they grow. Job threads. */
#include "gateway/jobs.h"

#define PACKS_MAX 50u /* each commit and each push is one more */

/* After a commit; for nobody in particular. */
void repack_later(struct gateway *gw, struct gateway_request *req)
{
    const struct hub_target *t = &req->state->target;
    struct gw_want want = {
        .peer = GW_PEER_REPO,
        .key = FACT_JOIN(&req->state->arena, GW_STR("repack"), gw_str_c(hub_type_name(t->type)),
                         t->ns, t->name),
    };

    wants_background(gw, &want);
}

/* key: repack, type, ns, name. What goes wrong is said in the log and tried again after the next
 * commit: it is no failure of the repositories, so no breaker counts it. */
int job_repack(struct gateway_job *job)
{
    struct gw_error err;
    size_t rolled;
    struct repo_id id;
    int rc;

    if (job->n_fields < 4)
        return gw_fail(&job->result.err, GW_INVALID, 0, "repack: fields");
    id = (struct repo_id){job->fields[1], job->fields[2], job->fields[3]};
    rc = repo_repack(job->gw->config->data, &id, PACKS_MAX, &rolled, &err);
    if (rc != GW_OK && rc != GW_NOT_FOUND && rc != GW_CONFLICT)
        gw_log_write(&job->gw->log, GW_LOG_WARN,
                     "repack of " GW_STR_FMT " " GW_STR_FMT "/" GW_STR_FMT ": %s",
                     GW_STR_ARG(id.type), GW_STR_ARG(id.ns), GW_STR_ARG(id.name), err.text);
    return GW_OK;
}
