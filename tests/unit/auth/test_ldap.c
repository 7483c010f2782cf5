/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/auth/test_ldap.c - login, refresh and probe against a directory that misbehaves on
 * purpose.
 *
 * The peers of auth-policy 1.1 (silence, half a PDU, drip, StartTLS that refuses, stalls or
 * injects, a huge length), and answers that no honest server gives. What a real one gives is in
 * test_slapd.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "auth/auth.h"
#include "base/clock.h"
#include "tests/unit/auth/fake_ldap.h"
#include "tests/unit/failing.h"

#define ALICE_DN "uid=alice,ou=people,dc=x"
#define ALICE_ID "0c8d1c5e-6f2b-103d-8f1e-4f0d3c2b1a00"
#define PASSWORD "pw-of-alice"
#define SERVICE_PASSWORD "pw-of-service"
#define ONE_TEXT "wrong user name or password"
#define SHORT_MS 300  /* deadline where it is expected to pass */
#define LONG_MS 20000 /* and where it must not */

static const char *const alice[] = {"uid",         "Alice",
                                    "entryUUID",   ALICE_ID,
                                    "displayName", "Alice A.",
                                    "mail",        "alice@x.example",
                                    "memberOf",    "cn=eng,ou=groups,dc=x",
                                    "memberOf",    "cn=Ops,ou=groups,dc=x",
                                    NULL};

/* ---- a directory and its configuration ---- */

static struct auth_ldap_server server(uint16_t port)
{
    return (struct auth_ldap_server){.url = GW_STR("ldap://127.0.0.1"),
                                     .host = GW_STR("127.0.0.1"),
                                     .port = port,
                                     .loopback = true};
}

static struct auth_ldap directory(const struct auth_ldap_server *servers, size_t n)
{
    return (struct auth_ldap){
        .name = GW_STR("corp"),
        .servers = servers,
        .n_servers = n,
        .bind_dn = GW_STR("cn=service,dc=x"),
        .bind_password = GW_STR(SERVICE_PASSWORD),
        .user_base = GW_STR("ou=people,dc=x"),
        .user_filter = GW_STR("(uid=${user})"),
        .name_attr = GW_STR("uid"),
        .id_attr = GW_STR("entryUUID"),
        .display_attr = GW_STR("displayName"),
        .mail_attr = GW_STR("mail"),
        .group_mode = AUTH_GROUPS_MEMBEROF,
    };
}

struct outcome {
    int rc;
    struct gw_error err;
    struct auth_subject s;
    struct gw_arena a;
    int64_t took_ms;
};

static void login_as(struct outcome *o, const struct auth_ldap *d, struct gw_str user,
                     struct gw_str password, int64_t wait_ms)
{
    int64_t start = gw_mono_ms();

    memset(o, 0, sizeof(*o));
    gw_arena_init(&o->a, 1 << 20);
    o->rc = auth_ldap_login(d, user, password, NULL, NULL, start + wait_ms, &o->a, &o->s, &o->err);
    o->took_ms = gw_mono_ms() - start;
    if (o->rc != GW_OK) {
        assert_null(o->s.id.p);
        assert_int_equal(o->err.status, o->rc);
        assert_null(strstr(o->err.text, PASSWORD));
        assert_null(strstr(o->err.text, SERVICE_PASSWORD));
    }
}

static void login(struct outcome *o, const struct auth_ldap *d, int64_t wait_ms)
{
    login_as(o, d, GW_STR("alice"), GW_STR(PASSWORD), wait_ms);
}

static void refresh(struct outcome *o, const struct auth_ldap *d, int64_t wait_ms)
{
    const struct auth_subject old = {.realm = GW_STR("corp"),
                                     .source_id = GW_STR(ALICE_ID),
                                     .dn = GW_STR(ALICE_DN),
                                     .name = GW_STR("alice")};

    memset(o, 0, sizeof(*o));
    gw_arena_init(&o->a, 1 << 20);
    o->rc = auth_ldap_refresh(d, &old, NULL, NULL, gw_mono_ms() + wait_ms, &o->a, &o->s, &o->err);
    assert_true(o->rc == GW_OK || o->s.id.p == NULL);
}

static void expect(const struct outcome *o, int rc, const char *text)
{
    if (o->rc != rc || (text != NULL && strstr(o->err.text, text) == NULL)) {
        fail_msg("%s: %s", gw_status_name(o->rc), o->err.text);
    }
}

/* ---- silence in every place ---- */

static bool bind_half(struct fake *f, const struct request *r)
{
    static const uint8_t half[] = {0x30, 0x0c, 0x02, 0x01, 0x01, 0x61};

    send_bytes(r->fd, half, sizeof(half));
    return true;
}

static bool bind_drip(struct fake *f, const struct request *r)
{
    static const uint8_t pdu[] = {0x30, 0x0c, 0x02, 0x01, 0x01, 0x61, 0x07,
                                  0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00};

    for (size_t i = 0; i < sizeof(pdu) && !atomic_load(&f->stop); i++) {
        send_bytes(r->fd, pdu + i, 1);
        usleep(80000);
    }
    return true;
}

static bool never(struct fake *f, const struct request *r)
{
    return true;
}

static bool bind_then_silent(struct fake *f, const struct request *r)
{
    if (r->op == OP_BIND) {
        answer(r, 0x61, 0);
    }
    return true;
}

/* everything is fine until the person binds */
static bool silent_for_person(struct fake *f, const struct request *r)
{
    if (r->op == OP_BIND && r->conn == 0) {
        answer(r, 0x61, 0);
    } else if (r->op == OP_SEARCH) {
        answer_entry(r, ALICE_DN, strlen(ALICE_DN), alice);
        answer(r, 0x65, 0);
    }
    return true;
}

static bool one_entry_then_silent(struct fake *f, const struct request *r)
{
    if (r->op == OP_BIND) {
        answer(r, 0x61, 0);
    } else {
        answer_entry(r, ALICE_DN, strlen(ALICE_DN), alice);
    }
    return true;
}

