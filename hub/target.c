/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/target.c - a raw request target to a route and back, by one table.
 *
 * The target is split at '/' and each segment decoded once; the decoded segments, joined again, are
 * one text in which every part of the result is a slice. First the repo is found (that names the
 * family of routes), then what follows it is matched against the rows of that family.
 */
#include "hub/hub_internal.h"

#include "base/encode.h"

/* ---- the table ---- */

enum family {
    FIXED,  /* no repo */
    API,    /* /api/T/R/... */
    COPIES, /* /api/resolve-cache/T/R/... : where the Hub itself sends a resolve of a small file */
    FILES,  /* {P}R/... */
    LFS,    /* {P}R.git/info/lfs/... */
    GIT,    /* {P}R[.git]/...: what git itself asks */
};

enum { GET = 1, HEAD = 2, POST = 4, PUT = 8, DELETE = 16 };

static const struct row {
    enum family family;
    /* words, and: V a revision, C a commit, N a number, H a digest (both: the path), * the rest
     * (the path), @ a rest of at least one segment (the path), + one that does not matter. What
     * follows the repo; of FIXED all of it */
    const char *pattern;
    enum hub_route route;
    unsigned methods;
    enum hub_action action;
    enum hub_type type; /* of FIXED */
} rows[] = {
    {FILES, "resolve/V/*", HUB_RESOLVE, GET | HEAD, HUB_READ_ACTION, 0},
    {COPIES, "C/*", HUB_RESOLVE, GET | HEAD, HUB_READ_ACTION, 0},
    {FILES, "raw/V/*", HUB_RAW, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "raw/V/*", HUB_RAW, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "", HUB_INFO, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "revision/V", HUB_INFO, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "tree/V/*", HUB_TREE, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "paths-info/V", HUB_PATHS_INFO, POST, HUB_READ_ACTION, 0},
    {API, "refs", HUB_REFS, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "commits/V", HUB_COMMITS, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "discussions", HUB_DISCUSSIONS, GET | HEAD | POST, HUB_READ_ACTION, 0},
    {API, "discussions/N", HUB_DISCUSSIONS, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "treesize/V/*", HUB_TREESIZE, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "auth-check", HUB_AUTH_CHECK, GET | HEAD, HUB_READ_ACTION, 0},
    {API, "auth-check/write", HUB_AUTH_CHECK, GET | HEAD, HUB_WRITE_ACTION, 0},
    {API, "xet-read-token/V", HUB_XET_READ_TOKEN, GET | HEAD, HUB_READ_ACTION, 0},
    {FIXED, "api/whoami-v2", HUB_WHOAMI, GET | HEAD, HUB_NO_ACTION, 0},
    {FIXED, "api/models", HUB_LIST, GET | HEAD, HUB_DISCOVER_ACTION, HUB_MODEL},
    {FIXED, "api/datasets", HUB_LIST, GET | HEAD, HUB_DISCOVER_ACTION, HUB_DATASET},
    {FIXED, "api/spaces", HUB_LIST, GET | HEAD, HUB_DISCOVER_ACTION, HUB_SPACE},
    {FIXED, "api/organizations/@", HUB_ORGANIZATION, GET | HEAD, HUB_DISCOVER_ACTION, 0},
    {FIXED, "api/models-tags-by-type", HUB_TAGS_BY_TYPE, GET | HEAD, HUB_NO_ACTION, HUB_MODEL},
    {FIXED, "api/datasets-tags-by-type", HUB_TAGS_BY_TYPE, GET | HEAD, HUB_NO_ACTION, HUB_DATASET},
    {FIXED, "api/agent-harnesses", HUB_AGENT_HARNESSES, GET | HEAD, HUB_NO_ACTION, 0},
    {FIXED, "api/telemetry/+", HUB_TELEMETRY, GET | HEAD | POST, HUB_NO_ACTION, 0},
    {FIXED, "v1/telemetry", HUB_TELEMETRY, POST, HUB_NO_ACTION, 0},
    {FIXED, "api/gateway/tokens", HUB_GATEWAY_TOKENS, POST, HUB_NO_ACTION, 0},
    {FIXED, "-/blob/H", HUB_NODE_BLOB, GET | HEAD, HUB_NO_ACTION, 0},
    {FIXED, "-/healthz", HUB_HEALTH, GET | HEAD, HUB_NO_ACTION, 0},
    {FIXED, "-/readyz", HUB_READY, GET | HEAD, HUB_NO_ACTION, 0},
    {FIXED, "-/metrics", HUB_METRICS, GET | HEAD, HUB_NO_ACTION, 0},
    {FIXED, "metrics", HUB_METRICS, GET | HEAD, HUB_NO_ACTION, 0},
    {API, "settings", HUB_SETTINGS, PUT, HUB_ADMIN_ACTION, 0},
    {API, "preupload/V", HUB_PREUPLOAD, POST, HUB_WRITE_ACTION, 0},
    {API, "commit/V", HUB_COMMIT, POST, HUB_WRITE_ACTION, 0},
    {API, "branch/V", HUB_BRANCH, POST | DELETE, HUB_WRITE_ACTION, 0},
    {API, "tag/V", HUB_TAG, POST | DELETE, HUB_WRITE_ACTION, 0},
    {API, "super-squash/V", HUB_SQUASH, POST, HUB_DELETE_ACTION, 0},
    {API, "xet-write-token/V", HUB_XET_WRITE_TOKEN, GET | HEAD, HUB_WRITE_ACTION, 0},
    {LFS, "objects/batch", HUB_LFS_BATCH, POST, HUB_READ_ACTION, 0},
    {LFS, "locks/verify", HUB_LFS_LOCKS, POST, HUB_READ_ACTION, 0},
    {GIT, "info/refs", HUB_GIT_REFS, GET | HEAD, HUB_READ_ACTION, 0},
    {GIT, "git-upload-pack", HUB_GIT_UPLOAD_PACK, POST, HUB_READ_ACTION, 0},
    {GIT, "git-receive-pack", HUB_GIT_RECEIVE_PACK, POST, HUB_WRITE_ACTION, 0},
    {FIXED, "api/repos/create", HUB_REPO_CREATE, POST, HUB_CREATE_ACTION, 0},
    {FIXED, "api/repos/delete", HUB_REPO_DELETE, DELETE, HUB_DELETE_ACTION, 0},
    {FIXED, "api/repos/move", HUB_REPO_MOVE, POST, HUB_ADMIN_ACTION, 0},
    {FIXED, "api/validate-yaml", HUB_VALIDATE_YAML, POST, HUB_NO_ACTION, 0},
    {FIXED, "-/lfs/@", HUB_OBJECT, PUT, HUB_NO_ACTION, 0},
    {FIXED, "-/lfs-object/@", HUB_OBJECT_GET, GET | HEAD, HUB_NO_ACTION, 0},
    {FIXED, "-/lfs-verify/@", HUB_OBJECT_VERIFY, POST, HUB_NO_ACTION, 0},
    {FIXED, "-/lfs-part/@", HUB_OBJECT_PART, PUT, HUB_NO_ACTION, 0},
    {FIXED, "-/lfs-complete/@", HUB_OBJECT_COMPLETE, POST, HUB_NO_ACTION, 0},
    {FIXED, "oauth/device", HUB_OAUTH_DEVICE, POST, HUB_NO_ACTION, 0},
    {FIXED, "oauth/token", HUB_OAUTH_DEVICE, POST, HUB_NO_ACTION, 0},
};

