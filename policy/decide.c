/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/decide.c - one decision.
 *
 * Rules are ranked denies first, so the deciding rule is simply the matching one of lowest rank:
 * any matching deny wins, then any allow, and no match denies. Everything lives on the stack.
 */
#include "policy/policy_internal.h"

/* ---- the subject as integers ---- */

static void who_reset(struct policy_who *w, const struct policy *p)
{
    w->kinds = 0;
    w->ref = POLICY_NONE;
    w->user = GW_STR("");
    memset(w->groups, 0, (p->groups.n + 63) / 64 * sizeof(w->groups[0]));
}

static void join(struct policy_who *w, const struct policy_ids *groups)
{
    size_t i;

    for (i = 0; i < groups->n; i++) {
        w->groups[groups->v[i] / 64] |= 1ull << (groups->v[i] % 64);
    }
}

static bool in_group(const struct policy_who *w, uint32_t id)
{
    return w->groups[id / 64] >> (id % 64) & 1;
}

/* Kind and name. A nameless user is a caller's mistake, not somebody anonymous: nobody at all. */
static bool who_is(struct policy_who *w, const struct policy *p, enum policy_kind kind,
                   struct gw_str name)
{
    uint32_t id;

    who_reset(w, p);
    if (kind == POLICY_ANONYMOUS) {
        w->kinds = POLICY_IS_EVERYONE | POLICY_IS_ANONYMOUS;
        return false;
    }
    if (name.n == 0 || (kind != POLICY_USER && kind != POLICY_SERVICE)) {
        return false;
    }
    w->kinds = POLICY_IS_EVERYONE | POLICY_IS_AUTHENTICATED;
    if (kind == POLICY_SERVICE) {
        w->kinds |= POLICY_IS_SERVICE;
        id = policy_name_find(&p->services, name);
        w->ref = id == POLICY_NONE ? POLICY_NONE : POLICY_REF_SERVICE | id;
        return true;
    }
    w->user = name;
    id = policy_name_find(&p->users, name);
    if (id != POLICY_NONE) {
        w->ref = POLICY_REF_USER | id;
        join(w, &p->of_user[id]);
    }
    return true;
}

void policy_who_fill(struct policy_who *w, const struct policy *p, const struct policy_subject *s)
{
    size_t i;

    /* Leaving some groups out could leave out the one a deny is for. */
    if (s->n_groups > POLICY_MAX_GROUPS) {
        who_reset(w, p);
        return;
    }
    if (!who_is(w, p, s->kind, s->name)) {
        return;
    }
    for (i = 0; i < s->n_groups; i++) {
        uint32_t id = policy_map_find(&p->sources, policy_source_hash(s->groups[i]), s->groups[i],
                                      policy_source_same);

        if (id != POLICY_NONE) {
            join(w, &p->of_source[id]);
        }
    }
}

void policy_who_named(struct policy_who *w, const struct policy *p, enum policy_kind kind,
                      struct gw_str name, struct policy_ids groups)
{
    if (who_is(w, p, kind, name)) {
        join(w, &groups);
    }
}

/* ---- the request ---- */

static bool stop_at_match(void *ctx, const struct policy_entry *entries, size_t n, bool matched)
{
    struct gw_str text = *(struct gw_str *)ctx;
    size_t i;

    for (i = 0; i < n; i++) {
        if (matched || policy_glob_match(entries[i].glob, text, GW_STR(""))) {
            return true;
        }
    }
    return false;
}

/* "a/b", folded; n == 0: longer than any repo's name. */
static struct gw_str fold_into(char *buf, size_t cap, struct gw_str ns, const struct gw_str *name)
{
    size_t i, n = 0;

    if (ns.n >= cap || (name && name->n >= cap - ns.n - 1)) {
        return GW_STR("");
    }
    for (i = 0; i < ns.n; i++) {
        buf[n++] = (char)policy_fold((unsigned char)ns.p[i]);
    }
    if (name) {
        buf[n++] = '/';
        for (i = 0; i < name->n; i++) {
            buf[n++] = (char)policy_fold((unsigned char)name->p[i]);
        }
    }
    return (struct gw_str){buf, n};
}

