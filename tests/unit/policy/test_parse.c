/* SPDX-License-Identifier: Apache-2.0 */
/* What files are refused, with which words, and what an accepted one counts. */
#include "fixture.h"

#include "base/alloc.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define V "version: 1\n"

/* The whole line: place, what is wrong, hint. NULL: accepted. */
static const struct {
    const char *yaml, *line;
} errors[] = {
    /* the file */
    {"rules: []\n", "p.yaml:1:1: \"version: 1\" is missing"},
    {"version: 2\n", "p.yaml:1:10: this hubgate reads version 1 of the language"},
    {"version: [1]\n", "p.yaml:1:10: this hubgate reads version 1 of the language"},
    {"- version: 1\n", "p.yaml:1:1: a policy file is a mapping; its keys: version, "
                       "private_namespaces, groups, services, rules, tests"},
    {V "rulez: []\n",
     "p.yaml:2:1: unknown key \"rulez\" in a policy file; did you mean \"rules\"?; known keys: "
     "version, private_namespaces, groups, services, rules, tests"},
    {V "waivers: []\n", "p.yaml:2:1: unknown key \"waivers\" in a policy file; known keys: "
                        "version, private_namespaces, groups, services, rules, tests"},
    {V "sets: {}\n", "p.yaml:2:1: unknown key \"sets\" in a policy file; did you mean \"tests\"?; "
                     "known keys: version, private_namespaces, groups, services, rules, tests"},
    {V "rules: {}\n", "p.yaml:2:8: rules is a list"},
    {V "tests: {}\n", "p.yaml:2:8: tests is a list"},
    {V "groups: []\n", "p.yaml:2:9: groups is a mapping from names to what they are"},
    {V "services: x\n", "p.yaml:2:11: services is a mapping from names to what they are"},
    {V "private_namespaces: {}\n", "p.yaml:2:21: private_namespaces is a list of words"},
    {V "private_namespaces: [a/b]\n", "p.yaml:2:22: bad glob \"a/b\": a namespace has no \"/\""},
    {V "private_namespaces: [\"u-${user}\"]\n", "p.yaml:2:22: bad glob \"u-${user}\": a namespace "
                                                "is private or not, whoever asks: no ${user} here"},
    {V "private_namespaces: [[a]]\n",
     "p.yaml:2:22: private_namespaces is one word, not a list or mapping"},
    {V "private_namespaces: []\n", NULL},
    {V "private_namespaces: acme\n", NULL},
    {V "private_namespaces:\ngroups:\nservices:\nrules:\ntests:\n", NULL},
    /* groups and services */
    {V "groups: {\"a b\": }\n",
     "p.yaml:2:10: bad group name \"a b\": 1 to 96 letters, digits, \".\", \"_\" or \"-\""},
    {V "groups: {a: {nested: yes}}\n",
     "p.yaml:2:14: unknown key \"nested\" in a group; known keys: ldap, name, users, any_of"},
    {V "groups: {a: {ldap: x, users: [y]}}\n",
     "p.yaml:2:23: a group has one of ldap, name, users, any_of; join groups with any_of"},
    {V "groups: {a: {ldap: \"\"}}\n", "p.yaml:2:20: ldap is empty"},
    {V "groups: {a: {ldap: [x]}}\n", "p.yaml:2:20: ldap is one word, not a list or mapping"},
    {V "groups: {a: {users: []}}\n", "p.yaml:2:21: users is empty"},
    {V "groups: {a: x}\n",
     "p.yaml:2:13: a group is a mapping; its keys: ldap, name, users, any_of"},
    {V "groups: {a: , A: }\n", "p.yaml:2:15: group \"A\" is declared twice"},
    {V "groups: {eng: , b: {any_of: [egn]}}\n",
     "p.yaml:2:30: unknown group \"egn\"; did you mean \"eng\"?"},
    {V "groups: {a: {any_of: [a]}}\n", "p.yaml:2:10: any_of goes round in a circle: a -> a"},
    {V "groups: {z: {any_of: [a]}, a: {any_of: [b]}, b: {any_of: [c, d]}, c: {any_of: [a]}, d: }\n",
     "p.yaml:2:28: any_of goes round in a circle: a -> b -> c -> a"},
    {V "groups: {a: {any_of: [b, c]}, b: {any_of: [d]}, c: {any_of: [d]}, d: }\n",
     NULL}, /* no circle */
    {V "services: {ci: {allow_ips: [10.0.0.0/8]}}\n",
     "p.yaml:2:17: unknown key \"allow_ips\" in a service; known keys: owner"},
    {V "services: {ci: {owner: \"group:x\"}}\n", "p.yaml:2:24: unknown group \"x\""},
    {V "services: {ci: {owner: bob}}\n", "p.yaml:2:24: an owner is group:NAME or user:NAME"},
    {V "services: {ci: {owner: \"user:bob\"}, bot: {owner: \"group:g\"}}\ngroups: {g: }\n", NULL},
    /* rules */
    {V "rules: [x]\n", "p.yaml:2:9: a rule is a mapping; its keys: id, allow, deny, to, unless, "
                       "where, reason, expires, public_ok, verify"},
    {V "rules: [{allow: [read], to: [authenticated]}]\n", "p.yaml:2:9: a rule has an id"},
    {V "rules: [{id: \"a b\", deny: [read]}]\n",
     "p.yaml:2:14: bad rule name \"a b\": 1 to 96 letters, digits, \".\", \"_\" or \"-\""},
    {V "rules: [{id: \"(default)\", deny: [read]}]\n",
     "p.yaml:2:14: bad rule name \"(default)\": 1 to 96 letters, digits, \".\", \"_\" or \"-\""},
    {V "rules: [{id: a, deny: [read]}, {id: A, deny: [write]}]\n",
     "p.yaml:2:37: rule \"A\" is there already, at p.yaml:2"},
    {V "rules: [{id: a}]\n", "p.yaml:2:9: a rule has exactly one of allow and deny"},
    {V "rules: [{id: a, allow: [read], deny: [read]}]\n",
     "p.yaml:2:9: a rule has exactly one of allow and deny"},
    {V "rules: [{id: a, deny: []}]\n", "p.yaml:2:23: the list of actions is empty"},
    {V "rules: [{id: a, deny: [reed]}]\n",
     "p.yaml:2:24: unknown action \"reed\"; did you mean \"read\"?; actions: discover, read, "
     "write, create, delete, admin"},
    {V "rules: [{id: a, deny: [READ]}]\n",
     "p.yaml:2:24: unknown action \"READ\"; actions: discover, read, write, create, delete, admin"},
    {V "rules: [{id: a, deny: [read], when: {gated: true}}]\n",
     "p.yaml:2:31: unknown key \"when\" in a rule; did you mean \"where\"?; known keys: id, allow, "
     "deny, to, unless, where, reason, expires, public_ok, verify"},
    {V "rules: [{id: a, deny: [read], mode: audit}]\n",
     "p.yaml:2:31: unknown key \"mode\" in a rule; known keys: id, allow, deny, to, unless, where, "
     "reason, expires, public_ok, verify"},
    {V "rules: [{id: a, deny: [read], use_credential: x}]\n",
     "p.yaml:2:31: unknown key \"use_credential\" in a rule; known keys: id, allow, deny, to, "
     "unless, where, reason, expires, public_ok, verify"},
    {V "rules: [{id: a, deny: [read], to: []}]\n", "p.yaml:2:35: to is empty"},
    {V "rules: [{id: a, deny: [read], to: }]\n", "p.yaml:2:35: to is empty"},
    {V "rules: [{id: a, deny: [read], unless: }]\n", "p.yaml:2:39: unless is empty"},
    {V "rules: [{id: a, deny: [read], to: {user: x}}]\n", "p.yaml:2:35: to is a list of words"},
    {V "rules: [{id: a, deny: [read], to: [everybody]}]\n",
     "p.yaml:2:36: unknown subject \"everybody\"; subjects: user:NAME, group:NAME, service:NAME, "
     "services, authenticated, anonymous, everyone"},
    {V "rules: [{id: a, deny: [read], to: [everyon]}]\n",
     "p.yaml:2:36: unknown subject \"everyon\"; did you mean \"everyone\"?; subjects: user:NAME, "
     "group:NAME, service:NAME, services, authenticated, anonymous, everyone"},
    {V "rules: [{id: a, deny: [read], to: [\"user:\"]}]\n",
     "p.yaml:2:36: unknown subject \"user:\"; subjects: user:NAME, group:NAME, service:NAME, "
     "services, authenticated, anonymous, everyone"},
    {V "groups: {ml: }\nrules: [{id: a, deny: [read], to: [\"group:mll\"]}]\n",
     "p.yaml:3:36: unknown group \"mll\"; did you mean \"ml\"?"},
    {V "rules: [{id: a, deny: [read], unless: [\"service:ci\"]}]\n",
     "p.yaml:2:40: unknown service \"ci\""},
    {V "rules: [{id: a, deny: [read], where: }]\n",
     "p.yaml:2:38: where is empty: give a condition, or leave it out to mean every repo"},
    {V "rules: [{id: a, deny: [read], where: {}}]\n",
     "p.yaml:2:38: where is empty: give a condition, or leave it out to mean every repo"},
    {V "rules: [{id: a, deny: [read], where: {hubs: private}}]\n",
     "p.yaml:2:39: unknown key \"hubs\" in where; did you mean \"hub\"?; known keys: hub, type, "
     "repo, revisions, files, files_not"},
    {V "rules: [{id: a, deny: [read], where: {file_types: [pickle]}}]\n",
     "p.yaml:2:39: unknown key \"file_types\" in where; known keys: hub, type, repo, revisions, "
     "files, files_not"},
    {V "rules: [{id: a, deny: [read], where: {set: x}}]\n",
     "p.yaml:2:39: unknown key \"set\" in where; known keys: hub, type, repo, revisions, files, "
     "files_not"},
    {V "rules: [{id: a, deny: [read], where: {hub: both}}]\n",
     "p.yaml:2:44: hub is private or public"},
    {V "rules: [{id: a, deny: [read], where: {type: models}}]\n",
     "p.yaml:2:45: unknown type \"models\"; did you mean \"model\"?; types: model, dataset, space, "
     "kernel"},
    {V "rules: [{id: a, deny: [read], where: {repo: acme}}]\n",
     "p.yaml:2:45: bad glob \"acme\": a repo is NAMESPACE/NAME, as in \"acme/*\"; one without a "
     "namespace is _/NAME"},
    {V "rules: [{id: a, deny: [read], where: {files: []}}]\n", "p.yaml:2:46: files is empty"},
    {V "rules: [{id: a, deny: [read], reason: \"a\\nb\"}]\n",
     "p.yaml:2:39: a reason is one line of at most 500 bytes"},
    {V "rules: [{id: a, deny: [read], expires: tomorrow}]\n",
     "p.yaml:2:40: expires is a date as in 2027-03-31 (to its end, UTC) or a time as in "
     "2027-03-31T18:00:00Z"},
    {V "rules: [{id: a, deny: [read], expires: 2027-02-30}]\n",
     "p.yaml:2:40: expires is a date as in 2027-03-31 (to its end, UTC) or a time as in "
     "2027-03-31T18:00:00Z"},
    {V "rules: [{id: a, deny: [read], expires: \"2027-03-31T18:00:00\"}]\n",
     "p.yaml:2:40: expires is a date as in 2027-03-31 (to its end, UTC) or a time as in "
     "2027-03-31T18:00:00Z"},
    {V "rules: [{id: a, deny: [read], public_ok: true}]\n",
     "p.yaml:2:31: public_ok belongs to an allow rule"},
    {V "rules: [{id: a, allow: [read], public_ok: yes}]\n",
     "p.yaml:2:43: public_ok is true or false"},
    {V "rules: [{id: a, allow: [read], to: [authenticated], verify: before}]\n", NULL},
    {V "rules: [{id: a, allow: [read], to: [authenticated], verify: after}]\n",
     "p.yaml:2:61: verify is before: files of this rule are sent once they are verified whole"},
    {V "rules: [{id: a, allow: [read], to: [authenticated], verify: [before]}]\n",
     "p.yaml:2:61: verify is before: files of this rule are sent once they are verified whole"},
    {V "rules: [{id: a, deny: [read], verify: before}]\n",
     "p.yaml:2:31: verify belongs to a rule that allows read"},
    {V "rules: [{id: a, allow: [create], to: [authenticated], verify: before}]\n",
     "p.yaml:2:55: verify belongs to a rule that allows read"},
    {V "services: {ci: }\nrules: [{id: a, deny: [read], to: [\"service:ci\", anonymous], where: "
       "{repo: \"u-${user}/*\"}}]\n",
     "p.yaml:3:9: ${user} is the name of a person, and rule \"a\" is for none"},
    {V "rules:\n- id: a\n  deny: read\n  reason: >\n    folded\n    text\n", NULL},
    /* an allow that opens private repos */
    {V "rules: [{id: a, allow: [read]}]\n",
     "p.yaml:2:9: rule \"a\" opens private repos to people who are not logged in: name who in "
     "\"to\", say hub: public in \"where\", or confirm with public_ok: true"},
    {V "rules: [{id: a, allow: [read], to: [anonymous], where: {hub: private}}]\n",
     "p.yaml:2:9: rule \"a\" opens private repos to people who are not logged in: name who in "
     "\"to\", say hub: public in \"where\", or confirm with public_ok: true"},
    {V "rules: [{id: a, allow: [read], to: [everyone], where: {hub: private}, public_ok: false}]\n",
     "p.yaml:2:9: rule \"a\" opens private repos to people who are not logged in: name who in "
     "\"to\", say hub: public in \"where\", or confirm with public_ok: true"},
    {V "rules: [{id: a, allow: [read], where: {hub: private}, public_ok: true}]\n", NULL},
    {V "rules: [{id: a, allow: [read], where: {hub: public}}]\n", NULL},
    {V "rules: [{id: a, allow: read, to: authenticated, where: {repo: a/*, type: model}}]\n", NULL},
    /* tests */
    {V "tests: [{name: t, as: anonymous}]\n", "p.yaml:2:9: a test has can, cannot or both"},
    {V "tests: [{as: anonymous, can: []}]\n", "p.yaml:2:9: a test has a name and \"as\": who asks"},
    {V "tests: [{name: t, as: bob, can: [\"read model:a/b\"]}]\n",
     "p.yaml:2:23: as: expected user:NAME, service:NAME or anonymous, or {user: NAME, groups: "
     "[..]}"},
    {V "tests: [{name: t, as: {user: a, service: b}, can: [\"read model:a/b\"]}]\n",
     "p.yaml:2:23: as has exactly one of user and service"},
    {V "tests: [{name: t, as: {user: a, groups: [x]}, can: [\"read model:a/b\"]}]\n",
     "p.yaml:2:42: unknown group \"x\""},
    {V "tests: [{name: t, as: \"service:ci\", can: [\"read model:a/b\"]}]\n",
     "p.yaml:2:23: unknown service \"ci\""},
    {V "tests: [{name: t, as: anonymous, can: [\"read\"]}]\n",
     "p.yaml:2:40: expected TYPE:NAMESPACE/NAME[@REVISION][//PATH], TYPE one of model, dataset, "
     "space, kernel"},
    {V "tests: [{name: t, as: anonymous, can: [\"look model:a/b\"]}]\n",
     "p.yaml:2:40: expected \"ACTION RESOURCE\" as in \"read model:acme/llm\"; actions: discover, "
     "read, write, create, delete, admin"},
    {V "tests: [{name: t, as: anonymous, cannot: [\"read model:a/b\"], rule: x}]\n",
     "p.yaml:2:68: unknown rule \"x\""},
    {V "tests: [{name: t, as: anonymous, ctx: {}, cannot: [\"read model:a/b\"]}]\n",
     "p.yaml:2:34: unknown key \"ctx\" in a test; did you mean \"can\"?; known keys: name, as, "
     "can, cannot, rule"},
    {V "tests: [{name: t, as: anonymous, cannot: \"read model:a/b\", rule: (default)}]\n", NULL},
    /* traps of YAML; base/yaml has the words */
    {V "rules: [{id: a, id: b, deny: [read]}]\n", ""},
    {V "rules: &x [{id: a, deny: [read]}]\n", ""},
    {V "rules: *x\n", ""},
    {V "rules: !!seq []\n", ""},
    {V "---\nversion: 1\n", ""},
    {V "\trules: []\n", ""},
    {V "rules: [\n", ""},
    {V "x: \"\\0\"\n", ""},
    {"\xff\n", ""},
};

