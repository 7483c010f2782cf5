/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/change.c - one commit of many changes.
 *
 * The changes wait as a list of (path, what, in which order). At the commit it is sorted, so that
 * what concerns one folder lies together, and laid over the tree of the tip: only folders on the
 * way to a change are read and written, whatever the size of the repository.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <git2.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATHS_MAX (512u << 20) /* bytes of all paths, attributes and rules of a commit */
#define ATTRIBUTES ".gitattributes"
#define PARENT_MIN 5u /* hex digits (hub-write 2.5) */
#define OBJECT_MODE 0440
#define MODE_FOLDER 040000u
#define MODE_FILE 0100644u

enum change_kind { CHANGE_PUT, CHANGE_REMOVE_FILE, CHANGE_REMOVE_FOLDER };

struct change {
    struct gw_str path;
    uint32_t order; /* in which they came */
    enum change_kind kind;
    bool lfs;           /* a pointer */
    const char *sha256; /* then: 64 hex of what it points to; NULL otherwise */
    uint8_t oid[REPO_OID_BYTES];
};

struct repo_change {
    const char *data_dir;
    struct repo_id id;
    const char *ref;
    struct repo_place place;
    struct repo_work work;
    struct repo_spool *spool;
    struct gw_arena a;
    const struct repo_rules *rules; /* of the tip when it was opened: who is stored as an object */
    struct gw_str attributes;       /* the root's, as this commit puts it; p == NULL: it does not */
    struct change *list;
    size_t n, cap;
    repo_may may, may_object; /* NULL: all is allowed */
    void *may_ctx, *object_ctx;
};

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a commit");
}

static int refuse(struct gw_error *err, struct gw_str path, const char *why)
{
    char shown[REPO_SHOWN_MAX];

    return gw_fail(err, GW_INVALID, 0, "%s: %s", why, repo_show(shown, path));
}

/* ---- open, close ---- */

/* A branch's full name; NULL: not one that may be written. */
static const char *full_ref(struct gw_str branch, struct gw_arena *a)
{
    bool full =
        gw_str_starts(branch, GW_STR("refs/heads/")) || gw_str_starts(branch, GW_STR("refs/pr/"));
    struct gw_str ref =
        gw_arena_printf(a, "%s" GW_STR_FMT, full ? "" : "refs/heads/", GW_STR_ARG(branch));
    int valid = 0;

    if (branch.n == 0 || memchr(branch.p, '\0', branch.n) != NULL || ref.p == NULL ||
        (!full && gw_str_starts(branch, GW_STR("refs/"))) ||
        git_reference_name_is_valid(&valid, ref.p) < 0 || !valid) {
        return NULL;
    }
    return ref.p;
}

int repo_rules_at(const struct repo_rules **out, struct repo *r, const char commit[41],
                  struct gw_str text, struct gw_arena *a, struct gw_error *err)
{
    struct repo_rules *rules = NULL;
    struct repo_entry e;
    int rc = GW_OK;

    *out = NULL;
    if (text.p == NULL) {
        rc = repo_entry(r, commit, GW_STR(ATTRIBUTES), &e, err);
        if (rc == GW_OK && !e.directory && !e.symlink && !e.lfs) {
            rc = repo_blob(r, e.oid, REPO_ATTRIBUTES_MAX, a, &text, err);
        }
        if (rc == GW_NOT_FOUND || rc == GW_TOO_LARGE) {
            return GW_OK; /* no rules */
        }
    }
    if (rc == GW_OK && text.p != NULL) {
        rc = repo_rules_parse(&rules, text, 0, NULL, a, err);
        *out = rules;
    }
    return rc;
}

bool repo_is_large(const struct repo_rules *rules, struct gw_str path, uint64_t size)
{
    return size > REPO_BLOB_MAX || (size != 0 && repo_rules_lfs(rules, path));
}

