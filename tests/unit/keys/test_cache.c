/* The handle cache: bounded, limited in age, counted, and safe for entries in use. */
#include "core/clock.h"
#include "keys/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

struct item {
    struct kms_cache_entry base;
    uint32_t key;
};

static struct kms_cache cache;
static const int64_t second = KMS_NS_PER_SECOND;

static int make_cache(void **state)
{
    (void)state;
    return kms_cache_init(&cache, "tests", 3, 10 * second, 60 * second) == KMS_OK ? 0 : -1;
}

/* Free the dead; returns how many there were. */
static unsigned bury(void)
{
    unsigned count = 0;
    for (struct kms_cache_entry *entry; (entry = kms_cache_take_dead(&cache)) != NULL; count++)
        free(entry);
    return count;
}

static int clear_cache(void **state)
{
    (void)state;
    kms_cache_remove_matching(&cache, NULL, NULL);
    (void)bury();
    kms_cache_clear(&cache);
    return 0;
}

/* Insert and let go. */
static struct item *put(uint32_t key, int64_t now_ns)
{
    struct item *item = calloc(1, sizeof *item);
    assert_non_null(item);
    item->key = key;
    assert_int_equal(kms_cache_insert(&cache, &item->base, &item->key, sizeof item->key, now_ns), KMS_OK);
    kms_cache_release(&cache, &item->base);
    return item;
}

/* Find and let go; false on a miss. */
static bool touch(uint32_t key, int64_t now_ns)
{
    struct kms_cache_entry *entry = kms_cache_find(&cache, &key, sizeof key, now_ns);
    if (entry != NULL)
        kms_cache_release(&cache, entry);
    return entry != NULL;
}

static void the_least_recently_used_entry_makes_room(void **state)
{
    (void)state;
    for (uint32_t key = 1; key <= 3; key++)
        put(key, key);
    assert_true(touch(1, 4));
    put(4, 5);
    assert_int_equal(cache.count, 3);
    assert_int_equal(cache.evictions, 1);
    assert_int_equal(bury(), 1);
    assert_false(touch(2, 6));
    assert_true(touch(1, 6));
    assert_true(touch(3, 6));
    assert_true(touch(4, 6));
    assert_int_equal(cache.hits, 4);
    assert_int_equal(cache.misses, 1);
}

static void an_idle_entry_is_not_served(void **state)
{
    (void)state;
    put(1, 0);
    assert_true(touch(1, 9 * second));
    assert_true(touch(1, 18 * second));
    assert_false(touch(1, 28 * second));
    assert_int_equal(bury(), 1);
}

static void an_old_entry_is_not_served_however_much_it_is_used(void **state)
{
    (void)state;
    put(1, 0);
    for (int64_t now = 5 * second; now < 60 * second; now += 5 * second)
        assert_true(touch(1, now));
    assert_false(touch(1, 60 * second));
    assert_int_equal(cache.count, 0);
}

static void expiry_removes_both_kinds_and_nothing_else(void **state)
{
    (void)state;
    put(1, 0);           /* will be too old, in use all the time */
    put(2, 55 * second); /* will be idle too long */
    put(3, 64 * second);
    for (int64_t now = 5 * second; now < 60 * second; now += 5 * second)
        assert_true(touch(1, now));
    kms_cache_expire(&cache, 66 * second);
    assert_int_equal(cache.count, 1);
    assert_int_equal(bury(), 2);
    assert_true(touch(3, 66 * second));
    kms_cache_expire(&cache, 66 * second);
    assert_int_equal(cache.count, 1);
}

static void an_entry_in_use_outlives_its_removal(void **state)
{
    (void)state;
    struct item *item = put(1, 0);
    struct kms_cache_entry *used = kms_cache_find(&cache, &item->key, sizeof item->key, 1);
    assert_ptr_equal(used, &item->base);
    kms_cache_remove(&cache, used);
    assert_false(touch(1, 1));
    assert_int_equal(bury(), 0);
    kms_cache_release(&cache, used);
    assert_int_equal(bury(), 1);
}

static void the_second_entry_of_a_key_stays_uncached(void **state)
{
    (void)state;
    put(1, 0);
    struct item *second_one = calloc(1, sizeof *second_one);
    assert_non_null(second_one);
    second_one->key = 1;
    assert_int_equal(kms_cache_insert(&cache, &second_one->base, &second_one->key, sizeof second_one->key, 1),
                     KMS_ALREADY_EXISTS);
    assert_int_equal(cache.count, 1);
    kms_cache_release(&cache, &second_one->base);
    assert_int_equal(bury(), 1);
    assert_true(touch(1, 2));
}

static void a_cache_that_misses_what_it_evicted_is_too_small(void **state)
{
    (void)state;
    for (uint32_t key = 1; key <= 4; key++)
        put(key, second);
    assert_false(touch(99, 2 * second)); /* never seen: says nothing */
    assert_false(kms_cache_too_small(&cache, 2 * second));
    assert_false(touch(1, 2 * second)); /* evicted for room */
    assert_true(kms_cache_too_small(&cache, 2 * second));
    assert_true(kms_cache_too_small(&cache, 61 * second));
    assert_false(kms_cache_too_small(&cache, 62 * second));
    (void)bury();
}

static void an_entry_that_expired_is_no_sign_of_a_small_cache(void **state)
{
    (void)state;
    for (uint32_t key = 1; key <= 3; key++)
        put(key, 0);
    put(4, 20 * second);
    assert_int_equal(cache.evictions, 0);
    assert_false(touch(1, 21 * second));
    assert_false(kms_cache_too_small(&cache, 21 * second));
    (void)bury();
}

int main(void)
{
#define ON_A_CACHE(test) cmocka_unit_test_setup_teardown(test, make_cache, clear_cache)
    const struct CMUnitTest tests[] = {
        ON_A_CACHE(the_least_recently_used_entry_makes_room),
        ON_A_CACHE(an_idle_entry_is_not_served),
        ON_A_CACHE(an_old_entry_is_not_served_however_much_it_is_used),
        ON_A_CACHE(expiry_removes_both_kinds_and_nothing_else),
        ON_A_CACHE(an_entry_in_use_outlives_its_removal),
        ON_A_CACHE(the_second_entry_of_a_key_stays_uncached),
        ON_A_CACHE(a_cache_that_misses_what_it_evicted_is_too_small),
        ON_A_CACHE(an_entry_that_expired_is_no_sign_of_a_small_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
