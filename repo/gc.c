/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/gc.c - what nobody refers to goes: objects, deleted repositories, what dead writers left.
 *
 * Why nothing that was acknowledged can go, beside uploads and commits of any worker of any node:
 *
 * - An object of data/lfs goes when its name there is its only one (the cache's hard link apart).
 *   A repository holds an object by a link of its own, so the link count tells, wherever the
 *   repository is moved to meanwhile. Writers link under the shared lock of data/lfs (object.c);
 *   here count and time are looked at and the name goes under the exclusive one, so no link comes
 *   in between. Who is between storing and linking made the inode's ctime new; only what is older
 *   than the grace time before the start goes, by the clock of the file system that wrote it. Where
 *   a repository holds copies (data/ was restored without hard links), or cannot be read, no
 *   object goes at all.
 * - A repository's link goes when none of its git objects, reachable or not, is a pointer to it,
 *   under the lock of the repository, and the inode is as old as above. A commit that was told
 *   before that the object is there looks again under the same lock (change.c) and is refused:
 *   the client uploads anew. Answering "it is there" makes the ctime new, too.
 * - A deleted repository goes when the time in its name is past the grace time: it is renamed into
 *   data/tmp under the lock of all names, so nobody brings back half of one.
 * - Each name that comes back after a power cut is found again by the next gc.
 *
 * Repositories that name objects without holding them (imports of old versions) get their links
 * first. One gc at a time, by a lock of its own.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/encode.h"
#include "base/file.h"

#include <git2.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_WAIT_MS 30000
#define NAMES_MAX 4000000u
#define SHA_HEX 64u
#define PATH_BYTES 8192u /* more than any path of the system, and a name */

struct gc {
    const char *data_dir;
    const struct repo_gc *o;
    struct repo_gc_sum *sum;
    int64_t limit_ms; /* older things may go */
    struct repo_work work;
    unsigned moved;
    bool unsure; /* a repository could not be read, or holds copies: no object goes */
};

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory to clean up");
}

static void say(const struct gc *g, const char *what, const char *path, uint64_t bytes)
{
    if (g->o->on != NULL) {
        g->o->on(g->o->ctx, what, gw_str_c(path), bytes);
    }
}

static int64_t ms_of(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- a folder's names ---- */

typedef int (*on_name)(struct gc *g, const char *path, struct gw_str name, void *ctx,
                       struct gw_error *err);

/* All names of a folder, sorted; none if it is not there. */
static int each_name(struct gc *g, const char *folder, on_name on, void *ctx, struct gw_error *err)
{
    struct gw_str *names;
    struct gw_arena a;
    size_t n = 0;
    int rc;

    gw_arena_init(&a, 1u << 30);
    rc = gw_dir_list(folder, NAMES_MAX, &a, &names, &n, err);
    if (rc == GW_NOT_FOUND || (rc == GW_IO && err != NULL && err->sys == ENOTDIR)) {
        n = 0;
        rc = GW_OK;
    }
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        char path[PATH_BYTES];
        int k = snprintf(path, sizeof(path), "%s/" GW_STR_FMT, folder, GW_STR_ARG(names[i]));

        if (k > 0 && (size_t)k < sizeof(path)) {
            rc = on(g, path, names[i], ctx, err);
        }
    }
    gw_arena_release(&a);
    return rc;
}

struct two_deep {
    on_name on;
    void *ctx;
};

static int second_level(struct gc *g, const char *path, struct gw_str name, void *ctx,
                        struct gw_error *err)
{
    const struct two_deep *d = ctx;

    return gw_is_hex_lower(name, 2) ? each_name(g, path, d->on, d->ctx, err) : GW_OK;
}

static int first_level(struct gc *g, const char *path, struct gw_str name, void *ctx,
                       struct gw_error *err)
{
    return gw_is_hex_lower(name, 2) ? each_name(g, path, second_level, ctx, err) : GW_OK;
}

/* folder/aa/bb/<sha256> */
static int each_object(struct gc *g, const char *folder, on_name on, void *ctx,
                       struct gw_error *err)
{
    struct two_deep d = {on, ctx};

    return each_name(g, folder, first_level, &d, err);
}

/* ---- what a repository names ---- */

