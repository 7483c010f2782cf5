/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache/index.c - records in LMDB, shared by all workers.
 *
 *   key    kind byte, then the first 16 bytes of sha256(name)
 *   value  struct head, name, value; a check over all of it. The name is bound in.
 *
 *   OPEN --somebody died inside, or damage was met--> suspect --set aside, epoch + 1--> all reopen
 *
 * LMDB's rules (design, each seen to break when not kept): one env per process, opened after fork;
 * NOTLS, so the loop has one read transaction that it renews and jobs have their own; no read
 * transaction outlives a call; writes only in jobs. LMDB faults or aborts on damaged pages, so a
 * counter in the worker's slot is up while a thread is inside. Once the index is suspect every
 * look-up is a miss: a missing file record must not be taken for an answer because the record that
 * its commit is complete still reads well.
 */
#include "cache/index_internal.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/sha.h"

#include <lmdb.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_BYTES ((size_t)64 << 30)
#define READERS 4096u
#define LOCK_BYTES (4096 + 64 * (off_t)READERS) /* of lock.mdb: a head, a cache line each */
#define PUTS_MAX 1000u
#define ASIDE_KEPT 2u
#define REOPEN_EVERY_MS 1000
#define SAY_EVERY_MS 60000
#define KEY_BYTES 17u
#define RECORD_MAGIC 0x31524748u /* "HGR1": the last byte is the version */
#define RECORD_MAGIC_MASK 0x00ffffffu
#define FORMAT_KEY_KIND 0 /* the one record that no caller can name */
#define FORMAT "hubgate-index 1"
#define EVICT_AT_PERCENT 75u
#define EVICT_SAMPLE 32u
#define EACH_AT_ONCE 512u

struct head { /* of a value; host order: an index never leaves its machine */
    uint32_t magic, check;
    int32_t status, detail;
    int64_t checked_ms;
    uint32_t name_bytes, value_bytes;
};

struct cache_index {
    pthread_rwlock_t lock; /* shared around a call, exclusive to reopen */
    MDB_env *env;          /* NULL: could not be opened; misses, until a retry succeeds */
    MDB_dbi dbi;
    MDB_txn *reader; /* the loop's, reset between calls; NULL: not begun yet */
    uint32_t epoch;  /* of shared->index_epoch, read before env was opened */
    size_t map_bytes;
    int64_t retry_ms;      /* monotonic: no other try to open before */
    int64_t said_ms;       /* monotonic: when the log last heard of a failure */
    atomic_bool prune_due; /* a job should remove what was set aside long ago */
};

/* ---- bytes ---- */

/* Finds damage, not forgery: four lanes as in xxHash, because a CRC of a tree page would cost the
 * loop more than the page itself. */
static uint32_t check_of(const struct head *head, const uint8_t *p, size_t n)
{
    static const uint64_t first = 0x9e3779b185ebca87u, second = 0xc2b2ae3d27d4eb4fu;
    uint64_t lane[4] = {first + second, second, n, (uint64_t)head->checked_ms}, word[4];
    uint64_t sum;

    lane[2] ^= (uint64_t)(uint32_t)head->status << 32 | (uint32_t)head->detail;
    lane[1] ^= (uint64_t)head->name_bytes << 32 | head->value_bytes;
    lane[0] ^= head->magic;
    while (n > 0) {
        size_t take = n < sizeof(word) ? n : sizeof(word);

        if (take < sizeof(word)) {
            memset(word, 0, sizeof(word));
        }
        memcpy(word, p, take);
        for (size_t i = 0; i < 4; i++) {
            lane[i] += word[i] * second;
            lane[i] = (lane[i] << 31 | lane[i] >> 33) * first;
        }
        p += take;
        n -= take;
    }
    sum = 0;
    for (size_t i = 0; i < 4; i++) {
        sum = (sum ^ lane[i]) * first;
        sum ^= sum >> 29;
    }
    return (uint32_t)(sum ^ sum >> 32);
}

static void key_of(uint8_t key[KEY_BYTES], int kind, struct gw_str name)
{
    uint8_t digest[32];

    gw_sha256_once(name.p, name.n, digest);
    key[0] = (uint8_t)kind;
    memcpy(key + 1, digest, KEY_BYTES - 1);
}

enum reading { READ_OK, READ_FOREIGN /* another version's */, READ_DAMAGED };

