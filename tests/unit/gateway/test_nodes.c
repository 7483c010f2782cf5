/* SPDX-License-Identifier: Apache-2.0 */
/* One call for all nodes: two gateways with a real Redis between them, upstream's jobs done by
 * hand. */
#include "gateway_fixture.h"

#include "gateway/jobs.h"
#include "gateway/nodes.h"
#include "tests/unit/cache/redis_fixture.h"

static struct redis redis;

static int start(void **state)
{
    (void)state;
    redis_init(&redis, "");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    redis_release(&redis);
    return 0;
}

static void node_begin(struct world *w)
{
    char text[1024];

    world_init(w);
    snprintf(text, sizeof(text),
             FIXTURE_CONFIG "cluster_key_file: key\nredis: {servers: [\"redis://127.0.0.1:%u\"], "
                            "timeout: 2s}\n",
             (unsigned)redis.port);
    world_file(w, "hubgate.yaml", text);
    world_file(w, "key", "0123456789012345678901234567890123456789");
    world_open(w);
}

static void two_nodes(struct world *a, struct world *b)
{
    must(&redis, "FLUSHALL");
    node_begin(a);
    node_begin(b);
}

static struct gw_want want_of(const char *key)
{
    return (struct gw_want){.peer = GW_PEER_UPSTREAM, .key = gw_str_c(key), .arg = GW_STR("")};
}

static int need(struct world *w, struct asker *a, const char *key)
{
    struct gw_want want = want_of(key);

    return fact_need(w->gw, &a->req, &want, NULL, &w->err);
}

/* A tick, and what it may have begun besides. */
static void tick(struct world *w)
{
    gateway_tick(w->gw);
    for (size_t i = 0; i < w->n_posted;) {
        if (gw_str_eq_c(w->posted[i]->fields[0], "listen")) {
            struct gateway_job *job = world_take(w, i);

            gateway_job_run(job);
            gateway_job_done(job);
        } else {
            i++;
        }
    }
}

/* The oldest job is one of Redis with this verb: it runs. */
static void run_redis(struct world *w, const char *verb)
{
    struct gateway_job *job;

    assert_true(w->n_posted > 0);
    job = world_take(w, 0);
    assert_int_equal(job->peer, GW_PEER_REDIS);
    if (!gw_str_eq_c(job->fields[0], verb) && !gw_str_starts(job->key, gw_str_c(verb))) {
        fail_msg("not %s but " GW_STR_FMT, verb, GW_STR_ARG(job->key));
    }
    gateway_job_run(job);
    gateway_job_done(job);
}

/* The oldest job is upstream's: it "calls", and brings this. NULL: it fails. */
static void call(struct world *w, enum cache_kind kind, const char *name, const char *value)
{
    struct gateway_job *job;

    assert_true(w->n_posted > 0);
    job = world_take(w, 0);
    assert_int_equal(job->peer, GW_PEER_UPSTREAM);
    job->ran = true;
    job->result.status = value != NULL
                             ? job_put(job, kind, gw_str_c(name), GW_OK, 0, gw_str_c(value))
                             : gw_fail(&job->result.err, GW_UNAVAILABLE, 503, "as the test says");
    gateway_job_done(job);
}

static void assert_held(struct world *w, enum cache_kind kind, const char *name, const char *value)
{
    struct cache_record rec;
    int rc = cache_get(w->gw->cache, kind, gw_str_c(name), &w->arena, &rec);

    assert_int_equal(rc, value != NULL ? GW_OK : GW_NOT_FOUND);
    assert_true(value == NULL || gw_str_eq_c(rec.value, value));
}

static void begin(struct world *w, struct asker *a)
{
    asker_begin(w, a, "GET", "/api/models/o/m", NULL);
}

#define INFO "info\nmodel\no\nm\nmain\n"
#define DOC "document\n/api/models/o/m/refs"
#define DOC_NAME "/api/models/o/m/refs"

