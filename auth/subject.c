/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/subject.c - a person or service as held in data/subjects/<id>.json.
 *
 * The id comes from the directory's immutable id, never from what was typed and never from a name,
 * which may be given to somebody else later (auth-policy 0.5).
 */
#include "auth/auth_internal.h"

#include "base/encode.h"
#include "base/sha.h"

#define PURPOSE "subject"

struct gw_str auth_subject_id(struct gw_str realm, struct gw_str source_id, struct gw_arena *a)
{
    uint8_t digest[32];
    char hex[65];

    if (gw_str_eq(realm, GW_STR("service"))) {
        return gw_arena_printf(a, "service-" GW_STR_FMT, GW_STR_ARG(source_id));
    }
    gw_sha256_once(source_id.p, source_id.n, digest);
    gw_hex_encode(hex, digest, sizeof(digest));
    return gw_arena_printf(a, GW_STR_FMT "-%.32s", GW_STR_ARG(realm), hex);
}

static void put_member(struct gw_buf *out, const char *key, struct gw_str value)
{
    gw_json_put_key(out, key);
    gw_json_put_string(out, value);
}

void auth_subject_format(struct gw_buf *out, const struct auth_subject *s, struct gw_str key)
{
    size_t begin = auth_record_begin(out);

    put_member(out, "id", s->id);
    put_member(out, "realm", s->realm);
    put_member(out, "source_id", s->source_id);
    put_member(out, "dn", s->dn);
    put_member(out, "name", s->name);
    put_member(out, "display", s->display);
    put_member(out, "email", s->email);
    put_member(out, "state", s->state == AUTH_ACTIVE ? GW_STR("active") : GW_STR("suspended"));
    put_member(out, "kind", s->service ? GW_STR("service") : GW_STR("person"));
    gw_json_put_key(out, "groups");
    gw_buf_add_char(out, '[');
    for (size_t i = 0; i < s->n_groups; i++) {
        gw_json_put_comma(out);
        gw_json_put_string(out, s->groups[i]);
    }
    gw_buf_add_char(out, ']');
    gw_json_put_key(out, "checked_ms");
    gw_buf_addf(out, "%lld", (long long)s->checked_ms);
    auth_record_seal(out, begin, PURPOSE, key);
}

static int read_groups(struct auth_subject *s, const struct gw_json *list, struct gw_arena *a,
                       struct gw_error *err)
{
    size_t n = gw_json_count(list);

    if (!gw_json_is_array(list) || n > AUTH_GROUPS_MAX) {
        return gw_fail(err, GW_CORRUPT, 0, "subject record without usable groups");
    }
    struct gw_str *groups = gw_arena_alloc(a, (n + 1) * sizeof(*groups));
    if (groups == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    for (size_t i = 0; i < n; i++) {
        const struct gw_json *v = gw_json_at(list, i);
        if (!gw_json_is_string(v)) {
            return gw_fail(err, GW_CORRUPT, 0, "subject record without usable groups");
        }
        groups[i] = gw_arena_dup(a, gw_json_string(v));
        if (groups[i].p == NULL) {
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
        }
    }
    s->groups = groups;
    s->n_groups = n;
    return GW_OK;
}

static int read_fields(struct auth_subject *s, const struct gw_json *doc, struct gw_arena *a,
                       struct gw_error *err)
{
    const struct {
        const char *key;
        struct gw_str *into;
    } texts[] = {
        {"id", &s->id},     {"realm", &s->realm},     {"source_id", &s->source_id}, {"dn", &s->dn},
        {"name", &s->name}, {"display", &s->display}, {"email", &s->email},
    };
    struct gw_str state = gw_json_string(gw_json_get(doc, "state")),
                  kind = gw_json_string(gw_json_get(doc, "kind"));

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int rc = auth_record_string(doc, texts[i].key, a, texts[i].into, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    s->state = gw_str_eq(state, GW_STR("active")) ? AUTH_ACTIVE : AUTH_SUSPENDED;
    s->service = gw_str_eq(kind, GW_STR("service"));
    if (!auth_is_subject_id(s->id) || !auth_is_realm(s->realm) || !auth_is_name(s->name) ||
        s->source_id.n == 0 ||
        (s->state != AUTH_ACTIVE && !gw_str_eq(state, GW_STR("suspended"))) ||
        (!s->service && !gw_str_eq(kind, GW_STR("person"))) ||
        !gw_json_int(gw_json_get(doc, "checked_ms"), &s->checked_ms) || s->checked_ms < 0) {
        return gw_fail(err, GW_CORRUPT, 0, "subject record with a missing or unusable field");
    }
    return read_groups(s, gw_json_get(doc, "groups"), a, err);
}

int auth_subject_parse(struct auth_subject *out, struct gw_str line, struct gw_str expected_id,
                       struct gw_str key, struct gw_arena *a, struct gw_error *err)
{
    struct gw_json *doc = NULL;
    struct auth_subject s = {.state = AUTH_SUSPENDED};

    int rc = auth_record_open(&doc, line, PURPOSE, key, err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = read_fields(&s, doc, a, err);
    if (rc == GW_OK && !gw_str_eq(s.id, expected_id)) {
        rc = gw_fail(err, GW_CORRUPT, 0, "the record is of another subject");
    }
    gw_json_free(doc);
    if (rc == GW_OK) {
        *out = s;
    }
    return rc;
}
