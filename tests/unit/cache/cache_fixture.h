/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/cache_fixture.h - a cache in a temporary folder, its log, its shared memory. */
#ifndef TESTS_UNIT_CACHE_CACHE_FIXTURE_H
#define TESTS_UNIT_CACHE_CACHE_FIXTURE_H

#include "cache/cache_internal.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct fixture {
    char dir[64];
    struct cache_shared *shared; /* of forked children, too */
    struct cache_options options;
    struct cache *cache;
    struct gw_arena arena;
    struct gw_error err;
    char log[8192];
    size_t log_bytes;
};

static inline void on_log(void *ctx, enum gw_log_level level, struct gw_str line)
{
    struct fixture *f = ctx;
    size_t room = sizeof(f->log) - 2 - f->log_bytes;
    size_t n = line.n < room ? line.n : room;

    (void)level;
    memcpy(f->log + f->log_bytes, line.p, n);
    f->log_bytes += n;
    f->log[f->log_bytes++] = '\n';
    f->log[f->log_bytes] = '\0';
}

static inline void sh(const char *fmt, ...) GW_PRINTF(1, 2);
static inline void sh(const char *fmt, ...)
{
    char command[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    if (system(command) != 0) {
        fail_msg("%s", command);
    }
}

static inline void fixture_init(struct fixture *f)
{
    *f = (struct fixture){.dir = "/tmp/hubgate-cache-XXXXXX"};
    assert_non_null(mkdtemp(f->dir));
    f->shared =
        mmap(NULL, sizeof(*f->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->shared != MAP_FAILED);
    assert_int_equal(cache_shared_init(f->shared, &f->err), GW_OK);
    gw_arena_init(&f->arena, 64u << 20);
    f->options = (struct cache_options){
        .dir = f->dir,
        .read_only_index = true,
        .shared = f->shared,
        .index_map_bytes = 256u << 20,
        .upstream = {.url = GW_STR("http://127.0.0.1:9"), .via = GW_STR("hubgate-test")},
        .log = {.write = on_log, .ctx = f, .level = GW_LOG_DEBUG},
    };
}

static inline int fixture_try_open(struct fixture *f)
{
    int slot = cache_slot_claim(f->shared);

    assert_true(slot >= 0);
    f->options.slot = (unsigned)slot;
    return cache_open(&f->cache, &f->options, &f->err);
}

static inline void fixture_open(struct fixture *f)
{
    if (fixture_try_open(f) != GW_OK) {
        fail_msg("%s", f->err.text);
    }
}

static inline void fixture_close(struct fixture *f)
{
    cache_close(f->cache);
    f->cache = NULL;
    cache_slot_release(f->shared, f->options.slot);
}

static inline void fixture_release(struct fixture *f)
{
    if (f->cache != NULL) {
        fixture_close(f);
    }
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        close(atomic_load(&f->shared->slots[i].eventfd));
    }
    munmap(f->shared, sizeof(*f->shared));
    gw_arena_release(&f->arena);
    sh("rm -rf %s", f->dir);
}

/* ---- records ---- */

static inline int put_text(struct fixture *f, enum cache_kind kind, const char *name,
                           const char *value)
{
    struct cache_put put = {
        .kind = kind,
        .name = gw_str_c(name),
        .record = {.status = GW_OK, .checked_ms = gw_wall_ms(), .value = gw_str_c(value)}};

    return cache_put(f->cache, &put, 1, &f->err);
}

static inline bool holds(struct fixture *f, enum cache_kind kind, const char *name,
                         const char *value)
{
    struct cache_record r;

    return cache_get(f->cache, kind, gw_str_c(name), &f->arena, &r) == GW_OK &&
           gw_str_eq_c(r.value, value);
}

#endif
