/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/import.c - a folder becomes the tree of a commit.
 *
 * The folder is walked twice. The first walk looks at names, kinds and sizes, so that what cannot
 * be stored is said before anything is written, and finds the files over 10 MiB that no attribute
 * covers. The second stores: large objects in data/lfs/, everything else in the spool. Both go down
 * by openat with O_NOFOLLOW; only descriptors of folders on the way are held.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ATTRIBUTES ".gitattributes"
#define CHUNK_BYTES (1u << 20)
#define FOLDER_ARENA_MAX (512u << 20) /* names of one folder */
#define LINK_MAX 4096u
#define OBJECTS_MAX (1u << 30) /* 64 bytes each */
#define PROGRESS_EVERY_MS 100
#define OBJECT_MODE 0440

struct entry {
    struct gw_str name; /* NUL-terminated */
    mode_t mode;        /* S_IFDIR, S_IFREG or S_IFLNK, with its x bits */
    uint64_t size;
    bool stored; /* has an oid: not an empty folder */
    uint8_t oid[REPO_OID_BYTES];
};

struct import {
    const char *data_dir;
    const struct repo_work *work;
    struct repo_spool *spool;
    const struct repo_progress *progress;
    struct repo *old; /* the repository if it is there, and its tip; else NULL */
    char old_tip[41];
    uint8_t tree[REPO_OID_BYTES]; /* of the whole folder */
    dev_t data_dev;               /* data_dir itself must not be below the folder */
    ino_t data_ino;

    bool storing;             /* the second walk */
    struct gw_buf path;       /* of what is being looked at, from the root */
    char *chunk;              /* CHUNK_BYTES */
    char *content;            /* of one small file */
    struct gw_str attributes; /* root .gitattributes as it is committed; from the first walk */
    size_t own_attributes;    /* bytes at its beginning that came from the folder, or by default */
    struct gw_buf objects;    /* 64 hex each: the repository holds them in the end */
    struct gw_buf uncovered;  /* lines for files that are large and match nothing */
    struct repo_rules *oversize; /* of these lines */

    uint64_t bytes_done, bytes_total, files;
    int64_t reported_ms;
};

/* ---- small things ---- */

static int refuse(const struct import *c, struct gw_error *err, const char *why)
{
    char shown[REPO_SHOWN_MAX];

    return gw_fail(err, GW_INVALID, 0, "%s: %s", why, repo_show(shown, gw_buf_str(&c->path)));
}

static int fail_io(const struct import *c, struct gw_error *err, const char *verb)
{
    char shown[REPO_SHOWN_MAX];
    int saved = errno;

    return gw_fail(err, GW_IO, saved, "%s %s: %s", verb, repo_show(shown, gw_buf_str(&c->path)),
                   strerrordesc_np(saved));
}

static int changed(const struct import *c, struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];

    return gw_fail(err, GW_CONFLICT, 0, "changed while it was imported: %s",
                   repo_show(shown, gw_buf_str(&c->path)));
}

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "import: no memory");
}

static void report(struct import *c, bool now)
{
    int64_t ms;

    if (c->progress == NULL || c->progress->on == NULL || !c->storing) {
        return;
    }
    ms = gw_mono_ms();
    if (now || ms - c->reported_ms >= PROGRESS_EVERY_MS) {
        c->reported_ms = ms;
        c->progress->on(c->progress->ctx,
                        c->bytes_done < c->bytes_total ? c->bytes_done : c->bytes_total,
                        c->bytes_total, gw_buf_str(&c->path));
    }
}

/* GW_OK and *got, 0 at the end */
static int read_some(const struct import *c, int fd, void *p, size_t n, size_t *got,
                     struct gw_error *err)
{
    for (;;) {
        ssize_t r = read(fd, p, n);

        if (r >= 0) {
            *got = (size_t)r;
            return GW_OK;
        }
        if (errno != EINTR) {
            return fail_io(c, err, "read");
        }
    }
}

/* A regular file, as it was seen when the folder was read. O_NONBLOCK: it may be a FIFO by now. */
static int open_file(const struct import *c, int dir_fd, const struct entry *e, int *fd,
                     struct gw_error *err)
{
    struct stat st;

