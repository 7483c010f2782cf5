/* SPDX-License-Identifier: Apache-2.0 */
#include "repo/repo_internal.h"
#include "tests/unit/repo/repo_test.h"

#define A32 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_grammar(void **state)
{
    static const struct {
        const char *type, *ns, *name;
        int looking, making;
    } rows[] = {
        {"model", "acme", "llm", GW_OK, GW_OK},
        {"dataset", "Acme_1", "a.b-c_d", GW_OK, GW_OK},
        {"space", "a", "0", GW_OK, GW_OK},
        {"model", "_a", "b_", GW_OK, GW_OK},
        {"model", "acme", A32 A32 A32, GW_OK, GW_OK},
        {"model", "acme", A32 A32 A32 "a", GW_INVALID, GW_INVALID},
        {"model", A32 A32 A32 "a", "llm", GW_INVALID, GW_INVALID},
        {"models", "acme", "llm", GW_INVALID, GW_INVALID},
        {"", "acme", "llm", GW_INVALID, GW_INVALID},
        {"Model", "acme", "llm", GW_INVALID, GW_INVALID},
        {"../model", "acme", "llm", GW_INVALID, GW_INVALID},
        {"model", "", "llm", GW_INVALID, GW_INVALID},
        {"model", "acme", "", GW_INVALID, GW_INVALID},
        {"model", ".", "llm", GW_INVALID, GW_INVALID},
        {"model", "..", "llm", GW_INVALID, GW_INVALID},
        {"model", "acme", "..", GW_INVALID, GW_INVALID},
        {"model", "acme", "a..b", GW_INVALID, GW_INVALID},
        {"model", "acme", "a--b", GW_INVALID, GW_INVALID},
        {"model", "acme", "a-.b", GW_OK, GW_OK},
        {"model", "acme", "-a", GW_INVALID, GW_INVALID},
        {"model", "acme", "a-", GW_INVALID, GW_INVALID},
        {"model", "acme", ".a", GW_INVALID, GW_INVALID},
        {"model", "acme", "a.", GW_INVALID, GW_INVALID},
        {"model", "acme", "a.git", GW_INVALID, GW_INVALID},
        {"model", "acme", "a.GIT", GW_INVALID, GW_INVALID},
        {"model", "acme", "git", GW_OK, GW_OK},
        {"model", "acme", "a/b", GW_INVALID, GW_INVALID},
        {"model", "a/b", "c", GW_INVALID, GW_INVALID},
        {"model", "acme", "a b", GW_INVALID, GW_INVALID},
        {"model", "acme", "a\nb", GW_INVALID, GW_INVALID},
        {"model", "acme", "\xc3\xa9t\xc3\xa9", GW_INVALID, GW_INVALID},
        {"model", "api", "llm", GW_OK, GW_INVALID},
        {"model", "Datasets", "llm", GW_OK, GW_INVALID},
        {"model", "organizations", "llm", GW_OK, GW_INVALID},
        {"model", "acme", "resolve", GW_OK, GW_INVALID},
        {"model", "acme", "TREE", GW_OK, GW_INVALID},
        {"model", "acme", "xet-read-token", GW_OK, GW_INVALID},
        {"model", "resolve", "llm", GW_OK, GW_OK},
        {"model", "acme", "resolver", GW_OK, GW_OK},
    };
    struct gw_error err;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct repo_id id = {gw_str_c(rows[i].type), gw_str_c(rows[i].ns), gw_str_c(rows[i].name)};

        if (repo_id_check(&id, false, &err) != rows[i].looking ||
            repo_id_check(&id, true, &err) != rows[i].making) {
            fail_msg("row %zu: %s/%s", i, rows[i].ns, rows[i].name);
        }
    }
    /* a NUL inside is no end */
    assert_int_equal(repo_id_check(ID("model", "acme", "a\0b"), false, &err), GW_INVALID);
}

