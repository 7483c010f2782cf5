/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/serve.c - one request of a client that speaks git, answered by the distribution's git.
 *
 *   body --(inflated, bounded)--> data/tmp/repo-<random>/body, which is git's stdin
 *   us --spawn--> `hubgate git-child` (serve_child.c) --spawn--> git upload-pack | receive-pack
 *
 * The program in between gives git its limits and its process group, and ends all of it when the
 * "life" pipe closes: the client left, the deadline passed, or we died. It always exits with 0: an
 * nginx worker reaps whatever child there is, and would call one that died of a signal an alert.
 * So success is read from what git says, and from the refs.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <git2.h>
#include <zlib.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_MAX (1u << 20) /* of a push: the refs that it names */
#define INFLATE_PIECE (256u << 10)
#define POLL_MS 100
#define PIPE_BYTES (1 << 20)
#define ENV_MAX 64u

struct repo_serve {
    struct repo_serve_options o;
    struct repo_work work; /* its arena holds all strings */
    struct repo_place place;
    const char *hooks;      /* the folder */
    int body, output, life; /* -1: not open */
    uint64_t bytes;         /* of the body, inflated */
    struct gw_buf head;     /* of a push */
    z_stream z;
    bool inflating, inflated;
    char *piece;
};

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a git request");
}

/* ---- the body ---- */

static int open_body(struct repo_serve *s, struct gw_error *err)
{
    const char *path = gw_arena_printf(&s->work.a, "%s/body", s->work.dir).p;

    if (path == NULL) {
        return no_memory(err);
    }
    s->body = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->body < 0) {
        return gw_fail(err, GW_IO, errno, "create %s: %s", path, strerrordesc_np(errno));
    }
    unlink(path); /* git has it as its stdin: no name is needed */
    if (s->o.gzip) {
        s->piece = gw_alloc(INFLATE_PIECE);
        if (s->piece == NULL || inflateInit2(&s->z, 16 + MAX_WBITS) != Z_OK) {
            return no_memory(err);
        }
        s->inflating = true;
    }
    return GW_OK;
}

static int name_hooks(struct repo_serve *s, struct gw_error *err)
{
    uint8_t sum[32];
    char hex[65];

    gw_sha256_once(s->o.command, strlen(s->o.command), sum);
    gw_hex_encode(hex, sum, sizeof(sum));
    s->hooks = gw_arena_printf(&s->work.a, "%s/hooks/%.16s", s->o.data_dir, hex).p;
    return s->hooks != NULL ? GW_OK : no_memory(err);
}

int repo_serve_open(struct repo_serve **out, const struct repo_serve_options *o,
                    struct gw_error *err)
{
    struct repo_serve *s = gw_alloc(sizeof(*s));
    int rc;

    if (s == NULL) {
        return no_memory(err);
    }
    s->o = *o;
    s->body = s->output = s->life = -1;
    gw_buf_init(&s->head, HEAD_MAX);
    rc = repo_work_begin(&s->work, o->data_dir, err);
    if (rc == GW_OK) {
        rc = repo_locate(o->data_dir, &o->id, &s->work.a, &s->place, err);
    }
    if (rc == GW_OK) {
        rc = name_hooks(s, err);
    }
    if (rc == GW_OK) {
        rc = open_body(s, err);
    }
    if (rc != GW_OK) {
        repo_serve_close(s);
        return rc;
    }
    *out = s;
    return GW_OK;
}

static int keep(struct repo_serve *s, const char *p, size_t n, struct gw_error *err)
{
    size_t room = HEAD_MAX - s->head.n;

    if (n > s->o.max_bytes - s->bytes) {
        return gw_fail(err, GW_TOO_LARGE, 0, "more than %llu bytes in one git request",
                       (unsigned long long)s->o.max_bytes);
    }
    s->bytes += n;
    if (s->o.service == REPO_RECEIVE_PACK && room > 0) {
        gw_buf_add(&s->head, (struct gw_str){p, n < room ? n : room});
        if (s->head.failed) {
            return no_memory(err);
        }
    }
    return gw_write_all(s->body, p, n, err);
}

