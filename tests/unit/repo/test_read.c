/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "tests/unit/repo/repo_test.h"

#define GIT "git --git-dir=" LLM_GIT " "

static char first[41], tip[41]; /* two commits on main */

static int setup(void **state)
{
    struct gw_error err;

    if (enter(state) != 0) {
        return -1;
    }
    sh("mkdir -p src/sub/deep src/a && echo '{}' > src/config.json && printf big > src/sub/w.bin "
       "&& "
       "ln -s ../config.json src/sub/link && : > src/sub/empty && echo x > src/sub/deep/x && "
       "printf '#!/bin/sh\\n' > src/run.sh && chmod 755 src/run.sh && echo 1 > src/a/1 && "
       "echo 2 > src/a-b && echo 3 > src/a0 && echo 4 > 'src/sub/\xc3\xa9 .txt'");
    assert_ok(import("src", first, &err), err);
    sh("echo '{\"v\":2}' > src/config.json");
    assert_ok(repo_import("data", LLM, "src", GW_STR("Second\n\nwith a body\nof two lines\n"),
                          GW_STR("Bob <b@x>"), NOW_MS + 5000, NULL, tip, &err),
              err);
    return 0;
}

static struct repo *opened(void)
{
    struct repo *r = NULL;
    struct gw_error err;

    assert_ok(repo_open(&r, "data", LLM, &err), err);
    return r;
}

static void test_resolve(void **state)
{
    char tag_commit[41], upper[41], short7[8], short6[7], tree[41], blob[41];
    struct repo *r;
    struct gw_error err;
    char commit[41];

    sh(GIT "update-ref refs/pr/1 %s && " GIT "update-ref refs/convert/parquet %s && " GIT
           "tag light %s && " GIT "tag -a -m heavy heavy %s && " GIT "branch feature/x %s && " GIT
           "tag main %s && " GIT "tag onblob main:run.sh && " GIT
           "tag -a -m t ontree 'main^{tree}' && " GIT "branch %.8s %s",
       first, first, first, first, first, first, tip, first);
    r = opened();
    memcpy(short7, first, 7);
    short7[7] = '\0';
    memcpy(short6, first, 6);
    short6[6] = '\0';
    for (size_t i = 0; i < 41; i++) {
        upper[i] = (char)(first[i] >= 'a' && first[i] <= 'f' ? first[i] - 32 : first[i]);
    }
    assert_int_equal(output(tag_commit, 41, GIT "rev-parse heavy"), 0);
    assert_int_equal(output(tree, 41, GIT "rev-parse 'main^{tree}'"), 0);
    assert_int_equal(output(blob, 41, GIT "rev-parse refs/heads/main:run.sh"), 0);
    {
        const struct {
            const char *revision, *commit; /* NULL: not found */
        } rows[] = {
            {"", tip},
            {"main", tip}, /* the branch, not the tag of this name */
            {"refs/heads/main", tip},
            {"refs/tags/main", first},
            {"HEAD", tip},
            {"light", first},
            {"heavy", first},
            {"refs/tags/heavy", first},
            {"feature/x", first},
            {"refs/pr/1", first},
            {"refs/convert/parquet", first},
            {first, first},
            {tip, tip},
            {upper, first},
            {short7, first},
            {short6, NULL},
            {"pr/1", NULL},
            {"refs/pr/2", NULL},
            {"nowhere", NULL},
            {"Main", NULL},
            {"0123456789012345678901234567890123456789", NULL},
            {"0000000000000000000000000000000000000000", NULL},
            {"abcdef0", NULL},
            {tag_commit, NULL}, /* the id of a tag object is no commit */
            {tree, NULL},
            {blob, NULL},
            {"onblob", NULL},
            {"ontree", NULL},
            {"main~1", NULL},
            {"main^", NULL},
            {"main^{tree}", NULL},
            {"main:run.sh", NULL},
            {"@", NULL},
            {"@{-1}", NULL},
            {":/Second", NULL},
            {"HEAD~", NULL},
            {"../config", NULL},
            {"refs/../config", NULL},
            {"refs/heads/../../config", NULL},
            {"heads/main", NULL},
            {"/main", NULL},
            {"main/", NULL},
            {"main.lock", NULL},
            {"ma in", NULL},
            {"a\nb", NULL},
            {"\xff", NULL},
            {"packed-refs", NULL},
            {"config", NULL},
        };

        for (size_t i = 0; i < COUNT(rows); i++) {
            int rc = repo_resolve(r, gw_str_c(rows[i].revision), commit, &err);

            if (rc != (rows[i].commit != NULL ? GW_OK : GW_NOT_FOUND) ||
                (rc == GW_OK && strcmp(commit, rows[i].commit) != 0)) {
                fail_msg("row %zu, %s: %s", i, rows[i].revision,
                         rc == GW_OK ? commit : gw_status_name((enum gw_status)rc));
            }
        }
    }
    /* eight digits that are a branch too: the branch; a NUL is part of the name */
    commit[0] = '\0';
    assert_ok(repo_resolve(r, (struct gw_str){tip, 8}, commit, &err), err);
    assert_string_equal(commit, first);
    assert_int_equal(repo_resolve(r, (struct gw_str){"main\0x", 6}, commit, &err), GW_NOT_FOUND);
    {
        char name[5000];

        memset(name, 'a', sizeof(name));
        assert_int_equal(repo_resolve(r, (struct gw_str){name, sizeof(name)}, commit, &err),
                         GW_NOT_FOUND);
    }
    repo_close(r);
    sh(GIT "pack-refs --all");
    r = opened();
    assert_ok(repo_resolve(r, GW_STR("refs/pr/1"), commit, &err), err);
    assert_string_equal(commit, first);
    repo_close(r);
    sh(GIT "branch -D %.8s && " GIT "tag -d main && " GIT "tag -d onblob && " GIT "tag -d ontree",
       tip);
}

