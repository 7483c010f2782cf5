/* SPDX-License-Identifier: Apache-2.0 */
/* index.c - `hubgate index rebuild`: the catalogue of private repositories, from what data/ holds.
 */
#include "gateway/catalogue.h"
#include "gateway/cli/cli.h"

static void show_progress(void *ctx, uint64_t done, uint64_t total, struct gw_str name)
{
    cli_bar(ctx, done, total, name);
}

int cli_index_rebuild(struct cli *cli)
{
    struct cli_bar bar = {0};
    struct repo_progress progress = {show_progress, &bar};
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct gw_error err;
    uint64_t n;
    int rc;

    if (cli->argc != 0)
        return cli_usage("index rebuild");
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    rc = catalogue_rebuild(gw, true, &progress, &n, &err);
    cli_bar_end(&bar);
    if (rc == GW_OK)
        printf("%llu private repositories are in the catalogue\n", (unsigned long long)n);
    else
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : 2;
}
