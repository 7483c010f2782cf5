/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/push.c - what a push may bring: the refs that it names (pkt-lines), and, in git's
 * pre-receive hook, the same checks of files that a commit over the API passes. The pushed objects
 * are in git's quarantine then: what is refused leaves nothing.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"

#include <git2.h>
#include <git2/sys/odb_backend.h>

#include <errno.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>

#define REFS_MAX 1000u
#define NAME_MAX_BYTES 255u /* a revision in an address has no more (hub) */
#define ENTRIES_MAX 10000000u
#define SAID_MAX 10u
#define LOCK_WAIT_MS 30000
#define ZEROS "0000000000000000000000000000000000000000"

/* ---- the refs ---- */

/* One pkt-line (gitprotocol-common): *line, empty for a flush. false: it is not whole, or none. */
static bool next_line(struct gw_str *rest, struct gw_str *line)
{
    uint8_t head[2];
    size_t n;

    if (rest->n < 4 || !gw_hex_decode(head, sizeof(head), gw_str_sub(*rest, 0, 4))) {
        return false;
    }
    n = (size_t)head[0] << 8 | head[1];
    if (n == 0) {
        *line = GW_STR("");
        *rest = gw_str_sub(*rest, 4, rest->n);
        return true;
    }
    if (n <= 4 || n > rest->n) {
        return false;
    }
    *line = gw_str_sub(*rest, 4, n - 4);
    *rest = gw_str_sub(*rest, n, rest->n);
    return true;
}

/* "old new name" */
static int parse_ref(struct gw_str line, struct repo_push_ref *r, struct gw_arena *a,
                     struct gw_error *err)
{
    struct gw_str from = gw_str_sub(line, 0, 40), to = gw_str_sub(line, 41, 40);
    struct gw_str name = gw_str_sub(line, 82, line.n);

    if (line.n < 83 || line.p[40] != ' ' || line.p[81] != ' ' || !gw_is_hex_lower(from, 40) ||
        !gw_is_hex_lower(to, 40) || memchr(name.p, '\0', name.n) != NULL) {
        return gw_fail(err, GW_INVALID, 0, "a line of the push is no change of a ref");
    }
    memcpy(r->from, from.p, 40);
    memcpy(r->to, to.p, 40);
    r->removes = gw_str_eq_c(to, ZEROS);
    r->makes = gw_str_eq_c(from, ZEROS);
    r->name = gw_arena_dup(a, name);
    return r->name.p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a push");
}

int repo_push_parse(struct gw_str head, struct gw_arena *a, struct repo_push_ref **refs, size_t *n,
                    struct gw_error *err)
{
    struct gw_str line;

    *n = 0;
    *refs = gw_arena_alloc(a, REFS_MAX * sizeof(**refs));
    if (*refs == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a push");
    }
    while (next_line(&head, &line)) {
        const char *end;
        int rc;

        if (line.n == 0) {
            return GW_OK;
        }
        if (gw_str_starts(line, GW_STR("shallow "))) {
            continue;
        }
        if (*n == REFS_MAX) {
            return gw_fail(err, GW_TOO_LARGE, 0, "more than %u refs in one push", REFS_MAX);
        }
        end = memchr(line.p, '\0', line.n); /* what the client can do follows the first */
        line.n = end != NULL ? (size_t)(end - line.p) : line.n;
        if (gw_str_ends(line, GW_STR("\n"))) {
            line.n--;
        }
        memset(&(*refs)[*n], 0, sizeof(**refs));
        rc = parse_ref(line, &(*refs)[*n], a, err);
        if (rc != GW_OK) {
            return rc;
        }
        ++*n;
    }
    return gw_fail(err, GW_INVALID, 0, "the list of refs of the push does not end");
}

/* ---- the check ---- */

struct seen { /* a tree that was looked through below a path of so many bytes and folders */
    git_oid id;
    uint32_t path_bytes, depth;
};

struct check {
    git_repository *git;
    git_odb *odb;
    const struct repo_place *place;
    struct gw_buf *says;
    struct gw_str ref;
    unsigned said;
    uint64_t entries;
    struct seen *seen; /* by the first bytes of the id; n is a power of two */
    size_t n_seen, cap_seen;
    char path[REPO_PATH_MAX];
};

