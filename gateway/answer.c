/* SPDX-License-Identifier: Apache-2.0 */
/* answer.c - headers that every answer has, JSON answers, refusals. */
#include "gateway/internal.h"

#include <stdio.h>
#include <unistd.h>

void answer_header(struct gateway_answer *ans, struct gw_str name, struct gw_str value)
{
    if (ans->n_headers == GATEWAY_HEADERS_MAX || value.p == NULL)
        return;
    ans->headers[ans->n_headers++] = (struct gateway_header){name, value};
}

/* Some clients and health checks name the port that nobody has to name. */
static struct gw_str without_default_port(struct gw_str host)
{
    size_t n = gw_str_ends(host, GW_STR(":443")) ? 4 : gw_str_ends(host, GW_STR(":80")) ? 3 : 0;

    return gw_str_sub(host, 0, host.n - n);
}

/* The entry of public_urls whose authority was asked; scheme differs behind a TLS terminator, so it
 * does not count. */
struct gw_str request_public_url(const struct gateway *gw, const struct gateway_request *req)
{
    const struct config_list *urls = &gw->config->public_urls;
    struct gw_str asked = req->host;

    for (size_t i = 0; i < urls->n; i++) {
        struct gw_str host = urls->items[i];
        host = gw_str_sub(host, gw_str_starts(host, GW_STR("https://")) ? 8 : 7, host.n);
        if (gw_str_ieq(host, asked) || gw_str_ieq(host, without_default_port(asked)))
            return urls->items[i];
    }
    return (struct gw_str){NULL, 0};
}

void answer_common(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    static const char *const came[] = {"HIT", "STALE", "MISS", "FILL"};
    struct gateway_state *st = req->state;

    ANSWER_HEADER(ans, "X-Request-Id", req->id);
    if (st->target.has_repo && ans->status < 400) {
        ANSWER_HEADER(ans, "X-Cache", gw_str_c(came[st->came]));
        if (st->age_ms >= 0)
            ANSWER_HEADER(ans, "Age",
                          gw_arena_printf(&st->arena, "%lld", (long long)(st->age_ms / 1000)));
        if (st->warn_stale)
            ANSWER_HEADER(ans, "X-HF-Warning",
                          GW_STR("gateway; upstream unreachable, serving cached copy"));
        ANSWER_HEADER(ans, "Cache-Control", GW_STR("private, no-cache"));
        ANSWER_HEADER(ans, "Vary", GW_STR("Authorization"));
    }
    ANSWER_HEADER(ans, "X-Content-Type-Options", GW_STR("nosniff"));
    if (req->origin.n) {
        ANSWER_HEADER(ans, "Access-Control-Allow-Origin", GW_STR("*"));
        ANSWER_HEADER(ans, "Access-Control-Expose-Headers",
                      GW_STR("X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-"
                             "Count,ETag,Link,Accept-Ranges,"
                             "Content-Range,X-Linked-Size,X-Linked-ETag"));
    }
    (void)gw;
}

static void reset(struct gateway_answer *ans, int status)
{
    memset(ans, 0, sizeof(*ans));
    ans->status = status;
}

int answer_json(struct gateway_request *req, struct gateway_answer *ans, struct gw_str json)
{
    if (json.p == NULL)
        return GW_NO_MEMORY;
    ans->status = 200;
    ans->content_type = "application/json; charset=utf-8";
    ans->kind = GATEWAY_MEMORY;
    ans->memory = json;
    ans->size = json.n;
    (void)req;
    return GW_OK;
}

void answer_link_next(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                      struct gw_str cursor)
{
    struct gateway_state *st = req->state;
    struct gw_buf link;

    gw_buf_init(&link, 4 * HUB_TARGET_MAX);
    hub_put_link_next(&link, request_public_url(gw, req), &st->target, cursor);
    if (!link.failed)
        ANSWER_HEADER(ans, "Link", gw_arena_dup(&st->arena, gw_buf_str(&link)));
    gw_buf_release(&link);
}

static const char *reason_name(enum hub_reason why)
{
    static const char *const names[HUB_REASON_COUNT] = {
        [HUB_LOGIN_NEEDED] = "login_needed",
        [HUB_BAD_CREDENTIAL] = "bad_credential",
        [HUB_FOREIGN_TOKEN] = "foreign_token",
        [HUB_REPO_NOT_FOUND] = "repo_not_found",
        [HUB_REVISION_NOT_FOUND] = "revision_not_found",
        [HUB_ENTRY_NOT_FOUND] = "entry_not_found",
        [HUB_BLOCKED] = "blocked",
        [HUB_GATED_UPSTREAM] = "gated_upstream",
        [HUB_SCOPE] = "scope",
        [HUB_BAD_REQUEST] = "bad_request",
        [HUB_METHOD] = "method",
        [HUB_NO_ROUTE] = "no_route",
        [HUB_NO_XET] = "no_xet",
        [HUB_NO_DEVICE_LOGIN] = "no_device_login",
        [HUB_TOO_LARGE] = "too_large",
        [HUB_RANGE] = "range",
        [HUB_WRONG_HOST] = "wrong_host",
        [HUB_NO_SUCH_BYTES] = "no_such_bytes",
        [HUB_CONFLICT] = "conflict",
        [HUB_PARENT_MOVED] = "parent_moved",
        [HUB_NOT_HERE] = "not_here",
        [HUB_NOT_BUILT] = "not_built",
        [HUB_DISK_FULL] = "disk_full",
        [HUB_BUSY] = "busy",
        [HUB_INTERNAL] = "internal",
        [HUB_BAD_UPSTREAM] = "bad_upstream",
        [HUB_OUTAGE] = "outage",
        [HUB_LOOP] = "loop",
    };

    return why < HUB_REASON_COUNT && names[why] ? names[why] : "unknown";
}