static enum reading read_head(const MDB_val *val, struct head *head, struct gw_str *name,
                              struct gw_str *value)
{
    const uint8_t *p = val->mv_data;

    if (val->mv_size < sizeof(*head)) {
        return READ_DAMAGED;
    }
    memcpy(head, p, sizeof(*head));
    if (head->magic != RECORD_MAGIC) {
        return ((head->magic ^ RECORD_MAGIC) & RECORD_MAGIC_MASK) == 0 ? READ_FOREIGN
                                                                       : READ_DAMAGED;
    }
    if (head->name_bytes > CACHE_NAME_MAX || head->value_bytes > CACHE_RECORD_MAX ||
        head->name_bytes + head->value_bytes != val->mv_size - sizeof(*head)) {
        return READ_DAMAGED;
    }
    p += sizeof(*head);
    if (check_of(head, p, val->mv_size - sizeof(*head)) != head->check) {
        return READ_DAMAGED;
    }
    *name = (struct gw_str){(const char *)p, head->name_bytes};
    *value = (struct gw_str){(const char *)p + head->name_bytes, head->value_bytes};
    return READ_OK;
}

static size_t record_bytes(const struct cache_put *put)
{
    return sizeof(struct head) + put->name.n + put->record.value.n;
}

static void write_record(uint8_t *to, const struct cache_put *put)
{
    struct head head = {.magic = RECORD_MAGIC,
                        .status = (int32_t)put->record.status,
                        .detail = put->record.detail,
                        .checked_ms = put->record.checked_ms,
                        .name_bytes = (uint32_t)put->name.n,
                        .value_bytes = (uint32_t)put->record.value.n};
    uint8_t *p = to + sizeof(head);

    if (put->name.n != 0) {
        memcpy(p, put->name.p, put->name.n);
    }
    if (put->record.value.n != 0) {
        memcpy(p + put->name.n, put->record.value.p, put->record.value.n);
    }
    head.check = check_of(&head, p, put->name.n + put->record.value.n);
    memcpy(to, &head, sizeof(head));
}

/* ---- the mark in the slot ---- */

static void enter(struct cache *c)
{
    atomic_fetch_add(&c->shared->slots[c->slot].in_index, 1);
}

static void leave(struct cache *c)
{
    atomic_fetch_sub(&c->shared->slots[c->slot].in_index, 1);
}

/* LMDB found damage by itself. */
static bool is_damage(int rc)
{
    return rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID ||
           rc == MDB_VERSION_MISMATCH || rc == MDB_INCOMPATIBLE || rc == MDB_BAD_DBI;
}

/* At open a damaged meta page may as well ask for a map that nobody has. */
static bool is_damage_at_open(int rc)
{
    return is_damage(rc) || rc == ENOMEM || rc == EINVAL || rc == EIO || rc == EOVERFLOW;
}

static void suspect(struct cache *c)
{
    atomic_store(&c->shared->index_suspect, 1);
}

static bool usable(struct cache *c)
{
    return c->index->env != NULL && atomic_load(&c->shared->index_epoch) == c->index->epoch &&
           atomic_load(&c->shared->index_suspect) == 0;
}

static int fail_lmdb(struct gw_error *err, int rc, const char *what)
{
    if (rc == MDB_MAP_FULL || rc == ENOSPC) {
        return gw_fail(err, GW_IO, ENOSPC, "index: %s: %s", what,
                       rc == ENOSPC ? "no space on the disk" : "the index is full");
    }
    if (rc == ENOMEM) {
        return gw_fail(err, GW_NO_MEMORY, rc, "index: %s: no memory", what);
    }
    return gw_fail(err, GW_IO, rc > 0 ? rc : EIO, "index: %s: %s", what, mdb_strerror(rc));
}

/* ---- open, set aside ---- */

static void close_env(struct cache_index *ix)
{
    if (ix->reader != NULL) {
        mdb_txn_abort(ix->reader);
        ix->reader = NULL;
    }
    if (ix->env != NULL) {
        mdb_env_close(ix->env);
        ix->env = NULL;
    }
}

/* A file shorter than its pages faults on the first touch of what is missing. */
static int check_length(MDB_env *env)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    mdb_filehandle_t fd;
    int rc;

    rc = mdb_env_info(env, &info);
    rc = rc != 0 ? rc : mdb_env_stat(env, &stat);
    rc = rc != 0 ? rc : mdb_env_get_fd(env, &fd);
    if (rc != 0) {
        return rc;
    }
    if (fstat(fd, &st) != 0) {
        return errno;
    }
    return (uint64_t)st.st_size / stat.ms_psize < (uint64_t)info.me_last_pgno + 1 ? MDB_CORRUPTED
                                                                                  : 0;
}

