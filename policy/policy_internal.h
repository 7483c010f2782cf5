/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/policy_internal.h - a compiled policy. Inside policy/ only.
 *
 * parse.c makes it, decide.c reads it, explain.c and selftest.c report on it. Subjects are
 * integers: a group is a bit of a set on the stack, a user or service one number.
 */
#ifndef POLICY_INTERNAL_H
#define POLICY_INTERNAL_H

#include <stdatomic.h>

#include "policy/glob_internal.h"
#include "policy/index_internal.h"
#include "policy/policy.h"

#define POLICY_MAX_NAMED_GROUPS 65536u    /* groups in all files: the bit set is 8 KiB of stack */
#define POLICY_MAX_MEMBERSHIPS (1u << 20) /* groups x groups they are part of */
#define POLICY_MAX_RESOURCE                                                                        \
    512u /* ns/name; longer names no repo (the hub's own limit is 96 + 1 + 96) */
#define POLICY_ALL_TYPES 0x1fu /* four known ones and "other" */
#define POLICY_HUB_PRIVATE 1u
#define POLICY_HUB_PUBLIC 2u
#define POLICY_BIT(action) (1u << (action))

/* Kinds of subject, as bits. */
enum {
    POLICY_IS_EVERYONE = 1,
    POLICY_IS_AUTHENTICATED = 2,
    POLICY_IS_SERVICE = 4,
    POLICY_IS_ANONYMOUS = 8
};

/* One named subject: kind in the top bits. */
enum { POLICY_REF_GROUP = 0u, POLICY_REF_USER = 1u << 30, POLICY_REF_SERVICE = 2u << 30 };
#define POLICY_REF_KIND 0xc0000000u
#define POLICY_REF_ID 0x3fffffffu

struct policy_subjects {
    unsigned kinds;
    const uint32_t *refs;
    size_t n;
};

struct policy_globs {
    const struct policy_glob *v;
    size_t n;
};

struct policy_rule {
    struct gw_str id, reason, file;
    unsigned line, column;
    enum policy_effect effect;
    uint8_t given;   /* actions as written */
    uint8_t actions; /* and with those they imply */
    uint8_t types, hubs;
    struct policy_subjects to, unless;
    struct policy_globs repo, revisions, files, files_not;
    int64_t expires_ms; /* INT64_MAX: never */
    bool verify_before;
};

struct policy_ids {
    const uint32_t *v;
    size_t n;
};

/* One line of can or cannot. */
struct policy_claim {
    enum policy_action action;
    struct policy_object object;
    struct gw_str text;
    bool can;
};
struct policy_case {
    struct gw_str name, file;
    unsigned line;
    enum policy_kind kind;
    struct gw_str who;
    struct policy_ids groups; /* of this policy, with those they are part of */
    const struct policy_claim *claims;
    size_t n_claims;
    bool names_default;             /* rule: (default) */
    const struct policy_rule *rule; /* NULL: any */
};

struct policy {
    atomic_uint refs;
    struct gw_arena arena; /* all below */
    struct policy_index namespaces;
    struct policy_globs private_globs; /* what namespaces was built of */
    struct policy_index index;
    struct policy_index verify; /* only the rules with verify: before */
    const struct policy_rule *
        *rules; /* by rank: denies first, then those with a reason, then by id */
    size_t n_rules;
    struct policy_map groups, users, services;
    struct policy_map sources;         /* directory values, normal form */
    struct policy_ids *of_source;      /* groups of the holder of a directory value */
    struct policy_ids *of_user;        /* groups by `users` */
    const struct gw_str *group_source; /* as written, for policy_group_source */
    size_t n_group_sources;
    const struct policy_case *cases;
    size_t n_cases, n_namespaces;
};

/* ---- words.c ---- */
extern const char *const policy_types[4];
unsigned policy_type_bit(struct gw_str type); /* of no known type: the fifth */
/* What `allow` of these actions grants, what `deny` of them takes (auth-policy 5.3-1). */
unsigned policy_close(enum policy_effect effect, unsigned actions);

/* ---- source.c: directory values ---- */
uint32_t policy_source_hash(struct gw_str value);
bool policy_source_same(struct gw_str key, struct gw_str value); /* both in any spelling */

/* ---- decide.c ---- */
struct policy_who {
    unsigned kinds;     /* 0: nobody, everything is denied */
    uint32_t ref;       /* POLICY_NONE: no rule names him */
    struct gw_str user; /* what ${user} stands for */
    uint64_t groups[POLICY_MAX_NAMED_GROUPS / 64];
};
/* All that a rule can look at. */
struct policy_request {
    const struct policy *policy;
    const struct policy_who *who;
    const struct policy_object *object;
    enum policy_action action;
    bool every; /* file, and revision if none is named: a rule for some of them holds as a deny only
                 */
    unsigned type, hub;
    struct gw_str repo; /* "ns/name", folded, in text */
    int64_t now_ms;
    char text[POLICY_MAX_RESOURCE];
};

/* Why a rule does not match, as bits; 0: it does. */
enum {
    POLICY_MISS_ACTION = 1,
    POLICY_MISS_TO = 2,
    POLICY_MISS_UNLESS = 4,
    POLICY_MISS_HUB = 8,
    POLICY_MISS_TYPE = 16,
    POLICY_MISS_REPO = 32,
    POLICY_MISS_REVISION = 64,
    POLICY_MISS_FILE = 128,
    POLICY_MISS_EXPIRED = 256,
};

void policy_who_fill(struct policy_who *w, const struct policy *p, const struct policy_subject *s);
/* The same with the policy's own groups, for tests inside the files. */
void policy_who_named(struct policy_who *w, const struct policy *p, enum policy_kind kind,
                      struct gw_str name, struct policy_ids groups);
/* false: no rule can match, the answer is the default. */
bool policy_request_fill(struct policy_request *q, const struct policy *p,
                         const struct policy_who *w, enum policy_action a,
                         const struct policy_object *o, int64_t now_ms);
const struct policy_rule *
policy_request_decide(const struct policy_request *q); /* NULL: none matched */
const struct policy_rule *
policy_request_verify(const struct policy_request *q); /* NULL: none says verify: before */
unsigned policy_rule_misses(const struct policy_rule *r, const struct policy_request *q);

#endif
