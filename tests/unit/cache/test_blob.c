/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_blob.c - whole blobs: only right bytes get in, and only right ones come
 * out. */
#include "tests/unit/cache/cache_fixture.h"
#include "tests/unit/cache/http_fixture.h"
#include "tests/unit/failing.h"

#include <sys/mount.h>

#include "base/encode.h"
#include "base/sha.h"

#define HELLO "hello world\n"
#define HELLO_SHA256 "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447"
#define HELLO_GIT "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"
#define EMPTY_GIT "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define OK(n) "HTTP/1.1 200 OK\r\nContent-Length: " n "\r\n\r\n"

struct world {
    struct fixture f;
    struct server hub, cdn;
    char url[64], cdn_host[64];
    struct gw_str host;
};

static void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    fixture_init(&w->f);
    server_start(&w->hub);
    server_start(&w->cdn);
    snprintf(w->url, sizeof(w->url), "http://127.0.0.1:%u", w->hub.port);
    snprintf(w->cdn_host, sizeof(w->cdn_host), "127.0.0.1:%u", w->cdn.port);
    w->host = gw_str_c(w->cdn_host);
    w->f.options.upstream.url = gw_str_c(w->url);
    w->f.options.upstream.redirect_hosts = &w->host;
    w->f.options.upstream.n_redirect_hosts = 1;
    fixture_open(&w->f);
}

static void world_release(struct world *w)
{
    fixture_release(&w->f);
    server_stop(&w->hub);
    server_stop(&w->cdn);
}

static int fetch(struct world *w, const char *digest, uint64_t size)
{
    return cache_blob_fetch(w->f.cache, gw_str_c(digest), size, GW_STR("/f"), gw_mono_ms() + 3000,
                            &w->f.err);
}

static bool is_held(struct fixture *f, const char *digest, const char *bytes)
{
    char text[256] = "";
    int64_t modified_s;
    uint64_t size;
    int fd;

    int rc = cache_blob_open(f->cache, gw_str_c(digest), &fd, &size, &modified_s, &f->err);

    if (rc == GW_AGAIN && cache_blob_prove(f->cache, gw_str_c(digest), &f->err) == GW_OK) {
        rc = cache_blob_open(f->cache, gw_str_c(digest), &fd, &size, &modified_s, &f->err);
    }
    if (rc != GW_OK) {
        return false;
    }
    assert_int_equal(size, strlen(bytes));
    assert_int_equal(read(fd, text, sizeof(text)), strlen(bytes));
    assert_string_equal(text, bytes);
    assert_true(modified_s > 1700000000);
    close(fd);
    return true;
}

static size_t files_in(struct fixture *f, const char *folder)
{
    struct gw_str *names;
    struct gw_arena a;
    char path[128];
    size_t n;

    snprintf(path, sizeof(path), "%s/%s", f->dir, folder);
    gw_arena_init(&a, 1u << 20);
    assert_int_equal(gw_dir_list(path, 1000, &a, &names, &n, NULL), GW_OK);
    gw_arena_release(&a);
    return n;
}

static void bytes_are_taken_in_once_they_match(void **state)
{
    static const struct {
        const char *digest, *bytes;
        int rc;
    } rows[] = {
        {HELLO_SHA256, HELLO, GW_OK},
        {HELLO_GIT, HELLO, GW_OK},
        {HELLO_GIT, HELLO, GW_OK}, /* held already */
        {EMPTY_GIT, "", GW_OK},
        {EMPTY_SHA256, "", GW_OK},
        {HELLO_SHA256, "hello worle\n", GW_CORRUPT},
        {EMPTY_GIT, HELLO, GW_CORRUPT},
        {"A948904F2F0F479B8F8197694B30184B0D2ED1C1CD2A1EC0FB85D299A192A447", HELLO, GW_INVALID},
        {"3b18", HELLO, GW_INVALID},
        {"../../../../../../../../../../../etc/pwd", HELLO, GW_INVALID},
    };
    struct fixture f;
    struct stat st;
    char path[CACHE_PATH_MAX];

    fixture_init(&f);
    fixture_open(&f);
    assert_false(is_held(&f, HELLO_SHA256, HELLO));
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(
            cache_blob_put(f.cache, gw_str_c(rows[i].digest), gw_str_c(rows[i].bytes), &f.err),
            rows[i].rc);
        assert_true(rows[i].rc != GW_OK || is_held(&f, rows[i].digest, rows[i].bytes));
    }
    assert_int_equal(files_in(&f, "tmp"), 0);
    assert_true(cache_blob_path(f.cache, GW_STR(HELLO_GIT), path, sizeof(path)));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_nlink, 1);
    assert_non_null(strstr(path, "/blobs/3b/18/" HELLO_GIT));
    assert_false(is_held(&f, "../../../VERSION", ""));
    fixture_close(&f);
    fixture_open(&f); /* a restart keeps them */
    assert_true(is_held(&f, HELLO_GIT, HELLO));
    fixture_release(&f);
}

