/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/upstream.c - the one way to upstream: what every request has in common, where a redirect
 * may lead, and blocking calls for documents and small blobs.
 *
 * Redirects are followed here and not by curl, because each hop is a decision: the organisation's
 * token is set by the URL's origin, never carried along. URLs are taken apart by curl's own parser,
 * so that what was judged is what is asked.
 */
#include "cache/cache_internal.h"
#include "cache/limit_internal.h"
#include "cache/reply_internal.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/version.h"

#include <curl/curl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_HANDLES 16u
#define DISCARD_MAX                                                                                \
    (64u << 10) /* of the body of a refusal or a redirect; past it the connection is not worth     \
                   keeping */
#define BODY_MAX (512u << 20) /* of one document; a million files are half of it */
#define CONNECT_MS 5000
#define STALL_MS 30000
#define STALL_BYTES_PER_S 256L
#define URL_PARSE (CURLU_PATH_AS_IS | CURLU_URLENCODE)

struct place { /* of a URL; strings of curl's */
    char *scheme, *host, *port, *path, *query;
};

struct cache_upstream {
    struct place origin;
    char *proxy_host; /* NULL: no proxy */
    char proxy_port[8];
    pthread_mutex_t mutex;
    CURL *idle[IDLE_HANDLES]; /* last in, first out: connections stay warm */
    size_t n_idle;
};

/* ---- URLs ---- */

static void place_release(struct place *p)
{
    curl_free(p->scheme);
    curl_free(p->host);
    curl_free(p->port);
    curl_free(p->path);
    curl_free(p->query);
    *p = (struct place){0};
}

static int place_of(CURLU *u, struct place *out)
{
    struct place p = {0};
    CURLUcode rc = curl_url_get(u, CURLUPART_SCHEME, &p.scheme, 0);

    rc = rc != CURLUE_OK ? rc : curl_url_get(u, CURLUPART_HOST, &p.host, 0);
    rc = rc != CURLUE_OK ? rc : curl_url_get(u, CURLUPART_PORT, &p.port, CURLU_DEFAULT_PORT);
    rc = rc != CURLUE_OK ? rc : curl_url_get(u, CURLUPART_PATH, &p.path, 0);
    if (rc == CURLUE_OK) {
        rc = curl_url_get(u, CURLUPART_QUERY, &p.query, 0);
        rc = rc == CURLUE_NO_QUERY ? CURLUE_OK : rc;
    }
    if (rc != CURLUE_OK) {
        place_release(&p);
        return rc == CURLUE_OUT_OF_MEMORY ? GW_NO_MEMORY : GW_INVALID;
    }
    *out = p;
    return GW_OK;
}

static int parse(const char *url, struct place *out)
{
    CURLU *u = curl_url();
    CURLUcode rc;
    int status;

    if (u == NULL) {
        return GW_NO_MEMORY;
    }
    rc = curl_url_set(u, CURLUPART_URL, url, URL_PARSE);
    status = rc == CURLUE_OK              ? place_of(u, out)
             : rc == CURLUE_OUT_OF_MEMORY ? GW_NO_MEMORY
                                          : GW_INVALID;
    curl_url_cleanup(u);
    return status;
}

static bool has_user(CURLU *u)
{
    char *part = NULL;
    bool found = curl_url_get(u, CURLUPART_USER, &part, 0) == CURLUE_OK;

    curl_free(part);
    part = NULL;
    found = found || curl_url_get(u, CURLUPART_PASSWORD, &part, 0) == CURLUE_OK;
    curl_free(part);
    return found;
}

static bool same_origin(const struct place *a, const struct place *b)
{
    return gw_str_ieq_c(gw_str_c(a->scheme), b->scheme) &&
           gw_str_ieq_c(gw_str_c(a->host), b->host) && strcmp(a->port, b->port) == 0;
}

static struct gw_str unbracket(struct gw_str host)
{
    return host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']'
               ? gw_str_sub(host, 1, host.n - 2)
               : host;
}

