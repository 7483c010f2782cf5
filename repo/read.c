/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/read.c - revisions, trees, blobs, refs and history of one repository.
 *
 * A revision is a name, never an expression: git's "main~3" and ":/text" are not understood, so
 * nothing a client sends is a program. Whatever is damaged is GW_CORRUPT with the repository's
 * name.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/encode.h"

#include <git2.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define SHORT_ID_MIN 7u
#define REF_NAME_MAX 512u
#define REFS_MAX 10000u
#define TREE_ENTRIES_MAX                                                                           \
    10000000u /* a tree that holds itself many times over (git bombs) must end */
#define MESSAGE_MAX (1u << 20)

struct repo {
    git_repository *git;
    git_odb *odb;
    struct gw_str ns, name;
    const char *label; /* "model acme/llm", for messages */
    int64_t created_ms;
    struct gw_arena a;
};

/* ---- open, close ---- */

static int open_git(struct repo *r, const char *path, struct gw_error *err)
{
    git_config *config = NULL;
    struct stat st;
    int code;

    if (repo_git_open(&r->git, &r->odb, path) < 0 ||
        git_repository_config_snapshot(&config, r->git) < 0) {
        return repo_git_fail(err, "%s", r->label);
    }
    code = git_config_get_int64(&r->created_ms, config, "hubgate.created");
    git_config_free(config);
    if (code < 0 || r->created_ms < 0) { /* git init made it, not we */
        r->created_ms = stat(path, &st) == 0 ? (int64_t)st.st_mtim.tv_sec * 1000 : 0;
    }
    return GW_OK;
}

static int open_repo(struct repo *r, const char *data_dir, const struct repo_id *id,
                     struct gw_error *err)
{
    struct repo_place place;
    int rc = repo_locate(data_dir, id, &r->a, &place, err);

    if (rc != GW_OK) {
        return rc;
    }
    r->ns = gw_arena_dup(&r->a, place.ns);
    r->name = gw_arena_dup(&r->a, place.name);
    r->label = gw_arena_printf(&r->a, GW_STR_FMT " " GW_STR_FMT "/" GW_STR_FMT,
                               GW_STR_ARG(id->type), GW_STR_ARG(place.ns), GW_STR_ARG(place.name))
                   .p;
    if (r->ns.p == NULL || r->name.p == NULL || r->label == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a repository");
    }
    return open_git(r, place.path, err);
}

int repo_open(struct repo **out, const char *data_dir, const struct repo_id *id,
              struct gw_error *err)
{
    struct repo *r;
    int rc;

    if (repo_id_check(id, false, NULL) != GW_OK) {
        char shown[REPO_SHOWN_MAX];

        return gw_fail(err, GW_NOT_FOUND, 0, "no repository can have this name: %s",
                       repo_show(shown, id->name));
    }
    r = gw_alloc(sizeof(*r));
    if (r == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a repository");
    }
    gw_arena_init(&r->a, 1u << 20);
    rc = open_repo(r, data_dir, id, err);
    if (rc != GW_OK) {
        repo_close(r);
        return rc;
    }
    *out = r;
    return GW_OK;
}

void repo_close(struct repo *r)
{
    if (r == NULL) {
        return;
    }
    git_odb_free(r->odb);
    git_repository_free(r->git);
    gw_arena_release(&r->a);
    gw_free(r);
}

struct gw_str repo_canonical_ns(const struct repo *r)
{
    return r->ns;
}

struct gw_str repo_canonical_name(const struct repo *r)
{
    return r->name;
}

int64_t repo_created_ms(const struct repo *r)
{
    return r->created_ms;
}

/* ---- resolve ---- */

static int no_revision(const struct repo *r, struct gw_str revision, struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];

    return gw_fail(err, GW_NOT_FOUND, REPO_NO_COMMIT, "%s has no revision %s", r->label,
                   repo_show(shown, revision));
}