/* Of the tip: what decides how a file is stored. */
static int read_rules(struct repo_change *c, struct gw_error *err)
{
    struct repo *r = NULL;
    char tip[41];
    int rc = repo_open(&r, c->data_dir, &c->id, err);

    if (rc == GW_OK) {
        rc = repo_resolve(r, gw_str_c(c->ref), tip, err);
    }
    if (rc == GW_OK) {
        rc = repo_rules_at(&c->rules, r, tip, (struct gw_str){NULL, 0}, &c->a, err);
    }
    repo_close(r);
    return rc;
}

static int open_change(struct repo_change *c, const struct repo_id *id, struct gw_str branch,
                       struct gw_error *err)
{
    int rc = repo_work_begin(&c->work, c->data_dir, err);

    if (rc != GW_OK) {
        return rc;
    }
    c->id = (struct repo_id){gw_arena_dup(&c->a, id->type), gw_arena_dup(&c->a, id->ns),
                             gw_arena_dup(&c->a, id->name)};
    if (c->id.type.p == NULL || c->id.ns.p == NULL || c->id.name.p == NULL) {
        return no_memory(err);
    }
    rc = repo_locate(c->data_dir, &c->id, &c->a, &c->place, err);
    if (rc != GW_OK) {
        return rc;
    }
    c->ref = full_ref(branch, &c->a);
    if (c->ref == NULL) {
        return refuse(err, branch, "not a branch that can be written");
    }
    rc = read_rules(c, err);
    return rc == GW_OK ? repo_spool_open(&c->spool, c->work.dir, err) : rc;
}

int repo_change_open(struct repo_change **out, const char *data_dir, const struct repo_id *id,
                     struct gw_str branch, struct gw_error *err)
{
    struct repo_change *c;
    int rc = repo_id_check(id, false, err);

    if (rc != GW_OK) {
        return rc;
    }
    c = gw_alloc(sizeof(*c));
    if (c == NULL) {
        return no_memory(err);
    }
    gw_arena_init(&c->a, PATHS_MAX);
    c->data_dir = data_dir;
    rc = open_change(c, id, branch, err);
    if (rc != GW_OK) {
        repo_change_close(c);
        return rc;
    }
    *out = c;
    return GW_OK;
}

void repo_change_close(struct repo_change *c)
{
    if (c == NULL) {
        return;
    }
    repo_spool_close(c->spool);
    repo_work_end(&c->work);
    gw_free(c->list);
    gw_arena_release(&c->a);
    gw_free(c);
}

/* ---- one change ---- */

void repo_change_ask(struct repo_change *c, repo_may may, void *ctx)
{
    c->may = may;
    c->may_ctx = ctx;
}

void repo_change_ask_object(struct repo_change *c, repo_may may, void *ctx)
{
    c->may_object = may;
    c->object_ctx = ctx;
}

static int check_path(struct gw_str path, struct gw_error *err)
{
    struct gw_str rest = path, part;
    unsigned depth = 0;

    if (path.n == 0 || path.n >= REPO_PATH_MAX) {
        return refuse(err, path, "a path has 1 to 4095 bytes");
    }
    while (gw_str_split(&rest, '/', &part)) {
        const char *why = repo_component_refused(part);

        if (part.n == 0) {
            why = "a path has an empty name in it";
        } else if (++depth > REPO_DEPTH_MAX) {
            why = "more than 128 folders in one another";
        }
        if (why != NULL) {
            return refuse(err, path, why);
        }
    }
    return GW_OK;
}

static int check_file(const struct repo_change *c, struct gw_str path, struct gw_error *err)
{
    int rc = check_path(path, err);

    return rc == GW_OK && c->may != NULL ? c->may(c->may_ctx, path, err) : rc;
}

static struct change *add_change(struct repo_change *c, struct gw_str path, enum change_kind kind,
                                 struct gw_error *err)
{
    struct change *at;

    if (c->n == REPO_CHANGES_MAX) {
        gw_fail(err, GW_TOO_LARGE, 0, "more than %u changes in one commit", REPO_CHANGES_MAX);
        return NULL;
    }
    if (c->n + 1 >= c->cap) { /* one more for the attributes of the commit */
        size_t cap = c->cap != 0 ? 2 * c->cap : 64;
        struct change *list = gw_realloc(c->list, cap * sizeof(*list));

        if (list == NULL) {
            no_memory(err);
            return NULL;
        }
        c->list = list;
        c->cap = cap;
    }
    at = &c->list[c->n];
    *at = (struct change){.path = gw_arena_dup(&c->a, path), .order = (uint32_t)c->n, .kind = kind};
    if (at->path.p == NULL) {
        no_memory(err);
        return NULL;
    }
    c->n++;
    return at;
}

