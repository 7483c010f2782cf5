/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/downloads.c - how often a repository was downloaded: a number in a file of its folder, so it
 * goes with it wherever it goes, and is the same for all nodes. Not synced: a power cut may cost
 * the last minutes of it.
 */
#include "repo/repo_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define DIGITS 20

static int add_in_file(int fd, uint64_t n, uint64_t *total)
{
    char text[DIGITS + 2] = "";
    ssize_t got;

    if (flock(fd, LOCK_EX) != 0) {
        return errno;
    }
    got = pread(fd, text, DIGITS, 0);
    if (got < 0) {
        return errno;
    }
    text[got] = '\0';
    *total = strtoull(text, NULL, 10) + n; /* what is no number counts as 0 */
    if (n == 0) {
        return 0;
    }
    snprintf(text, sizeof(text), "%0*llu\n", DIGITS, (unsigned long long)*total);
    return pwrite(fd, text, DIGITS + 1, 0) == DIGITS + 1 ? 0 : EIO;
}

int repo_downloads(const char *data_dir, const struct repo_id *id, uint64_t n, uint64_t *total,
                   struct gw_error *err)
{
    struct repo_place place;
    struct gw_arena a;
    struct gw_str path;
    int fd, rc, sys;

    *total = 0;
    gw_arena_init(&a, 64u << 10);
    rc = repo_locate(data_dir, id, &a, &place, err);
    if (rc != GW_OK) {
        gw_arena_release(&a);
        return rc;
    }
    path = gw_arena_printf(&a, "%s/hubgate-downloads", place.path);
    fd = path.p == NULL
             ? -1
             : open(path.p, (n != 0 ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW, 0600);
    sys = path.p == NULL ? ENOMEM : fd < 0 ? errno : add_in_file(fd, n, total);
    if (fd >= 0) {
        close(fd);
    }
    if (sys != 0 && !(sys == ENOENT && n == 0)) {
        rc = gw_fail(err, GW_IO, sys, "%s: %s", path.p != NULL ? path.p : "downloads",
                     strerror(sys));
    }
    gw_arena_release(&a);
    return rc;
}