static void a_file_is_linked_and_another_ones_is_copied(void **state)
{
    struct fixture f;
    struct stat st, there;
    char path[128], blob[CACHE_PATH_MAX], *big = malloc(3u << 20), hex[65];
    uint8_t sum[32];
    FILE *file;

    fixture_init(&f);
    fixture_open(&f);
    snprintf(path, sizeof(path), "%s/source", f.dir);
    sh("printf 'hello world\\n' > %s; chmod 0440 %s", path, path);
    assert_int_equal(cache_blob_take(f.cache, GW_STR(HELLO_SHA256), 11, path, &f.err), GW_CORRUPT);
    assert_int_equal(cache_blob_take(f.cache, GW_STR(EMPTY_SHA256), 12, path, &f.err), GW_CORRUPT);
    assert_int_equal(cache_blob_take(f.cache, GW_STR(HELLO_SHA256), 12, f.dir, &f.err), GW_CORRUPT);
    assert_int_equal(cache_blob_take(f.cache, GW_STR(HELLO_SHA256), 12, "/nowhere", &f.err), GW_IO);
    assert_int_equal(cache_blob_take(f.cache, GW_STR(HELLO_SHA256), 12, path, &f.err), GW_OK);
    assert_true(is_held(&f, HELLO_SHA256, HELLO));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_nlink, 2); /* the same inode */
    assert_int_equal(cache_blob_take(f.cache, GW_STR(HELLO_SHA256), 12, path, &f.err), GW_OK);

    for (size_t i = 0; i < 3u << 20; i++) {
        big[i] = (char)(i * 7 >> 3);
    }
    gw_sha256_once(big, 3u << 20, sum);
    gw_hex_encode(hex, sum, 32);
    snprintf(path, sizeof(path), "/dev/shm/hubgate-test-%d", (int)getpid());
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(big, 1, 3u << 20, file), 3u << 20);
    fclose(file);
    assert_int_equal(cache_blob_take(f.cache, gw_str_c(hex), 3u << 20, path, &f.err), GW_OK);
    assert_true(cache_blob_path(f.cache, gw_str_c(hex), blob, sizeof(blob)));
    assert_int_equal(stat(blob, &there), 0);
    assert_int_equal(there.st_size, 3u << 20);
    assert_int_equal(there.st_mode & 07777, 0440); /* synced */
    assert_int_equal(files_in(&f, "tmp"), 0);
    unlink(path);
    free(big);
    fixture_release(&f);
}

static void a_fetch_is_verified_and_kept(void **state)
{
    static const char *const digests[] = {HELLO_SHA256, HELLO_GIT};

    for (size_t i = 0; i < COUNT(digests); i++) {
        struct world w;

        world_init(&w);
        page(&w.hub, "/f", OK("12") HELLO);
        assert_int_equal(fetch(&w, digests[i], 12), GW_OK);
        assert_true(is_held(&w.f, digests[i], HELLO));
        assert_int_equal(fetch(&w, digests[i], 12), GW_OK);
        assert_int_equal(atomic_load(&w.hub.n_requests), 1);
        assert_int_equal(atomic_load(&w.f.shared->counters.fills), 1);
        assert_int_equal(atomic_load(&w.f.shared->counters.blob_bytes_filled), 12);
        assert_int_equal(files_in(&w.f, "tmp"), 0);
        world_release(&w);
    }
}

static void an_empty_one_too(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/f", OK("0"));
    assert_int_equal(fetch(&w, EMPTY_GIT, 0), GW_OK);
    assert_true(is_held(&w.f, EMPTY_GIT, ""));
    world_release(&w);
}

