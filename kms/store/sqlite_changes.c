#include "store/query.h"
#include "store/snapshot.h"

enum kms_status kms_snapshot_give(struct kms_snapshot *snapshot, enum kms_status encoded,
                                  struct kms_error *err)
{
    if (encoded != KMS_OK)
        return kms_fail(err, encoded, "no memory to encode a change record");
    const struct kms_change_row row = {.payload = kms_buf_slice(&snapshot->payload)};
    return snapshot->visit(snapshot->context, &row);
}

/* The number that the next change follows; SQLite keeps it when rows are gone. */
enum kms_status kms_sqlite_changes_last(struct kms_store_txn *txn, uint64_t *ret_seq, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CHANGES_LAST);
    KMS_TRY(kms_query_row(&query, err));
    const uint64_t seq = kms_query_take_u64(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    *ret_seq = seq;
    return KMS_OK;
}

enum kms_status kms_sqlite_changes_read(struct kms_store_txn *txn, uint64_t after, size_t limit,
                                        kms_change_visit visit, void *context, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CHANGES_READ);
    kms_query_u64(&query, after);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_change_row row = {.seq = kms_query_take_u64(&query),
                                     .time_ns = kms_query_take_i64(&query)};
        row.payload = kms_query_take_slice(&query);
        KMS_TRY(kms_query_row_ok(&query, NULL, err));
        KMS_TRY(visit(context, &row));
    }
}

enum kms_status kms_sqlite_changes_waiting(struct kms_store_txn *txn, uint64_t after, size_t limit,
                                           struct kms_store_waiting *ret_waiting, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CHANGES_WAITING);
    kms_query_u64(&query, after);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    KMS_TRY(kms_query_row(&query, err));
    struct kms_store_waiting waiting;
    waiting.count = kms_query_take_u64(&query);
    waiting.bytes = kms_query_take_u64(&query);
    waiting.oldest_ns = kms_query_take_i64(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    *ret_waiting = waiting;
    return KMS_OK;
}

enum kms_status kms_sqlite_changes_prune(struct kms_store_txn *txn, uint64_t up_to, size_t limit,
                                         size_t *ret_removed, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CHANGES_PRUNE);
    kms_query_u64(&query, up_to);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    KMS_TRY(kms_query_run(&query, "pruning the change log", err));
    *ret_removed = (size_t)kms_query_changes(&query);
    return KMS_OK;
}

enum kms_status kms_sqlite_changes_resume(struct kms_store_txn *txn, uint64_t seq, struct kms_error *err)
{
    uint64_t last = 0;
    size_t removed = 0;
    KMS_TRY(kms_sqlite_changes_last(txn, &last, err));
    if (last != 0)
        return kms_fail(err, KMS_FAILED_PRECONDITION, "the change log is not empty");
    if (seq == 0)
        return KMS_OK;
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CHANGES_RESUME);
    kms_query_u64(&query, seq);
    KMS_TRY(kms_query_run(&query, "continuing the change log", err));
    return kms_sqlite_changes_prune(txn, seq, 1, &removed, err);
}

/* Parents before children. */
static const kms_snapshot_family families[] = {
    kms_sqlite_tenant_snapshot, kms_sqlite_purpose_snapshot,  kms_sqlite_customer_snapshot,
    kms_sqlite_page_snapshot,   kms_sqlite_request_snapshot,  kms_sqlite_operation_snapshot,
    kms_sqlite_shred_snapshot,  kms_sqlite_rekey_snapshot,    kms_sqlite_policy_snapshot,
    kms_sqlite_freeze_snapshot, kms_sqlite_recovery_snapshot,
};

enum kms_status kms_sqlite_changes_snapshot(struct kms_store_txn *txn, kms_change_visit visit, void *context,
                                            struct kms_error *err)
{
    struct kms_snapshot snapshot = {.visit = visit, .context = context};
    enum kms_status status = KMS_OK;
    for (size_t i = 0; i < sizeof families / sizeof families[0] && status == KMS_OK; i++)
        status = families[i](txn, &snapshot, err);
    kms_buf_clear(&snapshot.payload);
    return status;
}

enum kms_status kms_sqlite_changes_counts(struct kms_store_txn *txn, struct kms_store_counts *ret_counts,
                                          struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_COUNTS);
    KMS_TRY(kms_query_row(&query, err));
    struct kms_store_counts counts;
    counts.tenants = kms_query_take_u64(&query);
    counts.purposes = kms_query_take_u64(&query);
    counts.customers = kms_query_take_u64(&query);
    counts.keks = kms_query_take_u64(&query);
    counts.pages = kms_query_take_u64(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    *ret_counts = counts;
    return KMS_OK;
}

void kms_sqlite_changes_silence(struct kms_store_txn *txn)
{
    KMS_ASSERT(txn->write);
    txn->silent = true;
}

static struct kms_sqlite *store_of(struct kms_store *store)
{
    return (struct kms_sqlite *)(void *)store;
}

/* What this thread has committed and not asked for yet. A thread works with one store; tests with several ask in between. */
static _Thread_local struct {
    const struct kms_sqlite *store;
    uint64_t seq;
} mine;

void kms_sqlite_changes_note(struct kms_sqlite *store, uint64_t seq)
{
    uint64_t seen = atomic_load(&store->committed_seq);
    while (seen < seq && !atomic_compare_exchange_weak(&store->committed_seq, &seen, seq))
        continue;
    mine.store = store;
    mine.seq = seq;
    KMS_ASSERT(pthread_rwlock_rdlock(&store->notify_lock) == 0);
    if (store->notify != NULL)
        store->notify(store->notify_context);
    KMS_ASSERT(pthread_rwlock_unlock(&store->notify_lock) == 0);
}

uint64_t kms_sqlite_changes_committed(struct kms_store *store)
{
    return atomic_load(&store_of(store)->committed_seq);
}

uint64_t kms_sqlite_changes_take_mine(struct kms_store *store)
{
    const uint64_t seq = mine.store == store_of(store) ? mine.seq : 0;
    mine.seq = 0;
    return seq;
}

void kms_sqlite_changes_on_commit(struct kms_store *base, void (*notify)(void *context), void *context)
{
    struct kms_sqlite *store = store_of(base);
    KMS_ASSERT(pthread_rwlock_wrlock(&store->notify_lock) == 0);
    store->notify = notify;
    store->notify_context = context;
    KMS_ASSERT(pthread_rwlock_unlock(&store->notify_lock) == 0);
}
