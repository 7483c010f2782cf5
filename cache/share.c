/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/share.c - what nodes share through Redis: records, small blobs, leases, the stream of
 * revocations.
 */
#include "cache/cache_internal.h"

bool cache_share_on(const struct cache *c)
{
    return c->options.share.n_servers != 0;
}

static int nobody(struct gw_error *err)
{
    return gw_fail(err, GW_UNAVAILABLE, 0, "redis: no servers are named");
}

int cache_share_get(struct cache *c, const struct cache_share_name *names, size_t n, bool *found,
                    int64_t deadline_ms, struct gw_error *err)
{
    return nobody(err);
}

int cache_share_put(struct cache *c, const struct cache_share_name *names, size_t n,
                    int64_t deadline_ms, struct gw_error *err)
{
    return nobody(err);
}

int cache_share_blob_get(struct cache *c, struct gw_str digest, uint64_t size, int64_t deadline_ms,
                         struct gw_error *err)
{
    return nobody(err);
}

int cache_share_blob_put(struct cache *c, struct gw_str digest, int64_t deadline_ms,
                         struct gw_error *err)
{
    return nobody(err);
}

int cache_lease_take(struct cache *c, struct gw_str name, uint64_t mine, int64_t life_ms,
                     struct cache_lease *out, int64_t deadline_ms, struct gw_error *err)
{
    return nobody(err);
}

int cache_lease_drop(struct cache *c, struct gw_str name, uint64_t mine, int64_t deadline_ms,
                     struct gw_error *err)
{
    return nobody(err);
}

int cache_share_tell(struct cache *c, enum cache_kind kind, struct gw_str name, int64_t deadline_ms,
                     struct gw_error *err)
{
    return nobody(err);
}

int cache_share_listen(struct cache *c, int64_t deadline_ms, struct gw_error *err)
{
    return nobody(err);
}
