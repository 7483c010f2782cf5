/* SPDX-License-Identifier: Apache-2.0 */
/* A fact is young enough, stale, expired, or fetched: the whole table of facts.c, with a real cache
 * and jobs that end as the test says. */
#include "gateway_fixture.h"

#define MINUTE (INT64_C(60) * 1000)
#define HOUR (60 * MINUTE)
#define TTL MINUTE /* the defaults of upstream.ttl and upstream.stale_max */
#define STALE HOUR
#define NEVER (-1)  /* no job is expected */
#define KEEPS (-99) /* the job puts a new record and ends well */

struct row {
    const char *what;
    enum fact_life life;
    bool held;
    enum gw_status status; /* of the record */
    int detail;
    int64_t age_ms;
    int job;         /* how the job ends; NEVER: none is started */
    bool background; /* the answer does not wait for it */
    int rc;          /* of fact_get in the end */
    enum gateway_came came;
    bool warn;
    const char *value; /* of the record that is used */
};

static const struct row rows[] = {
    {"within ttl", FACT_TTL, true, GW_OK, 0, TTL - 5000, NEVER, false, GW_OK, CAME_HIT, false,
     "old"},
    {"just now", FACT_TTL, true, GW_OK, 0, 0, NEVER, false, GW_OK, CAME_HIT, false, "old"},
    {"stale: at once, and one call", FACT_TTL, true, GW_OK, 0, TTL + 5000, KEEPS, true, GW_OK,
     CAME_STALE, false, "old"},
    {"as stale as may be", FACT_TTL, true, GW_OK, 0, STALE - 5000, KEEPS, true, GW_OK, CAME_STALE,
     false, "old"},
    {"expired: waits", FACT_TTL, true, GW_OK, 0, STALE + 5000, KEEPS, false, GW_OK, CAME_MISS,
     false, "new"},
    {"expired, upstream down: old", FACT_TTL, true, GW_OK, 0, STALE + 5000, GW_UNAVAILABLE, false,
     GW_OK, CAME_STALE, true, "old"},
    {"expired, upstream hangs: old", FACT_TTL, true, GW_OK, 0, 1000 * STALE, GW_TIMEOUT, false,
     GW_OK, CAME_STALE, true, "old"},
    {"expired, upstream talks nonsense: old", FACT_TTL, true, GW_OK, 0, STALE + 5000, GW_INVALID,
     false, GW_OK, CAME_STALE, true, "old"},
    {"absent: waits", FACT_TTL, false, 0, 0, 0, KEEPS, false, GW_OK, CAME_MISS, false, "new"},
    {"absent, upstream down", FACT_TTL, false, 0, 0, 0, GW_UNAVAILABLE, false, GW_UNAVAILABLE,
     CAME_MISS, false, NULL},
    {"absent, not kept", FACT_TTL, false, 0, 0, 0, GW_OK, false, GW_UNAVAILABLE, CAME_MISS, false,
     NULL},
    {"a negative answer within its ttl", FACT_TTL, true, GW_NOT_FOUND, HUB_REPO_NOT_FOUND,
     GATEWAY_NEGATIVE_TTL_MS - 5000, NEVER, false, GW_OK, CAME_HIT, false, "old"},
    {"a negative answer is never stale", FACT_TTL, true, GW_NOT_FOUND, HUB_REPO_NOT_FOUND,
     GATEWAY_NEGATIVE_TTL_MS + 5000, KEEPS, false, GW_OK, CAME_MISS, false, "new"},
    {"a negative answer, upstream down: an outage, not a 404", FACT_TTL, true, GW_NOT_FOUND,
     HUB_REPO_NOT_FOUND, GATEWAY_NEGATIVE_TTL_MS + 5000, GW_UNAVAILABLE, false, GW_UNAVAILABLE,
     CAME_MISS, false, NULL},
    {"by commit: for ever", FACT_FOREVER, true, GW_OK, 0, 1000 * STALE, NEVER, false, GW_OK,
     CAME_HIT, false, "old"},
    {"by commit: a path that is not there, for ever", FACT_FOREVER, true, GW_NOT_FOUND,
     HUB_ENTRY_NOT_FOUND, 1000 * STALE, NEVER, false, GW_OK, CAME_HIT, false, "old"},
    {"by commit: no such repo, not for ever", FACT_FOREVER, true, GW_NOT_FOUND, HUB_REPO_NOT_FOUND,
     GATEWAY_NEGATIVE_TTL_MS + 5000, KEEPS, false, GW_OK, CAME_MISS, false, "new"},
    {"private, young", FACT_PRIVATE, true, GW_OK, 0, 0, NEVER, false, GW_OK, CAME_HIT, false,
     "old"},
    {"private, old: waits", FACT_PRIVATE, true, GW_OK, 0, GATEWAY_PRIVATE_TTL_MS + 5000, KEEPS,
     false, GW_OK, CAME_MISS, false, "new"},
    {"private, old, data/ is away", FACT_PRIVATE, true, GW_OK, 0, GATEWAY_PRIVATE_TTL_MS + 5000,
     GW_IO, false, GW_IO, CAME_MISS, false, NULL},
    {"token, young", FACT_RECORD, true, GW_OK, 0, GATEWAY_RECORD_AGE_MS - 5000, NEVER, false, GW_OK,
     CAME_HIT, false, "old"},
    {"token, old: read again", FACT_RECORD, true, GW_OK, 0, GATEWAY_RECORD_AGE_MS + 5000, KEEPS,
     false, GW_OK, CAME_HIT, false, "new"},
    {"token, old, data/ is away: not with what it was", FACT_RECORD, true, GW_OK, 0,
     GATEWAY_RECORD_AGE_MS + 5000, GW_IO, false, GW_IO, CAME_HIT, false, NULL},
    {"the clock was set back a little", FACT_TTL, true, GW_OK, 0, -5 * MINUTE, NEVER, false, GW_OK,
     CAME_HIT, false, "old"},
    {"the clock was set back a lot", FACT_TTL, true, GW_OK, 0, -24 * HOUR, KEEPS, false, GW_OK,
     CAME_MISS, false, "new"},
    {"the clock was set back a lot, upstream down", FACT_TTL, true, GW_OK, 0, -24 * HOUR,
     GW_UNAVAILABLE, false, GW_OK, CAME_STALE, true, "old"},
    {"the clock was set back a lot: tokens", FACT_RECORD, true, GW_OK, 0, -24 * HOUR, KEEPS, false,
     GW_OK, CAME_HIT, false, "new"},
};

