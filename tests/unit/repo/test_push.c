/* SPDX-License-Identifier: Apache-2.0 */
/* What a push may bring: its refs as pkt-lines, bodies as they come, and the check of the hook. */
#include "tests/unit/repo/repo_test.h"

#include <zlib.h>

#define OID "0123456789012345678901234567890123456789"
#define ZERO "0000000000000000000000000000000000000000"

static int fresh(void **state)
{
    struct gw_error err;

    sh("rm -rf data work");
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS, &err), err);
    return 0;
}

static void put_line(struct gw_buf *b, struct gw_str line)
{
    gw_buf_addf(b, "%04zx", line.n + 4);
    gw_buf_add(b, line);
}

static void test_lines(void **state)
{
    static const struct {
        const char *text;
        int rc;
        size_t n;
    } rows[] = {
        {"0000", GW_OK, 0},
        {"0000rest", GW_OK, 0},
        {"", GW_INVALID, 0},
        {"000", GW_INVALID, 0},
        {"000x", GW_INVALID, 0},
        {"0001", GW_INVALID, 0},
        {"0004", GW_INVALID, 0},
        {"0005a", GW_INVALID, 0},
        {"ffff", GW_INVALID, 0},
        {"0035shallow " OID "\n0000", GW_OK, 0},
        {"0067" OID " " OID " refs/heads/main0000", GW_INVALID, 0},
        {"0068" OID " " OID " refs/heads/main\n0000", GW_INVALID, 0},
        {"0065" OID " " OID " refs/heads/main0000", GW_OK, 1},
        {"0066" OID " " OID " refs/heads/main\n0000", GW_OK, 1},
        {"0065" OID "-" OID " refs/heads/main0000", GW_INVALID, 0},
        {"0065" OID " 01234567890123456789012345678901234567zz refs/heads/main0000", GW_INVALID, 0},
        {"0055" OID " " OID "0000", GW_INVALID, 0},
        {"0056" OID " " OID " 0000", GW_INVALID, 0},
        {"0065" OID " " OID " refs/heads/main", GW_INVALID, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct repo_push_ref *refs;
        struct gw_error err;
        struct gw_arena a;
        size_t n = 0;
        int rc;

        gw_arena_init(&a, 4u << 20);
        rc = repo_push_parse(gw_str_c(rows[i].text), &a, &refs, &n, &err);
        if (rc != rows[i].rc || (rc == GW_OK && n != rows[i].n)) {
            fail_msg("%s: %s, %zu refs", rows[i].text, gw_status_name((enum gw_status)rc), n);
        }
        gw_arena_release(&a);
    }
}

static void test_refs(void **state)
{
    struct repo_push_ref *refs;
    struct gw_error err;
    struct gw_arena a;
    struct gw_buf b;
    size_t n;

    gw_arena_init(&a, 4u << 20);
    gw_buf_init(&b, 1u << 20);
    put_line(&b, GW_STR(ZERO " " OID " refs/heads/a\0 report-status side-band-64k"));
    put_line(&b, GW_STR(OID " " ZERO " refs/tags/b"));
    gw_buf_add_c(&b, "0000PACK");
    assert_ok(repo_push_parse(gw_buf_str(&b), &a, &refs, &n, &err), err);
    assert_int_equal(n, 2);
    assert_string_equal(refs[0].name.p, "refs/heads/a");
    assert_true(refs[0].makes && !refs[0].removes);
    assert_string_equal(refs[1].name.p, "refs/tags/b");
    assert_true(refs[1].removes && !refs[1].makes);
    gw_buf_reset(&b);
    for (size_t i = 0; i < 1001; i++) {
        put_line(&b, GW_STR(OID " " OID " refs/heads/main"));
    }
    assert_int_equal(repo_push_parse(gw_buf_str(&b), &a, &refs, &n, &err), GW_TOO_LARGE);
    gw_buf_release(&b);
    gw_arena_release(&a);
}

/* ---- bodies ---- */

static struct repo_serve *open_serve(bool gzip, uint64_t max)
{
    struct repo_serve_options o = {.data_dir = "data",
                                   .command = "/nonexistent/hubgate",
                                   .id = *LLM,
                                   .service = REPO_RECEIVE_PACK,
                                   .protocol = GW_STR(""),
                                   .gzip = gzip,
                                   .max_bytes = max};
    struct repo_serve *s = NULL;
    struct gw_error err;

    assert_ok(repo_serve_open(&s, &o, &err), err);
    return s;
}

static size_t pack_up(char *out, size_t cap, const char *p, size_t n)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)p,
                  .avail_in = (uInt)n,
                  .next_out = (Bytef *)out,
                  .avail_out = (uInt)cap};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static void test_gzip(void **state)
{
    static char zeros[1u << 20], packed[8192];
    static const char text[] = "0065" OID " " OID " refs/heads/main0000PACK";
    struct repo_push_ref *refs;
    struct repo_serve *s;
    struct gw_error err;
    struct gw_arena a;
    size_t n = pack_up(packed, sizeof(packed), text, sizeof(text) - 1), n_refs;

    gw_arena_init(&a, 4u << 20);
    s = open_serve(true, 4096); /* a byte at a time */
    for (size_t i = 0; i < n; i++) {
        assert_ok(repo_serve_write(s, (struct gw_str){packed + i, 1}, &err), err);
    }
    assert_ok(repo_serve_refs(s, &a, &refs, &n_refs, &err), err);
    assert_int_equal(n_refs, 1);
    assert_int_equal(repo_serve_write(s, GW_STR("more"), &err), GW_INVALID);
    repo_serve_close(s);

    s = open_serve(true, 4096); /* cut short */
    assert_ok(repo_serve_write(s, (struct gw_str){packed, n - 3}, &err), err);
    assert_int_equal(repo_serve_start(s, false, GW_STR(""), &err), GW_INVALID);
    repo_serve_close(s);

    s = open_serve(true, 4096);
    assert_int_equal(repo_serve_write(s, GW_STR("0000 is not gzip"), &err), GW_INVALID);
    repo_serve_close(s);

    n = pack_up(packed, sizeof(packed), zeros, sizeof(zeros)); /* a bomb: 1,000 times as large */
    s = open_serve(true, sizeof(zeros) - 1);
    assert_int_equal(repo_serve_write(s, (struct gw_str){packed, n}, &err), GW_TOO_LARGE);
    repo_serve_close(s);
    s = open_serve(true, sizeof(zeros));
    assert_ok(repo_serve_write(s, (struct gw_str){packed, n}, &err), err);
    repo_serve_close(s);
    s = open_serve(false, 3);
    assert_int_equal(repo_serve_write(s, GW_STR("0000"), &err), GW_TOO_LARGE);
    repo_serve_close(s);
    gw_arena_release(&a);
}