    *fd = openat(dir_fd, e->name.p, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0) {
        return errno == ELOOP || errno == ENOENT ? changed(c, err) : fail_io(c, err, "open");
    }
    if (fstat(*fd, &st) != 0) {
        return fail_io(c, err, "stat");
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != e->size) {
        return changed(c, err);
    }
    return GW_OK;
}

/* ---- large objects ---- */

/* Bytes into a temporary file; their sha256. */
static int copy_object(struct import *c, int in, int out, uint64_t size, uint8_t sha[32],
                       struct gw_error *err)
{
    struct gw_sha256 state;
    uint64_t done = 0;
    size_t n;
    int rc;

    /* a full disk is said now, not at the end; where it cannot be asked, at the end */
    if (fallocate(out, 0, 0, (off_t)size) != 0 && errno == ENOSPC) {
        return fail_io(c, err, "make room for");
    }
    gw_sha256_init(&state);
    for (;;) {
        rc = read_some(c, in, c->chunk, CHUNK_BYTES, &n, err);
        if (rc != GW_OK || n == 0) {
            break;
        }
        if (n > size - done) {
            return changed(c, err);
        }
        gw_sha256_update(&state, c->chunk, n);
        rc = gw_write_all(out, c->chunk, n, err);
        if (rc != GW_OK) {
            return rc;
        }
        done += n;
        c->bytes_done += n;
        report(c, false);
    }
    if (rc == GW_OK && done != size) {
        return changed(c, err);
    }
    gw_sha256_final(&state, sha);
    return rc;
}

static int write_object(struct import *c, int in, const char *temp, const struct entry *e,
                        char hex[65], struct gw_error *err)
{
    int out = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), rc;
    uint8_t sha[32];

    if (out < 0) {
        return gw_fail(err, GW_IO, errno, "create %s: %s", temp, strerrordesc_np(errno));
    }
    rc = copy_object(c, in, out, e->size, sha, err);
    if (rc == GW_OK && (fchmod(out, OBJECT_MODE) != 0 || fdatasync(out) != 0)) {
        rc = gw_fail(err, GW_IO, errno, "sync %s: %s", temp, strerrordesc_np(errno));
    }
    if (close(out) != 0 && rc == GW_OK) {
        rc = gw_fail(err, GW_IO, errno, "close %s: %s", temp, strerrordesc_np(errno));
    }
    if (rc == GW_OK) {
        gw_hex_encode(hex, sha, sizeof(sha));
        rc = repo_object_store(c->data_dir, temp, (struct gw_str){hex, 64}, e->size, err);
    }
    unlink(temp); /* it has its name in data/lfs */
    return rc;
}

/* Is this file the object that the tip has at this path? Then it is read once and not written: a
 * second import of a large folder costs its reading. false: not, or not known; the file is then at
 * its start. */
static bool is_held(struct import *c, int fd, const struct entry *e, char hex[65])
{
    struct repo_entry old;
    struct gw_sha256 state;
    struct gw_arena a;
    struct gw_str path;
    struct stat st;
    uint64_t before = c->bytes_done;
    uint8_t sha[32];
    size_t n = 0;
    bool held;

    if (c->old == NULL ||
        repo_entry(c->old, c->old_tip, gw_buf_str(&c->path), &old, NULL) != GW_OK || !old.lfs ||
        old.size != e->size) {
        return false;
    }
    gw_arena_init(&a, 64u << 10);
    path = repo_object_path(c->data_dir, (struct gw_str){old.sha256, 64}, &a);
    held = path.p != NULL && lstat(path.p, &st) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == e->size;
    gw_arena_release(&a);
    if (!held) {
        return false;
    }
    gw_sha256_init(&state);
    while (read_some(c, fd, c->chunk, CHUNK_BYTES, &n, NULL) == GW_OK && n != 0 &&
           state.bytes + n <= e->size) {
        gw_sha256_update(&state, c->chunk, n);
        c->bytes_done += n;
        report(c, false);
    }
    gw_sha256_final(&state, sha);
    gw_hex_encode(hex, sha, sizeof(sha));
    if (n == 0 && state.bytes == e->size && strcmp(hex, old.sha256) == 0) {
        return true;
    }
    c->bytes_done = before;
    lseek(fd, 0, SEEK_SET); /* if it cannot go back, the copy finds the file short */
    return false;
}

