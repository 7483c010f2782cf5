/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.c - a file: a whole blob, one that is still filling (what may be sent of both: bytes.c), a
 * small one copied, or the pointer text of raw. Always 200 or 206 from this host, never a
 * redirect (hub clients, docs/clients.md).
 */
#include "gateway/internal.h"

#include "base/encode.h"

#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#define SMALL_COPY (32u << 10)
#define SEVERAL_MAX (64u << 20) /* bytes of several ranges; they are brought into memory first */

static struct gw_str digest_of(const struct hub_entry *e)
{
    return gw_str_c(e->lfs ? e->sha256 : e->oid);
}

/* Of the whole file, also in an answer that is a part of it (RFC 3230 4.3.2): aria2 checks it at
 * the end, and is the one client that puts a file together from answers that are too short to be
 * held back. */
static struct gw_str digest_header(struct gw_arena *a, struct gw_str sha256)
{
    unsigned char digest[32];
    struct gw_str out = {NULL, 0};
    struct gw_buf b;

    gw_buf_init(&b, 128);
    gw_buf_add_c(&b, "SHA-256=");
    if (gw_hex_decode(digest, sizeof(digest), sha256))
        gw_base64_encode(&b, (struct gw_str){(const char *)digest, sizeof(digest)});
    if (!b.failed)
        out = gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    return out;
}

static int file_headers(struct gateway_request *req, struct gateway_answer *ans,
                        const struct hub_entry *e, struct gw_str etag)
{
    struct gateway_state *st = req->state;
    struct gw_buf b;

    ans->etag = gw_arena_printf(&st->arena, "\"" GW_STR_FMT "\"", GW_STR_ARG(etag));
    if (ans->etag.p == NULL)
        return GW_NO_MEMORY;
    ans->content_type = hub_content_type(e->path);
    ANSWER_HEADER(ans, "X-Repo-Commit", st->commit);
    if (e->lfs && st->target.route == HUB_RESOLVE) {
        ANSWER_HEADER(ans, "X-Linked-ETag", ans->etag);
        ANSWER_HEADER(ans, "X-Linked-Size",
                      gw_arena_printf(&st->arena, "%llu", (unsigned long long)e->size));
        ANSWER_HEADER(ans, "Digest", digest_header(&st->arena, gw_str_c(e->sha256)));
    }
    gw_buf_init(&b, 8 * HUB_PATH_MAX);
    hub_put_content_disposition(&b, e->path);
    if (!b.failed)
        ANSWER_HEADER(ans, "Content-Disposition", gw_arena_dup(&st->arena, gw_buf_str(&b)));
    gw_buf_release(&b);
    return GW_OK;
}

static int serve_memory(struct gateway_request *req, struct gateway_answer *ans,
                        struct gw_str bytes)
{
    struct gateway_state *st = req->state;
    uint64_t first, end;
    bool open;

    ans->status = 200;
    ans->kind = GATEWAY_MEMORY;
    ans->memory = bytes;
    ans->size = bytes.n;
    ans->ranges = bytes.n > 0;
    if (bytes.n == 0 && range_parse(req->range, 0, &first, &end, &open) !=
                            RANGE_NONE) /* JS asks bytes=0-0 and wants the size */
        ANSWER_HEADER(ans, "Content-Range", GW_STR("bytes */0"));
    (void)st;
    return GW_OK;
}

int serve_range_error(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                      uint64_t size, struct gw_str detail)
{
    answer_refuse(gw, req, ans, HUB_RANGE, detail, 0);
    ANSWER_HEADER(ans, "Content-Range",
                  gw_arena_printf(&req->state->arena, "bytes */%llu", (unsigned long long)size));
    return GW_OK;
}

static struct gw_str bytes_target(struct gateway_request *req, const struct resolved *r,
                                  struct gw_str path)
{
    struct hub_target t = r->target;

    t.route = HUB_RESOLVE;
    t.path = path;
    t.query = GW_STR("");
    return upstream_target(&req->state->arena, &t, r->commit);
}

