/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_adopt.c - a fill outlives its owner: real processes, killed, stopped,
 * reloaded. */
#include "tests/unit/cache/fill_fixture.h"

#define SIZE (12 * (uint64_t)MIB + 4321)
#define LARGE (40 * (uint64_t)MIB + 1)
#define KILLS 20

struct notes { /* shared by all processes of a test */
    atomic_int reading, done;
    atomic_bool stop; /* workers leave as they do on a reload */
};

struct world {
    char dir[64];
    struct hub *hub;
    pid_t hub_pid;
    struct cache_shared *shared;
    struct notes *notes;
    struct log_lines log;
};

static struct cache_shared *new_shared(void)
{
    struct cache_shared *s = shared_memory(sizeof(*s));

    assert_int_equal(cache_shared_init(s, NULL), GW_OK);
    return s;
}

static void free_shared(struct cache_shared *s)
{
    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        close(atomic_load(&s->slots[i].eventfd));
    }
    munmap(s, sizeof(*s));
}

static struct world *world_new(uint64_t size)
{
    struct world *w = calloc(1, sizeof(*w));

    snprintf(w->dir, sizeof(w->dir), "/tmp/hubgate-adopt-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->hub = hub_new(size);
    w->notes = shared_memory(sizeof(*w->notes));
    w->shared = new_shared();
    w->hub_pid = fork();
    if (w->hub_pid == 0) {
        in_child = true;
        hub_run(w->hub);
        _exit(0);
    }
    return w;
}

static int setup(void **state)
{
    *state = world_new(SIZE);
    return 0;
}

static int setup_large(void **state)
{
    *state = world_new(LARGE);
    return 0;
}

static int wait_for(pid_t pid)
{
    int status = -1;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        continue;
    }
    return status;
}

static int teardown(void **state)
{
    struct world *w = *state;

    atomic_store(&w->hub->stop, true);
    assert_int_equal(wait_for(w->hub_pid), 0);
    hub_free(w->hub);
    free_shared(w->shared);
    munmap(w->notes, sizeof(*w->notes));
    assert_int_equal(gw_dir_remove(w->dir, NULL), GW_OK);
    free(w);
    return 0;
}

static struct cache *open_cache(struct world *w, struct cache_shared *shared)
{
    struct cache *c = cache_of(w->hub, w->dir, shared, &w->log, false);

    c->fills->silent_ms = 2500;
    c->fills->foreign_ms = 2000;
    return c;
}

/* A worker with one client that reads everything; then it waits for the blob, or for stop. */
static pid_t worker(struct world *w, struct cache_shared *shared)
{
    pid_t pid = fork();
    struct response r = {0};
    struct cache *c;

    if (pid != 0) {
        assert_true(pid > 0);
        return pid;
    }
    in_child = true;
    c = open_cache(w, shared);
    r.reader = join(c, w->hub);
    r.end = w->hub->size;
    atomic_fetch_add(&w->notes->reading, 1);
    TURN_UNTIL(c, step(&r, w->hub) || atomic_load(&w->notes->stop));
    if (!atomic_load(&w->notes->stop)) {
        CHECK(r.rc == GW_OK);
        TURN_UNTIL(c, have_blob(c, w->hub));
    }
    cache_reader_close(r.reader);
    close_worker(c, shared);
    atomic_fetch_add(&w->notes->done, 1);
    _exit(0);
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int64_t wait_end = gw_mono_ms() + PATIENCE_MS;                                             \
        while (!(condition)) {                                                                     \
            if (gw_mono_ms() > wait_end) {                                                         \
                fail_msg("%s:%d: never came: %s", __FILE__, __LINE__, #condition);                 \
            }                                                                                      \
            usleep(500);                                                                           \
        }                                                                                          \
    } while (0)

/* The map as its file says; NULL: there is none. */
static struct map_live *look(struct world *w, void **image)
{
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/parts/%s.map", w->dir, w->hub->digest);
    fd = open(path, O_RDWR);
    if (fd < 0) {
        return NULL;
    }
    *image = mmap(NULL, MAP_GRANULES_AT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(*image != MAP_FAILED);
    close(fd);
    return (struct map_live *)(void *)((char *)*image + MAP_PAGE);
}

static pid_t owner(struct world *w)
{
    void *image = NULL;
    struct map_live *live = look(w, &image);
    uint64_t word = live != NULL ? atomic_load(&live->owner) : 0;
    pid_t pid = 0;

    if (live != NULL) {
        munmap(image, MAP_GRANULES_AT);
    }
    if (word != 0) {
        pid = atomic_load(&w->shared->slots[(word >> 32 & 0xff) - 1].pid);
    }
    return pid;
}

static void remove_blob(struct world *w)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/blobs/%.2s/%.2s/%s", w->dir, w->hub->digest,
             w->hub->digest + 2, w->hub->digest);
    assert_int_equal(unlink(path), 0);
}

