/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_target.c - every route in every spelling, and the spellings that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define SHA256 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SHA "0123456789abcdef0123456789abcdef01234567"

/* "resolve model ns/name @main //a/b" + " WRITE" + " head" + " allow=..." */
static void describe(struct gw_buf *out, const struct hub_target *t)
{
    gw_buf_addf(out, "%s", hub_route_name(t->route));
    if (t->has_repo) {
        gw_buf_addf(out, " %s ", hub_type_name(t->type));
        hub_put_repo(out, t);
    }
    if (t->revision.n != 0) {
        gw_buf_addf(out, " @" GW_STR_FMT, GW_STR_ARG(t->revision));
    }
    if (t->path.n != 0) {
        gw_buf_addf(out, " //" GW_STR_FMT, GW_STR_ARG(t->path));
    }
    if (t->action == HUB_WRITE_ACTION) {
        gw_buf_add_c(out, " WRITE");
    }
    if (t->allow != NULL) {
        gw_buf_addf(out, " allow=%s", t->allow);
    }
}

static int parse(struct hub_target *t, const char *method, const char *target, struct gw_arena *a)
{
    struct gw_error err = {0};
    int rc = hub_target_parse(t, gw_str_c(method), gw_str_c(target), a, &err);

    if (rc != GW_OK) {
        assert_int_equal(err.status, rc);
        assert_true(err.text[0] != '\0');
    }
    return rc;
}

struct row {
    const char *method, *target, *expected;
};

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct gw_arena a;
        struct gw_buf b;
        struct hub_target t;
        int rc;

        gw_arena_init(&a, 65536);
        gw_buf_init(&b, 65536);
        rc = parse(&t, rows[i].method, rows[i].target, &a);
        if (rc == GW_OK) {
            describe(&b, &t);
        } else {
            gw_buf_add_c(&b, gw_status_name((enum gw_status)rc));
        }
        if (!gw_str_eq_c(gw_buf_str(&b), rows[i].expected)) {
            fail_msg("%s %s: got \"%s\", not \"%s\"", rows[i].method, rows[i].target, b.p,
                     rows[i].expected);
        }
        gw_buf_release(&b);
        gw_arena_release(&a);
    }
}
#define CHECK(rows) check_rows(rows, sizeof(rows) / sizeof(rows[0]))

/* ---- routes ---- */

static void files(void **state)
{
    static const struct row rows[] = {
        {"GET", "/gpt2/resolve/main/config.json", "resolve model gpt2 @main //config.json"},
        {"HEAD", "/ns/name/resolve/main/a/b.bin", "resolve model ns/name @main //a/b.bin"},
        {"GET", "/datasets/ns/name/resolve/main/f", "resolve dataset ns/name @main //f"},
        {"GET", "/datasets/squad/resolve/main/f", "resolve dataset squad @main //f"},
        {"GET", "/spaces/ns/name/resolve/main/f", "resolve space ns/name @main //f"},
        {"GET", "/kernels/ns/name/resolve/main/f", "resolve kernel ns/name @main //f"},
        {"GET", "/ns/name/raw/main/f", "raw model ns/name @main //f"},
        {"HEAD", "/gpt2/raw/main/f", "raw model gpt2 @main //f"},
        {"GET", "/api/models/ns/name/raw/main/f", "raw model ns/name @main //f"},
        {"GET", "/api/models/gpt2/raw/main/f", "raw model gpt2 @main //f"},
        {"GET", "/ns/name/resolve/" SHA "/f", "resolve model ns/name @" SHA " //f"},
        {"GET", "/ns/name/resolve/HEAD/f", "resolve model ns/name @HEAD //f"},
        {"GET", "/api/resolve-cache/models/ns/name/" SHA "/a/b?%2Fns=&etag=%22x%22",
         "resolve model ns/name @" SHA " //a/b"},
        {"HEAD", "/api/resolve-cache/datasets/squad/" SHA "/f",
         "resolve dataset squad @" SHA " //f"},
        {"GET", "/api/resolve-cache/models/ns/name/main/f", "GW_NOT_FOUND"},
        {"GET", "/api/resolve-cache/models/ns/name", "GW_NOT_FOUND"},
        {"GET", "/api/resolve-cache/model/ns/name/" SHA "/f", "GW_NOT_FOUND"},
        /* queries mean nothing here, not even a damaged one */
        {"GET", "/gpt2/resolve/main/f?download=true", "resolve model gpt2 @main //f"},
        {"GET", "/gpt2/resolve/main/f?noContentDisposition=1&x=%zz",
         "resolve model gpt2 @main //f"},
        {"GET", "/gpt2/resolve/main/f?", "resolve model gpt2 @main //f"},
        /* how Python quotes: everything but '/' */
        {"GET", "/ns/name/resolve/main/dir%20with%20space/%C3%A9%2B%23%25.txt",
         "resolve model ns/name @main //dir with space/\xc3\xa9+#%.txt"},
        /* how rust hf-hub 0.5 does not */
        {"GET", "/ns/name/resolve/main/\xc3\xa9+.txt",
         "resolve model ns/name @main //\xc3\xa9+.txt"},
        {"GET", "/ns/name/resolve/main/a%2Fb", "resolve model ns/name @main //a/b"},
        {"GET", "/ns/name/resolve/main/..;/f", "resolve model ns/name @main //..;/f"},
        {"GET", "/ns/name/resolve/main/...", "resolve model ns/name @main //..."},
        {"GET", "/ns/name/resolve/main/a%252F..%252Fb", "resolve model ns/name @main //a%2F..%2Fb"},
        {"GET", "/ns/name/resolve/main/%F0%9F%98%80",
         "resolve model ns/name @main //\xf0\x9f\x98\x80"},
        /* no file named: the corridor says EntryNotFound */
        {"GET", "/ns/name/resolve/main", "resolve model ns/name @main"},
        {"GET", "/ns/name/resolve/main/", "resolve model ns/name @main"},
        {"GET", "/ns/name/resolve", "GW_NOT_FOUND"},
        {"GET", "/ns/name/resolve/", "GW_NOT_FOUND"},
        {"GET", "/ns/name/resolve/main/a/", "GW_INVALID"},
        {"GET", "/api/models/ns/name/raw/main/a/", "GW_INVALID"},
        /* the first marker counts */
        {"GET", "/foo/resolve/resolve/main/x", "resolve model foo @resolve //main/x"},
        {"GET", "/foo/raw/resolve/main/x", "raw model foo @resolve //main/x"},
        {"GET", "/tree/resolve/main/x", "resolve model tree @main //x"},
        {"GET", "/ns/blob/resolve/main/f", "GW_NOT_FOUND"},
        {"GET", "/ns/name/resolve/main/resolve/raw", "resolve model ns/name @main //resolve/raw"},
        /* escaped letters are the same route */
        {"GET", "/ns/name/%72esolve/main/f", "resolve model ns/name @main //f"},
        {"GET", "/%64atasets/ns/name/resolve/main/f", "resolve dataset ns/name @main //f"},
        {"GET", "/%6es/n%61me/resolve/main/f", "resolve model ns/name @main //f"},
    };

    CHECK(rows);
}

