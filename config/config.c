/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - hubgate.yaml by one table. A row says name, type, where it goes, default, range and
 * help; parsing, checking and docs/config.md all come from it.
 */
#include "config/config.h"

#include <limits.h>
#include <stdlib.h>
#include <stdio.h>

#include "base/address.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/yaml.h"

enum option_type {
    OPT_STRING,
    OPT_PATH,   /* made absolute */
    OPT_LIST,   /* of strings */
    OPT_BOOL,   /* true, false */
    OPT_WORD,   /* one of words */
    OPT_EITHER, /* one of two words; the field is a bool, true for the second */
    OPT_TIME,   /* ms; 0 for the one of words that it may have */
    OPT_NUMBER, /* uint64_t */
    OPT_SIZE,   /* bytes, uint64_t; 0: empty */
    OPT_MAP,    /* a group of options */
    OPT_MAPS,   /* a list of maps: ldap */
};

struct option {
    const char *name;
    enum option_type type;
    size_t offset;
    const char *def; /* text as in the file; NULL: empty */
    bool required;
    int64_t min, max;          /* OPT_TIME in ms, OPT_NUMBER, OPT_SIZE */
    const char *words[3];      /* OPT_WORD, OPT_EITHER */
    const struct option *rows; /* OPT_MAP, OPT_MAPS */
    const char *help;
};

#define AT(member) offsetof(struct config, member)
#define LDAP_AT(member) offsetof(struct config_ldap, member)
#define SECOND 1000LL
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

static const struct option cache_rows[] = {
    {.name = "dir",
     .type = OPT_PATH,
     .offset = AT(cache.dir),
     .required = true,
     .help = "Folder of everything that can be fetched again: blobs, parts, index. Local disk, "
             "owned by the worker "
             "user. Removing it while hubgate is stopped costs only time."},
    {.name = "verify",
     .type = OPT_EITHER,
     .offset = AT(cache.verify_before),
     .def = "after",
     .words = {"after", "before"},
     .help = "`after`: large files are passed on while they are fetched and the last MiB is held "
             "back until the "
             "digest is right. `before`: nothing is sent before the whole file is verified."},
    {.name = "max_bytes",
     .type = OPT_SIZE,
     .offset = AT(cache.max_bytes),
     .min = 1 << 20,
     .max = 1ll << 50,
     .help =
         "What blobs and parts may hold together, such as `500GiB`; empty: as much as the disk. "
         "Above it the "
         "files that were not used for longest go, until 90 % are left. A larger file is "
         "fetched and served, and not kept."},
    {.name = "min_free",
     .type = OPT_SIZE,
     .offset = AT(cache.min_free_bytes),
     .def = "2GiB",
     .min = 0,
     .max = 1ll << 50,
     .help = "With or without a budget, files go when the disk has less free space than this (or "
             "than a 20th of it, "
             "if that is less)."},
    {.name = "scrub",
     .type = OPT_TIME,
     .offset = AT(cache.scrub_ms),
     .def = "30d",
     .min = 1 * SECOND,
     .max = 366 * DAY,
     .words = {"off"},
     .help = "Every file that is held is read and hashed again once in this time, in the "
             "background; a damaged one is "
             "removed and fetched anew at its next use. `off`: never."},
    {0},
};

static const struct option upstream_rows[] = {
    {.name = "url",
     .type = OPT_STRING,
     .offset = AT(upstream.url),
     .def = "https://huggingface.co",
     .help = "The public hub."},
    {.name = "token_file",
     .type = OPT_PATH,
     .offset = AT(upstream.token_file),
     .help = "File with the organization's own hub token. Sent to `url` only, never to a "
             "redirect's host."},
    {.name = "ca_file",
     .type = OPT_PATH,
     .offset = AT(upstream.ca_file),
     .help = "CA bundle (PEM) for upstream instead of the system's."},
    {.name = "proxy",
     .type = OPT_STRING,
     .offset = AT(upstream.proxy),
     .help = "Outbound proxy, `http://host:port`."},
    {.name = "redirect_hosts",
     .type = OPT_LIST,
     .offset = AT(upstream.redirect_hosts),
     .def =
         "cas-bridge.xethub.hf.co cas-bridge-direct.xethub.hf.co us.aws.cdn.hf.co us.gcp.cdn.hf.co "
         "cdn-lfs.hf.co cdn-lfs-us-1.hf.co cdn-lfs-eu-1.hf.co cdn-lfs.huggingface.co "
         "cdn-lfs-us-1.huggingface.co",
     .help = "Hosts (`host`, `host:port` or `host:*`) that upstream may redirect a download to. "
             "Everything else is refused."},
    {.name = "resolve",
     .type = OPT_LIST,
     .offset = AT(upstream.resolve),
     .help =
         "Addresses of upstream's hosts, `HOST:ADDRESS` each, which are not asked for: where the "
         "machine's own name service calls this gateway huggingface.co, say."},
    {.name = "dns",
     .type = OPT_STRING,
     .offset = AT(upstream.dns),
     .help = "Name server that is asked for upstream's hosts, `ADDRESS[:PORT]` (IPv4), in place of "
             "the machine's. Names of the directory, Redis, a proxy and other nodes are not asked "
             "there."},
    {.name = "ttl",
     .type = OPT_TIME,
     .offset = AT(upstream.ttl_ms),
     .def = "60s",
     .min = 0,
     .max = DAY,
     .help =
         "A branch's commit and a repo's info are served without asking upstream for this long."},
    {.name = "stale_max",
     .type = OPT_TIME,
     .offset = AT(upstream.stale_max_ms),
     .def = "1h",
     .min = 0,
     .max = 30 * DAY,
     .help = "After `ttl` and up to this age the old answer is served at once while one call "
             "refreshes it; older "
             "answers wait for that call."},
    {.name = "connect_timeout",
     .type = OPT_TIME,
     .offset = AT(upstream.connect_timeout_ms),
     .def = "5s",
     .min = 100,
     .max = 60 * SECOND,
     .help = "TCP and TLS set-up."},
    {.name = "stall_timeout",
     .type = OPT_TIME,
     .offset = AT(upstream.stall_timeout_ms),
     .def = "15s",
     .min = 1 * SECOND,
     .max = 300 * SECOND,
     .help = "A transfer that moves (almost) nothing for this long is cut and resumed."},
    {.name = "transfers",
     .type = OPT_NUMBER,
     .offset = AT(upstream.transfers),
     .def = "4",
     .min = 1,
     .max = 8,
     .help =
         "A large file is fetched by so many connections at once, and one more for a range that "
         "nobody fetches yet."},
    {.name = "max_transfers",
     .type = OPT_NUMBER,
     .offset = AT(upstream.max_transfers),
     .def = "16",
     .min = 1,
     .max = 64,
     .help = "All transfers of large files together, of all workers of this node. A quarter of "
             "them is kept for ranges that somebody waits for."},
    {0},
};

