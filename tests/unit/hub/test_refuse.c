/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_refuse.c - the whole table of refusals, and what upstream's refusals mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define CREDENTIALS "Invalid credentials in Authorization header"
#define LOGIN "Log in: hf auth login, or set HF_TOKEN"

/* starts: the text without a detail; with_detail: the header with "because", NULL: as without */
static const struct expected {
    enum hub_reason why;
    int status;
    const char *code, *starts, *with_detail;
    int retry_after_s;
} table[] = {
    {HUB_LOGIN_NEEDED, 401, "GatedRepo", LOGIN, NULL, 0},
    {HUB_BAD_CREDENTIAL, 401, NULL, CREDENTIALS, NULL, 0},
    {HUB_FOREIGN_TOKEN, 401, NULL, CREDENTIALS, NULL, 0},
    {HUB_REPO_NOT_FOUND, 404, "RepoNotFound", "Repository not found", NULL, 0},
    {HUB_REVISION_NOT_FOUND, 404, "RevisionNotFound", "Invalid rev id", "Invalid rev id: because",
     0},
    {HUB_ENTRY_NOT_FOUND, 404, "EntryNotFound", "Entry not found", NULL, 0},
    {HUB_BLOCKED, 403, "GatedRepo", "Access is blocked", "because", 0},
    {HUB_GATED_UPSTREAM, 403, "GatedRepo", "Upstream restricts", "because", 0},
    {HUB_SCOPE, 403, "GatedRepo", "The role of this token", "because", 0},
    {HUB_BAD_REQUEST, 400, NULL, "Bad request", "Bad request: because", 0},
    {HUB_METHOD, 405, NULL, "This method", NULL, 0},
    {HUB_NO_ROUTE, 404, NULL, "This gateway has nothing", NULL, 0},
    {HUB_NO_XET, 404, NULL, "This gateway serves files over plain HTTP", NULL, 0},
    {HUB_NO_DEVICE_LOGIN, 404, NULL, "This gateway has no login by browser", NULL, 0},
    {HUB_TOO_LARGE, 413, NULL, "Too large", "Too large: because", 0},
    {HUB_RANGE, 416, NULL, "The range begins behind", "because", 0},
    {HUB_WRONG_HOST, 421, NULL, "This gateway does not answer", NULL, 0},
    {HUB_NO_SUCH_BYTES, 422, NULL, "The bytes are not", "because", 0},
    {HUB_CONFLICT, 409, NULL, "It exists already", "because", 0},
    {HUB_PARENT_MOVED, 412, NULL, "The branch was updated", "because", 0},
    {HUB_NOT_HERE, 403, NULL, "Public repositories are read-only", "because", 0},
    {HUB_NOT_BUILT, 501, "NotImplemented", "This gateway does not", "because", 0},
    {HUB_DISK_FULL, 507, NULL, "The gateway has no room", "because", 0},
    {HUB_BUSY, 429, NULL, "Too many requests", "because", 10},
    {HUB_INTERNAL, 500, NULL, "Internal error", NULL, 0},
    {HUB_BAD_UPSTREAM, 502, NULL, "Upstream gave",
     "Upstream gave an answer that cannot be used: because", 0},
    {HUB_OUTAGE, 503, NULL, "A service that",
     "A service that this gateway needs is not available. Retry later: because", 10},
    {HUB_LOOP, 508, NULL, "The request came back", NULL, 0},
};

static void check_error_body(struct gw_str body, struct gw_str text)
{
    struct gw_json *root = NULL;

    assert_int_equal(gw_json_parse(&root, body, NULL), GW_OK);
    assert_int_equal(gw_json_count(root), 1);
    if (!gw_str_eq(gw_json_string(gw_json_get(root, "error")), text)) {
        fail_msg(GW_STR_FMT " is not " GW_STR_FMT, GW_STR_ARG(body), GW_STR_ARG(text));
    }
    gw_json_free(root);
}

