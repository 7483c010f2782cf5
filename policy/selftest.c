/* SPDX-License-Identifier: Apache-2.0 */
/* policy/selftest.c - runs the tests inside the files. */
#include "policy/policy_internal.h"

#include <stdio.h>

#include "base/clock.h"

/* Quotes a file in one line. */
static void add_safe(struct gw_buf *out, struct gw_str s)
{
    size_t i;

    for (i = 0; i < s.n; i++) {
        gw_buf_add_char(out, (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f ? '?' : s.p[i]);
    }
}

static void add_place(struct gw_buf *out, const struct policy_case *t,
                      const struct policy_claim *claim)
{
    gw_buf_addf(out, GW_STR_FMT ":%u: test \"", GW_STR_ARG(t->file), t->line);
    add_safe(out, t->name);
    gw_buf_add_c(out, "\": ");
    add_safe(out, claim->text);
    gw_buf_add_c(out, ": ");
}

/* Every matching rule of the decision's effect has decided it; which of them is named does not
 * matter. */
static bool decided_by(const struct policy_case *t, const struct policy_rule *got,
                       const struct policy_request *q)
{
    if (t->names_default) {
        return got == NULL;
    }
    return got && got->effect == t->rule->effect && policy_rule_misses(t->rule, q) == 0;
}

/* rule: of a deny or (default) is about cannot, of an allow about can. */
static bool rule_is_about(const struct policy_case *t, const struct policy_claim *claim)
{
    if (t->names_default) {
        return !claim->can;
    }
    return t->rule && (t->rule->effect == POLICY_ALLOW) == claim->can;
}

static bool run_claim(const struct policy *p, const struct policy_case *t,
                      const struct policy_claim *claim, const struct policy_who *w, int64_t now_ms,
                      struct gw_buf *report)
{
    const struct policy_rule *got = NULL;
    struct policy_request q;
    bool allowed, right_rule;

    if (policy_request_fill(&q, p, w, claim->action, &claim->object, now_ms)) {
        got = policy_request_decide(&q);
    }
    allowed = got && got->effect == POLICY_ALLOW;
    right_rule = !rule_is_about(t, claim) || decided_by(t, got, &q);
    if (allowed == claim->can && right_rule) {
        return true;
    }
    if (report) {
        struct gw_str id = policy_rule_id(got);

        add_place(report, t, claim);
        if (allowed != claim->can) {
            gw_buf_addf(report, "expected %s, got %s by rule " GW_STR_FMT,
                        claim->can ? "allow" : "deny", allowed ? "allow" : "deny", GW_STR_ARG(id));
        } else {
            gw_buf_addf(report, "expected rule %s, got rule " GW_STR_FMT,
                        t->names_default ? "(default)" : t->rule->id.p, GW_STR_ARG(id));
        }
        if (got) {
            gw_buf_addf(report, " (" GW_STR_FMT ":%u)", GW_STR_ARG(got->file), got->line);
        }
        gw_buf_add_char(report, '\n');
    }
    return false;
}

static void warn_expired(const struct policy *p, int64_t now_ms, struct gw_buf *report)
{
    char when[GW_ISO_LEN + 1];
    size_t i;

    for (i = 0; i < p->n_rules; i++) {
        const struct policy_rule *r = p->rules[i];

        if (now_ms < r->expires_ms) {
            continue;
        }
        gw_iso_format(when, r->expires_ms);
        gw_buf_addf(report, GW_STR_FMT ":%u: warning: rule " GW_STR_FMT " expired at %s; %s\n",
                    GW_STR_ARG(r->file), r->line, GW_STR_ARG(r->id), when,
                    r->effect == POLICY_ALLOW ? "it allows nothing any more"
                                              : "a deny stays in force until it is removed");
    }
}

struct policy_test_result policy_test(const struct policy *p, int64_t now_wall_ms,
                                      struct gw_buf *report)
{
    struct policy_test_result result = {0};
    struct policy_who w;
    size_t i, k;

    for (i = 0; i < p->n_cases; i++) {
        const struct policy_case *t = &p->cases[i];
        bool good = true;

        policy_who_named(&w, p, t->kind, t->who, t->groups);
        for (k = 0; k < t->n_claims; k++) {
            good = run_claim(p, t, &t->claims[k], &w, now_wall_ms, report) && good;
        }
        result.passed += good;
        result.failed += !good;
    }
    if (report) {
        warn_expired(p, now_wall_ms, report);
    }
    return result;
}
