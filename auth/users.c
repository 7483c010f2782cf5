/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/users.c - the account file: the embedded default where there is no directory.
 *
 * Sorted by name, read-only after the parse. A login does the same scrypt whether the name is known
 * or not.
 */
#include "auth/auth_internal.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/sha.h"
#include "base/yaml.h"

#define FILE_MAX_BYTES (1u << 20)
#define ARENA_MAX_BYTES (64u << 20)
#define LOG2_N 15u /* of new hashes, and of the work done for an unknown name */
#define LOG2_N_MIN 14u
#define LOG2_N_MAX 17u /* 128 MiB for one login */
#define TEXT_MAX 128u

struct secret {
    unsigned log2_n;
    uint8_t salt[16], hash[32];
};

struct entry {
    struct gw_str name, display, email;
    const struct gw_str *groups;
    size_t n_groups;
    bool disabled;
    struct secret secret;
};

struct auth_users {
    struct gw_arena arena;
    struct entry *entries;
    size_t n;
};

/* ---- parse ---- */

static bool parse_secret(struct gw_str text, struct secret *out)
{
    struct gw_str part[4], rest = text;
    uint8_t bytes[33];
    uint64_t log2_n;
    size_t n;

    for (size_t i = 0; i < 4; i++) {
        if (!gw_str_split(&rest, ':', &part[i])) {
            return false;
        }
    }
    if (rest.p != NULL || !gw_str_eq(part[0], GW_STR("scrypt"))) {
        return false;
    }
    if (!gw_str_u64(part[1], &log2_n) || log2_n < LOG2_N_MIN || log2_n > LOG2_N_MAX) {
        return false;
    }
    out->log2_n = (unsigned)log2_n;
    if (!gw_base64_decode(part[2], bytes, sizeof(bytes), &n) || n != sizeof(out->salt)) {
        return false;
    }
    memcpy(out->salt, bytes, sizeof(out->salt));
    if (!gw_base64_decode(part[3], bytes, sizeof(bytes), &n) || n != sizeof(out->hash)) {
        return false;
    }
    memcpy(out->hash, bytes, sizeof(out->hash));
    gw_wipe(bytes, sizeof(bytes));
    return true;
}

static bool is_group(struct gw_str s)
{
    return s.n > 0 && auth_is_text(s, TEXT_MAX);
}

static int parse_groups(struct entry *e, struct gw_str file, const struct gw_yaml *list,
                        struct gw_arena *a, struct gw_error *err)
{
    if (list->kind != GW_YAML_LIST || list->count > AUTH_GROUPS_MAX) {
        return gw_yaml_fail(err, file, list, false, "groups is a list of at most %u names",
                            AUTH_GROUPS_MAX);
    }
    struct gw_str *groups = gw_arena_alloc(a, (list->count + 1) * sizeof(*groups));
    if (groups == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    for (const struct gw_yaml *v = list->child; v != NULL; v = v->next) {
        if (v->kind != GW_YAML_SCALAR || !is_group(v->value)) {
            return gw_yaml_fail(err, file, v, false, "a group is one line of 1 to %u bytes",
                                TEXT_MAX);
        }
        groups[e->n_groups++] = v->value;
    }
    e->groups = groups;
    return GW_OK;
}

static int parse_text(struct gw_str *out, struct gw_str file, const struct gw_yaml *v,
                      struct gw_error *err)
{
    if (v->kind != GW_YAML_SCALAR || !auth_is_text(v->value, TEXT_MAX)) {
        return gw_yaml_fail(err, file, v, false, GW_STR_FMT " is one line of at most %u bytes",
                            GW_STR_ARG(v->key), TEXT_MAX);
    }
    *out = v->value;
    return GW_OK;
}

static int parse_field(struct entry *e, struct gw_str file, const struct gw_yaml *v,
                       struct gw_arena *a, struct gw_error *err)
{
    static const char *const words[] = {"password", "groups", "display", "email", "disabled"};
    const char *near;

