/*
 * Purpose:   the SQLite store's functions for operations: see store/store_operation.h.
 * Owns:      nothing.
 * Threads:   as store.h.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_OPERATION_H
#define KMS_STORE_SQLITE_OPERATION_H

#include "store/store.h"

enum kms_status kms_sqlite_operation_insert(struct kms_store_txn *txn,
                                            const struct kms_operation_record *operation,
                                            struct kms_error *err);
enum kms_status kms_sqlite_operation_update(struct kms_store_txn *txn,
                                            const struct kms_operation_record *operation,
                                            enum kms_operation_state expected, struct kms_error *err);
enum kms_status kms_sqlite_operation_get(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                         struct kms_operation_record *ret_operation, struct kms_error *err);
enum kms_status kms_sqlite_operation_expired(struct kms_store_txn *txn, int64_t now_ns, size_t limit,
                                             kms_operation_visit visit, void *context, struct kms_error *err);
enum kms_status kms_sqlite_operation_old(struct kms_store_txn *txn, int64_t before_ns, size_t limit,
                                         kms_operation_visit visit, void *context, struct kms_error *err);
enum kms_status kms_sqlite_operation_next(struct kms_store_txn *txn, int64_t now_ns, const char *kinds,
                                          bool among, struct kms_operation_record *ret_operation,
                                          struct kms_error *err);
enum kms_status kms_sqlite_operation_count_open(struct kms_store_txn *txn, const char *requester,
                                                uint64_t *ret_count, uint64_t *ret_of_requester,
                                                struct kms_error *err);
enum kms_status kms_sqlite_operation_list(struct kms_store_txn *txn,
                                          const struct kms_operation_filter *filter,
                                          const struct kms_operation_place *after, size_t limit,
                                          kms_operation_visit visit, void *context, struct kms_error *err);
enum kms_status kms_sqlite_operation_remove(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                            struct kms_error *err);
enum kms_status kms_sqlite_operation_approve(struct kms_store_txn *txn,
                                             const struct kms_approval_record *approval,
                                             struct kms_error *err);
enum kms_status kms_sqlite_operation_approvals(struct kms_store_txn *txn, const struct kms_uuid *operation,
                                               struct kms_approval_record **ret_list, size_t *ret_count,
                                               struct kms_error *err);

#endif
