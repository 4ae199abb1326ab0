#include "store/query.h"
#include "store/record.h"
#include "store/snapshot.h"
#include "store/sqlite_seal.h"

/* Parameters of insert and update, in the order of the statements. */
static void bind_tenant(struct kms_query *query, const struct kms_tenant_record *tenant)
{
    kms_query_uuid(query, &tenant->uuid);
    kms_query_text(query, tenant->id);
    kms_query_text(query, tenant->display_name);
    kms_query_i64(query, tenant->state);
    kms_query_u64(query, tenant->epoch);
    kms_query_blob(query, tenant->master_id, sizeof tenant->master_id);
    kms_query_blob(query, tenant->root_blob, sizeof tenant->root_blob);
    kms_query_i64(query, tenant->height);
    kms_query_u64(query, tenant->next_slot);
    kms_query_u64(query, tenant->revision);
    kms_query_i64(query, tenant->created_ns);
    kms_query_i64(query, tenant->updated_ns);
}

/* One row of KMS_TENANT_COLUMNS; remembers the internal number. */
static enum kms_status take_tenant(struct kms_query *query, struct kms_tenant_record *ret_tenant,
                                   struct kms_error *err)
{
    struct kms_tenant_record tenant = {0};
    const int64_t no = kms_query_take_i64(query);
    kms_query_take_uuid(query, &tenant.uuid);
    kms_query_take_text(query, tenant.id, sizeof tenant.id);
    kms_query_take_text(query, tenant.display_name, sizeof tenant.display_name);
    tenant.state = kms_query_take_state(query);
    tenant.epoch = kms_query_take_u64(query);
    kms_query_take_blob(query, tenant.master_id, sizeof tenant.master_id);
    kms_query_take_blob(query, tenant.root_blob, sizeof tenant.root_blob);
    tenant.height = kms_query_take_u32(query);
    tenant.next_slot = kms_query_take_u64(query);
    tenant.revision = kms_query_take_u64(query);
    tenant.created_ns = kms_query_take_i64(query);
    tenant.updated_ns = kms_query_take_i64(query);
    KMS_TRY(kms_query_row_ok(query, kms_record_tenant_problem(&tenant), err));
    query->txn->tenant = (struct kms_sqlite_memo){true, tenant.uuid, no};
    kms_sqlite_note_tenant(query->txn, &tenant, no);
    *ret_tenant = tenant;
    return KMS_OK;
}

enum kms_status kms_sqlite_tenant_insert(struct kms_store_txn *txn, const struct kms_tenant_record *tenant,
                                         struct kms_error *err)
{
    const char *problem = kms_record_tenant_problem(tenant);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_INSERT);
    bind_tenant(&query, tenant);
    KMS_TRY(kms_query_run(&query, "tenant", err));
    return kms_sqlite_log(txn, KMS_CHANGE_TENANT, kms_changelog_tenant(tenant, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_tenant_update(struct kms_store_txn *txn, const struct kms_tenant_record *tenant,
                                         struct kms_error *err)
{
    const char *problem = kms_record_tenant_problem(tenant);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_UPDATE);
    bind_tenant(&query, tenant);
    KMS_TRY(kms_query_run(&query, "tenant", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_NOT_FOUND, "no tenant has this uuid");
    return kms_sqlite_log(txn, KMS_CHANGE_TENANT, kms_changelog_tenant(tenant, kms_sqlite_payload(txn)), err);
}

/* After the lookup was bound. */
static enum kms_status get_tenant(struct kms_query *query, struct kms_tenant_record *ret_tenant,
                                  struct kms_error *err)
{
    const enum kms_status status = kms_query_row(query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such tenant");
    KMS_TRY(status);
    struct kms_tenant_record tenant;
    KMS_TRY(take_tenant(query, &tenant, err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_TENANT, tenant, &tenant, err));
    *ret_tenant = tenant;
    return KMS_OK;
}

/* A tenant whose row was read before, in the same state of the database. */
static bool recall_tenant(struct kms_store_txn *txn, const struct kms_uuid *uuid, const char *id,
                          struct kms_tenant_record *ret_tenant)
{
    int64_t no = 0;
    if (!kms_sqlite_recall_tenant(txn, uuid, id, ret_tenant, &no))
        return false;
    txn->tenant = (struct kms_sqlite_memo){true, ret_tenant->uuid, no};
    return true;
}

enum kms_status kms_sqlite_tenant_by_id(struct kms_store_txn *txn, const char *id,
                                        struct kms_tenant_record *ret_tenant, struct kms_error *err)
{
    if (recall_tenant(txn, NULL, id, ret_tenant))
        return KMS_OK;
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_BY_ID);
    kms_query_text(&query, id);
    return get_tenant(&query, ret_tenant, err);
}

enum kms_status kms_sqlite_tenant_by_uuid(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                          struct kms_tenant_record *ret_tenant, struct kms_error *err)
{
    if (recall_tenant(txn, uuid, NULL, ret_tenant))
        return KMS_OK;
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_BY_UUID);
    kms_query_uuid(&query, uuid);
    return get_tenant(&query, ret_tenant, err);
}

enum kms_status kms_sqlite_tenant_list(struct kms_store_txn *txn, const char *after_id, size_t limit,
                                       struct kms_tenant_record **ret_list, size_t *ret_count,
                                       struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_LIST);
    kms_query_text(&query, after_id != NULL ? after_id : "");
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf list = {0};
    size_t count = 0;
    for (;; count++) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            break;
        KMS_TRY(status);
        struct kms_tenant_record tenant;
        KMS_TRY(take_tenant(&query, &tenant, err));
        KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_TENANT, tenant, &tenant, err));
        if (kms_buf_append(&list, &tenant, sizeof tenant) != KMS_OK)
            return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of tenants");
    }
    *ret_list = (struct kms_tenant_record *)(void *)KMS_TAKE(list.data);
    *ret_count = count;
    return KMS_OK;
}

enum kms_status kms_sqlite_tenant_no(struct kms_store_txn *txn, const struct kms_uuid *uuid, int64_t *ret_no,
                                     struct kms_error *err)
{
    if (!txn->tenant.known || !kms_uuid_equal(&txn->tenant.uuid, uuid)) {
        KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_NO);
        kms_query_uuid(&query, uuid);
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return kms_fail(err, KMS_NOT_FOUND, "no such tenant");
        KMS_TRY(status);
        const int64_t no = kms_query_take_i64(&query);
        KMS_TRY(
            kms_query_row_ok(&query, no < 1 || no > KMS_RECORD_TENANT_NO_MAX ? "tenant number" : NULL, err));
        txn->tenant = (struct kms_sqlite_memo){true, *uuid, no};
    }
    *ret_no = txn->tenant.no;
    return KMS_OK;
}

enum kms_status kms_sqlite_tenant_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                           struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TENANT_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_tenant_record tenant;
        KMS_TRY(take_tenant(&query, &tenant, err));
        KMS_TRY(
            kms_snapshot_give(snapshot, kms_changelog_tenant(&tenant, kms_snapshot_payload(snapshot)), err));
    }
}
