/* SPDX-License-Identifier: Apache-2.0 */
/* An importer is killed at a random moment, again and again: nothing half-done is ever seen. */
#include "base/clock.h"
#include "tests/unit/repo/repo_test.h"

#include <signal.h>
#include <time.h>

#define ROUNDS 20
#define GIT "git --git-dir=" LLM_GIT " "

static void make_source(void)
{
    sh("rm -rf src && mkdir -p src/sub && for i in $(seq 100); do echo file $i > src/sub/$i.txt; "
       "done");
    put_noise("src/a.safetensors", 1u << 20, 1);
    put_noise("src/b.safetensors", 1u << 20, 2);
    put_noise("src/noise.txt", 1u << 18, 3);
}

/* The importer as a process of its own. */
static pid_t start_import(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct gw_error err;
        char commit[41];

        _exit(import("src", commit, &err) == GW_OK ? 0 : 1);
    }
    return pid;
}

static int64_t time_of_import(void)
{
    int64_t begin = gw_mono_ms();
    pid_t pid = start_import();
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return gw_mono_ms() - begin;
}

/* Killed after us microseconds; true: it had ended by itself. */
static bool import_and_kill(long us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    pid_t pid = start_import();
    int status;

    nanosleep(&t, NULL);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return true;
    }
    return false;
}

/* The i-th of ROUNDS moments of an import that takes *ms. One that has ended by then says that it
 * takes less: the first was timed while the machine had other things to do. */
static bool kill_within(int64_t *ms, int i)
{
    if (!import_and_kill((long)((*ms + 1) * 1000 * i / ROUNDS))) {
        return true;
    }
    *ms = *ms * i / ROUNDS;
    return false;
}

/* Not there at all, or whole with this tip. */
static void assert_absent_or(const char *tip)
{
    struct repo *r = NULL;
    struct gw_error err;
    char commit[41];
    int rc = repo_open(&r, "data", LLM, &err);

    if (rc == GW_NOT_FOUND && tip == NULL) {
        assert_sh("", "find data/repos -name '*.git' 2>/dev/null; true");
        return;
    }
    assert_ok(rc, err);
    assert_ok(repo_resolve(r, GW_STR(""), commit, &err), err);
    repo_close(r);
    sh(GIT "fsck --full --strict 2>&1");
    if (tip != NULL && strcmp(commit, tip) != 0) {
        assert_sh(tip, GIT "rev-parse main^"); /* it got as far as its last step */
    }
    assert_sh("", "find data/lfs -type f -exec sha256sum {} + | "
                  "awk '{ n = split($2, part, \"/\"); if ($1 != part[n]) print }'");
}

static int on_entry(void *ctx, const struct repo_entry *e)
{
    *(size_t *)ctx += 1;
    return GW_OK;
}

/* The next import works, and cleans up behind the dead ones. */
static void finish(char tip[41])
{
    struct gw_error err;
    struct repo *r;
    size_t n = 0;

    assert_ok(import("src", tip, &err), err);
    assert_no_temp();
    sh(GIT "fsck --full --strict 2>&1");
    assert_ok(repo_open(&r, "data", LLM, &err), err);
    assert_ok(repo_tree(r, tip, GW_STR(""), true, on_entry, &n, &err), err);
    repo_close(r);
    assert_int_equal(n, 105);
}

static void test_new_repository(void **state)
{
    int64_t ms;
    char tip[41];
    size_t killed = 0;

    make_source();
    ms = time_of_import();
    for (int i = 0; i < ROUNDS; i++) {
        sh("rm -rf data/repos data/lfs"); /* data/tmp stays: the dead are swept, not we */
        killed += kill_within(&ms, i);
        assert_absent_or(NULL);
    }
    assert_true(killed >= ROUNDS / 4);
    finish(tip);
}

static void test_repository_that_is_there(void **state)
{
    int64_t ms;
    char tip[41], next[41];
    size_t killed = 0;

    sh("rm -rf data");
    make_source();
    ms = time_of_import();
    finish(tip);
    for (int i = 0; i < ROUNDS; i++) {
        sh("echo round %d > src/sub/1.txt", i);
        put_noise("src/b.safetensors", 1u << 20, 100 + (uint64_t)i);
        put_noise("src/noise.txt", 1u << 18, 200 + (uint64_t)i);
        killed += kill_within(&ms, i);
        assert_absent_or(tip);
        finish(next);
        assert_string_not_equal(tip, next);
        memcpy(tip, next, sizeof(tip));
    }
    assert_true(killed >= ROUNDS / 4);
    assert_sh("21", GIT "rev-list --count main");
}

/* Two at once, of different content: both end up in the history. */
static void test_two_at_once(void **state)
{
    pid_t pids[2];
    int status;

    sh("rm -rf data && rm -rf src2");
    make_source();
    sh("cp -a src src2 && echo other > src2/sub/1.txt");
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            struct gw_error err;
            char commit[41];

            _exit(import(i != 0 ? "src2" : "src", commit, &err) == GW_OK ? 0 : 1);
        }
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_sh("2", GIT "rev-list --count main");
    sh(GIT "fsck --full --strict 2>&1");
    assert_no_temp();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_repository),
        cmocka_unit_test(test_repository_that_is_there),
        cmocka_unit_test(test_two_at_once),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
