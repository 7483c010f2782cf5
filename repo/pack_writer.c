/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/pack_writer.c - objects into a pack, each by itself (gitformat-pack), indexed by libgit2.
 *
 * No deltas: libgit2 1.5.1's packbuilder compares each object with ten others without a bound on
 * what that takes, half a minute for ten files of 8 MiB, while a client waits for its commit.
 * `git repack` makes them later.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/sha.h"

#include <git2.h>
#include <zlib.h>

#include <stdio.h>
#include <string.h>

#define PACK_MODE 0440
#define PIECE (64u << 10)

struct repo_pack {
    git_indexer *indexer;
    git_indexer_progress progress;
    struct gw_git_sha1 sha; /* of all that was written: the pack's last 20 bytes */
    z_stream z;
    bool z_ready;
    uint8_t out[PIECE];
};

static int append(struct repo_pack *p, const void *bytes, size_t n, struct gw_error *err)
{
    gw_git_sha1_update(&p->sha, bytes, n);
    return git_indexer_append(p->indexer, bytes, n, &p->progress) < 0
               ? repo_git_fail(err, "write a pack")
               : GW_OK;
}

static void put32(uint8_t out[4], uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(v >> (24 - 8 * i));
    }
}

int repo_pack_open(struct repo_pack **out, const char *work_dir, uint32_t n, struct gw_error *err)
{
    struct repo_pack *p = gw_alloc(sizeof(*p));
    uint8_t head[12] = {'P', 'A', 'C', 'K', 0, 0, 0, 2};
    int rc;

    if (p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a pack");
    }
    gw_git_sha1_plain(&p->sha);
    p->z_ready = deflateInit(&p->z, Z_DEFAULT_COMPRESSION) == Z_OK;
    put32(head + 8, n);
    if (!p->z_ready) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for a pack");
    } else if (git_indexer_new(&p->indexer, work_dir, PACK_MODE, NULL, NULL) < 0) {
        rc = repo_git_fail(err, "make a pack in %s", work_dir);
    } else {
        rc = append(p, head, sizeof(head), err);
    }
    if (rc != GW_OK) {
        repo_pack_close(p);
        return rc;
    }
    *out = p;
    return GW_OK;
}

int repo_pack_begin(struct repo_pack *p, enum repo_object type, uint64_t size, struct gw_error *err)
{
    uint8_t head[10];
    size_t n = 0;

    head[n] = (uint8_t)((unsigned)type << 4 | (size & 15));
    for (size >>= 4; size != 0; size >>= 7) {
        head[n++] |= 0x80;
        head[n] = (uint8_t)(size & 0x7f);
    }
    (void)deflateReset(&p->z);
    return append(p, head, n + 1, err);
}

int repo_pack_bytes(struct repo_pack *p, struct gw_str bytes, bool last, struct gw_error *err)
{
    int rc = GW_OK;

    p->z.next_in = (Bytef *)(uintptr_t)bytes.p; /* zlib only reads it */
    p->z.avail_in = (uInt)bytes.n;
    do {
        p->z.next_out = p->out;
        p->z.avail_out = sizeof(p->out);
        if (deflate(&p->z, last ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_ERROR) {
            return gw_fail(err, GW_IO, 0, "compress a git object");
        }
        if (p->z.avail_out < sizeof(p->out)) {
            rc = append(p, p->out, sizeof(p->out) - p->z.avail_out, err);
        }
    } while (rc == GW_OK && p->z.avail_out == 0);
    return rc;
}

int repo_pack_finish(struct repo_pack *p, char name[41], struct gw_error *err)
{
    uint8_t sum[20];

    gw_git_sha1_final(&p->sha, sum);
    if (git_indexer_append(p->indexer, sum, sizeof(sum), &p->progress) < 0 ||
        git_indexer_commit(p->indexer, &p->progress) < 0) {
        return repo_git_fail(err, "index a pack");
    }
    snprintf(name, 41, "%s", git_indexer_name(p->indexer));
    return GW_OK;
}

void repo_pack_close(struct repo_pack *p)
{
    if (p == NULL) {
        return;
    }
    git_indexer_free(p->indexer);
    if (p->z_ready) {
        (void)deflateEnd(&p->z);
    }
    gw_free(p);
}
