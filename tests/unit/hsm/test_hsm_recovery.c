/*
 * Goal: whatever call reports a lost device, the connection comes back by itself in a new generation, stale
 * handles are refused, nobody waits longer than his deadline, and no PIN is burnt. On SoftHSM 2 and on NSS.
 */
#include "support/softhsm_token.h"

#include "core/clock.h"
#include "core/log.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* An open token behind the fault module, with a master key and a KEK under it. */
struct bench {
    struct kms_test_token token;
    struct kms_hsm *hsm;
    struct kms_error err;
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key master;
    struct kms_hsm_key kek;
    struct kms_hsm_session *held[2]; /* checked out now, so that a test that fails can be cleaned up */
};

static struct bench bench;
static enum kms_test_token_kind kind = KMS_TEST_SOFTHSM; /* of the list that runs */

#define must(expression)                                                                                     \
    do {                                                                                                     \
        const enum kms_status must_status_ = (expression);                                                   \
        if (must_status_ != KMS_OK)                                                                          \
            fail_msg("%s: %s (%s)", #expression, kms_status_name(must_status_),                              \
                     kms_error_cause(&bench.err, must_status_));                                             \
    } while (0)

static struct kms_hsm_session *checkout(void)
{
    struct kms_hsm_session *session = NULL;
    must(kms_hsm_checkout(bench.hsm, INT64_MAX, &session, &bench.err));
    bench.held[bench.held[0] != NULL] = session;
    return session;
}

static void checkin(struct kms_hsm_session *session)
{
    for (size_t i = 0; i < 2; i++) {
        if (bench.held[i] == session)
            bench.held[i] = NULL;
    }
    kms_hsm_checkin(bench.hsm, session);
}

/* Look the keys up again, as a caller does after HSM_STALE. */
static void fetch_keys(void)
{
    struct kms_hsm_session *session = checkout();
    must(bench.hsm->ops->master_find(session, bench.id, &bench.master, &bench.err));
    must(
        bench.hsm->ops->unwrap(session, bench.master, bench.blob, KMS_HSM_KEK_SERVE, &bench.kek, &bench.err));
    checkin(session);
}

static int open_bench(void **state)
{
    (void)state;
    bench = (struct bench){.id = {1, 2, 3}};
    kms_test_token_new(kind, &bench.token);
    kms_test_token_add_faults(&bench.token);
    must(kms_test_token_open(&bench.token, &bench.hsm, &bench.err));
    struct kms_hsm_session *session = checkout();
    must(bench.hsm->ops->master_create(session, bench.id, "kms/t/1", &bench.master, &bench.err));
    must(bench.hsm->ops->generate_wrapped(session, bench.master, bench.blob, &bench.err));
    checkin(session);
    fetch_keys();
    return 0;
}

static int close_bench(void **state)
{
    (void)state;
    kms_test_token_fault(&bench.token, "");
    for (size_t i = 0; i < 2; i++)
        kms_hsm_checkin(bench.hsm, bench.held[i]);
    kms_hsm_free(bench.hsm);
    kms_test_token_clear(&bench.token);
    return 0;
}

static struct kms_hsm_info info(void)
{
    struct kms_hsm_info now;
    bench.hsm->ops->info(bench.hsm, &now);
    return now;
}

/* The operations that callers use, by number. */
enum operation { SEAL, OPEN, MAC, UNWRAP, GENERATE, DESTROY, RANDOM, FIND, LIST_KEYS, SIGN, PING };

static enum kms_status run(enum operation operation, struct kms_hsm_session *session)
{
    static const uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {1};
    static const uint8_t sealed[48];
    uint8_t out[64];
    size_t len = 0;
    struct kms_hsm_key key = {0};
    KMS_FREE struct kms_hsm_master_info *list = NULL;
    const struct kms_hsm_ops *ops = bench.hsm->ops;
    const struct kms_slice none = kms_slice_of(NULL, 0);
    switch (operation) {
    case SEAL:
        return ops->gcm_seal(session, bench.kek, iv, none, kms_slice_str("x"), out, &bench.err);
    case OPEN:
        return ops->gcm_open(session, bench.kek, iv, none, kms_slice_of(sealed, 48), out, &bench.err);
    case MAC:
        return ops->mac(session, kms_slice_str("x"), out, &bench.err);
    case UNWRAP:
        return ops->unwrap(session, bench.master, bench.blob, KMS_HSM_TRANSIT, &key, &bench.err);
    case GENERATE:
        return ops->generate_wrapped(session, bench.master, out, &bench.err);
    case DESTROY:
        return ops->destroy(session, bench.kek);
    case RANDOM:
        return ops->random(session, out, sizeof out, &bench.err);
    case FIND:
        return ops->master_find(session, (const uint8_t *)"no such key id!!", &key, &bench.err);
    case LIST_KEYS:
        return ops->master_list(session, &list, &len, &bench.err);
    case SIGN: {
        uint8_t signature[KMS_HSM_SIGNATURE_MAX];
        return ops->sign(bench.hsm, kms_slice_str("x"), signature, &len, &bench.err);
    }
    default:
        return ops->ping(bench.hsm, &bench.err);
    }
}

