/* Goal: PKCS#11 return values are named and sorted as hsm-facts and the standard say. */
#include "hsm/ckr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void codes_of_the_standard_have_their_names(void **state)
{
    (void)state;
    char text[KMS_CKR_TEXT_SIZE];
    assert_string_equal(kms_ckr_name(CKR_OK, text), "CKR_OK");
    assert_string_equal(kms_ckr_name(CKR_DEVICE_ERROR, text), "CKR_DEVICE_ERROR");
    assert_string_equal(kms_ckr_name(CKR_PIN_LOCKED, text), "CKR_PIN_LOCKED");
}

static void an_unknown_code_is_shown_as_a_number(void **state)
{
    (void)state;
    char text[KMS_CKR_TEXT_SIZE];
    assert_string_equal(kms_ckr_name(0x80000123UL, text), "CKR 0x80000123");
    assert_string_equal(kms_ckr_name(~0UL, text), "CKR 0xffffffffffffffff");
}

static void exactly_the_seven_codes_mean_a_lost_device(void **state)
{
    (void)state;
    static const CK_RV losses[] = {
        CKR_DEVICE_ERROR,   CKR_DEVICE_REMOVED,     CKR_TOKEN_NOT_PRESENT,       CKR_SESSION_HANDLE_INVALID,
        CKR_SESSION_CLOSED, CKR_USER_NOT_LOGGED_IN, CKR_CRYPTOKI_NOT_INITIALIZED};
    unsigned seen = 0;
    for (CK_RV rv = 0; rv < 0x1000; rv++)
        seen += kms_ckr_is_loss(rv);
    assert_int_equal(seen, 7);
    for (size_t i = 0; i < 7; i++)
        assert_true(kms_ckr_is_loss(losses[i]));
}

static void no_code_has_two_meanings(void **state)
{
    (void)state;
    for (CK_RV rv = 0; rv < 0x1000; rv++)
        assert_true(kms_ckr_is_loss(rv) + kms_ckr_is_bad_handle(rv) + kms_ckr_is_no_room(rv) +
                        kms_ckr_is_refused_data(rv) + kms_ckr_is_ambiguous(rv) <=
                    1);
    assert_false(kms_ckr_is_loss(CKR_GENERAL_ERROR));
    assert_true(kms_ckr_is_ambiguous(CKR_GENERAL_ERROR));
    assert_false(kms_ckr_is_refused_data(CKR_OK));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_of_the_standard_have_their_names),
        cmocka_unit_test(an_unknown_code_is_shown_as_a_number),
        cmocka_unit_test(exactly_the_seven_codes_mean_a_lost_device),
        cmocka_unit_test(no_code_has_two_meanings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
