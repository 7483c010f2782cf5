/* SPDX-License-Identifier: Apache-2.0 */
#include "base/yaml.h"
#include "tests/unit/failing.h"

#include <stdio.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct gw_str name = GW_STR_INIT("f.yaml");

/* The tree as text: {k@line:column=...} [..] 'scalar'@line:column, "scalar" when quoted. */
static void print(struct gw_buf *out, const struct gw_yaml *n)
{
    size_t count = 0;

    if (n->kind == GW_YAML_SCALAR) {
        gw_buf_addf(out, n->quoted ? "\"%s\"" : "'%s'", n->value.p);
        assert_null(n->child);
    } else {
        gw_buf_add_char(out, n->kind == GW_YAML_MAP ? '{' : '[');
        for (const struct gw_yaml *c = n->child; c != NULL; c = c->next) {
            gw_buf_add_c(out, c != n->child ? " " : "");
            if (n->kind == GW_YAML_MAP) {
                gw_buf_addf(out, "%s@%u:%u=", c->key.p, c->key_line, c->key_column);
            } else {
                assert_int_equal(c->key.n, 0);
            }
            print(out, c);
            count++;
        }
        gw_buf_add_char(out, n->kind == GW_YAML_MAP ? '}' : ']');
    }
    assert_int_equal(count, n->count);
    gw_buf_addf(out, "@%u:%u", n->line, n->column);
}

static void test_trees(void **state)
{
    static const struct {
        const char *text, *tree;
    } rows[] = {
        {"", "{}@1:1"},
        {"# nothing\n", "{}@1:1"},
        {"---\n", "{}@2:1"},
        {"---\na: b\n...\n", "{a@2:1='b'@2:4}@2:1"},
        {"a: b\nc: d\n", "{a@1:1='b'@1:4 c@2:1='d'@2:4}@1:1"},
        {"\xef\xbb\xbf"
         "a: b",
         "{a@1:1='b'@1:4}@1:1"},
        {"a:\r\n  b: c\r\n", "{a@1:1={b@2:3='c'@2:6}@2:3}@1:1"},
        {"a:\n  - b\n  - c: d\n    e: f\n",
         "{a@1:1=['b'@2:5 {c@3:5='d'@3:8 e@4:5='f'@4:8}@3:5]@2:3}@1:1"},
        {"a: [b, 'c', \"d\"]\ne: {f: g}",
         "{a@1:1=['b'@1:5 \"c\"@1:8 \"d\"@1:13]@1:4 e@2:1={f@2:5='g'@2:8}@2:4}@1:1"},
        /* every scalar is a string */
        {"[no, 1.0, ~, null, 0x1, 2001-01-01]",
         "['no'@1:2 '1.0'@1:6 '~'@1:11 'null'@1:14 '0x1'@1:20 '2001-01-01'@1:25]@1:1"},
        {"a:\nb: ''\n", "{a@1:1=''@1:3 b@2:1=\"\"@2:4}@1:1"},
        {"a: |\n  x\n  y\n", "{a@1:1=\"x\ny\n\"@1:4}@1:1"},
        {"a: >-\n  x\n  y\n", "{a@1:1=\"x y\"@1:4}@1:1"},
        {"a: x\n  y\n", "{a@1:1='x y'@1:4}@1:1"},
        {"'<<': 1\n'a b': 2", "{<<@1:1='1'@1:7 a b@2:1='2'@2:8}@1:1"},
        {"\xc3\xa9: \xe2\x82\xac x",
         "{\xc3\xa9@1:1='\xe2\x82\xac x'@1:4}@1:1"}, /* columns are characters */
        {"a:\tb", "{a@1:1='b'@1:4}@1:1"},
        {"a: b \t\n \t \nc: d", "{a@1:1='b'@1:4 c@3:1='d'@3:4}@1:1"},
        {"a: \"\\t\\u20ac\"", "{a@1:1=\"\t\xe2\x82\xac\"@1:4}@1:1"},
        {"word", "'word'@1:1"},
    };
    struct gw_arena a;
    struct gw_buf out;
    struct gw_error e;

    gw_arena_init(&a, 1 << 20);
    gw_buf_init(&out, 4096);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_yaml *root;

        if (gw_yaml_parse(&root, name, gw_str_c(rows[i].text), &a, &e) != GW_OK) {
            fail_msg("%s: %s", rows[i].text, e.text);
        }
        gw_buf_reset(&out);
        print(&out, root);
        assert_string_equal(out.p, rows[i].tree);
    }
    gw_buf_release(&out);
    gw_arena_release(&a);
}

