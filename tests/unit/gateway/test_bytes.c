/* SPDX-License-Identifier: Apache-2.0 */
/* A file in windows: what is not in memory is brought by a job, and nobody else waits for it. */
#include "gateway_fixture.h"

#include "base/sha.h"
#include "gateway/record.h"

#include <fcntl.h>

#define WINDOWS 12u
#define SIZE ((uint64_t)WINDOWS * CACHE_WINDOW - 1000)
#define TARGET "/open/x/resolve/main/big.safetensors"

struct held {
    struct world w;
    struct asker a;
    char digest[65], path[320];
};

static void put(struct world *w, enum cache_kind kind, struct gw_str name, struct gw_buf *value)
{
    world_put(w, kind, name, -300000, GW_OK, 0, gw_buf_str(value)); /* never old */
    gw_buf_release(value);
}

/* A blob of its own (nobody proves a large one again), and the records that lead to it. */
static void hold(struct held *h)
{
    struct record_ref ref = {GW_STR(COMMIT), GW_STR("open"), GW_STR("x")};
    struct hub_entry e = {.lfs = true, .path = GW_STR("big.safetensors"), .size = SIZE};
    char folder[192];
    struct gw_buf b;
    int fd;

    memset(h->digest, 'a', 64);
    h->digest[64] = '\0';
    snprintf(folder, sizeof(folder), "%s/cache/blobs/aa/aa", h->w.dir);
    assert_int_equal(gw_dir_make(folder, 0750, &h->w.err), GW_OK);
    snprintf(h->path, sizeof(h->path), "%s/%s", folder, h->digest);
    fd = open(h->path, O_RDWR | O_CREAT | O_EXCL, 0440);
    assert_true(fd >= 0);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)SIZE), 0);
    close(fd);
    memcpy(e.sha256, h->digest, sizeof(e.sha256));
    memset(e.oid, 'b', 40);
    gw_buf_init(&b, 1 << 16);
    record_ref_encode(&b, &ref);
    put(&h->w, CACHE_REF, GW_STR("model\nopen\nx\nmain"), &b);
    gw_buf_init(&b, 1 << 16);
    hub_entry_encode(&b, &e);
    put(&h->w, CACHE_FILE, GW_STR("model\nopen\nx\n" COMMIT "\nbig.safetensors"), &b);
}

static void setup(struct held *h)
{
    memset(h, 0, sizeof(*h));
    world_init(&h->w);
    world_open(&h->w);
    hold(h);
    asker_begin(&h->w, &h->a, "GET", TARGET, NULL);
    assert_int_equal(asker_finish(&h->w, &h->a), 200);
    assert_int_equal(h->a.ans.kind, GATEWAY_FILE);
    assert_int_equal(h->a.ans.end, SIZE);
}

static void teardown(struct held *h)
{
    asker_end(&h->w, &h->a);
    world_release(&h->w);
}

