/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resolve.c - names to content: repo and revision -> canonical name and commit; commit and path ->
 * entry. The namespace decides the home before any look-up: a private name never reaches upstream,
 * a public one never reaches repo/.
 */
#include "gateway/internal.h"
#include "gateway/record.h"

#include "base/encode.h"

struct gw_str upstream_target(struct gw_arena *a, const struct hub_target *t,
                              struct gw_str revision)
{
    struct gw_str out = {NULL, 0};
    struct gw_buf b;

    gw_buf_init(&b, 4 * HUB_TARGET_MAX);
    hub_put_upstream_target(&b, t, revision);
    if (!b.failed)
        out = gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    return out;
}

static struct policy_object object_of(const struct hub_target *t, struct gw_str ns,
                                      struct gw_str name, struct gw_str commit)
{
    bool whole_repo = t->route != HUB_RESOLVE && t->route != HUB_RAW;

    return (struct policy_object){
        .type = gw_str_c(hub_type_name(t->type)),
        .ns = ns.n ? ns : GW_STR("_"),
        .name = name,
        .revision = t->revision.n ? t->revision : GW_STR("main"),
        .commit = commit,
        .path = whole_repo ? GW_STR("") : t->path,
    };
}

static int refused(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                   enum hub_reason why, struct gw_str detail)
{
    answer_refuse(gw, req, ans, why, detail, 0);
    return GW_FORBIDDEN;
}

static int failed(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  int rc, const struct gw_error *err)
{
    if (rc == GW_AGAIN)
        return GW_AGAIN;
    answer_failure(gw, req, ans, err);
    return GW_FORBIDDEN;
}

static struct fact ref_fact(struct gateway_request *req, const struct resolved *r,
                            struct gw_str rev)
{
    struct gateway_state *st = req->state;
    const struct hub_target *t = &st->target;
    struct gw_arena *a = &st->arena;
    struct fact f = {
        .kind = CACHE_REF,
        .name = FACT_JOIN(a, r->type, t->ns, t->name, rev),
        /* a private repository may be deleted: then its commits are not there any more */
        .life = r->private           ? FACT_PRIVATE
                : hub_is_commit(rev) ? FACT_FOREVER
                                     : FACT_TTL,
    };

    /* the call that resolves a name brings its info document too; when that is what was asked, ask
     * it the same way */
    f.want.peer = r->private ? GW_PEER_REPO : GW_PEER_UPSTREAM;
    f.want.key = r->private ? FACT_JOIN(a, GW_STR("pref"), r->type, t->ns, t->name, rev)
                            : FACT_JOIN(a, GW_STR("info"), r->type, t->ns, t->name, rev,
                                        t->route == HUB_INFO ? t->query : GW_STR(""));
    return f;
}

/* But for the case of letters, which is forgiven. */
static bool is_same_name(const struct hub_target *t, const struct record_ref *ref)
{
    return gw_str_ieq(t->ns, ref->ns) && gw_str_ieq(t->name, ref->name);
}

int resolve_commit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                   struct resolved *r)
{
    struct gateway_state *st = req->state;
    const struct hub_target *t = &st->target;
    struct gw_str rev = t->revision.n ? t->revision : GW_STR("main");
    struct policy_object object = object_of(t, t->ns, t->name, GW_STR(""));
    struct cache_record rec;
    struct record_ref ref;
    struct gw_error err;
    struct fact f;
    int rc;

    memset(r, 0, sizeof(*r));
    r->target = *t;
    r->type = gw_str_c(hub_type_name(t->type));
    r->private = st->private_repo = policy_is_private(gw->policy, t->ns);
    rc = admit_early(gw, req, ans, &object, t->action);
    if (rc != GW_OK)
        return rc;
    f = ref_fact(req, r, rev);
    rc = fact_get(gw, req, &f, &rec, &err);
    if (rc != GW_OK)
        return failed(gw, req, ans, rc, &err);
    if (rec.status != GW_OK)
        return refused(gw, req, ans, (enum hub_reason)rec.detail,
                       rec.detail == HUB_REVISION_NOT_FOUND ? rev : rec.value);
    if (!record_ref_decode(&ref, rec.value))
        return refused(gw, req, ans, HUB_INTERNAL, GW_STR("a record of the index cannot be read"));
    if (policy_is_private(gw->policy, ref.ns) !=
        r->private) /* upstream renamed something into a private namespace */
        return refused(gw, req, ans, HUB_BAD_UPSTREAM,
                       GW_STR("upstream leads into a private namespace"));
    r->ns = r->target.ns = ref.ns;
    r->name = r->target.name = ref.name;
    r->commit = st->commit = ref.commit;
    object = object_of(t, ref.ns, ref.name, ref.commit);
    rc = admit(gw, req, ans, &object, t->action);
    if (rc != GW_OK || !r->private || is_same_name(t, &ref))
        return rc;
    rc = answer_moved(gw, req, ans, &r->target);
    return rc == GW_OK ? GW_FORBIDDEN : rc;
}

/* GW_OK: *ref: where the private repository is that had the target's name; GW_NOT_FOUND; GW_AGAIN
 */
static int find_moved(struct gateway *gw, struct gateway_request *req, struct record_ref *ref)
{
    struct gateway_state *st = req->state;
    struct resolved r = {.private = true};
    struct cache_record rec;
    struct gw_error err;
    struct fact f;
    int rc;

    if (!st->target.has_repo || !policy_is_private(gw->policy, st->target.ns))
        return GW_NOT_FOUND;
    r.type = gw_str_c(hub_type_name(st->target.type));
    f = ref_fact(req, &r, GW_STR("main"));
    rc = fact_get(gw, req, &f, &rec, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK || rec.status != GW_OK || !record_ref_decode(ref, rec.value) ||
        is_same_name(&st->target, ref) || !policy_is_private(gw->policy, ref->ns))
        return GW_NOT_FOUND;
    return GW_OK;
}

