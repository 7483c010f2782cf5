/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/resolve.c - names to addresses, by a thread of their own.
 *
 *   unknown --asked--> known --every 30 s--> known (the last good answer stays when a later one
 * fails)
 *                 \--> failed --asked again sooner--> known
 *
 * getaddrinfo has no time-out and cannot be stopped, so nobody but this thread calls it, and the
 * state belongs to the thread as well: when a look-up hangs at exit, the thread is left behind with
 * it.
 */
#include "cache/cache_internal.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define ASK_EVERY_MS 30000
#define ASK_FAILED_EVERY_MS 2000
#define JOIN_MS 1000
#define FIRST_WAIT_MS 2000
#define ADDRESSES 4u
#define HOST_BYTES 256u
#define HOSTS_MAX 256u

struct host {
    struct host *next;
    char name[HOST_BYTES]; /* lower case */
    char addresses[ADDRESSES][INET6_ADDRSTRLEN];
    size_t n_addresses; /* of the last good answer */
    bool answered, pinned;
    bool inside;               /* the company's: the machine's own name service knows it */
    int failure;               /* of getaddrinfo, when it never had a good answer */
    int64_t asked_ms, next_ms; /* monotonic; next_ms: when to ask again; 0: at once */
};

struct cache_resolver {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a host was added or answered, or stop: CLOCK_MONOTONIC */
    pthread_t thread;
    bool stop, finished, abandoned;
    bool has_dns;
    struct sockaddr_in dns; /* upstream.dns */
    struct host *hosts;     /* only ever grows */
    size_t n_hosts;
};

static struct timespec at_ms(int64_t ms)
{
    return (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
}

static void resolver_free(struct cache_resolver *r)
{
    while (r->hosts != NULL) {
        struct host *next = r->hosts->next;

        gw_free(r->hosts);
        r->hosts = next;
    }
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->mutex);
    gw_free(r);
}

static size_t ask_system(const char *name, char out[ADDRESSES][INET6_ADDRSTRLEN], int *failure)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    size_t n = 0;

    *failure = getaddrinfo(name, NULL, &hints, &list);
    if (*failure == EAI_NONAME || *failure == EAI_ADDRFAMILY) {
        hints.ai_flags = 0; /* a machine with nothing but loopback has no address that counts */
        *failure = getaddrinfo(name, NULL, &hints, &list);
    }
    if (*failure != 0) {
        return 0;
    }
    for (struct addrinfo *a = list; a != NULL && n < ADDRESSES; a = a->ai_next) {
        if (getnameinfo(a->ai_addr, a->ai_addrlen, out[n], INET6_ADDRSTRLEN, NULL, 0,
                        NI_NUMERICHOST) == 0 &&
            strchr(out[n], '%') == NULL) {
            n++;
        }
    }
    freeaddrinfo(list);
    return n;
}

/* The host that is due, or NULL and when to look again. */
static struct host *next_due(struct cache_resolver *r, int64_t now, int64_t *wake_ms)
{
    *wake_ms = now + ASK_EVERY_MS;
    for (struct host *h = r->hosts; h != NULL; h = h->next) {
        if (h->pinned) {
            continue;
        }
        if (h->next_ms <= now) {
            return h;
        }
        if (h->next_ms < *wake_ms) {
            *wake_ms = h->next_ms;
        }
    }
    return NULL;
}

static void *run(void *arg)
{
    struct cache_resolver *r = arg;
    bool mine;

    pthread_mutex_lock(&r->mutex);
    while (!r->stop) {
        char found[ADDRESSES][INET6_ADDRSTRLEN];
        int64_t wake_ms;
        struct host *h = next_due(r, gw_mono_ms(), &wake_ms);
        bool inside;
        size_t n;
        int failure;

        if (h == NULL) {
            struct timespec until = at_ms(wake_ms);

            pthread_cond_timedwait(&r->changed, &r->mutex, &until);
            continue;
        }
        inside = h->inside;
        pthread_mutex_unlock(&r->mutex);
        /* a host is never removed, its name never changes */
        n = r->has_dns && !inside ? cache_dns_look_up(&r->dns, h->name, found, ADDRESSES, &failure)
                                  : ask_system(h->name, found, &failure);
        pthread_mutex_lock(&r->mutex);
        if (n != 0) {
            memcpy(h->addresses, found, sizeof(found));
            h->n_addresses = n;
        }
        h->failure = n != 0 ? 0 : failure;
        h->answered = true;
        h->asked_ms = gw_mono_ms();
        h->next_ms = h->asked_ms + (n != 0 ? ASK_EVERY_MS : ASK_FAILED_EVERY_MS);
        pthread_cond_broadcast(&r->changed);
    }
    mine = r->abandoned;
    r->finished = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    if (mine) {
        resolver_free(r);
    }
    return NULL;
}

static bool is_literal(const char *host)
{
    struct in6_addr six;
    struct in_addr four;

    return inet_pton(AF_INET, host, &four) == 1 || inet_pton(AF_INET6, host, &six) == 1;
}