struct lines {
    struct gw_buf b;
    size_t n, stop_at;
};

static int on_entry(void *ctx, const struct repo_entry *e)
{
    struct lines *l = ctx;

    gw_buf_addf(&l->b, "%s%s%s%s %s %s %llu %u %s\n", e->directory ? "d" : "f", e->lfs ? "L" : "",
                e->symlink ? "S" : "", e->executable ? "X" : "", e->oid, e->lfs ? e->sha256 : "-",
                (unsigned long long)e->size, e->pointer_size, e->path.p);
    assert_int_equal(strlen(e->path.p), e->path.n);
    return ++l->n == l->stop_at ? GW_CANCELLED : GW_OK;
}

static int list(struct repo *r, const char *commit, const char *path, bool recursive,
                struct lines *l, struct gw_error *err)
{
    gw_buf_init(&l->b, 1u << 20);
    l->n = 0;
    return repo_tree(r, commit, gw_str_c(path), recursive, on_entry, l, err);
}

static void test_tree(void **state)
{
    struct lines l = {0};
    struct repo *r = opened();
    struct gw_error err;
    char names[4096];

    /* order, ids and sizes are git's: compared line by line */
    assert_ok(list(r, tip, "", true, &l, &err), err);
    put("ours", l.b.p, l.b.n);
    assert_sh("",
              GIT "-c core.quotePath=false ls-tree -r -t --format='%%(objecttype) %%(objectname) "
                  "%%(path)' main | sed 's/^tree/d/;s/^blob/f/' > theirs; "
                  "sed -E 's/^(.)[LSX]* ([0-9a-f]+) [^ ]+ [0-9]+ [0-9]+ /\\1 \\2 /' ours | "
                  "cmp - theirs");
    gw_buf_release(&l.b);

    assert_ok(list(r, tip, "", false, &l, &err), err);
    assert_int_equal(output(names, sizeof(names), GIT "ls-tree --name-only main | wc -l"), 0);
    assert_int_equal(l.n, atoi(names));
    gw_buf_release(&l.b);

    assert_ok(list(r, tip, "sub", false, &l, &err), err);
    assert_int_equal(l.n, 5);
    assert_non_null(strstr(l.b.p, " 0 0 sub/deep\n"));
    assert_non_null(strstr(l.b.p, "f e69de29bb2d1d6434b8b29ae775ad8c2e48c5391 - 0 0 sub/empty\n"));
    assert_non_null(strstr(l.b.p, "fS "));
    assert_non_null(strstr(l.b.p, " - 14 0 sub/link\n"));
    assert_non_null(strstr(l.b.p, "fL "));
    assert_non_null(strstr(l.b.p, " 3 126 sub/w.bin\n"));
    gw_buf_release(&l.b);

    assert_ok(list(r, tip, "sub/deep", true, &l, &err), err);
    assert_int_equal(l.n, 1);
    gw_buf_release(&l.b);
    repo_close(r);
}

