/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.c - one JSON line per request, collected on the loop and written in chunks by a job. The
 * file is opened for each chunk, so any rotation works. Never a secret: a token is its public id.
 */
#include "gateway/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define AUDIT_CHUNK (64u << 10)
#define AUDIT_AGE_MS 1000
#define AUDIT_LINE_MAX (16u << 10) /* every text in it has its own ceiling */

static void put_text(struct gw_buf *out, const char *key, struct gw_str value, size_t max)
{
    gw_json_put_key(out, key);
    gw_json_put_string(out, gw_str_sub(value, 0, max));
}

static void put_number(struct gw_buf *out, const char *key, long long value)
{
    gw_json_put_key(out, key);
    gw_buf_add_i64(out, value);
}

static void put_subject(struct gw_buf *out, const struct gateway_state *st)
{
    static const char *const kinds[] = {"anonymous", "user", "service"};
    const struct gateway_identity *who = &st->who;
    const char *kind = st->node ? "node" : kinds[who->subject.kind];

    gw_json_put_key(out, "subject");
    gw_buf_add_char(out, '{');
    put_text(out, "kind", gw_str_c(kind), 16);
    if (who->subject.kind != POLICY_ANONYMOUS) {
        put_text(out, "id", who->subject_id, 128);
        put_text(out, "name", who->subject.name, 128);
        put_text(out, "realm", who->realm, 64);
        put_number(out, "groups", (long long)who->subject.n_groups);
    }
    if (who->token_id[0])
        put_text(out, "token", gw_str_c(who->token_id), 16);
    gw_buf_add_char(out, '}');
}

/* What is behind such an address lets whoever has it do it again. */
static bool is_credential(enum hub_route r)
{
    return r == HUB_OBJECT || r == HUB_OBJECT_GET || r == HUB_OBJECT_VERIFY ||
           r == HUB_OBJECT_PART || r == HUB_OBJECT_COMPLETE;
}

static void put_resource(struct gw_buf *out, const struct gateway_state *st)
{
    const struct policy_object *o = &st->object;

    if (!st->decided && !st->node)
        return;
    gw_json_put_key(out, "resource");
    gw_buf_add_char(out, '{');
    if (st->node) { /* asked for by digest, whatever files it is */
        put_text(out, "digest", st->digest, 64);
        gw_buf_add_char(out, '}');
        return;
    }
    put_text(out, "hub", st->private_repo ? GW_STR("private") : GW_STR("public"), 16);
    put_text(out, "type", o->type, 16);
    if (!gw_str_eq_c(o->ns, "_"))
        put_text(out, "namespace", o->ns, 96);
    put_text(out, "name", o->name, 96);
    put_text(out, "revision", o->revision, HUB_REVISION_MAX);
    if (o->commit.n)
        put_text(out, "commit", o->commit, 40);
    if (st->target.path.n && !is_credential(st->target.route))
        put_text(out, "path", st->target.path, 1024);
    else if (o->path.n) /* of a write, the file that was refused */
        put_text(out, "path", o->path, 1024);
    if (st->digest.n)
        put_text(out, "digest", st->digest, 64);
    gw_buf_add_char(out, '}');
}

static void put_policy(struct gw_buf *out, const struct gateway_state *st)
{
    if (!st->decided)
        return;
    gw_json_put_key(out, "policy");
    gw_buf_add_char(out, '{');
    put_text(out, "result", st->allowed ? GW_STR("allow") : GW_STR("deny"), 8);
    put_text(out, "rule", policy_rule_id(st->rule), 128);
    gw_buf_add_char(out, '}');
}

static void reset_lines(struct gateway *gw)
{
    gw_buf_reset(&gw->audit.lines);
    gw->audit.n_lines = 0;
}

static void lost(struct gateway *gw, uint64_t lines)
{
    gw->audit.dropped += lines;
    metrics_add(&gw->counters->audit_dropped, lines);
}