static void revisions(void **state)
{
    static const struct row rows[] = {
        {"GET", "/R/resolve/refs%2Fpr%2F1/x", "resolve model R @refs/pr/1 //x"},
        {"GET", "/R/resolve/refs/pr/1/x", "resolve model R @refs/pr/1 //x"},
        {"GET", "/R/resolve/refs%2fpr%2f1/x/y", "resolve model R @refs/pr/1 //x/y"},
        {"GET", "/R/resolve/refs/pr%2F1/x", "resolve model R @refs/pr/1 //x"},
        {"GET", "/R/resolve/refs%2Fconvert%2Fparquet/x",
         "resolve model R @refs/convert/parquet //x"},
        {"GET", "/R/resolve/refs/convert/parquet/x", "resolve model R @refs/convert/parquet //x"},
        {"GET", "/R/resolve/refs/pr/1", "resolve model R @refs/pr/1"},
        {"GET", "/R/resolve/refs/pr", "resolve model R @refs //pr"},
        {"GET", "/R/resolve/refs/heads/main/x", "resolve model R @refs //heads/main/x"},
        {"GET", "/R/resolve/feature%2Fx/f", "resolve model R @feature/x //f"},
        {"GET", "/R/resolve/feature/x/f", "resolve model R @feature //x/f"},
        {"GET", "/api/models/a/b/tree/refs/pr/1/a%20b?recursive=true",
         "tree model a/b @refs/pr/1 //a b"},
        {"GET", "/api/models/a/b/tree/refs%2Fpr%2F1/a%20b%2Fc",
         "tree model a/b @refs/pr/1 //a b/c"},
        {"GET", "/api/models/a/b/commits/refs/pr/1?limit=1", "commits model a/b @refs/pr/1"},
        {"GET", "/api/models/a/b/revision/refs/pr/1", "info model a/b @refs/pr/1"},
        {"GET", "/api/models/a/b/revision/refs%2Fpr%2F1", "info model a/b @refs/pr/1"},
        {"GET", "/api/models/a/b/revision/feature/x", "GW_NOT_FOUND"},
        {"GET", "/api/models/a/b/revision/feature%2Fx", "info model a/b @feature/x"},
        {"GET", "/api/models/a/b/revision/HEAD", "info model a/b @HEAD"},
        {"GET", "/R/resolve/a..b/f", "GW_INVALID"},
        {"GET", "/R/resolve/-x/f", "GW_INVALID"},
        {"GET", "/R/resolve/refs%2F%2Fpr/f", "GW_INVALID"},
        {"GET", "/R/resolve/refs%2F/f", "GW_INVALID"},
        {"GET", "/R/resolve/%2Frefs/f", "GW_INVALID"},
        {"GET", "/R/resolve/x%2F..%2Fmain/f", "GW_INVALID"},
    };

    CHECK(rows);
}

