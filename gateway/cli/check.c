/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - `hubgate check`, `reload` and `explain`. */
#include "gateway/cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/net.h"

#define REDIS_MS 10000

static void line(const char *what, bool fine, const char *fmt, ...) GW_PRINTF(3, 4);

static void line(const char *what, bool fine, const char *fmt, ...)
{
    va_list ap;

    printf("%-6s %-13s ", fine ? "ok" : "FAILED", what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static struct gw_str resolve_now(void *ctx, struct gw_str host)
{
    static char buf[64];
    struct gw_error err;

    (void)ctx;
    return gw_resolve(host, buf, sizeof(buf), &err) == GW_OK ? gw_str_c(buf) : GW_STR("");
}

static bool check_directories(const struct gateway_snapshot *s)
{
    bool fine = true;

    for (size_t i = 0; i < s->config->n_ldap; i++) {
        struct gw_buf report;
        struct gw_error err;
        gw_buf_init(&report, 16u << 10);
        if (auth_ldap_probe(&s->ldap[i], resolve_now, NULL, gw_mono_ms() + s->ldap[i].timeout_ms,
                            &report, &err) == GW_OK)
            line("directory", true, GW_STR_FMT ": " GW_STR_FMT, GW_STR_ARG(s->ldap[i].name),
                 GW_STR_ARG(gw_str_trim(gw_buf_str(&report))));
        else {
            line("directory", false, GW_STR_FMT ": %s", GW_STR_ARG(s->ldap[i].name), err.text);
            fine = false;
        }
        gw_buf_release(&report);
    }
    return fine;
}

static bool check_redis(const struct gateway_snapshot *s)
{
    struct cache_share_options o = gateway_share_options(s);
    bool fine = true;

    for (size_t i = 0; i < o.n_servers; i++) {
        struct gw_error err;
        int rc = cache_share_probe(&o, i, gw_mono_ms() + REDIS_MS, &err);

        line("redis", rc == GW_OK, "%s",
             rc == GW_OK ? s->config->redis.servers.items[i].p : err.text);
        fine = fine && rc == GW_OK;
    }
    return fine;
}

static bool check_users(const struct gateway_snapshot *s)
{
    struct gateway gw = {.config = s->config};
    struct auth_users *users;
    struct gw_error err;

    if (s->config->users_file == NULL)
        return true;
    if (identity_users(&gw, &users, &err) != GW_OK) {
        line("account file", false, "%s", err.text);
        return false;
    }
    line("account file", true, "%s: %zu people", s->config->users_file, auth_users_count(users));
    auth_users_free(users);
    return true;
}

/* Not needed to run: without it nobody clones or pushes. */
static void check_git(const struct gateway_snapshot *s)
{
    const char *command = s->config->git.command;

    if (access(command, X_OK) != 0)
        line("git", true, "no clone or push: git.command %s: %s", command, strerror(errno));
    else if (access("/usr/bin/git", X_OK) != 0 && access("/bin/git", X_OK) != 0)
        line("git", true, "no clone or push: git is not installed");
    else
        line("git", true, "clone and push by %s", command);
}

int cli_check(struct cli *cli)
{
    struct gateway_snapshot *s = cli_snapshot(cli);
    struct policy_test_result tests;
    struct policy_counts n;
    struct gw_buf report;
    struct gw_error err;
    bool fine = true;

    if (s == NULL)
        return 2;
    line("configuration", true, GW_STR_FMT, GW_STR_ARG(s->config->file));
    n = policy_count(s->policy);
    line("rules", true, "%zu rules, %zu groups, %zu services, %zu private namespaces", n.rules,
         n.groups, n.services, n.private_namespaces);
    gw_buf_init(&report, 1u << 20);
    tests = policy_test(s->policy, gw_wall_ms(), &report);
    line("rule tests", tests.failed == 0, "%u passed, %u failed", tests.passed, tests.failed);
    if (report.n)
        fwrite(report.p, 1, report.n, stdout);
    gw_buf_release(&report);
    fine = tests.failed == 0;
    if (gateway_check_folders(s, geteuid(), getegid(), &err) == GW_OK)
        line("folders", true, "%s, %s", s->config->data, s->config->cache.dir);
    else {
        line("folders", false, "%s", err.text);
        fine = false;
    }
    fine = check_users(s) && fine;
    check_git(s);
    if (!cli->offline) {
        fine = check_directories(s) && fine;
        fine = check_redis(s) && fine;
    }
    gateway_snapshot_free(s);
    return fine ? 0 : 1;
}

int cli_reload(struct cli *cli)
{
    const char *path = cli->pid_file ? cli->pid_file : "/run/nginx.pid";
    struct gateway_snapshot *s;
    long pid = 0;
    FILE *f = fopen(path, "r"); /* before the check gives up our rights */

    if (f == NULL)
        return cli_error("%s: %s (name nginx's pid file with --pid-file)", path, strerror(errno));
    if (fscanf(f, "%ld", &pid) != 1 || pid <= 1) {
        fclose(f);
        return cli_error("%s: not a pid file", path);
    }
    fclose(f);
    s = cli_snapshot(&(struct cli){.config_path = cli->config_path, .keep_rights = true});
    if (s == NULL)
        return 2;
    gateway_snapshot_free(s);
    if (kill((pid_t)pid, SIGHUP) != 0)
        return cli_error("nginx (pid %ld): %s", pid, strerror(errno));
    printf("nginx (pid %ld) reloads; see its error log\n", pid);
    return 0;
}

int cli_explain(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw = NULL;
    struct policy_subject who;
    struct policy_object object;
    struct policy_decision d;
    enum policy_action action;
    struct auth_subject known;
    struct gw_arena a;
    struct gw_buf out;
    struct gw_error err;

    if (cli->argc != 3)
        return cli_usage("explain");
    if (policy_who_parse(gw_str_c(cli->argv[0]), &who, &err) != GW_OK ||
        policy_resource_parse(gw_str_c(cli->argv[2]), &object, &err) != GW_OK)
        return cli_error("%s", err.text);
    if (!policy_action_parse(gw_str_c(cli->argv[1]), &action))
        return cli_error("%s: an action is discover, read, write, create, delete or admin",
                         cli->argv[1]);
    gw_arena_init(&a, 16u << 20);
    if (who.kind == POLICY_USER && cli->n_groups == 0) { /* groups as the gateway knows them */
        gw = cli_open(cli, &s);
        if (gw == NULL)
            return 2;
        if (cli_find_subject(gw, &who, &a, &known, &err) == GW_OK) {
            who.groups = known.groups;
            who.n_groups = known.n_groups;
        } else {
            fprintf(stderr,
                    "hubgate: " GW_STR_FMT
                    " has not logged in yet: explained without groups; name them with --group\n",
                    GW_STR_ARG(who.name));
        }
    } else {
        s = cli_snapshot(cli);
        if (s == NULL)
            return 2;
        who.groups = cli->groups;
        who.n_groups = cli->n_groups;
    }
    gw_buf_init(&out, 4u << 20);
    d = policy_explain(s->policy, &who, action, &object, gw_wall_ms(), cli->json, &out);
    fwrite(out.p, 1, out.n, stdout);
    gw_buf_release(&out);
    gw_arena_release(&a);
    if (gw != NULL)
        cli_close(gw, s);
    else
        gateway_snapshot_free(s);
    return d.effect == POLICY_ALLOW ? 0 : 1;
}
