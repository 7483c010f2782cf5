/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/groups.c - the sections private_namespaces, services and groups.
 *
 * Groups become integers. What a directory value or a user gives is written out in full (any_of
 * followed to its end), so that a decision only sets bits.
 */
#include "policy/compile_internal.h"

#include <stdio.h>

/* ---- private_namespaces ---- */

void policy_read_namespaces(struct policy_compiler *c)
{
    struct policy_globs globs = {0};
    struct policy_entry *all;
    size_t i;

    for (i = 0; i < c->n_docs && c->status == GW_OK; i++) {
        const struct gw_yaml *node = gw_yaml_get(c->docs[i].root, "private_namespaces");

        c->doc = &c->docs[i];
        if (!node || policy_is_null(node) || (node->kind == GW_YAML_LIST && node->count == 0)) {
            continue;
        }
        policy_read_globs(c, node, POLICY_GLOBS_NAMESPACE, "private_namespaces", &globs);
        c->p->n_namespaces += node->kind == GW_YAML_LIST ? node->count : 1;
    }
    all = policy_tmp(c, (globs.n + 1) * sizeof(*all));
    if (!all) {
        return;
    }
    for (i = 0; i < globs.n; i++) {
        all[i] = (struct policy_entry){.glob = &globs.v[i]};
    }
    if (!policy_index_build(&c->p->namespaces, c->keep, all, globs.n)) {
        policy_out_of_memory(c, c->keep, 0);
        return;
    }
    c->p->private_globs = globs;
}

/* ---- named things: services and groups ---- */

/* Interns the keys of a section of all files. */
static void declare(struct policy_compiler *c, const char *section, const char *what,
                    struct policy_map *names, uint32_t max)
{
    const struct gw_yaml *k, *node;
    struct gw_str name;
    size_t i;

    for (i = 0; i < c->n_docs; i++) {
        c->doc = &c->docs[i];
        node = gw_yaml_get(c->doc->root, section);
        if (!node || policy_is_null(node)) {
            continue;
        }
        if (node->kind != GW_YAML_MAP) {
            policy_complain(c, node, false, "%s is a mapping from names to what they are", section);
            continue;
        }
        for (k = node->child; k; k = k->next) {
            if (!policy_check_name(c, k, true, what, k->key)) {
                continue;
            }
            if (policy_name_find(names, k->key) != POLICY_NONE) {
                policy_complain(c, k, true, "%s \"%s\" is declared twice", what, k->key.p);
                continue;
            }
            if (names->n == max) {
                policy_complain(c, k, true, "more than %u %s", max, section);
                return;
            }
            name = policy_keep_str(c, k->key);
            if (!name.p) {
                return;
            }
            if (policy_map_add(names, c->keep, policy_hash(name), name) == POLICY_NONE) {
                policy_out_of_memory(c, c->keep, 0);
                return;
            }
        }
    }
}

/* Calls read for each declared name; a second declaration has been complained about. */
static void each_declared(struct policy_compiler *c, const char *section,
                          const struct policy_map *names,
                          void (*read)(struct policy_compiler *, const struct gw_yaml *, uint32_t))
{
    const struct gw_yaml *k, *node;
    size_t i;

    for (i = 0; i < c->n_docs; i++) {
        c->doc = &c->docs[i];
        node = gw_yaml_get(c->doc->root, section);
        for (k = node && node->kind == GW_YAML_MAP ? node->child : NULL; k && c->status == GW_OK;
             k = k->next) {
            uint32_t id = policy_name_find(names, k->key);

            if (id != POLICY_NONE) {
                read(c, k, id);
            }
        }
    }
}

static void unknown_group(struct policy_compiler *c, const struct gw_yaml *at, struct gw_str name)
{
    char hint[POLICY_HINT];

    policy_complain(c, at, false, "unknown group \"%.64s\"%s", name.p,
                    policy_hint_name(c, hint, name, &c->p->groups));
}

static void read_service(struct policy_compiler *c, const struct gw_yaml *node, uint32_t id)
{
    static const char *const known[] = {"owner"};
    const struct gw_yaml *owner;
    struct gw_str text, name;

    if (policy_is_null(node) ||
        !policy_check_keys(c, node, known, POLICY_COUNT(known), "a service")) {
        return;
    }
    owner = gw_yaml_get(node, "owner");
    if (!owner || !policy_scalar(c, owner, "owner", &text)) {
        return;
    }
    if (gw_str_starts(text, GW_STR("group:"))) {
        name = gw_str_sub(text, 6, text.n);
        if (policy_name_find(&c->p->groups, name) == POLICY_NONE) {
            unknown_group(c, owner, name);
        }
    } else if (!gw_str_starts(text, GW_STR("user:")) || text.n == 5) {
        policy_complain(c, owner, false, "an owner is group:NAME or user:NAME");
    }
}

/* Both names first: a service's owner may be a group of a later file. */
void policy_read_services(struct policy_compiler *c)
{
    declare(c, "services", "service", &c->p->services, 1u << 20);
    declare(c, "groups", "group", &c->p->groups, POLICY_MAX_NAMED_GROUPS);
    each_declared(c, "services", &c->p->services, read_service);
}

