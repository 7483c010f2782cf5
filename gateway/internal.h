/* SPDX-License-Identifier: Apache-2.0 */
/* gateway/internal.h - what the files of the corridor share. */
#ifndef GATEWAY_INTERNAL_H
#define GATEWAY_INTERNAL_H

#include "auth/auth.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/sha.h"
#include "base/version.h"
#include "cache/cache.h"
#include "config/config.h"
#include "gateway/flights.h"
#include "gateway/gateway.h"
#include "hub/hub.h"
#include "policy/policy.h"
#include "repo/repo.h"

#include <pthread.h>

#define GATEWAY_FIELDS_MAX 10u
#define GATEWAY_DOCUMENT_MAX (64u << 20) /* bytes of one document of upstream, as we keep it */
#define GATEWAY_RECORD_AGE_MS                                                                      \
    30000 /* token and subject entries are read from data/ again after this */
#define GATEWAY_PRIVATE_TTL_MS                                                                     \
    2000 /* refs of private repos likewise: another node may have moved them */
#define GATEWAY_NEGATIVE_TTL_MS 30000 /* at most: "no such repo" of upstream */
#define GATEWAY_UPSTREAM_MS 20000     /* one document or small blob */

struct gateway_snapshot {
    struct config *config;
    struct policy *policy;
    struct auth_ldap *ldap; /* config->n_ldap of them */
    struct gw_str upstream_token;
    struct cache_redis_server *redis; /* config->redis.servers.n of them */
    struct gw_str redis_password, cluster_key;
    struct gw_arena secrets;
};

/* Where an answer came from, best first; the worst step of a request counts. CAME_NOWHERE: nothing
 * of a repo (a refusal, whoami). */
enum gateway_came { CAME_HIT, CAME_STALE, CAME_MISS, CAME_FILL, CAME_NOWHERE, CAME_COUNT };

enum metrics_route {
    METRICS_FILE,
    METRICS_DOCUMENT,
    METRICS_IDENTITY,
    METRICS_OTHER,
    METRICS_UNKNOWN,
    METRICS_ROUTE_COUNT
};
#define METRICS_BUCKETS 16u /* of a histogram, the last one has no bound */
#define METRICS_STATUSES 6u /* 0: the client left before an answer; 1xx to 5xx */

/* What one worker slot counts, on its loop, so that workers do not write the same cache lines;
 * added up at a scrape (metrics.c). The first half only goes up, whoever has the slot. */
struct gateway_counters {
    _Atomic uint64_t requests[METRICS_ROUTE_COUNT][METRICS_STATUSES];
    _Atomic uint64_t answers[CAME_COUNT], bytes[CAME_COUNT];
    _Atomic uint64_t first_byte[CAME_COUNT][METRICS_BUCKETS], first_byte_us[CAME_COUNT];
    _Atomic uint64_t logins[2]; /* right, wrong */
    _Atomic uint64_t denies, audit_dropped, cold_reads;
    /* What is so now; counts while the slot has an owner. */
    _Atomic uint64_t parked, readers, readers_waiting;
    _Atomic uint64_t jobs_running[GW_PEER_COUNT], jobs_queued[GW_PEER_COUNT];
    uint8_t pad[64]; /* the neighbour's first line is another one */
};

/* Whether a peer is called at all (breaker.c): all workers of a node learn together. */
struct gateway_breaker {
    _Atomic int64_t open_until_ms;  /* monotonic; 0: closed */
    _Atomic int64_t probe_until_ms; /* monotonic: one job tries again until then at most */
    _Atomic int64_t said_ms;        /* monotonic: of the last log line; 0: none yet */
    _Atomic uint32_t failures;      /* in a row */
    _Atomic uint32_t told;          /* the log says that it fails, and not yet that it answers */
    _Atomic int32_t status, sys;    /* of the last failure */
    _Atomic uint64_t opened;        /* times: a counter */
};

/* snapshot.c; borrows from the snapshot */
struct cache_share_options gateway_share_options(const struct gateway_snapshot *s);

