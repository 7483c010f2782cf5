/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random policies against a second evaluator: one rule after the other, strings compared as
 * strings, written from docs/policy.md and not from policy/. It is slow and should be obviously
 * right. Fixed seed.
 */
#include "fixture.h"

#include <strings.h>

#define POLICIES 500
#define REQUESTS 80
#define MAX_RULES 60
#define N_GROUPS 6

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static unsigned below(unsigned n)
{
    static uint64_t x = 7021390;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (unsigned)(x >> 11) % n;
}

static bool chance(unsigned percent)
{
    return below(100) < percent;
}

#define PICK(table) ((table)[below((unsigned)COUNT(table))])

/* ---- the vocabulary ---- */

static const char *const actions[] = {"discover", "read", "write", "create", "delete", "admin"};
static const char *const types[] = {"model", "dataset", "space", "kernel"};
static const char *const namespaces[] = {"a", "ab", "b", "_", "u-kim"};
static const char *const repo_names[] = {"x", "xy", "y", "m-1"};
static const char *const users[] = {"kim", "lee", "bo"};
static const char *const services[] = {"ci", "bot"};
static const char *const revisions[] = {"", "main", "v1", "refs/pr/1"};
static const char *const commits[] = {"", "aaaa", "abbb"};
static const char *const paths[] = {"", "x.bin", "d/x.bin", "d/e/y.txt", "kim/z"};
static const char *const to_words[] = {
    "everyone",   "authenticated", "anonymous", "services", "user:kim", "user:lee", "user:BO",
    "service:ci", "group:g0",      "group:g1",  "group:g2", "group:g3", "group:g4", "group:g5",
};
static const char *const private_globs[] = {"a", "A*", "u-*", "b", "{a,q}b"};
static const char *const repo_globs[] = {
    "a/x",   "a/xy",        "ab/x",    "b/y",     "_/x", "A/X",  "a/*",   "*/x",   "**",
    "a*/x*", "u-${user}/*", "{a,b}/x", "a/{x,y}", "a/?", "**/x", "*/m-1", "b/m-*",
};
static const char *const revision_globs[] = {"main", "v*", "refs/**", "aaaa", "a*"};
static const char *const file_globs[] = {"*.bin", "**.bin",    "**/*.bin",     "d/**",
                                         "x.bin", "${user}/*", "**/y.{txt,md}"};
/* Directory values; a subject brings some of them. */
static const char *const sources[] = {"cn=one,dc=io", "cn=two,dc=io", "three", "g5"};
static const char *const spelled[] = {"CN=One, DC=io", "cn=two,dc=io", "Three", "g5"};

/* ---- a policy as the evaluator knows it ---- */

struct list {
    const char *v[3];
    unsigned n;
};
struct ref_group {
    int source; /* index, -1: none */
    struct list users;
    int members[2]; /* groups with lower numbers, -1: none */
};
struct ref_rule {
    char id[16];
    bool allow, reason, past; /* past: expired */
    struct list actions, to, unless, repo, revisions, files, files_not;
    const char *hub, *type;
};
struct ref_policy {
    struct list private_globs;
    struct ref_group groups[N_GROUPS];
    struct ref_rule rules[MAX_RULES];
    unsigned n_rules;
};
struct ref_subject {
    const char *kind; /* "anonymous", "user", "service" */
    const char *name;
    bool has[COUNT(sources)];
};
struct ref_object {
    const char *type, *ns, *name, *revision, *commit, *path;
};

/* ---- evaluating ---- */

static bool glob(const char *start, const char *g, const char *t, const char *user)
{
    if (*g == '\0') {
        return *t == '\0';
    }
    if (strncmp(g, "${user}", 7) == 0) {
        return user && strncasecmp(t, user, strlen(user)) == 0 &&
               glob(start, g + 7, t + strlen(user), user);
    }
    if (*g == '{') { /* try each member in place */
        const char *close = strchr(g, '}'), *at = g + 1;

        while (at <= close) {
            const char *end = at;
            char rest[300];

            while (*end != ',' && *end != '}') {
                end++;
            }
            snprintf(rest, sizeof(rest), "%.*s%s", (int)(end - at), at, close + 1);
            if (glob(rest, rest, t, user)) {
                return true;
            }
            at = end + 1;
        }
        return false;
    }
    if (strncmp(g, "**/", 3) == 0 && (g == start || g[-1] == '/')) {
        bool yes = glob(start, g + 3, t, user);

        for (; !yes && *t; t++) {
            yes = *t == '/' && glob(start, g + 3, t + 1, user);
        }
        return yes;
    }
    if (strncmp(g, "**", 2) == 0) {
        return glob(start, g + 2, t, user) || (*t && glob(start, g, t + 1, user));
    }
    if (*g == '*') {
        return glob(start, g + 1, t, user) || (*t && *t != '/' && glob(start, g, t + 1, user));
    }
    return *t && (*g == '?' ? *t != '/' : strncasecmp(g, t, 1) == 0) &&
           glob(start, g + 1, t + 1, user);
}

