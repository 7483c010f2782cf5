/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens and people: minted, checked, revoked, expired; damaged files; accounts that are disabled,
 * gone, or in a file that cannot be read. Whole requests, real files. */
#include "gateway_fixture.h"

#include "base/alloc.h"
#include "base/json.h"
#include "gateway/record.h"

#define WHOAMI "/api/whoami-v2"
#define TOKENS "/api/gateway/tokens"
#define HOUR INT64_C(3600000)

static void write_users(struct world *w, const char *const *users)
{
    struct auth_users *old = NULL;
    struct gw_str groups[1] = {GW_STR("eng")};
    struct gw_buf b;

    gw_buf_init(&b, 1 << 20);
    for (size_t i = 0; users[i] != NULL; i++) { /* the password is the name and "-secret" */
        char password[64];

        snprintf(password, sizeof(password), "%s-secret", users[i]);
        gw_buf_reset(&b);
        assert_int_equal(
            auth_users_edit(&b, old, gw_str_c(users[i]), gw_str_c(password), groups, 1, &w->err),
            GW_OK);
        auth_users_free(old);
        old = NULL;
        assert_int_equal(auth_users_parse(&old, GW_STR("users.yaml"), gw_buf_str(&b), &w->err),
                         GW_OK);
    }
    auth_users_free(old);
    world_file(w, "users.yaml", b.n != 0 ? b.p : "users: {}\n");
    gw_buf_release(&b);
}

static void setup(struct world *w)
{
    static const char *const people[] = {"ann", NULL};

    world_init(w);
    write_users(w, people);
    world_open(w);
}

/* POST of a token: the status; the token as a header in bearer, the message if refused. */
#define FORM "application/x-www-form-urlencoded"

static int mint(struct world *w, const char *authorization, const char *type, const char *body,
                char bearer[80], char message[256])
{
    struct gw_json *o = NULL;
    struct asker a;
    int status;

    asker_begin(w, &a, "POST", TOKENS, authorization);
    a.req.content_type = gw_str_c(type);
    a.req.body = gw_str_c(body);
    status = asker_finish(w, &a);
    if (message != NULL) {
        snprintf(message, 256, GW_STR_FMT " " GW_STR_FMT,
                 GW_STR_ARG(asker_header(&a, "X-Error-Message")), GW_STR_ARG(a.ans.memory));
    }
    if (status == 200) {
        assert_int_equal(gw_json_parse(&o, a.ans.memory, &w->err), GW_OK);
        snprintf(bearer, 80, "Bearer " GW_STR_FMT,
                 GW_STR_ARG(gw_json_string(gw_json_get(o, "token"))));
        assert_true(gw_str_eq_c(asker_header(&a, "Cache-Control"), "no-store"));
        gw_json_free(o);
    }
    asker_end(w, &a);
    return status;
}

static void test_mint_and_use(void **state)
{
    char bearer[80], other[120];
    struct gw_json *o = NULL;
    struct world w;
    struct asker a;

    (void)state;
    setup(&w);
    assert_int_equal(mint(&w, "Basic ann:ann-secret", FORM, "name=my+laptop&role=write&expires=1h",
                          bearer, NULL),
                     200);
    assert_int_equal(strlen(bearer), 7 + AUTH_TOKEN_LEN);
    asker_begin(&w, &a, "GET", WHOAMI, bearer);
    assert_int_equal(asker_finish(&w, &a), 200);
    assert_int_equal(gw_json_parse(&o, a.ans.memory, &w.err), GW_OK);
    assert_true(gw_str_eq_c(gw_json_string(gw_json_get(o, "name")), "ann"));
    assert_true(gw_str_eq_c(asker_header(&a, "Cache-Control"), "private, no-store"));
    gw_json_free(o);
    asker_end(&w, &a);
    /* again, warm: no job at all */
    asker_begin(&w, &a, "GET", WHOAMI, bearer);
    assert_int_equal(asker_step(&w, &a), GW_OK);
    assert_int_equal(a.ans.status, 200);
    asker_end(&w, &a);
    /* JSON, defaults; every one is another token */
    assert_int_equal(
        mint(&w, "Basic Ann:ann-secret", "application/json", "{\"role\":\"read\"}", other, NULL),
        200);
    assert_string_not_equal(bearer, other);
    assert_int_equal(mint(&w, "Basic ann:ann-secret", "", "", other, NULL), 200);
    /* git: the token as a password */
    snprintf(other, sizeof(other), "Basic x:%s", bearer + 7);
    assert_int_equal(ask(&w, "GET", WHOAMI, other), 200);
    world_release(&w);
}

