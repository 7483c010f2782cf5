/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_list_reader.c - upstream's lists of files, in any pieces, in bounded memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define OID "0123456789abcdef0123456789abcdef01234567"
#define DIGEST OID "0123456789abcdef01234567"
#define STARS "****************************************************************"

struct seen {
    struct gw_buf text; /* a line for each entry: its fields, then its JSON */
    size_t entries, stop_at;
};

static int on_entry(void *ctx, const struct hub_entry *e, struct gw_str json)
{
    struct seen *s = ctx;

    gw_buf_addf(&s->text, "%s %s %llu " GW_STR_FMT,
                e->directory ? "dir"
                : e->lfs     ? "lfs"
                             : "file",
                e->oid, (unsigned long long)e->size, GW_STR_ARG(e->path));
    if (e->lfs) {
        gw_buf_addf(&s->text, " %s %u", e->sha256, e->pointer_size);
    }
    if (e->xet.n != 0) {
        gw_buf_addf(&s->text, " xet=%.4s", e->xet.p);
    }
    gw_buf_addf(&s->text, "\n" GW_STR_FMT "\n", GW_STR_ARG(json));
    return ++s->entries == s->stop_at ? GW_CANCELLED : GW_OK;
}

/* In pieces of `piece` bytes; 0: of random sizes. */
static int read_list(struct seen *s, struct gw_str json, size_t piece, struct gw_error *err)
{
    struct hub_list_reader *r = hub_list_reader_new(on_entry, s);
    int rc = r != NULL ? GW_OK : GW_NO_MEMORY;

    for (size_t at = 0; at < json.n && rc == GW_OK;) {
        size_t n = piece != 0 ? piece : 1 + (size_t)rand() % 17;
        struct gw_str part = gw_str_sub(json, at, n);
        char *copy = malloc(part.n); /* nothing may be read of it later */

        memcpy(copy, part.p, part.n);
        rc = hub_list_reader_feed(r, (struct gw_str){copy, part.n}, err);
        free(copy);
        at += n;
    }
    if (rc == GW_OK) {
        rc = hub_list_reader_finish(r, err);
    }
    hub_list_reader_free(r);
    return rc;
}

static const char page[] =
    " [ {\"type\" : \"file\", \"oid\":\"" OID "\", \"size\":12, \"path\":\"a/b c.txt\"},\n"
    "{\"type\":\"directory\",\"oid\":\"" OID "\",\"size\":0,\"path\":\"a\"},"
    "{\"path\":\"m.bin\",\"xetHash\":\"" DIGEST "\",\"type\":\"file\",\"size\":5000000000,"
    "\"lfs\":{\"xetHash\":\"" DIGEST "\",\"oid\":\"" DIGEST "\",\"size\":5000000000,"
    "\"pointerSize\":135},\"oid\":\"" OID "\"},"
    "{\"type\":\"unknown\",\"oid\":\"" OID "\",\"path\":\"sub\"},"
    "{\"type\":\"file\",\"oid\":\"" OID "\",\"size\":7,\"path\":\"\\u00e9\\\"\","
    "\"xetHash\":\"" STARS "\",\"lastCommit\":{\"id\":\"x\",\"title\":\"t\",\"xetEnabled\":true,"
    "\"date\":\"d\"},\"securityFileStatus\":{\"status\":\"safe\",\"list\":[1,-2.5e3,null,[],{}]}}]";

