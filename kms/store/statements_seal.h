/*
 * Purpose:   the SQL statements of seals; see statements.h.
 * Owns:      the SQL text.
 * Threads:   constants.
 * Never:     builds SQL from values: values are bound.
 */
#ifndef KMS_STORE_STATEMENTS_SEAL_H
#define KMS_STORE_STATEMENTS_SEAL_H

#define KMS_STATEMENT_TABLE_SEAL(X)                                                                          \
    X(SEAL_GET, ALL, "SELECT digest FROM record_seal WHERE bucket = ? AND key = ?")                          \
    X(SEAL_BUCKET, ALL, "SELECT key, digest FROM record_seal WHERE bucket = ? ORDER BY key")                 \
    X(SEAL_SCOPE, ALL,                                                                                       \
      "SELECT key FROM record_seal WHERE bucket = ?1 AND key >= ?2 AND substr(key, 1, length(?2)) = ?2 "     \
      "ORDER BY key")                                                                                        \
    X(SEAL_PUT, WRITER,                                                                                      \
      "INSERT INTO record_seal (bucket, key, digest) VALUES (?1, ?2, ?3) "                                   \
      "ON CONFLICT (bucket, key) DO UPDATE SET digest = ?3")                                                 \
    X(SEAL_REMOVE, WRITER, "DELETE FROM record_seal WHERE bucket = ? AND key = ?")                           \
    X(SEAL_REMOVE_ALL, WRITER, "DELETE FROM record_seal")                                                    \
    X(SEAL_HEAD_GET, ALL, "SELECT generation, mac FROM seal_head")                                           \
    X(SEAL_HEAD_PUT, WRITER,                                                                                 \
      "INSERT INTO seal_head (id, generation, mac) VALUES (1, ?1, ?2) "                                      \
      "ON CONFLICT (id) DO UPDATE SET generation = ?1, mac = ?2")                                            \
    X(SEAL_NONE_NEEDED, WRITER,                                                                              \
      "SELECT NOT EXISTS (SELECT 1 FROM tenant) AND NOT EXISTS (SELECT 1 FROM policy) "                      \
      "AND NOT EXISTS (SELECT 1 FROM operation) AND NOT EXISTS (SELECT 1 FROM freeze)")

#endif