static int store_object(struct import *c, int fd, struct entry *e, struct gw_error *err)
{
    char temp[4096], hex[65], pointer[200];
    int n = snprintf(temp, sizeof(temp), "%s/object", c->work->dir), rc;

    if (n < 0 || (size_t)n >= sizeof(temp)) {
        return gw_fail(err, GW_IO, ENAMETOOLONG, "%s: %s", c->work->dir,
                       strerrordesc_np(ENAMETOOLONG));
    }
    if (!is_held(c, fd, e, hex)) {
        rc = write_object(c, fd, temp, e, hex, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    gw_buf_add(&c->objects, (struct gw_str){hex, 64});
    if (c->objects.failed) {
        return no_memory(err);
    }
    return repo_spool_put(
        c->spool, REPO_OBJECT_BLOB,
        (struct gw_str){pointer, repo_pointer_format(pointer, (struct gw_str){hex, 64}, e->size)},
        e->oid, err);
}

/* ---- small files ---- */

/* Exactly size bytes into p, which has room for one more. */
static int read_whole(const struct import *c, int fd, char *p, uint64_t size, struct gw_error *err)
{
    size_t n = 0, got;

    do {
        int rc = read_some(c, fd, p + n, (size_t)size + 1 - n, &got, err);

        if (rc != GW_OK) {
            return rc;
        }
        n += got;
    } while (got != 0 && n <= size);
    return n == size ? GW_OK : changed(c, err);
}

/* Stored as a blob, a pointer would be served as the object it names: knowing a hash gives nothing
 * (design 5). Stored as an object, it is the model that somebody cloned without git-lfs. */
static int not_a_pointer(const struct import *c, struct gw_str text, struct gw_error *err)
{
    char sha[65];
    uint64_t size;

    return repo_pointer_parse(text, sha, &size)
               ? refuse(c, err,
                        "a git-lfs pointer and not the file itself (git lfs pull fetches it)")
               : GW_OK;
}

static int store_blob(struct import *c, int fd, struct entry *e, struct gw_error *err)
{
    struct gw_str text = {c->content, (size_t)e->size};
    int rc = read_whole(c, fd, c->content, e->size, err);

    if (rc == GW_OK) {
        rc = not_a_pointer(c, text, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    c->bytes_done += e->size;
    report(c, false);
    return repo_spool_put(c->spool, REPO_OBJECT_BLOB, text, e->oid, err);
}

/* Empty files are their own pointers (git-lfs spec); attributes must be readable by git itself. */
static bool is_object(const struct import *c, const struct entry *e, const struct repo_rules *rules)
{
    return e->size != 0 && !gw_str_eq_c(e->name, ATTRIBUTES) &&
           (repo_rules_lfs(rules, gw_buf_str(&c->path)) ||
            (e->size > REPO_BLOB_MAX && repo_rules_lfs(c->oversize, gw_buf_str(&c->path))));
}

static int store_file(struct import *c, int dir_fd, struct entry *e, const struct repo_rules *rules,
                      struct gw_error *err)
{
    int fd = -1, rc = open_file(c, dir_fd, e, &fd, err);

    if (rc == GW_OK && is_object(c, e, rules)) {
        if (e->size <= REPO_POINTER_BYTES_MAX) {
            rc = read_whole(c, fd, c->content, e->size, err);
            if (rc == GW_OK) {
                rc = not_a_pointer(c, (struct gw_str){c->content, (size_t)e->size}, err);
            }
            lseek(fd, 0, SEEK_SET); /* if it cannot go back, the copy finds the file short */
        }
        if (rc == GW_OK) {
            rc = store_object(c, fd, e, err);
        }
    } else if (rc == GW_OK && e->size > REPO_BLOB_MAX) {
        rc = changed(c, err); /* the first walk saw it smaller */
    } else if (rc == GW_OK) {
        rc = store_blob(c, fd, e, err);
    }
    if (fd >= 0) {
        close(fd);
    }
    e->stored = rc == GW_OK;
    return rc;
}

static int store_link(struct import *c, int dir_fd, struct entry *e, struct gw_error *err)
{
    char target[LINK_MAX];
    ssize_t n = readlinkat(dir_fd, e->name.p, target, sizeof(target));
    int rc;

    if (n < 0) {
        return errno == EINVAL || errno == ENOENT ? changed(c, err) : fail_io(c, err, "read link");
    }
    if (n == 0 || (size_t)n >= sizeof(target)) {
        return refuse(c, err, "a symbolic link to a path of more than 4,095 bytes");
    }
    rc =
        repo_spool_put(c->spool, REPO_OBJECT_BLOB, (struct gw_str){target, (size_t)n}, e->oid, err);
    e->stored = rc == GW_OK;
    return rc;
}

/* ---- the first walk ---- */

static int look_at_file(struct import *c, const struct entry *e, const struct repo_rules *rules,
                        struct gw_error *err)
{
    if (e->size > INT64_MAX - c->bytes_total) {
        return refuse(c, err, "too large");
    }
    c->bytes_total += e->size;
    c->files++;
    if (e->size <= REPO_BLOB_MAX || repo_rules_lfs(rules, gw_buf_str(&c->path))) {
        return GW_OK;
    }
    if (gw_str_eq_c(e->name, ATTRIBUTES)) {
        return refuse(c, err, "an attributes file of more than 10 MiB");
    }
    repo_rules_put_path(&c->uncovered, gw_buf_str(&c->path));
    return gw_buf_ok(&c->uncovered, err);
}

/* fsck's rule for what git reads by itself: a link there would be followed. A folder is as useless.
 */
static bool is_git_file(struct gw_str name)
{
    return gw_str_ieq_c(name, ".gitmodules") || gw_str_ieq_c(name, ATTRIBUTES) ||
           gw_str_ieq_c(name, ".gitignore") || gw_str_ieq_c(name, ".mailmap");
}

static int check_entry(const struct import *c, const struct entry *e, unsigned depth,
                       struct gw_error *err)
{
    const char *why = repo_component_refused(e->name);

    if (why != NULL) {
        return refuse(c, err, why);
    }
    if (c->path.n >= REPO_PATH_MAX) {
        return refuse(c, err, "a path of 4,096 bytes or more");
    }
    if (!S_ISREG(e->mode) && is_git_file(e->name)) {
        return refuse(c, err, "git reads this name by itself, so it must be a plain file");
    }
    if (S_ISDIR(e->mode)) {
        return depth < REPO_DEPTH_MAX ? GW_OK : refuse(c, err, "more than 128 folders deep");
    }
    if (!S_ISREG(e->mode) && !S_ISLNK(e->mode)) {
        return refuse(c, err, "neither a file, a folder nor a symbolic link");
    }
    if (gw_str_ieq_c(e->name, ".gitmodules")) {
        return refuse(c, err, "submodules are not supported");
    }
    return GW_OK;
}

/* ---- folders ---- */

/* .git: a repository of its own is not part of the tree. .cache/huggingface: what `hf download
 * --local-dir` notes there; the hub clients leave it out of every upload. */
static bool is_skipped(const struct import *c, struct gw_str name)
{
    struct gw_str folder = gw_buf_str(&c->path);

    return gw_str_eq_c(name, ".") || gw_str_eq_c(name, "..") || gw_str_eq_c(name, ".git") ||
           (gw_str_eq_c(name, "huggingface") &&
            (gw_str_eq_c(folder, ".cache") || gw_str_ends(folder, GW_STR("/.cache"))));
}

/* git's order: a folder sorts as if its name ended in a slash. */
static int by_git_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
    int order = memcmp(x->name.p, y->name.p, n);
    unsigned char cx, cy;

    if (order != 0) {
        return order;
    }
    cx = (unsigned char)(x->name.n > n ? x->name.p[n] : S_ISDIR(x->mode) ? '/' : '\0');
    cy = (unsigned char)(y->name.n > n ? y->name.p[n] : S_ISDIR(y->mode) ? '/' : '\0');
    return (cx > cy) - (cx < cy);
}

struct listing {
    struct entry *entries;
    size_t n, cap;
};

static int add_entry(struct import *c, struct listing *l, int dir_fd, const char *name,
                     struct gw_arena *a, struct gw_error *err)
{
    struct entry e = {0};
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? changed(c, err) : fail_io(c, err, "read folder");
    }
    if (l->n == l->cap) {
        size_t cap = l->cap != 0 ? l->cap * 2 : 64;
        struct entry *more = gw_realloc(l->entries, cap * sizeof(*more));

        if (more == NULL) {
            return no_memory(err);
        }
        l->entries = more;
        l->cap = cap;
    }
    e.name = gw_arena_dup(a, gw_str_c(name));
    e.mode = st.st_mode;
    e.size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    if (e.name.p == NULL) {
        return no_memory(err);
    }
    l->entries[l->n++] = e;
    return GW_OK;
}

static int read_folder(struct import *c, int dir_fd, struct listing *l, struct gw_arena *a,
                       struct gw_error *err)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = GW_OK;
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;

    if (d == NULL) {
        rc = fail_io(c, err, "open folder");
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    for (errno = 0; rc == GW_OK && (e = readdir(d)) != NULL; errno = 0) {
        if (!is_skipped(c, gw_str_c(e->d_name))) {
            rc = add_entry(c, l, dir_fd, e->d_name, a, err);
        }
    }
    if (rc == GW_OK && errno != 0) {
        rc = fail_io(c, err, "read folder");
    }
    closedir(d);
    if (rc == GW_OK && l->n != 0) {
        qsort(l->entries, l->n, sizeof(*l->entries), by_git_order);
    }
    return rc;
}

static struct entry *find_entry(const struct listing *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++) {
        if (gw_str_eq_c(l->entries[i].name, name)) {
            return &l->entries[i];
        }
    }
    return NULL;
}

static void push_name(struct import *c, struct gw_str name)
{
    if (c->path.n != 0) {
        gw_buf_add_char(&c->path, '/');
    }
    gw_buf_add(&c->path, name);
}

static void pop_to(struct import *c, size_t n)
{
    c->path.n = n;
    if (c->path.p != NULL) {
        c->path.p[n] = '\0';
    }
}

static int read_attributes(struct import *c, int dir_fd, const struct entry *e, struct gw_arena *a,
                           struct gw_str *text, struct gw_error *err)
{
    size_t before = c->path.n;
    int fd = -1, rc;
    char *p;

    push_name(c, e->name);
    if (e->size > REPO_BLOB_MAX) {
        return refuse(c, err, "an attributes file of more than 10 MiB");
    }
    p = gw_arena_alloc(a, (size_t)e->size + 1);
    if (p == NULL) {
        return no_memory(err);
    }
    rc = open_file(c, dir_fd, e, &fd, err);
    if (rc == GW_OK) {
        rc = read_whole(c, fd, p, e->size, err);
    }
    if (fd >= 0) {
        close(fd);
    }
    *text = (struct gw_str){p, (size_t)e->size};
    pop_to(c, before);
    return rc;
}

/* The rules of this folder on top of those above. At the root the default ones stand in for a file
 * that is not there. *text: what the rules were read from. */
static int push_rules(struct import *c, int dir_fd, const struct listing *l, struct gw_arena *a,
                      const struct repo_rules **rules, struct gw_str *text, struct gw_error *err)
{
    const struct entry *e = find_entry(l, ATTRIBUTES);
    bool root = c->path.n == 0;
    struct repo_rules *here;
    int rc;

    *text = root ? gw_str_sub(c->attributes, 0, c->own_attributes) : GW_STR("");
    if (e != NULL && S_ISREG(e->mode) && !(root && c->storing)) {
        rc = read_attributes(c, dir_fd, e, a, text, err);
        if (rc != GW_OK) {
            return rc;
        }
    } else if (!root) {
        return GW_OK;
    }
    rc = repo_rules_parse(&here, *text, root ? 0 : c->path.n + 1, *rules, a, err);
    if (rc == GW_OK) {
        *rules = here;
    }
    return rc;
}

static int put_tree(struct import *c, const struct listing *l, uint8_t oid[REPO_OID_BYTES],
                    struct gw_error *err)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, FOLDER_ARENA_MAX);
    for (size_t i = 0; i < l->n; i++) {
        const struct entry *e = &l->entries[i];
        const char *mode = S_ISDIR(e->mode)           ? "40000 "
                           : S_ISLNK(e->mode)         ? "120000 "
                           : (e->mode & S_IXUSR) != 0 ? "100755 "
                                                      : "100644 ";

        if (e->stored) {
            gw_buf_add_c(&b, mode);
            gw_buf_add(&b, e->name);
            gw_buf_add_char(&b, '\0');
            gw_buf_add(&b, (struct gw_str){(const char *)e->oid, REPO_OID_BYTES});
        }
    }
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        rc = repo_spool_put(c->spool, REPO_OBJECT_TREE, gw_buf_str(&b), oid, err);
    }
    gw_buf_release(&b);
    return rc;
}

