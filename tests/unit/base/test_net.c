/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each test is a server thread that behaves in one way, and a client that must end as the header
 * says. Deadlines are conditions: GW_TIMEOUT comes at the deadline, not before it, and not so late
 * that something else must have ended it.
 */
#include "base/clock.h"
#include "base/net.h"
#include "tests/unit/failing.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SHORT_MS 150  /* the deadline of a call that must run into it */
#define LONG_MS 20000 /* of a call that must not */

static struct gw_error e;

/* ---- certificates: made once, no file of the repository expires ---- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

static struct identity ca, other_ca, good, expired, strange, self_signed;
static char ca_file[64], other_ca_file[64];

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509_EXTENSION *ext;
    X509V3_CTX ctx;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static struct identity make_identity(const char *cn, const char *san, long from_s, long to_s,
                                     const struct identity *issuer)
{
    static long serial = 1;
    struct identity id = {EVP_EC_gen("P-256"), X509_new()};
    X509_NAME *subject = X509_get_subject_name(id.cert);

    assert_non_null(id.key);
    X509_set_version(id.cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), from_s);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), to_s);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
    X509_set_pubkey(id.cert, id.key);
    X509_set_issuer_name(id.cert, issuer ? X509_get_subject_name(issuer->cert) : subject);
    if (san == NULL) {
        add_extension(id.cert, id.cert, NID_basic_constraints, "critical,CA:TRUE");
    } else {
        add_extension(id.cert, issuer ? issuer->cert : id.cert, NID_subject_alt_name, san);
    }
    assert_true(X509_sign(id.cert, issuer ? issuer->key : id.key, EVP_sha256()) > 0);
    return id;
}

static void write_pem(char path[64], X509 *cert)
{
    FILE *f;
    int fd;

    strcpy(path, "/tmp/hubgate-test-net-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    f = fdopen(fd, "w");
    assert_int_equal(PEM_write_X509(f, cert), 1);
    fclose(f);
}

static int make_certificates(void **state)
{
    static const char san[] = "DNS:ldap.corp.example,DNS:*.wild.example,IP:127.0.0.1";
    const long day = 86400;

    ca = make_identity("CA", NULL, -day, day, NULL);
    other_ca = make_identity("Other CA", NULL, -day, day, NULL);
    good = make_identity("good", san, -day, day, &ca);
    expired = make_identity("expired", san, -2 * day, -day, &ca);
    strange = make_identity("strange", san, -day, day, &other_ca);
    self_signed = make_identity("self", san, -day, day, NULL);
    write_pem(ca_file, ca.cert);
    write_pem(other_ca_file, other_ca.cert);
    return 0;
}

static int free_certificates(void **state)
{
    struct identity *all[] = {&ca, &other_ca, &good, &expired, &strange, &self_signed};

    for (size_t i = 0; i < COUNT(all); i++) {
        EVP_PKEY_free(all[i]->key);
        X509_free(all[i]->cert);
    }
    unlink(ca_file);
    unlink(other_ca_file);
    return 0;
}

/* ---- the server ---- */

struct server {
    int fd, stopping[2];
    uint16_t port;
    pthread_t thread;
    void (*serve)(struct server *s, int fd);
    const struct identity *identity;
    int max_version;
    char sni[64];
    size_t received; /* bytes, by those who count */
};

static void *run_server(void *ctx)
{
    struct server *s = ctx;
    int fd = accept(s->fd, NULL, NULL);

    if (fd >= 0) {
        s->serve(s, fd);
        close(fd);
    }
    return NULL;
}

static void start_on(struct server *s, int backlog)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);

    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->fd, backlog), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &n), 0);
    s->port = ntohs(a.sin_port);
}

static void start(struct server *s, void (*serve)(struct server *, int))
{
    start_on(s, 8);
    s->serve = serve;
    assert_int_equal(pipe(s->stopping), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, run_server, s), 0);
}

static void stop(struct server *s)
{
    shutdown(s->fd, SHUT_RDWR); /* wakes accept, if the client never came */
    close(s->stopping[1]);
    pthread_join(s->thread, NULL);
    close(s->stopping[0]);
    close(s->fd);
}