static const struct option redis_rows[] = {
    {.name = "servers",
     .type = OPT_LIST,
     .offset = AT(redis.servers),
     .help =
         "`rediss://host[:port]` (TLS), or `redis://` on a loopback address, tried in order. Needs "
         "`cluster_key_file`. Redis is never needed: without an answer a node works alone."},
    {.name = "ca_file",
     .type = OPT_PATH,
     .offset = AT(redis.ca_file),
     .help = "CA bundle (PEM) for Redis instead of the system's."},
    {.name = "user",
     .type = OPT_STRING,
     .offset = AT(redis.user),
     .help = "ACL user; empty: the default one."},
    {.name = "password_file",
     .type = OPT_PATH,
     .offset = AT(redis.password_file),
     .help = "File with its password, not readable by others."},
    {.name = "timeout",
     .type = OPT_TIME,
     .offset = AT(redis.timeout_ms),
     .def = "200ms",
     .min = 10,
     .max = 10 * SECOND,
     .help = "For one round trip, connecting included; then the next server, then without."},
    {0},
};

static const struct option ldap_rows[] = {
    {.name = "name",
     .type = OPT_STRING,
     .offset = LDAP_AT(name),
     .required = true,
     .help = "Short name of the directory, `[a-z0-9]{1,32}`; part of every subject id, so do not "
             "change it."},
    {.name = "urls",
     .type = OPT_LIST,
     .offset = LDAP_AT(urls),
     .required = true,
     .help = "`ldaps://host[:port]` or `ldap://host[:port]`, tried in order. Plain `ldap://` needs "
             "`start_tls`, "
             "except on loopback."},
    {.name = "start_tls",
     .type = OPT_BOOL,
     .offset = LDAP_AT(start_tls),
     .def = "false",
     .help = "StartTLS on `ldap://`. A refusal ends the attempt: nothing is ever sent in clear."},
    {.name = "ca_file",
     .type = OPT_PATH,
     .offset = LDAP_AT(ca_file),
     .help = "CA bundle (PEM) for the directory instead of the system's. Verification cannot be "
             "switched off."},
    {.name = "bind_dn",
     .type = OPT_STRING,
     .offset = LDAP_AT(bind_dn),
     .help = "DN of the service account that searches; empty: anonymous search."},
    {.name = "bind_password_file",
     .type = OPT_PATH,
     .offset = LDAP_AT(bind_password_file),
     .help = "File with its password, not readable by others."},
    {.name = "user_base",
     .type = OPT_STRING,
     .offset = LDAP_AT(user_base),
     .required = true,
     .help = "Where people are searched."},
    {.name = "user_filter",
     .type = OPT_STRING,
     .offset = LDAP_AT(user_filter),
     .def = "(uid=${user})",
     .help =
         "Filter for one person. `${user}` stands for the escaped name and only inside a value."},
    {.name = "direct_bind",
     .type = OPT_STRING,
     .offset = LDAP_AT(direct_bind),
     .help = "DN template (`uid=${user},ou=people,dc=x`) used instead of search and bind."},
    {.name = "name_attr",
     .type = OPT_STRING,
     .offset = LDAP_AT(name_attr),
     .def = "uid",
     .help = "Attribute that holds the user name."},
    {.name = "id_attr",
     .type = OPT_STRING,
     .offset = LDAP_AT(id_attr),
     .def = "entryUUID",
     .help = "Immutable id of an entry: `entryUUID`, `objectGUID`, `nsUniqueId`, `ipaUniqueID`."},
    {.name = "display_attr",
     .type = OPT_STRING,
     .offset = LDAP_AT(display_attr),
     .def = "cn",
     .help = "Attribute of the full name."},
    {.name = "mail_attr",
     .type = OPT_STRING,
     .offset = LDAP_AT(mail_attr),
     .def = "mail",
     .help = "Attribute of the mail address."},
    {.name = "groups",
     .type = OPT_WORD,
     .offset = LDAP_AT(groups),
     .def = "memberof",
     .words = {"memberof", "search"},
     .help =
         "`memberof`: read from the person's entry. `search`: search groups that list the person."},
    {.name = "group_base",
     .type = OPT_STRING,
     .offset = LDAP_AT(group_base),
     .help = "Where groups are searched (`groups: search`, `nested`)."},
    {.name = "group_filter",
     .type = OPT_STRING,
     .offset = LDAP_AT(group_filter),
     .def = "(member=${dn})",
     .help = "`(member=${dn})`, `(uniqueMember=${dn})` or `(memberUid=${user})`."},
    {.name = "nested",
     .type = OPT_BOOL,
     .offset = LDAP_AT(nested),
     .def = "false",
     .help = "Follow groups of groups (at most 10 levels, 2,000 groups)."},
    {.name = "timeout",
     .type = OPT_TIME,
     .offset = LDAP_AT(timeout_ms),
     .def = "3s",
     .min = 100,
     .max = 60 * SECOND,
     .help = "One deadline for a whole login, over all servers."},
    {0},
};