/* Lower case, without the brackets of an IPv6 literal. false: not a host name. */
static bool copy_host(char out[HOST_BYTES], struct gw_str host)
{
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        host = gw_str_sub(host, 1, host.n - 2);
    }
    if (host.n == 0 || host.n >= HOST_BYTES || memchr(host.p, '\0', host.n) != NULL) {
        return false;
    }
    for (size_t i = 0; i < host.n; i++) {
        out[i] = host.p[i] >= 'A' && host.p[i] <= 'Z' ? (char)(host.p[i] | 0x20) : host.p[i];
    }
    out[host.n] = '\0';
    return true;
}

/* Under the mutex; NULL: no memory, or too many. */
static struct host *host_of(struct cache_resolver *r, const char *name)
{
    struct host *h, **at;

    for (h = r->hosts; h != NULL; h = h->next) {
        if (strcmp(h->name, name) == 0) {
            return h;
        }
    }
    if (r->n_hosts >= HOSTS_MAX || (h = gw_alloc(sizeof(*h))) == NULL) {
        return NULL;
    }
    memcpy(h->name, name, strlen(name) + 1);
    for (at = &r->hosts; *at != NULL; at = &(*at)->next) {
        continue; /* in the order of their coming: the upstream is asked first */
    }
    *at = h;
    r->n_hosts++;
    pthread_cond_broadcast(&r->changed); /* the thread waits for the same */
    return h;
}

static int pin(struct cache_resolver *r, struct gw_str line, struct gw_error *err)
{
    char name[HOST_BYTES], address[HOST_BYTES];
    struct gw_str host, rest = line;
    struct host *h;

    if (!gw_str_split(&rest, ':', &host) || rest.p == NULL || !copy_host(name, host) ||
        !copy_host(address, rest) || !is_literal(address)) {
        return gw_fail(err, GW_INVALID, 0, "resolve: \"" GW_STR_FMT "\" is not HOST:ADDRESS",
                       GW_STR_ARG(line));
    }
    h = host_of(r, name);
    if (h == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "resolve: no memory");
    }
    if (h->n_addresses < ADDRESSES) {
        memcpy(h->addresses[h->n_addresses++], address, strlen(address) + 1);
    }
    h->pinned = h->answered = true;
    return GW_OK;
}

int cache_resolver_open(struct cache *c, struct gw_error *err)
{
    struct cache_resolver *r = gw_alloc(sizeof(*r));
    pthread_condattr_t attr;
    int rc;

    if (r == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "resolve: no memory");
    }
    pthread_mutex_init(&r->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    for (size_t i = 0; i < c->options.upstream.n_resolve; i++) {
        rc = pin(r, c->options.upstream.resolve[i], err);
        if (rc != GW_OK) {
            resolver_free(r);
            return rc;
        }
    }
    if (c->options.upstream.dns.n != 0) {
        r->has_dns = cache_dns_parse(c->options.upstream.dns, &r->dns);
        if (!r->has_dns) {
            resolver_free(r);
            return gw_fail(err, GW_INVALID, 0, "upstream.dns: not an IPv4 address");
        }
    }
    rc = cache_thread_start(&r->thread, run, r);
    if (rc != 0) {
        resolver_free(r);
        return gw_fail(err, GW_IO, rc, "resolve: thread: %s", strerror(rc));
    }
    c->resolver = r;
    return GW_OK;
}

void cache_resolver_close(struct cache *c)
{
    struct cache_resolver *r = c->resolver;
    struct timespec until = at_ms(gw_mono_ms() + JOIN_MS);
    int waited = 0;

    if (r == NULL) {
        return;
    }
    c->resolver = NULL;
    pthread_mutex_lock(&r->mutex);
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    while (!r->finished && waited == 0) {
        waited = pthread_cond_timedwait(&r->changed, &r->mutex, &until);
    }
    if (!r->finished) {
        r->abandoned = true; /* it hangs in getaddrinfo, and frees r when that returns */
        pthread_detach(r->thread);
        pthread_mutex_unlock(&r->mutex);
        return;
    }
    pthread_mutex_unlock(&r->mutex);
    pthread_join(r->thread, NULL);
    resolver_free(r);
}

static void also(struct cache *c, struct gw_str host, bool inside)
{
    char name[HOST_BYTES];
    struct host *h;

    if (!copy_host(name, host) || is_literal(name)) {
        return;
    }
    pthread_mutex_lock(&c->resolver->mutex);
    h = host_of(c->resolver, name);
    if (h != NULL && inside && !h->inside) {
        h->inside = true;
        h->next_ms = 0;
        h->answered = h->pinned; /* of a name server that does not know it */
    }
    pthread_mutex_unlock(&c->resolver->mutex);
}

void cache_resolve_also(struct cache *c, struct gw_str host)
{
    also(c, host, true);
}

