/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/cache/fill_fixture.h - for tests of large fills: a small Hub with a second host for
 * the bytes, told how to misbehave, and a cache in a temporary folder.
 *
 * The Hub lives in shared memory, so that a test may fork it away. Waiting is polling for a
 * condition; `gate` holds the body back at an offset of the file, which makes "in the middle" a
 * fact and not a matter of time.
 */
#ifndef TESTS_UNIT_CACHE_FILL_FIXTURE_H
#define TESTS_UNIT_CACHE_FILL_FIXTURE_H

#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"
#include "cache/fill_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define MIB (1u << 20)
#define PATIENCE_MS 30000
#define TARGET_OTHER "/org/other/resolve/0123456789012345678901234567890123456789/a.safetensors"
#define TARGET "/org/model/resolve/0123456789012345678901234567890123456789/a.safetensors"

static unsigned fill_transfers = 1; /* of the caches that are opened next */
static unsigned fill_max_transfers;
static bool in_child; /* cmocka's own assertions would let a child run the other tests */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            check_failed(__FILE__, __LINE__, #condition);                                          \
        }                                                                                          \
    } while (0)

static inline void check_failed(const char *file, int line, const char *what)
{
    if (in_child) {
        fprintf(stderr, "%s:%d: in the child %d: %s\n", file, line, (int)getpid(), what);
        _exit(9);
    }
    fail_msg("%s:%d: %s", file, line, what);
}

struct hub {
    int listener[2]; /* the Hub, the other host */
    int port[2];
    uint64_t size;
    uint8_t *bytes; /* shared */
    char digest[65];
    atomic_bool stop;
    atomic_int live; /* connections */

    /* what it does */
    atomic_bool redirect;    /* to the other host; else the Hub sends the bytes */
    _Atomic uint64_t gate;   /* no byte of the file from here on is sent */
    _Atomic uint64_t cut_at; /* the connection is cut there, cut_times times */
    atomic_int cut_times;
    atomic_int status, status_times; /* of the Hub */
    atomic_int retry_after;          /* 0: none */
    atomic_int other_status_times;   /* the other host says 403 */
    atomic_int range_wrong_times;    /* Content-Range names another start */
    atomic_int total_wrong_times;
    atomic_int whole_times;       /* 200 with all for a range */
    atomic_int wrong_bytes_times; /* one bit at wrong_at, in so many answers that hold it */
    _Atomic uint64_t wrong_at;
    atomic_int crawl_times; /* answers at 16 bytes per ms */
    atomic_int hang_times;  /* silence before the head, until stop */
    atomic_bool refuses;    /* 403 for TARGET_OTHER */
    atomic_int refused;
    atomic_bool changed; /* X-Linked-Etag names another digest */
    atomic_bool encoded, elsewhere, loop, no_length;
    _Atomic uint64_t slow;               /* bytes per ms and connection; 0: all */
    _Atomic uint64_t hold_from, hold_to; /* bytes there are not sent for now */

    /* what it saw */
    atomic_int calls[2];
    _Atomic uint64_t sent;       /* bytes of the file */
    _Atomic uint64_t last_start; /* of the last range at whoever sends bytes */
    atomic_int token_at[2];      /* requests with a credential */
    atomic_int busy, busy_max;   /* answers with bytes at the same time */
    _Atomic uint64_t *of_mib;    /* shared; bytes sent of each MiB of the file */
    char last_request[16384];    /* read when nothing is under way */
};

static inline bool take(atomic_int *times)
{
    int n = atomic_load(times);

    while (n > 0 && !atomic_compare_exchange_weak(times, &n, n - 1)) {
        continue;
    }
    return n > 0;
}

static inline void *shared_memory(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(p != MAP_FAILED);
    return p;
}

/* ---- the Hub ---- */

static inline bool say(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);

        if (done <= 0) {
            return false;
        }
        p += done;
        n -= (size_t)done;
    }
    return true;
}

struct hub_call {
    struct hub *hub;
    int fd;
    unsigned who;
};

