/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write.c - routes that change a private repository: who may, what is asked, and the answer in the
 * words that hub clients take apart (docs/clients.md). The work is in jobs_write.c.
 */
#include "gateway/jobs.h"
#include "gateway/rights.h"
#include "gateway/upload.h"

#include <errno.h>

#include "base/encode.h"
#include "base/json.h"

#define COMMIT_BYTES_MAX (UINT64_C(64) << 30) /* of one commit's body */
#define ANSWER_MAX (4u << 20)

struct gw_str write_author(struct gw_arena *a, const struct gateway_identity *who)
{
    struct gw_str name = who->display.n ? who->display : who->subject.name;

    return gw_arena_printf(a, GW_STR_FMT " <" GW_STR_FMT ">", GW_STR_ARG(name),
                           GW_STR_ARG(who->email));
}

static bool may_write(struct gateway *gw, const struct gateway_state *st,
                      const struct hub_target *t)
{
    struct policy_object object = rights_object(t);

    return policy_decide(gw->policy, &st->who.subject, POLICY_WRITE, &object, st->started_ms)
               .effect == POLICY_ALLOW;
}

void write_or_propose(struct gateway *gw, const struct gateway_request *req, struct hub_target *t)
{
    struct hub_target proposal = *t;

    proposal.create_pr = true;
    t->create_pr = !may_write(gw, req->state, t) && may_write(gw, req->state, &proposal);
}

int write_admit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                const struct hub_target *t)
{
    struct gateway_state *st = req->state;
    struct policy_object object = rights_object(t);
    int rc = admit(gw, req, ans, &object, t->action);

    if (rc != GW_OK)
        return rc;
    st->private_repo = policy_is_private(gw->policy, t->ns);
    if (st->private_repo)
        return GW_OK;
    answer_refuse(gw, req, ans, HUB_NOT_HERE, GW_STR(""), 0);
    return GW_FORBIDDEN;
}

int write_failure(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct gw_error *err)
{
    struct gw_str text = gw_arena_dup(&req->state->arena, gw_str_c(err->text));
    enum hub_reason why = HUB_BAD_REQUEST;
    int rc;

    switch (err->status) {
    case GW_NOT_FOUND:
        if (err->sys == REPO_NO_COMMIT)
            return answer_refuse(gw, req, ans, HUB_REVISION_NOT_FOUND, req->state->target.revision,
                                 0);
        if (err->sys == REPO_NO_OBJECT)
            return answer_refuse(
                gw, req, ans, HUB_BAD_REQUEST,
                GW_STR("Your push was rejected because an LFS pointer pointed to a file that does "
                       "not exist: upload it first"),
                0);
        why = err->sys == REPO_NO_PATH ? HUB_ENTRY_NOT_FOUND : HUB_REPO_NOT_FOUND;
        rc = why == HUB_REPO_NOT_FOUND ? resolve_moved(gw, req, ans) : GW_NOT_FOUND;
        if (rc != GW_NOT_FOUND)
            return rc == GW_FORBIDDEN ? GW_OK : rc;
        break;
    case GW_CONFLICT:
        why = err->sys == REPO_MOVED ? HUB_PARENT_MOVED : HUB_CONFLICT;
        text = err->sys == REPO_MOVED ? GW_STR("") : text;
        break;
    case GW_INVALID:
        break;
    case GW_FORBIDDEN:
        break;
    case GW_TOO_LARGE:
        why = err->sys == EDQUOT ? HUB_DISK_FULL : HUB_TOO_LARGE;
        break;
    case GW_CORRUPT:
        why = HUB_NO_SUCH_BYTES;
        break;
    case GW_IO:
        if (err->sys != ENOSPC && err->sys != EDQUOT) {
            gw_log_write(&gw->log, GW_LOG_ERROR, "%s", err->text); /* our paths are not theirs */
            text = gw_arena_printf(&req->state->arena, "the gateway's disk fails (%s)",
                                   strerrordesc_np(err->sys) ? strerrordesc_np(err->sys) : "I/O");
            return answer_refuse(gw, req, ans, HUB_OUTAGE, text.p ? text : GW_STR(""), 5);
        }
        why = HUB_DISK_FULL;
        text = GW_STR("");
        break;
    default:
        return answer_failure(gw, req, ans, err);
    }
    return answer_refuse(gw, req, ans, why, text.p ? text : GW_STR(""), 0);
}

