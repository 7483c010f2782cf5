/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/transfer.c - one transfer of a fill: the answer's head is judged, then its bytes are
 * written and marked. libcurl hands over at most 16 KiB at a time, so bytes are collected to 512
 * KiB before they are written: half of the CPU (nginx-notes 2). A granule is marked after its bytes
 * are written, its readers are woken after that.
 */
#include "cache/fetcher_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/file.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>

#define IGNORED_MAX (64u << 10) /* bytes of an answer that is not the file */

/* ---- the answer's head ---- */

bool fetcher_content_range(struct gw_str value, uint64_t *start, uint64_t *end, uint64_t *total)
{
    struct gw_str first, last, unit = GW_STR("bytes "), rest = value;

    if (value.n < unit.n || !gw_str_ieq(gw_str_sub(value, 0, unit.n), unit)) {
        return false;
    }
    rest = gw_str_sub(value, unit.n, value.n);
    if (!gw_str_split(&rest, '-', &first) || rest.p == NULL || !gw_str_split(&rest, '/', &last) ||
        rest.p == NULL || !gw_str_u64(first, start) || !gw_str_u64(last, end) ||
        !gw_str_u64(rest, total)) {
        return false;
    }
    if (*start > *end || *end >= *total) {
        return false;
    }
    (*end)++;
    return true;
}

/* Opaque tags say nothing here: kept only if it could be the digest. */
static void take_etag(char out[CACHE_DIGEST_MAX + 1], struct gw_str v, size_t digest_len)
{
    if (gw_str_starts(v, GW_STR("W/"))) {
        v = gw_str_sub(v, 2, v.n);
    }
    if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"') {
        v = gw_str_sub(v, 1, v.n - 2);
    }
    if (gw_is_hex_lower(v, digest_len)) {
        memcpy(out, v.p, v.n);
        out[v.n] = '\0';
    }
}

void transfer_reset_answer(struct answer *a)
{
    a->status = 0;
    a->length = a->linked_size = -1;
    a->has_range = a->encoded = false;
    a->etag[0] = a->linked_etag[0] = '\0';
    gw_buf_reset(&a->location);
}

/* Does upstream still mean the content we want? Its own host says so by digest; another host's
 * ETags are opaque (Xet's are 64 hex of something else), unless it gave our digest before. */
enum fill_failure transfer_check_identity(struct transfer *t)
{
    const struct answer *a = &t->answer;
    struct fill *f = t->fill;
    const char *says = a->linked_etag[0] != '\0' ? a->linked_etag : a->etag;
    bool same = strcmp(says, f->digest) == 0;

    if (t->node) { /* whoever answers there knows digests */
        return strcmp(a->etag, f->digest) == 0 ? 0 : FILL_CHANGED;
    }
    if (t->own) {
        if ((says[0] != '\0' && !same) ||
            (a->linked_size >= 0 && (uint64_t)a->linked_size != f->map.head->size)) {
            return FILL_CHANGED;
        }
        return 0;
    }
    if (f->digest_etags && says[0] != '\0' && !same) {
        return FILL_CHANGED;
    }
    f->digest_etags = f->digest_etags || same;
    return 0;
}

/* Of a 200 or 206, before its first byte is used. */
static enum fill_failure check_head(struct transfer *t)
{
    const struct answer *a = &t->answer;
    uint64_t size = t->fill->map.head->size;
    enum fill_failure bad = transfer_check_identity(t);

    if (bad != 0) {
        return bad;
    }
    if (a->encoded) {
        return FILL_ENCODED;
    }
    if (a->status ==
        200) { /* the whole, whatever was asked for: what is before start is passed over */
        t->skip = t->start;
        return a->length >= 0 && (uint64_t)a->length != size ? FILL_RANGE : 0;
    }
    if (!a->has_range || a->total != size || a->start != t->start || a->end > t->asked ||
        (a->length >= 0 && (uint64_t)a->length != a->end - a->start)) {
        return FILL_RANGE;
    }
    return 0;
}

void transfer_forget_url(struct fill *f)
{
    gw_free(f->url);
    f->url = NULL;
    f->answered = false;
}

