/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway/catalogue.h - the catalogue of private repositories: a card for each in the index, made
 * from what data/ holds. Derived: what is missing or old is read again by a sweep in the
 * background, which also learns what other nodes changed.
 */
#ifndef GATEWAY_CATALOGUE_H
#define GATEWAY_CATALOGUE_H

#include "gateway/internal.h"

/* Job, command. The repository was made, changed, moved (call it for both names), deleted or
 * brought back: its card is what it is now, or gone. Never fails a write that has happened: what
 * cannot be done is logged, and done by the next sweep. */
void catalogue_repo_changed(struct gateway *gw, const struct repo_id *id);

/* A card's value: the commit it is of, and the info document of hub_info_begin. */
bool catalogue_value(const struct cache_card *card, struct gw_str *commit, struct gw_str *info);
uint8_t catalogue_type(enum hub_type type); /* cache_card.type */
/* Job. Did a sweep ever end in this index? */
bool catalogue_is_whole(struct gateway *gw);

/* Loop. Counts a finished answer, if it is a download of a private repository. */
void catalogue_count(struct gateway *gw, const struct gateway_request *req, int status,
                     uint64_t bytes_sent);
/* Loop. Once a minute what was counted is written; now and then a sweep is due. */
void catalogue_tick(struct gateway *gw);
/* What was counted since is written; no job runs any more. */
void catalogue_close(struct gateway *gw);
/* The head of the README at a commit as a JSON object, in the arena; "": none. */
struct gw_str catalogue_card_json(struct repo *r, const char commit[41], struct gw_arena *a);

/* The command: a whole sweep. all: cards that are up to date are made anew too. */
int catalogue_rebuild(struct gateway *gw, bool all, const struct repo_progress *progress,
                      uint64_t *n, struct gw_error *err) GW_MUST_CHECK;

#endif