/* LMDB need not write the last page it has counted (one allocated and freed in one transaction),
 * and then a whole file would look cut at the next start. It never reads such a page. */
static void pad_file(MDB_env *env)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    mdb_filehandle_t fd;

    if (mdb_env_info(env, &info) == 0 && mdb_env_stat(env, &stat) == 0 &&
        mdb_env_get_fd(env, &fd) == 0 && fstat(fd, &st) == 0) {
        off_t need = (off_t)((info.me_last_pgno + 1) * stat.ms_psize);

        if (st.st_size < need && posix_fallocate(fd, need - 1, 1) != 0) {
            return; /* at worst the index starts anew once */
        }
    }
}

static int check_format(MDB_env *env, MDB_dbi *dbi)
{
    uint8_t key_bytes[KEY_BYTES] = {FORMAT_KEY_KIND};
    MDB_val key = {sizeof(key_bytes), key_bytes}, val;
    MDB_stat stat;
    MDB_txn *txn;
    int rc;

    rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return rc;
    }
    rc = mdb_dbi_open(txn, NULL, 0, dbi);
    rc = rc != 0 ? rc : mdb_stat(txn, *dbi, &stat);
    if (rc == 0) {
        rc = mdb_get(txn, *dbi, &key, &val);
        if (rc == 0 &&
            (val.mv_size != sizeof(FORMAT) - 1 || memcmp(val.mv_data, FORMAT, val.mv_size) != 0)) {
            rc = MDB_VERSION_MISMATCH;
        } else if (rc == MDB_NOTFOUND && stat.ms_entries != 0) {
            rc = MDB_INVALID; /* somebody else's database */
        }
    }
    mdb_txn_abort(txn);
    if (rc != MDB_NOTFOUND) {
        return rc;
    }
    rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc != 0) {
        return rc;
    }
    val = (MDB_val){sizeof(FORMAT) - 1, (void *)(uintptr_t)FORMAT};
    rc = mdb_put(txn, *dbi, &key, &val, 0);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

/* LMDB makes its lock file with a hole, maps it and writes there: without room on the disk that is
 * a SIGBUS. So it finds one that has all its blocks, and room for a few readers more. */
static int make_lock_file(struct cache *c)
{
    char path[CACHE_PATH_MAX + 16];
    struct stat st;
    int fd, rc = 0;

    snprintf(path, sizeof(path), "%s/lock.mdb", c->index_dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return errno;
    }
    if (fstat(fd, &st) != 0) {
        rc = errno;
    } else if (st.st_size < LOCK_BYTES) {
        rc = posix_fallocate(fd, 0, LOCK_BYTES);
    }
    close(
        fd); /* of a file that this process has not open otherwise: no lock of LMDB goes with it */
    return rc;
}

/* 0, an LMDB code or an errno. The folder's lock is held. */
static int try_open(struct cache *c)
{
    struct cache_index *ix = c->index;
    MDB_env *env = NULL;
    int rc, dead;

    if (mkdir(c->index_dir, 0700) != 0 && errno != EEXIST) {
        return errno;
    }
    rc = make_lock_file(c);
    rc = rc != 0 ? rc : mdb_env_create(&env);
    if (rc != 0) {
        return rc;
    }
    rc = mdb_env_set_mapsize(env, ix->map_bytes);
    rc = rc != 0 ? rc : mdb_env_set_maxreaders(env, READERS);
    rc = rc != 0 ? rc : mdb_env_open(env, c->index_dir, MDB_NOTLS | MDB_NORDAHEAD, 0600);
    rc = rc != 0 ? rc : check_length(env);
    rc = rc != 0 ? rc : mdb_reader_check(env, &dead);
    rc = rc != 0 ? rc : check_format(env, &ix->dbi);
    if (rc == 0) {
        pad_file(env);
        ix->env = env;
    } else {
        mdb_env_close(env);
    }
    return rc;
}