/* "host", "host:port", "host:*", "*.domain[:port]", "[v6]", "[v6]:port", bare v6 */
static bool listed(struct gw_str entry, const struct place *p)
{
    const char *default_port = strcmp(p->scheme, "https") == 0 ? "443" : "80";
    struct gw_str host = gw_str_c(p->host), port = gw_str_c(default_port), domain;
    const char *colon = entry.n != 0 ? memrchr(entry.p, ':', entry.n) : NULL;
    const char *close = entry.n != 0 ? memrchr(entry.p, ']', entry.n) : NULL;

    if (colon != NULL &&
        (close != NULL ? colon == close + 1 : memchr(entry.p, ':', entry.n) == colon)) {
        port = gw_str_sub(entry, (size_t)(colon - entry.p) + 1, entry.n);
        entry = gw_str_sub(entry, 0, (size_t)(colon - entry.p));
    }
    if (entry.n == 0 || (!gw_str_eq_c(port, p->port) && !gw_str_eq_c(port, "*"))) {
        return false;
    }
    if (entry.n > 2 && entry.p[0] == '*' && entry.p[1] == '.') {
        domain = gw_str_sub(entry, 1, entry.n); /* with its dot */
        return host.n > domain.n &&
               gw_str_ieq(gw_str_sub(host, host.n - domain.n, domain.n), domain);
    }
    return gw_str_ieq(unbracket(entry), unbracket(host));
}

static bool allowed(struct cache *c, const struct place *p)
{
    const struct cache_upstream_options *o = &c->options.upstream;

    if (strcmp(p->scheme, "https") != 0 &&
        !(strcmp(p->scheme, "http") == 0 && strcmp(c->upstream->origin.scheme, "http") == 0)) {
        return false;
    }
    for (size_t i = 0; i < o->n_redirect_hosts; i++) {
        if (listed(o->redirect_hosts[i], p)) {
            return true;
        }
    }
    return false;
}

int cache_upstream_url(struct cache *c, struct gw_str target, struct gw_buf *out,
                       struct gw_error *err)
{
    gw_buf_reset(out);
    gw_buf_add(out, c->options.upstream.url);
    gw_buf_add(out, target);
    if (target.n == 0 || target.p[0] != '/' || memchr(target.p, '\0', target.n) != NULL) {
        return gw_fail(err, GW_INVALID, 0, "upstream: a target that does not begin with '/'");
    }
    return gw_buf_ok(out, err);
}

bool cache_upstream_own(struct cache *c, const char *url)
{
    struct place p = {0};
    bool own = parse(url, &p) == GW_OK && same_origin(&p, &c->upstream->origin);

    place_release(&p);
    return own;
}

/* Of a URL on the upstream's own origin: its path without the one that upstream.url may have. */
static bool hub_path(struct cache *c, const struct place *p, struct gw_str *path)
{
    size_t n = strlen(c->upstream->origin.path);

    *path = gw_str_c(p->path);
    if (n > 1 && path->n > n && path->p[n] == '/' &&
        memcmp(path->p, c->upstream->origin.path, n) == 0) {
        *path = gw_str_sub(*path, n, path->n);
    }
    return same_origin(p, &c->upstream->origin);
}

int cache_upstream_may_ask(struct cache *c, const char *url, struct gw_error *err)
{
    struct place p = {0};
    struct gw_str path;
    int rc = GW_OK;

    if (parse(url, &p) == GW_OK && hub_path(c, &p, &path)) {
        rc = limit_check(c->shared, path, err);
    }
    place_release(&p);
    return rc;
}

void cache_upstream_heard(struct cache *c, void *easy, const char *url, int status)
{
    struct place p = {0};
    struct gw_str path;

    if (status != 0 && parse(url, &p) == GW_OK && hub_path(c, &p, &path)) {
        limit_hear(c->shared, easy, path, status);
    }
    place_release(&p);
}

bool cache_is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

int cache_upstream_redirect(struct cache *c, const char *from, struct gw_str location,
                            struct gw_buf *to, bool *own, struct gw_error *err)
{
    struct place p = {0};
    char *url = NULL, *text = gw_strndup(location.p, location.n);
    CURLU *u = curl_url();
    CURLUcode code;
    int rc = GW_OK;

