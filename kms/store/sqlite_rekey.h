/*
 * Purpose:   re-keying in SQLite: the functions of struct kms_store_rekey_ops, which says what each does.
 * Owns:      nothing.
 * Threads:   that of the transaction.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_REKEY_H
#define KMS_STORE_SQLITE_REKEY_H

#include "store/store.h"

enum kms_status kms_sqlite_batch_insert(struct kms_store_txn *txn, const struct kms_batch_record *batch,
                                        struct kms_error *err);
enum kms_status kms_sqlite_batch_update(struct kms_store_txn *txn, const struct kms_batch_record *batch,
                                        struct kms_error *err);
enum kms_status kms_sqlite_batch_get(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                     struct kms_batch_record *ret_batch, struct kms_error *err);
enum kms_status kms_sqlite_batch_unfinished(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                            struct kms_batch_record *ret_batch, struct kms_error *err);
enum kms_status kms_sqlite_batch_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                      uint64_t after_epoch, size_t limit, kms_batch_visit visit,
                                      void *context, struct kms_error *err);
enum kms_status kms_sqlite_tombstone_put(struct kms_store_txn *txn,
                                         const struct kms_tombstone_record *tombstone, struct kms_error *err);
enum kms_status kms_sqlite_tombstone_by_mac(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                            const uint8_t id_mac[KMS_TOMBSTONE_MAC_SIZE],
                                            struct kms_tombstone_record *ret_tombstone,
                                            struct kms_error *err);
enum kms_status kms_sqlite_tombstone_for(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                         const char *purpose, struct kms_tombstone_record *ret_tombstone,
                                         struct kms_error *err);
enum kms_status kms_sqlite_tombstone_list(struct kms_store_txn *txn, const struct kms_uuid *batch,
                                          kms_tombstone_visit visit, void *context, struct kms_error *err);
enum kms_status kms_sqlite_tombstone_any(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         bool *ret_any, struct kms_error *err);
enum kms_status kms_sqlite_free_slots(struct kms_store_txn *txn, const struct kms_uuid *tenant, size_t limit,
                                      uint64_t **ret_slots, size_t *ret_count, struct kms_error *err);
enum kms_status kms_sqlite_free_slot_put(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         uint64_t slot, struct kms_error *err);
enum kms_status kms_sqlite_free_slot_take(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                          uint64_t slot, struct kms_error *err);
enum kms_status kms_sqlite_kek_shred(struct kms_store_txn *txn, const uint8_t kek_id[16],
                                     struct kms_error *err);
enum kms_status kms_sqlite_customer_remove(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                           struct kms_error *err);
enum kms_status kms_sqlite_keks_in_slots(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         uint64_t first, uint64_t count, struct kms_kek_record **ret_list,
                                         size_t *ret_count, struct kms_error *err);
enum kms_status kms_sqlite_keks_due(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                    const char *purpose, int64_t created_before_ns, uint64_t after,
                                    uint64_t scan, size_t limit, struct kms_kek_record **ret_list,
                                    size_t *ret_count, uint64_t *ret_next, struct kms_error *err);
enum kms_status kms_sqlite_kek_add_rewrapped(struct kms_store_txn *txn, const uint8_t kek_id[16],
                                             uint64_t count, struct kms_error *err);

#define KMS_SQLITE_REKEY_OPS                                                                                 \
    {                                                                                                        \
        .batch_insert = kms_sqlite_batch_insert, .batch_update = kms_sqlite_batch_update,                    \
        .batch_get = kms_sqlite_batch_get, .batch_unfinished = kms_sqlite_batch_unfinished,                  \
        .batch_list = kms_sqlite_batch_list, .tombstone_put = kms_sqlite_tombstone_put,                      \
        .tombstone_by_mac = kms_sqlite_tombstone_by_mac, .tombstone_for = kms_sqlite_tombstone_for,          \
        .tombstone_list = kms_sqlite_tombstone_list, .tombstone_any = kms_sqlite_tombstone_any,              \
        .free_slots = kms_sqlite_free_slots, .free_slot_put = kms_sqlite_free_slot_put,                      \
        .free_slot_take = kms_sqlite_free_slot_take, .kek_shred = kms_sqlite_kek_shred,                      \
        .customer_remove = kms_sqlite_customer_remove, .keks_in_slots = kms_sqlite_keks_in_slots,            \
        .keks_due = kms_sqlite_keks_due, .kek_add_rewrapped = kms_sqlite_kek_add_rewrapped,                  \
    }

struct kms_query;
/** One row of KMS_KEK_COLUMNS (sqlite_kek.c). */
enum kms_status kms_sqlite_kek_take(struct kms_query *query, struct kms_kek_record *ret_kek,
                                    struct kms_error *err) KMS_MUST_USE;

#endif
