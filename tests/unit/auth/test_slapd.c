/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/auth/test_slapd.c - the normal paths against a real slapd, in a temporary folder, on
 * ports of its own.
 *
 * deploy/install-deps installs slapd; without it these tests fail, they never skip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "auth/auth.h"
#include "base/clock.h"
#include "tests/unit/auth/fake_ldap.h" /* listen_on_loopback */

#define PROGRAM "/usr/sbin/slapd"
#define LONG_MS 20000
#define ONE_TEXT "wrong user name or password"
#define SERVICE_DN "cn=service,dc=x"
#define SERVICE_PASSWORD "pw-of-service"

static struct {
    char dir[64], ca[96], other_ca[96];
    uint16_t port, tls_port;
    pid_t pid;
} slapd;

/* ---- a throw-away CA ---- */

static X509 *make_cert(EVP_PKEY *key, const char *name, const char *san, X509 *issuer,
                       EVP_PKEY *issuer_key)
{
    X509 *x = X509_new();
    X509_NAME *subject = X509_get_subject_name(x);
    X509V3_CTX ctx;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), issuer == NULL ? 1 : 2);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, issuer == NULL ? subject : X509_get_subject_name(issuer));
    X509_set_pubkey(x, key);
    X509V3_set_ctx(&ctx, issuer == NULL ? x : issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(
        NULL, &ctx, issuer == NULL ? NID_basic_constraints : NID_subject_alt_name,
        issuer == NULL ? "critical,CA:TRUE" : san);
    assert_non_null(e);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    assert_true(X509_sign(x, issuer == NULL ? key : issuer_key, EVP_sha256()) > 0);
    return x;
}

static void save_cert(const char *path, X509 *x)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, x), 1);
    assert_int_equal(fclose(f), 0);
}

static void make_tls(void)
{
    char path[128];
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256"),
             *other_key = EVP_EC_gen("P-256");
    X509 *ca = make_cert(ca_key, "throw-away CA", NULL, NULL, NULL),
         *other = make_cert(other_key, "throw-away CA", NULL, NULL, NULL);
    X509 *cert = make_cert(key, "slapd", "IP:127.0.0.1,DNS:directory.test", ca, ca_key);

    save_cert(slapd.ca, ca);
    save_cert(slapd.other_ca, other);
    snprintf(path, sizeof(path), "%s/cert.pem", slapd.dir);
    save_cert(path, cert);
    snprintf(path, sizeof(path), "%s/key.pem", slapd.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(f), 0);
    X509_free(ca);
    X509_free(other);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other_key);
}

/* ---- the directory ---- */

/* memberOf and pwdAccountLockedTime are given as an overlay would keep them: slapadd runs no
 * overlay. */
/* clang-format off */
#define PERSON(dn, uid, more) \
    "dn: " dn ",ou=people,dc=x\nobjectClass: inetOrgPerson\nobjectClass: shadowAccount\n" \
    "uid: " uid "\nsn: x\ncn: " uid "\nuserPassword: pw-of-" uid "\n" more "\n"
#define GROUP(dn, class, rest) "dn: " dn ",ou=groups,dc=x\nobjectClass: " class "\n" rest "\n"