static void test_no_command(void **state)
{
    struct repo_serve *s = open_serve(false, 4096);
    struct gw_error err;

    assert_ok(repo_serve_write(s, GW_STR("0000"), &err), err);
    assert_int_equal(repo_serve_start(s, false, GW_STR(""), &err), GW_UNAVAILABLE);
    assert_int_equal(repo_serve_output(s) >= 0, true);
    repo_serve_close(s);
    assert_sh("0", "ls data/tmp | wc -l");
}

/* ---- the check ---- */

/* A commit of work/ as `ref`, by git's plumbing, in the repository itself: quarantine is git's. */
static void check(const char *ref, int expected, const char *says_part)
{
    struct repo_push_ref r = {.makes = true};
    struct gw_error err = {.text = ""};
    struct gw_buf says;
    int rc;

    memcpy(r.from, ZERO, 41);
    assert_int_equal(output(r.to, 41, "git --git-dir=" LLM_GIT " rev-parse pushed"), 0);
    r.name = gw_str_c(ref);
    sh("git --git-dir=" LLM_GIT " update-ref -d refs/tags/pushed");
    gw_buf_init(&says, 64u << 10);
    rc = repo_push_check(LLM_GIT, NULL, &r, 1, &says, &err);
    if (rc != expected || (says_part != NULL && strstr(says.p, says_part) == NULL)) {
        fail_msg("%s: %s, %s", gw_status_name((enum gw_status)rc), err.text,
                 says.p ? says.p : "(nothing)");
    }
    gw_buf_release(&says);
}