static int set_aside(struct cache *c, const char *why, struct gw_error *err)
{
    char to[CACHE_PATH_MAX];
    int64_t second = gw_wall_ms() / 1000;

    do { /* several may go within a second */
        snprintf(to, sizeof(to), "%s.damaged-%lld", c->index_dir, (long long)second++);
    } while (access(to, F_OK) == 0);
    if (rename(c->index_dir, to) != 0 && errno != ENOENT) {
        return gw_fail(err, GW_IO, errno, "index: cannot set %s aside: %s", c->index_dir,
                       strerror(errno));
    }
    atomic_fetch_add(&c->shared->index_epoch, 1);
    atomic_fetch_add(&c->shared->counters.index_resets, 1);
    atomic_store(&c->index->prune_due, true);
    gw_log_write(&c->log, GW_LOG_WARN, "index: %s; set aside as %s, it grows anew", why, to);
    return GW_OK;
}

/* Removes all but the newest of what was set aside. */
static void prune(struct cache *c)
{
    struct gw_arena a;
    struct gw_str *names;
    struct gw_error err;
    char path[CACHE_PATH_MAX];
    size_t n, kept = 0;

    atomic_store(&c->index->prune_due, false);
    gw_arena_init(&a, 1u << 20);
    if (gw_dir_list(c->dir, 10000, &a, &names, &n, &err) == GW_OK) {
        for (size_t i = n; i > 0; i--) { /* sorted: the seconds have ten digits for 200 years */
            if (gw_str_starts(names[i - 1], GW_STR("index.damaged-")) && ++kept > ASIDE_KEPT) {
                snprintf(path, sizeof(path), "%s/" GW_STR_FMT, c->dir, GW_STR_ARG(names[i - 1]));
                if (gw_dir_remove(path, &err) != GW_OK) {
                    gw_log_write(&c->log, GW_LOG_WARN, "index: %s", err.text);
                }
            }
        }
    }
    gw_arena_release(&a);
}

/* The folder's lock orders opening and setting aside: nobody may get the lock of one index and the
 * data of the next. The index lock is held exclusively, or nobody else has the cache yet. */
static int open_locked(struct cache *c, struct gw_error *err)
{
    int rc, status = GW_OK;

    if (atomic_exchange(&c->shared->index_suspect, 0) != 0) {
        status = set_aside(c, "damaged, or a process died inside it", err);
    }
    for (int i = 0; status == GW_OK; i++) {
        c->index->epoch = atomic_load(&c->shared->index_epoch);
        enter(c);
        rc = try_open(c);
        leave(c);
        if (rc == 0) {
            return GW_OK;
        }
        status = i == 0 && is_damage_at_open(rc) ? set_aside(c, mdb_strerror(rc), err)
                                                 : fail_lmdb(err, rc, "open");
    }
    return status;
}

/* Under the exclusive lock. wait: for another process that opens it just now; else GW_AGAIN.
 * Failure leaves env NULL: everything misses until the next try. */
static int reopen(struct cache *c, bool wait, struct gw_error *err)
{
    int64_t now = gw_mono_ms();
    int fd, rc;

    if (c->index->env == NULL && now < c->index->retry_ms) {
        return gw_fail(err, GW_IO, EIO, "index: could not be opened a moment ago");
    }
    rc = cache_folder_lock(c, wait, &fd, err);
    if (rc != GW_OK) {
        return rc;
    }
    close_env(c->index);
    c->index->retry_ms = now + REOPEN_EVERY_MS;
    rc = open_locked(c, err);
    close(fd);
    return rc;
}

/* It could not be opened; tried each second, said once a minute. */
static void complain(struct cache *c, const struct gw_error *err)
{
    int64_t now = gw_mono_ms();

    if (c->index->said_ms == 0 || now - c->index->said_ms >= SAY_EVERY_MS) {
        c->index->said_ms = now;
        gw_log_write(&c->log, GW_LOG_ERROR,
                     "%s; until it can be opened, what needs a record is refused", err->text);
    }
}

/* Job. Takes the shared lock with the index usable in it; on failure no lock is held. */
static int lock_usable(struct cache *c, struct gw_error *err)
{
    int rc;

    for (int i = 0; i < 3; i++) {
        pthread_rwlock_rdlock(&c->index->lock);
        if (usable(c)) {
            return GW_OK;
        }
        pthread_rwlock_unlock(&c->index->lock);
        pthread_rwlock_wrlock(&c->index->lock);
        rc = usable(c) ? GW_OK : reopen(c, true, err);
        pthread_rwlock_unlock(&c->index->lock);
        if (rc != GW_OK) {
            return rc;
        }
    }
    return gw_fail(err, GW_IO, EIO, "index: set aside again and again");
}

