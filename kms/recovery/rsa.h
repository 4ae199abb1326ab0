/*
 * Purpose:   recovery and transport keys as OpenSSL has them: RSA-3072, PKCS #8, OAEP; and a process fit to hold one.
 * Owns:      a kms_rsa owns its key.
 * Threads:   main thread only.
 * Never:     leaves private bytes behind in memory that it gives back; writes a private key anywhere.
 *
 * Keys are wrapped by RSAES-OAEP (RFC 8017) with an empty label and one hash, SHA-1 or SHA-256, also in MGF1: SHA-1 is what PKCS#11 tokens
 * have in common, and OAEP needs no resistance to collisions.
 */
#ifndef KMS_RECOVERY_RSA_H
#define KMS_RECOVERY_RSA_H

#include "core/secret.h"

enum {
    KMS_RSA_BITS = 3072,
    KMS_RSA_BYTES = KMS_RSA_BITS / 8,
    KMS_RSA_FINGERPRINT_SIZE = 32, /* SHA-256 of the DER SubjectPublicKeyInfo */
    KMS_RSA_PEM_MAX = 4096,
    KMS_RSA_PKCS8_MAX = 4096,
    KMS_RSA_WRAPPED_KEY_MAX = 64 /* bytes of a key that is wrapped */
};

/**
 * Make the process fit for a private key, before OpenSSL is used: kms_harden_process(), and an allocator for OpenSSL that wipes what it
 * frees. FAILED_PRECONDITION with a text that says what to do.
 */
enum kms_status kms_rsa_harden(struct kms_error *err) KMS_MUST_USE;

/** A key pair, or its public half alone. */
struct kms_rsa;
void kms_rsa_free(struct kms_rsa *key); /* NULL-safe; wipes */

/** A new pair. NO_MEMORY, INTERNAL. */
enum kms_status kms_rsa_generate(struct kms_rsa **ret_key, struct kms_error *err) KMS_MUST_USE;
/** A public key from its PEM. INVALID_ARGUMENT unless it is an RSA key of 3072 bits; `name` is that of its file. */
enum kms_status kms_rsa_from_pem(const char *name, struct kms_slice pem, struct kms_rsa **ret_key,
                                 struct kms_error *err) KMS_MUST_USE;
/** A pair from its PKCS #8 DER. INVALID_ARGUMENT as above. */
enum kms_status kms_rsa_from_pkcs8(struct kms_slice der, struct kms_rsa **ret_key,
                                   struct kms_error *err) KMS_MUST_USE;
/** The pair as PKCS #8 DER, in locked memory. */
enum kms_status kms_rsa_to_pkcs8(const struct kms_rsa *key, struct kms_secret *ret_der,
                                 struct kms_error *err) KMS_MUST_USE;
/** The public half as PEM, appended. */
enum kms_status kms_rsa_public_pem(const struct kms_rsa *key, struct kms_buf *out,
                                   struct kms_error *err) KMS_MUST_USE;
/** What the key is called. */
enum kms_status kms_rsa_fingerprint(const struct kms_rsa *key, uint8_t ret[KMS_RSA_FINGERPRINT_SIZE],
                                    struct kms_error *err) KMS_MUST_USE;

/** Wrap a key of at most KMS_RSA_WRAPPED_KEY_MAX bytes. `sha256`: OAEP with SHA-256, else SHA-1. */
enum kms_status kms_rsa_wrap(const struct kms_rsa *key, bool sha256, const struct kms_secret *plain,
                             uint8_t ret_wrapped[KMS_RSA_BYTES], struct kms_error *err) KMS_MUST_USE;
/** Unwrap; TAMPERED when it was not wrapped for this key. */
enum kms_status kms_rsa_unwrap(const struct kms_rsa *key, bool sha256, const uint8_t wrapped[KMS_RSA_BYTES],
                               struct kms_secret *ret_plain, struct kms_error *err) KMS_MUST_USE;

#endif
