/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pins.c - what stays in the cache whatever its age.
 *
 *   <data>/pins        one RESOURCE a line, # begins a comment: edited by hand or by the command
 *   <cache.dir>/pins   the files that each stands for, as last known: "@RESOURCE COMMIT", then
 *                      digests. An index that grows anew, or upstream away, does not unpin
 * anything.
 *
 * A pin of a branch follows it: once all files of its new commit are known, they take the place of
 * the old ones.
 */
#include "gateway/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

#define PINS_BYTES_MAX (1u << 20)
#define PINS_MAX 10000u
#define KNOWN_BYTES_MAX (128u << 20)
#define KNOWN_MAX 1000000u /* files of all pins together */
#define REFRESH_MS 60000
#define CLEAN_PATH_MAX 4096

static void path_of(const char *dir, char *out)
{
    snprintf(out, CLEAN_PATH_MAX, "%s/pins", dir);
}

/* The next line that says something. */
static bool next_line(struct gw_str *rest, struct gw_str *line)
{
    while (gw_str_split(rest, '\n', line)) {
        *line = gw_str_trim(*line);
        if (line->n != 0 && line->p[0] != '#')
            return true;
    }
    return false;
}

int pins_load(struct gateway *gw, struct gw_arena *a, struct gw_str **resources, size_t *n,
              struct gw_error *err)
{
    char path[CLEAN_PATH_MAX];
    struct gw_str text, line;
    int rc;

    *n = 0;
    path_of(gw->config->data, path);
    *resources = gw_arena_alloc(a, PINS_MAX * sizeof(**resources));
    if (*resources == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    rc = gw_file_read(path, PINS_BYTES_MAX, a, &text, err);
    if (rc != GW_OK)
        return rc == GW_NOT_FOUND ? GW_OK : rc;
    while (next_line(&text, &line)) {
        if (*n == PINS_MAX)
            return gw_fail(err, GW_TOO_LARGE, 0, "%s: more than %u pins", path, PINS_MAX);
        (*resources)[(*n)++] = line;
    }
    return GW_OK;
}

/* The file with one line more or less; comments stay. */
static int edit(struct gw_buf *out, struct gw_str text, struct gw_str resource, bool add,
                struct gw_error *err)
{
    struct gw_str rest = text, line;
    bool there = false;

