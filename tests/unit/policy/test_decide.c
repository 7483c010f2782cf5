/* SPDX-License-Identifier: Apache-2.0 */
/* The truth table of the language: a row for each sentence of docs/policy.md about what a rule
 * means. */
#include "fixture.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct row {
    const char *who, *what, *expected;
};

static void run(const char *yaml, const struct row *rows, size_t n)
{
    struct policy *p = must_parse(yaml);

    for (size_t i = 0; i < n; i++) {
        expect(p, rows[i].who, rows[i].what, rows[i].expected);
    }
    policy_unref(p);
}

static void test_default_is_deny(void **state)
{
    static const struct row rows[] = {
        {"anonymous", "discover model:a/b", "-"},
        {"user:ann", "read model:gpt2", "-"},
        {"service:ci", "admin space:a/b@main//x", "-"},
    };

    run("", rows, COUNT(rows));
    run("# nothing yet\n", rows, COUNT(rows));
    run("version: 1\nrules:\n", rows, COUNT(rows));
}

/* allow: the action and what it needs. deny: the action and what needs it. */
static void test_implications(void **state)
{
    static const char *const actions[] = {"discover", "read", "write", "create", "delete", "admin"};
    static const char *const allowed[] = {"d", "dr", "drw", "dc", "dx", "drwcxa"};
    static const char *const denied[] = {"drwcxa", "rwa", "wa", "ca", "xa", "a"};
    static const char letters[] = "drwcxa";
    char yaml[300], what[60];

    for (size_t i = 0; i < COUNT(actions); i++) {
        struct policy *allow, *deny;

        snprintf(yaml, sizeof(yaml),
                 "version: 1\nrules: [{id: a, allow: [%s], to: [\"user:ann\"]}]", actions[i]);
        allow = must_parse(yaml);
        snprintf(
            yaml, sizeof(yaml),
            "version: 1\nrules: [{id: a, allow: [admin], to: [\"user:ann\"]}, {id: d, deny: [%s]}]",
            actions[i]);
        deny = must_parse(yaml);
        for (size_t k = 0; k < COUNT(actions); k++) {
            snprintf(what, sizeof(what), "%s model:a/b", actions[k]);
            expect(allow, "user:ann", what, strchr(allowed[i], letters[k]) ? "+a" : "-");
            expect(deny, "user:ann", what, strchr(denied[i], letters[k]) ? "-d" : "+a");
        }
        policy_unref(allow);
        policy_unref(deny);
    }
}

