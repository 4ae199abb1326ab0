/* An encryption context has one canonical form, whatever the order in which it was sent. */
#include "keys/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int make_arena(void **state)
{
    struct kms_arena *arena = NULL;
    const enum kms_status status = kms_arena_new(1 << 20, &arena);
    *state = arena;
    return status == KMS_OK ? 0 : -1;
}

static int free_arena(void **state)
{
    kms_arena_free(*state);
    return 0;
}

static struct kms_context_entry entry(const char *key, const char *value)
{
    return (struct kms_context_entry){kms_slice_str(key), kms_slice_str(value)};
}

static void an_empty_context_is_two_zero_bytes(void **state)
{
    struct kms_slice canonical;
    assert_int_equal(kms_context_canonical(*state, NULL, 0, &canonical, NULL), KMS_OK);
    assert_int_equal(canonical.len, 2);
    assert_memory_equal(canonical.data, "\0\0", 2);
}

static void the_order_of_entries_does_not_matter(void **state)
{
    static const uint8_t expected[] = "\0\3\0\1a\0\1"
                                      "1\0\2aa\0\0\0\1b\0\1"
                                      "3";
    struct kms_context_entry forward[] = {entry("a", "1"), entry("aa", ""), entry("b", "3")};
    struct kms_context_entry backward[] = {entry("b", "3"), entry("aa", ""), entry("a", "1")};
    struct kms_slice one;
    struct kms_slice two;
    assert_int_equal(kms_context_canonical(*state, forward, 3, &one, NULL), KMS_OK);
    assert_int_equal(kms_context_canonical(*state, backward, 3, &two, NULL), KMS_OK);
    assert_int_equal(one.len, sizeof expected - 1);
    assert_memory_equal(one.data, expected, one.len);
    assert_true(kms_slice_equal(one, two));
}

static void where_a_key_ends_makes_a_difference(void **state)
{
    struct kms_context_entry one[] = {entry("ab", "c")};
    struct kms_context_entry two[] = {entry("a", "bc")};
    struct kms_slice a;
    struct kms_slice b;
    assert_int_equal(kms_context_canonical(*state, one, 1, &a, NULL), KMS_OK);
    assert_int_equal(kms_context_canonical(*state, two, 1, &b, NULL), KMS_OK);
    assert_false(kms_slice_equal(a, b));
}

/* Refused, with a text for the caller that contains `word`. */
static void assert_refused(void **state, struct kms_context_entry *entries, size_t count, const char *word)
{
    struct kms_error err = {0};
    struct kms_slice canonical;
    assert_int_equal(kms_context_canonical(*state, entries, count, &canonical, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, word));
}

static void duplicate_and_empty_keys_are_refused(void **state)
{
    struct kms_context_entry twice[] = {entry("k", "1"), entry("b", "2"), entry("k", "1")};
    assert_refused(state, twice, 3, "more than once");
    struct kms_context_entry empty[] = {entry("", "1")};
    assert_refused(state, empty, 1, "empty");
}

static void text_that_is_not_printable_utf8_is_refused(void **state)
{
    static const char *const bad[] = {"\xff", "\xc3", "\xed\xa0\x80", "a\nb", "\x7f", "\xc2\x85", "\x1b[0m"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct kms_context_entry as_key[] = {entry(bad[i], "v")};
        struct kms_context_entry as_value[] = {entry("k", bad[i])};
        assert_refused(state, as_key, 1, "UTF-8");
        assert_refused(state, as_value, 1, "UTF-8");
    }
    struct kms_context_entry with_nul[] = {{kms_slice_of("a\0b", 3), kms_slice_str("v")}};
    assert_refused(state, with_nul, 1, "UTF-8");
    struct kms_context_entry good[] = {entry("größe", "日本")};
    struct kms_slice canonical;
    assert_int_equal(kms_context_canonical(*state, good, 1, &canonical, NULL), KMS_OK);
}

static void exactly_8_kib_are_accepted_and_no_more(void **state)
{
    static char big[KMS_CONTEXT_MAX + 1];
    memset(big, 'x', sizeof big);
    struct kms_context_entry entries[2] = {{kms_slice_of(big, 4000), kms_slice_of(big, 4000)},
                                           {kms_slice_str("k"), kms_slice_of(big, 191)}};
    struct kms_slice canonical;
    assert_int_equal(kms_context_canonical(*state, entries, 2, &canonical, NULL), KMS_OK);
    assert_int_equal(canonical.len, KMS_CONTEXT_MAX + 2 + 8);
    entries[0].value.len++;
    assert_refused(state, entries, 2, "8192");
    struct kms_context_entry huge[] = {{kms_slice_str("k"), kms_slice_of(big, sizeof big)}};
    assert_refused(state, huge, 1, "8192");
}

static void at_most_64_entries_are_accepted(void **state)
{
    static char names[65][3];
    struct kms_context_entry entries[65];
    for (unsigned i = 0; i < 65; i++) {
        names[i][0] = (char)('a' + i / 26);
        names[i][1] = (char)('a' + i % 26);
        entries[i] = entry(names[i], "");
    }
    struct kms_slice canonical;
    assert_int_equal(kms_context_canonical(*state, entries, 64, &canonical, NULL), KMS_OK);
    assert_refused(state, entries, 65, "64");
}

static void an_arena_that_is_full_is_reported(void **state)
{
    (void)state;
    struct kms_arena *small = NULL;
    assert_int_equal(kms_arena_new(8, &small), KMS_OK);
    struct kms_context_entry entries[] = {entry("key", "value")};
    struct kms_slice canonical;
    assert_int_equal(kms_context_canonical(small, entries, 1, &canonical, NULL), KMS_NO_MEMORY);
    kms_arena_free(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_context_is_two_zero_bytes, make_arena, free_arena),
        cmocka_unit_test_setup_teardown(the_order_of_entries_does_not_matter, make_arena, free_arena),
        cmocka_unit_test_setup_teardown(where_a_key_ends_makes_a_difference, make_arena, free_arena),
        cmocka_unit_test_setup_teardown(duplicate_and_empty_keys_are_refused, make_arena, free_arena),
        cmocka_unit_test_setup_teardown(text_that_is_not_printable_utf8_is_refused, make_arena, free_arena),
        cmocka_unit_test_setup_teardown(exactly_8_kib_are_accepted_and_no_more, make_arena, free_arena),
        cmocka_unit_test_setup_teardown(at_most_64_entries_are_accepted, make_arena, free_arena),
        cmocka_unit_test(an_arena_that_is_full_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
