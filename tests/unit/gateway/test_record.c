/* SPDX-License-Identifier: Apache-2.0 */
/* Records of the index: what is written is read again; anything shorter, longer or of another
 * version is refused. */
#include "gateway/record.h"

#include "gateway_fixture.h"

static const struct auth_token token = {
    .id = "0123456789",
    .kind = 'p',
    .secret_sha256 = {1, 2, 3, 0, 255},
    .subject = GW_STR_INIT("file-0123456789abcdef0123456789abcdef"),
    .name = GW_STR_INIT("lap\"top\n\xc3\xa9"),
    .role = AUTH_ROLE_WRITE,
    .created_ms = 1790000000000,
    .expires_ms = 1790000000001,
};

/* decode must take all of value, and nothing else. */
static void refuse_the_rest(struct gw_str value, bool (*decode)(struct gw_str value))
{
    char *copy = malloc(value.n + 1);

    assert_non_null(copy);
    assert_true(decode(value));
    for (size_t n = 0; n < value.n; n++) {
        char *exact = malloc(n != 0 ? n : 1); /* a read behind it shows under ASan */

        assert_non_null(exact);
        memcpy(exact, value.p, n);
        if (decode((struct gw_str){exact, n})) {
            fail_msg("%zu of %zu bytes were taken", n, value.n);
        }
        free(exact);
    }
    memcpy(copy, value.p, value.n);
    copy[value.n] = 0;
    assert_false(decode((struct gw_str){copy, value.n + 1}));
    copy[0] = '2';
    assert_false(decode((struct gw_str){copy, value.n}));
    free(copy);
}

static bool decode_token(struct gw_str value)
{
    struct auth_token t;

    return record_token_decode(&t, value);
}

static void test_token(void **state)
{
    struct auth_token out, revoked = token;
    struct gw_buf b;

    (void)state;
    gw_buf_init(&b, 4096);
    record_token_encode(&b, &token);
    assert_false(b.failed);
    assert_true(record_token_decode(&out, gw_buf_str(&b)));
    assert_string_equal(out.id, token.id);
    assert_int_equal(out.kind, 'p');
    assert_memory_equal(out.secret_sha256, token.secret_sha256, sizeof(out.secret_sha256));
    assert_true(gw_str_eq(out.subject, token.subject));
    assert_true(gw_str_eq(out.name, token.name));
    assert_int_equal(out.role, AUTH_ROLE_WRITE);
    assert_int_equal(out.created_ms, token.created_ms);
    assert_int_equal(out.expires_ms, token.expires_ms);
    assert_false(out.revoked);
    refuse_the_rest(gw_buf_str(&b), decode_token);
    gw_buf_reset(&b);
    revoked.revoked = true;
    revoked.role = AUTH_ROLE_READ;
    revoked.name = GW_STR("");
    record_token_encode(&b, &revoked);
    assert_true(record_token_decode(&out, gw_buf_str(&b)));
    assert_true(out.revoked);
    assert_int_equal(out.role, AUTH_ROLE_READ);
    assert_int_equal(out.name.n, 0);
    gw_buf_release(&b);
}

static bool decode_subject(struct gw_str value)
{
    struct auth_subject s;
    struct gw_arena a;
    bool fine;

    gw_arena_init(&a, 1 << 20);
    fine = record_subject_decode(&s, value, &a) == GW_OK;
    gw_arena_release(&a);
    return fine;
}

static void test_subject(void **state)
{
    struct gw_str groups[] = {GW_STR("cn=a,dc=x"), GW_STR(""), GW_STR("g")};
    struct auth_subject in = {.id = GW_STR("corp-0123456789abcdef0123456789abcdef"),
                              .realm = GW_STR("corp"),
                              .source_id = GW_STR("uuid"),
                              .dn = GW_STR("uid=ann,dc=x"),
                              .name = GW_STR("ann"),
                              .display = GW_STR("Ann \xc3\x89"),
                              .email = GW_STR("ann@x"),
                              .state = AUTH_ACTIVE,
                              .groups = groups,
                              .n_groups = COUNT(groups),
                              .checked_ms = 1790000000000};
    struct auth_subject out;
    struct gw_arena a, small;
    struct gw_buf b;

    (void)state;
    gw_arena_init(&a, 1 << 20);
    gw_buf_init(&b, 4096);
    record_subject_encode(&b, &in);
    assert_int_equal(record_subject_decode(&out, gw_buf_str(&b), &a), GW_OK);
    assert_true(gw_str_eq(out.id, in.id) && gw_str_eq(out.realm, in.realm) &&
                gw_str_eq(out.source_id, in.source_id) && gw_str_eq(out.dn, in.dn) &&
                gw_str_eq(out.name, in.name) && gw_str_eq(out.display, in.display) &&
                gw_str_eq(out.email, in.email));
    assert_int_equal(out.state, AUTH_ACTIVE);
    assert_false(out.service);
    assert_int_equal(out.checked_ms, in.checked_ms);
    assert_int_equal(out.n_groups, 3);
    for (size_t i = 0; i < COUNT(groups); i++) {
        assert_true(gw_str_eq(out.groups[i], groups[i]));
    }
    refuse_the_rest(gw_buf_str(&b), decode_subject);
    gw_arena_init(&small, 8); /* no room for the groups: never a shorter list */
    assert_int_equal(record_subject_decode(&out, gw_buf_str(&b), &small), GW_NO_MEMORY);
    gw_arena_release(&small);

    gw_buf_reset(&b);
    in.n_groups = 0;
    in.state = AUTH_SUSPENDED;
    in.service = true;
    record_subject_encode(&b, &in);
    assert_int_equal(record_subject_decode(&out, gw_buf_str(&b), &a), GW_OK);
    assert_int_equal(out.state, AUTH_SUSPENDED);
    assert_true(out.service);
    assert_int_equal(out.n_groups, 0);
    refuse_the_rest(gw_buf_str(&b), decode_subject);
    gw_buf_release(&b);
    gw_arena_release(&a);
}