int repo_serve_write(struct repo_serve *s, struct gw_str bytes, struct gw_error *err)
{
    int code = Z_OK, rc = GW_OK;

    if (!s->inflating) {
        return keep(s, bytes.p, bytes.n, err);
    }
    s->z.next_in = (Bytef *)(uintptr_t)bytes.p;
    s->z.avail_in = (uInt)bytes.n; /* 1 MiB at most comes at once */
    while (rc == GW_OK && !s->inflated) {
        s->z.next_out = (Bytef *)s->piece;
        s->z.avail_out = INFLATE_PIECE;
        code = inflate(&s->z, Z_NO_FLUSH);
        if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) {
            return gw_fail(err, GW_INVALID, 0, "the body is not gzip, as its header says");
        }
        s->inflated = code == Z_STREAM_END;
        rc = keep(s, s->piece, INFLATE_PIECE - s->z.avail_out, err);
        if (s->z.avail_out != 0) { /* all that came is inflated */
            break;
        }
    }
    if (rc == GW_OK && s->inflated && s->z.avail_in != 0) {
        return gw_fail(err, GW_INVALID, 0, "something follows the end of the gzip body");
    }
    return rc;
}

int repo_serve_refs(struct repo_serve *s, struct gw_arena *a, struct repo_push_ref **refs,
                    size_t *n, struct gw_error *err)
{
    return repo_push_parse(gw_buf_str(&s->head), a, refs, n, err);
}

/* ---- the child ---- */

/* One variable, "NAME=value". */
static bool put_env(struct repo_serve *s, const char *env[ENV_MAX], size_t *n, struct gw_str text)
{
    (void)s;
    if (text.p == NULL || *n + 1 >= ENV_MAX) {
        return false;
    }
    env[(*n)++] = text.p;
    env[*n] = NULL;
    return true;
}

/* What git is told in place of every configuration outside the repository. */
static bool put_config(struct repo_serve *s, const char *env[ENV_MAX], size_t *n, const char *hooks)
{
    const char *const pairs[][2] = {
        {"safe.directory", "*"},
        {"core.hooksPath", hooks},
        {"core.fsync", "all"},
        {"core.bigFileThreshold", "512k"}, /* no search for deltas in binaries */
        {"core.packedGitWindowSize", "64m"},
        {"core.packedGitLimit", "1g"},
        {"pack.threads", "1"},
        {"pack.windowMemory", "64m"},
        {"gc.auto", "0"},
        {"receive.autogc", "false"},
        {"receive.fsckObjects", "true"},
        {"receive.unpackLimit", "1"}, /* a push is one pack, as a commit is */
        {"receive.denyNonFastForwards", "true"},
        {"receive.denyDeleteCurrent", "refuse"},
        {"receive.advertisePushOptions", "false"},
        {"uploadpack.allowFilter", "true"},
    };
    const size_t count = sizeof(pairs) / sizeof(pairs[0]);
    struct gw_arena *a = &s->work.a;
    bool ok = put_env(s, env, n, gw_arena_printf(a, "GIT_CONFIG_COUNT=%zu", count));

    for (size_t i = 0; ok && i < count; i++) {
        ok = put_env(s, env, n, gw_arena_printf(a, "GIT_CONFIG_KEY_%zu=%s", i, pairs[i][0])) &&
             put_env(s, env, n, gw_arena_printf(a, "GIT_CONFIG_VALUE_%zu=%s", i, pairs[i][1]));
    }
    return ok;
}