/* An answer that is what it should be: the others may be asked for. */
void transfer_answered(struct transfer *t)
{
    struct fill *f = t->fill;
    struct map *m = &f->map;
    uint64_t g = t->end / CACHE_GRANULE;

    if (t->answer.status == 200 && (t->start > 0 || t->end < m->head->size)) {
        f->no_ranges = true; /* one connection brings all, in order: it goes on as far as it may */
        while (t->end < m->head->size && atomic_load(&m->granule[g]) != GRANULE_VALID &&
               atomic_load(&m->granule[g]) != GRANULE_LIVE) {
            t->end = map_bytes(m, ++g);
        }
    }
    if (!t->own && !t->node && f->url == NULL && (f->url = gw_alloc(t->url.n + 1)) != NULL) {
        memcpy(f->url, t->url.p, t->url.n);
        f->url_ms = t->begun_ms;
    }
    if (!f->answered) {
        f->answered = true;
        f->due_ms = 0;
        t->fetcher->again = true;
    }
}

/* @return false: t->bad says why it is of no use */
static bool head_ended(struct transfer *t)
{
    t->bad = check_head(t);
    if (t->bad != 0) {
        return false;
    }
    t->checked = true;
    transfer_answered(t);
    return true;
}

size_t transfer_on_header(char *p, size_t size, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    struct answer *a = &t->answer;
    size_t digest_len = t->fill->map.head->digest_len;
    struct gw_str line = gw_str_trim((struct gw_str){p, size * n}), name, rest;
    uint64_t number;

    while (line.n > 0 && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n')) {
        line.n--;
    }
    a->header_bytes += size * n;
    if (a->header_bytes > CACHE_HEADERS_MAX) {
        t->bad = FILL_RANGE;
        return 0;
    }
    if (t->checked) { /* a trailer: it changes nothing that was judged */
        return size * n;
    }
    if (line.n == 0 && a->status == 206) { /* a proxy's own answer is a 200 */
        return head_ended(t) ? size * n : 0;
    }
    if (gw_str_starts(line, GW_STR("HTTP/"))) { /* also after an interim answer or a proxy's own */
        transfer_reset_answer(a);
        rest = line;
        if (gw_str_split(&rest, ' ', &name) && rest.p != NULL && rest.n >= 3 &&
            gw_str_u64(gw_str_sub(rest, 0, 3), &number)) {
            a->status = (int)number;
        }
        return size * n;
    }
    rest = line;
    if (!gw_str_split(&rest, ':', &name) || rest.p == NULL) {
        return size * n;
    }
    rest = gw_str_trim(rest);
    if (gw_str_ieq_c(name, "content-length")) {
        a->length = gw_str_u64(rest, &number) && number <= INT64_MAX ? (int64_t)number : 0;
    } else if (gw_str_ieq_c(name, "content-range")) {
        a->has_range = fetcher_content_range(rest, &a->start, &a->end, &a->total);
    } else if (gw_str_ieq_c(name, "content-encoding")) {
        a->encoded = !gw_str_ieq_c(rest, "identity");
    } else if (gw_str_ieq_c(name, "etag")) {
        take_etag(a->etag, rest, digest_len);
    } else if (gw_str_ieq_c(name, "x-linked-etag")) {
        take_etag(a->linked_etag, rest, digest_len);
    } else if (gw_str_ieq_c(name, "x-linked-size")) {
        a->linked_size = gw_str_u64(rest, &number) && number <= INT64_MAX ? (int64_t)number : 0;
    } else if (gw_str_ieq_c(name, "location")) {
        gw_buf_reset(&a->location);
        gw_buf_add(&a->location, rest);
    }
    return size * n;
}

/* ---- bytes ---- */

/* VALID is for ever: an owner that lost its fill a moment ago must not undo it. */
void transfer_mark_granule(struct map *m, uint64_t g, uint8_t from, uint8_t to)
{
    atomic_compare_exchange_strong(&m->granule[g], &from, to);
}

