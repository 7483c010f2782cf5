/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/ldap_link.c - one LDAP connection: libldap encodes and decodes, base/net does everything
 * else.
 *
 *   open -> (bind -> search ...) -> close        any failure -> dead: nothing is sent any more,
 * only close
 *
 * libldap never connects, resolves, starts TLS, waits or chases referrals here, because none of its
 * time-outs bounds every stall and a failed StartTLS leaves it ready to bind in clear text
 * (auth-policy 1.1, 1.2).
 */
#include "auth/ldap_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <ldap.h>
#include <openldap.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/net.h"
#include "base/sha.h"

#define MESSAGE_MAX ((size_t)4 << 20)   /* one message */
#define INCOMING_MAX ((size_t)32 << 20) /* all that one connection may send us */
#define PAGE_SIZE 500
#define PAGES_MAX 64u
#define ATTRS_MAX 64u
#define CONTROL_DOMAIN_SCOPE                                                                       \
    "1.2.840.113556.1.4.1339" /* MS-ADTS 3.1.1.3.4.1.2: no references, please */

struct dir_link {
    struct gw_conn *conn;
    LDAP *ld;
    struct gw_error wire; /* why a read or write failed; status 0: none did */
    size_t incoming;      /* bytes that may still come */
    uint8_t *message;     /* the one that libldap is reading, it passed the gate */
    size_t n, cap, at;
    int id; /* of the request that is out: its answers alone may come */
    bool dead;
    bool secret; /* what libldap writes now holds a password */
    char peer[64];
};

/* ---- the socket layer under libldap ---- */

static ptrdiff_t wire_failed(struct dir_link *l)
{
    l->dead = true;
    errno = ECONNRESET; /* EAGAIN would make libldap come back for ever */
    return -1;
}

static int on_setup(Sockbuf_IO_Desc *io, void *arg)
{
    io->sbiod_pvt = arg;
    return 0;
}

static int on_remove(Sockbuf_IO_Desc *io)
{
    return 0;
}

/* "Data is ready" always: libldap then reads at once, and it is the read that waits, against our
 * deadline. */
static int on_ctrl(Sockbuf_IO_Desc *io, int option, void *arg)
{
    return option == LBER_SB_OPT_DATA_READY;
}

static bool reserve(struct dir_link *l, size_t n)
{
    if (n <= l->cap) {
        return true;
    }
    size_t cap = n < 4096 ? 4096 : n;
    uint8_t *p = gw_realloc(l->message, cap);
    if (p == NULL) {
        gw_fail(&l->wire, GW_NO_MEMORY, 0, "no memory for a message of the directory");
        return false;
    }
    l->message = p;
    l->cap = cap;
    return true;
}

/* More bytes of the message, up to n of it. */
static bool read_to(struct dir_link *l, size_t n)
{
    if (n > MESSAGE_MAX || n - l->n > l->incoming) {
        gw_fail(&l->wire, GW_UNAVAILABLE, 0,
                "%s: a message of %zu bytes, or more than %zu MiB in all", l->peer, n,
                INCOMING_MAX >> 20);
        return false;
    }
    if (!reserve(l, n)) {
        return false;
    }
    while (l->n < n) {
        ptrdiff_t got = gw_conn_read(l->conn, l->message + l->n, n - l->n, &l->wire);
        if (got == 0) {
            gw_fail(&l->wire, GW_UNAVAILABLE, 0, "%s: the directory closed the connection",
                    l->peer);
        }
        if (got <= 0) {
            return false;
        }
        l->n += (size_t)got;
        l->incoming -= (size_t)got;
    }
    return true;
}

/* One whole message, and not a byte more: what follows the answer to StartTLS must still be seen on
 * the socket. */
