/* SPDX-License-Identifier: Apache-2.0 */
/* A loose object ends, whatever its bytes, and says what its head promised. */
#include "repo/repo_internal.h"

#include "base/alloc.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gw_str file = {(const char *)data, size};
    size_t head;
    uint64_t n;
    int type;
    char *whole;

    if (!repo_loose_head(file, &type, &n, &head)) {
        return 0;
    }
    whole = repo_loose_body(file, head, n);
    if (whole != NULL && (memchr(whole, '\0', head) != whole + head - 1 || type < 1 || type > 4)) {
        abort();
    }
    gw_free(whole);
    return 0;
}
