/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefetch.c - `hubgate cache prefetch`: fetches whole repositories into the cache, by the jobs and
 * the fetcher that serve requests, in this process. Beside running workers it is one more of them:
 * a file that one of both fetches already is followed, not fetched twice, and a large file that is
 * not whole when the command is stopped is finished by a worker.
 */
#include "gateway/cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define SMALL_THREADS 8u
#define LARGE_AT_ONCE 4u
#define LINES_BYTES_MAX (1u << 20)
#define TRIES 3u
#define JOBS_MAX 64u

struct file {
    struct file *next;
    struct gw_str digest, target; /* in the arena; target: on the upstream */
    uint64_t size;
    /* large ones */
    struct cache_reader *reader;
    uint64_t at; /* bytes that are here */
    unsigned tries;
    bool proven;
};

struct prefetch {
    struct gateway *gw;
    struct gw_arena a;
    struct cli_bar bar;
    struct gateway_job *jobs[JOBS_MAX]; /* of the corridor: hashing, publishing, upkeep */
    size_t n_jobs;
    struct file *small, *large;
    /* of the repo being listed */
    const struct held_commit *commit;
    size_t files, missing;
    /* under the mutex */
    pthread_mutex_t mutex;
    struct file *next_small;
    uint64_t total, done;
    size_t failed;
};

/* ---- listing ---- */

static bool is_held(struct gateway *gw, struct gw_str digest)
{
    return cache_blob_prove(gw->cache, digest, NULL) == GW_OK;
}

static struct gw_str target_of(struct prefetch *p, const struct hub_entry *e)
{
    struct hub_target t = {.route = HUB_RESOLVE, .has_repo = true, .path = e->path};

    if (!hub_type_parse(p->commit->type, &t.type))
        return (struct gw_str){NULL, 0};
    t.ns = p->commit->ns;
    t.name = p->commit->name;
    return upstream_target(&p->a, &t, p->commit->commit);
}

static int add_file(void *ctx, const struct hub_entry *e)
{
    struct prefetch *p = ctx;
    struct file **list = e->size <= CACHE_SMALL_MAX ? &p->small : &p->large, *f;
    struct gw_str digest = gw_str_c(e->lfs ? e->sha256 : e->oid);

    p->files++;
    if (e->size == 0 || is_held(p->gw, digest))
        return GW_OK; /* empty files are answered without a blob */
    f = gw_arena_alloc(&p->a, sizeof(*f));
    if (f == NULL)
        return GW_NO_MEMORY;
    f->digest = gw_arena_dup(&p->a, digest);
    f->target = target_of(p, e);
    f->size = e->size;
    if (f->digest.p == NULL || f->target.p == NULL)
        return GW_NO_MEMORY;
    f->next = *list;
    *list = f;
    p->total += e->size;
    p->missing++;
    return GW_OK;
}

static int run_want(struct prefetch *p, enum gw_peer peer, struct gw_str key, struct gw_error *err)
{
    struct gw_want want = {.peer = peer, .key = key, .arg = GW_STR("")};

    return wants_run(p->gw, &want, err);
}

/* What clients ask first, then the tree, which answers for all its files; then what is missing. */
static int list_repo(struct prefetch *p, struct gw_str word, struct gw_error *err)
{
    struct policy_object o;
    struct held_commit c;
    int rc = held_resource(p->gw, word, &p->a, &o, err);

    if (rc == GW_OK && o.path.n)
        rc = gw_fail(err, GW_INVALID, 0, "a repository is fetched whole: REPO[@REV]");
    if (rc != GW_OK)
        return rc;
    rc = run_want(p, GW_PEER_UPSTREAM,
                  FACT_JOIN(&p->a, GW_STR("info"), o.type, o.ns, o.name,
                            o.revision.n ? o.revision : GW_STR("main"), GW_STR("")),
                  err);
    if (rc != GW_OK)
        return rc;
    if (held_commit(p->gw, &o, &p->a, &c) != GW_OK)
        return gw_fail(err, GW_NOT_FOUND, 0,
                       "upstream has no such repository or revision, or does not let the "
                       "gateway's account read it");
    rc = run_want(p, GW_PEER_UPSTREAM,
                  FACT_JOIN(&p->a, GW_STR("wholetree"), c.type, c.ns, c.name, c.commit), err);
    if (rc != GW_OK)
        return rc;
    p->commit = &c;
    p->files = p->missing = 0;
    rc = held_files(p->gw, &c, true, add_file, p, err);
    if (rc == GW_OK) {
        cli_put_text(stdout, word, false);
        printf(" at %.12s: %zu files, %zu of them to be fetched\n", c.commit.p, p->files,
               p->missing);
        fflush(stdout);
    }
    return rc;
}

/* ---- fetching ---- */