    if (text == NULL || u == NULL) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "upstream: no memory");
        goto done;
    }
    if (location.n == 0 || memchr(location.p, '\0', location.n) != NULL) {
        rc = gw_fail(err, GW_INVALID, 0, "upstream: a redirect without a usable Location");
        goto done;
    }
    code = curl_url_set(u, CURLUPART_URL, from, URL_PARSE);
    code = code != CURLUE_OK ? code : curl_url_set(u, CURLUPART_URL, text, URL_PARSE);
    rc = code == CURLUE_OK ? place_of(u, &p) : GW_INVALID;
    if (rc != GW_OK) {
        /* an unknown scheme (file:, ftp:) comes here as well */
        rc = gw_fail(err, code == CURLUE_UNSUPPORTED_SCHEME ? GW_FORBIDDEN : GW_INVALID, 0,
                     "upstream: a redirect to something that is no URL of the web");
        goto done;
    }
    *own = same_origin(&p, &c->upstream->origin);
    if (has_user(u)) {
        rc = gw_fail(err, GW_FORBIDDEN, 0, "upstream: a redirect with a user name in its URL");
    } else if (*own && !cache_upstream_own(c, from)) {
        /* Another host does not choose what we ask of the Hub in the organisation's name. */
        rc = gw_fail(err, GW_FORBIDDEN, 0, "upstream: a redirect from another host back to %.100s",
                     p.host);
    } else if (!*own && !allowed(c, &p)) {
        rc = gw_fail(err, GW_FORBIDDEN, 0,
                     "upstream: redirects to %.10s://%.100s:%.5s, which upstream.redirect_hosts "
                     "does not list",
                     p.scheme, p.host, p.port);
    } else if (curl_url_get(u, CURLUPART_URL, &url, 0) != CURLUE_OK) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "upstream: no memory");
    }
    if (rc != GW_OK) {
        goto done;
    }
    gw_buf_reset(to);
    gw_buf_add_c(to, url);
    rc = gw_buf_ok(to, err);
    if (rc == GW_OK && c->upstream->proxy_host == NULL) {
        cache_resolve_upstream(c, gw_str_c(p.host));
    }
done:
    curl_free(url);
    place_release(&p);
    curl_url_cleanup(u);
    gw_free(text);
    return rc;
}

/* ---- what all requests have in common ---- */

static int add_line(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);

    if (longer == NULL) {
        return GW_NO_MEMORY;
    }
    *list = longer;
    return GW_OK;
}

/* Whom a request goes to. */
enum whom { TO_HUB, TO_OTHER, TO_NODE }; /* TO_OTHER: where the Hub redirects to */

static int add_headers(struct cache *c, enum whom whom, const char *const *extra, size_t n_extra,
                       struct curl_slist **list)
{
    const struct cache_upstream_options *o = &c->options.upstream;
    struct gw_buf line;
    int rc = add_line(list, "Accept: */*");

    rc = rc != GW_OK ? rc : add_line(list, "Accept-Encoding: identity");
    rc = rc != GW_OK ? rc : add_line(list, "Expect:"); /* without a value: not sent */
    gw_buf_init(&line, 16384);
    if (rc == GW_OK && o->via.n != 0 && whom != TO_NODE) {
        gw_buf_addf(&line, "Via: 1.1 " GW_STR_FMT, GW_STR_ARG(o->via));
        rc = gw_buf_ok(&line, NULL) == GW_OK ? add_line(list, line.p) : GW_NO_MEMORY;
    }
    if (rc == GW_OK && whom == TO_HUB && o->token.n != 0) {
        gw_buf_reset(&line);
        gw_buf_addf(&line, "Authorization: Bearer " GW_STR_FMT, GW_STR_ARG(o->token));
        rc = gw_buf_ok(&line, NULL) == GW_OK ? add_line(list, line.p) : GW_NO_MEMORY;
    }
    gw_buf_wipe(&line);
    for (size_t i = 0; rc == GW_OK && i < n_extra; i++) {
        rc = add_line(list, extra[i]);
    }
    return rc;
}

/* "host:port:addresses" of whom curl will connect to, so that it asks nobody. */
static int add_resolve(struct cache *c, enum whom whom, const struct place *p, int64_t deadline_ms,
                       struct curl_slist **list, struct gw_error *err)
{
    bool by_proxy = whom != TO_NODE && c->upstream->proxy_host != NULL;
    const char *host = by_proxy ? c->upstream->proxy_host : p->host;
    const char *port = by_proxy ? c->upstream->proxy_port : p->port;
    char addresses[256], line[1024];
    int rc;

