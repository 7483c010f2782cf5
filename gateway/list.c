/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.c - lists of repositories: the private ones that who asks may discover, then upstream's, by
 * one cursor.
 *
 *   "p" + where in the order of cards the last one was     private ones follow
 *   "u" + how many of a page are sent + upstream's cursor   upstream's follow
 *
 * each with a MAC of it and of the query, so no cursor leads anywhere but where a page ended. Which
 * private repositories may be seen is decided card by card, before anything is counted: a stranger
 * gets the pages of a Hub that has none. That takes as long as there are cards, so it is a job's;
 * policy_decide is pure. Upstream's pages are documents like all others: one call for everybody. Of
 * them too only what may be discovered is shown, and nothing in a namespace that is private here.
 */
#include "gateway/catalogue.h"
#include "gateway/jobs.h"
#include "gateway/rights.h"

#include <stdio.h>

#include "base/encode.h"

#define ITEMS_MAX (48u << 20)
#define MAC_HEX 24u

static const char bad_cursor[] = "this cursor is not one of this list's: begin the list anew";

/* ---- cursors ---- */

struct position {
    bool upstream, begun; /* begun: place is one */
    struct cache_place place;
    uint64_t sent;        /* of this page of upstream's */
    struct gw_str cursor; /* upstream's own */
};

static void mac_of(const struct gateway *gw, const struct hub_target *t, struct gw_str body,
                   char hex[MAC_HEX + 1])
{
    struct gw_buf b;
    uint8_t mac[32];

    gw_buf_init(&b, 8 * HUB_TARGET_MAX);
    gw_buf_add_c(&b, "list\n");
    gw_buf_add_c(&b, hub_type_name(t->type));
    gw_buf_add_char(&b, '\n');
    gw_buf_add(&b, t->query);
    gw_buf_add_char(&b, '\n');
    gw_buf_add(&b, body);
    gw_hmac_sha256((struct gw_str){gw->key, sizeof(gw->key)}, gw_buf_str(&b), mac);
    gw_buf_release(&b);
    gw_hex_encode(hex, mac, MAC_HEX / 2);
}

static struct gw_str cursor_write(const struct gateway *gw, struct gateway_state *st,
                                  const struct position *at)
{
    struct gw_arena *a = &st->arena;
    char hex[2 * CACHE_PLACE_ID + 1], mac[MAC_HEX + 1];
    struct gw_str body;

    gw_hex_encode(hex, at->place.id, CACHE_PLACE_ID);
    body = at->upstream ? gw_arena_printf(a, "u%llu." GW_STR_FMT, (unsigned long long)at->sent,
                                          GW_STR_ARG(at->cursor))
                        : gw_arena_printf(a, "p%llu.%s", (unsigned long long)at->place.sort, hex);
    if (body.p == NULL)
        return body;
    mac_of(gw, &st->target, body, mac);
    return gw_arena_printf(a, "%s." GW_STR_FMT, mac, GW_STR_ARG(body));
}

static bool cursor_read(const struct gateway *gw, const struct hub_target *t, struct position *at)
{
    struct gw_str body = t->cursor, mac, number;
    char right[MAC_HEX + 1];
    bool upstream;

    *at = (struct position){.cursor = GW_STR("")};
    if (t->cursor.n == 0)
        return true;
    if (!gw_str_split(&body, '.', &mac) || mac.n != MAC_HEX || body.p == NULL || body.n == 0)
        return false;
    mac_of(gw, t, body, right);
    if (!gw_equal_secret(mac.p, right, MAC_HEX))
        return false;
    upstream = body.p[0] == 'u';
    body = gw_str_sub(body, 1, body.n);
    if (!gw_str_split(&body, '.', &number) || body.p == NULL)
        return false;
    if (upstream) {
        *at = (struct position){.upstream = true, .cursor = body};
        return gw_str_u64(number, &at->sent);
    }
    at->begun = true;
    return gw_str_u64(number, &at->place.sort) && gw_hex_decode(at->place.id, CACHE_PLACE_ID, body);
}

/* ---- what a job is told: texts with their lengths ---- */

static void tell(struct gw_buf *out, struct gw_str text)
{
    gw_buf_addf(out, "%zu:", text.n);
    gw_buf_add(out, text);
}

static void tell_number(struct gw_buf *out, uint64_t n)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
    tell(out, gw_str_c(text));
}

static struct gw_str told(struct gw_str *rest)
{
    struct gw_str number, out;
    uint64_t n;

