/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_budget.c - entries, their sum and order; eviction down to the low mark; the
 * walk after a crash; damage on the disk. */
#include "tests/unit/cache/cache_fixture.h"
#include "tests/unit/failing.h"

#include <sys/mount.h>

#include "base/encode.h"
#include "cache/budget_internal.h"
#include "cache/fill_internal.h"

#define KIB 1024u
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define CHECK_THREAD(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- how much is to go ---- */

static void what_is_over_is_freed_down_to_the_low_mark(void **state)
{
    static const struct {
        struct budget_measure m;
        uint64_t free;
    } rows[] = {
        {{.max = 0, .used = 100 * GIB, .disk_free = GIB, .disk_size = 4 * GIB}, 0},
        {{.max = 1000, .used = 1000, .disk_free = GIB, .disk_size = 4 * GIB}, 0},
        {{.max = 1000, .used = 1001, .disk_free = GIB, .disk_size = 4 * GIB}, 101},
        {{.max = 1000, .used = 600, .coming = 400, .disk_free = GIB, .disk_size = 4 * GIB}, 0},
        {{.max = 1000, .used = 600, .coming = 500, .disk_free = GIB, .disk_size = 4 * GIB}, 200},
        /* free space: min_free, or a 20th of a small disk; a tenth more than that */
        {{.min_free = 2 * GIB, .disk_free = 2 * GIB, .disk_size = 100 * GIB}, 0},
        {{.min_free = 2 * GIB, .disk_free = GIB, .disk_size = 100 * GIB}, GIB + 2 * GIB / 10},
        {{.min_free = 2 * GIB, .disk_free = GIB / 4, .disk_size = 5 * GIB}, 0},
        {{.min_free = 2 * GIB, .disk_free = GIB / 8, .disk_size = 5 * GIB}, GIB / 8 + GIB / 4 / 10},
        {{.min_free = 0, .disk_free = 0, .disk_size = 5 * GIB}, 0},
        /* somebody waits for room */
        {{.wanted = GIB, .disk_free = 2 * GIB, .disk_size = 5 * GIB}, 0},
        {{.wanted = GIB, .used = GIB, .disk_free = GIB, .disk_size = 5 * GIB}, 64 * MIB},
        {{.wanted = GIB, .used = 2 * GIB, .promised = GIB, .disk_free = GIB, .disk_size = 5 * GIB},
         GIB + 64 * MIB},
        {{.wanted = 3 * GIB, .used = GIB, .disk_free = GIB, .disk_size = 5 * GIB}, 0}, /* in vain */
        /* the larger of two */
        {{.max = 100 * MIB,
          .used = 110 * MIB,
          .min_free = GIB,
          .disk_free = 0,
          .disk_size = 20 * GIB},
         GIB + GIB / 10},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t free = budget_excess(&rows[i].m);

        if (free != rows[i].free) {
            fail_msg("row %zu: %llu", i, (unsigned long long)free);
        }
    }
}

/* ---- entries ---- */

static struct usage usage_of(unsigned n, uint64_t bytes, int64_t used_ms)
{
    struct usage u = {.id = {.n = 32}, .bytes = bytes, .used_ms = used_ms};

    gw_sha256_once(&n, sizeof(n), u.id.raw);
    return u;
}

static void change(struct fixture *f, enum usage_what what, struct usage u)
{
    struct usage_change c = {what, u};

    assert_int_equal(usage_apply(f->cache, &c, 1, &f->err), GW_OK);
}

static void sum_is(struct fixture *f, uint64_t bytes, uint64_t blobs)
{
    uint64_t b = 1, n = 1;

    assert_int_equal(usage_totals(f->cache, &b, &n, &f->err), GW_OK);
    assert_int_equal(b, bytes);
    assert_int_equal(n, blobs);
}

static void order_is(struct fixture *f, const unsigned *wanted, size_t n_wanted)
{
    struct usage rows[32], last;
    size_t n, at = 0;

    for (bool first = true;; first = false) { /* by pages of three */
        assert_int_equal(usage_oldest(f->cache, first ? NULL : &last, rows, 3, &n, &f->err), GW_OK);
        if (n == 0) {
            break;
        }
        for (size_t i = 0; i < n; i++, at++) {
            struct usage u = usage_of(wanted[at], 0, 0);

            assert_true(at < n_wanted);
            assert_memory_equal(&rows[i].id, &u.id, sizeof(u.id));
        }
        last = rows[n - 1];
    }
    assert_int_equal(at, n_wanted);
}

static void entries_are_ordered_by_last_use_and_summed(void **state)
{
    struct fixture f;
    struct usage u;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    sum_is(&f, 0, 0);
    order_is(&f, NULL, 0);
    for (unsigned i = 0; i < 7; i++) {
        change(&f, USAGE_SET, usage_of(i, 100 + i, 1000000 + 1000 * (6 - i)));
    }
    sum_is(&f, 721, 7);
    order_is(&f, (const unsigned[]){6, 5, 4, 3, 2, 1, 0}, 7);
    change(&f, USAGE_SET, usage_of(6, 50, 5000)); /* an older use does not count */
    sum_is(&f, 665, 7);
    order_is(&f, (const unsigned[]){6, 5, 4, 3, 2, 1, 0}, 7);
    change(&f, USAGE_TOUCH, usage_of(6, 0, 1000500)); /* 1/13th of what is held: it moves */
    order_is(&f, (const unsigned[]){6, 5, 4, 3, 2, 1, 0}, 7);
    change(&f, USAGE_TOUCH, usage_of(6, 0, 1001500));
    order_is(&f, (const unsigned[]){5, 6, 4, 3, 2, 1, 0}, 7);
    change(&f, USAGE_TOUCH, usage_of(5, 0, 9000000));
    order_is(&f, (const unsigned[]){6, 4, 3, 2, 1, 0, 5}, 7);
    change(&f, USAGE_TOUCH, usage_of(5, 0, 9000000 + 7998500 / 64)); /* makes no difference */
    assert_int_equal(usage_get(f.cache, &(struct blob_id){0}, &u, &f.err), GW_NOT_FOUND);
    assert_int_equal(usage_get(f.cache, &(struct usage[]){usage_of(5, 0, 0)}[0].id, &u, &f.err),
                     GW_OK);
    assert_int_equal(u.used_ms, 9000000);
    change(&f, USAGE_TOUCH, usage_of(77, 0, 9000000)); /* nobody told of it: nothing */
    sum_is(&f, 665, 7);
    change(&f, USAGE_REMOVE, usage_of(4, 0, 0));
    change(&f, USAGE_REMOVE, usage_of(4, 0, 0));
    change(&f, USAGE_SET, usage_of(3, 0, 0)); /* data/ has it too: held, and frees nothing */
    sum_is(&f, 458, 6);
    order_is(&f, (const unsigned[]){6, 2, 1, 0, 5}, 5);
    fixture_close(&f);
    fixture_open(&f);
    sum_is(&f, 458, 6);
    order_is(&f, (const unsigned[]){6, 2, 1, 0, 5}, 5);
    fixture_release(&f);
}

static void a_range_of_entries_is_by_digest(void **state)
{
    uint8_t from[BLOB_KEY] = {0}, to[BLOB_KEY];
    struct usage_change all[200];
    struct usage rows[7];
    struct fixture f;
    size_t n, seen = 0;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    for (unsigned i = 0; i < COUNT(all); i++) {
        all[i] = (struct usage_change){USAGE_SET, usage_of(i, 1, 1)};
    }
    assert_int_equal(usage_apply(f.cache, all, COUNT(all), &f.err), GW_OK);
    memset(to, 0xff, sizeof(to));
    do {
        assert_int_equal(usage_range(f.cache, from, to, rows, COUNT(rows), &n, &f.err), GW_OK);
        for (size_t i = 0; i < n; i++) {
            assert_true(memcmp(from, rows[i].id.raw, BLOB_KEY) <= 0);
            memcpy(from, rows[i].id.raw, BLOB_KEY);
            assert_true(usage_next_key(from));
            seen++;
        }
    } while (n > 0);
    assert_int_equal(seen, COUNT(all));
    memset(from, 0, sizeof(from));
    memset(to, 0xff, sizeof(to));
    to[0] = 0x7f;
    assert_int_equal(usage_range(f.cache, from, to, rows, COUNT(rows), &n, &f.err), GW_OK);
    for (size_t i = 0; i < n; i++) {
        assert_true(rows[i].id.raw[0] <= 0x7f);
    }
    memset(from, 0xff, sizeof(from));
    assert_false(usage_next_key(from));
    fixture_release(&f);
}

/* ---- files ---- */

struct file {
    char digest[65], path[CACHE_PATH_MAX];
    uint64_t bytes;
};

/* A blob of so many bytes, taken in as the gateway does. */
static struct file make_blob(struct fixture *f, unsigned seed, size_t bytes)
{
    struct file out = {.bytes = bytes};
    uint8_t sum[32], *p = malloc(bytes);

    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
    }
    memcpy(p, &seed, sizeof(seed));
    gw_sha256_once(p, bytes, sum);
    gw_hex_encode(out.digest, sum, sizeof(sum));
    if (cache_blob_put(f->cache, gw_str_c(out.digest), (struct gw_str){(char *)p, bytes},
                       &f->err) != GW_OK) {
        fail_msg("%s", f->err.text);
    }
    free(p);
    assert_true(cache_blob_path(f->cache, gw_str_c(out.digest), out.path, sizeof(out.path)));
    return out;
}

