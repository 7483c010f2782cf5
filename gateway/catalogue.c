/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalogue.c - cards of private repositories: read from data/ after each change, swept now and
 * then, and what was downloaded.
 *
 * A sweep goes over all of data/repos in slices of a job (one worker of the node at a time) and
 * makes the cards whose commit or name is not the repository's, then removes those without one. Its
 * place is in the index, beside the cards: a new index begins a new one.
 *
 *   state   "1", when the last sweep ended (wall ms; 0: never), the repository this one has come to
 *           ("": none is under way), a line each
 */
#include "gateway/catalogue.h"

#include "gateway/jobs.h"

#include <errno.h>
#include <stdio.h>

#define README_MAX (1u << 20)
#define SIBLINGS_MAX 500u
#define SIBLING_BYTES_MAX (24u << 10) /* of their paths: a longer list is not in the card */
#define WORD_MAX 256u
#define SLICE_MS 1500
#define SWEEP_EVERY_MS 600000
#define LOOK_EVERY_MS 1000
#define COUNT_EVERY_MS 60000
#define CARD_ARENA_MAX (64u << 20)

uint8_t catalogue_type(enum hub_type type)
{
    return (uint8_t)(type + 1);
}

bool catalogue_value(const struct cache_card *card, struct gw_str *commit, struct gw_str *info)
{
    *info = card->value;
    return gw_str_split(info, '\n', commit) && info->p != NULL;
}

/* ---- one card ---- */

struct reading {
    struct hub_info info;
    uint64_t files, path_bytes;
    struct gw_buf *out;
};

static int add_file(void *ctx, const struct repo_entry *e)
{
    struct reading *r = ctx;

    if (e->directory)
        return GW_OK;
    r->info.used_bytes += e->size;
    r->files++;
    r->path_bytes += e->path.n;
    hub_info_note_file(&r->info, e->path);
    return GW_OK;
}

static int add_sibling(void *ctx, const struct repo_entry *e)
{
    struct reading *r = ctx;
    struct hub_entry h = {.directory = e->directory, .path = e->path};

    hub_info_sibling(r->out, &r->info, &h);
    return GW_OK;
}

/* The README's head; whatever is wrong with it, the repository has a card. */
struct gw_str catalogue_card_json(struct repo *r, const char commit[41], struct gw_arena *a)
{
    struct gw_str readme, json = GW_STR("");
    struct repo_entry e;
    struct gw_buf b;

    if (repo_entry(r, commit, GW_STR("README.md"), &e, NULL) != GW_OK || e.directory || e.lfs ||
        e.symlink || e.size > README_MAX ||
        repo_blob(r, e.oid, README_MAX, a, &readme, NULL) != GW_OK)
        return json;
    gw_buf_init(&b, 64u << 10);
    hub_card_json(&b, readme, a);
    if (!b.failed && b.n != 0)
        json = gw_arena_dup(a, gw_buf_str(&b));
    gw_buf_release(&b);
    return json.p != NULL ? json : GW_STR("");
}

static bool has_line(struct gw_str lines, struct gw_str line)
{
    struct cache_card card = {.words = lines};

    return cache_card_has(&card, line);
}

static void add_word(struct gw_buf *words, size_t *n, struct gw_str word)
{
    if (word.n == 0 || word.n > WORD_MAX || *n == CACHE_WORDS_MAX ||
        memchr(word.p, '\n', word.n) != NULL || has_line(gw_buf_str(words), word))
        return;
    if (words->n != 0)
        gw_buf_add_char(words, '\n');
    gw_buf_add(words, word);
    (*n)++;
}

