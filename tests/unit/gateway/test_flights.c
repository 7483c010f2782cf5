/* SPDX-License-Identifier: Apache-2.0 */
/* One of several workers calls: the table of flights, its owners' deaths, and many at once. */
#include "gateway/flights.h"

#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct memory {
    struct cache_shared shared;
    struct flights flights;
};

static struct memory *memory_new(void)
{
    struct memory *m =
        mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(m != MAP_FAILED);
    assert_int_equal(cache_shared_init(&m->shared, NULL), GW_OK);
    return m;
}

static void memory_free(struct memory *m)
{
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        close(m->shared.slots[i].eventfd);
    }
    munmap(m, sizeof(*m));
}

static struct flight flight_of(const char *key)
{
    return (struct flight){.hash = flight_hash(gw_str_c(key)), .since_ms = gw_mono_ms()};
}

static enum flight_turn turn(struct memory *m, unsigned slot, struct flight *f)
{
    int status = 1, sys = 0;

    return flight_begin(&m->flights, &m->shared, slot, f, &status, &sys);
}

static bool is_woken(struct memory *m, unsigned slot)
{
    uint64_t n;

    return read(m->shared.slots[slot].eventfd, &n, sizeof(n)) == (ssize_t)sizeof(n);
}

static void test_one_of_three(void **state)
{
    struct memory *m = memory_new();
    struct flight f[3];
    int status, sys;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(cache_slot_claim(&m->shared), i);
        f[i] = flight_of("info\na");
    }
    assert_int_equal(turn(m, 0, &f[0]), FLIGHT_OURS);
    assert_int_equal(turn(m, 1, &f[1]), FLIGHT_THEIRS);
    assert_int_equal(turn(m, 2, &f[2]), FLIGHT_THEIRS);
    assert_int_equal(turn(m, 2, &f[2]), FLIGHT_THEIRS);
    assert_false(flight_moved(&m->flights, &f[1]));
    flight_end(&m->flights, &m->shared, 1, f[1].hash, GW_OK, 0); /* not the owner: nothing */
    assert_false(flight_moved(&m->flights, &f[1]));
    flight_end(&m->flights, &m->shared, 0, f[0].hash, GW_UNAVAILABLE, 503);
    assert_true(is_woken(m, 1) && is_woken(m, 2) && !is_woken(m, 0));
    assert_true(flight_moved(&m->flights, &f[1]));
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(flight_begin(&m->flights, &m->shared, i, &f[i], &status, &sys),
                         FLIGHT_OVER);
        assert_int_equal(status, GW_UNAVAILABLE);
        assert_int_equal(sys, 503);
    }
    /* asked later: a new one */
    while (gw_mono_ms() <= f[0].since_ms) {
    }
    f[1] = flight_of("info\na");
    assert_int_equal(turn(m, 1, &f[1]), FLIGHT_OURS);
    memory_free(m);
}