    if (whom == TO_NODE) {
        cache_resolve_also(c, gw_str_c(host));
    }
    rc = cache_addresses(c, gw_str_c(host), deadline_ms, addresses, sizeof(addresses), err);
    if (rc != GW_OK) {
        return rc;
    }
    if (strcmp(host, addresses) == 0) {
        return GW_OK; /* an address needs no line */
    }
    if (snprintf(line, sizeof(line), "%s:%s:%s", host, port, addresses) >= (int)sizeof(line)) {
        return gw_fail(err, GW_INVALID, 0, "upstream: a host name that is too long");
    }
    return add_line(list, line) == GW_OK ? GW_OK
                                         : gw_fail(err, GW_NO_MEMORY, 0, "upstream: no memory");
}

static CURLcode set_options(struct cache *c, CURL *easy, enum whom whom, const char *url,
                            struct cache_transfer *t)
{
    const struct cache_upstream_options *o = &c->options.upstream;
    const char *ca_file = whom == TO_NODE ? c->options.share.node_ca_file : o->ca_file;
    const char *proxy = whom == TO_NODE ? NULL : o->proxy;
    int64_t connect_ms = o->connect_timeout_ms > 0 ? o->connect_timeout_ms : CONNECT_MS;
    int64_t stall_ms = o->stall_timeout_ms > 0 ? o->stall_timeout_ms : STALL_MS;
    CURLcode rc = CURLE_OK;

#define SET(option, value) rc = rc != CURLE_OK ? rc : curl_easy_setopt(easy, option, value)
    SET(CURLOPT_ERRORBUFFER, t->reason);
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    if (ca_file != NULL) {
        SET(CURLOPT_CAINFO, ca_file);
        SET(CURLOPT_CAPATH, NULL); /* this file, not the system's folder besides */
        SET(CURLOPT_PROXY_CAINFO, ca_file);
    }
    /* "" and not NULL: the environment has no say. */
    SET(CURLOPT_PROXY, proxy != NULL ? proxy : "");
    SET(CURLOPT_NOPROXY, "");
    SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* none of ours in a CONNECT */
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    SET(CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES_PER_S);
    SET(CURLOPT_LOW_SPEED_TIME, (long)((stall_ms + 999) / 1000));
    SET(CURLOPT_USERAGENT, "hubgate/" HUBGATE_VERSION);
    SET(CURLOPT_HTTPHEADER, (struct curl_slist *)t->headers);
    SET(CURLOPT_RESOLVE, (struct curl_slist *)t->resolve);
#undef SET
    return rc;
}

static int setup(struct cache *c, CURL *easy, bool node, const char *url, const char *const *extra,
                 size_t n_extra, int64_t deadline_ms, struct cache_transfer *t,
                 struct gw_error *err)
{
    struct curl_slist *headers = NULL, *resolve = NULL;
    struct place p = {0};
    enum whom whom;
    CURLcode code;
    int rc;

    cache_transfer_release(t);
    rc = parse(url, &p);
    if (rc != GW_OK) {
        return gw_fail(err, rc, 0, "upstream: a URL that is none");
    }
    whom = node ? TO_NODE : same_origin(&p, &c->upstream->origin) ? TO_HUB : TO_OTHER;
    rc = add_resolve(c, whom, &p, deadline_ms, &resolve, err);
    t->resolve = resolve;
    if (rc == GW_OK && add_headers(c, whom, extra, n_extra, &headers) != GW_OK) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "upstream: no memory");
    }
    t->headers = headers;
    if (rc == GW_OK) {
        code = set_options(c, easy, whom, url, t);
        if (code != CURLE_OK) {
            rc = gw_fail(err, code == CURLE_OUT_OF_MEMORY ? GW_NO_MEMORY : GW_INVALID, (int)code,
                         "upstream: %s", curl_easy_strerror(code));
        }
    }
    place_release(&p);
    return rc;
}

int cache_upstream_setup(struct cache *c, void *easy, const char *url, const char *const *extra,
                         size_t n_extra, int64_t deadline_ms, struct cache_transfer *t,
                         struct gw_error *err)
{
    return setup(c, easy, false, url, extra, n_extra, deadline_ms, t, err);
}