static const char people[] =
    "dn: dc=x\nobjectClass: domain\ndc: x\n\n"
    "dn: " SERVICE_DN "\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\n"
    "cn: service\nuserPassword: " SERVICE_PASSWORD "\n\n"
    "dn: ou=people,dc=x\nobjectClass: organizationalUnit\nou: people\n\n"
    "dn: ou=groups,dc=x\nobjectClass: organizationalUnit\nou: groups\n\n"
    PERSON("uid=alice", "alice", "displayName: Alice A.\nmail: alice@x.example\n"
           "entryUUID: 11111111-1111-4111-8111-111111111111\nmemberOf: cn=eng,ou=groups,dc=x\n")
    PERSON("uid=Bob", "Bob", "")
    PERSON("cn=Smith\\2C J (jr)*\\5C\\22", "smith", "")
    PERSON("uid=twin+cn=one", "twin", "employeeNumber: 1\n")
    PERSON("uid=twin+cn=two", "twin", "employeeNumber: 2\n")
    PERSON("uid=locked", "locked", "pwdAccountLockedTime: 000001010000Z\n")
    PERSON("uid=failing", "failing", "pwdAccountLockedTime: 20200101000000Z\n")
    PERSON("uid=expired", "expired", "shadowExpire: 18262\n")
    PERSON("uid=gone", "gone", "")
    "dn: uid=many,ou=people,dc=x\nobjectClass: inetOrgPerson\nuid: many\nuid: names\nsn: x\ncn: many\n\n"
    GROUP("cn=eng", "groupOfNames", "cn: eng\nmember: uid=alice,ou=people,dc=x\n"
          "member: cn=Smith\\2C J (jr)*\\5C\\22,ou=people,dc=x\n")
    GROUP("cn=staff \\2B (all)*", "groupOfNames", "cn: staff + (all)*\nmember: cn=eng,ou=groups,dc=x\n")
    GROUP("cn=company", "groupOfUniqueNames", "cn: company\nuniqueMember: cn=staff \\2B (all)*,ou=groups,dc=x\n")
    GROUP("cn=circle", "groupOfNames", "cn: circle\nmember: cn=company,ou=groups,dc=x\n"
          "member: cn=circle,ou=groups,dc=x\n")
    GROUP("cn=unix", "posixGroup", "cn: unix\ngidNumber: 1\nmemberUid: Bob\n")
    GROUP("cn=bobs", "groupOfNames", "cn: bobs\nmember: uid=Bob,ou=people,dc=x\n");
/* clang-format on */

static void write_file(const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", slapd.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void write_config(void)
{
    char text[4096], dir[96];

    snprintf(dir, sizeof(dir), "%s/db", slapd.dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(
        text, sizeof(text),
        "modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload memberof\nmoduleload ppolicy\n"
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n"
        "include /etc/ldap/schema/inetorgperson.schema\ninclude /etc/ldap/schema/nis.schema\n"
        "TLSCertificateFile %s/cert.pem\nTLSCertificateKeyFile %s/key.pem\nTLSCACertificateFile "
        "%s\n"
        "database mdb\nsuffix dc=x\nrootdn cn=root,dc=x\nrootpw pw-of-root\ndirectory "
        "%s/db\nmaxsize 16777216\nsizelimit 500\n"
        "access to attrs=userPassword by anonymous auth by * none\n"
        "access to dn.subtree=ou=groups,dc=x by dn.base=" SERVICE_DN
        " read by users read by * none\n"
        "access to dn.base=uid=gone,ou=people,dc=x by anonymous auth by * none\n"
        "access to * by dn.base=" SERVICE_DN " read by self read by * auth\n",
        slapd.dir, slapd.dir, slapd.ca, slapd.dir);
    write_file("slapd.conf", text);
    write_file("people.ldif", people);
}

/* A child that dies with us, its output in the folder. */
static pid_t spawn(char *const argv[])
{
    char log[96];
    pid_t pid = fork();

    if (pid == 0) {
        snprintf(log, sizeof(log), "%s/log", slapd.dir);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fd >= 0) {
            dup2(fd, 1);
            dup2(fd, 2);
        }
        execv(PROGRAM, argv);
        _exit(127);
    }
    return pid;
}

static void show_log(void)
{
    char path[96], line[512];

    snprintf(path, sizeof(path), "%s/log", slapd.dir);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        print_error("%s", line);
    }
    if (f != NULL) {
        fclose(f);
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *w)
{
    return remove(path);
}

static bool answers(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

    close(fd);
    return ok;
}

static bool start_once(const char *conf)
{
    char urls[96];
    int status, fd = listen_on_loopback(&slapd.port), fd2 = listen_on_loopback(&slapd.tls_port);

    close(fd);
    close(fd2);
    snprintf(urls, sizeof(urls), "ldap://127.0.0.1:%u/ ldaps://127.0.0.1:%u/", slapd.port,
             slapd.tls_port);
    slapd.pid = spawn((char *const[]){"slapd", "-d", "0", "-f", (char *)conf, "-h", urls, NULL});
    for (int i = 0; i < 500; i++) {
        if (answers(slapd.port) && answers(slapd.tls_port)) {
            return true;
        }
        if (waitpid(slapd.pid, &status, WNOHANG) == slapd.pid) {
            break; /* somebody took the port in between */
        }
        usleep(20000);
    }
    return false;
}

static int start_slapd(void **state)
{
    char conf[96], ldif[96];
    int status = -1;

    auth_ldap_start();
    if (access(PROGRAM, X_OK) != 0) {
        print_error("%s is missing: deploy/install-deps installs it\n", PROGRAM);
        return -1;
    }
    snprintf(slapd.dir, sizeof(slapd.dir), "/tmp/hubgate-slapd-XXXXXX");
    if (mkdtemp(slapd.dir) == NULL) {
        return -1;
    }
    snprintf(slapd.ca, sizeof(slapd.ca), "%s/ca.pem", slapd.dir);
    snprintf(slapd.other_ca, sizeof(slapd.other_ca), "%s/other.pem", slapd.dir);
    snprintf(conf, sizeof(conf), "%s/slapd.conf", slapd.dir);
    snprintf(ldif, sizeof(ldif), "%s/people.ldif", slapd.dir);
    make_tls();
    write_config();
    pid_t pid = spawn((char *const[]){"slapadd", "-q", "-f", conf, "-l", ldif, NULL});
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        show_log();
        return -1;
    }
    for (int i = 0; i < 5; i++) {
        if (start_once(conf)) {
            return 0;
        }
    }
    show_log();
    return -1;
}