static void test_errors(void **state)
{
    for (size_t i = 0; i < COUNT(errors); i++) {
        struct policy *p = NULL;
        struct gw_error err = {0};
        struct gw_buf report;
        char expected[700];
        int rc;

        gw_buf_init(&report, 4096);
        rc = parse_text(&p, errors[i].yaml, &report, &err);
        if (!errors[i].line) {
            if (rc != GW_OK || report.n) {
                fail_msg("%s\nrefused: %s", errors[i].yaml, err.text);
            }
            policy_unref(p);
        } else {
            snprintf(expected, sizeof(expected), "%s\n", errors[i].line);
            if (rc != GW_INVALID || p || err.status != GW_INVALID) {
                fail_msg("%s\naccepted", errors[i].yaml);
            }
            if (errors[i].line[0] ? strcmp(report.p, expected) != 0
                                  : strncmp(report.p, "p.yaml:", 7) != 0) {
                fail_msg("%s\ngot      %sexpected %s", errors[i].yaml, report.p, expected);
            }
            assert_memory_equal(err.text, report.p, strlen(err.text));
        }
        gw_buf_release(&report);
    }
}

/* All errors of all files in one run, in the order of the files' names and lines; nothing comes
 * out. */
static void test_every_error(void **state)
{
    const struct policy_file files[] = {
        {GW_STR("b.yaml"), GW_STR("version: 1\nrules:\n- {id: r1, allow: [reed], to: [nobody]}\n- "
                                  "{id: r1, deny: [read]}\n")},
        {GW_STR("c.yaml"), GW_STR("version: 1\nrules: [\n")},
        {GW_STR("a.yaml"),
         GW_STR("version: 1\ntests: [{name: t, as: anonymous, can: [x]}]\nrules: [{id: R1, deny: "
                "[read], when: 1}]\ngroups: {g: {any_of: [h]}}\n")},
    };
    struct policy *p = NULL;
    struct gw_error err = {0};
    struct gw_buf report;
    struct gw_str rest, line;
    static const char *const expected[] = {
        "a.yaml:2:40: expected \"ACTION",
        "a.yaml:3:14: rule \"R1\" is there already, at b.yaml:3",
        "a.yaml:3:32: unknown key \"when\"",
        "a.yaml:4:23: unknown group \"h\"",
        "b.yaml:3:20: unknown action \"reed\"",
        "b.yaml:3:32: unknown subject \"nobody\"",
        "b.yaml:4:8: rule \"r1\" is there already, at b.yaml:3",
        "c.yaml:",
    };

    gw_buf_init(&report, 4096);
    assert_int_equal(policy_parse(&p, files, 3, &report, &err), GW_INVALID);
    assert_null(p);
    rest = gw_buf_str(&report);
    for (size_t i = 0; i < COUNT(expected); i++) {
        assert_true(gw_str_split(&rest, '\n', &line));
        if (!gw_str_starts(line, gw_str_c(expected[i]))) {
            fail_msg("line %zu: %.*s", i, GW_STR_ARG(line));
        }
    }
    assert_int_equal(rest.n, 0);
    assert_memory_equal(err.text, expected[0], strlen(expected[0]));
    gw_buf_release(&report);
    assert_int_equal(policy_parse(&p, files, 3, NULL, NULL), GW_INVALID); /* both may be absent */
}