int cache_upstream_setup_node(struct cache *c, void *easy, const char *url, const char *credential,
                              struct cache_transfer *t, struct gw_error *err)
{
    return setup(c, easy, true, url, &credential, 1, 0, t, err);
}

void cache_transfer_release(struct cache_transfer *t)
{
    curl_slist_free_all(t->headers);
    curl_slist_free_all(t->resolve);
    *t = (struct cache_transfer){0};
}

static enum gw_status status_of(CURLcode code, int64_t deadline_ms)
{
    switch (code) {
    case CURLE_OK:
        return GW_OK;
    case CURLE_OPERATION_TIMEDOUT:
        /* curl's own clock may be a little ahead of ours */
        return deadline_ms != 0 && gw_mono_ms() >= deadline_ms - 5 ? GW_TIMEOUT : GW_UNAVAILABLE;
    case CURLE_ABORTED_BY_CALLBACK:
        return GW_CANCELLED;
    case CURLE_OUT_OF_MEMORY:
        return GW_NO_MEMORY;
    case CURLE_UNSUPPORTED_PROTOCOL: /* also: HTTP/0.9 */
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_URL_MALFORMAT:
        return GW_INVALID;
    default:
        return GW_UNAVAILABLE;
    }
}

void cache_upstream_unreached(struct cache *c, int curl_code, const char *url, bool node)
{
    const char *proxy = node ? NULL : c->upstream->proxy_host;
    struct place p = {0};

    if ((curl_code == CURLE_COULDNT_CONNECT || curl_code == CURLE_OPERATION_TIMEDOUT) &&
        parse(url, &p) == GW_OK) {
        cache_resolve_again(c, gw_str_c(proxy != NULL ? proxy : p.host));
    }
    place_release(&p);
}

int cache_upstream_outcome(struct cache *c, int curl_code, const char *url,
                           const struct cache_transfer *t, int64_t deadline_ms,
                           struct gw_error *err)
{
    enum gw_status status = status_of((CURLcode)curl_code, deadline_ms);
    struct place p = {0};

    if (status == GW_OK) {
        return GW_OK;
    }
    if (parse(url, &p) != GW_OK) {
        p.host = NULL;
    }
    cache_upstream_unreached(c, curl_code, url, false);
    /* the host only: a signed URL is a secret */
    gw_fail(err, status, curl_code, "upstream %.100s: %s", p.host != NULL ? p.host : "?",
            t->reason[0] != '\0' ? t->reason : curl_easy_strerror((CURLcode)curl_code));
    place_release(&p);
    return status;
}

/* ---- blocking calls ---- */

struct exchange { /* one hop */
    struct cache *c;
    struct reply_head head;
    int (*sink)(void *ctx, struct gw_str bytes);
    void *ctx;
    size_t body_bytes, discarded;
    bool enough; /* the rest of a body that nobody wants */
};

static CURL *take_handle(struct cache_upstream *up)
{
    CURL *easy = NULL;

    pthread_mutex_lock(&up->mutex);
    if (up->n_idle != 0) {
        easy = up->idle[--up->n_idle];
    }
    pthread_mutex_unlock(&up->mutex);
    return easy != NULL ? easy : curl_easy_init();
}

static void give_handle(struct cache_upstream *up, CURL *easy)
{
    curl_easy_reset(easy); /* keeps connections and TLS sessions */
    pthread_mutex_lock(&up->mutex);
    if (up->n_idle < IDLE_HANDLES) {
        up->idle[up->n_idle++] = easy;
        easy = NULL;
    }
    pthread_mutex_unlock(&up->mutex);
    if (easy != NULL) {
        curl_easy_cleanup(easy);
    }
}

static size_t refuse(struct exchange *x, enum gw_status status, const char *why)
{
    x->head.refused = status;
    x->head.why = why;
    return 0; /* never the length of a piece: curl stops with CURLE_WRITE_ERROR */
}

static size_t on_header(char *p, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;

    return reply_line(&x->head, (struct gw_str){p, size * count}) ? size * count : 0;
}