static void what_a_fetch_says(void **state)
{
    static const struct {
        const char *answer, *second; /* NULL: the same again */
        uint64_t size;
        int rc, sys;
        unsigned requests, mismatches;
    } rows[] = {
        {OK("12") "hello worle\n", NULL, 12, GW_CORRUPT, 0, 2, 2},
        {OK("12") "hello worle\n", OK("12") HELLO, 12, GW_OK, 0, 2, 1},
        {OK("11") "hello world", NULL, 12, GW_CORRUPT, 0, 2, 2}, /* shorter */
        {OK("13") HELLO "\n", NULL, 12, GW_CORRUPT, 0, 2, 2},    /* longer */
        {OK("12") HELLO, NULL, 11, GW_CORRUPT, 0, 2, 2},         /* the record is wrong */
        {OK("12") "hello", OK("12") HELLO, 12, GW_OK, 0, 2, 0},  /* cut, then whole */
        {OK("12") "hello", NULL, 12, GW_UNAVAILABLE, 18, 2, 0},  /* CURLE_PARTIAL_FILE */
        {"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", NULL, 12, GW_NOT_FOUND, 404, 1, 0},
        {"HTTP/1.1 410 No\r\nContent-Length: 0\r\n\r\n", NULL, 12, GW_NOT_FOUND, 410, 1, 0},
        {"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", NULL, 12, GW_FORBIDDEN, 403, 1, 0},
        {"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", NULL, 12, GW_FORBIDDEN, 401, 1, 0},
        {"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", NULL, 12, GW_UNAVAILABLE, 429, 1, 0},
        {"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", NULL, 12, GW_UNAVAILABLE, 500, 1, 0},
        {"HTTP/1.1 206 Part\r\nContent-Length: 12\r\n\r\n" HELLO, NULL, 12, GW_UNAVAILABLE, 206, 1,
         0},
        {"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n", NULL, 12, GW_FORBIDDEN, 0,
         1, 0},
        {OK("12") HELLO, NULL, CACHE_SMALL_MAX + 1, GW_TOO_LARGE, 0, 0, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct world w;
        int rc;

        world_init(&w);
        server_page(&w.hub, (struct page){"/f", rows[i].answer, 0, THEN_CLOSE,
                                          rows[i].second != NULL ? 1 : 0});
        if (rows[i].second != NULL) {
            page(&w.hub, "/f", rows[i].second);
        }
        rc = fetch(&w, HELLO_SHA256, rows[i].size);
        if (rc != rows[i].rc || (rc != GW_OK && w.f.err.sys != rows[i].sys) ||
            atomic_load(&w.hub.n_requests) != rows[i].requests ||
            atomic_load(&w.f.shared->counters.integrity_failures) != rows[i].mismatches) {
            fail_msg("row %zu: %s, %d, \"%s\"", i, gw_status_name((enum gw_status)rc), w.f.err.sys,
                     w.f.err.text);
        }
        assert_true(is_held(&w.f, HELLO_SHA256, HELLO) == (rc == GW_OK));
        assert_int_equal(files_in(&w.f, "tmp"), 0);
        world_release(&w);
    }
}

static void another_hosts_refusal_is_an_outage(void **state)
{
    static const int answers[] = {401, 403, 404};
    char redirect[256], answer[128];

    for (size_t i = 0; i < COUNT(answers); i++) {
        struct world w;

        world_init(&w);
        snprintf(redirect, sizeof(redirect),
                 "HTTP/1.1 302 Found\r\nLocation: http://%s/s\r\nContent-Length: 0\r\n\r\n",
                 w.cdn_host);
        snprintf(answer, sizeof(answer), "HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n", answers[i]);
        page(&w.hub, "/f", redirect);
        page(&w.cdn, "/s", answer);
        assert_int_equal(fetch(&w, HELLO_SHA256, 12), GW_UNAVAILABLE);
        assert_int_equal(w.f.err.sys, answers[i]);
        server_clear(&w.cdn);
        page(&w.cdn, "/s", OK("12") HELLO);
        assert_int_equal(fetch(&w, HELLO_SHA256, 12), GW_OK);
        world_release(&w);
    }
}

static int one_fetch(void *ctx)
{
    struct world *w = ctx;
    int rc = fetch(w, HELLO_SHA256, 12);

    cache_blob_drop(w->f.cache, GW_STR(HELLO_SHA256));
    return rc;
}

static void no_memory_is_said(void **state)
{
    struct world w;

    world_init(&w);
    page(&w.hub, "/f", OK("12") "\r\n" HELLO);
    server_clear(&w.hub);
    page(&w.hub, "/f", OK("12") HELLO);
    with_failing_alloc(one_fetch, &w, 2);
    world_release(&w);
}

static void set_mtime(const char *path, int64_t ms)
{
    struct timespec t[2] = {{.tv_sec = (time_t)(ms / 1000)}, {.tv_sec = (time_t)(ms / 1000)}};

    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void after_another_boot_what_was_never_synced_is_proved_again(void **state)
{
    char path[CACHE_PATH_MAX];
    int64_t modified_s;
    struct fixture f;
    struct stat st;
    uint64_t size;
    int fd;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_GIT), GW_STR(HELLO), &f.err), GW_OK);
    assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_SHA256), GW_STR(HELLO), &f.err), GW_OK);
    assert_true(cache_blob_path(f.cache, GW_STR(HELLO_GIT), path, sizeof(path)));
    fixture_close(&f);

    /* the same boot: the page cache kept it, nobody looks */
    sh("echo 'HELLO WORLD' > %s", path);
    fixture_open(&f);
    assert_true(is_held(&f, HELLO_GIT, "HELLO WORLD\n"));
    fixture_close(&f);

    /* another boot, whose machine lost what was not on the disk */
    sh("echo '00000000-0000-0000-0000-000000000000 1' > %s/boot", f.dir);
    usleep(20000);
    fixture_open(&f);
    assert_int_equal(cache_blob_open(f.cache, GW_STR(HELLO_GIT), &fd, &size, &modified_s, &f.err),
                     GW_AGAIN);
    assert_int_equal(access(path, F_OK), 0); /* the loop does not look */
    assert_false(is_held(&f, HELLO_GIT, HELLO));
    assert_int_equal(access(path, F_OK), -1); /* removed: it will be fetched anew */
    assert_int_equal(atomic_load(&f.shared->counters.integrity_failures), 1);
    assert_non_null(strstr(f.log, "after another boot"));
    assert_true(is_held(&f, HELLO_SHA256, HELLO));
    assert_true(cache_blob_path(f.cache, GW_STR(HELLO_SHA256), path, sizeof(path)));
    assert_int_equal(stat(path, &st), 0);
    assert_true((int64_t)st.st_mtime * 1000 + st.st_mtim.tv_nsec / 1000000 >=
                f.cache->boot_seen_ms); /* once a boot is enough */

    /* the clock was set back: a time in the future proves nothing */
    sh("echo x > %s", path);
    set_mtime(path, gw_wall_ms() + 3600000);
    assert_false(is_held(&f, HELLO_SHA256, HELLO));

    /* a power cut's zero bytes; and one that was synced is not read again */
    assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_SHA256), GW_STR(HELLO), &f.err), GW_OK);
    sh("truncate -s 0 %s", path);
    set_mtime(path, 1000);
    assert_false(is_held(&f, HELLO_SHA256, HELLO));
    assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_SHA256), GW_STR(HELLO), &f.err), GW_OK);
    sh("chmod 0440 %s", path);
    set_mtime(path, 1700000001000);
    assert_true(is_held(&f, HELLO_SHA256, HELLO));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mtime, 1700000001);
    fixture_release(&f);
}