static bool is_private(const struct policy *p, struct gw_str folded_ns)
{
    return policy_index_walk(&p->namespaces, folded_ns, stop_at_match, &folded_ns);
}

bool policy_is_private(const struct policy *p, struct gw_str ns)
{
    char buf[POLICY_MAX_RESOURCE];

    /* Too long to be a name: it must not reach the upstream. */
    return ns.n >= sizeof(buf) || is_private(p, fold_into(buf, sizeof(buf), ns, NULL));
}

bool policy_request_fill(struct policy_request *q, const struct policy *p,
                         const struct policy_who *w, enum policy_action a,
                         const struct policy_object *o, int64_t now_ms)
{
    q->policy = p;
    q->who = w;
    q->object = o;
    q->action = a;
    q->every = false;
    q->now_ms = now_ms;
    q->type = policy_type_bit(o->type);
    q->repo = fold_into(q->text, sizeof(q->text), o->ns, &o->name);
    q->hub = is_private(p, gw_str_sub(q->repo, 0, q->repo.n ? o->ns.n : 0)) ? POLICY_HUB_PRIVATE
                                                                            : POLICY_HUB_PUBLIC;
    return q->repo.n > 0 && w->kinds != 0 && (unsigned)a < POLICY_ACTION_COUNT;
}

/* ---- conditions ---- */

static bool names(const struct policy_subjects *list, const struct policy_who *w)
{
    size_t i;

    if (list->kinds & w->kinds) {
        return true;
    }
    for (i = 0; i < list->n; i++) {
        uint32_t ref = list->refs[i];

        if ((ref & POLICY_REF_KIND) == POLICY_REF_GROUP ? in_group(w, ref) : ref == w->ref) {
            return true;
        }
    }
    return false;
}

static bool any_matches(const struct policy_globs *globs, struct gw_str text, struct gw_str user)
{
    size_t i;

    for (i = 0; i < globs->n; i++) {
        if (policy_glob_match(&globs->v[i], text, user)) {
            return true;
        }
    }
    return false;
}

/* A repo of which some revisions may be read may be discovered; whether one may be read is asked
 * with that revision. */
static bool revision_holds(const struct policy_rule *r, const struct policy_request *q)
{
    const struct policy_object *o = q->object;

    if (r->revisions.n == 0) {
        return true;
    }
    if (o->revision.n == 0 && o->commit.n == 0) {
        return q->every ? r->effect == POLICY_DENY
                        : r->effect == POLICY_ALLOW && q->action == POLICY_DISCOVER;
    }
    return (o->revision.n && any_matches(&r->revisions, o->revision, q->who->user)) ||
           (o->commit.n && any_matches(&r->revisions, o->commit, q->who->user));
}

/* The repo level knows no file: a deny of files waits for one, an allow of files opens the way to
 * them (auth-policy 5.3-6). */
static bool file_holds(const struct policy_rule *r, const struct policy_request *q)
{
    struct gw_str path = q->object->path;

    if (r->files.n == 0 && r->files_not.n == 0) {
        return true;
    }
    if (q->every) {
        return r->effect == POLICY_DENY;
    }
    if (path.n == 0) {
        return r->effect == POLICY_ALLOW &&
               (q->action == POLICY_DISCOVER || q->action == POLICY_READ);
    }
    return (r->files.n == 0 || any_matches(&r->files, path, q->who->user)) &&
           !any_matches(&r->files_not, path, q->who->user);
}

/* Somebody meant an expired allow to end; nobody meant a deny to open what it closed. */
static bool expired(const struct policy_rule *r, const struct policy_request *q)
{
    return r->effect == POLICY_ALLOW && q->now_ms >= r->expires_ms;
}

