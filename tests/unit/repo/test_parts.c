/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that come in parts: in any order, again, at once, and by somebody who lies. */
#include "base/clock.h"
#include "base/encode.h"
#include "base/sha.h"
#include "tests/unit/repo/repo_test.h"

#define CHUNK 100000u
#define SIZE 350001u /* four parts, the last one short */
#define UPLOAD "00000000000000000000000000000000000000000000000000000000000000aa"

static char bytes[SIZE], sha256[65];
static const struct repo_parts object = {"data", GW_STR_INIT(UPLOAD), SIZE, CHUNK};

static int fresh(void **state)
{
    uint8_t sum[32];
    struct gw_error err;

    sh("rm -rf data");
    assert_ok(repo_create("data", LLM, AUTHOR, NOW_MS, &err), err);
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (char)(i * 7 + i / 1000);
    }
    gw_sha256_once(bytes, SIZE, sum);
    gw_hex_encode(sha256, sum, 32);
    return 0;
}

static struct gw_str part_of(uint64_t part)
{
    size_t at = (size_t)(part - 1) * CHUNK;

    return (struct gw_str){bytes + at, SIZE - at < CHUNK ? SIZE - at : CHUNK};
}

static struct repo_part *opened(uint64_t part)
{
    struct repo_part *p = NULL;
    struct gw_error err;

    assert_ok(repo_part_open(&p, &object, part, &err), err);
    return p;
}

static void wrote(struct repo_part *p, struct gw_str text)
{
    struct gw_error err;

    assert_ok(repo_part_write(p, text, &err), err);
}

static void finished(struct repo_part *p)
{
    struct gw_error err;

    assert_ok(repo_part_finish(p, &err), err);
    repo_part_close(p);
}

static void send_part(uint64_t part)
{
    struct repo_part *p = opened(part);
    struct gw_str text = part_of(part);

    wrote(p, gw_str_sub(text, 0, 30000));
    wrote(p, gw_str_sub(text, 30000, text.n));
    finished(p);
}

static int completed(struct gw_error *err)
{
    return repo_parts_complete(&object, LLM, gw_str_c(sha256), INT64_MAX, err);
}

static void assert_held(void)
{
    uint64_t size = 0;
    struct gw_error err;
    char path[256], got[SIZE];
    FILE *f;

    assert_ok(repo_object_held("data", LLM, gw_str_c(sha256), &size, &err), err);
    assert_int_equal(size, SIZE);
    snprintf(path, sizeof(path), "data/lfs/%.2s/%.2s/%s", sha256, sha256 + 2, sha256);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, SIZE, f), SIZE);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    assert_memory_equal(got, bytes, SIZE);
    assert_sh("440", "stat -c %%a %s", path);
    assert_no_temp();
}

static void test_chunks(void **state)
{
    static const struct {
        uint64_t size, least, chunk;
    } rows[] = {
        {1, 64 << 20, 64 << 20},
        {UINT64_C(20) << 30, 64 << 20, UINT64_C(161) << 20},
        {INT64_MAX, 1, UINT64_C(68719476736) << 20},
        {UINT64_C(128) << 20, 1 << 20, UINT64_C(2) << 20},
        {(UINT64_C(128) << 20) - 1, 1 << 20, UINT64_C(1) << 20},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t chunk = repo_parts_chunk(rows[i].size, rows[i].least);

        assert_int_equal(chunk, rows[i].chunk);
        assert_true(repo_parts_count(rows[i].size, chunk) <= REPO_PARTS_MAX);
    }
    assert_int_equal(repo_parts_count(SIZE, CHUNK), 4);
    assert_int_equal(repo_parts_count(200, 100), 2);
}

static void test_any_order(void **state)
{
    static const uint8_t orders[][6] = {
        {1, 2, 3, 4}, {4, 3, 2, 1}, {2, 4, 1, 3}, {1, 2, 1, 3, 4, 2}, {4, 1, 4, 2, 3, 3}};
    struct gw_error err;

    for (size_t i = 0; i < COUNT(orders); i++) {
        fresh(NULL);
        for (size_t j = 0; j < 6 && orders[i][j] != 0; j++) {
            send_part(orders[i][j]);
        }
        assert_ok(completed(&err), err);
        assert_held();
        assert_ok(completed(&err), err); /* the answer was lost: asked again */
        assert_held();
    }
}

static void test_missing_and_short(void **state)
{
    struct repo_part *p;
    struct gw_error err;

    assert_int_equal(completed(&err), GW_NOT_FOUND);
    assert_int_equal(err.sys, REPO_NO_OBJECT);
    send_part(1);
    send_part(2);
    send_part(4);
    assert_int_equal(completed(&err), GW_INVALID);
    assert_string_equal(err.text, "part 3 has not been sent");
    p = opened(3);
    wrote(p, gw_str_sub(part_of(3), 0, CHUNK - 1));
    assert_int_equal(repo_part_finish(p, &err), GW_CORRUPT);
    repo_part_close(p);
    assert_int_equal(completed(&err), GW_INVALID);
    p = opened(3);
    wrote(p, part_of(3));
    assert_int_equal(repo_part_write(p, GW_STR("x"), &err), GW_TOO_LARGE);
    repo_part_close(p);
    assert_int_equal(completed(&err), GW_INVALID);
    assert_int_equal(repo_part_open(&p, &object, 0, &err), GW_INVALID);
    assert_int_equal(repo_part_open(&p, &object, 5, &err), GW_INVALID);
    send_part(3);
    assert_ok(completed(&err), err);
    assert_held();
}

