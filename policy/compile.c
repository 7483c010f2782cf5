/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/compile.c - files to a snapshot: parse all, read section by section, rank, index.
 *
 * The trees of all files are held until the end, because a rule may name what another file
 * declares.
 */
#include "policy/compile_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define KEEP_MAX_BYTES ((size_t)1 << 30)
#define TREES_MAX_BYTES ((size_t)1 << 30)
#define SPARE_BYTES ((size_t)1 << 20) /* with more than that to go, it was not the ceiling */
#define COMPLAINTS_MAX 1000u
#define LINE_MAX_BYTES 600

/* ---- memory ---- */

void policy_out_of_memory(struct policy_compiler *c, const struct gw_arena *a, size_t wanted)
{
    if (c->status == GW_OK) {
        c->status = wanted > a->max - a->used ? GW_TOO_LARGE : GW_NO_MEMORY;
    }
}

static void *get(struct policy_compiler *c, struct gw_arena *a, size_t n)
{
    void *p = c->status == GW_OK ? gw_arena_alloc(a, n) : NULL;

    if (!p) {
        policy_out_of_memory(c, a, n);
    }
    return p;
}

void *policy_keep(struct policy_compiler *c, size_t n)
{
    return get(c, c->keep, n);
}

void *policy_tmp(struct policy_compiler *c, size_t n)
{
    return get(c, &c->tmp, n);
}

struct gw_str policy_keep_str(struct policy_compiler *c, struct gw_str s)
{
    char *p = policy_keep(c, s.n + 1);

    if (!p) {
        return (struct gw_str){0};
    }
    if (s.n) {
        memcpy(p, s.p, s.n);
    }
    return (struct gw_str){p, s.n};
}

bool policy_push(struct policy_compiler *c, struct policy_vec *vec, const void *item, size_t size)
{
    if (vec->n == vec->cap) {
        size_t cap = vec->cap ? vec->cap * 2 : 8;
        void *v = policy_tmp(c, cap * size);

        if (!v) {
            return false;
        }
        if (vec->n) {
            memcpy(v, vec->v, vec->n * size);
        }
        vec->v = v;
        vec->cap = cap;
    }
    memcpy((char *)vec->v + vec->n++ * size, item, size);
    return true;
}

/* ---- complaints ---- */

