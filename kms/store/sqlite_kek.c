#include "store/query.h"
#include "store/record.h"
#include "store/sqlite_rekey.h"

/* The columns of KMS_KEK_COLUMNS. */
static struct kms_kek_record take_kek(struct kms_query *query)
{
    struct kms_kek_record kek = {0};
    kms_query_take_blob(query, kek.kek_id, sizeof kek.kek_id);
    kms_query_take_uuid(query, &kek.tenant);
    kms_query_take_uuid(query, &kek.customer);
    kms_query_take_text(query, kek.purpose, sizeof kek.purpose);
    kek.version = kms_query_take_u32(query);
    kek.slot = kms_query_take_u64(query);
    kek.state = kms_query_take_state(query);
    kek.wraps_reserved = kms_query_take_u64(query);
    kek.created_ns = kms_query_take_i64(query);
    kek.rewrapped = kms_query_take_u64(query);
    return kek;
}

enum kms_status kms_sqlite_kek_take(struct kms_query *query, struct kms_kek_record *ret_kek,
                                    struct kms_error *err)
{
    const struct kms_kek_record kek = take_kek(query);
    KMS_TRY(kms_query_row_ok(query, kms_record_kek_problem(&kek), err));
    *ret_kek = kek;
    return KMS_OK;
}

enum kms_status kms_sqlite_kek_insert(struct kms_store_txn *txn, const struct kms_kek_record *kek,
                                      struct kms_error *err)
{
    const char *problem = kms_record_kek_problem(kek);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    int64_t customer_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &kek->tenant, &tenant_no, err));
    KMS_TRY(kms_sqlite_customer_no(txn, &kek->customer, &customer_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_INSERT);
    kms_query_i64(&query, customer_no);
    kms_query_text(&query, kek->purpose);
    kms_query_i64(&query, kek->version);
    kms_query_blob(&query, kek->kek_id, sizeof kek->kek_id);
    kms_query_i64(&query, tenant_no);
    kms_query_u64(&query, kek->slot);
    kms_query_i64(&query, kek->state);
    kms_query_u64(&query, kek->wraps_reserved);
    kms_query_i64(&query, kek->created_ns);
    KMS_TRY(kms_query_run(&query, "KEK", err));
    return kms_sqlite_log(txn, KMS_CHANGE_KEK, kms_changelog_kek(kek, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_kek_set_state(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                         enum kms_kek_state state, struct kms_error *err)
{
    if (!kms_record_kek_state_known(state))
        return kms_fail(err, KMS_INVALID_ARGUMENT, "KEK state: unknown");
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_SET_STATE);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    kms_query_i64(&query, state);
    KMS_TRY(kms_query_run(&query, "KEK state", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_NOT_FOUND, "no such KEK");
    return kms_sqlite_log(txn, KMS_CHANGE_KEK_STATE,
                          kms_changelog_kek_state(kek_id, state, kms_sqlite_payload(txn)), err);
}

/* The primary key of a KEK and its counter. */
struct located {
    int64_t customer_no;
    char purpose[KMS_PURPOSE_ID_MAX + 1];
    uint32_t version;
    uint64_t wraps_reserved;
};

static enum kms_status locate(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                              struct located *out, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_LOCATE);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such KEK");
    KMS_TRY(status);
    out->customer_no = kms_query_take_i64(&query);
    kms_query_take_text(&query, out->purpose, sizeof out->purpose);
    out->version = kms_query_take_u32(&query);
    out->wraps_reserved = kms_query_take_u64(&query);
    return kms_query_row_ok(&query, NULL, err);
}

enum kms_status kms_sqlite_kek_reserve(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                       uint64_t count, uint64_t *ret_first, struct kms_error *err)
{
    struct located kek = {0};
    KMS_TRY(locate(txn, kek_id, &kek, err));
    uint64_t after;
    if (__builtin_add_overflow(kek.wraps_reserved, count, &after) || after > KMS_STORE_WRAPS_MAX)
        return kms_fail(err, KMS_OUT_OF_RANGE, "a KEK cannot have more than 2^62 wraps reserved");
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_RESERVE);
    kms_query_i64(&query, kek.customer_no);
    kms_query_text(&query, kek.purpose);
    kms_query_i64(&query, kek.version);
    kms_query_u64(&query, after);
    KMS_TRY(kms_query_run(&query, "KEK reservation", err));
    if (kms_query_changes(&query) != 1) {
        txn->failed = KMS_STORE_CORRUPT;
        return kms_fail(err, KMS_STORE_CORRUPT,
                        "the index of KEK ids names a KEK that is not there: restore a "
                        "backup");
    }
    KMS_TRY(kms_sqlite_log_reservation(txn, kek_id, after, err));
    *ret_first = kek.wraps_reserved;
    return KMS_OK;
}

enum kms_status kms_sqlite_kek_by_id(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                     struct kms_kek_record *ret_kek, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_BY_ID);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such KEK");
    return status == KMS_OK ? kms_sqlite_kek_take(&query, ret_kek, err) : status;
}

enum kms_status kms_sqlite_kek_with_customer(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                             struct kms_kek_record *ret_kek,
                                             struct kms_kek_customer *ret_customer, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_WITH_CUSTOMER);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such KEK");
    KMS_TRY(status);
    const struct kms_kek_record kek = take_kek(&query);
    struct kms_kek_customer customer = {0};
    kms_query_take_text(&query, customer.id, sizeof customer.id);
    customer.state = kms_query_take_state(&query);
    customer.is_of_tenant = kms_query_take_u32(&query) == 1;
    const char *problem = kms_record_kek_problem(&kek);
    if (problem == NULL)
        problem = kms_record_kek_customer_problem(&customer);
    KMS_TRY(kms_query_row_ok(&query, problem, err));
    *ret_kek = kek;
    *ret_customer = customer;
    return KMS_OK;
}

enum kms_status kms_sqlite_kek_primary(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                       const char *purpose, struct kms_kek_record *ret_kek,
                                       struct kms_error *err)
{
    int64_t customer_no = 0;
    KMS_TRY(kms_sqlite_customer_no(txn, customer, &customer_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_PRIMARY);
    kms_query_i64(&query, customer_no);
    kms_query_uuid(&query, customer);
    kms_query_text(&query, purpose);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "the customer has no enabled KEK for this purpose");
    return status == KMS_OK ? kms_sqlite_kek_take(&query, ret_kek, err) : status;
}

enum kms_status kms_sqlite_kek_list(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                    const char *purpose, uint32_t after_version, size_t limit,
                                    struct kms_kek_record **ret_list, size_t *ret_count,
                                    struct kms_error *err)
{
    int64_t customer_no = 0;
    KMS_TRY(kms_sqlite_customer_no(txn, customer, &customer_no, err));
    KMS_QUERY query =
        kms_query_of(txn, purpose != NULL ? KMS_STATEMENT_KEK_LIST : KMS_STATEMENT_KEK_LIST_ALL);
    kms_query_i64(&query, customer_no);
    kms_query_uuid(&query, customer);
    if (purpose != NULL) {
        kms_query_text(&query, purpose);
        kms_query_i64(&query, after_version);
    }
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf list = {0};
    size_t count = 0;
    for (;; count++) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            break;
        KMS_TRY(status);
        struct kms_kek_record kek;
        KMS_TRY(kms_sqlite_kek_take(&query, &kek, err));
        if (kms_buf_append(&list, &kek, sizeof kek) != KMS_OK)
            return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of KEKs");
    }
    *ret_list = (struct kms_kek_record *)(void *)KMS_TAKE(list.data);
    *ret_count = count;
    return KMS_OK;
}
