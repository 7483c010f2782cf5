/* SPDX-License-Identifier: Apache-2.0 */
/* people.c - `hubgate token ...` and `hubgate user ...`. */
#include "gateway/cli/cli.h"
#include "gateway/nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define RECORDS_MAX 1000000u

/* ---- subjects ---- */

static int list_records(struct gateway *gw, const char *folder, struct gw_arena *a,
                        struct gw_str **names, size_t *n, struct gw_error *err)
{
    struct gw_str path = gw_arena_printf(a, "%s/%s", gw->config->data, folder);

    return path.p ? gw_dir_list(path.p, RECORDS_MAX, a, names, n, err)
                  : gw_fail(err, GW_NO_MEMORY, 0, "no memory");
}

static bool record_id(struct gw_str name, struct gw_str *id)
{
    if (name.p[0] == '.' || !gw_str_ends(name, GW_STR(".json")))
        return false;
    *id = gw_str_sub(name, 0, name.n - 5);
    return true;
}

int cli_find_subject(struct gateway *gw, const struct policy_subject *who, struct gw_arena *a,
                     struct auth_subject *out, struct gw_error *err)
{
    struct auth_subject s;
    struct gw_str *names, id;
    size_t n;
    bool found = false;
    int rc = list_records(gw, "subjects", a, &names, &n, err);

    if (rc != GW_OK)
        return rc;
    for (size_t i = 0; i < n; i++) {
        if (!record_id(names[i], &id) || identity_load_subject(gw, id, &s, a, err) != GW_OK)
            continue;
        if (s.service != (who->kind == POLICY_SERVICE) || !gw_str_ieq(s.name, who->name) ||
            (found && s.checked_ms < out->checked_ms))
            continue;
        *out = s;
        found = true;
    }
    return found ? GW_OK
                 : gw_fail(err, GW_NOT_FOUND, 0, GW_STR_FMT ": not known", GW_STR_ARG(who->name));
}

/* The owner of a new token: a service, somebody of the account file, or somebody who has logged in
 * before. */
static int owner_of(struct gateway *gw, const struct policy_subject *who, struct gw_arena *a,
                    struct auth_users **users, struct auth_subject *out, struct gw_error *err)
{
    int rc;

    memset(out, 0, sizeof(*out));
    if (who->kind == POLICY_ANONYMOUS)
        return gw_fail(err, GW_INVALID, 0, "nobody cannot own a token");
    if (who->kind == POLICY_SERVICE) {
        out->id = gw_arena_printf(a, "service-" GW_STR_FMT, GW_STR_ARG(who->name));
        out->realm = GW_STR("service");
        out->source_id = out->name = who->name;
        out->service = true;
        out->state = AUTH_ACTIVE;
        out->checked_ms = gw_wall_ms();
        return identity_put_subject(gw, out, err);
    }
    if (gw->config->users_file != NULL && identity_users(gw, users, err) == GW_OK &&
        auth_users_find(*users, who->name, a, out, err) == GW_OK) {
        out->checked_ms = gw_wall_ms();
        return identity_put_subject(gw, out, err);
    }
    rc = cli_find_subject(gw, who, a, out, err);
    if (rc == GW_NOT_FOUND)
        gw_fail(err, rc, 0,
                "user:" GW_STR_FMT
                " is not known yet: log in once, curl -u NAME .../api/gateway/tokens",
                GW_STR_ARG(who->name));
    return rc;
}

/* ---- tokens ---- */

int cli_token_create(struct cli *cli)
{
    char text[AUTH_TOKEN_LEN + 1];
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct auth_users *users = NULL;
    struct policy_subject who;
    struct auth_subject owner;
    struct auth_token t;
    struct gw_arena a;
    struct gw_error err;
    enum auth_role role = AUTH_ROLE_READ;
    int64_t life, now = gw_wall_ms();
    int rc;

    if (cli->argc != 1)
        return cli_usage("token create");
    if (policy_who_parse(gw_str_c(cli->argv[0]), &who, &err) != GW_OK)
        return cli_error("%s", err.text);
    if (cli->role != NULL && strcmp(cli->role, "write") == 0)
        role = AUTH_ROLE_WRITE;
    else if (cli->role != NULL && strcmp(cli->role, "read") != 0)
        return cli_error("--role is read or write");
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    gw_arena_init(&a, 64u << 20);
    life = gw->config->identity.token_default_ms;
    if (cli->expires != NULL && (!gw_duration_parse(gw_str_c(cli->expires), &life) || life <= 0 ||
                                 life > gw->config->identity.token_max_ms))
        rc = gw_fail(
            &err, GW_INVALID, 0,
            "--expires is a time such as 12h or 90d, and not longer than identity.token_max");
    else
        rc = owner_of(gw, &who, &a, &users, &owner, &err);
    if (rc == GW_OK)
        rc =
            auth_token_mint(text, &t, owner.service ? 's' : 'p', owner.id,
                            gw_str_c(cli->name ? cli->name : "token"), role, now, now + life, &err);
    if (rc == GW_OK)
        rc = identity_put_token(gw, &t, &err);
    if (rc == GW_OK)
        puts(text);
    else
        cli_error("%s", err.text);
    gw_wipe(text, sizeof(text));
    auth_users_free(users);
    gw_arena_release(&a);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : 2;
}