static bool read_message(struct dir_link *l, struct dir_message *m)
{
    bool wrong;
    size_t need;

    l->n = l->at = 0;
    while ((need = dir_gate_need(l->message, l->n, &wrong)) > l->n && !wrong) {
        if (!read_to(l, need)) {
            return false;
        }
    }
    if (wrong || !dir_gate_open((struct gw_str){(const char *)l->message, l->n}, m)) {
        gw_fail(&l->wire, GW_UNAVAILABLE, 0, "%s: this is not LDAP, or not what was asked for",
                l->peer);
        return false;
    }
    if (m->id != l->id) {
        gw_fail(&l->wire, GW_UNAVAILABLE, m->code,
                m->id == 0 ? "%s: the directory ends the connection"
                           : "%s: an answer to nothing that was asked",
                l->peer);
        return false;
    }
    return true;
}

static ber_slen_t on_read(Sockbuf_IO_Desc *io, void *p, ber_len_t n)
{
    struct dir_link *l = io->sbiod_pvt;
    struct dir_message m;

    if (l->dead || (l->at == l->n && !read_message(l, &m))) {
        return wire_failed(l);
    }
    if (n > l->n - l->at) {
        n = l->n - l->at;
    }
    memcpy(p, l->message + l->at, n);
    l->at += n;
    return (ber_slen_t)n;
}

static ber_slen_t on_write(Sockbuf_IO_Desc *io, void *p, ber_len_t n)
{
    struct dir_link *l = io->sbiod_pvt;

    if (l->dead) {
        return wire_failed(l);
    }
    ptrdiff_t done = gw_conn_write(l->conn, p, n, &l->wire);
    if (l->secret) { /* libldap's own copy, which it keeps for chasing referrals */
        gw_wipe(p, n);
    }
    return done < 0 ? wire_failed(l) : done;
}

static int on_close(Sockbuf_IO_Desc *io)
{
    return 0; /* the connection is ours to close */
}

static Sockbuf_IO socket_layer = {
    .sbi_setup = on_setup,
    .sbi_remove = on_remove,
    .sbi_ctrl = on_ctrl,
    .sbi_read = on_read,
    .sbi_write = on_write,
    .sbi_close = on_close,
};

/* ---- failing ---- */

/* An operation without a result: nothing more goes over this link. No text of the server is
 * repeated, it may hold anything. */
static int broken(struct dir_link *l, const char *doing, int code, struct gw_error *err)
{
    l->dead = true;
    if (l->wire.status != GW_OK) {
        return gw_fail(err, l->wire.status, l->wire.sys, "%s (%s)", l->wire.text, doing);
    }
    if (code == LDAP_NO_MEMORY) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    return gw_fail(err, GW_UNAVAILABLE, code, "%s: %s: %s", l->peer, doing, ldap_err2string(code));
}

static int ld_code(const struct dir_link *l)
{
    int code = LDAP_OTHER;

    ldap_get_option(l->ld, LDAP_OPT_RESULT_CODE, &code);
    return code != LDAP_SUCCESS ? code : LDAP_OTHER;
}

const char *dir_code_text(int code)
{
    return ldap_err2string(code);
}

/* The next message of one operation; its type must be one that this operation may have. */
static int next_message(struct dir_link *l, int msgid, const char *doing, LDAPMessage **out,
                        struct gw_error *err)
{
    LDAPMessage *m = NULL;

    l->id = msgid;
    if (ldap_result(l->ld, msgid, LDAP_MSG_ONE, NULL, &m) <= 0 || m == NULL) {
        return broken(l, doing, ld_code(l), err);
    }
    *out = m;
    return GW_OK;
}

/* The result of an operation that has one message. */
static int only_result(struct dir_link *l, int msgid, int type, const char *doing, int *code,
                       struct gw_error *err)
{
    LDAPMessage *m = NULL;

    int rc = next_message(l, msgid, doing, &m, err);
    if (rc != GW_OK) {
        return rc;
    }
    int parsed = ldap_msgtype(m) == type
                     ? ldap_parse_result(l->ld, m, code, NULL, NULL, NULL, NULL, 0)
                     : LDAP_PROTOCOL_ERROR;
    ldap_msgfree(m);
    return parsed == LDAP_SUCCESS ? GW_OK : broken(l, doing, parsed, err);
}