static void complain_line(struct policy_compiler *c, struct gw_str file, unsigned line,
                          unsigned column, const char *text)
{
    struct policy_complaint x = {.file = file, .line = line, .column = column};
    size_t n = strlen(text), i;
    char *copy;

    if (c->complaints.n == COMPLAINTS_MAX) {
        c->unsaid++;
        return;
    }
    copy = policy_tmp(c, n + 1);
    if (!copy) {
        return;
    }
    for (i = 0; i < n; i++) { /* it quotes the file: a line must stay a line */
        copy[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    }
    x.text = (struct gw_str){copy, n};
    policy_push(c, &c->complaints, &x, sizeof(x));
}

void policy_complain(struct policy_compiler *c, const struct gw_yaml *at, bool at_key,
                     const char *fmt, ...)
{
    unsigned line = at_key && at->key_line ? at->key_line : at->line;
    unsigned column = at_key && at->key_line ? at->key_column : at->column;
    char text[LINE_MAX_BYTES];
    va_list ap;
    int n;

    n = snprintf(text, sizeof(text),
                 "%.*s:%u:%u: ", (int)(c->doc->name.n < 200 ? c->doc->name.n : 200), c->doc->name.p,
                 line, column);
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
    va_end(ap);
    complain_line(c, c->doc->name, line, column, text);
}

const char *policy_hint(char buf[POLICY_HINT], struct gw_str word, const char *const *words,
                        size_t n)
{
    const char *near = gw_nearest(word, words, n);

    buf[0] = '\0';
    if (near && !gw_str_eq_c(word, near)) {
        snprintf(buf, POLICY_HINT, "; did you mean \"%.120s\"?", near);
    }
    return buf;
}

const char *policy_hint_name(struct policy_compiler *c, char buf[POLICY_HINT], struct gw_str word,
                             const struct policy_map *names)
{
    const char **words;
    uint32_t i, n = names->n < 1000 ? names->n : 1000; /* a hint is worth no more time than that */

    buf[0] = '\0';
    words = c->complaints.n < COMPLAINTS_MAX ? policy_tmp(c, (n + 1) * sizeof(*words)) : NULL;
    if (!words) {
        return buf;
    }
    for (i = 0; i < n; i++) {
        words[i] = names->keys[i].p;
    }
    return policy_hint(buf, word, words, n);
}

/* ---- nodes ---- */

bool policy_is_null(const struct gw_yaml *node)
{
    return node->kind == GW_YAML_SCALAR && node->value.n == 0 && !node->quoted;
}

static void join_words(char *buf, size_t cap, const char *const *words, size_t n)
{
    size_t i, at = 0;

    for (i = 0; i < n && at < cap; i++) {
        at += (size_t)snprintf(buf + at, cap - at, "%s%s", i ? ", " : "", words[i]);
    }
}

bool policy_check_keys(struct policy_compiler *c, const struct gw_yaml *map,
                       const char *const *known, size_t n, const char *what)
{
    const struct gw_yaml *k;
    char list[240], hint[POLICY_HINT];
    bool good = true;
    size_t i;

    join_words(list, sizeof(list), known, n);
    if (map->kind != GW_YAML_MAP) {
        policy_complain(c, map, false, "%s is a mapping; its keys: %s", what, list);
        return false;
    }
    for (k = map->child; k; k = k->next) {
        for (i = 0; i < n && !gw_str_eq_c(k->key, known[i]); i++)
            ;
        if (i < n) {
            continue;
        }
        policy_complain(c, k, true, "unknown key \"%.64s\" in %s%s; known keys: %s", k->key.p, what,
                        policy_hint(hint, k->key, known, n), list);
        good = false;
    }
    return good;
}

bool policy_scalar(struct policy_compiler *c, const struct gw_yaml *node, const char *what,
                   struct gw_str *out)
{
    if (node->kind != GW_YAML_SCALAR || node->value.n == 0) {
        policy_complain(c, node, false,
                        node->kind == GW_YAML_SCALAR ? "%s is empty"
                                                     : "%s is one word, not a list or mapping",
                        what);
        return false;
    }
    *out = node->value;
    return true;
}

const struct gw_yaml *policy_words(struct policy_compiler *c, const struct gw_yaml *node,
                                   const char *what, size_t *n)
{
    const struct gw_yaml *k;
    struct gw_str ignored;

    *n = 1;
    if (node->kind == GW_YAML_SCALAR) {
        return policy_scalar(c, node, what, &ignored) ? node : NULL;
    }
    if (node->kind == GW_YAML_MAP) {
        policy_complain(c, node, false, "%s is a list of words", what);
        return NULL;
    }
    if (node->count == 0) {
        policy_complain(c, node, false, "%s is empty", what);
        return NULL;
    }
    for (k = node->child; k; k = k->next) {
        if (!policy_scalar(c, k, what, &ignored)) {
            return NULL;
        }
    }
    *n = node->count;
    return node->child;
}

bool policy_check_name(struct policy_compiler *c, const struct gw_yaml *at, bool at_key,
                       const char *what, struct gw_str name)
{
    size_t i;

    for (i = 0; i < name.n; i++) {
        unsigned char ch = policy_fold((unsigned char)name.p[i]);

        if ((unsigned char)(ch - 'a') >= 26 && (unsigned char)(ch - '0') >= 10 && ch != '.' &&
            ch != '_' && ch != '-') {
            break;
        }
    }
    if (name.n > 0 && name.n <= 96 && i == name.n) {
        return true;
    }
    policy_complain(c, at, at_key,
                    "bad %s name \"%.64s\": 1 to 96 letters, digits, \".\", \"_\" or \"-\"", what,
                    name.n ? name.p : "");
    return false;
}

/* Text that can only be a mistake: a pattern that never matches protects nothing. NULL: fine. */
static const char *never_matches(enum policy_glob_kind kind, struct gw_str code)
{
    size_t i, slashes = 0;
    bool across = false;

    for (i = 0; i < code.n; i++) {
        unsigned char c = (unsigned char)code.p[i];

        slashes += c == '/';
        across = across || c == POLICY_GLOB_ACROSS || c == POLICY_GLOB_FOLDERS;
        if (kind == POLICY_GLOBS_NAMESPACE && c == POLICY_GLOB_USER) {
            return "a namespace is private or not, whoever asks: no ${user} here";
        }
        if (kind == POLICY_GLOBS_NAMESPACE && c == '/') {
            return "a namespace has no \"/\"";
        }
        if (kind <= POLICY_GLOBS_REPO && c >= POLICY_GLOB_OP_COUNT && c != '/' &&
            (unsigned char)(c - 'a') >= 26 && (unsigned char)(c - '0') >= 10 && c != '.' &&
            c != '_' && c != '-') {
            return "names have only letters, digits, \".\", \"_\" and \"-\"";
        }
    }
    if (kind == POLICY_GLOBS_REPO && (slashes > 1 || (slashes == 0 && !across))) {
        return "a repo is NAMESPACE/NAME, as in \"acme/*\"; one without a namespace is _/NAME";
    }
    if (kind == POLICY_GLOBS_FILE && code.p[0] == '/') {
        return "paths do not begin with \"/\"";
    }
    if (kind == POLICY_GLOBS_FILE && code.p[code.n - 1] == '/') {
        return "paths do not end in \"/\"; all files of a folder are \"folder/**\"";
    }
    return NULL;
}

void policy_read_globs(struct policy_compiler *c, const struct gw_yaml *node,
                       enum policy_glob_kind kind, const char *what, struct policy_globs *out)
{
    struct policy_vec vec = {.v = (void *)out->v, .n = out->n, .cap = out->n};
    struct policy_glob_set set;
    struct policy_glob *kept;
    size_t n, i;

    for (node = policy_words(c, node, what, &n); node && n > 0; node = node->next, n--) {
        const char *why = policy_glob_compile(&set, node->value);

        for (i = 0; !why && i < set.n; i++) {
            struct gw_str code = {set.alt[i].code, set.alt[i].n};
            struct policy_glob g;

            why = never_matches(kind, code);
            code = why ? code : policy_keep_str(c, code);
            if (why || !code.p) {
                break;
            }
            g = policy_glob_of(code);
            if (!policy_push(c, &vec, &g, sizeof(g))) {
                return;
            }
        }
        if (why) {
            policy_complain(c, node, false, "bad glob \"%.64s\": %s", node->value.p, why);
        }
    }
    kept = policy_keep(c, (vec.n + 1) * sizeof(*kept));
    if (!kept) {
        return;
    }
    if (vec.n) {
        memcpy(kept, vec.v, vec.n * sizeof(*kept));
    }
    out->v = kept;
    out->n = vec.n;
}

/* ---- documents ---- */

static void read_documents(struct policy_compiler *c, const struct policy_file *files, size_t n)
{
    size_t i;

    c->docs = policy_tmp(c, (n + 1) * sizeof(*c->docs));
    for (i = 0; i < n && c->status == GW_OK; i++) {
        struct policy_doc *doc = &c->docs[c->n_docs];
        struct gw_error err = {0};
        int rc;

        doc->name = policy_keep_str(c, files[i].name);
        if (!doc->name.p) {
            return;
        }
        rc = gw_yaml_parse(&doc->root, doc->name, files[i].yaml, &c->tmp, &err);
        if (rc == GW_OK) {
            c->n_docs++;
        } else if (rc == GW_INVALID) {
            complain_line(c, doc->name, 0, 0, err.text);
        } else {
            c->status = TREES_MAX_BYTES - c->tmp.used > SPARE_BYTES ? GW_NO_MEMORY : GW_TOO_LARGE;
        }
    }
}

static void check_top(struct policy_compiler *c)
{
    static const char *const known[] = {
        "version", "private_namespaces", "groups", "services", "rules", "tests"};
    const struct gw_yaml *version;
    size_t i;

    for (i = 0; i < c->n_docs; i++) {
        c->doc = &c->docs[i];
        if (policy_is_null(c->doc->root) ||
            (c->doc->root->kind == GW_YAML_MAP && c->doc->root->count == 0)) {
            continue; /* an empty file, or only comments */
        }
        if (!policy_check_keys(c, c->doc->root, known, POLICY_COUNT(known), "a policy file") &&
            c->doc->root->kind != GW_YAML_MAP) {
            continue;
        }
        version = gw_yaml_get(c->doc->root, "version");
        if (!version) {
            policy_complain(c, c->doc->root, false, "\"version: 1\" is missing");
        } else if (version->kind != GW_YAML_SCALAR || !gw_str_eq_c(version->value, "1")) {
            policy_complain(c, version, false, "this hubgate reads version 1 of the language");
        }
    }
}

/* ---- ranks and index ---- */

static int by_rank(const void *a, const void *b)
{
    const struct policy_rule *x = *(struct policy_rule *const *)a,
                             *y = *(struct policy_rule *const *)b;

    if (x->effect != y->effect) {
        return x->effect == POLICY_DENY ? -1 : 1;
    }
    if ((x->reason.n == 0) != (y->reason.n == 0)) {
        return x->reason.n ? -1 : 1;
    }
    return gw_str_cmp(x->id, y->id);
}

/* The rules into `index`: all of them, or those with verify: before. */
static void index_rules(struct policy_compiler *c, struct policy_index *index, bool verify)
{
    const struct policy *p = c->p;
    struct policy_entry *all;
    size_t i, k, n = 0;

    for (i = 0; i < p->n_rules; i++) {
        n += p->rules[i]->repo.n ? p->rules[i]->repo.n : 1;
    }
    all = policy_tmp(c, (n + 1) * sizeof(*all));
    if (!all) {
        return;
    }
    for (i = 0, n = 0; i < p->n_rules; i++) {
        const struct policy_rule *r = p->rules[i];
        struct policy_entry e = {
            .rank = (uint32_t)i, .actions = r->actions, .types = r->types, .hubs = r->hubs};

        if (verify && !r->verify_before) {
            continue;
        }
        if (r->repo.n == 0) {
            all[n++] = e;
        }
        for (k = 0; k < r->repo.n; k++) {
            e.glob = &r->repo.v[k];
            all[n++] = e;
        }
    }
    if (!policy_index_build(index, c->keep, all, n)) {
        policy_out_of_memory(c, c->keep, 0);
    }
}

static void build_index(struct policy_compiler *c)
{
    struct policy *p = c->p;

    p->n_rules = c->rules.n;
    p->rules = policy_keep(c, (p->n_rules + 1) * sizeof(*p->rules));
    if (!p->rules) {
        return;
    }
    if (p->n_rules) {
        memcpy(p->rules, c->rules.v, p->n_rules * sizeof(*p->rules));
    }
    qsort(p->rules, p->n_rules, sizeof(*p->rules), by_rank);
    index_rules(c, &p->index, false);
    if (c->status == GW_OK) {
        index_rules(c, &p->verify, true);
    }
}

/* ---- the face ---- */

static int by_place(const void *a, const void *b)
{
    const struct policy_complaint *x = a, *y = b;
    int order = gw_str_cmp(x->file, y->file);

    if (order == 0) {
        order = (x->line > y->line) - (x->line < y->line);
    }
    return order ? order : (x->column > y->column) - (x->column < y->column);
}

/* Never over the ceiling: what is in the report stays readable. */
static void report_line(struct gw_buf *report, struct gw_str line)
{
    if (report && !report->failed && line.n + 1 < report->max - report->n) {
        gw_buf_add(report, line);
        gw_buf_add_char(report, '\n');
    }
}

static int report_complaints(struct policy_compiler *c, struct gw_buf *report, struct gw_error *err)
{
    const struct policy_complaint *v = c->complaints.v;
    char more[64];
    size_t i;

    qsort(c->complaints.v, c->complaints.n, sizeof(*v), by_place);
    for (i = 0; i < c->complaints.n; i++) {
        report_line(report, v[i].text);
    }
    if (c->unsaid) {
        snprintf(more, sizeof(more), "and %zu more errors", c->unsaid);
        report_line(report, gw_str_c(more));
    }
    return gw_fail(err, GW_INVALID, 0, "%.*s", GW_STR_ARG(v[0].text));
}

static void compile(struct policy_compiler *c, const struct policy_file *files, size_t n)
{
    static void (*const steps[])(struct policy_compiler *) = {
        check_top,         policy_read_namespaces, policy_read_services, policy_read_groups,
        policy_read_rules, policy_close_groups,    policy_read_cases,
    };
    size_t i;

    read_documents(c, files, n);
    for (i = 0; i < POLICY_COUNT(steps) && c->status == GW_OK; i++) {
        steps[i](c);
    }
    if (c->status == GW_OK && c->complaints.n == 0) {
        build_index(c);
    }
}

int policy_parse(struct policy **out, const struct policy_file *files, size_t n_files,
                 struct gw_buf *report, struct gw_error *err)
{
    struct policy_compiler c = {0};
    uint64_t bytes = 0;
    size_t i;
    int rc;

    for (i = 0; i < n_files; i++) {
        bytes += files[i].yaml.n;
    }
    if (bytes > POLICY_MAX_BYTES) {
        return gw_fail(err, GW_TOO_LARGE, 0, "the policy files are larger than 16 MiB together");
    }
    c.p = gw_alloc(sizeof(*c.p));
    if (!c.p) {
        return gw_fail(err, GW_NO_MEMORY, 0, "no memory for the policy");
    }
    atomic_init(&c.p->refs, 1);
    gw_arena_init(&c.p->arena, KEEP_MAX_BYTES);
    gw_arena_init(&c.tmp, TREES_MAX_BYTES);
    c.keep = &c.p->arena;
    compile(&c, files, n_files);
    if (c.status != GW_OK) {
        rc = gw_fail(err, (enum gw_status)c.status, 0,
                     c.status == GW_TOO_LARGE ? "the policy files hold too much"
                                              : "no memory for the policy");
    } else if (c.complaints.n) {
        rc = report_complaints(&c, report, err);
    } else {
        rc = GW_OK;
        *out = c.p;
        c.p = NULL; /* handed over */
    }
    policy_unref(c.p);
    gw_arena_release(&c.tmp);
    return rc;
}
