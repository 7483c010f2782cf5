/* SPDX-License-Identifier: Apache-2.0 */
/* Repositories that get another name; where the old one leads. */
#include "tests/unit/repo/repo_test.h"

#include <signal.h>
#include <time.h>

#define OTHER ID("model", "acme", "other")
#define THIRD ID("model", "lab", "Third")

static char tip[41];

static int fresh(void **state)
{
    struct gw_error err;

    sh("rm -rf data");
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS, &err), err);
    assert_int_equal(output(tip, 41, "git --git-dir=" LLM_GIT " rev-parse main"), 0);
    return 0;
}

static void assert_at(const struct repo_id *id, const char *expected)
{
    char commit[41];
    struct repo *r = NULL;
    struct gw_error err;

    if (expected == NULL) {
        assert_int_equal(repo_open(&r, "data", id, &err), GW_NOT_FOUND);
        return;
    }
    assert_ok(repo_open(&r, "data", id, &err), err);
    assert_ok(repo_resolve(r, GW_STR(""), commit, &err), err);
    assert_string_equal(commit, expected);
    repo_close(r);
}

/* expected: "ns/name"; NULL: nowhere */
static void assert_leads(const struct repo_id *id, const char *expected)
{
    struct gw_arena a;
    struct repo_id to;
    struct gw_error err;

    gw_arena_init(&a, 1u << 20);
    if (expected == NULL) {
        assert_int_equal(repo_moved("data", id, &a, &to, &err), GW_NOT_FOUND);
    } else {
        assert_ok(repo_moved("data", id, &a, &to, &err), err);
        assert_string_equal(
            gw_arena_printf(&a, GW_STR_FMT "/" GW_STR_FMT, GW_STR_ARG(to.ns), GW_STR_ARG(to.name))
                .p,
            expected);
    }
    gw_arena_release(&a);
}

static void test_there_and_back(void **state)
{
    struct gw_error err;

    assert_leads(LLM, NULL);
    assert_ok(repo_move("data", LLM, OTHER, &err), err);
    assert_at(LLM, NULL);
    assert_at(OTHER, tip);
    assert_leads(LLM, "acme/other");
    assert_leads(ID("model", "ACME", "LLM"), "acme/other");
    assert_leads(ID("dataset", "acme", "llm"), NULL);
    assert_ok(repo_move("data", OTHER, THIRD, &err), err);
    assert_leads(LLM, "lab/Third");
    assert_leads(OTHER, "lab/Third");
    assert_ok(repo_move("data", THIRD, LLM, &err), err);
    assert_at(LLM, tip);
    assert_leads(LLM, NULL);
    assert_leads(OTHER, "acme/llm");
    assert_leads(THIRD, "acme/llm");
    assert_fsck(LLM_GIT);
}

static void test_the_old_name_is_taken(void **state)
{
    struct gw_error err;

    assert_ok(repo_move("data", LLM, OTHER, &err), err);
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS + 5000, &err), err);
    assert_leads(LLM, NULL);
    assert_ok(repo_delete("data", LLM, NOW_MS, &err), err);
    assert_leads(LLM, NULL); /* that it once led elsewhere is over */
    assert_ok(repo_move("data", OTHER, THIRD, &err), err);
    assert_ok(repo_delete("data", THIRD, NOW_MS, &err), err);
    assert_leads(OTHER, NULL);
    assert_ok(repo_restore("data", THIRD, &err), err);
    assert_leads(OTHER, "lab/Third");
}

