#include "lossy.h"

struct lossy lossy;
enum kms_test_token_kind lossy_kind = KMS_TEST_SOFTHSM;

struct kms_hsm_session *lossy_checkout(void)
{
    struct kms_hsm_session *session = NULL;
    must(kms_hsm_checkout(lossy.hsm, INT64_MAX, &session, &lossy.err));
    lossy.held[lossy.held[0] != NULL] = session;
    return session;
}

void lossy_checkin(struct kms_hsm_session *session)
{
    for (size_t i = 0; i < 2; i++) {
        if (lossy.held[i] == session)
            lossy.held[i] = NULL;
    }
    kms_hsm_checkin(lossy.hsm, session);
}

void lossy_fetch_keys(void)
{
    struct kms_hsm_session *session = lossy_checkout();
    must(lossy.hsm->ops->master_find(session, lossy.id, &lossy.master, &lossy.err));
    must(
        lossy.hsm->ops->unwrap(session, lossy.master, lossy.blob, KMS_HSM_KEK_SERVE, &lossy.kek, &lossy.err));
    lossy_checkin(session);
}

int lossy_open(void **state)
{
    (void)state;
    lossy = (struct lossy){.id = {1, 2, 3}};
    kms_test_token_new(lossy_kind, &lossy.token);
    kms_test_token_add_faults(&lossy.token);
    must(kms_test_token_open(&lossy.token, &lossy.hsm, &lossy.err));
    struct kms_hsm_session *session = lossy_checkout();
    must(lossy.hsm->ops->master_create(session, lossy.id, "kms/t/1", &lossy.master, &lossy.err));
    must(lossy.hsm->ops->generate_wrapped(session, lossy.master, lossy.blob, &lossy.err));
    lossy_checkin(session);
    lossy_fetch_keys();
    return 0;
}

int lossy_close(void **state)
{
    (void)state;
    kms_test_token_fault(&lossy.token, "");
    for (size_t i = 0; i < 2; i++)
        kms_hsm_checkin(lossy.hsm, lossy.held[i]);
    kms_hsm_free(lossy.hsm);
    kms_test_token_clear(&lossy.token);
    return 0;
}

struct kms_hsm_info lossy_info(void)
{
    struct kms_hsm_info now;
    lossy.hsm->ops->info(lossy.hsm, &now);
    return now;
}

enum kms_status lossy_run(enum operation operation, struct kms_hsm_session *session)
{
    static const uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {1};
    static const uint8_t sealed[48];
    uint8_t out[64];
    size_t len = 0;
    struct kms_hsm_key key = {0};
    KMS_FREE struct kms_hsm_master_info *list = NULL;
    const struct kms_hsm_ops *ops = lossy.hsm->ops;
    const struct kms_slice none = kms_slice_of(NULL, 0);
    switch (operation) {
    case SEAL:
        return ops->gcm_seal(session, lossy.kek, iv, none, kms_slice_str("x"), out, &lossy.err);
    case OPEN:
        return ops->gcm_open(session, lossy.kek, iv, none, kms_slice_of(sealed, 48), out, &lossy.err);
    case MAC:
        return ops->mac(session, kms_slice_str("x"), out, &lossy.err);
    case UNWRAP:
        return ops->unwrap(session, lossy.master, lossy.blob, KMS_HSM_TRANSIT, &key, &lossy.err);
    case GENERATE:
        return ops->generate_wrapped(session, lossy.master, out, &lossy.err);
    case DESTROY:
        return ops->destroy(session, lossy.kek);
    case RANDOM:
        return ops->random(session, out, sizeof out, &lossy.err);
    case FIND:
        return ops->master_find(session, (const uint8_t *)"no such key id!!", &key, &lossy.err);
    case LIST_KEYS:
        return ops->master_list(session, &list, &len, &lossy.err);
    case SIGN: {
        uint8_t signature[KMS_HSM_SIGNATURE_MAX];
        return ops->sign(lossy.hsm, kms_slice_str("x"), signature, &len, &lossy.err);
    }
    default:
        return ops->ping(lossy.hsm, &lossy.err);
    }
}

void lossy_assert_recovered(const struct kms_hsm_info *before, struct kms_hsm_key old)
{
    struct kms_hsm_session *session = lossy_checkout();
    const struct kms_hsm_info after = lossy_info();
    assert_true(after.available);
    assert_int_equal(after.recoveries, before->recoveries + 1);
    assert_true(after.generation > before->generation);
    assert_int_equal(after.session_objects, 0);
    lossy.kek = old;
    assert_int_equal(lossy_run(SEAL, session), KMS_HSM_STALE);
    must(lossy.hsm->ops->destroy(session, old)); /* went with its connection */
    lossy_checkin(session);
    lossy_fetch_keys();
    session = lossy_checkout();
    must(lossy_run(SEAL, session));
    must(lossy_run(MAC, session));
    lossy_checkin(session);
    must(lossy_run(SIGN, NULL));
    must(lossy_run(PING, NULL));
}

void lossy_lose_into(const char *rules)
{
    char text[256];
    struct kms_hsm_session *session = lossy_checkout();
    (void)snprintf(text, sizeof text, "C_GenerateRandom fail CKR_DEVICE_ERROR times=1\n%s", rules);
    kms_test_token_fault(&lossy.token, text);
    assert_int_equal(lossy_run(RANDOM, session), KMS_HSM_UNAVAILABLE);
    lossy_checkin(session);
}

void lossy_restart(void)
{
    kms_hsm_free(lossy.hsm);
    lossy.hsm = NULL;
    kms_test_token_fault(&lossy.token, "");
    must(kms_test_token_open(&lossy.token, &lossy.hsm, &lossy.err));
    lossy_fetch_keys();
}