static void count_until_closed(struct server *s, int fd)
{
    char buf[4096];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
        s->received += (size_t)n;
    }
}

static void echo(struct server *s, int fd)
{
    char buf[4096];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0 && send(fd, buf, (size_t)n, MSG_NOSIGNAL) == n) {
        s->received += (size_t)n;
    }
}

/* The client's end does not show while our receive buffer is full: then only stop() ends this. */
static void wait_closed(struct server *s, int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLRDHUP},
                          {.fd = s->stopping[0], .events = POLLIN}};

    poll(p, 2, LONG_MS);
}

static void silent(struct server *s, int fd)
{
    wait_closed(s, fd);
}

static void half_an_answer(struct server *s, int fd)
{
    send(fd, "half", 4, MSG_NOSIGNAL);
    wait_closed(s, fd);
}

static void close_at_once(struct server *s, int fd)
{
    shutdown(fd, SHUT_WR);
    count_until_closed(s, fd);
}

static void reset(struct server *s, int fd)
{
    struct linger l = {.l_onoff = 1};
    char byte;

    recv(fd, &byte, 1, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)); /* close sends RST */
}

/* A byte every now and then, until the client has gone. */
static void drip(int fd, const char *head, size_t n)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    send(fd, head, n, MSG_NOSIGNAL);
    while (poll(&p, 1, 20) == 0 && send(fd, "\0", 1, MSG_NOSIGNAL) == 1) {
    }
}

static void drip_handshake(struct server *s, int fd)
{
    drip(fd, "\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03",
         11); /* a ServerHello of 16 KiB begins */
}

static void garbage_handshake(struct server *s, int fd)
{
    send(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
    wait_closed(s, fd);
}

/* Waits for the ClientHello, so that what it sends is not "before TLS". */
static void after_hello(int fd, void (*then)(struct server *, int), struct server *s)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    poll(&p, 1, LONG_MS);
    then(s, fd);
}

static void tls_garbage(struct server *s, int fd)
{
    after_hello(fd, garbage_handshake, s);
}

static void tls_drip(struct server *s, int fd)
{
    after_hello(fd, drip_handshake, s);
}

static int on_sni(SSL *ssl, int *alert, void *ctx)
{
    struct server *s = ctx;
    const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    snprintf(s->sni, sizeof(s->sni), "%s", sni != NULL ? sni : "none");
    return SSL_TLSEXT_ERR_OK;
}

/* Handshake, then talk(ssl); close_notify unless talk says no. */
static void serve_tls(struct server *s, int fd, bool (*talk)(struct server *, SSL *, int))
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL *ssl;

    SSL_CTX_use_certificate(ctx, s->identity->cert);
    SSL_CTX_use_PrivateKey(ctx, s->identity->key);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_sni);
    SSL_CTX_set_tlsext_servername_arg(ctx, s);
    if (s->max_version != 0) {
        SSL_CTX_set_security_level(ctx, 0);
        SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION);
        SSL_CTX_set_max_proto_version(ctx, s->max_version);
    }
    ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1) {
        if (talk(s, ssl, fd)) {
            SSL_shutdown(ssl);
        }
    } else {
        count_until_closed(s, fd);
    }
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    ERR_clear_error();
}

static bool talk_echo(struct server *s, SSL *ssl, int fd)
{
    char buf[4096];
    int n;

    while ((n = SSL_read(ssl, buf, sizeof(buf))) > 0 && SSL_write(ssl, buf, n) == n) {
        s->received += (size_t)n;
    }
    return true;
}

static bool talk_silent(struct server *s, SSL *ssl, int fd)
{
    wait_closed(s, fd);
    return false;
}

static bool talk_then_cut(struct server *s, SSL *ssl, int fd)
{
    SSL_write(ssl, "last", 4);
    return false;
}

static bool talk_then_close(struct server *s, SSL *ssl, int fd)
{
    SSL_write(ssl, "last", 4);
    return true;
}