static void test_refused(void **state)
{
    static const struct {
        const char *type, *ns, *name;
        int status;
    } rows[] = {{"model", "acme", "llm", GW_CONFLICT},       {"model", "Acme", "LLM", GW_CONFLICT},
                {"model", "acme", "OTHER", GW_CONFLICT},     {"model", "acme", "a--b", GW_INVALID},
                {"model", "acme", "x.git", GW_INVALID},      {"model", "api", "x", GW_INVALID},
                {"model", "acme", "../x", GW_INVALID},       {"dataset", "acme", "new", GW_INVALID},
                {"model", "datasets", "resolve", GW_INVALID}};
    struct gw_error err;

    assert_ok(repo_create("data", OTHER, AUTHOR, NOW_MS, &err), err);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct repo_id to = {gw_str_c(rows[i].type), gw_str_c(rows[i].ns),
                                   gw_str_c(rows[i].name)};

        assert_int_equal(repo_move("data", LLM, &to, &err), rows[i].status);
        assert_at(LLM, tip);
    }
    assert_int_equal(repo_move("data", THIRD, ID("model", "acme", "n"), &err), GW_NOT_FOUND);
    assert_sh("", "find data -name '*.moved'");
}

/* Killed between the record and the rename: the repository is where it was, and the record, which
 * does not count, does not count later either. */
static void test_half_way(void **state)
{
    struct gw_error err;

    put_text("data/repos/model/acme/llm.moved", "hubgate moved 1\nacme/other\n");
    assert_at(LLM, tip);
    assert_leads(LLM, NULL);
    assert_ok(repo_delete("data", LLM, NOW_MS, &err), err);
    assert_ok(repo_create("data", OTHER, AUTHOR, NOW_MS, &err), err);
    assert_leads(LLM, NULL);
}

static bool is_there(const struct repo_id *id)
{
    struct repo *r = NULL;
    bool there = repo_open(&r, "data", id, NULL) == GW_OK;

    repo_close(r);
    return there;
}

/* It goes to and fro until it is killed, at a random moment, again and again: it is under one of
 * its names, whole, and the other one leads there or was never given up. */
static void test_killed(void **state)
{
    struct gw_error err;
    unsigned seed = 7;

    for (int round = 0; round < 30; round++) {
        struct timespec t = {.tv_nsec = 1000000 + rand_r(&seed) % 20000000};
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
            for (;;) {
                (void)!repo_move("data", LLM, OTHER, &err);
                (void)!repo_move("data", OTHER, LLM, &err);
            }
        }
        nanosleep(&t, NULL);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(is_there(LLM) != is_there(OTHER));
        assert_at(is_there(LLM) ? LLM : OTHER, tip);
        if (is_there(OTHER)) {
            assert_leads(LLM, "acme/other");
            assert_ok(repo_move("data", OTHER, LLM, &err), err);
        }
        assert_leads(OTHER,
                     access("data/repos/model/acme/other.moved", F_OK) == 0 ? "acme/llm" : NULL);
    }
    assert_fsck(LLM_GIT);
}

static void test_damaged_records(void **state)
{
    static const char *const texts[] = {"", "hubgate moved 2\nacme/other\n", "hubgate moved 1\n",
                                        "hubgate moved 1\nacme\n", "hubgate moved 1\n../x/../y\n"};
    struct gw_arena a;
    struct repo_id to;
    struct gw_error err;

    for (size_t i = 0; i < COUNT(texts); i++) {
        put_text("data/repos/model/acme/gone.moved", texts[i]);
        gw_arena_init(&a, 1u << 20);
        assert_int_equal(repo_moved("data", ID("model", "acme", "gone"), &a, &to, &err),
                         GW_CORRUPT);
        gw_arena_release(&a);
    }
    put_text("data/repos/model/acme/gone.moved", "hubgate moved 1\nacme/gone\n"); /* a circle */
    assert_leads(ID("model", "acme", "gone"), NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_there_and_back, fresh),
        cmocka_unit_test_setup(test_the_old_name_is_taken, fresh),
        cmocka_unit_test_setup(test_refused, fresh),
        cmocka_unit_test_setup(test_half_way, fresh),
        cmocka_unit_test_setup(test_killed, fresh),
        cmocka_unit_test_setup(test_damaged_records, fresh),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
