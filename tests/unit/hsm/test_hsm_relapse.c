/*
 * Goal: a recovery that fails, hangs or is refused the PIN: nobody waits longer than his deadline, no PIN is
 * burnt, and it ends well as soon as it can. On SoftHSM 2 and on NSS.
 */
#include "lossy.h"

#include <pthread.h>
#include <sched.h>

/* A thread that signs and leaves its status. */
static void *signing_thread(void *argument)
{
    uint8_t signature[KMS_HSM_SIGNATURE_MAX];
    size_t len = 0;
    *(enum kms_status *)argument = lossy.hsm->ops->sign(lossy.hsm, kms_slice_str("x"), signature, &len, NULL);
    return NULL;
}

static void a_signature_that_hangs_makes_a_ping_fail_and_not_wait(void **state)
{
    (void)state;
    enum kms_status status = KMS_INTERNAL;
    pthread_t thread;
    kms_test_token_fault(&lossy.token, "C_Sign hang\n");
    assert_int_equal(pthread_create(&thread, NULL, signing_thread, &status), 0);
    while (kms_test_token_fired(&lossy.token) == 0)
        (void)sched_yield();
    assert_int_equal(lossy_run(PING, NULL), KMS_HSM_UNAVAILABLE);
    kms_test_token_fault(&lossy.token, "");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(status, KMS_OK);
    must(lossy_run(PING, NULL));
}

/* Not C_GetTokenInfo inside libp11 0.4.12, which loses a little memory then: two slots, so skip two. */
static void a_recovery_that_fails_at_any_step_is_tried_again(void **state)
{
    (void)state;
    static const char *const steps[] = {"C_Initialize fail CKR_GENERAL_ERROR times=2\n",
                                        "C_GetInfo fail CKR_GENERAL_ERROR times=1\n",
                                        "C_GetSlotList fail CKR_DEVICE_ERROR times=3\n",
                                        "C_GetTokenInfo fail CKR_DEVICE_ERROR skip=2 times=2\n",
                                        "C_OpenSession fail CKR_DEVICE_ERROR times=2\n",
                                        "C_OpenSession fail CKR_SESSION_COUNT skip=1 times=1\n",
                                        "C_OpenSession fail CKR_DEVICE_REMOVED skip=4 times=2\n",
                                        "C_Login fail CKR_DEVICE_ERROR times=2\n",
                                        "C_Login fail CKR_GENERAL_ERROR times=1\n",
                                        "C_FindObjectsInit fail CKR_GENERAL_ERROR times=1\n",
                                        "C_FindObjectsInit fail CKR_DEVICE_ERROR skip=2 times=1\n",
                                        "C_SignInit fail CKR_DEVICE_ERROR skip=1 times=1\n",
                                        "C_Sign fail CKR_GENERAL_ERROR times=2\n",
                                        "C_Finalize fail CKR_GENERAL_ERROR times=1\n"};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        char rules[256];
        const struct kms_hsm_info before = lossy_info();
        const struct kms_hsm_key old = lossy.kek;
        const unsigned fired = kms_test_token_fired(&lossy.token);
        struct kms_hsm_session *session = lossy_checkout();
        (void)snprintf(rules, sizeof rules, "C_GenerateRandom fail CKR_DEVICE_ERROR times=1\n%s", steps[i]);
        kms_test_token_fault(&lossy.token, rules);
        assert_int_equal(lossy_run(RANDOM, session), KMS_HSM_UNAVAILABLE);
        lossy_checkin(session);
        lossy_assert_recovered(&before, old);
        assert_true(kms_test_token_fired(&lossy.token) >= fired + 2);
    }
}

static void one_spurious_refusal_of_the_pin_does_not_stop_recovery(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    const unsigned fired = kms_test_token_fired(&lossy.token);
    lossy_lose_into("C_Login fail CKR_PIN_INCORRECT times=1\n");
    lossy_assert_recovered(&before, old);
    assert_int_equal(kms_test_token_fired(&lossy.token), fired + 2);
}

static void a_pin_that_is_refused_twice_is_not_tried_again(void **state)
{
    (void)state;
    const unsigned fired = kms_test_token_fired(&lossy.token);
    struct kms_hsm_session *none = NULL;
    lossy_lose_into("C_Login fail CKR_PIN_INCORRECT\n");
    assert_int_equal(kms_hsm_checkout(lossy.hsm, INT64_MAX, &none, &lossy.err), KMS_HSM_UNAVAILABLE);
    assert_non_null(strstr(lossy.err.cause, "given up"));
    assert_int_equal(kms_test_token_fired(&lossy.token), fired + 3); /* the loss and two tries */
    kms_test_token_fault(&lossy.token, "");
    assert_int_equal(lossy_run(PING, NULL), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(SIGN, NULL), KMS_HSM_UNAVAILABLE);
    lossy_restart();
}

