/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/credential.c - the Authorization header.
 *
 * Our own parser: nginx's refuses an empty user name, which git sends, and keeps NUL bytes, which
 * end a C string early and turn a bind into an anonymous one (auth-policy 2.2, 4.4). No error text
 * repeats a byte of the header.
 */
#include "auth/auth_internal.h"

#include "base/encode.h"

#define HEADER_MAX 4096u
/* A user name this long that starts with hf_ is a token in the wrong place; huggingface_hub's own
 * name "hf_user" is not. */
#define TOKEN_LIKE_MIN 30u

static bool is_token(struct gw_str s)
{
    return gw_str_starts(s, GW_STR("hf_"));
}

static bool is_visible(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f) {
            return false;
        }
    }
    return s.n > 0;
}

static int as_token(struct auth_credential *c, struct gw_str user, struct gw_str secret,
                    struct gw_error *err)
{
    if (!is_visible(secret)) {
        return gw_fail(err, GW_INVALID, 0,
                       "the token is empty or holds a character that no token has");
    }
    if (user.n > 0 && !auth_is_typed_name(user)) {
        return gw_fail(err, GW_INVALID, 0,
                       "the user name may hold A-Z a-z 0-9 . _ @ - only, at most %u",
                       AUTH_TYPED_NAME_MAX);
    }
    *c = (struct auth_credential){AUTH_TOKEN, user, secret};
    return GW_OK;
}

static int as_password(struct auth_credential *c, struct gw_str user, struct gw_str secret,
                       struct gw_error *err)
{
    int rc = auth_password_check(secret, err);

    if (rc != GW_OK) {
        return rc;
    }
    if (is_token(user) &&
        user.n >= TOKEN_LIKE_MIN) { /* never asked of a directory, where it would be logged */
        return gw_fail(err, GW_INVALID, 0, "a token was given as the user name, with a password");
    }
    if (!auth_is_typed_name(user)) {
        return gw_fail(err, GW_INVALID, 0,
                       "the user name may hold A-Z a-z 0-9 . _ @ - only, at most %u",
                       AUTH_TYPED_NAME_MAX);
    }
    *c = (struct auth_credential){AUTH_PASSWORD, user, secret};
    return GW_OK;
}

static int on_basic(struct auth_credential *c, struct gw_str base64, struct gw_arena *secret,
                    struct gw_error *err)
{
    size_t n, cap = base64.n / 4 * 3 + 3;
    char *p = gw_arena_alloc(secret, cap);

    if (p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    if (!gw_base64_decode(base64, p, cap, &n)) {
        return gw_fail(err, GW_INVALID, 0, "the Basic credential is not base64");
    }
    struct gw_str rest = {p, n}, user;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f) {
            return gw_fail(err, GW_INVALID, 0, "the Basic credential holds a control character");
        }
    }
    if (!gw_utf8_valid(rest)) {
        return gw_fail(err, GW_INVALID, 0, "the Basic credential is not UTF-8");
    }
    char *colon =
        n > 0 ? memchr(p, ':', n) : NULL; /* RFC 7617: the first one; a password may hold more */
    if (colon == NULL) {
        return gw_fail(err, GW_INVALID, 0, "the Basic credential has no colon");
    }
    user = gw_str_sub(rest, 0, (size_t)(colon - p));
    rest = gw_str_sub(rest, user.n + 1, SIZE_MAX);

    if (is_token(rest)) {
        return as_token(c, user, rest, err);
    }
    if (is_token(user) && (rest.n == 0 || gw_str_eq(rest, GW_STR("x-oauth-basic")))) {
        return as_token(c, GW_STR(""), user, err);
    }
    return as_password(c, user, rest, err);
}

int auth_credential_parse(struct auth_credential *out, struct gw_str header,
                          struct gw_arena *secret, struct gw_error *err)
{
    struct auth_credential c = {AUTH_NONE, GW_STR(""), GW_STR("")};
    int rc = GW_OK;

    if (header.n > HEADER_MAX) {
        return gw_fail(err, GW_INVALID, 0, "the Authorization header is longer than %u bytes",
                       HEADER_MAX);
    }
    struct gw_str rest = gw_str_trim(header), scheme;
    if (rest.n > 0) {
        (void)gw_str_split(&rest, ' ', &scheme);
        rest = gw_str_trim(rest);
        if (gw_str_ieq(scheme, GW_STR("bearer"))) {
            struct gw_str copy = gw_arena_dup(secret, rest);
            if (copy.p == NULL) {
                return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
            }
            rc = as_token(&c, GW_STR(""), copy, err);
        } else if (gw_str_ieq(scheme, GW_STR("basic"))) {
            rc = on_basic(&c, rest, secret, err);
        } else {
            rc =
                gw_fail(err, GW_INVALID, 0, "the Authorization header is neither Bearer nor Basic");
        }
    }
    if (rc == GW_OK) {
        *out = c;
    }
    return rc;
}
