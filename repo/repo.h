/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/repo.h - private repositories: bare git (libgit2) under data/repos/<type>/<ns>/<name>.git
 * and large objects under data/lfs/aa/bb/<64hex>. Blocking: jobs and the command only. Call
 * repo_init once per process, after fork.
 *
 * Data outlives this program: what is here is plain git and plain files. Order of every write:
 * object bytes, fsync, link, fsync of the folder, git objects (one pack), ref (reliability: power
 * cuts).
 */
#ifndef REPO_REPO_H
#define REPO_REPO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

/* libgit2 with fsync of all it writes; no configuration outside data/ is read. Balanced by
 * repo_exit. */
int repo_init(struct gw_error *err) GW_MUST_CHECK;
void repo_exit(void);

struct repo_id {
    struct gw_str type;     /* "model", "dataset", "space" */
    struct gw_str ns, name; /* looked up ASCII case-insensitively; stored as created */
};

/* err->sys, which tells apart what one status means */
#define REPO_NO_COMMIT 1 /* GW_NOT_FOUND: no such branch, tag or commit */
#define REPO_NO_PATH 2   /* GW_NOT_FOUND: no such path in it */
#define REPO_MOVED 3     /* GW_CONFLICT: the branch is not at the parent that was named */
#define REPO_NO_OBJECT 4 /* GW_NOT_FOUND: no such large object in this repository */

/* data/VERSION: made if absent (with data_dir itself). @return GW_OK; GW_INVALID with a sentence if
 * it is newer than this program, or no version at all; GW_IO */
int repo_data_open(const char *data_dir, struct gw_error *err) GW_MUST_CHECK;

/* The first commit holds .gitattributes with the Hub's default LFS patterns of this type. A
 * namespace is one thing for all types: where it exists its own spelling is used. author: "Name
 * <mail>" or a name.
 * @return GW_OK; GW_CONFLICT (also a case variant); GW_INVALID (name grammar of hub clients;
 * reserved names: hub-read 1.2, 1.3); GW_IO */
int repo_create(const char *data_dir, const struct repo_id *id, struct gw_str author,
                int64_t now_ms, struct gw_error *err) GW_MUST_CHECK;

struct repo_progress { /* called now and then from the importing thread; may be NULL */
    void (*on)(void *ctx, uint64_t bytes_done, uint64_t bytes_total, struct gw_str current_file);
    void *ctx;
};
/* The folder becomes the whole tree of a commit on main, as one pack; the repo is created if it is
 * absent. Files that match the filter=lfs lines of the folder's .gitattributes (nested ones count),
 * or the Hub's default patterns where the root has none, and files > 10 MiB become LFS objects;
 * empty files never. Objects are copied, never hard-linked: whoever owns the folder could still
 * write to them. The committed root .gitattributes is the folder's, or the default one, and a line
 * for each file over 10 MiB that nothing in it covers. Symbolic links are stored as links and never
 * followed; .git and .cache/huggingface are skipped; folders without files are not stored. Killed
 * half-way it leaves nothing that is seen: no repo, or the old tip; the next import removes the
 * rest. The same tree again returns the tip. commit: 40 hex + NUL.
 * @return GW_OK; GW_INVALID (names, empty folder, special files, git-lfs pointers in place of
 * files, submodules: which); GW_CONFLICT (a file changed under our hands: which; another writer
 * holds the repo for 30 s); GW_CORRUPT (the repo); GW_IO */
int repo_import(const char *data_dir, const struct repo_id *id, const char *dir,
                struct gw_str message, struct gw_str author, int64_t now_ms,
                const struct repo_progress *p, char commit[41], struct gw_error *err) GW_MUST_CHECK;

/* ---- writing: one commit of many changes, in the order they are given ----
 * Bytes go to a spool on disk at once, so memory grows by a path per change. Nothing is seen before
 * repo_change_commit, which writes one pack and moves one ref under the repository's lock; a change
 * that is closed without it leaves nothing. Each of these may also say GW_CORRUPT, GW_IO and
 * GW_NO_MEMORY. */
#define REPO_CHANGES_MAX 1000000u
struct repo;
struct repo_change; /* one thread at a time */
/* branch: a name ("main", "a/b"), or refs/heads/... or refs/pr/N in full. It must be there.
 * @return GW_OK; GW_NOT_FOUND (no such repository: err->sys 0; REPO_NO_COMMIT); GW_INVALID (no name
 * of a branch) */