static const char page_seen[] =
    "file " OID " 12 a/b c.txt\n"
    "{\"type\":\"file\",\"oid\":\"" OID "\",\"size\":12,\"path\":\"a/b c.txt\"}\n"
    "dir " OID " 0 a\n"
    "{\"type\":\"directory\",\"oid\":\"" OID "\",\"size\":0,\"path\":\"a\"}\n"
    "lfs " OID " 5000000000 m.bin " DIGEST " 135 xet=0123\n"
    "{\"path\":\"m.bin\",\"type\":\"file\",\"size\":5000000000,\"lfs\":{\"oid\":\"" DIGEST
    "\",\"size\":5000000000,\"pointerSize\":135},\"oid\":\"" OID "\"}\n"
    "file " OID " 7 \xc3\xa9\"\n"
    "{\"type\":\"file\",\"oid\":\"" OID "\",\"size\":7,\"path\":\"\xc3\xa9\\\"\","
    "\"lastCommit\":{\"id\":\"x\",\"title\":\"t\",\"date\":\"d\"},"
    "\"securityFileStatus\":{\"status\":\"safe\",\"list\":[1,-2.5e3,null,[],{}]}}\n";

static void pieces(void **state)
{
    static const size_t sizes[] = {sizeof(page), 1, 2, 3, 7, 0, 0, 0, 0, 0, 0, 0};

    srand(1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct gw_error err = {0};
        struct seen s = {0};

        gw_buf_init(&s.text, 65536);
        if (read_list(&s, gw_str_c(page), sizes[i], &err) != GW_OK) {
            fail_msg("%s", err.text);
        }
        assert_string_equal(s.text.p, page_seen);
        gw_buf_release(&s.text);
    }
}

