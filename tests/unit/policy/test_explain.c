/* SPDX-License-Identifier: Apache-2.0 */
/* policy_explain: the words and the JSON, and that it decides as policy_decide does. */
#include "fixture.h"

#include "base/json.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char yaml[] = "version: 1\n"
                           "private_namespaces: [acme]\n"
                           "groups: {eng: {name: engineers}, ops: , both: {any_of: [eng, ops]}}\n"
                           "services: {ci: }\n"
                           "rules:\n"
                           "- {id: eng-write, allow: [write], to: [\"group:eng\", \"user:bo\", "
                           "\"service:ci\", \"group:ops\", \"user:c\", \"user:d\", \"user:e\", "
                           "services], where: {repo: \"acme/{a,b}*\", type: model}}\n"
                           "- {id: pub, allow: [read], to: [authenticated], where: {hub: public}}\n"
                           "- {id: frozen, deny: [write], unless: [\"user:pi\", \"group:both\"], "
                           "where: {repo: acme/f*}, reason: Frozen., expires: 2026-01-01}\n"
                           "- {id: pins, allow: [delete], to: [\"user:pi\"], where: {repo: "
                           "\"acme/**\", revisions: [v1, \"x-${user}\"]}}\n"
                           "- {id: docs, allow: [create], to: [\"user:pi\"], where: {files: "
                           "[\"docs/**\"], files_not: [\"**/?.md\"]}}\n"
                           "- {id: old, allow: [admin], to: [\"user:pi\"], where: {repo: acme/o}, "
                           "expires: \"2026-01-01T00:00:00Z\"}\n"
                           "- {id: bin, deny: [read], where: {repo: acme/o, files: \"*.bin\"}}\n"
                           "- {id: wait, allow: [read], to: [authenticated], where: {repo: "
                           "slow/*}, verify: before}\n";

static const struct {
    const char *who, *what, *text;
} rows[] = {
    {"anonymous", "write model:acme/a1",
     "deny: write model:acme/a1 (private) for anonymous\n"
     "rule: (default)  no rule allows it\n"
     "nearest misses:\n"
     "  allow  eng-write  p.yaml:6: needs services, group:eng, user:bo, service:ci, group:ops, "
     "user:c or 2 more\n"
     "  deny   frozen  p.yaml:8 (expired; a deny stays in force until it is removed): is for repo "
     "acme/f*\n"},
    {"user:x engineers", "write model:acme/b@main//f",
     "allow: write model:acme/b@main//f (private) for user:x (groups: eng, both)\n"
     "rule: eng-write  p.yaml:6\n"
     "matching rules:\n"
     "  allow  eng-write  p.yaml:6\n"},
    {"user:x engineers", "write dataset:acme/b",
     "deny: write dataset:acme/b (private) for user:x (groups: eng, both)\n"
     "rule: (default)  no rule allows it\n"
     "nearest misses:\n"
     "  allow  eng-write  p.yaml:6: is for type model\n"},
    {"user:x ops", "write model:acme/f1",
     "deny: write model:acme/f1 (private) for user:x (groups: ops, both)\n"
     "rule: (default)  no rule allows it\n"
     "nearest misses:\n"
     "  deny   frozen  p.yaml:8 (expired; a deny stays in force until it is removed): does not "
     "apply to user:pi or group:both\n"
     "  allow  eng-write  p.yaml:6: is for repo acme/a* or acme/b*\n"},
    {"service:ci", "write model:acme/f1",
     "deny: write model:acme/f1 (private) for service:ci\n"
     "rule: frozen  p.yaml:8\n"
     "reason: Frozen.\n"
     "matching rules:\n"
     "  deny   frozen  p.yaml:8 (expired; a deny stays in force until it is removed)\n"
     "nearest misses:\n"
     "  allow  eng-write  p.yaml:6: is for repo acme/a* or acme/b*\n"},
    {"user:pi", "delete model:acme/o@main",
     "deny: delete model:acme/o@main (private) for user:pi\n"
     "rule: (default)  no rule allows it\n"
     "nearest misses:\n"
     "  allow  old  p.yaml:11: expired at 2026-01-01T00:00:00.000Z\n"
     "  allow  pins  p.yaml:9: is for revision v1 or x-${user}\n"},
    {"user:pi", "create model:org/o//docs/a/b.md",
     "deny: create model:org/o//docs/a/b.md (public) for user:pi\n"
     "rule: (default)  no rule allows it\n"
     "nearest misses:\n"
     "  allow  pub  p.yaml:7: allows only discover, read\n"
     "  allow  docs  p.yaml:10: is for files like docs/** other than **/?.md\n"},
    {"user:pi", "create model:acme/q",
     "deny: create model:acme/q (private) for user:pi\n"
     "rule: (default)  no rule allows it\n"
     "nearest misses:\n"
     "  allow  docs  p.yaml:10: is about files; without one it allows discover and read\n"},
    {"user:q", "read model:slow/m",
     "allow: read model:slow/m (public) for user:q\n"
     "rule: pub  p.yaml:7\n"
     "matching rules:\n"
     "  allow  pub  p.yaml:7\n"
     "  allow  wait  p.yaml:13 (verify: before)\n"},
    {"user:q", "read model:acme/o",
     "deny: read model:acme/o (private) for user:q\n"
     "rule: (default)  no rule allows it\n"
     "nearest misses:\n"
     "  deny   bin  p.yaml:12: is about files, and no file is asked for\n"
     "  allow  pub  p.yaml:7: is for public repos\n"
     "  allow  wait  p.yaml:13 (verify: before): is for repo slow/*\n"},
};