int repo_change_open(struct repo_change **out, const char *data_dir, const struct repo_id *id,
                     struct gw_str branch, struct gw_error *err) GW_MUST_CHECK;
void repo_change_close(struct repo_change *c); /* NULL is fine */
/* may is asked for each path that is put or removed, and at the commit for each file below a folder
 * that is removed; what it returns other than GW_OK is returned. Not for the root's .gitattributes
 * where the commit completes it by itself. Without it, all is allowed. */
typedef int (*repo_may)(void *ctx, struct gw_str path, struct gw_error *err);
void repo_change_ask(struct repo_change *c, repo_may may, void *ctx);
/* Likewise for each object that a file is to become by its digest alone, before it is looked for;
 * what may not be had is as one that is not there (GW_NOT_FOUND, REPO_NO_OBJECT). */
void repo_change_ask_object(struct repo_change *c, repo_may may, void *ctx);
/* A file of up to 10 MiB; one that the branch's .gitattributes name for LFS is stored so.
 * @return GW_OK; GW_INVALID (a path that no repository may hold: why); GW_TOO_LARGE (bytes, or
 * REPO_CHANGES_MAX) */
int repo_change_put(struct repo_change *c, struct gw_str path, struct gw_str bytes,
                    struct gw_error *err) GW_MUST_CHECK;
/* A large object that this repository holds (repo_object_link). size: UINT64_MAX: as it is.
 * @return as repo_change_put; GW_NOT_FOUND (REPO_NO_OBJECT); GW_INVALID (another size) */
int repo_change_put_object(struct repo_change *c, struct gw_str path, struct gw_str sha256,
                           uint64_t size, struct gw_error *err) GW_MUST_CHECK;
/* From now on for this branch instead, with what was put so far. GW_OK; GW_INVALID (its name) */
int repo_change_onto(struct repo_change *c, struct gw_str branch,
                     struct gw_error *err) GW_MUST_CHECK;
/* Whether there is something to remove shows at the commit. folder: with all that is in it. */
int repo_change_remove(struct repo_change *c, struct gw_str path, bool folder,
                       struct gw_error *err) GW_MUST_CHECK;
/* message: title, blank line, more. parent: beginning (>= 5 hex) of the id the tip must have;
 * empty: any. The root's .gitattributes gets a line for each large object that nothing in it
 * covers. A tree that is the tip's already gives the tip, no new commit, so repeating a commit is
 * harmless.
 * @return GW_OK: commit, durable; GW_CONFLICT (REPO_MOVED; or another writer held the repository
 * for 30 s); GW_NOT_FOUND (REPO_NO_PATH: nothing to remove there; REPO_NO_COMMIT: the branch is
 * gone); GW_INVALID (a path is both file and folder: which; message, parent) */
int repo_change_commit(struct repo_change *c, struct gw_str message, struct gw_str author,
                       struct gw_str parent, int64_t now_ms, char commit[41],
                       struct gw_error *err) GW_MUST_CHECK;

/* ---- branches, tags, the repository itself: under its lock, durable ---- */
/* start: a revision; "" is main. @return GW_OK; GW_CONFLICT (exists); GW_NOT_FOUND
 * (REPO_NO_COMMIT); GW_INVALID (name) */
int repo_branch_create(const char *data_dir, const struct repo_id *id, struct gw_str name,
                       struct gw_str start, struct gw_error *err) GW_MUST_CHECK;
/* A message makes it an annotated tag. */
int repo_tag_create(const char *data_dir, const struct repo_id *id, struct gw_str name,
                    struct gw_str revision, struct gw_str message, struct gw_str author,
                    int64_t now_ms, struct gw_error *err) GW_MUST_CHECK;
/* @return GW_OK; GW_NOT_FOUND (REPO_NO_COMMIT); GW_FORBIDDEN (main) */
int repo_ref_delete(const char *data_dir, const struct repo_id *id, bool tag, struct gw_str name,
                    struct gw_error *err) GW_MUST_CHECK;