static void test_report_has_a_ceiling(void **state)
{
    struct policy *p = NULL;
    struct gw_error err = {0};
    struct gw_buf report, yaml;

    gw_buf_init(&yaml, 1 << 20);
    gw_buf_add_c(&yaml, V "rules:\n");
    for (int i = 0; i < 3000; i++) {
        gw_buf_addf(&yaml, "- {id: r%d, deny: [nothing]}\n", i);
    }
    gw_buf_init(&report, 300);
    assert_int_equal(parse_text(&p, yaml.p, &report, &err), GW_INVALID);
    assert_false(report.failed);
    assert_true(report.n > 100 && report.n <= 300 && report.p[report.n - 1] == '\n');
    gw_buf_release(&report);
    gw_buf_init(&report, 1 << 20);
    assert_int_equal(parse_text(&p, yaml.p, &report, &err), GW_INVALID);
    assert_non_null(strstr(report.p, "\nand 2000 more errors\n"));
    gw_buf_release(&report);
    gw_buf_release(&yaml);
}

/* What a message quotes cannot forge a line of its own. */
static void test_messages_are_lines(void **state)
{
    struct policy *p = NULL;
    struct gw_error err = {0};

    assert_int_equal(
        parse_text(&p, V "rules: [{id: a, deny: [\"x\\np.yaml:1:1: \\e[31m\"]}]\n", NULL, &err),
        GW_INVALID);
    assert_null(strpbrk(err.text, "\n\033"));
    assert_non_null(strstr(err.text, "unknown action \"x?p.yaml"));
}

