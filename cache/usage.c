/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/usage.c - which blobs are held and when each was last used: tables of their own in the
 * index.
 *
 *   entry   0x40, 16 bytes of the digest                          -> bytes, last use, digest
 *   order   0x41, last use (8 bytes, big endian), the same 16      -> nothing; entries with bytes
 *   state   0x42, a name                                          -> the sum; what scrub.c keeps
 *
 * All three change in one transaction, so the sum is the sum of the entries at any moment.
 */
#include "cache/budget_internal.h"
#include "cache/index_internal.h"

#include "base/encode.h"

#include <lmdb.h>

#include <string.h>

#define ENTRY_KIND 0x40
#define ORDER_KIND 0x41
#define STATE_KIND 0x42
#define ENTRY_KEY (1 + BLOB_KEY)
#define ORDER_KEY (1 + 8 + BLOB_KEY)
#define BYTES_MAX (1ull << 44)
#define TOUCH_SHARE 64 /* a use is written if it moves an entry by this part of all times held */

struct entry {
    uint64_t bytes;
    int64_t used_ms;
    uint8_t n, raw[32], pad[7];
};
struct sum {
    uint64_t bytes, blobs;
};

bool blob_id_of(struct gw_str digest, struct blob_id *out)
{
    if (!cache_digest_valid(digest)) {
        return false;
    }
    memset(out, 0, sizeof(*out));
    out->n = (uint8_t)(digest.n / 2);
    return gw_hex_decode(out->raw, out->n, digest);
}

struct gw_str blob_id_hex(const struct blob_id *id, char hex[CACHE_DIGEST_MAX + 1])
{
    gw_hex_encode(hex, id->raw, id->n);
    return (struct gw_str){hex, 2u * id->n};
}

bool usage_next_key(uint8_t key[BLOB_KEY])
{
    for (unsigned i = BLOB_KEY; i-- > 0;) {
        if (++key[i] != 0) {
            return true;
        }
    }
    return false;
}

/* ---- rows ---- */

static void entry_key(uint8_t key[ENTRY_KEY], const uint8_t *raw)
{
    key[0] = ENTRY_KIND;
    memcpy(key + 1, raw, BLOB_KEY);
}

static void order_key(uint8_t key[ORDER_KEY], int64_t used_ms, const uint8_t *raw)
{
    uint64_t at = used_ms > 0 ? (uint64_t)used_ms : 0;

    key[0] = ORDER_KIND;
    for (int i = 0; i < 8; i++) {
        key[1 + i] = (uint8_t)(at >> (56 - 8 * i));
    }
    memcpy(key + 9, raw, BLOB_KEY);
}

/* An entry under its key. false: damage. */
static bool entry_read(const MDB_val *key, const MDB_val *val, struct usage *out)
{
    struct entry e;

    if (val->mv_size != sizeof(e)) {
        return false;
    }
    memcpy(&e, val->mv_data, sizeof(e));
    if ((e.n != 20 && e.n != 32) || e.bytes > BYTES_MAX || e.used_ms < 0 ||
        memcmp(e.raw, (const uint8_t *)key->mv_data + 1, BLOB_KEY) != 0) {
        return false;
    }
    *out = (struct usage){.id = {.n = e.n}, .bytes = e.bytes, .used_ms = e.used_ms};
    memcpy(out->id.raw, e.raw, e.n);
    return true;
}

/* 0, MDB_NOTFOUND, MDB_CORRUPTED */
static int entry_get(const struct index_txn *t, const uint8_t *raw, struct usage *out)
{
    uint8_t bytes[ENTRY_KEY];
    MDB_val key = {sizeof(bytes), bytes}, val;
    int rc;

    entry_key(bytes, raw);
    rc = mdb_get(t->txn, t->dbi, &key, &val);
    return rc != 0 ? rc : entry_read(&key, &val, out) ? 0 : MDB_CORRUPTED;
}

static int entry_put(const struct index_txn *t, const struct usage *u)
{
    struct entry e = {.bytes = u->bytes, .used_ms = u->used_ms, .n = u->id.n};
    uint8_t bytes[ORDER_KEY];
    MDB_val key = {ENTRY_KEY, bytes}, val = {sizeof(e), &e};
    int rc;

    memcpy(e.raw, u->id.raw, sizeof(e.raw));
    entry_key(bytes, u->id.raw);
    rc = mdb_put(t->txn, t->dbi, &key, &val, 0);
    if (rc == 0 && u->bytes != 0) {
        order_key(bytes, u->used_ms, u->id.raw);
        key.mv_size = ORDER_KEY;
        val.mv_size = 0;
        rc = mdb_put(t->txn, t->dbi, &key, &val, 0);
    }
    return rc;
}

static int entry_del(const struct index_txn *t, const struct usage *u)
{
    uint8_t bytes[ORDER_KEY];
    MDB_val key = {ORDER_KEY, bytes};
    int rc = 0;

    if (u->bytes != 0) {
        order_key(bytes, u->used_ms, u->id.raw);
        rc = mdb_del(t->txn, t->dbi, &key, NULL);
    }
    entry_key(bytes, u->id.raw);
    key.mv_size = ENTRY_KEY;
    return rc != 0 && rc != MDB_NOTFOUND ? rc : mdb_del(t->txn, t->dbi, &key, NULL);
}

