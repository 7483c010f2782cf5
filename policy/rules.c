/* SPDX-License-Identifier: Apache-2.0 */
/* policy/rules.c - the section rules. */
#include "policy/compile_internal.h"

#include <stdio.h>

#include "base/clock.h"

#define REASON_MAX_BYTES 500u

static const char *const rule_keys[] = {
    "id", "allow", "deny", "to", "unless", "where", "reason", "expires", "public_ok", "verify",
};
static const char *const where_keys[] = {"hub", "type", "repo", "revisions", "files", "files_not"};

/* ---- actions ---- */

static unsigned read_actions(struct policy_compiler *c, const struct gw_yaml *node)
{
    const char *names[POLICY_ACTION_COUNT];
    char hint[POLICY_HINT];
    unsigned mask = 0, a;
    size_t n;

    for (a = 0; a < POLICY_ACTION_COUNT; a++) {
        names[a] = policy_action_name((enum policy_action)a);
    }
    for (node = policy_words(c, node, "the list of actions", &n); node && n > 0;
         node = node->next, n--) {
        enum policy_action action;

        if (policy_action_parse(node->value, &action)) {
            mask |= POLICY_BIT(action);
        } else {
            policy_complain(
                c, node, false,
                "unknown action \"%.64s\"%s; actions: discover, read, write, create, delete, admin",
                node->value.p, policy_hint(hint, node->value, names, POLICY_ACTION_COUNT));
        }
    }
    return mask;
}

static void read_effect(struct policy_compiler *c, const struct gw_yaml *node,
                        struct policy_rule *r)
{
    const struct gw_yaml *allow = gw_yaml_get(node, "allow"), *deny = gw_yaml_get(node, "deny");

    if (!allow == !deny) {
        policy_complain(c, node, false, "a rule has exactly one of allow and deny");
        return;
    }
    r->effect = allow ? POLICY_ALLOW : POLICY_DENY;
    r->given = (uint8_t)read_actions(c, allow ? allow : deny);
    r->actions = (uint8_t)policy_close(r->effect, r->given);
}

/* ---- subjects ---- */

static uint32_t user_ref(struct policy_compiler *c, struct gw_str name)
{
    uint32_t id = policy_name_find(&c->p->users, name);

    if (id == POLICY_NONE) {
        name = policy_keep_str(c, name);
        id = name.p ? policy_name_intern(&c->p->users, c->keep, name) : POLICY_NONE;
        if (id == POLICY_NONE) {
            policy_out_of_memory(c, c->keep, 0);
            return POLICY_NONE;
        }
    }
    return POLICY_REF_USER | id;
}

/* A group or service that some file declares. */
static uint32_t declared_ref(struct policy_compiler *c, const struct gw_yaml *node,
                             struct gw_str name, bool group)
{
    const struct policy_map *names = group ? &c->p->groups : &c->p->services;
    uint32_t id = policy_name_find(names, name);
    char hint[POLICY_HINT];

    if (id == POLICY_NONE) {
        policy_complain(c, node, false, "unknown %s \"%.64s\"%s", group ? "group" : "service",
                        name.p, policy_hint_name(c, hint, name, names));
        return POLICY_NONE;
    }
    return (group ? POLICY_REF_GROUP : POLICY_REF_SERVICE) | id;
}

static uint32_t named_ref(struct policy_compiler *c, const struct gw_yaml *node)
{
    static const char *const words[] = {"everyone", "authenticated", "anonymous", "services",
                                        "user:",    "group:",        "service:"};
    struct gw_str s = node->value;
    char hint[POLICY_HINT];

    if (gw_str_starts(s, GW_STR("user:")) && s.n > 5) {
        return user_ref(c, gw_str_sub(s, 5, s.n));
    }
    if (gw_str_starts(s, GW_STR("group:")) && s.n > 6) {
        return declared_ref(c, node, gw_str_sub(s, 6, s.n), true);
    }
    if (gw_str_starts(s, GW_STR("service:")) && s.n > 8) {
        return declared_ref(c, node, gw_str_sub(s, 8, s.n), false);
    }
    policy_complain(c, node, false,
                    "unknown subject \"%.64s\"%s; subjects: user:NAME, group:NAME, service:NAME, "
                    "services, authenticated, anonymous, everyone",
                    s.p, policy_hint(hint, s, words, POLICY_COUNT(words)));
    return POLICY_NONE;
}

