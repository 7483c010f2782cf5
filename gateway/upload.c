/* SPDX-License-Identifier: Apache-2.0 */
/* upload.c - see upload.h */
#include "gateway/upload.h"

#include "base/alloc.h"

#define HALF (1u << 20)
#define HALF_OF_MANY (128u << 10) /* from the FEW + 1st of a worker on */
#define FEW 24u
#define UPLOAD_ARENA_MAX (1u << 20)
/* Read on after a failure: most clients look for the answer only when they have sent all. */
#define FORGOTTEN_MAX (64u << 20)
/* What has come may take that long to be made durable, besides limits.wait. */
#define BYTES_PER_MS 8192

int upload_admit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    if (!req->state->uploading && gw->n_uploads >= gw->config->limits.uploads) {
        answer_refuse(gw, req, ans, HUB_OUTAGE, GW_STR("too many uploads at a time"), 5);
        return GW_FORBIDDEN;
    }
    if (!req->state->uploading)
        gw->n_uploads++;
    req->state->uploading = true;
    return GW_OK;
}

struct upload *upload_new(struct gateway *gw, struct gateway_request *req,
                          const struct upload_sink *sink, uint64_t limit)
{
    struct upload *u = gw_alloc(sizeof(*u));

    if (u == NULL)
        return NULL;
    gw_arena_init(&u->arena, UPLOAD_ARENA_MAX);
    atomic_store(&u->refs, 1);
    u->sink = sink;
    u->peer = GW_PEER_REPO;
    u->wait_ms = gw->config->limits.wait_ms;
    u->gw = gw;
    u->config = gw->config;
    u->limit = limit;
    u->room = gw->n_uploads > FEW ? HALF_OF_MANY : HALF;
    for (int i = 0; i < 2; i++)
        if ((u->half[i].p = gw_realloc(NULL, u->room)) == NULL) {
            upload_unref(u);
            return NULL;
        }
    req->state->upload = u;
    return u;
}

void upload_unref(struct upload *u)
{
    if (u == NULL || atomic_fetch_sub(&u->refs, 1) != 1)
        return;
    u->sink->close(u);
    for (int i = 0; i < 2; i++)
        gw_free(u->half[i].p);
    gw_arena_release(&u->arena);
    gw_free(u);
}

/* A job that has the upload itself as its argument, and a reference to it. */
static struct gw_want want_of(struct gateway_request *req, const struct upload *u, const char *step)
{
    struct gw_arena *a = &req->state->arena;
    struct gw_str self = {(const char *)&u, sizeof(u)};
    struct gw_want want = {
        .peer = GW_PEER_DISK,
        .key = FACT_JOIN(a, GW_STR("upload"), gw_str_c(step), req->id,
                         gw_arena_printf(a, "%u", u->seq)),
        .arg = gw_arena_dup(a, self),
    };

    if (want.arg.p == NULL)
        want.key.p = NULL;
    return want;
}

static void fail(struct upload *u, int status, const char *text)
{
    u->status = gw_fail(&u->err, (enum gw_status)status, 0, "%s", text);
}

/* Posts the half that is being filled; the other one is filled from now on. */
static void write_half(struct gateway *gw, struct gateway_request *req, struct upload *u)
{
    struct gateway_state *st = req->state;
    struct gw_want want;

    st->deadline_ms = gw_mono_ms() + gw->config->limits.wait_ms; /* each piece has its own */
    st->n_results = 0;
    u->seq++;
    want = want_of(req, u, "write");
    u->filling ^= 1;
    atomic_store(&u->busy, true);
    atomic_fetch_add(&u->refs, 1);
    if (want.key.p == NULL || wants_park(gw, req, &want) != GW_AGAIN) {
        atomic_fetch_sub(&u->refs, 1);
        atomic_store(&u->busy, false);
        fail(u, GW_NO_MEMORY, "not enough memory");
    }
}