static const char *const route_names[HUB_ROUTE_COUNT] = {
    [HUB_RESOLVE] = "resolve",
    [HUB_RAW] = "raw",
    [HUB_INFO] = "info",
    [HUB_TREE] = "tree",
    [HUB_PATHS_INFO] = "paths-info",
    [HUB_REFS] = "refs",
    [HUB_COMMITS] = "commits",
    [HUB_DISCUSSIONS] = "discussions",
    [HUB_TREESIZE] = "treesize",
    [HUB_AUTH_CHECK] = "auth-check",
    [HUB_XET_READ_TOKEN] = "xet-read-token",
    [HUB_WHOAMI] = "whoami",
    [HUB_LIST] = "list",
    [HUB_ORGANIZATION] = "organization",
    [HUB_TAGS_BY_TYPE] = "tags-by-type",
    [HUB_AGENT_HARNESSES] = "agent-harnesses",
    [HUB_TELEMETRY] = "telemetry",
    [HUB_GATEWAY_TOKENS] = "gateway-tokens",
    [HUB_NODE_BLOB] = "node-blob",
    [HUB_HEALTH] = "health",
    [HUB_READY] = "health",
    [HUB_METRICS] = "metrics",
    [HUB_REPO_CREATE] = "create",
    [HUB_REPO_DELETE] = "delete",
    [HUB_REPO_MOVE] = "move",
    [HUB_VALIDATE_YAML] = "validate-yaml",
    [HUB_SETTINGS] = "settings",
    [HUB_PREUPLOAD] = "preupload",
    [HUB_COMMIT] = "commit",
    [HUB_BRANCH] = "branch",
    [HUB_TAG] = "tag",
    [HUB_SQUASH] = "super-squash",
    [HUB_XET_WRITE_TOKEN] = "xet-write-token",
    [HUB_LFS_BATCH] = "lfs-batch",
    [HUB_LFS_LOCKS] = "lfs-locks",
    [HUB_GIT_REFS] = "git-refs",
    [HUB_GIT_UPLOAD_PACK] = "git-upload-pack",
    [HUB_GIT_RECEIVE_PACK] = "git-receive-pack",
    [HUB_OBJECT_GET] = "lfs-object",
    [HUB_OBJECT] = "upload",
    [HUB_OBJECT_VERIFY] = "upload-verify",
    [HUB_OBJECT_PART] = "upload-part",
    [HUB_OBJECT_COMPLETE] = "upload-complete",
    [HUB_OAUTH_DEVICE] = "oauth",
    [HUB_PREFLIGHT] = "preflight",
};

