/*
 * Purpose:   the service's own two token keys: the integrity key and the attestation key pair.
 * Owns:      nothing.
 * Threads:   called while the connection is made, with the spare session.
 * Never:     makes a key during a recovery, or chooses among several.
 */
#ifndef KMS_HSM_P11_SERVICE_H
#define KMS_HSM_P11_SERVICE_H

#include "hsm/p11_state.h"

/**
 * Find both keys by their labels; make what is missing when `create`. Sets p11->integrity and that of the
 * session. CONFIG_INVALID (missing and not to be made, or several), HSM_FULL, HSM_REFUSED.
 */
enum kms_status kms_p11_service_open(struct kms_hsm_session *session, bool create,
                                     struct kms_error *err) KMS_MUST_USE;

#endif