static bool talk_half_a_record(struct server *s, SSL *ssl, int fd)
{
    drip(fd, "\x17\x03\x03\x40\x00", 5);
    return false;
}

static void tls_echo(struct server *s, int fd)
{
    serve_tls(s, fd, talk_echo);
}

static void tls_silent(struct server *s, int fd)
{
    serve_tls(s, fd, talk_silent);
}

static void tls_cut(struct server *s, int fd)
{
    serve_tls(s, fd, talk_then_cut);
}

static void tls_close(struct server *s, int fd)
{
    serve_tls(s, fd, talk_then_close);
}

static void tls_half_a_record(struct server *s, int fd)
{
    serve_tls(s, fd, talk_half_a_record);
}

/* ---- the client ---- */

static struct gw_dial dial_to(const struct server *s, const char *host, int64_t ms)
{
    return (struct gw_dial){.host = gw_str_c(host),
                            .port = s->port,
                            .address = GW_STR("127.0.0.1"),
                            .ca_file = ca_file,
                            .deadline_ms = gw_mono_ms() + ms};
}

static struct gw_conn *connect_to(const struct server *s)
{
    struct gw_dial d = dial_to(s, "ldap.corp.example", LONG_MS);
    struct gw_conn *c = NULL;

    assert_int_equal(gw_conn_dial(&c, &d, &e), GW_OK);
    assert_int_equal(fcntl(gw_conn_fd(c), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    return c;
}

static struct gw_conn *connect_tls(const struct server *s)
{
    struct gw_conn *c = connect_to(s);
    struct gw_dial d = dial_to(s, "ldap.corp.example", LONG_MS);

    if (gw_conn_start_tls(c, &d, &e) != GW_OK) {
        fail_msg("%s", e.text);
    }
    assert_true(gw_conn_is_tls(c));
    return c;
}

static void assert_at_deadline(int rc, int64_t deadline_ms)
{
    int64_t late = gw_mono_ms() - deadline_ms;

    assert_int_equal(rc, GW_TIMEOUT);
    assert_int_equal(e.status, GW_TIMEOUT);
    assert_true(late >= 0 && late < LONG_MS / 2);
}

static int64_t short_deadline(struct gw_conn *c)
{
    int64_t at = gw_mono_ms() + SHORT_MS;

    gw_conn_deadline(c, at);
    return at;
}

static void echo_some(struct gw_conn *c, size_t n)
{
    char *out = malloc(n), *in = malloc(n);
    size_t got = 0;

    memset(out, 'o', n);
    assert_int_equal(gw_conn_write(c, out, n, &e), n);
    while (got < n) {
        ptrdiff_t more = gw_conn_read(c, in + got, n - got, &e);

        assert_true(more > 0);
        got += (size_t)more;
    }
    assert_memory_equal(in, out, n);
    free(out);
    free(in);
}

/* ---- TCP ---- */

static void test_plain_echo(void **state)
{
    struct server s = {0};
    struct gw_conn *c;

    start(&s, echo);
    c = connect_to(&s);
    assert_false(gw_conn_is_tls(c) || gw_conn_pending(c));
    echo_some(c, 1);
    echo_some(c, 3000);
    assert_int_equal(gw_conn_write(c, "", 0, &e), 0);
    assert_int_equal(gw_conn_read(c, &s, 0, &e), -1);
    gw_conn_close(c);
    gw_conn_close(NULL);
    stop(&s);
    assert_int_equal(s.received, 3001);
}

static void test_refused(void **state)
{
    struct server s = {0};
    struct gw_conn *c = (struct gw_conn *)&s;
    struct gw_dial d;

    start_on(&s, 1);
    close(s.fd); /* nobody listens there now */
    d = dial_to(&s, "ldap.corp.example", LONG_MS);
    assert_int_equal(gw_conn_dial(&c, &d, &e), GW_UNAVAILABLE);
    assert_int_equal(e.sys, ECONNREFUSED);
    assert_ptr_equal(c, &s); /* left alone */
    assert_non_null(strstr(e.text, "ldap.corp.example:"));
}

static void test_bad_addresses(void **state)
{
    static const struct gw_str rows[] = {GW_STR_INIT("not an address"), GW_STR_INIT("127.0.0.1\0x"),
                                         GW_STR_INIT("localhost"), GW_STR_INIT("1234:5")};
    struct server s = {.port = 1};
    struct gw_conn *c;
    char buf[64], big[1000];

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_dial d = dial_to(&s, "h", LONG_MS);

        d.address = rows[i]; /* a name is not an address: it would be resolved without a bound */
        assert_int_equal(gw_conn_dial(&c, &d, &e), GW_UNAVAILABLE);
    }
    memset(big, 'x', sizeof(big));
    assert_int_equal(gw_resolve((struct gw_str){big, sizeof(big)}, buf, sizeof(buf), &e),
                     GW_UNAVAILABLE);
    assert_int_equal(gw_resolve(GW_STR(""), buf, sizeof(buf), &e), GW_UNAVAILABLE);
}

static void test_resolve(void **state)
{
    char buf[64];

    assert_int_equal(gw_resolve(GW_STR("192.0.2.7"), buf, sizeof(buf), &e), GW_OK);
    assert_string_equal(buf, "192.0.2.7");
    assert_int_equal(gw_resolve(GW_STR("2001:DB8:0::1"), buf, sizeof(buf), &e), GW_OK);
    assert_string_equal(buf, "2001:db8::1");
    assert_int_equal(gw_resolve(GW_STR("192.0.2.7"), buf, 9, &e), GW_TOO_LARGE);
    assert_int_equal(gw_resolve(GW_STR("192.0.2.7"), buf, 10, &e), GW_OK);
    assert_int_equal(gw_resolve(GW_STR("localhost"), buf, sizeof(buf), &e), GW_OK);
    assert_true(strcmp(buf, "127.0.0.1") == 0 || strcmp(buf, "::1") == 0);
}

static void test_host_is_resolved_without_an_address(void **state)
{
    struct server s = {0};
    struct gw_conn *c;
    struct gw_dial d;

    start(&s, echo);
    d = dial_to(&s, "localhost", LONG_MS);
    d.address = GW_STR("");
    assert_int_equal(gw_conn_dial(&c, &d, &e), GW_OK); /* past ::1, where nobody listens */
    echo_some(c, 10);
    gw_conn_close(c);
    stop(&s);
}

static void test_connect_without_an_answer(void **state)
{
    struct server s = {0};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fillers[4];
    struct gw_conn *c;
    struct gw_dial d;

    start_on(&s, 0); /* a full backlog: further SYNs are dropped */
    a.sin_port = htons(s.port);
    for (size_t i = 0; i < COUNT(fillers); i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fillers[i], (struct sockaddr *)&a, sizeof(a));
    }
    d = dial_to(&s, "ldap.corp.example", SHORT_MS);
    assert_at_deadline(gw_conn_dial(&c, &d, &e), d.deadline_ms);
    d.deadline_ms = gw_mono_ms() - 1000; /* long past */
    assert_int_equal(gw_conn_dial(&c, &d, &e), GW_TIMEOUT);
    for (size_t i = 0; i < COUNT(fillers); i++) {
        close(fillers[i]);
    }
    close(s.fd);
}

