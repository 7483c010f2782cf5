/* SPDX-License-Identifier: Apache-2.0 */
/* hub/headers.c - the header values that need a grammar: Link, Content-Disposition, Content-Type,
 * ETag. */
#include "hub/hub_internal.h"

#include "base/encode.h"

/* ---- Link (RFC 8288) ---- */

/* Takes the part of *rest before the next `sep` that is in no "quoted string". */
static struct gw_str until(struct gw_str *rest, char sep)
{
    struct gw_str head = *rest;
    bool quoted = false;

    for (size_t i = 0; i < rest->n; i++) {
        char c = rest->p[i];

        if (c == '"') {
            quoted = !quoted;
        } else if (c == '\\' && quoted) {
            i++;
        } else if (c == sep && !quoted) {
            head.n = i;
            *rest = gw_str_sub(*rest, i + 1, rest->n);
            return head;
        }
    }
    *rest = (struct gw_str){NULL, 0};
    return head;
}

static struct gw_str unquote(struct gw_str s)
{
    s = gw_str_trim(s);
    return s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"' ? gw_str_sub(s, 1, s.n - 2) : s;
}

/* rel="next", rel=next, rel="prev next" */
static bool is_next(struct gw_str parameters)
{
    while (parameters.p != NULL) {
        struct gw_str value = until(&parameters, ';'), name, rel;

        if (!gw_str_split(&value, '=', &name) || !gw_str_ieq_c(gw_str_trim(name), "rel")) {
            continue;
        }
        value = unquote(value);
        while (gw_str_split(&value, ' ', &rel)) {
            if (gw_str_ieq_c(rel, "next")) {
                return true;
            }
        }
    }
    return false;
}

/* The target of the next page. A comma inside <> separates nothing. */
static bool next_url(struct gw_str header, struct gw_str *url)
{
    while (header.p != NULL && header.n != 0) {
        const char *open = memchr(header.p, '<', header.n);
        const char *close =
            open != NULL ? memchr(open, '>', header.n - (size_t)(open - header.p)) : NULL;

        if (close == NULL) {
            return false;
        }
        *url = (struct gw_str){open + 1, (size_t)(close - open - 1)};
        header = gw_str_sub(header, (size_t)(close - header.p) + 1, header.n);
        if (is_next(until(&header, ','))) {
            return true;
        }
    }
    return false;
}

struct gw_str hub_link_cursor(struct gw_str link_header, struct gw_arena *a)
{
    const struct gw_str unreadable = {NULL, 0};
    struct gw_str query, before, page = unreadable;
    struct hub_pair pair;
    int rc;

    if (!next_url(link_header, &query)) {
        return GW_STR("");
    }
    gw_str_split(&query, '#', &before);
    query = before;
    gw_str_split(&query, '?', &before);
    while ((rc = hub_next_pair(&pair, &query, a)) == GW_OK) {
        if (pair.bad || !hub_text_ok(pair.value)) {
            continue;
        }
        if (gw_str_eq_c(pair.key, "cursor") && pair.value.n != 0) {
            return gw_arena_dup(a, pair.value);
        }
        if (gw_str_eq_c(pair.key, "p") && !hub_page_cursor(pair.value, a, &page)) {
            page = unreadable;
        }
    }
    return rc == GW_NOT_FOUND && page.n != 0 ? page : unreadable;
}

void hub_put_link_next(struct gw_buf *out, struct gw_str public_url, const struct hub_target *t,
                       struct gw_str cursor)
{
    gw_buf_add_char(out, '<');
    gw_buf_add(out, public_url);
    hub_put_target_path(out, t, t->revision);
    hub_put_page_query(out, t, cursor);
    gw_buf_add_c(out, ">; rel=\"next\""); /* huggingface.js wants exactly one space */
}

void hub_put_moved(struct gw_buf *out, const struct hub_target *t, struct gw_str raw_target)
{
    struct gw_str query = raw_target, path;

    hub_put_target_path(out, t, t->revision);
    if (gw_str_split(&query, '?', &path) && query.p != NULL) {
        gw_buf_add_char(out, '?');
        gw_buf_add(out, query);
    }
}

/* ---- Content-Disposition (RFC 6266, 8187) ---- */

static struct gw_str base_name(struct gw_str path)
{
    for (size_t i = path.n; i > 0; i--) {
        if (path.p[i - 1] == '/') {
            return gw_str_sub(path, i, path.n);
        }
    }
    return path;
}

void hub_put_content_disposition(struct gw_buf *out, struct gw_str path)
{
    struct gw_str name = base_name(path);

    gw_buf_add_c(out, "inline; filename*=UTF-8''");
    gw_percent_encode(out, name, false);
    gw_buf_add_c(out, "; filename=\"");
    while (name.n != 0) {
        size_t n = gw_utf8_char(name);
        char c = name.p[0];

        /* RFC 6266 appendix D: some readers decode a '%' here */
        gw_buf_add_char(out, n != 1 || c < 0x20 || c == 0x7f || strchr("\"\\%", c) ? '_' : c);
        name = gw_str_sub(name, n != 0 ? n : 1, name.n);
    }
    gw_buf_add_c(out, "\";");
}

/* ---- Content-Type ---- */

/* As the Hub does: text is shown by a browser, and nothing is ever run by it. */
const char *hub_content_type(struct gw_str path)
{
    static const char *const endings[] = {".json",     ".jsonl",
                                          ".txt",      ".md",
                                          ".py",       ".yaml",
                                          ".yml",      ".toml",
                                          ".cfg",      ".ini",
                                          ".csv",      ".tsv",
                                          ".xml",      ".html",
                                          ".htm",      ".svg",
                                          ".css",      ".js",
                                          ".mjs",      ".ts",
                                          ".jinja",    ".sh",
                                          ".c",        ".h",
                                          ".cpp",      ".cu",
                                          ".rs",       ".ipynb",
                                          ".tex",      ".bib",
                                          ".rst",      ".vocab",
                                          ".merges",   ".gitattributes",
                                          ".gitignore"};
    struct gw_str name = base_name(path);

    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t n = strlen(endings[i]);

        if (name.n >= n && gw_str_ieq_c(gw_str_sub(name, name.n - n, n), endings[i])) {
            return "text/plain; charset=utf-8";
        }
    }
    if (gw_str_eq_c(name, "LICENSE") || gw_str_eq_c(name, "NOTICE") ||
        gw_str_eq_c(name, "README") || gw_str_eq_c(name, "Dockerfile") ||
        gw_str_eq_c(name, "Makefile")) {
        return "text/plain; charset=utf-8";
    }
    return "application/octet-stream";
}

/* ---- ETag ---- */

struct gw_str hub_etag_digest(struct gw_str etag)
{
    struct gw_str s = gw_str_trim(etag);
    char lower[64];

    if (gw_str_starts(s, GW_STR("W/"))) {
        s = gw_str_sub(s, 2, s.n);
    }
    s = unquote(s);
    return gw_hex_lower(lower, s, 40) || gw_hex_lower(lower, s, 64) ? s : GW_STR("");
}
