/* Wrapped data keys from outside: what is accepted has exactly the parts that its length and spec allow. */
#include "keys/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kms_blob blob;
    if (kms_blob_parse(kms_slice_of(data, size), &blob) != KMS_OK)
        return 0;
    static uint8_t again[KMS_BLOB_MAX];
    const size_t at = kms_blob_begin(again, blob.spec, blob.kek_id, blob.iv);
    KMS_ASSERT(at + blob.ciphertext.len == size && size <= sizeof again);
    memcpy(again + at, blob.ciphertext.data, blob.ciphertext.len);
    KMS_ASSERT(memcmp(again, data, size) == 0);
    const size_t length = blob.ciphertext.len - KMS_BLOB_TAG_SIZE;
    const size_t fixed = kms_key_spec_length(blob.spec);
    KMS_ASSERT(fixed == 0 ? length >= KMS_RAW_KEY_MIN && length <= KMS_RAW_KEY_MAX : length == fixed);
    return 0;
}