static void test_silent_peer(void **state)
{
    struct server s = {0};
    struct gw_conn *c;
    int64_t deadline;
    char buf[10];

    start(&s, silent);
    c = connect_to(&s);
    deadline = short_deadline(c);
    assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), -1);
    assert_at_deadline(e.status, deadline);
    assert_int_equal(gw_conn_write(c, "x", 1, &e),
                     -1); /* the deadline is of the connection, not of a call */
    assert_int_equal(e.status, GW_TIMEOUT);
    gw_conn_close(c);
    stop(&s);
}

static void test_half_an_answer(void **state)
{
    struct server s = {0};
    struct gw_conn *c;
    int64_t deadline;
    char buf[10];

    start(&s, half_an_answer);
    c = connect_to(&s);
    assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), 4);
    deadline = short_deadline(c);
    assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), -1);
    assert_at_deadline(e.status, deadline);
    gw_conn_close(c);
    stop(&s);
}

static void test_peer_that_does_not_read(void **state)
{
    static char big[64 << 20];
    struct server s = {0};
    struct gw_conn *c;
    int64_t deadline;

    start(&s, silent);
    c = connect_to(&s);
    deadline = short_deadline(c);
    assert_int_equal(gw_conn_write(c, big, sizeof(big), &e), -1);
    assert_at_deadline(e.status, deadline);
    gw_conn_deadline(c, gw_mono_ms() + LONG_MS);
    assert_int_equal(gw_conn_write(c, "x", 1, &e), -1); /* a part is out: never go on */
    assert_int_equal(e.status, GW_UNAVAILABLE);
    gw_conn_close(c);
    stop(&s);
}

