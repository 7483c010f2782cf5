/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/cache.c - open and close: options, folders, whose they are, which format, which boot.
 *
 *   <dir>/VERSION  blobs/  parts/  index/  tmp/  boot  lock
 *
 * Everything here is derived, so what cannot be used is moved to <dir>/aside-<time>/, not refused;
 * only files of another user are, because they mean two services in one folder.
 */
#include "cache/budget_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"

#include <curl/curl.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_MAX (8u << 20)
#define TEMP_AGE_S 3600
#define NAMES_MAX 100000u

/* ---- options: a copy, so that the caller's snapshot may go ---- */

static int copy_str(struct gw_arena *a, struct gw_str *s)
{
    *s = gw_arena_dup(a, s->n != 0 ? *s : GW_STR(""));
    return s->p != NULL ? GW_OK : GW_NO_MEMORY;
}

static int copy_c(struct gw_arena *a, const char **s)
{
    if (*s != NULL) {
        *s = gw_arena_cstr(a, gw_str_c(*s));
        return *s != NULL ? GW_OK : GW_NO_MEMORY;
    }
    return GW_OK;
}

static int copy_list(struct gw_arena *a, const struct gw_str **list, size_t n)
{
    struct gw_str *copy;

    if (n == 0) {
        *list = NULL;
        return GW_OK;
    }
    copy = gw_arena_alloc(a, n * sizeof(*copy));
    if (copy == NULL) {
        return GW_NO_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        copy[i] = (*list)[i];
        if (copy_str(a, &copy[i]) != GW_OK) {
            return GW_NO_MEMORY;
        }
    }
    *list = copy;
    return GW_OK;
}

/* What nodes share. */
static int copy_share(struct gw_arena *a, struct cache_share_options *o)
{
    struct cache_redis_server *servers = gw_arena_alloc(a, (o->n_servers + 1) * sizeof(*servers));
    int rc = servers != NULL ? GW_OK : GW_NO_MEMORY;

    for (size_t i = 0; rc == GW_OK && i < o->n_servers; i++) {
        servers[i] = o->servers[i];
        rc = copy_str(a, &servers[i].host);
    }
    o->servers = servers;
    rc = rc != GW_OK ? rc : copy_str(a, &o->user);
    rc = rc != GW_OK ? rc : copy_str(a, &o->password);
    rc = rc != GW_OK ? rc : copy_str(a, &o->cluster_key);
    rc = rc != GW_OK ? rc : copy_str(a, &o->node_url);
    rc = rc != GW_OK ? rc : copy_c(a, &o->ca_file);
    return rc != GW_OK ? rc : copy_c(a, &o->node_ca_file);
}

static char *path_in(struct gw_arena *a, const char *dir, const char *name)
{
    struct gw_str s = gw_arena_printf(a, "%s%s%s", dir, name[0] != '\0' ? "/" : "", name);

    return (char *)(uintptr_t)s.p;
}

static int copy_options(struct cache *c, const struct cache_options *o, struct gw_error *err)
{
    struct cache_upstream_options *up = &c->options.upstream;
    struct gw_arena *a = &c->memory;
    int rc = GW_OK;

    c->options = *o;
    rc = copy_c(a, &c->options.dir);
    rc = rc != GW_OK ? rc : copy_str(a, &up->url);
    rc = rc != GW_OK ? rc : copy_str(a, &up->token);
    rc = rc != GW_OK ? rc : copy_str(a, &up->via);
    rc = rc != GW_OK ? rc : copy_str(a, &up->dns);
    rc = rc != GW_OK ? rc : copy_c(a, &up->ca_file);
    rc = rc != GW_OK ? rc : copy_c(a, &up->proxy);
    rc = rc != GW_OK ? rc : copy_list(a, &up->redirect_hosts, up->n_redirect_hosts);
    rc = rc != GW_OK ? rc : copy_list(a, &up->resolve, up->n_resolve);
    rc = rc != GW_OK ? rc : copy_share(a, &c->options.share);
    if (rc != GW_OK) {
        return gw_fail(err, rc, 0, "cache: no memory");
    }
    if (strlen(c->options.dir) > CACHE_PATH_MAX - 200) { /* every path below it fits */
        return gw_fail(err, GW_INVALID, 0, "cache.dir: a path of more than %u bytes",
                       CACHE_PATH_MAX - 200);
    }
    if (c->options.share.node_url.n > CACHE_NODE_URL_MAX) {
        return gw_fail(err, GW_INVALID, 0, "node_url: more than %u bytes", CACHE_NODE_URL_MAX);
    }
    for (size_t i = 0; i < up->token.n; i++) { /* it becomes a header line */
        if ((unsigned char)up->token.p[i] < 0x21 || (unsigned char)up->token.p[i] > 0x7e) {
            return gw_fail(err, GW_INVALID, 0, "upstream.token_file: a byte that no token has");
        }
    }
    c->dir = path_in(a, c->options.dir, "");
    c->blobs_dir = path_in(a, c->options.dir, "blobs");
    c->parts_dir = path_in(a, c->options.dir, "parts");
    c->tmp_dir = path_in(a, c->options.dir, "tmp");
    c->index_dir = path_in(a, c->options.dir, "index");
    return c->dir != NULL && c->blobs_dir != NULL && c->parts_dir != NULL && c->tmp_dir != NULL &&
                   c->index_dir != NULL
               ? GW_OK
               : gw_fail(err, GW_NO_MEMORY, 0, "cache: no memory");
}

