/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/ldap_internal.h - what the LDAP files of this room share. libldap's own types stay in
 * ldap_link.c and ldap_text.c.
 *
 *   ldap_text.c    templates, filters, DNs, URLs: the quoters            pure
 *   ldap_entry.c   one entry -> one subject, account states              pure
 *   ldap_gate.c    the shapes of messages that libldap may see           pure
 *   ldap_link.c    one connection: our socket and TLS, libldap as codec
 *   ldap_groups.c  direct and nested groups over a link
 *   ldap.c         login, refresh, probe: which server, in which order
 *
 * Names start with dir_ because libldap exports everything that starts with ldap_.
 */
#ifndef AUTH_LDAP_INTERNAL_H
#define AUTH_LDAP_INTERNAL_H

#include "auth/auth_internal.h"

#define DIR_DN_MAX 1024u            /* bytes of one DN */
#define DIR_FILTER_MAX (1u << 20)   /* bytes of one filter: 50 escaped DNs */
#define DIR_SCRATCH_MAX (16u << 20) /* bytes of all that one server's answers leave in memory */

/* ---- ldap_text.c ---- */

/* What stands for ${user} and ${dn}. p == NULL: there is no such value, using it is an error. */
struct dir_vars {
    struct gw_str user, dn;
    bool any_user; /* ${user} becomes *: "has a name at all", for reading a person again by id */
};

/* The template was checked before. Appends. @return GW_OK; GW_INVALID (a variable without a value);
 * GW_NO_MEMORY */
int dir_filter_expand(struct gw_buf *out, struct gw_str template, const struct dir_vars *vars,
                      struct gw_error *err) GW_MUST_CHECK;
int dir_dn_expand(struct gw_buf *out, struct gw_str template, struct gw_str user,
                  struct gw_error *err) GW_MUST_CHECK;
void dir_put_assertion(struct gw_buf *out, struct gw_str value);         /* escaped by libldap */
void dir_put_octets(struct gw_buf *out, const uint8_t *bytes, size_t n); /* every byte as \XX */
bool dir_uses(struct gw_str template, const char *variable);             /* "user", "dn" */
bool dir_is_dn(
    struct gw_str s); /* usable as one: 1 to DIR_DN_MAX bytes of UTF-8 without control characters */

/* ---- entries ---- */

struct dir_attr {
    struct gw_str name; /* as the server spelled it, with options */
    const struct gw_str *values;
    size_t n;
};

struct dir_entry {
    struct gw_str dn;
    const struct dir_attr *attrs;
    size_t n_attrs;
};

/* ASCII case folded, without options. NULL: not there. */
const struct dir_attr *dir_entry_attr(const struct dir_entry *e, struct gw_str name);
/* "name;range=LOW-HIGH": a part of a long list, as Active Directory answers. *next is where to go
 * on; 0: that was the last. */
const struct dir_attr *dir_entry_range(const struct dir_entry *e, struct gw_str name, size_t *next);

/* The attributes that ldap_entry.c reads besides the configured ones; ends in NULL. */
extern const char *const dir_state_attrs[];

/**
 * Everything but the groups. Strings live in the arena.
 * @param raw_name the entry's own spelling, for memberUid
 * @return GW_OK (state may be AUTH_SUSPENDED); GW_INVALID (the name does not fit the grammar);
 * GW_UNAVAILABLE (no readable id); GW_NO_MEMORY
 */
int dir_entry_subject(const struct dir_entry *e, const struct auth_ldap *d, int64_t now_ms,
                      struct gw_arena *a, struct auth_subject *out, struct gw_str *raw_name,
                      struct gw_error *err) GW_MUST_CHECK;
/* The filter part that finds this id again: (entryUUID=...). */
int dir_id_filter(struct gw_buf *out, const struct auth_ldap *d, struct gw_str source_id,
                  struct gw_error *err) GW_MUST_CHECK;

/* ---- ldap_gate.c ---- */

enum {
    DIR_OP_BIND = 0x61,
    DIR_OP_ENTRY = 0x64,
    DIR_OP_DONE = 0x65,
    DIR_OP_REFERENCE = 0x73,
    DIR_OP_EXTENDED = 0x78
};

struct dir_message {
    int id;
    uint8_t op;        /* one of DIR_OP_ */
    int code;          /* result code; 0 for entries and references */
    struct gw_str oid; /* responseName, borrowed from the message; empty if there is none */
};

/* How many bytes the message needs, as far as its first n bytes tell; n itself: it is whole. wrong:
 * it is no message. */
size_t dir_gate_need(const uint8_t *p, size_t n, bool *wrong);
/* false: not a message that a directory may send us. */
bool dir_gate_open(struct gw_str pdu, struct dir_message *out);

/* ---- ldap_link.c ---- */

struct dir_link;

/* Refuses plain ldap:// that is not loopback before anything is dialled. @return GW_OK;
 * GW_UNAVAILABLE; GW_TIMEOUT; GW_NO_MEMORY */
int dir_link_open(struct dir_link **out, const struct auth_ldap *d,
                  const struct auth_ldap_server *s, struct gw_str address, int64_t deadline_ms,
                  struct gw_error *err) GW_MUST_CHECK;
void dir_link_deadline(struct dir_link *l, int64_t deadline_ms);
void dir_link_close(struct dir_link *l); /* NULL is fine */

/* @param code the server's result code, 0 only for a bind that holds
 * @return GW_OK: there is a code; anything else: nothing is known, and the link is dead */
int dir_link_bind(struct dir_link *l, struct gw_str dn, struct gw_str password, int *code,
                  struct gw_error *err) GW_MUST_CHECK;

enum dir_scope { DIR_BASE, DIR_SUBTREE };

struct dir_query {
    struct gw_str base;
    enum dir_scope scope;
    struct gw_str filter;
    const char *const *attrs; /* ends in NULL; an empty list asks for none */
    size_t max_entries;       /* asked of the server when not paged, and enforced here */
    bool paged;
};

struct dir_answer {
    struct dir_entry *entries;
    size_t n;
    size_t references; /* parts of the answer that other servers hold; never followed */
    bool more;         /* the server had more than max_entries */
    int code;          /* LDAP result code */
};

/* @return GW_OK: the answer is whole as far as answer.code says; else as dir_link_bind. Entries
 * live in the arena. */
int dir_link_search(struct dir_link *l, const struct dir_query *q, struct gw_arena *a,
                    struct dir_answer *out, struct gw_error *err) GW_MUST_CHECK;
const char *dir_code_text(int code);

#define DIR_SUCCESS 0
#define DIR_SIZE_LIMIT 4
#define DIR_NO_SUCH_OBJECT 32

/* ---- ldap_groups.c ---- */

/* All groups of the person, direct and nested, as DNs in the arena: whole or an error, never a
 * shorter list.
 * @return GW_OK; GW_UNAVAILABLE; GW_TIMEOUT; GW_TOO_LARGE (AUTH_GROUPS_MAX, depth); GW_NO_MEMORY */
int dir_groups(struct dir_link *l, const struct auth_ldap *d, const struct dir_entry *person,
               struct gw_str raw_name, struct gw_arena *scratch, struct gw_arena *a,
               struct auth_subject *out, struct gw_error *err) GW_MUST_CHECK;

#endif