/* The root's .gitattributes as it is committed takes the place of the one in the folder, if any. */
static int set_attributes(struct import *c, struct listing *l, struct gw_error *err)
{
    struct entry *e = find_entry(l, ATTRIBUTES);

    if (e == NULL) {
        struct entry *more = gw_realloc(l->entries, (l->n + 1) * sizeof(*more));

        if (more == NULL) {
            return no_memory(err);
        }
        l->entries = more;
        e = &more[l->n++];
        *e = (struct entry){.name = GW_STR(ATTRIBUTES), .mode = S_IFREG | 0644};
        e->stored = true;
    }
    return repo_spool_put(c->spool, REPO_OBJECT_BLOB, c->attributes, e->oid, err);
}

/* After the first walk: c->attributes = what is there, and a line for each file that it forgot. */
static int complete_attributes(struct import *c, struct gw_str text, struct gw_arena *a,
                               struct gw_error *err)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 2 * (size_t)REPO_ATTRIBUTES_MAX);
    c->own_attributes = text.n;
    gw_buf_add(&b, text);
    if (c->uncovered.n != 0 && text.n != 0 && !gw_str_ends(text, GW_STR("\n"))) {
        gw_buf_add_char(&b, '\n');
    }
    gw_buf_add(&b, gw_buf_str(&c->uncovered));
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        c->attributes = gw_arena_dup(a, gw_buf_str(&b));
        rc = c->attributes.p != NULL ? GW_OK : no_memory(err);
    }
    gw_buf_release(&b);
    return rc == GW_OK ? repo_rules_parse(&c->oversize, gw_buf_str(&c->uncovered), 0, NULL, a, err)
                       : rc;
}

