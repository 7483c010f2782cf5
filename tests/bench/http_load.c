/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/http_load.c - requests to one URL over kept connections: how many a second, how long.
 *
 * http_load [-c CONNECTIONS] [-d SECONDS] [-r RATE] [-m METHOD] [-a CA_FILE] [-n N] URL <HEADERS
 *
 * HEADERS: lines "Name: value". Without a rate each connection asks again as soon as it has its
 * answer; with one (requests a second, of all connections together) the time of an answer counts
 * from when its request was due, so that a stall is seen by all whom it would have met. It knows
 * HEAD (wrk does not: it waits for the body) and answers with a Content-Length only. With -n the
 * first "#######" of the URL is another number below N in each request, at random. Prints one JSON
 * object; exits 1 when an answer was not a 2xx.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 256
#define HEAD_MAX 16384u
#define REQUEST_MAX 16384u
#define BODY_BYTES (256u << 10)

struct connection {
    int fd;
    SSL *ssl;
    bool busy;
    int64_t due_ns;
    uint64_t body_left;
    bool in_body;
    size_t n;
    char head[HEAD_MAX + 1];
};

static struct connection connections[CONNECTIONS_MAX];
static struct pollfd polls[CONNECTIONS_MAX];
static char request[REQUEST_MAX], body[BODY_BYTES];
static size_t request_n;
static char *number; /* seven digits of the request that change */
static unsigned numbers;
static bool bare; /* HEAD: answers have no body */
static uint32_t *times_us;
static size_t n_times, cap_times;

static void fail(const char *what, const char *more)
{
    fprintf(stderr, "http_load: %s%s%s\n", what, more != NULL ? ": " : "",
            more != NULL ? more : "");
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* "http://127.0.0.1:8080/path": addresses only, this is for loopback. */
static bool parse_url(char *url, struct sockaddr_in *to, char **host, char **path)
{
    bool tls = strncmp(url, "https://", 8) == 0;
    char *colon;

    if (!tls && strncmp(url, "http://", 7) != 0) {
        fail("not an http URL", url);
    }
    *host = url + (tls ? 8 : 7);
    *path = strchr(*host, '/');
    if (*path == NULL) {
        fail("a URL without a path", url);
    }
    **path = '\0';
    *host = strdup(*host);
    **path = '/';
    colon = strchr(*host, ':');
    to->sin_family = AF_INET;
    to->sin_port = htons(colon != NULL ? (uint16_t)atoi(colon + 1) : tls ? 443 : 80);
    if (colon != NULL) {
        *colon = '\0';
    }
    if (inet_pton(AF_INET, *host, &to->sin_addr) != 1) {
        fail("not an IPv4 address", *host);
    }
    if (colon != NULL) {
        *colon = ':';
    }
    return tls;
}

static void make_request(const char *method, const char *path, const char *host)
{
    char line[8192];
    int n =
        snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host);

    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0' && n > 0 && (size_t)n < sizeof(request)) {
            n += snprintf(request + n, sizeof(request) - (size_t)n, "%s\r\n", line);
        }
    }
    if (n < 0 || (size_t)n + 2 >= sizeof(request)) {
        fail("too many headers", NULL);
    }
    memcpy(request + n, "\r\n", 3);
    request_n = (size_t)n + 2;
    number = numbers > 0 ? strstr(request, "#######") : NULL;
}

static void open_connection(struct connection *c, const struct sockaddr_in *to, SSL_CTX *tls)
{
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)to, sizeof(*to)) != 0) {
        fail("connect", strerror(errno));
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (tls != NULL) {
        c->ssl = SSL_new(tls);
        if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1 ||
            X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->ssl), inet_ntoa(to->sin_addr)) != 1 ||
            SSL_connect(c->ssl) != 1) {
            fail("TLS handshake", NULL);
        }
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

/* A request is smaller than the socket's buffer, which is empty: it goes out in one call. */
static void ask(struct connection *c, int64_t due_ns)
{
    static uint64_t state = 88172645463325252u;
    char digits[16];
    long sent;

    if (number != NULL) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        snprintf(digits, sizeof(digits), "%07u", (unsigned)(state % numbers));
        memcpy(number, digits, 7);
    }
    sent = c->ssl != NULL ? SSL_write(c->ssl, request, (int)request_n)
                          : write(c->fd, request, request_n);

    if (sent != (long)request_n) {
        fail("write", strerror(errno));
    }
    c->busy = true;
    c->due_ns = due_ns;
    c->n = 0;
    c->in_body = false;
}

/* @return bytes, 0: nothing there now */
static size_t take(struct connection *c, char *out, size_t cap)
{
    long n = c->ssl != NULL ? SSL_read(c->ssl, out, (int)cap) : read(c->fd, out, cap);

    if (n > 0) {
        return (size_t)n;
    }
    if (c->ssl != NULL ? SSL_get_error(c->ssl, (int)n) == SSL_ERROR_WANT_READ
                       : n < 0 && errno == EAGAIN) {
        return 0;
    }
    fail("a connection was closed before its answer had ended", NULL);
    return 0;
}

