/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/spool.c - new git objects on their way into one pack.
 *
 * The bytes wait in an unlinked file: an import of many gigabytes of small files needs forty bytes
 * of memory for each, and a dead importer leaves nothing. The pack is made in a temporary folder
 * and moved: pack first, then its index, so that whoever finds the index finds the pack.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/file.h"

#include <git2.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define TABLE_FIRST 1024u
#define OBJECTS_MAX (UINT32_MAX / 4)

_Static_assert(sizeof(git_oid) == REPO_OID_BYTES, "ids are passed as bytes");
_Static_assert((int)REPO_OBJECT_COMMIT == (int)GIT_OBJECT_COMMIT &&
                   (int)REPO_OBJECT_TREE == (int)GIT_OBJECT_TREE &&
                   (int)REPO_OBJECT_BLOB == (int)GIT_OBJECT_BLOB,
               "git's numbers");

struct spooled {
    git_oid oid;
    uint8_t type;
    uint64_t offset;
    size_t n;
};

struct repo_spool {
    int fd;
    uint64_t bytes;
    struct spooled *objects;
    uint32_t n, cap;
    uint32_t *table; /* index + 1; 0: free. slots is a power of two, at most half full */
    uint32_t slots;
};

/* ---- the table ---- */

static uint32_t slot_of(const struct repo_spool *s, const git_oid *oid)
{
    uint32_t at;

    memcpy(&at, oid->id, sizeof(at));
    for (at &= s->slots - 1; s->table[at] != 0; at = (at + 1) & (s->slots - 1)) {
        if (git_oid_equal(&s->objects[s->table[at] - 1].oid, oid)) {
            break;
        }
    }
    return at;
}

static const struct spooled *find(const struct repo_spool *s, const git_oid *oid)
{
    uint32_t index = s->table[slot_of(s, oid)];

    return index != 0 ? &s->objects[index - 1] : NULL;
}

static bool grow(struct repo_spool *s)
{
    uint32_t slots = s->slots * 2;
    struct spooled *objects = gw_realloc(s->objects, slots / 2 * sizeof(*objects));
    uint32_t *table;

    if (objects == NULL) {
        return false;
    }
    s->objects = objects;
    table = gw_alloc(slots * sizeof(*table));
    if (table == NULL) {
        return false;
    }
    gw_free(s->table);
    s->table = table;
    s->slots = slots;
    s->cap = slots / 2;
    for (uint32_t i = 0; i < s->n; i++) {
        s->table[slot_of(s, &s->objects[i].oid)] = i + 1;
    }
    return true;
}

/* ---- putting ---- */

int repo_spool_open(struct repo_spool **out, const char *dir, struct gw_error *err)
{
    struct repo_spool *s = gw_alloc(sizeof(*s));
    char path[4096];
    int n;

    if (s == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for new git objects");
    }
    s->fd = -1;
    s->slots = TABLE_FIRST / 2;
    if (!grow(s)) {
        repo_spool_close(s);
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for new git objects");
    }
    n = snprintf(path, sizeof(path), "%s/spool", dir);
    s->fd = n > 0 && (size_t)n < sizeof(path)
                ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)
                : -1;
    if (s->fd < 0 || unlink(path) != 0) {
        int saved = errno;

        repo_spool_close(s);
        return gw_fail(err, GW_IO, saved, "create %s/spool: %s", dir, strerrordesc_np(saved));
    }
    *out = s;
    return GW_OK;
}

int repo_spool_put(struct repo_spool *s, enum repo_object type, struct gw_str data,
                   uint8_t oid[REPO_OID_BYTES], struct gw_error *err)
{
    git_oid id;
    int rc;

    if (git_odb_hash(&id, data.n != 0 ? data.p : "", data.n, (git_object_t)type) < 0) {
        return repo_git_fail(err, "hash a git object");
    }
    memcpy(oid, id.id, REPO_OID_BYTES);
    if (find(s, &id) != NULL) {
        return GW_OK;
    }
    if (s->n == s->cap && (s->n >= OBJECTS_MAX || !grow(s))) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for %u git objects", s->n);
    }
    rc = gw_pwrite_all(s->fd, data.p, data.n, s->bytes, err);
    if (rc != GW_OK) {
        return rc;
    }
    s->objects[s->n] =
        (struct spooled){.oid = id, .type = (uint8_t)type, .offset = s->bytes, .n = data.n};
    s->bytes += data.n;
    s->table[slot_of(s, &id)] = ++s->n;
    return GW_OK;
}

