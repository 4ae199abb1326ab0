/*
 * Purpose:   the tables of store/store_seal.h.
 * Owns:      the SQL text of one migration.
 * Threads:   constants.
 * Never:     changes once it was released.
 */
#ifndef KMS_STORE_SCHEMA_SEAL_H
#define KMS_STORE_SCHEMA_SEAL_H

static const char kms_schema_seal[] = "CREATE TABLE record_seal ("
                                      "  bucket INTEGER NOT NULL CHECK (bucket BETWEEN 0 AND 1023),"
                                      "  key BLOB NOT NULL,"
                                      "  digest BLOB NOT NULL CHECK (length(digest) = 32),"
                                      "  PRIMARY KEY (bucket, key)"
                                      ") STRICT, WITHOUT ROWID;"

                                      "CREATE TABLE seal_head ("
                                      "  id INTEGER PRIMARY KEY CHECK (id = 1),"
                                      "  generation INTEGER NOT NULL CHECK (generation >= 1),"
                                      "  mac BLOB NOT NULL CHECK (length(mac) = 32)"
                                      ") STRICT;";

#endif