void audit_record(struct gateway *gw, const struct gateway_request *req, int status,
                  uint64_t bytes_sent, bool complete)
{
    static const char *const came[] = {"hit", "stale", "miss", "fill"};
    const struct gateway_state *st = req->state;
    struct gw_buf *out = &gw->audit.lines;
    char iso[GW_ISO_LEN + 1];

    if (gw->config->audit_file == NULL || gw->command)
        return;
    if (out->n + AUDIT_LINE_MAX > out->max) { /* the sink is stuck and the buffer full */
        lost(gw, 1);
        return;
    }
    gw_iso_format(iso, st->started_ms);
    gw_buf_add_c(out, "{\"v\":1");
    put_text(out, "time", gw_str_c(iso), GW_ISO_LEN);
    put_text(out, "request", req->id, 64);
    put_text(out, "event",
             gw_str_c(st->parse_status == GW_OK ? hub_route_name(st->target.route) : "unknown"),
             32);
    put_text(out, "method", req->method, 16);
    put_number(out, "status", status);
    if (st->why != NULL)
        put_text(out, "refused", gw_str_c(st->why), 32);
    put_subject(out, st);
    put_resource(out, st);
    put_policy(out, st);
    put_number(out, "bytes", (long long)bytes_sent);
    gw_json_put_key(out, "complete");
    gw_buf_add_c(out, complete ? "true" : "false");
    put_text(out, "cache", gw_str_c(came[st->came]), 8);
    put_text(out, "ip", req->peer_ip, 64);
    put_text(out, "agent", req->user_agent, 256);
    put_number(out, "ms", (long long)((gw_mono_us() - st->started_us) / 1000));
    if (gw->audit.dropped)
        put_number(out, "dropped_before", (long long)gw->audit.dropped);
    gw_buf_add_c(out, "}\n");
    if (out->failed) { /* no memory: what is in the buffer is not whole any more */
        lost(gw, gw->audit.n_lines + 1);
        reset_lines(gw);
        return;
    }
    gw->audit.dropped = 0;
    if (gw->audit.n_lines++ == 0)
        gw->audit.oldest_ms = gw_mono_ms();
    if (out->n >= AUDIT_CHUNK)
        audit_tick(gw, false);
}

static int append(const char *path, struct gw_str lines, struct gw_error *err)
{
    int rc, fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);

    if (fd < 0)
        return gw_fail(err, GW_IO, errno, "%s: %s", path, strerror(errno));
    rc = gw_write_all(fd, lines.p, lines.n, err);
    if (close(fd) != 0 && rc == GW_OK)
        rc = gw_fail(err, GW_IO, errno, "%s: %s", path, strerror(errno));
    return rc;
}

int job_audit(struct gateway_job *job)
{
    return append(job->gw->config->audit_file, job->arg, &job->result.err);
}

static bool is_audit(const struct gateway_job *job)
{
    return gw_str_eq_c(job->key, "audit");
}

static bool under_way(const struct gateway *gw)
{
    const struct gateway_job *job = gw->lanes[GW_PEER_DISK].jobs;

    while (job != NULL && !is_audit(job))
        job = job->next;
    return job != NULL;
}

void audit_done(struct gateway *gw, const struct gateway_job *job)
{
    if (!is_audit(job) || job->result.status == GW_OK)
        return;
    for (size_t i = 0; i < job->arg.n; i++)
        lost(gw, job->arg.p[i] == '\n');
}

void audit_unwritten(struct gateway *gw, const struct gateway_job *job)
{
    struct gw_error err;

    if (is_audit(job) && append(gw->config->audit_file, job->arg, &err) != GW_OK)
        gw_log_write(&gw->log, GW_LOG_ERROR, "audit: %s", err.text);
}

void audit_tick(struct gateway *gw, bool now)
{
    struct gw_buf *lines = &gw->audit.lines;
    struct gw_want want = {.peer = GW_PEER_DISK, .key = GW_STR("audit"), .arg = gw_buf_str(lines)};
    struct gw_error err;

    if (lines->n == 0 || gw->config->audit_file == NULL)
        return;
    if (now) {
        if (append(gw->config->audit_file, want.arg, &err) != GW_OK)
            gw_log_write(&gw->log, GW_LOG_ERROR, "audit: %s", err.text);
        reset_lines(gw);
        return;
    }
    if (lines->n < AUDIT_CHUNK && gw_mono_ms() - gw->audit.oldest_ms < AUDIT_AGE_MS)
        return;
    if (under_way(gw))
        return; /* one at a time: lines keep their order */
    wants_background(gw, &want);
    if (under_way(gw)) /* else no memory for it: the next tick tries again */
        reset_lines(gw);
}
