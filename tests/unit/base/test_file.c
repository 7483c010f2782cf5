/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"
#include "tests/unit/failing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char top[64]; /* a folder of this test's own */
static struct gw_arena arena;
static struct gw_error e;

/* The path of a name in top; valid until the fourth next call. */
static const char *in(const char *file)
{
    static char paths[4][300];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", top, file);
    return path;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 ? st.st_mode : 0;
}

static size_t count_names(const char *path)
{
    struct gw_str *names;
    size_t n;

    assert_int_equal(gw_dir_list(path, 1000, &arena, &names, &n, &e), GW_OK);
    return n;
}

static int setup(void **state)
{
    strcpy(top, "/tmp/hubgate-test-file-XXXXXX");
    gw_arena_init(&arena, 4 << 20);
    return mkdtemp(top) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    gw_arena_release(&arena);
    return gw_dir_remove(top, &e);
}

/* ---- reading ---- */

static void test_read(void **state)
{
    struct gw_str s = GW_STR("untouched");

    write_file(in("f"), "hello", 0600);
    assert_int_equal(gw_file_read(in("f"), 5, &arena, &s, &e), GW_OK);
    assert_int_equal(s.n, 5);
    assert_string_equal(s.p, "hello");
    s = GW_STR("untouched");
    assert_int_equal(gw_file_read(in("f"), 4, &arena, &s, &e), GW_TOO_LARGE);
    assert_int_equal(gw_file_read(in("absent"), 5, &arena, &s, &e), GW_NOT_FOUND);
    assert_int_equal(e.sys, ENOENT);
    assert_non_null(strstr(e.text, "/absent"));
    assert_int_equal(gw_file_read(in("f/x"), 5, &arena, &s, &e), GW_NOT_FOUND);
    assert_int_equal(gw_file_read(top, 5, &arena, &s, &e), GW_IO);
    assert_string_equal(s.p, "untouched");
    write_file(in("f"), "", 0600);
    assert_int_equal(gw_file_read(in("f"), 0, &arena, &s, &e), GW_OK);
    assert_string_equal(s.p, "");
}

static void test_read_of_a_file_without_a_size(void **state)
{
    struct gw_str s;

    assert_int_equal(gw_file_read("/proc/self/maps", 1 << 20, &arena, &s, &e), GW_OK);
    assert_int_equal(strlen(s.p), s.n);
    assert_true(s.n > 1000);
    assert_int_equal(gw_file_read("/proc/self/maps", 100, &arena, &s, &e), GW_TOO_LARGE);
    assert_int_equal(gw_file_read("/dev/zero", 100000, &arena, &s, &e), GW_TOO_LARGE);
}

static void test_read_into_a_small_arena(void **state)
{
    struct gw_arena small;
    struct gw_str s;

    write_file(in("f"), "0123456789012345678901234567890123456789", 0600);
    gw_arena_init(&small, 40);
    assert_int_equal(gw_file_read(in("f"), 100, &small, &s, &e), GW_NO_MEMORY);
    gw_arena_release(&small);
}

static void test_secret(void **state)
{
    static const struct {
        mode_t mode;
        const char *content;
        int rc;
        const char *secret;
    } rows[] = {
        {0600, "s3cret\n", GW_OK, "s3cret"},
        {0400, "s3cret", GW_OK, "s3cret"},
        {0640, "s3cret\r\n", GW_OK, "s3cret"},
        {0600, "two\nlines\n\n", GW_OK, "two\nlines\n"},
        {0644, "s3cret", GW_INVALID, NULL},
        {0604, "s3cret", GW_INVALID, NULL},
        {0620, "s3cret", GW_INVALID, NULL},
        {0602, "s3cret", GW_INVALID, NULL},
        {0600, "", GW_INVALID, NULL},
        {0600, "\n", GW_INVALID, NULL},
        {0600, "\r\n", GW_INVALID, NULL},
        {0600, "longer than the ceiling", GW_TOO_LARGE, NULL},
    };
    struct gw_str s;

    for (size_t i = 0; i < COUNT(rows); i++) {
        write_file(in("f"), rows[i].content, rows[i].mode);
        assert_int_equal(gw_file_read_secret(in("f"), 15, &arena, &s, &e), rows[i].rc);
        if (rows[i].rc == GW_OK) {
            assert_string_equal(s.p, rows[i].secret);
            assert_int_equal(s.n, strlen(rows[i].secret));
        }
        assert_null(strstr(e.text, "s3cret"));
        unlink(in("f"));
    }
    assert_int_equal(gw_file_read_secret(in("absent"), 15, &arena, &s, &e), GW_NOT_FOUND);
    assert_int_equal(gw_file_read_secret(top, 15, &arena, &s, &e), GW_INVALID);
    assert_int_equal(mkfifo(in("pipe"), 0600), 0); /* must not wait for a writer */
    assert_int_equal(gw_file_read_secret(in("pipe"), 15, &arena, &s, &e), GW_INVALID);
}

