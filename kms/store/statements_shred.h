/*
 * Purpose:   the statements of store/store_shred.h.
 * Owns:      the SQL text.
 * Threads:   constants.
 * Never:     builds SQL from values: values are bound.
 *
 * Column order is that of the readers in sqlite_shred.c, sqlite_hold.c and sqlite_certificate.c: change both.
 */
#ifndef KMS_STORE_STATEMENTS_SHRED_H
#define KMS_STORE_STATEMENTS_SHRED_H

/* Left joins: a parent that is missing shows as damage instead of hiding the row. */
#define KMS_SHRED_JOB_SELECT                                                                                 \
    "SELECT j.no, j.uid, t.uuid, j.origin, j.state, j.purpose, j.version, j.requested_by, j.reason, "        \
    "j.requested_ns, j.window_seconds, j.due_ns, j.operation, j.list_hash "                                  \
    "FROM shred_job j LEFT JOIN tenant t ON t.no = j.tenant_no "
#define KMS_SHRED_TARGET_SELECT                                                                              \
    "SELECT j.uid, s.customer, s.state, s.batch, s.changed_ns, s.reason "                                    \
    "FROM shred_target s LEFT JOIN shred_job j ON j.no = s.job_no "
#define KMS_HOLD_SELECT                                                                                      \
    "SELECT h.uid, t.uuid, h.customer, h.reference, h.reason, h.placed_by, h.placed_ns, h.released_by, "     \
    "h.released_ns FROM hold h LEFT JOIN tenant t ON t.no = h.tenant_no "
#define KMS_CERTIFICATE_SELECT(more)                                                                         \
    "SELECT c.uid, t.uuid, c.batch, c.kind, c.created_ns, c.signature" more " "                              \
    "FROM certificate c LEFT JOIN tenant t ON t.no = c.tenant_no "

