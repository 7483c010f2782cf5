/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.c - `hubgate cache ls|stat|pin|unpin|evict|verify`: what is held, and what is to go. Works
 * beside running workers: names in blobs/ and entries of the index, nothing else.
 */
#include "gateway/cli/cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/encode.h"

/* ---- sets: what is held by digest, and of which repository ---- */

#define KEY 20u /* bytes of a digest: all of a git one, enough of a sha256 */

struct slot { /* open addressing; used == 0: free */
    uint8_t key[KEY];
    uint32_t repo; /* 0 in the table of what is held */
    uint64_t bytes;
    int64_t used;
};
struct table {
    struct slot *slots;
    size_t n, cap; /* cap: a power of 2, or 0 */
};

static uint64_t hash_of(const uint8_t *key, uint32_t repo)
{
    uint64_t h;

    memcpy(&h, key, sizeof(h)); /* digests are random */
    return h ^ (uint64_t)repo * 0x9e3779b97f4a7c15u;
}

static struct slot *slot_of(const struct table *t, const uint8_t *key, uint32_t repo)
{
    size_t at = (size_t)hash_of(key, repo) & (t->cap - 1);

    while (t->slots[at].used != 0 &&
           (t->slots[at].repo != repo || memcmp(t->slots[at].key, key, KEY) != 0))
        at = (at + 1) & (t->cap - 1);
    return &t->slots[at];
}

/* The slot of this key, new or not. NULL: no memory. */
static struct slot *table_put(struct table *t, const uint8_t *key, uint32_t repo)
{
    struct slot *s;

    if (t->n * 2 >= t->cap) {
        struct table more = {gw_alloc((t->cap ? t->cap * 2 : 1024) * sizeof(*t->slots)), t->n,
                             t->cap ? t->cap * 2 : 1024};
        if (more.slots == NULL)
            return NULL;
        for (size_t i = 0; i < t->cap; i++)
            if (t->slots[i].used != 0)
                *slot_of(&more, t->slots[i].key, t->slots[i].repo) = t->slots[i];
        gw_free(t->slots);
        *t = more;
    }
    s = slot_of(t, key, repo);
    if (s->used == 0) {
        memcpy(s->key, key, KEY);
        s->repo = repo;
        t->n++;
    }
    return s;
}

static bool key_of(struct gw_str digest, uint8_t key[KEY])
{
    return digest.n >= 2 * KEY && gw_hex_decode(key, KEY, gw_str_sub(digest, 0, 2 * KEY));
}

static int add_blob(void *ctx, const struct cache_blob *b)
{
    uint8_t key[KEY];
    struct slot *s = key_of(b->digest, key) ? table_put(ctx, key, 0) : NULL;

    if (s == NULL)
        return GW_NO_MEMORY;
    s->bytes = b->bytes;
    s->used = b->used_ms > 0 ? b->used_ms : 1;
    return GW_OK;
}

/* ---- ls ---- */

struct repo {
    char *name; /* "model:ns/name" */
    uint64_t files, bytes;
    int64_t used;
    bool pinned;
};
struct ls {
    const struct policy *policy;
    struct table held, seen; /* seen: (digest, repo) */
    struct repo *repos;      /* the first is nobody's */
    size_t n, cap;
    uint32_t *index; /* by hash of the name; 0: free */
    size_t index_cap;
};

static uint64_t hash_name(struct gw_str s)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    return h ^ h >> 29;
}

static uint32_t *index_of(struct ls *l, struct gw_str name)
{
    size_t at = (size_t)hash_name(name) & (l->index_cap - 1);

    while (l->index[at] != 0 && !gw_str_eq_c(name, l->repos[l->index[at]].name))
        at = (at + 1) & (l->index_cap - 1);
    return &l->index[at];
}

