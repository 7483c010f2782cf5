/* SPDX-License-Identifier: Apache-2.0 */
/* hub/settings.c - what a client wants to be other about a repository. */
#include "hub/hub.h"

static bool is_false(const struct gw_json *v)
{
    int64_t n;

    return !gw_json_bool(v) && !gw_json_is_string(v) && !gw_json_is_object(v) &&
           !gw_json_is_array(v) && !gw_json_int(v, &n);
}

static int on_setting(void *ctx, struct gw_str key, const struct gw_json *v)
{
    enum hub_settings *out = ctx, found = HUB_SETTINGS_OTHER;

    if (gw_str_eq_c(key, "private")) {
        found = gw_json_bool(v) ? HUB_SETTINGS_SAME : HUB_SETTINGS_VISIBILITY;
    } else if (gw_str_eq_c(key, "visibility")) {
        found =
            gw_str_eq_c(gw_json_string(v), "private") ? HUB_SETTINGS_SAME : HUB_SETTINGS_VISIBILITY;
    } else if (gw_str_eq_c(key, "gated") && is_false(v)) {
        found = HUB_SETTINGS_SAME;
    }
    *out = found > *out ? found : *out;
    return GW_OK;
}

int hub_settings_parse(enum hub_settings *out, struct gw_str body, struct gw_error *err)
{
    struct gw_json *root;
    int rc = gw_json_parse(&root, body, err);

    if (rc != GW_OK) {
        return rc;
    }
    *out = HUB_SETTINGS_SAME;
    rc = gw_json_is_object(root) ? gw_json_each(root, on_setting, out)
                                 : gw_fail(err, GW_INVALID, 0, "settings are a JSON object");
    gw_json_free(root);
    return rc;
}