static int failed_add(const struct gw_error *err)
{
    return err != NULL ? (int)err->status : GW_NO_MEMORY;
}

static int put_blob(struct repo_change *c, struct gw_str path, struct gw_str bytes, bool lfs,
                    struct gw_error *err)
{
    struct change *at = add_change(c, path, CHANGE_PUT, err);

    if (at == NULL) {
        return failed_add(err);
    }
    at->lfs = lfs;
    return repo_spool_put(c->spool, REPO_OBJECT_BLOB, bytes, at->oid, err);
}

static int put_pointer(struct repo_change *c, struct gw_str path, struct gw_str sha256,
                       uint64_t size, struct gw_error *err)
{
    char text[200];
    size_t n = repo_pointer_format(text, sha256, size);
    int rc;

    rc = put_blob(c, path, (struct gw_str){text, n}, true, err);
    if (rc == GW_OK) {
        c->list[c->n - 1].sha256 = gw_arena_dup(&c->a, sha256).p;
        rc = c->list[c->n - 1].sha256 != NULL ? GW_OK : no_memory(err);
    }
    return rc;
}

/* Bytes that the attributes name for LFS: an object like any other, so that clones and reads agree.
 */
static int store_inline(struct repo_change *c, struct gw_str path, struct gw_str bytes,
                        struct gw_error *err)
{
    char temp[4096], hex[65];
    uint8_t sha[32];
    int n = snprintf(temp, sizeof(temp), "%s/object", c->work.dir), fd, rc;

    if (n < 0 || (size_t)n >= sizeof(temp)) {
        return gw_fail(err, GW_IO, ENAMETOOLONG, "the path of the data folder is too long");
    }
    gw_sha256_once(bytes.p, bytes.n, sha);
    gw_hex_encode(hex, sha, sizeof(sha));
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return gw_fail(err, GW_IO, errno, "create %s: %s", temp, strerrordesc_np(errno));
    }
    rc = gw_write_all(fd, bytes.p, bytes.n, err);
    if (rc == GW_OK && (fchmod(fd, OBJECT_MODE) != 0 || fdatasync(fd) != 0)) {
        rc = gw_fail(err, GW_IO, errno, "sync %s: %s", temp, strerrordesc_np(errno));
    }
    close(fd);
    if (rc == GW_OK) {
        rc = repo_object_store(c->data_dir, temp, (struct gw_str){hex, 64}, bytes.n, err);
    }
    unlink(temp);
    if (rc == GW_OK) {
        rc = repo_object_link(c->data_dir, &c->place, (struct gw_str){hex, 64}, err);
    }
    return rc == GW_OK ? put_pointer(c, path, (struct gw_str){hex, 64}, bytes.n, err) : rc;
}