static bool grow(struct ls *l)
{
    size_t cap = l->cap ? l->cap * 2 : 512;
    struct repo *repos = gw_realloc(l->repos, cap * sizeof(*repos));
    uint32_t *index = gw_alloc(cap * 4 * sizeof(*index));

    if (repos != NULL)
        l->repos = repos;
    if (repos == NULL || index == NULL) {
        gw_free(index);
        return false;
    }
    gw_free(l->index);
    l->index = index;
    l->index_cap = cap * 4;
    l->cap = cap;
    for (size_t i = 1; i < l->n; i++)
        *index_of(l, gw_str_c(l->repos[i].name)) = (uint32_t)i;
    return true;
}

/* The number of a repository; 0: no memory. */
static uint32_t repo_of(struct ls *l, struct gw_str name)
{
    uint32_t *at;

    if (l->n + 1 >= l->cap && !grow(l))
        return 0;
    at = index_of(l, name);
    if (*at == 0) {
        l->repos[l->n] = (struct repo){.name = gw_strndup(name.p, name.n)};
        if (l->repos[l->n].name == NULL)
            return 0;
        *at = (uint32_t)l->n++;
    }
    return *at;
}

/* "type\nns\nname\ncommit\npath" -> its parts. false: not such a name */
static bool file_name(struct gw_str name, struct policy_object *o)
{
    struct gw_str rest = name;

    if (!gw_str_split(&rest, '\n', &o->type) || !gw_str_split(&rest, '\n', &o->ns) ||
        !gw_str_split(&rest, '\n', &o->name) || !gw_str_split(&rest, '\n', &o->commit))
        return false;
    o->path = rest;
    return rest.p != NULL;
}

static bool digest_of(const struct cache_record *rec, struct hub_entry *e, struct gw_str *digest)
{
    if (rec->status != GW_OK || hub_entry_decode(e, rec->value, NULL) != GW_OK || e->directory)
        return false;
    *digest = gw_str_c(e->lfs ? e->sha256 : e->oid);
    return true;
}

static int count_file(void *ctx, struct gw_str name, const struct cache_record *rec)
{
    struct ls *l = ctx;
    struct policy_object o = {0};
    struct gw_str digest;
    struct hub_entry e;
    struct slot *held, *seen;
    uint8_t key[KEY];
    char text[1200];
    uint32_t repo;
    int n;

    if (!file_name(name, &o) || !digest_of(rec, &e, &digest) || !key_of(digest, key) ||
        l->held.cap == 0 || policy_is_private(l->policy, o.ns))
        return GW_OK;
    held = slot_of(&l->held, key, 0);
    if (held->used == 0)
        return GW_OK;
    n = snprintf(text, sizeof(text), GW_STR_FMT ":" GW_STR_FMT "%s" GW_STR_FMT, GW_STR_ARG(o.type),
                 GW_STR_ARG(o.ns), o.ns.n ? "/" : "", GW_STR_ARG(o.name));
    if (n <= 0 || (size_t)n >= sizeof(text))
        return GW_OK;
    repo = repo_of(l, (struct gw_str){text, (size_t)n});
    seen = repo ? table_put(&l->seen, key, repo) : NULL;
    if (seen == NULL)
        return GW_NO_MEMORY;
    if (seen->used != 0)
        return GW_OK; /* in another commit or under another path, too */
    seen->used = held->used;
    l->repos[repo].files++;
    l->repos[repo].bytes += held->bytes;
    if (l->repos[repo].used < held->used)
        l->repos[repo].used = held->used;
    return GW_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct repo *)a)->name, ((const struct repo *)b)->name);
}

