/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/gateway/gateway_fixture.h - a whole gateway in a temporary folder, without nginx: jobs
 * are held until the test runs them, or ends them as it likes. Nothing listens where upstream is.
 */
#ifndef TESTS_UNIT_GATEWAY_FIXTURE_H
#define TESTS_UNIT_GATEWAY_FIXTURE_H

#include "gateway/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/encode.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define COMMIT "0123456789abcdef0123456789abcdef01234567"

#define FIXTURE_CONFIG                                                                             \
    "public_urls: [\"http://hub.test\", \"https://hub.test:8443\"]\n"                              \
    "data: data\n"                                                                                 \
    "cache: {dir: cache}\n"                                                                        \
    "upstream: {url: \"http://127.0.0.1:9\"}\n"                                                    \
    "users_file: users.yaml\n"                                                                     \
    "policy_dir: policy.d\n"                                                                       \
    "audit_file: audit.jsonl\n"

#define FIXTURE_POLICY                                                                             \
    "version: 1\n"                                                                                 \
    "private_namespaces: [acme]\n"                                                                 \
    "groups: {eng: {name: eng}}\n"                                                                 \
    "rules:\n"                                                                                     \
    "- {id: eng, allow: [write], to: [\"group:eng\"], where: {hub: private, repo: \"acme/*\"}}\n"  \
    "- {id: shown, allow: [discover], to: [authenticated], where: {repo: acme/shown}}\n"           \
    "- {id: public, allow: [read], to: [authenticated], where: {hub: public}}\n"                   \
    "- {id: open, allow: [read], to: [anonymous], where: {hub: public, repo: \"open/*\"}}\n"       \
    "- {id: pickle, deny: [read], where: {hub: public, files: [\"**/*.bin\"]}, reason: \"No "      \
    "pickles.\"}\n"                                                                                \
    "- {id: gone, deny: [discover], where: {repo: bad/repo}, reason: \"Gone.\"}\n"

struct world {
    char dir[64], config[96];
    struct gateway_snapshot *snapshot;
    void *shared;
    struct gateway *gw;
    struct gateway_job *posted[256]; /* oldest first */
    size_t n_posted, n_ever;
    bool refuse; /* the pool is full */
    struct gw_arena arena;
    struct gw_error err;
    char log[16384];
};

static inline void world_log(void *ctx, enum gw_log_level level, struct gw_str line)
{
    struct world *w = ctx;
    size_t n = strlen(w->log);

    (void)level;
    snprintf(w->log + n, sizeof(w->log) - n, GW_STR_FMT "\n", GW_STR_ARG(line));
}

static inline bool world_post(void *ctx, struct gateway_job *job)
{
    struct world *w = ctx;

    if (w->refuse || w->n_posted == COUNT(w->posted)) {
        return false;
    }
    w->posted[w->n_posted++] = job;
    w->n_ever++;
    return true;
}

static inline void world_file(struct world *w, const char *name, const char *text)
{
    char path[192];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0); /* some are secrets */
}

static inline void world_folder(struct world *w, const char *name)
{
    char path[192];

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    assert_int_equal(mkdir(path, 0750), 0);
}

/* Folders and files; nothing is opened yet. */
static inline void world_init(struct world *w)
{
    static const char *const folders[] = {"data", "cache", "policy.d"};

    memset(w, 0, sizeof(*w));
    strcpy(w->dir, "/tmp/hubgate-gateway-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    for (size_t i = 0; i < COUNT(folders); i++) {
        world_folder(w, folders[i]);
    }
    snprintf(w->config, sizeof(w->config), "%s/hubgate.yaml", w->dir);
    world_file(w, "hubgate.yaml", FIXTURE_CONFIG);
    world_file(w, "users.yaml", "users: {}\n");
    world_file(w, "policy.d/policy.yaml", FIXTURE_POLICY);
    gw_arena_init(&w->arena, 64u << 20);
    w->shared = mmap(NULL, gateway_shared_bytes(), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(w->shared != MAP_FAILED);
    assert_int_equal(gateway_shared_init(w->shared, &w->err), GW_OK);
}

static inline void world_open_as(struct world *w, bool command)
{
    struct gateway_options o = {
        .shared = w->shared, .log = {world_log, w, GW_LOG_DEBUG}, .post = world_post, .ctx = w};

    if (gateway_snapshot_load(&w->snapshot, w->config, NULL, &w->err) != GW_OK) {
        fail_msg("%s", w->err.text);
    }
    o.snapshot = w->snapshot;
    o.command = command; /* no fetcher, no audit */
    if (gateway_open(&w->gw, &o, &w->err) != GW_OK) {
        fail_msg("%s", w->err.text);
    }
    cache_retire(w->gw->cache); /* its upkeep posts jobs of its own */
}

static inline void world_open(struct world *w)
{
    world_open_as(w, true);
}

static inline void world_close(struct world *w)
{
    gateway_close(w->gw);
    gateway_snapshot_free(w->snapshot);
    w->gw = NULL;
    w->snapshot = NULL;
    w->n_posted = 0;
}

static inline void world_release(struct world *w)
{
    struct gateway_shared *shared = w->shared;

    world_close(w);
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        close(atomic_load(&shared->cache.slots[i].eventfd));
    }
    munmap(w->shared, gateway_shared_bytes());
    gw_arena_release(&w->arena);
    assert_int_equal(gw_dir_remove(w->dir, &w->err), GW_OK);
}

/* ---- jobs ---- */

static inline struct gateway_job *world_take(struct world *w, size_t i)
{
    struct gateway_job *job = w->posted[i];

    assert_true(i < w->n_posted);
    memmove(&w->posted[i], &w->posted[i + 1], (--w->n_posted - i) * sizeof(w->posted[0]));
    return job;
}

