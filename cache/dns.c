/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/dns.c - upstream's names asked of one name server (upstream.dns) and not of the machine's,
 * which may call this very host huggingface.co. libresolv is the codec and the sender: it checks
 * ids, asks again, and goes on by TCP when an answer is cut.
 */
#include "cache/cache_internal.h"

#include "base/alloc.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_BYTES 4096
#define TIMEOUT_S 2
#define TRIES 2

bool cache_dns_parse(struct gw_str text, struct sockaddr_in *out)
{
    struct gw_str rest = text, address;
    uint64_t port = 53;
    char word[INET_ADDRSTRLEN];

    memset(out, 0, sizeof(*out));
    gw_str_split(&rest, ':', &address);
    if (address.n >= sizeof(word) ||
        (rest.p != NULL && (!gw_str_u64(rest, &port) || port == 0 || port > 65535))) {
        return false;
    }
    memcpy(word, address.p, address.n);
    word[address.n] = '\0';
    out->sin_family = AF_INET;
    out->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, word, &out->sin_addr) == 1;
}

static int failure_of(int h)
{
    return h == HOST_NOT_FOUND || h == NO_DATA ? EAI_NONAME : h == TRY_AGAIN ? EAI_AGAIN : EAI_FAIL;
}

static size_t take(const u_char *answer, int n, ns_type type, int family,
                   char out[][INET6_ADDRSTRLEN], size_t max)
{
    size_t wanted = family == AF_INET ? 4 : 16, found = 0;
    ns_msg message;
    ns_rr record;

    if (ns_initparse(answer, n, &message) != 0) {
        return 0;
    }
    for (int i = 0; i < ns_msg_count(message, ns_s_an) && found < max; i++) {
        if (ns_parserr(&message, ns_s_an, i, &record) != 0) {
            break;
        }
        if (ns_rr_type(record) == type && ns_rr_class(record) == ns_c_in &&
            ns_rr_rdlen(record) == wanted &&
            inet_ntop(family, ns_rr_rdata(record), out[found], INET6_ADDRSTRLEN) != NULL) {
            found++;
        }
    }
    return found;
}

size_t cache_dns_look_up(const struct sockaddr_in *server, const char *name,
                         char out[][INET6_ADDRSTRLEN], size_t max, int *failure)
{
    u_char *answer = gw_alloc(ANSWER_BYTES);
    struct __res_state state;
    size_t found = 0;
    int n;

    memset(&state, 0, sizeof(state));
    *failure = EAI_MEMORY;
    if (answer == NULL || res_ninit(&state) != 0) {
        gw_free(answer);
        return 0;
    }
    state.nscount = 1;
    state.nsaddr_list[0] = *server;
    state.retrans = TIMEOUT_S;
    state.retry = TRIES;
    state.options = RES_INIT | RES_RECURSE;
    n = res_nquery(&state, name, ns_c_in, ns_t_a, answer, ANSWER_BYTES);
    if (n > 0) {
        found = take(answer, n < ANSWER_BYTES ? n : ANSWER_BYTES, ns_t_a, AF_INET, out, max);
    }
    if (found == 0 && (n > 0 || state.res_h_errno == NO_DATA)) { /* IPv6 only */
        n = res_nquery(&state, name, ns_c_in, ns_t_aaaa, answer, ANSWER_BYTES);
        if (n > 0) {
            found =
                take(answer, n < ANSWER_BYTES ? n : ANSWER_BYTES, ns_t_aaaa, AF_INET6, out, max);
        }
    }
    *failure = found != 0 ? 0 : n > 0 ? EAI_NONAME : failure_of(state.res_h_errno);
    res_nclose(&state);
    gw_free(answer);
    return found;
}
