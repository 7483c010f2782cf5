/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manage.c - a private repository as a whole: another name, where an old one leads, settings. Who
 * may, what is asked, the answer; and the jobs behind it.
 */
#include "gateway/jobs.h"
#include "gateway/rights.h"

#include "base/encode.h"
#include "base/json.h"

static int bad_body(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                    const struct gw_error *err)
{
    return answer_refuse(gw, req, ans,
                         err->status == GW_TOO_LARGE ? HUB_TOO_LARGE : HUB_BAD_REQUEST,
                         gw_arena_dup(&req->state->arena, gw_str_c(err->text)), 0);
}

/* ---- where an old name leads ---- */

int answer_moved(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                 const struct hub_target *to)
{
    struct gateway_state *st = req->state;
    struct gw_buf b;

    gw_buf_init(&b, 4 * HUB_TARGET_MAX);
    hub_put_moved(&b, to, req->target);
    memset(ans, 0, sizeof(*ans));
    ans->status = 307;
    if (!b.failed)
        ANSWER_HEADER(ans, "Location", gw_arena_dup(&st->arena, gw_buf_str(&b)));
    gw_buf_release(&b);
    st->why = "moved";
    return ans->n_headers ? GW_OK : GW_NO_MEMORY;
}

/* ---- another name ---- */

/* "ns/name" by the grammar of targets, the one that will read it later */
static int named(struct hub_target *t, const char *key, struct gateway_request *req,
                 struct gw_error *err)
{
    struct gw_arena *a = &req->state->arena;
    enum hub_action action = t->action;
    enum hub_route route = t->route;
    struct gw_str text, type, raw;
    int rc = hub_field(&text, key, req->content_type, req->body, a, err);

    if (rc == GW_OK)
        rc = hub_field(&type, "type", req->content_type, req->body, a, err);
    if (rc != GW_OK)
        return rc;
    if (type.n == 0)
        type = GW_STR("model");
    if (!hub_type_parse(type, &t->type) || t->type == HUB_KERNEL)
        return gw_fail(err, GW_INVALID, 0, "type is model, dataset or space");
    raw = gw_arena_printf(a, "/api/%s/" GW_STR_FMT, hub_type_plural(t->type), GW_STR_ARG(text));
    if (raw.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "not enough memory");
    if (hub_target_parse(t, GW_STR("GET"), raw, a, NULL) != GW_OK || t->route != HUB_INFO ||
        t->ns.n == 0 || t->revision.n != 0)
        return gw_fail(err, GW_INVALID, 0,
                       "%s is namespace/name, each 1 to 96 of [A-Za-z0-9_.-] without \"--\", "
                       "\"..\" or \".git\" at the end",
                       key);
    t->action = action;
    t->route = route;
    return GW_OK;
}

/* Whoever may not read every file of it could take it to where he may. */
static bool may_read_all(struct gateway *gw, struct gateway_request *req,
                         struct gateway_answer *ans, const struct hub_target *from)
{
    struct gateway_state *st = req->state;
    struct policy_object object = rights_object(from);
    struct policy_decision d =
        policy_decide_every(gw->policy, &st->who.subject, POLICY_READ, &object, st->started_ms);
    struct gw_str reason = policy_rule_reason(d.rule);

    if (d.effect == POLICY_ALLOW)
        return true;
    st->allowed = false;
    st->rule = d.rule;
    answer_refuse(gw, req, ans, HUB_BLOCKED,
                  gw_arena_printf(&st->arena,
                                  "A move takes every file, and the rules of this gateway let you "
                                  "read only some of this repository. " GW_STR_FMT,
                                  GW_STR_ARG(reason)),
                  0);
    return false;
}

/* Both names by the right to administrate. */
int write_move(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct hub_target from = st->target, to = st->target;
    struct gw_arena *a = &st->arena;
    struct gw_want want;
    struct gw_error err;
    int rc = named(&to, "toRepo", req, &err);

    if (rc == GW_OK)
        rc = named(&from, "fromRepo", req, &err);
    if (rc != GW_OK)
        return bad_body(gw, req, ans, &err);
    rc = write_admit(gw, req, ans, &to);
    if (rc == GW_OK)
        rc = write_admit(gw, req, ans, &from);
    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (!may_read_all(gw, req, ans, &from))
        return GW_OK;
    want = (struct gw_want){
        .peer = GW_PEER_REPO,
        .key = FACT_JOIN(a, GW_STR("move"), gw_str_c(hub_type_name(from.type)), from.ns, from.name,
                         to.ns, to.name, req->id),
        .arg = GW_STR(""),
    };
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_AGAIN)
        return rc;
    return rc == GW_OK ? answer_json(req, ans, GW_STR("{}")) : write_failure(gw, req, ans, &err);
}

