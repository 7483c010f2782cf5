/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/policy.h - who may do what to which repo.
 *
 * A policy is an immutable, refcounted snapshot: parsed at configuration time, then read by any
 * thread without a lock. No I/O, no clock (expiry is judged against the time handed in), no global.
 * The language: docs/policy.md.
 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

#define POLICY_MAX_BYTES (16u << 20) /* bytes of YAML, all files */

/* Groups of one subject; more is GW_TOO_LARGE where subjects are made, and is denied everything
 * here: the one left out could be the one a deny is for. */
#define POLICY_MAX_GROUPS 1024u

struct policy;      /* opaque */
struct policy_rule; /* opaque */

enum policy_effect { POLICY_DENY = 0, POLICY_ALLOW = 1 }; /* zeroed memory denies */
enum policy_action {
    POLICY_DISCOVER,
    POLICY_READ,
    POLICY_WRITE,
    POLICY_CREATE,
    POLICY_DELETE,
    POLICY_ADMIN,
    POLICY_ACTION_COUNT
};
enum policy_kind { POLICY_ANONYMOUS = 0, POLICY_USER, POLICY_SERVICE };

/* Borrowed. groups are directory values: names of the account file, or DNs as the directory spells
 * them; the policy maps them to its own group names (ASCII case folded), which is why a group of
 * the directory that no file names gives nothing. */
struct policy_subject {
    enum policy_kind kind;
    struct gw_str
        name; /* canonical, lower case; a user or service without one is denied everything */
    const struct gw_str *groups;
    size_t n_groups;
};

/* Borrowed; canonical: redirects and case already resolved by the caller where it can.
 *
 * A rule with revisions matches the one asked or the commit. With neither, a deny with revisions
 * does not match, and an allow with revisions matches discover only: so ask for discover before a
 * revision is resolved, and for the action itself once the commit is known. A route that means the
 * default branch names it ("main"). */
struct policy_object {
    struct gw_str type;     /* "model", "dataset", "space", "kernel" */
    struct gw_str ns, name; /* a single-segment public id has ns "_" (auth-policy 5.3-5) */
    struct gw_str revision; /* as asked; empty: none named */
    struct gw_str commit;   /* resolved; empty: not known */
    struct gw_str path;     /* empty: the repo level */
};

struct policy_file {
    struct gw_str name, yaml; /* borrowed; name is for messages */
};

struct policy_decision {
    enum policy_effect effect;
    const struct policy_rule *rule; /* the deciding one, owned by the policy; NULL: none matched */
};

/**
 * Compile a policy. Does not run the tests inside the files: policy_test does.
 * @param out   one reference, owned by the caller; left alone on failure
 * @param files their order has no meaning
 * @param err   may be NULL; the first error, "FILE:LINE:COLUMN: what is wrong" and a hint
 * @param report may be NULL; every error of every file, one a line (ceiling of the buffer)
 * @return GW_OK; GW_INVALID (syntax, unknown key, action, group, service, duplicate id, bad glob,
 * an allow that reaches anonymous or everyone on private repos without public_ok); GW_TOO_LARGE;
 * GW_NO_MEMORY
 */
int policy_parse(struct policy **out, const struct policy_file *files, size_t n_files,
                 struct gw_buf *report, struct gw_error *err) GW_MUST_CHECK;
struct policy *policy_ref(struct policy *p);
void policy_unref(struct policy *p); /* NULL is fine */

/* Is this namespace declared private? Decided by private_namespaces alone, before any look-up.
 * ASCII case folded. What is too long for a name (512 bytes) is private: it must not be asked for
 * upstream. */
bool policy_is_private(const struct policy *p, struct gw_str ns);

/**
 * Decide one request. Total: every input has an answer, so there is no error to mishandle.
 * Any matching deny wins, then any allow; no match denies. Indexed, not linear; allocates nothing;
 * any thread. Source: docs/policy.md; the truth table is tests/unit/policy/.
 */