static void test_subjects(void **state)
{
    static const char yaml[] =
        "version: 1\n"
        "groups:\n"
        "  eng: {ldap: \"cn=eng,ou=groups,dc=acme,dc=io\"}\n"
        "  ml: {name: ml-people}\n"
        "  ops:\n"
        "  hand: {users: [kim, Lee]}\n"
        "  all: {any_of: [eng, hand]}\n"
        "  more: {any_of: [all, ml]}\n"
        "services: {ci: {owner: \"group:eng\"}, bot: }\n"
        "rules:\n"
        "- {id: one, allow: [read], to: [\"user:Ann\"], where: {repo: o/one}}\n"
        "- {id: eng, allow: [read], to: [\"group:eng\"], where: {repo: o/eng}}\n"
        "- {id: ml, allow: [read], to: [\"group:ml\"], where: {repo: o/ml}}\n"
        "- {id: ops, allow: [read], to: [\"group:ops\"], where: {repo: o/ops}}\n"
        "- {id: hand, allow: [read], to: [\"group:hand\"], where: {repo: o/hand}}\n"
        "- {id: more, allow: [read], to: [\"group:more\"], where: {repo: o/more}}\n"
        "- {id: ci, allow: [read], to: [\"service:ci\"], where: {repo: o/ci}}\n"
        "- {id: svc, allow: [read], to: [services], where: {repo: o/svc}}\n"
        "- {id: auth, allow: [read], to: [authenticated], where: {repo: o/auth}}\n"
        "- {id: anon, allow: [read], to: [anonymous], where: {repo: o/anon, hub: public}}\n"
        "- {id: every, allow: [read], where: {repo: o/every, hub: public}}\n"
        "- {id: but, allow: [read], to: [authenticated], unless: [\"group:eng\", \"user:bo\"], "
        "where: {repo: o/but}}\n";
    static const struct row rows[] = {
        {"user:ann", "read model:o/one", "+one"},
        {"user:ANN", "read model:o/one", "+one"},
        {"user:anna", "read model:o/one", "-"},
        {"service:ann", "read model:o/one", "-"}, /* a service is not the person of the same name */
        {"anonymous", "read model:o/one", "-"},
        /* a group is what the directory says, not what a file calls it */
        {"user:x cn=eng,ou=groups,dc=acme,dc=io", "read model:o/eng", "+eng"},
        {"user:x CN=Eng,OU=groups,DC=ACME,DC=io", "read model:o/eng", "+eng"},
        {"user:x eng", "read model:o/eng", "-"},
        {"user:x cn=eng,ou=groups,dc=acme,dc=i", "read model:o/eng", "-"},
        {"user:x cn=eng,ou=groups,dc=acme,dc=iox", "read model:o/eng", "-"},
        {"user:x ml-people", "read model:o/ml", "+ml"},
        {"user:x ml", "read model:o/ml", "-"},
        {"user:x ops", "read model:o/ops",
         "+ops"}, /* nothing said: the account file's group of that name */
        {"user:kim", "read model:o/hand", "+hand"},
        {"user:lee", "read model:o/hand", "+hand"},
        {"user:x hand", "read model:o/hand",
         "-"}, /* nobody's directory may add to a list of users */
        {"service:kim", "read model:o/hand", "-"},
        {"user:kim", "read model:o/more", "+more"},
        {"user:x cn=eng,ou=groups,dc=acme,dc=io", "read model:o/more", "+more"},
        {"user:x a b ml-people c", "read model:o/more", "+more"},
        {"user:x ops", "read model:o/more", "-"},
        {"service:x ops", "read model:o/ops", "+ops"},
        {"anonymous ops", "read model:o/ops", "-"}, /* nobody knows who that is */
        {"service:ci", "read model:o/ci", "+ci"},
        {"user:ci", "read model:o/ci", "-"},
        {"service:bot", "read model:o/ci", "-"},
        {"service:ci", "read model:o/svc", "+svc"},
        {"service:other", "read model:o/svc", "+svc"},
        {"user:ann", "read model:o/svc", "-"},
        {"user:x", "read model:o/auth", "+auth"},
        {"service:x", "read model:o/auth", "+auth"},
        {"anonymous", "read model:o/auth", "-"},
        {"anonymous", "read model:o/anon", "+anon"},
        {"user:x", "read model:o/anon", "-"},
        {"anonymous", "read model:o/every", "+every"},
        {"user:x", "read model:o/every", "+every"},
        {"service:x", "read model:o/every", "+every"},
        {"user:x", "read model:o/but", "+but"},
        {"user:bo", "read model:o/but", "-"},
        {"user:x cn=eng,ou=groups,dc=acme,dc=io", "read model:o/but", "-"},
        {"anonymous", "read model:o/but", "-"},
    };

    run(yaml, rows, COUNT(rows));
}

