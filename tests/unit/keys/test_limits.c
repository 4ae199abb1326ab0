/* How long keys stay in the HSM, and that nothing read before a forget is cached after it; on a clock that stands. */
#include "unit/keys/fixture.h"

#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct fixture f;
static const int64_t second = KMS_NS_PER_SECOND;

static int setup(void **state)
{
    (void)state;
    fixture_clock_start();
    const struct kms_keys_config config = {
        .cached_keks = 8, .cached_pages = 4, .idle_limit_ns = 10 * second, .absolute_limit_ns = 60 * second};
    fixture_new(&f, FIXTURE_FAKE, &config);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_check_no_stray_keys(&f);
    fixture_clear(&f);
    return 0;
}

static void use(const char *customer)
{
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", customer, "service", NULL, &blob), KMS_OK);
}

static struct kms_keys_stats stats(void)
{
    struct kms_keys_stats stats;
    kms_keys_stats(f.keys, &stats);
    return stats;
}

static void idle_keys_leave_the_hsm(void **state)
{
    (void)state;
    use("c1");
    fixture_clock_advance(9 * second);
    kms_keys_expire(f.keys);
    assert_int_equal(stats().kek_cached, 1);
    fixture_clock_advance(1 * second);
    kms_keys_expire(f.keys);
    assert_int_equal(stats().kek_cached, 0);
    assert_int_equal(stats().page_cached, 0);
    assert_int_equal(kms_fake_hsm_session_keys(f.hsm), 0);
    use("c1");
    assert_int_equal(stats().kek_misses, 2);
}

static void a_key_in_constant_use_is_loaded_again_at_its_absolute_limit(void **state)
{
    (void)state;
    use("c1");
    for (int i = 0; i < 59; i++) {
        fixture_clock_advance(second);
        use("c1");
    }
    assert_int_equal(stats().kek_misses, 1);
    fixture_clock_advance(second);
    use("c1"); /* not even once too often, although the timer did not run */
    assert_int_equal(stats().kek_misses, 2);
    kms_keys_expire(f.keys);
}

static void at_most_so_many_keys_are_in_the_hsm(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "n", 200);
    for (unsigned i = 0; i < 200; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", i);
        use(name);
        assert_in_range(kms_fake_hsm_session_keys(f.hsm), 1, 12);
    }
    assert_int_equal(stats().kek_cached, 8);
    assert_int_equal(stats().kek_evictions, 192);
    assert_false(stats().cache_too_small);
    use("n0");
    assert_true(stats().cache_too_small);
    fixture_clock_advance(61 * second);
    assert_false(stats().cache_too_small);
    kms_keys_expire(f.keys);
}

/* Closes the customer and forgets it, in the middle of a load that has not read yet or has read already. */
struct closer {
    unsigned reads_left;
    struct kms_uuid tenant;
};

static void forget_in_the_middle(void *context)
{
    struct closer *closer = context;
    if (closer->reads_left > 0 && --closer->reads_left == 0)
        kms_keys_forget(f.keys, &closer->tenant, NULL);
}

static void what_was_read_before_a_forget_is_not_used_after_it(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "w", 20); /* two levels: a load reads more than once */
    struct closer closer = {.tenant = fixture_tenant_record(&f, "acme").uuid};
    for (unsigned reads = 2; reads <= 3; reads++) {
        fixture_restart(&f);
        closer.reads_left = reads; /* after the first read transaction of the load */
        kms_fault_store_before_read(f.store, forget_in_the_middle, &closer);
        const uint64_t loads = stats().kek_misses;
        use("w3");
        kms_fault_store_before_read(f.store, NULL, NULL);
        assert_int_equal(stats().kek_cached,
                         1); /* what was loaded before the forget is loaded again, not used */
        assert_int_equal(stats().kek_misses - loads, closer.reads_left == 0 ? 2 : 1);
        assert_int_equal(kms_fake_hsm_session_keys(f.hsm), stats().kek_cached + stats().page_cached);
    }
}

int main(void)
{
#define TIMED(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        TIMED(idle_keys_leave_the_hsm),
        TIMED(a_key_in_constant_use_is_loaded_again_at_its_absolute_limit),
        TIMED(at_most_so_many_keys_are_in_the_hsm),
        TIMED(what_was_read_before_a_forget_is_not_used_after_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
