/* SPDX-License-Identifier: Apache-2.0 */
/* repo/repo_internal.h - what the files of repo/ share. libgit2's headers stay in the .c files. */
#ifndef REPO_INTERNAL_H
#define REPO_INTERNAL_H

#include <sys/types.h>

#include "repo/repo.h"

struct git_repository;
struct git_odb;
struct git_oid;

#define REPO_OID_BYTES 20u
#define REPO_PATH_MAX 4096u                /* bytes of a path inside a repository */
#define REPO_DEPTH_MAX 128u                /* folders in it */
#define REPO_BLOB_MAX (UINT64_C(10) << 20) /* larger files are LFS objects (hub-write 2.2) */
#define REPO_POINTER_BYTES_MIN 126u        /* of the one canonical form: one digit of size ... */
#define REPO_POINTER_BYTES_MAX 144u        /* ... to nineteen (INT64_MAX) */
#define REPO_ATTRIBUTES_MAX (16u << 20)    /* bytes of a .gitattributes file */
#define REPO_BRANCH "refs/heads/main"

/* ---- lib.c: libgit2's errors ---- */
/* libgit2's last error of this thread as ours: GW_NO_MEMORY, GW_IO (the disk), else GW_CORRUPT.
 * Must be the first thing after the call that failed. what: "type ns/name: read commit". */
int repo_git_fail(struct gw_error *err, const char *what, ...) GW_PRINTF(2, 3);

/* Opens the bare repository at path as every part of repo/ must: with our reader of loose objects.
 * Both are owned, also the odb. A libgit2 code: < 0 for repo_git_fail */
int repo_git_open(struct git_repository **git, struct git_odb **odb, const char *path);

/* ---- packs.c ---- */
int repo_packs_check(
    const char *repo_path); /* a libgit2 code: < 0, an index that libgit2 must not see */

/* ---- loose.c ---- */
#define REPO_LOOSE_PRIORITY 2 /* after packs (3), before libgit2's own loose reader (1) */
int repo_loose_add(struct git_odb *odb, const char *repo_path); /* a libgit2 code */
/* file: the bytes of a loose object. type: git's number; size: of the body behind head_bytes.
 * false: damaged */
bool repo_loose_head(struct gw_str file, int *type, uint64_t *size, size_t *head_bytes);
/* Head and body together, to be freed with gw_free. NULL: damaged, or no memory */
char *repo_loose_body(struct gw_str file, size_t head_bytes, uint64_t size);

/* ---- name.c ---- */
/* Grammar of the hub clients; reserved words only count where a repository is made. GW_OK;
 * GW_INVALID */
int repo_id_check(const struct repo_id *id, bool making, struct gw_error *err) GW_MUST_CHECK;
bool repo_ns_valid(struct gw_str ns);
bool repo_name_valid(struct gw_str name);
/* "model", "dataset", "space", then NULL */
extern const char *const repo_types[];

struct repo_place {
    struct gw_str ns, name; /* as stored, or as it would be */
    const char *dir;        /* data/repos/<type>/<ns> */
    const char *path;       /* dir/<name>.git */
};
/* Where id is. @return GW_OK; GW_NOT_FOUND (place: where it would be, an existing namespace in its
 * own spelling); GW_IO; GW_NO_MEMORY */
int repo_locate(const char *data_dir, const struct repo_id *id, struct gw_arena *a,
                struct repo_place *place, struct gw_error *err) GW_MUST_CHECK;

/* NULL: one component that may be stored. Else why not. */
const char *repo_component_refused(struct gw_str name);
/* What is never shown to a client, whoever stored it: "", ".", "..", ".git", a slash. */
bool repo_component_hostile(struct gw_str name);
/* A path for a message: one line, escaped, its end if it is long. */
#define REPO_SHOWN_MAX 160u
const char *repo_show(char out[REPO_SHOWN_MAX], struct gw_str path);

/* ---- data.c: temporary folders and locks ---- */
struct repo_work { /* data/tmp/repo-<random>/, ours as long as we hold the lock beside it */
    struct gw_arena a;
    const char *dir, *lock_path;
    int lock_fd;
};
/* Sweeps what dead owners left, then makes one. */
int repo_work_begin(struct repo_work *w, const char *data_dir, struct gw_error *err) GW_MUST_CHECK;
void repo_tmp_sweep(const char *tmp);
void repo_work_end(struct repo_work *w); /* removes it; after a failed begin too */
/* flock(path), made if absent; waits at most wait_ms. @return GW_OK and *fd; GW_CONFLICT (held);
 * GW_IO */