static void check_file(struct world *w)
{
    char path[PATH_MAX];
    uint8_t *p = malloc((size_t)w->hub->size);
    struct stat st;
    int fd;

    snprintf(path, sizeof(path), "%s/blobs/%.2s/%.2s/%s", w->dir, w->hub->digest,
             w->hub->digest + 2, w->hub->digest);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, w->hub->size);
    assert_int_equal(gw_pread_all(fd, p, (size_t)w->hub->size, 0, NULL), GW_OK);
    assert_memory_equal(p, w->hub->bytes, (size_t)w->hub->size);
    close(fd);
    free(p);
    assert_false(exists(w->dir, w->hub->digest, ".part"));
    assert_false(exists(w->dir, w->hub->digest, ".map"));
}

/* kill -9 of the owner somewhere in its fill: the other worker's client gets every byte. */
static void test_kill_owner(void **state)
{
    struct world *w = *state;
    const char *asked = getenv("KILLS");
    unsigned kills = asked != NULL ? (unsigned)strtoul(asked, NULL, 10) : KILLS, killed = 0;
    uint64_t over = 0;

    srandom((unsigned)getpid());
    /* a round whose fill was whole before we came is no kill: some more of them */
    for (unsigned round = 0; round < kills || (killed < kills / 2 && round < 10 * kills); round++) {
        uint64_t point = (uint64_t)random() % SIZE;
        pid_t pids[2], victim;

        atomic_store(&w->notes->reading, 0);
        atomic_store(&w->hub->sent, 0);
        atomic_store(&w->hub->slow, (128 << 10) / fill_transfers); /* of each */
        atomic_store(&w->hub->gate, 0);
        pids[0] = worker(w, w->shared);
        pids[1] = worker(w, w->shared);
        WAIT_FOR(atomic_load(&w->notes->reading) == 2);
        atomic_store(&w->hub->gate, UINT64_MAX);
        WAIT_FOR(atomic_load(&w->hub->sent) >= point);
        victim = owner(w);
        if (victim != pids[0] && victim != pids[1]) { /* it is whole already */
            assert_int_equal(wait_for(pids[0]), 0);
            assert_int_equal(wait_for(pids[1]), 0);
        } else {
            killed++;
            assert_int_equal(kill(victim, SIGKILL), 0);
            assert_int_equal(WTERMSIG(wait_for(victim)), SIGKILL);
            if (wait_for(victim == pids[0] ? pids[1] : pids[0]) != 0) {
                fail_msg("round %u, killed at %llu: the survivor failed", round,
                         (unsigned long long)point);
            }
        }
        check_file(w);
        /* the granules under way, and what the sockets held */
        if (atomic_load(&w->hub->sent) > SIZE + (fill_transfers + 6) * (uint64_t)MIB) {
            fail_msg("round %u: %llu bytes from upstream", round,
                     (unsigned long long)atomic_load(&w->hub->sent));
        }
        over += atomic_load(&w->hub->sent) - SIZE;
        remove_blob(w);
    }
    print_message("%u of %u killed in mid-fill, %llu bytes fetched twice in all\n", killed, kills,
                  (unsigned long long)over);
    assert_true(killed >= kills / 2);
    assert_true(atomic_load(&w->shared->counters.fills_adopted) >= killed / 2);
    assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), 0);
    assert_int_equal(atomic_load(&w->shared->counters.maps_dropped), 0);
}

static void test_kill_owner_of_four(void **state)
{
    fill_transfers = 4;
    test_kill_owner(state);
    fill_transfers = 1;
}