static void a_master_key_that_cannot_be_made_or_is_torn_is_told_apart(void **state)
{
    (void)state;
    static const uint8_t id[KMS_HSM_KEY_ID_SIZE] = {9};
    struct kms_hsm_key key = {0};
    struct kms_hsm_session *session = checkout();
    kms_test_token_fault(&bench.token, "C_GenerateKey fail CKR_DEVICE_MEMORY times=1\n");
    assert_int_equal(bench.hsm->ops->master_create(session, id, "kms/t/2", &key, &bench.err), KMS_HSM_FULL);
    kms_test_token_fault(&bench.token, "C_GenerateKey fail CKR_TOKEN_WRITE_PROTECTED times=1\n");
    assert_int_equal(bench.hsm->ops->master_create(session, id, "kms/t/2", &key, &bench.err),
                     KMS_HSM_REFUSED);
    assert_non_null(strstr(bench.err.public_text, "write-protected"));
    /* made, but it does not work: not left behind */
    kms_test_token_fault(&bench.token, "C_WrapKey fail CKR_FUNCTION_FAILED times=1\n");
    assert_int_equal(bench.hsm->ops->master_create(session, id, "kms/t/2", &key, &bench.err),
                     KMS_HSM_REFUSED);
    kms_test_token_fault(&bench.token, "");
    assert_int_equal(bench.hsm->ops->master_find(session, id, &key, &bench.err), KMS_NOT_FOUND);
    must(bench.hsm->ops->master_create(session, id, "kms/t/2", &key, &bench.err));
    /* found in a new connection, but it does not work: refused, not destroyed */
    kms_test_token_fault(&bench.token, "C_GenerateRandom fail CKR_DEVICE_ERROR times=1\n");
    assert_int_equal(run(RANDOM, session), KMS_HSM_UNAVAILABLE);
    checkin(session);
    session = checkout();
    kms_test_token_fault(&bench.token, "C_UnwrapKey fail CKR_GENERAL_ERROR times=1\n");
    assert_int_equal(bench.hsm->ops->master_find(session, id, &key, &bench.err), KMS_HSM_REFUSED);
    kms_test_token_fault(&bench.token, "");
    must(bench.hsm->ops->master_find(session, id, &key, &bench.err));
    checkin(session);
}

static void *signing_thread(void *argument)
{
    uint8_t signature[KMS_HSM_SIGNATURE_MAX];
    size_t len = 0;
    *(enum kms_status *)argument = bench.hsm->ops->sign(bench.hsm, kms_slice_str("x"), signature, &len, NULL);
    return NULL;
}

static void a_signature_that_hangs_makes_a_ping_fail_and_not_wait(void **state)
{
    (void)state;
    enum kms_status status = KMS_INTERNAL;
    pthread_t thread;
    kms_test_token_fault(&bench.token, "C_Sign hang\n");
    assert_int_equal(pthread_create(&thread, NULL, signing_thread, &status), 0);
    while (kms_test_token_fired(&bench.token) == 0)
        (void)sched_yield();
    assert_int_equal(run(PING, NULL), KMS_HSM_UNAVAILABLE);
    kms_test_token_fault(&bench.token, "");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(status, KMS_OK);
    must(run(PING, NULL));
}

/* After a loss: back in the next generation, old handles refused, fresh ones work. */
static void assert_recovered(const struct kms_hsm_info *before, struct kms_hsm_key old)
{
    struct kms_hsm_session *session = checkout();
    const struct kms_hsm_info after = info();
    assert_true(after.available);
    assert_int_equal(after.recoveries, before->recoveries + 1);
    assert_true(after.generation > before->generation);
    assert_int_equal(after.session_objects, 0);
    bench.kek = old;
    assert_int_equal(run(SEAL, session), KMS_HSM_STALE);
    must(bench.hsm->ops->destroy(session, old)); /* went with its connection */
    checkin(session);
    fetch_keys();
    session = checkout();
    must(run(SEAL, session));
    must(run(MAC, session));
    checkin(session);
    must(run(SIGN, NULL));
    must(run(PING, NULL));
}