/* An owner that dies, one that is stopped, one whose slot is another's now. */
static void test_owners(void **state)
{
    struct memory *m = memory_new();
    struct flight f = flight_of("info\na"), theirs;
    pid_t child;
    int status;

    (void)state;
    assert_int_equal(cache_slot_claim(&m->shared), 0);
    child = fork();
    if (child == 0) {
        int slot = cache_slot_claim(&m->shared);

        theirs = flight_of("info\na");
        _exit(slot == 1 && turn(m, 1, &theirs) == FLIGHT_OURS ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(turn(m, 0, &f), FLIGHT_OURS);
    flight_end(&m->flights, &m->shared, 0, f.hash, GW_CANCELLED, 0);
    /* its slot is claimed anew: a flight of the old generation is nobody's */
    theirs = flight_of("info\nb");
    assert_int_equal(cache_slot_claim(&m->shared), 1);
    assert_int_equal(turn(m, 1, &theirs), FLIGHT_OURS);
    cache_slot_release(&m->shared, 1);
    assert_int_equal(cache_slot_claim(&m->shared), 1);
    f = flight_of("info\nb");
    assert_int_equal(turn(m, 0, &f), FLIGHT_OURS);
    /* overdue: taken over; the old owner's end changes nothing */
    theirs = flight_of("info\nb");
    m->flights.places[f.hash % FLIGHT_PLACES].overdue_ms = gw_mono_ms() - 1;
    assert_int_equal(turn(m, 1, &theirs), FLIGHT_OURS);
    flight_end(&m->flights, &m->shared, 0, f.hash, GW_OK, 0);
    assert_int_equal(turn(m, 0, &f), FLIGHT_THEIRS);
    m->flights.places[f.hash % FLIGHT_PLACES].overdue_ms = gw_mono_ms() + 5;
    flight_keep(&m->flights, f.hash);
    assert_true(m->flights.places[f.hash % FLIGHT_PLACES].overdue_ms > gw_mono_ms() + 20000);
    memory_free(m);
}

/* Two facts in one place: neither waits for the other, neither ends the other. */
static void test_shared_place(void **state)
{
    struct memory *m = memory_new();
    struct flight a = flight_of("info\na"), b = a, c;
    int status, sys;

    (void)state;
    b.hash ^= UINT64_C(1) << 60;
    c = b;
    assert_int_equal(cache_slot_claim(&m->shared), 0);
    assert_int_equal(cache_slot_claim(&m->shared), 1);
    assert_int_equal(turn(m, 0, &a), FLIGHT_OURS);
    assert_int_equal(turn(m, 1, &b), FLIGHT_OURS);
    flight_end(&m->flights, &m->shared, 1, b.hash, GW_OK, 0);
    c.since_ms = gw_mono_ms() - 10;
    assert_int_equal(flight_begin(&m->flights, &m->shared, 0, &c, &status, &sys), FLIGHT_OURS);
    c = a;
    assert_int_equal(turn(m, 1, &c), FLIGHT_THEIRS);
    memory_free(m);
}

/* ---- many at once: what is flown is flown by one, and everybody hears of its end ---- */

#define THREADS 6
#define ROUNDS 3000

struct crowd {
    struct memory *m;
    _Atomic int flying[4], calls;
    _Atomic unsigned next_slot;
};

static void *worker(void *arg)
{
    static const char *const keys[4] = {"info\na", "info\nb", "info\nc", "info\nd"};
    struct crowd *c = arg;
    unsigned slot = atomic_fetch_add(&c->next_slot, 1);

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned k = (i + slot) % 4;
        struct flight f = flight_of(keys[k]);
        enum flight_turn now;
        int status = 1, sys;

        while ((now = flight_begin(&c->m->flights, &c->m->shared, slot, &f, &status, &sys)) ==
               FLIGHT_THEIRS) {
            /* as the loop does: until the wake, and a tick now and then */
            for (int spin = 0; spin < 1000 && !flight_moved(&c->m->flights, &f); spin++) {
            }
        }
        if (now == FLIGHT_OURS) {
            assert_int_equal(atomic_fetch_add(&c->flying[k], 1), 0);
            atomic_fetch_add(&c->calls, 1);
            atomic_fetch_sub(&c->flying[k], 1);
            flight_end(&c->m->flights, &c->m->shared, slot, f.hash, GW_OK, 0);
        } else {
            assert_int_equal(status, GW_OK);
        }
    }
    return NULL;
}

static void test_many(void **state)
{
    struct crowd c = {.m = memory_new()};
    pthread_t threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(cache_slot_claim(&c.m->shared), i);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, worker, &c), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_true(c.calls > 0 && c.calls <= THREADS * ROUNDS);
    for (size_t i = 0; i < FLIGHT_PLACES; i++) {
        assert_int_equal(c.m->flights.places[i].owner, 0);
    }
    memory_free(c.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_three),
        cmocka_unit_test(test_owners),
        cmocka_unit_test(test_shared_place),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
