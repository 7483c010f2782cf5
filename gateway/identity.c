/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity.c - credential -> subject, on the loop: from token and subject entries of the index, or
 * by wants. What a token may do is what its owner may do now, cut by the token's role.
 */
#include "gateway/internal.h"
#include "gateway/record.h"

#include "base/encode.h"

static int refuse(enum hub_reason *why, struct gw_str *detail, enum hub_reason reason,
                  struct gw_str text)
{
    *why = reason;
    *detail = text;
    return GW_FORBIDDEN;
}

static int failure(enum hub_reason *why, struct gw_str *detail, struct gw_arena *a,
                   const struct gw_error *err)
{
    struct gw_str text = gw_arena_dup(a, gw_str_c(err->text));

    return refuse(why, detail, HUB_OUTAGE, text.p ? text : GW_STR("not enough memory"));
}

static int decode_subject(struct auth_subject *out, const struct cache_record *rec,
                          struct gw_arena *a, enum hub_reason *why, struct gw_str *detail)
{
    int rc = rec->status == GW_OK ? record_subject_decode(out, rec->value, a) : GW_NOT_FOUND;

    if (rc == GW_NO_MEMORY)
        return refuse(why, detail, HUB_OUTAGE, GW_STR("not enough memory"));
    if (rc != GW_OK)
        return refuse(why, detail, HUB_BAD_CREDENTIAL,
                      GW_STR("the owner of this token is not known any more"));
    return GW_OK;
}

static int load_subject(struct gateway *gw, struct gateway_request *req, struct gw_str id,
                        struct gateway_identity *out, enum hub_reason *why, struct gw_str *detail)
{
    struct gw_arena *a = &req->state->arena;
    struct auth_subject s;
    struct cache_record rec;
    struct gw_error err;
    struct gw_want refresh = {.key = FACT_JOIN(a, GW_STR("subject"), id, GW_STR("refresh"))};
    struct fact f = {
        .kind = CACHE_SUBJECT,
        .name = id,
        .life = FACT_RECORD,
        .want = {.peer = GW_PEER_DISK, .key = FACT_JOIN(a, GW_STR("subject"), id, GW_STR("read"))},
    };
    int64_t age;
    int rc = fact_get(gw, req, &f, &rec, &err);

    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK)
        return failure(why, detail, a, &err);
    rc = decode_subject(&s, &rec, a, why, detail);
    if (rc != GW_OK)
        return rc;
    refresh.peer = gw_str_eq_c(s.realm, "file") || s.service ? GW_PEER_DISK : GW_PEER_LDAP;
    age = req->state->started_ms - s.checked_ms;
    if (!s.service && age > gw->config->identity.stale_max_ms) {
        rc = fact_need(gw, req, &refresh, NULL, &err);
        if (rc != GW_OK)
            return rc == GW_AGAIN ? rc : failure(why, detail, a, &err);
        /* the job wrote a new entry; what is decoded here is the old one */
        rc = cache_get(gw->cache, CACHE_SUBJECT, id, a, &rec);
        if (rc != GW_OK) {
            gw_fail(&err, GW_UNAVAILABLE, 0, "the index did not keep the answer");
            return failure(why, detail, a, &err);
        }
        rc = decode_subject(&s, &rec, a, why, detail);
        if (rc != GW_OK)
            return rc;
    } else if (!s.service && age > gw->config->identity.refresh_ms) {
        out->stale = wants_open(gw, refresh.peer);
        wants_background(gw, &refresh);
    }
    if (s.state != AUTH_ACTIVE)
        return refuse(why, detail, HUB_BAD_CREDENTIAL, GW_STR("this account is disabled"));
    out->subject.kind = s.service ? POLICY_SERVICE : POLICY_USER;
    out->subject.name = s.name;
    out->subject.groups = s.groups;
    out->subject.n_groups = s.n_groups;
    out->subject_id = s.id;
    out->realm = s.realm;
    out->display = s.display;
    out->email = s.email;
    return GW_OK;
}

int identity_of_subject(struct gateway *gw, struct gateway_request *req, struct gw_str id,
                        struct gateway_identity *out, enum hub_reason *why, struct gw_str *detail)
{
    memset(out, 0, sizeof(*out));
    return load_subject(gw, req, id, out, why, detail);
}

static int by_token(struct gateway *gw, struct gateway_request *req,
                    const struct auth_credential *cred, struct gateway_identity *out,
                    enum hub_reason *why, struct gw_str *detail)
{
    struct gw_arena *a = &req->state->arena;
    struct auth_token token;
    struct cache_record rec;
    struct gw_error err;
    struct fact f = {.kind = CACHE_TOKEN, .life = FACT_RECORD};
    bool known;
    int rc;