static void lists(void **state)
{
#define ENTRY(members)                                                                             \
    "[{\"type\":\"file\",\"oid\":\"" OID "\",\"size\":1,\"path\":\"f\"" members "}]"
#define PATH(path) "[{\"type\":\"file\",\"oid\":\"" OID "\",\"size\":1,\"path\":\"" path "\"}]"
    static const struct {
        const char *json;
        int rc;
        size_t entries;
    } rows[] = {
        {"[]", GW_OK, 0},
        {" [ ] \n", GW_OK, 0},
        {ENTRY(""), GW_OK, 1},
        {ENTRY(",\"lfs\":null"), GW_OK, 1},
        {ENTRY(",\"xetHash\":null"), GW_OK, 1},
        {ENTRY(",\"xetHash\":{\"a\":[{}]},\"x\":1"), GW_OK, 1},
        {ENTRY(",\"lfs\":{\"oid\":\"" DIGEST "\"}"), GW_OK, 1},
        {ENTRY(",\"lfs\":{\"sha256\":\"" DIGEST "\"}"), GW_OK, 1},
        {ENTRY(",\"oid\":\"0123456789ABCDEF0123456789ABCDEF01234567\""), GW_OK, 1},
        {ENTRY(",\"oid\":\"0123456789ABCDEF0123456789ABCDEF0123456G\""), GW_INVALID, 0},
        {ENTRY(",\"lfs\":{}"), GW_INVALID, 0},
        {ENTRY(",\"lfs\":{\"oid\":\"" OID "\"}"), GW_INVALID, 0},
        {ENTRY(",\"lfs\":{\"oid\":7}"), GW_INVALID, 0},
        {ENTRY(",\"lfs\":{\"oid\":\"" DIGEST "\",\"size\":-1}"), GW_INVALID, 0},
        {ENTRY(",\"lfs\":{\"oid\":\"" DIGEST "\",\"pointerSize\":4294967296}"), GW_INVALID, 0},
        {ENTRY(",\"size\":1.5"), GW_INVALID, 0},
        {ENTRY(",\"size\":1e3"), GW_INVALID, 0},
        {ENTRY(",\"size\":\"1\""), GW_INVALID, 0},
        {ENTRY(",\"size\":18446744073709551616"), GW_INVALID, 0},
        {ENTRY(",\"size\":9223372036854775808"), GW_INVALID, 0},
        {ENTRY(",\"size\":9223372036854775807"), GW_OK, 1},
        {ENTRY(",\"oid\":\"XYZ\""), GW_INVALID, 0},
        {ENTRY(",\"oid\":null"), GW_INVALID, 0},
        {ENTRY(",\"path\":7"), GW_INVALID, 0},
        {ENTRY(",\"type\":7"), GW_OK, 0},
        {PATH("\\u200d and \\\\"), GW_OK, 1}, /* listed, though never served */
        {PATH(".."), GW_INVALID, 0},
        {PATH("a/../b"), GW_INVALID, 0},
        {PATH("/a"), GW_INVALID, 0},
        {PATH("a//b"), GW_INVALID, 0},
        {PATH("a/"), GW_INVALID, 0},
        {PATH(""), GW_INVALID, 0},
        {PATH("a\\u0000"), GW_INVALID, 0},
        {PATH("a\\nb"), GW_INVALID, 0},
        {"[{\"type\":\"file\",\"oid\":\"" OID "\",\"path\":\"f\"}]", GW_INVALID, 0},
        {"[{\"type\":\"directory\",\"oid\":\"" OID "\",\"path\":\"f\"}]", GW_OK, 1},
        {"[{\"type\":\"file\",\"size\":1,\"path\":\"f\"}]", GW_INVALID, 0},
        {"[{\"oid\":\"" OID "\",\"size\":1,\"path\":\"f\"}]", GW_INVALID, 0},
        {"[{}]", GW_INVALID, 0},
        {"[[]]", GW_INVALID, 0},
        {"[1]", GW_INVALID, 0},
        {"{\"error\":\"x\"}", GW_INVALID, 0},
        {"\"x\"", GW_INVALID, 0},
        {"", GW_INVALID, 0},
        {"[", GW_INVALID, 0},
        {"[] x", GW_INVALID, 0},
        {"<html>", GW_INVALID, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_error err = {0};
        struct seen s = {0};
        int rc;

        gw_buf_init(&s.text, 65536);
        rc = read_list(&s, gw_str_c(rows[i].json), 0, &err);
        if (rc != rows[i].rc || s.entries != rows[i].entries) {
            fail_msg("%s: got %s (%s), %zu entries", rows[i].json,
                     gw_status_name((enum gw_status)rc), err.text, s.entries);
        }
        if (rc != GW_OK) {
            assert_int_equal(err.status, rc);
            assert_true(err.text[0] != '\0');
        }
        gw_buf_release(&s.text);
    }
}

static void computed(void **state)
{
    struct seen s = {0};

    gw_buf_init(&s.text, 65536);
    assert_int_equal(
        read_list(&s, GW_STR(ENTRY(",\"lfs\":{\"oid\":\"" DIGEST "\",\"size\":5000000000}")), 0,
                  NULL),
        GW_OK);
    /* the size of the content wins over that of the pointer, whose size git-lfs fixes */
    assert_true(
        gw_str_starts(gw_buf_str(&s.text), GW_STR("lfs " OID " 5000000000 f " DIGEST " 135")));
    gw_buf_release(&s.text);
}

/* Of a name given twice the last value counts, as in the clients' parsers. */
static void given_twice(void **state)
{
    struct seen s = {0};

    gw_buf_init(&s.text, 65536);
    assert_int_equal(
        read_list(&s,
                  GW_STR(ENTRY(",\"lfs\":{\"oid\":\"" DIGEST "\"},\"lfs\":null,\"path\":\"g\"")), 0,
                  NULL),
        GW_OK);
    assert_true(gw_str_starts(gw_buf_str(&s.text), GW_STR("file " OID " 1 g\n")));
    gw_buf_release(&s.text);
}

static void stops(void **state)
{
    struct seen s = {.stop_at = 2};
    struct gw_error err = {0};

    gw_buf_init(&s.text, 65536);
    assert_int_equal(read_list(&s, gw_str_c(page), 0, &err), GW_CANCELLED);
    assert_int_equal(err.status, GW_CANCELLED);
    assert_int_equal(s.entries, 2);
    gw_buf_release(&s.text);
}

static void ceilings(void **state)
{
    static const struct {
        const char *before, *after;
        size_t n;
        int rc;
    } rows[] = {
        {",\"x\":\"", "\"", 60000, GW_OK},
        {",\"x\":\"", "\"", 66000, GW_TOO_LARGE},            /* one token */
        {",\"x\":\"a\",\"y\":[1", "]", 65536, GW_TOO_LARGE}, /* many tokens */
        {",\"xetHash\":[1", "]", 300000, GW_OK},             /* dropped, so it costs nothing */
        {",\"path\":\"", "\"", HUB_PATH_MAX, GW_OK},
        {",\"path\":\"", "\"", HUB_PATH_MAX + 1, GW_INVALID},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool list = strchr(rows[i].before, '[') != NULL;
        struct seen s = {0};
        struct gw_buf b;
        int rc;

        gw_buf_init(&s.text, 1 << 20);
        gw_buf_init(&b, 1 << 20);
        gw_buf_add_c(&b, "[{\"type\":\"file\",\"oid\":\"" OID "\",\"size\":1,\"path\":\"f\"");
        gw_buf_add_c(&b, rows[i].before);
        for (size_t k = 0; k < rows[i].n / (list ? 2 : 1); k++) {
            gw_buf_add_c(&b, list ? ",1" : "x");
        }
        gw_buf_add_c(&b, rows[i].after);
        gw_buf_add_c(&b, "}]");
        rc = read_list(&s, gw_buf_str(&b), 1024, NULL);
        if (rc != rows[i].rc) {
            fail_msg("row %zu: got %s", i, gw_status_name((enum gw_status)rc));
        }
        gw_buf_release(&b);
        gw_buf_release(&s.text);
    }
}

static int count_entry(void *ctx, const struct hub_entry *e, struct gw_str json)
{
    ++*(size_t *)ctx;
    return GW_OK;
}

/* The Hub has sent such a page: nothing may be allocated for an entry. */
static void fifty_thousand(void **state)
{
    size_t entries = 0, made;
    struct hub_list_reader *r = hub_list_reader_new(count_entry, &entries);
    char entry[512];

    assert_non_null(r);
    for (int i = 0; i < 50000; i++) {
        int n = snprintf(entry, sizeof(entry),
                         "%c{\"type\":\"file\",\"oid\":\"" OID
                         "\",\"size\":%d,\"path\":\"data/%05d.bin\","
                         "\"lfs\":{\"oid\":\"" DIGEST "\",\"size\":%d,\"pointerSize\":135},"
                         "\"xetHash\":\"" DIGEST "\"}",
                         i == 0 ? '[' : ',', i, i, i);

        if (i == 1) {
            gw_alloc_fail_at(0);
        }
        assert_int_equal(hub_list_reader_feed(r, (struct gw_str){entry, (size_t)n}, NULL), GW_OK);
    }
    made = gw_alloc_fail_at(0);
    assert_int_equal(hub_list_reader_feed(r, GW_STR("]"), NULL), GW_OK);
    assert_int_equal(hub_list_reader_finish(r, NULL), GW_OK);
    assert_int_equal(entries, 50000);
    assert_in_range(made, 0, 4);
    hub_list_reader_free(r);
    hub_list_reader_free(NULL);
}

static int read_once(void *ctx)
{
    size_t entries = 0;
    struct hub_list_reader *r = hub_list_reader_new(count_entry, &entries);
    int rc;

    if (r == NULL) {
        return GW_NO_MEMORY;
    }
    rc = hub_list_reader_feed(r, gw_str_c(page), NULL);
    if (rc == GW_OK) {
        rc = hub_list_reader_finish(r, NULL);
    }
    hub_list_reader_free(r);
    return rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(read_once, NULL, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces),         cmocka_unit_test(lists),       cmocka_unit_test(computed),
        cmocka_unit_test(stops),          cmocka_unit_test(given_twice), cmocka_unit_test(ceilings),
        cmocka_unit_test(fifty_thousand), cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
