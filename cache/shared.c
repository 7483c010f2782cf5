/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/shared.c - the slots of all workers of all cycles, and how one wakes another.
 *
 *   free (pid 0) --claim: pid, generation + 1--> held --release, or found dead: bury--> free
 *
 * A slot and its generation name an owner; a pid alone does not, because pids come back.
 */
#include "cache/cache_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define YIELDS_NICE 10 /* a tenth of the loop's share of a core that is fought for */

/* The start time of a process in ticks since boot (proc(5), stat field 22); 0: it is gone or a
 * zombie, which kill(2) takes for alive until nginx's master has reaped it; UINT64_MAX: cannot say.
 */
static uint64_t start_of(int32_t pid)
{
    char path[32], text[1024], *p;
    unsigned long long started;
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT && kill(pid, 0) != 0 && errno == ESRCH ? 0 : UINT64_MAX;
    }
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0) {
        return n < 0 && errno == ESRCH ? 0 : UINT64_MAX;
    }
    text[n] = '\0';
    p = strrchr(text, ')'); /* the name before it may hold blanks and brackets */
    if (p == NULL || p[1] == '\0' || p[2] == '\0') {
        return UINT64_MAX;
    }
    if (p[2] == 'Z' || p[2] == 'X') {
        return 0;
    }
    p += 2; /* field 3 */
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (p == NULL) {
            return UINT64_MAX;
        }
        p++;
    }
    started = strtoull(p, NULL, 10);
    return started != 0 ? started : UINT64_MAX;
}

static bool process_alive(int32_t pid, uint64_t started)
{
    uint64_t now;

    if (pid <= 0) {
        return false;
    }
    now = start_of(pid);
    if (now == UINT64_MAX || started == 0) {
        return now != 0;
    }
    return now == started;
}

/* Takes a slot whose pid is still `expected`. */
static bool take(struct cache_shared *s, struct cache_slot *slot, int32_t expected)
{
    uint64_t started;

    /* First, or somebody would hold our pid against the last owner's start and find us dead. */
    atomic_store(&slot->started, 0);
    if (!atomic_compare_exchange_strong(&slot->pid, &expected, (int32_t)getpid())) {
        return false;
    }
    started = start_of((int32_t)getpid());
    atomic_store(&slot->started, started == UINT64_MAX ? 0 : started);
    atomic_fetch_add(&slot->generation, 1);
    atomic_store(&slot->fills, 0);
    atomic_store(&slot->blobs, 0);
    atomic_store(&slot->transfers, 0);
    if (expected != 0) {
        atomic_fetch_add(&s->walk_wanted, 1); /* what it had noted of blobs is lost */
    }
    if (atomic_exchange(&slot->in_index, 0) != 0) {
        atomic_store(&s->index_suspect, 1); /* what its last owner died in */
    }
    return true;
}

int cache_shared_init(struct cache_shared *s, struct gw_error *err)
{
    s->version = CACHE_SHARED_VERSION;
    atomic_store(&s->walk_wanted, 1); /* what was there before */
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

        if (fd < 0) {
            int sys = errno;

            while (i > 0) {
                close(atomic_exchange(&s->slots[--i].eventfd, -1));
            }
            return gw_fail(err, GW_IO, sys, "eventfd: %s", strerror(sys));
        }
        atomic_store(&s->slots[i].eventfd, fd);
    }
    return GW_OK;
}

int cache_slot_claim(struct cache_shared *s)
{
    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        struct cache_slot *slot = &s->slots[i];
        int32_t pid = atomic_load(&slot->pid);

        if ((pid == 0 || !process_alive(pid, atomic_load(&slot->started))) && take(s, slot, pid)) {
            return (int)i;
        }
    }
    return -1;
}

void cache_slot_release(struct cache_shared *s, unsigned slot)
{
    int32_t mine = (int32_t)getpid();

    if (slot < CACHE_SLOTS && atomic_load(&s->slots[slot].pid) == mine) {
        atomic_store(&s->slots[slot].in_index, 0);
        atomic_store(&s->slots[slot].fills, 0);
        atomic_store(&s->slots[slot].blobs, 0);
        atomic_store(&s->slots[slot].transfers, 0);
        atomic_store(&s->slots[slot].started, 0);
        atomic_compare_exchange_strong(&s->slots[slot].pid, &mine, 0);
    }
}

bool cache_slot_alive(const struct cache_shared *s, unsigned slot, uint32_t generation)
{
    const struct cache_slot *at;
    int32_t pid;

    if (slot >= CACHE_SLOTS) {
        return false;
    }
    at = &s->slots[slot];
    pid = atomic_load(&at->pid);
    if (pid == 0 || atomic_load(&at->generation) != generation) {
        return false;
    }
    return pid == (int32_t)getpid() || process_alive(pid, atomic_load(&at->started));
}

void cache_slots_bury(struct cache_shared *s)
{
    for (unsigned i = 0; i < CACHE_SLOTS; i++) {
        struct cache_slot *slot = &s->slots[i];
        int32_t pid = atomic_load(&slot->pid);

        /* Through a claim: were we to die in between, the slot would be found dead again. */
        if (pid != 0 && pid != (int32_t)getpid() &&
            !process_alive(pid, atomic_load(&slot->started)) && take(s, slot, pid)) {
            cache_slot_release(s, i);
        }
    }
}

void cache_wake(struct cache_shared *s, unsigned slot)
{
    static const uint64_t one = 1;

    if (slot < CACHE_SLOTS && atomic_exchange(&s->slots[slot].wake_pending, 1) == 0) {
        int fd = atomic_load(&s->slots[slot].eventfd);

        /* It fails only when the counter is full, and then the loop is awake anyway. */
        if (fd >= 0 && write(fd, &one, sizeof(one)) < 0) {
            return;
        }
    }
}

void cache_wake_rearm(struct cache_shared *s, unsigned slot)
{
    uint64_t count;

    if (slot >= CACHE_SLOTS) {
        return;
    }
    /* In this order: re-armed before it is drained, a wake in between would be drained with the
     * mark left set, and no other would ever come. */
    if (read(atomic_load(&s->slots[slot].eventfd), &count, sizeof(count)) < 0) {
        count = 0; /* EAGAIN: a tick without a wake */
    }
    atomic_store(&s->slots[slot].wake_pending, 0);
}

int cache_thread_start(pthread_t *out, void *(*run)(void *), void *arg)
{
    sigset_t blocked, old;
    int rc;

    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_sigmask(SIG_SETMASK, &blocked, &old); /* inherited; curl's own threads inherit it too */
    rc = pthread_create(out, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

void cache_thread_yields(void)
{
    (void)setpriority(PRIO_PROCESS, 0, YIELDS_NICE); /* Linux: of this thread alone */
}
