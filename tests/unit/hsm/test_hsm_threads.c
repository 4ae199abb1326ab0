/*
 * Goal: many threads use few sessions at once while the device is lost again and again; no answer is wrong, no
 * session and no object gets lost, everybody ends. Meaningful in a thread-sanitizer build (KMS_SANITIZE=thread)
 * as well: the modules are not instrumented, our locks are.
 */
#include "support/softhsm_token.h"

#include "core/log.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { THREADS = 6, ROUNDS = 150, LOSSES = 8 };

static struct kms_test_token token;
static struct kms_hsm *hsm;
static enum kms_test_token_kind kind = KMS_TEST_SOFTHSM;
static const uint8_t master_id[KMS_HSM_KEY_ID_SIZE] = {1, 2, 3, 4};
static uint8_t blob[KMS_HSM_WRAPPED_SIZE];
static uint8_t sample_mac[KMS_HSM_MAC_SIZE];
static atomic_uint finished_rounds;
static atomic_uint wrong;

static int open_token(void **state)
{
    (void)state;
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key master = {0};
    kms_test_token_new(kind, &token);
    kms_test_token_add_faults(&token);
    assert_int_equal(kms_test_token_open(&token, &hsm, NULL), KMS_OK);
    assert_int_equal(kms_hsm_checkout(hsm, INT64_MAX, &session, NULL), KMS_OK);
    assert_int_equal(hsm->ops->master_create(session, master_id, "kms/t/1", &master, NULL), KMS_OK);
    assert_int_equal(hsm->ops->generate_wrapped(session, master, blob, NULL), KMS_OK);
    assert_int_equal(hsm->ops->mac(session, kms_slice_str("page"), sample_mac, NULL), KMS_OK);
    kms_hsm_checkin(hsm, session);
    atomic_store(&finished_rounds, 0);
    atomic_store(&wrong, 0);
    return 0;
}

static int close_token(void **state)
{
    (void)state;
    kms_hsm_free(hsm);
    kms_test_token_clear(&token);
    return 0;
}

/* What one call of the service does: find the root, unwrap a KEK, seal, open, check a page's MAC. */
static enum kms_status work(struct kms_hsm_session *session, unsigned number)
{
    const struct kms_hsm_ops *ops = hsm->ops;
    struct kms_hsm_key master = {0};
    struct kms_hsm_key kek = {0};
    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {0};
    uint8_t plain[32];
    uint8_t sealed[48];
    uint8_t opened[32];
    uint8_t mac[KMS_HSM_MAC_SIZE];
    memset(plain, (int)number, sizeof plain);
    memcpy(iv, &number, sizeof number);
    const struct kms_slice aad = kms_slice_of(iv, sizeof iv);
    KMS_TRY(ops->master_find(session, master_id, &master, NULL));
    KMS_TRY(ops->unwrap(session, master, blob, KMS_HSM_KEK_SERVE, &kek, NULL));
    enum kms_status status = ops->gcm_seal(session, kek, iv, aad, kms_slice_of(plain, 32), sealed, NULL);
    if (status == KMS_OK)
        status = ops->gcm_open(session, kek, iv, aad, kms_slice_of(sealed, 48), opened, NULL);
    if (status == KMS_OK && memcmp(plain, opened, sizeof plain) != 0)
        atomic_fetch_add(&wrong, 1);
    if (status == KMS_OK)
        status = ops->mac(session, kms_slice_str("page"), mac, NULL);
    if (status == KMS_OK && memcmp(mac, sample_mac, sizeof mac) != 0)
        atomic_fetch_add(&wrong, 1);
    const enum kms_status destroyed = ops->destroy(session, kek);
    return status != KMS_OK ? status : destroyed;
}

/* Rounds count only when they succeed; while the device is away they are tried again. */
static void *worker(void *argument)
{
    const unsigned base = *(const unsigned *)argument * 1000;
    for (unsigned done = 0; done < ROUNDS;) {
        struct kms_hsm_session *session = NULL;
        uint8_t signature[KMS_HSM_SIGNATURE_MAX];
        size_t len = 0;
        struct kms_hsm_info info;
        enum kms_status status = kms_hsm_checkout(hsm, INT64_MAX, &session, NULL);
        if (status == KMS_OK) {
            status = work(session, base + done);
            kms_hsm_checkin(hsm, session);
        }
        if (status == KMS_OK && done % 16 == 0)
            status = hsm->ops->sign(hsm, kms_slice_str("checkpoint"), signature, &len, NULL);
        if (status == KMS_OK && done % 16 == 8)
            status = hsm->ops->ping(hsm, NULL);
        hsm->ops->info(hsm, &info);
        if (status == KMS_OK) {
            done++;
            atomic_fetch_add(&finished_rounds, 1);
        } else if (status != KMS_HSM_UNAVAILABLE && status != KMS_HSM_STALE) {
            atomic_fetch_add(&wrong, 1);
            break;
        }
    }
    return NULL;
}

