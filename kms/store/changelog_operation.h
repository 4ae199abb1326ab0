/*
 * Purpose:   the change records of operations and approvals; drawn in store/changelog.h.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_CHANGELOG_OPERATION_H
#define KMS_STORE_CHANGELOG_OPERATION_H

#include "store/changelog.h"

/* As the functions of the same shape in changelog.h. */
enum kms_status kms_changelog_operation(const struct kms_operation_record *operation,
                                        struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_operation_state(const struct kms_operation_record *operation,
                                              struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_approval(const struct kms_approval_record *approval,
                                       struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_operation_removed(const struct kms_uuid *uuid,
                                                struct kms_buf *out) KMS_MUST_USE;

/* The bodies read back; a damaged one fails the reader. NO_MEMORY. What is on the heap is the caller's in any case. */
enum kms_status kms_changelog_take_operation(struct kms_reader *reader,
                                             struct kms_operation_record *operation) KMS_MUST_USE;
enum kms_status kms_changelog_take_operation_state(struct kms_reader *reader,
                                                   struct kms_operation_record *operation) KMS_MUST_USE;
enum kms_status kms_changelog_take_approval(struct kms_reader *reader,
                                            struct kms_approval_record *approval) KMS_MUST_USE;

#endif
