/* SPDX-License-Identifier: Apache-2.0 */
/* gateway/nodes.h - other nodes, as wants.c and the jobs see them (nodes.c). */
#ifndef GATEWAY_NODES_H
#define GATEWAY_NODES_H

#include "gateway/internal.h"

/* ---- loop ---- */
/* A job of upstream's has its turn: is Redis asked first? Then nodes_asked comes when that job has
 * ended. */
bool nodes_ask(struct gateway *gw, struct gateway_job *job);
/* true: another node had it, the job is over. false: it has its turn again, or waits (again_ms). */
bool nodes_asked(struct gateway_job *ask);
/* A job of upstream's has ended, nobody waits for it any more. true: it goes on as one of Redis,
 * which gives others what it brought. */
bool nodes_give(struct gateway *gw, struct gateway_job *job);
/* A record of data/ has changed: the others are told in the background. */
void nodes_tell(struct gateway *gw, enum cache_kind kind, struct gw_str id);
/* Leases of calls that take long are renewed; one worker of the node listens once a second. */
void nodes_tick(struct gateway *gw);

/* ---- job threads ---- */
/* These are in the index now. */
void nodes_brought(struct gateway_job *job, const struct cache_put *puts, size_t n);
int job_ask(struct gateway_job *job);
int job_give(struct gateway_job *job);
int job_renew(struct gateway_job *job);
int job_tell(struct gateway_job *job);
int job_listen(struct gateway_job *job);

/* The command, which ends at once: blocks. GW_OK also without other nodes */
int nodes_tell_now(struct gateway *gw, enum cache_kind kind, struct gw_str id,
                   struct gw_error *err) GW_MUST_CHECK;

#endif
