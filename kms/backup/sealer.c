#include "backup/sealer.h"

#include "core/secret.h"

#include <openssl/evp.h>

#include <stdlib.h>

enum { NONCE_SIZE = 12, HASH_SIZE = 32 };

struct kms_backup_sealer {
    EVP_CIPHER_CTX *cipher;
    uint64_t frames;
    uint8_t header_hash[HASH_SIZE];
};

enum kms_status kms_backup_sealer_new(const uint8_t key[KMS_BACKUP_FILE_KEY_SIZE],
                                      const uint8_t header[KMS_BACKUP_HEADER_SIZE], bool sealing,
                                      struct kms_backup_sealer **ret_sealer, struct kms_error *err)
{
    struct kms_backup_sealer *sealer = calloc(1, sizeof *sealer);
    if (sealer == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a backup file");
    sealer->cipher = EVP_CIPHER_CTX_new();
    if (sealer->cipher == NULL ||
        EVP_CipherInit_ex(sealer->cipher, EVP_aes_256_gcm(), NULL, key, NULL, sealing ? 1 : 0) != 1 ||
        EVP_Digest(header, KMS_BACKUP_HEADER_SIZE, sealer->header_hash, NULL, EVP_sha256(), NULL) != 1) {
        kms_backup_sealer_free(sealer);
        return kms_fail(err, KMS_INTERNAL, "the crypto library cannot set up AES-256-GCM");
    }
    *ret_sealer = sealer;
    return KMS_OK;
}

void kms_backup_sealer_free(struct kms_backup_sealer *sealer)
{
    if (sealer == NULL)
        return;
    EVP_CIPHER_CTX_free(sealer->cipher); /* wipes the key */
    free(sealer);
}

/* Nonce and AAD of the next frame. */
static bool begin(struct kms_backup_sealer *sealer, bool last)
{
    uint8_t nonce[NONCE_SIZE] = {0};
    kms_put_be64(nonce + 4, sealer->frames++);
    const uint8_t flag = last ? 1 : 0;
    int unused;
    return EVP_CipherInit_ex(sealer->cipher, NULL, NULL, NULL, nonce, -1) == 1 &&
           EVP_CipherUpdate(sealer->cipher, NULL, &unused, sealer->header_hash, HASH_SIZE) == 1 &&
           EVP_CipherUpdate(sealer->cipher, NULL, &unused, &flag, sizeof flag) == 1;
}

enum kms_status kms_backup_sealer_seal(struct kms_backup_sealer *sealer, uint8_t *data, size_t len, bool last,
                                       uint8_t ret_tag[KMS_BACKUP_TAG_SIZE], struct kms_error *err)
{
    int written = 0;
    uint8_t end[1];
    if (!begin(sealer, last) ||
        (len > 0 && EVP_EncryptUpdate(sealer->cipher, data, &written, data, (int)len) != 1) ||
        EVP_EncryptFinal_ex(sealer->cipher, end, &written) != 1 ||
        EVP_CIPHER_CTX_ctrl(sealer->cipher, EVP_CTRL_AEAD_GET_TAG, KMS_BACKUP_TAG_SIZE, ret_tag) != 1)
        return kms_fail(err, KMS_INTERNAL, "the crypto library cannot encrypt a backup frame");
    return KMS_OK;
}

enum kms_status kms_backup_sealer_open(struct kms_backup_sealer *sealer, uint8_t *data, size_t len, bool last,
                                       const uint8_t tag[KMS_BACKUP_TAG_SIZE], struct kms_error *err)
{
    const uint64_t number = sealer->frames;
    uint8_t wanted[KMS_BACKUP_TAG_SIZE];
    memcpy(wanted, tag, sizeof wanted);
    int written = 0;
    uint8_t end[1];
    if (begin(sealer, last) &&
        (len == 0 || EVP_DecryptUpdate(sealer->cipher, data, &written, data, (int)len) == 1) &&
        EVP_CIPHER_CTX_ctrl(sealer->cipher, EVP_CTRL_AEAD_SET_TAG, KMS_BACKUP_TAG_SIZE, wanted) == 1 &&
        EVP_DecryptFinal_ex(sealer->cipher, end, &written) == 1)
        return KMS_OK;
    if (len > 0)
        kms_wipe(data, len);
    return kms_fail_public(err, KMS_TAMPERED,
                           "frame %llu is not authentic: it was changed, or is of another file",
                           (unsigned long long)number);
}

uint64_t kms_backup_sealer_frames(const struct kms_backup_sealer *sealer)
{
    return sealer->frames;
}
