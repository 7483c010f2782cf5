/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_fill.c - large fills in one process, against a Hub that does what it is
 * told. */
#include "tests/unit/cache/fill_fixture.h"

#include <sys/resource.h>

#define SIZE (20 * (uint64_t)MIB + 4321)

struct world {
    char dir[64];
    struct hub *hub;
    pthread_t thread;
    struct cache_shared *shared;
    struct log_lines log;
    struct cache *cache;
};

static struct world *world_new(uint64_t size, bool verify_before)
{
    struct world *w = calloc(1, sizeof(*w));

    snprintf(w->dir, sizeof(w->dir), "/tmp/hubgate-fill-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->hub = hub_new(size);
    assert_int_equal(pthread_create(&w->thread, NULL, hub_run, w->hub), 0);
    w->shared = shared_memory(sizeof(*w->shared));
    assert_int_equal(cache_shared_init(w->shared, NULL), GW_OK);
    w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, verify_before);
    return w;
}

static unsigned fills_owned(const struct world *w)
{
    return atomic_load(&w->shared->slots[w->cache->slot].fills);
}

static int setup(void **state)
{
    *state = world_new(SIZE, false);
    return 0;
}

static int setup_before(void **state)
{
    *state = world_new(SIZE, true);
    return 0;
}

static void close_cache(struct world *w)
{
    close_worker(w->cache, w->shared);
    w->cache = NULL;
}

static int teardown(void **state)
{
    struct world *w = *state;

    if (w->cache != NULL) {
        close_cache(w);
    }
    atomic_store(&w->hub->stop, true);
    pthread_join(w->thread, NULL);
    hub_free(w->hub);
    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        close(atomic_load(&w->shared->slots[i].eventfd));
    }
    munmap(w->shared, sizeof(*w->shared));
    assert_int_equal(gw_dir_remove(w->dir, NULL), GW_OK);
    free(w);
    return 0;
}

static struct response whole(struct world *w)
{
    return (struct response){.reader = join(w->cache, w->hub), .end = w->hub->size};
}

static bool quiet(struct world *w)
{
    struct fill_table *t = w->cache->fills;
    bool none;

    pthread_mutex_lock(&t->mutex);
    none = t->n_owned == 0;
    pthread_mutex_unlock(&t->mutex);
    return none;
}

static void test_whole(void **state)
{
    struct world *w = *state;
    struct response r = whole(w);

    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
    assert_false(exists(w->dir, w->hub->digest, ".part"));
    assert_false(exists(w->dir, w->hub->digest, ".map"));
    assert_int_equal(sent_in_all(w->hub), SIZE);
    assert_int_equal(atomic_load(&w->hub->calls[0]), 1);
    assert_int_equal(atomic_load(&w->hub->calls[1]), 1);
    assert_int_equal(atomic_load(&w->hub->token_at[0]), 1); /* the token goes to the Hub ... */
    assert_int_equal(atomic_load(&w->hub->token_at[1]), 0); /* ... and nowhere else */
    assert_int_equal(atomic_load(&w->shared->counters.upstream_bytes), SIZE);
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), SIZE);
    assert_int_equal(atomic_load(&w->shared->counters.fills), 1);
    assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), 0);
    /* the same reader goes on with the same descriptor */
    r.offset = 5;
    r.begun = 0;
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    r.reader = NULL;
    assert_int_equal(
        cache_reader_open(&r.reader, w->cache, gw_str_c(w->hub->digest), SIZE, GW_STR(""), NULL),
        GW_CONFLICT);
}

static void test_direct(void **state)
{
    struct world *w = *state;
    struct response r;

    atomic_store(&w->hub->redirect, false);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
}

static void test_readers(void **state)
{
    struct world *w = *state;
    struct response r[4];

    atomic_store(&w->hub->gate, 4 * MIB + 100);
    for (unsigned i = 0; i < 4; i++) {
        r[i] = whole(w);
    }
    r[1].offset = 3 * MIB + 5;
    r[2].offset = 10 * MIB; /* ahead: gets a transfer of its own */
    r[2].end = 12 * MIB;
    r[3].offset = SIZE - 1000;
    TURN_UNTIL(w->cache, ((void)step(&r[0], w->hub), r[0].offset == 4 * MIB + 100));
    (void)step(&r[1], w->hub);
    (void)step(&r[2], w->hub);
    assert_int_equal(r[1].offset, 4 * MIB + 100); /* up to the live mark, not the granule */
    assert_int_equal(r[2].offset, 10 * MIB);
    atomic_store(&w->hub->gate, 13 * MIB);
    assert_int_equal(follow(w->cache, w->hub, &r[2]), GW_OK);
    assert_false(step(&r[3], w->hub));
    atomic_store(&w->hub->gate, UINT64_MAX);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(follow(w->cache, w->hub, &r[i]), GW_OK);
        cache_reader_close(r[i].reader);
    }
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
    /* what was on the way when the first one's share was cut */
    assert_in_range(atomic_load(&w->hub->sent), SIZE, 2 * SIZE);
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), SIZE);
}

static void test_client_leaves(void **state)
{
    struct world *w = *state;
    struct response r;

    atomic_store(&w->hub->gate, 2 * MIB);
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset > 0));
    cache_reader_close(r.reader);
    atomic_store(&w->hub->gate, UINT64_MAX);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    assert_int_equal(sent_in_all(w->hub), SIZE);
}

static void test_nobody_reads(void **state) /* a part that was made and never read is filled too */
{
    struct world *w = *state;
    struct cache_source source = {gw_str_c(TARGET), true, false};

    assert_int_equal(cache_part_create(w->cache, gw_str_c(w->hub->digest), SIZE, &source, NULL),
                     GW_OK);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
}

static void test_cut(void **state)
{
    struct world *w = *state;
    struct response r;

    atomic_store(&w->hub->cut_at, 5 * MIB + 777);
    atomic_store(&w->hub->cut_times, 2);
    atomic_store(&w->hub->slow, 64 << 10); /* so that a reset does not overtake the bytes */
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), atomic_load(&w->hub->cut_times) < 2));
    atomic_store(&w->hub->slow, 0);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_true(atomic_load(&w->hub->last_start) > 4 * MIB);
    assert_true(atomic_load(&w->hub->sent) <=
                SIZE + 5 * MIB); /* a reset loses what was on its way */
    assert_in_range(atomic_load(&w->hub->calls[0]), fill_transfers == 1 ? 3 : 1, 3);
}

static void test_no_length_cut(void **state) /* a clean end too early is no end */
{
    struct world *w = *state;
    struct response r;

    atomic_store(&w->hub->no_length, true);
    atomic_store(&w->hub->cut_at, 5 * MIB);
    atomic_store(&w->hub->cut_times, 1);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
}

