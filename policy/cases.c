/* SPDX-License-Identifier: Apache-2.0 */
/* policy/cases.c - the section tests: read with the policy, run by policy_test. */
#include "policy/compile_internal.h"

#include "base/clock.h"

static const char *const case_keys[] = {"name", "as", "can", "cannot", "rule"};
static const char *const as_keys[] = {"user", "service", "groups"};

/* ---- as ---- */

static void check_service(struct policy_compiler *c, const struct gw_yaml *node,
                          const struct policy_case *t)
{
    char hint[POLICY_HINT];

    if (t->kind == POLICY_SERVICE && policy_name_find(&c->p->services, t->who) == POLICY_NONE) {
        policy_complain(c, node, false, "unknown service \"%.64s\"%s", t->who.p,
                        policy_hint_name(c, hint, t->who, &c->p->services));
    }
}

static void read_as_groups(struct policy_compiler *c, const struct gw_yaml *node,
                           struct policy_case *t)
{
    struct policy_vec ids = {0};
    char hint[POLICY_HINT];
    uint32_t *kept;
    size_t n, i;

    if (node->kind == GW_YAML_LIST && node->count == 0) {
        return;
    }
    for (node = policy_words(c, node, "groups", &n); node && n > 0; node = node->next, n--) {
        uint32_t id = policy_name_find(&c->p->groups, node->value);

        if (id == POLICY_NONE) {
            policy_complain(c, node, false, "unknown group \"%.64s\"%s", node->value.p,
                            policy_hint_name(c, hint, node->value, &c->p->groups));
        } else if (c->closed) {
            for (i = 0; i < c->closed[id].n; i++) {
                policy_push(c, &ids, &c->closed[id].v[i], sizeof(uint32_t));
            }
        }
    }
    kept = policy_keep(c, (ids.n + 1) * sizeof(*kept));
    if (!kept) {
        return;
    }
    if (ids.n) {
        memcpy(kept, ids.v, ids.n * sizeof(*kept));
    }
    t->groups = (struct policy_ids){kept, ids.n};
}

static void read_as(struct policy_compiler *c, const struct gw_yaml *node, struct policy_case *t)
{
    const struct gw_yaml *user = gw_yaml_get(node, "user"), *service = gw_yaml_get(node, "service");
    struct policy_subject s = {0};
    struct gw_error err;

    if (node->kind == GW_YAML_SCALAR) {
        if (policy_who_parse(node->value, &s, &err) != GW_OK) {
            policy_complain(c, node, false, "as: %s, or {user: NAME, groups: [..]}", err.text);
            return;
        }
    } else {
        if (!policy_check_keys(c, node, as_keys, POLICY_COUNT(as_keys), "as")) {
            return;
        }
        if (!user == !service) {
            policy_complain(c, node, false, "as has exactly one of user and service");
            return;
        }
        s.kind = user ? POLICY_USER : POLICY_SERVICE;
        if (!policy_scalar(c, user ? user : service, "the name", &s.name)) {
            return;
        }
        if (gw_yaml_get(node, "groups")) {
            read_as_groups(c, gw_yaml_get(node, "groups"), t);
        }
    }
    t->kind = s.kind;
    t->who = policy_keep_str(c, s.name);
    if (t->who.p) {
        check_service(c, node, t);
    }
}

/* ---- can, cannot ---- */

static bool read_claim(struct policy_compiler *c, const struct gw_yaml *node,
                       struct policy_claim *out)
{
    struct gw_str rest, verb;
    struct gw_error err;

    out->text = policy_keep_str(c, node->value);
    if (!out->text.p) {
        return false;
    }
    rest = out->text;
    if (!gw_str_split(&rest, ' ', &verb) || !policy_action_parse(verb, &out->action)) {
        policy_complain(c, node, false,
                        "expected \"ACTION RESOURCE\" as in \"read model:acme/llm\"; actions: "
                        "discover, read, write, create, delete, admin");
        return false;
    }
    if (policy_resource_parse(gw_str_trim(rest), &out->object, &err) != GW_OK) {
        policy_complain(c, node, false, "%s", err.text);
        return false;
    }
    return true;
}