static bool there(const struct file *file)
{
    return access(file->path, F_OK) == 0;
}

/* The loop's tick and its jobs, once. */
static void turn(struct fixture *f)
{
    struct gw_want want;

    while (cache_budget_tick(f->cache, &want) == GW_OK) {
        assert_int_equal(gw_str_eq_c(want.key, "usage") ? cache_usage_job(f->cache, &f->err)
                                                        : cache_budget_job(f->cache, &f->err),
                         GW_OK);
    }
    usleep(20000);
}

#define UNTIL(f, condition)                                                                        \
    do {                                                                                           \
        int64_t deadline_ = gw_mono_ms() + 30000;                                                  \
        while (!(condition)) {                                                                     \
            turn(f);                                                                               \
            if (gw_mono_ms() > deadline_) {                                                        \
                fail_msg("never: %s", #condition);                                                 \
            }                                                                                      \
        }                                                                                          \
    } while (0)

static uint64_t summed(struct fixture *f)
{
    uint64_t bytes, blobs;

    assert_int_equal(usage_totals(f->cache, &bytes, &blobs, &f->err), GW_OK);
    return bytes;
}

/* Nothing is left to be written down. */
static bool quiet(struct fixture *f)
{
    const struct budget *b = f->cache->budget;

    return b->n_changed == 0 && !atomic_load(&b->flush_out) &&
           atomic_load(&f->shared->walk_done) == atomic_load(&f->shared->walk_wanted);
}

static void set_used(struct fixture *f, const struct file *file, int64_t used_ms)
{
    struct usage u = {.bytes = file->bytes, .used_ms = used_ms};

    assert_true(blob_id_of(gw_str_c(file->digest), &u.id));
    change(f, USAGE_REMOVE, u);
    change(f, USAGE_SET, u);
}

static void the_oldest_go_and_nobody_is_harmed(void **state)
{
    struct fixture f;
    struct file files[10];
    char byte, other[128];
    struct gw_str pin;
    uint64_t size, n;
    int64_t modified_s;
    int fd;

    (void)state;
    fixture_init(&f);
    f.options.max_bytes = 320 * KIB;
    fixture_open(&f);
    for (unsigned i = 0; i < 8; i++) {
        files[i] = make_blob(&f, i, 40 * KIB);
    }
    UNTIL(&f, quiet(&f) && summed(&f) == 320 * KIB); /* just full: nothing goes */
    for (unsigned i = 0; i < 8; i++) {
        set_used(&f, &files[i], 1000000 + i);
        assert_true(there(&files[i]));
    }
    pin = gw_str_c(files[1].digest);
    assert_int_equal(cache_pins_set(f.cache, &pin, 1, &f.err), GW_OK);
    snprintf(other, sizeof(other), "%s/other", f.dir);
    assert_int_equal(link(files[2].path, other), 0); /* as data/ would have it */
    assert_int_equal(
        cache_blob_open(f.cache, gw_str_c(files[0].digest), &fd, &size, &modified_s, &f.err),
        GW_OK);
    set_used(&f, &files[0], 1000000);
    memset(f.cache->budget->served, 0, sizeof(*f.cache->budget->served)); /* was not used, then */
    files[8] = make_blob(&f, 8, 40 * KIB);
    files[9] = make_blob(&f, 9, 40 * KIB);
    UNTIL(&f, !there(&files[3]));
    UNTIL(&f, f.cache->budget->to_free == 0);
    assert_int_equal(summed(&f), 280 * KIB); /* 90 % is 288 */
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(there(&files[i]), i != 0 && i != 3);
    }
    assert_int_equal(pread(fd, &byte, 1, (off_t)size - 1), 1);
    close(fd);
    assert_int_equal(atomic_load(&f.shared->usage.evictions), 2);
    assert_int_equal(atomic_load(&f.shared->usage.evicted_bytes), 80 * KIB);
    /* by hand: pinned ones stay, too */
    assert_int_equal(cache_evict(f.cache, pin, &size, &f.err), GW_FORBIDDEN);
    assert_int_equal(cache_evict(f.cache, gw_str_c(files[0].digest), &size, &f.err), GW_NOT_FOUND);
    assert_int_equal(cache_evict(f.cache, gw_str_c(files[5].digest), &size, &f.err), GW_OK);
    assert_int_equal(size, 40 * KIB);
    assert_int_equal(cache_evict_to(f.cache, 100 * KIB, &n, &size, &f.err), GW_OK);
    assert_int_equal(summed(&f), 80 * KIB);
    assert_int_equal(cache_evict_to(f.cache, 0, &n, &size, &f.err), GW_UNAVAILABLE);
    assert_true(there(&files[1]) && there(&files[2]) && access(other, F_OK) == 0);
    fixture_release(&f);
}

