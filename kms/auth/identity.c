#include "auth/identity.h"

#include "core/cleanup.h"

#include <limits.h>
#include <time.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define SPIFFE_SCHEME "spiffe://"

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define UPPER  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* Cleanup functions for OpenSSL's types. */
static void free_bio(BIO **bio)
{
    (void)BIO_free(*bio);
}

static void free_x509(X509 **certificate)
{
    X509_free(*certificate);
}

static void free_names(GENERAL_NAMES **names)
{
    GENERAL_NAMES_free(*names);
}

/* All refusals of this file look alike, and leave no error behind for the next user of OpenSSL. */
static enum kms_status refuse(struct kms_error *err, const char *cause)
{
    ERR_clear_error();
    return kms_fail(err, KMS_UNAUTHENTICATED, "%s", cause);
}

/* Length of the run of allowed characters; an embedded NUL ends it. */
static size_t run_of(const char *text, size_t len, const char *allowed)
{
    size_t run = 0;
    while (run < len && text[run] != '\0' && strchr(allowed, text[run]) != NULL)
        run++;
    return run;
}

/* SPIFFE ID specification 2.2: no empty segment, no "." and no "..". */
static bool is_segment(const char *text, size_t len)
{
    if (len == 0 || run_of(text, len, LOWER UPPER DIGITS ".-_") != len)
        return false;
    return !(len == 1 && text[0] == '.') && !(len == 2 && text[0] == '.' && text[1] == '.');
}

bool kms_identity_is_spiffe(const char *text, size_t len)
{
    const size_t scheme = sizeof SPIFFE_SCHEME - 1;
    if (len > KMS_IDENTITY_MAX || len <= scheme || memcmp(text, SPIFFE_SCHEME, scheme) != 0)
        return false;
    const size_t domain = run_of(text + scheme, len - scheme, LOWER DIGITS ".-_");
    if (domain == 0 || scheme + domain == len)
        return false;
    const char *next = text + scheme + domain;
    const char *end = text + len;
    while (next < end) {
        if (*next++ != '/')
            return false;
        const char *slash = memchr(next, '/', (size_t)(end - next));
        const char *segment_end = slash != NULL ? slash : end;
        if (!is_segment(next, (size_t)(segment_end - next)))
            return false;
        next = segment_end;
    }
    return true;
}

bool kms_identity_is_dns(const char *text, size_t len)
{
    if (len > KMS_IDENTITY_MAX || len <= 4 || memcmp(text, "dns:", 4) != 0)
        return false;
    const char *next = text + 4;
    const char *end = text + len;
    for (;;) {
        const size_t label = run_of(next, (size_t)(end - next), LOWER DIGITS "-_");
        if (label == 0 || label > 63 || next[0] == '-' || next[label - 1] == '-')
            return false;
        next += label;
        if (next == end)
            return true;
        if (*next++ != '.')
            return false;
    }
}

bool kms_identity_is_cn(const char *text, size_t len)
{
    return len <= KMS_IDENTITY_MAX && len > 3 && memcmp(text, "cn:", 3) == 0 && kms_utf8_printable(text, len);
}

/* Put prefix and name together when they fit; embedded NULs are kept for the checks that follow. */
static bool set_name(struct kms_identity *identity, const char *prefix, const unsigned char *name, size_t len,
                     size_t *ret_len)
{
    const size_t prefix_len = strlen(prefix);
    if (len > KMS_IDENTITY_MAX - prefix_len)
        return false;
    memcpy(identity->name, prefix, prefix_len);
    if (len > 0)
        memcpy(identity->name + prefix_len, name, len);
    identity->name[prefix_len + len] = '\0';
    *ret_len = prefix_len + len;
    return true;
}

/* SPIFFE X.509-SVID: the URI is the identity, and only as a SPIFFE ID. */
static enum kms_status name_from_uri(const ASN1_STRING *uri, struct kms_identity *identity,
                                     struct kms_error *err)
{
    size_t len = 0;
    if (!set_name(identity, "", ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri), &len))
        return refuse(err, "the URI in the certificate is too long");
    if (!kms_identity_is_spiffe(identity->name, len))
        return refuse(err, "the URI in the certificate is not a SPIFFE ID with a path");
    return KMS_OK;
}

/* DNS names are compared without case, so they are kept in lower case. */
static enum kms_status name_from_dns(const ASN1_STRING *dns, struct kms_identity *identity,
                                     struct kms_error *err)
{
    size_t len = 0;
    if (!set_name(identity, "dns:", ASN1_STRING_get0_data(dns), (size_t)ASN1_STRING_length(dns), &len))
        return refuse(err, "the DNS name in the certificate is too long");
    for (size_t i = 0; i < len; i++) {
        if (identity->name[i] >= 'A' && identity->name[i] <= 'Z')
            identity->name[i] = (char)(identity->name[i] - 'A' + 'a');
    }
    if (!kms_identity_is_dns(identity->name, len))
        return refuse(err, "the DNS name in the certificate is not a plain host name");
    return KMS_OK;
}

/* Two common names would leave open which one counts. */
static enum kms_status name_from_cn(const X509 *certificate, struct kms_identity *identity,
                                    struct kms_error *err)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    const int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (index < 0)
        return refuse(err, "the certificate has neither a URI or DNS name nor a common name");
    if (X509_NAME_get_index_by_NID(subject, NID_commonName, index) >= 0)
        return refuse(err, "the certificate has more than one common name");
    unsigned char *text = NULL;
    const int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
    size_t name_len = 0;
    const bool fits = len >= 0 && set_name(identity, "cn:", text, (size_t)len, &name_len);
    OPENSSL_free(text);
    if (!fits)
        return refuse(err, "the common name in the certificate is damaged or too long");
    if (!kms_identity_is_cn(identity->name, name_len))
        return refuse(err, "the common name in the certificate is empty or not printable");
    return KMS_OK;
}

