/* SPDX-License-Identifier: Apache-2.0 */
/* Many packs become few: nothing is lost, readers go on, a dead one leaves nothing behind. */
#include "tests/unit/repo/repo_test.h"

#include <signal.h>

#define GIT "git --git-dir=" LLM_GIT " "
#define PACKS "ls " LLM_GIT "/objects/pack/*.pack | wc -l"

static void commit(int number)
{
    struct repo_change *c = NULL;
    struct gw_error err;
    char path[64], text[64], id[41];

    snprintf(path, sizeof(path), "folder/%03d.txt", number % 100);
    snprintf(text, sizeof(text), "number %d\n", number);
    assert_ok(repo_change_open(&c, "data", LLM, GW_STR("main"), &err), err);
    assert_ok(repo_change_put(c, gw_str_c(path), gw_str_c(text), &err), err);
    assert_ok(
        repo_change_commit(c, gw_str_c(text), AUTHOR, GW_STR(""), NOW_MS + number * 1000, id, &err),
        err);
    repo_change_close(c);
}

static int packs(void)
{
    char out[64];

    assert_int_equal(output(out, sizeof(out), PACKS), 0);
    return atoi(out);
}

static void begin(void)
{
    struct gw_error err;

    sh("chmod -R u+rwX data 2>/dev/null; rm -rf data");
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS, &err), err);
}

static void test_few(void **state)
{
    struct gw_error err;
    size_t rolled;
    char tip[64], now[64];

    begin();
    for (int i = 0; i < 80; i++) {
        commit(i);
    }
    assert_int_equal(packs(), 81);
    output(tip, sizeof(tip), GIT "rev-parse main");
    assert_ok(repo_repack("data", LLM, 81, &rolled, &err), err);
    assert_int_equal(rolled, 0);
    assert_ok(repo_repack("data", LLM, 50, &rolled, &err), err);
    assert_true(rolled >= 78);
    assert_true(packs() <= 3);
    assert_fsck(LLM_GIT);
    assert_sh("81", GIT "rev-list --count main");
    output(now, sizeof(now), GIT "rev-parse main");
    assert_string_equal(tip, now);
    assert_ok(repo_repack("data", LLM, 0, &rolled, &err), err);
    assert_ok(repo_repack("data", LLM, 0, &rolled, &err), err);
    assert_int_equal(rolled, 0);
    assert_no_temp();
    assert_int_equal(repo_repack("data", ID("model", "acme", "none"), 0, &rolled, &err),
                     GW_NOT_FOUND);
    commit(1000); /* and writing goes on */
    assert_fsck(LLM_GIT);
}

static void test_what_is_kept(void **state)
{
    struct gw_error err;
    size_t rolled;

    begin();
    for (int i = 0; i < 10; i++) {
        commit(i);
    }
    sh("for p in " LLM_GIT "/objects/pack/*.pack; do touch ${p%%.pack}.keep; done");
    assert_ok(repo_repack("data", LLM, 0, &rolled, &err), err);
    assert_int_equal(rolled, 0);
    sh("rm " LLM_GIT "/objects/pack/*.keep");
    setenv("PATH", "/nowhere", 1); /* no git */
    assert_int_equal(repo_repack("data", LLM, 0, &rolled, &err), GW_UNAVAILABLE);
    setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
    assert_int_equal(packs(), 11);
    sh("for p in $(ls " LLM_GIT "/objects/pack/*.pack | head -1); do chmod u+w $p && "
       "dd if=/dev/zero of=$p bs=1 seek=20 count=8 conv=notrunc 2>/dev/null; done");
    assert_int_equal(repo_repack("data", LLM, 0, &rolled, &err), GW_UNAVAILABLE); /* damage */
    assert_int_equal(packs(), 11);
    assert_no_temp();
}

static int on_entry(void *ctx, const struct repo_entry *e)
{
    *(size_t *)ctx += 1;
    return GW_OK;
}

/* As a job of a request does it. */
static int read_once(struct gw_error *err)
{
    struct repo *r = NULL;
    struct repo_entry e;
    struct gw_arena a;
    struct gw_str text;
    char id[41];
    size_t n = 0;
    int rc = repo_open(&r, "data", LLM, err);

    gw_arena_init(&a, 1u << 20);
    if (rc == GW_OK) {
        rc = repo_resolve(r, GW_STR(""), id, err);
    }
    if (rc == GW_OK) {
        rc = repo_tree(r, id, GW_STR(""), true, on_entry, &n, err);
    }
    if (rc == GW_OK) {
        rc = repo_entry(r, id, GW_STR("folder/000.txt"), &e, err);
    }
    if (rc == GW_OK) {
        rc = repo_blob(r, e.oid, 1000, &a, &text, err);
    }
    repo_close(r);
    gw_arena_release(&a);
    return rc;
}