/* ---- writing ---- */

static void test_replace_and_create(void **state)
{
    mode_t old = umask(077);
    struct gw_str s;

    assert_int_equal(gw_dir_make(in("w"), 0755, &e), GW_OK);
    assert_int_equal(gw_file_create(in("w"), "f", GW_STR("one"), 0644, &e), GW_OK);
    assert_int_equal(mode_of(in("w/f")), S_IFREG | 0644); /* the umask has no say */
    assert_int_equal(gw_file_create(in("w"), "f", GW_STR("two"), 0600, &e), GW_CONFLICT);
    assert_int_equal(gw_file_read(in("w/f"), 10, &arena, &s, &e), GW_OK);
    assert_string_equal(s.p, "one");
    assert_int_equal(gw_file_replace(in("w"), "f", GW_STR("a\0b"), 0600, &e), GW_OK);
    assert_int_equal(mode_of(in("w/f")), S_IFREG | 0600);
    assert_int_equal(gw_file_read(in("w/f"), 10, &arena, &s, &e), GW_OK);
    assert_int_equal(s.n, 3);
    assert_int_equal(gw_file_replace(in("w"), "new", GW_STR(""), 0600, &e), GW_OK);
    assert_int_equal(symlink("f", in("w/link")), 0);
    assert_int_equal(gw_file_create(in("w"), "link", GW_STR("x"), 0600, &e), GW_CONFLICT);
    assert_int_equal(gw_file_replace(in("w"), "link", GW_STR("x"), 0600, &e), GW_OK);
    assert_true(S_ISREG(mode_of(in("w/link")))); /* the link was replaced, not what it names */
    assert_int_equal(count_names(in("w")), 3);   /* no temp file is left */
    umask(old);
}

static void test_write_failures_leave_nothing(void **state)
{
    static const char *const names[] = {"", "a/b", "/a", "."};
    char too_long[300];

    assert_int_equal(gw_dir_make(in("w"), 0755, &e), GW_OK);
    assert_int_equal(gw_file_replace(in("absent"), "f", GW_STR("x"), 0600, &e), GW_IO);
    assert_int_equal(e.sys, ENOENT);
    for (size_t i = 0; i < COUNT(names); i++) {
        assert_int_equal(gw_file_replace(in("w"), names[i], GW_STR("x"), 0600, &e), GW_IO);
    }
    assert_int_equal(gw_file_create(in("w"), "a/b", GW_STR("x"), 0600, &e), GW_IO);
    memset(too_long, 'x', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    assert_int_equal(gw_file_replace(in("w"), too_long, GW_STR("x"), 0600, &e), GW_IO);
    assert_int_equal(gw_file_create(in("w"), too_long, GW_STR("x"), 0600, &e), GW_IO);
    assert_int_equal(gw_dir_make(in("w/folder"), 0755, &e), GW_OK);
    assert_int_equal(gw_file_replace(in("w"), "folder", GW_STR("x"), 0600, &e), GW_IO);
    assert_int_equal(gw_file_create(in("w"), "folder", GW_STR("x"), 0600, &e), GW_CONFLICT);
    assert_int_equal(count_names(in("w")), 1);
}

static void test_longest_name(void **state)
{
    char longest[256];

    memset(longest, 'x', 255);
    longest[255] = '\0';
    assert_int_equal(gw_file_create(top, longest, GW_STR("x"), 0600, &e), GW_OK);
}

static void *create_one(void *ctx)
{
    struct gw_error err;

    return (void *)(intptr_t)gw_file_create(ctx, "same", GW_STR("x"), 0600, &err);
}

static void test_create_has_one_winner(void **state)
{
    for (int round = 0; round < 20; round++) {
        pthread_t threads[4];
        int won = 0;

        for (size_t i = 0; i < COUNT(threads); i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, create_one, top), 0);
        }
        for (size_t i = 0; i < COUNT(threads); i++) {
            void *rc;

            pthread_join(threads[i], &rc);
            won += (intptr_t)rc == GW_OK;
            assert_true((intptr_t)rc == GW_OK || (intptr_t)rc == GW_CONFLICT);
        }
        assert_int_equal(won, 1);
        unlink(in("same"));
    }
}