static int walk(struct import *c, int dir_fd, const struct repo_rules *rules, unsigned depth,
                struct gw_arena *keep, uint8_t oid[REPO_OID_BYTES], bool *any,
                struct gw_error *err);

static int walk_below(struct import *c, int dir_fd, struct entry *e, const struct repo_rules *rules,
                      unsigned depth, struct gw_error *err)
{
    int fd = openat(dir_fd, e->name.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), rc;

    if (fd < 0) {
        return errno == ELOOP || errno == ENOTDIR || errno == ENOENT
                   ? changed(c, err)
                   : fail_io(c, err, "open folder");
    }
    rc = walk(c, fd, rules, depth + 1, NULL, e->oid, &e->stored, err);
    close(fd);
    return rc;
}

static int walk_entry(struct import *c, int dir_fd, struct entry *e, const struct repo_rules *rules,
                      unsigned depth, struct gw_error *err)
{
    size_t before = c->path.n;
    int rc;

    push_name(c, e->name);
    rc = gw_buf_ok(&c->path, err);
    if (rc == GW_OK) {
        rc = check_entry(c, e, depth, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (S_ISDIR(e->mode)) {
        rc = walk_below(c, dir_fd, e, rules, depth, err);
    } else if (!c->storing || (depth == 0 && gw_str_eq_c(e->name, ATTRIBUTES))) {
        e->stored = true; /* the root's attributes: by set_attributes */
        rc = S_ISREG(e->mode) && !c->storing ? look_at_file(c, e, rules, err) : GW_OK;
        c->files += !c->storing && S_ISLNK(e->mode);
        c->bytes_done += c->storing ? e->size : 0;
    } else {
        rc =
            S_ISREG(e->mode) ? store_file(c, dir_fd, e, rules, err) : store_link(c, dir_fd, e, err);
    }
    pop_to(c, before);
    return rc;
}

static int is_data_folder(const struct import *c, int dir_fd, struct gw_error *err)
{
    struct stat st;

    if (fstat(dir_fd, &st) != 0) {
        return fail_io(c, err, "stat");
    }
    if (st.st_dev == c->data_dev && st.st_ino == c->data_ino) {
        return gw_fail(err, GW_INVALID, 0, "the folder contains hubgate's own data folder");
    }
    return GW_OK;
}

/* One folder; keep: at the root, what the second walk needs of the first. *any: it is not empty. */
static int walk(struct import *c, int dir_fd, const struct repo_rules *rules, unsigned depth,
                struct gw_arena *keep, uint8_t oid[REPO_OID_BYTES], bool *any, struct gw_error *err)
{
    struct listing l = {0};
    struct gw_str text;
    struct gw_arena a;
    int rc = is_data_folder(c, dir_fd, err);

    gw_arena_init(&a, FOLDER_ARENA_MAX);
    *any = false;
    if (rc == GW_OK) {
        rc = read_folder(c, dir_fd, &l, &a, err);
    }
    if (rc == GW_OK) {
        rc = push_rules(c, dir_fd, &l, &a, &rules, &text, err);
    }
    for (size_t i = 0; rc == GW_OK && i < l.n; i++) {
        rc = walk_entry(c, dir_fd, &l.entries[i], rules, depth, err);
        *any = *any || l.entries[i].stored;
    }
    if (rc == GW_OK && depth == 0) {
        rc = c->storing ? set_attributes(c, &l, err) : complete_attributes(c, text, keep, err);
    }
    if (rc == GW_OK && depth == 0 && c->storing && l.n != 0) {
        qsort(l.entries, l.n, sizeof(*l.entries), by_git_order);
    }
    if (rc == GW_OK && c->storing && *any) {
        rc = put_tree(c, &l, oid, err);
    }
    gw_free(l.entries);
    gw_arena_release(&a);
    return rc;
}

/* ---- the whole ---- */

/* Only to spare writes, so whatever is wrong with it is said later, by what needs it. */
static void open_old(struct import *c, const struct repo_id *id)
{
    if (repo_open(&c->old, c->data_dir, id, NULL) == GW_OK &&
        repo_resolve(c->old, GW_STR(""), c->old_tip, NULL) != GW_OK) {
        repo_close(c->old);
        c->old = NULL;
    }
}

static int read_data_inode(struct import *c, struct gw_error *err)
{
    struct stat st;

    if (stat(c->data_dir, &st) != 0) {
        return gw_fail(err, GW_IO, errno, "stat %s: %s", c->data_dir, strerrordesc_np(errno));
    }
    c->data_dev = st.st_dev;
    c->data_ino = st.st_ino;
    return GW_OK;
}

static int default_attributes(struct import *c, struct gw_str type, struct gw_arena *a,
                              struct gw_error *err)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 64u << 10);
    repo_rules_put_default(&b, type);
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        c->attributes = gw_arena_dup(a, gw_buf_str(&b));
        c->own_attributes = c->attributes.n;
        rc = c->attributes.p != NULL ? GW_OK : no_memory(err);
    }
    gw_buf_release(&b);
    return rc;
}

