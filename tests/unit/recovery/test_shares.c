/* Goal: enough shares of one ceremony give its secret, and nothing else does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "recovery/shares.h"

static const uint8_t key_name[KMS_SHARE_KEY_SIZE] = "the key of these shares";

/* A secret of bytes that are easy to know again. */
static struct kms_secret a_secret(uint8_t first)
{
    struct kms_secret secret = {0};
    assert_int_equal(kms_secret_new(KMS_SHARE_SIZE, &secret), KMS_OK);
    for (size_t i = 0; i < KMS_SHARE_SIZE; i++)
        secret.data[i] = (uint8_t)(first + i * 7);
    secret.len = KMS_SHARE_SIZE;
    return secret;
}

/* Join what is given; true when the secret comes out. */
static bool joins_to(const struct kms_share *shares, size_t count, const struct kms_secret *secret)
{
    KMS_SECRET joined = {0};
    struct kms_error err = {0};
    return kms_shares_join(shares, count, &joined, &err) == KMS_OK && joined.len == KMS_SHARE_SIZE &&
           memcmp(joined.data, secret->data, KMS_SHARE_SIZE) == 0;
}

static void any_threshold_of_the_shares_gives_the_secret(void **state)
{
    (void)state;
    enum { COUNT = 5, THRESHOLD = 3 };
    KMS_SECRET secret = a_secret(1);
    struct kms_share shares[COUNT] = {0};
    assert_int_equal(kms_shares_split(&secret, key_name, COUNT, THRESHOLD, shares, NULL), KMS_OK);
    for (int a = 0; a < COUNT; a++) {
        for (int b = 0; b < COUNT; b++) {
            for (int c = 0; c < COUNT; c++) {
                const struct kms_share some[] = {shares[a], shares[b], shares[c]};
                const bool different = a != b && b != c && a != c;
                assert_int_equal(joins_to(some, THRESHOLD, &secret), different);
            }
        }
    }
    assert_true(joins_to(shares, COUNT, &secret));
    kms_shares_clear(shares, COUNT);
}

static void the_smallest_and_the_largest_ceremony_work(void **state)
{
    (void)state;
    KMS_SECRET secret = a_secret(2);
    struct kms_share shares[KMS_SHARES_MAX] = {0};
    assert_int_equal(kms_shares_split(&secret, key_name, 2, 2, shares, NULL), KMS_OK);
    assert_true(joins_to(shares, 2, &secret));
    kms_shares_clear(shares, 2);
    assert_int_equal(kms_shares_split(&secret, key_name, KMS_SHARES_MAX, KMS_SHARES_MAX, shares, NULL),
                     KMS_OK);
    assert_true(joins_to(shares, KMS_SHARES_MAX, &secret));
    assert_false(joins_to(shares, KMS_SHARES_MAX - 1, &secret));
    kms_shares_clear(shares, KMS_SHARES_MAX);
}

static void numbers_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const unsigned bad[][2] = {{0, 0}, {1, 1}, {2, 1}, {2, 0}, {2, 3}, {33, 2}, {33, 33}, {256, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kms_error err = {0};
        assert_int_equal(kms_shares_check(bad[i][0], bad[i][1], &err), KMS_INVALID_ARGUMENT);
        assert_non_null(strstr(err.public_text, "2 to 32 shares"));
    }
}

static void one_share_less_tells_nothing(void **state)
{
    (void)state;
    /* every byte of the secret is as likely as before: with a share of one polynomial another secret fits as well */
    KMS_SECRET secret = a_secret(3);
    struct kms_share shares[3] = {0};
    bool seen[256] = {false};
    unsigned different = 0;
    for (int round = 0; round < 2000; round++) {
        assert_int_equal(kms_shares_split(&secret, key_name, 3, 2, shares, NULL), KMS_OK);
        different += !seen[shares[0].value.data[0]];
        seen[shares[0].value.data[0]] = true;
        kms_shares_clear(shares, 3);
    }
    assert_in_range(different, 250, 256);
}

static void a_share_given_twice_is_named(void **state)
{
    (void)state;
    KMS_SECRET secret = a_secret(4);
    struct kms_share shares[3] = {0};
    struct kms_error err = {0};
    KMS_SECRET joined = {0};
    assert_int_equal(kms_shares_split(&secret, key_name, 3, 2, shares, NULL), KMS_OK);
    struct kms_share twice[] = {shares[1], shares[1]};
    twice[0].name = "a.share";
    twice[1].name = "copy of a.share";
    assert_int_equal(kms_shares_join(twice, 2, &joined, &err), KMS_INVALID_ARGUMENT);
    assert_string_equal(err.public_text,
                        "a.share and copy of a.share are both share 2: one share counts once");
    kms_shares_clear(shares, 3);
}

static void too_few_shares_are_counted(void **state)
{
    (void)state;
    KMS_SECRET secret = a_secret(5);
    struct kms_share shares[5] = {0};
    struct kms_error err = {0};
    KMS_SECRET joined = {0};
    assert_int_equal(kms_shares_split(&secret, key_name, 5, 3, shares, NULL), KMS_OK);
    assert_int_equal(kms_shares_join(shares, 2, &joined, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "2 shares are given, and 3 of the 5 are needed"));
    assert_int_equal(kms_shares_join(shares, 0, &joined, &err), KMS_INVALID_ARGUMENT);
    assert_null(joined.data);
    kms_shares_clear(shares, 5);
}

static void shares_of_two_ceremonies_are_named(void **state)
{
    (void)state;
    KMS_SECRET secret = a_secret(6);
    struct kms_share shares[3] = {0};
    struct kms_error err = {0};
    KMS_SECRET joined = {0};
    assert_int_equal(kms_shares_split(&secret, key_name, 3, 2, shares, NULL), KMS_OK);
    shares[0].name = "a.share";
    shares[1].name = "b.share";
    shares[1].key[31] ^= 1;
    assert_int_equal(kms_shares_join(shares, 2, &joined, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "a.share and b.share are shares of different ceremonies"));
    shares[1].key[31] ^= 1;
    shares[1].threshold = 3;
    assert_int_equal(kms_shares_join(shares, 2, &joined, &err), KMS_INVALID_ARGUMENT);
    kms_shares_clear(shares, 3);
}

static void a_forged_value_gives_another_secret(void **state)
{
    (void)state;
    KMS_SECRET secret = a_secret(7);
    struct kms_share shares[2] = {0};
    assert_int_equal(kms_shares_split(&secret, key_name, 2, 2, shares, NULL), KMS_OK);
    for (size_t i = 0; i < KMS_SHARE_SIZE; i++) {
        shares[1].value.data[i] ^= 0x40;
        assert_false(joins_to(shares, 2, &secret));
        shares[1].value.data[i] ^= 0x40;
    }
    assert_true(joins_to(shares, 2, &secret));
    kms_shares_clear(shares, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_threshold_of_the_shares_gives_the_secret),
        cmocka_unit_test(the_smallest_and_the_largest_ceremony_work),
        cmocka_unit_test(numbers_that_cannot_be_are_refused),
        cmocka_unit_test(one_share_less_tells_nothing),
        cmocka_unit_test(a_share_given_twice_is_named),
        cmocka_unit_test(too_few_shares_are_counted),
        cmocka_unit_test(shares_of_two_ceremonies_are_named),
        cmocka_unit_test(a_forged_value_gives_another_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
