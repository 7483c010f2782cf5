/* SPDX-License-Identifier: Apache-2.0 */
/* rights.c - see rights.h */
#include "gateway/rights.h"

#include "base/alloc.h"
#include "base/encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define READABLE_MAX 1000000u /* more files of one tip are not looked through */

/* ---- the subject as text: "kind name n group group ...", each string as LENGTH:BYTES ---- */

static void put(struct gw_buf *out, struct gw_str s)
{
    gw_buf_addf(out, "%zu:", s.n);
    gw_buf_add(out, s);
}

struct gw_str rights_subject_text(struct gw_arena *a, const struct policy_subject *s)
{
    struct gw_str text;
    struct gw_buf b;

    gw_buf_init(&b, 4u << 20);
    gw_buf_addf(&b, "%d:%zu:", (int)s->kind, s->n_groups);
    put(&b, s->name);
    for (size_t i = 0; i < s->n_groups; i++)
        put(&b, s->groups[i]);
    text = b.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    return text;
}

static bool take_number(uint64_t *out, struct gw_str *text)
{
    struct gw_str word;

    return gw_str_split(text, ':', &word) && text->p != NULL && gw_str_u64(word, out);
}

static bool take(struct gw_str *out, struct gw_str *text)
{
    uint64_t n;

    if (!take_number(&n, text) || n > text->n)
        return false;
    *out = gw_str_sub(*text, 0, n);
    *text = gw_str_sub(*text, n, text->n);
    return true;
}

bool rights_subject_take(struct policy_subject *out, struct gw_str *text, struct gw_arena *a)
{
    struct gw_str *groups;
    uint64_t kind, n;

    if (!take_number(&kind, text) || !take_number(&n, text) || kind > POLICY_SERVICE ||
        n > POLICY_MAX_GROUPS || !take(&out->name, text))
        return false;
    groups = gw_arena_alloc(a, (n + 1) * sizeof(*groups));
    for (uint64_t i = 0; groups != NULL && i < n; i++)
        if (!take(&groups[i], text))
            return false;
    out->kind = (enum policy_kind)kind;
    out->groups = groups;
    out->n_groups = n;
    return groups != NULL;
}

/* ---- paths ---- */

struct policy_object rights_object(const struct hub_target *t)
{
    struct gw_str revision = t->revision;

    if (gw_str_starts(revision, GW_STR("refs/heads/"))) /* one branch has one name in rules */
        revision = gw_str_sub(revision, strlen("refs/heads/"), revision.n);
    return (struct policy_object){
        .type = gw_str_c(hub_type_name(t->type)),
        .ns = t->ns.n ? t->ns : GW_STR("_"),
        .name = t->name,
        /* a proposal writes to a ref of its own, not to its base */
        .revision = t->create_pr ? GW_STR("refs/pr/0") : revision,
        .commit = GW_STR(""),
        .path = GW_STR(""),
    };
}

bool rights_read_all(const struct gateway *gw, const struct gateway_state *st,
                     const struct hub_target *t)
{
    struct policy_object o = rights_object(t);

    o.revision = GW_STR("");
    return policy_decide_every(gw->policy, &st->who.subject, POLICY_READ, &o, st->started_ms)
               .effect == POLICY_ALLOW;
}

bool rights_copy(struct rights *out, const struct gateway *gw, const struct gateway_state *st,
                 const struct hub_target *t, struct gw_arena *a)
{
    struct policy_object o = rights_object(t);
    struct gw_str text = rights_subject_text(a, &st->who.subject);

    *out = (struct rights){.policy = gw->policy,
                           .object = o,
                           .now_ms = st->started_ms,
                           .a = a,
                           .read_all = rights_read_all(gw, st, t),
                           .data_dir = gw->config->data};
    out->object.ns = gw_arena_dup(a, o.ns);
    out->object.name = gw_arena_dup(a, o.name);
    out->object.revision = gw_arena_dup(a, o.revision);
    out->sender = gw_arena_dup(a, st->who.subject_id);
    out->revision = gw_arena_dup(a, t->revision);
    out->id = (struct repo_id){out->object.type, out->object.ns, out->object.name};
    return text.p != NULL && out->object.ns.p != NULL && out->object.name.p != NULL &&
           out->object.revision.p != NULL && out->sender.p != NULL && out->revision.p != NULL &&
           rights_subject_take(&out->subject, &text, a);
}

