/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs_write.c - changes of private repositories. Each puts the records that follow into the index,
 * so that whoever wrote reads what he wrote; other nodes see it within 2 s. Job threads.
 */
#include "gateway/catalogue.h"
#include "gateway/jobs.h"
#include "gateway/record.h"
#include "gateway/rights.h"
#include "gateway/upload.h"

static int fields_of(struct gateway_job *job, size_t n, struct repo_id *id)
{
    if (job->n_fields < n)
        return gw_fail(&job->result.err, GW_INVALID, 0, GW_STR_FMT ": fields",
                       GW_STR_ARG(job->fields[0]));
    *id = (struct repo_id){job->fields[1], job->fields[2], job->fields[3]};
    return GW_OK;
}

static void forget_lists(struct gateway_job *job, const struct repo_id *id)
{
    static const char *const with_prs[] = {"", "1"};

    for (size_t i = 0; i < 2; i++) {
        struct gw_str name = FACT_JOIN(&job->arena, GW_STR("prefs"), id->type, id->ns, id->name,
                                       gw_str_c(with_prs[i]));

        if (name.p != NULL && cache_remove(job->gw->cache, CACHE_DOCUMENT, name, NULL) != GW_OK)
            return; /* it is 2 s old at most */
    }
}

static int put_tip(struct gateway_job *job, const struct repo_id *id, struct gw_str revision,
                   struct gw_str commit)
{
    struct gw_arena *a = &job->arena;
    struct record_ref ref = {commit, id->ns, id->name};
    struct gw_str value;
    struct gw_buf b;

    gw_buf_init(&b, 4096);
    record_ref_encode(&b, &ref);
    value = gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    return job_put(job, CACHE_REF, FACT_JOIN(a, id->type, id->ns, id->name, revision), GW_OK, 0,
                   value);
}

int write_new_tip(struct gateway_job *job, const struct repo_id *id, struct gw_str revision,
                  struct gw_str commit)
{
    struct gw_str text = gw_arena_dup(&job->arena, commit);

    if (text.p == NULL)
        return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    job->result.text = text;
    forget_lists(job, id);
    /* it is durable in data/ by now; an index that is full must not make a failure of it */
    if (put_tip(job, id, revision, text) != GW_OK)
        memset(&job->result.err, 0, sizeof(job->result.err));
    catalogue_repo_changed(job->gw, id);
    return GW_OK;
}

void write_forget(struct gateway_job *job, const struct repo_id *id)
{
    struct gw_str name = FACT_JOIN(&job->arena, id->type, id->ns, id->name, GW_STR("main"));

    forget_lists(job, id);
    if (name.p != NULL)
        (void)!cache_remove(job->gw->cache, CACHE_REF, name, NULL); /* it is 2 s old at most */
    catalogue_repo_changed(job->gw, id);
}

void write_ref_moved(struct gateway_job *job, const struct repo_id *id, struct gw_str revision,
                     struct gw_str commit)
{
    struct gw_str name = FACT_JOIN(&job->arena, id->type, id->ns, id->name, revision);

    if (commit.n != 0)
        (void)write_new_tip(job, id, revision, commit);
    else {
        forget_lists(job, id);
        if (name.p != NULL)
            (void)!cache_remove(job->gw->cache, CACHE_REF, name, NULL); /* asked anew */
    }
}

/* key: create, type, ns, name, request; arg: author */
int job_create(struct gateway_job *job)
{
    struct repo *r = NULL;
    struct repo_id id;
    char commit[41];
    int rc = fields_of(job, 5, &id), made;

    if (rc != GW_OK)
        return rc;
    made = repo_create(job->gw->config->data, &id, job->arg, gw_wall_ms(), &job->result.err);
    if (made != GW_OK && made != GW_CONFLICT)
        return made;
    /* "there is no such repository" may have been noted a moment ago */
    rc = repo_open(&r, job->gw->config->data, &id, NULL);
    if (rc == GW_OK && repo_resolve(r, GW_STR(""), commit, NULL) == GW_OK)
        (void)write_new_tip(job, &id, GW_STR("main"), gw_str_c(commit));
    repo_close(r);
    return made;
}

/* key: delete, type, ns, name, request */
int job_delete(struct gateway_job *job)
{
    struct repo_id id;
    int rc = fields_of(job, 5, &id);

    if (rc == GW_OK)
        rc = repo_delete(job->gw->config->data, &id, gw_wall_ms(), &job->result.err);
    if (rc != GW_OK)
        return rc;
    forget_lists(job, &id);
    if (job_put(job, CACHE_REF, FACT_JOIN(&job->arena, id.type, id.ns, id.name, GW_STR("main")),
                GW_NOT_FOUND, HUB_REPO_NOT_FOUND, GW_STR("")) != GW_OK)
        memset(&job->result.err, 0, sizeof(job->result.err));
    catalogue_repo_changed(job->gw, &id);
    return GW_OK;
}

