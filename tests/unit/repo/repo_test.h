/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/repo/repo_test.h - a temporary folder with data/ and src/, and the real git to judge.
 */
#ifndef TESTS_UNIT_REPO_TEST_H
#define TESTS_UNIT_REPO_TEST_H

#include "repo/repo.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define NOW_MS INT64_C(1764000000000)
#define AUTHOR GW_STR("Ada Lovelace <ada@corp.example>")
#define ID(t, s, m) (&(struct repo_id){GW_STR(t), GW_STR(s), GW_STR(m)})
#define LLM ID("model", "acme", "llm")
#define LLM_GIT "data/repos/model/acme/llm.git"

static char root[64]; /* the temporary folder, which is also the current one */

/* Runs a shell command in root; its output without the final newline, cut at cap. Returns its exit.
 */
static inline int output(char *out, size_t cap, const char *fmt, ...) GW_PRINTF(3, 4);
static inline int output(char *out, size_t cap, const char *fmt, ...)
{
    char command[4096];
    va_list args;
    size_t n;
    FILE *f;
    int status;

    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    f = popen(command, "r");
    assert_non_null(f);
    n = fread(out, 1, cap - 1, f);
    while (n == cap - 1 && fgetc(f) != EOF) {
    }
    status = pclose(f);
    while (n != 0 && out[n - 1] == '\n') {
        n--;
    }
    out[n] = '\0';
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define sh(...)                                                                                    \
    do {                                                                                           \
        char sh_out[4096];                                                                         \
        if (output(sh_out, sizeof(sh_out), __VA_ARGS__) != 0) {                                    \
            fail_msg("%s", sh_out);                                                                \
        }                                                                                          \
    } while (0)

#define assert_sh(expected, ...)                                                                   \
    do {                                                                                           \
        char sh_out[65536];                                                                        \
        assert_int_equal(output(sh_out, sizeof(sh_out), __VA_ARGS__), 0);                          \
        assert_string_equal(sh_out, expected);                                                     \
    } while (0)

#define assert_ok(call, e)                                                                         \
    do {                                                                                           \
        int ok_rc = (call);                                                                        \
        if (ok_rc != GW_OK) {                                                                      \
            fail_msg("%s: %s", gw_status_name((enum gw_status)ok_rc), (e).text);                   \
        }                                                                                          \
    } while (0)

static inline void put(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void put_text(const char *path, const char *text)
{
    put(path, text, strlen(text));
}

/* Bytes that no compressor shortens and no two seeds share. */
static inline void put_noise(const char *path, size_t n, uint64_t seed)
{
    unsigned char *p = malloc(n + 8);

    assert_non_null(p);
    seed = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (size_t i = 0; i < n; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        p[i] = (unsigned char)(seed >> 32);
    }
    put(path, p, n);
    free(p);
}

/* Strict fsck is silent but for what it says of dangling objects. */
static inline void assert_fsck(const char *git_dir)
{
    char out[8192];

    if (output(out, sizeof(out), "git --git-dir=%s fsck --full --strict 2>&1", git_dir) != 0) {
        fail_msg("%s", out);
    }
    assert_string_equal(out, "");
}

static inline void assert_no_temp(void)
{
    assert_sh("", "ls -A data/tmp");
}

static inline int enter(void **state)
{
    struct gw_error err;

    snprintf(root, sizeof(root), "/tmp/hubgate-repo-XXXXXX");
    if (mkdtemp(root) == NULL || chdir(root) != 0 || mkdir("src", 0755) != 0) {
        return -1;
    }
    setenv("HOME", root, 1);
    setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
    setenv("GIT_AUTHOR_NAME", "t", 1);
    setenv("GIT_AUTHOR_EMAIL", "t@t", 1);
    setenv("GIT_COMMITTER_NAME", "t", 1);
    setenv("GIT_COMMITTER_EMAIL", "t@t", 1);
    return repo_init(&err) == GW_OK ? 0 : -1;
}

static inline int leave(void **state)
{
    repo_exit();
    sh("cd / && chmod -R u+rwX %s && rm -rf %s", root, root);
    return chdir("/");
}

static inline int import(const char *dir, char commit[41], struct gw_error *err)
{
    return repo_import("data", LLM, dir, GW_STR("Import"), AUTHOR, NOW_MS, NULL, commit, err);
}

#endif
