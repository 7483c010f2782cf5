/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_auth_ldap.c - any bytes as the answers of a directory, through the public calls
 * and a real socket.
 *
 * Byte 0: what is called and how. Bytes 1 and 2: how much of the rest the first connection gets;
 * the next one gets what follows. The oracle reads BER by itself: nobody is let in unless the
 * second connection begins with "bind: success", nothing is read as a person unless the first one
 * does, and through StartTLS to a peer without a key nothing ever passes.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "auth/auth.h"
#include "base/clock.h"

#define CONNS 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* ---- the server: sends its part at once, then the end; the fuzzer closes it when the call is over
 * ---- */

static struct {
    int listener;
    uint16_t port;
    pthread_mutex_t lock;
    struct gw_str part[2];
    int fd[CONNS], n;
} peer = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* With the lock held. false: nobody is waiting. */
static bool accept_one(void)
{
    int fd = accept4(peer.listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    struct gw_str s = peer.n < 2 ? peer.part[peer.n] : (struct gw_str){NULL, 0};
    if (s.n > 0) {
        (void)!send(fd, s.p, s.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    shutdown(fd, SHUT_WR);
    if (peer.n < CONNS) {
        peer.fd[peer.n++] = fd;
    } else {
        close(fd);
    }
    return true;
}

static void *serve(void *arg)
{
    for (;;) {
        struct pollfd p = {peer.listener, POLLIN, 0};
        poll(&p, 1, -1);
        pthread_mutex_lock(&peer.lock);
        accept_one();
        pthread_mutex_unlock(&peer.lock);
    }
    return NULL;
}

static void start(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(a);
    pthread_t thread;

    auth_ldap_start();
    peer.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    require(bind(peer.listener, (struct sockaddr *)&a, sizeof(a)) == 0 &&
            listen(peer.listener, 64) == 0);
    require(getsockname(peer.listener, (struct sockaddr *)&a, &n) == 0);
    peer.port = ntohs(a.sin_port);
    require(pthread_create(&thread, NULL, serve, NULL) == 0);
}

/* Whoever is still in the queue belongs to the call that is over. Closed by a reset, so that
 * thousands of calls leave no port waiting. */
static void hang_up(void)
{
    const struct linger now = {1, 0};

    pthread_mutex_lock(&peer.lock);
    while (accept_one()) {
    }
    for (int i = 0; i < peer.n; i++) {
        setsockopt(peer.fd[i], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(peer.fd[i]);
    }
    peer.n = 0;
    pthread_mutex_unlock(&peer.lock);
}

/* ---- the oracle ---- */

/* One element; tags and lengths in any form, as libldap reads them. */
static bool element(struct gw_str *rest, uint8_t *tag, struct gw_str *value)
{
    const uint8_t *p = (const uint8_t *)rest->p;
    size_t at = 1, n;

    if (rest->n > 0 && (p[0] & 0x1f) == 0x1f) {
        while (at < rest->n && (p[at] & 0x80) != 0) {
            at++;
        }
        at++;
    }
    if (at >= rest->n) {
        return false;
    }
    n = p[at++];
    if (n & 0x80) {
        size_t more = n & 0x7f;
        if (more > sizeof(n) || more > rest->n - at) {
            return false;
        }
        for (n = 0; more > 0; more--) {
            n = n << 8 | p[at++];
        }
    }
    if (n > rest->n - at) {
        return false;
    }
    *tag = p[0];
    *value = gw_str_sub(*rest, at, n);
    *rest = gw_str_sub(*rest, at + n, SIZE_MAX);
    return true;
}

static bool is_number(struct gw_str v, uint8_t n)
{
    for (size_t i = 0; i < v.n; i++) {
        if ((uint8_t)v.p[i] != (i + 1 < v.n ? 0 : n)) {
            return false;
        }
    }
    return v.n > 0 || n == 0;
}

/* Is the first message with id 1 the response to a bind, with code 0? */
static bool begins_with_bind(struct gw_str s)
{
    struct gw_str message, id, op, code;
    uint8_t tag, op_tag;

    while (element(&s, &tag, &message)) {
        if (!element(&message, &tag, &id) || !is_number(id, 1)) {
            continue;
        }
        return element(&message, &op_tag, &op) && op_tag == 0x61 && element(&op, &tag, &code) &&
               is_number(code, 0);
    }
    return false;
}

/* ---- the calls ---- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    struct gw_arena a = {0};
    struct gw_error err = {0};
    struct auth_subject s = {0};

    if (size < 3 || size > 65536) {
        return 0;
    }
    if (!started) {
        start();
        started = true;
    }
    const uint8_t how = data[0];
    struct gw_str rest = {(const char *)data + 3, size - 3};
    size_t first = (size_t)data[1] << 8 | data[2];
    pthread_mutex_lock(&peer.lock);
    peer.part[0] = gw_str_sub(rest, 0, first);
    peer.part[1] = gw_str_sub(rest, first, SIZE_MAX);
    pthread_mutex_unlock(&peer.lock);

    const struct auth_ldap_server server = {.url = GW_STR("ldap://127.0.0.1"),
                                            .host = GW_STR("127.0.0.1"),
                                            .port = peer.port,
                                            .loopback = true};
    const struct auth_ldap d = {
        .name = GW_STR("corp"),
        .servers = &server,
        .n_servers = 1,
        .start_tls = (how & 0x80) != 0,
        .bind_dn = GW_STR("cn=service"),
        .bind_password = GW_STR("secret"),
        .user_base = GW_STR("dc=x"),
        .user_filter = GW_STR("(uid=${user})"),
        .direct_bind = how & 8 ? GW_STR("uid=${user},dc=x") : GW_STR(""),
        .name_attr = GW_STR("uid"),
        .id_attr = how & 16 ? GW_STR("objectGUID") : GW_STR("entryUUID"),
        .display_attr = GW_STR("displayName"),
        .mail_attr = GW_STR("mail"),
        .group_mode = how & 2 ? AUTH_GROUPS_SEARCH : AUTH_GROUPS_MEMBEROF,
        .group_base = GW_STR("dc=x"),
        .group_filter = GW_STR("(member=${dn})"),
        .nested = (how & 4) != 0,
    };
    const struct auth_subject old = {
        .realm = GW_STR("corp"), .source_id = GW_STR("0123"), .dn = GW_STR("uid=a")};
    bool refresh = (how & 1) != 0;
    int64_t deadline = gw_mono_ms() + 5000;
    int rc;

    gw_arena_init(&a, 1 << 20);
    if (refresh) {
        rc = auth_ldap_refresh(&d, &old, NULL, NULL, deadline, &a, &s, &err);
    } else {
        rc = auth_ldap_login(&d, GW_STR("alice"), GW_STR("password"), NULL, NULL, deadline, &a, &s,
                             &err);
    }
    if (rc == GW_OK) {
        require(!d.start_tls && begins_with_bind(peer.part[0]) &&
                (refresh || begins_with_bind(peer.part[1])));
        require(gw_str_starts(s.id, GW_STR("corp-")) && s.id.n == 37 && s.name.n > 0 &&
                s.name.n <= 64 && s.dn.n > 0 && s.source_id.n > 0);
        require(s.n_groups <= AUTH_GROUPS_MAX && (refresh || s.state == AUTH_ACTIVE));
        require(!refresh || gw_str_eq(s.source_id, old.source_id));
    } else {
        require(s.id.p == NULL && err.status == rc);
        require(rc != GW_UNAUTHENTICATED || (!refresh && begins_with_bind(peer.part[0])));
        require(rc != GW_NOT_FOUND || (refresh && begins_with_bind(peer.part[0])));
    }
    gw_arena_release(&a);
    hang_up();
    return 0;
}
