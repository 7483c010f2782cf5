/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_hub_upload.c - bodies of writes: a commit in pieces of any size says the same as
 * in one; preupload and batch give only what is within their bounds. */
#include <stdint.h>
#include <stdlib.h>

#include "base/encode.h"
#include "base/sha.h"
#include "hub/hub.h"

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

struct seen { /* what the callbacks were told, as one digest */
    struct gw_sha256 sha;
    unsigned headers, others;
};

static void see(struct seen *s, struct gw_str text)
{
    gw_sha256_update(&s->sha, &text.n, sizeof(text.n));
    if (text.n != 0) {
        gw_sha256_update(&s->sha, text.p, text.n);
    }
}

static int on_header(void *ctx, struct gw_str summary, struct gw_str description,
                     struct gw_str parent, struct gw_error *err)
{
    struct seen *s = ctx;

    demand(s->headers++ == 0 && s->others == 0);
    see(s, summary);
    see(s, description);
    see(s, parent);
    return GW_OK;
}

static int on_file(void *ctx, struct gw_str path, struct gw_str bytes, struct gw_error *err)
{
    struct seen *s = ctx;

    s->others++;
    see(s, path);
    see(s, bytes);
    return GW_OK;
}

static int on_object(void *ctx, struct gw_str path, struct gw_str sha256, uint64_t size,
                     struct gw_error *err)
{
    demand(size == UINT64_MAX || size <= INT64_MAX);
    return on_file(ctx, path, sha256, err);
}

static int on_remove(void *ctx, struct gw_str path, bool folder, struct gw_error *err)
{
    return on_file(ctx, path, folder ? GW_STR("folder") : GW_STR("file"), err);
}

static int commit(struct gw_str body, size_t piece, uint8_t sum[32])
{
    static const struct hub_commit_sink sink = {on_header, on_file, on_object, on_remove};
    struct seen s = {.headers = 0};
    struct hub_commit_reader *r = hub_commit_reader_new(&sink, &s);
    struct gw_error err = {0};
    int rc = GW_OK;

    demand(r != NULL);
    gw_sha256_init(&s.sha);
    for (size_t at = 0; rc == GW_OK && at < body.n; at += piece) {
        rc = hub_commit_reader_feed(r, gw_str_sub(body, at, piece), &err);
    }
    if (rc == GW_OK) {
        rc = hub_commit_reader_finish(r, &err);
    }
    demand(rc == GW_OK ? s.headers == 1 : err.status == (enum gw_status)rc);
    hub_commit_reader_free(r);
    gw_sha256_final(&s.sha, sum);
    return rc;
}

static void preupload_and_batch(struct gw_str body)
{
    struct hub_preupload p;
    struct hub_batch b;
    struct gw_arena a;

    gw_arena_init(&a, 16u << 20);
    if (hub_preupload_parse(&p, body, &a, NULL) == GW_OK) {
        demand(p.n <= HUB_PREUPLOAD_MAX);
        for (size_t i = 0; i < p.n; i++) {
            demand(p.files[i].path.n <= HUB_PATH_MAX && p.files[i].sample.n <= 1024 &&
                   p.files[i].size <= INT64_MAX);
        }
    }
    if (hub_batch_parse(&b, body, &a, NULL) == GW_OK) {
        demand(b.n <= HUB_BATCH_MAX);
        for (size_t i = 0; i < b.n; i++) {
            demand(gw_is_hex_lower(gw_str_c(b.objects[i].oid), 64));
        }
    }
    if (hub_complete_check(body, GW_STR("aa"), 2, NULL) == GW_OK) {
        demand(body.n >= 60); /* both parts by their names */
    }
    gw_arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str body;
    uint8_t one[32], many[32];

    if (size == 0) {
        return 0;
    }
    body = (struct gw_str){(const char *)data + 1, size - 1};
    demand(commit(body, body.n + 1, one) == commit(body, 1 + data[0] % 61, many));
    demand(memcmp(one, many, sizeof(one)) == 0);
    preupload_and_batch(body);
    return 0;
}
