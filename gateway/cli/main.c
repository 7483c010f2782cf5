/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - the `hubgate` command: one table of commands, options that may stand anywhere. */
#include "gateway/cli/cli.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct cli_command commands[] = {
    {"check", "[--offline]",
     "check configuration, rules and their tests, folders, directories, Redis", cli_check},
    {"reload", "[--pid-file FILE]", "check, then tell nginx to reload", cli_reload},
    {"explain", "[--group G]... [--json] WHO ACTION RESOURCE",
     "who may do what, and which rule says so", cli_explain},
    {"token create", "WHO [--name N] [--role read|write] [--expires 90d]",
     "make a token; it is shown once", cli_token_create},
    {"token list", "[WHO] [--json]", "tokens, without their secrets", cli_token_list},
    {"token revoke", "ID", "refuse a token from the next request on", cli_token_revoke},
    {"user add", "NAME [--group G]... [--password-file F]",
     "add or change somebody in the account file", cli_user_add},
    {"user list", "[--json]", "who is in the account file", cli_user_list},
    {"repo create", "[TYPE:]NS/NAME", "make an empty private repository", cli_repo_create},
    {"repo import", "[TYPE:]NS/NAME DIR [--message M]", "commit a folder to a private repository",
     cli_repo_import},
    {"repo list", "[--json]", "private repositories", cli_repo_list},
    {"repo move", "[TYPE:]NS/NAME NS/NAME", "give it another name; the old one leads there",
     cli_repo_move},
    {"repo undelete", "[TYPE:]NS/NAME", "bring back what was deleted last under this name",
     cli_repo_undelete},
    {"repo gc", "[--dry-run] [--grace 7d] [--json]",
     "remove what nobody refers to any more, make few packs of many", cli_repo_gc},
    {"repo fsck", "[[TYPE:]NS/NAME]... [--deep] [--json]", "check what is stored; changes nothing",
     cli_repo_fsck},
    {"repo usage", "[NS] [--json]", "bytes that namespaces hold, or the repositories of one",
     cli_repo_usage},
    {"cache ls", "[--json]", "repositories of which files are held", cli_cache_ls},
    {"cache stat", "[--json]", "budget, what is held, the state of the checks", cli_cache_stat},
    {"cache pin", "RESOURCE | --list [--json]", "never evict the files of a repository",
     cli_cache_pin},
    {"cache unpin", "RESOURCE", "evict them as others", cli_cache_unpin},
    {"cache evict", "RESOURCE | --to SIZE", "remove files from the cache", cli_cache_evict},
    {"cache verify", "[--rate SIZE] [--json]", "hash all that is held; what is damaged is removed",
     cli_cache_verify},
    {"cache prefetch", "REPO[@REV]... [-f FILE]", "fetch repositories ahead", cli_cache_prefetch},
    {"hook", "", "check a push: git runs it as its pre-receive hook", cli_hook},
    {"index rebuild", "", "read the catalogue of private repositories from data/ anew",
     cli_index_rebuild},
    {"config-doc", "", "the reference of hubgate.yaml, as Markdown", cli_config_doc},
    {"version", "", "this program's version", cli_version},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

int cli_error(const char *fmt, ...)
{
    va_list ap;

    fputs("hubgate: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 2;
}

int cli_usage(const char *words)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].words, words) == 0)
            fprintf(stderr, "usage: hubgate [-c FILE] %s %s\n", words, commands[i].usage);
    return 2;
}

int cli_version(struct cli *cli)
{
    (void)cli;
    puts("hubgate " HUBGATE_VERSION);
    return 0;
}

int cli_config_doc(struct cli *cli)
{
    struct gw_buf out;

    (void)cli;
    gw_buf_init(&out, 1u << 20);
    config_put_markdown(&out);
    fwrite(out.p, 1, out.n, stdout);
    gw_buf_release(&out);
    return 0;
}

