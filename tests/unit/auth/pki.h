/*
 * Purpose:   certificates and revocation lists of every good and bad kind, made by OpenSSL for the tests.
 * Owns:      nothing; what is returned belongs to the caller.
 * Threads:   one.
 * Never:     is linked into anything but tests.
 */
#ifndef TESTS_UNIT_AUTH_PKI_H
#define TESTS_UNIT_AUTH_PKI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/x509.h>
#include <openssl/x509v3.h>

struct pki_ca {
    X509 *certificate;
    EVP_PKEY *key;
    char *pem;
};

/** A self-signed P-256 CA, with or without the right to sign CRLs. */
struct pki_ca pki_ca_new(const char *name, bool may_sign_crls);
/** One below it, with key identifiers when `identified`; it may sign CRLs. */
struct pki_ca pki_ca_below(const struct pki_ca *parent, const char *name, const char *serial,
                           bool identified);
void pki_ca_clear(struct pki_ca *ca);

/** One subject alternative name; `len` 0: strlen(text). */
struct pki_san {
    int type; /* GEN_URI, GEN_DNS, GEN_EMAIL */
    const char *text;
    size_t len;
};

/** A leaf. Times are seconds from now; zero-initialised members are left out. */
struct pki_leaf {
    struct pki_san sans[4];
    const char *cn, *second_cn;
    size_t cn_len;              /* 0: strlen(cn) */
    long not_before, not_after; /* 0: an hour ago, in an hour */
    const char *serial;         /* decimal; NULL: 1 */
    bool is_ca;
    bool broken_san; /* the extension's bytes are garbage */
    bool far_end;    /* notAfter 9999-12-31, "no end" */
    bool identified; /* with the identifier of the issuer's key */
};
/** PEM text; free(). */
char *pki_leaf_pem(const struct pki_ca *issuer, const struct pki_leaf *leaf);

/** A CRL of `issuer`, signed with `signer`'s key. Times are seconds from now. */
struct pki_crl {
    const char *serials[4];
    long this_update, next_update; /* 0: an hour ago, in an hour */
    bool no_next_update;
    bool delta;          /* with a critical delta CRL indicator */
    bool entry_critical; /* entries with a critical extension */
};
char *pki_crl_pem(const struct pki_ca *issuer, const struct pki_ca *signer, const struct pki_crl *crl);

/** A new temporary directory, and its removal with the plain files in it. */
char *pki_directory_new(void);
void pki_directory_free(char *directory);
/** Write `text` to directory/name with mode 0600 by renaming; returns the path, free(). */
char *pki_write(const char *directory, const char *name, const char *text);

#endif