static void test_too_large(void **state)
{
    struct policy_file file = {GW_STR("p.yaml"), {NULL, POLICY_MAX_BYTES / 2 + 1}};
    struct policy_file twice[2];
    struct policy *p = NULL;
    struct gw_error err = {0};
    char *text = malloc(file.yaml.n);

    memset(text, '\n', file.yaml.n);
    file.yaml.p = text;
    twice[0] = twice[1] = file;
    assert_int_equal(policy_parse(&p, twice, 2, NULL, &err), GW_TOO_LARGE);
    assert_int_equal(policy_parse(&p, twice, 1, NULL, &err), GW_OK);
    policy_unref(p);
    free(text);
}

/* Groups within groups within groups: the whole is bounded, not the machine. */
static void test_wide_nesting_is_bounded(void **state)
{
    struct policy *p = NULL;
    struct gw_error err = {0};
    struct gw_buf yaml;

    gw_buf_init(&yaml, 8 << 20);
    gw_buf_add_c(&yaml, V "groups:\n  g0:\n");
    for (int i = 1; i < 3000; i++) {
        gw_buf_addf(&yaml, "  g%d: {any_of: [g%d]}\n", i, i - 1);
    }
    assert_int_equal(parse_text(&p, yaml.p, NULL, &err), GW_TOO_LARGE);
    assert_null(p);
    gw_buf_reset(&yaml);
    gw_buf_add_c(&yaml, V "groups:\n  g0: {any_of: [g2999]}\n");
    for (int i = 1; i < 3000; i++) {
        gw_buf_addf(&yaml, "  g%d: {any_of: [g%d]}\n", i, i - 1);
    }
    assert_int_equal(parse_text(&p, yaml.p, NULL, &err), GW_INVALID);
    assert_non_null(strstr(err.text, "round in a circle"));
    gw_buf_release(&yaml);
}

