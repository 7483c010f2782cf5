/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns, NUL, a path: any answer, in time. */
#include "repo/repo_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str path = {(const char *)data, size}, patterns;
    struct repo_ignore *ignore;
    struct gw_arena a;

    if (size > 4096 || !gw_str_split(&path, '\0', &patterns) || path.p == NULL || path.n == 0) {
        return 0;
    }
    gw_arena_init(&a, 1u << 20);
    if (repo_ignore_parse(&ignore, patterns, &a, NULL) == GW_OK) {
        repo_is_ignored(ignore, path);
    }
    gw_arena_release(&a);
    return 0;
}