static int stop_slapd(void **state)
{
    int status;

    if (slapd.pid > 0) {
        kill(slapd.pid, SIGTERM);
        waitpid(slapd.pid, &status, 0);
    }
    return slapd.dir[0] != '\0' ? nftw(slapd.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) : 0;
}

/* ---- its configuration here ---- */

enum mode { PLAIN, START_TLS, LDAPS };

static struct auth_ldap_server server(enum mode mode)
{
    return (struct auth_ldap_server){.url = GW_STR("ldap://127.0.0.1"),
                                     .host = GW_STR("127.0.0.1"),
                                     .port = mode == LDAPS ? slapd.tls_port : slapd.port,
                                     .ldaps = mode == LDAPS,
                                     .loopback = true};
}

static struct auth_ldap directory(const struct auth_ldap_server *s, enum mode mode)
{
    return (struct auth_ldap){
        .name = GW_STR("corp"),
        .servers = s,
        .n_servers = 1,
        .start_tls = mode == START_TLS,
        .ca_file = slapd.ca,
        .bind_dn = GW_STR(SERVICE_DN),
        .bind_password = GW_STR(SERVICE_PASSWORD),
        .user_base = GW_STR("ou=people,dc=x"),
        .user_filter = GW_STR("(&(objectClass=person)(uid=${user}))"),
        .name_attr = GW_STR("uid"),
        .id_attr = GW_STR("entryUUID"),
        .display_attr = GW_STR("displayName"),
        .mail_attr = GW_STR("mail"),
        .group_mode = AUTH_GROUPS_MEMBEROF,
        .group_base = GW_STR("ou=groups,dc=x"),
        .group_filter = GW_STR("(member=${dn})"),
    };
}

struct outcome {
    int rc;
    struct gw_error err;
    struct auth_subject s;
    struct gw_arena a;
};

static void login(struct outcome *o, const struct auth_ldap *d, struct gw_str user,
                  struct gw_str password)
{
    memset(o, 0, sizeof(*o));
    gw_arena_init(&o->a, 1 << 20);
    o->rc = auth_ldap_login(d, user, password, NULL, NULL, gw_mono_ms() + LONG_MS, &o->a, &o->s,
                            &o->err);
    if (o->rc != GW_OK) {
        assert_null(strstr(o->err.text, "pw-of"));
    }
}