static int walk_twice(struct import *c, const char *dir, struct gw_str type, struct gw_arena *a,
                      uint8_t tree[REPO_OID_BYTES], struct gw_error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;
    bool any;

    if (fd < 0) {
        rc = errno == ENOENT || errno == ENOTDIR ? GW_INVALID : GW_IO;
        return gw_fail(err, rc, errno, "open folder %s: %s", dir, strerrordesc_np(errno));
    }
    rc = default_attributes(c, type, a, err);
    if (rc == GW_OK) {
        rc = walk(c, fd, NULL, 0, a, tree, &any, err);
    }
    if (rc == GW_OK && c->files == 0) {
        rc = gw_fail(err, GW_INVALID, 0, "%s holds no file", dir);
    }
    if (rc == GW_OK) {
        c->storing = true;
        rc = walk(c, fd, NULL, 0, a, tree, &any, err);
    }
    if (rc == GW_OK && !any) {
        rc = gw_fail(err, GW_CONFLICT, 0, "%s was emptied while it was imported", dir);
    }
    close(fd);
    return rc;
}

/* As uploads do: the repository holds what it names. */
static int link_objects(void *ctx, const char *path, struct gw_error *err)
{
    const struct import *c = ctx;
    struct repo_place place = {.path = path};
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i + 64 <= c->objects.n; i += 64) {
        rc = repo_object_link(c->data_dir, &place, (struct gw_str){c->objects.p + i, 64}, err);
    }
    return rc;
}

