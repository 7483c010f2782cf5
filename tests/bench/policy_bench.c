/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/policy_bench.c - load time and decision time of a large policy.
 *
 * cc -O2 -I. tests/bench/policy_bench.c build/lib/libpolicy.a build/lib/libbase.a ... ;
 * policy_bench [RULES [GROUPS]] Prints one JSON object. RULES: 95 % literal repos, 4 % globs below
 * a namespace, about 200 globs over namespaces. GROUPS: how many groups of the directory the
 * subject is in.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "policy/policy.h"

#define DECISIONS 200000u
#define NAMESPACES 5000u
#define POLICY_GROUPS 400u

static uint64_t seed = 42;
static unsigned below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed % n);
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void write_policy(struct gw_buf *b, unsigned rules)
{
    unsigned i;

    gw_buf_add_c(b, "version: 1\nprivate_namespaces: [\"team-*\", acme]\ngroups:\n");
    for (i = 0; i < POLICY_GROUPS; i++) {
        gw_buf_addf(b, "  g%u: {ldap: \"cn=g%u,ou=groups,dc=acme,dc=example\"}\n", i, i);
    }
    gw_buf_add_c(b,
                 "rules:\n- {id: pub, allow: [read], to: [authenticated], where: {hub: public}}\n");
    for (i = 0; i < rules; i++) {
        unsigned ns = below(NAMESPACES), kind = below(1000);

        gw_buf_addf(b, "- {id: r%u, %s: [%s], to: [\"group:g%u\"], where: {repo: ", i,
                    kind % 10 ? "allow" : "deny", kind % 3 ? "read" : "write",
                    below(POLICY_GROUPS));
        if (kind < 950) {
            gw_buf_addf(b, "team-%u/model-%u}}\n", ns, below(40));
        } else if (kind < 998) {
            gw_buf_addf(b, "team-%u/*-v%u}}\n", ns, below(5));
        } else {
            gw_buf_addf(b, "\"team-%u*/*-x%u\"}}\n", below(90) + 10, i);
        }
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    unsigned rules = argc > 1 ? (unsigned)atoi(argv[1]) : 100000,
             groups = argc > 2 ? (unsigned)atoi(argv[2]) : 20, i, allowed = 0;
    static char names[POLICY_MAX_GROUPS][96], ns[32], name[32];
    static struct gw_str values[POLICY_MAX_GROUPS];
    struct policy_subject who = {
        .kind = POLICY_USER, .name = GW_STR("ann"), .groups = values, .n_groups = groups};
    struct policy_object object = {.type = GW_STR("model")};
    int64_t *ns_each = calloc(DECISIONS, sizeof(*ns_each)), start, load, total;
    struct policy *p = NULL;
    struct gw_error err;
    struct gw_buf yaml;

    if (groups > POLICY_MAX_GROUPS || !ns_each) {
        return 2;
    }
    gw_buf_init(&yaml, POLICY_MAX_BYTES);
    write_policy(&yaml, rules);
    for (i = 0; i < groups; i++) {
        values[i] = (struct gw_str){
            names[i], (size_t)sprintf(names[i], "CN=g%u,OU=Groups,DC=acme,DC=example", i * 3)};
    }
    start = now_ns();
    if (policy_parse(&p, &(struct policy_file){GW_STR("bench.yaml"), gw_buf_str(&yaml)}, 1, NULL,
                     &err) != GW_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    load = now_ns() - start;
    total = now_ns();
    for (i = 0; i < DECISIONS; i++) {
        object.ns = (struct gw_str){ns, (size_t)sprintf(ns, "team-%u", below(NAMESPACES))};
        object.name = (struct gw_str){name, (size_t)sprintf(name, "model-%u", below(40))};
        start = now_ns();
        allowed += policy_decide(p, &who, POLICY_READ, &object, 0).effect == POLICY_ALLOW;
        ns_each[i] = now_ns() - start;
    }
    total = now_ns() - total;
    qsort(ns_each, DECISIONS, sizeof(*ns_each), by_value);
    printf("{\"rules\": %u, \"yaml_bytes\": %zu, \"groups\": %u, \"load_ms\": %.1f, \"p50_us\": "
           "%.2f, \"p99_us\": %.2f, "
           "\"p999_us\": %.2f, \"allowed\": %u}\n",
           rules, yaml.n, groups, (double)load / 1e6, (double)ns_each[DECISIONS / 2] / 1e3,
           (double)ns_each[DECISIONS / 100 * 99] / 1e3,
           (double)ns_each[DECISIONS / 1000 * 999] / 1e3, allowed);
    policy_unref(p);
    gw_buf_release(&yaml);
    free(ns_each);
    return 0;
}
