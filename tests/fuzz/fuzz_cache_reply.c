/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_cache_reply.c - any lines in the head of an answer to a blocking call. The first
 * byte says whether the Hub itself answers.
 */
#include "cache/reply_internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void read_head(bool own, const uint8_t *p, size_t n)
{
    struct cache_reply reply = {.content_length = -1};
    struct reply_head h = {.reply = &reply, .own = own};
    struct gw_arena a;
    size_t at = 0;
    bool taken = true;

    gw_arena_init(&a, 2u << 20);
    h.arena = &a;
    while (at < n && taken) {
        const uint8_t *end = memchr(p + at, '\n', n - at);
        size_t line = end != NULL ? (size_t)(end - p) + 1 - at : n - at;

        taken = reply_line(&h, (struct gw_str){(const char *)p + at, line});
        demand(taken == (h.refused == GW_OK));
        at += line;
    }
    demand(reply.status >= 0 && reply.status <= 999 && reply.content_length >= -1);
    demand(reply.etag.n <= CACHE_HEADERS_MAX && reply.location.n <= CACHE_HEADERS_MAX);
    if (!h.own) { /* another host says nothing in the Hub's name */
        demand(reply.linked_etag.n == 0 && reply.linked_size.n == 0 && reply.repo_commit.n == 0 &&
               reply.error_code.n == 0 && reply.ratelimit.n == 0);
    }
    gw_arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 1) {
        read_head(data[0] & 1, data + 1, size - 1);
    }
    return 0;
}