static void expect(const struct outcome *o, int rc, const char *text)
{
    if (o->rc != rc || (text != NULL && strstr(o->err.text, text) == NULL)) {
        fail_msg("%s: %s", gw_status_name(o->rc), o->err.text);
    }
}

static bool in_group(const struct auth_subject *s, const char *dn)
{
    for (size_t i = 0; i < s->n_groups; i++) {
        if (gw_str_ieq_c(s->groups[i], dn)) {
            return true;
        }
    }
    return false;
}

/* ---- tests ---- */

static void every_transport(void **state)
{
    for (enum mode mode = PLAIN; mode <= LDAPS; mode++) {
        struct auth_ldap_server s = server(mode);
        struct auth_ldap d = directory(&s, mode);
        struct outcome o;

        s.loopback = mode == PLAIN; /* with TLS it need not be */
        login(&o, &d, GW_STR("ALICE"), GW_STR("pw-of-alice"));
        expect(&o, GW_OK, NULL);
        assert_true(gw_str_eq_c(o.s.name, "alice") && gw_str_eq_c(o.s.display, "Alice A.") &&
                    gw_str_eq_c(o.s.email, "alice@x.example"));
        assert_true(gw_str_eq_c(o.s.source_id, "11111111-1111-4111-8111-111111111111"));
        assert_true(gw_str_eq_c(o.s.dn, "uid=alice,ou=people,dc=x"));
        assert_true(in_group(&o.s, "cn=eng,ou=groups,dc=x"));
        assert_int_equal(o.s.n_groups, 1);
        gw_arena_release(&o.a);

        login(&o, &d, GW_STR("alice"), GW_STR("pw-of-bob"));
        expect(&o, GW_UNAUTHENTICATED, ONE_TEXT);
        assert_int_equal(o.err.sys, 49);
        gw_arena_release(&o.a);
    }
}

static struct gw_str this_machine(void *ctx, struct gw_str host)
{
    return GW_STR("127.0.0.1");
}

static void verification(void **state)
{
    static const struct {
        const char *host;
        bool other_ca;
        int rc;
    } rows[] = {
        {"directory.test", false, GW_OK},         {"DIRECTORY.TEST", false, GW_OK},
        {"another.test", false, GW_UNAVAILABLE},  {"127.0.0.2", false, GW_UNAVAILABLE},
        {"directory.test", true, GW_UNAVAILABLE},
    };

    for (enum mode mode = START_TLS; mode <= LDAPS; mode++) {
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            struct auth_ldap_server s = server(mode);
            struct auth_ldap d = directory(&s, mode);
            struct outcome o = {0};

            s.host = gw_str_c(rows[i].host);
            s.loopback = false;
            d.ca_file = rows[i].other_ca ? slapd.other_ca : slapd.ca;
            gw_arena_init(&o.a, 1 << 20);
            o.rc = auth_ldap_login(&d, GW_STR("alice"), GW_STR("pw-of-alice"), this_machine, NULL,
                                   gw_mono_ms() + LONG_MS, &o.a, &o.s, &o.err);
            expect(&o, rows[i].rc, NULL);
            gw_arena_release(&o.a);
        }
    }

    /* our own folder's ldaprc, the environment and the system's file change nothing */
    struct auth_ldap_server s = server(LDAPS);
    struct auth_ldap d = directory(&s, LDAPS);
    struct outcome o;
    d.ca_file = slapd.other_ca;
    setenv("LDAPTLS_REQCERT", "never", 1);
    setenv("LDAPSASL_MECH", "EXTERNAL", 1);
    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    expect(&o, GW_UNAVAILABLE, "certificate");
    gw_arena_release(&o.a);
    unsetenv("LDAPTLS_REQCERT");
    unsetenv("LDAPSASL_MECH");
}

