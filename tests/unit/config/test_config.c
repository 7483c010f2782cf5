/* SPDX-License-Identifier: Apache-2.0 */
/* hubgate.yaml: every key with its type, default, range and bad values; unknown keys; paths; the
 * checks over the whole file; every allocation failing. */
#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/failing.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define FILE_NAME "/etc/hubgate/hubgate.yaml"
/* what every configuration needs; five lines */
#define BASE                                                                                       \
    "public_urls: [\"https://models.example\"]\n"                                                  \
    "data: /var/lib/hubgate\n"                                                                     \
    "cache: {dir: /var/cache/hubgate}\n"                                                           \
    "users_file: users.yaml\n"                                                                     \
    "policy_dir: policy.d\n"

static struct config *must_parse(const char *yaml)
{
    struct config *c = NULL;
    struct gw_error err = {0};

    if (config_parse(&c, GW_STR(FILE_NAME), gw_str_c(yaml), &err) != GW_OK) {
        fail_msg("%s\n%s", err.text, yaml);
    }
    return c;
}

/* The text of the error must be FILE:AT: and hold `said`. */
static void must_fail(const char *yaml, const char *at, const char *said)
{
    struct config *c = (struct config *)0x1;
    struct gw_error err = {0};
    char prefix[128];
    int rc = config_parse(&c, GW_STR(FILE_NAME), gw_str_c(yaml), &err);

    snprintf(prefix, sizeof(prefix), FILE_NAME ":%s: ", at);
    if (rc != GW_INVALID || strncmp(err.text, prefix, strlen(prefix)) != 0 ||
        strstr(err.text, said) == NULL) {
        fail_msg("expected %s...%s, got %s: %s\n%s", prefix, said,
                 gw_status_name((enum gw_status)rc), rc == GW_OK ? "" : err.text, yaml);
    }
    assert_ptr_equal(c, (struct config *)0x1); /* left alone */
}

static void assert_list(const struct config_list *list, const char *expected)
{
    char got[1024] = "";

    for (size_t i = 0; i < list->n; i++) {
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s" GW_STR_FMT, i != 0 ? " " : "",
                 GW_STR_ARG(list->items[i]));
    }
    assert_string_equal(got, expected);
}

static void assert_str(struct gw_str s, const char *expected)
{
    if (!gw_str_eq_c(s, expected)) {
        fail_msg("\"" GW_STR_FMT "\" is not \"%s\"", GW_STR_ARG(s), expected);
    }
}

static void test_defaults(void **state)
{
    struct config *c = must_parse(BASE);

    (void)state;
    assert_str(c->file, FILE_NAME);
    assert_list(&c->public_urls, "https://models.example");
    assert_string_equal(c->data, "/var/lib/hubgate");
    assert_string_equal(c->cache.dir, "/var/cache/hubgate");
    assert_false(c->cache.verify_before);
    assert_str(c->upstream.url, "https://huggingface.co");
    assert_null(c->upstream.token_file);
    assert_null(c->upstream.ca_file);
    assert_int_equal(c->upstream.proxy.n, 0);
    assert_int_equal(c->upstream.redirect_hosts.n, 9);
    assert_str(c->upstream.redirect_hosts.items[0], "cas-bridge.xethub.hf.co");
    assert_str(c->upstream.redirect_hosts.items[8], "cdn-lfs-us-1.huggingface.co");
    assert_int_equal(c->upstream.ttl_ms, 60000);
    assert_int_equal(c->upstream.stale_max_ms, 3600000);
    assert_int_equal(c->upstream.connect_timeout_ms, 5000);
    assert_int_equal(c->upstream.stall_timeout_ms, 15000);
    assert_int_equal(c->upstream.transfers, 4);
    assert_int_equal(c->upstream.max_transfers, 16);
    assert_int_equal(c->redis.servers.n, 0);
    assert_int_equal(c->redis.timeout_ms, 200);
    assert_int_equal(c->n_ldap, 0);
    assert_string_equal(c->users_file, "/etc/hubgate/users.yaml");
    assert_string_equal(c->policy_dir, "/etc/hubgate/policy.d");
    assert_null(c->audit_file);
    assert_list(&c->metrics_allow, "127.0.0.1 ::1");
    assert_int_equal(c->identity.refresh_ms, 300000);
    assert_int_equal(c->identity.stale_max_ms, 3600000);
    assert_int_equal(c->identity.token_default_ms, INT64_C(90) * 86400000);
    assert_int_equal(c->identity.token_max_ms, INT64_C(365) * 86400000);
    assert_int_equal(c->limits.wait_ms, 30000);
    assert_int_equal(c->limits.uploads, 256);
    assert_int_equal(c->limits.jobs[0], 8);
    assert_int_equal(c->limits.jobs[1], 4);
    assert_int_equal(c->limits.jobs[2], 16);
    assert_int_equal(c->limits.jobs[3], 8);
    assert_int_equal(c->limits.jobs[4], 8);
    assert_int_equal(c->limits.jobs[5], 8);
    assert_int_equal(c->limits.jobs[6], 4);
    assert_string_equal(c->git.command, "/usr/bin/hubgate");
    assert_int_equal(c->git.push_bytes, INT64_C(4) << 30);
    assert_int_equal(c->git.push_ms, 600000);
    assert_int_equal(c->git.clones, 32);
    config_free(c);
    config_free(NULL);
}