static void test_hold_back(void **state)
{
    struct world *w = *state;
    uint64_t last = (SIZE - 1) / MIB * MIB, avail = 0;
    struct response r = whole(w), tail = whole(w);
    int64_t end = gw_mono_ms() + PATIENCE_MS;
    struct fill *f;

    (void)step(&r, w->hub);
    f = w->cache->fills->list;
    while (map_missing(&f->map, 0) < f->map.granules) { /* no job runs */
        assert_true(gw_mono_ms() < end);
        (void)step(&r, w->hub);
        usleep(1000);
    }
    (void)step(&r, w->hub);
    assert_int_equal(r.offset, last);
    /* exactly 16 MiB may end, one more byte may not */
    assert_int_equal(cache_reader_want(tail.reader, SIZE - 10, SIZE, 16 * MIB - 10, &avail, NULL),
                     GW_OK);
    assert_int_equal(avail, 10);
    assert_int_equal(cache_reader_want(tail.reader, SIZE - 10, SIZE, 16 * MIB - 9, &avail, NULL),
                     GW_OK);
    assert_int_equal(avail, 0);
    /* a range that does not reach the end holds nothing back */
    assert_int_equal(cache_reader_want(tail.reader, SIZE - 10, SIZE - 1, 18 * MIB, &avail, NULL),
                     GW_OK);
    assert_int_equal(avail, 9);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(tail.reader);
    cache_reader_close(r.reader);
}

static void test_verify_before(void **state)
{
    struct world *w = *state;
    struct response r;
    uint64_t avail = 1;

    atomic_store(&w->hub->gate, 5 * MIB);
    r = whole(w);
    (void)step(&r, w->hub);
    TURN_UNTIL(w->cache, map_missing(&w->cache->fills->list->map, 0) >= 5);
    assert_int_equal(cache_reader_want(r.reader, 0, MIB, 0, &avail, NULL), GW_OK);
    assert_int_equal(avail, 0);
    atomic_store(&w->hub->gate, UINT64_MAX);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
}

static void test_wrong_bytes_once(void **state)
{
    struct world *w = *state;
    struct response r;

    atomic_store(&w->hub->wrong_at, SIZE - 5); /* in what is held back */
    atomic_store(&w->hub->wrong_bytes_times, 1);
    assert_false(cache_recently_mismatched(w->cache, gw_str_c(w->hub->digest)));
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_CORRUPT);
    assert_true(r.offset < SIZE - 5);
    cache_reader_close(r.reader);
    assert_true(cache_recently_mismatched(w->cache, gw_str_c(w->hub->digest)));
    assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), 1);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub)); /* fetched once more, by itself */
    check_blob(w->cache, w->hub);
    assert_int_equal(sent_in_all(w->hub), 2 * SIZE);
    assert_true(cache_recently_mismatched(w->cache, gw_str_c(w->hub->digest)));
}

static void test_wrong_bytes_always(void **state)
{
    struct world *w = *state;
    struct cache_source source = {gw_str_c(TARGET), false, false};
    struct cache_reader *none = NULL;
    struct response r;
    char path[PATH_MAX];
    struct timespec old[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 3700}};

    atomic_store(&w->hub->wrong_at, SIZE - 5);
    atomic_store(&w->hub->wrong_bytes_times, 1000);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_CORRUPT);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, atomic_load(&w->shared->counters.integrity_failures) == 2 && quiet(w));
    assert_int_equal(sent_in_all(w->hub), 2 * SIZE);
    assert_false(exists(w->dir, w->hub->digest, ".part"));
    assert_int_equal(
        cache_reader_open(&none, w->cache, gw_str_c(w->hub->digest), SIZE, GW_STR(""), NULL),
        GW_AGAIN);
    assert_int_equal(cache_part_create(w->cache, gw_str_c(w->hub->digest), SIZE, &source, NULL),
                     GW_CORRUPT);
    assert_false(have_blob(w->cache, w->hub));
    /* after a while it is tried again ... */
    old[1].tv_sec = time(NULL) - 61;
    snprintf(path, sizeof(path), "%s/parts/%s.bad", w->dir, w->hub->digest);
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_CORRUPT);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, atomic_load(&w->shared->counters.integrity_failures) == 3 && quiet(w));
    /* ... and after an hour it is forgotten */
    old[1].tv_sec = time(NULL) - 3700;
    snprintf(path, sizeof(path), "%s/parts/%s.bad", w->dir, w->hub->digest);
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_false(cache_recently_mismatched(w->cache, gw_str_c(w->hub->digest)));
    atomic_store(&w->hub->wrong_bytes_times, 0);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
}

/* What passes by itself, and what does not. */
struct trouble {
    const char *name;
    size_t times; /* offset of the counter in struct hub, 0: none */
    int n;
    int status, retry_after;
    size_t flag;
    enum gw_status ends;
    int sys;
    int calls_max; /* at the Hub */
};
#define TIMES(field) offsetof(struct hub, field)

static void run_trouble(struct world *w, const struct trouble *t)
{
    struct response r;
    uint64_t avail;

    if (t->times != 0) {
        atomic_store((atomic_int *)((char *)w->hub + t->times), t->n);
    }
    if (t->flag != 0) {
        atomic_store((atomic_bool *)((char *)w->hub + t->flag), true);
    }
    atomic_store(&w->hub->status, t->status);
    atomic_store(&w->hub->retry_after, t->retry_after);
    r = whole(w);
    if (follow(w->cache, w->hub, &r) != t->ends || (t->sys != 0 && r.err.sys != t->sys)) {
        fail_msg("%s: %s, %d, %s", t->name, gw_status_name((enum gw_status)r.rc), r.err.sys,
                 r.err.text);
    }
    if (atomic_load(&w->hub->calls[0]) > t->calls_max) {
        fail_msg("%s: %d calls", t->name, atomic_load(&w->hub->calls[0]));
    }
    if (t->ends != GW_OK) {
        assert_true(strlen(r.err.text) > 5);
        /* it rests: the same answer at once, no new call */
        int calls = atomic_load(&w->hub->calls[0]);

        assert_int_equal(cache_reader_want(r.reader, r.offset, r.end, r.begun, &avail, NULL),
                         t->ends);
        assert_int_equal(atomic_load(&w->hub->calls[0]), calls);
        assert_true(exists(w->dir, w->hub->digest, ".map"));
    } else {
        TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
        check_blob(w->cache, w->hub);
    }
    cache_reader_close(r.reader);
}