static void api(void **state)
{
    static const struct row rows[] = {
        {"GET", "/api/models/ns/name", "info model ns/name"},
        {"HEAD", "/api/models/ns/name", "info model ns/name"},
        {"GET", "/api/models/gpt2", "info model gpt2"},
        {"GET", "/api/models/gpt2/revision/main", "info model gpt2 @main"},
        {"GET", "/api/datasets/ns/name/revision/main", "info dataset ns/name @main"},
        {"GET", "/api/spaces/ns/name", "info space ns/name"},
        {"GET", "/api/kernels/ns/name", "info kernel ns/name"},
        {"GET", "/api/kernels/ns/name/tree/main", "tree kernel ns/name @main"},
        {"GET", "/api/models/ns/name/tree/main", "tree model ns/name @main"},
        {"GET", "/api/models/ns/name/tree/main/", "tree model ns/name @main"},
        {"GET", "/api/models/ns/name/tree/main/a/b", "tree model ns/name @main //a/b"},
        {"GET", "/api/models/ns/name/tree/main/a/b/", "tree model ns/name @main //a/b"},
        {"GET", "/api/models/gpt2/tree/main", "tree model gpt2 @main"},
        {"GET", "/api/models/ns/name/tree", "GW_NOT_FOUND"},
        {"POST", "/api/models/ns/name/paths-info/main", "paths-info model ns/name @main"},
        {"POST", "/api/models/gpt2/paths-info/" SHA, "paths-info model gpt2 @" SHA},
        {"POST", "/api/models/gpt2/paths-info/main/x", "GW_NOT_FOUND"},
        {"GET", "/api/models/ns/name/refs?include_prs=1", "refs model ns/name"},
        {"GET", "/api/models/gpt2/refs", "refs model gpt2"},
        {"GET", "/api/models/ns/name/refs/x", "GW_NOT_FOUND"},
        {"GET", "/api/models/ns/name/commits/main", "commits model ns/name @main"},
        {"GET", "/api/models/ns/name/discussions?p=0", "discussions model ns/name"},
        {"GET", "/api/models/ns/name/discussions/12", "discussions model ns/name //12"},
        {"GET", "/api/models/ns/name/discussions/x", "GW_NOT_FOUND"},
        {"GET", "/api/models/ns/name/discussions/12/x", "GW_NOT_FOUND"},
        {"GET", "/api/models/ns/name/treesize/main/", "treesize model ns/name @main"},
        {"GET", "/api/models/ns/name/treesize/main/a", "treesize model ns/name @main //a"},
        {"GET", "/api/models/ns/name/auth-check", "auth-check model ns/name"},
        {"GET", "/api/models/ns/name/auth-check/write", "auth-check model ns/name WRITE"},
        {"GET", "/api/models/ns/name/auth-check/admin", "GW_NOT_FOUND"},
        {"GET", "/api/models/gpt2/auth-check/write", "auth-check model gpt2 WRITE"},
        {"GET", "/api/models/ns/name/xet-read-token/" SHA, "xet-read-token model ns/name @" SHA},
        {"GET", "/api/models/ns/name/xet-read-token/main", "xet-read-token model ns/name @main"},
        {"GET", "/api/whoami-v2", "whoami"},
        {"GET", "/api/whoami-v2/", "whoami"},
        {"GET", "/api/models-tags-by-type", "tags-by-type"},
        {"GET", "/api/datasets-tags-by-type", "tags-by-type"},
        {"GET", "/api/agent-harnesses", "agent-harnesses"},
        {"HEAD", "/api/telemetry/gradio/x", "telemetry"},
        {"GET", "/api/telemetry", "GW_NOT_FOUND"},
        {"POST", "/v1/telemetry", "telemetry"},
        {"POST", "/api/gateway/tokens", "gateway-tokens"},
        {"GET", "/-/healthz", "health"},
        {"GET", "/-/readyz", "health"},
        {"GET", "/-/metrics", "metrics"},
        {"GET", "/metrics", "metrics"},
        {"GET", "/metrics/resolve/main/a", "resolve model metrics @main //a"},
        {"GET", "/-/healthz/", "GW_NOT_FOUND"},
        {"GET", "/-/blob/" SHA256, "node-blob //" SHA256},
        {"HEAD", "/-/blob/" SHA, "node-blob //" SHA},
        {"GET", "/-/blob/" SHA "0", "GW_NOT_FOUND"},
        {"GET", "/-/blob/" SHA256 "/x", "GW_NOT_FOUND"},
        {"GET", "/-/blob/" SHA "/", "GW_NOT_FOUND"},
        {"GET", "/-/blob", "GW_NOT_FOUND"},
        {"POST", "/oauth/device", "oauth"},
        {"POST", "/oauth/token", "oauth"},
        /* single-segment ids that are words of the API */
        {"GET", "/api/models/tree", "info model tree"},
        {"GET", "/api/models/tree/revision/main", "info model tree @main"},
        {"GET", "/api/models/tree/main", "info model tree/main"},
        {"GET", "/api/models/revision/main", "info model revision/main"},
        {"GET", "/api/models/x/refs", "refs model x"},
        {"GET", "/api/models/x/settings", "settings model x allow=PUT, OPTIONS"},
        {"PUT", "/api/models/ns/name/settings", "settings model ns/name"},
        {"POST", "/api/datasets/ns/name/preupload/main", "preupload dataset ns/name @main WRITE"},
        {"POST", "/api/models/ns/name/commit/refs%2Fpr%2F1",
         "commit model ns/name @refs/pr/1 WRITE"},
        {"POST", "/api/models/ns/name/commit/main/x", "GW_NOT_FOUND"},
        {"POST", "/api/models/ns/name/branch/a%2Fb", "branch model ns/name @a/b WRITE"},
        {"DELETE", "/api/models/ns/name/branch/dev", "branch model ns/name @dev WRITE"},
        {"GET", "/api/models/ns/name/tag/v1",
         "tag model ns/name @v1 WRITE allow=POST, DELETE, OPTIONS"},
        {"GET", "/api/models/ns/name/xet-write-token/None",
         "xet-write-token model ns/name @None WRITE"},
        {"POST", "/ns/name.git/info/lfs/objects/batch", "lfs-batch model ns/name"},
        {"POST", "/datasets/ns/name.git/info/lfs/locks/verify", "lfs-locks dataset ns/name"},
        {"GET", "/ns/name/info/refs?service=git-upload-pack", "git-refs model ns/name"},
        {"GET", "/ns/name.git/info/refs?x=y&service=git-receive-pack",
         "git-refs model ns/name WRITE"},
        {"GET", "/datasets/ns/name.git/info/refs", "git-refs dataset ns/name"},
        {"POST", "/spaces/ns/name/git-upload-pack", "git-upload-pack space ns/name"},
        {"POST", "/ns/name.git/git-receive-pack", "git-receive-pack model ns/name WRITE"},
        {"GET", "/ns/name.git/git-upload-pack",
         "git-upload-pack model ns/name allow=POST, OPTIONS"},
        {"GET", "/gpt2/raw/info/refs", "raw model gpt2 @info //refs"},
        {"GET", "/ns/a.git.git/info/refs", "GW_NOT_FOUND"},
        {"POST", "/ns/name.git/info/lfs/objects", "GW_NOT_FOUND"},
        {"POST", "/ns/.git/info/lfs/objects/batch", "GW_NOT_FOUND"},
        {"POST", "/ns/a.git.git/info/lfs/objects/batch", "GW_NOT_FOUND"},
        {"POST", "/api/repos/create", "create"},
        {"DELETE", "/api/repos/delete", "delete"},
        {"POST", "/api/validate-yaml", "validate-yaml"},
        {"PUT", "/-/lfs/a/b/c", "upload //a/b/c"},
        {"PUT", "/-/lfs", "GW_NOT_FOUND"},
        {"GET", "/-/lfs/a", "upload //a allow=PUT, OPTIONS"},
        {"GET", "/api/models/x/resolve/main/f", "GW_NOT_FOUND"},
        {"GET", "/api/models/x/super-squash/main",
         "super-squash model x @main allow=POST, OPTIONS"},
        {"POST", "/api/repos/move", "move"},
        {"PUT", "/-/lfs-part/a/b", "upload-part //a/b"},
        {"GET", "/api/models/ns/name/preupload/main",
         "preupload model ns/name @main WRITE allow=POST, OPTIONS"},
        {"GET", "/api/models/ns/name/unknown", "GW_NOT_FOUND"},
        /* a name that would be a marker elsewhere */
        {"GET", "/api/resolve-cache/models/a/resolve/" SHA "/f", "GW_NOT_FOUND"},
        {"GET", "/api/models/a/blame", "GW_NOT_FOUND"},
        /* no routes */
        {"GET", "/", "GW_NOT_FOUND"},
        {"GET", "/api", "GW_NOT_FOUND"},
        {"GET", "/api/", "GW_NOT_FOUND"},
        {"GET", "/api/models", "list"},
        {"GET", "/api/datasets?author=a&cursor=x", "list"},
        {"GET", "/api/spaces/", "list"},
        {"GET", "/api/organizations/acme/overview", "organization //acme/overview"},
        {"GET", "/api/organizations", "GW_NOT_FOUND"},
        {"GET", "/api/models/", "list"},
        {"GET", "/api/model/ns/name", "GW_NOT_FOUND"},
        {"GET", "/api/Models/ns/name", "GW_NOT_FOUND"},
        {"GET", "/API/models/ns/name", "GW_NOT_FOUND"},
        {"GET", "/ns/name", "GW_NOT_FOUND"},
        {"GET", "/ns/name/blob/main/f", "GW_NOT_FOUND"},
        {"GET", "/ns/name/tree/main", "GW_NOT_FOUND"},
        {"GET", "/ns/name/commits/main", "GW_NOT_FOUND"},
        {"GET", "/ns/name/info/refs/x", "GW_NOT_FOUND"},
        {"GET", "/ns/name/info/refs/", "GW_NOT_FOUND"},
        {"GET", "/ns/info/refs", "GW_NOT_FOUND"},
        {"GET", "/ns/name.git/HEAD", "GW_NOT_FOUND"},
        {"GET", "/ns/name.git/objects/info/packs", "GW_NOT_FOUND"},
        {"GET", "/v2/ns/name/manifests/latest", "GW_NOT_FOUND"},
        {"GET", "/a/b/c/resolve/main/f", "GW_NOT_FOUND"},
        {"GET", "/datasets", "GW_NOT_FOUND"},
        {"GET", "/datasets/resolve/main/f", "GW_NOT_FOUND"},
        {"GET", "/buckets/ns/name/resolve/f", "GW_NOT_FOUND"},
    };

    CHECK(rows);
}

