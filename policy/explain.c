/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy/explain.c - a decision in words: the rule that made it, the others that match, and what
 * kept the nearest ones from matching. For people, so it may walk all rules.
 */
#include "policy/policy_internal.h"

#include "base/clock.h"
#include "base/json.h"

#define MISSES_SHOWN 8u
#define MATCHES_SHOWN 50u
#define WORDS_SHOWN 6u
#define QUOTED_MAX 65536u

/* A miss on the left is nearer than one on the right: who asks can change groups, a repo is another
 * repo. */
static const unsigned nearest_first[] = {
    POLICY_MISS_EXPIRED,  POLICY_MISS_TO,  POLICY_MISS_UNLESS, POLICY_MISS_ACTION, POLICY_MISS_FILE,
    POLICY_MISS_REVISION, POLICY_MISS_HUB, POLICY_MISS_TYPE,   POLICY_MISS_REPO,
};
#define N_REASONS (sizeof(nearest_first) / sizeof(nearest_first[0]))

struct report {
    const struct policy *p;
    const struct policy_subject *subject;
    const struct policy_request *q;
    const struct policy_rule *rule; /* deciding; NULL: default */
    bool can_match;                 /* false: the subject or object can match no rule at all */
    struct gw_buf *out;
};

/* ---- words ---- */

static const char *effect_name(enum policy_effect e)
{
    return e == POLICY_ALLOW ? "allow" : "deny";
}

