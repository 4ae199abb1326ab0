/* The implicit tree: every slot has one path, pages begin where they should, nothing overflows. */
#include "keys/shape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void a_tree_of_height_h_has_room_for_16_to_the_h(void **state)
{
    (void)state;
    assert_int_equal(kms_shape_capacity(0), 0);
    assert_int_equal(kms_shape_capacity(1), 16);
    assert_int_equal(kms_shape_capacity(2), 256);
    assert_int_equal(kms_shape_capacity(5), 1048576);
    assert_int_equal(kms_shape_capacity(KMS_SHAPE_HEIGHT_MAX), UINT64_C(1) << 60);
}

static void a_slot_leads_through_its_pages(void **state)
{
    (void)state;
    const uint64_t slot = 0x12345;
    assert_int_equal(kms_shape_page(slot, 0), 0x1234);
    assert_int_equal(kms_shape_slot(slot, 0), 0x5);
    assert_int_equal(kms_shape_page(slot, 1), 0x123);
    assert_int_equal(kms_shape_slot(slot, 1), 0x4);
    assert_int_equal(kms_shape_page(slot, 4), 0);
    assert_int_equal(kms_shape_slot(slot, 4), 0x1);
    for (uint32_t level = 0; level + 1 < KMS_SHAPE_HEIGHT_MAX; level++) {
        /* the parent's slot is where the child's index says */
        assert_int_equal(kms_shape_page(slot, level) % KMS_SHAPE_FAN_OUT, kms_shape_slot(slot, level + 1));
        assert_int_equal(kms_shape_page(slot, level) / KMS_SHAPE_FAN_OUT, kms_shape_page(slot, level + 1));
        const uint64_t first = kms_shape_first(level, kms_shape_page(slot, level));
        assert_true(first <= slot && slot - first < kms_shape_capacity(level + 1));
    }
}

static void places_outside_of_every_tree_are_not_valid(void **state)
{
    (void)state;
    assert_true(kms_shape_valid(0, 0));
    assert_true(kms_shape_valid(0, (UINT64_C(1) << 56) - 1));
    assert_false(kms_shape_valid(0, UINT64_C(1) << 56));
    assert_true(kms_shape_valid(KMS_SHAPE_HEIGHT_MAX - 1, 0));
    assert_false(kms_shape_valid(KMS_SHAPE_HEIGHT_MAX - 1, 1));
    assert_false(kms_shape_valid(KMS_SHAPE_HEIGHT_MAX, 0));
    assert_false(kms_shape_valid(UINT32_MAX, 0));
    assert_false(kms_shape_valid(0, UINT64_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tree_of_height_h_has_room_for_16_to_the_h),
        cmocka_unit_test(a_slot_leads_through_its_pages),
        cmocka_unit_test(places_outside_of_every_tree_are_not_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
