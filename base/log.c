/* SPDX-License-Identifier: Apache-2.0 */
/* base/log.c - formats one line and hands it to the sink. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void gw_log_write(const struct gw_log *log, enum gw_log_level level, const char *fmt, ...)
{
    char line[1024 + 1];
    va_list args;
    size_t n;
    int len;

    if (log == NULL || log->write == NULL || level > log->level) {
        return;
    }
    va_start(args, fmt);
    len = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (len < 0) {
        return;
    }
    n = (size_t)len < sizeof(line) ? (size_t)len : sizeof(line) - 1;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    log->write(log->ctx, level, (struct gw_str){line, n});
}