const char *hub_route_name(enum hub_route r)
{
    return (size_t)r < HUB_ROUTE_COUNT ? route_names[r] : "unknown";
}

static bool one_of(struct gw_str word, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (gw_str_eq_c(word, words[i])) {
            return true;
        }
    }
    return false;
}

/* Behind a repo in a URL without /api: at most one of these begins what is not the repo's name. */
static bool is_marker(struct gw_str word)
{
    static const char *const words[] = {"resolve", "raw",    "blob", "tree",
                                        "commits", "commit", "blame"};

    return one_of(word, words, sizeof(words) / sizeof(words[0]));
}

/* Behind /api/T/x: one of these makes x a whole id ("gpt2"), anything else is its second half. */
static bool is_sub_resource(struct gw_str word)
{
    static const char *const words[] = {
        "revision", "tree",      "paths-info",   "refs",           "commits",
        "commit",   "compare",   "discussions",  "auth-check",     "treesize",
        "resolve",  "raw",       "blob",         "settings",       "preupload",
        "branch",   "tag",       "super-squash", "xet-read-token", "xet-write-token",
        "parquet",  "croissant", "jwt",          "lfs-files",      "scan"};

    return one_of(word, words, sizeof(words) / sizeof(words[0]));
}

/* ---- splitting ---- */

#define KEPT 10u /* /api/T/ns/name/treesize/refs/pr/1/path: the path is segment 8 */

/* The decoded segments, joined by '/'. Of those behind the first KEPT only the text is known. */
struct parts {
    struct gw_str text;
    size_t count;
    struct {
        size_t at, n;
    } segment[KEPT];
    bool slash; /* a final '/' followed; it is not in text */
};

static struct gw_str part(const struct parts *p, size_t i)
{
    if (i >= p->count || i >= KEPT) {
        return GW_STR("");
    }
    return gw_str_sub(p->text, p->segment[i].at, p->segment[i].n);
}

/* From segment i to the end. */
static struct gw_str rest_of(const struct parts *p, size_t i)
{
    if (i >= p->count || i >= KEPT) {
        return GW_STR("");
    }
    return gw_str_sub(p->text, p->segment[i].at, p->text.n);
}

/* RFC 9112 3.2 has none of these in a target; a '#' would be one only to some readers. */
static bool raw_bytes_ok(struct gw_str raw)
{
    for (size_t i = 0; i < raw.n; i++) {
        if ((unsigned char)raw.p[i] <= 0x20 || raw.p[i] == 0x7f || raw.p[i] == '#') {
            return false;
        }
    }
    return true;
}

static int decode_segment(struct gw_str *out, struct gw_str raw, struct gw_arena *a,
                          struct gw_error *err)
{
    *out = raw;
    if (memchr(raw.p, '%', raw.n) != NULL) {
        if (!hub_escapes_ok(raw)) {
            return gw_fail(err, GW_INVALID, 0, "a bad %%-escape in the path");
        }
        if (!gw_percent_decode(a, raw, false, out)) {
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a request target");
        }
    }
    if (!hub_components_ok(*out)) {
        return gw_fail(err, GW_INVALID, 0, "an empty, \".\" or \"..\" segment in the path");
    }
    if (!hub_text_ok(*out)) {
        return gw_fail(err, GW_INVALID, 0, "a character in the path that is not allowed there");
    }
    return GW_OK;
}

