#include "recovery/sealed.h"

#include "core/ids.h"

#include <openssl/evp.h>

static const char magic[] = "KMSSEAL1";

enum {
    MAGIC_SIZE = sizeof magic - 1,
    NONCE_SIZE = 12,
    TAG_SIZE = 16,
    AT_KEY = MAGIC_SIZE,
    AT_COUNT = AT_KEY + KMS_SHARE_KEY_SIZE,
    AT_THRESHOLD,
    AT_NONCE,
    AT_LENGTH = AT_NONCE + NONCE_SIZE,
    HEAD_SIZE = AT_LENGTH + 2
};

static void clear_cipher(EVP_CIPHER_CTX **context)
{
    EVP_CIPHER_CTX_free(*context);
}
#define CIPHER KMS_CLEANUP(clear_cipher) EVP_CIPHER_CTX

enum kms_status kms_sealed_make(const struct kms_sealed_head *head, const struct kms_secret *secret,
                                const struct kms_secret *private_key, struct kms_buf *out,
                                struct kms_error *err)
{
    const size_t size = HEAD_SIZE + private_key->len + TAG_SIZE;
    KMS_ASSERT(secret->len == KMS_SHARE_SIZE && private_key->len > 0 && size <= KMS_SEALED_MAX);
    CIPHER *context = EVP_CIPHER_CTX_new();
    if (context == NULL || kms_buf_reserve(out, size) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to seal a private key");
    uint8_t *place = out->data + out->len;
    memcpy(place, magic, MAGIC_SIZE);
    memcpy(place + AT_KEY, head->key, KMS_SHARE_KEY_SIZE);
    place[AT_COUNT] = (uint8_t)head->count;
    place[AT_THRESHOLD] = (uint8_t)head->threshold;
    kms_system_random(place + AT_NONCE, NONCE_SIZE);
    kms_put_be16(place + AT_LENGTH, (uint16_t)private_key->len);
    int len = 0;
    if (EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, secret->data, place + AT_NONCE) != 1 ||
        EVP_EncryptUpdate(context, NULL, &len, place, HEAD_SIZE) != 1 ||
        EVP_EncryptUpdate(context, place + HEAD_SIZE, &len, private_key->data, (int)private_key->len) != 1 ||
        EVP_EncryptFinal_ex(context, place + HEAD_SIZE + len, &len) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, place + size - TAG_SIZE) != 1)
        return kms_fail(err, KMS_INTERNAL, "a private key could not be sealed");
    out->len += size;
    return KMS_OK;
}

enum kms_status kms_sealed_read_head(const char *name, struct kms_slice file,
                                     struct kms_sealed_head *ret_head, struct kms_error *err)
{
    if (file.len < HEAD_SIZE + TAG_SIZE || memcmp(file.data, magic, MAGIC_SIZE) != 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "%s is no sealed recovery key, or one of a later version", name);
    const size_t length = kms_get_be16(file.data + AT_LENGTH);
    if (length == 0 || file.len != HEAD_SIZE + length + TAG_SIZE || file.len > KMS_SEALED_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s is not whole: it has %zu bytes and not %zu",
                               name, file.len, HEAD_SIZE + length + TAG_SIZE);
    struct kms_sealed_head head = {.count = file.data[AT_COUNT], .threshold = file.data[AT_THRESHOLD]};
    memcpy(head.key, file.data + AT_KEY, sizeof head.key);
    *ret_head = head;
    return KMS_OK;
}

enum kms_status kms_sealed_open(const char *name, struct kms_slice file, const struct kms_secret *secret,
                                struct kms_secret *ret_private_key, struct kms_error *err)
{
    struct kms_sealed_head head;
    KMS_SECRET plain = {0};
    uint8_t tag[TAG_SIZE];
    int len = 0;
    KMS_ASSERT(secret->len == KMS_SHARE_SIZE);
    KMS_TRY(kms_sealed_read_head(name, file, &head, err));
    const size_t length = file.len - HEAD_SIZE - TAG_SIZE;
    CIPHER *context = EVP_CIPHER_CTX_new();
    if (context == NULL || kms_secret_new(length, &plain) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for a private key");
    memcpy(tag, file.data + file.len - TAG_SIZE, TAG_SIZE);
    if (EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, secret->data, file.data + AT_NONCE) != 1 ||
        EVP_DecryptUpdate(context, NULL, &len, file.data, HEAD_SIZE) != 1 ||
        EVP_DecryptUpdate(context, plain.data, &len, file.data + HEAD_SIZE, (int)length) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag) != 1 ||
        EVP_DecryptFinal_ex(context, plain.data + length, &len) != 1)
        return kms_fail_public(
            err, KMS_TAMPERED,
            "%s does not open with these shares: it was changed, or a share is not what its "
            "ceremony made; try others",
            name);
    plain.len = length;
    *ret_private_key = plain;
    plain = (struct kms_secret){0};
    return KMS_OK;
}