/* The want of the job that brings a blob whole: small ones. */
static struct gw_want blob_want(struct gateway_request *req, const struct resolved *r,
                                const struct hub_entry *e)
{
    struct gw_arena *a = &req->state->arena;
    struct gw_str size = gw_arena_printf(a, "%llu", (unsigned long long)e->size);

    if (r->private)
        return (struct gw_want){
            .peer = GW_PEER_REPO,
            .key = FACT_JOIN(a, GW_STR("pblob"), digest_of(e), r->type, r->ns, r->name),
            .arg = size};
    return (struct gw_want){
        .peer = GW_PEER_UPSTREAM,
        /* with the repository: what upstream refuses of one says nothing of another */
        .key = FACT_JOIN(a, GW_STR("blob"), digest_of(e), r->type, r->ns, r->name),
        .arg = FACT_JOIN(a, size, bytes_target(req, r, e->path)),
    };
}

/* If-Range (RFC 9110 13.1.5): a tag other than ours means the whole. We send no Last-Modified, so a
 * date never matches. */
static bool if_range_fails(const struct gateway_request *req, struct gw_str digest)
{
    return req->if_range.n && !gw_str_eq(gw_str_sub(req->if_range, 1, req->if_range.n - 2), digest);
}

/* A resumed download must not join bytes of two generations after a mismatch (design: proof), also
 * when the second one is whole by now. */
static int after_mismatch(struct gateway *gw, struct gateway_request *req,
                          struct gateway_answer *ans, struct gw_str digest, uint64_t size,
                          enum range_kind *kind, uint64_t first, bool open)
{
    if (*kind == RANGE_SEVERAL && cache_recently_mismatched(gw->cache, digest))
        *kind = RANGE_NONE;
    if (*kind != RANGE_ONE || first == 0 || !open || !cache_recently_mismatched(gw->cache, digest))
        return GW_AGAIN;
    if (range_client_restarts(req->user_agent)) {
        *kind = RANGE_NONE;
        return GW_AGAIN;
    }
    return serve_range_error(
        gw, req, ans, size,
        GW_STR("the file changed while it was fetched: delete the partial file and retry"));
}

int serve_span(struct gateway_request *req, struct gateway_answer *ans, uint64_t size,
               const struct span *span)
{
    struct gateway_state *st = req->state;
    struct gw_str range;

    ans->status = span->kind == RANGE_ONE ? 206 : 200;
    ans->kind = GATEWAY_FILE;
    ans->size = size;
    ans->first = st->file_first = span->first;
    ans->end = st->file_end = span->end;
    if (!ans->ranges) /* else nginx says it, if it does not cut */
        ANSWER_HEADER(ans, "Accept-Ranges", GW_STR("bytes"));
    if (span->kind != RANGE_ONE)
        return GW_OK;
    range = gw_arena_printf(&st->arena, "bytes %llu-%llu/%llu", (unsigned long long)span->first,
                            (unsigned long long)span->end - 1, (unsigned long long)size);
    if (range.p == NULL)
        return GW_NO_MEMORY; /* never a 206 that does not say of what */
    ANSWER_HEADER(ans, "Content-Range", range);
    return GW_OK;
}

/* GW_CONFLICT: it became a blob since that was looked for. */
static int serve_part(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                      const struct resolved *r, const struct hub_entry *e, const struct span *span)
{
    struct gateway_state *st = req->state;
    struct gw_arena *a = &st->arena;
    struct gw_str target;
    struct gw_want want;
    struct gw_error err;
    int rc;

    if (st->reader == NULL) {
        target = r->private ? repo_object_path(gw->config->data, digest_of(e), a)
                            : bytes_target(req, r, e->path);
        if (target.p == NULL)
            return GW_NO_MEMORY;
        rc = cache_reader_open(&st->reader, gw->cache, digest_of(e), e->size, target, &err);
        if (rc == GW_AGAIN) {
            want = (struct gw_want){
                .peer = r->private ? GW_PEER_REPO : GW_PEER_DISK,
                .key = FACT_JOIN(a, r->private ? GW_STR("ppart") : GW_STR("part"), digest_of(e),
                                 r->type, r->ns, r->name),
                .arg =
                    FACT_JOIN(a, gw_arena_printf(a, "%llu", (unsigned long long)e->size), target),
            };
            rc = fact_need(gw, req, &want, NULL, &err);
            if (rc == GW_AGAIN)
                return rc;
            if (rc == GW_OK)
                rc =
                    gw_fail(&err, GW_UNAVAILABLE, 0, "the fill was dropped as soon as it was made");
            return answer_failure(gw, req, ans, &err);
        }
        if (rc == GW_CONFLICT)
            return rc;
        if (rc != GW_OK)
            return answer_failure(gw, req, ans, &err);
        metrics_add(&gw->counters->readers, 1);
        if (policy_verify_before(gw->policy, &st->who.subject, &st->object, st->started_ms))
            cache_reader_verify_before(st->reader);
    }
    st->came = CAME_FILL;
    return serve_span(req, ans, e->size, span);
}

