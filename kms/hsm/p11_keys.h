/*
 * Purpose:   session keys: made, wrapped, unwrapped, destroyed. Page keys and KEKs are nothing else.
 * Owns:      the templates of design section 3 for session keys, and the count of live objects.
 * Threads:   as their session.
 * Never:     makes a key whose plaintext the token would give away.
 */
#ifndef KMS_HSM_P11_KEYS_H
#define KMS_HSM_P11_KEYS_H

#include "hsm/p11_state.h"

/** Build the templates from the profile, once. */
void kms_p11_keys_prepare(struct kms_p11 *p11);

/* As in hsm.h. */
enum kms_status kms_p11_keys_generate_wrapped(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                              uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE],
                                              struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_keys_unwrap(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                    const uint8_t blob[KMS_HSM_WRAPPED_SIZE], enum kms_hsm_role role,
                                    struct kms_hsm_key *ret_key, struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_keys_wrap(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                  struct kms_hsm_key key, uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE],
                                  struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_keys_destroy(struct kms_hsm_session *session, struct kms_hsm_key key) KMS_MUST_USE;
/** The same, with the cause of a failure. */
enum kms_status kms_p11_keys_destroy_now(struct kms_hsm_session *session, struct kms_hsm_key key,
                                         struct kms_error *err) KMS_MUST_USE;

/** A session key that may leave as master keys may, for the start-up probe. */
enum kms_status kms_p11_keys_generate_leaving(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                              struct kms_error *err) KMS_MUST_USE;
/** A session key that can wrap and unwrap, for the start-up probe: stands for a master key. */
enum kms_status kms_p11_keys_generate_parent(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                             struct kms_error *err) KMS_MUST_USE;
/** Wrap and unwrap something with a parent key, to see that it is not torn. */
enum kms_status kms_p11_keys_use_test(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                      struct kms_error *err) KMS_MUST_USE;

#endif
