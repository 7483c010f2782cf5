/* SPDX-License-Identifier: Apache-2.0 */
/* repo/manage.c - branches, tags, and a repository as a whole. */
#include "repo/repo_internal.h"

#include "base/file.h"

#include <git2.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 30000
#define REF_BYTES 512u
#define TRASHED_MAX 100000u
#define PULLS "refs/pr/"

struct held { /* a repository under its lock */
    struct gw_arena a;
    struct repo_place place;
    int lock;
    git_repository *git;
    git_odb *odb;
};

static int no_memory(struct gw_error *err)
{
    return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a repository");
}

static void release(struct held *h)
{
    git_odb_free(h->odb);
    git_repository_free(h->git);
    repo_unlock(h->lock);
    gw_arena_release(&h->a);
}

static int hold(struct held *h, const char *data_dir, const struct repo_id *id,
                struct gw_error *err)
{
    struct gw_str lock;
    int rc = repo_id_check(id, false, err);

    *h = (struct held){.lock = -1};
    gw_arena_init(&h->a, 1u << 20);
    if (rc == GW_OK) {
        rc = repo_locate(data_dir, id, &h->a, &h->place, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    lock = gw_arena_printf(&h->a, "%s/.gw.lock", h->place.path);
    if (lock.p == NULL) {
        return no_memory(err);
    }
    rc = repo_lock(&h->lock, lock.p, WAIT_MS, err);
    if (rc == GW_OK && repo_git_open(&h->git, &h->odb, h->place.path) < 0) {
        rc = repo_git_fail(err, "open %s", h->place.path);
    }
    return rc;
}

/* ---- refs ---- */

static int ref_name(char out[REF_BYTES], const char *prefix, struct gw_str name,
                    struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];
    int valid = 0;
    int n = snprintf(out, REF_BYTES, "%s" GW_STR_FMT, prefix, GW_STR_ARG(name));

    /* no address can name what is longer or begins with '-' */
    if (name.n == 0 || name.n > NAME_MAX || name.p[0] == '-' || n < 0 || (size_t)n >= REF_BYTES ||
        memchr(name.p, '\0', name.n) != NULL || gw_str_starts(name, GW_STR("refs/")) ||
        git_reference_name_is_valid(&valid, out) < 0 || !valid) {
        return gw_fail(err, GW_INVALID, 0, "Invalid reference for a branch or tag: %s",
                       repo_show(shown, name));
    }
    return GW_OK;
}

static int find_commit(const char *data_dir, const struct repo_id *id, struct gw_str revision,
                       git_oid *out, struct gw_error *err)
{
    struct repo *r = NULL;
    char hex[41];
    int rc = repo_open(&r, data_dir, id, err);

    if (rc == GW_OK) {
        rc = repo_resolve(r, revision, hex, err);
    }
    repo_close(r);
    return rc == GW_OK && git_oid_fromstr(out, hex) < 0 ? GW_CORRUPT : rc;
}

int repo_branch_create(const char *data_dir, const struct repo_id *id, struct gw_str name,
                       struct gw_str start, struct gw_error *err)
{
    char full[REF_BYTES];
    struct held h;
    git_oid commit;
    int rc = ref_name(full, "refs/heads/", name, err);

    if (rc != GW_OK || (rc = find_commit(data_dir, id, start, &commit, err)) != GW_OK) {
        return rc;
    }
    rc = hold(&h, data_dir, id, err);
    if (rc == GW_OK) {
        rc = repo_ref_swap(h.git, h.place.path, full, &commit, NULL, err);
    }
    release(&h);
    return rc;
}

/* An annotated tag is an object of its own, and the folder that libgit2 makes for it is not synced.
 */
static int put_tag(struct held *h, const char *name, const git_oid *commit, struct gw_str message,
                   struct gw_str author, int64_t now_ms, struct gw_error *err)
{
    git_object *target = NULL;
    git_signature *who = NULL;
    const char *text = gw_arena_cstr(&h->a, message), *name_of, *mail;
    const char *objects = gw_arena_printf(&h->a, "%s/objects", h->place.path).p;
    git_oid oid;
    int rc, code = repo_person(&name_of, &mail, author, &h->a);

