/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzz_gateway_record.c - bytes of a damaged index: what is taken as a record is the
 * same when it is written again. */
#include <stdint.h>
#include <stdlib.h>

#include "gateway/internal.h"
#include "gateway/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool yes)
{
    if (!yes) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str value = {(const char *)data, size}, next, json;
    struct auth_subject s, s2;
    struct auth_token t, t2;
    struct record_ref r, r2;
    struct gw_arena a;
    struct gw_buf b;

    gw_arena_init(&a, 1 << 20);
    gw_buf_init(&b, 1 << 20);
    if (record_token_decode(&t, value)) {
        demand(strlen(t.id) <= AUTH_TOKEN_ID_LEN && t.role <= AUTH_ROLE_WRITE);
        record_token_encode(&b, &t);
        demand(!b.failed && record_token_decode(&t2, gw_buf_str(&b)));
        demand(t.expires_ms == t2.expires_ms && t.revoked == t2.revoked &&
               gw_str_eq(t.subject, t2.subject) && gw_str_eq(t.name, t2.name));
    }
    gw_buf_reset(&b);
    if (record_subject_decode(&s, value, &a) == GW_OK) {
        demand(s.n_groups <= size);
        record_subject_encode(&b, &s);
        demand(!b.failed && record_subject_decode(&s2, gw_buf_str(&b), &a) == GW_OK);
        demand(s.state == s2.state && s.n_groups == s2.n_groups && gw_str_eq(s.name, s2.name));
        for (size_t i = 0; i < s.n_groups; i++) {
            demand(gw_str_eq(s.groups[i], s2.groups[i]));
        }
    }
    gw_buf_reset(&b);
    if (record_ref_decode(&r, value)) {
        record_ref_encode(&b, &r);
        demand(!b.failed && gw_str_eq(gw_buf_str(&b), value));
        demand(record_ref_decode(&r2, gw_buf_str(&b)) && hub_is_commit(r2.commit));
    }
    if (tree_page_decode(value, &next, &json)) {
        demand(next.n + json.n < size);
    }
    gw_buf_release(&b);
    gw_arena_release(&a);
    return 0;
}