static unsigned kind_word(struct gw_str s)
{
    return gw_str_eq_c(s, "everyone")        ? POLICY_IS_EVERYONE
           : gw_str_eq_c(s, "authenticated") ? POLICY_IS_AUTHENTICATED
           : gw_str_eq_c(s, "services")      ? POLICY_IS_SERVICE
           : gw_str_eq_c(s, "anonymous")     ? POLICY_IS_ANONYMOUS
                                             : 0;
}

static void read_subjects(struct policy_compiler *c, const struct gw_yaml *node, const char *what,
                          struct policy_subjects *out)
{
    uint32_t *refs;
    size_t n;

    node = policy_words(c, node, what, &n);
    refs = node ? policy_keep(c, n * sizeof(*refs)) : NULL;
    for (; refs && n > 0; node = node->next, n--) {
        unsigned kind = kind_word(node->value);
        uint32_t ref = kind ? POLICY_NONE : named_ref(c, node);

        out->kinds |= kind;
        if (ref != POLICY_NONE) {
            refs[out->n++] = ref;
        }
    }
    out->refs = refs;
}

/* ---- where ---- */

static uint8_t read_hub(struct policy_compiler *c, const struct gw_yaml *node)
{
    if (node->kind == GW_YAML_SCALAR && gw_str_eq_c(node->value, "private")) {
        return POLICY_HUB_PRIVATE;
    }
    if (node->kind == GW_YAML_SCALAR && gw_str_eq_c(node->value, "public")) {
        return POLICY_HUB_PUBLIC;
    }
    policy_complain(c, node, false, "hub is private or public");
    return 0;
}

static uint8_t read_types(struct policy_compiler *c, const struct gw_yaml *node)
{
    char hint[POLICY_HINT];
    unsigned mask = 0, bit;
    size_t n;

    for (node = policy_words(c, node, "type", &n); node && n > 0; node = node->next, n--) {
        bit = policy_type_bit(node->value);
        if (bit < 1u << POLICY_COUNT(policy_types)) {
            mask |= bit;
        } else {
            policy_complain(
                c, node, false, "unknown type \"%.64s\"%s; types: model, dataset, space, kernel",
                node->value.p,
                policy_hint(hint, node->value, policy_types, POLICY_COUNT(policy_types)));
        }
    }
    return (uint8_t)mask;
}

static void read_where(struct policy_compiler *c, const struct gw_yaml *where,
                       struct policy_rule *r)
{
    const struct gw_yaml *k;

    if (policy_is_null(where) || (where->kind == GW_YAML_MAP && where->count == 0)) {
        policy_complain(c, where, false,
                        "where is empty: give a condition, or leave it out to mean every repo");
        return;
    }
    policy_check_keys(c, where, where_keys, POLICY_COUNT(where_keys), "where");
    for (k = where->kind == GW_YAML_MAP ? where->child : NULL; k; k = k->next) {
        if (gw_str_eq_c(k->key, "hub")) {
            r->hubs = read_hub(c, k);
        } else if (gw_str_eq_c(k->key, "type")) {
            r->types = read_types(c, k);
        } else if (gw_str_eq_c(k->key, "repo")) {
            policy_read_globs(c, k, POLICY_GLOBS_REPO, "repo", &r->repo);
        } else if (gw_str_eq_c(k->key, "revisions")) {
            policy_read_globs(c, k, POLICY_GLOBS_REVISION, "revisions", &r->revisions);
        } else if (gw_str_eq_c(k->key, "files")) {
            policy_read_globs(c, k, POLICY_GLOBS_FILE, "files", &r->files);
        } else if (gw_str_eq_c(k->key, "files_not")) {
            policy_read_globs(c, k, POLICY_GLOBS_FILE, "files_not", &r->files_not);
        }
    }
}

/* ---- the rest of a rule ---- */

static void read_reason(struct policy_compiler *c, const struct gw_yaml *node,
                        struct policy_rule *r)
{
    struct gw_str s;
    size_t i;