static int make_ref(struct gateway_job *job, const struct repo_id *id, bool tag,
                    struct gw_str revision)
{
    struct gw_str rest = job->arg, word, message, author;
    const char *data = job->gw->config->data;

    if (!gw_str_split(&rest, '\n', &word) || !gw_str_split(&rest, '\n', &message) || rest.p == NULL)
        return gw_fail(&job->result.err, GW_INVALID, 0, "ref: fields");
    author = rest;
    return tag ? repo_tag_create(data, id, word, revision, message, author, gw_wall_ms(),
                                 &job->result.err)
               : repo_branch_create(data, id, revision, word, &job->result.err);
}

/* key: ref, type, ns, name, request, "branch" or "tag", "make" or "drop", revision of the address;
 * arg: word of the body, message, author */
int job_ref(struct gateway_job *job)
{
    struct gw_str revision, name;
    struct repo_id id;
    bool tag;
    int rc = fields_of(job, 8, &id);

    if (rc != GW_OK)
        return rc;
    tag = gw_str_eq_c(job->fields[5], "tag");
    revision = job->fields[7];
    rc = gw_str_eq_c(job->fields[6], "make")
             ? make_ref(job, &id, tag, revision)
             : repo_ref_delete(job->gw->config->data, &id, tag, revision, &job->result.err);
    if (rc != GW_OK)
        return rc;
    forget_lists(job, &id);
    name = FACT_JOIN(&job->arena, id.type, id.ns, id.name, revision);
    if (name.p != NULL)
        (void)!cache_remove(job->gw->cache, CACHE_REF, name, NULL); /* asked anew */
    return GW_OK;
}

/* ---- before an upload ---- */

/* key: yaml, request; arg: the body. text: '+' or '-' (errors), and the answer */
int job_yaml(struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    struct gw_buf out;
    bool valid = false;
    int rc;

    gw_buf_init(&out, 64u << 10);
    rc = hub_card_check(&out, &valid, job->arg, &job->arena, err);
    if (rc == GW_OK) {
        job->result.text = gw_arena_printf(&job->arena, "%c" GW_STR_FMT, valid ? '+' : '-',
                                           GW_STR_ARG(gw_buf_str(&out)));
        rc = job->result.text.p ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    gw_buf_release(&out);
    return rc;
}

/* What the repository holds already is not ignored, as in git. @return bytes that will be added */
static uint64_t put_mode(struct gw_buf *out, struct repo *r, const char commit[41],
                         const struct repo_rules *rules, const struct repo_ignore *ignore,
                         const struct hub_preupload_file *f)
{
    struct repo_entry e;
    struct gw_str oid = GW_STR("");
    bool ignored;

    if (repo_entry(r, commit, f->path, &e, NULL) == GW_OK && !e.directory)
        oid = gw_str_c(e.lfs ? e.sha256 : e.oid);
    ignored = oid.n == 0 && repo_is_ignored(ignore, f->path);
    hub_put_preupload(out, f->path, repo_is_large(rules, f->path, f->size), ignored, oid);
    /* of the same size it is likely to be the same: clients look at oid */
    return ignored || (oid.n != 0 && e.size == f->size) ? 0 : f->size;
}

/* The first file that may not be written: the job's text is its path. */
static int check_paths(struct gateway_job *job, const struct repo_id *id,
                       const struct policy_subject *who, const struct hub_preupload *p)
{
    struct rights r = {
        .policy = job->gw->policy,
        .subject = *who,
        .object = {id->type, id->ns, id->name, job->fields[6], GW_STR(""), GW_STR("")},
        .now_ms = gw_wall_ms(),
        .refused = GW_STR(""),
        .a = &job->arena};
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < p->n; i++)
        rc = rights_path(&r, p->files[i].path, &job->result.err);
    if (rc == GW_FORBIDDEN)
        job->result.text = r.refused;
    return rc;
}

/* key: preupload, type, ns, name, request, revision, and as the policy is asked; arg: who asks, the
 * body */