static void test_everything_given(void **state)
{
    struct config *c = must_parse(
        "public_urls: [\"https://models.example\", \"http://127.0.0.1:8080\", "
        "\"https://[::1]:8\"]\n"
        "data: data\n"
        "cache: {dir: \"../cache\", verify: before}\n"
        "upstream:\n"
        "  url: http://hub.example:8000\n"
        "  token_file: token\n"
        "  ca_file: /ca.pem\n"
        "  proxy: http://proxy:3128\n"
        "  redirect_hosts: []\n"
        "  ttl: 0\n"
        "  stale_max: 30d\n"
        "  connect_timeout: 100ms\n"
        "  stall_timeout: 300\n"
        "  transfers: 8\n"
        "  max_transfers: 64\n"
        "policy_dir: /p\n"
        "audit_file: log/audit.jsonl\n"
        "identity: {refresh: 1s, stale_max: 7d, token_default: 60s, token_max: 366d}\n"
        "limits: {wait: 300s, ldap_jobs: 1, upstream_jobs: 256, repo_jobs: 2, disk_jobs: 3}\n"
        "ldap:\n"
        "- name: corp\n"
        "  urls: [\"ldaps://a\", \"ldap://b:390\"]\n"
        "  start_tls: true\n"
        "  ca_file: ldap.pem\n"
        "  bind_dn: cn=gate,dc=x\n"
        "  bind_password_file: ldap.secret\n"
        "  user_base: ou=people,dc=x\n"
        "  user_filter: (sAMAccountName=${user})\n"
        "  direct_bind: uid=${user},dc=x\n"
        "  name_attr: sAMAccountName\n"
        "  id_attr: objectGUID\n"
        "  display_attr: displayName\n"
        "  mail_attr: proxyAddresses\n"
        "  groups: search\n"
        "  group_base: ou=groups,dc=x\n"
        "  group_filter: (uniqueMember=${dn})\n"
        "  nested: true\n"
        "  timeout: 100ms\n"
        "- {name: x2, urls: [\"ldap://127.0.0.1\"], user_base: dc=y}\n");
    const struct config_ldap *d = &c->ldap[0];

    (void)state;
    assert_list(&c->public_urls, "https://models.example http://127.0.0.1:8080 https://[::1]:8");
    assert_string_equal(c->data, "/etc/hubgate/data");
    assert_string_equal(c->cache.dir, "/etc/hubgate/../cache");
    assert_true(c->cache.verify_before);
    assert_str(c->upstream.url, "http://hub.example:8000");
    assert_string_equal(c->upstream.token_file, "/etc/hubgate/token");
    assert_string_equal(c->upstream.ca_file, "/ca.pem");
    assert_string_equal(c->upstream.proxy.p, "http://proxy:3128"); /* ends in NUL */
    assert_int_equal(c->upstream.redirect_hosts.n, 0);
    assert_int_equal(c->upstream.ttl_ms, 0);
    assert_int_equal(c->upstream.stale_max_ms, INT64_C(30) * 86400000);
    assert_int_equal(c->upstream.connect_timeout_ms, 100);
    assert_int_equal(c->upstream.stall_timeout_ms, 300000);
    assert_int_equal(c->upstream.transfers, 8);
    assert_int_equal(c->upstream.max_transfers, 64);
    assert_null(c->users_file);
    assert_string_equal(c->policy_dir, "/p");
    assert_string_equal(c->audit_file, "/etc/hubgate/log/audit.jsonl");
    assert_int_equal(c->identity.refresh_ms, 1000);
    assert_int_equal(c->identity.stale_max_ms, 7 * 86400000);
    assert_int_equal(c->identity.token_default_ms, 60000);
    assert_int_equal(c->identity.token_max_ms, INT64_C(366) * 86400000);
    assert_int_equal(c->limits.wait_ms, 300000);
    assert_int_equal(c->limits.jobs[0], 1);
    assert_int_equal(c->limits.jobs[2], 256);
    assert_int_equal(c->limits.jobs[3], 2);
    assert_int_equal(c->limits.jobs[4], 3);
    assert_int_equal(c->n_ldap, 2);
    assert_str(d->name, "corp");
    assert_list(&d->urls, "ldaps://a ldap://b:390");
    assert_true(d->start_tls);
    assert_string_equal(d->ca_file, "/etc/hubgate/ldap.pem");
    assert_str(d->bind_dn, "cn=gate,dc=x");
    assert_string_equal(d->bind_password_file, "/etc/hubgate/ldap.secret");
    assert_str(d->user_base, "ou=people,dc=x");
    assert_str(d->user_filter, "(sAMAccountName=${user})");
    assert_str(d->direct_bind, "uid=${user},dc=x");
    assert_str(d->name_attr, "sAMAccountName");
    assert_str(d->id_attr, "objectGUID");
    assert_str(d->display_attr, "displayName");
    assert_str(d->mail_attr, "proxyAddresses");
    assert_str(d->groups, "search");
    assert_str(d->group_base, "ou=groups,dc=x");
    assert_str(d->group_filter, "(uniqueMember=${dn})");
    assert_true(d->nested);
    assert_int_equal(d->timeout_ms, 100);
    assert_int_equal(d->line, 21); /* for those who check deeper */
    assert_int_equal(d->column, 3);
    d = &c->ldap[1];
    assert_false(d->start_tls);
    assert_null(d->ca_file);
    assert_int_equal(d->bind_dn.n, 0);
    assert_null(d->bind_password_file);
    assert_str(d->user_filter, "(uid=${user})");
    assert_int_equal(d->direct_bind.n, 0);
    assert_str(d->name_attr, "uid");
    assert_str(d->id_attr, "entryUUID");
    assert_str(d->display_attr, "cn");
    assert_str(d->mail_attr, "mail");
    assert_str(d->groups, "memberof");
    assert_str(d->group_filter, "(member=${dn})");
    assert_false(d->nested);
    assert_int_equal(d->timeout_ms, 3000);
    assert_int_equal(d->line, 39);
    config_free(c);
}