static void run_workers(unsigned losses)
{
    static const char *const rules[] = {
        "C_Encrypt fail CKR_DEVICE_ERROR times=1\n", "C_UnwrapKey fail CKR_SESSION_HANDLE_INVALID times=2\n",
        "C_Sign fail CKR_USER_NOT_LOGGED_IN times=1\n", "C_DestroyObject fail CKR_DEVICE_REMOVED times=1\n"};
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, worker, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < losses; i++) {
        /* the next loss comes when the last one was seen and some work was done since */
        const unsigned fired = kms_test_token_fired(&token);
        const unsigned rounds = atomic_load(&finished_rounds);
        kms_test_token_fault(&token, rules[i % 4]);
        while (kms_test_token_fired(&token) == fired && atomic_load(&finished_rounds) < THREADS * ROUNDS &&
               atomic_load(&wrong) == 0)
            (void)sched_yield();
        while (atomic_load(&finished_rounds) < rounds + THREADS &&
               atomic_load(&finished_rounds) < THREADS * ROUNDS && atomic_load(&wrong) == 0)
            (void)sched_yield();
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    kms_test_token_fault(&token, "");
}

/* Whatever happened: all sessions are free, no object is left, and everything works. */
static void assert_tidy(void)
{
    struct kms_hsm_session *session = NULL;
    assert_int_equal(atomic_load(&wrong), 0);
    assert_int_equal(atomic_load(&finished_rounds), THREADS * ROUNDS);
    assert_int_equal(kms_hsm_checkout(hsm, INT64_MAX, &session, NULL), KMS_OK);
    assert_int_equal(work(session, 1), KMS_OK);
    kms_hsm_checkin(hsm, session);
    struct kms_hsm_info info;
    hsm->ops->info(hsm, &info);
    assert_int_equal(info.sessions_free, info.sessions_total);
    assert_int_equal(info.session_objects, 0);
}

static void six_threads_share_two_sessions(void **state)
{
    (void)state;
    run_workers(0);
    assert_tidy();
    struct kms_hsm_info info;
    hsm->ops->info(hsm, &info);
    assert_int_equal(info.recoveries, 0);
}

static void six_threads_survive_a_device_that_is_lost_again_and_again(void **state)
{
    (void)state;
    run_workers(LOSSES);
    assert_tidy();
    struct kms_hsm_info info;
    hsm->ops->info(hsm, &info);
    assert_true(info.recoveries >= LOSSES / 2);
}

static void the_bound_on_session_objects_is_kept(void **state)
{
    (void)state;
    /* the profile's bound is far away, so take a profile with a near one */
    char path[128];
    KMS_SECRET pin = {0};
    struct kms_hsm *small = NULL;
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key master = {0};
    struct kms_hsm_key keys[8];
    struct kms_error err = {0};
    kms_hsm_free(hsm);
    hsm = NULL;
    (void)snprintf(path, sizeof path, "%s/small.yaml", token.directory);
    KMS_FCLOSE FILE *in = fopen(token.profile, "re");
    KMS_FCLOSE FILE *out = fopen(path, "we");
    assert_non_null(in);
    assert_non_null(out);
    for (char line[256]; fgets(line, sizeof line, in) != NULL;)
        fputs(strncmp(line, "session_objects_maximum", 23) == 0 ? "session_objects_maximum: 8\n" : line, out);
    assert_int_equal(fflush(out), 0);
    struct kms_hsm_p11_config config = kms_test_token_config(&token, KMS_TEST_PIN, &pin);
    config.profile = path;
    assert_int_equal(kms_hsm_p11_open(&config, &small, &err), KMS_OK);
    assert_int_equal(kms_hsm_checkout(small, INT64_MAX, &session, &err), KMS_OK);
    assert_int_equal(small->ops->master_find(session, master_id, &master, &err), KMS_OK);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(small->ops->unwrap(session, master, blob, KMS_HSM_KEK_SERVE, &keys[i], &err),
                         KMS_OK);
    struct kms_hsm_key more = {0};
    assert_int_equal(small->ops->unwrap(session, master, blob, KMS_HSM_KEK_SERVE, &more, &err),
                     KMS_RESOURCE_EXHAUSTED);
    assert_int_equal(small->ops->destroy(session, keys[0]), KMS_OK);
    assert_int_equal(small->ops->unwrap(session, master, blob, KMS_HSM_KEK_SERVE, &keys[0], &err), KMS_OK);
    kms_hsm_checkin(small, session);
    kms_hsm_free(small);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, open_token, close_token)
#define LIST                                                                                                 \
    EACH(six_threads_share_two_sessions), EACH(six_threads_survive_a_device_that_is_lost_again_and_again),   \
        EACH(the_bound_on_session_objects_is_kept)

int main(void)
{
    const struct CMUnitTest softhsm[] = {LIST};
    const struct CMUnitTest nss[] = {LIST};
    kms_log_set_level(KMS_LOG_ERROR);
    const int failed = cmocka_run_group_tests_name("SoftHSM 2", softhsm, NULL, NULL);
    kind = KMS_TEST_NSS;
    return failed + cmocka_run_group_tests_name("NSS softokn", nss, NULL, NULL);
}