static int by_digest(const void *a, const void *b)
{
    return memcmp(((const struct repo_pointer *)a)->sha256,
                  ((const struct repo_pointer *)b)->sha256,
                  sizeof(((const struct repo_pointer *)a)->sha256));
}

struct reading {
    struct repo_pointers *p;
    git_odb *odb;
    bool no_memory;
};

static int add_pointer(struct repo_pointers *p, const char sha256[65], uint64_t size)
{
    struct repo_pointer *at;

    if (p->n == p->cap) {
        size_t cap = p->cap != 0 ? 2 * p->cap : 64;
        struct repo_pointer *more = gw_realloc(p->list, cap * sizeof(*more));

        if (more == NULL) {
            return GW_NO_MEMORY;
        }
        p->list = more;
        p->cap = cap;
    }
    at = &p->list[p->n++];
    at->size = size;
    return gw_hex_decode((char *)at->sha256, sizeof(at->sha256), (struct gw_str){sha256, SHA_HEX})
               ? GW_OK
               : GW_CORRUPT;
}

static int on_object(const git_oid *oid, void *ctx)
{
    struct reading *r = ctx;
    git_odb_object *object = NULL;
    git_object_t type;
    char sha256[65];
    uint64_t size;
    size_t n;

    if (git_odb_read_header(&n, &type, r->odb, oid) < 0) {
        return -1;
    }
    if (type != GIT_OBJECT_BLOB || n < REPO_POINTER_BYTES_MIN || n > REPO_POINTER_BYTES_MAX) {
        return 0;
    }
    if (git_odb_read(&object, r->odb, oid) < 0) {
        return -1;
    }
    if (repo_pointer_parse((struct gw_str){git_odb_object_data(object), n}, sha256, &size)) {
        r->no_memory = add_pointer(r->p, sha256, size) != GW_OK;
    }
    git_odb_object_free(object);
    return r->no_memory ? GIT_EUSER : 0;
}

int repo_pointers_read(struct repo_pointers *p, git_odb *odb, struct gw_error *err)
{
    struct reading r = {.p = p, .odb = odb};
    int code = git_odb_foreach(odb, on_object, &r);
    size_t kept = 0;

    if (r.no_memory) {
        return no_memory(err);
    }
    if (code < 0) {
        return repo_git_fail(err, "read all objects");
    }
    if (p->n != 0) {
        qsort(p->list, p->n, sizeof(*p->list), by_digest);
    }
    for (size_t i = 0; i < p->n; i++) {
        if (kept == 0 || by_digest(&p->list[kept - 1], &p->list[i]) != 0 ||
            p->list[kept - 1].size != p->list[i].size) {
            p->list[kept++] = p->list[i];
        }
    }
    p->n = kept;
    return GW_OK;
}

bool repo_pointers_have(const struct repo_pointers *p, struct gw_str sha256)
{
    struct repo_pointer key;

    return p->n != 0 && gw_hex_decode((char *)key.sha256, sizeof(key.sha256), sha256) &&
           bsearch(&key, p->list, p->n, sizeof(*p->list), by_digest) != NULL;
}

void repo_pointers_free(struct repo_pointers *p)
{
    gw_free(p->list);
    *p = (struct repo_pointers){0};
}

/* ---- one repository ---- */

struct one {
    const char *path;
    struct repo_pointers named;
};

static int on_held(struct gc *g, const char *path, struct gw_str name, void *ctx,
                   struct gw_error *err)
{
    struct one *one = ctx;
    struct stat held, whole;
    char object[PATH_BYTES];

    if (!gw_is_hex_lower(name, SHA_HEX) || lstat(path, &held) != 0 || !S_ISREG(held.st_mode)) {
        return GW_OK;
    }
    snprintf(object, sizeof(object), "%s/lfs/%.2s/%.2s/%.64s", g->data_dir, name.p, name.p + 2,
             name.p);
    if (lstat(object, &whole) != 0 || whole.st_ino != held.st_ino || whole.st_dev != held.st_dev) {
        g->unsure = true;
        say(g, "copy", path, (uint64_t)held.st_size);
        return GW_OK;
    }
    if (repo_pointers_have(&one->named, name) || ms_of(held.st_ctim) >= g->limit_ms) {
        return GW_OK;
    }
    say(g, "unused", path, (uint64_t)held.st_size);
    g->sum->unused++;
    if (!g->o->dry_run && unlink(path) != 0 && errno != ENOENT) {
        return gw_fail(err, GW_IO, errno, "remove %s: %s", path, strerrordesc_np(errno));
    }
    return GW_OK;
}

