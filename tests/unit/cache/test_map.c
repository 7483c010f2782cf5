/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/cache/test_map.c - a map that is damaged in any way is dropped, never trusted, never a
 * crash. */
#include "tests/unit/cache/fill_fixture.h"

#define SIZE (5 * (uint64_t)MIB + 12345)
#define BOOT 0x1234567890abcdefull
#define INO 77u

static const char digest_text[] =
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

struct image {
    uint8_t *p;
    size_t n;
    struct map m;
};

static struct gw_str digest(void)
{
    return gw_str_c(digest_text);
}

static int setup(void **state)
{
    struct image *i = calloc(1, sizeof(*i));

    i->n = (size_t)map_file_bytes(SIZE);
    i->p = aligned_alloc(4096, 16384);
    memset(i->p, 0, 16384);
    map_format(i->p, digest(), SIZE, gw_str_c(TARGET), 0, INO, 9, BOOT);
    i->m = (struct map){.map_fd = -1, .part_fd = -1, .bytes = i->n, .granules = 6};
    i->m.head = (const struct map_head *)i->p;
    i->m.live = (struct map_live *)(i->p + MAP_PAGE);
    i->m.granule = (_Atomic uint8_t *)(i->p + MAP_GRANULES_AT);
    *state = i;
    return 0;
}

static int teardown(void **state)
{
    struct image *i = *state;

    free(i->p);
    free(i);
    return 0;
}

static const char *doubt(const struct image *i)
{
    return map_doubt(i->p, i->n, digest(), SIZE, INO, BOOT);
}

static void test_sound(void **state)
{
    struct image *i = *state;
    struct gw_sha256 s;

    assert_int_equal(i->n, MAP_GRANULES_AT + 6);
    assert_null(doubt(i));
    assert_int_equal(map_missing(&i->m, 0), 0);
    assert_int_equal(map_wanted(&i->m, 0), 6);
    assert_int_equal(map_demanded(&i->m, 0), 6);
    assert_false(map_unfinished(&i->m));
    assert_int_equal(map_bytes(&i->m, 6), SIZE);
    assert_int_equal(map_bytes(&i->m, 2), 2 * MIB);
    assert_int_equal(map_ready(&i->m, 0, SIZE), 0);
    map_hash_load(&i->m, &s);
    assert_int_equal(s.bytes, 0);
}

static void test_head_every_bit(void **state)
{
    struct image *i = *state;

    for (size_t at = 0; at < MAP_PAGE * 8; at++) {
        i->p[at / 8] ^= (uint8_t)(1u << at % 8);
        if (doubt(i) == NULL) {
            fail_msg("bit %zu of the head flipped, and the map is trusted", at);
        }
        i->p[at / 8] ^= (uint8_t)(1u << at % 8);
    }
    assert_null(doubt(i));
}

/* The live page has no CRC over all: every word must be harmless or noticed. */
static void test_live_every_bit(void **state)
{
    struct image *i = *state;
    struct gw_sha256 s;

    for (size_t at = 0; at < sizeof(struct map_live) * 8; at++) {
        size_t byte = MAP_PAGE + at / 8, field = at / 8;
        bool trusted;

        i->p[byte] ^= (uint8_t)(1u << at % 8);
        trusted = doubt(i) == NULL;
        if (field < sizeof(uint64_t)) { /* boot */
            assert_false(trusted);
        }
        if (field >= offsetof(struct map_live, state) &&
            field < offsetof(struct map_live, state) + 4) {
            assert_false(trusted);
        }
        map_hash_load(&i->m, &s); /* the other one, or a fresh one */
        assert_int_equal(s.bytes, 0);
        assert_int_equal(map_ready(&i->m, 0, SIZE), 0);
        i->p[byte] ^= (uint8_t)(1u << at % 8);
    }
    assert_null(doubt(i));
}

