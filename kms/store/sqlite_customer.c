#include "store/query.h"
#include "store/record.h"
#include "store/snapshot.h"
#include "store/sqlite_seal.h"

/* Parameters of insert and update, in the order of the statements. */
static void bind_customer(struct kms_query *query, int64_t tenant_no,
                          const struct kms_customer_record *customer)
{
    kms_query_uuid(query, &customer->uuid);
    kms_query_i64(query, tenant_no);
    kms_query_text(query, customer->id);
    kms_query_text(query, customer->labels);
    kms_query_i64(query, customer->state);
    kms_query_u64(query, customer->revision);
    kms_query_i64(query, customer->created_ns);
    kms_query_i64(query, customer->updated_ns);
}

enum kms_status kms_sqlite_customer_take(struct kms_query *query, struct kms_customer_record *ret_customer,
                                         struct kms_error *err)
{
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    const int64_t no = kms_query_take_i64(query);
    kms_query_take_uuid(query, &customer.uuid);
    kms_query_take_uuid(query, &customer.tenant);
    kms_query_take_text(query, customer.id, sizeof customer.id);
    customer.labels = (char *)kms_query_take_copy(query, true, KMS_STORE_LABELS_TEXT_MAX, NULL);
    customer.state = kms_query_take_state(query);
    customer.revision = kms_query_take_u64(query);
    customer.created_ns = kms_query_take_i64(query);
    customer.updated_ns = kms_query_take_i64(query);
    KMS_TRY(kms_query_row_ok(query, kms_record_customer_problem(&customer), err));
    query->txn->customer = (struct kms_sqlite_memo){true, customer.uuid, no};
    *ret_customer = customer;
    customer.labels = NULL;
    return KMS_OK;
}

/* Insert and update differ in their statement, and in what no changed row means. */
static enum kms_status write_customer(struct kms_store_txn *txn, enum kms_statement which,
                                      const struct kms_customer_record *customer, struct kms_error *err)
{
    const char *problem = kms_record_customer_problem(customer);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &customer->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, which);
    bind_customer(&query, tenant_no, customer);
    KMS_TRY(kms_query_run(&query, "customer", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_NOT_FOUND, "no customer has this uuid");
    return kms_sqlite_log(txn, KMS_CHANGE_CUSTOMER, kms_changelog_customer(customer, kms_sqlite_payload(txn)),
                          err);
}

enum kms_status kms_sqlite_customer_insert(struct kms_store_txn *txn,
                                           const struct kms_customer_record *customer, struct kms_error *err)
{
    return write_customer(txn, KMS_STATEMENT_CUSTOMER_INSERT, customer, err);
}

enum kms_status kms_sqlite_customer_update(struct kms_store_txn *txn,
                                           const struct kms_customer_record *customer, struct kms_error *err)
{
    return write_customer(txn, KMS_STATEMENT_CUSTOMER_UPDATE, customer, err);
}

/* After the lookup was bound. */
static enum kms_status get_customer(struct kms_query *query, struct kms_customer_record *ret_customer,
                                    struct kms_error *err)
{
    const enum kms_status status = kms_query_row(query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such customer");
    KMS_TRY(status);
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(kms_sqlite_customer_take(query, &customer, err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_CUSTOMER, customer, &customer, err));
    *ret_customer = customer;
    customer.labels = NULL;
    return KMS_OK;
}

enum kms_status kms_sqlite_customer_by_id(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                          const char *id, struct kms_customer_record *ret_customer,
                                          struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_BY_ID);
    kms_query_i64(&query, tenant_no);
    kms_query_uuid(&query, tenant);
    kms_query_text(&query, id);
    return get_customer(&query, ret_customer, err);
}

enum kms_status kms_sqlite_customer_by_uuid(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                            struct kms_customer_record *ret_customer, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_BY_UUID);
    kms_query_uuid(&query, uuid);
    return get_customer(&query, ret_customer, err);
}

enum kms_status kms_sqlite_customer_no(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                       int64_t *ret_no, struct kms_error *err)
{
    if (!txn->customer.known || !kms_uuid_equal(&txn->customer.uuid, uuid)) {
        KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_NO);
        kms_query_uuid(&query, uuid);
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return kms_fail(err, KMS_NOT_FOUND, "no such customer");
        KMS_TRY(status);
        const int64_t no = kms_query_take_i64(&query);
        KMS_TRY(kms_query_row_ok(&query, NULL, err));
        txn->customer = (struct kms_sqlite_memo){true, *uuid, no};
    }
    *ret_no = txn->customer.no;
    return KMS_OK;
}

/* Parameters of the list: it begins at the larger of prefix and after_id, and leaves after_id itself out. */
static void bind_list(struct kms_query *query, int64_t tenant_no, const struct kms_uuid *tenant,
                      const struct kms_customer_filter *filter, const char *after_id)
{
    const char *first = filter->id_prefix != NULL ? filter->id_prefix : "";
    if (after_id != NULL && strcmp(after_id, first) > 0)
        first = after_id;
    kms_query_i64(query, tenant_no);
    kms_query_uuid(query, tenant);
    kms_query_text(query, first);
    kms_query_text(query, after_id);
    kms_query_i64(query, filter->state);
    kms_query_i64(query, filter->created_from_ns != 0 ? filter->created_from_ns : INT64_MIN);
    kms_query_i64(query, filter->created_until_ns != 0 ? filter->created_until_ns : INT64_MAX);
    kms_query_text(query, filter->label_key);
    kms_query_text(query, filter->label_value);
}

/* Rows to the visitor until the limit, the end of the prefix, or the visitor's own end. */
static enum kms_status visit_rows(struct kms_query *query, const char *prefix, size_t limit,
                                  kms_customer_visit visit, void *context, struct kms_error *err)
{
    const size_t prefix_len = prefix != NULL ? strlen(prefix) : 0;
    for (size_t count = 0; count < limit; count++) {
        const enum kms_status status = kms_query_row(query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
        KMS_TRY(kms_sqlite_customer_take(query, &customer, err));
        if (strncmp(customer.id, prefix != NULL ? prefix : "", prefix_len) != 0)
            return KMS_OK;
        KMS_TRY(visit(context, &customer));
    }
    return KMS_OK;
}

enum kms_status kms_sqlite_customer_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         const struct kms_customer_filter *filter, const char *after_id,
                                         size_t limit, kms_customer_visit visit, void *context,
                                         struct kms_error *err)
{
    static const struct kms_customer_filter everything;
    KMS_ASSERT(!txn->listing);
    if (filter == NULL)
        filter = &everything;
    if ((filter->label_key == NULL) != (filter->label_value == NULL))
        return kms_fail(err, KMS_INVALID_ARGUMENT, "a label filter needs a key and a value");
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_LIST);
    bind_list(&query, tenant_no, tenant, filter, after_id);
    txn->listing = true;
    const enum kms_status status = visit_rows(&query, filter->id_prefix, limit, visit, context, err);
    txn->listing = false;
    return status;
}

enum kms_status kms_sqlite_customer_snapshot_closed(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                                    struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_ALL_CLOSED);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
        KMS_TRY(kms_sqlite_customer_take(&query, &customer, err));
        KMS_TRY(kms_snapshot_give(snapshot, kms_changelog_customer(&customer, kms_snapshot_payload(snapshot)),
                                  err));
    }
}
