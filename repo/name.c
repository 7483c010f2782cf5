/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/name.c - names of repositories, how they are found on disk, and names inside a tree.
 *
 * A repository is stored under the spelling it was made with and found under any ASCII case:
 * the exact path costs one stat, a variant reads the one namespace folder.
 */
#include "repo/repo_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#define ID_PART_MAX                                                                                \
    96u /* hub-read 1.2: REPO_ID_REGEX limits the name; a namespace gets the same here */
#define COMPONENT_MAX 255u
#define REPO_SUFFIX ".git"

const char *const repo_types[] = {"model", "dataset", "space", NULL};

/* hub-read 1.2: first path segments that are something else */
static const char *const reserved_ns[] = {
    "api",   "datasets", "spaces",   "kernels",       "buckets",       "models",
    "oauth", "docs",     "settings", "resolve-cache", "collections",   "papers",
    "login", "join",     "new",      "logout",        "organizations",
};

/* hub-read 1.3: a repository of such a name could not be told from a route of a one-segment id */
static const char *const reserved_names[] = {
    "resolve",  "raw",        "blob",     "tree",         "commits",        "commit",
    "blame",    "revision",   "refs",     "paths-info",   "compare",        "discussions",
    "settings", "auth-check", "treesize", "preupload",    "branch",         "tag",
    "parquet",  "croissant",  "jwt",      "super-squash", "xet-read-token", "xet-write-token",
    "scan",     "lfs-files",
};

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Ends are word characters: validate_repo_id's \b. */
static bool is_id_part(struct gw_str s)
{
    if (s.n == 0 || s.n > ID_PART_MAX || !is_word(s.p[0]) || !is_word(s.p[s.n - 1])) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!is_word(c) && c != '-' && c != '.') {
            return false;
        }
        if (i != 0 && (c == '-' || c == '.') && s.p[i - 1] == c) {
            return false; /* caches join names with "--"; ".." is a folder */
        }
    }
    return true;
}

bool repo_ns_valid(struct gw_str ns)
{
    return is_id_part(ns);
}

bool repo_name_valid(struct gw_str name)
{
    return is_id_part(name) &&
           !(name.n > 4 && gw_str_ieq(gw_str_sub(name, name.n - 4, 4), GW_STR(REPO_SUFFIX)));
}

static bool is_listed(struct gw_str s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (gw_str_ieq_c(s, words[i])) {
            return true;
        }
    }
    return false;
}

static bool is_type(struct gw_str type)
{
    for (size_t i = 0; repo_types[i] != NULL; i++) {
        if (gw_str_eq_c(type, repo_types[i])) {
            return true;
        }
    }
    return false;
}

int repo_id_check(const struct repo_id *id, bool making, struct gw_error *err)
{
    char shown[REPO_SHOWN_MAX];

    if (!is_type(id->type)) {
        return gw_fail(err, GW_INVALID, 0, "%s is not model, dataset or space",
                       repo_show(shown, id->type));
    }
    if (!repo_ns_valid(id->ns)) {
        return gw_fail(err, GW_INVALID, 0,
                       "a namespace is 1 to 96 of A-Z a-z 0-9 _ - . without -- or .., and neither "
                       "begins nor ends with - or .: %s",
                       repo_show(shown, id->ns));
    }
    if (!repo_name_valid(id->name)) {
        return gw_fail(
            err, GW_INVALID, 0,
            "a repository name is 1 to 96 of A-Z a-z 0-9 _ - . without -- or .., neither "
            "begins nor ends with - or ., and does not end in .git: %s",
            repo_show(shown, id->name));
    }
    if (!making) {
        return GW_OK;
    }
    if (is_listed(id->ns, reserved_ns, sizeof(reserved_ns) / sizeof(reserved_ns[0]))) {
        return gw_fail(err, GW_INVALID, 0, "%s is a reserved word and cannot be a namespace",
                       repo_show(shown, id->ns));
    }
    if (is_listed(id->name, reserved_names, sizeof(reserved_names) / sizeof(reserved_names[0]))) {
        return gw_fail(err, GW_INVALID, 0, "%s is a reserved word and cannot name a repository",
                       repo_show(shown, id->name));
    }
    return GW_OK;
}

/* ---- on disk ---- */

/* GW_OK: a folder; GW_NOT_FOUND: nothing, or not a folder */
static int probe(const char *path, struct gw_error *err)
{
    struct stat st;

    if (stat(path, &st) == 0) {
        return S_ISDIR(st.st_mode) ? GW_OK : GW_NOT_FOUND;
    }
    if (errno == ENOENT || errno == ENOTDIR) {
        return GW_NOT_FOUND;
    }
    return gw_fail(err, GW_IO, errno, "stat %s: %s", path, strerrordesc_np(errno));
}

