#include "recovery/rsa.h"

#include "core/harden.h"

#include <malloc.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

struct kms_rsa {
    EVP_PKEY *pkey;
};

static void *wiping_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return malloc(size);
}

static void wiping_free(void *memory, const char *file, int line)
{
    (void)file, (void)line;
    if (memory != NULL)
        kms_wipe(memory, malloc_usable_size(memory));
    free(memory);
}

/* Always a new place, so that the old one can be wiped. */
static void *wiping_realloc(void *memory, size_t size, const char *file, int line)
{
    if (size == 0) {
        wiping_free(memory, file, line);
        return NULL;
    }
    void *larger = malloc(size);
    if (larger != NULL && memory != NULL) {
        const size_t had = malloc_usable_size(memory);
        memcpy(larger, memory, had < size ? had : size);
        wiping_free(memory, file, line);
    }
    return larger;
}

enum kms_status kms_rsa_harden(struct kms_error *err)
{
    KMS_TRY(kms_harden_process(err));
    if (CRYPTO_set_mem_functions(wiping_malloc, wiping_realloc, wiping_free) != 1)
        return kms_fail(err, KMS_FAILED_PRECONDITION,
                        "OpenSSL was used before its memory could be made to be wiped");
    return KMS_OK;
}

static void clear_pkey(EVP_PKEY **pkey)
{
    EVP_PKEY_free(*pkey);
}
#define PKEY KMS_CLEANUP(clear_pkey) EVP_PKEY

static void clear_context(EVP_PKEY_CTX **context)
{
    EVP_PKEY_CTX_free(*context);
}
#define CONTEXT KMS_CLEANUP(clear_context) EVP_PKEY_CTX

static void clear_bio(BIO **bio)
{
    (void)BIO_free(*bio);
}
#define MEMORY KMS_CLEANUP(clear_bio) BIO

void kms_rsa_free(struct kms_rsa *key)
{
    if (key != NULL)
        EVP_PKEY_free(key->pkey);
    free(key);
}

