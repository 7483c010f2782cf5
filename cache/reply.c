/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/reply.c - the head of an answer to a blocking call, line by line.
 *
 * Several answers may come: interim ones (1xx), a proxy's own, then the real one. Each status line
 * begins anew; what follows a body is a trailer, and nothing in it counts.
 */
#include "cache/reply_internal.h"

#include <stdlib.h>
#include <string.h>

static bool refuse(struct reply_head *h, enum gw_status status, const char *why)
{
    h->refused = status;
    h->why = why;
    return false;
}

/* Facts of the Hub are believed on its own origin only; those of the file are kept over a redirect
 * to its bytes. */
static const struct {
    const char *name;
    size_t at;
    bool hub_only, kept;
} fields[] = {
    {"etag", offsetof(struct cache_reply, etag), false, false},
    {"content-type", offsetof(struct cache_reply, content_type), false, false},
    {"location", offsetof(struct cache_reply, location), false, false},
    {"link", offsetof(struct cache_reply, link), false, false},
    {"retry-after", offsetof(struct cache_reply, retry_after), false, false},
    {"ratelimit", offsetof(struct cache_reply, ratelimit), true, false},
    {"x-error-code", offsetof(struct cache_reply, error_code), true, false},
    {"x-error-message", offsetof(struct cache_reply, error_message), true, false},
    {"x-linked-etag", offsetof(struct cache_reply, linked_etag), true, true},
    {"x-linked-size", offsetof(struct cache_reply, linked_size), true, true},
    {"x-repo-commit", offsetof(struct cache_reply, repo_commit), true, true},
};

static struct gw_str *field_of(struct cache_reply *r, size_t i)
{
    return (struct gw_str *)((char *)r + fields[i].at);
}

static void new_answer(struct cache_reply *r, int status)
{
    r->status = status;
    r->content_length = -1;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (!fields[i].kept) {
            *field_of(r, i) = (struct gw_str){NULL, 0};
        }
    }
}

static bool only_identity(struct gw_str value, const char *also)
{
    struct gw_str rest = value, word;

    while (gw_str_split(&rest, ',', &word)) {
        word = gw_str_trim(word);
        if (word.n != 0 && !gw_str_ieq_c(word, "identity") &&
            !(also != NULL && gw_str_ieq_c(word, also))) {
            return false;
        }
    }
    return true;
}

static bool on_field(struct reply_head *h, struct gw_str name, struct gw_str value)
{
    uint64_t length;

    if (gw_str_ieq_c(name, "content-encoding") && !only_identity(value, NULL)) {
        return refuse(h, GW_INVALID, "sends a compressed body that nobody asked for");
    }
    if (gw_str_ieq_c(name, "transfer-encoding") && !only_identity(value, "chunked")) {
        return refuse(h, GW_INVALID, "sends a compressed body that nobody asked for");
    }
    if (gw_str_ieq_c(name, "content-length") && gw_str_u64(value, &length) && length <= INT64_MAX) {
        h->reply->content_length = (int64_t)length;
    }
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        struct gw_str copy;

        if (!gw_str_ieq_c(name, fields[i].name) || (fields[i].hub_only && !h->own)) {
            continue;
        }
        copy = gw_arena_dup(h->arena, value);
        if (copy.p == NULL) {
            return refuse(h, GW_NO_MEMORY, "no memory for its headers");
        }
        *field_of(h->reply, i) = copy;
    }
    return true;
}

/* As strtol: digits after blanks, whatever follows them. The line need not end with a NUL. */
static int status_of(struct gw_str line)
{
    const char *blank = memchr(line.p, ' ', line.n), *end = line.p + line.n;
    int status = 0;

    while (blank != NULL && blank < end && *blank == ' ') {
        blank++;
    }
    while (blank != NULL && blank < end && *blank >= '0' && *blank <= '9' && status < 1000) {
        status = status * 10 + (*blank++ - '0');
    }
    return status < 1000 ? status : 0;
}

bool reply_line(struct reply_head *h, struct gw_str line)
{
    struct gw_str rest, name;

    h->header_bytes += line.n;
    if (h->header_bytes > CACHE_HEADERS_MAX) {
        return refuse(h, GW_TOO_LARGE, "sends more than 64 KiB of headers");
    }
    while (line.n != 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r')) {
        line.n--;
    }
    if (gw_str_starts(line, GW_STR("HTTP/"))) { /* each of them: 1xx answers come before */
        new_answer(h->reply, status_of(line));
        return true;
    }
    rest = line;
    if (h->in_body /* a trailer */ || !gw_str_split(&rest, ':', &name) || rest.p == NULL) {
        return true;
    }
    return on_field(h, gw_str_trim(name), gw_str_trim(rest));
}