int resolve_moved(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct hub_target to = st->target;
    struct policy_object object;
    struct record_ref ref;
    int rc = find_moved(gw, req, &ref);

    if (rc != GW_OK)
        return rc;
    to.ns = ref.ns;
    to.name = ref.name;
    object = object_of(&st->target, ref.ns, ref.name, GW_STR(""));
    rc = admit(gw, req, ans, &object, st->target.action);
    return rc == GW_OK ? answer_moved(gw, req, ans, &to) : rc;
}

int resolve_renamed(struct gateway *gw, struct gateway_request *req)
{
    struct record_ref ref;
    int rc = find_moved(gw, req, &ref);

    if (rc != GW_OK)
        return rc == GW_NOT_FOUND ? GW_OK : rc;
    req->state->target.ns = ref.ns;
    req->state->target.name = ref.name;
    return GW_CONFLICT;
}

/* ---- entries ---- */

static struct gw_str file_name(struct gw_arena *a, const struct resolved *r, struct gw_str path)
{
    return FACT_JOIN(a, r->type, r->ns, r->name, r->commit, path);
}

static struct gw_want paths_want(struct gw_arena *a, const struct resolved *r,
                                 const struct gw_str *paths, size_t n)
{
    struct gw_want w = {.peer = r->private ? GW_PEER_REPO : GW_PEER_UPSTREAM};
    uint8_t digest[32];
    char hex[65];

    w.arg = fact_join(a, paths, n);
    if (w.arg.p == NULL)
        return w;
    gw_sha256_once(w.arg.p, w.arg.n, digest);
    gw_hex_encode(hex, digest, sizeof(digest));
    w.key = FACT_JOIN(a, r->private ? GW_STR("ppaths") : GW_STR("paths"), r->type, r->ns, r->name,
                      r->commit, gw_str_c(hex));
    return w;
}

/* GW_OK; GW_NOT_FOUND: known to be absent; GW_AGAIN: not known here (nothing parked); GW_CORRUPT */
static int entry_held(struct gateway *gw, struct gateway_request *req, const struct resolved *r,
                      struct gw_str path, struct hub_entry *e)
{
    struct gateway_state *st = req->state;
    struct cache_record rec;
    struct gw_error err;
    struct gw_str name = file_name(&st->arena, r, path);
    int rc;

    if (name.p == NULL)
        return GW_NO_MEMORY;
    rc = cache_get(gw->cache, CACHE_FILE, name, &st->arena, &rec);
    if (rc == GW_OK && rec.status == GW_OK)
        return hub_entry_decode(e, rec.value, &err) == GW_OK ? GW_OK : GW_AGAIN;
    if (rc == GW_OK && rec.status == GW_NOT_FOUND)
        return GW_NOT_FOUND;
    if (rc == GW_NO_MEMORY)
        return rc;
    if (r->private)
        return GW_AGAIN;
    name = FACT_JOIN(&st->arena, r->type, r->ns, r->name, r->commit);
    if (name.p != NULL && cache_get(gw->cache, CACHE_COMMIT, name, &st->arena, &rec) == GW_OK &&
        rec.status == GW_OK && record_paths_absent(rec.value, path))
        return GW_NOT_FOUND; /* the whole tree of this commit came, and the path was not in it */
    return GW_AGAIN;
}

/* The tree of a commit is asked for in the background once one of its files is: it answers all
 * later HEADs. */
static void want_whole_tree(struct gateway *gw, struct gateway_request *req,
                            const struct resolved *r)
{
    struct gw_want w = {
        .peer = GW_PEER_UPSTREAM,
        .key =
            FACT_JOIN(&req->state->arena, GW_STR("wholetree"), r->type, r->ns, r->name, r->commit),
    };

    if (!r->private && w.key.p != NULL)
        wants_background(gw, &w);
}

int resolve_paths(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct resolved *r, const struct gw_str *paths, size_t n,
                  struct hub_entry *entries, bool *found)
{
    struct gateway_state *st = req->state;
    struct gw_str *missing = gw_arena_alloc(&st->arena, (n + 1) * sizeof(*missing));
    struct gw_want want;
    struct gw_error err = {.status = GW_NO_MEMORY};
    size_t n_missing = 0;
    int rc;

    if (missing == NULL)
        return failed(gw, req, ans, GW_NO_MEMORY, &err);
    for (size_t i = 0; i < n; i++) {
        rc = entry_held(gw, req, r, paths[i], &entries[i]);
        if (rc == GW_NO_MEMORY)
            return failed(gw, req, ans, rc, &err);
        found[i] = rc == GW_OK;
        if (rc == GW_AGAIN)
            missing[n_missing++] = paths[i];
    }
    if (n_missing == 0)
        return GW_OK;
    want = paths_want(&st->arena, r, missing, n_missing);
    want_whole_tree(gw, req, r);
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_OK)
        rc = gw_fail(&err, GW_UNAVAILABLE, 0, "the index did not keep the answer");
    return failed(gw, req, ans, rc, &err);
}

int resolve_file(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                 const struct resolved *r, struct gw_str path, struct hub_entry *e)
{
    bool found = false;
    int rc;

    if (path.n == 0)
        return refused(gw, req, ans, HUB_ENTRY_NOT_FOUND, GW_STR(""));
    rc = resolve_paths(gw, req, ans, r, &path, 1, e, &found);
    if (rc != GW_OK)
        return rc;
    if (!found || e->directory)
        return refused(gw, req, ans, HUB_ENTRY_NOT_FOUND, GW_STR(""));
    return GW_OK;
}
