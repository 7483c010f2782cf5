/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admit.c - policy's decision as an answer. What nobody may know of is answered with the bytes of
 * what does not exist; who is not logged in is told to, the same for every repo.
 */
#include "gateway/internal.h"

enum policy_action admit_action(enum hub_action a)
{
    static const enum policy_action of[] = {
        [HUB_NO_ACTION] = POLICY_DISCOVER,   [HUB_DISCOVER_ACTION] = POLICY_DISCOVER,
        [HUB_READ_ACTION] = POLICY_READ,     [HUB_WRITE_ACTION] = POLICY_WRITE,
        [HUB_CREATE_ACTION] = POLICY_CREATE, [HUB_DELETE_ACTION] = POLICY_DELETE,
        [HUB_ADMIN_ACTION] = POLICY_ADMIN,
    };

    return of[a];
}

static bool may(struct gateway *gw, const struct gateway_state *st, enum policy_action a,
                const struct policy_object *o, const struct policy_rule **rule)
{
    struct policy_decision d = policy_decide(gw->policy, &st->who.subject, a, o, st->started_ms);

    if (rule != NULL)
        *rule = d.rule;
    return d.effect == POLICY_ALLOW;
}

/* Before the commit is known. A deny that matches now matches then too; without any match a rule
 * for this commit may still allow, so who may discover the repo goes on to be decided again.
 * Upstream never hears of what is refused here. */
int admit_early(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                const struct policy_object *o, enum hub_action action)
{
    struct policy_object repo = *o;
    const struct policy_rule *rule;

    repo.revision = repo.path = GW_STR("");
    if (!may(gw, req->state, admit_action(action), o, &rule) && rule == NULL &&
        may(gw, req->state, POLICY_DISCOVER, &repo, NULL))
        return GW_OK;
    return admit(gw, req, ans, o, action);
}

static struct gw_str lacks(enum policy_action a)
{
    static const char *const texts[POLICY_ACTION_COUNT] = {
        [POLICY_READ] = "You may see this repository but not read it: ask its owner for access.",
        [POLICY_WRITE] = "You may not write to this repository: ask its owner for access.",
        [POLICY_CREATE] = "You may not create repositories in this namespace: ask its owner.",
        [POLICY_DELETE] =
            "You may not delete this repository, or the history of a branch: ask its owner.",
        [POLICY_ADMIN] = "You may not change the name or the settings of this repository: ask its "
                         "owner.",
    };

    return gw_str_c(texts[a]);
}

int admit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
          const struct policy_object *o, enum hub_action action)
{
    struct gateway_state *st = req->state;
    enum policy_action a = admit_action(action);

    st->object = *o;
    st->decided = true;
    st->allowed = may(gw, st, a, o, &st->rule);
    if (st->allowed && (st->who.role == POLICY_ROLE_NONE || policy_role_allows(st->who.role, a)))
        return GW_OK;
    if (st->allowed) { /* the person may, this token may not */
        st->allowed = false;
        answer_refuse(
            gw, req, ans, HUB_SCOPE,
            st->who.role == POLICY_ROLE_READ
                ? GW_STR("The role of this token is read, which does not allow this. Use a "
                         "token with the role write.")
                : GW_STR(""),
            0);
        return GW_FORBIDDEN;
    }
    if (st->who.subject.kind == POLICY_ANONYMOUS) {
        bool known = st->rule != NULL && may(gw, st, POLICY_DISCOVER, o, NULL);
        answer_refuse(gw, req, ans, known ? HUB_BLOCKED : HUB_LOGIN_NEEDED,
                      known ? policy_rule_reason(st->rule) : GW_STR(""), 0);
        return GW_FORBIDDEN;
    }
    if (may(gw, st, POLICY_DISCOVER, o, NULL)) {
        struct gw_str reason = policy_rule_reason(st->rule);
        answer_refuse(gw, req, ans, HUB_BLOCKED, reason.n ? reason : lacks(a), 0);
        return GW_FORBIDDEN;
    }
    answer_refuse(gw, req, ans, HUB_REPO_NOT_FOUND, GW_STR(""), 0);
    return GW_FORBIDDEN;
}