int repo_change_put(struct repo_change *c, struct gw_str path, struct gw_str bytes,
                    struct gw_error *err)
{
    char sha256[65];
    uint64_t size;
    int rc = check_file(c, path, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (bytes.n > REPO_BLOB_MAX) {
        char shown[REPO_SHOWN_MAX];

        return gw_fail(err, GW_TOO_LARGE, 0,
                       "a file of more than 10 MiB has to be uploaded as a large object: %s",
                       repo_show(shown, path));
    }
    /* as a blob it would be served as the object it names: knowing a hash gives nothing (design 5)
     */
    if (repo_pointer_parse(bytes, sha256, &size)) {
        return repo_change_put_object(c, path, (struct gw_str){sha256, 64}, size, err);
    }
    if (repo_is_large(c->rules, path, bytes.n)) {
        return store_inline(c, path, bytes, err);
    }
    if (gw_str_eq_c(path, ATTRIBUTES)) {
        c->attributes = gw_arena_dup(&c->a, bytes);
        if (c->attributes.p == NULL) {
            return no_memory(err);
        }
    }
    return put_blob(c, path, bytes, false, err);
}

int repo_change_put_object(struct repo_change *c, struct gw_str path, struct gw_str sha256,
                           uint64_t size, struct gw_error *err)
{
    uint64_t held;
    int rc = check_file(c, path, err);

    if (rc == GW_OK && !gw_is_hex_lower(sha256, 64)) {
        rc = refuse(err, path, "an object is named by its sha256 in lower-case hex");
    }
    if (rc == GW_OK && c->may_object != NULL) {
        rc = c->may_object(c->object_ctx, sha256, err);
    }
    if (rc == GW_OK) {
        rc = repo_object_size(&c->place, sha256, &held, err);
    }
    if (rc == GW_OK && size != UINT64_MAX && size != held) {
        rc = gw_fail(err, GW_INVALID, 0, "object %.12s has %llu bytes, not %llu", sha256.p,
                     (unsigned long long)held, (unsigned long long)size);
    }
    return rc == GW_OK ? put_pointer(c, path, sha256, held, err) : rc;
}

int repo_change_remove(struct repo_change *c, struct gw_str path, bool folder, struct gw_error *err)
{
    int rc;

    if (folder && path.n > 1 && path.p[path.n - 1] == '/') {
        path.n--; /* "sub/" is what some clients say (hub-write 2.5) */
    }
    rc = folder ? check_path(path, err) : check_file(c, path, err); /* its files: at the commit */
    if (rc == GW_OK && gw_str_eq_c(path, ATTRIBUTES)) {
        c->attributes = GW_STR("");
    }
    if (rc == GW_OK &&
        add_change(c, path, folder ? CHANGE_REMOVE_FOLDER : CHANGE_REMOVE_FILE, err) == NULL) {
        rc = failed_add(err);
    }
    return rc;
}

/* ---- laid over a tree ---- */

struct entry {
    struct gw_str name; /* borrowed from a change, or from the tree below */
    uint32_t mode;
    uint8_t oid[REPO_OID_BYTES];
};

struct listing {
    struct entry *entries;
    size_t n, cap;
};

static int list_add(struct listing *l, struct gw_str name, uint32_t mode, const uint8_t *oid,
                    struct gw_error *err)
{
    struct entry *e;

    if (l->n == l->cap) {
        size_t cap = l->cap != 0 ? 2 * l->cap : 64;
        struct entry *entries = gw_realloc(l->entries, cap * sizeof(*entries));

        if (entries == NULL) {
            return no_memory(err);
        }
        l->entries = entries;
        l->cap = cap;
    }
    e = &l->entries[l->n++];
    *e = (struct entry){.name = name, .mode = mode};
    memcpy(e->oid, oid, REPO_OID_BYTES);
    return GW_OK;
}

/* git sorts a folder as if its name ended with a slash */
static int by_git_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
    int order = memcmp(x->name.p, y->name.p, n);
    unsigned char cx, cy;

    if (order != 0) {
        return order;
    }
    cx = (unsigned char)(x->name.n > n ? x->name.p[n] : x->mode == MODE_FOLDER ? '/' : '\0');
    cy = (unsigned char)(y->name.n > n ? y->name.p[n] : y->mode == MODE_FOLDER ? '/' : '\0');
    return (cx > cy) - (cx < cy);
}

/* A slash before everything else: a folder's changes follow one another, its own first. */
static int by_path(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    size_t n = x->path.n < y->path.n ? x->path.n : y->path.n;

    for (size_t i = 0; i < n; i++) {
        unsigned char cx = (unsigned char)x->path.p[i], cy = (unsigned char)y->path.p[i];

        if (cx != cy) {
            return cx == '/' ? -1 : cy == '/' ? 1 : cx < cy ? -1 : 1;
        }
    }
    if (x->path.n != y->path.n) {
        return x->path.n < y->path.n ? -1 : 1;
    }
    return x->order < y->order ? -1 : x->order > y->order;
}

struct overlay {
    struct repo_change *c;
    git_repository *git;
    const struct change *list; /* sorted */
};

