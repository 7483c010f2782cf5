/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/walk.c - entries against files: of one blob, and of all, folder by folder, where the
 * entries are a range of keys.
 */
#include "cache/budget_internal.h"

#include "base/alloc.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WALK_FILES 1000u
#define RANGE_AT_ONCE 64u

bool usage_look(struct cache *c, const struct blob_id *id, struct usage *out)
{
    char path[CACHE_PATH_MAX], hex[CACHE_DIGEST_MAX + 1];
    struct stat st;

    if (!cache_blob_path(c, blob_id_hex(id, hex), path, sizeof(path)) || lstat(path, &st) != 0 ||
        !S_ISREG(st.st_mode)) {
        return false;
    }
    *out =
        (struct usage){.id = *id,
                       .bytes = st.st_nlink > 1 ? 0 : (uint64_t)st.st_size,
                       .used_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000};
    return true;
}

void usage_batch_end(struct usage_batch *b)
{
    if (b->rc == GW_OK) {
        b->rc = usage_apply(b->c, b->changes, b->n, b->err);
    }
    b->n = 0;
}

void usage_batch_add(struct usage_batch *b, enum usage_what what, const struct usage *u)
{
    if (b->n == USAGE_CHANGES_MAX) {
        usage_batch_end(b);
    }
    b->changes[b->n++] = (struct usage_change){what, *u};
}

/* Brings an entry in line with its file. */
void usage_batch_look(struct usage_batch *b, const struct blob_id *id, int64_t used_ms)
{
    struct usage u = {.id = *id};

    if (usage_look(b->c, id, &u)) {
        u.used_ms = used_ms != 0 ? used_ms : u.used_ms;
        usage_batch_add(b, USAGE_SET, &u);
    } else {
        usage_batch_add(b, USAGE_REMOVE, &u);
    }
}

static int by_id(const void *a, const void *b)
{
    const struct usage *x = a, *y = b;

    return memcmp(x->id.raw, y->id.raw, BLOB_KEY);
}

struct found {
    struct usage *p;
    size_t n, cap;
    bool failed;
};

/* All blobs of blobs/aa/bb. */
static void list_folder(struct cache *c, unsigned at, struct found *f)
{
    char path[CACHE_PATH_MAX];
    const struct dirent *e;
    struct usage u;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/%02x/%02x", c->blobs_dir, at >> 8, at & 0xff);
    dir = opendir(path);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        struct blob_id id;

        if (!blob_id_of(gw_str_c(e->d_name), &id) || ((unsigned)id.raw[0] << 8 | id.raw[1]) != at ||
            !usage_look(c, &id, &u)) {
            continue; /* nobody looks for it here */
        }
        if (f->n == f->cap) {
            struct usage *more = gw_realloc(f->p, (f->cap * 2 + 256) * sizeof(*more));

            if (more == NULL) {
                f->failed = true;
                break;
            }
            f->p = more;
            f->cap = f->cap * 2 + 256;
        }
        f->p[f->n++] = u;
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

/* From folder *at on, all that exist; *at becomes the first that was not looked at. */
static void list_some(struct cache *c, unsigned *at, struct found *f)
{
    char path[CACHE_PATH_MAX];
    struct stat st;

    while (*at < BUDGET_WALK_END && f->n < WALK_FILES && !f->failed) {
        if ((*at & 0xff) == 0) {
            snprintf(path, sizeof(path), "%s/%02x", c->blobs_dir, *at >> 8);
            if (stat(path, &st) != 0) {
                *at += 256;
                continue;
            }
        }
        list_folder(c, *at, f);
        ++*at;
    }
}

/* The entries of these folders against the files found there. */
static void compare(struct usage_batch *batch, unsigned first, unsigned end, struct found *f)
{
    uint8_t from[BLOB_KEY] = {(uint8_t)(first >> 8), (uint8_t)first}, to[BLOB_KEY];
    struct usage held[RANGE_AT_ONCE], *file;
    bool *known = gw_alloc(f->n + 1);
    bool more = true;
    size_t n;

    if (known == NULL) {
        batch->rc = gw_fail(batch->err, GW_NO_MEMORY, 0, "no memory for the walk");
        return;
    }
    memset(to, 0xff, sizeof(to));
    to[0] = (uint8_t)((end - 1) >> 8);
    to[1] = (uint8_t)(end - 1);
    if (f->n > 1) {
        qsort(f->p, f->n, sizeof(f->p[0]), by_id);
    }
    while (more && batch->rc == GW_OK) {
        batch->rc = usage_range(batch->c, from, to, held, RANGE_AT_ONCE, &n, batch->err);
        for (size_t i = 0; i < n && batch->rc == GW_OK; i++) {
            file = f->n > 0 ? bsearch(&held[i], f->p, f->n, sizeof(f->p[0]), by_id) : NULL;
            if (file == NULL) {
                usage_batch_look(batch, &held[i].id, 0); /* it may have come just now */
                continue;
            }
            known[file - f->p] = true;
            if (file->bytes != held[i].bytes) {
                usage_batch_add(batch, USAGE_SET, file);
            }
        }
        more = n == RANGE_AT_ONCE;
        if (more) {
            memcpy(from, held[n - 1].id.raw, BLOB_KEY);
            more = usage_next_key(from);
        }
    }
    for (size_t i = 0; i < f->n && batch->rc == GW_OK; i++) {
        if (!known[i]) {
            usage_batch_add(batch, USAGE_SET, &f->p[i]);
        }
    }
    gw_free(known);
}

int budget_walk(struct cache *c, unsigned *at, struct gw_error *err)
{
    struct usage_batch *batch = gw_alloc(sizeof(*batch));
    struct found f = {0};
    unsigned first = *at, end = *at;
    int rc;

    if (batch == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the walk");
    }
    *batch = (struct usage_batch){.c = c, .err = err};
    list_some(c, &end, &f);
    end = end > BUDGET_WALK_END ? BUDGET_WALK_END : end;
    if (f.failed) {
        batch->rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for the walk");
    } else if (end > first) {
        compare(batch, first, end, &f);
        usage_batch_end(batch);
    }
    rc = batch->rc;
    if (rc == GW_OK && end == BUDGET_WALK_END) {
        rc = usage_recount(c, err);
    }
    if (rc == GW_OK) {
        *at = end;
    }
    gw_free(f.p);
    gw_free(batch);
    return rc;
}