static int bad_body(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                    const struct gw_error *err)
{
    return answer_refuse(gw, req, ans,
                         err->status == GW_TOO_LARGE ? HUB_TOO_LARGE : HUB_BAD_REQUEST,
                         gw_arena_dup(&req->state->arena, gw_str_c(err->text)), 0);
}

static int answer_buffer(struct gateway_request *req, struct gateway_answer *ans, struct gw_buf *b)
{
    struct gw_str json =
        b->failed ? (struct gw_str){NULL, 0} : gw_arena_dup(&req->state->arena, gw_buf_str(b));

    gw_buf_release(b);
    return answer_json(req, ans, json);
}

/* scheme://host/[datasets/]ns/name of the host that was asked: clients compare it with their own */
static void put_url(struct gw_buf *out, const struct gateway *gw, const struct gateway_request *req,
                    const struct hub_target *t)
{
    gw_buf_add(out, request_public_url(gw, req));
    gw_buf_add_char(out, '/');
    if (t->type != HUB_MODEL) {
        gw_buf_add_c(out, hub_type_plural(t->type));
        gw_buf_add_char(out, '/');
    }
    hub_put_repo(out, t);
}

/* ---- create, delete ---- */

/* The repository that the body names; ns: that of who asks, if none is named. */
static int named_in_body(struct gateway_request *req, struct hub_target *t, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    struct gw_str org, type, raw;
    struct gw_arena *a = &st->arena;
    enum hub_action action = t->action;
    enum hub_route route = t->route;
    int rc = hub_field(&t->name, "name", req->content_type, req->body, a, err);

    if (rc == GW_OK)
        rc = hub_field(&org, "organization", req->content_type, req->body, a, err);
    if (rc == GW_OK)
        rc = hub_field(&type, "type", req->content_type, req->body, a, err);
    if (rc != GW_OK)
        return rc;
    if (type.n == 0)
        type = GW_STR("model");
    if (org.n == 0 && memchr(t->name.p, '/', t->name.n) == NULL)
        org = st->who.subject.name;
    if (!hub_type_parse(type, &t->type) || t->type == HUB_KERNEL)
        return gw_fail(err, GW_INVALID, 0, "type is model, dataset or space");
    /* by the grammar of targets, the one that will read the name later */
    raw = gw_arena_printf(a, "/api/%s/" GW_STR_FMT "%s" GW_STR_FMT, hub_type_plural(t->type),
                          GW_STR_ARG(org), org.n ? "/" : "", GW_STR_ARG(t->name));
    if (raw.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "not enough memory");
    if (hub_target_parse(t, GW_STR("GET"), raw, a, NULL) != GW_OK || t->route != HUB_INFO ||
        t->ns.n == 0 || t->revision.n != 0)
        return gw_fail(err, GW_INVALID, 0,
                       "a repository is named namespace/name, each 1 to 96 of [A-Za-z0-9_.-] "
                       "without \"--\", \"..\" or \".git\" at the end");
    t->action = action;
    t->route = route;
    return GW_OK;
}

static int answer_created(struct gateway *gw, struct gateway_request *req,
                          struct gateway_answer *ans, const struct hub_target *t, bool conflict)
{
    struct gw_buf url, out, id;
    int rc;

