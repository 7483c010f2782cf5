/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/hub/test_documents.c - what we write is read again: the members that clients insist on
 * are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "hub/hub.h"
#include "tests/unit/failing.h"

#define OID "0123456789abcdef0123456789abcdef01234567"
#define DIGEST OID "0123456789abcdef01234567"

static const struct hub_entry regular = {
    .path = GW_STR_INIT("a/\"q\" \xc3\xa9.txt"), .oid = OID, .size = 12};
static const struct hub_entry large = {.path = GW_STR_INIT("m.bin"),
                                       .oid = OID,
                                       .lfs = true,
                                       .sha256 = DIGEST,
                                       .size = 5000000000,
                                       .pointer_size = 135,
                                       .xet = GW_STR_INIT(DIGEST)};
static const struct hub_entry folder = {.path = GW_STR_INIT("a"), .oid = OID, .directory = true};

static struct gw_json *parsed(const struct gw_buf *b)
{
    struct gw_json *root = NULL;
    struct gw_error err = {0};

    assert_false(b->failed);
    if (gw_json_parse(&root, gw_buf_str(b), &err) != GW_OK) {
        fail_msg("%s: %s", err.text, b->p);
    }
    assert_null(strstr(b->p, "xet"));
    assert_null(strstr(b->p, "\": "));
    return root;
}

static void check_text(const struct gw_json *object, const char *key, const char *value)
{
    const struct gw_json *v = gw_json_get(object, key);

    if (!gw_json_is_string(v) || !gw_str_eq_c(gw_json_string(v), value)) {
        fail_msg("%s: \"" GW_STR_FMT "\", not \"%s\"", key, GW_STR_ARG(gw_json_string(v)), value);
    }
}

static void check_number(const struct gw_json *object, const char *key, int64_t value)
{
    int64_t got = -1;

    if (!gw_json_int(gw_json_get(object, key), &got) || got != value) {
        fail_msg("%s: %lld", key, (long long)got);
    }
}

static void entries(void **state)
{
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    hub_put_entry(&b, &regular, GW_STR(""));
    assert_string_equal(b.p, "{\"type\":\"file\",\"oid\":\"" OID
                             "\",\"size\":12,\"path\":\"a/\\\"q\\\" \xc3\xa9.txt\"}");
    gw_buf_reset(&b);
    hub_put_entry(&b, &large, GW_STR("{\"id\":\"x\"}"));
    assert_string_equal(b.p, "{\"type\":\"file\",\"oid\":\"" OID
                             "\",\"size\":5000000000,\"path\":\"m.bin\",\"lfs\":{\"oid\":\"" DIGEST
                             "\",\"size\":5000000000,\"pointerSize\":135},"
                             "\"lastCommit\":{\"id\":\"x\"}}");
    gw_buf_reset(&b);
    hub_put_entry(&b, &folder, GW_STR(""));
    assert_string_equal(b.p,
                        "{\"type\":\"directory\",\"oid\":\"" OID "\",\"size\":0,\"path\":\"a\"}");
    gw_buf_release(&b);
}

/* ---- info ---- */

static struct hub_info sample_info(enum hub_type type)
{
    return (struct hub_info){
        .type = type,
        .id = GW_STR("acme/llm"),
        .author = GW_STR("acme"),
        .sha = GW_STR(OID),
        .created_ms = 0,
        .modified_ms = 1767225600123,
        .used_bytes = 77,
        .card_json =
            GW_STR("{\"library_name\":\"transformers\",\"pipeline_tag\":\"fill-mask\","
                   "\"tags\":[\"one\",\"two\",7],\"license\":\"mit\",\"language\":[\"en\"],"
                   "\"base_model\":\"mistralai/M\",\"sdk\":\"docker\"}"),
        .with_siblings = true,
    };
}

static void put_info(struct gw_buf *b, const struct hub_info *i)
{
    hub_info_begin(b, i);
    hub_info_sibling(b, i, &regular);
    hub_info_sibling(b, i, &folder);
    hub_info_sibling(b, i, &large);
    hub_info_end(b, i);
}

