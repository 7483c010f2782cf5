/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/cache/redis_fixture.h - a real redis-server in a temporary folder, and a server that
 * says what a test wants. deploy/install-deps installs redis-server; without it these tests fail,
 * they never skip.
 */
#ifndef TESTS_UNIT_CACHE_REDIS_FIXTURE_H
#define TESTS_UNIT_CACHE_REDIS_FIXTURE_H

#include "tests/unit/cache/cache_fixture.h"

#include "cache/share_internal.h"

#include "base/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define REDIS_PROGRAM "/usr/bin/redis-server"
#define LONG_MS 20000

/* A socket that listens on a port of 127.0.0.1. */
static inline int listen_somewhere(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static inline uint16_t free_port(void)
{
    uint16_t port;

    close(listen_somewhere(&port));
    return port;
}

/* ---- the real one ---- */

struct redis {
    char dir[64];
    uint16_t port, tls_port; /* tls_port 0: none */
    pid_t pid;
    struct redis_parser parser;
};

/* One command as the default user; the reply lives until the next one. NULL: nobody answers. */
static inline struct redis_value *ask_n(struct redis *r, const struct gw_str *words, size_t n)
{
    struct gw_dial d = {.host = GW_STR("127.0.0.1"), .address = GW_STR("127.0.0.1")};
    struct redis_value *v = NULL;
    struct gw_conn *conn;
    struct gw_error err;
    struct gw_buf out;
    char block[4096];
    ptrdiff_t got;

    d.port = r->port;
    d.deadline_ms = gw_mono_ms() + LONG_MS;
    if (gw_conn_dial(&conn, &d, &err) != GW_OK) {
        return NULL;
    }
    redis_parser_release(&r->parser);
    assert_int_equal(redis_parser_init(&r->parser, &err), GW_OK);
    r->parser.max = 64u << 20;
    gw_buf_init(&out, 64u << 20);
    gw_buf_addf(&out, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        gw_buf_addf(&out, "$%zu\r\n", words[i].n);
        gw_buf_add(&out, words[i]);
        gw_buf_add_c(&out, "\r\n");
    }
    if (gw_conn_write(conn, out.p, out.n, &err) < 0) {
        fail_msg("%s", err.text);
    }
    while (redis_parser_next(&r->parser, &v, &err) == GW_AGAIN) {
        got = gw_conn_read(conn, block, sizeof(block), &err);
        if (got <= 0) {
            v = NULL;
            break;
        }
        assert_int_equal(redis_parser_feed(&r->parser, (struct gw_str){block, (size_t)got}, &err),
                         GW_OK);
    }
    gw_buf_release(&out);
    gw_conn_close(conn);
    return v;
}
#define ASK(r, ...)                                                                                \
    ask_n(r, (const struct gw_str[]){__VA_ARGS__},                                                 \
          sizeof((const struct gw_str[]){__VA_ARGS__}) / sizeof(struct gw_str))

/* Words with blanks between them; +OK or the test fails. */
static inline void must(struct redis *r, const char *command)
{
    struct gw_str words[16], rest = gw_str_c(command), word;
    struct redis_value *v;
    size_t n = 0;

    while (gw_str_split(&rest, ' ', &word)) {
        words[n++] = word;
    }
    v = ask_n(r, words, n);
    if (v == NULL || v->kind == REDIS_IS_ERROR) {
        fail_msg("%s: " GW_STR_FMT, command, GW_STR_ARG(v != NULL ? v->text : GW_STR("nobody")));
    }
}

/* more: lines of the configuration. */
static inline void redis_start(struct redis *r, const char *more)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/redis.conf", r->dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "bind 127.0.0.1\nport %u\ndir %s\nsave \"\"\nlogfile %s/log\n%s", (unsigned)r->port,
            r->dir, r->dir, more);
    assert_int_equal(fclose(f), 0);
    r->pid = fork();
    assert_true(r->pid >= 0);
    if (r->pid == 0) {
        char *argv[] = {(char *)(uintptr_t) "redis-server", path, NULL};

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(REDIS_PROGRAM, argv);
        fprintf(stderr, "%s: %s: run deploy/install-deps\n", REDIS_PROGRAM, strerror(errno));
        _exit(127);
    }
    for (int64_t until = gw_mono_ms() + LONG_MS;;) {
        struct redis_value *v = ASK(r, GW_STR("PING"));

        if (v != NULL && redis_is_status(v, "PONG")) {
            return;
        }
        if (gw_mono_ms() > until || waitpid(r->pid, NULL, WNOHANG) == r->pid) {
            fail_msg("redis-server does not answer, see %s", r->dir);
        }
        poll(NULL, 0, 5);
    }
}

static inline void redis_init(struct redis *r, const char *more)
{
    *r = (struct redis){.dir = "/tmp/hubgate-redis-XXXXXX", .port = free_port()};
    assert_non_null(mkdtemp(r->dir));
    redis_start(r, more);
}