static void mark_pinned(struct gateway *gw, struct ls *l)
{
    struct gw_str *pins, text;
    struct policy_object o;
    struct gw_arena a;
    struct gw_error err;
    size_t n;

    gw_arena_init(&a, 16u << 20);
    if (pins_load(gw, &a, &pins, &n, &err) == GW_OK)
        for (size_t i = 0; i < n && l->n > 1; i++) {
            if (held_resource(gw, pins[i], &a, &o, &err) != GW_OK)
                continue;
            text =
                gw_arena_printf(&a, GW_STR_FMT ":" GW_STR_FMT "%s" GW_STR_FMT, GW_STR_ARG(o.type),
                                GW_STR_ARG(o.ns), o.ns.n ? "/" : "", GW_STR_ARG(o.name));
            if (text.p != NULL && *index_of(l, text) != 0)
                l->repos[*index_of(l, text)].pinned = true;
        }
    gw_arena_release(&a);
}

static void print_repos(struct ls *l, bool json)
{
    char when[GW_ISO_LEN + 1], size[32];

    if (!json && l->n > 1)
        printf("%12s %8s  %-20s  %s\n", "SIZE", "FILES", "LAST USE", "REPOSITORY");
    if (json)
        putchar('[');
    for (size_t i = 1; i < l->n; i++) {
        const struct repo *r = &l->repos[i];
        gw_iso_format(when, r->used);
        if (json) {
            printf("%s{\"repo\":", i > 1 ? ",\n " : "");
            cli_put_text(stdout, gw_str_c(r->name), true);
            printf(",\"files\":%" PRIu64 ",\"bytes\":%" PRIu64
                   ",\"last_use\":\"%s\",\"pinned\":%s}",
                   r->files, r->bytes, when, r->pinned ? "true" : "false");
        } else {
            printf("%12s %8" PRIu64 "  %.19sZ  ", cli_size(size, r->bytes), r->files, when);
            cli_put_text(stdout, gw_str_c(r->name), false);
            puts(r->pinned ? "  (pinned)" : "");
        }
    }
    if (json)
        puts("]");
}

int cli_cache_ls(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct gw_error err;
    struct ls l = {.n = 1};
    int rc;

    if (cli->argc != 0)
        return cli_usage("cache ls");
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    l.policy = gw->policy;
    rc = grow(&l) ? GW_OK : gw_fail(&err, GW_NO_MEMORY, 0, "no memory");
    if (rc == GW_OK)
        rc = cache_each_blob(gw->cache, add_blob, &l.held, &err);
    if (rc == GW_OK)
        rc = cache_each(gw->cache, CACHE_FILE, count_file, &l, &err);
    if (rc == GW_OK) {
        mark_pinned(gw, &l);
        qsort(l.repos + 1, l.n - 1, sizeof(*l.repos), by_name);
        print_repos(&l, cli->json);
    } else {
        cli_error("%s", rc == GW_NO_MEMORY ? "no memory" : err.text);
    }
    for (size_t i = 1; i < l.n; i++)
        gw_free(l.repos[i].name);
    gw_free(l.repos);
    gw_free(l.index);
    gw_free(l.held.slots);
    gw_free(l.seen.slots);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : 2;
}

/* ---- stat ---- */