static const struct option identity_rows[] = {
    {.name = "refresh",
     .type = OPT_TIME,
     .offset = AT(identity.refresh_ms),
     .def = "5m",
     .min = 1 * SECOND,
     .max = DAY,
     .help = "A person's groups and state are read from the directory again after this time."},
    {.name = "stale_max",
     .type = OPT_TIME,
     .offset = AT(identity.stale_max_ms),
     .def = "1h",
     .min = 1 * SECOND,
     .max = 7 * DAY,
     .help = "While the directory is down, tokens work with the last known groups for this long; "
             "then 503."},
    {.name = "token_default",
     .type = OPT_TIME,
     .offset = AT(identity.token_default_ms),
     .def = "90d",
     .min = 60 * SECOND,
     .max = 366 * DAY,
     .help = "Life of a token when its owner names none."},
    {.name = "token_max",
     .type = OPT_TIME,
     .offset = AT(identity.token_max_ms),
     .def = "365d",
     .min = 60 * SECOND,
     .max = 366 * DAY,
     .help = "Longest life of a token."},
    {0},
};

static const struct option limits_rows[] = {
    {.name = "wait",
     .type = OPT_TIME,
     .offset = AT(limits.wait_ms),
     .def = "30s",
     .min = 1 * SECOND,
     .max = 300 * SECOND,
     .help = "How long a request waits for a directory, upstream or a disk before 503."},
    {.name = "uploads",
     .type = OPT_NUMBER,
     .offset = AT(limits.uploads),
     .def = "256",
     .min = 1,
     .max = 4096,
     .help = "Objects and commits that are being sent at a time, per worker; more are answered 503 "
             "and sent again by clients. Each takes 2 MiB, from the 25th on 256 KiB."},
    {.name = "ldap_jobs",
     .type = OPT_NUMBER,
     .offset = AT(limits.jobs[0]),
     .def = "8",
     .min = 1,
     .max = 256,
     .help = "Directory calls in flight per worker."},
    {.name = "redis_jobs",
     .type = OPT_NUMBER,
     .offset = AT(limits.jobs[1]),
     .def = "4",
     .min = 1,
     .max = 64,
     .help = "Redis calls in flight per worker."},
    {.name = "upstream_jobs",
     .type = OPT_NUMBER,
     .offset = AT(limits.jobs[2]),
     .def = "16",
     .min = 1,
     .max = 256,
     .help = "Upstream calls in flight per worker (large files have transfers of their own)."},
    {.name = "repo_jobs",
     .type = OPT_NUMBER,
     .offset = AT(limits.jobs[3]),
     .def = "8",
     .min = 1,
     .max = 256,
     .help = "Reads of private repositories in flight per worker."},
    {.name = "disk_jobs",
     .type = OPT_NUMBER,
     .offset = AT(limits.jobs[4]),
     .def = "8",
     .min = 1,
     .max = 256,
     .help = "Other disk jobs in flight per worker (hashing, token files)."},
    {.name = "read_jobs",
     .type = OPT_NUMBER,
     .offset = AT(limits.jobs[5]),
     .def = "8",
     .min = 1,
     .max = 256,
     .help = "Reads in flight per worker of files that are on disk and not in memory."},
    {.name = "git_jobs",
     .type = OPT_NUMBER,
     .offset = AT(limits.jobs[6]),
     .def = "4",
     .min = 1,
     .max = 64,
     .help = "Pushes by git in flight per worker."},
    {0},
};

static const struct option git_rows[] = {
    {.name = "command",
     .type = OPT_PATH,
     .offset = AT(git.command),
     .def = "/usr/bin/hubgate",
     .help =
         "The `hubgate` command: workers start git through it, and git runs it as the hook that "
         "checks a push."},
    {.name = "push_bytes",
     .type = OPT_SIZE,
     .offset = AT(git.push_bytes),
     .def = "4GiB",
     .min = 1 << 20,
     .max = INT64_C(1) << 40,
     .help = "Largest pack of one push (large files are LFS objects and do not count)."},
    {.name = "push_time",
     .type = OPT_TIME,
     .offset = AT(git.push_ms),
     .def = "10m",
     .min = 10 * SECOND,
     .max = 3600 * SECOND,
     .help = "How long git may take for a push once all of it has come."},
    {.name = "clones",
     .type = OPT_NUMBER,
     .offset = AT(git.clones),
     .def = "32",
     .min = 1,
     .max = 1024,
     .help = "Clones and fetches in flight per worker; more are answered 429."},
    {0},
};

