/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway/record.h - the binary form of tokens, subjects and refs in the index: read on every
 * request, so no JSON and no MAC there (data/ has both, and is what the entries are read from).
 */
#ifndef GATEWAY_RECORD_H
#define GATEWAY_RECORD_H

#include "auth/auth.h"
#include "base/arena.h"
#include "base/str.h"

void record_token_encode(struct gw_buf *out, const struct auth_token *t);
bool record_token_decode(struct auth_token *out, struct gw_str value); /* borrows from value */
void record_subject_encode(struct gw_buf *out, const struct auth_subject *s);
/* GW_OK; GW_CORRUPT; GW_NO_MEMORY. Borrows; the array of the groups is in the arena */
int record_subject_decode(struct auth_subject *out, struct gw_str value,
                          struct gw_arena *a) GW_MUST_CHECK;

/* A ref: the commit, and the repo's canonical name. */
struct record_ref {
    struct gw_str commit, ns, name;
};
void record_ref_encode(struct gw_buf *out, const struct record_ref *r);
bool record_ref_decode(struct record_ref *out, struct gw_str value);

/* All paths of a commit, as hashes. What no record says of a file is no answer (the record may have
 * been evicted, or its key damaged); only a path that is not among all of them is absent. */
struct record_paths {
    struct gw_buf hashes; /* gw_buf_init with a ceiling; gw_buf_release */
};
void record_paths_add(struct record_paths *p, struct gw_str path);
/* Sorts p. out->failed: no memory, or p is not complete. */
void record_paths_encode(struct gw_buf *out, struct record_paths *p);
bool record_paths_absent(struct gw_str value, struct gw_str path);

#endif