static void failed(struct prefetch *p, const struct file *f, const char *why)
{
    pthread_mutex_lock(&p->mutex);
    p->failed++;
    p->done += f->size - f->at;
    cli_bar_end(&p->bar);
    cli_error(GW_STR_FMT ": %s", GW_STR_ARG(f->target), why);
    pthread_mutex_unlock(&p->mutex);
}

static void *fetch_small(void *ctx)
{
    struct prefetch *p = ctx;
    struct gw_error err;
    struct gw_arena a;
    struct gw_want want;
    struct file *f;
    int rc;

    for (;;) {
        pthread_mutex_lock(&p->mutex);
        f = p->next_small;
        p->next_small = f != NULL ? f->next : NULL;
        pthread_mutex_unlock(&p->mutex);
        if (f == NULL)
            return NULL;
        gw_arena_init(&a, 64u << 10);
        want = (struct gw_want){
            .peer = GW_PEER_UPSTREAM,
            .key = FACT_JOIN(&a, GW_STR("blob"), f->digest),
            .arg =
                FACT_JOIN(&a, gw_arena_printf(&a, "%llu", (unsigned long long)f->size), f->target)};
        rc = GW_UNAVAILABLE;
        for (unsigned i = 0; i < TRIES && (rc == GW_UNAVAILABLE || rc == GW_TIMEOUT); i++)
            rc = wants_run(p->gw, &want, &err);
        gw_arena_release(&a);
        if (rc != GW_OK) {
            failed(p, f, err.text);
            continue;
        }
        pthread_mutex_lock(&p->mutex);
        p->done += f->size;
        pthread_mutex_unlock(&p->mutex);
    }
}

enum state { GOING, WHOLE, LOST };

/* Follows a fill as a response would: what is there, then the rest once it is proven. */
static enum state follow(struct prefetch *p, struct file *f, struct gw_error *err)
{
    struct cache_source src = {.target = f->target, .all = true};
    struct cache *c = p->gw->cache;
    uint64_t avail;
    uint64_t max = p->gw->config->cache.max_bytes;
    bool final;
    int rc;

    if (max != 0 && f->size > max) { /* it may be there just now, and does not stay */
        gw_fail(err, GW_TOO_LARGE, 0, "larger than cache.max_bytes");
        return LOST;
    }
    if (f->reader == NULL) {
        rc = cache_reader_open(&f->reader, c, f->digest, f->size, f->target, err);
        if (rc == GW_CONFLICT)
            return WHOLE;
        if (rc == GW_AGAIN) {
            if (f->tries++ == TRIES)
                return LOST;
            f->at = 0;
            f->proven = false;
            rc = cache_part_create(c, f->digest, f->size, &src, err);
            return rc == GW_OK ? GOING : LOST;
        }
        if (rc != GW_OK)
            return LOST;
    }
    if (f->proven) { /* it gets its name in a moment */
        if (is_held(p->gw, f->digest))
            return WHOLE;
        cache_reader_close(f->reader);
        f->reader = NULL;
        return GOING;
    }
    do {
        rc = cache_reader_want(f->reader, f->at, f->size, f->at, &avail, err);
        f->at += rc == GW_OK ? avail : 0;
    } while (rc == GW_OK && avail > 0 && f->at < f->size);
    f->proven = f->at == f->size;
    if (rc == GW_OK)
        return GOING;
    final = rc == GW_FORBIDDEN && !cache_reader_other_failed(f->reader);
    cache_reader_close(f->reader);
    f->reader = NULL;
    return final || f->tries++ >= TRIES ? LOST : GOING;
}

static bool on_post(void *ctx, struct gateway_job *job)
{
    struct prefetch *p = ctx;

    if (p->n_jobs == JOBS_MAX)
        return false;
    p->jobs[p->n_jobs++] = job;
    return true;
}

/* The loop, without nginx: a job, here; then whatever became of it. */
static void run_loop(struct prefetch *p, int wait_ms)
{
    struct pollfd wake = {.fd = gateway_eventfd(p->gw), .events = POLLIN};

    gateway_tick(p->gw);
    while (p->n_jobs > 0) {
        struct gateway_job *job = p->jobs[0];

        p->n_jobs--;
        memmove(p->jobs, p->jobs + 1, p->n_jobs * sizeof(p->jobs[0]));
        gateway_job_run(job);
        gateway_job_done(job);
        wait_ms = 0;
    }
    (void)poll(&wake, 1, wait_ms); /* the next tick empties it */
}

static void show(struct prefetch *p, const struct file *active[LARGE_AT_ONCE])
{
    const struct file *first = NULL;
    uint64_t done;

    pthread_mutex_lock(&p->mutex);
    done = p->done;
    for (size_t i = 0; i < LARGE_AT_ONCE; i++)
        if (active[i] != NULL) {
            done += active[i]->at;
            first = first != NULL ? first : active[i];
        }
    cli_bar(&p->bar, done, p->total, first != NULL ? first->target : GW_STR(""));
    pthread_mutex_unlock(&p->mutex);
}

