/* SPDX-License-Identifier: Apache-2.0 */
/* Who is told what: the refusal table, through whole requests. What is refused is never asked for
 * upstream. */
#include "gateway_fixture.h"

#include "gateway/record.h"

enum who { NOBODY, BOB, ANN, ANN_READS, WHO_COUNT }; /* ann is in eng; ANN_READS: a read token */

struct house {
    struct world w;
    char bearer[WHO_COUNT][80];
};

static void put_ref(struct world *w, const char *name, const char *ns, const char *repo)
{
    struct record_ref ref = {GW_STR(COMMIT), gw_str_c(ns), gw_str_c(repo)};
    struct gw_buf b;

    gw_buf_init(&b, 4096);
    record_ref_encode(&b, &ref);
    /* from the future, so that a slow run does not find it old */
    world_put(w, CACHE_REF, gw_str_c(name), -300000, GW_OK, 0, gw_buf_str(&b));
    gw_buf_release(&b);
}

static void put_file(struct world *w, const char *repo, const char *path)
{
    struct hub_entry e = {.path = gw_str_c(path), .size = 5, .oid = COMMIT};
    char name[256];
    struct gw_buf b;

    snprintf(name, sizeof(name), "model\n%s\n" COMMIT "\n%s", repo, path);
    gw_buf_init(&b, 4096);
    hub_entry_encode(&b, &e);
    assert_false(b.failed);
    world_put(w, CACHE_FILE, gw_str_c(name), 0, GW_OK, 0, gw_buf_str(&b));
    gw_buf_release(&b);
}

static void setup(struct house *h)
{
    struct world *w = &h->w;

    world_init(w);
    world_open(w);
    memset(h->bearer, 0, sizeof(h->bearer));
    for (int i = BOB; i < WHO_COUNT; i++) {
        strcpy(h->bearer[i], "Bearer ");
        world_mint(w, i == BOB ? "bob" : "ann", i == BOB ? "" : "eng",
                   i == ANN ? AUTH_ROLE_WRITE : AUTH_ROLE_READ, 3600000, h->bearer[i] + 7, NULL);
    }
    put_ref(w, "model\no\nm\nmain", "o", "m");
    put_ref(w, "model\nopen\nx\nmain", "open", "x");
    put_ref(w, "model\nacme\nshown\nmain", "acme", "shown");
    put_ref(w, "model\nacme\nllm\nmain", "acme", "llm");
    put_ref(w, "model\nold\nname\nmain", "bad", "repo"); /* renamed upstream */
    put_ref(w, "model\nold\nthief\nmain", "acme", "llm");
    put_file(w, "o\nm", "a.txt");
    put_file(w, "o\nm", "a.bin");
    put_file(w, "open\nx", "a.txt");
    put_file(w, "open\nx", "a.bin");
}

static void begin(struct house *h, struct asker *a, const char *method, const char *target,
                  enum who who)
{
    asker_begin(&h->w, a, method, target, who == NOBODY ? NULL : h->bearer[who]);
}