static bool any_glob(const struct list *l, const char *text, const char *user)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (glob(l->v[i], l->v[i], text, user)) {
            return true;
        }
    }
    return false;
}

static bool in_group(const struct ref_policy *p, int g, const struct ref_subject *s)
{
    const struct ref_group *group = &p->groups[g];

    if (strcmp(s->kind, "anonymous") == 0) {
        return false;
    }
    if (group->source >= 0 && s->has[group->source]) {
        return true;
    }
    for (unsigned i = 0; i < group->users.n; i++) {
        if (strcmp(s->kind, "user") == 0 && strcasecmp(group->users.v[i], s->name) == 0) {
            return true;
        }
    }
    for (int i = 0; i < 2; i++) {
        if (group->members[i] >= 0 && in_group(p, group->members[i], s)) {
            return true;
        }
    }
    return false;
}

static bool names_subject(const struct ref_policy *p, const struct list *l,
                          const struct ref_subject *s)
{
    for (unsigned i = 0; i < l->n; i++) {
        const char *w = l->v[i], *name = strchr(w, ':');
        bool anonymous = strcmp(s->kind, "anonymous") == 0;

        if (strcmp(w, "everyone") == 0 || (strcmp(w, "authenticated") == 0 && !anonymous) ||
            (strcmp(w, "anonymous") == 0 && anonymous) ||
            (strcmp(w, "services") == 0 && strcmp(s->kind, "service") == 0)) {
            return true;
        }
        if (name && strncmp(w, "group:", 6) == 0 && in_group(p, name[2] - '0', s)) {
            return true;
        }
        if (name && strncmp(w, s->kind, strlen(s->kind)) == 0 && w[strlen(s->kind)] == ':' &&
            strcasecmp(name + 1, s->name) == 0) {
            return true;
        }
    }
    return false;
}

/* "a gives b", as in the table of the page. */
static bool gives(const char *a, const char *b)
{
    if (strcmp(a, b) == 0 || strcmp(a, "admin") == 0 || strcmp(b, "discover") == 0) {
        return true;
    }
    return strcmp(a, "write") == 0 && strcmp(b, "read") == 0;
}

static bool about_action(const struct ref_rule *r, const char *action)
{
    for (unsigned i = 0; i < r->actions.n; i++) {
        if (r->allow ? gives(r->actions.v[i], action) : gives(action, r->actions.v[i])) {
            return true;
        }
    }
    return false;
}

static bool matches(const struct ref_policy *p, const struct ref_rule *r,
                    const struct ref_subject *s, const char *action, const struct ref_object *o)
{
    const char *user = strcmp(s->kind, "user") == 0 ? s->name : NULL;
    bool private = any_glob(&p->private_globs, o->ns, NULL);
    char repo[100];

    snprintf(repo, sizeof(repo), "%s/%s", o->ns, o->name);
    if (!about_action(r, action) || !names_subject(p, &r->to, s) ||
        names_subject(p, &r->unless, s)) {
        return false;
    }
    if (r->hub && private != (strcmp(r->hub, "private") == 0)) {
        return false;
    }
    if ((r->type && strcmp(r->type, o->type) != 0) ||
        (r->repo.n && !any_glob(&r->repo, repo, user))) {
        return false;
    }
    if (r->revisions.n && !*o->revision && !*o->commit) {
        if (!r->allow || strcmp(action, "discover") != 0) {
            return false;
        }
    } else if (r->revisions.n && !(*o->revision && any_glob(&r->revisions, o->revision, user)) &&
               !(*o->commit && any_glob(&r->revisions, o->commit, user))) {
        return false;
    }
    if ((r->files.n || r->files_not.n) && !*o->path) {
        if (!r->allow || (strcmp(action, "discover") != 0 && strcmp(action, "read") != 0)) {
            return false;
        }
    } else if ((r->files.n && !any_glob(&r->files, o->path, user)) ||
               any_glob(&r->files_not, o->path, user)) {
        return false;
    }
    return !(r->allow && r->past);
}

/* Denies before allows; then those with a reason; then by id. */
static bool speaks_first(const struct ref_rule *a, const struct ref_rule *b)
{
    if (a->allow != b->allow) {
        return !a->allow;
    }
    if (a->reason != b->reason) {
        return a->reason;
    }
    return strcmp(a->id, b->id) < 0;
}