struct gateway_shared {
    uint32_t version;
    struct cache_shared cache;
    struct gateway_counters slots[CACHE_SLOTS];
    _Atomic int64_t listened_ms;  /* monotonic: one worker hears what other nodes tell */
    _Atomic int64_t catalogue_ms; /* monotonic: one worker looks whether a sweep is due */
    struct gateway_breaker breakers[GW_PEER_COUNT];
    struct flights flights;
};

/* ---- identity as the index holds it (identity.c) ---- */
struct gateway_identity {
    struct policy_subject subject; /* borrows from the arena of the request */
    struct gw_str subject_id, realm, display, email;
    char token_id[AUTH_TOKEN_ID_LEN + 1]; /* "": no token */
    struct gw_str token_name;
    enum policy_role role; /* POLICY_ROLE_NONE: no cut (a password, or nobody) */
    int64_t token_created_ms;
    bool stale; /* the directory is down: groups are the last known ones */
};

/* ---- jobs and their waiters (wants.c) ---- */
struct gateway_result {
    struct gw_str key;
    int status;
    struct gw_error err;
    struct gw_str text; /* what may only go to those who waited: a verdict's subject, a new token */
};

struct gateway_waiter {
    struct gateway_waiter *next, **link; /* link: NULL when not parked */
    struct gateway_request *req;
};

struct gateway_job {
    struct gateway *gw;
    struct gateway_job *next; /* in the list of its peer: under way or queued */
    enum gw_peer peer;
    struct gw_str key, arg;
    struct gw_str fields[GATEWAY_FIELDS_MAX]; /* key, split at '\n'; fields[0] is the verb */
    size_t n_fields;
    struct gw_arena arena; /* the job's; wiped */
    int64_t deadline_ms;
    bool running, again; /* again: its next step was asked for before its end was noticed */
    bool ran, skipped;   /* by gateway_job_run. skipped: its deadline was over before its turn */
    bool probe;          /* it tries whether the peer answers again */
    /* upstream's: one worker of the node calls. waits: for another one; over: that one has ended */
    struct flight flight;
    bool flying, waits, over;
    int64_t look_ms; /* monotonic: it looks whether that one lives */
    /* other nodes (nodes.c). ahead_of: of "ask": the job it asks for, which counts as running */
    struct gateway_job *ahead_of;
    bool asked;                     /* in this turn */
    uint64_t fence;                 /* of our lease; 0: none */
    int64_t renew_ms;               /* monotonic: it is renewed then */
    int64_t again_ms, alone_ms;     /* monotonic: another node calls. Not before; not longer than */
    struct cache_share_name *names; /* what it brought, for the others */
    size_t n_names, cap_names;
    bool too_many, give_blob;
    struct gw_str lease;       /* of "give" */
    enum cache_kind tell_kind; /* 0: nothing */
    struct gw_str tell_id;     /* a record of data/ that it changed */
    struct gateway_waiter *waiters;
    struct gateway_result result; /* over: GW_OK: look into the index again */
};

struct gateway_lane {         /* one per peer */
    struct gateway_job *jobs; /* running and queued, oldest first */
    size_t running, cap;
    int64_t quiet_until_ms; /* monotonic: nothing is begun in the background before */
};

struct gateway_audit {
    struct gw_buf lines; /* loop */
    size_t n_lines;      /* in it */
    int64_t oldest_ms;
    uint64_t dropped; /* lines; said in the next one */
};

/* What namespaces held when they were last measured (quota.c); for job threads. */
#define GATEWAY_QUOTAS 64u
struct gateway_quotas {
    pthread_mutex_t lock;
    struct gateway_quota {
        char ns[128];
        uint64_t bytes;
        int64_t until_ms; /* monotonic; 0: it says nothing */
    } rows[GATEWAY_QUOTAS];
};

#define GATEWAY_DOWNLOADS_MAX 1024u
struct gateway_downloads {                  /* loop: not written down yet (catalogue.c) */
    uint64_t visits[GATEWAY_DOWNLOADS_MAX]; /* who downloaded what */
    size_t n;
    struct gw_buf lines;
    int64_t oldest_ms;
    uint64_t serial;
};