    gw_buf_init(&url, 8192);
    gw_buf_init(&id, 1024);
    gw_buf_init(&out, 16384);
    put_url(&url, gw, req, t);
    hub_put_repo(&id, t);
    gw_buf_add_char(&out, '{');
    if (conflict) {
        gw_json_put_key(&out, "error");
        gw_json_put_string(&out, GW_STR("You already created this repo"));
    }
    gw_json_put_key(&out, "url"); /* also with 409: exist_ok reads it (hub-write 1.1) */
    gw_json_put_string(&out, gw_buf_str(&url));
    gw_json_put_key(&out, "id");
    gw_json_put_string(&out, gw_buf_str(&id));
    gw_json_put_key(&out, "name");
    gw_json_put_string(&out, gw_buf_str(&id));
    gw_buf_add_char(&out, '}');
    gw_buf_release(&url);
    gw_buf_release(&id);
    rc = answer_buffer(req, ans, &out);
    if (conflict) {
        ans->status = 409;
        req->state->why = "conflict";
        ANSWER_HEADER(ans, "X-Error-Message", GW_STR("You already created this repo"));
    }
    return rc;
}

static struct gw_want want_of(struct gateway_request *req, const char *verb,
                              const struct hub_target *t, struct gw_str more, struct gw_str arg)
{
    struct gw_arena *a = &req->state->arena;

    return (struct gw_want){
        .peer = GW_PEER_REPO,
        .key = FACT_JOIN(a, gw_str_c(verb), gw_str_c(hub_type_name(t->type)), t->ns, t->name,
                         req->id, more),
        .arg = arg,
    };
}

/* "Public" is not refused: clients before 0.26 say so whenever they are not told otherwise. */
static void warn_visibility(struct gateway_request *req, struct gateway_answer *ans)
{
    struct gw_arena *a = &req->state->arena;
    struct gw_str private = GW_STR(""), visibility = GW_STR("");

    if (hub_field(&private, "private", req->content_type, req->body, a, NULL) != GW_OK ||
        hub_field(&visibility, "visibility", req->content_type, req->body, a, NULL) != GW_OK)
        return;
    if (gw_str_eq_c(private, "false") ||
        (private.n == 0 && visibility.n != 0 && !gw_str_eq_c(visibility, "private")))
        ANSWER_HEADER(ans, "X-HF-Warning",
                      GW_STR("gateway; all repositories here are private to the organization: who "
                             "may see one is decided by its policy files"));
}

int write_create(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct hub_target t = st->target;
    struct gw_want want;
    struct gw_error err;
    int rc = named_in_body(req, &t, &err);

    if (rc != GW_OK)
        return bad_body(gw, req, ans, &err);
    rc = write_admit(gw, req, ans, &t);
    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    want = want_of(req, "create", &t, GW_STR(""), write_author(&st->arena, &st->who));
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_OK || rc == GW_CONFLICT) {
        rc = answer_created(gw, req, ans, &t, rc == GW_CONFLICT);
        warn_visibility(req, ans);
        return rc;
    }
    return write_failure(gw, req, ans, &err);
}

int write_delete(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct hub_target t = req->state->target;
    struct gw_want want;
    struct gw_error err;
    int rc = named_in_body(req, &t, &err);

    if (rc != GW_OK)
        return bad_body(gw, req, ans, &err);
    rc = write_admit(gw, req, ans, &t);
    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    want = want_of(req, "delete", &t, GW_STR(""), GW_STR(""));
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_AGAIN)
        return rc;
    return rc == GW_OK ? answer_json(req, ans, GW_STR("{}")) : write_failure(gw, req, ans, &err);
}

/* ---- branches and tags ---- */

/* More fields: "branch" or "tag", "make" or "drop", revision of the address; arg: the body's word
 * (start, or name of the tag), message, author. */
