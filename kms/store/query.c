#include "store/query.h"

#include "store/sqlite_error.h"

/* For texts of errors. */
static const char *const statement_names[] = {
#define KMS_STATEMENT_NAME(name, who, sql) #name,
    KMS_STATEMENT_TABLE(KMS_STATEMENT_NAME)
#undef KMS_STATEMENT_NAME
};

struct kms_query kms_query_of(struct kms_store_txn *txn, enum kms_statement which)
{
    sqlite3_stmt *stmt = txn->conn->statements[which];
    KMS_ASSERT(stmt != NULL);
    return (struct kms_query){.txn = txn, .stmt = stmt, .which = which, .rc = SQLITE_OK};
}

void kms_query_end(struct kms_query *query)
{
    (void)sqlite3_reset(query->stmt);
}

/* Remember the first bind that failed. */
static void bound(struct kms_query *query, int rc)
{
    if (rc != SQLITE_OK && query->rc == SQLITE_OK)
        query->rc = rc;
}

void kms_query_text(struct kms_query *query, const char *text)
{
    const int at = ++query->bound;
    bound(query, text == NULL ? sqlite3_bind_null(query->stmt, at)
                              : sqlite3_bind_text(query->stmt, at, text, -1, SQLITE_STATIC));
}

void kms_query_blob(struct kms_query *query, const void *data, size_t len)
{
    bound(query, sqlite3_bind_blob64(query->stmt, ++query->bound, data, len, SQLITE_STATIC));
}

void kms_query_uuid(struct kms_query *query, const struct kms_uuid *uuid)
{
    kms_query_blob(query, uuid->bytes, KMS_UUID_SIZE);
}

void kms_query_i64(struct kms_query *query, int64_t number)
{
    bound(query, sqlite3_bind_int64(query->stmt, ++query->bound, number));
}

void kms_query_u64(struct kms_query *query, uint64_t number)
{
    KMS_ASSERT(number <= INT64_MAX);
    kms_query_i64(query, (int64_t)number);
}

/* A failure that is not part of the contract: mapped, and the transaction is spoilt. */
static enum kms_status broken(struct kms_query *query, int rc, struct kms_error *err)
{
    const enum kms_status status =
        kms_sqlite_error(query->txn->conn->db, rc, statement_names[query->which], err);
    if (query->txn->failed == KMS_OK)
        query->txn->failed = status;
    return status;
}

/* After a lost write SQLite may have ended the transaction by itself: nothing may run outside of it. */
static enum kms_status refuse_spoilt(struct kms_query *query, struct kms_error *err)
{
    const struct kms_store_txn *txn = query->txn;
    if (!txn->write || txn->failed == KMS_OK)
        return KMS_OK;
    return kms_fail(err, txn->failed, "the transaction lost a write before: it can only be rolled back");
}

/* One step; ROW or DONE, or a result code that failed. */
static int step(struct kms_query *query)
{
    query->taken = 0;
    return query->rc != SQLITE_OK ? query->rc : sqlite3_step(query->stmt);
}

enum kms_status kms_query_row(struct kms_query *query, struct kms_error *err)
{
    KMS_TRY(refuse_spoilt(query, err));
    const int rc = step(query);
    if (rc == SQLITE_ROW)
        return KMS_OK;
    return rc == SQLITE_DONE ? KMS_NOT_FOUND : broken(query, rc, err);
}

enum kms_status kms_query_run(struct kms_query *query, const char *what, struct kms_error *err)
{
    KMS_TRY(refuse_spoilt(query, err));
    const int rc = step(query);
    if (rc == SQLITE_DONE)
        return KMS_OK;
    const enum kms_status refused = kms_sqlite_constraint(rc);
    if (refused == KMS_ALREADY_EXISTS)
        return kms_fail(err, refused, "%s: its id, number or place is taken", what);
    if (refused == KMS_NOT_FOUND)
        return kms_fail(err, refused, "%s: what it belongs to is not in the database", what);
    if (refused != KMS_OK)
        return kms_fail(err, refused, "%s: %s", what, sqlite3_errmsg(query->txn->conn->db));
    return broken(query, rc, err);
}

int64_t kms_query_changes(const struct kms_query *query)
{
    return sqlite3_changes64(query->txn->conn->db);
}

