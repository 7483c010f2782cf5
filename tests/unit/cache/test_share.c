/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/cache/test_share.c - what nodes share, with a real Redis and with ones that lie.
 *
 * Two caches in one process are two nodes. A deadline that holds is one that ends a wait which
 * nobody else would end.
 */
#include "tests/unit/cache/redis_fixture.h"

#include "tests/unit/failing.h"

#include "base/encode.h"
#include "base/sha.h"

#include <sys/resource.h>
#include <time.h>

#define NAME "model/a/b@main"

static struct redis redis; /* for all tests; each begins with FLUSHALL */

static int start(void **state)
{
    (void)state;
    redis_init(&redis, "");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    redis_release(&redis);
    return 0;
}

static void two_nodes(struct node *a, struct node *b)
{
    must(&redis, "FLUSHALL");
    node_open(a, "https://a.test", redis.port);
    node_open(b, "https://b.test", redis.port);
}

/* ---- records ---- */

static void records_come_over(void **state)
{
    static const struct {
        enum cache_kind kind;
        const char *name;
        struct cache_record r;
        int64_t most_ms; /* it lives at most so long in Redis; 0: it is not shared */
    } rows[] = {
        {CACHE_REF, NAME, {GW_OK, 0, 1764000000000, GW_STR_INIT("0123")}, 3600000},
        {CACHE_REF, "model/a/gone@main", {GW_NOT_FOUND, 7, 5, GW_STR_INIT("")}, 60000},
        {CACHE_DOCUMENT, "info", {GW_OK, -3, 1, GW_STR_INIT("{\"a\":\0}")}, 3600000},
        {CACHE_FILE, "f", {GW_OK, INT32_MIN, 1, GW_STR_INIT("x")}, 604800000},
        {CACHE_TREE, "t", {GW_OK, INT32_MAX, 1, GW_STR_INIT("[]")}, 604800000},
        {CACHE_COMMIT, "", {GW_OK, 0, 0, GW_STR_INIT("hashes")}, 604800000},
        {CACHE_TOKEN, "t", {GW_OK, 0, 1, GW_STR_INIT("secret")}, 0},
        {CACHE_SUBJECT, "s", {GW_OK, 0, 1, GW_STR_INIT("secret")}, 0},
    };
    struct cache_share_name names[COUNT(rows)];
    struct cache_put puts[COUNT(rows)];
    bool found[COUNT(rows)];
    struct cache_record r;
    struct node a, b;

    two_nodes(&a, &b);
    for (size_t i = 0; i < COUNT(rows); i++) {
        names[i] = (struct cache_share_name){rows[i].kind, gw_str_c(rows[i].name)};
        puts[i] = (struct cache_put){rows[i].kind, gw_str_c(rows[i].name), rows[i].r};
    }
    assert_int_equal(cache_put(a.f.cache, puts, COUNT(puts), &a.f.err), GW_OK);
    assert_int_equal(cache_share_put(a.f.cache, names, COUNT(rows), soon(), &a.f.err), GW_OK);
    for (int round = 0; round < 2; round++) { /* what is held already is no news */
        assert_int_equal(cache_share_get(b.f.cache, names, COUNT(rows), found, soon(), &b.f.err),
                         GW_OK);
        for (size_t i = 0; i < COUNT(rows); i++) {
            assert_int_equal(found[i], round == 0 && rows[i].most_ms != 0);
            if (rows[i].most_ms == 0) {
                continue;
            }
            assert_int_equal(cache_get(b.f.cache, rows[i].kind, names[i].name, &b.f.arena, &r),
                             GW_OK);
            assert_int_equal(r.status, rows[i].r.status);
            assert_int_equal(r.detail, rows[i].r.detail);
            assert_int_equal(r.checked_ms, rows[i].r.checked_ms);
            assert_true(gw_str_eq(r.value, rows[i].r.value));
        }
    }
    assert_int_equal(HITS(&b), 6);
    assert_int_equal(MISSES(&b), 6);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char key[SHARE_KEY_BYTES + 1];
        struct redis_value *v;

        share_key(key, GW_STR(CLUSTER_KEY), SHARE_RECORD, rows[i].kind, names[i].name);
        v = ASK(&redis, GW_STR("PTTL"), gw_str_c(key));
        assert_int_equal(v->kind, REDIS_IS_NUMBER);
        assert_true(rows[i].most_ms == 0
                        ? v->number == -2
                        : v->number > rows[i].most_ms / 2 && v->number <= rows[i].most_ms);
    }
    assert_string_equal(b.f.log, "");
    assert_int_equal(ERRORS(&a) + ERRORS(&b) + REJECTED(&a) + REJECTED(&b), 0);
    node_release(&a);
    node_release(&b);
}

static void many_records(void **state)
{
    struct cache_share_name *names = calloc(CACHE_SHARE_NAMES_MAX + 1, sizeof(*names));
    struct cache_put *puts = calloc(CACHE_SHARE_NAMES_MAX, sizeof(*puts));
    bool *found = calloc(CACHE_SHARE_NAMES_MAX + 1, sizeof(*found));
    char *big = calloc(1, CACHE_SHARE_MAX + 1);
    char(*text)[16] = calloc(CACHE_SHARE_NAMES_MAX, sizeof(*text));
    struct node a, b;

    two_nodes(&a, &b);
    for (size_t i = 0; i < CACHE_SHARE_NAMES_MAX; i++) {
        snprintf(text[i], sizeof(text[i]), "%zu", i);
        names[i] = (struct cache_share_name){CACHE_FILE, gw_str_c(text[i])};
        puts[i] = (struct cache_put){
            CACHE_FILE, names[i].name, {.checked_ms = 1, .value = gw_str_c(text[i])}};
    }
    puts[7].record.value = (struct gw_str){big, CACHE_SHARE_MAX};
    puts[8].record.value = (struct gw_str){big, CACHE_SHARE_MAX + 1}; /* left out */
    puts[9].record.value = (struct gw_str){big, CACHE_SHARE_MAX - 1};
    for (size_t i = 0; i < 30; i++) { /* more than one batch takes at once */
        puts[500 + i].record.value = (struct gw_str){big, CACHE_SHARE_MAX / 2};
    }
    assert_int_equal(cache_put(a.f.cache, puts, CACHE_SHARE_NAMES_MAX, &a.f.err), GW_OK);
    assert_int_equal(cache_share_put(a.f.cache, names, CACHE_SHARE_NAMES_MAX + 1, soon(), &a.f.err),
                     GW_TOO_LARGE);
    assert_int_equal(
        cache_share_get(a.f.cache, names, CACHE_SHARE_NAMES_MAX + 1, found, soon(), &a.f.err),
        GW_TOO_LARGE);
    assert_int_equal(cache_share_put(a.f.cache, names, CACHE_SHARE_NAMES_MAX, soon(), &a.f.err),
                     GW_OK);
    assert_int_equal(
        cache_share_get(b.f.cache, names, CACHE_SHARE_NAMES_MAX, found, soon(), &b.f.err), GW_OK);
    for (size_t i = 0; i < CACHE_SHARE_NAMES_MAX; i++) {
        struct cache_record r;

        assert_int_equal(found[i], i != 8);
        gw_arena_release(&b.f.arena);
        assert_int_equal(cache_get(b.f.cache, CACHE_FILE, names[i].name, &b.f.arena, &r),
                         i != 8 ? GW_OK : GW_NOT_FOUND);
        assert_true(i == 8 || gw_str_eq(r.value, puts[i].record.value));
    }
    assert_int_equal(HITS(&b), CACHE_SHARE_NAMES_MAX - 1);
    node_release(&a);
    node_release(&b);
    free(names);
    free(puts);
    free(found);
    free(big);
    free(text);
}

