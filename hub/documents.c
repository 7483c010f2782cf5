/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/documents.c - the documents we write ourselves: entries, info, refs, commits, whoami.
 *
 * Which members are there is what the clients' parsers insist on (docs/clients.md): a missing one
 * is a KeyError in somebody's terminal, an additional one is ignored everywhere.
 */
#include "hub/hub_internal.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/sha.h"

#include <stdio.h>

/* ---- members ---- */

static void put_text(struct gw_buf *out, const char *key, struct gw_str value)
{
    gw_json_put_key(out, key);
    gw_json_put_string(out, value);
}

static void put_number(struct gw_buf *out, const char *key, uint64_t value)
{
    gw_json_put_key(out, key);
    gw_buf_addf(out, "%llu", (unsigned long long)value);
}

static void put_bool(struct gw_buf *out, const char *key, bool value)
{
    gw_json_put_key(out, key);
    gw_buf_add_c(out, value ? "true" : "false");
}

static void put_date(struct gw_buf *out, const char *key, int64_t wall_ms)
{
    char text[GW_ISO_LEN + 1];

    gw_iso_format(text, wall_ms);
    put_text(out, key, gw_str_c(text));
}

/* The Hub's document ids are 24 hex digits; ours are made of what they name, so they stay the same.
 */
static void put_object_id(struct gw_buf *out, const char *key, const char *kind, struct gw_str name)
{
    struct gw_sha256 s;
    uint8_t digest[32];
    char hex[25];

    gw_sha256_init(&s);
    gw_sha256_update(&s, kind, strlen(kind) + 1);
    gw_sha256_update(&s, name.p, name.n);
    gw_sha256_final(&s, digest);
    gw_hex_encode(hex, digest, 12);
    put_text(out, key, gw_str_c(hex));
}

/* ---- entries ---- */

void hub_put_entry(struct gw_buf *out, const struct hub_entry *e, struct gw_str last_commit)
{
    gw_buf_add_char(out, '{');
    put_text(out, "type", e->directory ? GW_STR("directory") : GW_STR("file"));
    put_text(out, "oid", gw_str_c(e->oid));
    put_number(out, "size", e->size);
    put_text(out, "path", e->path);
    if (e->lfs) {
        gw_json_put_key(out, "lfs");
        gw_buf_add_char(out, '{');
        put_text(out, "oid", gw_str_c(e->sha256)); /* "sha256" in an info document */
        put_number(out, "size", e->size);
        put_number(out, "pointerSize", e->pointer_size);
        gw_buf_add_char(out, '}');
    }
    if (last_commit.n != 0) {
        gw_json_put_key(out, "lastCommit");
        gw_buf_add(out, last_commit);
    }
    gw_buf_add_char(out, '}');
}

/* ---- info ---- */

static void put_tag(struct gw_buf *out, const char *prefix, struct gw_str value)
{
    size_t n = strlen(prefix);
    char tag[512];

    if (value.n == 0 || value.n > sizeof(tag) - n) {
        return;
    }
    memcpy(tag, prefix, n);
    memcpy(tag + n, value.p, value.n);
    gw_json_put_comma(out);
    gw_json_put_string(out, (struct gw_str){tag, n + value.n});
}

/* A card has one text or a list of them. */
static void put_tags_of(struct gw_buf *out, const struct gw_json *card, const char *key,
                        const char *prefix)
{
    const struct gw_json *v = gw_json_get(card, key);

    put_tag(out, prefix, gw_json_string(v));
    for (size_t i = 0; gw_json_is_array(v) && i < gw_json_count(v); i++) {
        put_tag(out, prefix, gw_json_string(gw_json_at(v, i)));
    }
}

static bool has_tag(const struct gw_json *card, const struct hub_info *i, const char *tag)
{
    const struct gw_json *tags = gw_json_get(card, "tags");

    for (size_t k = 0; gw_json_is_array(tags) && k < gw_json_count(tags); k++) {
        if (gw_str_ieq_c(gw_json_string(gw_json_at(tags, k)), tag)) {
            return true;
        }
    }
    for (size_t k = 0; k < i->n_file_tags; k++) {
        if (strcmp(i->file_tags[k], tag) == 0) {
            return true;
        }
    }
    return gw_str_ieq_c(gw_json_string(gw_json_get(card, "library_name")), tag);
}

/* What a model is of its base_model: as the card says, else as the Hub guesses it. */
static const char *relation_of(const struct gw_json *card, const struct hub_info *i)
{
    static const char *const kinds[] = {"adapter", "merge", "quantized", "finetune"};
    static const char *const signs[][6] = {
        {"peft", "lora"},
        {"merge", "mergekit"},
        {"gguf", "gptq", "awq", "exl2", "quantized", "bitsandbytes"},
    };
    struct gw_str said = gw_json_string(gw_json_get(card, "base_model_relation"));

    for (size_t k = 0; k < 4; k++) {
        if (gw_str_eq_c(said, kinds[k])) {
            return kinds[k];
        }
    }
    if (gw_json_is_array(gw_json_get(card, "base_model")) &&
        gw_json_count(gw_json_get(card, "base_model")) > 1) {
        return "merge";
    }
    for (size_t k = 0; k < 3; k++) {
        for (size_t n = 0; n < 6 && signs[k][n] != NULL; n++) {
            if (has_tag(card, i, signs[k][n])) {
                return kinds[k];
            }
        }
    }
    return "finetune";
}