static void check_header_text(struct gw_str s)
{
    assert_in_range(s.n, 1, 512);
    for (size_t i = 0; i < s.n; i++) {
        assert_in_range((unsigned char)s.p[i], 0x20, 0x7e);
    }
}

static void rows(void **state)
{
    assert_int_equal(sizeof(table) / sizeof(table[0]), HUB_REASON_COUNT);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const struct expected *e = &table[i];
        bool credential = e->status == 401 && e->code == NULL;
        struct hub_refusal plain, detailed, git;
        struct gw_arena a;

        gw_arena_init(&a, 65536);
        assert_int_equal(e->why, i);
        hub_refuse(&plain, e->why, GW_STR(""), false, 0, &a);
        assert_int_equal(plain.status, e->status);
        assert_true((plain.code == NULL) == (e->code == NULL));
        assert_true(e->code == NULL || strcmp(plain.code, e->code) == 0);
        assert_true(gw_str_starts(plain.message, gw_str_c(e->starts)));
        check_header_text(plain.message);
        assert_string_equal(plain.content_type, "application/json; charset=utf-8");
        assert_int_equal(plain.retry_after_s, e->retry_after_s);
        assert_true((plain.challenge != NULL) == (e->status == 401));
        assert_true((plain.rate_limit.n != 0) == (e->status == 429));
        if (!credential) {
            check_error_body(plain.body, plain.message);
        }

        hub_refuse(&detailed, e->why, GW_STR("because"), false, 0, &a);
        if (e->with_detail != NULL) {
            assert_true(gw_str_eq_c(detailed.message, e->with_detail));
            check_error_body(detailed.body, gw_str_c(e->with_detail));
        } else {
            assert_true(gw_str_eq(detailed.message, plain.message));
            assert_int_equal(gw_str_eq(detailed.body, plain.body), !credential);
        }

        hub_refuse(&git, e->why, GW_STR(""), true, 0, &a);
        assert_int_equal(git.status, e->status);
        assert_string_equal(git.content_type, "text/plain; charset=utf-8");
        assert_true(gw_str_ends(git.body, GW_STR("\n")));
        assert_true(e->status != 401 || strcmp(git.challenge, "Basic realm=\"hubgate\"") == 0);
        gw_arena_release(&a);
    }
}

static void credentials(void **state)
{
    struct hub_refusal r;
    struct gw_arena a;

    gw_arena_init(&a, 65536);
    hub_refuse(&r, HUB_BAD_CREDENTIAL, GW_STR("this token has expired"), false, 0, &a);
    assert_true(gw_str_eq_c(r.message, CREDENTIALS)); /* Python compares the whole of it */
    check_error_body(r.body, GW_STR("this token has expired"));
    assert_string_equal(r.challenge, "Bearer realm=\"hubgate\", error=\"invalid_token\"");
    hub_refuse(&r, HUB_FOREIGN_TOKEN, GW_STR(""), false, 0, &a);
    assert_true(gw_str_eq_c(r.message, CREDENTIALS));
    assert_non_null(memmem(r.body.p, r.body.n, "huggingface.co", 14));
    hub_refuse(&r, HUB_LOGIN_NEEDED, GW_STR("acme/llm exists"), false, 0, &a);
    assert_null(memmem(r.body.p, r.body.n, "acme", 4));
    assert_string_equal(r.challenge, "Bearer realm=\"hubgate\"");
    hub_refuse(&r, HUB_BAD_CREDENTIAL, GW_STR("because"), true, 0, &a);
    assert_true(gw_str_eq_c(r.body, "because\n"));
    gw_arena_release(&a);
}

