/*
 * Purpose:   AES-GCM, HMAC and randomness: the operations of the hot path.
 * Owns:      nothing.
 * Threads:   as their session.
 * Never:     allocates, or leaves plaintext behind when it fails.
 */
#ifndef KMS_HSM_P11_CRYPTO_H
#define KMS_HSM_P11_CRYPTO_H

#include "hsm/p11_state.h"

/* As in hsm.h. */
enum kms_status kms_p11_crypto_random(struct kms_hsm_session *session, uint8_t *out, size_t len,
                                      struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_crypto_gcm_seal(struct kms_hsm_session *session, struct kms_hsm_key kek,
                                        const uint8_t *iv, struct kms_slice aad, struct kms_slice plaintext,
                                        uint8_t *ret_ciphertext, struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_crypto_gcm_open(struct kms_hsm_session *session, struct kms_hsm_key kek,
                                        const uint8_t *iv, struct kms_slice aad, struct kms_slice ciphertext,
                                        uint8_t *ret_plaintext, struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_crypto_mac(struct kms_hsm_session *session, struct kms_slice data,
                                   uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err) KMS_MUST_USE;
/** As kms_hsm_mac_alone(): with the spare session. */
enum kms_status kms_p11_crypto_mac_alone(struct kms_hsm *hsm, struct kms_slice data,
                                         uint8_t ret_mac[KMS_HSM_MAC_SIZE],
                                         struct kms_error *err) KMS_MUST_USE;

#endif