/* raw: the path behind its first '/'. */
static int split(struct parts *p, struct gw_str raw, struct gw_arena *a, struct gw_error *err)
{
    char *text = gw_arena_alloc(a, raw.n + 1);
    struct gw_str segment;
    size_t n = 0;

    if (text == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a request target");
    }
    while (gw_str_split(&raw, '/', &segment)) {
        struct gw_str decoded;
        int rc;

        if (segment.n == 0 && raw.p == NULL) {
            p->slash = true;
            break;
        }
        rc = decode_segment(&decoded, segment, a, err);
        if (rc != GW_OK) {
            return rc;
        }
        if (p->count != 0) {
            text[n++] = '/';
        }
        if (p->count < KEPT) {
            p->segment[p->count].at = n;
            p->segment[p->count].n = decoded.n;
        }
        p->count++;
        memcpy(text + n, decoded.p, decoded.n);
        n += decoded.n;
    }
    p->text = (struct gw_str){text, n};
    return GW_OK;
}

/* ---- the repo ---- */

/* The name is `names` segments from segment i on. */
static int take_repo(struct hub_target *t, const struct parts *p, size_t i, size_t names,
                     struct gw_error *err)
{
    struct gw_str first = part(p, i), name = part(p, i + names - 1);

    if (memchr(first.p, '/', first.n) != NULL || memchr(name.p, '/', name.n) != NULL) {
        return gw_fail(err, GW_INVALID, 0, "%%2F in the name of a repo");
    }
    /* "a/resolve" is a name in one family of routes and the repo "a" in another: no repo has it */
    if (hub_name_reserved(first) || !hub_name_ok(first) || !hub_name_ok(name) ||
        (names == 2 && is_marker(name))) {
        return gw_fail(err, GW_NOT_FOUND, 0, "not a name that a repo can have");
    }
    t->has_repo = true;
    t->ns = names == 2 ? first : GW_STR("");
    t->name = name;
    return GW_OK;
}

static int no_route(const struct parts *p, struct gw_error *err)
{
    bool api = gw_str_eq_c(part(p, 0), "api");

    return gw_fail(err, GW_NOT_FOUND, api ? HUB_NO_SUCH_API : 0, "no such route");
}

static bool plural_type(struct gw_str word, enum hub_type *out)
{
    return hub_type_parse(word, out) && gw_str_eq_c(word, hub_type_plural(*out));
}

/* {P}ns/name.git/info/lfs/...: git-lfs appends it to the remote, whatever that ends in. */
static bool is_lfs(const struct parts *p, size_t name)
{
    return gw_str_ends(part(p, name), GW_STR(".git")) && gw_str_eq_c(part(p, name + 1), "info") &&
           gw_str_eq_c(part(p, name + 2), "lfs");
}

/* {P}ns/name[.git]/...: one of the three that git's smart protocol has. */
static bool is_git(const struct parts *p, size_t name)
{
    struct gw_str first = part(p, name + 1);

    return (gw_str_eq_c(first, "info") && gw_str_eq_c(part(p, name + 2), "refs")) ||
           gw_str_eq_c(first, "git-upload-pack") || gw_str_eq_c(first, "git-receive-pack");
}

static int take_named_git(struct hub_target *t, const struct parts *p, size_t i,
                          struct gw_error *err)
{
    struct parts cut = *p;

    if (gw_str_ends(part(p, i + 1), GW_STR(".git"))) {
        cut.segment[i + 1].n -= strlen(".git");
    }
    return take_repo(t, &cut, i, 2, err);
}

/* Finds the repo; *next is the first segment behind it. */
static int find_repo(struct hub_target *t, enum family *family, size_t *next, const struct parts *p,
                     struct gw_error *err)
{
    size_t i = 0, names = 2;