/* {what follows BASE, where, what is said} */
static void test_bad_values(void **state)
{
    static const struct {
        const char *more, *at, *said;
    } rows[] = {
        /* unknown keys, at the key, with a hint */
        {"upsteam: {}\n", "6:1", "unknown key \"upsteam\"; did you mean \"upstream\"?"},
        {"zzz: 1\n", "6:1", "unknown key \"zzz\"; see docs/config.md"},
        {"upstream: {uri: x}\n", "6:12", "did you mean \"url\"?"},
        {"limits:\n  wait: 1s\n  lpad_jobs: 3\n", "8:3", "did you mean \"ldap_jobs\"?"},
        {"identity: {tokenmax: 1d}\n", "6:12", "did you mean \"token_max\"?"},
        {"Upstream: {}\n", "6:1", "did you mean \"upstream\"?"},
        {"data: /other\n", "6:1", "data"}, /* given twice */
        /* kinds */
        {"upstream: [a]\n", "6:11", "a map of options"},
        {"upstream: x\n", "6:11", "a map of options"},
        {"audit_file: [a]\n", "6:13", "a single value, not a list"},
        {"audit_file: {a: b}\n", "6:13", "a single value, not a map"},
        {"upstream: {redirect_hosts: host}\n", "6:28", "a list, such as"},
        {"upstream: {redirect_hosts: [[a]]}\n", "6:29", "a list of plain values"},
        {"upstream: {redirect_hosts: [a, \"\"]}\n", "6:32", "a list of plain values"},
        {"upstream: {dns: dns.example}\n", "6:17", "an IPv4 address"},
        {"upstream: {dns: \"::1\"}\n", "6:17", "an IPv4 address"},
        {"upstream: {resolve: [\"a:192.0.2.1\", a]}\n", "6:37", "HOST:ADDRESS"},
        {"ldap: {name: x}\n", "6:7", "a list of maps: start each with \"- name:\""},
        {"ldap: [x]\n", "6:8", "each entry is a map"},
        {"metrics_allow: [\"::1\", localhost]\n", "6:24",
         "an address or a network, such as 10.0.0.0/8"},
        {"quotas: [acme=1GiB, acme]\n", "6:21",
         "NAMESPACE=SIZE, such as acme=500GiB, u-*=50GiB or *=1TiB, not \"acme\""},
        {"quotas: [\"a*b=1GiB\"]\n", "6:10", "not \"a*b=1GiB\""},
        {"quotas: [acme=much]\n", "6:10", "not \"acme=much\""},
        {"metrics_allow: [10.1.0.0/8]\n", "6:17", "not \"10.1.0.0/8\""},
        /* times: their range, their grammar */
        {"upstream: {ttl: 25h}\n", "6:17",
         "ttl: a time such as 60s, 5m, 1h, 30d, from 0s to 86400s"},
        {"upstream: {ttl: \"-1\"}\n", "6:17", "not \"-1\""},
        {"upstream: {ttl: 1 day}\n", "6:17", "not \"1 day\""},
        {"upstream: {ttl: \"\"}\n", "6:17", "not \"\""},
        {"upstream: {ttl: 99999999999999999999d}\n", "6:17", "a time"},
        {"upstream: {stale_max: 31d}\n", "6:23", "stale_max"},
        {"upstream: {connect_timeout: 99ms}\n", "6:29", "from 100ms to 60s"},
        {"upstream: {connect_timeout: 61s}\n", "6:29", "connect_timeout"},
        {"upstream: {stall_timeout: 999ms}\n", "6:27", "from 1s to 300s"},
        {"upstream: {stall_timeout: 301s}\n", "6:27", "stall_timeout"},
        {"upstream: {transfers: 0}\n", "6:23", "from 1 to 8"},
        {"upstream: {transfers: 9}\n", "6:23", "from 1 to 8"},
        {"upstream: {max_transfers: 65}\n", "6:27", "from 1 to 64"},
        {"identity: {refresh: 0}\n", "6:21", "refresh"},
        {"identity: {refresh: 2d}\n", "6:21", "refresh"},
        {"identity: {stale_max: 8d}\n", "6:23", "stale_max"},
        {"identity: {token_default: 59s}\n", "6:27", "token_default"},
        {"identity: {token_max: 367d}\n", "6:23", "token_max"},
        {"limits: {wait: 0}\n", "6:16", "wait"},
        {"limits: {wait: 301s}\n", "6:16", "wait"},
        /* numbers */
        {"limits: {ldap_jobs: 0}\n", "6:21", "ldap_jobs: a number from 1 to 256, not \"0\""},
        {"limits: {upstream_jobs: 257}\n", "6:25", "upstream_jobs"},
        {"limits: {repo_jobs: 1e2}\n", "6:21", "repo_jobs"},
        {"limits: {disk_jobs: \"+1\"}\n", "6:21", "disk_jobs"},
        {"limits: {disk_jobs: 99999999999999999999}\n", "6:21", "disk_jobs"},
        /* text and paths */
        {"audit_file: \"a\\nb\"\n", "6:13", "audit_file: one line, please"},
        {"upstream: {proxy: \"a\\nb\"}\n", "6:19", "proxy: one line, please"},
        /* the whole */
        {"upstream: {url: \"https://hub.example/\"}\n", "6:17",
         "upstream.url: scheme and host only"},
        {"upstream: {url: hub.example}\n", "6:17", "upstream.url"},
        {"upstream: {url: \"ftp://hub.example\"}\n", "6:17", "upstream.url"},
        {"upstream: {url: \"https://\"}\n", "6:17", "upstream.url"},
        {"upstream: {url: \"https://u:p@host\"}\n", "6:17", "upstream.url"},
        {"upstream: {url: \"\"}\n", "6:17", "upstream.url"},
        {"redis: {servers: [\"redis://127.0.0.1\"]}\n", "6:18", "needs cluster_key_file"},
        {"redis: {user: me}\n", "6:15", "redis.user needs redis.password_file"},
        {"node_url: https://node1.internal/\n", "6:11", "node_url: scheme and host only"},
        {"node_url: node1.internal\n", "6:11", "node_url: scheme and host only"},
        {"upstream: {ttl: 2h}\n", "6:17", "upstream.stale_max must not be shorter"},
        {"upstream:\n  ttl: 2m\n  stale_max: 1m\n", "8:14",
         "upstream.stale_max must not be shorter"},
        {"identity: {refresh: 2h}\n", "6:21", "identity.stale_max must not be shorter"},
        {"identity: {token_max: 30d}\n", "6:23", "identity.token_default must not be longer"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char yaml[1024];

        snprintf(yaml, sizeof(yaml), BASE "%s", rows[i].more);
        must_fail(yaml, rows[i].at, rows[i].said);
    }
}

static void test_bad_directories(void **state)
{
#define DIRECTORY " name: corp\n  urls: [\"ldaps://a\"]\n  user_base: dc=x\n"
    static const struct {
        const char *more, *at, *said;
    } rows[] = {
        {"ldap:\n- urls: [\"ldaps://a\"]\n", "7:3", "key \"name\" is missing"},
        {"ldap:\n- {name: a, user_base: x}\n", "7:3", "key \"urls\" is missing"},
        {"ldap:\n- {name: a, urls: [], user_base: x}\n", "7:19", "urls: at least one"},
        {"ldap:\n- {name: a, urls: [\"ldap://a\"]}\n", "7:3", "key \"user_base\" is missing"},
        {"ldap:\n- {name: \"\", urls: [\"ldap://a\"], user_base: x}\n", "7:10",
         "name: must not be empty"},
        {"ldap:\n- {name: Corp, urls: [\"ldap://a\"], user_base: x}\n", "7:3", "[a-z0-9]{1,32}"},
        {"ldap:\n- {name: file, urls: [\"ldap://a\"], user_base: x}\n", "7:3", "[a-z0-9]{1,32}"},
        {"ldap:\n- {name: service, urls: [\"ldap://a\"], user_base: x}\n", "7:3", "\"service\""},
        {"ldap:\n- {name: a23456789012345678901234567890123, urls: [\"ldap://a\"], user_base: x}\n",
         "7:3", "[a-z0-9]{1,32}"},
        {"ldap:\n-" DIRECTORY "  bind_dn: cn=x\n", "7:3", "bind_dn needs bind_password_file"},
        {"ldap:\n-" DIRECTORY "  groups: search\n", "7:3", "groups: search needs group_base"},
        {"ldap:\n-" DIRECTORY "  nested: true\n", "7:3", "nested needs group_base"},
        {"ldap:\n-" DIRECTORY "  groups: all\n", "10:11", "is not one of: memberof, search"},
        {"ldap:\n-" DIRECTORY "  start_tls: yes\n", "10:14", "true or false, not \"yes\""},
        {"ldap:\n-" DIRECTORY "  timeout: 2m\n", "10:12", "from 100ms to 60s"},
        {"ldap:\n-" DIRECTORY "  verify: off\n", "10:3", "unknown key \"verify\""},
        {"ldap:\n-" DIRECTORY "-" DIRECTORY, "10:3", "two directories are named \"corp\""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char yaml[1024];

        snprintf(yaml, sizeof(yaml), BASE "%s", rows[i].more);
        must_fail(yaml, rows[i].at, rows[i].said);
    }
}

static void test_what_is_missing(void **state)
{
    static const struct {
        const char *yaml, *at, *said;
    } rows[] = {
        {"", "1:1", "key \"public_urls\" is missing: URLs under which"},
        {"- a\n", "1:1", "a map of options is expected"},
        {"x\n", "1:1", "a map of options is expected"},
        {"public_urls: []\n", "1:14", "public_urls: at least one"},
        {"public_urls: [\"https://a\"]\n", "1:1", "key \"data\" is missing"},
        {"public_urls: [\"https://a\"]\ndata: \"\"\n", "2:7", "data: must not be empty"},
        {"public_urls: [\"https://a\"]\ndata:\n", "2:6", "data: must not be empty"},
        {"public_urls: [\"https://a\"]\ndata: d\n", "1:1", "key \"cache\" is missing"},
        {"public_urls: [\"https://a\"]\ndata: d\ncache: {}\n", "3:8", "key \"dir\" is missing"},
        {"public_urls: [\"https://a\"]\ndata: d\ncache: {dir: c}\n", "1:1",
         "key \"policy_dir\" is missing"},
        {"public_urls: [\"https://a\"]\ndata: d\ncache: {dir: c}\npolicy_dir: p\n", "1:1",
         "nobody could log in"},
        {"public_urls: [\"https://a\"]\ndata: d\ncache: {dir: c}\npolicy_dir: p\nldap: []\n", "1:1",
         "nobody could log in"},
        {"public_urls: [\"https://a\", \"https://b/\"]\ndata: d\ncache: {dir: c}\npolicy_dir: p\n"
         "users_file: u\n",
         "1:28", "public_urls: scheme and host only"},
        {"public_urls: [models.example]\ndata: d\ncache: {dir: c}\npolicy_dir: p\nusers_file: u\n",
         "1:15", "public_urls"},
        {"public_urls: [\"https://a\"]\ndata: d\ncache: {dir: c, verify: never}\n", "3:25",
         "verify: \"never\" is not one of: after, before"},
        {"public_urls: [\"https://a\"\ndata: d\n", "2:", ""},
        {"a: &x 1\n", "1:4", ""},
        {"data: \"a\\0b\"\n", "1:", ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct config *c = NULL;
        struct gw_error err = {0};
        char prefix[128];

        snprintf(prefix, sizeof(prefix), FILE_NAME ":%s", rows[i].at);
        assert_int_equal(config_parse(&c, GW_STR(FILE_NAME), gw_str_c(rows[i].yaml), &err),
                         GW_INVALID);
        assert_null(c);
        if (strncmp(err.text, prefix, strlen(prefix)) != 0 ||
            strstr(err.text, rows[i].said) == NULL) {
            fail_msg("expected %s...%s, got %s", prefix, rows[i].said, err.text);
        }
    }
}

static void test_relative_to_root(void **state)
{
    struct config *c = NULL;
    struct gw_error err = {0};

    (void)state;
    assert_int_equal(config_parse(&c, GW_STR("/hubgate.yaml"), GW_STR(BASE), &err), GW_OK);
    assert_string_equal(c->users_file, "/users.yaml");
    config_free(c);
}

static void put_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_load(void **state)
{
    char dir[] = "/tmp/hubgate-config-XXXXXX", path[64], link[64], expected[128];
    struct config *c = NULL;
    struct gw_error err = {0};
    char *large = calloc(1, CONFIG_MAX_BYTES + 1);

    (void)state;
    assert_non_null(large);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/hubgate.yaml", dir);
    assert_int_equal(config_load(&c, path, &err), GW_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
    put_file(path, BASE, strlen(BASE));
    assert_int_equal(config_load(&c, path, &err), GW_OK);
    snprintf(expected, sizeof(expected), "%s/users.yaml", dir);
    assert_string_equal(c->users_file, expected);
    config_free(c);
    /* a link: paths start at the folder of the file itself */
    snprintf(link, sizeof(link), "%s/current", dir);
    assert_int_equal(symlink("hubgate.yaml", link), 0);
    assert_int_equal(config_load(&c, link, &err), GW_OK);
    assert_str(c->file, path);
    config_free(c);
    memset(large, '#', CONFIG_MAX_BYTES + 1);
    put_file(path, large, CONFIG_MAX_BYTES + 1);
    assert_int_equal(config_load(&c, path, &err), GW_TOO_LARGE);
    assert_int_equal(config_load(&c, dir, &err), GW_IO); /* a folder */
    unlink(path);
    unlink(link);
    rmdir(dir);
    free(large);
}

static int parse_once(void *ctx)
{
    struct config *c = NULL;
    struct gw_error err = {0};
    int rc = config_parse(&c, GW_STR(FILE_NAME), gw_str_c(ctx), &err);

    assert_true((rc == GW_OK) == (c != NULL));
    config_free(c);
    return rc;
}

static void test_no_memory(void **state)
{
    (void)state;
    with_failing_alloc(parse_once,
                       BASE "ldap:\n- {name: a, urls: [\"ldaps://a\"], user_base: x}\n"
                            "upstream: {redirect_hosts: [a, b, c]}\n",
                       3);
}

/* Every option of a group is a row of the reference, with its help. */
static void test_markdown(void **state)
{
    static const char *const wanted[] = {
        "| `public_urls` | list | **required** | URLs",
        "| `cache.verify` | word | `after` |",
        "| `upstream.ttl` | time | `60s` |",
        "| `ldap[].user_filter` | text | `(uid=${user})` |",
        "| `limits.disk_jobs` | number | `8` |",
        "\n## `identity`\n",
    };
    struct gw_buf b;

    (void)state;
    gw_buf_init(&b, 1 << 20);
    config_put_markdown(&b);
    assert_false(b.failed);
    for (size_t i = 0; i < COUNT(wanted); i++) {
        if (strstr(b.p, wanted[i]) == NULL) {
            fail_msg("not in the reference: %s", wanted[i]);
        }
    }
    gw_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything_given),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bad_directories),
        cmocka_unit_test(test_what_is_missing),
        cmocka_unit_test(test_relative_to_root),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_markdown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
