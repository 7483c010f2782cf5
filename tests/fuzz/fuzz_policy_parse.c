/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a policy file. What is accepted gives the same answers when it is parsed again with
 * an empty file beside it, explains each as it decides it, and counts the same; what is refused
 * says where.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "policy/policy.h"

#define NOW INT64_C(1790000000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "fuzz_policy_parse: %s\n", what);
        abort();
    }
}

static const struct gw_str groups[] = {GW_STR_INIT("cn=eng,ou=groups,dc=acme,dc=io"),
                                       GW_STR_INIT("eng"), GW_STR_INIT("cn=a\\, b , dc=io")};

static const struct policy_subject subjects[] = {
    {.kind = POLICY_ANONYMOUS},
    {.kind = POLICY_USER, .name = GW_STR_INIT("ann"), .groups = groups, .n_groups = 3},
    {.kind = POLICY_USER, .name = GW_STR_INIT("kim")},
    {.kind = POLICY_SERVICE, .name = GW_STR_INIT("ci"), .groups = groups, .n_groups = 1},
};

static const struct policy_object objects[] = {
    {.type = GW_STR_INIT("model"), .ns = GW_STR_INIT("acme"), .name = GW_STR_INIT("llm")},
    {.type = GW_STR_INIT("dataset"),
     .ns = GW_STR_INIT("u-kim"),
     .name = GW_STR_INIT("x"),
     .revision = GW_STR_INIT("main"),
     .path = GW_STR_INIT("d/pytorch_model.bin")},
    {.type = GW_STR_INIT("model"),
     .ns = GW_STR_INIT("_"),
     .name = GW_STR_INIT("gpt2"),
     .revision = GW_STR_INIT("refs/pr/1"),
     .commit = GW_STR_INIT("d8cadc02ac76bd617a919d50b092e59d2d110aff"),
     .path = GW_STR_INIT("config.json")},
    {.type = GW_STR_INIT("other"), .ns = GW_STR_INIT("org"), .name = GW_STR_INIT("m")},
};

static void compare(const struct policy *p, const struct policy *q, const struct policy_subject *s,
                    enum policy_action a, const struct policy_object *o, struct gw_buf *out)
{
    struct policy_decision x = policy_decide(p, s, a, o, NOW), y = policy_decide(q, s, a, o, NOW);
    struct policy_decision e;
    struct gw_json *doc = NULL;

    require(x.effect == y.effect && gw_str_eq(policy_rule_id(x.rule), policy_rule_id(y.rule)) &&
                policy_rule_line(x.rule) == policy_rule_line(y.rule),
            "two parses decide differently");
    require(x.effect == POLICY_DENY || x.rule != NULL, "an allow by no rule");
    gw_buf_reset(out);
    e = policy_explain(p, s, a, o, NOW, true, out);
    require(e.effect == x.effect && e.rule == x.rule, "explain and decide differ");
    if (!out->failed && out->n <= GW_JSON_DOC_MAX) {
        require(gw_json_parse(&doc, gw_buf_str(out), NULL) == GW_OK, "explain wrote no JSON");
        require((gw_json_count(gw_json_get(doc, "matching")) > 0) == (x.rule != NULL),
                "explain finds other rules than decide");
        gw_json_free(doc);
    }
    gw_buf_reset(out);
    policy_explain(p, s, a, o, NOW, false, out);
}

static void accepted(const struct policy *p, struct gw_str text)
{
    const struct policy_file files[] = {{GW_STR_INIT("empty.yaml"), GW_STR_INIT("")},
                                        {GW_STR_INIT("p.yaml"), text}};
    struct policy_counts m = policy_count(p), n;
    struct policy *q = NULL;
    struct gw_buf out;

    gw_buf_init(&out, 1 << 20);
    require(policy_parse(&q, files, 2, NULL, NULL) == GW_OK, "refused the second time");
    n = policy_count(q);
    require(m.rules == n.rules && m.groups == n.groups && m.services == n.services &&
                m.private_namespaces == n.private_namespaces && m.tests == n.tests,
            "two parses count differently");
    for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++) {
        for (size_t k = 0; k < sizeof(objects) / sizeof(objects[0]); k++) {
            for (unsigned a = 0; a <= POLICY_ACTION_COUNT; a++) {
                compare(p, q, &subjects[i], (enum policy_action)a, &objects[k], &out);
            }
            require(policy_is_private(p, objects[k].ns) == policy_is_private(q, objects[k].ns),
                    "two parses differ in what is private");
        }
    }
    gw_buf_reset(&out);
    require(policy_test(p, NOW, &out).failed + policy_test(q, NOW, NULL).passed == m.tests,
            "tests are counted differently");
    for (size_t i = 0; policy_group_source(p, i).p != NULL; i++) {
        require(policy_group_source(p, i).n > 0, "an empty source of a group");
    }
    gw_buf_release(&out);
    policy_unref(q);
}

static void refused(const struct gw_buf *report, const struct gw_error *err)
{
    struct gw_str rest = gw_buf_str(report), line;

    require(report->n > 0 && !report->failed && report->p[report->n - 1] == '\n', "no report");
    while (rest.n > 0 && gw_str_split(&rest, '\n', &line)) {
        require(gw_str_starts(line, GW_STR("p.yaml:")) || gw_str_starts(line, GW_STR("and ")),
                "a line without its place");
        for (size_t i = 0; i < line.n; i++) {
            require((unsigned char)line.p[i] >= 0x20, "a control character in the report");
        }
    }
    require(strncmp(err->text, report->p, strlen(err->text)) == 0, "the error is not the first");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str text = {(const char *)data, size};
    const struct policy_file file = {GW_STR_INIT("p.yaml"), text};
    struct gw_error err = {0};
    struct gw_buf report;
    struct policy *p = NULL;
    int rc;

    gw_buf_init(&report, 1 << 20);
    rc = policy_parse(&p, &file, 1, &report, &err);
    require((rc == GW_OK) == (p != NULL), "a policy in spite of an error");
    if (rc == GW_OK) {
        accepted(p, text);
    } else if (rc == GW_INVALID) {
        refused(&report, &err);
    } else {
        require(rc == GW_TOO_LARGE || rc == GW_NO_MEMORY, "an error the header does not name");
    }
    policy_unref(p);
    gw_buf_release(&report);
    return 0;
}
