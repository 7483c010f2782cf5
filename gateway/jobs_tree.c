/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs_tree.c - the tree of a public commit: one call upstream, cut into our pages while it
 * streams. Each entry becomes a record of its own too, so that later HEADs need no call.
 */
#include "gateway/jobs.h"
#include "gateway/record.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/encode.h"

#define WHOLE_TREE_CALLS_MAX 500u
#define WHOLE_TREE_BYTES_MAX (CACHE_RECORD_MAX - 64) /* of its paths' hashes: a million */

/* One call upstream, cut into our pages while it streams: memory is one page, whatever upstream
 * sends. */
struct tree_call {
    struct gateway_job *job;
    struct gw_str repo_name[4]; /* type, ns, name, commit */
    struct gw_str page_prefix;  /* of the record's name, up to the page */
    struct gw_str upstream_cursor;
    size_t page_entries, page_number, n;
    struct gw_buf json;           /* the page being collected */
    struct gw_buf files;          /* its encoded entries, one after the other */
    size_t file_at[HUB_PAGE + 1]; /* where each begins */
    struct gw_str paths[HUB_PAGE];
    struct gw_arena page_arena;
    struct record_paths *all; /* of the whole tree; NULL: not asked for */
    struct hub_list_reader *reader;
    struct cache_reply reply;
};

static int flush_files(struct tree_call *c)
{
    struct gateway_job *job = c->job;
    struct cache_put *puts = gw_arena_alloc(&c->page_arena, (c->n + 1) * sizeof(*puts));
    int64_t now = gw_wall_ms();

    if (puts == NULL)
        return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    for (size_t i = 0; i < c->n; i++) {
        puts[i].kind = CACHE_FILE;
        puts[i].name = FACT_JOIN(&c->page_arena, c->repo_name[0], c->repo_name[1], c->repo_name[2],
                                 c->repo_name[3], c->paths[i]);
        puts[i].record = (struct cache_record){
            .status = GW_OK,
            .checked_ms = now,
            .value = {c->files.p + c->file_at[i], c->file_at[i + 1] - c->file_at[i]},
        };
        if (puts[i].name.p == NULL)
            return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    }
    return c->n ? job_puts(job, puts, c->n) : GW_OK;
}

static int flush_page(struct tree_call *c, struct gw_str next)
{
    struct gw_arena *a = &c->page_arena;
    struct gw_str page =
        gw_arena_printf(a, "%zu." GW_STR_FMT, c->page_number, GW_STR_ARG(c->upstream_cursor));
    int rc;

    gw_buf_add_char(&c->json, ']');
    rc = gw_buf_ok(&c->json, &c->job->result.err);
    if (rc == GW_OK)
        rc = gw_buf_ok(&c->files, &c->job->result.err);
    if (rc == GW_OK)
        rc = flush_files(c);
    if (rc == GW_OK)
        rc = job_put(c->job, CACHE_TREE, page.p ? FACT_JOIN(a, c->page_prefix, page) : page, GW_OK,
                     0, tree_page_encode(a, next, gw_buf_str(&c->json)));
    c->page_number++;
    c->n = 0;
    gw_buf_reset(&c->json);
    gw_buf_add_char(&c->json, '[');
    gw_buf_reset(&c->files);
    gw_arena_release(a);
    return rc;
}

static int on_tree_entry(void *ctx, const struct hub_entry *e, struct gw_str json)
{
    struct tree_call *c = ctx;
    int rc;

    if (c->n == c->page_entries) {
        struct gw_str next = gw_arena_printf(&c->page_arena, "%zu." GW_STR_FMT, c->page_number + 1,
                                             GW_STR_ARG(c->upstream_cursor));
        rc = next.p ? flush_page(c, next) : GW_NO_MEMORY;
        if (rc != GW_OK)
            return rc;
    }
    gw_json_put_comma(&c->json);
    gw_buf_add(&c->json, json);
    c->paths[c->n] = gw_arena_dup(&c->page_arena, e->path);
    c->file_at[c->n] = c->files.n;
    hub_entry_encode(&c->files, e);
    c->file_at[++c->n] = c->files.n;
    if (c->all != NULL)
        record_paths_add(c->all, e->path);
    return c->paths[c->n - 1].p ? GW_OK : GW_NO_MEMORY;
}