/* tree: input of mktree, of which each %s of a blob is written before */
static void push_tree(const char *make_tree)
{
    sh("export GIT_DIR=" LLM_GIT
       " GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a; "
       "blob() { printf \"$1\" | git hash-object -w --stdin; }; tree=$(%s) && "
       "git update-ref refs/tags/pushed $(git commit-tree -p main -m x $tree)",
       make_tree);
}

#define ONE(mode, name, blob)                                                                      \
    "printf '" mode " blob %s\\t" name "\\n' $(blob '" blob "') | git mktree --missing"

static void test_check(void **state)
{
    static const struct {
        const char *tree;
        int rc;
        const char *says;
    } rows[] = {
        {ONE("100644", "a.txt", "a"), GW_OK, NULL},
        {ONE("100755", "run.sh", "a"), GW_OK, NULL},
        {ONE("120000", "link", "a.txt"), GW_OK, NULL},
        {ONE("100644", "a b", "version https://git-lfs.github.com/spec/v1\\noid"), GW_FORBIDDEN,
         "a b is not a valid git-lfs pointer"},
        {ONE("100644", "x\\\\\\\\y", "a"), GW_FORBIDDEN, "backslash"},
        {"printf '160000 commit " OID "\\tsub\\n' | git mktree --missing", GW_FORBIDDEN,
         "submodules"},
        {"printf '100644 blob %s\\tbig\\n' $(head -c 10485761 /dev/zero | git hash-object -w "
         "--stdin) | git mktree",
         GW_FORBIDDEN, "big (refs/heads/main) has 10.0 MiB"},
        {"printf '100644 blob %s\\tbig\\n' $(head -c 10485760 /dev/zero | git hash-object -w "
         "--stdin) | git mktree",
         GW_OK, NULL},
        /* a tree that holds itself ten times on each of 30 levels: 10^30 paths */
        {"t=$(printf '100644 blob %s\\tf\\n' $(blob x) | git mktree); for i in $(seq 30); do "
         "t=$(for k in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\\t%s\\n' $t $k; done | git "
         "mktree); done; echo $t",
         GW_OK, NULL},
        {"t=$(printf '100644 blob %s\\tf\\n' $(blob x) | git mktree); for i in $(seq 200); do "
         "t=$(printf '040000 tree %s\\td\\n' $t | git mktree); done; echo $t",
         GW_FORBIDDEN, "too long"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        push_tree(rows[i].tree);
        check("refs/heads/main", rows[i].rc, rows[i].says);
    }
}

static void test_names(void **state)
{
    static const struct {
        const char *ref;
        int rc;
    } rows[] = {
        {"refs/heads/a/b", GW_OK},         {"refs/tags/v1", GW_OK},
        {"refs/heads/\xc3\xa9", GW_OK},    {"refs/pr/1", GW_FORBIDDEN},
        {"refs/headsx", GW_FORBIDDEN},     {"HEAD", GW_FORBIDDEN},
        {"refs/heads/", GW_FORBIDDEN},     {"refs/heads/-x", GW_FORBIDDEN},
        {"refs/heads/a..b", GW_FORBIDDEN}, {"refs/heads/refs/x", GW_FORBIDDEN},
        {"refs/heads/HEAD", GW_FORBIDDEN}, {"refs/heads/" OID, GW_FORBIDDEN},
        {"refs/heads/\xff", GW_FORBIDDEN},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        push_tree(ONE("100644", "a.txt", "a"));
        check(rows[i].ref, rows[i].rc, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_refs),
        cmocka_unit_test_setup(test_gzip, fresh),
        cmocka_unit_test_setup(test_no_command, fresh),
        cmocka_unit_test_setup(test_check, fresh),
        cmocka_unit_test_setup(test_names, fresh),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
