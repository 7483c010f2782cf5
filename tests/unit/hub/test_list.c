/* SPDX-License-Identifier: Apache-2.0 */
/* Lists: what a query asks, upstream's items, and cards as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "hub/hub.h"

static int parse(struct hub_target *t, const char *query, struct gw_arena *a, struct gw_error *err)
{
    char raw[9000];

    snprintf(raw, sizeof(raw), "/api/models%s", query);
    return hub_target_parse(t, GW_STR("GET"), gw_arena_dup(a, gw_str_c(raw)), a, err);
}

static void test_normal_form(void **state)
{
    static const struct {
        const char *query, *normal, *cursor;
        unsigned limit;
    } rows[] = {
        {"", "", "", 0},
        {"?search=x&limit=3", "limit=3&search=x", "", 3},
        {"?limit=5000&full=True", "full=true&limit=1000", "", 1000},
        {"?filter=a&author=o&filter=b", "author=o&filter=a&filter=b", "", 0},
        {"?expand[]=downloads&expand=likes", "expand=downloads&expand=likes", "", 0},
        {"?cursor=a%3D&new_key=a%20b", "new_key=a%20b", "a=", 0},
    };
    struct gw_arena a;
    struct gw_error err;

    (void)state;
    gw_arena_init(&a, 1u << 20);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hub_target t;

        assert_int_equal(parse(&t, rows[i].query, &a, &err), GW_OK);
        assert_int_equal(t.route, HUB_LIST);
        assert_string_equal(gw_arena_dup(&a, t.query).p, rows[i].normal);
        assert_string_equal(gw_arena_dup(&a, t.cursor).p, rows[i].cursor);
        assert_int_equal(t.limit, rows[i].limit);
    }
    gw_arena_release(&a);
}

static void test_refused(void **state)
{
    char many[9000] = "?a=1", longer[1000] = "?author=";
    struct hub_target t;
    struct gw_arena a;
    struct gw_error err;

    (void)state;
    gw_arena_init(&a, 1u << 20);
    assert_int_equal(parse(&t, "?limit=many", &a, &err), GW_INVALID);
    assert_int_equal(parse(&t, "?search=%zz", &a, &err), GW_INVALID);
    assert_int_equal(parse(&t, "?search=%00", &a, &err), GW_INVALID);
    assert_int_equal(parse(&t, "?a%0Ab=1", &a, &err), GW_INVALID);
    for (int i = 0; i < 64; i++) {
        strcat(many, "&a=1");
    }
    assert_int_equal(parse(&t, many, &a, &err), GW_TOO_LARGE);
    memset(longer + 8, 'x', 513);
    assert_int_equal(parse(&t, longer, &a, &err), GW_TOO_LARGE);
    gw_arena_release(&a);
}

static void test_asked(void **state)
{
    struct hub_target t;
    struct hub_list l;
    struct gw_arena a;
    struct gw_error err;

    (void)state;
    gw_arena_init(&a, 1u << 20);
    assert_int_equal(parse(&t,
                           "?filter=a,b&pipeline_tag=text-generation&search=one%20two&author=Acme"
                           "&sort=downloads&direction=1&trained_dataset=d/e&future=1",
                           &a, &err),
                     GW_OK);
    assert_int_equal(hub_list_parse(&l, &t, &a, &err), GW_OK);
    assert_int_equal(l.n_words, 4);
    assert_int_equal(l.n_search, 2);
    assert_true(gw_str_eq_c(l.words[3], "dataset:d/e"));
    assert_true(gw_str_eq_c(l.author, "Acme"));
    assert_int_equal(l.sort, HUB_BY_DOWNLOADS);
    assert_true(l.ascending && !l.nothing);
    assert_int_equal(parse(&t, "?expand=likes&expand=sha&full=true&gated=true", &a, &err), GW_OK);
    assert_int_equal(hub_list_parse(&l, &t, &a, &err), GW_OK);
    assert_true(gw_str_eq_c(l.keys, "likes,sha"));
    assert_true(l.nothing && !l.ascending);
    assert_int_equal(l.sort, HUB_BY_UPDATED);
    gw_arena_release(&a);
}

static void test_items(void **state)
{
    static const struct {
        const char *array, *ids;
    } rows[] = {
        {"[]", ""},
        {"", ""},
        {"[{\"id\":\"a/b\"},{\"_id\":\"x\",\"id\":\"c\"}]", " a/b c"},
        {"[{\"x\":{\"id\":\"no\"},\"y\":[\"id\",{\"id\":1}],\"id\":\"yes\"}]", " yes"},
        {"[{\"s\":\"a\\\"}],[{\",\"id\":\"e\"}]", " e"},
        {"[{\"x\":\"id\",\"z\":1}]", " "},
        {"[1,2]", ""},
        {"[{\"id\":\"a\"},{\"id\":\"cut", " a"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_str rest = gw_str_c(rows[i].array), item, id;
        char ids[64] = "";

        while (hub_next_item(&rest, &item, &id)) {
            strcat(ids, " ");
            strncat(ids, id.p, id.n);
            assert_true(item.p[0] == '{' && item.p[item.n - 1] == '}');
        }
        assert_string_equal(ids, rows[i].ids);
    }
}

static void test_card_json(void **state)
{
    static const struct {
        const char *readme, *json; /* NULL: none */
    } rows[] = {
        {"# no head", NULL},
        {"---\nlicense: mit\ntags: [a, \"b\"]\n---\n",
         "{\"license\":\"mit\",\"tags\":[\"a\",\"b\"]}"},
        {"---\nlicense: 3\nx: true\ny:\nz: no\n---\n",
         "{\"license\":\"3\",\"x\":true,\"y\":null,\"z\":\"no\"}"},
        {"---\nmodel-index:\n- results:\n  - value: 0.5\n    v: 01\n---\n",
         "{\"model-index\":[{\"results\":[{\"value\":0.5,\"v\":\"01\"}]}]}"},
        {"---\n\"quo\\\"te\": \"a\\nb\"\n---\n", "{\"quo\\\"te\":\"a\\nb\"}"},
        {"---\n---\n", "{}"},
        {"---\n- a\n---\n", NULL},
        {"---\na: [b\n---\n", NULL},
        {"---\na: &x 1\nb: *x\n---\n", NULL},
        {"---\na: 1\na: 2\n---\n", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a;
        struct gw_buf out;

        gw_arena_init(&a, 1u << 20);
        gw_buf_init(&out, 65536);
        hub_card_json(&out, gw_str_c(rows[i].readme), &a);
        gw_buf_add_char(&out, '\0');
        assert_string_equal(out.p, rows[i].json != NULL ? rows[i].json : "");
        gw_buf_release(&out);
        gw_arena_release(&a);
    }
}

