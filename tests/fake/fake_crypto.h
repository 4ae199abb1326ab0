/*
 * Purpose:   the cryptography of the fake HSM, by OpenSSL.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     is linked into the service.
 */
#ifndef KMS_TESTS_FAKE_CRYPTO_H
#define KMS_TESTS_FAKE_CRYPTO_H

#include "core/bytes.h"

#include <openssl/evp.h>

/** AES-KW (RFC 3394), both directions; false, with `out` untouched, when it does not open. */
bool kms_fake_crypto_key_wrap(const uint8_t kek[32], bool wrapping, const uint8_t *in, int in_len,
                              uint8_t *out);
/** AES-256-GCM with the tag at the end. */
void kms_fake_crypto_seal(const uint8_t key[32], const uint8_t iv[12], struct kms_slice aad,
                          struct kms_slice plaintext, uint8_t *ret_ciphertext);
/** False, with the output wiped, when it does not open. */
bool kms_fake_crypto_open(const uint8_t key[32], const uint8_t iv[12], struct kms_slice aad,
                          struct kms_slice ciphertext, uint8_t *ret_plaintext);
/** ECDSA over SHA-256, DER; `*len` is the room, then the length. */
bool kms_fake_crypto_sign(EVP_PKEY *key, struct kms_slice message, uint8_t *ret_signature, size_t *len);
/** SubjectPublicKeyInfo, free() it; NULL when it cannot be written. */
char *kms_fake_crypto_public_pem(EVP_PKEY *key);

#endif