struct gateway {
    const struct gateway_snapshot *snapshot;
    const struct config *config;
    const struct policy *policy;
    struct gateway_shared *shared;
    struct cache *cache;
    unsigned slot;
    struct gw_log log;
    bool command, fetches, leaving;
    _Atomic bool cancelled; /* read by job threads */
    bool (*post)(void *ctx, struct gateway_job *job);
    void *ctx;
    size_t n_git;      /* clones and fetches under way */
    size_t n_uploads;  /* objects and commits */
    char key[32];      /* data/key: MAC of token and subject files */
    char boot_key[32]; /* of this process: MAC of credentials in keys of wants */
    struct gateway_lane lanes[GW_PEER_COUNT];
    struct gateway_audit audit;
    struct gateway_downloads downloads;
    struct gateway_counters *counters; /* of our slot */
    struct gateway_quotas quotas;
    struct { /* of the "budget" job: what it last read */
        int64_t changed_ns, read_ms;
        uint64_t inode;
        bool any;
    } pins;
};

struct gateway_state {
    struct gw_arena arena; /* secret: credentials live here */
    struct hub_target target;
    int parse_status;
    struct gw_error parse_error;
    int64_t started_ms, started_us, deadline_ms; /* wall; gw_mono_us; gw_mono_ms */
    int64_t first_byte_us;                       /* after started_us; -1: not yet */
    int login;                                   /* a password: 0 none, 1 right, 2 wrong */
    bool expired, no_memory, parked, waiting;    /* waiting: for bytes of a fill */
    unsigned n_wants, n_elsewhere; /* of these, what somebody else brought: not counted */
    struct gateway_result results[GATEWAY_WANTS_MAX];
    size_t n_results;
    struct gateway_waiter waiter;
    bool again;                  /* the second fetch after a wrong digest */
    unsigned n_sources;          /* times that another repository than its own was refused */
    struct cache_reader *reader; /* of a fill, or NULL */
    bool git_running;            /* counted in n_git */
    bool uploading;              /* counted in n_uploads */
    struct upload *upload;       /* NULL: the body is not kept */
    int fd;                      /* of a blob, or -1; ours */
    uint64_t file_first, file_end;
    bool several; /* nginx cuts ranges out of it: one buffer, and no window of it alone */
    uint64_t warm_first, warm_end; /* found in memory, or brought there */
    int64_t warm_until_ms;         /* pages may go again */
    bool sending;                  /* nothing of the arena from here on is needed any more: */
    struct gw_arena_mark sent_from;
    /* of the last step, for headers and the audit record */
    struct gateway_identity who;
    struct policy_object object;
    const struct policy_rule *rule;
    bool decided, allowed, private_repo;
    bool node; /* another node of the cluster asks */
    enum gateway_came came;
    int64_t age_ms; /* -1: not from a record */
    bool warn_stale;
    struct gw_str commit, digest;
    const char *why; /* a refusal's name */
    int status;
};

/* wants.c */
int wants_park(struct gateway *gw, struct gateway_request *req, const struct gw_want *want)
    GW_MUST_CHECK; /* GW_AGAIN, or the breaker's status: result attached */
void wants_background(struct gateway *gw, const struct gw_want *want);
/* One more step of a job that goes on in steps, even while the end of the last one is not noticed
 * yet. */
void wants_next_step(struct gateway *gw, const struct gw_want *want);
/* The command: the job of a want, here and now, in this thread. @return the job's status, err
 * filled unless it is GW_OK */
int wants_run(struct gateway *gw, const struct gw_want *want, struct gw_error *err) GW_MUST_CHECK;
void wants_unpark(struct gateway_request *req);
#define WANTS_BACKGROUND_MS 60000
/* For nodes.c: a job that no request wants by itself, and into the queue of its peer with it. */
struct gateway_job *wants_new_job(struct gateway *gw, const struct gw_want *want,
                                  int64_t deadline_ms);
void wants_list_job(struct gateway *gw, struct gateway_job *job);
void wants_tick(struct gateway *gw);  /* jobs that the pool refused are posted again */
void wants_close(struct gateway *gw); /* what never ran or was never noticed is freed */
struct gateway_result *wants_result(struct gateway_state *st, struct gw_str key); /* NULL: none */