static int help(FILE *to)
{
    fputs("usage: hubgate [-c FILE] COMMAND ...\n\n", to);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-14s %s\n                 %s\n", commands[i].words, commands[i].usage,
                commands[i].help);
    fputs("\nWHO       user:NAME, service:NAME or anonymous\nACTION    discover, read, write, "
          "create, delete, admin\n"
          "RESOURCE  model:ns/name[@revision][//path], dataset:..., space:...\n"
          "FILE      else $HUBGATE_CONFIG, else /etc/hubgate/hubgate.yaml\n",
          to);
    return to == stdout ? 0 : 2;
}

/* ---- who we are ---- */

/* Of root's rights only the one to read every file and folder is left. */
static bool keep_reading(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};
    const uint32_t read_all = 1u << CAP_DAC_READ_SEARCH;

    if (syscall(SYS_capget, &head, sets) != 0)
        return false;
    sets[0].permitted &= read_all; /* a container may have taken it away */
    sets[0].effective = sets[0].permitted;
    sets[0].inheritable = 0;
    memset(&sets[1], 0, sizeof(sets[1]));
    return syscall(SYS_capset, &head, sets) == 0;
}

static bool become(uid_t uid, gid_t gid, bool reading)
{
    if (geteuid() != 0 || uid == 0)
        return true;
    if (reading && prctl(PR_SET_KEEPCAPS, 1L, 0L, 0L, 0L) != 0)
        return false;
    return setgroups(0, NULL) == 0 && setgid(gid) == 0 && setuid(uid) == 0 &&
           (!reading || keep_reading());
}

struct gateway_snapshot *cli_snapshot(const struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gw_buf report;
    struct gw_error err;
    struct stat st;

    gw_buf_init(&report, 256u << 10);
    if (gateway_snapshot_load(&s, cli->config_path, &report, &err) != GW_OK) {
        if (report.n)
            fwrite(report.p, 1, report.n, stderr);
        else
            cli_error("%s", err.text);
        gw_buf_release(&report);
        return NULL;
    }
    gw_buf_release(&report);
    /* a worker cannot hard-link or replace a file of root */
    if (!cli->keep_rights && stat(gateway_snapshot_config(s)->data, &st) == 0 &&
        !become(st.st_uid, st.st_gid, cli->keep_reading)) {
        cli_error("cannot become the owner of %s: %s", gateway_snapshot_config(s)->data,
                  strerror(errno));
        gateway_snapshot_free(s);
        return NULL;
    }
    return s;
}

static void log_to_stderr(void *ctx, enum gw_log_level level, struct gw_str line)
{
    (void)ctx;
    if (level <= GW_LOG_WARN)
        fprintf(stderr, "hubgate: " GW_STR_FMT "\n", GW_STR_ARG(line));
}

static bool post_nothing(void *ctx, struct gateway_job *job)
{
    (void)ctx;
    (void)job;
    return false;
}

static struct gateway *open_with(const struct cli *cli, struct gateway_snapshot **snapshot,
                                 struct gateway_options *o)
{
    static void *shared;
    struct gateway *gw;
    struct gw_error err;

    *snapshot = cli_snapshot(cli);
    if (*snapshot == NULL)
        return NULL;
    shared = calloc(1, gateway_shared_bytes());
    o->command = true;
    o->log = (struct gw_log){log_to_stderr, NULL, GW_LOG_WARN};
    o->snapshot = *snapshot;
    o->shared = shared;
    if (shared == NULL || gateway_check_folders(*snapshot, geteuid(), getegid(), &err) != GW_OK ||
        gateway_shared_init(shared, &err) != GW_OK || gateway_open(&gw, o, &err) != GW_OK) {
        cli_error("%s", shared ? err.text : "no memory");
        gateway_snapshot_free(*snapshot);
        return NULL;
    }
    return gw;
}

struct gateway *cli_open(const struct cli *cli, struct gateway_snapshot **snapshot)
{
    struct gateway_options o = {.post = post_nothing};

    return open_with(cli, snapshot, &o);
}

