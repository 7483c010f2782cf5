/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health.c - "/-/healthz": this worker answers. "/-/readyz": it can serve, and which of those it
 * depends on do not answer: read from the breakers in shared memory, nobody is asked. Both
 * for everybody, whatever the Host; no names or addresses of anything inside.
 *
 * Ready is not "all is well": held files are served without the Hub, tokens are good without the
 * directory for identity.stale_max, one node works without Redis. A probe that takes the nodes away
 * because a dependency of all of them is down makes an outage of a nuisance.
 */
#include "gateway/internal.h"

static const struct {
    enum gw_peer peer;
    const char *name;
} dependencies[] = {
    {GW_PEER_UPSTREAM, "upstream"},
    {GW_PEER_LDAP, "directory"},
    {GW_PEER_REDIS, "redis"},
};

int health_answer(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gw_buf out;
    bool degraded = false;
    int rc;

    if (req->state->target.route == HUB_HEALTH)
        return answer_json(req, ans,
                           GW_STR("{\"status\":\"ok\",\"version\":\"" HUBGATE_VERSION "\"}"));
    for (size_t i = 0; i < sizeof(dependencies) / sizeof(dependencies[0]); i++)
        degraded = degraded || wants_open(gw, dependencies[i].peer);
    gw_buf_init(&out, 1024);
    gw_buf_add_c(&out, degraded ? "{\"status\":\"degraded\"" : "{\"status\":\"ok\"");
    for (size_t i = 0; i < sizeof(dependencies) / sizeof(dependencies[0]); i++) {
        gw_json_put_key(&out, dependencies[i].name);
        gw_json_put_string(&out, wants_open(gw, dependencies[i].peer) ? GW_STR("does not answer")
                                                                      : GW_STR("ok"));
    }
    gw_buf_add_char(&out, '}');
    rc = out.failed ? GW_NO_MEMORY
                    : answer_json(req, ans, gw_arena_dup(&req->state->arena, gw_buf_str(&out)));
    gw_buf_release(&out);
    return rc;
}