/* Blanks around , = + and at the ends do not count; escaped ones do. */
static void test_directory_spellings(void **state)
{
    static const struct {
        const char *in_file, *value;
        bool same;
    } rows[] = {
        {"cn=eng,dc=io", "cn=eng,dc=io", true},
        {"cn=eng,dc=io", " CN = Eng , DC = io ", true},
        {" cn = eng , dc = io ", "CN=ENG,DC=IO", true},
        {"cn=big team,dc=io", "cn=big team, dc=io", true},
        {"cn=big team,dc=io", "cn=bigteam,dc=io", false},
        {"cn=big team,dc=io", "cn=big  team,dc=io", false},
        {"cn=a+sn=b,dc=io", "cn=a + sn=b,dc=io", true},
        {"cn=a\\,b,dc=io", "cn=a\\,b , dc=io", true},
        {"cn=a\\,b,dc=io", "cn=a,b,dc=io", false},
        {"cn=a\\ ,dc=io", "cn=a,dc=io", false},
        {"cn=a\\ ,dc=io", "cn=a\\  ,dc=io", true},
        {"cn=a\\\\ ,dc=io", "cn=a\\\\,dc=io", true},
        {"cn=eng,dc=io", "cn=eng,dc=io,", false},
        {"cn=eng,dc=io", "", false},
        {"cn=eng,dc=io", "   ", false},
        {"cn=\xc3\x84,dc=io", "CN=\xc3\x84,dc=io", true},
        {"cn=\xc3\x84,dc=io", "CN=\xc3\xa4,dc=io",
         false}, /* ASCII only: the directory's own spelling decides */
    };
    char yaml[300];

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy_object o = {GW_STR("model"), GW_STR("a"), GW_STR("b"),
                                  GW_STR(""),      GW_STR(""),  GW_STR("")};
        struct gw_str group = gw_str_c(rows[i].value);
        struct policy_subject s = {POLICY_USER, GW_STR("x"), &group, 1};
        struct policy *p;

        snprintf(yaml, sizeof(yaml),
                 "version: 1\ngroups: {g: {ldap: '%s'}}\nrules: [{id: r, allow: [read], to: "
                 "[\"group:g\"]}]",
                 rows[i].in_file);
        p = must_parse(yaml);
        if ((policy_decide(p, &s, POLICY_READ, &o, NOW).effect == POLICY_ALLOW) != rows[i].same) {
            fail_msg("\"%s\" and \"%s\"", rows[i].in_file, rows[i].value);
        }
        policy_unref(p);
    }
}

static void test_where(void **state)
{
    static const char yaml[] =
        "version: 1\n"
        "private_namespaces: [acme, \"team-*\"]\n"
        "rules:\n"
        "- {id: priv, allow: [read], to: [authenticated], where: {hub: private}}\n"
        "- {id: pub, allow: [discover], where: {hub: public}}\n"
        "- {id: data, allow: [write], to: [authenticated], where: {type: dataset, repo: acme/*}}\n"
        "- {id: two, allow: [create], to: [authenticated], where: {type: [space, kernel], repo: "
        "[\"acme/a-*\", \"*/only\"]}}\n"
        "- {id: single, allow: [read], to: [authenticated], where: {repo: _/gpt2}}\n"
        "- {id: home, allow: [admin], to: [authenticated], where: {repo: \"team-${user}/*\"}}\n";
    static const struct row rows[] = {
        {"user:x", "read model:acme/llm", "+priv"},
        {"user:x", "read model:ACME/llm", "+priv"},
        {"user:x", "read model:team-1/llm", "+priv"},
        {"user:x", "read model:team-/llm", "+priv"},
        {"user:x", "read model:team/llm", "-"},
        {"user:x", "read model:acme2/llm", "-"},
        {"user:x", "discover model:acme2/llm", "+pub"},
        {"anonymous", "discover model:acme/llm", "-"},
        {"anonymous", "discover model:org/llm", "+pub"},
        {"user:x", "write dataset:acme/d", "+data"},
        {"user:x", "write model:acme/d", "-"},
        {"user:x", "write dataset:other/d", "-"},
        {"user:x", "create space:acme/a-1", "+two"},
        {"user:x", "create kernel:ACME/A-1", "+two"},
        {"user:x", "create model:acme/a-1", "-"},
        {"user:x", "create kernel:any/only", "+two"},
        {"user:x", "create kernel:any/only1", "-"},
        {"user:x", "read model:gpt2", "+single"},
        {"user:x", "read model:org/gpt2", "-"},
        {"user:x", "delete model:team-x/m", "+home"},
        {"user:x", "delete model:team-y/m", "-"},
        {"user:x", "delete model:team-x2/m", "-"},
        {"service:x", "delete model:team-x/m", "-"}, /* ${user} is a person's name */
        {"anonymous", "delete model:team-/m", "-"},
        {"user:X", "delete model:team-x/m", "+home"},
    };

    run(yaml, rows, COUNT(rows));
}

