/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/auth_internal.h - what the files of this room share: grammars of names, and lines that carry
 * a MAC.
 */
#ifndef AUTH_INTERNAL_H
#define AUTH_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "auth/auth.h"
#include "base/json.h"

#define AUTH_PASSWORD_MAX 1024u /* bytes; auth-policy 2.2 */
#define AUTH_TYPED_NAME_MAX 128u
#define AUTH_RECORD_VERSION 1

/* ---- grammars (name.c) ---- */
bool auth_is_typed_name(
    struct gw_str s);                /* [A-Za-z0-9._@-]{1,128}: what may leave for a directory */
bool auth_is_name(struct gw_str s);  /* [a-z0-9][a-z0-9._-]{0,63}: a canonical user name */
bool auth_is_realm(struct gw_str s); /* [a-z0-9]{1,32} */
bool auth_is_subject_id(struct gw_str s); /* [a-z0-9][a-z0-9._-]{0,127}: safe as a file name */
bool auth_is_text(struct gw_str s,
                  size_t max); /* one line of UTF-8 for people: no control characters */
/* GW_OK or GW_INVALID: empty, over AUTH_PASSWORD_MAX, NUL or control bytes, no UTF-8, or a token.
 */
int auth_password_check(struct gw_str password, struct gw_error *err) GW_MUST_CHECK;

/* ---- records: {"v":1,...,"mac":"<64 hex>"}\n, the MAC over purpose, NUL and every byte before
 * ,"mac" (record.c) ---- */
/* Writes {"v":1 and gives the offset to hand to seal. Fields follow by gw_json_put_key. */
size_t auth_record_begin(struct gw_buf *out);
void auth_record_seal(struct gw_buf *out, size_t begin, const char *purpose, struct gw_str key);
/* @return GW_OK (*out is the caller's); GW_CORRUPT; GW_INVALID (a newer version); GW_NO_MEMORY */
int auth_record_open(struct gw_json **out, struct gw_str line, const char *purpose,
                     struct gw_str key, struct gw_error *err) GW_MUST_CHECK;
/* A string member without NUL, copied into the arena. GW_CORRUPT: absent, another type, NUL;
 * GW_NO_MEMORY. */
int auth_record_string(const struct gw_json *doc, const char *key, struct gw_arena *a,
                       struct gw_str *out, struct gw_error *err) GW_MUST_CHECK;

#endif
