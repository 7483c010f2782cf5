/* SPDX-License-Identifier: Apache-2.0 */
/* documents.c - the routes that answer JSON: info, tree, paths-info, refs, commits, identity,
 * tokens. */
#include "gateway/internal.h"

#include <stdio.h>

#include "base/encode.h"

#define TREE_CURSOR_MAX 2048u

/* ---- info ---- */

int document_info(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    const struct hub_target *t = &st->target;
    struct gw_str rev = t->revision.n ? t->revision : GW_STR("main");
    struct cache_record rec;
    struct gw_error err;
    struct resolved r;
    struct fact f = {.kind = CACHE_DOCUMENT};
    int rc = resolve_commit(gw, req, ans, &r);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (r.private) { /* by commit: what a commit holds never changes */
        f.life = FACT_FOREVER;
        f.name = FACT_JOIN(&st->arena, GW_STR("info"), r.type, r.ns, r.name, r.commit, t->query);
        f.want = (struct gw_want){.peer = GW_PEER_REPO,
                                  .key = FACT_JOIN(&st->arena, GW_STR("pinfo"), r.type, r.ns,
                                                   r.name, r.commit, t->query)};
    } else {
        f.life = hub_is_commit(rev) ? FACT_FOREVER : FACT_TTL;
        f.name = FACT_JOIN(&st->arena, GW_STR("info"), r.type, t->ns, t->name, rev, t->query);
        f.want = (struct gw_want){.peer = GW_PEER_UPSTREAM, .key = f.name};
    }
    rc = fact_get(gw, req, &f, &rec, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return answer_failure(gw, req, ans, &err);
    if (rec.status != GW_OK)
        return answer_refuse(gw, req, ans, (enum hub_reason)rec.detail,
                             rec.detail == HUB_REVISION_NOT_FOUND ? rev : rec.value, 0);
    ANSWER_HEADER(ans, "X-Repo-Commit", r.commit);
    return answer_json(req, ans, rec.value);
}

/* ---- tree ---- */

struct gw_str tree_page_encode(struct gw_arena *a, struct gw_str next, struct gw_str json)
{
    return gw_arena_printf(a, "%zu\n" GW_STR_FMT GW_STR_FMT, next.n, GW_STR_ARG(next),
                           GW_STR_ARG(json));
}

bool tree_page_decode(struct gw_str value, struct gw_str *next, struct gw_str *json)
{
    struct gw_str n_text;
    uint64_t n;

    if (!gw_str_split(&value, '\n', &n_text) || !gw_str_u64(n_text, &n) || n > value.n)
        return false;
    *next = gw_str_sub(value, 0, n);
    *json = gw_str_sub(value, n, value.n);
    return true;
}

/* Our cursor: commit '.' page '.' upstream's cursor. The commit keeps later pages on the first
 * one's; page counts our pages within one of upstream's, which may be longer than ours. */
static bool parse_cursor(struct gw_str cursor, struct gw_str *commit, struct gw_str *rest)
{
    uint64_t page;
    struct gw_str page_text, upstream;

    *rest = cursor;
    if (cursor.n > TREE_CURSOR_MAX || !gw_str_split(rest, '.', commit) || !hub_is_commit(*commit) ||
        rest->p == NULL)
        return false;
    upstream = *rest;
    return gw_str_split(&upstream, '.', &page_text) && gw_str_u64(page_text, &page) &&
           upstream.p != NULL && memchr(rest->p, '\n', rest->n) == NULL;
}

int document_tree(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_arena *a = &st->arena;
    const struct hub_target *t = &st->target;
    struct gw_str commit, page = GW_STR("0."), next, json, flags, limit;
    struct cache_record rec;
    struct gw_error err;
    struct resolved r;
    struct fact f = {.kind = CACHE_TREE, .life = FACT_FOREVER};
    int rc = resolve_commit(gw, req, ans, &r);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (t->cursor.n) {
        if (!parse_cursor(t->cursor, &commit, &page))
            return answer_refuse(gw, req, ans, HUB_BAD_REQUEST,
                                 GW_STR("this cursor is not one of ours"), 0);
        if (!gw_str_eq(commit, r.commit)) /* the name leads elsewhere now, or never led there */
            st->object.revision = commit;
        r.commit = st->commit = commit;
        st->object.commit = commit;
        rc = admit(gw, req, ans, &st->object, t->action);
        if (rc != GW_OK)
            return GW_OK;
    }
    flags = gw_arena_printf(a, "%c%c", t->recursive ? 'r' : '-', t->expand ? 'e' : '-');
    limit = gw_arena_printf(a, "%u", t->limit && t->limit < HUB_PAGE ? t->limit : 0);
    f.name =
        FACT_JOIN(a, r.type, r.ns, r.name, r.commit, t->path, FACT_JOIN(a, flags, limit, page));
    f.want.peer = r.private ? GW_PEER_REPO : GW_PEER_UPSTREAM;
    f.want.key = FACT_JOIN(a, r.private ? GW_STR("ptree") : GW_STR("tree"), r.type, r.ns, r.name,
                           r.commit, t->path, flags, FACT_JOIN(a, limit, page));
    rc = fact_get(gw, req, &f, &rec, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return answer_failure(gw, req, ans, &err);
    if (rec.status != GW_OK)
        return answer_refuse(gw, req, ans, (enum hub_reason)rec.detail,
                             rec.detail == HUB_REVISION_NOT_FOUND ? r.commit : GW_STR(""), 0);
    if (!tree_page_decode(rec.value, &next, &json))
        return answer_refuse(gw, req, ans, HUB_INTERNAL,
                             GW_STR("a record of the index cannot be read"), 0);
    ANSWER_HEADER(ans, "X-Repo-Commit", r.commit);
    if (next.n)
        answer_link_next(
            gw, req, ans,
            gw_arena_printf(a, GW_STR_FMT "." GW_STR_FMT, GW_STR_ARG(r.commit), GW_STR_ARG(next)));
    return answer_json(req, ans, json);
}

/* ---- paths-info ---- */

int document_paths(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_str *paths, json;
    struct hub_entry *entries;
    struct gw_error err;
    struct resolved r;
    struct gw_buf out;
    bool *found, expand;
    size_t n;
    int rc = resolve_commit(gw, req, ans, &r);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    rc = hub_paths_parse(&paths, &n, &expand, req->content_type, req->body, &st->arena, &err);
    if (rc == GW_NO_MEMORY)
        return rc;
    if (rc != GW_OK)
        return answer_refuse(gw, req, ans, rc == GW_TOO_LARGE ? HUB_TOO_LARGE : HUB_BAD_REQUEST,
                             gw_str_c(err.text), 0);
    entries = gw_arena_alloc(&st->arena, (n + 1) * sizeof(*entries));
    found = gw_arena_alloc(&st->arena, n + 1);
    if (entries == NULL || found == NULL)
        return GW_NO_MEMORY;
    rc = resolve_paths(gw, req, ans, &r, paths, n, entries, found);
    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    gw_buf_init(&out, 16u << 20);
    gw_buf_add_char(&out, '[');
    for (size_t i = 0; i < n; i++) {
        if (!found[i])
            continue;
        gw_json_put_comma(&out);
        hub_put_entry(&out, &entries[i], GW_STR(""));
    }
    gw_buf_add_char(&out, ']');
    json = out.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(&st->arena, gw_buf_str(&out));
    gw_buf_release(&out);
    ANSWER_HEADER(ans, "X-Repo-Commit", r.commit);
    return answer_json(req, ans, json);
}

/* ---- refs, commits, discussions, treesize: upstream's document, or our own ---- */

int document_other(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_arena *a = &st->arena;
    const struct hub_target *t = &st->target;
    struct gw_str next, json, rev;
    struct cache_record rec;
    struct gw_error err;
    struct resolved r;
    struct fact f = {.kind = CACHE_DOCUMENT};
    int rc = resolve_commit(gw, req, ans, &r);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (r.private && t->route == HUB_DISCUSSIONS && t->path.n)
        return answer_refuse(
            gw, req, ans, HUB_NOT_BUILT,
            GW_STR("There are no discussions here. What a pull request proposes is "
                   "at its revision, refs/pr/N."),
            0);
    if (r.private && t->route == HUB_DISCUSSIONS)
        return answer_json(req, ans, GW_STR("{\"discussions\":[],\"count\":0,\"start\":0}"));
    if (r.private && t->route == HUB_TREESIZE)
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    if (r.private) {
        f.life = FACT_PRIVATE;
        f.want.peer = GW_PEER_REPO;
        f.want.key = t->route == HUB_REFS
                         ? FACT_JOIN(a, GW_STR("prefs"), r.type, r.ns, r.name,
                                     t->include_prs ? GW_STR("1") : GW_STR(""))
                         : FACT_JOIN(a, GW_STR("pcommits"), r.type, r.ns, r.name, r.commit,
                                     gw_arena_printf(a, "%u", t->limit), t->cursor);
        f.name = f.want.key;
    } else {
        rev = t->route == HUB_COMMITS || t->route == HUB_TREESIZE ? r.commit : GW_STR("");
        f.life = FACT_TTL;
        f.name = upstream_target(a, &r.target, rev);
        f.want = (struct gw_want){.peer = GW_PEER_UPSTREAM,
                                  .key = FACT_JOIN(a, GW_STR("document"), f.name)};
    }
    rc = fact_get(gw, req, &f, &rec, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return answer_failure(gw, req, ans, &err);
    if (rec.status != GW_OK)
        return answer_refuse(gw, req, ans, (enum hub_reason)rec.detail, GW_STR(""), 0);
    if (!tree_page_decode(rec.value, &next,
                          &json)) /* documents of this kind are kept as pages too */
        return answer_refuse(gw, req, ans, HUB_INTERNAL,
                             GW_STR("a record of the index cannot be read"), 0);
    if (rec.detail > 0)
        ANSWER_HEADER(ans, "X-Total-Count", gw_arena_printf(a, "%d", rec.detail));
    if (next.n)
        answer_link_next(gw, req, ans, next);
    return answer_json(req, ans, json);
}

int document_auth_check(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct resolved r;
    int rc = resolve_commit(gw, req, ans, &r);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    return answer_json(req, ans, GW_STR("{}"));
}

/* ---- identity ---- */

static bool may_in(const struct gateway *gw, const struct gateway_state *st, struct gw_str ns,
                   enum policy_action a)
{
    struct policy_object any = {.type = GW_STR("model"), .ns = ns, .name = GW_STR("*")};

    return (st->who.role == POLICY_ROLE_NONE || policy_role_allows(st->who.role, a)) &&
           policy_decide(gw->policy, &st->who.subject, a, &any, st->started_ms).effect ==
               POLICY_ALLOW;
}

int document_whoami(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    const struct gateway_identity *who = &st->who;
    struct gw_str json, org;
    struct gw_str *orgs, *roles;
    struct gw_buf out;
    size_t n = 0, total = 0;

    if (who->subject.kind == POLICY_ANONYMOUS)
        return answer_refuse(gw, req, ans, HUB_LOGIN_NEEDED, GW_STR(""), 0);
    while (policy_private_namespace(gw->policy, total).p != NULL)
        total++;
    orgs = gw_arena_alloc(&st->arena, (total + 1) * sizeof(*orgs));
    roles = gw_arena_alloc(&st->arena, (total + 1) * sizeof(*roles));
    if (orgs == NULL || roles == NULL)
        return GW_NO_MEMORY;
    for (size_t i = 0; i < total; i++) {
        org = policy_private_namespace(gw->policy, i);
        if (org.n == 0 || !may_in(gw, st, org, POLICY_DISCOVER))
            continue;
        roles[n] = may_in(gw, st, org, POLICY_CREATE) || may_in(gw, st, org, POLICY_WRITE)
                       ? GW_STR("write")
                       : GW_STR("read");
        orgs[n++] = org;
    }
    struct hub_person p = {
        .id = who->subject_id,
        .name = who->subject.name,
        .fullname = who->display.n ? who->display : who->subject.name,
        .email = who->email,
        .orgs = orgs,
        .roles = roles,
        .n_orgs = n,
        .token_name = who->token_name,
        .token_role = who->role == POLICY_ROLE_READ ? GW_STR("read") : GW_STR("write"),
        .token_created_ms = who->token_created_ms,
    };
    gw_buf_init(&out, 1u << 20);
    hub_put_whoami(&out, &p);
    json = out.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(&st->arena, gw_buf_str(&out));
    gw_buf_release(&out);
    ANSWER_HEADER(ans, "Cache-Control", GW_STR("private, no-store"));
    return answer_json(req, ans, json);
}

/* A field of the body; without a body ("curl -X POST") none is given. */
static int mint_field(struct gateway_request *req, const char *key, struct gw_str *value)
{
    struct gw_error err;

    *value = GW_STR("");
    return req->body.n == 0
               ? GW_OK
               : hub_field(value, key, req->content_type, req->body, &req->state->arena, &err);
}

static int mint_fields(struct gateway *gw, struct gateway_request *req, struct gw_str *name,
                       struct gw_str *role, int64_t *expires_ms, const char **wrong)
{
    struct gateway_state *st = req->state;
    struct gw_str expires;
    int64_t life = gw->config->identity.token_default_ms;
    int rc = mint_field(req, "name", name);

    if (rc == GW_OK)
        rc = mint_field(req, "role", role);
    if (rc == GW_OK)
        rc = mint_field(req, "expires", &expires);
    *wrong = "the body must be a form or a JSON object with name, role (read or write) and "
             "expires (90d)";
    if (rc != GW_OK)
        return rc;
    *wrong = NULL;
    if (name->n == 0)
        *name = GW_STR("token");
    if (role->n == 0)
        *role = GW_STR("read");
    if (!gw_str_eq_c(*role, "read") && !gw_str_eq_c(*role, "write"))
        *wrong = "role must be read or write";
    else if (expires.n && (!gw_duration_parse(expires, &life) || life <= 0))
        *wrong = "expires must be a time such as 12h, 30d or 90d";
    else if (life > gw->config->identity.token_max_ms)
        *wrong = "expires is longer than this gateway allows";
    for (size_t i = 0; i < name->n; i++)
        if ((unsigned char)name->p[i] < 0x20 || name->n > 96)
            *wrong = "name must be one line of at most 96 bytes";
    *expires_ms = st->started_ms + life;
    return *wrong ? GW_INVALID : GW_OK;
}

int document_mint(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct auth_credential *cred)
{
    struct gateway_state *st = req->state;
    struct gw_arena *a = &st->arena;
    struct gw_str name, role, json;
    struct gateway_result *r;
    struct gw_want want;
    struct gw_error err;
    struct gw_buf out;
    const char *wrong;
    char iso[GW_ISO_LEN + 1];
    int64_t expires_ms;
    int rc;

    if (cred->scheme != AUTH_PASSWORD)
        return answer_refuse(
            gw, req, ans, HUB_LOGIN_NEEDED,
            GW_STR("A token is made with your user name and password: curl -u NAME"), 0);
    rc = mint_fields(gw, req, &name, &role, &expires_ms, &wrong);
    if (rc == GW_NO_MEMORY)
        return rc;
    if (rc != GW_OK)
        return answer_refuse(gw, req, ans, HUB_BAD_REQUEST, gw_str_c(wrong), 0);
    want.peer = GW_PEER_DISK;
    want.arg = GW_STR("");
    want.key = FACT_JOIN(a, GW_STR("mint"), req->id, st->who.subject_id, name, role,
                         gw_arena_printf(a, "%lld", (long long)expires_ms));
    rc = fact_need(gw, req, &want, &r, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_INVALID) /* a name that auth/ does not take */
        return answer_refuse(gw, req, ans, HUB_BAD_REQUEST, gw_str_c(err.text), 0);
    if (rc != GW_OK)
        return answer_failure(gw, req, ans, &err);
    gw_iso_format(iso, expires_ms);
    gw_buf_init(&out, 4096);
    gw_buf_add_char(&out, '{');
    gw_json_put_key(&out, "token");
    gw_json_put_string(&out, r->text);
    gw_json_put_key(&out, "name");
    gw_json_put_string(&out, name);
    gw_json_put_key(&out, "role");
    gw_json_put_string(&out, role);
    gw_json_put_key(&out, "expires");
    gw_json_put_string(&out, gw_str_c(iso));
    gw_buf_add_char(&out, '}');
    json = out.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(a, gw_buf_str(&out));
    gw_buf_wipe(&out);
    ANSWER_HEADER(ans, "Cache-Control", GW_STR("no-store"));
    return answer_json(req, ans, json);
}