/* The changes [at, end) of one folder, of which `skip` bytes of the path are the way to it. wiped:
 * the last change that removed a folder above, or -1: what came before it is void, and there is no
 * base. */
struct folder {
    size_t at, end, skip;
    int64_t wiped;
    git_tree *base; /* NULL: there was none */
};

static int overlay_folder(struct overlay *o, const struct folder *f, const uint8_t *base,
                          uint8_t oid[REPO_OID_BYTES], bool *any, struct gw_error *err);

/* What the changes of one name come to. */
struct outcome {
    const struct change *put; /* the file that stands at the end; NULL: none */
    bool removed_file;        /* the base's */
    int64_t wiped;
    size_t deeper; /* index of the first change below it */
};

static int nothing_there(struct gw_str path, struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];

    return gw_fail(err, GW_NOT_FOUND, REPO_NO_PATH,
                   "a file with this name does not exist, so it cannot be removed: %s",
                   repo_show(shown, path));
}

/* When the first file below was put; UINT32_MAX: none was. */
static uint32_t first_put(const struct overlay *o, const struct folder *f, size_t deeper)
{
    uint32_t first = UINT32_MAX;

    for (size_t i = deeper; i < f->end; i++) {
        if (o->list[i].kind == CHANGE_PUT && o->list[i].order < first &&
            (int64_t)o->list[i].order > f->wiped) {
            first = o->list[i].order;
        }
    }
    return first;
}

/* f: the changes of one name; those of the name itself come first, in order. */
static int judge(const struct overlay *o, const struct folder *f, size_t name_end, bool is_file,
                 bool is_folder, struct outcome *out, struct gw_error *err)
{
    uint32_t below_since;

    *out = (struct outcome){.wiped = f->wiped, .deeper = f->end};
    for (size_t i = f->at; i < f->end; i++) {
        if (o->list[i].path.n > name_end) {
            out->deeper = i;
            break;
        }
    }
    below_since = is_folder ? 0 : first_put(o, f, out->deeper);
    for (size_t i = f->at; i < out->deeper; i++) {
        const struct change *x = &o->list[i];

        if ((int64_t)x->order <= f->wiped) {
            continue;
        }
        if (x->kind == CHANGE_PUT) {
            out->put = x;
        } else if (x->kind == CHANGE_REMOVE_FILE) {
            if (out->put == NULL && (!is_file || out->removed_file)) {
                return nothing_there(x->path, err);
            }
            out->put = NULL;
            out->removed_file = true;
        } else {
            if (!is_folder && below_since > x->order) {
                return nothing_there(x->path, err);
            }
            out->wiped = x->order;
        }
    }
    return GW_OK;
}

struct ask_below {
    const struct repo_change *c;
    struct gw_str folder;
    int rc;
    struct gw_error *err;
};

static int ask_file(const char *root, const git_tree_entry *e, void *ctx)
{
    struct ask_below *x = ctx;
    char path[2 * REPO_PATH_MAX];
    int n;

    if (git_tree_entry_type(e) == GIT_OBJECT_TREE) {
        return 0;
    }
    n = snprintf(path, sizeof(path), GW_STR_FMT "/%s%s", GW_STR_ARG(x->folder), root,
                 git_tree_entry_name(e));
    x->rc = n > 0 && (size_t)n < sizeof(path)
                ? x->c->may(x->c->may_ctx, (struct gw_str){path, (size_t)n}, x->err)
                : gw_fail(x->err, GW_CORRUPT, 0, "a path is too long");
    return x->rc == GW_OK ? 0 : -1;
}

/* Whoever removes a folder removes each of its files. */
static int ask_folder(const struct overlay *o, struct gw_str folder, const git_tree_entry *old,
                      struct gw_error *err)
{
    struct ask_below x = {.c = o->c, .folder = folder, .rc = GW_OK, .err = err};
    git_tree *tree = NULL;

    if (o->c->may == NULL) {
        return GW_OK;
    }
    if (git_tree_lookup(&tree, o->git, git_tree_entry_id(old)) < 0 ||
        (git_tree_walk(tree, GIT_TREEWALK_PRE, ask_file, &x) < 0 && x.rc == GW_OK)) {
        x.rc = repo_git_fail(err, "read a folder of %s", o->c->place.path);
    }
    git_tree_free(tree);
    return x.rc;
}

