/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slow_disk.c - a disk that hangs or fails, for a process that is started with this in LD_PRELOAD:
 * whoever reads pages of a file below /cache/ that are not in memory waits as long as the file
 * $SLOW_DISK/hang is there, and gets EIO while $SLOW_DISK/fail is. It also counts what one turn of
 * the event loop sends from files: $SLOW_DISK/turn holds the most.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4000];

/* nginx forgets its environment */
__attribute__((constructor)) static void begin(void)
{
    const char *named = getenv("SLOW_DISK");

    snprintf(folder, sizeof(folder), "%s", named ? named : "/nonexistent");
}

static int there(const char *name)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static int below_cache(int fd)
{
    char link[64], path[4096];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = '\0';
    return strstr(path, "/cache/blobs/") != NULL || strstr(path, "/cache/parts/") != NULL;
}

static int in_memory(int fd, off_t offset, size_t n)
{
    long page = sysconf(_SC_PAGESIZE);
    off_t from = offset / page * page;
    unsigned char *pages;
    struct stat st;
    int all = 1;
    void *at;

    if (fstat(fd, &st) != 0 || offset >= st.st_size) {
        return 1;
    }
    if ((off_t)n > st.st_size - offset || n == 0) {
        n = (size_t)(st.st_size - offset);
    }
    n += (size_t)(offset - from);
    at = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, from);
    pages = malloc(n / (size_t)page + 1);
    if (at != MAP_FAILED && pages != NULL && mincore(at, n, pages) == 0) {
        for (size_t i = 0; i < (n + (size_t)page - 1) / (size_t)page; i++) {
            all = all && (pages[i] & 1);
        }
    }
    free(pages);
    if (at != MAP_FAILED) {
        munmap(at, n);
    }
    return all;
}

/* -1, errno: the disk fails */
static int disk(int fd, off_t offset, size_t n)
{
    if ((!there("hang") && !there("fail")) || !below_cache(fd) || in_memory(fd, offset, n)) {
        return 0;
    }
    while (there("hang")) {
        usleep(10000);
    }
    errno = EIO;
    return there("fail") ? -1 : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static size_t sent;

static ssize_t count(ssize_t n)
{
    sent += n > 0 ? (size_t)n : 0;
    return n;
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    static size_t most;
    char path[4096], text[32];
    int out;

    if (sent > most) {
        most = sent;
        snprintf(path, sizeof(path), "%s/turn", folder);
        out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        (void)!write(out, text, (size_t)snprintf(text, sizeof(text), "%zu\n", most));
        close(out);
    }
    sent = 0;
    return REAL(epoll_wait)(fd, events, max, timeout);
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t n)
{
    return disk(in, offset ? *offset : 0, n) != 0 ? -1
                                                  : count(REAL(sendfile64)(out, in, offset, n));
}

ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
    return sendfile64(out, in, offset, n);
}

ssize_t pread64(int fd, void *p, size_t n, off64_t offset)
{
    return disk(fd, offset, n) != 0 ? -1 : REAL(pread64)(fd, p, n, offset);
}

ssize_t pread(int fd, void *p, size_t n, off_t offset)
{
    return pread64(fd, p, n, offset);
}

/* With RWF_NOWAIT the kernel begins to read, but does not wait. */
ssize_t preadv64v2(int fd, const struct iovec *v, int n, off64_t offset, int flags)
{
    if ((flags & RWF_NOWAIT) != 0 && (there("hang") || there("fail")) && below_cache(fd) &&
        !in_memory(fd, offset, v[0].iov_len)) {
        errno = EAGAIN;
        return -1;
    }
    return (flags & RWF_NOWAIT) == 0 && disk(fd, offset, v[0].iov_len) != 0
               ? -1
               : REAL(preadv64v2)(fd, v, n, offset, flags);
}

ssize_t preadv2(int fd, const struct iovec *v, int n, off_t offset, int flags)
{
    return preadv64v2(fd, v, n, offset, flags);
}

/* It may start reading, and then the pages are there before anybody asked for them. */
int posix_fadvise64(int fd, off64_t offset, off64_t n, int advice)
{
    if (advice == POSIX_FADV_WILLNEED && disk(fd, offset, (size_t)n) != 0) {
        return EIO;
    }
    return REAL(posix_fadvise64)(fd, offset, n, advice);
}

int posix_fadvise(int fd, off_t offset, off_t n, int advice)
{
    return posix_fadvise64(fd, offset, n, advice);
}