static void test_lengths(void **state)
{
    struct image *i = *state;
    size_t n = i->n;

    for (i->n = 0; i->n < n; i->n += i->n < MAP_GRANULES_AT ? 61 : 1) {
        assert_non_null(doubt(i));
    }
    i->n = n + 1;
    assert_non_null(doubt(i));
    i->n = n;
    assert_null(doubt(i));
}

static void test_others(void **state)
{
    struct image *i = *state;

    assert_non_null(map_doubt(i->p, i->n, digest(), SIZE - 1, INO, BOOT));
    assert_non_null(map_doubt(i->p, i->n, digest(), SIZE, INO + 1, BOOT));
    assert_non_null(map_doubt(i->p, i->n, digest(), SIZE, INO, BOOT + 1));
    assert_non_null(map_doubt(i->p, i->n, gw_str_sub(digest(), 0, 40), SIZE, INO, BOOT));
    assert_ptr_equal(doubt(i), NULL);
    atomic_store(&i->m.live->state, MAP_WHOLE);
    assert_ptr_equal(doubt(i), map_ended);
    atomic_store(&i->m.live->state, MAP_CORRUPT);
    assert_ptr_equal(doubt(i), map_ended);
    atomic_store(&i->m.live->state, MAP_PROVEN); /* says so, and has no proof */
    assert_non_null(doubt(i));
    assert_ptr_not_equal(doubt(i), map_ended);
}

static void test_another_boot(void **state)
{
    struct image *i = *state;

    atomic_store(&i->m.granule[0], GRANULE_VALID);
    atomic_store(&i->m.live->transfers[0], transfer_word(1, 5));
    atomic_store(&i->m.live->clean, map_seal(&i->m));
    assert_null(map_doubt(i->p, i->n, digest(), SIZE, INO, BOOT + 1));
    atomic_store(&i->m.granule[1], GRANULE_VALID); /* after the seal */
    assert_non_null(map_doubt(i->p, i->n, digest(), SIZE, INO, BOOT + 1));
    atomic_store(&i->m.granule[1], GRANULE_ABSENT);
    assert_null(map_doubt(i->p, i->n, digest(), SIZE, INO, BOOT + 1));
    atomic_store(&i->m.live->transfers[0], transfer_word(1, 6));
    assert_non_null(map_doubt(i->p, i->n, digest(), SIZE, INO, BOOT + 1));
}

static void test_granules(void **state)
{
    static const struct {
        uint8_t granule[6];
        uint64_t word;
        uint64_t offset, end, ready;
    } rows[] = {
        {{1, 0, 0, 0, 0, 0}, 0, 0, SIZE, MIB},
        {{1, 1, 0, 0, 0, 0}, 0, 100, SIZE, 2 * MIB - 100},
        {{1, 1, 0, 0, 0, 0}, 0, 100, 200, 100},
        {{1, 3, 0, 0, 0, 0}, 0, 0, SIZE, MIB},
        {{1, 0xff, 1, 0, 0, 0}, 0, 0, SIZE, MIB},
        {{0, 1, 1, 0, 0, 0}, 0, 0, SIZE, 0},
        {{1, 2, 0, 0, 0, 0}, 0, 0, SIZE, MIB},
        {{1, 2, 0, 0, 0, 0}, TRANSFER_LIVE | 1u << 21 | 10, 0, SIZE, MIB + 10},
        {{1, 2, 0, 0, 0, 0}, TRANSFER_LIVE | 1u << 21 | 10, MIB + 9, SIZE, 1},
        {{1, 2, 0, 0, 0, 0}, TRANSFER_LIVE | 1u << 21 | 10, MIB + 10, SIZE, 0},
        {{1, 2, 0, 0, 0, 0}, TRANSFER_LIVE | 1u << 21 | 10, MIB + 11, SIZE, 0},
        {{1, 2, 0, 0, 0, 0}, TRANSFER_LIVE | 2u << 21 | 10, 0, SIZE, MIB},
        {{1, 0, 0, 0, 0, 0}, TRANSFER_LIVE | 1u << 21 | 10, 0, SIZE, MIB},
        {{1, 2, 0, 0, 0, 0}, 1u << 21 | 10, 0, SIZE, MIB},                       /* not live */
        {{1, 2, 0, 0, 0, 0}, TRANSFER_LIVE | 1u << 21 | 0x1fffff, 0, SIZE, MIB}, /* too much */
        {{1, 1, 1, 1, 1, 1}, 0, 0, SIZE, SIZE},
        {{1, 1, 1, 1, 1, 1}, 0, 0, UINT64_MAX, SIZE},
        {{1, 1, 1, 1, 1, 1}, 0, SIZE - 1, SIZE, 1},
        {{1, 1, 1, 1, 1, 1}, 0, SIZE, SIZE, 0},
        {{1, 1, 1, 1, 1, 2}, TRANSFER_LIVE | 5u << 21 | 0xfffff, 0, SIZE, SIZE},
    };
    struct image *i = *state;

    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        memcpy(i->p + MAP_GRANULES_AT, rows[row].granule, 6);
        atomic_store(&i->m.live->transfers[3], rows[row].word);
        if (map_ready(&i->m, rows[row].offset, rows[row].end) != rows[row].ready) {
            fail_msg("row %zu: %llu", row,
                     (unsigned long long)map_ready(&i->m, rows[row].offset, rows[row].end));
        }
    }
}

