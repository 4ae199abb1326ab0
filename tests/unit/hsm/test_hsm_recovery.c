/*
 * Goal: whatever call reports a lost device, the connection comes back by itself in a new generation, and stale
 * handles are refused; what is no loss is not taken for one. On SoftHSM 2 and on NSS.
 */
#include "lossy.h"

static void a_master_key_that_cannot_be_made_or_is_torn_is_told_apart(void **state)
{
    (void)state;
    static const uint8_t id[KMS_HSM_KEY_ID_SIZE] = {9};
    struct kms_hsm_key key = {0};
    struct kms_hsm_session *session = lossy_checkout();
    kms_test_token_fault(&lossy.token, "C_GenerateKey fail CKR_DEVICE_MEMORY times=1\n");
    assert_int_equal(lossy.hsm->ops->master_create(session, id, "kms/t/2", &key, &lossy.err), KMS_HSM_FULL);
    kms_test_token_fault(&lossy.token, "C_GenerateKey fail CKR_TOKEN_WRITE_PROTECTED times=1\n");
    assert_int_equal(lossy.hsm->ops->master_create(session, id, "kms/t/2", &key, &lossy.err),
                     KMS_HSM_REFUSED);
    assert_non_null(strstr(lossy.err.public_text, "write-protected"));
    /* made, but it does not work: not left behind */
    kms_test_token_fault(&lossy.token, "C_WrapKey fail CKR_FUNCTION_FAILED times=1\n");
    assert_int_equal(lossy.hsm->ops->master_create(session, id, "kms/t/2", &key, &lossy.err),
                     KMS_HSM_REFUSED);
    kms_test_token_fault(&lossy.token, "");
    assert_int_equal(lossy.hsm->ops->master_find(session, id, &key, &lossy.err), KMS_NOT_FOUND);
    must(lossy.hsm->ops->master_create(session, id, "kms/t/2", &key, &lossy.err));
    /* found in a new connection, but it does not work: refused, not destroyed */
    kms_test_token_fault(&lossy.token, "C_GenerateRandom fail CKR_DEVICE_ERROR times=1\n");
    assert_int_equal(lossy_run(RANDOM, session), KMS_HSM_UNAVAILABLE);
    lossy_checkin(session);
    session = lossy_checkout();
    kms_test_token_fault(&lossy.token, "C_UnwrapKey fail CKR_GENERAL_ERROR times=1\n");
    assert_int_equal(lossy.hsm->ops->master_find(session, id, &key, &lossy.err), KMS_HSM_REFUSED);
    kms_test_token_fault(&lossy.token, "");
    must(lossy.hsm->ops->master_find(session, id, &key, &lossy.err));
    lossy_checkin(session);
}

/* One code from one function during one operation. */
static void lose_once(const char *function, const char *code, enum operation operation)
{
    char rule[96];
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    const unsigned fired = kms_test_token_fired(&lossy.token);
    struct kms_hsm_session *session = lossy_checkout();
    (void)snprintf(rule, sizeof rule, "%s fail %s times=1\n", function, code);
    kms_test_token_fault(&lossy.token, rule);
    const enum kms_status status = lossy_run(operation, session);
    lossy_checkin(session);
    if (status != KMS_HSM_UNAVAILABLE)
        fail_msg("%s from %s in operation %d: %s", code, function, (int)operation, kms_status_name(status));
    assert_int_equal(kms_test_token_fired(&lossy.token), fired + 1);
    lossy_assert_recovered(&before, old);
}

static void every_code_of_a_lost_device_from_every_function_is_recovered_from(void **state)
{
    (void)state;
    static const char *const codes[] = {"CKR_DEVICE_ERROR",
                                        "CKR_DEVICE_REMOVED",
                                        "CKR_TOKEN_NOT_PRESENT",
                                        "CKR_SESSION_HANDLE_INVALID",
                                        "CKR_SESSION_CLOSED",
                                        "CKR_USER_NOT_LOGGED_IN",
                                        "CKR_CRYPTOKI_NOT_INITIALIZED"};
    static const struct {
        const char *function;
        enum operation operation;
    } calls[] = {{"C_EncryptInit", SEAL},
                 {"C_Encrypt", SEAL},
                 {"C_DecryptInit", OPEN},
                 {"C_Decrypt", OPEN},
                 {"C_SignInit", MAC},
                 {"C_Sign", MAC},
                 {"C_UnwrapKey", UNWRAP},
                 {"C_GenerateKey", GENERATE},
                 {"C_WrapKey", GENERATE},
                 {"C_DestroyObject", GENERATE},
                 {"C_DestroyObject", DESTROY},
                 {"C_GenerateRandom", RANDOM},
                 {"C_FindObjectsInit", FIND},
                 {"C_FindObjects", FIND},
                 {"C_FindObjectsFinal", FIND},
                 {"C_GetAttributeValue", LIST_KEYS},
                 {"C_FindObjects", LIST_KEYS},
                 {"C_SignInit", SIGN},
                 {"C_Sign", SIGN},
                 {"C_Sign", PING}};
    for (size_t c = 0; c < sizeof codes / sizeof codes[0]; c++) {
        for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
            lose_once(calls[i].function, codes[c], calls[i].operation);
    }
}