/* breaker.c */
const char *breaker_peer_name(enum gw_peer peer);             /* as in the log */
bool wants_open(const struct gateway *gw, enum gw_peer peer); /* the breaker refuses just now */
/* What the last failure was: GW_UNAVAILABLE or GW_TIMEOUT. */
int breaker_refuse(const struct gateway *gw, enum gw_peer peer, struct gw_error *err);
/* A new job may be the one that tries: job->probe. */
bool breaker_probe(struct gateway *gw, enum gw_peer peer);
void breaker_learn(struct gateway *gw, const struct gateway_job *job); /* a job has ended */

/* facts.c: a fact of the index, or the want for it */
enum fact_life { FACT_FOREVER, FACT_TTL, FACT_PRIVATE, FACT_RECORD };
struct fact {
    enum cache_kind kind;
    struct gw_str name;
    enum fact_life life;
    struct gw_want want;
};
/* GW_OK: *out (of any status); GW_AGAIN: parked; else the job's failure, err filled */
int fact_get(struct gateway *gw, struct gateway_request *req, const struct fact *f,
             struct cache_record *out, struct gw_error *err) GW_MUST_CHECK;
/* Parks for a want whose answer is in no record (a verdict, a blob): GW_AGAIN, GW_OK (*result), or
 * the failure */
int fact_need(struct gateway *gw, struct gateway_request *req, const struct gw_want *want,
              struct gateway_result **result, struct gw_error *err) GW_MUST_CHECK;
/* "a\nb\nc" in the arena; p == NULL: no memory. */
struct gw_str fact_join(struct gw_arena *a, const struct gw_str *fields, size_t n);
#define FACT_JOIN(arena, ...)                                                                      \
    fact_join(arena, (const struct gw_str[]){__VA_ARGS__},                                         \
              sizeof((const struct gw_str[]){__VA_ARGS__}) / sizeof(struct gw_str))

/* identity.c (loop), identity_jobs.c (jobs and the command) */
int identity_of(struct gateway *gw, struct gateway_request *req, struct auth_credential *cred,
                struct gateway_identity *out, enum hub_reason *why,
                struct gw_str *detail) GW_MUST_CHECK;
/* The person of a signed address: as identity_of for one of his tokens, without a role. */
int identity_of_subject(struct gateway *gw, struct gateway_request *req, struct gw_str id,
                        struct gateway_identity *out, enum hub_reason *why,
                        struct gw_str *detail) GW_MUST_CHECK;
int identity_login(struct gateway *gw, struct gateway_request *req,
                   const struct auth_credential *cred, struct gateway_identity *out,
                   enum hub_reason *why, struct gw_str *detail) GW_MUST_CHECK;
int job_token(struct gateway_job *job);
int job_subject(struct gateway_job *job);
int job_login(struct gateway_job *job);
int job_mint(struct gateway_job *job);
int data_open(const char *data_dir, char key[32], struct gw_error *err) GW_MUST_CHECK;
int identity_put_token(struct gateway *gw, const struct auth_token *t,
                       struct gw_error *err) GW_MUST_CHECK; /* file, then index */
int identity_put_subject(struct gateway *gw, const struct auth_subject *s,
                         struct gw_error *err) GW_MUST_CHECK;