static const struct row {
    enum who who;
    const char *target;
    int status;
    const char *code, *message;
    bool asks; /* a job may be needed */
} rows[] = {
    /* nobody in particular: told to log in, whatever it is */
    {NOBODY, "/api/models/acme/llm", 401, "GatedRepo", "Log in: hf auth login", false},
    {NOBODY, "/api/models/acme/none", 401, "GatedRepo", "Log in: hf auth login", false},
    {NOBODY, "/api/models/o/m", 401, "GatedRepo", "Log in: hf auth login", false},
    {NOBODY, "/api/models/never/heard", 401, "GatedRepo", "Log in: hf auth login", false},
    {NOBODY, "/gpt2/resolve/main/config.json", 401, "GatedRepo", "Log in", false},
    {NOBODY, "/api/whoami-v2", 401, "GatedRepo", "Log in", false},
    {NOBODY, "/api/models/bad/repo", 401, "GatedRepo", "Log in", false}, /* denied by a rule */
    /* a rule lets everybody read */
    {NOBODY, "/open/x/resolve/main/a.txt", 200, "", "", false},
    {NOBODY, "/open/x/resolve/main/a.bin", 403, "GatedRepo", "No pickles.", false},
    /* may not discover: as if it were not there */
    {BOB, "/api/models/acme/llm", 404, "RepoNotFound", "Repository not found", false},
    {BOB, "/acme/llm/resolve/main/x", 404, "RepoNotFound", "Repository not found", false},
    {ANN, "/api/models/bad/repo", 404, "RepoNotFound", "Repository not found", false},
    {ANN, "/api/models/acme/none", 404, "RepoNotFound", "Repository not found", true},
    /* may discover, not read */
    {BOB, "/api/models/acme/shown", 403, "GatedRepo", "ask its owner", false},
    {BOB, "/api/models/acme/shown/tree/main", 403, "GatedRepo", "ask its owner", false},
    {BOB, "/acme/shown/resolve/main/x", 403, "GatedRepo", "ask its owner", false},
    /* blocked by a rule: its reason */
    {ANN, "/o/m/resolve/main/a.bin", 403, "GatedRepo", "No pickles.", false},
    {ANN, "/o/m/resolve/main/a.txt", 200, "", "", false},
    {ANN, "/o/m/resolve/main/%61.bin", 403, "GatedRepo", "No pickles.", false},
    /* the person may, the token may not */
    {ANN_READS, "/api/models/acme/llm/auth-check/write", 403, "GatedRepo", "role of this token",
     false},
    {ANN, "/api/models/acme/llm/auth-check/write", 200, "", "", false},
    {ANN, "/api/models/acme/none/auth-check/write", 404, "RepoNotFound", "", true},
    {BOB, "/api/models/acme/shown/auth-check/write", 403, "GatedRepo", "", false},
    /* a public name that leads elsewhere: both must be allowed, and no name of ours comes from
     * upstream */
    {ANN, "/api/models/old/name", 404, "RepoNotFound", "Repository not found", false},
    {ANN, "/api/models/old/thief", 502, "", "private namespace", false},
};

static void test_table(void **state)
{
    struct house h;

    (void)state;
    setup(&h);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (int head = 0; head < 2; head++) {
            size_t before = h.w.n_ever;
            struct asker a;
            int status;

            begin(&h, &a, head ? "HEAD" : "GET", rows[i].target, rows[i].who);
            status = asker_finish(&h.w, &a);
            if (status == 503 && rows[i].status == 200) {
                status = 200; /* allowed; the bytes themselves are not held */
            } else if (status != rows[i].status ||
                       !gw_str_eq_c(asker_header(&a, "X-Error-Code"), rows[i].code) ||
                       memmem(asker_header(&a, "X-Error-Message").p,
                              asker_header(&a, "X-Error-Message").n, rows[i].message,
                              strlen(rows[i].message)) == NULL) {
                fail_msg("%s (%d): %d " GW_STR_FMT ": " GW_STR_FMT, rows[i].target, rows[i].who,
                         status, GW_STR_ARG(asker_header(&a, "X-Error-Code")),
                         GW_STR_ARG(asker_header(&a, "X-Error-Message")));
            }
            assert_int_equal(status, rows[i].status);
            assert_true((status == 401) == (asker_header(&a, "WWW-Authenticate").n != 0));
            if (status >= 400 && !rows[i].asks) {
                assert_int_equal(h.w.n_ever, before);
                assert_int_equal(h.w.n_posted, 0);
            }
            asker_end(&h.w, &a);
        }
    }
    assert_null(strstr(h.w.log, "upstream"));
    world_release(&h.w);
}

/* Every byte of the answer but the request's number. */
static void put_answer(struct gw_buf *out, struct house *h, const char *target, enum who who)
{
    struct asker a;

    begin(h, &a, "GET", target, who);
    asker_finish(&h->w, &a);
    gw_buf_addf(out, "%d %s\n", a.ans.status, a.ans.content_type);
    for (size_t i = 0; i < a.ans.n_headers; i++) {
        if (!gw_str_eq_c(a.ans.headers[i].name, "X-Request-Id")) {
            gw_buf_addf(out, GW_STR_FMT ": " GW_STR_FMT "\n", GW_STR_ARG(a.ans.headers[i].name),
                        GW_STR_ARG(a.ans.headers[i].value));
        }
    }
    gw_buf_add(out, a.ans.memory);
    asker_end(&h->w, &a);
}

