/*
 * Purpose:   the SQLite functions behind store/store_shred.h.
 * Owns:      nothing.
 * Threads:   that of the transaction.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_SHRED_H
#define KMS_STORE_SQLITE_SHRED_H

#include "store/sqlite_impl.h"

/** The internal number of the row with this uid, by a look-up statement; 0 for NULL. NOT_FOUND says "no such `what`". */
enum kms_status kms_sqlite_row_no(struct kms_store_txn *txn, enum kms_statement which,
                                  const struct kms_uuid *uid, const char *what, int64_t *ret_no,
                                  struct kms_error *err) KMS_MUST_USE;

enum kms_status kms_sqlite_shred_job_put(struct kms_store_txn *txn, const struct kms_shred_job_record *job,
                                         struct kms_error *err);
enum kms_status kms_sqlite_shred_job_get(struct kms_store_txn *txn, const struct kms_uuid *uid,
                                         struct kms_shred_job_record *ret_job, struct kms_error *err);
enum kms_status kms_sqlite_shred_job_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                          enum kms_shred_job_state state, const struct kms_uuid *after,
                                          size_t limit, kms_shred_job_visit visit, void *context,
                                          struct kms_error *err);
enum kms_status kms_sqlite_shred_target_put(struct kms_store_txn *txn,
                                            const struct kms_shred_target_record *target,
                                            struct kms_error *err);
enum kms_status kms_sqlite_shred_target_get(struct kms_store_txn *txn, const struct kms_uuid *job,
                                            const struct kms_uuid *customer,
                                            struct kms_shred_target_record *ret_target,
                                            struct kms_error *err);
enum kms_status kms_sqlite_shred_target_list(struct kms_store_txn *txn,
                                             const struct kms_shred_target_filter *filter,
                                             const struct kms_uuid *after, size_t limit,
                                             kms_shred_target_visit visit, void *context,
                                             struct kms_error *err);
enum kms_status kms_sqlite_shred_target_count(struct kms_store_txn *txn, const struct kms_uuid *job,
                                              uint64_t ret_counts[KMS_SHRED_TARGET_STATES],
                                              struct kms_error *err);
enum kms_status kms_sqlite_hold_put(struct kms_store_txn *txn, const struct kms_hold_record *hold,
                                    struct kms_error *err);
enum kms_status kms_sqlite_hold_get(struct kms_store_txn *txn, const struct kms_uuid *uid,
                                    struct kms_hold_record *ret_hold, struct kms_error *err);
enum kms_status kms_sqlite_hold_on(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                   struct kms_hold_record *ret_hold, struct kms_error *err);
enum kms_status kms_sqlite_hold_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                     const struct kms_uuid *customer, bool released,
                                     const struct kms_uuid *after, size_t limit, kms_hold_visit visit,
                                     void *context, struct kms_error *err);
enum kms_status kms_sqlite_certificate_insert(struct kms_store_txn *txn,
                                              const struct kms_certificate_record *certificate,
                                              struct kms_error *err);
enum kms_status kms_sqlite_certificate_get(struct kms_store_txn *txn, const struct kms_uuid *uid_or_batch,
                                           struct kms_certificate_record *ret_certificate,
                                           struct kms_error *err);
enum kms_status kms_sqlite_certificate_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                            const struct kms_uuid *after, size_t limit,
                                            kms_certificate_visit visit, void *context,
                                            struct kms_error *err);
enum kms_status kms_sqlite_shred_setting_put(struct kms_store_txn *txn,
                                             const struct kms_shred_setting_record *setting,
                                             struct kms_error *err);
enum kms_status kms_sqlite_shred_setting_get(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                             struct kms_shred_setting_record *ret_setting,
                                             struct kms_error *err);
enum kms_status kms_sqlite_retention_put(struct kms_store_txn *txn,
                                         const struct kms_retention_record *retention, struct kms_error *err);
enum kms_status kms_sqlite_retention_list(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                          int64_t due_until_ns, size_t limit, kms_retention_visit visit,
                                          void *context, struct kms_error *err);
enum kms_status kms_sqlite_shred_clock_put(struct kms_store_txn *txn,
                                           const struct kms_shred_clock_record *clock, struct kms_error *err);
enum kms_status kms_sqlite_shred_clock_get(struct kms_store_txn *txn,
                                           struct kms_shred_clock_record *ret_clock, struct kms_error *err);

#endif