int repo_lock(int *fd, const char *path, int64_t wait_ms, struct gw_error *err) GW_MUST_CHECK;
void repo_unlock(int fd); /* -1 is fine */
/* The lock of data/lfs/ (see gc.c): shared by who links, alone for who removes. As repo_lock. */
int repo_objects_lock(int *fd, const char *data_dir, bool alone,
                      struct gw_error *err) GW_MUST_CHECK;

/* ---- move.c ---- */
/* A repository is at this name, or was deleted there: it leads nowhere else any more. */
void repo_moved_forget(const struct repo_place *place);

/* ---- usage.c ---- */
/* The repository holds other objects: what was noted of its size is not true any more. */
void repo_usage_touch(const char *repo_path);

/* ---- parts.c ---- */
#define REPO_PARTS_PREFIX "parts-" /* names in data/tmp */
#define REPO_PARTS_STATE ".state"
/* Removes an upload in parts that nobody goes on with; name: that of its state. */
void repo_parts_sweep(const char *tmp, struct gw_str name);

/* ---- attr.c: .gitattributes, as far as filter=lfs goes ---- */
/* struct repo_rules: the lines of one file; a list from the deepest folder to the root */
/* text is borrowed. base: bytes of the folder's path with its slash, cut from every path that is
 * matched. up: the rules of the folders above, or NULL. GW_OK; GW_NO_MEMORY */
int repo_rules_parse(struct repo_rules **out, struct gw_str text, size_t base,
                     const struct repo_rules *up, struct gw_arena *a,
                     struct gw_error *err) GW_MUST_CHECK;
/* One pattern of .gitattributes or .gitignore against a path: git's wildmatch with WM_PATHNAME. */
bool repo_glob(struct gw_str pattern, struct gw_str path);
bool repo_rules_lfs(const struct repo_rules *rules, struct gw_str path); /* NULL rules: false */
/* The line that makes exactly this path an LFS file. */
void repo_rules_put_path(struct gw_buf *out, struct gw_str path);
/* What a new repository of this type begins with. */
void repo_rules_put_default(struct gw_buf *out, struct gw_str type);

/* ---- spool.c: new git objects on their way into one pack ---- */
struct repo_spool;
enum repo_object {
    REPO_OBJECT_COMMIT = 1,
    REPO_OBJECT_TREE = 2,
    REPO_OBJECT_BLOB = 3
}; /* git's numbers */
/* Bytes go to an unlinked file in dir, so memory stays small and nothing is left behind. */
int repo_spool_open(struct repo_spool **out, const char *dir, struct gw_error *err) GW_MUST_CHECK;
int repo_spool_put(struct repo_spool *s, enum repo_object type, struct gw_str data,
                   uint8_t oid[REPO_OID_BYTES], struct gw_error *err) GW_MUST_CHECK;
/* Everything that the repository at path, open as git and odb, lacks, as one pack in it, durable.
 * From then on the odb reads the spool, which has to outlive it. work_dir: same file system. */
int repo_spool_pack(struct repo_spool *s, struct git_repository *git, struct git_odb *odb,
                    const char *path, const char *work_dir, struct gw_error *err) GW_MUST_CHECK;
void repo_spool_close(struct repo_spool *s); /* NULL is fine */
/* work_dir/pack-<name>.pack and .idx, which are synced, go to the packs of the repository at path,
 * durably. */
int repo_pack_move(const char *path, const char *work_dir, const char *name,
                   struct gw_error *err) GW_MUST_CHECK;

/* ---- pack_writer.c: a pack of n objects, in the order they are given, each whole: begin, bytes
 * until the last ones. finish: it and its index are in work_dir, synced, as pack-<name>.pack and
 * .idx ---- */
struct repo_pack;
int repo_pack_open(struct repo_pack **out, const char *work_dir, uint32_t n,
                   struct gw_error *err) GW_MUST_CHECK;
int repo_pack_begin(struct repo_pack *p, enum repo_object type, uint64_t size,
                    struct gw_error *err) GW_MUST_CHECK;
