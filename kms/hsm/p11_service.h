/*
 * Purpose:   the service's own token keys: the integrity key, the attestation key pair and the backup key.
 * Owns:      nothing.
 * Threads:   called while the connection is made, with the spare session.
 * Never:     makes a key during a recovery, or chooses among several.
 */
#ifndef KMS_HSM_P11_SERVICE_H
#define KMS_HSM_P11_SERVICE_H

#include "hsm/p11_state.h"

/**
 * Find the keys by their labels; make what is missing when `create`. Sets p11->integrity, that of the session, and
 * p11->backup with its id. CONFIG_INVALID (missing and not to be made, or several), HSM_FULL, HSM_REFUSED.
 */
enum kms_status kms_p11_service_open(struct kms_hsm_session *session, bool create,
                                     struct kms_error *err) KMS_MUST_USE;

/** As kms_hsm_backup_key(). */
enum kms_status kms_p11_service_backup_key(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                           uint8_t ret_id[KMS_HSM_KEY_ID_SIZE],
                                           struct kms_error *err) KMS_MUST_USE;

/** As kms_hsm_service_keys(). */
enum kms_status kms_p11_service_keys(struct kms_hsm_session *session,
                                     struct kms_hsm_service_key ret_keys[KMS_HSM_SERVICE_KEYS],
                                     struct kms_error *err) KMS_MUST_USE;

#endif
