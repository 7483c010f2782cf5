/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_shared.c - slots and wakes. */
#include "tests/unit/cache/cache_fixture.h"

#include <poll.h>

static void a_slot_has_one_owner_and_a_new_generation(void **state)
{
    struct fixture f;
    uint32_t generation;
    int first, second;

    fixture_init(&f);
    first = cache_slot_claim(f.shared);
    second = cache_slot_claim(f.shared);
    assert_int_equal(first, 0);
    assert_int_equal(second, 1);
    generation = atomic_load(&f.shared->slots[0].generation);
    assert_true(cache_slot_alive(f.shared, 0, generation));
    assert_false(cache_slot_alive(f.shared, 0, generation + 1));
    assert_false(cache_slot_alive(f.shared, 2, 0)); /* free */
    assert_false(cache_slot_alive(f.shared, CACHE_SLOTS, 0));
    cache_slot_release(f.shared, 0);
    assert_false(cache_slot_alive(f.shared, 0, generation));
    assert_int_equal(cache_slot_claim(f.shared), 0);
    assert_int_equal(atomic_load(&f.shared->slots[0].generation), generation + 1);
    fixture_release(&f);
}

static void all_taken_is_minus_one(void **state)
{
    struct fixture f;

    fixture_init(&f);
    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        assert_int_equal(cache_slot_claim(f.shared), i);
    }
    assert_int_equal(cache_slot_claim(f.shared), -1);
    cache_slot_release(f.shared, 7);
    assert_int_equal(cache_slot_claim(f.shared), 7);
    fixture_release(&f);
}

/* A child claims a slot, runs `inside`, and is killed; reaped only if asked. */
static pid_t child_dies(struct fixture *f, uint32_t in_index, bool reap)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int slot = cache_slot_claim(f->shared);

        atomic_store(&f->shared->slots[slot].in_index, in_index);
        if (write(ready[1], "x", 1) != 1) {
            _exit(1);
        }
        pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    assert_true(cache_slot_alive(f->shared, 0, 1));
    kill(pid, SIGKILL);
    if (reap) {
        waitpid(pid, NULL, 0);
    } else {
        siginfo_t info;

        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    }
    return pid;
}

static void a_dead_owner_is_seen_even_unreaped(void **state)
{
    for (int reap = 0; reap < 2; reap++) {
        struct fixture f;
        pid_t pid;

        fixture_init(&f);
        pid = child_dies(&f, 0, reap != 0);
        assert_false(cache_slot_alive(f.shared, 0, 1));
        assert_int_equal(cache_slot_claim(f.shared), 0);
        assert_int_equal(atomic_load(&f.shared->slots[0].generation), 2);
        assert_int_equal(atomic_load(&f.shared->index_suspect), 0);
        if (reap == 0) {
            waitpid(pid, NULL, 0);
        }
        fixture_release(&f);
    }
}

static void who_died_in_the_index_leaves_a_mark(void **state)
{
    for (int bury = 0; bury < 2; bury++) {
        struct fixture f;

        fixture_init(&f);
        child_dies(&f, 1, true);
        if (bury != 0) {
            cache_slots_bury(f.shared);
            assert_int_equal(atomic_load(&f.shared->slots[0].pid), 0);
        } else {
            assert_int_equal(cache_slot_claim(f.shared), 0);
        }
        assert_int_equal(atomic_load(&f.shared->index_suspect), 1);
        assert_int_equal(atomic_load(&f.shared->slots[0].in_index), 0);
        fixture_release(&f);
    }
}

static void a_pid_that_came_back_is_somebody_else(void **state)
{
    struct fixture f;

    fixture_init(&f);
    assert_int_equal(cache_slot_claim(f.shared), 0);
    atomic_store(&f.shared->slots[0].pid, 1); /* alive, but not since then */
    assert_false(cache_slot_alive(f.shared, 0, 1));
    atomic_store(&f.shared->slots[0].started, 0); /* not known: the benefit of the doubt */
    assert_true(cache_slot_alive(f.shared, 0, 1));
    fixture_release(&f);
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static void wakes_are_merged_and_none_is_lost(void **state)
{
    struct fixture f;
    int fd;

    fixture_init(&f);
    fd = atomic_load(&f.shared->slots[3].eventfd);
    assert_false(readable(fd));
    cache_wake(f.shared, 3);
    cache_wake(f.shared, 3);
    assert_true(readable(fd));
    cache_wake_rearm(f.shared, 3);
    assert_false(readable(fd));
    cache_wake_rearm(f.shared, 3); /* a tick without a wake */
    cache_wake(f.shared, 3);
    assert_true(readable(fd));
    cache_wake(f.shared, CACHE_SLOTS); /* nobody's */
    fixture_release(&f);
}

static void *note_mask(void *arg)
{
    pthread_sigmask(SIG_BLOCK, NULL, arg);
    return NULL;
}

static void threads_leave_signals_to_the_loop(void **state)
{
    sigset_t inside, before, after;
    pthread_t t;

    pthread_sigmask(SIG_BLOCK, NULL, &before);
    assert_int_equal(cache_thread_start(&t, note_mask, &inside), 0);
    pthread_join(t, NULL);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    assert_true(sigismember(&inside, SIGTERM) && sigismember(&inside, SIGQUIT) &&
                sigismember(&inside, SIGCHLD));
    assert_false(sigismember(&inside, SIGSEGV) || sigismember(&inside, SIGBUS));
    assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slot_has_one_owner_and_a_new_generation),
        cmocka_unit_test(all_taken_is_minus_one),
        cmocka_unit_test(a_dead_owner_is_seen_even_unreaped),
        cmocka_unit_test(who_died_in_the_index_leaves_a_mark),
        cmocka_unit_test(a_pid_that_came_back_is_somebody_else),
        cmocka_unit_test(wakes_are_merged_and_none_is_lost),
        cmocka_unit_test(threads_leave_signals_to_the_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