static void test_wrong_bytes(void **state)
{
    struct gw_error err;

    bytes[CHUNK + 5] ^= 1;
    for (uint64_t i = 1; i <= 4; i++) {
        send_part(i);
    }
    assert_int_equal(completed(&err), GW_CORRUPT);
    assert_no_temp();
    bytes[CHUNK + 5] ^= 1;
    for (uint64_t i = 1; i <= 4; i++) {
        send_part(i);
    }
    assert_ok(completed(&err), err);
    assert_held();
}

/* A part that was hashed is sent again with other bytes: they count, and the hash sees them. */
static void test_changed_after_the_hash(void **state)
{
    struct gw_error err;

    for (uint64_t i = 1; i <= 4; i++) {
        send_part(i);
    }
    bytes[7] ^= 1;
    send_part(1);
    assert_int_equal(completed(&err), GW_CORRUPT);
    assert_no_temp();
}

/* Whoever opened a part before somebody else did, or before the end, writes nothing any more. */
static void test_late_writers(void **state)
{
    struct repo_part *first, *second;
    struct gw_error err;

    first = opened(1);
    wrote(first, gw_str_sub(part_of(1), 0, 10));
    second = opened(1);
    assert_int_equal(repo_part_write(first, GW_STR("other bytes"), &err), GW_CONFLICT);
    wrote(second, part_of(1));
    assert_int_equal(repo_part_write(first, GW_STR("other bytes"), &err), GW_CONFLICT);
    finished(second);
    for (uint64_t i = 2; i <= 4; i++) {
        send_part(i);
    }
    second = opened(4); /* begins it again, and so nothing is whole */
    assert_int_equal(completed(&err), GW_INVALID);
    wrote(second, gw_str_sub(part_of(4), 0, 5));
    send_part(4);
    assert_ok(completed(&err), err);
    assert_int_equal(repo_part_write(second, GW_STR("x"), &err), GW_CONFLICT);
    assert_int_equal(repo_part_write(first, GW_STR("x"), &err), GW_CONFLICT);
    repo_part_close(first);
    repo_part_close(second);
    assert_held();
}

/* Eight parts, the first one last: its end hashes four of them, and the rest is done in three
 * calls.
 */
static void test_time_is_over(void **state)
{
    static const struct repo_parts small = {"data", GW_STR_INIT(UPLOAD), SIZE, 50000};
    struct repo_part *p;
    struct gw_error err;
    int rc, tries = 0;

    for (uint64_t i = 8; i >= 1; i--) {
        size_t at = (size_t)(i - 1) * 50000;

        assert_ok(repo_part_open(&p, &small, i, &err), err);
        wrote(p, (struct gw_str){bytes + at, SIZE - at < 50000 ? SIZE - at : 50000});
        finished(p);
    }
    do {
        rc = repo_parts_complete(&small, LLM, gw_str_c(sha256), gw_mono_ms() - 1, &err);
    } while (rc == GW_TIMEOUT && ++tries < 10);
    assert_ok(rc, err);
    assert_int_equal(tries, 4);
    assert_held();
}

static void test_damaged_state(void **state)
{
    struct repo_part *p;
    struct gw_error err;

    send_part(1);
    sh("printf x | dd of=data/tmp/parts-" UPLOAD ".state bs=1 seek=60 conv=notrunc 2>&1");
    assert_int_equal(repo_part_open(&p, &object, 2, &err), GW_CORRUPT);
    assert_int_equal(completed(&err), GW_CORRUPT);
}

static void test_sweep(void **state)
{
    struct repo_upload *u = NULL;
    struct gw_error err;
    struct gw_str text = GW_STR("x");

    send_part(1);
    sh("touch -d '3 hours ago' data/tmp/parts-" UPLOAD ".state");
    assert_ok(repo_upload_open(&u, "data", &err), err);
    repo_upload_close(u);
    assert_sh("2", "ls data/tmp | wc -l"); /* its bytes were written lately */
    sh("touch -d '3 hours ago' data/tmp/parts-*");
    assert_ok(repo_upload_open(&u, "data", &err), err);
    assert_ok(repo_upload_write(u, text, &err), err);
    repo_upload_close(u);
    assert_no_temp();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),
        cmocka_unit_test_setup(test_any_order, fresh),
        cmocka_unit_test_setup(test_missing_and_short, fresh),
        cmocka_unit_test_setup(test_wrong_bytes, fresh),
        cmocka_unit_test_setup(test_changed_after_the_hash, fresh),
        cmocka_unit_test_setup(test_late_writers, fresh),
        cmocka_unit_test_setup(test_time_is_over, fresh),
        cmocka_unit_test_setup(test_damaged_state, fresh),
        cmocka_unit_test_setup(test_sweep, fresh),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
