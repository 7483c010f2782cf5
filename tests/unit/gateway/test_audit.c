/* SPDX-License-Identifier: Apache-2.0 */
/* The audit record: lines that parse, with hostile text in every field; never a secret; no line is
 * lost without being counted. */
#include "gateway_fixture.h"

#include "base/alloc.h"
#include "base/json.h"

static struct gw_str read_audit(struct world *w)
{
    struct gw_str text = GW_STR("");
    char path[192];
    int rc;

    snprintf(path, sizeof(path), "%s/audit.jsonl", w->dir);
    rc = gw_file_read(path, 8u << 20, &w->arena, &text, &w->err);
    assert_true(rc == GW_OK || rc == GW_NOT_FOUND);
    return text;
}

/* Makes the line due, and runs the job that writes it. */
static void flush(struct world *w)
{
    w->gw->audit.oldest_ms -= 2000;
    w->gw->lanes[GW_PEER_DISK].quiet_until_ms = 0;
    gateway_tick(w->gw);
    world_run(w);
}

static size_t count_lines(struct gw_str text)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++) {
        n += text.p[i] == '\n';
    }
    assert_true(text.n == 0 || text.p[text.n - 1] == '\n');
    return n;
}

/* Every line is one JSON object; the last one is returned. */
static struct gw_json *parse_all(struct gw_str text, size_t expected)
{
    struct gw_json *last = NULL;
    struct gw_str rest = text, line;
    struct gw_error err;
    size_t n = 0;

    while (gw_str_split(&rest, '\n', &line)) {
        if (line.n == 0) {
            continue;
        }
        gw_json_free(last);
        last = NULL;
        if (gw_json_parse(&last, line, &err) != GW_OK) {
            fail_msg("%s: " GW_STR_FMT, err.text, GW_STR_ARG(line));
        }
        assert_true(gw_json_is_object(last));
        n++;
    }
    assert_int_equal(n, expected);
    return last;
}

static struct gw_str get(const struct gw_json *o, const char *a, const char *b)
{
    const struct gw_json *v = gw_json_get(o, a);

    return gw_json_string(b != NULL ? gw_json_get(v, b) : v);
}

static int64_t number(const struct gw_json *o, const char *key)
{
    int64_t n = -1;

    (void)gw_json_int(gw_json_get(o, key), &n);
    return n;
}

static void test_fields(void **state)
{
    char bearer[80] = "Bearer ";
    struct auth_token token;
    struct gw_json *o;
    struct world w;
    struct asker a;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, 3600000, bearer + 7, &token);
    asker_begin(&w, &a, "GET", "/acme/llm/resolve/main/dir/a.txt?download=true", bearer);
    a.req.user_agent = GW_STR("hf_hub/1.5.0");
    assert_int_equal(asker_finish(&w, &a), 404);
    gateway_end(w.gw, &a.req, 404, 123, true);
    flush(&w);
    o = parse_all(read_audit(&w), 1);
    assert_int_equal(number(o, "v"), 1);
    assert_int_equal(number(o, "status"), 404);
    assert_int_equal(number(o, "bytes"), 123);
    assert_true(gw_json_bool(gw_json_get(o, "complete")));
    assert_true(gw_str_eq_c(get(o, "event", NULL), "resolve"));
    assert_true(gw_str_eq_c(get(o, "method", NULL), "GET"));
    assert_true(gw_str_eq_c(get(o, "refused", NULL), "repo_not_found"));
    assert_true(gw_str_eq_c(get(o, "request", NULL), a.id));
    assert_true(gw_str_eq_c(get(o, "ip", NULL), "127.0.0.1"));
    assert_true(gw_str_eq_c(get(o, "agent", NULL), "hf_hub/1.5.0"));
    assert_true(gw_str_eq_c(get(o, "subject", "kind"), "user"));
    assert_true(gw_str_eq_c(get(o, "subject", "name"), "ann"));
    assert_true(gw_str_eq_c(get(o, "subject", "realm"), "file"));
    assert_true(gw_str_eq_c(get(o, "subject", "token"), token.id));
    assert_true(gw_str_eq_c(get(o, "resource", "hub"), "private"));
    assert_true(gw_str_eq_c(get(o, "resource", "type"), "model"));
    assert_true(gw_str_eq_c(get(o, "resource", "name"), "llm"));
    assert_true(gw_str_eq_c(get(o, "resource", "path"), "dir/a.txt"));
    assert_true(gw_str_eq_c(get(o, "policy", "result"), "allow"));
    assert_true(gw_str_eq_c(get(o, "policy", "rule"), "eng"));
    gw_json_free(o);
    /* anonymous, refused by no rule; the client left */
    asker_begin(&w, &a, "HEAD", "/api/models/acme/llm", NULL);
    assert_int_equal(asker_finish(&w, &a), 401);
    gateway_end(w.gw, &a.req, 0, 0, false);
    flush(&w);
    o = parse_all(read_audit(&w), 2);
    assert_true(gw_str_eq_c(get(o, "subject", "kind"), "anonymous"));
    assert_true(gw_str_eq_c(get(o, "policy", "result"), "deny"));
    assert_true(gw_str_eq_c(get(o, "policy", "rule"), "(default)"));
    assert_false(gw_json_bool(gw_json_get(o, "complete")));
    gw_json_free(o);
    world_release(&w);
}