int cli_cache_stat(struct cli *cli)
{
    char a[32], b[32], when[GW_ISO_LEN + 1] = "";
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct cache_held h;
    struct gw_arena arena;
    struct gw_error err;
    struct gw_str *pins;
    size_t n = 0;
    int rc;

    if (cli->argc != 0)
        return cli_usage("cache stat");
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    gw_arena_init(&arena, 16u << 20);
    rc = cache_held(gw->cache, &h, &err);
    if (rc == GW_OK)
        rc = pins_load(gw, &arena, &pins, &n, &err);
    if (rc == GW_OK && h.scrub_started_ms != 0)
        gw_iso_format(when, h.scrub_started_ms);
    if (rc != GW_OK) {
        cli_error("%s", err.text);
    } else if (cli->json) {
        printf("{\"max_bytes\":%" PRIu64 ",\"used_bytes\":%" PRIu64 ",\"blobs\":%" PRIu64
               ",\"blob_bytes\":%" PRIu64 ",\"parts\":%" PRIu64 ",\"part_bytes\":%" PRIu64
               ",\"pins\":%zu,\"disk_free\":%" PRIu64 ",\"disk_bytes\":%" PRIu64
               ",\"scrub\":{\"started\":%s%s%s,\"bytes\":%" PRIu64 "}}\n",
               h.max_bytes, h.blob_bytes + h.part_bytes, h.blobs, h.blob_bytes, h.parts,
               h.part_bytes, n, h.disk_free, h.disk_bytes, when[0] ? "\"" : "",
               when[0] ? when : "null", when[0] ? "\"" : "", h.scrub_bytes);
    } else {
        printf("budget   %s\n", h.max_bytes ? cli_size(a, h.max_bytes) : "none");
        printf("used     %s", cli_size(a, h.blob_bytes + h.part_bytes));
        if (h.max_bytes)
            printf(" (%d %%)",
                   (int)((double)(h.blob_bytes + h.part_bytes) * 100 / (double)h.max_bytes));
        printf("\nblobs    %" PRIu64 ", %s\n", h.blobs, cli_size(a, h.blob_bytes));
        printf("parts    %" PRIu64 ", %s\n", h.parts, cli_size(a, h.part_bytes));
        printf("pins     %zu\n", n);
        printf("disk     %s free of %s\n", cli_size(a, h.disk_free), cli_size(b, h.disk_bytes));
        if (when[0])
            printf("checked  %s since %s\n", cli_size(a, h.scrub_bytes), when);
        else
            puts("checked  nothing yet");
    }
    gw_arena_release(&arena);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : 2;
}

/* ---- pin, unpin ---- */

static int print_pins(struct gateway *gw, bool json, struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str *pins;
    size_t n;
    int rc;

    gw_arena_init(&a, 16u << 20);
    rc = pins_load(gw, &a, &pins, &n, err);
    if (json && rc == GW_OK)
        putchar('[');
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        if (json && i > 0)
            fputs(",\n ", stdout);
        cli_put_text(stdout, pins[i], json);
        if (!json)
            putchar('\n');
    }
    if (json && rc == GW_OK)
        puts("]");
    gw_arena_release(&a);
    return rc;
}

struct counted {
    struct gw_str path;
    size_t files;
};

static int count_entry(void *ctx, const struct hub_entry *e)
{
    struct counted *c = ctx;

    c->files += held_path(c->path, e->path);
    return GW_OK;
}

static int pin(struct gateway *gw, const char *word, bool add, struct gw_error *err)
{
    struct counted counted = {0};
    struct policy_object o;
    struct held_commit c;
    struct gw_arena a;
    struct gw_str text;
    int rc;

    gw_arena_init(&a, 1u << 20);
    rc = held_resource(gw, gw_str_c(word), &a, &o, err);
    if (rc != GW_OK) {
        gw_arena_release(&a);
        return rc;
    }
    /* one spelling, so that it is found again */
    text = gw_arena_printf(
        &a, GW_STR_FMT ":" GW_STR_FMT "%s" GW_STR_FMT "%s" GW_STR_FMT "%s" GW_STR_FMT,
        GW_STR_ARG(o.type), GW_STR_ARG(o.ns), o.ns.n ? "/" : "", GW_STR_ARG(o.name),
        o.revision.n ? "@" : "", GW_STR_ARG(o.revision), o.path.n ? "//" : "", GW_STR_ARG(o.path));
    rc = text.p ? pins_change(gw, text, add, err) : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    if (rc == GW_OK && add) {
        counted.path = o.path;
        if (held_commit(gw, &o, &a, &c) == GW_OK &&
            held_files(gw, &c, false, count_entry, &counted, err) == GW_OK)
            printf("pinned " GW_STR_FMT ": %zu files of %.12s\n", GW_STR_ARG(text), counted.files,
                   c.commit.p);
        else
            printf("pinned " GW_STR_FMT
                   ": its files are not known yet; hubgate cache prefetch gets them\n",
                   GW_STR_ARG(text));
        rc = pins_refresh(gw, err);
    } else if (rc == GW_OK) {
        printf("not pinned any more: " GW_STR_FMT "\n", GW_STR_ARG(text));
        rc = pins_refresh(gw, err);
    }
    gw_arena_release(&a);
    return rc;
}

