/* SPDX-License-Identifier: Apache-2.0 */
/* A pointer that parses is the one text that its object has. */
#include "repo/repo.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str text = {(const char *)data, size}, hex;
    char sha[65], again[65], out[200];
    uint64_t n, m;

    if (!repo_pointer_parse(text, sha, &n)) {
        return 0;
    }
    hex = (struct gw_str){sha, 64};
    if (!gw_str_eq((struct gw_str){out, repo_pointer_format(out, hex, n)}, text) ||
        !repo_pointer_parse(text, again, &m) || m != n || memcmp(sha, again, 65) != 0) {
        abort();
    }
    return 0;
}