static void test_all(void **state)
{
    int fd = open(in("f"), O_RDWR | O_CREAT, 0600), p[2];
    char out[10] = {0};

    assert_int_equal(gw_write_all(fd, "0123456789", 10, &e), GW_OK);
    assert_int_equal(gw_pwrite_all(fd, "ab", 2, 4, &e), GW_OK);
    assert_int_equal(gw_pread_all(fd, out, 6, 2, &e), GW_OK);
    assert_memory_equal(out, "23ab67", 6);
    assert_int_equal(gw_pread_all(fd, out, 1, 10, &e), GW_CORRUPT);
    assert_int_equal(gw_pread_all(fd, out, 5, 6, &e), GW_CORRUPT);
    assert_int_equal(gw_pread_all(fd, out, 0, 10, &e), GW_OK);
    assert_int_equal(gw_pread_all(fd, out, 1, UINT64_MAX, &e), GW_CORRUPT);
    assert_int_equal(gw_pwrite_all(fd, "x", 1, UINT64_MAX, &e), GW_IO);
    assert_int_equal(gw_pwrite_all(fd, "x", 1, INT64_MAX, &e), GW_IO);
    close(fd);
    assert_int_equal(gw_write_all(fd, "x", 1, &e), GW_IO);
    assert_int_equal(e.sys, EBADF);
    assert_int_equal(gw_pread_all(fd, out, 1, 0, &e), GW_IO);
    assert_int_equal(pipe(p), 0);
    assert_int_equal(gw_pwrite_all(p[1], "x", 1, 0, &e), GW_IO);
    assert_int_equal(e.sys, ESPIPE);
    close(p[0]);
    close(p[1]);
}

static void *drain(void *ctx)
{
    char buf[4096];
    size_t n = 0;
    ssize_t got;

    while ((got = read(*(int *)ctx, buf, sizeof(buf))) > 0) {
        n += (size_t)got;
    }
    return (void *)n;
}

static void test_write_all_through_a_pipe(void **state)
{
    static char big[1 << 20]; /* more than a pipe holds: short writes */
    pthread_t reader;
    void *n;
    int p[2];

    assert_int_equal(pipe(p), 0);
    assert_int_equal(pthread_create(&reader, NULL, drain, &p[0]), 0);
    assert_int_equal(gw_write_all(p[1], big, sizeof(big), &e), GW_OK);
    close(p[1]);
    pthread_join(reader, &n);
    assert_int_equal((size_t)n, sizeof(big));
    close(p[0]);
}

/* ---- folders ---- */

static void test_make(void **state)
{
    static const char *const rows[] = {"m", "m", "m/a/b/c", "m/a/b/c/", "m//d///e", "m/./f"};
    mode_t old = umask(077);
    char path[5000];

    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(gw_dir_make(in(rows[i]), 0750, &e), GW_OK);
        assert_int_equal(mode_of(in(rows[i])), S_IFDIR | 0750);
    }
    umask(old);
    assert_int_equal(mode_of(in("m/a")), S_IFDIR | 0750);
    assert_int_equal(gw_dir_make("/", 0755, &e), GW_OK);
    assert_int_equal(gw_dir_make("", 0755, &e), GW_IO);
    write_file(in("file"), "", 0600);
    assert_int_equal(gw_dir_make(in("file"), 0755, &e), GW_IO);
    assert_int_equal(e.sys, ENOTDIR);
    assert_int_equal(gw_dir_make(in("file/x/y"), 0755, &e), GW_IO);
    assert_int_equal(symlink("nowhere", in("dangling")), 0);
    assert_int_equal(gw_dir_make(in("dangling/x"), 0755, &e), GW_IO);
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(gw_dir_make(path, 0755, &e), GW_IO);
}

static void test_make_relative(void **state)
{
    char old[300];

    assert_non_null(getcwd(old, sizeof(old)));
    assert_int_equal(chdir(top), 0);
    assert_int_equal(gw_dir_make("rel", 0755, &e), GW_OK);
    assert_int_equal(gw_dir_make("rel2/x", 0755, &e), GW_OK);
    assert_int_equal(chdir(old), 0);
    assert_true(S_ISDIR(mode_of(in("rel"))) && S_ISDIR(mode_of(in("rel2/x"))));
}

