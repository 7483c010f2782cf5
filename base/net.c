/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/net.c - a non-blocking socket whose every wait is one poll against one absolute deadline.
 *
 * The socket is never made blocking and OpenSSL never touches it: its BIO is ours, so that a peer
 * that stops in the middle of anything (auth-policy 1.1, rows 5 and 8 to 11) costs the deadline and
 * no more, and a send to a dead peer gives EPIPE, not SIGPIPE.
 */
#include "base/net.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_MAX 253u /* a DNS name */

struct gw_conn {
    int fd;
    int64_t deadline_ms;
    bool broken; /* nothing may be sent or read any more */
    bool secure; /* the handshake is done and its certificate is right */
    bool eof;    /* the peer closed its side, seen below TLS */
    int sys;     /* errno of the last failed recv or send below TLS */
    SSL_CTX *ctx;
    SSL *ssl;
    BIO_METHOD *method;
    char peer[96]; /* "host:port" for messages */
};

/* ---- waiting ---- */

static int fail_timeout(const struct gw_conn *c, const char *doing, struct gw_error *err)
{
    return gw_fail(err, GW_TIMEOUT, ETIMEDOUT, "%s: no end of %s before the deadline", c->peer,
                   doing);
}

static int fail_sys(const struct gw_conn *c, const char *doing, int sys, struct gw_error *err)
{
    return gw_fail(err, GW_UNAVAILABLE, sys, "%s: %s: %s", c->peer, doing, strerrordesc_np(sys));
}

static int wait_for(const struct gw_conn *c, short events, int64_t deadline_ms, const char *doing,
                    struct gw_error *err)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = events};
        int64_t left = deadline_ms - gw_mono_ms();
        int n;

        if (left <= 0) {
            return fail_timeout(c, doing, err);
        }
        n = poll(&p, 1, left < INT_MAX ? (int)left : INT_MAX);
        if (n > 0) {
            return GW_OK; /* errors and hang-ups too: the next call tells which */
        }
        if (n < 0 && errno != EINTR) {
            return fail_sys(c, doing, errno, err);
        }
    }
}

/* ---- names and addresses ---- */

static bool copy_name(char *out, size_t cap, struct gw_str name)
{
    if (name.n == 0 || name.n >= cap || memchr(name.p, '\0', name.n) != NULL) {
        return false;
    }
    memcpy(out, name.p, name.n);
    out[name.n] = '\0';
    return true;
}

static bool is_address(const char *host)
{
    struct in6_addr a;

    return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

static int look_up(struct gw_str host, uint16_t port, int flags, struct addrinfo **out,
                   struct gw_error *err)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    char name[HOST_MAX + 2], service[8];
    int rc;

    if (!copy_name(name, sizeof(name), host)) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "not a host name or address");
    }
    if (is_address(name)) {
        hints.ai_flags |= AI_NUMERICHOST;
    }
    snprintf(service, sizeof(service), "%u", (unsigned)port);
    rc = getaddrinfo(name, service, &hints, out);
    if (rc == EAI_MEMORY) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: %s", name, gai_strerror(rc));
    }
    if (rc != 0) {
        /* never GW_NOT_FOUND: a name that the resolver does not know today is an outage, not a
         * missing thing */
        return gw_fail(err, GW_UNAVAILABLE, rc == EAI_SYSTEM ? errno : 0, "%s: %s", name,
                       rc == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(rc));
    }
    return GW_OK;
}

int gw_resolve(struct gw_str host, char *buf, size_t cap, struct gw_error *err)
{
    char text[NI_MAXHOST];
    struct addrinfo *list;
    int rc = look_up(host, 0, AI_ADDRCONFIG, &list, err);
    size_t n;

    if (rc != GW_OK) {
        return rc;
    }
    rc = getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
    freeaddrinfo(list);
    if (rc != 0) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "no text for an address: %s", gai_strerror(rc));
    }
    n = strlen(text);
    if (n >= cap) {
        return gw_fail(err, GW_TOO_LARGE, 0, "an address needs %zu bytes", n + 1);
    }
    memcpy(buf, text, n + 1);
    return GW_OK;
}

