/* SPDX-License-Identifier: Apache-2.0 */
/*
 * git.c - clients that speak git (gitprotocol-http): the refs, clone and fetch, push.
 *
 * Who may is decided here, before git is started: a clone gives every file of every revision, so it
 * takes somebody who may read every one; a push takes somebody who may write every file of each
 * branch that it names. Then git answers (repo/serve.c). What it says to a fetch is passed on by
 * the door as it comes; refs and pushes are a job that ends with git.
 */
#include "gateway/internal.h"
#include "gateway/jobs.h"
#include "gateway/upload.h"

#define FETCH_BYTES_MAX                                                                            \
    (64u << 20)              /* of a request for a fetch: what is wanted and what is there         \
                              */
#define SAYS_MAX (32u << 20) /* of git, about refs and pushes */
#define REFS_MS 20000
#define REFUSED_MAX (16u << 10)
#define PROTOCOL_MAX 64u

struct git_body { /* the upload's store */
    struct repo_serve_options o;
    struct repo_serve *serve;
    bool refs;                            /* only what refs there are */
    struct gw_str refused;                /* what the hook is to say */
    const struct policy_rule *refused_by; /* one of the rules */
    struct repo_push_ref *pushed;
    size_t n_pushed;
    int64_t may_take_ms;
};

static bool is_push(const struct hub_target *t)
{
    return t->route == HUB_GIT_RECEIVE_PACK || (t->route == HUB_GIT_REFS && t->git_push);
}

/* ---- who may ---- */

static struct policy_object object_of(const struct hub_target *t, struct gw_str revision)
{
    return (struct policy_object){
        .type = gw_str_c(hub_type_name(t->type)),
        .ns = t->ns,
        .name = t->name,
        .revision = revision,
        .commit = GW_STR(""),
        .path = GW_STR(""),
    };
}

static bool may_every(struct gateway *gw, struct gateway_request *req, const struct hub_target *t,
                      enum policy_action action, struct gw_str revision,
                      const struct policy_rule **rule)
{
    struct gateway_state *st = req->state;
    struct policy_object o = object_of(t, revision);
    struct policy_decision d =
        policy_decide_every(gw->policy, &st->who.subject, action, &o, st->started_ms);

    *rule = d.rule;
    return d.effect == POLICY_ALLOW;
}

static int blocked(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                   const struct policy_rule *rule, struct gw_str text)
{
    struct gateway_state *st = req->state;
    struct gw_str reason = policy_rule_reason(rule);

    st->allowed = false;
    st->rule = rule;
    if (reason.n != 0)
        text = gw_arena_printf(&st->arena, GW_STR_FMT " " GW_STR_FMT, GW_STR_ARG(text),
                               GW_STR_ARG(reason));
    answer_refuse(gw, req, ans, HUB_BLOCKED, text.p ? text : GW_STR(""), 0);
    return GW_FORBIDDEN;
}

int git_admit_every(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                    const struct hub_target *t)
{
    const struct policy_rule *rule;

    if (may_every(gw, req, t, POLICY_READ, GW_STR(""), &rule))
        return GW_OK;
    return blocked(gw, req, ans, rule,
                   GW_STR("A clone gives every file, and the rules of this gateway let you read "
                          "only some of this repository: use hf download."));
}

static int admit_name(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    const struct hub_target *t = &st->target;
    struct policy_object o = object_of(t, GW_STR(""));
    int rc;

    st->private_repo = policy_is_private(gw->policy, t->ns);
    rc = admit(gw, req, ans, &o, st->private_repo ? t->action : HUB_READ_ACTION);
    if (rc != GW_OK) {
        /* git sends what it knows only after a 401, whatever a rule has to say */
        if (st->who.subject.kind == POLICY_ANONYMOUS)
            answer_refuse(gw, req, ans, HUB_LOGIN_NEEDED, GW_STR(""), 0);
        return rc;
    }
    if (!st->private_repo) {
        answer_refuse(gw, req, ans, HUB_NOT_BUILT,
                      GW_STR("Public repositories are not cloned through this gateway: use hf "
                             "download, or the Hub itself."),
                      0);
        return GW_FORBIDDEN;
    }
    return is_push(t) ? GW_OK : git_admit_every(gw, req, ans, t);
}

/* A repository that has another name now is served under the old one too, to who may use both: git
 * that was sent elsewhere after a 401 would still post to where it began (http.c,
 * http_request_reauth). */