static void what_was_served_moves_to_the_end(void **state)
{
    struct fixture f;
    struct file files[4];
    struct usage row;
    uint64_t size;
    int64_t modified_s;
    size_t n;
    int fd;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    for (unsigned i = 0; i < 4; i++) {
        files[i] = make_blob(&f, i, 4 * KIB);
    }
    UNTIL(&f, quiet(&f) && summed(&f) == 16 * KIB);
    for (unsigned i = 0; i < 4; i++) {
        set_used(&f, &files[i], 1000000 + i);
    }
    assert_int_equal(
        cache_blob_open(f.cache, gw_str_c(files[0].digest), &fd, &size, &modified_s, &f.err),
        GW_OK);
    close(fd);
    assert_int_equal(f.cache->budget->served->n, 1);
    turn(&f); /* once a minute is enough ... */
    assert_int_equal(f.cache->budget->served->n, 1);
    atomic_fetch_add(&f.shared->use_epoch, 1); /* ... unless somebody is about to evict */
    UNTIL(&f, f.cache->budget->served->n == 0 && !atomic_load(&f.cache->budget->flush_out));
    assert_int_equal(usage_oldest(f.cache, NULL, &row, 1, &n, &f.err), GW_OK);
    assert_int_equal(row.used_ms, 1000001);
    /* one that is removed under us */
    cache_blob_drop(f.cache, gw_str_c(files[1].digest));
    UNTIL(&f, summed(&f) == 12 * KIB);
    /* what a process has noted when it ends is written down */
    assert_int_equal(
        cache_blob_open(f.cache, gw_str_c(files[2].digest), &fd, &size, &modified_s, &f.err),
        GW_OK);
    close(fd);
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(usage_oldest(f.cache, NULL, &row, 1, &n, &f.err), GW_OK);
    assert_int_equal(row.used_ms, 1000003);
    fixture_release(&f);
}