static size_t on_body(char *p, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    size_t n = size * count;
    int rc;

    x->head.in_body = true;
    atomic_fetch_add(&x->c->shared->counters.upstream_bytes, n);
    if (x->head.reply->status >= 200 && x->head.reply->status < 300 && x->sink != NULL) {
        x->body_bytes += n;
        if (x->body_bytes > BODY_MAX) {
            return refuse(x, GW_TOO_LARGE, "sends more than 512 MiB for one document");
        }
        rc = x->sink(x->ctx, (struct gw_str){p, n});
        return rc == GW_OK ? n : refuse(x, (enum gw_status)rc, NULL);
    }
    x->discarded += n;
    if (x->discarded > DISCARD_MAX) {
        x->enough = true;
        return 0;
    }
    return n;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t e)
{
    const struct exchange *x = ctx;

    return atomic_load(&x->c->leaving) ? 1 : 0;
}

static CURLcode set_method(CURL *easy, const struct cache_call *call)
{
    CURLcode rc;

    if (strcmp(call->method, "HEAD") == 0) {
        return curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    if (strcmp(call->method, "POST") == 0) {
        rc = curl_easy_setopt(easy, CURLOPT_POST, 1L);
        rc = rc != CURLE_OK ? rc
                            : curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                                               call->body.n != 0 ? call->body.p : "");
        return rc != CURLE_OK
                   ? rc
                   : curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.n);
    }
    return strcmp(call->method, "GET") == 0
               ? curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L)
               : curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
}

static CURLcode set_callbacks(CURL *easy, struct exchange *x, int64_t left_ms)
{
    CURLcode rc = CURLE_OK;

#define SET(option, value) rc = rc != CURLE_OK ? rc : curl_easy_setopt(easy, option, value)
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, x);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, x);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, x);
    SET(CURLOPT_TIMEOUT_MS, (long)(left_ms > INT32_MAX ? INT32_MAX : left_ms));
#undef SET
    return rc;
}

/* One request. @return as cache_upstream_call */
static int exchange(struct exchange *x, const struct cache_call *call, const char *url,
                    struct gw_error *err)
{
    struct cache *c = x->c;
    struct cache_transfer t = {0};
    const char *extra[1];
    size_t n_extra = 0;
    int64_t left_ms = call->deadline_ms - gw_mono_ms();
    char type[256];
    CURL *easy;
    CURLcode code;
    bool failed;
    int rc;

    if (atomic_load(&c->leaving)) {
        return gw_fail(err, GW_CANCELLED, 0, "upstream: the process is leaving");
    }
    if (left_ms <= 0) {
        return gw_fail(err, GW_TIMEOUT, 0, "upstream: no time left");
    }
    rc = cache_upstream_may_ask(c, url, err);
    if (rc != GW_OK) {
        return rc;
    }
    easy = take_handle(c->upstream);
    if (easy == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "upstream: no memory");
    }
    if (call->content_type.n != 0) {
        snprintf(type, sizeof(type), "Content-Type: " GW_STR_FMT, GW_STR_ARG(call->content_type));
        extra[n_extra++] = type;
    }
    rc = cache_upstream_setup(c, easy, url, extra, n_extra, call->deadline_ms, &t, err);
    if (rc == GW_OK) {
        left_ms = call->deadline_ms - gw_mono_ms();
        code = set_method(easy, call);
        code = code != CURLE_OK ? code : set_callbacks(easy, x, left_ms > 0 ? left_ms : 1);
        if (code == CURLE_OK) {
            if (err != NULL) {
                err->status = GW_OK;
            }
            atomic_fetch_add(&c->shared->counters.upstream_calls, 1);
            code = curl_easy_perform(easy);
            failed = x->head.refused == GW_OK && !x->enough && code != CURLE_OK;
            failed = failed || x->head.reply->status == 429 || x->head.reply->status >= 500;
            atomic_fetch_add(&c->shared->counters.upstream_failures, failed);
            cache_upstream_heard(c, easy, url, x->head.reply->status);
        }
        if (x->head.refused != GW_OK && x->head.why == NULL) { /* the sink may have said why */
            rc = err != NULL && err->status == x->head.refused
                     ? (int)x->head.refused
                     : gw_fail(err, x->head.refused, 0, "upstream %s: sends what cannot be taken",
                               call->method);
        } else if (x->head.refused != GW_OK) {
            rc = gw_fail(err, x->head.refused, 0, "upstream %s: %s", call->method, x->head.why);
        } else if (code == CURLE_OUT_OF_MEMORY && x->head.header_bytes > 0 && !x->head.in_body) {
            /* how curl 7.88 says that one header line is over its own 100 KiB */
            rc = gw_fail(err, GW_TOO_LARGE, (int)code, "upstream: a header that does not end");
        } else if (!x->enough) {
            rc = cache_upstream_outcome(c, (int)code, url, &t, call->deadline_ms, err);
        }
    }
    give_handle(c->upstream, easy);
    cache_transfer_release(&t);
    return rc;
}

