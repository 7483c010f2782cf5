/* SPDX-License-Identifier: Apache-2.0 */
/* Upstream's rate limits: what headers say, how long nothing is asked, when little is left. */
#include "cache/limit_internal.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define NOW INT64_C(1764043200000) /* Tue, 25 Nov 2025 04:00:00 GMT */

static void test_kinds(void **state)
{
    static const struct {
        const char *path;
        enum cache_limit_kind kind;
    } rows[] = {
        {"/api/models/a/b", CACHE_LIMIT_API},
        {"/api/models/a/b/tree/main", CACHE_LIMIT_API},
        {"/api/resolve-cache/models/a/b/0123/x", CACHE_LIMIT_RESOLVERS},
        {"/a/b/resolve/main/x", CACHE_LIMIT_RESOLVERS},
        {"/datasets/a/b/resolve/main/x", CACHE_LIMIT_RESOLVERS},
        {"/a/b/raw/main/x", CACHE_LIMIT_PAGES},
        {"/a/b", CACHE_LIMIT_PAGES},
        {"", CACHE_LIMIT_PAGES},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(limit_kind_of(gw_str_c(rows[i].path)), rows[i].kind);
    }
}

static void test_retry_after(void **state)
{
    static const struct {
        const char *value;
        int64_t seconds;
    } rows[] = {
        {"0", 0},
        {"7", 7},
        {" 120 ", 120},
        {"99999999999999999999", -1}, /* no number */
        {"86400", 900},
        {"-1", -1},
        {"", -1},
        {"soon", -1},
        {"7s", -1},
        {"Tue, 25 Nov 2025 04:00:30 GMT", 30},
        {"Tue, 25 Nov 2025 03:00:00 GMT", 0},
        {"Tue, 25 Nov 2125 04:00:30 GMT", 900},
        {"Tue, 25 Nov 2025 04:00:30 GMT or so", -1},
        {"Tuesday, 25-Nov-25 04:00:30 GMT", -1}, /* nobody sends it any more */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (limit_retry_after(gw_str_c(rows[i].value), NOW) != rows[i].seconds) {
            fail_msg("Retry-After: %s", rows[i].value);
        }
    }
}

