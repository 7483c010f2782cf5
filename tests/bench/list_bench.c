/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/bench/list_bench.c - a catalogue of many private repositories.
 *
 * list_bench DIR CARDS puts the cards of acme/repo0 ... into the index in DIR and says that the
 * catalogue is whole. Prints one JSON object: the median and the 99th percentile of the last 1,000
 * puts (each a durable transaction of its own, as a commit makes it), and of pages of 100.
 */
#include "cache/cache.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define LAST 1000u
#define PAGE 100u

static double took[LAST];

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void on_log(void *ctx, enum gw_log_level level, struct gw_str line)
{
    fprintf(stderr, GW_STR_FMT "\n", GW_STR_ARG(line));
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void put(struct cache *c, size_t i, int64_t now_ms)
{
    char name[64], words[512], value[2048];
    struct gw_error err;
    struct cache_card card = {
        .type = 1, .name = {name, 0}, .words = {words, 0}, .value = {value, 0}};

    card.name.n = (size_t)snprintf(name, sizeof(name), "acme/repo%zu", i);
    card.words.n = (size_t)snprintf(
        words, sizeof(words),
        "author:acme\ntransformers\nsafetensors\ntext-generation\nen\nteam-%zu\nlicense:mit\n"
        "dataset:acme/d%zu\nbase_model:acme/b%zu\nbase_model:finetune:acme/b%zu\npart-%zu",
        i % 50, i % 300, i % 200, i % 200, i % 4);
    card.value.n = (size_t)snprintf(
        value, sizeof(value),
        "%040zu\n{\"_id\":\"%024zu\",\"id\":\"%s\",\"modelId\":\"%s\",\"author\":\"acme\",\"sha\":"
        "\"%040zu\",\"lastModified\":\"2026-01-01T00:00:00.000Z\",\"createdAt\":"
        "\"2026-01-01T00:00:00.000Z\",\"private\":true,\"gated\":false,\"disabled\":false,"
        "\"downloads\":0,\"likes\":0,\"trendingScore\":0,\"library_name\":\"transformers\","
        "\"pipeline_tag\":\"text-generation\",\"tags\":[\"transformers\",\"safetensors\","
        "\"text-generation\",\"en\",\"team-%zu\",\"license:mit\",\"dataset:acme/d%zu\"],"
        "\"cardData\":{\"license\":\"mit\",\"language\":\"en\"},\"usedStorage\":12345678,"
        "\"siblings\":[{\"rfilename\":\"config.json\"},{\"rfilename\":\"model.safetensors\"}],"
        "\"spaces\":[]}",
        i, i, name, name, i, i % 50, i % 300);
    card.sort[CACHE_BY_UPDATED] = card.sort[CACHE_BY_CREATED] = now_ms + (int64_t)i;
    card.sort[CACHE_BY_DOWNLOADS] = (int64_t)(i * 7919 % 1000);
    if (cache_card_put(c, &card, &err) != GW_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

static int on_card(void *ctx, const struct cache_card *card, const struct cache_place *at)
{
    return ++*(size_t *)ctx == PAGE ? GW_CONFLICT : GW_OK;
}

static void page(struct cache *c, size_t i)
{
    char word[32];
    size_t n = 0;
    struct cache_card_query q = {.type = 1, .order = (enum cache_order)(i % CACHE_ORDERS)};
    int rc;

    q.word = (struct gw_str){word, (size_t)snprintf(word, sizeof(word), "part-%zu", i % 4)};
    rc = cache_cards(c, &q, on_card, &n, NULL);
    if (rc != GW_OK && rc != GW_CONFLICT) {
        exit(1);
    }
}

int main(int argc, char **argv)
{
    size_t cards = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    struct cache_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct cache_options o = {.dir = argc > 1 ? argv[1] : NULL,
                              .read_only_index = true,
                              .shared = shared,
                              .upstream = {.url = GW_STR("http://127.0.0.1:9")},
                              .log = {.write = on_log, .level = GW_LOG_NOTICE}};
    int64_t now_ms = gw_wall_ms() - 10000000;
    struct gw_error err;
    struct cache *c;
    char state[64];
    double put_us, put_p99_us;

    if (cards < LAST || shared == MAP_FAILED || cache_shared_init(shared, &err) != GW_OK) {
        fprintf(stderr, "usage: list_bench DIR CARDS\n");
        return 2;
    }
    o.slot = (unsigned)cache_slot_claim(shared);
    if (cache_open(&c, &o, &err) != GW_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (size_t i = 0; i < cards; i++) {
        int64_t began = now_ns();

        put(c, i, now_ms);
        took[i % LAST] = (double)(now_ns() - began) / 1e3;
    }
    qsort(took, LAST, sizeof(took[0]), by_size);
    put_us = took[LAST / 2];
    put_p99_us = took[LAST * 99 / 100];
    for (size_t i = 0; i < LAST; i++) {
        int64_t began = now_ns();

        page(c, i);
        took[i] = (double)(now_ns() - began) / 1e3;
    }
    qsort(took, LAST, sizeof(took[0]), by_size);
    snprintf(state, sizeof(state), "1\n%lld\n", (long long)gw_wall_ms());
    if (cache_cards_set_state(c, gw_str_c(state), &err) != GW_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("{\"cards\":%zu,\"put_us\":%.0f,\"put_p99_us\":%.0f,\"page_us\":%.0f,\"page_p99_us\":"
           "%.0f}\n",
           cards, put_us, put_p99_us, took[LAST / 2], took[LAST * 99 / 100]);
    cache_close(c);
    return 0;
}
