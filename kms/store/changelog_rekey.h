/*
 * Purpose:   the change records of re-keying; their format is drawn in changelog.h.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_CHANGELOG_REKEY_H
#define KMS_STORE_CHANGELOG_REKEY_H

#include "store/changelog.h"

/* As the functions of changelog.h. */
enum kms_status kms_changelog_batch(const struct kms_batch_record *batch, struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_batch_state(const struct kms_batch_record *batch,
                                          struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_tombstone(const struct kms_tombstone_record *tombstone,
                                        struct kms_buf *out) KMS_MUST_USE;
/** FREE_SLOT or SLOT_TAKEN. */
enum kms_status kms_changelog_slot(enum kms_change_kind kind, const struct kms_change_slot *slot,
                                   struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_kek_shredded(const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                           struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_customer_removed(const struct kms_uuid *customer,
                                               struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_rewrapped(const struct kms_change_rewrapped *rewrapped,
                                        struct kms_buf *out) KMS_MUST_USE;
/** Any of the above, by its kind. */
enum kms_status kms_changelog_rekey(const struct kms_change *change, struct kms_buf *out) KMS_MUST_USE;

/** The body of a record of one of these kinds. NO_MEMORY; else as the parts of codec.h. */
enum kms_status kms_changelog_take_rekey(struct kms_reader *reader, struct kms_change *change) KMS_MUST_USE;
/** NULL when the limits of the record hold. */
const char *kms_changelog_rekey_problem(const struct kms_change *change);

#endif