static void test_troubles(void **state)
{
    static const struct trouble rows[] = {
        {"503 twice", TIMES(status_times), 2, 503, 0, 0, GW_OK, 0, 3},
        {"500 once", TIMES(status_times), 1, 500, 0, 0, GW_OK, 0, 2},
        {"429, wait 1 s", TIMES(status_times), 1, 429, 1, 0, GW_OK, 0, 2},
        {"429, wait 40 s", TIMES(status_times), 9, 429, 40, 0, GW_UNAVAILABLE, 429, 1},
        {"404", TIMES(status_times), 9, 404, 0, 0, GW_UNAVAILABLE, 404, 1},
        {"401", TIMES(status_times), 9, 401, 0, 0, GW_FORBIDDEN, 401, 1},
        {"403", TIMES(status_times), 9, 403, 0, 0, GW_FORBIDDEN, 403, 1},
        {"416", TIMES(status_times), 9, 416, 0, 0, GW_UNAVAILABLE, 416, 1},
        {"signature expired", TIMES(other_status_times), 1, 0, 0, 0, GW_OK, 0, 2},
        {"signature never good", TIMES(other_status_times), 99, 0, 0, 0, GW_UNAVAILABLE, 403, 2},
        {"range wrong once", TIMES(range_wrong_times), 1, 0, 0, 0, GW_OK, 0, 2},
        {"range wrong", TIMES(range_wrong_times), 99, 0, 0, 0, GW_UNAVAILABLE, 0, 2},
        {"total wrong", TIMES(total_wrong_times), 99, 0, 0, 0, GW_UNAVAILABLE, 0, 2},
        {"whole for a range", TIMES(whole_times), 1, 0, 0, 0, GW_OK, 0, 1},
        {"silence once", TIMES(hang_times), 1, 0, 0, 0, GW_OK, 0, 2},
        {"other content", 0, 0, 0, 0, TIMES(changed), GW_UNAVAILABLE, 0, 1},
        {"compressed", 0, 0, 0, 0, TIMES(encoded), GW_UNAVAILABLE, 0, 2},
        {"forbidden host", 0, 0, 0, 0, TIMES(elsewhere), GW_UNAVAILABLE, 0, 1},
        {"endless redirects", 0, 0, 0, 0, TIMES(loop), GW_UNAVAILABLE, 0, 6},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        void *w = world_new(SIZE, false);

        run_trouble(w, &rows[i]);
        teardown(&w);
    }
}

static void test_whole_for_a_rest(void **state) /* a server that cannot resume */
{
    struct world *w = *state;
    struct response r;

    w->cache->fills->retry_ms = 1000; /* time to change the server's mind */
    atomic_store(&w->hub->cut_at, 5 * MIB);
    atomic_store(&w->hub->cut_times, 1);
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), atomic_load(&w->hub->cut_times) == 0));
    atomic_store(&w->hub->whole_times, 1);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->hub->whole_times), 0);
    assert_true(atomic_load(&w->hub->sent) > SIZE + 4 * MIB);
}

static void test_demand_again(void **state) /* after its rest, a failed fill is tried again */
{
    struct world *w = *state;
    struct response r;

    w->cache->fills->rest_ms = 500;
    atomic_store(&w->hub->status, 404);
    atomic_store(&w->hub->status_times, 1);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_UNAVAILABLE);
    r.rc = GW_OK;
    TURN_UNTIL(w->cache, (r.rc = GW_OK, step(&r, w->hub)) && r.rc == GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    assert_int_equal(atomic_load(&w->hub->calls[0]), 2);
}

static void test_no_room(void **state)
{
    struct world *w = *state;
    struct cache_source source = {gw_str_c(TARGET), false, false};
    struct gw_error err = {0};
    struct rlimit old, small;
    struct response r;

    assert_int_equal(
        cache_part_create(w->cache, gw_str_c(w->hub->digest), MAP_SIZE_MAX, &source, &err), GW_IO);
    assert_int_equal(err.sys, ENOSPC);
    assert_false(exists(w->dir, w->hub->digest, ".part"));

    /* in the middle: the fill ends cleanly, its room is given back */
    atomic_store(&w->hub->gate, 2 * MIB);
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 2 * MIB));
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 3 * MIB;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    atomic_store(&w->hub->gate, UINT64_MAX);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_IO);
    assert_int_equal(r.err.sys, EFBIG);
    TURN_UNTIL(w->cache, quiet(w) && !exists(w->dir, w->hub->digest, ".part") &&
                             !exists(w->dir, w->hub->digest, ".map"));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    cache_reader_close(r.reader);

    r = whole(w); /* and it recovers */
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
}

/* Larger than the budget: it passes through parts/, counts as nothing, and goes when nobody reads
 * it. */
static void test_larger_than_the_budget(void **state)
{
    struct timespec old[2] = {{.tv_sec = time(NULL) - 100}, {.tv_sec = time(NULL) - 100}};
    struct world *w = *state;
    struct parts_sum sum;
    char path[PATH_MAX];
    struct response r;

    w->cache->options.max_bytes = SIZE / 2;
    for (int i = 0; i < 2; i++) {
        r = whole(w);
        assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
        cache_reader_close(r.reader);
        TURN_UNTIL(w->cache, fills_owned(w) == 0);
        assert_false(have_blob(w->cache, w->hub));
        assert_true(exists(w->dir, w->hub->digest, ".part"));
        parts_measure(w->cache, &sum);
        assert_int_equal(sum.bytes, 0);
        assert_int_equal(atomic_load(&w->hub->sent), SIZE); /* also the second time */
    }
    snprintf(path, sizeof(path), "%s/parts/%s.map", w->dir, w->hub->digest);
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    TURN_UNTIL(w->cache, !exists(w->dir, w->hub->digest, ".part"));
    r = whole(w); /* and comes again */
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
}

static void test_close_while_silent(void **state)
{
    struct world *w = *state;
    struct response r;
    int64_t begun;

    atomic_store(&w->hub->gate, 3 * MIB);
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 3 * MIB));
    cache_reader_close(r.reader);
    begun = gw_mono_ms();
    close_cache(w);
    assert_true(gw_mono_ms() - begun < 2000);
    /* what came is there for whoever comes next, without a byte twice */
    w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, false);
    atomic_store(&w->hub->gate, UINT64_MAX);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_int_equal(sent_in_all(w->hub), SIZE);
    assert_int_equal(atomic_load(&w->hub->last_start), 3 * MIB);
    assert_int_equal(atomic_load(&w->shared->counters.fills_adopted), 1);
}

