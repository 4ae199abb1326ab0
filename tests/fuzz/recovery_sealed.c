/* The sealed private key: the first input bytes are a file; whatever they are, only what was sealed opens, under its own secret. */
#include "recovery/sealed.h"

#include "recovery/rsa.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kms_sealed_head head = {0};
    struct kms_error err = {0};
    struct kms_rsa *key = NULL;
    KMS_SECRET secret = {0};
    KMS_SECRET plain = {0};
    KMS_ASSERT(kms_secret_new(KMS_SHARE_SIZE, &secret) == KMS_OK);
    secret.len = KMS_SHARE_SIZE; /* zeros: the corpus has a file that was sealed so */
    if (kms_sealed_read_head("input", kms_slice_of(data, size), &head, &err) != KMS_OK)
        KMS_ASSERT(err.public_text[0] != '\0');
    if (kms_sealed_open("input", kms_slice_of(data, size), &secret, &plain, &err) == KMS_OK &&
        kms_rsa_from_pkcs8(kms_secret_slice(&plain), &key, &err) == KMS_OK)
        kms_rsa_free(key);
    return 0;
}