/* ---- TCP ---- */

static void set_options(int fd)
{
    const int on = 1, idle = 60, interval = 10, count = 3;

    /* an idle pooled connection that a firewall forgot is noticed (auth-policy 1.2); failing is
     * harmless */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static int connect_one(struct gw_conn *c, const struct addrinfo *a, int64_t deadline_ms,
                       struct gw_error *err)
{
    int sys = 0, rc;
    socklen_t n = sizeof(sys);

    c->fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
    if (c->fd < 0) {
        return fail_sys(c, "socket", errno, err);
    }
    set_options(c->fd);
    if (connect(c->fd, a->ai_addr, a->ai_addrlen) == 0) {
        return GW_OK;
    }
    if (errno != EINPROGRESS && errno != EINTR) {
        rc = fail_sys(c, "connect", errno, err);
    } else {
        rc = wait_for(c, POLLOUT, deadline_ms, "connect", err);
    }
    if (rc == GW_OK) {
        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &sys, &n) != 0) {
            sys = errno;
        }
        if (sys != 0) {
            rc = fail_sys(c, "connect", sys, err);
        }
    }
    if (rc != GW_OK) {
        close(c->fd);
        c->fd = -1;
    }
    return rc;
}

/* Each address gets its share of the time that is left, so that a silent first one does not use it
 * up. */
static int connect_any(struct gw_conn *c, const struct addrinfo *list, struct gw_error *err)
{
    int rc = GW_UNAVAILABLE;
    int64_t left = 0;

    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        left++;
    }
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next, left--) {
        int64_t now = gw_mono_ms(), share = (c->deadline_ms - now) / left;

        rc = connect_one(c, a, left == 1 ? c->deadline_ms : now + share, err);
        if (rc == GW_OK) {
            break;
        }
    }
    return rc;
}

int gw_conn_dial(struct gw_conn **out, const struct gw_dial *d, struct gw_error *err)
{
    struct addrinfo *list = NULL;
    struct gw_conn *c = gw_alloc(sizeof(*c));
    bool given = d->address.n != 0;
    int rc;

    if (c == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a connection");
    }
    c->fd = -1;
    c->deadline_ms = d->deadline_ms;
    snprintf(c->peer, sizeof(c->peer), "%.*s:%u", d->host.n < 80 ? (int)d->host.n : 80,
             d->host.n != 0 ? d->host.p : "", (unsigned)d->port);
    rc = look_up(given ? d->address : d->host, d->port, given ? AI_NUMERICHOST : AI_ADDRCONFIG,
                 &list, err);
    if (rc == GW_OK) {
        rc = connect_any(c, list, err);
        freeaddrinfo(list);
    }
    if (rc != GW_OK) {
        gw_conn_close(c);
        return rc;
    }
    *out = c;
    return GW_OK;
}

void gw_conn_deadline(struct gw_conn *c, int64_t deadline_ms)
{
    c->deadline_ms = deadline_ms;
}

bool gw_conn_is_tls(const struct gw_conn *c)
{
    return c->ssl != NULL;
}

int gw_conn_fd(const struct gw_conn *c)
{
    return c->fd;
}

/* ---- the BIO between OpenSSL and the socket ---- */

static int bio_failed(BIO *bio, struct gw_conn *c, int retry_flags)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        BIO_set_flags(bio, retry_flags | BIO_FLAGS_SHOULD_RETRY);
    } else {
        c->sys = errno;
    }
    return -1;
}

static int bio_read(BIO *bio, char *p, int n)
{
    struct gw_conn *c = BIO_get_data(bio);
    ssize_t got = recv(c->fd, p, (size_t)n, 0);

    BIO_clear_retry_flags(bio);
    if (got < 0) {
        return bio_failed(bio, c, BIO_FLAGS_READ);
    }
    if (got == 0) {
        c->eof = true;
    }
    return (int)got;
}