static void test_relations(void **state)
{
    static const struct {
        const char *card, *file, *tag;
    } rows[] = {
        {"{\"base_model\":\"a/b\"}", "x.bin", "base_model:finetune:a/b"},
        {"{\"base_model\":\"a/b\"}", "x.gguf", "base_model:quantized:a/b"},
        {"{\"base_model\":\"a/b\"}", "adapter_config.json", "base_model:adapter:a/b"},
        {"{\"base_model\":[\"a/b\",\"c/d\"]}", "x.gguf", "base_model:merge:c/d"},
        {"{\"base_model\":[\"a/b\"],\"tags\":[\"mergekit\"]}", "x", "base_model:merge:a/b"},
        {"{\"base_model\":\"a/b\",\"library_name\":\"peft\"}", "x", "base_model:adapter:a/b"},
        {"{\"base_model\":\"a/b\",\"base_model_relation\":\"quantized\"}", "x",
         "base_model:quantized:a/b"},
        {"{\"base_model\":\"a/b\",\"base_model_relation\":\"odd\"}", "x",
         "base_model:finetune:a/b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hub_info info = {.type = HUB_MODEL,
                                .id = GW_STR("x/y"),
                                .author = GW_STR("x"),
                                .sha = GW_STR(""),
                                .card_json = gw_str_c(rows[i].card)};
        struct gw_buf out;

        gw_buf_init(&out, 65536);
        hub_info_note_file(&info, gw_str_c(rows[i].file));
        hub_info_begin(&out, &info);
        hub_info_end(&out, &info);
        assert_non_null(strstr(out.p, rows[i].tag));
        gw_buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normal_form), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_asked),       cmocka_unit_test(test_items),
        cmocka_unit_test(test_card_json),   cmocka_unit_test(test_relations)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
