/*
 * Purpose:   a certificate authority for a test: keys, certificates and revocation lists as PEM files in one directory.
 * Owns:      nothing but what a struct holds.
 * Threads:   one.
 * Never:     is linked into anything but tests.
 */
#ifndef TESTS_UNIT_RPC_CERTS_H
#define TESTS_UNIT_RPC_CERTS_H

#include <openssl/x509.h>

struct certs_ca {
    X509 *certificate;
    EVP_PKEY *key;
    long next_serial;
};

/** A new P-256 CA; its certificate is written to `path`. */
struct certs_ca certs_ca_new(const char *name, const char *path);
void certs_ca_clear(struct certs_ca *ca);
/**
 * A leaf with the common name, a URI SAN (NULL: none) or the server's SANs (`server`), valid from an hour ago for `seconds`.
 * Writes certificate and key (mode 0600). Returns the serial number.
 */
long certs_issue(struct certs_ca *ca, const char *common_name, const char *uri, _Bool server, long seconds,
                 const char *certificate_path, const char *key_path);
/** A CRL with one serial number (0: empty), valid for an hour. */
void certs_write_crl(const struct certs_ca *ca, long serial, const char *path);
/** A file's content, NUL-terminated; free(). */
char *certs_read(const char *path);
/** Write a file with mode 0600. */
void certs_write(const char *path, const char *text);

#endif