static void test_settle(void **state)
{
    struct image *i = *state;
    static const uint8_t before[6] = {1, 2, 2, 9, 1, 2}, after[6] = {1, 2, 3, 0, 1, 3};

    memcpy(i->p + MAP_GRANULES_AT, before, 6);
    atomic_store(&i->m.live->transfers[0], transfer_word(1, 500));
    atomic_store(&i->m.live->transfers[1], transfer_word(2, 0));
    atomic_store(&i->m.live->transfers[2], transfer_word(4, 7));
    atomic_store(&i->m.live->transfers[3], transfer_word(5, 12345)); /* past the end of the blob */
    atomic_store(&i->m.live->transfers[4], transfer_word(1ull << 40, 7));
    atomic_store(&i->m.live->transfers[5], 12345);
    map_settle(&i->m);
    assert_memory_equal(i->p + MAP_GRANULES_AT, after, 6);
    assert_int_equal(atomic_load(&i->m.live->transfers[0]), transfer_word(1, 500));
    for (unsigned t = 2; t < MAP_TRANSFERS; t++) {
        assert_int_equal(atomic_load(&i->m.live->transfers[t]), 0);
    }
}

static void test_wanted(void **state)
{
    struct image *i = *state;
    static const uint8_t before[6] = {1, 0, 3, 9, 4, 2};

    memcpy(i->p + MAP_GRANULES_AT, before, 6);
    assert_int_equal(map_wanted(&i->m, 0), 2);
    assert_int_equal(map_wanted(&i->m, 3), 4);
    assert_int_equal(map_wanted(&i->m, 5), 5);
    assert_int_equal(map_demanded(&i->m, 0), 4);
    assert_int_equal(map_demanded(&i->m, 5), 6);
    assert_true(map_unfinished(&i->m));
    atomic_store(&i->m.live->all, 1);
    assert_int_equal(map_wanted(&i->m, 0), 1);
    assert_int_equal(map_wanted(&i->m, 3), 3);
    atomic_store(&i->m.live->all, 0);
    /* who asks changes what is absent, and only upwards */
    assert_false(map_ask(&i->m, 0, GRANULE_DEMANDED));
    assert_true(map_ask(&i->m, 1, GRANULE_WANTED));
    assert_false(map_ask(&i->m, 1, GRANULE_WANTED));
    assert_true(map_ask(&i->m, 2, GRANULE_DEMANDED));
    assert_true(map_ask(&i->m, 3, GRANULE_DEMANDED));
    assert_false(map_ask(&i->m, 4, GRANULE_WANTED));
    assert_false(map_ask(&i->m, 5, GRANULE_DEMANDED));
    assert_memory_equal(i->p + MAP_GRANULES_AT, "\1\3\4\4\4\2", 6);
    /* wishes are no part of what is sealed */
    atomic_store(&i->m.live->clean, map_seal(&i->m));
    atomic_store(&i->m.granule[1], GRANULE_ABSENT);
    assert_null(map_doubt(i->p, i->n, digest(), SIZE, INO, BOOT + 1));
    memset(i->p + MAP_GRANULES_AT, GRANULE_VALID, 6);
    assert_true(map_unfinished(&i->m)); /* its proof is work */
    memset(i->p + MAP_GRANULES_AT, GRANULE_ABSENT, 6);
    assert_false(map_unfinished(&i->m));
}