/* Without servers, and with nothing asked for. */
static void nobody_there(void **state)
{
    struct cache_lease lease;
    struct node n;

    node_init(&n, "");
    fixture_open(&n.f);
    assert_false(cache_share_on(n.f.cache));
    assert_int_equal(fetch(&n, CACHE_REF, NAME), GW_UNAVAILABLE);
    assert_int_equal(share(&n, CACHE_REF, NAME), GW_UNAVAILABLE);
    assert_int_equal(cache_lease_take(n.f.cache, GW_STR("x"), 0, 1000, &lease, soon(), &n.f.err),
                     GW_UNAVAILABLE);
    assert_int_equal(cache_share_listen(n.f.cache, soon(), &n.f.err), GW_UNAVAILABLE);
    assert_string_equal(n.f.err.text, "redis: no servers are named");
    node_release(&n);
}

/* ---- what is wrong with a value ---- */

static struct gw_str record_key(const char *name)
{
    static char key[SHARE_KEY_BYTES + 1];

    share_key(key, GW_STR(CLUSTER_KEY), SHARE_RECORD, CACHE_REF, gw_str_c(name));
    return gw_str_c(key);
}

static void is_refused(struct node *b, const char *name)
{
    uint64_t before = REJECTED(b);
    int rc = fetch(b, CACHE_REF, name);
    struct cache_record r;

    if (rc != GW_NOT_FOUND || REJECTED(b) != before + 1) {
        fail_msg("%s: %s, %llu refused", name, gw_status_name((enum gw_status)rc),
                 (unsigned long long)(REJECTED(b) - before));
    }
    assert_int_equal(cache_get(b->f.cache, CACHE_REF, gw_str_c(name), &b->f.arena, &r),
                     GW_NOT_FOUND);
}

static void no_byte_may_differ(void **state)
{
    struct node a, b;
    struct redis_value *v;
    char frame[256];
    size_t n;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&a.f, CACHE_REF, NAME, "0123456789"), GW_OK);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK);
    v = ASK(&redis, GW_STR("GET"), record_key(NAME));
    assert_int_equal(v->kind, REDIS_IS_TEXT);
    n = v->text.n;
    assert_int_equal(n, 10 + SHARE_FRAME_BYTES);
    memcpy(frame, v->text.p, n);
    for (size_t i = 0; i < n; i++) {
        frame[i] ^= (char)(1 << i % 8);
        ASK(&redis, GW_STR("SET"), record_key(NAME), (struct gw_str){frame, n});
        is_refused(&b, NAME);
        frame[i] ^= (char)(1 << i % 8);
    }
    for (size_t cut = 0; cut < n; cut++) {
        ASK(&redis, GW_STR("SET"), record_key(NAME), (struct gw_str){frame, cut});
        is_refused(&b, NAME);
    }
    frame[n] = '\0';
    ASK(&redis, GW_STR("SET"), record_key(NAME), (struct gw_str){frame, n + 1});
    is_refused(&b, NAME);
    ASK(&redis, GW_STR("SET"), record_key("other"), (struct gw_str){frame, n});
    is_refused(&b, "other");
    ASK(&redis, GW_STR("SET"), record_key(NAME), (struct gw_str){frame, n});
    assert_int_equal(fetch(&b, CACHE_REF, NAME), GW_OK);
    assert_true(holds(&b.f, CACHE_REF, NAME, "0123456789"));
    /* one line, however many there were */
    assert_true(gw_str_starts(gw_str_c(b.f.log), GW_STR("redis: a record is refused")));
    assert_ptr_equal(strchr(b.f.log, '\n') + 1, b.f.log + b.f.log_bytes);
    node_release(&a);
    node_release(&b);
}

static void other_types_and_sizes(void **state)
{
    struct cache_share_name names[3] = {
        {CACHE_REF, GW_STR("one")}, {CACHE_REF, GW_STR(NAME)}, {CACHE_REF, GW_STR("three")}};
    struct rusage before, after;
    bool found[3];
    struct node a, b;

    two_nodes(&a, &b);
    ASK(&redis, GW_STR("LPUSH"), record_key(NAME), GW_STR("x"));
    is_refused(&b, NAME);
    ASK(&redis, GW_STR("DEL"), record_key(NAME));
    ASK(&redis, GW_STR("HSET"), record_key(NAME), GW_STR("x"), GW_STR("y"));
    is_refused(&b, NAME);
    assert_int_equal(put_text(&a.f, CACHE_REF, NAME, "v"), GW_OK);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK); /* is written over */
    assert_int_equal(fetch(&b, CACHE_REF, NAME), GW_OK);

    assert_int_equal(cache_remove(b.f.cache, CACHE_REF, GW_STR(NAME), &b.f.err), GW_OK);
    for (size_t i = 0; i < 3; i += 2) {
        assert_int_equal(put_text(&a.f, CACHE_REF, names[i].name.p, "v"), GW_OK);
        assert_int_equal(share(&a, CACHE_REF, names[i].name.p), GW_OK);
    }
    ASK(&redis, GW_STR("DEL"), record_key(NAME));
    ASK(&redis, GW_STR("SETRANGE"), record_key(NAME), GW_STR("104857599"), GW_STR("x"));
    getrusage(RUSAGE_SELF, &before);
    assert_int_equal(cache_share_get(b.f.cache, names, 3, found, soon(), &b.f.err), GW_OK);
    getrusage(RUSAGE_SELF, &after);
    assert_true(found[0] && !found[1]); /* the third was behind it */
    assert_true(after.ru_maxrss - before.ru_maxrss < 32 << 10);
    assert_int_equal(cache_share_get(b.f.cache, names, 3, found, soon(), &b.f.err), GW_OK);
    assert_true(!found[1] && found[2]); /* it is gone */
    assert_int_equal(ASK(&redis, GW_STR("EXISTS"), record_key(NAME))->number, 0);
    node_release(&a);
    node_release(&b);
}

