/*
 * Purpose:   the migration that adds when a retention began: see schema.h.
 * Owns:      the SQL text.
 * Threads:   a constant.
 * Never:     changes once it was released.
 *
 * Of the retentions that run already nobody knows it any more: they end as they would have.
 */
#ifndef KMS_STORE_SCHEMA_RETENTION_H
#define KMS_STORE_SCHEMA_RETENTION_H

static const char kms_schema_retention[] =
    "ALTER TABLE retention ADD COLUMN began_ns INTEGER NOT NULL DEFAULT 0;";

#endif