static void test_number_of_groups_is_bounded(void **state)
{
    struct policy *p = NULL;
    struct gw_error err = {0};
    struct gw_buf yaml;

    gw_buf_init(&yaml, 8 << 20);
    gw_buf_add_c(&yaml, V "groups:\n");
    for (int i = 0; i < 65536; i++) {
        gw_buf_addf(&yaml, "  g%d:\n", i);
    }
    assert_int_equal(parse_text(&p, yaml.p, NULL, &err), GW_OK);
    assert_int_equal(policy_count(p).groups, 65536);
    policy_unref(p);
    gw_buf_add_c(&yaml, "  one-more:\n");
    assert_int_equal(parse_text(&p, yaml.p, NULL, &err), GW_INVALID);
    assert_string_equal(err.text, "p.yaml:65539:3: more than 65536 groups");
    gw_buf_release(&yaml);
}

static const char everything[] =
    V "private_namespaces: [acme, \"u-*\"]\n"
      "groups:\n"
      "  eng: {ldap: \"cn=eng,dc=acme\"}\n"
      "  eng2: {ldap: \"CN = eng, dc=acme\"}\n"
      "  ops:\n"
      "  hand: {users: [kim, lee]}\n"
      "  all: {any_of: [eng, hand]}\n"
      "services: {ci: {owner: \"group:eng\"}}\n"
      "rules:\n"
      "- {id: a, allow: [write, create], to: [\"group:all\", \"user:bo\", \"service:ci\"], unless: "
      "[\"user:x\"], where: {hub: private, type: [model, dataset], repo: [\"acme/{a,b}*\", "
      "\"u-${user}/*\"], revisions: [main], files: [\"**/*.x\"], files_not: [y]}, reason: "
      "Because., expires: 2030-01-01}\n"
      "- {id: b, deny: [discover], unless: [authenticated]}\n"
      "tests:\n"
      "- {name: t, as: {user: kim, groups: [eng]}, can: [\"write model:acme/a1@main//d/f.x\"], "
      "cannot: [\"delete model:acme/a1\", \"read space:acme/a1\"], rule: (default)}\n"
      "- {name: u, as: anonymous, cannot: \"discover model:q\", rule: b}\n";