/* What an older program left is set aside. */
static void test_older_version(void **state)
{
    struct image *i = *state;
    struct map_head *h = (struct map_head *)i->p;

    h->version = 1;
    h->crc = gw_crc32(0, h, offsetof(struct map_head, crc));
    assert_string_equal(doubt(i), "another version");
}

static void test_hash_states(void **state)
{
    struct image *i = *state;
    struct gw_sha256 s, got;
    uint8_t bytes[1000] = {1, 2, 3};

    gw_sha256_init(&s);
    memset(i->p + MAP_GRANULES_AT, GRANULE_VALID, 3);
    for (unsigned n = 1; n < 10; n++) {
        gw_sha256_update(&s, bytes, sizeof(bytes));
        map_hash_save(&i->m, &s);
        map_hash_load(&i->m, &got);
        assert_int_equal(got.bytes, n * sizeof(bytes));
        assert_memory_equal(&got, &s, sizeof(s));
        /* a kill in the middle of a save: one of the two is rubbish */
        for (unsigned slot = 0; slot < 2; slot++) {
            struct map_hash kept = i->m.live->hash[slot];

            memset(&i->m.live->hash[slot].sha, 0xaa, 40);
            assert_null(doubt(i));
            map_hash_load(&i->m, &got);
            assert_true(got.bytes == n * sizeof(bytes) || got.bytes == (n - 1) * sizeof(bytes));
            i->m.live->hash[slot] = kept;
        }
    }
    /* of what is not there any more */
    memset(i->p + MAP_GRANULES_AT, 0, 3);
    map_hash_load(&i->m, &got);
    assert_int_equal(got.bytes, 0);
    /* of another map: bound to the head */
    memset(i->p + MAP_GRANULES_AT, GRANULE_VALID, 3);
    ((struct map_head *)i->p)->generation++;
    ((struct map_head *)i->p)->crc = gw_crc32(0, i->p, offsetof(struct map_head, crc));
    assert_non_null(doubt(i));
    memset(i->m.live->hash, 0, sizeof(i->m.live->hash));
    assert_non_null(doubt(i));
}

static void test_proof(void **state)
{
    struct image *i = *state;
    struct gw_sha256 s;
    uint8_t *bytes = calloc(1, (size_t)SIZE), sha[32];
    char hex[65];

    gw_sha256_init(&s);
    gw_sha256_update(&s, bytes, (size_t)SIZE);
    gw_sha256_final(&s, sha);
    gw_hex_encode(hex, sha, 32);
    memset(i->p, 0, 16384);
    map_format(i->p, gw_str_c(hex), SIZE, gw_str_c(TARGET), 0, INO, 9, BOOT);
    memset(i->p + MAP_GRANULES_AT, GRANULE_VALID, 6);
    atomic_store(&i->m.live->state, MAP_PROVEN);
    assert_non_null(map_doubt(i->p, i->n, gw_str_c(hex), SIZE, INO, BOOT));
    map_hash_save(&i->m, &s);
    assert_null(map_doubt(i->p, i->n, gw_str_c(hex), SIZE, INO, BOOT));
    atomic_store(&i->m.granule[2], GRANULE_ABSENT);
    assert_non_null(map_doubt(i->p, i->n, gw_str_c(hex), SIZE, INO, BOOT));
    free(bytes);
}

/* ---- files ---- */