    while (rest.n != 0 && gw_str_split(&rest, '\n', &line)) {
        bool same = gw_str_eq(gw_str_trim(line), resource);

        there = there || same;
        if (same && !add)
            continue;
        gw_buf_add(out, line);
        gw_buf_add_char(out, '\n');
    }
    if (there == add)
        return gw_fail(err, GW_CONFLICT, 0, GW_STR_FMT " is %s", GW_STR_ARG(resource),
                       add ? "pinned already" : "not pinned");
    if (add) {
        gw_buf_add(out, resource);
        gw_buf_add_char(out, '\n');
    }
    return out->n > PINS_BYTES_MAX ? gw_fail(err, GW_TOO_LARGE, 0, "too many pins")
                                   : gw_buf_ok(out, err);
}

int pins_change(struct gateway *gw, struct gw_str resource, bool add, struct gw_error *err)
{
    const char *data = gw->config->data;
    char path[CLEAN_PATH_MAX];
    struct gw_str text = GW_STR("");
    struct gw_arena a;
    struct gw_buf out;
    int dir, rc;

    path_of(data, path);
    gw_arena_init(&a, 4u << 20);
    gw_buf_init(&out, 2 * PINS_BYTES_MAX);
    dir = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* one change at a time, on all nodes */
    if (dir < 0 || flock(dir, LOCK_EX) != 0) {
        rc = gw_fail(err, GW_IO, errno, "%s: %s", data, strerror(errno));
    } else {
        rc = gw_file_read(path, PINS_BYTES_MAX, &a, &text, err);
        rc = rc == GW_NOT_FOUND ? GW_OK : rc;
        if (rc == GW_OK)
            rc = edit(&out, text, resource, add, err);
        if (rc == GW_OK)
            rc = gw_file_replace(data, "pins", gw_buf_str(&out), 0640, err);
    }
    if (dir >= 0)
        close(dir);
    gw_buf_release(&out);
    gw_arena_release(&a);
    return rc;
}

/* ---- what they stand for ---- */

struct known {
    struct gw_str resource, commit;
    size_t first, n; /* of the digests that were read */
};
struct refresh {
    struct gateway *gw;
    struct gw_arena a;
    struct known *known; /* as last written */
    size_t n_known;
    struct gw_str *old;  /* their digests */
    struct gw_str *pins; /* digests of all pins, as they are now */
    size_t n_pins;
    struct gw_buf text; /* the new file */
    bool changed;
    struct gw_str path; /* of the pin being resolved */
};

/* Anything odd in the file is skipped: it is derived. */
static int read_known(struct refresh *r, struct gw_error *err)
{
    struct gw_str text, line;
    char path[CLEAN_PATH_MAX];
    size_t n = 0;

    path_of(r->gw->config->cache.dir, path);
    r->known = gw_arena_alloc(&r->a, PINS_MAX * sizeof(*r->known));
    r->pins = gw_arena_alloc(&r->a, KNOWN_MAX * sizeof(*r->pins));
    if (r->known == NULL || r->pins == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    if (gw_file_read(path, KNOWN_BYTES_MAX, &r->a, &text, err) != GW_OK)
        return GW_OK;
    r->old = gw_arena_alloc(&r->a, (text.n / 41 + 1) * sizeof(*r->old));
    if (r->old == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    while (gw_str_split(&text, '\n', &line)) {
        struct gw_str resource;

        if (gw_str_starts(line, GW_STR("@")) && r->n_known < PINS_MAX) {
            line = gw_str_sub(line, 1, line.n);
            if (!gw_str_split(&line, ' ', &resource))
                continue;
            r->known[r->n_known++] =
                (struct known){.resource = resource, .commit = line, .first = n};
        } else if (r->n_known > 0 && (line.n == 40 || line.n == 64)) {
            r->old[n++] = line;
            r->known[r->n_known - 1].n++;
        }
    }
    return GW_OK;
}

static int keep(struct refresh *r, struct gw_str digest)
{
    if (r->n_pins == KNOWN_MAX)
        return GW_TOO_LARGE;
    r->pins[r->n_pins++] = digest;
    gw_buf_add(&r->text, digest);
    gw_buf_add_char(&r->text, '\n');
    return GW_OK;
}

static int on_file(void *ctx, const struct hub_entry *e)
{
    struct refresh *r = ctx;
    struct gw_str digest;

    if (!held_path(r->path, e->path))
        return GW_OK;
    digest = gw_arena_dup(&r->a, gw_str_c(e->lfs ? e->sha256 : e->oid));
    return digest.p ? keep(r, digest) : GW_NO_MEMORY;
}

static int resolve(struct refresh *r, struct gw_str resource, struct gw_error *err)
{
    const struct known *was = NULL;
    struct policy_object o;
    struct held_commit c;
    size_t pins = r->n_pins, text = r->text.n;
    bool known;
    int rc;

    for (size_t i = 0; i < r->n_known && was == NULL; i++)
        if (gw_str_eq(r->known[i].resource, resource))
            was = &r->known[i];
    rc = held_resource(r->gw, resource, &r->a, &o, err);
    if (rc != GW_OK)
        return gw_fail_prefix(err, GW_STR_FMT, GW_STR_ARG(resource));
    known = held_commit(r->gw, &o, &r->a, &c) == GW_OK;
    if (known && (was == NULL || !gw_str_eq(c.commit, was->commit))) {
        gw_buf_addf(&r->text, "@" GW_STR_FMT " " GW_STR_FMT "\n", GW_STR_ARG(resource),
                    GW_STR_ARG(c.commit));
        r->path = o.path;
        rc = held_files(r->gw, &c, false, on_file, r, err);
        if (rc == GW_OK) {
            r->changed = true;
            return GW_OK;
        }
        r->n_pins = pins; /* not all of it is known yet */
        r->text.n = text;
        if (rc != GW_NOT_FOUND)
            return rc;
    }
    if (was == NULL)
        return GW_OK;
    gw_buf_addf(&r->text, "@" GW_STR_FMT " " GW_STR_FMT "\n", GW_STR_ARG(resource),
                GW_STR_ARG(was->commit));
    rc = GW_OK;
    for (size_t i = 0; rc == GW_OK && i < was->n; i++)
        rc = keep(r, r->old[was->first + i]);
    return rc;
}

static int refresh_all(struct gateway *gw, struct gw_error *err)
{
    struct refresh *r = gw_alloc(sizeof(*r));
    struct gw_str *resources;
    struct gw_error why;
    size_t n;
    int rc;

    if (r == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    r->gw = gw;
    gw_arena_init(&r->a, 512u << 20);
    gw_buf_init(&r->text, KNOWN_BYTES_MAX);
    rc = read_known(r, err);
    rc = rc != GW_OK ? rc : pins_load(gw, &r->a, &resources, &n, err);
    for (size_t i = 0; rc == GW_OK && i < n; i++)
        if (resolve(r, resources[i], &why) != GW_OK) /* one bad line does not unpin the others */
            gw_log_write(&gw->log, GW_LOG_WARN, "pins: %s", why.text);
    if (rc == GW_OK)
        rc = gw_buf_ok(&r->text, err);
    if (rc == GW_OK)
        rc = cache_pins_set(gw->cache, r->pins, r->n_pins, err);
    if (rc == GW_OK && (r->changed || n < r->n_known))
        rc = gw_file_replace(gw->config->cache.dir, "pins", gw_buf_str(&r->text), 0640, err);
    gw->pins.any = rc != GW_OK || n > 0;
    gw_buf_release(&r->text);
    gw_arena_release(&r->a);
    gw_free(r);
    return rc;
}

int pins_refresh(struct gateway *gw, struct gw_error *err)
{
    char path[CLEAN_PATH_MAX];
    struct stat st = {0};
    int64_t now = gw_mono_ms(), changed;

    path_of(gw->config->data, path);
    if (stat(path, &st) != 0 && errno != ENOENT)
        return gw_fail(err, GW_IO, errno, "%s: %s", path, strerror(errno));
    changed = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    if (changed == gw->pins.changed_ns && st.st_ino == gw->pins.inode &&
        (!gw->pins.any || now - gw->pins.read_ms < REFRESH_MS))
        return GW_OK;
    gw->pins.read_ms = now;
    gw->pins.changed_ns = changed;
    gw->pins.inode = st.st_ino;
    return refresh_all(gw, err);
}
