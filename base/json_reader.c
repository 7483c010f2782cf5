/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/json_reader.c - a push parser for RFC 8259: bytes in, events out, in memory that is bounded
 * from the start.
 *
 * A token that lies whole and unescaped in one chunk is handed out where it lies; only one that is
 * split or has escapes is gathered in `token`. The containers are a stack of bits. Nothing here
 * recurses or allocates.
 */
#include "base/json.h"

#include "base/alloc.h"

enum state {
    VALUE,      /* a value must come */
    FIRST_ITEM, /* behind '[': a value or ']' */
    FIRST_KEY,  /* behind '{': a key or '}' */
    KEY,        /* behind ',' in an object */
    COLON,
    AFTER, /* behind an item or member: ',' or the end of the container */
    DONE,  /* only white space */
    STRING,
    ESCAPE, /* behind '\' */
    HEX,    /* behind '\u', hex_left digits to come */
    NUMBER,
    LITERAL,
    FAILED,
};

/* Where in a number we are: the state behind what was read. */
enum number {
    NONE,
    MINUS,
    ZERO,
    INTEGER,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_DIGIT
};

struct literal {
    const char *text;
    enum gw_json_event event;
};

static const struct literal literals[] = {
    {"true", GW_JSON_TRUE},
    {"false", GW_JSON_FALSE},
    {"null", GW_JSON_NULL},
};

/* Nobody sends so much of it in a row; without a limit what never ends looks like a document. */
#define SPACE_MAX (64u << 10)

struct gw_json_reader {
    gw_json_on_event on;
    void *ctx;
    uint64_t consumed; /* bytes of earlier chunks, for messages */
    uint64_t objects;  /* the innermost container is bit 0: 1 = object */
    unsigned depth;
    enum state state;
    enum number number;
    bool is_key;

    unsigned char utf8_left, utf8_lo,
        utf8_hi;                   /* bytes to come of a character, range of the next one */
    unsigned hex_left, unit, high; /* high: a first surrogate that waits for its second */

    const struct literal *literal;
    size_t literal_n;

    size_t space; /* white space in a row */
    size_t token_n, token_max;
    char token[];
};

/* The chunk being read. run: first byte of the current token that is not in `token` yet. */
struct chunk {
    const char *begin, *p, *end, *run;
    struct gw_error *err;
};

struct gw_json_reader *gw_json_reader_new(size_t max_token, gw_json_on_event on, void *ctx)
{
    struct gw_json_reader *r;

    if (max_token > SIZE_MAX / 2) {
        return NULL;
    }
    r = gw_realloc(NULL, sizeof(*r) + max_token); /* megabytes, perhaps: not to be cleared */
    if (r == NULL) {
        return NULL;
    }
    memset(r, 0, sizeof(*r));
    r->on = on;
    r->ctx = ctx;
    r->token_max = max_token;
    r->state = VALUE;
    return r;
}

void gw_json_reader_again(struct gw_json_reader *r)
{
    *r = (struct gw_json_reader){
        .on = r->on, .ctx = r->ctx, .token_max = r->token_max, .state = VALUE};
}

void gw_json_reader_free(struct gw_json_reader *r)
{
    gw_free(r);
}

/* ---- failing, telling ---- */

static int fail(struct gw_json_reader *r, const struct chunk *c, enum gw_status s, const char *what)
{
    r->state = FAILED;
    return gw_fail(c->err, s, 0, "JSON byte %llu: %s",
                   (unsigned long long)(r->consumed + (uint64_t)(c->p - c->begin)), what);
}

static int invalid(struct gw_json_reader *r, const struct chunk *c, const char *what)
{
    return fail(r, c, GW_INVALID, what);
}

static int tell(struct gw_json_reader *r, enum gw_json_event ev, struct gw_str text)
{
    int rc = r->on(r->ctx, ev, text, r->depth);

    if (rc != GW_OK) {
        r->state = FAILED;
    }
    return rc;
}