static void details(void **state)
{
    static const struct {
        const char *detail, *message, *body;
    } table_of_texts[] = {
        {"Ask security@corp.example.", "Ask security@corp.example.", "Ask security@corp.example."},
        {"  padded\t", "padded", "padded"},
        {"two\r\nlines\tX: y", "two??lines?X: y", "two\r\nlines\tX: y"},
        {"Gesch\xc3\xbctzt \xf0\x9f\x98\x80", "Gesch?tzt ?", "Gesch\xc3\xbctzt \xf0\x9f\x98\x80"},
        {"a\"b\\c", "a\"b\\c", "a\"b\\c"},
        {"bad \xff\xfe utf-8", "bad ?? utf-8", "bad \xef\xbf\xbd\xef\xbf\xbd utf-8"},
        {"\x7f\x01", "??", "\x7f\x01"},
        {"\xc2\x85", "?", "\xc2\x85"},
    };
    char huge[5000];
    struct hub_refusal r;
    struct gw_arena a;

    gw_arena_init(&a, 1 << 20);
    for (size_t i = 0; i < sizeof(table_of_texts) / sizeof(table_of_texts[0]); i++) {
        hub_refuse(&r, HUB_BLOCKED, gw_str_c(table_of_texts[i].detail), false, 0, &a);
        check_header_text(r.message);
        assert_true(gw_str_eq_c(r.message, table_of_texts[i].message));
        check_error_body(r.body, gw_str_c(table_of_texts[i].body));
    }
    hub_refuse(&r, HUB_BLOCKED, GW_STR("nul\0here"), false, 0, &a);
    assert_true(gw_str_eq_c(r.message, "nul?here"));

    memset(huge, 'x', sizeof(huge));
    hub_refuse(&r, HUB_BLOCKED, (struct gw_str){huge, sizeof(huge)}, false, 0, &a);
    assert_int_equal(r.message.n, 512);
    hub_refuse(&r, HUB_OUTAGE, (struct gw_str){huge, sizeof(huge)}, false, 0, &a);
    assert_int_equal(r.message.n, 512);
    /* cut between characters, and every byte escaped in JSON: the longest body */
    for (size_t i = 0; i + 3 <= sizeof(huge); i += 3) {
        memcpy(huge + i, "\xe2\x82\xac", 3);
    }
    hub_refuse(&r, HUB_BLOCKED, (struct gw_str){huge, sizeof(huge)}, false, 0, &a);
    assert_int_equal(r.message.n, 512 / 3);
    memset(huge, 1, sizeof(huge));
    hub_refuse(&r, HUB_BLOCKED, (struct gw_str){huge, sizeof(huge)}, false, 0, &a);
    assert_int_equal(r.message.n, 512);
    assert_int_equal(r.body.n, strlen("{\"error\":\"\"}") + 6 * 512);
    gw_arena_release(&a);
}

static void retry_after(void **state)
{
    struct hub_refusal r;
    struct gw_arena a;

    gw_arena_init(&a, 65536);
    hub_refuse(&r, HUB_OUTAGE, GW_STR(""), false, 25, &a);
    assert_int_equal(r.retry_after_s, 25);
    assert_int_equal(r.rate_limit.n, 0);
    hub_refuse(&r, HUB_BUSY, GW_STR(""), false, 25, &a);
    assert_true(gw_str_eq_c(r.rate_limit, "\"gateway\";r=0;t=25"));
    hub_refuse(&r, HUB_BUSY, GW_STR(""), false, 0, &a);
    assert_true(gw_str_eq_c(r.rate_limit, "\"gateway\";r=0;t=10"));
    hub_refuse(&r, HUB_BAD_UPSTREAM, GW_STR(""), false, 7, &a);
    assert_int_equal(r.retry_after_s, 7);
    hub_refuse(&r, HUB_OUTAGE, GW_STR(""), false, 86400, &a); /* a client would sleep that long */
    assert_int_equal(r.retry_after_s, 300);
    hub_refuse(&r, HUB_OUTAGE, GW_STR(""), false, -1, &a);
    assert_int_equal(r.retry_after_s, 10);
    hub_refuse(&r, HUB_REPO_NOT_FOUND, GW_STR(""), false, 25, &a);
    assert_int_equal(r.retry_after_s, 0);
    hub_refuse(&r, (enum hub_reason)99, GW_STR(""), false, 0, &a);
    assert_int_equal(r.status, 500);
    gw_arena_release(&a);
}