static void test_words(void **state)
{
    struct policy *p = must_parse(yaml);
    struct gw_buf out;

    gw_buf_init(&out, 1 << 16);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy_object o = {0};
        struct policy_decision d, e;
        struct asker who = {0};
        enum policy_action a;

        asker_parse(&who, rows[i].who);
        question_parse(rows[i].what, &a, &o);
        gw_buf_reset(&out);
        d = policy_explain(p, &who.subject, a, &o, NOW, false, &out);
        e = policy_decide(p, &who.subject, a, &o, NOW);
        assert_true(d.effect == e.effect && d.rule == e.rule);
        if (strcmp(out.p, rows[i].text) != 0) {
            fail_msg("got\n%sexpected\n%s", out.p, rows[i].text);
        }
    }
    gw_buf_release(&out);
    policy_unref(p);
}

static void test_json(void **state)
{
    struct policy *p = must_parse(yaml);
    struct policy_object o = {0};
    struct asker who = {0};
    struct gw_json *doc = NULL;
    const struct gw_json *rule, *miss;
    enum policy_action a;
    struct gw_buf out;
    int64_t line;

    asker_parse(&who, "service:ci");
    question_parse("write model:acme/f1@v1//a", &a, &o);
    gw_buf_init(&out, 1 << 16);
    policy_explain(p, &who.subject, a, &o, NOW, true, &out);
    assert_int_equal(gw_json_parse(&doc, gw_buf_str(&out), NULL), GW_OK);
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(doc, "decision")), "deny"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(doc, "action")), "write"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(doc, "resource")), "model:acme/f1@v1//a"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(doc, "hub")), "private"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(doc, "subject")), "service:ci"));
    assert_int_equal(gw_json_count(gw_json_get(doc, "groups")), 0);
    rule = gw_json_get(doc, "rule");
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(rule, "id")), "frozen"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(rule, "file")), "p.yaml"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(rule, "reason")), "Frozen."));
    assert_true(gw_json_int(gw_json_get(rule, "line"), &line) && line == 8);
    assert_int_equal(gw_json_count(gw_json_get(doc, "matching")), 1);
    miss = gw_json_at(gw_json_get(doc, "misses"), 0);
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(miss, "id")), "eng-write"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(miss, "effect")), "allow"));
    assert_true(
        gw_str_eq_c(gw_json_string(gw_json_get(miss, "why")), "is for repo acme/a* or acme/b*"));
    gw_json_free(doc);

    asker_parse(&who, "user:x engineers");
    who.subject.n_groups = 1;
    who.groups[0] = GW_STR("engineers");
    question_parse("read model:acme/zz", &a, &o);
    gw_buf_reset(&out);
    policy_explain(p, &who.subject, a, &o, NOW, true, &out);
    assert_int_equal(gw_json_parse(&doc, gw_buf_str(&out), NULL), GW_OK);
    assert_non_null(strstr(out.p, "\"rule\":null"));
    assert_int_equal(gw_json_count(gw_json_get(doc, "groups")), 2);
    gw_json_free(doc);
    gw_buf_release(&out);
    policy_unref(p);
}