static void test_tree_refusals(void **state)
{
    static const struct {
        const char *commit, *path;
        int sys;
    } rows[] = {
        {NULL, "nowhere", 2},
        {NULL, "config.json", 2},
        {NULL, "config.json/x", 2},
        {NULL, "sub/", 2},
        {NULL, "/sub", 2},
        {NULL, "sub//deep", 2},
        {NULL, "sub/../sub", 2},
        {NULL, ".", 2},
        {NULL, "sub/link", 2},
        {NULL, "SUB", 2},
        {"0123456789012345678901234567890123456789", "", 1},
        {"main", "", 1},
        {"", "", 1},
        {"0000000000000000000000000000000000000000", "", 1},
        {"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "", 1},
    };
    struct lines l = {0};
    struct repo *r = opened();
    struct gw_error err;
    char path[6000];

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *commit = rows[i].commit != NULL ? rows[i].commit : tip;

        if (list(r, commit, rows[i].path, false, &l, &err) != GW_NOT_FOUND ||
            err.sys != rows[i].sys) {
            fail_msg("row %zu: %s", i, err.text);
        }
        assert_int_equal(l.n, 0);
        gw_buf_release(&l.b);
    }
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(list(r, tip, path, false, &l, &err), GW_NOT_FOUND);
    gw_buf_release(&l.b);
    assert_int_equal(repo_tree(r, tip, (struct gw_str){"sub\0x", 5}, false, on_entry, &l, &err),
                     GW_NOT_FOUND);
    l.stop_at = 2;
    assert_int_equal(list(r, tip, "", true, &l, &err), GW_CANCELLED); /* what the callback says */
    assert_int_equal(l.n, 2);
    gw_buf_release(&l.b);
    repo_close(r);
}

static void test_entry(void **state)
{
    struct repo *r = opened();
    struct repo_entry e;
    struct gw_error err;
    struct gw_str path = GW_STR("sub/w.bin");

    assert_ok(repo_entry(r, tip, path, &e, &err), err);
    assert_ptr_equal(e.path.p, path.p);
    assert_true(e.lfs && !e.directory && !e.symlink && !e.executable);
    assert_int_equal(e.size, 3);
    assert_int_equal(e.pointer_size, 126);
    assert_sh(e.sha256, "printf big | sha256sum | cut -c1-64");
    assert_sh(e.oid, GIT "rev-parse main:sub/w.bin");

    assert_ok(repo_entry(r, tip, GW_STR("run.sh"), &e, &err), err);
    assert_true(e.executable && !e.lfs && e.size == 10 && e.sha256[0] == '\0');
    assert_ok(repo_entry(r, tip, GW_STR("sub/link"), &e, &err), err);
    assert_true(e.symlink && e.size == 14);
    assert_ok(repo_entry(r, tip, GW_STR("sub/deep"), &e, &err), err);
    assert_true(e.directory && e.size == 0);
    assert_ok(repo_entry(r, tip, GW_STR(""), &e, &err), err);
    assert_true(e.directory);
    assert_sh(e.oid, GIT "rev-parse 'main^{tree}'");
    assert_ok(repo_entry(r, first, GW_STR("config.json"), &e, &err), err);
    assert_int_equal(e.size, 3);
    assert_int_equal(repo_entry(r, tip, GW_STR("sub/none"), &e, &err), GW_NOT_FOUND);
    assert_int_equal(err.sys, 2);
    assert_int_equal(
        repo_entry(r, "0123456789012345678901234567890123456789", GW_STR("x"), &e, &err),
        GW_NOT_FOUND);
    assert_int_equal(err.sys, 1);
    repo_close(r);
}