/* A job that never ran (its turn came too late, the process leaves) said so to the request only. */
static bool is_busy(struct gateway_request *req, struct upload *u)
{
    struct gateway_state *st = req->state;

    if (!atomic_load(&u->busy) || st->n_results == 0 || st->results[0].status == GW_OK)
        return atomic_load(&u->busy);
    u->err = st->results[0].err;
    u->status = st->results[0].status;
    atomic_store(&u->busy, false);
    upload_unref(u);
    return false;
}

static size_t forget(struct upload *u, size_t n)
{
    u->forgotten += n;
    return u->forgotten > FORGOTTEN_MAX ? GATEWAY_ENOUGH : n;
}

size_t gateway_give(struct gateway *gw, struct gateway_request *req, const char *p, size_t n)
{
    struct upload *u = req->state->upload;
    size_t left = n;

    u->given += n;
    while (left > 0) {
        size_t room = u->room - u->half[u->filling].n, piece = left < room ? left : room;

        if (!is_busy(req, u) && u->status == GW_OK && u->given > u->limit)
            fail(u, GW_TOO_LARGE, "more bytes than were announced, or than are taken here");
        if (!is_busy(req, u) && u->status != GW_OK)
            return forget(u, n);
        memcpy(u->half[u->filling].p + u->half[u->filling].n, p + (n - left), piece);
        u->half[u->filling].n += piece;
        left -= piece;
        if (u->half[u->filling].n < u->room)
            continue;
        if (is_busy(req, u))
            break;
        write_half(gw, req, u);
    }
    u->given -= left;
    return n - left;
}

int gateway_given(struct gateway *gw, struct gateway_request *req)
{
    struct upload *u = req->state->upload;

    if (is_busy(req, u))
        return GW_AGAIN;
    wants_unpark(req);
    if (u->status == GW_OK && u->half[u->filling].n > 0) {
        write_half(gw, req, u);
        return GW_AGAIN;
    }
    return GW_OK;
}

int upload_finish(struct gateway *gw, struct gateway_request *req, struct gw_str *text,
                  struct gw_error *err)
{
    struct upload *u = req->state->upload;
    struct gateway_result *r = NULL;
    struct gw_want want = want_of(req, u, "finish");
    int rc;

    if (u->status != GW_OK) {
        *err = u->err;
        return u->status;
    }
    if (want.key.p != NULL && wants_result(req->state, want.key) == NULL) {
        req->state->deadline_ms = gw_mono_ms() + u->wait_ms;
        atomic_fetch_add(&u->refs, 1);
        want.peer = u->peer;
        rc = fact_need(gw, req, &want, &r, err);
        if (rc != GW_AGAIN)
            atomic_fetch_sub(&u->refs, 1);
        return rc;
    }
    rc = fact_need(gw, req, &want, &r, err);
    if (rc == GW_OK)
        *text = r->text;
    return rc;
}

static int run_step(struct upload *u, struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    unsigned full = u->filling ^ 1;
    int rc = GW_OK;

    if (!u->opened) {
        u->opened = true;
        rc = u->sink->open(u, err);
    }
    if (rc != GW_OK)
        return rc;
    if (gw_str_eq_c(job->fields[1], "finish"))
        return u->sink->finish(u, job, err);
    rc = u->sink->write(u, (struct gw_str){u->half[full].p, u->half[full].n}, err);
    u->half[full].n = 0;
    return rc;
}

/* key: upload, write or finish, request, number; arg: the upload */
int job_upload(struct gateway_job *job)
{
    struct upload *u;
    int rc;

    if (job->n_fields < 4 || job->arg.n != sizeof(u))
        return gw_fail(&job->result.err, GW_INVALID, 0, "upload: fields");
    memcpy(&u, job->arg.p, sizeof(u));
    rc = run_step(u, job);
    if (rc != GW_OK) {
        u->err = job->result.err;
        u->status = rc;
    }
    atomic_store(&u->busy, false);
    upload_unref(u);
    return rc;
}