    if (text == NULL || objects == NULL || code != GW_OK) {
        return no_memory(err);
    }
    if (git_reference_name_to_id(&oid, h->git, name) == 0) {
        return gw_fail(err, GW_CONFLICT, 0, "Reference %s already exists", name);
    }
    code = git_object_lookup(&target, h->git, commit, GIT_OBJECT_COMMIT);
    if (code == 0) {
        code = git_signature_new(&who, name_of, mail[0] != 0 ? mail : "hubgate", now_ms / 1000, 0);
    }
    if (code == 0) {
        code =
            git_tag_annotation_create(&oid, h->git, name + strlen("refs/tags/"), target, who, text);
    }
    rc = code < 0 ? repo_git_fail(err, "make tag %s", name) : gw_dir_sync(objects, err);
    git_signature_free(who);
    git_object_free(target);
    return rc == GW_OK ? repo_ref_swap(h->git, h->place.path, name, &oid, NULL, err) : rc;
}

int repo_tag_create(const char *data_dir, const struct repo_id *id, struct gw_str name,
                    struct gw_str revision, struct gw_str message, struct gw_str author,
                    int64_t now_ms, struct gw_error *err)
{
    char full[REF_BYTES];
    struct held h;
    git_oid commit;
    int rc = ref_name(full, "refs/tags/", name, err);

    if (rc != GW_OK || (rc = find_commit(data_dir, id, revision, &commit, err)) != GW_OK) {
        return rc;
    }
    rc = hold(&h, data_dir, id, err);
    if (rc == GW_OK) {
        rc = message.n != 0 ? put_tag(&h, full, &commit, message, author, now_ms, err)
                            : repo_ref_swap(h.git, h.place.path, full, &commit, NULL, err);
    }
    release(&h);
    return rc;
}

int repo_ref_delete(const char *data_dir, const struct repo_id *id, bool tag, struct gw_str name,
                    struct gw_error *err)
{
    char full[REF_BYTES];
    git_reference *ref = NULL;
    struct held h;
    int64_t deadline = 0;
    int code, rc = ref_name(full, tag ? "refs/tags/" : "refs/heads/", name, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (strcmp(full, REPO_BRANCH) == 0) {
        return gw_fail(err, GW_FORBIDDEN, 0, "Cannot delete " REPO_BRANCH);
    }
    rc = hold(&h, data_dir, id, err);
    if (rc == GW_OK) {
        do {
            git_reference_free(ref);
            ref = NULL;
            code = git_reference_lookup(&ref, h.git, full);
            if (code == 0) {
                code = git_reference_delete(ref);
            }
        } while (repo_ref_wait(code, h.place.path, full, &deadline));
        if (code == GIT_ENOTFOUND) {
            rc = gw_fail(err, GW_NOT_FOUND, REPO_NO_COMMIT, "there is no %s", full);
        } else if (code < 0) {
            rc = repo_git_fail(err, "delete %s", full);
        } else {
            rc = repo_ref_sync(h.place.path, full, err);
        }
    }
    git_reference_free(ref);
    release(&h);
    return rc;
}

/* ---- pull requests ---- */

static int next_number(struct held *h, uint64_t *number, struct gw_error *err)
{
    git_reference_iterator *it = NULL;
    const char *name;
    int code = git_reference_iterator_glob_new(&it, h->git, PULLS "*");

    *number = 1;
    while (code == 0 && (code = git_reference_next_name(&name, it)) == 0) {
        uint64_t n;

        if (gw_str_u64(gw_str_c(name + sizeof(PULLS) - 1), &n) && n >= *number) {
            *number = n + 1;
        }
    }
    git_reference_iterator_free(it);
    return code == GIT_ITEROVER ? GW_OK : repo_git_fail(err, "refs of %s", h->place.path);
}

int repo_pull_create(const char *data_dir, const struct repo_id *id, struct gw_str branch,
                     uint64_t *number, struct gw_error *err)
{
    char name[REF_BYTES];
    struct held h;
    git_oid commit;
    int rc = find_commit(data_dir, id, branch, &commit, err);

    if (rc != GW_OK) {
        return rc;
    }
    rc = hold(&h, data_dir, id, err);
    if (rc == GW_OK) {
        rc = next_number(&h, number, err);
    }
    if (rc == GW_OK) {
        snprintf(name, sizeof(name), PULLS "%llu", (unsigned long long)*number);
        rc = repo_ref_swap(h.git, h.place.path, name, &commit, NULL, err);
    }
    release(&h);
    return rc;
}

int repo_pull_remove(const char *data_dir, const struct repo_id *id, uint64_t number,
                     struct gw_error *err)
{
    char name[REF_BYTES];
    struct held h;
    int rc = hold(&h, data_dir, id, err);

