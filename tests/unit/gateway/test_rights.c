/* SPDX-License-Identifier: Apache-2.0 */
/* Who asks, as a job is told; each path of a write against the policy. */
#include "gateway_fixture.h"

#include "gateway/rights.h"

#include <errno.h>

static void test_subject_as_text(void **state)
{
    const struct gw_str groups[] = {GW_STR("cn=a:b,dc=x"), GW_STR(""), GW_STR("two\nlines 3:abc")};
    const struct policy_subject who = {
        .kind = POLICY_USER, .name = GW_STR("ann"), .groups = groups, .n_groups = 3};
    const struct policy_subject nobody = {.kind = POLICY_ANONYMOUS, .name = GW_STR("")};
    struct policy_subject got;
    struct gw_str text, rest;
    struct gw_arena a;

    gw_arena_init(&a, 1u << 20);
    text = rights_subject_text(&a, &who);
    rest = gw_arena_printf(&a, GW_STR_FMT "{\"files\":[]}", GW_STR_ARG(text));
    assert_true(rights_subject_take(&got, &rest, &a));
    assert_true(gw_str_eq_c(rest, "{\"files\":[]}"));
    assert_int_equal(got.kind, POLICY_USER);
    assert_true(gw_str_eq_c(got.name, "ann"));
    assert_int_equal(got.n_groups, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_true(gw_str_eq(got.groups[i], groups[i]));
    }
    for (size_t n = 0; n < text.n; n++) { /* a group left out could be the one a deny is for */
        rest = gw_str_sub(text, 0, n);
        assert_false(rights_subject_take(&got, &rest, &a));
    }
    rest = rights_subject_text(&a, &nobody);
    assert_true(rights_subject_take(&got, &rest, &a));
    assert_int_equal(got.kind, POLICY_ANONYMOUS);
    assert_int_equal(rest.n, 0);
    rest = GW_STR("9:0:3:ann");
    assert_false(rights_subject_take(&got, &rest, &a));
    rest = GW_STR("1:1025:3:ann");
    assert_false(rights_subject_take(&got, &rest, &a));
    gw_arena_release(&a);
}

static void test_paths(void **state)
{
    static const char yaml[] =
        "version: 1\nprivate_namespaces: [acme]\nrules:\n"
        "  - {id: w, allow: [write], to: [\"user:ann\"], where: {hub: private}}\n"
        "  - {id: l, deny: [write], where: {hub: private, files: \"locked/**\"}, reason: No.}\n"
        "  - {id: r, deny: [write], where: {hub: private, revisions: release}}\n";
    static const struct {
        const char *revision;
        bool pull;
        const char *path;
        const char *refused; /* NULL: allowed */
    } rows[] = {
        {"main", false, "a", NULL},
        {"main", false, "locked/a", "locked/a: No."},
        {"main", false, "LOCKED/a", "LOCKED/a: No."},
        {"release", false, "a", "a: a rule of this gateway does not let you write this file"},
        {"refs/heads/release", false, "a",
         "a: a rule of this gateway does not let you write this file"},
        {"release", true, "a", NULL}, /* a proposal is not the branch */
    };
    struct policy_file file = {GW_STR("p.yaml"), gw_str_c(yaml)};
    struct policy *p = NULL;
    struct gw_error err;
    struct gw_arena a;

    gw_arena_init(&a, 1u << 20);
    assert_int_equal(policy_parse(&p, &file, 1, NULL, &err), GW_OK);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hub_target t = {.type = HUB_MODEL,
                               .ns = GW_STR("acme"),
                               .name = GW_STR("llm"),
                               .revision = gw_str_c(rows[i].revision),
                               .create_pr = rows[i].pull};
        struct rights r = {.policy = p,
                           .subject = {.kind = POLICY_USER, .name = GW_STR("ann")},
                           .object = rights_object(&t),
                           .a = &a};
        int rc = rights_path(&r, gw_str_c(rows[i].path), &err);

        assert_int_equal(rc, rows[i].refused != NULL ? GW_FORBIDDEN : GW_OK);
        if (rows[i].refused != NULL) {
            assert_string_equal(err.text, rows[i].refused);
            assert_int_equal(err.sys, EACCES);
            assert_true(gw_str_eq_c(r.refused, rows[i].path));
        }
    }
    policy_unref(p);
    gw_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subject_as_text),
        cmocka_unit_test(test_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
