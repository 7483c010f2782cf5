/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/fuzz_auth_credential.c - any Authorization header.
 *
 * First byte even: the rest is the header; odd: the rest is what Basic encodes. Whatever is
 * accepted keeps its promises: a token is visible ASCII, a password is no token, has no NUL and a
 * name that may leave for a directory.
 */
#include <stdlib.h>

#include "auth/auth.h"
#include "base/encode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static bool all(struct gw_str s, bool (*is)(unsigned char))
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is((unsigned char)s.p[i])) {
            return false;
        }
    }
    return true;
}

static bool is_visible(unsigned char c)
{
    return c > 0x20 && c < 0x7f;
}

static bool is_no_control(unsigned char c)
{
    return c >= 0x20 && c != 0x7f;
}

static bool is_name(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '@' || c == '-';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct auth_credential c = {0};
    struct gw_error err = {0};
    struct gw_arena a = {0};
    struct gw_buf header;

    if (size == 0) {
        return 0;
    }
    struct gw_str rest = {(const char *)data + 1, size - 1};
    gw_arena_init(&a, 1 << 16);
    gw_arena_keep_secret(&a);
    gw_buf_init(&header, 4 << 20);
    if (data[0] % 2 == 0) {
        gw_buf_add(&header, rest);
    } else {
        gw_buf_add(&header, GW_STR("Basic "));
        gw_base64_encode(&header, rest);
    }
    require(!header.failed);
    int rc = auth_credential_parse(&c, gw_buf_str(&header), &a, &err);
    if (rc != GW_OK) {
        require(rc == GW_INVALID && err.status == rc && c.secret.p == NULL);
    } else if (c.scheme == AUTH_TOKEN) {
        require(c.secret.n > 0 && all(c.secret, is_visible) && c.user.n <= 128 &&
                all(c.user, is_name));
    } else if (c.scheme == AUTH_PASSWORD) {
        require(c.secret.n > 0 && c.secret.n <= 1024 && all(c.secret, is_no_control) &&
                gw_utf8_valid(c.secret));
        require(!gw_str_starts(c.secret, GW_STR("hf_")) && c.user.n > 0 && c.user.n <= 128 &&
                all(c.user, is_name));
    } else {
        require(c.scheme == AUTH_NONE && gw_str_trim(gw_buf_str(&header)).n == 0);
    }
    gw_buf_release(&header);
    gw_arena_release(&a);
    return 0;
}
