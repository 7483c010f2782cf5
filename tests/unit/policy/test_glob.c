/* SPDX-License-Identifier: Apache-2.0 */
/* Globs, through the language: what they match, what is refused, and a slow matcher that must
 * agree. */
#include "fixture.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Patterns are made of bytes that mean nothing inside YAML's single quotes. */
static struct policy *with_glob(const char *key, const char *pattern, struct gw_error *err)
{
    struct policy *p = NULL;
    char yaml[1200];

    snprintf(
        yaml, sizeof(yaml),
        "version: 1\nrules: [{id: r, allow: [admin], to: [authenticated], where: {%s: ['%s']}}]",
        key, pattern);
    (void)!parse_text(&p, yaml, NULL, err);
    return p;
}

static bool file_matches(const struct policy *p, struct gw_str path, const char *user)
{
    struct policy_object o = {GW_STR("model"), GW_STR("a"), GW_STR("b"),
                              GW_STR(""),      GW_STR(""),  path};
    struct policy_subject s = {.kind = POLICY_USER, .name = gw_str_c(user)};

    return policy_decide(p, &s, POLICY_READ, &o, NOW).effect == POLICY_ALLOW;
}

static void test_matches(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool yes;
    } rows[] = {
        {"a", "a", true},
        {"a", "b", false},
        {"a", "aa", false},
        {"a", "A", true},
        {"A", "a", true},
        {"ab", "a", false},
        {"*", "abc", true},
        {"*", "a/c", false},
        {"a*", "a", true},
        {"*a", "ba", true},
        {"*a", "ab", false},
        {"*.bin", "x.bin", true},
        {"*.bin", "x.bin.txt", false},
        {"*.bin", "d/x.bin", false},
        {"d/*.bin", "d/x.bin", true},
        {"d/*.bin", "d/e/x.bin", false},
        {"*/*", "a/b", true},
        {"*/*", "a/b/c", false},
        {"*/*", "a", false},
        {"*b*c*", "abcbc", true},
        {"*a/*b", "xa/yyb", true},
        {"*a/*b", "xa/yya/zb", false},
        {"a**c", "a/b/c", true},
        {"a**c", "ac", true},
        {"**", "a/b/c", true},
        {"**.bin", "a/b.bin", true},
        {"**.bin", "b.bin", true},
        {"**/*.bin", "b.bin", true}, /* no folder, or any */
        {"**/*.bin", "a/b/c.bin", true},
        {"**/*.bin", "a/b/c.txt", false},
        {"**/b", "ab", false},
        {"**/b", "a/b", true},
        {"a/**/b", "a/b", true},
        {"a/**/b", "a/x/y/b", true},
        {"a/**/b", "a/xb", false},
        {"a/**/b", "axb", false},
        {"a/**", "a/b/c", true},
        {"a/**", "a", false},
        {"**/**/x", "x", true},
        {"**/**/x", "a/x", true},
        {"x**/y", "xa/b/y", true},
        {"x**/y", "xy", false},
        {"**/a/**", "q/a/z", true},
        {"**/a/**", "a/z", true},
        {"**/a*/**/z", "ab/z", true},
        {"**/a*/**/z", "q/ab/c/d/z", true},
        {"**/a*/**/z", "q/b/c/d/z", false},
        {"?", "a", true},
        {"?", "/", false},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"a?c", "a/c", false},
        {"{a,b}", "a", true},
        {"{a,b}", "b", true},
        {"{a,b}", "c", false},
        {"x{,-v2}", "x", true},
        {"x{,-v2}", "x-v2", true},
        {"x{,-v2}", "x-v", false},
        {"{a,b}{c,d}", "bd", true},
        {"{a,b}{c,d}", "ab", false},
        {"*.{bin,pkl,pt}", "m.pt", true},
        {"{**/*,x}.bin", "a/b.bin", true},
        {"{*,q}*", "a", true},
        {"{*,q}*", "a/b", false}, /* two stars from two places are no double star */
        {"a,b", "a,b", true},
        {"u-${user}/x", "u-kim/x", true},
        {"u-${user}/x", "u-lee/x", false},
        {"${user}${user}", "kimkim", true},
        {"{${user},all}/**", "kim/x/y", true},
        {"{${user},all}/**", "all/x", true},
        {"${user}*", "KIMberly", true},
        {"$x", "$x", true},
        {"a b", "a b", true},
        {"\xc3\xa4*", "\xc3\xa4x", true},
        {"*\xc3\xa4", "x\xc3\xa4", true},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_error err = {0};
        struct policy *p = with_glob("files", rows[i].pattern, &err);

        if (!p) {
            fail_msg("%s: %s", rows[i].pattern, err.text);
        }
        if (file_matches(p, gw_str_c(rows[i].text), "kim") != rows[i].yes) {
            fail_msg("\"%s\" and \"%s\": expected %s", rows[i].pattern, rows[i].text,
                     rows[i].yes ? "match" : "none");
        }
        policy_unref(p);
    }
}

