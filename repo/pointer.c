/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/pointer.c - the text that stands in git for a large object (git-lfs docs/spec.md).
 *
 * Only the one canonical encoding counts: what we call a pointer is served as the object it names,
 * so nothing that merely looks like one may be taken for it.
 */
#include "repo/repo_internal.h"

#include "base/encode.h"

#include <stdio.h>

#define HEAD "version https://git-lfs.github.com/spec/v1\noid sha256:"
#define MIDDLE "\nsize "
#define SHA_HEX 64u

_Static_assert(sizeof(HEAD) - 1 + SHA_HEX + sizeof(MIDDLE) - 1 + 2 == REPO_POINTER_BYTES_MIN,
               "one digit and the newline");
_Static_assert(REPO_POINTER_BYTES_MIN + 18 == REPO_POINTER_BYTES_MAX, "nineteen digits");

size_t repo_pointer_format(char out[200], struct gw_str sha256, uint64_t size)
{
    int n = snprintf(out, 200, HEAD "%.*s" MIDDLE "%llu\n", (int)SHA_HEX, sha256.p,
                     (unsigned long long)size);

    return (size_t)n;
}

bool repo_pointer_parse(struct gw_str text, char sha256[65], uint64_t *size)
{
    struct gw_str hex, digits;
    uint64_t v;

    if (text.n < REPO_POINTER_BYTES_MIN || text.n > REPO_POINTER_BYTES_MAX ||
        !gw_str_starts(text, GW_STR(HEAD)) || text.p[text.n - 1] != '\n') {
        return false;
    }
    hex = gw_str_sub(text, sizeof(HEAD) - 1, SHA_HEX);
    text = gw_str_sub(text, sizeof(HEAD) - 1 + SHA_HEX, text.n);
    if (!gw_is_hex_lower(hex, SHA_HEX) || !gw_str_starts(text, GW_STR(MIDDLE))) {
        return false;
    }
    digits =
        gw_str_sub(text, sizeof(MIDDLE) - 1, text.n - sizeof(MIDDLE)); /* without the newline */
    if (!gw_str_u64(digits, &v) || v > INT64_MAX || (digits.n > 1 && digits.p[0] == '0')) {
        return false;
    }
    memcpy(sha256, hex.p, SHA_HEX);
    sha256[SHA_HEX] = '\0';
    *size = v;
    return true;
}