/* Path and query of a URL on our origin, without the path that upstream.url may have. */
static int target_of(struct cache *c, const char *url, struct gw_arena *a, struct gw_str *out)
{
    struct place p = {0};
    struct gw_str path;
    int rc = parse(url, &p);

    if (rc != GW_OK) {
        return rc;
    }
    (void)hub_path(c, &p, &path);
    *out = gw_arena_printf(a, GW_STR_FMT "%s%s", GW_STR_ARG(path), p.query != NULL ? "?" : "",
                           p.query != NULL ? p.query : "");
    place_release(&p);
    return out->p != NULL ? GW_OK : GW_NO_MEMORY;
}

/* Is this answer the end of the call, though it is a redirect? */
static bool stays(const struct cache_call *call, int status)
{
    /* 301 to 303 would turn a POST into a GET of something else */
    return strcmp(call->method, "POST") == 0 && status != 307 && status != 308;
}

static int follow(struct cache *c, const struct cache_call *call, struct gw_buf *url,
                  struct exchange *x, struct gw_error *err)
{
    struct cache_reply *reply = x->head.reply;
    struct gw_buf next;
    bool own;
    int rc;

    gw_buf_init(&next, CACHE_HEADERS_MAX * 4);
    for (unsigned hop = 0;; hop++) {
        x->head.own = cache_upstream_own(c, url->p);
        x->head.header_bytes = x->body_bytes = x->discarded = 0;
        x->enough = x->head.in_body = false;
        if (x->head.own) {
            rc = target_of(c, url->p, x->head.arena, &reply->final_target);
            if (rc != GW_OK) {
                gw_fail(err, rc, 0, "upstream: no memory");
                break;
            }
        }
        rc = exchange(x, call, url->p, err);
        if (rc != GW_OK || !cache_is_redirect(reply->status) || reply->location.n == 0 ||
            stays(call, reply->status)) {
            break;
        }
        rc = cache_upstream_redirect(c, url->p, reply->location, &next, &own, err);
        if (strcmp(call->method, "HEAD") == 0 && (rc == GW_FORBIDDEN || (rc == GW_OK && !own))) {
            rc = GW_OK; /* the Hub's 302 for a large file says all: X-Linked-ETag, X-Linked-Size */
            break;
        }
        if (rc == GW_OK && strcmp(call->method, "POST") == 0 && !own) {
            rc = gw_fail(err, GW_FORBIDDEN, 0, "upstream: redirects a POST to another host");
        }
        if (rc == GW_OK && hop + 1 > CACHE_REDIRECTS_MAX) {
            rc = gw_fail(err, GW_INVALID, 0, "upstream: more than %u redirects",
                         CACHE_REDIRECTS_MAX);
        }
        if (rc != GW_OK) {
            break;
        }
        gw_buf_reset(url);
        gw_buf_add(url, gw_buf_str(&next));
        rc = gw_buf_ok(url, err);
        if (rc != GW_OK) {
            break;
        }
    }
    gw_buf_release(&next);
    return rc;
}

int cache_upstream_call_from(struct cache *c, const struct cache_call *call,
                             int (*sink)(void *ctx, struct gw_str bytes), void *ctx,
                             struct cache_reply *out, bool *own, struct gw_arena *a,
                             struct gw_error *err)
{
    struct cache_reply reply = {.content_length = -1};
    struct exchange x = {.c = c, .head = {.arena = a, .reply = &reply}, .sink = sink, .ctx = ctx};
    struct gw_buf url;
    int rc;

