/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/catalogue.c - cards: what there is to list, found by words, in one of several orders.
 * Tables of their own in the index, after the entries of usage.c:
 *
 *   card    0x50, type, 16 bytes of sha256(name in lower case)        -> struct head, name, words,
 * value row     0x51, type, order, 8 bytes of sha256(word), 8 bytes of ~sort (big endian), the same
 * 16 state   0x52                                                      -> the corridor's
 *
 * A row for each word and order, the empty word is everybody's: the newest of all that have a word
 * are neighbours, so a page costs what is on it, however many cards there are. A place in such a
 * list is (sort, 16 bytes): it stays where it is whatever comes and goes around it. A card and its
 * rows change in one transaction. Two words with the same 8 bytes share their rows: who reads looks
 * at the words of the card.
 */
#include "cache/index_internal.h"

#include "base/alloc.h"
#include "base/encode.h"

#include <lmdb.h>

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define CARD_KIND 0x50
#define ROW_KIND 0x51
#define STATE_KIND 0x52
#define CARD_KEY (2 + CACHE_PLACE_ID)
#define ROW_PREFIX (3 + 8)
#define ROW_KEY (ROW_PREFIX + 8 + CACHE_PLACE_ID)
#define STATE_KEY 17u
#define STATE_MAX 1024u
#define CARD_MAGIC 0x31434748u /* "HGC1": another version is no card */
#define ROWS_AT_ONCE 512u

struct head {
    uint32_t magic, check; /* CRC32 of all that follows it */
    int64_t sort[CACHE_ORDERS];
    uint32_t name_bytes, words_bytes, value_bytes, pad;
};
#define CHECKED offsetof(struct head, sort)

/* ---- keys ---- */

static void card_key(uint8_t key[CARD_KEY], uint8_t type, const uint8_t id[CACHE_PLACE_ID])
{
    key[0] = CARD_KIND;
    key[1] = type;
    memcpy(key + 2, id, CACHE_PLACE_ID);
}

static bool id_of(uint8_t id[CACHE_PLACE_ID], struct gw_str name)
{
    char lower[CACHE_CARD_NAME_MAX];
    uint8_t digest[32];

    if (name.n > sizeof(lower)) {
        return false;
    }
    for (size_t i = 0; i < name.n; i++) {
        lower[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] + 32) : name.p[i];
    }
    gw_sha256_once(lower, name.n, digest);
    memcpy(id, digest, CACHE_PLACE_ID);
    return true;
}

static void row_prefix(uint8_t key[ROW_PREFIX], uint8_t type, unsigned order, struct gw_str word)
{
    uint8_t digest[32];

    gw_sha256_once(word.p, word.n, digest);
    key[0] = ROW_KIND;
    key[1] = type;
    key[2] = (uint8_t)order;
    memcpy(key + 3, digest, 8);
}

static void row_place(uint8_t key[ROW_KEY], const struct cache_place *at)
{
    uint64_t inverse = ~at->sort; /* the newest first */

    for (int i = 0; i < 8; i++) {
        key[ROW_PREFIX + i] = (uint8_t)(inverse >> (56 - 8 * i));
    }
    memcpy(key + ROW_PREFIX + 8, at->id, CACHE_PLACE_ID);
}

static struct cache_place place_of(const uint8_t *key)
{
    struct cache_place at;
    uint64_t inverse = 0;

    for (int i = 0; i < 8; i++) {
        inverse = inverse << 8 | key[ROW_PREFIX + i];
    }
    at.sort = ~inverse;
    memcpy(at.id, key + ROW_PREFIX + 8, CACHE_PLACE_ID);
    return at;
}

/* ---- cards ---- */

bool cache_card_has(const struct cache_card *card, struct gw_str word)
{
    struct gw_str rest = card->words, one;

    while (card->words.n != 0 && gw_str_split(&rest, '\n', &one)) {
        if (gw_str_eq(one, word)) {
            return true;
        }
    }
    return word.n == 0;
}

