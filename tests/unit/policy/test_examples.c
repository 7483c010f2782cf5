/* SPDX-License-Identifier: Apache-2.0 */
/* Whole policies: three of different houses, and every example of docs/policy.md, taken from the
 * page itself. */
#include "fixture.h"

#define PAGE "docs/policy.md"

static void run_policy_tests(const struct policy *p, unsigned at_least)
{
    struct policy_test_result r;
    struct gw_buf report;

    gw_buf_init(&report, 1 << 16);
    r = policy_test(p, NOW, &report);
    if (r.failed || r.passed < at_least || report.n) {
        fail_msg("%u passed, %u failed: %s", r.passed, r.failed, report.n ? report.p : "");
    }
    gw_buf_release(&report);
}

/* A. 20 people */
static const char startup[] =
    "version: 1\n"
    "private_namespaces: [acme]\n"
    "groups:\n"
    "  eng:      {ldap: \"cn=eng,ou=groups,dc=acme,dc=io\"}\n"
    "  founders: {ldap: \"cn=founders,ou=groups,dc=acme,dc=io\"}\n"
    "services:\n"
    "  ci: {owner: \"group:eng\"}\n"
    "rules:\n"
    "  - {id: eng-write,   allow: [write, create], to: [\"group:eng\"],      where: {hub: private, "
    "repo: \"acme/*\"}}\n"
    "  - {id: boss,        allow: [admin],         to: [\"group:founders\"], where: {hub: private, "
    "repo: \"acme/*\"}}\n"
    "  - {id: ci-nightly,  allow: [write],         to: [\"service:ci\"],     where: {hub: private, "
    "repo: \"acme/*-nightly\"}}\n"
    "  - {id: public-read, allow: [read],          to: [authenticated],    where: {hub: public}}\n"
    "  - id: no-pickle\n"
    "    deny: [read]\n"
    "    where: {hub: public, files: [\"**/*.{bin,pkl,pt}\"]}\n"
    "    reason: \"Pickle weights from the public hub are blocked; use a safetensors revision.\"\n"
    "tests:\n"
    "  - {name: engineer, as: {user: ann, groups: [eng]}, can: [\"write model:acme/llm\", \"create "
    "dataset:acme/new\", \"read model:org/m//model.safetensors\"], cannot: [\"delete "
    "model:acme/llm\", \"admin model:acme/llm\"]}\n"
    "  - {name: pickle is blocked for all, as: {user: ann, groups: [eng, founders]}, cannot: "
    "[\"read model:org/m//pytorch_model.bin\"], rule: no-pickle}\n"
    "  - {name: own pickles stay readable, as: {user: ann, groups: [eng]}, can: [\"read "
    "model:acme/llm//old.pt\"]}\n"
    "  - {name: ci, as: \"service:ci\", can: [\"write model:acme/llm-nightly\"], cannot: [\"write "
    "model:acme/llm\", \"create model:acme/llm-nightly\"]}\n"
    "  - {name: outsiders, as: anonymous, cannot: [\"discover model:acme/llm\", \"read "
    "model:org/m\"], rule: (default)}\n"
    "  - {name: deleted by a founder, as: {user: bo, groups: [founders]}, can: [\"delete "
    "model:acme/llm\", \"discover model:acme/llm\"]}\n";

