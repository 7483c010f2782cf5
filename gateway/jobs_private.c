/* SPDX-License-Identifier: Apache-2.0 */
/* jobs_private.c - facts of private repositories: the same records as for public ones, read from
 * repo/. Job threads. */
#include "gateway/catalogue.h"
#include "gateway/jobs.h"
#include "gateway/record.h"

#include <stdio.h>

#include "base/alloc.h"

#define COMMITS_PAGE 50u

static int open_repo(struct gateway_job *job, size_t first_field, struct repo **r)
{
    struct repo_id id;

    if (job->n_fields < first_field + 3)
        return gw_fail(&job->result.err, GW_INVALID, 0, "private: fields");
    id = (struct repo_id){job->fields[first_field], job->fields[first_field + 1],
                          job->fields[first_field + 2]};
    return repo_open(r, job->gw->config->data, &id, &job->result.err);
}

static int commit_of(struct gateway_job *job, size_t field, char commit[41])
{
    if (job->n_fields <= field || !hub_is_commit(job->fields[field]))
        return gw_fail(&job->result.err, GW_INVALID, 0, "private: commit");
    memcpy(commit, job->fields[field].p, 40);
    commit[40] = '\0';
    return GW_OK;
}

static void to_hub(struct hub_entry *out, const struct repo_entry *e)
{
    memset(out, 0, sizeof(*out));
    out->directory = e->directory;
    out->lfs = e->lfs;
    out->path = e->path;
    memcpy(out->oid, e->oid, sizeof(out->oid));
    memcpy(out->sha256, e->sha256, sizeof(out->sha256));
    out->size = e->size;
    out->pointer_size = e->pointer_size;
}

/* By the name that the repository of fields 1 to 3 has now. */
static int open_moved(struct gateway_job *job, struct repo **r)
{
    struct repo_id id = {job->fields[1], job->fields[2], job->fields[3]}, to;
    int rc = repo_moved(job->gw->config->data, &id, &job->arena, &to, &job->result.err);

    return rc == GW_OK ? repo_open(r, job->gw->config->data, &to, &job->result.err) : rc;
}

/* key: pref, type, ns, name, revision */
int job_private_ref(struct gateway_job *job)
{
    struct gw_arena *a = &job->arena;
    struct gw_str *f = job->fields, value;
    struct record_ref ref;
    struct repo *r = NULL;
    struct gw_buf b;
    char commit[41];
    int rc;

    if (job->n_fields < 5)
        return gw_fail(&job->result.err, GW_INVALID, 0, "pref: fields");
    rc = open_repo(job, 1, &r);
    if (rc == GW_NOT_FOUND)
        rc = open_moved(job, &r);
    if (rc == GW_NOT_FOUND)
        return job_put(job, CACHE_REF, FACT_JOIN(a, f[1], f[2], f[3], f[4]), GW_NOT_FOUND,
                       HUB_REPO_NOT_FOUND, GW_STR(""));
    if (rc != GW_OK)
        return rc;
    rc = repo_resolve(r, f[4], commit, &job->result.err);
    if (rc == GW_NOT_FOUND) {
        rc = job_put(job, CACHE_REF, FACT_JOIN(a, f[1], f[2], f[3], f[4]), GW_NOT_FOUND,
                     HUB_REVISION_NOT_FOUND, GW_STR(""));
    } else if (rc == GW_OK) {
        ref = (struct record_ref){gw_str_c(commit), repo_canonical_ns(r), repo_canonical_name(r)};
        gw_buf_init(&b, 4096);
        record_ref_encode(&b, &ref);
        value = gw_arena_dup(a, gw_buf_str(&b));
        gw_buf_release(&b);
        rc = job_put(job, CACHE_REF, FACT_JOIN(a, f[1], f[2], f[3], f[4]), GW_OK, 0, value);
        if (rc == GW_OK)
            rc = job_put(job, CACHE_REF, FACT_JOIN(a, f[1], ref.ns, ref.name, ref.commit), GW_OK, 0,
                         value);
    }
    repo_close(r);
    return rc;
}

/* ---- info ---- */

struct info_writer {
    struct gw_buf *out;
    struct hub_info *info;
};

static int add_sibling(void *ctx, const struct repo_entry *e)
{
    struct info_writer *w = ctx;
    struct hub_entry h;

    if (e->directory)
        return GW_OK;
    to_hub(&h, e);
    hub_info_sibling(w->out, w->info, &h);
    return w->out->failed ? GW_TOO_LARGE : GW_OK;
}

