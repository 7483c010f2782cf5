/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_peer.c - a large file from another node of the cluster, and who asks the
 * Hub; Redis is a few words here. */
#include "tests/unit/cache/fill_fixture.h"

#define SIZE (12 * (uint64_t)MIB + 4321)
#define KEY "0123456789abcdef0123456789abcdef"
#define OWN "https://node1.example"

/* What Redis says, and what it was told. */
static struct {
    atomic_int rc;
    _Atomic uint64_t fence;
    char url[256]; /* of who has it; set while nobody asks */
    atomic_int slow_ms;
    atomic_int free_after_drop; /* 1: who drops the fence may take it then */
    atomic_int takes, drops;
    atomic_bool whole; /* the lease says where it is, and is not renewed */
    _Atomic int64_t life_ms;
    _Atomic uint64_t mine;
} redis;

static int fake_take(struct cache *c, struct gw_str name, uint64_t mine, int64_t life_ms,
                     struct cache_lease *out, int64_t deadline_ms, struct gw_error *err)
{
    int rc = atomic_load(&redis.rc);

    CHECK(gw_str_starts(name, GW_STR("fill:")) && name.n == 69);
    usleep((useconds_t)atomic_load(&redis.slow_ms) * 1000);
    atomic_fetch_add(&redis.takes, 1);
    atomic_store(&redis.life_ms, life_ms);
    atomic_store(&redis.mine, mine);
    memset(out, 0, sizeof(*out));
    out->fence = atomic_load(&redis.fence);
    out->ends_ms = gw_wall_ms() + (atomic_load(&redis.whole) ? 600000 : 6000);
    if (rc == GW_CONFLICT && mine != 0 && mine == out->fence) {
        rc = GW_OK; /* a renewal */
    }
    if (rc == GW_CONFLICT) {
        snprintf(out->node_url, sizeof(out->node_url), "%s", redis.url);
    }
    return rc == GW_OK ? rc : gw_fail(err, (enum gw_status)rc, 0, "redis says so");
}

static int fake_drop(struct cache *c, struct gw_str name, uint64_t mine, int64_t deadline_ms,
                     struct gw_error *err)
{
    atomic_fetch_add(&redis.drops, 1);
    if (atomic_load(&redis.free_after_drop) != 0 && mine == atomic_load(&redis.fence)) {
        atomic_store(&redis.rc, GW_OK);
    }
    return GW_OK;
}

struct world {
    char dir[64];
    struct hub *hub, *peer;
    pthread_t threads[2];
    struct cache_shared *shared;
    struct log_lines log;
    struct cache *cache;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    memset(&redis, 0, sizeof(redis));
    atomic_store(&redis.fence, 7);
    snprintf(w->dir, sizeof(w->dir), "/tmp/hubgate-peer-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->hub = hub_new(SIZE);
    w->peer = hub_new(SIZE); /* the same bytes */
    atomic_store(&w->peer->redirect, false);
    assert_string_equal(w->hub->digest, w->peer->digest);
    assert_int_equal(pthread_create(&w->threads[0], NULL, hub_run, w->hub), 0);
    assert_int_equal(pthread_create(&w->threads[1], NULL, hub_run, w->peer), 0);
    w->shared = shared_memory(sizeof(*w->shared));
    assert_int_equal(cache_shared_init(w->shared, NULL), GW_OK);
    w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, false);
    w->cache->options.share.cluster_key = GW_STR(KEY);
    w->cache->options.share.node_url = GW_STR(OWN);
    w->cache->fills->lease_take = fake_take;
    w->cache->fills->lease_drop = fake_drop;
    w->cache->fills->shares = true;
    snprintf(redis.url, sizeof(redis.url), "http://127.0.0.1:%d", w->peer->port[0]);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    close_worker(w->cache, w->shared);
    atomic_store(&w->hub->stop, true);
    atomic_store(&w->peer->stop, true);
    pthread_join(w->threads[0], NULL);
    pthread_join(w->threads[1], NULL);
    hub_free(w->hub);
    hub_free(w->peer);
    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        close(atomic_load(&w->shared->slots[i].eventfd));
    }
    munmap(w->shared, sizeof(*w->shared));
    assert_int_equal(gw_dir_remove(w->dir, NULL), GW_OK);
    free(w);
    return 0;
}

static uint64_t sent(const struct hub *h)
{
    return atomic_load(&h->sent);
}

