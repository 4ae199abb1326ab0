/* A custodian's share: what is read is written as text that reads as the same share. */
#include "recovery/share_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kms_share share = {0};
    struct kms_share again = {0};
    struct kms_error err = {0};
    KMS_SECRET text = {0};
    if (kms_share_parse("input", kms_slice_of(data, size), &share, &err) != KMS_OK) {
        KMS_ASSERT(err.public_text[0] != '\0' && share.value.data == NULL);
        return 0;
    }
    KMS_ASSERT(kms_shares_check(share.count, share.threshold, NULL) == KMS_OK);
    KMS_ASSERT(kms_share_format(&share, &text, NULL) == KMS_OK);
    KMS_ASSERT(kms_share_parse("again", kms_secret_slice(&text), &again, NULL) == KMS_OK);
    KMS_ASSERT(again.number == share.number && again.count == share.count &&
               again.threshold == share.threshold && memcmp(again.key, share.key, sizeof share.key) == 0 &&
               memcmp(again.value.data, share.value.data, KMS_SHARE_SIZE) == 0);
    kms_share_clear(&share);
    kms_share_clear(&again);
    return 0;
}