/* A value of ours with any content under any name. */
static void plant(const char *key, enum share_purpose purpose, int kind, const char *name,
                  const struct share_value *v)
{
    char at[SHARE_KEY_BYTES + 1];
    struct gw_buf frame;

    share_key(at, gw_str_c(key), purpose, kind, gw_str_c(name));
    gw_buf_init(&frame, 2u << 20);
    share_encode(&frame, gw_str_c(key), purpose, kind, gw_str_c(name), v);
    assert_false(frame.failed);
    ASK(&redis, GW_STR("SET"), gw_str_c(at), gw_buf_str(&frame));
    gw_buf_release(&frame);
}

static void times_and_keys(void **state)
{
    int64_t now = gw_wall_ms();
    struct share_value v = {.checked_ms = now, .bytes = GW_STR("new")};
    struct cache_record r;
    struct node a, b;

    two_nodes(&a, &b);
    plant(CLUSTER_KEY, SHARE_RECORD, CACHE_REF, NAME, &v);
    assert_int_equal(fetch(&b, CACHE_REF, NAME), GW_OK);
    v = (struct share_value){.checked_ms = now - 1, .bytes = GW_STR("old")};
    plant(CLUSTER_KEY, SHARE_RECORD, CACHE_REF, NAME, &v); /* replayed */
    assert_int_equal(fetch(&b, CACHE_REF, NAME), GW_NOT_FOUND);
    assert_true(holds(&b.f, CACHE_REF, NAME, "new"));
    assert_int_equal(REJECTED(&b), 0);

    v.checked_ms = gw_wall_ms() + 3000; /* a clock that is a little ahead */
    plant(CLUSTER_KEY, SHARE_RECORD, CACHE_REF, "ahead", &v);
    assert_int_equal(fetch(&b, CACHE_REF, "ahead"), GW_OK);
    assert_int_equal(cache_get(b.f.cache, CACHE_REF, GW_STR("ahead"), &b.f.arena, &r), GW_OK);
    assert_true(r.checked_ms <= gw_wall_ms());
    v.checked_ms = gw_wall_ms() + 3600000;
    plant(CLUSTER_KEY, SHARE_RECORD, CACHE_REF, "future", &v);
    is_refused(&b, "future");
    v.checked_ms = -1;
    plant(CLUSTER_KEY, SHARE_RECORD, CACHE_REF, "negative", &v);
    is_refused(&b, "negative");
    v = (struct share_value){.status = 1};
    plant(CLUSTER_KEY, SHARE_RECORD, CACHE_REF, "status", &v);
    is_refused(&b, "status");
    v = (struct share_value){.status = GW_IO - 1};
    plant(CLUSTER_KEY, SHARE_RECORD, CACHE_REF, "status", &v);
    is_refused(&b, "status");

    plant("another key, also longer than 32 bytes", SHARE_RECORD, CACHE_REF, "key", &v);
    assert_int_equal(fetch(&b, CACHE_REF, "key"), GW_NOT_FOUND); /* not even by its name */
    node_release(&a);
    node_release(&b);
}

/* ---- blobs ---- */

static void git_digest(char hex[41], struct gw_str bytes)
{
    struct gw_git_sha1 sha;
    uint8_t sum[20];

    gw_git_sha1_init(&sha, bytes.n);
    gw_git_sha1_update(&sha, bytes.p, bytes.n);
    gw_git_sha1_final(&sha, sum);
    gw_hex_encode(hex, sum, sizeof(sum));
}

static void blobs_come_over(void **state)
{
    char *bytes = calloc(1, CACHE_SHARE_MAX + 1), hex[65];
    static const size_t sizes[] = {0, 1, 5000, CACHE_SHARE_MAX};
    uint8_t sum[32];
    struct node a, b;
    uint64_t size;
    int64_t modified_s;
    int fd;

    two_nodes(&a, &b);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct gw_str blob = {bytes, sizes[i]}, digest;

        git_digest(hex, blob);
        digest = gw_str_c(hex);
        assert_int_equal(cache_share_blob_put(a.f.cache, digest, soon(), &a.f.err), GW_NOT_FOUND);
        assert_int_equal(cache_share_blob_get(b.f.cache, digest, blob.n, soon(), &b.f.err),
                         GW_NOT_FOUND);
        assert_int_equal(cache_blob_put(a.f.cache, digest, blob, &a.f.err), GW_OK);
        assert_int_equal(cache_share_blob_put(a.f.cache, digest, soon(), &a.f.err), GW_OK);
        assert_int_equal(cache_share_blob_get(b.f.cache, digest, blob.n + 1, soon(), &b.f.err),
                         GW_NOT_FOUND);
        assert_int_equal(REJECTED(&b), sizes[i] < CACHE_SHARE_MAX ? i + 1 : i);
        assert_int_equal(cache_share_blob_get(b.f.cache, digest, blob.n, soon(), &b.f.err), GW_OK);
        assert_int_equal(cache_blob_open(b.f.cache, digest, &fd, &size, &modified_s, &b.f.err),
                         GW_OK);
        assert_int_equal(size, blob.n);
        close(fd);
    }
    assert_int_equal(HITS(&b), COUNT(sizes));

    gw_sha256_once(bytes, CACHE_SHARE_MAX + 1, sum);
    gw_hex_encode(hex, sum, sizeof(sum));
    assert_int_equal(cache_blob_put(a.f.cache, gw_str_c(hex),
                                    (struct gw_str){bytes, CACHE_SHARE_MAX + 1}, &a.f.err),
                     GW_OK);
    assert_int_equal(cache_share_blob_put(a.f.cache, gw_str_c(hex), soon(), &a.f.err),
                     GW_TOO_LARGE);

    gw_sha256_once("right", 5, sum); /* signed by us, yet other bytes */
    gw_hex_encode(hex, sum, sizeof(sum));
    plant(CLUSTER_KEY, SHARE_BLOB, 0, hex, &(struct share_value){.bytes = GW_STR("wrong")});
    assert_int_equal(cache_share_blob_get(b.f.cache, gw_str_c(hex), 5, soon(), &b.f.err),
                     GW_NOT_FOUND);
    assert_int_equal(REJECTED(&b), COUNT(sizes));
    assert_int_equal(cache_blob_open(b.f.cache, gw_str_c(hex), &fd, &size, &modified_s, &b.f.err),
                     GW_NOT_FOUND);
    assert_int_equal(cache_share_blob_get(b.f.cache, GW_STR("../../x"), 5, soon(), &b.f.err),
                     GW_NOT_FOUND);
    node_release(&a);
    node_release(&b);
    free(bytes);
}

