/* SPDX-License-Identifier: Apache-2.0 */
/* record.c - see record.h. A record is a version byte and fields, each a 32-bit length and its
 * bytes. */
#include "gateway/record.h"

#include <stdlib.h>

#include "base/sha.h"
#include "hub/hub.h"

#define RECORD_VERSION '1'

static void put_bytes(struct gw_buf *out, const void *p, size_t n)
{
    uint32_t length = (uint32_t)n;

    gw_buf_add(out, (struct gw_str){(const char *)&length, sizeof(length)});
    gw_buf_add(out, (struct gw_str){p, n});
}

static void put_str(struct gw_buf *out, struct gw_str s)
{
    put_bytes(out, s.p, s.n);
}

static bool get_str(struct gw_str *in, struct gw_str *out)
{
    uint32_t length;

    if (in->n < sizeof(length))
        return false;
    memcpy(&length, in->p, sizeof(length));
    if (length > in->n - sizeof(length))
        return false;
    *out = (struct gw_str){in->p + sizeof(length), length};
    *in = gw_str_sub(*in, sizeof(length) + length, in->n);
    return true;
}

static bool get_bytes(struct gw_str *in, void *out, size_t n)
{
    struct gw_str s;

    if (!get_str(in, &s) || s.n != n)
        return false;
    memcpy(out, s.p, n);
    return true;
}

static bool get_version(struct gw_str *in)
{
    if (in->n == 0 || in->p[0] != RECORD_VERSION)
        return false;
    *in = gw_str_sub(*in, 1, in->n);
    return true;
}

struct token_fixed {
    char id[AUTH_TOKEN_ID_LEN + 1];
    char kind;
    uint8_t secret_sha256[32];
    int32_t role;
    int64_t created_ms, expires_ms;
    int32_t revoked;
};

void record_token_encode(struct gw_buf *out, const struct auth_token *t)
{
    struct token_fixed f;

    memset(&f, 0, sizeof(f));
    memcpy(f.id, t->id, sizeof(f.id));
    memcpy(f.secret_sha256, t->secret_sha256, sizeof(f.secret_sha256));
    f.kind = t->kind;
    f.role = t->role;
    f.created_ms = t->created_ms;
    f.expires_ms = t->expires_ms;
    f.revoked = t->revoked;
    gw_buf_add_char(out, RECORD_VERSION);
    put_bytes(out, &f, sizeof(f));
    put_str(out, t->subject);
    put_str(out, t->name);
}

bool record_token_decode(struct auth_token *out, struct gw_str in)
{
    struct token_fixed f;

    memset(out, 0, sizeof(*out));
    if (!get_version(&in) || !get_bytes(&in, &f, sizeof(f)) || !get_str(&in, &out->subject) ||
        !get_str(&in, &out->name) || in.n != 0)
        return false;
    memcpy(out->id, f.id, sizeof(out->id));
    out->id[AUTH_TOKEN_ID_LEN] = '\0';
    memcpy(out->secret_sha256, f.secret_sha256, sizeof(out->secret_sha256));
    out->kind = f.kind;
    out->role = f.role == AUTH_ROLE_WRITE  ? AUTH_ROLE_WRITE
                : f.role == AUTH_ROLE_READ ? AUTH_ROLE_READ
                                           : AUTH_ROLE_NONE;
    out->created_ms = f.created_ms;
    out->expires_ms = f.expires_ms;
    out->revoked = f.revoked != 0;
    return true;
}

void record_subject_encode(struct gw_buf *out, const struct auth_subject *s)
{
    uint32_t n = (uint32_t)s->n_groups;
    uint8_t flags[2] = {s->state == AUTH_ACTIVE, s->service};

    gw_buf_add_char(out, RECORD_VERSION);
    put_bytes(out, flags, sizeof(flags));
    put_bytes(out, &s->checked_ms, sizeof(s->checked_ms));
    put_str(out, s->id);
    put_str(out, s->realm);
    put_str(out, s->source_id);
    put_str(out, s->dn);
    put_str(out, s->name);
    put_str(out, s->display);
    put_str(out, s->email);
    put_bytes(out, &n, sizeof(n));
    for (uint32_t i = 0; i < n; i++)
        put_str(out, s->groups[i]);
}

int record_subject_decode(struct auth_subject *out, struct gw_str in, struct gw_arena *a)
{
    struct gw_str *groups;
    uint8_t flags[2];
    uint32_t n;

    memset(out, 0, sizeof(*out));
    if (!get_version(&in) || !get_bytes(&in, flags, sizeof(flags)) ||
        !get_bytes(&in, &out->checked_ms, sizeof(out->checked_ms)) || !get_str(&in, &out->id) ||
        !get_str(&in, &out->realm) || !get_str(&in, &out->source_id) || !get_str(&in, &out->dn) ||
        !get_str(&in, &out->name) || !get_str(&in, &out->display) || !get_str(&in, &out->email) ||
        !get_bytes(&in, &n, sizeof(n)))
        return GW_CORRUPT;
    if (n > in.n / sizeof(uint32_t))
        return GW_CORRUPT;
    groups = gw_arena_alloc(a, n * sizeof(*groups) + 1);
    if (groups == NULL)
        return GW_NO_MEMORY;
    for (uint32_t i = 0; i < n; i++)
        if (!get_str(&in, &groups[i]))
            return GW_CORRUPT;
    if (in.n != 0)
        return GW_CORRUPT;
    out->groups = groups;
    out->n_groups = n;
    out->state = flags[0] ? AUTH_ACTIVE : AUTH_SUSPENDED;
    out->service = flags[1] != 0;
    return GW_OK;
}

void record_ref_encode(struct gw_buf *out, const struct record_ref *r)
{
    gw_buf_add_char(out, RECORD_VERSION);
    put_str(out, r->commit);
    put_str(out, r->ns);
    put_str(out, r->name);
}

bool record_ref_decode(struct record_ref *out, struct gw_str in)
{
    return get_version(&in) && get_str(&in, &out->commit) && get_str(&in, &out->ns) &&
           get_str(&in, &out->name) && in.n == 0 && hub_is_commit(out->commit) && out->name.n > 0;
}

static uint64_t path_hash(struct gw_str path)
{
    uint8_t digest[32];
    uint64_t hash;

    gw_sha256_once(path.p, path.n, digest);
    memcpy(&hash, digest, sizeof(hash));
    return hash;
}

static int by_hash(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(uint64_t));
}

void record_paths_add(struct record_paths *p, struct gw_str path)
{
    uint64_t hash = path_hash(path);

    gw_buf_add(&p->hashes, (struct gw_str){(const char *)&hash, sizeof(hash)});
}

void record_paths_encode(struct gw_buf *out, struct record_paths *p)
{
    if (p->hashes.n != 0)
        qsort(p->hashes.p, p->hashes.n / sizeof(uint64_t), sizeof(uint64_t), by_hash);
    gw_buf_add_char(out, RECORD_VERSION);
    gw_buf_add(out, gw_buf_str(&p->hashes));
    out->failed = out->failed || p->hashes.failed;
}

bool record_paths_absent(struct gw_str value, struct gw_str path)
{
    uint64_t hash = path_hash(path);

    if (!get_version(&value) || value.n % sizeof(hash) != 0)
        return false;
    return value.n == 0 ||
           bsearch(&hash, value.p, value.n / sizeof(hash), sizeof(hash), by_hash) == NULL;
}
