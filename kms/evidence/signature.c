#include "evidence/signature.h"

#include "core/cleanup.h"
#include "core/file.h"
#include "core/secret.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <string.h>

enum { RSA_BITS_MIN = 2048 };

static void clear_key(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

static void clear_bio(BIO **bio)
{
    (void)BIO_free(*bio);
}

static void clear_digest(EVP_MD_CTX **context)
{
    EVP_MD_CTX_free(*context);
}

/* An encrypted key must not ask for a password on the terminal. */
static int no_password(char *buffer, int size, int writing, void *context)
{
    (void)buffer, (void)size, (void)writing, (void)context;
    return -1;
}

/* Whether signatures with this key mean anything. */
static bool is_strong(const EVP_PKEY *key)
{
    const int kind = EVP_PKEY_get_base_id(key);
    if (kind == EVP_PKEY_RSA)
        return EVP_PKEY_get_bits(key) >= RSA_BITS_MIN;
    if (kind == EVP_PKEY_ED25519)
        return true;
    char group[32] = "";
    return kind == EVP_PKEY_EC && EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0 ||
            strcmp(group, "secp521r1") == 0);
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

/* Whether the text is at its end: a damaged block that follows is one. */
static bool no_block_follows(BIO *bio)
{
    KMS_CLEANUP(clear_block) struct block block = {0};
    return PEM_read_bio(bio, &block.name, &block.header, &block.data, &block.len) != 1 &&
           ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

/*
 * The only block of a PEM text. With two, whoever looks for a certificate and whoever looks for a key could each find another one, and
 * a signature would be taken for that of somebody who has not signed.
 */
static bool read_only_block(struct kms_slice pem, struct block *ret_block)
{
    KMS_CLEANUP(clear_bio) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    (void)ERR_set_mark();
    const bool only =
        bio != NULL &&
        PEM_read_bio(bio, &ret_block->name, &ret_block->header, &ret_block->data, &ret_block->len) == 1 &&
        no_block_follows(bio);
    (void)ERR_pop_to_mark();
    return only;
}

/* The public key of a PEM text, which is that key or a certificate and nothing else. */
static EVP_PKEY *read_public(struct kms_slice pem)
{
    KMS_CLEANUP(clear_block) struct block block = {0};
    if (pem.len == 0 || pem.len > KMS_EVIDENCE_PEM_MAX || !read_only_block(pem, &block))
        return NULL;
    const uint8_t *data = block.data;
    if (strcmp(block.name, PEM_STRING_PUBLIC) == 0)
        return d2i_PUBKEY(NULL, &data, block.len);
    X509 *certificate = strcmp(block.name, PEM_STRING_X509) == 0 ? d2i_X509(NULL, &data, block.len) : NULL;
    EVP_PKEY *key = certificate != NULL ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);
    return key;
}

/* Ed25519 hashes by itself. */
static const EVP_MD *digest_of(const EVP_PKEY *key)
{
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? NULL : EVP_sha256();
}

/* The key of a PEM text that is strong enough. The caller frees it. */
static enum kms_status read_strong(struct kms_slice pem, EVP_PKEY **ret_key, struct kms_error *err)
{
    KMS_CLEANUP(clear_key) EVP_PKEY *key = read_public(pem);
    if (key == NULL || !is_strong(key))
        return kms_fail_public(
            err, KMS_INVALID_ARGUMENT,
            "the key is no PEM public key or certificate of a kind that is accepted (P-256, P-384, "
            "P-521, RSA of 2048 bits or more, Ed25519)");
    *ret_key = KMS_TAKE(key);
    return KMS_OK;
}

enum kms_status kms_signature_key_id(struct kms_slice pem, char ret_id[KMS_EVIDENCE_KEY_ID_SIZE],
                                     struct kms_error *err)
{
    KMS_CLEANUP(clear_key) EVP_PKEY *key = NULL;
    KMS_TRY(read_strong(pem, &key, err));
    uint8_t *der = NULL;
    const int len = i2d_PUBKEY(key, &der);
    uint8_t digest[EVP_MAX_MD_SIZE];
    const bool hashed = len > 0 && EVP_Digest(der, (size_t)len, digest, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    if (!hashed)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to name a key");
    kms_hex_encode(digest, (KMS_EVIDENCE_KEY_ID_SIZE - 1) / 2, ret_id);
    return KMS_OK;
}

enum kms_status kms_signature_verify(struct kms_slice pem, struct kms_slice message,
                                     struct kms_slice signature, struct kms_error *err)
{
    KMS_CLEANUP(clear_key) EVP_PKEY *key = NULL;
    KMS_TRY(read_strong(pem, &key, err));
    KMS_CLEANUP(clear_digest) EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL || EVP_DigestVerifyInit(context, NULL, digest_of(key), NULL, key) != 1)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to check a signature");
    if (signature.len == 0 || signature.len > KMS_EVIDENCE_SIGNATURE_MAX ||
        EVP_DigestVerify(context, signature.data, signature.len, message.data, message.len) != 1)
        return kms_fail_public(err, KMS_TAMPERED, "the signature is not this key's over these bytes");
    return KMS_OK;
}

/* The private key of a file; what was read of it is wiped. */
static enum kms_status read_private(const char *path, EVP_PKEY **ret_key, struct kms_error *err)
{
    KMS_SECRET text = {0};
    KMS_TRY(kms_secret_read_file(path, &text, err));
    KMS_CLEANUP(clear_bio) BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    if (bio == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to read a private key");
    *ret_key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    if (*ret_key == NULL)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s: is no PEM private key, or it is encrypted",
                               path);
    return KMS_OK;
}

enum kms_status kms_signature_make(const char *private_key_path, struct kms_slice message,
                                   uint8_t *ret_signature, size_t *ret_len, struct kms_error *err)
{
    KMS_CLEANUP(clear_key) EVP_PKEY *key = NULL;
    KMS_TRY(read_private(private_key_path, &key, err));
    if (!is_strong(key))
        return kms_fail_public(
            err, KMS_INVALID_ARGUMENT,
            "%s: the key must be P-256, P-384, P-521, RSA of 2048 bits or more, or Ed25519",
            private_key_path);
    KMS_CLEANUP(clear_digest) EVP_MD_CTX *context = EVP_MD_CTX_new();
    size_t len = KMS_EVIDENCE_SIGNATURE_MAX;
    if (context == NULL || EVP_DigestSignInit(context, NULL, digest_of(key), NULL, key) != 1 ||
        EVP_DigestSign(context, ret_signature, &len, message.data, message.len) != 1)
        return kms_fail(err, KMS_INTERNAL, "the private key does not sign");
    *ret_len = len;
    return KMS_OK;
}