/* The rule of precedence: URI, DNS, common name. An unusable name of one kind never falls back to the next. */
static enum kms_status take_name(const X509 *certificate, struct kms_identity *identity,
                                 struct kms_error *err)
{
    int critical = 0;
    KMS_CLEANUP(free_names)
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, NULL);
    if (names == NULL && critical != -1)
        return refuse(err, "the subject alternative name of the certificate is damaged");
    const ASN1_STRING *uri = NULL;
    const ASN1_STRING *dns = NULL;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_URI && uri != NULL)
            return refuse(err, "the certificate has more than one URI");
        if (name->type == GEN_URI)
            uri = name->d.uniformResourceIdentifier;
        else if (name->type == GEN_DNS && dns == NULL)
            dns = name->d.dNSName;
    }
    if (uri != NULL)
        return name_from_uri(uri, identity, err);
    if (dns != NULL)
        return name_from_dns(dns, identity, err);
    return name_from_cn(certificate, identity, err);
}

bool kms_identity_issuer_key(const X509_NAME *issuer, uint8_t ret_key[KMS_IDENTITY_KEY_SIZE])
{
    unsigned char *der = NULL;
    const int len = i2d_X509_NAME(issuer, &der);
    const bool done = len >= 0 && EVP_Digest(der, (size_t)len, ret_key, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return done;
}

bool kms_identity_serial_key(const uint8_t issuer[KMS_IDENTITY_KEY_SIZE], const ASN1_INTEGER *serial,
                             uint8_t ret_key[KMS_IDENTITY_KEY_SIZE])
{
    uint8_t both[KMS_IDENTITY_KEY_SIZE + KMS_IDENTITY_SERIAL_MAX];
    const int len = ASN1_STRING_length(serial);
    if (len < 0 || len > KMS_IDENTITY_SERIAL_MAX)
        return false;
    memcpy(both, issuer, KMS_IDENTITY_KEY_SIZE);
    memcpy(both + KMS_IDENTITY_KEY_SIZE, ASN1_STRING_get0_data(serial), (size_t)len);
    return EVP_Digest(both, KMS_IDENTITY_KEY_SIZE + (size_t)len, ret_key, NULL, EVP_sha256(), NULL) == 1;
}

bool kms_identity_key_id(const ASN1_OCTET_STRING *id, uint8_t ret_key[KMS_IDENTITY_KEY_SIZE])
{
    memset(ret_key, 0, KMS_IDENTITY_KEY_SIZE);
    return id == NULL || EVP_Digest(ASN1_STRING_get0_data(id), (size_t)ASN1_STRING_length(id), ret_key, NULL,
                                    EVP_sha256(), NULL) == 1;
}

bool kms_identity_time(const ASN1_TIME *time, int64_t *ret_ns)
{
    struct tm utc;
    if (ASN1_TIME_to_tm(time, &utc) != 1)
        return false;
    const int64_t seconds = timegm(&utc);
    if (__builtin_mul_overflow(seconds, INT64_C(1000000000), ret_ns))
        *ret_ns = seconds > 0 ? INT64_MAX : INT64_MIN;
    return true;
}

/* What revocation and expiry need. */
static enum kms_status take_facts(X509 *certificate, struct kms_certificate *facts, struct kms_error *err)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    const int serial_len = ASN1_STRING_length(serial);
    if (serial_len < 1 || serial_len > KMS_IDENTITY_SERIAL_MAX ||
        ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER)
        return refuse(err, "the certificate's serial number is negative or longer than 20 bytes");
    kms_hex_encode(ASN1_STRING_get0_data(serial), (size_t)serial_len, facts->identity.serial_hex);
    if (!kms_identity_time(X509_get0_notBefore(certificate), &facts->not_before_ns) ||
        !kms_identity_time(X509_get0_notAfter(certificate), &facts->identity.not_after_ns))
        return refuse(err, "the certificate's dates are damaged");
    if (!kms_identity_issuer_key(X509_get_issuer_name(certificate), facts->issuer) ||
        !kms_identity_serial_key(facts->issuer, serial, facts->revoked) ||
        !kms_identity_key_id(X509_get0_authority_key_id(certificate), facts->authority))
        return refuse(err, "the certificate's issuer cannot be read");
    return KMS_OK;
}

int kms_identity_no_password(char *buffer, int size, int writing, void *context)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)context;
    return -1;
}

enum kms_status kms_identity_parse(struct kms_slice pem, struct kms_certificate *ret_certificate,
                                   struct kms_error *err)
{
    if (pem.len == 0 || pem.len > KMS_IDENTITY_PEM_MAX)
        return refuse(err, "the client certificate is missing or too large");
    KMS_CLEANUP(free_bio) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    KMS_CLEANUP(free_x509)
    X509 *certificate = bio != NULL ? PEM_read_bio_X509(bio, NULL, kms_identity_no_password, NULL) : NULL;
    if (certificate == NULL)
        return refuse(err, "the client certificate cannot be parsed");
    const uint32_t flags = X509_get_extension_flags(certificate);
    if ((flags & EXFLAG_INVALID) != 0)
        return refuse(err, "the client certificate's extensions are damaged");
    if ((flags & EXFLAG_CA) != 0)
        return refuse(err, "the client presents a CA certificate");
    struct kms_certificate facts = {0};
    KMS_TRY(take_name(certificate, &facts.identity, err));
    KMS_TRY(take_facts(certificate, &facts, err));
    *ret_certificate = facts;
    return KMS_OK;
}
