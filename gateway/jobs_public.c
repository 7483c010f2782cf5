/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs_public.c - facts of the public hub: each job makes the call that one fact needs and puts the
 * records that follow from it. Blocking, straight-line, in a job thread.
 */
#include "gateway/jobs.h"
#include "gateway/record.h"

#include "base/encode.h"

#define PATHS_HEAD_MAX 16u
#define SHARE_DOCUMENT_MAX (256u << 10)

/* ---- info: the document, and what it says of name and commit ---- */

struct document_call {
    struct gw_buf json;
    struct hub_doc_reader *reader;
    struct gw_error *err;
    struct cache_reply reply;
};

static int feed_document(void *ctx, struct gw_str bytes)
{
    struct document_call *d = ctx;

    return hub_doc_reader_feed(d->reader, bytes, d->err);
}

/* GW_OK for any status; a 2xx has its whole, filtered JSON in d->json. */
static int fetch_document(struct gateway_job *job, struct gw_str target, struct document_call *d)
{
    struct cache_call c = {.method = "GET", .target = target};
    int rc;

    gw_buf_init(&d->json, GATEWAY_DOCUMENT_MAX);
    d->err = &job->result.err;
    d->reader = hub_doc_reader_new(&d->json);
    if (d->reader == NULL)
        return gw_fail(d->err, GW_NO_MEMORY, 0, "no memory");
    rc = job_call(job, &c, feed_document, d, &d->reply);
    if (rc == GW_OK && d->reply.status / 100 == 2)
        rc = hub_doc_reader_finish(d->reader, d->err);
    if (rc == GW_OK && d->reply.status / 100 == 2)
        rc = gw_buf_ok(&d->json, d->err);
    return rc;
}

static void release_document(struct document_call *d)
{
    hub_doc_reader_free(d->reader);
    gw_buf_release(&d->json);
}

/* The id that upstream gives must follow the grammar of names before it is used as one. */
static void canonical_name(struct gateway_job *job, struct gw_str id, struct gw_str *ns,
                           struct gw_str *name)
{
    struct hub_target t;
    struct gw_str raw = gw_arena_printf(&job->arena, "/api/models/" GW_STR_FMT, GW_STR_ARG(id));

    *ns = job->fields[2];
    *name = job->fields[3];
    if (id.n == 0 || raw.p == NULL ||
        hub_target_parse(&t, GW_STR("GET"), raw, &job->arena, NULL) != GW_OK ||
        t.route != HUB_INFO || t.revision.n)
        return;
    *ns = t.ns;
    *name = t.name;
}

static int put_refs(struct gateway_job *job, struct gw_str sha, struct gw_str id)
{
    struct gw_arena *a = &job->arena;
    struct gw_str *f = job->fields;
    struct record_ref ref = {.commit = sha};
    struct cache_put puts[4];
    struct gw_buf value;
    size_t n = 0;
    int rc;

    canonical_name(job, id, &ref.ns, &ref.name);
    gw_buf_init(&value, 4096);
    record_ref_encode(&value, &ref);
    rc = gw_buf_ok(&value, &job->result.err);
    /* under the name as asked and under the canonical one, at this revision and at the commit,
     * which never changes */
    puts[n++].name = FACT_JOIN(a, f[1], f[2], f[3], f[4]);
    puts[n++].name = FACT_JOIN(a, f[1], f[2], f[3], sha);
    puts[n++].name = FACT_JOIN(a, f[1], ref.ns, ref.name, f[4]);
    puts[n++].name = FACT_JOIN(a, f[1], ref.ns, ref.name, sha);
    for (size_t i = 0; i < n && rc == GW_OK; i++) {
        puts[i].kind = CACHE_REF;
        puts[i].record = (struct cache_record){
            .status = GW_OK, .checked_ms = gw_wall_ms(), .value = gw_buf_str(&value)};
        if (puts[i].name.p == NULL)
            rc = gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    }
    if (rc == GW_OK)
        rc = job_puts(job, puts, n);
    gw_buf_release(&value);
    return rc;
}

static int put_no_repo(struct gateway_job *job, const struct cache_reply *reply,
                       enum hub_reason why)
{
    struct gw_str *f = job->fields;
    struct gw_str text = why == HUB_GATED_UPSTREAM ? reply->error_message : GW_STR("");
    int rc;

