/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_index.c - records: what is kept, what is doubted, who may die when. */
#include "tests/unit/cache/cache_fixture.h"
#include "tests/unit/failing.h"

#include <sys/resource.h>

static void a_record_comes_back_whole(void **state)
{
    static const struct {
        enum cache_kind kind;
        const char *name;
        struct cache_record r;
    } rows[] = {
        {CACHE_REF, "model/a/b@main", {GW_OK, 0, 1764000000000, GW_STR_INIT("0123")}},
        {CACHE_REF, "model/a/gone@main", {GW_NOT_FOUND, 7, 5, GW_STR_INIT("")}},
        {CACHE_DOCUMENT, "model/a/b@main", {GW_OK, -3, -1, GW_STR_INIT("{\"a\":\0}")}},
        {CACHE_TOKEN, "", {GW_FORBIDDEN, INT32_MIN, INT64_MAX, GW_STR_INIT("v")}},
        {CACHE_COMMIT, "model/gpt2", {GW_OK, 0, 0, GW_STR_INIT("model/openai/gpt2")}},
    };
    struct cache_put puts[COUNT(rows)];
    struct cache_record r;
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    for (size_t i = 0; i < COUNT(rows); i++) {
        puts[i] = (struct cache_put){rows[i].kind, gw_str_c(rows[i].name), rows[i].r};
    }
    assert_int_equal(cache_put(f.cache, puts, COUNT(puts), &f.err), GW_OK);
    for (int again = 0; again < 2; again++) { /* and after a restart */
        for (size_t i = 0; i < COUNT(rows); i++) {
            assert_int_equal(cache_get(f.cache, rows[i].kind, gw_str_c(rows[i].name), &f.arena, &r),
                             GW_OK);
            assert_int_equal(r.status, rows[i].r.status);
            assert_int_equal(r.detail, rows[i].r.detail);
            assert_int_equal(r.checked_ms, rows[i].r.checked_ms);
            assert_true(gw_str_eq(r.value, rows[i].r.value));
        }
        assert_int_equal(cache_get(f.cache, CACHE_FILE, GW_STR("model/a/b@main"), &f.arena, &r),
                         GW_NOT_FOUND); /* the kind is part of the key */
        fixture_close(&f);
        fixture_open(&f);
    }
    assert_int_equal(cache_remove(f.cache, CACHE_REF, GW_STR("model/a/b@main"), &f.err), GW_OK);
    assert_int_equal(cache_remove(f.cache, CACHE_REF, GW_STR("never there"), &f.err), GW_OK);
    assert_int_equal(cache_get(f.cache, CACHE_REF, GW_STR("model/a/b@main"), &f.arena, &r),
                     GW_NOT_FOUND);
    assert_int_equal(put_text(&f, CACHE_COMMIT, "model/gpt2", "other"), GW_OK);
    assert_true(holds(&f, CACHE_COMMIT, "model/gpt2", "other"));
    assert_string_equal(f.log, "");
    fixture_release(&f);
}

static void ceilings(void **state)
{
    struct cache_put *many = calloc(1001, sizeof(*many));
    char *big = calloc(1, CACHE_RECORD_MAX + 1);
    struct cache_put put = {.kind = CACHE_TREE, .name = GW_STR("t")};
    struct gw_arena small;
    struct cache_record r;
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(cache_put(f.cache, many, 1001, &f.err), GW_TOO_LARGE);
    assert_int_equal(cache_put(f.cache, many, 0, &f.err), GW_OK);
    put.record.value = (struct gw_str){big, CACHE_RECORD_MAX + 1};
    assert_int_equal(cache_put(f.cache, &put, 1, &f.err), GW_TOO_LARGE);
    put.record.value.n--;
    assert_int_equal(cache_put(f.cache, &put, 1, &f.err), GW_OK);
    assert_int_equal(cache_get(f.cache, CACHE_TREE, put.name, &f.arena, &r), GW_OK);
    assert_int_equal(r.value.n, CACHE_RECORD_MAX);
    gw_arena_init(&small, 1000);
    assert_int_equal(cache_get(f.cache, CACHE_TREE, put.name, &small, &r), GW_NO_MEMORY);
    gw_arena_release(&small);
    put.name = (struct gw_str){big, CACHE_NAME_MAX + 1};
    assert_int_equal(cache_put(f.cache, &put, 1, &f.err), GW_TOO_LARGE);
    free(many);
    free(big);
    fixture_release(&f);
}

