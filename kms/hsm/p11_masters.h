/*
 * Purpose:   token keys: master keys found, made, destroyed and listed.
 * Owns:      the cache of master handles of this generation.
 * Threads:   as their session; the cache has its own lock.
 * Never:     destroys a key that it was not told to destroy, or takes a torn one for a working one.
 */
#ifndef KMS_HSM_P11_MASTERS_H
#define KMS_HSM_P11_MASTERS_H

#include "hsm/p11_state.h"

/* As in hsm.h. */
enum kms_status kms_p11_masters_create(struct kms_hsm_session *session, const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                       const char *label, struct kms_hsm_key *ret_key,
                                       struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_masters_find(struct kms_hsm_session *session, const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                     struct kms_hsm_key *ret_key, struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_masters_destroy(struct kms_hsm_session *session,
                                        const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                        struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_masters_list(struct kms_hsm_session *session, struct kms_hsm_master_info **ret_list,
                                     size_t *ret_count, struct kms_error *err) KMS_MUST_USE;

/** Forget all cached handles (a new generation), or the one with this handle. */
void kms_p11_masters_forget_all(struct kms_p11 *p11);
void kms_p11_masters_forget_handle(struct kms_p11 *p11, CK_OBJECT_HANDLE handle);

#endif
