/*
 * Goal: whatever is wrong with module, token, PIN or an operation at start is refused with a text that says
 * what to do, and no PIN is ever tried twice.
 */
#include "support/softhsm_token.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>

#include <cmocka.h>

static struct kms_test_token token;

static int make_token(void **state)
{
    (void)state;
    kms_test_token_new(KMS_TEST_SOFTHSM, &token);
    kms_test_token_add_faults(&token);
    return 0;
}

static int clear_token(void **state)
{
    (void)state;
    kms_test_token_clear(&token);
    return 0;
}

/* Open with one thing changed; expect a refusal whose public text holds `expected`. */
static void refused(struct kms_hsm_p11_config config, enum kms_status status, const char *expected)
{
    struct kms_hsm *hsm = NULL;
    struct kms_error err = {0};
    config.operation_timeout_ns = 1000000; /* nobody else holds the lock file */
    const enum kms_status got = kms_hsm_p11_open(&config, &hsm, &err);
    assert_null(hsm);
    assert_null(config.pin->data); /* taken over in any case */
    if (got != status || strstr(kms_error_public(&err, got), expected) == NULL)
        fail_msg("%s '%s' (%s) is not %s '%s'", kms_status_name(got), kms_error_public(&err, got),
                 kms_error_cause(&err, got), kms_status_name(status), expected);
}

/* How often C_Login was called since the control file was written with a delay of nothing on it. */
static unsigned logins(void)
{
    return kms_test_token_fired(&token);
}

static void a_wrong_pin_is_tried_once(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    kms_test_token_fault(&token, "C_Login delay 0\n");
    refused(kms_test_token_config(&token, "wrong-1234", &pin), KMS_CONFIG_INVALID, "refuses the user PIN");
    assert_int_equal(logins(), 1);
    kms_test_token_fault(&token, "");
    struct kms_hsm *hsm = NULL;
    assert_int_equal(kms_test_token_open(&token, &hsm, NULL), KMS_OK); /* the right one still works */
    kms_hsm_free(hsm);
}

static void the_pin_is_not_tried_when_one_try_is_left_or_none(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    kms_test_token_fault(&token, "token flags 0x20000\nC_Login delay 0\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_CONFIG_INVALID, "was not tried");
    kms_test_token_fault(&token, "token flags 0x40000\nC_Login delay 0\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_CONFIG_INVALID, "security officer");
    assert_int_equal(logins(), 0);
}

static void each_failure_of_the_login_has_its_text_and_no_second_try(void **state)
{
    (void)state;
    static const struct {
        const char *code;
        enum kms_status status;
        const char *text;
    } cases[] = {{"CKR_PIN_LOCKED", KMS_CONFIG_INVALID, "security officer"},
                 {"CKR_PIN_EXPIRED", KMS_CONFIG_INVALID, "expired"},
                 {"CKR_GENERAL_ERROR", KMS_HSM_UNAVAILABLE, "login failed"},
                 {"CKR_DEVICE_ERROR", KMS_HSM_UNAVAILABLE, "login failed"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        KMS_SECRET pin = {0};
        char rule[64];
        const unsigned before = logins();
        (void)snprintf(rule, sizeof rule, "C_Login fail %s\n", cases[i].code);
        kms_test_token_fault(&token, rule);
        refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), cases[i].status, cases[i].text);
        assert_int_equal(logins(), before + 1);
    }
}

static void an_empty_pin_is_refused_before_anything_is_loaded(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&token, "x", &pin);
    pin.len = 0;
    config.module = "/nowhere.so";
    refused(config, KMS_CONFIG_INVALID, "no user PIN");
}

static void a_missing_or_foreign_module_is_named(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.module = "/nowhere/pkcs11.so";
    refused(config, KMS_CONFIG_INVALID, "/nowhere/pkcs11.so");
    config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.module = "libcrypto.so.3";
    refused(config, KMS_CONFIG_INVALID, "is not a PKCS#11 library");
}