static bool is_git(const struct gateway_state *st)
{
    return st->parse_status == GW_OK &&
           (st->target.route == HUB_GIT_REFS || st->target.route == HUB_GIT_UPLOAD_PACK ||
            st->target.route == HUB_GIT_RECEIVE_PACK);
}

/* git-lfs shows "message" (its docs/api), hub clients "error". */
static void refuse_lfs(struct gateway_state *st, struct gateway_answer *ans)
{
    static const char head[] = "{\"error\":";
    struct gw_str rest = gw_str_sub(ans->memory, sizeof(head) - 1, ans->memory.n), body;

    if (st->parse_status != GW_OK ||
        (st->target.route != HUB_LFS_BATCH && st->target.route != HUB_LFS_LOCKS))
        return;
    if (ans->status == 401)
        ANSWER_HEADER(ans, "LFS-Authenticate", GW_STR("Basic realm=\"hubgate\""));
    rest.n -= rest.n ? 1 : 0; /* the brace */
    body = gw_arena_printf(&st->arena, "{\"message\":" GW_STR_FMT ",\"error\":" GW_STR_FMT "}",
                           GW_STR_ARG(rest), GW_STR_ARG(rest));
    if (body.p == NULL)
        return;
    ans->content_type = "application/vnd.git-lfs+json";
    ans->memory = body;
    ans->size = body.n;
}

int answer_refuse(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  enum hub_reason why, struct gw_str detail, int retry_after_s)
{
    struct gateway_state *st = req->state;
    struct hub_refusal r;

    hub_refuse(&r, why, detail, is_git(st), retry_after_s, &st->arena);
    reset(ans, r.status);
    ans->content_type = r.content_type;
    ans->kind = GATEWAY_MEMORY;
    ans->memory = r.body;
    ans->size = r.body.n;
    if (r.code != NULL)
        ANSWER_HEADER(ans, "X-Error-Code", gw_str_c(r.code));
    ANSWER_HEADER(ans, "X-Error-Message", r.message);
    if (r.challenge != NULL)
        ANSWER_HEADER(ans, "WWW-Authenticate", gw_str_c(r.challenge));
    if (r.retry_after_s > 0)
        ANSWER_HEADER(ans, "Retry-After", gw_arena_printf(&st->arena, "%d", r.retry_after_s));
    if (why == HUB_BUSY)
        ANSWER_HEADER(ans, "RateLimit",
                      gw_arena_printf(&st->arena, "\"gateway\";r=0;t=%d", r.retry_after_s));
    if (why == HUB_METHOD && st->target.allow != NULL)
        ANSWER_HEADER(ans, "Allow", gw_str_c(st->target.allow));
    /* `hf` 2.4.0 prints "requires approval" for GatedRepo and drops our text, but shows every
     * client a warning header */
    if (r.status != 404 && r.status != 416)
        ANSWER_HEADER(ans, "X-HF-Warning",
                      gw_arena_printf(&st->arena, "gateway; " GW_STR_FMT, GW_STR_ARG(r.message)));
    if (why == HUB_ENTRY_NOT_FOUND && st->commit.n)
        ANSWER_HEADER(ans, "X-Repo-Commit", st->commit);
    st->why = reason_name(why);
    refuse_lfs(st, ans);
    (void)gw;
    return GW_OK;
}

/* Whoever asks again then is not refused again. */
static int limit_wait_s(const struct gateway *gw)
{
    int64_t most = 0;

    for (int kind = 0; kind < CACHE_LIMIT_KINDS; kind++) {
        int64_t wait = cache_limit_wait_ms(&gw->shared->cache, (enum cache_limit_kind)kind);
        most = wait > most ? wait : most;
    }
    return most > 0 ? (int)((most + 999) / 1000) : 1;
}

/* A job failed. Outages are 503, never 401 or 404: clients take those as final (hub clients' retry
 * rules, docs/clients.md). */
int answer_failure(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                   const struct gw_error *err)
{
    struct gw_str text = gw_arena_dup(&req->state->arena, gw_str_c(err->text));

    switch (err->status) {
    case GW_FORBIDDEN:
        if (err->sys == 401 ||
            err->sys == 403) /* the tree of a gated repo is open, its files are not */
            return answer_refuse(gw, req, ans, HUB_GATED_UPSTREAM, GW_STR(""), 0);
        return answer_refuse(gw, req, ans, HUB_BAD_UPSTREAM, text, 0);
    case GW_INVALID:
    case GW_TOO_LARGE:
    case GW_CORRUPT:
        return answer_refuse(gw, req, ans, HUB_BAD_UPSTREAM, text, 0);
    case GW_UNAVAILABLE:
        if (err->sys == 429)
            return answer_refuse(gw, req, ans, HUB_BUSY, text, limit_wait_s(gw));
        return answer_refuse(gw, req, ans, HUB_OUTAGE, text, 5);
    case GW_TIMEOUT:
    case GW_CANCELLED:
    case GW_NO_MEMORY:
    case GW_IO:
        return answer_refuse(gw, req, ans, HUB_OUTAGE, text, 5);
    default:
        return answer_refuse(gw, req, ans, HUB_INTERNAL, text, 0);
    }
}