/* A ref by its full name. GW_NOT_FOUND: no such ref (no text), or one that is no commit */
static int resolve_ref(struct repo *r, const char *name, char commit[41], struct gw_error *err)
{
    git_reference *ref = NULL, *direct = NULL;
    git_object *object = NULL;
    int code, valid = 0, rc = GW_OK;

    if (git_reference_name_is_valid(&valid, name) < 0 || !valid) {
        return GW_NOT_FOUND;
    }
    code = git_reference_lookup(&ref, r->git, name);
    if (code == GIT_ENOTFOUND || code == GIT_EINVALIDSPEC) {
        return GW_NOT_FOUND;
    }
    if (code < 0) {
        return repo_git_fail(err, "%s: ref %s", r->label, name);
    }
    code = git_reference_resolve(&direct, ref);
    if (code == GIT_ENOTFOUND) { /* HEAD of a repository without commits */
        rc = GW_NOT_FOUND;
        goto done;
    }
    if (code == 0) {
        code = git_reference_peel(&object, direct, GIT_OBJECT_COMMIT);
    }
    if (code == GIT_EPEEL || code == GIT_EINVALIDSPEC) { /* a tag of a tree or blob */
        rc = GW_NOT_FOUND;
    } else if (code < 0) { /* an object that is not there is damage here: a ref names it */
        rc = repo_git_fail(err, "%s: ref %s", r->label, name);
    } else {
        git_oid_tostr(commit, 41, git_object_id(object));
    }
done:
    git_object_free(object);
    git_reference_free(direct);
    git_reference_free(ref);
    return rc;
}

static int resolve_name(struct repo *r, const char *prefix, struct gw_str name, char commit[41],
                        struct gw_error *err)
{
    char full[REF_NAME_MAX];
    int n;

    if (name.n == 0 || name.n >= REF_NAME_MAX || memchr(name.p, '\0', name.n) != NULL) {
        return GW_NOT_FOUND;
    }
    n = snprintf(full, sizeof(full), "%s" GW_STR_FMT, prefix, GW_STR_ARG(name));
    if (n < 0 || (size_t)n >= sizeof(full)) {
        return GW_NOT_FOUND;
    }
    return resolve_ref(r, full, commit, err);
}

static bool is_hex(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))) {
            return false;
        }
    }
    return true;
}

/* hex: 7 to 40 digits. Ambiguous is not found: an id that means two things means none. */
static int resolve_id(struct repo *r, struct gw_str hex, char commit[41], struct gw_error *err)
{
    git_commit *found = NULL;
    git_oid oid, full;
    int code;

    if (git_oid_fromstrn(&oid, hex.p, hex.n) < 0) {
        return GW_NOT_FOUND;
    }
    /* not git_commit_lookup_prefix, which has libgit2's own reader read loose objects */
    code = git_odb_exists_prefix(&full, r->odb, &oid, hex.n);
    if (code == 0) {
        code = git_commit_lookup(&found, r->git, &full);
    }
    if (code == GIT_ENOTFOUND || code == GIT_EAMBIGUOUS) {
        return GW_NOT_FOUND;
    }
    if (code < 0) {
        return repo_git_fail(err, "%s: commit " GW_STR_FMT, r->label, GW_STR_ARG(hex));
    }
    git_oid_tostr(commit, 41, git_commit_id(found));
    git_commit_free(found);
    return GW_OK;
}

/* A full id is never a branch: what is cached under it would change. A branch goes before a tag,
 * and both before a shortened id. */