static void test_revisions(void **state)
{
    static const char yaml[] =
        "version: 1\n"
        "rules:\n"
        "- {id: pin, allow: [read], to: [authenticated], where: {repo: o/pin, revisions: "
        "[0123456789012345678901234567890123456789]}}\n"
        "- {id: tags, allow: [read], to: [authenticated], where: {repo: o/tags, revisions: "
        "[\"v*\", \"refs/pr/*\"]}}\n"
        "- {id: all, allow: [admin], to: [authenticated], where: {repo: o/dev}}\n"
        "- {id: dev, deny: [read], where: {repo: o/dev, revisions: [\"dev-**\", bad*]}}\n";
    static const struct row rows[] = {
        {"user:x", "read model:o/pin@0123456789012345678901234567890123456789", "+pin"},
        {"user:x", "read model:o/pin@main", "-"},
        {"user:x", "discover model:o/pin@main", "-"},
        /* no revision named: the repo may be discovered, not read */
        {"user:x", "discover model:o/pin", "+pin"},
        {"user:x", "read model:o/pin", "-"},
        {"user:x", "read model:o/tags@v1.0", "+tags"},
        {"user:x", "read model:o/tags@V1.0", "+tags"},
        {"user:x", "read model:o/tags@refs/pr/1", "+tags"},
        {"user:x", "read model:o/tags@refs/pr/1/x", "-"},
        {"user:x", "read model:o/tags@main", "-"},
        {"user:x", "read model:o/dev@main", "+all"},
        {"user:x", "read model:o/dev", "+all"},
        {"user:x", "read model:o/dev@dev-a/b", "-dev"},
        {"user:x", "delete model:o/dev@dev-a/b", "+all"},
    };
    struct policy *p = must_parse(yaml);
    struct policy_object o = {GW_STR("model"),
                              GW_STR("o"),
                              GW_STR("pin"),
                              GW_STR("main"),
                              GW_STR("0123456789012345678901234567890123456789"),
                              GW_STR("")};
    struct policy_subject s = {.kind = POLICY_USER, .name = GW_STR("x")};

    for (size_t i = 0; i < COUNT(rows); i++) {
        expect(p, rows[i].who, rows[i].what, rows[i].expected);
    }
    /* the commit counts as well as the name that was asked */
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_ALLOW);
    o.commit = GW_STR("1123456789012345678901234567890123456789");
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_DENY);
    o.name = GW_STR("dev");
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_ALLOW);
    o.commit = GW_STR("bad3456789012345678901234567890123456789");
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_DENY);
    policy_unref(p);
}

static void test_files(void **state)
{
    static const char yaml[] =
        "version: 1\n"
        "rules:\n"
        "- {id: all, allow: [admin], to: [\"user:ann\"]}\n"
        "- {id: pickle, deny: [read], where: {repo: o/*, files: [\"**/*.{bin,pkl}\"]}}\n"
        "- {id: only, deny: [read], where: {repo: s/*, files_not: [\"**.safetensors\", "
        "config.json]}}\n"
        "- {id: both, deny: [read], where: {repo: b/*, files: [\"old/**\"], files_not: "
        "[\"**.md\"]}}\n"
        "- {id: docs, allow: [write], to: [\"user:doc\"], where: {repo: o/*, files: "
        "[\"docs/**\"]}}\n";
    static const struct row rows[] = {
        {"user:ann", "read model:o/m//x.bin", "-pickle"},
        {"user:ann", "read model:o/m//a/b/x.PKL", "-pickle"},
        {"user:ann", "write model:o/m//x.bin", "-pickle"},
        {"user:ann", "discover model:o/m//x.bin", "+all"},
        {"user:ann", "read model:o/m//x.bin.txt", "+all"},
        {"user:ann", "read model:o/m", "+all"}, /* no file is asked for: a deny of files waits */
        {"user:ann", "write model:o/m", "+all"},
        {"user:ann", "read model:s/m", "+all"},
        {"user:ann", "read model:s/m//a/m.safetensors", "+all"},
        {"user:ann", "read model:s/m//config.json", "+all"},
        {"user:ann", "read model:s/m//a/config.json", "-only"}, /* anchored */
        {"user:ann", "read model:s/m//m.bin", "-only"},
        {"user:ann", "read model:b/m//old/a.bin", "-both"},
        {"user:ann", "read model:b/m//old/a.md", "+all"},
        {"user:ann", "read model:b/m//new/a.bin", "+all"},
        /* an allow of files opens the way to them, and no more */
        {"user:doc", "read model:o/m//docs/a.md", "+docs"},
        {"user:doc", "write model:o/m//docs/a.md", "+docs"},
        {"user:doc", "write model:o/m//docs/a.bin", "-pickle"},
        {"user:doc", "read model:o/m//a.md", "-"},
        {"user:doc", "discover model:o/m", "+docs"},
        {"user:doc", "read model:o/m", "+docs"},
        {"user:doc", "write model:o/m", "-"},
    };

    run(yaml, rows, COUNT(rows));
}