static const struct ref_rule *evaluate(const struct ref_policy *p, const struct ref_subject *s,
                                       const char *action, const struct ref_object *o)
{
    const struct ref_rule *best = NULL;

    for (unsigned i = 0; i < p->n_rules; i++) {
        if (matches(p, &p->rules[i], s, action, o) && (!best || speaks_first(&p->rules[i], best))) {
            best = &p->rules[i];
        }
    }
    return best;
}

/* ---- making one up ---- */

static void pick_some(struct list *l, const char *const *from, unsigned n_from, unsigned at_most)
{
    l->n = 1 + below(at_most);
    for (unsigned i = 0; i < l->n; i++) {
        l->v[i] = from[below(n_from)];
    }
}
#define SOME(list, from, at_most) pick_some(list, from, (unsigned)COUNT(from), at_most)

static void make_rule(struct ref_rule *r, unsigned number)
{
    memset(r, 0, sizeof(*r));
    snprintf(r->id, sizeof(r->id), "r%u-%u", below(10), number);
    r->allow = chance(65);
    r->reason = chance(30);
    r->past = chance(10);
    SOME(&r->actions, actions, 2);
    SOME(&r->to, to_words, 2);
    r->to.v[r->to.n++] = "user:kim"; /* ${user} in a rule for no person is an error */
    if (chance(25)) {
        SOME(&r->unless, to_words, 2);
    }
    r->hub = chance(30) ? chance(50) ? "private" : "public" : NULL;
    r->type = chance(25) ? PICK(types) : NULL;
    if (chance(85)) {
        SOME(&r->repo, repo_globs, 3);
    }
    if (chance(15)) {
        SOME(&r->revisions, revision_globs, 2);
    }
    if (chance(15)) {
        SOME(&r->files, file_globs, 2);
    }
    if (chance(10)) {
        SOME(&r->files_not, file_globs, 2);
    }
}

static void make_policy(struct ref_policy *p)
{
    memset(p, 0, sizeof(*p));
    SOME(&p->private_globs, private_globs, 3);
    for (int i = 0; i < N_GROUPS; i++) {
        struct ref_group *g = &p->groups[i];

        *g = (struct ref_group){.source = -1, .members = {-1, -1}};
        if (i >= 2 && chance(50)) {
            g->members[0] = (int)below((unsigned)i);
            g->members[1] = (int)below((unsigned)i);
        } else if (chance(30)) {
            SOME(&g->users, users, 2);
        } else {
            g->source = (int)below(3);
        }
    }
    p->groups[5] =
        (struct ref_group){.source = 3, .members = {-1, -1}}; /* nothing said: by its own name */
    p->n_rules = 1 + below(MAX_RULES);
    for (unsigned i = 0; i < p->n_rules; i++) {
        make_rule(&p->rules[i], i);
    }
}

static void put_list(struct gw_buf *b, const char *key, const struct list *l)
{
    if (l->n == 0) {
        return;
    }
    gw_buf_addf(b, ", %s: [", key);
    for (unsigned i = 0; i < l->n; i++) {
        gw_buf_addf(b, "%s'%s'", i ? ", " : "", l->v[i]);
    }
    gw_buf_add_c(b, "]");
}

static void put_rule(struct gw_buf *b, const struct ref_rule *r)
{
    bool where = r->hub || r->type || r->repo.n || r->revisions.n || r->files.n || r->files_not.n;

    gw_buf_addf(b, "- {id: %s", r->id);
    put_list(b, r->allow ? "allow" : "deny", &r->actions);
    put_list(b, "to", &r->to);
    put_list(b, "unless", &r->unless);
    if (r->allow) {
        gw_buf_add_c(b, ", public_ok: true");
    }
    if (r->reason) {
        gw_buf_add_c(b, ", reason: So it is.");
    }
    gw_buf_add_c(b, r->past ? ", expires: 2020-01-01" : "");
    if (where) {
        struct list hub = {{r->hub}, 1}, type = {{r->type}, 1};
        size_t start;

        gw_buf_add_c(b, ", where: {");
        start = b->n;
        put_list(b, "repo", &r->repo);
        put_list(b, "revisions", &r->revisions);
        put_list(b, "files", &r->files);
        put_list(b, "files_not", &r->files_not);
        if (r->hub) {
            gw_buf_addf(b, ", hub: %s", hub.v[0]);
        }
        if (r->type) {
            gw_buf_addf(b, ", type: %s", type.v[0]);
        }
        b->p[start] = ' '; /* the first comma */
        gw_buf_add_c(b, "}");
    }
    gw_buf_add_c(b, "}\n");
}

