/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/create.c - a commit becomes the tip of a branch, in a repository that is there or in a new
 * one.
 *
 * A new repository is made whole, with its commit, in a temporary folder and then renamed; whoever
 * dies before that leaves nothing that is seen. In one that is there, the pack comes first and one
 * compare-and-swap of the ref last, both under the repository's flock (reliability 3.3).
 */
#include "repo/repo_internal.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"

#include <git2.h>

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_MAX (64u << 10)
#define NAME_MAX_BYTES 256u
#define CREATE_WAIT_MS 30000
#define COMMIT_WAIT_MS 30000
#define REF_WAIT_MS 2000 /* git holds the lock of a ref for milliseconds */
#define REF_TRIES 8

/* ---- the commit object ---- */

/* git's own rule: no angle brackets, no control characters (ident.c) */
static const char *clean(struct gw_str s, const char *otherwise, struct gw_arena *a)
{
    char *out = gw_arena_alloc(a, NAME_MAX_BYTES + 1);
    size_t n = 0;

    for (size_t i = 0; out != NULL && i < s.n && n < NAME_MAX_BYTES; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c >= 0x20 && c != 0x7f && c != '<' && c != '>') {
            out[n++] = (char)c;
        }
    }
    if (out == NULL) {
        return NULL;
    }
    out[n] = '\0';
    return n != 0 ? out : otherwise;
}

int repo_person(const char **name, const char **mail, struct gw_str author, struct gw_arena *a)
{
    struct gw_str who = gw_str_trim(author), at = GW_STR("");
    const char *open = who.n != 0 ? memrchr(who.p, '<', who.n) : NULL;

    if (open != NULL && who.p[who.n - 1] == '>') {
        size_t n = (size_t)(open - who.p);

        at = gw_str_sub(who, n + 1, who.n - n - 2);
        who = gw_str_trim(gw_str_sub(who, 0, n));
    }
    *name = clean(who, "hubgate", a);
    *mail = clean(at, "", a);
    return *name != NULL && *mail != NULL ? GW_OK : GW_NO_MEMORY;
}

static int put_commit(const struct repo_draft *s, const git_oid *tree_id, const git_oid *parent,
                      git_oid *out, struct gw_error *err)
{
    char tree[2 * REPO_OID_BYTES + 1], hex[GIT_OID_HEXSZ + 1];
    uint8_t oid[REPO_OID_BYTES];
    const char *name, *mail;
    struct gw_arena a;
    struct gw_buf b;
    int rc;

    gw_arena_init(&a, 64u << 10);
    rc = repo_person(&name, &mail, s->author, &a);
    if (rc != GW_OK) {
        gw_arena_release(&a);
        return gw_fail(err, rc, 0, "no memory for a commit");
    }
    gw_buf_init(&b, MESSAGE_MAX + 4096);
    gw_hex_encode(tree, tree_id->id, REPO_OID_BYTES);
    gw_buf_addf(&b, "tree %s\n", tree);
    if (parent != NULL) {
        gw_buf_addf(&b, "parent %s\n", git_oid_tostr(hex, sizeof(hex), parent));
    }
    for (size_t i = 0; i < 2; i++) {
        gw_buf_addf(&b, "%s %s <%s> %lld +0000\n", i == 0 ? "author" : "committer", name, mail,
                    (long long)(s->now_ms > 0 ? s->now_ms / 1000 : 0));
    }
    gw_arena_release(&a);
    gw_buf_add_char(&b, '\n');
    gw_buf_add(&b, s->message);
    if (!gw_str_ends(s->message, GW_STR("\n"))) {
        gw_buf_add_char(&b, '\n');
    }
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        rc = repo_spool_put(s->spool, REPO_OBJECT_COMMIT, gw_buf_str(&b), oid, err);
    }
    if (rc == GW_OK) {
        memcpy(out->id, oid, sizeof(oid));
    }
    gw_buf_release(&b);
    return rc;
}

static int check_message(struct gw_str message, struct gw_error *err)
{
    if (message.n > MESSAGE_MAX) {
        return gw_fail(err, GW_INVALID, 0, "a commit message has at most %u bytes", MESSAGE_MAX);
    }
    if (!gw_utf8_valid(message) || (message.n != 0 && memchr(message.p, '\0', message.n) != NULL)) {
        return gw_fail(err, GW_INVALID, 0, "a commit message is UTF-8 text without NUL");
    }
    return GW_OK;
}