static int resolve(struct repo *r, struct gw_str revision, char commit[41], struct gw_error *err)
{
    int rc;

    if (revision.n == GIT_OID_HEXSZ && is_hex(revision)) {
        return resolve_id(r, revision, commit, err);
    }
    if (revision.n == 0) {
        return resolve_ref(r, REPO_BRANCH, commit, err);
    }
    if (gw_str_eq_c(revision, "HEAD") || gw_str_starts(revision, GW_STR("refs/"))) {
        rc = resolve_name(r, "", revision, commit, err);
        if (rc != GW_NOT_FOUND) {
            return rc;
        }
    }
    rc = resolve_name(r, "refs/heads/", revision, commit, err);
    if (rc == GW_NOT_FOUND) {
        rc = resolve_name(r, "refs/tags/", revision, commit, err);
    }
    if (rc == GW_NOT_FOUND && revision.n >= SHORT_ID_MIN && revision.n < GIT_OID_HEXSZ &&
        is_hex(revision)) {
        rc = resolve_id(r, revision, commit, err);
    }
    return rc;
}

int repo_resolve(struct repo *r, struct gw_str revision, char commit[41], struct gw_error *err)
{
    int rc = resolve(r, revision, commit, err);

    return rc == GW_NOT_FOUND ? no_revision(r, revision, err) : rc;
}

/* ---- trees ---- */

static int read_commit(struct repo *r, const char commit[41], git_commit **out,
                       struct gw_error *err)
{
    git_oid oid;
    int code;

    if (strnlen(commit, 41) != GIT_OID_HEXSZ || git_oid_fromstr(&oid, commit) < 0) {
        return no_revision(r, (struct gw_str){commit, strnlen(commit, 41)}, err);
    }
    code = git_commit_lookup(out, r->git, &oid);
    if (code == GIT_ENOTFOUND) {
        return no_revision(r, gw_str_c(commit), err);
    }
    return code < 0 ? repo_git_fail(err, "%s: commit %s", r->label, commit) : GW_OK;
}

/* id comes from an object of this repository: not there is damage. */
static int read_tree(struct repo *r, const git_oid *id, git_tree **out, struct gw_error *err)
{
    char hex[41];

    return git_tree_lookup(out, r->git, id) < 0
               ? repo_git_fail(err, "%s: tree %s", r->label, git_oid_tostr(hex, sizeof(hex), id))
               : GW_OK;
}

static int read_root(struct repo *r, const char commit[41], git_tree **out, struct gw_error *err)
{
    git_commit *c = NULL;
    int rc = read_commit(r, commit, &c, err);

    if (rc == GW_OK) {
        rc = read_tree(r, git_commit_tree_id(c), out, err);
    }
    git_commit_free(c);
    return rc;
}

/* Size of a blob; if it is a pointer, of what it points to. Only blobs of a pointer's length are
 * read: the others cost a look at the pack's index and one header. */
static int fill_blob(struct repo *r, const git_oid *oid, struct repo_entry *e, struct gw_error *err)
{
    git_odb_object *object = NULL;
    git_object_t type;
    size_t n;

    if (git_odb_read_header(&n, &type, r->odb, oid) < 0) {
        return repo_git_fail(err, "%s: blob %s", r->label, e->oid);
    }
    if (type != GIT_OBJECT_BLOB) {
        return gw_fail(err, GW_CORRUPT, 0, "%s: %s should be a blob", r->label, e->oid);
    }
    e->size = n;
    if (e->symlink || n < REPO_POINTER_BYTES_MIN || n > REPO_POINTER_BYTES_MAX) {
        return GW_OK;
    }
    if (git_odb_read(&object, r->odb, oid) < 0) {
        return repo_git_fail(err, "%s: blob %s", r->label, e->oid);
    }
    if (repo_pointer_parse(
            (struct gw_str){git_odb_object_data(object), git_odb_object_size(object)}, e->sha256,
            &e->size)) {
        e->lfs = true;
        e->pointer_size = (uint32_t)n;
    }
    git_odb_object_free(object);
    return GW_OK;
}

/* Everything but the path. GW_NOT_FOUND (no text): a submodule, which has nothing to serve. */
static int fill_entry(struct repo *r, const git_tree_entry *t, struct repo_entry *e,
                      struct gw_error *err)
{
    git_filemode_t mode = git_tree_entry_filemode(t);

