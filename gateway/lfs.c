/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lfs.c - large objects on their way in: git-lfs batch, and addresses that are credentials.
 *
 * Hub clients PUT without Authorization and without any header of the action (hub-write fact 2), so
 * the address says who may put what where, until when, under a MAC:
 *
 *   /-/lfs/<type>/<ns>/<name>/<sha256>/<size>/<unix s>/<hex of subject>/<hex of MAC>
 *   /-/lfs-part/... the same ... /<hex of subject>/<bytes of a part>/<part>/<hex of MAC>
 *
 * Rights are those of the subject when the bytes come, not when the address was made.
 */
#include "gateway/jobs.h"
#include "gateway/rights.h"
#include "gateway/upload.h"

#include <stdio.h>

#include "base/encode.h"
#include "base/json.h"

#define FIELDS_MAX 10u
#define COMPLETE_MS 600000 /* what may be left to hash of an object in parts */

/* An address is good for its own action only. */
static const struct {
    const char *path, *label;
    enum hub_route route;
    size_t fields;
} actions[] = {
    [LFS_PUT] = {"lfs", "lfs upload", HUB_OBJECT, 8},
    [LFS_VERIFY] = {"lfs-verify", "lfs verify", HUB_OBJECT_VERIFY, 8},
    [LFS_GET] = {"lfs-object", "lfs download", HUB_OBJECT_GET, 8},
    [LFS_PART] = {"lfs-part", "lfs part", HUB_OBJECT_PART, 10},
    [LFS_COMPLETE] = {"lfs-complete", "lfs complete", HUB_OBJECT_COMPLETE, 10},
};

struct signed_object {
    struct hub_target target; /* type, ns, name; action: write */
    struct gw_str sha256, subject;
    uint64_t size, chunk, part;
    struct gw_str upload; /* which one, of those in parts: 64 hex */
};

static void mac_of(const struct gateway *gw, struct gw_str text, enum lfs_action action,
                   char hex[65])
{
    uint8_t key[32], mac[32];

    gw_hmac_sha256((struct gw_str){gw->key, sizeof(gw->key)}, gw_str_c(actions[action].label), key);
    gw_hmac_sha256((struct gw_str){(const char *)key, sizeof(key)}, text, mac);
    gw_hex_encode(hex, mac, sizeof(mac));
    gw_wipe(key, sizeof(key));
}

struct gw_str lfs_address(const struct gateway *gw, struct gw_arena *a, struct gw_str public_url,
                          const struct lfs_object_id *o, enum lfs_action action)
{
    struct gw_str text;
    char mac[65], part[48] = "", *hex = gw_arena_alloc(a, 2 * o->subject.n + 1);

    if (hex == NULL)
        return (struct gw_str){NULL, 0};
    gw_hex_encode(hex, o->subject.p, o->subject.n);
    if (action == LFS_PART || action == LFS_COMPLETE)
        snprintf(part, sizeof(part), "/%llu/%llu", (unsigned long long)o->chunk,
                 (unsigned long long)o->part);
    text = gw_arena_printf(
        a, GW_STR_FMT "/" GW_STR_FMT "/" GW_STR_FMT "/" GW_STR_FMT "/%llu/%lld/%s%s",
        GW_STR_ARG(o->type), GW_STR_ARG(o->ns), GW_STR_ARG(o->name), GW_STR_ARG(o->sha256),
        (unsigned long long)o->size, (long long)o->until_s, hex, part);
    if (text.p == NULL)
        return text;
    mac_of(gw, text, action, mac);
    return gw_arena_printf(a, GW_STR_FMT "/-/%s/" GW_STR_FMT "/%s", GW_STR_ARG(public_url),
                           actions[action].path, GW_STR_ARG(text), mac);
}

static enum lfs_action action_of(enum hub_route route)
{
    size_t i = 0;

    while (i < LFS_COMPLETE && actions[i].route != route)
        i++;
    return (enum lfs_action)i;
}

/* All addresses of one upload have this in common: everything but the part and the MAC. */
static struct gw_str upload_of(struct gw_str text, struct gw_str part, struct gw_arena *a)
{
    uint8_t sum[32];
    char hex[65];

