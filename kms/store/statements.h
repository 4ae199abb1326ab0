/*
 * Purpose:   every SQL statement of the running store, prepared once on each connection that needs it.
 * Owns:      the SQL text.
 * Threads:   constants.
 * Never:     builds SQL from values: values are bound.
 *
 * Column order is that of the readers in sqlite_*.c: change both.
 */
#ifndef KMS_STORE_STATEMENTS_H
#define KMS_STORE_STATEMENTS_H

#include "store/statements_operation.h"
#include "store/statements_policy.h"
#include "store/statements_recovery.h"
#include "store/statements_shred.h"
#include "store/statements_rekey.h"
#include "store/statements_seal.h"

/* wraps_reserved is kept plus this number: see schema.c */
#define KMS_WRAPS_BIAS "1099511627776"

#define KMS_TENANT_COLUMNS                                                                                   \
    "no, uuid, id, display_name, state, epoch, master_id, root_blob, height, next_slot, revision, "          \
    "created_ns, updated_ns"
#define KMS_PURPOSE_COLUMNS                                                                                  \
    "id, display_name, legal_basis, state, required_by_law, retention_seconds, rotation_seconds, revision, " \
    "created_ns, updated_ns"
/* Text that is not JSON becomes NULL, which the column refuses. */
#define KMS_LABELS_OR_NULL "CASE WHEN json_valid(?4) THEN ?4 END"
/* ?2 of the customer's lookups is the tenant's UUID, which the caller has: no join. */
#define KMS_CUSTOMER_COLUMNS(tenant)                                                                         \
    "c.no, c.uuid, " tenant ", c.id, c.labels, c.state, c.revision, c.created_ns, c.updated_ns"
/* Left joins: a parent that is missing shows as damage instead of hiding the row. */
#define KMS_KEK_COLUMNS(customer)                                                                            \
    "k.kek_id, t.uuid, " customer ", k.purpose, k.version, k.slot, k.state, "                                \
    "k.wraps_reserved - " KMS_WRAPS_BIAS ", k.created_ns, k.rewrapped"
#define KMS_KEK_TENANT "FROM kek k LEFT JOIN tenant t ON t.no = k.tenant_no "

