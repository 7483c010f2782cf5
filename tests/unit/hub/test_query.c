/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_query.c - queries in the spellings of the clients, and their one normal form.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define TREE "/api/models/a/b/tree/main?"
#define INFO "/api/models/a/b?"
#define COMMITS "/api/models/a/b/commits/main?"
#define DISCUSSIONS "/api/models/a/b/discussions?"

static int parse(struct hub_target *t, const char *target, struct gw_arena *a)
{
    return hub_target_parse(t, GW_STR("GET"), gw_str_c(target), a, NULL);
}

static void normal_forms(void **state)
{
    static const struct {
        const char *target, *query;
    } rows[] = {
        {TREE, ""},
        {TREE "recursive=true&expand=false", "recursive=true"},
        {TREE "recursive=True&expand=False", "recursive=true"},
        {TREE "expand=1&recursive=1", "expand=true&recursive=true"},
        {TREE "recursive=yes&expand=0", ""},
        {TREE "recursive=true&recursive=false", ""},
        {TREE "limit=50&cursor=abc%3D%3D", "cursor=abc%3D%3D&limit=50"},
        {TREE "cursor=a%2Cb+c&limit=0", "cursor=a%2Cb%20c"},
        {TREE "limit=5000", "limit=1000"},
        {TREE "limit=18446744073709551615", "limit=1000"},
        {TREE "X-Amz-Signature=1&%zz=1&recursive=true&unknown=%zz&&=&=x&cursor", "recursive=true"},
        {TREE "p=2", "p=2"},
        {TREE "cursor=p:2", "p=2"},
        {TREE "cursor=p:02", "cursor=p%3A02"},
        {TREE "cursor=p:", "cursor=p%3A"},
        {TREE "recurs%69ve=true", "recursive=true"},
        {INFO "blobs=True", "blobs=true"},
        {INFO "securityStatus=true&blobs=true", "blobs=true&securityStatus=true"},
        {INFO "expand=likes&expand=author", "expand=author&expand=likes"},
        {INFO "expand[]=likes&expand%5B%5D=author&expand=likes", "expand=author&expand=likes"},
        {INFO "expand=model-index&expand=library_name", "expand=library_name&expand=model-index"},
        {INFO "recursive=true&limit=3", ""},
        {COMMITS "limit=1", "limit=1"},
        {COMMITS "expand%5B%5D=formatted&p=7", "expand%5B%5D=formatted&p=7"},
        {COMMITS "p=0&limit=100", "limit=100"},
        {COMMITS "cursor=xyz", "cursor=xyz"},
        {DISCUSSIONS "p=0", ""},
        {DISCUSSIONS "p=1&type=pull_request&status=open&author=ann%20b",
         "author=ann%20b&p=1&status=open&type=pull_request"},
        {"/api/models/a/b/refs?include_prs=1", "include_prs=1"},
        {"/api/models/a/b/refs?include_prs=True&x=y", "include_prs=1"},
        {"/gpt2/resolve/main/f?download=true&recursive=true", ""},
        {"/api/whoami-v2?x=%zz", ""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a;
        struct hub_target t;

        gw_arena_init(&a, 65536);
        assert_int_equal(parse(&t, rows[i].target, &a), GW_OK);
        if (!gw_str_eq_c(t.query, rows[i].query)) {
            fail_msg("%s: got \"" GW_STR_FMT "\"", rows[i].target, GW_STR_ARG(t.query));
        }
        gw_arena_release(&a);
    }
}

static void fields(void **state)
{
    struct gw_arena a;
    struct hub_target t;

    gw_arena_init(&a, 65536);
    assert_int_equal(parse(&t, TREE "recursive=1&expand=True&limit=7&cursor=c%2Fd", &a), GW_OK);
    assert_true(t.recursive && t.expand);
    assert_int_equal(t.limit, 7);
    assert_true(gw_str_eq_c(t.cursor, "c/d"));
    assert_int_equal(t.keys.n, 0);

    assert_int_equal(parse(&t, TREE "cursor&recursive", &a), GW_OK);
    assert_non_null(t.cursor.p); /* never NULL, also without '=' */
    assert_int_equal(t.cursor.n, 0);

    assert_int_equal(parse(&t, INFO "blobs=1&securityStatus=True", &a), GW_OK);
    assert_true(t.blobs && t.security_status && !t.expand);

    assert_int_equal(parse(&t, INFO "expand=sha&expand=likes&expand=sha", &a), GW_OK);
    assert_true(t.expand);
    assert_true(gw_str_eq_c(t.keys, "likes,sha"));

    assert_int_equal(parse(&t, COMMITS "expand[]=formatted&p=12", &a), GW_OK);
    assert_true(t.expand);
    assert_true(gw_str_eq_c(t.cursor, "p:12"));

    assert_int_equal(parse(&t, "/api/models/a/b/refs?include_prs=1", &a), GW_OK);
    assert_true(t.include_prs);
    gw_arena_release(&a);
}

static void bad_values(void **state)
{
    static const struct {
        const char *target;
        int rc;
    } rows[] = {
        {TREE "limit=-1", GW_INVALID},          {TREE "limit=", GW_INVALID},
        {TREE "limit=1e3", GW_INVALID},         {TREE "limit=99999999999999999999", GW_INVALID},
        {TREE "recursive=%zz", GW_INVALID},     {TREE "cursor=%00", GW_INVALID},
        {TREE "cursor=%0a", GW_INVALID},        {TREE "cursor=%ff", GW_INVALID},
        {TREE "cursor=%e2%80%ae", GW_INVALID},  {TREE "p=-1", GW_INVALID},
        {TREE "p=1000000000", GW_INVALID},      {INFO "expand=", GW_INVALID},
        {INFO "expand=a,b", GW_INVALID},        {INFO "expand=a%26b", GW_INVALID},
        {DISCUSSIONS "author=%0d", GW_INVALID},
    };
    static char many[HUB_TARGET_MAX + 1];
    struct gw_arena a;
    struct hub_target t;
    size_t n;

    gw_arena_init(&a, 1 << 20);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int rc = parse(&t, rows[i].target, &a);

        if (rc != rows[i].rc) {
            fail_msg("%s: got %s", rows[i].target, gw_status_name((enum gw_status)rc));
        }
    }
    n = (size_t)snprintf(many, sizeof(many), "%s", INFO);
    for (int i = 0; i < 65; i++) {
        n += (size_t)snprintf(many + n, sizeof(many) - n, "expand=k%d&", i);
    }
    assert_int_equal(parse(&t, many, &a), GW_TOO_LARGE);
    n = (size_t)snprintf(many, sizeof(many), "%s", INFO);
    for (int i = 0; i < 300; i++) {
        n += (size_t)snprintf(many + n, sizeof(many) - n, "x=%d&", i);
    }
    assert_int_equal(parse(&t, many, &a), GW_TOO_LARGE);
    n = (size_t)snprintf(many, sizeof(many), "%s", TREE "cursor=");
    memset(many + n, 'c', 4097);
    many[n + 4097] = '\0';
    assert_int_equal(parse(&t, many, &a), GW_TOO_LARGE);
    n = (size_t)snprintf(many, sizeof(many), "%s", DISCUSSIONS "type=");
    memset(many + n, 'c', 129);
    many[n + 129] = '\0';
    assert_int_equal(parse(&t, many, &a), GW_TOO_LARGE);
    /* the longest query there can be stays in its bounds */
    n = (size_t)snprintf(many, sizeof(many), "%s", TREE "limit=1&cursor=");
    memset(many + n, '/', 4096);
    many[n + 4096] = '\0';
    assert_int_equal(parse(&t, many, &a), GW_OK);
    assert_int_equal(t.query.n, strlen("cursor=&limit=1") + 3 * 4096);
    gw_arena_release(&a);
}

static int parse_once(void *ctx)
{
    struct gw_arena a;
    struct hub_target t;
    int rc;

    gw_arena_init(&a, 65536);
    rc = parse(&t, INFO "expand=b&expand=%61&blobs=1", &a);
    gw_arena_release(&a);
    return rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(parse_once, NULL, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normal_forms),
        cmocka_unit_test(fields),
        cmocka_unit_test(bad_values),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
