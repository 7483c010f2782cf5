/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/repack.c - many small packs become one, so that reading stays fast when each commit is a
 * pack.
 *
 * Which: ordered by objects, each pack that stays has at least twice those of all smaller ones
 * together (what `git repack --geometric=2` does), so an object is written again log2(n) times in
 * all. `git pack-objects --stdin-packs` writes the new pack in a temporary folder and takes all
 * objects of the old ones, whoever names them: nothing is decided here about what is in use.
 *
 * Nothing can be lost: the new pack is synced and in place, its folder too, before an old one goes,
 * and an old one goes only when every id of its index is in the new one's. A power cut, a kill or a
 * second node leaves both. One at a time, by a lock of its own, so commits go on meanwhile: they
 * only add packs. Old packs go under the lock of the repository, so whoever writes never misses
 * one; libgit2 and git look for packs again when one that they knew is gone.
 */
#include "repo/repo_internal.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACKS_MAX 1000000u
#define CHILD_MS (30 * 60 * 1000)
#define DROP_WAIT_MS 30000
#define HEAD_BYTES 8u
#define FANOUT_BYTES 1024u
#define PACK_MODE 0440

/* ---- the index of a pack (version 2: gitformat-pack) ---- */

struct ids {
    const uint8_t *p; /* of the file */
    size_t n;
    uint32_t count;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void close_ids(struct ids *x)
{
    if (x->p != NULL) {
        munmap((void *)x->p, x->n);
    }
    x->p = NULL;
}

/* false: not there, or no index of version 2 */
static bool open_ids(struct ids *x, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    void *p = MAP_FAILED;

    *x = (struct ids){0};
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        st.st_size > (off_t)(HEAD_BYTES + FANOUT_BYTES)) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (p == MAP_FAILED) {
        return false;
    }
    *x = (struct ids){.p = p, .n = (size_t)st.st_size};
    x->count = be32(x->p + HEAD_BYTES + FANOUT_BYTES - 4);
    if (memcmp(x->p, "\377tOc\0\0\0\2", HEAD_BYTES) != 0 ||
        (x->n - HEAD_BYTES - FANOUT_BYTES) / REPO_OID_BYTES < x->count) {
        close_ids(x);
        return false;
    }
    return true;
}

static const uint8_t *id_at(const struct ids *x, uint32_t i)
{
    return x->p + HEAD_BYTES + FANOUT_BYTES + (size_t)i * REPO_OID_BYTES;
}

/* Both are sorted. */
static bool has_all(const struct ids *whole, const struct ids *part)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < part->count; i++) {
        while (at < whole->count && memcmp(id_at(whole, at), id_at(part, i), REPO_OID_BYTES) < 0) {
            at++;
        }
        if (at == whole->count || memcmp(id_at(whole, at), id_at(part, i), REPO_OID_BYTES) != 0) {
            return false;
        }
    }
    return true;
}

/* ---- which packs ---- */

struct pack {
    struct gw_str stem; /* pack-<hash> */
    uint32_t objects;
};

struct repack {
    const char *path, *folder; /* of the repository, of its packs */
    struct gw_arena a;
    struct repo_work work;
    struct pack *packs;
    size_t n;
};

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory to repack");
}

static const char *file_of(struct repack *r, struct gw_str stem, const char *suffix)
{
    return gw_arena_printf(&r->a, "%s/" GW_STR_FMT "%s", r->folder, GW_STR_ARG(stem), suffix).p;
}

static bool is_there(struct repack *r, struct gw_str stem, const char *suffix)
{
    const char *path = file_of(r, stem, suffix);

    return path == NULL || access(path, F_OK) == 0;
}

static int by_objects(const void *a, const void *b)
{
    const struct pack *x = a, *y = b;

    return x->objects != y->objects ? (x->objects < y->objects ? -1 : 1)
                                    : gw_str_cmp(x->stem, y->stem);
}

/* Those that may be replaced: whole, and nobody said to keep them. */
static int list_packs(struct repack *r, struct gw_error *err)
{
    struct gw_str *names;
    size_t n = 0;
    int rc = gw_dir_list(r->folder, PACKS_MAX, &r->a, &names, &n, err);

    r->n = 0;
    if (rc == GW_NOT_FOUND) {
        return GW_OK;
    }
    if (rc != GW_OK) {
        return rc;
    }
    r->packs = gw_arena_alloc(&r->a, (n + 1) * sizeof(*r->packs));
    if (r->packs == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < n; i++) {
        struct gw_str stem = gw_str_sub(names[i], 0, names[i].n - 4);
        const char *index;
        struct ids x;

        if (!gw_str_starts(names[i], GW_STR("pack-")) || !gw_str_ends(names[i], GW_STR(".idx")) ||
            !is_there(r, stem, ".pack") || is_there(r, stem, ".keep") ||
            is_there(r, stem, ".promisor")) {
            continue;
        }
        index = file_of(r, stem, ".idx");
        if (index != NULL && open_ids(&x, index)) {
            r->packs[r->n++] = (struct pack){stem, x.count};
            close_ids(&x);
        }
    }
    qsort(r->packs, r->n, sizeof(*r->packs), by_objects);
    return GW_OK;
}

