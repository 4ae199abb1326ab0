#include "backup/keeper.h"

#include "core/clock.h"
#include "core/secret.h"

enum { SESSION_SECONDS = 30, CIPHERTEXT_SIZE = KMS_BACKUP_WRAPPED_SIZE - KMS_HSM_GCM_IV_SIZE };

_Static_assert((int)KMS_BACKUP_KEY_ID_SIZE == (int)KMS_HSM_KEY_ID_SIZE,
               "a deployment is known by its key's id");
_Static_assert(CIPHERTEXT_SIZE == KMS_BACKUP_FILE_KEY_SIZE + KMS_HSM_GCM_TAG_SIZE, "see container.h");

/* A session and the backup key, for one operation. */
struct use {
    struct kms_hsm *hsm;
    struct kms_hsm_session *session;
    struct kms_hsm_key key;
};

static void use_end(struct use *use)
{
    kms_hsm_checkin(use->hsm, use->session);
}

static enum kms_status use_begin(struct kms_hsm *hsm, struct use *use, uint8_t ret_id[KMS_HSM_KEY_ID_SIZE],
                                 struct kms_error *err)
{
    use->hsm = hsm;
    KMS_TRY(
        kms_hsm_checkout(hsm, kms_clock_mono_ns() + SESSION_SECONDS * KMS_NS_PER_SECOND, &use->session, err));
    return kms_hsm_backup_key(hsm, use->session, &use->key, ret_id, err);
}

static enum kms_status wrap(void *context, struct kms_slice bound,
                            const uint8_t key[KMS_BACKUP_FILE_KEY_SIZE],
                            uint8_t ret_wrapped[KMS_BACKUP_WRAPPED_SIZE], struct kms_error *err)
{
    KMS_CLEANUP(use_end) struct use use = {0};
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    KMS_TRY(use_begin(context, &use, id, err));
    KMS_TRY(kms_hsm_random(use.hsm, use.session, ret_wrapped, KMS_HSM_GCM_IV_SIZE, err));
    return kms_hsm_gcm_seal(use.hsm, use.session, use.key, ret_wrapped, bound,
                            kms_slice_of(key, KMS_BACKUP_FILE_KEY_SIZE), ret_wrapped + KMS_HSM_GCM_IV_SIZE,
                            err);
}

static enum kms_status unwrap(void *context, struct kms_slice bound,
                              const uint8_t wrapped[KMS_BACKUP_WRAPPED_SIZE],
                              uint8_t ret_key[KMS_BACKUP_FILE_KEY_SIZE], struct kms_error *err)
{
    KMS_CLEANUP(use_end) struct use use = {0};
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    KMS_TRY(use_begin(context, &use, id, err));
    const enum kms_status status =
        kms_hsm_gcm_open(use.hsm, use.session, use.key, wrapped, bound,
                         kms_slice_of(wrapped + KMS_HSM_GCM_IV_SIZE, CIPHERTEXT_SIZE), ret_key, err);
    if (status == KMS_BLOB_REFUSED)
        return kms_fail_public(err, KMS_TAMPERED,
                               "its header does not open under the backup key: it was changed");
    return status;
}

/* What is wrapped must open again. */
static enum kms_status try_once(const struct kms_backup_keeper *keeper, struct kms_error *err)
{
    static const uint8_t probe[KMS_BACKUP_FILE_KEY_SIZE] = "kms backup probe";
    uint8_t wrapped[KMS_BACKUP_WRAPPED_SIZE];
    uint8_t opened[KMS_BACKUP_FILE_KEY_SIZE];
    const struct kms_slice bound = kms_slice_str("probe");
    KMS_TRY(keeper->wrap(keeper->context, bound, probe, wrapped, err));
    KMS_TRY(keeper->unwrap(keeper->context, bound, wrapped, opened, err));
    if (memcmp(opened, probe, sizeof probe) != 0)
        return kms_fail(err, KMS_HSM_REFUSED, "the token's backup key does not open what it has sealed");
    return KMS_OK;
}

enum kms_status kms_backup_keeper_init(struct kms_hsm *hsm, struct kms_backup_keeper *ret_keeper,
                                       struct kms_error *err)
{
    struct kms_backup_keeper keeper = {.context = hsm, .wrap = wrap, .unwrap = unwrap};
    {
        KMS_CLEANUP(use_end) struct use use = {0};
        KMS_TRY(use_begin(hsm, &use, keeper.key_id, err));
    }
    KMS_TRY(try_once(&keeper, err));
    *ret_keeper = keeper;
    return KMS_OK;
}