/* What it names and does not hold: an import of an old version. */
static int mend(struct gc *g, const struct one *one, struct gw_error *err)
{
    struct repo_place place = {.path = one->path};
    struct gw_error why;
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < one->named.n; i++) {
        char hex[SHA_HEX + 1];
        struct gw_str sha256 = {hex, SHA_HEX};
        uint64_t size;

        gw_hex_encode(hex, (const char *)one->named.list[i].sha256,
                      sizeof(one->named.list[i].sha256));
        if (repo_object_size(&place, sha256, &size, &why) == GW_OK) {
            continue;
        }
        rc = g->o->dry_run ? GW_OK : repo_object_link(g->data_dir, &place, sha256, &why);
        g->sum->mended += rc == GW_OK;
        if (rc == GW_NOT_FOUND) {
            say(g, "missing", hex, 0); /* fsck says where */
            rc = GW_OK;
        } else if (rc != GW_OK) {
            rc = gw_fail(err, rc, why.sys, "%s", why.text);
        }
    }
    return rc;
}

static int remove_temporary(struct gc *g, const char *path, const struct stat *st,
                            struct gw_error *err)
{
    say(g, "temporary", path, (uint64_t)st->st_size);
    g->sum->temporary++;
    if (g->o->dry_run) {
        return GW_OK;
    }
    return S_ISDIR(st->st_mode) ? gw_dir_remove(path, err)
           : unlink(path) != 0
               ? gw_fail(err, GW_IO, errno, "remove %s: %s", path, strerrordesc_np(errno))
               : GW_OK;
}

/* What git's own programs left when they were killed. */
static int on_git_temp(struct gc *g, const char *path, struct gw_str name, void *ctx,
                       struct gw_error *err)
{
    struct stat st;

    if (!gw_str_starts(name, GW_STR("tmp_")) || lstat(path, &st) != 0 ||
        ms_of(st.st_mtim) >= g->limit_ms) {
        return GW_OK;
    }
    return remove_temporary(g, path, &st, err);
}

static int clean_locked(struct gc *g, struct one *one, struct gw_error *err)
{
    uint64_t before = g->sum->unused + g->sum->mended;
    git_repository *git = NULL;
    git_odb *odb = NULL;
    char folder[PATH_BYTES];
    int rc;

    if (repo_git_open(&git, &odb, one->path) < 0) {
        rc = repo_git_fail(err, "open %s", one->path);
    } else {
        rc = repo_pointers_read(&one->named, odb, err);
    }
    git_odb_free(odb);
    git_repository_free(git);
    if (rc == GW_OK) {
        rc = mend(g, one, err);
    }
    snprintf(folder, sizeof(folder), "%s/lfs/objects", one->path);
    if (rc == GW_OK) {
        rc = each_object(g, folder, on_held, one, err);
    }
    if (!g->o->dry_run && g->sum->unused + g->sum->mended != before) {
        repo_usage_touch(one->path);
    }
    snprintf(folder, sizeof(folder), "%s/objects", one->path);
    if (rc == GW_OK) {
        rc = each_name(g, folder, on_git_temp, NULL, err);
    }
    snprintf(folder, sizeof(folder), "%s/objects/pack", one->path);
    return rc == GW_OK ? each_name(g, folder, on_git_temp, NULL, err) : rc;
}

/* A failure of one repository keeps all objects, and the others are cleaned. */
static int clean_repo(struct gc *g, const char *path)
{
    struct one one = {.path = path};
    struct gw_error err;
    char lock[PATH_BYTES];
    struct stat st;
    int fd = -1, rc;

    snprintf(lock, sizeof(lock), "%s/.gw.lock", path);
    g->sum->repos++;
    rc = repo_lock(&fd, lock, LOCK_WAIT_MS, &err);
    if (rc != GW_OK && stat(path, &st) != 0 && errno == ENOENT) {
        return GW_OK; /* deleted or moved meanwhile: its objects have its links */
    }
    if (rc == GW_OK) {
        rc = clean_locked(g, &one, &err);
    }
    repo_unlock(fd);
    repo_pointers_free(&one.named);
    if (rc != GW_OK) {
        g->unsure = true;
        g->sum->failed++;
        say(g, "failed", err.text, 0);
    }
    return GW_OK;
}