static void test_closed_by_the_peer(void **state)
{
    struct server s = {0};
    struct gw_conn *c;
    char buf[10];

    start(&s, close_at_once);
    c = connect_to(&s);
    assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), 0);
    assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), 0);
    assert_true(gw_conn_pending(c));
    gw_conn_close(c);
    stop(&s);
}

static void test_reset_by_the_peer_is_no_signal(void **state)
{
    struct server s = {0};
    struct gw_conn *c;
    char buf[10];
    ptrdiff_t n;

    signal(SIGPIPE, SIG_DFL); /* it would end this program */
    start(&s, reset);
    c = connect_to(&s);
    assert_int_equal(gw_conn_write(c, "x", 1, &e), 1);
    assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), -1);
    assert_int_equal(e.status, GW_UNAVAILABLE);
    assert_int_equal(e.sys, ECONNRESET);
    n = gw_conn_write(c, "x", 1, &e);
    assert_int_equal(n, -1);
    assert_int_equal(e.status, GW_UNAVAILABLE);
    gw_conn_close(c);
    stop(&s);
}

/* ---- TLS ---- */

static void test_tls_echo(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

    for (size_t i = 0; i < COUNT(versions); i++) {
        struct server s = {.identity = &good, .max_version = versions[i]};
        struct gw_conn *c;

        start(&s, tls_echo);
        c = connect_tls(&s);
        assert_false(gw_conn_pending(c)); /* session tickets are not bytes for us */
        echo_some(c, 1);
        echo_some(c, 100000);
        assert_false(gw_conn_pending(c));
        assert_int_equal(gw_conn_write(c, "xy", 2, &e), 2);
        while (!gw_conn_pending(c)) {
            poll(NULL, 0, 1);
        }
        assert_int_equal(gw_conn_read(c, &s.sni[32], 1, &e), 1);
        assert_true(gw_conn_pending(c)); /* the other byte waits inside OpenSSL */
        gw_conn_close(c);
        stop(&s);
        assert_string_equal(s.sni, "ldap.corp.example");
    }
}

