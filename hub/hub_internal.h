/* SPDX-License-Identifier: Apache-2.0 */
/* hub/hub_internal.h - what the files of this room share: the grammar of names and the JSON filter.
 */
#ifndef HUB_HUB_INTERNAL_H
#define HUB_HUB_INTERNAL_H

#include "hub/hub.h"

#define HUB_NAME_MAX 96u
#define HUB_KEYS_MAX 64u /* keys of an expand list */

/* ---- names (name.c) ---- */

/* 1-96 of [A-Za-z0-9_.-], no "--", "..", no '-' or '.' at an end, no ".git" end: what the Python
 * client lets a user name (huggingface_hub, utils/_validators.py), in ASCII. */
bool hub_name_ok(struct gw_str name);
bool hub_name_reserved(
    struct gw_str name); /* a word of the Hub's own URLs, never a namespace; ASCII case folded */
bool hub_repo_id_ok(struct gw_str id); /* "ns/name" or "name" */

/* Valid UTF-8 without control characters, bidi and zero-width characters, line separators and '\'.
 */
bool hub_text_ok(struct gw_str text);
/* No component is empty, "." or "..". */
bool hub_components_ok(struct gw_str path);
/* What a path from upstream must be at least: 1 to HUB_PATH_MAX bytes of UTF-8, no control
 * characters, components ok. A name with a zero-width joiner or '\' is listed, though
 * hub_target_parse refuses to serve it. */
bool hub_path_safe(struct gw_str path);

/* ---- query (query.c) ---- */

/* Fills the fields that t->route knows, and t->query. @return GW_OK; GW_INVALID; GW_TOO_LARGE;
 * GW_NO_MEMORY */
int hub_query_parse(struct hub_target *t, struct gw_str raw_query, struct gw_arena *a,
                    struct gw_error *err) GW_MUST_CHECK;
/* list.c: the same of a list's query, with all its keys. */
int hub_list_query(struct hub_target *t, struct gw_str raw_query, struct gw_arena *a,
                   struct gw_error *err) GW_MUST_CHECK;
/* "?a=b&cursor=c": the query of t without its page, on the page of cursor. */
void hub_put_page_query(struct gw_buf *out, const struct hub_target *t, struct gw_str cursor);
/* The URL's page number as our cursor ("3" -> "p:3"); "0" is the first page: "". false: no page
 * number. */
bool hub_page_cursor(struct gw_str number, struct gw_arena *a, struct gw_str *cursor);

/* %XX everywhere well formed. gw_percent_decode alone cannot tell a bad escape from no memory. */
bool hub_escapes_ok(struct gw_str raw);

/* Takes the next key=value of a query or form, both decoded. A pair with a bad escape has bad set.
 * @return GW_OK; GW_NOT_FOUND (none left); GW_NO_MEMORY */
struct hub_pair {
    struct gw_str key, value;
    bool bad;
};
int hub_next_pair(struct hub_pair *out, struct gw_str *rest, struct gw_arena *a) GW_MUST_CHECK;
bool hub_truth(struct gw_str word); /* true, True, 1 */

/* ---- target (target.c) ---- */

/* The path of t on a host, without its query: "/api/models/ns/name/tree/main/a%20b". */
void hub_put_target_path(struct gw_buf *out, const struct hub_target *t, struct gw_str revision);

/* ---- the JSON filter (rewrite.c) ---- */

/* Writes the events it is fed as compact JSON, without the members that drop names, at any depth.
 * base: depth of the value that is written (0 for a document, 1 for an entry of an array). Zeroed
 * memory and out are a valid start. */
struct hub_rewriter {
    struct gw_buf *out;
    unsigned base;
    bool (*drop)(void *ctx, struct gw_str key, unsigned depth); /* NULL: hub_is_xet_hint */
    void *ctx;
    bool dropping, after_key;
    unsigned drop_depth;
};
/* true: the event was written; false: it belongs to a dropped member. */
bool hub_rewrite(struct hub_rewriter *w, enum gw_json_event ev, struct gw_str text, unsigned depth);
bool hub_is_xet_hint(
    struct gw_str key); /* xetHash, xetEnabled: they send clients to another host */

#endif