static void put_new_name(struct gateway_job *job, const struct repo_id *to)
{
    struct repo *r = NULL;
    char commit[41];

    if (repo_open(&r, job->gw->config->data, to, NULL) == GW_OK &&
        repo_resolve(r, GW_STR(""), commit, NULL) == GW_OK)
        (void)write_new_tip(job, to, GW_STR("main"), gw_str_c(commit));
    repo_close(r);
}

/* key: move, type, ns, name, to ns, to name, request */
int job_move(struct gateway_job *job)
{
    struct repo_id from, to;
    int rc;

    if (job->n_fields < 7)
        return gw_fail(&job->result.err, GW_INVALID, 0, "move: fields");
    from = (struct repo_id){job->fields[1], job->fields[2], job->fields[3]};
    to = (struct repo_id){from.type, job->fields[4], job->fields[5]};
    rc = repo_move(job->gw->config->data, &from, &to, &job->result.err);
    if (rc != GW_OK)
        return rc;
    write_forget(job, &from);
    put_new_name(job, &to);
    memset(&job->result.err, 0, sizeof(job->result.err));
    return GW_OK;
}

/* ---- settings ---- */

/* Nothing here is set: the policy files say it all. What is so already is answered as done. */
int write_settings(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    enum hub_settings wanted;
    struct resolved r;
    struct gw_error err;
    int rc = write_admit(gw, req, ans, &req->state->target);

    if (rc == GW_OK)
        rc = resolve_commit(gw, req, ans, &r);
    if (rc != GW_OK)
        return rc == GW_FORBIDDEN ? GW_OK : rc;
    rc = hub_settings_parse(&wanted, req->body, &err);
    if (rc != GW_OK)
        return bad_body(gw, req, ans, &err);
    if (wanted == HUB_SETTINGS_VISIBILITY)
        return answer_refuse(
            gw, req, ans, HUB_BLOCKED,
            GW_STR("All repositories here are private to the organization, and who "
                   "may see one is decided by the policy files of this gateway: "
                   "ask the people who run it."),
            0);
    if (wanted == HUB_SETTINGS_OTHER)
        return answer_refuse(gw, req, ans, HUB_NOT_BUILT,
                             GW_STR("Repositories have no such settings here: access, also on "
                                    "request, is decided by the policy files of this gateway."),
                             0);
    return answer_json(req, ans, GW_STR("{}"));
}

/* ---- history ---- */

int write_squash(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    const struct hub_target *t = &st->target;
    struct gw_arena *a = &st->arena;
    struct gw_str message = GW_STR("");
    struct gw_want want;
    struct gw_error err;
    int rc = write_admit(gw, req, ans, t);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (req->body.n != 0 &&
        hub_field(&message, "message", req->content_type, req->body, a, &err) != GW_OK)
        return bad_body(gw, req, ans, &err);
    if (message.n == 0)
        message = GW_STR("Super-squash branch");
    want = (struct gw_want){
        .peer = GW_PEER_REPO,
        .key = FACT_JOIN(a, GW_STR("squash"), gw_str_c(hub_type_name(t->type)), t->ns, t->name,
                         req->id, t->revision),
        .arg = FACT_JOIN(a, write_author(a, &st->who), message),
    };
    if (want.arg.p == NULL)
        return GW_NO_MEMORY;
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_AGAIN)
        return rc;
    return rc == GW_OK ? answer_json(req, ans, GW_STR("{}")) : write_failure(gw, req, ans, &err);
}

/* key: squash, type, ns, name, request, branch; arg: author, message */
int job_squash(struct gateway_job *job)
{
    struct gw_str message = job->arg, author;
    struct repo_id id;
    char commit[41];
    int rc;

    if (job->n_fields < 6 || !gw_str_split(&message, '\n', &author) || message.p == NULL)
        return gw_fail(&job->result.err, GW_INVALID, 0, "squash: fields");
    id = (struct repo_id){job->fields[1], job->fields[2], job->fields[3]};
    rc = repo_squash(job->gw->config->data, &id, job->fields[5], message, author, gw_wall_ms(),
                     commit, &job->result.err);
    return rc == GW_OK ? write_new_tip(job, &id, job->fields[5], gw_str_c(commit)) : rc;
}
