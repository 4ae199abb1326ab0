#include "store/sqlite_error.h"
#include "store/sqlite_impl.h"

enum {
    DEFAULT_CACHE_KIB = 8192,
    DEFAULT_BUSY_MS = 2000,
    WAL_SIZE_KEPT = 64 * 1024 * 1024, /* bytes of the log file that are kept for reuse after a checkpoint */
    VALUE_MAX = 1024 * 1024           /* bytes of one row or statement: far above every limit of store.h */
};

struct statement_row {
    bool for_reader;
    const char *sql;
};

#define FOR_ALL    true
#define FOR_WRITER false
static const struct statement_row statement_rows[] = {
#define KMS_STATEMENT_ROW(name, who, sql) {FOR_##who, sql},
    KMS_STATEMENT_TABLE(KMS_STATEMENT_ROW)
#undef KMS_STATEMENT_ROW
};

enum { LOOKASIDE_SLOT = 2048, LOOKASIDE_SLOTS = 256 };

/* What a hostile file could switch on is off before the file is read. */
static int harden(sqlite3 *db)
{
    static const struct {
        int option, value;
    } switches[] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},      {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}, {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
        {SQLITE_DBCONFIG_DQS_DML, 0},        {SQLITE_DBCONFIG_DQS_DDL, 0},
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1},    {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
    };
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        const int rc = sqlite3_db_config(db, switches[i].option, switches[i].value, (int *)NULL);
        if (rc != SQLITE_OK)
            return rc;
    }
    /* Slots that hold a page's body: malloc() of over 1 KiB makes glibc tidy up the thousands of small blocks that an in-process
     * token leaves, which costs a first use a fifth of its time. */
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_LOOKASIDE, NULL, LOOKASIDE_SLOT, LOOKASIDE_SLOTS);
    (void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, VALUE_MAX);
    (void)sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, VALUE_MAX);
    (void)sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    return SQLITE_OK;
}

/* Settings that live as long as the connection. mmap is off: an I/O error would be a signal. */
static int configure(sqlite3 *db, const struct kms_store_sqlite_config *config, enum kms_sqlite_role role)
{
    char sql[512];
    (void)sqlite3_snprintf(
        sizeof sql, sql,
        "PRAGMA mmap_size=0;PRAGMA trusted_schema=OFF;PRAGMA foreign_keys=ON;"
        "PRAGMA synchronous=FULL;PRAGMA temp_store=MEMORY;PRAGMA cell_size_check=ON;PRAGMA secure_delete=ON;"
        "PRAGMA cache_size=-%u;PRAGMA wal_autocheckpoint=0;PRAGMA journal_size_limit=%d;%s",
        config->cache_kib != 0 ? config->cache_kib : (unsigned)DEFAULT_CACHE_KIB, WAL_SIZE_KEPT,
        role == KMS_SQLITE_READER ? "PRAGMA query_only=ON;" : "");
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

enum kms_status kms_sqlite_conn_open(const char *path, const struct kms_store_sqlite_config *config,
                                     enum kms_sqlite_role role, struct kms_sqlite_conn *conn,
                                     struct kms_error *err)
{
    const unsigned busy_ms = config->busy_timeout_ms != 0 ? config->busy_timeout_ms : DEFAULT_BUSY_MS;
    int rc = sqlite3_open_v2(path, &conn->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(conn->db, (int)(busy_ms < INT32_MAX ? busy_ms : INT32_MAX));
    if (rc == SQLITE_OK)
        rc = harden(conn->db);
    if (rc == SQLITE_OK)
        rc = configure(conn->db, config, role);
    return rc == SQLITE_OK ? KMS_OK : kms_sqlite_error(conn->db, rc, "opening", err);
}

enum kms_status kms_sqlite_conn_prepare(struct kms_sqlite_conn *conn, enum kms_sqlite_role role,
                                        struct kms_error *err)
{
    for (size_t i = 0; i < KMS_STATEMENT_COUNT; i++) {
        if (role == KMS_SQLITE_READER && !statement_rows[i].for_reader)
            continue;
        const int rc = sqlite3_prepare_v3(conn->db, statement_rows[i].sql, -1, SQLITE_PREPARE_PERSISTENT,
                                          &conn->statements[i], NULL);
        if (rc != SQLITE_OK)
            return kms_sqlite_error(conn->db, rc, "preparing statements", err);
    }
    return KMS_OK;
}

void kms_sqlite_conn_close(struct kms_sqlite_conn *conn)
{
    for (size_t i = 0; i < KMS_STATEMENT_COUNT; i++) {
        (void)sqlite3_finalize(conn->statements[i]);
        conn->statements[i] = NULL;
    }
    KMS_ASSERT(sqlite3_close(conn->db) == SQLITE_OK);
    conn->db = NULL;
}
