/* SPDX-License-Identifier: Apache-2.0 */
/* policy/words.c - the words of the language and of the command: actions, types, roles, WHO and
 * RESOURCE. */
#include "policy/policy_internal.h"

const char *const policy_types[4] = {"model", "dataset", "space", "kernel"};

static const char *const action_names[POLICY_ACTION_COUNT] = {
    [POLICY_DISCOVER] = "discover", [POLICY_READ] = "read",     [POLICY_WRITE] = "write",
    [POLICY_CREATE] = "create",     [POLICY_DELETE] = "delete", [POLICY_ADMIN] = "admin",
};

/* What each action needs, itself included (auth-policy 5.3-1). */
static const unsigned implied[POLICY_ACTION_COUNT] = {
    [POLICY_DISCOVER] = POLICY_BIT(POLICY_DISCOVER),
    [POLICY_READ] = POLICY_BIT(POLICY_READ) | POLICY_BIT(POLICY_DISCOVER),
    [POLICY_WRITE] =
        POLICY_BIT(POLICY_WRITE) | POLICY_BIT(POLICY_READ) | POLICY_BIT(POLICY_DISCOVER),
    [POLICY_CREATE] = POLICY_BIT(POLICY_CREATE) | POLICY_BIT(POLICY_DISCOVER),
    [POLICY_DELETE] = POLICY_BIT(POLICY_DELETE) | POLICY_BIT(POLICY_DISCOVER),
    [POLICY_ADMIN] = POLICY_BIT(POLICY_ACTION_COUNT) - 1,
};

bool policy_action_parse(struct gw_str word, enum policy_action *out)
{
    unsigned a;

    for (a = 0; a < POLICY_ACTION_COUNT; a++) {
        if (gw_str_eq_c(word, action_names[a])) {
            *out = (enum policy_action)a;
            return true;
        }
    }
    return false;
}

const char *policy_action_name(enum policy_action a)
{
    return (unsigned)a < POLICY_ACTION_COUNT ? action_names[a] : "(no action)";
}

unsigned policy_close(enum policy_effect effect, unsigned actions)
{
    unsigned a, closed = 0;

    for (a = 0; a < POLICY_ACTION_COUNT; a++) {
        if (effect == POLICY_ALLOW && actions & POLICY_BIT(a)) {
            closed |= implied[a];
        }
        if (effect == POLICY_DENY && actions & implied[a]) {
            closed |= POLICY_BIT(a);
        }
    }
    return closed;
}

unsigned policy_type_bit(struct gw_str type)
{
    unsigned i;

    for (i = 0; i < 4; i++) {
        if (gw_str_eq_c(type, policy_types[i])) {
            return 1u << i;
        }
    }
    return 1u << 4;
}

bool policy_role_allows(enum policy_role role, enum policy_action a)
{
    switch (a) {
    case POLICY_DISCOVER:
    case POLICY_READ:
        return role == POLICY_ROLE_READ || role == POLICY_ROLE_WRITE;
    case POLICY_WRITE:
    case POLICY_CREATE:
    case POLICY_DELETE:
    case POLICY_ADMIN:
        return role == POLICY_ROLE_WRITE;
    default:
        return false;
    }
}

static bool is_repo_word(struct gw_str s)
{
    size_t i;

    if (s.n == 0 || s.n > 96) {
        return false;
    }
    for (i = 0; i < s.n; i++) {
        unsigned char c = policy_fold((unsigned char)s.p[i]);

        if ((unsigned char)(c - 'a') >= 26 && (unsigned char)(c - '0') >= 10 && c != '.' &&
            c != '_' && c != '-') {
            return false;
        }
    }
    return true;
}

static bool is_plain(struct gw_str s)
{
    size_t i;

    for (i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f) {
            return false;
        }
    }
    return s.n > 0;
}

/* Splits at the first sep, which must be there to give a tail. */
static bool cut(struct gw_str *head, struct gw_str *tail, const char *sep)
{
    size_t n = strlen(sep), i;

    for (i = 0; i + n <= head->n; i++) {
        if (memcmp(head->p + i, sep, n) == 0) {
            *tail = gw_str_sub(*head, i + n, head->n - i - n);
            head->n = i;
            return true;
        }
    }
    return false;
}

int policy_resource_parse(struct gw_str text, struct policy_object *out, struct gw_error *err)
{
    struct policy_object o = {.type = text};
    struct gw_str rest = {0};

    if (!cut(&o.type, &rest, ":") || policy_type_bit(o.type) == 1u << 4) {
        goto bad;
    }
    if (cut(&rest, &o.path, "//") && !is_plain(o.path)) {
        goto bad;
    }
    if (cut(&rest, &o.revision, "@") && !is_plain(o.revision)) {
        goto bad;
    }
    o.ns = rest;
    if (!cut(&o.ns, &o.name, "/")) {
        o.ns = GW_STR("_");
        o.name = rest;
    }
    if (!is_repo_word(o.ns) || !is_repo_word(o.name)) {
        goto bad;
    }
    *out = o;
    return GW_OK;
bad:
    return gw_fail(err, GW_INVALID, 0,
                   "expected TYPE:NAMESPACE/NAME[@REVISION][//PATH], TYPE one of model, dataset, "
                   "space, kernel");
}

int policy_who_parse(struct gw_str text, struct policy_subject *out, struct gw_error *err)
{
    struct policy_subject s = {0};
    struct gw_str kind = text;

    if (gw_str_eq_c(text, "anonymous")) {
        *out = s;
        return GW_OK;
    }
    if (cut(&kind, &s.name, ":") && is_plain(s.name)) {
        if (gw_str_eq_c(kind, "user")) {
            s.kind = POLICY_USER;
        } else if (gw_str_eq_c(kind, "service")) {
            s.kind = POLICY_SERVICE;
        }
    }
    if (s.kind == POLICY_ANONYMOUS) {
        return gw_fail(err, GW_INVALID, 0, "expected user:NAME, service:NAME or anonymous");
    }
    *out = s;
    return GW_OK;
}
