/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_gateway_step.c - a whole request against a gateway with rules, an empty index and
 * no upstream. Lines: METHOD, TARGET, then headers, an empty line, the body. $TOKEN in a header is
 * a good token. Whatever comes: no crash, an answer of a known kind within its steps, and headers
 * that are one line each.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char config[] = "public_urls: [\"http://hub.test\"]\ndata: data\n"
                             "cache: {dir: cache}\nusers_file: users.yaml\npolicy_dir: policy.d\n"
                             "upstream: {url: \"http://127.0.0.1:9\"}\n";
static const char rules[] =
    "version: 1\nprivate_namespaces: [acme]\ngroups: {eng: {name: eng}}\nrules:\n"
    "- {id: eng, allow: [write], to: [\"group:eng\"], where: {hub: private, repo: \"acme/*\"}}\n"
    "- {id: shown, allow: [discover], to: [authenticated], where: {repo: acme/shown}}\n"
    "- {id: public, allow: [read], to: [authenticated], where: {hub: public}}\n"
    "- {id: open, allow: [read], to: [anonymous], where: {hub: public, repo: \"open/*\"}}\n"
    "- {id: pickle, deny: [read], where: {files: [\"**/*.bin\"]}, reason: \"No pickles.\"}\n";

static char dir[] = "/tmp/hubgate-fuzz-XXXXXX";
static struct gateway *gw;
static struct gateway_snapshot *snapshot;
static void *shared;
static char token[AUTH_TOKEN_LEN + 1];
static struct gateway_job *posted[64];
static size_t n_posted;

static void demand(bool yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "fuzz_gateway_step: %s\n", what);
        abort();
    }
}

static void write_file(const char *name, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "wb");
    demand(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0, path);
}

static void finish(void)
{
    struct gw_error err;

    gateway_close(gw);
    gateway_snapshot_free(snapshot);
    free(shared);
    if (gw_dir_remove(dir, &err) != GW_OK) {
        fprintf(stderr, "%s\n", err.text);
    }
}

static bool post(void *ctx, struct gateway_job *job)
{
    (void)ctx;
    if (n_posted == sizeof(posted) / sizeof(posted[0])) {
        return false;
    }
    posted[n_posted++] = job;
    return true;
}

static void run_jobs(void)
{
    while (n_posted != 0) {
        struct gateway_job *job = posted[0];

        memmove(posted, posted + 1, --n_posted * sizeof(posted[0]));
        gateway_job_run(job);
        gateway_job_done(job);
    }
}

static void mint(void)
{
    static const struct gw_str groups[] = {GW_STR_INIT("eng")};
    struct auth_subject s = {.realm = GW_STR("file"),
                             .source_id = GW_STR("ann"),
                             .name = GW_STR("ann"),
                             .display = GW_STR(""),
                             .email = GW_STR(""),
                             .dn = GW_STR(""),
                             .state = AUTH_ACTIVE,
                             .groups = groups,
                             .n_groups = 1,
                             .checked_ms = gw_wall_ms()};
    struct auth_token t;
    struct gw_arena a;
    struct gw_error err;

    gw_arena_init(&a, 1 << 16);
    s.id = auth_subject_id(s.realm, s.source_id, &a);
    demand(identity_put_subject(gw, &s, &err) == GW_OK, err.text);
    demand(auth_token_mint(token, &t, 'p', s.id, GW_STR("x"), AUTH_ROLE_WRITE, gw_wall_ms(),
                           gw_wall_ms() + 86400000, &err) == GW_OK,
           err.text);
    demand(identity_put_token(gw, &t, &err) == GW_OK, err.text);
    gw_arena_release(&a);
}

static void start(void)
{
    static const char *const folders[] = {"data", "cache", "policy.d"};
    struct gateway_options o = {.command = true, .post = post};
    struct gw_error err;
    char path[128];

    shared = calloc(1, gateway_shared_bytes());
    demand(mkdtemp(dir) != NULL && shared != NULL, "a folder");
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, folders[i]);
        demand(mkdir(path, 0700) == 0, path);
    }
    write_file("hubgate.yaml", config);
    write_file("users.yaml", "users: {}\n");
    write_file("policy.d/policy.yaml", rules);
    snprintf(path, sizeof(path), "%s/hubgate.yaml", dir);
    demand(gateway_snapshot_load(&snapshot, path, NULL, &err) == GW_OK, err.text);
    demand(gateway_shared_init(shared, &err) == GW_OK, err.text);
    o.snapshot = snapshot;
    o.shared = shared;
    demand(gateway_open(&gw, &o, &err) == GW_OK, err.text);
    mint();
    atexit(finish);
}