/* Found by its namespace, and by the tags that the document shows. */
static int words_of(struct gw_buf *words, struct gw_str ns, struct gw_str document)
{
    struct gw_json *root = NULL;
    const struct gw_json *tags;
    char author[160];
    size_t n = 1;
    int rc = gw_json_parse(&root, document, NULL);

    if (rc == GW_NO_MEMORY)
        return rc;
    for (size_t i = 0; i < ns.n && i < 120; i++)
        author[i] = ns.p[i] >= 'A' && ns.p[i] <= 'Z' ? (char)(ns.p[i] + 32) : ns.p[i];
    gw_buf_add_c(words, "author:");
    gw_buf_add(words, (struct gw_str){author, ns.n < 120 ? ns.n : 120});
    tags = gw_json_get(root, "tags");
    for (size_t i = 0; gw_json_is_array(tags) && i < gw_json_count(tags); i++)
        add_word(words, &n, gw_json_string(gw_json_at(tags, i)));
    gw_json_free(root);
    return words->failed ? GW_NO_MEMORY : GW_OK;
}

/* Its document as a list shows it. */
static int write_document(struct repo *r, const char commit[41], struct gw_str type,
                          uint64_t downloads, struct gw_buf *out, struct cache_card *card,
                          struct gw_arena *a, struct gw_error *err)
{
    struct reading reading = {.out = out};
    struct hub_info *info = &reading.info;
    struct repo_commit *log;
    size_t n, total;
    int rc;

    if (!hub_type_parse(type, &info->type))
        return gw_fail(err, GW_INVALID, 0, "catalogue: type");
    rc = repo_log(r, commit, 0, 1, a, &log, &n, &total, err);
    if (rc == GW_OK)
        rc = repo_tree(r, commit, GW_STR(""), true, add_file, &reading, err);
    if (rc != GW_OK)
        return rc;
    info->sha = gw_str_c(commit);
    info->author = repo_canonical_ns(r);
    info->id = card->name;
    info->created_ms = repo_created_ms(r);
    info->modified_ms = n ? log[0].date_ms : info->created_ms;
    info->downloads = downloads;
    info->card_json = catalogue_card_json(r, commit, a);
    info->with_siblings = reading.files <= SIBLINGS_MAX && reading.path_bytes <= SIBLING_BYTES_MAX;
    hub_info_begin(out, info);
    if (info->with_siblings)
        rc = repo_tree(r, commit, GW_STR(""), true, add_sibling, &reading, err);
    hub_info_end(out, info);
    card->type = catalogue_type(info->type);
    card->sort[CACHE_BY_UPDATED] = info->modified_ms > 0 ? info->modified_ms : 0;
    card->sort[CACHE_BY_CREATED] = info->created_ms > 0 ? info->created_ms : 0;
    card->sort[CACHE_BY_DOWNLOADS] = (int64_t)(downloads & INT64_MAX);
    return rc == GW_OK ? gw_buf_ok(out, err) : rc;
}

static int put_card(struct gateway *gw, struct repo *r, const char commit[41], struct gw_str type,
                    struct gw_arena *a, struct gw_error *err)
{
    struct repo_id id = {type, repo_canonical_ns(r), repo_canonical_name(r)};
    struct gw_buf value, words;
    struct cache_card card = {
        .name =
            gw_arena_printf(a, GW_STR_FMT "/" GW_STR_FMT, GW_STR_ARG(id.ns), GW_STR_ARG(id.name)),
    };
    uint64_t downloads;
    int rc;

