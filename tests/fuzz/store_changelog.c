/* Goal: no bytes make the change log's decoder crash, and what it accepts it encodes to the very same bytes. */
#include "store/changelog.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kms_change change = {0};
    struct kms_error err = {0};
    const enum kms_status status = kms_changelog_decode(kms_slice_of(data, size), &change, &err);
    if (status != KMS_OK) {
        KMS_ASSERT(status == KMS_STORE_CORRUPT || status == KMS_STORE_NEWER || status == KMS_NO_MEMORY);
        KMS_ASSERT(err.cause[0] != '\0' && change.kind == 0);
        return 0;
    }
    struct kms_buf again = {0};
    KMS_ASSERT(kms_changelog_encode(&change, &again) == KMS_OK);
    KMS_ASSERT(kms_slice_equal(kms_buf_slice(&again), kms_slice_of(data, size)));
    kms_buf_clear(&again);
    kms_change_clear(&change);
    return 0;
}