/* All changes of one name, f, laid over its entry of the base, if there is one. */
static int overlay_name(struct overlay *o, const struct folder *f, struct gw_str name,
                        const git_tree_entry *old, struct listing *l, struct gw_error *err)
{
    bool is_folder = old != NULL && git_tree_entry_filemode(old) == GIT_FILEMODE_TREE;
    bool is_file = old != NULL && !is_folder, any = false;
    struct outcome r;
    uint8_t oid[REPO_OID_BYTES];
    int rc = judge(o, f, f->skip + name.n, is_file, is_folder, &r, err);

    if (rc == GW_OK && is_folder && r.wiped != f->wiped) {
        rc = ask_folder(o, gw_str_sub(o->list[f->at].path, 0, f->skip + name.n), old, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (r.deeper < f->end || is_folder) {
        struct folder below = {
            .at = r.deeper, .end = f->end, .skip = f->skip + name.n + 1, .wiped = r.wiped};
        bool kept = is_folder && r.wiped == f->wiped;

        rc = overlay_folder(o, &below, kept ? git_tree_entry_id(old)->id : NULL, oid, &any, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    if (any && (r.put != NULL || (is_file && !r.removed_file))) {
        return refuse(err, o->list[f->at].path, "this path would be both a file and a folder");
    }
    if (any) {
        return list_add(l, name, MODE_FOLDER, oid, err);
    }
    if (r.put != NULL) { /* an executable that gets new bytes stays one */
        bool executable = is_file && git_tree_entry_filemode(old) == GIT_FILEMODE_BLOB_EXECUTABLE;

        return list_add(l, name, executable ? 0100755u : MODE_FILE, r.put->oid, err);
    }
    return is_file && !r.removed_file
               ? list_add(l, name, (uint32_t)git_tree_entry_filemode_raw(old),
                          git_tree_entry_id(old)->id, err)
               : GW_OK;
}

static struct gw_str name_at(const struct change *x, size_t skip)
{
    struct gw_str rest = gw_str_sub(x->path, skip, x->path.n), name;

    return gw_str_split(&rest, '/', &name) ? name : GW_STR("");
}

/* Names with changes, each with all its changes. */
static int overlay_changed(struct overlay *o, const struct folder *f, struct listing *l,
                           struct gw_error *err)
{
    char text[256];

    for (size_t at = f->at; at < f->end;) {
        struct gw_str name = name_at(&o->list[at], f->skip);
        struct folder one = *f;
        const git_tree_entry *old = NULL;
        int rc;

        one.at = at;
        while (at < f->end && gw_str_eq(name_at(&o->list[at], f->skip), name)) {
            at++;
        }
        one.end = at;
        if (f->base != NULL && name.n < sizeof(text)) {
            memcpy(text, name.p, name.n);
            text[name.n] = '\0';
            old = git_tree_entry_byname(f->base, text);
        }
        rc = overlay_name(o, &one, name, old, l, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    return GW_OK;
}

static bool has_change(const struct overlay *o, const struct folder *f, struct gw_str name)
{
    size_t low = f->at, high = f->end;
    struct change key = {.path = name};

    while (low < high) { /* the first whose name is not before this one */
        size_t mid = low + (high - low) / 2;
        struct change x = {.path = name_at(&o->list[mid], f->skip), .order = 1};

        if (by_path(&x, &key) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < f->end && gw_str_eq(name_at(&o->list[low], f->skip), name);
}

static int keep_unchanged(struct overlay *o, const struct folder *f, struct listing *l,
                          struct gw_error *err)
{
    size_t n = f->base != NULL ? git_tree_entrycount(f->base) : 0;
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        const git_tree_entry *e = git_tree_entry_byindex(f->base, i);
        struct gw_str name = gw_str_c(git_tree_entry_name(e));

        if (!has_change(o, f, name)) {
            rc = list_add(l, name, (uint32_t)git_tree_entry_filemode_raw(e),
                          git_tree_entry_id(e)->id, err);
        }
    }
    return rc;
}

static int put_tree(struct overlay *o, struct listing *l, uint8_t oid[REPO_OID_BYTES],
                    struct gw_error *err)
{
    struct gw_buf b;
    int rc;

    if (l->n != 0) {
        qsort(l->entries, l->n, sizeof(*l->entries), by_git_order);
    }
    gw_buf_init(&b, PATHS_MAX);
    for (size_t i = 0; i < l->n; i++) {
        gw_buf_addf(&b, "%o ", l->entries[i].mode);
        gw_buf_add(&b, l->entries[i].name);
        gw_buf_add_char(&b, '\0');
        gw_buf_add(&b, (struct gw_str){(const char *)l->entries[i].oid, REPO_OID_BYTES});
    }
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        rc = repo_spool_put(o->c->spool, REPO_OBJECT_TREE, gw_buf_str(&b), oid, err);
    }
    gw_buf_release(&b);
    return rc;
}

static int overlay_folder(struct overlay *o, const struct folder *f, const uint8_t *base,
                          uint8_t oid[REPO_OID_BYTES], bool *any, struct gw_error *err)
{
    struct folder here = *f;
    struct listing l = {0};
    git_oid id;
    int rc = GW_OK;

    if (base != NULL) {
        memcpy(id.id, base, REPO_OID_BYTES);
        if (git_tree_lookup(&here.base, o->git, &id) < 0) {
            return repo_git_fail(err, "read a folder of %s", o->c->place.path);
        }
    }
    rc = overlay_changed(o, &here, &l, err);
    if (rc == GW_OK) {
        rc = keep_unchanged(o, &here, &l, err);
    }
    *any = l.n != 0;
    if (rc == GW_OK && (*any || f->skip == 0)) {
        rc = put_tree(o, &l, oid, err);
    }
    gw_free(l.entries);
    git_tree_free(here.base);
    return rc;
}

/* ---- attributes ---- */

/* The root's .gitattributes of the base; "" if there is none that can be read. */
static int base_attributes(struct overlay *o, const uint8_t *base, struct gw_arena *a,
                           struct gw_str *text, struct gw_error *err)
{
    const git_tree_entry *e;
    git_tree *tree = NULL;
    git_blob *blob = NULL;
    git_oid id;
    int rc = GW_OK;

    *text = GW_STR("");
    if (base == NULL) {
        return GW_OK;
    }
    memcpy(id.id, base, REPO_OID_BYTES);
    if (git_tree_lookup(&tree, o->git, &id) < 0) {
        return repo_git_fail(err, "read a folder of %s", o->c->place.path);
    }
    e = git_tree_entry_byname(tree, ATTRIBUTES);
    if (e != NULL && git_tree_entry_type(e) == GIT_OBJECT_BLOB) {
        if (git_blob_lookup(&blob, o->git, git_tree_entry_id(e)) < 0) {
            rc = repo_git_fail(err, "read " ATTRIBUTES " of %s", o->c->place.path);
        } else if ((uint64_t)git_blob_rawsize(blob) <= REPO_ATTRIBUTES_MAX) {
            *text = gw_arena_dup(
                a, (struct gw_str){git_blob_rawcontent(blob), (size_t)git_blob_rawsize(blob)});
            rc = text->p != NULL ? GW_OK : no_memory(err);
        }
    }
    git_blob_free(blob);
    git_tree_free(tree);
    return rc;
}

/* Large objects whose path nothing covers get a line (hub-write 2.5): a clone would check out bare
 * pointers otherwise. *more: one change more in the list. */
static int complete_attributes(struct overlay *o, const uint8_t *base, struct gw_arena *a,
                               bool *more, struct gw_error *err)
{
    struct repo_change *c = o->c;
    struct repo_rules *rules;
    struct gw_str text = c->attributes;
    struct gw_buf b;
    bool changed = false;
    int rc = text.p != NULL ? GW_OK : base_attributes(o, base, a, &text, err);

    if (rc == GW_OK) {
        rc = repo_rules_parse(&rules, text, 0, NULL, a, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    gw_buf_init(&b, 2 * (size_t)REPO_ATTRIBUTES_MAX);
    gw_buf_add(&b, text);
    for (size_t i = 0; i < c->n; i++) {
        if (!c->list[i].lfs || repo_rules_lfs(rules, c->list[i].path)) {
            continue;
        }
        if (!changed && text.n != 0 && !gw_str_ends(text, GW_STR("\n"))) {
            gw_buf_add_char(&b, '\n');
        }
        repo_rules_put_path(&b, c->list[i].path);
        changed = true;
    }
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK && changed) {
        struct change *x = &c->list[c->n];

        *x = (struct change){
            .path = GW_STR(ATTRIBUTES), .order = (uint32_t)c->n, .kind = CHANGE_PUT};
        rc = repo_spool_put(c->spool, REPO_OBJECT_BLOB, gw_buf_str(&b), x->oid, err);
    }
    gw_buf_release(&b);
    *more = changed;
    return rc;
}

/* ---- the commit ---- */

/* What was here when it was named may be gone by now (gc.c). */
static int look_again(void *ctx, const char *path, struct gw_error *err)
{
    const struct repo_change *c = ctx;
    struct repo_place place = {.path = path};
    uint64_t size;
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < c->n; i++) {
        if (c->list[i].sha256 != NULL) {
            rc = repo_object_size(&place, (struct gw_str){c->list[i].sha256, 64}, &size, err);
        }
    }
    return rc;
}

static int changed_tree(void *ctx, git_repository *git, const uint8_t *base,
                        uint8_t tree[REPO_OID_BYTES], struct gw_error *err)
{
    struct repo_change *c = ctx;
    struct overlay o = {.c = c, .git = git};
    struct folder root = {.wiped = -1};
    struct change *sorted;
    struct gw_arena a;
    bool more = false, any;
    int rc;

    gw_arena_init(&a, PATHS_MAX);
    rc = c->n != 0 ? complete_attributes(&o, base, &a, &more, err) : GW_OK;
    if (rc == GW_OK) {
        root.end = c->n + more;
        sorted = gw_alloc((root.end + 1) * sizeof(*sorted));
        if (sorted == NULL) {
            rc = no_memory(err);
        } else if (root.end != 0) {
            memcpy(sorted, c->list, root.end * sizeof(*sorted));
            qsort(sorted, root.end, sizeof(*sorted), by_path);
        }
        o.list = sorted;
        rc = rc == GW_OK ? overlay_folder(&o, &root, base, tree, &any, err) : rc;
        gw_free(sorted);
    }
    gw_arena_release(&a);
    return rc;
}

static int check_parent(struct gw_str parent, struct gw_error *err)
{
    bool hex = parent.n >= PARENT_MIN && parent.n <= 40;

    for (size_t i = 0; hex && i < parent.n; i++) {
        hex = strchr("0123456789abcdef", parent.p[i]) != NULL && parent.p[i] != '\0';
    }
    return hex || parent.n == 0
               ? GW_OK
               : gw_fail(err, GW_INVALID, 0, "the parent commit is 5 to 40 hex digits of its id");
}

int repo_change_onto(struct repo_change *c, struct gw_str branch, struct gw_error *err)
{
    const char *ref = full_ref(branch, &c->a);

    if (ref == NULL) {
        return refuse(err, branch, "not a branch that can be written");
    }
    c->ref = ref;
    return GW_OK;
}

int repo_change_commit(struct repo_change *c, struct gw_str message, struct gw_str author,
                       struct gw_str parent, int64_t now_ms, char commit[41], struct gw_error *err)
{
    struct repo_draft d = {.id = &c->id,
                           .spool = c->spool,
                           .work = &c->work,
                           .message = message,
                           .author = author,
                           .now_ms = now_ms,
                           .ref = c->ref,
                           .parent = parent,
                           .make_tree = changed_tree,
                           .prepare = look_again,
                           .ctx = c};
    int rc = check_parent(parent, err);

    return rc == GW_OK ? repo_publish(c->data_dir, &d, false, commit, err) : rc;
}
