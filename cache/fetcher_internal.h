/* SPDX-License-Identifier: Apache-2.0 */
/* cache/fetcher_internal.h - what the fetcher and its transfers share. The fetcher's thread only.
 */
#ifndef CACHE_FETCHER_INTERNAL_H
#define CACHE_FETCHER_INTERNAL_H

#include "cache/fill_internal.h"

#define BUFFER_BYTES (512u << 10)

struct answer {
    int status;
    size_t header_bytes;
    int64_t length; /* Content-Length; -1: none */
    bool has_range, encoded;
    uint64_t start, end, total;
    char etag[CACHE_DIGEST_MAX + 1],
        linked_etag[CACHE_DIGEST_MAX + 1]; /* only what may be a digest */
    int64_t linked_size;
    struct gw_buf location;
};

struct transfer {
    struct transfer *next;
    struct fetcher *fetcher;
    struct fill *fill;
    unsigned index;           /* of its word in the map */
    uint64_t start, pos, end; /* pos: next byte to be written; end: may move to the front */
    uint64_t asked;           /* end, when it was asked for */
    uint64_t skip; /* bytes of the body before start: a server that answers with the whole */
    uint8_t *buffer;
    size_t used;
    void *easy; /* CURL: its header stays in the .c files */
    struct cache_transfer extra;
    struct gw_buf url;
    bool added, own, checked, complete;
    bool node;      /* another node of the cluster is asked, not the Hub */
    bool demanded;  /* somebody waited for its first granule */
    bool short_cut; /* began where an earlier one was redirected to */
    bool lost; /* bytes were thrown away because the fill was not ours: nothing more is written */
    unsigned hops;
    int64_t started_ms;
    int64_t begun_ms, again_ms; /* of this hop; again_ms: its host is being resolved */
    size_t ignored;
    enum fill_failure bad; /* 0: nothing yet */
    int bad_sys;
    struct answer answer;
};

struct fetcher {
    struct fill_table *table;
    pthread_t thread;
    void *multi; /* CURLM */
    struct fill *active;
    struct transfer *live;
    unsigned n_live;
    uint64_t turns;
    bool again; /* there is more to do at once */
    int64_t housekept_ms;
    uint32_t orphans_seen;
    struct fill **array;
    size_t cap, attached;
};

/* places.c: of this node, for its transfers. */
bool places_take(struct fetcher *x, bool demanded); /* for one more; true: to be given back */
void places_give(struct fetcher *x);
void places_want(struct fetcher *x, unsigned blobs); /* of how many we fetch something */
bool places_over(const struct fetcher *x); /* others wait, and we have more than our part */

/* transfer.c: the answer's head, judged, and the bytes of the body, written and marked. */
void transfer_reset_answer(struct answer *a);
enum fill_failure transfer_check_identity(struct transfer *t);
void transfer_forget_url(struct fill *f); /* the next transfer asks the Hub */
void transfer_answered(struct transfer *t);
size_t transfer_on_header(char *p, size_t size, size_t n, void *ctx); /* of libcurl */
size_t transfer_on_body(char *p, size_t size, size_t n, void *ctx);   /* of libcurl */
bool transfer_flush(struct transfer *t);
void transfer_mark_granule(struct map *m, uint64_t g, uint8_t from, uint8_t to);
void transfer_enter_granule(struct map *m, uint64_t g);

#endif