/* B. a bank: an allow list of commits, four eyes on production */
static const char bank[] =
    "version: 1\n"
    "private_namespaces: [bank, bank-risk, bank-retail]\n"
    "groups:\n"
    "  risk:       {ldap: \"cn=risk-ds,ou=groups,dc=bank,dc=example\"}\n"
    "  retail:     {ldap: \"cn=retail-ds,ou=groups,dc=bank,dc=example\"}\n"
    "  modelusers: {any_of: [risk, retail]}\n"
    "services:\n"
    "  release-bot: {owner: \"group:risk\"}\n"
    "rules:\n"
    "  - {id: approved-mistral, allow: [read], to: [\"group:modelusers\"], where: {hub: public, "
    "type: model, repo: mistralai/mistral-7b-v0.3, revisions: "
    "d8cadc02ac76bd617a919d50b092e59d2d110aff}}\n"
    "  - {id: approved-minilm,  allow: [read], to: [\"group:modelusers\"], where: {hub: public, "
    "type: model, repo: sentence-transformers/all-MiniLM-L6-v2, revisions: "
    "c9745ed1d9f207416be6d2e6f8de32d1f16199bf}}\n"
    "  - {id: safe-files,   deny:  [read],  where: {hub: public, files_not: [\"*.safetensors\", "
    "\"*.json\", \"*.txt\", \"*.md\", \"tokenizer.model\"]}, reason: \"Only safetensors, json, "
    "txt, md and tokenizer.model leave the public hub.\"}\n"
    "  - {id: risk-own,     allow: [write, create], to: [\"group:risk\"],   where: {hub: private, "
    "repo: \"bank-risk/*\"}}\n"
    "  - {id: retail-own,   allow: [write, create], to: [\"group:retail\"], where: {hub: private, "
    "repo: \"bank-retail/*\"}}\n"
    "  - {id: prod-read,    allow: [read],  to: [\"group:modelusers\"],  where: {hub: private, "
    "repo: \"bank/prod-*\"}}\n"
    "  - {id: prod-release, allow: [write, create], to: [\"service:release-bot\"], where: {hub: "
    "private, repo: \"bank/prod-*\"}}\n"
    "  - {id: prod-frozen,  deny:  [write, delete], to: [everyone], unless: "
    "[\"service:release-bot\"], where: {hub: private, repo: \"bank/prod-*\"}, reason: \"Production "
    "changes go through release-bot.\"}\n"
    "tests:\n"
    "  - {name: approved and pinned, as: {user: eva, groups: [risk]}, can: [\"read "
    "model:mistralai/mistral-7b-v0.3@d8cadc02ac76bd617a919d50b092e59d2d110aff//"
    "model-1.safetensors\"], cannot: [\"read "
    "model:mistralai/mistral-7b-v0.3@0000000000000000000000000000000000000000//"
    "model-1.safetensors\", \"read "
    "model:google/gemma@d8cadc02ac76bd617a919d50b092e59d2d110aff//a.safetensors\"]}\n"
    "  - {name: pickle, as: {user: eva, groups: [modelusers]}, cannot: [\"read "
    "model:mistralai/mistral-7b-v0.3@d8cadc02ac76bd617a919d50b092e59d2d110aff//"
    "pytorch_model.bin\"], rule: safe-files}\n"
    "  - {name: walls between divisions, as: {user: rob, groups: [retail]}, can: [\"write "
    "model:bank-retail/churn\", \"read model:bank/prod-churn\"], cannot: [\"discover "
    "model:bank-risk/pd\", \"write model:bank/prod-churn\"]}\n"
    "  - {name: frozen, as: {user: rob, groups: [retail]}, cannot: [\"write "
    "model:bank/prod-churn\", \"delete model:bank/prod-churn\"], rule: prod-frozen}\n"
    "  - {name: release, as: \"service:release-bot\", can: [\"write model:bank/prod-churn\"], "
    "cannot: [\"delete model:bank/prod-churn\"]}\n";

/* C. a research lab: home namespaces, an embargo, guests */
static const char lab[] =
    "version: 1\n"
    "private_namespaces: [\"lab\", \"lab-open\", \"lab-embargo\", \"u-*\"]\n"
    "groups:\n"
    "  members: {ldap: \"cn=members,ou=groups,dc=lab,dc=edu\"}\n"
    "  guests:  {ldap: \"cn=guests,ou=groups,dc=lab,dc=edu\"}\n"
    "  paper42: {ldap: \"cn=paper42,ou=groups,dc=lab,dc=edu\"}\n"
    "  sandbox: {users: [kim, lee]}\n"
    "rules:\n"
    "  - {id: home,        allow: [admin], to: [authenticated],   where: {hub: private, repo: "
    "\"u-${user}/*\"}}\n"
    "  - {id: lab-all,     allow: [write, create], to: [\"group:members\"], where: {hub: private, "
    "repo: [\"lab/*\", \"lab-embargo/*\"]}}\n"
    "  - {id: open-data,   allow: [read],  to: [everyone],        where: {hub: private, repo: "
    "\"lab-open/*\"}, public_ok: true}\n"
    "  - {id: embargo,     deny: [discover], unless: [\"group:paper42\"], where: {hub: private, "
    "repo: \"lab-embargo/paper42-*\"}, reason: \"Under embargo.\"}\n"
    "  - {id: pii,         deny: [read],   unless: [\"user:privacy\"], where: {hub: private, type: "
    "dataset, repo: \"lab/pii-*\"}, reason: \"PII data is for the privacy officer.\"}\n"
    "  - {id: public-all,  allow: [read],  to: [\"group:members\", \"group:guests\"], where: {hub: "
    "public}}\n"
    "  - {id: deny-orgs,   deny: [read],   where: {hub: public, repo: [\"malware-zoo/*\", "
    "\"*/*-uncensored\"]}}\n"
    "  - {id: pickle-box,  deny: [read],   unless: [\"group:sandbox\"], where: {hub: public, "
    "files: \"**.bin\"}}\n"
    "  - {id: keep-main,   deny: [delete], where: {hub: private, repo: \"lab/*\"}, unless: "
    "[\"user:pi\"]}\n"
    "tests:\n"
    "  - {name: home, as: {user: kim, groups: [members]}, can: [\"delete model:u-kim/x\", \"write "
    "dataset:u-kim/y\"], cannot: [\"read model:u-lee/x\"]}\n"
    "  - {name: embargo hides even from members, as: {user: kim, groups: [members]}, cannot: "
    "[\"discover model:lab-embargo/paper42-big\"], can: [\"write model:lab-embargo/other\"]}\n"
    "  - {name: embargo author, as: {user: lee, groups: [members, paper42]}, can: [\"write "
    "model:lab-embargo/paper42-big\"]}\n"
    "  - {name: world, as: anonymous, can: [\"read dataset:lab-open/corpus//train.parquet\"], "
    "cannot: [\"read model:org/m\", \"discover model:lab/x\"]}\n"
    "  - {name: PII, as: {user: kim, groups: [members]}, cannot: [\"read "
    "dataset:lab/pii-clinic//a.csv\", \"write dataset:lab/pii-clinic\"], rule: pii}\n"
    "  - {name: PII is about datasets, as: {user: kim, groups: [members]}, can: [\"read "
    "model:lab/pii-clinic//a.csv\"]}\n"
    "  - {name: PII officer, as: {user: privacy, groups: [members]}, can: [\"read "
    "dataset:lab/pii-clinic//a.csv\"]}\n"
    "  - {name: pickles only in the sandbox, as: {user: kim, groups: [members, sandbox]}, can: "
    "[\"read model:org/m//pytorch_model.bin\"]}\n"
    "  - {name: pickles elsewhere, as: {user: zoe, groups: [guests]}, cannot: [\"read "
    "model:org/m//pytorch_model.bin\", \"read model:MALWARE-ZOO/m//a.safetensors\"]}\n"
    "  - {name: main is kept, as: {user: kim, groups: [members]}, cannot: \"delete model:lab/x\", "
    "rule: keep-main}\n";