static void methods(void **state)
{
    static const struct row rows[] = {
        {"POST", "/ns/name/resolve/main/f",
         "resolve model ns/name @main //f allow=GET, HEAD, OPTIONS"},
        {"PUT", "/api/models/ns/name", "info model ns/name allow=GET, HEAD, OPTIONS"},
        {"DELETE", "/api/models/gpt2", "info model gpt2 allow=GET, HEAD, OPTIONS"},
        {"get", "/api/models/gpt2", "info model gpt2 allow=GET, HEAD, OPTIONS"},
        {"FOO", "/api/models/gpt2", "info model gpt2 allow=GET, HEAD, OPTIONS"},
        {"", "/api/models/gpt2", "info model gpt2 allow=GET, HEAD, OPTIONS"},
        {"TRACE", "/api/models/gpt2", "info model gpt2 allow=GET, HEAD, OPTIONS"},
        {"GET", "/api/models/ns/name/paths-info/main",
         "paths-info model ns/name @main allow=POST, OPTIONS"},
        {"HEAD", "/api/gateway/tokens", "gateway-tokens allow=POST, OPTIONS"},
        {"GET", "/oauth/device", "oauth allow=POST, OPTIONS"},
        {"GET", "/v1/telemetry", "telemetry allow=POST, OPTIONS"},
        {"PUT", "/api/telemetry/x", "telemetry allow=GET, HEAD, POST, OPTIONS"},
        {"POST", "/api/whoami-v2", "whoami allow=GET, HEAD, OPTIONS"},
        /* the same for all there is and is not */
        {"OPTIONS", "/ns/name/resolve/main/f", "preflight"},
        {"OPTIONS", "/no/such", "preflight"},
        {"OPTIONS", "*", "preflight"},
        {"OPTIONS", "/a/../b", "preflight"},
    };
    struct gw_arena a;
    struct hub_target t;

    CHECK(rows);
    gw_arena_init(&a, 65536);
    assert_int_equal(parse(&t, "HEAD", "/gpt2/resolve/main/f", &a), GW_OK);
    assert_true(t.head);
    assert_int_equal(t.action, HUB_READ_ACTION);
    assert_int_equal(parse(&t, "GET", "/api/datasets-tags-by-type", &a), GW_OK);
    assert_false(t.head);
    assert_int_equal(t.type, HUB_DATASET);
    assert_int_equal(t.action, HUB_NO_ACTION);
    assert_false(t.has_repo);
    assert_non_null(t.ns.p);
    assert_non_null(t.revision.p);
    gw_arena_release(&a);
}