    git_oid_tostr(e->oid, sizeof(e->oid), git_tree_entry_id(t));
    switch (mode) {
    case GIT_FILEMODE_TREE:
        e->directory = true;
        return GW_OK;
    case GIT_FILEMODE_COMMIT:
        return GW_NOT_FOUND;
    default:
        e->symlink = mode == GIT_FILEMODE_LINK;
        e->executable = mode == GIT_FILEMODE_BLOB_EXECUTABLE;
        return fill_blob(r, git_tree_entry_id(t), e, err);
    }
}

static int no_path(const struct repo *r, struct gw_str path, struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];

    return gw_fail(err, GW_NOT_FOUND, REPO_NO_PATH, "%s has no %s", r->label,
                   repo_show(shown, path));
}

/* The entry at path, which is not empty; *tree is the one that holds it, to be freed. Component by
 * component, not git_tree_entry_bypath: that says "not found" of a damaged folder too. */
static int find_entry(struct repo *r, git_tree **tree, struct gw_str path,
                      const git_tree_entry **out, struct gw_error *err)
{
    struct gw_str rest = path, part;
    char name[REPO_PATH_MAX];

    if (path.n >= REPO_PATH_MAX || memchr(path.p, '\0', path.n) != NULL) {
        return no_path(r, path, err);
    }
    while (gw_str_split(&rest, '/', &part)) {
        const git_tree_entry *t;
        git_tree *below = NULL;
        int rc;

        if (part.n == 0) {
            return no_path(r, path, err);
        }
        memcpy(name, part.p, part.n);
        name[part.n] = '\0';
        t = git_tree_entry_byname(*tree, name);
        if (t == NULL || (rest.p != NULL && git_tree_entry_filemode(t) != GIT_FILEMODE_TREE)) {
            return no_path(r, path, err);
        }
        if (rest.p == NULL) {
            *out = t;
            return GW_OK;
        }
        rc = read_tree(r, git_tree_entry_id(t), &below, err);
        if (rc != GW_OK) {
            return rc;
        }
        git_tree_free(*tree);
        *tree = below;
    }
    return no_path(r, path, err);
}

int repo_entry(struct repo *r, const char commit[41], struct gw_str path, struct repo_entry *e,
               struct gw_error *err)
{
    struct repo_entry found = {.path = path};
    const git_tree_entry *t;
    git_tree *tree = NULL;
    int rc = read_root(r, commit, &tree, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (path.n == 0) {
        found.directory = true;
        git_oid_tostr(found.oid, sizeof(found.oid), git_tree_id(tree));
    } else {
        rc = find_entry(r, &tree, path, &t, err);
        if (rc == GW_OK) {
            rc = fill_entry(r, t, &found, err);
            if (rc == GW_NOT_FOUND) {
                rc = no_path(r, path, err);
            }
        }
    }
    git_tree_free(tree);
    if (rc == GW_OK) {
        *e = found;
    }
    return rc;
}

struct listing {
    struct repo *r;
    bool recursive;
    repo_on_entry on;
    void *ctx;
    struct gw_buf path;
    size_t seen;
};

/* Appends the name; what a client would write somewhere else than into its folder never gets out.
 */
static int push_name(struct listing *l, const char *name, struct gw_error *err)
{
    if (repo_component_hostile(gw_str_c(name))) {
        char shown[REPO_SHOWN_MAX];

        return gw_fail(err, GW_CORRUPT, 0, "%s: a tree with the name %s", l->r->label,
                       repo_show(shown, gw_str_c(name)));
    }
    if (++l->seen > TREE_ENTRIES_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "%s: a tree of more than %u entries", l->r->label,
                       TREE_ENTRIES_MAX);
    }
    if (l->path.n != 0) {
        gw_buf_add_char(&l->path, '/');
    }
    gw_buf_add_c(&l->path, name);
    return gw_buf_ok(&l->path, err);
}

static int list_tree(struct listing *l, const git_tree *tree, unsigned depth, struct gw_error *err);

