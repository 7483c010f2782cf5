/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/refuse.c - the one table of refusals, and what upstream's refusals mean here.
 *
 * The code header decides how a client behaves, more than the status: a 403 or 404 without one
 * reads "check your connection" on downloads (huggingface_hub up to 2.4.0), GatedRepo is the one
 * class whose text is shown by all, and EntryNotFound is remembered on the client's disk. HEAD has
 * no body, so the text is in a header as well.
 */
#include "hub/hub_internal.h"

#define DETAIL_MAX 512u
#define RETRY_AFTER_MAX_S 300

enum detail_use {
    NONE,    /* the same bytes for every case: nothing may tell them apart */
    REPLACE, /* the detail, if there is one, instead of the text */
    APPEND,  /* "text: detail" */
    BODY,    /* only in the body: the header's text is fixed by the client */
};

static const char invalid_credentials[] = "Invalid credentials in Authorization header";

/* text stands in both; body is the text of the body where that differs. Neither holds a quote or a
 * backslash. */
#define SAME(text) text, "{\"error\":\"" text "\"}", text "\n"
#define OTHER(text, body) text, "{\"error\":\"" body "\"}", body "\n"

static const struct row {
    int status;
    const char *code;
    bool challenge;
    enum detail_use detail;
    int retry_after_s;
    const char *text, *json, *plain;
} rows[HUB_REASON_COUNT] = {
    [HUB_LOGIN_NEEDED] = {401, "GatedRepo", true, NONE, 0,
                          SAME("Log in: hf auth login, or set HF_TOKEN. This gateway shows this "
                               "only to people it knows.")},
    [HUB_BAD_CREDENTIAL] = {401, NULL, true, BODY, 0,
                            OTHER("Invalid credentials in Authorization header",
                                  "The token or password is wrong, expired or revoked. Log in "
                                  "again: hf auth login, or set HF_TOKEN.")},
    [HUB_FOREIGN_TOKEN] = {401, NULL, true, BODY, 0,
                           OTHER("Invalid credentials in Authorization header",
                                 "This is a huggingface.co token, not one of this gateway. Get one "
                                 "here, then: hf auth login, or set HF_TOKEN.")},
    [HUB_REPO_NOT_FOUND] = {404, "RepoNotFound", false, NONE, 0, SAME("Repository not found")},
    [HUB_REVISION_NOT_FOUND] = {404, "RevisionNotFound", false, APPEND, 0, SAME("Invalid rev id")},
    [HUB_ENTRY_NOT_FOUND] = {404, "EntryNotFound", false, NONE, 0, SAME("Entry not found")},
    [HUB_BLOCKED] = {403, "GatedRepo", false, REPLACE, 0,
                     SAME("Access is blocked by a rule of this gateway.")},
    [HUB_GATED_UPSTREAM] = {403, "GatedRepo", false, REPLACE, 0,
                            SAME("Upstream restricts access to this, and this gateway's account "
                                 "has no access to it. Ask the people who run this gateway.")},
    [HUB_SCOPE] =
        {403, "GatedRepo", false, REPLACE, 0,
         SAME("The role of this token does not allow this. Use a token with the role write.")},
    [HUB_BAD_REQUEST] = {400, NULL, false, APPEND, 0, SAME("Bad request")},
    [HUB_METHOD] = {405, NULL, false, NONE, 0, SAME("This method is not for this address.")},
    [HUB_NO_ROUTE] = {404, NULL, false, NONE, 0, SAME("This gateway has nothing at this address.")},
    [HUB_NO_XET] = {404, NULL, false, NONE, 0,
                    SAME("This gateway serves files over plain HTTP. A Xet id in your local cache "
                         "is from elsewhere: set HF_HUB_DISABLE_XET=1.")},
    [HUB_NO_DEVICE_LOGIN] = {404, NULL, false, NONE, 0,
                             SAME("This gateway has no login by browser. Use: hf auth login "
                                  "--token TOKEN, or set HF_TOKEN.")},
    [HUB_TOO_LARGE] = {413, NULL, false, APPEND, 0, SAME("Too large")},
    [HUB_RANGE] =
        {416, NULL, false, REPLACE, 0,
         SAME("The range begins behind the end of the file. Delete the partial file and retry.")},
    [HUB_WRONG_HOST] = {421, NULL, false, NONE, 0,
                        SAME("This gateway does not answer for this host name.")},
    [HUB_NO_SUCH_BYTES] = {422, NULL, false, REPLACE, 0,
                           SAME("The bytes are not those that were announced.")},
    [HUB_CONFLICT] = {409, NULL, false, REPLACE, 0, SAME("It exists already.")},
    [HUB_PARENT_MOVED] = {412, NULL, false, REPLACE, 0,
                          SAME("The branch was updated since you opened this page. Please refresh "
                               "and try again.")},
    [HUB_NOT_HERE] = {403, NULL, false, REPLACE, 0,
                      SAME("Public repositories are read-only here: write to a namespace of your "
                           "organization.")},
    [HUB_NOT_BUILT] = {501, "NotImplemented", false, REPLACE, 0,
                       SAME("This gateway does not do this.")},
    [HUB_DISK_FULL] = {507, NULL, false, REPLACE, 0,
                       SAME("The gateway has no room left. Tell the people who run it.")},
    [HUB_BUSY] = {429, NULL, false, REPLACE, 10, SAME("Too many requests. Retry later.")},
    [HUB_INTERNAL] = {500, NULL, false, NONE, 0, SAME("Internal error of the gateway.")},
    [HUB_BAD_UPSTREAM] = {502, NULL, false, APPEND, 0,
                          SAME("Upstream gave an answer that cannot be used")},
    [HUB_OUTAGE] = {503, NULL, false, APPEND, 10,
                    SAME("A service that this gateway needs is not available. Retry later")},
    [HUB_LOOP] = {508, NULL, false, NONE, 0,
                  SAME("The request came back to the gateway that sent it.")},
};