/* ---- names ---- */

#define N32 "n1234567890123456789012345678901"
#define N96 N32 N32 N32

static void names(void **state)
{
    static const struct {
        const char *id;
        int rc;
    } rows[] = {
        {"a", GW_OK},
        {"a/b", GW_OK},
        {"A_b-c.d/E_f-g.h", GW_OK},
        {"0/1", GW_OK},
        {"_a/_b_", GW_OK},
        {"a-.b", GW_OK},
        {N96, GW_OK},
        {N96 "/" N96, GW_OK},
        {N96 "x", GW_NOT_FOUND},
        {"ns/" N96 "x", GW_NOT_FOUND},
        {"-a", GW_NOT_FOUND},
        {"a-", GW_NOT_FOUND},
        {".a", GW_NOT_FOUND},
        {"a.", GW_NOT_FOUND},
        {"ns/.a", GW_NOT_FOUND},
        {"ns/a-", GW_NOT_FOUND},
        {"-ns/a", GW_NOT_FOUND},
        {"a--b", GW_NOT_FOUND},
        {"a..b", GW_NOT_FOUND},
        {"ns/a..b", GW_NOT_FOUND},
        {"a.git", GW_NOT_FOUND},
        {"ns/a.git", GW_NOT_FOUND},
        {"ns/a.GIT", GW_NOT_FOUND},
        {"a%20b", GW_NOT_FOUND},
        {"a%20", GW_NOT_FOUND},
        {"a+b", GW_NOT_FOUND},
        {"a~b", GW_NOT_FOUND},
        {"a:b", GW_NOT_FOUND},
        {"a;b=c", GW_NOT_FOUND},
        {"ns/a%3Fb", GW_NOT_FOUND},
        {"\xc3\xa9", GW_NOT_FOUND}, /* \w of Python lets it be sent */
        {"ns/%C3%A9", GW_NOT_FOUND},
        {"%D0%B0cme/llm", GW_NOT_FOUND}, /* Cyrillic a */
        {"ns%2Fname", GW_INVALID},
        {"ns/na%2Fme", GW_INVALID},
        {"n%2fs/name", GW_INVALID},
    };
    static const char *const reserved[] = {
        "api",           "datasets", "spaces",        "kernels",     "buckets", "models", "oauth",
        "docs",          "settings", "resolve-cache", "collections", "papers",  "login",  "join",
        "organizations", "new",      ".well-known",   "Datasets",    "API",     "DOCS"};
    static const char *const around[][2] = {
        {"/", "/resolve/main/f"},
        {"/datasets/", "/raw/main/f"},
        {"/api/models/", ""},
        {"/api/spaces/", "/tree/main"},
        {"/api/resolve-cache/models/", "/" SHA "/f"},
    };
    struct gw_arena a;
    struct hub_target t;
    char target[512];

    gw_arena_init(&a, 1 << 20);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t k = 0; k < sizeof(around) / sizeof(around[0]); k++) {
            int rc;

            snprintf(target, sizeof(target), "%s%s%s", around[k][0], rows[i].id, around[k][1]);
            rc = parse(&t, "GET", target, &a);
            if (rc != rows[i].rc) {
                fail_msg("%s: got %s", target, gw_status_name((enum gw_status)rc));
            }
        }
    }
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        for (size_t k = 0; k < sizeof(around) / sizeof(around[0]); k++) {
            int rc;

            snprintf(target, sizeof(target), "%s%s/name%s", around[k][0], reserved[i],
                     around[k][1]);
            rc = parse(&t, "GET", target, &a);
            if (rc != GW_NOT_FOUND && !(k == 0 && rc == GW_OK && t.type != HUB_MODEL)) {
                fail_msg("%s: got %s", target, gw_status_name((enum gw_status)rc));
            }
        }
    }
    gw_arena_release(&a);
}

