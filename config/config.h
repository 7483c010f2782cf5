/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config/config.h - hubgate.yaml as one immutable struct.
 *
 * One table (options.c) names every key with its type, default, range and help; it parses, checks
 * and writes docs/config.md. Unknown keys are errors with a hint. Secrets are names of files here,
 * never values; paths are made absolute against the folder of the configuration file. No clock, no
 * network.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

#define CONFIG_MAX_BYTES (1u << 20)

struct config_list {
    struct gw_str *items;
    size_t n;
};

struct config_ldap {
    struct gw_str name;
    struct config_list urls;
    bool start_tls;
    const char *ca_file; /* NULL: the system's store */
    struct gw_str bind_dn;
    const char *bind_password_file; /* NULL: none */
    struct gw_str user_base, user_filter, direct_bind;
    struct gw_str name_attr, id_attr, display_attr, mail_attr;
    struct gw_str groups; /* "memberof" or "search" */
    struct gw_str group_base, group_filter;
    bool nested;
    int64_t timeout_ms;
    unsigned line, column; /* of the entry, for messages of those who check deeper */
};

struct config {
    struct gw_str file; /* absolute */
    struct config_list public_urls;
    const char *data;
    struct {
        const char *dir;
        bool verify_before;
        uint64_t max_bytes, min_free_bytes; /* max_bytes 0: no budget */
        int64_t scrub_ms;                   /* 0: off */
    } cache;
    struct {
        struct gw_str url;
        const char *token_file, *ca_file;
        struct gw_str proxy;
        struct config_list redirect_hosts, resolve;
        struct gw_str dns;
        int64_t ttl_ms, stale_max_ms, connect_timeout_ms, stall_timeout_ms;
        uint64_t transfers, max_transfers; /* of one blob; of one worker */
    } upstream;
    struct {
        struct config_list servers; /* redis://host[:port], rediss://host[:port] */
        const char *ca_file, *password_file;
        struct gw_str user;
        int64_t timeout_ms;
        unsigned line, column; /* of servers, for messages of those who check deeper */
    } redis;
    const char *cluster_key_file; /* NULL: none */
    struct gw_str node_url;
    const char *node_ca_file;
    struct config_ldap *ldap;
    size_t n_ldap;
    const char *users_file; /* NULL: none */
    const char *policy_dir;
    const char *audit_file;           /* NULL: none */
    struct config_list metrics_allow; /* each a gw_network */
    struct {
        int64_t refresh_ms, stale_max_ms, token_max_ms, token_default_ms;
    } identity;
    struct {
        int64_t wait_ms;  /* how long a request waits for facts before 503 */
        uint64_t uploads; /* per worker */
        uint64_t jobs[7]; /* by enum gw_peer: jobs in flight per worker */
    } limits;
    struct {
        uint64_t above_bytes, part_bytes; /* objects over the first one come in parts */
    } multipart;
    struct {
        const char *command; /* the `hubgate` command */
        uint64_t push_bytes, clones;
        int64_t push_ms;
    } git;
    struct config_list quotas; /* NAMESPACE=SIZE: config_quota */
    struct gw_arena arena;     /* owns every string above */
};

/* How many bytes this namespace may hold; false: as many as the disk. */
bool config_quota(const struct config *c, struct gw_str ns, uint64_t *bytes);

/**
 * Parse and check a configuration.
 * @param out  to be freed with config_free; left alone on failure
 * @param path as the user gave it
 * @return GW_OK; GW_NOT_FOUND (no such file); GW_INVALID ("FILE:LINE:COLUMN: what is wrong" and a
 * hint); GW_TOO_LARGE; GW_IO; GW_NO_MEMORY
 */
int config_load(struct config **out, const char *path, struct gw_error *err) GW_MUST_CHECK;
int config_parse(struct config **out, struct gw_str file /* absolute */, struct gw_str yaml,
                 struct gw_error *err) GW_MUST_CHECK;
void config_free(struct config *c); /* NULL is fine */

/* The reference of all keys as Markdown: docs/config.md. */
void config_put_markdown(struct gw_buf *out);

#endif
