/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/ignore.c - .gitignore of the root: which files of a folder are not meant to be uploaded.
 *
 * gitignore(5): the last matching line decides, "!" takes back, a final slash is for folders only,
 * a slash elsewhere ties the pattern to the root, and what is in an ignored folder is ignored
 * whatever other lines say.
 */
#include "repo/repo_internal.h"

#define FILE_NAME ".gitignore"
#define PATTERNS_MAX 2000u /* each may be asked for each folder of each path */

struct pattern {
    struct pattern *next; /* the line before: the last line is asked first */
    struct gw_str text;   /* without leading and final slash */
    bool whole_path, folder_only, back;
};

struct repo_ignore {
    struct pattern *last;
    size_t n;
};

/* Blanks at the end do not count, unless they are quoted by a backslash. */
static struct gw_str trimmed(struct gw_str line)
{
    if (line.n != 0 && line.p[line.n - 1] == '\r') {
        line.n--;
    }
    while (line.n != 0 && line.p[line.n - 1] == ' ' && (line.n < 2 || line.p[line.n - 2] != '\\')) {
        line.n--;
    }
    return line;
}

static int add_line(struct repo_ignore *g, struct gw_str line, struct gw_arena *a,
                    struct gw_error *err)
{
    struct pattern p = {.next = g->last}, *kept;

    line = trimmed(line);
    if (line.n == 0 || line.p[0] == '#' || memchr(line.p, '\0', line.n) != NULL) {
        return GW_OK;
    }
    if (line.p[0] == '!') {
        p.back = true;
        line = gw_str_sub(line, 1, line.n);
    }
    if (line.n != 0 && line.p[line.n - 1] == '/') {
        p.folder_only = true;
        line.n--;
    }
    p.whole_path = line.n != 0 && memchr(line.p, '/', line.n) != NULL;
    if (line.n != 0 && line.p[0] == '/') {
        line = gw_str_sub(line, 1, line.n);
    }
    if (line.n == 0) {
        return GW_OK;
    }
    if (g->n++ == PATTERNS_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, FILE_NAME ": more than %u patterns", PATTERNS_MAX);
    }
    p.text = line;
    kept = gw_arena_alloc(a, sizeof(*kept));
    if (kept == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, FILE_NAME ": no memory for its lines");
    }
    *kept = p;
    g->last = kept;
    return GW_OK;
}

int repo_ignore_parse(struct repo_ignore **out, struct gw_str text, struct gw_arena *a,
                      struct gw_error *err)
{
    struct repo_ignore *g = gw_arena_alloc(a, sizeof(*g));
    struct gw_str line;
    int rc = GW_OK;

    if (g == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, FILE_NAME ": no memory");
    }
    if (gw_str_starts(text, GW_STR("\xef\xbb\xbf"))) {
        text = gw_str_sub(text, 3, text.n);
    }
    while (rc == GW_OK && gw_str_split(&text, '\n', &line)) {
        rc = add_line(g, line, a, err);
    }
    *out = g;
    return rc;
}

int repo_ignore_at(const struct repo_ignore **out, struct repo *r, const char commit[41],
                   struct gw_str text, struct gw_arena *a, struct gw_error *err)
{
    struct repo_ignore *g = NULL;
    struct repo_entry e;
    bool stored = text.p == NULL;
    int rc = GW_OK;

    *out = NULL;
    if (stored) {
        rc = repo_entry(r, commit, GW_STR(FILE_NAME), &e, err);
        if (rc == GW_OK && !e.directory && !e.symlink && !e.lfs) {
            rc = repo_blob(r, e.oid, REPO_ATTRIBUTES_MAX, a, &text, err);
        }
        if (rc == GW_NOT_FOUND || rc == GW_TOO_LARGE) {
            return GW_OK; /* no patterns */
        }
    }
    if (rc == GW_OK && text.p != NULL) {
        rc = repo_ignore_parse(&g, text, a, err);
        *out = rc == GW_OK ? g : NULL;
    }
    return stored && rc == GW_TOO_LARGE ? GW_OK : rc;
}

static bool is_ignored_itself(const struct repo_ignore *g, struct gw_str path, bool folder)
{
    const char *slash = memrchr(path.p, '/', path.n);
    struct gw_str base =
        slash != NULL ? gw_str_sub(path, (size_t)(slash - path.p) + 1, path.n) : path;

    for (const struct pattern *p = g->last; p != NULL; p = p->next) {
        if ((folder || !p->folder_only) && repo_glob(p->text, p->whole_path ? path : base)) {
            return !p->back;
        }
    }
    return false;
}

bool repo_is_ignored(const struct repo_ignore *g, struct gw_str path)
{
    if (g == NULL || path.n == 0) {
        return false;
    }
    for (size_t i = 1; i < path.n; i++) {
        if (path.p[i] == '/' && is_ignored_itself(g, gw_str_sub(path, 0, i), true)) {
            return true;
        }
    }
    return is_ignored_itself(g, path, false);
}