    if (card.name.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    gw_buf_init(&value, 1u << 20);
    gw_buf_init(&words, 64u << 10);
    if (repo_downloads(gw->config->data, &id, 0, &downloads, NULL) != GW_OK)
        downloads = 0;
    gw_buf_add_c(&value, commit);
    gw_buf_add_char(&value, '\n');
    rc = write_document(r, commit, type, downloads, &value, &card, a, err);
    if (rc == GW_OK) {
        card.value = gw_buf_str(&value);
        rc = words_of(&words, id.ns, gw_str_sub(card.value, 41, card.value.n));
        card.words = gw_buf_str(&words);
    }
    if (rc == GW_OK)
        rc = cache_card_put(gw->cache, &card, err);
    gw_buf_release(&value);
    gw_buf_release(&words);
    return rc;
}

static bool is_current(struct gateway *gw, const struct repo_id *id, struct gw_str name,
                       const struct cache_card *card, const char commit[41])
{
    struct gw_str of, document;
    uint64_t downloads;

    return gw_str_eq(card->name, name) && catalogue_value(card, &of, &document) &&
           gw_str_eq_c(of, commit) &&
           (repo_downloads(gw->config->data, id, 0, &downloads, NULL) != GW_OK ||
            downloads == (uint64_t)card->sort[CACHE_BY_DOWNLOADS]);
}

/* Made anew, unless it is of this commit, name and number of downloads. GW_OK also if there is no
 * such repository. */
static int refresh(struct gateway *gw, const struct repo_id *id, bool always, struct gw_error *err)
{
    struct gw_str name;
    struct cache_card card;
    struct gw_arena a;
    struct repo *r = NULL;
    enum hub_type type;
    char commit[41];
    int rc;

    if (!hub_type_parse(id->type, &type))
        return GW_OK;
    gw_arena_init(&a, CARD_ARENA_MAX);
    rc = repo_open(&r, gw->config->data, id, err);
    if (rc == GW_OK)
        rc = repo_resolve(r, GW_STR(""), commit, err);
    name = gw_arena_printf(&a, GW_STR_FMT "/" GW_STR_FMT,
                           GW_STR_ARG(r ? repo_canonical_ns(r) : id->ns),
                           GW_STR_ARG(r ? repo_canonical_name(r) : id->name));
    if (name.p == NULL)
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    if (rc == GW_NOT_FOUND)
        rc = cache_card_remove(gw->cache, catalogue_type(type), name, err);
    else if (rc == GW_OK &&
             (always ||
              cache_card_get(gw->cache, catalogue_type(type), name, &a, &card, NULL) != GW_OK ||
              !is_current(gw, id, name, &card, commit)))
        rc = put_card(gw, r, commit, id->type, &a, err);
    repo_close(r);
    gw_arena_release(&a);
    return rc;
}

void catalogue_repo_changed(struct gateway *gw, const struct repo_id *id)
{
    struct gw_error err;

    if (refresh(gw, id, false, &err) != GW_OK)
        gw_log_write(&gw->log, GW_LOG_WARN,
                     "catalogue: " GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT
                     ": %s; the next sweep tries it again",
                     GW_STR_ARG(id->type), GW_STR_ARG(id->ns), GW_STR_ARG(id->name), err.text);
}

/* ---- sweeps ---- */

struct state {
    int64_t ended_ms;
    struct gw_str marker;
};

static int state_read(struct gateway *gw, struct gw_arena *a, struct state *out,
                      struct gw_error *err)
{
    struct gw_str text, version, ended;
    uint64_t ms;
    int rc = cache_cards_state(gw->cache, a, &text, err);

    *out = (struct state){0, GW_STR("")};
    if (rc == GW_OK && gw_str_split(&text, '\n', &version) && gw_str_eq_c(version, "1") &&
        gw_str_split(&text, '\n', &ended) && gw_str_u64(ended, &ms) && ms <= INT64_MAX &&
        text.p != NULL)
        *out = (struct state){(int64_t)ms, text};
    return rc;
}

static int state_write(struct gateway *gw, struct gw_arena *a, const struct state *s,
                       struct gw_error *err)
{
    struct gw_str text =
        gw_arena_printf(a, "1\n%lld\n" GW_STR_FMT, (long long)s->ended_ms, GW_STR_ARG(s->marker));

