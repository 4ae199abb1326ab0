/*
 * Purpose:   the tables of recovery keys.
 * Owns:      constants.
 * Threads:   constants.
 * Never:     changes after it was released: a later migration does.
 */
#ifndef KMS_STORE_SCHEMA_RECOVERY_H
#define KMS_STORE_SCHEMA_RECOVERY_H

static const char kms_schema_recovery[] =
    "CREATE TABLE recovery_key ("
    "  epoch INTEGER PRIMARY KEY CHECK (epoch >= 1),"
    "  fingerprint TEXT NOT NULL UNIQUE CHECK (length(fingerprint) = 64),"
    "  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 3),"
    "  enrolled_ns INTEGER NOT NULL,"
    "  enrolled_by TEXT NOT NULL,"
    "  enroll_operation BLOB NOT NULL CHECK (length(enroll_operation) = 16),"
    "  retire_operation BLOB NOT NULL CHECK (length(retire_operation) = 16),"
    "  retired_ns INTEGER NOT NULL,"
    "  retired_by TEXT NOT NULL,"
    "  statement TEXT NOT NULL,"
    "  object_left INTEGER NOT NULL CHECK (object_left IN (0, 1)),"
    "  drill_ns INTEGER NOT NULL,"
    "  drill_took_ns INTEGER NOT NULL CHECK (drill_took_ns >= 0),"
    "  drill_by TEXT NOT NULL,"
    "  drill_customers INTEGER NOT NULL CHECK (drill_customers >= 0)"
    ") STRICT;"

    "CREATE TABLE recovery_cover ("
    "  recovery_epoch INTEGER NOT NULL REFERENCES recovery_key (epoch),"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  first_epoch INTEGER NOT NULL CHECK (first_epoch >= 1),"
    "  PRIMARY KEY (recovery_epoch, tenant_no)"
    ") STRICT, WITHOUT ROWID;";

#endif