static int change_pin(struct cli *cli, const char *words, bool add)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct gw_error err;
    int rc;

    if (cli->argc != (add && cli->list ? 0 : 1))
        return cli_usage(words);
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    rc = add && cli->list ? print_pins(gw, cli->json, &err) : pin(gw, cli->argv[0], add, &err);
    if (rc != GW_OK)
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : rc == GW_CONFLICT ? 1 : 2;
}

int cli_cache_pin(struct cli *cli)
{
    return change_pin(cli, "cache pin", true);
}

int cli_cache_unpin(struct cli *cli)
{
    return change_pin(cli, "cache unpin", false);
}

/* ---- evict ---- */

struct evict {
    struct policy_object o;
    struct gw_str commit; /* empty: all */
    struct table found;
    struct gw_buf digests; /* hex, one after the other, with '\n' */
};

static int find_file(void *ctx, struct gw_str name, const struct cache_record *rec)
{
    struct evict *v = ctx;
    struct policy_object o = {0};
    struct gw_str digest;
    struct hub_entry e;
    struct slot *s;
    uint8_t key[KEY];

    if (!file_name(name, &o) || !gw_str_eq(o.type, v->o.type) || !gw_str_ieq(o.ns, v->o.ns) ||
        !gw_str_ieq(o.name, v->o.name) || (v->commit.n && !gw_str_eq(o.commit, v->commit)) ||
        !held_path(v->o.path, o.path) || !digest_of(rec, &e, &digest) || !key_of(digest, key))
        return GW_OK;
    s = table_put(&v->found, key, 0);
    if (s == NULL)
        return GW_NO_MEMORY;
    if (s->used == 0) {
        s->used = 1;
        gw_buf_add(&v->digests, digest);
        gw_buf_add_char(&v->digests, '\n');
    }
    return v->digests.failed ? GW_NO_MEMORY : GW_OK;
}

static int evict_resource(struct gateway *gw, const char *word, struct gw_error *err)
{
    uint64_t n = 0, pinned = 0, busy = 0, bytes = 0, freed;
    struct evict v = {0};
    struct held_commit c;
    struct gw_arena a;
    struct gw_str rest, digest;
    char size[32];
    int rc;

    gw_arena_init(&a, 1u << 20);
    gw_buf_init(&v.digests, 1u << 30);
    rc = held_resource(gw, gw_str_c(word), &a, &v.o, err);
    if (rc == GW_OK && v.o.revision.n) {
        rc = held_commit(gw, &v.o, &a, &c);
        if (rc != GW_OK)
            gw_fail(err, rc, 0, "%s: this revision is not known here", word);
        else
            v.commit = c.commit;
    }
    if (rc == GW_OK)
        rc = pins_refresh(gw, err);
    if (rc == GW_OK)
        rc = cache_each(gw->cache, CACHE_FILE, find_file, &v, err);
    rest = gw_buf_str(&v.digests);
    while (rc == GW_OK && rest.n != 0 && gw_str_split(&rest, '\n', &digest)) {
        rc = cache_evict(gw->cache, digest, &freed, err);
        n += rc == GW_OK;
        pinned += rc == GW_FORBIDDEN;
        busy += rc == GW_CONFLICT;
        bytes += rc == GW_OK ? freed : 0;
        if (rc == GW_NOT_FOUND || rc == GW_FORBIDDEN || rc == GW_CONFLICT)
            rc = GW_OK;
    }
    if (rc == GW_OK)
        printf("evicted %" PRIu64 " files, %s%s%s\n", n, cli_size(size, bytes),
               pinned ? "; pinned ones stay" : "", busy ? "; what is being fetched stays" : "");
    gw_free(v.found.slots);
    gw_buf_release(&v.digests);
    gw_arena_release(&a);
    return rc == GW_OK && n == 0 ? GW_NOT_FOUND : rc;
}