static int bio_write(BIO *bio, const char *p, int n)
{
    struct gw_conn *c = BIO_get_data(bio);
    ssize_t done = send(c->fd, p, (size_t)n, MSG_NOSIGNAL);

    BIO_clear_retry_flags(bio);
    return done < 0 ? bio_failed(bio, c, BIO_FLAGS_WRITE) : (int)done;
}

static long bio_ctrl(BIO *bio, int cmd, long arg, void *p)
{
    const struct gw_conn *c = BIO_get_data(bio);

    switch (cmd) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return c->eof;
    default:
        return 0;
    }
}

/* ---- TLS ---- */

/* What went wrong below an SSL call that cannot go on. */
static int fail_tls(struct gw_conn *c, const char *doing, struct gw_error *err)
{
    long verified = SSL_get_verify_result(c->ssl);
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);

    c->broken = true;
    ERR_clear_error();
    if (verified != X509_V_OK) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "%s: %s: certificate: %s", c->peer, doing,
                       X509_verify_cert_error_string(verified));
    }
    if (c->sys != 0) {
        return fail_sys(c, doing, c->sys, err);
    }
    if (c->eof) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "%s: %s: the peer closed the connection", c->peer,
                       doing);
    }
    return gw_fail(err, GW_UNAVAILABLE, 0, "%s: %s: %s", c->peer, doing,
                   reason != NULL ? reason : "unknown TLS failure");
}

/* After an SSL call that returned ok <= 0. @return GW_OK: waited, call it again; GW_NOT_FOUND: the
 * peer closed */
static int settle(struct gw_conn *c, int ok, const char *doing, struct gw_error *err)
{
    switch (SSL_get_error(c->ssl, ok)) {
    case SSL_ERROR_WANT_READ:
        return wait_for(c, POLLIN, c->deadline_ms, doing, err);
    case SSL_ERROR_WANT_WRITE:
        return wait_for(c, POLLOUT, c->deadline_ms, doing, err);
    case SSL_ERROR_ZERO_RETURN:
        return GW_NOT_FOUND;
    default:
        if (c->eof && c->sys == 0 && c->secure) {
            /* without close_notify, as many servers do: the protocols above frame their messages */
            c->broken = true;
            return GW_NOT_FOUND;
        }
        return fail_tls(c, doing, err);
    }
}

static int load_ca(SSL_CTX *ctx, const char *ca_file, struct gw_error *err)
{
    unsigned long code;
    const char *reason;

    ERR_clear_error();
    if (ca_file == NULL ? SSL_CTX_set_default_verify_paths(ctx) == 1
                        : SSL_CTX_load_verify_file(ctx, ca_file) == 1) {
        return GW_OK;
    }
    code = ERR_peek_error(); /* the first one knows the errno */
    reason = ERR_SYSTEM_ERROR(code) ? strerrordesc_np(ERR_GET_REASON(code))
                                    : ERR_reason_error_string(code);
    ERR_clear_error();
    return gw_fail(err, GW_UNAVAILABLE, 0, "CA file %s: %s",
                   ca_file != NULL ? ca_file : "of the system",
                   reason != NULL ? reason : "cannot be read");
}

static int make_ctx(struct gw_conn *c, const char *ca_file, struct gw_error *err)
{
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (c->ctx == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for TLS", c->peer);
    }
    /* openssl.cnf may ask for more, never for less */
    if (SSL_CTX_get_min_proto_version(c->ctx) < TLS1_2_VERSION &&
        SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION) != 1) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "%s: this OpenSSL has no TLS 1.2", c->peer);
    }
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* else SSL_read goes on by itself while a peer sends records that carry no data, past the
     * deadline */
    SSL_CTX_clear_mode(c->ctx, SSL_MODE_AUTO_RETRY);
    return load_ca(c->ctx, ca_file, err);
}

/* The name that is verified. A name with a final dot is the same host, but no certificate has it.
 */