static void what_is_in_a_blobs_place_but_none(void **state)
{
    static const char *const jokes[] = {"ln -s /etc/passwd", "mkfifo", "ln -s /nowhere"};
    char path[CACHE_PATH_MAX];

    for (size_t i = 0; i < COUNT(jokes); i++) {
        struct fixture f;

        fixture_init(&f);
        fixture_open(&f);
        assert_true(cache_blob_path(f.cache, GW_STR(HELLO_GIT), path, sizeof(path)));
        sh("mkdir -p $(dirname %s) && %s %s", path, jokes[i], path);
        assert_false(is_held(&f, HELLO_GIT, HELLO));
        assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_GIT), GW_STR(HELLO), &f.err), GW_OK);
        assert_true(is_held(&f, HELLO_GIT, HELLO));
        fixture_release(&f);
    }
}

static void a_dropped_blob_is_missed(void **state)
{
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_GIT), GW_STR(HELLO), &f.err), GW_OK);
    cache_blob_drop(f.cache, GW_STR(HELLO_GIT));
    cache_blob_drop(f.cache, GW_STR("../../x"));
    assert_false(is_held(&f, HELLO_GIT, HELLO));
    assert_int_equal(atomic_load(&f.shared->counters.integrity_failures), 1);
    fixture_release(&f);
}

