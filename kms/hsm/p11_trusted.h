/*
 * Purpose:   recovery public keys in the token: made by the security officer, found, used to wrap, removed.
 * Owns:      nothing.
 * Threads:   as their session.
 * Never:     believes a label: a key is what its numbers say, and trusted when the token says so.
 */
#ifndef KMS_HSM_P11_TRUSTED_H
#define KMS_HSM_P11_TRUSTED_H

#include "hsm/p11_state.h"
#include "hsm/rsa_public.h"

/* As in hsm.h. */
enum kms_status kms_p11_trusted_find(struct kms_hsm_session *session, const char *fingerprint,
                                     struct kms_hsm_key *ret_key, struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_trusted_wrap(struct kms_hsm_session *session, struct kms_hsm_key recovery,
                                     struct kms_hsm_key key, struct kms_hsm_recovery_blob *ret_blob,
                                     struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_trusted_remove(struct kms_hsm_session *session, const char *fingerprint,
                                       struct kms_error *err) KMS_MUST_USE;

/** Put the key into the token, in a session of the security officer. ALREADY_EXISTS when it is there, trusted and the same. */
enum kms_status kms_p11_trusted_create(struct kms_hsm_session *session, const struct kms_rsa_public *key,
                                       struct kms_error *err) KMS_MUST_USE;

#endif
