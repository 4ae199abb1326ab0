#include "store/query.h"
#include "store/record.h"
#include "store/snapshot.h"
#include "store/sqlite_seal.h"

/* Parameters of insert and update, in the order of the statements. */
static void bind_purpose(struct kms_query *query, int64_t tenant_no, const struct kms_purpose_record *purpose)
{
    kms_query_i64(query, tenant_no);
    kms_query_text(query, purpose->id);
    kms_query_text(query, purpose->display_name);
    kms_query_text(query, purpose->legal_basis);
    kms_query_i64(query, purpose->state);
    kms_query_i64(query, purpose->required_by_law);
    kms_query_i64(query, purpose->retention_seconds);
    kms_query_i64(query, purpose->rotation_seconds);
    kms_query_u64(query, purpose->revision);
    kms_query_i64(query, purpose->created_ns);
    kms_query_i64(query, purpose->updated_ns);
}

/* One row of KMS_PURPOSE_COLUMNS. */
static enum kms_status take_purpose(struct kms_query *query, const struct kms_uuid *tenant,
                                    struct kms_purpose_record *ret_purpose, struct kms_error *err)
{
    struct kms_purpose_record purpose = {.tenant = *tenant};
    kms_query_take_text(query, purpose.id, sizeof purpose.id);
    kms_query_take_text(query, purpose.display_name, sizeof purpose.display_name);
    kms_query_take_text(query, purpose.legal_basis, sizeof purpose.legal_basis);
    purpose.state = kms_query_take_state(query);
    const unsigned required = kms_query_take_state(query);
    purpose.required_by_law = required == 1;
    purpose.retention_seconds = kms_query_take_i64(query);
    purpose.rotation_seconds = kms_query_take_i64(query);
    purpose.revision = kms_query_take_u64(query);
    purpose.created_ns = kms_query_take_i64(query);
    purpose.updated_ns = kms_query_take_i64(query);
    const char *problem = kms_record_purpose_problem(&purpose);
    if (problem == NULL && required > 1)
        problem = "purpose required by law: 0 or 1";
    KMS_TRY(kms_query_row_ok(query, problem, err));
    kms_sqlite_note_purpose(query->txn, &purpose);
    *ret_purpose = purpose;
    return KMS_OK;
}

/* Insert and update differ in their statement, and in what no changed row means. */
static enum kms_status write_purpose(struct kms_store_txn *txn, enum kms_statement which,
                                     const struct kms_purpose_record *purpose, struct kms_error *err)
{
    const char *problem = kms_record_purpose_problem(purpose);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &purpose->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, which);
    bind_purpose(&query, tenant_no, purpose);
    KMS_TRY(kms_query_run(&query, "purpose", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_NOT_FOUND, "no such purpose");
    return kms_sqlite_log(txn, KMS_CHANGE_PURPOSE, kms_changelog_purpose(purpose, kms_sqlite_payload(txn)),
                          err);
}

enum kms_status kms_sqlite_purpose_insert(struct kms_store_txn *txn, const struct kms_purpose_record *purpose,
                                          struct kms_error *err)
{
    return write_purpose(txn, KMS_STATEMENT_PURPOSE_INSERT, purpose, err);
}

enum kms_status kms_sqlite_purpose_update(struct kms_store_txn *txn, const struct kms_purpose_record *purpose,
                                          struct kms_error *err)
{
    return write_purpose(txn, KMS_STATEMENT_PURPOSE_UPDATE, purpose, err);
}

enum kms_status kms_sqlite_purpose_get(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                       const char *id, struct kms_purpose_record *ret_purpose,
                                       struct kms_error *err)
{
    if (kms_sqlite_recall_purpose(txn, tenant, id, ret_purpose))
        return KMS_OK;
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_PURPOSE_GET);
    kms_query_i64(&query, tenant_no);
    kms_query_text(&query, id);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such purpose");
    KMS_TRY(status);
    struct kms_purpose_record purpose;
    KMS_TRY(take_purpose(&query, tenant, &purpose, err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_PURPOSE, purpose, &purpose, err));
    *ret_purpose = purpose;
    return KMS_OK;
}

enum kms_status kms_sqlite_purpose_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                        const char *after_id, size_t limit,
                                        struct kms_purpose_record **ret_list, size_t *ret_count,
                                        struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_PURPOSE_LIST);
    kms_query_i64(&query, tenant_no);
    kms_query_text(&query, after_id != NULL ? after_id : "");
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf list = {0};
    size_t count = 0;
    for (;; count++) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            break;
        KMS_TRY(status);
        struct kms_purpose_record purpose;
        KMS_TRY(take_purpose(&query, tenant, &purpose, err));
        KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_PURPOSE, purpose, &purpose, err));
        if (kms_buf_append(&list, &purpose, sizeof purpose) != KMS_OK)
            return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of purposes");
    }
    if (after_id == NULL && count < limit)
        KMS_TRY(kms_sqlite_seal_check_count(txn, KMS_CHANGE_PURPOSE, tenant, count, err));
    *ret_list = (struct kms_purpose_record *)(void *)KMS_TAKE(list.data);
    *ret_count = count;
    return KMS_OK;
}

enum kms_status kms_sqlite_purpose_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                            struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_PURPOSE_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_uuid tenant;
        struct kms_purpose_record purpose;
        kms_query_take_uuid(&query, &tenant);
        KMS_TRY(take_purpose(&query, &tenant, &purpose, err));
        KMS_TRY(kms_snapshot_give(snapshot, kms_changelog_purpose(&purpose, kms_snapshot_payload(snapshot)),
                                  err));
    }
}
