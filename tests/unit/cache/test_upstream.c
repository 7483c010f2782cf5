/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_upstream.c - every kind of redirect, and a peer that does its worst at each
 * stage. */
#include "tests/unit/cache/cache_fixture.h"
#include "tests/unit/cache/http_fixture.h"

#define OK(body) "HTTP/1.1 200 OK\r\nContent-Length: " body
#define AUTH "Authorization: Bearer hf_organisation"

struct world {
    struct fixture f;
    struct server hub, cdn, foreign;
    char url[64], cdn_host[64], text[8][512];
    size_t n_texts;
    struct gw_str hosts[4];
    struct gw_buf body;
    struct cache_reply reply;
};

static int on_bytes(void *ctx, struct gw_str bytes)
{
    gw_buf_add(ctx, bytes);
    return gw_buf_ok(ctx, NULL);
}

static void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    fixture_init(&w->f);
    server_start(&w->hub);
    server_start(&w->cdn);
    server_start(&w->foreign);
    snprintf(w->url, sizeof(w->url), "http://127.0.0.1:%u", w->hub.port);
    snprintf(w->cdn_host, sizeof(w->cdn_host), "localhost:%u", w->cdn.port);
    w->hosts[0] = GW_STR("cdn.example");
    w->hosts[1] = gw_str_c(w->cdn_host);
    w->f.options.upstream.url = gw_str_c(w->url);
    w->f.options.upstream.token = GW_STR("hf_organisation");
    w->f.options.upstream.redirect_hosts = w->hosts;
    w->f.options.upstream.n_redirect_hosts = 2;
    gw_buf_init(&w->body, 1u << 20);
    fixture_open(&w->f);
}

static void world_release(struct world *w)
{
    fixture_release(&w->f);
    server_stop(&w->hub);
    server_stop(&w->cdn);
    server_stop(&w->foreign);
    gw_buf_release(&w->body);
}

static int call(struct world *w, const char *method, const char *target, int64_t ms)
{
    struct cache_call c = {
        .method = method, .target = gw_str_c(target), .deadline_ms = gw_mono_ms() + ms};

    if (strcmp(method, "POST") == 0) {
        c.body = GW_STR("{\"paths\":[]}");
        c.content_type = GW_STR("application/json");
    }
    gw_buf_reset(&w->body);
    return cache_upstream_call(w->f.cache, &c, on_bytes, &w->body, &w->reply, &w->f.arena,
                               &w->f.err);
}

static const char *text(struct world *w, const char *fmt, ...) GW_PRINTF(2, 3);
static const char *text(struct world *w, const char *fmt, ...)
{
    char *to = w->text[w->n_texts++ % COUNT(w->text)];
    va_list args;

    va_start(args, fmt);
    vsnprintf(to, sizeof(w->text[0]), fmt, args);
    va_end(args);
    return to;
}

#define assert_call(w, method, target, expected)                                                   \
    do {                                                                                           \
        int assert_rc = call(w, method, target, 3000);                                             \
        if (assert_rc != (expected)) {                                                             \
            fail_msg("%s %s: %s (%s)", method, target, gw_status_name((enum gw_status)assert_rc),  \
                     (w)->f.err.text);                                                             \
        }                                                                                          \
    } while (0)