/* ---- leases ---- */

static int lease(struct node *n, uint64_t mine, int64_t life_ms, struct cache_lease *out)
{
    return cache_lease_take(n->f.cache, GW_STR("fill/abc"), mine, life_ms, out, soon(), &n->f.err);
}

static struct gw_str lease_key(void)
{
    static char key[SHARE_KEY_BYTES + 1];

    share_key(key, GW_STR(CLUSTER_KEY), SHARE_LEASE, 0, GW_STR("fill/abc"));
    return gw_str_c(key);
}

static void one_holds_a_lease(void **state)
{
    struct cache_lease first, second, seen;
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(lease(&a, 0, 60000, &first), GW_OK);
    assert_true(first.fence != 0);
    assert_string_equal(first.node_url, "https://a.test");
    assert_int_equal(lease(&b, 0, 60000, &seen), GW_CONFLICT);
    assert_int_equal(seen.fence, first.fence);
    assert_string_equal(seen.node_url, "https://a.test");
    assert_int_equal(lease(&b, first.fence + 1, 60000, &seen), GW_CONFLICT);
    assert_int_equal(lease(&a, first.fence, 120000, &seen), GW_OK); /* renewed */
    assert_int_equal(seen.fence, first.fence);
    assert_true(ASK(&redis, GW_STR("PTTL"), lease_key())->number > 60000);

    /* only its holder gives it back */
    assert_int_equal(
        cache_lease_drop(b.f.cache, GW_STR("fill/abc"), first.fence + 1, soon(), &b.f.err), GW_OK);
    assert_int_equal(lease(&b, 0, 60000, &seen), GW_CONFLICT);
    assert_int_equal(cache_lease_drop(a.f.cache, GW_STR("fill/abc"), first.fence, soon(), &a.f.err),
                     GW_OK);
    assert_int_equal(lease(&b, 0, 60000, &second), GW_OK);
    assert_true(second.fence > first.fence);
    assert_string_equal(second.node_url, "https://b.test");

    /* renewed, never taken */
    assert_int_equal(
        cache_lease_renew(b.f.cache, GW_STR("fill/abc"), second.fence, 120000, soon(), &b.f.err),
        GW_OK);
    assert_true(ASK(&redis, GW_STR("PTTL"), lease_key())->number > 60000);
    assert_int_equal(
        cache_lease_renew(a.f.cache, GW_STR("fill/abc"), first.fence, 60000, soon(), &a.f.err),
        GW_CONFLICT);
    assert_int_equal(
        cache_lease_drop(b.f.cache, GW_STR("fill/abc"), second.fence, soon(), &b.f.err), GW_OK);
    assert_int_equal(
        cache_lease_renew(b.f.cache, GW_STR("fill/abc"), second.fence, 60000, soon(), &b.f.err),
        GW_CONFLICT);
    assert_int_equal(lease(&b, 0, 60000, &second), GW_OK); /* so nobody had it */

    /* a holder that slept over its end finds it with another */
    assert_int_equal(lease(&a, first.fence, 60000, &seen), GW_CONFLICT);
    assert_int_equal(seen.fence, second.fence);
    assert_int_equal(cache_lease_drop(a.f.cache, GW_STR("fill/abc"), first.fence, soon(), &a.f.err),
                     GW_OK);
    assert_int_equal(lease(&b, second.fence, 60000, &seen), GW_OK);

    /* lost with Redis' memory, and the counter with it: fences never come back */
    must(&redis, "FLUSHALL");
    assert_int_equal(lease(&a, first.fence, 60000, &seen), GW_OK);
    assert_true(seen.fence > second.fence);
    node_release(&a);
    node_release(&b);
}

static void an_expired_lease_is_free(void **state)
{
    struct cache_lease first, second;
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(lease(&a, 0, 1, &first), GW_OK);
    for (int64_t until = soon(); lease(&b, 0, 60000, &second) != GW_OK;) {
        assert_true(gw_mono_ms() < until);
        poll(NULL, 0, 2);
    }
    assert_true(second.fence > first.fence);
    node_release(&a);
    node_release(&b);
}

static void leases_that_nobody_signed(void **state)
{
    static const char *const others[] = {"SET x", "LPUSH x", "SETRANGE x"};
    struct share_value v = {.checked_ms = 1, .bytes = GW_STR("12345678https://evil.test")};
    struct cache_lease now;
    struct node a, b;

    two_nodes(&a, &b);
    plant(CLUSTER_KEY, SHARE_LEASE, 0, "fill/abc", &v); /* one of long ago */
    assert_int_equal(lease(&a, 0, 60000, &now), GW_OK);
    assert_int_equal(REJECTED(&a), 1);
    must(&redis, "FLUSHALL");
    v = (struct share_value){.checked_ms = INT64_MAX, .bytes = GW_STR("1234567")};
    plant(CLUSTER_KEY, SHARE_LEASE, 0, "fill/abc", &v);
    assert_int_equal(lease(&a, 0, 60000, &now), GW_OK);
    assert_int_equal(REJECTED(&a), 2);
    for (size_t i = 0; i < COUNT(others); i++) {
        must(&redis, "FLUSHALL");
        if (i == 2) {
            ASK(&redis, GW_STR("SETRANGE"), lease_key(), GW_STR("10000000"), GW_STR("x"));
        } else {
            ASK(&redis, i == 0 ? GW_STR("SET") : GW_STR("LPUSH"), lease_key(), GW_STR("x"));
        }
        assert_int_equal(lease(&a, 0, 60000, &now), GW_OK);
        assert_int_equal(REJECTED(&a), i + 3);
        assert_int_equal(lease(&b, 0, 60000, &now), GW_CONFLICT);
    }
    /* and a counter that is none */
    must(&redis, "FLUSHALL");
    must(&redis, "SET gw:f nonsense");
    assert_int_equal(lease(&a, 0, 60000, &now), GW_OK);
    must(&redis, "FLUSHALL");
    must(&redis, "LPUSH gw:f x");
    assert_int_equal(lease(&a, 0, 60000, &now), GW_OK);
    node_release(&a);
    node_release(&b);
}