/* ---- a repository that is there ---- */

static const char *ref_of(const struct repo_draft *s)
{
    return s->ref != NULL ? s->ref : REPO_BRANCH;
}

static int read_tree_id(git_repository *git, const char *path, const git_oid *commit_id,
                        git_oid *tree, struct gw_error *err)
{
    git_commit *commit = NULL;

    if (git_commit_lookup(&commit, git, commit_id) < 0) {
        return repo_git_fail(err, "read a commit of %s", path);
    }
    git_oid_cpy(tree, git_commit_tree_id(commit));
    git_commit_free(commit);
    return GW_OK;
}

/* GW_NOT_FOUND: no such branch, or no commit on main yet */
static int read_tip(git_repository *git, const char *path, const char *ref, git_oid *tip,
                    struct gw_error *err)
{
    int code = git_reference_name_to_id(tip, git, ref);

    if (code == GIT_ENOTFOUND || code == GIT_EINVALIDSPEC) {
        return gw_fail(err, GW_NOT_FOUND, REPO_NO_COMMIT, "there is no %s", ref);
    }
    return code < 0 ? repo_git_fail(err, "read %s of %s", ref, path) : GW_OK;
}

int repo_ref_sync(const char *path, const char *ref, struct gw_error *err)
{
    char folder[4096];
    int n = snprintf(folder, sizeof(folder), "%s/%s", path, ref), rc = GW_OK;
    size_t top = strlen(path);

    if (n < 0 || (size_t)n >= sizeof(folder)) {
        return gw_fail(err, GW_IO, ENAMETOOLONG, "%s: %s", path, strerrordesc_np(ENAMETOOLONG));
    }
    for (char *slash; (slash = strrchr(folder, '/')) > folder + top;) {
        struct stat st;

        *slash = '\0';
        if (lstat(folder, &st) == 0) { /* libgit2 removes folders that a deleted ref leaves empty */
            rc = gw_dir_sync(folder, err);
        }
        if (rc != GW_OK) {
            return rc;
        }
    }
    return GW_OK;
}

/* GIT_ELOCKED is worth another try: *deadline is 0 at the first. Whoever writes here holds our
 * flock, so a lock file that stays is a dead writer's, and is removed; a person's own git holds one
 * for milliseconds (reliability 3.3, step 2). */
bool repo_ref_wait(int code, const char *path, const char *ref, int64_t *deadline)
{
    struct timespec pause = {.tv_nsec = 10 * 1000000L};
    char lock[4096];
    int n = snprintf(lock, sizeof(lock), "%s/%s.lock", path, ref);

    if (code != GIT_ELOCKED || *deadline < 0 || n < 0 || (size_t)n >= sizeof(lock)) {
        return false;
    }
    if (*deadline == 0) {
        *deadline = gw_mono_ms() + REF_WAIT_MS;
    } else if (gw_mono_ms() >= *deadline) {
        unlink(lock);
        *deadline = -1;
    }
    nanosleep(&pause, NULL);
    return true;
}

int repo_ref_swap(git_repository *git, const char *path, const char *name, const git_oid *to,
                  const git_oid *tip, struct gw_error *err)
{
    int64_t deadline = 0;
    int code;

    do {
        git_reference *ref = NULL;

        code = tip != NULL ? git_reference_create_matching(&ref, git, name, to, 1, tip, "hubgate")
                           : git_reference_create(&ref, git, name, to, 0, "hubgate");
        git_reference_free(ref);
    } while (repo_ref_wait(code, path, name, &deadline));
    if (code == GIT_EMODIFIED || code == GIT_EEXISTS || (code == GIT_ENOTFOUND && tip != NULL)) {
        return gw_fail(
            err, GW_CONFLICT, 0,
            tip != NULL ? "%s moved while it was written" : "Reference %s already exists", name);
    }
    if (code < 0) {
        return repo_git_fail(err, "update %s of %s", name, path);
    }
    return strcmp(name, REPO_BRANCH) == 0 ? GW_OK : repo_ref_sync(path, name, err);
}