/* More than fit into the notes: uses are lost, nothing else. */
static void notes_are_bounded(void **state)
{
    struct fixture f;
    struct usage u;
    char hex[65];

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    for (unsigned i = 0; i < 4 * NOTES; i++) {
        u = usage_of(i, 0, 0);
        cache_note_use(f.cache, blob_id_hex(&u.id, hex));
        cache_note_use(f.cache, blob_id_hex(&u.id, hex));
    }
    assert_true(f.cache->budget->served->n <= NOTES && f.cache->budget->served->n > NOTES / 2);
    cache_note_use(f.cache, GW_STR("../../etc/passwd"));
    for (unsigned i = 0; i < CHANGED_MAX + 2; i++) {
        u = usage_of(i, 0, 0);
        cache_note_change(f.cache, blob_id_hex(&u.id, hex));
    }
    assert_int_equal(atomic_load(&f.shared->walk_wanted), 3); /* the walk finds the others */
    UNTIL(&f, f.cache->budget->n_changed == 0 && !atomic_load(&f.cache->budget->flush_out));
    sum_is(&f, 0, 0);
    fixture_release(&f);
}

/* The loop notes and ticks, jobs flush and evict, others link, remove, pin: for TSan. */
struct at_once {
    struct fixture *f;
    _Atomic(const char *) key; /* of the job that is due; NULL: none */
    atomic_bool stop;
};

static void *run_jobs(void *ctx)
{
    struct at_once *a = ctx;
    struct gw_error err;

    while (!atomic_load(&a->stop)) {
        const char *key = atomic_exchange(&a->key, NULL);

        if (key != NULL && strcmp(key, "usage") == 0) {
            CHECK_THREAD(cache_usage_job(a->f->cache, &err) == GW_OK);
        } else if (key != NULL) {
            CHECK_THREAD(cache_budget_job(a->f->cache, &err) == GW_OK);
        }
    }
    return NULL;
}