static void test_hostile_text(void **state)
{
    static const char *const texts[] = {
        "\"},{\"v\":2}", "\\",           "a\nb\r\nc",    "\x01\x1f\x7f",
        "\xff\xfe\x80",  "\xed\xa0\x80", "\xe2\x80\xa8", "{{{{[[[[",
    };
    char *long_text = malloc(100000);
    struct world w;
    size_t lines = 0;

    (void)state;
    assert_non_null(long_text);
    memset(long_text, '\x01', 99999); /* six bytes each when quoted */
    long_text[99999] = '\0';
    world_init(&w);
    world_open_as(&w, false);
    for (size_t i = 0; i <= COUNT(texts); i++) {
        const char *text = i < COUNT(texts) ? texts[i] : long_text;
        struct asker a;

        for (int field = 0; field < 6; field++) {
            asker_begin(&w, &a, "GET", "/api/models/o/m", NULL);
            assert_int_equal(asker_finish(&w, &a), 401);
            switch (field) {
            case 0:
                a.req.user_agent = gw_str_c(text);
                break;
            case 1:
                a.req.method = gw_str_c(text);
                break;
            case 2:
                a.req.peer_ip = gw_str_c(text);
                break;
            case 3:
                a.req.id = gw_str_c(text);
                break;
            case 4:
                a.req.state->object.revision = gw_str_c(text);
                break;
            default: /* longer than its ceiling, cut in a character */
                a.req.state->target.path = gw_str_c(text);
                break;
            }
            asker_end(&w, &a);
            lines++;
            assert_true(w.gw->audit.lines.n < lines * (16u << 10));
        }
        asker_begin(&w, &a, text[0] == '\x01' ? "GET" : text, text, text);
        (void)asker_finish(&w, &a); /* the parser meets it */
        asker_end(&w, &a);
        lines++;
    }
    flush(&w);
    gw_json_free(parse_all(read_audit(&w), lines));
    free(long_text);
    world_release(&w);
}

/* Whatever a client sends as a credential, right or wrong: it is in no line and in no log. */
static void test_no_secret(void **state)
{
    static const char *const wrong[] = {
        "Bearer hf_SECRETSECRETSECRETSECRETSECRETSECRE",
        "Bearer hf_gwpSECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRET",
        "Basic ann:SECRETSECRET",
        "Basic SECRETSECRET:hf_gwpSECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRET",
        "Digest SECRETSECRET",
        "SECRETSECRET",
    };
    static const char *const targets[] = {"/api/models/o/m", "/api/whoami-v2",
                                          "/api/gateway/tokens"};
    char bearer[80] = "Bearer ";
    struct gw_str text;
    struct world w;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, 3600000, bearer + 7, NULL);
    (void)ask(&w, "GET", "/api/whoami-v2", bearer);
    for (size_t i = 0; i < COUNT(wrong); i++) {
        for (size_t k = 0; k < COUNT(targets); k++) {
            int status = ask(&w, k == 2 ? "POST" : "GET", targets[k], wrong[i]);

            assert_true(status == 401 || status == 503); /* no account there: one refusal */
        }
    }
    flush(&w);
    text = read_audit(&w);
    assert_int_equal(count_lines(text), 1 + COUNT(wrong) * COUNT(targets));
    assert_null(memmem(text.p, text.n, "SECRET", 6));
    assert_null(strstr(w.log, "SECRET"));
    /* of a good token only the public id */
    assert_null(memmem(text.p, text.n, bearer + 7, 20));
    assert_null(memmem(text.p, text.n, bearer + 7 + 16, 32));
    world_release(&w);
}