/* ---- open ---- */

static void initialise(void)
{
    int level;

    ldap_get_option(NULL, LDAP_OPT_DEBUG_LEVEL,
                    &level); /* libldap's first call must not be in two threads at once */
}

static void initialise_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, initialise);
}

void auth_ldap_start(void)
{
    setenv("LDAPNOINIT", "1", 1);
    initialise_once();
}

/* Every option that ldap.conf, ldaprc or LDAP* variables could have set otherwise and that matters
 * here. */
static int set_options(LDAP *ld, Sockbuf *sb)
{
    const int version = LDAP_VERSION3, deref = LDAP_DEREF_NEVER, none = LDAP_NO_LIMIT;
    ber_len_t max = MESSAGE_MAX; /* the gate has it too */
    const struct timeval for_ever = {-1, 0};

    if (ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_DEREF, &deref) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_SIZELIMIT, &none) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_TIMELIMIT, &none) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_TIMEOUT, &for_ever) != LDAP_OPT_SUCCESS ||
        ldap_set_option(ld, LDAP_OPT_RESTART, LDAP_OPT_ON) != LDAP_OPT_SUCCESS) {
        return LDAP_LOCAL_ERROR;
    }
    return ber_sockbuf_ctrl(sb, LBER_SB_OPT_SET_MAX_INCOMING, &max) == 1 ? LDAP_SUCCESS
                                                                         : LDAP_LOCAL_ERROR;
}

static int attach_codec(struct dir_link *l, struct gw_error *err)
{
    Sockbuf *sb = NULL;
    LDAP *ld = NULL;

    initialise_once();
    int code = ldap_init_fd(gw_conn_fd(l->conn), LDAP_PROTO_EXT, NULL, &ld);
    if (code != LDAP_SUCCESS) {
        return broken(l, "libldap", code, err);
    }
    if (ldap_get_option(ld, LDAP_OPT_SOCKBUF, &sb) != LDAP_OPT_SUCCESS ||
        ber_sockbuf_add_io(sb, &socket_layer, LBER_SBIOD_LEVEL_PROVIDER, l) != 0) {
        /* without a layer libldap crashes when it says goodbye: the handle is lost instead, with
         * the memory gone already */
        return broken(l, "libldap", LDAP_NO_MEMORY, err);
    }
    l->ld = ld;
    code = set_options(ld, sb);
    return code == LDAP_SUCCESS ? GW_OK : broken(l, "libldap", code, err);
}

/* RFC 4511 4.14, without libldap: nothing of a peer that has shown no certificate is worth its
 * parser. Nothing more is sent unless the answer is "success", the right one, and the last byte
 * that came. */
static int ask_for_tls(struct dir_link *l, struct gw_error *err)
{
    static const char request[] = "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" LDAP_EXOP_START_TLS;
    struct dir_message m = {0};

    l->id = 1;
    if (gw_conn_write(l->conn, request, sizeof(request) - 1, &l->wire) < 0 ||
        !read_message(l, &m)) {
        return broken(l, "StartTLS", LDAP_SERVER_DOWN, err);
    }
    l->at = l->n;
    if (m.op != DIR_OP_EXTENDED || (m.oid.n > 0 && !gw_str_eq_c(m.oid, LDAP_EXOP_START_TLS))) {
        return broken(l, "StartTLS", LDAP_PROTOCOL_ERROR, err);
    }
    if (m.code != LDAP_SUCCESS) {
        l->dead = true;
        return gw_fail(err, GW_UNAVAILABLE, m.code, "%s: the directory refuses StartTLS: %s",
                       l->peer, ldap_err2string(m.code));
    }
    if (gw_conn_pending(l->conn)) {
        l->dead = true;
        return gw_fail(err, GW_UNAVAILABLE, 0,
                       "%s: bytes in clear text behind the answer to StartTLS", l->peer);
    }
    return GW_OK;
}

static int start_tls(struct dir_link *l, const struct gw_dial *dial, struct gw_error *err)
{
    int rc = gw_conn_start_tls(l->conn, dial, err);

    if (rc != GW_OK) {
        l->dead = true;
    }
    return rc;
}

