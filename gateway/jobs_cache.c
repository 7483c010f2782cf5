/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs_cache.c - upkeep of the cache, and from names to what is held: the index knows the files of
 * a commit by the pages of its tree.
 */
#include "gateway/internal.h"
#include "gateway/record.h"

#define PAGES_MAX 100000u /* of one tree */

int job_usage(struct gateway_job *job)
{
    return cache_usage_job(job->gw->cache, &job->result.err);
}

/* key: prove, digest */
int job_prove(struct gateway_job *job)
{
    return job->n_fields == 2 ? cache_blob_prove(job->gw->cache, job->fields[1], &job->result.err)
                              : gw_fail(&job->result.err, GW_INVALID, 0, "prove: fields");
}

int job_budget(struct gateway_job *job)
{
    struct gw_error err;

    if (pins_refresh(job->gw, &err) != GW_OK)
        gw_log_write(&job->gw->log, GW_LOG_WARN, "pins: %s", err.text);
    return cache_budget_job(job->gw->cache, &job->result.err);
}

/* ---- names ---- */

int held_resource(const struct gateway *gw, struct gw_str text, struct gw_arena *a,
                  struct policy_object *out, struct gw_error *err)
{
    struct gw_str head, rest = text;
    int rc;

    if (memchr(text.p, ':', text.n) == NULL || !gw_str_split(&rest, ':', &head) ||
        memchr(head.p, '/', head.n) != NULL)
        text = gw_arena_printf(a, "model:" GW_STR_FMT, GW_STR_ARG(text));
    if (text.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    rc = policy_resource_parse(text, out, err);
    if (rc != GW_OK)
        return rc;
    if (policy_is_private(gw->policy, out->ns))
        return gw_fail(err, GW_FORBIDDEN, 0,
                       GW_STR_FMT " is a private namespace: data/ holds it, the cache does not",
                       GW_STR_ARG(out->ns));
    if (gw_str_eq_c(out->ns, "_")) /* the rules' word for none */
        out->ns = GW_STR("");
    return GW_OK;
}

bool held_path(struct gw_str of, struct gw_str path)
{
    return of.n == 0 || gw_str_eq(of, path) ||
           (gw_str_starts(path, of) && path.n > of.n && path.p[of.n] == '/');
}

int held_commit(struct gateway *gw, const struct policy_object *o, struct gw_arena *a,
                struct held_commit *out)
{
    struct gw_str rev = o->revision.n ? o->revision : GW_STR("main");
    struct gw_str name = FACT_JOIN(a, o->type, o->ns, o->name, rev);
    struct cache_record rec;
    struct record_ref ref;

    if (name.p == NULL || cache_get(gw->cache, CACHE_REF, name, a, &rec) != GW_OK ||
        rec.status != GW_OK || !record_ref_decode(&ref, rec.value) ||
        policy_is_private(gw->policy, ref.ns))
        return GW_NOT_FOUND;
    *out = (struct held_commit){o->type, ref.ns, ref.name, ref.commit};
    return GW_OK;
}

/* ---- files of a commit ---- */

struct page_reader {
    int (*on)(void *ctx, const struct hub_entry *e);
    void *ctx;
};

static int on_entry(void *ctx, const struct hub_entry *e, struct gw_str json)
{
    struct page_reader *p = ctx;

    (void)json;
    return e->directory ? GW_OK : p->on(p->ctx, e);
}

/* One page of the tree as whoever asks for it keeps it. next: in the arena. */
static int read_page(struct gateway *gw, const struct held_commit *c, struct gw_str page,
                     bool fetch, struct page_reader *to, struct gw_arena *a, struct gw_str *next,
                     struct gw_error *err)
{
    struct gw_str name = FACT_JOIN(a, c->type, c->ns, c->name, c->commit, GW_STR(""), GW_STR("r-"),
                                   GW_STR("0"), page);
    struct gw_want want = {
        .peer = GW_PEER_UPSTREAM, .key = FACT_JOIN(a, GW_STR("tree"), name), .arg = GW_STR("")};
    struct hub_list_reader *reader;
    struct cache_record rec;
    struct gw_str json;
    int rc;

    if (name.p == NULL || want.key.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    rc = cache_get(gw->cache, CACHE_TREE, name, a, &rec);
    if (rc == GW_NOT_FOUND && fetch) {
        rc = wants_run(gw, &want, err);
        if (rc != GW_OK)
            return rc;
        rc = cache_get(gw->cache, CACHE_TREE, name, a, &rec);
    }
    if (rc != GW_OK || rec.status != GW_OK || !tree_page_decode(rec.value, next, &json))
        return gw_fail(err, GW_NOT_FOUND, 0, "the files of this commit are not known");
    reader = hub_list_reader_new(on_entry, to);
    if (reader == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    rc = hub_list_reader_feed(reader, json, err);
    if (rc == GW_OK)
        rc = hub_list_reader_finish(reader, err);
    hub_list_reader_free(reader);
    return rc;
}

int held_files(struct gateway *gw, const struct held_commit *c, bool fetch,
               int (*on)(void *ctx, const struct hub_entry *e), void *ctx, struct gw_error *err)
{
    struct page_reader to = {on, ctx};
    struct gw_buf page;
    struct gw_arena a;
    int rc = GW_OK;

    gw_buf_init(&page, CACHE_NAME_MAX);
    gw_buf_add_c(&page, "0.");
    for (size_t i = 0; rc == GW_OK && page.n > 0 && i < PAGES_MAX; i++) {
        struct gw_str next = GW_STR("");

        gw_arena_init(&a, 64u << 20);
        rc = read_page(gw, c, gw_buf_str(&page), fetch, &to, &a, &next, err);
        gw_buf_reset(&page);
        if (rc == GW_OK) {
            gw_buf_add(&page, next);
            rc = gw_buf_ok(&page, err);
        }
        gw_arena_release(&a);
    }
    gw_buf_release(&page);
    return rc;
}