/* A pull request, as far as uploads go: the ref refs/pr/<number>, at the tip of a branch ("" is
 * main); the number is the next one. @return GW_OK; GW_NOT_FOUND (REPO_NO_COMMIT); GW_INVALID */
int repo_pull_create(const char *data_dir, const struct repo_id *id, struct gw_str branch,
                     uint64_t *number, struct gw_error *err) GW_MUST_CHECK;
int repo_pull_remove(const char *data_dir, const struct repo_id *id, uint64_t number,
                     struct gw_error *err) GW_MUST_CHECK;
/* The branch becomes one commit without parents, of the same tree. branch: as repo_branch_create's
 * name; "" is main. @return GW_OK: commit; GW_NOT_FOUND (REPO_NO_COMMIT: no such branch);
 * GW_INVALID (name); GW_CONFLICT (another write) */
int repo_squash(const char *data_dir, const struct repo_id *id, struct gw_str branch,
                struct gw_str message, struct gw_str author, int64_t now_ms, char commit[41],
                struct gw_error *err) GW_MUST_CHECK;
/* Out of the way, into data/trash/<type>/<ns>/<name>.git.<now_ms>: repo_restore within the grace
 * time brings it back. @return GW_OK; GW_NOT_FOUND */
int repo_delete(const char *data_dir, const struct repo_id *id, int64_t now_ms,
                struct gw_error *err) GW_MUST_CHECK;
/* The last one deleted under this name. @return GW_OK; GW_NOT_FOUND; GW_CONFLICT (one is there) */
int repo_restore(const char *data_dir, const struct repo_id *id,
                 struct gw_error *err) GW_MUST_CHECK;

/* Another name, in the same or another namespace; the old one leads there (repo_moved) until
 * somebody takes it. @return GW_OK; GW_NOT_FOUND; GW_CONFLICT (the new name, or a case variant of
 * it, is there); GW_INVALID (the new name; another type) */
int repo_move(const char *data_dir, const struct repo_id *from, const struct repo_id *to,
              struct gw_error *err) GW_MUST_CHECK;
/* Where the repository is that had this name. to: in the arena. @return GW_OK; GW_NOT_FOUND (no
 * repository had it, or one has it now, or what had it is not there any more); GW_CORRUPT */
int repo_moved(const char *data_dir, const struct repo_id *id, struct gw_arena *a,
               struct repo_id *to, struct gw_error *err) GW_MUST_CHECK;

/* ---- keeping house ---- */
/* More packs than so many become fewer, by git. *rolled: so many went into one. Beside commits and
 * readers, who notice nothing. @return GW_OK; GW_NOT_FOUND; GW_CONFLICT (somebody is at it);
 * GW_UNAVAILABLE (no git, or it failed: all is as it was) */
int repo_repack(const char *data_dir, const struct repo_id *id, size_t more_than, size_t *rolled,
                struct gw_error *err) GW_MUST_CHECK;

/* What nobody refers to goes (gc.c says why that is safe beside uploads, commits and other nodes):
 * objects that no repository holds, links to objects that nothing in their repository names,
 * deleted repositories, what dead writers left; and packs become few. */
struct repo_gc {
    int64_t grace_ms;  /* what is younger stays; at least 1,000 */
    bool dry_run;      /* nothing changes */
    const char *blobs; /* a folder that may hold one more link to each object, as aa/bb/<sha256> */
    /* what: "object", "unused" (a link), "deleted", "temporary" go; "copy": a repository's object
     * is no link; "missing": a digest that is nowhere; "failed": why a repository was left out */
    void (*on)(void *ctx, const char *what, struct gw_str path, uint64_t bytes);
    void *ctx;
};
struct repo_gc_sum {
    uint64_t repos, objects, object_bytes, unused, deleted, temporary;
    uint64_t mended;   /* links that were missing and are made */
    uint64_t packs;    /* that went into others */
    uint64_t failed;   /* repositories that could not be cleaned */
    bool objects_kept; /* because of those, or of copies: no object was looked at */
};
/* @return GW_OK; GW_CONFLICT (another one is at it); GW_IO, GW_NO_MEMORY: what was done is in *sum
 */
int repo_gc(const char *data_dir, const struct repo_gc *o, struct repo_gc_sum *sum,
            struct gw_error *err) GW_MUST_CHECK;

