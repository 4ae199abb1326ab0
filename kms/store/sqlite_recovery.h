/*
 * Purpose:   recovery keys in SQLite.
 * Owns:      nothing.
 * Threads:   that of the transaction.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_RECOVERY_H
#define KMS_STORE_SQLITE_RECOVERY_H

#include "store/store.h"

/* As in store_recovery.h. */
enum kms_status kms_sqlite_recovery_key_put(struct kms_store_txn *txn,
                                            const struct kms_recovery_key_record *key,
                                            struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_recovery_key_get(struct kms_store_txn *txn, const char *fingerprint,
                                            struct kms_recovery_key_record *ret_key,
                                            struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_recovery_key_list(struct kms_store_txn *txn, kms_recovery_key_visit visit,
                                             void *context, struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_recovery_cover_put(struct kms_store_txn *txn,
                                              const struct kms_recovery_cover_record *cover,
                                              struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_recovery_cover_get(struct kms_store_txn *txn, uint64_t recovery_epoch,
                                              const struct kms_uuid *tenant, uint64_t *ret_first_epoch,
                                              struct kms_error *err) KMS_MUST_USE;

#endif
