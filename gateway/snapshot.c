/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.c - configuration, rules and secrets of one cycle, read by the master before fork and
 * before it drops its rights. All or nothing: a bad file leaves the old cycle running.
 */
#include "gateway/internal.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/alloc.h"

#define POLICY_FILES_MAX 1000u
#define CLUSTER_KEY_MIN 32u

static int load_policy(struct gateway_snapshot *s, struct gw_buf *report, struct gw_error *err)
{
    const char *dir = s->config->policy_dir;
    struct gw_arena a;
    struct gw_str *names, path;
    struct policy_file *files;
    size_t n, n_files = 0;
    int rc;

    gw_arena_init(&a, 2 * POLICY_MAX_BYTES);
    rc = gw_dir_list(dir, POLICY_FILES_MAX, &a, &names, &n, err);
    if (rc != GW_OK) {
        gw_fail_prefix(err, GW_STR_FMT ": policy_dir", GW_STR_ARG(s->config->file));
        goto done;
    }
    files = gw_arena_alloc(&a, (n + 1) * sizeof(*files));
    for (size_t i = 0; files != NULL && i < n; i++) {
        if (names[i].p[0] == '.' || !gw_str_ends(names[i], GW_STR(".yaml")))
            continue;
        path = gw_arena_printf(&a, "%s/" GW_STR_FMT, dir, GW_STR_ARG(names[i]));
        if (path.p == NULL) {
            rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for the rules");
            goto done;
        }
        files[n_files].name = path;
        rc = gw_file_read(path.p, POLICY_MAX_BYTES, &a, &files[n_files++].yaml, err);
        if (rc != GW_OK)
            goto done;
    }
    if (files == NULL) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for the rules");
        goto done;
    }
    if (n_files == 0) {
        rc = gw_fail(err, GW_INVALID, 0,
                     "%s: no *.yaml file: without rules nobody may do anything; see docs/policy.md",
                     dir);
        goto done;
    }
    rc = policy_parse(&s->policy, files, n_files, report, err);
done:
    gw_arena_release(&a);
    return rc;
}

static int load_secret(struct gateway_snapshot *s, const char *path, struct gw_str *out,
                       struct gw_error *err)
{
    *out = GW_STR("");
    return path ? gw_file_read_secret(path, 4096, &s->secrets, out, err) : GW_OK;
}

static int load_directory(struct gateway_snapshot *s, const struct config_ldap *c,
                          struct auth_ldap *d, struct gw_error *err)
{
    struct auth_ldap_server *servers =
        gw_arena_alloc(&s->secrets, (c->urls.n + 1) * sizeof(*servers));
    int rc = GW_OK;