/* Whether all is whole. Changes nothing. */
struct repo_fsck {
    bool deep;                                   /* hash every byte of large objects */
    void (*on)(void *ctx, const char *text);     /* a finding */
    void (*progress)(void *ctx, uint64_t bytes); /* hashed; may be NULL */
    void *ctx;
};
/* git fsck --strict, its pointers, its links. @return GW_OK: *findings; GW_NOT_FOUND;
 * GW_UNAVAILABLE (no git); GW_IO */
int repo_fsck(const char *data_dir, const struct repo_id *id, const struct repo_fsck *o,
              size_t *findings, struct gw_error *err) GW_MUST_CHECK;
/* data/lfs, whoever holds what is there. */
int repo_fsck_objects(const char *data_dir, const struct repo_fsck *o, size_t *findings,
                      struct gw_error *err) GW_MUST_CHECK;

/* Bytes of a repository's packs and large objects (a file that two repositories hold counts in
 * both); of all those of a namespace, deleted ones not. Right as of a moment ago: in a repository
 * of very many objects it may lag behind its uploads by some seconds. @return GW_OK; GW_NOT_FOUND;
 * GW_IO */
int repo_usage(const char *data_dir, const struct repo_id *id, uint64_t *bytes,
               struct gw_error *err) GW_MUST_CHECK;
int repo_ns_usage(const char *data_dir, struct gw_str ns, uint64_t *bytes,
                  struct gw_error *err) GW_MUST_CHECK;

/* ---- large objects ----
 * data/lfs/ holds each once; a repository holds it by a hard link of its own, below lfs/objects/ of
 * its folder, where git-lfs itself would look. Knowing a digest gives nothing: only who uploaded
 * the bytes to a repository, or may read one that holds it, gets the link. */
/* Which files are large objects: the rules of the root's .gitattributes at a commit, or those of
 * text (p == NULL: none given). In the arena. */
