/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub/card.c - is the head of a README.md one that the Hub's readers understand? Asked before an
 * upload (validate-yaml): errors end it in the client, warnings are printed.
 */
#include "hub/hub.h"

#include "base/yaml.h"

#include <stdio.h>

#define CONTENT_MAX (4u << 20)
#define HEAD_MAX (1u << 20)

enum { WORD = 1, LIST = 2 };

static const struct {
    const char *key;
    unsigned kinds; /* what it may be */
} keys[] = {
    {"base_model", WORD | LIST},
    {"datasets", WORD | LIST},
    {"language", WORD | LIST},
    {"library_name", WORD},
    {"license", WORD | LIST},
    {"license_link", WORD},
    {"license_name", WORD},
    {"metrics", WORD | LIST},
    {"model-index", LIST},
    {"pipeline_tag", WORD},
    {"tags", LIST},
    {"base_model_relation", WORD},
    {"pretty_name", WORD},
};

/* ---- the body ---- */

struct body {
    struct gw_arena *a;
    struct gw_str content;
    bool at_content, no_memory;
};

static int on_body(void *ctx, enum gw_json_event ev, struct gw_str text, unsigned depth)
{
    struct body *b = ctx;

    if (depth == 1 && ev == GW_JSON_KEY) {
        b->at_content = gw_str_eq_c(text, "content");
    } else if (depth == 1 && ev == GW_JSON_STRING && b->at_content) {
        b->content = gw_arena_dup(b->a, text);
        b->no_memory = b->content.p == NULL;
    }
    return b->no_memory ? GW_NO_MEMORY : GW_OK;
}

static int read_body(struct body *b, struct gw_str text, struct gw_error *err)
{
    struct gw_json_reader *json = gw_json_reader_new(CONTENT_MAX, on_body, b);
    int rc;

    if (json == NULL) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a README.md");
    }
    rc = gw_json_reader_feed(json, text, err);
    if (rc == GW_OK) {
        rc = gw_json_reader_finish(json, err);
    }
    gw_json_reader_free(json);
    if (b->no_memory) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for a README.md");
    }
    if (rc == GW_OK && b->content.p == NULL) {
        return gw_fail(err, GW_INVALID, 0, "no \"content\"");
    }
    return rc;
}

/* ---- the head ---- */

static bool is_fence(struct gw_str line)
{
    while (line.n > 3 && strchr(" \t\r", line.p[line.n - 1]) != NULL) {
        line.n--;
    }
    return gw_str_eq_c(line, "---");
}

bool hub_card_head(struct gw_str readme, struct gw_str *head)
{
    struct gw_str rest, line;
    const char *from;

    if (gw_str_starts(readme, GW_STR("\xef\xbb\xbf"))) {
        readme = gw_str_sub(readme, 3, readme.n);
    }
    rest = readme;
    if (!gw_str_split(&rest, '\n', &line) || !is_fence(line)) {
        return false;
    }
    from = line.p + line.n; /* the end of line 1: so lines have their numbers in the README */
    while (rest.p != NULL && gw_str_split(&rest, '\n', &line)) {
        if (is_fence(line)) {
            *head = (struct gw_str){from, (size_t)(line.p - from)};
            return true;
        }
    }
    return false;
}

static void put_message(struct gw_buf *out, struct gw_str text)
{
    gw_json_put_comma(out);
    gw_buf_add_char(out, '{');
    gw_json_put_key(out, "message");
    gw_json_put_string(out, text);
    gw_buf_add_char(out, '}');
}

static bool is_list_of_words(const struct gw_yaml *v)
{
    for (const struct gw_yaml *n = v->child; n != NULL; n = n->next) {
        if (n->kind != GW_YAML_SCALAR) {
            return false;
        }
    }
    return v->kind == GW_YAML_LIST;
}

static bool is_right(const struct gw_yaml *v, unsigned kinds, const char *key)
{
    if (v->kind == GW_YAML_SCALAR) {
        /* "tags:" and nothing is as if it were not there */
        return (kinds & WORD) != 0 || (v->value.n == 0 && !v->quoted);
    }
    if (v->kind != GW_YAML_LIST || (kinds & LIST) == 0) {
        return false;
    }
    return strcmp(key, "model-index") == 0 || is_list_of_words(v);
}

/* @return how many errors were written */
static size_t check_keys(struct gw_buf *out, const struct gw_yaml *head)
{
    size_t n = 0;
    char text[160];

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const struct gw_yaml *v = gw_yaml_get(head, keys[i].key);

        if (v == NULL || is_right(v, keys[i].kinds, keys[i].key)) {
            continue;
        }
        snprintf(text, sizeof(text), "README.md:%u:%u: \"%s\" must be a %s", v->key_line,
                 v->key_column, keys[i].key,
                 keys[i].kinds == WORD   ? "text"
                 : keys[i].kinds == LIST ? "list"
                                         : "text or a list of texts");
        put_message(out, gw_str_c(text));
        n++;
    }
    return n;
}

