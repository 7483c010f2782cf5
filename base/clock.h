/* SPDX-License-Identifier: Apache-2.0 */
/* base/clock.h - two clocks. Unix time for what is stored or shown, monotonic time for deadlines.
 * Any thread. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

int64_t gw_wall_ms(void); /* Unix time in ms */
int64_t gw_mono_ms(void); /* CLOCK_MONOTONIC in ms: deadlines */
int64_t gw_mono_us(void); /* the same clock in microseconds: how long something took */

/* "2026-11-25T01:02:03.456Z": exactly three digits and Z, the only form every hub client parses
 * (hub-read: dates). */
#define GW_ISO_LEN 24
void gw_iso_format(char out[GW_ISO_LEN + 1], int64_t wall_ms);
/* 0 to 9 fraction digits (cut to ms), final Z. No leap second, no other zone. */
bool gw_iso_parse(struct gw_str s, int64_t *wall_ms);

/* "90s", "15m", "12h", "30d", "500ms", plain digits = seconds. Up to 100 years. */
bool gw_duration_parse(struct gw_str s, int64_t *ms);
/* "1024", "64k", "100M", "20Gi", "2TiB" (powers of 1024). Not "2TB", which others read as 10^12. */
bool gw_bytes_parse(struct gw_str s, uint64_t *bytes);

#endif