static inline bool send_bytes(struct hub *h, int fd, uint64_t start, uint64_t end, bool spoil,
                              bool crawl)
{
    uint8_t piece[128u << 10];

    while (start < end) {
        uint64_t gate = atomic_load(&h->gate), slow = crawl ? 16 : atomic_load(&h->slow);
        uint64_t n = end - start;
        uint64_t cut = atomic_load(&h->cut_at), wrong = atomic_load(&h->wrong_at);

        if (atomic_load(&h->stop)) {
            return false;
        }
        if (start >= gate ||
            (start >= atomic_load(&h->hold_from) && start < atomic_load(&h->hold_to))) {
            struct pollfd p = {.fd = fd, .events = POLLIN};

            if (poll(&p, 1, 2) > 0) {
                return false; /* the client has gone */
            }
            continue;
        }
        n = n < sizeof(piece) ? n : sizeof(piece);
        n = n < gate - start ? n : gate - start;
        n = n < MIB - start % MIB ? n : MIB - start % MIB;
        if (start < atomic_load(&h->hold_from) && n > atomic_load(&h->hold_from) - start) {
            n = atomic_load(&h->hold_from) - start;
        }
        n = slow != 0 && n > slow ? slow : n;
        if (atomic_load(&h->cut_times) > 0 && start < cut && cut - start < n) {
            n = cut - start;
        }
        if (start == cut && take(&h->cut_times)) {
            struct linger now = {.l_onoff = 1};

            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
            return false;
        }
        memcpy(piece, h->bytes + start, (size_t)n);
        if (spoil && wrong >= start && wrong < start + n) {
            piece[wrong - start] ^= 1;
        }
        if (!say(fd, (const char *)piece, (size_t)n)) {
            return false;
        }
        atomic_fetch_add(&h->sent, n);
        atomic_fetch_add(&h->of_mib[start / MIB], n);
        start += n;
        if (slow != 0) {
            usleep(1000);
        }
    }
    return true;
}

/* Bytes of the file, once no answer is under way: the Hub counts a piece after it has sent it, so
 * whoever has the bytes may be ahead of the count. */
static inline uint64_t sent_in_all(struct hub *h)
{
    int64_t end = gw_mono_ms() + PATIENCE_MS;

    while (atomic_load(&h->busy) > 0 && gw_mono_ms() < end) {
        usleep(500);
    }
    return atomic_load(&h->sent);
}

static inline bool send_counted(struct hub *h, int fd, uint64_t start, uint64_t end, bool spoil)
{
    int busy = atomic_fetch_add(&h->busy, 1) + 1, most = atomic_load(&h->busy_max);
    bool ok;

    while (busy > most && !atomic_compare_exchange_weak(&h->busy_max, &most, busy)) {
        continue;
    }
    ok = send_bytes(h, fd, start, end, spoil, take(&h->crawl_times));
    atomic_fetch_sub(&h->busy, 1);
    return ok;
}

static inline bool answer_bytes(struct hub *h, int fd, const char *request, unsigned who)
{
    unsigned long long first = 0, last = h->size - 1;
    const char *range = strcasestr(request, "\r\nRange: bytes=");
    bool part = range != NULL && !take(&h->whole_times), spoil = false;
    char head[1024];
    int n;

    if (range != NULL) {
        sscanf(range, "\r\nRange: bytes=%llu-%llu", &first, &last);
    }
    atomic_store(&h->last_start, first);
    if (!part) {
        first = 0;
        last = h->size - 1;
    }
    if (atomic_load(&h->wrong_at) >= first && atomic_load(&h->wrong_at) <= last) {
        spoil = take(&h->wrong_bytes_times);
    }
    n = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nETag: \"%s%s\"\r\n",
                 part ? "206 Partial Content" : "200 OK", who == 1 ? "opaque-" : "", h->digest);
    if (!atomic_load(&h->no_length)) {
        n += snprintf(head + n, sizeof(head) - (size_t)n, "Content-Length: %llu\r\n",
                      last - first + 1);
    }
    if (part) {
        n += snprintf(head + n, sizeof(head) - (size_t)n, "Content-Range: bytes %llu-%llu/%llu\r\n",
                      first + (take(&h->range_wrong_times) ? 1 : 0), last,
                      (unsigned long long)h->size + (take(&h->total_wrong_times) ? 1 : 0));
    }
    n += snprintf(head + n, sizeof(head) - (size_t)n, "%s\r\n",
                  atomic_load(&h->encoded) ? "Content-Encoding: gzip\r\n" : "");
    return say(fd, head, (size_t)n) && send_counted(h, fd, first, last + 1, spoil) &&
           !atomic_load(&h->no_length);
}