static bool decode_ref(struct gw_str value)
{
    struct record_ref r;

    return record_ref_decode(&r, value);
}

static void test_ref(void **state)
{
    static const struct record_ref rows[] = {
        {GW_STR_INIT(COMMIT), GW_STR_INIT("acme"), GW_STR_INIT("llm")},
        {GW_STR_INIT(COMMIT), GW_STR_INIT(""), GW_STR_INIT("gpt2")},
    };
    static const struct record_ref bad[] = {
        {GW_STR_INIT("main"), GW_STR_INIT("acme"), GW_STR_INIT("llm")},
        {GW_STR_INIT("0123456789ABCDEF0123456789abcdef01234567"), GW_STR_INIT("a"),
         GW_STR_INIT("b")},
        {GW_STR_INIT(COMMIT), GW_STR_INIT("acme"), GW_STR_INIT("")},
    };
    struct record_ref out;
    struct gw_buf b;

    (void)state;
    gw_buf_init(&b, 4096);
    for (size_t i = 0; i < COUNT(rows); i++) {
        gw_buf_reset(&b);
        record_ref_encode(&b, &rows[i]);
        assert_true(record_ref_decode(&out, gw_buf_str(&b)));
        assert_true(gw_str_eq(out.commit, rows[i].commit) && gw_str_eq(out.ns, rows[i].ns) &&
                    gw_str_eq(out.name, rows[i].name));
        refuse_the_rest(gw_buf_str(&b), decode_ref);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        gw_buf_reset(&b);
        record_ref_encode(&b, &bad[i]);
        assert_false(record_ref_decode(&out, gw_buf_str(&b)));
    }
    gw_buf_release(&b);
}

/* Pages of trees: the next cursor and the JSON. */
static void test_page(void **state)
{
    static const char *const bad[] = {"",     "1",      "x\n",
                                      "-1\n", "5\nabc", "99999999999999999999\nabc"};
    struct gw_str page, next, json;
    struct gw_arena a;

    (void)state;
    gw_arena_init(&a, 1 << 20);
    page = tree_page_encode(&a, GW_STR("3.\nabc"), GW_STR("[1,\n2]"));
    assert_true(tree_page_decode(page, &next, &json));
    assert_true(gw_str_eq_c(next, "3.\nabc") && gw_str_eq_c(json, "[1,\n2]"));
    page = tree_page_encode(&a, GW_STR(""), GW_STR("[]"));
    assert_true(tree_page_decode(page, &next, &json));
    assert_true(next.n == 0 && gw_str_eq_c(json, "[]"));
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_false(tree_page_decode(gw_str_c(bad[i]), &next, &json));
    }
    gw_arena_release(&a);
}

/* A path that was added is never absent, whatever else is true; what cannot be read says nothing.
 */
static void test_paths(void **state)
{
    struct record_paths p;
    struct gw_buf b;
    char path[16];

    (void)state;
    gw_buf_init(&p.hashes, 8000);
    gw_buf_init(&b, 8001);
    record_paths_encode(&b, &p);
    assert_true(!b.failed && record_paths_absent(gw_buf_str(&b), GW_STR("a")));
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof(path), "d/%d", i);
        record_paths_add(&p, gw_str_c(path));
    }
    gw_buf_reset(&b);
    record_paths_encode(&b, &p);
    assert_false(b.failed);
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof(path), "d/%d", i);
        assert_false(record_paths_absent(gw_buf_str(&b), gw_str_c(path)));
        snprintf(path, sizeof(path), "e/%d", i);
        assert_true(record_paths_absent(gw_buf_str(&b), gw_str_c(path)));
    }
    for (size_t n = 0; n < 8; n++) {
        assert_int_equal(record_paths_absent(gw_str_sub(gw_buf_str(&b), 0, n), GW_STR("e/1")),
                         n == 1);
    }
    assert_false(record_paths_absent(GW_STR("2"), GW_STR("a")));
    record_paths_add(&p, GW_STR("one too many"));
    gw_buf_reset(&b);
    record_paths_encode(&b, &p);
    assert_true(b.failed);
    gw_buf_release(&p.hashes);
    gw_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token), cmocka_unit_test(test_subject), cmocka_unit_test(test_ref),
        cmocka_unit_test(test_page),  cmocka_unit_test(test_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