struct racer {
    struct node *node;
    int wins;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct cache_lease got;
    struct gw_error err;
    char name[16];

    for (int i = 0; i < 200; i++) {
        int rc;

        snprintf(name, sizeof(name), "race/%d", i);
        rc = cache_lease_take(r->node->f.cache, gw_str_c(name), 0, 60000, &got, soon(), &err);
        if (rc != GW_OK && rc != GW_CONFLICT) {
            return "failed";
        }
        r->wins += rc == GW_OK;
    }
    return NULL;
}

static void exactly_one_wins(void **state)
{
    struct racer racers[4];
    pthread_t threads[4];
    struct node a, b;
    int wins = 0;

    two_nodes(&a, &b);
    for (int i = 0; i < 4; i++) {
        racers[i] = (struct racer){i % 2 != 0 ? &a : &b, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;

        pthread_join(threads[i], &failed);
        assert_null(failed);
        wins += racers[i].wins;
    }
    assert_int_equal(wins, 200);
    node_release(&a);
    node_release(&b);
}

/* ---- what is told ---- */

static void tell(struct node *n, enum cache_kind kind, const char *name)
{
    assert_int_equal(cache_share_tell(n->f.cache, kind, gw_str_c(name), soon(), &n->f.err), GW_OK);
}

static void listen_now(struct node *n)
{
    if (cache_share_listen(n->f.cache, soon(), &n->f.err) != GW_OK) {
        fail_msg("%s", n->f.err.text);
    }
}

static void told_and_heard(void **state)
{
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&b.f, CACHE_TOKEN, "one", "v"), GW_OK);
    assert_int_equal(put_text(&b.f, CACHE_SUBJECT, "one", "v"), GW_OK);
    tell(&a, CACHE_TOKEN, "one"); /* before b listened at all */
    listen_now(&b);
    assert_true(holds(&b.f, CACHE_TOKEN, "one", "v"));
    listen_now(&b);
    assert_true(holds(&b.f, CACHE_TOKEN, "one", "v"));
    tell(&a, CACHE_TOKEN, "one");
    tell(&a, CACHE_REF, "never held");
    listen_now(&b);
    assert_false(holds(&b.f, CACHE_TOKEN, "one", "v"));
    assert_true(holds(&b.f, CACHE_SUBJECT, "one", "v"));
    assert_int_equal(put_text(&b.f, CACHE_TOKEN, "one", "v"), GW_OK);
    listen_now(&b); /* not twice */
    assert_true(holds(&b.f, CACHE_TOKEN, "one", "v"));

    must(&redis, "FLUSHALL");
    listen_now(&b);
    tell(&a, CACHE_TOKEN, "one");
    listen_now(&b);
    assert_false(holds(&b.f, CACHE_TOKEN, "one", "v"));

    /* only what is read from data/ anyway */
    assert_int_equal(cache_share_tell(a.f.cache, CACHE_FILE, GW_STR("x"), soon(), &a.f.err),
                     GW_INVALID);
    assert_int_equal(REJECTED(&b), 0);
    node_release(&a);
    node_release(&b);
}

static void a_stream_of_an_empty_redis(void **state)
{
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&b.f, CACHE_TOKEN, "one", "v"), GW_OK);
    listen_now(&b);
    tell(&a, CACHE_TOKEN, "one"); /* the very first one */
    listen_now(&b);
    assert_false(holds(&b.f, CACHE_TOKEN, "one", "v"));
    node_release(&a);
    node_release(&b);
}

static void damaged_entries_are_passed(void **state)
{
    static const struct {
        const char *value;
        size_t n;
    } rows[] = {{"", 0}, {"x", 1}, {"HGS1\4\6\0\0", 8}};
    char *big = calloc(1, 2u << 20);
    struct node a, b;

    two_nodes(&a, &b);
    listen_now(&b);
    assert_int_equal(put_text(&b.f, CACHE_TOKEN, "one", "v"), GW_OK);
    for (size_t i = 0; i < COUNT(rows); i++) {
        ASK(&redis, GW_STR("XADD"), GW_STR("gw:s"), GW_STR("*"), GW_STR("v"),
            (struct gw_str){rows[i].value, rows[i].n});
    }
    ASK(&redis, GW_STR("XADD"), GW_STR("gw:s"), GW_STR("*"), GW_STR("v"), GW_STR("1"), GW_STR("w"),
        GW_STR("2"));
    tell(&a, CACHE_TOKEN, "one");
    listen_now(&b);
    assert_int_equal(REJECTED(&b), COUNT(rows) + 1);
    assert_false(holds(&b.f, CACHE_TOKEN, "one", "v"));

    for (int i = 0; i < 4; i++) { /* no stream, no id of a clock, too large: it begins anew */
        uint64_t before = REJECTED(&b);

        assert_int_equal(put_text(&b.f, CACHE_TOKEN, "one", "v"), GW_OK);
        if (i < 2) {
            ASK(&redis, GW_STR("DEL"), GW_STR("gw:s"));
            must(&redis, i == 0 ? "SET gw:s x" : "LPUSH gw:s x");
        } else if (i == 2) {
            must(&redis, "XADD gw:s 18446744073709551615-18446744073709551615 v x");
        } else {
            ASK(&redis, GW_STR("XADD"), GW_STR("gw:s"), GW_STR("*"), GW_STR("v"),
                (struct gw_str){big, 2u << 20});
        }
        listen_now(&b);
        assert_int_equal(REJECTED(&b), before + 1);
        tell(&a, CACHE_TOKEN, "one");
        listen_now(&b);
        assert_false(holds(&b.f, CACHE_TOKEN, "one", "v"));
        assert_int_equal(REJECTED(&b), before + 1);
    }
    node_release(&a);
    node_release(&b);
    free(big);
}

/* ---- servers that fail ---- */

