/*
 * Purpose:   change records of store/store_shred.h.
 * Owns:      their format, below; the rest is store/changelog.h.
 * Threads:   pure functions.
 * Never:     checks limits: that is kms_*_problem().
 *
 *   SHRED_JOB     = uid 16 | tenant 16 | origin u8 | state u8 | purpose text | version u32 | requested_by text | reason text
 *                 | requested time | window_seconds i64 | due time | operation 16 | list_hash 32
 *   SHRED_TARGET  = job 16 | customer 16 | state u8 | batch 16 | changed time | reason text
 *   HOLD          = uid 16 | tenant 16 | customer 16 | reference text | reason text | placed_by text | placed time
 *                 | released_by text | released time
 *   CERTIFICATE   = uid 16 | tenant 16 | batch 16 | kind u8 | created time | document_len u32 | document
 *                 | signature_len u8 | signature
 *   SHRED_SETTING = tenant 16 | window_seconds i64 | shred_closed u8 (0, 1)
 *   RETENTION     = tenant 16 | customer 16 | purpose text | due time (0: the entry is removed) [| began time, if it is known]
 *   SHRED_CLOCK   = trusted time | boot i64 | boot_id text
 *
 * All hold the whole record: insert it, or replace the one of the same key.
 */
#ifndef KMS_STORE_CHANGELOG_SHRED_H
#define KMS_STORE_CHANGELOG_SHRED_H

#include "store/changelog.h"

/* Append one payload; the record has passed its check. NO_MEMORY. */
enum kms_status kms_changelog_shred_job(const struct kms_shred_job_record *job,
                                        struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_shred_target(const struct kms_shred_target_record *target,
                                           struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_hold(const struct kms_hold_record *hold, struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_certificate(const struct kms_certificate_record *certificate,
                                          struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_shred_setting(const struct kms_shred_setting_record *setting,
                                            struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_retention(const struct kms_retention_record *retention,
                                        struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_shred_clock(const struct kms_shred_clock_record *clock,
                                          struct kms_buf *out) KMS_MUST_USE;

/* Take one body; the reader fails when it is not canonical. */
void kms_changelog_take_shred_job(struct kms_reader *reader, struct kms_shred_job_record *job);
void kms_changelog_take_shred_target(struct kms_reader *reader, struct kms_shred_target_record *target);
void kms_changelog_take_hold(struct kms_reader *reader, struct kms_hold_record *hold);
enum kms_status kms_changelog_take_certificate(struct kms_reader *reader,
                                               struct kms_certificate_record *certificate) KMS_MUST_USE;
void kms_changelog_take_shred_setting(struct kms_reader *reader, struct kms_shred_setting_record *setting);
void kms_changelog_take_retention(struct kms_reader *reader, struct kms_retention_record *retention);
void kms_changelog_take_shred_clock(struct kms_reader *reader, struct kms_shred_clock_record *clock);

#endif
