/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repo/loose.c - loose objects, read by us.
 *
 * libgit2 1.5.1 never returns from a loose object whose compressed bytes end early (mended upstream
 * by 5254f5dc4 after 1.9), and half-written ones are what a power cut leaves of a person's own git.
 * So a backend of ours stands before its reader. We write packs only, so few objects come this way:
 * the inflater (RFC 1951) is short, not fast. Whether the bytes are right is libgit2's to say: it
 * compares their hash with the name.
 */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/encode.h"

#include <git2.h>
#include <git2/sys/odb_backend.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_MAX 32u /* "commit 12345678901234567890" and a NUL */
#define OBJECT_MAX (UINT64_C(2) << 30)
#define FIRST_BYTES (64u << 10)
#define CODE_BITS_MAX 15u
#define LITERALS 288u
#define DISTANCES 30u

/* ---- RFC 1951 ---- */

struct inflater {
    const uint8_t *in;
    size_t n, at;
    uint32_t bits;
    unsigned n_bits;
    uint8_t *out;
    size_t got, cap, max;
    bool full; /* one byte more than max was due */
};

struct code {
    uint16_t count[CODE_BITS_MAX + 1]; /* codes of each length */
    uint16_t symbol[LITERALS];         /* in the order of their codes */
};

static bool take_bits(struct inflater *z, unsigned n, unsigned *v)
{
    while (z->n_bits < n) {
        if (z->at == z->n) {
            return false;
        }
        z->bits |= (uint32_t)z->in[z->at++] << z->n_bits;
        z->n_bits += 8;
    }
    *v = z->bits & ((1u << n) - 1);
    z->bits >>= n;
    z->n_bits -= n;
    return true;
}

static bool put_byte(struct inflater *z, uint8_t byte)
{
    if (z->got == z->max) {
        z->full = true;
        return false;
    }
    if (z->got == z->cap) {
        size_t cap = z->cap < z->max / 2 ? z->cap * 2 : z->max;
        uint8_t *more = gw_realloc(z->out, cap);

        if (more == NULL) {
            return false;
        }
        z->out = more;
        z->cap = cap;
    }
    z->out[z->got++] = byte;
    return true;
}

/* false: more codes of some length than there can be, or fewer in all, where fewer is an error. */
static bool build(struct code *c, const uint8_t *lengths, unsigned n, bool may_be_short)
{
    uint16_t offset[CODE_BITS_MAX + 1] = {0};
    int left = 1;

    memset(c->count, 0, sizeof(c->count));
    for (unsigned i = 0; i < n; i++) {
        c->count[lengths[i]]++;
    }
    c->count[0] = 0;
    for (unsigned len = 1; len <= CODE_BITS_MAX; len++) {
        left = left * 2 - c->count[len];
        if (left < 0) {
            return false;
        }
    }
    for (unsigned len = 1; len < CODE_BITS_MAX; len++) {
        offset[len + 1] = (uint16_t)(offset[len] + c->count[len]);
    }
    for (unsigned i = 0; i < n; i++) {
        if (lengths[i] != 0) {
            c->symbol[offset[lengths[i]]++] = (uint16_t)i;
        }
    }
    return left == 0 || may_be_short;
}

static bool take_symbol(struct inflater *z, const struct code *c, unsigned *symbol)
{
    unsigned code = 0, first = 0, index = 0;

    for (unsigned len = 1; len <= CODE_BITS_MAX; len++) {
        unsigned bit;

        if (!take_bits(z, 1, &bit)) {
            return false;
        }
        code |= bit;
        if (code < first + c->count[len]) {
            *symbol = c->symbol[index + code - first];
            return true;
        }
        index += c->count[len];
        first = (first + c->count[len]) << 1;
        code <<= 1;
    }
    return false;
}