static void *run_others(void *ctx)
{
    struct at_once *a = ctx;
    struct gw_error err;
    char hex[65];

    for (unsigned i = 0; !atomic_load(&a->stop); i++) {
        struct usage u = usage_of(i, 0, 0);
        struct gw_str pin = blob_id_hex(&u.id, hex);

        cache_note_change(a->f->cache, pin);
        cache_note_use(a->f->cache, pin); /* only the loop's count */
        CHECK_THREAD(cache_pins_set(a->f->cache, &pin, i % 2, &err) == GW_OK);
        (void)cache_pinned(a->f->cache, &u.id);
        usleep(200);
    }
    return NULL;
}

static void loop_and_jobs_at_once(void **state)
{
    struct at_once a = {0};
    pthread_t threads[2];
    struct fixture f;
    struct gw_want want;
    unsigned turns = 0;

    (void)state;
    fixture_init(&f);
    f.options.max_bytes = 20 * KIB;
    f.options.scrub_ms = 1;
    fixture_open(&f);
    a.f = &f;
    assert_int_equal(pthread_create(&threads[0], NULL, run_jobs, &a), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, run_others, &a), 0);
    for (unsigned i = 0; i < 40 || atomic_load(&f.shared->usage.evictions) == 0; i++) {
        struct file file = make_blob(&f, i, 2 * KIB);
        uint64_t size;
        int64_t modified_s;
        int fd;

        if (cache_blob_open(f.cache, gw_str_c(file.digest), &fd, &size, &modified_s, NULL) ==
            GW_OK) {
            close(fd);
        }
        if (atomic_load(&a.key) == NULL && cache_budget_tick(f.cache, &want) == GW_OK) {
            atomic_store(&a.key, want.key.p);
            turns++;
        }
        atomic_fetch_add(&f.shared->use_epoch, i % 3 == 0);
        usleep(20000);
        assert_true(i < 1500);
    }
    atomic_store(&a.stop, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_true(turns > 2);
    fixture_release(&f);
}

/* ---- after a crash ---- */

static uint64_t truth(struct fixture *f)
{
    char command[256];
    unsigned long long sum = 0;
    FILE *p;

    snprintf(command, sizeof(command),
             "find %s/blobs -type f -links 1 -printf '%%s\\n' | awk '{s += $1} END {print s + 0}'",
             f->dir);
    p = popen(command, "r");
    assert_non_null(p);
    assert_int_equal(fscanf(p, "%llu", &sum), 1);
    pclose(p);
    return sum;
}