static void the_integrity_key_failing_in_any_way_means_a_lost_device(void **state)
{
    (void)state;
    lose_once("C_SignInit", "CKR_KEY_HANDLE_INVALID", MAC);
    lose_once("C_Sign", "CKR_GENERAL_ERROR", MAC);
    lose_once("C_SignInit", "CKR_OBJECT_HANDLE_INVALID", PING);
}

static void other_codes_are_refusals_and_lose_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        enum operation operation;
        enum kms_status expected;
    } cases[] = {
        {"C_Encrypt fail CKR_FUNCTION_FAILED times=1\n", SEAL, KMS_HSM_REFUSED},
        {"C_EncryptInit fail CKR_MECHANISM_INVALID times=1\n", SEAL, KMS_HSM_REFUSED},
        {"C_Encrypt fail CKR_HOST_MEMORY times=1\n", SEAL, KMS_NO_MEMORY},
        {"C_Decrypt fail CKR_GENERAL_ERROR times=1\n", OPEN, KMS_BLOB_REFUSED},
        {"C_UnwrapKey fail CKR_GENERAL_ERROR times=1\n", UNWRAP, KMS_BLOB_REFUSED},
        {"C_UnwrapKey fail CKR_WRAPPED_KEY_INVALID times=1\n", UNWRAP, KMS_BLOB_REFUSED},
        {"C_UnwrapKey fail CKR_DEVICE_MEMORY times=1\n", UNWRAP, KMS_RESOURCE_EXHAUSTED},
        {"C_GenerateKey fail CKR_DEVICE_MEMORY times=1\n", GENERATE, KMS_RESOURCE_EXHAUSTED},
        {"C_EncryptInit fail CKR_KEY_HANDLE_INVALID times=1\n", SEAL, KMS_HSM_STALE},
    };
    const struct kms_hsm_info before = lossy_info();
    struct kms_hsm_session *session = lossy_checkout();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kms_test_token_fault(&lossy.token, cases[i].rule);
        assert_int_equal(lossy_run(cases[i].operation, session), cases[i].expected);
        kms_test_token_fault(&lossy.token, "");
        /* the module never saw the second half of what was begun: at most one call finds the session stuck */
        (void)!lossy_run(SEAL, session);
        must(lossy_run(SEAL, session));
        must(lossy_run(MAC, session));
    }
    lossy_checkin(session);
    assert_int_equal(lossy_info().recoveries, before.recoveries);
    assert_int_equal(lossy_info().generation, before.generation);
}

static void refused_data_is_not_believed_when_the_device_does_not_work_either(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    struct kms_hsm_session *session = lossy_checkout();
    kms_test_token_fault(
        &lossy.token, "C_UnwrapKey fail CKR_GENERAL_ERROR times=1\nC_Sign fail CKR_GENERAL_ERROR times=1\n");
    assert_int_equal(lossy_run(UNWRAP, session), KMS_HSM_UNAVAILABLE);
    lossy_checkin(session);
    lossy_assert_recovered(&before, old);
}

static void a_stuck_session_is_renewed_without_losing_a_key(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    struct kms_hsm_session *session = lossy_checkout();
    kms_test_token_fault(&lossy.token, "C_EncryptInit fail CKR_OPERATION_ACTIVE times=1\n");
    assert_int_equal(lossy_run(SEAL, session), KMS_HSM_UNAVAILABLE);
    lossy_checkin(session);
    session = lossy_checkout();
    must(lossy_run(SEAL, session)); /* with the same handle */
    lossy_checkin(session);
    assert_int_equal(lossy_info().generation, before.generation);
}