static int one_life(void *ctx)
{
    struct fixture *f = ctx;
    struct cache_record r;
    int rc = cache_open(&f->cache, &f->options, &f->err);

    if (rc != GW_OK) {
        return rc;
    }
    rc = put_text(f, CACHE_REF, "a", "1");
    if (rc == GW_OK) {
        gw_arena_release(&f->arena);
        rc = cache_get(f->cache, CACHE_REF, GW_STR("a"), &f->arena, &r);
    }
    cache_close(f->cache);
    f->cache = NULL;
    return rc;
}

static void no_memory_is_said(void **state)
{
    struct fixture f;

    fixture_init(&f);
    f.options.slot = (unsigned)cache_slot_claim(f.shared);
    f.options.upstream.redirect_hosts = &f.options.upstream.via;
    f.options.upstream.n_redirect_hosts = 1;
    with_failing_alloc(one_life, &f, 3);
    fixture_release(&f);
}

/* Flips one byte near a text, wherever it stands in data.mdb: old pages still hold it. */
static void flip_near(struct fixture *f, const char *text, size_t offset)
{
    char path[128];
    char *map, *at;
    struct stat st;
    int fd;

    snprintf(path, sizeof(path), "%s/index/data.mdb", f->dir);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    fstat(fd, &st);
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    at = memmem(map, (size_t)st.st_size, text, strlen(text));
    assert_non_null(at);
    while (at != NULL) {
        char *next = at + 1;

        at[offset] = (char)(at[offset] ^ 1);
        at = memmem(next, (size_t)(map + st.st_size - next), text, strlen(text));
    }
    munmap(map, (size_t)st.st_size);
    close(fd);
}

static size_t set_aside(const struct fixture *f)
{
    struct gw_arena a;
    struct gw_str *names;
    size_t n, found = 0;

    gw_arena_init(&a, 1u << 20);
    assert_int_equal(gw_dir_list(f->dir, 1000, &a, &names, &n, NULL), GW_OK);
    for (size_t i = 0; i < n; i++) {
        found += gw_str_starts(names[i], GW_STR("index.damaged-"));
    }
    gw_arena_release(&a);
    return found;
}

static void a_wrong_byte_is_a_miss_and_then_a_new_index(void **state)
{
    static const int at[] = {0 /* the name */, 9 /* the value */, -1, -9 /* the head */};

    for (size_t i = 0; i < COUNT(at); i++) {
        struct fixture f;

        fixture_init(&f);
        fixture_open(&f);
        assert_int_equal(put_text(&f, CACHE_FILE, "name-of-it", "value-of-it"), GW_OK);
        assert_int_equal(put_text(&f, CACHE_COMMIT, "other", "o"), GW_OK);
        assert_true(holds(&f, CACHE_FILE, "name-of-it", "value-of-it"));
        flip_near(&f, "name-of-itvalue-of-it", (size_t)at[i]);
        assert_false(holds(&f, CACHE_FILE, "name-of-it", "value-of-it"));
        /* from now on nothing of it is believed, else "the commit is whole" would answer alone */
        assert_false(holds(&f, CACHE_COMMIT, "other", "o"));
        cache_index_tick(f.cache);
        assert_int_equal(set_aside(&f), 1);
        assert_int_equal(put_text(&f, CACHE_FILE, "name-of-it", "again"), GW_OK);
        assert_true(holds(&f, CACHE_FILE, "name-of-it", "again"));
        assert_int_equal(atomic_load(&f.shared->counters.index_resets), 1);
        assert_non_null(strstr(f.log, "set aside"));
        fixture_release(&f);
    }
}

