/*
 * Purpose:   whether an operation is approved: one approval checked when it is given, all of them when the operation starts.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     believes a row of the database: the signatures over the stored bytes decide.
 */
#ifndef KMS_OPS_VERDICT_H
#define KMS_OPS_VERDICT_H

#include "ops/operation.h"

/** SHA-256. NO_MEMORY. */
enum kms_status ops_operation_digest(struct kms_slice document,
                                     uint8_t ret_digest[KMS_OPERATION_DIGEST_SIZE]) KMS_MUST_USE;
/** The kind of that name; NULL: this program does not know it. */
const struct ops_operation_kind *ops_operation_kind_of(const struct kms_ops *ops, const char *name);
/** A requester that is no identity but the service itself. */
static inline bool ops_is_service(const char *requester)
{
    return strncmp(requester, "service:", 8) == 0;
}

/**
 * May the caller approve or reject this operation: another person than the requester, in time, and it is pending?
 * PERMISSION_DENIED, FAILED_PRECONDITION.
 */
enum kms_status ops_verdict_may_decide(struct kms_ops *ops, struct kms_call *call,
                                       const struct kms_operation_record *operation) KMS_MUST_USE;
/** Do the approvals that it has, counted by what the policy says of persons now, suffice? */
bool ops_verdict_suffices(struct kms_ops *ops, const struct kms_operation_record *operation,
                          const struct kms_approval_record *list, size_t count);
/**
 * Last look before an operation runs: its document is what its row says, its kind may run with so few approvals, and enough
 * persons have signed exactly this document with certificates of our authorities that name them. When `fresh` (it was not started
 * before) they must besides be allowed to approve at this moment, with certificates that are neither expired nor revoked.
 * The requester must still be allowed to request it, too. `*ret_parameters` is a new reference. FAILED_PRECONDITION or TAMPERED with a public text.
 */
enum kms_status ops_verdict_check(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                  const struct kms_operation_record *operation, bool fresh,
                                  json_t **ret_parameters, struct kms_error *err) KMS_MUST_USE;

#endif