static void test_headers(void **state)
{
    static const struct {
        const char *value;
        enum cache_limit_kind kind;
        struct limit_bucket says;
    } rows[] = {
        {"\"api\";r=499;t=55", CACHE_LIMIT_API, {499, 55, -1}},
        {"\"resolvers\";r=0;t=172", CACHE_LIMIT_RESOLVERS, {0, 172, -1}},
        {"\"fixed window\";\"pages\";q=100;w=300", CACHE_LIMIT_PAGES, {-1, -1, 100}},
        {"\"api\"; t=3 ; r=2 ", CACHE_LIMIT_API, {2, 3, -1}},
        {"\"api\";r=1;t=2, \"resolvers\";r=3;t=4", CACHE_LIMIT_RESOLVERS, {3, 4, -1}},
        {"\"api\";r=1;t=99999999", CACHE_LIMIT_API, {1, 900, -1}},
        {"\"api\";r=99999999999;t=1", CACHE_LIMIT_API, {1000000000, 1, -1}},
        /* half of it, something else, nothing */
        {"\"api\";r=1", CACHE_LIMIT_API, {-1, -1, -1}},
        {"\"api\";t=1", CACHE_LIMIT_API, {-1, -1, -1}},
        {"\"api\";r=-1;t=5", CACHE_LIMIT_API, {-1, -1, -1}},
        {"api;r=1;t=5", CACHE_LIMIT_API, {-1, -1, -1}},
        {"\"other\";r=0;t=5", CACHE_LIMIT_API, {-1, -1, -1}},
        {"", CACHE_LIMIT_API, {-1, -1, -1}},
        {";;;,,,\"", CACHE_LIMIT_API, {-1, -1, -1}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct limit_said said = LIMIT_SAID_NOTHING;

        limit_read(&said, gw_str_c(rows[i].value));
        if (memcmp(&said.buckets[rows[i].kind], &rows[i].says, sizeof(rows[i].says)) != 0) {
            fail_msg("RateLimit: %s", rows[i].value);
        }
    }
}

static struct cache_shared *memory(void)
{
    struct cache_shared *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    return s;
}

static void learn(struct cache_shared *s, int status, int64_t retry_after_s, const char *ratelimit)
{
    struct limit_said said = LIMIT_SAID_NOTHING;

    limit_read(&said, gw_str_c(ratelimit));
    limit_learn(s, CACHE_LIMIT_API, status, retry_after_s, &said);
}

static void check_wait(const struct cache_shared *s, enum cache_limit_kind kind, int64_t seconds)
{
    int64_t wait = cache_limit_wait_ms(s, kind);

    if (wait > seconds * 1000 || wait < seconds * 1000 - (seconds > 0 ? 900 : 0)) {
        fail_msg("waits %lld ms, not %lld s", (long long)wait, (long long)seconds);
    }
}

static void test_waits(void **state)
{
    struct cache_shared *s;
    struct gw_error err;

    (void)state;
    s = memory();
    learn(s, 200, -1, "\"api\";r=100;t=55");
    check_wait(s, CACHE_LIMIT_API, 0);
    assert_int_equal(limit_check(s, GW_STR("/api/models/a/b"), &err), GW_OK);
    learn(s, 200, -1, "\"api\";r=0;t=55"); /* this was the last one */
    check_wait(s, CACHE_LIMIT_API, 55);
    check_wait(s, CACHE_LIMIT_RESOLVERS, 0);
    assert_int_equal(limit_check(s, GW_STR("/a/b/resolve/main/x"), &err), GW_OK);
    assert_int_equal(limit_check(s, GW_STR("/api/models/a/b"), &err), GW_UNAVAILABLE);
    assert_int_equal(err.sys, 429);
    assert_non_null(strstr(err.text, "(api)"));
    assert_int_equal(s->limits[CACHE_LIMIT_API].held_back, 1);
    assert_int_equal(s->limits[CACHE_LIMIT_API].refused, 0);
    learn(s, 429, 30, ""); /* a shorter one does not shorten it */
    check_wait(s, CACHE_LIMIT_API, 55);
    assert_int_equal(s->limits[CACHE_LIMIT_API].refused, 1);
    learn(s, 429, 600, "");
    check_wait(s, CACHE_LIMIT_API, 600);
    cache_limit_until(s, CACHE_LIMIT_API, INT64_MAX); /* of another node, or of nobody */
    check_wait(s, CACHE_LIMIT_API, 900);
    /* the clock was set back by a day */
    s->limits[CACHE_LIMIT_API].not_before_ms += 86400000;
    check_wait(s, CACHE_LIMIT_API, 0);
    free(s);

    s = memory();
    learn(s, 429, -1, "");
    check_wait(s, CACHE_LIMIT_API, 5);
    free(s);
    s = memory();
    learn(s, 429, 0, "");
    check_wait(s, CACHE_LIMIT_API, 1);
    free(s);
    s = memory();
    learn(s, 429, -1, "\"api\";r=0;t=12");
    check_wait(s, CACHE_LIMIT_API, 12);
    free(s);
    s = memory();
    learn(s, 503, 12, "");
    check_wait(s, CACHE_LIMIT_API, 0);
    free(s);
}

static void test_low(void **state)
{
    struct cache_shared *s = memory();

    (void)state;
    assert_false(cache_limit_low(s, CACHE_LIMIT_API));
    learn(s, 200, -1, "\"api\";r=49;t=55");
    assert_true(cache_limit_low(s, CACHE_LIMIT_API)); /* of 500, as far as anybody knows */
    learn(s, 200, -1, "\"api\";r=51;t=55");
    assert_false(cache_limit_low(s, CACHE_LIMIT_API));
    learn(s, 200, -1, "\"fixed window\";\"api\";q=1000;w=300");
    assert_true(cache_limit_low(s, CACHE_LIMIT_API));
    assert_false(cache_limit_low(s, CACHE_LIMIT_RESOLVERS));
    s->limits[CACHE_LIMIT_API].reset_ms = gw_wall_ms(); /* a new window */
    assert_false(cache_limit_low(s, CACHE_LIMIT_API));
    learn(s, 429, 10, "");
    assert_true(cache_limit_low(s, CACHE_LIMIT_API));
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),   cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_headers), cmocka_unit_test(test_waits),
        cmocka_unit_test(test_low),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
