/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/file.h - files that are whole or absent. Blocking: job threads, the command and start-up
 * only.
 *
 * Order of every durable write: temp file, write, fsync, link or rename, fsync of the folder
 * (reliability: power cuts measured on ext4 and XFS; without the last step an acknowledged file is
 * lost).
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

/* Whole file into the arena, NUL-terminated. @return GW_OK; GW_NOT_FOUND; GW_TOO_LARGE (more than
 * max); GW_IO; GW_NO_MEMORY */
int gw_file_read(const char *path, size_t max, struct gw_arena *a, struct gw_str *out,
                 struct gw_error *err) GW_MUST_CHECK;
/* The same for a secret: refused (GW_INVALID) if it is not a regular file, or group or others may
 * write or others may read it; one final newline is cut; empty is refused. */
int gw_file_read_secret(const char *path, size_t max, struct gw_arena *a, struct gw_str *out,
                        struct gw_error *err) GW_MUST_CHECK;

/* Replaces dir/name durably (temp in the same dir, fsync, rename, fsync dir). mode is exact,
 * whatever the umask. A kill in between leaves a file ".tmp-*" in dir: who lists dir skips names
 * that begin with a dot. After GW_IO from the last step the new content may be in place. @return
 * GW_OK; GW_IO */
int gw_file_replace(const char *dir, const char *name, struct gw_str content, mode_t mode,
                    struct gw_error *err) GW_MUST_CHECK;
/* The same but never replaces: GW_CONFLICT if the name is there. */
int gw_file_create(const char *dir, const char *name, struct gw_str content, mode_t mode,
                   struct gw_error *err) GW_MUST_CHECK;

/* mkdir -p, durable (fsync of the parent of each folder made); existing folders are fine. mode is
 * exact. @return GW_OK; GW_IO */
int gw_dir_make(const char *path, mode_t mode, struct gw_error *err) GW_MUST_CHECK;
int gw_dir_sync(const char *path, struct gw_error *err) GW_MUST_CHECK;
/* Removes a folder with all in it, never following a symbolic link. Absent is GW_OK. */
int gw_dir_remove(const char *path, struct gw_error *err) GW_MUST_CHECK;
/* Names in a folder, sorted, without "." and ".."; at most max_names (GW_TOO_LARGE).
 * @return GW_OK; GW_NOT_FOUND; GW_TOO_LARGE; GW_IO; GW_NO_MEMORY */
int gw_dir_list(const char *path, size_t max_names, struct gw_arena *a, struct gw_str **names,
                size_t *n, struct gw_error *err) GW_MUST_CHECK;

/* All n bytes: EINTR and short transfers are handled. @return GW_OK; GW_IO; of pread also
 * GW_CORRUPT: the file ended early. */
int gw_write_all(int fd, const void *p, size_t n, struct gw_error *err) GW_MUST_CHECK;
int gw_pwrite_all(int fd, const void *p, size_t n, uint64_t offset,
                  struct gw_error *err) GW_MUST_CHECK;
int gw_pread_all(int fd, void *p, size_t n, uint64_t offset, struct gw_error *err) GW_MUST_CHECK;

#endif