static void test_refused(void **state)
{
    static char long_pattern[400], many[600];
    const struct {
        const char *key, *pattern, *why;
    } rows[] = {
        {"files", "", "files is empty"},
        {"files", "a[bc]", "[...] classes"},
        {"files", "a\\*b", "backslashes"},
        {"files", "!a", "leading !"},
        {"files", "a***b", "write * (within a segment) or **"},
        {"files", "{a,{b,c}}", "braces cannot be nested"},
        {"files", "{a,b", "{ without }"},
        {"files", "a,b}", "} without {"},
        {"files", "{a,}", "one of its alternatives is empty"},
        {"files", "${group}", "the only variable is ${user}"},
        {"files", "${user}${user}${user}${user}${user}", "more than 4 times"},
        {"files", long_pattern, "longer than 256 bytes"},
        {"files", many, "more than 64 patterns"},
        {"files", "/a", "do not begin with"},
        {"files", "a/", "folder/**"},
        {"files", "a/{b,}", "folder/**"},
        {"repo", "acme", "NAMESPACE/NAME"},
        {"repo", "*", "NAMESPACE/NAME"},
        {"repo", "a/b/c", "NAMESPACE/NAME"},
        {"repo", "model:a/b", "names have only letters"},
        {"repo", "a/\xc3\xa4", "names have only letters"},
    };

    memset(long_pattern, 'a', 257);
    for (int i = 0; i < 7; i++) {
        strcat(many, "{a,b}");
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_error err = {0};
        struct policy *p = with_glob(rows[i].key, rows[i].pattern, &err);

        if (p || !strstr(err.text, rows[i].why)) {
            fail_msg("\"%s\": %s", rows[i].pattern, p ? "accepted" : err.text);
        }
    }
}

/* At the limits: 256 bytes, 64 alternatives. */
static void test_limits(void **state)
{
    struct gw_error err = {0};
    char pattern[300] = "", path[300] = "";
    struct policy *p;

    for (int i = 0; i < 6; i++) {
        strcat(pattern, "{a,b}");
        strcat(path, i % 2 ? "a" : "B");
    }
    p = with_glob("files", pattern, &err);
    assert_non_null(p);
    assert_true(file_matches(p, gw_str_c(path), "x"));
    policy_unref(p);
    memset(pattern, 'a', 256);
    pattern[256] = '\0';
    p = with_glob("files", pattern, &err);
    assert_non_null(p);
    assert_true(file_matches(p, (struct gw_str){pattern, 256}, "x"));
    assert_false(file_matches(p, (struct gw_str){pattern, 255}, "x"));
    policy_unref(p);
}

/* A name is text: whatever is in it, it is no operator, and a ${user} glob stays within its
 * segment. */
static void test_user_is_text(void **state)
{
    static char long_name[300], path[320];
    struct gw_error err = {0};
    struct policy *p = with_glob("files", "u-${user}/x", &err);

    assert_non_null(p);
    assert_true(file_matches(p, GW_STR("u-a*b/x"), "a*b"));
    assert_false(file_matches(p, GW_STR("u-azb/x"), "a*b"));
    assert_false(file_matches(p, GW_STR("u-z/x"), "\x02"));
    assert_false(file_matches(p, GW_STR("u-\x02/x"), "\x02"));
    assert_false(file_matches(p, GW_STR("u-a/b/x"), "a/b"));
    assert_false(file_matches(p, GW_STR("u-/x"), ""));
    memset(long_name, 'a', 257);
    assert_false(file_matches(p, GW_STR("u-a/x"), long_name));
    snprintf(path, sizeof(path), "u-%s/x", long_name);
    assert_false(file_matches(p, gw_str_c(path), long_name)); /* no name is that long */
    policy_unref(p);
    p = with_glob("files", "${user}${user}${user}${user}*", &err);
    long_name[256] = '\0';
    assert_non_null(p);
    assert_false(file_matches(p, GW_STR("a"), long_name));
    policy_unref(p);
}

