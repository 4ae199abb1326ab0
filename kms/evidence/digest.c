#include "evidence/digest.h"

#include <openssl/evp.h>

enum kms_status kms_sha256(struct kms_slice bytes, uint8_t ret_digest[KMS_SHA256_SIZE], struct kms_error *err)
{
    unsigned len = 0;
    if (EVP_Digest(bytes.data, bytes.len, ret_digest, &len, EVP_sha256(), NULL) != 1 ||
        len != KMS_SHA256_SIZE)
        return kms_fail(err, KMS_NO_MEMORY, "SHA-256 could not be computed");
    return KMS_OK;
}