static int evict_to(struct gateway *gw, uint64_t bytes, struct gw_error *err)
{
    uint64_t n = 0, freed = 0;
    char size[32];
    int rc = pins_refresh(gw, err);

    if (rc == GW_OK)
        rc = cache_evict_to(gw->cache, bytes, &n, &freed, err);
    if (rc == GW_OK || rc == GW_UNAVAILABLE)
        printf("evicted %" PRIu64 " files, %s\n", n, cli_size(size, freed));
    if (rc == GW_UNAVAILABLE)
        cli_error("%s", err->text);
    return rc;
}

int cli_cache_evict(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct gw_error err;
    uint64_t bytes = 0;
    int rc;

    if (cli->argc != (cli->to ? 0 : 1))
        return cli_usage("cache evict");
    if (cli->to && !gw_bytes_parse(gw_str_c(cli->to), &bytes))
        return cli_error("--to: a size such as 500GiB, not \"%s\"", cli->to);
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    rc = cli->to ? evict_to(gw, bytes, &err) : evict_resource(gw, cli->argv[0], &err);
    if (rc != GW_OK && rc != GW_UNAVAILABLE && rc != GW_NOT_FOUND)
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : rc == GW_UNAVAILABLE || rc == GW_NOT_FOUND ? 1 : 2;
}

/* ---- verify ---- */

struct verifying {
    struct cli_bar bar;
    bool json;
    size_t n;
};

static void show_verify(void *ctx, const struct cache_verify *v)
{
    struct verifying *shown = ctx;

    cli_bar(&shown->bar, v->bytes, v->total_bytes, GW_STR(""));
}

static void print_damaged(void *ctx, struct gw_str digest, const char *what, bool shared)
{
    struct verifying *shown = ctx;

    cli_bar_end(&shown->bar);
    if (shown->json)
        printf("%s{\"digest\":\"" GW_STR_FMT "\",\"what\":\"%s\",\"in_data\":%s}",
               shown->n++ ? ",\n  " : "", GW_STR_ARG(digest), what, shared ? "true" : "false");
    else
        printf("damaged " GW_STR_FMT ": %s; removed%s\n", GW_STR_ARG(digest), what,
               shared ? ". data/ has the same file: restore it" : "");
}

int cli_cache_verify(struct cli *cli)
{
    struct verifying shown = {.json = cli->json};
    struct cache_verify v = {.progress = show_verify, .damaged = print_damaged, .ctx = &shown};
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct gw_error err;
    char size[32];
    int rc;

    if (cli->argc != 0)
        return cli_usage("cache verify");
    if (cli->rate && !gw_bytes_parse(gw_str_c(cli->rate), &v.rate))
        return cli_error("--rate: bytes per second such as 50MiB, not \"%s\"", cli->rate);
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    if (cli->json)
        fputs("{\"damaged\":[", stdout);
    rc = cache_verify_all(gw->cache, &v, &err);
    cli_bar(&shown.bar, v.bytes, v.bytes, GW_STR(""));
    cli_bar_end(&shown.bar);
    if (cli->json)
        printf("],\n \"blobs\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"complete\":%s}\n", v.blobs,
               v.bytes, rc == GW_OK ? "true" : "false");
    else if (rc == GW_OK)
        printf("%" PRIu64 " files, %s: %" PRIu64 " damaged\n", v.blobs, cli_size(size, v.bytes),
               v.n_damaged);
    if (rc != GW_OK)
        cli_error("%s", err.text);
    cli_close(gw, s);
    return rc != GW_OK ? 2 : v.n_damaged ? 1 : 0;
}
