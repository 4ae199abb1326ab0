#include "store/schema.h"

#include "core/cleanup.h"
#include "store/schema_operation.h"
#include "store/schema_policy.h"
#include "store/schema_recovery.h"
#include "store/schema_shred.h"
#include "store/schema_rekey.h"
#include "store/schema_retention.h"
#include "store/schema_seal.h"
#include "store/sqlite_error.h"

#include <stdlib.h>
#include <string.h>

/*
 * Internal numbers (tenant_no, customer_no) stand for UUIDs inside the file only: they keep keys short, so
 * that rows of one customer are appended in order and fewer pages are written.
 *
 * tree_page.id packs tenant_no, level and page_index: one B-tree, found by its row id, instead of a table and
 * an index. kek.wraps_reserved is kept plus 2^40, so that it takes six bytes from birth on and counting
 * overwrites the row in place instead of making it grow. That labels are JSON is checked by the statements:
 * SQLite 3.40 does not let a schema call json_valid() when the schema is not trusted.
 */
static const char *const migration_sql[] = {
    "CREATE TABLE tenant ("
    "  no INTEGER PRIMARY KEY CHECK (no BETWEEN 1 AND 1048575),"
    "  uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),"
    "  id TEXT NOT NULL UNIQUE,"
    "  display_name TEXT NOT NULL,"
    "  state INTEGER NOT NULL,"
    "  epoch INTEGER NOT NULL,"
    "  master_id BLOB NOT NULL CHECK (length(master_id) = 16),"
    "  root_blob BLOB NOT NULL CHECK (length(root_blob) = 40),"
    "  height INTEGER NOT NULL,"
    "  next_slot INTEGER NOT NULL,"
    "  revision INTEGER NOT NULL,"
    "  created_ns INTEGER NOT NULL,"
    "  updated_ns INTEGER NOT NULL"
    ") STRICT;"

    "CREATE TABLE purpose ("
    "  no INTEGER PRIMARY KEY,"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  id TEXT NOT NULL,"
    "  display_name TEXT NOT NULL,"
    "  legal_basis TEXT NOT NULL,"
    "  state INTEGER NOT NULL,"
    "  required_by_law INTEGER NOT NULL CHECK (required_by_law IN (0, 1)),"
    "  retention_seconds INTEGER NOT NULL CHECK (retention_seconds >= 0),"
    "  rotation_seconds INTEGER NOT NULL CHECK (rotation_seconds >= 0),"
    "  revision INTEGER NOT NULL,"
    "  created_ns INTEGER NOT NULL,"
    "  updated_ns INTEGER NOT NULL,"
    "  UNIQUE (tenant_no, id)"
    ") STRICT;"

    "CREATE TABLE customer ("
    "  no INTEGER PRIMARY KEY,"
    "  uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  id TEXT NOT NULL,"
    "  labels TEXT NOT NULL,"
    "  state INTEGER NOT NULL,"
    "  revision INTEGER NOT NULL,"
    "  created_ns INTEGER NOT NULL,"
    "  updated_ns INTEGER NOT NULL,"
    "  UNIQUE (tenant_no, id)"
    ") STRICT;"

    "CREATE TABLE kek ("
    "  customer_no INTEGER NOT NULL REFERENCES customer (no),"
    "  purpose TEXT NOT NULL,"
    "  version INTEGER NOT NULL CHECK (version BETWEEN 1 AND 4294967295),"
    "  kek_id BLOB NOT NULL UNIQUE CHECK (length(kek_id) = 16),"
    "  tenant_no INTEGER NOT NULL,"
    "  slot INTEGER NOT NULL CHECK (slot >= 0),"
    "  state INTEGER NOT NULL,"
    "  wraps_reserved INTEGER NOT NULL CHECK (wraps_reserved >= 1099511627776),"
    "  created_ns INTEGER NOT NULL,"
    "  PRIMARY KEY (customer_no, purpose, version),"
    "  FOREIGN KEY (tenant_no, purpose) REFERENCES purpose (tenant_no, id)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE UNIQUE INDEX kek_slot ON kek (tenant_no, slot) WHERE state <> 3;"

    "CREATE TABLE tree_page ("
    "  id INTEGER PRIMARY KEY CHECK (id = ((tenant_no << 43) | (level << 39) | page_index)),"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 15),"
    "  page_index INTEGER NOT NULL CHECK (page_index BETWEEN 0 AND 549755813887),"
    "  mac BLOB NOT NULL CHECK (length(mac) = 32),"
    "  body BLOB NOT NULL CHECK (length(body) BETWEEN 1 AND 65536)"
    ") STRICT;"

    "CREATE TABLE request ("
    "  identity TEXT NOT NULL,"
    "  request_id TEXT NOT NULL,"
    "  request_hash BLOB NOT NULL CHECK (length(request_hash) = 32),"
    "  created_ns INTEGER NOT NULL,"
    "  PRIMARY KEY (identity, request_id)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX request_age ON request (created_ns);"

    "CREATE TABLE change_log ("
    "  seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  time_ns INTEGER NOT NULL,"
    "  kind INTEGER NOT NULL,"
    "  payload BLOB NOT NULL"
    ") STRICT;",
    kms_schema_operation,
    kms_schema_shred,
    kms_schema_rekey,
    kms_schema_policy,
    kms_schema_recovery,
    kms_schema_retention,
    kms_schema_seal,
};