static void test_tls_verification(void **state)
{
    static const struct {
        const struct identity *identity;
        const char *host, *ca_file;
        const char *says; /* NULL: accepted */
        const char *sni;
    } rows[] = {
        {&good, "ldap.corp.example", ca_file, NULL, "ldap.corp.example"},
        {&good, "LDAP.Corp.Example", ca_file, NULL, NULL},
        {&good, "ldap.corp.example.", ca_file, NULL, "ldap.corp.example"},
        {&good, "127.0.0.1", ca_file, NULL, "none"}, /* an address is no SNI (RFC 6066 section 3) */
        {&good, "a.wild.example", ca_file, NULL, NULL},
        {&good, "a.b.wild.example", ca_file, "hostname mismatch", NULL},
        {&good, "wild.example", ca_file, "hostname mismatch", NULL},
        {&good, "other.corp.example", ca_file, "hostname mismatch", NULL},
        {&good, "good", ca_file, "hostname mismatch", NULL}, /* its common name */
        {&good, "127.0.0.2", ca_file, "IP address mismatch", NULL},
        {&good, "::1", ca_file, "IP address mismatch", NULL},
        {&good, "ldap.corp.example", other_ca_file, "unable to get local issuer", NULL},
        {&good, "ldap.corp.example", NULL, "unable to get local issuer", NULL},
        {&strange, "ldap.corp.example", ca_file, "unable to get local issuer", NULL},
        {&strange, "ldap.corp.example", other_ca_file, NULL, NULL},
        {&expired, "ldap.corp.example", ca_file, "certificate has expired", NULL},
        {&self_signed, "ldap.corp.example", ca_file, "self-signed certificate", NULL},
        {&good, "", ca_file, "no host name to verify", NULL},
        {&good, ".", ca_file, "no host name to verify", NULL},
        {&good, "ldap.corp.example", "/absent/ca.pem", "CA file /absent/ca.pem: No such file",
         NULL},
        {&good, "ldap.corp.example", "/dev/null", "CA file /dev/null: ", NULL},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct server s = {.identity = rows[i].identity};
        struct gw_conn *c;
        struct gw_dial d;
        int rc;

        start(&s, tls_echo);
        c = connect_to(&s);
        d = dial_to(&s, rows[i].host, LONG_MS);
        d.ca_file = rows[i].ca_file;
        rc = gw_conn_start_tls(c, &d, &e);
        if (rows[i].says == NULL) {
            if (rc != GW_OK) {
                fail_msg("row %zu: %s", i, e.text);
            }
            echo_some(c, 10);
        } else {
            assert_int_equal(rc, GW_UNAVAILABLE);
            if (strstr(e.text, rows[i].says) == NULL) {
                fail_msg("row %zu: %s", i, e.text);
            }
            /* auth-policy 1.2: after a failed StartTLS the next bind went out in clear text */
            assert_int_equal(gw_conn_write(c, "password", 8, &e), -1);
            assert_int_equal(gw_conn_read(c, &d, 1, &e), -1);
            assert_int_equal(gw_conn_start_tls(c, &d, &e), GW_UNAVAILABLE);
        }
        gw_conn_close(c);
        stop(&s);
        assert_int_equal(s.received != 0 && rows[i].says != NULL, false);
        if (rows[i].sni != NULL) {
            assert_string_equal(s.sni, rows[i].sni);
        }
    }
}

static void test_tls_name_with_a_nul(void **state)
{
    struct server s = {.identity = &good};
    struct gw_conn *c;
    struct gw_dial d;

    start(&s, tls_echo);
    c = connect_to(&s);
    d = dial_to(&s, "", LONG_MS);
    d.host = GW_STR("ldap.corp.example\0.evil.example");
    assert_int_equal(gw_conn_start_tls(c, &d, &e), GW_UNAVAILABLE);
    gw_conn_close(c);
    stop(&s);
}

static void test_tls_handshakes_that_fail(void **state)
{
    static const struct {
        void (*serve)(struct server *, int);
        int max_version, rc;
    } rows[] = {
        {tls_echo, TLS1_1_VERSION, GW_UNAVAILABLE}, /* TLS >= 1.2 */
        {silent, 0, GW_TIMEOUT},
        {tls_drip, 0, GW_TIMEOUT},
        {tls_garbage, 0, GW_UNAVAILABLE},
        {close_at_once, 0, GW_UNAVAILABLE},
        {reset, 0, GW_UNAVAILABLE},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct server s = {.identity = &good, .max_version = rows[i].max_version};
        struct gw_conn *c;
        struct gw_dial d;
        int rc;

        start(&s, rows[i].serve);
        c = connect_to(&s);
        gw_conn_deadline(c, gw_mono_ms() + LONG_MS);
        d = dial_to(&s, "ldap.corp.example", LONG_MS);
        if (rows[i].rc == GW_TIMEOUT) {
            int64_t deadline = short_deadline(c);

            rc = gw_conn_start_tls(c, &d, &e);
            assert_at_deadline(rc, deadline);
        } else {
            rc = gw_conn_start_tls(c, &d, &e);
            if (rc != rows[i].rc) {
                fail_msg("row %zu: %d %s", i, rc, e.text);
            }
        }
        gw_conn_deadline(c, gw_mono_ms() + LONG_MS);
        assert_int_equal(gw_conn_write(c, "password", 8, &e), -1);
        gw_conn_close(c);
        stop(&s);
    }
}