int job_preupload(struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    const struct repo_rules *rules = NULL;
    const struct repo_ignore *ignore = NULL;
    struct gw_str body = job->arg;
    struct policy_subject who;
    struct hub_preupload p;
    struct repo *r = NULL;
    struct repo_id id;
    struct gw_buf out;
    uint64_t more = 0;
    char commit[41];
    int rc = fields_of(job, 7, &id);

    gw_buf_init(&out, 16u << 20);
    if (rc == GW_OK && !rights_subject_take(&who, &body, &job->arena))
        rc = gw_fail(err, GW_INVALID, 0, "preupload: who asks");
    if (rc == GW_OK)
        rc = hub_preupload_parse(&p, body, &job->arena, err);
    if (rc == GW_OK)
        rc = check_paths(job, &id, &who, &p);
    if (rc == GW_OK)
        rc = repo_open(&r, job->gw->config->data, &id, err);
    if (rc == GW_OK)
        rc = repo_resolve(r, job->fields[5], commit, err);
    if (rc == GW_OK)
        rc = repo_rules_at(&rules, r, commit, p.attributes, &job->arena, err);
    if (rc == GW_OK)
        rc = repo_ignore_at(&ignore, r, commit, p.ignore, &job->arena, err);
    if (rc == GW_OK) {
        gw_buf_add_c(&out, "{\"files\":[");
        for (size_t i = 0; i < p.n; i++)
            more += put_mode(&out, r, commit, rules, ignore, &p.files[i]);
        gw_buf_add_c(&out, "]}");
        rc = gw_buf_ok(&out, err);
    }
    if (rc == GW_OK)
        rc = quota_check(job->gw, &id, more, false, err);
    if (rc == GW_OK) {
        job->result.text = gw_arena_dup(&job->arena, gw_buf_str(&out));
        rc = job->result.text.p ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    repo_close(r);
    gw_buf_release(&out);
    return rc;
}

/* ---- batch ---- */

#define BATCH_ANSWER_MAX (96u << 20)
/* An address is needed until its request begins: an hour, and 4 s for each MiB of all that is asked
 * for with it (256 KiB/s), because clients send one object after the other */
#define SIGNED_S 3600
#define SIGNED_MAX_S 604800

static int no_memory(struct gateway_job *job)
{
    return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
}

/* An address for each part, and the one that ends them. */
static int put_parts(struct gateway_job *job, struct gw_str public_url, struct lfs_object_id *what,
                     struct hub_batch_answer *answer)
{
    struct gw_arena *a = &job->arena;
    struct gw_str *parts;
    uint64_t n;

    what->chunk = repo_parts_chunk(what->size, job->gw->config->multipart.part_bytes);
    n = repo_parts_count(what->size, what->chunk);
    parts = gw_arena_alloc(a, n * sizeof(*parts));
    if (parts == NULL)
        return no_memory(job);
    for (uint64_t i = 0; i < n; i++) {
        what->part = i + 1;
        parts[i] = lfs_address(job->gw, a, public_url, what, LFS_PART);
        if (parts[i].p == NULL)
            return no_memory(job);
    }
    what->part = 0;
    answer->parts = parts;
    answer->n_parts = n;
    answer->chunk_size = gw_arena_printf(a, "%llu", (unsigned long long)what->chunk);
    answer->href = lfs_address(job->gw, a, public_url, what, LFS_COMPLETE);
    return answer->chunk_size.p && answer->href.p ? GW_OK : no_memory(job);
}

static int put_upload(struct gateway_job *job, struct gw_str public_url, bool in_parts,
                      struct lfs_object_id *what, struct hub_batch_answer *answer)
{
    int rc = GW_OK;

    if (in_parts && what->size > 0)
        rc = put_parts(job, public_url, what, answer);
    else
        answer->href = lfs_address(job->gw, &job->arena, public_url, what, LFS_PUT);
    answer->verify_href = lfs_address(job->gw, &job->arena, public_url, what, LFS_VERIFY);
    answer->expires_in_s = 3600;
    return rc != GW_OK || (answer->href.p && answer->verify_href.p) ? rc : no_memory(job);
}

struct batch {
    struct repo_id id;
    struct hub_batch asked;
    struct gw_str public_url, subject;
    int64_t until_s;         /* unix: when its addresses are over */
    bool in_parts, read_all; /* else only what the subject sent himself is there for him */
    uint64_t more;           /* bytes that are to come */
};

static int put_object(struct gateway_job *job, struct gw_buf *out, struct batch *b,
                      const struct hub_batch_object *o)
{
    bool upload = b->asked.upload;
    struct hub_batch_answer answer = {.object = o,
                                      .action = upload ? GW_STR("upload") : GW_STR("download")};
    struct lfs_object_id what = {
        b->id.type, b->id.ns, b->id.name, gw_str_c(o->oid), b->subject, o->size, b->until_s, 0, 0};
    uint64_t held;
    /* both are looked for in any case: the answer takes the same steps */
    bool his =
        b->read_all || repo_object_noted(job->gw->config->data, &b->id, what.sha256, b->subject);
    int rc = repo_object_held(job->gw->config->data, &b->id, what.sha256, &held, &job->result.err);

    if (rc == GW_OK && !his)
        rc = gw_fail(&job->result.err, GW_NOT_FOUND, REPO_NO_OBJECT, "not for this subject");
    if (rc == GW_OK && held != o->size) {
        answer.error = 422;
        answer.message = GW_STR("an object of this sha256 has another size");
    } else if (!upload && rc == GW_NOT_FOUND && job->result.err.sys == REPO_NO_OBJECT) {
        answer.error = 404;
        answer.message = GW_STR("this repository holds no such object");
        rc = GW_OK;
    } else if (!upload && rc == GW_OK) {
        answer.href = lfs_address(job->gw, &job->arena, b->public_url, &what, LFS_GET);
        answer.expires_in_s = 3600;
        rc = answer.href.p ? GW_OK : no_memory(job);
    } else if (rc == GW_NOT_FOUND && job->result.err.sys == REPO_NO_OBJECT) {
        rc = quota_check(job->gw, &b->id, b->more + o->size, false, &job->result.err);
        if (rc == GW_TOO_LARGE) { /* git-lfs and huggingface_hub print it, and send nothing */
            answer.error = 507;
            answer.message = gw_arena_dup(&job->arena, gw_str_c(job->result.err.text));
            rc = answer.message.p ? GW_OK : no_memory(job);
        } else if (rc == GW_OK) {
            b->more += o->size;
            rc = put_upload(job, b->public_url, b->in_parts, &what, &answer);
        }
    }
    if (rc == GW_OK)
        hub_put_batch(out, &answer);
    return rc;
}

/* An object that is named twice is answered once: huggingface.js would send it twice at a time. */
static bool named_before(const struct hub_batch *x, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (memcmp(x->objects[j].oid, x->objects[i].oid, 64) == 0)
            return true;
    return false;
}

static int64_t until_when(const struct hub_batch *x)
{
    uint64_t mib = 0, s;

    for (size_t i = 0; i < x->n; i++)
        mib += x->objects[i].size >> 20; /* 1,000 of INT64_MAX bytes at most */
    s = SIGNED_S + 4 * mib;
    return gw_wall_ms() / 1000 + (int64_t)(s < SIGNED_MAX_S ? s : SIGNED_MAX_S);
}

static int put_objects(struct gateway_job *job, struct gw_buf *out, struct batch *b)
{
    int rc = GW_OK;

    b->until_s = until_when(&b->asked);

    /* git-lfs gives all objects of a batch to the agent of its one transfer */
    for (size_t i = 0; b->asked.upload && b->asked.multipart && i < b->asked.n; i++)
        b->in_parts =
            b->in_parts || b->asked.objects[i].size > job->gw->config->multipart.above_bytes;
    hub_batch_begin(out, b->in_parts);
    for (size_t i = 0; rc == GW_OK && i < b->asked.n; i++)
        if (!named_before(&b->asked, i))
            rc = put_object(job, out, b, &b->asked.objects[i]);
    hub_batch_end(out);
    return rc == GW_OK ? gw_buf_ok(out, &job->result.err) : rc;
}

/* key: batch, type, ns, name, request; arg: our address, subject, "all" or "own" (may be read), the
 * body */
int job_batch(struct gateway_job *job)
{
    struct gw_str body = job->arg, read;
    struct batch b = {.in_parts = false};
    struct gw_buf out;
    int rc = fields_of(job, 5, &b.id);

    if (rc == GW_OK &&
        (!gw_str_split(&body, '\n', &b.public_url) || !gw_str_split(&body, '\n', &b.subject) ||
         !gw_str_split(&body, '\n', &read) || body.p == NULL))
        rc = gw_fail(&job->result.err, GW_INVALID, 0, "batch: fields");
    if (rc == GW_OK)
        rc = hub_batch_parse(&b.asked, body, &job->arena, &job->result.err);
    b.read_all = rc == GW_OK && gw_str_eq_c(read, "all");
    gw_buf_init(&out, BATCH_ANSWER_MAX);
    if (rc == GW_OK)
        rc = put_objects(job, &out, &b);
    if (rc == GW_OK) {
        job->result.text = gw_arena_dup(&job->arena, gw_buf_str(&out));
        rc = job->result.text.p ? GW_OK : no_memory(job);
    }
    gw_buf_release(&out);
    return rc;
}