static void bad_uris_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *uri;
        enum kms_status status;
        const char *text;
    } cases[] = {{"token=kms", KMS_CONFIG_INVALID, "not a PKCS#11 URI"},
                 {"pkcs11:token=%zz", KMS_CONFIG_INVALID, "not a PKCS#11 URI"},
                 {"pkcs11:token=kms?pin-value=1234", KMS_CONFIG_INVALID, "must not hold a PIN"},
                 {"pkcs11:token=kms?pin-source=/x", KMS_CONFIG_INVALID, "must not hold a PIN"},
                 {"pkcs11:token=kms;object=x", KMS_CONFIG_INVALID, "only a token"},
                 {"pkcs11:token=kms;colour=red", KMS_CONFIG_INVALID, "only a token"},
                 {"pkcs11:token=other", KMS_HSM_UNAVAILABLE, "no token of"},
                 {"pkcs11:token=kms;serial=0000", KMS_HSM_UNAVAILABLE, "no token of"},
                 {"pkcs11:", KMS_CONFIG_INVALID, "tokens match"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        KMS_SECRET pin = {0};
        struct kms_hsm_p11_config config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
        config.token_uri = cases[i].uri;
        refused(config, cases[i].status, cases[i].text);
    }
}

static void a_missing_token_says_what_to_check(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    kms_test_token_fault(&token, "token vanish\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_HSM_UNAVAILABLE, "no token of");
}

static void a_token_that_appears_at_the_second_look_is_opened(void **state)
{
    (void)state;
    struct kms_hsm *hsm = NULL;
    kms_test_token_fault(&token, "C_GetSlotList fail CKR_GENERAL_ERROR times=1\n");
    assert_int_equal(kms_test_token_open(&token, &hsm, NULL), KMS_OK);
    assert_int_equal(kms_test_token_fired(&token), 1);
    kms_hsm_free(hsm);
}

static void a_write_protected_token_is_refused(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    kms_test_token_fault(&token, "token flags 0x2\nC_Login delay 0\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_CONFIG_INVALID, "write-protected");
    assert_int_equal(logins(), 0);
    kms_test_token_fault(&token, "C_OpenSession fail CKR_TOKEN_WRITE_PROTECTED\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_CONFIG_INVALID, "write-protected");
    kms_test_token_fault(&token, "C_GenerateKey fail CKR_TOKEN_WRITE_PROTECTED\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_HSM_REFUSED, "write-protected");
}

static void a_full_token_is_refused(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    kms_test_token_fault(&token, "C_GenerateKey fail CKR_DEVICE_MEMORY\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_HSM_FULL, "no room");
}

static void too_many_sessions_are_refused(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.sessions = 65;
    refused(config, KMS_CONFIG_INVALID, "allows 64 at most");
    kms_test_token_fault(&token, "C_OpenSession fail CKR_SESSION_COUNT skip=4\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_CONFIG_INVALID, "too few sessions");
}

static void service_keys_are_made_only_when_that_is_wanted(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.create_service_keys = false;
    refused(config, KMS_CONFIG_INVALID, "create_service_keys");
    struct kms_hsm *hsm = NULL;
    uint8_t first[KMS_HSM_MAC_SIZE];
    uint8_t second[KMS_HSM_MAC_SIZE];
    struct kms_hsm_session *session = NULL;
    assert_int_equal(kms_test_token_open(&token, &hsm, NULL), KMS_OK);
    assert_int_equal(kms_hsm_checkout(hsm, INT64_MAX, &session, NULL), KMS_OK);
    assert_int_equal(hsm->ops->mac(session, kms_slice_str("x"), first, NULL), KMS_OK);
    kms_hsm_checkin(hsm, session);
    kms_hsm_free(hsm);
    config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.create_service_keys = false;
    assert_int_equal(kms_hsm_p11_open(&config, &hsm, NULL), KMS_OK); /* found, and the same one */
    assert_int_equal(kms_hsm_checkout(hsm, INT64_MAX, &session, NULL), KMS_OK);
    assert_int_equal(hsm->ops->mac(session, kms_slice_str("x"), second, NULL), KMS_OK);
    assert_memory_equal(first, second, sizeof first);
    kms_hsm_checkin(hsm, session);
    kms_hsm_free(hsm);
}

static void the_probe_names_the_operation_that_is_missing(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        const char *text;
    } cases[] = {
        {"C_WrapKey fail CKR_FUNCTION_NOT_SUPPORTED\n", "YubiHSM"},
        {"C_WrapKey fail CKR_MECHANISM_INVALID\n", "C_WrapKey"},
        {"C_UnwrapKey fail CKR_FUNCTION_NOT_SUPPORTED\n", "C_UnwrapKey"},
        {"C_Encrypt fail CKR_FUNCTION_NOT_SUPPORTED\n", "C_Encrypt"},
        {"C_EncryptInit fail CKR_MECHANISM_INVALID\n", "caller's IV"},
        {"C_Decrypt fail CKR_FUNCTION_NOT_SUPPORTED\n", "C_Decrypt"},
        {"C_GenerateRandom fail CKR_FUNCTION_NOT_SUPPORTED\n", "C_GenerateRandom"},
        {"C_DestroyObject fail CKR_FUNCTION_NOT_SUPPORTED\n", "C_DestroyObject"},
        {"C_SignInit fail CKR_MECHANISM_INVALID\n", "HMAC"},
        {"C_SignInit fail CKR_MECHANISM_INVALID skip=1\n", "ECDSA"},
        {"C_GenerateKey fail CKR_MECHANISM_INVALID\n", "AES-256"},
    };
    struct kms_hsm *hsm = NULL;
    assert_int_equal(kms_test_token_open(&token, &hsm, NULL), KMS_OK); /* the service keys are there now */
    kms_hsm_free(hsm);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        KMS_SECRET pin = {0};
        kms_test_token_fault(&token, cases[i].rule);
        refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_HSM_REFUSED, cases[i].text);
    }
}

static void a_start_up_lock_that_is_held_is_waited_for_and_then_reported(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    KMS_CLOSE int fd = open(token.lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    kms_test_token_fault(&token, "C_Login delay 0\n");
    refused(kms_test_token_config(&token, KMS_TEST_PIN, &pin), KMS_HSM_UNAVAILABLE, "another process");
    assert_int_equal(logins(), 0);
    assert_int_equal(flock(fd, LOCK_UN), 0);
    struct kms_hsm *hsm = NULL;
    assert_int_equal(kms_test_token_open(&token, &hsm, NULL), KMS_OK);
    kms_hsm_free(hsm);
    struct kms_hsm_p11_config config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.startup_lock = "/nowhere/lock";
    refused(config, KMS_CONFIG_INVALID, "/nowhere/lock");
}

static void libp11_that_waits_for_a_session_for_ever_does_not_hang_the_start(void **state)
{
    (void)state;
    KMS_SECRET pin = {0};
    /* two for the spare pair, one that is only a test, then libp11's own: skip three, and the fourth fails */
    kms_test_token_fault(&token, "C_OpenSession fail CKR_GENERAL_ERROR skip=3 times=1\n");
    struct kms_hsm *hsm = NULL;
    struct kms_error err = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.operation_timeout_ns = 1;
    assert_int_equal(kms_hsm_p11_open(&config, &hsm, &err), KMS_HSM_UNAVAILABLE);
    assert_non_null(strstr(err.cause, "hung"));
    assert_int_equal(kms_test_token_fired(&token), 1);
    kms_test_token_fault(&token, "");
    assert_int_equal(kms_test_token_open(&token, &hsm, NULL), KMS_OK);
    kms_hsm_free(hsm);
}

static void a_read_only_nss_database_is_refused(void **state)
{
    (void)state;
    struct kms_test_token nss;
    KMS_SECRET pin = {0};
    kms_test_token_new(KMS_TEST_NSS, &nss);
    struct kms_hsm_p11_config config = kms_test_token_config(&nss, KMS_TEST_PIN, &pin);
    char init_args[256];
    (void)snprintf(init_args, sizeof init_args, "%sreadOnly", nss.init_args);
    config.init_args = init_args;
    refused(config, KMS_CONFIG_INVALID, "write-protected");
    kms_test_token_clear(&nss);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, make_token, clear_token)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(a_wrong_pin_is_tried_once),
        EACH(the_pin_is_not_tried_when_one_try_is_left_or_none),
        EACH(each_failure_of_the_login_has_its_text_and_no_second_try),
        EACH(an_empty_pin_is_refused_before_anything_is_loaded),
        EACH(a_missing_or_foreign_module_is_named),
        EACH(bad_uris_are_refused),
        EACH(a_missing_token_says_what_to_check),
        EACH(a_token_that_appears_at_the_second_look_is_opened),
        EACH(a_write_protected_token_is_refused),
        EACH(a_full_token_is_refused),
        cmocka_unit_test(a_read_only_nss_database_is_refused),
        EACH(too_many_sessions_are_refused),
        EACH(service_keys_are_made_only_when_that_is_wanted),
        EACH(the_probe_names_the_operation_that_is_missing),
        EACH(a_start_up_lock_that_is_held_is_waited_for_and_then_reported),
        EACH(libp11_that_waits_for_a_session_for_ever_does_not_hang_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
