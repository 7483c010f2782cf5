/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/auth/fake_ldap.h - a directory that answers what a test wants: a listener, a thread
 * per connection, canned BER.
 *
 * A test gives on_request; it sees one whole request and sends what it likes. Everything that came
 * in is kept.
 */
#ifndef TESTS_FAKE_LDAP_H
#define TESTS_FAKE_LDAP_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OP_BIND 0x60
#define OP_UNBIND 0x42
#define OP_SEARCH 0x63
#define OP_EXTENDED 0x77

/* ---- BER ---- */

struct ber {
    size_t n;
    uint8_t p[32768];
};

static inline void ber_bytes(struct ber *b, const void *p, size_t n)
{
    if (b->n + n > sizeof(b->p)) {
        abort();
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void ber_tlv(struct ber *b, uint8_t tag, const void *p, size_t n)
{
    uint8_t head[4] = {tag, 0x82, (uint8_t)(n >> 8), (uint8_t)n};

    if (n < 128) {
        head[1] = (uint8_t)n;
        ber_bytes(b, head, 2);
    } else {
        ber_bytes(b, head, 4);
    }
    ber_bytes(b, p, n);
}

static inline void ber_text(struct ber *b, uint8_t tag, const char *s)
{
    ber_tlv(b, tag, s, strlen(s));
}

static inline void ber_small(struct ber *b, uint8_t tag, int v)
{
    uint8_t byte = (uint8_t)v;

    ber_tlv(b, tag, &byte, 1);
}

/* LDAPMessage { id, op { body } } and, if any, controls */
static inline void ber_message(struct ber *b, int id, uint8_t op, const struct ber *body,
                               const struct ber *controls)
{
    struct ber *in = calloc(1, sizeof(*in));

    ber_small(in, 0x02, id);
    ber_tlv(in, op, body->p, body->n);
    if (controls != NULL) {
        ber_tlv(in, 0xa0, controls->p, controls->n);
    }
    ber_tlv(b, 0x30, in->p, in->n);
    free(in);
}

/* LDAPResult: code, matched, text */
static inline void ber_result(struct ber *body, int code)
{
    ber_small(body, 0x0a, code);
    ber_text(body, 0x04, "");
    ber_text(body, 0x04, code == 0 ? "" : "text of the server, pw-of-alice");
}

/* ---- the server ---- */

struct fake;
struct request {
    int conn; /* 0, 1, 2 ... in the order of accept */
    int fd;
    int id;
    uint8_t op;
    const uint8_t *pdu;
    size_t n;
};

typedef bool (*on_request_fn)(struct fake *f,
                              const struct request *r); /* false: close the connection */

struct fake {
    int listener;
    uint16_t port;
    on_request_fn on_request; /* NULL: accept and stay silent */
    pthread_t thread;
    atomic_int connections, binds, searches, extended, unbinds, others;
    atomic_bool stop;
    pthread_mutex_t lock;
    size_t n_got;
    uint8_t got[262144]; /* everything that came in, of all connections */
    int n_threads;
    pthread_t threads[64];
    void *data; /* of the test */
};

struct fake_conn {
    struct fake *f;
    int fd, number;
};

static inline void send_bytes(int fd, const void *p, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
        if (done <= 0) {
            return;
        }
        p = (const char *)p + done;
        n -= (size_t)done;
    }
}

/* 1: readable; 0: the test is over, and nothing is left of what came before that */
static inline int wait_readable(struct fake *f, int fd)
{
    for (;;) {
        bool over = atomic_load(&f->stop);
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, over ? 0 : 10) > 0) {
            return 1;
        }
        if (over) {
            return 0;
        }
    }
}

static inline bool read_bytes(struct fake *f, int fd, uint8_t *p, size_t n)
{
    while (n > 0) {
        if (!wait_readable(f, fd)) {
            return false;
        }
        ssize_t got = recv(fd, p, n, 0);
        if (got <= 0) {
            return false;
        }
        pthread_mutex_lock(&f->lock);
        if (f->n_got + (size_t)got <= sizeof(f->got)) {
            memcpy(f->got + f->n_got, p, (size_t)got);
            f->n_got += (size_t)got;
        }
        pthread_mutex_unlock(&f->lock);
        p += got;
        n -= (size_t)got;
    }
    return true;
}

/* One PDU: 30 LEN 02 01 ID OP ...; false at the end of the connection, or what is not LDAP (a TLS
 * hello) */
static inline bool read_request(struct fake *f, int fd, uint8_t *pdu, size_t cap, struct request *r)
{
    size_t head = 2, n;

    if (!read_bytes(f, fd, pdu, 2) || pdu[0] != 0x30) {
        return false;
    }
    n = pdu[1];
    if (n & 0x80) {
        size_t more = n & 0x7f;
        if (more > 3 || !read_bytes(f, fd, pdu + 2, more)) {
            return false;
        }
        n = 0;
        for (size_t i = 0; i < more; i++) {
            n = n << 8 | pdu[2 + i];
        }
        head += more;
    }
    if (head + n > cap || n < 5 || !read_bytes(f, fd, pdu + head, n) || pdu[head] != 0x02 ||
        pdu[head + 1] != 1) {
        return false;
    }
    r->id = pdu[head + 2];
    r->op = pdu[head + 3];
    r->pdu = pdu;
    r->n = head + n;
    return true;
}

