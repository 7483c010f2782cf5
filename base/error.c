/* SPDX-License-Identifier: Apache-2.0 */
/* base/error.c - the status and its one line: control bytes become '?', a cut never splits a UTF-8
 * character. */
#include "base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The last character may have lost its tail when vsnprintf cut it. */
static void drop_split_character(char *text, size_t n)
{
    size_t i = n, tail = 0;
    unsigned char lead;

    while (i > 0 && tail < 3 && ((unsigned char)text[i - 1] & 0xc0) == 0x80) {
        i--;
        tail++;
    }
    if (i == 0) {
        return;
    }
    lead = (unsigned char)text[i - 1];
    if ((lead >= 0xf0 && tail < 3) || (lead >= 0xe0 && tail < 2) || (lead >= 0xc0 && tail < 1)) {
        text[i - 1] = '\0';
    }
}

static void GW_PRINTF(3, 0) put_text(char *text, size_t cap, const char *fmt, va_list args)
{
    int n = vsnprintf(text, cap, fmt, args);

    if (n < 0) {
        text[0] = '\0';
    } else if ((size_t)n >= cap) {
        drop_split_character(text, cap - 1);
    }
    for (char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
}

int gw_fail(struct gw_error *err, enum gw_status s, int sys, const char *fmt, ...)
{
    /* not in place: an argument may be err->text itself */
    char text[sizeof(err->text)];
    va_list args;

    if (err == NULL) {
        return s;
    }
    va_start(args, fmt);
    put_text(text, sizeof(text), fmt, args);
    va_end(args);

    err->status = s;
    err->sys = sys;
    memcpy(err->text, text, sizeof(text));
    return s;
}

int gw_fail_prefix(struct gw_error *err, const char *fmt, ...)
{
    char prefix[sizeof(err->text)];
    va_list args;

    if (err == NULL) {
        return GW_IO;
    }
    va_start(args, fmt);
    put_text(prefix, sizeof(prefix), fmt, args);
    va_end(args);
    return gw_fail(err, err->status, err->sys, "%s: %s", prefix, err->text);
}

const char *gw_status_name(enum gw_status s)
{
    switch (s) {
    case GW_OK:
        return "GW_OK";
    case GW_AGAIN:
        return "GW_AGAIN";
    case GW_NOT_FOUND:
        return "GW_NOT_FOUND";
    case GW_UNAUTHENTICATED:
        return "GW_UNAUTHENTICATED";
    case GW_FORBIDDEN:
        return "GW_FORBIDDEN";
    case GW_INVALID:
        return "GW_INVALID";
    case GW_TOO_LARGE:
        return "GW_TOO_LARGE";
    case GW_CONFLICT:
        return "GW_CONFLICT";
    case GW_CORRUPT:
        return "GW_CORRUPT";
    case GW_UNAVAILABLE:
        return "GW_UNAVAILABLE";
    case GW_TIMEOUT:
        return "GW_TIMEOUT";
    case GW_CANCELLED:
        return "GW_CANCELLED";
    case GW_NO_MEMORY:
        return "GW_NO_MEMORY";
    case GW_IO:
        return "GW_IO";
    }
    return "unknown status";
}