/* ---- path confusion ---- */

static void confusion(void **state)
{
    static const char *const bad[] = {
        "..",           ".",          "%2e%2e",     "%2E%2E",    ".%2e",         "%2e.",
        "%2e",          "%2E",        "",           "..%2f",     "..%2F..",      "%2e%2e%2f",
        "%2f",          "%2F..",      "a%2F..%2Fb", "a%2F.%2Fb", "a%2F%2Fb",     "a%2F",
        "%2Fa",         "a%2f%2e%2e", "%00",        "a%00b",     "%c0%ae%c0%ae", "%c0%ae",
        "%ff",          "a%fe",       "%ed%a0%80",  "%5c",       "..%5c..",      "a\\b",
        "%0d%0aX:y",    "%0a",        "%0D",        "%7f",       "%1b[0m",       "%c2%85",
        "%e2%80%ae",    "%e2%80%8b",  "%ef%bb%bf",  "%e2%81%a6", "%e2%80%a8",    "%",
        "%2",           "%zz",        "%2g",        "a%",        "a#b",          "%u002e",
        "a b",          "\x01",       "\x7f",       "\xff",      "%f3%a0%80%81", "%c3",
        "\xe2\x80\x8d",
    };
    static const char *const around[][2] = {
        {"/ns/name/resolve/main/", "/f"},
        {"/ns/name/resolve/", "/f"},
        {"/", "/name/resolve/main/f"},
        {"/ns/", "/resolve/main/f"},
        {"/ns/name/raw/main/a/", "/b"},
        {"/datasets/ns/name/resolve/main/", "/x"},
        {"/api/models/", "/name/tree/main"},
        {"/api/models/ns/name/tree/main/", "/x"},
        {"/api/", "/whoami-v2"},
        {"/api/models/ns/name/", "/main"},
        {"/no/such/route/", "/at/all"},
    };
    struct gw_arena a;
    struct hub_target t;
    char target[512];

    assert_true(sizeof(bad) / sizeof(bad[0]) >= 40);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (size_t k = 0; k < sizeof(around) / sizeof(around[0]); k++) {
            int rc;

            gw_arena_init(&a, 65536);
            snprintf(target, sizeof(target), "%s%s%s", around[k][0], bad[i], around[k][1]);
            rc = parse(&t, "GET", target, &a);
            if (rc != GW_INVALID) {
                fail_msg("%s: got %s", target, gw_status_name((enum gw_status)rc));
            }
            gw_arena_release(&a);
        }
    }
    gw_arena_init(&a, 65536);
    assert_int_equal(parse(&t, "GET", "", &a), GW_INVALID);
    assert_int_equal(parse(&t, "GET", "*", &a), GW_INVALID);
    assert_int_equal(parse(&t, "GET", "http://evil.example/gpt2/resolve/main/f", &a), GW_INVALID);
    assert_int_equal(parse(&t, "GET", "//api/whoami-v2", &a), GW_INVALID);
    assert_int_equal(parse(&t, "GET", "/api/whoami-v2//", &a), GW_INVALID);
    assert_int_equal(
        hub_target_parse(&t, GW_STR("GET"), GW_STR("/gpt2/resolve/main/\0f"), &a, NULL),
        GW_INVALID);
    gw_arena_release(&a);
}

