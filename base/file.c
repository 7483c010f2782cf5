/* SPDX-License-Identifier: Apache-2.0 */
/* base/file.c - whole reads, durable writes, folders. */
#include "base/file.h"

#include "base/encode.h"
#include "base/sha.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_FIRST 4096u /* of a file that does not tell its size (pipe, /proc) */
#define REMOVE_DEPTH 32u /* descriptors held at once by gw_dir_remove */
#define TEMP_NAME_MAX 64u

static int fail_errno(struct gw_error *err, const char *verb, const char *path)
{
    int saved = errno;
    enum gw_status s = saved == ENOENT || saved == ENOTDIR ? GW_NOT_FOUND : GW_IO;

    return gw_fail(err, s, saved, "%s %s: %s", verb, path, strerrordesc_np(saved));
}

/* Where the header promises nothing but GW_IO. */
static int fail_io(struct gw_error *err, const char *verb, const char *path)
{
    int saved = errno;

    return gw_fail(err, GW_IO, saved, "%s %s: %s", verb, path, strerrordesc_np(saved));
}

/* ---- reading ---- */

static int read_rest(int fd, const char *path, size_t cap, size_t max, struct gw_arena *a,
                     struct gw_str *out, struct gw_error *err)
{
    char *p = gw_arena_alloc(a, cap + 1);
    size_t n = 0;

    for (;;) {
        ssize_t got;

        if (p == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "read %s: no memory for %zu bytes", path, cap);
        }
        got =
            read(fd, p + n, cap + 1 - n); /* the NUL's byte too: EOF is then seen without growing */
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_errno(err, "read", path);
        }
        if (got == 0) {
            break;
        }
        n += (size_t)got;
        if (n > max) {
            return gw_fail(err, GW_TOO_LARGE, 0, "%s has more than %zu bytes", path, max);
        }
        if (n > cap) {
            char *old = p;

            cap = cap < max / 2 ? cap * 2 : max;
            p = gw_arena_alloc(a, cap + 1);
            if (p != NULL) {
                memcpy(p, old, n);
            }
        }
    }
    p[n] = '\0';
    *out = (struct gw_str){p, n};
    return GW_OK;
}

static int read_fd(int fd, const char *path, const struct stat *st, size_t max, struct gw_arena *a,
                   struct gw_str *out, struct gw_error *err)
{
    size_t cap = READ_FIRST;

    if (max > SIZE_MAX / 4) {
        max = SIZE_MAX / 4;
    }
    if (S_ISREG(st->st_mode) && st->st_size > 0) {
        if ((uint64_t)st->st_size > max) {
            return gw_fail(err, GW_TOO_LARGE, 0, "%s has more than %zu bytes", path, max);
        }
        cap = (size_t)st->st_size;
    }
    return read_rest(fd, path, cap < max ? cap : max, max, a, out, err);
}

int gw_file_read(const char *path, size_t max, struct gw_arena *a, struct gw_str *out,
                 struct gw_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), rc;

    if (fd < 0) {
        return fail_errno(err, "open", path);
    }
    if (fstat(fd, &st) != 0) {
        rc = fail_errno(err, "stat", path);
    } else {
        rc = read_fd(fd, path, &st, max, a, out, err);
    }
    close(fd);
    return rc;
}

static int read_secret(int fd, const char *path, size_t max, struct gw_arena *a, struct gw_str *out,
                       struct gw_error *err)
{
    struct gw_str text;
    struct stat st;
    int rc;

    if (fstat(fd, &st) != 0) {
        return fail_errno(err, "stat", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return gw_fail(err, GW_INVALID, 0, "%s: a secret must be a regular file", path);
    }
    if ((st.st_mode & (S_IWGRP | S_IWOTH | S_IROTH)) != 0) {
        return gw_fail(err, GW_INVALID, 0,
                       "%s: mode %04o lets others at the secret; chmod 0640 or 0600", path,
                       (unsigned)(st.st_mode & 07777));
    }
    rc = read_fd(fd, path, &st, max, a, &text, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (gw_str_ends(text, GW_STR("\n"))) {
        text.n -= gw_str_ends(text, GW_STR("\r\n")) ? 2 : 1;
        ((char *)text.p)[text.n] = '\0';
    }
    if (text.n == 0) {
        return gw_fail(err, GW_INVALID, 0, "%s: the secret is empty", path);
    }
    *out = text;
    return GW_OK;
}

int gw_file_read_secret(const char *path, size_t max, struct gw_arena *a, struct gw_str *out,
                        struct gw_error *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its writer before we can refuse it */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), rc;

    if (fd < 0) {
        return fail_errno(err, "open", path);
    }
    rc = read_secret(fd, path, max, a, out, err);
    close(fd);
    return rc;
}

/* ---- writing ---- */

int gw_write_all(int fd, const void *p, size_t n, struct gw_error *err)
{
    const char *at = p;

    while (n != 0) {
        ssize_t done = write(fd, at, n);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            int saved = done < 0 ? errno : EIO;

            return gw_fail(err, GW_IO, saved, "write: %s", strerrordesc_np(saved));
        }
        at += done;
        n -= (size_t)done;
    }
    return GW_OK;
}