static void test_deny_wins_and_order_is_nothing(void **state)
{
    static const char *const rules[] = {
        "- {id: a, allow: [admin], to: [authenticated]}\n",
        "- {id: z-deny, deny: [read], unless: [\"user:free\"], where: {repo: o/*}}\n",
        "- {id: b, allow: [read], to: [\"user:x\"], where: {repo: o/m}}\n",
        "- {id: c, deny: [write], to: [\"user:free\"], where: {repo: \"**\"}, reason: no}\n",
    };
    static const struct row rows[] = {
        {"user:x", "read model:o/m", "-z-deny"}, /* however exact the allow is */
        {"user:x", "read model:p/m", "+a"},
        {"user:free", "read model:o/m", "+a"},
        {"user:free", "write model:o/m", "-c"},
        {"user:x", "discover model:o/m", "+a"}, /* of several allows the first by id */
    };
    int order[] = {0, 1, 2, 3};
    char yaml[1000];

    for (int n = 0; n < 24; n++) {
        int k = n, pick[] = {order[0], order[1], order[2], order[3]};

        strcpy(yaml, "version: 1\nrules:\n");
        for (int left = 4; left > 0; left--) {
            int i = k % left;

            k /= left;
            strcat(yaml, rules[pick[i]]);
            memmove(&pick[i], &pick[i + 1], (size_t)(left - i - 1) * sizeof(pick[0]));
        }
        run(yaml, rows, COUNT(rows));
    }
}

/* Of several denies, one that can say why. */
static void test_a_reason_is_preferred(void **state)
{
    struct policy *p =
        must_parse("version: 1\nrules:\n"
                   "- {id: a, deny: [read]}\n- {id: b, deny: [read], reason: Not today.}\n");
    struct policy_decision d = ask(p, "user:x", "read model:a/b");

    assert_true(gw_str_eq_c(policy_rule_reason(d.rule), "Not today."));
    assert_true(gw_str_eq_c(policy_rule_file(d.rule), "p.yaml"));
    assert_int_equal(policy_rule_line(d.rule), 4);
    assert_int_equal(policy_rule_line(NULL), 0);
    assert_true(gw_str_eq_c(policy_rule_id(NULL), "(default)"));
    assert_true(gw_str_eq_c(policy_rule_reason(NULL), "") &&
                gw_str_eq_c(policy_rule_file(NULL), ""));
    policy_unref(p);
}

