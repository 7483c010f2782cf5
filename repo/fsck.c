/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/fsck.c - whether what is stored is whole: git's own check, pointers and the objects they
 * name, links, and with `deep` every byte against its digest. Changes nothing. Commits may go on
 * meanwhile: an object is there before its pointer, and a link before both.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <git2.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK_BYTES (1u << 20)
#define LINE_BYTES 512u
#define LINES_MAX 1000u /* of one repository */
#define GIT_MS (6 * 3600 * 1000)
#define LOCK_WAIT_MS 30000
#define SHA_HEX 64u
#define PATH_BYTES 8192u /* more than any path of the system, and a name */

struct fsck {
    const char *data_dir, *path; /* path: of the repository */
    const struct repo_fsck *o;
    size_t found;
};

static void found(struct fsck *f, const char *fmt, ...) GW_PRINTF(2, 3);
static void found(struct fsck *f, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    f->found++;
    f->o->on(f->o->ctx, text);
}

/* ---- git ---- */

/* What is no damage: an empty repository's branch is not born yet. */
static void on_line(struct fsck *f, char *line)
{
    if (line[0] != '\0' && strncmp(line, "notice:", 7) != 0 && strncmp(line, "dangling ", 9) != 0) {
        found(f, "git: %s", line);
    }
}

static void read_lines(struct fsck *f, int fd)
{
    int64_t deadline = gw_mono_ms() + GIT_MS;
    char line[LINE_BYTES], c;
    size_t n = 0, lines = 0;
    ssize_t got;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (poll(&p, 1, 1000) < 0 && errno != EINTR) {
            return;
        }
        if (gw_mono_ms() > deadline) {
            found(f, "git fsck did not end within %d h", GIT_MS / 3600000);
            return;
        }
        if (p.revents == 0) {
            continue;
        }
        got = read(fd, &c, 1); /* a sound repository says nothing */
        if (got <= 0) {
            break;
        }
        if (c != '\n' && n < sizeof(line) - 1) {
            line[n++] = c;
        } else if (c == '\n') {
            line[n] = '\0';
            n = 0;
            if (lines++ < LINES_MAX) {
                on_line(f, line);
            }
        }
    }
    line[n] = '\0';
    on_line(f, line);
}

static int check_git(struct fsck *f, struct gw_error *err)
{
    char dir[PATH_BYTES];
    const char *const argv[] = {"git",           dir, "fsck", "--full", "--strict", "--no-dangling",
                                "--no-progress", NULL};
    int none = open("/dev/null", O_RDONLY | O_CLOEXEC), ends[2] = {-1, -1}, code, status = 0, rc;
    size_t before = f->found;
    pid_t pid;

    snprintf(dir, sizeof(dir), "--git-dir=%s", f->path);
    if (none < 0 || pipe2(ends, O_CLOEXEC) != 0) {
        rc = gw_fail(err, GW_IO, errno, "pipe: %s", strerrordesc_np(errno));
    } else {
        code = repo_child_start(argv, none, ends[1], ends[1], &pid);
        rc = code == 0 ? GW_OK
                       : gw_fail(err, GW_UNAVAILABLE, code, "start git: %s", strerrordesc_np(code));
        close(ends[1]);
    }
    if (rc == GW_OK) {
        read_lines(f, ends[0]);
        close(ends[0]);
        ends[0] = -1;
        if (waitpid(pid, &status, 0) == pid && status != 0 && f->found == before) {
            found(f, "git fsck failed and said nothing (status %d)", status);
        }
    }
    if (ends[0] >= 0) {
        close(ends[0]);
    }
    if (none >= 0) {
        close(none);
    }
    return rc;
}

/* ---- objects ---- */

static void check_bytes(struct fsck *f, const char *path, struct gw_str sha256)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char *chunk = gw_alloc(CHUNK_BYTES), hex[SHA_HEX + 1];
    struct gw_sha256 state;
    uint8_t sum[32];
    ssize_t n = -1;

    gw_sha256_init(&state);
    while (fd >= 0 && chunk != NULL && (n = read(fd, chunk, CHUNK_BYTES)) > 0) {
        gw_sha256_update(&state, chunk, (size_t)n);
        if (f->o->progress != NULL) {
            f->o->progress(f->o->ctx, (uint64_t)n);
        }
    }
    if (n < 0) {
        found(f, "%s cannot be read: %s", path, chunk != NULL ? strerrordesc_np(errno) : "memory");
    } else {
        gw_sha256_final(&state, sum);
        gw_hex_encode(hex, (const char *)sum, sizeof(sum));
        if (!gw_str_eq_c(sha256, hex)) {
            found(f, "object %.64s: its bytes have the sha256 %s", sha256.p, hex);
        }
    }
    gw_free(chunk);
    if (fd >= 0) {
        close(fd);
    }
}

