/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/yaml.h - a strict subset of YAML as a tree that knows its positions (libyaml events inside).
 *
 * The tree of an ordinary file takes about 8 times its text.
 *
 * Refused with FILE:LINE:COLUMN: anchors, aliases, tags, directives, merge keys, duplicate keys,
 * keys that are empty or no scalar, several documents, tabs as indentation, NUL (also escaped),
 * invalid UTF-8, line ends that editors do not show (a lone CR, U+0085, U+2028, U+2029), depth
 * over 16. Columns count characters. Every scalar is a string (no "no" = false; auth-policy:
 * YAML 1.1 traps).
 */
#ifndef BASE_YAML_H
#define BASE_YAML_H

#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

enum gw_yaml_kind { GW_YAML_SCALAR, GW_YAML_LIST, GW_YAML_MAP };

struct gw_yaml {
    enum gw_yaml_kind kind;
    struct gw_str key;             /* of a map's child: its key; else empty */
    unsigned key_line, key_column; /* 1-based */
    struct gw_str value;           /* GW_YAML_SCALAR; NUL-terminated */
    bool quoted;                   /* the scalar was quoted: "" is then a value, not an absence */
    unsigned line, column;         /* 1-based */
    size_t count;                  /* children */
    struct gw_yaml *child, *next;  /* children in file order */
};

/* @param name  for messages, as the user knows the file
 * @param out   the root (a map for an empty document), lives in the arena
 * @return GW_OK; GW_INVALID, text "NAME:LINE:COLUMN: what is wrong"; GW_TOO_LARGE (arena: its
 * ceiling, or no memory for it); GW_NO_MEMORY. After a failure the arena holds what was read so
 * far. */
int gw_yaml_parse(struct gw_yaml **out, struct gw_str name, struct gw_str text, struct gw_arena *a,
                  struct gw_error *err) GW_MUST_CHECK;

/* Is it YAML at all, also with what the tree refuses (anchors, tags)? As gw_yaml_parse. */
int gw_yaml_syntax(struct gw_str name, struct gw_str text, struct gw_error *err) GW_MUST_CHECK;

/* NULL: absent, or not a map. */
const struct gw_yaml *gw_yaml_get(const struct gw_yaml *map, const char *key);

/* GW_INVALID with "NAME:LINE:COLUMN: text" at the node (at its key if at_key); at == NULL: "NAME:
 * text". Of a name over 80 bytes the end is shown. */
int gw_yaml_fail(struct gw_error *err, struct gw_str name, const struct gw_yaml *at, bool at_key,
                 const char *fmt, ...) GW_PRINTF(5, 6);

/* The nearest of n words to a misspelt one, for "did you mean"; NULL: none is near. Levenshtein <=
 * 2 and less than the word's length; of equals the first. */
const char *gw_nearest(struct gw_str word, const char *const *words, size_t n);

#endif
