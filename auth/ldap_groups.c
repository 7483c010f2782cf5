/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/ldap_groups.c - the groups of a person: all of them, or an error.
 *
 * A list cut short would lift deny rules, so size limits, references to other servers and our own
 * ceilings are failures (auth-policy 2.2 "partial answers"). Nested groups go level by level, 50
 * DNs in one filter, never one search per group.
 */
#include "auth/ldap_internal.h"

#define PER_FILTER 50u
#define DEPTH_MAX 10u
#define BYTES_MAX (160u << 10) /* of all DNs: a subject record stays under GW_JSON_DOC_MAX */
#define RANGES_MAX 64u

struct found {
    struct gw_str dn[AUTH_GROUPS_MAX];
    size_t n, bytes;
};

static int add(struct found *f, struct gw_str dn, struct gw_error *err)
{
    if (!dir_is_dn(dn)) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "a group of the entry has no usable DN");
    }
    for (size_t i = 0; i < f->n; i++) {
        if (f->dn[i].n == dn.n && gw_str_ieq(f->dn[i], dn)) {
            return GW_OK;
        }
    }
    if (f->n == AUTH_GROUPS_MAX || f->bytes + dn.n > BYTES_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "more than %u groups, or %u KiB of their names",
                       AUTH_GROUPS_MAX, BYTES_MAX >> 10);
    }
    f->dn[f->n++] = dn;
    f->bytes += dn.n;
    return GW_OK;
}

/* ---- by search ---- */

static int search_groups(struct dir_link *l, const struct auth_ldap *d, struct gw_str filter,
                         struct gw_arena *scratch, struct found *f, struct gw_error *err)
{
    static const char *const none[] = {NULL};
    const struct dir_query q = {.base = d->group_base,
                                .scope = DIR_SUBTREE,
                                .filter = filter,
                                .attrs = none,
                                .max_entries = AUTH_GROUPS_MAX,
                                .paged = true};
    struct dir_answer answer;

    int rc = dir_link_search(l, &q, scratch, &answer, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (answer.more) {
        return gw_fail(err, GW_TOO_LARGE, 0, "more than %u groups", AUTH_GROUPS_MAX);
    }
    if (answer.code != DIR_SUCCESS) {
        return gw_fail(err, GW_UNAVAILABLE, answer.code,
                       "the search for groups gave no whole answer: %s",
                       dir_code_text(answer.code));
    }
    if (answer.references > 0) {
        return gw_fail(
            err, GW_UNAVAILABLE, 0,
            "a part of the groups is on another server: choose a group_base that this one holds");
    }
    for (size_t i = 0; i < answer.n && rc == GW_OK; i++) {
        rc = add(f, answer.entries[i].dn, err);
    }
    return rc;
}

static int direct_by_search(struct dir_link *l, const struct auth_ldap *d, struct gw_str dn,
                            struct gw_str raw_name, struct gw_arena *scratch, struct found *f,
                            struct gw_error *err)
{
    const struct dir_vars vars = {.user = raw_name, .dn = dn};
    struct gw_buf filter;

    gw_buf_init(&filter, DIR_FILTER_MAX);
    int rc = dir_filter_expand(&filter, d->group_filter, &vars, err);
    if (rc == GW_OK) {
        rc = search_groups(l, d, gw_buf_str(&filter), scratch, f, err);
    }
    gw_buf_release(&filter);
    return rc;
}

/* The groups that hold any of these, in one search. */
static int parents(struct dir_link *l, const struct auth_ldap *d, const struct gw_str *dn, size_t n,
                   struct gw_arena *scratch, struct found *f, struct gw_error *err)
{
    /* a filter by ${user} finds persons only */
    bool by_dn = dir_uses(d->group_filter, "dn") && !dir_uses(d->group_filter, "user");
    struct gw_str one = by_dn ? d->group_filter : GW_STR("(|(member=${dn})(uniqueMember=${dn}))");
    struct gw_buf filter;
    int rc = GW_OK;

    gw_buf_init(&filter, DIR_FILTER_MAX);
    gw_buf_add_c(&filter, "(|");
    for (size_t i = 0; i < n && rc == GW_OK; i++) {
        const struct dir_vars vars = {.dn = dn[i]};
        rc = dir_filter_expand(&filter, one, &vars, err);
    }
    gw_buf_add_char(&filter, ')');
    if (rc == GW_OK && filter.failed) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for a filter");
    }
    if (rc == GW_OK) {
        rc = search_groups(l, d, gw_buf_str(&filter), scratch, f, err);
    }
    gw_buf_release(&filter);
    return rc;
}