static void a_request_says_what_it_must_and_no_more(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/api/models/a/b?x=%20y", OK("2") "\r\nETag: \"e\"\r\n\r\nhi");
    assert_call(&w, "GET", "/api/models/a/b?x=%20y", GW_OK);
    assert_int_equal(w.reply.status, 200);
    assert_int_equal(w.reply.content_length, 2);
    assert_true(gw_str_eq_c(gw_buf_str(&w.body), "hi"));
    assert_true(gw_str_eq_c(w.reply.etag, "\"e\""));
    assert_true(gw_str_eq_c(w.reply.final_target, "/api/models/a/b?x=%20y"));
    assert_non_null(strstr(w.hub.requests, "GET /api/models/a/b?x=%20y HTTP/1.1\r\n"));
    assert_non_null(strstr(w.hub.requests, AUTH "\r\n"));
    assert_non_null(strstr(w.hub.requests, "Via: 1.1 hubgate-test\r\n"));
    assert_non_null(strstr(w.hub.requests, "Accept-Encoding: identity\r\n"));
    assert_non_null(strstr(w.hub.requests, "Accept: */*\r\n"));
    assert_non_null(strstr(w.hub.requests, "User-Agent: hubgate/"));
    server_clear(&w.hub);
    page(&w.hub, "/p", OK("0") "\r\n\r\n");
    assert_call(&w, "POST", "/p", GW_OK);
    assert_non_null(strstr(w.hub.requests, "POST /p HTTP/1.1\r\n"));
    assert_non_null(strstr(w.hub.requests, "Content-Type: application/json\r\n"));
    assert_null(strstr(w.hub.requests, "Expect"));
    assert_null(strstr(w.hub.requests, "Cookie"));
    assert_int_equal(call(&w, "GET", "no-slash", 1000), GW_INVALID);
    assert_int_equal(atomic_load(&w.f.shared->counters.upstream_calls), 2);
    assert_int_equal(atomic_load(&w.f.shared->counters.upstream_bytes), 2);
    world_release(&w);
}

static void every_field_of_an_answer(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/x",
         "HTTP/1.1 404 Not Found\r\nX-Error-Code: EntryNotFound\r\n"
         "X-Error-Message:  Entry not found \r\nLink: <a>; rel=\"next\"\r\n"
         "Content-Type: text/plain\r\nRetry-After: 3\r\n"
         "RateLimit: \"api\";r=1;t=2\r\nX-Linked-Size: 7\r\n"
         "X-Linked-ETag: \"l\"\r\nx-repo-commit: 0123\r\n"
         "Content-Length: 3\r\n\r\nnot");
    assert_call(&w, "GET", "/x", GW_OK);
    assert_int_equal(w.reply.status, 404);
    assert_int_equal(w.body.n, 0); /* only a 2xx has a body for the sink */
    assert_true(gw_str_eq_c(w.reply.error_code, "EntryNotFound"));
    assert_true(gw_str_eq_c(w.reply.error_message, "Entry not found"));
    assert_true(gw_str_eq_c(w.reply.link, "<a>; rel=\"next\""));
    assert_true(gw_str_eq_c(w.reply.content_type, "text/plain"));
    assert_true(gw_str_eq_c(w.reply.retry_after, "3"));
    assert_true(gw_str_eq_c(w.reply.ratelimit, "\"api\";r=1;t=2"));
    assert_true(gw_str_eq_c(w.reply.linked_size, "7"));
    assert_true(gw_str_eq_c(w.reply.linked_etag, "\"l\""));
    assert_true(gw_str_eq_c(w.reply.repo_commit, "0123"));
    assert_int_equal(w.reply.content_length, 3);
    world_release(&w);
}

static void a_relative_redirect_keeps_query_and_token(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/a/b/resolve/main/f",
         "HTTP/1.1 307 Temporary Redirect\r\nX-Repo-Commit: c0\r\n"
         "Location: /api/resolve-cache/models/a/b/c0/f?%2Fa%2Fb=&etag=%22x%22\r\n"
         "Content-Length: 5\r\n\r\nThere");
    page(&w.hub, "/api/resolve-cache/models/a/b/c0/f?%2Fa%2Fb=&etag=%22x%22",
         OK("4") "\r\nETag: \"x\"\r\n\r\nfile");
    assert_call(&w, "GET", "/a/b/resolve/main/f", GW_OK);
    assert_true(gw_str_eq_c(gw_buf_str(&w.body), "file")); /* nothing of the redirect's body */
    assert_true(gw_str_eq_c(w.reply.repo_commit, "c0"));
    assert_true(gw_str_eq_c(w.reply.final_target,
                            "/api/resolve-cache/models/a/b/c0/f?%2Fa%2Fb=&etag=%22x%22"));
    assert_non_null(strstr(strstr(w.hub.requests, "GET /api/resolve-cache"), AUTH));
    world_release(&w);
}