static int add_size(void *ctx, const struct repo_entry *e)
{
    struct hub_info *info = ctx;

    if (e->directory)
        return GW_OK;
    info->used_bytes += e->size;
    hub_info_note_file(info, e->path);
    return GW_OK;
}

/* "expand=a&expand=b" of a normalised query -> "a,b" */
static struct gw_str expand_keys(struct gw_arena *a, struct gw_str query)
{
    struct gw_str rest = query, part, out = GW_STR("");

    while (query.n && gw_str_split(&rest, '&', &part)) {
        if (!gw_str_starts(part, GW_STR("expand=")))
            continue;
        part = gw_str_sub(part, 7, part.n);
        out = gw_arena_printf(a, GW_STR_FMT "%s" GW_STR_FMT, GW_STR_ARG(out), out.n ? "," : "",
                              GW_STR_ARG(part));
    }
    return out;
}

static bool has_part(struct gw_str query, const char *wanted)
{
    struct gw_str rest = query, part;

    while (query.n && gw_str_split(&rest, '&', &part))
        if (gw_str_eq_c(part, wanted))
            return true;
    return false;
}

static int write_info(struct gateway_job *job, struct repo *r, const char commit[41],
                      struct gw_buf *out)
{
    struct gw_arena *a = &job->arena;
    struct gw_error *err = &job->result.err;
    struct gw_str query = job->fields[5];
    struct hub_info info = {.sha = gw_str_c(commit)};
    struct info_writer w = {out, &info};
    struct repo_commit *log;
    size_t n, total;
    int rc = repo_log(r, commit, 0, 1, a, &log, &n, &total, err);

    if (rc != GW_OK)
        return rc;
    if (!hub_type_parse(job->fields[1], &info.type))
        return gw_fail(err, GW_INVALID, 0, "pinfo: type");
    info.author = repo_canonical_ns(r);
    info.id = gw_arena_printf(a, GW_STR_FMT "/" GW_STR_FMT, GW_STR_ARG(info.author),
                              GW_STR_ARG(repo_canonical_name(r)));
    info.created_ms = repo_created_ms(r);
    info.modified_ms = n ? log[0].date_ms : info.created_ms;
    info.with_siblings = true;
    info.card_json = catalogue_card_json(r, commit, a);
    info.with_blobs = has_part(query, "blobs=true");
    rc = repo_tree(r, commit, GW_STR(""), true, add_size, &info, err);
    if (rc != GW_OK)
        return rc;
    hub_info_begin(out, &info);
    rc = repo_tree(r, commit, GW_STR(""), true, add_sibling, &w, err);
    hub_info_end(out, &info);
    return rc == GW_OK ? gw_buf_ok(out, err) : rc;
}

/* key: pinfo, type, ns, name, commit, query */
int job_private_info(struct gateway_job *job)
{
    struct gw_str *f = job->fields, keys;
    struct repo *r = NULL;
    struct gw_buf doc, selected;
    char commit[41];
    int rc = job->n_fields < 6 ? GW_INVALID : commit_of(job, 4, commit);

    if (rc != GW_OK)
        return gw_fail(&job->result.err, GW_INVALID, 0, "pinfo: fields");
    gw_buf_init(&doc, GATEWAY_DOCUMENT_MAX);
    gw_buf_init(&selected, GATEWAY_DOCUMENT_MAX);
    rc = open_repo(job, 1, &r);
    if (rc == GW_OK)
        rc = write_info(job, r, commit, &doc);
    keys = expand_keys(&job->arena, f[5]);
    if (rc == GW_OK && keys.n)
        rc = hub_info_select(&selected, gw_buf_str(&doc), keys, &job->result.err);
    if (rc == GW_OK)
        rc = job_put(job, CACHE_DOCUMENT,
                     FACT_JOIN(&job->arena, GW_STR("info"), f[1], f[2], f[3], f[4], f[5]), GW_OK, 0,
                     gw_buf_str(keys.n ? &selected : &doc));
    repo_close(r);
    gw_buf_release(&doc);
    gw_buf_release(&selected);
    return rc;
}

/* ---- tree ---- */

struct page_writer {
    struct gateway_job *job;
    struct gw_str prefix;
    struct gw_buf json;
    size_t page_entries, page, n;
};

