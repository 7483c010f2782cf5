/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/rewrite.c - JSON events back to compact text, without some members.
 *
 * Xet hints go at any depth: since huggingface_hub 1.22 an xetHash in a tree is enough to send a
 * client to another host, without a request that could be answered otherwise. No space follows a
 * colon: hfd.sh greps "rfilename":".
 */
#include "hub/hub_internal.h"

bool hub_is_xet_hint(struct gw_str key)
{
    return gw_str_eq_c(key, "xetHash") || gw_str_eq_c(key, "xetEnabled");
}

static bool is_scalar(enum gw_json_event ev)
{
    return ev >= GW_JSON_STRING;
}

static void put_key(struct hub_rewriter *w, struct gw_str key)
{
    gw_json_put_comma(w->out);
    gw_json_put_string(w->out, key);
    gw_buf_add_char(w->out, ':');
    w->after_key = true;
}

static void put_value(struct hub_rewriter *w, enum gw_json_event ev, struct gw_str text,
                      unsigned depth)
{
    bool ends = ev == GW_JSON_OBJECT_END || ev == GW_JSON_ARRAY_END;

    if (!ends && !w->after_key && depth > w->base) {
        gw_json_put_comma(w->out);
    }
    w->after_key = false;
    switch (ev) {
    case GW_JSON_OBJECT_BEGIN:
        gw_buf_add_char(w->out, '{');
        break;
    case GW_JSON_OBJECT_END:
        gw_buf_add_char(w->out, '}');
        break;
    case GW_JSON_ARRAY_BEGIN:
        gw_buf_add_char(w->out, '[');
        break;
    case GW_JSON_ARRAY_END:
        gw_buf_add_char(w->out, ']');
        break;
    case GW_JSON_STRING:
        gw_json_put_string(w->out, text);
        break;
    case GW_JSON_NUMBER:
        gw_buf_add(w->out, text);
        break;
    case GW_JSON_TRUE:
        gw_buf_add_c(w->out, "true");
        break;
    case GW_JSON_FALSE:
        gw_buf_add_c(w->out, "false");
        break;
    case GW_JSON_NULL:
        gw_buf_add_c(w->out, "null");
        break;
    case GW_JSON_KEY:
        break;
    }
}

static bool drops(const struct hub_rewriter *w, struct gw_str key, unsigned depth)
{
    return w->drop != NULL ? w->drop(w->ctx, key, depth) : hub_is_xet_hint(key);
}

bool hub_rewrite(struct hub_rewriter *w, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    if (w->dropping) {
        if (depth == w->drop_depth &&
            (is_scalar(ev) || ev == GW_JSON_OBJECT_END || ev == GW_JSON_ARRAY_END)) {
            w->dropping = false; /* that was its value */
        }
        return false;
    }
    if (ev == GW_JSON_KEY) {
        if (drops(w, text, depth)) {
            w->dropping = true;
            w->drop_depth = depth;
            return false;
        }
        put_key(w, text);
        return true;
    }
    put_value(w, ev, text, depth);
    return true;
}
