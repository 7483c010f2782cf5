/* SPDX-License-Identifier: Apache-2.0 */
/* /-/metrics: numbers move as they must, only those who may see it do, every worker counts. */
#include "gateway_fixture.h"

static struct gw_str scrape(struct world *w)
{
    struct asker a;
    struct gw_str text;

    asker_begin(w, &a, "GET", "/-/metrics", NULL);
    assert_int_equal(asker_finish(w, &a), 200);
    assert_string_equal(a.ans.content_type, "text/plain; version=0.0.4; charset=utf-8");
    text = gw_arena_dup(&w->arena, a.ans.memory);
    asker_end(w, &a);
    return text;
}

/* Of a sample as it is written before the blank; -1: there is none, or more than one. */
static long long value(struct gw_str text, const char *sample)
{
    struct gw_str rest = text, line, name;
    long long found = -1;

    while (gw_str_split(&rest, '\n', &line)) {
        struct gw_str number = line;

        if (line.n == 0 || line.p[0] == '#' || !gw_str_split(&number, ' ', &name) ||
            !gw_str_eq_c(name, sample)) {
            continue;
        }
        if (found != -1) {
            return -1;
        }
        found = strtoll(number.p, NULL, 10);
    }
    return found;
}

static long long get(struct world *w, const char *sample)
{
    long long n = value(scrape(w), sample);

    if (n < 0) {
        fail_msg("no sample, or two: %s", sample);
    }
    return n;
}

/* Sample and how much it goes up by the request. */
struct move {
    const char *sample;
    int by;
};

static void test_requests(void **state)
{
    char bearer[80] = "Bearer ";
    static const struct {
        const char *method, *target;
        bool anonymous;
        int status;
        struct move moves[4];
    } rows[] = {
        {"GET",
         "/api/whoami-v2",
         false,
         200,
         {{"hubgate_requests_total{route=\"identity\",status=\"2xx\"}", 1},
          {"hubgate_first_byte_seconds_count{cache=\"none\"}", 2}, /* and the scrape before */
          {"hubgate_policy_denies_total", 0}}},
        {"GET",
         "/nobody/knows",
         true,
         404,
         {{"hubgate_requests_total{route=\"unknown\",status=\"4xx\"}", 1}}},
        {"GET",
         "/acme/llm/resolve/main/a",
         true,
         401,
         {{"hubgate_requests_total{route=\"file\",status=\"4xx\"}", 1},
          {"hubgate_policy_denies_total", 1}}},
        {"GET",
         "/-/healthz",
         true,
         200,
         {{"hubgate_requests_total{route=\"other\",status=\"2xx\"}", 2},
          {"hubgate_sent_bytes_total{cache=\"hit\"}", 0}}},
    };
    struct world w;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, 3600000, bearer + 7, NULL);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_str before, after;

        before = scrape(&w);
        assert_int_equal(ask(&w, rows[i].method, rows[i].target, rows[i].anonymous ? NULL : bearer),
                         rows[i].status);
        after = scrape(&w);
        for (size_t k = 0; k < COUNT(rows[i].moves) && rows[i].moves[k].sample != NULL; k++) {
            long long a = value(before, rows[i].moves[k].sample);
            long long b = value(after, rows[i].moves[k].sample);

            if (a < 0 || b - a != rows[i].moves[k].by) {
                fail_msg("%s: %s went from %lld to %lld", rows[i].target, rows[i].moves[k].sample,
                         a, b);
            }
        }
    }
    world_release(&w);
}

static void test_who_may_read(void **state)
{
    static const struct {
        const char *method, *target, *host, *address;
        int status;
    } rows[] = {
        {"GET", "/-/metrics", "hub.test", "127.0.0.1", 200},
        {"HEAD", "/metrics", "hub.test", "::1", 200},
        {"GET", "/metrics", "10.1.2.3:9090", "127.0.0.1", 200}, /* asked by address */
        {"GET", "/metrics", "hub.test", "10.0.0.1", 404},
        {"GET", "/-/metrics", "elsewhere.test", "10.0.0.1", 404},
        {"GET", "/-/metrics", "hub.test", "unix:", 404},
        {"GET", "/-/metrics", "hub.test", "", 404},
        {"POST", "/-/metrics", "hub.test", "127.0.0.1", 405},
        {"POST", "/-/metrics", "hub.test", "127.0.0.2", 404},
    };
    struct asker known, unknown;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    for (size_t i = 0; i < COUNT(rows); i++) {
        asker_begin(&w, &known, rows[i].method, rows[i].target, NULL);
        known.req.host = gw_str_c(rows[i].host);
        known.req.peer_ip = gw_str_c(rows[i].address);
        if (asker_finish(&w, &known) != rows[i].status) {
            fail_msg("row %zu: %d", i, known.ans.status);
        }
        if (rows[i].status == 404) { /* as if there were no such page */
            asker_begin(&w, &unknown, rows[i].method, "/-/nothing", NULL);
            assert_int_equal(asker_finish(&w, &unknown), 404);
            assert_true(gw_str_eq(known.ans.memory, unknown.ans.memory));
            assert_int_equal(known.ans.n_headers, unknown.ans.n_headers);
            asker_end(&w, &unknown);
        }
        asker_end(&w, &known);
    }
    world_release(&w);
}