static void test_files_removed(void **state)
{
    struct world *w = *state;
    struct response r;
    char path[PATH_MAX];

    atomic_store(&w->hub->gate, 3 * MIB);
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 3 * MIB));
    snprintf(path, sizeof(path), "%s/parts", w->dir);
    assert_int_equal(gw_dir_remove(path, NULL), GW_OK);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_UNAVAILABLE);
    cache_reader_close(r.reader);
    atomic_store(&w->hub->gate, UINT64_MAX);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
}

/* Files damaged while nobody has them open: dropped, counted, fetched anew, right at the end. */
static void test_damaged_files(void **state)
{
    static const struct {
        const char *suffix;
        off_t at; /* a bit flipped there; -1: cut to `size`; -2: removed */
        off_t size;
        unsigned dropped;
    } rows[] = {
        {".map", 0, 0, 1},     {".map", 9, 0, 1},    {".map", 17, 0, 1},    {".map", 4000, 0, 1},
        {".map", 4095, 0, 1},  {".map", 4096, 0, 0}, /* of another boot, but sealed: it goes on */
        {".map", 4104, 0, 0},                        /* of this boot, the seal does not matter */
        {".map", -1, 0, 1},    {".map", -1, 100, 1}, {".map", -1, 8193, 1}, {".part", -1, 0, 1},
        {".part", -1, MIB, 1}, {".part", -2, 0, 1},  {".map", -2, 0, 0},
    };
    unsigned dropped = 0;
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct response r;
        char path[PATH_MAX];
        uint8_t byte;
        int fd;

        atomic_store(&w->hub->gate, 3 * MIB + 10);
        r = whole(w);
        TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 3 * MIB + 10));
        cache_reader_close(r.reader);
        close_cache(w);
        snprintf(path, sizeof(path), "%s/parts/%s%s", w->dir, w->hub->digest, rows[i].suffix);
        if (rows[i].at >= 0) {
            fd = open(path, O_RDWR);
            assert_int_equal(gw_pread_all(fd, &byte, 1, (uint64_t)rows[i].at, NULL), GW_OK);
            byte ^= 4;
            assert_int_equal(gw_pwrite_all(fd, &byte, 1, (uint64_t)rows[i].at, NULL), GW_OK);
            close(fd);
        } else if (rows[i].at == -1) {
            assert_int_equal(truncate(path, rows[i].size), 0);
        } else {
            assert_int_equal(unlink(path), 0);
        }
        atomic_store(&w->hub->gate, UINT64_MAX);
        w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, false);
        r = whole(w);
        if (follow(w->cache, w->hub, &r) != GW_OK) {
            fail_msg("row %zu: %s", i, r.err.text);
        }
        cache_reader_close(r.reader);
        TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
        check_blob(w->cache, w->hub);
        dropped += rows[i].dropped;
        assert_int_equal(atomic_load(&w->shared->counters.maps_dropped), dropped);
        assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), 0);
        assert_true(cache_blob_path(w->cache, gw_str_c(w->hub->digest), path, sizeof(path)));
        assert_int_equal(unlink(path), 0);
    }
}

/* Somebody writes into the files, or cuts them, while they are in use. */
static void test_damaged_in_use(void **state)
{
    static const struct {
        const char *suffix;
        off_t from, to; /* noise there; from -1: cut to `to` */
        int ends;       /* of who reads; 1: either */
    } rows[] = {
        {".map", 0, 4096, GW_OK}, /* the head was copied */
        {".map", 4096, 8192, GW_UNAVAILABLE},
        {".map", 0, 8300, GW_UNAVAILABLE},
        {".map", 8192, 8195, GW_OK}, /* what was there is fetched again */
        {".part", -1, 0, 1},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[PATH_MAX];
        struct response r;
        int fd, rc;

        atomic_store(&w->hub->gate, 3 * MIB + 10);
        r = whole(w);
        TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 3 * MIB + 10));
        snprintf(path, sizeof(path), "%s/parts/%s%s", w->dir, w->hub->digest, rows[i].suffix);
        if (rows[i].from == -1) {
            assert_int_equal(truncate(path, rows[i].to), 0);
        } else {
            fd = open(path, O_RDWR);
            assert_int_equal(gw_pwrite_all(fd, w->hub->bytes, (size_t)(rows[i].to - rows[i].from),
                                           (uint64_t)rows[i].from, NULL),
                             GW_OK);
            close(fd);
        }
        if (rows[i].suffix[1] == 'p') { /* what follows would be a hole: only the digest knows */
            TURN_UNTIL(w->cache, atomic_load(&w->cache->fills->list->gone));
        }
        atomic_store(&w->hub->gate, UINT64_MAX);
        rc = follow(w->cache, w->hub, &r);
        if (rc != rows[i].ends && rows[i].ends != 1) {
            fail_msg("row %zu: %s %s", i, gw_status_name((enum gw_status)rc), r.err.text);
        }
        cache_reader_close(r.reader);
        TURN_UNTIL(w->cache, quiet(w));
        if (!have_blob(w->cache, w->hub)) {
            r = whole(w);
            assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
            cache_reader_close(r.reader);
        }
        TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
        check_blob(w->cache, w->hub);
        assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), 0);
        assert_true(cache_blob_path(w->cache, gw_str_c(w->hub->digest), path, sizeof(path)));
        assert_int_equal(unlink(path), 0);
    }
}

/* A granule that says it is there and is not: nothing but the digest can tell. */
static void test_granule_lies(void **state)
{
    struct world *w = *state;
    struct response r;
    uint8_t valid = GRANULE_VALID;
    char path[PATH_MAX];
    int fd;

    atomic_store(&w->hub->gate, 3 * MIB);
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), r.offset == 3 * MIB));
    cache_reader_close(r.reader);
    close_cache(w);
    snprintf(path, sizeof(path), "%s/parts/%s.map", w->dir, w->hub->digest);
    fd = open(path, O_RDWR);
    assert_int_equal(gw_pwrite_all(fd, &valid, 1, MAP_GRANULES_AT + 9, NULL), GW_OK);
    close(fd);
    atomic_store(&w->hub->gate, UINT64_MAX);
    w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, false);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), 1);
}

static void test_git_blob(void **state)
{
    struct world *w = *state;
    struct gw_git_sha1 s;
    struct response r;
    uint8_t sha[20];

    gw_git_sha1_init(&s, SIZE);
    gw_git_sha1_update(&s, w->hub->bytes, (size_t)SIZE);
    gw_git_sha1_final(&s, sha);
    gw_hex_encode(w->hub->digest, sha, sizeof(sha));
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
}

