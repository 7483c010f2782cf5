/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/json.h - JSON three ways: small documents as a tree (jansson inside), large ones as events,
 * and one quoter.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

/* ---- documents of at most 256 KiB ---- */
#define GW_JSON_DOC_MAX (256u << 10)

struct gw_json; /* a node; only the root is owned */

/* @param out  the root, to be freed with gw_json_free; left alone on failure
 * @return GW_OK; GW_INVALID (syntax with line and column, duplicate key, deeper than 64, bad
 * UTF-8); GW_TOO_LARGE; GW_NO_MEMORY */
int gw_json_parse(struct gw_json **out, struct gw_str text, struct gw_error *err) GW_MUST_CHECK;
void gw_json_free(struct gw_json *root); /* NULL is fine */

/* All accept NULL and a wrong type and then give NULL, "", false or 0: a missing key needs no
 * ladder of ifs. */
const struct gw_json *gw_json_get(const struct gw_json *object, const char *key);
const struct gw_json *gw_json_at(const struct gw_json *array, size_t i);
size_t gw_json_count(const struct gw_json *array_or_object);
bool gw_json_is_string(const struct gw_json *v);
bool gw_json_is_object(const struct gw_json *v);
bool gw_json_is_array(const struct gw_json *v);
/* Borrowed from the document; may hold NUL. */
struct gw_str gw_json_string(const struct gw_json *v);
bool gw_json_bool(const struct gw_json *v);
bool gw_json_int(const struct gw_json *v, int64_t *out);
/* Calls on for each member in document order; a nonzero return stops and is returned. */
int gw_json_each(const struct gw_json *object,
                 int (*on)(void *ctx, struct gw_str key, const struct gw_json *value), void *ctx);

/* ---- events, for JSON of any size: a push parser with bounded memory ---- */
enum gw_json_event {
    GW_JSON_OBJECT_BEGIN,
    GW_JSON_OBJECT_END,
    GW_JSON_ARRAY_BEGIN,
    GW_JSON_ARRAY_END,
    GW_JSON_KEY,    /* text: decoded UTF-8 */
    GW_JSON_STRING, /* text: decoded UTF-8 */
    GW_JSON_NUMBER, /* text: the literal, a valid JSON number */
    GW_JSON_TRUE,
    GW_JSON_FALSE,
    GW_JSON_NULL,
};
/* depth: containers around this value, 0 for the top one (BEGIN and END of a container have the
 * same depth; a key has that of its value). text: valid during the call, may hold NUL; empty where
 * no text is named. Duplicate keys are not looked for. A status other than GW_OK stops the parser
 * and is returned by feed or finish, whose err is then left alone: the callback fills its own. */
typedef int (*gw_json_on_event)(void *ctx, enum gw_json_event ev, struct gw_str text,
                                unsigned depth);

struct gw_json_reader;
#define GW_JSON_DEPTH_MAX 64u
/* max_token: bytes of one decoded string or number (memory of the reader is that plus 1 KiB). NULL:
 * no memory. */
struct gw_json_reader *gw_json_reader_new(size_t max_token, gw_json_on_event on, void *ctx);
/* Strict RFC 8259, split anywhere; the one mercy: an escaped surrogate without its other half
 * becomes U+FFFD.
 * @return GW_OK; GW_INVALID; GW_TOO_LARGE (token, depth, 64 KiB of white space in a row); what
 * the callback returned. After a failure: only free. */
int gw_json_reader_feed(struct gw_json_reader *r, struct gw_str bytes,
                        struct gw_error *err) GW_MUST_CHECK;
/* No more bytes come. GW_INVALID: the document is not finished. */
int gw_json_reader_finish(struct gw_json_reader *r, struct gw_error *err) GW_MUST_CHECK;
/* The next document with the same reader, whatever became of the last one. */
void gw_json_reader_again(struct gw_json_reader *r);
void gw_json_reader_free(struct gw_json_reader *r);

/* ---- writing: the one quoter for JSON ---- */
/* "text" with quotes; control characters, U+2028/9 escaped, invalid UTF-8 becomes U+FFFD. */
void gw_json_put_string(struct gw_buf *out, struct gw_str text);
/* Helpers for objects: writes ,"key": as needed (a comma unless the last byte written is '{' or
 * '['). key is a literal. */
void gw_json_put_key(struct gw_buf *out, const char *key);
void gw_json_put_comma(struct gw_buf *out); /* for array items */
/* A tree back to compact text; NULL is null. */
void gw_json_put_node(struct gw_buf *out, const struct gw_json *v);

#endif