/* One code from one function during one operation. */
static void lose_once(const char *function, const char *code, enum operation operation)
{
    char rule[96];
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    const unsigned fired = kms_test_token_fired(&bench.token);
    struct kms_hsm_session *session = checkout();
    (void)snprintf(rule, sizeof rule, "%s fail %s times=1\n", function, code);
    kms_test_token_fault(&bench.token, rule);
    const enum kms_status status = run(operation, session);
    checkin(session);
    if (status != KMS_HSM_UNAVAILABLE)
        fail_msg("%s from %s in operation %d: %s", code, function, (int)operation, kms_status_name(status));
    assert_int_equal(kms_test_token_fired(&bench.token), fired + 1);
    assert_recovered(&before, old);
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
    const struct kms_hsm_info before = info();
    struct kms_hsm_session *session = checkout();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kms_test_token_fault(&bench.token, cases[i].rule);
        assert_int_equal(run(cases[i].operation, session), cases[i].expected);
        kms_test_token_fault(&bench.token, "");
        /* the module never saw the second half of what was begun: at most one call finds the session stuck */
        (void)!run(SEAL, session);
        must(run(SEAL, session));
        must(run(MAC, session));
    }
    checkin(session);
    assert_int_equal(info().recoveries, before.recoveries);
    assert_int_equal(info().generation, before.generation);
}

static void refused_data_is_not_believed_when_the_device_does_not_work_either(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    struct kms_hsm_session *session = checkout();
    kms_test_token_fault(
        &bench.token, "C_UnwrapKey fail CKR_GENERAL_ERROR times=1\nC_Sign fail CKR_GENERAL_ERROR times=1\n");
    assert_int_equal(run(UNWRAP, session), KMS_HSM_UNAVAILABLE);
    checkin(session);
    assert_recovered(&before, old);
}

static void a_stuck_session_is_renewed_without_losing_a_key(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    struct kms_hsm_session *session = checkout();
    kms_test_token_fault(&bench.token, "C_EncryptInit fail CKR_OPERATION_ACTIVE times=1\n");
    assert_int_equal(run(SEAL, session), KMS_HSM_UNAVAILABLE);
    checkin(session);
    session = checkout();
    must(run(SEAL, session)); /* with the same handle */
    checkin(session);
    assert_int_equal(info().generation, before.generation);
}

static void sessions_that_are_closed_behind_our_back_are_recovered_from(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    struct kms_hsm_session *session = checkout();
    kms_test_token_fault(&bench.token, "sessions drop\n");
    assert_int_equal(run(SEAL, session), KMS_HSM_UNAVAILABLE);
    checkin(session);
    assert_recovered(&before, old);
}

static void a_logout_behind_our_back_is_recovered_from(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    kms_test_token_fault(&bench.token, "user logout\n");
    assert_int_equal(run(PING, NULL), KMS_HSM_UNAVAILABLE);
    assert_recovered(&before, old);
}