    if (why == HUB_ENTRY_NOT_FOUND) /* a bare 404 of a repo's info is a missing repo */
        why = HUB_REPO_NOT_FOUND;
    rc = job_put(job, CACHE_REF, FACT_JOIN(&job->arena, f[1], f[2], f[3], f[4]), GW_NOT_FOUND,
                 (int)why, text.p ? text : GW_STR(""));
    if (rc == GW_OK)
        rc = job_put(job, CACHE_DOCUMENT, job->key, GW_NOT_FOUND, (int)why,
                     text.p ? text : GW_STR(""));
    return rc;
}

/* key: info, type, ns, name, revision, query */
int job_info(struct gateway_job *job)
{
    struct document_call d = {0}, whole = {0};
    struct hub_target t;
    struct gw_str sha, id;
    enum hub_reason why;
    int rc;

    if (job->n_fields < 6 || !job_target(job, HUB_INFO, &t))
        return gw_fail(&job->result.err, GW_INVALID, 0, "info: fields");
    t.query = job->fields[5];
    rc = fetch_document(job, job_upstream_target(job, &t, job->fields[4]), &d);
    if (rc != GW_OK)
        goto done;
    if (d.reply.status == 404 && d.reply.error_code.n == 0 &&
        gw_str_eq_c(job->fields[4], "main")) { /* a hub without /revision/: what has none is main */
        release_document(&d);
        d = (struct document_call){0};
        rc = fetch_document(job, job_upstream_target(job, &t, GW_STR("")), &d);
        if (rc != GW_OK)
            goto done;
    }
    if (d.reply.status / 100 != 2) {
        why = hub_classify_upstream(d.reply.status, d.reply.error_code, d.reply.error_message);
        rc = job_is_outage(why) ? job_outage(job, &d.reply, why) : put_no_repo(job, &d.reply, why);
        goto done;
    }
    sha = hub_doc_reader_sha(d.reader);
    id = hub_doc_reader_id(d.reader);
    if (sha.n == 0 && t.query.n) { /* "expand" without sha: the commit is asked for apart */
        t.query = GW_STR("");
        rc = fetch_document(job, job_upstream_target(job, &t, job->fields[4]), &whole);
        if (rc != GW_OK)
            goto done;
        sha = hub_doc_reader_sha(whole.reader);
    }
    if (sha.n == 0) {
        rc = gw_fail(&job->result.err, GW_INVALID, 0, "upstream's answer has no commit (\"sha\")");
        goto done;
    }
    rc = job_put(job, CACHE_DOCUMENT, job->key, GW_OK, 0, gw_buf_str(&d.json));
    if (rc == GW_OK && d.json.n <= SHARE_DOCUMENT_MAX && !gw_str_eq(sha, job->fields[4]))
        rc = job_put(job, CACHE_DOCUMENT,
                     FACT_JOIN(&job->arena, GW_STR("info"), job->fields[1], job->fields[2],
                               job->fields[3], sha, job->fields[5]),
                     GW_OK, 0, gw_buf_str(&d.json));
    if (rc == GW_OK)
        rc = put_refs(job, sha, id);
done:
    release_document(&d);
    release_document(&whole);
    return rc;
}

/* key: document, target. Kept as a page: refs, commits, discussions */
int job_document(struct gateway_job *job)
{
    struct document_call d = {0};
    enum hub_reason why;
    int rc;

    if (job->n_fields < 2)
        return gw_fail(&job->result.err, GW_INVALID, 0, "document: fields");
    rc = fetch_document(job, job->fields[1], &d);
    if (rc == GW_OK && d.reply.status / 100 != 2) {
        why = hub_classify_upstream(d.reply.status, d.reply.error_code, d.reply.error_message);
        rc = job_is_outage(why)
                 ? job_outage(job, &d.reply, why)
                 : job_put(job, CACHE_DOCUMENT, job->fields[1], GW_NOT_FOUND, (int)why, GW_STR(""));
    } else if (rc == GW_OK) {
        struct gw_str next = hub_link_cursor(d.reply.link, &job->arena);
        rc = next.p == NULL ? job_bad_link(job)
                            : job_put(job, CACHE_DOCUMENT, job->fields[1], GW_OK, 0,
                                      tree_page_encode(&job->arena, next, gw_buf_str(&d.json)));
    }
    release_document(&d);
    return rc;
}

/* ---- paths ---- */