/* RFC 4511 4.14, the STARTTLS injection: plain bytes sent ahead to be taken for protected ones. */
static void test_tls_after_injected_bytes(void **state)
{
    struct server s = {0};
    struct gw_conn *c;
    struct gw_dial d;

    start(&s, half_an_answer);
    c = connect_to(&s);
    while (!gw_conn_pending(c)) {
        poll(NULL, 0, 1);
    }
    d = dial_to(&s, "ldap.corp.example", LONG_MS);
    assert_int_equal(gw_conn_start_tls(c, &d, &e), GW_UNAVAILABLE);
    assert_non_null(strstr(e.text, "bytes before TLS"));
    assert_int_equal(gw_conn_write(c, "password", 8, &e), -1);
    gw_conn_close(c);
    stop(&s);
}

static void test_tls_read_stalls(void **state)
{
    void (*const rows[])(struct server *, int) = {tls_silent, tls_half_a_record};

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct server s = {.identity = &good};
        struct gw_conn *c;
        int64_t deadline;
        char buf[10];

        start(&s, rows[i]);
        c = connect_tls(&s);
        deadline = short_deadline(c);
        assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), -1);
        assert_at_deadline(e.status, deadline);
        gw_conn_close(c);
        stop(&s);
    }
}

static void test_tls_write_stalls(void **state)
{
    static char big[64 << 20];
    struct server s = {.identity = &good};
    struct gw_conn *c;
    int64_t deadline;

    start(&s, tls_silent);
    c = connect_tls(&s);
    deadline = short_deadline(c);
    assert_int_equal(gw_conn_write(c, big, sizeof(big), &e), -1);
    assert_at_deadline(e.status, deadline);
    gw_conn_close(c);
    stop(&s);
}

static void test_tls_closed_by_the_peer(void **state)
{
    void (*const rows[])(struct server *, int) = {tls_close, tls_cut};

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct server s = {.identity = &good};
        struct gw_conn *c;
        char buf[10];

        start(&s, rows[i]);
        c = connect_tls(&s);
        assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), 4);
        assert_memory_equal(buf, "last", 4);
        assert_int_equal(gw_conn_read(c, buf, sizeof(buf), &e), 0);
        assert_true(gw_conn_pending(c));
        gw_conn_close(c);
        stop(&s);
    }
}

static int dial_once(void *ctx)
{
    struct gw_dial d = *(struct gw_dial *)ctx;
    struct gw_conn *c;
    int rc;

    d.deadline_ms = gw_mono_ms() + LONG_MS;
    rc = gw_conn_dial(&c, &d, NULL);
    if (rc == GW_OK) {
        gw_conn_close(c);
    }
    return rc;
}

static void test_without_memory(void **state)
{
    struct server s = {0};
    struct gw_dial d;

    start_on(&s, 8);
    d = dial_to(&s, "h", LONG_MS);
    with_failing_alloc(dial_once, &d, 1);
    close(s.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_echo),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_host_is_resolved_without_an_address),
        cmocka_unit_test(test_connect_without_an_answer),
        cmocka_unit_test(test_silent_peer),
        cmocka_unit_test(test_half_an_answer),
        cmocka_unit_test(test_peer_that_does_not_read),
        cmocka_unit_test(test_closed_by_the_peer),
        cmocka_unit_test(test_reset_by_the_peer_is_no_signal),
        cmocka_unit_test(test_tls_echo),
        cmocka_unit_test(test_tls_verification),
        cmocka_unit_test(test_tls_name_with_a_nul),
        cmocka_unit_test(test_tls_handshakes_that_fail),
        cmocka_unit_test(test_tls_after_injected_bytes),
        cmocka_unit_test(test_tls_read_stalls),
        cmocka_unit_test(test_tls_write_stalls),
        cmocka_unit_test(test_tls_closed_by_the_peer),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