    if (rc == GW_OK) {
        snprintf(name, sizeof(name), PULLS "%llu", (unsigned long long)number);
        if (git_reference_remove(h.git, name) < 0) {
            rc = repo_git_fail(err, "delete %s", name);
        }
    }
    release(&h);
    return rc;
}

/* ---- history ---- */

/* The new commit, which nothing names yet; tip: of the branch. A libgit2 code */
static int put_squashed(struct held *h, const char *name, struct gw_str message,
                        struct gw_str author, int64_t now_ms, git_oid *tip, git_oid *made)
{
    const char *text = gw_arena_cstr(&h->a, message), *who_name, *mail;
    git_commit *commit = NULL;
    git_tree *tree = NULL;
    git_signature *who = NULL;
    int code = text != NULL && repo_person(&who_name, &mail, author, &h->a) == GW_OK
                   ? git_reference_name_to_id(tip, h->git, name)
                   : GIT_ERROR;

    if (code == 0) {
        code = git_commit_lookup(&commit, h->git, tip);
    }
    if (code == 0) {
        code = git_commit_tree(&tree, commit);
    }
    if (code == 0) {
        code = git_signature_new(&who, who_name, mail[0] != 0 ? mail : "hubgate", now_ms / 1000, 0);
    }
    if (code == 0) {
        code = git_commit_create(made, h->git, NULL, who, who, NULL, text, tree, 0, NULL);
    }
    git_signature_free(who);
    git_tree_free(tree);
    git_commit_free(commit);
    return code;
}

static int squash(struct held *h, const char *name, struct gw_str message, struct gw_str author,
                  int64_t now_ms, char commit[41], struct gw_error *err)
{
    const char *objects = gw_arena_printf(&h->a, "%s/objects", h->place.path).p;
    git_oid tip, made;
    int rc, code = put_squashed(h, name, message, author, now_ms, &tip, &made);

    if (code == GIT_ENOTFOUND) {
        return gw_fail(err, GW_NOT_FOUND, REPO_NO_COMMIT, "there is no %s", name);
    }
    if (code < 0) {
        return repo_git_fail(err, "squash %s", name);
    }
    rc = objects != NULL ? gw_dir_sync(objects, err) : no_memory(err);
    if (rc == GW_OK) {
        rc = repo_ref_swap(h->git, h->place.path, name, &made, &tip, err);
    }
    git_oid_tostr(commit, 41, &made);
    return rc;
}

int repo_squash(const char *data_dir, const struct repo_id *id, struct gw_str branch,
                struct gw_str message, struct gw_str author, int64_t now_ms, char commit[41],
                struct gw_error *err)
{
    char full[REF_BYTES];
    struct held h;
    int rc = ref_name(full, "refs/heads/", branch.n != 0 ? branch : GW_STR("main"), err);

    if (rc != GW_OK) {
        return rc;
    }
    rc = hold(&h, data_dir, id, err);
    if (rc == GW_OK) {
        rc = squash(&h, full, message, author, now_ms, commit, err);
    }
    release(&h);
    return rc;
}

/* ---- the whole ---- */

static int move_folder(const char *from, const char *from_dir, const char *to, const char *to_dir,
                       struct gw_error *err)
{
    int rc;