int write_ref(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_arena *a = &st->arena;
    const struct hub_target *t = &st->target;
    bool tag = t->route == HUB_TAG, make = gw_str_eq_c(req->method, "POST");
    struct gw_str word = GW_STR(""), message = GW_STR("");
    struct gw_want want;
    struct gw_error err;
    int rc = write_admit(gw, req, ans, t);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (make && req->body.n != 0) {
        rc = hub_field(&word, tag ? "tag" : "startingPoint", req->content_type, req->body, a, &err);
        if (rc == GW_OK && tag)
            rc = hub_field(&message, "message", req->content_type, req->body, a, &err);
        if (rc != GW_OK)
            return bad_body(gw, req, ans, &err);
    }
    if (make && tag && word.n != 0) { /* the address has where it points, the body its name */
        struct hub_target named = *t;

        named.revision = word;
        rc = write_admit(gw, req, ans, &named);
        if (rc != GW_OK)
            return rc == GW_AGAIN ? rc : GW_OK;
    }
    want = want_of(req, "ref", t,
                   FACT_JOIN(a, tag ? GW_STR("tag") : GW_STR("branch"),
                             make ? GW_STR("make") : GW_STR("drop"), t->revision),
                   FACT_JOIN(a, word, message, write_author(a, &st->who)));
    if (want.arg.p == NULL)
        return GW_NO_MEMORY;
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_AGAIN)
        return rc;
    return rc == GW_OK ? answer_json(req, ans, GW_STR("{}")) : write_failure(gw, req, ans, &err);
}

/* ---- before an upload ---- */

/* Clients parse the answer before they look at its status. It is advice: a commit asks for nothing
 * of the kind. */
int write_yaml(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_result *r = NULL;
    struct gw_want want = {
        .peer = GW_PEER_DISK, /* a large one takes longer than the loop may */
        .key = FACT_JOIN(&req->state->arena, GW_STR("yaml"), req->id),
        .arg = req->body,
    };
    struct gw_error err;
    int rc = fact_need(gw, req, &want, &r, &err);

    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_INVALID || rc == GW_TOO_LARGE)
        return bad_body(gw, req, ans, &err);
    if (rc != GW_OK)
        return answer_failure(gw, req, ans, &err);
    rc = answer_json(req, ans, gw_str_sub(r->text, 1, r->text.n));
    ans->status = r->text.p[0] == '+' ? 200 : 400;
    return rc;
}

/* huggingface_hub >= 1.20 with hf_xet sends large files by Xet alone: said before it fails. */
static bool will_use_xet(struct gw_str user_agent)
{
    static const char mark[] = "hf_hub/";
    const char *at =
        user_agent.n ? memmem(user_agent.p, user_agent.n, mark, sizeof(mark) - 1) : NULL;
    struct gw_str rest, word;
    uint64_t major, minor = 0;

    if (at == NULL)
        return false;
    rest = gw_str_sub(user_agent, (size_t)(at - user_agent.p) + sizeof(mark) - 1, 32);
    if (!gw_str_split(&rest, '.', &word) || !gw_str_u64(word, &major))
        return false;
    if (gw_str_split(&rest, '.', &word))
        (void)gw_str_u64(word, &minor);
    return major > 1 || (major == 1 && minor >= 20);
}

int write_preupload(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    const struct hub_target *t = &st->target;
    struct gateway_result *r = NULL;
    struct gw_want want;
    struct gw_error err;
    int rc = write_admit(gw, req, ans, t);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    want =
        want_of(req, "preupload", t, FACT_JOIN(&st->arena, t->revision, rights_object(t).revision),
                gw_arena_printf(&st->arena, GW_STR_FMT GW_STR_FMT,
                                GW_STR_ARG(rights_subject_text(&st->arena, &st->who.subject)),
                                GW_STR_ARG(req->body)));
    if (want.arg.p == NULL)
        return GW_NO_MEMORY;
    rc = fact_need(gw, req, &want, &r, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_FORBIDDEN && err.sys == EACCES)
        return rights_refuse(gw, req, ans, t, r->text);
    if (rc != GW_OK)
        return write_failure(gw, req, ans, &err);
    if (will_use_xet(req->user_agent) &&
        memmem(r->text.p, r->text.n, "\"uploadMode\":\"lfs\"", 18) != NULL)
        ANSWER_HEADER(
            ans, "X-HF-Warning",
            GW_STR("xet; this gateway has no Xet storage: set HF_HUB_DISABLE_XET=1 if the "
                   "upload of large files fails"));
    return answer_json(req, ans, r->text);
}

