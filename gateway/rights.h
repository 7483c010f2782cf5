/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway/rights.h - the policy's answer for each path of a write (docs/policy.md, "Rules about
 * files and revisions"). Jobs ask while the body comes; the loop asks once more for the path that
 * was refused, so that the answer and the audit record name its rule.
 */
#ifndef GATEWAY_RIGHTS_H
#define GATEWAY_RIGHTS_H

#include "gateway/internal.h"

struct rights { /* all borrowed, from one arena and the policy */
    const struct policy *policy;
    struct policy_subject subject;
    struct policy_object object; /* the repository and the revision */
    int64_t now_ms;
    struct gw_str refused; /* the path; p == NULL: none. In a */
    struct gw_arena *a;
    /* objects: read_all: every file of the repository may be read */
    bool read_all;
    const char *data_dir;
    struct repo_id id;
    struct gw_str sender, revision;
    uint8_t (*readable)[32]; /* digests of the tip's files that may be read: made when needed */
    size_t n_readable, cap_readable;
    bool listed;
};

/* Who asks, as text for the argument of a job; p == NULL: no memory. */
struct gw_str rights_subject_text(struct gw_arena *a, const struct policy_subject *s);
/* Takes it off the front of *text. Borrows it; groups in a. false: no such text, or no memory */
bool rights_subject_take(struct policy_subject *out, struct gw_str *text, struct gw_arena *a);

/* What a write to this target is to the policy: borrows from it. */
struct policy_object rights_object(const struct hub_target *t);
/* May who asks read every file of it? Loop. */
bool rights_read_all(const struct gateway *gw, const struct gateway_state *st,
                     const struct hub_target *t);
/* Copies all of it into a, for jobs. false: no memory */
bool rights_copy(struct rights *out, const struct gateway *gw, const struct gateway_state *st,
                 const struct hub_target *t, struct gw_arena *a);
/* ctx: struct rights. May this path be written? @return GW_OK; GW_FORBIDDEN (err->sys EACCES: the
 * path and the rule's reason); GW_NO_MEMORY. Any thread; one at a time */
int rights_path(void *ctx, struct gw_str path, struct gw_error *err) GW_MUST_CHECK;
/* ctx: struct rights. May this object be had by its digest: all may be read, or who asks sent it,
 * or a file of the tip that he may read is it. @return GW_OK; GW_NOT_FOUND (REPO_NO_OBJECT, whether
 * the repository holds it or not) */
int rights_object_known(void *ctx, struct gw_str sha256, struct gw_error *err) GW_MUST_CHECK;
void rights_release(struct rights *r);
/* The loop: rights_path refused this path. *ans says so. */
int rights_refuse(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct hub_target *t, struct gw_str path);

#endif
