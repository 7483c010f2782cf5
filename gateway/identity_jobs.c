/* SPDX-License-Identifier: Apache-2.0 */
/*
 * identity_jobs.c - token and subject files under data/, logins, minting: jobs and the command.
 * Files are the truth; an index entry is what was last read of one. Revoking writes the file, then
 * the entry, then answers.
 */
#include "gateway/internal.h"
#include "gateway/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_FILE_MAX (64u << 10)
#define USERS_FILE_MAX (1u << 20)

static struct gw_str mac_key(const struct gateway *gw)
{
    return (struct gw_str){gw->key, sizeof(gw->key)};
}

/* ---- data/: folders and the key ---- */

int data_open(const char *data_dir, char key[32], struct gw_error *err)
{
    static const char *const folders[] = {"tokens", "subjects", "tmp", "lfs", "repos"};
    struct gw_arena a;
    struct gw_str path, text = GW_STR("");
    int rc = repo_data_open(data_dir, err);

    gw_arena_init(&a, 64u << 10);
    gw_arena_keep_secret(&a);
    for (size_t i = 0; rc == GW_OK && i < sizeof(folders) / sizeof(folders[0]); i++) {
        path = gw_arena_printf(&a, "%s/%s", data_dir, folders[i]);
        rc = path.p ? gw_dir_make(path.p, 0700, err) : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    path = gw_arena_printf(&a, "%s/key", data_dir);
    if (rc == GW_OK && path.p == NULL)
        rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    for (int tries = 0; rc == GW_OK && tries < 2; tries++) {
        char fresh[32];
        rc = gw_file_read(path.p, 64, &a, &text, err);
        if (rc == GW_OK && text.n != 32)
            rc = gw_fail(err, GW_CORRUPT, 0,
                         "%s: 32 bytes are expected; tokens cannot be trusted without it", path.p);
        if (rc != GW_NOT_FOUND)
            break;
        if (!gw_random(fresh, sizeof(fresh))) {
            rc = gw_fail(err, GW_IO, 0, "no randomness for %s", path.p);
            break;
        }
        rc = gw_file_create(data_dir, "key", (struct gw_str){fresh, sizeof(fresh)}, 0600, err);
        gw_wipe(fresh, sizeof(fresh));
        if (rc == GW_CONFLICT) /* another process made it just now */
            rc = GW_OK;
    }
    if (rc == GW_OK && text.n != 32)
        rc = gw_fail(err, GW_IO, 0, "%s: it went away while it was read", path.p);
    if (rc == GW_OK)
        memcpy(key, text.p, 32);
    gw_arena_release(&a);
    return rc;
}

/* ---- files and entries ---- */

static int read_record(struct gateway *gw, const char *folder, struct gw_str id, struct gw_arena *a,
                       struct gw_str *line, struct gw_error *err)
{
    struct gw_str path =
        gw_arena_printf(a, "%s/%s/" GW_STR_FMT ".json", gw->config->data, folder, GW_STR_ARG(id));

    if (path.p == NULL)
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    return gw_file_read(path.p, RECORD_FILE_MAX, a, line, err);
}

int identity_load_token(struct gateway *gw, struct gw_str id, struct auth_token *out,
                        struct gw_arena *a, struct gw_error *err)
{
    struct gw_str line;
    int rc = read_record(gw, "tokens", id, a, &line, err);

    return rc == GW_OK ? auth_token_parse(out, line, id, mac_key(gw), a, err) : rc;
}

int identity_load_subject(struct gateway *gw, struct gw_str id, struct auth_subject *out,
                          struct gw_arena *a, struct gw_error *err)
{
    struct gw_str line;
    int rc = read_record(gw, "subjects", id, a, &line, err);

    return rc == GW_OK ? auth_subject_parse(out, line, id, mac_key(gw), a, err) : rc;
}

static int put_entry(struct gateway *gw, enum cache_kind kind, struct gw_str id,
                     enum gw_status status, struct gw_str value, struct gw_error *err)
{
    struct cache_put put = {
        .kind = kind,
        .name = id,
        .record = {.status = status, .checked_ms = gw_wall_ms(), .value = value},
    };

    return cache_put(gw->cache, &put, 1, err);
}

/* An index that cannot keep an entry (its disk is full, or cannot be written) must not lock people
 * out: data/ is the truth, and who waits for the job gets the entry from it. */
static int put_or_hand(struct gateway_job *job, enum cache_kind kind, struct gw_str id,
                       struct gw_str value)
{
    int rc = put_entry(job->gw, kind, id, GW_OK, value, &job->result.err);

    if (rc != GW_IO)
        return rc;
    job->result.text = gw_arena_dup(&job->arena, value);
    return job->result.text.p ? GW_OK : gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
}

/* job NULL: the index must have it. */
static int put_token_entry(struct gateway *gw, struct gateway_job *job, const struct auth_token *t,
                           struct gw_error *err)
{
    struct gw_buf value;
    int rc;

    gw_buf_init(&value, RECORD_FILE_MAX);
    record_token_encode(&value, t);
    rc = gw_buf_ok(&value, err);
    if (rc == GW_OK)
        rc = job ? put_or_hand(job, CACHE_TOKEN, gw_str_c(t->id), gw_buf_str(&value))
                 : put_entry(gw, CACHE_TOKEN, gw_str_c(t->id), GW_OK, gw_buf_str(&value), err);
    gw_buf_wipe(&value);
    return rc;
}

static int put_subject_entry(struct gateway *gw, struct gateway_job *job,
                             const struct auth_subject *s, struct gw_error *err)
{
    struct gw_buf value;
    int rc;

    gw_buf_init(&value, 1u << 20);
    record_subject_encode(&value, s);
    rc = gw_buf_ok(&value, err);
    if (rc == GW_OK)
        rc = job ? put_or_hand(job, CACHE_SUBJECT, s->id, gw_buf_str(&value))
                 : put_entry(gw, CACHE_SUBJECT, s->id, GW_OK, gw_buf_str(&value), err);
    gw_buf_release(&value);
    return rc;
}

static int put_file(struct gateway *gw, const char *folder, struct gw_str id,
                    const struct gw_buf *line, struct gw_error *err)
{
    char dir[4096], name[160];
    int rc = gw_buf_ok(line, err);

    if (rc != GW_OK)
        return rc;
    snprintf(dir, sizeof(dir), "%s/%s", gw->config->data, folder);
    snprintf(name, sizeof(name), GW_STR_FMT ".json", GW_STR_ARG(id));
    return gw_file_replace(dir, name, gw_buf_str(line), 0600, err);
}

static int put_token(struct gateway *gw, struct gateway_job *job, const struct auth_token *t,
                     struct gw_error *err)
{
    struct gw_buf line;
    int rc;

    gw_buf_init(&line, RECORD_FILE_MAX);
    auth_token_format(&line, t, mac_key(gw));
    rc = put_file(gw, "tokens", gw_str_c(t->id), &line, err);
    if (rc == GW_OK)
        rc = put_token_entry(gw, job, t, err);
    gw_buf_release(&line);
    return rc;
}

int identity_put_token(struct gateway *gw, const struct auth_token *t, struct gw_error *err)
{
    return put_token(gw, NULL, t, err);
}

static int put_subject(struct gateway *gw, struct gateway_job *job, const struct auth_subject *s,
                       struct gw_error *err)
{
    struct gw_buf line;
    int rc;

    gw_buf_init(&line, RECORD_FILE_MAX);
    auth_subject_format(&line, s, mac_key(gw));
    rc = put_file(gw, "subjects", s->id, &line, err);
    if (rc == GW_OK)
        rc = put_subject_entry(gw, job, s, err);
    gw_buf_release(&line);
    return rc;
}

int identity_put_subject(struct gateway *gw, const struct auth_subject *s, struct gw_error *err)
{
    return put_subject(gw, NULL, s, err);
}

int job_token(struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    struct cache_record old;
    struct auth_token t;
    int rc = identity_load_token(job->gw, job->fields[1], &t, &job->arena, err);

    if (rc == GW_OK)
        return put_token_entry(job->gw, job, &t, err);
    if (rc == GW_NOT_FOUND) {
        /* ids that nobody made leave no entry, or anybody could fill the index with them */
        if (cache_get(job->gw->cache, CACHE_TOKEN, job->fields[1], &job->arena, &old) == GW_OK)
            rc = cache_remove(job->gw->cache, CACHE_TOKEN, job->fields[1], err);
        return rc == GW_OK || rc == GW_NOT_FOUND || rc == GW_IO
                   ? gw_fail(err, GW_NOT_FOUND, 0, "no such token")
                   : rc;
    }
    if (rc == GW_CORRUPT ||
        rc == GW_INVALID) { /* refused, and said in the log: somebody has to look */
        gw_log_write(&job->gw->log, GW_LOG_ERROR, "token file " GW_STR_FMT ": %s",
                     GW_STR_ARG(job->fields[1]), err->text);
        return put_entry(job->gw, CACHE_TOKEN, job->fields[1], GW_NOT_FOUND, GW_STR(""), err);
    }
    return rc;
}

/* ---- people ---- */

int identity_users(struct gateway *gw, struct auth_users **out, struct gw_error *err)
{
    struct gw_arena a;
    struct gw_str text;
    int rc;

    *out = NULL;
    if (gw->config->users_file == NULL)
        return gw_fail(err, GW_NOT_FOUND, 0, "no users_file");
    gw_arena_init(&a, USERS_FILE_MAX + (64u << 10));
    gw_arena_keep_secret(&a);
    rc = gw_file_read_secret(gw->config->users_file, USERS_FILE_MAX, &a, &text, err);
    if (rc == GW_OK)
        rc = auth_users_parse(out, gw_str_c(gw->config->users_file), text, err);
    gw_arena_release(&a);
    return rc;
}

static const struct auth_ldap *directory_of(const struct gateway *gw, struct gw_str realm)
{
    for (size_t i = 0; i < gw->config->n_ldap; i++)
        if (gw_str_eq(gw->snapshot->ldap[i].name, realm))
            return &gw->snapshot->ldap[i];
    return NULL;
}

static struct gw_str address_of(void *ctx, struct gw_str host)
{
    static __thread char buf[64];
    struct gateway *gw = ctx;

    return cache_address_of(gw->cache, host, buf, sizeof(buf)) == GW_OK ? gw_str_c(buf)
                                                                        : GW_STR("");
}

/* A file that is away or broken for now makes nobody unknown and no password wrong: an outage. */
static int users_now(struct gateway *gw, struct auth_users **out, struct gw_error *err)
{
    int rc = identity_users(gw, out, err);

    if (rc == GW_OK || rc == GW_NO_MEMORY)
        return rc;
    gw_log_write(&gw->log, GW_LOG_ERROR, "account file: %s", err->text);
    return gw_fail(err, GW_IO, err->sys, "the account file cannot be read");
}

/* The person as the directory or the account file says now. */
static int read_person(struct gateway_job *job, const struct auth_subject *old,
                       struct auth_subject *now, struct auth_users **users)
{
    struct gateway *gw = job->gw;
    struct gw_error *err = &job->result.err;
    const struct auth_ldap *d;
    int rc;

    if (gw_str_eq_c(old->realm, "file")) {
        if (gw->config->users_file == NULL)
            return gw_fail(err, GW_NOT_FOUND, 0, "no users_file");
        rc = users_now(gw, users, err);
        return rc == GW_OK ? auth_users_find(*users, old->source_id, &job->arena, now, err) : rc;
    }
    d = directory_of(gw, old->realm);
    if (d == NULL)
        return gw_fail(err, GW_NOT_FOUND, 0, "directory " GW_STR_FMT " is not configured any more",
                       GW_STR_ARG(old->realm));
    return auth_ldap_refresh(d, old, address_of, gw, job->deadline_ms, &job->arena, now, err);
}

/* May somebody do less now, or more? Order does not matter to the directory, so it may not to us.
 */
static bool has_changed(const struct auth_subject *old, const struct auth_subject *now)
{
    bool same = old->state == now->state && old->n_groups == now->n_groups;

    for (size_t i = 0; same && i < old->n_groups; i++) {
        same = false;
        for (size_t k = 0; !same && k < now->n_groups; k++)
            same = gw_str_eq(old->groups[i], now->groups[k]);
    }
    return !same;
}

static int refresh_subject(struct gateway_job *job, const struct auth_subject *old)
{
    struct gateway *gw = job->gw;
    struct gw_error *err = &job->result.err;
    struct auth_users *users = NULL;
    struct auth_subject now;
    int rc = read_person(job, old, &now, &users);

    if (rc == GW_NOT_FOUND) { /* gone: refused from now on; comes back if the directory says so */
        now = *old;
        now.state = AUTH_SUSPENDED;
        rc = GW_OK;
    }
    if (rc == GW_OK) {
        now.checked_ms = gw_wall_ms();
        now.id = old->id;
        rc = put_subject(gw, job, &now, err);
    }
    if (rc == GW_OK && has_changed(old, &now)) {
        job->tell_kind = CACHE_SUBJECT;
        job->tell_id = old->id;
    }
    auth_users_free(users);
    return rc;
}

int job_subject(struct gateway_job *job)
{
    struct gateway *gw = job->gw;
    struct gw_error *err = &job->result.err;
    struct auth_subject s;
    int rc = identity_load_subject(gw, job->fields[1], &s, &job->arena, err);

    if (rc == GW_CORRUPT || rc == GW_INVALID)
        gw_log_write(&gw->log, GW_LOG_ERROR, "subject file " GW_STR_FMT ": %s",
                     GW_STR_ARG(job->fields[1]), err->text);
    if (rc == GW_NOT_FOUND || rc == GW_CORRUPT || rc == GW_INVALID)
        return put_entry(gw, CACHE_SUBJECT, job->fields[1], GW_NOT_FOUND, GW_STR(""), err);
    if (rc != GW_OK)
        return rc;
    if (job->n_fields > 2 && gw_str_eq_c(job->fields[2], "refresh") && !s.service)
        return refresh_subject(job, &s);
    return put_subject_entry(gw, job, &s, err);
}

/* Directories in order, then the account file; a person belongs to the first that knows the name,
 * so a wrong password there is final only for that one: the next is asked only by those whom the
 * first does not know. */
static int login(struct gateway_job *job, struct gw_str user, struct gw_str password,
                 struct auth_subject *out)
{
    struct gateway *gw = job->gw;
    struct gw_error *err = &job->result.err;
    struct auth_users *users = NULL;
    int rc = GW_UNAUTHENTICATED;

    gw_fail(err, GW_UNAUTHENTICATED, 0, "wrong user name or password");
    for (size_t i = 0; i < gw->config->n_ldap; i++) {
        rc = auth_ldap_login(&gw->snapshot->ldap[i], user, password, address_of, gw,
                             job->deadline_ms, &job->arena, out, err);
        if (rc != GW_UNAUTHENTICATED || err->sys != AUTH_NO_SUCH_USER)
            return rc == GW_OK ? put_subject(gw, job, out, err) : rc;
    }
    if (gw->config->users_file == NULL)
        return rc;
    rc = users_now(gw, &users, err);
    if (rc == GW_OK)
        rc = auth_users_login(users, user, password, &job->arena, out, err);
    if (rc == GW_OK)
        rc = put_subject(gw, job, out, err);
    auth_users_free(users);
    return rc;
}

int job_login(struct gateway_job *job)
{
    struct gw_str password = job->arg, user;
    struct auth_subject s;
    int rc;

    if (!gw_str_split(&password, '\n', &user))
        return gw_fail(&job->result.err, GW_INVALID, 0, "no password");
    memset(&s, 0, sizeof(s));
    rc = login(job, user, password, &s);
    if (rc == GW_OK) {
        job->result.text = gw_arena_dup(&job->arena, s.id);
        if (job->result.text.p == NULL)
            return gw_fail(&job->result.err, GW_NO_MEMORY, 0, "no memory");
    }
    return rc;
}

/* key: mint, number, subject id, name, role, expiry in ms */
int job_mint(struct gateway_job *job)
{
    struct gw_error *err = &job->result.err;
    char text[AUTH_TOKEN_LEN + 1];
    struct auth_token t;
    uint64_t expires;
    int rc;

    if (job->n_fields < 6 || !gw_str_u64(job->fields[5], &expires))
        return gw_fail(err, GW_INVALID, 0, "mint: fields");
    rc = auth_token_mint(text, &t, 'p', job->fields[2], job->fields[3],
                         gw_str_eq_c(job->fields[4], "write") ? AUTH_ROLE_WRITE : AUTH_ROLE_READ,
                         gw_wall_ms(), (int64_t)expires, err);
    if (rc == GW_OK)
        rc = put_token(job->gw, job, &t, err);
    if (rc == GW_OK) {
        job->result.text = gw_arena_dup(&job->arena, gw_str_c(text));
        if (job->result.text.p == NULL)
            rc = gw_fail(err, GW_NO_MEMORY, 0, "no memory");
    }
    gw_wipe(text, sizeof(text));
    return rc;
}
