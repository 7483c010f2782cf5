/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/auth/test_ldap_text.c - URLs of directories, and the templates for filters and DNs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "auth/auth.h"
#include "tests/unit/failing.h"

static void urls(void **state)
{
    static const struct {
        struct gw_str url;
        int rc;
        const char *host;
        uint16_t port;
        bool ldaps, loopback;
    } rows[] = {
        {GW_STR_INIT("ldap://127.0.0.1"), GW_OK, "127.0.0.1", 389, false, true},
        {GW_STR_INIT("ldap://127.8.9.1:3890/"), GW_OK, "127.8.9.1", 3890, false, true},
        {GW_STR_INIT("ldaps://dir.corp.example"), GW_OK, "dir.corp.example", 636, true, false},
        {GW_STR_INIT("ldaps://dir.corp.example:65535"), GW_OK, "dir.corp.example", 65535, true,
         false},
        {GW_STR_INIT("ldap://[::1]:389"), GW_OK, "::1", 389, false, true},
        {GW_STR_INIT("ldap://[::1]"), GW_OK, "::1", 389, false, true},
        {GW_STR_INIT("ldaps://[2001:db8::5]:636"), GW_OK, "2001:db8::5", 636, true, false},
        {GW_STR_INIT("ldap://128.0.0.1"), GW_OK, "128.0.0.1", 389, false, false},
        {GW_STR_INIT("ldap://localhost"), GW_OK, "localhost", 389, false,
         false}, /* a name: who knows where it points */
        {GW_STR_INIT("ldap://127.1"), GW_OK, "127.1", 389, false, false},
        {GW_STR_INIT("ldap://"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap:///"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldapi://x"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("LDAP://x"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("http://x"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT(""), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://x:"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://x:0"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://x:65536"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://x:+1"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://x/dc=corp"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://u@x"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://x y"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://x\0y"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://[::1"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://[::1]x"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://[::1]:"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://[127.0.0.1]"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://[::1\0]"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://[fe80::1%eth0]"), GW_INVALID, "", 0, false, false},
        {GW_STR_INIT("ldap://-x"), GW_INVALID, "", 0, false, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_arena a = {0};
        struct gw_error err = {0};
        struct auth_ldap_server s = {.port = 7};

        gw_arena_init(&a, 65536);
        int rc = auth_ldap_url_parse(rows[i].url, &a, &s, &err);
        if (rc != rows[i].rc) {
            fail_msg("%s: %s (%s)", rows[i].url.p, gw_status_name(rc), err.text);
        }
        if (rc == GW_OK) {
            assert_string_equal(s.host.p, rows[i].host);
            assert_int_equal(s.port, rows[i].port);
            assert_int_equal(s.ldaps, rows[i].ldaps);
            assert_int_equal(s.loopback, rows[i].loopback);
            assert_true(gw_str_eq(s.url, rows[i].url));
        } else {
            assert_int_equal(s.port, 7);
        }
        gw_arena_release(&a);
    }
}

static void templates(void **state)
{
    static const struct {
        struct gw_str text;
        bool is_dn;
        const char *error; /* NULL: accepted */
    } rows[] = {
        {GW_STR_INIT("(uid=${user})"), false, NULL},
        {GW_STR_INIT("(&(objectClass=person)(|(uid=${user})(mail=${user}@corp.example)))"), false,
         NULL},
        {GW_STR_INIT("(&(uid=${user})(!(memberOf=cn=no\\2c \\28x\\29,dc=x)))"), false, NULL},
        {GW_STR_INIT("(cn=*${user}*)"), false, NULL},
        {GW_STR_INIT("(cn=a*b${user})"), false, NULL},
        {GW_STR_INIT("(member=${dn})"), false, NULL},
        {GW_STR_INIT("(member:1.2.840.113556.1.4.1941:=${dn})"), false, NULL},
        {GW_STR_INIT("(|(member=${dn})(memberUid=${user}))"), false, NULL},
        {GW_STR_INIT("(&(uid=${user})(cn;lang-de=x)(a~=x)(b>=1)(c<=2)(:dn:2.5.13.2:=y)(cn:dn:=z))"),
         false, NULL},
        {GW_STR_INIT("(uid=$${user}$)"), false, NULL},
        {GW_STR_INIT("uid=${user},ou=people,dc=x"), true, NULL},
        {GW_STR_INIT("cn=x ${user}+uid=${user},dc=x"), true, NULL},
        {GW_STR_INIT("uid=${user},ou=a\\,b,dc=x"), true, NULL},

        {GW_STR_INIT("(uid=alice)"), false, "neither"},
        {GW_STR_INIT("uid=${user}"), false, "character 1: a ( is missing"},
        {GW_STR_INIT("(uid=${user}"), false, "a ) is missing"},
        {GW_STR_INIT("(uid=${user}))"), false, "follows the last"},
        {GW_STR_INIT("(uid=${user})(x=y)"), false, "follows the last"},
        {GW_STR_INIT("(${user}=x)"), false, "attribute name"},
        {GW_STR_INIT("(&${user}(uid=x))"), false, "a ( is missing"},
        {GW_STR_INIT("(=${user})"), false, "attribute name"},
        {GW_STR_INIT("()"), false, "attribute name"},
        {GW_STR_INIT("(&)"), false, "a ( is missing"},
        {GW_STR_INIT("(uid${user})"), false, "comparison"},
        {GW_STR_INIT("(uid>=${user})"), false, "plain ="},
        {GW_STR_INIT("(uid~=${user})"), false, "plain ="},
        {GW_STR_INIT("(uid:=${user})"), false, "plain ="},
        {GW_STR_INIT("(uid<=${dn})"), false, "= or :="},
        {GW_STR_INIT("(uid=${name})"), false, "unknown variable"},
        {GW_STR_INIT("(uid=${user)"), false, "unknown variable"},
        {GW_STR_INIT("(uid=${user}\\)"), false, "hex"},
        {GW_STR_INIT("(uid=${user}\\2)"), false, "hex"},
        {GW_STR_INIT("(cn=**${user})"), false, "twice"},
        {GW_STR_INIT("(&(uid=${user})(a>=*))"), false, "plain ="},
        {GW_STR_INIT("(uid=${user}(x)"), false, "in a value"},
        {GW_STR_INIT("(uid=${user}\n)"), false, "in a value"},
        {GW_STR_INIT("(uid=${user}\0)"), false, "UTF-8"},
        {GW_STR_INIT("(uid=${user}\xff)"), false, "UTF-8"},
        {GW_STR_INIT(""), false, "1 to"},
        {GW_STR_INIT(" (uid=${user})"), false, "a ( is missing"},
        {GW_STR_INIT("((((((((((((((((((((uid=${user}))))))))))))))))))))"), false,
         "attribute name"},
        {GW_STR_INIT("(!(!(!(!(!(!(!(!(!(!(!(!(!(!(!(!(!(!(uid=${user})))))))))))))))))))"), false,
         "too deep"},
        {GW_STR_INIT("uid=alice,dc=x"), true, "no ${user}"},
        {GW_STR_INIT("${user}=x,dc=x"), true, "value of an RDN"},
        {GW_STR_INIT("uid=x,${user}=y"), true, "value of an RDN"},
        {GW_STR_INIT("${user}@corp.example"), true, "value of an RDN"},
        {GW_STR_INIT("uid=${dn},dc=x"), true, "unknown variable"},
        {GW_STR_INIT("uid=\"${user}\",dc=x"), true, "quotes"},
        {GW_STR_INIT("uid=${user},,dc=x"), true, "not a DN"},
        {GW_STR_INIT("uid=${user},dc"), true, "not a DN"},
        {GW_STR_INIT("uid=${user}\\"), true, "not a DN"},
        {GW_STR_INIT("uid=\\${user},cn=${user}"), true, "needs no"},
        {GW_STR_INIT("(uid=${user})"), true, "not a DN"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_error err = {0};
        int rc = auth_ldap_template_check(rows[i].text, rows[i].is_dn, &err);

        if (rc != (rows[i].error == NULL ? GW_OK : GW_INVALID)) {
            fail_msg("%s: %s (%s)", rows[i].text.p, gw_status_name(rc), err.text);
        }
        if (rows[i].error != NULL && strstr(err.text, rows[i].error) == NULL) {
            fail_msg("%s: %s", rows[i].text.p, err.text);
        }
    }
}

static int parse_one(void *ctx)
{
    struct gw_arena a = {0};
    struct auth_ldap_server s;

    gw_arena_init(&a, 65536);
    int rc = auth_ldap_url_parse(GW_STR("ldaps://dir.corp.example:636"), &a, &s, NULL);
    gw_arena_release(&a);
    return rc;
}

static void no_memory(void **state)
{
    with_failing_alloc(parse_one, NULL, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),
        cmocka_unit_test(templates),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
