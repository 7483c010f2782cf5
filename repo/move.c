/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/move.c - a repository gets another name, and its old name leads there.
 *
 *   data/repos/<type>/<ns>/<name in lower case>.moved     "hubgate moved 1\n<ns>/<name>\n"
 *
 * The record is durable before the folder is renamed, and counts only where no repository is: so
 * whatever dies in between leaves the repository under one of its two names, whole. Who takes the
 * old name later ends the record.
 */
#include "repo/repo_internal.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define WAIT_MS 30000
#define SUFFIX ".moved"
#define HEAD "hubgate moved "
#define VERSION HEAD "1\n"
#define RECORD_MAX 1024u
#define HOPS_MAX 16u /* of renamed and renamed again */

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory to move a repository");
}

/* The name of the record of a repository's name; NULL: no memory */
static const char *record_of(struct gw_str name, struct gw_arena *a)
{
    struct gw_str file = gw_arena_printf(a, GW_STR_FMT SUFFIX, GW_STR_ARG(name));
    char *p = (char *)file.p;

    for (size_t i = 0; p != NULL && i < name.n; i++) {
        p[i] = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] + 32) : p[i];
    }
    return p;
}

void repo_moved_forget(const struct repo_place *place)
{
    struct gw_arena a;
    const char *file, *path;

    gw_arena_init(&a, 64u << 10);
    file = record_of(place->name, &a);
    path = file != NULL ? gw_arena_printf(&a, "%s/%s", place->dir, file).p : NULL;
    if (path != NULL && unlink(path) == 0) {
        (void)!gw_dir_sync(place->dir, NULL);
    }
    gw_arena_release(&a);
}

static int put_record(const struct repo_place *from, const struct repo_place *to,
                      struct gw_arena *a, struct gw_error *err)
{
    const char *file = record_of(from->name, a);
    struct gw_str text = gw_arena_printf(a, VERSION GW_STR_FMT "/" GW_STR_FMT "\n",
                                         GW_STR_ARG(to->ns), GW_STR_ARG(to->name));

    if (file == NULL || text.p == NULL) {
        return no_memory(err);
    }
    return gw_file_replace(from->dir, file, text, 0640, err);
}

/* ---- reading ---- */

static int read_record(const struct repo_place *place, struct gw_arena *a, struct repo_id *id,
                       struct gw_error *err)
{
    const char *file = record_of(place->name, a);
    const char *path = file != NULL ? gw_arena_printf(a, "%s/%s", place->dir, file).p : NULL;
    struct gw_str text, line;
    int rc = path != NULL ? gw_file_read(path, RECORD_MAX, a, &text, err) : no_memory(err);

    if (rc != GW_OK) {
        return rc;
    }
    if (!gw_str_starts(text, GW_STR(VERSION))) {
        return gw_fail(err, GW_CORRUPT, 0,
                       gw_str_starts(text, GW_STR(HEAD))
                           ? "%s is of a newer version of this program"
                           : "%s is no record of a moved repository",
                       path);
    }
    text = gw_str_sub(text, sizeof(VERSION) - 1, text.n);
    if (!gw_str_split(&text, '\n', &line) || !gw_str_split(&line, '/', &id->ns)) {
        return gw_fail(err, GW_CORRUPT, 0, "%s is damaged", path);
    }
    id->name = line;
    return repo_id_check(id, false, NULL) == GW_OK
               ? GW_OK
               : gw_fail(err, GW_CORRUPT, 0, "%s is damaged", path);
}

int repo_moved(const char *data_dir, const struct repo_id *id, struct gw_arena *a,
               struct repo_id *to, struct gw_error *err)
{
    struct repo_place place;
    int rc = repo_id_check(id, false, NULL);

    *to = *id;
    if (rc != GW_OK || (rc = repo_locate(data_dir, to, a, &place, NULL)) == GW_OK) {
        return gw_fail(err, GW_NOT_FOUND, 0, "not a name that was given up");
    }
    for (unsigned i = 0; i < HOPS_MAX && rc == GW_NOT_FOUND; i++) {
        rc = read_record(&place, a, to, err);
        if (rc != GW_OK) {
            return rc;
        }
        rc = repo_locate(data_dir, to, a, &place, err);
    }
    if (rc == GW_OK) {
        to->ns = place.ns;
        to->name = place.name;
    }
    return rc;
}

/* ---- moving ---- */

/* Under the locks of the repository and of all names. */
static int move(const char *data_dir, const struct repo_place *from, const struct repo_id *to_id,
                struct gw_arena *a, struct gw_error *err)
{
    struct repo_place to;
    int rc = repo_locate(data_dir, to_id, a, &to, err);

    if (rc == GW_OK) {
        return gw_fail(err, GW_CONFLICT, 0,
                       GW_STR_FMT " " GW_STR_FMT "/" GW_STR_FMT " exists already",
                       GW_STR_ARG(to_id->type), GW_STR_ARG(to.ns), GW_STR_ARG(to.name));
    }
    if (rc != GW_NOT_FOUND || (rc = gw_dir_make(to.dir, 0750, err)) != GW_OK ||
        (rc = put_record(from, &to, a, err)) != GW_OK) {
        return rc;
    }
    if (rename(from->path, to.path) != 0) {
        return gw_fail(err, GW_IO, errno, "rename to %s: %s", to.path, strerrordesc_np(errno));
    }
    rc = gw_dir_sync(to.dir, err);
    if (rc == GW_OK) {
        rc = gw_dir_sync(from->dir, err);
    }
    repo_moved_forget(&to);
    return rc;
}

static int move_locked(const char *data_dir, const struct repo_id *from_id,
                       const struct repo_id *to_id, struct gw_arena *a, struct gw_error *err)
{
    struct repo_place from;
    const char *own, *all;
    int own_fd = -1, all_fd = -1, rc = repo_locate(data_dir, from_id, a, &from, err);

    if (rc != GW_OK) {
        return rc;
    }
    own = gw_arena_printf(a, "%s/.gw.lock", from.path).p;
    all = gw_arena_printf(a, "%s/repos/.lock", data_dir).p;
    if (own == NULL || all == NULL) {
        return no_memory(err);
    }
    rc = repo_lock(&own_fd, own, WAIT_MS, err);
    if (rc == GW_OK) {
        rc = repo_lock(&all_fd, all, WAIT_MS, err);
    }
    if (rc == GW_OK) {
        rc = move(data_dir, &from, to_id, a, err);
    }
    repo_unlock(all_fd);
    repo_unlock(own_fd);
    return rc;
}

int repo_move(const char *data_dir, const struct repo_id *from, const struct repo_id *to,
              struct gw_error *err)
{
    struct gw_arena a;
    int rc = repo_id_check(from, false, err);

    if (rc != GW_OK || (rc = repo_id_check(to, true, err)) != GW_OK) {
        return rc;
    }
    if (!gw_str_eq(from->type, to->type)) {
        return gw_fail(err, GW_INVALID, 0, "a repository keeps its type");
    }
    gw_arena_init(&a, 1u << 20);
    rc = move_locked(data_dir, from, to, &a, err);
    gw_arena_release(&a);
    return rc;
}