/* Breadth first; f->dn itself is the queue and the set of what was seen, so circles end. */
static int nested(struct dir_link *l, const struct auth_ldap *d, struct gw_arena *scratch,
                  struct found *f, struct gw_error *err)
{
    size_t from = 0;

    for (unsigned depth = 0; from < f->n; depth++) {
        size_t to = f->n;
        if (depth == DEPTH_MAX) {
            return gw_fail(err, GW_TOO_LARGE, 0, "groups are nested deeper than %u", DEPTH_MAX);
        }
        while (from < to) {
            size_t n = to - from < PER_FILTER ? to - from : PER_FILTER;
            int rc = parents(l, d, f->dn + from, n, scratch, f, err);
            if (rc != GW_OK) {
                return rc;
            }
            from += n;
        }
    }
    return GW_OK;
}

/* ---- by memberOf ---- */

static int add_values(struct found *f, const struct dir_attr *a, struct gw_error *err)
{
    int rc = GW_OK;

    for (size_t i = 0; a != NULL && i < a->n && rc == GW_OK; i++) {
        rc = add(f, a->values[i], err);
    }
    return rc;
}

/* Active Directory gives 1,500 values at a time: "memberOf;range=0-1499", and more on asking. */
static int more_values(struct dir_link *l, struct gw_str dn, size_t from, struct gw_arena *scratch,
                       struct found *f, struct gw_error *err)
{
    for (unsigned i = 0; from > 0; i++) {
        struct gw_str name = gw_arena_printf(scratch, "memberOf;range=%zu-*", from);
        const char *const attrs[] = {name.p, NULL};
        const struct dir_query q = {.base = dn,
                                    .scope = DIR_BASE,
                                    .filter = GW_STR("(objectClass=*)"),
                                    .attrs = attrs,
                                    .max_entries = 1};
        struct dir_answer answer;
        size_t next = 0;

        if (name.p == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
        }
        int rc = dir_link_search(l, &q, scratch, &answer, err);
        if (rc != GW_OK) {
            return rc;
        }
        const struct dir_attr *a =
            answer.n == 1 ? dir_entry_range(&answer.entries[0], GW_STR("memberOf"), &next) : NULL;
        if (answer.code != DIR_SUCCESS || a == NULL || i == RANGES_MAX ||
            (next > 0 && next <= from)) {
            return gw_fail(err, GW_UNAVAILABLE, answer.code,
                           "the directory gave a part of memberOf and not the rest");
        }
        rc = add_values(f, a, err);
        if (rc != GW_OK) {
            return rc;
        }
        from = next;
    }
    return GW_OK;
}

static int direct_by_memberof(struct dir_link *l, const struct dir_entry *person,
                              struct gw_arena *scratch, struct found *f, struct gw_error *err)
{
    size_t next = 0;

    int rc = add_values(f, dir_entry_attr(person, GW_STR("memberOf")), err);
    if (rc != GW_OK) {
        return rc;
    }
    const struct dir_attr *part = dir_entry_range(person, GW_STR("memberOf"), &next);
    rc = add_values(f, part, err);
    return rc == GW_OK && part != NULL ? more_values(l, person->dn, next, scratch, f, err) : rc;
}

/* ---- all ---- */

int dir_groups(struct dir_link *l, const struct auth_ldap *d, const struct dir_entry *person,
               struct gw_str raw_name, struct gw_arena *scratch, struct gw_arena *a,
               struct auth_subject *out, struct gw_error *err)
{
    struct found *f = gw_arena_alloc(scratch, sizeof(*f));
    int rc;

    if (f == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    if (d->group_mode == AUTH_GROUPS_SEARCH) {
        rc = direct_by_search(l, d, person->dn, raw_name, scratch, f, err);
    } else {
        rc = direct_by_memberof(l, person, scratch, f, err);
    }
    if (rc == GW_OK && d->nested) {
        rc = nested(l, d, scratch, f, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    struct gw_str *groups = gw_arena_alloc(a, (f->n + 1) * sizeof(*groups));
    for (size_t i = 0; groups != NULL && i < f->n; i++) {
        groups[i] = gw_arena_dup(a, f->dn[i]);
        if (groups[i].p == NULL) {
            groups = NULL;
        }
    }
    if (groups == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    out->groups = groups;
    out->n_groups = f->n;
    return GW_OK;
}
