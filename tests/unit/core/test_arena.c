/* The memory of a call: zeroed, aligned, bounded, wiped. */
#include "core/arena.h"

#include <stdint.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct kms_arena *arena_of(size_t limit)
{
    struct kms_arena *arena = NULL;
    assert_int_equal(kms_arena_new(limit, &arena), KMS_OK);
    return arena;
}

static void memory_is_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    struct kms_arena *arena = arena_of(1 << 20);
    for (int round = 0; round < 3; round++) {
        uint8_t *last_end = NULL;
        for (size_t size = 1; size < 700; size += 3) {
            uint8_t *memory = kms_arena_alloc(arena, size);
            assert_non_null(memory);
            assert_int_equal((uintptr_t)memory % 16, 0);
            assert_int_equal(kms_arena_size_of(memory), size);
            for (size_t i = 0; i < size; i++)
                assert_int_equal(memory[i], 0);
            assert_true(last_end == NULL || memory >= last_end || memory + size <= last_end - 1);
            memset(memory, 0xa5, size); /* the next one and the next round must not see it */
            last_end = memory + size;
        }
        kms_arena_reset(arena);
        assert_int_equal(kms_arena_used(arena), 0);
    }
    kms_arena_free(arena);
}

static void an_empty_allocation_is_a_valid_pointer(void **state)
{
    (void)state;
    struct kms_arena *arena = arena_of(1024);
    void *first = kms_arena_alloc(arena, 0);
    void *second = kms_arena_alloc(arena, 0);
    assert_non_null(first);
    assert_ptr_not_equal(first, second);
    assert_int_equal(kms_arena_size_of(first), 0);
    kms_arena_free(arena);
}

static void the_limit_holds_for_large_and_for_many_small_ones(void **state)
{
    (void)state;
    enum { LIMIT = 1 << 20 };
    struct kms_arena *arena = arena_of(LIMIT);
    assert_null(kms_arena_alloc(arena, LIMIT));
    assert_null(kms_arena_alloc(arena, LIMIT + 1));
    assert_null(kms_arena_alloc(arena, SIZE_MAX));
    assert_null(kms_arena_alloc(arena, SIZE_MAX - 15));
    assert_int_equal(kms_arena_used(arena), 0);
    assert_non_null(kms_arena_alloc(arena, LIMIT - 16));
    assert_int_equal(kms_arena_used(arena), LIMIT - 16);
    assert_null(kms_arena_alloc(arena, 0));
    kms_arena_reset(arena);
    size_t count = 0;
    while (count < LIMIT && kms_arena_alloc(arena, 1) != NULL)
        count++;
    assert_int_equal(count, LIMIT / 32);
    kms_arena_reset(arena);
    count = 0;
    while (count < LIMIT && kms_arena_alloc(arena, 0) != NULL)
        count++;
    assert_int_equal(count, LIMIT / 16);
    kms_arena_free(arena);
}

static void no_limit_is_large_enough_to_overflow(void **state)
{
    (void)state;
    struct kms_arena *arena = arena_of(SIZE_MAX);
    for (size_t less = 0; less < 64; less++)
        assert_null(kms_arena_alloc(arena, SIZE_MAX - less));
    assert_non_null(kms_arena_alloc(arena, 100000));
    kms_arena_free(arena);
    arena = arena_of(0);
    assert_null(kms_arena_alloc(arena, 0));
    kms_arena_free(arena);
    kms_arena_free(NULL);
}

static void a_reset_wipes_what_was_handed_out(void **state)
{
    (void)state;
    struct kms_arena *arena = arena_of(1 << 20);
    uint8_t *first = kms_arena_alloc(arena, 4000); /* in the chunk that a reset keeps */
    memset(first, 0xa5, 4000);
    assert_non_null(kms_arena_alloc(arena, 100000));
    kms_arena_reset(arena);
    for (size_t i = 0; i < 4000; i++)
        assert_int_equal(first[i], 0);
    kms_arena_free(arena);
}

static void texts_are_copied_and_formatted(void **state)
{
    (void)state;
    struct kms_arena *arena = arena_of(4096);
    assert_string_equal(kms_arena_strndup(arena, "abcdef", 3), "abc");
    assert_string_equal(kms_arena_strndup(arena, NULL, 0), "");
    const char *text = kms_arena_printf(arena, "%s-%05d", "x", 42);
    assert_string_equal(text, "x-00042");
    assert_int_equal(kms_arena_size_of(text), 8);
    assert_null(kms_arena_strndup(arena, "x", SIZE_MAX));
    assert_null(kms_arena_printf(arena, "%5000d", 1));
    kms_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_apart),
        cmocka_unit_test(an_empty_allocation_is_a_valid_pointer),
        cmocka_unit_test(the_limit_holds_for_large_and_for_many_small_ones),
        cmocka_unit_test(no_limit_is_large_enough_to_overflow),
        cmocka_unit_test(a_reset_wipes_what_was_handed_out),
        cmocka_unit_test(texts_are_copied_and_formatted),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