struct paths_call {
    struct gateway_job *job;
    struct gw_str *paths;
    bool *found;
    struct cache_put *puts;
    size_t n;
    struct hub_list_reader *reader;
};

static int keep_entry(struct paths_call *c, size_t i, const struct hub_entry *e)
{
    struct gw_buf b;

    gw_buf_init(&b, 2 * HUB_PATH_MAX);
    hub_entry_encode(&b, e);
    c->found[i] = true;
    c->puts[i].record.status = GW_OK;
    c->puts[i].record.value =
        b.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(&c->job->arena, gw_buf_str(&b));
    gw_buf_release(&b);
    return c->puts[i].record.value.p ? GW_OK : GW_NO_MEMORY;
}

static int on_path_entry(void *ctx, const struct hub_entry *e, struct gw_str json)
{
    struct paths_call *c = ctx;

    (void)json;
    for (size_t i = 0; i < c->n; i++)
        if (!c->found[i] && gw_str_eq(c->paths[i], e->path))
            return keep_entry(c, i, e);
    return GW_OK; /* not asked for */
}

static int feed_paths(void *ctx, struct gw_str bytes)
{
    struct paths_call *c = ctx;

    return hub_list_reader_feed(c->reader, bytes, &c->job->result.err);
}

/* Hubs that have no paths-info (mirrors, proxies): what every client asks, HEAD resolve, says
 * digest and size too. */
static int ask_by_head(struct paths_call *c, size_t i)
{
    struct gateway_job *job = c->job;
    struct cache_call call_ = {.method = "HEAD"};
    struct cache_reply reply;
    struct hub_target t;
    struct hub_entry e = {.path = c->paths[i]};
    struct gw_str digest;
    struct gw_git_sha1 sha1;
    enum hub_reason why;
    char pointer[200];
    uint8_t id[20];
    size_t n;
    int rc;

    if (!job_target(job, HUB_RESOLVE, &t))
        return GW_INVALID;
    t.path = c->paths[i];
    call_.target = job_upstream_target(job, &t, job->fields[4]);
    rc = job_call(job, &call_, NULL, NULL, &reply);
    if (rc != GW_OK)
        return rc;
    if (reply.status >= 400) {
        why = hub_classify_upstream(reply.status, reply.error_code, reply.error_message);
        return why == HUB_ENTRY_NOT_FOUND ? GW_OK : job_outage(job, &reply, why);
    }
    digest = hub_etag_digest(reply.linked_etag.n ? reply.linked_etag : reply.etag);
    if (!gw_str_u64(reply.linked_size, &e.size) || e.size > INT64_MAX) {
        if (reply.content_length < 0 || reply.status != 200)
            return gw_fail(&job->result.err, GW_INVALID, 0, "upstream names no size for a file");
        e.size = (uint64_t)reply.content_length;
    }
    e.lfs = digest.n == 64;
    if (digest.n == 40) {
        gw_hex_lower(e.oid, digest, 40);
    } else if (e.lfs) {
        gw_hex_lower(e.sha256, digest, 64);
        n = repo_pointer_format(pointer, gw_str_c(e.sha256), e.size);
        gw_git_sha1_init(&sha1, n);
        gw_git_sha1_update(&sha1, pointer, n);
        gw_git_sha1_final(&sha1, id);
        gw_hex_encode(e.oid, id, sizeof(id));
        e.pointer_size = (uint32_t)n;
    } else {
        return gw_fail(&job->result.err, GW_INVALID, 0,
                       "upstream names no digest for a file (ETag)");
    }
    return keep_entry(c, i, &e);
}

static int ask_by_heads(struct paths_call *c)
{
    int rc = GW_OK;

    for (size_t i = 0; i < c->n && rc == GW_OK; i++)
        if (!c->found[i])
            rc = ask_by_head(c, i);
    return rc;
}

/* 501 is what a server says that knows no POST at all. */
static bool has_no_paths_info(const struct cache_reply *reply)
{
    return reply->status == 501 || (reply->status / 100 == 4 && reply->status != 429 &&
                                    reply->status != 408 && reply->error_code.n == 0);
}

