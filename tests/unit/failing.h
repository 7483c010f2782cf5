/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/failing.h - for tests: one step, again and again, each time with a later allocation
 * failing. */
#ifndef TESTS_UNIT_FAILING_H
#define TESTS_UNIT_FAILING_H

#include "base/alloc.h"
#include "base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

/* step returns a status, and releases what it made. It must say GW_NO_MEMORY or GW_TOO_LARGE while
 * allocations fail, GW_OK once none does, and make at least `least` of them. */
static inline void with_failing_alloc(int (*step)(void *ctx), void *ctx, size_t least)
{
    for (size_t n = 1; n < 100000; n++) {
        size_t made;
        int rc;

        gw_alloc_fail_at(n);
        rc = step(ctx);
        made = gw_alloc_fail_at(0);
        if (made < n) { /* none was made to fail */
            assert_int_equal(rc, GW_OK);
            assert_true(made >= least);
            return;
        }
        if (rc != GW_NO_MEMORY && rc != GW_TOO_LARGE) {
            fail_msg("allocation %zu failed, but the step says %s", n,
                     gw_status_name((enum gw_status)rc));
        }
    }
    fail_msg("no end of allocations");
}

#endif