static void an_absolute_one_to_the_same_origin_is_the_same(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/old",
         text(&w,
              "HTTP/1.1 301 Moved\r\nLocation: %s/new?q=1\r\n"
              "Content-Length: 0\r\n\r\n",
              w.url));
    page(&w.hub, "/new?q=1", OK("1") "\r\n\r\nn");
    assert_call(&w, "HEAD", "/old", GW_OK);
    assert_int_equal(w.reply.status, 200);
    assert_true(gw_str_eq_c(w.reply.final_target, "/new?q=1"));
    assert_non_null(strstr(strstr(w.hub.requests, "HEAD /new"), AUTH));
    world_release(&w);
}

static void a_head_stops_at_another_host_and_a_get_goes_there_without_the_token(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/big",
         text(&w,
              "HTTP/1.1 302 Found\r\nX-Linked-Size: 9\r\n"
              "X-Linked-ETag: \"sha\"\r\nX-Repo-Commit: c1\r\nETag: \"hub\"\r\n"
              "Location: http://%s/signed?sig=secret\r\nContent-Length: 0\r\n\r\n",
              w.cdn_host));
    page(&w.cdn, "/signed?sig=secret",
         OK("9") "\r\nX-Linked-ETag: \"lie\"\r\n"
                 "X-Error-Code: Lie\r\nETag: \"cdn\"\r\n\r\nthe bytes");
    assert_call(&w, "HEAD", "/big", GW_OK);
    assert_int_equal(w.reply.status, 302);
    assert_true(gw_str_eq_c(w.reply.linked_size, "9"));
    assert_true(gw_str_eq_c(w.reply.linked_etag, "\"sha\""));
    assert_int_equal(atomic_load(&w.cdn.n_requests), 0);
    assert_call(&w, "GET", "/big", GW_OK);
    assert_int_equal(w.reply.status, 200);
    assert_true(gw_str_eq_c(gw_buf_str(&w.body), "the bytes"));
    assert_true(
        gw_str_eq_c(w.reply.linked_etag, "\"sha\"")); /* the Hub's word, not the other host's */
    assert_true(gw_str_eq_c(w.reply.repo_commit, "c1"));
    assert_int_equal(w.reply.error_code.n, 0);
    assert_true(gw_str_eq_c(w.reply.etag, "\"cdn\""));
    assert_true(gw_str_eq_c(w.reply.final_target, "/big"));
    assert_null(strstr(w.cdn.requests, "Authorization"));
    assert_null(strstr(w.cdn.requests, "hf_organisation"));
    assert_int_equal(call(&w, "POST", "/big", 1000), GW_OK); /* a 302 would change the method */
    assert_int_equal(w.reply.status, 302);
    world_release(&w);
}

static void where_a_redirect_may_not_lead(void **state)
{
    static const struct {
        const char *location; /* %u: the foreign port, %s: our own host and port */
        int get;
    } rows[] = {
        {"http://127.0.0.1:%u/x", GW_FORBIDDEN}, /* the upstream's host, another port */
        {"http://localhost:%u/x", GW_FORBIDDEN}, /* a listed host, another port */
        {"http://cdn.example:%u/x", GW_FORBIDDEN},
        {"//127.0.0.1:%u/x", GW_FORBIDDEN}, /* relative in scheme only */
        {"http://169.254.169.254/latest?%u", GW_FORBIDDEN},
        {"http://[::1]:%u/x", GW_FORBIDDEN},
        {"http://0x7f.1:%u/x", GW_FORBIDDEN},
        {"http://cdn.example.evil.example/?%u", GW_FORBIDDEN},
        {"http://evil-cdn.example/?%u", GW_FORBIDDEN},
        {"http://user:pw@cdn.example/?%u", GW_FORBIDDEN},
        {"http://cdn.example@evil.example/?%u", GW_FORBIDDEN},
        {"http://cdn.example\\@evil.example/?%u", GW_FORBIDDEN},
        {"file:///etc/passwd?%u", GW_INVALID},
        {"ftp://cdn.example/?%u", GW_FORBIDDEN},
        {"gopher://cdn.example/?%u", GW_FORBIDDEN},
        {"javascript:alert(%u)", GW_FORBIDDEN},
        {"http://:%u", GW_INVALID},
        {"http://cdn.example:99999/?%u", GW_INVALID},
    };
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char where[256], answer[512];
        int rc;

        server_clear(&w.hub);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(where, sizeof(where), rows[i].location, w.foreign.port);
#pragma GCC diagnostic pop
        snprintf(answer, sizeof(answer),
                 "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", where);
        page(&w.hub, "/r", answer);
        rc = call(&w, "GET", "/r", 2000);
        if (rc != GW_FORBIDDEN && rc != rows[i].get) {
            fail_msg("%s: %s (%s)", where, gw_status_name((enum gw_status)rc), w.f.err.text);
        }
        assert_int_equal(w.reply.status, 0); /* out is left alone */
    }
    assert_int_equal(atomic_load(&w.foreign.n_requests), 0);
    world_release(&w);
}