static inline void redis_kill(struct redis *r)
{
    kill(r->pid, SIGCONT);
    kill(r->pid, SIGKILL);
    assert_int_equal(waitpid(r->pid, NULL, 0), r->pid);
    r->pid = 0;
}

static inline void redis_release(struct redis *r)
{
    if (r->pid != 0) {
        redis_kill(r);
    }
    redis_parser_release(&r->parser);
    sh("rm -rf %s", r->dir);
}

/* ---- one that says what it is told ---- */

enum manner { SAYS_ALL, SAYS_BYTES /* one a time, slowly, for ever */, SAYS_ZEROES /* after it */ };
struct puppet {
    uint16_t port;
    pid_t pid;
};

static inline void puppet_serve(int fd, const char *text, size_t n, enum manner manner,
                                bool hangs_up)
{
    char block[65536];
    ssize_t got = recv(fd, block, sizeof(block), 0);

    memset(block, '0', sizeof(block));
    if (got <= 0) {
        return;
    }
    if (manner == SAYS_BYTES) {
        for (size_t i = 0; send(fd, i < n ? text + i : "0", 1, MSG_NOSIGNAL) == 1; i++) {
            poll(NULL, 0, 5);
        }
        return;
    }
    if (n != 0 && send(fd, text, n, MSG_NOSIGNAL) != (ssize_t)n) {
        return;
    }
    while (manner == SAYS_ZEROES && send(fd, block, sizeof(block), MSG_NOSIGNAL) > 0) {
        continue;
    }
    while (!hangs_up && recv(fd, block, sizeof(block), 0) > 0) {
        continue; /* silent from now on */
    }
}

/* Says `text` to the first bytes that come on each connection, then hangs up or is silent. */
static inline void puppet_start(struct puppet *p, const char *text, size_t n, enum manner manner,
                                bool hangs_up)
{
    int fd = listen_somewhere(&p->port);

    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGCHLD, SIG_IGN);
        for (;;) {
            int one = accept(fd, NULL, NULL);

            if (one < 0 && errno != EINTR) {
                _exit(0);
            }
            if (one >= 0 && fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                puppet_serve(one, text, n, manner, hangs_up);
                _exit(0);
            }
            close(one);
        }
    }
    close(fd);
}

static inline void puppet_stop(struct puppet *p)
{
    kill(p->pid, SIGKILL);
    assert_int_equal(waitpid(p->pid, NULL, 0), p->pid);
}

/* ---- nodes ---- */

#define CLUSTER_KEY "0123456789abcdef0123456789abcdef0123456789"

struct node {
    struct fixture f;
    struct cache_redis_server servers[3];
};

static inline void node_init(struct node *n, const char *url)
{
    fixture_init(&n->f);
    n->f.options.share = (struct cache_share_options){.servers = n->servers,
                                                      .cluster_key = GW_STR(CLUSTER_KEY),
                                                      .node_url = gw_str_c(url),
                                                      .timeout_ms = LONG_MS};
}

static inline void node_server(struct node *n, uint16_t port, bool tls)
{
    struct cache_share_options *o = &n->f.options.share;

    n->servers[o->n_servers++] =
        (struct cache_redis_server){.host = GW_STR("127.0.0.1"), .port = port, .tls = tls};
}

static inline void node_open(struct node *n, const char *url, uint16_t port)
{
    node_init(n, url);
    node_server(n, port, false);
    fixture_open(&n->f);
}

static inline void node_release(struct node *n)
{
    fixture_release(&n->f);
}

static inline uint64_t counted(const struct node *n, _Atomic uint64_t *counter)
{
    (void)n;
    return atomic_load(counter);
}
#define HITS(n) atomic_load(&(n)->f.shared->counters.share_hits)
#define MISSES(n) atomic_load(&(n)->f.shared->counters.share_misses)
#define REJECTED(n) atomic_load(&(n)->f.shared->counters.share_rejected)
#define ERRORS(n) atomic_load(&(n)->f.shared->counters.share_errors)

static inline int64_t soon(void)
{
    return gw_mono_ms() + LONG_MS;
}

/* Shares one record; the status of cache_share_put. */
static inline int share(struct node *n, enum cache_kind kind, const char *name)
{
    struct cache_share_name one = {kind, gw_str_c(name)};

    return cache_share_put(n->f.cache, &one, 1, soon(), &n->f.err);
}

/* GW_OK: found; GW_NOT_FOUND; else the failure. */
static inline int fetch(struct node *n, enum cache_kind kind, const char *name)
{
    struct cache_share_name one = {kind, gw_str_c(name)};
    bool found = true;
    int rc = cache_share_get(n->f.cache, &one, 1, &found, soon(), &n->f.err);

    return rc == GW_OK && !found ? GW_NOT_FOUND : rc;
}

#endif