    if (!gw_str_split(rest, ':', &number) || rest->p == NULL || !gw_str_u64(number, &n) ||
        n > rest->n)
        return (struct gw_str){NULL, 0};
    out = gw_str_sub(*rest, 0, n);
    *rest = gw_str_sub(*rest, n, rest->n);
    return out;
}

static uint64_t told_number(struct gw_str *rest)
{
    uint64_t n = 0;

    return gw_str_u64(told(rest), &n) ? n : 0;
}

static void tell_who(struct gw_buf *out, struct gateway_state *st)
{
    struct gw_str text = rights_subject_text(&st->arena, &st->who.subject);

    if (text.p == NULL)
        out->failed = true;
    else
        gw_buf_add(out, text);
}

static bool may_discover(const struct gateway *gw, const struct policy_subject *s,
                         enum hub_type type, struct gw_str id, int64_t now_ms)
{
    struct policy_object o = {.type = gw_str_c(hub_type_name(type)),
                              .name = id,
                              .revision = GW_STR(""),
                              .commit = GW_STR(""),
                              .path = GW_STR("")};

    if (memchr(id.p, '/', id.n) == NULL)
        o.ns = GW_STR("_");
    else
        gw_str_split(&o.name, '/', &o.ns);
    return policy_decide(gw->policy, s, POLICY_DISCOVER, &o, now_ms).effect == POLICY_ALLOW;
}

/* ---- private ones ---- */

struct page {
    struct gateway_job *job;
    struct policy_subject subject;
    struct hub_target target;
    struct hub_list asked;
    struct gw_buf items;
    uint64_t room, n;
    struct cache_place last;
    int64_t now_ms;
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool holds_folded(struct gw_str text, struct gw_str part)
{
    for (size_t i = 0; i + part.n <= text.n; i++)
        if (gw_str_ieq(gw_str_sub(text, i, part.n), part))
            return true;
    return part.n == 0;
}

static bool is_asked(const struct hub_list *asked, const struct cache_card *card)
{
    struct gw_str ns, rest = card->name;

    gw_str_split(&rest, '/', &ns);
    if (asked->author.n && !gw_str_ieq(asked->author, ns))
        return false;
    for (size_t i = 0; i < asked->n_words; i++)
        if (!cache_card_has(card, asked->words[i]))
            return false;
    for (size_t i = 0; i < asked->n_search; i++)
        if (!holds_folded(card->name, asked->search[i]))
            return false;
    return true;
}

static int on_card(void *ctx, const struct cache_card *card, const struct cache_place *at)
{
    struct page *p = ctx;
    struct gw_str commit, info;

    if (!is_asked(&p->asked, card) ||
        !may_discover(p->job->gw, &p->subject, p->target.type, card->name, p->now_ms) ||
        !catalogue_value(card, &commit, &info))
        return GW_OK;
    if (p->n == p->room)
        return GW_CONFLICT; /* there is one more */
    if (p->items.n)
        gw_buf_add_char(&p->items, ',');
    if (hub_info_select(&p->items, info, p->asked.keys, NULL) != GW_OK || p->items.failed)
        return GW_TOO_LARGE;
    p->last = *at;
    p->n++;
    return GW_OK;
}

static struct gw_str word_of(const struct hub_list *asked, struct gw_arena *a)
{
    char *author;

