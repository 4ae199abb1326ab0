#define _GNU_SOURCE
#include "unit/auth/pki.h"

#include "core/status.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/pem.h>

enum { HOUR = 3600 };

/* The content of a memory BIO as a string; frees the BIO. */
static char *take_text(BIO *bio)
{
    char *data = NULL;
    const long len = BIO_get_mem_data(bio, &data);
    char *text = strndup(data, (size_t)len);
    BIO_free(bio);
    KMS_ASSERT(text != NULL);
    return text;
}

static char *certificate_pem(X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    KMS_ASSERT(PEM_write_bio_X509(bio, certificate) == 1);
    return take_text(bio);
}

static void set_serial(ASN1_INTEGER *to, const char *decimal)
{
    BIGNUM *number = NULL;
    KMS_ASSERT(BN_dec2bn(&number, decimal) > 0);
    KMS_ASSERT(BN_to_ASN1_INTEGER(number, to) != NULL);
    BN_free(number);
}

/* An entry of a name whose bytes may be anything. */
static void add_cn(X509_NAME *name, const char *cn, size_t len)
{
    KMS_ASSERT(X509_NAME_add_entry_by_txt(name, "CN", V_ASN1_UTF8STRING, (const unsigned char *)cn,
                                          (int)(len > 0 ? len : strlen(cn)), -1, 0) == 1);
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    KMS_ASSERT(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* A CA of that issuer, NULL: of itself. */
static struct pki_ca make_ca(const struct pki_ca *issuer, const char *name, const char *serial,
                             bool may_sign_crls, bool identified)
{
    struct pki_ca ca = {.certificate = X509_new(), .key = EVP_EC_gen("P-256")};
    KMS_ASSERT(ca.certificate != NULL && ca.key != NULL);
    const struct pki_ca *by = issuer != NULL ? issuer : &ca;
    (void)X509_set_version(ca.certificate, X509_VERSION_3);
    set_serial(X509_get_serialNumber(ca.certificate), serial);
    add_cn(X509_get_subject_name(ca.certificate), name, 0);
    (void)X509_set_issuer_name(ca.certificate, X509_get_subject_name(by->certificate));
    (void)X509_gmtime_adj(X509_getm_notBefore(ca.certificate), -HOUR);
    (void)X509_gmtime_adj(X509_getm_notAfter(ca.certificate), HOUR);
    (void)X509_set_pubkey(ca.certificate, ca.key);
    add_extension(ca.certificate, by->certificate, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(ca.certificate, by->certificate, NID_key_usage,
                  may_sign_crls ? "critical,keyCertSign,cRLSign" : "critical,keyCertSign");
    if (identified)
        add_extension(ca.certificate, by->certificate, NID_subject_key_identifier, "hash");
    if (identified && X509_get0_subject_key_id(by->certificate) != NULL)
        add_extension(ca.certificate, by->certificate, NID_authority_key_identifier, "keyid");
    KMS_ASSERT(X509_sign(ca.certificate, by->key, EVP_sha256()) > 0);
    ca.pem = certificate_pem(ca.certificate);
    return ca;
}

struct pki_ca pki_ca_new(const char *name, bool may_sign_crls)
{
    return make_ca(NULL, name, "4711", may_sign_crls, false);
}

struct pki_ca pki_ca_below(const struct pki_ca *parent, const char *name, const char *serial, bool identified)
{
    return make_ca(parent, name, serial, true, identified);
}

void pki_ca_clear(struct pki_ca *ca)
{
    X509_free(ca->certificate);
    EVP_PKEY_free(ca->key);
    free(ca->pem);
}

static void add_sans(X509 *certificate, const struct pki_leaf *leaf)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    for (size_t i = 0; i < sizeof leaf->sans / sizeof leaf->sans[0] && leaf->sans[i].text != NULL; i++) {
        const struct pki_san *san = &leaf->sans[i];
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();
        KMS_ASSERT(ASN1_STRING_set(text, san->text, (int)(san->len > 0 ? san->len : strlen(san->text))) == 1);
        GENERAL_NAME *name = GENERAL_NAME_new();
        GENERAL_NAME_set0_value(name, san->type, text);
        KMS_ASSERT(sk_GENERAL_NAME_push(names, name) > 0);
    }
    if (sk_GENERAL_NAME_num(names) > 0)
        KMS_ASSERT(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1);
    GENERAL_NAMES_free(names);
}

/* An extension whose content is no SEQUENCE. */
static void add_broken_san(X509 *certificate)
{
    ASN1_OCTET_STRING *garbage = ASN1_OCTET_STRING_new();
    KMS_ASSERT(ASN1_OCTET_STRING_set(garbage, (const unsigned char *)"garbage", 7) == 1);
    X509_EXTENSION *extension = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, garbage);
    KMS_ASSERT(X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
    ASN1_OCTET_STRING_free(garbage);
}

char *pki_leaf_pem(const struct pki_ca *issuer, const struct pki_leaf *leaf)
{
    X509 *certificate = X509_new();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    KMS_ASSERT(certificate != NULL && key != NULL);
    (void)X509_set_version(certificate, X509_VERSION_3);
    set_serial(X509_get_serialNumber(certificate), leaf->serial != NULL ? leaf->serial : "1");
    if (leaf->cn != NULL)
        add_cn(X509_get_subject_name(certificate), leaf->cn, leaf->cn_len);
    if (leaf->second_cn != NULL)
        add_cn(X509_get_subject_name(certificate), leaf->second_cn, 0);
    (void)X509_set_issuer_name(certificate, X509_get_subject_name(issuer->certificate));
    (void)X509_gmtime_adj(X509_getm_notBefore(certificate), leaf->not_before != 0 ? leaf->not_before : -HOUR);
    (void)X509_gmtime_adj(X509_getm_notAfter(certificate), leaf->not_after != 0 ? leaf->not_after : HOUR);
    if (leaf->far_end)
        KMS_ASSERT(ASN1_TIME_set_string(X509_getm_notAfter(certificate), "99991231235959Z") == 1);
    (void)X509_set_pubkey(certificate, key);
    add_sans(certificate, leaf);
    if (leaf->broken_san)
        add_broken_san(certificate);
    if (leaf->is_ca)
        add_extension(certificate, issuer->certificate, NID_basic_constraints, "critical,CA:TRUE");
    if (leaf->identified)
        add_extension(certificate, issuer->certificate, NID_authority_key_identifier, "keyid");
    KMS_ASSERT(X509_sign(certificate, issuer->key, EVP_sha256()) > 0);
    char *pem = certificate_pem(certificate);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return pem;
}

/* One revoked serial number. */
static void add_revoked(X509_CRL *list, const char *serial, bool critical)
{
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_INTEGER *number = ASN1_INTEGER_new();
    ASN1_TIME *now = ASN1_TIME_set(NULL, time(NULL));
    set_serial(number, serial);
    KMS_ASSERT(X509_REVOKED_set_serialNumber(entry, number) == 1);
    KMS_ASSERT(X509_REVOKED_set_revocationDate(entry, now) == 1);
    if (critical) {
        ASN1_ENUMERATED *reason = ASN1_ENUMERATED_new();
        KMS_ASSERT(ASN1_ENUMERATED_set(reason, CRL_REASON_KEY_COMPROMISE) == 1);
        KMS_ASSERT(X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason, reason, 1, X509V3_ADD_DEFAULT) == 1);
        ASN1_ENUMERATED_free(reason);
    }
    KMS_ASSERT(X509_CRL_add0_revoked(list, entry) == 1);
    ASN1_INTEGER_free(number);
    ASN1_TIME_free(now);
}

char *pki_crl_pem(const struct pki_ca *issuer, const struct pki_ca *signer, const struct pki_crl *crl)
{
    X509_CRL *list = X509_CRL_new();
    ASN1_TIME *time_value = ASN1_TIME_new();
    KMS_ASSERT(list != NULL && time_value != NULL);
    (void)X509_CRL_set_version(list, X509_CRL_VERSION_2);
    (void)X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer->certificate));
    (void)X509_gmtime_adj(time_value, crl->this_update != 0 ? crl->this_update : -HOUR);
    (void)X509_CRL_set1_lastUpdate(list, time_value);
    (void)X509_gmtime_adj(time_value, crl->next_update != 0 ? crl->next_update : HOUR);
    if (!crl->no_next_update)
        (void)X509_CRL_set1_nextUpdate(list, time_value);
    ASN1_TIME_free(time_value);
    for (size_t i = 0; i < sizeof crl->serials / sizeof crl->serials[0] && crl->serials[i] != NULL; i++)
        add_revoked(list, crl->serials[i], crl->entry_critical);
    if (crl->delta) {
        ASN1_INTEGER *base = ASN1_INTEGER_new();
        KMS_ASSERT(ASN1_INTEGER_set(base, 1) == 1);
        KMS_ASSERT(X509_CRL_add1_ext_i2d(list, NID_delta_crl, base, 1, X509V3_ADD_DEFAULT) == 1);
        ASN1_INTEGER_free(base);
    }
    (void)X509_CRL_sort(list);
    KMS_ASSERT(X509_CRL_sign(list, signer->key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    KMS_ASSERT(PEM_write_bio_X509_CRL(bio, list) == 1);
    X509_CRL_free(list);
    return take_text(bio);
}

char *pki_directory_new(void)
{
    char *directory = strdup("/tmp/kms-test-auth-XXXXXX");
    KMS_ASSERT(directory != NULL && mkdtemp(directory) != NULL);
    return directory;
}

void pki_directory_free(char *directory)
{
    DIR *handle = opendir(directory);
    KMS_ASSERT(handle != NULL);
    for (struct dirent *entry; (entry = readdir(handle)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)unlinkat(dirfd(handle), entry->d_name, 0);
    }
    (void)closedir(handle);
    KMS_ASSERT(rmdir(directory) == 0);
    free(directory);
}

char *pki_write(const char *directory, const char *name, const char *text)
{
    char *path = NULL;
    char *fresh = NULL;
    KMS_ASSERT(asprintf(&path, "%s/%s", directory, name) > 0 && asprintf(&fresh, "%s.new", path) > 0);
    const int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    KMS_ASSERT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
    KMS_ASSERT(rename(fresh, path) == 0);
    free(fresh);
    return path;
}