/* ---- text ---- */

/* At most max bytes, never half a character. */
static struct gw_str cut(struct gw_str s, size_t max)
{
    if (s.n <= max) {
        return s;
    }
    s.n = max;
    while (s.n != 0 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80) {
        s.n--;
    }
    return s;
}

/* One '?' for each character that a header cannot hold. */
static void put_header_text(struct gw_buf *out, struct gw_str s)
{
    while (s.n != 0) {
        size_t n = gw_utf8_char(s);
        char c = s.p[0];

        gw_buf_add_char(out, n == 1 && c >= 0x20 && c < 0x7f ? c : '?');
        s = gw_str_sub(s, n != 0 ? n : 1, s.n);
    }
}

static void put_sentence(struct gw_buf *out, const struct row *row, struct gw_str detail)
{
    if (row->detail == APPEND) {
        gw_buf_add_c(out, row->text);
        gw_buf_add_c(out, ": ");
    }
    gw_buf_add(out, detail);
}

static void put_body(struct gw_buf *out, struct gw_str sentence, bool git)
{
    if (git) {
        put_header_text(out, sentence);
        gw_buf_add_char(out, '\n');
        return;
    }
    gw_buf_add_char(out, '{');
    gw_json_put_key(out, "error");
    gw_json_put_string(out, sentence);
    gw_buf_add_char(out, '}');
}

/* false: no memory, and out as it was. */
static bool add_detail(struct hub_refusal *out, const struct row *row, struct gw_str detail,
                       bool git, struct gw_arena *a)
{
    struct gw_buf sentence, header, body;
    struct gw_str message, text = {NULL, 0};

    gw_buf_init(&sentence, 2 * DETAIL_MAX);
    gw_buf_init(&header, 2 * DETAIL_MAX);
    gw_buf_init(&body, 16 * DETAIL_MAX);
    put_sentence(&sentence, row, detail);
    message = cut(gw_buf_str(&sentence), DETAIL_MAX);
    put_header_text(&header, message);
    put_body(&body, message, git);
    message = row->detail == BODY ? out->message : (struct gw_str){NULL, 0};
    if (!sentence.failed && !header.failed && !body.failed) {
        text = gw_arena_dup(a, gw_buf_str(&body));
        if (message.p == NULL) {
            message = gw_arena_dup(a, gw_buf_str(&header));
        }
    }
    gw_buf_release(&sentence);
    gw_buf_release(&header);
    gw_buf_release(&body);
    if (message.p == NULL || text.p == NULL) {
        return false;
    }
    out->message = message;
    out->body = text;
    return true;
}