/* Small, and in memory: copied at once, so that header and bytes leave in one write. nginx cuts
 * ranges. */
static bool copy_small(struct gateway_request *req, struct gateway_answer *ans, int fd,
                       const struct hub_entry *e, bool ranges)
{
    struct iovec to = {.iov_len = e->size};

    if (e->size > SMALL_COPY)
        return false;
    to.iov_base = gw_arena_alloc(&req->state->arena, e->size);
    if (to.iov_base == NULL || preadv2(fd, &to, 1, 0, RWF_NOWAIT) != (ssize_t)e->size)
        return false;
    ans->status = 200;
    ans->kind = GATEWAY_MEMORY;
    ans->memory = (struct gw_str){to.iov_base, e->size};
    ans->size = e->size;
    ans->ranges = ranges;
    return true;
}

/* GW_NOT_FOUND: it is not held. */
static int serve_blob(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                      const struct hub_entry *e, const struct span *span)
{
    struct gw_want want = {.peer = GW_PEER_DISK, .arg = GW_STR("")};
    struct gw_error err;
    uint64_t size;
    int64_t modified_s;
    int fd, rc = cache_blob_open(gw->cache, digest_of(e), &fd, &size, &modified_s, &err);

    if (rc == GW_AGAIN) {
        want.key = FACT_JOIN(&req->state->arena, GW_STR("prove"), digest_of(e));
        rc = fact_need(gw, req, &want, NULL, &err);
        if (rc == GW_AGAIN)
            return rc;
        if (rc == GW_OK) /* else it was wrong, and is not held any more */
            rc = cache_blob_open(gw->cache, digest_of(e), &fd, &size, &modified_s, &err);
        if (rc == GW_AGAIN)
            rc = GW_NOT_FOUND;
    }
    if (rc == GW_OK && size != e->size) { /* cut short on disk, or never what upstream lists */
        close(fd);
        cache_blob_drop(gw->cache, digest_of(e));
        return GW_NOT_FOUND;
    }
    if (rc == GW_NOT_FOUND)
        return rc;
    if (rc != GW_OK)
        return answer_failure(gw, req, ans, &err);
    if (copy_small(req, ans, fd, e, req->range.n == 0 || span->kind != RANGE_NONE)) {
        close(fd);
        return GW_OK;
    }
    req->state->fd = fd;
    req->state->several = ans->ranges = span->kind == RANGE_SEVERAL;
    return serve_span(req, ans, e->size, span);
}

/* Is it worth to be cut into parts? The whole is always allowed (RFC 9110 14.2). */
static bool several_ok(const struct gateway_request *req, uint64_t size)
{
    struct range_piece pieces[RANGES_MAX];
    uint64_t sum = 0;

    for (size_t n = range_pieces(req->range, size, pieces); n > 0; n--) {
        uint64_t length = pieces[n - 1].end - pieces[n - 1].first;

        sum += length < SEVERAL_MAX ? length : SEVERAL_MAX + 1;
    }
    return sum <= SEVERAL_MAX;
}

