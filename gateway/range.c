/* SPDX-License-Identifier: Apache-2.0 */
/* range.c - the Range header (RFC 9110 section 14) for blobs that are still filling; whole blobs
 * have nginx's filter. */
#include "gateway/internal.h"

enum range_kind range_parse(struct gw_str header, uint64_t size, uint64_t *first, uint64_t *end,
                            bool *open)
{
    struct gw_str rest = gw_str_trim(header), from;
    uint64_t a, b;

    *open = false;
    if (!gw_str_ieq(gw_str_sub(rest, 0, 6), GW_STR("bytes=")))
        return RANGE_NONE;
    rest = gw_str_trim(gw_str_sub(rest, 6, rest.n));
    if (rest.n > 64 || memchr(rest.p, ',', rest.n) != NULL || !gw_str_split(&rest, '-', &from) ||
        rest.p == NULL)
        return RANGE_NONE;
    from = gw_str_trim(from);
    rest = gw_str_trim(rest);
    if (from.n == 0) { /* the last b bytes */
        if (!gw_str_u64(rest, &b))
            return RANGE_NONE;
        if (b == 0 || size == 0)
            return RANGE_UNSATISFIABLE;
        *first = b < size ? size - b : 0;
        *end = size;
        return RANGE_ONE;
    }
    if (!gw_str_u64(from, &a))
        return RANGE_NONE;
    *open = rest.n == 0;
    b = size ? size - 1 : 0;
    if (!*open && (!gw_str_u64(rest, &b) || b < a))
        return RANGE_NONE;
    if (a >= size)
        return RANGE_UNSATISFIABLE;
    *first = a;
    *end = b < size ? b + 1 : size;
    return RANGE_ONE;
}

bool range_client_restarts(struct gw_str ua)
{
    static const char mark[] = "hf_hub/";
    uint64_t major, minor;
    struct gw_str rest, part;

    for (size_t i = 0; i + sizeof(mark) - 1 <= ua.n; i++) {
        if (memcmp(ua.p + i, mark, sizeof(mark) - 1) != 0)
            continue;
        rest = gw_str_sub(ua, i + sizeof(mark) - 1, ua.n);
        if (!gw_str_split(&rest, ';', &part))
            return false;
        rest = gw_str_trim(part);
        if (gw_str_eq_c(rest, "0.36.2"))
            return true;
        if (!gw_str_split(&rest, '.', &part) || !gw_str_u64(part, &major) ||
            !gw_str_split(&rest, '.', &part) || !gw_str_u64(part, &minor))
            return false;
        return major > 1 || (major == 1 && minor >= 5);
    }
    return false;
}
