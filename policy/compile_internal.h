/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/compile_internal.h - what the steps of compiling share: documents, complaints, memory.
 * Inside policy/ only.
 *
 * A step complains and goes on, so that one run shows every error; only lack of memory ends it
 * (status).
 */
#ifndef POLICY_COMPILE_INTERNAL_H
#define POLICY_COMPILE_INTERNAL_H

#include "base/yaml.h"
#include "policy/policy_internal.h"

struct policy_doc {
    struct gw_str name; /* lives as long as the policy */
    struct gw_yaml *root;
};

struct policy_complaint {
    struct gw_str file;
    unsigned line, column;
    struct gw_str text; /* the whole line */
};

/* A list that grows in the compiler's arena. */
struct policy_vec {
    void *v;
    size_t n, cap;
};

struct policy_pair {
    uint32_t from, to;
};

struct policy_compiler {
    struct policy *p;
    struct gw_arena *keep; /* the policy's */
    struct gw_arena tmp;   /* trees, and all that only compiling needs */
    int status;            /* GW_OK; GW_NO_MEMORY, GW_TOO_LARGE: stop */

    struct policy_doc *docs;
    size_t n_docs;
    const struct policy_doc *doc; /* being read: complaints name it */
    struct policy_vec complaints; /* struct policy_complaint */
    size_t unsaid;                /* complaints beyond the limit */

    struct policy_map rule_ids; /* id -> index in rules */
    struct policy_vec rules;    /* struct policy_rule *, in file order */

    const struct gw_yaml **group_nodes; /* by group id */
    const struct policy_doc **group_docs;
    struct policy_vec members;   /* any_of: struct policy_pair {member, group} */
    struct policy_vec in_source; /* {source, group} */
    struct policy_vec of_user;   /* {user, group} */
    struct policy_ids *closed;   /* by group id: itself and all it is part of */
};

/* ---- compile.c ---- */
void policy_complain(struct policy_compiler *c, const struct gw_yaml *at, bool at_key,
                     const char *fmt, ...) GW_PRINTF(4, 5);
/* Zeroed; NULL: c->status says why. */
void *policy_keep(struct policy_compiler *c, size_t n);
void *policy_tmp(struct policy_compiler *c, size_t n);
bool policy_push(struct policy_compiler *c, struct policy_vec *vec, const void *item, size_t size);
struct gw_str policy_keep_str(struct policy_compiler *c,
                              struct gw_str s); /* p == NULL: no memory */
/* After a failed allocation from an arena. */
void policy_out_of_memory(struct policy_compiler *c, const struct gw_arena *a, size_t wanted);

/* "; did you mean ...?" in buf, or "". words come from a table, or from the keys of a map. */
#define POLICY_HINT 160
const char *policy_hint(char buf[POLICY_HINT], struct gw_str word, const char *const *words,
                        size_t n);
const char *policy_hint_name(struct policy_compiler *c, char buf[POLICY_HINT], struct gw_str word,
                             const struct policy_map *names);

/* Complains about what is no mapping and about unknown keys. true: nothing to complain about. */
bool policy_check_keys(struct policy_compiler *c, const struct gw_yaml *map,
                       const char *const *known, size_t n, const char *what);
/* A scalar that is not empty. */
bool policy_scalar(struct policy_compiler *c, const struct gw_yaml *node, const char *what,
                   struct gw_str *out);
/* "no value": a key with nothing behind it. */
bool policy_is_null(const struct gw_yaml *node);
/* One word, or a list of words that is not empty: the first of *n nodes. NULL after a complaint. */
const struct gw_yaml *policy_words(struct policy_compiler *c, const struct gw_yaml *node,
                                   const char *what, size_t *n);
/* Letters, digits, `.`, `_`, `-`: names that the files themselves make. */
bool policy_check_name(struct policy_compiler *c, const struct gw_yaml *at, bool at_key,
                       const char *what, struct gw_str name);
/* Compiles the patterns of a node, appended to globs (struct policy_glob); POLICY_GLOB_* extra
 * rules by kind. */
enum policy_glob_kind {
    POLICY_GLOBS_NAMESPACE,
    POLICY_GLOBS_REPO,
    POLICY_GLOBS_REVISION,
    POLICY_GLOBS_FILE
};
void policy_read_globs(struct policy_compiler *c, const struct gw_yaml *node,
                       enum policy_glob_kind kind, const char *what, struct policy_globs *out);

#define POLICY_COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- the sections ---- */
void policy_read_namespaces(struct policy_compiler *c); /* groups.c */
void policy_read_services(struct policy_compiler *c);
void policy_read_groups(struct policy_compiler *c);
void policy_close_groups(struct policy_compiler *c); /* after all rules: they name users */
void policy_read_rules(struct policy_compiler *c);   /* rules.c */
void policy_read_cases(struct policy_compiler *c);   /* cases.c */

#endif