static int admit_git(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    int rc = admit_name(gw, req, ans);

    if (rc != GW_OK || req->state->upload != NULL)
        return rc;
    rc = resolve_renamed(gw, req);
    return rc == GW_CONFLICT ? admit_name(gw, req, ans) : rc;
}

/* ---- jobs ---- */

static int body_open(struct upload *u, struct gw_error *err)
{
    struct git_body *b = u->store;

    return repo_serve_open(&b->serve, &b->o, err);
}

static int body_write(struct upload *u, struct gw_str bytes, struct gw_error *err)
{
    return repo_serve_write(((struct git_body *)u->store)->serve, bytes, err);
}

static void body_close(struct upload *u)
{
    struct git_body *b = u->store;

    if (b != NULL)
        repo_serve_close(b->serve);
}

/* A flush is its last word to us, whichever of the two was asked for what. */
static bool is_whole(const struct gw_buf *says)
{
    return gw_str_ends(gw_buf_str(says), GW_STR("0000"));
}

static int says_nothing(struct gw_error *err)
{
    return gw_fail(err, GW_UNAVAILABLE, 0,
                   "git gave no answer: is it installed on the gateway, and is `git.command` its "
                   "hubgate command?");
}

/* The records that follow what was pushed. */
static void note_pushed(struct gateway_job *job, const struct git_body *b)
{
    for (size_t i = 0; i < b->n_pushed; i++) {
        const struct repo_push_ref *r = &b->pushed[i];
        bool branch = gw_str_starts(r->name, GW_STR("refs/heads/"));

        if (r->done)
            write_ref_moved(job, &b->o.id, gw_str_sub(r->name, branch ? 11 : 10, r->name.n),
                            branch ? gw_str_c(r->commit) : GW_STR(""));
    }
}

/* Two texts, of which the second may hold NUL. p == NULL: no memory */
static struct gw_str joined(struct gw_arena *a, struct gw_str first, struct gw_str second)
{
    char *p = gw_arena_alloc(a, first.n + second.n + 1);

    if (p == NULL || first.p == NULL)
        return (struct gw_str){NULL, 0};
    memcpy(p, first.p, first.n);
    if (second.n != 0)
        memcpy(p + first.n, second.p, second.n);
    return (struct gw_str){p, first.n + second.n};
}

/* "REF COMMIT\n" of the first ref that moved, for the audit record, and what git said. */
static int push_text(struct gateway_job *job, const struct git_body *b, const struct gw_buf *says)
{
    const struct repo_push_ref *first = NULL;

    for (size_t i = 0; first == NULL && i < b->n_pushed; i++)
        if (b->pushed[i].done)
            first = &b->pushed[i];
    job->result.text = joined(&job->arena,
                              gw_arena_printf(&job->arena, "%s %s\n", first ? first->name.p : "",
                                              first ? first->commit : ""),
                              gw_buf_str(says));
    return job->result.text.p ? GW_OK : gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
}

static int run_to_end(struct gateway_job *job, struct git_body *b, struct gw_buf *says)
{
    struct gw_error *err = &job->result.err;
    int rc = repo_serve_start(b->serve, b->refs, b->refused, err);

    if (rc == GW_OK)
        rc = repo_serve_read(b->serve, says, gw_mono_ms() + b->may_take_ms, &job->gw->cancelled,
                             err);
    if (b->refs) {
        if (rc == GW_OK && !is_whole(says))
            rc = says_nothing(err);
        if (rc == GW_OK)
            job->result.text = gw_arena_dup(&job->arena, gw_buf_str(says));
        return rc == GW_OK && job->result.text.p == NULL ? GW_NO_MEMORY : rc;
    }
    if (rc == GW_OK && b->n_pushed != 0 && says->n == 0)
        rc = says_nothing(err);
    /* also after a failure: what has moved has moved */
    if (repo_serve_settle(b->serve, b->pushed, b->n_pushed, rc == GW_OK ? err : NULL) != GW_OK &&
        rc == GW_OK)
        rc = GW_IO;
    note_pushed(job, b);
    return rc == GW_OK ? push_text(job, b, says) : rc;
}

static int body_finish(struct upload *u, struct gateway_job *job, struct gw_error *err)
{
    struct git_body *b = u->store;
    struct gw_buf says;
    int rc;

    if (!b->refs && b->o.service == REPO_UPLOAD_PACK)
        return repo_serve_start(b->serve, false, GW_STR(""), err);
    if (!b->refs && b->refused.n == 0) {
        rc = quota_check(job->gw, &b->o.id, u->given, true, err);
        if (rc == GW_TOO_LARGE) { /* git shows what the hook says, and nothing else */
            b->refused = gw_arena_printf(&job->arena, "%s\n", err->text);
            rc = b->refused.p ? GW_OK : rc;
        }
        if (rc != GW_OK)
            return rc;
        memset(err, 0, sizeof(*err));
    }
    gw_buf_init(&says, SAYS_MAX);
    rc = run_to_end(job, b, &says);
    gw_buf_release(&says);
    return rc;
}