/* A client that reads all of it, and the blob. */
static void fetch(struct world *w, struct response *r)
{
    if (r->reader == NULL) {
        *r = (struct response){.reader = join(w->cache, w->hub), .end = SIZE};
    }
    assert_int_equal(follow(w->cache, w->hub, r), GW_OK);
    cache_reader_close(r->reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
}

static void test_ours(void **state)
{
    struct world *w = *state;
    struct response r = {0};

    fetch(w, &r);
    assert_int_equal(sent(w->hub), SIZE);
    assert_int_equal(sent(w->peer), 0);
    /* where it is stays known for a while */
    TURN_UNTIL(w->cache, atomic_load(&redis.life_ms) > 60000);
    assert_int_equal(atomic_load(&redis.mine), 7);
    assert_int_equal(atomic_load(&redis.drops), 0);
}

static void test_ours_in_another_worker(void **state) /* of this node, which left it to us */
{
    struct world *w = *state;
    struct response r = {0};

    atomic_store(&redis.rc, GW_CONFLICT);
    snprintf(redis.url, sizeof(redis.url), "%s", OWN);
    fetch(w, &r);
    assert_int_equal(sent(w->hub), SIZE);
    assert_int_equal(atomic_load(&redis.mine), 7);
}

static void test_theirs(void **state)
{
    struct world *w = *state;
    struct response r = {0};
    struct gw_str line, rest;
    char *at;

    atomic_store(&redis.rc, GW_CONFLICT);
    fetch(w, &r);
    assert_int_equal(sent(w->hub), 0);
    assert_int_equal(atomic_load(&w->hub->calls[0]), 0);
    assert_int_equal(sent(w->peer), SIZE);
    assert_int_equal(atomic_load(&w->peer->calls[0]), 1);
    assert_int_equal(atomic_load(&w->shared->counters.node_bytes), SIZE);
    assert_int_equal(atomic_load(&w->shared->counters.upstream_bytes), 0);
    assert_int_equal(atomic_load(&w->shared->counters.upstream_calls), 0);
    /* what it was shown: a right credential, and no secret of the Hub's */
    assert_null(strstr(w->peer->last_request, "organisation-token"));
    assert_null(strcasestr(w->peer->last_request, "\r\nVia:"));
    assert_non_null(strstr(w->peer->last_request, "GET /-/blob/"));
    at = strstr(w->peer->last_request, "\r\nAuthorization: ");
    assert_non_null(at);
    rest = gw_str_c(at + strlen("\r\nAuthorization: "));
    assert_true(gw_str_split(&rest, '\r', &line));
    assert_true(cache_node_credential_ok(w->cache, GW_STR("GET"), gw_str_c(w->hub->digest), line,
                                         gw_wall_ms() / 1000));
}

static void test_ranges_of_theirs(void **state) /* only what is wanted, from wherever it is */
{
    struct world *w = *state;
    struct response r = {.offset = 5 * MIB + 10, .end = 6 * MIB + 10};

    atomic_store(&redis.rc, GW_CONFLICT);
    r.reader = join(w->cache, w->hub);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    assert_int_equal(sent(w->peer), 2 * MIB);
    assert_int_equal(sent(w->hub), 0);
}

/* What the other node does wrong, and how often it was asked. */
static void test_bad_nodes(void **state)
{
    static const struct {
        const char *name;
        size_t what; /* atomic_int of struct hub */
        int times;
        int status;
        uint64_t at_most; /* bytes of the Hub's, besides the size */
    } rows[] = {
        {"refuses", offsetof(struct hub, status_times), 100, 503, 0},
        {"has nothing", offsetof(struct hub, status_times), 100, 404, 0},
        {"lies about the range", offsetof(struct hub, range_wrong_times), 100, 0, 0},
        {"lies about the size", offsetof(struct hub, total_wrong_times), 100, 0, 0},
        {"is cut", offsetof(struct hub, cut_times), 100, 0, 0},
        {"is silent", offsetof(struct hub, hang_times), 100, 0, 0},
        {"redirects", offsetof(struct hub, redirect), 1, 0, 0},
        {"compresses", offsetof(struct hub, encoded), 1, 0, 0},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct response r = {0};
        char path[PATH_MAX];

        memset(w->cache->fills->bans, 0, sizeof(w->cache->fills->bans));
        atomic_store(&redis.rc, GW_CONFLICT);
        atomic_store(&w->hub->sent, 0);
        atomic_store(&w->peer->status, rows[i].status);
        atomic_store(&w->peer->cut_at, 3 * MIB + 5);
        if (rows[i].what == offsetof(struct hub, redirect) ||
            rows[i].what == offsetof(struct hub, encoded)) {
            atomic_store((atomic_bool *)((char *)w->peer + rows[i].what), true);
        } else {
            atomic_store((atomic_int *)((char *)w->peer + rows[i].what), rows[i].times);
        }
        fetch(w, &r);
        if (sent(w->hub) > SIZE || sent(w->hub) < SIZE - 4 * MIB) {
            fail_msg("%s: %llu bytes of the Hub", rows[i].name, (unsigned long long)sent(w->hub));
        }
        TURN_UNTIL(w->cache, !exists(w->dir, w->hub->digest, ".map"));
        snprintf(path, sizeof(path), "%s/blobs/%.2s/%.2s/%s", w->dir, w->hub->digest,
                 w->hub->digest + 2, w->hub->digest);
        assert_int_equal(unlink(path), 0);
        if (rows[i].what == offsetof(struct hub, redirect) ||
            rows[i].what == offsetof(struct hub, encoded)) {
            atomic_store((atomic_bool *)((char *)w->peer + rows[i].what), false);
        } else {
            atomic_store((atomic_int *)((char *)w->peer + rows[i].what), 0);
        }
    }
}

static void test_has_nothing_any_more(void **state) /* then the lease means nothing: it is ours */
{
    struct world *w = *state;
    struct response r = {0};

    atomic_store(&redis.rc, GW_CONFLICT);
    atomic_store(&redis.free_after_drop, 1);
    atomic_store(&w->peer->status, 404);
    atomic_store(&w->peer->status_times, 1);
    fetch(w, &r);
    assert_int_equal(atomic_load(&w->peer->calls[0]), 1);
    assert_int_equal(atomic_load(&redis.drops), 1);
    assert_int_equal(sent(w->hub), SIZE);
}

/* Whoever made it whole is gone, or stopped: its lease would last for minutes. It becomes ours, so
 * that the others follow us. */
static void test_whole_and_gone(void **state)
{
    struct world *w = *state;
    struct response r = {0};

    snprintf(redis.url, sizeof(redis.url), "http://127.0.0.1:1");
    atomic_store(&redis.rc, GW_CONFLICT);
    atomic_store(&redis.whole, true);
    atomic_store(&redis.free_after_drop, 1);
    fetch(w, &r);
    assert_int_equal(atomic_load(&redis.drops), 1);
    assert_int_equal(sent(w->hub), SIZE);
}

static void test_whole_and_silent(void **state)
{
    struct world *w = *state;
    struct response r = {0};

    w->cache->options.upstream.stall_timeout_ms = 60000;
    atomic_store(&redis.rc, GW_CONFLICT);
    atomic_store(&redis.whole, true);
    atomic_store(&redis.free_after_drop, 1);
    atomic_store(&w->peer->hang_times, 100);
    fetch(w, &r);
    assert_int_equal(atomic_load(&redis.drops), 1);
    assert_int_equal(sent(w->hub), SIZE);
}

static void test_cut_once(void **state) /* it goes on at the same node */
{
    struct world *w = *state;
    struct response r = {0};

    atomic_store(&redis.rc, GW_CONFLICT);
    atomic_store(&w->peer->cut_at, 5 * MIB + 5);
    atomic_store(&w->peer->cut_times, 1);
    fetch(w, &r);
    assert_int_equal(sent(w->hub), 0);
    assert_true(sent(w->peer) <= SIZE + 8 * MIB); /* a reset loses what the sockets held */
}

static void test_wrong_bytes(void **state) /* a mismatch as any other; then the Hub is asked */
{
    struct world *w = *state;
    struct response r = {.end = SIZE};

    atomic_store(&redis.rc, GW_CONFLICT);
    atomic_store(&w->peer->wrong_at, SIZE - 10);
    atomic_store(&w->peer->wrong_bytes_times, 100);
    r.reader = join(w->cache, w->hub);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_CORRUPT);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_int_equal(sent(w->hub), SIZE);
    assert_int_equal(sent(w->peer), SIZE);
}