int identity_load_token(struct gateway *gw, struct gw_str id, struct auth_token *out,
                        struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;
int identity_load_subject(struct gateway *gw, struct gw_str id, struct auth_subject *out,
                          struct gw_arena *a, struct gw_error *err) GW_MUST_CHECK;
int identity_users(struct gateway *gw, struct auth_users **out, struct gw_error *err) GW_MUST_CHECK;

/* answer.c */
void answer_header(struct gateway_answer *ans, struct gw_str name, struct gw_str value);
#define ANSWER_HEADER(ans, name, value) answer_header(ans, GW_STR(name), value)
int answer_refuse(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  enum hub_reason why, struct gw_str detail, int retry_after_s);
int answer_failure(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                   const struct gw_error *err); /* of a job */
/* Link to the next page of this list, on this host. */
void answer_link_next(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                      struct gw_str cursor);
int health_answer(struct gateway *gw, struct gateway_request *req,
                  struct gateway_answer *ans); /* health.c */
int answer_json(struct gateway_request *req, struct gateway_answer *ans, struct gw_str json);
void answer_common(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
struct gw_str request_public_url(const struct gateway *gw,
                                 const struct gateway_request *req); /* p == NULL: a foreign Host */

/* admit.c */
int admit_early(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                const struct policy_object *o, enum hub_action action);
int admit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
          const struct policy_object *o,
          enum hub_action action); /* GW_OK: go on; GW_FORBIDDEN: *ans is the refusal */
enum policy_action admit_action(enum hub_action a);

/* resolve.c */
struct resolved {
    struct hub_target target;     /* with the canonical namespace and name */
    struct gw_str type, ns, name; /* canonical; ns may be empty */
    struct gw_str commit;         /* 40 hex */
    bool private;
};
int resolve_commit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                   struct resolved *r)
    GW_MUST_CHECK; /* GW_OK; GW_AGAIN; GW_FORBIDDEN: *ans is a refusal */
/* There is no repository of the target's name: if it has another one now, and who asks may do
 * there what he wants, *ans leads there: GW_OK; GW_NOT_FOUND; GW_AGAIN; GW_FORBIDDEN: *ans */
int resolve_moved(struct gateway *gw, struct gateway_request *req,
                  struct gateway_answer *ans) GW_MUST_CHECK;
/* The target becomes the name that its repository has now: GW_CONFLICT, if that is another one, and
 * nothing was asked about it yet. GW_OK: it is as it was, or there is none; GW_AGAIN */
int resolve_renamed(struct gateway *gw, struct gateway_request *req) GW_MUST_CHECK;
int resolve_file(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                 const struct resolved *r, struct gw_str path, struct hub_entry *e) GW_MUST_CHECK;
int resolve_paths(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct resolved *r, const struct gw_str *paths, size_t n,
                  struct hub_entry *entries, bool *found) GW_MUST_CHECK;

/* The target to ask upstream, in the arena; p == NULL: no memory. */
struct gw_str upstream_target(struct gw_arena *a, const struct hub_target *t,
                              struct gw_str revision);