const struct kms_schema_migrations kms_schema_migrations = {migration_sql,
                                                            sizeof migration_sql / sizeof migration_sql[0]};

/* One integer out of a PRAGMA or a SELECT. */
static enum kms_status read_number(sqlite3 *db, const char *sql, int64_t *ret_number, struct kms_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *ret_number = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return rc == SQLITE_ROW ? KMS_OK : kms_sqlite_error(db, rc, "reading the schema", err);
}

/* One migration and its number, or nothing of it. */
static enum kms_status apply_one(sqlite3 *db, const char *sql, size_t version, struct kms_error *err)
{
    char finish[128];
    (void)sqlite3_snprintf(sizeof finish, finish, "PRAGMA application_id=%d;PRAGMA user_version=%lld;COMMIT",
                           KMS_SCHEMA_APPLICATION_ID, (sqlite3_int64)version);
    int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, finish, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return KMS_OK;
    char what[64];
    (void)sqlite3_snprintf(sizeof what, what, "migrating to schema version %lld", (sqlite3_int64)version);
    const enum kms_status status = kms_sqlite_error(db, rc, what, err);
    if (sqlite3_get_autocommit(db) == 0)
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

enum kms_status kms_schema_migrate(sqlite3 *db, const struct kms_schema_migrations *migrations,
                                   struct kms_error *err)
{
    int64_t application = 0;
    int64_t version = 0;
    int64_t tables = 0;
    KMS_TRY(read_number(db, "PRAGMA application_id", &application, err));
    KMS_TRY(read_number(db, "PRAGMA user_version", &version, err));
    KMS_TRY(read_number(db, "SELECT count(*) FROM sqlite_schema", &tables, err));
    const bool empty = application == 0 && version == 0 && tables == 0;
    if (application != KMS_SCHEMA_APPLICATION_ID && !empty)
        return kms_fail(err, KMS_STORE_CORRUPT,
                        "the file is an SQLite database of another program (application id 0x%llx): check "
                        "store.path",
                        (unsigned long long)application);
    if (version > (int64_t)migrations->count)
        return kms_fail(err, KMS_STORE_NEWER,
                        "the database has schema version %lld, this program knows up to %zu: run the newer "
                        "program again, or restore a backup made before the upgrade",
                        (long long)version, migrations->count);
    if (version < 0)
        return kms_fail(err, KMS_STORE_CORRUPT, "the database has schema version %lld: restore a backup",
                        (long long)version);
    for (size_t next = (size_t)version; next < migrations->count; next++)
        KMS_TRY(apply_one(db, migrations->sql[next], next + 1, err));
    return KMS_OK;
}

static const char list_schema[] =
    "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*' "
    "ORDER BY type, name";

/* Compare one row of both schema lists; they end together. */
static bool same_row(sqlite3_stmt *left, sqlite3_stmt *right)
{
    for (int column = 0; column < 4; column++) {
        const char *a = (const char *)sqlite3_column_text(left, column);
        const char *b = (const char *)sqlite3_column_text(right, column);
        if (a == NULL || b == NULL || strcmp(a, b) != 0)
            return false;
    }
    return true;
}

/* Walk both lists side by side. */
static enum kms_status compare_schemas(sqlite3 *db, sqlite3_stmt *found, sqlite3_stmt *wanted,
                                       struct kms_error *err)
{
    for (;;) {
        const int found_rc = sqlite3_step(found);
        const int wanted_rc = sqlite3_step(wanted);
        if (found_rc != SQLITE_ROW && found_rc != SQLITE_DONE)
            return kms_sqlite_error(db, found_rc, "reading the schema", err);
        if (wanted_rc != SQLITE_ROW && wanted_rc != SQLITE_DONE)
            return kms_sqlite_error(sqlite3_db_handle(wanted), wanted_rc, "reading the wanted schema", err);
        if (found_rc == SQLITE_DONE && wanted_rc == SQLITE_DONE)
            return KMS_OK;
        if (found_rc != wanted_rc || !same_row(found, wanted))
            return kms_fail(
                err, KMS_STORE_CORRUPT,
                "the tables of the database are not those of its schema version: somebody changed "
                "them, or the file is damaged; restore a backup");
    }
}

enum kms_status kms_schema_check(sqlite3 *db, const struct kms_schema_migrations *migrations,
                                 struct kms_error *err)
{
    sqlite3 *model = NULL;
    sqlite3_stmt *found = NULL;
    sqlite3_stmt *wanted = NULL;
    enum kms_status status = KMS_OK;
    int rc = sqlite3_open_v2(":memory:", &model,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        status = kms_sqlite_error(model, rc, "opening a model of the schema", err);
    if (status == KMS_OK)
        status = kms_schema_migrate(model, migrations, err);
    if (status == KMS_OK && (rc = sqlite3_prepare_v2(db, list_schema, -1, &found, NULL)) != SQLITE_OK)
        status = kms_sqlite_error(db, rc, "reading the schema", err);
    if (status == KMS_OK && (rc = sqlite3_prepare_v2(model, list_schema, -1, &wanted, NULL)) != SQLITE_OK)
        status = kms_sqlite_error(model, rc, "reading the wanted schema", err);
    if (status == KMS_OK)
        status = compare_schemas(db, found, wanted, err);
    (void)sqlite3_finalize(found);
    (void)sqlite3_finalize(wanted);
    (void)sqlite3_close(model);
    return status;
}
