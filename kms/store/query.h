/*
 * Purpose:   one execution of a prepared statement: bind in order, step, take columns in order, reset.
 * Owns:      nothing; values that are bound are borrowed until the query ends.
 * Threads:   that of its transaction.
 * Never:     trusts a column: type, length and range are checked, and a bad one marks the row as damaged.
 *
 *     KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_BY_ID);
 *     kms_query_text(&query, id);
 *     KMS_TRY(kms_query_row(&query, err));
 *     ... kms_query_take_...(&query, ...);
 *     return kms_query_row_ok(&query, err);
 */
#ifndef KMS_STORE_QUERY_H
#define KMS_STORE_QUERY_H

#include "core/cleanup.h"
#include "store/sqlite_impl.h"

struct kms_query {
    struct kms_store_txn *txn;
    sqlite3_stmt *stmt;
    enum kms_statement which;
    int bound;      /* parameters so far */
    int taken;      /* columns of this row so far */
    int rc;         /* of the first bind that failed */
    int bad_column; /* the first damaged one, from 1; 0: none */
};

/** A write statement on a reading transaction is a programming error. */
struct kms_query kms_query_of(struct kms_store_txn *txn, enum kms_statement which);
/** Reset the statement. */
void kms_query_end(struct kms_query *query);
#define KMS_QUERY KMS_CLEANUP(kms_query_end) struct kms_query

/* Bind the next parameter; failures are kept for the step. `unsigned` numbers must be below 2^63. */
void kms_query_text(struct kms_query *query, const char *text); /* NULL: SQL NULL */
void kms_query_blob(struct kms_query *query, const void *data, size_t len);
void kms_query_uuid(struct kms_query *query, const struct kms_uuid *uuid);
void kms_query_i64(struct kms_query *query, int64_t number);
void kms_query_u64(struct kms_query *query, uint64_t number);

/** OK: a row is there. NOT_FOUND: no (further) row; records nothing in `err`. Else the mapped failure. */
enum kms_status kms_query_row(struct kms_query *query, struct kms_error *err) KMS_MUST_USE;
/**
 * Run a statement without rows. ALREADY_EXISTS, NOT_FOUND (a parent is missing), INVALID_ARGUMENT: a
 * constraint refused it and the transaction goes on. Other failures end its hope of a commit.
 */
enum kms_status kms_query_run(struct kms_query *query, const char *what, struct kms_error *err) KMS_MUST_USE;
/** Rows that the last kms_query_run() changed. */
int64_t kms_query_changes(const struct kms_query *query);

/* Take the next column of the row; a wrong type, length or range marks the row as damaged, the output is 0. */
void kms_query_take_text(struct kms_query *query, char *out, size_t size);
void kms_query_take_blob(struct kms_query *query, void *out, size_t len); /* of exactly this length */
void kms_query_take_uuid(struct kms_query *query, struct kms_uuid *out);
int64_t kms_query_take_i64(struct kms_query *query);
uint64_t kms_query_take_u64(struct kms_query *query); /* not negative */
uint32_t kms_query_take_u32(struct kms_query *query);
unsigned kms_query_take_state(struct kms_query *query); /* 0..255: checked further by record.h */
/** A heap copy with a terminator behind it, at most `max` bytes; *ret_len may be NULL. NULL: no memory or bad. */
uint8_t *kms_query_take_copy(struct kms_query *query, bool text, size_t max, size_t *ret_len);
/** Borrowed bytes, valid until the next row. */
struct kms_slice kms_query_take_slice(struct kms_query *query);
/** STORE_CORRUPT when a column was bad, or when `problem` (of record.h; NULL: none) says so. */
enum kms_status kms_query_row_ok(struct kms_query *query, const char *problem,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