static int feed_tree(void *ctx, struct gw_str bytes)
{
    struct tree_call *c = ctx;

    return hub_list_reader_feed(c->reader, bytes, &c->job->result.err);
}

/* key: tree, type, ns, name, commit, path, flags, limit, page. next: upstream's next cursor, "" at
 * the end. listed: there was a list; else "no such path" is what was put. all: paths are added; or
 * NULL */
static int fetch_tree(struct gateway_job *job, struct gw_str path, struct gw_str flags,
                      struct gw_str limit, struct gw_str upstream_cursor, struct gw_str *next,
                      bool *listed, struct record_paths *all)
{
    struct tree_call *c = gw_alloc(sizeof(*c));
    struct cache_call call_ = {.method = "GET"};
    struct gw_buf query;
    struct hub_target t;
    enum hub_reason why;
    uint64_t n = 0;
    int rc = GW_OK;

    *next = GW_STR("");
    *listed = false;
    if (c == NULL)
        return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    c->job = job;
    c->all = all;
    gw_arena_init(&c->page_arena, 64u << 20);
    gw_buf_init(&c->json, 64u << 20);
    gw_buf_init(&c->files, 16u << 20);
    gw_buf_init(&query, 4 * HUB_TARGET_MAX);
    if (!job_target(job, HUB_TREE, &t) || !gw_str_u64(limit, &n) || flags.n != 2) {
        rc = gw_fail(&job->result.err, GW_INVALID, 0, "tree: fields");
        goto done;
    }
    for (int i = 0; i < 4; i++)
        c->repo_name[i] = job->fields[i + 1];
    c->page_entries = n && n < HUB_PAGE ? n : HUB_PAGE;
    c->page_prefix = FACT_JOIN(&job->arena, job->fields[1], job->fields[2], job->fields[3],
                               job->fields[4], path, flags, limit);
    c->upstream_cursor = upstream_cursor;
    c->reader = hub_list_reader_new(on_tree_entry, c);
    t.path = path;
    gw_buf_addf(&query, "recursive=%s&expand=%s", flags.p[0] == 'r' ? "true" : "false",
                flags.p[1] == 'e' ? "true" : "false");
    if (n)
        gw_buf_addf(&query, "&limit=%zu", c->page_entries);
    if (upstream_cursor.n) {
        gw_buf_add_c(&query, "&cursor=");
        gw_percent_encode(&query, upstream_cursor, false);
    }
    t.query = gw_buf_str(&query);
    gw_buf_add_char(&c->json, '[');
    call_.target = job_upstream_target(job, &t, job->fields[4]);
    if (c->reader == NULL || c->page_prefix.p == NULL || query.failed) {
        rc = gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
        goto done;
    }
    rc = job_call(job, &call_, feed_tree, c, &c->reply);
    if (rc != GW_OK)
        goto done;
    if (c->reply.status / 100 != 2) {
        why = hub_classify_upstream(c->reply.status, c->reply.error_code, c->reply.error_message);
        if (job_is_outage(why))
            rc = job_outage(job, &c->reply, why);
        else
            rc = job_put(job, CACHE_TREE,
                         FACT_JOIN(&job->arena, c->page_prefix,
                                   gw_arena_printf(&job->arena, "0." GW_STR_FMT,
                                                   GW_STR_ARG(upstream_cursor))),
                         GW_NOT_FOUND, (int)why, GW_STR(""));
        goto done;
    }
    rc = hub_list_reader_finish(c->reader, &job->result.err);
    if (rc == GW_OK) {
        *listed = true;
        *next = hub_link_cursor(c->reply.link, &job->arena);
        rc = next->p == NULL ? job_bad_link(job)
                             : flush_page(c, next->n ? gw_arena_printf(&job->arena, "0." GW_STR_FMT,
                                                                       GW_STR_ARG(*next))
                                                     : GW_STR(""));
    }
done:
    hub_list_reader_free(c->reader);
    gw_buf_release(&c->json);
    gw_buf_release(&c->files);
    gw_buf_release(&query);
    gw_arena_release(&c->page_arena);
    gw_free(c);
    return rc;
}