static const struct option multipart_rows[] = {
    {.name = "above",
     .type = OPT_SIZE,
     .offset = AT(multipart.above_bytes),
     .def = "5GiB",
     .min = 1,
     .max = 1ll << 60,
     .help = "Larger objects are sent in parts by clients that can (`huggingface_hub`, JavaScript, "
             "`hf lfs-enable-largefiles`): after a failure one part is sent again, not the whole."},
    {.name = "part",
     .type = OPT_SIZE,
     .offset = AT(multipart.part_bytes),
     .def = "64MiB",
     .min = 1 << 16,
     .max = 1ll << 40,
     .help = "Bytes of a part; more where an object would have over 128 of them."},
    {0},
};

static const struct option top_rows[] = {
    {.name = "public_urls",
     .type = OPT_LIST,
     .offset = AT(public_urls),
     .required = true,
     .help = "URLs under which people reach this gateway, `https://models.example`. Generated "
             "links use the one "
             "that was asked; any other Host is answered 421."},
    {.name = "data",
     .type = OPT_PATH,
     .offset = AT(data),
     .required = true,
     .help = "Folder of the truth: private repositories, large objects, tokens. Owned by the "
             "worker user. Back it up."},
    {.name = "cache",
     .type = OPT_MAP,
     .rows = cache_rows,
     .required = true,
     .help = "What is held of the public hub."},
    {.name = "upstream",
     .type = OPT_MAP,
     .rows = upstream_rows,
     .help = "Where public models come from."},
    {.name = "redis",
     .type = OPT_MAP,
     .rows = redis_rows,
     .help = "What several nodes share: records, small files, who fetches what, revocations."},
    {.name = "cluster_key_file",
     .type = OPT_PATH,
     .offset = AT(cluster_key_file),
     .help = "File with 32 random bytes or more (base64 is fine), the same on all nodes, not "
             "readable by others. Everything in Redis and every request between nodes is signed "
             "with it."},
    {.name = "node_url",
     .type = OPT_STRING,
     .offset = AT(node_url),
     .help = "How the other nodes reach this one, `https://node1.internal:8443`: they fetch large "
             "files from the node that is fetching them. Empty: each node asks the hub itself."},
    {.name = "node_ca_file",
     .type = OPT_PATH,
     .offset = AT(node_ca_file),
     .help = "CA bundle (PEM) for other nodes' `https` instead of the system's."},
    {.name = "ldap",
     .type = OPT_MAPS,
     .rows = ldap_rows,
     .offset = AT(ldap),
     .help = "Directories, in order. A person belongs to the first one that knows the name."},
    {.name = "users_file",
     .type = OPT_PATH,
     .offset = AT(users_file),
     .help =
         "Account file, for a first try and for machines without a directory: `hubgate user add`."},
    {.name = "policy_dir",
     .type = OPT_PATH,
     .offset = AT(policy_dir),
     .required = true,
     .help = "Folder of the rules, `*.yaml`: docs/policy.md."},
    {.name = "audit_file",
     .type = OPT_PATH,
     .offset = AT(audit_file),
     .help = "One JSON line per request. Opened anew for each chunk, so any rotation works."},
    {.name = "metrics_allow",
     .type = OPT_LIST,
     .offset = AT(metrics_allow),
     .def = "127.0.0.1 ::1",
     .help =
         "Addresses or networks (`10.0.0.0/8`, `2001:db8::/32`) that may read `/-/metrics`; for "
         "all others there is no such page."},
    {.name = "identity",
     .type = OPT_MAP,
     .rows = identity_rows,
     .help = "How long what is known of people holds."},
    {.name = "git",
     .type = OPT_MAP,
     .rows = git_rows,
     .help = "Clients that speak git: docs/clients.md."},
    {.name = "limits", .type = OPT_MAP, .rows = limits_rows, .help = "Ceilings."},
    {.name = "quotas",
     .type = OPT_LIST,
     .offset = AT(quotas),
     .help = "How many bytes a private namespace may hold, such as `[\"acme=2TiB\", \"u-*=50GiB\", "
             "\"*=500GiB\"]`; the first that fits the name counts. What does not fit is refused "
             "before it is sent. Empty: as much as the disk."},
    {.name = "multipart",
     .type = OPT_MAP,
     .rows = multipart_rows,
     .help = "Uploads of very large objects."},
    {0},
};

struct loader {
    struct config *c;
    struct gw_str file, dir; /* dir: of the file, for relative paths */
    struct gw_error *err;
};

#define FAIL(l, at, ...) gw_yaml_fail((l)->err, (l)->file, at, false, __VA_ARGS__)
#define FAIL_KEY(l, at, ...) gw_yaml_fail((l)->err, (l)->file, at, true, __VA_ARGS__)

static int no_memory(struct loader *l)
{
    return gw_fail(l->err, GW_NO_MEMORY, 0, "no memory for the configuration");
}

static int set_text(struct loader *l, const struct option *o, void *field, struct gw_str text)
{
    struct gw_arena *a = &l->c->arena;
    struct gw_str copy;

    if (o->type == OPT_PATH && text.n && text.p[0] != '/') {
        copy = gw_arena_printf(a, GW_STR_FMT "/" GW_STR_FMT, GW_STR_ARG(l->dir), GW_STR_ARG(text));
    } else {
        copy = gw_arena_dup(a, text);
    }
    if (copy.p == NULL)
        return no_memory(l);
    if (o->type == OPT_PATH)
        *(const char **)field = text.n ? copy.p : NULL;
    else
        *(struct gw_str *)field = copy;
    return GW_OK;
}

