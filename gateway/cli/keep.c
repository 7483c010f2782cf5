/* SPDX-License-Identifier: Apache-2.0 */
/* keep.c - `hubgate repo gc` and `hubgate repo fsck`: keeping house in data/. */
#include "gateway/cli/cli.h"

#include <limits.h>
#include <unistd.h>

#include "gateway/record.h"

#define GRACE_MS (INT64_C(7) * 24 * 3600 * 1000)
#define GRACE_MIN_MS 1000 /* between storing an object and linking it */

/* ---- gc ---- */

struct cleaning {
    bool json, dry_run;
};

static void on_gone(void *ctx, const char *what, struct gw_str path, uint64_t bytes)
{
    static const struct {
        const char *what, *text;
    } words[] = {
        {"object", "nobody holds this object"},
        {"unused", "no commit names this object of the repository"},
        {"deleted", "deleted before the grace time"},
        {"temporary", "left by a writer that died"},
        {"copy", "kept: a copy and no link, so it cannot be told what is in use"},
        {"missing", "an object that is named and nowhere"},
        {"failed", "left out"},
    };
    const struct cleaning *c = ctx;
    char size[32];

    for (size_t i = 0; !c->json && i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(words[i].what, what) == 0) {
            cli_put_text(stdout, path, false);
            printf(": %s%s%s%s\n", words[i].text, bytes ? " (" : "",
                   bytes ? cli_size(size, bytes) : "", bytes ? ")" : "");
        }
}

static void print_sum(const struct cleaning *c, const struct repo_gc_sum *s)
{
    char size[32];

    if (c->json) {
        printf(
            "{\"dry_run\":%s,\"repositories\":%llu,\"objects\":%llu,\"bytes\":%llu,\"links\":%llu,"
            "\"deleted\":%llu,\"temporary\":%llu,\"links_made\":%llu,\"packs\":%llu,"
            "\"failed\":%llu,\"objects_kept\":%s}\n",
            c->dry_run ? "true" : "false", (unsigned long long)s->repos,
            (unsigned long long)s->objects, (unsigned long long)s->object_bytes,
            (unsigned long long)s->unused, (unsigned long long)s->deleted,
            (unsigned long long)s->temporary, (unsigned long long)s->mended,
            (unsigned long long)s->packs, (unsigned long long)s->failed,
            s->objects_kept ? "true" : "false");
        return;
    }
    printf("%s%llu objects (%s), %llu links to objects, %llu deleted repositories, %llu temporary "
           "files; %llu packs went into others, %llu links were made, in %llu repositories\n",
           c->dry_run ? "would remove " : "removed ", (unsigned long long)s->objects,
           cli_size(size, s->object_bytes), (unsigned long long)s->unused,
           (unsigned long long)s->deleted, (unsigned long long)s->temporary,
           (unsigned long long)s->packs, (unsigned long long)s->mended,
           (unsigned long long)s->repos);
    if (s->objects_kept)
        puts("no object was removed: a repository could not be read, or holds copies in place of "
             "links; see hubgate repo fsck");
}

int cli_repo_gc(struct cli *cli)
{
    struct cleaning c = {.json = cli->json, .dry_run = cli->dry_run};
    struct repo_gc o = {.grace_ms = GRACE_MS, .dry_run = cli->dry_run, .on = on_gone, .ctx = &c};
    struct gateway_snapshot *s;
    struct repo_gc_sum sum;
    struct gateway *gw;
    struct gw_error err;
    char blobs[PATH_MAX];
    int rc;

    if (cli->argc != 0)
        return cli_usage("repo gc");
    if (cli->grace != NULL &&
        (!gw_duration_parse(gw_str_c(cli->grace), &o.grace_ms) || o.grace_ms < GRACE_MIN_MS))
        return cli_error("--grace is a time such as 12h or 7d, and at least 1s");
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    snprintf(blobs, sizeof(blobs), "%s/blobs", s->config->cache.dir);
    o.blobs = blobs;
    rc = repo_gc(s->config->data, &o, &sum, &err);
    if (rc != GW_CONFLICT)
        print_sum(&c, &sum);
    if (rc != GW_OK)
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_CONFLICT ? 1 : rc != GW_OK ? 2 : sum.failed != 0 || sum.objects_kept ? 1 : 0;
}

/* ---- fsck ---- */

