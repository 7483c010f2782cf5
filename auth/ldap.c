/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/ldap.c - login, refresh and probe over a list of servers.
 *
 *   search + bind   service link: bind, find exactly one entry    user link: bind as it    service
 * link: groups direct bind     user link: bind    service link, or the user's own where there is
 * none: the entry, groups
 *
 * The two links never change their identity, so no search runs as the wrong one. Once a user's bind
 * went out the answer is final: the server may have counted it (auth-policy 1.3, 2.2).
 */
#include "auth/ldap_internal.h"

#include <arpa/inet.h>

#include "base/clock.h"

#define ONE_TEXT "wrong user name or password"
#define CODE_INVALID_CREDENTIALS 49
#define ANY_ENTRY GW_STR("(objectClass=*)")

/* ---- one call, one server of it ---- */

struct call {
    const struct auth_ldap *d;
    auth_address_of address;
    void *ctx;
    int64_t deadline_ms;
    struct gw_arena *a; /* of the caller: results */

    /* login */
    struct gw_str user, password;
    /* refresh */
    const struct auth_subject *old;
    struct auth_subject *out;
    /* probe */
    struct gw_buf *report;
};

struct attempt {
    const struct call *call;
    const struct auth_ldap *d;
    const struct auth_ldap_server *server;
    struct gw_str address;
    int64_t deadline_ms; /* this server's share; the whole rest once final */
    bool final;          /* whatever comes now, no other server is asked */
    struct gw_arena scratch;
    struct dir_link *service, *person;
    const struct dir_entry *entry;
};

typedef int (*attempt_fn)(struct attempt *t, struct gw_error *err);