static void a_put_reopens_as_well(void **state)
{
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
    atomic_store(&f.shared->index_suspect, 1);
    assert_int_equal(put_text(&f, CACHE_REF, "b", "2"), GW_OK);
    assert_true(holds(&f, CACHE_REF, "b", "2"));
    assert_false(holds(&f, CACHE_REF, "a", "1"));
    fixture_release(&f);
}

/* What may be found in the place of index/ at start: each is moved aside, with one line. */
static void what_is_no_index_is_moved_aside(void **state)
{
    static const char *const damage[] = {
        "head -c 100000 /dev/urandom > index/data.mdb",
        "echo x > index/data.mdb",
        "truncate -s 5000 index/data.mdb",
        "truncate -s -4096 index/data.mdb",
        "truncate -s -65536 index/data.mdb",
        "dd if=/dev/urandom of=index/data.mdb bs=1 seek=16 count=8 conv=notrunc status=none",
        "dd if=/dev/zero of=index/data.mdb bs=8192 count=1 conv=notrunc status=none",
        /* the last page of both meta pages: an absurd map */
        "for s in 136 4232; do printf '\\377\\377\\377\\377\\377\\377\\0\\0' | dd "
        "of=index/data.mdb "
        "bs=1 seek=$s conv=notrunc status=none; done",
        "LC_ALL=C sed -i 's/hubgate-index 1/hubgate-index 9/g' index/data.mdb",
    };

    for (size_t i = 0; i < COUNT(damage); i++) {
        struct fixture f;
        char value[3000];

        fixture_init(&f);
        fixture_open(&f);
        memset(value, 'v', sizeof(value));
        value[sizeof(value) - 1] = '\0';
        for (int n = 0; n < 50; n++) {
            char name[16];

            snprintf(name, sizeof(name), "r%d", n);
            assert_int_equal(put_text(&f, CACHE_REF, name, value), GW_OK);
        }
        fixture_close(&f);
        sh("cd %s && %s", f.dir, damage[i]);
        fixture_open(&f);
        if (set_aside(&f) != 1 || strstr(f.log, "set aside") == NULL) {
            fail_msg("not noticed: %s (log: %s)", damage[i], f.log);
        }
        assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
        assert_true(holds(&f, CACHE_REF, "a", "1"));
        fixture_release(&f);
    }
}

static void a_foreign_database_is_moved_aside(void **state)
{
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
    fixture_close(&f);
    /* a key of ours without the line that says whose it is */
    sh("LC_ALL=C sed -i 's/hubgate-index 1/somebody-else 1/g' %s/index/data.mdb", f.dir);
    fixture_open(&f);
    assert_int_equal(set_aside(&f), 1);
    assert_false(holds(&f, CACHE_REF, "a", "1"));
    fixture_release(&f);
}

static void only_two_are_kept(void **state)
{
    struct fixture f;

    fixture_init(&f);
    for (int i = 0; i < 5; i++) {
        fixture_open(&f);
        fixture_close(&f);
        sh("head -c 100000 /dev/urandom > %s/index/data.mdb", f.dir);
    }
    fixture_open(&f);
    assert_int_equal(set_aside(&f), 2);
    fixture_release(&f);
}