    if (gw_str_eq_c(part(p, 0), "api")) {
        *family = gw_str_eq_c(part(p, 1), "resolve-cache") ? COPIES : API;
        i = *family == COPIES ? 3 : 2;
        if (!plural_type(part(p, i - 1), &t->type) || p->count <= i) {
            return no_route(p, err);
        }
        if (*family == COPIES) {
            names = hub_is_commit(part(p, i + 1)) ? 1 : 2;
        } else if (p->count == i + 1 || is_sub_resource(part(p, i + 1))) {
            names = 1;
        }
    } else {
        *family = FILES;
        if (plural_type(part(p, 0), &t->type) && t->type != HUB_MODEL) {
            i = 1;
        } else {
            t->type = HUB_MODEL;
        }
        if (is_lfs(p, i + 1)) {
            *family = LFS;
            *next = i + 4;
            return take_named_git(t, p, i, err);
        }
        if (!is_marker(part(p, i + 1)) && is_git(p, i + 1)) {
            *family = GIT;
            *next = i + 2;
            return take_named_git(t, p, i, err);
        }
        if (is_marker(part(p, i + 1))) {
            names = 1;
        } else if (!is_marker(part(p, i + 2))) {
            return no_route(p, err); /* a web page */
        }
    }
    *next = i + names;
    return take_repo(t, p, i, names, err);
}

/* ---- what follows ---- */

static bool is_special_ref(struct gw_str text)
{
    return gw_str_starts(text, GW_STR("refs/pr/")) || gw_str_starts(text, GW_STR("refs/convert/"));
}

/* Revision and path from segment i on. Most clients send refs%2Fpr%2F1, huggingface.js (API) and
 * hfd.sh refs/pr/1. */
static int take_revision(struct hub_target *t, const struct parts *p, size_t i,
                         struct gw_error *err)
{
    struct gw_str rest = rest_of(p, i), revision = part(p, i);

    if (gw_str_eq_c(revision, "refs") && is_special_ref(rest)) {
        size_t name = gw_str_starts(rest, GW_STR("refs/pr/")) ? 8 : 13;
        const char *end = memchr(rest.p + name, '/', rest.n - name);

        revision.n = end != NULL ? (size_t)(end - rest.p) : rest.n;
    }
    if (revision.n > HUB_REVISION_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "a revision of more than %u bytes", HUB_REVISION_MAX);
    }
    /* git allows neither, and the second would be an option to a git command */
    if (memmem(revision.p, revision.n, "..", 2) != NULL || revision.p[0] == '-') {
        return gw_fail(err, GW_INVALID, 0, "not a revision: \"..\" inside or '-' in front");
    }
    t->revision = revision;
    t->path = rest.n > revision.n ? gw_str_sub(rest, revision.n + 1, rest.n) : GW_STR("");
    return GW_OK;
}

static bool is_digest(struct gw_str s)
{
    return gw_is_hex_lower(s, 40) || gw_is_hex_lower(s, 64);
}

static bool is_number(struct gw_str s)
{
    uint64_t v;

    return s.n <= 9 && gw_str_u64(s, &v);
}

/* @return GW_OK and the fields set; GW_NOT_FOUND: not this row; or what is wrong with its revision
 */
static int match(struct hub_target *t, const struct row *row, const struct parts *p, size_t i,
                 struct gw_error *err)
{
    struct gw_str pattern = gw_str_c(row->pattern), word;
    bool open = false; /* the pattern ends in a rest */
    int rc;

    t->revision = GW_STR("");
    t->path = GW_STR("");
    while (pattern.n != 0 && gw_str_split(&pattern, '/', &word)) {
        switch (word.p[0]) {
        case 'V':
        case 'C':
            if (i >= p->count || (word.p[0] == 'C' && !hub_is_commit(part(p, i)))) {
                return GW_NOT_FOUND;
            }
            rc = take_revision(t, p, i, err);
            if (rc != GW_OK) {
                return rc;
            }
            i = p->count; /* all the rest is in t->path */
            break;
        case 'N':
            if (!is_number(part(p, i))) {
                return GW_NOT_FOUND;
            }
            t->path = part(p, i++);
            open = true;
            break;
        case 'H':
            if (!is_digest(part(p, i))) {
                return GW_NOT_FOUND;
            }
            t->path = part(p, i++);
            open = true;
            break;
        case '*':
            open = true;
            break;
        case '@':
            t->path = rest_of(p, i);
            if (t->path.n == 0) {
                return GW_NOT_FOUND;
            }
            i = p->count;
            open = true;
            break;
        case '+':
            if (i >= p->count) {
                return GW_NOT_FOUND;
            }
            i = p->count;
            break;
        default:
            if (!gw_str_eq(part(p, i), word)) {
                return GW_NOT_FOUND;
            }
            i++;
        }
    }
    return i >= p->count && (open || t->path.n == 0) ? GW_OK : GW_NOT_FOUND;
}