static void test_sync(void **state)
{
    assert_int_equal(gw_dir_sync(top, &e), GW_OK);
    assert_int_equal(gw_dir_sync(in("absent-folder"), &e), GW_IO);
}

static void test_remove(void **state)
{
    assert_int_equal(gw_dir_make(in("outside"), 0755, &e), GW_OK);
    write_file(in("outside/keep"), "", 0600);
    assert_int_equal(gw_dir_make(in("r/a/b"), 0755, &e), GW_OK);
    write_file(in("r/a/b/f"), "", 0400);
    write_file(in("r/f"), "", 0600);
    assert_int_equal(symlink("../outside", in("r/link")), 0);
    assert_int_equal(symlink("../../outside", in("r/a/link")), 0);
    assert_int_equal(gw_dir_remove(in("r"), &e), GW_OK);
    assert_int_equal(mode_of(in("r")), 0);
    assert_int_equal(gw_dir_remove(in("r"), &e), GW_OK); /* absent */
    assert_int_equal(symlink("outside", in("link")), 0);
    assert_int_equal(gw_dir_remove(in("link"), &e), GW_IO); /* not followed, not a folder */
    assert_int_equal(gw_dir_remove(in("outside/keep"), &e), GW_IO);
    assert_true(S_ISREG(mode_of(in("outside/keep"))));
}

/* Deeper than any limit of descriptors or path lengths: refs/heads/a/a/a/... of a hostile push. */
static void test_remove_the_very_deep(void **state)
{
    int fd = open(top, O_RDONLY | O_DIRECTORY);

    assert_int_equal(mkdirat(fd, "deep", 0755), 0);
    for (int i = 0; i < 3000; i++) {
        int next = openat(fd, i == 0 ? "deep" : "a", O_RDONLY | O_DIRECTORY);

        assert_true(next >= 0);
        close(fd);
        fd = next;
        assert_int_equal(mkdirat(fd, "a", 0755), 0);
        assert_int_equal(mkdirat(fd, "b", 0755), 0);
    }
    close(fd);
    assert_int_equal(gw_dir_make(in("deep/.removing-0/x"), 0755, &e), GW_OK); /* left by a kill */
    assert_int_equal(gw_dir_remove(in("deep"), &e), GW_OK);
    assert_int_equal(mode_of(in("deep")), 0);
}

static void test_list(void **state)
{
    static const char *const sorted[] = {".hidden", "A", "a", "a-b", "ab", "\xc3\xa9"};
    struct gw_str *names = NULL;
    size_t n = 4711;

    assert_int_equal(gw_dir_make(in("l"), 0755, &e), GW_OK);
    assert_int_equal(count_names(in("l")), 0);
    for (size_t i = COUNT(sorted); i > 0; i--) {
        char path[100];

        snprintf(path, sizeof(path), "l/%s", sorted[i - 1]);
        write_file(in(path), "", 0600);
    }
    assert_int_equal(gw_dir_list(in("l"), COUNT(sorted) - 1, &arena, &names, &n, &e), GW_TOO_LARGE);
    assert_int_equal(n, 4711);
    assert_int_equal(gw_dir_list(in("l"), COUNT(sorted), &arena, &names, &n, &e), GW_OK);
    assert_int_equal(n, COUNT(sorted));
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(names[i].p, sorted[i]);
    }
    assert_int_equal(gw_dir_list(in("absent"), 10, &arena, &names, &n, &e), GW_NOT_FOUND);
}

static int list_and_read(void *ctx)
{
    struct gw_str *names, text;
    struct gw_arena a;
    size_t n;
    int rc;

    gw_arena_init(&a, 1 << 20);
    rc = gw_dir_list(ctx, 100, &a, &names, &n, NULL);
    if (rc == GW_OK) {
        rc = gw_file_read("/proc/self/maps", 1 << 20, &a, &text, NULL);
    }
    gw_arena_release(&a);
    return rc;
}

static void test_without_memory(void **state)
{
    write_file(in("some-file"), "", 0600);
    with_failing_alloc(list_and_read, top, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_of_a_file_without_a_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_into_a_small_arena, setup, teardown),
        cmocka_unit_test_setup_teardown(test_secret, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replace_and_create, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_failures_leave_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_longest_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_create_has_one_winner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_all_through_a_pipe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_make, setup, teardown),
        cmocka_unit_test_setup_teardown(test_make_relative, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove_the_very_deep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
