/* SPDX-License-Identifier: Apache-2.0 */
/* Networks: what is one, and who is in it. */
#include "base/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_networks(void **state)
{
    static const struct {
        const char *network, *address;
        int has; /* -1: not a network */
    } rows[] = {
        {"127.0.0.1", "127.0.0.1", 1},
        {"127.0.0.1", "127.0.0.2", 0},
        {"127.0.0.1", "::ffff:127.0.0.1", 1},
        {"10.0.0.0/8", "10.255.0.1", 1},
        {"10.0.0.0/8", "11.0.0.1", 0},
        {"192.168.4.0/22", "192.168.7.255", 1},
        {"192.168.4.0/22", "192.168.8.0", 0},
        {"0.0.0.0/0", "1.2.3.4", 1},
        {"0.0.0.0/0", "::1", 0},
        {"::/0", "1.2.3.4", 1},
        {"::1", "::1", 1},
        {"::1", "0:0:0:0:0:0:0:1", 1},
        {"::1", "127.0.0.1", 0},
        {"2001:db8::/33", "2001:db8:7fff::1", 1},
        {"2001:db8::/33", "2001:db8:8000::1", 0},
        {"127.0.0.1", "unix:", 0},
        {"127.0.0.1", "", 0},
        {"127.0.0.1", "127.0.0.1 ", 0},
        {"10.1.0.0/8", "10.1.0.1", -1}, /* bits behind the prefix: somebody meant something else */
        {"10.0.0.0/33", "", -1},
        {"::1/129", "", -1},
        {"10.0.0.0/", "", -1},
        {"10.0.0.0/8/8", "", -1},
        {"10.0.0", "", -1},
        {"localhost", "", -1},
        {"[::1]", "", -1},
        {"", "", -1},
        {"/0", "", -1},
        {"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", "", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_network n;
        bool parsed = gw_network_parse(&n, gw_str_c(rows[i].network));
        int has = parsed ? gw_network_has(&n, gw_str_c(rows[i].address)) : -1;

        if (has != rows[i].has) {
            fail_msg("%s %s: %d", rows[i].network, rows[i].address, has);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_networks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
