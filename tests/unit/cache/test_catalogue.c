/* SPDX-License-Identifier: Apache-2.0 */
/* Cards: orders, words, places that stay while others come and go, removal, damage. */
#include "tests/unit/cache/cache_fixture.h"

static void put(struct fixture *f, const char *name, int64_t updated, int64_t downloads,
                const char *words)
{
    struct cache_card card = {.type = 1,
                              .name = gw_str_c(name),
                              .sort = {updated, 1000 - updated, downloads},
                              .words = gw_str_c(words),
                              .value = gw_str_c(name)};

    assert_int_equal(cache_card_put(f->cache, &card, &f->err), GW_OK);
}

struct seen {
    char names[4096];
    unsigned n, most;
    struct cache_place last;
    struct gw_str word;
};

static int on_card(void *ctx, const struct cache_card *card, const struct cache_place *at)
{
    struct seen *s = ctx;

    assert_true(gw_str_ieq(card->name, card->value));
    if (!cache_card_has(card, s->word)) {
        return GW_OK;
    }
    if (s->n++ == s->most) {
        return GW_CONFLICT;
    }
    s->last = *at;
    strcat(s->names, " ");
    strncat(s->names, card->name.p, card->name.n);
    return GW_OK;
}

static const char *list(struct fixture *f, struct seen *s, enum cache_order order, bool ascending,
                        const char *word, const struct cache_place *after, unsigned most)
{
    struct cache_card_query q = {
        .type = 1, .order = order, .ascending = ascending, .word = gw_str_c(word), .after = after};
    int rc;

    *s = (struct seen){.most = most, .word = q.word};
    rc = cache_cards(f->cache, &q, on_card, s, &f->err);
    assert_true(rc == GW_OK || rc == GW_CONFLICT);
    return s->names;
}

static void test_orders(void **state)
{
    struct fixture f;
    struct seen s;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "", NULL, 9), "");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, true, "", NULL, 9), "");
    put(&f, "a", 10, 7, "x\ny");
    put(&f, "b", 30, 5, "y");
    put(&f, "c", 20, 9, "");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "", NULL, 9), " b c a");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, true, "", NULL, 9), " a c b");
    assert_string_equal(list(&f, &s, CACHE_BY_CREATED, false, "", NULL, 9), " a c b");
    assert_string_equal(list(&f, &s, CACHE_BY_DOWNLOADS, false, "", NULL, 9), " c a b");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "y", NULL, 9), " b a");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, true, "y", NULL, 9), " a b");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "x", NULL, 9), " a");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "none", NULL, 9), "");
    /* changed: it is where it belongs now, and nowhere else */
    put(&f, "A", 40, 0, "y\nz");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "", NULL, 9), " A b c");
    assert_string_equal(list(&f, &s, CACHE_BY_DOWNLOADS, false, "", NULL, 9), " c b A");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "x", NULL, 9), "");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "z", NULL, 9), " A");
    assert_int_equal(cache_card_remove(f.cache, 1, GW_STR("a"), &f.err), GW_OK);
    assert_int_equal(cache_card_remove(f.cache, 1, GW_STR("a"), &f.err), GW_OK);
    assert_int_equal(cache_card_remove(f.cache, 2, GW_STR("b"), &f.err), GW_OK); /* another type */
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "", NULL, 9), " b c");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "z", NULL, 9), "");
    fixture_release(&f);
}

static void test_places(void **state)
{
    struct cache_place at;
    struct fixture f;
    struct seen s;
    char name[16];

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "%d", i);
        put(&f, name, 10 * i, 0, "");
    }
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "", NULL, 2), " 4 3");
    at = s.last;
    put(&f, "new", 90, 0, ""); /* in front: seen by nobody who is past it */
    put(&f, "between", 25, 0, "");
    assert_int_equal(cache_card_remove(f.cache, 1, GW_STR("3"), &f.err), GW_OK); /* the place */
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "", &at, 9), " between 2 1 0");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, true, "", &at, 9), " 4 new");
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, true, "", NULL, 2), " 0 1");
    at = s.last;
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, true, "", &at, 9), " 2 between 4 new");
    fixture_release(&f);
}

/* More than one transaction takes, many of one time: each exactly once, in pages of any size. */
static void test_many(void **state)
{
    struct cache_place at;
    struct fixture f;
    struct seen s;
    char name[16];
    unsigned total = 0, pages = 0;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    for (int i = 0; i < 600; i++) {
        snprintf(name, sizeof(name), "%d", i);
        put(&f, name, i / 250, 0, i % 2 ? "odd" : "even");
    }
    for (bool more = true; more; pages++) {
        list(&f, &s, CACHE_BY_UPDATED, false, "odd", pages ? &at : NULL, 97);
        more = s.n > 97;
        total += more ? 97 : s.n;
        at = s.last;
    }
    assert_int_equal(total, 300);
    assert_int_equal(pages, 4);
    fixture_release(&f);
}

static void test_state_and_restart(void **state)
{
    struct cache_card card;
    struct gw_str text;
    struct fixture f;
    struct seen s;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    assert_int_equal(cache_cards_state(f.cache, &f.arena, &text, &f.err), GW_OK);
    assert_int_equal(text.n, 0);
    assert_int_equal(cache_cards_set_state(f.cache, GW_STR("whole"), &f.err), GW_OK);
    put(&f, "a", 1, 2, "x");
    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(cache_cards_state(f.cache, &f.arena, &text, &f.err), GW_OK);
    assert_true(gw_str_eq_c(text, "whole"));
    assert_string_equal(list(&f, &s, CACHE_BY_UPDATED, false, "x", NULL, 9), " a");
    assert_int_equal(cache_card_get(f.cache, 1, GW_STR("A"), &f.arena, &card, &f.err), GW_OK);
    assert_int_equal(card.sort[CACHE_BY_DOWNLOADS], 2);
    assert_int_equal(cache_card_get(f.cache, 1, GW_STR("b"), &f.arena, &card, &f.err),
                     GW_NOT_FOUND);
    fixture_release(&f);
}

static void test_limits(void **state)
{
    char many[64 * 3] = "", name[CACHE_CARD_NAME_MAX + 1];
    struct cache_card card = {.type = 1, .words = {many, 0}, .value = GW_STR("")};
    struct fixture f;

    (void)state;
    fixture_init(&f);
    fixture_open(&f);
    memset(name, 'x', sizeof(name));
    card.name = (struct gw_str){name, sizeof(name)};
    assert_int_equal(cache_card_put(f.cache, &card, &f.err), GW_TOO_LARGE);
    card.name.n--;
    assert_int_equal(cache_card_put(f.cache, &card, &f.err), GW_OK);
    for (unsigned i = 0; i < CACHE_WORDS_MAX; i++) {
        strcat(many, i ? "\nw" : "w");
    }
    card.words.n = strlen(many);
    assert_int_equal(cache_card_put(f.cache, &card, &f.err), GW_OK);
    strcat(many, "\nw");
    card.words.n = strlen(many);
    assert_int_equal(cache_card_put(f.cache, &card, &f.err), GW_TOO_LARGE);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders), cmocka_unit_test(test_places), cmocka_unit_test(test_many),
        cmocka_unit_test(test_state_and_restart), cmocka_unit_test(test_limits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