static void test_bad_arguments(void **state)
{
    static const char *const targets[] = {"", "no-slash", "//ok-is-not-judged-here"};
    struct world *w = *state;
    struct cache_source source = {0};
    struct cache_reader *r = NULL;
    char *longest = malloc(MAP_SOURCE_MAX + 1);

    for (size_t i = 0; i < 2; i++) {
        source.target = gw_str_c(targets[i]);
        assert_int_equal(cache_part_create(w->cache, gw_str_c(w->hub->digest), SIZE, &source, NULL),
                         GW_INVALID);
    }
    memset(longest, '/', MAP_SOURCE_MAX + 1);
    source.target = (struct gw_str){longest, MAP_SOURCE_MAX + 1};
    assert_int_equal(cache_part_create(w->cache, gw_str_c(w->hub->digest), SIZE, &source, NULL),
                     GW_INVALID);
    source.target.n--;
    assert_int_equal(
        cache_part_create(w->cache, gw_str_c("../../../etc/passwd"), SIZE, &source, NULL),
        GW_INVALID);
    assert_int_equal(cache_part_create(w->cache, gw_str_c(w->hub->digest), 0, &source, NULL),
                     GW_INVALID);
    assert_int_equal(
        cache_part_create(w->cache, gw_str_c(w->hub->digest), MAP_SIZE_MAX + 1, &source, NULL),
        GW_INVALID);
    assert_int_equal(cache_reader_open(&r, w->cache, gw_str_c("../x"), SIZE, GW_STR(""), NULL),
                     GW_IO);
    assert_int_equal(cache_fill_job(w->cache, GW_STR("fill\nnothing"), NULL), GW_OK);
    cache_reader_close(NULL);
    free(longest);
}

static void test_two_sizes(void **state) /* a first caller was wrong about the size */
{
    struct world *w = *state;
    struct cache_source source = {gw_str_c(TARGET), false, false};
    struct cache_reader *wrong = NULL;
    struct gw_str digest = gw_str_c(w->hub->digest);
    struct response r;
    uint64_t avail;
    struct gw_error err;

    assert_int_equal(cache_part_create(w->cache, digest, SIZE + 1, &source, NULL), GW_OK);
    assert_int_equal(cache_reader_open(&wrong, w->cache, digest, SIZE + 1, GW_STR(""), NULL),
                     GW_OK);
    TURN_UNTIL(w->cache, cache_reader_want(wrong, 0, 10, 0, &avail, &err) == GW_UNAVAILABLE);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(wrong);
    cache_reader_close(r.reader);
}

/* ---- two repositories hold it, and the Hub refuses one of them ---- */

static struct response whole_from(struct world *w, const char *target)
{
    return (struct response){.reader = join_from(w->cache, w->hub, gw_str_c(target)), .end = SIZE};
}

static void test_other_repository(void **state)
{
    struct world *w = *state;
    struct response a, b;

    atomic_store(&w->hub->refuses, true);
    a = whole_from(w, TARGET_OTHER);
    b = whole_from(w, TARGET); /* it joins, and waits */
    assert_int_equal(follow(w->cache, w->hub, &b), GW_FORBIDDEN);
    assert_int_equal(follow(w->cache, w->hub, &a), GW_FORBIDDEN);
    assert_true(cache_reader_other_failed(b.reader));
    assert_false(cache_reader_other_failed(a.reader));
    cache_reader_close(b.reader);
    b = whole_from(w, TARGET);
    assert_int_equal(follow(w->cache, w->hub, &b), GW_OK);
    cache_reader_close(a.reader);
    cache_reader_close(b.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->hub->refused), 1);
    assert_int_equal(sent_in_all(w->hub), SIZE);
}

static void test_other_repository_goes_on(void **state) /* what is there stays */
{
    struct world *w = *state;
    struct response a, b;
    const uint64_t half = 10 * MIB;

    atomic_store(&w->hub->redirect, false);
    atomic_store(&w->hub->cut_at, half);
    atomic_store(&w->hub->cut_times, 1);
    atomic_store(&w->hub->gate, half);
    a = whole_from(w, TARGET_OTHER);
    TURN_UNTIL(w->cache, step(&a, w->hub) || a.offset == half);
    atomic_store(&w->hub->refuses, true);
    atomic_store(&w->hub->gate, UINT64_MAX); /* it is cut here, and asked again */
    assert_int_equal(follow(w->cache, w->hub, &a), GW_FORBIDDEN);
    b = whole_from(w, TARGET);
    assert_int_equal(follow(w->cache, w->hub, &b), GW_OK);
    cache_reader_close(a.reader);
    cache_reader_close(b.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_int_equal(sent_in_all(w->hub), SIZE);
}

static void test_both_repositories(void **state) /* refused: they do not send each other there */
{
    struct world *w = *state;
    struct cache_source source = {gw_str_c(TARGET_OTHER), false, false};
    struct cache_reader *none = NULL;
    struct gw_str digest = gw_str_c(w->hub->digest);
    struct gw_error err;
    struct response r;

    w->cache->fills->rest_ms = 60000;
    atomic_store(&w->hub->refuses, true);
    atomic_store(&w->hub->status, 404);
    atomic_store(&w->hub->status_times, 1000);
    r = whole_from(w, TARGET_OTHER);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_FORBIDDEN);
    cache_reader_close(r.reader);
    r = whole_from(w, TARGET);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_UNAVAILABLE);
    assert_int_equal(r.err.sys, 404);
    cache_reader_close(r.reader);
    assert_int_equal(cache_reader_open(&none, w->cache, digest, SIZE, source.target, &err),
                     GW_AGAIN);
    assert_int_equal(cache_part_create(w->cache, digest, SIZE, &source, &err), GW_FORBIDDEN);
    assert_int_equal(err.sys, 403);
    assert_int_equal(atomic_load(&w->hub->refused), 1);
}

/* ---- objects of data/ ---- */

struct object {
    char path[128];
};

/* In a folder on the file system of the cache, or on another one. */
static struct object object_of(struct world *w, bool far)
{
    struct object o;
    int fd;

    if (far) {
        snprintf(o.path, sizeof(o.path), "/dev/shm/hubgate-object-XXXXXX");
    } else {
        snprintf(o.path, sizeof(o.path), "%s-object-XXXXXX", w->dir);
    }
    fd = mkstemp(o.path);
    assert_true(fd >= 0);
    assert_int_equal(gw_write_all(fd, w->hub->bytes, SIZE, NULL), GW_OK);
    fchmod(fd, 0440);
    close(fd);
    return o;
}

static struct response whole_of(struct world *w, const struct object *o)
{
    struct cache_source source = {gw_str_c(o->path), false, true};
    struct gw_str digest = gw_str_c(w->hub->digest);
    struct response r = {.end = SIZE};
    struct gw_error err;

