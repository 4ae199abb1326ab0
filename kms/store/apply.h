/*
 * Purpose:   apply a change of the change log to a store: how a restore rebuilds a database, of whatever engine.
 * Owns:      nothing.
 * Threads:   that of the transaction.
 * Never:     hides that a change does not fit: applied in order to a store that was empty, every change does.
 */
#ifndef KMS_STORE_APPLY_H
#define KMS_STORE_APPLY_H

#include "store/changelog.h"

/**
 * Apply one decoded change in a write transaction. STORE_CORRUPT when it contradicts what was applied before, such as a
 * counter that goes back or a change of a record that is not there; other failures as the function of store.h that it comes to.
 */
enum kms_status kms_store_apply(struct kms_store *store, struct kms_store_txn *txn,
                                const struct kms_change *change, struct kms_error *err) KMS_MUST_USE;
/** Customers and KEKs by the thousand: `changes.load` of store_changes.h, with the statuses of kms_store_apply(). */
enum kms_status kms_store_load(struct kms_store *store, struct kms_store_txn *txn,
                               const struct kms_change *list, size_t count,
                               struct kms_error *err) KMS_MUST_USE;

#endif
