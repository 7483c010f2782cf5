/* SPDX-License-Identifier: Apache-2.0 */
/* hub/name.c - types, and which bytes a name or a path may have. */
#include "hub/hub_internal.h"

#include "base/encode.h"

static const struct {
    struct gw_str name, plural;
} types[] = {
    [HUB_MODEL] = {GW_STR_INIT("model"), GW_STR_INIT("models")},
    [HUB_DATASET] = {GW_STR_INIT("dataset"), GW_STR_INIT("datasets")},
    [HUB_SPACE] = {GW_STR_INIT("space"), GW_STR_INIT("spaces")},
    [HUB_KERNEL] = {GW_STR_INIT("kernel"), GW_STR_INIT("kernels")},
};
#define TYPE_COUNT (sizeof(types) / sizeof(types[0]))

const char *hub_type_name(enum hub_type t)
{
    return (size_t)t < TYPE_COUNT ? types[t].name.p : "unknown";
}

const char *hub_type_plural(enum hub_type t)
{
    return (size_t)t < TYPE_COUNT ? types[t].plural.p : "unknown";
}

bool hub_type_parse(struct gw_str word, enum hub_type *out)
{
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (gw_str_eq(word, types[i].name) || gw_str_eq(word, types[i].plural)) {
            *out = (enum hub_type)i;
            return true;
        }
    }
    return false;
}

bool hub_is_commit(struct gw_str revision)
{
    return gw_is_hex_lower(revision, 40);
}

/* ---- names of repos ---- */

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

bool hub_name_ok(struct gw_str name)
{
    char first, last;

    if (name.n == 0 || name.n > HUB_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];

        if (!is_name_byte(c) || (i != 0 && (c == '-' || c == '.') && name.p[i - 1] == c)) {
            return false;
        }
    }
    first = name.p[0];
    last = name.p[name.n - 1];
    return first != '-' && first != '.' && last != '-' && last != '.' &&
           !(name.n >= 4 && gw_str_ieq_c(gw_str_sub(name, name.n - 4, 4), ".git"));
}

bool hub_name_reserved(struct gw_str name)
{
    static const struct gw_str words[] = {
        GW_STR_INIT("api"),           GW_STR_INIT("datasets"),    GW_STR_INIT("spaces"),
        GW_STR_INIT("kernels"),       GW_STR_INIT("buckets"),     GW_STR_INIT("models"),
        GW_STR_INIT("oauth"),         GW_STR_INIT("docs"),        GW_STR_INIT("settings"),
        GW_STR_INIT("resolve-cache"), GW_STR_INIT("collections"), GW_STR_INIT("papers"),
        GW_STR_INIT("login"),         GW_STR_INIT("join"),        GW_STR_INIT("organizations"),
        GW_STR_INIT("new"),           GW_STR_INIT(".well-known"),
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (gw_str_ieq(name, words[i])) {
            return true;
        }
    }
    return false;
}

bool hub_repo_id_ok(struct gw_str id)
{
    struct gw_str rest = id, first, second, third;

    if (id.n == 0 || !gw_str_split(&rest, '/', &first) || hub_name_reserved(first)) {
        return false;
    }
    if (!gw_str_split(&rest, '/', &second)) {
        return hub_name_ok(first);
    }
    return hub_name_ok(first) && hub_name_ok(second) && !gw_str_split(&rest, '/', &third);
}

/* ---- text and paths ---- */

static uint32_t code_point(const unsigned char *p, size_t n)
{
    switch (n) {
    case 1:
        return p[0];
    case 2:
        return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    case 3:
        return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    default:
        return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 |
               (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    }
}

/* Characters that change how a name reads without being seen, and line ends. */
static bool is_hidden(uint32_t cp)
{
    static const struct {
        uint32_t from, to;
    } ranges[] = {
        {0x80, 0x9f},       /* C1 controls */
        {0x61c, 0x61c},     /* Arabic letter mark */
        {0x180e, 0x180e},   /* Mongolian vowel separator */
        {0x200b, 0x200f},   /* zero width, marks of direction */
        {0x2028, 0x202e},   /* line and paragraph ends, embeddings, overrides */
        {0x2060, 0x206f},   /* word joiner, isolates, deprecated format characters */
        {0xfeff, 0xfeff},   /* byte order mark */
        {0xfff9, 0xfffb},   /* interlinear annotation */
        {0xe0000, 0xe007f}, /* tags */
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (cp >= ranges[i].from && cp <= ranges[i].to) {
            return true;
        }
    }
    return false;
}

static bool is_text(struct gw_str text, bool hidden_allowed)
{
    while (text.n != 0) {
        unsigned char c = (unsigned char)text.p[0];
        size_t n = c < 0x80 ? 1 : gw_utf8_char(text);

        if (n == 0 || c < 0x20 || c == 0x7f) {
            return false;
        }
        if (!hidden_allowed &&
            (c == '\\' || (n > 1 && is_hidden(code_point((const unsigned char *)text.p, n))))) {
            return false;
        }
        text.p += n;
        text.n -= n;
    }
    return true;
}

bool hub_text_ok(struct gw_str text)
{
    return is_text(text, false);
}

bool hub_components_ok(struct gw_str path)
{
    struct gw_str part;

    if (path.n == 0) {
        return false;
    }
    while (gw_str_split(&path, '/', &part)) {
        if (part.n == 0 || gw_str_eq_c(part, ".") || gw_str_eq_c(part, "..")) {
            return false;
        }
    }
    return true;
}

bool hub_path_safe(struct gw_str path)
{
    return path.n <= HUB_PATH_MAX && hub_components_ok(path) && is_text(path, true);
}