static void say(struct check *c, const char *fmt, ...) GW_PRINTF(2, 3);
static void say(struct check *c, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    if (c->said++ >= SAID_MAX) {
        if (c->said == SAID_MAX + 1) {
            gw_buf_add_c(c->says, "... and more\n");
        }
        return;
    }
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    gw_buf_add_c(c->says, text);
    gw_buf_add_char(c->says, '\n');
}

static struct seen *seen_slot(struct seen *all, size_t cap, const git_oid *id)
{
    size_t i;

    memcpy(&i, id->id, sizeof(i));
    for (i &= cap - 1; all[i].depth != 0 && !git_oid_equal(&all[i].id, id);
         i = (i + 1) & (cap - 1)) {
    }
    return &all[i];
}

/* Was all of it looked at already, at no lesser depth? Notes that it is now. */
static int look(struct check *c, const git_oid *id, size_t path_bytes, unsigned depth, bool *known,
                struct gw_error *err)
{
    struct seen *s;

    if (2 * (c->n_seen + 1) > c->cap_seen) {
        size_t cap = c->cap_seen ? 2 * c->cap_seen : 1024;
        struct seen *more = gw_alloc(cap * sizeof(*more));

        if (more == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory to look through a push");
        }
        for (size_t i = 0; i < c->cap_seen; i++) {
            if (c->seen[i].depth != 0) {
                *seen_slot(more, cap, &c->seen[i].id) = c->seen[i];
            }
        }
        gw_free(c->seen);
        c->seen = more;
        c->cap_seen = cap;
    }
    s = seen_slot(c->seen, c->cap_seen, id);
    *known = s->depth >= depth + 1 && s->path_bytes >= path_bytes;
    if (s->depth == 0) {
        c->n_seen++;
    }
    if (!*known) {
        *s = (struct seen){*id, (uint32_t)path_bytes, depth + 1};
    }
    return GW_OK;
}

static int check_pointer(struct check *c, const git_oid *id, struct gw_str path,
                         struct gw_error *err)
{
    static const char mark[] = "version https://git-lfs.github.com/spec/v1";
    char shown[REPO_SHOWN_MAX], sha256[65];
    git_odb_object *object = NULL;
    struct gw_str text;
    uint64_t size, held;

    if (git_odb_read(&object, c->odb, id) < 0) {
        return repo_git_fail(err, "read a pushed file");
    }
    text = (struct gw_str){git_odb_object_data(object), git_odb_object_size(object)};
    if (gw_str_starts(text, GW_STR(mark))) {
        if (!repo_pointer_parse(text, sha256, &size)) {
            say(c, "%s is not a valid git-lfs pointer", repo_show(shown, path));
        } else if (repo_object_size(c->place, gw_str_c(sha256), &held, NULL) != GW_OK) {
            say(c,
                "%s: an LFS pointer pointed to a file that does not exist here (%.12s...): run "
                "git lfs push, or git lfs install, and push again",
                repo_show(shown, path), sha256);
        } else if (held != size) {
            say(c, "%s: its git-lfs pointer says %llu bytes, the object has %llu",
                repo_show(shown, path), (unsigned long long)size, (unsigned long long)held);
        }
    }
    git_odb_object_free(object);
    return GW_OK;
}

static int check_blob(struct check *c, const git_oid *id, bool link, struct gw_str path,
                      struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];
    git_object_t type;
    size_t n;

    if (git_odb_read_header(&n, &type, c->odb, id) < 0) {
        return repo_git_fail(err, "read a pushed file");
    }
    if (link) {
        if (n >= REPO_PATH_MAX) {
            say(c, "%s: the target of a symbolic link is too long", repo_show(shown, path));
        }
        return GW_OK;
    }
    if (n > REPO_BLOB_MAX) {
        say(c,
            "%s (%s) has %.1f MiB: files larger than 10 MiB are stored with git-lfs here (git lfs "
            "track, then commit it again)",
            repo_show(shown, path), c->ref.p, (double)n / (1 << 20));
        return GW_OK;
    }
    return n < 1024 ? check_pointer(c, id, path, err) : GW_OK;
}

static int check_tree(struct check *c, const git_oid *id, const git_oid *base, size_t path_bytes,
                      unsigned depth, struct gw_error *err);