    if (!policy_scalar(c, node, "reason", &s)) {
        return;
    }
    while (s.n && s.p[s.n - 1] == '\n') { /* of a block scalar */
        s.n--;
    }
    for (i = 0; i < s.n && (unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f; i++)
        ;
    if (i < s.n || s.n == 0 || s.n > REASON_MAX_BYTES) {
        policy_complain(c, node, false, "a reason is one line of at most %u bytes",
                        REASON_MAX_BYTES);
        return;
    }
    r->reason = policy_keep_str(c, s);
}

/* "+02:00" and so on at the end of s, cut off. false: none. */
static bool cut_offset(struct gw_str *s, int64_t *ms)
{
    struct gw_str tail = gw_str_sub(*s, s->n > 6 ? s->n - 6 : 0, 6);
    uint64_t h, m;

    if (tail.n != 6 || (tail.p[0] != '+' && tail.p[0] != '-') || tail.p[3] != ':' ||
        !gw_str_u64(gw_str_sub(tail, 1, 2), &h) || !gw_str_u64(gw_str_sub(tail, 4, 2), &m) ||
        h > 23 || m > 59) {
        return false;
    }
    *ms = (int64_t)(h * 60 + m) * 60000 * (tail.p[0] == '-' ? -1 : 1);
    s->n -= 6;
    return true;
}

/* A date means to its end, in UTC. */
static bool parse_expiry(struct gw_str s, int64_t *out)
{
    char text[64];
    int64_t offset = 0;
    bool day = s.n == 10;
    int n;

    if (s.n > 40) {
        return false;
    }
    if (!day && !cut_offset(&s, &offset)) {
        if (s.n == 0 || s.p[s.n - 1] != 'Z') {
            return false;
        }
        s.n--;
    }
    n = snprintf(text, sizeof(text), "%.*s%s", GW_STR_ARG(s), day ? "T00:00:00Z" : "Z");
    if (!gw_iso_parse((struct gw_str){text, (size_t)n}, out)) {
        return false;
    }
    *out += day ? 86400000 : -offset;
    return true;
}

static void read_expires(struct policy_compiler *c, const struct gw_yaml *node,
                         struct policy_rule *r)
{
    struct gw_str s;