/* The entry of dir that is `wanted` but for the case of ASCII letters. Of several, which only
 * foreign hands make, the first in byte order. */
static int find_folded(const char *dir, struct gw_str wanted, struct gw_arena *a,
                       struct gw_str *found, struct gw_error *err)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    char best[COMPONENT_MAX + 1] = "";
    int saved;

    if (d == NULL) {
        if (errno == ENOENT || errno == ENOTDIR) {
            return GW_NOT_FOUND;
        }
        return gw_fail(err, GW_IO, errno, "open folder %s: %s", dir, strerrordesc_np(errno));
    }
    for (errno = 0; (e = readdir(d)) != NULL; errno = 0) {
        if (gw_str_ieq_c(wanted, e->d_name) && (best[0] == '\0' || strcmp(e->d_name, best) < 0)) {
            snprintf(best, sizeof(best), "%s", e->d_name);
        }
    }
    saved = errno;
    closedir(d);
    if (saved != 0) {
        return gw_fail(err, GW_IO, saved, "read folder %s: %s", dir, strerrordesc_np(saved));
    }
    if (best[0] == '\0') {
        return GW_NOT_FOUND;
    }
    *found = gw_arena_dup(a, gw_str_c(best));
    return found->p != NULL ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a name");
}

static int place_at(const char *data_dir, struct gw_str type, struct gw_str ns, struct gw_str name,
                    struct gw_arena *a, struct repo_place *place, struct gw_error *err)
{
    place->ns = ns;
    place->name = name;
    place->dir = gw_arena_printf(a, "%s/repos/" GW_STR_FMT "/" GW_STR_FMT, data_dir,
                                 GW_STR_ARG(type), GW_STR_ARG(ns))
                     .p;
    place->path =
        gw_arena_printf(a, "%s/repos/" GW_STR_FMT "/" GW_STR_FMT "/" GW_STR_FMT REPO_SUFFIX,
                        data_dir, GW_STR_ARG(type), GW_STR_ARG(ns), GW_STR_ARG(name))
            .p;
    if (place->dir == NULL || place->path == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    return GW_OK;
}

/* The namespace as this type spells it. */
static int find_ns(const char *data_dir, const char *type, struct gw_str ns, struct gw_arena *a,
                   struct gw_str *found, struct gw_error *err)
{
    const char *types = gw_arena_printf(a, "%s/repos/%s", data_dir, type).p;
    const char *exact =
        gw_arena_printf(a, "%s/repos/%s/" GW_STR_FMT, data_dir, type, GW_STR_ARG(ns)).p;
    int rc;

    if (types == NULL || exact == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    rc = probe(exact, err);
    if (rc == GW_OK) {
        *found = ns;
        return GW_OK;
    }
    return rc == GW_NOT_FOUND ? find_folded(types, ns, a, found, err) : rc;
}

static int find_name(const struct repo_place *place, struct gw_str name, struct gw_arena *a,
                     struct gw_str *found, struct gw_error *err)
{
    struct gw_str file = gw_arena_printf(a, GW_STR_FMT REPO_SUFFIX, GW_STR_ARG(name)), entry;
    int rc;

    if (file.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a name");
    }
    rc = find_folded(place->dir, file, a, &entry, err);
    if (rc == GW_OK) {
        *found = gw_str_sub(entry, 0, entry.n - (sizeof(REPO_SUFFIX) - 1));
    }
    return rc;
}

/* A namespace is one thing in all types: its first spelling holds. */
static int ns_elsewhere(const char *data_dir, const struct repo_id *id, struct gw_arena *a,
                        struct gw_str *ns, struct gw_error *err)
{
    for (size_t i = 0; repo_types[i] != NULL; i++) {
        int rc;

        if (gw_str_eq_c(id->type, repo_types[i])) {
            continue;
        }
        rc = find_ns(data_dir, repo_types[i], id->ns, a, ns, err);
        if (rc != GW_NOT_FOUND) {
            return rc;
        }
    }
    *ns = id->ns;
    return GW_OK;
}

static int locate(const char *data_dir, const struct repo_id *id, struct gw_arena *a,
                  struct repo_place *place, struct gw_error *err)
{
    struct gw_str ns, name;
    const char *type;
    int rc = place_at(data_dir, id->type, id->ns, id->name, a, place, err);

