/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/log.h - lines that have no caller to return to.
 *
 * Handed in at *_open. Sinks: ngx_log_error in ngx_module/, a list in unit tests, stderr in the
 * command. write may be called from any thread and must not block for long. A line is one line and
 * holds no secret.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/error.h"
#include "base/str.h"

enum gw_log_level { GW_LOG_ERROR, GW_LOG_WARN, GW_LOG_NOTICE, GW_LOG_DEBUG };

struct gw_log {
    void (*write)(void *ctx, enum gw_log_level level, struct gw_str line); /* NULL: silence */
    void *ctx;
    enum gw_log_level level; /* lines above it are not formatted */
};

/* Control bytes in the result become '?', so a line stays a line. At most 1,024 bytes. */
void gw_log_write(const struct gw_log *log, enum gw_log_level level, const char *fmt, ...)
    GW_PRINTF(3, 4);

#endif
