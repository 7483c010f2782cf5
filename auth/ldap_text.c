/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/ldap_text.c - the quoters for filters and DNs, and the check that a template leaves them in
 * charge.
 *
 * A variable stands only where a value stands, so what is put in can never be read as structure
 * (CVE-2020-14013 and its kin, auth-policy 2.2).
 */
#include "auth/ldap_internal.h"

#include <arpa/inet.h>

#include <ldap.h>

#include "base/encode.h"

#define TEMPLATE_MAX 2048u
#define DEPTH_MAX 16u
#define VAR_USER GW_STR("${user}")
#define VAR_DN GW_STR("${dn}")

bool dir_uses(struct gw_str template, const char *variable)
{
    struct gw_str var = gw_str_eq_c(gw_str_c(variable), "user") ? VAR_USER : VAR_DN;

    return template.n > 0 && memmem(template.p, template.n, var.p, var.n) != NULL;
}

bool dir_is_dn(struct gw_str s)
{
    return s.n > 0 && auth_is_text(s, DIR_DN_MAX);
}

/* ---- the check of a filter: RFC 4515, without blanks between its parts ---- */

struct cursor {
    struct gw_str s;
    size_t at;
    unsigned variables;
    const char *wrong; /* the first thing that is */
};

static char peek(const struct cursor *c)
{
    return c->at < c->s.n ? c->s.p[c->at] : '\0';
}

static bool wrong(struct cursor *c, const char *text)
{
    if (c->wrong == NULL) {
        c->wrong = text;
    }
    return false;
}

static bool take(struct cursor *c, char ch, const char *text)
{
    if (c->at >= c->s.n || c->s.p[c->at] != ch) {
        return wrong(c, text);
    }
    c->at++;
    return true;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_attr_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == ';';
}

/* name, OID or rule; at least one character */
static bool take_name(struct cursor *c)
{
    size_t from = c->at;

    while (c->at < c->s.n && is_attr_char(c->s.p[c->at])) {
        c->at++;
    }
    return c->at > from || wrong(c, "an attribute name is missing, or holds what none may hold");
}

/* One variable at the cursor; op is '=' for equality and substrings, ':' for a matching rule, else
 * another comparison. */
static bool take_variable(struct cursor *c, char op)
{
    struct gw_str rest = gw_str_sub(c->s, c->at, SIZE_MAX);

    c->variables++;
    if (gw_str_starts(rest, VAR_USER)) {
        c->at += VAR_USER.n;
        return op == '=' || wrong(c, "${user} stands only after a plain =");
    }
    if (gw_str_starts(rest, VAR_DN)) {
        c->at += VAR_DN.n;
        return op == '=' || op == ':' || wrong(c, "${dn} stands only after = or :=");
    }
    return wrong(c, "unknown variable: there are ${user} and ${dn}");
}

static bool take_value(struct cursor *c, char op)
{
    bool star = false;

    while (c->at < c->s.n) {
        char ch = c->s.p[c->at];

        if (ch == ')') {
            return true;
        }
        if (ch == '$' && c->at + 1 < c->s.n && c->s.p[c->at + 1] == '{') {
            if (!take_variable(c, op)) {
                return false;
            }
            star = false;
            continue;
        }
        if (ch == '(' || (unsigned char)ch < 0x20 || ch == 0x7f) {
            return wrong(c, "a ( or control character in a value is written \\28, \\0a ...");
        }
        if (ch == '*' && (op != '=' || star)) {
            return wrong(c, "a * may stand after a plain = only, and not twice in a row");
        }
        if (ch == '\\') {
            if (c->at + 2 >= c->s.n || !is_hex(c->s.p[c->at + 1]) || !is_hex(c->s.p[c->at + 2])) {
                return wrong(c, "a \\ is followed by two hex digits");
            }
            c->at += 2;
        }
        star = ch == '*';
        c->at++;
    }
    return wrong(c, "a ) is missing");
}

static bool take_item(struct cursor *c)
{
    char op = peek(c);

    if (op != ':' && !take_name(c)) {
        return false;
    }
    op = peek(c);
    if (op == ':') { /* attr:dn:rule:=value */
        while (peek(c) == ':' && c->at + 1 < c->s.n && c->s.p[c->at + 1] != '=') {
            c->at++;
            if (!take_name(c)) {
                return false;
            }
        }
        if (!take(c, ':', "a comparison is missing")) {
            return false;
        }
    } else if (op == '~' || op == '<' || op == '>') {
        c->at++;
    }
    return take(c, '=', "a comparison is missing") && take_value(c, op);
}

static bool take_filter(struct cursor *c, unsigned depth)
{
    if (depth > DEPTH_MAX) {
        return wrong(c, "nested too deep");
    }
    if (!take(c, '(', "a ( is missing")) {
        return false;
    }
    char ch = peek(c);
    if (ch == '&' || ch == '|') {
        c->at++;
        do {
            if (!take_filter(c, depth + 1)) {
                return false;
            }
        } while (peek(c) == '(');
    } else if (ch == '!') {
        c->at++;
        if (!take_filter(c, depth + 1)) {
            return false;
        }
    } else if (!take_item(c)) {
        return false;
    }
    return take(c, ')', "a ) is missing");
}