static int expect_host(struct gw_conn *c, struct gw_str host, struct gw_error *err)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(c->ssl);
    char name[HOST_MAX + 2];
    size_t n;

    /* an empty name would switch the check off */
    if (!copy_name(name, sizeof(name), host) || strcmp(name, ".") == 0) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "%s: no host name to verify", c->peer);
    }
    if (is_address(name)) {
        if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1) {
            return GW_OK;
        }
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for TLS", c->peer);
    }
    n = strlen(name);
    if (name[n - 1] == '.') {
        name[--n] = '\0';
    }
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_host(param, name, n) != 1 ||
        SSL_set_tlsext_host_name(c->ssl, name) != 1) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "%s: this host name cannot be verified", c->peer);
    }
    return GW_OK;
}

static int make_bio(struct gw_conn *c, struct gw_error *err)
{
    BIO *bio;

    c->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "hubgate socket");
    if (c->method == NULL || BIO_meth_set_read(c->method, bio_read) != 1 ||
        BIO_meth_set_write(c->method, bio_write) != 1 ||
        BIO_meth_set_ctrl(c->method, bio_ctrl) != 1 || (bio = BIO_new(c->method)) == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for TLS", c->peer);
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(c->ssl, bio, bio); /* owns it now */
    return GW_OK;
}

static int shake_hands(struct gw_conn *c, struct gw_error *err)
{
    for (;;) {
        int ok, rc;

        ERR_clear_error();
        ok = SSL_connect(c->ssl);
        if (ok == 1) {
            break;
        }
        rc = settle(c, ok, "TLS handshake", err);
        if (rc != GW_OK) {
            return rc == GW_NOT_FOUND ? fail_tls(c, "TLS handshake", err) : rc;
        }
    }
    /* SSL_VERIFY_PEER has seen to this; it is said once more because everything hangs on it */
    if (SSL_get_verify_result(c->ssl) != X509_V_OK || SSL_get0_peer_certificate(c->ssl) == NULL) {
        return fail_tls(c, "TLS handshake", err);
    }
    return GW_OK;
}

int gw_conn_start_tls(struct gw_conn *c, const struct gw_dial *d, struct gw_error *err)
{
    int rc;

    if (c->broken || c->ssl != NULL) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "%s: TLS cannot begin here", c->peer);
    }
    if (gw_conn_pending(c)) {
        /* a TLS server never speaks first: these bytes were put there to be read as if they were
         * protected */
        c->broken = true;
        return gw_fail(err, GW_UNAVAILABLE, 0, "%s: bytes before TLS, or the peer closed", c->peer);
    }
    rc = make_ctx(c, d->ca_file, err);
    if (rc == GW_OK && (c->ssl = SSL_new(c->ctx)) == NULL) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for TLS", c->peer);
    }
    if (rc == GW_OK) {
        rc = make_bio(c, err);
    }
    if (rc == GW_OK) {
        rc = expect_host(c, d->host, err);
    }
    if (rc == GW_OK) {
        rc = shake_hands(c, err);
    }
    c->secure = rc == GW_OK;
    c->broken = rc != GW_OK;
    return rc;
}

/* ---- reading and writing ---- */

static bool is_usable(const struct gw_conn *c, const char *doing, struct gw_error *err)
{
    if (c->broken) {
        gw_fail(err, GW_UNAVAILABLE, 0, "%s: %s after a failure", c->peer, doing);
        return false;
    }
    if (gw_mono_ms() >= c->deadline_ms) {
        fail_timeout(c, doing, err);
        return false;
    }
    return true;
}

static ptrdiff_t read_tls(struct gw_conn *c, void *p, size_t n, struct gw_error *err)
{
    for (;;) {
        size_t got;
        int ok, rc;

        ERR_clear_error();
        ok = SSL_read_ex(c->ssl, p, n, &got);
        if (ok == 1) {
            return (ptrdiff_t)got;
        }
        rc = settle(c, ok, "read", err);
        if (rc != GW_OK) {
            return rc == GW_NOT_FOUND ? 0 : -1;
        }
    }
}