/* ---- the request ---- */

/* "version=2", and what may come: it becomes a variable of git's environment. */
static struct gw_str protocol_of(const struct gateway_request *req)
{
    struct gw_str s = req->git_protocol;

    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < 'a' || s.p[i] > 'z') && (s.p[i] < '0' || s.p[i] > '9') && s.p[i] != '=' &&
            s.p[i] != ':' && s.p[i] != '-')
            return GW_STR("");
    return s.n <= PROTOCOL_MAX ? s : GW_STR("");
}

static int begin(struct gateway *gw, struct gateway_request *req)
{
    static const struct upload_sink sink = {body_open, body_write, body_finish, body_close};
    const struct hub_target *t = &req->state->target;
    bool refs = t->route == HUB_GIT_REFS, push = is_push(t);
    uint64_t limit = push ? gw->config->git.push_bytes : FETCH_BYTES_MAX;
    struct upload *u = upload_new(gw, req, &sink, limit);
    struct git_body *b;

    if (u == NULL)
        return GW_NO_MEMORY;
    b = gw_arena_alloc(&u->arena, sizeof(*b));
    if (b == NULL)
        return GW_NO_MEMORY;
    memset(b, 0, sizeof(*b));
    b->o = (struct repo_serve_options){
        .data_dir = gw->config->data,
        .command = gw->config->git.command,
        .id = {gw_str_c(hub_type_name(t->type)), gw_arena_dup(&u->arena, t->ns),
               gw_arena_dup(&u->arena, t->name)},
        .service = push ? REPO_RECEIVE_PACK : REPO_UPLOAD_PACK,
        .protocol = gw_arena_dup(&u->arena, protocol_of(req)),
        .gzip = req->content_encoding.n != 0,
        .max_bytes = limit,
    };
    b->refs = refs;
    b->refused = GW_STR("");
    b->may_take_ms = refs ? REFS_MS : gw->config->git.push_ms;
    u->store = b;
    if (refs || push)
        u->wait_ms = gw->config->limits.wait_ms + b->may_take_ms;
    if (!refs && push) /* as long as git is at it: others must not wait for that */
        u->peer = GW_PEER_GIT;
    return b->o.id.ns.p && b->o.id.name.p && b->o.protocol.p ? GW_OK : GW_NO_MEMORY;
}

static int failed(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct gw_error *err)
{
    return write_failure(gw, req, ans, err);
}

static void fill(struct gateway_request *req, struct gateway_answer *ans, const char *what)
{
    const char *service = is_push(&req->state->target) ? "receive-pack" : "upload-pack";

    ans->status = 200;
    ans->content_type =
        gw_arena_printf(&req->state->arena, "application/x-git-%s-%s", service, what).p;
}

