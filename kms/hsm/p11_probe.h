/*
 * Purpose:   do each operation that the service needs once, and say which one the token cannot do.
 * Owns:      nothing; every key that it makes is destroyed.
 * Threads:   while the connection is made, with the spare session; ping from any thread.
 * Never:     takes an advertised mechanism for a working one.
 */
#ifndef KMS_HSM_P11_PROBE_H
#define KMS_HSM_P11_PROBE_H

#include "hsm/p11_state.h"

/** Everything, with negative checks. HSM_REFUSED whose public text names the missing operation. */
enum kms_status kms_p11_probe_all(struct kms_p11 *p11, struct kms_error *err) KMS_MUST_USE;
/** Only HMAC and signature with the two token keys. HSM_UNAVAILABLE. */
enum kms_status kms_p11_probe_service_keys(struct kms_p11 *p11, struct kms_error *err) KMS_MUST_USE;

/** As kms_hsm's ping: HMAC with the integrity key, without waiting for a recovery. */
enum kms_status kms_p11_probe_ping(struct kms_hsm *hsm, struct kms_error *err) KMS_MUST_USE;

#endif
