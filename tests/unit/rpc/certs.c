#include "unit/rpc/certs.h"

#include "core/status.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One extension in OpenSSL's own notation. */
static void extend(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    KMS_ASSERT(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* What every certificate of the tests has. */
static X509 *blank(const char *name, long serial, long seconds, EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    KMS_ASSERT(X509_set_version(certificate, X509_VERSION_3) == 1);
    KMS_ASSERT(ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial) == 1);
    KMS_ASSERT(X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL);
    KMS_ASSERT(X509_gmtime_adj(X509_getm_notAfter(certificate), seconds) != NULL);
    KMS_ASSERT(X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                                          (const unsigned char *)name, -1, -1, 0) == 1);
    KMS_ASSERT(X509_set_pubkey(certificate, key) == 1);
    return certificate;
}

/* A file with mode 0600. */
static FILE *create(const char *path)
{
    (void)unlink(path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    KMS_ASSERT(file != NULL);
    return file;
}

struct certs_ca certs_ca_new(const char *name, const char *path)
{
    struct certs_ca ca = {.key = EVP_EC_gen("P-256"), .next_serial = 100};
    ca.certificate = blank(name, 1, 7200, ca.key);
    KMS_ASSERT(X509_set_issuer_name(ca.certificate, X509_get_subject_name(ca.certificate)) == 1);
    extend(ca.certificate, ca.certificate, NID_basic_constraints, "critical,CA:TRUE");
    extend(ca.certificate, ca.certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
    extend(ca.certificate, ca.certificate, NID_subject_key_identifier, "hash");
    KMS_ASSERT(X509_sign(ca.certificate, ca.key, EVP_sha256()) > 0);
    FILE *file = create(path);
    KMS_ASSERT(PEM_write_X509(file, ca.certificate) == 1);
    (void)fclose(file);
    return ca;
}

void certs_ca_clear(struct certs_ca *ca)
{
    X509_free(ca->certificate);
    EVP_PKEY_free(ca->key);
}

long certs_issue(struct certs_ca *ca, const char *common_name, const char *uri, _Bool server, long seconds,
                 const char *certificate_path, const char *key_path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    const long serial = ca->next_serial++;
    X509 *leaf = blank(common_name, serial, seconds, key);
    KMS_ASSERT(X509_set_issuer_name(leaf, X509_get_subject_name(ca->certificate)) == 1);
    extend(leaf, ca->certificate, NID_basic_constraints, "critical,CA:FALSE");
    extend(leaf, ca->certificate, NID_authority_key_identifier, "keyid");
    if (server)
        extend(leaf, ca->certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    if (uri != NULL) {
        char san[300];
        (void)snprintf(san, sizeof san, "URI:%s", uri);
        extend(leaf, ca->certificate, NID_subject_alt_name, san);
    }
    KMS_ASSERT(X509_sign(leaf, ca->key, EVP_sha256()) > 0);
    FILE *file = create(certificate_path);
    KMS_ASSERT(PEM_write_X509(file, leaf) == 1);
    (void)fclose(file);
    file = create(key_path);
    KMS_ASSERT(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
    (void)fclose(file);
    X509_free(leaf);
    EVP_PKEY_free(key);
    return serial;
}

void certs_write_crl(const struct certs_ca *ca, long serial, const char *path)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = ASN1_TIME_new();
    KMS_ASSERT(X509_CRL_set_version(crl, X509_CRL_VERSION_2) == 1);
    KMS_ASSERT(X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->certificate)) == 1);
    KMS_ASSERT(X509_gmtime_adj(now, -60) != NULL && X509_CRL_set1_lastUpdate(crl, now) == 1);
    KMS_ASSERT(X509_gmtime_adj(now, 3600) != NULL && X509_CRL_set1_nextUpdate(crl, now) == 1);
    if (serial != 0) {
        X509_REVOKED *revoked = X509_REVOKED_new();
        ASN1_INTEGER *number = ASN1_INTEGER_new();
        KMS_ASSERT(ASN1_INTEGER_set(number, serial) == 1 &&
                   X509_REVOKED_set_serialNumber(revoked, number) == 1);
        KMS_ASSERT(X509_gmtime_adj(now, -60) != NULL && X509_REVOKED_set_revocationDate(revoked, now) == 1);
        KMS_ASSERT(X509_CRL_add0_revoked(crl, revoked) == 1);
        ASN1_INTEGER_free(number);
    }
    KMS_ASSERT(X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0);
    FILE *file = create(path);
    KMS_ASSERT(PEM_write_X509_CRL(file, crl) == 1);
    (void)fclose(file);
    ASN1_TIME_free(now);
    X509_CRL_free(crl);
}

char *certs_read(const char *path)
{
    FILE *file = fopen(path, "re");
    KMS_ASSERT(file != NULL);
    char *text = calloc(1, 65536);
    KMS_ASSERT(text != NULL && fread(text, 1, 65535, file) > 0);
    (void)fclose(file);
    return text;
}

void certs_write(const char *path, const char *text)
{
    FILE *file = create(path);
    KMS_ASSERT(fwrite(text, 1, strlen(text), file) == strlen(text));
    (void)fclose(file);
}
