#include "store/query.h"
#include "store/record.h"
#include "store/snapshot.h"

/* The row id of a page: tenant number (20 bits), level (4), index (39). See schema.c. */
static int64_t page_id(int64_t tenant_no, uint32_t level, uint64_t index)
{
    return tenant_no << 43 | (int64_t)level << KMS_RECORD_PAGE_INDEX_BITS | (int64_t)index;
}

/* Level, index, MAC and body of a row, after what tells the tenant. */
static void take_page(struct kms_query *query, struct kms_page_record *page)
{
    page->level = kms_query_take_u32(query);
    page->index = kms_query_take_u64(query);
    kms_query_take_blob(query, page->mac, sizeof page->mac);
    page->body = kms_query_take_copy(query, false, KMS_STORE_PAGE_BODY_MAX, &page->body_len);
}

enum kms_status kms_sqlite_page_get(struct kms_store_txn *txn, const struct kms_uuid *tenant, uint32_t level,
                                    uint64_t index, struct kms_page_record *ret_page, struct kms_error *err)
{
    if (level >= KMS_STORE_TREE_LEVELS_MAX || index >= KMS_RECORD_PAGE_INDEX_END)
        return kms_fail(err, KMS_NOT_FOUND, "no such page: its place is out of range");
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_PAGE_GET);
    kms_query_i64(&query, page_id(tenant_no, level, index));
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such page");
    KMS_TRY(status);
    KMS_CLEANUP(kms_page_record_clear) struct kms_page_record page = {.tenant = *tenant};
    const int64_t row_tenant = kms_query_take_i64(&query);
    take_page(&query, &page);
    const char *problem = kms_record_page_problem(&page);
    if (row_tenant != tenant_no || page.level != level || page.index != index)
        problem = "page: it names another place";
    KMS_TRY(kms_query_row_ok(&query, problem, err));
    *ret_page = page;
    page.body = NULL;
    return KMS_OK;
}

enum kms_status kms_sqlite_page_put(struct kms_store_txn *txn, const struct kms_page_record *page,
                                    struct kms_error *err)
{
    const char *problem = kms_record_page_problem(page);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &page->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_PAGE_PUT);
    kms_query_i64(&query, page_id(tenant_no, page->level, page->index));
    kms_query_i64(&query, tenant_no);
    kms_query_i64(&query, page->level);
    kms_query_u64(&query, page->index);
    kms_query_blob(&query, page->mac, sizeof page->mac);
    kms_query_blob(&query, page->body, page->body_len);
    KMS_TRY(kms_query_run(&query, "page", err));
    return kms_sqlite_log(txn, KMS_CHANGE_PAGE, kms_changelog_page(page, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_page_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                         struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_PAGE_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_page_record_clear) struct kms_page_record page = {0};
        kms_query_take_uuid(&query, &page.tenant);
        take_page(&query, &page);
        KMS_TRY(kms_query_row_ok(&query, kms_record_page_problem(&page), err));
        KMS_TRY(kms_snapshot_give(snapshot, kms_changelog_page(&page, kms_snapshot_payload(snapshot)), err));
    }
}