static int flush_page(struct page_writer *w, bool more)
{
    struct gw_arena *a = &w->job->arena;
    struct gw_str page = gw_arena_printf(a, "%zu.", w->page),
                  next = more ? gw_arena_printf(a, "%zu.", w->page + 1) : GW_STR("");
    int rc;

    gw_buf_add_char(&w->json, ']');
    rc = gw_buf_ok(&w->json, &w->job->result.err);
    if (rc == GW_OK)
        rc = job_put(w->job, CACHE_TREE, FACT_JOIN(a, w->prefix, page), GW_OK, 0,
                     tree_page_encode(a, next, gw_buf_str(&w->json)));
    w->page++;
    w->n = 0;
    gw_buf_reset(&w->json);
    gw_buf_add_char(&w->json, '[');
    return rc;
}

static int add_to_page(void *ctx, const struct repo_entry *e)
{
    struct page_writer *w = ctx;
    struct hub_entry h;
    int rc = w->n == w->page_entries ? flush_page(w, true) : GW_OK;

    if (rc != GW_OK)
        return rc;
    to_hub(&h, e);
    gw_json_put_comma(&w->json);
    hub_put_entry(&w->json, &h, GW_STR(""));
    w->n++;
    return GW_OK;
}

/* key: ptree, type, ns, name, commit, path, flags, limit, page: all pages of this listing are
 * written at once */
int job_private_tree(struct gateway_job *job)
{
    struct gw_arena *a = &job->arena;
    struct gw_str *f = job->fields;
    struct page_writer w = {.job = job};
    struct repo *r = NULL;
    char commit[41];
    uint64_t limit;
    int rc;

    if (job->n_fields < 9 || f[6].n != 2 || !gw_str_u64(f[7], &limit) ||
        commit_of(job, 4, commit) != GW_OK)
        return gw_fail(&job->result.err, GW_INVALID, 0, "ptree: fields");
    w.page_entries = limit && limit < HUB_PAGE ? limit : HUB_PAGE;
    w.prefix = FACT_JOIN(a, f[1], f[2], f[3], f[4], f[5], f[6], f[7]);
    gw_buf_init(&w.json, 16u << 20);
    gw_buf_add_char(&w.json, '[');
    rc = open_repo(job, 1, &r);
    if (rc == GW_OK)
        rc = repo_tree(r, commit, f[5], f[6].p[0] == 'r', add_to_page, &w, &job->result.err);
    if (rc == GW_OK)
        rc = flush_page(&w, false);
    else if (rc == GW_NOT_FOUND)
        rc = job_put(job, CACHE_TREE, FACT_JOIN(a, w.prefix, GW_STR("0.")), GW_NOT_FOUND,
                     job->result.err.sys == 1 ? HUB_REVISION_NOT_FOUND : HUB_ENTRY_NOT_FOUND,
                     GW_STR(""));
    repo_close(r);
    gw_buf_release(&w.json);
    return rc;
}

/* key: ppaths, type, ns, name, commit, digest of arg; arg: paths, one a line */
int job_private_paths(struct gateway_job *job)
{
    struct gw_arena *a = &job->arena;
    struct gw_str *f = job->fields, rest = job->arg, path, name, value;
    struct repo_entry e;
    struct hub_entry h;
    struct repo *r = NULL;
    struct gw_buf b;
    char commit[41];
    int rc;

    if (job->n_fields < 6 || commit_of(job, 4, commit) != GW_OK)
        return gw_fail(&job->result.err, GW_INVALID, 0, "ppaths: fields");
    gw_buf_init(&b, 4 * HUB_PATH_MAX);
    rc = open_repo(job, 1, &r);
    while (rc == GW_OK && gw_str_split(&rest, '\n', &path)) {
        name = FACT_JOIN(a, f[1], f[2], f[3], f[4], path);
        rc = repo_entry(r, commit, path, &e, &job->result.err);
        if (rc == GW_NOT_FOUND) {
            rc = job_put(job, CACHE_FILE, name, GW_NOT_FOUND, HUB_ENTRY_NOT_FOUND, GW_STR(""));
            continue;
        }
        if (rc != GW_OK)
            break;
        to_hub(&h, &e);
        gw_buf_reset(&b);
        hub_entry_encode(&b, &h);
        value = gw_buf_str(&b);
        rc = b.failed ? gw_fail(&job->result.err, GW_TOO_LARGE, 0, "a path is too long")
                      : job_put(job, CACHE_FILE, name, GW_OK, 0, value);
    }
    repo_close(r);
    gw_buf_release(&b);
    return rc;
}

/* ---- refs, commits ---- */

static int put_document(struct gateway_job *job, struct gw_buf *json, struct gw_str next,
                        size_t total)
{
    int rc = gw_buf_ok(json, &job->result.err);

    if (rc == GW_OK)
        rc = job_put(job, CACHE_DOCUMENT, job->key, GW_OK, (int)total,
                     tree_page_encode(&job->arena, next, gw_buf_str(json)));
    gw_buf_release(json);
    return rc;
}