int gw_pwrite_all(int fd, const void *p, size_t n, uint64_t offset, struct gw_error *err)
{
    const char *at = p;

    if (offset > INT64_MAX || n > INT64_MAX - offset) {
        return gw_fail(err, GW_IO, EFBIG, "write: %s", strerrordesc_np(EFBIG));
    }
    while (n != 0) {
        ssize_t done = pwrite(fd, at, n, (off_t)offset);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            int saved = done < 0 ? errno : EIO;

            return gw_fail(err, GW_IO, saved, "write: %s", strerrordesc_np(saved));
        }
        at += done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return GW_OK;
}

int gw_pread_all(int fd, void *p, size_t n, uint64_t offset, struct gw_error *err)
{
    char *at = p;

    if (offset > INT64_MAX || n > INT64_MAX - offset) {
        return gw_fail(err, GW_CORRUPT, 0, "read: the file ends early");
    }
    while (n != 0) {
        ssize_t done = pread(fd, at, n, (off_t)offset);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            int saved = errno;

            return gw_fail(err, GW_IO, saved, "read: %s", strerrordesc_np(saved));
        }
        if (done == 0) {
            return gw_fail(err, GW_CORRUPT, 0, "read: the file ends early");
        }
        at += done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return GW_OK;
}

static int open_dir(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* A name that readers of the folder know to skip: it begins with a dot. */
static bool temp_name(char out[TEMP_NAME_MAX])
{
    unsigned char random[16];
    char hex[2 * sizeof(random) + 1];

    if (!gw_random(random, sizeof(random))) {
        return false;
    }
    gw_hex_encode(hex, random, sizeof(random));
    snprintf(out, TEMP_NAME_MAX, ".tmp-%s", hex);
    return true;
}

static int write_temp(int dir_fd, const char *temp, struct gw_str content, mode_t mode,
                      struct stat *st, struct gw_error *err)
{
    int fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), rc;

    if (fd < 0) {
        return fail_io(err, "create", temp);
    }
    rc = gw_write_all(fd, content.p, content.n, err);
    if (rc == GW_OK && fchmod(fd, mode) != 0) { /* not open's mode: the umask would cut it */
        rc = fail_io(err, "chmod", temp);
    }
    if (rc == GW_OK && (fsync(fd) != 0 || fstat(fd, st) != 0)) {
        rc = fail_io(err, "fsync", temp);
    }
    if (close(fd) != 0 && rc == GW_OK) {
        rc = fail_io(err, "close", temp);
    }
    if (rc != GW_OK) {
        unlinkat(dir_fd, temp, 0);
    }
    return rc;
}

/* Over NFS a link whose answer was lost is tried again by the kernel and then says EEXIST about
 * itself. */
static bool is_same_file(int dir_fd, const char *name, const struct stat *temp)
{
    struct stat st;

    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == temp->st_ino &&
           st.st_dev == temp->st_dev;
}

static int put_in_place(int dir_fd, const char *temp, const char *name, bool replace,
                        const struct stat *st, struct gw_error *err)
{
    int rc = GW_OK;

    if (replace) {
        if (renameat(dir_fd, temp, dir_fd, name) != 0) {
            rc = fail_io(err, "rename", name);
            unlinkat(dir_fd, temp, 0);
        }
    } else {
        if (linkat(dir_fd, temp, dir_fd, name, 0) != 0) {
            int saved = errno;

            if (saved != EEXIST) {
                rc = fail_io(err, "link", name);
            } else if (!is_same_file(dir_fd, name, st)) {
                rc = gw_fail(err, GW_CONFLICT, saved, "%s exists already", name);
            }
        }
        unlinkat(dir_fd, temp, 0);
    }
    if (rc == GW_OK && fsync(dir_fd) != 0) {
        rc = fail_io(err, "fsync the folder of", name);
    }
    return rc;
}