/* To the first command; the real Redis behind it has the record. */
static void servers_that_lie(void **state)
{
#define SAYS(text) text, sizeof(text) - 1
    static const struct {
        const char *text;
        size_t n;
        enum manner manner;
        bool hangs_up;
        int status;        /* GW_OK: it is found at the next one */
        bool also_counted; /* as a refused value */
    } rows[] = {
        {SAYS("-READONLY You can't write against a read only replica.\r\n"), 0, 0, GW_OK, 0},
        {SAYS("-LOADING Redis is loading the dataset in memory\r\n"), 0, 0, GW_OK, 0},
        {SAYS("-MASTERDOWN Link with MASTER is down\r\n"), 0, 0, GW_OK, 0},
        {SAYS("-NOAUTH Authentication required.\r\n"), 0, 0, GW_OK, 0},
        {SAYS("-NOPERM this user has no permissions\r\n"), 0, 0, GW_OK, 0},
        {SAYS("-OOM command not allowed when used memory > 'maxmemory'.\r\n"), 0, 0, GW_OK, 0},
        {SAYS("-ERR max number of clients reached\r\n"), 0, 1, GW_OK, 0},
        {SAYS("-MOVED 3999 127.0.0.1:6381\r\n"), 0, 0, GW_OK, 0},
        {SAYS("-\r\n"), 0, 0, GW_OK, 0},
        {SAYS(""), 0, 1, GW_OK, 0},
        {SAYS("$100\r\nabc"), 0, 1, GW_OK, 0},
        {SAYS("$10\r\n0123456789"), 0, 1, GW_OK, 0},
        {SAYS("*3\r\n$1\r\na\r\n"), 0, 1, GW_OK, 0},
        {SAYS("HTTP/1.1 400 Bad Request\r\n\r\n"), 0, 0, GW_OK, 0},
        {SAYS("$-7\r\n"), 0, 0, GW_OK, 0},
        {SAYS("$99999999999999999999\r\n"), 0, 0, GW_OK, 0},
        {SAYS("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"), 0, 0, GW_OK, 0},
        {SAYS("*-5\r\n"), 0, 0, GW_OK, 0},
        /* these are answers: of the wrong type, or too much of one */
        {SAYS("$-1\r\n"), 0, 0, GW_NOT_FOUND, 0},
        {SAYS("*-1\r\n"), 0, 0, GW_NOT_FOUND, 0},
        {SAYS("+OK\r\n"), 0, 0, GW_NOT_FOUND, 1},
        {SAYS(":12\r\n"), 0, 0, GW_NOT_FOUND, 1},
        {SAYS("*0\r\n"), 0, 0, GW_NOT_FOUND, 1},
        {SAYS("*2\r\n*2\r\n:1\r\n+a\r\n$1\r\na\r\n"), 0, 0, GW_NOT_FOUND, 1},
        {SAYS("$0\r\n\r\n"), 0, 0, GW_NOT_FOUND, 1},
        {SAYS("-WRONGTYPE Operation against a key\r\n"), 0, 0, GW_NOT_FOUND, 1},
        {SAYS("*2147483647\r\n"), 0, 0, GW_NOT_FOUND, 1},
        {SAYS("*1000\r\n*1000\r\n*1000\r\n*1000\r\n"), SAYS_ZEROES, 0, GW_OK, 0},
        {SAYS("$104857600\r\n"), SAYS_ZEROES, 0, GW_NOT_FOUND, 1},
        {SAYS("+"), SAYS_ZEROES, 0, GW_NOT_FOUND, 1},
        {SAYS("$"), SAYS_ZEROES, 0, GW_NOT_FOUND, 1},
    };
    struct rusage before, after;
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&a.f, CACHE_REF, NAME, "v"), GW_OK);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK);
    getrusage(RUSAGE_SELF, &before);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct puppet p;
        struct node n;
        int rc;

        puppet_start(&p, rows[i].text, rows[i].n, rows[i].manner, rows[i].hangs_up);
        node_init(&n, "");
        node_server(&n, p.port, false);
        node_server(&n, redis.port, false);
        fixture_open(&n.f);
        rc = fetch(&n, CACHE_REF, NAME);
        if (rc != rows[i].status || REJECTED(&n) != rows[i].also_counted || ERRORS(&n) != 0) {
            fail_msg("%s: %s (%s), %d refused", rows[i].text, gw_status_name((enum gw_status)rc),
                     n.f.err.text, (int)REJECTED(&n));
        }
        /* one line about it; what was sent is not repeated at length */
        assert_int_equal(n.f.log_bytes != 0, rows[i].status == GW_OK || rows[i].also_counted);
        assert_true(n.f.log_bytes < 300);
        node_release(&n);

        node_init(&n, ""); /* and with nobody else to ask */
        node_server(&n, p.port, false);
        fixture_open(&n.f);
        rc = fetch(&n, CACHE_REF, NAME);
        assert_int_equal(rc, rows[i].status == GW_OK ? GW_UNAVAILABLE : GW_NOT_FOUND);
        assert_int_equal(ERRORS(&n), rows[i].status == GW_OK);
        assert_int_equal(n.f.log_bytes != 0, rows[i].also_counted); /* said or returned, not both */
        node_release(&n);
        puppet_stop(&p);
    }
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 32 << 10);
    node_release(&a);
    node_release(&b);
}

/* Each of these would last for ever. */
static void silence_has_an_end(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        enum manner manner;
    } rows[] = {
        {SAYS(""), SAYS_ALL},
        {SAYS("$10\r\nabc"), SAYS_ALL},
        {SAYS("$9999\r\n"), SAYS_BYTES},
        {SAYS("+"), SAYS_BYTES},
        {SAYS("*1000\r\n$1\r\na\r\n"), SAYS_ALL},
    };
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&a.f, CACHE_REF, NAME, "v"), GW_OK);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK);
    for (size_t i = 0; i < COUNT(rows); i++) {
        int64_t began = gw_mono_ms();
        struct cache_share_name one = {CACHE_REF, GW_STR(NAME)};
        struct puppet p;
        struct node n;
        bool found;
        int rc;

        puppet_start(&p, rows[i].text, rows[i].n, rows[i].manner, false);
        for (int tls = 0; tls < 2; tls++) { /* in the handshake, too */
            node_init(&n, "");
            node_server(&n, p.port, tls != 0);
            n.f.options.share.timeout_ms = 100;
            fixture_open(&n.f);
            rc = fetch(&n, CACHE_REF, NAME);
            assert_true(rc == GW_TIMEOUT || (tls != 0 && rc == GW_UNAVAILABLE));
            assert_int_equal(fetch(&n, CACHE_REF, NAME), GW_UNAVAILABLE); /* at once: remembered */
            assert_non_null(strstr(n.f.err.text, "no server is tried just now"));
            assert_int_equal(ERRORS(&n), 2);
            node_release(&n);
        }
        node_init(&n, ""); /* the caller's time is shorter, and says nothing about the server */
        node_server(&n, p.port, false);
        fixture_open(&n.f);
        rc = cache_share_get(n.f.cache, &one, 1, &found, gw_mono_ms() + 50, &n.f.err);
        assert_int_equal(rc, GW_TIMEOUT);
        rc = cache_share_get(n.f.cache, &one, 1, &found, gw_mono_ms() + 50, &n.f.err);
        assert_int_equal(rc, GW_TIMEOUT);
        node_release(&n);
        puppet_stop(&p);
        assert_true(gw_mono_ms() - began < LONG_MS);
    }
    node_release(&a);
    node_release(&b);
}

