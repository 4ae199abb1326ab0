/*
 * Purpose:   small objects in the token that say that something has happened: what a database that was put back cannot unsay.
 * Owns:      nothing; the objects are the token's.
 * Threads:   as the session.
 * Never:     holds anything secret.
 */
#ifndef KMS_HSM_P11_MARKERS_H
#define KMS_HSM_P11_MARKERS_H

#include "hsm/p11_state.h"

/** As kms_hsm_marker_put(), kms_hsm_marker_find() and kms_hsm_marker_remove(). */
enum kms_status kms_p11_markers_put(struct kms_hsm_session *session, const char *label,
                                    struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_markers_find(struct kms_hsm_session *session, const char *label, bool *ret_found,
                                     struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_markers_remove(struct kms_hsm_session *session, const char *label,
                                       struct kms_error *err) KMS_MUST_USE;

#endif