/* Runs everything that is posted, and what that posts. */
static inline void world_run(struct world *w)
{
    while (w->n_posted != 0) {
        struct gateway_job *job = world_take(w, 0);

        gateway_job_run(job);
        gateway_job_done(job);
    }
}

/* The oldest job ends so, without having been run. */
static inline void world_end_job(struct world *w, int status, int sys)
{
    struct gateway_job *job = world_take(w, 0);

    job->ran = true;
    job->result.status = status;
    if (status != GW_OK) {
        gw_fail(&job->result.err, (enum gw_status)status, sys, "as the test says");
    }
    gateway_job_done(job);
}

/* ---- records ---- */

static inline void world_put(struct world *w, enum cache_kind kind, struct gw_str name,
                             int64_t age_ms, enum gw_status status, int detail, struct gw_str value)
{
    struct cache_put put = {.kind = kind,
                            .name = name,
                            .record = {.status = status,
                                       .detail = detail,
                                       .checked_ms = gw_wall_ms() - age_ms,
                                       .value = value}};

    if (cache_put(w->gw->cache, &put, 1, &w->err) != GW_OK) {
        fail_msg("%s", w->err.text);
    }
}

/* ---- people ---- */

/* A subject of the account file with one group (or none), and a token of him. */
static inline void world_mint(struct world *w, const char *user, const char *group,
                              enum auth_role role, int64_t life_ms, char text[AUTH_TOKEN_LEN + 1],
                              struct auth_token *token)
{
    struct gw_str groups[1] = {gw_str_c(group)};
    struct auth_subject s = {.realm = GW_STR("file"),
                             .source_id = gw_str_c(user),
                             .name = gw_str_c(user),
                             .display = GW_STR(""),
                             .email = GW_STR(""),
                             .dn = GW_STR(""),
                             .state = AUTH_ACTIVE,
                             .groups = groups,
                             .n_groups = group[0] != '\0',
                             .checked_ms = gw_wall_ms()};
    struct auth_token t;

    s.id = auth_subject_id(s.realm, s.source_id, &w->arena);
    assert_int_equal(identity_put_subject(w->gw, &s, &w->err), GW_OK);
    assert_int_equal(auth_token_mint(text, &t, 'p', s.id, GW_STR("laptop"), role, gw_wall_ms(),
                                     gw_wall_ms() + life_ms, &w->err),
                     GW_OK);
    assert_int_equal(identity_put_token(w->gw, &t, &w->err), GW_OK);
    if (token != NULL) {
        *token = t;
    }
}

/* ---- requests ---- */

struct asker {
    struct gateway_request req;
    struct gateway_answer ans;
    char authorization[512], id[24];
    unsigned woken;
};

static inline void asker_wake(struct gateway_request *req)
{
    ((struct asker *)req->ctx)->woken++;
}

/* authorization: NULL, "Bearer ..." or "Basic USER:PASSWORD" in clear */
static inline void asker_begin(struct world *w, struct asker *a, const char *method,
                               const char *target, const char *authorization)
{
    static unsigned number;

    memset(a, 0, sizeof(*a));
    snprintf(a->id, sizeof(a->id), "test-%u", ++number);
    a->req = (struct gateway_request){.method = gw_str_c(method),
                                      .target = gw_str_c(target),
                                      .host = GW_STR("hub.test"),
                                      .scheme = GW_STR("http"),
                                      .peer_ip = GW_STR("127.0.0.1"),
                                      .id = gw_str_c(a->id),
                                      .wake = asker_wake,
                                      .ctx = a};
    if (authorization != NULL && strncmp(authorization, "Basic ", 6) == 0) {
        struct gw_buf b;

        gw_buf_init(&b, 512);
        gw_base64_encode(&b, gw_str_c(authorization + 6));
        snprintf(a->authorization, sizeof(a->authorization), "Basic %s", b.p);
        gw_buf_release(&b);
    } else if (authorization != NULL) {
        snprintf(a->authorization, sizeof(a->authorization), "%s", authorization);
    }
    a->req.authorization = gw_str_c(a->authorization);
    a->req.n_authorization = authorization != NULL;
    (void)gateway_begin(w->gw, &a->req);
}

static inline int asker_step(struct world *w, struct asker *a)
{
    return gateway_step(w->gw, &a->req, &a->ans);
}

static inline void asker_end(struct world *w, struct asker *a)
{
    gateway_end(w->gw, &a->req, a->ans.status, a->ans.size, true);
}

/* Steps until there is an answer, running what is asked for. */
static inline int asker_finish(struct world *w, struct asker *a)
{
    int rc;

    for (int i = 0; i < 20; i++) {
        rc = asker_step(w, a);
        if (rc != GW_AGAIN) {
            assert_int_equal(rc, GW_OK);
            return a->ans.status;
        }
        assert_true(w->n_posted > 0);
        world_run(w);
        assert_true(a->woken > 0);
    }
    fail_msg("no answer after 20 steps");
    return 0;
}

/* "" if the answer has no such header. */
static inline struct gw_str asker_header(const struct asker *a, const char *name)
{
    for (size_t i = 0; i < a->ans.n_headers; i++) {
        if (gw_str_ieq_c(a->ans.headers[i].name, name)) {
            return a->ans.headers[i].value;
        }
    }
    return GW_STR("");
}

/* Begin, finish, end: the status. */
static inline int ask(struct world *w, const char *method, const char *target,
                      const char *authorization)
{
    struct asker a;
    int status;

    asker_begin(w, &a, method, target, authorization);
    status = asker_finish(w, &a);
    asker_end(w, &a);
    return status;
}

#endif