/* Meant for another tip: an error, unless this is the repetition of a commit that was made, which
 * is what a client does whose answer was lost (hub-write 8.9, 8.10). GW_OK: the tip is the answer
 */
static int check_parent(git_repository *git, const char *path, const struct repo_draft *s,
                        const git_oid *tip, const git_oid *tip_tree, struct gw_error *err)
{
    git_commit *commit = NULL;
    git_oid parent, tree;
    uint8_t made[REPO_OID_BYTES];
    int rc = GW_CONFLICT;

    if (git_commit_lookup(&commit, git, tip) < 0) {
        return repo_git_fail(err, "read a commit of %s", path);
    }
    if (git_commit_parentcount(commit) == 1) {
        char hex[GIT_OID_HEXSZ + 1];

        git_oid_cpy(&parent, git_commit_parent_id(commit, 0));
        git_oid_tostr(hex, sizeof(hex), &parent);
        if (gw_str_starts(gw_str_c(hex), s->parent) &&
            read_tree_id(git, path, &parent, &tree, NULL) == GW_OK &&
            s->make_tree(s->ctx, git, tree.id, made, NULL) == GW_OK &&
            memcmp(made, tip_tree->id, REPO_OID_BYTES) == 0) {
            rc = GW_OK;
        }
    }
    git_commit_free(commit);
    return rc == GW_OK
               ? GW_OK
               : gw_fail(err, GW_CONFLICT, REPO_MOVED,
                         "the branch was updated since the parent commit that this was made "
                         "for; fetch and try again");
}

static bool is_meant_for(const struct repo_draft *s, const git_oid *tip)
{
    char hex[GIT_OID_HEXSZ + 1];

    git_oid_tostr(hex, sizeof(hex), tip);
    return gw_str_starts(gw_str_c(hex), s->parent);
}

/* On the tip, or as the first commit. *made: it, or the tip, when that has this tree already. */
static int commit_on(git_repository *git, git_odb *odb, const char *path,
                     const struct repo_draft *s, const git_oid *tip, git_oid *made,
                     struct gw_error *err)
{
    git_oid base, tree;
    int rc = tip != NULL ? read_tree_id(git, path, tip, &base, err) : GW_OK;

    if (rc == GW_OK && tip != NULL && !is_meant_for(s, tip)) {
        git_oid_cpy(made, tip);
        return check_parent(git, path, s, tip, &base, err);
    }
    if (rc == GW_OK) {
        rc = s->make_tree(s->ctx, git, tip != NULL ? base.id : NULL, tree.id, err);
    }
    if (rc == GW_OK && tip != NULL && git_oid_equal(&base, &tree)) {
        git_oid_cpy(made, tip);
        return GW_OK;
    }
    if (rc == GW_OK) {
        rc = put_commit(s, &tree, tip, made, err);
    }
    if (rc == GW_OK) {
        rc = repo_spool_pack(s->spool, git, odb, path, s->work->dir, err);
    }
    return rc == GW_OK ? repo_ref_swap(git, path, ref_of(s), made, tip, err) : rc;
}

/* One try. GW_CONFLICT: the branch moved in between (not under our lock: a person's own git) */
static int commit_once(const char *path, const struct repo_draft *s, char commit[41],
                       struct gw_error *err)
{
    git_repository *git = NULL;
    git_odb *odb = NULL;
    git_oid tip, made;
    int rc;

    rc = s->prepare != NULL ? s->prepare(s->ctx, path, err) : GW_OK;
    if (rc != GW_OK) {
        return rc;
    }
    if (repo_git_open(&git, &odb, path) < 0) {
        return repo_git_fail(err, "open %s", path);
    }
    rc = read_tip(git, path, ref_of(s), &tip, err);
    if (rc == GW_OK) {
        rc = commit_on(git, odb, path, s, &tip, &made, err);
    } else if (rc == GW_NOT_FOUND && s->ref == NULL) {
        rc = commit_on(git, odb, path, s, NULL, &made, err);
    }
    if (rc == GW_OK) {
        git_oid_tostr(commit, 41, &made);
    }
    git_odb_free(odb);
    git_repository_free(git);
    return rc;
}

static int commit_into(const struct repo_place *place, const struct repo_draft *s, char commit[41],
                       struct gw_arena *a, struct gw_error *err)
{
    struct gw_str lock = gw_arena_printf(a, "%s/.gw.lock", place->path);
    int fd = -1, rc;