static int set_word(struct loader *l, const struct option *o, void *field, struct gw_str text,
                    const struct gw_yaml *at)
{
    for (size_t i = 0; o->words[i] != NULL; i++) {
        if (!gw_str_eq_c(text, o->words[i]))
            continue;
        if (o->type == OPT_EITHER)
            *(bool *)field = i == 1;
        else
            *(struct gw_str *)field = gw_str_c(o->words[i]);
        return GW_OK;
    }
    return FAIL(l, at, "%s: \"" GW_STR_FMT "\" is not one of: %s, %s", o->name, GW_STR_ARG(text),
                o->words[0], o->words[1]);
}

static int set_scalar(struct loader *l, const struct option *o, void *field, struct gw_str text,
                      const struct gw_yaml *at)
{
    int64_t ms;
    uint64_t number;

    switch (o->type) {
    case OPT_STRING:
    case OPT_PATH:
        if (memchr(text.p, '\n', text.n) != NULL)
            return FAIL(l, at, "%s: one line, please", o->name);
        return set_text(l, o, field, text);
    case OPT_WORD:
    case OPT_EITHER:
        return set_word(l, o, field, text, at);
    case OPT_BOOL:
        if (!gw_str_eq_c(text, "true") && !gw_str_eq_c(text, "false"))
            return FAIL(l, at, "%s: true or false, not \"" GW_STR_FMT "\"", o->name,
                        GW_STR_ARG(text));
        *(bool *)field = gw_str_eq_c(text, "true");
        return GW_OK;
    case OPT_TIME:
        if (o->words[0] != NULL && gw_str_eq_c(text, o->words[0])) {
            *(int64_t *)field = 0;
            return GW_OK;
        }
        if (!gw_duration_parse(text, &ms) || ms < o->min || ms > o->max)
            return FAIL(
                l, at,
                "%s: a time such as 60s, 5m, 1h, 30d, from %lld%s to %llds; not \"" GW_STR_FMT "\"",
                o->name, (long long)(o->min % SECOND ? o->min : o->min / SECOND),
                o->min % SECOND ? "ms" : "s", (long long)(o->max / SECOND), GW_STR_ARG(text));
        *(int64_t *)field = ms;
        return GW_OK;
    case OPT_NUMBER:
        if (!gw_str_u64(text, &number) || number < (uint64_t)o->min || number > (uint64_t)o->max)
            return FAIL(l, at, "%s: a number from %lld to %lld, not \"" GW_STR_FMT "\"", o->name,
                        (long long)o->min, (long long)o->max, GW_STR_ARG(text));
        *(uint64_t *)field = number;
        return GW_OK;
    case OPT_SIZE:
        number = 0;
        if (text.n != 0 && (!gw_bytes_parse(text, &number) || number < (uint64_t)o->min ||
                            number > (uint64_t)o->max))
            return FAIL(l, at,
                        "%s: a size such as 512MiB, 500GiB, 2TiB, from %lld to %lld bytes, not "
                        "\"" GW_STR_FMT "\"",
                        o->name, (long long)o->min, (long long)o->max, GW_STR_ARG(text));
        *(uint64_t *)field = number;
        return GW_OK;
    default:
        return FAIL(l, at, "%s: not a single value", o->name);
    }
}

static int set_list(struct loader *l, const struct option *o, struct config_list *list,
                    const struct gw_yaml *v)
{
    if (v->kind != GW_YAML_LIST)
        return FAIL(l, v, "%s: a list, such as [\"one\", \"two\"]", o->name);
    list->items = gw_arena_alloc(&l->c->arena, (v->count + 1) * sizeof(*list->items));
    if (list->items == NULL)
        return no_memory(l);
    for (const struct gw_yaml *item = v->child; item != NULL; item = item->next) {
        if (item->kind != GW_YAML_SCALAR || item->value.n == 0)
            return FAIL(l, item, "%s: a list of plain values", o->name);
        list->items[list->n] = gw_arena_dup(&l->c->arena, item->value);
        if (list->items[list->n++].p == NULL)
            return no_memory(l);
    }
    if (o->required && list->n == 0)
        return FAIL(l, v, "%s: at least one", o->name);
    return GW_OK;
}

/* A list's default is written as words with blanks between them. */
static int default_list(struct loader *l, const struct option *o, struct config_list *list)
{
    struct gw_str rest = gw_str_c(o->def), word;

    list->items = gw_arena_alloc(&l->c->arena, (rest.n / 2 + 1) * sizeof(*list->items));
    if (list->items == NULL)
        return no_memory(l);
    while (o->def != NULL && gw_str_split(&rest, ' ', &word))
        if (word.n)
            list->items[list->n++] = word;
    return GW_OK;
}

static int set_map(struct loader *l, const struct option *rows, char *base,
                   const struct gw_yaml *map);

static int set_maps(struct loader *l, const struct option *o, const struct gw_yaml *v)
{
    struct config *c = l->c;
    int rc;

    if (v->kind != GW_YAML_LIST)
        return FAIL(l, v, "%s: a list of maps: start each with \"- name:\"", o->name);
    c->ldap = gw_arena_alloc(&c->arena, (v->count + 1) * sizeof(*c->ldap));
    if (c->ldap == NULL)
        return no_memory(l);
    for (const struct gw_yaml *item = v->child; item != NULL; item = item->next) {
        if (item->kind != GW_YAML_MAP)
            return FAIL(l, item, "%s: each entry is a map", o->name);
        c->ldap[c->n_ldap].line = item->line;
        c->ldap[c->n_ldap].column = item->column;
        rc = set_map(l, o->rows, (char *)&c->ldap[c->n_ldap], item);
        if (rc != GW_OK)
            return rc;
        c->n_ldap++;
    }
    return GW_OK;
}

