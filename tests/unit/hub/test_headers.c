/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_headers.c - Link, Content-Disposition, Content-Type, ETag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define SHA1 "0123456789abcdef0123456789abcdef01234567"
#define SHA256 SHA1 "0123456789abcdef01234567"

static void link_cursor(void **state)
{
    static const char lost[] = "(unreadable)";
    static const struct {
        const char *header, *cursor;
    } rows[] = {
        {"", ""},
        {"<https://huggingface.co/api/models/a/b/tree/"
         "main?recursive=true&limit=1000&cursor=ZXl%3D%3D%3A1000>; rel=\"next\"",
         "ZXl==:1000"},
        {"<https://h/x?cursor=abc>;rel=\"next\"", "abc"},
        {"<https://h/x?cursor=abc>; rel=next", "abc"},
        {"<https://h/x?cursor=abc>; REL=\"Next\"", "abc"},
        {"<https://h/x?cursor=abc>; title=\"a, \\\"b; c\"; rel=\"prev next\"", "abc"},
        {"<https://h/x?cursor=p1>; rel=\"prev\", <https://h/x?cursor=n1>; rel=\"next\"", "n1"},
        {"<https://h/x?cursor=a,b>; rel=\"next\"", "a,b"},
        {"<https://h/x?a=1,2>; rel=\"prev\", <https://h/x?cursor=c>; rel=\"next\"", "c"},
        {"<https://h/x?cursor=f>; rel=\"first\"", ""},
        {"<https://cas/t>; rel=\"xet-auth\", <https://cas/r>; rel=\"xet-reconstruction-info\"", ""},
        {"<https://h/x?cursor=abc>", ""},
        {"<https://h/x?cursor=abc>; title=\"rel=next\"", ""},
        {"<https://h/commits/main?limit=5&p=3>; rel=\"next\"", "p:3"},
        {"<https://h/x?p=3&cursor=abc>; rel=\"next\"", "abc"},
        {"<https://h/x?cursor=a#cursor=b>; rel=\"next\"", "a"},
        {"<https://h/x?cursor=a+b%20c>; rel=\"next\"", "a b c"},
        {"garbage", ""},
        {"<https://h/x?cursor=abc; rel=\"next\"", ""},
        /* a next page that cannot be asked for must not look like the end */
        {"<https://h/x>; rel=\"next\"", lost},
        {"<https://h/x?page=2>; rel=\"next\"", lost},
        {"<https://h/x?cursor=>; rel=\"next\"", lost},
        {"<https://h/x?cursor=%zz>; rel=\"next\"", lost},
        {"<https://h/x?cursor=%00>; rel=\"next\"", lost},
        {"<https://h/x?p=x>; rel=\"next\"", lost},
        {"<https://h/x?p=0>; rel=\"next\"", lost},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a;
        struct gw_str got;

        gw_arena_init(&a, 65536);
        got = hub_link_cursor(gw_str_c(rows[i].header), &a);
        if (got.p == NULL) {
            got = gw_str_c(lost);
        }
        if (!gw_str_eq_c(got, rows[i].cursor)) {
            fail_msg("%s: got \"" GW_STR_FMT "\"", rows[i].header, GW_STR_ARG(got));
        }
        gw_arena_release(&a);
    }
}

