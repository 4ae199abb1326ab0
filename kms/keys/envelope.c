#include "keys/envelope.h"

size_t kms_key_spec_length(enum kms_key_spec spec)
{
    switch (spec) {
    case KMS_KEY_SPEC_AES_256:
        return 32;
    case KMS_KEY_SPEC_AES_128:
    case KMS_KEY_SPEC_SM4:
        return 16;
    case KMS_KEY_SPEC_RAW:
        break;
    }
    return 0;
}

/* Only one ciphertext length fits a spec; RAW has a range. */
static bool length_fits(enum kms_key_spec spec, size_t key_length)
{
    if (spec == KMS_KEY_SPEC_RAW)
        return key_length >= KMS_RAW_KEY_MIN && key_length <= KMS_RAW_KEY_MAX;
    return key_length > 0 && key_length == kms_key_spec_length(spec);
}

enum kms_status kms_blob_parse(struct kms_slice bytes, struct kms_blob *ret_blob)
{
    if (bytes.len <= KMS_BLOB_OVERHEAD || bytes.len > KMS_BLOB_MAX || bytes.data[0] != KMS_BLOB_FORMAT_1)
        return KMS_BLOB_REFUSED;
    const enum kms_key_spec spec = (enum kms_key_spec)bytes.data[1];
    if (!length_fits(spec, bytes.len - KMS_BLOB_OVERHEAD))
        return KMS_BLOB_REFUSED;
    const size_t sealed_at = KMS_BLOB_HEADER_SIZE + KMS_BLOB_IV_SIZE;
    *ret_blob = (struct kms_blob){
        .spec = spec,
        .header = bytes.data,
        .kek_id = bytes.data + 2,
        .iv = bytes.data + KMS_BLOB_HEADER_SIZE,
        .ciphertext = kms_slice_of(bytes.data + sealed_at, bytes.len - sealed_at),
    };
    return KMS_OK;
}

size_t kms_blob_begin(uint8_t *out, enum kms_key_spec spec, const uint8_t kek_id[16], const uint8_t iv[12])
{
    out[0] = KMS_BLOB_FORMAT_1;
    out[1] = (uint8_t)spec;
    memcpy(out + 2, kek_id, 16);
    memcpy(out + KMS_BLOB_HEADER_SIZE, iv, KMS_BLOB_IV_SIZE);
    return KMS_BLOB_HEADER_SIZE + KMS_BLOB_IV_SIZE;
}