static void ceilings(void **state)
{
    static char target[HUB_TARGET_MAX + 2];
    struct gw_arena a;
    struct hub_target t = {.limit = 7};
    size_t n = (size_t)snprintf(target, sizeof(target), "/gpt2/resolve/main/");

    gw_arena_init(&a, 1 << 20);
    memset(target + n, 'a', sizeof(target) - n);
    assert_int_equal(
        hub_target_parse(&t, GW_STR("GET"), (struct gw_str){target, HUB_TARGET_MAX + 1}, &a, NULL),
        GW_TOO_LARGE);
    assert_int_equal(
        hub_target_parse(&t, GW_STR("GET"), (struct gw_str){target, HUB_TARGET_MAX}, &a, NULL),
        GW_TOO_LARGE);
    assert_int_equal(hub_target_parse(&t, GW_STR("GET"),
                                      (struct gw_str){target, n + HUB_PATH_MAX + 1}, &a, NULL),
                     GW_TOO_LARGE);
    assert_int_equal(t.limit, 7); /* left alone on failure */
    assert_int_equal(
        hub_target_parse(&t, GW_STR("GET"), (struct gw_str){target, n + HUB_PATH_MAX}, &a, NULL),
        GW_OK);
    assert_int_equal(t.path.n, HUB_PATH_MAX);

    n = (size_t)snprintf(target, sizeof(target), "/gpt2/resolve/");
    memset(target + n, 'r', 256);
    memcpy(target + n + 255, "/f", 2);
    assert_int_equal(
        hub_target_parse(&t, GW_STR("GET"), (struct gw_str){target, n + 257}, &a, NULL), GW_OK);
    assert_int_equal(t.revision.n, HUB_REVISION_MAX);
    memcpy(target + n + 255, "r/f", 3);
    assert_int_equal(
        hub_target_parse(&t, GW_STR("GET"), (struct gw_str){target, n + 258}, &a, NULL),
        GW_TOO_LARGE);

    /* the most segments: the memory for one target stays small */
    memset(target, 'a', sizeof(target));
    n = (size_t)snprintf(target, sizeof(target), "/gpt2/resolve/main");
    for (size_t i = n; i + 4 <= HUB_TARGET_MAX; i += 4) {
        memcpy(target + i, "/%41", 4);
    }
    gw_arena_release(&a);
    gw_arena_init(&a, 65536);
    assert_int_equal(
        hub_target_parse(&t, GW_STR("GET"), (struct gw_str){target, n + 4 * 2000}, &a, NULL),
        GW_OK);
    assert_int_equal(t.path.n, 2 * 2000 - 1);
    gw_arena_release(&a);
}

/* ---- writing ---- */