static void sessions_that_are_closed_behind_our_back_are_recovered_from(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    struct kms_hsm_session *session = lossy_checkout();
    kms_test_token_fault(&lossy.token, "sessions drop\n");
    assert_int_equal(lossy_run(SEAL, session), KMS_HSM_UNAVAILABLE);
    lossy_checkin(session);
    lossy_assert_recovered(&before, old);
}

static void a_logout_behind_our_back_is_recovered_from(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    kms_test_token_fault(&lossy.token, "user logout\n");
    assert_int_equal(lossy_run(PING, NULL), KMS_HSM_UNAVAILABLE);
    lossy_assert_recovered(&before, old);
}

static void a_pulled_token_is_waited_for_and_found_again(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    struct kms_hsm_session *session = lossy_checkout();
    kms_test_token_fault(&lossy.token, "token vanish\n");
    assert_int_equal(lossy_run(SEAL, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(MAC, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(UNWRAP, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(RANDOM, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(FIND, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(LIST_KEYS, session), KMS_HSM_UNAVAILABLE);
    lossy_checkin(session);
    struct kms_hsm_session *none = NULL;
    const int64_t soon = kms_clock_mono_ns() + 20 * KMS_NS_PER_MS;
    assert_int_equal(kms_hsm_checkout(lossy.hsm, soon, &none, &lossy.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(PING, NULL), KMS_HSM_UNAVAILABLE);
    assert_false(lossy_info().available);
    kms_test_token_fault(&lossy.token, "");
    lossy_assert_recovered(&before, old);
}

static void a_token_directory_that_vanishes_is_noticed_and_its_return_too(void **state)
{
    (void)state;
    const struct kms_hsm_info before = lossy_info();
    const struct kms_hsm_key old = lossy.kek;
    char tokens[128];
    char away[128];
    struct kms_hsm_key key = {0};
    (void)snprintf(tokens, sizeof tokens, "%s/tokens", lossy.token.directory);
    (void)snprintf(away, sizeof away, "%s/away", lossy.token.directory);
    kms_test_token_fault(&lossy.token, "");
    struct kms_hsm_session *session = lossy_checkout();
    assert_int_equal(rename(tokens, away), 0);
    /* not NOT_FOUND: that would be taken for a destroyed key */
    const enum kms_status found =
        lossy.hsm->ops->master_find(session, (const uint8_t *)"another key id!!", &key, &lossy.err);
    lossy_checkin(session);
    assert_int_equal(found, KMS_HSM_UNAVAILABLE);
    assert_int_equal(lossy_run(PING, NULL), KMS_HSM_UNAVAILABLE);
    assert_int_equal(rename(away, tokens), 0);
    lossy_assert_recovered(&before, old);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, lossy_open, lossy_close)
#define LIST                                                                                                 \
    EACH(a_master_key_that_cannot_be_made_or_is_torn_is_told_apart),                                         \
        EACH(every_code_of_a_lost_device_from_every_function_is_recovered_from),                             \
        EACH(the_integrity_key_failing_in_any_way_means_a_lost_device),                                      \
        EACH(other_codes_are_refusals_and_lose_nothing),                                                     \
        EACH(refused_data_is_not_believed_when_the_device_does_not_work_either),                             \
        EACH(a_stuck_session_is_renewed_without_losing_a_key),                                               \
        EACH(sessions_that_are_closed_behind_our_back_are_recovered_from),                                   \
        EACH(a_pulled_token_is_waited_for_and_found_again)

/* softokn 3.87 itself crashes when a token key is used after a logout, and has no directory to move away. */
#define SOFTHSM_ONLY                                                                                         \
    EACH(a_logout_behind_our_back_is_recovered_from),                                                        \
        EACH(a_token_directory_that_vanishes_is_noticed_and_its_return_too)

int main(void)
{
    const struct CMUnitTest softhsm[] = {LIST, SOFTHSM_ONLY};
    const struct CMUnitTest nss[] = {LIST};
    kms_log_set_level(KMS_LOG_ERROR);
    const int failed = cmocka_run_group_tests_name("SoftHSM 2", softhsm, NULL, NULL);
    lossy_kind = KMS_TEST_NSS;
    return failed + cmocka_run_group_tests_name("NSS softokn", nss, NULL, NULL);
}