/* Errors into out. What our own strict reader cannot take (anchors, say) is YAML all the same.
 * @return how many */
static size_t check_head(struct gw_buf *out, struct gw_str head, struct gw_arena *a)
{
    struct gw_yaml *root;
    struct gw_error err;

    if (gw_yaml_syntax(GW_STR("README.md"), head, &err) != GW_OK) {
        put_message(out, gw_str_c(err.text));
        return 1;
    }
    if (gw_yaml_parse(&root, GW_STR("README.md"), head, a, &err) != GW_OK) {
        return 0;
    }
    if (root->kind != GW_YAML_MAP) {
        put_message(out, GW_STR("README.md: the metadata between the lines --- must be \"key: "
                                "value\" lines"));
        return 1;
    }
    return check_keys(out, root);
}

/* ---- the head as JSON ---- */

#define CARD_JSON_MAX (32u << 10)

/* The number of JSON and no other: 1.0 of YAML's 01, +1, .5, 0x1 or a date stays a text. */
static bool is_number(struct gw_str s)
{
    size_t i = s.n != 0 && s.p[0] == '-', from = i;

    while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9') {
        i++;
    }
    if (i == from || (s.p[from] == '0' && i - from > 1) || i > 15) {
        return false;
    }
    if (i < s.n && s.p[i] == '.') {
        for (from = ++i; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) {
        }
        return i == s.n && i > from && s.n <= 24;
    }
    return i == s.n;
}

/* metric: only values of results are numbers to who reads them; a licence "3" is a text. */
static void put_yaml(struct gw_buf *out, const struct gw_yaml *v, bool metric)
{
    if (v->kind != GW_YAML_SCALAR) {
        gw_buf_add_char(out, v->kind == GW_YAML_MAP ? '{' : '[');
        for (const struct gw_yaml *n = v->child; n != NULL; n = n->next) {
            gw_json_put_comma(out);
            if (v->kind == GW_YAML_MAP) {
                gw_json_put_string(out, n->key);
                gw_buf_add_char(out, ':');
            }
            put_yaml(out, n, metric || v->kind == GW_YAML_MAP);
        }
        gw_buf_add_char(out, v->kind == GW_YAML_MAP ? '}' : ']');
    } else if (v->quoted) {
        gw_json_put_string(out, v->value);
    } else if (v->value.n == 0 || gw_str_eq_c(v->value, "null") || gw_str_eq_c(v->value, "~")) {
        gw_buf_add_c(out, "null");
    } else if (gw_str_eq_c(v->value, "true") || gw_str_eq_c(v->value, "false") ||
               (metric && is_number(v->value))) {
        gw_buf_add(out, v->value);
    } else {
        gw_json_put_string(out, v->value);
    }
}

void hub_card_json(struct gw_buf *out, struct gw_str readme, struct gw_arena *a)
{
    struct gw_str head;
    struct gw_yaml *root;
    struct gw_buf json;

    if (!hub_card_head(readme, &head) || head.n > CARD_JSON_MAX ||
        gw_yaml_parse(&root, GW_STR("README.md"), head, a, NULL) != GW_OK ||
        root->kind != GW_YAML_MAP) {
        return;
    }
    gw_buf_init(&json, CARD_JSON_MAX);
    gw_buf_add_char(&json, '{');
    for (const struct gw_yaml *n = root->child; n != NULL; n = n->next) {
        gw_json_put_comma(&json);
        gw_json_put_string(&json, n->key);
        gw_buf_add_char(&json, ':');
        put_yaml(&json, n, false);
    }
    gw_buf_add_char(&json, '}');
    if (!json.failed) {
        gw_buf_add(out, gw_buf_str(&json));
    }
    gw_buf_release(&json);
}

int hub_card_check(struct gw_buf *out, bool *valid, struct gw_str body, struct gw_arena *a,
                   struct gw_error *err)
{
    struct body b = {.a = a, .content = {NULL, 0}};
    struct gw_str head = GW_STR("");
    bool any;
    int rc = read_body(&b, body, err);

    if (rc != GW_OK) {
        return rc;
    }
    any = hub_card_head(b.content, &head);
    gw_buf_add_c(out, "{\"errors\":[");
    if (head.n > HEAD_MAX) {
        put_message(out, GW_STR("README.md: more than 1 MiB of metadata"));
        *valid = false;
    } else {
        *valid = !any || check_head(out, head, a) == 0;
    }
    gw_buf_add_c(out, "],\"warnings\":[");
    if (!any) {
        put_message(out, GW_STR("empty or missing yaml metadata in repo card"));
    }
    gw_buf_add_c(out, "]}");
    return gw_buf_ok(out, err);
}