static inline bool answer(struct hub *h, int fd, const char *request, unsigned who)
{
    char head[1024];
    int n;

    atomic_fetch_add(&h->calls[who], 1);
    if (who == 0) {
        memcpy(h->last_request, request, strnlen(request, sizeof(h->last_request) - 1) + 1);
    }
    if (strcasestr(request, "\r\nAuthorization:") != NULL) {
        atomic_fetch_add(&h->token_at[who], 1);
    }
    if (take(&h->hang_times)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        while (!atomic_load(&h->stop) && poll(&p, 1, 2) == 0) {
            continue;
        }
        return false;
    }
    if (who == 0 && atomic_load(&h->refuses) && strstr(request, TARGET_OTHER) != NULL) {
        atomic_fetch_add(&h->refused, 1);
        return say(fd, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 38);
    }
    if (who == 0 && take(&h->status_times)) {
        n = snprintf(head, sizeof(head), "HTTP/1.1 %d No\r\nContent-Length: 2\r\n",
                     atomic_load(&h->status));
        if (atomic_load(&h->retry_after) > 0) {
            n += snprintf(head + n, sizeof(head) - (size_t)n, "Retry-After: %d\r\n",
                          atomic_load(&h->retry_after));
        }
        n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\nno");
        return say(fd, head, (size_t)n);
    }
    if (who == 1 && take(&h->other_status_times)) {
        return say(fd, "HTTP/1.1 403 Expired\r\nContent-Length: 0\r\n\r\n", 44);
    }
    if (who == 0 && atomic_load(&h->redirect)) {
        char location[256];

        if (atomic_load(&h->elsewhere)) {
            snprintf(location, sizeof(location), "http://169.254.169.254/latest/");
        } else if (atomic_load(&h->loop)) {
            snprintf(location, sizeof(location), TARGET);
        } else {
            snprintf(location, sizeof(location), "http://127.0.0.1:%d/signed?Signature=x",
                     h->port[1]);
        }
        n = snprintf(head, sizeof(head),
                     "HTTP/1.1 302 Found\r\nLocation: %s\r\nX-Linked-Etag: \"%s%s\"\r\n"
                     "X-Linked-Size: %llu\r\nContent-Length: 5\r\n\r\nmoved",
                     location, h->digest + (atomic_load(&h->changed) ? 1 : 0),
                     atomic_load(&h->changed) ? "0" : "", (unsigned long long)h->size);
        return say(fd, head, (size_t)n);
    }
    return answer_bytes(h, fd, request, who);
}

static inline void *on_call(void *arg)
{
    struct hub_call call = *(struct hub_call *)arg;
    char request[16384];
    size_t have = 0;

    free(arg);
    for (;;) {
        struct pollfd p = {.fd = call.fd, .events = POLLIN};
        char *end;
        ssize_t n;

        if (atomic_load(&call.hub->stop)) {
            break;
        }
        if (poll(&p, 1, 5) <= 0) {
            continue;
        }
        n = recv(call.fd, request + have, sizeof(request) - 1 - have, 0);
        if (n <= 0) {
            break;
        }
        have += (size_t)n;
        request[have] = '\0';
        end = strstr(request, "\r\n\r\n");
        if (end == NULL) {
            continue;
        }
        have = 0;
        if (!answer(call.hub, call.fd, request, call.who)) {
            break;
        }
    }
    close(call.fd);
    atomic_fetch_sub(&call.hub->live, 1);
    return NULL;
}

static inline void *hub_run(void *arg)
{
    struct hub *h = arg;
    struct pollfd p[2] = {{.fd = h->listener[0], .events = POLLIN},
                          {.fd = h->listener[1], .events = POLLIN}};

    while (!atomic_load(&h->stop)) {
        if (poll(p, 2, 5) <= 0) {
            continue;
        }
        for (unsigned i = 0; i < 2; i++) {
            struct hub_call *call;
            pthread_t thread;
            int one = 1, fd;

            if ((p[i].revents & POLLIN) == 0) {
                continue;
            }
            fd = accept4(h->listener[i], NULL, NULL, SOCK_CLOEXEC);
            call = malloc(sizeof(*call));
            if (fd < 0 || call == NULL) {
                abort();
            }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            *call = (struct hub_call){h, fd, i};
            atomic_fetch_add(&h->live, 1);
            if (pthread_create(&thread, NULL, on_call, call) != 0) {
                abort();
            }
            pthread_detach(thread);
        }
    }
    while (atomic_load(&h->live) > 0) {
        usleep(1000);
    }
    return NULL;
}