int cache_index_open(struct cache *c, struct gw_error *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int rc;

    c->index = gw_arena_alloc(&c->memory, sizeof(*c->index));
    if (c->index == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "index: no memory");
    }
    c->index->map_bytes = c->options.index_map_bytes != 0 ? c->options.index_map_bytes : MAP_BYTES;
    c->index->map_bytes = c->index->map_bytes / page * page;
    pthread_rwlock_init(&c->index->lock, NULL);
    rc = reopen(c, true, err);
    if (rc != GW_OK && cache_disk_full(err)) { /* there will be room some day: cache_index_tick */
        complain(c, err);
        return GW_OK;
    }
    if (rc != GW_OK) {
        pthread_rwlock_destroy(&c->index->lock);
        c->index = NULL;
        return rc;
    }
    prune(c);
    return GW_OK;
}

void cache_index_close(struct cache *c)
{
    if (c->index != NULL) {
        enter(c);
        close_env(c->index);
        leave(c);
        pthread_rwlock_destroy(&c->index->lock);
        c->index = NULL;
    }
}

void cache_index_tick(struct cache *c)
{
    struct cache_index *ix = c->index;
    int64_t now = gw_mono_ms(), last = atomic_load(&c->shared->index_checked_ms);
    bool mine = now - last >= 1000 &&
                atomic_compare_exchange_strong(&c->shared->index_checked_ms, &last, now);
    bool good = false;
    struct gw_error err;
    int dead;

    if (mine) {
        cache_slots_bury(c->shared);
    }
    if (pthread_rwlock_tryrdlock(&ix->lock) != 0) {
        return; /* a job is reopening it */
    }
    good = usable(c);
    if (good && mine) {
        enter(c);
        if (is_damage(mdb_reader_check(ix->env, &dead))) {
            suspect(c);
        }
        leave(c);
    }
    pthread_rwlock_unlock(&ix->lock);
    if (!good && pthread_rwlock_trywrlock(&ix->lock) == 0) {
        if (!usable(c) && (ix->env != NULL || now >= ix->retry_ms)) {
            int rc = reopen(c, false, &err);

            if (rc != GW_OK && rc != GW_AGAIN) {
                complain(c, &err);
            }
        }
        pthread_rwlock_unlock(&ix->lock);
    }
}

/* ---- reading ---- */

static int begin_read(struct cache *c, bool loop, MDB_txn **txn)
{
    struct cache_index *ix = c->index;
    int rc;

    if (!loop) {
        return mdb_txn_begin(ix->env, NULL, MDB_RDONLY, txn);
    }
    if (ix->reader == NULL) {
        rc = mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &ix->reader);
    } else {
        rc = mdb_txn_renew(ix->reader);
        if (rc != 0) {
            mdb_txn_abort(ix->reader);
            ix->reader = NULL;
        }
    }
    *txn = ix->reader;
    return rc;
}

static int copy_record(struct cache *c, const MDB_val *val, struct gw_str name, struct gw_arena *a,
                       struct cache_record *out)
{
    struct gw_str held, value;
    struct head head;

    switch (read_head(val, &head, &held, &value)) {
    case READ_OK:
        break;
    case READ_FOREIGN:
        return GW_NOT_FOUND;
    case READ_DAMAGED:
        suspect(c);
        return GW_NOT_FOUND;
    }
    if (!gw_str_eq(held, name)) {
        suspect(c); /* 128 bits do not collide by chance: a page is not where it belongs */
        return GW_NOT_FOUND;
    }
    value = gw_arena_dup(a, value);
    if (value.p == NULL) {
        return GW_NO_MEMORY;
    }
    *out = (struct cache_record){.status = (enum gw_status)head.status,
                                 .detail = head.detail,
                                 .checked_ms = head.checked_ms,
                                 .value = value};
    return GW_OK;
}