    gw_sha256_once(text.p, text.n - part.n, sum);
    gw_hex_encode(hex, sum, sizeof(sum));
    return gw_arena_dup(a, gw_str_c(hex));
}

/* GW_OK; GW_FORBIDDEN: not one of ours, or its time is over: *text says which */
static int read_address(const struct gateway *gw, struct gateway_request *req,
                        struct signed_object *out, struct gw_str *text)
{
    enum lfs_action action = action_of(req->state->target.route);
    struct gw_str rest = req->state->target.path, f[FIELDS_MAX], raw, mac_field;
    struct gw_arena *a = &req->state->arena;
    size_t n = 0, fields = actions[action].fields;
    char mac[65], *subject;
    uint64_t until;

    *text = GW_STR("This address is not one that this gateway made: ask for a new one.");
    while (n < fields && gw_str_split(&rest, '/', &f[n]))
        n++;
    if (n != fields || rest.p != NULL || f[fields - 1].n != 64 || !gw_is_hex_lower(f[3], 64))
        return GW_FORBIDDEN;
    mac_field = f[fields - 1];
    rest = gw_str_sub(req->state->target.path, 0, req->state->target.path.n - 65);
    mac_of(gw, rest, action, mac);
    if (!gw_equal_secret(mac, mac_field.p, 64))
        return GW_FORBIDDEN;
    subject = gw_arena_alloc(a, f[6].n / 2 + 1);
    raw = gw_arena_printf(a, "/api/" GW_STR_FMT "s/" GW_STR_FMT "/" GW_STR_FMT, GW_STR_ARG(f[0]),
                          GW_STR_ARG(f[1]), GW_STR_ARG(f[2]));
    if (subject == NULL || raw.p == NULL || !gw_str_u64(f[4], &out->size) ||
        !gw_str_u64(f[5], &until) || !gw_hex_decode(subject, f[6].n / 2, f[6]) ||
        hub_target_parse(&out->target, GW_STR("GET"), raw, a, NULL) != GW_OK)
        return GW_FORBIDDEN;
    if (fields > 8) {
        out->upload = upload_of(rest, f[8], a);
        if (out->upload.p == NULL || !gw_str_u64(f[7], &out->chunk) ||
            !gw_str_u64(f[8], &out->part))
            return GW_FORBIDDEN;
    }
    if ((int64_t)until * 1000 < req->state->started_ms) {
        *text = GW_STR("The time of this address is over: ask for a new one.");
        return GW_FORBIDDEN;
    }
    out->target.action =
        req->state->target.route == HUB_OBJECT_GET ? HUB_READ_ACTION : HUB_WRITE_ACTION;
    out->sha256 = f[3];
    out->subject = (struct gw_str){subject, f[6].n / 2};
    return GW_OK;
}

/* Address, person, rights: GW_OK, GW_AGAIN, or GW_FORBIDDEN and *ans. Never 401: git-lfs would send
 * the object again for ever (hub-write 4.2). */
static int admit_signed(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                        struct signed_object *o)
{
    struct gateway_state *st = req->state;
    enum hub_reason why;
    struct gw_str text;
    int rc = read_address(gw, req, o, &text);

    if (rc != GW_OK) {
        answer_refuse(gw, req, ans, HUB_SCOPE, text, 0);
        return rc;
    }
    st->digest = o->sha256; /* for the audit record */
    rc = identity_of_subject(gw, req, o->subject, &st->who, &why, &text);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK) {
        answer_refuse(gw, req, ans, why == HUB_OUTAGE ? why : HUB_SCOPE, text, 0);
        return GW_FORBIDDEN;
    }
    if (o->target.action == HUB_WRITE_ACTION)
        write_or_propose(gw, req, &o->target);
    return write_admit(gw, req, ans, &o->target);
}

/* ---- GET ---- */

int lfs_get(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct signed_object o;
    int rc = admit_signed(gw, req, ans, &o);

    if (rc == GW_OK)
        rc = git_admit_every(gw, req, ans, &o.target);
    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    return serve_object(gw, req, ans, &o.target, o.sha256, o.size);
}

/* ---- PUT ---- */