static void test_one_brings_the_other_takes(void **state)
{
    static const struct {
        const char *key;
        enum cache_kind kind;
        const char *name;
    } rows[] = {
        {INFO, CACHE_REF, "model\no\nm\nmain"},
        {DOC, CACHE_DOCUMENT, DOC_NAME},
        {"tree\nmodel\no\nm\n" COMMIT "\n\nr-\n0\n0.", CACHE_TREE,
         "model\no\nm\n" COMMIT "\n\nr-\n0\n0."},
        {"wholetree\nmodel\no\nm\n" COMMIT, CACHE_COMMIT, "model\no\nm\n" COMMIT},
    };
    struct world a, b;

    (void)state;
    two_nodes(&a, &b);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct asker one, two;

        begin(&a, &one);
        begin(&b, &two);
        assert_int_equal(need(&a, &one, rows[i].key), GW_AGAIN);
        run_redis(&a, "ask");
        assert_int_equal(one.woken, 0);
        call(&a, rows[i].kind, rows[i].name, "value");
        assert_int_equal(one.woken, 1); /* nobody waits for what comes now */
        run_redis(&a, "give");
        assert_int_equal(a.n_posted, 0);

        assert_int_equal(need(&b, &two, rows[i].key), GW_AGAIN);
        run_redis(&b, "ask");
        assert_int_equal(b.n_posted, 0);
        assert_int_equal(two.woken, 1);
        assert_int_equal(two.req.state->n_wants - two.req.state->n_elsewhere, 0);
        assert_held(&b, rows[i].kind, rows[i].name, "value");
        asker_end(&a, &one);
        asker_end(&b, &two);
    }
    world_release(&a);
    world_release(&b);
}

/* While one calls the other asks Redis again, and not upstream. */
static void test_the_other_waits(void **state)
{
    struct asker one, two;
    struct world a, b;

    (void)state;
    two_nodes(&a, &b);
    begin(&a, &one);
    begin(&b, &two);
    assert_int_equal(need(&a, &one, DOC), GW_AGAIN);
    run_redis(&a, "ask");
    assert_int_equal(need(&b, &two, DOC), GW_AGAIN);
    for (int i = 0; i < 3; i++) {
        run_redis(&b, "ask");
        assert_int_equal(b.n_posted, 0);
        assert_int_equal(b.gw->lanes[GW_PEER_UPSTREAM].running, 0); /* it holds no place */
        b.gw->lanes[GW_PEER_UPSTREAM].jobs->again_ms = gw_mono_ms() + 100000;
        tick(&b);
        assert_int_equal(b.n_posted, 0);
        b.gw->lanes[GW_PEER_UPSTREAM].jobs->again_ms = gw_mono_ms();
        tick(&b);
    }
    call(&a, CACHE_DOCUMENT, DOC_NAME, "value");
    run_redis(&a, "give");
    run_redis(&b, "ask");
    assert_int_equal(two.woken, 1);
    assert_held(&b, CACHE_DOCUMENT, DOC_NAME, "value");
    asker_end(&a, &one);
    asker_end(&b, &two);
    world_release(&a);
    world_release(&b);
}

/* The tree of the commit brings an entry while another node is asked for it: no call. */
static void test_it_comes_another_way(void **state)
{
    static const char key[] = "paths\nmodel\no\nm\n" COMMIT "\nhash";
    static const char name[] = "model\no\nm\n" COMMIT "\nconfig.json";
    struct gw_want want = {
        .peer = GW_PEER_UPSTREAM, .key = gw_str_c(key), .arg = GW_STR("config.json")};
    struct asker one;
    struct world a, b;

    (void)state;
    two_nodes(&a, &b);
    begin(&a, &one);
    assert_int_equal(fact_need(a.gw, &one.req, &want, NULL, &a.err), GW_AGAIN);
    world_put(&a, CACHE_FILE, gw_str_c(name), 0, GW_OK, 0, GW_STR("entry"));
    run_redis(&a, "ask");
    assert_int_equal(one.woken, 1);
    assert_int_equal(a.n_posted, 0);
    asker_end(&a, &one);
    world_release(&a);
    world_release(&b);
}