    return text.p ? cache_cards_set_state(gw->cache, text, err)
                  : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
}

bool catalogue_is_whole(struct gateway *gw)
{
    struct gw_arena a;
    struct state s;
    bool whole;

    gw_arena_init(&a, 64u << 10);
    whole = state_read(gw, &a, &s, NULL) == GW_OK && s.ended_ms != 0;
    gw_arena_release(&a);
    return whole;
}

struct sweep {
    struct gateway *gw;
    bool all;
    int64_t until_ms;    /* monotonic */
    struct gw_str after; /* "0/ns/name.git", in the order of repo_each */
    char marker[CACHE_CARD_NAME_MAX];
    uint64_t n, total;
    const struct repo_progress *progress;
    struct gw_arena names; /* of cards that have no repository any more */
    struct gw_str *gone;
    size_t n_gone, cap_gone;
    enum hub_type type;
};

/* Folders in the order that they are walked in. */
static int by_place(struct gw_str a, struct gw_str b)
{
    struct gw_str x, y;

    while (gw_str_split(&a, '/', &x) && gw_str_split(&b, '/', &y)) {
        int cmp = gw_str_cmp(x, y);

        if (cmp != 0)
            return cmp;
    }
    return 0;
}

/* No other worker begins. */
static void still_at_it(const struct sweep *s)
{
    if (!s->gw->command)
        atomic_store(&s->gw->shared->catalogue_ms, gw_mono_ms());
}

static int sweep_one(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name)
{
    struct sweep *s = ctx;
    struct repo_id id = {type, ns, name};
    char rank = gw_str_eq_c(type, "model") ? '0' : gw_str_eq_c(type, "dataset") ? '1' : '2';
    char marker[CACHE_CARD_NAME_MAX];
    struct gw_error err;
    int n = snprintf(marker, sizeof(marker), "%c/" GW_STR_FMT "/" GW_STR_FMT ".git", rank,
                     GW_STR_ARG(ns), GW_STR_ARG(name));

    if (n < 0 || (size_t)n >= sizeof(marker) ||
        (s->after.n != 0 && by_place((struct gw_str){marker, (size_t)n}, s->after) <= 0))
        return GW_OK;
    if (gw_mono_ms() >= s->until_ms)
        return GW_AGAIN;
    if (atomic_load(&s->gw->cancelled))
        return GW_CANCELLED;
    if (refresh(s->gw, &id, s->all, &err) != GW_OK) {
        if (err.status == GW_IO && err.sys == ENOSPC)
            return err.status;
        gw_log_write(&s->gw->log, GW_LOG_WARN,
                     "catalogue: " GW_STR_FMT ":" GW_STR_FMT "/" GW_STR_FMT ": %s",
                     GW_STR_ARG(type), GW_STR_ARG(ns), GW_STR_ARG(name), err.text);
    }
    memcpy(s->marker, marker, (size_t)n + 1);
    s->n++;
    if (s->progress != NULL)
        s->progress->on(s->progress->ctx, s->n, s->total, name);
    still_at_it(s);
    return GW_OK;
}

static int collect(void *ctx, const struct cache_card *card, const struct cache_place *at)
{
    struct sweep *s = ctx;
    struct gw_str name = gw_arena_dup(&s->names, card->name);

    (void)at;
    if (s->n_gone == s->cap_gone) {
        size_t cap = s->cap_gone != 0 ? 2 * s->cap_gone : 1024;
        struct gw_str *more = gw_arena_alloc(&s->names, cap * sizeof(*more));

        if (more == NULL)
            return GW_NO_MEMORY;
        if (s->n_gone != 0)
            memcpy(more, s->gone, s->n_gone * sizeof(*more));
        s->gone = more;
        s->cap_gone = cap;
    }
    if (name.p == NULL)
        return GW_NO_MEMORY;
    s->gone[s->n_gone++] = name;
    return GW_OK;
}

/* Cards whose repository is not there any more: all names first, then a look at each. */
static int sweep_gone(struct sweep *s, struct gw_error *err)
{
    int rc = GW_OK;

    for (enum hub_type type = HUB_MODEL; rc == GW_OK && type <= HUB_SPACE; type++) {
        struct cache_card_query q = {.type = catalogue_type(type), .word = GW_STR("")};

        gw_arena_init(&s->names, 1u << 30);
        s->gone = NULL;
        s->n_gone = s->cap_gone = 0;
        rc = cache_cards(s->gw->cache, &q, collect, s, err);
        for (size_t i = 0; rc == GW_OK && i < s->n_gone; i++) {
            struct repo_id id = {.type = gw_str_c(hub_type_name(type)), .name = s->gone[i]};
            struct repo *r = NULL;

            still_at_it(s);
            if (atomic_load(&s->gw->cancelled))
                rc = gw_fail(err, GW_CANCELLED, 0, "the process ends");
            else if (gw_str_split(&id.name, '/', &id.ns) && id.name.p != NULL &&
                     repo_open(&r, s->gw->config->data, &id, NULL) == GW_NOT_FOUND)
                rc = cache_card_remove(s->gw->cache, q.type, s->gone[i], err);
            repo_close(r);
        }
        gw_arena_release(&s->names);
    }
    return rc;
}

/* key: catalogue */
int job_catalogue(struct gateway_job *job)
{
    struct gateway *gw = job->gw;
    struct sweep s = {.gw = gw, .until_ms = gw_mono_ms() + SLICE_MS};
    struct state state;
    int rc = state_read(gw, &job->arena, &state, &job->result.err);

    if (rc != GW_OK)
        return rc;
    if (state.marker.n == 0 && state.ended_ms != 0 &&
        gw_wall_ms() - state.ended_ms < SWEEP_EVERY_MS && state.ended_ms <= gw_wall_ms())
        return GW_OK;
    s.after = state.marker;
    rc = repo_each(gw->config->data, sweep_one, &s, &job->result.err);
    if (rc == GW_AGAIN) {
        if (s.marker[0] != '\0')
            state.marker = gw_str_c(s.marker);
        atomic_store(&gw->shared->catalogue_ms, 0); /* the next slice at the next tick */
        return state_write(gw, &job->arena, &state, &job->result.err);
    }
    if (rc == GW_OK)
        rc = sweep_gone(&s, &job->result.err);
    if (rc == GW_OK)
        rc = state_write(gw, &job->arena, &(struct state){gw_wall_ms(), GW_STR("")},
                         &job->result.err);
    return rc;
}

static int count_one(void *ctx, struct gw_str type, struct gw_str ns, struct gw_str name)
{
    (void)type;
    (void)ns;
    (void)name;
    ++*(uint64_t *)ctx;
    return GW_OK;
}

int catalogue_rebuild(struct gateway *gw, bool all, const struct repo_progress *progress,
                      uint64_t *n, struct gw_error *err)
{
    struct sweep s = {.gw = gw, .all = all, .until_ms = INT64_MAX, .progress = progress};
    struct gw_arena a;
    int rc = repo_each(gw->config->data, count_one, &s.total, err);

    gw_arena_init(&a, 64u << 10);
    if (rc == GW_OK)
        rc = repo_each(gw->config->data, sweep_one, &s, err);
    if (rc == GW_OK)
        rc = sweep_gone(&s, err);
    if (rc == GW_OK)
        rc = state_write(gw, &a, &(struct state){gw_wall_ms(), GW_STR("")}, err);
    gw_arena_release(&a);
    *n = s.n;
    return rc;
}

/* ---- downloads ---- */

/* A repository and who asked for it: however many of its files he gets within the minute, it is
 * one download. */
static uint64_t visit_of(const struct gateway_request *req)
{
    const struct gateway_state *st = req->state;
    const struct gw_str parts[] = {st->object.type, st->object.ns, st->object.name,
                                   st->who.subject_id, req->peer_ip};
    struct gw_sha256 h;
    uint8_t digest[32];
    uint64_t out;

    gw_sha256_init(&h);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        gw_sha256_update(&h, parts[i].p, parts[i].n);
        gw_sha256_update(&h, "", 1);
    }
    gw_sha256_final(&h, digest);
    memcpy(&out, digest, sizeof(out));
    return out;
}