static void people_and_passwords(void **state)
{
    static const struct {
        struct gw_str user, password;
        int rc, sys;
        const char *text;
    } rows[] = {
        {GW_STR_INIT("bob"), GW_STR_INIT("pw-of-Bob"), GW_OK, 0, NULL},
        {GW_STR_INIT("smith"), GW_STR_INIT("pw-of-smith"), GW_OK, 0,
         NULL}, /* a DN full of what filters and DNs escape */
        {GW_STR_INIT("nobody"), GW_STR_INIT("x"), GW_UNAUTHENTICATED, AUTH_NO_SUCH_USER, ONE_TEXT},
        {GW_STR_INIT("twin"), GW_STR_INIT("pw-of-twin"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("locked"), GW_STR_INIT("pw-of-locked"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("expired"), GW_STR_INIT("pw-of-expired"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("failing"), GW_STR_INIT("pw-of-failing"), GW_OK, 0,
         NULL}, /* a lock by failures is the server's matter */
        {GW_STR_INIT("many"), GW_STR_INIT("x"), GW_INVALID, 0, "2 values of uid"},
        /* none of these reaches it as what it looks like */
        {GW_STR_INIT("*"), GW_STR_INIT("pw-of-alice"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("ali*"), GW_STR_INIT("pw-of-alice"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("alice)(objectClass=*"), GW_STR_INIT("pw-of-alice"), GW_UNAUTHENTICATED, 0,
         ONE_TEXT},
        {GW_STR_INIT("alice "), GW_STR_INIT("pw-of-alice"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("\xe2\x93\x90lice"), GW_STR_INIT("pw-of-alice"), GW_UNAUTHENTICATED, 0,
         ONE_TEXT},
        {GW_STR_INIT("alice"), GW_STR_INIT(""), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("alice"), GW_STR_INIT("\0pw-of-alice"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("alice"), GW_STR_INIT("pw-of-alice\0"), GW_UNAUTHENTICATED, 0, ONE_TEXT},
        {GW_STR_INIT("alice"), GW_STR_INIT("pw-of-alice "), GW_UNAUTHENTICATED, 49, ONE_TEXT},
    };
    struct auth_ldap_server s = server(PLAIN);
    struct auth_ldap d = directory(&s, PLAIN);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct outcome o;
        login(&o, &d, rows[i].user, rows[i].password);
        if (o.rc != rows[i].rc || (o.rc == GW_UNAUTHENTICATED && o.err.sys != rows[i].sys) ||
            (rows[i].text != NULL && strstr(o.err.text, rows[i].text) == NULL)) {
            fail_msg("row %zu: %s, sys %d (%s)", i, gw_status_name(o.rc), o.err.sys, o.err.text);
        }
        gw_arena_release(&o.a);
    }
}

static void group_modes(void **state)
{
    static const struct {
        const char *user, *password;
        enum auth_group_mode mode;
        const char *filter;
        bool nested;
        size_t n;
        const char *groups[5];
    } rows[] = {
        {"alice", "pw-of-alice", AUTH_GROUPS_MEMBEROF, "", false, 1, {"cn=eng,ou=groups,dc=x"}},
        {"alice",
         "pw-of-alice",
         AUTH_GROUPS_MEMBEROF,
         "",
         true,
         4,
         {"cn=eng,ou=groups,dc=x", "cn=staff \\2B (all)*,ou=groups,dc=x",
          "cn=company,ou=groups,dc=x", "cn=circle,ou=groups,dc=x"}},
        {"alice",
         "pw-of-alice",
         AUTH_GROUPS_SEARCH,
         "(member=${dn})",
         false,
         1,
         {"cn=eng,ou=groups,dc=x"}},
        {"smith",
         "pw-of-smith",
         AUTH_GROUPS_SEARCH,
         "(member=${dn})",
         false,
         1,
         {"cn=eng,ou=groups,dc=x"}},
        {"smith",
         "pw-of-smith",
         AUTH_GROUPS_SEARCH,
         "(|(member=${dn})(uniqueMember=${dn}))",
         true,
         4,
         {"cn=eng,ou=groups,dc=x", "cn=staff \\2B (all)*,ou=groups,dc=x",
          "cn=company,ou=groups,dc=x", "cn=circle,ou=groups,dc=x"}},
        {"smith",
         "pw-of-smith",
         AUTH_GROUPS_SEARCH,
         "(member=${dn})",
         true,
         2,
         {"cn=eng,ou=groups,dc=x", "cn=staff \\2B (all)*,ou=groups,dc=x"}},
        {"bob",
         "pw-of-Bob",
         AUTH_GROUPS_SEARCH,
         "(memberUid=${user})",
         false,
         1,
         {"cn=unix,ou=groups,dc=x"}}, /* case matters: the entry's Bob */
        {"BOB",
         "pw-of-Bob",
         AUTH_GROUPS_SEARCH,
         "(|(member=${dn})(memberUid=${user}))",
         true,
         2,
         {"cn=unix,ou=groups,dc=x", "cn=bobs,ou=groups,dc=x"}},
        {"bob", "pw-of-Bob", AUTH_GROUPS_MEMBEROF, "", true, 0, {NULL}},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct auth_ldap_server s = server(PLAIN);
        struct auth_ldap d = directory(&s, PLAIN);
        struct outcome o;

        d.group_mode = rows[i].mode;
        d.group_filter = gw_str_c(rows[i].filter);
        d.nested = rows[i].nested;
        login(&o, &d, gw_str_c(rows[i].user), gw_str_c(rows[i].password));
        expect(&o, GW_OK, NULL);
        if (o.s.n_groups != rows[i].n) {
            fail_msg("row %zu: %zu groups", i, o.s.n_groups);
        }
        for (size_t g = 0; g < rows[i].n; g++) {
            if (!in_group(&o.s, rows[i].groups[g])) {
                for (size_t j = 0; j < o.s.n_groups; j++) {
                    print_error("has %s\n", o.s.groups[j].p);
                }
                fail_msg("row %zu: not in %s", i, rows[i].groups[g]);
            }
        }
        gw_arena_release(&o.a);
    }
}

static void direct_bind(void **state)
{
    for (int service = 0; service < 2; service++) {
        struct auth_ldap_server s = server(START_TLS);
        struct auth_ldap d = directory(&s, START_TLS);
        struct outcome o;

        d.direct_bind = GW_STR("uid=${user},ou=people,dc=x");
        if (!service) {
            d.bind_dn = d.bind_password = d.user_filter = GW_STR("");
        }
        d.group_mode = AUTH_GROUPS_SEARCH;
        login(&o, &d, GW_STR("Alice"), GW_STR("pw-of-alice"));
        expect(&o, GW_OK, NULL);
        assert_true(gw_str_eq_c(o.s.name, "alice") &&
                    gw_str_eq_c(o.s.dn, "uid=alice,ou=people,dc=x"));
        assert_true(in_group(&o.s, "cn=eng,ou=groups,dc=x"));
        gw_arena_release(&o.a);
        login(&o, &d, GW_STR("alice"), GW_STR("wrong"));
        expect(&o, GW_UNAUTHENTICATED, ONE_TEXT);
        gw_arena_release(&o.a);
        login(&o, &d, GW_STR("nobody"), GW_STR("wrong"));
        expect(&o, GW_UNAUTHENTICATED, ONE_TEXT);
        gw_arena_release(&o.a);
        login(&o, &d, GW_STR("locked"), GW_STR("pw-of-locked"));
        expect(&o, GW_UNAUTHENTICATED, ONE_TEXT);
        gw_arena_release(&o.a);
        login(&o, &d, GW_STR("gone"),
              GW_STR("pw-of-gone")); /* may bind, may not be read by anybody */
        expect(&o, GW_UNAVAILABLE, "nobody read");
        gw_arena_release(&o.a);
    }
}

static void refresh(void **state)
{
    struct auth_ldap_server s = server(LDAPS);
    struct auth_ldap d = directory(&s, LDAPS);
    struct outcome o;
    struct auth_subject again;
    struct auth_subject old = {
        .realm = GW_STR("corp"), .dn = GW_STR("uid=somewhere,dc=x"), .name = GW_STR("renamed")};

    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    expect(&o, GW_OK, NULL);
    old.source_id = o.s.source_id; /* the id alone finds her, whatever name and place were */
    o.rc = auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &again, &o.err);
    expect(&o, GW_OK, NULL);
    assert_true(gw_str_eq(again.id, o.s.id) && gw_str_eq_c(again.name, "alice") &&
                again.n_groups == 1);
    assert_int_equal(again.state, AUTH_ACTIVE);

    old.source_id = GW_STR("44444444-4444-4444-8444-444444444444");
    o.rc = auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &again, &o.err);
    expect(&o, GW_NOT_FOUND, NULL);
    old.source_id = GW_STR("*");
    o.rc = auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &again, &o.err);
    expect(&o, GW_NOT_FOUND, NULL); /* one escaped star, which is no entryUUID */
    old.source_id = GW_STR("x)(uid=alice");
    o.rc = auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &again, &o.err);
    expect(&o, GW_NOT_FOUND, NULL);

    /* no longer what user_filter asks for: as good as gone */
    old.source_id = o.s.source_id;
    d.user_filter = GW_STR("(&(uid=${user})(employeeNumber=*))");
    o.rc = auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &again, &o.err);
    expect(&o, GW_NOT_FOUND, NULL);
    d.user_filter = GW_STR("(|(uid=*${user})(mail=${user}*x))");
    o.rc = auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &again, &o.err);
    expect(&o, GW_OK, NULL);
    gw_arena_release(&o.a);
}