static void test_three_houses(void **state)
{
    static const struct {
        const char *yaml;
        unsigned tests;
    } houses[] = {{startup, 6}, {bank, 5}, {lab, 10}};

    for (size_t i = 0; i < 3; i++) {
        struct policy *p = must_parse(houses[i].yaml);

        run_policy_tests(p, houses[i].tests);
        policy_unref(p);
    }
}

/* A test that does not hold says so, with its place. */
static void test_failures_are_named(void **state)
{
    struct policy *p = must_parse(
        "version: 1\n"
        "groups: {g: }\n"
        "rules:\n"
        "- {id: a, allow: [read], to: [\"group:g\"]}\n"
        "- {id: b, allow: [write], to: [\"user:x\"], expires: 2020-01-01}\n"
        "- {id: d, deny: [read], to: [\"user:bad\"], expires: 2020-01-01}\n"
        "- {id: e, deny: [write], to: [\"user:bad\"]}\n"
        "tests:\n"
        "- {name: good, as: {user: x, groups: [g]}, can: [\"read model:a/b\"], rule: a}\n"
        "- {name: \"bad\\none\", as: {user: x, groups: [g]}, can: [\"write model:a/b\"], cannot: "
        "[\"read model:a/b@main//f\"]}\n"
        "- {name: other rule, as: \"user:bad\", cannot: [\"read model:a/b\", \"write model:a/b\"], "
        "rule: e}\n"
        "- {name: not by default, as: \"user:bad\", cannot: [\"read model:a/b\", \"create "
        "model:a/b\"], rule: (default)}\n");
    struct policy_test_result r;
    struct gw_buf report;

    gw_buf_init(&report, 4096);
    r = policy_test(p, NOW, &report);
    assert_int_equal(r.passed, 1);
    assert_int_equal(r.failed, 3);
    assert_string_equal(
        report.p,
        "p.yaml:10: test \"bad?one\": write model:a/b: expected allow, got deny by rule (default)\n"
        "p.yaml:10: test \"bad?one\": read model:a/b@main//f: expected deny, got allow by rule a "
        "(p.yaml:4)\n"
        "p.yaml:11: test \"other rule\": read model:a/b: expected rule e, got rule d (p.yaml:6)\n"
        "p.yaml:12: test \"not by default\": read model:a/b: expected rule (default), got rule d "
        "(p.yaml:6)\n"
        "p.yaml:6: warning: rule d expired at 2020-01-02T00:00:00.000Z; a deny stays in force "
        "until it is removed\n"
        "p.yaml:5: warning: rule b expired at 2020-01-02T00:00:00.000Z; it allows nothing any "
        "more\n");
    assert_int_equal(policy_test(p, NOW, NULL).failed, 3);
    gw_buf_release(&report);
    policy_unref(p);
}

