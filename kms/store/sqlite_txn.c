#define _GNU_SOURCE
#include "core/clock.h"
#include "core/log.h"
#include "store/query.h"
#include "store/sqlite_error.h"
#include "store/sqlite_load.h"
#include "store/sqlite_seal.h"

#include <errno.h>
#include <time.h>

/* Which reader this thread had last: its page cache is the one that knows this thread's customers. */
static _Thread_local unsigned reader_hint;

static struct kms_sqlite *store_of(struct kms_store *store)
{
    return (struct kms_sqlite *)(void *)store;
}

/* Run a statement that has neither parameters nor rows. */
static int run_plain(struct kms_sqlite_conn *conn, enum kms_statement which)
{
    const int rc = sqlite3_step(conn->statements[which]);
    (void)sqlite3_reset(conn->statements[which]);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* End what is left of a transaction; SQLite has ended it by itself after some errors. */
static void abandon(struct kms_sqlite_conn *conn)
{
    if (sqlite3_get_autocommit(conn->db) == 0)
        KMS_ASSERT(run_plain(conn, KMS_STATEMENT_ROLLBACK) == SQLITE_OK);
}

/* A free reader: no lock, one atomic count down and one exchange. NULL at the deadline. */
static struct kms_sqlite_conn *reader_take(struct kms_sqlite *store)
{
    if (sem_trywait(&store->free_readers) != 0) {
        const int64_t until = kms_clock_mono_ns() + (int64_t)store->busy_timeout_ms * KMS_NS_PER_MS;
        const struct timespec deadline = {.tv_sec = until / KMS_NS_PER_SECOND,
                                          .tv_nsec = until % KMS_NS_PER_SECOND};
        int result;
        do
            result = sem_clockwait(&store->free_readers, CLOCK_MONOTONIC, &deadline);
        while (result != 0 && errno == EINTR);
        if (result != 0)
            return NULL;
    }
    for (unsigned i = reader_hint;; i++) { /* ends: the semaphore promised one */
        struct kms_sqlite_conn *conn = &store->readers[i % store->reader_count];
        if (!__atomic_exchange_n(&conn->taken, true, __ATOMIC_ACQUIRE)) {
            reader_hint = i % store->reader_count;
            return conn;
        }
    }
}

static void reader_give(struct kms_sqlite *store, struct kms_sqlite_conn *conn)
{
    __atomic_store_n(&conn->taken, false, __ATOMIC_RELEASE);
    KMS_ASSERT(sem_post(&store->free_readers) == 0);
}

static enum kms_status begin_read(struct kms_sqlite *store, struct kms_store_txn **ret_txn,
                                  struct kms_error *err)
{
    struct kms_sqlite_conn *conn = reader_take(store);
    if (conn == NULL)
        return kms_fail(err, KMS_STORE_BUSY, "all %u reading connections were in use for %u ms",
                        store->reader_count, store->busy_timeout_ms);
    conn->txn = (struct kms_store_txn){.store = store, .conn = conn};
    kms_sqlite_seal_mark(&conn->txn); /* before the snapshot */
    int rc = run_plain(conn, KMS_STATEMENT_BEGIN_READ);
    if (rc == SQLITE_OK)
        rc = run_plain(conn, KMS_STATEMENT_LOOK); /* BEGIN alone takes no snapshot */
    if (rc == SQLITE_OK)
        rc = kms_sqlite_recall_begin(&conn->txn);
    if (rc != SQLITE_OK) {
        const enum kms_status status = kms_sqlite_error(conn->db, rc, "BEGIN", err);
        abandon(conn);
        reader_give(store, conn);
        return status;
    }
    *ret_txn = &conn->txn;
    return KMS_OK;
}

static enum kms_status begin_write(struct kms_sqlite *store, struct kms_store_txn **ret_txn,
                                   struct kms_error *err)
{
    const int64_t deadline = kms_clock_mono_ns() + (int64_t)store->busy_timeout_ms * KMS_NS_PER_MS;
    if (!kms_mutex_lock_until(&store->lock, deadline))
        return kms_fail(err, KMS_STORE_BUSY, "another write transaction went on for %u ms",
                        store->busy_timeout_ms);
    struct kms_sqlite_conn *conn = &store->writer;
    const int rc = run_plain(conn, KMS_STATEMENT_BEGIN_WRITE);
    if (rc != SQLITE_OK) {
        const enum kms_status status = kms_sqlite_error(conn->db, rc, "BEGIN IMMEDIATE", err);
        abandon(conn);
        kms_mutex_unlock(&store->lock);
        return status;
    }
    store->reservation_count = 0;
    conn->txn =
        (struct kms_store_txn){.store = store, .conn = conn, .write = true, .now_ns = kms_clock_wall_ns()};
    kms_sqlite_seal_mark(&conn->txn);
    *ret_txn = &conn->txn;
    return KMS_OK;
}

enum kms_status kms_sqlite_begin(struct kms_store *store, bool write, struct kms_store_txn **ret_txn,
                                 struct kms_error *err)
{
    return write ? begin_write(store_of(store), ret_txn, err) : begin_read(store_of(store), ret_txn, err);
}

struct kms_buf *kms_sqlite_payload(struct kms_store_txn *txn)
{
    kms_mutex_assert_held(&txn->store->lock);
    txn->store->payload.len = 0;
    return &txn->store->payload;
}

enum kms_status kms_sqlite_log(struct kms_store_txn *txn, enum kms_change_kind kind, enum kms_status encoded,
                               struct kms_error *err)
{
    if (encoded != KMS_OK) {
        txn->failed = encoded;
        return kms_fail(err, encoded, "no memory to encode a change record");
    }
    const enum kms_status sealed = kms_sqlite_seal_note(txn, kind, err);
    if (sealed != KMS_OK) {
        txn->failed = sealed;
        return sealed;
    }
    if (txn->silent)
        return KMS_OK;
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_LOG_APPEND);
    kms_query_i64(&query, txn->now_ns);
    kms_query_i64(&query, kind);
    kms_query_blob(&query, txn->store->payload.data, txn->store->payload.len);
    const enum kms_status status = kms_query_run(&query, "change record", err);
    if (status != KMS_OK)
        txn->failed = status;
    else
        txn->logged_seq = (uint64_t)sqlite3_last_insert_rowid(txn->conn->db);
    return status;
}