static void another_host_does_not_send_us_back(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/a", text(&w, "HTTP/1.1 302 Found\r\nLocation: http://%s/b\r\n\r\n", w.cdn_host));
    page(&w.cdn, "/b", text(&w, "HTTP/1.1 302 Found\r\nLocation: %s/api/secret\r\n\r\n", w.url));
    assert_call(&w, "GET", "/a", GW_FORBIDDEN);
    assert_null(strstr(w.hub.requests, "/api/secret"));
    world_release(&w);
}

static void the_rules_of_the_list(void **state)
{
    static const struct {
        const char *upstream, *entry, *location;
        int rc;
    } rows[] = {
        {"https://hub.example", "cdn.example", "https://cdn.example/x", GW_OK},
        {"https://hub.example", "CDN.example", "https://cdn.EXAMPLE:443/x", GW_OK},
        {"https://hub.example", "cdn.example:443", "https://cdn.example/x", GW_OK},
        {"https://hub.example", "cdn.example:8443", "https://cdn.example:8443/x", GW_OK},
        {"https://hub.example", "cdn.example:8443", "https://cdn.example/x", GW_FORBIDDEN},
        {"https://hub.example", "cdn.example", "https://cdn.example:8443/x", GW_FORBIDDEN},
        {"https://hub.example", "cdn.example", "http://cdn.example/x", GW_FORBIDDEN},
        {"https://hub.example", "cdn.example:80", "http://cdn.example/x", GW_FORBIDDEN},
        {"http://hub.example", "cdn.example", "http://cdn.example/x", GW_OK},
        {"http://hub.example", "cdn.example", "https://cdn.example/x", GW_OK},
        {"https://hub.example", "", "http://hub.example/x", GW_FORBIDDEN}, /* downgrade */
        {"https://hub.example", "", "https://hub.example:8443/x", GW_FORBIDDEN},
        {"https://hub.example", "", "https://hub.example:443/x", GW_OK},
        {"https://hub.example", "*.hf.example", "https://us.aws.hf.example/x", GW_OK},
        {"https://hub.example", "*.hf.example", "https://hf.example/x", GW_FORBIDDEN},
        {"https://hub.example", "*.hf.example", "https://evilhf.example/x", GW_FORBIDDEN},
        {"https://hub.example", "*.hf.example", "https://x.hf.example:444/x", GW_FORBIDDEN},
        {"https://hub.example", "cdn.example:*", "https://cdn.example:8443/x", GW_OK},
        {"https://hub.example", "cdn.example:*", "http://cdn.example/x", GW_FORBIDDEN},
        {"https://hub.example", "*", "https://x.example/x", GW_FORBIDDEN},
        {"https://hub.example", "*.", "https://x.example/x", GW_FORBIDDEN},
        {"https://hub.example", "[::1]:8443", "https://[::1]:8443/x", GW_OK},
        {"https://hub.example", "::1", "https://[::1]/x", GW_OK},
        {"https://hub.example", "[::1]", "https://[::1]:8443/x", GW_FORBIDDEN},
        {"https://hub.example", "cdn.example", "https://cdn.example./x", GW_FORBIDDEN},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gw_str entry = gw_str_c(rows[i].entry);
        struct fixture f;
        struct gw_buf to;
        char from[128];
        bool own;
        int rc;

        fixture_init(&f);
        f.options.upstream.url = gw_str_c(rows[i].upstream);
        f.options.upstream.redirect_hosts = &entry;
        f.options.upstream.n_redirect_hosts = 1;
        fixture_open(&f);
        snprintf(from, sizeof(from), "%s/a", rows[i].upstream);
        gw_buf_init(&to, 4096);
        rc = cache_upstream_redirect(f.cache, from, gw_str_c(rows[i].location), &to, &own, &f.err);
        if (rc != rows[i].rc) {
            fail_msg("row %zu: %s", i, gw_status_name((enum gw_status)rc));
        }
        gw_buf_release(&to);
        fixture_release(&f);
    }
}