struct gateway *cli_open_fetching(const struct cli *cli, struct gateway_snapshot **snapshot,
                                  bool (*post)(void *ctx, struct gateway_job *job), void *ctx)
{
    struct gateway_options o = {.fetches = true, .post = post, .ctx = ctx};

    return open_with(cli, snapshot, &o);
}

void cli_close(struct gateway *gw, struct gateway_snapshot *snapshot)
{
    gateway_close(gw);
    gateway_snapshot_free(snapshot);
}

/* ---- words and options ---- */

static bool option(struct cli *cli, char **argv, int *i, int argc)
{
    struct {
        const char *word;
        const char **value;
    } const with_value[] = {
        {"-c", &cli->config_path},    {"--config", &cli->config_path},
        {"--name", &cli->name},       {"--role", &cli->role},
        {"--expires", &cli->expires}, {"--password-file", &cli->password_file},
        {"--message", &cli->message}, {"--pid-file", &cli->pid_file},
        {"--to", &cli->to},           {"--rate", &cli->rate},
        {"-f", &cli->file},           {"--grace", &cli->grace},
    };

    if (strcmp(argv[*i], "--json") == 0)
        return cli->json = true;
    if (strcmp(argv[*i], "--offline") == 0)
        return cli->offline = true;
    if (strcmp(argv[*i], "--list") == 0)
        return cli->list = true;
    if (strcmp(argv[*i], "--dry-run") == 0)
        return cli->dry_run = true;
    if (strcmp(argv[*i], "--deep") == 0)
        return cli->deep = true;
    if (*i + 1 >= argc)
        return false;
    if (strcmp(argv[*i], "--group") == 0 && cli->n_groups < CLI_GROUPS_MAX) {
        cli->groups[cli->n_groups++] = gw_str_c(argv[++*i]);
        return true;
    }
    for (size_t k = 0; k < sizeof(with_value) / sizeof(with_value[0]); k++)
        if (strcmp(argv[*i], with_value[k].word) == 0) {
            *with_value[k].value = argv[++*i];
            return true;
        }
    return false;
}

static const struct cli_command *find_command(char **words, int n, int *used)
{
    char two[128];

    for (*used = 2; *used >= 1; --*used) {
        if (n < *used)
            continue;
        snprintf(two, sizeof(two), *used == 2 ? "%s %s" : "%s", words[0],
                 *used == 2 ? words[1] : "");
        for (size_t i = 0; i < N_COMMANDS; i++)
            if (strcmp(commands[i].words, two) == 0)
                return &commands[i];
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    const struct rlimit no_core = {0, 0};
    const struct cli_command *command;
    char **words;
    const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;
    int n = 0, used;

    (void)setrlimit(RLIMIT_CORE, &no_core);                /* secrets are in our memory */
    if (name != NULL && strcmp(name, "/pre-receive") == 0) /* a link to us: repo/serve.c */
        return cli_hook(&cli);
    if (argc > 1 && strcmp(argv[1], "git-child") == 0) /* workers start git through it */
        return repo_serve_child(argc - 2, argv + 2);
    words = calloc((size_t)argc + 1, sizeof(*words));
    if (words == NULL)
        return cli_error("no memory");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return help(stdout);
        if (argv[i][0] != '-') {
            words[n++] = argv[i];
            continue;
        }
        if (!option(&cli, argv, &i, argc))
            return cli_error("%s: no such option, or its value is missing; see hubgate --help",
                             argv[i]);
    }
    if (cli.config_path == NULL)
        cli.config_path = getenv("HUBGATE_CONFIG");
    if (cli.config_path == NULL)
        cli.config_path = "/etc/hubgate/hubgate.yaml";
    if (n == 0)
        return help(stderr);
    if (strcmp(words[0], "help") == 0)
        return help(stdout);
    command = find_command(words, n, &used);
    if (command == NULL)
        return cli_error("no such command: %s%s%s; see hubgate --help", words[0], n > 1 ? " " : "",
                         n > 1 ? words[1] : "");
    cli.argc = n - used;
    cli.argv = words + used;
    return command->run(&cli);
}