int cache_get(struct cache *c, enum cache_kind kind, struct gw_str name, struct gw_arena *a,
              struct cache_record *out)
{
    bool loop = pthread_equal(pthread_self(), c->loop) != 0;
    uint8_t key_bytes[KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, val;
    MDB_txn *txn;
    int rc, status = GW_NOT_FOUND;

    key_of(key_bytes, kind, name);
    if ((loop ? pthread_rwlock_tryrdlock(&c->index->lock)
              : pthread_rwlock_rdlock(&c->index->lock)) != 0) {
        return GW_NOT_FOUND; /* it is being reopened */
    }
    if (usable(c)) {
        enter(c);
        rc = begin_read(c, loop, &txn);
        if (rc == 0) {
            rc = mdb_get(txn, c->index->dbi, &key, &val);
            if (rc == 0) {
                status = copy_record(c, &val, name, a, out);
            }
            if (loop) {
                mdb_txn_reset(txn);
            } else {
                mdb_txn_abort(txn);
            }
        }
        leave(c);
        if (is_damage(rc)) {
            suspect(c);
        }
    }
    pthread_rwlock_unlock(&c->index->lock);
    return status;
}

/* ---- writing ---- */

static int by_age(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* Of up to EVICT_SAMPLE neighbours at a random place (keys are hashes: any run is a fair sample)
 * the older half goes. */
static int evict_sample(MDB_txn *txn, MDB_dbi dbi, enum cache_kind kind, size_t *freed)
{
    uint8_t key_bytes[KEY_BYTES];
    int64_t ages[EVICT_SAMPLE], middle;
    MDB_cursor *cursor;
    MDB_val key, val;
    struct head head;
    struct gw_str held, value;
    size_t n = 0;
    int rc;

    key_bytes[0] = (uint8_t)kind;
    if (!gw_random(key_bytes + 1, KEY_BYTES - 1)) {
        return 0;
    }
    rc = mdb_cursor_open(txn, dbi, &cursor);
    if (rc != 0) {
        return rc;
    }
    key = (MDB_val){sizeof(key_bytes), key_bytes};
    for (rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
         rc == 0 && n < EVICT_SAMPLE && *(uint8_t *)key.mv_data == kind;
         rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT)) {
        ages[n++] = read_head(&val, &head, &held, &value) == READ_OK ? head.checked_ms : 0;
    }
    if (n == 0) {
        mdb_cursor_close(cursor);
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    qsort(ages, n, sizeof(ages[0]), by_age);
    middle = ages[n / 2];
    key = (MDB_val){sizeof(key_bytes), key_bytes};
    rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
    for (size_t i = 0; rc == 0 && i < n && *(uint8_t *)key.mv_data == kind; i++) {
        bool whole = read_head(&val, &head, &held, &value) == READ_OK;

        if (!whole || head.checked_ms <= middle) {
            *freed += val.mv_size;
            rc = mdb_cursor_del(cursor, 0);
        }
        /* After a deletion this is the record that moved up. */
        rc = rc != 0 ? rc : mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* From three quarters of the map on, every transaction makes room for twice what it brings. */
static int make_room(struct cache_index *ix, MDB_txn *txn, size_t bytes)
{
    static const enum cache_kind kinds[] = {CACHE_FILE, CACHE_TREE,   CACHE_DOCUMENT,
                                            CACHE_FILE, CACHE_COMMIT, CACHE_REF};
    size_t freed = 0;
    MDB_stat stat;
    int rc;

    rc = mdb_stat(txn, ix->dbi, &stat);
    if (rc != 0 ||
        (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) * stat.ms_psize <
            ix->map_bytes / 100 * EVICT_AT_PERCENT) {
        return rc;
    }
    for (unsigned i = 0; rc == 0 && freed < 2 * bytes && i < 64; i++) {
        rc = evict_sample(txn, ix->dbi, kinds[i % (sizeof(kinds) / sizeof(kinds[0]))], &freed);
    }
    return rc;
}

static int write_all(struct cache_index *ix, MDB_txn *txn, const struct cache_put *puts, size_t n)
{
    uint8_t key_bytes[KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, val;
    size_t bytes = 0;
    int rc;

    for (size_t i = 0; i < n; i++) {
        bytes += record_bytes(&puts[i]);
    }
    rc = make_room(ix, txn, bytes);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        key_of(key_bytes, puts[i].kind, puts[i].name);
        val = (MDB_val){record_bytes(&puts[i]), NULL};
        rc = mdb_put(txn, ix->dbi, &key, &val, MDB_RESERVE);
        if (rc == 0) {
            write_record(val.mv_data, &puts[i]);
        }
    }
    return rc;
}

int index_begin(struct cache *c, bool write, struct index_txn *t, struct gw_error *err)
{
    MDB_txn *txn;
    int rc, status = lock_usable(c, err);

    if (status != GW_OK) {
        return status;
    }
    *t = (struct index_txn){.dbi = c->index->dbi, .write = write};
    enter(c);
    rc = mdb_txn_begin(c->index->env, NULL, write ? 0 : MDB_RDONLY, &txn);
    t->txn = rc == 0 ? txn : NULL;
    return rc == 0 ? GW_OK : index_end(c, t, rc, "begin", err);
}

int index_end(struct cache *c, struct index_txn *t, int rc, const char *what, struct gw_error *err)
{
    struct cache_index *ix = c->index;

    if (t->write && rc == 0) {
        rc = mdb_txn_commit(t->txn);
        if (rc == 0) {
            pad_file(ix->env);
        }
    } else if (t->txn != NULL) {
        mdb_txn_abort(t->txn);
    }
    leave(c);
    pthread_rwlock_unlock(&ix->lock);
    if (is_damage(rc)) {
        suspect(c);
    }
    if (rc == MDB_PANIC || rc == MDB_MAP_RESIZED) {
        /* A failed write of the meta page: this env takes no more writes, a new one does. */
        pthread_rwlock_wrlock(&ix->lock);
        close_env(ix);
        ix->retry_ms = 0;
        pthread_rwlock_unlock(&ix->lock);
    }
    if (atomic_load(&ix->prune_due)) {
        prune(c);
    }
    return rc == 0 ? GW_OK : fail_lmdb(err, rc, what);
}

void index_suspect(struct cache *c)
{
    suspect(c);
}

int cache_put(struct cache *c, const struct cache_put *puts, size_t n, struct gw_error *err)
{
    struct index_txn t;
    int rc;

    if (n > PUTS_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "index: more than %u records in one transaction",
                       PUTS_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        if (puts[i].name.n > CACHE_NAME_MAX || puts[i].record.value.n > CACHE_RECORD_MAX) {
            return gw_fail(err, GW_TOO_LARGE, 0, "index: a record of %zu bytes",
                           puts[i].record.value.n);
        }
    }
    if (n == 0) {
        return GW_OK;
    }
    rc = index_begin(c, true, &t, err);
    return rc != GW_OK ? rc : index_end(c, &t, write_all(c->index, t.txn, puts, n), "put", err);
}

int cache_remove(struct cache *c, enum cache_kind kind, struct gw_str name, struct gw_error *err)
{
    uint8_t key_bytes[KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes};
    struct index_txn t;
    int rc = index_begin(c, true, &t, err);

    if (rc != GW_OK) {
        return rc;
    }
    key_of(key_bytes, kind, name);
    rc = mdb_del(t.txn, t.dbi, &key, NULL);
    return index_end(c, &t, rc == MDB_NOTFOUND ? 0 : rc, "remove", err);
}

/* ---- all of a kind ---- */

int cache_each(struct cache *c, enum cache_kind kind,
               int (*on)(void *ctx, struct gw_str name, const struct cache_record *record),
               void *ctx, struct gw_error *err)
{
    uint8_t at[KEY_BYTES] = {(uint8_t)kind};
    struct index_txn t;
    int rc = 0, status = GW_OK;

    while (rc == 0 && status == GW_OK) { /* one short transaction after the other */
        MDB_val key = {sizeof(at), at}, val;
        MDB_cursor *cursor = NULL;
        unsigned n = 0;

        status = index_begin(c, false, &t, err);
        if (status != GW_OK) {
            return status;
        }
        rc = mdb_cursor_open(t.txn, t.dbi, &cursor);
        rc = rc != 0 ? rc : mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
        while (rc == 0 && status == GW_OK && n++ < EACH_AT_ONCE) {
            struct gw_str name, value;
            struct head head;

            if (key.mv_size != KEY_BYTES || *(uint8_t *)key.mv_data != kind) {
                rc = MDB_NOTFOUND;
                break;
            }
            memcpy(at, key.mv_data, sizeof(at));
            if (read_head(&val, &head, &name, &value) == READ_OK) {
                struct cache_record record = {.status = (enum gw_status)head.status,
                                              .detail = head.detail,
                                              .checked_ms = head.checked_ms,
                                              .value = value};

                status = on(ctx, name, &record);
            }
            rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
        }
        for (unsigned i = KEY_BYTES; i-- > 0 && ++at[i] == 0;) {
        }
        if (cursor != NULL) {
            mdb_cursor_close(cursor);
        }
        if (rc != 0 && rc != MDB_NOTFOUND) {
            return index_end(c, &t, rc, "read", err);
        }
        (void)index_end(c, &t, 0, "read", err);
    }
    return status;
}