static void folders_that_went_away_come_back(void **state)
{
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    sh("rm -rf %s/blobs %s/tmp", f.dir, f.dir);
    assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_GIT), GW_STR(HELLO), &f.err), GW_OK);
    assert_true(is_held(&f, HELLO_GIT, HELLO));
    fixture_release(&f);
}

static void publishing_is_durable_and_only_once(void **state)
{
    char path[CACHE_PATH_MAX];
    struct fixture f;

    fixture_init(&f);
    fixture_open(&f);
    assert_true(cache_temp_path(f.cache, GW_STR(HELLO_SHA256), path, sizeof(path)));
    sh("printf 'hello world\\n' > %s", path);
    assert_int_equal(cache_blob_publish(f.cache, GW_STR(HELLO_SHA256), path, &f.err), GW_OK);
    assert_int_equal(cache_blob_publish(f.cache, GW_STR(HELLO_SHA256), path, &f.err), GW_OK);
    assert_true(is_held(&f, HELLO_SHA256, HELLO));
    assert_int_equal(cache_blob_publish(f.cache, GW_STR(HELLO_GIT), "/nowhere", &f.err), GW_IO);
    fixture_release(&f);
}

/* On a disk of 1 MiB: an error that says so, nothing half, and it works again when there is room.
 */
static void a_full_disk_loses_nothing(void **state)
{
    char *big = calloc(1, 1u << 20), hex[65], path[128];
    struct fixture f;
    uint8_t sum[32];
    int full = 0;

    if (geteuid() != 0) {
        skip();
    }
    fixture_init(&f);
    if (mount("none", f.dir, "tmpfs", 0, "size=1200k") != 0) {
        fixture_release(&f);
        free(big);
        skip();
    }
    f.options.index_map_bytes = 1u << 20;
    fixture_open(&f);
    gw_sha256_once(big, 1u << 20, sum);
    gw_hex_encode(hex, sum, 32);
    assert_int_equal(cache_blob_put(f.cache, GW_STR(HELLO_GIT), GW_STR(HELLO), &f.err), GW_OK);
    snprintf(path, sizeof(path), "%s/ballast", f.dir);
    sh("head -c 900000 /dev/zero > %s", path);
    assert_int_equal(cache_blob_put(f.cache, gw_str_c(hex), (struct gw_str){big, 1u << 20}, &f.err),
                     GW_IO);
    assert_int_equal(f.err.sys, ENOSPC);
    assert_int_equal(files_in(&f, "tmp"), 0);
    assert_true(is_held(&f, HELLO_GIT, HELLO));
    /* the index as well */
    sh("head -c 900000 /dev/zero >> %s 2>&- || true", path);
    for (int i = 0; i < 100; i++) {
        char name[16];
        int rc;

        snprintf(name, sizeof(name), "n%d", i);
        rc = put_text(&f, CACHE_DOCUMENT, name, HELLO);
        assert_true(rc == GW_OK || (rc == GW_IO && f.err.sys == ENOSPC));
        full += rc != GW_OK;
    }
    assert_true(full > 0);
    unlink(path);
    assert_int_equal(put_text(&f, CACHE_DOCUMENT, "after", HELLO), GW_OK);
    assert_true(holds(&f, CACHE_DOCUMENT, "after", HELLO));
    assert_int_equal(cache_blob_put(f.cache, gw_str_c(hex), (struct gw_str){big, 900000}, &f.err),
                     GW_CORRUPT);
    fixture_close(&f);
    umount(f.dir);
    free(big);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_taken_in_once_they_match),
        cmocka_unit_test(a_file_is_linked_and_another_ones_is_copied),
        cmocka_unit_test(a_fetch_is_verified_and_kept),
        cmocka_unit_test(an_empty_one_too),
        cmocka_unit_test(what_a_fetch_says),
        cmocka_unit_test(another_hosts_refusal_is_an_outage),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(after_another_boot_what_was_never_synced_is_proved_again),
        cmocka_unit_test(what_is_in_a_blobs_place_but_none),
        cmocka_unit_test(a_dropped_blob_is_missed),
        cmocka_unit_test(folders_that_went_away_come_back),
        cmocka_unit_test(publishing_is_durable_and_only_once),
        cmocka_unit_test(a_full_disk_loses_nothing),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