/* ---- the page ---- */

static char *read_page(void)
{
    static char text[1 << 16];
    FILE *f = fopen(PAGE, "rb");
    size_t n;

    if (!f) {
        fail_msg("%s: tests run in the top folder of the repo", PAGE);
        return NULL; /* not reached; fail_msg does not return */
    }
    n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    assert_true(n > 0 && n < sizeof(text) - 1);
    text[n] = '\0';
    return text;
}

/* The next block between ``` lines: what stands behind the first, and the lines. */
static bool next_block(struct gw_str *rest, struct gw_str *info, struct gw_str *body)
{
    struct gw_str line;

    while (gw_str_split(rest, '\n', &line)) {
        if (!gw_str_starts(line, GW_STR("```"))) {
            continue;
        }
        *info = gw_str_sub(line, 3, line.n);
        body->p = rest->p;
        while (gw_str_split(rest, '\n', &line)) {
            if (gw_str_eq_c(line, "```")) {
                body->n = (size_t)(line.p - body->p);
                return true;
            }
        }
        fail_msg("a block without end");
    }
    return false;
}

static struct policy *page_policy(struct gw_str yaml)
{
    struct policy_file file = {GW_STR("acme.yaml"), yaml};
    struct policy *p = NULL;
    struct gw_error err = {0};

    if (policy_parse(&p, &file, 1, NULL, &err) != GW_OK) {
        fail_msg("%s", err.text);
    }
    return p;
}

static void check_refused(struct gw_str yaml, struct gw_str lines)
{
    struct policy_file file = {GW_STR("acme.yaml"), yaml};
    struct policy *p = NULL;
    struct gw_buf report;

    gw_buf_init(&report, 1 << 16);
    assert_int_equal(policy_parse(&p, &file, 1, &report, NULL), GW_INVALID);
    if (!gw_str_eq(gw_buf_str(&report), lines)) {
        fail_msg("the page says\n%.*sit is\n%s", GW_STR_ARG(lines), report.p);
    }
    gw_buf_release(&report);
}

/* First line: hubgate explain WHO ACTION RESOURCE [--group "G"]; then its output. */
static void check_explain(const struct policy *p, struct gw_str body)
{
    struct gw_str rest = body, command, word, group = {0};
    struct policy_subject who;
    enum policy_action action = POLICY_ACTION_COUNT;
    struct policy_object o;
    struct gw_buf out;

    assert_true(gw_str_split(&rest, '\n', &command));
    assert_true(gw_str_starts(command, GW_STR("hubgate explain ")));
    command = gw_str_sub(command, 16, command.n);
    assert_true(gw_str_split(&command, ' ', &word) && policy_who_parse(word, &who, NULL) == GW_OK);
    assert_true(gw_str_split(&command, ' ', &word) && policy_action_parse(word, &action));
    assert_true(gw_str_split(&command, ' ', &word) &&
                policy_resource_parse(word, &o, NULL) == GW_OK);
    if (gw_str_starts(command, GW_STR("--group \""))) {
        group = gw_str_sub(command, 9, command.n - 10);
        who.groups = &group;
        who.n_groups = 1;
    }
    gw_buf_init(&out, 1 << 16);
    policy_explain(p, &who, action, &o, NOW, false, &out);
    if (!gw_str_eq(gw_buf_str(&out), rest)) {
        fail_msg("the page says\n%.*sit is\n%s", GW_STR_ARG(rest), out.p);
    }
    gw_buf_release(&out);
}

static void test_the_page(void **state)
{
    struct gw_str rest = gw_str_c(read_page()), info, body, lines;
    struct policy *first = NULL;
    unsigned policies = 0, refused = 0, explained = 0;

    while (next_block(&rest, &info, &body)) {
        if (gw_str_eq_c(info, "yaml")) {
            struct policy *p = page_policy(body);

            run_policy_tests(p, 1);
            if (policies++ == 0) {
                first = p;
            } else {
                policy_unref(p);
            }
        } else if (gw_str_eq_c(info, "yaml error")) {
            assert_true(next_block(&rest, &info, &lines) && gw_str_eq_c(info, "text"));
            check_refused(body, lines);
            refused++;
        } else if (gw_str_eq_c(info, "explain")) {
            assert_non_null(first);
            check_explain(first, body);
            explained++;
        } else {
            fail_msg("a block that nothing runs: %.*s", GW_STR_ARG(info));
        }
    }
    assert_true(policies >= 3 && refused >= 1 && explained >= 2);
    policy_unref(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_houses),
        cmocka_unit_test(test_failures_are_named),
        cmocka_unit_test(test_the_page),
    };

    return cmocka_run_group_tests_name("policy examples", tests, NULL, NULL);
}