static void info(void **state)
{
    struct hub_info i = sample_info(HUB_MODEL);
    const struct gw_json *siblings, *tags;
    struct gw_json *root;
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    put_info(&b, &i);
    root = parsed(&b);
    check_text(root, "id", "acme/llm");
    check_text(root, "modelId", "acme/llm");
    check_text(root, "author", "acme");
    check_text(root, "sha", OID);
    check_text(root, "createdAt", "1970-01-01T00:00:00.000Z");
    check_text(root, "lastModified", "2026-01-01T00:00:00.123Z");
    check_text(root, "library_name", "transformers");
    check_text(root, "pipeline_tag", "fill-mask");
    check_number(root, "downloads", 0);
    check_number(root, "likes", 0);
    check_number(root, "usedStorage", 77);
    assert_int_equal(gw_json_string(gw_json_get(root, "_id")).n, 24);
    assert_true(gw_json_bool(gw_json_get(root, "private")));
    assert_non_null(gw_json_get(root, "gated"));
    assert_false(gw_json_bool(gw_json_get(root, "gated")));
    assert_non_null(gw_json_get(root, "disabled"));
    assert_true(gw_json_is_array(gw_json_get(root, "spaces")));
    check_text(gw_json_get(root, "cardData"), "license", "mit");
    tags = gw_json_get(root, "tags");
    assert_int_equal(gw_json_count(tags), 8);
    assert_true(gw_str_eq_c(gw_json_string(gw_json_at(tags, 0)), "one"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_at(tags, 5)), "base_model:mistralai/M"));
    assert_true(
        gw_str_eq_c(gw_json_string(gw_json_at(tags, 6)), "base_model:finetune:mistralai/M"));
    assert_true(gw_str_eq_c(gw_json_string(gw_json_at(tags, 7)), "license:mit"));
    assert_null(gw_json_get(root, "safetensors")); /* with holes it is a KeyError */
    assert_null(gw_json_get(root, "transformersInfo"));
    siblings = gw_json_get(root, "siblings");
    assert_int_equal(gw_json_count(siblings), 2); /* files only */
    check_text(gw_json_at(siblings, 1), "rfilename", "m.bin");
    assert_null(gw_json_get(gw_json_at(siblings, 1), "lfs"));
    assert_non_null(strstr(b.p, "\"rfilename\":\"m.bin\"")); /* hfd.sh greps so */
    gw_json_free(root);
    gw_buf_release(&b);
}

static void info_with_blobs(void **state)
{
    struct hub_info i = sample_info(HUB_DATASET);
    const struct gw_json *siblings, *lfs;
    struct gw_json *root;
    struct gw_buf b;

    i.with_blobs = true;
    gw_buf_init(&b, 65536);
    put_info(&b, &i);
    root = parsed(&b);
    assert_null(gw_json_get(root, "modelId"));
    siblings = gw_json_get(root, "siblings");
    check_number(gw_json_at(siblings, 0), "size", 12);
    check_text(gw_json_at(siblings, 0), "blobId", OID);
    assert_null(gw_json_get(gw_json_at(siblings, 0), "lfs"));
    lfs = gw_json_get(gw_json_at(siblings, 1), "lfs");
    check_text(lfs, "sha256", DIGEST);
    check_number(lfs, "size", 5000000000);
    check_number(lfs, "pointerSize", 135);
    gw_json_free(root);
    gw_buf_release(&b);
}

static void info_variants(void **state)
{
    static const struct gw_str cards[] = {
        GW_STR_INIT(""),           GW_STR_INIT("{}"),
        GW_STR_INIT("[]"),         GW_STR_INIT("7"),
        GW_STR_INIT("{\"tags\":"), GW_STR_INIT("{\"tags\":{\"a\":1},\"license\":[null,[\"x\"]]}"),
    };

    for (size_t k = 0; k < sizeof(cards) / sizeof(cards[0]); k++) {
        for (int type = HUB_MODEL; type <= HUB_KERNEL; type++) {
            struct hub_info i = sample_info((enum hub_type)type);
            struct gw_json *root;
            struct gw_buf b;

            i.card_json = cards[k];
            i.with_siblings = k % 2 == 0;
            gw_buf_init(&b, 65536);
            put_info(&b, &i);
            root = parsed(&b);
            assert_int_equal(gw_json_is_array(gw_json_get(root, "siblings")), i.with_siblings);
            assert_true(gw_json_is_object(gw_json_get(root, "cardData")));
            assert_int_equal(gw_json_count(gw_json_get(root, "tags")), 0);
            gw_json_free(root);
            gw_buf_release(&b);
        }
    }
}