int dir_link_open(struct dir_link **out, const struct auth_ldap *d,
                  const struct auth_ldap_server *s, struct gw_str address, int64_t deadline_ms,
                  struct gw_error *err)
{
    const struct gw_dial dial = {.host = s->host,
                                 .port = s->port,
                                 .address = address,
                                 .ca_file = d->ca_file,
                                 .deadline_ms = deadline_ms};

    if (!s->ldaps && !d->start_tls && !s->loopback) {
        return gw_fail(err, GW_UNAVAILABLE, 0,
                       GW_STR_FMT ": plain ldap:// would show every password on the network; write "
                                  "ldaps:// or start_tls: true",
                       GW_STR_ARG(s->url));
    }
    struct dir_link *l = gw_alloc(sizeof(*l));
    if (l == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    l->incoming = INCOMING_MAX;
    snprintf(l->peer, sizeof(l->peer), "%.*s:%u", s->host.n < 50 ? (int)s->host.n : 50,
             s->host.n > 0 ? s->host.p : "", (unsigned)s->port);

    int rc = gw_conn_dial(&l->conn, &dial, err);
    if (rc == GW_OK && !s->ldaps && d->start_tls) {
        rc = ask_for_tls(l, err);
    }
    if (rc == GW_OK && (s->ldaps || d->start_tls)) {
        rc = start_tls(l, &dial, err);
    }
    if (rc == GW_OK) {
        rc = attach_codec(l, err);
    }
    if (rc == GW_OK && !gw_conn_is_tls(l->conn) &&
        !s->loopback) { /* said once more, where it would matter */
        rc = gw_fail(err, GW_UNAVAILABLE, 0, "%s: no TLS", l->peer);
    }
    if (rc != GW_OK) {
        l->dead = true;
        dir_link_close(l);
        return rc;
    }
    *out = l;
    return GW_OK;
}

void dir_link_deadline(struct dir_link *l, int64_t deadline_ms)
{
    gw_conn_deadline(l->conn, deadline_ms);
}

void dir_link_close(struct dir_link *l)
{
    if (l == NULL) {
        return;
    }
    if (l->ld != NULL) {
        ldap_unbind_ext(l->ld, NULL,
                        NULL); /* says goodbye through on_write, unless the link is dead */
    }
    gw_conn_close(l->conn);
    gw_free(l->message);
    gw_free(l);
}

/* ---- bind ---- */

int dir_link_bind(struct dir_link *l, struct gw_str dn, struct gw_str password, int *code,
                  struct gw_error *err)
{
    struct berval secret = {password.n, (char *)password.p};
    char name[DIR_DN_MAX + 1];
    int msgid;

    /* Each of these is a bind as nobody that succeeds on some servers (RFC 4513 5.1.1, 5.1.2;
     * auth-policy 2.2). */
    if (!dir_is_dn(dn) || auth_password_check(password, NULL) != GW_OK) {
        return gw_fail(err, GW_INVALID, 0, "not a DN and a password to bind with");
    }
    if (l->dead) {
        return broken(l, "bind", LDAP_SERVER_DOWN, err);
    }
    memcpy(name, dn.p, dn.n);
    name[dn.n] = '\0';
    l->secret = true;
    int sent = ldap_sasl_bind(l->ld, name, LDAP_SASL_SIMPLE, &secret, NULL, NULL, &msgid);
    l->secret = false;
    if (sent != LDAP_SUCCESS) {
        return broken(l, "bind", sent, err);
    }
    return only_result(l, msgid, LDAP_RES_BIND, "bind", code, err);
}

/* ---- search ---- */

static bool is_asked(const char *const *attrs, struct gw_str name)
{
    struct gw_str rest = name, base, wanted, asked;

    (void)gw_str_split(&rest, ';', &base);
    for (; *attrs != NULL; attrs++) {
        asked = gw_str_c(*attrs);
        (void)gw_str_split(&asked, ';', &wanted);
        if (gw_str_ieq(base, wanted)) {
            return true;
        }
    }
    return false;
}

static bool copy_attr(struct dir_attr *out, const struct berval *name, const struct berval *values,
                      struct gw_arena *a)
{
    size_t n = 0;