static void test_counts(void **state)
{
    struct policy *p = must_parse(everything);
    struct policy_counts n = policy_count(p);

    assert_int_equal(n.rules, 2);
    assert_int_equal(n.groups, 5);
    assert_int_equal(n.services, 1);
    assert_int_equal(n.private_namespaces, 2);
    assert_int_equal(n.tests, 2);
    assert_int_equal(policy_test(p, NOW, NULL).passed, 2);
    /* each directory value once, as written */
    assert_true(gw_str_eq_c(policy_group_source(p, 0), "cn=eng,dc=acme"));
    assert_true(gw_str_eq_c(policy_group_source(p, 1), "ops"));
    assert_null(policy_group_source(p, 2).p);
    assert_null(policy_group_source(p, 99).p);
    policy_unref(p);
}

static void test_references(void **state)
{
    struct policy *p = must_parse(everything);

    assert_ptr_equal(policy_ref(p), p);
    policy_unref(p);
    expect(p, "user:bo", "write model:acme/a@main//1.x", "+a"); /* still there */
    policy_unref(p);
    policy_unref(NULL);
}

/* Names in one file, uses in another, in either order. */
static void test_files_are_one_policy(void **state)
{
    struct policy_file files[] = {
        {GW_STR("a.yaml"),
         GW_STR(V "rules: [{id: r, allow: [read], to: [\"group:g\", \"service:s\"]}]\ntests: "
                  "[{name: n, as: \"service:s\", can: \"read model:a/b\", rule: r}]")},
        {GW_STR("b.yaml"), GW_STR("")},
        {GW_STR("c.yaml"), GW_STR(V "groups: {g: {any_of: [h]}}\nservices: {s: {owner: "
                                    "\"group:h\"}}\nprivate_namespaces: [x]")},
        {GW_STR("d.yaml"), GW_STR(V "groups: {h: }\nprivate_namespaces: [y]")},
    };
    struct policy_file backwards[] = {files[3], files[2], files[1], files[0]};
    struct policy *p = NULL;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(policy_parse(&p, i ? backwards : files, 4, NULL, NULL), GW_OK);
        expect(p, "user:x h", "read model:a/b", "+r");
        assert_true(policy_is_private(p, GW_STR("x")) && policy_is_private(p, GW_STR("y")));
        assert_int_equal(policy_test(p, NOW, NULL).passed, 1);
        policy_unref(p);
    }
    assert_int_equal(policy_parse(&p, NULL, 0, NULL, NULL), GW_OK);
    policy_unref(p);
}