/* 0; MDB_NOTFOUND (another version's); MDB_CORRUPTED. Borrowed from the transaction. */
static int card_read(const MDB_val *val, uint8_t type, struct cache_card *out)
{
    const char *p = val->mv_data;
    struct head head;

    if (val->mv_size < sizeof(head)) {
        return MDB_CORRUPTED;
    }
    memcpy(&head, p, sizeof(head));
    if (head.magic != CARD_MAGIC) {
        return MDB_NOTFOUND;
    }
    if ((uint64_t)head.name_bytes + head.words_bytes + head.value_bytes !=
            val->mv_size - sizeof(head) ||
        gw_crc32(0, p + CHECKED, val->mv_size - CHECKED) != head.check) {
        return MDB_CORRUPTED;
    }
    p += sizeof(head);
    *out = (struct cache_card){.type = type, .name = {p, head.name_bytes}};
    out->words = (struct gw_str){p + head.name_bytes, head.words_bytes};
    out->value = (struct gw_str){p + head.name_bytes + head.words_bytes, head.value_bytes};
    memcpy(out->sort, head.sort, sizeof(out->sort));
    return 0;
}

static int card_find(const struct index_txn *t, uint8_t type, const uint8_t id[CACHE_PLACE_ID],
                     struct cache_card *out)
{
    uint8_t bytes[CARD_KEY];
    MDB_val key = {sizeof(bytes), bytes}, val;
    int rc;

    card_key(bytes, type, id);
    rc = mdb_get(t->txn, t->dbi, &key, &val);
    return rc != 0 ? rc : card_read(&val, type, out);
}

static int card_write(const struct index_txn *t, const uint8_t id[CACHE_PLACE_ID],
                      const struct cache_card *card)
{
    struct head head = {.magic = CARD_MAGIC,
                        .name_bytes = (uint32_t)card->name.n,
                        .words_bytes = (uint32_t)card->words.n,
                        .value_bytes = (uint32_t)card->value.n};
    uint8_t bytes[CARD_KEY];
    MDB_val key = {sizeof(bytes), bytes}, val;
    char *p;
    int rc;

    card_key(bytes, card->type, id);
    val = (MDB_val){sizeof(head) + card->name.n + card->words.n + card->value.n, NULL};
    rc = mdb_put(t->txn, t->dbi, &key, &val, MDB_RESERVE);
    if (rc != 0) {
        return rc;
    }
    p = val.mv_data;
    memcpy(head.sort, card->sort, sizeof(head.sort));
    memcpy(p, &head, sizeof(head));
    p += sizeof(head);
    for (unsigned i = 0; i < 3; i++) {
        struct gw_str part = i == 0 ? card->name : i == 1 ? card->words : card->value;

        if (part.n != 0) {
            memcpy(p, part.p, part.n);
        }
        p += part.n;
    }
    p = val.mv_data;
    head.check = gw_crc32(0, p + CHECKED, val.mv_size - CHECKED);
    memcpy(p, &head, sizeof(head));
    return 0;
}

/* ---- rows ---- */