static void put_if_text(struct gw_buf *out, const struct gw_json *card, const char *key)
{
    struct gw_str value = gw_json_string(gw_json_get(card, key));

    if (value.n != 0) {
        put_text(out, key, value);
    }
}

static void put_card(struct gw_buf *out, const struct hub_info *i)
{
    struct gw_json *card = NULL;

    if (i->card_json.n != 0 && gw_json_parse(&card, i->card_json, NULL) == GW_NO_MEMORY) {
        out->failed = true;
        return;
    }
    if (!gw_json_is_object(card)) { /* too large or damaged: the repo still has its info */
        gw_json_free(card);
        card = NULL;
    }
    if (i->type == HUB_MODEL) {
        put_if_text(out, card, "library_name");
        put_if_text(out, card, "pipeline_tag");
    } else if (i->type == HUB_SPACE) {
        put_if_text(out, card, "sdk");
    }
    gw_json_put_key(out, "tags");
    gw_buf_add_char(out, '[');
    put_tags_of(out, card, "tags", "");
    put_tags_of(out, card, "library_name", "");
    put_tags_of(out, card, "pipeline_tag", "");
    put_tags_of(out, card, "language", i->type == HUB_DATASET ? "language:" : "");
    put_tags_of(out, card, "task_categories", "task_categories:");
    put_tags_of(out, card, "datasets", "dataset:");
    put_tags_of(out, card, "base_model", "base_model:");
    if (i->type == HUB_MODEL && gw_json_get(card, "base_model") != NULL) {
        char prefix[32];

        snprintf(prefix, sizeof(prefix), "base_model:%s:", relation_of(card, i));
        put_tags_of(out, card, "base_model", prefix);
    }
    for (size_t k = 0; k < i->n_file_tags; k++) {
        put_tag(out, "", gw_str_c(i->file_tags[k]));
    }
    put_tags_of(out, card, "license", "license:");
    gw_buf_add_char(out, ']');
    gw_json_put_key(out, "cardData");
    if (card != NULL) {
        gw_json_put_node(out, card);
    } else {
        gw_buf_add_c(out, "{}");
    }
    gw_json_free(card);
}

void hub_info_begin(struct gw_buf *out, const struct hub_info *i)
{
    gw_buf_add_char(out, '{');
    put_object_id(out, "_id", hub_type_name(i->type), i->id);
    put_text(out, "id", i->id);
    if (i->type == HUB_MODEL) {
        put_text(out, "modelId", i->id);
    }
    put_text(out, "author", i->author);
    put_text(out, "sha", i->sha);
    put_date(out, "lastModified", i->modified_ms);
    put_date(out, "createdAt", i->created_ms);
    put_bool(out, "private", true);
    put_bool(out, "gated", false);
    put_bool(out, "disabled", false);
    put_number(out, "downloads", i->downloads);
    put_number(out, "likes", 0);
    put_number(out, "trendingScore", 0);
    put_card(out, i);
    put_number(out, "usedStorage", i->used_bytes);
    if (i->with_siblings) {
        gw_json_put_key(out, "siblings");
        gw_buf_add_char(out, '[');
    }
}

void hub_info_sibling(struct gw_buf *out, const struct hub_info *i, const struct hub_entry *e)
{
    if (!i->with_siblings || e->directory) {
        return;
    }
    gw_json_put_comma(out);
    gw_buf_add_char(out, '{');
    put_text(out, "rfilename", e->path);
    if (i->with_blobs) {
        put_number(out, "size", e->size);
        put_text(out, "blobId", gw_str_c(e->oid));
        if (e->lfs) {
            gw_json_put_key(out, "lfs");
            gw_buf_add_char(out, '{');
            put_number(out, "size", e->size);
            put_text(out, "sha256", gw_str_c(e->sha256)); /* "oid" in a tree */
            put_number(out, "pointerSize", e->pointer_size);
            gw_buf_add_char(out, '}');
        }
    }
    gw_buf_add_char(out, '}');
}

void hub_info_end(struct gw_buf *out, const struct hub_info *i)
{
    if (i->with_siblings) {
        gw_buf_add_char(out, ']');
    }
    if (i->type == HUB_MODEL) {
        gw_json_put_key(out, "spaces");
        gw_buf_add_c(out, "[]");
    }
    gw_buf_add_char(out, '}');
}

/* ---- expand ---- */

struct selection {
    struct hub_rewriter rewriter;
    struct gw_str keys;
    struct gw_error error;
};

