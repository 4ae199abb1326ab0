/*
 * Purpose:   the SQL statements of policy versions and of what is frozen; see statements.h.
 * Owns:      the SQL text.
 * Threads:   constants.
 * Never:     builds SQL from values: values are bound.
 */
#ifndef KMS_STORE_STATEMENTS_POLICY_H
#define KMS_STORE_STATEMENTS_POLICY_H

#define KMS_POLICY_COLUMNS "version, sha256, identity, operation, comment, created_ns, length(document)"
#define KMS_FREEZE_COLUMNS "scope, tenant, name, reason, identity, created_ns"

#define KMS_STATEMENT_TABLE_POLICY(X)                                                                        \
    X(POLICY_INSERT, WRITER,                                                                                 \
      "INSERT INTO policy (version, sha256, identity, operation, comment, created_ns, document) "            \
      "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 "                                                                   \
      "WHERE ?1 = (SELECT coalesce(max(version), 0) + 1 FROM policy)")                                       \
    X(POLICY_GET, ALL,                                                                                       \
      "SELECT " KMS_POLICY_COLUMNS ", document FROM policy WHERE ?1 = 0 OR version = ?1 "                    \
      "ORDER BY version DESC LIMIT 1")                                                                       \
    X(POLICY_LIST, ALL,                                                                                      \
      "SELECT " KMS_POLICY_COLUMNS " FROM policy WHERE ?1 = 0 OR version < ?1 "                              \
      "ORDER BY version DESC LIMIT ?2")                                                                      \
    X(POLICY_ALL, ALL, "SELECT " KMS_POLICY_COLUMNS ", document FROM policy ORDER BY version")               \
    X(FREEZE_INSERT, WRITER, "INSERT INTO freeze (" KMS_FREEZE_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?)")        \
    X(FREEZE_REMOVE, WRITER, "DELETE FROM freeze WHERE scope = ? AND tenant = ? AND name = ?")               \
    X(FREEZE_LIST, ALL,                                                                                      \
      "SELECT " KMS_FREEZE_COLUMNS " FROM freeze WHERE (scope, tenant, name) > (?, ?, ?) "                   \
      "ORDER BY scope, tenant, name LIMIT ?")

#endif