/* The first so many become one. */
static size_t choose(const struct repack *r)
{
    uint64_t smaller = 0;
    size_t n = 0;

    for (size_t i = 0; i < r->n; i++) {
        if (r->packs[i].objects < 2 * smaller) {
            n = i + 1;
        }
        smaller += r->packs[i].objects;
    }
    return n;
}

/* ---- git ---- */

static int make_file(struct repack *r, const char *name, int *fd, struct gw_error *err)
{
    const char *path = gw_arena_printf(&r->a, "%s/%s", r->work.dir, name).p;

    if (path == NULL) {
        return no_memory(err);
    }
    *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return *fd >= 0 ? GW_OK
                    : gw_fail(err, GW_IO, errno, "create %s: %s", path, strerrordesc_np(errno));
}

/* What is packed, one a line, as its standard input. */
static int write_list(struct repack *r, size_t n, int *fd, struct gw_error *err)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 256u << 20);
    for (size_t i = 0; i < n; i++) {
        gw_buf_addf(&b, GW_STR_FMT ".pack\n", GW_STR_ARG(r->packs[i].stem));
    }
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        rc = make_file(r, "list", fd, err);
    }
    if (rc == GW_OK) {
        rc = gw_pwrite_all(*fd, b.p, b.n, 0, err);
    }
    gw_buf_release(&b);
    return rc;
}

static int start(struct repack *r, int in, int out, int said, pid_t *pid)
{
    struct gw_str dir = gw_arena_printf(&r->a, "--git-dir=%s", r->path);
    struct gw_str base = gw_arena_printf(&r->a, "%s/pack", r->work.dir);
    const char *const argv[] = {
        "git",  dir.p, "pack-objects", "--stdin-packs", "--delta-base-offset", "--threads=1", "-q",
        base.p, NULL};

    return dir.p != NULL && base.p != NULL ? repo_child_start(argv, in, out, said, pid) : ENOMEM;
}

/* The hash of what was written, which git says last. "": it failed, or time is over. */
static void read_hash(int fd, char hash[41])
{
    int64_t deadline = gw_mono_ms() + CHILD_MS;
    char text[128];
    size_t n = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - gw_mono_ms();
        ssize_t got;

        if (left <= 0 || (poll(&p, 1, (int)left) < 0 && errno != EINTR)) {
            n = 0;
            break;
        }
        got = p.revents != 0 ? read(fd, text + n, sizeof(text) - n) : -1;
        if (got > 0) {
            n += (size_t)got;
        }
        if (got == 0 || n == sizeof(text)) {
            break;
        }
    }
    hash[0] = '\0';
    if (n == 41 && text[40] == '\n' && gw_is_hex_lower((struct gw_str){text, 40}, 40)) {
        memcpy(hash, text, 40);
        hash[40] = '\0';
    }
}

static int say_failed(struct repack *r, int said, struct gw_error *err)
{
    char text[200];
    ssize_t n = pread(said, text, sizeof(text), 0);
    struct gw_str rest = {text, n > 0 ? (size_t)n : 0}, line = GW_STR("");

    (void)!gw_str_split(&rest, '\n', &line);
    return gw_fail(err, GW_UNAVAILABLE, 0, "git pack-objects of %s failed: " GW_STR_FMT, r->path,
                   GW_STR_ARG(line));
}

/* In nginx its parent reaps whatever ends, so what git said and the end of its output are all that
 * counts. */
static int pack(struct repack *r, size_t n, char hash[41], struct gw_error *err)
{
    int list = -1, said = -1, ends[2] = {-1, -1}, pid_fd, code;
    pid_t pid;
    int rc = write_list(r, n, &list, err);

    if (rc == GW_OK) {
        rc = make_file(r, "said", &said, err);
    }
    if (rc == GW_OK && pipe2(ends, O_CLOEXEC) != 0) {
        rc = gw_fail(err, GW_IO, errno, "pipe: %s", strerrordesc_np(errno));
    }
    if (rc == GW_OK && (code = start(r, list, ends[1], said, &pid)) != 0) {
        rc = gw_fail(err, GW_UNAVAILABLE, code, "start git: %s", strerrordesc_np(code));
    }
    if (ends[1] >= 0) {
        close(ends[1]);
    }
    if (rc == GW_OK) {
        pid_fd = pidfd_open(pid, 0);
        read_hash(ends[0], hash);
        if (hash[0] == '\0') {
            rc = say_failed(r, said, err);
            if (pid_fd >= 0) {
                (void)pidfd_send_signal(pid_fd, SIGKILL, NULL, 0);
            }
        }
        if (pid_fd >= 0) {
            close(pid_fd);
        }
        (void)waitpid(pid, NULL, 0);
    }
    if (ends[0] >= 0) {
        close(ends[0]);
    }
    if (said >= 0) {
        close(said);
    }
    if (list >= 0) {
        close(list);
    }
    return rc;
}

