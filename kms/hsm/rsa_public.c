#include "hsm/rsa_public.h"

#include "core/cleanup.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

enum { PEM_MAX = 16 * 1024 };

static void clear_key(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

static void clear_bio(BIO **bio)
{
    (void)BIO_free(*bio);
}

static void clear_bn(BIGNUM **number)
{
    BN_free(*number);
}

static void clear_builder(OSSL_PARAM_BLD **builder)
{
    OSSL_PARAM_BLD_free(*builder);
}

static void clear_params(OSSL_PARAM **params)
{
    OSSL_PARAM_free(*params);
}

static void clear_context(EVP_PKEY_CTX **context)
{
    EVP_PKEY_CTX_free(*context);
}

/* One number of a key as bytes. */
static bool take_number(const EVP_PKEY *key, const char *name, uint8_t *out, size_t room, size_t *ret_len)
{
    KMS_CLEANUP(clear_bn) BIGNUM *number = NULL;
    if (EVP_PKEY_get_bn_param(key, name, &number) != 1 || (size_t)BN_num_bytes(number) > room)
        return false;
    *ret_len = (size_t)BN_bn2bin(number, out);
    return true;
}

/* The name of a key. */
static bool take_fingerprint(const EVP_PKEY *key, char out[KMS_HSM_FINGERPRINT_SIZE])
{
    uint8_t *der = NULL;
    uint8_t digest[EVP_MAX_MD_SIZE];
    const int len = i2d_PUBKEY(key, &der);
    const bool hashed = len > 0 && EVP_Digest(der, (size_t)len, digest, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    if (hashed)
        kms_hex_encode(digest, (KMS_HSM_FINGERPRINT_SIZE - 1) / 2, out);
    return hashed;
}

/* What makes an RSA key good enough for master keys. */
static enum kms_status take_key(const EVP_PKEY *key, struct kms_rsa_public *ret_key, struct kms_error *err)
{
    struct kms_rsa_public out = {0};
    const int bits = key != NULL && EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA ? EVP_PKEY_get_bits(key) : 0;
    if (bits < KMS_RSA_BITS_MIN || bits > KMS_RSA_BITS_MAX || bits % 8 != 0 ||
        !take_number(key, OSSL_PKEY_PARAM_RSA_N, out.modulus, sizeof out.modulus, &out.modulus_len) ||
        !take_number(key, OSSL_PKEY_PARAM_RSA_E, out.exponent, sizeof out.exponent, &out.exponent_len))
        return kms_fail_public(
            err, KMS_INVALID_ARGUMENT,
            "a recovery key must be an RSA public key of %d to %d bits (PEM, one block \"PUBLIC KEY\")",
            KMS_RSA_BITS_MIN, KMS_RSA_BITS_MAX);
    /* 65537 or more and odd: a small exponent is a mistake of whoever made it */
    if (out.exponent_len < 3 || (out.exponent[out.exponent_len - 1] & 1) == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the recovery key's public exponent must be odd and 65537 or more");
    if (!take_fingerprint(key, out.fingerprint))
        return kms_fail(err, KMS_NO_MEMORY, "no memory to name a recovery key");
    *ret_key = out;
    return KMS_OK;
}

/* One block of a PEM text. */
struct block {
    char *name, *header;
    uint8_t *data;
    long len;
};

static void clear_block(struct block *block)
{
    OPENSSL_free(block->name);
    OPENSSL_free(block->header);
    OPENSSL_free(block->data);
}

/* The next block as it stands there: one that says that it is encrypted is not decrypted, for which OpenSSL would ask on the terminal. */
static bool read_block(BIO *bio, struct block *ret_block)
{
    return PEM_read_bio(bio, &ret_block->name, &ret_block->header, &ret_block->data, &ret_block->len) == 1;
}

/* The key of a text of one block: with two, whoever compares what was approved could look at the other one. */
static EVP_PKEY *read_only_key(BIO *bio)
{
    KMS_CLEANUP(clear_block) struct block block = {0};
    KMS_CLEANUP(clear_block) struct block other = {0};
    (void)ERR_set_mark();
    const bool only = read_block(bio, &block) && !read_block(bio, &other) &&
                      ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    (void)ERR_pop_to_mark();
    const uint8_t *data = block.data;
    return only && strcmp(block.name, PEM_STRING_PUBLIC) == 0 && block.header[0] == '\0'
               ? d2i_PUBKEY(NULL, &data, block.len)
               : NULL;
}

enum kms_status kms_rsa_public_from_pem(struct kms_slice pem, struct kms_rsa_public *ret_key,
                                        struct kms_error *err)
{
    KMS_CLEANUP(clear_key) EVP_PKEY *key = NULL;
    if (pem.len > 0 && pem.len <= PEM_MAX) {
        KMS_CLEANUP(clear_bio) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
        if (bio == NULL)
            return kms_fail(err, KMS_NO_MEMORY, "no memory to read a recovery key");
        key = read_only_key(bio);
    }
    return take_key(key, ret_key, err);
}

/* A key of these two numbers; NULL when OpenSSL makes none of them. */
static EVP_PKEY *key_of(struct kms_slice modulus, struct kms_slice exponent)
{
    KMS_CLEANUP(clear_bn) BIGNUM *n = BN_bin2bn(modulus.data, (int)modulus.len, NULL);
    KMS_CLEANUP(clear_bn) BIGNUM *e = BN_bin2bn(exponent.data, (int)exponent.len, NULL);
    KMS_CLEANUP(clear_builder) OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    if (n == NULL || e == NULL || builder == NULL ||
        OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) != 1 ||
        OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e) != 1)
        return NULL;
    KMS_CLEANUP(clear_params) OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
    KMS_CLEANUP(clear_context) EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *key = NULL;
    if (params == NULL || context == NULL || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        return NULL;
    return key;
}

enum kms_status kms_rsa_public_from_numbers(struct kms_slice modulus, struct kms_slice exponent,
                                            struct kms_rsa_public *ret_key, struct kms_error *err)
{
    KMS_CLEANUP(clear_key) EVP_PKEY *key = NULL;
    if (modulus.len > 0 && modulus.len <= KMS_RSA_BITS_MAX / 8 + 1 && exponent.len > 0 &&
        exponent.len <= KMS_RSA_EXPONENT_MAX)
        key = key_of(modulus, exponent);
    return take_key(key, ret_key, err);
}

enum kms_status kms_rsa_public_to_pem(const struct kms_rsa_public *key, struct kms_buf *pem,
                                      struct kms_error *err)
{
    KMS_CLEANUP(clear_key)
    EVP_PKEY *pkey =
        key_of(kms_slice_of(key->modulus, key->modulus_len), kms_slice_of(key->exponent, key->exponent_len));
    KMS_CLEANUP(clear_bio) BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (pkey == NULL || bio == NULL || PEM_write_bio_PUBKEY(bio, pkey) != 1)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a public key");
    const long len = BIO_get_mem_data(bio, &text);
    return kms_buf_append(pem, text, (size_t)len);
}
