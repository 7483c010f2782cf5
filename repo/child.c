/* SPDX-License-Identifier: Apache-2.0 */
/* repo/child.c - git as a child: nothing of ours but its descriptors goes with it. */
#include "repo/repo_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

static int set_files(posix_spawn_file_actions_t *f, int in, int out, int out_err)
{
    int code = posix_spawn_file_actions_adddup2(f, in, STDIN_FILENO);

    code = code != 0 ? code : posix_spawn_file_actions_adddup2(f, out, STDOUT_FILENO);
    if (code == 0) {
        code = out_err >= 0
                   ? posix_spawn_file_actions_adddup2(f, out_err, STDERR_FILENO)
                   : posix_spawn_file_actions_addopen(f, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    return code != 0 ? code : posix_spawn_file_actions_addclosefrom_np(f, STDERR_FILENO + 1);
}

/* A group of its own, and the signals as they are by default: nginx's threads block them. */
static int set_attributes(posix_spawnattr_t *a)
{
    sigset_t none, all;
    int code;

    sigemptyset(&none);
    sigfillset(&all);
    code = posix_spawnattr_setsigmask(a, &none);
    code = code != 0 ? code : posix_spawnattr_setsigdefault(a, &all);
    code = code != 0 ? code : posix_spawnattr_setpgroup(a, 0);
    return code != 0 ? code
                     : posix_spawnattr_setflags(a, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                       POSIX_SPAWN_SETPGROUP);
}

int repo_child_start(const char *const argv[], int in, int out, int out_err, pid_t *pid)
{
    const char *const environment[] = {"GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int code = posix_spawn_file_actions_init(&files);

    if (code != 0) {
        return code;
    }
    code = posix_spawnattr_init(&attributes);
    if (code == 0) {
        code = set_files(&files, in, out, out_err);
        code = code != 0 ? code : set_attributes(&attributes);
        code = code != 0 ? code
                         : posix_spawnp(pid, argv[0], &files, &attributes, (char *const *)argv,
                                        (char *const *)environment);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return code;
}