static void wake(struct gateway_request *req)
{
    ++*(unsigned *)req->ctx;
}

static struct gw_str with_token(struct gw_arena *a, struct gw_str value)
{
    char *at = value.n ? memmem(value.p, value.n, "$TOKEN", 6) : NULL;
    size_t before = at != NULL ? (size_t)(at - value.p) : 0;

    return at == NULL ? value
                      : gw_arena_printf(a, GW_STR_FMT "%s" GW_STR_FMT, (int)before, value.p, token,
                                        (int)(value.n - before - 6), at + 6);
}

static void set_header(struct gateway_request *req, struct gw_arena *a, struct gw_str line)
{
    const struct {
        const char *name;
        struct gw_str *value;
    } fields[] = {{"authorization", &req->authorization},
                  {"content-type", &req->content_type},
                  {"user-agent", &req->user_agent},
                  {"range", &req->range},
                  {"if-range", &req->if_range},
                  {"via", &req->via},
                  {"origin", &req->origin},
                  {"host", &req->host}};
    struct gw_str name, value = line;

    if (!gw_str_split(&value, ':', &name) || value.p == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (gw_str_ieq_c(name, fields[i].name)) {
            *fields[i].value = with_token(a, gw_str_trim(value));
            req->n_authorization += i == 0;
        }
    }
}

static bool is_known(int status)
{
    static const int known[] = {200, 204, 206, 400, 401, 403, 404, 405,
                                413, 416, 421, 429, 501, 502, 503, 508};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (status == known[i]) {
            return true;
        }
    }
    return false;
}

static void check(const struct gateway_request *req, const struct gateway_answer *ans)
{
    demand(is_known(ans->status), "an unknown status");
    demand(ans->n_headers < GATEWAY_HEADERS_MAX, "headers were left out");
    for (size_t i = 0; i < ans->n_headers; i++) {
        struct gw_str v = ans->headers[i].value;

        for (size_t k = 0; k < v.n; k++) {
            demand((unsigned char)v.p[k] >= 0x20 && v.p[k] != 0x7f, "a control byte in a header");
        }
        demand(memmem(v.p, v.n, token + 16, 16) == NULL, "a token in a header");
    }
    demand(ans->kind != GATEWAY_MEMORY || ans->memory.n == ans->size, "size");
    demand(ans->status != 401 || req->state->who.subject.kind == POLICY_ANONYMOUS ||
               req->state->target.route == HUB_GATEWAY_TOKENS,
           "401 for somebody known");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str rest = {(const char *)data, size}, line;
    struct gateway_request req = {.host = GW_STR("hub.test"),
                                  .scheme = GW_STR("http"),
                                  .peer_ip = GW_STR("127.0.0.1"),
                                  .id = GW_STR("1"),
                                  .wake = wake};
    struct gateway_answer ans;
    struct gw_arena a;
    unsigned woken = 0;
    size_t body_max;
    int steps = 0;

    if (gw == NULL) {
        start();
    }
    gw_arena_init(&a, 1 << 20);
    req.ctx = &woken;
    if (!gw_str_split(&rest, '\n', &req.method) || !gw_str_split(&rest, '\n', &req.target)) {
        return 0;
    }
    while (gw_str_split(&rest, '\n', &line) && line.n != 0) {
        set_header(&req, &a, line);
    }
    body_max = gateway_begin(gw, &req);
    req.body = gw_str_sub(rest, 0, body_max);
    while (gateway_step(gw, &req, &ans) == GW_AGAIN) {
        unsigned before = woken;

        demand(++steps < 10, "too many steps");
        run_jobs();
        demand(woken == before + 1, "nobody woke it");
    }
    check(&req, &ans);
    gateway_end(gw, &req, ans.status, ans.size, true);
    run_jobs();
    gw_arena_release(&a);
    return 0;
}