/* ---- folders ---- */

static int check_owner(const char *path, struct gw_error *err)
{
    struct stat st;

    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? GW_OK
                               : gw_fail(err, GW_IO, errno, "%s: %s", path, strerror(errno));
    }
    if (st.st_uid != geteuid()) {
        return gw_fail(err, GW_INVALID, 0,
                       "%s belongs to user %u, this process is user %u: one user per cache.dir",
                       path, (unsigned)st.st_uid, (unsigned)geteuid());
    }
    return GW_OK;
}

static int make_folders(struct cache *c, struct gw_error *err)
{
    const char *folders[] = {c->dir, c->blobs_dir, c->parts_dir, c->tmp_dir};
    const char *files[] = {c->index_dir, NULL, NULL, NULL};
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < sizeof(folders) / sizeof(folders[0]); i++) {
        rc = check_owner(folders[i], err);
        rc = rc != GW_OK ? rc : gw_dir_make(folders[i], 0750, err);
    }
    files[1] = path_in(&c->memory, c->index_dir, "data.mdb");
    files[2] = path_in(&c->memory, c->index_dir, "lock.mdb");
    files[3] = path_in(&c->memory, c->dir, "boot");
    for (size_t i = 0; rc == GW_OK && i < sizeof(files) / sizeof(files[0]); i++) {
        rc = files[i] != NULL ? check_owner(files[i], err)
                              : gw_fail(err, GW_NO_MEMORY, 0, "cache: no memory");
    }
    return rc;
}

/* Another format, or none and yet something is there. */
static int move_aside(struct cache *c, struct gw_error *err)
{
    static const char *const names[] = {"blobs", "parts", "index", "tmp", "boot", "VERSION"};
    char to_dir[CACHE_PATH_MAX], from[CACHE_PATH_MAX], to[CACHE_PATH_MAX + 16];
    int64_t second = gw_wall_ms() / 1000;
    int rc;

    do {
        snprintf(to_dir, sizeof(to_dir), "%s/aside-%lld", c->dir, (long long)second++);
    } while (access(to_dir, F_OK) == 0);
    rc = gw_dir_make(to_dir, 0750, err);
    for (size_t i = 0; rc == GW_OK && i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(from, sizeof(from), "%s/%s", c->dir, names[i]);
        snprintf(to, sizeof(to), "%s/%s", to_dir, names[i]);
        if (rename(from, to) != 0 && errno != ENOENT) {
            rc = gw_fail(err, GW_IO, errno, "%s: %s", from, strerror(errno));
        }
    }
    if (rc == GW_OK) {
        gw_log_write(&c->log, GW_LOG_WARN,
                     "cache: %s was written by another version; set aside as %s", c->dir, to_dir);
    }
    return rc;
}

static int check_version(struct cache *c, struct gw_error *err)
{
    const char *path = path_in(&c->memory, c->dir, "VERSION");
    struct gw_str text = {NULL, 0};
    int rc;

    if (path == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "cache: no memory");
    }
    rc = gw_file_read(path, 256, &c->memory, &text, err);
    if (rc == GW_OK && gw_str_eq_c(text, CACHE_VERSION_LINE)) {
        return GW_OK;
    }
    if (rc != GW_OK && rc != GW_NOT_FOUND && rc != GW_TOO_LARGE) {
        return rc;
    }
    if (rc != GW_NOT_FOUND || access(c->blobs_dir, F_OK) == 0 || access(c->index_dir, F_OK) == 0) {
        rc = move_aside(c, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    return gw_file_replace(c->dir, "VERSION", GW_STR(CACHE_VERSION_LINE), 0640, err);
}

bool cache_disk_full(const struct gw_error *err)
{
    return err->status == GW_IO && (err->sys == ENOSPC || err->sys == EDQUOT);
}

/* When a worker first wrote here under this boot id. What is older and was never synced may be torn
 * by a power cut; a boot id and not a time, because a volume may come from another machine. */
static int check_boot(struct cache *c, struct gw_error *err)
{
    const char *path = path_in(&c->memory, c->dir, "boot");
    struct gw_str id = {NULL, 0}, text = {NULL, 0}, rest, held;
    uint64_t since;
    int rc;

    if (path == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "cache: no memory");
    }
    rc = gw_file_read("/proc/sys/kernel/random/boot_id", 256, &c->memory, &id, err);
    if (rc != GW_OK) {
        return rc;
    }
    snprintf(c->boot_id, sizeof(c->boot_id), "%.36s", id.p);
    if (gw_file_read(path, 256, &c->memory, &text, NULL) == GW_OK) {
        rest = text;
        if (gw_str_split(&rest, ' ', &held) && gw_str_eq_c(held, c->boot_id) &&
            gw_str_ends(rest, GW_STR("\n")) &&
            gw_str_u64(gw_str_sub(rest, 0, rest.n - 1), &since)) {
            c->boot_seen_ms = (int64_t)since;
            return GW_OK;
        }
    }
    c->boot_seen_ms = gw_wall_ms();
    text = gw_arena_printf(&c->memory, "%s %lld\n", c->boot_id, (long long)c->boot_seen_ms);
    if (text.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "cache: no memory");
    }
    rc = gw_file_replace(c->dir, "boot", text, 0640, err);
    if (rc != GW_OK && cache_disk_full(err)) { /* what is older than now is doubted: no harm */
        gw_log_write(&c->log, GW_LOG_WARN, "cache: %s", err->text);
        return GW_OK;
    }
    return rc;
}