static int on_repo(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name)
{
    struct repo_id id = {type, ns, name};
    struct gc *g = ctx;
    struct gw_error err;
    char path[PATH_BYTES];
    size_t rolled = 0;
    int n =
        snprintf(path, sizeof(path), "%s/repos/" GW_STR_FMT "/" GW_STR_FMT "/" GW_STR_FMT ".git",
                 g->data_dir, GW_STR_ARG(type), GW_STR_ARG(ns), GW_STR_ARG(name));
    int rc = n > 0 && (size_t)n < sizeof(path) ? clean_repo(g, path) : GW_OK;

    if (rc == GW_OK && !g->o->dry_run &&
        (rc = repo_repack(g->data_dir, &id, 1, &rolled, &err)) != GW_OK) {
        if (rc != GW_NOT_FOUND && rc != GW_CONFLICT) {
            say(g, "failed", err.text, 0);
            g->sum->failed++;
        }
        rc = GW_OK;
    }
    g->sum->packs += rolled;
    return rc;
}

/* ---- deleted repositories ---- */

/* <name>.git.<ms>; 0: another name */
static int64_t deleted_ms(struct gw_str name)
{
    const char *dot = name.n != 0 ? memrchr(name.p, '.', name.n) : NULL;
    size_t stem = dot != NULL ? (size_t)(dot - name.p) : 0;
    uint64_t at;

    return dot != NULL && gw_str_ends(gw_str_sub(name, 0, stem), GW_STR(".git")) &&
                   gw_str_u64(gw_str_sub(name, stem + 1, name.n), &at) && at <= INT64_MAX
               ? (int64_t)at
               : 0;
}

static int drop_deleted(struct gc *g, const char *path, struct gw_error *err)
{
    char lock[PATH_BYTES], to[PATH_BYTES];
    int fd = -1, rc, code;

    snprintf(lock, sizeof(lock), "%s/repos/.lock", g->data_dir);
    snprintf(to, sizeof(to), "%s/deleted-%u", g->work.dir, g->moved++);
    rc = repo_lock(&fd, lock, LOCK_WAIT_MS, err);
    if (rc != GW_OK) {
        return rc;
    }
    code = rename(path, to);
    rc = code != 0 && errno != ENOENT
             ? gw_fail(err, GW_IO, errno, "remove %s: %s", path, strerrordesc_np(errno))
             : GW_OK;
    repo_unlock(fd);
    return rc == GW_OK && code == 0 ? gw_dir_remove(to, err) : rc;
}

static int on_deleted(struct gc *g, const char *path, struct gw_str name, void *ctx,
                      struct gw_error *err)
{
    int64_t at = deleted_ms(name);

    if (at == 0) {
        return GW_OK;
    }
    if (at >= g->limit_ms) {
        return clean_repo(g, path); /* it may come back: it keeps what it names */
    }
    say(g, "deleted", path, 0);
    g->sum->deleted++;
    return g->o->dry_run ? GW_OK : drop_deleted(g, path, err);
}

static int on_trash_ns(struct gc *g, const char *path, struct gw_str name, void *ctx,
                       struct gw_error *err)
{
    return each_name(g, path, on_deleted, NULL, err);
}

static int on_trash_type(struct gc *g, const char *path, struct gw_str name, void *ctx,
                         struct gw_error *err)
{
    return each_name(g, path, on_trash_ns, NULL, err);
}

/* ---- data/tmp ---- */

/* Those with an owner are swept by whoever makes another one (data.c); this is what has none. */
static int on_temp(struct gc *g, const char *path, struct gw_str name, void *ctx,
                   struct gw_error *err)
{
    char lock[PATH_BYTES + 8];
    struct stat st;