    if (!auth_token_id(cred->secret, out->token_id)) {
        out->token_id[0] = '\0';
        if (gw_str_starts(cred->secret, GW_STR("hf_")) &&
            !gw_str_starts(cred->secret, GW_STR("hf_gw")))
            return refuse(why, detail, HUB_FOREIGN_TOKEN, GW_STR(""));
        return refuse(why, detail, HUB_BAD_CREDENTIAL,
                      GW_STR("this is not a token of this gateway"));
    }
    f.name = gw_str_c(out->token_id);
    f.want = (struct gw_want){.peer = GW_PEER_DISK, .key = FACT_JOIN(a, GW_STR("token"), f.name)};
    rc = fact_get(gw, req, &f, &rec, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK && rc != GW_NOT_FOUND)
        return failure(why, detail, a, &err);
    known = rc == GW_OK && rec.status == GW_OK && record_token_decode(&token, rec.value) &&
            gw_str_eq_c(f.name, token.id);
    rc = auth_token_check(cred->secret, known ? &token : NULL, req->state->started_ms, &err);
    if (rc != GW_OK) {
        out->token_id[0] = known ? out->token_id[0] : '\0';
        return refuse(why, detail, HUB_BAD_CREDENTIAL,
                      GW_STR("the token is wrong, expired or revoked"));
    }
    out->role = token.role == AUTH_ROLE_WRITE ? POLICY_ROLE_WRITE : POLICY_ROLE_READ;
    out->token_name = token.name;
    out->token_created_ms = token.created_ms;
    return load_subject(gw, req, token.subject, out, why, detail);
}

int identity_of(struct gateway *gw, struct gateway_request *req, struct auth_credential *cred,
                struct gateway_identity *out, enum hub_reason *why, struct gw_str *detail)
{
    struct gw_error err;
    int rc;

    memset(out, 0, sizeof(*out));
    if (req->n_authorization > 1)
        return refuse(why, detail, HUB_BAD_REQUEST, GW_STR("two Authorization headers"));
    rc = auth_credential_parse(cred, req->authorization, &req->state->arena, &err);
    if (rc == GW_NO_MEMORY)
        return failure(why, detail, &req->state->arena, &err);
    if (rc != GW_OK)
        return refuse(why, detail, HUB_BAD_CREDENTIAL,
                      GW_STR("the Authorization header cannot be read"));
    switch (cred->scheme) {
    case AUTH_TOKEN:
        return by_token(gw, req, cred, out, why, detail);
    case AUTH_PASSWORD:
        if (req->state->target.route == HUB_GATEWAY_TOKENS)
            return identity_login(gw, req, cred, out, why, detail);
        return refuse(
            why, detail, HUB_BAD_CREDENTIAL,
            GW_STR(
                "passwords are taken by /api/gateway/tokens only: make a token there and use it"));
    case AUTH_NONE:
        break;
    }
    return GW_OK;
}

int identity_login(struct gateway *gw, struct gateway_request *req,
                   const struct auth_credential *cred, struct gateway_identity *out,
                   enum hub_reason *why, struct gw_str *detail)
{
    struct gw_arena *a = &req->state->arena;
    struct gateway_result *r = NULL;
    struct gw_want want;
    struct gw_error err;
    uint8_t mac[32];
    char hex[65];
    int rc;

    /* the password itself is in arg alone; its MAC under a key of this process names the fact */
    want.arg = FACT_JOIN(a, cred->user, cred->secret);
    if (want.arg.p == NULL)
        return refuse(why, detail, HUB_OUTAGE, GW_STR("not enough memory"));
    gw_hmac_sha256((struct gw_str){gw->boot_key, sizeof(gw->boot_key)}, want.arg, mac);
    gw_hex_encode(hex, mac, sizeof(mac));
    want.peer = gw->config->n_ldap ? GW_PEER_LDAP : GW_PEER_DISK;
    want.key = FACT_JOIN(a, GW_STR("login"), gw_str_c(hex));
    rc = fact_need(gw, req, &want, &r, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc == GW_UNAUTHENTICATED || rc == GW_INVALID) {
        req->state->login = 2;
        return refuse(why, detail, HUB_BAD_CREDENTIAL, GW_STR("wrong user name or password"));
    }
    if (rc != GW_OK)
        return failure(why, detail, a, &err);
    req->state->login = 1;
    return load_subject(gw, req, r->text, out, why, detail);
}
