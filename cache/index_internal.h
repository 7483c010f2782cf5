/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/index_internal.h - transactions of the index for its other tables (usage.c). For the two
 * files that include lmdb.h.
 */
#ifndef CACHE_INDEX_INTERNAL_H
#define CACHE_INDEX_INTERNAL_H

#include "cache/cache_internal.h"

struct index_txn {
    void *txn; /* MDB_txn * */
    unsigned dbi;
    bool write;
};
/* Job. Between begin and end the index cannot be set aside, and the mark in the slot is up: no I/O,
 * nothing that waits. @return GW_OK; GW_IO, GW_NO_MEMORY: nothing is begun */
int index_begin(struct cache *c, bool write, struct index_txn *t,
                struct gw_error *err) GW_MUST_CHECK;
/* rc: 0 or an LMDB code, of the last call. A write is committed if it is 0. @return GW_OK; GW_IO;
 * GW_NO_MEMORY */
int index_end(struct cache *c, struct index_txn *t, int rc, const char *what, struct gw_error *err);
/* A value that cannot be: everything misses until the index was set aside. */
void index_suspect(struct cache *c);

#endif