    if (gw_str_eq_c(v->key, "password")) {
        /* the value is never repeated in a message */
        if (v->kind != GW_YAML_SCALAR || !parse_secret(v->value, &e->secret)) {
            return gw_yaml_fail(err, file, v, false,
                                "password is scrypt:15:SALT:HASH, as `hubgate user add` writes it");
        }
        return GW_OK;
    }
    if (gw_str_eq_c(v->key, "groups")) {
        return parse_groups(e, file, v, a, err);
    }
    if (gw_str_eq_c(v->key, "display")) {
        return parse_text(&e->display, file, v, err);
    }
    if (gw_str_eq_c(v->key, "email")) {
        return parse_text(&e->email, file, v, err);
    }
    if (gw_str_eq_c(v->key, "disabled")) {
        e->disabled = !gw_str_eq_c(v->value, "false");
        if (v->kind != GW_YAML_SCALAR || (e->disabled && !gw_str_eq_c(v->value, "true"))) {
            return gw_yaml_fail(err, file, v, false, "disabled is true or false");
        }
        return GW_OK;
    }
    near = gw_nearest(v->key, words, sizeof(words) / sizeof(words[0]));
    return gw_yaml_fail(err, file, v, true, "unknown key%s%s%s",
                        near != NULL ? ": did you mean " : "", near != NULL ? near : "",
                        near != NULL ? "?" : "");
}

static int parse_entry(struct entry *e, struct gw_str file, const struct gw_yaml *node,
                       struct gw_arena *a, struct gw_error *err)
{
    e->name = node->key;
    e->display = e->email = GW_STR("");
    if (!auth_is_name(node->key)) {
        return gw_yaml_fail(err, file, node, true,
                            "a user name is a-z 0-9 . _ - in lower case, at most 64, starting with "
                            "a letter or digit");
    }
    if (node->kind != GW_YAML_MAP) {
        return gw_yaml_fail(err, file, node, false,
                            "a user is a map with password, groups, display, email, disabled");
    }
    for (const struct gw_yaml *v = node->child; v != NULL; v = v->next) {
        int rc = parse_field(e, file, v, a, err);
        if (rc != GW_OK) {
            return rc;
        }
    }
    if (e->secret.log2_n == 0) {
        return gw_yaml_fail(err, file, node, true, "user without a password");
    }
    return GW_OK;
}

static int by_name(const void *a, const void *b)
{
    return gw_str_cmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int parse_list(struct auth_users *u, struct gw_str file, const struct gw_yaml *list,
                      struct gw_error *err)
{
    if (list->kind == GW_YAML_SCALAR && list->value.n == 0 && !list->quoted) {
        return GW_OK; /* "users:" with nothing below */
    }
    if (list->kind != GW_YAML_MAP) {
        return gw_yaml_fail(err, file, list, false, "users is a map of user names");
    }
    u->entries = gw_arena_alloc(&u->arena, (list->count + 1) * sizeof(*u->entries));
    if (u->entries == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    for (const struct gw_yaml *node = list->child; node != NULL; node = node->next) {
        int rc = parse_entry(&u->entries[u->n], file, node, &u->arena, err);
        if (rc != GW_OK) {
            return rc;
        }
        u->n++;
    }
    qsort(u->entries, u->n, sizeof(*u->entries),
          by_name); /* duplicate keys are refused by base/yaml */
    return GW_OK;
}

int auth_users_parse(struct auth_users **out, struct gw_str name, struct gw_str yaml,
                     struct gw_error *err)
{
    struct gw_yaml *root;

    if (yaml.n > FILE_MAX_BYTES) {
        return gw_fail(err, GW_TOO_LARGE, 0, GW_STR_FMT ": larger than 1 MiB", GW_STR_ARG(name));
    }
    struct auth_users *u = gw_alloc(sizeof(*u));
    if (u == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    gw_arena_init(&u->arena, ARENA_MAX_BYTES);
    gw_arena_keep_secret(&u->arena);
    int rc = gw_yaml_parse(&root, name, yaml, &u->arena, err);
    if (rc == GW_OK && root->kind != GW_YAML_MAP) {
        rc = gw_yaml_fail(err, name, root, false, "the file is a map with the key users");
    }
    for (const struct gw_yaml *v = rc == GW_OK ? root->child : NULL; v != NULL && rc == GW_OK;
         v = v->next) {
        if (gw_str_eq_c(v->key, "users")) {
            rc = parse_list(u, name, v, err);
        } else {
            rc = gw_yaml_fail(err, name, v, true, "unknown key: the only one here is users");
        }
    }
    if (rc != GW_OK) {
        auth_users_free(u);
        return rc;
    }
    *out = u;
    return GW_OK;
}

void auth_users_free(struct auth_users *u)
{
    if (u == NULL) {
        return;
    }
    gw_arena_release(&u->arena);
    gw_free(u);
}

size_t auth_users_count(const struct auth_users *u)
{
    return u != NULL ? u->n : 0;
}

/* ---- look-up and login ---- */

/* folded: the name in lower case, in the caller's buffer; empty when it cannot be a user's */
static struct gw_str fold(struct gw_str user, char buf[64])
{
    if (user.n > 64) {
        return GW_STR("");
    }
    for (size_t i = 0; i < user.n; i++) {
        char c = user.p[i];
        buf[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    struct gw_str folded = {buf, user.n};
    return auth_is_name(folded) ? folded : GW_STR("");
}

static const struct entry *find(const struct auth_users *u, struct gw_str folded)
{
    struct entry key = {.name = folded};

    if (u == NULL || u->n == 0 || folded.n == 0) {
        return NULL;
    }
    return bsearch(&key, u->entries, u->n, sizeof(*u->entries), by_name);
}

static int to_subject(const struct entry *e, struct gw_arena *a, struct auth_subject *out,
                      struct gw_error *err)
{
    struct gw_str id = auth_subject_id(GW_STR("file"), e->name, a);

    if (id.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    *out = (struct auth_subject){
        .id = id,
        .realm = GW_STR("file"),
        .source_id = e->name,
        .dn = GW_STR(""),
        .name = e->name,
        .display = e->display,
        .email = e->email,
        .groups = e->groups,
        .n_groups = e->n_groups,
        .checked_ms = gw_wall_ms(),
        .state = e->disabled ? AUTH_SUSPENDED : AUTH_ACTIVE,
    };
    return GW_OK;
}

int auth_users_login(const struct auth_users *u, struct gw_str user, struct gw_str password,
                     struct gw_arena *a, struct auth_subject *out, struct gw_error *err)
{
    static const struct secret nobody = {.log2_n = LOG2_N};
    char buf[64];
    uint8_t hash[32];

    const struct entry *e = find(u, fold(user, buf));
    const struct secret *s = e != NULL ? &e->secret : &nobody;
    if (!gw_scrypt(password, s->salt, s->log2_n, hash)) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for scrypt");
    }
    /* HMAC pads its key with NULs, so "pw" and "pw\0" have one hash: the grammar tells them apart
     */
    bool right = gw_equal_secret(hash, s->hash, sizeof(hash));
    right = auth_password_check(password, NULL) == GW_OK && right;
    gw_wipe(hash, sizeof(hash));
    if (!right || e == NULL || e->disabled) {
        return gw_fail(err, GW_UNAUTHENTICATED, 0, "wrong user name or password");
    }
    return to_subject(e, a, out, err);
}

int auth_users_find(const struct auth_users *u, struct gw_str user, struct gw_arena *a,
                    struct auth_subject *out, struct gw_error *err)
{
    char buf[64];
    const struct entry *e = find(u, fold(user, buf));

    if (e == NULL) {
        return gw_fail(err, GW_NOT_FOUND, 0, "no such user in the account file");
    }
    return to_subject(e, a, out, err);
}

/* ---- edit ---- */

/* Double-quoted YAML. What auth_is_text lets through needs no escape but for these two. */
static void put_quoted(struct gw_buf *out, struct gw_str s)
{
    gw_buf_add_char(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\') {
            gw_buf_add_char(out, '\\');
        }
        gw_buf_add_char(out, s.p[i]);
    }
    gw_buf_add_char(out, '"');
}

static void put_text(struct gw_buf *out, const char *key, struct gw_str value)
{
    if (value.n > 0) {
        gw_buf_addf(out, "    %s: ", key);
        put_quoted(out, value);
        gw_buf_add_char(out, '\n');
    }
}

static void put_entry(struct gw_buf *out, const struct entry *e)
{
    gw_buf_addf(out, "  " GW_STR_FMT ":\n    password: \"scrypt:%u:", GW_STR_ARG(e->name),
                e->secret.log2_n);
    gw_base64_encode(out, (struct gw_str){(const char *)e->secret.salt, sizeof(e->secret.salt)});
    gw_buf_add_char(out, ':');
    gw_base64_encode(out, (struct gw_str){(const char *)e->secret.hash, sizeof(e->secret.hash)});
    gw_buf_add_c(out, "\"\n    groups: [");
    for (size_t i = 0; i < e->n_groups; i++) {
        gw_buf_add_c(out, i > 0 ? ", " : "");
        put_quoted(out, e->groups[i]);
    }
    gw_buf_add_c(out, "]\n");
    put_text(out, "display", e->display);
    put_text(out, "email", e->email);
    if (e->disabled) {
        gw_buf_add_c(out, "    disabled: true\n");
    }
}

static int new_secret(struct secret *s, struct gw_str password, struct gw_error *err)
{
    int rc = auth_password_check(password, err);

    if (rc != GW_OK) {
        return rc;
    }
    s->log2_n = LOG2_N;
    if (!gw_random(s->salt, sizeof(s->salt))) {
        return gw_fail(err, GW_IO, 0, "the system gives no randomness");
    }
    if (!gw_scrypt(password, s->salt, s->log2_n, s->hash)) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for scrypt");
    }
    return GW_OK;
}

int auth_users_edit(struct gw_buf *out, const struct auth_users *old, struct gw_str user,
                    struct gw_str password, const struct gw_str *groups, size_t n_groups,
                    struct gw_error *err)
{
    char buf[64];
    struct gw_str name = fold(user, buf);
    struct entry e = {.name = name};

    if (name.n == 0) {
        return gw_fail(err, GW_INVALID, 0,
                       "a user name is a-z 0-9 . _ -, at most 64, starting with a letter or digit");
    }
    if (n_groups > AUTH_GROUPS_MAX) {
        return gw_fail(err, GW_INVALID, 0, "more than %u groups", AUTH_GROUPS_MAX);
    }
    for (size_t i = 0; i < n_groups; i++) {
        if (!is_group(groups[i])) {
            return gw_fail(err, GW_INVALID, 0, "a group is one line of 1 to %u bytes", TEXT_MAX);
        }
    }
    const struct entry *was = find(old, name);
    if (was != NULL) {
        e = *was; /* display, email and disabled stay: a new password does not enable an account */
    } else if (password.n == 0) {
        return gw_fail(err, GW_NOT_FOUND, 0,
                       "no such user in the account file: a new one needs a password");
    }
    e.groups = groups;
    e.n_groups = n_groups;
    if (password.n > 0) {
        int rc = new_secret(&e.secret, password, err);
        if (rc != GW_OK) {
            return rc;
        }
    }

    bool written = false;
    gw_buf_add_c(out, "# hubgate accounts. `hubgate user add` rewrites this file and keeps no "
                      "comments.\nusers:\n");
    for (size_t i = 0; i < auth_users_count(old); i++) {
        const struct entry *at = &old->entries[i];
        if (!written && gw_str_cmp(at->name, name) >= 0) {
            put_entry(out, &e);
            written = true;
        }
        if (at != was) {
            put_entry(out, at);
        }
    }
    if (!written) {
        put_entry(out, &e);
    }
    return gw_buf_ok(out, err);
}