/* It failed: its lease is gone with it, the other one calls. It never comes back: not for ever. */
static void test_the_one_fails(void **state)
{
    struct asker one, two;
    struct world a, b;

    (void)state;
    two_nodes(&a, &b);
    begin(&a, &one);
    begin(&b, &two);
    assert_int_equal(need(&a, &one, DOC), GW_AGAIN);
    run_redis(&a, "ask");
    assert_int_equal(need(&b, &two, DOC), GW_AGAIN);
    run_redis(&b, "ask");
    call(&a, CACHE_DOCUMENT, DOC_NAME, NULL);
    run_redis(&a, "give");
    b.gw->lanes[GW_PEER_UPSTREAM].jobs->again_ms = gw_mono_ms();
    tick(&b);
    run_redis(&b, "ask");
    call(&b, CACHE_DOCUMENT, DOC_NAME, "value");
    assert_int_equal(two.woken, 1);
    asker_end(&b, &two);

    begin(&b, &two);
    assert_int_equal(need(&a, &one, "document\n/other"), GW_AGAIN);
    run_redis(&a, "ask"); /* and then nothing more is heard of it */
    while (b.n_posted != 0) {
        run_redis(&b, "give");
    }
    assert_int_equal(need(&b, &two, "document\n/other"), GW_AGAIN);
    run_redis(&b, "ask");
    b.gw->lanes[GW_PEER_UPSTREAM].jobs->again_ms = gw_mono_ms();
    b.gw->lanes[GW_PEER_UPSTREAM].jobs->alone_ms = gw_mono_ms();
    tick(&b);
    call(&b, CACHE_DOCUMENT, "/other", "value");
    assert_int_equal(two.woken, 1);
    asker_end(&a, &one);
    asker_end(&b, &two);
    world_release(&a);
    world_release(&b);
}

/* What is private, or who somebody is, never goes there; a breaker that is open is not waited for.
 */
static void test_what_is_not_shared(void **state)
{
    struct gw_want repo = {
        .peer = GW_PEER_REPO, .key = GW_STR("pref\nmodel\nacme\nx\nmain"), .arg = GW_STR("")};
    struct gateway_job *job;
    struct asker one;
    struct world a, b;

    (void)state;
    two_nodes(&a, &b);
    begin(&a, &one);
    assert_int_equal(fact_need(a.gw, &one.req, &repo, NULL, &a.err), GW_AGAIN);
    job = world_take(&a, 0);
    assert_int_equal(job->peer, GW_PEER_REPO);
    job->ran = true;
    job->result.status =
        job_put(job, CACHE_REF, GW_STR("model\nacme\nx\nmain"), GW_OK, 0, GW_STR("secret"));
    gateway_job_done(job);
    assert_int_equal(a.n_posted, 0);
    asker_end(&a, &one);

    begin(&a, &one);
    atomic_store(&a.gw->shared->breakers[GW_PEER_REDIS].open_until_ms, gw_mono_ms() + 60000);
    assert_int_equal(need(&a, &one, DOC), GW_AGAIN);
    call(&a, CACHE_DOCUMENT, DOC_NAME, "value");
    assert_int_equal(one.woken, 1);
    assert_int_equal(a.n_posted, 0);
    assert_int_equal(a.n_ever, 2);
    asker_end(&a, &one);
    world_release(&a);
    world_release(&b);
}

/* A revoked token is refused by the other one as soon as it has listened. */
static void test_told(void **state)
{
    char text[AUTH_TOKEN_LEN + 1];
    struct auth_token t;
    struct world a, b;

    (void)state;
    two_nodes(&a, &b);
    gateway_tick(b.gw);
    run_redis(&b, "listen");
    world_mint(&b, "ann", "eng", AUTH_ROLE_READ, 3600000, text, &t);
    assert_int_equal(nodes_tell_now(a.gw, CACHE_SUBJECT, GW_STR("other"), &a.err), GW_OK);
    assert_int_equal(nodes_tell_now(a.gw, CACHE_TOKEN, gw_str_c(t.id), &a.err), GW_OK);
    gateway_tick(b.gw);
    assert_int_equal(b.n_posted, 0); /* once a second */
    b.gw->shared->listened_ms -= 2000;
    gateway_tick(b.gw);
    run_redis(&b, "listen");
    assert_held(&b, CACHE_TOKEN, t.id, NULL);
    gw_wipe(text, sizeof(text));
    world_release(&a);
    world_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_brings_the_other_takes), cmocka_unit_test(test_the_other_waits),
        cmocka_unit_test(test_it_comes_another_way),       cmocka_unit_test(test_the_one_fails),
        cmocka_unit_test(test_what_is_not_shared),         cmocka_unit_test(test_told),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