static void test_networks(void **state)
{
    struct asker a;
    struct world w;

    (void)state;
    world_init(&w);
    world_file(&w, "hubgate.yaml", FIXTURE_CONFIG "metrics_allow: [\"10.0.0.0/8\"]\n");
    world_open(&w);
    asker_begin(&w, &a, "GET", "/metrics", NULL);
    a.req.peer_ip = GW_STR("10.20.30.40");
    assert_int_equal(asker_finish(&w, &a), 200);
    asker_end(&w, &a);
    assert_int_equal(ask(&w, "GET", "/metrics", NULL), 404);
    world_release(&w);
}

/* What waits, and for whom; who died leaves no gauge behind. */
static void test_gauges(void **state)
{
    struct gateway_shared *shared;
    char bearer[80] = "Bearer ";
    struct asker a, b;
    struct world w;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    shared = w.shared;
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, 3600000, bearer + 7, NULL);
    w.gw->lanes[GW_PEER_UPSTREAM].cap = 1;
    asker_begin(&w, &a, "GET", "/api/models/ns/one", bearer);
    asker_begin(&w, &b, "GET", "/api/models/ns/two", bearer);
    assert_int_equal(asker_step(&w, &a), GW_AGAIN);
    assert_int_equal(asker_step(&w, &b), GW_AGAIN);
    assert_int_equal(get(&w, "hubgate_requests_parked"), 2);
    assert_int_equal(get(&w, "hubgate_jobs_running{peer=\"upstream\"}"), 1);
    assert_int_equal(get(&w, "hubgate_jobs_queued{peer=\"upstream\"}"), 1);
    assert_int_equal(get(&w, "hubgate_jobs_running{peer=\"disk\"}"), 0);
    asker_end(&w, &b); /* that client leaves; its job goes on */
    assert_int_equal(get(&w, "hubgate_requests_parked"), 1);
    world_end_job(&w, GW_UNAVAILABLE, 0);
    assert_int_equal(asker_finish(&w, &a), 503);
    asker_end(&w, &a);
    assert_int_equal(get(&w, "hubgate_requests_parked"), 0);
    assert_int_equal(get(&w, "hubgate_requests_total{route=\"document\",status=\"5xx\"}"), 1);
    /* another slot: one that died with gauges set, and one that lives */
    atomic_store(&shared->slots[7].parked, 5);
    atomic_store(&shared->slots[7].denies, 3);
    atomic_store(&shared->cache.slots[7].fills, 2);
    assert_int_equal(get(&w, "hubgate_requests_parked"), 0);
    assert_int_equal(get(&w, "hubgate_fills_in_flight"), 0);
    assert_int_equal(get(&w, "hubgate_policy_denies_total"), 3);
    assert_int_equal(get(&w, "hubgate_workers"), 1);
    atomic_store(&shared->cache.slots[7].pid, (int)getpid());
    assert_int_equal(get(&w, "hubgate_requests_parked"), 5);
    assert_int_equal(get(&w, "hubgate_fills_in_flight"), 2);
    assert_int_equal(get(&w, "hubgate_workers"), 2);
    atomic_store(&shared->cache.slots[7].pid, 0);
    world_run(&w);
    world_release(&w);
}

static void test_logins(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    assert_int_equal(ask(&w, "POST", "/api/gateway/tokens", "Basic ann:wrong"), 401);
    assert_int_equal(get(&w, "hubgate_logins_total{result=\"failed\"}"), 1);
    assert_int_equal(get(&w, "hubgate_logins_total{result=\"ok\"}"), 0);
    world_release(&w);
}

/* The histogram as the format wants it: cumulative, the last bucket is the count. */
static void test_histogram(void **state)
{
    struct gw_str text;
    struct world w;
    long long last = 0, n;
    char sample[96];
    static const char *const bounds[] = {"0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005",
                                         "0.01",   "0.025",   "0.05",   "0.1",   "0.25",   "1",
                                         "2.5",    "10",      "30",     "+Inf"};

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    for (int i = 0; i < 20; i++) {
        (void)ask(&w, "GET", "/-/healthz", NULL);
    }
    text = scrape(&w);
    for (size_t i = 0; i < COUNT(bounds); i++) {
        snprintf(sample, sizeof(sample),
                 "hubgate_first_byte_seconds_bucket{cache=\"none\",le=\"%s\"}", bounds[i]);
        n = value(text, sample);
        assert_true(n >= last);
        last = n;
    }
    assert_int_equal(last, 20);
    assert_int_equal(value(text, "hubgate_first_byte_seconds_count{cache=\"none\"}"), 20);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_who_may_read),
        cmocka_unit_test(test_networks), cmocka_unit_test(test_gauges),
        cmocka_unit_test(test_logins),   cmocka_unit_test(test_histogram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