static void test_components(void **state)
{
    static const struct {
        const char *name;
        bool ok, hostile;
    } rows[] = {
        {"a", true, false},
        {" a b ", true, false},
        {"...", true, false},
        {".gitignore", true, false},
        {".github", true, false},
        {"git", true, false},
        {".gi", true, false},
        {"git~2", true, false},
        {"\xc3\xa9", true, false},  /* NFC */
        {"e\xcc\x81", true, false}, /* NFD */
        {"", false, true},
        {".", false, true},
        {"..", false, true},
        {"a/b", false, true},
        {".git", false, true},
        {".GIT", false, true},
        {".Git ", false, true},
        {".git. . ", false, true},
        {".git          ", false, true},
        {".git          x", true, false},
        {".git::$INDEX_ALLOCATION", false, true},
        {"git~1", false, true},
        {".g\xe2\x80\x8cit", false, true}, /* U+200C: HFS+ drops it */
        {"\xef\xbb\xbf.git", false, true},
        {"a\\b", false, false},
        {"a\nb", false, false},
        {"a\x7f", false, false},
        {"\xff", false, false},
    };
    char name[300];

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_str s = gw_str_c(rows[i].name);

        if ((repo_component_refused(s) == NULL) != rows[i].ok ||
            repo_component_hostile(s) != rows[i].hostile) {
            fail_msg("row %zu: %s", i, rows[i].name);
        }
    }
    memset(name, 'a', sizeof(name));
    assert_null(repo_component_refused((struct gw_str){name, 255}));
    assert_non_null(repo_component_refused((struct gw_str){name, 256}));
}

static void test_shown(void **state)
{
    char out[REPO_SHOWN_MAX], path[1000];

    assert_string_equal(repo_show(out, GW_STR("a\nb\x1b\x7f")), "a\\x0ab\\x1b\\x7f");
    assert_string_equal(repo_show(out, GW_STR("\xc3\xa9")), "\xc3\xa9");
    assert_string_equal(repo_show(out, GW_STR("\xc3")), "\\xc3");
    memset(path, '\n', sizeof(path));
    assert_true(strlen(repo_show(out, (struct gw_str){path, sizeof(path)})) < REPO_SHOWN_MAX);
    memset(path, 'a', sizeof(path));
    memcpy(path + sizeof(path) - 3, "end", 3);
    repo_show(out, (struct gw_str){path, sizeof(path)});
    assert_string_equal(out + strlen(out) - 4, "aend");
}

/* ---- .gitattributes, with git check-attr as the judge ---- */

static bool is_lfs(const char *attributes, const char *path)
{
    struct repo_rules *rules;
    struct gw_error err;
    struct gw_arena a;
    bool lfs;

    gw_arena_init(&a, 1u << 20);
    assert_ok(repo_rules_parse(&rules, gw_str_c(attributes), 0, NULL, &a, &err), err);
    lfs = repo_rules_lfs(rules, gw_str_c(path));
    gw_arena_release(&a);
    return lfs;
}