/* Files that a dead process left half-written. Failing to remove them is no failure. */
static void sweep_temp(struct cache *c)
{
    char path[CACHE_PATH_MAX];
    struct gw_arena a;
    struct gw_str *names;
    struct stat st;
    size_t n;

    gw_arena_init(&a, 32u << 20);
    if (gw_dir_list(c->tmp_dir, NAMES_MAX, &a, &names, &n, NULL) == GW_OK) {
        for (size_t i = 0; i < n; i++) {
            snprintf(path, sizeof(path), "%s/" GW_STR_FMT, c->tmp_dir, GW_STR_ARG(names[i]));
            if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                gw_wall_ms() / 1000 - st.st_mtime > TEMP_AGE_S) {
                unlink(path);
            }
        }
    }
    gw_arena_release(&a);
}

int cache_folder_lock(struct cache *c, bool wait, int *fd, struct gw_error *err)
{
    char path[CACHE_PATH_MAX];
    int opened, sys;

    snprintf(path, sizeof(path), "%s/lock", c->dir);
    opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (opened < 0) {
        return gw_fail(err, GW_IO, errno, "%s: %s", path, strerror(errno));
    }
    while (flock(opened, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0) {
        if (errno != EINTR) {
            sys = errno;
            close(opened);
            return gw_fail(err, sys == EWOULDBLOCK ? GW_AGAIN : GW_IO, sys, "%s: flock: %s", path,
                           strerror(sys));
        }
    }
    *fd = opened;
    return GW_OK;
}

static int prepare(struct cache *c, struct gw_error *err)
{
    char path[CACHE_PATH_MAX];
    int fd, rc;

    rc = check_owner(c->dir, err);
    rc = rc != GW_OK ? rc : gw_dir_make(c->dir, 0750, err);
    if (rc != GW_OK) {
        return rc;
    }
    snprintf(path, sizeof(path), "%s/lock", c->dir);
    rc = check_owner(path, err);
    rc = rc != GW_OK ? rc : cache_folder_lock(c, true, &fd, err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = check_version(c, err);
    rc = rc != GW_OK ? rc : make_folders(c, err);
    rc = rc != GW_OK ? rc : check_boot(c, err);
    close(fd);
    return rc;
}

/* ---- open and close ---- */

int cache_open(struct cache **out, const struct cache_options *o, struct gw_error *err)
{
    struct cache *c = gw_alloc(sizeof(*c));
    int rc;

    assert(o->shared != NULL && o->slot < CACHE_SLOTS);
    if (c == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "cache: no memory");
    }
    gw_arena_init(&c->memory, MEMORY_MAX);
    gw_arena_keep_secret(&c->memory); /* the organisation's token is in it */
    c->shared = o->shared;
    c->slot = o->slot;
    c->generation = atomic_load(&o->shared->slots[o->slot].generation);
    c->log = o->log;
    c->loop = pthread_self();
    rc = copy_options(c, o, err);
    rc = rc != GW_OK ? rc : prepare(c, err);
    if (rc == GW_OK && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "cache: libcurl does not start");
    }
    c->curl_started = rc == GW_OK;
    rc = rc != GW_OK ? rc : cache_index_open(c, err);
    rc = rc != GW_OK ? rc : cache_budget_open(c, err);
    rc = rc != GW_OK ? rc : cache_resolver_open(c, err);
    rc = rc != GW_OK ? rc : cache_redis_open(c, err);
    rc = rc != GW_OK ? rc : cache_upstream_open(c, err);
    rc = rc != GW_OK ? rc : cache_fills_open(c, err);
    if (rc != GW_OK) {
        cache_close(c);
        return rc;
    }
    sweep_temp(c);
    *out = c;
    return GW_OK;
}

void cache_leave(struct cache *c)
{
    atomic_store(&c->leaving, true);
}

void cache_close(struct cache *c)
{
    if (c == NULL) {
        return;
    }
    cache_leave(c);
    if (c->fills != NULL) {
        cache_fills_close(c);
    }
    cache_upstream_close(c);
    cache_redis_close(c);
    cache_resolver_close(c);
    cache_budget_close(c);
    cache_index_close(c);
    if (c->curl_started) {
        curl_global_cleanup();
    }
    gw_arena_release(&c->memory);
    gw_free(c);
}
