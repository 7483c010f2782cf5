/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/sent.c - who sent an object to a repository, as far as it matters: for those who may not
 * read all of it, so that a digest that they only know of gives them nothing.
 *
 *   <name>.git/lfs/sent/aa/<sha256 of sender and digest>: an empty file
 *
 * Not synced: without it the bytes are sent once more.
 */
#include "repo/repo_internal.h"

#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* p == NULL: no memory, or no such repository */
static struct gw_str path_of(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                             struct gw_str sender, struct gw_arena *a, struct gw_str *folder)
{
    struct repo_place place;
    struct gw_sha256 sha;
    uint8_t sum[32];
    char hex[65];

    if (repo_locate(data_dir, id, a, &place, NULL) != GW_OK) {
        return (struct gw_str){NULL, 0};
    }
    gw_sha256_init(&sha);
    gw_sha256_update(&sha, sha256.p, sha256.n);
    gw_sha256_update(&sha, sender.p, sender.n);
    gw_sha256_final(&sha, sum);
    gw_hex_encode(hex, sum, sizeof(sum));
    *folder = gw_arena_printf(a, "%s/lfs/sent/%.2s", place.path, hex);
    return folder->p != NULL ? gw_arena_printf(a, "%s/%s", folder->p, hex)
                             : (struct gw_str){NULL, 0};
}

int repo_object_note(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                     struct gw_str sender, struct gw_error *err)
{
    struct gw_str path, folder;
    struct gw_arena a;
    int rc, fd = -1;

    gw_arena_init(&a, 64u << 10);
    path = path_of(data_dir, id, sha256, sender, &a, &folder);
    rc = path.p != NULL ? gw_dir_make(folder.p, 0750, err)
                        : gw_fail(err, GW_NOT_FOUND, 0, "no such repository");
    if (rc == GW_OK) {
        fd = open(path.p, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
        rc = fd >= 0 ? GW_OK
                     : gw_fail(err, GW_IO, errno, "create %s: %s", path.p, strerrordesc_np(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    gw_arena_release(&a);
    return rc;
}

bool repo_object_noted(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                       struct gw_str sender)
{
    struct gw_str path, folder;
    struct gw_arena a;
    bool there;

    gw_arena_init(&a, 64u << 10);
    path = path_of(data_dir, id, sha256, sender, &a, &folder);
    there = path.p != NULL && access(path.p, F_OK) == 0;
    gw_arena_release(&a);
    return there;
}