static int match_rows(struct hub_target *t, const struct row **found, enum family family,
                      const struct parts *p, size_t next, struct gw_error *err)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int rc = rows[i].family == family ? match(t, &rows[i], p, next, err) : GW_NOT_FOUND;

        if (rc != GW_NOT_FOUND) {
            *found = &rows[i];
            return rc;
        }
    }
    return no_route(p, err);
}

static int find_row(struct hub_target *t, const struct row **found, const struct parts *p,
                    struct gw_error *err)
{
    enum family family = FIXED;
    size_t next = 0;
    int rc = match_rows(t, found, FIXED, p, 0, err);

    if (rc == GW_OK) {
        t->type = (*found)->type;
        return GW_OK;
    }
    rc = find_repo(t, &family, &next, p, err);
    return rc == GW_OK ? match_rows(t, found, family, p, next, err) : rc;
}

/* One final slash is forgiven on the API ("tree/main/" is the root); a file has none. */
static int check_slash(const struct hub_target *t, const struct parts *p, struct gw_error *err)
{
    if (!p->slash) {
        return GW_OK;
    }
    if (t->route == HUB_RESOLVE || t->route == HUB_RAW) {
        return t->path.n == 0 ? GW_OK : gw_fail(err, GW_INVALID, 0, "a file path ends in a slash");
    }
    return gw_str_eq_c(part(p, 0), "api") ? GW_OK : no_route(p, err);
}

/* ---- methods ---- */

static const char *allow(unsigned methods)
{
    switch (methods) {
    case GET | HEAD:
        return "GET, HEAD, OPTIONS";
    case POST:
        return "POST, OPTIONS";
    case PUT:
        return "PUT, OPTIONS";
    case DELETE:
        return "DELETE, OPTIONS";
    case POST | DELETE:
        return "POST, DELETE, OPTIONS";
    default:
        return "GET, HEAD, POST, OPTIONS";
    }
}

static unsigned method_bit(struct gw_str method)
{
    return gw_str_eq_c(method, "GET")      ? GET
           : gw_str_eq_c(method, "HEAD")   ? HEAD
           : gw_str_eq_c(method, "POST")   ? POST
           : gw_str_eq_c(method, "PUT")    ? PUT
           : gw_str_eq_c(method, "DELETE") ? DELETE
                                           : 0;
}

static const struct hub_target empty = {
    .route = HUB_PREFLIGHT,
    .ns = GW_STR_INIT(""),
    .name = GW_STR_INIT(""),
    .revision = GW_STR_INIT(""),
    .path = GW_STR_INIT(""),
    .cursor = GW_STR_INIT(""),
    .keys = GW_STR_INIT(""),
    .query = GW_STR_INIT(""),
};

/* Which of git's two services is asked for its refs; none: git's old protocol, plain files. */
static void take_service(struct hub_target *t, struct gw_str query)
{
    struct gw_str one;

    while (query.n != 0 && gw_str_split(&query, '&', &one)) {
        t->git_fetch = t->git_fetch || gw_str_eq_c(one, "service=git-upload-pack");
        t->git_push = t->git_push || gw_str_eq_c(one, "service=git-receive-pack");
    }
    t->git_push = t->git_push && !t->git_fetch;
    if (t->git_push) {
        t->action = HUB_WRITE_ACTION;
    }
}

int hub_target_parse(struct hub_target *out, struct gw_str method, struct gw_str raw_target,
                     struct gw_arena *a, struct gw_error *err)
{
    struct hub_target t = empty;
    struct gw_str query = raw_target, path;
    struct parts p = {.count = 0};
    const struct row *row = NULL;
    int rc;