    if (rc != GW_OK || (rc = probe(place->path, err)) != GW_NOT_FOUND) {
        return rc;
    }
    type = gw_arena_cstr(a, id->type);
    if (type == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a path");
    }
    rc = find_ns(data_dir, type, id->ns, a, &ns, err);
    if (rc == GW_NOT_FOUND) {
        rc = ns_elsewhere(data_dir, id, a, &ns, err);
        if (rc == GW_OK) {
            rc = place_at(data_dir, id->type, ns, id->name, a, place, err);
        }
        return rc != GW_OK ? rc : GW_NOT_FOUND;
    }
    if (rc != GW_OK || (rc = place_at(data_dir, id->type, ns, id->name, a, place, err)) != GW_OK) {
        return rc;
    }
    rc = find_name(place, id->name, a, &name, err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = place_at(data_dir, id->type, ns, name, a, place, err);
    return rc != GW_OK ? rc : probe(place->path, err);
}

int repo_locate(const char *data_dir, const struct repo_id *id, struct gw_arena *a,
                struct repo_place *place, struct gw_error *err)
{
    int rc = locate(data_dir, id, a, place, err);

    if (rc == GW_NOT_FOUND) {
        gw_fail(err, GW_NOT_FOUND, 0, GW_STR_FMT " " GW_STR_FMT "/" GW_STR_FMT " does not exist",
                GW_STR_ARG(id->type), GW_STR_ARG(id->ns), GW_STR_ARG(id->name));
    }
    return rc;
}

/* ---- names inside a tree ---- */

/* Code points that HFS+ drops from names, so that ".g<U+200C>it" is ".git" there: git's utf8.c,
 * next_hfs_char. All are three bytes. */
static bool is_hfs_ignored(const char *p, size_t n)
{
    unsigned code;

    if (n < 3 || ((unsigned char)p[0] & 0xf0) != 0xe0) {
        return false;
    }
    code =
        ((unsigned)(p[0] & 0x0f) << 12) | ((unsigned)(p[1] & 0x3f) << 6) | (unsigned)(p[2] & 0x3f);
    return (code >= 0x200c && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
           (code >= 0x206a && code <= 0x206f) || code == 0xfeff;
}

/* What some file system takes for ".git": case, HFS+'s ignored characters, NTFS's short name and
 * the blanks, dots and stream names it cuts. `git fsck --strict` refuses the same. */
static bool is_git_folder(struct gw_str name)
{
    char plain[8];
    size_t n = 0;

    for (size_t i = 0; i < name.n;) {
        if (is_hfs_ignored(name.p + i, name.n - i)) {
            i += 3;
            continue;
        }
        if (name.p[i] == ':') {
            break;
        }
        if (n == sizeof(plain)) {
            /* longer than any of the names: only what NTFS cuts may follow */
            if (name.p[i] != ' ' && name.p[i] != '.') {
                return false;
            }
            i++;
            continue;
        }
        plain[n++] = name.p[i++];
    }
    while (n > 1 && (plain[n - 1] == ' ' || plain[n - 1] == '.')) {
        n--;
    }
    return gw_str_ieq((struct gw_str){plain, n}, GW_STR(".git")) ||
           gw_str_ieq((struct gw_str){plain, n}, GW_STR("git~1"));
}

bool repo_component_hostile(struct gw_str name)
{
    return name.n == 0 || gw_str_eq_c(name, ".") || gw_str_eq_c(name, "..") ||
           memchr(name.p, '/', name.n) != NULL || is_git_folder(name);
}

const char *repo_component_refused(struct gw_str name)
{
    if (name.n > COMPONENT_MAX) {
        return "a name has more than 255 bytes";
    }
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];

        if (c < 0x20 || c == 0x7f) {
            return "a name has a control character";
        }
        if (c == '\\') {
            return "a name has a backslash, which is a folder on other systems";
        }
    }
    if (!gw_utf8_valid(name)) {
        return "a name is not UTF-8";
    }
    return repo_component_hostile(name) ? "a name that git reserves" : NULL;
}

const char *repo_show(char out[REPO_SHOWN_MAX], struct gw_str path)
{
    bool text = gw_utf8_valid(path);
    size_t n = 0, from = 0;

    if (path.n > REPO_SHOWN_MAX - 8) {
        from = path.n - (REPO_SHOWN_MAX - 8);
        while (text && from < path.n && ((unsigned char)path.p[from] & 0xc0) == 0x80) {
            from++;
        }
        n = (size_t)snprintf(out, REPO_SHOWN_MAX, "...");
    }
    for (size_t i = from; i < path.n && n + 5 < REPO_SHOWN_MAX; i++) {
        unsigned char c = (unsigned char)path.p[i];

        if (c < 0x20 || c == 0x7f || (c >= 0x80 && !text)) {
            n += (size_t)snprintf(out + n, REPO_SHOWN_MAX - n, "\\x%02x", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n] = '\0';
    return out;
}