/* suspended persons are found, and said to be so */
static void refresh_suspended(void **state)
{
    static const char *const users[] = {"locked", "expired"};

    for (size_t i = 0; i < 2; i++) {
        struct auth_ldap_server s = server(PLAIN);
        struct auth_ldap d = directory(&s, PLAIN);
        struct outcome o = {0};
        const struct auth_subject old = {
            .realm = GW_STR("corp"), .source_id = gw_str_c(users[i]), .dn = GW_STR("x=y")};

        d.id_attr = GW_STR("uid"); /* known beforehand */
        gw_arena_init(&o.a, 1 << 20);
        o.rc = auth_ldap_refresh(&d, &old, NULL, NULL, gw_mono_ms() + LONG_MS, &o.a, &o.s, &o.err);
        expect(&o, GW_OK, NULL);
        assert_int_equal(o.s.state, AUTH_SUSPENDED);
        gw_arena_release(&o.a);
    }
}

static void service_account(void **state)
{
    struct auth_ldap_server s = server(LDAPS);
    struct auth_ldap d = directory(&s, LDAPS);
    struct outcome o;
    struct gw_buf report;

    gw_buf_init(&report, 4096);
    assert_int_equal(auth_ldap_probe(&d, NULL, NULL, gw_mono_ms() + LONG_MS, &report, &o.err),
                     GW_OK);
    assert_non_null(strstr(report.p, "TLS, bound"));
    gw_buf_reset(&report);
    d.group_base = GW_STR("ou=nothing,dc=x");
    assert_int_equal(auth_ldap_probe(&d, NULL, NULL, gw_mono_ms() + LONG_MS, &report, &o.err),
                     GW_UNAVAILABLE);
    assert_non_null(strstr(report.p, "ou=nothing,dc=x cannot be read"));
    gw_buf_release(&report);

    d = directory(&s, LDAPS);
    d.bind_password = GW_STR("wrong");
    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    expect(&o, GW_UNAVAILABLE, "bind_dn");
    gw_arena_release(&o.a);

    d = directory(&s, LDAPS);
    d.bind_dn = GW_STR(""); /* anonymous sees nobody here */
    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    assert_true(o.rc == GW_UNAUTHENTICATED || o.rc == GW_UNAVAILABLE);
    gw_arena_release(&o.a);

    d = directory(&s, LDAPS);
    d.user_base = GW_STR("ou=nothing,dc=x");
    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    expect(&o, GW_UNAVAILABLE, "No such object");
    gw_arena_release(&o.a);
}

