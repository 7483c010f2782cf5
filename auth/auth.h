/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/auth.h - who is it: credentials, token records, account-file and directory entries ->
 * subject.
 *
 * Opens no store: records are handed in and out as text. Directory calls (auth_ldap_*) block until
 * one absolute deadline and belong to jobs; everything else is pure and runs on any thread.
 */
#ifndef AUTH_AUTH_H
#define AUTH_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "base/str.h"

/* ---- the Authorization header ---- */
enum auth_scheme { AUTH_NONE = 0, AUTH_TOKEN, AUTH_PASSWORD };

struct auth_credential {
    enum auth_scheme scheme;
    struct gw_str
        user; /* AUTH_PASSWORD: as typed; AUTH_TOKEN by Basic: the user part (logged only) */
    struct gw_str secret; /* the token, or the password. In the arena: make it a secret one */
};

/**
 * Bearer TOKEN; Basic user:token and token:(empty|x-oauth-basic) (git, auth-policy 4.4); Basic
 * user:password. A secret that starts with hf_ is a token and never a password: it never reaches a
 * directory.
 * @param header empty: AUTH_NONE
 * @return GW_OK; GW_INVALID (unknown scheme, bad base64, control bytes, NUL, invalid UTF-8, over 4
 * KiB, empty password, password over 1,024 bytes, user name not [A-Za-z0-9._@\-]{1,128})
 */
int auth_credential_parse(struct auth_credential *out, struct gw_str header,
                          struct gw_arena *secret, struct gw_error *err) GW_MUST_CHECK;

/* ---- tokens: hf_gw + kind + id(10) + secret(32) + crc(6), auth-policy 4.1; 54 characters ---- */
#define AUTH_TOKEN_LEN 54u
#define AUTH_TOKEN_ID_LEN 10u
enum auth_role { AUTH_ROLE_NONE = 0, AUTH_ROLE_READ, AUTH_ROLE_WRITE };

struct auth_token { /* a token record: what data/tokens/<id>.json holds. Strings in the arena given
                       to parse */
    char id[AUTH_TOKEN_ID_LEN + 1];
    char kind; /* 'p' personal, 's' service */
    uint8_t secret_sha256[32];
    struct gw_str subject; /* subject id, see struct auth_subject */
    struct gw_str name;    /* label the owner gave, <= 96 bytes */
    enum auth_role role;
    int64_t created_ms, expires_ms; /* wall */
    bool revoked;
};

/* Makes a token. text gets the clear token: shown once, never stored. record strings are borrowed
 * from the arguments.
 * @return GW_OK; GW_INVALID (kind, role, name, expiry in the past or over 366 days); GW_IO (no
 * randomness) */
int auth_token_mint(char text[AUTH_TOKEN_LEN + 1], struct auth_token *record, char kind,
                    struct gw_str subject, struct gw_str name, enum auth_role role, int64_t now_ms,
                    int64_t expires_ms, struct gw_error *err) GW_MUST_CHECK;

/* Shape and CRC of a token from outside: false costs no look-up. On true id is filled. */
bool auth_token_id(struct gw_str text, char id[AUTH_TOKEN_ID_LEN + 1]);

/* Is text the live token of this record? record NULL does the same work against a dummy (no timing
 * oracle).
 * @return GW_OK; GW_UNAUTHENTICATED (wrong secret, revoked, expired, unknown); err says which, for
 * the log only */
int auth_token_check(struct gw_str text, const struct auth_token *record, int64_t now_ms,
                     struct gw_error *err) GW_MUST_CHECK;

/* One JSON line (and its newline) with v, fields and a MAC under key (32 bytes). parse checks v,
 * MAC, every field and that id equals expected_id.
 * @return GW_OK; GW_CORRUPT (syntax, MAC, other id); GW_INVALID (a newer version: says so) */
