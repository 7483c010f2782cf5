/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a README.md, before it is uploaded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "hub/hub.h"

#define EMPTY "{\"message\":\"empty or missing yaml metadata in repo card\"}"

static void test_cards(void **state)
{
    static const struct {
        const char *readme, *errors, *warnings; /* messages; NULL: none */
    } rows[] = {
        {"# A model\n", NULL, EMPTY},
        {"", NULL, EMPTY},
        {"---\nlicense: mit\n", NULL, EMPTY},
        {"---\nlicense: mit\ntags: [a, b]\n---\n# A model\n", NULL, NULL},
        {"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n", NULL, NULL},
        {"---\n---\n", NULL, NULL},
        {"---\nlanguage:\n- en\n- de\nbase_model: a/b\ntags:\n---\n", NULL, NULL},
        {"---\nmodel-index:\n- name: x\n  results:\n  - task: {type: y}\n---\n", NULL, NULL},
        {"---\nx: &a 1\ny: *a\nz: !!str 1\n---\n", NULL, NULL},
        {"---\nlicense: mit\ntags: one\n---\n",
         "{\"message\":\"README.md:3:1: \\\"tags\\\" must be a list\"}", NULL},
        {"---\nlicense: {a: b}\n\npipeline_tag: [x]\n---\n",
         "{\"message\":\"README.md:2:1: \\\"license\\\" must be a text or a list of texts\"},"
         "{\"message\":\"README.md:4:1: \\\"pipeline_tag\\\" must be a text\"}",
         NULL},
        {"---\ntags: [[a]]\n---\n", "{\"message\":\"README.md:2:1: \\\"tags\\\" must be a list\"}",
         NULL},
        {"---\n- a\n---\n",
         "{\"message\":\"README.md: the metadata between the lines --- must be \\\"key: value\\\" "
         "lines\"}",
         NULL},
        {"---\na: [b\n---\n", "?README.md:", NULL},
        {"---\n\"a: b\n---\n", "?README.md:", NULL},
        {"---\na: b: c\n---\n", "?README.md:2:", NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gw_buf body, out, expected;
        struct gw_arena a;
        struct gw_error err;
        bool valid = false;

        gw_buf_init(&body, 65536);
        gw_buf_init(&out, 65536);
        gw_buf_init(&expected, 65536);
        gw_arena_init(&a, 1u << 20);
        gw_buf_add_c(&body, "{\"repoType\":\"model\",\"content\":");
        gw_json_put_string(&body, gw_str_c(rows[i].readme));
        gw_buf_add_c(&body, "}");
        assert_int_equal(hub_card_check(&out, &valid, gw_buf_str(&body), &a, &err), GW_OK);
        assert_int_equal(valid, rows[i].errors == NULL);
        gw_buf_add_char(&out, '\0');
        if (rows[i].errors != NULL && rows[i].errors[0] == '?') {
            if (strstr(out.p, rows[i].errors + 1) == NULL) {
                fail_msg("%s: %s", rows[i].readme, out.p);
            }
        } else {
            gw_buf_addf(&expected, "{\"errors\":[%s],\"warnings\":[%s]}",
                        rows[i].errors ? rows[i].errors : "",
                        rows[i].warnings ? rows[i].warnings : "");
            gw_buf_add_char(&expected, '\0');
            assert_string_equal(out.p, expected.p);
        }
        gw_buf_release(&body);
        gw_buf_release(&out);
        gw_buf_release(&expected);
        gw_arena_release(&a);
    }
}

static void test_bodies(void **state)
{
    static const char *const bad[] = {
        "", "[]", "{}", "{\"content\":1}", "{\"content\":\"x\"", "{\"a\":{\"content\":\"x\"}}"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct gw_buf out;
        struct gw_arena a;
        struct gw_error err;
        bool valid;

        gw_buf_init(&out, 65536);
        gw_arena_init(&a, 1u << 20);
        assert_int_equal(hub_card_check(&out, &valid, gw_str_c(bad[i]), &a, &err), GW_INVALID);
        gw_buf_release(&out);
        gw_arena_release(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cards), cmocka_unit_test(test_bodies)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