/* key: prefs, type, ns, name, with pull requests */
int job_private_refs(struct gateway_job *job)
{
    struct gw_arena *a = &job->arena;
    struct repo *r = NULL;
    struct repo_ref *refs;
    struct hub_ref *branches, *tags, *pulls;
    struct gw_buf json;
    size_t n, n_branches = 0, n_tags = 0, n_pulls = 0;
    int rc = open_repo(job, 1, &r);

    if (rc == GW_OK)
        rc = repo_refs(r, a, &refs, &n, &job->result.err);
    if (rc != GW_OK)
        goto done;
    branches = gw_arena_alloc(a, (n + 1) * sizeof(*branches));
    tags = gw_arena_alloc(a, (n + 1) * sizeof(*tags));
    pulls = gw_arena_alloc(a, (n + 1) * sizeof(*pulls));
    if (branches == NULL || tags == NULL || pulls == NULL) {
        rc = gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        struct hub_ref one = {refs[i].name, refs[i].ref, gw_str_c(refs[i].commit)};
        if (gw_str_starts(one.ref, GW_STR("refs/heads/")))
            branches[n_branches++] = one;
        else if (gw_str_starts(one.ref, GW_STR("refs/tags/")))
            tags[n_tags++] = one;
        else
            pulls[n_pulls++] = one;
    }
    gw_buf_init(&json, 16u << 20);
    hub_put_refs(&json, branches, n_branches, tags, n_tags,
                 job->n_fields > 4 && job->fields[4].n ? pulls : NULL, n_pulls);
    rc = put_document(job, &json, GW_STR(""), 0);
done:
    repo_close(r);
    return rc;
}

/* key: pcommits, type, ns, name, commit, limit, cursor (how many to skip) */
int job_private_commits(struct gateway_job *job)
{
    struct gw_arena *a = &job->arena;
    struct repo *r = NULL;
    struct repo_commit *log;
    struct gw_buf json;
    struct gw_str next = GW_STR("");
    char commit[41];
    uint64_t limit, skip = 0;
    size_t n, total;
    int rc;

    if (job->n_fields < 7 || commit_of(job, 4, commit) != GW_OK ||
        !gw_str_u64(job->fields[5], &limit) ||
        (job->fields[6].n && !gw_str_u64(job->fields[6], &skip)))
        return gw_fail(&job->result.err, GW_INVALID, 0, "pcommits: fields");
    if (limit == 0 || limit > 1000)
        limit = COMMITS_PAGE;
    rc = open_repo(job, 1, &r);
    if (rc == GW_OK)
        rc =
            repo_log(r, commit, (size_t)skip, (size_t)limit, a, &log, &n, &total, &job->result.err);
    if (rc != GW_OK)
        goto done;
    gw_buf_init(&json, 64u << 20);
    gw_buf_add_char(&json, '[');
    for (size_t i = 0; i < n; i++) {
        struct hub_commit c = {gw_str_c(log[i].id), log[i].title, log[i].message, log[i].author,
                               log[i].date_ms};
        gw_json_put_comma(&json);
        hub_put_commit(&json, &c);
    }
    gw_buf_add_char(&json, ']');
    if (skip + n < total)
        next = gw_arena_printf(a, "%zu", (size_t)skip + n);
    rc = put_document(job, &json, next, total);
done:
    repo_close(r);
    return rc;
}

/* key: pblob, digest, type, ns, name; arg: size. Into the cache: a link when data/ and cache/ are
 * one file system */
int job_private_blob(struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    struct gw_str digest, path, bytes;
    struct repo *r = NULL;
    uint64_t size;
    char oid[41];
    int rc;

    if (job->n_fields < 5 || !gw_str_u64(job->arg, &size))
        return gw_fail(err, GW_INVALID, 0, "pblob: fields");
    digest = job->fields[1];
    if (digest.n == 64) {
        path = repo_object_path(job->gw->config->data, digest, &job->arena);
        return path.p ? cache_blob_take(job->gw->cache, digest, size, path.p, err)
                      : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    if (digest.n != 40)
        return gw_fail(err, GW_INVALID, 0, "pblob: digest");
    memcpy(oid, digest.p, 40);
    oid[40] = '\0';
    rc = open_repo(job, 2, &r);
    if (rc == GW_OK)
        rc = repo_blob(r, oid, 64u << 20, &job->arena, &bytes, err);
    if (rc == GW_OK)
        rc = cache_blob_put(job->gw->cache, digest, bytes, err);
    repo_close(r);
    return rc;
}