static int write_durably(const char *dir, const char *name, struct gw_str content, mode_t mode,
                         bool replace, struct gw_error *err)
{
    char temp[TEMP_NAME_MAX];
    struct stat st;
    int dir_fd, rc;

    if (name[0] == '\0' || strchr(name, '/') != NULL) {
        return gw_fail(err, GW_IO, EINVAL, "write %s: not a file name", name);
    }
    if (!temp_name(temp)) {
        return gw_fail(err, GW_IO, EIO, "write %s: the system gives no randomness", name);
    }
    dir_fd = open_dir(dir);
    if (dir_fd < 0) {
        return fail_io(err, "open folder", dir);
    }
    rc = write_temp(dir_fd, temp, content, mode, &st, err);
    if (rc == GW_OK) {
        rc = put_in_place(dir_fd, temp, name, replace, &st, err);
    }
    if (rc != GW_OK) {
        gw_fail_prefix(err, "folder %s", dir);
    }
    close(dir_fd);
    return rc;
}

int gw_file_replace(const char *dir, const char *name, struct gw_str content, mode_t mode,
                    struct gw_error *err)
{
    return write_durably(dir, name, content, mode, true, err);
}

int gw_file_create(const char *dir, const char *name, struct gw_str content, mode_t mode,
                   struct gw_error *err)
{
    return write_durably(dir, name, content, mode, false, err);
}

/* ---- folders ---- */

int gw_dir_sync(const char *path, struct gw_error *err)
{
    int fd = open_dir(path), rc = GW_OK;

    if (fd < 0) {
        return fail_io(err, "open folder", path);
    }
    if (fsync(fd) != 0) {
        rc = fail_io(err, "fsync folder", path);
    }
    close(fd);
    return rc;
}

/* "a/b" -> "a", "/b" -> "/", "b" -> "." */
static void parent_of(char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    while (n > 0 && path[n - 1] != '/') {
        n--;
    }
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    if (n == 0) {
        path[n++] = '.';
    }
    path[n] = '\0';
}

/* One level. @return GW_OK: made or there; GW_NOT_FOUND: its parent is missing */
static int make_one(const char *path, mode_t mode, struct gw_error *err)
{
    char parent[PATH_MAX];
    struct stat st;

    if (mkdir(path, mode) != 0) {
        if (errno == EEXIST) {
            if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
                return GW_OK;
            }
            errno = ENOTDIR;
            return fail_io(err, "mkdir", path);
        }
        return errno == ENOENT ? GW_NOT_FOUND : fail_io(err, "mkdir", path);
    }
    if (chmod(path, mode) != 0) { /* the umask is nginx's or a shell's, not ours */
        return fail_io(err, "chmod", path);
    }
    memcpy(parent, path, strlen(path) + 1);
    parent_of(parent);
    return gw_dir_sync(parent, err);
}

int gw_dir_make(const char *path, mode_t mode, struct gw_error *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path), made = 0;
    int rc;

    if (n == 0 || n >= sizeof(part)) {
        return gw_fail(err, GW_IO, n == 0 ? ENOENT : ENAMETOOLONG, "mkdir: bad path \"%.64s\"",
                       path);
    }
    rc = make_one(path, mode, err);
    if (rc != GW_NOT_FOUND) {
        return rc;
    }
    memcpy(part, path, n + 1);
    while (made < n) { /* from the top, each as if it were missing */
        while (made < n && path[made] == '/') {
            made++;
        }
        while (made < n && path[made] != '/') {
            made++;
        }
        part[made] = '\0';
        rc = make_one(part, mode, err);
        if (rc == GW_NOT_FOUND) {
            rc = fail_io(err, "mkdir", part);
        }
        if (rc != GW_OK) {
            return rc;
        }
        part[made] = path[made];
    }
    return GW_OK;
}

struct removal {
    int top_fd;
    unsigned moved; /* folders lifted to the top, for unique names */
    const char *path;
    struct gw_error *err;
};

static int remove_content(struct removal *r, int fd, unsigned depth, bool *found);

/* Deeper would hold too many descriptors; the top is scanned until it is empty. */
static int lift_to_top(struct removal *r, int parent_fd, const char *name)
{
    char lifted[TEMP_NAME_MAX];

    do {
        snprintf(lifted, sizeof(lifted), ".removing-%u", r->moved++);
        if (renameat(parent_fd, name, r->top_fd, lifted) == 0 || errno == ENOENT) {
            return GW_OK;
        }
    } while (errno == EEXIST || errno == ENOTEMPTY); /* of an earlier removal that was cut off */
    return fail_io(r->err, "remove", r->path);
}