static void a_pulled_token_is_waited_for_and_found_again(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    struct kms_hsm_session *session = checkout();
    kms_test_token_fault(&bench.token, "token vanish\n");
    assert_int_equal(run(SEAL, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(MAC, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(UNWRAP, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(RANDOM, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(FIND, session), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(LIST_KEYS, session), KMS_HSM_UNAVAILABLE);
    checkin(session);
    struct kms_hsm_session *none = NULL;
    const int64_t soon = kms_clock_mono_ns() + 20 * KMS_NS_PER_MS;
    assert_int_equal(kms_hsm_checkout(bench.hsm, soon, &none, &bench.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(PING, NULL), KMS_HSM_UNAVAILABLE);
    assert_false(info().available);
    kms_test_token_fault(&bench.token, "");
    assert_recovered(&before, old);
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
        const struct kms_hsm_info before = info();
        const struct kms_hsm_key old = bench.kek;
        const unsigned fired = kms_test_token_fired(&bench.token);
        struct kms_hsm_session *session = checkout();
        (void)snprintf(rules, sizeof rules, "C_GenerateRandom fail CKR_DEVICE_ERROR times=1\n%s", steps[i]);
        kms_test_token_fault(&bench.token, rules);
        assert_int_equal(run(RANDOM, session), KMS_HSM_UNAVAILABLE);
        checkin(session);
        assert_recovered(&before, old);
        assert_true(kms_test_token_fired(&bench.token) >= fired + 2);
    }
}

/* Make the next recovery meet these rules. */
static void lose_into(const char *rules)
{
    char text[256];
    struct kms_hsm_session *session = checkout();
    (void)snprintf(text, sizeof text, "C_GenerateRandom fail CKR_DEVICE_ERROR times=1\n%s", rules);
    kms_test_token_fault(&bench.token, text);
    assert_int_equal(run(RANDOM, session), KMS_HSM_UNAVAILABLE);
    checkin(session);
}

static void one_spurious_refusal_of_the_pin_does_not_stop_recovery(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    const unsigned fired = kms_test_token_fired(&bench.token);
    lose_into("C_Login fail CKR_PIN_INCORRECT times=1\n");
    assert_recovered(&before, old);
    assert_int_equal(kms_test_token_fired(&bench.token), fired + 2);
}

static void a_pin_that_is_refused_twice_is_not_tried_again(void **state)
{
    (void)state;
    const unsigned fired = kms_test_token_fired(&bench.token);
    struct kms_hsm_session *none = NULL;
    lose_into("C_Login fail CKR_PIN_INCORRECT\n");
    assert_int_equal(kms_hsm_checkout(bench.hsm, INT64_MAX, &none, &bench.err), KMS_HSM_UNAVAILABLE);
    assert_non_null(strstr(bench.err.cause, "given up"));
    assert_int_equal(kms_test_token_fired(&bench.token), fired + 3); /* the loss and two tries */
    kms_test_token_fault(&bench.token, "");
    assert_int_equal(run(PING, NULL), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(SIGN, NULL), KMS_HSM_UNAVAILABLE);
    kms_hsm_free(bench.hsm);
    bench.hsm = NULL;
    must(kms_test_token_open(&bench.token, &bench.hsm, &bench.err)); /* a restart helps */
    fetch_keys();
}

static void a_recovery_tries_no_pin_when_one_try_is_left(void **state)
{
    (void)state;
    const unsigned fired = kms_test_token_fired(&bench.token);
    struct kms_hsm_session *none = NULL;
    lose_into("token flags 0x20000\nC_Login delay 0\n");
    assert_int_equal(kms_hsm_checkout(bench.hsm, INT64_MAX, &none, &bench.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(kms_test_token_fired(&bench.token), fired + 1); /* the loss, and no login */
    kms_test_token_fault(&bench.token, "");
    kms_hsm_free(bench.hsm);
    bench.hsm = NULL;
    must(kms_test_token_open(&bench.token, &bench.hsm, &bench.err));
    fetch_keys();
}

/* A thread that hangs in the module. */
static void *hanging_thread(void *argument)
{
    struct kms_hsm_session *session = argument;
    uint8_t out[32];
    static const uint8_t iv[KMS_HSM_GCM_IV_SIZE];
    (void)!bench.hsm->ops->gcm_seal(session, bench.kek, iv, kms_slice_of(NULL, 0), kms_slice_str("x"), out,
                                    NULL);
    kms_hsm_checkin(bench.hsm, session);
    return NULL;
}

static void a_call_that_hangs_delays_recovery_but_no_caller_past_his_deadline(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    const unsigned fired = kms_test_token_fired(&bench.token);
    struct kms_hsm_session *first = checkout();
    struct kms_hsm_session *second = checkout();
    kms_test_token_fault(&bench.token, "C_Encrypt hang\nC_GenerateRandom fail CKR_DEVICE_ERROR times=1\n");
    bench.held[0] = NULL; /* the thread gives it back */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hanging_thread, first), 0);
    while (kms_test_token_fired(&bench.token) == fired)
        (void)sched_yield();
    assert_int_equal(run(RANDOM, second), KMS_HSM_UNAVAILABLE);
    checkin(second);
    struct kms_hsm_session *none = NULL;
    assert_int_equal(kms_hsm_checkout(bench.hsm, 0, &none, &bench.err), KMS_HSM_UNAVAILABLE);
    const int64_t soon = kms_clock_mono_ns() + 20 * KMS_NS_PER_MS;
    assert_int_equal(kms_hsm_checkout(bench.hsm, soon, &none, &bench.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(PING, NULL), KMS_HSM_UNAVAILABLE);
    kms_test_token_fault(&bench.token, "");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_recovered(&before, old);
}

static void a_recovery_that_hangs_delays_no_caller_past_his_deadline(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    const unsigned fired = kms_test_token_fired(&bench.token);
    lose_into("C_Initialize hang\n");
    while (kms_test_token_fired(&bench.token) < fired + 2)
        (void)sched_yield();
    struct kms_hsm_session *none = NULL;
    const int64_t soon = kms_clock_mono_ns() + 20 * KMS_NS_PER_MS;
    assert_int_equal(kms_hsm_checkout(bench.hsm, soon, &none, &bench.err), KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(PING, NULL), KMS_HSM_UNAVAILABLE);
    kms_test_token_fault(&bench.token, "");
    assert_recovered(&before, old);
}

static void it_can_be_freed_while_the_device_is_lost(void **state)
{
    (void)state;
    lose_into("token vanish\n");
    kms_hsm_free(bench.hsm);
    bench.hsm = NULL;
    kms_test_token_fault(&bench.token, "");
    must(kms_test_token_open(&bench.token, &bench.hsm, &bench.err));
    fetch_keys();
}

static void a_token_directory_that_vanishes_is_noticed_and_its_return_too(void **state)
{
    (void)state;
    const struct kms_hsm_info before = info();
    const struct kms_hsm_key old = bench.kek;
    char tokens[128];
    char away[128];
    struct kms_hsm_key key = {0};
    (void)snprintf(tokens, sizeof tokens, "%s/tokens", bench.token.directory);
    (void)snprintf(away, sizeof away, "%s/away", bench.token.directory);
    kms_test_token_fault(&bench.token, "");
    struct kms_hsm_session *session = checkout();
    assert_int_equal(rename(tokens, away), 0);
    /* not NOT_FOUND: that would be taken for a destroyed key */
    const enum kms_status found =
        bench.hsm->ops->master_find(session, (const uint8_t *)"another key id!!", &key, &bench.err);
    checkin(session);
    assert_int_equal(found, KMS_HSM_UNAVAILABLE);
    assert_int_equal(run(PING, NULL), KMS_HSM_UNAVAILABLE);
    assert_int_equal(rename(away, tokens), 0);
    assert_recovered(&before, old);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, open_bench, close_bench)

/* softokn 3.87 itself crashes when a token key is used after a logout, and has no directory to move away. */
#define SOFTHSM_ONLY                                                                                         \
    EACH(a_logout_behind_our_back_is_recovered_from),                                                        \
        EACH(a_token_directory_that_vanishes_is_noticed_and_its_return_too)

#define LIST                                                                                                 \
    EACH(every_code_of_a_lost_device_from_every_function_is_recovered_from),                                 \
        EACH(the_integrity_key_failing_in_any_way_means_a_lost_device),                                      \
        EACH(other_codes_are_refusals_and_lose_nothing),                                                     \
        EACH(a_master_key_that_cannot_be_made_or_is_torn_is_told_apart),                                     \
        EACH(a_signature_that_hangs_makes_a_ping_fail_and_not_wait),                                         \
        EACH(refused_data_is_not_believed_when_the_device_does_not_work_either),                             \
        EACH(a_stuck_session_is_renewed_without_losing_a_key),                                               \
        EACH(sessions_that_are_closed_behind_our_back_are_recovered_from),                                   \
        EACH(a_pulled_token_is_waited_for_and_found_again),                                                  \
        EACH(a_recovery_that_fails_at_any_step_is_tried_again),                                              \
        EACH(one_spurious_refusal_of_the_pin_does_not_stop_recovery),                                        \
        EACH(a_pin_that_is_refused_twice_is_not_tried_again),                                                \
        EACH(a_recovery_tries_no_pin_when_one_try_is_left),                                                  \
        EACH(a_call_that_hangs_delays_recovery_but_no_caller_past_his_deadline),                             \
        EACH(a_recovery_that_hangs_delays_no_caller_past_his_deadline),                                      \
        EACH(it_can_be_freed_while_the_device_is_lost)

int main(void)
{
    const struct CMUnitTest softhsm[] = {LIST, SOFTHSM_ONLY};
    const struct CMUnitTest nss[] = {LIST};
    kms_log_set_level(KMS_LOG_ERROR);
    const int failed = cmocka_run_group_tests_name("SoftHSM 2", softhsm, NULL, NULL);
    kind = KMS_TEST_NSS;
    return failed + cmocka_run_group_tests_name("NSS softokn", nss, NULL, NULL);
}
