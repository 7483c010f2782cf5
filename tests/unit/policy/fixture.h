/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/policy/fixture.h - one policy from text, and questions to it as a person would type
 * them. */
#ifndef TESTS_POLICY_FIXTURE_H
#define TESTS_POLICY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/policy.h"

#define NOW INT64_C(1790000000000) /* 2026-09-21 */

static inline int parse_text(struct policy **out, const char *yaml, struct gw_buf *report,
                             struct gw_error *err)
{
    struct policy_file file = {GW_STR("p.yaml"), gw_str_c(yaml)};

    return policy_parse(out, &file, 1, report, err);
}

static inline struct policy *must_parse(const char *yaml)
{
    struct policy *p = NULL;
    struct gw_error err = {0};

    if (parse_text(&p, yaml, NULL, &err) != GW_OK) {
        fail_msg("%s", err.text);
    }
    return p;
}

/* "user:ann g1 g2": WHO, then directory values parted by a space (a DN of the tests has none). */
struct asker {
    struct policy_subject subject;
    struct gw_str groups[16];
};

static inline void asker_parse(struct asker *a, const char *text)
{
    struct gw_str rest = gw_str_c(text), word;
    struct gw_error err = {0};

    assert_true(gw_str_split(&rest, ' ', &word));
    if (policy_who_parse(word, &a->subject, &err) != GW_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    a->subject.groups = a->groups;
    while (gw_str_split(&rest, ' ', &word)) {
        a->groups[a->subject.n_groups++] = word;
    }
}

/* "read model:acme/llm" */
static inline void question_parse(const char *text, enum policy_action *a, struct policy_object *o)
{
    struct gw_str rest = gw_str_c(text), word;
    struct gw_error err = {0};

    assert_true(gw_str_split(&rest, ' ', &word));
    if (!policy_action_parse(word, a) || policy_resource_parse(rest, o, &err) != GW_OK) {
        fail_msg("%s: %s", text, err.text);
    }
}

static inline struct policy_decision ask(const struct policy *p, const char *who, const char *what)
{
    struct policy_object o = {0};
    struct asker a = {0};
    enum policy_action action;

    asker_parse(&a, who);
    question_parse(what, &action, &o);
    return policy_decide(p, &a.subject, action, &o, NOW);
}

/* expected: "+rule" allowed by it, "-rule" denied by it, "-" by default. */
static inline void expect(const struct policy *p, const char *who, const char *what,
                          const char *expected)
{
    struct policy_decision d = ask(p, who, what);
    struct gw_str id = policy_rule_id(d.rule);
    char got[120];

    snprintf(got, sizeof(got), "%c" GW_STR_FMT, d.effect == POLICY_ALLOW ? '+' : '-',
             GW_STR_ARG(id));
    if (strcmp(got, strcmp(expected, "-") == 0 ? "-(default)" : expected) != 0) {
        fail_msg("%s, %s: expected %s, got %s", who, what, expected, got);
    }
}

#endif
