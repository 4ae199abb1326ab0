#include "store/sqlite_recovery.h"

#include "store/changelog_recovery.h"
#include "store/query.h"
#include "store/snapshot.h"
#include "store/sqlite_seal.h"

enum kms_status kms_sqlite_recovery_key_put(struct kms_store_txn *txn,
                                            const struct kms_recovery_key_record *key, struct kms_error *err)
{
    const char *problem = kms_recovery_key_problem(key);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_RECOVERY_KEY_PUT);
    kms_query_u64(&query, key->epoch);
    kms_query_text(&query, key->fingerprint);
    kms_query_i64(&query, key->state);
    kms_query_i64(&query, key->enrolled_ns);
    kms_query_text(&query, key->enrolled_by);
    kms_query_uuid(&query, &key->enroll_operation);
    kms_query_uuid(&query, &key->retire_operation);
    kms_query_i64(&query, key->retired_ns);
    kms_query_text(&query, key->retired_by);
    kms_query_text(&query, key->statement);
    kms_query_i64(&query, key->object_left);
    kms_query_i64(&query, key->drill_ns);
    kms_query_i64(&query, key->drill_took_ns);
    kms_query_text(&query, key->drill_by);
    kms_query_u64(&query, key->drill_customers);
    KMS_TRY(kms_query_run(&query, "recovery key", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_ABORTED, "recovery epoch %llu is not the next one",
                        (unsigned long long)key->epoch);
    return kms_sqlite_log(txn, KMS_CHANGE_RECOVERY_KEY,
                          kms_changelog_recovery_key(key, kms_sqlite_payload(txn)), err);
}

/* The row of the query. */
static enum kms_status take_key(struct kms_query *query, struct kms_recovery_key_record *ret_key,
                                struct kms_error *err)
{
    struct kms_recovery_key_record key = {0};
    key.epoch = kms_query_take_u64(query);
    kms_query_take_text(query, key.fingerprint, sizeof key.fingerprint);
    key.state = kms_query_take_state(query);
    key.enrolled_ns = kms_query_take_i64(query);
    kms_query_take_text(query, key.enrolled_by, sizeof key.enrolled_by);
    kms_query_take_uuid(query, &key.enroll_operation);
    kms_query_take_uuid(query, &key.retire_operation);
    key.retired_ns = kms_query_take_i64(query);
    kms_query_take_text(query, key.retired_by, sizeof key.retired_by);
    kms_query_take_text(query, key.statement, sizeof key.statement);
    key.object_left = kms_query_take_u64(query) != 0;
    key.drill_ns = kms_query_take_i64(query);
    key.drill_took_ns = kms_query_take_i64(query);
    kms_query_take_text(query, key.drill_by, sizeof key.drill_by);
    key.drill_customers = kms_query_take_u64(query);
    KMS_TRY(kms_query_row_ok(query, kms_recovery_key_problem(&key), err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_RECOVERY_KEY, recovery_key, &key, err));
    *ret_key = key;
    return KMS_OK;
}

enum kms_status kms_sqlite_recovery_key_get(struct kms_store_txn *txn, const char *fingerprint,
                                            struct kms_recovery_key_record *ret_key, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_RECOVERY_KEY_GET);
    kms_query_text(&query, fingerprint);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such recovery key");
    return status == KMS_OK ? take_key(&query, ret_key, err) : status;
}

enum kms_status kms_sqlite_recovery_key_list(struct kms_store_txn *txn, kms_recovery_key_visit visit,
                                             void *context, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_RECOVERY_KEY_LIST);
    for (size_t count = 0;; count++) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return kms_sqlite_seal_check_count(txn, KMS_CHANGE_RECOVERY_KEY, NULL, count, err);
        KMS_TRY(status);
        struct kms_recovery_key_record key;
        KMS_TRY(take_key(&query, &key, err));
        KMS_TRY(visit(context, &key));
    }
}

enum kms_status kms_sqlite_recovery_cover_put(struct kms_store_txn *txn,
                                              const struct kms_recovery_cover_record *cover,
                                              struct kms_error *err)
{
    const char *problem = kms_recovery_cover_problem(cover);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &cover->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_RECOVERY_COVER_PUT);
    kms_query_u64(&query, cover->recovery_epoch);
    kms_query_i64(&query, tenant_no);
    kms_query_u64(&query, cover->first_epoch);
    KMS_TRY(kms_query_run(&query, "recovery key", err));
    if (kms_query_changes(&query) == 0)
        return KMS_OK; /* it covers more already */
    return kms_sqlite_log(txn, KMS_CHANGE_RECOVERY_COVER,
                          kms_changelog_recovery_cover(cover, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_recovery_cover_get(struct kms_store_txn *txn, uint64_t recovery_epoch,
                                              const struct kms_uuid *tenant, uint64_t *ret_first_epoch,
                                              struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_RECOVERY_COVER_GET);
    kms_query_u64(&query, recovery_epoch);
    kms_query_i64(&query, tenant_no);
    struct kms_recovery_cover_record cover = {.recovery_epoch = recovery_epoch, .tenant = *tenant};
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND) { /* that nothing is open any more is what a certificate says */
        const struct kms_change none = {.kind = KMS_CHANGE_RECOVERY_COVER, .recovery_cover = cover};
        KMS_TRY(kms_sqlite_seal_check_absent(txn, &none, err));
        return status;
    }
    KMS_TRY(status);
    const uint64_t first_epoch = kms_query_take_u64(&query);
    KMS_TRY(kms_query_row_ok(&query, first_epoch == 0 ? "recovery cover: epoch from 1" : NULL, err));
    cover.first_epoch = first_epoch;
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_RECOVERY_COVER, recovery_cover, &cover, err));
    *ret_first_epoch = first_epoch;
    return KMS_OK;
}

/* Keys before what they cover. */
static enum kms_status snapshot_keys(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                     struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_RECOVERY_KEY_LIST);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_recovery_key_record key;
        KMS_TRY(take_key(&query, &key, err));
        KMS_TRY(kms_snapshot_give(snapshot, kms_changelog_recovery_key(&key, kms_snapshot_payload(snapshot)),
                                  err));
    }
}

enum kms_status kms_sqlite_recovery_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                             struct kms_error *err)
{
    KMS_TRY(snapshot_keys(txn, snapshot, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_RECOVERY_COVER_LIST);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_recovery_cover_record cover;
        cover.recovery_epoch = kms_query_take_u64(&query);
        kms_query_take_uuid(&query, &cover.tenant);
        cover.first_epoch = kms_query_take_u64(&query);
        KMS_TRY(kms_query_row_ok(&query, kms_recovery_cover_problem(&cover), err));
        KMS_TRY(kms_snapshot_give(snapshot,
                                  kms_changelog_recovery_cover(&cover, kms_snapshot_payload(snapshot)), err));
    }
}
