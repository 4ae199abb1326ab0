/*
 * Purpose:   what an SQLite result code means for the service, and a text that says what to do.
 * Owns:      nothing.
 * Threads:   safe.
 * Never:     puts a file name or an SQL text where a remote caller can read it.
 */
#ifndef KMS_STORE_SQLITE_ERROR_H
#define KMS_STORE_SQLITE_ERROR_H

#include "core/status.h"

#include <sqlite3.h>

/**
 * The status of a failed call on `db` (NULL: the open itself ran out of memory), with `what` was being done
 * in the cause. `rc` is a primary or extended result code, not OK, ROW or DONE. Constraints are INTERNAL
 * here: see kms_sqlite_constraint().
 */
enum kms_status kms_sqlite_error(sqlite3 *db, int rc, const char *what, struct kms_error *err);

/**
 * ALREADY_EXISTS for a taken key, NOT_FOUND for a missing parent, INVALID_ARGUMENT for a broken check; OK
 * when `rc` is not a broken constraint.
 */
enum kms_status kms_sqlite_constraint(int rc);

#endif