void catalogue_count(struct gateway *gw, const struct gateway_request *req, int status,
                     uint64_t bytes_sent)
{
    const struct gateway_state *st = req->state;
    struct gateway_downloads *d = &gw->downloads;
    uint64_t visit;

    if (!st->private_repo || st->target.route != HUB_RESOLVE || st->target.head ||
        (status != 200 && status != 206) || bytes_sent == 0 || !st->allowed ||
        d->n == GATEWAY_DOWNLOADS_MAX)
        return;
    visit = visit_of(req);
    for (size_t i = 0; i < d->n; i++)
        if (d->visits[i] == visit)
            return;
    d->visits[d->n++] = visit;
    if (d->n == 1)
        d->oldest_ms = gw_mono_ms();
    gw_buf_addf(&d->lines, GW_STR_FMT "\n" GW_STR_FMT "\n" GW_STR_FMT "\n",
                GW_STR_ARG(st->object.type), GW_STR_ARG(st->object.ns),
                GW_STR_ARG(st->object.name));
}

static bool is_same(const struct repo_id *a, const struct repo_id *b)
{
    return gw_str_eq(a->name, b->name) && gw_str_eq(a->ns, b->ns) && gw_str_eq(a->type, b->type);
}

static bool next_line(struct gw_str *rest, struct repo_id *id)
{
    return gw_str_split(rest, '\n', &id->type) && gw_str_split(rest, '\n', &id->ns) &&
           gw_str_split(rest, '\n', &id->name);
}