/* ---- refusing ---- */

static const char *challenge(const struct row *row, bool git)
{
    if (!row->challenge) {
        return NULL;
    }
    if (git) {
        return "Basic realm=\"hubgate\"";
    }
    return row->code == NULL ? "Bearer realm=\"hubgate\", error=\"invalid_token\""
                             : "Bearer realm=\"hubgate\"";
}

void hub_refuse(struct hub_refusal *out, enum hub_reason why, struct gw_str detail, bool git,
                int retry_after_s, struct gw_arena *a)
{
    const struct row *row = &rows[(size_t)why < HUB_REASON_COUNT ? why : HUB_INTERNAL];

    *out = (struct hub_refusal){
        .status = row->status,
        .code = row->code,
        .message = gw_str_c(row->text),
        .body = gw_str_c(git ? row->plain : row->json),
        .content_type = git ? "text/plain; charset=utf-8" : "application/json; charset=utf-8",
        .challenge = challenge(row, git),
        .retry_after_s = row->retry_after_s,
        .rate_limit = GW_STR(""),
    };
    if (row->status >= 429 && retry_after_s > 0) { /* clients sleep as long as it says */
        out->retry_after_s = retry_after_s < RETRY_AFTER_MAX_S ? retry_after_s : RETRY_AFTER_MAX_S;
    }
    detail = cut(gw_str_trim(detail), DETAIL_MAX);
    if (row->detail != NONE && detail.n != 0) {
        add_detail(out, row, detail, git, a);
    }
    if (row->status == 429) {
        struct gw_str value = gw_arena_printf(a, "\"gateway\";r=0;t=%d", out->retry_after_s);

        out->rate_limit = value.p != NULL ? value : GW_STR("\"gateway\";r=0;t=10");
    }
}

/* ---- upstream ---- */

static enum hub_reason classify_code(struct gw_str code)
{
    static const struct {
        const char *code;
        enum hub_reason reason;
    } codes[] = {
        {"RepoNotFound", HUB_REPO_NOT_FOUND},
        {"GatedRepo", HUB_GATED_UPSTREAM},
        {"RevisionNotFound", HUB_REVISION_NOT_FOUND},
        {"EntryNotFound", HUB_ENTRY_NOT_FOUND},
    };

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (gw_str_eq_c(code, codes[i].code)) {
            return codes[i].reason;
        }
    }
    return HUB_REASON_COUNT;
}

/*
 * A refusal that clients remember (404, 401) is made only from upstream's own word for it. 404
 * without a code: a mirror that serves plain files answers so for the optional files that every
 * tokenizer asks for, so it means the thing asked for is not there; a caller that asked for a repo
 * or a revision takes it as that.
 */
enum hub_reason hub_classify_upstream(int status, struct gw_str code, struct gw_str message)
{
    enum hub_reason by_code = classify_code(code);

    if (status == 429) {
        return HUB_BUSY;
    }
    if (status != 401 && status != 403 && status != 404) {
        return HUB_OUTAGE;
    }
    /* our own token is refused: people here cannot mend that, and their token is a good one */
    if (status == 401 && gw_str_eq_c(message, invalid_credentials)) {
        return HUB_OUTAGE;
    }
    if (by_code != HUB_REASON_COUNT) {
        return by_code;
    }
    if (code.n != 0) {
        return HUB_OUTAGE; /* a code we do not know */
    }
    switch (status) {
    case 401: /* the Hub's answer to a caller without rights, whether the repo exists or not */
        return HUB_REPO_NOT_FOUND;
    case 403:
        return gw_str_eq_c(message, "Access to this resource is disabled.") ? HUB_GATED_UPSTREAM
                                                                            : HUB_OUTAGE;
    default:
        if (gw_str_eq_c(message, "Repository not found")) {
            return HUB_REPO_NOT_FOUND;
        }
        if (gw_str_starts(message, GW_STR("Invalid rev id"))) {
            return HUB_REVISION_NOT_FOUND;
        }
        return HUB_ENTRY_NOT_FOUND;
    }
}