    assert_int_equal(cache_reader_open(&r.reader, w->cache, digest, SIZE, source.target, &err),
                     GW_AGAIN);
    assert_int_equal(cache_part_create(w->cache, digest, SIZE, &source, &err), GW_OK);
    assert_int_equal(cache_reader_open(&r.reader, w->cache, digest, SIZE, source.target, &err),
                     GW_OK);
    return r;
}

static void test_object_linked(void **state) /* bytes leave before any job has hashed one */
{
    struct world *w = *state;
    struct object o = object_of(w, false);
    struct response r = whole_of(w, &o);
    struct stat of_object, of_blob;
    char path[PATH_MAX];
    uint64_t avail;

    assert_int_equal(cache_reader_want(r.reader, 5 * MIB, 6 * MIB, 0, &avail, &r.err), GW_OK);
    assert_int_equal(avail, MIB);
    for (unsigned i = 0; i < 20; i++) { /* a range asks for no proof */
        turn(w->cache);
    }
    assert_int_equal(fills_owned(w), 0);
    assert_false(step(&r, w->hub));
    assert_int_equal(r.offset, SIZE / MIB * MIB); /* the last granule waits for the digest */
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    snprintf(path, sizeof(path), "%s/blobs/%.2s/%.2s/%s", w->dir, w->hub->digest,
             w->hub->digest + 2, w->hub->digest);
    assert_int_equal(stat(o.path, &of_object), 0);
    assert_int_equal(stat(path, &of_blob), 0);
    assert_int_equal(of_object.st_ino, of_blob.st_ino);
    TURN_UNTIL(w->cache, !exists(w->dir, w->hub->digest, ".part"));
    assert_int_equal(atomic_load(&w->hub->calls[0]), 0);
    unlink(o.path);
}

static void test_object_copied(void **state)
{
    struct world *w = *state;
    struct object o = object_of(w, true);
    struct response r = whole_of(w, &o), part;
    struct stat of_object, of_parts;

    assert_int_equal(stat(o.path, &of_object), 0);
    assert_int_equal(stat(w->dir, &of_parts), 0);
    assert_true(of_object.st_dev != of_parts.st_dev);
    part = (struct response){.reader = r.reader, .offset = 9 * MIB + 5, .end = 10 * MIB + 7};
    assert_int_equal(follow(w->cache, w->hub, &part), GW_OK);
    TURN_UNTIL(w->cache, fills_owned(w) == 0); /* nothing more is wanted */
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), 2 * MIB);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), SIZE);
    assert_int_equal(atomic_load(&w->hub->calls[0]), 0);
    unlink(o.path);
}

static void test_object_damaged(void **state) /* nobody gets all of it, and it is never a blob */
{
    struct world *w = *state;

    for (int far = 0; far < 2; far++) {
        struct object o = object_of(w, far != 0);
        struct response r;
        int fd;

        assert_int_equal(chmod(o.path, 0600), 0);
        fd = open(o.path, O_WRONLY);
        assert_int_equal(pwrite(fd, "?", 1, SIZE - 2), 1); /* within what is held back */
        close(fd);
        r = whole_of(w, &o);
        assert_int_equal(follow(w->cache, w->hub, &r), GW_CORRUPT);
        assert_true(r.offset <= SIZE / MIB * MIB);
        cache_reader_close(r.reader);
        TURN_UNTIL(w->cache, !exists(w->dir, w->hub->digest, ".part"));
        assert_false(have_blob(w->cache, w->hub));
        assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), far + 1);
        assert_int_equal(access(o.path, F_OK), 0);
        unlink(o.path);
    }
    assert_int_equal(atomic_load(&w->hub->calls[0]), 0);
}

static void test_object_gone(void **state) /* after its part was begun: the Hub may have it */
{
    struct world *w = *state;
    struct object o = object_of(w, true);
    struct response r = whole_of(w, &o), b;

    unlink(o.path);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_IO);
    assert_false(cache_reader_other_failed(r.reader));
    cache_reader_close(r.reader);
    b = whole_from(w, TARGET);
    assert_int_equal(follow(w->cache, w->hub, &b), GW_OK);
    cache_reader_close(b.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    assert_int_equal(sent_in_all(w->hub), SIZE);
}

/* ---- several transfers, demanded and sparse ---- */

static struct response part_of(struct world *w, uint64_t offset, uint64_t end)
{
    return (struct response){.reader = join(w->cache, w->hub), .offset = offset, .end = end};
}

/* Slow enough that there is a middle. */
static int setup_slow(void **state)
{
    struct world *w;

    fill_transfers = 4;
    w = world_new(SIZE, false);
    atomic_store(&w->hub->slow, 64 << 10);
    *state = w;
    return 0;
}

static int teardown_slow(void **state)
{
    fill_transfers = 1;
    fill_max_transfers = 0;
    return teardown(state);
}

static unsigned valid(struct world *w)
{
    const struct fill *f = w->cache->fills->list;
    unsigned n = 0;

    for (uint64_t g = 0; f != NULL && g < f->map.granules; g++) {
        n += atomic_load(&f->map.granule[g]) == GRANULE_VALID;
    }
    return n;
}

static void test_parallel(void **state)
{
    struct world *w = *state;
    struct response r = whole(w);

    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->hub->busy_max), 4);
    assert_int_equal(atomic_load(&w->hub->calls[0]), 1); /* the others know where to go */
    assert_int_equal(sent_in_all(w->hub), SIZE);
    for (uint64_t g = 0; g < SIZE / MIB; g++) {
        assert_int_equal(atomic_load(&w->hub->of_mib[g]), MIB);
    }
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), SIZE);
}

/* A cap for all fills together. */
static void test_most(void **state)
{
    struct world *w = *state;
    struct response r;

    close_cache(w);
    fill_max_transfers = 2;
    w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, false);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    assert_int_equal(atomic_load(&w->hub->busy_max), 2);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
}

/* Two workers, each with a file of its own: together they have no more connections than allowed,
 * and each has some. What a dead one held goes with its slot. */
