/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/arena.h"
#include "tests/unit/failing.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

/* ---- alloc ---- */

static void test_alloc(void **state)
{
    unsigned char *p = gw_alloc(100), *empty = gw_alloc(0), *empty2 = gw_alloc(0);
    char *s = gw_strndup("hello", 3);

    for (int i = 0; i < 100; i++) {
        assert_int_equal(p[i], 0);
    }
    assert_non_null(empty);
    assert_ptr_not_equal(empty, empty2);
    assert_string_equal(s, "hel");
    memset(p, 'x', 100);
    p = gw_realloc(p, 5000);
    assert_int_equal(p[99], 'x');
    p = gw_realloc(p, 0);
    assert_non_null(p);
    assert_null(gw_strndup("x", SIZE_MAX));
    gw_free(p);
    gw_free(empty);
    gw_free(empty2);
    gw_free(s);
    gw_free(NULL);
    s = gw_strndup(NULL, 0);
    assert_string_equal(s, "");
    gw_free(s);
}

static void test_fail_at(void **state)
{
    void *a, *b, *c;

    gw_alloc_fail_at(2);
    a = gw_alloc(1);
    b = gw_alloc(1);
    c = gw_realloc(a, 10);
    assert_non_null(a);
    assert_null(b);
    assert_null(c);
    assert_int_equal(gw_alloc_fail_at(0), 3);
    b = gw_strndup("x", 1);
    assert_non_null(b);
    assert_int_equal(gw_alloc_fail_at(0), 1);
    gw_free(a);
    gw_free(b);
}

/* ---- arena ---- */

static void test_pieces_are_zeroed_aligned_and_apart(void **state)
{
    static const size_t sizes[] = {1, 0, 16, 17, 1000, 4000, 4096, 100000, 3, 1};
    struct gw_arena a;
    unsigned char *p[1000];
    size_t n[1000];

    gw_arena_init(&a, 64 << 20);
    for (size_t i = 0; i < 1000; i++) {
        n[i] = sizes[i % 10];
        p[i] = gw_arena_alloc(&a, n[i]);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % _Alignof(max_align_t), 0);
        for (size_t k = 0; k < n[i]; k++) {
            if (p[i][k] != 0) {
                fail_msg("piece %zu is not zeroed", i);
            }
        }
        memset(p[i], (int)(i % 251) + 1, n[i]);
    }
    for (size_t i = 0; i < 1000; i++) {
        for (size_t k = 0; k < n[i]; k++) {
            if (p[i][k] != i % 251 + 1) {
                fail_msg("piece %zu was overwritten", i);
            }
        }
    }
    gw_arena_release(&a);
    assert_int_equal(a.used, 0);
    assert_non_null(gw_arena_alloc(&a, 1)); /* may be used again */
    gw_arena_release(&a);
    gw_arena_release(&a);
}

static void test_ceiling(void **state)
{
    struct gw_arena a;

    gw_arena_init(&a, 100);
    assert_null(gw_arena_alloc(&a, 101));
    assert_non_null(gw_arena_alloc(&a, 50));
    assert_null(gw_arena_alloc(&a, 50)); /* 50 was rounded up */
    assert_null(gw_arena_alloc(&a, SIZE_MAX));
    assert_non_null(gw_arena_alloc(&a, 36));
    assert_null(gw_arena_alloc(&a, 1));
    assert_int_equal(a.used, 100);
    gw_arena_release(&a);

    gw_arena_init(&a, SIZE_MAX);
    assert_null(gw_arena_alloc(&a, SIZE_MAX));
    assert_null(gw_arena_alloc(&a, SIZE_MAX - 100));
    gw_arena_release(&a);
}

static void test_zeroed_memory(void **state)
{
    struct gw_arena a = {0};

    gw_arena_release(&a);
    assert_null(gw_arena_alloc(&a, 1));
    assert_null(gw_arena_dup(&a, GW_STR("")).p);
}

static void test_copies(void **state)
{
    struct gw_arena a;
    struct gw_str s, none = {NULL, 0};

    gw_arena_init(&a, 1 << 20);
    gw_arena_keep_secret(&a);
    s = gw_arena_dup(&a, GW_STR("a\0b"));
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.p, "a\0b\0", 4);
    s = gw_arena_dup(&a, none);
    assert_non_null(s.p);
    assert_int_equal(s.n, 0);
    s = gw_arena_printf(&a, "%d-%s", 7, "x");
    assert_string_equal(s.p, "7-x");
    assert_int_equal(s.n, 3);
    s = gw_arena_printf(&a, "%5000d", 7);
    assert_int_equal(s.n, 5000);
    assert_string_equal(gw_arena_cstr(&a, GW_STR("plain")), "plain");
    assert_null(gw_arena_cstr(&a, GW_STR("a\0b")));
    assert_string_equal(gw_arena_cstr(&a, none), "");
    gw_arena_release(&a);
}

static int use_arena(void *ctx)
{
    struct gw_arena a;
    bool ok;

    gw_arena_init(&a, 1 << 20);
    ok = gw_arena_alloc(&a, 10) != NULL && gw_arena_dup(&a, GW_STR("text")).p != NULL &&
         gw_arena_alloc(&a, 10000) != NULL && gw_arena_printf(&a, "%3000d", 1).p != NULL &&
         gw_arena_cstr(&a, GW_STR("x")) != NULL;
    gw_arena_release(&a);
    return ok ? GW_OK : GW_NO_MEMORY;
}

/* Back to a mark: what came after is gone, what was before stays, what is handed out is zeroed. */
static void test_mark(void **state)
{
    struct gw_arena a;
    struct gw_arena_mark empty, half;
    char *kept, *again;

    gw_arena_init(&a, 1 << 20);
    gw_arena_keep_secret(&a);
    empty = gw_arena_mark(&a);
    kept = gw_arena_alloc(&a, 100);
    memset(kept, 'k', 100);
    assert_non_null(gw_arena_alloc(&a, 3000)); /* behind the first chunk */
    half = gw_arena_mark(&a);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 50; i++) {
            again = gw_arena_alloc(&a, i % 7 == 0 ? 9000 : 300);
            assert_non_null(again);
            for (int k = 0; k < 300; k++) {
                assert_int_equal(again[k], 0);
            }
            memset(again, 'x', 300);
        }
        gw_arena_rewind(&a, half);
        assert_int_equal(a.used, half.used);
        assert_int_equal(kept[0] + kept[99], 2 * 'k');
    }
    gw_arena_rewind(&a, empty);
    assert_null(a.chunks);
    assert_int_equal(a.used, 0);
    assert_non_null(gw_arena_alloc(&a, 10));
    gw_arena_release(&a);
}

static void test_without_memory(void **state)
{
    with_failing_alloc(use_arena, NULL, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_fail_at),
        cmocka_unit_test(test_pieces_are_zeroed_aligned_and_apart),
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_zeroed_memory),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_mark),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