static bool is_literal(struct gw_str host)
{
    uint8_t address[16];
    char text[64];

    if (host.n == 0 || host.n >= sizeof(text)) {
        return false;
    }
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

static int find_address(const struct call *c, const struct auth_ldap_server *s, struct gw_str *out,
                        struct gw_error *err)
{
    if (is_literal(s->host)) {
        *out = s->host;
        return GW_OK;
    }
    *out = c->address != NULL ? c->address(c->ctx, s->host)
                              : GW_STR(""); /* NULL: the command, base/net resolves */
    if (c->address != NULL && out->n == 0) {
        return gw_fail(err, GW_UNAVAILABLE, 0,
                       GW_STR_FMT ": the address of this directory is not known",
                       GW_STR_ARG(s->host));
    }
    return GW_OK;
}

static int run_attempt(struct attempt *t, attempt_fn run, struct gw_error *err)
{
    int rc;

    gw_arena_init(&t->scratch, DIR_SCRATCH_MAX);
    rc = find_address(t->call, t->server, &t->address, err);
    if (rc == GW_OK) {
        rc = run(t, err);
    }
    dir_link_close(t->person);
    dir_link_close(t->service);
    gw_arena_release(&t->scratch);
    return rc;
}

/* Servers in their order, each with its share of the time that is left, so that a silent one leaves
 * some for the next. */
static int each_server(const struct call *c, attempt_fn run, struct gw_error *err)
{
    size_t n = c->d->n_servers;
    int rc = GW_UNAVAILABLE;

    if (n == 0) {
        return gw_fail(err, rc, 0, "the directory has no server");
    }
    for (size_t i = 0; i < n; i++) {
        int64_t left = c->deadline_ms - gw_mono_ms();
        if (left <= 0) {
            return i > 0 ? rc : gw_fail(err, GW_TIMEOUT, 0, "no time left to ask the directory");
        }
        struct attempt t = {.call = c,
                            .d = c->d,
                            .server = &c->d->servers[i],
                            .deadline_ms = c->deadline_ms - left + left / (int64_t)(n - i)};
        rc = run_attempt(&t, run, err);
        if (t.final || (rc != GW_UNAVAILABLE && rc != GW_TIMEOUT)) {
            break;
        }
    }
    return rc;
}

/* ---- steps ---- */

static int open_link(struct attempt *t, struct dir_link **out, struct gw_error *err)
{
    return dir_link_open(out, t->d, t->server, t->address, t->deadline_ms, err);
}

/* The link that may search: bound as the service account, or anonymous without one. */
static int open_service(struct attempt *t, struct gw_error *err)
{
    int code;

    int rc = open_link(t, &t->service, err);
    if (rc != GW_OK || t->d->bind_dn.n == 0) {
        return rc;
    }
    rc = dir_link_bind(t->service, t->d->bind_dn, t->d->bind_password, &code, err);
    if (rc == GW_OK && code != DIR_SUCCESS) {
        /* a wrong password is wrong on the next server too, and counts there */
        t->final = code == CODE_INVALID_CREDENTIALS;
        rc = gw_fail(err, GW_UNAVAILABLE, code,
                     GW_STR_FMT ": the directory refuses hubgate's own account (bind_dn): %s",
                     GW_STR_ARG(t->server->host), dir_code_text(code));
    }
    return rc;
}

static const char **wanted_attrs(struct attempt *t)
{
    const struct auth_ldap *d = t->d;
    const struct gw_str named[] = {d->name_attr, d->id_attr, d->display_attr, d->mail_attr,
                                   d->group_mode == AUTH_GROUPS_MEMBEROF ? GW_STR("memberOf")
                                                                         : GW_STR("")};
    const char **list = gw_arena_alloc(&t->scratch, 32 * sizeof(*list));
    size_t n = 0;

    for (size_t i = 0; list != NULL && i < sizeof(named) / sizeof(named[0]); i++) {
        if (named[i].n == 0) {
            continue;
        }
        list[n] = gw_arena_cstr(&t->scratch, named[i]);
        if (list[n++] == NULL) {
            return NULL;
        }
    }
    for (size_t i = 0; list != NULL && dir_state_attrs[i] != NULL; i++) {
        list[n++] = dir_state_attrs[i];
    }
    return list;
}

/* Up to two entries: the second says that the first is not the one. */
static int find_person(struct attempt *t, struct dir_link *l, struct gw_str base,
                       enum dir_scope scope, struct gw_str filter, struct dir_answer *out,
                       struct gw_error *err)
{
    const char **attrs = wanted_attrs(t);
    const struct dir_query q = {
        .base = base, .scope = scope, .filter = filter, .attrs = attrs, .max_entries = 2};

    if (attrs == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a search");
    }
    int rc = dir_link_search(l, &q, &t->scratch, out, err);
    if (rc != GW_OK || out->n > 1) {
        return rc; /* with two entries "size limit exceeded" says nothing new */
    }
    if (out->code == DIR_NO_SUCH_OBJECT && scope == DIR_BASE && out->n == 0) {
        return GW_OK;
    }
    if (out->code != DIR_SUCCESS) {
        return gw_fail(err, GW_UNAVAILABLE, out->code,
                       GW_STR_FMT ": the search for a person gave no whole answer: %s",
                       GW_STR_ARG(t->server->host), dir_code_text(out->code));
    }
    return GW_OK;
}

static int refuse(struct gw_error *err, int sys)
{
    return gw_fail(err, GW_UNAUTHENTICATED, sys, ONE_TEXT);
}

/* The person's own link; its answer is final. */
static int bind_person(struct attempt *t, struct gw_str dn, struct gw_error *err)
{
    int code;

    int rc = open_link(t, &t->person, err);
    if (rc != GW_OK) {
        return rc;
    }
    t->final = true;
    t->deadline_ms = t->call->deadline_ms;
    dir_link_deadline(t->person, t->deadline_ms);
    rc = dir_link_bind(t->person, dn, t->call->password, &code, err);
    if (rc != GW_OK) {
        return rc;
    }
    switch (code) {
    case DIR_SUCCESS:
        return GW_OK;
    case 19: /* constraintViolation: 389 DS, too many wrong passwords */
    case DIR_NO_SUCH_OBJECT:
    case 34: /* invalidDNSyntax */
    case 48: /* inappropriateAuthentication: the entry has no password */
    case CODE_INVALID_CREDENTIALS:
    case 50: /* insufficientAccessRights */
    case 53: /* unwillingToPerform: 389 DS, inactivated */
        return refuse(err, CODE_INVALID_CREDENTIALS);
    default: /* 8 strongerAuthRequired, 51 busy, 52 unavailable ...: nothing is known about the
                password */
        return gw_fail(err, GW_UNAVAILABLE, code,
                       GW_STR_FMT ": the directory could not check a password: %s",
                       GW_STR_ARG(t->server->host), dir_code_text(code));
    }
}

static int read_subject(struct attempt *t, const struct dir_entry *e, struct auth_subject *s,
                        struct gw_str *raw_name, struct gw_error *err)
{
    return dir_entry_subject(e, t->d, gw_wall_ms(), t->call->a, s, raw_name, err);
}

static int read_groups(struct attempt *t, struct dir_link *l, const struct dir_entry *e,
                       struct gw_str raw_name, struct auth_subject *s, struct gw_error *err)
{
    dir_link_deadline(l, t->deadline_ms);
    return dir_groups(l, t->d, e, raw_name, &t->scratch, t->call->a, s, err);
}

static int expand_user_filter(struct attempt *t, const struct dir_vars *vars,
                              struct gw_str id_filter, struct gw_str *out, struct gw_error *err)
{
    struct gw_buf b;

    gw_buf_init(&b, DIR_FILTER_MAX);
    if (id_filter.n > 0) {
        gw_buf_add_c(&b, "(&");
        gw_buf_add(&b, id_filter);
    }
    int rc =
        dir_filter_expand(&b, t->d->user_filter.n > 0 ? t->d->user_filter : ANY_ENTRY, vars, err);
    if (id_filter.n > 0) {
        gw_buf_add_char(&b, ')');
    }
    if (rc == GW_OK) {
        *out = b.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(&t->scratch, gw_buf_str(&b));
        rc = out->p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a filter");
    }
    gw_buf_release(&b);
    return rc;
}

/* ---- login ---- */

static int login_by_search(struct attempt *t, struct gw_error *err)
{
    const struct dir_vars vars = {.user = t->call->user};
    struct dir_answer found;
    struct auth_subject s;
    struct gw_str filter, raw_name;

    int rc = expand_user_filter(t, &vars, GW_STR(""), &filter, err);
    if (rc == GW_OK) {
        rc = open_service(t, err);
    }
    if (rc == GW_OK) {
        rc = find_person(t, t->service, t->d->user_base, DIR_SUBTREE, filter, &found, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (found.n != 1) {
        return refuse(err, found.n == 0 && found.references == 0 ? AUTH_NO_SUCH_USER : 0);
    }
    const struct dir_entry *e = &found.entries[0];
    rc = read_subject(t, e, &s, &raw_name, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (s.state !=
        AUTH_ACTIVE) { /* before the bind: a suspended account is no oracle for its password */
        return refuse(err, 0);
    }
    rc = bind_person(t, e->dn, err);
    if (rc == GW_OK) {
        rc = read_groups(t, t->service, e, raw_name, &s, err);
    }
    if (rc == GW_OK) {
        *t->call->out = s;
    }
    return rc;
}

static int login_direct(struct attempt *t, struct gw_error *err)
{
    const struct dir_vars vars = {.user = t->call->user};
    struct gw_buf b;
    struct gw_str dn, filter, raw_name;
    struct dir_answer found;
    struct auth_subject s;

    gw_buf_init(&b, 2 * DIR_DN_MAX);
    int rc = dir_dn_expand(&b, t->d->direct_bind, t->call->user, err);
    dn = rc == GW_OK ? gw_arena_dup(&t->scratch, gw_buf_str(&b)) : GW_STR("");
    gw_buf_release(&b);
    if (rc == GW_OK && !dir_is_dn(dn)) {
        rc = refuse(err, 0);
    }
    if (rc == GW_OK) {
        rc = expand_user_filter(t, &vars, GW_STR(""), &filter, err);
    }
    if (rc == GW_OK &&
        t->d->bind_dn.n > 0) { /* first: while it fails another server can still be asked */
        rc = open_service(t, err);
    }
    if (rc == GW_OK) {
        rc = bind_person(t, dn, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    struct dir_link *reader = t->service != NULL ? t->service : t->person;
    dir_link_deadline(reader, t->deadline_ms);
    rc = find_person(t, reader, dn, DIR_BASE, filter, &found, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (found.n != 1) {
        /* the bind held, so the entry is there: either it does not match user_filter, or it may not
         * be read */
        return t->d->user_filter.n > 0 && found.code == DIR_SUCCESS
                   ? refuse(err, 0)
                   : gw_fail(err, GW_UNAVAILABLE, found.code,
                             GW_STR_FMT
                             ": the directory lets a person bind and nobody read the entry",
                             GW_STR_ARG(t->server->host));
    }
    rc = read_subject(t, &found.entries[0], &s, &raw_name, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (s.state != AUTH_ACTIVE) {
        return refuse(err, 0);
    }
    rc = read_groups(t, reader, &found.entries[0], raw_name, &s, err);
    if (rc == GW_OK) {
        *t->call->out = s;
    }
    return rc;
}

/* ---- refresh ---- */

static int refresh(struct attempt *t, struct gw_error *err)
{
    const struct dir_vars vars = {.any_user = true};
    const struct auth_subject *old = t->call->old;
    bool by_dn = t->d->user_base.n ==
                 0; /* direct bind without a base: the entry is looked for where it was */
    struct gw_buf id;
    struct gw_str filter, raw_name;
    struct dir_answer found;
    struct auth_subject s;

    gw_buf_init(&id, DIR_FILTER_MAX);
    int rc = dir_id_filter(&id, t->d, old->source_id, err);
    if (rc == GW_OK) {
        rc = expand_user_filter(t, &vars, gw_buf_str(&id), &filter, err);
    }
    gw_buf_release(&id);
    if (rc == GW_OK) {
        rc = open_service(t, err);
    }
    if (rc == GW_OK) {
        rc = find_person(t, t->service, by_dn ? old->dn : t->d->user_base,
                         by_dn ? DIR_BASE : DIR_SUBTREE, filter, &found, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (found.n == 0 && found.references > 0) {
        return gw_fail(err, GW_UNAVAILABLE, 0,
                       GW_STR_FMT
                       ": nobody found here, but a part of the people is on another server",
                       GW_STR_ARG(t->server->host));
    }
    if (found.n == 0 && t->d->direct_bind.n > 0 && t->d->bind_dn.n == 0) {
        /* only the person could read the entry: anonymous eyes that see nothing prove nothing */
        return gw_fail(
            err, GW_UNAVAILABLE, 0,
            GW_STR_FMT
            ": without bind_dn the directory does not show whether a person is still there",
            GW_STR_ARG(t->server->host));
    }
    if (found.n == 0) {
        return gw_fail(err, GW_NOT_FOUND, 0, "the directory does not know this person any more");
    }
    if (found.n > 1) {
        return gw_fail(err, GW_UNAVAILABLE, 0, GW_STR_FMT ": two entries have one " GW_STR_FMT,
                       GW_STR_ARG(t->server->host), GW_STR_ARG(t->d->id_attr));
    }
    rc = read_subject(t, &found.entries[0], &s, &raw_name, err);
    if (rc == GW_OK && !gw_str_eq(s.source_id, old->source_id)) {
        rc = gw_fail(err, GW_UNAVAILABLE, 0,
                     GW_STR_FMT ": the directory answers with another person",
                     GW_STR_ARG(t->server->host));
    }
    if (rc == GW_OK) {
        rc = read_groups(t, t->service, &found.entries[0], raw_name, &s, err);
    }
    if (rc == GW_OK) {
        *t->call->out = s;
    }
    return rc;
}

/* ---- the calls ---- */

static bool is_attr_name(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              c == '-' || c == '.')) {
            return false;
        }
    }
    return s.n > 0 && s.n <= 128;
}

/* What config/ checks with a line and a column; here so that no mistake there becomes a hole. */
static int check(const struct auth_ldap *d, struct gw_error *err)
{
    const char *wrong = NULL;

    if (!auth_is_realm(d->name) || gw_str_eq_c(d->name, "file") ||
        gw_str_eq_c(d->name, "service")) {
        wrong = "name is a-z 0-9, at most 32, and not file or service";
    } else if (!is_attr_name(d->name_attr) || !is_attr_name(d->id_attr)) {
        wrong = "name_attr and id_attr are attribute names";
    } else if ((d->bind_dn.n > 0 && !dir_is_dn(d->bind_dn)) ||
               (d->bind_dn.n > 0 && auth_password_check(d->bind_password, NULL) != GW_OK)) {
        wrong = "bind_dn is a DN and has a password of 1 to 1024 bytes in one line";
    } else if (d->direct_bind.n == 0 &&
               (d->user_base.n == 0 || !dir_uses(d->user_filter, "user"))) {
        wrong = "without direct_bind there is a user_base, and ${user} in user_filter";
    } else if (d->direct_bind.n > 0 &&
               auth_ldap_template_check(d->direct_bind, true, NULL) != GW_OK) {
        wrong = "direct_bind is a DN with ${user}";
    } else if (d->user_filter.n > 0 &&
               (auth_ldap_template_check(d->user_filter, false, NULL) != GW_OK ||
                dir_uses(d->user_filter, "dn"))) {
        wrong = "user_filter is a filter with ${user}";
    } else if (d->group_mode == AUTH_GROUPS_SEARCH &&
               (d->group_base.n == 0 ||
                auth_ldap_template_check(d->group_filter, false, NULL) != GW_OK)) {
        wrong = "groups by search need a group_base, and ${dn} or ${user} in group_filter";
    } else if (d->nested && d->group_base.n == 0) {
        wrong = "nested groups need a group_base";
    } else if (d->group_filter.n > 0 &&
               auth_ldap_template_check(d->group_filter, false, NULL) != GW_OK) {
        wrong = "group_filter is a filter with ${dn} or ${user}";
    }
    return wrong == NULL ? GW_OK
                         : gw_fail(err, GW_UNAVAILABLE, 0, "directory " GW_STR_FMT ": %s",
                                   GW_STR_ARG(d->name), wrong);
}

static int64_t end_of_call(const struct auth_ldap *d, int64_t deadline_ms)
{
    int64_t end = gw_mono_ms() + d->timeout_ms;

    return d->timeout_ms > 0 && end < deadline_ms ? end : deadline_ms;
}

int auth_ldap_login(const struct auth_ldap *d, struct gw_str user, struct gw_str password,
                    auth_address_of address, void *ctx, int64_t deadline_ms, struct gw_arena *a,
                    struct auth_subject *out, struct gw_error *err)
{
    const struct call c = {.d = d,
                           .address = address,
                           .ctx = ctx,
                           .deadline_ms = end_of_call(d, deadline_ms),
                           .a = a,
                           .user = user,
                           .password = password,
                           .out = out};

    int rc = check(d, err);
    if (rc != GW_OK) {
        return rc;
    }
    /* also where a caller forgot to: no odd spelling, no NUL and no token leaves for a directory */
    if (!auth_is_typed_name(user) || auth_password_check(password, NULL) != GW_OK) {
        return refuse(err, 0);
    }
    return each_server(&c, d->direct_bind.n > 0 ? login_direct : login_by_search, err);
}

int auth_ldap_refresh(const struct auth_ldap *d, const struct auth_subject *old,
                      auth_address_of address, void *ctx, int64_t deadline_ms, struct gw_arena *a,
                      struct auth_subject *out, struct gw_error *err)
{
    const struct call c = {.d = d,
                           .address = address,
                           .ctx = ctx,
                           .deadline_ms = end_of_call(d, deadline_ms),
                           .a = a,
                           .old = old,
                           .out = out};

    int rc = check(d, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (!gw_str_eq(old->realm, d->name) || old->source_id.n == 0 ||
        (d->user_base.n == 0 && !dir_is_dn(old->dn))) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "the subject is not one of directory " GW_STR_FMT,
                       GW_STR_ARG(d->name));
    }
    return each_server(&c, refresh, err);
}

static int can_read(struct attempt *t, struct gw_str base, struct gw_error *err)
{
    static const char *const none[] = {NULL};
    const struct dir_query q = {
        .base = base, .scope = DIR_BASE, .filter = ANY_ENTRY, .attrs = none, .max_entries = 1};
    struct dir_answer answer;

    int rc = dir_link_search(t->service, &q, &t->scratch, &answer, err);
    if (rc == GW_OK && (answer.code != DIR_SUCCESS || answer.n != 1)) {
        rc = gw_fail(err, GW_UNAVAILABLE, answer.code, GW_STR_FMT " cannot be read: %s",
                     GW_STR_ARG(base),
                     answer.code != DIR_SUCCESS ? dir_code_text(answer.code) : "nothing is shown");
    }
    return rc;
}

static int probe(struct attempt *t, struct gw_error *err)
{
    const struct auth_ldap *d = t->d;
    int64_t start = gw_mono_ms();

    int rc = open_service(t, err);
    if (rc == GW_OK && d->user_base.n > 0) {
        rc = can_read(t, d->user_base, err);
    }
    if (rc == GW_OK && d->group_base.n > 0) {
        rc = can_read(t, d->group_base, err);
    }
    if (rc == GW_OK) {
        gw_buf_addf(t->call->report, "%s%s, %s, the bases can be read (%lld ms)",
                    t->server->ldaps || d->start_tls ? "TLS" : "loopback without TLS",
                    t->server->ldaps ? ""
                    : d->start_tls   ? " by StartTLS"
                                     : "",
                    d->bind_dn.n > 0 ? "bound" : "anonymous", (long long)(gw_mono_ms() - start));
    }
    return rc;
}

int auth_ldap_probe(const struct auth_ldap *d, auth_address_of address, void *ctx,
                    int64_t deadline_ms, struct gw_buf *report, struct gw_error *err)
{
    int first = check(d, err);

    if (first == GW_OK && d->n_servers == 0) {
        first = gw_fail(err, GW_UNAVAILABLE, 0, "directory " GW_STR_FMT " has no server",
                        GW_STR_ARG(d->name));
    }
    for (size_t i = 0; i < d->n_servers && (i > 0 || first == GW_OK); i++) {
        struct auth_ldap one = *d;
        struct gw_error failure = {0};
        int64_t now = gw_mono_ms(), left = deadline_ms > now ? deadline_ms - now : 0;

        one.servers = &d->servers[i];
        one.n_servers = 1;
        const struct call c = {.d = &one,
                               .address = address,
                               .ctx = ctx,
                               .deadline_ms =
                                   end_of_call(d, now + left / (int64_t)(d->n_servers - i)),
                               .report = report};
        gw_buf_addf(report, "%s" GW_STR_FMT ": ", i > 0 ? "\n" : "", GW_STR_ARG(d->servers[i].url));
        int rc = each_server(&c, probe, &failure);
        if (rc != GW_OK) {
            gw_buf_add_c(report, failure.text);
        }
        if (rc != GW_OK && first == GW_OK) {
            first = rc;
            if (err != NULL) {
                *err = failure;
            }
        }
    }
    return first;
}
