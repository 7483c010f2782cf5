/* SPDX-License-Identifier: Apache-2.0 */
/* gateway/cli/cli.h - what the files of the `hubgate` command share. Exit codes: 0 fine, 1 a no, 2
 * an error. */
#ifndef GATEWAY_CLI_CLI_H
#define GATEWAY_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "gateway/internal.h"

#define CLI_GROUPS_MAX 64u

struct cli {
    const char *config_path;
    bool json;
    int argc; /* words after the command's own */
    char **argv;
    /* options that several commands take */
    struct gw_str groups[CLI_GROUPS_MAX];
    size_t n_groups;
    const char *grace; /* of repo gc */
    const char *name, *role, *expires, *password_file, *message, *pid_file, *to, *rate, *file;
    bool offline, list, dry_run, deep;
    bool keep_rights;  /* root stays root: the account file may lie in a folder of root */
    bool keep_reading; /* root becomes the owner of data/, but still reads what only root may */
};

struct cli_command {
    const char *words; /* "token create" */
    const char *usage; /* what follows */
    const char *help;
    int (*run)(struct cli *cli);
};

int cli_error(const char *fmt, ...) GW_PRINTF(1, 2); /* prints "hubgate: ..." and returns 2 */
int cli_usage(const char *words);                    /* the command's usage; returns 2 */

/* Configuration and rules; secrets are read before rights are dropped to the owner of data/. NULL:
 * the error was printed. */
struct gateway_snapshot *cli_snapshot(const struct cli *cli);
/* The same, and an open gateway (index, data/). NULL: printed. */
struct gateway *cli_open(const struct cli *cli, struct gateway_snapshot **snapshot);
/* One that fetches: with a fetcher, and jobs that are handed to post. */
struct gateway *cli_open_fetching(const struct cli *cli, struct gateway_snapshot **snapshot,
                                  bool (*post)(void *ctx, struct gateway_job *job), void *ctx);
void cli_close(struct gateway *gw, struct gateway_snapshot *snapshot);
/* A known person or service by WHO, newest first; groups and all in the arena. GW_NOT_FOUND */
int cli_find_subject(struct gateway *gw, const struct policy_subject *who, struct gw_arena *a,
                     struct auth_subject *out, struct gw_error *err);

/* A bar on stderr, if that is a terminal: "[####----]  40%  1.2 of 3.0 GiB  what". */
struct cli_bar {
    int64_t shown_ms;
    bool drawn;
};
void cli_bar(struct cli_bar *bar, uint64_t done, uint64_t total, struct gw_str what);
void cli_bar_end(struct cli_bar *bar);              /* what is printed next begins a line */
const char *cli_size(char out[32], uint64_t bytes); /* "1.2 GiB" */
/* {"type":"model", ...}: a JSON string in quotes, or a line of text without control bytes. */
void cli_put_text(FILE *to, struct gw_str text, bool json);

int cli_check(struct cli *cli);
int cli_reload(struct cli *cli);
int cli_explain(struct cli *cli);
int cli_token_create(struct cli *cli);
int cli_token_list(struct cli *cli);
int cli_token_revoke(struct cli *cli);
int cli_user_add(struct cli *cli);
int cli_user_list(struct cli *cli);
int cli_repo_create(struct cli *cli);
int cli_repo_import(struct cli *cli);
int cli_repo_list(struct cli *cli);
int cli_repo_undelete(struct cli *cli);
int cli_repo_gc(struct cli *cli);
int cli_repo_fsck(struct cli *cli);
/* [TYPE:]NS/NAME. 0; 2: printed */
int cli_parse_repo(const char *word, struct repo_id *id);
int cli_repo_usage(struct cli *cli);
int cli_repo_move(struct cli *cli);
int cli_cache_ls(struct cli *cli);
int cli_cache_stat(struct cli *cli);
int cli_cache_pin(struct cli *cli);
int cli_cache_unpin(struct cli *cli);
int cli_cache_evict(struct cli *cli);
int cli_cache_verify(struct cli *cli);
int cli_cache_prefetch(struct cli *cli);
int cli_index_rebuild(struct cli *cli);
int cli_hook(struct cli *cli);
int cli_config_doc(struct cli *cli);
int cli_version(struct cli *cli);

#endif
