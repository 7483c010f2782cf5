/* SPDX-License-Identifier: Apache-2.0 */
/* .gitignore, judged by `git check-ignore`. */
#include "tests/unit/repo/repo_test.h"

static const char *const files[] = {"a",
                                    "b.log",
                                    "keep.log",
                                    "dir/a",
                                    "dir/b.log",
                                    "dir/sub/a",
                                    "build/x",
                                    "src/build/x",
                                    "build",
                                    "x build/y",
                                    "#hash",
                                    "!bang",
                                    "sp ace ",
                                    "deep/er/a/b/c",
                                    "doc/a.txt",
                                    "doc/b/a.txt",
                                    "doc/b/c/z",
                                    "logs/keep.log",
                                    "A.LOG",
                                    "[x]",
                                    "back\\slash",
                                    "checkpoint-1/m.bin",
                                    "checkpoint-22/m.bin",
                                    "checkpoint-x/m.bin",
                                    "caf\xc3\xa9.txt",
                                    "foo/bar/baz",
                                    "bar/baz"};

static const char *const texts[] = {
    "",
    "*.log\n!keep.log\n",
    "!keep.log\n*.log\n",
    "build/\n",
    "/build\n",
    "build\n!build/x\n",
    "dir/\n!dir/a\n",
    "dir/*\n!dir/sub\n",
    "# no\n\\#hash\n\\!bang\n",
    "sp ace\\ \n",
    "sp ace \n",
    "a   \n",
    "**/a\n",
    "deep/**/c\n",
    "deep/**\n",
    "doc/*.txt\n",
    "doc/**/*.txt\r\n",
    "logs/\n*.log\n!logs/\n!logs/keep.log\n",
    "\\[x\\]\n[[]x]\n",
    "back\\\\slash\n",
    "checkpoint-*/\n!checkpoint-x/\n",
    "checkpoint-[0-9]/\n",
    "caf?.txt\ncaf\xc3\xa9*\n",
    "foo/bar\n",
    "bar/baz\n",
    "/\n//\n!\n!/\n*/\n!foo/\n",
    "*\n!*/\n!*.txt\n",
    "\xef\xbb\xbf"
    "a\n",
};

static void test_like_git(void **state)
{
    char list[4096] = "";

    sh("git init -q -b main src");
    for (size_t i = 0; i < COUNT(files); i++) {
        strcat(strcat(list, files[i]), "\n");
    }
    put_text("list", list);
    sh("tr '\\n' '\\0' < list > list0");
    for (size_t i = 0; i < COUNT(texts); i++) {
        char git[8192], ours[8192] = "";
        struct repo_ignore *g;
        struct gw_arena a;
        struct gw_error err;

        put_text("src/.gitignore", texts[i]);
        (void)output(git, sizeof(git),
                     "git -C src -c core.quotePath=false check-ignore -z --stdin --no-index < "
                     "list0 | tr '\\0' '\\n'");
        gw_arena_init(&a, 1u << 20);
        assert_ok(repo_ignore_parse(&g, gw_str_c(texts[i]), &a, &err), err);
        for (size_t j = 0; j < COUNT(files); j++) {
            if (repo_is_ignored(g, gw_str_c(files[j]))) {
                strcat(strcat(ours, files[j]), "\n");
            }
        }
        if (ours[0] != '\0') {
            ours[strlen(ours) - 1] = '\0';
        }
        if (strcmp(ours, git) != 0) {
            fail_msg("%s: git ignores\n%s\nwe ignore\n%s", texts[i], git, ours);
        }
        gw_arena_release(&a);
    }
    assert_false(repo_is_ignored(NULL, GW_STR("a")));
}

static void test_too_many(void **state)
{
    struct repo_ignore *g;
    struct gw_arena a;
    struct gw_error err;
    struct gw_buf b;

    gw_buf_init(&b, 1u << 20);
    gw_arena_init(&a, 1u << 20);
    for (int i = 0; i < 2000; i++) {
        gw_buf_addf(&b, "p%d\n\n# x\n", i);
    }
    assert_ok(repo_ignore_parse(&g, gw_buf_str(&b), &a, &err), err);
    assert_true(repo_is_ignored(g, GW_STR("x/p1999")));
    gw_buf_add_c(&b, "one\n");
    assert_int_equal(repo_ignore_parse(&g, gw_buf_str(&b), &a, &err), GW_TOO_LARGE);
    gw_buf_release(&b);
    gw_arena_release(&a);
}

/* The text that is sent counts, else the file of the commit. */
static void test_of_a_commit(void **state)
{
    const struct repo_ignore *g;
    struct repo *r = NULL;
    struct gw_arena a;
    struct gw_error err;
    char commit[41];

    put_text("list", "x");
    sh("rm -rf src data && mkdir src && echo '*.log' > src/.gitignore && echo x > src/x");
    assert_ok(import("src", commit, &err), err);
    assert_ok(repo_open(&r, "data", LLM, &err), err);
    gw_arena_init(&a, 1u << 20);
    assert_ok(repo_ignore_at(&g, r, commit, (struct gw_str){NULL, 0}, &a, &err), err);
    assert_true(repo_is_ignored(g, GW_STR("a.log")));
    assert_ok(repo_ignore_at(&g, r, commit, GW_STR("*.txt"), &a, &err), err);
    assert_true(!repo_is_ignored(g, GW_STR("a.log")) && repo_is_ignored(g, GW_STR("a.txt")));
    gw_arena_release(&a);
    repo_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_git),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_of_a_commit),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