static void value_ended(struct gw_json_reader *r)
{
    r->state = r->depth != 0 ? AFTER : DONE;
}

/* ---- tokens ---- */

static int keep(struct gw_json_reader *r, const struct chunk *c, const char *p, size_t n)
{
    if (n > r->token_max - r->token_n) {
        return fail(r, c, GW_TOO_LARGE, "a string or number is over the ceiling");
    }
    memcpy(r->token + r->token_n, p, n);
    r->token_n += n;
    return GW_OK;
}

static int keep_run(struct gw_json_reader *r, struct chunk *c)
{
    int rc = keep(r, c, c->run, (size_t)(c->p - c->run));

    c->run = c->p;
    return rc;
}

static int tell_token(struct gw_json_reader *r, struct chunk *c, enum gw_json_event ev)
{
    struct gw_str text = {c->run, (size_t)(c->p - c->run)};

    if (r->token_n != 0) {
        int rc = keep_run(r, c);

        if (rc != GW_OK) {
            return rc;
        }
        text = (struct gw_str){r->token, r->token_n};
    } else if (text.n > r->token_max) {
        return fail(r, c, GW_TOO_LARGE, "a string or number is over the ceiling");
    }
    r->token_n = 0;
    return tell(r, ev, text);
}

/* ---- strings ---- */

static bool is_plain(char c)
{
    return (unsigned char)c >= 0x20 && (unsigned char)c < 0x80 && c != '"' && c != '\\';
}

/* Over plain ASCII, eight bytes at a time. */
static const char *skip_plain(const char *p, const char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);

    while (end - p >= 8) {
        uint64_t v, quote, slash;

        memcpy(&v, p, sizeof(v));
        quote = v ^ (ones * '"');
        slash = v ^ (ones * '\\');
        /* the high bit of a byte appears if it was set, the byte was below 0x20, or equal to one of
         * the two */
        if (((v | (v - ones * 0x20) | (quote - ones) | (slash - ones)) & (ones * 0x80)) != 0) {
            break;
        }
        p += 8;
    }
    while (p != end && is_plain(*p)) {
        p++;
    }
    return p;
}

/* RFC 3629 section 4. false: no character begins with this byte */
static bool begin_utf8(struct gw_json_reader *r, unsigned char lead)
{
    r->utf8_lo = 0x80;
    r->utf8_hi = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) {
        r->utf8_left = 1;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        r->utf8_left = 2;
        r->utf8_lo = lead == 0xe0 ? 0xa0 : 0x80;
        r->utf8_hi = lead == 0xed ? 0x9f : 0xbf;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        r->utf8_left = 3;
        r->utf8_lo = lead == 0xf0 ? 0x90 : 0x80;
        r->utf8_hi = lead == 0xf4 ? 0x8f : 0xbf;
    } else {
        return false;
    }
    return true;
}

/* Decoded, not written as it stands. */
static int keep_code_point(struct gw_json_reader *r, const struct chunk *c, unsigned cp)
{
    char out[4];
    size_t n = 0;

    if (cp < 0x80) {
        out[n++] = (char)cp;
    } else if (cp < 0x800) {
        out[n++] = (char)(0xc0 | cp >> 6);
        out[n++] = (char)(0x80 | (cp & 0x3f));
    } else if (cp < 0x10000) {
        out[n++] = (char)(0xe0 | cp >> 12);
        out[n++] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[n++] = (char)(0x80 | (cp & 0x3f));
    } else {
        out[n++] = (char)(0xf0 | cp >> 18);
        out[n++] = (char)(0x80 | (cp >> 12 & 0x3f));
        out[n++] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[n++] = (char)(0x80 | (cp & 0x3f));
    }
    return keep(r, c, out, n);
}

