/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for which job: one job for many, caps, deadlines, the breaker, requests that end while
 * they wait. */
#include "gateway_fixture.h"

#include "base/alloc.h"

static struct gw_want want_of(enum gw_peer peer, const char *key)
{
    return (struct gw_want){.peer = peer, .key = gw_str_c(key), .arg = GW_STR("arg")};
}

static int need(struct world *w, struct asker *a, enum gw_peer peer, const char *key)
{
    struct gw_want want = want_of(peer, key);
    struct gw_error err = {0};
    int rc = fact_need(w->gw, &a->req, &want, NULL, &err);

    assert_true(rc == GW_OK || rc == GW_AGAIN || (int)err.status == rc);
    return rc;
}

static void begin(struct world *w, struct asker *a)
{
    asker_begin(w, a, "GET", "/api/models/o/m", NULL);
}

static void test_one_job_for_many(void **state)
{
    struct gateway_result *result = NULL;
    struct gw_error err = {0};
    struct asker a[5];
    struct world w;
    struct gw_want want = want_of(GW_PEER_UPSTREAM, "info\nx");

    (void)state;
    world_init(&w);
    world_open(&w);
    for (size_t i = 0; i < COUNT(a); i++) {
        begin(&w, &a[i]);
        assert_int_equal(need(&w, &a[i], GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    }
    assert_int_equal(w.n_posted, 1);
    assert_true(gw_str_eq_c(w.posted[0]->arg, "arg"));
    assert_int_equal(w.posted[0]->n_fields, 2);
    /* one leaves, one passes its deadline: the others are not disturbed */
    asker_end(&w, &a[2]);
    gateway_expire(w.gw, &a[4].req);
    world_end_job(&w, GW_OK, 0);
    for (size_t i = 0; i < COUNT(a); i++) {
        assert_int_equal(a[i].woken, i != 2 && i != 4);
    }
    assert_int_equal(need(&w, &a[0], GW_PEER_UPSTREAM, "info\nx"), GW_OK);
    assert_int_equal(fact_need(w.gw, &a[1].req, &want, &result, &err), GW_OK);
    assert_int_equal(result->status, GW_OK);
    assert_int_equal(need(&w, &a[4], GW_PEER_UPSTREAM, "info\nx"), GW_TIMEOUT);
    assert_int_equal(w.n_posted, 0);
    for (size_t i = 0; i < COUNT(a); i++) {
        if (i != 2) {
            asker_end(&w, &a[i]);
        }
    }
    world_release(&w);
}

/* Whatever order they leave in, the list stays whole. */
static void test_leaving(void **state)
{
    static const size_t orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 0, 3, 1}};

    (void)state;
    for (size_t o = 0; o < COUNT(orders); o++) {
        for (size_t leave = 0; leave <= 4; leave++) {
            struct asker a[4];
            struct world w;

            world_init(&w);
            world_open(&w);
            for (size_t i = 0; i < 4; i++) {
                begin(&w, &a[i]);
                assert_int_equal(need(&w, &a[i], GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
            }
            for (size_t i = 0; i < leave; i++) {
                asker_end(&w, &a[orders[o][i]]);
            }
            world_end_job(&w, GW_OK, 0);
            for (size_t i = leave; i < 4; i++) {
                assert_int_equal(a[orders[o][i]].woken, 1);
                asker_end(&w, &a[orders[o][i]]);
            }
            world_release(&w);
        }
    }
}

/* A step that is run although the request is parked does not enter a list twice. */
static void test_parked_twice(void **state)
{
    struct asker a, b;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    begin(&w, &a);
    begin(&w, &b);
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    assert_int_equal(need(&w, &b, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    assert_int_equal(need(&w, &a, GW_PEER_DISK, "token\nx"), GW_AGAIN); /* waits for that now */
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(a.woken, 0);
    assert_int_equal(b.woken, 1);
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(a.woken, 1);
    asker_end(&w, &a);
    asker_end(&w, &b);
    world_release(&w);
}

static void test_cap(void **state)
{
    struct asker a[40];
    struct world w;
    char key[32];
    size_t cap;

    (void)state;
    world_init(&w);
    world_open(&w);
    cap = w.gw->lanes[GW_PEER_UPSTREAM].cap;
    assert_int_equal(cap, 16);
    for (size_t i = 0; i < COUNT(a); i++) {
        begin(&w, &a[i]);
        snprintf(key, sizeof(key), "info\n%zu", i);
        assert_int_equal(need(&w, &a[i], GW_PEER_UPSTREAM, key), GW_AGAIN);
    }
    assert_int_equal(w.n_posted, cap);
    /* another peer is not held up */
    assert_int_equal(need(&w, &a[39], GW_PEER_DISK, "token\nx"), GW_AGAIN);
    assert_int_equal(w.n_posted, cap + 1);
    for (size_t ended = 1; ended <= COUNT(a); ended++) {
        world_end_job(&w, GW_OK, 0); /* in order; each end starts the next */
        assert_true(w.gw->lanes[GW_PEER_UPSTREAM].running <= cap);
    }
    assert_int_equal(w.n_ever, COUNT(a) + 1);
    while (w.n_posted != 0) {
        world_end_job(&w, GW_OK, 0);
    }
    for (size_t i = 0; i < COUNT(a); i++) {
        assert_int_equal(a[i].woken, 1);
        asker_end(&w, &a[i]);
    }
    world_release(&w);
}

/* The pool refuses a job: nobody is lost, the next tick posts it. */
static void test_full_pool(void **state)
{
    struct asker a, b;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    begin(&w, &a);
    begin(&w, &b);
    w.refuse = true;
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    assert_int_equal(need(&w, &b, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    assert_int_equal(w.n_posted, 0);
    gateway_tick(w.gw);
    assert_int_equal(w.n_posted, 0);
    w.refuse = false;
    gateway_tick(w.gw);
    assert_int_equal(w.n_posted, 1);
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(a.woken + b.woken, 2);
    asker_end(&w, &a);
    asker_end(&w, &b);
    world_release(&w);
}

/* A queued job has the time of the most patient one who waits for it; one whose time is over before
 * its turn is no failure of the peer. */
static void test_deadlines(void **state)
{
    struct asker a, b;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    begin(&w, &a);
    begin(&w, &b);
    a.req.state->deadline_ms = gw_mono_ms() - 1;
    w.refuse = true;
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    assert_int_equal(need(&w, &b, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    w.refuse = false;
    gateway_tick(w.gw);
    assert_int_equal(w.posted[0]->deadline_ms, b.req.state->deadline_ms);
    world_end_job(&w, GW_OK, 0);
    for (int i = 0; i < 10; i++) {
        struct asker c;

        begin(&w, &c);
        c.req.state->deadline_ms = gw_mono_ms() - 1;
        assert_int_equal(need(&w, &c, GW_PEER_UPSTREAM, "info\ny"), GW_AGAIN);
        world_run(&w);
        assert_int_equal(need(&w, &c, GW_PEER_UPSTREAM, "info\ny"), GW_TIMEOUT);
        asker_end(&w, &c);
    }
    assert_false(wants_open(w.gw, GW_PEER_UPSTREAM));
    asker_end(&w, &a);
    asker_end(&w, &b);
    world_release(&w);
}

static void fail_one(struct world *w, enum gw_peer peer, int status, int sys)
{
    struct asker a;

    begin(w, &a);
    assert_int_equal(need(w, &a, peer, "info\nx"), GW_AGAIN);
    world_end_job(w, status, sys);
    assert_int_equal(need(w, &a, peer, "info\nx"), status);
    asker_end(w, &a);
}

static void test_breaker(void **state)
{
    struct gateway_breaker *b;
    struct asker a, other;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    b = &w.gw->shared->breakers[GW_PEER_UPSTREAM];
    for (int i = 0; i < 4; i++) {
        fail_one(&w, GW_PEER_UPSTREAM, i % 2 ? GW_UNAVAILABLE : GW_TIMEOUT, 0);
        assert_false(wants_open(w.gw, GW_PEER_UPSTREAM));
    }
    fail_one(&w, GW_PEER_UPSTREAM, GW_UNAVAILABLE, 7);
    assert_true(wants_open(w.gw, GW_PEER_UPSTREAM));
    assert_false(wants_open(w.gw, GW_PEER_LDAP));
    assert_non_null(strstr(w.log, "upstream fails, next try in 1000 ms"));
    /* nobody is sent there, and all are told at once what it was */
    begin(&w, &a);
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\ny"), GW_UNAVAILABLE);
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\ny"), GW_UNAVAILABLE);
    assert_int_equal(a.woken, 0);
    assert_int_equal(w.n_posted, 0);
    asker_end(&w, &a);
    /* after the pause one is sent; the others are still refused */
    b->open_until_ms = gw_mono_ms();
    assert_false(wants_open(w.gw, GW_PEER_UPSTREAM));
    begin(&w, &a);
    begin(&w, &other);
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nz"), GW_AGAIN);
    assert_int_equal(need(&w, &other, GW_PEER_UPSTREAM, "info\nzz"), GW_UNAVAILABLE);
    world_end_job(&w, GW_UNAVAILABLE, 0);
    assert_true(wants_open(w.gw, GW_PEER_UPSTREAM));
    assert_true(b->open_until_ms > gw_mono_ms() + 1000);
    assert_null(strstr(w.log, "next try in 2000 ms")); /* one line a minute */
    assert_int_equal(b->opened, 2);
    asker_end(&w, &a);
    asker_end(&w, &other);
    /* any answer closes it, also one that is a failure of the question */
    b->open_until_ms = gw_mono_ms();
    fail_one(&w, GW_PEER_UPSTREAM, GW_INVALID, 0);
    assert_int_equal(b->open_until_ms, 0);
    assert_int_equal(b->failures, 0);
    assert_non_null(strstr(w.log, "upstream answers again"));
    /* also a rate limit is an answer */
    for (int i = 0; i < 10; i++) {
        fail_one(&w, GW_PEER_UPSTREAM, GW_UNAVAILABLE, 429);
    }
    assert_false(wants_open(w.gw, GW_PEER_UPSTREAM));
    /* the next line is a minute later */
    b->said_ms -= 61000;
    for (int i = 0; i < 5; i++) {
        fail_one(&w, GW_PEER_UPSTREAM, GW_TIMEOUT, 0);
    }
    assert_non_null(strstr(strstr(w.log, "answers again"), "upstream fails, next try in 1000 ms"));
    world_release(&w);
}

/* Whoever tries may die of it. */
static void test_breaker_probe(void **state)
{
    struct gateway_breaker *b;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    b = &w.gw->shared->breakers[GW_PEER_LDAP];
    for (int i = 0; i < 5; i++) {
        fail_one(&w, GW_PEER_LDAP, GW_TIMEOUT, 0);
    }
    assert_true(wants_open(w.gw, GW_PEER_LDAP));
    b->open_until_ms = gw_mono_ms();
    assert_true(breaker_probe(w.gw, GW_PEER_LDAP));
    assert_false(breaker_probe(w.gw, GW_PEER_LDAP)); /* also not another worker's job */
    assert_true(wants_open(w.gw, GW_PEER_LDAP));
    b->probe_until_ms = gw_mono_ms();
    assert_false(wants_open(w.gw, GW_PEER_LDAP));
    fail_one(&w, GW_PEER_LDAP, GW_OK, 0);
    assert_int_equal(b->open_until_ms, 0);
    assert_int_equal(b->probe_until_ms, 0);
    assert_non_null(strstr(w.log, "the directory answers again"));
    world_release(&w);
}

/* ---- one call for all workers: the other one is a slot of the same memory ---- */

static void begin_elsewhere(struct world *w, unsigned *slot, struct flight *f, const char *key)
{
    int status, sys, claimed = cache_slot_claim(&w->gw->shared->cache);

    assert_true(claimed > 0);
    *slot = (unsigned)claimed;
    *f = (struct flight){.hash = flight_hash(gw_str_c(key)), .since_ms = gw_mono_ms()};
    assert_int_equal(
        flight_begin(&w->gw->shared->flights, &w->gw->shared->cache, *slot, f, &status, &sys),
        FLIGHT_OURS);
}

static void end_elsewhere(struct world *w, unsigned slot, const struct flight *f, int status,
                          int sys)
{
    flight_end(&w->gw->shared->flights, &w->gw->shared->cache, slot, f->hash, status, sys);
}

static void test_another_worker_calls(void **state)
{
    struct gateway_result *result = NULL;
    struct gw_want want = want_of(GW_PEER_UPSTREAM, "info\nx");
    struct gw_error err = {0};
    struct asker a[3], other;
    struct flight f;
    struct world w;
    unsigned slot;

    (void)state;
    world_init(&w);
    world_open(&w);
    begin_elsewhere(&w, &slot, &f, "info\nx");
    for (size_t i = 0; i < COUNT(a); i++) {
        begin(&w, &a[i]);
        assert_int_equal(need(&w, &a[i], GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    }
    begin(&w, &other);
    assert_int_equal(need(&w, &other, GW_PEER_UPSTREAM, "info\ny"), GW_AGAIN);
    gateway_tick(w.gw);
    assert_int_equal(w.n_posted, 1); /* the other fact is not held up, and no place is taken */
    assert_int_equal(w.gw->lanes[GW_PEER_UPSTREAM].running, 1);
    world_end_job(&w, GW_OK, 0);
    /* it is in the index: they look again, and it did not count */
    end_elsewhere(&w, slot, &f, GW_OK, 0);
    assert_int_equal(a[0].woken, 0);
    gateway_tick(w.gw);
    for (size_t i = 0; i < COUNT(a); i++) {
        assert_int_equal(a[i].woken, 1);
        assert_int_equal(a[i].req.state->n_wants - a[i].req.state->n_elsewhere, 0);
    }
    assert_int_equal(w.n_posted, 0);
    /* it is not there after all: one of them calls, for all */
    for (size_t i = 0; i < COUNT(a); i++) {
        assert_int_equal(need(&w, &a[i], GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    }
    while (w.n_posted == 0) { /* in the same millisecond it looks again: the tick after it */
        gateway_tick(w.gw);
        if (a[0].woken > 1) {
            a[0].woken = 1;
            assert_int_equal(need(&w, &a[0], GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
        }
    }
    assert_int_equal(w.n_posted, 1);
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(fact_need(w.gw, &a[0].req, &want, &result, &err), GW_OK);
    for (size_t i = 0; i < COUNT(a); i++) {
        asker_end(&w, &a[i]);
    }
    asker_end(&w, &other);
    world_release(&w);
}

/* How it failed is told to all who waited, and to nobody who asks later. */
static void test_another_worker_fails(void **state)
{
    struct gw_want want = want_of(GW_PEER_UPSTREAM, "blob\nx");
    struct gw_error err = {0};
    struct asker a[2];
    struct flight f;
    struct world w;
    unsigned slot;

    (void)state;
    world_init(&w);
    world_open(&w);
    begin_elsewhere(&w, &slot, &f, "blob\nx");
    for (size_t i = 0; i < COUNT(a); i++) {
        begin(&w, &a[i]);
        assert_int_equal(need(&w, &a[i], GW_PEER_UPSTREAM, "blob\nx"), GW_AGAIN);
    }
    end_elsewhere(&w, slot, &f, GW_FORBIDDEN, 403);
    gateway_tick(w.gw);
    assert_int_equal(w.n_ever, 0);
    for (size_t i = 0; i < COUNT(a); i++) {
        assert_int_equal(a[i].woken, 1);
        assert_int_equal(fact_need(w.gw, &a[i].req, &want, NULL, &err), GW_FORBIDDEN);
        assert_int_equal(err.sys, 403);
        assert_string_equal(err.text, "upstream answered 403 just now");
        asker_end(&w, &a[i]);
    }
    while (gw_mono_ms() <= f.since_ms + 1) {
    }
    begin(&w, &a[0]);
    assert_int_equal(need(&w, &a[0], GW_PEER_UPSTREAM, "blob\nx"), GW_AGAIN);
    assert_int_equal(w.n_posted, 1);
    asker_end(&w, &a[0]);
    world_end_job(&w, GW_OK, 0);
    world_release(&w);
}

/* Nobody waits for what one worker in the background fetches for all. */
static void test_another_worker_refreshes(void **state)
{
    struct gw_want want = want_of(GW_PEER_UPSTREAM, "info\nx");
    struct flight f;
    struct world w;
    unsigned slot;

    (void)state;
    world_init(&w);
    world_open(&w);
    begin_elsewhere(&w, &slot, &f, "info\nx");
    wants_background(w.gw, &want);
    wants_background(w.gw, &want);
    gateway_tick(w.gw);
    end_elsewhere(&w, slot, &f, GW_OK, 0);
    gateway_tick(w.gw);
    assert_int_equal(w.n_ever, 0);
    assert_null(w.gw->lanes[GW_PEER_UPSTREAM].jobs);
    /* cancelled: nothing is known */
    begin_elsewhere(&w, &slot, &f, "info\nz");
    want = want_of(GW_PEER_UPSTREAM, "info\nz");
    wants_background(w.gw, &want);
    end_elsewhere(&w, slot, &f, GW_CANCELLED, 0);
    gateway_tick(w.gw);
    assert_int_equal(w.n_posted, 1);
    world_end_job(&w, GW_OK, 0);
    /* a process that ends with it lets others go on */
    begin_elsewhere(&w, &slot, &f, "info\nv");
    want = want_of(GW_PEER_UPSTREAM, "info\nu");
    wants_background(w.gw, &want);
    assert_int_equal(w.n_posted, 1);
    world_close(&w);
    world_open(&w);
    wants_background(w.gw, &want);
    assert_int_equal(w.n_posted, 1);
    world_end_job(&w, GW_OK, 0);
    world_release(&w);
}

/* Many that began before it opened end together: the pause is not multiplied. A cancelled one says
 * nothing. The pause has a ceiling. */
static void test_breaker_counts_once(void **state)
{
    struct gateway_breaker *b;
    struct asker a[16];
    struct world w;
    char key[32];

    (void)state;
    world_init(&w);
    world_open(&w);
    b = &w.gw->shared->breakers[GW_PEER_UPSTREAM];
    for (size_t i = 0; i < COUNT(a); i++) {
        begin(&w, &a[i]);
        snprintf(key, sizeof(key), "info\n%zu", i);
        assert_int_equal(need(&w, &a[i], GW_PEER_UPSTREAM, key), GW_AGAIN);
    }
    for (size_t i = 0; i < COUNT(a); i++) {
        world_end_job(&w, GW_TIMEOUT, 0);
        assert_int_equal(a[i].woken, 1);
    }
    assert_int_equal(b->failures, 5);
    assert_true(b->open_until_ms <= gw_mono_ms() + 1000);
    for (size_t i = 0; i < COUNT(a); i++) {
        asker_end(&w, &a[i]);
    }
    b->open_until_ms = gw_mono_ms();
    fail_one(&w, GW_PEER_UPSTREAM, GW_CANCELLED, 0);
    assert_int_equal(b->failures, 5);
    assert_false(wants_open(w.gw, GW_PEER_UPSTREAM)); /* the next one tries */
    for (int i = 0; i < 100; i++) {
        fail_one(&w, GW_PEER_UPSTREAM, GW_UNAVAILABLE, 0);
        assert_true(b->open_until_ms <= gw_mono_ms() + 30000);
        b->open_until_ms = gw_mono_ms();
    }
    world_release(&w);
}

/* An "unavailable" about one blob does not take the disk from everybody. */
static void test_no_breaker_for_disks(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    for (int i = 0; i < 20; i++) {
        fail_one(&w, GW_PEER_DISK, GW_UNAVAILABLE, 0);
        fail_one(&w, GW_PEER_REPO, GW_TIMEOUT, 0);
    }
    assert_false(wants_open(w.gw, GW_PEER_DISK));
    assert_false(wants_open(w.gw, GW_PEER_REPO));
    world_release(&w);
}

static void test_too_many_steps(void **state)
{
    struct asker a;
    struct world w;
    char key[32];

    (void)state;
    world_init(&w);
    world_open(&w);
    begin(&w, &a);
    for (unsigned i = 0; i < GATEWAY_WANTS_MAX; i++) {
        snprintf(key, sizeof(key), "info\n%u", i);
        assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, key), GW_AGAIN);
        world_end_job(&w, GW_OK, 0);
        assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, key), GW_OK);
    }
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nmore"), GW_UNAVAILABLE);
    assert_int_equal(w.n_posted, 0);
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\n0"), GW_OK); /* none is forgotten */
    assert_false(a.req.state->no_memory);
    asker_end(&w, &a);
    world_release(&w);
}

static void test_background(void **state)
{
    struct gw_want want = want_of(GW_PEER_UPSTREAM, "info\nx"), none = {.peer = GW_PEER_DISK};
    struct gw_want disk = want_of(GW_PEER_DISK, "fill\nx");
    struct asker a;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    wants_background(w.gw, &want);
    wants_background(w.gw, &want);
    wants_background(w.gw, &none); /* no memory for its key */
    assert_int_equal(w.n_posted, 1);
    begin(&w, &a); /* somebody waits for it after all */
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    assert_int_equal(w.n_posted, 1);
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(a.woken, 1);
    asker_end(&w, &a);
    gateway_leave(w.gw); /* nothing is fetched ahead any more; what is held is still finished */
    wants_background(w.gw, &want);
    assert_int_equal(w.n_posted, 0);
    wants_background(w.gw, &disk);
    assert_int_equal(w.n_posted, 1);
    /* its next step, asked for while the end of the last one is on its way */
    gateway_tick(w.gw);
    wants_next_step(w.gw, &disk);
    wants_next_step(w.gw, &disk);
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(w.n_posted, 1);
    world_end_job(&w, GW_OK, 0);
    assert_int_equal(w.n_posted, 0);
    world_release(&w);
}

/* A background call that fails is not tried again by the very next request; who waits for it is not
 * held up. */
static void test_background_pause(void **state)
{
    struct gw_want want = want_of(GW_PEER_DISK, "subject\nx\nrefresh");
    struct asker a;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    wants_background(w.gw, &want);
    world_end_job(&w, GW_IO, 0);
    for (int i = 0; i < 100; i++) {
        wants_background(w.gw, &want);
    }
    assert_int_equal(w.n_ever, 1);
    begin(&w, &a);
    assert_int_equal(need(&w, &a, GW_PEER_DISK, "subject\nx\nrefresh"), GW_AGAIN);
    assert_int_equal(w.n_ever, 2);
    world_end_job(&w, GW_IO, 0);
    asker_end(&w, &a);
    w.gw->lanes[GW_PEER_DISK].quiet_until_ms = gw_mono_ms();
    wants_background(w.gw, &want);
    assert_int_equal(w.n_ever, 3);
    world_end_job(&w, GW_OK, 0);
    wants_background(w.gw, &want);
    assert_int_equal(w.n_ever, 4);
    world_release(&w);
}

/* A job that fails with a bare status still has an error that callers can read; an unknown one is
 * refused. */
static void test_errors_are_whole(void **state)
{
    static const char *const keys[] = {
        "",        "nonsense", "info",        "tree\nmodel",      "paths\n\n\n\n\n\n",
        "blob\nx", "mint\na",  "pref\nmodel", "pblob\nx\ny\nz\nw"};
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    for (size_t i = 0; i < COUNT(keys); i++) {
        struct asker a;
        int rc;

        begin(&w, &a);
        assert_int_equal(need(&w, &a, GW_PEER_DISK, keys[i]), GW_AGAIN);
        world_run(&w);
        rc = need(&w, &a, GW_PEER_DISK, keys[i]); /* looks at err.status as well */
        assert_true(rc < 0 && rc != GW_AGAIN);
        asker_end(&w, &a);
    }
    world_release(&w);
}

/* A process ends with jobs queued and requests parked. */
static void test_close(void **state)
{
    struct gateway_state *st;
    struct asker a;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    begin(&w, &a);
    w.refuse = true;
    assert_int_equal(need(&w, &a, GW_PEER_UPSTREAM, "info\nx"), GW_AGAIN);
    st = a.req.state;
    world_close(&w);
    assert_null(st->waiter.link);
    gateway_end(NULL, &a.req, 0, 0, false);
    world_open(&w);
    world_release(&w);
}

/* A request without memory for its state is answered, expired and ended like any other. */
static void test_no_state(void **state)
{
    struct gateway_request req = {.method = GW_STR("GET"), .target = GW_STR("/")};
    struct gateway_answer ans;
    struct world w;

    (void)state;
    world_init(&w);
    world_open(&w);
    gw_alloc_fail_at(1);
    assert_int_equal(gateway_begin(w.gw, &req), 0);
    gw_alloc_fail_at(0);
    assert_null(req.state);
    assert_int_equal(gateway_deadline(&req), 0);
    assert_int_equal(gateway_step(w.gw, &req, &ans), GW_OK);
    assert_int_equal(ans.status, 503);
    gateway_expire(w.gw, &req);
    gateway_end(w.gw, &req, 503, 0, true);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_job_for_many),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_parked_twice),
        cmocka_unit_test(test_cap),
        cmocka_unit_test(test_full_pool),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_breaker),
        cmocka_unit_test(test_breaker_probe),
        cmocka_unit_test(test_another_worker_calls),
        cmocka_unit_test(test_another_worker_fails),
        cmocka_unit_test(test_another_worker_refreshes),
        cmocka_unit_test(test_breaker_counts_once),
        cmocka_unit_test(test_no_breaker_for_disks),
        cmocka_unit_test(test_too_many_steps),
        cmocka_unit_test(test_background),
        cmocka_unit_test(test_background_pause),
        cmocka_unit_test(test_errors_are_whole),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_no_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