static int remove_folder(struct removal *r, int parent_fd, const char *name, unsigned depth)
{
    bool found = true;
    int fd, rc = GW_OK;

    if (depth >= REMOVE_DEPTH) {
        return lift_to_top(r, parent_fd, name);
    }
    fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? GW_OK : fail_io(r->err, "remove", r->path);
    }
    while (rc == GW_OK && found) {
        rc = remove_content(r, fd, depth, &found);
    }
    close(fd);
    if (rc == GW_OK && unlinkat(parent_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT) {
        rc = fail_io(r->err, "remove", r->path);
    }
    return rc;
}

/* One scan; some file systems skip names while others are removed, so it is repeated until it finds
 * none. */
static int remove_content(struct removal *r, int fd, unsigned depth, bool *found)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = GW_OK;
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *e;

    *found = false;
    if (dir == NULL) {
        rc = fail_io(r->err, "remove", r->path);
        if (copy >= 0) {
            close(copy);
        }
        return rc;
    }
    while (rc == GW_OK && (errno = 0, e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        *found = true;
        if (unlinkat(fd, e->d_name, 0) == 0 || errno == ENOENT) {
            continue;
        }
        if (errno != EISDIR && errno != EPERM) {
            rc = fail_io(r->err, "remove", r->path);
        } else {
            rc = remove_folder(r, fd, e->d_name, depth + 1);
        }
    }
    if (rc == GW_OK && errno != 0) {
        rc = fail_io(r->err, "remove", r->path);
    }
    closedir(dir);
    return rc;
}

int gw_dir_remove(const char *path, struct gw_error *err)
{
    struct removal r = {.path = path, .err = err};
    bool found = true;
    int rc = GW_OK;

    r.top_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r.top_fd < 0) {
        return errno == ENOENT ? GW_OK : fail_io(err, "remove", path);
    }
    while (rc == GW_OK && found) {
        rc = remove_content(&r, r.top_fd, 0, &found);
    }
    close(r.top_fd);
    if (rc == GW_OK && rmdir(path) != 0 && errno != ENOENT) {
        rc = fail_io(err, "remove", path);
    }
    return rc;
}

struct name_node {
    struct name_node *next;
    struct gw_str name;
};

static int read_names(DIR *dir, const char *path, size_t max_names, struct gw_arena *a,
                      struct name_node **list, size_t *n, struct gw_error *err)
{
    struct dirent *e;

    *list = NULL;
    *n = 0;
    while (errno = 0, (e = readdir(dir)) != NULL) {
        struct name_node *node;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        if (*n == max_names) {
            return gw_fail(err, GW_TOO_LARGE, 0, "%s has more than %zu names", path, max_names);
        }
        node = gw_arena_alloc(a, sizeof(*node));
        if (node != NULL) {
            node->name = gw_arena_dup(a, gw_str_c(e->d_name));
        }
        if (node == NULL || node->name.p == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for its names", path);
        }
        node->next = *list;
        *list = node;
        ++*n;
    }
    return errno == 0 ? GW_OK : fail_errno(err, "read folder", path);
}

static int by_name(const void *a, const void *b)
{
    return gw_str_cmp(*(const struct gw_str *)a, *(const struct gw_str *)b);
}

int gw_dir_list(const char *path, size_t max_names, struct gw_arena *a, struct gw_str **names,
                size_t *n, struct gw_error *err)
{
    struct name_node *list;
    struct gw_str *array;
    size_t count;
    DIR *dir = opendir(path); /* close-on-exec by itself */
    int rc;

    if (dir == NULL) {
        return fail_errno(err, "open folder", path);
    }
    rc = read_names(dir, path, max_names, a, &list, &count, err);
    closedir(dir);
    if (rc != GW_OK) {
        return rc;
    }
    array = count <= SIZE_MAX / sizeof(*array) ? gw_arena_alloc(a, count * sizeof(*array)) : NULL;
    if (array == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for its names", path);
    }
    for (size_t i = 0; i < count; i++, list = list->next) {
        array[i] = list->name;
    }
    qsort(array, count, sizeof(*array), by_name);
    *names = array;
    *n = count;
    return GW_OK;
}
