/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/lab/faultdisk.c - a disk that fails, and another boot: LD_PRELOAD of a test's nginx.
 *
 * FAULTDISK names a file of rules, one a line, read again whenever it is replaced:
 *
 *     CALL PATH ERRNO SKIP TIMES      pwrite /parts/ 28 10 -1
 *
 * The calls of that name on a path that contains PATH fail with ERRNO, after the first SKIP, TIMES
 * times (-1: always). ERRNO 0: the process kills itself instead. Counts are kept per process.
 * Names: those of the system calls, of which fdatasync is fsync too, fallocate is posix_fallocate,
 * and create is an open that may make a file. FAULTDISK_BOOT names a file that is read for the boot
 * id. Both are looked up at the start.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RULES 32

struct rule {
    char call[16], path[128];
    int error;
    long skip, times;
};

static const char *rules_file, *boot_file;
static struct rule rules[RULES];
static int n_rules;
static struct stat was; /* of the file: replaced by rename, never written to */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static __thread bool inside;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void look_up(void)
{
    const char *rule = getenv("FAULTDISK"), *boot = getenv("FAULTDISK_BOOT");

    rules_file =
        rule != NULL ? strdup(rule) : NULL; /* nginx writes its title over the environment */
    boot_file = boot != NULL ? strdup(boot) : NULL;
}

static void read_rules(void)
{
    struct stat st;
    FILE *f;

    if (rules_file == NULL || stat(rules_file, &st) != 0 ||
        (st.st_ino == was.st_ino && st.st_mtim.tv_sec == was.st_mtim.tv_sec &&
         st.st_mtim.tv_nsec == was.st_mtim.tv_nsec)) {
        return;
    }
    was = st;
    n_rules = 0;
    f = fopen(rules_file, "re");
    while (f != NULL && n_rules < RULES) {
        struct rule *r = &rules[n_rules];

        if (fscanf(f, "%15s %127s %d %ld %ld", r->call, r->path, &r->error, &r->skip, &r->times) !=
            5) {
            break;
        }
        n_rules++;
    }
    if (f != NULL) {
        fclose(f);
    }
}

/* errno is set when it fails. */
static bool fails(const char *call, const char *path)
{
    int error = -1, saved = errno;

    if (inside || path == NULL) {
        return false;
    }
    inside = true;
    pthread_mutex_lock(&mutex);
    read_rules();
    for (int i = 0; i < n_rules && error < 0; i++) {
        struct rule *r = &rules[i];

        if (strcmp(r->call, call) != 0 || strstr(path, r->path) == NULL) {
            continue;
        }
        if (r->skip > 0) {
            r->skip--;
        } else if (r->times != 0) {
            r->times -= r->times > 0;
            error = r->error;
        }
    }
    pthread_mutex_unlock(&mutex);
    inside = false;
    if (error == 0) {
        kill(getpid(), SIGKILL);
    }
    errno = error > 0 ? error : saved;
    return error > 0;
}

static bool fd_fails(const char *call, int fd)
{
    char name[64], path[4096];
    ssize_t n;
    int saved = errno;

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    n = readlink(name, path, sizeof(path) - 1);
    errno = saved;
    if (n < 0) {
        return false;
    }
    path[n] = '\0';
    return fails(call, path);
}

/* ---- by path ---- */

static int opened(int at, const char *path, int flags, mode_t mode)
{
    if (boot_file != NULL && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0) {
        path = boot_file;
    }
    if (fails("open", path) || ((flags & O_CREAT) != 0 && fails("create", path))) {
        return -1;
    }
    return REAL(openat)(at, path, flags, mode);
}

#define OPEN(name, at, ...)                                                                        \
    int name(__VA_ARGS__ const char *path, int flags, ...)                                         \
    {                                                                                              \
        va_list args;                                                                              \
        mode_t mode = 0;                                                                           \
                                                                                                   \
        if ((flags & (O_CREAT | O_TMPFILE)) != 0) {                                                \
            va_start(args, flags);                                                                 \
            mode = va_arg(args, mode_t);                                                           \
            va_end(args);                                                                          \
        }                                                                                          \
        return opened(at, path, flags, mode);                                                      \
    }
#define COMMA ,
OPEN(open, AT_FDCWD, )
OPEN(open64, AT_FDCWD, )
OPEN(openat, dir, int dir COMMA)
OPEN(openat64, dir, int dir COMMA)

#define BY_PATH(call, name, path, params, ...)                                                     \
    int name params                                                                                \
    {                                                                                              \
        return fails(call, path) ? -1 : REAL(name)(__VA_ARGS__);                                   \
    }
BY_PATH("link", link, to, (const char *from, const char *to), from, to)
BY_PATH("unlink", unlink, path, (const char *path), path)
BY_PATH("mkdir", mkdir, path, (const char *path, mode_t mode), path, mode)
BY_PATH("rename", rename, to, (const char *from, const char *to), from, to)
BY_PATH("rename", renameat, to, (int a, const char *from, int b, const char *to), a, from, b, to)
BY_PATH("statvfs", statvfs, path, (const char *path, struct statvfs *out), path, out)
BY_PATH("statvfs", statvfs64, path, (const char *path, struct statvfs64 *out), path, out)

/* ---- by descriptor ---- */

#define BY_FD(call, type, name, params, ...)                                                       \
    type name params                                                                               \
    {                                                                                              \
        return fd_fails(call, fd) ? (type)-1 : REAL(name)(__VA_ARGS__);                            \
    }
BY_FD("write", ssize_t, write, (int fd, const void *p, size_t n), fd, p, n)
BY_FD("pwrite", ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), fd, p, n, at)
BY_FD("pwrite", ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at), fd, p, n, at)
BY_FD("pread", ssize_t, pread, (int fd, void *p, size_t n, off_t at), fd, p, n, at)
BY_FD("pread", ssize_t, pread64, (int fd, void *p, size_t n, off64_t at), fd, p, n, at)
BY_FD("fdatasync", int, fdatasync, (int fd), fd)
BY_FD("fdatasync", int, fsync, (int fd), fd)
BY_FD("ftruncate", int, ftruncate, (int fd, off_t n), fd, n)
BY_FD("ftruncate", int, ftruncate64, (int fd, off64_t n), fd, n)
BY_FD("sendfile", ssize_t, sendfile, (int to, int fd, off_t *at, size_t n), to, fd, at, n)
BY_FD("sendfile", ssize_t, sendfile64, (int to, int fd, off64_t *at, size_t n), to, fd, at, n)

int posix_fallocate(int fd, off_t at, off_t n)
{
    return fd_fails("fallocate", fd) ? errno : REAL(posix_fallocate)(fd, at, n);
}

int posix_fallocate64(int fd, off64_t at, off64_t n)
{
    return fd_fails("fallocate", fd) ? errno : REAL(posix_fallocate64)(fd, at, n);
}
