/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_config_parse.c - any bytes as hubgate.yaml: what is accepted keeps every promise
 * of the struct; what is refused says where, on one line. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "fuzz_config_parse: %s\n", what);
        abort();
    }
}

static void check_str(struct gw_str s)
{
    demand(s.n == 0 || s.p != NULL, "a text without bytes");
    demand(s.n == 0 || (memchr(s.p, '\0', s.n) == NULL && memchr(s.p, '\n', s.n) == NULL),
           "NUL or newline in a text");
    demand(gw_utf8_valid(s), "UTF-8");
}

static void check_list(const struct config_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        demand(l->items[i].n != 0 && l->items[i].p != NULL, "an empty item");
    }
}

static void check_path(const char *path, bool required)
{
    demand(!required || path != NULL, "a path is missing");
    demand(path == NULL || path[0] == '/', "a path that is not absolute");
}

static void check(const struct config *c)
{
    demand(c->public_urls.n > 0, "no public_urls");
    check_list(&c->public_urls);
    check_list(&c->upstream.redirect_hosts);
    check_path(c->data, true);
    check_path(c->cache.dir, true);
    check_path(c->policy_dir, true);
    check_path(c->users_file, false);
    check_path(c->audit_file, false);
    check_path(c->upstream.token_file, false);
    check_path(c->upstream.ca_file, false);
    check_str(c->upstream.url);
    check_str(c->upstream.proxy);
    demand(gw_str_starts(c->upstream.url, GW_STR("http")), "upstream.url");
    demand(c->n_ldap > 0 || c->users_file != NULL, "nobody can log in");
    demand(c->upstream.ttl_ms >= 0 && c->upstream.ttl_ms <= c->upstream.stale_max_ms, "ttl");
    demand(c->identity.refresh_ms >= 1000 && c->identity.refresh_ms <= c->identity.stale_max_ms,
           "refresh");
    demand(c->identity.token_default_ms <= c->identity.token_max_ms, "token_max");
    demand(c->limits.wait_ms >= 1000 && c->limits.wait_ms <= 300000, "wait");
    for (int i = 0; i < 5; i++) {
        demand(c->limits.jobs[i] <= 256 && (i == 1 || c->limits.jobs[i] >= 1), "jobs");
    }
    for (size_t i = 0; i < c->n_ldap; i++) {
        const struct config_ldap *d = &c->ldap[i];

        demand(d->name.n >= 1 && d->name.n <= 32, "ldap name");
        demand(d->urls.n > 0, "ldap urls");
        check_list(&d->urls);
        check_path(d->ca_file, false);
        check_path(d->bind_password_file, false);
        demand(d->bind_dn.n == 0 || d->bind_password_file != NULL, "bind_password_file");
        demand(d->timeout_ms >= 100 && d->timeout_ms <= 60000, "ldap timeout");
        demand(d->line > 0 && d->column > 0, "no place");
        demand(!d->nested || d->group_base.n > 0, "nested");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char prefix[] = "/etc/hubgate/hubgate.yaml:";
    struct gw_str yaml = {(const char *)data, size};
    struct config *c = NULL;
    struct gw_error err = {0};
    int rc = config_parse(&c, GW_STR("/etc/hubgate/hubgate.yaml"), yaml, &err);

    demand((rc == GW_OK) == (c != NULL), "status and struct");
    if (rc == GW_OK) {
        check(c);
    } else {
        demand(rc == GW_INVALID || rc == GW_TOO_LARGE, "another status");
        demand(rc != GW_INVALID || strncmp(err.text, prefix, strlen(prefix)) == 0,
               "an error that says no place");
        demand(strchr(err.text, '\n') == NULL, "an error of two lines");
    }
    config_free(c);
    return 0;
}
