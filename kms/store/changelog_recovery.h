/*
 * Purpose:   the change records of recovery keys.
 * Owns:      their format, below; the rest is store/changelog.h.
 * Threads:   pure functions.
 * Never:     included outside this module.
 *
 *   RECOVERY_KEY   = epoch u64 | fingerprint text | state u8 | enrolled time | enrolled_by text | enroll_operation 16
 *                  | retire_operation 16 | retired time | retired_by text | statement text | object_left u8 (0, 1) | drill time
 *                  | drill_took i64 | drill_by text | drill_customers u64
 *   RECOVERY_COVER = recovery_epoch u64 | tenant 16 | first_epoch u64
 *
 * The first inserts, or replaces the one of the same epoch. The second inserts, or lowers first_epoch.
 */
#ifndef KMS_STORE_CHANGELOG_RECOVERY_H
#define KMS_STORE_CHANGELOG_RECOVERY_H

#include "store/changelog.h"

/* As the functions of the same shape in changelog.h. */
enum kms_status kms_changelog_recovery_key(const struct kms_recovery_key_record *key,
                                           struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_recovery_cover(const struct kms_recovery_cover_record *cover,
                                             struct kms_buf *out) KMS_MUST_USE;

/* The bodies read back; a damaged one fails the reader. */
void kms_changelog_take_recovery_key(struct kms_reader *reader, struct kms_recovery_key_record *key);
void kms_changelog_take_recovery_cover(struct kms_reader *reader, struct kms_recovery_cover_record *cover);

#endif