static MDB_val state_key(uint8_t bytes[ENTRY_KEY], const char *name)
{
    memset(bytes, 0, ENTRY_KEY);
    bytes[0] = STATE_KIND;
    memcpy(bytes + 1, name, strnlen(name, BLOB_KEY));
    return (MDB_val){ENTRY_KEY, bytes};
}

/* Zeroes if there is none. */
static int sum_get(const struct index_txn *t, struct sum *out)
{
    uint8_t bytes[ENTRY_KEY];
    MDB_val key = state_key(bytes, "sum"), val;
    int rc = mdb_get(t->txn, t->dbi, &key, &val);

    *out = (struct sum){0, 0};
    if (rc == 0 && val.mv_size == sizeof(*out)) {
        memcpy(out, val.mv_data, sizeof(*out));
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int sum_put(const struct index_txn *t, struct sum *s)
{
    uint8_t bytes[ENTRY_KEY];
    MDB_val key = state_key(bytes, "sum"), val = {sizeof(*s), s};

    return mdb_put(t->txn, t->dbi, &key, &val, 0);
}

/* ---- changes ---- */

static void sum_drop(struct sum *s, const struct usage *u)
{
    s->bytes -= s->bytes < u->bytes ? s->bytes : u->bytes;
    s->blobs -= s->blobs > 0;
}

/* The last use of the oldest entry that has bytes; INT64_MAX: none. */
static int oldest_ms(const struct index_txn *t, int64_t *out)
{
    uint8_t bytes[ORDER_KEY] = {ORDER_KIND};
    MDB_val key = {sizeof(bytes), bytes}, val;
    MDB_cursor *cursor;
    uint64_t at = 0;
    int rc = mdb_cursor_open(t->txn, t->dbi, &cursor);

    *out = INT64_MAX;
    if (rc != 0) {
        return rc;
    }
    rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
    if (rc == 0 && key.mv_size == ORDER_KEY && *(uint8_t *)key.mv_data == ORDER_KIND) {
        for (int i = 0; i < 8; i++) {
            at = at << 8 | ((uint8_t *)key.mv_data)[1 + i];
        }
        *out = at < INT64_MAX ? (int64_t)at : INT64_MAX;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int apply_one(const struct index_txn *t, const struct usage_change *change, int64_t oldest,
                     struct sum *sum)
{
    struct usage held, u = change->u;
    int rc = entry_get(t, u.id.raw, &held);
    bool there = rc == 0;

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }
    switch (change->what) {
    case USAGE_TOUCH:
        if (!there || u.used_ms - held.used_ms <=
                          (oldest < u.used_ms ? (u.used_ms - oldest) / TOUCH_SHARE : 0)) {
            return 0;
        }
        u.bytes = held.bytes;
        u.id = held.id;
        break;
    case USAGE_SET:
        if (there && held.used_ms > u.used_ms) {
            u.used_ms = held.used_ms;
        }
        break;
    case USAGE_REMOVE:
        break;
    }
    rc = there ? entry_del(t, &held) : 0;
    if (there) {
        sum_drop(sum, &held);
    }
    if (rc == 0 && change->what != USAGE_REMOVE) {
        sum->bytes += u.bytes;
        sum->blobs++;
        rc = entry_put(t, &u);
    }
    return rc;
}

int usage_apply(struct cache *c, const struct usage_change *changes, size_t n, struct gw_error *err)
{
    struct index_txn t;
    struct sum sum;
    int64_t oldest;
    int rc, status;

    if (n == 0) {
        return GW_OK;
    }
    status = index_begin(c, true, &t, err);
    if (status != GW_OK) {
        return status;
    }
    rc = sum_get(&t, &sum);
    rc = rc != 0 ? rc : oldest_ms(&t, &oldest);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = apply_one(&t, &changes[i], oldest, &sum);
    }
    rc = rc != 0 ? rc : sum_put(&t, &sum);
    return index_end(c, &t, rc, "usage", err);
}

/* ---- looking ---- */

int usage_totals(struct cache *c, uint64_t *bytes, uint64_t *blobs, struct gw_error *err)
{
    struct index_txn t;
    struct sum sum;
    int rc, status = index_begin(c, false, &t, err);

    if (status != GW_OK) {
        return status;
    }
    rc = sum_get(&t, &sum);
    *bytes = sum.bytes;
    *blobs = sum.blobs;
    return index_end(c, &t, rc, "usage", err);
}

int usage_get(struct cache *c, const struct blob_id *id, struct usage *out, struct gw_error *err)
{
    struct index_txn t;
    int rc, status = index_begin(c, false, &t, err);

    if (status != GW_OK) {
        return status;
    }
    rc = entry_get(&t, id->raw, out);
    status = index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "usage", err);
    return status == GW_OK && rc == MDB_NOTFOUND ? GW_NOT_FOUND : status;
}

int usage_recount(struct cache *c, struct gw_error *err)
{
    uint8_t bytes[ENTRY_KEY] = {ENTRY_KIND};
    MDB_val key = {sizeof(bytes), bytes}, val;
    struct sum seen = {0, 0}, was, now;
    MDB_cursor *cursor = NULL;
    struct usage u;
    struct index_txn t;
    int rc, status = index_begin(c, false, &t, err);

    if (status != GW_OK) {
        return status;
    }
    rc = sum_get(&t, &was);
    rc = rc != 0 ? rc : mdb_cursor_open(t.txn, t.dbi, &cursor);
    rc = rc != 0 ? rc : mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
    for (; rc == 0 && key.mv_size == ENTRY_KEY && *(uint8_t *)key.mv_data == ENTRY_KIND;
         rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT)) {
        if (!entry_read(&key, &val, &u)) {
            rc = MDB_CORRUPTED;
            break;
        }
        seen.bytes += u.bytes;
        seen.blobs++;
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    status = index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "usage", err);
    if (status != GW_OK || (seen.bytes == was.bytes && seen.blobs == was.blobs)) {
        return status;
    }
    status = index_begin(c, true, &t, err);
    if (status != GW_OK) {
        return status;
    }
    rc = sum_get(&t, &now); /* it has gone on meanwhile, by differences: so does the correction */
    now.bytes += seen.bytes - was.bytes;
    now.blobs += seen.blobs - was.blobs;
    return index_end(c, &t, rc != 0 ? rc : sum_put(&t, &now), "usage", err);
}