/* ---- commit ---- */

struct commit_body { /* the sink's store: what the lines have said so far */
    struct hub_commit_reader *reader;
    struct repo_change *change;
    struct gw_str message, parent;
    struct rights rights;
    uint64_t put_bytes; /* of files in it; of objects their sender asked */
};

static int on_header(void *ctx, struct gw_str summary, struct gw_str description,
                     struct gw_str parent, struct gw_error *err)
{
    struct upload *u = ctx;
    struct commit_body *b = u->store;

    b->message = gw_arena_printf(&u->arena, GW_STR_FMT "%s" GW_STR_FMT, GW_STR_ARG(summary),
                                 description.n ? "\n\n" : "", GW_STR_ARG(description));
    b->parent = gw_arena_dup(&u->arena, parent);
    return b->message.p && b->parent.p ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "not enough memory");
}

static int on_file(void *ctx, struct gw_str path, struct gw_str bytes, struct gw_error *err)
{
    ((struct commit_body *)((struct upload *)ctx)->store)->put_bytes += bytes.n;
    return repo_change_put(((struct commit_body *)((struct upload *)ctx)->store)->change, path,
                           bytes, err);
}

static int on_object(void *ctx, struct gw_str path, struct gw_str sha256, uint64_t size,
                     struct gw_error *err)
{
    return repo_change_put_object(((struct commit_body *)((struct upload *)ctx)->store)->change,
                                  path, sha256, size, err);
}

static int on_remove(void *ctx, struct gw_str path, bool folder, struct gw_error *err)
{
    return repo_change_remove(((struct commit_body *)((struct upload *)ctx)->store)->change, path,
                              folder, err);
}

static int commit_open(struct upload *u, struct gw_error *err)
{
    static const struct hub_commit_sink lines = {on_header, on_file, on_object, on_remove};
    struct commit_body *b = u->store;
    int rc;

    if ((b->reader = hub_commit_reader_new(&lines, u)) == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "not enough memory");
    rc = repo_change_open(&b->change, u->config->data, &u->id, u->revision, err);
    if (rc == GW_OK) {
        repo_change_ask(b->change, rights_path, &b->rights);
        repo_change_ask_object(b->change, rights_object_known, &b->rights);
    }
    return rc;
}

static int commit_write(struct upload *u, struct gw_str bytes, struct gw_error *err)
{
    return hub_commit_reader_feed(((struct commit_body *)u->store)->reader, bytes, err);
}

/* The commit of a ref of its own, which is there only with it. job's text: commit, line, number */
static int finish_proposal(struct upload *u, struct gateway_job *job, struct gw_error *err)
{
    struct commit_body *b = u->store;
    const char *data = u->config->data;
    struct gw_str ref;
    uint64_t number;
    char commit[41];
    int rc = repo_pull_create(data, &u->id, u->revision, &number, err);

    if (rc != GW_OK)
        return rc;
    ref = gw_arena_printf(&job->arena, "refs/pr/%llu", (unsigned long long)number);
    rc = ref.p ? repo_change_onto(b->change, ref, err)
               : gw_fail(err, GW_NO_MEMORY, 0, "not enough memory");
    if (rc == GW_OK)
        rc = repo_change_commit(b->change, b->message, u->author, b->parent, gw_wall_ms(), commit,
                                err);
    if (rc != GW_OK) {
        (void)!repo_pull_remove(data, &u->id, number, NULL);
        return rc;
    }
    rc = write_new_tip(job, &u->id, ref, gw_str_c(commit));
    job->result.text = gw_arena_printf(&job->arena, "%s\n%llu", commit, (unsigned long long)number);
    return rc == GW_OK && job->result.text.p == NULL
               ? gw_fail(err, GW_NO_MEMORY, 0, "not enough memory")
               : rc;
}