/* old: the entry of this name in the tree that was there before, or NULL */
static int check_entry(struct check *c, const git_tree_entry *e, const git_tree_entry *old,
                       size_t path_bytes, unsigned depth, struct gw_error *err)
{
    struct gw_str name = gw_str_c(git_tree_entry_name(e)), path;
    const char *why = repo_component_refused(name);
    char shown[REPO_SHOWN_MAX];

    if (++c->entries > ENTRIES_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "more than %u files in one push", ENTRIES_MAX);
    }
    if (path_bytes + name.n + 1 >= sizeof(c->path) || depth >= REPO_DEPTH_MAX) {
        say(c, "%s: the path is too long", repo_show(shown, name));
        return GW_OK;
    }
    memcpy(c->path + path_bytes, name.p, name.n);
    path = (struct gw_str){c->path, path_bytes + name.n};
    if (why != NULL) {
        say(c, "%s: %s", repo_show(shown, path), why);
        return GW_OK;
    }
    switch (git_tree_entry_filemode_raw(e)) {
    case 0040000:
        c->path[path.n] = '/';
        return check_tree(c, git_tree_entry_id(e),
                          old != NULL && git_tree_entry_type(old) == GIT_OBJECT_TREE
                              ? git_tree_entry_id(old)
                              : NULL,
                          path.n + 1, depth + 1, err);
    case 0100644:
    case 0100755:
    case 0120000:
        return check_blob(c, git_tree_entry_id(e), git_tree_entry_filemode_raw(e) == 0120000, path,
                          err);
    default:
        say(c, "%s: submodules and special files have no place here", repo_show(shown, path));
        return GW_OK;
    }
}

static int check_tree(struct check *c, const git_oid *id, const git_oid *base, size_t path_bytes,
                      unsigned depth, struct gw_error *err)
{
    git_tree *tree = NULL, *before = NULL;
    bool known = false;
    int rc = look(c, id, path_bytes, depth, &known, err);

    if (rc != GW_OK || known) {
        return rc;
    }
    if (git_tree_lookup(&tree, c->git, id) < 0 ||
        (base != NULL && git_tree_lookup(&before, c->git, base) < 0)) {
        rc = repo_git_fail(err, "read a pushed folder");
    }
    for (size_t i = 0; rc == GW_OK && i < git_tree_entrycount(tree); i++) {
        const git_tree_entry *e = git_tree_entry_byindex(tree, i), *old;

        old = before != NULL ? git_tree_entry_byname(before, git_tree_entry_name(e)) : NULL;
        if (old == NULL || !git_oid_equal(git_tree_entry_id(old), git_tree_entry_id(e)) ||
            git_tree_entry_filemode_raw(old) != git_tree_entry_filemode_raw(e)) {
            rc = check_entry(c, e, old, path_bytes, depth, err);
        }
    }
    git_tree_free(before);
    git_tree_free(tree);
    return rc;
}

/* What a commit adds to its first parent; what comes by another parent is a commit of its own. */
static int check_commit(struct check *c, const git_oid *id, struct gw_error *err)
{
    git_commit *commit = NULL, *parent = NULL;
    git_oid base;
    int rc = GW_OK;

    if (git_commit_lookup(&commit, c->git, id) < 0) {
        return repo_git_fail(err, "read a pushed commit");
    }
    if (git_commit_parentcount(commit) > 0) {
        if (git_commit_parent(&parent, commit, 0) < 0) { /* of a shallow clone */
            parent = NULL;
        } else {
            git_oid_cpy(&base, git_commit_tree_id(parent));
        }
    }
    rc = check_tree(c, git_commit_tree_id(commit), parent != NULL ? &base : NULL, 0, 0, err);
    git_commit_free(parent);
    git_commit_free(commit);
    return rc;
}

/* Commits that no ref leads to yet. */
static int check_history(struct check *c, const git_oid *tip, struct gw_error *err)
{
    git_revwalk *walk = NULL;
    git_oid id;
    int code, rc = GW_OK;

    if (git_revwalk_new(&walk, c->git) < 0 || git_revwalk_push(walk, tip) < 0 ||
        git_revwalk_hide_glob(walk, "refs/*") < 0) {
        git_revwalk_free(walk);
        return repo_git_fail(err, "walk over a push");
    }
    while (rc == GW_OK && (code = git_revwalk_next(&id, walk)) == 0) {
        rc = check_commit(c, &id, err);
    }
    if (rc == GW_OK && code != GIT_ITEROVER) {
        rc = repo_git_fail(err, "walk over a push");
    }
    git_revwalk_free(walk);
    return rc;
}

