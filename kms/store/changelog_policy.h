/*
 * Purpose:   the change records of policy versions and of what is frozen.
 * Owns:      their format, below; the rest is store/changelog.h.
 * Threads:   pure functions.
 * Never:     included outside this module.
 *
 *   POLICY   = version u64 | sha256 32 | identity text | operation text | comment text | created time
 *            | document_len u32 | document
 *   FREEZE   = scope u8 | tenant text | name text | reason text | identity text | created time
 *   UNFREEZE = scope u8 | tenant text | name text
 *
 * The first two insert, the third removes.
 */
#ifndef KMS_STORE_CHANGELOG_POLICY_H
#define KMS_STORE_CHANGELOG_POLICY_H

#include "store/changelog.h"

/* As the functions of the same shape in changelog.h. */
enum kms_status kms_changelog_policy(const struct kms_policy_record *policy,
                                     struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_freeze(const struct kms_freeze_record *freeze,
                                     struct kms_buf *out) KMS_MUST_USE;
/** Of `freeze` only scope, tenant and name count. */
enum kms_status kms_changelog_unfreeze(const struct kms_freeze_record *freeze,
                                       struct kms_buf *out) KMS_MUST_USE;

/* The bodies read back; a damaged one fails the reader. NO_MEMORY. What is on the heap is the caller's in any case. */
enum kms_status kms_changelog_take_policy(struct kms_reader *reader,
                                          struct kms_policy_record *policy) KMS_MUST_USE;
void kms_changelog_take_freeze(struct kms_reader *reader, struct kms_freeze_record *freeze);
void kms_changelog_take_unfreeze(struct kms_reader *reader, struct kms_freeze_record *freeze);

#endif