unsigned policy_rule_misses(const struct policy_rule *r, const struct policy_request *q)
{
    unsigned miss = 0;

    if (!(r->actions & POLICY_BIT(q->action))) {
        miss |= POLICY_MISS_ACTION;
    }
    if (!names(&r->to, q->who)) {
        miss |= POLICY_MISS_TO;
    }
    if (names(&r->unless, q->who)) {
        miss |= POLICY_MISS_UNLESS;
    }
    if (!(r->hubs & q->hub)) {
        miss |= POLICY_MISS_HUB;
    }
    if (!(r->types & q->type)) {
        miss |= POLICY_MISS_TYPE;
    }
    if (r->repo.n && !any_matches(&r->repo, q->repo, q->who->user)) {
        miss |= POLICY_MISS_REPO;
    }
    if (!revision_holds(r, q)) {
        miss |= POLICY_MISS_REVISION;
    }
    if (!file_holds(r, q)) {
        miss |= POLICY_MISS_FILE;
    }
    if (expired(r, q)) {
        miss |= POLICY_MISS_EXPIRED;
    }
    return miss;
}

/* ---- the decision ---- */

struct search {
    const struct policy_request *q;
    uint32_t best; /* rank; n_rules: none yet */
};

static bool find_best(void *ctx, const struct policy_entry *entries, size_t n, bool matched)
{
    struct search *s = ctx;
    const struct policy_request *q = s->q;
    unsigned action = POLICY_BIT(q->action);
    size_t i;

    for (i = 0; i < n && entries[i].rank < s->best; i++) {
        const struct policy_entry *e = &entries[i];
        const struct policy_rule *r;

        if (!(e->actions & action) || !(e->types & q->type) || !(e->hubs & q->hub)) {
            continue;
        }
        if (!matched && e->glob && !policy_glob_match(e->glob, q->repo, q->who->user)) {
            continue;
        }
        r = q->policy->rules[e->rank];
        if (!names(&r->to, q->who) || names(&r->unless, q->who) || !revision_holds(r, q) ||
            !file_holds(r, q) || expired(r, q)) {
            continue;
        }
        s->best = e->rank;
        return false;
    }
    return false;
}

static const struct policy_rule *best_in(const struct policy_index *index,
                                         const struct policy_request *q)
{
    struct search s = {.q = q, .best = (uint32_t)q->policy->n_rules};

    policy_index_walk(index, q->repo, find_best, &s);
    return s.best < q->policy->n_rules ? q->policy->rules[s.best] : NULL;
}

const struct policy_rule *policy_request_decide(const struct policy_request *q)
{
    return best_in(&q->policy->index, q);
}

/* Not only the deciding rule counts: an author who asks for it somewhere means it whatever another
 * rule is called. */
const struct policy_rule *policy_request_verify(const struct policy_request *q)
{
    return best_in(&q->policy->verify, q);
}

static struct policy_decision decide(const struct policy *p, const struct policy_subject *s,
                                     enum policy_action a, const struct policy_object *o,
                                     int64_t now_wall_ms, bool every)
{
    struct policy_decision d = {.effect = POLICY_DENY};
    struct policy_request q;
    struct policy_who w;

    policy_who_fill(&w, p, s);
    if (!policy_request_fill(&q, p, &w, a, o, now_wall_ms)) {
        return d;
    }
    q.every = every;
    d.rule = policy_request_decide(&q);
    if (d.rule && d.rule->effect == POLICY_ALLOW) {
        d.effect = POLICY_ALLOW;
    }
    return d;
}

struct policy_decision policy_decide(const struct policy *p, const struct policy_subject *s,
                                     enum policy_action a, const struct policy_object *o,
                                     int64_t now_wall_ms)
{
    return decide(p, s, a, o, now_wall_ms, false);
}

struct policy_decision policy_decide_every(const struct policy *p, const struct policy_subject *s,
                                           enum policy_action a, const struct policy_object *o,
                                           int64_t now_wall_ms)
{
    return decide(p, s, a, o, now_wall_ms, true);
}

const struct policy_rule *policy_verify_before(const struct policy *p,
                                               const struct policy_subject *s,
                                               const struct policy_object *o, int64_t now_wall_ms)
{
    struct policy_request q;
    struct policy_who w;

    policy_who_fill(&w, p, s);
    return policy_request_fill(&q, p, &w, POLICY_READ, o, now_wall_ms) ? policy_request_verify(&q)
                                                                       : NULL;
}
