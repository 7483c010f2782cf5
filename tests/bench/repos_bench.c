/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/repos_bench.c - fills the index of a cache with many public repositories, as a node
 * has them that was asked for each of their files.
 *
 * repos_bench DIR REPOS FILES: "many/r0000000" and on, branch main, files f0, f1 ... of 4 KiB. In
 * the order of their keys, which is that of the pages: a node that got them one by one has pages
 * that are less full. Prints one JSON object.
 */
#include "base/clock.h"
#include "base/encode.h"
#include "base/sha.h"
#include "cache/cache.h"
#include "gateway/record.h"
#include "hub/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BATCH 1000u
#define NAME_BYTES 160u
#define VALUE_BYTES 256u

struct record {
    uint64_t sort; /* of its key in the index: the beginning of the sha256 of its name */
    uint32_t repo;
    uint32_t file; /* REF: the branch */
};
#define REF UINT32_MAX

static void fail(const char *what)
{
    fprintf(stderr, "repos_bench: %s\n", what);
    exit(1);
}

static void on_log(void *ctx, enum gw_log_level level, struct gw_str line)
{
    fprintf(stderr, GW_STR_FMT "\n", GW_STR_ARG(line));
}

static struct gw_str name_of(char out[NAME_BYTES], const struct record *r)
{
    int n = r->file == REF ? snprintf(out, NAME_BYTES, "%s\nmany\nr%07u\nmain",
                                      hub_type_name(HUB_MODEL), r->repo)
                           : snprintf(out, NAME_BYTES, "%s\nmany\nr%07u\n%040x\nf%u",
                                      hub_type_name(HUB_MODEL), r->repo, r->repo + 1, r->file);

    return (struct gw_str){out, (size_t)n};
}

static struct gw_str value_of(struct gw_buf *out, const struct record *r)
{
    char commit[41], name[16], path[16];
    struct hub_entry e = {.size = 4096};
    struct record_ref ref;

    gw_buf_reset(out);
    snprintf(commit, sizeof(commit), "%040x", r->repo + 1);
    if (r->file == REF) {
        snprintf(name, sizeof(name), "r%07u", r->repo);
        ref = (struct record_ref){gw_str_c(commit), GW_STR("many"), gw_str_c(name)};
        record_ref_encode(out, &ref);
    } else {
        snprintf(path, sizeof(path), "f%u", r->file);
        e.path = gw_str_c(path);
        memcpy(e.oid, commit, sizeof(commit));
        hub_entry_encode(out, &e);
    }
    if (out->failed) {
        fail("a record that cannot be made");
    }
    return gw_buf_str(out);
}

static int by_key(const void *a, const void *b)
{
    const struct record *x = a, *y = b;

    if ((x->file == REF) != (y->file == REF)) {
        return x->file == REF ? -1 : 1;
    }
    return x->sort < y->sort ? -1 : x->sort > y->sort;
}

static struct record *records_of(size_t repos, size_t files, size_t *n)
{
    struct record *all = malloc(repos * (files + 1) * sizeof(*all)), *r = all;
    char name[NAME_BYTES];
    uint8_t sum[32];

    if (all == NULL) {
        fail("no memory");
    }
    for (size_t i = 0; i < repos; i++) {
        for (size_t f = 0; f <= files; f++, r++) {
            struct gw_str s;

            r->repo = (uint32_t)i;
            r->file = f == files ? REF : (uint32_t)f;
            s = name_of(name, r);
            gw_sha256_once(s.p, s.n, sum);
            r->sort = 0;
            for (unsigned k = 0; k < 8; k++) {
                r->sort = r->sort << 8 | sum[k];
            }
        }
    }
    *n = (size_t)(r - all);
    qsort(all, *n, sizeof(*all), by_key);
    return all;
}

static void put_all(struct cache *c, const struct record *all, size_t n)
{
    static struct cache_put puts[BATCH];
    static char names[BATCH][NAME_BYTES], values[BATCH][VALUE_BYTES];
    int64_t now = gw_wall_ms();
    struct gw_error err;
    struct gw_buf b;

    gw_buf_init(&b, VALUE_BYTES);
    for (size_t i = 0; i < n; i += BATCH) {
        size_t count = n - i < BATCH ? n - i : BATCH;

        for (size_t k = 0; k < count; k++) {
            struct gw_str v = value_of(&b, &all[i + k]);

            memcpy(values[k], v.p, v.n);
            puts[k] = (struct cache_put){
                .kind = all[i + k].file == REF ? CACHE_REF : CACHE_FILE,
                .name = name_of(names[k], &all[i + k]),
                .record = {.status = GW_OK, .checked_ms = now, .value = {values[k], v.n}}};
        }
        if (cache_put(c, puts, count, &err) != GW_OK) {
            fail(err.text);
        }
    }
    gw_buf_release(&b);
}

int main(int argc, char **argv)
{
    size_t repos = argc == 4 ? strtoul(argv[2], NULL, 10) : 0, n;
    size_t files = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    struct cache_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct cache_options o = {.dir = argc == 4 ? argv[1] : NULL,
                              .read_only_index = true,
                              .shared = shared,
                              .upstream = {.url = GW_STR("http://127.0.0.1:9")},
                              .log = {.write = on_log, .level = GW_LOG_NOTICE}};
    int64_t begun = gw_mono_ms();
    struct record *all;
    struct gw_error err;
    struct cache *c;

    if (repos == 0 || files == 0 || repos > 9999999 || shared == MAP_FAILED ||
        cache_shared_init(shared, &err) != GW_OK) {
        fprintf(stderr, "usage: repos_bench DIR REPOS FILES\n");
        return 2;
    }
    o.slot = (unsigned)cache_slot_claim(shared);
    if (cache_open(&c, &o, &err) != GW_OK) {
        fail(err.text);
    }
    all = records_of(repos, files, &n);
    put_all(c, all, n);
    free(all);
    cache_close(c);
    printf("{\"records\":%zu,\"fill_s\":%.1f}\n", n, (double)(gw_mono_ms() - begun) / 1e3);
    return 0;
}