static ptrdiff_t read_plain(struct gw_conn *c, void *p, size_t n, struct gw_error *err)
{
    for (;;) {
        ssize_t got = recv(c->fd, p, n, 0);

        if (got >= 0) {
            return got;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (wait_for(c, POLLIN, c->deadline_ms, "read", err) != GW_OK) {
                return -1;
            }
        } else if (errno != EINTR) {
            fail_sys(c, "read", errno, err);
            c->broken = true;
            return -1;
        }
    }
}

ptrdiff_t gw_conn_read(struct gw_conn *c, void *p, size_t n, struct gw_error *err)
{
    if (!is_usable(c, "read", err)) {
        return -1;
    }
    if (n == 0 || n > PTRDIFF_MAX) {
        gw_fail(err, GW_INVALID, 0, "%s: read of %zu bytes", c->peer, n);
        return -1;
    }
    return c->ssl != NULL ? read_tls(c, p, n, err) : read_plain(c, p, n, err);
}

/* Some of n bytes. @return GW_OK, *done bytes (0: waited) */
static int write_some(struct gw_conn *c, const char *p, size_t n, size_t *done,
                      struct gw_error *err)
{
    ssize_t sent;
    int ok, rc;

    *done = 0;
    if (c->ssl != NULL) {
        ERR_clear_error();
        ok = SSL_write_ex(c->ssl, p, n, done);
        rc = ok == 1 ? GW_OK : settle(c, ok, "write", err);
        return rc == GW_NOT_FOUND ? fail_tls(c, "write", err) : rc;
    }
    sent = send(c->fd, p, n, MSG_NOSIGNAL);
    if (sent >= 0) {
        *done = (size_t)sent;
        return GW_OK;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return wait_for(c, POLLOUT, c->deadline_ms, "write", err);
    }
    return errno == EINTR ? GW_OK : fail_sys(c, "write", errno, err);
}

ptrdiff_t gw_conn_write(struct gw_conn *c, const void *p, size_t n, struct gw_error *err)
{
    const char *at = p;
    size_t left = n;

    if (n > PTRDIFF_MAX) {
        gw_fail(err, GW_INVALID, 0, "%s: write of %zu bytes", c->peer, n);
        return -1;
    }
    while (left != 0) {
        size_t done;

        if (!is_usable(c, "write", err) || write_some(c, at, left, &done, err) != GW_OK) {
            c->broken = true; /* a part may be out: what follows would be read as its rest */
            return -1;
        }
        at += done;
        left -= done;
    }
    return (ptrdiff_t)n;
}

static bool is_readable(const struct gw_conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN | POLLRDHUP};

    return poll(&p, 1, 0) != 0;
}

bool gw_conn_pending(const struct gw_conn *c)
{
    if (c->broken) {
        return true;
    }
    if (c->ssl == NULL) {
        return is_readable(c);
    }
    /* records may wait that carry no bytes for us: TLS 1.3 session tickets */
    for (int i = 0; i < 16; i++) {
        char byte;
        size_t got;
        int ok;

        ERR_clear_error();
        ok = SSL_peek_ex(c->ssl, &byte, 1, &got);
        if (ok == 1 || SSL_get_error(c->ssl, ok) != SSL_ERROR_WANT_READ) {
            ERR_clear_error();
            return true;
        }
        if (!is_readable(c)) {
            return false;
        }
    }
    return true;
}

void gw_conn_close(struct gw_conn *c)
{
    if (c == NULL) {
        return;
    }
    if (c->ssl != NULL && !c->broken) {
        ERR_clear_error();
        SSL_shutdown(c->ssl); /* one try at close_notify, no wait for the answer */
        ERR_clear_error();
    }
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    BIO_meth_free(c->method);
    if (c->fd >= 0) {
        close(c->fd);
    }
    gw_free(c);
}