static int object_open(struct upload *u, struct gw_error *err)
{
    struct repo_upload *r = NULL;
    int rc = quota_check(u->gw, &u->id, u->size, true, err);

    if (rc == GW_OK)
        rc = repo_upload_open(&r, u->config->data, err);

    u->store = r;
    return rc;
}

static int object_write(struct upload *u, struct gw_str bytes, struct gw_error *err)
{
    return repo_upload_write(u->store, bytes, err);
}

static int object_finish(struct upload *u, struct gateway_job *job, struct gw_error *err)
{
    int rc = repo_upload_finish(u->store, &u->id, u->sha256, u->size, err);

    (void)job;
    return rc == GW_OK && u->sender.n != 0
               ? repo_object_note(u->config->data, &u->id, u->sha256, u->sender, err)
               : rc;
}

static void object_close(struct upload *u)
{
    repo_upload_close(u->store);
}

static int part_open(struct upload *u, struct gw_error *err)
{
    struct repo_parts o = {u->config->data, u->parts.upload, u->size, u->parts.chunk};
    struct repo_part *p = NULL;
    int rc = quota_check(u->gw, &u->id, u->size, u->parts.part == 1, err);

    if (rc == GW_OK)
        rc = repo_part_open(&p, &o, u->parts.part, err);

    u->store = p;
    return rc;
}

static int part_write(struct upload *u, struct gw_str bytes, struct gw_error *err)
{
    return repo_part_write(u->store, bytes, err);
}

static int part_finish(struct upload *u, struct gateway_job *job, struct gw_error *err)
{
    (void)job;
    return repo_part_finish(u->store, err);
}

static void part_close(struct upload *u)
{
    repo_part_close(u->store);
}

/* Whose object it will be; "" if he may read all of the repository anyway. */
static struct gw_str sender_of(const struct gateway *gw, const struct gateway_request *req,
                               const struct signed_object *o)
{
    return rights_read_all(gw, req->state, &o->target) ? GW_STR("") : req->state->who.subject_id;
}

static int begin_object(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                        const struct signed_object *o)
{
    static const struct upload_sink whole = {object_open, object_write, object_finish,
                                             object_close};
    static const struct upload_sink part = {part_open, part_write, part_finish, part_close};
    struct upload *u = upload_new(gw, req, o->part ? &part : &whole, o->part ? o->chunk : o->size);

    if (u == NULL)
        return GW_NO_MEMORY;
    u->id = (struct repo_id){gw_str_c(hub_type_name(o->target.type)),
                             gw_arena_dup(&u->arena, o->target.ns),
                             gw_arena_dup(&u->arena, o->target.name)};
    u->sha256 = gw_arena_dup(&u->arena, o->sha256);
    u->sender = gw_arena_dup(&u->arena, sender_of(gw, req, o));
    u->size = o->size;
    u->parts.upload = gw_arena_dup(&u->arena, o->upload);
    u->parts.chunk = o->chunk;
    u->parts.part = o->part;
    if (u->id.ns.p == NULL || u->id.name.p == NULL || u->sha256.p == NULL || u->sender.p == NULL ||
        u->parts.upload.p == NULL)
        return GW_NO_MEMORY;
    ans->kind = GATEWAY_TAKE;
    return GW_OK;
}