static uint64_t hashed(struct cache *c)
{
    struct fill_table *t = c->fills;
    uint64_t n = 0;

    pthread_mutex_lock(&t->mutex);
    for (const struct fill *f = t->list; f != NULL; f = f->next) {
        n = f->owned && !f->queued ? f->hashed : n;
    }
    pthread_mutex_unlock(&t->mutex);
    return n;
}

/* A worker leaves in an orderly way; another one, that nobody reads from, goes on: no byte is
 * fetched twice, and hashing begins where it was. */
static void test_reload(void **state)
{
    struct world *w = *state;
    const uint64_t middle = 20 * MIB + 100;
    void *image = NULL;
    struct map_live *live;
    struct cache *c;
    uint64_t before;
    pid_t pid;

    atomic_store(&w->hub->gate, middle);
    pid = worker(w, w->shared);
    WAIT_FOR((live = look(w, &image)) != NULL);
    /* a step is worth it from 8 MiB on: one or two of them, as it comes */
    WAIT_FOR(live->hash[0].sha.bytes >= 8 * MIB || live->hash[1].sha.bytes >= 8 * MIB);
    WAIT_FOR(atomic_load(&live->transfers[0]) == transfer_word(20, 100));
    atomic_store(&w->notes->stop, true);
    assert_int_equal(wait_for(pid), 0);
    assert_int_equal(atomic_load(&live->owner), 0);
    assert_int_not_equal(atomic_load(&live->clean), 0);
    assert_int_equal(sent_in_all(w->hub), middle);

    c = open_cache(w, w->shared);
    WAIT_FOR(hashed(c) > 0);
    before = hashed(c);
    assert_true(before >= 8 * MIB);
    assert_int_equal(atomic_load(&live->clean), 0);
    atomic_store(&w->hub->gate, UINT64_MAX);
    TURN_UNTIL(c, hashed(c) == 0 || hashed(c) > before);
    TURN_UNTIL(c, have_blob(c, w->hub));
    close_worker(c, w->shared);
    munmap(image, MAP_GRANULES_AT);
    check_file(w);
    assert_int_equal(sent_in_all(w->hub), w->hub->size);
    assert_int_equal(atomic_load(&w->hub->last_start), middle);
    assert_int_equal(atomic_load(&w->shared->counters.fills_adopted), 1);
}