static void test_refused(void **state)
{
    static const struct {
        struct gw_str text;
        const char *says; /* the message begins so */
    } rows[] = {
        {GW_STR_INIT("a: &x b"), "f.yaml:1:4: anchors"},
        {GW_STR_INIT("a: &x [b]"), "f.yaml:1:4: anchors"},
        {GW_STR_INIT("a: &x {b: c}"), "f.yaml:1:4: anchors"},
        {GW_STR_INIT("&x a: b"), "f.yaml:1:1: anchors"},
        {GW_STR_INIT("a: *x"), "f.yaml:1:4: aliases"},
        {GW_STR_INIT("*x : a"), "f.yaml:1:1: aliases"},
        {GW_STR_INIT("a: !!str b"), "f.yaml:1:4: tags"},
        {GW_STR_INIT("a: !x [b]"), "f.yaml:1:4: tags"},
        {GW_STR_INIT("a: ! b"), "f.yaml:1:4: tags"},
        {GW_STR_INIT("a: b\n<<: {c: d}"), "f.yaml:2:1: merge keys"},
        {GW_STR_INIT("a: b\nb: c\na: d"), "f.yaml:3:1: the key \"a\" is there already, in line 1"},
        {GW_STR_INIT("x:\n  - {a: 1, 'a': 2}"), "f.yaml:2:12: the key \"a\""},
        {GW_STR_INIT("a: b\n---\nc: d"), "f.yaml:2:1: a second document"},
        {GW_STR_INIT("a: b\n...\n---\n"), "f.yaml:3:1: a second document"},
        {GW_STR_INIT("%YAML 1.1\n---\na: b"), "f.yaml:1:1: directives"},
        {GW_STR_INIT("%TAG ! x\n---\na: b"), "f.yaml:1:1: directives"},
        {GW_STR_INIT("a:\n\tb: c"), "f.yaml:2:2: a tab"},
        {GW_STR_INIT("a: [\n \tb]"), "f.yaml:2:3: a tab"},
        {GW_STR_INIT("a: b\0c"), "f.yaml:1:5: a NUL"},
        {GW_STR_INIT("a: \"b\\0c\""), "f.yaml:1:4: a NUL"},
        {GW_STR_INIT("\"b\\x00c\": a"), "f.yaml:1:1: a NUL"},
        {GW_STR_INIT("a: b\nb: \xc3\xa9\xff"), "f.yaml:2:5: not UTF-8"},
        {GW_STR_INIT("a: \xed\xa0\x80"), "f.yaml:1:4: not UTF-8"},
        {GW_STR_INIT("a: \x01"), "f.yaml:1:4: control characters"},
        {GW_STR_INIT("b: c\r\na: \xc3\xa9\x1b"), "f.yaml:2:5: control characters"},
        {GW_STR_INIT("a: b\rc: d"), "f.yaml:1:5: a carriage return"},
        {GW_STR_INIT("a: b\xc2\x85"
                     "c: d"),
         "f.yaml:1:5: a line separator"},
        {GW_STR_INIT("a: b\xe2\x80\xa8"
                     "c: d"),
         "f.yaml:1:5: a line separator"},
        {GW_STR_INIT("a: b\xe2\x80\xa9"), "f.yaml:1:5: a line separator"},
        {GW_STR_INIT("\xff\xfe"
                     "a\0"),
         "f.yaml:1:1: not UTF-8"}, /* UTF-16 */
        {GW_STR_INIT("? [a]\n: b"), "f.yaml:1:3: a key must be a word"},
        {GW_STR_INIT("{a: b}: c"), "f.yaml:1:1: a key must be a word"},
        {GW_STR_INIT("?\n: b"), "f.yaml:1:2: a key is missing"},
        {GW_STR_INIT("a: b: c"), "f.yaml:1:5: mapping values are not allowed"},
        {GW_STR_INIT("a: [b\nc: d"), "f.yaml:2:"},
        {GW_STR_INIT("a: 'b"), "f.yaml:1:"},
        {GW_STR_INIT("a: @b"), "f.yaml:1:4: "},
        {GW_STR_INIT("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]"), "f.yaml:1:17: nested deeper than 16"},
    };
    struct gw_arena a;
    struct gw_error e;

    gw_arena_init(&a, 1 << 20);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_yaml *root = (struct gw_yaml *)&a;

        if (gw_yaml_parse(&root, name, rows[i].text, &a, &e) != GW_INVALID) {
            fail_msg("not refused: %s", rows[i].text.p);
        }
        assert_ptr_equal(root, &a); /* left alone */
        if (strncmp(e.text, rows[i].says, strlen(rows[i].says)) != 0) {
            fail_msg("%s\n  says    %s\n  not     %s", rows[i].text.p, e.text, rows[i].says);
        }
    }
    gw_arena_release(&a);
}