void auth_token_format(struct gw_buf *out, const struct auth_token *t, struct gw_str key);
int auth_token_parse(struct auth_token *out, struct gw_str line, struct gw_str expected_id,
                     struct gw_str key, struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;

/* ---- subjects: what data/subjects/<id>.json holds ---- */
#define AUTH_GROUPS_MAX                                                                            \
    1024u /* groups of one subject (policy takes no more); over it GW_TOO_LARGE, never a shorter   \
             list */
enum auth_subject_state { AUTH_SUSPENDED = 0, AUTH_ACTIVE = 1 }; /* zero refuses */

struct auth_subject {
    struct gw_str id; /* "<realm>-<32 hex of sha256(directory id)>" or "service-<name>"; file-name
                         safe, <= 128 bytes */
    struct gw_str realm; /* "file", "service", or the directory's name */
    struct gw_str
        source_id;      /* the directory's immutable id (entryUUID hex/text), account-file name */
    struct gw_str dn;   /* LDAP only; where the entry was last */
    struct gw_str name; /* canonical user name: [a-z0-9][a-z0-9._-]{0,63} */
    struct gw_str display, email;
    enum auth_subject_state state;
    bool service;
    const struct gw_str *groups; /* directory values: DNs, or account-file group names */
    size_t n_groups;
    int64_t checked_ms; /* wall: when the directory last said so */
};

/* parse: GW_CORRUPT, GW_INVALID, GW_NO_MEMORY as auth_token_parse. */
void auth_subject_format(struct gw_buf *out, const struct auth_subject *s, struct gw_str key);
int auth_subject_parse(struct auth_subject *out, struct gw_str line, struct gw_str expected_id,
                       struct gw_str key, struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;
/* id from realm and the directory's immutable id; realm "service": "service-<source_id>". p ==
 * NULL: no memory. */
struct gw_str auth_subject_id(struct gw_str realm, struct gw_str source_id, struct gw_arena *a);

/* ---- account file (users.yaml): users: {NAME: {password: "scrypt:15:<salt b64>:<hash b64>",
 * groups: [..], display, email, disabled}} ---- */
struct auth_users; /* parsed file, opaque */
/* @return GW_OK (auth_users_free it); GW_INVALID with FILE:LINE:COLUMN; GW_TOO_LARGE (over 1 MiB);
 * GW_NO_MEMORY */
int auth_users_parse(struct auth_users **out, struct gw_str name, struct gw_str yaml,
                     struct gw_error *err) GW_MUST_CHECK;
void auth_users_free(struct auth_users *u);
size_t auth_users_count(const struct auth_users *u);
/* Name folded to lower case. Blocking about 60 ms (scrypt; also for an unknown user). out borrows
 * from u and a.
 * @return GW_OK; GW_UNAUTHENTICATED (wrong, unknown, disabled: same text) */
int auth_users_login(const struct auth_users *u, struct gw_str user, struct gw_str password,
                     struct gw_arena *a, struct auth_subject *out,
                     struct gw_error *err) GW_MUST_CHECK;
/* The entry as it is now, without a password (disabled: state AUTH_SUSPENDED). GW_NOT_FOUND: gone.
 */
int auth_users_find(const struct auth_users *u, struct gw_str user, struct gw_arena *a,
                    struct auth_subject *out, struct gw_error *err) GW_MUST_CHECK;
/* The file's text with this user added or replaced. password empty: keep the old hash (GW_NOT_FOUND
 * if there is none). */
int auth_users_edit(struct gw_buf *out, const struct auth_users *old /* NULL: new file */,
                    struct gw_str user, struct gw_str password, const struct gw_str *groups,
                    size_t n_groups, struct gw_error *err) GW_MUST_CHECK;

/* ---- LDAP ---- */
enum auth_group_mode { AUTH_GROUPS_MEMBEROF, AUTH_GROUPS_SEARCH };

struct auth_ldap_server {
    struct gw_str url;  /* ldap://host[:port] or ldaps://host[:port] */
    struct gw_str host; /* an IPv6 address without its brackets */
    uint16_t port;
    bool ldaps;
    bool loopback; /* the host is a loopback literal: plain ldap:// is allowed for binds */
};

/* One directory, from the configuration; read-only, shared by all jobs. */
struct auth_ldap {
    struct gw_str name; /* realm: [a-z0-9]{1,32}, not "file" or "service" */
    const struct auth_ldap_server *servers;
    size_t n_servers;
    bool start_tls;                       /* for the ldap:// ones of the servers */
    const char *ca_file;                  /* NULL: system store */
    struct gw_str bind_dn, bind_password; /* empty: anonymous search */
    /* The filter holds ${user} as or in the value of a plain =, see auth_ldap_template_check. */
    struct gw_str user_base, user_filter;
    /* Instead of search: "uid=${user},ou=people,dc=x"; empty: search + bind. The entry is then read
     * by the service account, or by the person where there is none; user_filter, if given, must
     * match it. */
    struct gw_str direct_bind;
    struct gw_str name_attr, id_attr, display_attr, mail_attr; /* the last two may be empty */
    enum auth_group_mode group_mode;
    /* Search mode: (member=${dn}) or (memberUid=${user}), where ${user} is the entry's own spelling
     * of its name. nested needs group_base in both modes; without ${dn} in group_filter it looks
     * for member and uniqueMember. */
    struct gw_str group_base, group_filter;
    bool
        nested; /* follow groups of groups, breadth first, depth <= 10, <= AUTH_GROUPS_MAX groups */
    int64_t timeout_ms; /* whole call, all servers; 0: only the call's deadline counts */
};

/* Once in the process that forks or starts threads, before any of them: libldap's first call, and
 * no ldap.conf (sets LDAPNOINIT in the environment). It asks the resolver for this machine's name
 * and must not do so in a job. */
void auth_ldap_start(void);

/* Numeric address for a host name, from the resolver thread's last answer; empty: unknown (then
 * that server is skipped). Not asked for literals. A NULL function: the host is resolved in the
 * call (command line only). */
typedef struct gw_str (*auth_address_of)(void *ctx, struct gw_str host);

int auth_ldap_url_parse(struct gw_str url, struct gw_arena *a, struct auth_ldap_server *out,
                        struct gw_error *err) GW_MUST_CHECK;
/* The filter (RFC 4515, no blanks between its parts) or DN template parses, at least one variable
 * is in it, and ${user}/${dn} stand only inside assertion values (RDN values for a DN, which knows
 * ${user} alone). GW_INVALID says where and why. */
int auth_ldap_template_check(struct gw_str text, bool is_dn, struct gw_error *err) GW_MUST_CHECK;

/**
 * Verify a password and read the person: groups, state, canonical name. Blocking; ends at
 * deadline_ms. 49 is final; a connect failure or silence moves to the next server, each has its
 * share of the time; a user bind is never sent twice.
 * @return GW_OK; GW_UNAUTHENTICATED (wrong password, none or several entries, suspended: one text;
 * see AUTH_NO_SUCH_USER); GW_UNAVAILABLE or GW_TIMEOUT (directory down, TLS refused: nothing of
 * LDAP was sent; a wrong configuration; an answer that is not whole); GW_INVALID (the entry's name
 * does not fit the grammar); GW_TOO_LARGE (AUTH_GROUPS_MAX, depth); GW_NO_MEMORY
 */
int auth_ldap_login(const struct auth_ldap *d, struct gw_str user, struct gw_str password,
                    auth_address_of address, void *ctx, int64_t deadline_ms, struct gw_arena *a,
                    struct auth_subject *out, struct gw_error *err) GW_MUST_CHECK;

/* err->sys of auth_ldap_login's GW_UNAUTHENTICATED when a clean search found nobody: the corridor
 * may ask the next directory. The person never sees the difference. A direct bind cannot tell. */
#define AUTH_NO_SUCH_USER 32

/**
 * Read a known person again (by id under user_base), without a password. The person must still
 * match user_filter, with any name.
 * @return GW_OK (state may be AUTH_SUSPENDED); GW_NOT_FOUND (a clean search found nobody);
 * GW_UNAVAILABLE (also: direct bind without a service account, which cannot prove that somebody is
 * gone); GW_TIMEOUT; GW_INVALID, GW_TOO_LARGE, GW_NO_MEMORY as auth_ldap_login
 */
int auth_ldap_refresh(const struct auth_ldap *d, const struct auth_subject *old,
                      auth_address_of address, void *ctx, int64_t deadline_ms, struct gw_arena *a,
                      struct auth_subject *out, struct gw_error *err) GW_MUST_CHECK;

/* For `hubgate check`: connects, TLS, service bind, bases readable. One line for people per server
 * into report, without a final newline; the status and err are of the first server that failed. */
int auth_ldap_probe(const struct auth_ldap *d, auth_address_of address, void *ctx,
                    int64_t deadline_ms, struct gw_buf *report, struct gw_error *err) GW_MUST_CHECK;

#endif