/* The same with a client on the other worker, which keeps its descriptor. */
static void test_reload_followed(void **state)
{
    struct world *w = *state;
    struct response r = {0};
    struct cache *c;
    pid_t pid;

    atomic_store(&w->hub->gate, 5 * MIB + 100);
    pid = worker(w, w->shared);
    WAIT_FOR(owner(w) == pid);
    c = open_cache(w, w->shared);
    r.reader = join(c, w->hub);
    r.end = w->hub->size;
    TURN_UNTIL(c, ((void)step(&r, w->hub), r.offset == 5 * MIB + 100));
    assert_int_equal(owner(w), pid);
    atomic_store(&w->notes->stop, true);
    assert_int_equal(wait_for(pid), 0);
    atomic_store(&w->hub->gate, UINT64_MAX);
    assert_int_equal(follow(c, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(c, have_blob(c, w->hub));
    close_worker(c, w->shared);
    check_file(w);
    assert_int_equal(sent_in_all(w->hub), w->hub->size);
}

/* Stopped, not dead: after a while another one takes the fill; the old owner notices when it goes
 * on, and its own client gets every byte as well. */
static void test_stopped_owner(void **state)
{
    struct world *w = *state;
    pid_t pids[2], stopped;

    atomic_store(&w->hub->gate, 5 * MIB);
    pids[0] = worker(w, w->shared);
    WAIT_FOR(owner(w) == pids[0]);
    pids[1] = worker(w, w->shared);
    WAIT_FOR(atomic_load(&w->notes->reading) == 2);
    stopped = owner(w);
    assert_int_equal(stopped, pids[0]);
    assert_int_equal(kill(stopped, SIGSTOP), 0);
    WAIT_FOR(owner(w) == pids[1]);
    atomic_store(&w->hub->gate, UINT64_MAX);
    assert_int_equal(wait_for(pids[1]), 0);
    assert_int_equal(kill(stopped, SIGCONT), 0);
    assert_int_equal(wait_for(stopped), 0);
    check_file(w);
    /* the stopped one's socket was full: tcp_wmem and tcp_rmem let it have 4 and 6 MiB */
    assert_true(sent_in_all(w->hub) <= SIZE + 12 * MIB);
}

/* A reader in another process asks for what nobody fetches: the owner does it, and goes on owning.
 */
static void test_demand_of_others(void **state)
{
    struct world *w = *state;
    struct response r[3] = {{0}};
    struct cache *c;
    pid_t pid;

    fill_transfers = 4;
    atomic_store(&w->hub->hold_to, 4 * MIB);
    pid = worker(w, w->shared);
    WAIT_FOR(owner(w) == pid);
    c = open_cache(w, w->shared);
    for (unsigned i = 0; i < 3; i++) {
        r[i].reader = join(c, w->hub);
        r[i].offset = (uint64_t[]){2 * MIB + 5, 35 * MIB, LARGE - 10}[i];
        r[i].end = r[i].offset + 10;
    }
    atomic_store(&w->hub->hold_to, 2 * MIB);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(follow(c, w->hub, &r[i]), GW_OK);
        cache_reader_close(r[i].reader);
    }
    assert_int_equal(owner(w), pid);
    assert_int_equal(atomic_load(&w->hub->of_mib[0]), 0);
    atomic_store(&w->hub->hold_to, 0);
    assert_int_equal(wait_for(pid), 0);
    close_worker(c, w->shared);
    check_file(w);
    assert_true(atomic_load(&w->hub->sent) <= LARGE + 16 * MIB);
    assert_int_equal(atomic_load(&w->shared->counters.blob_bytes_filled), LARGE);
    fill_transfers = 1;
}

/* The owner of a sparse fill is killed: who still waits gets its bytes, the rest is not fetched. */
static void test_sparse_owner_killed(void **state)
{
    struct world *w = *state;
    struct response r = {.offset = 5 * MIB, .end = 7 * MIB};
    struct cache *c;
    pid_t pid;

    atomic_store(&w->hub->gate, 5 * MIB + 100);
    pid = fork();
    if (pid == 0) {
        in_child = true;
        c = open_cache(w, w->shared);
        r.reader = join(c, w->hub);
        TURN_UNTIL(c, step(&r, w->hub));
        _exit(1);
    }
    WAIT_FOR(atomic_load(&w->hub->sent) == 100);
    c = open_cache(w, w->shared);
    r.reader = join(c, w->hub);
    TURN_UNTIL(c, ((void)step(&r, w->hub), r.offset == 5 * MIB + 100));
    assert_int_equal(owner(w), pid);
    assert_int_equal(kill(pid, SIGKILL), 0);
    (void)wait_for(pid);
    atomic_store(&w->hub->gate, UINT64_MAX);
    assert_int_equal(follow(c, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(c, owner(w) == 0);
    assert_int_equal(sent_in_all(w->hub), 2 * MIB); /* not even the 100 twice */
    assert_int_equal(atomic_load(&w->shared->counters.fills_adopted), 1);
    close_worker(c, w->shared);
}

/* Two masters (an upgrade): slots of one mean nothing to the other. */
static void test_two_masters(void **state)
{
    struct world *w = *state;
    struct cache_shared *other = new_shared();
    struct response r = {0};
    struct cache *c;
    pid_t pid;

    atomic_store(&w->hub->slow,
                 4 << 10); /* 3 s: longer than a silent foreign owner is waited for */
    pid = worker(w, w->shared);
    WAIT_FOR(owner(w) == pid);
    c = open_cache(w, other);
    assert_int_equal(c->slot, 0); /* the same slot and generation as the owner's, in other memory */
    r.reader = join(c, w->hub);
    r.end = w->hub->size;
    TURN_UNTIL(c, ((void)step(&r, w->hub), r.offset > 9 * MIB));
    assert_int_equal(atomic_load(&w->hub->calls[1]), 1); /* it was left alone */
    assert_int_equal(owner(w), pid);
    assert_int_equal(kill(pid, SIGKILL), 0);
    (void)wait_for(pid);
    assert_int_equal(follow(c, w->hub, &r), GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(c, have_blob(c, w->hub));
    close_worker(c, other);
    free_shared(other);
    check_file(w);
    assert_int_equal(atomic_load(&w->hub->calls[1]), 2);
    assert_true(atomic_load(&w->hub->sent) <= SIZE + 3 * MIB);
}

/* Everything killed between the proof and the end: the next one repeats the rest, without a byte.
 */
static void test_proven_not_linked(void **state)
{
    struct world *w = *state;
    void *image = NULL;
    struct map_live *live;
    struct cache *c;
    pid_t pid;

    atomic_store(&w->hub->gate, SIZE - 1);
    pid = worker(w, w->shared);
    WAIT_FOR((live = look(w, &image)) != NULL);
    WAIT_FOR(atomic_load(&w->hub->sent) == SIZE - 1);
    kill(pid, SIGSTOP);
    atomic_store(&w->hub->gate, UINT64_MAX);
    kill(pid, SIGCONT);
    while (atomic_load(&live->state) == MAP_FILLING) { /* as near as a signal can come */
        continue;
    }
    kill(pid, SIGKILL);
    (void)wait_for(pid);
    munmap(image, MAP_GRANULES_AT);
    c = open_cache(w, w->shared);
    TURN_UNTIL(c, have_blob(c, w->hub) && !exists(w->dir, w->hub->digest, ".map"));
    close_worker(c, w->shared);
    check_file(w);
    assert_int_equal(sent_in_all(w->hub), SIZE);
}

/* Everything killed while it was linked: the part has a blob's mode, and a worker that is not root
 * cannot open it for writing any more. */
static void test_proven_read_only(void **state)
{
    static const uid_t nobody = 65534;
    struct world *w = *state;
    char path[PATH_MAX], *const change[] = {"chown", "-R", "65534:65534", w->dir, NULL};
    void *image = NULL;
    struct map_live *live;
    struct cache *c;
    pid_t pid;

    atomic_store(&w->hub->gate, SIZE - 1);
    pid = worker(w, w->shared);
    WAIT_FOR((live = look(w, &image)) != NULL);
    WAIT_FOR(atomic_load(&w->hub->sent) == SIZE - 1);
    kill(pid, SIGSTOP);
    atomic_store(&w->hub->gate, UINT64_MAX);
    kill(pid, SIGCONT);
    while (atomic_load(&live->state) == MAP_FILLING) {
        continue;
    }
    kill(pid, SIGKILL);
    (void)wait_for(pid);
    munmap(image, MAP_GRANULES_AT);
    snprintf(path, sizeof(path), "%s/parts/%s.part", w->dir, w->hub->digest);
    if (chmod(path, 0440) != 0) {
        assert_int_equal(errno, ENOENT); /* it was quicker than the signal */
    }
    pid = fork();
    if (pid == 0) {
        in_child = true;
        if (geteuid() == 0) {
            pid = fork();
            if (pid == 0) {
                execvp(change[0], change);
                _exit(127);
            }
            CHECK(wait_for(pid) == 0 && setgid(nobody) == 0 && setuid(nobody) == 0);
        }
        c = open_cache(w, w->shared);
        TURN_UNTIL(c, have_blob(c, w->hub) && !exists(w->dir, w->hub->digest, ".map"));
        close_worker(c, w->shared);
        _exit(0);
    }
    assert_int_equal(wait_for(pid), 0);
    assert_int_equal(atomic_load(&w->shared->counters.maps_dropped), 0);
    check_file(w);
    assert_int_equal(sent_in_all(w->hub), SIZE);
}

/* Somebody who lost the fill is stopped in the middle of a write. What he writes before it is
 * proved is seen; if he does not come back, the blob is a copy, and he writes where nobody looks.
 */
static void written_late(struct world *w, bool comes_back)
{
    struct response r = {.end = w->hub->size};
    struct fill other = {.map.part_fd = -1};
    struct cache *c = open_cache(w, w->shared);
    char path[PATH_MAX];

    atomic_store(&w->hub->gate, 7 * MIB);
    r.reader = join(c, w->hub);
    TURN_UNTIL(c, ((void)step(&r, w->hub), r.offset == 7 * MIB));
    cache_reader_close(r.reader);
    close_worker(c, w->shared); /* it leaves the fill to whoever comes */

    snprintf(path, sizeof(path), "%s/parts/%s.part", w->dir, w->hub->digest);
    other.map.part_fd = open(path, O_RDWR);
    assert_true(part_write_begin(&other));
    atomic_store(&w->hub->gate, UINT64_MAX);
    c = open_cache(w, w->shared);
    r = (struct response){.reader = join(c, w->hub), .end = w->hub->size};
    TURN_UNTIL(c, ((void)step(&r, w->hub), r.offset == w->hub->size / MIB * MIB));
    if (comes_back) {
        assert_int_equal(gw_pwrite_all(other.map.part_fd, "wrong", 5, 3 * MIB - 2, NULL), GW_OK);
        part_write_end(&other);
    }
    TURN_UNTIL(c, step(&r, w->hub));
    assert_int_equal(r.rc, comes_back ? GW_CORRUPT : GW_OK);
    cache_reader_close(r.reader);
    TURN_UNTIL(c, have_blob(c, w->hub) && !exists(w->dir, w->hub->digest, ".map"));
    assert_int_equal(gw_pwrite_all(other.map.part_fd, "wrong", 5, 3 * MIB - 2, NULL), GW_OK);
    close(other.map.part_fd);
    close_worker(c, w->shared);
    check_file(w);
    assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), comes_back);
}

static void test_written_late(void **state)
{
    written_late(*state, true);
}

static void test_never_written(void **state)
{
    written_late(*state, false);
}

/* A map that is cut while it is mapped: the fill ends. Who happens to look at it in that very
 * moment gets a SIGBUS, which only a process of its own can be allowed here; the next one drops the
 * rest. */
static void test_map_cut_in_use(void **state)
{
    static const off_t rows[] = {0, 4096, 5000, 8200};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct response r = {.end = w->hub->size};
        char path[PATH_MAX];
        struct cache *c;
        int status;
        pid_t pid;

        atomic_store(&w->hub->gate, 3 * MIB + 10);
        snprintf(path, sizeof(path), "%s/parts/%s.map", w->dir, w->hub->digest);
        pid = fork();
        if (pid == 0) {
            in_child = true;
            signal(SIGBUS, SIG_DFL); /* cmocka's would go on with the other tests */
            c = open_cache(w, w->shared);
            r.reader = join(c, w->hub);
            TURN_UNTIL(c, ((void)step(&r, w->hub), r.offset == 3 * MIB + 10));
            CHECK(truncate(path, rows[i]) == 0);
            CHECK(follow(c, w->hub, &r) == GW_UNAVAILABLE);
            cache_reader_close(r.reader);
            close_worker(c, w->shared);
            _exit(0);
        }
        status = wait_for(pid);
        if (status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS)) {
            fail_msg("row %zu: status %x", i, (unsigned)status);
        }
        atomic_store(&w->hub->gate, UINT64_MAX);
        c = open_cache(w, w->shared);
        r.reader = join(c, w->hub);
        assert_int_equal(follow(c, w->hub, &r), GW_OK);
        cache_reader_close(r.reader);
        TURN_UNTIL(c, have_blob(c, w->hub) && !exists(w->dir, w->hub->digest, ".map"));
        close_worker(c, w->shared);
        check_file(w);
        assert_int_equal(atomic_load(&w->shared->counters.maps_dropped), i + 1);
        assert_int_equal(atomic_load(&w->shared->counters.integrity_failures), 0);
        remove_blob(w);
    }
}

int main(void)
{
#define TEST(name, how) cmocka_unit_test_setup_teardown(name, how, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_kill_owner, setup),          TEST(test_reload, setup_large),
        TEST(test_reload_followed, setup),     TEST(test_stopped_owner, setup),
        TEST(test_two_masters, setup),         TEST(test_proven_not_linked, setup),
        TEST(test_map_cut_in_use, setup),      TEST(test_proven_read_only, setup),
        TEST(test_kill_owner_of_four, setup),  TEST(test_demand_of_others, setup_large),
        TEST(test_sparse_owner_killed, setup), TEST(test_written_late, setup),
        TEST(test_never_written, setup),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