static int make_env(struct repo_serve *s, const char *env[ENV_MAX], struct gw_str refused,
                    struct gw_error *err)
{
    struct gw_arena *a = &s->work.a;
    size_t n = 0;
    bool ok =
        put_env(s, env, &n, GW_STR("PATH=/usr/bin:/bin")) &&
        put_env(s, env, &n, GW_STR("LANG=C")) && put_env(s, env, &n, GW_STR("HOME=/nonexistent")) &&
        put_env(s, env, &n, GW_STR("GIT_CONFIG_NOSYSTEM=1")) &&
        put_env(s, env, &n, GW_STR("GIT_CONFIG_GLOBAL=/dev/null")) &&
        put_env(s, env, &n, GW_STR("GIT_NO_REPLACE_OBJECTS=1")) &&
        put_env(s, env, &n, GW_STR("GIT_TERMINAL_PROMPT=0")) && put_config(s, env, &n, s->hooks);

    if (ok && s->o.protocol.n != 0) {
        ok = put_env(s, env, &n,
                     gw_arena_printf(a, "GIT_PROTOCOL=" GW_STR_FMT, GW_STR_ARG(s->o.protocol)));
    }
    if (ok && s->o.service == REPO_RECEIVE_PACK) {
        ok = put_env(s, env, &n, gw_arena_printf(a, "HUBGATE_REPOSITORY=%s", s->place.path)) &&
             put_env(s, env, &n, gw_arena_printf(a, "HUBGATE_HOOK=%s/pre-receive", s->hooks)) &&
             put_env(s, env, &n,
                     gw_arena_printf(a, "HUBGATE_REFUSED=" GW_STR_FMT, GW_STR_ARG(refused)));
    }
    return ok ? GW_OK : no_memory(err);
}

/* data/hooks/<digest of the command>/pre-receive leads to the command: no file that a push could
 * reach, and one that nobody removes, for git takes a push that it finds no hook for. */
static int make_hooks(struct repo_serve *s, struct gw_error *err)
{
    struct gw_arena *a = &s->work.a;
    struct gw_str hook = gw_arena_printf(a, "%s/pre-receive", s->hooks);
    struct gw_str new = gw_arena_printf(a, "%s/hook", s->work.dir);
    char to[4096];
    ssize_t n;
    int rc;

    if (hook.p == NULL || new.p == NULL) {
        return no_memory(err);
    }
    n = readlink(hook.p, to, sizeof(to));
    if (n >= 0 && gw_str_eq_c((struct gw_str){to, (size_t)n}, s->o.command)) {
        return GW_OK;
    }
    rc = gw_dir_make(s->hooks, 0750, err);
    if (rc == GW_OK && (symlink(s->o.command, new.p) != 0 || rename(new.p, hook.p) != 0)) {
        rc = gw_fail(err, GW_IO, errno, "make %s: %s", hook.p, strerrordesc_np(errno));
    }
    return rc;
}

/* Above all numbers that the child gets, so that no dup2 closes what a later one needs. */
static int lift(int fd)
{
    int up = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 16) : -1;

    if (fd >= 0) {
        close(fd);
    }
    return up;
}

enum { CHILD_BODY, CHILD_OUTPUT, CHILD_ERRORS, CHILD_LIFE, CHILD_LOCK, CHILD_FDS };

static int spawn(struct repo_serve *s, const int fds[CHILD_FDS], char *const argv[],
                 const char *const env[], struct gw_error *err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    pid_t pid;
    int code;

    sigemptyset(&none);
    sigfillset(&all);
    if (posix_spawn_file_actions_init(&files) != 0) {
        return no_memory(err);
    }
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return no_memory(err);
    }
    /* threads of nginx's pool block all signals, and nginx ignores some */
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    code = 0;
    for (int i = 0; code == 0 && i < CHILD_FDS; i++) {
        code = posix_spawn_file_actions_adddup2(&files, fds[i], i);
    }
    if (code == 0) {
        code = posix_spawn_file_actions_addclosefrom_np(&files, CHILD_FDS);
    }
    if (code == 0) {
        code = posix_spawn(&pid, s->o.command, &files, &attributes, argv,
                           (char *const *)(uintptr_t)env);
    }
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return code == 0 ? GW_OK
                     : gw_fail(err, GW_UNAVAILABLE, code, "start %s: %s", s->o.command,
                               strerrordesc_np(code));
}

