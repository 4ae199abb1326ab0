/* A difference shows every changed line, and rebuilds the new text from the old one. */
#include "core/diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static enum kms_status print(void *context, char mark, struct kms_slice line, size_t number)
{
    char *text = context;
    const size_t used = strlen(text);
    if (mark == '@')
        (void)snprintf(text + used, 4096 - used, "@%zu|", number);
    else
        (void)snprintf(text + used, 4096 - used, "%c%.*s|", mark, (int)line.len, (const char *)line.data);
    return KMS_OK;
}

static const char *diff(const char *old_text, const char *new_text, size_t around)
{
    static char text[4096];
    text[0] = '\0';
    assert_int_equal(kms_diff_lines(kms_slice_str(old_text), kms_slice_str(new_text), around, print, text),
                     KMS_OK);
    return text;
}

static void equal_texts_have_no_difference(void **state)
{
    (void)state;
    assert_string_equal(diff("", "", 3), "");
    assert_string_equal(diff("a\nb\n", "a\nb\n", 3), "");
    assert_string_equal(diff("a\nb", "a\nb\n", 3), ""); /* the last line's end does not count */
}

static void changes_are_shown_with_what_is_around(void **state)
{
    (void)state;
    assert_string_equal(diff("a\nb\nc\n", "a\nx\nc\n", 1), " a|-b|+x| c|");
    assert_string_equal(diff("a\nb\nc\n", "a\nx\nc\n", 0), "@2|-b|+x|");
    assert_string_equal(diff("", "a\n", 3), "+a|");
    assert_string_equal(diff("a\n", "", 3), "-a|");
    assert_string_equal(diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "0\n1\n2\n3\n4\n5\n6\n7\n9\n", 1),
                        "+0| 1|@8| 7|-8| 9|");
    assert_string_equal(diff("a\n\n\nb\n", "a\n\nb\n", 0), "@3|-|");
}

/* Collects the new text that a difference with everything around describes. */
static enum kms_status rebuild(void *context, char mark, struct kms_slice line, size_t number)
{
    (void)number;
    struct kms_buf *text = context;
    if (mark == '-')
        return KMS_OK;
    assert_int_not_equal(mark, '@');
    assert_int_equal(kms_buf_append(text, line.data, line.len), KMS_OK);
    return kms_buf_append(text, "\n", 1);
}

static void any_two_texts_lead_from_one_to_the_other(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (unsigned round = 0; round < 300; round++) {
        char old_text[64] = "";
        char new_text[64] = "";
        for (char *text = old_text;; text = new_text) {
            seed = seed * 1103515245U + 12345U;
            const unsigned count = 1 + (seed >> 16) % 20;
            for (unsigned i = 0; i < count; i++) {
                seed = seed * 1103515245U + 12345U;
                text[2 * i] = (char)('a' + (seed >> 16) % 3);
                text[2 * i + 1] = '\n';
            }
            if (text == new_text)
                break;
        }
        struct kms_buf found = {0};
        const bool same = strcmp(old_text, new_text) == 0;
        assert_int_equal(
            kms_diff_lines(kms_slice_str(old_text), kms_slice_str(new_text), 100, rebuild, &found), KMS_OK);
        if (!same)
            assert_true(kms_slice_equal(kms_buf_slice(&found), kms_slice_str(new_text)));
        kms_buf_clear(&found);
    }
}

static enum kms_status count(void *context, char mark, struct kms_slice line, size_t number)
{
    (void)line;
    (void)number;
    size_t *counts = context;
    counts[mark == '+']++;
    return mark == '+' || mark == '-' ? KMS_OK : KMS_INTERNAL;
}

static void huge_changes_are_shown_as_a_block(void **state)
{
    (void)state;
    enum { LINES = 5000 };
    struct kms_buf old_text = {0};
    struct kms_buf new_text = {0};
    size_t counts[2] = {0};
    for (int i = 0; i < LINES; i++) {
        assert_int_equal(kms_buf_printf(&old_text, "a%d\n", i), KMS_OK);
        assert_int_equal(kms_buf_printf(&new_text, "b%d\n", i), KMS_OK);
    }
    assert_int_equal(kms_diff_lines(kms_buf_slice(&old_text), kms_buf_slice(&new_text), 0, count, counts),
                     KMS_OK);
    assert_int_equal(counts[0], LINES);
    assert_int_equal(counts[1], LINES);
    kms_buf_clear(&old_text);
    kms_buf_clear(&new_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_texts_have_no_difference),
        cmocka_unit_test(changes_are_shown_with_what_is_around),
        cmocka_unit_test(any_two_texts_lead_from_one_to_the_other),
        cmocka_unit_test(huge_changes_are_shown_as_a_block),
    };
    return cmocka_run_group_tests_name("diff", tests, NULL, NULL);
}
