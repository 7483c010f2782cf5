/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/lab/powertrace.c - what a power cut would leave: LD_PRELOAD of a test's nginx and command.
 *
 * POWERTRACE names a folder, POWERTRACE_ROOT the folder that is watched (no symbolic links in it).
 * Each call below it that changes names, and each fsync, is a line of POWERTRACE/log once it has
 * succeeded, in the order of all processes and threads; what a file held when it was synced is
 * POWERTRACE/<number of the line's end>. powercut.py makes of a beginning of the log what had to be
 * there at that moment. Fields are split by tabs:
 *
 *     create PATH INODE        an open that may make a file; it may have been there
 *     mkdir PATH INODE
 *     link FROM TO INODE
 *     rename FROM TO INODE
 *     unlink PATH              rmdir too
 *     sync INODE MODE COPY     fsync, fdatasync of a file
 *     syncdir INODE
 *
 * One lock orders call and line: a call that another one's order depends on never overtakes it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char *folder, *root;
static size_t root_n;
static int log_fd = -1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void look_up(void)
{
    const char *to = getenv("POWERTRACE"), *of = getenv("POWERTRACE_ROOT");
    char path[PATH_MAX];

    if (to == NULL || of == NULL) {
        return;
    }
    folder = strdup(to); /* nginx writes its title over the environment */
    root = strdup(of);
    root_n = strlen(root);
    snprintf(path, sizeof(path), "%s/log", folder);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (log_fd < 0) {
        fprintf(stderr, "powertrace: %s: %s\n", path, strerror(errno));
        abort();
    }
}

/* fcntl's lock is of a process, so it works over the descriptor that workers inherit, and goes with
 * its owner. */
static void lock(void)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

    pthread_mutex_lock(&mutex);
    while (fcntl(log_fd, F_SETLKW, &l) != 0 && errno == EINTR) {
    }
}

static void unlock(void)
{
    struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    int saved = errno;

    fcntl(log_fd, F_SETLK, &l);
    pthread_mutex_unlock(&mutex);
    errno = saved;
}

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
    char line[3 * PATH_MAX];
    va_list args;
    int n, saved = errno;

    va_start(args, fmt);
    n = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (n <= 0 || (size_t)n >= sizeof(line) || syscall(SYS_write, log_fd, line, (size_t)n) != n) {
        abort();
    }
    errno = saved;
}