/* A first surrogate whose second did not come. */
static int settle_high(struct gw_json_reader *r, const struct chunk *c)
{
    if (r->high == 0) {
        return GW_OK;
    }
    r->high = 0;
    return keep_code_point(r, c, 0xfffd);
}

static int on_unit(struct gw_json_reader *r, const struct chunk *c)
{
    unsigned unit = r->unit;
    int rc;

    if (r->high != 0 && unit >= 0xdc00 && unit <= 0xdfff) {
        unit = 0x10000 + ((r->high - 0xd800) << 10) + (unit - 0xdc00);
        r->high = 0;
        return keep_code_point(r, c, unit);
    }
    rc = settle_high(r, c);
    if (rc != GW_OK) {
        return rc;
    }
    if (unit >= 0xd800 && unit <= 0xdbff) {
        r->high = unit;
        return GW_OK;
    }
    return keep_code_point(r, c, unit >= 0xdc00 && unit <= 0xdfff ? 0xfffd : unit);
}

static int on_string_end(struct gw_json_reader *r, struct chunk *c)
{
    int rc = tell_token(r, c, r->is_key ? GW_JSON_KEY : GW_JSON_STRING);

    c->p++;
    if (rc != GW_OK) {
        return rc;
    }
    if (r->is_key) {
        r->state = COLON;
    } else {
        value_ended(r);
    }
    return GW_OK;
}

static int read_string(struct gw_json_reader *r, struct chunk *c)
{
    while (c->p != c->end) {
        unsigned char byte = (unsigned char)*c->p;
        int rc;

        if (r->utf8_left != 0) {
            if (byte < r->utf8_lo || byte > r->utf8_hi) {
                return invalid(r, c, "not UTF-8");
            }
            r->utf8_left--;
            r->utf8_lo = 0x80;
            r->utf8_hi = 0xbf;
            c->p++;
            continue;
        }
        if (byte != '\\') {
            rc = settle_high(r, c);
            if (rc != GW_OK) {
                return rc;
            }
        }
        if (byte >= 0x80) {
            if (!begin_utf8(r, byte)) {
                return invalid(r, c, "not UTF-8");
            }
            c->p++;
        } else if (byte == '"') {
            return on_string_end(r, c);
        } else if (byte == '\\') {
            rc = keep_run(r, c);
            c->p++;
            r->state = rc == GW_OK ? ESCAPE : FAILED;
            return rc;
        } else if (byte < 0x20) {
            return invalid(r, c, "a control character in a string");
        } else {
            c->p = skip_plain(c->p, c->end);
        }
    }
    return GW_OK;
}

static int read_escape(struct gw_json_reader *r, struct chunk *c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at;
    int rc;

    if (*c->p == 'u') {
        r->hex_left = 4;
        r->unit = 0;
        r->state = HEX;
        c->p++;
        return GW_OK;
    }
    at = *c->p != '\0' ? strchr(from, *c->p) : NULL;
    if (at == NULL) {
        return invalid(r, c, "an unknown escape");
    }
    rc = settle_high(r, c);
    if (rc == GW_OK) {
        rc = keep(r, c, &to[at - from], 1);
    }
    if (rc != GW_OK) {
        return rc;
    }
    c->p++;
    c->run = c->p;
    r->state = STRING;
    return GW_OK;
}

static int read_hex(struct gw_json_reader *r, struct chunk *c)
{
    char h = *c->p;
    int rc;

    if (h >= '0' && h <= '9') {
        r->unit = r->unit << 4 | (unsigned)(h - '0');
    } else if ((h >= 'a' && h <= 'f') || (h >= 'A' && h <= 'F')) {
        r->unit = r->unit << 4 | ((unsigned)(h | 0x20) - 'a' + 10);
    } else {
        return invalid(r, c, "a bad \\u escape");
    }
    if (--r->hex_left == 0) {
        rc = on_unit(r, c);
        if (rc != GW_OK) {
            return rc;
        }
        r->state = STRING;
    }
    c->p++;
    c->run = c->p;
    return GW_OK;
}