static void test_expiry(void **state)
{
    static const struct {
        const char *expires;
        int64_t ends; /* ms; the first moment after */
    } rows[] = {
        {"2026-09-21", INT64_C(1790035200000)}, /* to the end of that day, UTC */
        {"2026-09-21T13:33:20Z", INT64_C(1789997600000)},
        {"2026-09-21T13:33:20.5Z", INT64_C(1789997600500)},
        {"2026-09-21T15:33:20+02:00", INT64_C(1789997600000)},
        {"2026-09-21T08:03:20-05:30", INT64_C(1789997600000)},
    };
    struct policy_object o = {GW_STR("model"), GW_STR("a"), GW_STR("b"),
                              GW_STR(""),      GW_STR(""),  GW_STR("")};
    struct policy_subject ann = {.kind = POLICY_USER, .name = GW_STR("ann")},
                          bo = {.kind = POLICY_USER, .name = GW_STR("bo")};
    char yaml[400];

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy *p;

        snprintf(yaml, sizeof(yaml),
                 "version: 1\nrules:\n- {id: a, allow: [read], to: [authenticated]}\n"
                 "- {id: t, allow: [write], to: [\"user:ann\"], expires: \"%s\"}\n- {id: d, deny: "
                 "[read], to: [\"user:bo\"], expires: \"%s\"}\n",
                 rows[i].expires, rows[i].expires);
        p = must_parse(yaml);
        assert_int_equal(policy_decide(p, &ann, POLICY_WRITE, &o, rows[i].ends - 1).effect,
                         POLICY_ALLOW);
        assert_int_equal(policy_decide(p, &ann, POLICY_WRITE, &o, rows[i].ends).effect,
                         POLICY_DENY);
        assert_int_equal(policy_decide(p, &bo, POLICY_READ, &o, rows[i].ends - 1).effect,
                         POLICY_DENY);
        assert_int_equal(policy_decide(p, &bo, POLICY_READ, &o, rows[i].ends + 1).effect,
                         POLICY_DENY); /* a deny stays */
        policy_unref(p);
    }
}

/* Every input has an answer, and a senseless one is no. */
/* The id of the rule that asks for it, "" for none. */
static void expect_verify(const struct policy *p, const char *who, const char *what, const char *id)
{
    struct policy_object o = {0};
    struct asker a = {0};
    enum policy_action action;
    const struct policy_rule *r;

    asker_parse(&a, who);
    question_parse(what, &action, &o);
    r = policy_verify_before(p, &a.subject, &o, NOW);
    if (r ? !gw_str_eq_c(policy_rule_id(r), id) : id[0] != '\0') {
        fail_msg("%s, %s: expected \"%s\", got \"" GW_STR_FMT "\"", who, what, id,
                 GW_STR_ARG(policy_rule_id(r)));
    }
}

static void test_verify_before(void **state)
{
    struct policy *p = must_parse(
        "version: 1\nrules:\n"
        "- {id: a, allow: [read], to: [authenticated], where: {hub: public}}\n"
        "- {id: b, allow: [read], to: [authenticated], where: {repo: big/*, files: [\"**.bin\"]}, "
        "verify: before}\n"
        "- {id: c, allow: [write], to: [services], where: {hub: public}, verify: before}\n"
        "- {id: d, allow: [read], to: [\"user:old\"], where: {repo: old/*}, expires: 2020-01-01, "
        "verify: before}\n");

    expect(p, "user:ann", "read model:big/m@main//x.bin", "+a"); /* the other one still counts */
    expect_verify(p, "user:ann", "read model:big/m@main//x.bin", "b");
    expect_verify(p, "user:ann", "read model:big/m@main//x.json", "");
    expect_verify(p, "user:ann", "read model:small/m@main//x.bin", "");
    expect_verify(p, "anonymous", "read model:big/m@main//x.bin", "");
    expect_verify(p, "service:ci", "read model:small/m@main//x", "c"); /* write gives read */
    expect_verify(p, "user:old", "read model:old/m@main//x", "");
    policy_unref(p);
}

