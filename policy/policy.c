/* SPDX-License-Identifier: Apache-2.0 */
/* policy/policy.c - a snapshot's life, and the texts it owns. */
#include "policy/policy_internal.h"

#include "base/alloc.h"

struct policy *policy_ref(struct policy *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void policy_unref(struct policy *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    gw_arena_release(&p->arena);
    gw_free(p);
}

struct gw_str policy_rule_id(const struct policy_rule *r)
{
    return r ? r->id : GW_STR("(default)");
}

struct gw_str policy_rule_reason(const struct policy_rule *r)
{
    return r ? r->reason : GW_STR("");
}

struct gw_str policy_rule_file(const struct policy_rule *r)
{
    return r ? r->file : GW_STR("");
}

unsigned policy_rule_line(const struct policy_rule *r)
{
    return r ? r->line : 0;
}

struct policy_counts policy_count(const struct policy *p)
{
    return (struct policy_counts){
        .rules = p->n_rules,
        .groups = p->groups.n,
        .services = p->services.n,
        .private_namespaces = p->n_namespaces,
        .tests = p->n_cases,
    };
}

struct gw_str policy_private_namespace(const struct policy *p, size_t i)
{
    const struct policy_glob *g;

    if (i >= p->private_globs.n) {
        return (struct gw_str){0};
    }
    g = &p->private_globs.v[i];
    return g->prefix == g->code.n ? g->code : GW_STR("");
}

struct gw_str policy_group_source(const struct policy *p, size_t i)
{
    return i < p->n_group_sources ? p->group_source[i] : (struct gw_str){0};
}