/* One chunk at a time; a chunk that cannot be written is counted line by line, and said. */
static void test_lost_lines(void **state)
{
    struct gw_json *o;
    struct gw_str text;
    struct world w;
    char path[192];

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    snprintf(path, sizeof(path), "%s/audit.jsonl", w.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    for (int i = 0; i < 3; i++) {
        (void)ask(&w, "GET", "/-/healthz", NULL);
    }
    flush(&w);
    assert_non_null(strstr(w.log, "audit.jsonl"));
    assert_int_equal(w.gw->audit.dropped, 3);
    assert_int_equal(rmdir(path), 0);
    (void)ask(&w, "GET", "/-/healthz", NULL);
    (void)ask(&w, "GET", "/-/healthz", NULL);
    flush(&w);
    text = read_audit(&w);
    text.n = (size_t)((char *)memchr(text.p, '\n', text.n) + 1 - text.p);
    o = parse_all(text, 1);
    assert_int_equal(number(o, "dropped_before"), 3);
    gw_json_free(o);
    o = parse_all(read_audit(&w), 2);
    assert_int_equal(number(o, "dropped_before"), -1); /* said once */
    gw_json_free(o);
    world_release(&w);
}

/* The job that writes lines; whatever else the tick began is run. */
static struct gateway_job *take_audit(struct world *w)
{
    struct gateway_job *found = NULL;

    while (w->n_posted != 0) {
        struct gateway_job *job = world_take(w, 0);

        if (gw_str_eq_c(job->key, "audit")) {
            assert_null(found);
            found = job;
            continue;
        }
        gateway_job_run(job);
        gateway_job_done(job);
    }
    assert_non_null(found);
    return found;
}

/* The sink hangs: lines are collected up to the buffer's ceiling; what is there is kept, what comes
 * after it is counted. */
static void test_stuck_sink(void **state)
{
    struct gateway_job *stuck;
    struct gw_str text;
    struct world w;
    size_t made = 0, kept;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    (void)ask(&w, "GET", "/-/healthz", NULL);
    w.gw->audit.oldest_ms -= 2000;
    gateway_tick(w.gw);
    stuck = take_audit(&w);
    while (w.gw->audit.dropped < 100) {
        (void)ask(&w, "GET", "/-/healthz", NULL);
        made++;
    }
    assert_int_equal(w.n_posted, 0); /* one at a time */
    assert_true(w.gw->audit.lines.n <= (4u << 20));
    kept = w.gw->audit.n_lines;
    assert_int_equal(kept, made - 100);
    gateway_job_run(stuck);
    gateway_job_done(stuck);
    flush(&w);
    (void)ask(&w, "GET", "/-/healthz", NULL);
    flush(&w);
    text = read_audit(&w);
    gw_json_free(parse_all(text, 1 + kept + 1));
    assert_non_null(memmem(text.p, text.n, "\"dropped_before\":100", 20));
    world_release(&w);
}

/* What was collected is written at the end, in order, also what a job had in hand. */
static void test_close(void **state)
{
    struct gw_str text;
    struct world w;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    (void)ask(&w, "GET", "/-/healthz", NULL);
    w.gw->audit.oldest_ms -= 2000;
    gateway_tick(w.gw);
    (void)take_audit(&w); /* never run */
    (void)ask(&w, "GET", "/api/agent-harnesses", NULL);
    world_close(&w);
    text = read_audit(&w);
    assert_int_equal(count_lines(text), 2);
    assert_true((char *)memmem(text.p, text.n, "\"health\"", 8) <
                (char *)memmem(text.p, text.n, "harness", 7));
    world_open(&w);
    world_release(&w);
}

static void test_no_memory(void **state)
{
    struct gw_str rest, line;
    struct gw_json *o;
    struct world w;
    uint64_t lines;

    (void)state;
    world_init(&w);
    world_open_as(&w, false);
    for (size_t n = 1; n < 20; n++) {
        struct asker a;

        asker_begin(&w, &a, "GET", "/-/healthz", NULL);
        assert_int_equal(asker_finish(&w, &a), 200);
        gw_alloc_fail_at(n);
        asker_end(&w, &a);
        gw_alloc_fail_at(0);
    }
    lines = w.gw->audit.dropped;
    flush(&w);
    rest = read_audit(&w);
    while (gw_str_split(&rest, '\n', &line)) {
        if (line.n != 0) {
            o = parse_all(line, 1);
            lines +=
                1 + (number(o, "dropped_before") > 0 ? (uint64_t)number(o, "dropped_before") : 0);
            gw_json_free(o);
        }
    }
    assert_int_equal(lines, 19);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),     cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_no_secret),  cmocka_unit_test(test_lost_lines),
        cmocka_unit_test(test_stuck_sink), cmocka_unit_test(test_close),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