    if (servers == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the directories");
    *d = (struct auth_ldap){
        .name = c->name,
        .servers = servers,
        .n_servers = c->urls.n,
        .start_tls = c->start_tls,
        .ca_file = c->ca_file,
        .bind_dn = c->bind_dn,
        .user_base = c->user_base,
        .user_filter = c->user_filter,
        .direct_bind = c->direct_bind,
        .name_attr = c->name_attr,
        .id_attr = c->id_attr,
        .display_attr = c->display_attr,
        .mail_attr = c->mail_attr,
        .group_mode = gw_str_eq_c(c->groups, "search") ? AUTH_GROUPS_SEARCH : AUTH_GROUPS_MEMBEROF,
        .group_base = c->group_base,
        .group_filter = c->group_filter,
        .nested = c->nested,
        .timeout_ms = c->timeout_ms,
    };
    for (size_t i = 0; i < c->urls.n && rc == GW_OK; i++) {
        rc = auth_ldap_url_parse(c->urls.items[i], &s->secrets, &servers[i], err);
        if (rc == GW_OK && !servers[i].ldaps && !c->start_tls && !servers[i].loopback)
            rc = gw_fail(
                err, GW_INVALID, 0,
                GW_STR_FMT
                ": passwords would cross the network in clear: use ldaps:// or start_tls: true",
                GW_STR_ARG(c->urls.items[i]));
    }
    if (rc == GW_OK)
        rc = auth_ldap_template_check(c->user_filter, false, err);
    if (rc == GW_OK && c->direct_bind.n)
        rc = auth_ldap_template_check(c->direct_bind, true, err);
    if (rc == GW_OK && d->group_mode == AUTH_GROUPS_SEARCH)
        rc = auth_ldap_template_check(c->group_filter, false, err);
    if (rc == GW_OK)
        rc = load_secret(s, c->bind_password_file, &d->bind_password, err);
    if (rc != GW_OK)
        gw_fail_prefix(err, GW_STR_FMT ":%u:%u: ldap", GW_STR_ARG(s->config->file), c->line,
                       c->column);
    return rc;
}

static int load_redis(struct gateway_snapshot *s, struct gw_error *err)
{
    const struct config *c = s->config;
    size_t n = c->redis.servers.n;
    int rc = GW_OK;

    s->redis = gw_arena_alloc(&s->secrets, (n + 1) * sizeof(*s->redis));
    if (s->redis == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the addresses of Redis");
    for (size_t i = 0; rc == GW_OK && i < n; i++)
        rc = cache_redis_url_parse(c->redis.servers.items[i], &s->secrets, &s->redis[i], err);
    if (rc != GW_OK)
        return gw_fail_prefix(err, GW_STR_FMT ":%u:%u: redis.servers", GW_STR_ARG(c->file),
                              c->redis.line, c->redis.column);
    rc = load_secret(s, c->redis.password_file, &s->redis_password, err);
    if (rc == GW_OK)
        rc = load_secret(s, c->cluster_key_file, &s->cluster_key, err);
    if (rc == GW_OK && c->cluster_key_file != NULL && s->cluster_key.n < CLUSTER_KEY_MIN)
        rc = gw_fail(err, GW_INVALID, 0,
                     "cluster_key_file: %s holds %zu bytes, %u are the least: openssl rand -base64 "
                     "48",
                     c->cluster_key_file, s->cluster_key.n, CLUSTER_KEY_MIN);
    return rc;
}

struct cache_share_options gateway_share_options(const struct gateway_snapshot *s)
{
    const struct config *c = s->config;

    return (struct cache_share_options){
        .servers = s->redis,
        .n_servers = c->redis.servers.n,
        .ca_file = c->redis.ca_file,
        .user = c->redis.user,
        .password = s->redis_password,
        .cluster_key = s->cluster_key,
        .node_url = c->node_url,
        .node_ca_file = c->node_ca_file,
        .timeout_ms = c->redis.timeout_ms,
    };
}

int gateway_snapshot_load(struct gateway_snapshot **out, const char *config_path,
                          struct gw_buf *report, struct gw_error *err)
{
    struct gateway_snapshot *s = gw_alloc(sizeof(*s));
    int rc;

    if (s == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the configuration");
    gw_arena_init(&s->secrets, 4u << 20);
    gw_arena_keep_secret(&s->secrets);
    auth_ldap_start(); /* here, while there is one thread and nobody waits */
    rc = config_load(&s->config, config_path, err);
    if (rc == GW_OK)
        rc = load_policy(s, report, err);
    if (rc == GW_OK)
        rc = load_secret(s, s->config->upstream.token_file, &s->upstream_token, err);
    if (rc == GW_OK)
        rc = load_redis(s, err);
    if (rc == GW_OK && s->config->n_ldap) {
        s->ldap = gw_arena_alloc(&s->secrets, s->config->n_ldap * sizeof(*s->ldap));
        rc = s->ldap ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for the directories");
    }
    for (size_t i = 0; rc == GW_OK && i < s->config->n_ldap; i++)
        rc = load_directory(s, &s->config->ldap[i], &s->ldap[i], err);
    if (rc != GW_OK) {
        gateway_snapshot_free(s);
        return rc;
    }
    *out = s;
    return GW_OK;
}

void gateway_snapshot_free(struct gateway_snapshot *s)
{
    if (s == NULL)
        return;
    policy_unref(s->policy);
    config_free(s->config);
    gw_arena_release(&s->secrets);
    gw_free(s);
}

const struct config *gateway_snapshot_config(const struct gateway_snapshot *s)
{
    return s->config;
}

static int check_folder(const char *what, const char *path, uid_t uid, struct gw_error *err)
{
    struct passwd *pw = getpwuid(uid);
    const char *user = pw ? pw->pw_name : "the worker user";
    struct stat st;

    if (stat(path, &st) != 0)
        return gw_fail(err, GW_INVALID, errno, "%s: %s: %s. Make it: install -d -o %s -m 0750 %s",
                       what, path, strerror(errno), user, path);
    if (!S_ISDIR(st.st_mode))
        return gw_fail(err, GW_INVALID, 0, "%s: %s is not a folder", what, path);
    if (st.st_uid != uid)
        return gw_fail(err, GW_INVALID, 0,
                       "%s: %s belongs to uid %u, but workers run as %s (uid %u): chown -R %s %s",
                       what, path, (unsigned)st.st_uid, user, (unsigned)uid, user, path);
    if ((st.st_mode & S_IRWXU) != S_IRWXU || (st.st_mode & S_IWOTH))
        return gw_fail(err, GW_INVALID, 0,
                       "%s: %s has mode %04o: its owner must have all rights and others no write: "
                       "chmod 0750 %s",
                       what, path, (unsigned)st.st_mode & 07777, path);
    return GW_OK;
}

int gateway_check_folders(const struct gateway_snapshot *s, uid_t uid, gid_t gid,
                          struct gw_error *err)
{
    int rc = check_folder("data", s->config->data, uid, err);

    (void)gid;
    return rc == GW_OK ? check_folder("cache.dir", s->config->cache.dir, uid, err) : rc;
}
