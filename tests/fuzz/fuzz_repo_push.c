/* SPDX-License-Identifier: Apache-2.0 */
/* The beginning of a push: any answer, in time; what is a ref is one whole. */
#include "repo/repo.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct repo_push_ref *refs;
    struct gw_arena a;
    size_t n;

    gw_arena_init(&a, 8u << 20);
    if (repo_push_parse((struct gw_str){(const char *)data, size}, &a, &refs, &n, NULL) == GW_OK) {
        for (size_t i = 0; i < n; i++) {
            if (strlen(refs[i].from) != 40 || strlen(refs[i].to) != 40 || refs[i].name.n == 0 ||
                strlen(refs[i].name.p) != refs[i].name.n || refs[i].done) {
                abort();
            }
        }
    }
    gw_arena_release(&a);
    return 0;
}