static void upstream(void **state)
{
    static const struct {
        const char *target, *revision, *expected;
    } rows[] = {
        {"/gpt2/resolve/main/a%20b/c?download=true", SHA, "/gpt2/resolve/" SHA "/a%20b/c"},
        {"/gpt2/resolve/main/f", "", "/gpt2/resolve/main/f"},
        {"/datasets/a/b/resolve/refs/pr/1/%C3%A9%2B%23%25%3F.txt", "",
         "/datasets/a/b/resolve/refs%2Fpr%2F1/%C3%A9%2B%23%25%3F.txt"},
        {"/api/resolve-cache/models/a/b/" SHA "/f?x=y", "", "/a/b/resolve/" SHA "/f"},
        {"/api/spaces/a/b/raw/main/f", "", "/spaces/a/b/raw/main/f"},
        {"/api/models/a/b", "", "/api/models/a/b"},
        {"/api/models/a/b/", "feature/x", "/api/models/a/b/revision/feature%2Fx"},
        {"/api/models/gpt2/revision/main?blobs=True", "",
         "/api/models/gpt2/revision/main?blobs=true"},
        {"/api/models/a/b/tree/main/a%20b%2Fc?recursive=True&junk=1", SHA,
         "/api/models/a/b/tree/" SHA "/a%20b/c?recursive=true"},
        {"/api/models/a/b/refs?include_prs=1", "", "/api/models/a/b/refs?include_prs=1"},
        {"/api/models/a/b/commits/main?p=3&limit=5", "",
         "/api/models/a/b/commits/main?limit=5&p=3"},
        {"/api/models/a/b/discussions/12", "", "/api/models/a/b/discussions/12"},
        {"/api/models/a/b/discussions?p=1&status=open", "",
         "/api/models/a/b/discussions?p=1&status=open"},
        {"/api/models/a/b/treesize/main/x", "", "/api/models/a/b/treesize/main/x"},
        {"/api/models/a/b/auth-check", "", "/api/models/a/b/auth-check"},
        {"/api/models/a/b/auth-check/write", "", "/api/models/a/b/auth-check/write"},
        {"/api/datasets-tags-by-type?type=language", "",
         "/api/datasets-tags-by-type?type=language"},
        {"/api/models-tags-by-type", "", "/api/models-tags-by-type"},
        {"/api/models/a/b/paths-info/main", SHA, "/api/models/a/b/paths-info/" SHA},
        /* what is answered here goes nowhere */
        {"/api/whoami-v2", "", ""},
        {"/api/gateway/tokens", "", ""},
        {"/-/healthz", "", ""},
        {"/-/metrics", "", ""},
        {"/oauth/device", "", ""},
        {"/api/telemetry/x", "", ""},
        {"/api/agent-harnesses", "", ""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a;
        struct gw_buf b;
        struct hub_target t;

        gw_arena_init(&a, 65536);
        gw_buf_init(&b, 65536);
        assert_int_equal(parse(&t, "GET", rows[i].target, &a), GW_OK);
        hub_put_upstream_target(&b, &t, gw_str_c(rows[i].revision));
        if (!gw_str_eq_c(gw_buf_str(&b), rows[i].expected)) {
            fail_msg("%s: got \"%s\"", rows[i].target, b.p);
        }
        gw_buf_release(&b);
        gw_arena_release(&a);
    }
}

static void types(void **state)
{
    enum hub_type t;

    assert_true(hub_type_parse(GW_STR("dataset"), &t) && t == HUB_DATASET);
    assert_true(hub_type_parse(GW_STR("kernels"), &t) && t == HUB_KERNEL);
    assert_true(hub_type_parse(GW_STR("model"), &t) && t == HUB_MODEL);
    assert_false(hub_type_parse(GW_STR("Model"), &t));
    assert_false(hub_type_parse(GW_STR(""), &t));
    assert_string_equal(hub_type_name(HUB_SPACE), "space");
    assert_string_equal(hub_type_plural(HUB_SPACE), "spaces");
    assert_true(hub_is_commit(GW_STR(SHA)));
    assert_false(hub_is_commit(GW_STR("0123456789ABCDEF0123456789ABCDEF01234567")));
    assert_false(hub_is_commit(GW_STR("0123456")));
    for (int r = 0; r < HUB_ROUTE_COUNT; r++) {
        assert_non_null(hub_route_name((enum hub_route)r));
    }
    assert_string_equal(hub_route_name((enum hub_route)99), "unknown");
}

static int parse_once(void *ctx)
{
    struct gw_arena a;
    struct hub_target t;
    struct gw_error err;
    int rc;

    gw_arena_init(&a, 65536);
    rc = hub_target_parse(
        &t, GW_STR("GET"),
        GW_STR("/api/models/n%73/n%61me/tree/refs%2Fpr%2F1/a%20b?recursive=1&cursor=a%3Db&p=3"), &a,
        &err);
    gw_arena_release(&a);
    return rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(parse_once, NULL, 2);
    for (size_t max = 0; max < 512; max++) { /* an arena that is too small */
        struct gw_arena a;
        struct hub_target t;
        int rc;

        gw_arena_init(&a, max);
        rc = parse(&t, "GET", "/api/models/a/b?expand=x&expand=y%61", &a);
        assert_true(rc == GW_OK || rc == GW_NO_MEMORY);
        gw_arena_release(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),     cmocka_unit_test(revisions), cmocka_unit_test(api),
        cmocka_unit_test(methods),   cmocka_unit_test(names),     cmocka_unit_test(confusion),
        cmocka_unit_test(ceilings),  cmocka_unit_test(upstream),  cmocka_unit_test(types),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
