/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/object.c - large objects: once in data/lfs/, and a hard link in each repository that holds
 * them.
 *
 *   data/tmp/<upload> --link--> data/lfs/aa/bb/<sha256> --link-->
 * <name>.git/lfs/objects/aa/bb/<sha256>
 *
 * Each step durable before the next (reliability 3.2), so whatever dies in between leaves an object
 * that nobody names, never a name without its object.
 */
#include "repo/repo_internal.h"

#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_BYTES 65u /* a slash and the digest */

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
}

/* Somebody counts on it from now on: its ctime is what gc goes by. (Not mtime: backups go by that.)
 */
static void touch(const char *path, const struct stat *st)
{
    (void)!chmod(path, st->st_mode & 07777);
}

/* path names what from names; from stays. */
static int replace(const char *from, const char *path, struct gw_arena *a, struct gw_error *err)
{
    uint64_t random;
    const char *temp = gw_random(&random, sizeof(random))
                           ? gw_arena_printf(a, "%s.%llx", path, (unsigned long long)random).p
                           : NULL;

    if (temp == NULL) {
        return no_memory(err);
    }
    if (link(from, temp) != 0 || rename(temp, path) != 0) {
        int saved = errno;

        unlink(temp);
        return gw_fail(err, GW_IO, saved, "replace %s: %s", path, strerrordesc_np(saved));
    }
    return GW_OK;
}

/* Links from as path, whose folders are made, and syncs its folder. A name that is there is kept if
 * it has this size; another length is damage, and `from` was just hashed: it takes its place. */
static int link_durably(const char *from, struct gw_str path, uint64_t size, struct gw_arena *a,
                        struct gw_error *err)
{
    struct gw_str folder = gw_arena_dup(a, gw_str_sub(path, 0, path.n - NAME_BYTES));
    struct stat st;
    int rc;

    if (folder.p == NULL) {
        return no_memory(err);
    }
    rc = gw_dir_make(folder.p, 0750, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (link(from, path.p) != 0) {
        if (errno != EEXIST || lstat(path.p, &st) != 0) {
            return gw_fail(err, GW_IO, errno, "link %s: %s", path.p, strerrordesc_np(errno));
        }
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size) {
            rc = replace(from, path.p, a, err);
        } else {
            touch(path.p, &st);
        }
        if (rc != GW_OK) {
            return rc;
        }
    }
    return gw_dir_sync(folder.p, err);
}

/* The same beside a gc, which removes names of objects under the other half of this lock. */
static int link_object(const char *data_dir, const char *from, struct gw_str path, uint64_t size,
                       struct gw_arena *a, struct gw_error *err)
{
    int fd = -1, rc = repo_objects_lock(&fd, data_dir, false, err);

    if (rc == GW_OK) {
        rc = link_durably(from, path, size, a, err);
    }
    repo_unlock(fd);
    return rc;
}

int repo_object_store(const char *data_dir, const char *from, struct gw_str sha256, uint64_t size,
                      struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str path;
    int rc;

    gw_arena_init(&a, 64u << 10);
    path = repo_object_path(data_dir, sha256, &a);
    rc = path.p != NULL ? link_object(data_dir, from, path, size, &a, err) : no_memory(err);
    gw_arena_release(&a);
    return rc;
}

/* <name>.git/lfs/objects/aa/bb/<sha256>; p == NULL: no memory */
static struct gw_str held_path(const struct repo_place *place, struct gw_str sha256,
                               struct gw_arena *a)
{
    return gw_arena_printf(a, "%s/lfs/objects/%.2s/%.2s/" GW_STR_FMT, place->path, sha256.p,
                           sha256.p + 2, GW_STR_ARG(sha256));
}

static int check_digest(struct gw_str sha256, struct gw_error *err)
{
    return gw_is_hex_lower(sha256, 64)
               ? GW_OK
               : gw_fail(err, GW_INVALID, 0, "an object is named by its sha256 in lower-case hex");
}

static int size_of(const char *path, uint64_t *size)
{
    struct stat st;

    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
        return GW_NOT_FOUND;
    }
    *size = (uint64_t)st.st_size;
    return GW_OK;
}

int repo_object_link(const char *data_dir, const struct repo_place *place, struct gw_str sha256,
                     struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str object, path;
    uint64_t size;
    int rc;

    gw_arena_init(&a, 64u << 10);
    object = repo_object_path(data_dir, sha256, &a);
    path = held_path(place, sha256, &a);
    if (object.p == NULL || path.p == NULL) {
        rc = no_memory(err);
    } else if (size_of(object.p, &size) != GW_OK) {
        rc = gw_fail(err, GW_NOT_FOUND, REPO_NO_OBJECT, "there is no object %.12s", sha256.p);
    } else {
        rc = link_object(data_dir, object.p, path, size, &a, err);
        repo_usage_touch(place->path);
    }
    gw_arena_release(&a);
    return rc;
}

int repo_object_size(const struct repo_place *place, struct gw_str sha256, uint64_t *size,
                     struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str path;
    int rc;

    gw_arena_init(&a, 64u << 10);
    path = held_path(place, sha256, &a);
    rc = path.p == NULL ? no_memory(err) : size_of(path.p, size);
    if (rc == GW_NOT_FOUND) {
        rc = gw_fail(err, GW_NOT_FOUND, REPO_NO_OBJECT,
                     "this repository holds no object %.12s: upload it first", sha256.p);
    }
    gw_arena_release(&a);
    return rc;
}

int repo_object_take(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                     const char *path, struct gw_error *err)
{
    struct repo_place place;
    struct gw_arena a;
    uint64_t size = 0;
    int rc = check_digest(sha256, err);

    if (rc != GW_OK) {
        return rc;
    }
    gw_arena_init(&a, 64u << 10);
    rc = repo_locate(data_dir, id, &a, &place, err);
    if (rc == GW_OK && size_of(path, &size) != GW_OK) {
        rc = gw_fail(err, GW_IO, errno, "%s is no file", path);
    }
    if (rc == GW_OK) {
        rc = repo_object_store(data_dir, path, sha256, size, err);
    }
    if (rc == GW_OK) {
        rc = repo_object_link(data_dir, &place, sha256, err);
    }
    gw_arena_release(&a);
    return rc;
}

int repo_object_held(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                     uint64_t *size, struct gw_error *err)
{
    struct repo_place place;
    struct gw_arena a;
    int rc = check_digest(sha256, err);

    if (rc != GW_OK) {
        return rc;
    }
    gw_arena_init(&a, 64u << 10);
    rc = repo_locate(data_dir, id, &a, &place, err);
    if (rc == GW_OK) {
        rc = repo_object_size(&place, sha256, size, err);
    }
    if (rc == GW_OK) {
        struct gw_str path = held_path(&place, sha256, &a);
        struct stat st;

        if (path.p != NULL && lstat(path.p, &st) == 0) {
            touch(path.p, &st); /* who is told that it is here will name it soon */
        }
    }
    gw_arena_release(&a);
    return rc;
}