/* lines: type, ns, name, once for each download. cards: they show it at once, not from the next
 * sweep on. */
static int add_downloads(struct gateway *gw, struct gw_str lines, bool cards, struct gw_error *err)
{
    struct gw_str rest = lines;
    struct repo_id id, other;
    int rc = GW_OK;

    while (rc == GW_OK && next_line(&rest, &id)) {
        struct gw_str all = lines;
        uint64_t n = 0, total;
        bool first = true;

        while (first && next_line(&all, &other)) {
            first = n != 0 || !is_same(&other, &id) || other.type.p == id.type.p;
            n += is_same(&other, &id);
        }
        if (!first)
            continue;
        rc = repo_downloads(gw->config->data, &id, n, &total, err);
        if (rc == GW_OK && cards)
            rc = refresh(gw, &id, true, err);
        rc = rc == GW_NOT_FOUND ? GW_OK : rc; /* deleted meanwhile */
    }
    return rc;
}

/* key: downloads, number; arg: lines */
int job_downloads(struct gateway_job *job)
{
    return add_downloads(job->gw, job->arg, true, &job->result.err);
}

void catalogue_close(struct gateway *gw)
{
    struct gateway_downloads *d = &gw->downloads;
    struct gw_error err;

    if (d->n != 0 && !d->lines.failed &&
        add_downloads(gw, gw_buf_str(&d->lines), false, &err) != GW_OK)
        gw_log_write(&gw->log, GW_LOG_WARN, "downloads: %s", err.text);
    gw_buf_release(&d->lines);
}

static void write_downloads(struct gateway *gw)
{
    struct gateway_downloads *d = &gw->downloads;
    char number[64];
    struct gw_want want = {.peer = GW_PEER_DISK, .arg = gw_buf_str(&d->lines)};

    if (d->n == 0 || gw->leaving ||
        (d->n < GATEWAY_DOWNLOADS_MAX && gw_mono_ms() - d->oldest_ms < COUNT_EVERY_MS))
        return;
    snprintf(number, sizeof(number), "downloads\n%llu", (unsigned long long)d->serial++);
    want.key = gw_str_c(number);
    if (!d->lines.failed)
        wants_background(gw, &want);
    gw_buf_reset(&d->lines);
    d->n = 0;
}

void catalogue_tick(struct gateway *gw)
{
    const struct gw_want want = {
        .peer = GW_PEER_REPO, .key = GW_STR("catalogue"), .arg = GW_STR("")};
    int64_t mono = gw_mono_ms(), last = atomic_load(&gw->shared->catalogue_ms);

    if (gw->command)
        return;
    write_downloads(gw);
    if (!gw->leaving && mono - last >= LOOK_EVERY_MS &&
        atomic_compare_exchange_strong(&gw->shared->catalogue_ms, &last, mono))
        wants_background(gw, &want);
}
