/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/hub.h - the Hub's language, both faces: targets, answers, refusals. Bytes in, bytes out: no
 * socket, no file, no clock. Any thread. Facts: docs/clients.md; each odd rule names the client
 * that needs it.
 */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/json.h"
#include "base/str.h"

#define HUB_TARGET_MAX 8192u /* bytes of a raw request target; longer is GW_TOO_LARGE */
#define HUB_PATH_MAX 4096u   /* bytes of a decoded file path */
#define HUB_REVISION_MAX 255u
#define HUB_PAGE 1000u /* entries of a tree page; llama.cpp reads only the first one */

enum hub_type { HUB_MODEL, HUB_DATASET, HUB_SPACE, HUB_KERNEL };
const char *hub_type_name(enum hub_type t);                  /* "model" */
const char *hub_type_plural(enum hub_type t);                /* "models": the API's word */
bool hub_type_parse(struct gw_str word, enum hub_type *out); /* singular or plural */

/* ---- targets: one table maps every route ---- */

enum hub_route {
    HUB_RESOLVE, /* {P}R/resolve/V/path, /api/resolve-cache/T/R/{sha}/path: the bytes */
    HUB_RAW,     /* {P}R/raw/V/path, /api/T/R/raw/..: as git has them (an LFS pointer stays one) */
    HUB_INFO,    /* /api/T/R[/revision/V] */
    HUB_TREE,    /* /api/T/R/tree/V[/path] */
    HUB_PATHS_INFO, /* POST /api/T/R/paths-info/V */
    HUB_REFS,
    HUB_COMMITS,
    HUB_DISCUSSIONS, /* path: the number of one, or empty */
    HUB_TREESIZE,
    HUB_AUTH_CHECK, /* /api/T/R/auth-check[/write] */
    /* answered 404 with a sentence: hints are stripped, but old client caches still ask */
    HUB_XET_READ_TOKEN,
    HUB_WHOAMI,          /* /api/whoami-v2 */
    HUB_LIST,            /* /api/{models,datasets,spaces}?... */
    HUB_ORGANIZATION,    /* /api/organizations/NS/{overview,members}; path: what follows */
    HUB_TAGS_BY_TYPE,    /* /api/{models,datasets}-tags-by-type */
    HUB_AGENT_HARNESSES, /* /api/agent-harnesses: 200 {"standardEnvVars":[],"harnesses":{}} */
    HUB_TELEMETRY,       /* HEAD /api/telemetry/..., POST /v1/telemetry */
    HUB_GATEWAY_TOKENS,  /* POST /api/gateway/tokens */
    HUB_NODE_BLOB,       /* /-/blob/{digest}: for other nodes; path: the digest, 40 or 64 hex */
    HUB_HEALTH,          /* /-/healthz */
    HUB_READY,           /* /-/readyz */
    HUB_METRICS,         /* /-/metrics, /metrics: to a few addresses only */
    HUB_REPO_CREATE,     /* POST /api/repos/create; ns, name are in the body */
    HUB_REPO_DELETE,     /* DELETE /api/repos/delete */
    HUB_REPO_MOVE,       /* POST /api/repos/move: fromRepo, toRepo */
    HUB_VALIDATE_YAML,   /* POST /api/validate-yaml */
    HUB_SETTINGS,        /* PUT /api/T/R/settings */
    HUB_PREUPLOAD,       /* POST /api/T/R/preupload/V */
    HUB_COMMIT,          /* POST /api/T/R/commit/V: a stream of lines */
    HUB_BRANCH,          /* POST, DELETE /api/T/R/branch/V */
    HUB_TAG,             /* POST, DELETE /api/T/R/tag/V */
    HUB_SQUASH,          /* POST /api/T/R/super-squash/V */
    HUB_XET_WRITE_TOKEN, /* answered 501: large files come by LFS */
    HUB_LFS_BATCH,       /* POST {P}R.git/info/lfs/objects/batch */
    HUB_LFS_LOCKS, /* POST {P}R.git/info/lfs/locks/verify: 404, which git-lfs takes silently */
    HUB_GIT_REFS,  /* GET {P}R[.git]/info/refs?service=... */
    HUB_GIT_UPLOAD_PACK,  /* POST {P}R[.git]/git-upload-pack: clone and fetch */
    HUB_GIT_RECEIVE_PACK, /* POST {P}R[.git]/git-receive-pack: push */
    HUB_OBJECT_GET,       /* GET /-/lfs-object/...: a signed address, as the next */
    HUB_OBJECT,           /* PUT /-/lfs/...: a signed address of ours; path: what is behind it */
    HUB_OBJECT_VERIFY,    /* POST /-/lfs-verify/... */
    HUB_OBJECT_PART,      /* PUT /-/lfs-part/... */
    HUB_OBJECT_COMPLETE,  /* POST /-/lfs-complete/... */
    HUB_OAUTH_DEVICE, /* POST /oauth/device, /oauth/token: 404 naming the other ways to log in */
    HUB_PREFLIGHT,    /* OPTIONS on anything: CORS, reveals nothing */
    HUB_ROUTE_COUNT
};