/* Each allocation in turn fails: an error, nothing leaked (the sanitizer looks), *out left alone.
 */
static void fail_each(const char *yaml, int normally)
{
    struct policy *p = NULL;
    struct gw_error err = {0};
    struct gw_buf report;
    size_t n, i;

    gw_buf_init(&report, 4096);
    gw_alloc_fail_at(0);
    assert_int_equal(parse_text(&p, yaml, &report, &err), normally);
    n = gw_alloc_fail_at(0);
    policy_unref(p);
    assert_true(n > 3);
    for (i = 1; i <= n; i++) {
        int rc;

        p = NULL;
        gw_buf_release(&report);
        gw_buf_init(&report, 4096);
        gw_alloc_fail_at(i);
        rc = parse_text(&p, yaml, &report, &err);
        gw_alloc_fail_at(0);
        if (rc != GW_NO_MEMORY &&
            !(rc == normally && normally != GW_OK)) { /* only the report was cut */
            fail_msg("allocation %zu of %zu: %s", i, n, gw_status_name((enum gw_status)rc));
        }
        assert_null(p);
    }
    gw_buf_release(&report);
}

static void test_no_memory(void **state)
{
    struct gw_buf yaml;

    fail_each(everything, GW_OK);
    fail_each(V "rules: [{id: a, alow: [read]}]\ngroups: {g: {any_of: [h]}}\n", GW_INVALID);
    fail_each(V "groups: {g: {any_of: [h]}, h: {any_of: [g]}}\n", GW_INVALID);
    gw_buf_init(&yaml, 1 << 20); /* enough of everything that each step allocates more than once */
    gw_buf_add_c(&yaml, V "groups:\n");
    for (int i = 0; i < 60; i++) {
        gw_buf_addf(&yaml, "  g%d: {%s: [\"%s%d\"]}\n", i, i % 2 ? "any_of" : "users",
                    i % 2 ? "g" : "u", i - 1);
    }
    gw_buf_add_c(&yaml, "rules:\n");
    for (int i = 0; i < 60; i++) {
        gw_buf_addf(&yaml,
                    "- {id: r%d, allow: [read], to: [\"group:g%d\", \"user:v%d\"], where: {repo: "
                    "[\"a%d/*\", b/m%d]}}\n",
                    i, i, i, i, i);
    }
    fail_each(yaml.p, GW_OK);
    gw_buf_release(&yaml);
}

/* ---- words of the command ---- */

