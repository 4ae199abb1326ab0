/*
 * Purpose:   the tables of store/store_shred.h.
 * Owns:      the SQL text of one migration.
 * Threads:   constants.
 * Never:     changes once it was released.
 *
 * Targets name customers by UUID and refer to no row of theirs: a customer may be forgotten, the fact that it was shredded not.
 */
#ifndef KMS_STORE_SCHEMA_SHRED_H
#define KMS_STORE_SCHEMA_SHRED_H

static const char kms_schema_shred[] =
    "CREATE TABLE shred_job ("
    "  no INTEGER PRIMARY KEY,"
    "  uid BLOB NOT NULL UNIQUE CHECK (length(uid) = 16),"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  origin INTEGER NOT NULL,"
    "  state INTEGER NOT NULL,"
    "  purpose TEXT NOT NULL,"
    "  version INTEGER NOT NULL CHECK (version BETWEEN 0 AND 4294967295),"
    "  requested_by TEXT NOT NULL,"
    "  reason TEXT NOT NULL,"
    "  requested_ns INTEGER NOT NULL,"
    "  window_seconds INTEGER NOT NULL CHECK (window_seconds >= 0),"
    "  due_ns INTEGER NOT NULL,"
    "  operation BLOB NOT NULL CHECK (length(operation) = 16),"
    "  list_hash BLOB NOT NULL CHECK (length(list_hash) = 32)"
    ") STRICT;"
    "CREATE INDEX shred_job_state ON shred_job (state, no);"

    "CREATE TABLE shred_target ("
    "  job_no INTEGER NOT NULL REFERENCES shred_job (no),"
    "  customer BLOB NOT NULL CHECK (length(customer) = 16),"
    "  state INTEGER NOT NULL,"
    "  batch BLOB NOT NULL CHECK (length(batch) = 16),"
    "  changed_ns INTEGER NOT NULL,"
    "  reason TEXT NOT NULL,"
    "  PRIMARY KEY (job_no, customer)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX shred_target_customer ON shred_target (customer);"
    "CREATE INDEX shred_target_batch ON shred_target (batch, customer) WHERE state = 3;"

    "CREATE TABLE hold ("
    "  no INTEGER PRIMARY KEY,"
    "  uid BLOB NOT NULL UNIQUE CHECK (length(uid) = 16),"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  customer BLOB NOT NULL CHECK (length(customer) = 16),"
    "  reference TEXT NOT NULL,"
    "  reason TEXT NOT NULL,"
    "  placed_by TEXT NOT NULL,"
    "  placed_ns INTEGER NOT NULL,"
    "  released_by TEXT NOT NULL,"
    "  released_ns INTEGER NOT NULL"
    ") STRICT;"
    "CREATE INDEX hold_on ON hold (customer) WHERE released_ns = 0;"
    "CREATE INDEX hold_tenant ON hold (tenant_no, no);"

    "CREATE TABLE certificate ("
    "  no INTEGER PRIMARY KEY,"
    "  uid BLOB NOT NULL UNIQUE CHECK (length(uid) = 16),"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  batch BLOB NOT NULL UNIQUE CHECK (length(batch) = 16),"
    "  kind INTEGER NOT NULL,"
    "  created_ns INTEGER NOT NULL,"
    "  document BLOB NOT NULL CHECK (length(document) BETWEEN 1 AND 1048576),"
    "  signature BLOB NOT NULL CHECK (length(signature) BETWEEN 1 AND 80)"
    ") STRICT;"
    "CREATE INDEX certificate_tenant ON certificate (tenant_no, no);"

    "CREATE TABLE shred_setting ("
    "  tenant_no INTEGER PRIMARY KEY REFERENCES tenant (no),"
    "  window_seconds INTEGER NOT NULL CHECK (window_seconds >= 0),"
    "  shred_closed INTEGER NOT NULL CHECK (shred_closed IN (0, 1))"
    ") STRICT;"

    "CREATE TABLE retention ("
    "  customer BLOB NOT NULL CHECK (length(customer) = 16),"
    "  purpose TEXT NOT NULL,"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  due_ns INTEGER NOT NULL,"
    "  PRIMARY KEY (customer, purpose)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX retention_due ON retention (due_ns);"

    "CREATE TABLE shred_clock ("
    "  id INTEGER PRIMARY KEY CHECK (id = 1),"
    "  trusted_ns INTEGER NOT NULL,"
    "  boot_ns INTEGER NOT NULL,"
    "  boot_id TEXT NOT NULL"
    ") STRICT;";

#endif
