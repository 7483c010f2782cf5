/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration, rules and secrets of a cycle: all or nothing, and every error names its file. */
#include "gateway_fixture.h"

#include "tests/unit/failing.h"

#define LDAP(more)                                                                                 \
    FIXTURE_CONFIG "ldap:\n- name: corp\n  user_base: dc=x\n  urls: [\"ldap://127.0.0.1\"]\n" more
#define LDAP_AT(url, more)                                                                         \
    FIXTURE_CONFIG "ldap:\n- name: corp\n  user_base: dc=x\n  urls: [\"" url "\"]\n" more

#define REDIS(url) FIXTURE_CONFIG "cluster_key_file: key\nredis: {servers: [\"" url "\"]}\n"

static const struct row {
    const char *config, *policy; /* NULL: the good one */
    const char *said;            /* NULL: it loads */
    int status;
} rows[] = {
    {NULL, NULL, NULL, GW_OK},
    {FIXTURE_CONFIG "upsteam: {}\n", NULL, "/hubgate.yaml:8:1: unknown key \"upsteam\"",
     GW_INVALID},
    {NULL, "version: 1\nrules:\n- {id: a, alow: [read]}\n", "/policy.d/policy.yaml:3:", GW_INVALID},
    {NULL, "version: 1\n\trules:\n", "/policy.d/policy.yaml:2:", GW_INVALID},
    {NULL, "version: 2\n", "/policy.d/policy.yaml:1:", GW_INVALID},
    {LDAP(""), NULL, NULL, GW_OK},
    {LDAP_AT("ldaps://dir.example", ""), NULL, NULL, GW_OK},
    {LDAP_AT("ldap://dir.example", "  start_tls: true\n"), NULL, NULL, GW_OK},
    {LDAP_AT("ldap://dir.example", ""), NULL,
     "/hubgate.yaml:9:3: ldap: ldap://dir.example: passwords would cross the network in clear",
     GW_INVALID},
    {LDAP_AT("http://dir.example", ""), NULL, "/hubgate.yaml:9:3: ldap: ", GW_INVALID},
    {LDAP("  user_filter: (uid=x)\n"), NULL, "/hubgate.yaml:9:3: ldap: ", GW_INVALID},
    {LDAP("  user_filter: (${user}=x)\n"), NULL, "/hubgate.yaml:9:3: ldap: ", GW_INVALID},
    {LDAP("  direct_bind: ou=x\n"), NULL, "/hubgate.yaml:9:3: ldap: ", GW_INVALID},
    {LDAP("  groups: search\n  group_base: dc=x\n  group_filter: (a=b)\n"), NULL,
     "/hubgate.yaml:9:3: ldap: ", GW_INVALID},
    {LDAP("  bind_dn: cn=x\n  bind_password_file: no-such-file\n"), NULL, "/no-such-file",
     GW_NOT_FOUND},
    {REDIS("redis://127.0.0.1"), NULL, NULL, GW_OK},
    {REDIS("redis://[::1]:6380"), NULL, NULL, GW_OK},
    {REDIS("rediss://cache.example:6380"), NULL, NULL, GW_OK},
    {REDIS("redis://cache.example"), NULL,
     "/hubgate.yaml:9:18: redis.servers: redis://cache.example: what is shared, and the password, "
     "would cross the network in clear",
     GW_INVALID},
    {REDIS("rediss://u:p@cache.example"), NULL, "no user or password in a URL", GW_INVALID},
    {FIXTURE_CONFIG "cluster_key_file: short\nredis: {servers: [\"redis://127.0.0.1\"]}\n", NULL,
     "/short holds 31 bytes, 32 are the least", GW_INVALID},
    {FIXTURE_CONFIG "cluster_key_file: no-such-file\n", NULL, "/no-such-file", GW_NOT_FOUND},
    {FIXTURE_CONFIG "redis: {servers: [\"redis://127.0.0.1\"]}\n", NULL,
     "/hubgate.yaml:8:18: redis.servers needs cluster_key_file", GW_INVALID},
    {FIXTURE_CONFIG "identity: {token_max: 60s, token_default: 60s}\n", NULL, NULL, GW_OK},
};

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gateway_snapshot *s = NULL;
        struct world w;
        struct gw_buf report;
        int rc;

        world_init(&w);
        gw_buf_init(&report, 1 << 16);
        world_file(&w, "key", "0123456789abcdef0123456789abcdef\n");
        world_file(&w, "short", "0123456789abcdef0123456789abcde\n");
        if (rows[i].config != NULL) {
            world_file(&w, "hubgate.yaml", rows[i].config);
        }
        if (rows[i].policy != NULL) {
            world_file(&w, "policy.d/policy.yaml", rows[i].policy);
        }
        rc = gateway_snapshot_load(&s, w.config, &report, &w.err);
        if (rc != rows[i].status ||
            (rows[i].said != NULL && strstr(w.err.text, rows[i].said) == NULL)) {
            fail_msg("row %zu: %s: %s", i, gw_status_name((enum gw_status)rc), w.err.text);
        }
        assert_true((rc == GW_OK) == (s != NULL));
        if (rows[i].policy != NULL) {
            assert_true(report.n > 0);
        }
        gw_buf_release(&report);
        gateway_snapshot_free(s);
        world_release(&w);
    }
}