static void read_claims(struct policy_compiler *c, const struct gw_yaml *test,
                        struct policy_case *t)
{
    static const char *const lists[] = {"can", "cannot"};
    struct policy_claim *claims;
    size_t i, n, room = 0;

    for (i = 0; i < 2; i++) {
        const struct gw_yaml *list = gw_yaml_get(test, lists[i]);

        room += list && list->kind == GW_YAML_LIST ? list->count : 1;
    }
    claims = policy_keep(c, room * sizeof(*claims));
    if (!claims) {
        return;
    }
    for (i = 0; i < 2; i++) {
        const struct gw_yaml *node = gw_yaml_get(test, lists[i]);

        if (!node) {
            continue;
        }
        for (node = policy_words(c, node, lists[i], &n); node && n > 0 && c->status == GW_OK;
             node = node->next, n--) {
            claims[t->n_claims].can = i == 0;
            if (read_claim(c, node, &claims[t->n_claims])) {
                t->n_claims++;
            }
        }
    }
    t->claims = claims;
    if (!gw_yaml_get(test, "can") && !gw_yaml_get(test, "cannot")) {
        policy_complain(c, test, false, "a test has can, cannot or both");
    }
}

/* ---- a test ---- */

static void read_expected_rule(struct policy_compiler *c, const struct gw_yaml *node,
                               struct policy_case *t)
{
    char hint[POLICY_HINT];
    struct gw_str s;
    uint32_t id;

    if (!policy_scalar(c, node, "rule", &s)) {
        return;
    }
    t->names_default = gw_str_eq_c(s, "(default)");
    if (t->names_default) {
        return;
    }
    id = policy_name_find(&c->rule_ids, s);
    if (id == POLICY_NONE) {
        policy_complain(c, node, false, "unknown rule \"%.64s\"%s", s.p,
                        policy_hint_name(c, hint, s, &c->rule_ids));
    } else {
        t->rule = ((struct policy_rule **)c->rules.v)[id];
    }
}

static void read_case(struct policy_compiler *c, const struct gw_yaml *node, struct policy_case *t)
{
    const struct gw_yaml *name = gw_yaml_get(node, "name"), *as = gw_yaml_get(node, "as"),
                         *rule = gw_yaml_get(node, "rule");
    struct gw_str s;

    t->file = c->doc->name;
    t->line = node->line;
    policy_check_keys(c, node, case_keys, POLICY_COUNT(case_keys), "a test");
    if (node->kind != GW_YAML_MAP) {
        return;
    }
    if (!name || !as) {
        policy_complain(c, node, false, "a test has a name and \"as\": who asks");
        return;
    }
    if (policy_scalar(c, name, "name", &s)) {
        t->name = policy_keep_str(c, s);
    }
    read_as(c, as, t);
    read_claims(c, node, t);
    if (rule) {
        read_expected_rule(c, rule, t);
    }
}

void policy_read_cases(struct policy_compiler *c)
{
    const struct gw_yaml *list, *node;
    struct policy_case *cases;
    size_t i, n = 0;

    for (i = 0; i < c->n_docs; i++) {
        list = gw_yaml_get(c->docs[i].root, "tests");
        n += list && list->kind == GW_YAML_LIST ? list->count : 0;
    }
    cases = policy_keep(c, (n + 1) * sizeof(*cases));
    if (!cases) {
        return;
    }
    for (i = 0; i < c->n_docs; i++) {
        list = gw_yaml_get(c->docs[i].root, "tests");
        c->doc = &c->docs[i];
        if (!list || policy_is_null(list)) {
            continue;
        }
        if (list->kind != GW_YAML_LIST) {
            policy_complain(c, list, false, "tests is a list");
            continue;
        }
        for (node = list->child; node && c->status == GW_OK; node = node->next) {
            read_case(c, node, &cases[c->p->n_cases++]);
        }
    }
    c->p->cases = cases;
}