static void who_dies_inside_takes_only_the_index_along(void **state)
{
    struct fixture f;
    pid_t pid;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
    pid = fork();
    if (pid == 0) { /* stands for a worker that faults on a damaged page */
        int slot = cache_slot_claim(f.shared);

        atomic_store(&f.shared->slots[slot].in_index, 1);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    atomic_store(&f.shared->index_checked_ms, 0);
    cache_index_tick(f.cache); /* another worker's */
    assert_int_equal(set_aside(&f), 1);
    assert_false(holds(&f, CACHE_REF, "a", "1"));
    assert_int_equal(put_text(&f, CACHE_REF, "a", "2"), GW_OK);
    assert_true(holds(&f, CACHE_REF, "a", "2"));
    /* nobody died since: nothing more happens */
    atomic_store(&f.shared->index_checked_ms, 0);
    cache_index_tick(f.cache);
    assert_true(holds(&f, CACHE_REF, "a", "2"));
    fixture_release(&f);
}

static void a_file_cut_under_a_worker_kills_it_once(void **state)
{
    char value[2000], name[16];
    struct fixture f;
    int status;
    pid_t pid;

    fixture_init(&f);
    pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        struct cache_record r;

        setrlimit(RLIMIT_CORE, &none);
        signal(SIGBUS, SIG_DFL); /* not a sanitizer's */
        memset(value, 'v', sizeof(value));
        value[sizeof(value) - 1] = '\0';
        if (fixture_try_open(&f) != GW_OK) {
            _exit(1);
        }
        for (int i = 0; i < 200; i++) {
            snprintf(name, sizeof(name), "n%d", i);
            if (put_text(&f, CACHE_REF, name, value) != GW_OK) {
                _exit(1);
            }
        }
        sh("truncate -s 8192 %s/index/data.mdb", f.dir);
        if (cache_get(f.cache, CACHE_REF, GW_STR("n1"), &f.arena, &r) == GW_OK) {
            _exit(3);
        }
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    fixture_open(&f); /* the worker that takes its place */
    assert_int_equal(set_aside(&f), 1);
    assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
    assert_true(holds(&f, CACHE_REF, "a", "1"));
    fixture_release(&f);
}

static void a_full_index_loses_nothing_and_makes_room(void **state)
{
    struct cache_put puts[20];
    char names[COUNT(puts)][64], value[1000], *big = calloc(1, CACHE_RECORD_MAX);
    struct fixture f;
    int full = 0;

    fixture_init(&f);
    f.options.index_map_bytes = 4u << 20;
    fixture_open(&f);
    /* all at once is more than there is */
    assert_int_equal(put_text(&f, CACHE_TOKEN, "t", "kept"), GW_OK);
    puts[0] = (struct cache_put){CACHE_TREE, GW_STR("big"), {.value = {big, 5u << 20}}};
    assert_int_equal(cache_put(f.cache, puts, 1, &f.err), GW_IO);
    assert_int_equal(f.err.sys, ENOSPC);
    assert_true(holds(&f, CACHE_TOKEN, "t", "kept"));
    free(big);
    /* ten times what fits, bit by bit */
    memset(value, 'x', sizeof(value));
    for (int i = 0; i < 2000; i++) {
        for (size_t n = 0; n < COUNT(puts); n++) {
            snprintf(names[n], sizeof(names[n]), "model/a/b@c%d//f%zu", i, n);
            puts[n] = (struct cache_put){
                CACHE_FILE, gw_str_c(names[n]), {.checked_ms = i, .value = {value, sizeof(value)}}};
        }
        full += cache_put(f.cache, puts, COUNT(puts), &f.err) != GW_OK;
    }
    assert_true(full < 20);
    assert_true(holds(&f, CACHE_TOKEN, "t", "kept"));
    fixture_release(&f);
}

/* ---- many processes, any of which may be killed at any moment ---- */

static void put_pair(struct fixture *f, uint32_t n)
{
    char names[2][32], value[700];
    struct cache_put puts[2];
    size_t bytes = n % 600 + 20;

    memset(value, 'a' + (char)(n % 26), sizeof(value));
    for (int i = 0; i < 2; i++) { /* both or none */
        snprintf(names[i], sizeof(names[i]), "%s/%u", i != 0 ? "right" : "left", n);
        puts[i] = (struct cache_put){
            CACHE_FILE, gw_str_c(names[i]), {.checked_ms = n, .value = {value, bytes}}};
    }
    if (cache_put(f->cache, puts, 2, &f->err) != GW_OK) {
        dprintf(2, "put: %s\n", f->err.text);
        _exit(2);
    }
}

static void check_pair(struct fixture *f, uint32_t n)
{
    struct cache_record left, right;
    char name[32];
    bool has_left, has_right;

    snprintf(name, sizeof(name), "right/%u", n);
    has_right = cache_get(f->cache, CACHE_FILE, gw_str_c(name), &f->arena, &right) == GW_OK;
    snprintf(name, sizeof(name), "left/%u", n);
    has_left = cache_get(f->cache, CACHE_FILE, gw_str_c(name), &f->arena, &left) == GW_OK;
    /* suspect: the whole index is being forgotten just now */
    if (has_right &&
        (!has_left || !gw_str_eq(left.value, right.value) || left.value.n != n % 600 + 20) &&
        atomic_load(&f->shared->index_suspect) == 0 && atomic_load(&f->shared->index_epoch) == 0) {
        dprintf(2, "half a transaction\n");
        _exit(3);
    }
    gw_arena_release(&f->arena);
}

/* It has its slot and the index when this returns. */
static pid_t start_worker(struct fixture *f, unsigned seed, bool tick)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid != 0) {
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        return pid;
    }
    srand(seed);
    if (fixture_try_open(f) != GW_OK || write(ready[1], "x", 1) != 1) {
        dprintf(2, "open: %s\n", f->err.text);
        _exit(1);
    }
    for (;;) {
        uint32_t n = (uint32_t)rand() % 2000;

        if (n % 4 == 0) {
            put_pair(f, n);
        } else if (tick && n % 37 == 0) {
            cache_index_tick(f->cache);
        } else {
            check_pair(f, n);
        }
    }
}

