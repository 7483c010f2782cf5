/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/ldap_entry.c - one directory entry -> one subject.
 *
 * The account states are the table of auth-policy 2.1: suspended by an administrator or by date; a
 * lock after too many failures is the server's to enforce at the bind, and does not stop tokens
 * (else three wrong guesses stop a victim's CI).
 */
#include "auth/ldap_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/encode.h"

#define ID_MAX 256u
#define TEXT_MAX 256u
#define AD_NEVER INT64_C(0x7fffffffffffffff)
#define AD_EPOCH_S INT64_C(11644473600) /* 1601 to 1970 */

/* ---- attributes ---- */

const struct dir_attr *dir_entry_attr(const struct dir_entry *e, struct gw_str name)
{
    for (size_t i = 0; i < e->n_attrs; i++) {
        if (gw_str_ieq(e->attrs[i].name, name)) {
            return &e->attrs[i];
        }
    }
    return NULL;
}

const struct dir_attr *dir_entry_range(const struct dir_entry *e, struct gw_str name, size_t *next)
{
    for (size_t i = 0; i < e->n_attrs; i++) {
        struct gw_str rest = e->attrs[i].name, base, option, high;
        uint64_t number;

        if (!gw_str_split(&rest, ';', &base) || !gw_str_ieq(base, name) || rest.p == NULL ||
            rest.n < 6 || !gw_str_ieq(gw_str_sub(rest, 0, 6), GW_STR("range="))) {
            continue;
        }
        option = gw_str_sub(rest, 6, SIZE_MAX);
        if (!gw_str_split(&option, '-', &high) || option.p == NULL) {
            continue;
        }
        high = option;
        if (gw_str_eq(high, GW_STR("*"))) {
            *next = 0;
            return &e->attrs[i];
        }
        if (gw_str_u64(high, &number) && number < SIZE_MAX) {
            *next = (size_t)number + 1;
            return &e->attrs[i];
        }
    }
    return NULL;
}

/* The first value; empty if there is none. */
static struct gw_str first(const struct dir_entry *e, struct gw_str name)
{
    const struct dir_attr *a = name.n > 0 ? dir_entry_attr(e, name) : NULL;

    return a != NULL && a->n > 0 ? a->values[0] : GW_STR("");
}

/* ---- account state ---- */

const char *const dir_state_attrs[] = {"userAccountControl",
                                       "accountExpires",
                                       "nsAccountLock",
                                       "shadowExpire",
                                       "pwdAccountLockedTime",
                                       "loginDisabled",
                                       NULL};

static bool to_number(struct gw_str s, int64_t *out)
{
    char text[24], *end;

    if (s.n == 0 || s.n >= sizeof(text)) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (i == 0 && s.p[i] == '-' && s.n > 1))) {
            return false;
        }
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0;
}

/* Each says whether the value suspends; a number that is none suspends too. */
static bool is_ad_disabled(struct gw_str v, int64_t now_ms)
{
    int64_t n;
    return !to_number(v, &n) || (n & 0x2) != 0;
}

static bool is_ad_expired(struct gw_str v, int64_t now_ms)
{
    int64_t n;
    return !to_number(v, &n) ||
           (n != 0 && n != AD_NEVER && n / 10000000 - AD_EPOCH_S < now_ms / 1000);
}

static bool is_shadow_expired(struct gw_str v, int64_t now_ms)
{
    int64_t n;
    return !to_number(v, &n) || (n > 0 && n <= now_ms / 86400000);
}

static bool is_true(struct gw_str v, int64_t now_ms)
{
    return gw_str_ieq_c(v, "true");
}

static bool is_locked_for_good(struct gw_str v, int64_t now_ms)
{
    return gw_str_eq_c(v, "000001010000Z"); /* SSSD's PERMANENTLY_LOCKED_ACCOUNT; another time is a
                                               lock by failures */
}

