/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/map.c - the .map file: what of a part is there, and how far its proof has come.
 *
 *   formatted --link--> FILLING --digest right--> PROVEN --linked into blobs/--> WHOLE, unlinked
 *                             \--digest wrong--> CORRUPT, unlinked      (other reasons: DROPPED)
 *
 * A damaged map is never trusted: head and hash states carry a CRC, the part is named by inode and
 * size, and after a boot only a sealed map counts. Granule bytes have no CRC, because everybody
 * writes them all the time: there the digest of the whole is the proof. One thing cannot be met
 * from inside: a map that somebody truncates while it is mapped is a SIGBUS at the next access.
 * Nobody here truncates one, and its length is looked at before each piece
 * of work, so it takes bad luck as well.
 */
#include "cache/fill_internal.h"

#include "base/alloc.h"
#include "base/encode.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define READY_GRANULES 64u /* looked at by one map_ready: more than any reader sends in one go */

static const char magic[8] = {'h', 'u', 'b', 'g', 'm', 'a', 'p', '\n'};

const char map_ended[] = "ended";

static uint64_t granules_of(uint64_t size)
{
    return size / CACHE_GRANULE + (size % CACHE_GRANULE != 0);
}

uint64_t map_file_bytes(uint64_t size)
{
    return MAP_GRANULES_AT + granules_of(size);
}

static uint32_t head_crc(const struct map_head *h)
{
    return gw_crc32(0, h, offsetof(struct map_head, crc));
}

static uint32_t hash_crc(const struct map_head *h, const struct map_hash *hash)
{
    return gw_crc32(h->crc, hash, offsetof(struct map_hash, crc));
}

static bool hash_valid(const struct map_head *h, const struct map_hash *hash)
{
    return hash->crc == hash_crc(h, hash) && hash->sha.bytes <= h->size;
}

static struct map view(const void *image, size_t n)
{
    char *p = (char *)(uintptr_t)image; /* the callers that write have a writable image */
    struct map m = {.map_fd = -1, .part_fd = -1, .image = p, .bytes = n};

    m.head = (const struct map_head *)(const void *)p;
    m.live = (struct map_live *)(void *)(p + MAP_PAGE);
    m.granule = (_Atomic uint8_t *)(p + MAP_GRANULES_AT);
    m.granules = granules_of(m.head->size);
    return m;
}

void map_format(void *image, struct gw_str digest, uint64_t size, struct gw_str source,
                uint32_t flags, uint64_t part_ino, uint64_t generation, uint64_t boot)
{
    struct map_head *h = image;
    struct map m;

    memcpy(h->magic, magic, sizeof(magic));
    h->version = MAP_VERSION;
    h->granule = CACHE_GRANULE;
    h->size = size;
    h->part_ino = part_ino;
    h->generation = generation;
    h->digest_len = (uint32_t)digest.n;
    h->source_len = (uint32_t)source.n;
    memcpy(h->digest, digest.p, digest.n);
    memcpy(h->source, source.p, source.n);
    h->flags = flags;
    h->crc = head_crc(h);

    m = view(image, (size_t)map_file_bytes(size));
    atomic_init(&m.live->boot, boot);
    atomic_init(&m.live->state, MAP_FILLING);
    for (unsigned i = 0; i < 2; i++) {
        struct map_hash *hash = &m.live->hash[i];

        hash->seq = i;
        gw_sha256_init(&hash->sha);
        hash->crc = hash_crc(h, hash);
    }
}

/* A map says that its digest is right: the saved state must say so too. */
static bool proof_holds(const struct map *m)
{
    struct gw_sha256 s;
    uint8_t have[32], wanted[32];

    if (m->head->digest_len != 64 ||
        !gw_hex_decode(wanted, sizeof(wanted), (struct gw_str){m->head->digest, 64})) {
        return false;
    }
    map_hash_load(m, &s);
    if (s.bytes != m->head->size) {
        return false;
    }
    gw_sha256_final(&s, have);
    return memcmp(have, wanted, sizeof(have)) == 0;
}

/* Another boot may have lost what was not synced. */
static bool boot_trusted(const struct map *m, uint64_t boot)
{
    return atomic_load(&m->live->boot) == boot || atomic_load(&m->live->clean) == map_seal(m) ||
           atomic_load(&m->live->boot) == boot; /* again: somebody may have brought it over */
}