static bool name_ok(struct gw_str name)
{
    return name.n > 0 && name.n <= NAME_MAX_BYTES && gw_utf8_valid(name) && name.p[0] != '-' &&
           memmem(name.p, name.n, "..", 2) == NULL && !gw_str_starts(name, GW_STR("refs/")) &&
           !gw_str_eq_c(name, "HEAD") && !(name.n == 40 && gw_is_hex_lower(name, 40));
}

static int check_ref(struct check *c, const struct repo_push_ref *r, struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];
    bool branch = gw_str_starts(r->name, GW_STR("refs/heads/"));
    bool tag = gw_str_starts(r->name, GW_STR("refs/tags/"));
    git_object *object = NULL, *commit = NULL;
    git_oid tip;
    int rc = GW_OK;

    c->ref = r->name;
    if (!branch && !tag) {
        say(c, "%s: only branches and tags are pushed here (refs/heads/, refs/tags/)",
            repo_show(shown, r->name));
        return GW_OK;
    }
    if (r->removes) {
        if (gw_str_eq_c(r->name, REPO_BRANCH)) {
            say(c, "refs/heads/main cannot be deleted");
        }
        return GW_OK;
    }
    if (!name_ok(gw_str_sub(r->name, branch ? 11 : 10, r->name.n))) {
        say(c, "%s: no branch or tag has such a name here", repo_show(shown, r->name));
        return GW_OK;
    }
    if (tag && !r->makes) {
        say(c, "%s: a tag does not move; delete it first", repo_show(shown, r->name));
        return GW_OK;
    }
    if (git_oid_fromstr(&tip, r->to) < 0 ||
        git_object_lookup(&object, c->git, &tip, GIT_OBJECT_ANY) < 0) {
        return repo_git_fail(err, "read what was pushed");
    }
    if (git_object_peel(&commit, object, GIT_OBJECT_COMMIT) < 0) {
        say(c, "%s: a branch or tag leads to a commit", repo_show(shown, r->name));
    } else {
        rc = check_history(c, git_object_id(commit), err);
    }
    git_object_free(commit);
    git_object_free(object);
    return rc;
}

static int check_all(struct check *c, const struct repo_push_ref *refs, size_t n,
                     const char *quarantine, struct gw_error *err)
{
    int rc = GW_OK;

    if (repo_git_open(&c->git, &c->odb, c->place->path) < 0 ||
        (quarantine != NULL && git_odb_add_disk_alternate(c->odb, quarantine) < 0)) {
        return repo_git_fail(err, "open what was pushed");
    }
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        rc = check_ref(c, &refs[i], err);
    }
    return rc;
}

int repo_push_check(const char *path, const char *quarantine, const struct repo_push_ref *refs,
                    size_t n, struct gw_buf *says, struct gw_error *err)
{
    struct repo_place place = {.path = path};
    struct check c = {.place = &place, .says = says};
    int rc = check_all(&c, refs, n, quarantine, err);

    git_odb_free(c.odb);
    git_repository_free(c.git);
    gw_free(c.seen);
    if (rc == GW_OK) {
        rc = gw_buf_ok(says, err);
    }
    if (rc == GW_OK && c.said != 0) {
        return gw_fail(err, GW_FORBIDDEN, 0, "the push was refused");
    }
    return rc;
}

/* The lock belongs to the open file, which git has too: it is held until git has moved the refs. */
int repo_push_lock(struct gw_error *err)
{
    int64_t deadline = gw_mono_ms() + LOCK_WAIT_MS;
    struct timespec pause = {.tv_nsec = 10 * 1000000L};

    while (flock(REPO_PUSH_LOCK_FD, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return gw_fail(err, GW_IO, errno, "lock the repository: %s", strerrordesc_np(errno));
        }
        if (gw_mono_ms() >= deadline) {
            return gw_fail(err, GW_CONFLICT, 0,
                           "another writer has held this repository for %d s: push again",
                           LOCK_WAIT_MS / 1000);
        }
        nanosleep(&pause, NULL);
    }
    return GW_OK;
}

int repo_push_line(struct gw_str line, struct repo_push_ref *r, struct gw_arena *a,
                   struct gw_error *err)
{
    memset(r, 0, sizeof(*r));
    return parse_ref(line, r, a, err);
}