/* What a request brings may hold anything; a line stays a line. */
static void put_text(struct gw_buf *out, struct gw_str s)
{
    size_t i;

    for (i = 0; i < s.n; i++) {
        gw_buf_add_char(out, (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f ? '?' : s.p[i]);
    }
}

static void put_subject(struct gw_buf *out, const struct policy_subject *s)
{
    gw_buf_add_c(out, s->kind == POLICY_ANONYMOUS ? "anonymous"
                      : s->kind == POLICY_USER    ? "user:"
                                                  : "service:");
    if (s->kind != POLICY_ANONYMOUS) {
        put_text(out, s->name);
    }
}

static void put_resource(struct gw_buf *out, const struct policy_object *o)
{
    put_text(out, o->type);
    gw_buf_add_char(out, ':');
    put_text(out, o->ns);
    gw_buf_add_char(out, '/');
    put_text(out, o->name);
    if (o->revision.n) {
        gw_buf_add_char(out, '@');
        put_text(out, o->revision);
    }
    if (o->path.n) {
        gw_buf_add_c(out, "//");
        put_text(out, o->path);
    }
}

static void put_or(struct gw_buf *out, size_t i, size_t n)
{
    gw_buf_add_c(out, i == 0 ? "" : i + 1 == n ? " or " : ", ");
}

static void put_actions(struct gw_buf *out, unsigned mask)
{
    unsigned a, said = 0;

    for (a = 0; a < POLICY_ACTION_COUNT; a++) {
        if (mask & POLICY_BIT(a)) {
            gw_buf_addf(out, "%s%s", said++ ? ", " : "", policy_action_name((enum policy_action)a));
        }
    }
}

static void put_types(struct gw_buf *out, unsigned mask)
{
    unsigned i, said = 0;

    for (i = 0; i < 4; i++) {
        if (mask & 1u << i) {
            gw_buf_addf(out, "%s%s", said++ ? " or " : "", policy_types[i]);
        }
    }
}

static void put_globs(struct gw_buf *out, const struct policy_globs *g)
{
    size_t i, n = g->n < WORDS_SHOWN ? g->n : WORDS_SHOWN;

    for (i = 0; i < n; i++) {
        put_or(out, i, g->n);
        policy_glob_put(out, &g->v[i]);
    }
    if (n < g->n) {
        gw_buf_addf(out, " or %zu more", g->n - n);
    }
}

static void put_subjects(struct gw_buf *out, const struct policy *p,
                         const struct policy_subjects *s)
{
    static const char *const kinds[] = {"everyone", "authenticated", "services", "anonymous"};
    size_t i, said = 0, n = s->n;

    for (i = 0; i < 4; i++) {
        n += s->kinds >> i & 1;
    }
    for (i = 0; i < 4; i++) {
        if (s->kinds >> i & 1) {
            put_or(out, said++, n);
            gw_buf_add_c(out, kinds[i]);
        }
    }
    for (i = 0; i < s->n && said < WORDS_SHOWN; i++) {
        uint32_t kind = s->refs[i] & POLICY_REF_KIND, id = s->refs[i] & POLICY_REF_ID;

        put_or(out, said++, n);
        gw_buf_add_c(out, kind == POLICY_REF_GROUP  ? "group:"
                          : kind == POLICY_REF_USER ? "user:"
                                                    : "service:");
        put_text(out, kind == POLICY_REF_GROUP  ? p->groups.keys[id]
                      : kind == POLICY_REF_USER ? p->users.keys[id]
                                                : p->services.keys[id]);
    }
    if (said < n) {
        gw_buf_addf(out, " or %zu more", n - said);
    }
}

static void put_file_reason(struct gw_buf *out, const struct policy_rule *r,
                            const struct policy_request *q)
{
    if (q->object->path.n == 0) {
        gw_buf_add_c(out, r->effect == POLICY_DENY
                              ? "is about files, and no file is asked for"
                              : "is about files; without one it allows discover and read");
        return;
    }
    gw_buf_add_c(out, "is for files");
    if (r->files.n) {
        gw_buf_add_c(out, " like ");
        put_globs(out, &r->files);
    }
    if (r->files_not.n) {
        gw_buf_add_c(out, " other than ");
        put_globs(out, &r->files_not);
    }
}

static void put_reason(struct gw_buf *out, const struct policy *p, const struct policy_rule *r,
                       const struct policy_request *q, unsigned miss)
{
    char when[GW_ISO_LEN + 1];

    switch (miss) {
    case POLICY_MISS_ACTION:
        gw_buf_add_c(out, r->effect == POLICY_ALLOW ? "allows only " : "denies only ");
        put_actions(out, r->actions);
        break;
    case POLICY_MISS_TO:
        gw_buf_add_c(out, "needs ");
        put_subjects(out, p, &r->to);
        break;
    case POLICY_MISS_UNLESS:
        gw_buf_add_c(out, "does not apply to ");
        put_subjects(out, p, &r->unless);
        break;
    case POLICY_MISS_HUB:
        gw_buf_addf(out, "is for %s repos", r->hubs == POLICY_HUB_PRIVATE ? "private" : "public");
        break;
    case POLICY_MISS_TYPE:
        gw_buf_add_c(out, "is for type ");
        put_types(out, r->types);
        break;
    case POLICY_MISS_REPO:
        gw_buf_add_c(out, "is for repo ");
        put_globs(out, &r->repo);
        break;
    case POLICY_MISS_REVISION:
        gw_buf_add_c(out, "is for revision ");
        put_globs(out, &r->revisions);
        break;
    case POLICY_MISS_FILE:
        put_file_reason(out, r, q);
        break;
    case POLICY_MISS_EXPIRED:
        gw_iso_format(when, r->expires_ms);
        gw_buf_addf(out, "expired at %s", when);
        break;
    default:
        break;
    }
}

/* ---- which rules to show ---- */

/* One unmet condition each, the nearest kinds first. */
static size_t find_misses(const struct report *x, const struct policy_rule **out)
{
    size_t i, k, n = 0;

    for (k = 0; k < N_REASONS; k++) {
        for (i = 0; i < x->p->n_rules && n < MISSES_SHOWN; i++) {
            if (policy_rule_misses(x->p->rules[i], x->q) == nearest_first[k]) {
                out[n++] = x->p->rules[i];
            }
        }
    }
    return n;
}

/* How many there are; the first MATCHES_SHOWN are in out. */
static size_t find_matches(const struct report *x, const struct policy_rule **out)
{
    size_t i, n = 0;

    for (i = 0; i < x->p->n_rules; i++) {
        if (policy_rule_misses(x->p->rules[i], x->q) != 0) {
            continue;
        }
        if (n < MATCHES_SHOWN) {
            out[n] = x->p->rules[i];
        }
        n++;
    }
    return n;
}

/* ---- plain text ---- */

static void text_rule(const struct report *x, const struct policy_rule *r)
{
    gw_buf_addf(x->out, "  %s  " GW_STR_FMT "  " GW_STR_FMT ":%u",
                r->effect == POLICY_ALLOW ? "allow" : "deny ", GW_STR_ARG(r->id),
                GW_STR_ARG(r->file), r->line);
    if (r->effect == POLICY_DENY && x->q->now_ms >= r->expires_ms) {
        gw_buf_add_c(x->out, " (expired; a deny stays in force until it is removed)");
    }
    if (r->verify_before) {
        gw_buf_add_c(x->out, " (verify: before)");
    }
}

static void text_groups(const struct report *x)
{
    uint32_t i, said = 0;

    for (i = 0; i < x->p->groups.n; i++) {
        if (!(x->q->who->groups[i / 64] >> (i % 64) & 1)) {
            continue;
        }
        gw_buf_add_c(x->out, said++ ? ", " : " (groups: ");
        put_text(x->out, x->p->groups.keys[i]);
    }
    gw_buf_add_c(x->out, said ? ")\n" : "\n");
}

static void write_text(const struct report *x, const struct policy_rule *const *matches,
                       size_t n_matches, const struct policy_rule *const *misses, size_t n_misses)
{
    size_t i;

    gw_buf_addf(x->out, "%s: %s ", x->rule ? effect_name(x->rule->effect) : "deny",
                policy_action_name(x->q->action));
    put_resource(x->out, x->q->object);
    gw_buf_addf(x->out, " (%s) for ", x->q->hub == POLICY_HUB_PRIVATE ? "private" : "public");
    put_subject(x->out, x->subject);
    text_groups(x);
    if (x->rule) {
        gw_buf_addf(x->out, "rule: " GW_STR_FMT "  " GW_STR_FMT ":%u\n", GW_STR_ARG(x->rule->id),
                    GW_STR_ARG(x->rule->file), x->rule->line);
    } else {
        gw_buf_addf(x->out, "rule: (default)  %s\n",
                    x->can_match ? "no rule allows it"
                                 : "no rule can match this subject, action or name");
    }
    if (x->rule && x->rule->reason.n) {
        gw_buf_addf(x->out, "reason: " GW_STR_FMT "\n", GW_STR_ARG(x->rule->reason));
    }
    gw_buf_add_c(x->out, n_matches ? "matching rules:\n" : "");
    for (i = 0; i < n_matches && i < MATCHES_SHOWN; i++) {
        text_rule(x, matches[i]);
        gw_buf_add_char(x->out, '\n');
    }
    if (i < n_matches) {
        gw_buf_addf(x->out, "  and %zu more\n", n_matches - i);
    }
    gw_buf_add_c(x->out, n_misses ? "nearest misses:\n" : "");
    for (i = 0; i < n_misses; i++) {
        text_rule(x, misses[i]);
        gw_buf_add_c(x->out, ": ");
        put_reason(x->out, x->p, misses[i], x->q, policy_rule_misses(misses[i], x->q));
        gw_buf_add_char(x->out, '\n');
    }
}

/* ---- JSON ---- */

static void json_str(struct gw_buf *out, const char *key, struct gw_str value)
{
    gw_json_put_key(out, key);
    gw_json_put_string(out, value);
}

/* A text of the helpers above, quoted. */
static void json_put(const struct report *x, const char *key, const struct policy_rule *r)
{
    struct gw_buf text;

    gw_buf_init(&text, QUOTED_MAX);
    if (r) {
        put_reason(&text, x->p, r, x->q, policy_rule_misses(r, x->q));
    } else if (gw_str_eq_c(gw_str_c(key), "subject")) {
        put_subject(&text, x->subject);
    } else {
        put_resource(&text, x->q->object);
    }
    if (!text.failed) {
        json_str(x->out, key, gw_buf_str(&text));
    }
    gw_buf_release(&text);
}

static void json_rule(const struct report *x, const struct policy_rule *r, bool why)
{
    gw_buf_add_char(x->out, '{');
    json_str(x->out, "id", r->id);
    json_str(x->out, "effect", gw_str_c(effect_name(r->effect)));
    json_str(x->out, "file", r->file);
    gw_json_put_key(x->out, "line");
    gw_buf_addf(x->out, "%u", r->line);
    if (r->reason.n) {
        json_str(x->out, "reason", r->reason);
    }
    if (r->verify_before) {
        json_str(x->out, "verify", GW_STR("before"));
    }
    if (why) {
        json_put(x, "why", r);
    }
    gw_buf_add_char(x->out, '}');
}

static void json_rules(const struct report *x, const char *key,
                       const struct policy_rule *const *rules, size_t n, bool why)
{
    size_t i;

    gw_json_put_key(x->out, key);
    gw_buf_add_char(x->out, '[');
    for (i = 0; i < n; i++) {
        gw_json_put_comma(x->out);
        json_rule(x, rules[i], why);
    }
    gw_buf_add_char(x->out, ']');
}

static void write_json(const struct report *x, const struct policy_rule *const *matches,
                       size_t n_matches, const struct policy_rule *const *misses, size_t n_misses)
{
    uint32_t i;

    gw_buf_add_char(x->out, '{');
    json_str(x->out, "decision", gw_str_c(x->rule ? effect_name(x->rule->effect) : "deny"));
    json_str(x->out, "action", gw_str_c(policy_action_name(x->q->action)));
    json_put(x, "resource", NULL);
    json_str(x->out, "hub", gw_str_c(x->q->hub == POLICY_HUB_PRIVATE ? "private" : "public"));
    json_put(x, "subject", NULL);
    gw_json_put_key(x->out, "groups");
    gw_buf_add_char(x->out, '[');
    for (i = 0; i < x->p->groups.n; i++) {
        if (!(x->q->who->groups[i / 64] >> (i % 64) & 1)) {
            continue;
        }
        gw_json_put_comma(x->out);
        gw_json_put_string(x->out, x->p->groups.keys[i]);
    }
    gw_buf_add_char(x->out, ']');
    gw_json_put_key(x->out, "rule");
    if (x->rule) {
        json_rule(x, x->rule, false);
    } else {
        gw_buf_add_c(x->out, "null");
    }
    json_rules(x, "matching", matches, n_matches < MATCHES_SHOWN ? n_matches : MATCHES_SHOWN,
               false);
    gw_json_put_key(x->out, "matching_total");
    gw_buf_addf(x->out, "%zu", n_matches);
    json_rules(x, "misses", misses, n_misses, true);
    gw_buf_add_c(x->out, "}\n");
}

struct policy_decision policy_explain(const struct policy *p, const struct policy_subject *s,
                                      enum policy_action a, const struct policy_object *o,
                                      int64_t now_wall_ms, bool json, struct gw_buf *out)
{
    const struct policy_rule *matches[MATCHES_SHOWN], *misses[MISSES_SHOWN];
    struct report x = {.p = p, .subject = s, .out = out};
    size_t n_matches = 0, n_misses = 0;
    struct policy_request q;
    struct policy_who w;

    policy_who_fill(&w, p, s);
    x.q = &q;
    x.can_match = policy_request_fill(&q, p, &w, a, o, now_wall_ms);
    if (x.can_match) {
        x.rule = policy_request_decide(&q);
        n_matches = find_matches(&x, matches);
        n_misses = find_misses(&x, misses);
    }
    (json ? write_json : write_text)(&x, matches, n_matches, misses, n_misses);
    return (struct policy_decision){.effect = x.rule ? x.rule->effect : POLICY_DENY,
                                    .rule = x.rule};
}
