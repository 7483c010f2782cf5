/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/redis_text.c - the URL of a server, and replies of Redis as values.
 *
 * hiredis splits the bytes; what it builds is ours, in an arena with a ceiling, because its own
 * objects are allocated as large as the peer announces them. It waits until a whole string is
 * there, so what was fed is counted as well. hiredis 0.14, as Debian 12 has it; its own limit of
 * nested lists (7) holds.
 */
#include "cache/share_internal.h"

#include "base/error.h"

#include <hiredis/hiredis.h>

#include <arpa/inet.h>
#include <string.h>

#define LIST_MAX 2048
#define ARENA_SPARE (1u << 20) /* for the values around the bytes */

/* ---- URLs ---- */

static bool is_host_name(struct gw_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
              ch == '.' || ch == '-' || ch == '_')) {
            return false;
        }
    }
    return s.n >= 1 && s.n <= 253;
}

static bool is_loopback(const char *host)
{
    struct in6_addr six;
    struct in_addr four;

    return (inet_pton(AF_INET, host, &four) == 1 && ntohl(four.s_addr) >> 24 == 127) ||
           (inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six));
}

/* HOST[:PORT] or [V6][:PORT]. */
static bool split(struct gw_str s, bool *v6, struct gw_str *host, struct gw_str *port)
{
    const char *end;

    *v6 = s.n != 0 && s.p[0] == '[';
    end = s.n != 0 ? memchr(s.p, *v6 ? ']' : ':', s.n) : NULL;
    if (*v6) {
        if (end == NULL) {
            return false;
        }
        *host = gw_str_sub(s, 1, (size_t)(end - s.p) - 1);
        s = gw_str_sub(s, host->n + 2, s.n);
    } else {
        *host = end != NULL ? gw_str_sub(s, 0, (size_t)(end - s.p)) : s;
        s = gw_str_sub(s, host->n, s.n);
    }
    *port = gw_str_sub(s, 1, s.n);
    return s.n == 0 || (s.p[0] == ':' && port->n != 0);
}

int cache_redis_url_parse(struct gw_str url, struct gw_arena *a, struct cache_redis_server *out,
                          struct gw_error *err)
{
    struct cache_redis_server s = {.tls = gw_str_starts(url, GW_STR("rediss://"))};
    struct gw_str rest, host, port;
    uint64_t number = 6379;
    struct in6_addr six;
    bool v6;