static void test_total(void **state)
{
    static char long_name[2000];
    static struct gw_str many[POLICY_MAX_GROUPS + 1];
    struct policy *p = must_parse("version: 1\nprivate_namespaces: [\"*\"]\ngroups: {g: }\nrules:\n"
                                  "- {id: a, allow: [admin], to: [everyone], public_ok: true}\n- "
                                  "{id: d, deny: [admin], to: [\"group:g\"]}\n");
    struct policy_object o = {GW_STR("model"), GW_STR("a"), GW_STR("b"),
                              GW_STR(""),      GW_STR(""),  GW_STR("")};
    struct policy_subject s = {.kind = POLICY_USER, .name = GW_STR("x")};

    memset(long_name, 'a', sizeof(long_name));
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_ALLOW);
    assert_int_equal(policy_decide(p, &s, POLICY_ACTION_COUNT, &o, NOW).effect, POLICY_DENY);
    assert_int_equal(policy_decide(p, &s, (enum policy_action)77, &o, NOW).effect, POLICY_DENY);
    s.name = GW_STR("");
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect,
                     POLICY_DENY); /* a nameless user is nobody */
    s.kind = (enum policy_kind)9;
    s.name = GW_STR("x");
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_DENY);
    s.kind = POLICY_USER;
    for (size_t i = 0; i <= POLICY_MAX_GROUPS; i++) {
        many[i] = GW_STR("other");
    }
    s.groups = many;
    s.n_groups = POLICY_MAX_GROUPS;
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_ALLOW);
    many[POLICY_MAX_GROUPS - 1] = GW_STR("G");
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_ALLOW);
    assert_int_equal(policy_decide(p, &s, POLICY_ADMIN, &o, NOW).effect, POLICY_DENY);
    s.n_groups++; /* which of them to leave out? */
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_DENY);
    s.n_groups = 0;
    o.type = GW_STR("bucket");
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect,
                     POLICY_ALLOW); /* a rule without type is for every type */
    o.ns = (struct gw_str){long_name, 255};
    o.name = (struct gw_str){long_name, 255}; /* with the slash, the longest that is looked at */
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_ALLOW);
    o.name.n++;
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_DENY);
    o.ns = GW_STR("a");
    o.name = (struct gw_str){long_name, sizeof(long_name)};
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_DENY);
    o.ns = o.name;
    assert_int_equal(policy_decide(p, &s, POLICY_READ, &o, NOW).effect, POLICY_DENY);
    assert_true(policy_is_private(p, o.ns));
    policy_unref(p);
}

static void test_private_namespaces(void **state)
{
    static char long_name[600];
    struct policy *p =
        must_parse("version: 1\nprivate_namespaces: [acme, \"u-*\", \"{x,y}z\", Caps]\n");
    struct policy *none = must_parse("");
    static const struct {
        const char *ns;
        bool yes;
    } rows[] = {
        {"acme", true},  {"ACME", true}, {"acme2", false}, {"acm", false}, {"u-", true},
        {"u-kim", true}, {"u", false},   {"xz", true},     {"yz", true},   {"z", false},
        {"caps", true},  {"", false},    {"_", false},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        if (policy_is_private(p, gw_str_c(rows[i].ns)) != rows[i].yes) {
            fail_msg("%s", rows[i].ns);
        }
        assert_false(policy_is_private(none, gw_str_c(rows[i].ns)));
    }
    /* what is too long to be a name must not be asked for upstream */
    memset(long_name, 'q', sizeof(long_name));
    assert_true(policy_is_private(none, (struct gw_str){long_name, sizeof(long_name)}));
    assert_int_equal(policy_count(p).private_namespaces, 4);
    /* one by one: names in lower case, globs without a name */
    assert_true(gw_str_eq_c(policy_private_namespace(p, 0), "acme"));
    assert_true(policy_private_namespace(p, 1).p && policy_private_namespace(p, 1).n == 0);
    assert_true(gw_str_eq_c(policy_private_namespace(p, 3), "yz"));
    assert_true(gw_str_eq_c(policy_private_namespace(p, 4), "caps"));
    assert_null(policy_private_namespace(p, 5).p);
    assert_null(policy_private_namespace(none, 0).p);
    policy_unref(p);
    policy_unref(none);
}

static void test_roles(void **state)
{
    static const bool yes[3][POLICY_ACTION_COUNT] = {
        {false, false, false, false, false, false},
        {true, true, false, false, false, false},
        {true, true, true, true, true, true},
    };

    for (unsigned role = 0; role < 3; role++) {
        for (unsigned a = 0; a < POLICY_ACTION_COUNT; a++) {
            assert_int_equal(policy_role_allows((enum policy_role)role, (enum policy_action)a),
                             yes[role][a]);
        }
        assert_false(policy_role_allows((enum policy_role)role, POLICY_ACTION_COUNT));
    }
    assert_false(policy_role_allows((enum policy_role)9, POLICY_READ));
}

