/*
 * Purpose:   the SQLite store's functions for policy versions and freezes: see store_policy.h and store_freeze.h.
 * Owns:      nothing.
 * Threads:   as store.h.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_POLICY_H
#define KMS_STORE_SQLITE_POLICY_H

#include "store/store.h"

enum kms_status kms_sqlite_policy_insert(struct kms_store_txn *txn, const struct kms_policy_record *policy,
                                         struct kms_error *err);
enum kms_status kms_sqlite_policy_get(struct kms_store_txn *txn, uint64_t version,
                                      struct kms_policy_record *ret_policy, struct kms_error *err);
enum kms_status kms_sqlite_policy_list(struct kms_store_txn *txn, uint64_t before, size_t limit,
                                       kms_policy_visit visit, void *context, struct kms_error *err);

enum kms_status kms_sqlite_freeze_insert(struct kms_store_txn *txn, const struct kms_freeze_record *freeze,
                                         struct kms_error *err);
enum kms_status kms_sqlite_freeze_remove(struct kms_store_txn *txn, enum kms_freeze_scope scope,
                                         const char *tenant, const char *name, struct kms_error *err);
enum kms_status kms_sqlite_freeze_list(struct kms_store_txn *txn, const struct kms_freeze_record *after,
                                       size_t limit, kms_freeze_visit visit, void *context,
                                       struct kms_error *err);

#endif