    if (raw_target.n > HUB_TARGET_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "a request target of more than %u bytes",
                       HUB_TARGET_MAX);
    }
    if (gw_str_eq_c(method, "OPTIONS")) { /* before the path: reveals nothing about it */
        *out = t;
        return GW_OK;
    }
    if (raw_target.n == 0 || raw_target.p[0] != '/' || !raw_bytes_ok(raw_target)) {
        return gw_fail(err, GW_INVALID, 0, "not a request target");
    }
    gw_str_split(&query, '?', &path);
    rc = split(&p, gw_str_sub(path, 1, path.n), a, err);
    if (rc == GW_OK) {
        rc = find_row(&t, &row, &p, err);
    }
    if (rc != GW_OK) {
        return rc;
    }
    t.route = row->route;
    t.action = row->action;
    rc = check_slash(&t, &p, err);
    if (rc != GW_OK) {
        return rc;
    }
    if (t.path.n > HUB_PATH_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "a path of more than %u bytes", HUB_PATH_MAX);
    }
    t.head = gw_str_eq_c(method, "HEAD");
    if ((row->methods & method_bit(method)) == 0) {
        t.allow = allow(row->methods);
    }
    if (t.route == HUB_GIT_REFS) {
        take_service(&t, query);
    }
    rc = hub_query_parse(&t, query, a, err);
    if (rc == GW_OK) {
        *out = t;
    }
    return rc;
}

/* ---- writing ---- */

void hub_put_repo(struct gw_buf *out, const struct hub_target *t)
{
    if (t->ns.n != 0) {
        gw_buf_add(out, t->ns);
        gw_buf_add_char(out, '/');
    }
    gw_buf_add(out, t->name);
}

/* The row that writes this target: the first of its route that has a place for what it names. */
static const struct row *row_to_write(const struct hub_target *t, struct gw_str revision)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *row = &rows[i];
        bool has_revision = strchr(row->pattern, 'V') != NULL;
        bool has_number = strchr(row->pattern, 'N') != NULL;

        if (row->route != t->route || row->family == COPIES ||
            (t->route == HUB_AUTH_CHECK && row->action != t->action)) {
            continue;
        }
        if ((t->route == HUB_INFO && has_revision != (revision.n != 0)) ||
            (t->route == HUB_DISCUSSIONS && has_number != (t->path.n != 0)) ||
            ((t->route == HUB_TAGS_BY_TYPE || t->route == HUB_LIST) && row->type != t->type)) {
            continue;
        }
        return row;
    }
    return NULL;
}

void hub_put_target_path(struct gw_buf *out, const struct hub_target *t, struct gw_str revision)
{
    const struct row *row;
    struct gw_str pattern, word;

    if (revision.n == 0) {
        revision = t->revision;
    }
    row = row_to_write(t, revision);
    if (row == NULL) {
        return;
    }
    if (row->family == API) {
        gw_buf_add_c(out, "/api");
    }
    if (row->family == API || (row->family != FIXED && t->type != HUB_MODEL)) {
        gw_buf_add_char(out, '/');
        gw_buf_add_c(out, hub_type_plural(t->type));
    }
    if (row->family != FIXED) {
        gw_buf_add_char(out, '/');
        hub_put_repo(out, t);
    }
    if (row->family == LFS || row->family == GIT) {
        gw_buf_add_c(out, row->family == LFS ? ".git/info/lfs" : ".git");
    }
    pattern = gw_str_c(row->pattern);
    while (pattern.n != 0 && gw_str_split(&pattern, '/', &word)) {
        switch (word.p[0]) {
        case 'V':
            gw_buf_add_char(out, '/');
            gw_percent_encode(out, revision.n != 0 ? revision : GW_STR("main"), false);
            break;
        case 'N':
        case 'H':
        case '*':
        case '@':
            if (t->path.n != 0) {
                gw_buf_add_char(out, '/');
                gw_percent_encode(out, t->path, true);
            }
            break;
        default:
            gw_buf_add_char(out, '/');
            gw_buf_add(out, word);
        }
    }
}

/* What upstream is asked: nothing else ever goes there. */
static bool is_asked_upstream(enum hub_route r)
{
    return r == HUB_RESOLVE || r == HUB_RAW || r == HUB_INFO || r == HUB_TREE ||
           r == HUB_PATHS_INFO || r == HUB_REFS || r == HUB_COMMITS || r == HUB_DISCUSSIONS ||
           r == HUB_TREESIZE || r == HUB_AUTH_CHECK || r == HUB_XET_READ_TOKEN ||
           r == HUB_TAGS_BY_TYPE || r == HUB_LIST;
}

void hub_put_upstream_target(struct gw_buf *out, const struct hub_target *t, struct gw_str revision)
{
    if (!is_asked_upstream(t->route)) {
        return;
    }
    hub_put_target_path(out, t, revision);
    if (t->query.n != 0) {
        gw_buf_add_char(out, '?');
        gw_buf_add(out, t->query);
    }
}