static struct policy_decision every(const struct policy *p, const char *who, const char *what)
{
    struct policy_object o = {0};
    struct asker a = {0};
    enum policy_action action;

    asker_parse(&a, who);
    question_parse(what, &action, &o);
    return policy_decide_every(p, &a.subject, action, &o, NOW);
}

/* A clone gives all: a rule for some files or revisions holds as a deny only. */
static void test_every(void **state)
{
    static const char yaml[] =
        "version: 1\nrules:\n"
        "- {id: all, allow: [write], to: [\"user:ann\"], where: {repo: o/*}}\n"
        "- {id: some, allow: [read], to: [\"user:bo\"], where: {repo: o/*, files: [\"*.json\"]}}\n"
        "- {id: but, allow: [read], to: [\"user:cy\"], where: {repo: o/*, files_not: "
        "[\"*.bin\"]}}\n"
        "- {id: main, allow: [read], to: [\"user:di\"], where: {repo: o/*, revisions: [main]}}\n"
        "- {id: closed, deny: [read], to: [\"user:ann\"], where: {repo: o/closed, files: [x]}}\n"
        "- {id: old, deny: [read], to: [\"user:ann\"], where: {repo: o/old, revisions: [v1]}}\n"
        "- {id: keep, deny: [write], to: [\"user:ann\"], where: {repo: o/keep, revisions: "
        "[main]}}\n"
        "- {id: ro, deny: [write], to: [\"user:ann\"], where: {repo: o/ro, files: [\"*.md\"]}}\n";
    static const struct {
        const char *who, *what;
        bool allowed;
        const char *rule;
    } rows[] = {
        {"user:ann", "read model:o/a", true, "all"},
        {"user:ann", "write model:o/a", true, "all"},
        {"user:bo", "read model:o/a", false, NULL},
        {"user:cy", "read model:o/a", false, NULL},
        {"user:di", "read model:o/a", false, NULL},
        {"user:di", "read model:o/a@main", true, "main"},
        {"user:di", "read model:o/a@dev", false, NULL},
        {"user:ann", "read model:o/closed", false, "closed"},
        {"user:ann", "read model:o/old", false, "old"},
        {"user:ann", "read model:o/old@v2", true, "all"},
        {"user:ann", "write model:o/keep", false, "keep"},
        {"user:ann", "write model:o/keep@main", false, "keep"},
        {"user:ann", "write model:o/keep@dev", true, "all"},
        {"user:ann", "read model:o/keep", true, "all"},
        {"user:ann", "write model:o/ro@dev", false, "ro"},
        {"anonymous", "read model:o/a", false, NULL},
    };
    struct policy *p = must_parse(yaml);

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct policy_decision d = every(p, rows[i].who, rows[i].what);

        if ((d.effect == POLICY_ALLOW) != rows[i].allowed ||
            (rows[i].rule == NULL ? d.rule != NULL
                                  : !gw_str_eq_c(policy_rule_id(d.rule), rows[i].rule))) {
            fail_msg("%s %s: %d by " GW_STR_FMT, rows[i].who, rows[i].what, d.effect,
                     GW_STR_ARG(policy_rule_id(d.rule)));
        }
    }
    policy_unref(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_is_deny),
        cmocka_unit_test(test_implications),
        cmocka_unit_test(test_subjects),
        cmocka_unit_test(test_directory_spellings),
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_every),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_deny_wins_and_order_is_nothing),
        cmocka_unit_test(test_a_reason_is_preferred),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_verify_before),
        cmocka_unit_test(test_total),
        cmocka_unit_test(test_private_namespaces),
        cmocka_unit_test(test_roles),
    };

    return cmocka_run_group_tests_name("policy decide", tests, NULL, NULL);
}
