/*
 * Purpose:   the SQL statements of recovery keys; see statements.h.
 * Owns:      the SQL text.
 * Threads:   constants.
 * Never:     builds SQL from values: values are bound.
 */
#ifndef KMS_STORE_STATEMENTS_RECOVERY_H
#define KMS_STORE_STATEMENTS_RECOVERY_H

#define KMS_RECOVERY_KEY_COLUMNS                                                                             \
    "epoch, fingerprint, state, enrolled_ns, enrolled_by, enroll_operation, retire_operation, retired_ns, "  \
    "retired_by, statement, object_left, drill_ns, drill_took_ns, drill_by, drill_customers"

#define KMS_STATEMENT_TABLE_RECOVERY(X)                                                                      \
    X(RECOVERY_KEY_PUT, WRITER,                                                                              \
      "INSERT INTO recovery_key (" KMS_RECOVERY_KEY_COLUMNS ") "                                             \
      "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15 "                             \
      "WHERE ?1 <= (SELECT coalesce(max(epoch), 0) + 1 FROM recovery_key) "                                  \
      "ON CONFLICT (epoch) DO UPDATE SET fingerprint = excluded.fingerprint, state = excluded.state, "       \
      "enrolled_ns = excluded.enrolled_ns, enrolled_by = excluded.enrolled_by, "                             \
      "enroll_operation = excluded.enroll_operation, retire_operation = excluded.retire_operation, "         \
      "retired_ns = excluded.retired_ns, retired_by = excluded.retired_by, "                                 \
      "statement = excluded.statement, object_left = excluded.object_left, drill_ns = excluded.drill_ns, "   \
      "drill_took_ns = excluded.drill_took_ns, drill_by = excluded.drill_by, "                               \
      "drill_customers = excluded.drill_customers")                                                          \
    X(RECOVERY_KEY_GET, ALL, "SELECT " KMS_RECOVERY_KEY_COLUMNS " FROM recovery_key WHERE fingerprint = ?")  \
    X(RECOVERY_KEY_LIST, ALL, "SELECT " KMS_RECOVERY_KEY_COLUMNS " FROM recovery_key ORDER BY epoch")        \
    X(RECOVERY_COVER_PUT, WRITER,                                                                            \
      "INSERT INTO recovery_cover (recovery_epoch, tenant_no, first_epoch) VALUES (?, ?, ?) "                \
      "ON CONFLICT (recovery_epoch, tenant_no) DO UPDATE SET first_epoch = excluded.first_epoch "            \
      "WHERE excluded.first_epoch < recovery_cover.first_epoch")                                             \
    X(RECOVERY_COVER_GET, ALL,                                                                               \
      "SELECT first_epoch FROM recovery_cover WHERE recovery_epoch = ? AND tenant_no = ?")                   \
    X(RECOVERY_COVER_LIST, ALL,                                                                              \
      "SELECT c.recovery_epoch, t.uuid, c.first_epoch FROM recovery_cover c JOIN tenant t "                  \
      "ON t.no = c.tenant_no ORDER BY c.recovery_epoch, c.tenant_no")

#endif