static inline struct hub *hub_new(uint64_t size)
{
    struct hub *h = shared_memory(sizeof(*h));
    uint64_t state = size * 2654435761u + 88172645463325252ull;
    uint8_t sha[32];

    h->size = size;
    h->bytes = shared_memory((size_t)size + 8);
    h->of_mib = shared_memory((size_t)(size / MIB + 1) * sizeof(*h->of_mib));
    for (uint64_t i = 0; i < size; i += 8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(h->bytes + i, &state, 8);
    }
    gw_sha256_once(h->bytes, (size_t)size, sha);
    gw_hex_encode(h->digest, sha, sizeof(sha));
    atomic_store(&h->redirect, true);
    atomic_store(&h->gate, UINT64_MAX);
    atomic_store(&h->cut_at, UINT64_MAX);
    atomic_store(&h->wrong_at, UINT64_MAX);
    for (unsigned i = 0; i < 2; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET};
        socklen_t n = sizeof(at);

        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        h->listener[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(h->listener[i] >= 0);
        assert_int_equal(bind(h->listener[i], (struct sockaddr *)&at, sizeof(at)), 0);
        assert_int_equal(listen(h->listener[i], 64), 0);
        assert_int_equal(getsockname(h->listener[i], (struct sockaddr *)&at, &n), 0);
        h->port[i] = ntohs(at.sin_port);
    }
    return h;
}

static inline void hub_free(struct hub *h)
{
    for (unsigned i = 0; i < 2; i++) {
        close(h->listener[i]);
    }
    munmap(h->bytes, (size_t)h->size + 8);
    munmap((void *)(uintptr_t)h->of_mib, (size_t)(h->size / MIB + 1) * sizeof(*h->of_mib));
    munmap(h, sizeof(*h));
}

/* ---- a cache of this process ---- */

struct log_lines {
    atomic_int n;
};

static inline void on_log(void *ctx, enum gw_log_level level, struct gw_str line)
{
    struct log_lines *l = ctx;

    atomic_fetch_add(&l->n, 1);
    if (getenv("FILL_TEST_LOG") != NULL) {
        fprintf(stderr, "[%d] %d " GW_STR_FMT "\n", (int)getpid(), (int)level, GW_STR_ARG(line));
    }
}

static inline struct cache *cache_of(struct hub *h, const char *dir, struct cache_shared *shared,
                                     struct log_lines *log, bool verify_before)
{
    char url[64], host[64];
    struct gw_str hosts[1];
    struct cache_options o = {.dir = dir, .verify_before = verify_before, .shared = shared};
    struct gw_error err = {0};
    struct cache *c = NULL;
    int slot = cache_slot_claim(shared);