static inline void *serve(void *arg)
{
    struct fake_conn c = *(struct fake_conn *)arg;
    struct request r = {.conn = c.number, .fd = c.fd};
    static const size_t cap = 262144;
    uint8_t *pdu = malloc(cap);
    bool on = true;

    free(arg);
    while (on && c.f->on_request != NULL && read_request(c.f, c.fd, pdu, cap, &r)) {
        atomic_fetch_add(r.op == OP_BIND       ? &c.f->binds
                         : r.op == OP_SEARCH   ? &c.f->searches
                         : r.op == OP_EXTENDED ? &c.f->extended
                         : r.op == OP_UNBIND   ? &c.f->unbinds
                                               : &c.f->others,
                         1);
        on = r.op != OP_UNBIND && c.f->on_request(c.f, &r);
    }
    /* what else the client says is kept until it leaves; a connection that is to be closed is
     * closed */
    while (on && read_bytes(c.f, c.fd, pdu, 1)) {
    }
    close(c.fd);
    free(pdu);
    return NULL;
}

static inline void *accept_all(void *arg)
{
    struct fake *f = arg;

    while (wait_readable(f, f->listener)) {
        int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 || f->n_threads == 64) {
            if (fd >= 0) {
                close(fd);
            }
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct fake_conn *c = malloc(sizeof(*c));
        *c = (struct fake_conn){f, fd, atomic_fetch_add(&f->connections, 1)};
        if (pthread_create(&f->threads[f->n_threads], NULL, serve, c) == 0) {
            f->n_threads++;
        } else {
            close(fd);
            free(c);
        }
    }
    return NULL;
}

static inline int listen_on_loopback(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) != 0) {
        abort();
    }
    *port = ntohs(a.sin_port);
    return fd;
}

static inline struct fake *fake_start(on_request_fn on_request, void *data)
{
    struct fake *f = calloc(1, sizeof(*f));

    f->on_request = on_request;
    f->data = data;
    f->listener = listen_on_loopback(&f->port);
    pthread_mutex_init(&f->lock, NULL);
    if (pthread_create(&f->thread, NULL, accept_all, f) != 0) {
        abort();
    }
    return f;
}

/* Ends its threads; what was counted and got may then be read without a lock. */
static inline void fake_stop(struct fake *f)
{
    atomic_store(&f->stop, true);
    pthread_join(f->thread, NULL);
    for (int i = 0; i < f->n_threads; i++) {
        pthread_join(f->threads[i], NULL);
    }
    close(f->listener);
}

static inline bool fake_saw(const struct fake *f, const char *text)
{
    return f->n_got > 0 && memmem(f->got, f->n_got, text, strlen(text)) != NULL;
}

static inline void fake_free(struct fake *f)
{
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ---- answers ---- */

static inline void answer(const struct request *r, uint8_t op, int code)
{
    struct ber *b = calloc(2, sizeof(*b));

    ber_result(&b[1], code);
    ber_message(&b[0], r->id, op, &b[1], NULL);
    send_bytes(r->fd, b[0].p, b[0].n);
    free(b);
}

/* attrs: name, value, name, value ..., NULL; the same name again adds a value. Values are C
 * strings. */
static inline void answer_entry(const struct request *r, const char *dn, size_t dn_len,
                                const char *const *attrs)
{
    struct ber *b = calloc(5, sizeof(*b));

    ber_tlv(&b[1], 0x04, dn, dn_len);
    for (size_t i = 0; attrs[i] != NULL;) {
        size_t j = i;
        b[3].n = b[4].n = 0;
        for (; attrs[j] != NULL && strcmp(attrs[j], attrs[i]) == 0; j += 2) {
            ber_text(&b[4], 0x04, attrs[j + 1]);
        }
        ber_text(&b[3], 0x04, attrs[i]);
        ber_tlv(&b[3], 0x31, b[4].p, b[4].n);
        ber_tlv(&b[2], 0x30, b[3].p, b[3].n);
        i = j;
    }
    ber_tlv(&b[1], 0x30, b[2].p, b[2].n);
    ber_message(&b[0], r->id, 0x64, &b[1], NULL);
    send_bytes(r->fd, b[0].p, b[0].n);
    free(b);
}

static inline void answer_reference(const struct request *r, const char *url)
{
    struct ber *b = calloc(2, sizeof(*b));

    ber_text(&b[1], 0x04, url);
    ber_message(&b[0], r->id, 0x73, &b[1], NULL);
    send_bytes(r->fd, b[0].p, b[0].n);
    free(b);
}

#endif