static void test_depth(void **state)
{
    struct gw_yaml *root;
    struct gw_arena a;
    struct gw_error e;

    gw_arena_init(&a, 1 << 20);
    assert_int_equal(
        gw_yaml_parse(&root, name, GW_STR("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]"), &a, &e), GW_OK);
    gw_arena_release(&a);
}

/* 16 and fewer keys are compared, more are sorted: the same answer on both sides. */
static void test_duplicates_in_maps_of_any_size(void **state)
{
    struct gw_yaml *root;
    struct gw_arena a;
    struct gw_error e;
    struct gw_buf b;

    gw_buf_init(&b, 1 << 20);
    for (int n = 1; n < 40; n++) {
        for (int twice = -1; twice < n; twice++) {
            char expected[128];

            gw_buf_reset(&b);
            for (int i = 0; i < n; i++) {
                gw_buf_addf(&b, "key%d: v\n", i * 7 % 41);
            }
            if (twice >= 0) {
                gw_buf_addf(&b, "key%d: w\n", twice * 7 % 41);
            }
            gw_arena_init(&a, 1 << 20);
            assert_int_equal(gw_yaml_parse(&root, name, gw_buf_str(&b), &a, &e),
                             twice >= 0 ? GW_INVALID : GW_OK);
            if (twice >= 0) {
                snprintf(expected, sizeof(expected),
                         "f.yaml:%d:1: the key \"key%d\" is there already, in line %d", n + 1,
                         twice * 7 % 41, twice + 1);
                assert_string_equal(e.text, expected);
            }
            gw_arena_release(&a);
        }
    }
    gw_buf_release(&b);
}

static void test_get(void **state)
{
    struct gw_yaml *root;
    struct gw_arena a;
    struct gw_error e;

    gw_arena_init(&a, 1 << 20);
    assert_int_equal(gw_yaml_parse(&root, name, GW_STR("a: b\nc: [d]"), &a, &e), GW_OK);
    assert_string_equal(gw_yaml_get(root, "a")->value.p, "b");
    assert_int_equal(gw_yaml_get(root, "c")->kind, GW_YAML_LIST);
    assert_null(gw_yaml_get(root, "x"));
    assert_null(gw_yaml_get(gw_yaml_get(root, "c"), "d")); /* not a map */
    assert_null(gw_yaml_get(NULL, "x"));
    gw_arena_release(&a);
}