    while (values != NULL && values[n].bv_val != NULL) {
        n++;
    }
    struct gw_str *copies = gw_arena_alloc(a, (n + 1) * sizeof(*copies));
    out->name = gw_arena_dup(a, (struct gw_str){name->bv_val, name->bv_len});
    if (copies == NULL || out->name.p == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        copies[i] = gw_arena_dup(a, (struct gw_str){values[i].bv_val, values[i].bv_len});
        if (copies[i].p == NULL) {
            return false;
        }
    }
    out->values = copies;
    out->n = n;
    return true;
}

/* RFC 4511 4.1.7: once per entry. A second list would hide behind the first. */
static bool is_repeated(const struct dir_attr *attrs, size_t n, const struct berval *name)
{
    for (size_t i = 0; i < n; i++) {
        if (gw_str_ieq(attrs[i].name, (struct gw_str){name->bv_val, name->bv_len})) {
            return true;
        }
    }
    return false;
}

/* Only what was asked for is copied. @return an LDAP code */
static int copy_entry(struct dir_link *l, LDAPMessage *m, const char *const *wanted,
                      struct gw_arena *a, struct dir_entry *out)
{
    struct dir_attr attrs[ATTRS_MAX];
    struct berval dn, name, *values = NULL;
    BerElement *ber = NULL;
    size_t n = 0;

    int code = ldap_get_dn_ber(l->ld, m, &ber, &dn);
    while (code == LDAP_SUCCESS) {
        code = ldap_get_attribute_ber(l->ld, m, ber, &name, &values);
        if (code != LDAP_SUCCESS || name.bv_val == NULL) {
            break;
        }
        if (is_asked(wanted, (struct gw_str){name.bv_val, name.bv_len})) {
            if (n == ATTRS_MAX || is_repeated(attrs, n, &name)) {
                code = LDAP_PROTOCOL_ERROR;
            } else if (!copy_attr(&attrs[n++], &name, values, a)) {
                code = LDAP_NO_MEMORY;
            }
        }
        ber_memfree(values);
        values = NULL;
    }
    if (code == LDAP_SUCCESS && !dir_is_dn((struct gw_str){dn.bv_val, dn.bv_len})) {
        code =
            LDAP_PROTOCOL_ERROR; /* empty would bind as nobody, a NUL would bind as somebody else */
    }
    if (code == LDAP_SUCCESS) {
        struct dir_attr *kept = gw_arena_alloc(a, (n + 1) * sizeof(*kept));
        out->dn = gw_arena_dup(a, (struct gw_str){dn.bv_val, dn.bv_len});
        if (kept == NULL || out->dn.p == NULL) {
            code = LDAP_NO_MEMORY;
        } else {
            memcpy(kept, attrs, n * sizeof(*kept));
            out->attrs = kept;
            out->n_attrs = n;
        }
    }
    if (ber != NULL) {
        ber_free(ber, 0);
    }
    return code;
}

/* The final message of a search, and the cookie for the next page. @return an LDAP code */
static int read_done(struct dir_link *l, LDAPMessage *m, struct dir_answer *out,
                     struct berval *cookie)
{
    LDAPControl **controls = NULL;
    ber_int_t estimate;