static bool is_suspended(const struct dir_entry *e, int64_t now_ms)
{
    static bool (*const rules[])(struct gw_str, int64_t) = {
        is_ad_disabled, is_ad_expired, is_true, is_shadow_expired, is_locked_for_good, is_true};

    for (size_t i = 0; dir_state_attrs[i] != NULL; i++) {
        const struct dir_attr *a = dir_entry_attr(e, gw_str_c(dir_state_attrs[i]));
        for (size_t v = 0; a != NULL && v < a->n; v++) {
            if (rules[i](a->values[v], now_ms)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- id and name ---- */

/* Active Directory's ids are octets, everybody else's are text. */
static bool id_is_octets(const struct auth_ldap *d)
{
    return gw_str_ieq_c(d->id_attr, "objectGUID") || gw_str_ieq_c(d->id_attr, "objectSid");
}

static int read_id(const struct dir_entry *e, const struct auth_ldap *d, struct gw_arena *a,
                   struct gw_str *out, struct gw_error *err)
{
    const struct dir_attr *attr = dir_entry_attr(e, d->id_attr);
    struct gw_str id = attr != NULL && attr->n == 1 ? attr->values[0] : GW_STR("");
    char hex[2 * ID_MAX + 1];

    if (id.n == 0 || id.n > ID_MAX || (!id_is_octets(d) && !auth_is_text(id, ID_MAX))) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "the entry has no single readable " GW_STR_FMT,
                       GW_STR_ARG(d->id_attr));
    }
    if (id_is_octets(d)) {
        gw_hex_encode(hex, id.p, id.n);
        id = gw_str_c(hex);
    }
    *out = gw_arena_dup(a, id);
    return out->p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
}

int dir_id_filter(struct gw_buf *out, const struct auth_ldap *d, struct gw_str source_id,
                  struct gw_error *err)
{
    uint8_t bytes[ID_MAX];

    gw_buf_addf(out, "(" GW_STR_FMT "=", GW_STR_ARG(d->id_attr));
    if (!id_is_octets(d)) {
        dir_put_assertion(out, source_id);
    } else if (source_id.n / 2 <= sizeof(bytes) &&
               gw_hex_decode(bytes, source_id.n / 2, source_id)) {
        dir_put_octets(out, bytes, source_id.n / 2);
    } else {
        return gw_fail(err, GW_UNAVAILABLE, 0, "the subject's id is not one of this directory");
    }
    gw_buf_add_char(out, ')');
    return out->failed ? gw_fail(err, GW_NO_MEMORY, 0, "no memory for a filter") : GW_OK;
}

static int read_name(const struct dir_entry *e, const struct auth_ldap *d, struct gw_arena *a,
                     struct gw_str *name, struct gw_str *raw, struct gw_error *err)
{
    const struct dir_attr *attr = dir_entry_attr(e, d->name_attr);

    /* of two names neither is the canonical one, and the order of values means nothing */
    if (attr == NULL || attr->n != 1) {
        return gw_fail(err, GW_INVALID, 0,
                       "the entry has %zu values of " GW_STR_FMT ", hubgate needs exactly one",
                       attr != NULL ? attr->n : 0, GW_STR_ARG(d->name_attr));
    }
    char *p = gw_arena_alloc(a, attr->values[0].n + 1);
    *raw = gw_arena_dup(a, attr->values[0]);
    if (p == NULL || raw->p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    for (size_t i = 0; i < raw->n; i++) {
        char c = raw->p[i];
        p[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    *name = (struct gw_str){p, raw->n};
    if (!auth_is_name(*name)) {
        return gw_fail(err, GW_INVALID, 0,
                       "the entry's " GW_STR_FMT " is not a name that hubgate takes: a-z 0-9 . _ "
                       "-, at most 64, starting with a letter or digit",
                       GW_STR_ARG(d->name_attr));
    }
    return GW_OK;
}

static struct gw_str text_or_empty(struct gw_str s, struct gw_arena *a)
{
    return gw_arena_dup(a, auth_is_text(s, TEXT_MAX) ? s : GW_STR(""));
}

int dir_entry_subject(const struct dir_entry *e, const struct auth_ldap *d, int64_t now_ms,
                      struct gw_arena *a, struct auth_subject *out, struct gw_str *raw_name,
                      struct gw_error *err)
{
    struct auth_subject s = {.state = AUTH_SUSPENDED, .checked_ms = now_ms};

    int rc = read_id(e, d, a, &s.source_id, err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = read_name(e, d, a, &s.name, raw_name, err);
    if (rc != GW_OK) {
        return rc;
    }
    s.id = auth_subject_id(d->name, s.source_id, a);
    s.realm = gw_arena_dup(a, d->name);
    s.dn = gw_arena_dup(a, e->dn);
    s.display = text_or_empty(first(e, d->display_attr), a);
    s.email = text_or_empty(first(e, d->mail_attr), a);
    if (s.id.p == NULL || s.realm.p == NULL || s.dn.p == NULL || s.display.p == NULL ||
        s.email.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    s.state = is_suspended(e, now_ms) ? AUTH_SUSPENDED : AUTH_ACTIVE;
    *out = s;
    return GW_OK;
}
