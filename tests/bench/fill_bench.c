/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/fill_bench.c - one large fill from loopback: time, CPU, first byte; no nginx.
 *
 * make build/lib/libcache.a build/lib/libbase.a; cc -O2 -I. -D_GNU_SOURCE tests/bench/fill_bench.c
 * build/lib/libcache.a build/lib/libbase.a $(pkg-config --libs libcurl libcrypto lmdb jansson
 * yaml-0.1 libssl zlib) -lcmocka -lpthread
 *
 * fill_bench [MIB [ROUNDS [DIR]]] prints one JSON object per round. direct: the same bytes read by
 * a bare libcurl handle and thrown away. cpu: of the process that fills and hashes, in s per GiB.
 */
#include "tests/unit/cache/fill_fixture.h"

#include <curl/curl.h>
#include <sys/resource.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static size_t discard(char *p, size_t size, size_t n, void *ctx)
{
    return size * n;
}

static double direct(const struct hub *h)
{
    CURL *easy = curl_easy_init();
    double begun = now();
    char url[256];

    snprintf(url, sizeof(url), "http://127.0.0.1:%d/direct", h->port[1]);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
    CHECK(curl_easy_perform(easy) == CURLE_OK);
    curl_easy_cleanup(easy);
    return now() - begun;
}

static void one(struct hub *h, const char *dir, struct cache_shared *shared)
{
    struct log_lines log = {0};
    double alone = direct(h), begun, first = 0, read = 0, used;
    struct cache *c = cache_of(h, dir, shared, &log, false);
    struct cache_reader *r;
    uint64_t offset = 0, avail = 0, wakes = 0;
    char path[PATH_MAX];

    used = cpu();
    begun = now();
    r = join(c, h);
    while (!have_blob(c, h)) {
        while (offset < h->size &&
               cache_reader_want(r, offset, h->size, offset, &avail, NULL) == GW_OK && avail > 0) {
            first = first > 0 ? first : now() - begun;
            offset += avail;
        }
        read = read > 0 || offset < h->size ? read : now() - begun;
        turn(c);
        wakes++;
    }
    CHECK(offset == h->size || cache_reader_want(r, offset, h->size, offset, &avail, NULL) == 0);
    read = read > 0 ? read : now() - begun;
    printf("{\"mib\": %llu, \"direct_s\": %.3f, \"read_s\": %.3f, \"ratio\": %.2f, "
           "\"whole_s\": %.3f, \"first_ms\": %.1f, \"gib_per_s\": %.2f, \"cpu_s_per_gib\": %.2f, "
           "\"turns\": %llu}\n",
           (unsigned long long)(h->size >> 20), alone, read, read / alone, now() - begun,
           first * 1000, (double)h->size / (1u << 30) / read,
           (cpu() - used) / ((double)h->size / (1u << 30)), (unsigned long long)wakes);
    fflush(stdout);
    cache_reader_close(r);
    CHECK(cache_blob_path(c, gw_str_c(h->digest), path, sizeof(path)) && unlink(path) == 0);
    close_worker(c, shared);
}

int main(int argc, char **argv)
{
    uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 1024;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 5;
    char dir[PATH_MAX];
    struct hub *h;
    struct cache_shared *shared;
    pid_t pid;

    in_child = true; /* a failed check ends the program */
    snprintf(dir, sizeof(dir), "%s/hubgate-bench-XXXXXX", argc > 3 ? argv[3] : "/tmp");
    CHECK(mkdtemp(dir) != NULL);
    signal(SIGPIPE, SIG_IGN);
    h = hub_new(mib << 20);
    pid = fork();
    if (pid == 0) {
        hub_run(h);
        _exit(0);
    }
    shared = shared_memory(sizeof(*shared));
    CHECK(cache_shared_init(shared, NULL) == GW_OK);
    for (unsigned i = 0; i < rounds; i++) {
        one(h, dir, shared);
    }
    atomic_store(&h->stop, true);
    waitpid(pid, NULL, 0);
    CHECK(gw_dir_remove(dir, NULL) == GW_OK);
    return 0;
}
