/* SPDX-License-Identifier: Apache-2.0 */
/* repos.c - `hubgate repo ...`: private repositories from the shell. */
#include "gateway/catalogue.h"
#include "gateway/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"

int cli_parse_repo(const char *word, struct repo_id *id)
{
    struct gw_str rest = gw_str_c(word), head, type = GW_STR("model");

    if (memchr(rest.p, ':', rest.n) != NULL && gw_str_split(&rest, ':', &head))
        type = head;
    if (!gw_str_eq_c(type, "model") && !gw_str_eq_c(type, "dataset") && !gw_str_eq_c(type, "space"))
        return cli_error("%s: the type is model, dataset or space", word);
    *id = (struct repo_id){.type = type};
    if (!gw_str_split(&rest, '/', &id->ns) || rest.p == NULL ||
        memchr(rest.p, '/', rest.n) != NULL || rest.n == 0)
        return cli_error("%s: a repository is named [TYPE:]NAMESPACE/NAME, such as acme/llm", word);
    id->name = rest;
    return 0;
}

static int check_private(const struct gateway_snapshot *s, const struct repo_id *id)
{
    if (policy_is_private(s->policy, id->ns))
        return 0;
    return cli_error(GW_STR_FMT " is not a private namespace: add it to private_namespaces in %s "
                                "first, else nobody would see the repository",
                     GW_STR_ARG(id->ns), s->config->policy_dir);
}

static struct gw_str author(void)
{
    const char *user = getenv("SUDO_USER");

    if (user == NULL)
        user = getenv("USER");
    return user && *user ? gw_str_c(user) : GW_STR("hubgate");
}

int cli_repo_create(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct repo_id id;
    struct gw_error err;
    int rc;

    if (cli->argc != 1)
        return cli_usage("repo create");
    if (cli_parse_repo(cli->argv[0], &id) != 0)
        return 2;
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    rc = check_private(s, &id) ? GW_INVALID
                               : repo_create(s->config->data, &id, author(), gw_wall_ms(), &err);
    if (rc == GW_OK)
        catalogue_repo_changed(gw, &id);
    if (rc == GW_OK)
        printf("made " GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT "\n", GW_STR_ARG(id.type),
               GW_STR_ARG(id.ns), GW_STR_ARG(id.name));
    else if (policy_is_private(s->policy, id.ns))
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : rc == GW_CONFLICT ? 1 : 2;
}

int cli_repo_undelete(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct repo_id id;
    struct gw_error err;
    int rc;

    if (cli->argc != 1)
        return cli_usage("repo undelete");
    if (cli_parse_repo(cli->argv[0], &id) != 0)
        return 2;
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    rc = repo_restore(s->config->data, &id, &err);
    if (rc == GW_OK)
        catalogue_repo_changed(gw, &id);
    if (rc == GW_OK)
        printf("back: " GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT "\n", GW_STR_ARG(id.type),
               GW_STR_ARG(id.ns), GW_STR_ARG(id.name));
    else
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : rc == GW_NOT_FOUND || rc == GW_CONFLICT ? 1 : 2;
}

int cli_repo_move(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct repo_id from, to;
    struct gw_error err;
    int rc;

    if (cli->argc != 2)
        return cli_usage("repo move");
    if (cli_parse_repo(cli->argv[0], &from) != 0 || cli_parse_repo(cli->argv[1], &to) != 0)
        return 2;
    if (strchr(cli->argv[1], ':') == NULL)
        to.type = from.type;
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    rc = check_private(s, &to) ? GW_INVALID : repo_move(s->config->data, &from, &to, &err);
    if (rc == GW_OK) {
        catalogue_repo_changed(gw, &from);
        catalogue_repo_changed(gw, &to);
    }
    if (rc == GW_OK)
        printf("moved to " GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT "\n", GW_STR_ARG(to.type),
               GW_STR_ARG(to.ns), GW_STR_ARG(to.name));
    else if (policy_is_private(s->policy, to.ns))
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : rc == GW_NOT_FOUND || rc == GW_CONFLICT ? 1 : 2;
}

static void show_progress(void *ctx, uint64_t done, uint64_t total, struct gw_str file)
{
    cli_bar(ctx, done, total, file);
    if (done >= total)
        cli_bar_end(ctx);
}

int cli_repo_import(struct cli *cli)
{
    struct cli_bar bar = {0};
    struct repo_progress progress = {show_progress, &bar};
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct repo_id id;
    struct gw_error err;
    char commit[41], dir[PATH_MAX];
    int rc;

    if (cli->argc != 2)
        return cli_usage("repo import");
    if (cli_parse_repo(cli->argv[0], &id) != 0)
        return 2;
    if (realpath(cli->argv[1], dir) == NULL)
        return cli_error("%s: %s", cli->argv[1], strerror(errno));
    cli->keep_reading = true; /* save_pretrained() makes files that only their owner may read */
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    rc = check_private(s, &id) ? GW_INVALID
                               : repo_import(s->config->data, &id, dir,
                                             gw_str_c(cli->message ? cli->message : "Import"),
                                             author(), gw_wall_ms(), &progress, commit, &err);
    if (rc == GW_OK)
        catalogue_repo_changed(gw, &id);
    if (rc == GW_OK)
        printf(GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT " is at %s\n", GW_STR_ARG(id.type),
               GW_STR_ARG(id.ns), GW_STR_ARG(id.name), commit);
    else if (policy_is_private(s->policy, id.ns))
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : 2;
}