static void fetch_large(struct prefetch *p)
{
    struct file *active[LARGE_AT_ONCE] = {NULL}, *next = p->large;
    struct gw_error err = {.text = "it comes and goes"};
    bool busy = true;

    while (busy) {
        busy = next != NULL;
        for (size_t i = 0; i < LARGE_AT_ONCE; i++) {
            struct file *f = active[i];
            enum state state;

            if (f == NULL) {
                active[i] = next;
                next = next != NULL ? next->next : NULL;
                busy = busy || active[i] != NULL;
                continue;
            }
            busy = true;
            state = follow(p, f, &err);
            if (state == GOING)
                continue;
            if (state == LOST)
                failed(p, f, err.text);
            pthread_mutex_lock(&p->mutex);
            p->done += state == WHOLE ? f->size : f->at;
            pthread_mutex_unlock(&p->mutex);
            cache_reader_close(f->reader);
            f->reader = NULL;
            active[i] = NULL;
        }
        show(p, (const struct file **)active);
        run_loop(p, 100);
    }
}

static bool small_left(struct prefetch *p)
{
    bool left;

    pthread_mutex_lock(&p->mutex);
    left = p->done < p->total;
    pthread_mutex_unlock(&p->mutex);
    return left;
}

static void fetch_all(struct prefetch *p)
{
    static const struct file *none[LARGE_AT_ONCE];
    pthread_t threads[SMALL_THREADS];
    unsigned n = 0;

    p->next_small = p->small;
    while (n < SMALL_THREADS && p->small != NULL &&
           pthread_create(&threads[n], NULL, fetch_small, p) == 0)
        n++;
    if (n == 0 && p->small != NULL)
        fetch_small(p);
    fetch_large(p);
    while (small_left(p)) {
        show(p, none);
        run_loop(p, 100);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    show(p, none);
    cli_bar_end(&p->bar);
}

/* ---- the command ---- */

/* Lines of a file, "-" is stdin. */
static int read_lines(struct prefetch *p, const char *path, struct gw_str *text,
                      struct gw_error *err)
{
    struct gw_buf b;
    char piece[4096];
    size_t n;
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");

    if (f == NULL)
        return gw_fail(err, GW_IO, errno, "%s: %s", path, strerror(errno));
    gw_buf_init(&b, LINES_BYTES_MAX);
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
        gw_buf_add(&b, (struct gw_str){piece, n});
    if (f != stdin)
        fclose(f);
    *text = b.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(&p->a, gw_buf_str(&b));
    gw_buf_release(&b);
    return text->p != NULL ? GW_OK
                           : gw_fail(err, GW_TOO_LARGE, 0, "%s: more than 1 MiB of lines", path);
}

static size_t list_one(struct prefetch *p, struct gw_str word)
{
    struct gw_error err;

    if (list_repo(p, word, &err) == GW_OK)
        return 0;
    cli_error(GW_STR_FMT ": %s", GW_STR_ARG(word), err.text);
    return 1;
}

int cli_cache_prefetch(struct cli *cli)
{
    struct prefetch p = {0};
    struct gateway_snapshot *s;
    struct gw_str text = GW_STR(""), line;
    struct gw_error err;
    size_t bad = 0;
    char size[32];
    int rc = GW_OK;

    if (cli->argc == 0 && cli->file == NULL)
        return cli_usage("cache prefetch");
    gw_arena_init(&p.a, 1u << 30);
    if (cli->file != NULL) /* before rights are given up */
        rc = read_lines(&p, cli->file, &text, &err);
    if (rc != GW_OK) {
        gw_arena_release(&p.a);
        return cli_error("%s", err.text);
    }
    p.gw = cli_open_fetching(cli, &s, on_post, &p);
    if (p.gw == NULL) {
        gw_arena_release(&p.a);
        return 2;
    }
    pthread_mutex_init(&p.mutex, NULL);
    for (int i = 0; i < cli->argc; i++)
        bad += list_one(&p, gw_str_c(cli->argv[i]));
    while (text.n != 0 && gw_str_split(&text, '\n', &line)) {
        line = gw_str_trim(line);
        if (line.n != 0 && line.p[0] != '#')
            bad += list_one(&p, line);
    }
    fetch_all(&p);
    printf("%s fetched%s\n", cli_size(size, p.total), p.failed || bad ? ", not all" : "");
    cli_close(p.gw, s);
    pthread_mutex_destroy(&p.mutex);
    gw_arena_release(&p.a);
    return p.failed || bad ? 1 : 0;
}