/* ---- the check of a DN ---- */

static bool check_dn(struct cursor *c)
{
    bool in_value = false;

    for (; c->at < c->s.n; c->at++) {
        char ch = c->s.p[c->at];

        if (ch == '"') {
            return wrong(c, "quotes are not for DNs: escape by \\");
        } else if (ch == '\\') {
            c->at++;
            if (peek(c) == '$') { /* "\${user}" would still be replaced */
                return wrong(c, "a $ needs no \\");
            }
        } else if (ch == ',' || ch == '+' || ch == ';') {
            in_value = false;
        } else if (ch == '=') {
            in_value = true;
        } else if (ch == '$' && c->at + 1 < c->s.n && c->s.p[c->at + 1] == '{') {
            if (!gw_str_starts(gw_str_sub(c->s, c->at, SIZE_MAX), VAR_USER)) {
                return wrong(c, "unknown variable: there is ${user}");
            }
            if (!in_value) {
                return wrong(c, "${user} stands only in the value of an RDN");
            }
            c->variables++;
            c->at += VAR_USER.n - 1;
        }
    }
    return true;
}

static bool parses_as_dn(struct gw_str template)
{
    struct gw_buf b;
    LDAPDN dn = NULL;
    bool ok = false;

    gw_buf_init(&b, 2 * TEMPLATE_MAX);
    if (dir_dn_expand(&b, template, GW_STR("x"), NULL) == GW_OK &&
        ldap_str2dn(b.p, &dn, LDAP_DN_FORMAT_LDAPV3) == LDAP_SUCCESS) {
        ok = dn != NULL;
        ldap_dnfree(dn);
    }
    gw_buf_release(&b);
    return ok;
}

int auth_ldap_template_check(struct gw_str text, bool is_dn, struct gw_error *err)
{
    struct cursor c = {.s = text};
    const char *what = is_dn ? "DN template" : "filter";

    if (text.n == 0 || text.n > TEMPLATE_MAX || memchr(text.p, '\0', text.n) != NULL ||
        !gw_utf8_valid(text)) {
        return gw_fail(err, GW_INVALID, 0, "a %s is 1 to %u bytes of UTF-8", what, TEMPLATE_MAX);
    }
    bool ok = is_dn ? check_dn(&c) : take_filter(&c, 0);
    if (ok && c.at < text.n) {
        ok = wrong(&c, "something follows the last )");
    }
    if (ok && c.variables == 0) {
        ok = wrong(&c, is_dn ? "there is no ${user} in it"
                             : "there is neither ${user} nor ${dn} in it");
    }
    if (ok && is_dn && !parses_as_dn(text)) {
        ok = wrong(&c, "this is not a DN");
    }
    if (!ok) {
        return gw_fail(err, GW_INVALID, 0, "%s, character %zu: %s", what,
                       (c.at < text.n ? c.at : text.n) + 1, c.wrong);
    }
    return GW_OK;
}

/* ---- putting values in ---- */

void dir_put_assertion(struct gw_buf *out, struct gw_str value)
{
    struct berval in = {value.n, (char *)(value.n > 0 ? value.p : "")}, escaped = {0, NULL};

    if (ldap_bv2escaped_filter_value(&in, &escaped) != 0) {
        out->failed = true;
        return;
    }
    if (escaped.bv_val != NULL) { /* NULL for the empty value */
        gw_buf_add(out, (struct gw_str){escaped.bv_val, escaped.bv_len});
        ldap_memfree(escaped.bv_val);
    }
}

void dir_put_octets(struct gw_buf *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        gw_buf_addf(out, "\\%02x", bytes[i]);
    }
}

static int put_variable(struct gw_buf *out, struct gw_str value, struct gw_error *err)
{
    if (value.n == 0) {
        return gw_fail(err, GW_INVALID, 0, "the filter uses a variable that has no value here");
    }
    dir_put_assertion(out, value);
    return GW_OK;
}

int dir_filter_expand(struct gw_buf *out, struct gw_str template, const struct dir_vars *vars,
                      struct gw_error *err)
{
    int rc = GW_OK;

    for (size_t i = 0; i < template.n && rc == GW_OK;) {
        struct gw_str rest = gw_str_sub(template, i, SIZE_MAX);
        bool after_star = out->n > 0 && out->p[out->n - 1] == '*';

        if (gw_str_starts(rest, VAR_USER) && vars->any_user) {
            if (!after_star) { /* "a*${user}" is a*, not a** */
                gw_buf_add_char(out, '*');
            }
            i += VAR_USER.n;
        } else if (gw_str_starts(rest, VAR_USER)) {
            rc = put_variable(out, vars->user, err);
            i += VAR_USER.n;
        } else if (gw_str_starts(rest, VAR_DN)) {
            rc = put_variable(out, vars->dn, err);
            i += VAR_DN.n;
        } else {
            if (template.p[i] != '*' || !after_star) {
                gw_buf_add_char(out, template.p[i]);
            }
            i++;
        }
        if (out->failed) {
            rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for a filter");
        }
    }
    return rc;
}