    if (lock.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    rc = repo_lock(&fd, lock.p, COMMIT_WAIT_MS, err);
    if (rc != GW_OK) {
        return rc;
    }
    for (int i = 0; i < REF_TRIES; i++) {
        rc = commit_once(place->path, s, commit, err);
        if (rc != GW_CONFLICT || (err != NULL && err->sys == REPO_MOVED)) {
            break;
        }
    }
    repo_unlock(fd);
    return rc;
}

/* ---- a new one ---- */

/* What git itself reads later: whatever writes here syncs everything, nothing is thrown away behind
 * our back, and packing has a bounded window (libgit2's packbuilder reads the same two). */
#define CONFIG                                                                                     \
    "[core]\n"                                                                                     \
    "\trepositoryformatversion = 0\n"                                                              \
    "\tfilemode = true\n"                                                                          \
    "\tbare = true\n"                                                                              \
    "\tfsync = all\n"                                                                              \
    "[gc]\n"                                                                                       \
    "\tauto = 0\n"                                                                                 \
    "[receive]\n"                                                                                  \
    "\tautogc = false\n"                                                                           \
    "[pack]\n"                                                                                     \
    "\twindowMemory = 64m\n"                                                                       \
    "\tdeltaCacheSize = 16m\n"                                                                     \
    "[hubgate]\n"                                                                                  \
    "\tcreated = %lld\n"

static int make_skeleton(const char *path, int64_t now_ms, struct gw_arena *a, struct gw_error *err)
{
    static const char *const folders[] = {"objects/pack", "objects/info", "refs/heads",
                                          "refs/tags"};
    struct gw_str config = gw_arena_printf(a, CONFIG, (long long)now_ms);
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < sizeof(folders) / sizeof(folders[0]); i++) {
        struct gw_str folder = gw_arena_printf(a, "%s/%s", path, folders[i]);

        rc = folder.p != NULL ? gw_dir_make(folder.p, 0750, err)
                              : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    if (rc == GW_OK && config.p == NULL) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for a repository's config");
    }
    if (rc == GW_OK) {
        rc = gw_file_create(path, "config", config, 0640, err);
    }
    if (rc == GW_OK) {
        rc = gw_file_create(path, ".gw.lock", GW_STR(""), 0640, err);
    }
    if (rc == GW_OK) {
        rc = gw_file_create(path, "HEAD", GW_STR("ref: " REPO_BRANCH "\n"), 0640, err);
    }
    return rc;
}

/* path: a repository nobody sees yet */
static int make_whole(const char *path, const struct repo_draft *s, char commit[41],
                      struct gw_arena *a, struct gw_error *err)
{
    int rc = make_skeleton(path, s->now_ms, a, err);

    return rc == GW_OK ? commit_once(path, s, commit, err) : rc;
}

/* Under the lock of all names: GW_CONFLICT if it is there by now, in any case. */
static int put_in_place(const char *data_dir, const struct repo_draft *s, const char *made,
                        struct gw_arena *a, struct gw_error *err)
{
    struct repo_place place;
    int rc = repo_locate(data_dir, s->id, a, &place, err);

    if (rc == GW_OK) {
        return gw_fail(err, GW_CONFLICT, 0,
                       GW_STR_FMT " " GW_STR_FMT "/" GW_STR_FMT " exists already",
                       GW_STR_ARG(s->id->type), GW_STR_ARG(place.ns), GW_STR_ARG(place.name));
    }
    if (rc != GW_NOT_FOUND || (rc = gw_dir_make(place.dir, 0750, err)) != GW_OK) {
        return rc;
    }
    if (rename(made, place.path) != 0) {
        return gw_fail(err, GW_IO, errno, "rename to %s: %s", place.path, strerrordesc_np(errno));
    }
    rc = gw_dir_sync(place.dir, err);
    repo_moved_forget(&place);
    return rc;
}

static int make_new(const char *data_dir, const struct repo_draft *s, char commit[41],
                    struct gw_arena *a, struct gw_error *err)
{
    struct gw_str repos = gw_arena_printf(a, "%s/repos", data_dir);
    struct gw_str lock = gw_arena_printf(a, "%s/repos/.lock", data_dir);
    struct gw_str made = gw_arena_printf(a, "%s/new.git", s->work->dir);
    int fd = -1, rc;

