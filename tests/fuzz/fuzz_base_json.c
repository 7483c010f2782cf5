/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader gives the same events however the text is split; what the tree parser (jansson)
 * accepts, the reader accepts; what we write, both read, and it comes out the same.
 */
#include "base/alloc.h"
#include "base/json.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static int on_event(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct gw_buf *out = ctx;

    require(depth <= GW_JSON_DEPTH_MAX && gw_utf8_valid(text));
    gw_buf_addf(out, "%d,%u,%zu:", (int)ev, depth, text.n);
    gw_buf_add(out, text);
    return GW_OK;
}

/* Each chunk in a block of its own size. seed == 0: one chunk. */
static int read_events(struct gw_str text, uint32_t seed, struct gw_buf *out)
{
    struct gw_json_reader *r = gw_json_reader_new(text.n, on_event, out);
    struct gw_error err;
    int rc = GW_OK;

    require(r != NULL); /* decoded is never longer than written */
    for (size_t at = 0; at < text.n && rc == GW_OK;) {
        size_t n = text.n;
        char *copy;

        if (seed != 0) {
            seed = seed * 1664525 + 1013904223;
            n = 1 + (seed >> 24) % 13;
        }
        n = gw_str_sub(text, at, n).n;
        copy = gw_strndup(text.p + at, n);
        require(copy != NULL);
        rc = gw_json_reader_feed(r, (struct gw_str){copy, n}, &err);
        gw_free(copy);
        at += n;
    }
    if (rc == GW_OK) {
        rc = gw_json_reader_finish(r, &err);
    }
    gw_json_reader_free(r);
    return rc;
}

static void check_splits(struct gw_str text, bool must_accept)
{
    struct gw_buf whole, split;
    int rc;

    gw_buf_init(&whole, SIZE_MAX / 2);
    gw_buf_init(&split, SIZE_MAX / 2);
    rc = read_events(text, 0, &whole);
    require(rc == GW_OK || !must_accept);
    require(rc == GW_OK || rc == GW_INVALID || rc == GW_TOO_LARGE);
    for (uint32_t seed = 1; seed <= 3; seed++) {
        gw_buf_reset(&split);
        require(read_events(text, seed * 7919, &split) == rc);
        require(gw_str_eq(gw_buf_str(&whole), gw_buf_str(&split)));
    }
    gw_buf_release(&whole);
    gw_buf_release(&split);
}

static void check_written(const struct gw_json *root)
{
    struct gw_json *again;
    struct gw_buf first, second;
    struct gw_error err;

    gw_buf_init(&first, SIZE_MAX / 2);
    gw_buf_init(&second, SIZE_MAX / 2);
    gw_json_put_node(&first, root);
    check_splits(gw_buf_str(&first), true);
    if (first.n <= GW_JSON_DOC_MAX) {
        require(gw_json_parse(&again, gw_buf_str(&first), &err) == GW_OK);
        gw_json_put_node(&second, again);
        require(gw_str_eq(gw_buf_str(&first), gw_buf_str(&second)));
        gw_json_free(again);
    }
    gw_buf_release(&first);
    gw_buf_release(&second);
}

static void check_quoter(struct gw_str bytes)
{
    struct gw_buf quoted;

    gw_buf_init(&quoted, SIZE_MAX / 2);
    gw_json_put_string(&quoted, bytes);
    check_splits(gw_buf_str(&quoted), true);
    gw_buf_release(&quoted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str text = {(const char *)data, size};
    struct gw_json *root;
    struct gw_error err;
    int rc = gw_json_parse(&root, text, &err);

    check_splits(text, rc == GW_OK);
    check_quoter(text);
    if (rc == GW_OK) {
        check_written(root);
        gw_json_free(root);
    }
    return 0;
}