/* The next column when it has the wanted type, else -1 and a mark. */
static int next_column(struct kms_query *query, int type)
{
    const int column = query->taken++;
    if (sqlite3_column_type(query->stmt, column) == type)
        return column;
    if (query->bad_column == 0)
        query->bad_column = query->taken;
    return -1;
}

/* Mark the column that was taken last. */
static void bad(struct kms_query *query)
{
    if (query->bad_column == 0)
        query->bad_column = query->taken;
}

void kms_query_take_text(struct kms_query *query, char *out, size_t size)
{
    out[0] = '\0';
    const int column = next_column(query, SQLITE_TEXT);
    if (column < 0)
        return;
    const unsigned char *text = sqlite3_column_text(query->stmt, column);
    const size_t len = (size_t)sqlite3_column_bytes(query->stmt, column);
    if (text == NULL || len >= size || memchr(text, 0, len) != NULL) {
        bad(query);
        return;
    }
    memcpy(out, text, len);
    out[len] = '\0';
}

void kms_query_take_blob(struct kms_query *query, void *out, size_t len)
{
    const int column = next_column(query, SQLITE_BLOB);
    const void *data = column < 0 ? NULL : sqlite3_column_blob(query->stmt, column);
    if (data != NULL && (size_t)sqlite3_column_bytes(query->stmt, column) == len) {
        memcpy(out, data, len);
        return;
    }
    memset(out, 0, len);
    bad(query);
}

void kms_query_take_uuid(struct kms_query *query, struct kms_uuid *out)
{
    kms_query_take_blob(query, out->bytes, KMS_UUID_SIZE);
}

int64_t kms_query_take_i64(struct kms_query *query)
{
    const int column = next_column(query, SQLITE_INTEGER);
    return column < 0 ? 0 : sqlite3_column_int64(query->stmt, column);
}

uint64_t kms_query_take_u64(struct kms_query *query)
{
    const int64_t number = kms_query_take_i64(query);
    if (number >= 0)
        return (uint64_t)number;
    bad(query);
    return 0;
}

uint32_t kms_query_take_u32(struct kms_query *query)
{
    const uint64_t number = kms_query_take_u64(query);
    if (number <= UINT32_MAX)
        return (uint32_t)number;
    bad(query);
    return 0;
}

unsigned kms_query_take_state(struct kms_query *query)
{
    const uint32_t number = kms_query_take_u32(query);
    if (number <= UINT8_MAX)
        return number;
    bad(query);
    return 0;
}

uint8_t *kms_query_take_copy(struct kms_query *query, bool text, size_t max, size_t *ret_len)
{
    const int column = next_column(query, text ? SQLITE_TEXT : SQLITE_BLOB);
    if (column < 0)
        return NULL;
    const void *data = text ? (const void *)sqlite3_column_text(query->stmt, column)
                            : sqlite3_column_blob(query->stmt, column);
    const size_t len = (size_t)sqlite3_column_bytes(query->stmt, column);
    if (data == NULL || len > max || (text && memchr(data, 0, len) != NULL)) {
        bad(query);
        return NULL;
    }
    uint8_t *copy = malloc(len + 1);
    if (copy == NULL) {
        query->rc = SQLITE_NOMEM;
        return NULL;
    }
    memcpy(copy, data, len);
    copy[len] = 0;
    if (ret_len != NULL)
        *ret_len = len;
    return copy;
}

struct kms_slice kms_query_take_slice(struct kms_query *query)
{
    const int column = next_column(query, SQLITE_BLOB);
    if (column < 0)
        return (struct kms_slice){0};
    const void *data = sqlite3_column_blob(query->stmt, column);
    return kms_slice_of(data, (size_t)sqlite3_column_bytes(query->stmt, column));
}

enum kms_status kms_query_row_ok(struct kms_query *query, const char *problem, struct kms_error *err)
{
    if (query->rc != SQLITE_OK)
        return broken(query, query->rc, err);
    if ((query->bad_column != 0 || problem != NULL) && query->txn->failed == KMS_OK)
        query->txn->failed = KMS_STORE_CORRUPT;
    if (query->bad_column != 0)
        return kms_fail(err, KMS_STORE_CORRUPT,
                        "database, %s: column %d of a row is damaged: restore a backup",
                        statement_names[query->which], query->bad_column);
    if (problem != NULL)
        return kms_fail(err, KMS_STORE_CORRUPT, "database, %s: a row is damaged (%s): restore a backup",
                        statement_names[query->which], problem);
    return KMS_OK;
}