static int ask_paths(struct paths_call *c)
{
    struct gateway_job *job = c->job;
    struct cache_call call_ = {.method = "POST",
                               .content_type = GW_STR("application/x-www-form-urlencoded")};
    struct cache_reply reply;
    struct hub_target t;
    struct gw_buf body;
    int rc;

    if (!job_target(job, HUB_PATHS_INFO, &t))
        return gw_fail(&job->result.err, GW_INVALID, 0, "paths: fields");
    gw_buf_init(&body, 16u << 20);
    for (size_t i = 0; i < c->n; i++) {
        gw_buf_add_c(&body, i ? "&paths=" : "paths=");
        gw_percent_encode(&body, c->paths[i], false);
    }
    gw_buf_add_c(&body, "&expand=false");
    call_.target = job_upstream_target(job, &t, job->fields[4]);
    call_.body = gw_buf_str(&body);
    c->reader = hub_list_reader_new(on_path_entry, c);
    rc = c->reader == NULL ? gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory")
                           : gw_buf_ok(&body, &job->result.err);
    if (rc == GW_OK)
        rc = job_call(job, &call_, feed_paths, c, &reply);
    if (rc == GW_OK && reply.status / 100 == 2)
        rc = hub_list_reader_finish(c->reader, &job->result.err);
    if (c->n <= PATHS_HEAD_MAX && (rc == GW_INVALID || (rc == GW_OK && has_no_paths_info(&reply))))
        rc = ask_by_heads(c);
    else if (rc == GW_OK && reply.status / 100 != 2)
        rc = job_outage(job, &reply,
                        hub_classify_upstream(reply.status, reply.error_code, reply.error_message));
    hub_list_reader_free(c->reader);
    gw_buf_release(&body);
    return rc;
}

/* key: paths, type, ns, name, commit, digest of arg; arg: paths, one a line */
int job_paths(struct gateway_job *job)
{
    struct gw_arena *a = &job->arena;
    struct paths_call c = {.job = job};
    struct gw_str rest = job->arg, path, *f = job->fields;
    size_t lines = 1;
    int rc;

    for (size_t i = 0; i < job->arg.n; i++)
        lines += job->arg.p[i] == '\n';
    c.paths = gw_arena_alloc(a, lines * sizeof(*c.paths));
    c.found = gw_arena_alloc(a, lines);
    c.puts = gw_arena_alloc(a, lines * sizeof(*c.puts));
    if (c.paths == NULL || c.found == NULL || c.puts == NULL || job->n_fields < 6 || lines > 1000)
        return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    while (gw_str_split(&rest, '\n', &path)) {
        c.puts[c.n] = (struct cache_put){
            .kind = CACHE_FILE,
            .name = FACT_JOIN(a, f[1], f[2], f[3], f[4], path),
            .record = {.status = GW_NOT_FOUND, .value = GW_STR("")},
        };
        if (c.puts[c.n].name.p == NULL)
            return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
        c.paths[c.n++] = path;
    }
    rc = ask_paths(&c);
    for (size_t i = 0; i < c.n; i++)
        c.puts[i].record.checked_ms = gw_wall_ms();
    return rc == GW_OK ? job_puts(job, c.puts, c.n) : rc;
}

/* ---- bytes ---- */

static int size_and_target(struct gateway_job *job, uint64_t *size, struct gw_str *target)
{
    struct gw_str text;

    *target = job->arg;
    if (job->n_fields < 2 || !gw_str_split(target, '\n', &text) || !gw_str_u64(text, size) ||
        target->n == 0)
        return gw_fail(&job->result.err, GW_INVALID, 0, "blob: fields");
    return GW_OK;
}

/* key: blob, digest, type, ns, name; arg: size, target */
int job_blob(struct gateway_job *job)
{
    struct gw_str target;
    uint64_t size;
    int rc = size_and_target(job, &size, &target);

    if (rc == GW_OK)
        rc = cache_blob_fetch(job->gw->cache, job->fields[1], size, target, job_call_deadline(job),
                              &job->result.err);
    if (rc == GW_NOT_FOUND) /* listed, but not there: upstream contradicts itself */
        rc = job->result.err.status = GW_INVALID;
    return rc;
}

/* key: part, digest, type, ns, name; arg: size, target; ppart: an object of data/ */
int job_part(struct gateway_job *job)
{
    struct cache_source src = {0};
    uint64_t size;
    int rc = size_and_target(job, &size, &src.target);

    src.file = gw_str_eq_c(job->fields[0], "ppart");
    return rc == GW_OK
               ? cache_part_create(job->gw->cache, job->fields[1], size, &src, &job->result.err)
               : rc;
}
