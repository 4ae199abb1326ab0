#include "unit/audit/signer.h"

#include "audit/checkpoint.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <time.h>

void signer_init(struct signer *ret_signer)
{
    *ret_signer = (struct signer){.key = EVP_EC_gen("P-256")};
    KMS_ASSERT(ret_signer->key != NULL);
    BIO *bio = BIO_new(BIO_s_mem());
    KMS_ASSERT(PEM_write_bio_PUBKEY(bio, ret_signer->key) == 1);
    KMS_ASSERT(BIO_read(bio, ret_signer->pem, sizeof ret_signer->pem - 1) > 0);
    (void)BIO_free(bio);
    KMS_ASSERT(kms_signature_key_id(kms_slice_str(ret_signer->pem), ret_signer->id, NULL) == KMS_OK);
}

void signer_clear(struct signer *signer)
{
    EVP_PKEY_free(signer->key);
}

enum kms_status signer_sign(void *context, struct kms_slice message, uint8_t *ret_signature, size_t *ret_len,
                            struct kms_error *err)
{
    struct signer *signer = context;
    const struct timespec moment = {.tv_nsec = 1000000};
    atomic_fetch_add(&signer->calls, 1);
    while (atomic_load(&signer->hangs))
        (void)nanosleep(&moment, NULL);
    if (atomic_load(&signer->fails))
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "the test's HSM does not sign");
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    size_t len = KMS_AUDIT_SIGNATURE_MAX;
    KMS_ASSERT(EVP_DigestSignInit(digest, NULL, EVP_sha256(), NULL, signer->key) == 1);
    KMS_ASSERT(EVP_DigestSign(digest, ret_signature, &len, message.data, message.len) == 1);
    EVP_MD_CTX_free(digest);
    *ret_len = len;
    return KMS_OK;
}