static void a_recovery_tries_no_pin_when_one_try_is_left(void **state)
{
    (void)state;
    const unsigned fired = kms_test_token_fired(&lossy.token);
    struct kms_hsm_session *none = NULL;
    lossy_lose_into("token flags 0x20000\nC_Login delay 0\n");
    assert_int_equal(kms_hsm_checkout(lossy.hsm, INT64_MAX, &none, &lossy.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(kms_test_token_fired(&lossy.token), fired + 1); /* the loss, and no login */
    lossy_restart();
}

/* A thread that hangs in the module. */
static void *hanging_thread(void *argument)
{
    struct kms_hsm_session *session = argument;
    uint8_t out[32];
    static const uint8_t iv[KMS_HSM_GCM_IV_SIZE];
    (void)!lossy.hsm->ops->gcm_seal(session, lossy.kek, iv, kms_slice_of(NULL, 0), kms_slice_str("x"), out,
                                    NULL);
    kms_hsm_checkin(lossy.hsm, session);
    return NULL;
}

static void a_call_that_hangs_delays_recovery_but_no_caller_past_his_deadline(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    const unsigned fired = kms_test_token_fired(&lossy.token);
    struct kms_hsm_session *first = lossy_checkout();
    struct kms_hsm_session *second = lossy_checkout();
    kms_test_token_fault(&lossy.token, "C_Encrypt hang\nC_GenerateRandom fail CKR_DEVICE_ERROR times=1\n");
    lossy.held[0] = NULL; /* the thread gives it back */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hanging_thread, first), 0);
    while (kms_test_token_fired(&lossy.token) == fired)
        (void)sched_yield();
    assert_int_equal(lossy_run(RANDOM, second), KMS_HSM_UNAVAILABLE);
    lossy_checkin(second);
    struct kms_hsm_session *none = NULL;
    assert_int_equal(kms_hsm_checkout(lossy.hsm, 0, &none, &lossy.err), KMS_HSM_UNAVAILABLE);
    const int64_t soon = kms_clock_mono_ns() + 20 * KMS_NS_PER_MS;
    assert_int_equal(kms_hsm_checkout(lossy.hsm, soon, &none, &lossy.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(PING, NULL), KMS_HSM_UNAVAILABLE);
    kms_test_token_fault(&lossy.token, "");
    assert_int_equal(pthread_join(thread, NULL), 0);
    lossy_assert_recovered(&before, old);
}

static void a_recovery_that_hangs_delays_no_caller_past_his_deadline(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    const unsigned fired = kms_test_token_fired(&lossy.token);
    lossy_lose_into("C_Initialize hang\n");
    while (kms_test_token_fired(&lossy.token) < fired + 2)
        (void)sched_yield();
    struct kms_hsm_session *none = NULL;
    const int64_t soon = kms_clock_mono_ns() + 20 * KMS_NS_PER_MS;
    assert_int_equal(kms_hsm_checkout(lossy.hsm, soon, &none, &lossy.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(PING, NULL), KMS_HSM_UNAVAILABLE);
    kms_test_token_fault(&lossy.token, "");
    lossy_assert_recovered(&before, old);
}

static void it_can_be_freed_while_the_device_is_lost(void **state)
{
    (void)state;
    lossy_lose_into("token vanish\n");
    lossy_restart();
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, lossy_open, lossy_close)
#define LIST                                                                                                 \
    EACH(a_signature_that_hangs_makes_a_ping_fail_and_not_wait),                                             \
        EACH(a_recovery_that_fails_at_any_step_is_tried_again),                                              \
        EACH(one_spurious_refusal_of_the_pin_does_not_stop_recovery),                                        \
        EACH(a_pin_that_is_refused_twice_is_not_tried_again),                                                \
        EACH(a_recovery_tries_no_pin_when_one_try_is_left),                                                  \
        EACH(a_call_that_hangs_delays_recovery_but_no_caller_past_his_deadline),                             \
        EACH(a_recovery_that_hangs_delays_no_caller_past_his_deadline),                                      \
        EACH(it_can_be_freed_while_the_device_is_lost)

int main(void)
{
    const struct CMUnitTest softhsm[] = {LIST};
    const struct CMUnitTest nss[] = {LIST};
    kms_log_set_level(KMS_LOG_ERROR);
    const int failed = cmocka_run_group_tests_name("SoftHSM 2", softhsm, NULL, NULL);
    lossy_kind = KMS_TEST_NSS;
    return failed + cmocka_run_group_tests_name("NSS softokn", nss, NULL, NULL);
}