/* B1 to B6 with the real one: what is not there is a failure or a miss, and comes back. */
static void wait_for_it(struct node *n)
{
    for (int64_t until = soon(); share(n, CACHE_REF, NAME) != GW_OK;) {
        if (gw_mono_ms() > until) {
            fail_msg("%s", n->f.err.text);
        }
        poll(NULL, 0, 20);
    }
}

static void down_and_up(void **state)
{
    uint64_t errors;
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&a.f, CACHE_REF, NAME, "v"), GW_OK);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK);

    redis_kill(&redis);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_UNAVAILABLE); /* a kept connection, too */
    assert_int_equal(fetch(&b, CACHE_REF, NAME), GW_UNAVAILABLE);
    redis_start(&redis, "");
    wait_for_it(&a); /* empty: */
    must(&redis, "FLUSHALL");
    for (int64_t until = soon(); fetch(&b, CACHE_REF, NAME) != GW_NOT_FOUND;) {
        assert_true(gw_mono_ms() < until);
        poll(NULL, 0, 20);
    }
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK);
    assert_int_equal(fetch(&b, CACHE_REF, NAME), GW_OK);

    a.f.cache->options.share.timeout_ms = 100;
    errors = ERRORS(&a);
    kill(redis.pid, SIGSTOP);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_TIMEOUT);
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_UNAVAILABLE);
    assert_int_equal(ERRORS(&a), errors + 2);
    kill(redis.pid, SIGCONT);
    a.f.cache->options.share.timeout_ms = LONG_MS;
    wait_for_it(&a);

    must(&redis, "CONFIG SET maxmemory 1");
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_UNAVAILABLE);
    assert_non_null(strstr(a.f.err.text, "OOM"));
    assert_int_equal(fetch(&b, CACHE_REF, "none"), GW_NOT_FOUND); /* reading goes on */
    must(&redis, "CONFIG SET maxmemory 0");
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK);

    must(&redis, "REPLICAOF 127.0.0.1 1");
    assert_int_equal(share(&a, CACHE_REF, NAME), GW_UNAVAILABLE);
    must(&redis, "REPLICAOF NO ONE");
    wait_for_it(&a);
    node_release(&a);
    node_release(&b);
}

/* The kept connection died with the old server; the new one is there already. */
static void a_restart_between_two_calls(void **state)
{
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&a.f, CACHE_REF, NAME, "v"), GW_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(share(&a, CACHE_REF, NAME), GW_OK);
        redis_kill(&redis);
        redis_start(&redis, "");
    }
    assert_int_equal(ERRORS(&a), 0);
    assert_string_equal(a.f.log, "");
    node_release(&a);
    node_release(&b);
}

static void the_second_address(void **state)
{
    uint16_t dead = free_port();
    struct node a, b;
    struct node n;

    two_nodes(&a, &b);
    node_init(&n, "");
    node_server(&n, dead, false);
    node_server(&n, redis.port, false);
    fixture_open(&n.f);
    assert_int_equal(put_text(&n.f, CACHE_REF, NAME, "v"), GW_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(share(&n, CACHE_REF, NAME), GW_OK);
    }
    assert_int_equal(fetch(&b, CACHE_REF, NAME), GW_OK);
    assert_int_equal(ERRORS(&n), 0);
    assert_non_null(strstr(n.f.log, "Connection refused"));
    assert_ptr_equal(strchr(n.f.log, '\n') + 1, n.f.log + n.f.log_bytes); /* one line */
    node_release(&n);
    node_release(&a);
    node_release(&b);
}

static void users_and_passwords(void **state)
{
    static const struct {
        const char *user, *password, *said; /* NULL: it works */
    } rows[] = {
        {"gate", "pw-of-gate", NULL},
        {"gate", "pw-of-nobody", "WRONGPASS"},
        {"", "", "NOAUTH"},
        {"", "pw-of-default", NULL},
        {"", "pw-of-gate", "WRONGPASS"},
        {"few", "pw-of-few", "NOPERM"},
    };
    struct redis own;

    redis_init(&own, "");
    must(&own, "ACL SETUSER gate on >pw-of-gate ~gw:* resetchannels -@all +get +set +del +incr "
               "+watch +unwatch +multi +exec +xadd +xread");
    must(&own, "ACL SETUSER gate +xrevrange");
    must(&own, "ACL SETUSER few on >pw-of-few ~gw:* +get");
    must(&own, "CONFIG SET requirepass pw-of-default");
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct cache_lease held;
        struct node n;
        int rc;

        node_init(&n, "");
        node_server(&n, own.port, false);
        n.f.options.share.user = gw_str_c(rows[i].user);
        n.f.options.share.password = gw_str_c(rows[i].password);
        fixture_open(&n.f);
        assert_int_equal(put_text(&n.f, CACHE_REF, NAME, "v"), GW_OK);
        rc = share(&n, CACHE_REF, NAME);
        assert_int_equal(rc, rows[i].said == NULL ? GW_OK : GW_UNAVAILABLE);
        if (rows[i].said == NULL) { /* the rights suffice for everything */
            listen_now(&n);
            tell(&n, CACHE_TOKEN, "x");
            listen_now(&n);
            assert_int_equal(lease(&n, 0, 60000, &held), GW_OK);
            assert_int_equal(lease(&n, held.fence, 60000, &held), GW_OK);
            assert_int_equal(
                cache_lease_drop(n.f.cache, GW_STR("fill/abc"), held.fence, soon(), &n.f.err),
                GW_OK);
        } else if (strstr(n.f.err.text, rows[i].said) == NULL) {
            fail_msg("row %zu: %s", i, n.f.err.text);
        }
        rc = cache_share_probe(&n.f.options.share, 0, soon(), &n.f.err);
        assert_int_equal(rc, rows[i].said == NULL ? GW_OK : GW_UNAVAILABLE);
        assert_true(rc == GW_OK || strstr(n.f.err.text, rows[i].said) != NULL);
        assert_null(strstr(n.f.log, "pw-of"));
        assert_null(strstr(n.f.err.text, "pw-of"));
        node_release(&n);
    }
    redis_release(&own);
}