static int imported_tree(void *ctx, struct git_repository *git, const uint8_t *base,
                         uint8_t tree[REPO_OID_BYTES], struct gw_error *err)
{
    const struct import *c = ctx;

    memcpy(tree, c->tree, REPO_OID_BYTES);
    return GW_OK;
}

static int run(struct import *c, struct repo_draft *s, const char *dir, struct gw_arena *a,
               char commit[41], struct gw_error *err)
{
    int rc = read_data_inode(c, err);

    if (rc == GW_OK) {
        rc = repo_spool_open(&c->spool, c->work->dir, err);
    }
    if (rc == GW_OK) {
        c->chunk = gw_alloc(CHUNK_BYTES);
        c->content = gw_alloc((size_t)REPO_BLOB_MAX + 1);
        rc = c->chunk != NULL && c->content != NULL ? GW_OK : no_memory(err);
    }
    if (rc == GW_OK) {
        open_old(c, s->id);
        rc = walk_twice(c, dir, s->id->type, a, c->tree, err);
        repo_close(c->old);
        c->old = NULL;
    }
    if (rc != GW_OK) {
        return rc;
    }
    s->spool = c->spool;
    s->make_tree = imported_tree;
    s->prepare = link_objects;
    s->ctx = c;
    rc = repo_publish(c->data_dir, s, false, commit, err);
    if (rc == GW_OK) {
        report(c, true);
    }
    return rc;
}