/* The design sets an index aside that somebody died in. LMDB alone, without that: a kill is no
 * damage. */
static void forget_where_it_died(struct fixture *f, pid_t pid)
{
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        if (atomic_load(&f->shared->slots[i].pid) == (int32_t)pid) {
            atomic_store(&f->shared->slots[i].in_index, 0);
        }
    }
}

static void kill_one(struct fixture *f, pid_t pid, bool forget)
{
    int status;

    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        fail_msg("a worker ended by itself: %d (status %x)", WEXITSTATUS(status), status);
    }
    if (forget) {
        forget_where_it_died(f, pid);
    }
}

static void kill_at_random(bool forget)
{
    pid_t pids[4];
    struct fixture f;
    unsigned seed = 1;
    size_t held = 0;

    fixture_init(&f);
    for (size_t i = 0; i < COUNT(pids); i++) {
        pids[i] = start_worker(&f, seed++, !forget);
    }
    for (int round = 0; round < 40; round++) {
        size_t victim = (size_t)rand() % COUNT(pids);

        usleep(10000 + (useconds_t)rand() % 20000);
        kill_one(&f, pids[victim], forget);
        pids[victim] = start_worker(&f, seed++, !forget);
    }
    for (size_t i = 0; i < COUNT(pids); i++) {
        kill_one(&f, pids[i], forget);
    }
    fixture_open(&f);
    for (uint32_t n = 0; n < 2000; n += 4) {
        struct cache_record r;
        char name[32];

        check_pair(&f, n);
        snprintf(name, sizeof(name), "right/%u", n);
        held += cache_get(f.cache, CACHE_FILE, gw_str_c(name), &f.arena, &r) == GW_OK;
    }
    assert_int_equal(atomic_load(&f.shared->index_suspect), 0);
    if (forget) {
        assert_int_equal(atomic_load(&f.shared->counters.index_resets), 0);
        assert_true(held > 0);
    }
    put_pair(&f, 8);
    assert_true(holds(&f, CACHE_FILE, "right/8", "iiiiiiiiiiiiiiiiiiiiiiiiiiii"));
    fixture_release(&f);
}

static void processes_may_be_killed_at_any_moment(void **state)
{
    kill_at_random(true);
}

static void and_each_time_the_index_may_be_set_aside(void **state)
{
    kill_at_random(false);
}

