/* SPDX-License-Identifier: Apache-2.0 */
/* base/clock.c - reading the clocks, and the text forms of dates, durations and sizes. */
#include "base/clock.h"

#include <time.h>

#define DAY_MS (INT64_C(86400) * 1000)
#define DURATION_MAX_MS (100 * 365 * DAY_MS)

static int64_t read_clock(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t gw_wall_ms(void)
{
    return read_clock(CLOCK_REALTIME) / 1000;
}

int64_t gw_mono_ms(void)
{
    return read_clock(CLOCK_MONOTONIC) / 1000;
}

int64_t gw_mono_us(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March, so the leap day
 * is the last one. */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month > 2 ? year : year - 1, era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void civil_from_days(int64_t days, int *year, unsigned *month, unsigned *day)
{
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), m = (5 * doy + 2) / 153;

    *day = (unsigned)(doy - (153 * m + 2) / 5 + 1);
    *month = (unsigned)(m < 10 ? m + 3 : m - 9);
    *year = (int)(yoe + era * 400 + (*month <= 2));
}

/* Once for each audit record, so without printf. */
static void put_digits(char *out, size_t n, unsigned v)
{
    while (n-- > 0) {
        out[n] = (char)('0' + v % 10);
        v /= 10;
    }
}

void gw_iso_format(char out[GW_ISO_LEN + 1], int64_t wall_ms)
{
    const int64_t first = days_from_civil(0, 1, 1) * DAY_MS;
    const int64_t last = days_from_civil(10000, 1, 1) * DAY_MS - 1;
    int64_t days, ms;
    unsigned month, day;
    int year;

    wall_ms = wall_ms < first ? first : wall_ms > last ? last : wall_ms;
    days = wall_ms / DAY_MS;
    ms = wall_ms % DAY_MS;
    if (ms < 0) {
        ms += DAY_MS;
        days--;
    }
    civil_from_days(days, &year, &month, &day);
    memcpy(out, "YYYY-MM-DDThh:mm:ss.mmmZ", GW_ISO_LEN + 1);
    put_digits(out, 4, (unsigned)year);
    put_digits(out + 5, 2, month);
    put_digits(out + 8, 2, day);
    put_digits(out + 11, 2, (unsigned)(ms / 3600000));
    put_digits(out + 14, 2, (unsigned)(ms / 60000 % 60));
    put_digits(out + 17, 2, (unsigned)(ms / 1000 % 60));
    put_digits(out + 20, 3, (unsigned)(ms % 1000));
}

/* n digits at the front of s, taken off. */
static bool take_digits(struct gw_str *s, size_t n, unsigned *out)
{
    uint64_t v;

    if (s->n < n || !gw_str_u64(gw_str_sub(*s, 0, n), &v)) {
        return false;
    }
    *out = (unsigned)v;
    *s = gw_str_sub(*s, n, s->n);
    return true;
}

static bool take_char(struct gw_str *s, char c)
{
    if (s->n == 0 || s->p[0] != c) {
        return false;
    }
    *s = gw_str_sub(*s, 1, s->n);
    return true;
}

/* ".5" is 500: up to nine digits, what is finer than a millisecond is cut. */
static bool take_fraction(struct gw_str *s, unsigned *ms)
{
    size_t n = 0;

    *ms = 0;
    if (!take_char(s, '.')) {
        return true;
    }
    while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9') {
        n++;
    }
    if (n == 0 || n > 9) {
        return false;
    }
    for (size_t i = 0; i < 3; i++) {
        *ms = *ms * 10 + (i < n ? (unsigned)(s->p[i] - '0') : 0);
    }
    *s = gw_str_sub(*s, n, s->n);
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) {
        return 29;
    }
    return days[month - 1];
}

bool gw_iso_parse(struct gw_str s, int64_t *wall_ms)
{
    unsigned year, month, day, hour, minute, second, ms;

    if (!take_digits(&s, 4, &year) || !take_char(&s, '-') || !take_digits(&s, 2, &month) ||
        !take_char(&s, '-') || !take_digits(&s, 2, &day) || !take_char(&s, 'T') ||
        !take_digits(&s, 2, &hour) || !take_char(&s, ':') || !take_digits(&s, 2, &minute) ||
        !take_char(&s, ':') || !take_digits(&s, 2, &second) || !take_fraction(&s, &ms) ||
        !take_char(&s, 'Z') || s.n != 0) {
        return false;
    }
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 ||
        minute > 59 || second > 59) {
        return false;
    }
    *wall_ms = days_from_civil(year, month, day) * DAY_MS +
               ((int64_t)hour * 3600 + minute * 60 + second) * 1000 + ms;
    return true;
}

/* Splits "15m" into 15 and "m". */
static bool take_number(struct gw_str *s, uint64_t *v)
{
    size_t n = 0;

    while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9') {
        n++;
    }
    if (!gw_str_u64(gw_str_sub(*s, 0, n), v)) {
        return false;
    }
    *s = gw_str_sub(*s, n, s->n);
    return true;
}

bool gw_duration_parse(struct gw_str s, int64_t *ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {
        {"", 1000},       {"ms", 1},          {"s", 1000},
        {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 86400 * 1000},
    };
    uint64_t v;

    if (!take_number(&s, &v)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (gw_str_eq_c(s, units[i].unit)) {
            if (v > (uint64_t)DURATION_MAX_MS / units[i].ms) {
                return false;
            }
            *ms = (int64_t)(v * units[i].ms);
            return true;
        }
    }
    return false;
}

bool gw_bytes_parse(struct gw_str s, uint64_t *bytes)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 0},     {"k", 10},   {"m", 20},  {"g", 30},  {"t", 40},
                 {"ki", 10},  {"mi", 20},  {"gi", 30}, {"ti", 40}, {"kib", 10},
                 {"mib", 20}, {"gib", 30}, {"tib", 40}};
    uint64_t v;

    if (!take_number(&s, &v)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (gw_str_ieq_c(s, units[i].unit)) {
            if (v > UINT64_MAX >> units[i].shift) {
                return false;
            }
            *bytes = v << units[i].shift;
            return true;
        }
    }
    return false;
}