static void test_fail_at_node(void **state)
{
    static const char long_name[] = "/a/very/long/folder/name/a/very/long/folder/name/a/very/long/"
                                    "folder/name/a/very/long/folder/name/policy.d/10-team.yaml";
    const struct gw_yaml n = {.key_line = 3, .key_column = 1, .line = 4, .column = 5};
    const struct gw_yaml item = {.line = 4, .column = 5};
    struct gw_error e;

    assert_int_equal(gw_yaml_fail(&e, name, &n, false, "bad %s", "word"), GW_INVALID);
    assert_string_equal(e.text, "f.yaml:4:5: bad word");
    gw_yaml_fail(&e, name, &n, true, "bad %s", "word");
    assert_string_equal(e.text, "f.yaml:3:1: bad word");
    gw_yaml_fail(&e, name, &item, true, "no key here");
    assert_string_equal(e.text, "f.yaml:4:5: no key here");
    gw_yaml_fail(&e, name, NULL, true, "anywhere");
    assert_string_equal(e.text, "f.yaml: anywhere");
    gw_yaml_fail(&e, gw_str_c(long_name), &n, false, "bad");
    assert_non_null(strstr(e.text, "policy.d/10-team.yaml:4:5: bad"));
    assert_int_equal(gw_yaml_fail(NULL, name, &n, false, "x"), GW_INVALID);
}

static void test_arena_ceiling(void **state)
{
    struct gw_yaml *root;
    struct gw_arena a;
    struct gw_error e;

    for (size_t max = 0; max < 500; max += 16) {
        int rc;

        gw_arena_init(&a, max);
        rc = gw_yaml_parse(&root, name, GW_STR("a: b\nc: [d]"), &a, &e);
        assert_int_equal(rc, max < 448 ? GW_TOO_LARGE : GW_OK);
        gw_arena_release(&a);
    }
}

static int parse_many(void *ctx)
{
    const struct gw_buf *text = ctx;
    struct gw_yaml *root;
    struct gw_arena a;
    int rc;

    gw_arena_init(&a, 1 << 20);
    rc = gw_yaml_parse(&root, name, gw_buf_str(text), &a, NULL);
    gw_arena_release(&a);
    return rc;
}

static void test_without_memory(void **state)
{
    struct gw_buf text;

    gw_buf_init(&text, 1 << 16);
    for (int i = 0; i < 50; i++) {
        gw_buf_addf(&text, "key%d: [1, 2]\n", i);
    }
    with_failing_alloc(parse_many, &text, 3);
    gw_buf_release(&text);
}

static void test_nearest(void **state)
{
    static const char *const words[] = {"cache", "data", "upstream", "ldap", "id", "url"};
    static const struct {
        const char *word, *nearest;
    } rows[] = {
        {"cahce", "cache"}, /* two letters swapped: 2 */
        {"Cache", "cache"},
        {"caches", "cache"},
        {"upstrem", "upstream"},
        {"upstreaming", NULL},
        {"date", "data"},
        {"ldpa", "ldap"},
        {"ix", "id"},
        {"xy", NULL}, /* both letters: another word */
        {"", NULL},
        {"wholly different", NULL},
        {"data", "data"},
    };
    char big[500];

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *found = gw_nearest(gw_str_c(rows[i].word), words, COUNT(words));

        if (rows[i].nearest == NULL) {
            assert_null(found);
        } else {
            assert_string_equal(found, rows[i].nearest);
        }
    }
    memset(big, 'x', sizeof(big));
    assert_null(gw_nearest((struct gw_str){big, sizeof(big)}, words, COUNT(words)));
    assert_null(gw_nearest(GW_STR("cache"), words, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),         cmocka_unit_test(test_duplicates_in_maps_of_any_size),
        cmocka_unit_test(test_get),           cmocka_unit_test(test_fail_at_node),
        cmocka_unit_test(test_arena_ceiling), cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
