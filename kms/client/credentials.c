#include "client/credentials.h"

#include "client/fault.h"
#include "core/file.h"
#include "core/secret.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

enum { PEM_FILE_MAX = 1 << 20 };

/* Encrypted private keys are not supported: nobody is there to ask. */
static int refuse_password(char *buffer, int size, int writing, void *context)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)context;
    return 0;
}

/* The first certificate of a PEM text; NULL when there is none. */
static X509 *first_certificate(const void *pem, size_t len)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    X509 *certificate = bio != NULL ? PEM_read_bio_X509(bio, NULL, refuse_password, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return certificate;
}

/* The private key of a PEM text; NULL when it cannot be read without a password. */
static EVP_PKEY *private_key(const struct kms_secret *pem)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, refuse_password, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

/* gRPC would report these mistakes only as a failed handshake. */
static enum kms_client_status check_pair(const struct kms_client_config *config, const struct kms_buf *ca,
                                         const struct kms_buf *chain, const struct kms_secret *key_pem,
                                         struct kms_client_error *err)
{
    enum kms_client_status status = KMS_CLIENT_OK;
    X509 *root = first_certificate(ca->data, ca->len);
    X509 *certificate = first_certificate(chain->data, chain->len);
    EVP_PKEY *key = private_key(key_pem);
    if (root == NULL)
        status = kms_fault_set(err, KMS_CLIENT_INVALID, "%s holds no PEM certificate", config->ca_path);
    else if (certificate == NULL)
        status =
            kms_fault_set(err, KMS_CLIENT_INVALID, "%s holds no PEM certificate", config->certificate_path);
    else if (key == NULL)
        status = kms_fault_set(err, KMS_CLIENT_INVALID, "%s holds no PEM private key without a password",
                               config->private_key_path);
    else if (X509_check_private_key(certificate, key) != 1)
        status =
            kms_fault_set(err, KMS_CLIENT_INVALID, "the private key %s does not belong to the certificate %s",
                          config->private_key_path, config->certificate_path);
    ERR_clear_error();
    EVP_PKEY_free(key);
    X509_free(certificate);
    X509_free(root);
    return status;
}

/* The private key's text with a NUL behind it, as gRPC wants it. */
static enum kms_status read_key(const char *path, struct kms_secret *ret_secret, struct kms_error *cause)
{
    KMS_SECRET raw = {0};
    KMS_TRY(kms_secret_read_file(path, &raw, cause));
    struct kms_secret text = {0};
    KMS_TRY(kms_secret_new(raw.len + 1, &text));
    memcpy(text.data, raw.data, raw.len);
    text.len = raw.len;
    *ret_secret = text;
    return KMS_OK;
}

enum kms_client_status kms_credentials_load(const struct kms_client_config *config,
                                            grpc_channel_credentials **ret_credentials,
                                            struct kms_client_error *err)
{
    struct kms_error cause = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf ca = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf chain = {0};
    KMS_SECRET key = {0};
    enum kms_status status = kms_file_read(config->ca_path, PEM_FILE_MAX, &ca, &cause);
    if (status == KMS_OK)
        status = kms_file_read(config->certificate_path, PEM_FILE_MAX, &chain, &cause);
    if (status == KMS_OK)
        status = read_key(config->private_key_path, &key, &cause);
    if (status != KMS_OK)
        return kms_fault_from_core(err, status, &cause);
    const enum kms_client_status checked = check_pair(config, &ca, &chain, &key, err);
    if (checked != KMS_CLIENT_OK)
        return checked;
    grpc_ssl_pem_key_cert_pair pair = {(const char *)key.data, (const char *)chain.data};
    *ret_credentials = grpc_ssl_credentials_create_ex((const char *)ca.data, &pair, NULL, NULL);
    return *ret_credentials != NULL ? KMS_CLIENT_OK : kms_fault_no_memory(err);
}
