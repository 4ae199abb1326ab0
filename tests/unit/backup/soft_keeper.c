#include "soft_keeper.h"

#include "fake/fake_crypto.h"

enum { IV_SIZE = 12 };

/* The key of a deployment: its number, 32 times. */
static void key_of(const void *context, uint8_t key[32])
{
    memset(key, *(const uint8_t *)context, 32);
}

static enum kms_status wrap(void *context, struct kms_slice bound,
                            const uint8_t key[KMS_BACKUP_FILE_KEY_SIZE],
                            uint8_t ret_wrapped[KMS_BACKUP_WRAPPED_SIZE], struct kms_error *err)
{
    (void)err;
    uint8_t wrapping[32];
    key_of(context, wrapping);
    kms_system_random(ret_wrapped, IV_SIZE);
    kms_fake_crypto_seal(wrapping, ret_wrapped, bound, kms_slice_of(key, KMS_BACKUP_FILE_KEY_SIZE),
                         ret_wrapped + IV_SIZE);
    return KMS_OK;
}

static enum kms_status unwrap(void *context, struct kms_slice bound,
                              const uint8_t wrapped[KMS_BACKUP_WRAPPED_SIZE],
                              uint8_t ret_key[KMS_BACKUP_FILE_KEY_SIZE], struct kms_error *err)
{
    uint8_t wrapping[32];
    key_of(context, wrapping);
    const struct kms_slice sealed = kms_slice_of(wrapped + IV_SIZE, KMS_BACKUP_WRAPPED_SIZE - IV_SIZE);
    return kms_fake_crypto_open(wrapping, wrapped, bound, sealed, ret_key)
               ? KMS_OK
               : kms_fail_public(err, KMS_TAMPERED, "its header does not open");
}

struct kms_backup_keeper soft_keeper(uint8_t deployment)
{
    static uint8_t numbers[256];
    numbers[deployment] = deployment;
    struct kms_backup_keeper keeper = {.context = &numbers[deployment], .wrap = wrap, .unwrap = unwrap};
    memset(keeper.key_id, deployment, sizeof keeper.key_id);
    return keeper;
}