    gw_buf_init(&url, CACHE_HEADERS_MAX * 4);
    rc = cache_upstream_url(c, call->target, &url, err);
    if (rc == GW_OK) {
        rc = follow(c, call, &url, &x, err);
    }
    if (rc == GW_OK) {
        *out = reply;
        *own = x.head.own;
    }
    gw_buf_release(&url);
    return rc;
}

int cache_upstream_call(struct cache *c, const struct cache_call *call,
                        int (*sink)(void *ctx, struct gw_str bytes), void *ctx,
                        struct cache_reply *out, struct gw_arena *a, struct gw_error *err)
{
    bool own;

    return cache_upstream_call_from(c, call, sink, ctx, out, &own, a, err);
}

/* ---- open ---- */

static int parse_proxy(struct cache *c, struct gw_error *err)
{
    struct cache_upstream *up = c->upstream;
    CURLU *u = curl_url();
    CURLUcode code = CURLUE_OUT_OF_MEMORY;
    char *scheme = NULL, *port = NULL;
    int rc = GW_OK;

    if (u != NULL) {
        code = curl_url_set(u, CURLUPART_URL, c->options.upstream.proxy,
                            CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME);
        code = code != CURLUE_OK ? code : curl_url_get(u, CURLUPART_SCHEME, &scheme, 0);
        code = code != CURLUE_OK ? code : curl_url_get(u, CURLUPART_HOST, &up->proxy_host, 0);
    }
    /* socks4 and socks5 would look the target's name up in curl, that is, in a job */
    if (code != CURLUE_OK || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0 &&
                              strcmp(scheme, "socks5h") != 0)) {
        rc = gw_fail(err, GW_INVALID, 0,
                     "upstream.proxy: not an http, https or socks5h URL with a host");
    } else {
        code = curl_url_get(u, CURLUPART_PORT, &port, 0);
        snprintf(up->proxy_port, sizeof(up->proxy_port), "%s",
                 code == CURLUE_OK              ? port
                 : strcmp(scheme, "https") == 0 ? "443"
                                                : "1080" /* curl's own */);
    }
    curl_free(port);
    curl_free(scheme);
    curl_url_cleanup(u);
    return rc;
}

int cache_upstream_open(struct cache *c, struct gw_error *err)
{
    struct cache_upstream *up = gw_arena_alloc(&c->memory, sizeof(*up));
    int rc;

    if (up == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "upstream: no memory");
    }
    pthread_mutex_init(&up->mutex, NULL);
    c->upstream = up;
    rc = parse(c->options.upstream.url.p, &up->origin);
    if (rc == GW_OK &&
        ((strcmp(up->origin.scheme, "https") != 0 && strcmp(up->origin.scheme, "http") != 0) ||
         up->origin.query != NULL)) {
        rc = GW_INVALID;
    }
    if (rc != GW_OK) {
        rc = gw_fail(err, rc, 0, "upstream.url: \"" GW_STR_FMT "\" is not an http or https URL",
                     GW_STR_ARG(c->options.upstream.url));
    } else if (c->options.upstream.proxy != NULL) {
        rc = parse_proxy(c, err);
    }
    if (rc != GW_OK) {
        cache_upstream_close(c);
        return rc;
    }
    if (up->proxy_host != NULL) {
        cache_resolve_also(c, gw_str_c(up->proxy_host));
    } else {
        cache_resolve_upstream(c, gw_str_c(up->origin.host));
    }
    for (size_t i = 0; up->proxy_host == NULL && i < c->options.upstream.n_redirect_hosts; i++) {
        struct gw_str rest = c->options.upstream.redirect_hosts[i], host;

        if (gw_str_split(&rest, ':', &host) && memchr(host.p, '*', host.n) == NULL &&
            memchr(host.p, '[', host.n) == NULL) {
            cache_resolve_upstream(c, host);
        }
    }
    return GW_OK;
}

void cache_upstream_close(struct cache *c)
{
    struct cache_upstream *up = c->upstream;

    if (up == NULL) {
        return;
    }
    while (up->n_idle != 0) {
        curl_easy_cleanup(up->idle[--up->n_idle]);
    }
    place_release(&up->origin);
    curl_free(up->proxy_host);
    pthread_mutex_destroy(&up->mutex);
    c->upstream = NULL;
}
