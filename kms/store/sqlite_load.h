/*
 * Purpose:   the loading of customers and KEKs by the thousand into a draft; see store_changes.h.
 * Owns:      the rows' numbers, which the store frees after the connection.
 * Threads:   that of the transaction.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_LOAD_H
#define KMS_STORE_SQLITE_LOAD_H

#include "store/sqlite_impl.h"

/** Virtual tables for the writing connection of a draft. Free them with free() after the connection was closed. */
enum kms_status kms_sqlite_rows_new(sqlite3 *db, struct kms_sqlite_rows **ret_rows,
                                    struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_sqlite_changes_load(struct kms_store_txn *txn, const struct kms_change *list,
                                        size_t count, struct kms_error *err);
/** What a draft's statements do not check, once, before its commit: references, and that labels are JSON. STORE_CORRUPT. */
enum kms_status kms_sqlite_draft_check(struct kms_store_txn *txn, struct kms_error *err) KMS_MUST_USE;

#endif