/* The node that has it is alive and sends nothing more. Its lease ends: it is ours, and only the
 * rest is asked for. */
static void test_theirs_ends(void **state)
{
    struct world *w = *state;
    struct response r = {.reader = join(w->cache, w->hub), .end = SIZE};

    w->cache->options.upstream.stall_timeout_ms = 60000;
    atomic_store(&redis.rc, GW_CONFLICT);
    atomic_store(&w->peer->gate, 6 * MIB + 100);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 6 * MIB + 100));
    atomic_store(&redis.rc, GW_OK);
    atomic_store(&redis.fence, 8);
    fetch(w, &r);
    assert_int_equal(sent(w->peer), 6 * MIB + 100);
    assert_int_equal(sent(w->hub), SIZE - (6 * MIB + 100));
}

/* We were stopped and somebody else has it now: the rest comes from there. */
static void test_ours_is_lost(void **state)
{
    struct world *w = *state;
    struct response r = {.reader = join(w->cache, w->hub), .end = SIZE};

    atomic_store(&w->hub->gate, 6 * MIB + 100);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 6 * MIB + 100));
    atomic_store(&redis.fence, 8);
    atomic_store(&redis.rc, GW_CONFLICT);
    fetch(w, &r);
    assert_int_equal(sent(w->hub), 6 * MIB + 100);
    assert_int_equal(sent(w->peer), SIZE - (6 * MIB + 100));
}