static void put_policy(struct gw_buf *b, const struct ref_policy *p)
{
    gw_buf_add_c(b, "version: 1\nservices: {ci: , bot: }\nprivate_namespaces: [");
    for (unsigned i = 0; i < p->private_globs.n; i++) {
        gw_buf_addf(b, "%s'%s'", i ? ", " : "", p->private_globs.v[i]);
    }
    gw_buf_add_c(b, "]\ngroups:\n");
    for (int i = 0; i < N_GROUPS; i++) {
        const struct ref_group *g = &p->groups[i];

        if (i == 5) {
            gw_buf_add_c(b, "  g5:\n");
        } else if (g->source >= 0) {
            gw_buf_addf(b, "  g%d: {%s: '%s'}\n", i, g->source < 2 ? "ldap" : "name",
                        sources[g->source]);
        } else if (g->users.n) {
            gw_buf_addf(b, "  g%d: {users: [%s, %s]}\n", i, g->users.v[0],
                        g->users.v[g->users.n - 1]);
        } else {
            gw_buf_addf(b, "  g%d: {any_of: [g%d, g%d]}\n", i, g->members[0], g->members[1]);
        }
    }
    gw_buf_add_c(b, "rules:\n");
    for (unsigned i = 0; i < p->n_rules; i++) {
        put_rule(b, &p->rules[i]);
    }
}

/* ---- comparing ---- */

static void make_request(struct ref_subject *s, struct ref_object *o)
{
    unsigned kind = below(10);

    memset(s, 0, sizeof(*s));
    s->kind = kind < 1 ? "anonymous" : kind < 8 ? "user" : "service";
    s->name = kind < 1 ? "" : kind < 8 ? PICK(users) : PICK(services);
    for (size_t i = 0; i < COUNT(sources); i++) {
        s->has[i] = chance(30);
    }
    *o = (struct ref_object){PICK(types),     PICK(namespaces), PICK(repo_names),
                             PICK(revisions), PICK(commits),    PICK(paths)};
}

static struct policy_decision ask_policy(const struct policy *p, const struct ref_subject *s,
                                         const char *action, const struct ref_object *o)
{
    struct gw_str groups[COUNT(sources)];
    struct policy_subject subject = {.name = gw_str_c(s->name), .groups = groups};
    struct policy_object object = {gw_str_c(o->type),     gw_str_c(o->ns),     gw_str_c(o->name),
                                   gw_str_c(o->revision), gw_str_c(o->commit), gw_str_c(o->path)};
    enum policy_action a;

    subject.kind = s->kind[0] == 'a'   ? POLICY_ANONYMOUS
                   : s->kind[0] == 'u' ? POLICY_USER
                                       : POLICY_SERVICE;
    for (size_t i = 0; i < COUNT(sources); i++) {
        if (s->has[i]) {
            groups[subject.n_groups++] = gw_str_c(spelled[i]);
        }
    }
    assert_true(policy_action_parse(gw_str_c(action), &a));
    return policy_decide(p, &subject, a, &object, NOW);
}

static void test_same_answers(void **state)
{
    unsigned allowed = 0, denied = 0, none = 0;
    struct gw_buf text;

    gw_buf_init(&text, 1 << 20);
    for (int i = 0; i < POLICIES; i++) {
        struct ref_policy model;
        struct policy *p;

        make_policy(&model);
        gw_buf_reset(&text);
        put_policy(&text, &model);
        p = must_parse(text.p);
        for (int k = 0; k < REQUESTS; k++) {
            const char *action = PICK(actions);
            const struct ref_rule *want;
            struct policy_decision got;
            struct ref_subject s;
            struct ref_object o;

            make_request(&s, &o);
            want = evaluate(&model, &s, action, &o);
            got = ask_policy(p, &s, action, &o);
            if (!gw_str_eq_c(policy_rule_id(got.rule), want ? want->id : "(default)") ||
                got.effect != (enum policy_effect)(want && want->allow)) {
                fail_msg("%s\n%s:%s %s %s:%s/%s@%s(%s)//%s\nexpected %s, got %.*s", text.p, s.kind,
                         s.name, action, o.type, o.ns, o.name, o.revision, o.commit, o.path,
                         want ? want->id : "(default)", GW_STR_ARG(policy_rule_id(got.rule)));
            }
            allowed += want && want->allow;
            denied += want && !want->allow;
            none += !want;
        }
        policy_unref(p);
    }
    gw_buf_release(&text);
    /* it did compare all three */
    assert_true(allowed > 3000 && denied > 3000 && none > 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answers),
    };

    return cmocka_run_group_tests_name("policy random", tests, NULL, NULL);
}