static int row_change(const struct index_txn *t, const uint8_t id[CACHE_PLACE_ID],
                      const struct cache_card *card, unsigned order, struct gw_str word, bool put)
{
    struct cache_place at = {.sort = (uint64_t)card->sort[order]};
    uint8_t bytes[ROW_KEY];
    MDB_val key = {sizeof(bytes), bytes}, val = {0, bytes};
    int rc;

    memcpy(at.id, id, CACHE_PLACE_ID);
    row_prefix(bytes, card->type, order, word);
    row_place(bytes, &at);
    if (put) {
        return mdb_put(t->txn, t->dbi, &key, &val, 0);
    }
    rc = mdb_del(t->txn, t->dbi, &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The rows of `card` that `other` has not, for each of its words and the empty one. */
static int rows_change(const struct index_txn *t, const uint8_t id[CACHE_PLACE_ID],
                       const struct cache_card *card, const struct cache_card *other, bool put)
{
    struct gw_str rest = card->words, word = GW_STR("");
    int rc = 0;

    do {
        bool both = other != NULL && cache_card_has(other, word);

        for (unsigned order = 0; rc == 0 && order < CACHE_ORDERS; order++) {
            if (!both || other->sort[order] != card->sort[order]) {
                rc = row_change(t, id, card, order, word, put);
            }
        }
    } while (rc == 0 && card->words.n != 0 && gw_str_split(&rest, '\n', &word));
    return rc;
}

static bool words_ok(struct gw_str words)
{
    struct gw_str rest = words, word;
    size_t n = 0;

    while (words.n != 0 && gw_str_split(&rest, '\n', &word)) {
        n++;
    }
    return n <= CACHE_WORDS_MAX;
}

/* A write may move the page that the words are on: a copy, in their place. NULL: no memory */
static char *keep_words(struct cache_card *card)
{
    char *copy = gw_alloc(card->words.n + 1);

    if (copy != NULL && card->words.n != 0) {
        memcpy(copy, card->words.p, card->words.n);
    }
    card->words.p = copy;
    return copy;
}

int cache_card_put(struct cache *c, const struct cache_card *card, struct gw_error *err)
{
    struct cache_card old;
    uint8_t id[CACHE_PLACE_ID];
    struct index_txn t;
    char *words = NULL;
    bool had;
    int rc;

    if (!id_of(id, card->name) || !words_ok(card->words) ||
        card->words.n + card->value.n > CACHE_RECORD_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "catalogue: a card of %zu bytes", card->value.n);
    }
    rc = index_begin(c, true, &t, err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = card_find(&t, card->type, id, &old);
    had = rc == 0;
    rc = rc == MDB_NOTFOUND ? 0 : rc;
    if (rc == 0 && had) {
        words = keep_words(&old);
        rc = words == NULL ? ENOMEM : rows_change(&t, id, &old, card, false);
    }
    rc = rc != 0 ? rc : rows_change(&t, id, card, had ? &old : NULL, true);
    rc = rc != 0 ? rc : card_write(&t, id, card);
    gw_free(words);
    return index_end(c, &t, rc, "card", err);
}

int cache_card_remove(struct cache *c, uint8_t type, struct gw_str name, struct gw_error *err)
{
    uint8_t id[CACHE_PLACE_ID], bytes[CARD_KEY];
    MDB_val key = {sizeof(bytes), bytes};
    struct cache_card old;
    struct index_txn t;
    char *words;
    int rc;

    if (!id_of(id, name)) {
        return GW_OK;
    }
    rc = index_begin(c, true, &t, err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = card_find(&t, type, id, &old);
    if (rc == 0) {
        words = keep_words(&old);
        rc = words == NULL ? ENOMEM : rows_change(&t, id, &old, NULL, false);
        gw_free(words);
        card_key(bytes, type, id);
        rc = rc != 0 ? rc : mdb_del(t.txn, t.dbi, &key, NULL);
    }
    return index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "card", err);
}

int cache_card_get(struct cache *c, uint8_t type, struct gw_str name, struct gw_arena *a,
                   struct cache_card *out, struct gw_error *err)
{
    uint8_t id[CACHE_PLACE_ID];
    struct index_txn t;
    int rc, status;

    if (!id_of(id, name)) {
        return gw_fail(err, GW_NOT_FOUND, 0, "catalogue: no such card");
    }
    status = index_begin(c, false, &t, err);
    if (status != GW_OK) {
        return status;
    }
    rc = card_find(&t, type, id, out);
    if (rc == 0) {
        out->name = gw_arena_dup(a, out->name);
        out->words = gw_arena_dup(a, out->words);
        out->value = gw_arena_dup(a, out->value);
        if (out->name.p == NULL || out->words.p == NULL || out->value.p == NULL) {
            rc = ENOMEM;
        }
    }
    if (rc == MDB_NOTFOUND) {
        (void)index_end(c, &t, 0, "card", err);
        return gw_fail(err, GW_NOT_FOUND, 0, "catalogue: no such card");
    }
    return index_end(c, &t, rc, "card", err);
}

/* ---- lists ---- */

/* To the first row at or behind `key`, in the direction of the list. */
static int seek(MDB_cursor *cursor, MDB_val *key, MDB_val *val, bool ascending, bool skip)
{
    uint8_t wanted[ROW_KEY];
    int rc;

    memcpy(wanted, key->mv_data, sizeof(wanted));
    rc = mdb_cursor_get(cursor, key, val, MDB_SET_RANGE);
    if (ascending) { /* rows are in descending order: backwards from what is behind */
        return mdb_cursor_get(cursor, key, val, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    }
    if (rc == 0 && skip && key->mv_size == ROW_KEY && memcmp(key->mv_data, wanted, ROW_KEY) == 0) {
        rc = mdb_cursor_get(cursor, key, val, MDB_NEXT);
    }
    return rc;
}

struct walk {
    const struct cache_card_query *q;
    cache_on_card on;
    void *ctx;
    uint8_t at[ROW_KEY]; /* the last row that was looked at */
    bool begun;
};

/* Up to ROWS_AT_ONCE rows. 0: there may be more; MDB_NOTFOUND: no more. *status: what `on` said. */
static int walk_some(struct walk *w, const struct index_txn *t, int *status)
{
    MDB_val key = {sizeof(w->at), w->at}, val;
    struct cache_card card;
    struct cache_place at;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(t->txn, t->dbi, &cursor);

    if (rc != 0) {
        return rc;
    }
    rc = seek(cursor, &key, &val, w->q->ascending, w->begun);
    for (unsigned n = 0; rc == 0 && *status == GW_OK && n < ROWS_AT_ONCE; n++) {
        if (key.mv_size != ROW_KEY || memcmp(key.mv_data, w->at, ROW_PREFIX) != 0) {
            rc = MDB_NOTFOUND;
            break;
        }
        memcpy(w->at, key.mv_data, sizeof(w->at));
        w->begun = true;
        at = place_of(w->at);
        rc = card_find(t, w->q->type, at.id, &card);
        if (rc == 0) {
            *status = w->on(w->ctx, &card, &at);
        }
        if (rc == 0 || rc == MDB_NOTFOUND) {
            rc = mdb_cursor_get(cursor, &key, &val, w->q->ascending ? MDB_PREV : MDB_NEXT);
        }
    }
    mdb_cursor_close(cursor);
    return rc;
}

int cache_cards(struct cache *c, const struct cache_card_query *q, cache_on_card on, void *ctx,
                struct gw_error *err)
{
    struct walk w = {.q = q, .on = on, .ctx = ctx, .begun = q->after != NULL};
    struct index_txn t;
    int rc = 0, status = GW_OK;

    memset(w.at, q->ascending ? 0xff : 0, sizeof(w.at));
    row_prefix(w.at, q->type, q->order, q->word);
    if (q->after != NULL) {
        row_place(w.at, q->after);
    }
    while (rc == 0 && status == GW_OK) { /* one short transaction after the other */
        int begun = index_begin(c, false, &t, err);

        if (begun != GW_OK) {
            return begun;
        }
        rc = walk_some(&w, &t, &status);
        if (rc != 0 && rc != MDB_NOTFOUND) {
            return index_end(c, &t, rc, "cards", err);
        }
        (void)index_end(c, &t, 0, "cards", err);
    }
    return status;
}

/* ---- the corridor's state ---- */

static MDB_val state_key(uint8_t bytes[STATE_KEY])
{
    memset(bytes, 0, STATE_KEY);
    bytes[0] = STATE_KIND;
    return (MDB_val){STATE_KEY, bytes};
}

int cache_cards_state(struct cache *c, struct gw_arena *a, struct gw_str *out, struct gw_error *err)
{
    uint8_t bytes[STATE_KEY];
    MDB_val key = state_key(bytes), val;
    struct index_txn t;
    int rc = index_begin(c, false, &t, err);

    *out = GW_STR("");
    if (rc != GW_OK) {
        return rc;
    }
    rc = mdb_get(t.txn, t.dbi, &key, &val);
    if (rc == 0 && val.mv_size <= STATE_MAX) {
        *out = gw_arena_dup(a, (struct gw_str){val.mv_data, val.mv_size});
        rc = out->p == NULL ? ENOMEM : 0;
    }
    return index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "cards", err);
}

int cache_cards_set_state(struct cache *c, struct gw_str state, struct gw_error *err)
{
    uint8_t bytes[STATE_KEY];
    MDB_val key = state_key(bytes), val = {state.n, (void *)(uintptr_t)state.p};
    struct index_txn t;
    int rc;

    if (state.n > STATE_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "catalogue: a state of %zu bytes", state.n);
    }
    rc = index_begin(c, true, &t, err);
    return rc != GW_OK ? rc : index_end(c, &t, mdb_put(t.txn, t.dbi, &key, &val, 0), "cards", err);
}