    if (gw_str_starts(name, GW_STR(REPO_PARTS_PREFIX)) ||
        (gw_str_starts(name, GW_STR("repo-")) && gw_str_ends(name, GW_STR(".lock"))) ||
        lstat(path, &st) != 0 || ms_of(st.st_mtim) >= g->limit_ms) {
        return GW_OK;
    }
    snprintf(lock, sizeof(lock), "%s.lock", path);
    if (access(lock, F_OK) == 0) {
        return GW_OK;
    }
    return remove_temporary(g, path, &st, err);
}

/* ---- objects ---- */

/* Under the exclusive lock of data/lfs. */
static bool is_unused(const struct gc *g, const char *path, struct gw_str name, struct stat *st)
{
    struct stat cached;
    char other[PATH_BYTES];
    nlink_t names = 1;

    if (lstat(path, st) != 0 || !S_ISREG(st->st_mode) || ms_of(st->st_ctim) >= g->limit_ms) {
        return false;
    }
    if (g->o->blobs != NULL) {
        snprintf(other, sizeof(other), "%s/%.2s/%.2s/%.64s", g->o->blobs, name.p, name.p + 2,
                 name.p);
        names += lstat(other, &cached) == 0 && cached.st_ino == st->st_ino &&
                 cached.st_dev == st->st_dev;
    }
    return st->st_nlink == names;
}

static int on_whole(struct gc *g, const char *path, struct gw_str name, void *ctx,
                    struct gw_error *err)
{
    struct stat st;
    int fd = -1, rc;

    if (!gw_is_hex_lower(name, SHA_HEX) || !is_unused(g, path, name, &st)) {
        return GW_OK;
    }
    rc = repo_objects_lock(&fd, g->data_dir, true, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (is_unused(g, path, name, &st)) {
        say(g, "object", path, (uint64_t)st.st_size);
        g->sum->objects++;
        g->sum->object_bytes += (uint64_t)st.st_size;
        if (!g->o->dry_run && unlink(path) != 0) {
            rc = gw_fail(err, GW_IO, errno, "remove %s: %s", path, strerrordesc_np(errno));
        }
    }
    repo_unlock(fd);
    return rc;
}

/* ---- the whole ---- */

static int run(struct gc *g, struct gw_error *err)
{
    char folder[PATH_BYTES];
    int rc;

    snprintf(folder, sizeof(folder), "%s/trash", g->data_dir);
    rc = each_name(g, folder, on_trash_type, NULL, err);
    if (rc == GW_OK) {
        rc = repo_each(g->data_dir, on_repo, g, err);
    }
    snprintf(folder, sizeof(folder), "%s/tmp", g->data_dir);
    if (rc == GW_OK) {
        rc = each_name(g, folder, on_temp, NULL, err);
    }
    g->sum->objects_kept = g->unsure;
    snprintf(folder, sizeof(folder), "%s/lfs", g->data_dir);
    return rc == GW_OK && !g->unsure ? each_object(g, folder, on_whole, NULL, err) : rc;
}

int repo_gc(const char *data_dir, const struct repo_gc *o, struct repo_gc_sum *sum,
            struct gw_error *err)
{
    struct gc g = {.data_dir = data_dir, .o = o, .sum = sum};
    char lock[PATH_BYTES];
    struct stat st;
    int fd = -1, rc;

    *sum = (struct repo_gc_sum){0};
    snprintf(lock, sizeof(lock), "%s/.gc.lock", data_dir);
    rc = repo_lock(&fd, lock, 0, err);
    if (rc != GW_OK) {
        return rc == GW_CONFLICT ? gw_fail(err, rc, 0, "another gc is under way") : rc;
    }
    rc = repo_work_begin(&g.work, data_dir, err);
    if (rc == GW_OK && fstat(g.work.lock_fd, &st) != 0) {
        rc = gw_fail(err, GW_IO, errno, "stat %s: %s", g.work.lock_path, strerrordesc_np(errno));
    }
    if (rc == GW_OK) {
        g.limit_ms = ms_of(st.st_ctim) - o->grace_ms; /* the file system's time, of this moment */
        rc = run(&g, err);
    }
    repo_work_end(&g.work);
    repo_unlock(fd);
    return rc;
}