int repo_pack_bytes(struct repo_pack *p, struct gw_str bytes, bool last,
                    struct gw_error *err) GW_MUST_CHECK;
int repo_pack_finish(struct repo_pack *p, char name[41], struct gw_error *err) GW_MUST_CHECK;
void repo_pack_close(struct repo_pack *p); /* NULL is fine */

/* ---- object.c: large objects; sha256 is 64 lower-case hex ---- */
/* A verified, synced file becomes data/lfs/..., durably. `from` stays. */
int repo_object_store(const char *data_dir, const char *from, struct gw_str sha256, uint64_t size,
                      struct gw_error *err) GW_MUST_CHECK;
/* The repository holds it from now on. @return GW_OK; GW_NOT_FOUND (not in data/lfs); GW_IO */
int repo_object_link(const char *data_dir, const struct repo_place *place, struct gw_str sha256,
                     struct gw_error *err) GW_MUST_CHECK;
/* @return GW_OK: *size; GW_NOT_FOUND: this repository does not hold it */
int repo_object_size(const struct repo_place *place, struct gw_str sha256, uint64_t *size,
                     struct gw_error *err) GW_MUST_CHECK;

/* ---- gc.c: the pointers among all objects of a repository, reachable or not ---- */
struct repo_pointer {
    uint8_t sha256[32];
    uint64_t size;
};
struct repo_pointers {
    struct repo_pointer *list; /* sorted by sha256 */
    size_t n, cap;
};
int repo_pointers_read(struct repo_pointers *p, struct git_odb *odb,
                       struct gw_error *err) GW_MUST_CHECK;
bool repo_pointers_have(const struct repo_pointers *p, struct gw_str sha256);
void repo_pointers_free(struct repo_pointers *p);

/* ---- child.c: git ---- */
/* argv[0] is looked up in PATH; no environment of ours, no descriptors but these. out_err < 0: what
 * it says there is dropped. @return 0 and *pid; an errno */
int repo_child_start(const char *const argv[], int in, int out, int out_err, pid_t *pid);

/* ---- create.c: commits ---- */
/* A ref that was made or deleted stays so: libgit2 syncs neither the folders it makes above a ref's
 * own nor what it deletes. @return GW_OK; GW_IO */
int repo_ref_sync(const char *path, const char *ref, struct gw_error *err) GW_MUST_CHECK;
/* Durably, under the repository's lock. tip NULL: the ref is made. GW_CONFLICT: it moved, or is
 * there */
int repo_ref_swap(struct git_repository *git, const char *path, const char *name,
                  const struct git_oid *to, const struct git_oid *tip,
                  struct gw_error *err) GW_MUST_CHECK;
/* Whether what gave this code of libgit2 is tried again; *deadline: 0 at the first time. */
bool repo_ref_wait(int code, const char *path, const char *ref, int64_t *deadline);
/* "Name <mail>" or just a name, as git takes both: cut at 256 bytes, cleaned; no name is "hubgate".
 * @return GW_OK; GW_NO_MEMORY */
int repo_person(const char **name, const char **mail, struct gw_str author,
                struct gw_arena *a) GW_MUST_CHECK;
struct repo_draft { /* what is to become the tip of a branch; new objects are in the spool */
    const struct repo_id *id;
    struct repo_spool *spool;
    const struct repo_work *work;
    struct gw_str message, author;
    int64_t now_ms;
    const char *ref;      /* in full; NULL: main, which is made if it is not there */
    struct gw_str parent; /* the tip it is meant for: the beginning of an id; empty: any */
    /* The new tree on top of `base` (NULL: nothing yet), under the repository's lock; called once
     * for each try. @return GW_OK; else the commit is not made */
    int (*make_tree)(void *ctx, struct git_repository *git, const uint8_t *base,
                     uint8_t tree[REPO_OID_BYTES], struct gw_error *err);
    /* NULL, or what has to be in the repository at path before anything names it; under its lock,
     * once for each try */
    int (*prepare)(void *ctx, const char *path, struct gw_error *err);
    void *ctx;
};
/* only_new: GW_CONFLICT if the repository exists. Otherwise a commit on its tip, or the tip if that
 * has this tree already, which makes a repetition harmless.
 * @return as repo_change_commit */
int repo_publish(const char *data_dir, const struct repo_draft *d, bool only_new, char commit[41],
                 struct gw_error *err);

#endif