static int list_below(struct listing *l, const git_oid *id, unsigned depth, struct gw_error *err)
{
    git_tree *tree = NULL;
    int rc;

    if (depth >= REPO_PATH_MAX / 2) {
        return gw_fail(err, GW_TOO_LARGE, 0, "%s: a tree that is too deep", l->r->label);
    }
    rc = read_tree(l->r, id, &tree, err);
    if (rc == GW_OK) {
        rc = list_tree(l, tree, depth + 1, err);
    }
    git_tree_free(tree);
    return rc;
}

static int list_tree(struct listing *l, const git_tree *tree, unsigned depth, struct gw_error *err)
{
    size_t before = l->path.n;
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < git_tree_entrycount(tree); i++) {
        const git_tree_entry *t = git_tree_entry_byindex(tree, i);
        struct repo_entry e = {0};

        rc = push_name(l, git_tree_entry_name(t), err);
        if (rc != GW_OK) {
            break;
        }
        rc = fill_entry(l->r, t, &e, err);
        if (rc == GW_OK) {
            e.path = gw_buf_str(&l->path);
            rc = l->on(l->ctx, &e);
            if (rc == GW_OK && e.directory && l->recursive) {
                rc = list_below(l, git_tree_entry_id(t), depth, err);
            }
        } else if (rc == GW_NOT_FOUND) {
            rc = GW_OK;
        }
        l->path.n = before;
        if (l->path.p != NULL) {
            l->path.p[before] = '\0';
        }
    }
    return rc;
}

int repo_tree(struct repo *r, const char commit[41], struct gw_str path, bool recursive,
              repo_on_entry on, void *ctx, struct gw_error *err)
{
    struct listing l = {.r = r, .recursive = recursive, .on = on, .ctx = ctx};
    const git_tree_entry *t;
    git_tree *root = NULL;
    int rc = read_root(r, commit, &root, err);

    if (rc != GW_OK) {
        return rc;
    }
    gw_buf_init(&l.path, 2 * REPO_PATH_MAX);
    if (path.n == 0) {
        rc = list_tree(&l, root, 0, err);
        goto done;
    }
    rc = find_entry(r, &root, path, &t, err);
    if (rc == GW_OK && git_tree_entry_filemode(t) != GIT_FILEMODE_TREE) {
        rc = no_path(r, path, err);
    }
    if (rc == GW_OK) {
        gw_buf_add(&l.path, path);
        rc = gw_buf_ok(&l.path, err);
    }
    if (rc == GW_OK) {
        rc = list_below(&l, git_tree_entry_id(t), 0, err);
    }
done:
    gw_buf_release(&l.path);
    git_tree_free(root);
    return rc;
}

/* ---- blobs ---- */

static int copy_blob(struct repo *r, const git_oid *oid, struct gw_arena *a, struct gw_str *out,
                     struct gw_error *err)
{
    git_odb_object *object = NULL;
    struct gw_str copy;

    if (git_odb_read(&object, r->odb, oid) < 0) {
        char hex[41];

        return repo_git_fail(err, "%s: blob %s", r->label, git_oid_tostr(hex, sizeof(hex), oid));
    }
    copy =
        gw_arena_dup(a, (struct gw_str){git_odb_object_data(object), git_odb_object_size(object)});
    git_odb_object_free(object);
    if (copy.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for a blob", r->label);
    }
    *out = copy;
    return GW_OK;
}

int repo_blob(struct repo *r, const char oid[41], size_t max, struct gw_arena *a,
              struct gw_str *out, struct gw_error *err)
{
    git_object_t type;
    git_oid id;
    size_t n;
    int code;