void repo_spool_close(struct repo_spool *s)
{
    if (s == NULL) {
        return;
    }
    if (s->fd >= 0) {
        close(s->fd);
    }
    gw_free(s->objects);
    gw_free(s->table);
    gw_free(s);
}

/* ---- the pack ---- */

static int add_object(struct repo_pack *p, const struct repo_spool *s, const struct spooled *o,
                      struct gw_error *err)
{
    char piece[64u << 10];
    size_t done = 0;
    int rc = repo_pack_begin(p, (enum repo_object)o->type, o->n, err);

    do {
        size_t n = o->n - done < sizeof(piece) ? o->n - done : sizeof(piece);

        if (rc == GW_OK) {
            rc = gw_pread_all(s->fd, piece, n, o->offset + done, err);
        }
        done += n;
        if (rc == GW_OK) {
            rc = repo_pack_bytes(p, (struct gw_str){piece, n}, done == o->n, err);
        }
    } while (rc == GW_OK && done < o->n);
    return rc;
}

/* Commits, then trees from the root down, then blobs: a reader of one commit reads forwards. */
static int add_all(struct repo_pack *p, const struct repo_spool *s, const bool *held,
                   struct gw_error *err)
{
    static const enum repo_object order[] = {REPO_OBJECT_COMMIT, REPO_OBJECT_TREE,
                                             REPO_OBJECT_BLOB};

    for (size_t k = 0; k < sizeof(order) / sizeof(order[0]); k++) {
        for (uint32_t i = 0; i < s->n; i++) {
            /* trees were put children first */
            uint32_t at = order[k] == REPO_OBJECT_BLOB ? i : s->n - 1 - i;
            int rc = GW_OK;

            if (!held[at] && s->objects[at].type == order[k]) {
                rc = add_object(p, s, &s->objects[at], err);
            }
            if (rc != GW_OK) {
                return rc;
            }
        }
    }
    return GW_OK;
}

int repo_pack_move(const char *path, const char *work_dir, const char *name, struct gw_error *err)
{
    static const char *const suffixes[] = {"pack", "idx"};
    char from[4096], to[4096], folder[4096];

    snprintf(folder, sizeof(folder), "%s/objects/pack", path);
    for (size_t i = 0; i < 2; i++) {
        int n = snprintf(from, sizeof(from), "%s/pack-%s.%s", work_dir, name, suffixes[i]);
        int m = snprintf(to, sizeof(to), "%s/pack-%s.%s", folder, name, suffixes[i]);

        if (n < 0 || m < 0 || (size_t)n >= sizeof(from) || (size_t)m >= sizeof(to)) {
            return gw_fail(err, GW_IO, ENAMETOOLONG, "%s: %s", path, strerrordesc_np(ENAMETOOLONG));
        }
        if (rename(from, to) != 0) {
            return gw_fail(err, GW_IO, errno, "rename %s: %s", to, strerrordesc_np(errno));
        }
    }
    return gw_dir_sync(folder, err);
}

static int write_pack(const struct repo_spool *s, const bool *held, uint32_t n, const char *path,
                      const char *work_dir, struct gw_error *err)
{
    struct repo_pack *p = NULL;
    char name[41];
    int rc = repo_pack_open(&p, work_dir, n, err);

    if (rc == GW_OK) {
        rc = add_all(p, s, held, err);
    }
    if (rc == GW_OK) {
        rc = repo_pack_finish(p, name, err);
    }
    repo_pack_close(p);
    return rc == GW_OK ? repo_pack_move(path, work_dir, name, err) : rc;
}

int repo_spool_pack(struct repo_spool *s, git_repository *git, git_odb *odb, const char *path,
                    const char *work_dir, struct gw_error *err)
{
    bool *held = gw_alloc(s->n);
    uint32_t n_held = 0;
    int rc = GW_OK;

    if (held == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for %u git objects", s->n);
    }
    for (uint32_t i = 0; i < s->n; i++) {
        held[i] = git_odb_exists_ext(odb, &s->objects[i].oid, GIT_ODB_LOOKUP_NO_REFRESH) == 1;
        n_held += held[i];
    }
    if (n_held < s->n) {
        rc = write_pack(s, held, s->n - n_held, path, work_dir, err);
    }
    gw_free(held);
    return rc;
}