static void test_rules_like_git(void **state)
{
    static const char *const attributes[] = {
        "*.bin filter=lfs",
        "*.bin filter=lfs\nkeep.bin -filter\n",
        "*.bin filter=lfs\n*.bin !filter\nx.bin filter=lfs -text",
        "a/*.bin filter=lfs",
        "/x.bin filter=lfs",
        "saved_model/**/* filter=lfs diff=lfs merge=lfs -text",
        "a/** filter=lfs",
        "**/b filter=lfs",
        "**/b/** filter=lfs",
        "a/**/x.bin filter=lfs",
        "a**n filter=lfs",
        "**.bin filter=lfs",
        "a/*/x* filter=lfs",
        "[a-c]*.bin filter=lfs",
        "[!a-c]*.bin filter=lfs",
        "[]x]*.bin filter=lfs",
        "[[:upper:]]*.bin filter=lfs",
        "sp[[:space:]]ace.bin filter=lfs",
        "\"sp ace.bin\" filter=lfs",
        "\"sp\\040ace.bin\" filter=lfs",
        "x\\.bin filter=lfs",
        "\\x.bin filter=lfs",
        "?.bin filter=lfs",
        "a/ filter=lfs",
        "# *.bin filter=lfs",
        "\t *.bin\tdiff=lfs\tfilter=lfs",
        "*.bin filter=other",
        "*.bin filter",
        "*.bin -text",
        "* filter=lfs",
        "*tfevents* filter=lfs",
        "*.lfs.* filter=lfs",
        "*.bin filter=lfs -filter",
        "!*.bin filter=lfs",
        "a/b/** filter=lfs\na/b/c/** -filter",
        "*a*b*c*d*e*f*bin filter=lfs",
        "a/*b/*c/** filter=lfs",
        "*/ filter=lfs",
        "[a filter=lfs",
        "[[:nope:]]* filter=lfs",
        "x[a-]* filter=lfs",
        "\xef\xbb\xbf*.bin filter=lfs",
    };
    static const char *const paths[] = {
        "x.bin",
        "keep.bin",
        "a/x.bin",
        "a/b/x.bin",
        "a/b/c/x.bin",
        "b",
        "a/b",
        "b/x",
        "xb",
        "a/xb",
        "saved_model/x",
        "saved_model/v/x",
        "x/saved_model/x",
        "Xy.bin",
        "]x.bin",
        "sp ace.bin",
        "x.Bin",
        "events.tfevents.1",
        "a.lfs.b",
        "xa.txt",
        "x-.txt",
        "aXbXcXdXeXfXbin",
        "a/bb/cc/x",
        "bbb.bin",
        "a/b/c",
        "[a",
    };
    char out[4096], quoted[2048] = "";

    sh("git init -q wt");
    for (size_t k = 0; k < COUNT(paths); k++) {
        snprintf(quoted + strlen(quoted), sizeof(quoted) - strlen(quoted), " '%s'", paths[k]);
    }
    for (size_t i = 0; i < COUNT(attributes); i++) {
        struct gw_str rest, line;
        size_t k = 0;

        put_text("wt/.gitattributes", attributes[i]);
        assert_int_equal(output(out, sizeof(out),
                                "cd wt && git check-attr filter -- %s 2>/dev/null | "
                                "sed 's/.*: filter: //'",
                                quoted),
                         0);
        for (rest = gw_str_c(out); gw_str_split(&rest, '\n', &line); k++) {
            assert_true(k < COUNT(paths));
            if (gw_str_eq_c(line, "lfs") != is_lfs(attributes[i], paths[k])) {
                fail_msg("%s on %s: git says " GW_STR_FMT, attributes[i], paths[k],
                         GW_STR_ARG(line));
            }
        }
        assert_int_equal(k, COUNT(paths));
    }
}

static void test_rules_of_one_path(void **state)
{
    static const char *const paths[] = {"x.bin", "a/b c.bin", "[x]*?.bin", "#x",
                                        "!x",    "\"x\"",     "a/[b/c"};
    struct gw_buf b;

    sh("git init -q one");
    for (size_t i = 0; i < COUNT(paths); i++) {
        gw_buf_init(&b, 4096);
        repo_rules_put_path(&b, gw_str_c(paths[i]));
        for (size_t k = 0; k < COUNT(paths); k++) {
            assert_int_equal(is_lfs(b.p, paths[k]), i == k);
        }
        assert_false(is_lfs(b.p, "q/x.bin"));
        put_text("one/.gitattributes", b.p);
        assert_sh("lfs", "cd one && git check-attr filter -- '%s' | sed 's/.*: filter: //'",
                  paths[i]);
        gw_buf_release(&b);
    }
}

static void test_default_rules(void **state)
{
    static const struct {
        const char *type, *path;
        bool lfs;
    } rows[] = {
        {"model", "model.safetensors", true}, {"model", "a/b/x.gguf", true},
        {"model", "saved_model/a/b", true},   {"model", "x.png", false},
        {"dataset", "x.png", true},           {"dataset", "data/x.parquet", true},
        {"space", "x.parquet", true},         {"model", "config.json", false},
        {"model", "README.md", false},
    };
    struct gw_buf b;

    for (size_t i = 0; i < COUNT(rows); i++) {
        gw_buf_init(&b, 64u << 10);
        repo_rules_put_default(&b, gw_str_c(rows[i].type));
        assert_int_equal(is_lfs(b.p, rows[i].path), rows[i].lfs);
        gw_buf_release(&b);
    }
}

/* Stars that a recursive matcher needs ages for. */
static void test_rules_are_fast(void **state)
{
    char path[4001];

    memset(path, 'a', 4000);
    path[4000] = '\0';
    assert_false(is_lfs("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b filter=lfs", path));
    for (size_t i = 1; i < 4000; i += 2) {
        path[i] = '/';
    }
    assert_false(is_lfs("**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/b filter=lfs", path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_components),
        cmocka_unit_test(test_shown),
        cmocka_unit_test(test_rules_like_git),
        cmocka_unit_test(test_rules_of_one_path),
        cmocka_unit_test(test_default_rules),
        cmocka_unit_test(test_rules_are_fast),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