/* ---- what makes somebody a member ---- */

static void add_source(struct policy_compiler *c, struct gw_str text, uint32_t group)
{
    struct policy_map *m = &c->p->sources;
    uint32_t hash = policy_source_hash(text),
             id = policy_map_find(m, hash, text, policy_source_same);

    if (id == POLICY_NONE) {
        struct gw_str key = policy_keep_str(c, text);

        if (!key.p) {
            return;
        }
        id = policy_map_add(m, c->keep, hash, key);
        if (id == POLICY_NONE) {
            policy_out_of_memory(c, c->keep, 0);
            return;
        }
    }
    policy_push(c, &c->in_source, &(struct policy_pair){id, group}, sizeof(struct policy_pair));
}

static void add_users(struct policy_compiler *c, const struct gw_yaml *node, uint32_t group)
{
    size_t n;

    for (node = policy_words(c, node, "users", &n); node && n > 0 && c->status == GW_OK;
         node = node->next, n--) {
        uint32_t id = policy_name_find(&c->p->users, node->value);

        if (id == POLICY_NONE) {
            struct gw_str name = policy_keep_str(c, node->value);

            if (!name.p) {
                return;
            }
            id = policy_name_intern(&c->p->users, c->keep, name);
            if (id == POLICY_NONE) {
                policy_out_of_memory(c, c->keep, 0);
            }
        }
        policy_push(c, &c->of_user, &(struct policy_pair){id, group}, sizeof(struct policy_pair));
    }
}

static void add_members(struct policy_compiler *c, const struct gw_yaml *node, uint32_t group)
{
    size_t n;

    for (node = policy_words(c, node, "any_of", &n); node && n > 0; node = node->next, n--) {
        uint32_t id = policy_name_find(&c->p->groups, node->value);

        if (id == POLICY_NONE) {
            unknown_group(c, node, node->value);
        } else {
            policy_push(c, &c->members, &(struct policy_pair){id, group},
                        sizeof(struct policy_pair));
        }
    }
}

static void read_group(struct policy_compiler *c, const struct gw_yaml *node, uint32_t id)
{
    static const char *const known[] = {"ldap", "name", "users", "any_of"};
    const struct gw_yaml *first = node->child;
    struct gw_str text;

    c->group_nodes[id] = node;
    c->group_docs[id] = c->doc;
    if (policy_is_null(node) || (node->kind == GW_YAML_MAP && node->count == 0)) {
        add_source(c, c->p->groups.keys[id],
                   id); /* the group of the same name in the account file */
        return;
    }
    if (!policy_check_keys(c, node, known, POLICY_COUNT(known), "a group")) {
        return;
    }
    if (node->count > 1) {
        policy_complain(c, first->next, true,
                        "a group has one of ldap, name, users, any_of; join groups with any_of");
        return;
    }
    if (gw_str_eq_c(first->key, "users")) {
        add_users(c, first, id);
    } else if (gw_str_eq_c(first->key, "any_of")) {
        add_members(c, first, id);
    } else if ((gw_str_eq_c(first->key, "ldap") || gw_str_eq_c(first->key, "name")) &&
               policy_scalar(c, first, first->key.p, &text)) {
        add_source(c, text, id);
    }
}

void policy_read_groups(struct policy_compiler *c)
{
    size_t n = c->p->groups.n + 1;

    c->group_nodes = policy_tmp(c, n * sizeof(*c->group_nodes));
    c->group_docs = policy_tmp(c, n * sizeof(*c->group_docs));
    if (c->group_nodes && c->group_docs) {
        each_declared(c, "groups", &c->p->groups, read_group);
    }
    c->p->group_source = c->p->sources.keys;
    c->p->n_group_sources = c->p->sources.n;
}

/* ---- any_of, followed to its end ---- */

/* Pairs as rows: what each `from` leads to is rows[from].v[0..n). */
static struct policy_ids *rows_of(struct policy_compiler *c, const struct policy_vec *pairs,
                                  uint32_t n_from)
{
    const struct policy_pair *v = pairs->v;
    struct policy_ids *rows = policy_tmp(c, (n_from + 1) * sizeof(*rows));
    uint32_t *flat = policy_tmp(c, (pairs->n + 1) * sizeof(*flat));
    size_t i, at = 0;

    if (!rows || !flat) {
        return NULL;
    }
    for (i = 0; i < pairs->n; i++) {
        rows[v[i].from].n++;
    }
    for (i = 0; i < n_from; i++) {
        rows[i].v = flat + at;
        at += rows[i].n;
        rows[i].n = 0;
    }
    for (i = 0; i < pairs->n; i++) {
        struct policy_ids *r = &rows[v[i].from];

        flat[(size_t)(r->v - flat) + r->n++] = v[i].to;
    }
    return rows;
}

/* A group that waits for ever has a member that does; from one to the next leads round a circle,
 * which is shown. */