/* What a request brings cannot forge a line or break the JSON. */
static void test_hostile_text(void **state)
{
    struct policy *p = must_parse(yaml);
    struct policy_object o = {GW_STR("mo\ndel"), GW_STR("a\x1b[31m"), GW_STR("b\"\xff"),
                              GW_STR("r\n"),     GW_STR(""),          GW_STR("p\0q")};
    struct policy_subject s = {.kind = POLICY_USER, .name = GW_STR("x\nallow: all")};
    static char big[3000];
    struct gw_json *doc = NULL;
    struct gw_buf out;

    gw_buf_init(&out, 1 << 16);
    policy_explain(p, &s, POLICY_READ, &o, NOW, false, &out);
    assert_memory_equal(
        out.p, "allow: read mo?del:a?[31m/b\"\xff@r?//p?q (public) for user:x?allow: all\n", 69);
    gw_buf_reset(&out);
    policy_explain(p, &s, POLICY_READ, &o, NOW, true, &out);
    assert_int_equal(gw_json_parse(&doc, gw_buf_str(&out), NULL), GW_OK);
    gw_json_free(doc);
    /* what no rule can match is said to be so */
    memset(big, 'a', sizeof(big));
    o.name = (struct gw_str){big, sizeof(big)};
    gw_buf_reset(&out);
    assert_int_equal(policy_explain(p, &s, POLICY_READ, &o, NOW, false, &out).effect, POLICY_DENY);
    assert_non_null(
        strstr(out.p, "\nrule: (default)  no rule can match this subject, action or name\n"));
    gw_buf_reset(&out);
    policy_explain(p, &s, POLICY_READ, &o, NOW, true, &out);
    assert_int_equal(gw_json_parse(&doc, gw_buf_str(&out), NULL), GW_OK);
    gw_json_free(doc);
    gw_buf_release(&out);
    policy_unref(p);
}

/* Long lists are cut, and a full buffer changes no decision. */
static void test_bounds(void **state)
{
    struct gw_buf text, out;
    struct policy_object o = {GW_STR("model"), GW_STR("a"), GW_STR("b"),
                              GW_STR(""),      GW_STR(""),  GW_STR("")};
    struct policy_subject s = {.kind = POLICY_USER, .name = GW_STR("x")};
    struct policy *p;
    unsigned lines = 0;

    gw_buf_init(&text, 1 << 20);
    gw_buf_add_c(&text, "version: 1\nrules:\n");
    for (int i = 0; i < 200; i++) {
        gw_buf_addf(&text,
                    "- {id: m%d, allow: [read], to: [authenticated]}\n- {id: n%d, allow: [read], "
                    "to: [\"user:q%d\"]}\n",
                    i, i, i);
    }
    p = must_parse(text.p);
    gw_buf_init(&out, 1 << 16);
    assert_int_equal(policy_explain(p, &s, POLICY_READ, &o, NOW, false, &out).effect, POLICY_ALLOW);
    for (size_t i = 0; i < out.n; i++) {
        lines += out.p[i] == '\n';
    }
    assert_int_equal(lines, 2 + 1 + 50 + 1 + 1 + 8);
    assert_non_null(strstr(out.p, "\n  and 150 more\n"));
    gw_buf_release(&out);
    gw_buf_init(&out, 10);
    assert_int_equal(policy_explain(p, &s, POLICY_READ, &o, NOW, true, &out).effect, POLICY_ALLOW);
    assert_true(out.failed);
    gw_buf_release(&out);
    gw_buf_release(&text);
    policy_unref(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests_name("policy explain", tests, NULL, NULL);
}