static void print_token(const struct cli *cli, const struct auth_token *t, struct gw_str owner,
                        bool first)
{
    char created[GW_ISO_LEN + 1], expires[GW_ISO_LEN + 1];
    const char *state = t->revoked ? "revoked" : t->expires_ms <= gw_wall_ms() ? "expired" : "live";
    struct gw_buf out;

    gw_iso_format(created, t->created_ms);
    gw_iso_format(expires, t->expires_ms);
    if (!cli->json) {
        if (first)
            printf("%-10s  %-8s  %-5s  %-20s  %-24s  %s\n", "ID", "STATE", "ROLE", "OWNER",
                   "EXPIRES", "NAME");
        printf("%-10s  %-8s  %-5s  %-20.*s  %-24s  " GW_STR_FMT "\n", t->id, state,
               t->role == AUTH_ROLE_WRITE ? "write" : "read", GW_STR_ARG(owner), expires,
               GW_STR_ARG(t->name));
        return;
    }
    gw_buf_init(&out, 4096);
    gw_buf_addf(&out,
                "%s{\"id\":\"%s\",\"state\":\"%s\",\"role\":\"%s\",\"created\":\"%s\",\"expires\":"
                "\"%s\",\"owner\":",
                first ? "" : ",\n ", t->id, state, t->role == AUTH_ROLE_WRITE ? "write" : "read",
                created, expires);
    gw_json_put_string(&out, owner);
    gw_json_put_key(&out, "name");
    gw_json_put_string(&out, t->name);
    gw_buf_add_char(&out, '}');
    fwrite(out.p, 1, out.n, stdout);
    gw_buf_release(&out);
}

int cli_token_list(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct policy_subject who = {0};
    struct auth_subject owner;
    struct auth_token t;
    struct gw_arena a;
    struct gw_str *names, id, owner_name;
    struct gw_error err;
    size_t n, shown = 0;
    int rc;

    if (cli->argc > 1)
        return cli_usage("token list");
    if (cli->argc == 1 && policy_who_parse(gw_str_c(cli->argv[0]), &who, &err) != GW_OK)
        return cli_error("%s", err.text);
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    gw_arena_init(&a, 1u << 30);
    rc = list_records(gw, "tokens", &a, &names, &n, &err);
    if (cli->json)
        putchar('[');
    for (size_t i = 0; rc == GW_OK && i < n; i++) {
        if (!record_id(names[i], &id))
            continue;
        if (identity_load_token(gw, id, &t, &a, &err) != GW_OK) {
            cli_error("tokens/" GW_STR_FMT ": %s", GW_STR_ARG(names[i]), err.text);
            continue;
        }
        owner_name = identity_load_subject(gw, t.subject, &owner, &a, &err) == GW_OK ? owner.name
                                                                                     : t.subject;
        if (cli->argc == 1 && !gw_str_ieq(owner_name, who.name))
            continue;
        print_token(cli, &t, owner_name, shown++ == 0);
    }
    if (cli->json)
        puts("]");
    if (rc != GW_OK)
        cli_error("%s", err.text);
    gw_arena_release(&a);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : 2;
}

int cli_token_revoke(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway *gw;
    struct auth_token t;
    struct gw_arena a;
    struct gw_error err;
    char id[AUTH_TOKEN_ID_LEN + 1];
    int rc;

    if (cli->argc != 1)
        return cli_usage("token revoke");
    if (strlen(cli->argv[0]) == AUTH_TOKEN_ID_LEN &&
        strspn(cli->argv[0], "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") ==
            AUTH_TOKEN_ID_LEN)
        memcpy(id, cli->argv[0], sizeof(id));
    else if (!auth_token_id(gw_str_c(cli->argv[0]), id))
        return cli_error("an id of 10 characters is expected: see hubgate token list");
    gw = cli_open(cli, &s);
    if (gw == NULL)
        return 2;
    gw_arena_init(&a, 1u << 20);
    rc = identity_load_token(gw, gw_str_c(id), &t, &a, &err);
    if (rc == GW_OK) {
        t.revoked = true;
        rc = identity_put_token(gw, &t, &err); /* the file, then the index entry, then the answer */
    }
    if (rc == GW_OK) {
        printf("%s is revoked\n", id);
        if (nodes_tell_now(gw, CACHE_TOKEN, gw_str_c(id), &err) != GW_OK)
            cli_error("other nodes were not told and notice within %d s: %s",
                      GATEWAY_RECORD_AGE_MS / 1000, err.text);
    } else
        cli_error("%s: %s", id, rc == GW_NOT_FOUND ? "no such token" : err.text);
    gw_arena_release(&a);
    cli_close(gw, s);
    return rc == GW_OK ? 0 : rc == GW_NOT_FOUND ? 1 : 2;
}