static void put(const char *dir, const char *suffix, const void *p, size_t n)
{
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/%s%s", dir, digest_text, suffix);
    unlink(path);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(gw_write_all(fd, p, n, NULL), GW_OK);
    close(fd);
}

static void test_files(void **state)
{
    struct image *i = *state;
    char dir[] = "/tmp/hubgate-map-XXXXXX", path[PATH_MAX], other[PATH_MAX + 8];
    struct gw_error err = {0};
    struct stat st;
    struct map m;

    assert_non_null(mkdtemp(dir));
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_NOT_FOUND);
    put(dir, ".map", i->p, i->n); /* its part is missing */
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT);
    put(dir, ".part", "", 0);
    snprintf(path, sizeof(path), "%s/%s.part", dir, digest_text);
    assert_int_equal(truncate(path, (off_t)SIZE), 0);
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT); /* another inode */
    assert_int_equal(stat(path, &st), 0);
    memset(i->p, 0, 16384);
    map_format(i->p, digest(), SIZE, gw_str_c(TARGET), 0, (uint64_t)st.st_ino, 9, BOOT);
    put(dir, ".map", i->p, i->n);
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_OK);
    assert_int_equal(m.granules, 6);
    map_detach(&m);

    assert_int_equal(truncate(path, (off_t)SIZE - 1), 0); /* the part is short */
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT);
    assert_int_equal(truncate(path, (off_t)SIZE), 0);
    for (size_t n = 0; n < i->n; n += 997) { /* the map is short */
        put(dir, ".map", i->p, n);
        assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT);
    }
    assert_int_equal(map_attach(&m, dir, digest(), BOOT + 1, &err), GW_CORRUPT);

    /* a part that was replaced: the same name and size, another file */
    put(dir, ".map", i->p, i->n);
    snprintf(other, sizeof(other), "%s.kept", path);
    assert_int_equal(rename(path, other), 0);
    put(dir, ".part", "", 0);
    assert_int_equal(truncate(path, (off_t)SIZE), 0);
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT);

    /* not files at all */
    unlink(path);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT);
    snprintf(path, sizeof(path), "%s/%s.map", dir, digest_text);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(map_attach(&m, dir, digest(), BOOT, &err), GW_CORRUPT);
    assert_int_equal(gw_dir_remove(dir, NULL), GW_OK);
}

static void test_content_range(void **state)
{
    static const struct {
        const char *value;
        bool ok;
        uint64_t start, end, total;
    } rows[] = {
        {"bytes 0-9/100", true, 0, 10, 100},
        {"Bytes 90-99/100", true, 90, 100, 100},
        {"bytes 0-0/1", true, 0, 1, 1},
        {"bytes 0-9/*", false, 0, 0, 0},
        {"bytes */100", false, 0, 0, 0},
        {"bytes 9-0/100", false, 0, 0, 0},
        {"bytes 0-100/100", false, 0, 0, 0},
        {"bytes 0-9", false, 0, 0, 0},
        {"bytes", false, 0, 0, 0},
        {"", false, 0, 0, 0},
        {"bytes 0-9/100 ", false, 0, 0, 0},
        {"bytes  0-9/100", false, 0, 0, 0},
        {"bytes -1-9/100", false, 0, 0, 0},
        {"bytes 0-18446744073709551615/18446744073709551615", false, 0, 0, 0},
        {"bytes 0-9/18446744073709551616", false, 0, 0, 0},
        {"items 0-9/100", false, 0, 0, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t start = 0, end = 0, total = 0;
        bool ok = fetcher_content_range(gw_str_c(rows[i].value), &start, &end, &total);

        if (ok != rows[i].ok ||
            (ok && (start != rows[i].start || end != rows[i].end || total != rows[i].total))) {
            fail_msg("%s", rows[i].value);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_every_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_live_every_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_boot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_granules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_settle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_older_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hash_states, setup, teardown),
        cmocka_unit_test_setup_teardown(test_proof, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test(test_content_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