/* Any backtracking that branches would not come back from these. */
static void test_hostile_patterns_end(void **state)
{
    static const char *const pieces[] = {"*a", "**a", "**/a", "*a**b", "?*", "**/*a"};
    static char path[3000];
    char pattern[300];

    memset(path, 'a', sizeof(path));
    for (size_t i = 200; i < sizeof(path); i += 200) {
        path[i] = '/';
    }
    path[sizeof(path) - 1] = 'b';
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct gw_error err = {0};
        struct policy *p;

        pattern[0] = '\0';
        while (strlen(pattern) + strlen(pieces[i]) + 2 < 256) {
            strcat(pattern, pieces[i]);
        }
        strcat(pattern, "x");
        p = with_glob("files", pattern, &err);
        if (!p) {
            fail_msg("%s: %s", pattern, err.text);
        }
        assert_false(file_matches(p, (struct gw_str){path, sizeof(path)}, "x"));
        policy_unref(p);
    }
}

/* ---- the slow matcher: by definition, one alternative at a time ---- */

static bool slow(const char *g, const char *start, const char *t)
{
    if (*g == '\0') {
        return *t == '\0';
    }
    if (strncmp(g, "**/", 3) == 0 && (g == start || g[-1] == '/')) {
        if (slow(g + 3, start, t)) {
            return true;
        }
        for (; *t; t++) {
            if (*t == '/' && slow(g + 3, start, t + 1)) {
                return true;
            }
        }
        return false;
    }
    if (strncmp(g, "**", 2) == 0) {
        for (;; t++) {
            if (slow(g + 2, start, t)) {
                return true;
            }
            if (*t == '\0') {
                return false;
            }
        }
    }
    if (*g == '*') {
        for (;; t++) {
            if (slow(g + 1, start, t)) {
                return true;
            }
            if (*t == '\0' || *t == '/') {
                return false;
            }
        }
    }
    return *t && (*g == '?' ? *t != '/' : *g == *t) && slow(g + 1, start, t + 1);
}

static unsigned below(unsigned n)
{
    static uint64_t x = 20260921;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (unsigned)(x >> 11) % n;
}

static void random_text(char *out, const char *alphabet, unsigned max)
{
    unsigned n = 1 + below(max);

    for (unsigned i = 0; i < n; i++) {
        out[i] = alphabet[below((unsigned)strlen(alphabet))];
    }
    out[n] = '\0';
}

static void test_agrees_with_slow(void **state)
{
    char pattern[16], text[16];
    unsigned matched = 0, compared = 0;

    for (int i = 0; i < 4000; i++) {
        struct gw_error err = {0};
        struct policy *p;

        random_text(pattern, "aab**/?", 9);
        p = with_glob("files", pattern, &err);
        if (!p) { /* three stars, a slash at an end */
            continue;
        }
        for (int k = 0; k < 25; k++) {
            bool want, got;

            random_text(text, "aab/", 8);
            want = slow(pattern, pattern, text);
            got = file_matches(p, gw_str_c(text), "x");
            if (want != got) {
                fail_msg("\"%s\" and \"%s\": expected %s", pattern, text, want ? "match" : "none");
            }
            matched += want;
            compared++;
        }
        policy_unref(p);
    }
    assert_true(compared > 30000 && matched > 1500 && matched < compared / 2); /* it did compare */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_user_is_text),
        cmocka_unit_test(test_hostile_patterns_end),
        cmocka_unit_test(test_agrees_with_slow),
    };

    return cmocka_run_group_tests_name("policy glob", tests, NULL, NULL);
}