/* ---- numbers and literals ---- */

/* The state behind c; NONE: c is no part of the number. */
static enum number number_step(enum number at, char c)
{
    bool digit = c >= '0' && c <= '9', exponent = c == 'e' || c == 'E';

    switch (at) {
    case NONE:
        return c == '-' ? MINUS : c == '0' ? ZERO : digit ? INTEGER : NONE;
    case MINUS:
        return c == '0' ? ZERO : digit ? INTEGER : NONE;
    case ZERO:
        return c == '.' ? POINT : exponent ? EXPONENT : NONE;
    case INTEGER:
        return digit ? INTEGER : c == '.' ? POINT : exponent ? EXPONENT : NONE;
    case POINT:
        return digit ? FRACTION : NONE;
    case FRACTION:
        return digit ? FRACTION : exponent ? EXPONENT : NONE;
    case EXPONENT:
        return c == '+' || c == '-' ? EXPONENT_SIGN : digit ? EXPONENT_DIGIT : NONE;
    case EXPONENT_SIGN:
    case EXPONENT_DIGIT:
        return digit ? EXPONENT_DIGIT : NONE;
    }
    return NONE;
}

static int on_number_end(struct gw_json_reader *r, struct chunk *c)
{
    int rc;

    if (r->number != ZERO && r->number != INTEGER && r->number != FRACTION &&
        r->number != EXPONENT_DIGIT) {
        return invalid(r, c, "an unfinished number");
    }
    rc = tell_token(r, c, GW_JSON_NUMBER);
    if (rc == GW_OK) {
        value_ended(r);
    }
    return rc;
}

static int read_number(struct gw_json_reader *r, struct chunk *c)
{
    for (; c->p != c->end; c->p++) {
        enum number next = number_step(r->number, *c->p);

        if (next == NONE) {
            return on_number_end(r, c);
        }
        r->number = next;
    }
    return GW_OK;
}

static int read_literal(struct gw_json_reader *r, struct chunk *c)
{
    const char *text = r->literal->text;

    while (c->p != c->end && text[r->literal_n] != '\0') {
        if (*c->p != text[r->literal_n]) {
            return invalid(r, c, "an unknown word");
        }
        r->literal_n++;
        c->p++;
    }
    if (text[r->literal_n] == '\0') {
        int rc = tell(r, r->literal->event, GW_STR(""));

        if (rc != GW_OK) {
            return rc;
        }
        value_ended(r);
    }
    return GW_OK;
}

/* ---- structure ---- */

static int open_container(struct gw_json_reader *r, struct chunk *c, bool object)
{
    int rc;

    if (r->depth == GW_JSON_DEPTH_MAX) {
        return fail(r, c, GW_TOO_LARGE, "nested too deep");
    }
    rc = tell(r, object ? GW_JSON_OBJECT_BEGIN : GW_JSON_ARRAY_BEGIN, GW_STR(""));
    if (rc != GW_OK) {
        return rc;
    }
    r->objects = r->objects << 1 | object;
    r->depth++;
    r->state = object ? FIRST_KEY : FIRST_ITEM;
    c->p++;
    return GW_OK;
}

static int close_container(struct gw_json_reader *r, struct chunk *c)
{
    bool object = (r->objects & 1) != 0;
    int rc;

    r->objects >>= 1;
    r->depth--;
    rc = tell(r, object ? GW_JSON_OBJECT_END : GW_JSON_ARRAY_END, GW_STR(""));
    if (rc != GW_OK) {
        return rc;
    }
    value_ended(r);
    c->p++;
    return GW_OK;
}

static int begin_string(struct gw_json_reader *r, struct chunk *c, bool is_key)
{
    r->is_key = is_key;
    r->state = STRING;
    c->p++;
    c->run = c->p;
    return GW_OK;
}

