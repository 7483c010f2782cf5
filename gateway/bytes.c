/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.c - what of a file's answer may be sent now. Bytes of a fill have to be there first
 * (cache_reader_want); all have to be in memory, since sendfile(2) on the loop would wait for the
 * disk: a window that is not is brought by a job, and the request is parked behind it as behind any
 * other want.
 */
#include "gateway/internal.h"

#include <stdio.h>

/* Pages that were seen in memory are believed to stay so long: under pressure the kernel takes the
 * least recently used, and these were just asked for. */
#define WARM_MS 250
#define SOURCES_MAX 4u /* repositories that one request sees refused */

static int file_fd(const struct gateway_state *st)
{
    return st->reader != NULL ? cache_reader_fd(st->reader) : st->fd;
}

static int warm(struct gateway_state *st, uint64_t offset, uint64_t end)
{
    st->warm_first = offset;
    st->warm_end = end;
    st->warm_until_ms = gw_mono_ms() + WARM_MS;
    return GW_OK;
}

/* What the job for this window said, if there was one. GW_AGAIN: it is to be asked (again). */
static int brought(struct gateway_state *st, struct gw_str key, struct gw_error *err)
{
    const struct gateway_result *r = wants_result(st, key);
    int rc = r != NULL ? r->status : GW_AGAIN;

    if (rc == GW_TIMEOUT || rc == GW_NO_MEMORY)
        return GW_AGAIN; /* its turn did not come: the client has time */
    if (rc == GW_NOT_FOUND || rc == GW_CANCELLED)
        return GW_OK; /* evicted meanwhile, the open file is all that is left; or the process ends
                       */
    if (rc != GW_OK && r != NULL && err != NULL)
        *err = r->err;
    return rc;
}

int gateway_file_warm(struct gateway *gw, struct gateway_request *req, uint64_t offset,
                      uint64_t end, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    struct gw_want want = {.peer = GW_PEER_READ, .arg = GW_STR("")};
    uint64_t ahead = end == st->file_end ? end : offset + CACHE_LOOK;
    bool waited = st->parked;
    char key[128];
    int rc;

    if (ahead > st->file_end)
        ahead = st->file_end;
    metrics_parked(gw, st, false);
    if (offset >= st->warm_first && end <= st->warm_end && gw_mono_ms() < st->warm_until_ms)
        return GW_OK;
    if (ahead > end && cache_in_memory(file_fd(st), offset, ahead - offset))
        return warm(st, offset, ahead);
    if (ahead > end && cache_in_memory(file_fd(st), offset, ahead - offset))
        return warm(st, offset, ahead);
    if (cache_in_memory(file_fd(st), offset, end - offset))
        return warm(st, offset, end);
    snprintf(key, sizeof(key), "bring\n" GW_STR_FMT "\n%llu", GW_STR_ARG(st->digest),
             (unsigned long long)(offset / CACHE_WINDOW));
    want.key = gw_str_c(key);
    rc = brought(st, want.key, err);
    st->n_results = 0; /* of the last window; there may be thousands */
    if (rc == GW_OK)
        return warm(st, offset, end);
    if (rc != GW_AGAIN)
        return rc;
    if (st->sending)
        gw_arena_rewind(&st->arena, st->sent_from);
    else
        st->sent_from = gw_arena_mark(&st->arena);
    st->sending = true;
    st->deadline_ms = gw_mono_ms() + gw->config->limits.wait_ms;
    if (wants_park(gw, req, &want) != GW_AGAIN)
        return GW_OK; /* no memory for a job: the loop waits for the disk this once */
    metrics_add(&gw->counters->cold_reads, !waited);
    metrics_parked(gw, st, true);
    return GW_AGAIN;
}

/* Everything that nginx will cut out of the file, window by window. */
static int warm_pieces(struct gateway *gw, struct gateway_request *req, struct gw_error *err)
{
    struct range_piece pieces[RANGES_MAX];
    size_t n = range_pieces(req->range, req->state->file_end, pieces);
    int rc = GW_OK;

    for (size_t i = 0; rc == GW_OK && i < n; i++)
        for (uint64_t at = pieces[i].first, next; rc == GW_OK && at < pieces[i].end; at = next) {
            next = (at / CACHE_WINDOW + 1) * CACHE_WINDOW;
            next = next < pieces[i].end ? next : pieces[i].end;
            rc = gateway_file_warm(gw, req, at, next, err);
        }
    return rc;
}

int gateway_file_want(struct gateway *gw, struct gateway_request *req, uint64_t offset,
                      uint64_t *avail, int *fd, struct gw_error *err)
{
    struct gateway_state *st = req->state;
    uint64_t window = CACHE_WINDOW - offset % CACHE_WINDOW;
    int rc = GW_OK;

    *fd = file_fd(st);
    *avail = st->file_end - offset;
    if (st->reader != NULL) {
        rc = cache_reader_want(st->reader, offset, st->file_end, offset - st->file_first, avail,
                               err);
        metrics_gauge(&gw->counters->readers_waiting, &st->waiting, rc == GW_OK && *avail == 0);
    }
    if (rc != GW_OK || *avail == 0)
        return rc;
    if (st->several) {
        rc = warm_pieces(gw, req, err);
    } else {
        if (*avail > window)
            *avail = window;
        rc = gateway_file_warm(gw, req, offset, offset + *avail, err);
    }
    if (rc == GW_AGAIN) {
        *avail = 0;
        return GW_OK;
    }
    if (rc == GW_OK)
        metrics_first_byte(st);
    return rc;
}

bool gateway_file_again(struct gateway *gw, struct gateway_request *req, const struct gw_error *err)
{
    struct gateway_state *st = req->state;

    if (err->status == GW_CORRUPT && !st->again)
        st->again = true;
    else if (st->reader == NULL || !cache_reader_other_failed(st->reader) ||
             st->n_sources++ == SOURCES_MAX)
        return false;
    cache_reader_close(st->reader);
    st->reader = NULL;
    metrics_add(&gw->counters->readers, UINT64_MAX);
    metrics_gauge(&gw->counters->readers_waiting, &st->waiting, false);
    st->sending = false;
    st->n_results = 0; /* that of the first part is no answer to the second want */
    st->deadline_ms = gw_mono_ms() + gw->config->limits.wait_ms;
    return true;
}

void gateway_file_refuse(struct gateway *gw, struct gateway_request *req,
                         struct gateway_answer *ans, const struct gw_error *err)
{
    answer_failure(gw, req, ans, err);
    answer_common(gw, req, ans);
    req->state->status = ans->status;
}

int job_bring(struct gateway_job *job)
{
    uint64_t window;

    if (job->n_fields != 3 || !gw_str_u64(job->fields[2], &window) ||
        window > INT64_MAX / CACHE_WINDOW - 1)
        return gw_fail(&job->result.err, GW_INVALID, 0, "no such window of a file");
    return cache_bring(job->gw->cache, job->fields[1], window * CACHE_WINDOW, &job->result.err);
}