    int code = ldap_parse_result(l->ld, m, &out->code, NULL, NULL, NULL, &controls, 0);
    if (code != LDAP_SUCCESS) {
        return code;
    }
    LDAPControl *paged = ldap_control_find(LDAP_CONTROL_PAGEDRESULTS, controls, NULL);
    if (paged != NULL && cookie != NULL) {
        /* libldap aborts the process without a value (ber_init: assert) */
        code = paged->ldctl_value.bv_val == NULL
                   ? LDAP_PROTOCOL_ERROR
                   : ldap_parse_pageresponse_control(l->ld, paged, &estimate, cookie);
    }
    ldap_controls_free(controls);
    return code;
}

/* One request and all its messages. cookie NULL: not paged. */
static int search_page(struct dir_link *l, const struct dir_query *q, const char *base,
                       const char *filter, struct berval *cookie, struct gw_arena *a,
                       struct dir_answer *out, struct gw_error *err)
{
    static char *none[] = {(char *)LDAP_NO_ATTRS, NULL};
    LDAPControl scope = {.ldctl_oid = (char *)CONTROL_DOMAIN_SCOPE},
                *controls[3] = {&scope, NULL, NULL};
    char **attrs = q->attrs[0] != NULL ? (char **)q->attrs : none;
    int msgid, code;

    if (cookie != NULL) {
        code = ldap_create_page_control(l->ld, PAGE_SIZE, cookie, 0, &controls[1]);
        ber_memfree(cookie->bv_val);
        *cookie = (struct berval){0, NULL};
        if (code != LDAP_SUCCESS) {
            return broken(l, "search", code, err);
        }
    }
    int limit = cookie != NULL ? LDAP_NO_LIMIT : (int)q->max_entries;
    code = ldap_search_ext(l->ld, base, q->scope == DIR_BASE ? LDAP_SCOPE_BASE : LDAP_SCOPE_SUBTREE,
                           filter, attrs, 0, controls, NULL, NULL, limit, &msgid);
    ldap_control_free(controls[1]);
    if (code != LDAP_SUCCESS) {
        return broken(l, "search", code, err);
    }
    for (;;) {
        LDAPMessage *m = NULL;
        int rc = next_message(l, msgid, "search", &m, err);
        if (rc != GW_OK) {
            return rc;
        }
        int type = ldap_msgtype(m);
        code = LDAP_SUCCESS;
        if (type == LDAP_RES_SEARCH_ENTRY && out->n == q->max_entries) {
            out->more = true;
        } else if (type == LDAP_RES_SEARCH_ENTRY) {
            code = copy_entry(l, m, q->attrs, a, &out->entries[out->n]);
            out->n += code == LDAP_SUCCESS;
        } else if (type == LDAP_RES_SEARCH_REFERENCE) {
            out->references++;
        } else if (type == LDAP_RES_SEARCH_RESULT) {
            code = read_done(l, m, out, cookie);
        } else {
            code = LDAP_PROTOCOL_ERROR;
        }
        ldap_msgfree(m);
        if (code != LDAP_SUCCESS) {
            return broken(l, "search", code, err);
        }
        if (type == LDAP_RES_SEARCH_RESULT || out->more) {
            return GW_OK;
        }
    }
}

int dir_link_search(struct dir_link *l, const struct dir_query *q, struct gw_arena *a,
                    struct dir_answer *out, struct gw_error *err)
{
    struct dir_answer answer = {.code = LDAP_OTHER};
    struct berval cookie = {0, NULL};
    int rc = GW_OK;

    if (l->dead) {
        return broken(l, "search", LDAP_SERVER_DOWN, err);
    }
    const char *base = gw_arena_cstr(a, q->base), *filter = gw_arena_cstr(a, q->filter);
    answer.entries = gw_arena_alloc(a, (q->max_entries + 1) * sizeof(*answer.entries));
    if (base == NULL || filter == NULL || answer.entries == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a search");
    }
    for (unsigned page = 0;; page++) {
        rc = search_page(l, q, base, filter, q->paged ? &cookie : NULL, a, &answer, err);
        if (rc != GW_OK || answer.more || answer.code != LDAP_SUCCESS || cookie.bv_len == 0) {
            break;
        }
        if (page == PAGES_MAX) {
            rc = broken(l, "search in pages without end", LDAP_OTHER, err);
            break;
        }
    }
    ber_memfree(cookie.bv_val);
    if (answer.more) {
        l->dead = true; /* the rest is still on its way */
    }
    if (rc == GW_OK) {
        *out = answer;
    }
    return rc;
}
