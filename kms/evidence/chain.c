#include "evidence/chain.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "evidence/signature.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

static void clear_bio(BIO **bio)
{
    (void)BIO_free(*bio);
}

static void clear_certificate(X509 **certificate)
{
    X509_free(*certificate);
}

static void clear_store(X509_STORE **store)
{
    X509_STORE_free(*store);
}

static void clear_context(X509_STORE_CTX **context)
{
    X509_STORE_CTX_free(*context);
}

/* A PEM block that is encrypted must not ask for a password on the terminal. */
static int no_password(char *buffer, int size, int writing, void *context)
{
    (void)buffer, (void)size, (void)writing, (void)context;
    return -1;
}

/* The next certificate of a text; NULL at its end. */
static X509 *next_certificate(BIO *bio)
{
    return PEM_read_bio_X509(bio, NULL, no_password, NULL);
}

/* Every certificate of the text as a trusted one. */
static enum kms_status trust(X509_STORE *store, struct kms_slice authorities, struct kms_error *err)
{
    if (authorities.len == 0 || authorities.len > KMS_EVIDENCE_AUTHORITIES_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the file of certificate authorities is empty or over 1 MiB");
    KMS_CLEANUP(clear_bio) BIO *bio = BIO_new_mem_buf(authorities.data, (int)authorities.len);
    if (bio == NULL)
        return KMS_NO_MEMORY;
    size_t count = 0;
    for (;; count++) {
        KMS_CLEANUP(clear_certificate) X509 *certificate = next_certificate(bio);
        if (certificate == NULL)
            break;
        if (X509_STORE_add_cert(store, certificate) != 1)
            return KMS_NO_MEMORY;
    }
    if (count == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the file of certificate authorities has none in it");
    return KMS_OK;
}

enum kms_status kms_chain_verify(struct kms_slice certificate, struct kms_slice authorities, int64_t at_ns,
                                 struct kms_error *err)
{
    if (certificate.len == 0 || certificate.len > KMS_EVIDENCE_PEM_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the certificate is empty or over 64 KiB");
    KMS_CLEANUP(clear_bio) BIO *bio = BIO_new_mem_buf(certificate.data, (int)certificate.len);
    KMS_CLEANUP(clear_certificate) X509 *leaf = bio != NULL ? next_certificate(bio) : NULL;
    if (leaf == NULL)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the certificate is not PEM");
    KMS_CLEANUP(clear_store) X509_STORE *store = X509_STORE_new();
    KMS_CLEANUP(clear_context) X509_STORE_CTX *context = X509_STORE_CTX_new();
    if (store == NULL || context == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(trust(store, authorities, err));
    if (X509_STORE_CTX_init(context, store, leaf, NULL) != 1)
        return KMS_NO_MEMORY;
    X509_VERIFY_PARAM *wanted = X509_STORE_CTX_get0_param(context);
    (void)X509_VERIFY_PARAM_set_flags(wanted, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_X509_STRICT);
    (void)X509_VERIFY_PARAM_set_purpose(wanted, X509_PURPOSE_SSL_CLIENT);
    X509_VERIFY_PARAM_set_time(wanted, (time_t)(at_ns / KMS_NS_PER_SECOND));
    if (X509_verify_cert(context) == 1)
        return KMS_OK;
    return kms_fail_public(err, KMS_TAMPERED, "the certificate does not come from the authorities: %s",
                           X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)));
}