/* How often a text is in our memory, but for one page. The needle is given turned round, not to be
 * found itself. */
static size_t copies_in_memory(const char *turned, size_t n, const void *page)
{
    char line[512];
    static char chunk[65536 + 64];
    size_t found = 0;
    unsigned long from, to;
    FILE *maps = fopen("/proc/self/maps", "r");
    int mem = open("/proc/self/mem", O_RDONLY);

    assert_true(maps != NULL && mem >= 0 && n < 64);
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%lx-%lx rw", &from, &to) != 2 || strstr(line, " rw") == NULL ||
            strstr(line, "[v") != NULL || to - from > 1ul << 30 /* a sanitizer's shadow */ ||
            from == (unsigned long)page) {
            continue;
        }
        for (unsigned long at = from; at < to; at += 65536) {
            ssize_t got =
                pread(mem, chunk, sizeof(chunk) < to - at ? sizeof(chunk) : to - at, (off_t)at);
            for (ssize_t i = 0; i + (ssize_t)n <= got && i < 65536; i++) {
                size_t same = 0;
                while (same < n && chunk[i + (ssize_t)same] == turned[n - 1 - same]) {
                    same++;
                }
                bool ours = at + (unsigned long)i >= (unsigned long)chunk &&
                            at + (unsigned long)i < (unsigned long)chunk + sizeof(chunk);
                found += same == n && !ours;
            }
        }
    }
    close(mem);
    fclose(maps);
    return found;
}