static void test_bad_minting(void **state)
{
    static const struct {
        const char *authorization, *type, *body;
        int status;
        const char *said;
    } rows[] = {
        {NULL, "", "", 401, "Log in"},
        {"Basic ann:wrong", "", "", 401, "wrong"},
        {"Basic nobody:ann-secret", "", "", 401, "wrong"},
        {"Basic ann:ann-secret", "text/plain", "role=read", 400, "form or a JSON object"},
        {"Basic ann:ann-secret", "application/json", "{", 400, "form or a JSON object"},
        {"Basic ann:ann-secret", "application/json", "[1]", 400, "form or a JSON object"},
        {"Basic ann:ann-secret", "application/json", "{\"name\":{}}", 400, "form or a JSON"},
        {"Basic ann:ann-secret", "application/json", "{\"name\":\"a\",\"name\":\"b\"}", 400, ""},
        {"Basic ann:ann-secret", FORM, "role=admin", 400, "role must be read or write"},
        {"Basic ann:ann-secret", FORM, "expires=soon", 400, "expires must be a time"},
        {"Basic ann:ann-secret", FORM, "expires=0", 400, "expires must be a time"},
        {"Basic ann:ann-secret", FORM, "expires=366d", 400, "longer than this gateway allows"},
        {"Basic ann:ann-secret", FORM, "expires=99999999999999999d", 400, "expires"},
        {"Basic ann:ann-secret", "application/json", "{\"name\":\"a\\u0001b\"}", 400, ""},
        {"Basic ann:ann-secret", "application/json", "{\"name\":\"a\\u007fb\"}", 400, "name"},
        {"Basic ann:ann-secret", FORM, "name=%ff", 400, ""},
        {"Basic ann:ann-secret", FORM,
         "name="
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "a"
         "aaaaaaaaaaaaaaaaaaaaa",
         400, "at most 96 bytes"},
    };
    char bearer[80], message[256];
    struct world w;

    (void)state;
    setup(&w);
    for (size_t i = 0; i < COUNT(rows); i++) {
        int status = mint(&w, rows[i].authorization, rows[i].type, rows[i].body, bearer, message);

        if (status != rows[i].status || strstr(message, rows[i].said) == NULL) {
            fail_msg("%s %s: %d %s", rows[i].authorization, rows[i].body, status, message);
        }
    }
    /* a token does not make tokens */
    assert_int_equal(mint(&w, "Basic ann:ann-secret", "", "", bearer, NULL), 200);
    assert_int_equal(mint(&w, bearer, "", "", bearer, message), 401);
    world_release(&w);
}

static void test_credentials(void **state)
{
    static const struct {
        const char *authorization;
        int status;
    } rows[] = {
        {NULL, 401},
        {"", 401}, /* whoami needs somebody */
        {"Bearer", 401},
        {"Bearer hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", 401},
        {"Bearer hf_gwp0000000000000000000000000000000000000000000000000", 401},
        {"Basic ann:ann-secret", 401}, /* passwords are for one route */
        {"Negotiate abc", 401},
        {"Basic =", 401},
    };
    char bearer[80] = "Bearer ", wrong[80];
    struct world w;
    struct asker a;

    (void)state;
    setup(&w);
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (ask(&w, "GET", WHOAMI, rows[i].authorization) != rows[i].status) {
            fail_msg("%s", rows[i].authorization);
        }
    }
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, NULL);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200);
    for (size_t i = 7; bearer[i] != '\0'; i++) { /* every character counts */
        strcpy(wrong, bearer);
        wrong[i] = wrong[i] == 'a' ? 'b' : 'a';
        assert_int_equal(ask(&w, "GET", WHOAMI, wrong), 401);
    }
    asker_begin(&w, &a, "GET", WHOAMI, bearer);
    a.req.n_authorization = 2;
    assert_int_equal(asker_finish(&w, &a), 400);
    asker_end(&w, &a);
    world_release(&w);
}

