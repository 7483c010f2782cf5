/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/name.c - grammars of names, and of passwords.
 *
 * Typed names are plain ASCII before anything else sees them: a directory takes "ALICE", a
 * full-width or circled "alice" and a leading blank for the same person, and each spelling would
 * have its own counters here (auth-policy 2.2).
 */
#include "auth/auth_internal.h"

static bool is_lower(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
    return is_lower(c) || (c >= 'A' && c <= 'Z');
}

static bool is_dotted(struct gw_str s, size_t max)
{
    if (s.n == 0 || s.n > max || !is_lower(s.p[0])) {
        return false;
    }
    for (size_t i = 1; i < s.n; i++) {
        if (!is_lower(s.p[i]) && s.p[i] != '.' && s.p[i] != '_' && s.p[i] != '-') {
            return false;
        }
    }
    return true;
}

bool auth_is_typed_name(struct gw_str s)
{
    if (s.n == 0 || s.n > AUTH_TYPED_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && (s.p[i] == '\0' || strchr("._@-", s.p[i]) == NULL)) {
            return false;
        }
    }
    return true;
}

bool auth_is_name(struct gw_str s)
{
    return is_dotted(s, 64);
}

bool auth_is_subject_id(struct gw_str s)
{
    return is_dotted(s, 128);
}

bool auth_is_realm(struct gw_str s)
{
    if (s.n == 0 || s.n > 32) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!is_lower(s.p[i])) {
            return false;
        }
    }
    return true;
}

static bool has_control(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f) {
            return true;
        }
    }
    return false;
}

bool auth_is_text(struct gw_str s, size_t max)
{
    if (s.n > max || has_control(s) || !gw_utf8_valid(s)) {
        return false;
    }
    for (size_t i = 0; i + 1 < s.n; i++) { /* valid UTF-8: a lead byte is never the last */
        unsigned char a = (unsigned char)s.p[i], b = (unsigned char)s.p[i + 1];
        if (a == 0xc2 && b < 0xa0) { /* C1 controls */
            return false;
        }
        if (a != 0xef || i + 2 >= s.n) {
            continue;
        }
        unsigned char c = (unsigned char)s.p[i + 2];
        if ((b == 0xbb && c == 0xbf) ||
            (b == 0xbf && c >= 0xbe)) { /* U+FEFF, U+FFFE, U+FFFF: no YAML takes them */
            return false;
        }
    }
    return true;
}

int auth_password_check(struct gw_str password, struct gw_error *err)
{
    if (password.n == 0) {
        return gw_fail(err, GW_INVALID, 0, "the password is empty");
    }
    if (password.n > AUTH_PASSWORD_MAX) {
        return gw_fail(err, GW_INVALID, 0, "the password is longer than %u bytes",
                       AUTH_PASSWORD_MAX);
    }
    if (has_control(password)) {
        return gw_fail(err, GW_INVALID, 0, "the password holds a control character");
    }
    if (!gw_utf8_valid(password)) {
        return gw_fail(err, GW_INVALID, 0, "the password is not UTF-8");
    }
    if (gw_str_starts(password, GW_STR("hf_"))) {
        return gw_fail(err, GW_INVALID, 0, "a password may not start with hf_: that is a token");
    }
    return GW_OK;
}