static void five_redirects_and_no_more(void **state)
{
    char targets[5][16], answers[5][128];
    struct world w;

    world_init(&w);
    page_then(&w.hub, "/loop", "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n",
              THEN_KEEP);
    assert_call(&w, "GET", "/loop", GW_INVALID);
    assert_int_equal(atomic_load(&w.hub.n_requests), CACHE_REDIRECTS_MAX + 1);
    server_clear(&w.hub);
    for (int i = 0; i < 5; i++) {
        snprintf(targets[i], sizeof(targets[i]), "/d/%d", i);
        snprintf(answers[i], sizeof(answers[i]),
                 "HTTP/1.1 302 Found\r\nLocation: %d\r\nContent-Length: 0\r\n\r\n", i + 1);
        page(&w.hub, targets[i], answers[i]);
    }
    page(&w.hub, "/d/5", OK("1") "\r\n\r\nx");
    assert_call(&w, "GET", "/d/0", GW_OK);
    assert_true(gw_str_eq_c(w.reply.final_target, "/d/5"));
    world_release(&w);
}

static void a_hang_at_any_stage_ends_at_the_deadline(void **state)
{
    static const struct page rows[] = {
        {"/h", "", 0, THEN_HANG, 0},
        {"/h", "HTTP/1.1 200 OK\r\nContent-Le", 0, THEN_HANG, 0},
        {"/h", OK("10") "\r\n\r\n", 0, THEN_HANG, 0},
        {"/h", OK("10") "\r\n\r\n12345", 0, THEN_HANG, 0},
        {"/h", OK("100000") "\r\n\r\n", 0, THEN_DRIP, 0},
        {"/h", "HTTP/1.1 200 OK\r\nX: ", 0, THEN_DRIP, 0},
        {"/h", "HTTP/1.1 302 Found\r\nLocation: /h2\r\nContent-Length: 9\r\n\r\n", 0, THEN_HANG, 0},
        {"/h", "HTTP/1.1 100 Continue\r\n\r\n", 0, THEN_HANG, 0},
    };
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < COUNT(rows); i++) {
        int64_t began = gw_mono_ms();
        int rc;

        server_clear(&w.hub);
        server_page(&w.hub, rows[i]);
        rc = call(&w, "GET", "/h", 200);
        if (rc != GW_TIMEOUT || gw_mono_ms() - began > 1500) {
            fail_msg("row %zu: %s after %lld ms", i, gw_status_name((enum gw_status)rc),
                     (long long)(gw_mono_ms() - began));
        }
    }
    assert_int_equal(call(&w, "GET", "/h", -1), GW_TIMEOUT);
    world_release(&w);
}

static void a_stall_ends_before_a_long_deadline(void **state)
{
    struct world w;
    int64_t began;

    world_init(&w);
    fixture_close(&w.f);
    w.f.options.upstream.stall_timeout_ms = 1000;
    fixture_open(&w.f);
    page_then(&w.hub, "/h", OK("10") "\r\n\r\n1", THEN_HANG);
    began = gw_mono_ms();
    assert_int_equal(call(&w, "GET", "/h", 60000), GW_UNAVAILABLE);
    assert_true(gw_mono_ms() - began < 10000);
    world_release(&w);
}

