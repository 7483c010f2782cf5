/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/cache/http_fixture.h - a server of scripted bytes on loopback, one thread.
 *
 * A page is found by the request's target, and says which bytes go out and what happens after them.
 * Requests are kept for the test to look at.
 */
#ifndef TESTS_UNIT_CACHE_HTTP_FIXTURE_H
#define TESTS_UNIT_CACHE_HTTP_FIXTURE_H

#include "base/str.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum after { THEN_CLOSE, THEN_HANG, THEN_DRIP /* one byte each 50 ms, for ever */, THEN_KEEP };

struct page {
    const char *target;
    const char *bytes;
    size_t n; /* 0: strlen(bytes) */
    enum after after;
    unsigned times; /* served so often, then the next page of the same target; 0: always */
};

struct server {
    pthread_t thread;
    int listener, stop[2];
    uint16_t port;
    pthread_mutex_t mutex;
    struct page pages[64];
    unsigned served[64];
    size_t n_pages;
    char requests[65536]; /* all of them, one after the other */
    size_t n_bytes;
    char *copies[256]; /* of targets and bytes: they outlive the test's own */
    size_t n_copies;
    atomic_uint n_requests, n_connections, n_visits;
};

/* false: nothing for it. */
static inline bool page_of(struct server *s, const char *request, struct page *out)
{
    const char *at = strchr(request, ' ');
    bool found = false;

    pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; at != NULL && i < s->n_pages && !found; i++) {
        size_t n = strlen(s->pages[i].target);

        if (strncmp(at + 1, s->pages[i].target, n) == 0 && at[1 + n] == ' ' &&
            (s->pages[i].times == 0 || s->served[i] < s->pages[i].times)) {
            s->served[i]++;
            *out = s->pages[i];
            found = true;
        }
    }
    if (s->n_bytes + strlen(request) < sizeof(s->requests)) {
        memcpy(s->requests + s->n_bytes, request, strlen(request) + 1);
        s->n_bytes += strlen(request);
    }
    pthread_mutex_unlock(&s->mutex);
    atomic_fetch_add(&s->n_requests, 1);
    return found;
}

static inline bool stopped(struct server *s, int ms)
{
    struct pollfd p = {.fd = s->stop[0], .events = POLLIN};

    return poll(&p, 1, ms) > 0;
}

struct visit {
    struct server *s;
    int fd;
};

static inline void send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent <= 0) {
            return;
        }
        p += sent;
        n -= (size_t)sent;
    }
}

static inline void *serve(void *arg)
{
    struct visit v = *(struct visit *)arg;
    struct page found;
    char request[16384];
    bool have;
    size_t n;

    free(arg);
    do {
        have = false;
        n = 0;
        while (n < sizeof(request) - 1) {
            struct pollfd p[2] = {{.fd = v.fd, .events = POLLIN},
                                  {.fd = v.s->stop[0], .events = POLLIN}};
            ssize_t got;

            poll(p, 2, -1);
            got = p[1].revents != 0 ? 0 : recv(v.fd, request + n, sizeof(request) - 1 - n, 0);
            if (got <= 0) {
                break;
            }
            n += (size_t)got;
            request[n] = '\0';
            if (strstr(request, "\r\n\r\n") != NULL) {
                have = page_of(v.s, request, &found);
                break;
            }
        }
        if (have) {
            send_all(v.fd, found.bytes, found.n);
            if (found.after == THEN_HANG) {
                stopped(v.s, -1);
            }
            while (found.after == THEN_DRIP && !stopped(v.s, 50)) {
                send_all(v.fd, "x", 1);
            }
        }
    } while (have && found.after == THEN_KEEP);
    shutdown(v.fd, SHUT_WR);
    close(v.fd);
    atomic_fetch_sub(&v.s->n_visits, 1);
    return NULL;
}

static inline void *accept_all(void *arg)
{
    struct server *s = arg;

    for (;;) {
        struct pollfd p[2] = {{.fd = s->listener, .events = POLLIN},
                              {.fd = s->stop[0], .events = POLLIN}};
        struct visit *v;
        pthread_attr_t attr;
        pthread_t t;

        poll(p, 2, -1);
        if (p[1].revents != 0) {
            return NULL;
        }
        v = malloc(sizeof(*v));
        atomic_fetch_add(&s->n_visits, 1);
        v->s = s;
        v->fd = accept(s->listener, NULL, NULL);
        atomic_fetch_add(&s->n_connections, 1);
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_create(&t, &attr, serve, v);
        pthread_attr_destroy(&attr);
    }
}

static inline void server_start(struct server *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(a);

    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->mutex, NULL);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(s->listener, 64), 0);
    getsockname(s->listener, (struct sockaddr *)&a, &n);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pipe(s->stop), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, accept_all, s), 0);
}

static inline const char *copied(struct server *s, const char *p, size_t n)
{
    char *copy = malloc(n + 1);

    assert_true(copy != NULL && s->n_copies < sizeof(s->copies) / sizeof(s->copies[0]));
    memcpy(copy, p, n);
    copy[n] = '\0';
    return s->copies[s->n_copies++] = copy;
}

static inline void server_page(struct server *s, struct page page)
{
    pthread_mutex_lock(&s->mutex);
    assert_true(s->n_pages < sizeof(s->pages) / sizeof(s->pages[0]));
    page.n = page.n != 0 ? page.n : strlen(page.bytes);
    page.bytes = copied(s, page.bytes, page.n);
    page.target = copied(s, page.target, strlen(page.target));
    s->pages[s->n_pages++] = page;
    pthread_mutex_unlock(&s->mutex);
}

static inline void page_then(struct server *s, const char *target, const char *bytes,
                             enum after after)
{
    server_page(s, (struct page){.target = target, .bytes = bytes, .after = after});
}

static inline void page(struct server *s, const char *target, const char *bytes)
{
    page_then(s, target, bytes, THEN_CLOSE);
}

/* Forgets pages and requests. */
static inline void server_clear(struct server *s)
{
    pthread_mutex_lock(&s->mutex);
    s->n_pages = s->n_bytes = 0;
    memset(s->served, 0, sizeof(s->served));
    s->requests[0] = '\0';
    atomic_store(&s->n_requests, 0);
    pthread_mutex_unlock(&s->mutex);
}

static inline void server_stop(struct server *s)
{
    if (write(s->stop[1], "x", 1) != 1) {
        abort();
    }
    pthread_join(s->thread, NULL);
    close(s->listener);
    while (atomic_load(&s->n_visits) != 0) { /* they see the same byte */
        usleep(1000);
    }
    while (s->n_copies != 0) {
        free(s->copies[--s->n_copies]);
    }
    close(s->stop[0]);
    close(s->stop[1]);
    pthread_mutex_destroy(&s->mutex);
}

#endif