static int commit_finish(struct upload *u, struct gateway_job *job, struct gw_error *err)
{
    struct commit_body *b = u->store;
    char commit[41];
    int rc = hub_commit_reader_finish(b->reader, err);

    if (rc == GW_OK)
        rc = quota_check(job->gw, &u->id, b->put_bytes, true, err);
    if (rc == GW_OK && u->proposal)
        return finish_proposal(u, job, err);
    if (rc == GW_OK)
        rc = repo_change_commit(b->change, b->message, u->author, b->parent, gw_wall_ms(), commit,
                                err);
    if (rc == GW_OK)
        rc = write_new_tip(job, &u->id, u->revision, gw_str_c(commit));
    return rc;
}

static void commit_close(struct upload *u)
{
    struct commit_body *b = u->store;

    if (b == NULL)
        return;
    repo_change_close(b->change);
    hub_commit_reader_free(b->reader);
    rights_release(&b->rights);
}

static int begin_commit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    static const struct upload_sink sink = {commit_open, commit_write, commit_finish, commit_close};
    const struct hub_target *t = &req->state->target;
    struct upload *u = upload_new(gw, req, &sink, COMMIT_BYTES_MAX);
    struct commit_body *b;

    if (u == NULL)
        return GW_NO_MEMORY;
    u->store = b = gw_arena_alloc(&u->arena, sizeof(*b));
    if (b == NULL || !rights_copy(&b->rights, gw, req->state, t, &u->arena))
        return GW_NO_MEMORY;
    u->id = (struct repo_id){gw_str_c(hub_type_name(t->type)), gw_arena_dup(&u->arena, t->ns),
                             gw_arena_dup(&u->arena, t->name)};
    u->revision = gw_arena_dup(&u->arena, t->revision);
    u->author = write_author(&u->arena, &req->state->who);
    u->proposal = t->create_pr;
    if (u->id.ns.p == NULL || u->id.name.p == NULL || u->revision.p == NULL || u->author.p == NULL)
        return GW_NO_MEMORY;
    ans->kind = GATEWAY_TAKE;
    return GW_OK;
}

static int answer_committed(struct gateway *gw, struct gateway_request *req,
                            struct gateway_answer *ans, struct gw_str text)
{
    struct gw_str number = text, commit;
    struct gw_buf url, pull, out;

    gw_str_split(&number, '\n', &commit);
    gw_buf_init(&url, 8192);
    gw_buf_init(&pull, 8192);
    gw_buf_init(&out, 32768);
    put_url(&url, gw, req, &req->state->target);
    gw_buf_add_c(&url, "/commit/");
    gw_buf_add(&url, commit);
    if (number.p != NULL) { /* clients take the number out of the address */
        put_url(&pull, gw, req, &req->state->target);
        gw_buf_add_c(&pull, "/discussions/");
        gw_buf_add(&pull, number);
    }
    hub_put_committed(&out, commit, gw_buf_str(&url), gw_buf_str(&pull));
    gw_buf_release(&url);
    gw_buf_release(&pull);
    return answer_buffer(req, ans, &out);
}

int write_commit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_str commit;
    struct gw_error err;
    int rc = write_admit(gw, req, ans, &st->target);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (st->upload == NULL)
        return upload_admit(gw, req, ans) == GW_OK ? begin_commit(gw, req, ans) : GW_OK;
    rc = upload_finish(gw, req, &commit, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_FORBIDDEN && err.sys == EACCES)
        return rights_refuse(gw, req, ans, &st->target,
                             ((struct commit_body *)st->upload->store)->rights.refused);
    if (rc != GW_OK)
        return write_failure(gw, req, ans, &err);
    repack_later(gw, req);
    return answer_committed(gw, req, ans, commit);
}
