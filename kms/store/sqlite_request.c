#include "core/clock.h"
#include "store/query.h"
#include "store/record.h"
#include "store/snapshot.h"

/* Requests made before this moment are forgotten. */
static int64_t forgotten_before(void)
{
    return kms_clock_wall_ns() - KMS_STORE_REQUEST_KEPT_NS;
}

enum kms_status kms_sqlite_request_get(struct kms_store_txn *txn, const char *request_id,
                                       const char *identity, struct kms_request_record *ret_request,
                                       struct kms_error *err)
{
    struct kms_request_record request = {0};
    const size_t id_len = strlen(request_id);
    const size_t identity_len = strlen(identity);
    if (id_len >= sizeof request.request_id || identity_len >= sizeof request.identity)
        return kms_fail(err, KMS_NOT_FOUND, "no such request: its id or identity is too long");
    memcpy(request.request_id, request_id, id_len);
    memcpy(request.identity, identity, identity_len);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_REQUEST_GET);
    kms_query_text(&query, identity);
    kms_query_text(&query, request_id);
    kms_query_i64(&query, forgotten_before());
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such request");
    KMS_TRY(status);
    kms_query_take_blob(&query, request.request_hash, sizeof request.request_hash);
    request.created_ns = kms_query_take_i64(&query);
    KMS_TRY(kms_query_row_ok(&query, kms_record_request_problem(&request), err));
    *ret_request = request;
    return KMS_OK;
}

/* A few of the oldest at a time: as many go as come, and no call pays for a day's worth. */
static enum kms_status forget_some(struct kms_store_txn *txn, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_REQUEST_FORGET);
    kms_query_i64(&query, forgotten_before());
    return kms_query_run(&query, "forgetting old requests", err);
}

enum kms_status kms_sqlite_request_put(struct kms_store_txn *txn, const struct kms_request_record *request,
                                       struct kms_error *err)
{
    const char *problem = kms_record_request_problem(request);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_REQUEST_PUT);
    kms_query_text(&query, request->identity);
    kms_query_text(&query, request->request_id);
    kms_query_blob(&query, request->request_hash, sizeof request->request_hash);
    kms_query_i64(&query, request->created_ns);
    kms_query_i64(&query, forgotten_before());
    KMS_TRY(kms_query_run(&query, "request", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_ALREADY_EXISTS, "this request id was used before");
    KMS_TRY(forget_some(txn, err));
    return kms_sqlite_log(txn, KMS_CHANGE_REQUEST, kms_changelog_request(request, kms_sqlite_payload(txn)),
                          err);
}

enum kms_status kms_sqlite_request_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                            struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_REQUEST_ALL);
    kms_query_i64(&query, forgotten_before());
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_request_record request = {0};
        kms_query_take_text(&query, request.identity, sizeof request.identity);
        kms_query_take_text(&query, request.request_id, sizeof request.request_id);
        kms_query_take_blob(&query, request.request_hash, sizeof request.request_hash);
        request.created_ns = kms_query_take_i64(&query);
        KMS_TRY(kms_query_row_ok(&query, kms_record_request_problem(&request), err));
        KMS_TRY(kms_snapshot_give(snapshot, kms_changelog_request(&request, kms_snapshot_payload(snapshot)),
                                  err));
    }
}