static int set_option(struct loader *l, const struct option *o, char *base, const struct gw_yaml *v)
{
    if (o->type == OPT_MAP) {
        if (v->kind != GW_YAML_MAP)
            return FAIL(l, v, "%s: a map of options", o->name);
        return set_map(l, o->rows, base, v);
    }
    if (o->type == OPT_MAPS)
        return set_maps(l, o, v);
    if (o->type == OPT_LIST)
        return set_list(l, o, (struct config_list *)(base + o->offset), v);
    if (v->kind != GW_YAML_SCALAR)
        return FAIL(l, v, "%s: a single value, not a %s", o->name,
                    v->kind == GW_YAML_LIST ? "list" : "map");
    if (o->required && v->value.n == 0)
        return FAIL(l, v, "%s: must not be empty", o->name);
    return set_scalar(l, o, base + o->offset, v->value, v);
}

static int set_default(struct loader *l, const struct option *o, char *base)
{
    static const struct gw_yaml nowhere = {.line = 1, .column = 1};

    if (o->type == OPT_MAP) {
        struct gw_yaml empty = {.kind = GW_YAML_MAP, .line = 1, .column = 1};
        return set_map(l, o->rows, base, &empty);
    }
    if (o->type == OPT_MAPS)
        return GW_OK;
    if (o->type == OPT_LIST)
        return default_list(l, o, (struct config_list *)(base + o->offset));
    if (o->def == NULL)
        return GW_OK;
    return set_scalar(l, o, base + o->offset, gw_str_c(o->def), &nowhere);
}

static int unknown_key(struct loader *l, const struct option *rows, const struct gw_yaml *v)
{
    const char *names[40];
    size_t n = 0;
    const char *near;

    for (const struct option *o = rows; o->name != NULL && n < 40; o++)
        names[n++] = o->name;
    near = gw_nearest(v->key, names, n);
    return FAIL_KEY(l, v, "unknown key \"" GW_STR_FMT "\"%s%s%s", GW_STR_ARG(v->key),
                    near ? "; did you mean \"" : "", near ? near : "; see docs/config.md",
                    near ? "\"?" : "");
}

static int set_map(struct loader *l, const struct option *rows, char *base,
                   const struct gw_yaml *map)
{
    const struct option *o;
    const struct gw_yaml *v;
    int rc;

    for (v = map->child; v != NULL; v = v->next) {
        for (o = rows; o->name != NULL && !gw_str_eq_c(v->key, o->name); o++)
            ;
        if (o->name == NULL)
            return unknown_key(l, rows, v);
    }
    for (o = rows; o->name != NULL; o++) {
        v = gw_yaml_get(map, o->name);
        if (v == NULL && o->required)
            return FAIL(l, map, "key \"%s\" is missing: %s", o->name, o->help);
        rc = v != NULL ? set_option(l, o, base, v) : set_default(l, o, base);
        if (rc != GW_OK)
            return rc;
    }
    return GW_OK;
}

/* ---- what a table cannot say ---- */

static bool is_origin(struct gw_str url)
{
    struct gw_str rest;

    if (gw_str_starts(url, GW_STR("https://")))
        rest = gw_str_sub(url, 8, url.n);
    else if (gw_str_starts(url, GW_STR("http://")))
        rest = gw_str_sub(url, 7, url.n);
    else
        return false;
    if (rest.n == 0 || rest.n > 255)
        return false;
    for (size_t i = 0; i < rest.n; i++) {
        char ch = rest.p[i];
        bool fine = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                    (ch >= '0' && ch <= '9') || ch == '.' || ch == '-' || ch == ':' || ch == '[' ||
                    ch == ']' || ch == '_';
        if (!fine)
            return false;
    }
    return true;
}

static bool is_realm(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9')))
            return false;
    return s.n >= 1 && s.n <= 32 && !gw_str_eq_c(s, "file") && !gw_str_eq_c(s, "service");
}

static int check_ldap(struct loader *l, const struct gw_yaml *list)
{
    const struct config *c = l->c;
    const struct gw_yaml *item = list ? list->child : NULL;

    for (size_t i = 0; i < c->n_ldap; i++, item = item->next) {
        const struct config_ldap *d = &c->ldap[i];
        if (!is_realm(d->name))
            return FAIL(l, item, "name: [a-z0-9]{1,32}, and not \"file\" or \"service\"");
        for (size_t k = 0; k < i; k++)
            if (gw_str_eq(c->ldap[k].name, d->name))
                return FAIL(l, item, "two directories are named \"" GW_STR_FMT "\"",
                            GW_STR_ARG(d->name));
        if (d->bind_dn.n && d->bind_password_file == NULL)
            return FAIL(l, item, "bind_dn needs bind_password_file");
        if (gw_str_eq_c(d->groups, "search") && d->group_base.n == 0)
            return FAIL(l, item, "groups: search needs group_base");
        if (d->nested && d->group_base.n == 0)
            return FAIL(l, item, "nested needs group_base");
    }
    return GW_OK;
}

/* Where the first of two options of a map is written, else the second, else the map. */
static const struct gw_yaml *node(const struct gw_yaml *root, const char *map, const char *first,
                                  const char *second)
{
    const struct gw_yaml *m = gw_yaml_get(root, map), *v = gw_yaml_get(m, first);

    if (v == NULL && second != NULL)
        v = gw_yaml_get(m, second);
    return v != NULL ? v : m != NULL ? m : root;
}