static void test_resources(void **state)
{
    static const struct {
        const char *text, *type, *ns, *name, *revision, *path;
    } good[] = {
        {"model:acme/llm", "model", "acme", "llm", "", ""},
        {"dataset:acme/llm@main", "dataset", "acme", "llm", "main", ""},
        {"space:acme/llm@refs/pr/1//a/b c.txt", "space", "acme", "llm", "refs/pr/1", "a/b c.txt"},
        {"kernel:acme/llm//a@b//c", "kernel", "acme", "llm", "", "a@b//c"},
        {"model:gpt2", "model", "_", "gpt2", "", ""},
        {"model:gpt2@v1//x", "model", "_", "gpt2", "v1", "x"},
        {"model:a/b@c@d", "model", "a", "b", "c@d", ""},
        {"model:A_b.c-9/Z", "model", "A_b.c-9", "Z", "", ""},
    };
    static const char *const bad[] = {
        "",
        "model",
        "model:",
        "models:a/b",
        "bucket:a/b",
        "a/b",
        "model:/b",
        "model:a/",
        "model:a/b/c",
        "model:a/b@",
        "model:a/b//",
        "model:a/b@//x",
        "model:a b/c",
        "model:a/*",
        "model:a/b@x\ny",
        "model:a/b//x\x7f",
        "model:\xc3\xa4/b",
        "MODEL:a/b",
        "model:"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaa/b",
    };

    for (size_t i = 0; i < COUNT(good); i++) {
        struct policy_object o;

        assert_int_equal(policy_resource_parse(gw_str_c(good[i].text), &o, NULL), GW_OK);
        assert_true(gw_str_eq_c(o.type, good[i].type) && gw_str_eq_c(o.ns, good[i].ns) &&
                    gw_str_eq_c(o.name, good[i].name) &&
                    gw_str_eq_c(o.revision, good[i].revision) &&
                    gw_str_eq_c(o.path, good[i].path) && o.commit.n == 0);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct gw_error err = {0};
        struct policy_object o = {.type = GW_STR("left alone")};

        if (policy_resource_parse(gw_str_c(bad[i]), &o, &err) != GW_INVALID) {
            fail_msg("%s", bad[i]);
        }
        assert_true(gw_str_eq_c(o.type, "left alone"));
        assert_non_null(strstr(err.text, "TYPE:NAMESPACE/NAME"));
    }
}

static void test_who(void **state)
{
    static const char *const bad[] = {"",          "ann",       "user:",      "group:eng",
                                      "users:ann", "Anonymous", "anonymous:", "user:a\nb"};
    struct policy_subject s;

    assert_int_equal(policy_who_parse(GW_STR("user:ann@acme:x"), &s, NULL), GW_OK);
    assert_true(s.kind == POLICY_USER && gw_str_eq_c(s.name, "ann@acme:x") && s.n_groups == 0);
    assert_int_equal(policy_who_parse(GW_STR("service:ci"), &s, NULL), GW_OK);
    assert_true(s.kind == POLICY_SERVICE && gw_str_eq_c(s.name, "ci"));
    assert_int_equal(policy_who_parse(GW_STR("anonymous"), &s, NULL), GW_OK);
    assert_true(s.kind == POLICY_ANONYMOUS && s.name.n == 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct gw_error err = {0};

        if (policy_who_parse(gw_str_c(bad[i]), &s, &err) != GW_INVALID) {
            fail_msg("%s", bad[i]);
        }
        assert_string_equal(err.text, "expected user:NAME, service:NAME or anonymous");
    }
}

static void test_actions(void **state)
{
    enum policy_action a;

    for (unsigned i = 0; i < POLICY_ACTION_COUNT; i++) {
        assert_true(policy_action_parse(gw_str_c(policy_action_name((enum policy_action)i)), &a));
        assert_int_equal(a, i);
    }
    assert_false(policy_action_parse(GW_STR("Read"), &a));
    assert_false(policy_action_parse(GW_STR(""), &a));
    assert_string_equal(policy_action_name(POLICY_ACTION_COUNT), "(no action)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_every_error),
        cmocka_unit_test(test_report_has_a_ceiling),
        cmocka_unit_test(test_messages_are_lines),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_wide_nesting_is_bounded),
        cmocka_unit_test(test_number_of_groups_is_bounded),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_files_are_one_policy),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_resources),
        cmocka_unit_test(test_who),
        cmocka_unit_test(test_actions),
    };

    return cmocka_run_group_tests_name("policy parse", tests, NULL, NULL);
}
