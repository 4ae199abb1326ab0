/*
 * Purpose:   the seals of the SQLite store: see store_seal.h.
 * Owns:      the hashes of all buckets, in memory, between kms_sqlite_seal_begin() and kms_sqlite_seal_free().
 * Threads:   the functions for writers under the store's lock; those for readers on any thread.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_SEAL_H
#define KMS_STORE_SQLITE_SEAL_H

#include "store/seal.h"
#include "store/sqlite_impl.h"

enum kms_status kms_sqlite_seal_begin(struct kms_store *store, const struct kms_store_sealer *sealer,
                                      bool anew, struct kms_error *err);
void kms_sqlite_seal_trust(struct kms_store_txn *txn);
uint64_t kms_sqlite_seal_generation(struct kms_store *store);
/** NULL-safe. */
void kms_sqlite_seal_free(struct kms_sqlite_seals *seals);

/** For a write transaction: the entry follows the change whose payload is in the store's buffer. */
enum kms_status kms_sqlite_seal_note(struct kms_store_txn *txn, enum kms_change_kind kind,
                                     struct kms_error *err) KMS_MUST_USE;
/** Before COMMIT: the head follows the entries. */
enum kms_status kms_sqlite_seal_close(struct kms_store_txn *txn, struct kms_error *err) KMS_MUST_USE;
/** Around COMMIT: readers that check wait, so that what is in memory is what is in the database. */
void kms_sqlite_seal_hold(struct kms_store_txn *txn);
void kms_sqlite_seal_release(struct kms_store_txn *txn, bool committed);
/** Where a reader's transaction begins: nothing older than this may be shown to it. */
void kms_sqlite_seal_mark(struct kms_store_txn *txn);

/** TAMPERED unless the record, as it was read, is the one that was sealed. OK when nothing is sealed. */
enum kms_status kms_sqlite_seal_check(struct kms_store_txn *txn, const struct kms_change *record,
                                      struct kms_error *err) KMS_MUST_USE;
/** TAMPERED when there was such a record: its row was not found. `record` needs what the key is made of. */
enum kms_status kms_sqlite_seal_check_absent(struct kms_store_txn *txn, const struct kms_change *record,
                                             struct kms_error *err) KMS_MUST_USE;
/** TAMPERED unless that many records of the kind are sealed in that scope (NULL: those that have none). */
enum kms_status kms_sqlite_seal_check_count(struct kms_store_txn *txn, enum kms_change_kind kind,
                                            const struct kms_uuid *scope, size_t count,
                                            struct kms_error *err) KMS_MUST_USE;
/** The rest of the keys in a scope, one after the other; nothing when nothing is sealed. */
typedef enum kms_status (*kms_seal_visit)(void *context, struct kms_slice rest);
enum kms_status kms_sqlite_seal_each(struct kms_store_txn *txn, enum kms_change_kind kind,
                                     const struct kms_uuid *scope, kms_seal_visit visit, void *context,
                                     struct kms_error *err) KMS_MUST_USE;
/** The same as check(), for a record of the kind `KIND` whose struct is the member `member` of a change. */
#define KMS_SQLITE_SEAL_CHECK(txn, change_kind, member, record, err)                                         \
    kms_sqlite_seal_check(txn, &(const struct kms_change){.kind = (change_kind), .member = *(record)}, err)

#endif