static void tls(void **state)
{
    struct redis own = {.dir = "/tmp/hubgate-redis-XXXXXX", .port = free_port()};
    char more[512], ca[2][96];
    static const char *const said[] = {NULL, "certificate"};

    assert_non_null(mkdtemp(own.dir));
    own.tls_port = free_port();
    for (int i = 0; i < 2; i++) {
        snprintf(ca[i], sizeof(ca[i]), "%s/ca%d.pem", own.dir, i);
        sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
           "/CN=ca -keyout %s/ca%d.key -out %s 2>/dev/null",
           own.dir, i, ca[i]);
    }
    sh("cd %s && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=r "
       "-keyout key.pem -out csr.pem 2>/dev/null && printf 'subjectAltName=IP:127.0.0.1' >ext && "
       "openssl x509 -req -in csr.pem -CA ca0.pem -CAkey ca0.key -CAcreateserial -days 2 -extfile "
       "ext -out cert.pem 2>/dev/null",
       own.dir);
    snprintf(more, sizeof(more),
             "tls-port %u\ntls-cert-file %s/cert.pem\ntls-key-file %s/key.pem\n"
             "tls-ca-cert-file %s/ca0.pem\ntls-auth-clients no\n",
             (unsigned)own.tls_port, own.dir, own.dir, own.dir);
    redis_start(&own, more);
    for (int i = 0; i < 2; i++) {
        struct node n;
        int rc;

        node_init(&n, "");
        node_server(&n, own.tls_port, true);
        n.f.options.share.ca_file = ca[i];
        fixture_open(&n.f);
        assert_int_equal(put_text(&n.f, CACHE_REF, NAME, "v"), GW_OK);
        for (int k = 0; k < 3; k++) {
            rc = share(&n, CACHE_REF, NAME);
            assert_int_equal(rc, i == 0 ? GW_OK : GW_UNAVAILABLE);
        }
        assert_true(said[i] == NULL || strstr(n.f.err.text, said[i]) != NULL);
        node_release(&n);
    }
    redis_release(&own);
}

/* ---- no memory ---- */

static int all_of_it(void *ctx)
{
    static int round;
    struct node *n = ctx;
    struct cache *c = n->f.cache;
    struct cache_share_name one = {CACHE_REF, GW_STR(NAME)};
    struct cache_lease held;
    char name[32];
    bool found;
    int rc;

    snprintf(name, sizeof(name), "no memory/%d", round++); /* one may stay behind */
    cache_redis_close(c);                                  /* no connection is kept */
    rc = cache_redis_open(c, &n->f.err);
    if (rc != GW_OK) {
        return rc;
    }
    rc = share(n, CACHE_REF, NAME);
    rc = rc != GW_OK ? rc : cache_share_get(c, &one, 1, &found, soon(), &n->f.err);
    rc = rc != GW_OK ? rc : cache_lease_take(c, gw_str_c(name), 0, 9999, &held, soon(), &n->f.err);
    rc = rc != GW_OK ? rc : cache_lease_drop(c, gw_str_c(name), held.fence, soon(), &n->f.err);
    rc = rc != GW_OK ? rc : cache_share_tell(c, CACHE_TOKEN, GW_STR("x"), soon(), &n->f.err);
    return rc != GW_OK ? rc : cache_share_listen(c, soon(), &n->f.err);
}

static void no_memory_is_said(void **state)
{
    struct node a, b;

    two_nodes(&a, &b);
    assert_int_equal(put_text(&a.f, CACHE_REF, NAME, "v"), GW_OK);
    with_failing_alloc(all_of_it, &a, 10);
    assert_int_equal(ERRORS(&a), 0);
    node_release(&a);
    node_release(&b);
}

/* A process that leaves waits for no Redis. */
static void *leave_soon(void *arg)
{
    poll(NULL, 0, 50);
    cache_leave(arg);
    return NULL;
}

static void leaving(void **state)
{
    struct puppet p;
    pthread_t thread;
    struct node n;

    puppet_start(&p, "", 0, SAYS_ALL, false);
    node_init(&n, "");
    node_server(&n, p.port, false);
    n.f.options.share.timeout_ms = 10 * LONG_MS;
    fixture_open(&n.f);
    assert_int_equal(pthread_create(&thread, NULL, leave_soon, n.f.cache), 0);
    assert_int_equal(cache_share_listen(n.f.cache, gw_mono_ms() + 10 * LONG_MS, &n.f.err),
                     GW_CANCELLED);
    pthread_join(thread, NULL);
    assert_int_equal(fetch(&n, CACHE_REF, NAME), GW_CANCELLED);
    node_release(&n);
    puppet_stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(records_come_over),
        cmocka_unit_test(many_records),
        cmocka_unit_test(no_byte_may_differ),
        cmocka_unit_test(other_types_and_sizes),
        cmocka_unit_test(times_and_keys),
        cmocka_unit_test(blobs_come_over),
        cmocka_unit_test(one_holds_a_lease),
        cmocka_unit_test(an_expired_lease_is_free),
        cmocka_unit_test(leases_that_nobody_signed),
        cmocka_unit_test(exactly_one_wins),
        cmocka_unit_test(told_and_heard),
        cmocka_unit_test(a_stream_of_an_empty_redis),
        cmocka_unit_test(damaged_entries_are_passed),
        cmocka_unit_test(servers_that_lie),
        cmocka_unit_test(silence_has_an_end),
        cmocka_unit_test(down_and_up),
        cmocka_unit_test(a_restart_between_two_calls),
        cmocka_unit_test(the_second_address),
        cmocka_unit_test(users_and_passwords),
        cmocka_unit_test(tls),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(leaving),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