static void test_revoke_and_expire(void **state)
{
    char bearer[80] = "Bearer ", brief[80] = "Bearer ";
    struct auth_token token;
    struct world w;
    int64_t until;

    (void)state;
    setup(&w);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, &token);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200);
    token.revoked = true;
    assert_int_equal(identity_put_token(w.gw, &token, &w.err), GW_OK);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401); /* the next request */
    /* and from the file alone */
    assert_int_equal(cache_remove(w.gw->cache, CACHE_TOKEN, gw_str_c(token.id), &w.err), GW_OK);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, 300, brief + 7, NULL);
    assert_int_equal(ask(&w, "GET", WHOAMI, brief), 200);
    until = gw_wall_ms() + 301;
    while (gw_wall_ms() < until) {
        usleep(10000);
    }
    assert_int_equal(ask(&w, "GET", WHOAMI, brief), 401);
    world_release(&w);
}

/* ---- files ---- */

static void token_path(char path[256], const struct world *w, const char *folder, const char *id)
{
    snprintf(path, 256, "%s/data/%s/%s.json", w->dir, folder, id);
}

static void overwrite(const char *path, struct gw_str text)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    assert_int_equal(fclose(f), 0);
}

static struct gw_str slurp(struct world *w, const char *path)
{
    struct gw_str text;

    assert_int_equal(gw_file_read(path, 1 << 20, &w->arena, &text, &w->err), GW_OK);
    return text;
}

/* A token or subject file that is not what we wrote gives nobody any right. */
static void test_damaged_files(void **state)
{
    static const char *const folders[] = {"tokens", "subjects"};
    char bearer[80] = "Bearer ", path[256], id[160], text[4096];
    struct auth_token token;
    struct gw_str good;
    struct world w;

    (void)state;
    setup(&w);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, &token);
    for (size_t f = 0; f < COUNT(folders); f++) {
        snprintf(id, sizeof(id), GW_STR_FMT,
                 GW_STR_ARG(f == 0 ? gw_str_c(token.id) : token.subject));
        token_path(path, &w, folders[f], id);
        good = slurp(&w, path);
        assert_true(good.n < sizeof(text));
        for (size_t i = f; i <= good.n + 2; i += i + 12 < good.n ? 11 : 1) {
            struct gw_str bad = {text, good.n};

            memcpy(text, good.p, good.n);
            if (i < good.n) {
                text[i] ^= 1; /* one bit, anywhere */
            } else if (i == good.n) {
                bad.n = good.n / 2;
            } else if (i == good.n + 1) {
                bad.n = 0;
            } else {
                memset(text, 'x', sizeof(text)); /* no JSON */
            }
            overwrite(path, bad);
            w.log[0] = '\0';
            assert_int_equal(cache_remove(w.gw->cache, f == 0 ? CACHE_TOKEN : CACHE_SUBJECT,
                                          gw_str_c(id), &w.err),
                             GW_OK);
            if (ask(&w, "GET", WHOAMI, bearer) != 401) {
                /* blanks around the line are no part of it */
                assert_true(i + 1 >= good.n && i <= good.n);
            } else {
                assert_non_null(strstr(w.log, id));
            }
        }
        overwrite(path, good); /* it is mended, and read again within 30 s */
        assert_int_equal(
            cache_remove(w.gw->cache, f == 0 ? CACHE_TOKEN : CACHE_SUBJECT, gw_str_c(id), &w.err),
            GW_OK);
        assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200);
    }
    world_release(&w);
}