void cache_resolve_upstream(struct cache *c, struct gw_str host)
{
    also(c, host, false);
}

void cache_resolve_again(struct cache *c, struct gw_str host)
{
    int64_t now = gw_mono_ms(), soonest;
    char name[HOST_BYTES];

    if (!copy_host(name, host) || is_literal(name)) {
        return;
    }
    pthread_mutex_lock(&c->resolver->mutex);
    for (struct host *h = c->resolver->hosts; h != NULL; h = h->next) {
        soonest = h->asked_ms + ASK_FAILED_EVERY_MS;
        if (strcmp(h->name, name) == 0 && h->answered && !h->pinned && h->next_ms > soonest) {
            h->next_ms = soonest > now ? soonest : now;
            pthread_cond_broadcast(&c->resolver->changed);
        }
    }
    pthread_mutex_unlock(&c->resolver->mutex);
}

/* Waits for the first answer. Under the mutex. */
static int known(struct cache *c, struct host *h, int64_t deadline_ms, struct gw_error *err)
{
    while (!h->answered && deadline_ms != 0) {
        int64_t now = gw_mono_ms();
        /* in short steps: a process that leaves does not signal this condition */
        struct timespec until = at_ms(deadline_ms - now > 200 ? now + 200 : deadline_ms);

        if (atomic_load(&c->leaving)) {
            return gw_fail(err, GW_CANCELLED, 0, "%s: the process is leaving", h->name);
        }
        if (now >= deadline_ms) {
            return gw_fail(err, GW_TIMEOUT, 0, "%s: no answer from the name service", h->name);
        }
        pthread_cond_timedwait(&c->resolver->changed, &c->resolver->mutex, &until);
    }
    if (h->n_addresses != 0) {
        return GW_OK;
    }
    return h->answered ? gw_fail(err, GW_UNAVAILABLE, h->failure, "%s: %s", h->name,
                                 h->failure != 0 ? gai_strerror(h->failure) : "no address")
                       : gw_fail(err, GW_AGAIN, 0, "%s: not resolved yet", h->name);
}

int cache_addresses(struct cache *c, struct gw_str host, int64_t deadline_ms, char *buf, size_t cap,
                    struct gw_error *err)
{
    char name[HOST_BYTES];
    struct host *h;
    size_t used = 0;
    int rc;

    if (!copy_host(name, host)) {
        return gw_fail(err, GW_UNAVAILABLE, 0, "\"" GW_STR_FMT "\" is not a host name",
                       GW_STR_ARG(gw_str_sub(host, 0, 100)));
    }
    if (is_literal(name)) {
        int n = snprintf(buf, cap, strchr(name, ':') != NULL ? "[%s]" : "%s", name);

        return n > 0 && (size_t)n < cap ? GW_OK
                                        : gw_fail(err, GW_TOO_LARGE, 0, "address of %s", name);
    }
    pthread_mutex_lock(&c->resolver->mutex);
    h = host_of(c->resolver, name);
    rc = h != NULL ? known(c, h, deadline_ms, err)
                   : gw_fail(err, GW_UNAVAILABLE, 0, "%s: too many names", name);
    for (size_t i = 0; rc == GW_OK && i < h->n_addresses; i++) {
        const char *address = h->addresses[i];
        int n = snprintf(buf + used, cap - used, strchr(address, ':') != NULL ? "%s[%s]" : "%s%s",
                         i != 0 ? "," : "", address);

        if (n < 0 || (size_t)n >= cap - used) {
            buf[used] = '\0';
            rc = i != 0 ? GW_OK : gw_fail(err, GW_TOO_LARGE, 0, "address of %s", name);
            break;
        }
        used += (size_t)n;
    }
    pthread_mutex_unlock(&c->resolver->mutex);
    return rc;
}

int cache_address_before(struct cache *c, struct gw_str host, int64_t deadline_ms, char *buf,
                         size_t cap, struct gw_error *err)
{
    char all[ADDRESSES * (INET6_ADDRSTRLEN + 3)];
    struct gw_str rest, first;
    int rc = cache_addresses(c, host, deadline_ms, all, sizeof(all), err);

    if (rc != GW_OK) {
        return rc;
    }
    rest = gw_str_c(all);
    gw_str_split(&rest, ',', &first);
    if (first.n != 0 && first.p[0] == '[') {
        first = gw_str_sub(first, 1, first.n - 2);
    }
    if (first.n >= cap) {
        return gw_fail(err, GW_TOO_LARGE, 0, "an address of %zu bytes", first.n);
    }
    memcpy(buf, first.p, first.n);
    buf[first.n] = '\0';
    return GW_OK;
}

int cache_address_of(struct cache *c, struct gw_str host, char *buf, size_t cap)
{
    int rc = cache_address_before(c, host, gw_mono_ms() + FIRST_WAIT_MS, buf, cap, NULL);

    return rc == GW_OK || rc == GW_TOO_LARGE ? rc : GW_UNAVAILABLE;
}
