#include "client/chunks.h"

#include "client/fault.h"

#include <openssl/evp.h>

#define CHUNKS_MAX (UINT64_C(1) << 32)

enum { NONCE_SIZE = 12 };

struct kms_chunks {
    EVP_CIPHER_CTX *cipher;
    size_t chunk_size;
    uint64_t done; /* chunks so far: the next one's number */
    bool ended;    /* the last one is done */
    uint8_t prefix[KMS_FORMAT_PREFIX_SIZE];
    uint8_t header_hash[KMS_FORMAT_HASH_SIZE];
};

enum kms_client_status kms_chunks_new(const struct kms_format_header *header,
                                      const uint8_t header_hash[KMS_FORMAT_HASH_SIZE],
                                      const struct kms_secret *key, bool sealing,
                                      struct kms_chunks **ret_chunks, struct kms_client_error *err)
{
    struct kms_chunks *chunks = calloc(1, sizeof *chunks);
    if (chunks == NULL)
        return kms_fault_no_memory(err);
    chunks->chunk_size = header->chunk_size;
    memcpy(chunks->prefix, header->prefix, sizeof chunks->prefix);
    memcpy(chunks->header_hash, header_hash, sizeof chunks->header_hash);
    chunks->cipher = EVP_CIPHER_CTX_new();
    KMS_ASSERT(key->len == KMS_FORMAT_KEY_SIZE);
    if (chunks->cipher == NULL ||
        EVP_CipherInit_ex(chunks->cipher, EVP_aes_256_gcm(), NULL, key->data, NULL, sealing ? 1 : 0) != 1) {
        kms_chunks_free(chunks);
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "OpenSSL cannot set up AES-256-GCM");
    }
    *ret_chunks = chunks;
    return KMS_CLIENT_OK;
}

void kms_chunks_free(struct kms_chunks *chunks)
{
    if (chunks == NULL)
        return;
    EVP_CIPHER_CTX_free(chunks->cipher);
    kms_wipe(chunks, sizeof *chunks);
    free(chunks);
}

/* Both ways: checks that the chunk has its place, then feeds nonce and AAD. */
static enum kms_client_status begin(struct kms_chunks *chunks, size_t len, bool last,
                                    struct kms_client_error *err)
{
    if (chunks->ended || chunks->done >= CHUNKS_MAX)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "content is limited to 2^32 chunks of %zu bytes",
                             chunks->chunk_size);
    if (len > chunks->chunk_size || (!last && len < chunks->chunk_size) || (len == 0 && chunks->done > 0))
        return kms_fault_set(err, KMS_CLIENT_REFUSED,
                             "the encrypted content is damaged: a chunk has a wrong size");
    uint8_t nonce[NONCE_SIZE];
    memcpy(nonce, chunks->prefix, KMS_FORMAT_PREFIX_SIZE);
    kms_put_be32(nonce + KMS_FORMAT_PREFIX_SIZE, (uint32_t)chunks->done);
    nonce[NONCE_SIZE - 1] = last ? 1 : 0;
    int unused;
    if (EVP_CipherInit_ex(chunks->cipher, NULL, NULL, NULL, nonce, -1) != 1 ||
        EVP_CipherUpdate(chunks->cipher, NULL, &unused, chunks->header_hash, KMS_FORMAT_HASH_SIZE) != 1)
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "OpenSSL cannot start a chunk");
    chunks->done++;
    chunks->ended = last;
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_chunks_seal(struct kms_chunks *chunks, const uint8_t *in, size_t len, bool last,
                                       uint8_t *out, struct kms_client_error *err)
{
    const enum kms_client_status status = begin(chunks, len, last, err);
    if (status != KMS_CLIENT_OK)
        return status;
    int written = 0;
    int rest = 0;
    if ((len > 0 && EVP_EncryptUpdate(chunks->cipher, out, &written, in, (int)len) != 1) ||
        EVP_EncryptFinal_ex(chunks->cipher, out + written, &rest) != 1 ||
        EVP_CIPHER_CTX_ctrl(chunks->cipher, EVP_CTRL_AEAD_GET_TAG, KMS_FORMAT_TAG_SIZE, out + len) != 1)
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "OpenSSL cannot encrypt");
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_chunks_open(struct kms_chunks *chunks, const uint8_t *in, size_t len, bool last,
                                       uint8_t *out, struct kms_client_error *err)
{
    if (len < KMS_FORMAT_TAG_SIZE)
        return kms_fault_set(err, KMS_CLIENT_REFUSED, "the encrypted content is cut off");
    const size_t plain = len - KMS_FORMAT_TAG_SIZE;
    const enum kms_client_status status = begin(chunks, plain, last, err);
    if (status != KMS_CLIENT_OK)
        return status;
    uint8_t tag[KMS_FORMAT_TAG_SIZE];
    memcpy(tag, in + plain, sizeof tag);
    int written = 0;
    int rest = 0;
    uint8_t end[1]; /* GCM writes nothing at its end, but wants a place */
    if ((plain > 0 && EVP_DecryptUpdate(chunks->cipher, out, &written, in, (int)plain) != 1) ||
        EVP_CIPHER_CTX_ctrl(chunks->cipher, EVP_CTRL_AEAD_SET_TAG, KMS_FORMAT_TAG_SIZE, tag) != 1 ||
        EVP_DecryptFinal_ex(chunks->cipher, end, &rest) != 1) {
        kms_wipe(out, plain);
        chunks->ended = true;
        return kms_fault_set(
            err, KMS_CLIENT_REFUSED,
            "the encrypted content is damaged: chunk %llu is not authentic, or the end is missing",
            (unsigned long long)(chunks->done - 1));
    }
    return KMS_CLIENT_OK;
}

void kms_chunks_skip_to(struct kms_chunks *chunks, uint64_t done)
{
    chunks->done = done;
}