struct repo_rules;
int repo_rules_at(const struct repo_rules **out, struct repo *r, const char commit[41],
                  struct gw_str text, struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;
/* Over 10 MiB, or named by the rules; an empty file never is. */
bool repo_is_large(const struct repo_rules *rules, struct gw_str path, uint64_t size);
/* .gitignore of the root likewise: what of a folder is not meant to be uploaded. @return GW_OK;
 * GW_TOO_LARGE (over 2,000 patterns in text) */
struct repo_ignore;
int repo_ignore_at(const struct repo_ignore **out, struct repo *r, const char commit[41],
                   struct gw_str text, struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;
int repo_ignore_parse(struct repo_ignore **out, struct gw_str text, struct gw_arena *a,
                      struct gw_error *err) GW_MUST_CHECK;                  /* text is borrowed */
bool repo_is_ignored(const struct repo_ignore *ignore, struct gw_str path); /* NULL: false */
/* Bytes on their way in, in a folder of data/tmp that whoever comes later sweeps when we die. Jobs;
 * one thread at a time. */
struct repo_upload;
int repo_upload_open(struct repo_upload **out, const char *data_dir,
                     struct gw_error *err) GW_MUST_CHECK;
/* Appends and hashes. @return GW_OK; GW_IO (a full disk: errno ENOSPC) */
int repo_upload_write(struct repo_upload *u, struct gw_str bytes,
                      struct gw_error *err) GW_MUST_CHECK;
/* All bytes came: they are the object if digest and size are right, durable and linked to the
 * repository when this returns. @return GW_OK; GW_CORRUPT (others: which, in words); GW_NOT_FOUND
 * (repository); GW_IO */
int repo_upload_finish(struct repo_upload *u, const struct repo_id *id, struct gw_str sha256,
                       uint64_t size, struct gw_error *err) GW_MUST_CHECK;
void repo_upload_close(struct repo_upload *u); /* NULL is fine */
/* An object that comes in parts, each by a request of its own: in any order, at once, again. All
 * write into one sparse file in data/tmp; beside it is what has come, and the state of the hash,
 * which follows the parts in order, so that little is left to do at the end. Where nothing was
 * written for REPO_PARTS_IDLE_S it is removed by whoever comes later. */
#define REPO_PARTS_MAX 128u
#define REPO_PARTS_IDLE_S 7200
struct repo_parts {
    const char *data_dir; /* must outlive all of it */
    struct gw_str upload; /* 64 lower-case hex: which one; the same for all its parts */
    uint64_t size, chunk; /* of all; of each part but the last one */
};
/* For an object of this size: `least`, or more where that were too many parts. Whole MiB then. */
uint64_t repo_parts_chunk(uint64_t size, uint64_t least);
uint64_t repo_parts_count(uint64_t size, uint64_t chunk);
struct repo_part; /* one request's; jobs, one thread at a time */
/* part: from 1. Whoever opens a part again is its only writer from then on. @return GW_OK;
 * GW_INVALID (numbers); GW_CONFLICT (all of it is there already); GW_IO (a disk without the room:
 * ENOSPC) */
int repo_part_open(struct repo_part **out, const struct repo_parts *o, uint64_t part,
                   struct gw_error *err) GW_MUST_CHECK;
/* @return GW_OK; GW_CONFLICT (the part is sent again by somebody else, or the upload is over);
 * GW_TOO_LARGE; GW_IO */
int repo_part_write(struct repo_part *p, struct gw_str bytes, struct gw_error *err) GW_MUST_CHECK;
/* All its bytes came: durable when this returns. @return GW_OK; GW_CORRUPT (too few); GW_CONFLICT;
 * GW_IO */
int repo_part_finish(struct repo_part *p, struct gw_error *err) GW_MUST_CHECK;
void repo_part_close(struct repo_part *p); /* NULL is fine */
/* All parts came: as repo_upload_finish. Hashes what is left, until gw_mono_ms() is until_ms. Done
 * before is GW_OK. After GW_CORRUPT for wrong bytes all parts have to be sent anew.
 * @return GW_OK; GW_CORRUPT; GW_INVALID (a part is missing: which); GW_TIMEOUT (ask again: it goes
 * on where it was, or somebody else is at it); GW_NOT_FOUND (REPO_NO_OBJECT: nothing of it is here;
 * repository); GW_IO */
int repo_parts_complete(const struct repo_parts *o, const struct repo_id *id, struct gw_str sha256,
                        int64_t until_ms, struct gw_error *err) GW_MUST_CHECK;

/* A finished, verified file in data/tmp (its name stays for the caller to unlink) becomes the
 * object and is linked to the repository, both durable. Held already is GW_OK. @return GW_OK;
 * GW_NOT_FOUND (repository); GW_IO */
int repo_object_take(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                     const char *path, struct gw_error *err) GW_MUST_CHECK;
/* @return GW_OK: *size; GW_NOT_FOUND (REPO_NO_OBJECT, or no such repository); GW_INVALID (sha256)
 */
int repo_object_held(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                     uint64_t *size, struct gw_error *err) GW_MUST_CHECK;

/* Who may not read all of a repository has what he sent to it, not what he knows the digest of:
 * sender is any text. @return GW_OK; GW_NOT_FOUND (repository); GW_IO */
int repo_object_note(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                     struct gw_str sender, struct gw_error *err) GW_MUST_CHECK;
bool repo_object_noted(const char *data_dir, const struct repo_id *id, struct gw_str sha256,
                       struct gw_str sender);

/* ---- git itself, for clients that speak it (serve.c, push.c) ----
 * One request: its body to a file, then the distribution's git as a child that reads it. */
enum repo_service { REPO_UPLOAD_PACK, REPO_RECEIVE_PACK };
struct repo_serve_options { /* strings live as long as the request */
    const char *data_dir;
    const char *command; /* the `hubgate` command: starts git, and is its pre-receive hook */
    struct repo_id id;
    enum repo_service service;
    struct gw_str protocol; /* Git-Protocol: checked by the caller; empty: none */
    bool gzip;              /* the body is */
    uint64_t max_bytes;     /* of the body as git reads it, and of a pack */
};
struct repo_push_ref {
    struct gw_str name;    /* in full; ends in NUL */
    char from[41], to[41]; /* 40 hex */
    bool makes, removes;
    bool done;       /* repo_serve_settle: it is there */
    char commit[41]; /* then: what it leads to; empty: removed */
};
struct repo_serve; /* one thread at a time */
/* @return GW_OK; GW_NOT_FOUND (repository); GW_IO; GW_NO_MEMORY */
int repo_serve_open(struct repo_serve **out, const struct repo_serve_options *o,
                    struct gw_error *err) GW_MUST_CHECK;
/* More of the body. @return GW_OK; GW_TOO_LARGE (max_bytes); GW_INVALID (no gzip); GW_IO */
int repo_serve_write(struct repo_serve *s, struct gw_str bytes, struct gw_error *err) GW_MUST_CHECK;
/* The refs that a push is about. Does not block. As repo_push_parse. */
int repo_serve_refs(struct repo_serve *s, struct gw_arena *a, struct repo_push_ref **refs,
                    size_t *n, struct gw_error *err) GW_MUST_CHECK;
/* Starts git: advertise: it says what refs there are; else it answers the body. refused: not empty:
 * sentences, one a line, why the hook refuses this push.
 * @return GW_OK; GW_UNAVAILABLE (the command cannot be started); GW_INVALID; GW_IO; GW_NO_MEMORY */
int repo_serve_start(struct repo_serve *s, bool advertise, struct gw_str refused,
                     struct gw_error *err) GW_MUST_CHECK;
/* What git says, until it ends: a pipe to read, not blocking; the caller's now. repo_serve_close
 * ends a git that still runs. */
int repo_serve_output(struct repo_serve *s);
/* All of it, here. @return GW_OK; GW_TOO_LARGE (the buffer's ceiling); GW_TIMEOUT; GW_CANCELLED;
 * GW_IO: whatever it is, git has ended, or ends within seconds */
int repo_serve_read(struct repo_serve *s, struct gw_buf *out, int64_t deadline_ms,
                    const _Atomic bool *cancelled, struct gw_error *err) GW_MUST_CHECK;
/* After a push: which refs are as it wanted them; those are durable when this returns. */
int repo_serve_settle(struct repo_serve *s, struct repo_push_ref *refs, size_t n,
                      struct gw_error *err) GW_MUST_CHECK;
void repo_serve_close(struct repo_serve *s); /* NULL is fine */
/* The program between us and git: the words after "git-child". Its exit code. */
int repo_serve_child(int argc, char **argv);

/* The pkt-lines at the beginning of a push, up to the first flush. In the arena. @return GW_OK;
 * GW_INVALID; GW_TOO_LARGE (more than 1,000 refs); GW_NO_MEMORY */
int repo_push_parse(struct gw_str head, struct gw_arena *a, struct repo_push_ref **refs, size_t *n,
                    struct gw_error *err) GW_MUST_CHECK;
/* "old new name": one of them, or a line that git gives its hooks. */
int repo_push_line(struct gw_str line, struct repo_push_ref *r, struct gw_arena *a,
                   struct gw_error *err) GW_MUST_CHECK;
/* In git's pre-receive hook. path: of the repository; quarantine: where the pushed objects are, or
 * NULL. @return GW_OK; GW_FORBIDDEN: says holds why, a sentence a line; GW_TOO_LARGE; GW_CORRUPT;
 * GW_IO; GW_NO_MEMORY */
int repo_push_check(const char *path, const char *quarantine, const struct repo_push_ref *refs,
                    size_t n, struct gw_buf *says, struct gw_error *err) GW_MUST_CHECK;
/* Takes the repository's lock, on the descriptor that git and its hooks share: git's end lets go of
 * it. @return GW_OK; GW_CONFLICT (held by another writer for 30 s); GW_IO */
#define REPO_PUSH_LOCK_FD 4
int repo_push_lock(struct gw_error *err) GW_MUST_CHECK;

/* ---- reading. Each of these may also say GW_CORRUPT (damage: which repo, what), GW_IO and
 * GW_NO_MEMORY ---- */
struct repo; /* an open repository; one thread at a time */
int repo_open(struct repo **out, const char *data_dir, const struct repo_id *id,
              struct gw_error *err) GW_MUST_CHECK; /* GW_NOT_FOUND; GW_CORRUPT; GW_IO */
void repo_close(struct repo *r);                   /* NULL is fine */
struct gw_str repo_canonical_ns(const struct repo *r);
struct gw_str repo_canonical_name(const struct repo *r);
/* Unix ms. Of a repository made by other hands: when its folder last changed. */
int64_t repo_created_ms(const struct repo *r);

/* A name, never a git expression. 40 hex: that commit and nothing else. Otherwise HEAD and refs/...
 * in full, branch, tag, unambiguous short (>= 7) commit id, in this order. "" is main. -> 40 hex.
 * @return GW_OK; GW_NOT_FOUND (err->sys REPO_NO_COMMIT) */
int repo_resolve(struct repo *r, struct gw_str revision, char commit[41],
                 struct gw_error *err) GW_MUST_CHECK;

struct repo_entry {
    bool directory, lfs, symlink, executable;
    struct gw_str path; /* from the root, without a leading slash */
    char oid[41], sha256[65];
    uint64_t size; /* of the content; of the target text for a symbolic link */
    uint32_t pointer_size;
};
/* e is borrowed for the call; not GW_OK stops and is returned */
typedef int (*repo_on_entry)(void *ctx, const struct repo_entry *e);
/* Entries below path ("" = root), in git's order; recursive lists directories too, each before what
 * is in it. Submodules are left out. @return GW_OK; GW_NOT_FOUND (err->sys REPO_NO_COMMIT; no
 * such path, or a file: REPO_NO_PATH); GW_TOO_LARGE (over 10,000,000 entries); GW_CORRUPT (also a
 * name that would leave the client's folder: "..", ".git", a slash); what the callback returned */
int repo_tree(struct repo *r, const char commit[41], struct gw_str path, bool recursive,
              repo_on_entry on, void *ctx, struct gw_error *err) GW_MUST_CHECK;
/* One path, file or directory ("" = root). GW_NOT_FOUND as above. e->path borrows from path. */
int repo_entry(struct repo *r, const char commit[41], struct gw_str path, struct repo_entry *e,
               struct gw_error *err) GW_MUST_CHECK;
/* The bytes of a git blob (not of an LFS object) into the arena. @return GW_OK; GW_NOT_FOUND;
 * GW_TOO_LARGE (over max) */
int repo_blob(struct repo *r, const char oid[41], size_t max, struct gw_arena *a,
              struct gw_str *out, struct gw_error *err) GW_MUST_CHECK;

struct repo_ref {
    struct gw_str name, ref; /* "main", "refs/heads/main"; "1", "refs/pr/1" */
    char commit[41];
};
/* heads, tags, refs/pr/N: those that lead to a commit, sorted by ref. More than 10,000:
 * GW_TOO_LARGE */
int repo_refs(struct repo *r, struct gw_arena *a, struct repo_ref **refs, size_t *n,
              struct gw_error *err) GW_MUST_CHECK;
struct repo_commit {
    char id[41];
    struct gw_str title, message; /* first line; what follows it, without the blank line between */
    struct gw_str author;         /* the name */
    int64_t date_ms;
};
/* History from commit back, newest first; skip and at most n (SIZE_MAX: all) into the arena. total:
 * of the whole history */
int repo_log(struct repo *r, const char commit[41], size_t skip, size_t n, struct gw_arena *a,
             struct repo_commit **out, size_t *n_out, size_t *total,
             struct gw_error *err) GW_MUST_CHECK;

/* Path of an LFS object under data/lfs (exists or not), into the arena. p == NULL: no memory or
 * sha256 not 64 hex. */
struct gw_str repo_object_path(const char *data_dir, struct gw_str sha256, struct gw_arena *a);
/* The git-lfs pointer text of an object; 200 bytes are enough. Returns its length. */
size_t repo_pointer_format(char out[200], struct gw_str sha256, uint64_t size);
/* Strict: only what repo_pointer_format writes, with a size up to INT64_MAX. */
bool repo_pointer_parse(struct gw_str text, char sha256[65], uint64_t *size);

/* Adds n to the downloads of a repository (0: only reads them). @return GW_OK: *total; GW_NOT_FOUND
 * (repository); GW_IO */
int repo_downloads(const char *data_dir, const struct repo_id *id, uint64_t n, uint64_t *total,
                   struct gw_error *err) GW_MUST_CHECK;

/* All private repos, for listing: on(type, ns, name) for each folder found, sorted within a type.
 * Not GW_OK stops and is returned. */
int repo_each(const char *data_dir,
              int (*on)(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name),
              void *ctx, struct gw_error *err) GW_MUST_CHECK;

#endif