static void check_pointer(struct fsck *f, const struct repo_pointer *p)
{
    char hex[SHA_HEX + 1], held[PATH_BYTES], whole[PATH_BYTES];
    struct stat a, b;

    gw_hex_encode(hex, (const char *)p->sha256, sizeof(p->sha256));
    snprintf(held, sizeof(held), "%s/lfs/objects/%.2s/%.2s/%s", f->path, hex, hex + 2, hex);
    snprintf(whole, sizeof(whole), "%s/lfs/%.2s/%.2s/%s", f->data_dir, hex, hex + 2, hex);
    if (lstat(whole, &b) != 0 || !S_ISREG(b.st_mode)) {
        found(f, "object %s is missing", hex);
    } else if ((uint64_t)b.st_size != p->size) {
        found(f, "object %s has %lld bytes, a pointer says %llu", hex, (long long)b.st_size,
              (unsigned long long)p->size);
    } else if (lstat(held, &a) != 0 || !S_ISREG(a.st_mode)) {
        found(f, "object %s is not linked to the repository: hubgate repo gc does it", hex);
    }
}

static int check_held(struct fsck *f, const char *folder, unsigned depth, bool whole,
                      struct gw_error *err)
{
    struct gw_str *names;
    struct gw_arena a;
    size_t n = 0;
    int rc;

    gw_arena_init(&a, 1u << 30);
    rc = gw_dir_list(folder, 4000000, &a, &names, &n, err);
    if (rc == GW_NOT_FOUND) {
        n = 0;
        rc = GW_OK;
    }
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        char path[PATH_BYTES], other[PATH_BYTES];
        struct stat st, there;

        if (names[i].p[0] == '.') {
            continue; /* locks */
        }
        snprintf(path, sizeof(path), "%s/" GW_STR_FMT, folder, GW_STR_ARG(names[i]));
        if (depth < 2) {
            rc = check_held(f, path, depth + 1, whole, err);
            continue;
        }
        if (!gw_is_hex_lower(names[i], SHA_HEX) || lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
            found(f, "%s does not belong here", path);
            continue;
        }
        if (!whole) {
            snprintf(other, sizeof(other), "%s/lfs/%.2s/%.2s/%.64s", f->data_dir, names[i].p,
                     names[i].p + 2, names[i].p);
            if (lstat(other, &there) == 0 &&
                (there.st_ino != st.st_ino || there.st_dev != st.st_dev)) {
                found(f, "object %.64s is a copy, no link: data/ was restored without hard links",
                      names[i].p);
            }
        }
        if (f->o->deep) {
            check_bytes(f, path, names[i]);
        }
    }
    gw_arena_release(&a);
    return rc;
}

static int check_pointers(struct fsck *f, struct gw_error *err)
{
    struct repo_pointers p = {0};
    git_repository *git = NULL;
    git_odb *odb = NULL;
    int rc;

    if (repo_git_open(&git, &odb, f->path) < 0) {
        rc = repo_git_fail(err, "open %s", f->path);
    } else {
        rc = repo_pointers_read(&p, odb, err);
    }
    for (size_t i = 0; rc == GW_OK && i < p.n; i++) {
        check_pointer(f, &p.list[i]);
    }
    if (rc == GW_CORRUPT) {
        found(f, "%s", err->text);
        rc = GW_OK;
    }
    repo_pointers_free(&p);
    git_odb_free(odb);
    git_repository_free(git);
    return rc;
}

int repo_fsck(const char *data_dir, const struct repo_id *id, const struct repo_fsck *o,
              size_t *findings, struct gw_error *err)
{
    struct fsck f = {.data_dir = data_dir, .o = o};
    struct repo_place place;
    struct gw_arena a;
    struct gw_str lock, held;
    int fd = -1, rc;

    gw_arena_init(&a, 1u << 20);
    rc = repo_locate(data_dir, id, &a, &place, err);
    if (rc == GW_OK) {
        f.path = place.path;
        lock = gw_arena_printf(&a, "%s/.gw.repack.lock", place.path);
        held = gw_arena_printf(&a, "%s/lfs/objects", place.path);
        rc = lock.p != NULL && held.p != NULL ? repo_lock(&fd, lock.p, LOCK_WAIT_MS, err)
                                              : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
        if (rc == GW_OK) {
            rc = check_git(&f, err);
        }
        if (rc == GW_OK) {
            rc = check_pointers(&f, err);
        }
        if (rc == GW_OK) {
            rc = check_held(&f, held.p, 0, false, err);
        }
        repo_unlock(fd);
    }
    gw_arena_release(&a);
    *findings = f.found;
    return rc;
}

int repo_fsck_objects(const char *data_dir, const struct repo_fsck *o, size_t *findings,
                      struct gw_error *err)
{
    struct fsck f = {.data_dir = data_dir, .path = data_dir, .o = o};
    char folder[PATH_BYTES];
    int rc;

    snprintf(folder, sizeof(folder), "%s/lfs", data_dir);
    rc = check_held(&f, folder, 0, true, err);
    *findings = f.found;
    return rc;
}
