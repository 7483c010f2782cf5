/* SPDX-License-Identifier: Apache-2.0 */
/* quota.c - how much of a namespace is left, before something is added to it. Job threads. */
#include "gateway/jobs.h"

#include <errno.h>
#include <stdio.h>

#define LONG_MS 50
#define REST 20

static const char *shown(char out[32], uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double n = (double)bytes;
    size_t i = 0;

    while (n >= 1024 && i < 6) {
        n /= 1024;
        i++;
    }
    snprintf(out, 32, i ? "%.1f %s" : "%.0f %s", n, units[i]);
    return out;
}

/* The row of a namespace, or the one that is over for longest. Under the lock. */
static struct gateway_quota *row_of(struct gateway *gw, struct gw_str ns)
{
    struct gateway_quota *rows = gw->quotas.rows, *oldest = &rows[0];

    for (size_t i = 0; i < GATEWAY_QUOTAS; i++) {
        if (gw_str_ieq_c(ns, rows[i].ns))
            return &rows[i];
        if (rows[i].until_ms < oldest->until_ms)
            oldest = &rows[i];
    }
    snprintf(oldest->ns, sizeof(oldest->ns), GW_STR_FMT, GW_STR_ARG(ns));
    oldest->until_ms = 0;
    return oldest;
}

/* What the namespace holds, and what was let in since it was measured. A namespace of very many
 * repositories is not measured again before twenty times the cost of that is over. */
static int held_by(struct gateway *gw, struct gw_str ns, uint64_t *held, struct gw_error *err)
{
    int64_t begin = gw_mono_ms(), cost;
    struct gateway_quota *row;
    int rc;

    pthread_mutex_lock(&gw->quotas.lock);
    row = row_of(gw, ns);
    *held = row->bytes;
    if (begin < row->until_ms) {
        pthread_mutex_unlock(&gw->quotas.lock);
        return GW_OK;
    }
    pthread_mutex_unlock(&gw->quotas.lock);
    rc = repo_ns_usage(gw->config->data, ns, held, err);
    cost = gw_mono_ms() - begin;
    if (rc != GW_OK || cost < LONG_MS)
        return rc;
    pthread_mutex_lock(&gw->quotas.lock);
    row = row_of(gw, ns);
    row->bytes = *held;
    row->until_ms = begin + cost + REST * cost;
    pthread_mutex_unlock(&gw->quotas.lock);
    return GW_OK;
}

int quota_check(struct gateway *gw, const struct repo_id *id, uint64_t more, bool now,
                struct gw_error *err)
{
    char may[32], holds[32], comes[32];
    uint64_t most, held;
    int rc;

    if (more == 0 || !config_quota(gw->config, id->ns, &most))
        return GW_OK;
    rc = held_by(gw, id->ns, &held, err);
    if (rc != GW_OK)
        return rc;
    if (held > most || more > most - held)
        return gw_fail(
            err, GW_TOO_LARGE, EDQUOT,
            "The namespace " GW_STR_FMT " may hold %s and holds %s: %s more do not fit. Delete "
            "what is not needed, or ask the people who run this gateway for more.",
            GW_STR_ARG(id->ns), shown(may, most), shown(holds, held), shown(comes, more));
    if (now) {
        pthread_mutex_lock(&gw->quotas.lock);
        row_of(gw, id->ns)->bytes += more; /* of no use, and no harm, where it is measured anew */
        pthread_mutex_unlock(&gw->quotas.lock);
    }
    return GW_OK;
}