static bool is_unasked(void *ctx, struct gw_str key, unsigned depth)
{
    const struct selection *s = ctx;
    struct gw_str rest = s->keys, asked;

    if (hub_is_xet_hint(key)) {
        return true;
    }
    if (depth != 1 || gw_str_eq_c(key, "_id") || gw_str_eq_c(key, "id")) {
        return false;
    }
    while (gw_str_split(&rest, ',', &asked)) {
        if (gw_str_eq(key, asked)) {
            return false;
        }
    }
    return true;
}

static int on_document(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct selection *s = ctx;

    if (depth == 0 && ev != GW_JSON_OBJECT_BEGIN && ev != GW_JSON_OBJECT_END) {
        return gw_fail(&s->error, GW_INVALID, 0, "an info document that is no object");
    }
    hub_rewrite(&s->rewriter, ev, text, depth);
    return s->rewriter.out->failed ? gw_buf_ok(s->rewriter.out, &s->error) : GW_OK;
}

int hub_info_select(struct gw_buf *out, struct gw_str document, struct gw_str keys,
                    struct gw_error *err)
{
    struct selection s = {.keys = keys};
    struct gw_json_reader *r = gw_json_reader_new(document.n, on_document, &s);
    int rc;

    if (r == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for an info document");
    }
    s.rewriter = (struct hub_rewriter){.out = out, .drop = is_unasked, .ctx = &s};
    rc = gw_json_reader_feed(r, document, err);
    if (rc == GW_OK) {
        rc = gw_json_reader_finish(r, err);
    }
    if (s.error.status != GW_OK && err != NULL) {
        *err = s.error;
    }
    gw_json_reader_free(r);
    return rc;
}

/* ---- refs and commits ---- */

static void put_ref_list(struct gw_buf *out, const char *key, const struct hub_ref *refs, size_t n)
{
    gw_json_put_key(out, key);
    gw_buf_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        gw_json_put_comma(out);
        gw_buf_add_char(out, '{');
        put_text(out, "name", refs[i].name);
        put_text(out, "ref", refs[i].ref);
        put_text(out, "targetCommit", refs[i].commit);
        gw_buf_add_char(out, '}');
    }
    gw_buf_add_char(out, ']');
}

void hub_put_refs(struct gw_buf *out, const struct hub_ref *branches, size_t n_branches,
                  const struct hub_ref *tags, size_t n_tags, const struct hub_ref *pulls,
                  size_t n_pulls)
{
    gw_buf_add_char(out, '{');
    put_ref_list(out, "branches", branches, n_branches);
    put_ref_list(out, "converts", NULL, 0);
    put_ref_list(out, "tags", tags, n_tags);
    if (pulls != NULL) {
        put_ref_list(out, "pullRequests", pulls, n_pulls);
    }
    gw_buf_add_char(out, '}');
}

void hub_put_commit(struct gw_buf *out, const struct hub_commit *c)
{
    gw_buf_add_char(out, '{');
    put_text(out, "id", c->id);
    put_text(out, "title", c->title);
    put_text(out, "message", c->message);
    gw_json_put_key(out, "authors");
    gw_buf_add_c(out, "[{");
    put_text(out, "user", c->author);
    gw_buf_add_c(out, "}]");
    put_date(out, "date", c->date_ms);
    gw_buf_add_char(out, '}');
}

/* ---- whoami ---- */

static void put_orgs(struct gw_buf *out, const struct hub_person *p)
{
    gw_json_put_key(out, "orgs");
    gw_buf_add_char(out, '[');
    for (size_t i = 0; i < p->n_orgs; i++) {
        gw_json_put_comma(out);
        gw_buf_add_char(out, '{');
        put_text(out, "type", GW_STR("org"));
        put_object_id(out, "id", "org", p->orgs[i]);
        put_text(out, "name", p->orgs[i]);
        put_text(out, "fullname", p->orgs[i]);
        put_text(out, "roleInOrg", p->roles != NULL ? p->roles[i] : p->token_role);
        put_bool(out, "isEnterprise", false);
        gw_buf_add_char(out, '}');
    }
    gw_buf_add_char(out, ']');
}

void hub_put_whoami(struct gw_buf *out, const struct hub_person *p)
{
    gw_buf_add_char(out, '{');
    put_text(out, "type", GW_STR("user"));
    put_text(out, "id", p->id);
    put_text(out, "name", p->name);
    put_text(out, "fullname", p->fullname);
    put_text(out, "email", p->email);
    put_bool(out, "emailVerified", p->email.n != 0);
    put_bool(out, "canPay", false);
    put_bool(out, "isPro", false);
    put_text(out, "avatarUrl", GW_STR(""));
    gw_json_put_key(out, "periodEnd");
    gw_buf_add_c(out, "null");
    put_orgs(out, p);
    gw_json_put_key(out, "auth");
    gw_buf_add_char(out, '{');
    put_text(out, "type", GW_STR("access_token"));
    gw_json_put_key(out, "accessToken");
    gw_buf_add_char(out, '{');
    put_text(out, "displayName", p->token_name);
    put_text(out, "role", p->token_role);
    put_date(out, "createdAt", p->token_created_ms);
    gw_buf_add_c(out, "}}}");
}