    CHECK(slot >= 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", h->port[0]);
    snprintf(host, sizeof(host), "127.0.0.1:%d", h->port[1]);
    hosts[0] = gw_str_c(host);
    o.slot = (unsigned)slot;
    o.upstream.url = gw_str_c(url);
    o.upstream.token = GW_STR("organisation-token");
    o.upstream.redirect_hosts = hosts;
    o.upstream.n_redirect_hosts = 1;
    o.upstream.connect_timeout_ms = 2000;
    o.upstream.stall_timeout_ms = 1000;
    o.upstream.transfers = fill_transfers;
    o.upstream.max_transfers = fill_max_transfers;
    o.index_map_bytes = 16u << 20;
    o.log = (struct gw_log){on_log, log, GW_LOG_DEBUG};
    if (cache_open(&c, &o, &err) != GW_OK) {
        check_failed(__FILE__, __LINE__, err.text);
    }
    c->fills->retry_ms = 20; /* what is tested is the order, not the clock */
    return c;
}

/* ---- jobs, each in a thread of its own, as a pool would run them ---- */

static atomic_int jobs_running;

struct job {
    struct cache *cache;
    enum gw_peer peer;
    char key[128];
};

static inline void *run_job(void *arg)
{
    struct job *j = arg;
    struct gw_error err = {0};

    int rc = j->peer == GW_PEER_REDIS ? cache_lease_job(j->cache, gw_str_c(j->key), INT64_MAX, &err)
                                      : cache_fill_job(j->cache, gw_str_c(j->key), &err);

    if (rc != GW_OK && getenv("FILL_TEST_LOG") != NULL) {
        fprintf(stderr, "[%d] job: %s\n", (int)getpid(), err.text);
    }
    free(j);
    atomic_fetch_sub(&jobs_running, 1);
    return NULL;
}

static inline void end_jobs(void)
{
    while (atomic_load(&jobs_running) > 0) {
        usleep(500);
    }
}

/* One turn of a worker's loop: sleeps until woken or 50 ms, then ticks and starts the jobs it is
 * told. */
static inline void turn(struct cache *c)
{
    struct pollfd p = {.fd = atomic_load(&c->shared->slots[c->slot].eventfd), .events = POLLIN};
    struct gw_want want;

    poll(&p, 1, 50);
    while (cache_tick(c, &want) == GW_OK) {
        struct job *j = malloc(sizeof(*j));
        pthread_t thread;

        CHECK(j != NULL && (want.peer == GW_PEER_DISK || want.peer == GW_PEER_REDIS));
        j->cache = c;
        j->peer = want.peer;
        snprintf(j->key, sizeof(j->key), GW_STR_FMT, GW_STR_ARG(want.key));
        atomic_fetch_add(&jobs_running, 1);
        CHECK(pthread_create(&thread, NULL, run_job, j) == 0);
        pthread_detach(thread);
    }
}

/* Jobs end before the cache is closed: that is the caller's part. */
static inline void close_worker(struct cache *c, struct cache_shared *shared)
{
    unsigned slot = c->slot;

    end_jobs();
    cache_close(c);
    cache_slot_release(shared, slot);
}

#define TURN_UNTIL(c, condition)                                                                   \
    do {                                                                                           \
        int64_t turn_end = gw_mono_ms() + PATIENCE_MS;                                             \
        while (!(condition)) {                                                                     \
            if (gw_mono_ms() > turn_end) {                                                         \
                check_failed(__FILE__, __LINE__, "never came: " #condition);                       \
            }                                                                                      \
            turn(c);                                                                               \
        }                                                                                          \
    } while (0)

static inline struct cache_reader *join_from(struct cache *c, const struct hub *h,
                                             struct gw_str target)
{
    struct cache_source source = {target, false, false};
    struct cache_reader *r = NULL;
    struct gw_error err = {0};
    int rc = cache_reader_open(&r, c, gw_str_c(h->digest), h->size, target, &err);

    if (rc == GW_AGAIN) {
        rc = cache_part_create(c, gw_str_c(h->digest), h->size, &source, &err);
        if (rc != GW_OK) {
            check_failed("cache_part_create", rc, err.text);
        }
        rc = cache_reader_open(&r, c, gw_str_c(h->digest), h->size, target, &err);
    }
    if (rc != GW_OK) {
        check_failed("cache_reader_open", rc, err.text);
    }
    return r;
}

static inline struct cache_reader *join(struct cache *c, const struct hub *h)
{
    return join_from(c, h, gw_str_c(TARGET));
}

/* A response [offset, end) followed to its end, every byte compared. @return GW_OK, or how it ended
 */
struct response {
    struct cache_reader *reader;
    uint64_t offset, end, begun;
    int rc;
    struct gw_error err;
};

/* @return true: it is over */
static inline bool step(struct response *r, const struct hub *h)
{
    static uint8_t buffer[256u << 10];
    uint64_t avail = 0;

    while (r->rc == GW_OK && r->offset < r->end) {
        r->rc = cache_reader_want(r->reader, r->offset, r->end, r->begun, &avail, &r->err);
        if (r->rc != GW_OK || avail == 0) {
            break;
        }
        CHECK(avail <= r->end - r->offset);
        while (avail > 0) {
            size_t n = avail < sizeof(buffer) ? (size_t)avail : sizeof(buffer);

            CHECK(gw_pread_all(cache_reader_fd(r->reader), buffer, n, r->offset, NULL) == GW_OK);
            CHECK(memcmp(buffer, h->bytes + r->offset, n) == 0);
            r->offset += n;
            r->begun += n;
            avail -= n;
        }
    }
    return r->rc != GW_OK || r->offset == r->end;
}

static inline int follow(struct cache *c, const struct hub *h, struct response *r)
{
    TURN_UNTIL(c, step(r, h));
    return r->rc;
}

static inline bool have_blob(struct cache *c, const struct hub *h)
{
    struct gw_error err;
    uint64_t size = 0;
    int64_t modified;
    int fd = -1;

    if (cache_blob_open(c, gw_str_c(h->digest), &fd, &size, &modified, &err) != GW_OK) {
        return false;
    }
    close(fd);
    return size == h->size;
}

static inline void check_blob(struct cache *c, const struct hub *h)
{
    struct gw_error err = {0};
    uint64_t size = 0;
    int64_t modified;
    uint8_t *p;
    int fd = -1;

    if (cache_blob_open(c, gw_str_c(h->digest), &fd, &size, &modified, &err) != GW_OK) {
        fail_msg("cache_blob_open: %s", err.text);
    }
    assert_int_equal(size, h->size);
    p = malloc((size_t)size);
    assert_non_null(p);
    assert_int_equal(gw_pread_all(fd, p, (size_t)size, 0, NULL), GW_OK);
    assert_memory_equal(p, h->bytes, (size_t)size);
    free(p);
    close(fd);
}

static inline bool exists(const char *dir, const char *digest, const char *suffix)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/parts/%s%s", dir, digest, suffix);
    return access(path, F_OK) == 0;
}

#endif