/* Take over an OpenSSL key of the right kind. */
static enum kms_status adopt(EVP_PKEY **pkey, const char *name, struct kms_rsa **ret_key,
                             struct kms_error *err)
{
    if (*pkey == NULL || EVP_PKEY_get_base_id(*pkey) != EVP_PKEY_RSA ||
        EVP_PKEY_get_bits(*pkey) != KMS_RSA_BITS)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s is no RSA key of %d bits", name, KMS_RSA_BITS);
    struct kms_rsa *key = calloc(1, sizeof *key);
    if (key == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for an RSA key");
    key->pkey = KMS_TAKE(*pkey);
    *ret_key = key;
    return KMS_OK;
}

enum kms_status kms_rsa_generate(struct kms_rsa **ret_key, struct kms_error *err)
{
    PKEY *pkey = EVP_RSA_gen(KMS_RSA_BITS);
    if (pkey == NULL)
        return kms_fail(err, KMS_INTERNAL, "an RSA key could not be made");
    return adopt(&pkey, "the new key", ret_key, err);
}

/* Nobody is asked for a password. */
static int no_password(char *buffer, int size, int writing, void *context)
{
    (void)buffer, (void)size, (void)writing, (void)context;
    return -1;
}

enum kms_status kms_rsa_from_pem(const char *name, struct kms_slice pem, struct kms_rsa **ret_key,
                                 struct kms_error *err)
{
    MEMORY *bio = pem.len > 0 && pem.len <= KMS_RSA_PEM_MAX ? BIO_new_mem_buf(pem.data, (int)pem.len) : NULL;
    PKEY *pkey = bio != NULL ? PEM_read_bio_PUBKEY(bio, NULL, no_password, NULL) : NULL;
    if (pkey == NULL)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s holds no PEM public key", name);
    return adopt(&pkey, name, ret_key, err);
}

enum kms_status kms_rsa_from_pkcs8(struct kms_slice der, struct kms_rsa **ret_key, struct kms_error *err)
{
    const unsigned char *data = der.data;
    PKCS8_PRIV_KEY_INFO *info = der.len > 0 && der.len <= KMS_RSA_PKCS8_MAX
                                    ? d2i_PKCS8_PRIV_KEY_INFO(NULL, &data, (long)der.len)
                                    : NULL;
    PKEY *pkey = info != NULL && data == der.data + der.len ? EVP_PKCS82PKEY(info) : NULL;
    PKCS8_PRIV_KEY_INFO_free(info);
    return adopt(&pkey, "what was sealed", ret_key, err);
}

enum kms_status kms_rsa_to_pkcs8(const struct kms_rsa *key, struct kms_secret *ret_der, struct kms_error *err)
{
    KMS_SECRET der = {0};
    if (kms_secret_new(KMS_RSA_PKCS8_MAX, &der) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for a private key");
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key->pkey);
    const int len = info != NULL ? i2d_PKCS8_PRIV_KEY_INFO(info, NULL) : -1;
    unsigned char *place = der.data;
    const bool fits = len > 0 && len <= KMS_RSA_PKCS8_MAX && i2d_PKCS8_PRIV_KEY_INFO(info, &place) == len;
    PKCS8_PRIV_KEY_INFO_free(info);
    if (!fits)
        return kms_fail(err, KMS_INTERNAL, "a private key could not be encoded");
    der.len = (size_t)len;
    *ret_der = der;
    der = (struct kms_secret){0};
    return KMS_OK;
}

enum kms_status kms_rsa_public_pem(const struct kms_rsa *key, struct kms_buf *out, struct kms_error *err)
{
    MEMORY *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (bio == NULL || PEM_write_bio_PUBKEY(bio, key->pkey) != 1)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a public key");
    const long len = BIO_get_mem_data(bio, &text);
    return kms_buf_append(out, text, (size_t)len);
}

enum kms_status kms_rsa_fingerprint(const struct kms_rsa *key, uint8_t ret[KMS_RSA_FINGERPRINT_SIZE],
                                    struct kms_error *err)
{
    unsigned char *der = NULL;
    const int len = i2d_PUBKEY(key->pkey, &der);
    const bool hashed = len > 0 && EVP_Digest(der, (size_t)len, ret, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return hashed ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory to name a key");
}

/* MGF1 takes the same hash unless told otherwise. */
static bool set_oaep(EVP_PKEY_CTX *context, bool sha256)
{
    return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_oaep_md(context, sha256 ? EVP_sha256() : EVP_sha1()) == 1;
}

enum kms_status kms_rsa_wrap(const struct kms_rsa *key, bool sha256, const struct kms_secret *plain,
                             uint8_t ret_wrapped[KMS_RSA_BYTES], struct kms_error *err)
{
    CONTEXT *context = EVP_PKEY_CTX_new(key->pkey, NULL);
    size_t len = KMS_RSA_BYTES;
    KMS_ASSERT(plain->len > 0 && plain->len <= KMS_RSA_WRAPPED_KEY_MAX);
    if (context == NULL || EVP_PKEY_encrypt_init(context) != 1 || !set_oaep(context, sha256) ||
        EVP_PKEY_encrypt(context, ret_wrapped, &len, plain->data, plain->len) != 1 || len != KMS_RSA_BYTES)
        return kms_fail(err, KMS_INTERNAL, "a key could not be wrapped");
    return KMS_OK;
}

enum kms_status kms_rsa_unwrap(const struct kms_rsa *key, bool sha256, const uint8_t wrapped[KMS_RSA_BYTES],
                               struct kms_secret *ret_plain, struct kms_error *err)
{
    CONTEXT *context = EVP_PKEY_CTX_new(key->pkey, NULL);
    KMS_SECRET plain = {0};
    size_t len = KMS_RSA_BYTES;
    if (kms_secret_new(KMS_RSA_BYTES, &plain) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for a key");
    if (context == NULL || EVP_PKEY_decrypt_init(context) != 1 || !set_oaep(context, sha256))
        return kms_fail(err, KMS_INTERNAL, "a key cannot be unwrapped");
    if (EVP_PKEY_decrypt(context, plain.data, &len, wrapped, KMS_RSA_BYTES) != 1 || len == 0 ||
        len > KMS_RSA_WRAPPED_KEY_MAX)
        return kms_fail_public(err, KMS_TAMPERED,
                               "a wrapped key does not open: it was changed, or is for another key");
    plain.len = len;
    *ret_plain = plain;
    plain = (struct kms_secret){0};
    return KMS_OK;
}
