/*
 * Purpose:   RSA public keys of recovery: from PEM, and as numbers from a token, with their fingerprint.
 * Owns:      nothing; a key is a plain value.
 * Threads:   no shared state.
 * Never:     accepts a key that is too weak or of another kind.
 */
#ifndef KMS_HSM_RSA_PUBLIC_H
#define KMS_HSM_RSA_PUBLIC_H

#include "hsm/hsm.h"

enum { KMS_RSA_BITS_MIN = 3072, KMS_RSA_BITS_MAX = 4096, KMS_RSA_EXPONENT_MAX = 8 };

/** Both numbers big-endian, without leading zeroes. */
struct kms_rsa_public {
    uint8_t modulus[KMS_RSA_BITS_MAX / 8];
    size_t modulus_len;
    uint8_t exponent[KMS_RSA_EXPONENT_MAX];
    size_t exponent_len;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE]; /* SHA-256 over the DER SubjectPublicKeyInfo, hex */
};

/** One block "PUBLIC KEY" (RFC 7468), RSA of KMS_RSA_BITS_MIN to _MAX bits. INVALID_ARGUMENT with a public text; NO_MEMORY. */
enum kms_status kms_rsa_public_from_pem(struct kms_slice pem, struct kms_rsa_public *ret_key,
                                        struct kms_error *err) KMS_MUST_USE;
/** The key as such a block, appended. NO_MEMORY. */
enum kms_status kms_rsa_public_to_pem(const struct kms_rsa_public *key, struct kms_buf *pem,
                                      struct kms_error *err) KMS_MUST_USE;
/** The same as kms_rsa_public_from_pem() from its numbers. */
enum kms_status kms_rsa_public_from_numbers(struct kms_slice modulus, struct kms_slice exponent,
                                            struct kms_rsa_public *ret_key,
                                            struct kms_error *err) KMS_MUST_USE;

#endif
