/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hook.c - git's pre-receive hook: checks a push as a commit over the API is checked. All it needs
 * is in its environment (repo/serve.c); it reads no configuration and decides about nobody: who may
 * push where was decided before git was started, and is told by HUBGATE_REFUSED.
 */
#include "gateway/cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define LINES_MAX (1u << 20)
#define REFS_MAX 1000u
#define SAYS_MAX (64u << 10)

/* What is printed here git shows as "remote: ...". */
static int refuse(const char *text)
{
    fprintf(stderr, "%s\n", text);
    return 1;
}

/* "old new name" a line */
static int read_refs(struct gw_arena *a, struct repo_push_ref *refs, size_t *n,
                     struct gw_error *err)
{
    static char lines[LINES_MAX];
    struct gw_str rest, line;
    size_t have = 0;
    ssize_t got;

    while ((got = read(STDIN_FILENO, lines + have, sizeof(lines) - have)) > 0)
        have += (size_t)got;
    if (got < 0 || have == sizeof(lines))
        return gw_fail(err, GW_TOO_LARGE, 0, "too many refs in one push");
    rest = (struct gw_str){lines, have};
    for (*n = 0; gw_str_split(&rest, '\n', &line) && line.n != 0; ++*n) {
        int rc = *n == REFS_MAX ? gw_fail(err, GW_TOO_LARGE, 0, "too many refs in one push")
                                : repo_push_line(line, &refs[*n], a, err);

        if (rc != GW_OK)
            return rc;
    }
    return GW_OK;
}

int cli_hook(struct cli *cli)
{
    static struct repo_push_ref refs[REFS_MAX];
    const char *path = getenv("HUBGATE_REPOSITORY"), *refused = getenv("HUBGATE_REFUSED");
    struct gw_error err = {.text = ""};
    struct gw_arena a;
    struct gw_buf says;
    size_t n = 0;
    int rc;

    (void)cli;
    if (path == NULL)
        return refuse("hubgate hook is run by git, and git by the gateway");
    if (refused != NULL && *refused != '\0') {
        fputs(refused, stderr);
        return 1;
    }
    gw_arena_init(&a, 4u << 20);
    gw_buf_init(&says, SAYS_MAX);
    rc = repo_init(&err);
    if (rc == GW_OK)
        rc = read_refs(&a, refs, &n, &err);
    if (rc == GW_OK)
        rc = repo_push_check(path, getenv("GIT_OBJECT_DIRECTORY"), refs, n, &says, &err);
    if (rc == GW_OK)
        rc = repo_push_lock(&err);
    if (rc == GW_FORBIDDEN)
        fputs(says.p, stderr);
    else if (rc != GW_OK)
        fprintf(stderr, "%s\n", err.text);
    gw_buf_release(&says);
    gw_arena_release(&a);
    repo_exit();
    return rc == GW_OK ? 0 : 1;
}