static void chmod_in(struct world *w, const char *name, mode_t mode)
{
    char path[192];

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    assert_int_equal(chmod(path, mode), 0);
}

static void test_policy_folder(void **state)
{
    struct gateway_snapshot *s = NULL;
    struct world w;
    char path[192];

    (void)state;
    world_init(&w);
    /* only *.yaml, no hidden ones, several together */
    world_file(&w, "policy.d/notes.txt", "not: [yaml");
    world_file(&w, "policy.d/.old.yaml", "not: [yaml");
    world_file(&w, "policy.d/b.yaml", "version: 1\nprivate_namespaces: [other]\n");
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_OK);
    assert_true(policy_is_private(s->policy, GW_STR("other")));
    assert_true(policy_is_private(s->policy, GW_STR("acme")));
    gateway_snapshot_free(s);
    /* one bad file of several: nothing is loaded */
    world_file(&w, "policy.d/b.yaml", "version: 1\nx: y\n");
    s = NULL;
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_INVALID);
    assert_non_null(strstr(w.err.text, "/policy.d/b.yaml:2:1: "));
    assert_null(s);
    snprintf(path, sizeof(path), "%s/policy.d", w.dir);
    assert_int_equal(gw_dir_remove(path, &w.err), GW_OK);
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_NOT_FOUND);
    assert_non_null(strstr(w.err.text, "/hubgate.yaml: policy_dir: "));
    assert_non_null(strstr(w.err.text, path));
    world_folder(&w, "policy.d");
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_INVALID);
    assert_non_null(strstr(w.err.text, "no *.yaml file"));
    assert_null(s);
    world_release(&w);
}

static void test_secrets(void **state)
{
    struct gateway_snapshot *s = NULL;
    struct world w;

    (void)state;
    world_init(&w);
    world_file(&w, "hubgate.yaml",
               "public_urls: [\"http://hub.test\"]\ndata: data\ncache: {dir: cache}\n"
               "policy_dir: policy.d\nusers_file: users.yaml\n"
               "upstream: {token_file: token}\n");
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_NOT_FOUND);
    world_file(&w, "token", "hf_secret\n");
    chmod_in(&w, "token", 0604);
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_INVALID);
    assert_non_null(strstr(w.err.text, "/token"));
    assert_null(strstr(w.err.text, "hf_secret"));
    chmod_in(&w, "token", 0600);
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_OK);
    assert_true(gw_str_eq_c(s->upstream_token, "hf_secret"));
    assert_string_equal(gateway_snapshot_config(s)->data + strlen(w.dir), "/data");
    gateway_snapshot_free(s);
    gateway_snapshot_free(NULL);
    world_release(&w);
}

static void test_folders(void **state)
{
    struct gateway_snapshot *s = NULL;
    struct world w;
    uid_t uid = geteuid();
    gid_t gid = getegid();

    (void)state;
    world_init(&w);
    assert_int_equal(gateway_snapshot_load(&s, w.config, NULL, &w.err), GW_OK);
    assert_int_equal(gateway_check_folders(s, uid, gid, &w.err), GW_OK);
    assert_int_equal(gateway_check_folders(s, uid + 1, gid, &w.err), GW_INVALID);
    assert_non_null(strstr(w.err.text, "chown -R"));
    chmod_in(&w, "cache", 0777);
    assert_int_equal(gateway_check_folders(s, uid, gid, &w.err), GW_INVALID);
    assert_non_null(strstr(w.err.text, "cache.dir: "));
    assert_non_null(strstr(w.err.text, "mode 0777"));
    chmod_in(&w, "cache", 0750);
    chmod_in(&w, "data", 0500);
    assert_int_equal(gateway_check_folders(s, uid, gid, &w.err), GW_INVALID);
    chmod_in(&w, "data", 0750);
    assert_int_equal(gw_dir_remove(s->config->data, &w.err), GW_OK);
    assert_int_equal(gateway_check_folders(s, uid, gid, &w.err), GW_INVALID);
    assert_non_null(strstr(w.err.text, "install -d"));
    world_file(&w, "data", "a file");
    assert_int_equal(gateway_check_folders(s, uid, gid, &w.err), GW_INVALID);
    assert_non_null(strstr(w.err.text, "is not a folder"));
    gateway_snapshot_free(s);
    world_release(&w);
}

static int load_once(void *ctx)
{
    struct world *w = ctx;
    struct gateway_snapshot *s = NULL;
    int rc = gateway_snapshot_load(&s, w->config, NULL, &w->err);

    assert_true((rc == GW_OK) == (s != NULL));
    if (rc == GW_OK) { /* never fewer rules than there are */
        assert_true(policy_is_private(s->policy, GW_STR("acme")));
        assert_true(policy_is_private(s->policy, GW_STR("other")));
    }
    gateway_snapshot_free(s);
    return rc;
}

static void test_no_memory(void **state)
{
    struct world w;

    (void)state;
    world_init(&w);
    world_file(&w, "hubgate.yaml", LDAP(""));
    world_file(&w, "policy.d/b.yaml", "version: 1\nprivate_namespaces: [other]\n");
    with_failing_alloc(load_once, &w, 10);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_policy_folder),
        cmocka_unit_test(test_secrets),   cmocka_unit_test(test_folders),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