/* name, who prepares it, SQL */
#define KMS_STATEMENT_TABLE(X)                                                                               \
    X(BEGIN_READ, ALL, "BEGIN")                                                                              \
    X(LOOK, ALL, "SELECT 1 FROM tenant LIMIT 0")                                                             \
    X(BEGIN_WRITE, WRITER, "BEGIN IMMEDIATE")                                                                \
    X(COMMIT, ALL, "COMMIT")                                                                                 \
    X(ROLLBACK, ALL, "ROLLBACK")                                                                             \
    X(LOG_APPEND, WRITER, "INSERT INTO change_log (time_ns, kind, payload) VALUES (?, ?, ?)")                \
    X(TENANT_INSERT, WRITER,                                                                                 \
      "INSERT INTO tenant (uuid, id, display_name, state, epoch, master_id, root_blob, height, next_slot, "  \
      "revision, created_ns, updated_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")                       \
    X(TENANT_UPDATE, WRITER,                                                                                 \
      "UPDATE tenant SET id = ?2, display_name = ?3, state = ?4, epoch = ?5, master_id = ?6, "               \
      "root_blob = ?7, height = ?8, next_slot = ?9, revision = ?10, created_ns = ?11, updated_ns = ?12 "     \
      "WHERE uuid = ?1")                                                                                     \
    X(TENANT_BY_ID, ALL, "SELECT " KMS_TENANT_COLUMNS " FROM tenant WHERE id = ?")                           \
    X(TENANT_BY_UUID, ALL, "SELECT " KMS_TENANT_COLUMNS " FROM tenant WHERE uuid = ?")                       \
    X(TENANT_LIST, ALL, "SELECT " KMS_TENANT_COLUMNS " FROM tenant WHERE id > ? ORDER BY id LIMIT ?")        \
    X(TENANT_NO, ALL, "SELECT no FROM tenant WHERE uuid = ?")                                                \
    X(PURPOSE_INSERT, WRITER,                                                                                \
      "INSERT INTO purpose (tenant_no, id, display_name, legal_basis, state, required_by_law, "              \
      "retention_seconds, rotation_seconds, revision, created_ns, updated_ns) "                              \
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")                                                            \
    X(PURPOSE_UPDATE, WRITER,                                                                                \
      "UPDATE purpose SET display_name = ?3, legal_basis = ?4, state = ?5, required_by_law = ?6, "           \
      "retention_seconds = ?7, rotation_seconds = ?8, revision = ?9, created_ns = ?10, updated_ns = ?11 "    \
      "WHERE tenant_no = ?1 AND id = ?2")                                                                    \
    X(PURPOSE_GET, ALL, "SELECT " KMS_PURPOSE_COLUMNS " FROM purpose WHERE tenant_no = ? AND id = ?")        \
    X(PURPOSE_LIST, ALL,                                                                                     \
      "SELECT " KMS_PURPOSE_COLUMNS " FROM purpose WHERE tenant_no = ? AND id > ? ORDER BY id LIMIT ?")      \
    X(CUSTOMER_INSERT, WRITER,                                                                               \
      "INSERT INTO customer (uuid, tenant_no, id, labels, state, revision, created_ns, updated_ns) "         \
      "VALUES (?1, ?2, ?3, " KMS_LABELS_OR_NULL ", ?5, ?6, ?7, ?8)")                                         \
    X(CUSTOMER_UPDATE, WRITER,                                                                               \
      "UPDATE customer SET tenant_no = ?2, id = ?3, labels = " KMS_LABELS_OR_NULL                            \
      ", state = ?5, revision = ?6, "                                                                        \
      "created_ns = ?7, updated_ns = ?8 WHERE uuid = ?1")                                                    \
    X(CUSTOMER_BY_ID, ALL,                                                                                   \
      "SELECT " KMS_CUSTOMER_COLUMNS("?2") " FROM customer c WHERE c.tenant_no = ?1 AND c.id = ?3")          \
    X(CUSTOMER_BY_UUID, ALL,                                                                                 \
      "SELECT " KMS_CUSTOMER_COLUMNS("t.uuid") " FROM customer c LEFT JOIN tenant t ON t.no = c.tenant_no "  \
                                               "WHERE c.uuid = ?")                                           \
    X(CUSTOMER_NO, ALL, "SELECT no FROM customer WHERE uuid = ?")                                            \
    X(CUSTOMER_NEXT_NO, WRITER, "SELECT coalesce(max(no), 0) + 1 FROM customer")                             \
    X(CUSTOMER_LIST, ALL,                                                                                    \
      "SELECT " KMS_CUSTOMER_COLUMNS(                                                                        \
          "?2") " FROM customer c WHERE c.tenant_no = ?1 "                                                   \
                "AND c.id >= ?3 AND c.id IS NOT ?4 AND (?5 = 0 OR c.state = ?5) "                            \
                "AND c.created_ns >= ?6 AND c.created_ns < ?7 "                                              \
                "AND (?8 IS NULL OR EXISTS (SELECT 1 FROM json_each(c.labels) AS label "                     \
                "WHERE label.key = ?8 AND label.value = ?9)) ORDER BY c.id")                                 \
    X(KEK_INSERT, WRITER,                                                                                    \
      "INSERT INTO kek (customer_no, purpose, version, kek_id, tenant_no, slot, state, wraps_reserved, "     \
      "created_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ? + " KMS_WRAPS_BIAS ", ?)")                                 \
    X(KEK_SET_STATE, WRITER, "UPDATE kek SET state = ?2 WHERE kek_id = ?1")                                  \
    X(KEK_LOCATE, WRITER,                                                                                    \
      "SELECT customer_no, purpose, version, wraps_reserved - " KMS_WRAPS_BIAS " FROM kek WHERE kek_id = ?") \
    X(KEK_RESERVE, WRITER,                                                                                   \
      "UPDATE kek SET wraps_reserved = ?4 + " KMS_WRAPS_BIAS                                                 \
      " WHERE customer_no = ?1 AND purpose = ?2 AND version = ?3")                                           \
    X(KEK_BY_ID, ALL,                                                                                        \
      "SELECT " KMS_KEK_COLUMNS("c.uuid") " " KMS_KEK_TENANT                                                 \
                                          "LEFT JOIN customer c ON c.no = k.customer_no WHERE k.kek_id = ?") \
    X(KEK_WITH_CUSTOMER, ALL,                                                                                \
      "SELECT " KMS_KEK_COLUMNS("c.uuid") ", c.id, c.state, c.tenant_no = k.tenant_no " KMS_KEK_TENANT       \
                                          "LEFT JOIN customer c ON c.no = k.customer_no WHERE k.kek_id = ?") \
    X(KEK_PRIMARY, ALL,                                                                                      \
      "SELECT " KMS_KEK_COLUMNS("?2") " " KMS_KEK_TENANT "WHERE k.customer_no = ?1 AND k.purpose = ?3 AND "  \
                                      "k.state = 1 ORDER BY k.version DESC LIMIT 1")                         \
    X(KEK_LIST, ALL,                                                                                         \
      "SELECT " KMS_KEK_COLUMNS("?2") " " KMS_KEK_TENANT "WHERE k.customer_no = ?1 AND k.purpose = ?3 AND "  \
                                      "k.version > ?4 ORDER BY k.version LIMIT ?5")                          \
    X(KEK_LIST_ALL, ALL,                                                                                     \
      "SELECT " KMS_KEK_COLUMNS("?2") " " KMS_KEK_TENANT                                                     \
                                      "WHERE k.customer_no = ?1 ORDER BY k.purpose, k.version LIMIT ?3")     \
    X(PAGE_GET, ALL, "SELECT tenant_no, level, page_index, mac, body FROM tree_page WHERE id = ?")           \
    X(PAGE_PUT, WRITER,                                                                                      \
      "INSERT INTO tree_page (id, tenant_no, level, page_index, mac, body) VALUES (?, ?, ?, ?, ?, ?) "       \
      "ON CONFLICT (id) DO UPDATE SET mac = excluded.mac, body = excluded.body")                             \
    X(REQUEST_GET, ALL,                                                                                      \
      "SELECT request_hash, created_ns FROM request WHERE identity = ? AND request_id = ? "                  \
      "AND created_ns >= ?")                                                                                 \
    X(REQUEST_PUT, WRITER,                                                                                   \
      "INSERT INTO request (identity, request_id, request_hash, created_ns) VALUES (?1, ?2, ?3, ?4) "        \
      "ON CONFLICT (identity, request_id) DO UPDATE SET request_hash = ?3, created_ns = ?4 "                 \
      "WHERE request.created_ns < ?5")                                                                       \
    X(REQUEST_FORGET, WRITER,                                                                                \
      "DELETE FROM request WHERE (identity, request_id) IN (SELECT identity, request_id FROM request "       \
      "WHERE created_ns < ? ORDER BY created_ns LIMIT 16)")                                                  \
    X(CHANGES_LAST, ALL, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'change_log'")      \
    X(CHANGES_READ, ALL, "SELECT seq, time_ns, payload FROM change_log WHERE seq > ? ORDER BY seq LIMIT ?")  \
    X(CHANGES_WAITING, ALL,                                                                                  \
      "SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(min(time_ns), 0) "                       \
      "FROM (SELECT payload, time_ns FROM change_log WHERE seq > ? ORDER BY seq LIMIT ?)")                   \
    X(CHANGES_PRUNE, WRITER,                                                                                 \
      "DELETE FROM change_log WHERE seq IN (SELECT seq FROM change_log WHERE seq <= ? ORDER BY seq LIMIT "   \
      "?)")                                                                                                  \
    X(CHANGES_RESUME, WRITER, "INSERT INTO change_log (seq, time_ns, kind, payload) VALUES (?, 0, 0, x'')")  \
    X(COUNTS, ALL,                                                                                           \
      "SELECT (SELECT count(*) FROM tenant), (SELECT count(*) FROM purpose), (SELECT count(*) FROM "         \
      "customer), "                                                                                          \
      "(SELECT count(*) FROM kek WHERE state <> 3), (SELECT count(*) FROM tree_page)")                       \
    X(TENANT_ALL, ALL, "SELECT " KMS_TENANT_COLUMNS " FROM tenant ORDER BY no")                              \
    X(PURPOSE_ALL, ALL,                                                                                      \
      "SELECT t.uuid, p.id, p.display_name, p.legal_basis, p.state, p.required_by_law, "                     \
      "p.retention_seconds, "                                                                                \
      "p.rotation_seconds, p.revision, p.created_ns, p.updated_ns "                                          \
      "FROM purpose p LEFT JOIN tenant t ON t.no = p.tenant_no ORDER BY p.no")                               \
    X(CUSTOMER_ALL, ALL,                                                                                     \
      "SELECT " KMS_CUSTOMER_COLUMNS("t.uuid") " FROM customer c LEFT JOIN tenant t ON t.no = c.tenant_no "  \
                                               "ORDER BY c.no")                                              \
    X(CUSTOMER_ALL_CLOSED, ALL,                                                                              \
      "SELECT " KMS_CUSTOMER_COLUMNS("t.uuid") " FROM customer c LEFT JOIN tenant t ON t.no = c.tenant_no "  \
                                               "WHERE c.state <> 1 ORDER BY c.no")                           \
    X(KEK_ALL, ALL,                                                                                          \
      "SELECT " KMS_KEK_COLUMNS("c.uuid") " " KMS_KEK_TENANT "LEFT JOIN customer c ON c.no = k.customer_no " \
                                          "ORDER BY k.customer_no, k.purpose, k.version")                    \
    X(PAGE_ALL, ALL,                                                                                         \
      "SELECT t.uuid, p.level, p.page_index, p.mac, p.body FROM tree_page p "                                \
      "LEFT JOIN tenant t ON t.no = p.tenant_no ORDER BY p.id")                                              \
    X(REQUEST_ALL, ALL,                                                                                      \
      "SELECT identity, request_id, request_hash, created_ns FROM request WHERE created_ns >= ? "            \
      "ORDER BY created_ns")                                                                                 \
    KMS_STATEMENT_TABLE_OPERATION(X)                                                                         \
    KMS_STATEMENT_TABLE_SHRED(X)                                                                             \
    KMS_STATEMENT_TABLE_REKEY(X)                                                                             \
    KMS_STATEMENT_TABLE_RECOVERY(X)                                                                          \
    KMS_STATEMENT_TABLE_POLICY(X)                                                                            \
    KMS_STATEMENT_TABLE_SEAL(X)

enum kms_statement {
#define KMS_STATEMENT_ENUM(name, who, sql) KMS_STATEMENT_##name,
    KMS_STATEMENT_TABLE(KMS_STATEMENT_ENUM)
#undef KMS_STATEMENT_ENUM
        KMS_STATEMENT_COUNT
};

#endif
