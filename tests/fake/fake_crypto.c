#include "fake/fake_crypto.h"

#include "core/secret.h"

#include <openssl/bio.h>
#include <openssl/pem.h>

enum { TAG_SIZE = 16, LARGEST_KW = 64 };

bool kms_fake_crypto_key_wrap(const uint8_t kek[32], bool wrapping, const uint8_t *in, int in_len,
                              uint8_t *out)
{
    uint8_t buffer[LARGEST_KW];
    int len = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    KMS_ASSERT(ctx != NULL && in_len + 8 <= LARGEST_KW);
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    KMS_ASSERT(EVP_CipherInit_ex(ctx, EVP_aes_256_wrap(), NULL, kek, NULL, wrapping) == 1);
    const bool ok = EVP_CipherUpdate(ctx, buffer, &len, in, in_len) == 1;
    if (ok)
        memcpy(out, buffer, (size_t)len);
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

void kms_fake_crypto_seal(const uint8_t key[32], const uint8_t iv[12], struct kms_slice aad,
                          struct kms_slice plaintext, uint8_t *ret_ciphertext)
{
    int len = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    KMS_ASSERT(ctx != NULL && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv) == 1);
    KMS_ASSERT(EVP_EncryptUpdate(ctx, NULL, &len, aad.data, (int)aad.len) == 1);
    KMS_ASSERT(EVP_EncryptUpdate(ctx, ret_ciphertext, &len, plaintext.data, (int)plaintext.len) == 1);
    KMS_ASSERT(EVP_EncryptFinal_ex(ctx, ret_ciphertext + len, &len) == 1);
    KMS_ASSERT(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, ret_ciphertext + plaintext.len) == 1);
    EVP_CIPHER_CTX_free(ctx);
}

bool kms_fake_crypto_open(const uint8_t key[32], const uint8_t iv[12], struct kms_slice aad,
                          struct kms_slice ciphertext, uint8_t *ret_plaintext)
{
    const size_t len = ciphertext.len - TAG_SIZE;
    uint8_t tag[TAG_SIZE];
    memcpy(tag, ciphertext.data + len, sizeof tag);
    int done = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    KMS_ASSERT(ctx != NULL && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv) == 1);
    KMS_ASSERT(EVP_DecryptUpdate(ctx, NULL, &done, aad.data, (int)aad.len) == 1);
    KMS_ASSERT(EVP_DecryptUpdate(ctx, ret_plaintext, &done, ciphertext.data, (int)len) == 1);
    KMS_ASSERT(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, sizeof tag, tag) == 1);
    const bool ok = EVP_DecryptFinal_ex(ctx, ret_plaintext + done, &done) == 1;
    if (!ok)
        kms_wipe(ret_plaintext, len);
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

bool kms_fake_crypto_sign(EVP_PKEY *key, struct kms_slice message, uint8_t *ret_signature, size_t *len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const bool ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                    EVP_DigestSign(ctx, ret_signature, len, message.data, message.len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

char *kms_fake_crypto_public_pem(EVP_PKEY *key)
{
    char *pem = NULL;
    BIO *memory = BIO_new(BIO_s_mem());
    if (memory != NULL && PEM_write_bio_PUBKEY(memory, key) == 1) {
        char *text = NULL;
        const long len = BIO_get_mem_data(memory, &text);
        pem = strndup(text, (size_t)len);
    }
    BIO_free(memory);
    return pem;
}