/* After a login no copy of the password is left that the library or we made. */
static void password_is_wiped(void **state)
{
    static const char turned[] =
        "htims-fo-wp"; /* pw-of-smith: no other test's buffer may still hold it */
    const size_t n = sizeof(turned) - 1;

    for (enum mode mode = PLAIN; mode <= LDAPS; mode++) {
        struct auth_ldap_server s = server(mode);
        struct auth_ldap d = directory(&s, mode);
        struct outcome o;
        char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        assert_true(page != MAP_FAILED);
        for (size_t i = 0; i < n; i++) {
            page[i] = turned[n - 1 - i];
        }
        size_t before = copies_in_memory(turned, n, page);
        login(&o, &d, GW_STR("smith"), (struct gw_str){page, n});
        expect(&o, GW_OK, NULL);
        size_t after = copies_in_memory(turned, n, page);
        if (after > before) {
            fail_msg("mode %d: %zu copies more", (int)mode, after - before);
        }
        gw_arena_release(&o.a);
        munmap(page, 4096);
    }
}

/* The last: the server goes, and the next in the list is asked. */
static void failover(void **state)
{
    struct auth_ldap_server s[] = {server(PLAIN), server(PLAIN)};
    struct auth_ldap d = directory(s, PLAIN);
    struct outcome o;
    int status;

    int fd = listen_on_loopback(&s[0].port); /* accepts by the kernel, never answers */
    d.n_servers = 2;
    d.timeout_ms = 1000;
    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    expect(&o, GW_OK, NULL);
    gw_arena_release(&o.a);
    close(fd); /* refuses now */
    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    expect(&o, GW_OK, NULL);
    gw_arena_release(&o.a);

    kill(slapd.pid, SIGTERM);
    waitpid(slapd.pid, &status, 0);
    slapd.pid = 0;
    login(&o, &d, GW_STR("alice"), GW_STR("pw-of-alice"));
    expect(&o, GW_UNAVAILABLE, NULL);
    gw_arena_release(&o.a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_transport),      cmocka_unit_test(verification),
        cmocka_unit_test(people_and_passwords), cmocka_unit_test(group_modes),
        cmocka_unit_test(direct_bind),          cmocka_unit_test(refresh),
        cmocka_unit_test(refresh_suspended),    cmocka_unit_test(service_account),
        cmocka_unit_test(password_is_wiped),    cmocka_unit_test(failover),
    };
    return cmocka_run_group_tests(tests, start_slapd, stop_slapd);
}