static enum gw_peer peer_of(enum fact_life life)
{
    return life == FACT_PRIVATE  ? GW_PEER_REPO
           : life == FACT_RECORD ? GW_PEER_DISK
                                 : GW_PEER_UPSTREAM;
}

static void end_job(struct world *w, const struct row *row, const struct fact *f)
{
    assert_int_equal(w->n_posted, 1);
    if (row->job == KEEPS) {
        world_put(w, f->kind, f->name, 0, GW_OK, 0, GW_STR("new"));
    }
    world_end_job(w, row->job == KEEPS ? GW_OK : row->job, 0);
}

static void run_row(const struct row *row, size_t number)
{
    struct gw_error err = {0};
    struct cache_record rec;
    struct world w;
    struct asker a;
    char name[32];
    int rc;

    world_init(&w);
    world_open(&w);
    snprintf(name, sizeof(name), "info\nfact %zu", number);
    asker_begin(&w, &a, "GET", "/api/models/o/m", NULL);
    struct fact f = {.kind = CACHE_DOCUMENT,
                     .name = gw_str_c(name),
                     .life = row->life,
                     .want = {.peer = peer_of(row->life), .key = gw_str_c(name)}};

    if (row->held) {
        world_put(&w, f.kind, f.name, row->age_ms, row->status, row->detail, GW_STR("old"));
    }
    a.req.state->age_ms = -1;
    rc = fact_get(w.gw, &a.req, &f, &rec, &err);
    if (row->job == NEVER) {
        assert_int_equal(w.n_posted, 0);
    } else if (row->background) {
        assert_int_equal(rc, GW_OK);
        assert_int_equal(w.n_posted, 1);
    } else {
        assert_int_equal(rc, GW_AGAIN);
        end_job(&w, row, &f);
        assert_int_equal(a.woken, 1);
        rc = fact_get(w.gw, &a.req, &f, &rec, &err);
        assert_int_equal(w.n_posted, 0); /* nothing is asked twice */
    }
    if (rc != row->rc || a.req.state->came != row->came || a.req.state->warn_stale != row->warn ||
        (row->value != NULL && !gw_str_eq_c(rec.value, row->value)) ||
        (rc != GW_OK && (int)err.status != rc)) {
        fail_msg("%s: %s (%s), came %d, warn %d", row->what, gw_status_name((enum gw_status)rc),
                 gw_status_name(err.status), (int)a.req.state->came, a.req.state->warn_stale);
    }
    if (row->life != FACT_RECORD && rc == GW_OK) {
        assert_true(a.req.state->age_ms >= 0);
    }
    if (row->background) { /* a second asker meanwhile starts no second call */
        struct asker b;

        asker_begin(&w, &b, "GET", "/api/models/o/m", NULL);
        assert_int_equal(fact_get(w.gw, &b.req, &f, &rec, &err), GW_OK);
        assert_int_equal(w.n_posted, 1);
        asker_end(&w, &b);
        end_job(&w, row, &f);
        assert_int_equal(a.woken, 0);
    }
    asker_end(&w, &a);
    world_release(&w);
}