const char *map_doubt(const void *image, size_t n, struct gw_str digest, uint64_t part_size,
                      uint64_t part_ino, uint64_t boot)
{
    const struct map_head *h = image;
    struct map m;

    if (n < MAP_GRANULES_AT) {
        return "too short";
    }
    if (memcmp(h->magic, magic, sizeof(magic)) != 0) {
        return "not a map";
    }
    if (h->version != MAP_VERSION || h->granule != CACHE_GRANULE) {
        return "another version";
    }
    if (h->crc != head_crc(h)) {
        return "head damaged";
    }
    if (h->size == 0 || h->size > MAP_SIZE_MAX || h->source_len > MAP_SOURCE_MAX ||
        h->source_len == 0 || h->source[0] != '/' || h->digest_len != digest.n ||
        digest.n > sizeof(h->digest) || memcmp(h->digest, digest.p, digest.n) != 0 ||
        (h->flags & ~(MAP_FROM_FILE | MAP_LINKED | MAP_PASSING)) != 0 || h->flags == MAP_LINKED) {
        return "another blob's";
    }
    if (n != map_file_bytes(h->size)) {
        return "length wrong";
    }
    if (part_ino != h->part_ino || part_size != h->size) {
        return "another part's";
    }
    m = view(image, n);
    if (!hash_valid(h, &m.live->hash[0]) && !hash_valid(h, &m.live->hash[1])) {
        return "hash state damaged";
    }
    if (!boot_trusted(&m, boot)) {
        return "of another boot, not sealed";
    }
    switch (atomic_load(&m.live->state)) {
    case MAP_FILLING:
        return NULL;
    case MAP_PROVEN:
        return proof_holds(&m) ? NULL : "proof missing";
    default:
        return map_ended; /* its owner died between the end and the unlink, or the word is damaged
                           */
    }
}

int map_attach(struct map *m, const char *parts, struct gw_str digest, uint64_t boot,
               struct gw_error *err)
{
    char path[PATH_MAX];
    struct stat of_map, of_part;
    const char *doubt;
    void *image = MAP_FAILED;
    struct map_head *head = NULL;
    int map_fd = -1, part_fd = -1, rc;
    bool only_read = false;
    uint32_t flags = 0;
    uint64_t was;