static bool copy_back(struct inflater *z, unsigned length_symbol, const struct code *distances)
{
    static const uint16_t length_base[] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                           15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                           67, 83, 99, 115, 131, 163, 195, 227, 258};
    static const uint8_t length_bits[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                          2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    static const uint16_t distance_base[] = {
        1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
        193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    static const uint8_t distance_bits[] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                            6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
    unsigned i = length_symbol - 257, extra, length, distance;

    if (i >= sizeof(length_bits) || !take_bits(z, length_bits[i], &extra)) {
        return false;
    }
    length = length_base[i] + extra;
    if (!take_symbol(z, distances, &i) || i >= DISTANCES ||
        !take_bits(z, distance_bits[i], &extra)) {
        return false;
    }
    distance = distance_base[i] + extra;
    if (distance > z->got) {
        return false;
    }
    for (; length != 0; length--) {
        if (!put_byte(z, z->out[z->got - distance])) {
            return false;
        }
    }
    return true;
}

static bool inflate_coded(struct inflater *z, const struct code *literals,
                          const struct code *distances)
{
    unsigned symbol;

    while (take_symbol(z, literals, &symbol)) {
        if (symbol == 256) {
            return true;
        }
        if (symbol < 256 ? !put_byte(z, (uint8_t)symbol) : !copy_back(z, symbol, distances)) {
            return false;
        }
    }
    return false;
}

static bool inflate_stored(struct inflater *z)
{
    size_t n;

    z->bits = 0; /* the rest of the byte; take_bits never holds a whole one */
    z->n_bits = 0;
    if (z->n - z->at < 4) {
        return false;
    }
    n = (size_t)z->in[z->at] | (size_t)z->in[z->at + 1] << 8;
    if ((n ^ 0xffff) != ((size_t)z->in[z->at + 2] | (size_t)z->in[z->at + 3] << 8)) {
        return false;
    }
    for (z->at += 4; n != 0; n--) {
        if (z->at == z->n || !put_byte(z, z->in[z->at++])) {
            return false;
        }
    }
    return true;
}

static bool inflate_fixed(struct inflater *z)
{
    uint8_t lengths[LITERALS];
    struct code literals, distances;

    for (unsigned i = 0; i < LITERALS; i++) {
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    }
    build(&literals, lengths, LITERALS, false);
    memset(lengths, 5, DISTANCES);
    build(&distances, lengths, DISTANCES, true);
    return inflate_coded(z, &literals, &distances);
}

/* The lengths of both codes, themselves coded. */
static bool take_lengths(struct inflater *z, const struct code *c, uint8_t *lengths, unsigned n)
{
    static const uint8_t repeat_bits[] = {2, 3, 7}, repeat_base[] = {3, 3, 11};
    unsigned i = 0, symbol, extra;

    while (i < n) {
        uint8_t value = 0;

        if (!take_symbol(z, c, &symbol)) {
            return false;
        }
        if (symbol < 16) {
            lengths[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16) {
            if (i == 0) {
                return false;
            }
            value = lengths[i - 1];
        }
        if (!take_bits(z, repeat_bits[symbol - 16], &extra)) {
            return false;
        }
        extra += repeat_base[symbol - 16];
        if (extra > n - i) {
            return false;
        }
        memset(lengths + i, value, extra);
        i += extra;
    }
    return true;
}

static bool inflate_dynamic(struct inflater *z)
{
    static const uint8_t order[] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                    11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[LITERALS + 32] = {0};
    struct code literals, distances;
    unsigned n_literals, n_distances, n_lengths, v;

    if (!take_bits(z, 5, &n_literals) || !take_bits(z, 5, &n_distances) ||
        !take_bits(z, 4, &n_lengths)) {
        return false;
    }
    n_literals += 257;
    n_distances += 1;
    n_lengths += 4;
    if (n_literals > 286 || n_distances > DISTANCES) {
        return false;
    }
    for (unsigned i = 0; i < n_lengths; i++) {
        if (!take_bits(z, 3, &v)) {
            return false;
        }
        lengths[order[i]] = (uint8_t)v;
    }
    if (!build(&literals, lengths, sizeof(order), false)) {
        return false;
    }
    memset(lengths, 0, sizeof(order));
    if (!take_lengths(z, &literals, lengths, n_literals + n_distances) || lengths[256] == 0) {
        return false;
    }
    /* one single code of one bit is all that may be short */
    return build(&literals, lengths, n_literals, true) &&
           build(&distances, lengths + n_literals, n_distances, true) &&
           inflate_coded(z, &literals, &distances);
}

/* false: damaged, ends early, no memory, or z->full. */
static bool inflate(struct inflater *z)
{
    unsigned last, kind;

    /* RFC 1950: deflate, a multiple of 31, no dictionary */
    if (z->n < 2 || (z->in[0] & 0x8f) != 0x08 || (z->in[0] << 8 | z->in[1]) % 31 != 0 ||
        (z->in[1] & 0x20) != 0) {
        return false;
    }
    z->at = 2;
    do {
        if (!take_bits(z, 1, &last) || !take_bits(z, 2, &kind)) {
            return false;
        }
        if (kind == 3 || !(kind == 0   ? inflate_stored(z)
                           : kind == 1 ? inflate_fixed(z)
                                       : inflate_dynamic(z))) {
            return false;
        }
    } while (last == 0);
    return true;
}

/* ---- an object ---- */

/* "blob 12" and a NUL; bytes of it, 0: not one */
static size_t parse_head(const uint8_t *p, size_t n, git_object_t *type, uint64_t *size)
{
    static const struct {
        struct gw_str word;
        git_object_t type;
    } types[] = {{GW_STR_INIT("commit "), GIT_OBJECT_COMMIT},
                 {GW_STR_INIT("tree "), GIT_OBJECT_TREE},
                 {GW_STR_INIT("blob "), GIT_OBJECT_BLOB},
                 {GW_STR_INIT("tag "), GIT_OBJECT_TAG}};
    const uint8_t *end = memchr(p, '\0', n);
    struct gw_str head = {(const char *)p, end != NULL ? (size_t)(end - p) : 0};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (gw_str_starts(head, types[i].word) &&
            gw_str_u64(gw_str_sub(head, types[i].word.n, head.n), size)) {
            *type = types[i].type;
            return head.n + 1;
        }
    }
    return 0;
}

bool repo_loose_head(struct gw_str file, int *type, uint64_t *size, size_t *head_bytes)
{
    uint8_t out[HEAD_MAX];
    struct inflater z = {
        .in = (const uint8_t *)file.p, .n = file.n, .out = out, .cap = HEAD_MAX, .max = HEAD_MAX};
    git_object_t found;

    if (!inflate(&z) && !z.full) {
        return false;
    }
    *head_bytes = parse_head(out, z.got, &found, size);
    if (*head_bytes == 0 || *size > OBJECT_MAX) {
        return false;
    }
    *type = (int)found;
    return true;
}

char *repo_loose_body(struct gw_str file, size_t head_bytes, uint64_t size)
{
    size_t whole = head_bytes + (size_t)size;
    struct inflater z = {.in = (const uint8_t *)file.p,
                         .n = file.n,
                         .cap = whole < FIRST_BYTES ? whole : FIRST_BYTES,
                         .max = whole};

    z.out = gw_alloc(z.cap);
    if (z.out == NULL || !inflate(&z) || z.got != whole) {
        gw_free(z.out);
        return NULL;
    }
    return (char *)z.out;
}

/* ---- the backend ---- */

struct backend {
    git_odb_backend parent;
    char *folder; /* objects/ */
};

/* 0 and a mapping; GIT_ENOTFOUND; -1 */
static int map_file(git_odb_backend *b, const git_oid *oid, struct gw_str *file)
{
    const struct backend *self = (const struct backend *)b;
    char hex[GIT_OID_HEXSZ + 1], path[4096];
    struct stat st;
    void *p;
    int fd, n;

    git_oid_tostr(hex, sizeof(hex), oid);
    n = snprintf(path, sizeof(path), "%s/%.2s/%s", self->folder, hex, hex + 2);
    if (n < 0 || (size_t)n >= sizeof(path)) {
        return GIT_ENOTFOUND;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        return GIT_ENOTFOUND;
    }
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
        (uint64_t)st.st_size > OBJECT_MAX) {
        git_error_set_str(fd < 0 ? GIT_ERROR_OS : GIT_ERROR_ODB,
                          "a loose object that cannot be read");
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED) {
        git_error_set_oom();
        return -1;
    }
    *file = (struct gw_str){p, (size_t)st.st_size};
    return 0;
}