/* Nothing in an answer tells what is hidden from what is not there. */
static void test_the_same_bytes(void **state)
{
    static const struct {
        enum who who_a;
        const char *a;
        enum who who_b;
        const char *b;
    } pairs[] = {
        {NOBODY, "/api/models/acme/llm", NOBODY, "/api/models/never/heard"},
        {NOBODY, "/api/models/o/m", NOBODY, "/api/models/never/heard"},
        {NOBODY, "/api/models/bad/repo", NOBODY, "/api/models/never/heard"},
        {BOB, "/api/models/acme/llm", ANN, "/api/models/acme/none"},
        {BOB, "/acme/llm/resolve/main/x", ANN, "/acme/none/resolve/main/x"},
        {ANN, "/api/models/bad/repo", ANN, "/api/models/acme/none"},
        {ANN, "/api/models/old/name", ANN, "/api/models/acme/none"},
    };
    struct gw_buf a, b;
    struct house h;

    (void)state;
    setup(&h);
    gw_buf_init(&a, 1 << 16);
    gw_buf_init(&b, 1 << 16);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        gw_buf_reset(&a);
        gw_buf_reset(&b);
        put_answer(&a, &h, pairs[i].a, pairs[i].who_a);
        put_answer(&b, &h, pairs[i].b, pairs[i].who_b);
        assert_string_equal(a.p, b.p);
    }
    gw_buf_release(&a);
    gw_buf_release(&b);
    world_release(&h.w);
}

/* What needs nobody, and what is refused before anybody is looked at. */
static void test_open_routes(void **state)
{
    static const struct {
        const char *method, *target, *host, *via;
        int status;
    } cases[] = {
        {"GET", "/-/healthz", "elsewhere.test", "", 200},
        {"GET", "/api/agent-harnesses", "hub.test", "", 200},
        {"GET", "/api/agent-harnesses", "HUB.test", "", 200},
        {"GET", "/api/agent-harnesses", "hub.test:8443", "", 200},
        {"GET", "/api/agent-harnesses", "hub.test:80", "", 200},
        {"GET", "/api/agent-harnesses", "hub.test:443", "", 200},
        {"GET", "/api/agent-harnesses", "hub.test:81", "", 421},
        {"GET", "/api/agent-harnesses", "elsewhere.test", "", 421},
        {"GET", "/api/agent-harnesses", "", "", 421},
        {"GET", "/api/models/o/m", "elsewhere.test", "", 421},
        {"GET", "/-/healthz", "hub.test", "1.1 proxy, 1.1 hubgate", 508},
        {"OPTIONS", "/o/m/resolve/main/x", "hub.test", "", 204},
        {"HEAD", "/api/telemetry/x", "hub.test", "", 204},
        {"DELETE", "/api/models/o/m", "hub.test", "", 405},
        {"GET", "/nothing/of/this/kind", "hub.test", "", 404},
        {"GET", "/o/m/resolve/main/../x", "hub.test", "", 400},
        {"GET", "/o/m/resolve/main/a%00b", "hub.test", "", 400},
        {"POST", "/oauth/device", "hub.test", "", 404},
    };
    struct house h;

    (void)state;
    setup(&h);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct asker a;

        begin(&h, &a, cases[i].method, cases[i].target, NOBODY);
        a.req.host = gw_str_c(cases[i].host);
        a.req.via = gw_str_c(cases[i].via);
        if (asker_finish(&h.w, &a) != cases[i].status) {
            fail_msg("%s %s at %s: %d", cases[i].method, cases[i].target, cases[i].host,
                     a.ans.status);
        }
        assert_int_equal(h.w.n_ever, 0);
        asker_end(&h.w, &a);
    }
    world_release(&h.w);
}

/* Upstream is down: 503 and when to come back, never 401 or 404. */
static void test_outage(void **state)
{
    struct house h;
    struct asker a;

    (void)state;
    setup(&h);
    begin(&h, &a, "GET", "/api/models/o/new", ANN);
    assert_int_equal(asker_finish(&h.w, &a), 503);
    assert_true(asker_header(&a, "Retry-After").n > 0);
    asker_end(&h.w, &a);
    world_release(&h.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_the_same_bytes),
        cmocka_unit_test(test_open_routes),
        cmocka_unit_test(test_outage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