/* ---- the new one in place, the old ones away ---- */

static int sync_file(const char *path, struct gw_error *err)
{
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1, rc = GW_OK;

    if (fd < 0 || fchmod(fd, PACK_MODE) != 0 || fsync(fd) != 0) {
        rc = gw_fail(err, GW_IO, errno, "sync a new pack: %s", strerrordesc_np(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

static int put_in_place(struct repack *r, const char *hash, struct gw_error *err)
{
    static const char *const suffixes[] = {"pack", "idx"};
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < 2; i++) {
        rc = sync_file(gw_arena_printf(&r->a, "%s/pack-%s.%s", r->work.dir, hash, suffixes[i]).p,
                       err);
    }
    return rc == GW_OK ? repo_pack_move(r->path, r->work.dir, hash, err) : rc;
}

static void drop(struct repack *r, struct gw_str stem)
{
    /* the index first: who finds it finds the pack */
    static const char *const suffixes[] = {".idx", ".rev", ".bitmap", ".pack"};

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        const char *path = file_of(r, stem, suffixes[i]);

        if (path != NULL) {
            unlink(path);
        }
    }
}

static int drop_old(struct repack *r, size_t n, const char *hash, size_t *dropped,
                    struct gw_error *err)
{
    struct gw_str made = gw_arena_printf(&r->a, "pack-%s", hash);
    const char *path = made.p != NULL ? file_of(r, made, ".idx") : NULL;
    struct gw_str lock = gw_arena_printf(&r->a, "%s/.gw.lock", r->path);
    struct ids whole, part;
    int fd = -1, rc;

    if (path == NULL || lock.p == NULL) {
        return no_memory(err);
    }
    rc = repo_lock(&fd, lock.p, DROP_WAIT_MS, err);
    if (rc == GW_OK && !open_ids(&whole, path)) {
        rc = gw_fail(err, GW_CORRUPT, 0, "%s: not an index that can be read", path);
    }
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        const char *old = file_of(r, r->packs[i].stem, ".idx");

        if (old == NULL || gw_str_eq(r->packs[i].stem, made) || !open_ids(&part, old)) {
            continue;
        }
        if (has_all(&whole, &part)) {
            drop(r, r->packs[i].stem);
            ++*dropped;
        }
        close_ids(&part);
    }
    if (rc == GW_OK) {
        close_ids(&whole);
        rc = gw_dir_sync(r->folder, err);
    }
    repo_unlock(fd);
    return rc;
}

static int repack(struct repack *r, const char *data_dir, size_t more_than, size_t *rolled,
                  struct gw_error *err)
{
    struct gw_str lock = gw_arena_printf(&r->a, "%s/.gw.repack.lock", r->path);
    char hash[41];
    size_t n;
    int fd = -1, rc = list_packs(r, err);

    if (rc != GW_OK || r->n <= more_than || choose(r) < 2) {
        return rc;
    }
    rc = lock.p != NULL ? repo_lock(&fd, lock.p, 0, err) : no_memory(err);
    if (rc == GW_OK) {
        rc = list_packs(r, err); /* somebody may just have done it */
    }
    n = rc == GW_OK && r->n > more_than ? choose(r) : 0;
    if (n >= 2) {
        rc = repo_work_begin(&r->work, data_dir, err);
        if (rc == GW_OK) {
            rc = pack(r, n, hash, err);
        }
        if (rc != GW_OK && access(r->path, F_OK) != 0) { /* deleted or moved meanwhile */
            rc = gw_fail(err, GW_NOT_FOUND, 0, "%s went away while it was repacked", r->path);
        }
        if (rc == GW_OK) {
            rc = put_in_place(r, hash, err);
        }
        if (rc == GW_OK) {
            rc = drop_old(r, n, hash, rolled, err);
        }
        repo_work_end(&r->work);
    }
    repo_unlock(fd);
    return rc;
}

int repo_repack(const char *data_dir, const struct repo_id *id, size_t more_than, size_t *rolled,
                struct gw_error *err)
{
    struct repack r = {.work.lock_fd = -1};
    struct repo_place place;
    int rc;

    *rolled = 0;
    gw_arena_init(&r.a, 512u << 20);
    rc = repo_locate(data_dir, id, &r.a, &place, err);
    if (rc == GW_OK) {
        r.path = place.path;
        r.folder = gw_arena_printf(&r.a, "%s/objects/pack", place.path).p;
        rc = r.folder != NULL ? repack(&r, data_dir, more_than, rolled, err) : no_memory(err);
    }
    gw_arena_release(&r.a);
    return rc;
}
