/* SPDX-License-Identifier: Apache-2.0 */
/* hub/doc_reader.c - any document of upstream, copied compactly without Xet hints; "sha" and "id"
 * are noted. */
#include "hub/hub_internal.h"

#include "base/alloc.h"

#define TOKEN_MAX (1u << 20) /* bytes of one string: a chat template, a card's text */
#define ID_MAX (2 * HUB_NAME_MAX + 1)

struct hub_doc_reader {
    struct gw_json_reader *json_reader;
    struct gw_error error;
    struct hub_rewriter rewriter;
    bool top_is_object;
    enum { NOTHING, SHA, ID } member;
    char sha[40], id[ID_MAX];
    size_t sha_n, id_n;
};

/* Of a name given twice the last value counts, as in the clients' parsers. */
static void note(struct hub_doc_reader *r, enum gw_json_event ev, struct gw_str text)
{
    if (r->member == SHA) {
        r->sha_n = 0;
        if (ev == GW_JSON_STRING && hub_is_commit(text)) {
            memcpy(r->sha, text.p, text.n);
            r->sha_n = text.n;
        }
    } else if (r->member == ID) {
        r->id_n = 0;
        if (ev == GW_JSON_STRING && text.n <= sizeof(r->id) && hub_repo_id_ok(text)) {
            memcpy(r->id, text.p, text.n);
            r->id_n = text.n;
        }
    }
}

static int on_event(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct hub_doc_reader *r = ctx;

    if (depth == 0) {
        r->top_is_object = ev == GW_JSON_OBJECT_BEGIN || ev == GW_JSON_OBJECT_END;
    } else if (depth == 1 && r->top_is_object) {
        if (ev == GW_JSON_KEY) {
            r->member = gw_str_eq_c(text, "sha") ? SHA : gw_str_eq_c(text, "id") ? ID : NOTHING;
        } else {
            note(r, ev, text);
        }
    }
    hub_rewrite(&r->rewriter, ev, text, depth);
    if (r->rewriter.out->failed) {
        return gw_fail(&r->error, GW_TOO_LARGE, 0, "upstream's document is over %zu bytes",
                       r->rewriter.out->max);
    }
    return GW_OK;
}

struct hub_doc_reader *hub_doc_reader_new(struct gw_buf *out)
{
    struct hub_doc_reader *r = gw_alloc(sizeof(*r));

    if (r == NULL) {
        return NULL;
    }
    r->rewriter.out = out;
    r->json_reader = gw_json_reader_new(out->max < TOKEN_MAX ? out->max : TOKEN_MAX, on_event, r);
    if (r->json_reader == NULL) {
        gw_free(r);
        return NULL;
    }
    return r;
}

static int explain(const struct hub_doc_reader *r, int rc, struct gw_error *err)
{
    if (rc != GW_OK && r->error.status != GW_OK && err != NULL) {
        *err = r->error;
    }
    return rc;
}

int hub_doc_reader_feed(struct hub_doc_reader *r, struct gw_str bytes, struct gw_error *err)
{
    return explain(r, gw_json_reader_feed(r->json_reader, bytes, err), err);
}

int hub_doc_reader_finish(struct hub_doc_reader *r, struct gw_error *err)
{
    return explain(r, gw_json_reader_finish(r->json_reader, err), err);
}

struct gw_str hub_doc_reader_sha(const struct hub_doc_reader *r)
{
    return (struct gw_str){r->sha, r->sha_n};
}

struct gw_str hub_doc_reader_id(const struct hub_doc_reader *r)
{
    return (struct gw_str){r->id, r->id_n};
}

void hub_doc_reader_free(struct hub_doc_reader *r)
{
    if (r == NULL) {
        return;
    }
    gw_json_reader_free(r->json_reader);
    gw_free(r);
}