int repo_import(const char *data_dir, const struct repo_id *id, const char *dir,
                struct gw_str message, struct gw_str author, int64_t now_ms,
                const struct repo_progress *p, char commit[41], struct gw_error *err)
{
    struct repo_work work;
    struct import c = {.data_dir = data_dir, .work = &work, .progress = p};
    struct repo_draft s = {
        .id = id, .work = &work, .message = message, .author = author, .now_ms = now_ms};
    struct gw_arena a;
    int rc = repo_id_check(id, true, err);

    if (rc != GW_OK || (rc = repo_data_open(data_dir, err)) != GW_OK) {
        return rc;
    }
    gw_arena_init(&a, FOLDER_ARENA_MAX);
    gw_buf_init(&c.path, 2 * REPO_PATH_MAX);
    gw_buf_init(&c.uncovered, REPO_ATTRIBUTES_MAX);
    gw_buf_init(&c.objects, OBJECTS_MAX);
    rc = repo_work_begin(&work, data_dir, err);
    if (rc == GW_OK) {
        rc = run(&c, &s, dir, &a, commit, err);
    }
    repo_spool_close(c.spool);
    repo_work_end(&work);
    gw_free(c.content);
    gw_free(c.chunk);
    gw_buf_release(&c.objects);
    gw_buf_release(&c.uncovered);
    gw_buf_release(&c.path);
    gw_arena_release(&a);
    return rc;
}