/* what policy is asked */
enum hub_action {
    HUB_NO_ACTION,
    HUB_DISCOVER_ACTION,
    HUB_READ_ACTION,
    HUB_WRITE_ACTION,
    HUB_CREATE_ACTION,
    HUB_DELETE_ACTION,
    HUB_ADMIN_ACTION
};

struct hub_target { /* strings: in the arena or in the raw target, never NULL */
    enum hub_route route;
    enum hub_type type;
    enum hub_action action;
    bool has_repo;
    bool head;              /* HEAD: the same answer without a body */
    const char *allow;      /* not NULL: this method is not for this route (405, Allow: ...) */
    struct gw_str ns, name; /* ns empty: a single-segment id (gpt2). As asked, case kept */
    struct gw_str revision; /* decoded; empty: none named (means main) */
    struct gw_str path;     /* decoded segments joined by '/'; empty: the root, or no file named */
    /* Query, only what the route knows; everything else is ignored (booleans: true, True, 1; lists:
     * k=a&k=b, k[]=a). */
    bool git_fetch, git_push; /* of GIT_REFS: the service; neither: the old protocol */
    bool recursive, expand, blobs, include_prs, security_status, create_pr;
    uint32_t limit; /* 0: not asked; at most HUB_PAGE */
    /* upstream's opaque word; a page number (p=3 of commits, discussions) is the cursor "p:3" */
    struct gw_str cursor;
    /* expand= of INFO and COMMITS (then expand is set): the asked keys, sorted, each once, comma
     * separated, for hub_info_select */
    struct gw_str keys;
    /* Normalised for upstream and as a cache key: sorted by key, the route's own keys only,
     * re-quoted; no '?'. */
    struct gw_str query;
};

/**
 * Parse a raw request target (nginx: r->unparsed_uri; r->uri has already turned %2F into a slash).
 * Split at '/' first, decode each segment once; `resolve/refs%2Fpr%2F1/x` and
 * `resolve/refs/pr/1/x` are both revision refs/pr/1. One final slash is forgiven on /api, not on a
 * file.
 * @param out left alone on failure
 * @return GW_OK; GW_NOT_FOUND (no such route: err->sys HUB_NO_SUCH_API below /api; or a name
 * outside the grammar: 1-96 of [A-Za-z0-9_.-], no "--", "..", no leading or trailing '-' or '.', no
 * ".git" end, no word of the Hub's own URLs in front); GW_INVALID (bad escape, NUL, control, bidi
 * or zero-width character, invalid UTF-8, '\', segment "", "." or "..", %2F in a name, a revision
 * with
 *         ".." or '-' in front; a value of the query); GW_TOO_LARGE; GW_NO_MEMORY
 */