static void space_has_its_sdk(void **state)
{
    struct hub_info i = sample_info(HUB_SPACE);
    struct gw_json *root;
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    put_info(&b, &i);
    root = parsed(&b);
    check_text(root, "sdk", "docker");
    gw_json_free(root);
    gw_buf_release(&b);
}

static void select_keys(void **state)
{
    static const struct {
        const char *document, *keys, *expected;
        int rc;
    } rows[] = {
        {"{\"_id\":\"1\",\"id\":\"a\",\"likes\":0,\"tags\":[1,{\"likes\":2}],\"sha\":\"s\"}",
         "likes", "{\"_id\":\"1\",\"id\":\"a\",\"likes\":0}", GW_OK},
        {"{\"sha\":\"s\",\"id\":\"a\",\"tags\":[{\"x\":2}]}", "sha,tags",
         "{\"sha\":\"s\",\"id\":\"a\",\"tags\":[{\"x\":2}]}", GW_OK},
        {"{\"id\":\"a\",\"siblings\":[{\"xetHash\":\"h\",\"rfilename\":\"f\"}]}",
         "siblings,xetHash", "{\"id\":\"a\",\"siblings\":[{\"rfilename\":\"f\"}]}", GW_OK},
        {"{\"likes\":1}", "", "{}", GW_OK},
        {"{\"likes\":1}", "like,likes2,LIKES", "{}", GW_OK},
        {"[]", "likes", "", GW_INVALID},
        {"\"x\"", "likes", "", GW_INVALID},
        {"{\"likes\":", "likes", "", GW_INVALID},
        {"", "likes", "", GW_INVALID},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_error err = {0};
        struct gw_buf b;
        int rc;

        gw_buf_init(&b, 65536);
        rc = hub_info_select(&b, gw_str_c(rows[i].document), gw_str_c(rows[i].keys), &err);
        if (rc != rows[i].rc || (rc == GW_OK && strcmp(b.p, rows[i].expected) != 0)) {
            fail_msg("%s: %s %s", rows[i].document, err.text, b.p);
        }
        gw_buf_release(&b);
    }
}

static void select_ceiling(void **state)
{
    struct gw_buf b;

    gw_buf_init(&b, 8);
    assert_int_equal(hub_info_select(&b, GW_STR("{\"likes\":1234567}"), GW_STR("likes"), NULL),
                     GW_TOO_LARGE);
    gw_buf_release(&b);
}

/* ---- refs, commits, whoami ---- */

static void refs(void **state)
{
    const struct hub_ref branches[] = {
        {GW_STR("main"), GW_STR("refs/heads/main"), GW_STR(OID)},
        {GW_STR("x/y"), GW_STR("refs/heads/x/y"), GW_STR(OID)},
    };
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    hub_put_refs(&b, branches, 2, NULL, 0, NULL, 0);
    assert_string_equal(
        b.p, "{\"branches\":[{\"name\":\"main\",\"ref\":\"refs/heads/main\",\"targetCommit\":\"" OID
             "\"},{\"name\":\"x/y\",\"ref\":\"refs/heads/x/y\",\"targetCommit\":\"" OID
             "\"}],\"converts\":[],\"tags\":[]}");
    gw_buf_reset(&b);
    hub_put_refs(&b, NULL, 0, branches, 1, branches, 0);
    assert_string_equal(b.p,
                        "{\"branches\":[],\"converts\":[],\"tags\":[{\"name\":\"main\",\"ref\":"
                        "\"refs/heads/main\",\"targetCommit\":\"" OID "\"}],\"pullRequests\":[]}");
    gw_buf_release(&b);
}