/* Good lines in the wrong place, or under another key. */
static void test_swapped_files(void **state)
{
    char bearer[80] = "Bearer ", other[80] = "Bearer ", from[256], to[256], key[192];
    struct auth_token token, second;
    struct world w;

    (void)state;
    setup(&w);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, &token);
    world_mint(&w, "ann", "eng", AUTH_ROLE_WRITE, HOUR, other + 7, &second);
    token_path(from, &w, "tokens", second.id);
    token_path(to, &w, "tokens", token.id);
    overwrite(to, slurp(&w, from));
    assert_int_equal(cache_remove(w.gw->cache, CACHE_TOKEN, gw_str_c(token.id), &w.err), GW_OK);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401);
    assert_int_equal(ask(&w, "GET", WHOAMI, other), 200);
    /* gone: refused once the entry is read again */
    assert_int_equal(unlink(from), 0);
    assert_int_equal(cache_remove(w.gw->cache, CACHE_TOKEN, gw_str_c(second.id), &w.err), GW_OK);
    assert_int_equal(ask(&w, "GET", WHOAMI, other), 401);
    /* another key: no file is believed */
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, &token);
    world_close(&w);
    snprintf(key, sizeof(key), "%s/data/key", w.dir);
    overwrite(key, GW_STR("01234567890123456789012345678901"));
    world_open(&w);
    assert_int_equal(cache_remove(w.gw->cache, CACHE_TOKEN, gw_str_c(token.id), &w.err), GW_OK);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401);
    world_close(&w);
    world_open(&w);
    world_release(&w);
}

static void test_bad_key(void **state)
{
    struct gateway_options o = {.command = true, .post = world_post};
    struct gateway *gw = NULL;
    struct world w;
    char key[192];

    (void)state;
    setup(&w);
    world_close(&w);
    snprintf(key, sizeof(key), "%s/data/key", w.dir);
    overwrite(key, GW_STR("short"));
    assert_int_equal(gateway_snapshot_load(&w.snapshot, w.config, NULL, &w.err), GW_OK);
    o.snapshot = w.snapshot;
    o.shared = w.shared;
    assert_int_equal(gateway_open(&gw, &o, &w.err), GW_CORRUPT);
    assert_non_null(strstr(w.err.text, "/data/key"));
    assert_null(gw);
    gateway_snapshot_free(w.snapshot);
    assert_int_equal(unlink(key), 0);
    world_open(&w); /* made anew */
    world_release(&w);
}

/* ---- people ---- */

/* The entry of the subject becomes so old, as if nobody had come for a while. */
static void grow_old(struct world *w, const struct auth_token *token, int64_t age_ms)
{
    struct auth_subject s;

    assert_int_equal(identity_load_subject(w->gw, token->subject, &s, &w->arena, &w->err), GW_OK);
    s.checked_ms = gw_wall_ms() - age_ms;
    assert_int_equal(identity_put_subject(w->gw, &s, &w->err), GW_OK);
}

static void test_disabled_and_gone(void **state)
{
    static const char *const both[] = {"ann", "bob", NULL}, *const bob_only[] = {"bob", NULL};
    char bearer[80] = "Bearer ";
    struct auth_token token;
    struct world w;

    (void)state;
    world_init(&w);
    write_users(&w, both);
    world_open(&w);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, &token);
    write_users(&w, bob_only);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200); /* within refresh */
    grow_old(&w, &token, 6 * 60000);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200); /* the old answer, and one look */
    assert_int_equal(w.n_posted, 1);
    world_run(&w);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401);
    write_users(&w, both); /* back again */
    grow_old(&w, &token, 6 * 60000);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401);
    world_run(&w);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200);
    /* older than stale_max: it is looked up before the answer */
    write_users(&w, bob_only);
    grow_old(&w, &token, 2 * HOUR);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 401);
    world_release(&w);
}

