/* SPDX-License-Identifier: Apache-2.0 */
/* output.c - what commands print for people: sizes, bars, text that may hold anything. */
#include "gateway/cli/cli.h"

#include <unistd.h>

#include "base/json.h"

#define BAR 30

const char *cli_size(char out[32], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double n = (double)bytes;
    size_t i = 0;

    while (n >= 1024 && i < 5) {
        n /= 1024;
        i++;
    }
    snprintf(out, 32, i ? "%.1f %s" : "%.0f %s", n, units[i]);
    return out;
}

void cli_bar(struct cli_bar *bar, uint64_t done, uint64_t total, struct gw_str what)
{
    static const char full[] = "##############################",
                      empty[] = "------------------------------";
    int64_t now = gw_mono_ms();
    double share = total && done < total ? (double)done / (double)total : 1;
    char a[32], b[32];

    if (!isatty(STDERR_FILENO) || (done < total && now - bar->shown_ms < 100))
        return;
    bar->shown_ms = now;
    bar->drawn = true;
    fprintf(stderr, "\r[%.*s%.*s] %3d%%  %s of %s  ", (int)(share * BAR), full,
            BAR - (int)(share * BAR), empty, (int)(share * 100), cli_size(a, done),
            cli_size(b, total));
    cli_put_text(stderr, gw_str_sub(what, 0, 40), false);
    fputs("\x1b[K", stderr);
}

void cli_bar_end(struct cli_bar *bar)
{
    if (bar->drawn)
        fputc('\n', stderr);
    bar->drawn = false;
}

void cli_put_text(FILE *to, struct gw_str text, bool json)
{
    struct gw_buf out;

    if (!json) {
        for (size_t i = 0; i < text.n; i++)
            fputc((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f ? '?' : text.p[i], to);
        return;
    }
    gw_buf_init(&out, 1u << 20);
    gw_json_put_string(&out, text);
    if (!out.failed)
        fwrite(out.p, 1, out.n, to);
    gw_buf_release(&out);
}
