/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/packs.c - a look at the indexes of packs before libgit2 trusts them.
 *
 * libgit2 1.5.1 checks an index's tables but not the offsets in it, and reads outside its mapping
 * for one that lies behind the end of the pack (git_packfile_unpack_header). A flipped bit, or a
 * pack cut short, must not take a worker down. Four bytes an object are looked at: a millisecond
 * for a million.
 */
#include "repo/repo_internal.h"

#include <git2.h>
#include <git2/sys/odb_backend.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FANOUT_BYTES (256u * 4)
#define TRAILER_BYTES 40u /* checksums of the pack and of the index */
#define HASH_BYTES 20u

struct index {
    const uint8_t *p;
    uint64_t n;
    uint64_t pack_bytes;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* An object needs a header before the pack's own checksum, and the pack begins with 12 bytes. */
static bool is_inside(const struct index *x, uint64_t offset)
{
    return offset >= 12 && offset < x->pack_bytes - HASH_BYTES;
}

static bool fanout_is_sound(const uint8_t *fanout)
{
    for (size_t i = 1; i < 256; i++) {
        if (be32(fanout + 4 * i) < be32(fanout + 4 * (i - 1))) {
            return false;
        }
    }
    return true;
}

/* Offset and id in one row, no header. */
static bool version_1_is_sound(const struct index *x)
{
    uint64_t count, need;

    if (x->n < FANOUT_BYTES + TRAILER_BYTES || !fanout_is_sound(x->p)) {
        return false;
    }
    count = be32(x->p + FANOUT_BYTES - 4);
    need = FANOUT_BYTES + count * 24 + TRAILER_BYTES;
    if (need != x->n) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (!is_inside(x, be32(x->p + FANOUT_BYTES + 24 * i))) {
            return false;
        }
    }
    return true;
}

/* Tables of ids, CRCs, offsets of 31 bits, and offsets of 64 bits for packs over 2 GiB. */
static bool version_2_is_sound(const struct index *x)
{
    const uint8_t *fanout = x->p + 8, *small, *large;
    uint64_t count, fixed, n_large;

    if (x->n < 8 + FANOUT_BYTES + TRAILER_BYTES || be32(x->p + 4) != 2 ||
        !fanout_is_sound(fanout)) {
        return false;
    }
    count = be32(fanout + FANOUT_BYTES - 4);
    fixed = 8 + FANOUT_BYTES + count * (HASH_BYTES + 4 + 4) + TRAILER_BYTES;
    if (x->n < fixed || (x->n - fixed) % 8 != 0) {
        return false;
    }
    n_large = (x->n - fixed) / 8;
    small = fanout + FANOUT_BYTES + count * (HASH_BYTES + 4);
    large = small + count * 4;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = be32(small + 4 * i);

        if ((offset & 0x80000000) != 0) {
            uint64_t at = offset & 0x7fffffff;

            if (at >= n_large) {
                return false;
            }
            offset = (uint64_t)be32(large + 8 * at) << 32 | be32(large + 8 * at + 4);
        }
        if (!is_inside(x, offset)) {
            return false;
        }
    }
    return true;
}

static bool is_sound(const struct index *x)
{
    static const uint8_t magic[] = {0xff, 't', 'O', 'c'};

    if (x->pack_bytes < 12 + HASH_BYTES || x->n < sizeof(magic) + 4) {
        return false;
    }
    return memcmp(x->p, magic, sizeof(magic)) == 0 ? version_2_is_sound(x) : version_1_is_sound(x);
}

/* 0: sound; 1: not; -1: the system fails. An index without its pack is never used. */
static int check_one(int dir_fd, const char *name)
{
    struct stat pack, st;
    struct index x;
    char pack_name[NAME_MAX + 8];
    void *p;
    int fd;
    bool sound;

    snprintf(pack_name, sizeof(pack_name), "%.*s.pack", (int)(strlen(name) - 4), name);
    if (fstatat(dir_fd, pack_name, &pack, 0) != 0) {
        return errno == ENOENT ? 0 : -1;
    }
    fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT ? 0 : -1; /* repacked in between */
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || !S_ISREG(pack.st_mode) || st.st_size <= 0) {
        close(fd);
        return 1;
    }
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED) {
        return -1;
    }
    x = (struct index){p, (uint64_t)st.st_size, (uint64_t)pack.st_size};
    sound = is_sound(&x);
    munmap(p, (size_t)st.st_size);
    return sound ? 0 : 1;
}

int repo_packs_check(const char *repo_path)
{
    char path[4096];
    struct dirent *e;
    DIR *d;
    int n = snprintf(path, sizeof(path), "%s/objects/pack", repo_path), found = 0;

    d = n > 0 && (size_t)n < sizeof(path) ? opendir(path) : NULL;
    if (d == NULL) {
        return 0; /* a repository without packs; what else is wrong, libgit2 will say */
    }
    for (errno = 0; found == 0 && (e = readdir(d)) != NULL; errno = 0) {
        if (gw_str_ends(gw_str_c(e->d_name), GW_STR(".idx"))) {
            found = check_one(dirfd(d), e->d_name);
        }
    }
    n = errno;
    closedir(d);
    errno = n;
    if (found != 0) {
        git_error_set_str(found > 0 ? GIT_ERROR_ODB : GIT_ERROR_OS,
                          found > 0 ? "the index of a pack is damaged" : "a pack cannot be read");
        return -1;
    }
    return 0;
}