static void *leave_soon(void *arg)
{
    usleep(100000);
    cache_leave(arg);
    return NULL;
}

static void a_process_that_leaves_does_not_wait(void **state)
{
    struct world w;
    int64_t began;
    pthread_t t;

    world_init(&w);
    page_then(&w.hub, "/h", OK("10") "\r\n\r\n1", THEN_HANG);
    pthread_create(&t, NULL, leave_soon, w.f.cache);
    began = gw_mono_ms();
    assert_int_equal(call(&w, "GET", "/h", 60000), GW_CANCELLED);
    assert_true(gw_mono_ms() - began < 3000);
    assert_int_equal(call(&w, "GET", "/h", 60000), GW_CANCELLED);
    pthread_join(t, NULL);
    world_release(&w);
}

static void what_is_no_good_answer(void **state)
{
    static const struct {
        struct page page;
        int rc;
    } rows[] = {
        {{"/b", "", 0, THEN_CLOSE, 0}, GW_UNAVAILABLE},
        {{"/b", "hello, this is not HTTP\r\n\r\n", 0, THEN_CLOSE, 0}, GW_INVALID},
        {{"/b", "\x16\x03\x01\x02", 4, THEN_CLOSE, 0}, GW_INVALID},
        {{"/b", OK("10") "\r\n\r\n12345", 0, THEN_CLOSE, 0}, GW_UNAVAILABLE}, /* cut */
        {{"/b", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123", 0, THEN_CLOSE, 0},
         GW_UNAVAILABLE},
        {{"/b", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 0, THEN_CLOSE, 0},
         GW_UNAVAILABLE},
        {{"/b", OK("2") "\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", 0, THEN_CLOSE, 0},
         GW_INVALID},
        {{"/b", OK("2") "\r\ncontent-encoding: identity, br\r\n\r\nxx", 0, THEN_CLOSE, 0},
         GW_INVALID},
        {{"/b", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0,
          THEN_CLOSE, 0},
         GW_INVALID},
        {{"/b", OK("2") "\r\nContent-Encoding: identity\r\n\r\nxx", 0, THEN_CLOSE, 0}, GW_OK},
        {{"/b",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n0\r\nETag: t\r\n\r\n", 0,
          THEN_CLOSE, 0},
         GW_OK},
        {{"/b", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", 0, THEN_CLOSE, 0}, GW_OK},
        {{"/b", "HTTP/1.1 302 Found\r\nLocation: \r\nContent-Length: 0\r\n\r\n", 0, THEN_CLOSE, 0},
         GW_OK},
        {{"/b", "HTTP/1.1 103 Early Hints\r\nETag: \"early\"\r\n\r\n" OK("2") "\r\n\r\nxx", 0,
          THEN_CLOSE, 0},
         GW_OK},
    };
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < COUNT(rows); i++) {
        int rc;

        server_clear(&w.hub);
        server_page(&w.hub, rows[i].page);
        rc = call(&w, "GET", "/b", 3000);
        if (rc != rows[i].rc) {
            fail_msg("row %zu: %s (%s)", i, gw_status_name((enum gw_status)rc), w.f.err.text);
        }
        if (rc == GW_OK) {
            assert_int_equal(w.reply.etag.n, 0); /* neither a trailer nor an early hint */
        }
    }
    world_release(&w);
}

static void headers_have_a_ceiling(void **state)
{
    size_t n = 2u << 20;
    char *many = malloc(n + 1), *one = malloc(n + 1);
    struct world w;
    size_t at;

    world_init(&w);
    at = (size_t)snprintf(many, n, "HTTP/1.1 200 OK\r\n");
    while (at + 100 < n) {
        at += (size_t)snprintf(many + at, n - at,
                               "X-Filler: 0123456789012345678901234567890123456789\r\n");
    }
    server_page(&w.hub, (struct page){"/many", many, at, THEN_CLOSE, 0});
    memset(one, 'x', n);
    memcpy(one, "HTTP/1.1 200 OK\r\nX: ", 20);
    server_page(&w.hub, (struct page){"/one", one, n, THEN_CLOSE, 0});
    assert_call(&w, "GET", "/many", GW_TOO_LARGE);
    assert_call(&w, "GET", "/one", GW_TOO_LARGE);
    world_release(&w);
    free(many);
    free(one);
}

static int refuse_bytes(void *ctx, struct gw_str bytes)
{
    return GW_CORRUPT;
}

static void a_sink_that_refuses_ends_the_call(void **state)
{
    struct cache_call c = {.method = "GET", .target = GW_STR("/s")};
    struct world w;

    world_init(&w);
    page_then(&w.hub, "/s", OK("10") "\r\n\r\n1", THEN_HANG);
    c.deadline_ms = gw_mono_ms() + 60000;
    assert_int_equal(
        cache_upstream_call(w.f.cache, &c, refuse_bytes, NULL, &w.reply, &w.f.arena, &w.f.err),
        GW_CORRUPT);
    world_release(&w);
}

static void the_body_of_a_refusal_is_not_read_to_its_end(void **state)
{
    static const char head[] =
        "HTTP/1.1 503 No\r\nRetry-After: 9\r\nContent-Length: 900000000\r\n\r\n";
    size_t n = 200000;
    char *bytes = calloc(1, n);
    struct world w;

    memcpy(bytes, head, sizeof(head) - 1);
    world_init(&w);
    server_page(&w.hub, (struct page){"/e", bytes, n, THEN_HANG, 0});
    assert_call(&w, "GET", "/e", GW_OK);
    assert_int_equal(w.reply.status, 503);
    assert_true(gw_str_eq_c(w.reply.retry_after, "9"));
    world_release(&w);
    free(bytes);
}

static void connections_are_kept(void **state)
{
    struct world w;

    world_init(&w);
    page_then(&w.hub, "/k", OK("1") "\r\n\r\nk", THEN_KEEP);
    for (int i = 0; i < 3; i++) {
        assert_call(&w, "GET", "/k", GW_OK);
    }
    assert_int_equal(atomic_load(&w.hub.n_requests), 3);
    assert_int_equal(atomic_load(&w.hub.n_connections), 1);
    world_release(&w);
}

static void nobody_there(void **state)
{
    struct world w;
    int64_t began;

    world_init(&w);
    fixture_close(&w.f);
    w.f.options.upstream.url = GW_STR("http://127.0.0.1:1");
    fixture_open(&w.f);
    began = gw_mono_ms();
    assert_int_equal(call(&w, "GET", "/", 3000), GW_UNAVAILABLE);
    assert_true(gw_mono_ms() - began < 2000);
    fixture_close(&w.f);
    w.f.options.upstream.url = GW_STR("http://no-such-name.invalid");
    fixture_open(&w.f);
    assert_int_equal(call(&w, "GET", "/", 10000), GW_UNAVAILABLE);
    world_release(&w);
}

static void names_and_addresses(void **state)
{
    struct gw_str pins[] = {GW_STR_INIT("Pinned.example:192.0.2.7"),
                            GW_STR_INIT("pinned.example:2001:db8::7")};
    char buf[256], small[4];
    struct fixture f;

    fixture_init(&f);
    f.options.upstream.resolve = pins;
    f.options.upstream.n_resolve = 2;
    fixture_open(&f);
    assert_int_equal(cache_address_of(f.cache, GW_STR("pinned.EXAMPLE"), buf, sizeof(buf)), GW_OK);
    assert_string_equal(buf, "192.0.2.7");
    assert_int_equal(
        cache_addresses(f.cache, GW_STR("pinned.example"), 0, buf, sizeof(buf), &f.err), GW_OK);
    assert_string_equal(buf, "192.0.2.7,[2001:db8::7]");
    assert_int_equal(cache_address_of(f.cache, GW_STR("[::1]"), buf, sizeof(buf)), GW_OK);
    assert_string_equal(buf, "::1");
    assert_int_equal(cache_address_of(f.cache, GW_STR("10.1.2.3"), buf, sizeof(buf)), GW_OK);
    assert_string_equal(buf, "10.1.2.3");
    assert_int_equal(cache_address_of(f.cache, GW_STR("10.1.2.3"), small, sizeof(small)),
                     GW_TOO_LARGE);
    assert_int_equal(cache_address_of(f.cache, GW_STR(""), buf, sizeof(buf)), GW_UNAVAILABLE);
    cache_resolve_also(f.cache, GW_STR("localhost"));
    assert_int_equal(cache_address_of(f.cache, GW_STR("LocalHost"), buf, sizeof(buf)), GW_OK);
    assert_true(strcmp(buf, "127.0.0.1") == 0 || strcmp(buf, "::1") == 0);
    fixture_close(&f);
    pins[0] = GW_STR("nonsense");
    assert_int_equal(fixture_try_open(&f), GW_INVALID);
    pins[0] = GW_STR("host:name");
    assert_int_equal(fixture_try_open(&f), GW_INVALID);
    fixture_release(&f);
}

static void a_proxy_is_asked_and_only_its_name_is_resolved(void **state)
{
    struct world w;
    char proxy[64];

    world_init(&w);
    fixture_close(&w.f);
    snprintf(proxy, sizeof(proxy), "http://localhost:%u", w.foreign.port);
    w.f.options.upstream.proxy = proxy;
    w.f.options.upstream.url = GW_STR("http://no-such-name.invalid");
    fixture_open(&w.f);
    page(&w.foreign, "http://no-such-name.invalid/x", OK("2") "\r\n\r\nok");
    assert_call(&w, "GET", "/x", GW_OK);
    assert_true(gw_str_eq_c(gw_buf_str(&w.body), "ok"));
    fixture_close(&w.f);
    w.f.options.upstream.url = GW_STR("https://no-such-name.invalid");
    fixture_open(&w.f);
    page(&w.foreign, "no-such-name.invalid:443",
         "HTTP/1.1 407 Log in\r\nContent-Length: 0\r\n\r\n");
    assert_call(&w, "GET", "/x", GW_UNAVAILABLE);
    assert_null(strstr(strstr(w.foreign.requests, "CONNECT"), "hf_organisation"));
    fixture_close(&w.f);
    w.f.options.upstream.proxy = "socks5://localhost:1";
    assert_int_equal(fixture_try_open(&w.f), GW_INVALID);
    world_release(&w);
}

static void a_token_with_a_line_break_is_refused(void **state)
{
    struct fixture f;

    fixture_init(&f);
    f.options.upstream.token = GW_STR("hf_x\r\nX-Evil: 1");
    assert_int_equal(fixture_try_open(&f), GW_INVALID);
    assert_null(strstr(f.err.text, "hf_x"));
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_says_what_it_must_and_no_more),
        cmocka_unit_test(every_field_of_an_answer),
        cmocka_unit_test(a_relative_redirect_keeps_query_and_token),
        cmocka_unit_test(an_absolute_one_to_the_same_origin_is_the_same),
        cmocka_unit_test(a_head_stops_at_another_host_and_a_get_goes_there_without_the_token),
        cmocka_unit_test(where_a_redirect_may_not_lead),
        cmocka_unit_test(another_host_does_not_send_us_back),
        cmocka_unit_test(the_rules_of_the_list),
        cmocka_unit_test(five_redirects_and_no_more),
        cmocka_unit_test(a_hang_at_any_stage_ends_at_the_deadline),
        cmocka_unit_test(a_stall_ends_before_a_long_deadline),
        cmocka_unit_test(a_process_that_leaves_does_not_wait),
        cmocka_unit_test(what_is_no_good_answer),
        cmocka_unit_test(headers_have_a_ceiling),
        cmocka_unit_test(a_sink_that_refuses_ends_the_call),
        cmocka_unit_test(the_body_of_a_refusal_is_not_read_to_its_end),
        cmocka_unit_test(connections_are_kept),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(names_and_addresses),
        cmocka_unit_test(a_proxy_is_asked_and_only_its_name_is_resolved),
        cmocka_unit_test(a_token_with_a_line_break_is_refused),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