/* ---- the account file ---- */

static bool read_password(const struct cli *cli, struct gw_arena *a, struct gw_str *out)
{
    struct termios old, quiet;
    struct gw_error err;
    char buf[1100];
    bool tty;

    if (cli->password_file != NULL) {
        if (gw_file_read_secret(cli->password_file, 1100, a, out, &err) == GW_OK)
            return true;
        cli_error("%s", err.text);
        return false;
    }
    tty = tcgetattr(STDIN_FILENO, &old) == 0;
    if (tty) {
        fputs("Password: ", stderr);
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    }
    if (fgets(buf, sizeof(buf), stdin) == NULL)
        buf[0] = '\0';
    if (tty) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
        fputc('\n', stderr);
    }
    buf[strcspn(buf, "\n")] = '\0';
    *out = gw_arena_dup(a, gw_str_c(buf));
    gw_wipe(buf, sizeof(buf));
    return out->p != NULL;
}

/* The workers read the account file, so it belongs to the owner of data/. */
static int write_users(const struct config *c, struct gw_str text, struct gw_error *err)
{
    const char *path = c->users_file;
    char dir[4096], *slash;
    struct stat st;
    int rc;

    if ((size_t)snprintf(dir, sizeof(dir), "%s", path) >= sizeof(dir))
        return gw_fail(err, GW_INVALID, 0, "%s: the path is too long", path);
    slash = strrchr(dir, '/');
    *slash = '\0';
    rc = gw_file_replace(*dir ? dir : "/", slash + 1, text, 0600, err);
    if (rc == GW_OK && geteuid() == 0 && stat(c->data, &st) == 0 &&
        chown(path, st.st_uid, st.st_gid) != 0)
        rc = gw_fail(err, GW_IO, errno, "%s: cannot be given to the owner of %s: %s", path, c->data,
                     strerror(errno));
    return rc;
}

int cli_user_add(struct cli *cli)
{
    struct gateway_snapshot *s;
    struct gateway gw = {0};
    struct auth_users *users = NULL;
    struct gw_str password;
    struct gw_arena a;
    struct gw_buf text;
    struct gw_error err;
    int rc;

    if (cli->argc != 1)
        return cli_usage("user add");
    gw_arena_init(&a, 1u << 20);
    gw_arena_keep_secret(&a);
    if (cli->password_file != NULL &&
        !read_password(cli, &a, &password)) /* before rights are dropped */
        return 2;
    cli->keep_rights = true;
    s = cli_snapshot(cli);
    if (s == NULL)
        return 2;
    gw.config = s->config;
    if (s->config->users_file == NULL)
        return cli_error("%s: users_file is not set", cli->config_path);
    if (cli->password_file == NULL && !read_password(cli, &a, &password))
        return 2;
    gw_buf_init(&text, 2u << 20);
    rc = identity_users(&gw, &users, &err);
    if (rc == GW_NOT_FOUND)
        rc = GW_OK; /* a new file */
    if (rc == GW_OK)
        rc = auth_users_edit(&text, users, gw_str_c(cli->argv[0]), password, cli->groups,
                             cli->n_groups, &err);
    if (rc == GW_OK)
        rc = write_users(s->config, gw_buf_str(&text), &err);
    if (rc == GW_OK)
        printf("%s is in %s\n", cli->argv[0], s->config->users_file);
    else
        cli_error("%s", err.text);
    auth_users_free(users);
    gw_buf_wipe(&text);
    gw_arena_release(&a);
    gateway_snapshot_free(s);
    return rc == GW_OK ? 0 : 2;
}

int cli_user_list(struct cli *cli)
{
    struct gateway_snapshot *s = cli_snapshot(cli);
    struct gateway gw = {0};
    struct auth_users *users;
    struct gw_error err;
    int rc;

    if (s == NULL)
        return 2;
    gw.config = s->config;
    rc = identity_users(&gw, &users, &err);
    if (rc != GW_OK) {
        cli_error("%s", err.text);
    } else {
        printf(cli->json ? "{\"people\":%zu}\n" : "%zu people\n", auth_users_count(users));
        auth_users_free(users);
    }
    gateway_snapshot_free(s);
    return rc == GW_OK ? 0 : 2;
}