    snprintf(path, sizeof(path), "%s/" GW_STR_FMT ".map", parts, GW_STR_ARG(digest));
    map_fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (map_fd < 0 && errno == ENOENT) {
        return gw_fail(err, GW_NOT_FOUND, 0, "no map");
    }
    if (map_fd < 0 || fstat(map_fd, &of_map) != 0) {
        rc = gw_fail(err, errno == ELOOP || errno == EISDIR ? GW_CORRUPT : GW_IO, errno, "map: %s",
                     strerrordesc_np(errno));
        goto done;
    }
    if (!S_ISREG(of_map.st_mode) || of_map.st_size < (off_t)MAP_GRANULES_AT ||
        (uint64_t)of_map.st_size > map_file_bytes(MAP_SIZE_MAX)) {
        rc = gw_fail(err, GW_CORRUPT, 0, "map: length wrong");
        goto done;
    }
    snprintf(path, sizeof(path), "%s/" GW_STR_FMT ".part", parts, GW_STR_ARG(digest));
    if (pread(map_fd, &flags, sizeof(flags), (off_t)offsetof(struct map_head, flags)) !=
        (ssize_t)sizeof(flags)) {
        rc = gw_fail(err, GW_IO, errno, "map: %s", strerrordesc_np(errno));
        goto done;
    }
    part_fd = open(path, ((flags & MAP_LINKED) != 0 ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW |
                             O_NONBLOCK); /* never O_CREAT: nginx-notes 2 */
    if (part_fd < 0 && errno == EACCES) { /* a blob already, by its mode: proven, being linked */
        part_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        only_read = true;
    }
    if (part_fd < 0 || fstat(part_fd, &of_part) != 0) {
        bool gone = errno == ENOENT || errno == ELOOP || errno == EISDIR;

        rc = gw_fail(err, gone ? GW_CORRUPT : GW_IO, errno, "part: %s", strerrordesc_np(errno));
        goto done;
    }
    image = mmap(NULL, (size_t)of_map.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
    if (image == MAP_FAILED) {
        rc = gw_fail(err, errno == ENOMEM ? GW_NO_MEMORY : GW_IO, errno, "map: %s",
                     strerrordesc_np(errno));
        goto done;
    }
    doubt = !S_ISREG(of_part.st_mode)
                ? "its part is no file"
                : map_doubt(image, (size_t)of_map.st_size, digest, (uint64_t)of_part.st_size,
                            (uint64_t)of_part.st_ino, boot);
    if (doubt == NULL && only_read && atomic_load(&view(image, 0).live->state) == MAP_FILLING) {
        doubt = "its part cannot be written";
    }
    if (doubt != NULL) {
        rc = gw_fail(err, doubt == map_ended ? GW_CONFLICT : GW_CORRUPT, 0, "map: %s", doubt);
        goto done;
    }
    head = gw_alloc(sizeof(*head));
    if (head == NULL) {
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory for a map");
        goto done;
    }
    memcpy(head, image, sizeof(*head));
    *m = view(image, (size_t)of_map.st_size);
    m->head = head;
    if (head->crc != head_crc(head) || head->flags != flags ||
        m->granules != granules_of(head->size) ||
        m->bytes != map_file_bytes(head->size)) { /* changed since it was judged */
        rc = gw_fail(err, GW_CORRUPT, 0, "map: head damaged");
        goto done;
    }
    m->map_fd = map_fd;
    m->part_fd = part_fd;
    was = atomic_load(&m->live->boot);
    if (was != boot) { /* sealed; from now on it is this boot's */
        atomic_compare_exchange_strong(&m->live->boot, &was, boot);
    }
    return GW_OK;
done:
    gw_free(head);
    if (image != MAP_FAILED) {
        munmap(image, (size_t)of_map.st_size);
    }
    if (part_fd >= 0) {
        close(part_fd);
    }
    if (map_fd >= 0) {
        close(map_fd);
    }
    return rc;
}

void map_detach(struct map *m)
{
    if (m->head != NULL) {
        munmap(m->image, m->bytes);
        gw_free((void *)(uintptr_t)m->head);
        close(m->map_fd);
        close(m->part_fd);
    }
    memset(m, 0, sizeof(*m));
    m->map_fd = m->part_fd = -1;
}

/* Bytes at the front of a granule that a live transfer has written; its word moves on only after
 * the granule is valid. */
static uint64_t live_bytes(const struct map *m, uint64_t granule)
{
    for (unsigned i = 0; i < MAP_TRANSFERS; i++) {
        uint64_t word = atomic_load(&m->live->transfers[i]);

        if ((word & TRANSFER_LIVE) != 0 && transfer_granule(word) == granule) {
            return transfer_bytes(word) < CACHE_GRANULE ? transfer_bytes(word) : 0;
        }
    }
    return 0;
}

uint64_t map_ready(const struct map *m, uint64_t offset, uint64_t end)
{
    uint64_t pos = offset, from = offset / CACHE_GRANULE;

    if (end > m->head->size) {
        end = m->head->size;
    }
    for (uint64_t g = from; pos < end && g - from < READY_GRANULES; g++) {
        uint8_t now = atomic_load(&m->granule[g]);
        uint64_t there;

        if (now == GRANULE_VALID) {
            pos = (g + 1) * CACHE_GRANULE;
            continue;
        }
        there = now == GRANULE_LIVE ? g * CACHE_GRANULE + live_bytes(m, g) : 0;
        if (there > pos) {
            pos = there;
        }
        break;
    }
    if (pos > end) {
        pos = end;
    }
    return pos > offset ? pos - offset : 0;
}

uint64_t map_missing(const struct map *m, uint64_t from)
{
    while (from < m->granules && atomic_load(&m->granule[from]) == GRANULE_VALID) {
        from++;
    }
    return from;
}

uint64_t map_wanted(const struct map *m, uint64_t from)
{
    bool all = atomic_load(&m->live->all) != 0;

    for (; from < m->granules; from++) {
        uint8_t now = atomic_load(&m->granule[from]);

        if (now != GRANULE_VALID && (all || (now >= GRANULE_LIVE && now <= GRANULE_DEMANDED))) {
            break;
        }
    }
    return from;
}

uint64_t map_demanded(const struct map *m, uint64_t from)
{
    while (from < m->granules && atomic_load(&m->granule[from]) != GRANULE_DEMANDED) {
        from++;
    }
    return from;
}

bool map_unfinished(const struct map *m)
{
    bool whole = map_missing(m, 0) == m->granules;

    if (whole && (m->head->flags & MAP_LINKED) != 0) {
        return atomic_load(&m->live->all) != 0; /* ranges of it need no proof */
    }
    if ((m->head->flags & MAP_PASSING) != 0 && atomic_load(&m->live->state) == MAP_PROVEN) {
        return false; /* it stays as it is */
    }
    return whole || map_wanted(m, 0) < m->granules;
}

bool map_ask(struct map *m, uint64_t g, uint8_t how)
{
    uint8_t now = atomic_load(&m->granule[g]);

    while (now != GRANULE_VALID && now != GRANULE_LIVE && now != GRANULE_DEMANDED && now != how) {
        if (atomic_compare_exchange_weak(&m->granule[g], &now, how)) {
            return true;
        }
    }
    return false;
}

uint64_t map_bytes(const struct map *m, uint64_t g)
{
    return g >= m->granules ? m->head->size : g * CACHE_GRANULE;
}

void map_settle(struct map *m)
{
    for (unsigned i = 0; i < MAP_TRANSFERS; i++) {
        uint64_t word = atomic_load(&m->live->transfers[i]), g = transfer_granule(word);

        if (word != 0 &&
            ((word & TRANSFER_LIVE) == 0 || g >= m->granules ||
             atomic_load(&m->granule[g]) != GRANULE_LIVE || transfer_bytes(word) >= CACHE_GRANULE ||
             g * CACHE_GRANULE + transfer_bytes(word) >= m->head->size)) {
            atomic_store(&m->live->transfers[i], 0);
        }
    }
    for (uint64_t g = 0; g < m->granules; g++) {
        uint8_t now = atomic_load(&m->granule[g]);

        if (now == GRANULE_LIVE && live_bytes(m, g) == 0) {
            atomic_compare_exchange_strong(&m->granule[g], &now, GRANULE_WANTED);
        } else if (now > GRANULE_DEMANDED) {
            atomic_compare_exchange_strong(&m->granule[g], &now, GRANULE_ABSENT);
        }
    }
}

void map_hash_load(const struct map *m, struct gw_sha256 *out)
{
    uint64_t there = map_bytes(m, map_missing(m, 0));
    const struct map_hash *best = NULL;
    struct map_hash slot[2];

    memcpy(slot, m->live->hash, sizeof(slot)); /* what is checked is what is used */
    for (unsigned i = 0; i < 2; i++) {
        if (hash_valid(m->head, &slot[i]) && slot[i].sha.bytes <= there &&
            (best == NULL || slot[i].seq > best->seq)) {
            best = &slot[i];
        }
    }
    if (best != NULL) {
        *out = best->sha;
    } else {
        gw_sha256_init(out);
    }
}

void map_hash_save(struct map *m, const struct gw_sha256 *s)
{
    struct map_hash *slot = m->live->hash, *to, next = {0};
    bool first = hash_valid(m->head, &slot[0]), second = hash_valid(m->head, &slot[1]);

    if (first && second) {
        to = slot[0].seq < slot[1].seq ? &slot[0] : &slot[1];
    } else {
        to = first ? &slot[1] : &slot[0];
    }
    next.seq = (first ? slot[0].seq : 0) > (second ? slot[1].seq : 0) ? slot[0].seq : slot[1].seq;
    next.seq = first || second ? next.seq + 1 : 0;
    next.sha = *s;
    next.crc = hash_crc(m->head, &next);
    memcpy(to, &next, sizeof(*to));
}

uint64_t map_seal(const struct map *m)
{
    uint8_t copy[4096];
    uint32_t crc = m->head->crc;

    for (unsigned i = 0; i < MAP_TRANSFERS; i++) {
        uint64_t word = atomic_load(&m->live->transfers[i]);

        crc = gw_crc32(crc, &word, sizeof(word));
    }
    for (uint64_t g = 0; g < m->granules;) {
        size_t n = 0;

        while (n < sizeof(copy) && g < m->granules) {
            uint8_t now = atomic_load(&m->granule[g++]);

            copy[n++] = now == GRANULE_VALID || now == GRANULE_LIVE ? now : GRANULE_ABSENT;
        }
        crc = gw_crc32(crc, copy, n);
    }
    return TRANSFER_LIVE | crc; /* never 0 */
}