struct policy_decision policy_decide(const struct policy *p, const struct policy_subject *s,
                                     enum policy_action a, const struct policy_object *o,
                                     int64_t now_wall_ms);

/* Is the answer "allow" for every file, and, if the object names no revision, for every revision?
 * As policy_decide, but a deny for some of them is a deny, and an allow for some of them is none:
 * what a clone needs, which gives all. */
struct policy_decision policy_decide_every(const struct policy *p, const struct policy_subject *s,
                                           enum policy_action a, const struct policy_object *o,
                                           int64_t now_wall_ms);

/* Does a rule that allows this subject to read this file say verify: before? Any matching one does,
 * whichever decides. As policy_decide in all else. @return that rule; NULL: none */
const struct policy_rule *policy_verify_before(const struct policy *p,
                                               const struct policy_subject *s,
                                               const struct policy_object *o, int64_t now_wall_ms);

/* The texts of a rule; all give "" (line 0) for NULL. Owned by the policy. */
struct gw_str policy_rule_id(const struct policy_rule *r);     /* "(default)" for NULL */
struct gw_str policy_rule_reason(const struct policy_rule *r); /* what the person is told */
struct gw_str policy_rule_file(const struct policy_rule *r);
unsigned policy_rule_line(const struct policy_rule *r);

/* Upper bound of what a token's role allows: read -> discover, read; write -> also write, create,
 * delete; admin needs write. */
enum policy_role { POLICY_ROLE_NONE = 0, POLICY_ROLE_READ, POLICY_ROLE_WRITE };
bool policy_role_allows(enum policy_role role, enum policy_action a);

/**
 * A report for people: the decision, the deciding rule with FILE:LINE, the matching rules, and the
 * nearest misses (rules with one unmet condition) with the reason: "eng-write  p.yaml:9: needs
 * group:eng". Walks all rules.
 * @param out plain text of several lines, or one JSON object {decision, action, resource, hub,
 * subject, groups, rule, matching, matching_total, misses} and a newline; a full buffer does not
 * change the decision
 */
struct policy_decision policy_explain(const struct policy *p, const struct policy_subject *s,
                                      enum policy_action a, const struct policy_object *o,
                                      int64_t now_wall_ms, bool json, struct gw_buf *out);

/* Runs the tests inside the files. report (may be NULL): a line for each failure, "FILE:LINE: test
 * \"name\": CLAIM: expected allow, got deny by rule X (FILE:LINE)", and one for each expired rule,
 * "FILE:LINE: warning: ...". */
struct policy_test_result {
    unsigned passed, failed;
};
struct policy_test_result policy_test(const struct policy *p, int64_t now_wall_ms,
                                      struct gw_buf *report);

/* "read" -> POLICY_READ. false: no such word. */
bool policy_action_parse(struct gw_str word, enum policy_action *out);
const char *policy_action_name(enum policy_action a);

/* RESOURCE = type:ns/name[@rev][//path]; WHO = user:NAME | service:NAME | anonymous. Parts borrow
 * from text. GW_INVALID says what is expected. */
int policy_resource_parse(struct gw_str text, struct policy_object *out,
                          struct gw_error *err) GW_MUST_CHECK;
int policy_who_parse(struct gw_str text, struct policy_subject *out,
                     struct gw_error *err) GW_MUST_CHECK;

struct policy_counts {
    size_t rules, groups, services, private_namespaces, tests;
};
struct policy_counts policy_count(const struct policy *p);
/* i-th private namespace (braces written out): its name in lower case, "" if it is a glob; p ==
 * NULL: no more. */
struct gw_str policy_private_namespace(const struct policy *p, size_t i);
/* i-th declared directory group (its DN or account-file name), for `hubgate check` to resolve; p ==
 * NULL: no more. */
struct gw_str policy_group_source(const struct policy *p, size_t i);

#endif