/* @return the answer has ended */
static bool read_head(struct connection *c)
{
    char *end, *length;
    uint64_t bytes;
    size_t n = take(c, c->head + c->n, HEAD_MAX - c->n), body_n;

    c->n += n;
    c->head[c->n] = '\0';
    end = strstr(c->head, "\r\n\r\n");
    if (end == NULL) {
        if (c->n == HEAD_MAX) {
            fail("a head of more than 16 KiB", NULL);
        }
        return false;
    }
    *end = '\0';
    if (strncmp(c->head, "HTTP/1.1 2", 10) != 0) {
        fail("an answer", c->head);
    }
    length = strcasestr(c->head, "\r\nContent-Length:");
    if (length == NULL && !bare) {
        fail("an answer without a Content-Length", c->head);
    }
    bytes = bare ? 0 : strtoull(length + 17, NULL, 10);
    body_n = c->n - (size_t)(end + 4 - c->head);
    if (body_n > bytes) {
        fail("more than the answer", NULL);
    }
    c->body_left = bytes - body_n;
    c->in_body = true;
    return c->body_left == 0;
}

static bool read_body(struct connection *c)
{
    size_t n = take(c, body, c->body_left < sizeof(body) ? (size_t)c->body_left : sizeof(body));

    c->body_left -= n;
    return n > 0 && c->body_left == 0;
}

/* Everything that is there; @return the answer has ended */
static bool answered(struct connection *c)
{
    do {
        if (c->in_body ? read_body(c) : read_head(c)) {
            return true;
        }
    } while (c->ssl != NULL && SSL_pending(c->ssl) > 0);
    return false;
}

static void count(int64_t ns)
{
    if (n_times == cap_times) {
        cap_times = cap_times > 0 ? cap_times * 2 : 1 << 16;
        times_us = realloc(times_us, cap_times * sizeof(*times_us));
        if (times_us == NULL) {
            fail("no memory", NULL);
        }
    }
    times_us[n_times++] = ns / 1000 < UINT32_MAX ? (uint32_t)(ns / 1000) : UINT32_MAX;
}

/* @return seconds until the last answer */
static double run(unsigned n, double seconds, double rate)
{
    int64_t begun = now_ns(), until = begun + (int64_t)(seconds * 1e9), now = begun;
    int64_t step = rate > 0 ? (int64_t)(1e9 / rate) : 0, due = begun;
    unsigned busy = 0;

    while (now < until || busy > 0) {
        struct timespec wait = {0};
        bool forever = true;

        for (unsigned i = 0; i < n && now < until; i++) {
            struct connection *c = &connections[i];

            if (!c->busy && (step == 0 || due <= now)) {
                ask(c, step == 0 ? now_ns() : due);
                due += step;
                busy++;
            }
        }
        if (step > 0 && now < until) {
            forever = due <= now; /* then all are busy */
            wait.tv_nsec = forever ? 0 : (due - now) % 1000000000;
            wait.tv_sec = forever ? 0 : (due - now) / 1000000000;
        }
        if (ppoll(polls, n, forever ? NULL : &wait, NULL) < 0) {
            fail("ppoll", strerror(errno));
        }
        for (unsigned i = 0; i < n; i++) {
            struct connection *c = &connections[i];

            if (c->busy && polls[i].revents != 0 && answered(c)) {
                count(now_ns() - c->due_ns);
                c->busy = false;
                busy--;
                if (step == 0 && now < until) { /* at once: the others are served meanwhile */
                    ask(c, now_ns());
                    busy++;
                }
            }
        }
        now = now_ns();
    }
    return (double)(now - begun) / 1e9;
}

int main(int argc, char **argv)
{
    unsigned n = 32;
    double seconds = 2, rate = 0, took;
    const char *method = "GET", *ca = NULL;
    struct sockaddr_in to = {0};
    SSL_CTX *tls = NULL;
    char *host, *path;
    int option;

    while ((option = getopt(argc, argv, "c:d:r:m:a:n:")) != -1) {
        switch (option) {
        case 'c':
            n = (unsigned)atoi(optarg);
            break;
        case 'd':
            seconds = atof(optarg);
            break;
        case 'r':
            rate = atof(optarg);
            break;
        case 'm':
            method = optarg;
            break;
        case 'a':
            ca = optarg;
            break;
        case 'n':
            numbers = (unsigned)atoi(optarg) % 10000000;
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc || n == 0 || n > CONNECTIONS_MAX) {
        fprintf(stderr, "usage: http_load [-c N] [-d SECONDS] [-r RATE] [-m METHOD] [-a CA] [-n N] "
                        "URL\n");
        return 2;
    }
    bare = strcmp(method, "HEAD") == 0;
    if (parse_url(argv[optind], &to, &host, &path)) {
        tls = SSL_CTX_new(TLS_client_method());
        if (tls == NULL || (ca != NULL && SSL_CTX_load_verify_locations(tls, ca, NULL) != 1)) {
            fail("CA file", ca);
        }
        SSL_CTX_set_verify(tls, ca != NULL ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    }
    make_request(method, path, host);
    for (unsigned i = 0; i < n; i++) {
        open_connection(&connections[i], &to, tls);
        polls[i] = (struct pollfd){connections[i].fd, POLLIN, 0};
    }
    took = run(n, seconds, rate);
    if (n_times == 0) {
        fail("no answer", NULL);
    }
    qsort(times_us, n_times, sizeof(*times_us), by_value);
    printf("{\"requests\": %zu, \"per_s\": %.1f, \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u}\n",
           n_times, (double)n_times / took, times_us[n_times / 2], times_us[n_times * 99 / 100],
           times_us[n_times - 1]);
    return 0;
}
