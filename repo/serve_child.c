/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/serve_child.c - the program between us and git (see serve.c): gives git its limits and a
 * process group of its own, and ends the group when git has ended, or when it must.
 *
 *   0 stdin of git, 1 its stdout, 2 its stderr, 3 the read end of "life", 4 the repository's lock
 */
#include "repo/repo_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE_FD 3
#define LOCK_FD REPO_PUSH_LOCK_FD
#define GRACE_MS 3000                 /* from SIGTERM to SIGKILL */
#define LONGEST_MS (24 * 3600 * 1000) /* a clone over a slow line */
#define CPU_S 3600u
#define MEMORY (UINT64_C(4) << 30)
#define FILES 512u

/* gcc says it by a macro, clang by a feature */
#if defined(__SANITIZE_ADDRESS__)
#define AN_ASAN_BUILD true
#elif defined(__has_feature)
#define AN_ASAN_BUILD __has_feature(address_sanitizer)
#else
#define AN_ASAN_BUILD false
#endif

extern char **environ;

static void limit(int what, uint64_t most)
{
    struct rlimit r = {most, most};

    (void)setrlimit(what, &r);
}

static void set_limits(uint64_t file_bytes)
{
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, CPU_S);
    limit(RLIMIT_FSIZE, file_bytes);
    limit(RLIMIT_NOFILE, FILES);
    if (!AN_ASAN_BUILD) { /* which takes all addresses, and so does the hook */
        limit(RLIMIT_AS, MEMORY);
    }
}

/* -1: there is no git */
static pid_t start(char *const argv[])
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t files;
    pid_t pid = -1;

    if (posix_spawnattr_init(&attributes) != 0 || posix_spawn_file_actions_init(&files) != 0) {
        return -1;
    }
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    if (posix_spawn_file_actions_addclose(&files, LIFE_FD) != 0 ||
        posix_spawnp(&pid, "git", &files, &attributes, argv, environ) != 0) {
        pid = -1;
    }
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return pid;
}

/* Until git has ended (true), or the other end of life is closed, or time is over. */
static bool ended(int git, int life, int64_t until)
{
    struct pollfd p[2] = {{.fd = git, .events = POLLIN}, {.fd = life, .events = POLLIN}};

    for (;;) {
        int64_t left = until - gw_mono_ms();

        if (left <= 0) {
            return false;
        }
        if (poll(p, life >= 0 ? 2 : 1, (int)left) < 0 && errno != EINTR) {
            return false;
        }
        if (p[0].revents != 0) {
            return true;
        }
        if (life >= 0 && p[1].revents != 0) {
            return false;
        }
    }
}

int repo_serve_child(int argc, char **argv)
{
    bool push = argc == 4 && strcmp(argv[0], "receive-pack") == 0;
    bool advertise = argc == 4 && strcmp(argv[1], "refs") == 0;
    char *git[8], verb[16], rpc[] = "--stateless-rpc", name[] = "git",
                            refs[] = "--http-backend-info-refs";
    const char *hook = getenv("HUBGATE_HOOK");
    uint64_t bytes;
    size_t n = 0;
    pid_t pid;
    int fd;

    if (argc != 4 || (!push && strcmp(argv[0], "upload-pack") != 0) ||
        !gw_str_u64(gw_str_c(argv[2]), &bytes)) {
        return 2;
    }
    if (push && !advertise && (hook == NULL || access(hook, X_OK) != 0)) {
        return 0; /* git would take the push without it */
    }
    memcpy(verb, argv[0], strlen(argv[0]) + 1);
    git[n++] = name;
    git[n++] = verb;
    git[n++] = rpc;
    if (advertise) {
        git[n++] = refs;
    }
    git[n++] = argv[3];
    git[n] = NULL;
    set_limits(push ? 2 * bytes + (64u << 20) : 1u << 20);
    pid = start(git);
    /* git alone holds these: its end is the end of its output, and the lock is let go */
    for (int i = 0; i <= LOCK_FD; i++) {
        if (i != LIFE_FD) {
            close(i);
        }
    }
    if (pid < 0) {
        return 0;
    }
    fd = pidfd_open(pid, 0);
    if (fd >= 0 && !ended(fd, LIFE_FD, gw_mono_ms() + LONGEST_MS)) {
        (void)kill(-pid, SIGTERM); /* git removes its temporary files */
        (void)ended(fd, -1, gw_mono_ms() + GRACE_MS);
    }
    (void)kill(-pid, SIGKILL); /* and what it has started: it is not waited for yet, so the number
                                  is still its own */
    (void)waitpid(pid, NULL, 0);
    return 0;
}