int git_refs(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    const struct hub_target *t = &st->target;
    struct gw_str text, prefix;
    struct gw_error err;
    int rc = admit_git(gw, req, ans);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (!t->git_fetch && !t->git_push)
        return answer_refuse(gw, req, ans, HUB_SCOPE,
                             GW_STR("This gateway speaks git's smart protocol only: use git 1.6.6 "
                                    "or newer."),
                             0);
    if (st->upload == NULL && (rc = begin(gw, req)) != GW_OK)
        return rc;
    rc = upload_finish(gw, req, &text, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return failed(gw, req, ans, &err);
    /* protocol 2 has no such line in front (gitprotocol-v2: git's own client takes both) */
    prefix = t->git_push ? GW_STR("001f# service=git-receive-pack\n0000")
                         : GW_STR("001e# service=git-upload-pack\n0000");
    ans->memory = joined(&st->arena, prefix, text);
    if (ans->memory.p == NULL)
        return GW_NO_MEMORY;
    fill(req, ans, "advertisement");
    ans->kind = GATEWAY_MEMORY;
    ans->size = ans->memory.n;
    return GW_OK;
}

/* What the hook is to say of refs that this person may not write. */
static int judge_refs(struct gateway *gw, struct gateway_request *req, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    struct upload *u = st->upload;
    struct git_body *b = u->store;
    const struct policy_rule *rule;
    struct gw_buf refused;
    int rc;

    if (b->pushed != NULL || b->serve == NULL || u->status != GW_OK)
        return GW_OK; /* nothing came: git has nothing to say; or it is under way */
    rc = repo_serve_refs(b->serve, &u->arena, &b->pushed, &b->n_pushed, err);
    if (rc != GW_OK)
        return rc;
    gw_buf_init(&refused, REFUSED_MAX);
    for (size_t i = 0; i < b->n_pushed; i++) {
        struct gw_str name = b->pushed[i].name, branch = name;

        if (gw_str_starts(name, GW_STR("refs/heads/")))
            branch = gw_str_sub(name, 11, name.n);
        else if (gw_str_starts(name, GW_STR("refs/tags/")))
            branch = gw_str_sub(name, 10, name.n);
        if (i == 0)
            st->object.revision = branch;
        if (may_every(gw, req, &st->target, POLICY_WRITE, branch, &rule))
            continue;
        b->refused_by = rule;
        gw_buf_addf(&refused, "you may not push to " GW_STR_FMT ". " GW_STR_FMT "\n",
                    GW_STR_ARG(name), GW_STR_ARG(policy_rule_reason(rule)));
    }
    if (refused.n != 0) {
        b->refused = gw_arena_dup(&u->arena, gw_buf_str(&refused));
        if (refused.failed || b->refused.p == NULL)
            b->refused = GW_STR("you may not push to these branches\n");
    }
    gw_buf_release(&refused);
    return GW_OK;
}

static int answer_push(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                       struct gw_str text)
{
    struct gateway_state *st = req->state;
    struct gw_str line, name, commit;

    if (!gw_str_split(&text, '\n', &line) || text.p == NULL)
        text = GW_STR("");
    if (gw_str_split(&line, ' ', &name) && name.n != 0) {
        commit = line;
        st->object.revision = gw_str_starts(name, GW_STR("refs/heads/"))
                                  ? gw_str_sub(name, 11, name.n)
                                  : gw_str_sub(name, 10, name.n);
        st->object.commit = st->commit = commit;
        repack_later(gw, req);
    }
    fill(req, ans, "result");
    ans->kind = text.n ? GATEWAY_MEMORY : GATEWAY_EMPTY;
    ans->memory = text;
    ans->size = text.n;
    return GW_OK;
}

/* What was decided of a push stays for the audit record, though each step decides anew. */
static void remember_refused(struct gateway_state *st)
{
    const struct git_body *b = st->upload->store;

    if (b->refused.n == 0)
        return;
    st->allowed = false;
    st->rule = b->refused_by;
    st->why = "blocked";
}

static bool is_gzip(const struct gateway_request *req)
{
    return gw_str_eq_c(req->content_encoding, "gzip") ||
           gw_str_eq_c(req->content_encoding, "x-gzip");
}

int git_service(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    bool push = st->target.route == HUB_GIT_RECEIVE_PACK;
    struct gw_str text;
    struct gw_error err;
    int rc;

    if (st->git_running) /* decided, and git was told: its output is the answer */
        rc = GW_OK;
    else
        rc = admit_git(gw, req, ans);
    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (st->upload == NULL) {
        if (req->content_encoding.n != 0 && !is_gzip(req))
            return answer_refuse(gw, req, ans, HUB_BAD_REQUEST,
                                 GW_STR("the body is gzip, or not encoded"), 0);
        if (!push && gw->n_git >= gw->config->git.clones)
            return answer_refuse(gw, req, ans, HUB_BUSY,
                                 GW_STR("Too many clones at a time. Try again soon."), 10);
        rc = begin(gw, req);
        ans->kind = GATEWAY_TAKE;
        return rc;
    }
    if (push && judge_refs(gw, req, &err) != GW_OK)
        return failed(gw, req, ans, &err);
    if (!push && !st->git_running) {
        st->git_running = true;
        gw->n_git++;
    }
    rc = upload_finish(gw, req, &text, &err);
    if (push)
        remember_refused(st);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return failed(gw, req, ans, &err);
    if (push) {
        repack_later(gw, req);
        return answer_push(gw, req, ans, text);
    }
    fill(req, ans, "result");
    ans->kind = GATEWAY_PIPE;
    return GW_OK;
}

int gateway_pipe(struct gateway_request *req)
{
    struct git_body *b = req->state->upload->store;

    return repo_serve_output(b->serve);
}

void git_end(struct gateway *gw, struct gateway_state *st)
{
    if (st->git_running)
        gw->n_git--;
    st->git_running = false;
}
