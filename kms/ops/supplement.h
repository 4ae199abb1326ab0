/*
 * Purpose:   supplementary certificates: what a retired recovery key stood in the way of.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     counts a batch that another recovery key, which is not retired, still opens.
 */
#ifndef KMS_OPS_SUPPLEMENT_H
#define KMS_OPS_SUPPLEMENT_H

#include "ops/ops.h"

/**
 * Issue, for each tenant, the supplementary certificates of a key that is RETIRED, unless they are issued already: the same ones each
 * time. `*ret_certificates` and `*ret_batches` are how many there are, and what they complete. Failures of store, HSM and audit log.
 */
enum kms_status ops_supplement_issue(struct kms_ops *ops, const struct kms_recovery_key_record *key,
                                     uint64_t *ret_certificates, uint64_t *ret_batches,
                                     struct kms_error *err) KMS_MUST_USE;

#endif
