/*
 * Purpose:   the migration that adds re-keying: see schema.h.
 * Owns:      the SQL text.
 * Threads:   a constant.
 * Never:     changes once it was released.
 *
 * rekey_batch_open holds the rule that a tenant has one unfinished batch (states 1 and 2). change_log_customer finds a customer's
 * records (kind 3, whose body begins with its UUID) when its external id must go.
 */
#ifndef KMS_STORE_SCHEMA_REKEY_H
#define KMS_STORE_SCHEMA_REKEY_H

static const char kms_schema_rekey[] =
    "CREATE TABLE rekey_batch ("
    "  no INTEGER PRIMARY KEY,"
    "  uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  kind INTEGER NOT NULL,"
    "  reference TEXT NOT NULL,"
    "  old_epoch INTEGER NOT NULL CHECK (old_epoch >= 1),"
    "  old_master_id BLOB NOT NULL CHECK (length(old_master_id) = 16),"
    "  new_master_id BLOB NOT NULL CHECK (length(new_master_id) = 16),"
    "  created_ns INTEGER NOT NULL,"
    "  document BLOB NOT NULL,"
    "  signature BLOB NOT NULL,"
    "  state INTEGER NOT NULL,"
    "  pages INTEGER NOT NULL,"
    "  keys_rewrapped INTEGER NOT NULL,"
    "  keys_shredded INTEGER NOT NULL,"
    "  customers INTEGER NOT NULL,"
    "  pages_digest BLOB NOT NULL CHECK (length(pages_digest) = 32),"
    "  committed_ns INTEGER NOT NULL,"
    "  sealed_ns INTEGER NOT NULL"
    ") STRICT;"
    "CREATE INDEX rekey_batch_epoch ON rekey_batch (tenant_no, old_epoch);"
    "CREATE UNIQUE INDEX rekey_batch_open ON rekey_batch (tenant_no) WHERE state IN (1, 2);"

    "CREATE TABLE tombstone ("
    "  customer BLOB NOT NULL CHECK (length(customer) = 16),"
    "  purpose TEXT NOT NULL,"
    "  version INTEGER NOT NULL,"
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  id_mac BLOB NOT NULL CHECK (length(id_mac) = 32),"
    "  epoch INTEGER NOT NULL,"
    "  batch BLOB NOT NULL CHECK (length(batch) = 16),"
    "  created_ns INTEGER NOT NULL,"
    "  PRIMARY KEY (customer, purpose, version)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX tombstone_mac ON tombstone (tenant_no, id_mac, epoch) WHERE purpose = '';"
    "CREATE INDEX tombstone_batch ON tombstone (batch);"

    "CREATE TABLE free_slot ("
    "  tenant_no INTEGER NOT NULL REFERENCES tenant (no),"
    "  slot INTEGER NOT NULL CHECK (slot >= 0),"
    "  PRIMARY KEY (tenant_no, slot)"
    ") STRICT, WITHOUT ROWID;"

    "ALTER TABLE kek ADD COLUMN rewrapped INTEGER NOT NULL DEFAULT 0 CHECK (rewrapped >= 0);"
    "CREATE INDEX change_log_customer ON change_log (substr(payload, 3, 16)) WHERE kind = 3;";

#endif
