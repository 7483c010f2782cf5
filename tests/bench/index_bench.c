/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/index_bench.c - one look-up in an index of many records.
 *
 * cc -O2 -I. tests/bench/index_bench.c build/lib/libcache.a build/lib/libbase.a -lcurl -llmdb
 * -lcrypto -ljansson -lyaml ... index_bench DIR [RECORDS [VALUE_BYTES]] fills DIR (kept for the
 * next run if it is full already) and prints one JSON object: ns per get on the loop and in a job,
 * for records at random and for names that are not there.
 */
#include "cache/cache.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define GETS 400000u
#define BATCH 1000u

static uint64_t seed = 42;

static uint64_t any(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void on_log(void *ctx, enum gw_log_level level, struct gw_str line)
{
    fprintf(stderr, GW_STR_FMT "\n", GW_STR_ARG(line));
}

static struct gw_str name_of(char *buf, size_t cap, size_t i, bool there)
{
    int n =
        snprintf(buf, cap, "model/org%zu/repo%zu@0123456789012345678901234567890123456789//%s%zu",
                 i % 997, i % 9973, there ? "file" : "gone", i);

    return (struct gw_str){buf, (size_t)n};
}

static void fill(struct cache *c, size_t records, size_t bytes)
{
    static struct cache_put puts[BATCH];
    static char names[BATCH][128];
    char *value = calloc(1, bytes + 1);
    struct gw_error err;
    char buf[128];
    struct cache_record r;
    struct gw_arena a;

    gw_arena_init(&a, 1u << 20);
    if (cache_get(c, CACHE_FILE, name_of(buf, sizeof(buf), records - 1, true), &a, &r) == GW_OK) {
        gw_arena_release(&a);
        free(value);
        return;
    }
    for (size_t i = 0; i < records; i += BATCH) {
        size_t n = records - i < BATCH ? records - i : BATCH;

        for (size_t k = 0; k < n; k++) {
            puts[k] = (struct cache_put){.kind = CACHE_FILE,
                                         .name = name_of(names[k], sizeof(names[k]), i + k, true),
                                         .record = {.value = {value, bytes}}};
        }
        if (cache_put(c, puts, n, &err) != GW_OK) {
            fprintf(stderr, "%s\n", err.text);
            exit(1);
        }
    }
    free(value);
}

struct run {
    struct cache *c;
    size_t records;
    bool there;
    double ns;
};

static void *measure(void *arg)
{
    struct run *run = arg;
    struct cache_record r;
    struct gw_arena a;
    size_t wrong = 0;
    char buf[128];
    int64_t began;

    gw_arena_init(&a, 1u << 20);
    began = now_ns();
    for (size_t i = 0; i < GETS; i++) {
        struct gw_str name = name_of(buf, sizeof(buf), any() % run->records, run->there);

        wrong += (cache_get(run->c, CACHE_FILE, name, &a, &r) == GW_OK) != run->there;
        gw_arena_release(&a);
    }
    run->ns = (double)(now_ns() - began) / GETS;
    if (wrong != 0) {
        fprintf(stderr, "%zu of %u were wrong\n", wrong, GETS);
        exit(1);
    }
    return NULL;
}

static double in_job(struct cache *c, size_t records)
{
    struct run run = {c, records, true, 0};
    pthread_t t;

    pthread_create(&t, NULL, measure, &run);
    pthread_join(t, NULL);
    return run.ns;
}

int main(int argc, char **argv)
{
    size_t records = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000000;
    size_t bytes = argc > 3 ? strtoul(argv[3], NULL, 10) : 1024;
    struct cache_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct cache_options o = {.dir = argc > 1 ? argv[1] : NULL,
                              .read_only_index = true,
                              .shared = shared,
                              .upstream = {.url = GW_STR("http://127.0.0.1:9")},
                              .log = {.write = on_log, .level = GW_LOG_NOTICE}};
    struct run hit = {NULL, records, true, 0}, miss = {NULL, records, false, 0};
    struct gw_error err;
    int64_t began;
    double fill_s, open_ms;
    struct cache *c;

    if (o.dir == NULL || shared == MAP_FAILED || cache_shared_init(shared, &err) != GW_OK) {
        fprintf(stderr, "usage: index_bench DIR [RECORDS [VALUE_BYTES]]\n");
        return 2;
    }
    o.slot = (unsigned)cache_slot_claim(shared);
    for (int i = 0; i < 2; i++) { /* the second time it is all there */
        began = now_ns();
        if (cache_open(&c, &o, &err) != GW_OK) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        open_ms = (double)(now_ns() - began) / 1e6;
        began = now_ns();
        fill(c, records, bytes);
        fill_s = i == 0 ? (double)(now_ns() - began) / 1e9 : fill_s;
        if (i == 0) {
            cache_close(c);
        }
    }
    hit.c = miss.c = c;
    measure(&hit); /* into the page cache */
    measure(&hit);
    measure(&miss);
    printf("{\"records\":%zu,\"value_bytes\":%zu,\"fill_s\":%.1f,\"open_ms\":%.1f,"
           "\"get_ns\":%.0f,\"miss_ns\":%.0f,\"get_in_job_ns\":%.0f}\n",
           records, bytes, fill_s, open_ms, hit.ns, miss.ns, in_job(c, records));
    cache_close(c);
    return 0;
}