void transfer_enter_granule(struct map *m, uint64_t g)
{
    uint8_t now = atomic_load(&m->granule[g]);

    while (now != GRANULE_VALID &&
           !atomic_compare_exchange_weak(&m->granule[g], &now, GRANULE_LIVE)) {
        continue;
    }
}

/* All before upto is written: tell the others. */
static void publish(struct transfer *t, uint64_t upto)
{
    struct map *m = &t->fill->map;
    _Atomic uint64_t *word = &m->live->transfers[t->index];

    while (t->pos < upto) {
        uint64_t g = t->pos / CACHE_GRANULE, g_end = map_bytes(m, g + 1);

        if (upto < g_end) {
            t->pos = upto;
            atomic_store(word, transfer_word(g, upto - g * CACHE_GRANULE));
            break;
        }
        atomic_store(&m->granule[g], GRANULE_VALID); /* before the word moves on: see live_bytes */
        t->pos = g_end;
        t->fill->failures = 0;
        if (t->pos < t->end) {
            atomic_store(word, transfer_word(g + 1, 0));
            transfer_enter_granule(m, g + 1);
        } else {
            atomic_store(word, 0);
        }
    }
}

/* @return GW_OK; GW_CONFLICT: the fill is not ours any more; GW_IO: t->bad says why */
static int write_out(struct transfer *t, size_t n)
{
    struct fill *f = t->fill;
    struct gw_error why = {0};
    int rc = GW_CONFLICT;

    if (!part_write_begin(f)) {
        return rc;
    }
    if (fill_safe(f) && fill_ours(f) && !fill_ended(f)) {
        rc = gw_pwrite_all(f->map.part_fd, t->buffer, n, t->pos, &why);
        if (rc != GW_OK) {
            t->bad = FILL_DISK;
            t->bad_sys = why.sys != 0 ? why.sys : EIO;
        }
    }
    part_write_end(f);
    return rc;
}

/* @return false: t->bad says why, or the fill is not ours any more */
bool transfer_flush(struct transfer *t)
{
    struct fill *f = t->fill;
    size_t n = t->used;
    int rc;

    if (t->lost || n == 0) {
        return !t->lost;
    }
    t->used = 0;
    rc = write_out(t, n);
    t->lost = rc == GW_CONFLICT;
    if (rc != GW_OK) {
        return false;
    }
    publish(t, t->pos + n);
    atomic_fetch_add(&f->table->cache->shared->counters.blob_bytes_filled, n);
    fill_wake(f);
    fill_progress(f);
    return true;
}

size_t transfer_on_body(char *p, size_t size, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    size_t all = size * n, len = all;
    uint64_t room;

    if (t->bad != 0 || t->lost || t->complete) { /* complete: more than was asked for */
        return 0;
    }
    if (t->answer.status != 200 && t->answer.status != 206) {
        t->ignored += len;
        return t->ignored > IGNORED_MAX ? 0 : len;
    }
    if (!t->checked && !head_ended(t)) {
        return 0;
    }
    atomic_fetch_add(t->node ? &t->fill->table->cache->shared->counters.node_bytes
                             : &t->fill->table->cache->shared->counters.upstream_bytes,
                     len);
    if (t->node) {
        lease_flowed(t->fill);
    }
    if (t->skip > 0) {
        size_t past = t->skip < len ? (size_t)t->skip : len;

        t->skip -= past;
        p += past;
        len -= past;
    }
    room = t->end - t->pos - t->used;
    if (len > room) {
        len = (size_t)room;
    }
    while (len > 0) {
        size_t part = BUFFER_BYTES - t->used < len ? BUFFER_BYTES - t->used : len;

        memcpy(t->buffer + t->used, p, part);
        t->used += part;
        p += part;
        len -= part;
        if (t->used == BUFFER_BYTES && !transfer_flush(t)) {
            return 0;
        }
    }
    if (t->pos + t->used == t->end) { /* what may follow is not asked for, or there already */
        t->complete = true;
        if (t->end < (t->answer.status == 200 ? t->fill->map.head->size : t->answer.end)) {
            return 0;
        }
    }
    return all;
}