static int check_redis(struct loader *l, const struct gw_yaml *root)
{
    struct config *c = l->c;
    const struct gw_yaml *at = node(root, "redis", "servers", NULL);

    c->redis.line = at->line;
    c->redis.column = at->column;
    if (c->redis.servers.n != 0 && c->cluster_key_file == NULL)
        return FAIL(l, at, "redis.servers needs cluster_key_file: what is in Redis is signed");
    if (c->redis.user.n != 0 && c->redis.password_file == NULL)
        return FAIL(l, node(root, "redis", "user", NULL), "redis.user needs redis.password_file");
    if (c->node_url.n != 0 && !is_origin(c->node_url))
        return FAIL(l, gw_yaml_get(root, "node_url"),
                    "node_url: scheme and host only, such as https://node1.internal:8443, without "
                    "a path or a slash at the end");
    return GW_OK;
}

/* Is this folder the other one, or does it lie in it, as the paths are written? */
static bool lies_in(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    while (n > 1 && folder[n - 1] == '/')
        n--;
    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0' || n == 1);
}

static bool is_address(struct gw_str text, bool four_only)
{
    struct gw_network network;

    return memchr(text.p, '/', text.n) == NULL && gw_network_parse(&network, text) &&
           (!four_only || memchr(text.p, ':', text.n) == NULL);
}

static bool is_pin(struct gw_str text)
{
    struct gw_str host, rest = text;

    return gw_str_split(&rest, ':', &host) && host.n != 0 && rest.n != 0 && is_address(rest, false);
}

static bool is_name_server(struct gw_str text)
{
    struct gw_str address, rest = text;
    uint64_t port = 53;

    return gw_str_split(&rest, ':', &address) && is_address(address, true) &&
           (rest.p == NULL || gw_str_u64(rest, &port)) && port >= 1 && port <= 65535;
}

static bool read_quota(struct gw_str text, struct gw_str *pattern, uint64_t *bytes)
{
    const char *star;

    if (!gw_str_split(&text, '=', pattern) || text.p == NULL || pattern->n == 0)
        return false;
    star = memchr(pattern->p, '*', pattern->n);
    return (star == NULL || star == pattern->p + pattern->n - 1) && gw_bytes_parse(text, bytes);
}

bool config_quota(const struct config *c, struct gw_str ns, uint64_t *bytes)
{
    for (size_t i = 0; i < c->quotas.n; i++) {
        struct gw_str pattern;

        if (!read_quota(c->quotas.items[i], &pattern, bytes))
            continue; /* it was checked */
        if (gw_str_ieq(ns, pattern) ||
            (gw_str_ends(pattern, GW_STR("*")) && ns.n >= pattern.n - 1 &&
             gw_str_ieq(gw_str_sub(ns, 0, pattern.n - 1), gw_str_sub(pattern, 0, pattern.n - 1))))
            return true;
    }
    return false;
}

static int check_whole(struct loader *l, const struct gw_yaml *root)
{
    struct config *c = l->c;
    const struct gw_yaml *urls = gw_yaml_get(root, "public_urls"), *at = urls ? urls->child : NULL;
    struct gw_network network;
    struct gw_str pattern;
    uint64_t bytes;
    int rc;

    for (size_t i = 0; i < c->public_urls.n; i++, at = at ? at->next : NULL)
        if (!is_origin(c->public_urls.items[i]))
            return FAIL(
                l, at ? at : root,
                "public_urls: scheme and host only, such as https://models.example, without a "
                "path or a slash at the end");
    at = gw_yaml_get(root, "metrics_allow");
    at = at ? at->child : NULL;
    for (size_t i = 0; i < c->metrics_allow.n; i++, at = at ? at->next : NULL)
        if (!gw_network_parse(&network, c->metrics_allow.items[i]))
            return FAIL(l, at ? at : root,
                        "metrics_allow: an address or a network, such as 10.0.0.0/8, not "
                        "\"" GW_STR_FMT "\"",
                        GW_STR_ARG(c->metrics_allow.items[i]));
    at = node(root, "upstream", "resolve", NULL);
    at = at ? at->child : NULL;
    for (size_t i = 0; i < c->upstream.resolve.n; i++, at = at ? at->next : NULL)
        if (!is_pin(c->upstream.resolve.items[i]))
            return FAIL(l, at ? at : root,
                        "upstream.resolve: HOST:ADDRESS, such as huggingface.co:203.0.113.7, not "
                        "\"" GW_STR_FMT "\"",
                        GW_STR_ARG(c->upstream.resolve.items[i]));
    if (c->upstream.dns.n != 0 && !is_name_server(c->upstream.dns))
        return FAIL(l, node(root, "upstream", "dns", NULL),
                    "upstream.dns: an IPv4 address, such as 9.9.9.9 or 127.0.0.1:5353");
    at = gw_yaml_get(root, "quotas");
    at = at ? at->child : NULL;
    for (size_t i = 0; i < c->quotas.n; i++, at = at ? at->next : NULL)
        if (!read_quota(c->quotas.items[i], &pattern, &bytes))
            return FAIL(l, at ? at : root,
                        "quotas: NAMESPACE=SIZE, such as acme=500GiB, u-*=50GiB or *=1TiB, not "
                        "\"" GW_STR_FMT "\"",
                        GW_STR_ARG(c->quotas.items[i]));
    if (!is_origin(c->upstream.url))
        return FAIL(l, node(root, "upstream", "url", NULL),
                    "upstream.url: scheme and host only, such as https://huggingface.co");
    if (lies_in(c->data, c->cache.dir))
        return FAIL(l, node(root, "cache", "dir", NULL),
                    "cache.dir must not hold data: who removes the cache would remove it too");
    if (c->upstream.stale_max_ms < c->upstream.ttl_ms)
        return FAIL(l, node(root, "upstream", "stale_max", "ttl"),
                    "upstream.stale_max must not be shorter than upstream.ttl");
    if (c->identity.stale_max_ms < c->identity.refresh_ms)
        return FAIL(l, node(root, "identity", "stale_max", "refresh"),
                    "identity.stale_max must not be shorter than identity.refresh");
    if (c->identity.token_default_ms > c->identity.token_max_ms)
        return FAIL(l, node(root, "identity", "token_max", "token_default"),
                    "identity.token_default must not be longer than identity.token_max");
    if (c->n_ldap == 0 && c->users_file == NULL)
        return FAIL(l, root,
                    "nobody could log in: name a directory (ldap) or an account file (users_file)");
    rc = check_redis(l, root);
    return rc != GW_OK ? rc : check_ldap(l, gw_yaml_get(root, "ldap"));
}