    if (!s.tls && !gw_str_starts(url, GW_STR("redis://"))) {
        return gw_fail(err, GW_INVALID, 0, "the URL of a Redis begins with rediss:// or redis://");
    }
    rest = gw_str_sub(url, s.tls ? 9 : 8, url.n);
    if (rest.n != 0 && memchr(rest.p, '@', rest.n) != NULL) { /* and the URL is not repeated */
        return gw_fail(
            err, GW_INVALID, 0,
            "no user or password in a URL: redis.user and redis.password_file hold them");
    }
    if (gw_str_ends(rest, GW_STR("/"))) {
        rest.n--;
    }
    if (!split(rest, &v6, &host, &port) || (!v6 && !is_host_name(host))) {
        return gw_fail(err, GW_INVALID, 0,
                       "the URL of a Redis is rediss://HOST[:PORT]: no path, no query");
    }
    if (port.n != 0 && (!gw_str_u64(port, &number) || number < 1 || number > 65535)) {
        return gw_fail(err, GW_INVALID, 0, "the port of a Redis is 1 to 65535");
    }
    s.port = (uint16_t)number;
    s.host = gw_arena_dup(a, host);
    if (s.host.p == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    if (v6 && (strlen(s.host.p) != s.host.n || inet_pton(AF_INET6, s.host.p, &six) != 1)) {
        return gw_fail(err, GW_INVALID, 0, "between [ and ] stands an IPv6 address");
    }
    if (!s.tls && !is_loopback(s.host.p)) {
        return gw_fail(err, GW_INVALID, 0,
                       GW_STR_FMT ": what is shared, and the password, would cross the network in "
                                  "clear: use rediss://",
                       GW_STR_ARG(url));
    }
    *out = s;
    return GW_OK;
}

/* ---- replies ---- */

static void *take(struct redis_parser *p, size_t n)
{
    void *bytes = gw_arena_alloc(&p->arena, n);

    p->over = bytes == NULL && n + 64 > p->arena.max - p->arena.used;
    return bytes;
}

/* A new value in its place in the list that holds it; NULL: hiredis gives up. */
static void *make(const redisReadTask *task, enum redis_kind kind)
{
    struct redis_value *v = take(task->privdata, sizeof(*v));

    if (v == NULL) {
        return NULL;
    }
    v->kind = kind;
    if (task->parent != NULL) {
        struct redis_value *list = task->parent->obj;

        list->items[task->idx] = v;
    }
    return v;
}

static void *make_text(const redisReadTask *task, char *text, size_t n)
{
    struct redis_value *v = make(task, task->type == REDIS_REPLY_ERROR    ? REDIS_IS_ERROR
                                       : task->type == REDIS_REPLY_STATUS ? REDIS_IS_STATUS
                                                                          : REDIS_IS_TEXT);
    char *copy = v != NULL ? take(task->privdata, n + 1) : NULL;

    if (copy == NULL) {
        return NULL;
    }
    memcpy(copy, text, n);
    v->text = (struct gw_str){copy, n};
    return v;
}

static void *make_list(const redisReadTask *task, int n)
{
    struct redis_parser *p = task->privdata;
    struct redis_value *v = make(task, REDIS_IS_LIST);

    if (v == NULL || n < 0 || n > LIST_MAX) {
        p->over = p->over || v != NULL;
        return NULL;
    }
    v->n = (size_t)n;
    v->items = take(p, ((size_t)n + 1) * sizeof(*v->items));
    return v->items != NULL ? v : NULL;
}

static void *make_number(const redisReadTask *task, long long number)
{
    struct redis_value *v = make(task, REDIS_IS_NUMBER);

    if (v != NULL) {
        v->number = number;
    }
    return v;
}

static void *make_nil(const redisReadTask *task)
{
    return make(task, REDIS_IS_NIL);
}

static void keep(void *value)
{
    (void)value; /* the arena's */
}

int redis_parser_init(struct redis_parser *p, struct gw_error *err)
{
    static redisReplyObjectFunctions functions = {make_text, make_list, make_number, make_nil,
                                                  keep};
    redisReader *reader = redisReaderCreateWithFunctions(&functions);

    *p = (struct redis_parser){.reader = reader};
    if (reader == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory");
    }
    reader->privdata = p;
    return GW_OK;
}

void redis_parser_release(struct redis_parser *p)
{
    if (p->reader != NULL) {
        redisReaderFree(p->reader);
        p->reader = NULL;
    }
    gw_arena_release(&p->arena);
}

int redis_parser_feed(struct redis_parser *p, struct gw_str bytes, struct gw_error *err)
{
    p->held += bytes.n;
    if (redisReaderFeed(p->reader, bytes.p, bytes.n) != REDIS_OK) {
        return gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory for a reply");
    }
    return GW_OK;
}

int redis_parser_next(struct redis_parser *p, struct redis_value **out, struct gw_error *err)
{
    redisReader *reader = p->reader;
    void *reply = NULL;

    if (reader->ridx == -1) { /* no reply is half-read: the last one goes */
        gw_arena_release(&p->arena);
        gw_arena_init(&p->arena, p->max + ARENA_SPARE);
    }
    if (redisReaderGetReply(reader, &reply) != REDIS_OK && !p->over) {
        return reader->err == REDIS_ERR_OOM
                   ? gw_fail(err, GW_NO_MEMORY, 0, "redis: no memory for a reply")
                   : gw_fail(err, GW_INVALID, 0, "no reply of Redis: %s", reader->errstr);
    }
    if (reply == NULL) {
        return p->over || p->held > p->max
                   ? gw_fail(err, GW_TOO_LARGE, 0, "a reply of more than %zu bytes", p->max)
                   : GW_AGAIN;
    }
    p->held = reader->len - reader->pos;
    *out = reply;
    return GW_OK;
}

bool redis_is_status(const struct redis_value *v, const char *text)
{
    return v->kind == REDIS_IS_STATUS && gw_str_eq_c(v->text, text);
}
