/*
 * Purpose:   libp11's side of the connection: the module, the token's slot and the attestation key as EVP_PKEY.
 * Owns:      libp11's context, its slots and the EVP_PKEY.
 * Threads:   load and unload while the connection is made or torn down; sign from any thread, one at a time.
 * Never:     gives the PIN to libp11, which would keep a copy in ordinary memory; lets two threads use
 *            libp11's own session pool at once (0.4.12 waits for ever when it cannot open another session).
 */
#ifndef KMS_HSM_P11_ATTEST_H
#define KMS_HSM_P11_ATTEST_H

#include "hsm/p11_state.h"

/** Load the module and initialise Cryptoki through libp11. CONFIG_INVALID, HSM_UNAVAILABLE. */
enum kms_status kms_p11_attest_load(struct kms_p11 *p11, struct kms_error *err) KMS_MUST_USE;
/**
 * All slots that have a token, through libp11; free(*ret_slots). HSM_UNAVAILABLE when the module lists none.
 */
enum kms_status kms_p11_attest_slots(struct kms_p11 *p11, CK_SLOT_ID **ret_slots, size_t *ret_count,
                                     struct kms_error *err) KMS_MUST_USE;
/** After the login: fetch the attestation key of p11->slot. HSM_UNAVAILABLE, CONFIG_INVALID. */
enum kms_status kms_p11_attest_fetch(struct kms_p11 *p11, struct kms_error *err) KMS_MUST_USE;
/** Forget the key, release the slots (closes all sessions) and finalise Cryptoki; accepts any half-way state. */
void kms_p11_attest_unload(struct kms_p11 *p11);

/** Sign while the connection is made: SHA-256, then ECDSA in the token. HSM_UNAVAILABLE. */
enum kms_status kms_p11_attest_sign_now(struct kms_p11 *p11, struct kms_slice message,
                                        uint8_t ret_signature[KMS_HSM_SIGNATURE_MAX], size_t *ret_len,
                                        struct kms_error *err) KMS_MUST_USE;
/** Verify with the public half, in software. */
bool kms_p11_attest_verify(struct kms_p11 *p11, struct kms_slice message, struct kms_slice signature);

/* As in hsm.h. */
enum kms_status kms_p11_attest_sign(struct kms_hsm *hsm, struct kms_slice message,
                                    uint8_t ret_signature[KMS_HSM_SIGNATURE_MAX], size_t *ret_len,
                                    struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_attest_public_pem(struct kms_hsm *hsm, char **ret_pem,
                                          struct kms_error *err) KMS_MUST_USE;

#endif