static void test_lives(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        run_row(&rows[i], i);
    }
}

/* While the breaker is open a stale answer says so and starts nothing; an absent one fails at
 * once. */
static void test_breaker_open(void **state)
{
    struct gw_error err = {0};
    struct cache_record rec;
    struct world w;
    struct asker a;
    struct fact f = {.kind = CACHE_DOCUMENT,
                     .name = GW_STR("info\nx"),
                     .life = FACT_TTL,
                     .want = {.peer = GW_PEER_UPSTREAM, .key = GW_STR("info\nx")}};

    (void)state;
    world_init(&w);
    world_open(&w);
    w.gw->shared->breakers[GW_PEER_UPSTREAM].failures = 5;
    w.gw->shared->breakers[GW_PEER_UPSTREAM].status = GW_UNAVAILABLE;
    w.gw->shared->breakers[GW_PEER_UPSTREAM].open_until_ms = gw_mono_ms() + MINUTE;
    world_put(&w, f.kind, f.name, TTL + 5000, GW_OK, 0, GW_STR("old"));
    asker_begin(&w, &a, "GET", "/api/models/o/m", NULL);
    assert_int_equal(fact_get(w.gw, &a.req, &f, &rec, &err), GW_OK);
    assert_true(a.req.state->warn_stale);
    assert_int_equal(a.req.state->came, CAME_STALE);
    f.name = f.want.key = GW_STR("info\ny");
    assert_int_equal(fact_get(w.gw, &a.req, &f, &rec, &err), GW_UNAVAILABLE);
    assert_string_equal(err.text, "upstream does not answer for now");
    assert_int_equal(w.n_ever, 0);
    assert_int_equal(a.woken, 0);
    asker_end(&w, &a);
    world_release(&w);
}

/* After the deadline nothing is asked for any more; what is held is still used. */
static void test_deadline(void **state)
{
    struct gw_error err = {0};
    struct cache_record rec;
    struct world w;
    struct asker a;
    struct fact f = {.kind = CACHE_DOCUMENT,
                     .name = GW_STR("info\nx"),
                     .life = FACT_TTL,
                     .want = {.peer = GW_PEER_UPSTREAM, .key = GW_STR("info\nx")}};

    (void)state;
    world_init(&w);
    world_open(&w);
    asker_begin(&w, &a, "GET", "/api/models/o/m", NULL);
    assert_int_equal(fact_get(w.gw, &a.req, &f, &rec, &err), GW_AGAIN);
    gateway_expire(w.gw, &a.req);
    assert_int_equal(fact_get(w.gw, &a.req, &f, &rec, &err), GW_TIMEOUT);
    world_put(&w, f.kind, f.name, STALE + 5000, GW_OK, 0, GW_STR("old"));
    assert_int_equal(fact_get(w.gw, &a.req, &f, &rec, &err), GW_OK);
    assert_true(a.req.state->warn_stale);
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(a.woken, 0); /* it left */
    asker_end(&w, &a);
    world_release(&w);
}

static void test_no_memory_for_the_name(void **state)
{
    struct gw_error err = {0};
    struct cache_record rec;
    struct world w;
    struct asker a;
    struct fact f = {.kind = CACHE_DOCUMENT, .life = FACT_TTL, .want = {.key = GW_STR("x")}};

    (void)state;
    world_init(&w);
    world_open(&w);
    asker_begin(&w, &a, "GET", "/api/models/o/m", NULL);
    assert_int_equal(fact_get(w.gw, &a.req, &f, &rec, &err), GW_NO_MEMORY);
    f.name = GW_STR("x");
    f.want.key.p = NULL;
    assert_int_equal(fact_get(w.gw, &a.req, &f, &rec, &err), GW_NO_MEMORY);
    assert_int_equal(w.n_ever, 0);
    asker_end(&w, &a);
    world_release(&w);
}

static void test_join(void **state)
{
    struct gw_arena a;
    struct gw_str s;

    (void)state;
    gw_arena_init(&a, 4096);
    s = FACT_JOIN(&a, GW_STR("a"), GW_STR(""), GW_STR("c"));
    assert_true(gw_str_eq_c(s, "a\n\nc"));
    s = FACT_JOIN(&a, GW_STR(""));
    assert_true(s.p != NULL && s.n == 0);
    gw_arena_release(&a);
    gw_arena_init(&a, 0);
    assert_null(FACT_JOIN(&a, GW_STR("a")).p);
    gw_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lives),    cmocka_unit_test(test_breaker_open),
        cmocka_unit_test(test_deadline), cmocka_unit_test(test_no_memory_for_the_name),
        cmocka_unit_test(test_join),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