static void others_reopen_when_one_sets_it_aside(void **state)
{
    struct fixture f;
    int status;
    pid_t pid;

#ifdef __SANITIZE_THREAD__
    skip(); /* it knows no threads made after a fork */
#endif
    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
    pid = fork();
    if (pid ==
        0) { /* another worker, which met damage; it must not touch the cache of its parent */
        struct fixture other = f;

        atomic_store(&f.shared->index_suspect, 1);
        gw_arena_init(&other.arena, 1u << 20);
        if (fixture_try_open(&other) != GW_OK || put_text(&other, CACHE_REF, "a", "2") != GW_OK) {
            _exit(1);
        }
        cache_close(other.cache);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_false(holds(&f, CACHE_REF, "a", "1")); /* the old one is no longer believed */
    cache_index_tick(f.cache);
    assert_true(holds(&f, CACHE_REF, "a", "2"));
    fixture_release(&f);
}

struct reader {
    struct fixture *f;
    atomic_bool stop;
    atomic_uint wrong, right;
};

static void *read_on(void *arg)
{
    struct reader *r = arg;
    struct cache_record record;
    struct gw_arena a;

    gw_arena_init(&a, 1u << 20);
    while (!atomic_load(&r->stop)) {
        if (cache_get(r->f->cache, CACHE_REF, GW_STR("a"), &a, &record) == GW_OK) {
            atomic_fetch_add(gw_str_eq_c(record.value, "1") ? &r->right : &r->wrong, 1);
        }
        gw_arena_release(&a);
    }
    return NULL;
}

static void jobs_read_while_the_loop_reopens(void **state)
{
    struct reader r = {0};
    pthread_t threads[2];
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
    r.f = &f;
    for (size_t i = 0; i < COUNT(threads); i++) {
        pthread_create(&threads[i], NULL, read_on, &r);
    }
    for (int i = 0; i < 20; i++) {
        for (int n = 0; n < 200; n++) {
            holds(&f, CACHE_REF, "a", "1");
            gw_arena_release(&f.arena);
        }
        atomic_store(&f.shared->index_suspect, 1);
        cache_index_tick(f.cache);
        assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
        usleep(1000);
    }
    atomic_store(&r.stop, true);
    for (size_t i = 0; i < COUNT(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&r.wrong), 0);
    assert_true(atomic_load(&r.right) > 0);
    fixture_release(&f);
}

static void another_users_files_are_refused(void **state)
{
    struct fixture f;

    if (geteuid() != 0) {
        skip();
    }
    fixture_init(&f);
    fixture_open(&f);
    fixture_close(&f);
    sh("chown 65534 %s/index/data.mdb", f.dir);
    assert_int_equal(fixture_try_open(&f), GW_INVALID);
    assert_non_null(strstr(f.err.text, "belongs to user 65534"));
    fixture_release(&f);
}

static void another_format_of_the_folder_is_moved_aside(void **state)
{
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(put_text(&f, CACHE_REF, "a", "1"), GW_OK);
    fixture_close(&f);
    fixture_open(&f);
    assert_true(holds(&f, CACHE_REF, "a", "1"));
    fixture_close(&f);
    sh("echo hubgate-cache 2 > %s/VERSION", f.dir);
    fixture_open(&f);
    assert_false(holds(&f, CACHE_REF, "a", "1"));
    assert_non_null(strstr(f.log, "another version"));
    sh("test -f %s/aside-*/index/data.mdb", f.dir);
    sh("grep -qx 'hubgate-cache 1' %s/VERSION", f.dir);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back_whole),
        cmocka_unit_test(ceilings),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(a_wrong_byte_is_a_miss_and_then_a_new_index),
        cmocka_unit_test(a_put_reopens_as_well),
        cmocka_unit_test(what_is_no_index_is_moved_aside),
        cmocka_unit_test(a_foreign_database_is_moved_aside),
        cmocka_unit_test(only_two_are_kept),
        cmocka_unit_test(who_dies_inside_takes_only_the_index_along),
        cmocka_unit_test(a_file_cut_under_a_worker_kills_it_once),
        cmocka_unit_test(a_full_index_loses_nothing_and_makes_room),
        cmocka_unit_test(processes_may_be_killed_at_any_moment),
        cmocka_unit_test(and_each_time_the_index_may_be_set_aside),
        cmocka_unit_test(others_reopen_when_one_sets_it_aside),
        cmocka_unit_test(jobs_read_while_the_loop_reopens),
        cmocka_unit_test(another_users_files_are_refused),
        cmocka_unit_test(another_format_of_the_folder_is_moved_aside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