int usage_oldest(struct cache *c, const struct usage *last, struct usage *out, size_t cap,
                 size_t *n, struct gw_error *err)
{
    uint8_t bytes[ORDER_KEY] = {ORDER_KIND};
    MDB_val key = {sizeof(bytes), bytes}, val;
    MDB_cursor *cursor = NULL;
    struct index_txn t;
    int rc, status = index_begin(c, false, &t, err);

    *n = 0;
    if (status != GW_OK) {
        return status;
    }
    if (last != NULL) {
        order_key(bytes, last->used_ms, last->id.raw);
    }
    rc = mdb_cursor_open(t.txn, t.dbi, &cursor);
    rc = rc != 0 ? rc : mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
    if (rc == 0 && last != NULL && key.mv_size == sizeof(bytes) &&
        memcmp(key.mv_data, bytes, sizeof(bytes)) == 0) {
        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }
    while (rc == 0 && *n < cap && key.mv_size == ORDER_KEY &&
           *(uint8_t *)key.mv_data == ORDER_KIND) {
        rc = entry_get(&t, (uint8_t *)key.mv_data + 9, &out[*n]);
        if (rc != 0) {
            rc = MDB_CORRUPTED; /* both are written in one transaction */
            break;
        }
        ++*n;
        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    return index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "usage", err);
}

int usage_range(struct cache *c, const uint8_t from[BLOB_KEY], const uint8_t to[BLOB_KEY],
                struct usage *out, size_t cap, size_t *n, struct gw_error *err)
{
    uint8_t bytes[ENTRY_KEY];
    MDB_val key = {sizeof(bytes), bytes}, val;
    MDB_cursor *cursor = NULL;
    struct index_txn t;
    int rc, status = index_begin(c, false, &t, err);

    *n = 0;
    if (status != GW_OK) {
        return status;
    }
    entry_key(bytes, from);
    rc = mdb_cursor_open(t.txn, t.dbi, &cursor);
    rc = rc != 0 ? rc : mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
    while (rc == 0 && *n < cap && key.mv_size == ENTRY_KEY &&
           *(uint8_t *)key.mv_data == ENTRY_KIND &&
           memcmp((uint8_t *)key.mv_data + 1, to, BLOB_KEY) <= 0) {
        rc = entry_read(&key, &val, &out[*n]) ? 0 : MDB_CORRUPTED;
        if (rc == 0) {
            ++*n;
            rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
        }
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    return index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "usage", err);
}

/* ---- state ---- */

int usage_state_get(struct cache *c, const char *name, void *out, size_t n, struct gw_error *err)
{
    uint8_t bytes[ENTRY_KEY];
    MDB_val key = state_key(bytes, name), val = {0, NULL};
    struct index_txn t;
    bool there = false;
    int rc, status = index_begin(c, false, &t, err);

    if (status != GW_OK) {
        return status;
    }
    rc = mdb_get(t.txn, t.dbi, &key, &val);
    if (rc == 0 && val.mv_size == n) {
        memcpy(out, val.mv_data, n);
        there = true;
    }
    status = index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "usage", err);
    return status == GW_OK && !there ? GW_NOT_FOUND : status;
}

int usage_state_put(struct cache *c, const char *name, const void *p, size_t n,
                    struct gw_error *err)
{
    uint8_t bytes[ENTRY_KEY];
    MDB_val key = state_key(bytes, name), val = {n, (void *)(uintptr_t)p};
    struct index_txn t;
    int status = index_begin(c, true, &t, err);

    return status != GW_OK ? status
                           : index_end(c, &t, mdb_put(t.txn, t.dbi, &key, &val, 0), "usage", err);
}
