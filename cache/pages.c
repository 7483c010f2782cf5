/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/pages.c - are the bytes of a file in memory, and if not, bring them: so that sendfile(2) on
 * the loop does not wait for a disk.
 *
 * mincore(2) and not cachestat(2), which counts pages that are still being read; and not
 * preadv2(RWF_NOWAIT), which copies what it finds.
 */
#include "cache/cache_internal.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define AHEAD_BYTES (4 * CACHE_WINDOW) /* asked for at once: a disk likes long reads */
#define PIECE_BYTES (256u << 10)
#define PAGE_MIN 4096u

bool cache_in_memory(int fd, uint64_t offset, uint64_t n)
{
    unsigned char pages[CACHE_LOOK / PAGE_MIN + 1];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = offset / page * page;
    size_t length = (size_t)(offset - from + n), count = (length + page - 1) / page;
    bool all = true;
    void *at;

    if (n == 0 || n > CACHE_LOOK || page < PAGE_MIN) {
        return true;
    }
    at = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, (off_t)from);
    if (at == MAP_FAILED) {
        return true;
    }
    if (mincore(at, length, pages) == 0) {
        for (size_t i = 0; all && i < count; i++) {
            all = (pages[i] & 1) != 0;
        }
    }
    munmap(at, length);
    return all;
}

static int open_either(struct cache *c, struct gw_str digest)
{
    char path[CACHE_PATH_MAX];
    int fd = -1, flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

    if (!cache_digest_valid(digest)) {
        return -1;
    }
    if (cache_blob_path(c, digest, path, sizeof(path))) {
        fd = open(path, flags);
    }
    if (fd < 0) {
        snprintf(path, sizeof(path), "%s/" GW_STR_FMT ".part", c->parts_dir, GW_STR_ARG(digest));
        fd = open(path, flags);
    }
    return fd;
}

int cache_bring(struct cache *c, struct gw_str digest, uint64_t offset, struct gw_error *err)
{
    uint64_t end = offset + CACHE_WINDOW;
    ssize_t n = 1;
    char *piece;
    int sys, fd = open_either(c, digest);

    if (fd < 0) {
        return gw_fail(err, GW_NOT_FOUND, errno, "file %.12s: not held any more", digest.p);
    }
    piece = gw_alloc(PIECE_BYTES);
    if (piece == NULL) {
        close(fd);
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory to read a file");
    }
    posix_fadvise(fd, (off_t)offset, AHEAD_BYTES, POSIX_FADV_WILLNEED);
    while (n > 0 && offset < end) {
        n = pread(fd, piece, PIECE_BYTES, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            n = 1;
            continue;
        }
        offset += n > 0 ? (uint64_t)n : 0;
    }
    sys = errno;
    gw_free(piece);
    close(fd);
    return n < 0 ? gw_fail(err, GW_IO, sys, "file %.12s: read: %s", digest.p, strerror(sys))
                 : GW_OK;
}
