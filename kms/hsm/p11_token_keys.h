/*
 * Purpose:   what the keys are that this service keeps in the token (design section 3), however they come there: made in it, or
 *            brought from a lost one.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     says how long a value is: whoever makes a key adds that, and few tokens want to be told when they unwrap one.
 */
#ifndef KMS_HSM_P11_TOKEN_KEYS_H
#define KMS_HSM_P11_TOKEN_KEYS_H

#include "hsm/p11_state.h"

/** `id`, `label` and `unwrap_template`, which is filled here, must live as long as the template. */
void kms_p11_token_keys_master(const struct kms_p11 *p11, const uint8_t *id, const char *label,
                               struct kms_p11_template *unwrap_template,
                               struct kms_p11_template *ret_template);
/** An HMAC key that cannot be copied or changed. */
void kms_p11_token_keys_integrity(const struct kms_p11 *p11, const uint8_t *id,
                                  struct kms_p11_template *ret_template);
/** Wraps the keys of backup files by AES-GCM; cannot be copied or changed. */
void kms_p11_token_keys_backup(const struct kms_p11 *p11, const uint8_t *id,
                               struct kms_p11_template *ret_template);

#endif