    if (repos.p == NULL || lock.p == NULL || made.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    rc = make_whole(made.p, s, commit, a, err);
    if (rc == GW_OK) {
        rc = gw_dir_make(repos.p, 0750, err);
    }
    if (rc == GW_OK) {
        rc = repo_lock(&fd, lock.p, CREATE_WAIT_MS, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    rc = put_in_place(data_dir, s, made.p, a, err);
    repo_unlock(fd);
    return rc;
}

int repo_publish(const char *data_dir, const struct repo_draft *s, bool only_new, char commit[41],
                 struct gw_error *err)
{
    struct repo_place place;
    struct gw_arena a;
    int rc = check_message(s->message, err);

    if (rc != GW_OK) {
        return rc;
    }
    gw_arena_init(&a, 1u << 20);
    rc = repo_locate(data_dir, s->id, &a, &place, err);
    if (rc == GW_NOT_FOUND && s->ref == NULL) {
        rc = make_new(data_dir, s, commit, &a, err);
        if (rc == GW_CONFLICT && !only_new) {
            /* made by somebody else meanwhile; not there: the lock of all names was not to be had
             */
            if (repo_locate(data_dir, s->id, &a, &place, NULL) == GW_OK) {
                rc = commit_into(&place, s, commit, &a, err);
            }
        }
    } else if (rc == GW_OK && only_new) {
        rc =
            gw_fail(err, GW_CONFLICT, 0, GW_STR_FMT " " GW_STR_FMT "/" GW_STR_FMT " exists already",
                    GW_STR_ARG(s->id->type), GW_STR_ARG(place.ns), GW_STR_ARG(place.name));
    } else if (rc == GW_OK) {
        rc = commit_into(&place, s, commit, &a, err);
    }
    gw_arena_release(&a);
    return rc;
}

/* ---- repo_create ---- */

/* A tree of one file. */
static int put_tree(struct repo_spool *spool, const char *name, const uint8_t blob[REPO_OID_BYTES],
                    uint8_t tree[REPO_OID_BYTES], struct gw_error *err)
{
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 1024);
    gw_buf_addf(&b, "100644 %s", name);
    gw_buf_add_char(&b, '\0');
    gw_buf_add(&b, (struct gw_str){(const char *)blob, REPO_OID_BYTES});
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        rc = repo_spool_put(spool, REPO_OBJECT_TREE, gw_buf_str(&b), tree, err);
    }
    gw_buf_release(&b);
    return rc;
}

static int first_tree(void *ctx, git_repository *git, const uint8_t *base,
                      uint8_t tree[REPO_OID_BYTES], struct gw_error *err)
{
    struct repo_draft *s = ctx;
    uint8_t blob[REPO_OID_BYTES];
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 64u << 10);
    repo_rules_put_default(&b, s->id->type);
    rc = gw_buf_ok(&b, err);
    if (rc == GW_OK) {
        rc = repo_spool_put(s->spool, REPO_OBJECT_BLOB, gw_buf_str(&b), blob, err);
    }
    gw_buf_release(&b);
    return rc == GW_OK ? put_tree(s->spool, ".gitattributes", blob, tree, err) : rc;
}

int repo_create(const char *data_dir, const struct repo_id *id, struct gw_str author,
                int64_t now_ms, struct gw_error *err)
{
    struct repo_work work;
    struct repo_draft s = {.id = id,
                           .work = &work,
                           .message = GW_STR("initial commit"),
                           .author = author,
                           .now_ms = now_ms,
                           .make_tree = first_tree,
                           .ctx = &s};
    char commit[41];
    int rc = repo_id_check(id, true, err);

    if (rc != GW_OK || (rc = repo_data_open(data_dir, err)) != GW_OK) {
        return rc;
    }
    rc = repo_work_begin(&work, data_dir, err);
    if (rc == GW_OK) {
        rc = repo_spool_open(&s.spool, work.dir, err);
    }
    if (rc == GW_OK) {
        rc = repo_publish(data_dir, &s, true, commit, err);
    }
    repo_spool_close(s.spool);
    repo_work_end(&work);
    return rc;
}