int lfs_object(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct signed_object o = {.size = 0};
    struct gw_str text;
    struct gw_error err;
    int rc = admit_signed(gw, req, ans, &o);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    if (req->state->upload == NULL)
        return upload_admit(gw, req, ans) == GW_OK ? begin_object(gw, req, ans, &o) : GW_OK;
    rc = upload_finish(gw, req, &text, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return write_failure(gw, req, ans, &err);
    ans->status = 200;
    if (o.part != 0) { /* clients send it back; the digest of the whole is what is believed */
        ans->etag = gw_arena_printf(&req->state->arena, "\"%llu\"", (unsigned long long)o.part);
        return ans->etag.p ? GW_OK : GW_NO_MEMORY;
    }
    return GW_OK;
}

/* ---- the end of an object in parts ---- */

/* key: complete, type, ns, name, sha256, size, chunk, upload, sender or "": who asks again while it
 * is under way waits for the same */
int job_complete(struct gateway_job *job)
{
    struct repo_parts o = {.data_dir = job->gw->config->data};
    struct repo_id id;
    int rc;

    if (job->n_fields < 9 || !gw_str_u64(job->fields[5], &o.size) ||
        !gw_str_u64(job->fields[6], &o.chunk))
        return gw_fail(&job->result.err, GW_INVALID, 0, "complete: fields");
    id = (struct repo_id){job->fields[1], job->fields[2], job->fields[3]};
    o.upload = job->fields[7];
    rc = repo_parts_complete(&o, &id, job->fields[4], job->deadline_ms, &job->result.err);
    return rc == GW_OK && job->fields[8].n != 0
               ? repo_object_note(o.data_dir, &id, job->fields[4], job->fields[8], &job->result.err)
               : rc;
}

static struct gw_want want_complete(struct gw_arena *a, const struct signed_object *o,
                                    struct gw_str sender)
{
    return (struct gw_want){
        .peer = GW_PEER_REPO,
        .key = FACT_JOIN(
            a, GW_STR("complete"), gw_str_c(hub_type_name(o->target.type)), o->target.ns,
            o->target.name, o->sha256, gw_arena_printf(a, "%llu", (unsigned long long)o->size),
            gw_arena_printf(a, "%llu", (unsigned long long)o->chunk), o->upload, sender),
        .arg = GW_STR(""),
    };
}

int lfs_complete(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct signed_object o = {.size = 0};
    struct gw_want want;
    struct gw_error err;
    int rc = admit_signed(gw, req, ans, &o);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    rc = hub_complete_check(req->body, o.sha256, repo_parts_count(o.size, o.chunk), &err);
    if (rc != GW_OK)
        return write_failure(gw, req, ans, &err);
    want = want_complete(&st->arena, &o, sender_of(gw, req, &o));
    if (want.key.p != NULL && wants_result(st, want.key) == NULL)
        st->deadline_ms = gw_mono_ms() + COMPLETE_MS;
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_NOT_FOUND && err.sys == REPO_NO_OBJECT)
        return answer_refuse(gw, req, ans, HUB_BAD_REQUEST,
                             gw_arena_dup(&st->arena, gw_str_c(err.text)), 0);
    return rc == GW_OK ? answer_json(req, ans, GW_STR("{}")) : write_failure(gw, req, ans, &err);
}

/* huggingface.js never asks; it confirms and registers nothing. */
int lfs_verify(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct signed_object o;
    int rc = admit_signed(gw, req, ans, &o);

    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    return answer_json(req, ans, GW_STR("{}"));
}

/* ---- batch ---- */

int lfs_batch(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_arena *a = &st->arena;
    struct gateway_result *r = NULL;
    struct hub_target t = st->target;
    struct hub_batch batch;
    struct gw_want want;
    struct gw_error err;
    int rc = hub_batch_parse(&batch, req->body, a, &err);

    if (rc != GW_OK)
        return answer_refuse(gw, req, ans, rc == GW_TOO_LARGE ? HUB_TOO_LARGE : HUB_BAD_REQUEST,
                             gw_arena_dup(a, gw_str_c(err.text)), 0);
    t.action = batch.upload ? HUB_WRITE_ACTION : HUB_READ_ACTION;
    if (batch.upload)
        write_or_propose(gw, req, &t);
    rc = write_admit(gw, req, ans, &t);
    if (rc == GW_OK && !batch.upload)
        rc = git_admit_every(gw, req, ans, &t);
    if (rc != GW_OK)
        return rc == GW_AGAIN ? rc : GW_OK;
    want = (struct gw_want){
        .peer = GW_PEER_REPO,
        .key =
            FACT_JOIN(a, GW_STR("batch"), gw_str_c(hub_type_name(t.type)), t.ns, t.name, req->id),
        .arg = FACT_JOIN(a, request_public_url(gw, req), st->who.subject_id,
                         rights_read_all(gw, st, &t) ? GW_STR("all") : GW_STR("own"), req->body),
    };
    if (want.arg.p == NULL)
        return GW_NO_MEMORY;
    rc = fact_need(gw, req, &want, &r, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return write_failure(gw, req, ans, &err);
    rc = answer_json(req, ans, r->text);
    ans->content_type = "application/vnd.git-lfs+json";
    return rc;
}
