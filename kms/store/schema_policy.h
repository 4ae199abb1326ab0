/*
 * Purpose:   the tables of policy versions and of what is frozen.
 * Owns:      constants.
 * Threads:   constants.
 * Never:     changes after it was released: a later migration does.
 */
#ifndef KMS_STORE_SCHEMA_POLICY_H
#define KMS_STORE_SCHEMA_POLICY_H

static const char kms_schema_policy[] =
    "CREATE TABLE policy ("
    "  version INTEGER PRIMARY KEY CHECK (version >= 1),"
    "  sha256 BLOB NOT NULL CHECK (length(sha256) = 32),"
    "  identity TEXT NOT NULL,"
    "  operation TEXT NOT NULL,"
    "  comment TEXT NOT NULL,"
    "  created_ns INTEGER NOT NULL,"
    "  document BLOB NOT NULL CHECK (length(document) BETWEEN 1 AND 1048576)"
    ") STRICT;"

    "CREATE TABLE freeze ("
    "  scope INTEGER NOT NULL CHECK (scope BETWEEN 1 AND 4),"
    "  tenant TEXT NOT NULL,"
    "  name TEXT NOT NULL,"
    "  reason TEXT NOT NULL,"
    "  identity TEXT NOT NULL,"
    "  created_ns INTEGER NOT NULL,"
    "  PRIMARY KEY (scope, tenant, name)"
    ") STRICT, WITHOUT ROWID;";

#endif