static void test_most_of_all(void **state)
{
    struct world *w = *state;
    struct cache_slot *dead = &w->shared->slots[CACHE_SLOTS - 1], *slots = w->shared->slots;
    struct response a, b;
    struct cache *other;
    char dir[80];

    close_cache(w);
    fill_max_transfers = 4;
    atomic_store(&w->hub->slow, 4 << 10);
    snprintf(dir, sizeof(dir), "%s/other", w->dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, false);
    other = cache_of(w->hub, dir, w->shared, &w->log, false);
    atomic_store(&dead->pid, 0x7ffffffe); /* nobody has it */
    atomic_store(&dead->transfers, 4);
    a = whole(w);
    TURN_UNTIL(w->cache, step(&a, w->hub) || atomic_load(&slots[w->cache->slot].transfers) == 3);
    assert_int_equal(atomic_load(&dead->transfers), 0);
    b = (struct response){.reader = join(other, w->hub), .end = SIZE};
    /* one of the three is let go */
    TURN_UNTIL(w->cache, ((void)step(&a, w->hub), turn(other), (void)step(&b, w->hub),
                          atomic_load(&slots[other->slot].transfers) >= 2));
    assert_true(atomic_load(&slots[w->cache->slot].transfers) <= 2);
    atomic_store(&w->hub->slow, 0);
    TURN_UNTIL(w->cache, (turn(other), step(&a, w->hub) & step(&b, w->hub)));
    assert_int_equal(a.rc, GW_OK);
    assert_int_equal(b.rc, GW_OK);
    assert_true(atomic_load(&w->hub->busy_max) <= 5); /* one that was let go ends a moment later */
    cache_reader_close(a.reader);
    cache_reader_close(b.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    TURN_UNTIL(other, have_blob(other, w->hub));
    close_worker(other, w->shared);
    assert_int_equal(atomic_load(&slots[w->cache->slot].transfers), 0);
}

static void test_demanded(void **state)
{
    struct world *w = *state;
    struct response r, tail, middle, ahead;

    atomic_store(&w->hub->hold_to, 4 * MIB); /* the front does not move at all */
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), valid(w) >= 8)); /* all shares are given out */
    tail = part_of(w, SIZE - 1000, SIZE);
    middle = part_of(w, 5 * MIB + 7, 6 * MIB + 9); /* in the share of the one that does not move */
    ahead = part_of(w, 4 * MIB, 4 * MIB + 10);
    assert_int_equal(follow(w->cache, w->hub, &tail), GW_OK);
    assert_int_equal(follow(w->cache, w->hub, &middle), GW_OK);
    assert_int_equal(follow(w->cache, w->hub, &ahead), GW_OK);
    assert_int_equal(r.offset, 0);
    assert_int_equal(atomic_load(&w->hub->of_mib[0]), 0);
    assert_true(atomic_load(&w->hub->busy_max) <= 5);
    cache_reader_close(tail.reader);
    cache_reader_close(middle.reader);
    cache_reader_close(ahead.reader);
    atomic_store(&w->hub->hold_to, 0);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), SIZE);
    assert_true(atomic_load(&w->hub->sent) <= SIZE + 4 * MIB);
}

/* More places asked for than there are transfers. */
static void test_demanded_many(void **state)
{
    struct world *w = *state;
    struct response r[10];

    atomic_store(&w->hub->slow, 4 << 10);
    for (unsigned i = 0; i < 10; i++) {
        r[i] = i == 0 ? whole(w) : part_of(w, (20 - 2 * i) * MIB, (20 - 2 * i) * MIB + 1000);
    }
    for (unsigned i = 1; i < 10; i++) {
        assert_int_equal(follow(w->cache, w->hub, &r[i]), GW_OK);
        cache_reader_close(r[i].reader);
    }
    assert_true(valid(w) < 18); /* nobody waited for the rest */
    assert_true(atomic_load(&w->hub->busy_max) <= 5);
    atomic_store(&w->hub->slow, 0);
    assert_int_equal(follow(w->cache, w->hub, &r[0]), GW_OK);
    cache_reader_close(r[0].reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
}

static void test_sparse(void **state)
{
    struct world *w = *state;
    struct response r = part_of(w, 5 * MIB + 10, 7 * MIB - 10);
    int calls;

    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    TURN_UNTIL(w->cache, quiet(w)); /* and nobody works on the rest */
    assert_int_equal(sent_in_all(w->hub), 2 * MIB);
    assert_int_equal(valid(w), 2);
    r.offset = 6 * MIB; /* again, and no byte comes from upstream */
    calls = atomic_load(&w->hub->calls[1]);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    assert_int_equal(atomic_load(&w->hub->calls[1]), calls);
    cache_reader_close(r.reader);
    r = part_of(w, SIZE - 1024, SIZE);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, quiet(w));
    assert_int_equal(sent_in_all(w->hub), 2 * MIB + SIZE % MIB);
    r = part_of(w, 100, 18 * MIB); /* long, but its end is told */
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, quiet(w));
    assert_int_equal(sent_in_all(w->hub), 18 * MIB + SIZE % MIB);
    assert_int_equal(atomic_load(&w->shared->counters.fills_adopted), 0);
    assert_false(have_blob(w->cache, w->hub));
    close_cache(w); /* another worker does not take it for work that was left */
    w->cache = cache_of(w->hub, w->dir, w->shared, &w->log, false);
    usleep(400000);
    assert_int_equal(sent_in_all(w->hub), 18 * MIB + SIZE % MIB);
    r = part_of(w, 18 * MIB, SIZE); /* the last pieces: then it is a blob like any other */
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
    assert_int_equal(sent_in_all(w->hub), SIZE);
    assert_int_equal(atomic_load(&w->shared->counters.fills), 1);
}

/* What is held back to the end needs all of it. */
static void test_long_tail(void **state)
{
    struct world *w = *state;
    struct response r = part_of(w, SIZE - 16 * MIB, SIZE);

    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, quiet(w));
    assert_false(have_blob(w->cache, w->hub));
    r = part_of(w, SIZE - 16 * MIB - 1, SIZE);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    assert_int_equal(sent_in_all(w->hub), SIZE);
}

static void test_behind_a_transfer(void **state)
{
    struct world *w = *state;
    struct response a, b;

    atomic_store(&w->hub->gate, 5 * MIB + 100);
    a = part_of(w, 5 * MIB, 6 * MIB);
    TURN_UNTIL(w->cache, ((void)step(&a, w->hub), a.offset == 5 * MIB + 100));
    b = part_of(w, 5 * MIB + 50, 6 * MIB);
    TURN_UNTIL(w->cache, ((void)step(&b, w->hub), b.offset == 5 * MIB + 100));
    for (unsigned i = 0; i < 5; i++) {
        turn(w->cache);
        (void)step(&b, w->hub);
    }
    assert_int_equal(atomic_load(&w->hub->calls[1]), 1);
    atomic_store(&w->hub->gate, UINT64_MAX);
    assert_int_equal(follow(w->cache, w->hub, &b), GW_OK);
    assert_int_equal(follow(w->cache, w->hub, &a), GW_OK);
    assert_int_equal(sent_in_all(w->hub), MIB);
    cache_reader_close(a.reader);
    cache_reader_close(b.reader);
}