static void stalls(void **state)
{
    static const struct {
        on_request_fn on_request;
        const char *name;
    } rows[] = {
        {NULL, "silent"},
        {never, "reads only"},
        {bind_half, "half"},
        {bind_drip, "drip"},
        {bind_then_silent, "no search"},
        {one_entry_then_silent, "no end of search"},
        {silent_for_person, "no user bind"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake *f = fake_start(rows[i].on_request, NULL);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        login(&o, &d, SHORT_MS);
        fake_stop(f);
        if (o.rc != GW_TIMEOUT || o.took_ms < SHORT_MS - 20 || o.took_ms > 5000) {
            fail_msg("%s: %s (%s) after %lld ms", rows[i].name, gw_status_name(o.rc), o.err.text,
                     (long long)o.took_ms);
        }
        /* a goodbye would be sent into the unknown */
        assert_int_equal(atomic_load(&f->unbinds), 0);
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

static void timeout_of_the_directory(void **state)
{
    struct fake *f = fake_start(never, NULL);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;

    d.timeout_ms = 100;
    login(&o, &d, LONG_MS);
    expect(&o, GW_TIMEOUT, NULL);
    assert_true(o.took_ms < 5000);
    login(&o, &d, -1); /* a deadline that has passed */
    expect(&o, GW_TIMEOUT, NULL);
    fake_stop(f);
    fake_free(f);
}

/* ---- bytes that are not LDAP, or not the right LDAP ---- */

static bool huge(struct fake *f, const struct request *r)
{
    static const uint8_t pdu[] = {0x30, 0x84, 0x70, 0x00, 0x00, 0x00, 0x02, 0x01, 0x01, 0x61};

    send_bytes(r->fd, pdu, sizeof(pdu));
    return true;
}

static bool garbage(struct fake *f, const struct request *r)
{
    for (int i = 0; i < 10; i++) {
        send_bytes(r->fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    }
    return true;
}

static bool hang_up(struct fake *f, const struct request *r)
{
    return false;
}

static bool result_of_search_for_bind(struct fake *f, const struct request *r)
{
    answer(r, 0x65, 0);
    return true;
}

static bool extended_for_bind(struct fake *f, const struct request *r)
{
    answer(r, 0x78, 0);
    return true;
}

static bool empty_bind_response(struct fake *f, const struct request *r)
{
    struct ber *b = calloc(2, sizeof(*b));

    ber_message(&b[0], r->id, 0x61, &b[1], NULL);
    send_bytes(r->fd, b[0].p, b[0].n);
    free(b);
    return true;
}

static bool bind_result_for_search(struct fake *f, const struct request *r)
{
    answer(r, 0x61, 0);
    return true;
}

static bool answer_to_nothing(struct fake *f, const struct request *r)
{
    const struct request other = {.fd = r->fd, .id = r->id + 1};

    answer(&other, 0x61, 0);
    return true;
}

static bool intermediate(struct fake *f, const struct request *r)
{
    answer(r, 0x79, 0);
    return true;
}

/* success, as libldap reads a number of no bytes */
static bool empty_code(struct fake *f, const struct request *r)
{
    static const uint8_t pdu[] = {0x30, 0x0b, 0x02, 0x01, 0x01, 0x61, 0x06,
                                  0x0a, 0x00, 0x04, 0x00, 0x04, 0x00};

    send_bytes(r->fd, pdu, sizeof(pdu));
    return true;
}

static bool notice_of_disconnection(struct fake *f, const struct request *r)
{
    const struct request notice = {.fd = r->fd, .id = 0};

    answer(&notice, 0x78, 52);
    return false;
}

static void nonsense(void **state)
{
    static const on_request_fn rows[] = {huge,
                                         garbage,
                                         hang_up,
                                         result_of_search_for_bind,
                                         extended_for_bind,
                                         empty_bind_response,
                                         bind_result_for_search,
                                         answer_to_nothing,
                                         intermediate,
                                         empty_code,
                                         notice_of_disconnection};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake *f = fake_start(rows[i], NULL);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        login(&o, &d, LONG_MS);
        fake_stop(f);
        if (o.rc != GW_UNAVAILABLE) {
            fail_msg("row %zu: %s (%s)", i, gw_status_name(o.rc), o.err.text);
        }
        assert_false(fake_saw(f, PASSWORD)); /* the person's password is still here */
        assert_int_equal(atomic_load(&f->unbinds), 0);
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

static bool flood(struct fake *f, const struct request *r)
{
    static char url[30000];

    if (r->op == OP_BIND) {
        answer(r, 0x61, 0);
        return true;
    }
    memset(url, 'x', sizeof(url) - 1);
    for (int i = 0; i < 3000 && !atomic_load(&f->stop); i++) {
        answer_reference(r, url);
    }
    return true;
}

static void too_much(void **state)
{
    struct fake *f = fake_start(flood, NULL);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;

    login(&o, &d, LONG_MS);
    fake_stop(f);
    expect(&o, GW_UNAVAILABLE, "more than 32 MiB in all");
    fake_free(f);
    gw_arena_release(&o.a);
}

/* ---- StartTLS ---- */

static bool tls_refused(struct fake *f, const struct request *r)
{
    answer(r, r->op == OP_EXTENDED ? 0x78 : 0x61, r->op == OP_EXTENDED ? 2 : 0);
    return true;
}

static bool tls_stall(struct fake *f, const struct request *r)
{
    answer(r, 0x78, 0);
    return true;
}

static bool tls_inject(struct fake *f, const struct request *r)
{
    static const uint8_t both[] = {0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, 0x00,
                                   0x04, 0x00, 0x04, 0x00, 0x30, 0x0c, 0x02, 0x01, 0x02, 0x61,
                                   0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00};

    send_bytes(r->fd, both, sizeof(both));
    return true;
}

static bool tls_other_oid(struct fake *f, const struct request *r)
{
    struct ber *b = calloc(2, sizeof(*b));

    ber_result(&b[1], 0);
    ber_text(&b[1], 0x8a, "1.3.6.1.4.1.4203.1.11.1");
    ber_message(&b[0], r->id, 0x78, &b[1], NULL);
    send_bytes(r->fd, b[0].p, b[0].n);
    free(b);
    return true;
}

/* libldap 2.5 aborts the process on this one */
static bool tls_empty_oid(struct fake *f, const struct request *r)
{
    static const uint8_t pdu[] = {0x30, 0x0e, 0x02, 0x01, 0x01, 0x78, 0x09, 0x0a,
                                  0x01, 0x00, 0x04, 0x00, 0x04, 0x00, 0x8a, 0x00};

    send_bytes(r->fd, pdu, sizeof(pdu));
    return false;
}

static bool tls_bind_response(struct fake *f, const struct request *r)
{
    answer(r, 0x61, 0);
    return true;
}

static bool tls_then_garbage(struct fake *f, const struct request *r)
{
    char hello[600];

    answer(r, 0x78, 0);
    if (read_bytes(f, r->fd, (uint8_t *)hello, 100)) {
        send_bytes(r->fd, "this is not a ServerHello, not at all", 37);
    }
    return true;
}

static void start_tls(void **state)
{
    static const struct {
        on_request_fn on_request;
        int rc;
        const char *text;
    } rows[] = {
        {tls_refused, GW_UNAVAILABLE, "refuses StartTLS"},
        {tls_stall, GW_TIMEOUT, NULL},
        {tls_inject, GW_UNAVAILABLE, "clear text"},
        {tls_other_oid, GW_UNAVAILABLE, NULL},
        {tls_bind_response, GW_UNAVAILABLE, NULL},
        {tls_empty_oid, GW_UNAVAILABLE, NULL},
        {tls_then_garbage, GW_UNAVAILABLE, NULL},
        {huge, GW_UNAVAILABLE, NULL},
        {hang_up, GW_UNAVAILABLE, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake *f = fake_start(rows[i].on_request, NULL);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        d.start_tls = true;
        login(&o, &d, rows[i].rc == GW_TIMEOUT ? SHORT_MS : LONG_MS);
        fake_stop(f);
        if (o.rc != rows[i].rc ||
            (rows[i].text != NULL && strstr(o.err.text, rows[i].text) == NULL)) {
            fail_msg("row %zu: %s (%s)", i, gw_status_name(o.rc), o.err.text);
        }
        /* one request, and then nothing of LDAP in clear text: no bind, no unbind, no name, no
         * password */
        assert_int_equal(atomic_load(&f->extended), 1);
        assert_int_equal(atomic_load(&f->binds) + atomic_load(&f->searches) +
                             atomic_load(&f->unbinds) + atomic_load(&f->others),
                         0);
        assert_false(fake_saw(f, "cn=service") || fake_saw(f, SERVICE_PASSWORD) ||
                     fake_saw(f, PASSWORD) || fake_saw(f, "alice"));
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

/* ldaps to a peer that does not speak TLS */
static void ldaps_without_tls(void **state)
{
    struct fake *f = fake_start(never, NULL);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;

    s.ldaps = true;
    login(&o, &d, SHORT_MS);
    fake_stop(f);
    assert_true(o.rc == GW_TIMEOUT || o.rc == GW_UNAVAILABLE);
    assert_false(fake_saw(f, "cn=service") || fake_saw(f, PASSWORD));
    fake_free(f);
    gw_arena_release(&o.a);
}

static void plain_only_on_loopback(void **state)
{
    struct fake *f = fake_start(never, NULL);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct gw_buf report;
    struct outcome o;

    s.loopback = false;
    login(&o, &d, LONG_MS);
    expect(&o, GW_UNAVAILABLE, "start_tls");
    refresh(&o, &d, LONG_MS);
    expect(&o, GW_UNAVAILABLE, "start_tls");
    gw_buf_init(&report, 4096);
    assert_int_equal(auth_ldap_probe(&d, NULL, NULL, gw_mono_ms() + LONG_MS, &report, &o.err),
                     GW_UNAVAILABLE);
    assert_non_null(strstr(report.p, "start_tls"));
    gw_buf_release(&report);
    fake_stop(f);
    assert_int_equal(atomic_load(&f->connections), 0);
    fake_free(f);
    gw_arena_release(&o.a);
}

/* ---- a directory that follows a plan ---- */

struct plan {
    int copies;       /* entries for a person */
    int bind_code[4]; /* by connection: 0 is the service's, 1 the person's */
    int person_code, person_references;
    const char *dn;
    size_t dn_len;
    const char *const *attrs;
    const char *const *groups; /* of every search for groups; ends in NULL */
    int group_code, group_references;
};

static bool by_plan(struct fake *f, const struct request *r)
{
    const struct plan *p = f->data;

    if (r->op == OP_BIND) {
        answer(r, 0x61, p->bind_code[r->conn < 4 ? r->conn : 3]);
    } else if (r->op == OP_SEARCH && atomic_load(&f->searches) == 1) {
        for (int i = 0; i < p->copies; i++) {
            answer_entry(r, p->dn, p->dn_len, p->attrs);
        }
        for (int i = 0; i < p->person_references; i++) {
            answer_reference(r, "ldap://127.0.0.1:1/dc=elsewhere");
        }
        answer(r, 0x65, p->person_code);
    } else if (r->op == OP_SEARCH) {
        static const char *const none[] = {NULL};
        for (size_t i = 0; p->groups != NULL && p->groups[i] != NULL; i++) {
            answer_entry(r, p->groups[i], strlen(p->groups[i]), none);
        }
        for (int i = 0; i < p->group_references; i++) {
            answer_reference(r, "ldap://127.0.0.1:1/dc=elsewhere");
        }
        answer(r, 0x65, p->group_code);
    }
    return true;
}

static struct plan good_plan(void)
{
    return (struct plan){.copies = 1, .dn = ALICE_DN, .dn_len = strlen(ALICE_DN), .attrs = alice};
}

static void good_login(void **state)
{
    struct plan p = good_plan();
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;

    login_as(&o, &d, GW_STR("ALICE"), GW_STR(PASSWORD), LONG_MS);
    fake_stop(f);
    expect(&o, GW_OK, NULL);
    assert_true(gw_str_starts(o.s.id, GW_STR("corp-")) && o.s.id.n == 37);
    assert_true(gw_str_eq_c(o.s.realm, "corp") && gw_str_eq_c(o.s.source_id, ALICE_ID) &&
                gw_str_eq_c(o.s.dn, ALICE_DN));
    assert_true(gw_str_eq_c(o.s.name, "alice") && gw_str_eq_c(o.s.display, "Alice A.") &&
                gw_str_eq_c(o.s.email, "alice@x.example"));
    assert_int_equal(o.s.state, AUTH_ACTIVE);
    assert_false(o.s.service);
    assert_int_equal(o.s.n_groups, 2);
    assert_true(gw_str_eq_c(o.s.groups[0], "cn=eng,ou=groups,dc=x") &&
                gw_str_eq_c(o.s.groups[1], "cn=Ops,ou=groups,dc=x"));
    assert_true(o.s.checked_ms > 0);
    assert_int_equal(atomic_load(&f->connections),
                     2); /* the service's and the person's, never one for both */
    assert_int_equal(atomic_load(&f->binds), 2);
    assert_int_equal(atomic_load(&f->unbinds), 2);
    fake_free(f);
    gw_arena_release(&o.a);
}

/* Active Directory writes every length in four bytes */
static bool long_lengths(struct fake *f, const struct request *r)
{
    uint8_t pdu[] = {0x30, 0x84, 0,    0,    0,    0x10, 0x02, 0x01, (uint8_t)r->id, 0x61, 0x84, 0,
                     0,    0,    0x07, 0x0a, 0x01, 0,    0x04, 0,    0x04,           0};

    if (r->op != OP_BIND) {
        return by_plan(f, r);
    }
    send_bytes(r->fd, pdu, sizeof(pdu));
    return true;
}

static void lengths_of_four_bytes(void **state)
{
    struct plan p = good_plan();
    struct fake *f = fake_start(long_lengths, &p);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;

    login(&o, &d, LONG_MS);
    fake_stop(f);
    expect(&o, GW_OK, NULL);
    fake_free(f);
    gw_arena_release(&o.a);
}

/* Our own allocations; those of libldap cannot be made to fail. */
static int login_once(void *ctx)
{
    struct plan p = good_plan();
    static const char *const groups[] = {"cn=a,dc=x", NULL};
    p.groups = groups;
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;

    d.nested = true;
    d.group_base = GW_STR("ou=groups,dc=x");
    login(&o, &d, LONG_MS);
    fake_stop(f);
    fake_free(f);
    gw_arena_release(&o.a);
    return o.rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(login_once, NULL, 10);
}

static void credentials_that_never_leave(void **state)
{
    static const struct {
        struct gw_str user, password;
    } rows[] = {
        {GW_STR_INIT("alice"), GW_STR_INIT("")},
        {GW_STR_INIT("alice"), GW_STR_INIT("\0guess")},
        {GW_STR_INIT("alice"),
         GW_STR_INIT("hf_gwp0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1ZJXUF")},
        {GW_STR_INIT("alice"), GW_STR_INIT("\xff")},
        {GW_STR_INIT("*"), GW_STR_INIT("x")},
        {GW_STR_INIT("alice)(uid=*"), GW_STR_INIT("x")},
        {GW_STR_INIT("alice "), GW_STR_INIT("x")},
        {GW_STR_INIT("\xe2\x93\x90lice"), GW_STR_INIT("x")},
        {GW_STR_INIT(""), GW_STR_INIT("x")},
    };
    struct plan p = good_plan();
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct outcome o;
        login_as(&o, &d, rows[i].user, rows[i].password, LONG_MS);
        expect(&o, GW_UNAUTHENTICATED, ONE_TEXT);
        gw_arena_release(&o.a);
    }
    fake_stop(f);
    assert_int_equal(atomic_load(&f->connections), 0);
    fake_free(f);
}

static void answers(void **state)
{
    static const struct {
        const char *name;
        struct plan plan; /* what is zero is as in good_plan */
        int copies, rc, sys, binds;
        const char *text;
    } rows[] = {
        {"nobody", {0}, 0, GW_UNAUTHENTICATED, AUTH_NO_SUCH_USER, 1, ONE_TEXT},
        {"two entries", {0}, 2, GW_UNAUTHENTICATED, 0, 1, ONE_TEXT},
        {"two entries, size limit", {.person_code = 4}, 2, GW_UNAUTHENTICATED, 0, 1, ONE_TEXT},
        {"more than asked for", {0}, 50, GW_UNAUTHENTICATED, 0, 1, ONE_TEXT},
        {"size limit", {.person_code = 4}, 1, GW_UNAVAILABLE, 4, 1, "no whole answer"},
        {"time limit", {.person_code = 3}, 0, GW_UNAVAILABLE, 3, 1, "no whole answer"},
        {"referral", {.person_code = 10}, 0, GW_UNAVAILABLE, 10, 1, "no whole answer"},
        {"busy", {.person_code = 51}, 0, GW_UNAVAILABLE, 51, 1, "no whole answer"},
        {"no such base", {.person_code = 32}, 0, GW_UNAVAILABLE, 32, 1, "no whole answer"},
        {"only a reference", {.person_references = 1}, 0, GW_UNAUTHENTICATED, 0, 1, ONE_TEXT},
        {"an entry and references", {.person_references = 3}, 1, GW_OK, 0, 2, NULL},
        {"wrong password", {.bind_code = {0, 49}}, 1, GW_UNAUTHENTICATED, 49, 2, ONE_TEXT},
        {"entry gone at the bind", {.bind_code = {0, 32}}, 1, GW_UNAUTHENTICATED, 49, 2, ONE_TEXT},
        {"locked, 389 DS", {.bind_code = {0, 19}}, 1, GW_UNAUTHENTICATED, 49, 2, ONE_TEXT},
        {"no password", {.bind_code = {0, 48}}, 1, GW_UNAUTHENTICATED, 49, 2, ONE_TEXT},
        {"inactivated, 389 DS", {.bind_code = {0, 53}}, 1, GW_UNAUTHENTICATED, 49, 2, ONE_TEXT},
        {"wants TLS", {.bind_code = {0, 13}}, 1, GW_UNAVAILABLE, 13, 2, "could not check"},
        {"SASL goes on", {.bind_code = {0, 14}}, 1, GW_UNAVAILABLE, 14, 2, "could not check"},
        {"bind referral", {.bind_code = {0, 10}}, 1, GW_UNAVAILABLE, 10, 2, "could not check"},
        {"other", {.bind_code = {0, 80}}, 1, GW_UNAVAILABLE, 80, 2, "could not check"},
        {"service refused", {.bind_code = {49}}, 1, GW_UNAVAILABLE, 49, 1, "bind_dn"},
        {"empty DN", {.dn = ""}, 1, GW_UNAVAILABLE, 2, 1, NULL},
        {"NUL in the DN", {.dn = "uid=alice\0,dc=x", .dn_len = 15}, 1, GW_UNAVAILABLE, 2, 1, NULL},
        {"DN not UTF-8", {.dn = "uid=\xff,dc=x", .dn_len = 10}, 1, GW_UNAVAILABLE, 2, 1, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct plan p = rows[i].plan;
        p.copies = rows[i].copies;
        p.attrs = alice;
        if (p.dn == NULL) {
            p.dn = ALICE_DN;
            p.dn_len = strlen(ALICE_DN);
        }
        struct fake *f = fake_start(by_plan, &p);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        login(&o, &d, LONG_MS);
        fake_stop(f);
        if (o.rc != rows[i].rc || (o.rc != GW_OK && o.err.sys != rows[i].sys) ||
            (rows[i].text != NULL && strstr(o.err.text, rows[i].text) == NULL) ||
            atomic_load(&f->binds) != rows[i].binds) {
            fail_msg("%s: %s, sys %d, %d binds (%s)", rows[i].name, gw_status_name(o.rc), o.err.sys,
                     atomic_load(&f->binds), o.err.text);
        }
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

/* names, ids and account states */
static void entries(void **state)
{
#define WHO "uid", "alice", "entryUUID", ALICE_ID
    static const struct {
        const char *attrs[16];
        int rc;
        const char *text;
    } rows[] = {
        {{WHO, NULL}, GW_OK, NULL},
        {{"UID", "a.l_i-ce9", "ENTRYUUID", "x", NULL}, GW_OK, NULL},
        {{"uid", "alice", NULL}, GW_UNAVAILABLE, "entryUUID"},
        {{"uid", "alice", "entryUUID", "a", "entryUUID", "b", NULL}, GW_UNAVAILABLE, "entryUUID"},
        {{"uid", "alice", "entryUUID", "", NULL}, GW_UNAVAILABLE, "entryUUID"},
        {{"uid", "alice", "entryUUID", "a\nb", NULL}, GW_UNAVAILABLE, "entryUUID"},
        {{"entryUUID", ALICE_ID, NULL}, GW_INVALID, "0 values of uid"},
        {{"uid", "alice", "uid", "root", "entryUUID", ALICE_ID, NULL},
         GW_INVALID,
         "2 values of uid"},
        {{"uid", "", "entryUUID", ALICE_ID, NULL}, GW_INVALID, "not a name"},
        {{"uid", "alice@corp", "entryUUID", ALICE_ID, NULL}, GW_INVALID, "not a name"},
        {{"uid", ".alice", "entryUUID", ALICE_ID, NULL}, GW_INVALID, "not a name"},
        {{"uid", "al ice", "entryUUID", ALICE_ID, NULL}, GW_INVALID, "not a name"},
        {{"uid", "\xe2\x93\x90lice", "entryUUID", ALICE_ID, NULL}, GW_INVALID, "not a name"},
        {{"uid", "0123456789012345678901234567890123456789012345678901234567890123", "entryUUID",
          ALICE_ID, NULL},
         GW_OK,
         NULL},
        {{"uid", "01234567890123456789012345678901234567890123456789012345678901234", "entryUUID",
          ALICE_ID, NULL},
         GW_INVALID,
         "not a name"},
        {{"uid", "alice", "entryUUID", ALICE_ID, "uid", "root", NULL},
         GW_UNAVAILABLE,
         NULL}, /* two lists of uid */
        {{WHO, "memberOf", "", NULL}, GW_UNAVAILABLE, "no usable DN"},
        {{WHO, "memberOf", "cn=\xff", NULL}, GW_UNAVAILABLE, "no usable DN"},
        /* the table of auth-policy 2.1 */
        {{WHO, "userAccountControl", "512", NULL}, GW_OK, NULL},
        {{WHO, "userAccountControl", "514", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "useraccountcontrol", "2", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "userAccountControl", "-2147483136", NULL}, GW_OK, NULL},
        {{WHO, "userAccountControl", "junk", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "userAccountControl", "", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "accountExpires", "0", NULL}, GW_OK, NULL},
        {{WHO, "accountExpires", "9223372036854775807", NULL}, GW_OK, NULL},
        {{WHO, "accountExpires", "132223104000000000", NULL},
         GW_UNAUTHENTICATED,
         ONE_TEXT},                                                         /* 2020 */
        {{WHO, "accountExpires", "252456048000000000", NULL}, GW_OK, NULL}, /* 2401 */
        {{WHO, "accountExpires", "92233720368547758070", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "nsAccountLock", "FALSE", NULL}, GW_OK, NULL},
        {{WHO, "nsAccountLock", "TRUE", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "nsAccountLock", "true", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "loginDisabled", "TRUE", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "shadowExpire", "-1", NULL}, GW_OK, NULL},
        {{WHO, "shadowExpire", "0", NULL}, GW_OK, NULL},
        {{WHO, "shadowExpire", "1", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "shadowExpire", "18262", NULL}, GW_UNAUTHENTICATED, ONE_TEXT}, /* 2020 */
        {{WHO, "shadowExpire", "99999", NULL}, GW_OK, NULL},
        {{WHO, "pwdAccountLockedTime", "000001010000Z", NULL}, GW_UNAUTHENTICATED, ONE_TEXT},
        {{WHO, "pwdAccountLockedTime", "20250101120000Z", NULL},
         GW_OK,
         NULL}, /* the server's matter, at the bind */
    };
#undef WHO

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct plan p = good_plan();
        p.attrs = rows[i].attrs;
        struct fake *f = fake_start(by_plan, &p);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        login(&o, &d, LONG_MS);
        fake_stop(f);
        if (o.rc != rows[i].rc ||
            (rows[i].text != NULL && strstr(o.err.text, rows[i].text) == NULL)) {
            fail_msg("row %zu: %s (%s)", i, gw_status_name(o.rc), o.err.text);
        }
        if (o.rc == GW_UNAUTHENTICATED) { /* suspended: the password was not even sent */
            assert_false(fake_saw(f, PASSWORD));
        }
        fake_free(f);
        gw_arena_release(&o.a);

        f = fake_start(by_plan, &p);
        s = server(f->port);
        refresh(&o, &d, LONG_MS);
        fake_stop(f);
        if (rows[i].rc == GW_UNAUTHENTICATED) {
            assert_int_equal(o.rc, GW_OK);
            assert_int_equal(o.s.state, AUTH_SUSPENDED);
        } else if (rows[i].rc == GW_OK && o.rc == GW_OK) {
            assert_int_equal(o.s.state, AUTH_ACTIVE);
        } else if (o.rc != rows[i].rc && i != 1) { /* row 1 is another person's id */
            fail_msg("row %zu, refresh: %s (%s)", i, gw_status_name(o.rc), o.err.text);
        }
        assert_false(fake_saw(f, PASSWORD));
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

static void refreshes(void **state)
{
    static const char *const other[] = {"uid", "alice", "entryUUID", "another", NULL};
    static const struct {
        const char *name;
        struct plan plan;
        int copies, rc;
        const char *text;
    } rows[] = {
        {"there", {0}, 1, GW_OK, NULL},
        {"gone", {0}, 0, GW_NOT_FOUND, NULL},
        {"size limit", {.person_code = 4}, 0, GW_UNAVAILABLE, NULL},
        {"time limit", {.person_code = 3}, 0, GW_UNAVAILABLE, NULL},
        {"admin limit", {.person_code = 11}, 1, GW_UNAVAILABLE, NULL},
        {"no such base", {.person_code = 32}, 0, GW_UNAVAILABLE, NULL},
        {"referral", {.person_code = 10}, 0, GW_UNAVAILABLE, NULL},
        {"reference", {.person_references = 1}, 0, GW_UNAVAILABLE, "another server"},
        {"twice", {0}, 2, GW_UNAVAILABLE, "two entries"},
        {"somebody else", {.attrs = other}, 1, GW_UNAVAILABLE, "another person"},
        {"service refused", {.bind_code = {49}}, 1, GW_UNAVAILABLE, "bind_dn"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct plan p = rows[i].plan;
        p.copies = rows[i].copies;
        p.attrs = p.attrs != NULL ? p.attrs : alice;
        p.dn = ALICE_DN;
        p.dn_len = strlen(ALICE_DN);
        struct fake *f = fake_start(by_plan, &p);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        refresh(&o, &d, LONG_MS);
        fake_stop(f);
        if (o.rc != rows[i].rc ||
            (rows[i].text != NULL && strstr(o.err.text, rows[i].text) == NULL)) {
            fail_msg("%s: %s (%s)", rows[i].name, gw_status_name(o.rc), o.err.text);
        }
        assert_int_equal(atomic_load(&f->connections), 1);
        fake_free(f);
        gw_arena_release(&o.a);
    }

    /* without a service account a direct bind cannot prove that somebody is gone */
    struct plan p = good_plan();
    p.copies = 0;
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;
    d.bind_dn = d.user_base = d.user_filter = GW_STR("");
    d.direct_bind = GW_STR("uid=${user},ou=people,dc=x");
    refresh(&o, &d, LONG_MS);
    fake_stop(f);
    expect(&o, GW_UNAVAILABLE, "bind_dn");
    assert_int_equal(atomic_load(&f->binds), 0);
    fake_free(f);
    gw_arena_release(&o.a);
}

/* ---- groups ---- */

static const char *wide[AUTH_GROUPS_MAX + 2];

static void group_answers(void **state)
{
    static const char *const two[] = {"cn=a,dc=x", "cn=b,dc=x", NULL}, *const same[] = {"cn=a,dc=x",
                                                                                        "CN=A,dc=x",
                                                                                        NULL};
    static char names[AUTH_GROUPS_MAX + 1][24];
    for (size_t i = 0; i <= AUTH_GROUPS_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "cn=g%zu,dc=x", i);
        wide[i] = names[i];
    }
    const struct {
        const char *name;
        struct plan plan;
        int rc;
        size_t groups;
    } rows[] = {
        {"two", {.groups = two}, GW_OK, 2},
        {"none", {0}, GW_OK, 0},
        {"one, spelled twice", {.groups = same}, GW_OK, 1},
        {"size limit", {.groups = two, .group_code = 4}, GW_UNAVAILABLE, 0},
        {"time limit", {.group_code = 3}, GW_UNAVAILABLE, 0},
        {"no such base", {.group_code = 32}, GW_UNAVAILABLE, 0},
        {"reference", {.groups = two, .group_references = 1}, GW_UNAVAILABLE, 0},
        {"too many", {.groups = wide}, GW_TOO_LARGE, 0},
        {"as many as may be", {.groups = wide + 1}, GW_OK, AUTH_GROUPS_MAX},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct plan p = good_plan();
        p.groups = rows[i].plan.groups;
        p.group_code = rows[i].plan.group_code;
        p.group_references = rows[i].plan.group_references;
        struct fake *f = fake_start(by_plan, &p);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        d.group_mode = AUTH_GROUPS_SEARCH;
        d.group_base = GW_STR("ou=groups,dc=x");
        d.group_filter = GW_STR("(|(member=${dn})(memberUid=${user}))");
        login(&o, &d, LONG_MS);
        fake_stop(f);
        if (o.rc != rows[i].rc || (o.rc == GW_OK && o.s.n_groups != rows[i].groups)) {
            fail_msg("%s: %s, %zu groups (%s)", rows[i].name, gw_status_name(o.rc), o.s.n_groups,
                     o.err.text);
        }
        assert_true(fake_saw(f, "Alice")); /* memberUid is asked with the entry's own spelling */
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

/* every search for groups finds one more, one level up */
static bool endless_levels(struct fake *f, const struct request *r)
{
    static const char *const none[] = {NULL};
    int n = atomic_load(&f->searches);
    char dn[40];

    if (r->op == OP_BIND) {
        answer(r, 0x61, 0);
    } else if (n == 1) {
        answer_entry(r, ALICE_DN, strlen(ALICE_DN), alice);
        answer(r, 0x65, 0);
    } else {
        int size = snprintf(dn, sizeof(dn), "cn=level%d,dc=x", f->data != NULL ? n % 3 : n);
        answer_entry(r, dn, (size_t)size, none);
        answer(r, 0x65, 0);
    }
    return true;
}

static void nesting(void **state)
{
    for (int circle = 0; circle < 2; circle++) {
        struct fake *f = fake_start(endless_levels, circle ? &circle : NULL);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        d.nested = true;
        d.group_base = GW_STR("ou=groups,dc=x");
        login(&o, &d, LONG_MS);
        fake_stop(f);
        if (circle) {
            expect(&o, GW_OK, NULL);
            assert_int_equal(o.s.n_groups, 5); /* two of memberOf, three in the circle */
        } else {
            expect(&o, GW_TOO_LARGE, "deeper");
            assert_int_equal(atomic_load(&f->searches), 11);
        }
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

/* Active Directory: "memberOf;range=0-1" and so on */
static bool by_ranges(struct fake *f, const struct request *r)
{
    static const char *const first[] = {"uid",
                                        "alice",
                                        "entryUUID",
                                        ALICE_ID,
                                        "memberOf;range=0-1",
                                        "cn=a,dc=x",
                                        "memberOf;range=0-1",
                                        "cn=b,dc=x",
                                        NULL};
    static const char *const last[] = {"memberOf;range=2-*", "cn=c,dc=x", NULL},
                             *const again[] = {"memberOf;range=0-1", "cn=c,dc=x", NULL};
    const char *mode = f->data;
    int n = atomic_load(&f->searches);

    if (r->op == OP_BIND) {
        answer(r, 0x61, 0);
        return true;
    }
    answer_entry(r, ALICE_DN, strlen(ALICE_DN),
                 n == 1                       ? first
                 : strcmp(mode, "again") == 0 ? again
                 : strcmp(mode, "lost") == 0  ? alice
                                              : last);
    answer(r, 0x65, n > 1 && strcmp(mode, "cut") == 0 ? 4 : 0);
    return true;
}

static void ranges(void **state)
{
    static char *const modes[] = {"good", "again", "lost", "cut"};

    for (size_t i = 0; i < 4; i++) {
        struct fake *f = fake_start(by_ranges, modes[i]);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        login(&o, &d, LONG_MS);
        fake_stop(f);
        if (i == 0) {
            expect(&o, GW_OK, NULL);
            assert_int_equal(o.s.n_groups, 3);
            assert_true(fake_saw(f, "memberOf;range=2-*"));
        } else {
            expect(&o, GW_UNAVAILABLE, "a part of memberOf");
        }
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

/* pages: RFC 2696, two groups on the first, one on the second */
static bool by_pages(struct fake *f, const struct request *r)
{
    static const char *const none[] = {NULL};
    int n = atomic_load(&f->searches);
    bool endless = f->data != NULL;

    if (r->op == OP_BIND) {
        answer(r, 0x61, 0);
        return true;
    }
    if (n == 1) {
        answer_entry(r, ALICE_DN, strlen(ALICE_DN), alice);
        answer(r, 0x65, 0);
        return true;
    }
    answer_entry(r, n == 2 ? "cn=a,dc=x" : "cn=c,dc=x", 9, none);
    if (n == 2) {
        answer_entry(r, "cn=b,dc=x", 9, none);
    }
    struct ber *b = calloc(7, sizeof(*b));
    ber_small(&b[5], 0x02, 0);
    ber_text(&b[5], 0x04, n == 2 || endless ? "cookie-1" : "");
    ber_tlv(&b[4], 0x30, b[5].p, b[5].n);
    ber_text(&b[3], 0x04, "1.2.840.113556.1.4.319");
    ber_tlv(&b[3], 0x04, b[4].p, b[4].n);
    ber_tlv(&b[2], 0x30, b[3].p, b[3].n);
    ber_result(&b[1], 0);
    ber_message(&b[0], r->id, 0x65, &b[1], &b[2]);
    send_bytes(r->fd, b[0].p, b[0].n);
    free(b);
    return true;
}

/* libldap 2.5 aborts the process on this one too */
static bool page_without_value(struct fake *f, const struct request *r)
{
    struct ber *b = calloc(5, sizeof(*b));

    if (r->op == OP_BIND) {
        answer(r, 0x61, 0);
    } else if (atomic_load(&f->searches) == 1) {
        answer_entry(r, ALICE_DN, strlen(ALICE_DN), alice);
        answer(r, 0x65, 0);
    } else {
        ber_text(&b[3], 0x04, "1.2.840.113556.1.4.319");
        ber_tlv(&b[2], 0x30, b[3].p, b[3].n);
        ber_result(&b[1], 0);
        ber_message(&b[0], r->id, 0x65, &b[1], &b[2]);
        send_bytes(r->fd, b[0].p, b[0].n);
    }
    free(b);
    return true;
}

static void page_control_without_value(void **state)
{
    struct fake *f = fake_start(page_without_value, NULL);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o;

    d.group_mode = AUTH_GROUPS_SEARCH;
    d.group_base = GW_STR("ou=groups,dc=x");
    d.group_filter = GW_STR("(member=${dn})");
    login(&o, &d, LONG_MS);
    fake_stop(f);
    expect(&o, GW_UNAVAILABLE, NULL);
    fake_free(f);
    gw_arena_release(&o.a);
}

static void pages(void **state)
{
    for (int endless = 0; endless < 2; endless++) {
        struct fake *f = fake_start(by_pages, endless ? &endless : NULL);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        d.group_mode = AUTH_GROUPS_SEARCH;
        d.group_base = GW_STR("ou=groups,dc=x");
        d.group_filter = GW_STR("(member=${dn})");
        login(&o, &d, LONG_MS);
        fake_stop(f);
        assert_true(fake_saw(f, "cookie-1"));
        if (endless) {
            expect(&o, GW_UNAVAILABLE, "pages without end");
        } else {
            expect(&o, GW_OK, NULL);
            assert_int_equal(o.s.n_groups, 3);
        }
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

/* ---- direct bind ---- */

static void direct(void **state)
{
    static const struct {
        const char *name;
        struct plan plan;
        int copies, rc;
        bool filter;
        const char *text;
    } rows[] = {
        {"good", {0}, 1, GW_OK, false, NULL},
        {"wrong password", {.bind_code = {49}}, 1, GW_UNAUTHENTICATED, false, ONE_TEXT},
        {"unknown", {.bind_code = {32}}, 1, GW_UNAUTHENTICATED, false, ONE_TEXT},
        {"entry not readable", {.person_code = 32}, 0, GW_UNAVAILABLE, false, "nobody read"},
        {"entry not shown", {0}, 0, GW_UNAVAILABLE, false, "nobody read"},
        {"does not match the filter", {0}, 0, GW_UNAUTHENTICATED, true, ONE_TEXT},
        {"busy", {.person_code = 51}, 0, GW_UNAVAILABLE, true, NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct plan p = rows[i].plan;
        p.copies = rows[i].copies;
        p.dn = ALICE_DN;
        p.dn_len = strlen(ALICE_DN);
        p.attrs = alice;
        struct fake *f = fake_start(by_plan, &p);
        struct auth_ldap_server s = server(f->port);
        struct auth_ldap d = directory(&s, 1);
        struct outcome o;

        d.bind_dn = d.user_base = GW_STR("");
        d.user_filter =
            rows[i].filter ? GW_STR("(&(uid=${user})(employeeType=staff))") : GW_STR("");
        d.direct_bind = GW_STR("uid=${user},ou=people,dc=x");
        login(&o, &d, LONG_MS);
        fake_stop(f);
        if (o.rc != rows[i].rc ||
            (rows[i].text != NULL && strstr(o.err.text, rows[i].text) == NULL)) {
            fail_msg("%s: %s (%s)", rows[i].name, gw_status_name(o.rc), o.err.text);
        }
        assert_int_not_equal(o.err.sys, o.rc == GW_UNAUTHENTICATED ? AUTH_NO_SUCH_USER : -1);
        assert_true(fake_saw(f, "uid=alice,ou=people,dc=x"));
        assert_int_equal(atomic_load(&f->connections), 1);
        fake_free(f);
        gw_arena_release(&o.a);
    }
}

/* ---- several servers ---- */

static struct gw_str address_of(void *ctx, struct gw_str host)
{
    return gw_str_eq_c(host, "known.example") ? GW_STR("127.0.0.1") : GW_STR("");
}

static void failover(void **state)
{
    struct plan good = good_plan(), wrong = good_plan(), busy = good_plan(), refused = good_plan();
    wrong.bind_code[1] = 49;
    busy.person_code = 51;
    refused.bind_code[0] = 49;
    const struct {
        const char *name;
        on_request_fn first;
        struct plan *plan;
        int rc, second; /* connections that the second server sees */
    } rows[] = {
        {"first is silent", never, NULL, GW_OK, 2},
        {"first hangs up", hang_up, NULL, GW_OK, 2},
        {"first is busy", by_plan, &busy, GW_OK, 2},
        {"first is good", by_plan, &good, GW_OK, 0},
        {"49 is final", by_plan, &wrong, GW_UNAUTHENTICATED, 0},
        {"a wrong service password is final", by_plan, &refused, GW_UNAVAILABLE, 0},
        {"a user bind is never sent twice", silent_for_person, NULL, GW_TIMEOUT, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake *f1 = fake_start(rows[i].first, rows[i].plan), *f2 = fake_start(by_plan, &good);
        struct auth_ldap_server s[] = {server(f1->port), server(f2->port)};
        struct auth_ldap d = directory(s, 2);
        struct outcome o;

        login(&o, &d, 1200);
        fake_stop(f1);
        fake_stop(f2);
        if (o.rc != rows[i].rc || atomic_load(&f2->connections) != rows[i].second) {
            fail_msg("%s: %s, %d connections (%s)", rows[i].name, gw_status_name(o.rc),
                     atomic_load(&f2->connections), o.err.text);
        }
        fake_free(f1);
        fake_free(f2);
        gw_arena_release(&o.a);
    }
}

static void addresses(void **state)
{
    struct plan p = good_plan();
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s[] = {server(1), server(f->port),
                                   server(f->port)}; /* nobody listens on port 1 */
    struct auth_ldap d = directory(s, 3);
    struct outcome o = {0};

    s[1].host = GW_STR("unknown.example"); /* skipped: the resolver has no answer */
    s[2].host = GW_STR("known.example");
    gw_arena_init(&o.a, 1 << 20);
    o.rc = auth_ldap_login(&d, GW_STR("alice"), GW_STR(PASSWORD), address_of, NULL,
                           gw_mono_ms() + LONG_MS, &o.a, &o.s, &o.err);
    expect(&o, GW_OK, NULL);
    d.n_servers = 2;
    o.rc = auth_ldap_login(&d, GW_STR("alice"), GW_STR(PASSWORD), address_of, NULL,
                           gw_mono_ms() + LONG_MS, &o.a, &o.s, &o.err);
    expect(&o, GW_UNAVAILABLE, "not known");
    d.n_servers = 0;
    o.rc = auth_ldap_login(&d, GW_STR("alice"), GW_STR(PASSWORD), address_of, NULL,
                           gw_mono_ms() + LONG_MS, &o.a, &o.s, &o.err);
    expect(&o, GW_UNAVAILABLE, "no server");
    fake_stop(f);
    fake_free(f);
    gw_arena_release(&o.a);
}

/* ---- a configuration that must not work ---- */

static void configurations(void **state)
{
    struct plan p = good_plan();
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s = server(f->port);
    const struct auth_ldap good = directory(&s, 1);

    for (int i = 0; i < 14; i++) {
        struct auth_ldap d = good;
        struct outcome o;

        switch (i) {
        case 0:
            d.name = GW_STR("file");
            break;
        case 1:
            d.name = GW_STR("Corp");
            break;
        case 2:
            d.bind_password = GW_STR(""); /* would be a bind as nobody */
            break;
        case 3:
            d.user_filter = GW_STR("(uid=alice)");
            break;
        case 4:
            d.user_filter = GW_STR("(|(uid=${user})(member=${dn}))");
            break;
        case 5:
            d.user_base = GW_STR("");
            break;
        case 6:
            d.id_attr = GW_STR("entryUUID)(x");
            break;
        case 7:
            d.name_attr = GW_STR("");
            break;
        case 8:
            d.nested = true; /* without group_base */
            break;
        case 9:
            d.group_mode = AUTH_GROUPS_SEARCH;
            break;
        case 10:
            d.direct_bind = GW_STR("${user}@corp");
            break;
        case 11:
            d.bind_dn = GW_STR("cn=a\nb");
            break;
        case 12:
            d.group_filter = GW_STR("(member=x)");
            break;
        default:
            d.user_filter = GW_STR("(uid=${user}");
            break;
        }
        login(&o, &d, LONG_MS);
        if (o.rc != GW_UNAVAILABLE || strstr(o.err.text, "directory ") != o.err.text) {
            fail_msg("case %d: %s (%s)", i, gw_status_name(o.rc), o.err.text);
        }
        gw_arena_release(&o.a);
    }
    fake_stop(f);
    assert_int_equal(atomic_load(&f->connections), 0);
    fake_free(f);
}

static void foreign_subjects(void **state)
{
    struct plan p = good_plan();
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    const struct auth_subject old = {.realm = GW_STR("other"), .source_id = GW_STR(ALICE_ID)};
    struct outcome o = {0};

    gw_arena_init(&o.a, 65536);
    assert_int_equal(
        auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &o.s, &o.err),
        GW_UNAVAILABLE);
    d.id_attr = GW_STR("objectGUID"); /* hex of octets, which this id is not */
    refresh(&o, &d, LONG_MS);
    expect(&o, GW_UNAVAILABLE, "not one of this directory");
    fake_stop(f);
    assert_int_equal(atomic_load(&f->connections), 0);
    fake_free(f);
    gw_arena_release(&o.a);
}

/* objectGUID: octets become hex, and hex becomes an escaped filter again */
static void octet_ids(void **state)
{
    static const char *const entry[] = {"uid", "alice", "objectGUID", "\x01\xff*(\\)", NULL};
    struct plan p = good_plan();
    p.attrs = entry;
    struct fake *f = fake_start(by_plan, &p);
    struct auth_ldap_server s = server(f->port);
    struct auth_ldap d = directory(&s, 1);
    struct outcome o = {0};

    d.id_attr = GW_STR("objectGUID");
    login(&o, &d, LONG_MS);
    expect(&o, GW_OK, NULL);
    assert_true(gw_str_eq_c(o.s.source_id, "01ff2a285c29"));
    fake_stop(f);
    fake_free(f);

    f = fake_start(by_plan, &p);
    s = server(f->port);
    struct auth_subject again, old = o.s;
    assert_int_equal(
        auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &again, &o.err),
        GW_OK);
    assert_true(gw_str_eq(again.id, o.s.id));
    fake_stop(f);
    assert_true(fake_saw(f, "\x01\xff*(\\)")); /* decoded by libldap: one assertion value */
    fake_free(f);
    gw_arena_release(&o.a);
}

static void probes(void **state)
{
    struct plan p = good_plan(), refused = good_plan();
    static const char *const shown[] = {"ou=people,dc=x", NULL};
    refused.bind_code[0] = 49;
    p.groups = shown;
    struct fake *f1 = fake_start(by_plan, &p), *f2 = fake_start(by_plan, &refused);
    struct auth_ldap_server s[] = {server(f1->port), server(f2->port), server(1)};
    struct auth_ldap d = directory(s, 3);
    struct gw_error err = {0};
    struct gw_buf report;

    gw_buf_init(&report, 4096);
    d.n_servers = 1;
    assert_int_equal(auth_ldap_probe(&d, NULL, NULL, gw_mono_ms() + LONG_MS, &report, &err), GW_OK);
    assert_non_null(strstr(report.p, "bound, the bases can be read"));
    assert_null(strchr(report.p, '\n'));
    gw_buf_reset(&report);
    d.n_servers = 3;
    assert_int_equal(auth_ldap_probe(&d, NULL, NULL, gw_mono_ms() + LONG_MS, &report, &err),
                     GW_UNAVAILABLE);
    assert_non_null(strstr(err.text, "bind_dn"));
    assert_non_null(strstr(report.p, "bind_dn"));
    assert_non_null(strstr(report.p, "refused"));
    gw_buf_release(&report);
    fake_stop(f1);
    fake_stop(f2);
    fake_free(f1);
    fake_free(f2);
}

static int before(void **state)
{
    auth_ldap_start();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalls),
        cmocka_unit_test(timeout_of_the_directory),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(too_much),
        cmocka_unit_test(start_tls),
        cmocka_unit_test(ldaps_without_tls),
        cmocka_unit_test(plain_only_on_loopback),
        cmocka_unit_test(good_login),
        cmocka_unit_test(lengths_of_four_bytes),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(credentials_that_never_leave),
        cmocka_unit_test(answers),
        cmocka_unit_test(entries),
        cmocka_unit_test(refreshes),
        cmocka_unit_test(group_answers),
        cmocka_unit_test(nesting),
        cmocka_unit_test(ranges),
        cmocka_unit_test(pages),
        cmocka_unit_test(page_control_without_value),
        cmocka_unit_test(direct),
        cmocka_unit_test(failover),
        cmocka_unit_test(addresses),
        cmocka_unit_test(configurations),
        cmocka_unit_test(foreign_subjects),
        cmocka_unit_test(octet_ids),
        cmocka_unit_test(probes),
    };
    return cmocka_run_group_tests(tests, before, NULL);
}
