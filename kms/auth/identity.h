/*
 * Purpose:   the name, serial number and dates of a client certificate.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     verifies the chain: the TLS layer did, before anybody comes here.
 */
#ifndef KMS_AUTH_IDENTITY_H
#define KMS_AUTH_IDENTITY_H

#include "auth/auth.h"

#include <openssl/asn1.h>
#include <openssl/x509.h>

enum { KMS_IDENTITY_PEM_MAX = 64 * 1024, KMS_IDENTITY_SERIAL_MAX = 20, KMS_IDENTITY_KEY_SIZE = 32 };

/** What is read from a certificate once. */
struct kms_certificate {
    struct kms_identity identity;
    int64_t not_before_ns;                    /* wall clock */
    uint8_t issuer[KMS_IDENTITY_KEY_SIZE];    /* kms_identity_issuer_key() */
    uint8_t revoked[KMS_IDENTITY_KEY_SIZE];   /* kms_identity_serial_key() */
    uint8_t authority[KMS_IDENTITY_KEY_SIZE]; /* kms_identity_key_id() of its authority key identifier */
};

/**
 * Parse the first certificate in a PEM text. The name is the only URI SAN, which must be a SPIFFE ID with a path;
 * without any URI SAN "dns:" and the first DNS SAN in lower case; without one of those "cn:" and the only common
 * name. UNAUTHENTICATED with the cause for everything else: damaged, CA certificate, no or several names, control
 * characters, name over KMS_IDENTITY_MAX bytes, serial number over 20 bytes or negative.
 */
enum kms_status kms_identity_parse(struct kms_slice pem, struct kms_certificate *ret_certificate,
                                   struct kms_error *err) KMS_MUST_USE;

/** A SPIFFE ID with a path, strictly: spiffe://trust-domain/segment/..., KMS_IDENTITY_MAX bytes at most. */
bool kms_identity_is_spiffe(const char *text, size_t len);
/** "dns:" with a lower-case host name. */
bool kms_identity_is_dns(const char *text, size_t len);
/** "cn:" with printable UTF-8. */
bool kms_identity_is_cn(const char *text, size_t len);

/** OpenSSL's password callback: an encrypted PEM block must not ask for a password on the terminal. */
int kms_identity_no_password(char *buffer, int size, int writing, void *context);

/** SHA-256 of an issuer's DER name, and of that with a serial number: what revocation looks up. False: no memory. */
bool kms_identity_issuer_key(const X509_NAME *issuer, uint8_t ret_key[KMS_IDENTITY_KEY_SIZE]);
bool kms_identity_serial_key(const uint8_t issuer[KMS_IDENTITY_KEY_SIZE], const ASN1_INTEGER *serial,
                             uint8_t ret_key[KMS_IDENTITY_KEY_SIZE]);
/** SHA-256 of an authority's or a subject's key identifier; zero when there is none. False: no memory. */
bool kms_identity_key_id(const ASN1_OCTET_STRING *id, uint8_t ret_key[KMS_IDENTITY_KEY_SIZE]);
/** Wall-clock nanoseconds of an ASN.1 time, INT64_MAX when it is after the year 2262. False when it is malformed. */
bool kms_identity_time(const ASN1_TIME *time, int64_t *ret_ns);

#endif
