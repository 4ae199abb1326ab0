/*
 * Purpose:   the SQL statements of operations and approvals; see statements.h.
 * Owns:      the SQL text.
 * Threads:   constants.
 * Never:     builds SQL from values: values are bound.
 */
#ifndef KMS_STORE_STATEMENTS_OPERATION_H
#define KMS_STORE_STATEMENTS_OPERATION_H

#define KMS_OPERATION_COLUMNS                                                                                \
    "uuid, kind, tenant, requester, digest, approvals_needed, policy_generation, created_ns, expires_ns, "   \
    "state, attempts, done, total, not_before_ns, started_ns, finished_ns, ended_by, reason"

#define KMS_STATEMENT_TABLE_OPERATION(X)                                                                     \
    X(OPERATION_INSERT, WRITER,                                                                              \
      "INSERT INTO operation (uuid, state, attempts, done, total, not_before_ns, started_ns, finished_ns, "  \
      "ended_by, reason, result, kind, tenant, requester, digest, approvals_needed, policy_generation, "     \
      "created_ns, expires_ns, document) "                                                                   \
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")                                 \
    X(OPERATION_UPDATE, WRITER,                                                                              \
      "UPDATE operation SET state = ?2, attempts = ?3, done = ?4, total = ?5, not_before_ns = ?6, "          \
      "started_ns = ?7, finished_ns = ?8, ended_by = ?9, reason = ?10, result = ?11 "                        \
      "WHERE uuid = ?1 AND (?12 = 0 OR state = ?12)")                                                        \
    X(OPERATION_NO, ALL, "SELECT no FROM operation WHERE uuid = ?")                                          \
    X(OPERATION_GET, ALL,                                                                                    \
      "SELECT " KMS_OPERATION_COLUMNS ", result, document FROM operation WHERE uuid = ?")                    \
    X(OPERATION_ALL, ALL, "SELECT " KMS_OPERATION_COLUMNS ", result, document FROM operation ORDER BY no")   \
    X(OPERATION_NEXT, ALL,                                                                                   \
      "SELECT " KMS_OPERATION_COLUMNS ", result, document FROM operation INDEXED BY operation_open "         \
      "WHERE state <= 3 AND state >= 2 AND not_before_ns <= ?1 "                                             \
      "AND (instr(?2, ' ' || kind || ' ') > 0) = ?3 ORDER BY created_ns, no LIMIT 1")                        \
    X(OPERATION_COUNT_OPEN, ALL,                                                                             \
      "SELECT count(*), count(*) FILTER (WHERE requester = ?) FROM operation WHERE state <= 3")              \
    X(OPERATION_LIST, ALL,                                                                                   \
      "SELECT " KMS_OPERATION_COLUMNS " FROM operation WHERE (created_ns, uuid) < (?1, ?2) "                 \
      "AND (?3 = 0 OR state = ?3) AND (?4 IS NULL OR kind = ?4) AND (?5 IS NULL OR tenant = ?5) "            \
      "AND (?6 IS NULL OR requester = ?6) ORDER BY created_ns DESC, uuid DESC LIMIT ?7")                     \
    X(OPERATION_EXPIRED, ALL,                                                                                \
      "SELECT " KMS_OPERATION_COLUMNS " FROM operation INDEXED BY operation_open "                           \
      "WHERE state <= 3 AND state = 1 AND expires_ns <= ? LIMIT ?")                                          \
    X(OPERATION_OLD, ALL,                                                                                    \
      "SELECT " KMS_OPERATION_COLUMNS " FROM operation INDEXED BY operation_age "                            \
      "WHERE created_ns < ?1 AND state > 3 AND finished_ns < ?1 ORDER BY created_ns LIMIT ?2")               \
    X(OPERATION_REMOVE, WRITER, "DELETE FROM operation WHERE no = ?")                                        \
    X(APPROVAL_INSERT, WRITER,                                                                               \
      "INSERT INTO approval (operation_no, person, identity, certificate, signature, time_ns) "              \
      "VALUES (?, ?, ?, ?, ?, ?)")                                                                           \
    X(APPROVAL_LIST, ALL,                                                                                    \
      "SELECT person, identity, certificate, signature, time_ns FROM approval "                              \
      "WHERE operation_no = ? ORDER BY time_ns, person")                                                     \
    X(APPROVAL_REMOVE, WRITER, "DELETE FROM approval WHERE operation_no = ?")

#endif