#define KMS_STATEMENT_TABLE_SHRED(X)                                                                         \
    X(SHRED_JOB_PUT, WRITER,                                                                                 \
      "INSERT INTO shred_job (uid, tenant_no, origin, state, purpose, version, requested_by, reason, "       \
      "requested_ns, window_seconds, due_ns, operation, list_hash) "                                         \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) "                                     \
      "ON CONFLICT (uid) DO UPDATE SET tenant_no = ?2, origin = ?3, state = ?4, purpose = ?5, version = "    \
      "?6, "                                                                                                 \
      "requested_by = ?7, reason = ?8, requested_ns = ?9, window_seconds = ?10, due_ns = ?11, "              \
      "operation = ?12, list_hash = ?13")                                                                    \
    X(SHRED_JOB_NO, ALL, "SELECT no FROM shred_job WHERE uid = ?")                                           \
    X(SHRED_JOB_GET, ALL, KMS_SHRED_JOB_SELECT "WHERE j.uid = ?")                                            \
    X(SHRED_JOB_LIST, ALL,                                                                                   \
      KMS_SHRED_JOB_SELECT "WHERE j.no > ?1 AND (?2 IS NULL OR j.tenant_no = ?2) ORDER BY j.no LIMIT ?3")    \
    X(SHRED_JOB_LIST_STATE, ALL,                                                                             \
      KMS_SHRED_JOB_SELECT "WHERE j.state = ?4 AND j.no > ?1 AND (?2 IS NULL OR j.tenant_no = ?2) "          \
                           "ORDER BY j.no LIMIT ?3")                                                         \
    X(SHRED_TARGET_PUT, WRITER,                                                                              \
      "INSERT INTO shred_target (job_no, customer, state, batch, changed_ns, reason) "                       \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (job_no, customer) DO UPDATE SET "                        \
      "state = ?3, batch = ?4, changed_ns = ?5, reason = ?6")                                                \
    X(SHRED_TARGET_GET, ALL, KMS_SHRED_TARGET_SELECT "WHERE s.job_no = ? AND s.customer = ?")                \
    X(SHRED_TARGET_LIST_JOB, ALL,                                                                            \
      KMS_SHRED_TARGET_SELECT "WHERE s.job_no = ?1 AND s.customer > ?2 AND (?3 = 0 OR s.state = ?3) "        \
                              "ORDER BY s.customer LIMIT ?4")                                                \
    X(SHRED_TARGET_LIST_CUSTOMER, ALL,                                                                       \
      KMS_SHRED_TARGET_SELECT                                                                                \
      "WHERE s.customer = ?1 AND (?2 = 0 OR s.state = ?2) ORDER BY s.job_no LIMIT ?3")                       \
    X(SHRED_TARGET_LIST_BATCH, ALL,                                                                          \
      KMS_SHRED_TARGET_SELECT "WHERE s.state = 3 AND s.batch = ?1 AND s.customer > ?2 "                      \
                              "ORDER BY s.customer, s.job_no LIMIT ?3")                                      \
    X(SHRED_TARGET_COUNT, ALL, "SELECT state, count(*) FROM shred_target WHERE job_no = ? GROUP BY state")   \
    X(HOLD_PUT, WRITER,                                                                                      \
      "INSERT INTO hold (uid, tenant_no, customer, reference, reason, placed_by, placed_ns, released_by, "   \
      "released_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (uid) DO UPDATE SET "            \
      "tenant_no = ?2, customer = ?3, reference = ?4, reason = ?5, placed_by = ?6, placed_ns = ?7, "         \
      "released_by = ?8, released_ns = ?9")                                                                  \
    X(HOLD_NO, ALL, "SELECT no FROM hold WHERE uid = ?")                                                     \
    X(HOLD_GET, ALL, KMS_HOLD_SELECT "WHERE h.uid = ?")                                                      \
    X(HOLD_ON, ALL, KMS_HOLD_SELECT "WHERE h.customer = ? AND h.released_ns = 0 ORDER BY h.no LIMIT 1")      \
    X(HOLD_LIST, ALL,                                                                                        \
      KMS_HOLD_SELECT "WHERE h.tenant_no = ?1 AND h.no > ?2 AND (?3 IS NULL OR h.customer = ?3) "            \
                      "AND (?4 = 1 OR h.released_ns = 0) ORDER BY h.no LIMIT ?5")                            \
    X(CERTIFICATE_INSERT, WRITER,                                                                            \
      "INSERT INTO certificate (uid, tenant_no, batch, kind, created_ns, signature, document) "              \
      "VALUES (?, ?, ?, ?, ?, ?, ?)")                                                                        \
    X(CERTIFICATE_NO, ALL, "SELECT no FROM certificate WHERE uid = ?")                                       \
    X(CERTIFICATE_GET, ALL, KMS_CERTIFICATE_SELECT(", c.document") "WHERE c.uid = ?1 OR c.batch = ?1")       \
    X(CERTIFICATE_LIST, ALL,                                                                                 \
      KMS_CERTIFICATE_SELECT("") "WHERE c.tenant_no = ? AND c.no > ? ORDER BY c.no LIMIT ?")                 \
    X(SHRED_SETTING_PUT, WRITER,                                                                             \
      "INSERT INTO shred_setting (tenant_no, window_seconds, shred_closed) VALUES (?1, ?2, ?3) "             \
      "ON CONFLICT (tenant_no) DO UPDATE SET window_seconds = ?2, shred_closed = ?3")                        \
    X(SHRED_SETTING_GET, ALL, "SELECT window_seconds, shred_closed FROM shred_setting WHERE tenant_no = ?")  \
    X(RETENTION_PUT, WRITER,                                                                                 \
      "INSERT INTO retention (customer, purpose, tenant_no, due_ns, began_ns) VALUES (?1, ?2, ?3, ?4, ?5) "  \
      "ON CONFLICT (customer, purpose) DO UPDATE SET tenant_no = ?3, due_ns = ?4, began_ns = ?5")            \
    X(RETENTION_REMOVE, WRITER, "DELETE FROM retention WHERE customer = ? AND purpose = ?")                  \
    X(RETENTION_LIST, ALL,                                                                                   \
      "SELECT t.uuid, r.customer, r.purpose, r.due_ns, r.began_ns FROM retention r "                         \
      "LEFT JOIN tenant t ON t.no = r.tenant_no WHERE r.customer = ? ORDER BY r.purpose LIMIT ?")            \
    X(RETENTION_DUE, ALL,                                                                                    \
      "SELECT t.uuid, r.customer, r.purpose, r.due_ns, r.began_ns FROM retention r "                         \
      "LEFT JOIN tenant t ON t.no = r.tenant_no WHERE r.due_ns <= ? ORDER BY r.due_ns LIMIT ?")              \
    X(SHRED_CLOCK_PUT, WRITER,                                                                               \
      "INSERT INTO shred_clock (id, trusted_ns, boot_ns, boot_id) VALUES (1, ?1, ?2, ?3) "                   \
      "ON CONFLICT (id) DO UPDATE SET trusted_ns = ?1, boot_ns = ?2, boot_id = ?3")                          \
    X(SHRED_CLOCK_GET, ALL, "SELECT trusted_ns, boot_ns, boot_id FROM shred_clock")

#endif