/* The path below the root, or NULL: none of ours. out: PATH_MAX */
static const char *ours(int at, const char *path, char *out)
{
    char name[64], base[PATH_MAX];
    ssize_t n;

    if (log_fd < 0 || path == NULL) {
        return NULL;
    }
    if (path[0] == '/') {
        n = snprintf(out, PATH_MAX, "%s", path);
    } else {
        snprintf(name, sizeof(name), at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        n = readlink(name, base, sizeof(base) - 1);
        if (n < 0) {
            return NULL;
        }
        base[n] = '\0';
        n = snprintf(out, PATH_MAX, "%s/%s", base, path);
    }
    while (n > 0 && n < PATH_MAX && out[n - 1] == '/') {
        out[--n] = '\0';
    }
    return n < PATH_MAX && strncmp(out, root, root_n) == 0 && out[root_n] == '/' ? out + root_n + 1
                                                                                 : NULL;
}

static unsigned long long inode_of(int at, const char *path)
{
    struct stat st;

    return fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (unsigned long long)st.st_ino : 0;
}

/* ---- names ---- */

static int opened(int at, const char *path, int flags, mode_t mode)
{
    char buffer[PATH_MAX];
    const char *name = (flags & O_CREAT) != 0 ? ours(at, path, buffer) : NULL;
    int fd;

    if (name == NULL) {
        return (int)syscall(SYS_openat, at, path, flags, mode);
    }
    lock();
    fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0) {
        say("create\t%s\t%llu\n", name, inode_of(at, path));
    }
    unlock();
    return fd;
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

static int made(int at, const char *path, mode_t mode)
{
    char buffer[PATH_MAX];
    const char *name = ours(at, path, buffer);
    int rc;

    if (name == NULL) {
        return REAL(mkdirat)(at, path, mode);
    }
    lock();
    rc = REAL(mkdirat)(at, path, mode);
    if (rc == 0) {
        say("mkdir\t%s\t%llu\n", name, inode_of(at, path));
    }
    unlock();
    return rc;
}

int mkdir(const char *path, mode_t mode)
{
    return made(AT_FDCWD, path, mode);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    return made(at, path, mode);
}

static int linked(int a, const char *from, int b, const char *to, int flags)
{
    char buffer[PATH_MAX], other[PATH_MAX];
    const char *name = ours(b, to, buffer), *old = ours(a, from, other);
    int rc;

    if (name == NULL) {
        return (int)syscall(SYS_linkat, a, from, b, to, flags);
    }
    lock();
    rc = (int)syscall(SYS_linkat, a, from, b, to, flags);
    if (rc == 0) {
        say("link\t%s\t%s\t%llu\n", old != NULL ? old : "", name, inode_of(b, to));
    }
    unlock();
    return rc;
}

int link(const char *from, const char *to)
{
    return linked(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int a, const char *from, int b, const char *to, int flags)
{
    return linked(a, from, b, to, flags);
}

static int renamed(int a, const char *from, int b, const char *to)
{
    char buffer[PATH_MAX], other[PATH_MAX];
    const char *name = ours(b, to, buffer), *old = ours(a, from, other);
    int rc;

    if (name == NULL && old == NULL) {
        return (int)syscall(SYS_renameat2, a, from, b, to, 0);
    }
    lock();
    rc = (int)syscall(SYS_renameat2, a, from, b, to, 0);
    if (rc == 0 && name == NULL) {
        say("unlink\t%s\n", old);
    } else if (rc == 0) {
        say("rename\t%s\t%s\t%llu\n", old != NULL ? old : "", name, inode_of(b, to));
    }
    unlock();
    return rc;
}

int rename(const char *from, const char *to)
{
    return renamed(AT_FDCWD, from, AT_FDCWD, to);
}

int renameat(int a, const char *from, int b, const char *to)
{
    return renamed(a, from, b, to);
}

static int unlinked(int at, const char *path, int flags)
{
    char buffer[PATH_MAX];
    const char *name = ours(at, path, buffer);
    int rc;

    if (name == NULL) {
        return (int)syscall(SYS_unlinkat, at, path, flags);
    }
    lock();
    rc = (int)syscall(SYS_unlinkat, at, path, flags);
    if (rc == 0) {
        say("unlink\t%s\n", name);
    }
    unlock();
    return rc;
}

int unlink(const char *path)
{
    return unlinked(AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    return unlinked(at, path, flags);
}

int rmdir(const char *path)
{
    return unlinked(AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- what is durable ---- */

/* The file as it is now; to the number of the line that will tell of it. */
static void copy(int fd, unsigned long number)
{
    char path[PATH_MAX], name[64], *chunk = malloc(1u << 20);
    int from, to;
    ssize_t n;

    snprintf(path, sizeof(path), "%s/%lu", folder, number);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    from = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    to = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (chunk == NULL || from < 0 || to < 0) {
        abort();
    }
    while ((n = syscall(SYS_read, from, chunk, 1u << 20)) > 0) {
        if (syscall(SYS_write, to, chunk, (size_t)n) != n) {
            abort();
        }
    }
    close(from);
    close(to);
    free(chunk);
}

static int synced(int fd, int (*real)(int))
{
    char name[64], path[PATH_MAX];
    struct stat st;
    ssize_t n;
    int rc;

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    n = log_fd >= 0 ? readlink(name, path, sizeof(path) - 1) : -1;
    if (n <= 0 || (size_t)n < root_n || strncmp(path, root, root_n) != 0 ||
        ((size_t)n != root_n && path[root_n] != '/') || fstat(fd, &st) != 0) {
        return real(fd);
    }
    lock();
    rc = real(fd);
    if (rc == 0 && S_ISDIR(st.st_mode)) {
        say("syncdir\t%llu\n", (unsigned long long)st.st_ino);
    } else if (rc == 0 && st.st_nlink != 0) {
        unsigned long number = (unsigned long)lseek(log_fd, 0, SEEK_END);

        copy(fd, number);
        say("sync\t%llu\t%o\t%lu\n", (unsigned long long)st.st_ino, st.st_mode & 07777, number);
    }
    unlock();
    return rc;
}

int fsync(int fd)
{
    return synced(fd, REAL(fsync));
}

int fdatasync(int fd)
{
    return synced(fd, REAL(fdatasync));
}
