/* SPDX-License-Identifier: Apache-2.0 */
/* cache/share_probe.c - `hubgate check`: does a Redis let us do all that we do with it? */
#include "cache/cache_internal.h"
#include "cache/share_internal.h"

#include "base/alloc.h"
#include "base/encode.h"
#include "base/sha.h"

#define REPLY_MAX (64u << 10)

/* Each command of ours once, on keys that nobody else uses. */
static int try_all(struct redis_session *s, void *ctx, struct gw_error *err)
{
    const char *key = ctx;
    struct gw_str k = gw_str_c(key);
    struct redis_value *v;
    int rc = GW_OK;

    REDIS_SAY(s, GW_STR("XADD"), k, GW_STR("MAXLEN"), GW_STR("~"), GW_STR("1"), GW_STR("*"),
              GW_STR("v"), GW_STR(""));
    REDIS_SAY(s, GW_STR("XREVRANGE"), k, GW_STR("+"), GW_STR("-"), GW_STR("COUNT"), GW_STR("1"));
    REDIS_SAY(s, GW_STR("XREAD"), GW_STR("COUNT"), GW_STR("1"), GW_STR("STREAMS"), k, GW_STR("0"));
    REDIS_SAY(s, GW_STR("SET"), k, GW_STR("1"), GW_STR("PX"), GW_STR("10000"));
    REDIS_SAY(s, GW_STR("INCR"), k);
    REDIS_SAY(s, GW_STR("WATCH"), k);
    REDIS_SAY(s, GW_STR("GET"), k);
    REDIS_SAY(s, GW_STR("UNWATCH"));
    REDIS_SAY(s, GW_STR("MULTI"));
    REDIS_SAY(s, GW_STR("DEL"), k);
    REDIS_SAY(s, GW_STR("EXEC"));
    for (int said = 11; rc == GW_OK && said > 0; said--) {
        rc = redis_read(s, &v, err);
    }
    return rc;
}

int cache_share_probe(const struct cache_share_options *o, size_t server, int64_t deadline_ms,
                      struct gw_error *err)
{
    char key[5 + 16 + 1] = "gw:p:";
    struct cache_shared *shared = gw_alloc(sizeof(*shared));
    struct cache c = {.options.share = *o, .shared = shared};
    uint8_t random[8];
    int rc;

    if (shared == NULL || !gw_random(random, sizeof(random))) {
        gw_free(shared);
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    }
    gw_hex_encode(key + 5, random, sizeof(random));
    c.options.share.servers = &o->servers[server];
    c.options.share.n_servers = 1;
    gw_arena_init(&c.memory, 64u << 10);
    rc = cache_redis_open(&c, err);
    if (rc == GW_OK) {
        rc = redis_run(&c, deadline_ms, REPLY_MAX, try_all, key, err);
        cache_redis_close(&c);
    }
    gw_arena_release(&c.memory);
    gw_free(shared);
    return rc;
}