static int put_whole(struct gateway_job *job, struct record_paths *all)
{
    struct gw_str *f = job->fields;
    enum gw_status status = GW_OK;
    struct gw_buf value;
    int rc;

    gw_buf_init(&value, WHOLE_TREE_BYTES_MAX + 1);
    record_paths_encode(&value, all);
    if (value.failed) { /* such a commit's files are asked for one by one */
        status = GW_TOO_LARGE;
        gw_buf_reset(&value);
    }
    rc = job_put(job, CACHE_COMMIT, FACT_JOIN(&job->arena, f[1], f[2], f[3], f[4]), status, 0,
                 status == GW_OK ? gw_buf_str(&value) : GW_STR(""));
    gw_buf_release(&value);
    return rc;
}

/* A cursor that somebody made up may name a page that the list does not have: then that is known.
 */
static int put_no_page(struct gateway_job *job)
{
    struct gw_str *f = job->fields;
    struct gw_str name = FACT_JOIN(&job->arena, f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]);
    struct cache_record rec;

    if (name.p == NULL)
        return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    if (cache_get(job->gw->cache, CACHE_TREE, name, &job->arena, &rec) == GW_OK)
        return GW_OK;
    return job_put(job, CACHE_TREE, name, GW_NOT_FOUND, HUB_BAD_REQUEST, GW_STR(""));
}

int job_tree(struct gateway_job *job)
{
    struct gw_str cursor, page, next;
    struct record_paths all;
    bool listed, whole;
    int rc;

    if (job->n_fields < 9)
        return gw_fail(&job->result.err, GW_INVALID, 0, "tree: fields");
    cursor = job->fields[8];
    if (!gw_str_split(&cursor, '.', &page) || cursor.p == NULL)
        return gw_fail(&job->result.err, GW_INVALID, 0, "tree: page");
    whole = job->fields[5].n == 0 && gw_str_starts(job->fields[6], GW_STR("r")) && cursor.n == 0;
    gw_buf_init(&all.hashes, WHOLE_TREE_BYTES_MAX);
    rc = fetch_tree(job, job->fields[5], job->fields[6], job->fields[7], cursor, &next, &listed,
                    whole ? &all : NULL);
    if (rc == GW_OK && listed && whole && next.n == 0)
        rc = put_whole(job, &all); /* all of the commit came in one call */
    gw_buf_release(&all.hashes);
    if (rc == GW_OK && !gw_str_eq_c(page, "0"))
        rc = put_no_page(job);
    return rc;
}

/* key: wholetree, type, ns, name, commit */
int job_whole_tree(struct gateway_job *job)
{
    struct gw_str *f = job->fields;
    struct gw_str cursor = GW_STR(""), next, name;
    struct record_paths all;
    struct cache_record rec;
    bool listed = true;
    int rc = GW_OK;

    if (job->n_fields < 5)
        return gw_fail(&job->result.err, GW_INVALID, 0, "wholetree: fields");
    name = FACT_JOIN(&job->arena, f[1], f[2], f[3], f[4]);
    if (name.p == NULL || cache_get(job->gw->cache, CACHE_COMMIT, name, &job->arena, &rec) == GW_OK)
        return GW_OK;
    gw_buf_init(&all.hashes, WHOLE_TREE_BYTES_MAX);
    next = GW_STR("?");
    for (size_t i = 0; i < WHOLE_TREE_CALLS_MAX && next.n != 0; i++) {
        job->deadline_ms = gw_mono_ms() + GATEWAY_UPSTREAM_MS;
        rc = fetch_tree(job, GW_STR(""), GW_STR("r-"), GW_STR("0"), cursor, &next, &listed, &all);
        if (rc != GW_OK || !listed || job->gw->leaving)
            goto done;
        cursor = next;
    }
    all.hashes.failed = all.hashes.failed || next.n != 0; /* too many pages */
    rc = put_whole(job, &all);
done:
    gw_buf_release(&all.hashes);
    return rc;
}