static int open_null(void)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int open_lock(const struct repo_serve *s)
{
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/.gw.lock", s->place.path);

    return n > 0 && (size_t)n < sizeof(path) ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640) : -1;
}

int repo_serve_start(struct repo_serve *s, bool advertise, struct gw_str refused,
                     struct gw_error *err)
{
    bool push = s->o.service == REPO_RECEIVE_PACK;
    int out[2] = {-1, -1}, life[2] = {-1, -1}, fds[CHILD_FDS], rc;
    const char *env[ENV_MAX];
    char limit[24];
    char *argv[] = {(char[]){"hubgate"},
                    (char[]){"git-child"},
                    push ? (char[]){"receive-pack"} : (char[]){"upload-pack"},
                    advertise ? (char[]){"refs"} : (char[]){"serve"},
                    limit,
                    (char *)(uintptr_t)s->place.path,
                    NULL};

    if (s->inflating && !s->inflated && s->bytes + s->z.total_in != 0) {
        return gw_fail(err, GW_INVALID, 0, "the gzip body ends early");
    }
    snprintf(limit, sizeof(limit), "%llu", (unsigned long long)s->o.max_bytes);
    rc = make_env(s, env, refused, err);
    if (rc == GW_OK && push && !advertise) {
        rc = make_hooks(s, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (lseek(s->body, 0, SEEK_SET) != 0 || pipe2(out, O_CLOEXEC) != 0 ||
        pipe2(life, O_CLOEXEC) != 0) {
        rc = gw_fail(err, GW_IO, errno, "a pipe to git: %s", strerrordesc_np(errno));
    }
    (void)fcntl(out[0], F_SETPIPE_SZ, PIPE_BYTES);
    fds[CHILD_BODY] = lift(dup(s->body));
    fds[CHILD_OUTPUT] = lift(out[1]);
    fds[CHILD_ERRORS] = lift(open_null());
    fds[CHILD_LIFE] = lift(life[0]);
    fds[CHILD_LOCK] = lift(push ? open_lock(s) : open_null());
    s->output = out[0];
    s->life = life[1];
    for (int i = 0; rc == GW_OK && i < CHILD_FDS; i++) {
        if (fds[i] < 0) {
            rc = gw_fail(err, GW_IO, errno, "a descriptor for git: %s", strerrordesc_np(errno));
        }
    }
    if (rc == GW_OK && fcntl(s->output, F_SETFL, O_NONBLOCK) != 0) {
        rc = gw_fail(err, GW_IO, errno, "a pipe to git: %s", strerrordesc_np(errno));
    }
    if (rc == GW_OK) {
        rc = spawn(s, fds, argv, env, err);
    }
    for (int i = 0; i < CHILD_FDS; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    return rc;
}

int repo_serve_output(struct repo_serve *s)
{
    int fd = s->output;

    s->output = -1;
    return fd;
}

static void stop(struct repo_serve *s)
{
    if (s->output >= 0) {
        close(s->output);
    }
    if (s->life >= 0) {
        close(s->life);
    }
    s->output = s->life = -1;
}

/* GW_OK: some, or the end (*end). */
static int read_some(struct repo_serve *s, struct gw_buf *out, bool *end, struct gw_error *err)
{
    char piece[64u << 10];
    ssize_t n = read(s->output, piece, sizeof(piece));

    if (n < 0) {
        return errno == EAGAIN || errno == EINTR
                   ? GW_OK
                   : gw_fail(err, GW_IO, errno, "read from git: %s", strerrordesc_np(errno));
    }
    *end = n == 0;
    gw_buf_add(out, (struct gw_str){piece, (size_t)n});
    return gw_buf_ok(out, err);
}

int repo_serve_read(struct repo_serve *s, struct gw_buf *out, int64_t deadline_ms,
                    const _Atomic bool *cancelled, struct gw_error *err)
{
    struct pollfd p = {.fd = s->output, .events = POLLIN};
    bool end = false;
    int rc = GW_OK;

    while (rc == GW_OK && !end) {
        if (cancelled != NULL && atomic_load(cancelled)) {
            rc = gw_fail(err, GW_CANCELLED, 0, "the process ends");
        } else if (gw_mono_ms() >= deadline_ms) {
            rc = gw_fail(err, GW_TIMEOUT, 0, "git did not end in time");
        } else if (poll(&p, 1, POLL_MS) > 0) {
            rc = read_some(s, out, &end, err);
        }
    }
    stop(s);
    (void)!ftruncate(s->body, 0); /* what a large push took is given back here, not on a loop */
    return rc;
}

void repo_serve_close(struct repo_serve *s)
{
    if (s == NULL) {
        return;
    }
    stop(s);
    if (s->body >= 0) {
        close(s->body);
    }
    if (s->inflating) {
        inflateEnd(&s->z);
    }
    gw_free(s->piece);
    gw_buf_release(&s->head);
    repo_work_end(&s->work);
    gw_free(s);
}

/* ---- after a push ---- */

/* The folders from path up to (not with) the repository's own. */
static int sync_up(const char *root, const char *path, struct gw_error *err)
{
    char text[4096];
    size_t n = strlen(path), least = strlen(root);

    if (n >= sizeof(text)) {
        return gw_fail(err, GW_IO, ENAMETOOLONG, "%s: the name is too long", path);
    }
    memcpy(text, path, n + 1);
    for (;;) {
        char *slash = strrchr(text, '/');
        struct stat st;
        int rc;

        if (slash == NULL || (size_t)(slash - text) <= least) {
            return GW_OK;
        }
        *slash = '\0';
        if (stat(text, &st) != 0) { /* of a ref that was deleted, with its folder */
            continue;
        }
        rc = gw_dir_sync(text, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
}

static int settle_ref(struct repo_serve *s, git_repository *git, struct repo_push_ref *r,
                      struct gw_error *err)
{
    char now[41] = "", path[4096];
    git_oid oid;
    int code = git_reference_name_to_id(&oid, git, r->name.p);

    if (code == 0) {
        git_oid_tostr(now, sizeof(now), &oid);
    }
    r->done = r->removes ? code == GIT_ENOTFOUND : code == 0 && strcmp(now, r->to) == 0;
    if (!r->done) {
        return GW_OK;
    }
    if (!r->removes) {
        git_object *object = NULL, *commit = NULL;

        if (git_object_lookup(&object, git, &oid, GIT_OBJECT_ANY) == 0 &&
            git_object_peel(&commit, object, GIT_OBJECT_COMMIT) == 0) {
            git_oid_tostr(r->commit, sizeof(r->commit), git_object_id(commit));
        }
        git_object_free(commit);
        git_object_free(object);
    }
    code = snprintf(path, sizeof(path), "%s/%s", s->place.path, r->name.p);
    return code > 0 && (size_t)code < sizeof(path) ? sync_up(s->place.path, path, err)
                                                   : no_memory(err);
}

int repo_serve_settle(struct repo_serve *s, struct repo_push_ref *refs, size_t n,
                      struct gw_error *err)
{
    struct gw_str packs = gw_arena_printf(&s->work.a, "%s/objects/pack/x", s->place.path);
    git_repository *git = NULL;
    git_odb *odb = NULL;
    int rc;

    if (packs.p == NULL) {
        return no_memory(err);
    }
    /* git syncs files, not the folders that name them */
    rc = sync_up(s->place.path, packs.p, err);
    if (rc == GW_OK) {
        rc = gw_dir_sync(s->place.path, err);
    }
    if (rc == GW_OK && repo_git_open(&git, &odb, s->place.path) < 0) {
        return repo_git_fail(err, "open %s", s->place.path);
    }
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        rc = settle_ref(s, git, &refs[i], err);
    }
    git_odb_free(odb);
    git_repository_free(git);
    return rc;
}
