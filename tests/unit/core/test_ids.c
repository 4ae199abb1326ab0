/* UUIDs in text and at random. */
#include "core/ids.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void a_uuid_goes_to_text_and_back(void **state)
{
    (void)state;
    static const char text[] = "01234567-89ab-4def-8123-456789abcdef";
    struct kms_uuid uuid;
    char out[KMS_UUID_TEXT_SIZE];
    assert_int_equal(kms_uuid_parse(text, &uuid), KMS_OK);
    assert_memory_equal(uuid.bytes, "\x01\x23\x45\x67\x89\xab\x4d\xef\x81\x23\x45\x67\x89\xab\xcd\xef", 16);
    assert_string_equal(kms_uuid_format(&uuid, out), text);
    struct kms_uuid upper;
    assert_int_equal(kms_uuid_parse("01234567-89AB-4DEF-8123-456789ABCDEF", &upper), KMS_OK);
    assert_true(kms_uuid_equal(&uuid, &upper));
    upper.bytes[15] ^= 1;
    assert_false(kms_uuid_equal(&uuid, &upper));
    assert_false(kms_uuid_is_zero(&uuid));
    assert_true(kms_uuid_is_zero(&(struct kms_uuid){0}));
}

static void bad_texts_are_refused_and_change_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "01234567-89ab-4def-8123-456789abcde",
                                      "01234567-89ab-4def-8123-456789abcdef0",
                                      "0123456789ab4def8123456789abcdef",
                                      "01234567-89ab-4def-8123_456789abcdef",
                                      "0123456-789ab-4def-8123-456789abcdef",
                                      "g1234567-89ab-4def-8123-456789abcdef",
                                      "{1234567-89ab-4def-8123-456789abcde}",
                                      "01234567-89ab-4def-8123-456789abcde "};
    struct kms_uuid uuid;
    memset(&uuid, 0x5a, sizeof uuid);
    const struct kms_uuid before = uuid;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(kms_uuid_parse(bad[i], &uuid), KMS_INVALID_ARGUMENT);
    assert_true(kms_uuid_equal(&uuid, &before));
}

static void every_wrong_character_is_refused(void **state)
{
    (void)state;
    static const char good[] = "01234567-89ab-4def-8123-456789abcdef";
    for (size_t i = 0; i < sizeof good - 1; i++) {
        char text[sizeof good];
        struct kms_uuid uuid;
        memcpy(text, good, sizeof good);
        text[i] = text[i] == '-' ? '0' : '-';
        assert_int_equal(kms_uuid_parse(text, &uuid), KMS_INVALID_ARGUMENT);
    }
}

static void random_uuids_are_version_4_and_differ(void **state)
{
    (void)state;
    struct kms_uuid seen[200];
    uint8_t all_or = 0;
    uint8_t all_and = 0xff;
    for (size_t i = 0; i < 200; i++) {
        seen[i] = kms_uuid_random();
        assert_int_equal(seen[i].bytes[6] & 0xf0, 0x40);
        assert_int_equal(seen[i].bytes[8] & 0xc0, 0x80);
        all_or |= seen[i].bytes[0];
        all_and &= seen[i].bytes[0];
        for (size_t j = 0; j < i; j++)
            assert_false(kms_uuid_equal(&seen[i], &seen[j]));
    }
    assert_int_equal(all_or, 0xff);
    assert_int_equal(all_and, 0);
}

static void randomness_fills_all_that_was_asked_for(void **state)
{
    (void)state;
    static uint8_t bytes[100000];
    size_t zeroes = 0;
    kms_system_random(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        zeroes += bytes[i] == 0;
    assert_in_range(zeroes, 200, 700);
    kms_system_random(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_uuid_goes_to_text_and_back),
        cmocka_unit_test(bad_texts_are_refused_and_change_nothing),
        cmocka_unit_test(every_wrong_character_is_refused),
        cmocka_unit_test(random_uuids_are_version_4_and_differ),
        cmocka_unit_test(randomness_fills_all_that_was_asked_for),
    };
    return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
