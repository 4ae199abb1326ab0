/*
 * Purpose:   searching the token's objects and reading what may be read of them.
 * Owns:      nothing.
 * Threads:   as their session.
 * Never:     leaves a search open in the session.
 */
#ifndef KMS_HSM_P11_OBJECTS_H
#define KMS_HSM_P11_OBJECTS_H

#include "hsm/p11_state.h"

/** The first `maximum` objects that match; `*ret_count` says how many there are of them. */
enum kms_status kms_p11_objects_find(struct kms_hsm_session *session, struct kms_p11_template *template,
                                     CK_OBJECT_HANDLE *ret_handles, size_t maximum, size_t *ret_count,
                                     struct kms_error *err) KMS_MUST_USE;
/** All objects that match, at most a million (RESOURCE_EXHAUSTED); free(*ret_handles). */
enum kms_status kms_p11_objects_find_all(struct kms_hsm_session *session, struct kms_p11_template *template,
                                         CK_OBJECT_HANDLE **ret_handles, size_t *ret_count,
                                         struct kms_error *err) KMS_MUST_USE;
/**
 * CKA_ID and CKA_LABEL of a key. NOT_FOUND when the object is gone, or its id or label is not of the sizes
 * that this service gives, so that it cannot be a key of its making.
 */
enum kms_status kms_p11_objects_describe(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                                         struct kms_hsm_master_info *ret_info,
                                         struct kms_error *err) KMS_MUST_USE;

/** In what ways the value of a key may leave the token. */
struct kms_p11_leaving {
    bool extractable;  /* wrapped under some key */
    bool trusted_only; /* and under none that the security officer does not trust */
};
enum kms_status kms_p11_objects_leaving(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                                        struct kms_p11_leaving *ret_leaving,
                                        struct kms_error *err) KMS_MUST_USE;

#endif