/* Out of memory with it: written first, dirty pages stay. */
static void evict(struct held *h)
{
    int fd = open(h->path, O_RDONLY);

    assert_true(fd >= 0);
    for (int i = 0; i < 1000 && cache_in_memory(fd, 0, 1); i++) {
        assert_int_equal(fsync(fd), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    }
    assert_false(cache_in_memory(fd, 0, 1));
    close(fd);
}

static int want(struct held *h, uint64_t offset, uint64_t *avail)
{
    int fd = -1, rc = gateway_file_want(h->w.gw, &h->a.req, offset, avail, &fd, &h->w.err);

    assert_true(rc != GW_OK || fd >= 0);
    return rc;
}

static void test_all_windows(void **state)
{
    uint64_t at = 0, avail, waited = 0;
    size_t used = 0;
    struct held h;

    (void)state;
    setup(&h);
    evict(&h);
    while (at < SIZE) {
        unsigned woken = h.a.woken;

        assert_int_equal(want(&h, at, &avail), GW_OK);
        if (avail == 0) { /* brought, and the next ones may come with it */
            assert_int_equal(h.w.n_posted, 1);
            world_run(&h.w);
            assert_int_equal(h.a.woken, woken + 1);
            assert_int_equal(want(&h, at, &avail), GW_OK);
            waited++;
            used = used == 0 ? h.a.req.state->arena.used : used;
            assert_true(h.a.req.state->arena.used <= used + 32); /* one digit more */
        }
        assert_int_equal(avail, SIZE - at < CACHE_WINDOW ? SIZE - at : CACHE_WINDOW);
        at += avail;
    }
    assert_true(waited >= 1);
    assert_int_equal(atomic_load(&h.w.gw->counters->cold_reads), waited);
    assert_int_equal(atomic_load(&h.w.gw->counters->parked), 0);
    assert_int_equal(want(&h, 5 * CACHE_WINDOW + 7, &avail), GW_OK); /* up to its window's end */
    assert_int_equal(avail, CACHE_WINDOW - 7);
    teardown(&h);
}

static void test_what_a_job_says(void **state)
{
    static const struct {
        int job, then;
        bool sent, again;
    } rows[] = {
        {GW_IO, GW_IO, false, false},
        {GW_NOT_FOUND, GW_OK, true, false}, /* evicted: the open file is there still */
        {GW_CANCELLED, GW_OK, true, false},
        {GW_TIMEOUT, GW_OK, false, true}, /* too many before it: its client has time */
        {GW_NO_MEMORY, GW_OK, false, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct held h;
        uint64_t avail;

        setup(&h);
        evict(&h);
        assert_int_equal(want(&h, 0, &avail), GW_OK);
        assert_int_equal(avail, 0);
        world_end_job(&h.w, rows[i].job, 5);
        if (want(&h, 0, &avail) != rows[i].then ||
            (rows[i].then == GW_OK && (avail > 0) != rows[i].sent) ||
            (h.w.n_posted != 0) != rows[i].again) {
            fail_msg("row %zu: avail %llu, %zu jobs", i, (unsigned long long)avail, h.w.n_posted);
        }
        world_run(&h.w);
        teardown(&h);
    }
}

/* Pages that were there may have gone when the client takes them at last. */
static void test_gone_again(void **state)
{
    struct held h;
    uint64_t avail;
    int fd;

    (void)state;
    setup(&h);
    fd = open(h.path, O_RDONLY);
    assert_true(fd >= 0);
    evict(&h);
    assert_int_equal(cache_bring(h.w.gw->cache, gw_str_c(h.digest), 0, &h.w.err), GW_OK);
    assert_true(cache_in_memory(fd, 0, CACHE_WINDOW));
    assert_int_equal(want(&h, 0, &avail), GW_OK);
    assert_int_equal(avail, CACHE_WINDOW);
    evict(&h);
    h.a.req.state->warm_until_ms = 0; /* later */
    assert_int_equal(gateway_file_warm(h.w.gw, &h.a.req, 4096, CACHE_WINDOW, &h.w.err), GW_AGAIN);
    world_run(&h.w);
    assert_int_equal(gateway_file_warm(h.w.gw, &h.a.req, 4096, CACHE_WINDOW, &h.w.err), GW_OK);
    assert_true(cache_in_memory(fd, 4096, CACHE_WINDOW - 4096));
    close(fd);
    teardown(&h);
}

static void test_one_job_for_all(void **state)
{
    struct asker others[3];
    struct held h;
    uint64_t avail;

    (void)state;
    setup(&h);
    for (size_t i = 0; i < COUNT(others); i++) {
        asker_begin(&h.w, &others[i], "GET", TARGET, NULL);
        assert_int_equal(asker_finish(&h.w, &others[i]), 200);
    }
    evict(&h);
    assert_int_equal(want(&h, 0, &avail), GW_OK);
    for (size_t i = 0; i < COUNT(others); i++) {
        int fd;

        assert_int_equal(gateway_file_want(h.w.gw, &others[i].req, 100, &avail, &fd, &h.w.err),
                         GW_OK);
        assert_int_equal(avail, 0);
    }
    assert_int_equal(h.w.n_posted, 1);
    asker_end(&h.w, &others[0]); /* who leaves is not woken */
    world_run(&h.w);
    assert_int_equal(others[0].woken, 0);
    assert_int_equal(others[1].woken, 1);
    asker_end(&h.w, &others[1]);
    asker_end(&h.w, &others[2]);
    teardown(&h);
}

static void test_bring(void **state)
{
    struct gw_error err;
    struct held h;

    (void)state;
    setup(&h);
    assert_int_equal(cache_bring(h.w.gw->cache, GW_STR("nothing"), 0, &err), GW_NOT_FOUND);
    assert_int_equal(cache_bring(h.w.gw->cache, GW_STR(COMMIT), 0, &err), GW_NOT_FOUND);
    assert_int_equal(cache_bring(h.w.gw->cache, gw_str_c(h.digest), SIZE + CACHE_WINDOW, &err),
                     GW_OK); /* nothing is there to read */
    teardown(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_windows), cmocka_unit_test(test_what_a_job_says),
        cmocka_unit_test(test_gone_again),  cmocka_unit_test(test_one_job_for_all),
        cmocka_unit_test(test_bring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