static void a_killed_process_leaves_files_and_entries_apart(void **state)
{
    struct fixture f;
    struct file old[3];
    int status;
    pid_t pid;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    for (unsigned i = 0; i < 3; i++) {
        old[i] = make_blob(&f, i, 10 * KIB);
    }
    UNTIL(&f, summed(&f) == 30 * KIB && f.shared->walk_done == f.shared->walk_wanted);
    fixture_close(&f);
    pid = fork();
    if (pid == 0) {
        fixture_open(&f);
        for (unsigned i = 10; i < 40; i++) {
            make_blob(&f, i, 3 * KIB);
        }
        unlink(old[1].path); /* evicted, and killed before the entry went */
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fixture_open(&f); /* takes the dead one's slot */
    assert_int_equal(summed(&f), 30 * KIB);
    assert_int_equal(atomic_load(&f.shared->walk_wanted), 2);
    UNTIL(&f, f.shared->walk_done == 2);
    assert_int_equal(summed(&f), 20 * KIB + 30 * 3 * KIB);
    assert_int_equal(summed(&f), truth(&f));
    fixture_release(&f);
}

/* Thousands of files put, removed, cut, linked and unlinked by others, entries lost, a sum that is
 * wrong: after a walk it is right. */
static void the_walk_brings_them_together(void **state)
{
    struct fixture f;
    struct sum {
        uint64_t bytes, blobs;
    } wrong = {123456789, 5};
    unsigned at = 0, dice = 12345, steps = 0;
    char hex[65], path[CACHE_PATH_MAX];
    struct usage u;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    sh("mkdir %s/data", f.dir);
    for (unsigned i = 0; i < 3000; i++) {
        u = usage_of(i, 0, 0);
        dice = dice * 1103515245 + 12345;
        assert_true(cache_blob_path(f.cache, blob_id_hex(&u.id, hex), path, sizeof(path)));
        if (i % 3 != 0) { /* a file */
            char *slash = strrchr(path, '/');
            int fd;

            *slash = '\0';
            assert_int_equal(gw_dir_make(path, 0750, &f.err), GW_OK);
            *slash = '/';
            fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
            assert_true(fd >= 0);
            assert_int_equal(ftruncate(fd, dice >> 8 & 0xffff), 0);
            close(fd);
            if (i % 7 == 0) { /* that data/ has, too */
                char other[128];

                snprintf(other, sizeof(other), "%s/data/%u", f.dir, i);
                assert_int_equal(link(path, other), 0);
            }
        }
        if (i % 4 != 0) { /* an entry, right or wrong */
            change(&f, USAGE_SET, usage_of(i, dice >> 8 & 0xffff & (i % 5 ? ~0u : 255u), 5000));
        }
    }
    sh("touch %s/blobs/README %s/blobs/00; mkdir -p %s/blobs/11/22/x", f.dir, f.dir, f.dir);
    assert_int_equal(usage_state_put(f.cache, "sum", &wrong, sizeof(wrong), &f.err), GW_OK);
    while (at != BUDGET_WALK_END) {
        assert_int_equal(budget_walk(f.cache, &at, &f.err), GW_OK);
        assert_true(++steps < 100);
    }
    assert_true(steps >= 2);
    assert_int_equal(summed(&f), truth(&f));
    u = usage_of(1, 0, 0);
    assert_int_equal(usage_get(f.cache, &u.id, &u, &f.err), GW_OK);
    assert_int_equal(u.used_ms, 5000); /* known: the walk is no use */
    u = usage_of(4, 0, 0);
    assert_int_equal(usage_get(f.cache, &u.id, &u, &f.err), GW_OK);
    assert_true(gw_wall_ms() - u.used_ms < 600000); /* entered by it: when it was written */
    sh("rm -rf %s/blobs", f.dir);                   /* all of it, by hand */
    at = 0;
    while (at != BUDGET_WALK_END) {
        assert_int_equal(budget_walk(f.cache, &at, &f.err), GW_OK);
    }
    sum_is(&f, 0, 0);
    fixture_release(&f);
}

/* ---- parts ---- */

static void a_part_that_nobody_is_at_goes_like_a_file_of_its_age(void **state)
{
    static const char digest[] = "00000000000000000000000000000000000000000000000000000000000000aa";
    struct cache_source src = {.target = GW_STR("/x")};
    struct timespec old[2] = {{.tv_sec = time(NULL) - 4000}, {.tv_sec = time(NULL) - 4000}};
    char found[CACHE_DIGEST_MAX + 1], path[160];
    struct cache_reader *reader;
    struct parts_sum sum;
    struct fixture f;
    uint64_t avail;
    int fd;

    (void)state;
    fixture_init(&f);
    f.options.read_only_index = false;
    f.options.max_bytes = 100 * MIB;
    fixture_open(&f);
    assert_int_equal(cache_part_create(f.cache, gw_str_c(digest), 30 * MIB, &src, &f.err), GW_OK);
    snprintf(path, sizeof(path), "%s/parts/%s.part", f.dir, digest);
    fd = open(path, O_RDWR);
    assert_int_equal(posix_fallocate(fd, 0, 5 * MIB), 0);
    close(fd);
    parts_measure(f.cache, &sum);
    assert_int_equal(sum.parts, 1);
    assert_int_equal(sum.bytes, 5 * MIB);
    assert_int_equal(sum.promised, 0);
    assert_true(parts_idle(f.cache->fills, found) == INT64_MAX); /* just asked for */
    snprintf(path, sizeof(path), "%s/parts/%s.map", f.dir, digest);
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_int_equal(parts_idle(f.cache->fills, found), (int64_t)old[0].tv_sec * 1000);
    assert_string_equal(found, digest);
    /* a reader says that it is there, and what it wants has an owner */
    assert_int_equal(
        cache_reader_open(&reader, f.cache, gw_str_c(digest), 30 * MIB, GW_STR(""), &f.err), GW_OK);
    assert_true(parts_idle(f.cache->fills, found) == INT64_MAX);
    assert_int_equal(cache_reader_want(reader, 0, 30 * MIB, 0, &avail, &f.err), GW_OK);
    assert_int_equal(part_evict(f.cache->fills, gw_str_c(digest)), 0);
    parts_measure(f.cache, &sum);
    assert_int_equal(sum.promised, 25 * MIB); /* the whole is wanted now */
    assert_int_equal(sum.coming, 25 * MIB);
    cache_reader_close(reader);
    UNTIL(&f, cache_budget_tick(f.cache, &(struct gw_want){0}) == GW_NOT_FOUND &&
                  (part_evict(f.cache->fills, gw_str_c(digest)) > 0)); /* upstream is not there */
    assert_true(access(path, F_OK) != 0);
    parts_measure(f.cache, &sum);
    assert_int_equal(sum.parts, 0);
    fixture_release(&f);
}

struct waits {
    struct fixture *f;
    uint64_t bytes;
    int rc;
    struct gw_error err;
    atomic_bool done;
};

static void *create_part(void *ctx)
{
    static const char digest[] = "00000000000000000000000000000000000000000000000000000000000000bb";
    struct cache_source src = {.target = GW_STR("/x")};
    struct waits *w = ctx;

    w->rc = cache_part_create(w->f->cache, gw_str_c(digest), w->bytes, &src, &w->err);
    atomic_store(&w->done, true);
    return NULL;
}

static void a_new_file_waits_for_the_room_that_old_ones_make(void **state)
{
    struct waits w = {.bytes = 70 * MIB}, too_large = {.bytes = 120 * MIB};
    struct fixture f;
    struct file files[8];
    pthread_t thread;

    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    fixture_init(&f);
    if (mount("none", f.dir, "tmpfs", 0, "size=100m") != 0) {
        fixture_release(&f);
        skip();
    }
    f.options.read_only_index = false;
    fixture_open(&f);
    for (unsigned i = 0; i < 8; i++) {
        files[i] = make_blob(&f, i, 6 * MIB);
    }
    UNTIL(&f, quiet(&f) && summed(&f) == 48 * MIB);
    for (unsigned i = 0; i < 8; i++) {
        set_used(&f, &files[i], 1000000 + i);
    }
    w.f = too_large.f = &f;
    assert_int_equal(pthread_create(&thread, NULL, create_part, &w), 0);
    UNTIL(&f, atomic_load(&w.done));
    pthread_join(thread, NULL);
    assert_int_equal(w.rc, GW_OK);
    assert_true(!there(&files[0]) && !there(&files[1]) && there(&files[7]));
    /* nothing helps: said at once, by whoever keeps the budget */
    assert_int_equal(pthread_create(&thread, NULL, create_part, &too_large), 0);
    UNTIL(&f, atomic_load(&too_large.done));
    pthread_join(thread, NULL);
    assert_true(there(&files[7]));
    assert_int_equal(too_large.rc, GW_IO);
    assert_int_equal(too_large.err.sys, ENOSPC);
    assert_int_equal(atomic_load(&f.shared->room_wanted), 0);
    fixture_close(&f);
    assert_int_equal(umount(f.dir), 0);
    fixture_release(&f);
}

/* ---- damage ---- */

struct damage {
    unsigned n, shared, shown;
    char last[65];
};

static void on_damage(void *ctx, struct gw_str digest, const char *what, bool shared)
{
    struct damage *d = ctx;

    d->n++;
    d->shared += shared;
    snprintf(d->last, sizeof(d->last), GW_STR_FMT, GW_STR_ARG(digest));
    assert_non_null(what);
}

static void on_progress(void *ctx, const struct cache_verify *v)
{
    ((struct damage *)ctx)->shown++;
    assert_true(v->bytes <= v->total_bytes);
}

static void overwrite(const struct file *file, off_t at, char byte)
{
    int fd;

    assert_int_equal(chmod(file->path, 0600), 0);
    fd = open(file->path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void verify_finds_what_is_not_what_its_name_says(void **state)
{
    struct damage d = {0};
    struct cache_verify v = {
        .damaged = on_damage, .progress = on_progress, .ctx = &d, .rate = 1 << 30};
    struct fixture f;
    struct file files[8];
    char other[128], aside[128];
    uint64_t freed;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    for (unsigned i = 0; i < 8; i++) {
        files[i] = make_blob(&f, i, (i == 0 ? 3000 : 20) * KIB);
    }
    assert_int_equal(cache_blob_put(f.cache, GW_STR("3b18e512dba79e4c8300dd08aeb37f8e728b8dad"),
                                    GW_STR("hello world\n"), &f.err),
                     GW_OK);
    assert_int_equal(cache_verify_all(f.cache, &v, &f.err), GW_OK); /* nothing was flushed */
    assert_int_equal(v.blobs, 9);
    assert_int_equal(v.total_blobs, 9);
    assert_int_equal(v.bytes, 3140 * KIB + 12);
    assert_int_equal(v.n_damaged, 0);
    assert_true(d.shown >= 9);

    overwrite(&files[0], 2999 * KIB, 1);
    assert_int_equal(truncate(files[1].path, 19 * KIB), 0);
    snprintf(aside, sizeof(aside), "%s/aside", f.dir);
    assert_int_equal(rename(files[2].path, aside), 0);
    assert_int_equal(rename(files[3].path, files[2].path), 0);
    assert_int_equal(rename(aside, files[3].path), 0);
    assert_int_equal(truncate(files[4].path, 0), 0);
    overwrite(&files[5], 20 * KIB, 0); /* one byte more */
    snprintf(other, sizeof(other), "%s/other", f.dir);
    assert_int_equal(link(files[6].path, other), 0);
    overwrite(&files[6], 0, 'x');
    v = (struct cache_verify){.damaged = on_damage, .ctx = &d};
    assert_int_equal(cache_verify_all(f.cache, &v, &f.err), GW_OK);
    assert_int_equal(v.n_damaged, 7);
    assert_int_equal(d.n, 7);
    assert_int_equal(d.shared, 1);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(there(&files[i]), i == 7);
    }
    assert_int_equal(access(other, F_OK), 0);
    assert_int_equal(summed(&f), 20 * KIB + 12);
    assert_int_equal(atomic_load(&f.shared->usage.damaged), 7);
    assert_int_equal(cache_evict(f.cache, gw_str_c(files[0].digest), &freed, &f.err), GW_NOT_FOUND);
    fixture_release(&f);
}

static void a_scrub_goes_round_and_remembers_where_it_was(void **state)
{
    struct fixture f;
    struct file files[6];
    int64_t started;
    uint64_t done;

    (void)state;
    fixture_init(&f);
    f.options.scrub_ms = 1000000000; /* by far not due at the end */
    fixture_open(&f);
    for (unsigned i = 0; i < 6; i++) {
        files[i] = make_blob(&f, i, 900 * KIB);
    }
    overwrite(&files[3], 1, 1);
    UNTIL(&f, !there(&files[3])); /* the first 4 MiB go at once */
    assert_int_equal(atomic_load(&f.shared->usage.damaged), 1);
    assert_non_null(strstr(f.log, "was damaged on the disk"));
    UNTIL(&f, atomic_load(&f.shared->usage.scrubbed_bytes) >= 4 * MIB);
    assert_int_equal(scrub_state(f.cache, &started, &done, &f.err), GW_OK);
    assert_true(started > 0);
    fixture_close(&f);
    fixture_open(&f);
    f.cache->options.scrub_ms = 1; /* due: the same round goes on */
    UNTIL(&f, f.cache->budget->scrub.known && !f.cache->budget->scrub.on);
    assert_int_equal(scrub_state(f.cache, &started, &done, &f.err), GW_OK);
    assert_true(done >= 4 * MIB && there(&files[0]));
    fixture_release(&f);
}

static int open_without_memory(void *ctx)
{
    struct fixture *f = ctx;
    unsigned at = 0;
    int rc = GW_OK;

    while (rc == GW_OK && at != BUDGET_WALK_END) {
        rc = budget_walk(f->cache, &at, &f->err);
    }
    return rc;
}

static void no_memory_is_said(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    make_blob(&f, 1, 10);
    with_failing_alloc(open_without_memory, &f, 2);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_over_is_freed_down_to_the_low_mark),
        cmocka_unit_test(entries_are_ordered_by_last_use_and_summed),
        cmocka_unit_test(a_range_of_entries_is_by_digest),
        cmocka_unit_test(the_oldest_go_and_nobody_is_harmed),
        cmocka_unit_test(what_was_served_moves_to_the_end),
        cmocka_unit_test(notes_are_bounded),
        cmocka_unit_test(loop_and_jobs_at_once),
        cmocka_unit_test(a_killed_process_leaves_files_and_entries_apart),
        cmocka_unit_test(the_walk_brings_them_together),
        cmocka_unit_test(a_part_that_nobody_is_at_goes_like_a_file_of_its_age),
        cmocka_unit_test(a_new_file_waits_for_the_room_that_old_ones_make),
        cmocka_unit_test(verify_finds_what_is_not_what_its_name_says),
        cmocka_unit_test(a_scrub_goes_round_and_remembers_where_it_was),
        cmocka_unit_test(no_memory_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
