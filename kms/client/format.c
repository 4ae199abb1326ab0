#include "client/format.h"

#include "client/fault.h"
#include "core/ids.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

enum { VERSION = 1 };

static const uint8_t magic[6] = {'K', 'M', 'S', 'E', 'N', 'C'};
static const char info_text[] = "kms envelope 1";

enum kms_client_status kms_format_new(struct kms_slice wrapped, struct kms_format_header *ret_header,
                                      struct kms_client_error *err)
{
    if (wrapped.len == 0 || wrapped.len > KMS_DATAKEY_WRAPPED_MAX)
        return kms_fault_set(err, KMS_CLIENT_INVALID,
                             "the wrapped data key has %zu bytes; 1 to %d are possible", wrapped.len,
                             KMS_DATAKEY_WRAPPED_MAX);
    *ret_header = (struct kms_format_header){.chunk_size = KMS_FORMAT_CHUNK_SIZE, .wrapped = wrapped};
    kms_system_random(ret_header->salt, sizeof ret_header->salt);
    kms_system_random(ret_header->prefix, sizeof ret_header->prefix);
    return KMS_CLIENT_OK;
}

size_t kms_format_write(const struct kms_format_header *header, uint8_t out[KMS_FORMAT_HEADER_MAX])
{
    memcpy(out, magic, sizeof magic);
    out[6] = VERSION;
    out[7] = KMS_DATAKEY_AES_256;
    kms_put_be32(out + 8, header->chunk_size);
    memcpy(out + 12, header->salt, KMS_FORMAT_SALT_SIZE);
    memcpy(out + 44, header->prefix, KMS_FORMAT_PREFIX_SIZE);
    kms_put_be16(out + 51, (uint16_t)header->wrapped.len);
    memcpy(out + KMS_FORMAT_FIXED_SIZE, header->wrapped.data, header->wrapped.len);
    return KMS_FORMAT_FIXED_SIZE + header->wrapped.len;
}

enum kms_client_status kms_format_read_fixed(const uint8_t fixed[KMS_FORMAT_FIXED_SIZE],
                                             struct kms_format_header *ret_header, size_t *ret_wrapped_len,
                                             struct kms_client_error *err)
{
    if (memcmp(fixed, magic, sizeof magic) != 0)
        return kms_fault_set(err, KMS_CLIENT_REFUSED,
                             "this is not content that was encrypted with libkms or kmsctl");
    if (fixed[6] != VERSION || fixed[7] != KMS_DATAKEY_AES_256)
        return kms_fault_set(err, KMS_CLIENT_UNIMPLEMENTED,
                             "encrypted content of format version %u with key spec %u needs a newer library",
                             fixed[6], fixed[7]);
    const uint32_t chunk_size = kms_get_be32(fixed + 8);
    if (chunk_size < KMS_FORMAT_CHUNK_MIN || chunk_size > KMS_FORMAT_CHUNK_MAX ||
        (chunk_size & (chunk_size - 1)) != 0)
        return kms_fault_set(err, KMS_CLIENT_REFUSED, "the header of the encrypted content is damaged");
    const size_t wrapped_len = kms_get_be16(fixed + 51);
    if (wrapped_len == 0 || wrapped_len > KMS_DATAKEY_WRAPPED_MAX)
        return kms_fault_set(err, KMS_CLIENT_REFUSED, "the header of the encrypted content is damaged");
    *ret_header = (struct kms_format_header){.chunk_size = chunk_size};
    memcpy(ret_header->salt, fixed + 12, KMS_FORMAT_SALT_SIZE);
    memcpy(ret_header->prefix, fixed + 44, KMS_FORMAT_PREFIX_SIZE);
    *ret_wrapped_len = wrapped_len;
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_format_parse(struct kms_slice bytes, struct kms_format_header *ret_header,
                                        size_t *ret_size, struct kms_client_error *err)
{
    struct kms_reader reader = kms_reader_of(bytes);
    const uint8_t *fixed = kms_reader_take(&reader, KMS_FORMAT_FIXED_SIZE);
    if (fixed == NULL)
        return kms_fault_set(err, KMS_CLIENT_REFUSED, "the encrypted content ends within its header");
    struct kms_format_header header;
    size_t wrapped_len = 0;
    const enum kms_client_status status = kms_format_read_fixed(fixed, &header, &wrapped_len, err);
    if (status != KMS_CLIENT_OK)
        return status;
    header.wrapped = kms_slice_of(kms_reader_take(&reader, wrapped_len), wrapped_len);
    if (reader.failed)
        return kms_fault_set(err, KMS_CLIENT_REFUSED, "the encrypted content ends within its header");
    *ret_header = header;
    *ret_size = KMS_FORMAT_FIXED_SIZE + wrapped_len;
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_format_hash(struct kms_slice header_bytes, uint8_t ret_hash[KMS_FORMAT_HASH_SIZE],
                                       struct kms_client_error *err)
{
    if (EVP_Digest(header_bytes.data, header_bytes.len, ret_hash, NULL, EVP_sha256(), NULL) != 1)
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "OpenSSL cannot compute SHA-256");
    return KMS_CLIENT_OK;
}

/* HKDF of OpenSSL; false when it fails. */
static bool derive(const struct kms_format_header *header, struct kms_slice data_key, uint8_t *out)
{
    uint8_t salt[KMS_FORMAT_SALT_SIZE];
    char info[sizeof info_text];
    char digest[] = "SHA256";
    uint8_t key[KMS_FORMAT_KEY_SIZE]; /* OpenSSL's parameters want pointers to non-const */
    memcpy(salt, header->salt, sizeof salt);
    memcpy(info, info_text, sizeof info);
    memcpy(key, data_key.data, sizeof key);
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key, sizeof key),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof salt),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info - 1),
        OSSL_PARAM_construct_end()};
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    const bool done = context != NULL && EVP_KDF_derive(context, out, KMS_FORMAT_KEY_SIZE, params) == 1;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    kms_wipe(key, sizeof key);
    return done;
}

enum kms_client_status kms_format_content_key(const struct kms_format_header *header,
                                              struct kms_slice data_key, struct kms_secret *ret_key,
                                              struct kms_client_error *err)
{
    if (data_key.len != KMS_FORMAT_KEY_SIZE)
        return kms_fault_set(err, KMS_CLIENT_REFUSED, "the data key of this content is not an AES-256 key");
    struct kms_secret key;
    if (kms_secret_new(KMS_FORMAT_KEY_SIZE, &key) != KMS_OK)
        return kms_fault_no_memory(err);
    key.len = KMS_FORMAT_KEY_SIZE;
    if (!derive(header, data_key, key.data)) {
        kms_secret_clear(&key);
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "OpenSSL cannot compute HKDF");
    }
    *ret_key = key;
    return KMS_CLIENT_OK;
}