/* Turn the reservations so far into one change record. */
static enum kms_status log_reservations(struct kms_store_txn *txn, struct kms_error *err)
{
    const size_t count = txn->store->reservation_count;
    if (count == 0)
        return KMS_OK;
    txn->store->reservation_count = 0;
    return kms_sqlite_log(txn, KMS_CHANGE_RESERVE,
                          kms_changelog_reserve(txn->store->reservations, count, kms_sqlite_payload(txn)),
                          err);
}

enum kms_status kms_sqlite_log_reservation(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                           uint64_t wraps_reserved, struct kms_error *err)
{
    struct kms_sqlite *store = txn->store;
    if (store->reservation_count == KMS_CHANGELOG_RESERVATIONS_MAX)
        KMS_TRY(log_reservations(txn, err));
    struct kms_change_reservation *entry = &store->reservations[store->reservation_count++];
    memcpy(entry->kek_id, kek_id, KMS_KEK_ID_SIZE);
    entry->wraps_reserved = wraps_reserved;
    return KMS_OK;
}

/* Everything of a write transaction's commit but the end of the lock. */
static enum kms_status commit_locked(struct kms_store_txn *txn, struct kms_error *err)
{
    KMS_TRY(log_reservations(txn, err));
    if (txn->failed != KMS_OK)
        return kms_fail(err, txn->failed, "the transaction lost a write before: nothing of it is kept");
    if (txn->store->rows != NULL && txn->silent) /* and not when what was restored is sealed */
        KMS_TRY(kms_sqlite_draft_check(txn, err));
    KMS_TRY(kms_sqlite_seal_close(txn, err));
    kms_sqlite_seal_hold(txn);
    const int rc = run_plain(txn->conn, KMS_STATEMENT_COMMIT);
    kms_sqlite_seal_release(txn, rc == SQLITE_OK);
    return rc == SQLITE_OK ? KMS_OK : kms_sqlite_error(txn->conn->db, rc, "COMMIT", err);
}

/* Readers have nothing to lose at the end. */
static void end_read(struct kms_store_txn *txn)
{
    (void)run_plain(txn->conn, KMS_STATEMENT_COMMIT);
    abandon(txn->conn);
    reader_give(txn->store, txn->conn);
}

enum kms_status kms_sqlite_commit(struct kms_store_txn *txn, struct kms_error *err)
{
    if (!txn->write) {
        end_read(txn);
        return KMS_OK;
    }
    struct kms_sqlite *store = txn->store;
    const enum kms_status status = commit_locked(txn, err);
    abandon(txn->conn);
    if (status == KMS_OK)
        kms_sqlite_checkpoint_locked(store);
    const uint64_t logged = txn->logged_seq;
    kms_mutex_unlock(&store->lock);
    if (status == KMS_OK && logged != 0)
        kms_sqlite_changes_note(store, logged);
    return status;
}

void kms_sqlite_rollback(struct kms_store_txn *txn)
{
    if (txn == NULL)
        return;
    if (!txn->write) {
        end_read(txn);
        return;
    }
    abandon(txn->conn);
    kms_mutex_unlock(&txn->store->lock);
}
