/*
 * Purpose:   the tables, as numbered migrations, and the check that a file has exactly these tables.
 * Owns:      the SQL text.
 * Threads:   a connection is used by one thread at a time.
 * Never:     changes a migration that was ever released: a change is a new number.
 */
#ifndef KMS_STORE_SCHEMA_H
#define KMS_STORE_SCHEMA_H

#include "core/status.h"

#include <sqlite3.h>
#include <stddef.h>

/** In the header of every database file: "kms1". */
#define KMS_SCHEMA_APPLICATION_ID 0x6b6d7331

/** Migrations in order; migrations.sql[n - 1] leads from version n - 1 to n. */
struct kms_schema_migrations {
    const char *const *sql;
    size_t count;
};
extern const struct kms_schema_migrations kms_schema_migrations;

/**
 * Bring an open database to the newest version, each step in a transaction of its own. An empty database
 * becomes one of ours. STORE_NEWER: of a later version (the cause names both). STORE_CORRUPT: another
 * program's database, or damaged. Else as for every statement.
 */
enum kms_status kms_schema_migrate(sqlite3 *db, const struct kms_schema_migrations *migrations,
                                   struct kms_error *err) KMS_MUST_USE;

/**
 * STORE_CORRUPT unless the file's tables and indexes are letter by letter those that the migrations make:
 * none missing, changed or added (statistics of ANALYZE apart). Reads the schema table only.
 */
enum kms_status kms_schema_check(sqlite3 *db, const struct kms_schema_migrations *migrations,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
