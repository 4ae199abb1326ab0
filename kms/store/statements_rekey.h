/*
 * Purpose:   the SQL statements of re-keying; see statements.h.
 * Owns:      the SQL text.
 * Threads:   constants.
 * Never:     builds SQL from values: values are bound.
 */
#ifndef KMS_STORE_STATEMENTS_REKEY_H
#define KMS_STORE_STATEMENTS_REKEY_H

#define KMS_BATCH_COLUMNS(document, signature)                                                               \
    "b.uuid, t.uuid, b.kind, b.reference, b.old_epoch, b.old_master_id, b.new_master_id, "                   \
    "b.created_ns, " document ", " signature ", b.state, b.pages, b.keys_rewrapped, "                        \
    "b.keys_shredded, b.customers, b.pages_digest, b.committed_ns, b.sealed_ns "                             \
    "FROM rekey_batch b LEFT JOIN tenant t ON t.no = b.tenant_no "
#define KMS_TOMBSTONE_COLUMNS                                                                                \
    "s.customer, s.purpose, s.version, t.uuid, s.id_mac, s.epoch, s.batch, s.created_ns "                    \
    "FROM tombstone s LEFT JOIN tenant t ON t.no = s.tenant_no "

#define KMS_STATEMENT_TABLE_REKEY(X)                                                                         \
    X(BATCH_INSERT, WRITER,                                                                                  \
      "INSERT INTO rekey_batch (uuid, tenant_no, kind, reference, old_epoch, old_master_id, new_master_id, " \
      "created_ns, document, signature, state, pages, keys_rewrapped, keys_shredded, customers, "            \
      "pages_digest, committed_ns, sealed_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "   \
      "?)")                                                                                                  \
    X(BATCH_UPDATE, WRITER,                                                                                  \
      "UPDATE rekey_batch SET state = ?2, pages = ?3, keys_rewrapped = ?4, keys_shredded = ?5, "             \
      "customers = ?6, pages_digest = ?7, committed_ns = ?8, sealed_ns = ?9 WHERE uuid = ?1")                \
    X(BATCH_REMOVE_ABANDONED, WRITER, "DELETE FROM rekey_batch WHERE uuid = ? AND state = 4")                \
    X(BATCH_GET, ALL, "SELECT " KMS_BATCH_COLUMNS("b.document", "b.signature") "WHERE b.uuid = ?")           \
    X(BATCH_UNFINISHED, ALL,                                                                                 \
      "SELECT " KMS_BATCH_COLUMNS("b.document",                                                              \
                                  "b.signature") "WHERE b.tenant_no = ? AND b.state IN (1, 2)")              \
    X(BATCH_LIST, ALL,                                                                                       \
      "SELECT " KMS_BATCH_COLUMNS("x''", "x''") "WHERE b.tenant_no = ? AND b.old_epoch > ? "                 \
                                                "ORDER BY b.old_epoch, b.no LIMIT ?")                        \
    X(BATCH_ALL, ALL, "SELECT " KMS_BATCH_COLUMNS("b.document", "b.signature") "ORDER BY b.no")              \
    X(TOMBSTONE_PUT, WRITER,                                                                                 \
      "INSERT INTO tombstone (customer, purpose, version, tenant_no, id_mac, epoch, batch, created_ns) "     \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (customer, purpose, version) DO UPDATE SET "      \
      "tenant_no = ?4, id_mac = ?5, epoch = ?6, batch = ?7, created_ns = ?8")                                \
    X(TOMBSTONE_BY_MAC, ALL,                                                                                 \
      "SELECT " KMS_TOMBSTONE_COLUMNS                                                                        \
      "WHERE s.tenant_no = ? AND s.id_mac = ? AND s.purpose = '' ORDER BY s.epoch DESC LIMIT 1")             \
    X(TOMBSTONE_FOR, ALL,                                                                                    \
      "SELECT " KMS_TOMBSTONE_COLUMNS                                                                        \
      "WHERE s.customer = ? AND s.purpose IN ('', ?) AND s.version = 0 ORDER BY s.purpose LIMIT 1")          \
    X(TOMBSTONE_LIST, ALL,                                                                                   \
      "SELECT " KMS_TOMBSTONE_COLUMNS "WHERE s.batch = ? ORDER BY s.customer, s.purpose, s.version")         \
    X(TOMBSTONE_ANY, ALL, "SELECT EXISTS (SELECT 1 FROM tombstone WHERE tenant_no = ? AND purpose = '')")    \
    X(TOMBSTONE_ALL, ALL, "SELECT " KMS_TOMBSTONE_COLUMNS "ORDER BY s.customer, s.purpose, s.version")       \
    X(FREE_SLOTS, ALL, "SELECT slot FROM free_slot WHERE tenant_no = ? ORDER BY slot LIMIT ?")               \
    X(FREE_SLOT_PUT, WRITER, "INSERT INTO free_slot (tenant_no, slot) VALUES (?, ?)")                        \
    X(FREE_SLOT_TAKE, WRITER, "DELETE FROM free_slot WHERE tenant_no = ? AND slot = ?")                      \
    X(FREE_SLOT_ALL, ALL,                                                                                    \
      "SELECT t.uuid, f.slot FROM free_slot f LEFT JOIN tenant t ON t.no = f.tenant_no "                     \
      "ORDER BY f.tenant_no, f.slot")                                                                        \
    X(KEK_PLACE, WRITER, "SELECT tenant_no, slot, state FROM kek WHERE kek_id = ?")                          \
    X(CUSTOMER_SLOTS, WRITER, "SELECT tenant_no, slot FROM kek WHERE customer_no = ? AND state <> 3")        \
    X(CUSTOMER_KEKS_REMOVE, WRITER, "DELETE FROM kek WHERE customer_no = ?")                                 \
    X(CUSTOMER_REMOVE, WRITER, "DELETE FROM customer WHERE no = ?")                                          \
    X(CUSTOMER_LOG, WRITER,                                                                                  \
      "SELECT seq, payload FROM change_log WHERE kind = 3 AND substr(payload, 3, 16) = ? AND seq > ? "       \
      "ORDER BY seq LIMIT 1")                                                                                \
    X(LOG_REPLACE, WRITER, "UPDATE change_log SET payload = ?2 WHERE seq = ?1")                              \
    X(KEK_IN_SLOTS, ALL,                                                                                     \
      "SELECT " KMS_KEK_COLUMNS("c.uuid") " " KMS_KEK_TENANT                                                 \
                                          "LEFT JOIN customer c ON c.no = k.customer_no WHERE "              \
                                          "k.tenant_no = ? AND k.slot >= ? AND k.slot < ? AND k.state <> 3 " \
                                          "ORDER BY k.slot")                                                 \
    X(KEK_DUE, ALL,                                                                                          \
      "SELECT " KMS_KEK_COLUMNS("c.uuid") ", k.customer_no " KMS_KEK_TENANT                                  \
                                          "JOIN customer c ON c.no = k.customer_no WHERE "                   \
                                          "k.customer_no > ?1 AND k.customer_no <= ?2 AND k.tenant_no = ?3 " \
                                          "AND k.purpose = ?4 AND k.created_ns < ?5 AND k.state = 1 AND "    \
                                          "c.state = 1 AND NOT EXISTS (SELECT 1 FROM kek n WHERE "           \
                                          "n.customer_no = k.customer_no AND n.purpose = k.purpose AND "     \
                                          "n.version > k.version AND n.state = 1) "                          \
                                          "ORDER BY k.customer_no LIMIT ?6")                                 \
    X(CUSTOMER_LAST, ALL, "SELECT coalesce(max(no), 0) FROM customer")                                       \
    X(KEK_REWRAPPED, ALL, "SELECT rewrapped FROM kek WHERE kek_id = ?")                                      \
    X(KEK_SET_REWRAPPED, WRITER, "UPDATE kek SET rewrapped = ?2 WHERE kek_id = ?1")

#endif