static void no_memory(void **state)
{
    struct hub_refusal r;
    struct gw_arena a;

    gw_arena_init(&a, 0);
    hub_refuse(&r, HUB_BLOCKED, GW_STR("because"), false, 0, &a);
    assert_int_equal(r.status, 403);
    assert_true(gw_str_starts(r.message, GW_STR("Access is blocked")));
    check_error_body(r.body, r.message);
    hub_refuse(&r, HUB_BUSY, GW_STR(""), false, 25, &a);
    assert_true(gw_str_eq_c(r.rate_limit, "\"gateway\";r=0;t=10"));
    for (size_t n = 1; n < 12; n++) {
        gw_arena_init(&a, 65536);
        gw_alloc_fail_at(n);
        hub_refuse(&r, HUB_BLOCKED, GW_STR("because"), false, 0, &a);
        gw_alloc_fail_at(0);
        assert_int_equal(r.status, 403);
        check_header_text(r.message);
        check_error_body(r.body, r.message);
        gw_arena_release(&a);
    }
}

static void upstream(void **state)
{
    static const struct {
        int status;
        const char *code, *message;
        enum hub_reason reason;
    } answers[] = {
        /* what huggingface.co answers */
        {401, "", "Invalid username or password.", HUB_REPO_NOT_FOUND},
        {404, "RepoNotFound", "Repository not found", HUB_REPO_NOT_FOUND},
        {401, "", CREDENTIALS, HUB_OUTAGE},
        {401, "GatedRepo", "Access to model X is restricted.", HUB_GATED_UPSTREAM},
        {403, "GatedRepo", "you are not in the authorized list", HUB_GATED_UPSTREAM},
        {404, "RevisionNotFound", "Invalid rev id: V", HUB_REVISION_NOT_FOUND},
        {404, "EntryNotFound", "Entry not found", HUB_ENTRY_NOT_FOUND},
        {403, "", "Access to this resource is disabled.", HUB_GATED_UPSTREAM},
        /* and what others do */
        {401, "", "", HUB_REPO_NOT_FOUND},
        {401, "RepoNotFound", "", HUB_REPO_NOT_FOUND},
        {403, "RepoNotFound", "", HUB_REPO_NOT_FOUND},
        {404, "", "", HUB_ENTRY_NOT_FOUND},
        {404, "", "Entry not found", HUB_ENTRY_NOT_FOUND},
        {404, "", "Repository not found", HUB_REPO_NOT_FOUND},
        {404, "", "Invalid rev id: V", HUB_REVISION_NOT_FOUND},
        {401, "GatedRepo", CREDENTIALS, HUB_OUTAGE},
        {403, "", "Forbidden by the proxy", HUB_OUTAGE},
        {403, "", "", HUB_OUTAGE},
        {404, "SomethingNew", "", HUB_OUTAGE},
        {429, "", "", HUB_BUSY},
        {429, "GatedRepo", "", HUB_BUSY},
        {400, "", "", HUB_OUTAGE},
        {407, "", "", HUB_OUTAGE},
        {408, "", "", HUB_OUTAGE},
        {410, "", "", HUB_OUTAGE},
        {302, "", "", HUB_OUTAGE},
        {500, "EntryNotFound", "", HUB_OUTAGE},
        {502, "", "", HUB_OUTAGE},
        {503, "RepoNotFound", "", HUB_OUTAGE},
        {504, "", "", HUB_OUTAGE},
        {0, "", "", HUB_OUTAGE},
    };

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        enum hub_reason got = hub_classify_upstream(answers[i].status, gw_str_c(answers[i].code),
                                                    gw_str_c(answers[i].message));

        if (got != answers[i].reason) {
            fail_msg("%d %s %s: got %d", answers[i].status, answers[i].code, answers[i].message,
                     got);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows),        cmocka_unit_test(credentials), cmocka_unit_test(details),
        cmocka_unit_test(retry_after), cmocka_unit_test(no_memory),   cmocka_unit_test(upstream),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
