/* SPDX-License-Identifier: Apache-2.0 */
/* base/json.c - small documents as jansson's tree, and the one quoter. A gw_json is a json_t by
 * another name. */
#include "base/json.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>

#define DEPTH_MAX 64u

/* ---- reading a document ---- */

/* jansson goes 2,048 deep; its free and our writer recurse. Text that is no JSON at all is left for
 * it to refuse. */
static bool is_too_deep(struct gw_str text)
{
    unsigned depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX) {
                return true;
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

int gw_json_parse(struct gw_json **out, struct gw_str text, struct gw_error *err)
{
    json_error_t e;
    json_t *root;

    if (text.n > GW_JSON_DOC_MAX) {
        return gw_fail(err, GW_TOO_LARGE, 0, "JSON of more than %u bytes", GW_JSON_DOC_MAX);
    }
    /* jansson drops a NUL behind a number or a word: it takes it for the end of its own buffer */
    if (text.n != 0 && memchr(text.p, '\0', text.n) != NULL) {
        return gw_fail(err, GW_INVALID, 0, "JSON with a NUL byte");
    }
    if (is_too_deep(text)) {
        return gw_fail(err, GW_INVALID, 0, "JSON is deeper than %u", DEPTH_MAX);
    }
    root = json_loadb(text.n != 0 ? text.p : "", text.n,
                      JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (root == NULL) {
        char *quote = strstr(e.text, " near '"); /* a piece of the document: it may be a secret */

        if (json_error_code(&e) == json_error_out_of_memory) {
            return gw_fail(err, GW_NO_MEMORY, 0, "no memory for JSON of %zu bytes", text.n);
        }
        if (quote != NULL) {
            *quote = '\0';
        }
        return gw_fail(err, GW_INVALID, 0, "JSON line %d, column %d: %s", e.line, e.column, e.text);
    }
    *out = (struct gw_json *)root;
    return GW_OK;
}

void gw_json_free(struct gw_json *root)
{
    json_decref((json_t *)root);
}

static const json_t *node(const struct gw_json *v)
{
    return (const json_t *)v;
}

const struct gw_json *gw_json_get(const struct gw_json *object, const char *key)
{
    return (const struct gw_json *)json_object_get(node(object), key);
}

const struct gw_json *gw_json_at(const struct gw_json *array, size_t i)
{
    return (const struct gw_json *)json_array_get(node(array), i);
}

size_t gw_json_count(const struct gw_json *array_or_object)
{
    const json_t *v = node(array_or_object);

    return json_is_array(v) ? json_array_size(v) : json_object_size(v);
}

bool gw_json_is_string(const struct gw_json *v)
{
    return json_is_string(node(v));
}

bool gw_json_is_object(const struct gw_json *v)
{
    return json_is_object(node(v));
}

bool gw_json_is_array(const struct gw_json *v)
{
    return json_is_array(node(v));
}

struct gw_str gw_json_string(const struct gw_json *v)
{
    if (!json_is_string(node(v))) {
        return GW_STR("");
    }
    return (struct gw_str){json_string_value(node(v)), json_string_length(node(v))};
}

bool gw_json_bool(const struct gw_json *v)
{
    return json_is_true(node(v));
}

bool gw_json_int(const struct gw_json *v, int64_t *out)
{
    if (!json_is_integer(node(v))) {
        return false;
    }
    *out = json_integer_value(node(v));
    return true;
}

int gw_json_each(const struct gw_json *object,
                 int (*on)(void *ctx, struct gw_str key, const struct gw_json *value), void *ctx)
{
    json_t *o =
        (json_t *)object; /* jansson's iterators take it without const; nothing is changed */

    for (void *i = json_object_iter(o); i != NULL; i = json_object_iter_next(o, i)) {
        int rc = on(ctx, gw_str_c(json_object_iter_key(i)),
                    (const struct gw_json *)json_object_iter_value(i));

        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- writing ---- */

static void put_escape(struct gw_buf *out, unsigned char c)
{
    static const char letters[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    char two[2] = {'\\', (char)c};

    if (c < 0x20 && letters[c] == 0) {
        gw_buf_addf(out, "\\u%04x", c);
        return;
    }
    if (c < 0x20) {
        two[1] = letters[c];
    }
    gw_buf_add(out, (struct gw_str){two, sizeof(two)});
}

void gw_json_put_string(struct gw_buf *out, struct gw_str text)
{
    size_t plain = 0, i = 0; /* text from plain to i needs no change */

    gw_buf_add_char(out, '"');
    while (i < text.n) {
        unsigned char c = (unsigned char)text.p[i];
        struct gw_str rest;
        bool is_separator;
        size_t n;

        if (c < 0x80 && c >= 0x20 && c != '"' && c != '\\') {
            i++;
            continue;
        }
        rest = gw_str_sub(text, i, text.n);
        n = gw_utf8_char(rest);
        /* U+2028 and U+2029: line ends in JavaScript before ES2019 */
        is_separator = gw_str_eq_c(gw_str_sub(rest, 0, 3), "\u2028") ||
                       gw_str_eq_c(gw_str_sub(rest, 0, 3), "\u2029");
        if (n > 1 && !is_separator) {
            i += n;
            continue;
        }
        gw_buf_add(out, gw_str_sub(text, plain, i - plain));
        if (n == 0) {
            gw_buf_add_c(out, "\xef\xbf\xbd"); /* U+FFFD, one for each byte */
            n = 1;
        } else if (is_separator) {
            gw_buf_add_c(out, (unsigned char)rest.p[2] == 0xa8 ? "\\u2028" : "\\u2029");
        } else {
            put_escape(out, c);
        }
        i += n;
        plain = i;
    }
    gw_buf_add(out, gw_str_sub(text, plain, text.n - plain));
    gw_buf_add_char(out, '"');
}

void gw_json_put_comma(struct gw_buf *out)
{
    if (out->n != 0 && out->p[out->n - 1] != '{' && out->p[out->n - 1] != '[') {
        gw_buf_add_char(out, ',');
    }
}

void gw_json_put_key(struct gw_buf *out, const char *key)
{
    gw_json_put_comma(out);
    gw_json_put_string(out, gw_str_c(key));
    gw_buf_add_char(out, ':');
}

/* The shortest text that reads back as the same number. */
static void put_real(struct gw_buf *out, double v)
{
    char text[40];
    int digits = 15;

    do {
        snprintf(text, sizeof(text), "%.*g", digits, v);
    } while (strtod(text, NULL) != v && ++digits <= 17);
    for (char *p = text; *p != '\0'; p++) {
        if (*p == ',') { /* a locale's decimal point */
            *p = '.';
        }
    }
    gw_buf_add_c(out, text);
    if (strpbrk(text, ".e") == NULL) {
        gw_buf_add_c(out, ".0"); /* stays a real when read again */
    }
}

static int put_member(void *ctx, struct gw_str key, const struct gw_json *value)
{
    struct gw_buf *out = ctx;

    gw_json_put_comma(out);
    gw_json_put_string(out, key);
    gw_buf_add_char(out, ':');
    gw_json_put_node(out, value);
    return 0;
}

void gw_json_put_node(struct gw_buf *out, const struct gw_json *v)
{
    if (v == NULL) {
        gw_buf_add_c(out, "null");
        return;
    }
    switch (json_typeof(node(v))) {
    case JSON_OBJECT:
        gw_buf_add_char(out, '{');
        gw_json_each(v, put_member, out);
        gw_buf_add_char(out, '}');
        return;
    case JSON_ARRAY:
        gw_buf_add_char(out, '[');
        for (size_t i = 0; i < gw_json_count(v); i++) {
            gw_json_put_comma(out);
            gw_json_put_node(out, gw_json_at(v, i));
        }
        gw_buf_add_char(out, ']');
        return;
    case JSON_STRING:
        gw_json_put_string(out, gw_json_string(v));
        return;
    case JSON_INTEGER:
        gw_buf_addf(out, "%lld", (long long)json_integer_value(node(v)));
        return;
    case JSON_REAL:
        put_real(out, json_real_value(node(v)));
        return;
    case JSON_TRUE:
        gw_buf_add_c(out, "true");
        return;
    case JSON_FALSE:
        gw_buf_add_c(out, "false");
        return;
    case JSON_NULL:
        gw_buf_add_c(out, "null");
        return;
    }
}
