/* SPDX-License-Identifier: Apache-2.0 */
/* range.c - the Range header (RFC 9110 section 14): one range of a blob that is still filling, and
 * whether nginx's filter may do it on a whole one. */
#include "gateway/internal.h"

/* "5-9", "5-", "-5" */
static enum range_kind one_range(struct gw_str spec, uint64_t size, uint64_t *first, uint64_t *end,
                                 bool *open)
{
    struct gw_str from;
    uint64_t a, b;

    *open = false;
    if (spec.n > 64 || !gw_str_split(&spec, '-', &from) || spec.p == NULL)
        return RANGE_NONE;
    from = gw_str_trim(from);
    spec = gw_str_trim(spec);
    if (from.n == 0) { /* the last b bytes */
        if (!gw_str_u64(spec, &b))
            return RANGE_NONE;
        if (b == 0 || size == 0)
            return RANGE_UNSATISFIABLE;
        *first = b < size ? size - b : 0;
        *end = size;
        return RANGE_ONE;
    }
    if (!gw_str_u64(from, &a))
        return RANGE_NONE;
    *open = spec.n == 0;
    b = size ? size - 1 : 0;
    if (!*open && (!gw_str_u64(spec, &b) || b < a))
        return RANGE_NONE;
    if (a >= size)
        return RANGE_UNSATISFIABLE;
    *first = a;
    *end = b < size ? b + 1 : size;
    return RANGE_ONE;
}

enum range_kind range_parse(struct gw_str header, uint64_t size, uint64_t *first, uint64_t *end,
                            bool *open)
{
    enum range_kind kind, all = RANGE_UNSATISFIABLE;
    struct gw_str rest = gw_str_trim(header), spec;
    unsigned n = 0;

    *open = false;
    if (!gw_str_ieq(gw_str_sub(rest, 0, 6), GW_STR("bytes=")))
        return RANGE_NONE;
    rest = gw_str_trim(gw_str_sub(rest, 6, rest.n));
    while (gw_str_split(&rest, ',', &spec)) {
        kind = ++n > RANGES_MAX ? RANGE_NONE : one_range(gw_str_trim(spec), size, first, end, open);
        if (kind == RANGE_NONE)
            return kind;
        if (kind == RANGE_ONE)
            all = kind;
    }
    return n == 0 ? RANGE_NONE : n > 1 && all == RANGE_ONE ? RANGE_SEVERAL : all;
}

size_t range_pieces(struct gw_str header, uint64_t size, struct range_piece out[RANGES_MAX])
{
    struct gw_str rest = gw_str_trim(header), spec;
    size_t n = 0;
    bool open;

    gw_str_split(&rest, '=', &spec);
    while (n < RANGES_MAX && gw_str_split(&rest, ',', &spec))
        n += one_range(gw_str_trim(spec), size, &out[n].first, &out[n].end, &open) == RANGE_ONE;
    return n;
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
