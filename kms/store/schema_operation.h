/*
 * Purpose:   the tables of operations and their approvals, as one migration.
 * Owns:      the SQL text.
 * Threads:   a constant.
 * Never:     changes once it was released.
 *
 * The document comes last: lists read rows without following it to its overflow pages.
 */
#ifndef KMS_STORE_SCHEMA_OPERATION_H
#define KMS_STORE_SCHEMA_OPERATION_H

static const char kms_schema_operation[] =
    "CREATE TABLE operation ("
    "  no INTEGER PRIMARY KEY,"
    "  uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),"
    "  kind TEXT NOT NULL,"
    "  tenant TEXT NOT NULL,"
    "  requester TEXT NOT NULL,"
    "  digest BLOB NOT NULL CHECK (length(digest) = 32),"
    "  approvals_needed INTEGER NOT NULL,"
    "  policy_generation INTEGER NOT NULL,"
    "  created_ns INTEGER NOT NULL,"
    "  expires_ns INTEGER NOT NULL,"
    "  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 8),"
    "  attempts INTEGER NOT NULL,"
    "  done INTEGER NOT NULL,"
    "  total INTEGER NOT NULL,"
    "  not_before_ns INTEGER NOT NULL,"
    "  started_ns INTEGER NOT NULL,"
    "  finished_ns INTEGER NOT NULL,"
    "  ended_by TEXT NOT NULL,"
    "  reason TEXT NOT NULL,"
    "  result TEXT NOT NULL,"
    "  document BLOB NOT NULL CHECK (length(document) BETWEEN 1 AND 1048576)"
    ") STRICT;"
    "CREATE INDEX operation_age ON operation (created_ns, uuid);"
    "CREATE INDEX operation_open ON operation (created_ns, no) WHERE state <= 3;"

    "CREATE TABLE approval ("
    "  operation_no INTEGER NOT NULL REFERENCES operation (no),"
    "  person TEXT NOT NULL,"
    "  identity TEXT NOT NULL,"
    "  certificate TEXT NOT NULL CHECK (length(certificate) BETWEEN 1 AND 65536),"
    "  signature BLOB NOT NULL CHECK (length(signature) BETWEEN 1 AND 1024),"
    "  time_ns INTEGER NOT NULL,"
    "  PRIMARY KEY (operation_no, person)"
    ") STRICT, WITHOUT ROWID;";

#endif