static void link_next(void **state)
{
    static const struct {
        const char *target, *cursor, *expected;
    } rows[] = {
        {"/api/models/a/b/tree/main?recursive=true", "x,y=",
         "<https://hub.corp/api/models/a/b/tree/main?recursive=true&cursor=x%2Cy%3D>; "
         "rel=\"next\""},
        {"/api/models/a/b/tree/refs/pr/1/d%20e,f?cursor=old&limit=5&junk=1", "new",
         "<https://hub.corp/api/models/a/b/tree/refs%2Fpr%2F1/d%20e%2Cf?limit=5&cursor=new>; "
         "rel=\"next\""},
        {"/api/datasets/gpt2/tree/main", "c",
         "<https://hub.corp/api/datasets/gpt2/tree/main?cursor=c>; rel=\"next\""},
        {"/api/models/a/b/commits/main?limit=5&p=2", "p:3",
         "<https://hub.corp/api/models/a/b/commits/main?limit=5&p=3>; rel=\"next\""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hub_target t, again;
        struct gw_arena a;
        struct gw_buf b;
        struct gw_str path;

        gw_arena_init(&a, 65536);
        gw_buf_init(&b, 65536);
        assert_int_equal(hub_target_parse(&t, GW_STR("GET"), gw_str_c(rows[i].target), &a, NULL),
                         GW_OK);
        hub_put_link_next(&b, GW_STR("https://hub.corp"), &t, gw_str_c(rows[i].cursor));
        assert_string_equal(b.p, rows[i].expected);
        assert_null(strchr(b.p, ','));
        /* what the client sends back is the same target on the next page */
        assert_true(gw_str_eq_c(hub_link_cursor(gw_buf_str(&b), &a), rows[i].cursor));
        path = gw_str_sub(gw_buf_str(&b), strlen("<https://hub.corp"), b.n);
        path.n = (size_t)(strchr(b.p, '>') - path.p);
        assert_int_equal(hub_target_parse(&again, GW_STR("GET"), path, &a, NULL), GW_OK);
        assert_true(gw_str_eq_c(again.cursor, rows[i].cursor));
        assert_true(gw_str_eq(again.path, t.path) && gw_str_eq(again.revision, t.revision));
        assert_int_equal(again.limit, t.limit);
        gw_buf_release(&b);
        gw_arena_release(&a);
    }
}

static void moved(void **state)
{
    static const struct {
        const char *asked, *led;
    } rows[] = {
        {"/a/b/resolve/main/x%20y%2Fz?download=true", "/c/d/resolve/main/x%20y/z?download=true"},
        {"/datasets/a/b/raw/refs%2Fpr%2F1/x", "/datasets/c/d/raw/refs%2Fpr%2F1/x"},
        {"/api/models/a/b", "/api/models/c/d"},
        {"/api/models/a/b?", "/api/models/c/d?"},
        {"/api/spaces/a/b/revision/dev%2Fx?expand=sha",
         "/api/spaces/c/d/revision/dev%2Fx?expand=sha"},
        {"/api/models/a/b/commit/main?create_pr=1", "/api/models/c/d/commit/main?create_pr=1"},
        {"/a/b.git/info/lfs/objects/batch", "/c/d.git/info/lfs/objects/batch"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a;
        struct hub_target t;
        struct gw_buf b;

        gw_arena_init(&a, 65536);
        gw_buf_init(&b, 65536);
        assert_int_equal(hub_target_parse(&t, GW_STR("GET"), gw_str_c(rows[i].asked), &a, NULL),
                         GW_OK);
        t.ns = GW_STR("c");
        t.name = GW_STR("d");
        hub_put_moved(&b, &t, gw_str_c(rows[i].asked));
        gw_buf_add_char(&b, 0);
        assert_string_equal(b.p, rows[i].led);
        gw_buf_release(&b);
        gw_arena_release(&a);
    }
}

static void content_disposition(void **state)
{
    static const struct {
        const char *path, *expected;
    } rows[] = {
        {"config.json", "inline; filename*=UTF-8''config.json; filename=\"config.json\";"},
        {"a/b/config.json", "inline; filename*=UTF-8''config.json; filename=\"config.json\";"},
        {"a b'c.txt", "inline; filename*=UTF-8''a%20b%27c.txt; filename=\"a b'c.txt\";"},
        {"\xc3\xa9\xf0\x9f\x98\x80.txt",
         "inline; filename*=UTF-8''%C3%A9%F0%9F%98%80.txt; filename=\"__.txt\";"},
        {"a\"b\\c%20d.txt",
         "inline; filename*=UTF-8''a%22b%5Cc%2520d.txt; filename=\"a_b_c_20d.txt\";"},
        {"a\r\nX: y", "inline; filename*=UTF-8''a%0D%0AX%3A%20y; filename=\"a__X: y\";"},
        {"\xff\x7f", "inline; filename*=UTF-8''%FF%7F; filename=\"__\";"},
        {"a;b=c", "inline; filename*=UTF-8''a%3Bb%3Dc; filename=\"a;b=c\";"},
        {"", "inline; filename*=UTF-8''; filename=\"\";"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_buf b;

        gw_buf_init(&b, 65536);
        hub_put_content_disposition(&b, gw_str_c(rows[i].path));
        assert_string_equal(b.p, rows[i].expected);
        gw_buf_release(&b);
    }
}

static void content_type(void **state)
{
    static const char *const text[] = {
        "config.json", "a/README.md",      "x.HTML",    "x.svg", "x.js",
        "LICENSE",     "a/.gitattributes", "vocab.txt", "m.xml"};
    static const char *const binary[] = {
        "model.safetensors", "x.bin",     "x",     "json",   "x.png", "",
        "a.json/x",          "x.html.gz", "x.pdf", "x.xhtml"};

    for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++) {
        assert_string_equal(hub_content_type(gw_str_c(text[i])), "text/plain; charset=utf-8");
    }
    for (size_t i = 0; i < sizeof(binary) / sizeof(binary[0]); i++) {
        assert_string_equal(hub_content_type(gw_str_c(binary[i])), "application/octet-stream");
    }
}

static void etag(void **state)
{
    static const struct {
        const char *etag, *digest;
    } rows[] = {
        {"\"" SHA1 "\"", SHA1},
        {"W/\"" SHA1 "\"", SHA1},
        {SHA256, SHA256},
        {"  \"" SHA256 "\" ", SHA256},
        {"W/" SHA1, SHA1},
        {"", ""},
        {"\"\"", ""},
        {"\"", ""},
        {"\"" SHA1, ""},
        {"\"0123456789ABCDEF0123456789ABCDEF01234567\"",
         "0123456789ABCDEF0123456789ABCDEF01234567"},
        {"\"0123456789ABCDEF0123456789ABCDEF0123456G\"", ""},
        {"\"" SHA1 "0\"", ""},
        {"\"" SHA1 "-gzip\"", ""},
        {"\"64f0c1e2-1a2b\"", ""},
        {"w/\"" SHA1 "\"", ""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_str got = hub_etag_digest(gw_str_c(rows[i].etag));

        assert_true(gw_str_eq_c(got, rows[i].digest));
    }
    assert_int_equal(hub_etag_digest((struct gw_str){NULL, 0}).n, 0);
}

static int link_once(void *ctx)
{
    struct gw_arena a;
    struct gw_str got;

    gw_arena_init(&a, 65536);
    got = hub_link_cursor(GW_STR("<https://h/x?cursor=a%20b>; rel=\"next\""), &a);
    gw_arena_release(&a);
    return got.p != NULL ? GW_OK : GW_NO_MEMORY;
}

static void no_memory(void **state)
{
    with_failing_alloc(link_once, NULL, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(link_cursor),  cmocka_unit_test(link_next),
        cmocka_unit_test(moved),        cmocka_unit_test(content_disposition),
        cmocka_unit_test(content_type), cmocka_unit_test(etag),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