/* documents.c: routes that answer JSON; serve.c: routes that answer bytes. GW_OK: *ans; GW_AGAIN */
int document_info(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int document_tree(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int document_paths(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int document_other(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int document_auth_check(struct gateway *gw, struct gateway_request *req,
                        struct gateway_answer *ans);
int document_whoami(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int document_mint(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct auth_credential *cred);
/* list.c */
int list_repos(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int list_tags(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int list_organization(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
enum range_kind { RANGE_NONE, RANGE_ONE, RANGE_SEVERAL, RANGE_UNSATISFIABLE };
int serve_file(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
/* A large object that a private repository holds, by its sha256 alone. */
int serve_object(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                 const struct hub_target *t, struct gw_str sha256, uint64_t size);
int serve_range_error(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                      uint64_t size, struct gw_str detail);
int serve_node(struct gateway *gw, struct gateway_request *req,
               struct gateway_answer *ans); /* node.c */
struct span {                               /* the bytes that were asked for */
    enum range_kind kind;
    uint64_t first, end;
};
/* A file of st->fd or st->reader in windows: status and headers of that. */
int serve_span(struct gateway_request *req, struct gateway_answer *ans, uint64_t size,
               const struct span *span);

/* write.c: routes that change a private repository. GW_OK: *ans; GW_AGAIN */
int write_create(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int write_delete(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int write_ref(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int write_preupload(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int write_commit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
/* jobs_keep.c: few packs, whenever there is one more */
void repack_later(struct gateway *gw, struct gateway_request *req);
/* manage.c */
int write_move(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int write_settings(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int write_squash(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
/* 307 to the same of the repository that to names; who asks may know of it. */
int answer_moved(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                 const struct hub_target *to);
int write_yaml(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
/* git.c: routes of clients that speak git */
int git_refs(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int git_service(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
void git_end(struct gateway *gw, struct gateway_state *st); /* the request is over */
/* May who asks read every file of every revision? GW_OK; GW_FORBIDDEN: *ans says why not. */
int git_admit_every(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                    const struct hub_target *t) GW_MUST_CHECK;
/* lfs.c: git-lfs batch and its signed addresses */
int lfs_batch(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int lfs_object(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int lfs_get(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int lfs_verify(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
int lfs_complete(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
enum lfs_action { LFS_PUT, LFS_VERIFY, LFS_GET, LFS_PART, LFS_COMPLETE };
struct lfs_object_id {
    struct gw_str type, ns, name, sha256, subject;
    uint64_t size;
    int64_t until_s;      /* unix: when the address is over */
    uint64_t chunk, part; /* LFS_PART, LFS_COMPLETE (part 0) */
};
/* The address to PUT an object or one of its parts at, to get it, to end its parts, or to confirm
 * it; p == NULL: no memory. Any thread. */
struct gw_str lfs_address(const struct gateway *gw, struct gw_arena *a, struct gw_str public_url,
                          const struct lfs_object_id *o, enum lfs_action action);
/* Job: a branch has a new tip, durable in data/: into the index, and as the job's answer. */
int write_new_tip(struct gateway_job *job, const struct repo_id *id, struct gw_str revision,
                  struct gw_str commit);
/* Job: a push moved a ref; commit: of a branch, or "": what is known of it is dropped. */
void write_ref_moved(struct gateway_job *job, const struct repo_id *id, struct gw_str revision,
                     struct gw_str commit);
/* Job: main of this name is asked for anew. */
void write_forget(struct gateway_job *job, const struct repo_id *id);
/* Write access to a repository that is private; *ans is the refusal otherwise. */
int write_admit(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                const struct hub_target *t) GW_MUST_CHECK;
/* Of a large object nobody says yet what it is for: a target that may only be proposed to is one.
 */
void write_or_propose(struct gateway *gw, const struct gateway_request *req, struct hub_target *t);
/* A failed write as an answer: conflicts, missing parents, full disks have statuses of their own.
 */
int write_failure(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans,
                  const struct gw_error *err);
/* "Name <mail>" of who asks. */
struct gw_str write_author(struct gw_arena *a, const struct gateway_identity *who);

/* range.c */
#define RANGES_MAX 64u /* more in one header are ignored (RFC 9110 14.2) */
/* RANGE_ONE: [first, end). Another unit or nonsense is RANGE_NONE: the whole answer is always
 * allowed. RANGE_SEVERAL: some of them are there. */
enum range_kind range_parse(struct gw_str header, uint64_t size, uint64_t *first, uint64_t *end,
                            bool *open);
/* The ranges of a header that range_parse took, those that hold anything. @return how many */
struct range_piece {
    uint64_t first, end;
};
size_t range_pieces(struct gw_str header, uint64_t size, struct range_piece out[RANGES_MAX]);
/* Does this client start anew on a 200 to a resumed download? (hf_hub 0.36.2 and >= 1.5 do, others
 * append) */
bool range_client_restarts(struct gw_str user_agent);

/* jobs_public.c, jobs_private.c */
int job_info(struct gateway_job *job);
int job_tree(struct gateway_job *job);
int job_whole_tree(struct gateway_job *job);
int job_paths(struct gateway_job *job);
int job_document(struct gateway_job *job);
int job_blob(struct gateway_job *job);
int job_part(struct gateway_job *job);
int job_private_ref(struct gateway_job *job);
int job_private_info(struct gateway_job *job);
int job_private_tree(struct gateway_job *job);
int job_private_paths(struct gateway_job *job);
int job_private_refs(struct gateway_job *job);
int job_private_commits(struct gateway_job *job);
int job_private_blob(struct gateway_job *job);
int job_fill(struct gateway_job *job);
int job_create(struct gateway_job *job);
int job_delete(struct gateway_job *job);
int job_ref(struct gateway_job *job);
int job_yaml(struct gateway_job *job);
int job_preupload(struct gateway_job *job);
int job_batch(struct gateway_job *job);
int job_upload(struct gateway_job *job);
int job_repack(struct gateway_job *job);
int job_squash(struct gateway_job *job);
int job_move(struct gateway_job *job);
int job_catalogue(struct gateway_job *job);
int job_downloads(struct gateway_job *job);
int job_cards(struct gateway_job *job);
int job_listed(struct gateway_job *job);
int job_complete(struct gateway_job *job);
int job_lease(struct gateway_job *job);
int job_audit(struct gateway_job *job);
int job_bring(struct gateway_job *job);

/* jobs_cache.c, pins.c: what is held */
int job_prove(struct gateway_job *job);
int job_usage(struct gateway_job *job);
int job_budget(struct gateway_job *job);
/* The public repo that TYPE:NS/NAME[@REV][//PATH] names. TYPE may be missing (model); out borrows
 * from text and the arena. GW_INVALID; GW_FORBIDDEN (a private namespace: data/ holds it) */
int held_resource(const struct gateway *gw, struct gw_str text, struct gw_arena *a,
                  struct policy_object *out, struct gw_error *err) GW_MUST_CHECK;
bool held_path(struct gw_str of, struct gw_str path); /* it, or in it; "" is all */
/* What the index knows of the revision (none: main): its commit and canonical name, in the arena.
 * GW_NOT_FOUND */
struct held_commit {
    struct gw_str type, ns, name, commit;
};
int held_commit(struct gateway *gw, const struct policy_object *o, struct gw_arena *a,
                struct held_commit *out) GW_MUST_CHECK;
/* All files of a commit, from the pages of its tree in the index; fetch: what is missing is asked
 * for upstream, here and now. @return GW_OK; GW_NOT_FOUND (not all of it is known); what `on`
 * returned */
int held_files(struct gateway *gw, const struct held_commit *c, bool fetch,
               int (*on)(void *ctx, const struct hub_entry *e), void *ctx,
               struct gw_error *err) GW_MUST_CHECK;
/* Pins: lines of data/pins. Changed by the command, read again by whoever keeps the budget. */
int pins_load(struct gateway *gw, struct gw_arena *a, struct gw_str **resources, size_t *n,
              struct gw_error *err) GW_MUST_CHECK;
/* GW_OK; GW_CONFLICT: it is (not) there already */
int pins_change(struct gateway *gw, struct gw_str resource, bool add,
                struct gw_error *err) GW_MUST_CHECK;
/* Tells the cache, if something changed. Job or command, one at a time. */
int pins_refresh(struct gateway *gw, struct gw_error *err) GW_MUST_CHECK;

/* audit.c */
void audit_record(struct gateway *gw, const struct gateway_request *req, int status,
                  uint64_t bytes_sent, bool complete);
void audit_tick(struct gateway *gw, bool now);
void audit_done(struct gateway *gw, const struct gateway_job *job);      /* any job's end */
void audit_unwritten(struct gateway *gw, const struct gateway_job *job); /* it will not run */

/* metrics.c */
void metrics_open(struct gateway *gw); /* a new owner of the slot */
void metrics_tick(struct gateway *gw); /* jobs and breakers as they are now */
void metrics_first_byte(struct gateway_state *st);
void metrics_parked(struct gateway *gw, struct gateway_state *st, bool parked);
void metrics_end(struct gateway *gw, const struct gateway_request *req, int status,
                 uint64_t bytes_sent);
/* metrics_allow: for others there is no such page. */
bool metrics_allowed(const struct gateway *gw, const struct gateway_request *req);
int metrics_answer(struct gateway *gw, struct gateway_request *req, struct gateway_answer *ans);
static inline void metrics_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}
/* Of something that is so now: it comes (1) or goes (-1). */
static inline void metrics_gauge(_Atomic uint64_t *gauge, bool *now, bool is)
{
    if (*now != is)
        metrics_add(gauge, is ? 1 : UINT64_MAX);
    *now = is;
}

/* A tree page in the index: next cursor (may be empty), then the JSON. */
struct gw_str tree_page_encode(struct gw_arena *a, struct gw_str next, struct gw_str json);
bool tree_page_decode(struct gw_str value, struct gw_str *next, struct gw_str *json);

#endif
