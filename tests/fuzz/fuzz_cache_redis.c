/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_cache_redis.c - any bytes as replies of a Redis, however they are cut, and as the
 * URL of one.
 *
 * Each reply is a value that can be walked, and never takes more than its ceiling. How the bytes
 * come makes no difference.
 */
#include "cache/share_internal.h"

#include "base/encode.h"

#include <stdint.h>
#include <stdlib.h>

#define REPLY_MAX 4096u
#define REPLIES_MAX 1000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Touches all of it. */
static uint32_t walk(uint32_t sum, const struct redis_value *v, unsigned depth)
{
    sum = gw_crc32(sum, &v->kind, sizeof(v->kind));
    sum = gw_crc32(sum, &v->number, sizeof(v->number));
    sum = gw_crc32(sum, v->text.n != 0 ? v->text.p : "", v->text.n);
    if (depth > 16 || v->text.n > REPLY_MAX + 65536 || (v->kind != REDIS_IS_LIST && v->n != 0)) {
        abort();
    }
    for (size_t i = 0; i < v->n; i++) {
        sum = walk(sum, v->items[i], depth + 1);
    }
    return sum;
}

/* The sum of all replies before the first failure. *whole: there was none. */
static uint32_t read_all(struct gw_str bytes, size_t step, bool *whole)
{
    struct redis_parser p;
    struct redis_value *v;
    struct gw_error err;
    uint32_t sum = 0;
    int rc = GW_AGAIN;

    if (redis_parser_init(&p, &err) != GW_OK) {
        abort();
    }
    p.max = REPLY_MAX;
    for (size_t at = 0, n = 0; at < bytes.n && rc == GW_AGAIN; at += step) {
        if (redis_parser_feed(&p, gw_str_sub(bytes, at, step), &err) != GW_OK) {
            abort();
        }
        while ((rc = redis_parser_next(&p, &v, &err)) == GW_OK && ++n < REPLIES_MAX) {
            sum = walk(sum, v, 0);
        }
        rc = rc == GW_OK ? GW_INVALID : rc; /* that is enough */
        if (p.arena.used > REPLY_MAX + (1u << 20)) {
            abort();
        }
    }
    *whole = rc == GW_AGAIN;
    redis_parser_release(&p);
    return sum;
}

static void as_url(struct gw_str url)
{
    struct cache_redis_server server;
    struct gw_error err;
    struct gw_arena a;

    gw_arena_init(&a, 1u << 20);
    if (cache_redis_url_parse(url, &a, &server, &err) == GW_OK &&
        (server.host.n == 0 || server.host.n > 253 || server.port == 0 ||
         memchr(server.host.p, '@', server.host.n) != NULL ||
         memchr(server.host.p, '/', server.host.n) != NULL)) {
        abort();
    }
    gw_arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str bytes = {(const char *)data, size};
    bool whole, also;
    uint32_t sum;

    as_url(bytes);
    if (size <= REPLY_MAX) {
        sum = read_all(bytes, size != 0 ? size : 1, &whole);
        if (sum != read_all(bytes, 1, &also) || whole != also) {
            abort();
        }
    } else {
        read_all(bytes, 65536, &whole);
    }
    return 0;
}