/* One value of an RDN, escaped by libldap: as "x=VALUE" without its first two characters. */
static bool put_rdn_value(struct gw_buf *out, struct gw_str value)
{
    LDAPAVA ava = {.la_attr = {1, (char *)"x"},
                   .la_value = {value.n, (char *)value.p},
                   .la_flags = LDAP_AVA_STRING};
    LDAPAVA *rdn[] = {&ava, NULL};
    char *text = NULL;

    if (value.n == 0 || ldap_rdn2str(rdn, &text, LDAP_DN_FORMAT_LDAPV3) != LDAP_SUCCESS ||
        text == NULL) {
        return false;
    }
    bool ok = strncmp(text, "x=", 2) == 0;
    if (ok) {
        gw_buf_add_c(out, text + 2);
    }
    ldap_memfree(text);
    return ok;
}

int dir_dn_expand(struct gw_buf *out, struct gw_str template, struct gw_str user,
                  struct gw_error *err)
{
    for (size_t i = 0; i < template.n && !out->failed;) {
        if (!gw_str_starts(gw_str_sub(template, i, SIZE_MAX), VAR_USER)) {
            gw_buf_add_char(out, template.p[i++]);
            continue;
        }
        if (!put_rdn_value(out, user)) {
            return gw_fail(err, GW_INVALID, 0, "the user name does not fit into a DN");
        }
        i += VAR_USER.n;
    }
    return out->failed ? gw_fail(err, GW_NO_MEMORY, 0, "no memory for a DN") : GW_OK;
}

/* ---- URLs ---- */

static bool is_host_name(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_attr_char(s.p[i]) || s.p[i] == ';') {
            return false;
        }
    }
    return s.n > 0 && s.n <= 253 && s.p[0] != '-' && s.p[0] != '.';
}

/* [v6]:port, host:port, host. false: neither */
static bool split_host(struct gw_str s, bool *v6, struct gw_str *host, struct gw_str *port)
{
    const char *colon;

    *v6 = s.n > 0 && s.p[0] == '[';
    if (*v6) {
        const char *end = memchr(s.p, ']', s.n);
        if (end == NULL) {
            return false;
        }
        *host = gw_str_sub(s, 1, (size_t)(end - s.p) - 1);
        s = gw_str_sub(s, host->n + 2, SIZE_MAX);
        colon = s.n > 0 ? s.p : NULL;
    } else {
        colon = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;
        *host = colon != NULL ? gw_str_sub(s, 0, (size_t)(colon - s.p)) : s;
        s = gw_str_sub(s, host->n, SIZE_MAX);
    }
    *port = colon != NULL ? gw_str_sub(s, 1, SIZE_MAX) : GW_STR("");
    return colon == NULL || (*colon == ':' && port->n > 0);
}

int auth_ldap_url_parse(struct gw_str url, struct gw_arena *a, struct auth_ldap_server *out,
                        struct gw_error *err)
{
    struct auth_ldap_server s = {.ldaps = gw_str_starts(url, GW_STR("ldaps://"))};
    struct gw_str host, port;
    uint8_t address[16];
    uint64_t number;
    bool v6;

    if (!s.ldaps && !gw_str_starts(url, GW_STR("ldap://"))) {
        return gw_fail(err, GW_INVALID, 0,
                       "the URL of a directory starts with ldaps:// or ldap://");
    }
    struct gw_str rest = gw_str_sub(url, s.ldaps ? 8 : 7, SIZE_MAX);
    if (gw_str_ends(rest, GW_STR("/"))) {
        rest.n--;
    }
    if (!split_host(rest, &v6, &host, &port) || (!v6 && !is_host_name(host))) {
        return gw_fail(err, GW_INVALID, 0,
                       "the URL of a directory is ldaps://HOST[:PORT]: no DN, no user, no query");
    }
    number = s.ldaps ? 636 : 389;
    if (port.n > 0 && (!gw_str_u64(port, &number) || number < 1 || number > 65535)) {
        return gw_fail(err, GW_INVALID, 0, "the port of a directory is 1 to 65535");
    }
    s.port = (uint16_t)number;
    s.url = gw_arena_dup(a, url);
    s.host = gw_arena_dup(a, host);
    if (s.url.p == NULL || s.host.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    if (v6) {
        static const uint8_t one[16] = {[15] = 1};
        if (s.host.n != strlen(s.host.p) || inet_pton(AF_INET6, s.host.p, address) != 1) {
            return gw_fail(err, GW_INVALID, 0, "between [ and ] stands an IPv6 address");
        }
        s.loopback = memcmp(address, one, sizeof(one)) == 0;
    } else {
        s.loopback = inet_pton(AF_INET, s.host.p, address) == 1 && address[0] == 127;
    }
    *out = s;
    return GW_OK;
}
