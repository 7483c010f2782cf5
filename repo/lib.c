/* SPDX-License-Identifier: Apache-2.0 */
/* repo/lib.c - libgit2 as a whole: its switches, and its errors as ours. */
#include "repo/repo_internal.h"

#include <git2.h>

#include <errno.h>
#include <stdio.h>

#define CACHE_BYTES (16 << 20) /* of inflated objects, all open repositories together */

/* What the system said is only in libgit2's message: errno is of whatever it cleaned up since. 0:
 * it is no failure of the disk. */
static int errno_in(const char *message)
{
    static const int known[] = {ENOSPC, EDQUOT, EIO, EROFS, EMFILE, ENFILE, EACCES, EPERM, EFBIG};
    struct gw_str text = gw_str_c(message);

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (gw_str_ends(text, gw_str_c(strerrordesc_np(known[i])))) {
            return known[i];
        }
    }
    return 0;
}

int repo_git_fail(struct gw_error *err, const char *what, ...)
{
    const git_error *last = git_error_last();
    int saved = errno, said;
    char where[200];
    va_list args;

    va_start(args, what);
    vsnprintf(where, sizeof(where), what, args);
    va_end(args);
    if (last == NULL) { /* "known bugs ... may return NULL" (libgit2 docs/error-handling.md) */
        return gw_fail(err, GW_CORRUPT, 0, "%s: libgit2 gives no reason", where);
    }
    if (last->klass == GIT_ERROR_NOMEMORY) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory", where);
    }
    said = errno_in(last->message);
    if (said != 0) {
        return gw_fail(err, GW_IO, said, "%s: %s", where, last->message);
    }
    /* a file that should be there and is not is damage, the rest is the disk's or the system's */
    if (last->klass == GIT_ERROR_OS && saved != 0 && saved != ENOENT && saved != ENOTDIR &&
        saved != EISDIR && saved != ELOOP) {
        return gw_fail(err, GW_IO, saved, "%s: %s", where, last->message);
    }
    return gw_fail(err, GW_CORRUPT, 0, "%s: %s", where, last->message);
}

/* Ownership validation stays as it is: git_repository_open_bare, the only way in here, does not
 * look for a repository and so does not ask. Nothing outside data/ has a say: no configuration of
 * the system or of a home folder is read. */
static int set_options(void)
{
    static const int levels[] = {GIT_CONFIG_LEVEL_PROGRAMDATA, GIT_CONFIG_LEVEL_SYSTEM,
                                 GIT_CONFIG_LEVEL_XDG, GIT_CONFIG_LEVEL_GLOBAL};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (git_libgit2_opts(GIT_OPT_SET_SEARCH_PATH, levels[i], "") < 0) {
            return -1;
        }
    }
    /* without it 20 acknowledged commits out of 20 are gone after a power cut (reliability 3.1) */
    if (git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 1) < 0 ||
        git_libgit2_opts(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 1) < 0) {
        return -1;
    }
    if (git_libgit2_opts(GIT_OPT_SET_ODB_PACKED_PRIORITY, REPO_LOOSE_PRIORITY + 1) < 0 ||
        git_libgit2_opts(GIT_OPT_SET_ODB_LOOSE_PRIORITY, REPO_LOOSE_PRIORITY - 1) < 0) {
        return -1;
    }
    return git_libgit2_opts(GIT_OPT_SET_CACHE_MAX_SIZE, (ssize_t)CACHE_BYTES);
}

int repo_git_open(struct git_repository **git, struct git_odb **odb, const char *path)
{
    git_repository *opened = NULL;
    git_odb *objects = NULL;
    int code = repo_packs_check(path);

    if (code == 0) {
        code = git_repository_open_bare(&opened, path);
    }
    if (code == 0) {
        code = git_repository_odb(&objects, opened);
    }
    if (code == 0) {
        code = repo_loose_add(objects, path);
    }
    if (code < 0) {
        git_odb_free(objects);
        git_repository_free(opened);
        return code;
    }
    *git = opened;
    *odb = objects;
    return 0;
}

int repo_init(struct gw_error *err)
{
    if (git_libgit2_init() < 0) {
        return repo_git_fail(err, "start libgit2");
    }
    if (set_options() < 0) {
        int rc = repo_git_fail(err, "set up libgit2");

        git_libgit2_shutdown();
        return rc;
    }
    return GW_OK;
}

void repo_exit(void)
{
    git_libgit2_shutdown();
}