int config_parse(struct config **out, struct gw_str file, struct gw_str yaml, struct gw_error *err)
{
    struct gw_arena tree;
    struct gw_yaml *root;
    struct loader l = {.err = err};
    size_t slash = 0;
    int rc;

    gw_arena_init(&tree, 16u << 20);
    l.c = gw_alloc(sizeof(*l.c));
    if (l.c == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the configuration");
    gw_arena_init(&l.c->arena, 16u << 20);
    l.file = l.c->file = gw_arena_dup(&l.c->arena, file);
    if (l.file.p == NULL) {
        rc = no_memory(&l);
        goto done;
    }
    for (size_t i = 0; i < file.n; i++)
        if (file.p[i] == '/')
            slash = i;
    l.dir = slash ? gw_str_sub(l.file, 0, slash) : GW_STR("");
    rc = gw_yaml_parse(&root, l.file, yaml, &tree, err);
    if (rc != GW_OK)
        goto done;
    if (root->kind != GW_YAML_MAP) {
        rc = FAIL(&l, root, "a map of options is expected; see docs/config.md");
        goto done;
    }
    rc = set_map(&l, top_rows, (char *)l.c, root);
    if (rc == GW_OK)
        rc = check_whole(&l, root);
    if (rc == GW_OK) {
        *out = l.c;
        l.c = NULL;
    }
done:
    config_free(l.c);
    gw_arena_release(&tree);
    return rc;
}

int config_load(struct config **out, const char *path, struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str yaml;
    char absolute[PATH_MAX];
    int rc;

    gw_arena_init(&a, CONFIG_MAX_BYTES + (64u << 10));
    if (realpath(path, absolute) == NULL)
        return gw_fail(err, GW_NOT_FOUND, 0, "%s: no such configuration file", path);
    rc = gw_file_read(absolute, CONFIG_MAX_BYTES, &a, &yaml, err);
    if (rc == GW_OK)
        rc = config_parse(out, gw_str_c(absolute), yaml, err);
    gw_arena_release(&a);
    return rc;
}

void config_free(struct config *c)
{
    if (c == NULL)
        return;
    gw_arena_release(&c->arena);
    gw_free(c);
}

/* ---- docs/config.md ---- */

static void put_rows(struct gw_buf *out, const struct option *rows, const char *prefix)
{
    static const char *const type_names[] = {"text", "path", "list",        "true/false",
                                             "word", "word", "time",        "number",
                                             "size", "map",  "list of maps"};

    for (const struct option *o = rows; o->name != NULL; o++) {
        if (o->type == OPT_MAP || o->type == OPT_MAPS)
            continue;
        gw_buf_addf(out, "| `%s%s` | %s | ", prefix, o->name, type_names[o->type]);
        if (o->required)
            gw_buf_add_c(out, "**required**");
        else if (o->def != NULL)
            gw_buf_addf(out, "`%s`", o->def);
        gw_buf_addf(out, " | %s |\n", o->help);
    }
}

void config_put_markdown(struct gw_buf *out)
{
    gw_buf_add_c(out,
                 "<!-- Written by `hubgate config-doc` from the option table in config/config.c: "
                 "do not edit. -->\n"
                 "# hubgate.yaml\n\n"
                 "nginx.conf says *where* (`hubgate_config FILE;` in `http`, `hubgate on;` in a "
                 "location), this file says *how*, "
                 "and the files in `policy_dir` say *who may do what* ([policy.md](policy.md)). "
                 "Unknown keys are errors. "
                 "Relative paths start at the folder of this file. Times: `500ms`, `60s`, `5m`, "
                 "`1h`, `30d`. Sizes: `64KiB`, `512MiB`, `500GiB`, `2TiB`. "
                 "Check it with `hubgate check` or `nginx -t`; apply it with `hubgate reload`.\n\n"
                 "| key | type | default | meaning |\n|---|---|---|---|\n");
    put_rows(out, top_rows, "");
    for (const struct option *o = top_rows; o->name != NULL; o++) {
        char prefix[64];
        if (o->rows == NULL)
            continue;
        snprintf(prefix, sizeof(prefix), "%s%s.", o->name, o->type == OPT_MAPS ? "[]" : "");
        gw_buf_addf(out,
                    "\n## `%s`\n\n%s\n\n| key | type | default | meaning |\n|---|---|---|---|\n",
                    o->name, o->help);
        put_rows(out, o->rows, prefix);
    }
}
