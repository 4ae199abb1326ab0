/* Time, its text, and a call that is over. */
#include "core/call.h"
#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int64_t fake_wall, fake_mono;

static int64_t wall_ns(void)
{
    return fake_wall;
}

static int64_t mono_ns(void)
{
    return fake_mono;
}

static const struct kms_clock_source fake = {wall_ns, mono_ns};

static int real_clock(void **state)
{
    (void)state;
    kms_clock_set_source(NULL);
    return 0;
}

static void times_are_told_in_rfc_3339(void **state)
{
    (void)state;
    char text[KMS_TIME_TEXT_SIZE];
    assert_string_equal(kms_clock_format(0, text), "1970-01-01T00:00:00.000000Z");
    assert_string_equal(kms_clock_format(INT64_C(1709210096123456789), text), "2024-02-29T12:34:56.123456Z");
    assert_string_equal(kms_clock_format(-1, text), "1969-12-31T23:59:59.999999Z");
    assert_string_equal(kms_clock_format(-KMS_NS_PER_SECOND, text), "1969-12-31T23:59:59.000000Z");
    assert_string_equal(kms_clock_format(INT64_MAX, text), "2262-04-11T23:47:16.854775Z");
    assert_string_equal(kms_clock_format(INT64_MIN, text), "1677-09-21T00:12:43.145224Z");
}

static void the_system_clocks_run(void **state)
{
    (void)state;
    const int64_t mono = kms_clock_mono_ns();
    assert_true(mono > 0);
    assert_true(kms_clock_mono_ns() >= mono);
    assert_true(kms_clock_wall_ns() > INT64_C(1700000000) * KMS_NS_PER_SECOND);
    assert_true(kms_clock_wall_coarse_ns() > INT64_C(1700000000) * KMS_NS_PER_SECOND);
}

static void a_test_can_put_its_own_clock_in(void **state)
{
    (void)state;
    fake_wall = 5;
    fake_mono = 7;
    kms_clock_set_source(&fake);
    assert_int_equal(kms_clock_wall_ns(), 5);
    assert_int_equal(kms_clock_wall_coarse_ns(), 5);
    assert_int_equal(kms_clock_mono_ns(), 7);
    kms_clock_set_source(NULL);
    assert_int_not_equal(kms_clock_mono_ns(), 7);
}

static void a_call_is_over_after_its_deadline(void **state)
{
    (void)state;
    kms_clock_set_source(&fake);
    const struct kms_call call = {.deadline_mono_ns = 100};
    fake_mono = 100;
    assert_int_equal(kms_call_is_over(&call), KMS_OK);
    fake_mono = 101;
    assert_int_equal(kms_call_is_over(&call), KMS_DEADLINE_EXCEEDED);
    const struct kms_call patient = {.deadline_mono_ns = INT64_MAX};
    fake_mono = INT64_MAX;
    assert_int_equal(kms_call_is_over(&patient), KMS_OK);
}

static void a_call_is_over_when_the_caller_went_away(void **state)
{
    (void)state;
    bool cancelled = false;
    const struct kms_call call = {.deadline_mono_ns = INT64_MAX, .cancelled = &cancelled};
    assert_int_equal(kms_call_is_over(&call), KMS_OK);
    cancelled = true;
    assert_int_equal(kms_call_is_over(&call), KMS_CANCELLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_told_in_rfc_3339),
        cmocka_unit_test(the_system_clocks_run),
        cmocka_unit_test_teardown(a_test_can_put_its_own_clock_in, real_clock),
        cmocka_unit_test_teardown(a_call_is_over_after_its_deadline, real_clock),
        cmocka_unit_test(a_call_is_over_when_the_caller_went_away),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
