/* SPDX-License-Identifier: Apache-2.0 */
/* gateway/jobs.h - what the jobs of the corridor share. Job threads only. */
#ifndef GATEWAY_JOBS_H
#define GATEWAY_JOBS_H

#include "gateway/internal.h"

/* Puts one record, checked now. p == NULL of name or value is the caller's lack of memory. */
int job_put(struct gateway_job *job, enum cache_kind kind, struct gw_str name,
            enum gw_status status, int detail, struct gw_str value) GW_MUST_CHECK;

/* Into the index, and to other nodes once the job has ended well: everything of upstream's goes
 * this way. As cache_put. */
int job_puts(struct gateway_job *job, const struct cache_put *puts, size_t n) GW_MUST_CHECK;

/* The repo of a key "verb, type, ns, name, ..." as a target of this route. false: no such type. */
bool job_target(struct gateway_job *job, enum hub_route route, struct hub_target *t);
struct gw_str job_upstream_target(struct gateway_job *job, const struct hub_target *t,
                                  struct gw_str revision); /* p == NULL: no memory */

/* Does so much more fit into the namespace of this repository? now: it comes with this request
 * (else it is only announced). @return GW_OK; GW_TOO_LARGE (EDQUOT; a sentence with all numbers);
 * what repo_ns_usage says */
int quota_check(struct gateway *gw, const struct repo_id *id, uint64_t more, bool now,
                struct gw_error *err) GW_MUST_CHECK;

/* One call upstream within the job's deadline; as cache_upstream_call. */
int64_t job_call_deadline(const struct gateway_job *job);
int job_call(struct gateway_job *job, struct cache_call *c,
             int (*sink)(void *ctx, struct gw_str bytes), void *ctx,
             struct cache_reply *reply) GW_MUST_CHECK;
/* A reply that is no 2xx: an outage or a rate limit is the job's failure, the rest is a fact. */
bool job_is_outage(enum hub_reason why);
int job_outage(struct gateway_job *job, const struct cache_reply *reply, enum hub_reason why);
int job_bad_link(struct gateway_job *job);

#endif