/* The account file is away or broken: an outage, never a 401; and nobody is suspended for it. */
static void test_users_file_away(void **state)
{
    static const char *const people[] = {"ann", NULL};
    static const char *const broken[] = {NULL, "users: [", "users: {ann: {pasword: x}}\n"};
    char bearer[80] = "Bearer ", path[192], message[256];
    struct auth_token token;
    struct world w;

    (void)state;
    setup(&w);
    snprintf(path, sizeof(path), "%s/users.yaml", w.dir);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, &token);
    for (size_t i = 0; i < COUNT(broken); i++) {
        if (broken[i] == NULL) {
            assert_int_equal(unlink(path), 0);
        } else {
            world_file(&w, "users.yaml", broken[i]);
        }
        for (int tries = 0; tries < 7; tries++) { /* nor does it take the disk from others */
            assert_int_equal(mint(&w, "Basic ann:ann-secret", "", "", bearer, message), 503);
        }
        grow_old(&w, &token, 6 * 60000);
        assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200);
        world_run(&w);
        grow_old(&w, &token, 2 * HOUR);
        assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 503);
        assert_non_null(strstr(w.log, "account file"));
    }
    write_users(&w, people);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200);
    assert_int_equal(mint(&w, "Basic ann:ann-secret", "", "", bearer, NULL), 200);
    world_release(&w);
}

/* Rights are those of the person now, cut by the token. */
static void test_groups_now(void **state)
{
    static const char *const people[] = {"ann", NULL};
    char bearer[80] = "Bearer ";
    struct auth_token token;
    struct auth_subject s;
    struct world w;
    struct asker a;

    (void)state;
    world_init(&w);
    write_users(&w, people); /* in eng */
    world_open(&w);
    world_mint(&w, "ann", "", AUTH_ROLE_WRITE, HOUR, bearer + 7, &token);
    asker_begin(&w, &a, "GET", "/api/models/acme/llm", bearer);
    assert_int_equal(asker_step(&w, &a), GW_OK); /* not in eng: nobody is asked */
    assert_int_equal(a.ans.status, 404);
    asker_end(&w, &a);
    grow_old(&w, &token, 2 * HOUR);
    asker_begin(&w, &a, "GET", "/api/models/acme/llm", bearer);
    assert_int_equal(asker_finish(&w, &a), 404); /* allowed, but there is none */
    assert_true(a.req.state->allowed);
    asker_end(&w, &a);
    assert_int_equal(identity_load_subject(w.gw, token.subject, &s, &w.arena, &w.err), GW_OK);
    assert_int_equal(s.n_groups, 1);
    world_release(&w);
}

static void test_no_memory(void **state)
{
    char bearer[80] = "Bearer ";
    struct world w;
    size_t made = 0;

    (void)state;
    setup(&w);
    world_mint(&w, "ann", "eng", AUTH_ROLE_READ, HOUR, bearer + 7, NULL);
    assert_int_equal(ask(&w, "GET", WHOAMI, bearer), 200);
    for (size_t n = 1; n < 200; n++) {
        struct asker a;
        int rc;

        gw_alloc_fail_at(n);
        asker_begin(&w, &a, "GET", WHOAMI, bearer);
        rc = asker_step(&w, &a);
        made = gw_alloc_fail_at(0);
        if (rc == GW_AGAIN) {
            world_run(&w);
            assert_int_equal(asker_step(&w, &a), GW_OK);
        }
        /* somebody known, or an outage: never nobody, never wrong */
        if (a.ans.status != 200 && a.ans.status != 503) {
            fail_msg("allocation %zu failed: %d", n, a.ans.status);
        }
        asker_end(&w, &a);
        if (made < n) {
            break;
        }
    }
    assert_true(made > 2 && made < 200);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mint_and_use),    cmocka_unit_test(test_bad_minting),
        cmocka_unit_test(test_credentials),     cmocka_unit_test(test_revoke_and_expire),
        cmocka_unit_test(test_damaged_files),   cmocka_unit_test(test_swapped_files),
        cmocka_unit_test(test_bad_key),         cmocka_unit_test(test_disabled_and_gone),
        cmocka_unit_test(test_users_file_away), cmocka_unit_test(test_groups_now),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
