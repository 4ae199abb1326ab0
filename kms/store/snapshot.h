/*
 * Purpose:   what the snapshot functions of the record families share.
 * Owns:      the buffer of one payload.
 * Threads:   that of the transaction.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SNAPSHOT_H
#define KMS_STORE_SNAPSHOT_H

#include "store/store_changes.h"

struct kms_snapshot {
    kms_change_visit visit;
    void *context;
    struct kms_buf payload;
};

/** The emptied buffer for the next payload. */
static inline struct kms_buf *kms_snapshot_payload(struct kms_snapshot *snapshot)
{
    snapshot->payload.len = 0;
    return &snapshot->payload;
}
/** Hand the payload over; `encoded` is what its encoder has returned. */
enum kms_status kms_snapshot_give(struct kms_snapshot *snapshot, enum kms_status encoded,
                                  struct kms_error *err) KMS_MUST_USE;

/* Every row of a family, in an order that satisfies what it refers to. One function in each sqlite_*.c. */
typedef enum kms_status (*kms_snapshot_family)(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                               struct kms_error *err);
enum kms_status kms_sqlite_tenant_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                           struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_purpose_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                            struct kms_error *err) KMS_MUST_USE;
/** With the KEKs of each customer behind it. */
enum kms_status kms_sqlite_customer_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                             struct kms_error *err) KMS_MUST_USE;
/** Those that are not active only, without KEKs; no family of a backup. */
enum kms_status kms_sqlite_customer_snapshot_closed(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                                    struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_page_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                         struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_request_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                            struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_operation_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                              struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_policy_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                           struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_freeze_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                           struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_shred_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                          struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_recovery_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                             struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_rekey_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                          struct kms_error *err) KMS_MUST_USE;

#endif