static void test_blob(void **state)
{
    struct repo *r = opened();
    struct repo_entry e;
    struct gw_error err;
    struct gw_arena a;
    struct gw_str text;
    char shorter[41] = "short";

    gw_arena_init(&a, 1u << 20);
    assert_ok(repo_entry(r, tip, GW_STR("config.json"), &e, &err), err);
    assert_ok(repo_blob(r, e.oid, 8, &a, &text, &err), err);
    assert_true(gw_str_eq_c(text, "{\"v\":2}\n"));
    assert_int_equal(repo_blob(r, e.oid, 7, &a, &text, &err), GW_TOO_LARGE);
    assert_ok(repo_blob(r, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", 0, &a, &text, &err), err);
    assert_true(text.n == 0 && text.p != NULL);
    assert_int_equal(repo_blob(r, "0123456789012345678901234567890123456789", 9, &a, &text, &err),
                     GW_NOT_FOUND);
    assert_int_equal(repo_blob(r, tip, 999, &a, &text, &err), GW_NOT_FOUND); /* no blob */
    assert_int_equal(repo_blob(r, shorter, 999, &a, &text, &err), GW_NOT_FOUND);
    gw_arena_release(&a);
    repo_close(r);
}

static void test_refs(void **state)
{
    struct repo *r;
    struct gw_error err;
    struct gw_arena a;
    struct repo_ref *refs;
    struct gw_buf b;
    size_t n;

    sh(GIT "update-ref refs/pr/1 %s && " GIT "update-ref refs/pr/10 %s && " GIT
           "update-ref refs/pr/x %s && " GIT "update-ref refs/notes/x %s && " GIT
           "tag -f onblob main:run.sh",
       first, tip, tip, tip);
    r = opened();
    gw_arena_init(&a, 1u << 20);
    gw_buf_init(&b, 4096);
    assert_ok(repo_refs(r, &a, &refs, &n, &err), err);
    for (size_t i = 0; i < n; i++) {
        gw_buf_addf(&b, GW_STR_FMT "=" GW_STR_FMT "@%s ", GW_STR_ARG(refs[i].name),
                    GW_STR_ARG(refs[i].ref),
                    strcmp(refs[i].commit, tip) == 0     ? "tip"
                    : strcmp(refs[i].commit, first) == 0 ? "1"
                                                         : "?");
    }
    assert_string_equal(b.p, "feature/x=refs/heads/feature/x@1 main=refs/heads/main@tip "
                             "1=refs/pr/1@1 10=refs/pr/10@tip "
                             "heavy=refs/tags/heavy@1 light=refs/tags/light@1 ");
    gw_buf_release(&b);
    gw_arena_release(&a);
    repo_close(r);
    sh(GIT "tag -d onblob");
}

static void test_log(void **state)
{
    struct repo *r = opened();
    struct gw_error err;
    struct gw_arena a;
    struct repo_commit *list;
    size_t n, total;

    gw_arena_init(&a, 1u << 20);
    assert_ok(repo_log(r, tip, 0, SIZE_MAX, &a, &list, &n, &total, &err), err);
    assert_int_equal(n, 2);
    assert_int_equal(total, 2);
    assert_string_equal(list[0].id, tip);
    assert_string_equal(list[1].id, first);
    assert_true(gw_str_eq_c(list[0].title, "Second"));
    assert_true(gw_str_eq_c(list[0].message, "with a body\nof two lines"));
    assert_true(gw_str_eq_c(list[0].author, "Bob"));
    assert_int_equal(list[0].date_ms, NOW_MS + 5000);
    assert_true(gw_str_eq_c(list[1].title, "Import"));
    assert_int_equal(list[1].message.n, 0);
    assert_ok(repo_log(r, tip, 1, 1, &a, &list, &n, &total, &err), err);
    assert_true(n == 1 && total == 2 && strcmp(list[0].id, first) == 0);
    assert_ok(repo_log(r, tip, 2, 5, &a, &list, &n, &total, &err), err);
    assert_true(n == 0 && total == 2);
    assert_ok(repo_log(r, tip, 0, 0, &a, &list, &n, &total, &err), err);
    assert_true(n == 0 && total == 2);
    assert_ok(repo_log(r, first, 0, 5, &a, &list, &n, &total, &err), err);
    assert_true(n == 1 && total == 1);
    assert_int_equal(
        repo_log(r, "0123456789012345678901234567890123456789", 0, 5, &a, &list, &n, &total, &err),
        GW_NOT_FOUND);
    gw_arena_release(&a);
    repo_close(r);
}

/* What only a push can bring: submodules, and trees whose names leave the folder. */
static void test_foreign_trees(void **state)
{
    struct lines l = {0};
    struct repo *r;
    struct gw_error err;
    struct repo_entry e;
    char sub[41], evil[41];

    assert_int_equal(output(sub, 41,
                            "t=$(printf '160000 commit %s\\tmod\\n100644 blob "
                            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\\tz\\n' | " GIT "mktree "
                            "--missing); " GIT "commit-tree -m s $t",
                            tip),
                     0);
    assert_int_equal(output(evil, 41,
                            "t=$(printf '100644 ..\\0\\346\\235\\342\\233\\262\\321\\326\\103\\113"
                            "\\213\\051\\256\\167\\132\\330\\302\\344\\214\\123\\221' | " GIT
                            "hash-object -t tree -w --literally --stdin); " GIT
                            "commit-tree -m e $t"),
                     0);
    r = opened();
    assert_ok(list(r, sub, "", true, &l, &err), err);
    assert_int_equal(l.n, 1);
    gw_buf_release(&l.b);
    assert_int_equal(repo_entry(r, sub, GW_STR("mod"), &e, &err), GW_NOT_FOUND);
    assert_int_equal(list(r, evil, "", true, &l, &err), GW_CORRUPT);
    assert_non_null(strstr(err.text, "model acme/llm"));
    assert_int_equal(l.n, 0);
    gw_buf_release(&l.b);
    repo_close(r);
}

/* ---- damage ---- */

/* Everything there is to ask; only statuses, never a crash. Returns the first that is not GW_OK. */
static int ask_all(const struct repo_id *id, struct gw_error *err)
{
    struct lines l = {0};
    struct repo *r = NULL;
    struct gw_arena a;
    struct repo_ref *refs;
    struct repo_commit *log;
    struct repo_entry e;
    struct gw_str text;
    size_t n, total;
    char commit[41];
    int rc;

    gw_arena_init(&a, 16u << 20);
    rc = repo_open(&r, "data", id, err);
    if (rc == GW_OK) {
        rc = repo_resolve(r, GW_STR("main"), commit, err);
    }
    if (rc == GW_OK) {
        rc = list(r, commit, "", true, &l, err);
        gw_buf_release(&l.b);
    }
    if (rc == GW_OK) {
        rc = repo_entry(r, commit, GW_STR("sub/deep/x"), &e, err);
    }
    if (rc == GW_OK) {
        rc = repo_blob(r, e.oid, 1000, &a, &text, err);
    }
    if (rc == GW_OK) {
        rc = repo_log(r, commit, 0, 100, &a, &log, &n, &total, err);
    }
    if (rc == GW_OK) {
        rc = repo_refs(r, &a, &refs, &n, err);
    }
    repo_close(r);
    gw_arena_release(&a);
    return rc;
}

#define SICK ID("model", "acme", "sick")
#define SICK_GIT "data/repos/model/acme/sick.git"

static void test_damage(void **state)
{
    static const struct {
        const char *how;
        int rc;
    } rows[] = {
        {"true", GW_OK},
        {"rm -rf SICK && mkdir SICK", GW_CORRUPT},
        {"rm SICK/HEAD", GW_CORRUPT},
        {"rm -rf SICK/objects", GW_CORRUPT},
        {"rm -rf SICK/refs", GW_CORRUPT},
        {"rm SICK/objects/pack/*.idx", GW_CORRUPT},
        {"rm SICK/objects/pack/*.pack", GW_CORRUPT},
        {": > SICK/objects/pack/$(cd SICK/objects/pack; ls | grep pack$)", GW_CORRUPT},
        {"for f in SICK/objects/pack/*.idx; do chmod u+w $f; truncate -s 500 $f; done", GW_CORRUPT},
        {"for f in SICK/objects/pack/*.idx; do chmod u+w $f; head -c 2000 /dev/zero > $f; done",
         GW_CORRUPT},
        {"for f in SICK/objects/pack/*.pack; do chmod u+w $f; truncate -s 200 $f; done",
         GW_CORRUPT},
        {"for f in SICK/objects/pack/*.pack; do chmod u+w $f; n=$(stat -c %s $f); head -c $n "
         "/dev/urandom > $f; done",
         GW_CORRUPT},
        {"echo garbage > SICK/refs/heads/main", GW_CORRUPT},
        {": > SICK/refs/heads/main", GW_CORRUPT},
        {"echo 0123456789012345678901234567890123456789 > SICK/refs/heads/main", GW_CORRUPT},
        {"echo ref: refs/heads/main > SICK/refs/heads/main", GW_CORRUPT},
        {"rm SICK/refs/heads/main && mkdir -p SICK/refs/heads/main/x", GW_NOT_FOUND},
        {"rm SICK/refs/heads/main", GW_NOT_FOUND},
        {"printf '[core' > SICK/config", GW_CORRUPT},
        {"echo 0123456789012345678901234567890123456789 > SICK/refs/tags/t", GW_CORRUPT},
        {"printf 'x y z\\n' > SICK/packed-refs", GW_CORRUPT},
        {"rm SICK/refs/heads/main; printf '0123456789012345678901234567890123456789 "
         "refs/heads/main\\n' > "
         "SICK/packed-refs",
         GW_CORRUPT},
        {"touch SICK/garbage SICK/refs/garbage SICK/objects/garbage SICK/objects/pack/garbage.idx",
         GW_OK},
        {"head -c 3000 /dev/urandom > SICK/objects/pack/pack-0000.idx", GW_OK},
    };
    struct gw_error err;
    char commit[41];

    assert_ok(repo_import("data", SICK, "src", GW_STR("s"), AUTHOR, NOW_MS, NULL, commit, &err),
              err);
    sh("cp -a " SICK_GIT " healthy");
    for (size_t i = 0; i < COUNT(rows); i++) {
        int rc;

        sh("rm -rf " SICK_GIT " && cp -a healthy " SICK_GIT);
        put_text("how.sh", rows[i].how);
        sh("sed -i 's|SICK|" SICK_GIT "|g' how.sh && sh how.sh");
        rc = ask_all(SICK, &err);
        if (rc != rows[i].rc ||
            (rc == GW_CORRUPT && strstr(err.text, "model acme/sick") != err.text)) {
            fail_msg("row %zu, %s: %s: %s", i, rows[i].how, gw_status_name((enum gw_status)rc),
                     err.text);
        }
    }
}

/* Loose objects, as a person's own git writes them, through our own inflater: git judges the bytes
 * by their hash, and these are of every kind that zlib makes. */
static void test_loose_objects(void **state)
{
    struct gw_arena a;
    struct repo *r;
    size_t n = 0;

    sh("rm -rf loose && mkdir loose");
    for (size_t size = 0; size < 300000; size = size * 5 / 2 + 1) {
        char path[64];

        snprintf(path, sizeof(path), "loose/n%zu", size);
        put_noise(path, size, size);
        sh("yes 'a line of text %zu' | head -c %zu > loose/t%zu", size, size, size);
        sh("seq %zu | head -c %zu > loose/s%zu", size, size, size);
    }
    /* the level is part of the content: git does not write again what it has */
    sh("cd loose && for level in 0 1 6 9; do for f in *; do (cat $f; echo $level) | git "
       "--git-dir=../" SICK_GIT
       " -c core.looseCompression=$level hash-object -w --stdin; done; done "
       "> ../ids");
    r = NULL;
    assert_int_equal(repo_open(&r, "data", SICK, NULL), GW_OK);
    gw_arena_init(&a, 256u << 20);
    {
        FILE *f = fopen("ids", "r");
        char line[64];

        while (fgets(line, sizeof(line), f) != NULL) {
            struct gw_error err;
            struct gw_str text;

            line[40] = '\0';
            assert_ok(repo_blob(r, line, 1u << 20, &a, &text, &err), err);
            n++;
        }
        fclose(f);
    }
    assert_true(n > 100);
    gw_arena_release(&a);
    repo_close(r);
}

/* Each single object gone, loose objects: never a crash, never another status, and most are
 * noticed. */
static void test_missing_objects(void **state)
{
    struct gw_error err;
    size_t noticed = 0, n = 0;
    char out[8192];
    struct gw_str rest, path;

    sh("rm -rf " SICK_GIT " && cp -a healthy " SICK_GIT " && mkdir -p p && mv " SICK_GIT
       "/objects/pack/* p/ && git --git-dir=" SICK_GIT
       " unpack-objects -q < $(ls p/*.pack) && rm -rf p && "
       "rm -rf healthy && cp -a " SICK_GIT " healthy");
    assert_int_equal(ask_all(SICK, &err), GW_OK);
    assert_int_equal(output(out, sizeof(out), "cd healthy && find objects -type f"), 0);
    for (rest = gw_str_c(out); gw_str_split(&rest, '\n', &path); n++) {
        static const char *const damage[] = {
            "rm $f",
            "chmod u+w $f; : > $f",
            "chmod u+w $f; truncate -s 20 $f",
            "chmod u+w $f; printf X | dd of=$f bs=1 conv=notrunc 2>/dev/null",
        };

        for (size_t k = 0; k < COUNT(damage); k++) {
            int rc;

            sh("rm -rf " SICK_GIT " && cp -a healthy " SICK_GIT);
            sh("f=" SICK_GIT "/" GW_STR_FMT "; %s", GW_STR_ARG(path), damage[k]);
            rc = ask_all(SICK, &err);
            noticed += rc == GW_CORRUPT;
            if (rc != GW_CORRUPT && rc != GW_OK) {
                fail_msg(GW_STR_FMT ": %s: %s: %s", GW_STR_ARG(path), damage[k],
                         gw_status_name((enum gw_status)rc), err.text);
            }
        }
    }
    assert_true(n > 10 && noticed > n * 3);
}

static void test_bit_flips_in_a_pack(void **state)
{
    char name[256], path[512];
    unsigned char *p;
    struct gw_error err;
    struct stat st;
    size_t noticed = 0;
    FILE *f;

    sh("rm -rf " SICK_GIT " && git clone -q --bare healthy " SICK_GIT " && git --git-dir=" SICK_GIT
       " repack -q -adf && cd " SICK_GIT " && ls -l objects && chmod u+w objects/pack/*");
    for (int idx = 0; idx < 2; idx++) {
        assert_int_equal(
            output(name, sizeof(name), "ls " SICK_GIT "/objects/pack/*.%s", idx ? "idx" : "pack"),
            0);
        snprintf(path, sizeof(path), "%s", name);
        assert_int_equal(stat(path, &st), 0);
        p = malloc((size_t)st.st_size);
        f = fopen(path, "rb");
        assert_int_equal(fread(p, 1, (size_t)st.st_size, f), st.st_size);
        fclose(f);
        for (off_t at = 0; at < st.st_size; at += 3) {
            int rc;

            p[at] ^= 0x10;
            put(path, p, (size_t)st.st_size);
            rc = ask_all(SICK, &err);
            noticed += rc != GW_OK;
            if (rc != GW_OK && rc != GW_CORRUPT) {
                fail_msg("byte %ld of %s: %s: %s", (long)at, path,
                         gw_status_name((enum gw_status)rc), err.text);
            }
            p[at] ^= 0x10;
        }
        put(path, p, (size_t)st.st_size);
        free(p);
    }
    assert_int_equal(ask_all(SICK, &err), GW_OK);
    assert_true(noticed > 100);
}

static void test_no_memory(void **state)
{
    struct gw_error err;

    for (size_t at = 1; at < 1000; at++) {
        int rc;

        gw_alloc_fail_at(at);
        rc = ask_all(LLM, &err);
        gw_alloc_fail_at(0);
        if (rc == GW_OK) {
            assert_true(at > 5);
            break;
        }
        if (rc != GW_NO_MEMORY && rc != GW_TOO_LARGE) {
            fail_msg("allocation %zu: %s", at, gw_status_name((enum gw_status)rc));
        }
    }
    assert_int_equal(ask_all(LLM, &err), GW_OK);
}

/* Nothing outside data/ has a say. */
static void test_foreign_configuration_is_not_read(void **state)
{
    struct gw_error err;

    put_text(".gitconfig", "[core\n garbage");
    sh("mkdir -p .config/git && cp .gitconfig .config/git/config");
    assert_int_equal(ask_all(LLM, &err), GW_OK);
    sh("rm -rf .gitconfig .config");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_tree_refusals),
        cmocka_unit_test(test_entry),
        cmocka_unit_test(test_blob),
        cmocka_unit_test(test_refs),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_foreign_trees),
        cmocka_unit_test(test_foreign_configuration_is_not_read),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_loose_objects),
        cmocka_unit_test(test_missing_objects),
        cmocka_unit_test(test_bit_flips_in_a_pack),
    };

    return cmocka_run_group_tests(tests, setup, leave);
}