    if (strnlen(oid, 41) != GIT_OID_HEXSZ || git_oid_fromstr(&id, oid) < 0) {
        return gw_fail(err, GW_NOT_FOUND, 0, "%s: a blob id is 40 hex digits", r->label);
    }
    code = git_odb_read_header(&n, &type, r->odb, &id);
    if (code == GIT_ENOTFOUND || (code == 0 && type != GIT_OBJECT_BLOB)) {
        return gw_fail(err, GW_NOT_FOUND, 0, "%s has no blob %s", r->label, oid);
    }
    if (code < 0) {
        return repo_git_fail(err, "%s: blob %s", r->label, oid);
    }
    if (n > max) {
        return gw_fail(err, GW_TOO_LARGE, 0, "%s: blob %s has %zu bytes, more than %zu", r->label,
                       oid, n, max);
    }
    return copy_blob(r, &id, a, out, err);
}

/* ---- refs ---- */

struct refs {
    struct repo *r;
    struct gw_arena *a;
    struct repo_ref *list;
    size_t n, cap;
};

/* The name behind its prefix; false: not one of those that clients are told of. */
static bool shown_name(struct gw_str ref, struct gw_str *name)
{
    static const struct gw_str prefixes[] = {GW_STR_INIT("refs/heads/"), GW_STR_INIT("refs/tags/"),
                                             GW_STR_INIT("refs/pr/")};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (gw_str_starts(ref, prefixes[i])) {
            uint64_t number;

            *name = gw_str_sub(ref, prefixes[i].n, ref.n);
            return i != 2 || gw_str_u64(*name, &number);
        }
    }
    return false;
}

static int add_ref(struct refs *f, const char *full, struct gw_error *err)
{
    struct gw_str ref = gw_str_c(full), name;
    struct repo_ref *entry;
    char commit[41];
    int rc;

    if (!shown_name(ref, &name)) {
        return GW_OK;
    }
    rc = resolve_ref(f->r, full, commit, err);
    if (rc != GW_OK) {
        return rc == GW_NOT_FOUND ? GW_OK
                                  : rc; /* a tag of something else than a commit; or gone by now */
    }
    if (f->n == REFS_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "%s has more than %u refs", f->r->label, REFS_MAX);
    }
    if (f->n == f->cap) {
        size_t cap = f->cap != 0 ? f->cap * 2 : 16;
        struct repo_ref *more = gw_arena_alloc(f->a, cap * sizeof(*more));

        if (more == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for its refs", f->r->label);
        }
        if (f->n != 0) {
            memcpy(more, f->list, f->n * sizeof(*more));
        }
        f->list = more;
        f->cap = cap;
    }
    entry = &f->list[f->n];
    entry->ref = gw_arena_dup(f->a, ref);
    if (entry->ref.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for its refs", f->r->label);
    }
    entry->name = gw_str_sub(entry->ref, ref.n - name.n, name.n);
    memcpy(entry->commit, commit, sizeof(commit));
    f->n++;
    return GW_OK;
}

static int by_ref(const void *a, const void *b)
{
    const struct repo_ref *x = a, *y = b;

    return gw_str_cmp(x->ref, y->ref);
}

int repo_refs(struct repo *r, struct gw_arena *a, struct repo_ref **refs, size_t *n,
              struct gw_error *err)
{
    struct refs f = {.r = r, .a = a};
    git_reference_iterator *it = NULL;
    const char *name;
    int code, rc = GW_OK;

    if (git_reference_iterator_new(&it, r->git) < 0) {
        return repo_git_fail(err, "%s: refs", r->label);
    }
    while ((code = git_reference_next_name(&name, it)) == 0) {
        rc = add_ref(&f, name, err);
        if (rc != GW_OK) {
            break;
        }
    }
    if (code < 0 && code != GIT_ITEROVER) {
        rc = repo_git_fail(err, "%s: refs", r->label);
    }
    git_reference_iterator_free(it);
    if (rc != GW_OK) {
        return rc;
    }
    if (f.n != 0) {
        qsort(f.list, f.n, sizeof(*f.list), by_ref);
    }
    *refs = f.list;
    *n = f.n;
    return GW_OK;
}

/* ---- history ---- */