static void test_one_is_slow(void **state)
{
    struct world *w = *state;
    struct response r;

    atomic_store(&w->hub->hold_from, MIB + 5);
    atomic_store(&w->hub->hold_to, 2 * MIB);
    r = whole(w);
    TURN_UNTIL(w->cache, ((void)step(&r, w->hub), valid(w) >= 16)); /* its share is 6 */
    assert_int_equal(r.offset, MIB + 5);
    atomic_store(&w->hub->hold_to, 0);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub));
    check_blob(w->cache, w->hub);
}

/* A connection that crawls where others run is given up: a MiB would take it a minute. */
static void test_one_crawls(void **state)
{
    struct world *w = *state;
    struct response r;

    atomic_store(&w->hub->crawl_times, 1);
    r = whole(w);
    assert_int_equal(follow(w->cache, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->hub->crawl_times), 0);
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), SIZE);
    assert_true(atomic_load(&w->hub->sent) <= SIZE + 2 * MIB);
}

/* One of them meets trouble: the others go on, and it is mended. */
static void test_trouble_of_one(void **state)
{
    static const struct {
        const char *name;
        size_t times;
        int status, retry_after, hub_calls;
    } rows[] = {
        {"cut", TIMES(cut_times), 0, 0, 2},
        {"signature expired", TIMES(other_status_times), 0, 0, 2},
        {"signature expired, and 429", TIMES(other_status_times), 429, 1, 3},
        {"signature expired, and 503", TIMES(other_status_times), 503, 0, 3},
        {"silence", TIMES(hang_times), 0, 0, 2},
        {"whole for a range", TIMES(whole_times), 0, 0, 1},
    };

    (void)state;
    fill_transfers = 4;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct world *w = world_new(40 * MIB, false);
        struct response r;
        void *p = w;

        atomic_store(&w->hub->slow, 64 << 10);
        atomic_store(&w->hub->cut_at, 35 * MIB + 3);
        r = whole(w);
        TURN_UNTIL(w->cache, ((void)step(&r, w->hub), valid(w) >= 4));
        atomic_store((atomic_int *)((char *)w->hub + rows[i].times), 1); /* of the next shares */
        atomic_store(&w->hub->status, rows[i].status);
        atomic_store(&w->hub->retry_after, rows[i].retry_after);
        atomic_store(&w->hub->status_times, rows[i].status != 0);
        if (follow(w->cache, w->hub, &r) != GW_OK) {
            fail_msg("%s: %s", rows[i].name, r.err.text);
        }
        cache_reader_close(r.reader);
        TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
        check_blob(w->cache, w->hub);
        assert_int_equal(atomic_load((atomic_int *)((char *)w->hub + rows[i].times)), 0);
        if (atomic_load(&w->hub->calls[0]) > rows[i].hub_calls) {
            fail_msg("%s: %d calls at the Hub", rows[i].name, atomic_load(&w->hub->calls[0]));
        }
        assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), 40 * MIB);
        teardown(&p);
    }
    fill_transfers = 1;
}

/* Random places, many readers, and a server that cuts. */
static void test_at_random(void **state)
{
    struct world *w = *state;
    struct response r[8] = {{0}};
    unsigned seed = (unsigned)getpid(), left = 60;

    atomic_store(&w->hub->cut_at, 11 * MIB + 17);
    atomic_store(&w->hub->cut_times, 2);
    while (left > 0) {
        for (unsigned i = 0; i < 8; i++) {
            if (r[i].reader == NULL) {
                uint64_t from = (uint64_t)rand_r(&seed) % SIZE, n = (uint64_t)rand_r(&seed);

                from = n % 2 == 0 ? from : from / MIB * MIB;
                n = 1 + n % (n % 3 == 0 ? 100 : 3 * MIB);
                r[i] = part_of(w, from, from + n < SIZE ? from + n : SIZE);
            }
            if (step(&r[i], w->hub)) {
                assert_int_equal(r[i].rc, GW_OK);
                cache_reader_close(r[i].reader);
                memset(&r[i], 0, sizeof(r[i]));
                left -= left > 0;
            }
        }
        turn(w->cache);
        if (have_blob(w->cache, w->hub)) {
            break;
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        cache_reader_close(r[i].reader);
    }
    if (!have_blob(w->cache, w->hub)) {
        r[0] = whole(w);
        assert_int_equal(follow(w->cache, w->hub, &r[0]), GW_OK);
        cache_reader_close(r[0].reader);
    }
    TURN_UNTIL(w->cache, have_blob(w->cache, w->hub) && quiet(w));
    check_blob(w->cache, w->hub);
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), SIZE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SLOW(name) cmocka_unit_test_setup_teardown(name, setup_slow, teardown_slow)
    const struct CMUnitTest tests[] = {
        TEST(test_whole),
        TEST(test_direct),
        TEST(test_readers),
        TEST(test_client_leaves),
        TEST(test_nobody_reads),
        TEST(test_cut),
        TEST(test_no_length_cut),
        TEST(test_hold_back),
        cmocka_unit_test_setup_teardown(test_verify_before, setup_before, teardown),
        TEST(test_wrong_bytes_once),
        TEST(test_wrong_bytes_always),
        cmocka_unit_test(test_troubles),
        TEST(test_whole_for_a_rest),
        TEST(test_demand_again),
        TEST(test_no_room),
        TEST(test_larger_than_the_budget),
        TEST(test_close_while_silent),
        TEST(test_files_removed),
        TEST(test_damaged_files),
        TEST(test_damaged_in_use),
        TEST(test_granule_lies),
        TEST(test_git_blob),
        TEST(test_bad_arguments),
        TEST(test_two_sizes),
        TEST(test_other_repository),
        TEST(test_other_repository_goes_on),
        TEST(test_both_repositories),
        TEST(test_object_linked),
        TEST(test_object_copied),
        TEST(test_object_damaged),
        TEST(test_object_gone),
        SLOW(test_parallel),
        SLOW(test_most),
        SLOW(test_most_of_all),
        SLOW(test_demanded),
        SLOW(test_demanded_many),
        SLOW(test_sparse),
        SLOW(test_long_tail),
        SLOW(test_behind_a_transfer),
        SLOW(test_one_is_slow),
        SLOW(test_one_crawls),
        cmocka_unit_test(test_trouble_of_one),
        SLOW(test_at_random),
        SLOW(test_readers),
        SLOW(test_cut),
        SLOW(test_no_length_cut),
        SLOW(test_hold_back),
        SLOW(test_wrong_bytes_once),
        SLOW(test_no_room),
        SLOW(test_files_removed),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
