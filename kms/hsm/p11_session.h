/*
 * Purpose:   the gate in front of the device, the pool of sessions behind it, and what a failed call means.
 * Owns:      which sessions are free.
 * Threads:   any; locks inside.
 * Never:     closes a keeper session, or waits longer than its caller's deadline.
 */
#ifndef KMS_HSM_P11_SESSION_H
#define KMS_HSM_P11_SESSION_H

#include "hsm/p11_state.h"

/** As kms_hsm_checkout() and kms_hsm_checkin(). */
enum kms_status kms_p11_session_checkout(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                         struct kms_hsm_session **ret_session,
                                         struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_p11_session_checkout_background(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                                    struct kms_hsm_session **ret_session,
                                                    struct kms_error *err) KMS_MUST_USE;
void kms_p11_session_checkin(struct kms_hsm *hsm, struct kms_hsm_session *session);

/**
 * Borrow the spare session and with it libp11, which takes one user at a time. HSM_UNAVAILABLE when the gate is
 * closed or somebody else keeps it until the deadline.
 */
enum kms_status kms_p11_session_take_spare(struct kms_p11 *p11, int64_t deadline_mono_ns,
                                           struct kms_error *err) KMS_MUST_USE;
void kms_p11_session_return_spare(struct kms_p11 *p11);

/** Open all sessions of the pool and the spare one. The connection is being made: nobody is inside. */
enum kms_status kms_p11_session_open_all(struct kms_p11 *p11, struct kms_error *err) KMS_MUST_USE;
/** Open only the spare session, which logs in. */
enum kms_status kms_p11_session_open_spare(struct kms_p11 *p11, struct kms_error *err) KMS_MUST_USE;
/** Hand the fresh sessions to the pool and open the gate, in a new generation when `recovered`. */
void kms_p11_session_open_gate(struct kms_p11 *p11, bool recovered);

/** The device is lost, as seen in `generation`: close the gate and wake the recovery thread. */
void kms_p11_session_lost(struct kms_p11 *p11, uint64_t generation, const char *function, CK_RV rv);
/**
 * What a failed Cryptoki call means, with its name as the cause; never OK. Closes the gate for a lost device,
 * and for a key handle that is unknown although the integrity key does not work either.
 */
enum kms_status kms_p11_session_failed(struct kms_hsm_session *session, const char *function, CK_RV rv,
                                       struct kms_error *err) KMS_MUST_USE;
/**
 * After a code that may mean refused data or a failing device: true when the device does its work (HMAC with
 * the integrity key, a token object). False closes the gate.
 */
bool kms_p11_session_device_works(struct kms_hsm_session *session);
/** A failure of an operation that opens a blob: BLOB_REFUSED when the data is at fault. */
enum kms_status kms_p11_session_data_failed(struct kms_hsm_session *session, const char *function, CK_RV rv,
                                            struct kms_error *err) KMS_MUST_USE;

#endif