static void commits(void **state)
{
    const struct hub_commit c = {GW_STR(OID), GW_STR("A \"title\""), GW_STR("line\nline"),
                                 GW_STR("ann"), 1000};
    const struct gw_json *item;
    struct gw_json *root;
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    gw_buf_add_char(&b, '[');
    for (int i = 0; i < 2; i++) {
        gw_json_put_comma(&b);
        hub_put_commit(&b, &c);
    }
    gw_buf_add_char(&b, ']');
    root = parsed(&b);
    assert_int_equal(gw_json_count(root), 2);
    item = gw_json_at(root, 1);
    check_text(item, "id", OID);
    check_text(item, "title", "A \"title\"");
    check_text(item, "message", "line\nline");
    check_text(item, "date", "1970-01-01T00:00:01.000Z");
    check_text(gw_json_at(gw_json_get(item, "authors"), 0), "user", "ann");
    gw_json_free(root);
    gw_buf_release(&b);
}

static void whoami(void **state)
{
    const struct gw_str orgs[] = {GW_STR("acme"), GW_STR("labs")};
    const struct hub_person p = {.id = GW_STR("5f"),
                                 .name = GW_STR("ann"),
                                 .fullname = GW_STR("Ann \xc3\x85"),
                                 .email = GW_STR("ann@corp.example"),
                                 .orgs = orgs,
                                 .n_orgs = 2,
                                 .token_name = GW_STR("laptop"),
                                 .token_role = GW_STR("read"),
                                 .token_created_ms = 5};
    const struct gw_json *token, *org;
    struct gw_json *root;
    struct gw_buf b;

    gw_buf_init(&b, 65536);
    hub_put_whoami(&b, &p);
    root = parsed(&b);
    check_text(root, "type", "user");
    check_text(root, "id", "5f");
    check_text(root, "name", "ann");
    check_text(root, "fullname", "Ann \xc3\x85");
    check_text(root, "email", "ann@corp.example");
    assert_true(gw_json_bool(gw_json_get(root, "emailVerified")));
    assert_non_null(gw_json_get(root, "canPay"));
    assert_non_null(gw_json_get(root, "isPro"));
    assert_non_null(gw_json_get(root, "periodEnd"));
    assert_int_equal(gw_json_count(gw_json_get(root, "orgs")), 2);
    org = gw_json_at(gw_json_get(root, "orgs"), 1);
    check_text(org, "type", "org");
    check_text(org, "name", "labs");
    check_text(org, "roleInOrg", "read");
    token = gw_json_get(gw_json_get(root, "auth"), "accessToken");
    check_text(gw_json_get(root, "auth"), "type", "access_token");
    check_text(token, "displayName", "laptop");
    check_text(token, "role", "read");
    check_text(token, "createdAt", "1970-01-01T00:00:00.005Z");
    gw_json_free(root);
    gw_buf_release(&b);

    gw_buf_init(&b, 65536);
    hub_put_whoami(&b, &(struct hub_person){.name = GW_STR("x")});
    root = parsed(&b);
    assert_true(gw_json_is_array(gw_json_get(root, "orgs")));
    gw_json_free(root);
    gw_buf_release(&b);
}

/* ---- no memory ---- */

static int put_once(void *ctx)
{
    struct hub_info i = sample_info(HUB_MODEL);
    struct gw_buf b, selected;
    int rc;

    gw_buf_init(&b, 65536);
    gw_buf_init(&selected, 65536);
    put_info(&b, &i);
    rc = gw_buf_ok(&b, NULL);
    if (rc == GW_OK) {
        rc = hub_info_select(&selected, gw_buf_str(&b), GW_STR("siblings,sha"), NULL);
    }
    gw_buf_release(&b);
    gw_buf_release(&selected);
    return rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(put_once, NULL, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries),           cmocka_unit_test(info),
        cmocka_unit_test(info_with_blobs),   cmocka_unit_test(info_variants),
        cmocka_unit_test(space_has_its_sdk), cmocka_unit_test(select_keys),
        cmocka_unit_test(select_ceiling),    cmocka_unit_test(refs),
        cmocka_unit_test(commits),           cmocka_unit_test(whoami),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