static void say(char *out, size_t cap, struct gw_str path, const struct policy_rule *rule)
{
    struct gw_str reason = policy_rule_reason(rule);
    int shown = path.n < 200 ? (int)path.n : 200;

    if (reason.n == 0)
        reason = GW_STR("a rule of this gateway does not let you write this file");
    snprintf(out, cap, "%.*s%s: " GW_STR_FMT, shown, path.p, path.n > 200 ? "..." : "",
             GW_STR_ARG(reason));
}

int rights_path(void *ctx, struct gw_str path, struct gw_error *err)
{
    struct rights *r = ctx;
    struct policy_object o = r->object;
    struct policy_decision d;
    char text[512];

    o.path = path;
    d = policy_decide(r->policy, &r->subject, POLICY_WRITE, &o, r->now_ms);
    if (d.effect == POLICY_ALLOW)
        return GW_OK;
    r->refused = gw_arena_dup(r->a, path);
    if (r->refused.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "not enough memory");
    say(text, sizeof(text), path, d.rule);
    return gw_fail(err, GW_FORBIDDEN, EACCES, "%s", text);
}

int rights_refuse(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct hub_target *t, struct gw_str path)
{
    struct gateway_state *st = req->state;
    struct policy_decision d;
    char text[512];

    st->object = rights_object(t);
    st->object.path = path;
    d = policy_decide(gw->policy, &st->who.subject, POLICY_WRITE, &st->object, st->started_ms);
    st->rule = d.rule;
    st->allowed = false;
    say(text, sizeof(text), path, d.rule);
    return answer_refuse(gw, req, ans, HUB_BLOCKED, gw_arena_dup(&st->arena, gw_str_c(text)), 0);
}

/* ---- objects ---- */

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, 32);
}

static int keep_readable(void *ctx, const struct repo_entry *e)
{
    struct rights *r = ctx;
    struct policy_object o = r->object;

    o.path = e->path;
    if (e->directory || !e->lfs ||
        policy_decide(r->policy, &r->subject, POLICY_READ, &o, r->now_ms).effect != POLICY_ALLOW)
        return GW_OK;
    if (r->n_readable == READABLE_MAX)
        return GW_TOO_LARGE;
    if (r->n_readable == r->cap_readable) {
        size_t cap = r->cap_readable ? 2 * r->cap_readable : 256;
        uint8_t(*more)[32] = gw_realloc(r->readable, cap * sizeof(*more));

        if (more == NULL)
            return GW_NO_MEMORY;
        r->readable = more;
        r->cap_readable = cap;
    }
    if (gw_hex_decode(r->readable[r->n_readable], 32, (struct gw_str){e->sha256, 64}))
        r->n_readable++;
    return GW_OK;
}

/* What cannot be listed is not there to be had. */
static void list_readable(struct rights *r)
{
    struct repo *repo = NULL;
    char commit[41];

    r->listed = true;
    if (repo_open(&repo, r->data_dir, &r->id, NULL) == GW_OK &&
        repo_resolve(repo, r->revision, commit, NULL) == GW_OK)
        (void)!repo_tree(repo, commit, GW_STR(""), true, keep_readable, r, NULL);
    repo_close(repo);
    if (r->n_readable != 0)
        qsort(r->readable, r->n_readable, sizeof(*r->readable), by_digest);
}

int rights_object_known(void *ctx, struct gw_str sha256, struct gw_error *err)
{
    struct rights *r = ctx;
    uint8_t digest[32];

    if (r->read_all || repo_object_noted(r->data_dir, &r->id, sha256, r->sender))
        return GW_OK;
    if (!r->listed)
        list_readable(r);
    if (r->n_readable != 0 && gw_hex_decode(digest, sizeof(digest), sha256) &&
        bsearch(digest, r->readable, r->n_readable, sizeof(*r->readable), by_digest) != NULL)
        return GW_OK;
    return gw_fail(err, GW_NOT_FOUND, REPO_NO_OBJECT,
                   "this repository holds no object %.12s: upload it first", sha256.p);
}

void rights_release(struct rights *r)
{
    gw_free(r->readable);
    r->readable = NULL;
}