struct checking {
    struct gateway *gw;
    const char *data;
    struct repo_fsck o;
    struct cli_bar bar;
    struct gw_str what; /* "model:acme/llm" */
    char name[256];
    bool json, failed;
    uint64_t bytes, repos, findings;
};

static void on_finding(void *ctx, const char *text)
{
    struct checking *c = ctx;

    cli_bar_end(&c->bar);
    if (c->json) {
        printf("%s{\"repository\":", c->findings ? ",\n " : "");
        cli_put_text(stdout, c->what, true);
        fputs(",\"finding\":", stdout);
        cli_put_text(stdout, gw_str_c(text), true);
        putchar('}');
    } else {
        printf(GW_STR_FMT ": ", GW_STR_ARG(c->what));
        cli_put_text(stdout, gw_str_c(text), false);
        putchar('\n');
    }
    c->findings++;
}

static void on_progress(void *ctx, uint64_t bytes)
{
    struct checking *c = ctx;

    c->bytes += bytes;
    cli_bar(&c->bar, c->bytes, UINT64_MAX, c->what);
}

/* What the index would answer is a commit that is there. */
static void check_index(struct checking *c, const struct repo_id *id)
{
    struct cache_record record;
    struct record_ref ref;
    struct repo *r = NULL;
    struct gw_error err;
    struct gw_arena a;
    struct gw_str name;
    char tip[41];

    gw_arena_init(&a, 1u << 20);
    name = FACT_JOIN(&a, id->type, id->ns, id->name, GW_STR("main"));
    if (name.p != NULL && cache_get(c->gw->cache, CACHE_REF, name, &a, &record) == GW_OK &&
        record.status == GW_OK && record_ref_decode(&ref, record.value) &&
        repo_open(&r, c->data, id, &err) == GW_OK &&
        repo_resolve(r, ref.commit, tip, &err) == GW_NOT_FOUND)
        on_finding(c, "the index names a commit for main that the repository has not");
    repo_close(r);
    gw_arena_release(&a);
}

static int check_one(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name)
{
    struct repo_id id = {type, ns, name};
    struct checking *c = ctx;
    struct gw_error err;
    size_t findings;
    int rc;

    snprintf(c->name, sizeof(c->name), GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT, GW_STR_ARG(type),
             GW_STR_ARG(ns), GW_STR_ARG(name));
    c->what = gw_str_c(c->name);
    c->repos++;
    on_progress(c, 0);
    rc = repo_fsck(c->data, &id, &c->o, &findings, &err);
    if (rc == GW_OK)
        check_index(c, &id);
    else if (rc != GW_NOT_FOUND || c->o.ctx == NULL) {
        cli_bar_end(&c->bar);
        cli_error("%s: %s", c->name, err.text);
        c->failed = true;
    }
    return GW_OK;
}

static int check_all(struct checking *c, struct gw_error *err)
{
    bool deep = c->o.deep;
    size_t findings;
    int rc;

    c->o.deep = false; /* each object once, and not once for each repository */
    rc = repo_each(c->data, check_one, c, err);
    c->o.deep = deep;
    c->what = GW_STR("objects");
    return rc == GW_OK ? repo_fsck_objects(c->data, &c->o, &findings, err) : rc;
}

int cli_repo_fsck(struct cli *cli)
{
    struct checking c = {.o = {.deep = cli->deep, .on = on_finding, .progress = on_progress},
                         .json = cli->json};
    struct gateway_snapshot *s;
    struct repo_id id;
    struct gw_error err;
    int rc = GW_OK;

    for (int i = 0; i < cli->argc; i++)
        if (cli_parse_repo(cli->argv[i], &id) != 0)
            return 2;
    c.gw = cli_open(cli, &s);
    if (c.gw == NULL)
        return 2;
    c.o.ctx = &c;
    c.data = s->config->data;
    if (c.json)
        putchar('[');
    for (int i = 0; i < cli->argc; i++)
        if (cli_parse_repo(cli->argv[i], &id) == 0)
            check_one(&c, id.type, id.ns, id.name);
    if (cli->argc == 0)
        rc = check_all(&c, &err);
    cli_bar_end(&c.bar);
    if (c.json)
        puts("]");
    else
        printf("%llu repositories, %llu findings\n", (unsigned long long)c.repos,
               (unsigned long long)c.findings);
    if (rc != GW_OK)
        cli_error("%s", err.text);
    cli_close(c.gw, s);
    return rc != GW_OK || c.failed ? 2 : c.findings != 0 ? 1 : 0;
}