/* Opened before, at three depths, and read on after: the packs that it knew are gone. */
static void test_open_reader(void **state)
{
    struct repo *r[3];
    struct gw_error err;
    struct gw_arena a;
    struct repo_entry e;
    struct gw_str text;
    size_t rolled, n;
    char id[41];

    begin();
    for (int i = 0; i < 40; i++) {
        commit(i);
    }
    gw_arena_init(&a, 1u << 20);
    for (size_t i = 0; i < 3; i++) {
        n = 0;
        assert_ok(repo_open(&r[i], "data", LLM, &err), err);
        assert_ok(i > 0 ? repo_resolve(r[i], GW_STR(""), id, &err) : GW_OK, err);
        assert_ok(i > 1 ? repo_tree(r[i], id, GW_STR(""), true, on_entry, &n, &err) : GW_OK, err);
    }
    assert_ok(repo_repack("data", LLM, 0, &rolled, &err), err);
    assert_true(rolled >= 39);
    for (size_t i = 0; i < 3; i++) {
        char path[64];

        n = 0;
        assert_ok(repo_resolve(r[i], GW_STR(""), id, &err), err);
        assert_ok(repo_tree(r[i], id, GW_STR(""), true, on_entry, &n, &err), err);
        assert_int_equal(n, 42);
        for (int k = 0; k < 40; k++) {
            snprintf(path, sizeof(path), "folder/%03d.txt", k);
            assert_ok(repo_entry(r[i], id, gw_str_c(path), &e, &err), err);
            assert_ok(repo_blob(r[i], e.oid, 1000, &a, &text, &err), err);
        }
        repo_close(r[i]);
    }
    gw_arena_release(&a);
}

static void read_for_ever(int out)
{
    struct gw_error err;
    long counts[3] = {0};

    while (access("stop", F_OK) != 0) {
        int rc = read_once(&err);

        counts[0]++;
        if (rc != GW_OK) {
            counts[1]++;
            if (rc != GW_CORRUPT || read_once(&err) != GW_OK) {
                fprintf(stderr, "reader: %s\n", err.text);
                counts[2]++;
            }
        }
    }
    _exit(write(out, counts, sizeof(counts)) == sizeof(counts) ? 0 : 1);
}

static void test_readers(void **state)
{
    long counts[3];
    struct gw_error err;
    size_t rolled, sum = 0;
    int ends[2], status;
    pid_t pid;

    begin();
    commit(0);
    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        read_for_ever(ends[1]);
    }
    for (int i = 1; i < 60; i++) {
        commit(i);
        assert_ok(repo_repack("data", LLM, 1, &rolled, &err), err);
        sum += rolled;
    }
    put_text("stop", "");
    assert_int_equal(read(ends[0], counts, sizeof(counts)), sizeof(counts));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    print_message("%ld reads beside %zu packs that went: %ld looked again\n", counts[0], sum,
                  counts[1]);
    assert_true(counts[0] > 0 && sum > 60);
    assert_int_equal(counts[2], 0);
    assert_sh("61", GIT "rev-list --count main");
    assert_fsck(LLM_GIT);
}

static pid_t start(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct gw_error err;
        size_t rolled;

        _exit(repo_repack("data", LLM, 0, &rolled, &err) == GW_OK ? 0 : 1);
    }
    return pid;
}

static void test_killed(void **state)
{
    struct gw_error err;
    size_t rolled;
    int status, killed = 0;

    begin();
    for (int i = 0; i < 20; i++) {
        pid_t pid;

        for (int k = 0; k < 3; k++) {
            commit(10 * i + k);
        }
        pid = start();
        usleep((useconds_t)(1000 * i));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        killed += WIFSIGNALED(status);
        assert_fsck(LLM_GIT);
    }
    assert_true(killed > 2);
    assert_ok(repo_repack("data", LLM, 1, &rolled, &err), err);
    assert_sh("61", GIT "rev-list --count main");
    assert_fsck(LLM_GIT);
    assert_no_temp();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few),         cmocka_unit_test(test_what_is_kept),
        cmocka_unit_test(test_open_reader), cmocka_unit_test(test_readers),
        cmocka_unit_test(test_killed),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
