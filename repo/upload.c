/* SPDX-License-Identifier: Apache-2.0 */
/* repo/upload.c - bytes on their way to an object: written and hashed as they come. */
#include "repo/repo_internal.h"

#include "base/alloc.h"
#include "base/encode.h"
#include "base/file.h"
#include "base/sha.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define OBJECT_MODE 0440
/* To the disk while more comes: what is left for the end is little, however large the object. */
#define WRITEBACK (8u << 20)

struct repo_upload {
    const char *data_dir;
    struct repo_work work;
    const char *path;
    int fd;
    struct gw_sha256 sha;
    uint64_t on_its_way; /* to the disk */
};

static int open_file(struct repo_upload *u, struct gw_error *err)
{
    int rc = repo_work_begin(&u->work, u->data_dir, err);

    if (rc != GW_OK) {
        return rc;
    }
    u->path = gw_arena_printf(&u->work.a, "%s/object", u->work.dir).p;
    if (u->path == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for an upload");
    }
    u->fd = open(u->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return u->fd >= 0 ? GW_OK
                      : gw_fail(err, GW_IO, errno, "create an upload: %s", strerrordesc_np(errno));
}

int repo_upload_open(struct repo_upload **out, const char *data_dir, struct gw_error *err)
{
    struct repo_upload *u = gw_alloc(sizeof(*u));
    int rc;

    if (u == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for an upload");
    }
    u->data_dir = data_dir;
    u->fd = -1;
    gw_sha256_init(&u->sha);
    rc = open_file(u, err);
    if (rc != GW_OK) {
        repo_upload_close(u);
        return rc;
    }
    *out = u;
    return GW_OK;
}

int repo_upload_write(struct repo_upload *u, struct gw_str bytes, struct gw_error *err)
{
    int rc = gw_write_all(u->fd, bytes.p, bytes.n, err);

    if (rc != GW_OK) {
        return rc;
    }
    gw_sha256_update(&u->sha, bytes.p, bytes.n);
    if (u->sha.bytes - u->on_its_way >= WRITEBACK) {
        /* a hint: what goes wrong shows at fdatasync */
        (void)sync_file_range(u->fd, (off_t)u->on_its_way, (off_t)(u->sha.bytes - u->on_its_way),
                              SYNC_FILE_RANGE_WRITE);
        u->on_its_way = u->sha.bytes;
    }
    return GW_OK;
}

int repo_upload_finish(struct repo_upload *u, const struct repo_id *id, struct gw_str sha256,
                       uint64_t size, struct gw_error *err)
{
    uint8_t sum[32];
    char hex[65];

    gw_sha256_final(&u->sha, sum);
    gw_hex_encode(hex, sum, sizeof(sum));
    if (u->sha.bytes != size) {
        return gw_fail(err, GW_CORRUPT, 0, "%llu bytes came, not the %llu that were announced",
                       (unsigned long long)u->sha.bytes, (unsigned long long)size);
    }
    if (!gw_str_eq_c(sha256, hex)) {
        return gw_fail(err, GW_CORRUPT, 0, "the bytes have the sha256 %.12s..., not %.12s...", hex,
                       sha256.p);
    }
    if (fchmod(u->fd, OBJECT_MODE) != 0 || fdatasync(u->fd) != 0) {
        return gw_fail(err, GW_IO, errno, "sync an upload: %s", strerrordesc_np(errno));
    }
    return repo_object_take(u->data_dir, id, sha256, u->path, err);
}

void repo_upload_close(struct repo_upload *u)
{
    if (u == NULL) {
        return;
    }
    if (u->fd >= 0) {
        close(u->fd);
    }
    repo_work_end(&u->work);
    gw_free(u);
}