int hub_target_parse(struct hub_target *out, struct gw_str method, struct gw_str raw_target,
                     struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;
#define HUB_NO_SUCH_API 1
const char *hub_route_name(enum hub_route r); /* for the audit record: "resolve" */

/* The upstream target (path and query, percent-encoded) for a route at a commit or revision (empty:
 * the one of t). Writes nothing for a route that never goes upstream (whoami, telemetry, tokens,
 * ...). The one quoter. */
void hub_put_upstream_target(struct gw_buf *out, const struct hub_target *t,
                             struct gw_str revision);
void hub_put_repo(struct gw_buf *out, const struct hub_target *t); /* "ns/name" or "name" */
bool hub_is_commit(struct gw_str revision);                        /* exactly 40 lower-case hex */

/* The paths of a paths-info body (form or JSON by content type), at most 1,000 x HUB_PATH_MAX, in
 * the arena or borrowed from body. Paths that no entry can have ("", "/a", "a/") are left out.
 * @return GW_OK; GW_INVALID (also "..", a control character); GW_TOO_LARGE; GW_NO_MEMORY */
int hub_paths_parse(struct gw_str **paths, size_t *n, bool *expand, struct gw_str content_type,
                    struct gw_str body, struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;
/* One field of a small form or JSON object (token minting): text, or a number or boolean as
 * written; "" if absent. In the arena or borrowed from body.
 * @return GW_OK; GW_INVALID (neither; not a scalar; given twice; a control character);
 * GW_TOO_LARGE (body over GW_JSON_DOC_MAX); GW_NO_MEMORY */
int hub_field(struct gw_str *value, const char *key, struct gw_str content_type, struct gw_str body,
              struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;

/* ---- writing: what clients send (docs/clients.md; hub-write 2) ---- */

/* The body of a commit: one JSON object a line, "key" and "value"; as a stream, one line in memory.
 * Callbacks in the order of the lines; what they are given is borrowed for the call; not GW_OK
 * stops and is returned with its err. Paths are what the client sent: the store judges them. */
#define HUB_COMMIT_LINE_MAX (15u << 20) /* a file of 10 MiB in base64, and its path */
struct hub_commit_sink {
    /* the first line, once; description and parent may be empty */
    int (*header)(void *ctx, struct gw_str summary, struct gw_str description, struct gw_str parent,
                  struct gw_error *err);
    int (*file)(void *ctx, struct gw_str path, struct gw_str bytes, struct gw_error *err);
    /* size: UINT64_MAX: not said (a copy) */
    int (*object)(void *ctx, struct gw_str path, struct gw_str sha256, uint64_t size,
                  struct gw_error *err);
    int (*remove)(void *ctx, struct gw_str path, bool folder, struct gw_error *err);
};
struct hub_commit_reader;
struct hub_commit_reader *hub_commit_reader_new(const struct hub_commit_sink *sink,
                                                void *ctx); /* NULL: no memory */
/* @return GW_OK; GW_INVALID (the number of the line, what is wrong: a key that is not known is
 * never passed over); GW_TOO_LARGE; what a callback returned. After a failure: only free.
 */
int hub_commit_reader_feed(struct hub_commit_reader *r, struct gw_str bytes,
                           struct gw_error *err) GW_MUST_CHECK;
int hub_commit_reader_finish(struct hub_commit_reader *r, struct gw_error *err) GW_MUST_CHECK;
void hub_commit_reader_free(struct hub_commit_reader *r); /* NULL is fine */

/* validate-yaml: {"content": README.md} -> {"errors": [{"message"}], "warnings": [..]} into out.
 * valid: no errors. @return GW_OK; GW_INVALID (no such body); GW_TOO_LARGE; GW_NO_MEMORY */
int hub_card_check(struct gw_buf *out, bool *valid, struct gw_str body, struct gw_arena *a,
                   struct gw_error *err) GW_MUST_CHECK;
/* The lines between "---" and "---" at the beginning of a README.md, from the end of its first line
 * on, borrowed. false: none */
bool hub_card_head(struct gw_str readme, struct gw_str *head);

/* The head of a README.md as one JSON object of at most 32 KiB: hub_info.card_json. Nothing is
 * written where there is none, or none that can be read: a repository with a broken card is one
 * without. */
void hub_card_json(struct gw_buf *out, struct gw_str readme, struct gw_arena *a);

/* preupload: which files will be sent, and how they begin. In the arena. */
#define HUB_PREUPLOAD_MAX 1000u
struct hub_preupload_file {
    struct gw_str path;
    uint64_t size;
    struct gw_str sample; /* decoded; at most 1 KiB is kept */
};
struct hub_preupload {
    struct hub_preupload_file *files;
    size_t n;
    struct gw_str ignore, attributes; /* .gitignore and .gitattributes as they will be; p NULL: not
                                         sent */
};
/* @return GW_OK; GW_INVALID; GW_TOO_LARGE; GW_NO_MEMORY */
int hub_preupload_parse(struct hub_preupload *out, struct gw_str body, struct gw_arena *a,
                        struct gw_error *err) GW_MUST_CHECK;
/* One item of its answer, with its comma. oid: what the repository has at this path (a blob's sha1,
 * an object's sha256); empty: nothing. */
void hub_put_preupload(struct gw_buf *out, struct gw_str path, bool lfs, bool ignore,
                       struct gw_str oid);

/* git-lfs batch (git-lfs docs/api/batch.md, and what the hub clients make of it). */
#define HUB_BATCH_MAX 1000u
struct hub_batch_object {
    char oid[65];
    uint64_t size;
};
struct hub_batch {
    bool upload;    /* else download */
    bool multipart; /* offered among the transfers */
    struct hub_batch_object *objects;
    size_t n;
    struct gw_str ref; /* as sent; may be empty */
};
int hub_batch_parse(struct hub_batch *out, struct gw_str body, struct gw_arena *a,
                    struct gw_error *err) GW_MUST_CHECK;
struct hub_batch_answer {
    const struct hub_batch_object *object;
    int error; /* not 0: code of a refusal of this object, with message */
    struct gw_str message;
    /* href empty: nothing to be done (upload: it is held). header: "Name", value pairs */
    struct gw_str action; /* "upload", "download" */
    struct gw_str href, verify_href;
    struct gw_str chunk_size;   /* multipart: decimal; then */
    const struct gw_str *parts; /* the URL of each part in order: no other key may be among them */
    size_t n_parts;
    int64_t expires_in_s;
};
/* What ends an object in parts: {"oid", "parts": [{"partNumber", "etag"}]} names each of them once,
 * in any order. @return GW_OK; GW_INVALID (which is missing, or what is wrong); GW_NO_MEMORY */
#define HUB_PARTS_MAX 1000u
int hub_complete_check(struct gw_str body, struct gw_str sha256, uint64_t n_parts,
                       struct gw_error *err) GW_MUST_CHECK;
void hub_batch_begin(struct gw_buf *out, bool multipart);
void hub_put_batch(struct gw_buf *out, const struct hub_batch_answer *a); /* with its comma */
void hub_batch_end(struct gw_buf *out);

/* PUT settings: visibility (private, true, is what all here are), gated, and whatever else. The one
 * that goes furthest from what is so counts. @return GW_OK; GW_INVALID; GW_TOO_LARGE; GW_NO_MEMORY
 */
enum hub_settings { HUB_SETTINGS_SAME, HUB_SETTINGS_OTHER, HUB_SETTINGS_VISIBILITY };
int hub_settings_parse(enum hub_settings *out, struct gw_str body,
                       struct gw_error *err) GW_MUST_CHECK;

/* The answer to a commit. urls are built from the host that was asked: clients take them apart.
 * pull: number of the pull request; empty: none. */
void hub_put_committed(struct gw_buf *out, struct gw_str commit, struct gw_str commit_url,
                       struct gw_str pull_url);

/* ---- entries of a commit ---- */

struct hub_entry {
    bool directory, lfs;
    struct gw_str path;
    char oid[41];    /* git: blob (of the pointer, for LFS) or tree */
    char sha256[65]; /* lfs: of the content */
    uint64_t size;   /* of the content */
    uint32_t pointer_size;
    struct gw_str
        xet; /* upstream's Xet file id: 64 hex, or empty (also when masked). Never shown */
};

/* Fixed binary form for the index, versioned. encode: out->failed if e is no entry (oid, path).
 * decode: GW_CORRUPT on any doubt; borrows path and xet. */
void hub_entry_encode(struct gw_buf *out, const struct hub_entry *e);
int hub_entry_decode(struct hub_entry *out, struct gw_str bytes,
                     struct gw_error *err) GW_MUST_CHECK;

/* One tree / paths-info item as we send it (compact, no space after a colon: hfd.sh greps), without
 * a comma in front: gw_json_put_comma. last_commit: JSON or empty. */
void hub_put_entry(struct gw_buf *out, const struct hub_entry *e, struct gw_str last_commit);

/* ---- reading upstream's JSON as a stream: Xet hints are dropped, the rest is kept, compact ----
 */

/* An array of tree or paths-info entries, of any size, in bounded memory (one entry: at most 64 KiB
 * of JSON). Entries of an unknown type (submodules) are left out. A path with "..", a control
 * character or an empty component is GW_INVALID. */
struct hub_list_reader;
/* Called after each entry: parsed form and the JSON to send (both borrowed for the call). Not GW_OK
 * stops and is returned by feed. */
typedef int (*hub_on_entry)(void *ctx, const struct hub_entry *e, struct gw_str json);
struct hub_list_reader *hub_list_reader_new(hub_on_entry on, void *ctx); /* NULL: no memory */
/* @return GW_OK; GW_INVALID; GW_TOO_LARGE; what on returned. After a failure: only free. */
int hub_list_reader_feed(struct hub_list_reader *r, struct gw_str bytes,
                         struct gw_error *err) GW_MUST_CHECK;
int hub_list_reader_finish(struct hub_list_reader *r, struct gw_error *err) GW_MUST_CHECK;
void hub_list_reader_free(struct hub_list_reader *r); /* NULL is fine */

/* Any other document: copied without xetHash / xetEnabled at any depth into out, which the caller
 * keeps until free (its ceiling bounds it: GW_TOO_LARGE). One string: at most 1 MiB. */
struct hub_doc_reader;
struct hub_doc_reader *hub_doc_reader_new(struct gw_buf *out); /* NULL: no memory */
int hub_doc_reader_feed(struct hub_doc_reader *r, struct gw_str bytes,
                        struct gw_error *err) GW_MUST_CHECK;
int hub_doc_reader_finish(struct hub_doc_reader *r, struct gw_error *err) GW_MUST_CHECK;
/* Top-level "sha" if 40 hex, and "id" (the canonical name) if it is one that a repo can have; else
 * "". Borrowed from r. */
struct gw_str hub_doc_reader_sha(const struct hub_doc_reader *r);
struct gw_str hub_doc_reader_id(const struct hub_doc_reader *r);
void hub_doc_reader_free(struct hub_doc_reader *r); /* NULL is fine */

/* ---- headers ---- */

/* The next page's cursor in a Link header of upstream (rel="next"), decoded, into the arena; of a
 * link with a page number (p=3) it is "p:3". "" (p not NULL): there is no next page. p == NULL:
 * there is one, but its cursor cannot be read, or no memory: the list is not complete. */
struct gw_str hub_link_cursor(struct gw_str link_header, struct gw_arena *a);
/* Our Link value for the next page: <public_url + target's path ? its query with this cursor>;
 * rel="next". Commas encoded (hf-hub splits on them). */
void hub_put_link_next(struct gw_buf *out, struct gw_str public_url, const struct hub_target *t,
                       struct gw_str cursor);
/* The same request of the repository that t names now: path and query, without a host (Python's
 * HEAD follows no other). raw_target: what was asked. */
void hub_put_moved(struct gw_buf *out, const struct hub_target *t, struct gw_str raw_target);
void hub_put_content_disposition(struct gw_buf *out, struct gw_str path);
/* text/plain; charset=utf-8 or application/octet-stream: never HTML, whatever the name */
const char *hub_content_type(struct gw_str path);
/* ETag as clients and CDNs write it ("x", W/"x", x): the 40 or 64 hex digits in it, of any case,
 * else "". */
struct gw_str hub_etag_digest(struct gw_str etag);

/* ---- documents we write ourselves ---- */

#define HUB_FILE_TAGS_MAX 16u
struct hub_info { /* a private repo's info; strings borrowed */
    enum hub_type type;
    struct gw_str id, author, sha;
    int64_t created_ms, modified_ms;
    uint64_t used_bytes;
    struct gw_str card_json; /* a JSON object or empty; over GW_JSON_DOC_MAX: as if empty */
    uint64_t downloads;
    const char *file_tags[HUB_FILE_TAGS_MAX]; /* hub_info_note_file */
    size_t n_file_tags;
    bool with_siblings, with_blobs;
};
/* What the name of a file says of its repository ("safetensors", "format:parquet") becomes a tag.
 */
void hub_info_note_file(struct hub_info *i, struct gw_str path);
void hub_info_begin(struct gw_buf *out, const struct hub_info *i); /* up to "siblings":[ */
/* Writes the comma too; directories are passed over. */
void hub_info_sibling(struct gw_buf *out, const struct hub_info *i, const struct hub_entry *e);
void hub_info_end(struct gw_buf *out, const struct hub_info *i);
/* "expand": only the asked keys (and _id, id) of an info document of any size; keys comma
 * separated. @return GW_OK; GW_INVALID: not an object; GW_TOO_LARGE; GW_NO_MEMORY */
int hub_info_select(struct gw_buf *out, struct gw_str document, struct gw_str keys,
                    struct gw_error *err) GW_MUST_CHECK;

struct hub_ref {
    struct gw_str name, ref, commit; /* "main", "refs/heads/main", 40 hex */
};
/* pulls == NULL: they were not asked for */
void hub_put_refs(struct gw_buf *out, const struct hub_ref *branches, size_t n_branches,
                  const struct hub_ref *tags, size_t n_tags, const struct hub_ref *pulls,
                  size_t n_pulls);
struct hub_commit {
    struct gw_str id, title, message, author;
    int64_t date_ms;
};
/* One item of the commits array, without a comma in front. */
void hub_put_commit(struct gw_buf *out, const struct hub_commit *c);

struct hub_person {
    struct gw_str id, name, fullname, email;
    const struct gw_str *orgs;  /* private namespaces they may discover */
    const struct gw_str *roles; /* "write", "read": in each of them; NULL: token_role */
    size_t n_orgs;
    struct gw_str token_name, token_role; /* "read", "write" */
    int64_t token_created_ms;
};
void hub_put_whoami(struct gw_buf *out, const struct hub_person *p);

/* ---- lists of repositories (list.c). Of HUB_LIST, query is all that was asked but the cursor,
 * known to us or not ---- */
#define HUB_LIST_WORDS_MAX 32u
#define HUB_LIST_SEARCH_MAX 8u
enum hub_sort { HUB_BY_UPDATED, HUB_BY_CREATED, HUB_BY_DOWNLOADS };
struct hub_list { /* what is asked of a private repository; strings in the arena */
    struct gw_str words[HUB_LIST_WORDS_MAX], search[HUB_LIST_SEARCH_MAX]; /* each: tags, parts of
                                                                             its name */
    size_t n_words, n_search;
    struct gw_str author; /* "": any */
    bool nothing;         /* what none has: gated, served by somebody */
    enum hub_sort sort;
    bool ascending;
    struct gw_str keys; /* of an item: for hub_info_select */
};
/* @return GW_OK; GW_TOO_LARGE; GW_NO_MEMORY */
int hub_list_parse(struct hub_list *out, const struct hub_target *t, struct gw_arena *a,
                   struct gw_error *err) GW_MUST_CHECK;
/* The upstream target of this list's page. */
void hub_put_list_target(struct gw_buf *out, const struct hub_target *t, struct gw_str cursor);
/* The next item of an array of objects as hub_doc_reader writes it, and its member "id" (as quoted;
 * "": none). *rest begins as the array. Borrowed from it. false: no more */
bool hub_next_item(struct gw_str *rest, struct gw_str *item, struct gw_str *id);

/* ---- refusals: one table ---- */

enum hub_reason {
    /* 401 GatedRepo, "Log in: hf auth login, or set HF_TOKEN", challenge; the same bytes whether it
     * exists or not */
    HUB_LOGIN_NEEDED,
    /* 401, no code, exactly "Invalid credentials in Authorization header"; detail in the body only
     */
    HUB_BAD_CREDENTIAL,
    /* the same status and header; body: this is a huggingface.co token, not one of this gateway */
    HUB_FOREIGN_TOKEN,
    HUB_REPO_NOT_FOUND,     /* 404 RepoNotFound; also for who may not discover */
    HUB_REVISION_NOT_FOUND, /* 404 RevisionNotFound "Invalid rev id: V" */
    HUB_ENTRY_NOT_FOUND,    /* 404 EntryNotFound "Entry not found"; the caller adds X-Repo-Commit */
    /* 403 GatedRepo + the rule's reason: the one class whose text every client shows */
    HUB_BLOCKED,
    HUB_GATED_UPSTREAM,  /* 403 GatedRepo: upstream restricts it and this gateway has no access */
    HUB_SCOPE,           /* 403 GatedRepo: the token's role does not allow it */
    HUB_BAD_REQUEST,     /* 400 + detail */
    HUB_METHOD,          /* 405 */
    HUB_NO_ROUTE,        /* 404, no code */
    HUB_NO_XET,          /* 404 for xet-read-token: set HF_HUB_DISABLE_XET=1 */
    HUB_NO_DEVICE_LOGIN, /* 404 for /oauth: use hf auth login --token */
    HUB_TOO_LARGE,       /* 413 */
    HUB_RANGE,           /* 416; the caller adds Content-Range: bytes [star]/SIZE */
    HUB_WRONG_HOST,      /* 421 */
    HUB_NO_SUCH_BYTES,   /* 422 + detail: what came is not what was announced */
    HUB_CONFLICT,        /* 409 + detail */
    HUB_PARENT_MOVED,    /* 412: the branch is not at the parent commit any more */
    HUB_NOT_HERE,        /* 403 + detail: a public repository, which only the Hub itself changes */
    HUB_NOT_BUILT,       /* 501 NotImplemented + detail; never retried by a client */
    HUB_DISK_FULL,       /* 507 */
    HUB_BUSY,            /* 429 + Retry-After + RateLimit with r=0 */
    HUB_INTERNAL,        /* 500 */
    HUB_BAD_UPSTREAM,    /* 502: upstream answered nonsense or redirected to a forbidden place */
    HUB_OUTAGE,          /* 503 + integer Retry-After: a peer is down; never 401 or 404 */
    HUB_LOOP,            /* 508 */
    HUB_REASON_COUNT
};

struct hub_refusal {
    int status;
    const char *code;      /* X-Error-Code or NULL */
    struct gw_str message; /* X-Error-Message: one line, ASCII, <= 512 bytes */
    struct gw_str body;    /* {"error":"..."}; git: text/plain */
    const char *content_type;
    const char *challenge;    /* WWW-Authenticate or NULL */
    int retry_after_s;        /* 0: none */
    struct gw_str rate_limit; /* RateLimit, "" if none: huggingface_hub >= 1.2 reads it first */
};
/* detail: the rule's reason, the revision, what is down; "" for the table's own text. Made safe for
 * a header here. Reasons that must not tell cases apart ignore it (login needed, repo and entry not
 * found). git: the client speaks git (Basic challenge, plain text). retry_after_s: for 429 and
 * above, at most 300; 0: the table's. Never fails: without memory the table's own text is used. */
void hub_refuse(struct hub_refusal *out, enum hub_reason why, struct gw_str detail, bool git,
                int retry_after_s, struct gw_arena *a);

/* What an upstream status means for us. code and message: X-Error-Code, X-Error-Message. 2xx is not
 * for here. HUB_ENTRY_NOT_FOUND is also the answer for a 404 without a code: who asked upstream for
 * a repo or a revision takes it as HUB_REPO_NOT_FOUND or HUB_REVISION_NOT_FOUND. */
enum hub_reason hub_classify_upstream(int status, struct gw_str code, struct gw_str message);

#endif