static int begin_value(struct gw_json_reader *r, struct chunk *c)
{
    switch (*c->p) {
    case '{':
        return open_container(r, c, true);
    case '[':
        return open_container(r, c, false);
    case '"':
        return begin_string(r, c, false);
    }
    if (number_step(NONE, *c->p) != NONE) {
        r->number = NONE;
        r->state = NUMBER;
        c->run = c->p;
        return GW_OK;
    }
    for (size_t i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        if (*c->p == literals[i].text[0]) {
            r->literal = &literals[i];
            r->literal_n = 0;
            r->state = LITERAL;
            return GW_OK;
        }
    }
    return invalid(r, c, "expected a value");
}

static int after_item(struct gw_json_reader *r, struct chunk *c)
{
    bool object = (r->objects & 1) != 0;

    if (*c->p == ',') {
        r->state = object ? KEY : VALUE;
        c->p++;
        return GW_OK;
    }
    if (*c->p == (object ? '}' : ']')) {
        return close_container(r, c);
    }
    return invalid(r, c, object ? "expected ',' or '}'" : "expected ',' or ']'");
}

static int read_structure(struct gw_json_reader *r, struct chunk *c)
{
    while (c->p != c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\r' || *c->p == '\t')) {
        c->p++;
        if (++r->space > SPACE_MAX) {
            return fail(r, c, GW_TOO_LARGE, "white space without end");
        }
    }
    if (c->p == c->end) {
        return GW_OK;
    }
    r->space = 0;
    switch (r->state) {
    case VALUE:
        return begin_value(r, c);
    case FIRST_ITEM:
        return *c->p == ']' ? close_container(r, c) : begin_value(r, c);
    case FIRST_KEY:
        if (*c->p == '}') {
            return close_container(r, c);
        }
        return *c->p == '"' ? begin_string(r, c, true) : invalid(r, c, "expected a key or '}'");
    case KEY:
        return *c->p == '"' ? begin_string(r, c, true) : invalid(r, c, "expected a key");
    case COLON:
        if (*c->p != ':') {
            return invalid(r, c, "expected ':'");
        }
        r->state = VALUE;
        c->p++;
        return GW_OK;
    case AFTER:
        return after_item(r, c);
    default:
        return invalid(r, c, "text behind the document");
    }
}

int gw_json_reader_feed(struct gw_json_reader *r, struct gw_str bytes, struct gw_error *err)
{
    struct chunk c = {.err = err};
    int rc = GW_OK;

    if (r->state == FAILED) {
        return gw_fail(err, GW_INVALID, 0, "JSON: read on after a failure");
    }
    if (bytes.n == 0) {
        return GW_OK;
    }
    c.begin = c.p = c.run = bytes.p;
    c.end = bytes.p + bytes.n;
    while (rc == GW_OK && c.p != c.end) {
        switch (r->state) {
        case STRING:
            rc = read_string(r, &c);
            break;
        case ESCAPE:
            rc = read_escape(r, &c);
            break;
        case HEX:
            rc = read_hex(r, &c);
            break;
        case NUMBER:
            rc = read_number(r, &c);
            break;
        case LITERAL:
            rc = read_literal(r, &c);
            break;
        default:
            rc = read_structure(r, &c);
        }
    }
    if (rc == GW_OK && (r->state == STRING || r->state == NUMBER)) {
        rc = keep_run(r, &c); /* the caller's bytes go away */
    }
    r->consumed += bytes.n;
    return rc;
}

int gw_json_reader_finish(struct gw_json_reader *r, struct gw_error *err)
{
    struct chunk c = {
        .begin = r->token, .p = r->token, .end = r->token, .run = r->token, .err = err};
    int rc = GW_OK;

    if (r->state == NUMBER && r->depth == 0) { /* only its end could tell that it is whole */
        rc = on_number_end(r, &c);
    }
    if (rc == GW_OK && r->state != DONE) {
        rc = invalid(r, &c, "the document is not finished");
    }
    return rc;
}
