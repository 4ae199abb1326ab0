/*
 * Purpose:   recovery keys: enrolled, rehearsed, retired; what the service says of them.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     takes a key into use that the HSM does not trust, or a second time.
 */
#ifndef KMS_OPS_RECOVERY_H
#define KMS_OPS_RECOVERY_H

#include "ops/operation.h"

extern const struct ops_operation_kind ops_recovery_enroll_kind;
extern const struct ops_operation_kind ops_recovery_retire_kind;

/** For ops_tick(): looks after the capsules, and tells when they begin and end to be in disorder. */
void ops_recovery_tick(struct kms_ops *ops);
/**
 * At start: may the service run with recovery keys turned off? CONFIG_INVALID while one is enrolled, for no new master key would be
 * under it.
 */
enum kms_status ops_recovery_check_off(struct kms_store *store, struct kms_error *err) KMS_MUST_USE;

#endif
