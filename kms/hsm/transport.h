/*
 * Purpose:   the way of a lost token's keys into a new one: a transport key that is made in the new token, and what was wrapped for it
 *            elsewhere.
 * Owns:      nothing: the token keeps what is made.
 * Threads:   main thread, while no service uses the token.
 * Never:     lets the private half of the transport key out; replaces a key that is there; sees a key that is not wrapped.
 */
#ifndef KMS_HSM_TRANSPORT_H
#define KMS_HSM_TRANSPORT_H

#include "hsm/p11.h"

enum kms_hsm_transport_role {
    KMS_HSM_TRANSPORT_MASTER,
    KMS_HSM_TRANSPORT_INTEGRITY,
    KMS_HSM_TRANSPORT_BACKUP
};

/** A key of the lost token, wrapped for the transport key by RSA-OAEP with an empty label. */
struct kms_hsm_transport_item {
    enum kms_hsm_transport_role role;
    bool sha256; /* OAEP's hash and MGF1 are with SHA-256, else SHA-1 */
    const uint8_t *id;
    const char *label; /* of a master key */
    struct kms_slice wrapped;
};

/** What is done with the token while it is open; the session dies with the connection. */
typedef enum kms_status (*kms_hsm_transport_work)(void *context, struct kms_hsm_session *session,
                                                  struct kms_error *err);

/**
 * Log in as the user, work, and end the connection: the token needs to have no key of a service yet. Of the configuration sessions and
 * create_service_keys are not looked at. Statuses of kms_hsm_p11_open() and of the work.
 */
enum kms_status kms_hsm_transport_run(const struct kms_hsm_p11_config *config, kms_hsm_transport_work work,
                                      void *context, struct kms_error *err) KMS_MUST_USE;

/**
 * The transport key, RSA of KMS_HSM_TRANSPORT_BITS: its private half only unwraps, cannot be changed, and never leaves; what it unwraps
 * can be read as little as itself, on tokens that know CKA_UNWRAP_TEMPLATE. `may_make`: made when there is none; else NOT_FOUND.
 * FAILED_PRECONDITION: what bears its label was not made in the token, or not like this. Its public numbers, as the private half has
 * them, are appended to `pem`. It must be made with the configuration's `recovery` under which it will be used.
 */
enum { KMS_HSM_TRANSPORT_BITS = 3072 };
enum kms_status kms_hsm_transport_key(struct kms_hsm_session *session, bool may_make, struct kms_buf *pem,
                                      char ret_fingerprint[KMS_HSM_FINGERPRINT_SIZE],
                                      struct kms_error *err) KMS_MUST_USE;
/** Remove it, both halves. OK when there is none. */
enum kms_status kms_hsm_transport_key_remove(struct kms_hsm_session *session,
                                             struct kms_error *err) KMS_MUST_USE;

/**
 * Unwrap a key into the token, with its id, label and everything else as if it had been made there. A key with the same id and label that
 * is there already stays, and `*ret_made` is false. TAMPERED: it does not open under the transport key. FAILED_PRECONDITION: the token has
 * another key in its place. NOT_FOUND: there is no transport key.
 */
enum kms_status kms_hsm_transport_import(struct kms_hsm_session *session,
                                         const struct kms_hsm_transport_item *item, bool *ret_made,
                                         struct kms_error *err) KMS_MUST_USE;
/** Take an imported key away again, when the restore has failed. OK when it is gone. */
enum kms_status kms_hsm_transport_undo(struct kms_hsm_session *session,
                                       const struct kms_hsm_transport_item *item,
                                       struct kms_error *err) KMS_MUST_USE;

#endif