struct listing {
    bool json;
    size_t n;
};

static int print_repo(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name)
{
    struct listing *l = ctx;

    if (l->json)
        printf("%s{\"type\":\"" GW_STR_FMT "\",\"id\":\"" GW_STR_FMT "/" GW_STR_FMT "\"}",
               l->n ? ",\n " : "", GW_STR_ARG(type), GW_STR_ARG(ns), GW_STR_ARG(name));
    else
        printf(GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT "\n", GW_STR_ARG(type), GW_STR_ARG(ns),
               GW_STR_ARG(name));
    l->n++;
    return GW_OK;
}

int cli_repo_list(struct cli *cli)
{
    struct listing l = {.json = cli->json};
    struct gateway_snapshot *s = cli_snapshot(cli);
    struct gw_error err;
    int rc;

    if (s == NULL)
        return 2;
    if (l.json)
        putchar('[');
    rc = repo_each(s->config->data, print_repo, &l, &err);
    if (l.json)
        puts("]");
    if (rc != GW_OK)
        cli_error("%s", err.text);
    gateway_snapshot_free(s);
    return rc == GW_OK ? 0 : 2;
}

/* ---- usage ---- */

struct usage {
    const struct config *config;
    struct gw_str ns; /* of which the repositories are shown; empty: namespaces */
    bool json;
    size_t n, cap;
    struct usage_row {
        char name[256];
        uint64_t bytes;
    } * rows;
};

static int add_usage(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name)
{
    struct usage *u = ctx;
    const struct repo_id id = {type, ns, name};
    char label[sizeof(u->rows->name)];
    struct usage_row *rows;
    struct gw_error err;
    uint64_t bytes;
    size_t i = 0;

    if (u->ns.n != 0 && !gw_str_ieq(u->ns, ns))
        return GW_OK;
    if (repo_usage(u->config->data, &id, &bytes, &err) != GW_OK)
        return cli_error("%s", err.text), GW_OK; /* deleted by now, or damaged: the others count */
    if (u->ns.n != 0)
        snprintf(label, sizeof(label), GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT, GW_STR_ARG(type),
                 GW_STR_ARG(ns), GW_STR_ARG(name));
    else
        snprintf(label, sizeof(label), GW_STR_FMT, GW_STR_ARG(ns));
    while (i < u->n && strcmp(u->rows[i].name, label) != 0)
        i++;
    if (i == u->cap) {
        rows = gw_realloc(u->rows, (u->cap + 64) * sizeof(*rows));
        if (rows == NULL)
            return GW_NO_MEMORY;
        u->rows = rows;
        u->cap += 64;
    }
    if (i == u->n) {
        memcpy(u->rows[u->n].name, label, sizeof(label));
        u->rows[u->n++].bytes = 0;
    }
    u->rows[i].bytes += bytes;
    return GW_OK;
}

static void print_usage(const struct usage *u, const struct usage_row *row)
{
    uint64_t quota;
    bool limited = u->ns.n == 0 && config_quota(u->config, gw_str_c(row->name), &quota);
    char held[32], most[32];

    if (u->json && limited)
        printf("{\"id\":\"%s\",\"bytes\":%llu,\"quota\":%llu}", row->name,
               (unsigned long long)row->bytes, (unsigned long long)quota);
    else if (u->json)
        printf("{\"id\":\"%s\",\"bytes\":%llu}", row->name, (unsigned long long)row->bytes);
    else
        printf("%12s%s%s  %s\n", cli_size(held, row->bytes), limited ? " of " : "",
               limited ? cli_size(most, quota) : "", row->name);
}

int cli_repo_usage(struct cli *cli)
{
    struct usage u = {.ns = GW_STR(""), .json = cli->json};
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct gw_error err = {.text = "not enough memory"};
    int rc;

    if (cli->argc > 1)
        return cli_usage("repo usage");
    gw = cli_open(cli, &s); /* what is measured is noted in the repositories, by their owner */
    if (gw == NULL)
        return 2;
    u.config = s->config;
    if (cli->argc == 1)
        u.ns = gw_str_c(cli->argv[0]);
    rc = repo_each(s->config->data, add_usage, &u, &err);
    for (size_t i = 0; rc == GW_OK && i < u.n; i++) {
        if (u.json)
            fputs(i ? ",\n " : "[", stdout);
        print_usage(&u, &u.rows[i]);
    }
    if (rc == GW_OK && u.json)
        puts(u.n ? "]" : "[]");
    if (rc != GW_OK)
        cli_error("%s", err.text);
    gw_free(u.rows);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : 2;
}