static void complain_cycle(struct policy_compiler *c, const uint32_t *waits, uint32_t at)
{
    const struct policy_pair *v = c->members.v;
    uint32_t n = c->p->groups.n, *next = policy_tmp(c, (n + 1) * sizeof(*next)), start, i;
    char text[400];
    size_t k, used;

    if (!next) {
        return;
    }
    for (k = 0; k < c->members.n; k++) {
        if (waits[v[k].from]) {
            next[v[k].to] = v[k].from;
        }
    }
    for (i = 0; i < n; i++) { /* whatever led to the circle is behind us after n steps */
        at = next[at];
    }
    start = at;
    for (i = next[at]; i != at; i = next[i]) {
        start = i < start ? i : start;
    }
    at = start;
    used = (size_t)snprintf(text, sizeof(text), "%s", c->p->groups.keys[at].p);
    do {
        at = next[at];
        if (used < sizeof(text)) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, " -> %s",
                                     c->p->groups.keys[at].p);
        }
    } while (at != start);
    c->doc = c->group_docs[start];
    policy_complain(c, c->group_nodes[start], true, "any_of goes round in a circle: %s", text);
}

/* Members before the groups they make up. false: a circle, or no memory. */
static bool order_groups(struct policy_compiler *c, const struct policy_ids *parents,
                         uint32_t *order)
{
    const struct policy_pair *v = c->members.v;
    uint32_t n = c->p->groups.n, *waits = policy_tmp(c, (n + 1) * sizeof(*waits)), done = 0, at = 0,
             i;
    size_t k;

    if (!waits) {
        return false;
    }
    for (k = 0; k < c->members.n; k++) {
        waits[v[k].to]++;
    }
    for (i = 0; i < n; i++) {
        if (waits[i] == 0) {
            order[done++] = i;
        }
    }
    for (; at < done; at++) {
        for (k = 0; k < parents[order[at]].n; k++) {
            if (--waits[parents[order[at]].v[k]] == 0) {
                order[done++] = parents[order[at]].v[k];
            }
        }
    }
    for (i = 0; i < n && done < n; i++) {
        if (waits[i]) {
            complain_cycle(c, waits, i);
            return false;
        }
    }
    return true;
}

/* The groups of a row and all that they are part of, each once. */
struct closing {
    uint32_t *seen, *flat; /* by group id; room for all groups */
    uint32_t stamp;
    size_t total;
};

static struct policy_ids close_row(struct policy_compiler *c, struct closing *x, uint32_t self,
                                   const struct policy_ids *row)
{
    struct policy_ids out = {0};
    uint32_t *kept;
    size_t i, k;

    x->stamp++;
    if (self != POLICY_NONE) {
        x->seen[self] = x->stamp;
        x->flat[out.n++] = self;
    }
    for (i = 0; i < row->n; i++) {
        const struct policy_ids *more = &c->closed[row->v[i]];

        for (k = 0; k < more->n; k++) {
            if (x->seen[more->v[k]] == x->stamp) {
                continue;
            }
            x->seen[more->v[k]] = x->stamp;
            x->flat[out.n++] = more->v[k];
        }
    }
    x->total += out.n;
    if (x->total > POLICY_MAX_MEMBERSHIPS && c->status == GW_OK) {
        c->status = GW_TOO_LARGE;
    }
    kept = policy_keep(c, (out.n + 1) * sizeof(*kept));
    if (!kept) {
        return (struct policy_ids){0};
    }
    memcpy(kept, x->flat, out.n * sizeof(*kept));
    out.v = kept;
    return out;
}

static struct policy_ids *close_rows(struct policy_compiler *c, struct closing *x,
                                     const struct policy_vec *pairs, uint32_t n)
{
    const struct policy_ids *rows = rows_of(c, pairs, n);
    struct policy_ids *out = policy_keep(c, (n + 1) * sizeof(*out));
    uint32_t i;

    for (i = 0; rows && out && i < n && c->status == GW_OK; i++) {
        out[i] = close_row(c, x, POLICY_NONE, &rows[i]);
    }
    return out;
}

void policy_close_groups(struct policy_compiler *c)
{
    uint32_t n = c->p->groups.n, i;
    const struct policy_ids *parents = rows_of(c, &c->members, n);
    uint32_t *order = policy_tmp(c, (n + 1) * sizeof(*order));
    struct closing x = {.seen = policy_tmp(c, (n + 1) * sizeof(*x.seen)),
                        .flat = policy_tmp(c, (n + 1) * sizeof(*x.flat))};

    c->closed = policy_tmp(c, (n + 1) * sizeof(*c->closed));
    if (!parents || !order || !x.seen || !x.flat || !c->closed ||
        !order_groups(c, parents, order)) {
        return;
    }
    for (i = n; i-- > 0 && c->status == GW_OK;) {
        c->closed[order[i]] = close_row(c, &x, order[i], &parents[order[i]]);
    }
    c->p->of_source = close_rows(c, &x, &c->in_source, c->p->sources.n);
    c->p->of_user = close_rows(c, &x, &c->of_user, c->p->users.n);
}