    if (policy_scalar(c, node, "expires", &s) && !parse_expiry(s, &r->expires_ms)) {
        policy_complain(c, node, false,
                        "expires is a date as in 2027-03-31 (to its end, UTC) or a time as in "
                        "2027-03-31T18:00:00Z");
    }
}

static bool read_flag(struct policy_compiler *c, const struct gw_yaml *node)
{
    if (node->kind == GW_YAML_SCALAR && gw_str_eq_c(node->value, "false")) {
        return false;
    }
    if (node->kind != GW_YAML_SCALAR || !gw_str_eq_c(node->value, "true")) {
        policy_complain(c, node, false, "%s is true or false", node->key.p);
    }
    return true;
}

static bool names_users(const struct policy_subjects *s)
{
    size_t i;

    if (s->kinds & (POLICY_IS_EVERYONE | POLICY_IS_AUTHENTICATED)) {
        return true;
    }
    for (i = 0; i < s->n; i++) {
        if ((s->refs[i] & POLICY_REF_KIND) != POLICY_REF_SERVICE) {
            return true;
        }
    }
    return false;
}

static bool uses_user(const struct policy_globs *g)
{
    size_t i;

    for (i = 0; i < g->n; i++) {
        if (g->v[i].user) {
            return true;
        }
    }
    return false;
}

/* One word so far: `after` is what hubgate.yaml says unless it says otherwise, and a rule only
 * makes it stricter. */
static void read_verify(struct policy_compiler *c, const struct gw_yaml *node,
                        struct policy_rule *r)
{
    r->verify_before = node->kind == GW_YAML_SCALAR && gw_str_eq_c(node->value, "before");
    if (!r->verify_before) {
        policy_complain(c, node, false,
                        "verify is before: files of this rule are sent once they are verified "
                        "whole");
    }
}

/* What each key allows but the whole does not mean. */
static void check_rule(struct policy_compiler *c, const struct gw_yaml *node,
                       const struct policy_rule *r)
{
    const struct gw_yaml *public_ok = gw_yaml_get(node, "public_ok");
    bool open = public_ok && read_flag(c, public_ok);

    if (r->effect == POLICY_ALLOW && !open && r->hubs & POLICY_HUB_PRIVATE &&
        r->to.kinds & (POLICY_IS_EVERYONE | POLICY_IS_ANONYMOUS)) {
        policy_complain(
            c, node, false,
            "rule \"%s\" opens private repos to people who are not logged in: name who in \"to\", "
            "say hub: public in \"where\", or confirm with public_ok: true",
            r->id.n ? r->id.p : "?");
    }
    if (r->effect == POLICY_DENY && public_ok) {
        policy_complain(c, public_ok, true, "public_ok belongs to an allow rule");
    }
    if (r->verify_before && (r->effect == POLICY_DENY || !(r->actions & POLICY_BIT(POLICY_READ)))) {
        policy_complain(c, gw_yaml_get(node, "verify"), true,
                        "verify belongs to a rule that allows read");
    }
    if ((uses_user(&r->repo) || uses_user(&r->revisions) || uses_user(&r->files) ||
         uses_user(&r->files_not)) &&
        !names_users(&r->to)) {
        policy_complain(c, node, false,
                        "${user} is the name of a person, and rule \"%s\" is for none",
                        r->id.n ? r->id.p : "?");
    }
}

static void read_id(struct policy_compiler *c, const struct gw_yaml *node, struct policy_rule *r)
{
    const struct gw_yaml *id = gw_yaml_get(node, "id");
    const struct policy_rule *first;
    struct gw_str s;
    uint32_t n;

    if (!id) {
        policy_complain(c, node, false, "a rule has an id");
        return;
    }
    if (!policy_scalar(c, id, "id", &s) || !policy_check_name(c, id, false, "rule", s)) {
        return;
    }
    n = policy_name_find(&c->rule_ids, s);
    if (n != POLICY_NONE) {
        first = ((struct policy_rule **)c->rules.v)[n];
        policy_complain(c, id, false, "rule \"%s\" is there already, at %.*s:%u", s.p,
                        GW_STR_ARG(first->file), first->line);
        return;
    }
    r->id = policy_keep_str(c, s);
    if (!r->id.p) {
        return;
    }
    if (policy_name_intern(&c->rule_ids, &c->tmp, r->id) == POLICY_NONE) {
        policy_out_of_memory(c, &c->tmp, 0);
    }
    policy_push(c, &c->rules, &r, sizeof(r));
}

static void read_rule(struct policy_compiler *c, const struct gw_yaml *node)
{
    struct policy_rule *r = policy_keep(c, sizeof(*r));
    const struct gw_yaml *k;
    size_t before = c->complaints.n;

    if (!r) {
        return;
    }
    *r = (struct policy_rule){
        .file = c->doc->name,
        .line = node->line,
        .column = node->column,
        .types = POLICY_ALL_TYPES,
        .hubs = POLICY_HUB_PRIVATE | POLICY_HUB_PUBLIC,
        .to = {.kinds = POLICY_IS_EVERYONE},
        .expires_ms = INT64_MAX,
    };
    policy_check_keys(c, node, rule_keys, POLICY_COUNT(rule_keys), "a rule");
    if (node->kind != GW_YAML_MAP) {
        return;
    }
    read_id(c, node, r);
    read_effect(c, node, r);
    for (k = node->child; k; k = k->next) {
        if (gw_str_eq_c(k->key, "to")) {
            r->to.kinds = 0;
            read_subjects(c, k, "to", &r->to);
        } else if (gw_str_eq_c(k->key, "unless")) {
            read_subjects(c, k, "unless", &r->unless);
        } else if (gw_str_eq_c(k->key, "where")) {
            read_where(c, k, r);
        } else if (gw_str_eq_c(k->key, "reason")) {
            read_reason(c, k, r);
        } else if (gw_str_eq_c(k->key, "expires")) {
            read_expires(c, k, r);
        } else if (gw_str_eq_c(k->key, "verify")) {
            read_verify(c, k, r);
        }
    }
    if (c->complaints.n == before) { /* else it is not yet what its author meant */
        check_rule(c, node, r);
    }
}

void policy_read_rules(struct policy_compiler *c)
{
    const struct gw_yaml *node;
    size_t i;

    for (i = 0; i < c->n_docs; i++) {
        const struct gw_yaml *rules = gw_yaml_get(c->docs[i].root, "rules");

        c->doc = &c->docs[i];
        if (!rules || policy_is_null(rules)) {
            continue;
        }
        if (rules->kind != GW_YAML_LIST) {
            policy_complain(c, rules, false, "rules is a list");
            continue;
        }
        for (node = rules->child; node && c->status == GW_OK; node = node->next) {
            read_rule(c, node);
        }
    }
}