static int damaged(void)
{
    git_error_set_str(GIT_ERROR_ZLIB, "a loose object is damaged");
    return -1;
}

static int on_read_header(size_t *n, git_object_t *type, git_odb_backend *b, const git_oid *oid)
{
    struct gw_str file;
    uint64_t size;
    size_t head;
    int found, code = map_file(b, oid, &file);

    if (code != 0) {
        return code;
    }
    if (repo_loose_head(file, &found, &size, &head)) {
        *n = (size_t)size;
        *type = (git_object_t)found;
    } else {
        code = damaged();
    }
    munmap((void *)file.p, file.n);
    return code;
}

static int on_read(void **data, size_t *n, git_object_t *type, git_odb_backend *b,
                   const git_oid *oid)
{
    struct gw_str file;
    uint64_t size;
    size_t head;
    char *whole = NULL;
    int found, code = map_file(b, oid, &file);

    if (code != 0) {
        return code;
    }
    if (repo_loose_head(file, &found, &size, &head)) {
        whole = repo_loose_body(file, head, size);
    }
    munmap((void *)file.p, file.n);
    if (whole == NULL) {
        return damaged();
    }
    *data = git_odb_backend_data_alloc(b, (size_t)size + 1);
    if (*data != NULL) {
        memcpy(*data, whole + head, (size_t)size);
        ((char *)*data)[size] = '\0';
        *n = (size_t)size;
        *type = (git_object_t)found;
    }
    gw_free(whole);
    return *data != NULL ? 0 : -1;
}

/* git_odb_foreach calls it unasked; libgit2's own loose backend, behind this one, has the list. */
static int on_foreach(git_odb_backend *b, git_odb_foreach_cb cb, void *payload)
{
    return 0;
}

static void on_free(git_odb_backend *b)
{
    gw_free(((struct backend *)b)->folder);
    gw_free(b);
}

int repo_loose_add(struct git_odb *odb, const char *repo_path)
{
    struct backend *b = gw_alloc(sizeof(*b));
    size_t n = strlen(repo_path) + sizeof("/objects");

    if (b != NULL) {
        b->folder = gw_alloc(n);
    }
    if (b == NULL || b->folder == NULL) {
        gw_free(b);
        git_error_set_oom();
        return -1;
    }
    snprintf(b->folder, n, "%s/objects", repo_path);
    if (git_odb_init_backend(&b->parent, GIT_ODB_BACKEND_VERSION) == 0) {
        b->parent.read = on_read;
        b->parent.read_header = on_read_header;
        b->parent.foreach = on_foreach;
        b->parent.free = on_free;
        if (git_odb_add_backend(odb, &b->parent, REPO_LOOSE_PRIORITY) == 0) {
            return 0;
        }
    }
    on_free(&b->parent);
    return -1;
}