    if (rename(from, to) != 0) {
        return gw_fail(err, GW_IO, errno, "rename to %s: %s", to, strerrordesc_np(errno));
    }
    rc = gw_dir_sync(to_dir, err);
    return rc == GW_OK ? gw_dir_sync(from_dir, err) : rc;
}

/* data/trash/<type>/<ns> of what is at place */
static const char *trash_of(const char *data_dir, const struct repo_id *id,
                            const struct repo_place *place, struct gw_arena *a)
{
    return gw_arena_printf(a, "%s/trash/" GW_STR_FMT "/" GW_STR_FMT, data_dir, GW_STR_ARG(id->type),
                           GW_STR_ARG(place->ns))
        .p;
}

int repo_delete(const char *data_dir, const struct repo_id *id, int64_t now_ms,
                struct gw_error *err)
{
    const char *trash, *to;
    struct held h;
    int rc = hold(&h, data_dir, id, err);

    if (rc == GW_OK) {
        trash = trash_of(data_dir, id, &h.place, &h.a);
        to = gw_arena_printf(&h.a, "%s/" GW_STR_FMT ".git.%lld", trash != NULL ? trash : "",
                             GW_STR_ARG(h.place.name), (long long)now_ms)
                 .p;
        rc = trash != NULL && to != NULL ? gw_dir_make(trash, 0750, err) : no_memory(err);
        if (rc == GW_OK) {
            repo_moved_forget(&h.place); /* of a move that was killed half-way */
            rc = move_folder(h.place.path, h.place.dir, to, trash, err);
        }
    }
    release(&h);
    return rc;
}

/* The newest name of this repository in its trash; "" if there is none. */
static int newest(const char *trash, struct gw_str name, struct gw_arena *a, struct gw_str *found,
                  struct gw_error *err)
{
    struct gw_str *names, prefix = gw_arena_printf(a, GW_STR_FMT ".git.", GW_STR_ARG(name));
    uint64_t at, latest = 0;
    size_t n = 0;
    int rc =
        prefix.p != NULL ? gw_dir_list(trash, TRASHED_MAX, a, &names, &n, err) : no_memory(err);

    *found = GW_STR("");
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        if (names[i].n > prefix.n && gw_str_ieq(gw_str_sub(names[i], 0, prefix.n), prefix) &&
            gw_str_u64(gw_str_sub(names[i], prefix.n, names[i].n), &at) && at >= latest) {
            latest = at;
            *found = names[i];
        }
    }
    return rc == GW_NOT_FOUND ? GW_OK : rc;
}

static int restore(const char *data_dir, const struct repo_id *id, struct gw_arena *a,
                   struct gw_error *err)
{
    struct repo_place place;
    struct gw_str found = GW_STR("");
    const char *trash, *from;
    int rc = repo_locate(data_dir, id, a, &place, err);

    if (rc == GW_OK) {
        return gw_fail(err, GW_CONFLICT, 0, "a repository of this name is there");
    }
    if (rc != GW_NOT_FOUND) {
        return rc;
    }
    trash = trash_of(data_dir, id, &place, a);
    rc = trash != NULL ? newest(trash, id->name, a, &found, err) : no_memory(err);
    if (rc == GW_OK && found.n == 0) {
        rc = gw_fail(err, GW_NOT_FOUND, 0, "nothing of this name was deleted");
    }
    if (rc != GW_OK) {
        return rc;
    }
    from = gw_arena_printf(a, "%s/" GW_STR_FMT, trash, GW_STR_ARG(found)).p;
    rc = from != NULL ? gw_dir_make(place.dir, 0750, err) : no_memory(err);
    if (rc == GW_OK) {
        rc = move_folder(from, trash, place.path, place.dir, err);
    }
    if (rc == GW_OK) {
        repo_moved_forget(&place);
    }
    return rc;
}

int repo_restore(const char *data_dir, const struct repo_id *id, struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str lock;
    int fd = -1, rc = repo_id_check(id, false, err);

    if (rc != GW_OK) {
        return rc;
    }
    gw_arena_init(&a, 32u << 20);
    lock = gw_arena_printf(&a, "%s/repos/.lock", data_dir);
    rc = lock.p != NULL ? repo_lock(&fd, lock.p, WAIT_MS, err) : no_memory(err);
    if (rc == GW_OK) {
        rc = restore(data_dir, id, &a, err);
    }
    repo_unlock(fd);
    gw_arena_release(&a);
    return rc;
}