static int serve_bytes(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                       const struct resolved *r, const struct hub_entry *e)
{
    struct gw_want want;
    struct gw_error err;
    struct span span = {RANGE_NONE, 0, e->size};
    bool open = false;
    int rc;

    if (req->range.n && !if_range_fails(req, digest_of(e)))
        span.kind = range_parse(req->range, e->size, &span.first, &span.end, &open);
    rc = after_mismatch(gw, req, ans, digest_of(e), e->size, &span.kind, span.first, open);
    if (rc != GW_AGAIN)
        return rc;
    if (span.kind == RANGE_UNSATISFIABLE)
        return serve_range_error(gw, req, ans, e->size, GW_STR(""));
    if (span.kind == RANGE_SEVERAL && !several_ok(req, e->size))
        span.kind = RANGE_NONE;
    if (span.kind != RANGE_ONE) { /* several: nginx cuts them; nonsense, or who starts anew */
        span.first = 0;
        span.end = e->size;
    }
    rc = serve_blob(gw, req, ans, e, &span);
    if (rc != GW_NOT_FOUND)
        return rc;
    if ((!r->private || e->lfs) && e->size > CACHE_SMALL_MAX) {
        struct span part = span;

        if (part.kind == RANGE_SEVERAL) /* while it is not held (RFC 9110 14.2) */
            part = (struct span){RANGE_NONE, 0, e->size};
        rc = serve_part(gw, req, ans, r, e, &part);
        if (rc == GW_CONFLICT)
            rc = serve_blob(gw, req, ans, e, &span);
        if (rc != GW_NOT_FOUND)
            return rc;
        gw_fail(&err, GW_UNAVAILABLE, 0, "the file came and went");
        return answer_failure(gw, req, ans, &err);
    }
    want = blob_want(req, r, e);
    rc = fact_need(gw, req, &want, NULL, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_OK)
        rc = gw_fail(&err, GW_IO, 0, "the blob was not kept");
    return answer_failure(gw, req, ans, &err);
}

static int serve_pointer(struct gateway_request *req, struct gateway_answer *ans,
                         const struct hub_entry *e)
{
    char text[200];
    size_t n = repo_pointer_format(text, gw_str_c(e->sha256), e->size);
    struct gw_str pointer = gw_arena_dup(&req->state->arena, (struct gw_str){text, n});

    return pointer.p ? serve_memory(req, ans, pointer) : GW_NO_MEMORY;
}

int serve_object(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                 const struct hub_target *t, struct gw_str sha256, uint64_t size)
{
    struct gateway_state *st = req->state;
    struct resolved r = {.target = *t,
                         .type = gw_str_c(hub_type_name(t->type)),
                         .ns = t->ns,
                         .name = t->name,
                         .commit = GW_STR(""),
                         .private = true};
    struct hub_entry e = {.lfs = true, .size = size, .path = GW_STR(""), .xet = GW_STR("")};

    memcpy(e.sha256, sha256.p, 64);
    st->digest = sha256;
    ans->content_type = "application/octet-stream";
    if (size == 0)
        return serve_memory(req, ans, GW_STR(""));
    if (st->target.head) {
        ans->status = 200;
        ans->size = size;
        ans->ranges = true;
        return GW_OK;
    }
    return serve_bytes(gw, req, ans, &r, &e);
}

int serve_file(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct resolved r;
    struct hub_entry e;
    bool pointer;
    int rc = resolve_commit(gw, req, ans, &r);

    if (rc == GW_OK)
        rc = resolve_file(gw, req, ans, &r, st->target.path, &e);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return GW_OK; /* *ans is the refusal */
    pointer = e.lfs && st->target.route == HUB_RAW;
    st->digest = pointer ? gw_str_c(e.oid) : digest_of(&e);
    st->digest = gw_arena_dup(&st->arena, st->digest);
    if (st->digest.p == NULL)
        return GW_NO_MEMORY;
    if (pointer)
        rc = serve_pointer(req, ans, &e);
    else if (e.size == 0)
        rc = serve_memory(req, ans, GW_STR(""));
    else if (st->target.head) {
        ans->status = 200;
        ans->size = e.size;
        ans->ranges = true;
    } else
        rc = serve_bytes(gw, req, ans, &r, &e);
    if (rc == GW_OK && ans->status < 400)
        rc = file_headers(req, ans, &e, st->digest);
    return rc;
}