/* Redis says nothing: a fill goes on without, and the next one does not even wait. */
static void test_no_answer(void **state)
{
    struct world *w = *state;
    struct response r = {0};

    atomic_store(&redis.rc, GW_TIMEOUT);
    atomic_store(&redis.slow_ms, 700);
    w->cache->options.share.timeout_ms = 100;
    fetch(w, &r);
    assert_int_equal(sent(w->hub), SIZE);
    assert_int_equal(sent(w->peer), 0);
    TURN_UNTIL(w->cache, atomic_load(&redis.takes) > 0 && w->cache->fills->quiet_until_ms > 0);
}

/* The answer that comes too late is heard all the same. */
static void test_late_answer(void **state)
{
    struct world *w = *state;
    struct response r = {.reader = join(w->cache, w->hub), .end = SIZE};

    atomic_store(&redis.rc, GW_CONFLICT);
    atomic_store(&redis.slow_ms, 700);
    w->cache->options.share.timeout_ms = 50;
    atomic_store(&w->hub->gate, 6 * MIB + 100);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset >= 6 * MIB + 100));
    fetch(w, &r);
    assert_true(sent(w->hub) <= 6 * MIB + 100);
    assert_true(sent(w->hub) + sent(w->peer) >= SIZE);
}

/* Nobody wants the rest: the lease is given back, and taken again when somebody does. */
static void test_given_back(void **state)
{
    struct world *w = *state;
    struct response r = {.offset = 5 * MIB, .end = 5 * MIB + 10};

    r.reader = join(w->cache, w->hub);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, atomic_load(&redis.drops) == 1);
    r = (struct response){0};
    fetch(w, &r);
    TURN_UNTIL(w->cache, atomic_load(&redis.life_ms) > 60000);
    assert_int_equal(atomic_load(&redis.drops), 1);
}

static void test_credential(void **state)
{
    static const int64_t now = 1700000000;
    struct world *w = *state;
    struct gw_str get = GW_STR("GET"), digest = gw_str_c(w->hub->digest);
    char good[CACHE_NODE_CREDENTIAL_MAX], text[CACHE_NODE_CREDENTIAL_MAX + 1];
    struct cache *c = w->cache;

    cache_node_credential(c, get, digest, now, good);
#define OK(...) cache_node_credential_ok(c, __VA_ARGS__)
    assert_true(OK(get, digest, gw_str_c(good), now));
    assert_true(OK(get, digest, gw_str_c(good), now + 60));
    assert_true(OK(get, digest, gw_str_c(good), now - 60));
    assert_false(OK(get, digest, gw_str_c(good), now + 61));
    assert_false(OK(get, digest, gw_str_c(good), now - 61));
    assert_false(OK(GW_STR("HEAD"), digest, gw_str_c(good), now));
    assert_false(OK(get, gw_str_sub(digest, 0, 40), gw_str_c(good), now));
    assert_false(OK(get, GW_STR("../x"), gw_str_c(good), now));
    assert_false(OK(get, digest, GW_STR(""), now));
    assert_false(OK(get, digest, (struct gw_str){NULL, 0}, now));
    for (size_t i = 0; i < strlen(good); i++) {
        for (int bit = 0; bit < 8; bit++) {
            snprintf(text, sizeof(text), "%s", good);
            text[i] ^= (char)(1 << bit);
            assert_false(OK(get, digest, ((struct gw_str){text, strlen(good)}), now));
        }
        assert_false(OK(get, digest, ((struct gw_str){good, i}), now));
    }
    snprintf(text, sizeof(text), "%s0", good);
    assert_false(OK(get, digest, gw_str_c(text), now));
    c->options.share.cluster_key = GW_STR("another key of the same length..");
    assert_false(OK(get, digest, gw_str_c(good), now));
    c->options.share.cluster_key = GW_STR("");
    cache_node_credential(c, get, digest, now, text);
    assert_false(OK(get, digest, gw_str_c(text), now)); /* no key, no nodes */
    c->options.share.cluster_key = GW_STR(KEY);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_credential),
        TEST(test_ours),
        TEST(test_ours_in_another_worker),
        TEST(test_theirs),
        TEST(test_ranges_of_theirs),
        TEST(test_bad_nodes),
        TEST(test_has_nothing_any_more),
        TEST(test_whole_and_gone),
        TEST(test_whole_and_silent),
        TEST(test_cut_once),
        TEST(test_wrong_bytes),
        TEST(test_theirs_ends),
        TEST(test_ours_is_lost),
        TEST(test_no_answer),
        TEST(test_late_answer),
        TEST(test_given_back),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
