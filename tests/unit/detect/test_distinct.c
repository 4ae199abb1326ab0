/* Counting different things in a window: exact where it says so, near where it samples, bounded always. */
#include "detect/distinct.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* A well-mixed number for each n (splitmix64). */
static uint64_t hash(uint64_t n)
{
    uint64_t z = (n + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* A counter with its budget, cleared at the end; the budget must be given back. */
struct counter {
    struct kms_distinct distinct;
    size_t slots;
    unsigned shift;
};

static uint64_t see(struct counter *counter, uint64_t thing, int64_t slice)
{
    return kms_distinct_see(&counter->distinct, counter->shift, hash(thing), slice, &counter->slots);
}

static void clear(struct counter *counter)
{
    kms_distinct_clear(&counter->distinct, &counter->slots);
    assert_int_equal(counter->slots, 0);
}

static void different_things_count_once_each(void **state)
{
    (void)state;
    struct counter counter = {0};
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < KMS_DISTINCT_EXACT; i++) {
            const uint64_t seen = see(&counter, i, 100);
            assert_int_equal(seen, round == 0 ? i + 1 : KMS_DISTINCT_EXACT);
        }
    }
    clear(&counter);
}

static void things_leave_with_the_last_slice_in_which_they_were_seen(void **state)
{
    (void)state;
    struct counter counter = {0};
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(see(&counter, i, 100), i + 1);
    assert_int_equal(see(&counter, 0, 105), 10);                          /* seen again later */
    assert_int_equal(see(&counter, 50, 100 + KMS_WINDOW_SLICES - 1), 11); /* the first slice still counts */
    assert_int_equal(see(&counter, 51, 100 + KMS_WINDOW_SLICES), 3);      /* 0, 50, 51 */
    assert_int_equal(see(&counter, 51, 105 + KMS_WINDOW_SLICES), 2);
    assert_int_equal(see(&counter, 52, 105 + 10 * KMS_WINDOW_SLICES), 1);
    clear(&counter);
}

/* The same as a plain array of last-seen slices, over many random events. */
static void it_agrees_with_a_simple_count(void **state)
{
    (void)state;
    enum { THINGS = 900, EVENTS = 60000 };
    static int64_t last[THINGS];
    for (int i = 0; i < THINGS; i++)
        last[i] = -KMS_WINDOW_SLICES;
    struct counter counter = {0};
    srand(1);
    int64_t slice = 1;
    for (int event = 0; event < EVENTS; event++) {
        if (rand() % 40 == 0)
            slice += rand() % 3;
        const int thing = rand() % THINGS;
        last[thing] = slice;
        const uint64_t seen = see(&counter, (uint64_t)thing, slice);
        if (event % 97 != 0)
            continue;
        uint64_t expected = 0;
        for (int i = 0; i < THINGS; i++)
            expected += slice - last[i] < KMS_WINDOW_SLICES;
        assert_int_equal(seen, expected);
    }
    clear(&counter);
}

static void a_high_limit_is_told_from_a_sample(void **state)
{
    (void)state;
    static const uint64_t limits[] = {KMS_DISTINCT_EXACT + 1, 10000, 100000, 1000000};
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        struct counter counter = {.shift = kms_distinct_shift(limits[l])};
        uint64_t reached = 0;
        for (uint64_t i = 0; reached == 0 && i < 2 * limits[l]; i++)
            if (see(&counter, i, 7) >= limits[l])
                reached = i + 1;
        /* five standard errors of a sample of 512 */
        assert_in_range(reached, limits[l] - limits[l] * 22 / 100, limits[l] + limits[l] * 22 / 100);
        assert_true(counter.slots <= KMS_DISTINCT_SLOTS_MAX);
        clear(&counter);
    }
}

static void the_rate_of_sampling_follows_the_limit(void **state)
{
    (void)state;
    assert_int_equal(kms_distinct_shift(1), 0);
    assert_int_equal(kms_distinct_shift(KMS_DISTINCT_EXACT), 0);
    assert_int_equal(kms_distinct_shift(2 * KMS_DISTINCT_EXACT), 1);
    assert_int_equal(kms_distinct_shift(UINT32_MAX), 22);
}

static void a_full_table_stays_over_the_limit_and_recovers(void **state)
{
    (void)state;
    struct counter counter = {0};
    uint64_t seen = 0;
    for (uint64_t i = 0; i < 1000000; i++)
        seen = see(&counter, i, 3);
    assert_in_range(seen, KMS_DISTINCT_EXACT, KMS_DISTINCT_SLOTS_MAX);
    assert_int_equal(counter.slots, KMS_DISTINCT_SLOTS_MAX);
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(see(&counter, i + 5, 3 + KMS_WINDOW_SLICES), i + 1);
    clear(&counter);
}

static void many_windows_of_new_things_take_no_more_room(void **state)
{
    (void)state;
    struct counter counter = {0};
    for (uint64_t i = 0; i < 200000; i++)
        assert_in_range(see(&counter, i, (int64_t)(i / 2)), 1, 2 * KMS_WINDOW_SLICES);
    assert_true(counter.slots <= 128);
    clear(&counter);
}

static void a_window_forgets_by_slices(void **state)
{
    (void)state;
    struct kms_window window = {0};
    kms_window_move(&window, 1000);
    kms_window_add(&window);
    kms_window_add(&window);
    kms_window_move(&window, 1000 + KMS_WINDOW_SLICES - 1);
    kms_window_add(&window);
    assert_int_equal(window.total, 3);
    kms_window_move(&window, 999); /* time never goes back */
    assert_int_equal(window.total, 3);
    kms_window_move(&window, 1000 + KMS_WINDOW_SLICES);
    assert_int_equal(window.total, 1);
    kms_window_move(&window, INT64_MAX);
    assert_int_equal(window.total, 0);
    assert_int_equal(kms_window_slice_ns(1), 1);
    assert_int_equal(kms_window_slice_ns(1600), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(different_things_count_once_each),
        cmocka_unit_test(things_leave_with_the_last_slice_in_which_they_were_seen),
        cmocka_unit_test(it_agrees_with_a_simple_count),
        cmocka_unit_test(a_high_limit_is_told_from_a_sample),
        cmocka_unit_test(the_rate_of_sampling_follows_the_limit),
        cmocka_unit_test(a_full_table_stays_over_the_limit_and_recovers),
        cmocka_unit_test(many_windows_of_new_things_take_no_more_room),
        cmocka_unit_test(a_window_forgets_by_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