/* First line, and what follows the blank line after it. */
static bool split_message(const char *text, struct gw_arena *a, struct repo_commit *out)
{
    struct gw_str rest = gw_str_c(text != NULL ? text : ""), title;

    rest = gw_str_sub(rest, 0, MESSAGE_MAX);
    if (!gw_str_split(&rest, '\n', &title)) {
        title = GW_STR("");
    }
    while (rest.n != 0 && rest.p[0] == '\n') {
        rest = gw_str_sub(rest, 1, rest.n);
    }
    while (rest.n != 0 && rest.p[rest.n - 1] == '\n') {
        rest.n--;
    }
    out->title = gw_arena_dup(a, gw_str_trim(title));
    out->message = gw_arena_dup(a, rest);
    return out->title.p != NULL && out->message.p != NULL;
}

static int fill_commit(struct repo *r, const git_oid *oid, struct gw_arena *a,
                       struct repo_commit *out, struct gw_error *err)
{
    git_commit *c = NULL;
    const git_signature *who;
    bool fits;

    git_oid_tostr(out->id, sizeof(out->id), oid);
    if (git_commit_lookup(&c, r->git, oid) < 0) {
        return repo_git_fail(err, "%s: commit %s", r->label, out->id);
    }
    who = git_commit_author(c);
    out->author = gw_arena_dup(a, gw_str_c(who != NULL ? who->name : ""));
    out->date_ms = (int64_t)git_commit_time(c) * 1000;
    fits = split_message(git_commit_message(c), a, out) && out->author.p != NULL;
    git_commit_free(c);
    return fits ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for its history", r->label);
}

/* The array grows with what is there: n may be "everything". */
static int add_commit(struct repo *r, const git_oid *oid, struct gw_arena *a,
                      struct repo_commit **list, size_t n, size_t *cap, struct gw_error *err)
{
    if (n == *cap) {
        size_t more = *cap != 0 ? *cap * 2 : 16;
        struct repo_commit *grown =
            more <= SIZE_MAX / sizeof(*grown) ? gw_arena_alloc(a, more * sizeof(*grown)) : NULL;

        if (grown == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "%s: no memory for its history", r->label);
        }
        if (n != 0) {
            memcpy(grown, *list, n * sizeof(*grown));
        }
        *list = grown;
        *cap = more;
    }
    return fill_commit(r, oid, a, &(*list)[n], err);
}

static int walk_history(struct repo *r, git_revwalk *walk, size_t skip, size_t n,
                        struct gw_arena *a, struct repo_commit **out, size_t *n_out, size_t *total,
                        struct gw_error *err)
{
    struct repo_commit *list = NULL;
    size_t got = 0, cap = 0, seen;
    git_oid oid;
    int code, rc;

    for (seen = 0; (code = git_revwalk_next(&oid, walk)) == 0; seen++) {
        if (seen < skip || got >= n) {
            continue;
        }
        rc = add_commit(r, &oid, a, &list, got, &cap, err);
        if (rc != GW_OK) {
            return rc;
        }
        got++;
    }
    if (code != GIT_ITEROVER) {
        return repo_git_fail(err, "%s: history", r->label);
    }
    *out = list;
    *n_out = got;
    *total = seen;
    return GW_OK;
}

int repo_log(struct repo *r, const char commit[41], size_t skip, size_t n, struct gw_arena *a,
             struct repo_commit **out, size_t *n_out, size_t *total, struct gw_error *err)
{
    git_revwalk *walk = NULL;
    git_commit *c = NULL;
    int rc = read_commit(r, commit, &c, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (git_revwalk_new(&walk, r->git) < 0 ||
        git_revwalk_sorting(walk, GIT_SORT_TOPOLOGICAL | GIT_SORT_TIME) < 0 ||
        git_revwalk_push(walk, git_commit_id(c)) < 0) {
        rc = repo_git_fail(err, "%s: history", r->label);
    } else {
        rc = walk_history(r, walk, skip, n, a, out, n_out, total, err);
    }
    git_revwalk_free(walk);
    git_commit_free(c);
    return rc;
}