    if (asked->n_words)
        return asked->words[0];
    if (asked->author.n == 0)
        return GW_STR("");
    author = gw_arena_alloc(a, asked->author.n + 1);
    for (size_t i = 0; author != NULL && i < asked->author.n; i++)
        author[i] = lower(asked->author.p[i]);
    return author == NULL ? (struct gw_str){NULL, 0}
                          : gw_arena_printf(a, "author:" GW_STR_FMT, (int)asked->author.n, author);
}

/* key: cards, request; arg: type, query, room, place, subject. text: how many, whether there are
 * more, the last one's place, whether all cards are there; the items */
int job_cards(struct gateway_job *job)
{
    static const enum cache_order orders[] = {[HUB_BY_UPDATED] = CACHE_BY_UPDATED,
                                              [HUB_BY_CREATED] = CACHE_BY_CREATED,
                                              [HUB_BY_DOWNLOADS] = CACHE_BY_DOWNLOADS};
    struct gw_error *err = &job->result.err;
    struct page p = {.job = job, .now_ms = gw_wall_ms()};
    struct cache_card_query q = {.word = GW_STR("")};
    struct gw_str rest = job->arg, id;
    struct cache_place after;
    struct gw_buf out;
    bool begun, more = false;
    int rc;

    p.target.type = (enum hub_type)told_number(&rest);
    p.target.query = told(&rest);
    p.room = told_number(&rest);
    begun = told_number(&rest) != 0;
    after.sort = told_number(&rest);
    id = told(&rest);
    if (id.n != CACHE_PLACE_ID || p.target.type > HUB_SPACE || p.target.query.p == NULL ||
        !rights_subject_take(&p.subject, &rest, &job->arena))
        return gw_fail(err, GW_INVALID, 0, "cards: fields");
    memcpy(after.id, id.p, CACHE_PLACE_ID);
    rc = hub_list_parse(&p.asked, &p.target, &job->arena, err);
    if (rc != GW_OK)
        return rc;
    q.type = catalogue_type(p.target.type);
    q.order = orders[p.asked.sort];
    q.ascending = p.asked.ascending;
    q.word = word_of(&p.asked, &job->arena);
    q.after = begun ? &after : NULL;
    if (q.word.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    gw_buf_init(&p.items, ITEMS_MAX);
    if (!p.asked.nothing)
        rc = cache_cards(job->gw->cache, &q, on_card, &p, err);
    more = rc == GW_CONFLICT;
    if (rc == GW_OK || more) {
        gw_buf_init(&out, ITEMS_MAX + 4096);
        tell_number(&out, p.n);
        tell_number(&out, more);
        tell_number(&out, p.last.sort);
        tell(&out, (struct gw_str){(const char *)p.last.id, CACHE_PLACE_ID});
        tell_number(&out, catalogue_is_whole(job->gw));
        gw_buf_add(&out, gw_buf_str(&p.items));
        job->result.text =
            out.failed ? (struct gw_str){NULL, 0} : gw_arena_dup(&job->arena, gw_buf_str(&out));
        gw_buf_release(&out);
        rc = job->result.text.p ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    gw_buf_release(&p.items);
    return rc;
}

/* ---- upstream's ---- */

/* key: listed, request; arg: type, how many to pass over, room, subject, upstream's array. text:
 * how many of its items are done with, whether there are more of them; the items */
int job_listed(struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    struct gw_str rest = job->arg, item, id, ns, name;
    struct policy_subject subject;
    enum hub_type type = (enum hub_type)told_number(&rest);
    uint64_t skip = told_number(&rest), room = told_number(&rest), done = 0, n = 0;
    int64_t now_ms = gw_wall_ms();
    struct gw_buf items, out;
    bool more = false;

    if (type > HUB_SPACE || !rights_subject_take(&subject, &rest, &job->arena))
        return gw_fail(err, GW_INVALID, 0, "listed: fields");
    gw_buf_init(&items, ITEMS_MAX);
    while (hub_next_item(&rest, &item, &id)) {
        if (n == room) {
            more = true;
            break;
        }
        if (done++ < skip || id.n == 0)
            continue;
        name = id;
        ns = GW_STR("_");
        if (memchr(id.p, '/', id.n) != NULL)
            gw_str_split(&name, '/', &ns);
        if (policy_is_private(job->gw->policy, ns) ||
            !may_discover(job->gw, &subject, type, id, now_ms))
            continue;
        if (items.n)
            gw_buf_add_char(&items, ',');
        gw_buf_add(&items, item);
        n++;
    }
    gw_buf_init(&out, ITEMS_MAX + 4096);
    tell_number(&out, done);
    tell_number(&out, more);
    gw_buf_add(&out, gw_buf_str(&items));
    job->result.text = out.failed || items.failed ? (struct gw_str){NULL, 0}
                                                  : gw_arena_dup(&job->arena, gw_buf_str(&out));
    gw_buf_release(&out);
    gw_buf_release(&items);
    return job->result.text.p ? GW_OK : gw_fail(err, GW_NO_MEMORY, 0, "no memory for a list");
}

/* ---- one page ---- */

static struct gw_str kept(struct gw_arena *a, struct gw_buf *b)
{
    struct gw_str out = b->failed ? (struct gw_str){NULL, 0} : gw_arena_dup(a, gw_buf_str(b));

    gw_buf_release(b);
    return out;
}

struct answer_parts {
    struct gw_str ours, theirs; /* items */
    uint64_t n;                 /* of ours */
    bool more, whole;
    struct position next;
    bool has_next;
};

static int get_ours(struct gateway *gw, struct gateway_request *req, const struct position *at,
                    uint64_t room, struct answer_parts *p, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    struct gateway_result *r;
    struct gw_want want = {.peer = GW_PEER_DISK,
                           .key = FACT_JOIN(&st->arena, GW_STR("cards"), req->id)};
    struct gw_str rest, id;
    struct gw_buf b;
    int rc;

    gw_buf_init(&b, 1u << 20);
    tell_number(&b, (uint64_t)st->target.type);
    tell(&b, st->target.query);
    tell_number(&b, room);
    tell_number(&b, at->begun);
    tell_number(&b, at->place.sort);
    tell(&b, (struct gw_str){(const char *)at->place.id, CACHE_PLACE_ID});
    tell_who(&b, st);
    want.arg = kept(&st->arena, &b);
    if (want.arg.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    rc = fact_need(gw, req, &want, &r, err);
    if (rc != GW_OK)
        return rc;
    rest = r->text;
    p->n = told_number(&rest);
    p->more = told_number(&rest) != 0;
    p->next.place.sort = told_number(&rest);
    id = told(&rest);
    p->whole = told_number(&rest) != 0;
    if (id.n != CACHE_PLACE_ID)
        return gw_fail(err, GW_INVALID, 0, "cards: answer");
    memcpy(p->next.place.id, id.p, CACHE_PLACE_ID);
    p->has_next = p->more;
    p->ours = rest;
    return GW_OK;
}

/* GW_OK also for a page that upstream has not (any more): it ends there. */
static int get_theirs(struct gateway *gw, struct gateway_request *req, const struct position *at,
                      uint64_t room, struct answer_parts *p, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    struct gw_arena *a = &st->arena;
    struct gw_want want = {.peer = GW_PEER_DISK, .key = FACT_JOIN(a, GW_STR("listed"), req->id)};
    struct fact f = {.kind = CACHE_DOCUMENT, .life = FACT_TTL};
    struct gateway_result *r = wants_result(st, want.key);
    struct gw_str next, json, rest;
    struct cache_record rec;
    struct gw_buf b;
    uint64_t done;
    int rc;

    gw_buf_init(&b, 8 * HUB_TARGET_MAX);
    hub_put_list_target(&b, &st->target, at->cursor);
    f.name = kept(a, &b);
    f.want =
        (struct gw_want){.peer = GW_PEER_UPSTREAM, .key = FACT_JOIN(a, GW_STR("document"), f.name)};
    rc = fact_get(gw, req, &f, &rec, err);
    if (rc != GW_OK)
        return rc;
    if (rec.status != GW_OK)
        return GW_OK;
    if (!tree_page_decode(rec.value, &next, &json))
        return gw_fail(err, GW_CORRUPT, 0, "a record of the index cannot be read");
    if (r == NULL) {
        gw_buf_init(&b, GATEWAY_DOCUMENT_MAX + (1u << 20));
        tell_number(&b, (uint64_t)st->target.type);
        tell_number(&b, at->sent);
        tell_number(&b, room);
        tell_who(&b, st);
        gw_buf_add(&b, json);
        want.arg = kept(a, &b);
        if (want.arg.p == NULL)
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a list");
    }
    rc = fact_need(gw, req, &want, &r, err);
    if (rc != GW_OK)
        return rc;
    rest = r->text;
    done = told_number(&rest);
    p->next = (struct position){.upstream = true, .cursor = next};
    p->has_next = next.n != 0;
    if (told_number(&rest) != 0) { /* more of this page */
        p->next = (struct position){.upstream = true, .sent = done, .cursor = at->cursor};
        p->has_next = true;
    }
    p->theirs = rest;
    return GW_OK;
}

static int answer_page(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                       const struct answer_parts *p)
{
    struct gateway_state *st = req->state;
    struct gw_str cursor;
    struct gw_buf b;

    if (p->has_next) {
        cursor = cursor_write(gw, st, &p->next);
        if (cursor.p == NULL)
            return GW_NO_MEMORY;
        answer_link_next(gw, req, ans, cursor);
    }
    if (!p->whole)
        ANSWER_HEADER(ans, "X-HF-Warning",
                      GW_STR("gateway; the catalogue of private repositories is being built: this "
                             "list may lack some"));
    ANSWER_HEADER(ans, "Cache-Control", GW_STR("private, no-cache"));
    ANSWER_HEADER(ans, "Vary", GW_STR("Authorization"));
    gw_buf_init(&b, 2 * ITEMS_MAX);
    gw_buf_add_char(&b, '[');
    gw_buf_add(&b, p->ours);
    if (p->ours.n && p->theirs.n)
        gw_buf_add_char(&b, ',');
    gw_buf_add(&b, p->theirs);
    gw_buf_add_char(&b, ']');
    return answer_json(req, ans, kept(&st->arena, &b));
}

int list_repos(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct answer_parts p = {.ours = GW_STR(""), .theirs = GW_STR(""), .whole = true};
    struct position at;
    struct gw_error err;
    uint64_t limit = st->target.limit ? st->target.limit : HUB_PAGE;
    uint64_t left = st->target.limit ? limit : UINT64_MAX;
    struct hub_list asked;
    int rc = hub_list_parse(&asked, &st->target, &st->arena, &err);

    if (rc == GW_NO_MEMORY)
        return rc;
    if (rc != GW_OK)
        return answer_refuse(gw, req, ans, HUB_BAD_REQUEST,
                             gw_arena_dup(&st->arena, gw_str_c(err.text)), 0);
    if (!cursor_read(gw, &st->target, &at))
        return answer_refuse(gw, req, ans, HUB_BAD_REQUEST, gw_str_c(bad_cursor), 0);
    if (!at.upstream) {
        rc = get_ours(gw, req, &at, limit, &p, &err);
        if (rc != GW_OK)
            return rc == GW_AGAIN ? rc : answer_failure(gw, req, ans, &err);
        if (p.n >= limit || p.more) {
            if (!p.more)
                p.next = (struct position){.upstream = true, .cursor = GW_STR("")};
            p.has_next = true;
            return answer_page(gw, req, ans, &p);
        }
        left -= st->target.limit ? p.n : 0;
        at = (struct position){.upstream = true, .cursor = GW_STR("")};
    }
    rc = get_theirs(gw, req, &at, left, &p, &err);
    if (rc == GW_AGAIN || rc == GW_NO_MEMORY)
        return rc;
    if (rc != GW_OK && st->target.cursor.n) /* a list that ends here would be taken as whole */
        return answer_failure(gw, req, ans, &err);
    if (rc != GW_OK) {
        p.has_next = false;
        ANSWER_HEADER(ans, "X-HF-Warning",
                      gw_arena_printf(&st->arena,
                                      "gateway; only this gateway's own repositories are listed: "
                                      "upstream gave no list (%.200s)",
                                      err.text));
    } else if (st->warn_stale) {
        ANSWER_HEADER(ans, "X-HF-Warning",
                      GW_STR("gateway; upstream unreachable, serving cached copy"));
    }
    return answer_page(gw, req, ans, &p);
}

/* ---- tags, organizations ---- */

int list_tags(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct fact f = {.kind = CACHE_DOCUMENT,
                     .life = FACT_TTL,
                     .name = upstream_target(&st->arena, &st->target, GW_STR(""))};
    struct gw_str next, json;
    struct cache_record rec;
    struct gw_error err;
    int rc;

    f.want = (struct gw_want){.peer = GW_PEER_UPSTREAM,
                              .key = FACT_JOIN(&st->arena, GW_STR("document"), f.name)};
    rc = fact_get(gw, req, &f, &rec, &err);
    if (rc == GW_AGAIN)
        return rc;
    if (rc != GW_OK || rec.status != GW_OK || !tree_page_decode(rec.value, &next, &json)) {
        ANSWER_HEADER(ans, "X-HF-Warning", GW_STR("gateway; upstream gave no list of tags"));
        json = GW_STR("{}"); /* what asks for it goes on without */
    }
    return answer_json(req, ans, json);
}

/* Of a private namespace, for who may discover something in it: its name, and no members, who are
 * the directory's. */
int list_organization(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans)
{
    struct gateway_state *st = req->state;
    struct gw_str what = st->target.path, ns;
    struct policy_object any = {.type = GW_STR("model"), .name = GW_STR("*")};
    struct gw_buf b;

    gw_str_split(&what, '/', &ns);
    any.ns = ns;
    if (!policy_is_private(gw->policy, ns) ||
        policy_decide(gw->policy, &st->who.subject, POLICY_DISCOVER, &any, st->started_ms).effect !=
            POLICY_ALLOW)
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    if (what.p != NULL && (gw_str_eq_c(what, "members") || gw_str_eq_c(what, "followers")))
        return answer_json(req, ans, GW_STR("[]"));
    if (what.p == NULL || !gw_str_eq_c(what, "overview"))
        return answer_refuse(gw, req, ans, HUB_NO_ROUTE, GW_STR(""), 0);
    gw_buf_init(&b, 4096);
    gw_buf_add_c(&b, "{\"name\":");
    gw_json_put_string(&b, ns);
    gw_json_put_key(&b, "fullname");
    gw_json_put_string(&b, ns);
    gw_buf_add_c(&b, ",\"avatarUrl\":\"\",\"isVerified\":false,\"isFollowing\":false,\"details\":"
                     "\"\",\"type\":\"org\",\"numUsers\":0,\"numFollowers\":0}");
    return answer_json(req, ans, kept(&st->arena, &b));
}
