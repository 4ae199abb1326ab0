#include "store/sqlite_operation.h"

#include "store/changelog_operation.h"
#include "store/query.h"
#include "store/snapshot.h"
#include "store/sqlite_seal.h"

/* What of an operation may change, in the order of insert and update. */
static void bind_progress(struct kms_query *query, const struct kms_operation_record *operation)
{
    kms_query_uuid(query, &operation->uuid);
    kms_query_i64(query, operation->state);
    kms_query_i64(query, operation->attempts);
    kms_query_u64(query, operation->done);
    kms_query_u64(query, operation->total);
    kms_query_i64(query, operation->not_before_ns);
    kms_query_i64(query, operation->started_ns);
    kms_query_i64(query, operation->finished_ns);
    kms_query_text(query, operation->ended_by);
    kms_query_text(query, operation->reason);
    kms_query_text(query, operation->result != NULL ? operation->result : "");
}

/* The part that may change, for the change log. */
static enum kms_status log_progress(struct kms_store_txn *txn, const struct kms_operation_record *operation,
                                    struct kms_error *err)
{
    return kms_sqlite_log(txn, KMS_CHANGE_OPERATION_STATE,
                          kms_changelog_operation_state(operation, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_operation_insert(struct kms_store_txn *txn,
                                            const struct kms_operation_record *operation,
                                            struct kms_error *err)
{
    const char *problem = kms_operation_request_problem(operation);
    if (problem == NULL)
        problem = kms_operation_progress_problem(operation);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_INSERT);
    bind_progress(&query, operation);
    kms_query_text(&query, operation->kind);
    kms_query_text(&query, operation->tenant);
    kms_query_text(&query, operation->requester);
    kms_query_blob(&query, operation->digest, sizeof operation->digest);
    kms_query_i64(&query, operation->approvals_needed);
    kms_query_u64(&query, operation->policy_generation);
    kms_query_i64(&query, operation->created_ns);
    kms_query_i64(&query, operation->expires_ns);
    kms_query_blob(&query, operation->document, operation->document_len);
    KMS_TRY(kms_query_run(&query, "operation", err));
    KMS_TRY(kms_sqlite_log(txn, KMS_CHANGE_OPERATION,
                           kms_changelog_operation(operation, kms_sqlite_payload(txn)), err));
    return log_progress(txn, operation, err);
}

/* The internal number of an operation; NOT_FOUND. */
static enum kms_status operation_no(struct kms_store_txn *txn, const struct kms_uuid *uuid, int64_t *ret_no,
                                    struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_NO);
    kms_query_uuid(&query, uuid);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such operation");
    KMS_TRY(status);
    *ret_no = kms_query_take_i64(&query);
    return kms_query_row_ok(&query, NULL, err);
}

enum kms_status kms_sqlite_operation_update(struct kms_store_txn *txn,
                                            const struct kms_operation_record *operation,
                                            enum kms_operation_state expected, struct kms_error *err)
{
    const char *problem = kms_operation_progress_problem(operation);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_UPDATE);
    bind_progress(&query, operation);
    kms_query_i64(&query, expected);
    KMS_TRY(kms_query_run(&query, "operation", err));
    if (kms_query_changes(&query) == 0) {
        int64_t no = 0;
        KMS_TRY(operation_no(txn, &operation->uuid, &no, err));
        return kms_fail(err, KMS_ABORTED, "the operation is not in state %s any more",
                        kms_operation_state_name(expected));
    }
    return log_progress(txn, operation, err);
}

/* One row of KMS_OPERATION_COLUMNS, and with `whole` the result and the document. */
static enum kms_status take_operation(struct kms_query *query, bool whole,
                                      struct kms_operation_record *ret_operation, struct kms_error *err)
{
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    kms_query_take_uuid(query, &operation.uuid);
    kms_query_take_text(query, operation.kind, sizeof operation.kind);
    kms_query_take_text(query, operation.tenant, sizeof operation.tenant);
    kms_query_take_text(query, operation.requester, sizeof operation.requester);
    kms_query_take_blob(query, operation.digest, sizeof operation.digest);
    operation.approvals_needed = kms_query_take_u32(query);
    operation.policy_generation = kms_query_take_u64(query);
    operation.created_ns = kms_query_take_i64(query);
    operation.expires_ns = kms_query_take_i64(query);
    operation.state = kms_query_take_state(query);
    operation.attempts = kms_query_take_u32(query);
    operation.done = kms_query_take_u64(query);
    operation.total = kms_query_take_u64(query);
    operation.not_before_ns = kms_query_take_i64(query);
    operation.started_ns = kms_query_take_i64(query);
    operation.finished_ns = kms_query_take_i64(query);
    kms_query_take_text(query, operation.ended_by, sizeof operation.ended_by);
    kms_query_take_text(query, operation.reason, sizeof operation.reason);
    const char *problem = kms_operation_progress_problem(&operation);
    if (whole && problem == NULL) {
        operation.result = (char *)kms_query_take_copy(query, true, KMS_OPERATION_RESULT_MAX, NULL);
        operation.document =
            kms_query_take_copy(query, false, KMS_OPERATION_DOCUMENT_MAX, &operation.document_len);
        problem = kms_operation_request_problem(&operation);
    }
    KMS_TRY(kms_query_row_ok(query, problem, err));
    if (operation.result != NULL && operation.result[0] == '\0') { /* none */
        free(operation.result);
        operation.result = NULL;
    }
    *ret_operation = operation;
    operation = (struct kms_operation_record){0};
    return KMS_OK;
}

/* The first row of a query for whole operations. */
static enum kms_status first_whole(struct kms_query *query, struct kms_operation_record *ret_operation,
                                   struct kms_error *err)
{
    const enum kms_status status = kms_query_row(query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such operation");
    KMS_TRY(status);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    KMS_TRY(take_operation(query, true, &operation, err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_OPERATION, operation, &operation, err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_OPERATION_STATE, operation, &operation, err));
    *ret_operation = operation;
    operation = (struct kms_operation_record){0};
    return KMS_OK;
}

enum kms_status kms_sqlite_operation_get(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                         struct kms_operation_record *ret_operation, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_GET);
    kms_query_uuid(&query, uuid);
    return first_whole(&query, ret_operation, err);
}

enum kms_status kms_sqlite_operation_next(struct kms_store_txn *txn, int64_t now_ns, const char *kinds,
                                          bool among, struct kms_operation_record *ret_operation,
                                          struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_NEXT);
    kms_query_i64(&query, now_ns);
    kms_query_text(&query, kinds);
    kms_query_i64(&query, among);
    return first_whole(&query, ret_operation, err);
}

enum kms_status kms_sqlite_operation_count_open(struct kms_store_txn *txn, const char *requester,
                                                uint64_t *ret_count, uint64_t *ret_of_requester,
                                                struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_COUNT_OPEN);
    kms_query_text(&query, requester);
    KMS_TRY(kms_query_row(&query, err));
    const uint64_t count = kms_query_take_u64(&query);
    const uint64_t of_requester = kms_query_take_u64(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    *ret_count = count;
    *ret_of_requester = of_requester;
    return KMS_OK;
}

/* Show every row of a query for what lists show. */
static enum kms_status visit_all(struct kms_query *query, kms_operation_visit visit, void *context,
                                 struct kms_error *err)
{
    for (;;) {
        const enum kms_status status = kms_query_row(query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
        KMS_TRY(take_operation(query, false, &operation, err));
        KMS_TRY(visit(context, &operation));
    }
}

/* How many rows at most, as SQL has it. */
static void bind_limit(struct kms_query *query, size_t limit)
{
    kms_query_u64(query, limit < INT64_MAX ? limit : INT64_MAX);
}

enum kms_status kms_sqlite_operation_list(struct kms_store_txn *txn,
                                          const struct kms_operation_filter *filter,
                                          const struct kms_operation_place *after, size_t limit,
                                          kms_operation_visit visit, void *context, struct kms_error *err)
{
    static const struct kms_operation_place newest = {.created_ns = INT64_MAX};
    const struct kms_operation_place *from = after != NULL ? after : &newest;
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_LIST);
    kms_query_i64(&query, from->created_ns);
    kms_query_uuid(&query, &from->uuid);
    kms_query_i64(&query, filter->state);
    kms_query_text(&query, filter->kind);
    kms_query_text(&query, filter->tenant);
    kms_query_text(&query, filter->requester);
    bind_limit(&query, limit);
    return visit_all(&query, visit, context, err);
}

enum kms_status kms_sqlite_operation_expired(struct kms_store_txn *txn, int64_t now_ns, size_t limit,
                                             kms_operation_visit visit, void *context, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_EXPIRED);
    kms_query_i64(&query, now_ns);
    bind_limit(&query, limit);
    return visit_all(&query, visit, context, err);
}

enum kms_status kms_sqlite_operation_old(struct kms_store_txn *txn, int64_t before_ns, size_t limit,
                                         kms_operation_visit visit, void *context, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_OLD);
    kms_query_i64(&query, before_ns);
    bind_limit(&query, limit);
    return visit_all(&query, visit, context, err);
}

enum kms_status kms_sqlite_operation_remove(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                            struct kms_error *err)
{
    int64_t no = 0;
    KMS_TRY(operation_no(txn, uuid, &no, err));
    KMS_QUERY approvals = kms_query_of(txn, KMS_STATEMENT_APPROVAL_REMOVE);
    kms_query_i64(&approvals, no);
    KMS_TRY(kms_query_run(&approvals, "approvals of an operation", err));
    KMS_QUERY operation = kms_query_of(txn, KMS_STATEMENT_OPERATION_REMOVE);
    kms_query_i64(&operation, no);
    KMS_TRY(kms_query_run(&operation, "operation", err));
    return kms_sqlite_log(txn, KMS_CHANGE_OPERATION_REMOVED,
                          kms_changelog_operation_removed(uuid, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_operation_approve(struct kms_store_txn *txn,
                                             const struct kms_approval_record *approval,
                                             struct kms_error *err)
{
    const char *problem = kms_approval_problem(approval);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t no = 0;
    KMS_TRY(operation_no(txn, &approval->operation, &no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_APPROVAL_INSERT);
    kms_query_i64(&query, no);
    kms_query_text(&query, approval->person);
    kms_query_text(&query, approval->identity);
    kms_query_text(&query, approval->certificate);
    kms_query_blob(&query, approval->signature, approval->signature_len);
    kms_query_i64(&query, approval->time_ns);
    KMS_TRY(kms_query_run(&query, "approval", err));
    return kms_sqlite_log(txn, KMS_CHANGE_APPROVAL, kms_changelog_approval(approval, kms_sqlite_payload(txn)),
                          err);
}

/* One row of APPROVAL_LIST. */
static enum kms_status take_approval(struct kms_query *query, const struct kms_uuid *operation,
                                     struct kms_approval_record *ret_approval, struct kms_error *err)
{
    KMS_CLEANUP(kms_approval_record_clear) struct kms_approval_record approval = {.operation = *operation};
    kms_query_take_text(query, approval.person, sizeof approval.person);
    kms_query_take_text(query, approval.identity, sizeof approval.identity);
    approval.certificate = (char *)kms_query_take_copy(query, true, KMS_OPERATION_CERTIFICATE_MAX, NULL);
    approval.signature =
        kms_query_take_copy(query, false, KMS_OPERATION_SIGNATURE_MAX, &approval.signature_len);
    approval.time_ns = kms_query_take_i64(query);
    KMS_TRY(kms_query_row_ok(query, kms_approval_problem(&approval), err));
    *ret_approval = approval;
    approval = (struct kms_approval_record){0};
    return KMS_OK;
}

enum kms_status kms_sqlite_operation_approvals(struct kms_store_txn *txn, const struct kms_uuid *operation,
                                               struct kms_approval_record **ret_list, size_t *ret_count,
                                               struct kms_error *err)
{
    int64_t no = 0;
    KMS_TRY(operation_no(txn, operation, &no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_APPROVAL_LIST);
    kms_query_i64(&query, no);
    struct kms_buf list = {0};
    size_t count = 0;
    enum kms_status status = KMS_OK;
    while (status == KMS_OK && (status = kms_query_row(&query, err)) == KMS_OK) {
        struct kms_approval_record approval;
        status = take_approval(&query, operation, &approval, err);
        if (status != KMS_OK)
            break;
        status = kms_buf_append(&list, &approval, sizeof approval);
        if (status == KMS_OK)
            count++;
        else
            kms_approval_record_clear(&approval);
    }
    if (status != KMS_NOT_FOUND) { /* which says that the list is at its end */
        kms_approval_list_clear((struct kms_approval_record *)(void *)list.data, count);
        return kms_fail(err, status, "%s", kms_error_cause(err, status));
    }
    *ret_list = (struct kms_approval_record *)(void *)list.data;
    *ret_count = count;
    return KMS_OK;
}

/* An operation and what belongs to it, in the order in which they can be applied. */
static enum kms_status give_operation(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                      const struct kms_operation_record *operation, struct kms_error *err)
{
    KMS_TRY(
        kms_snapshot_give(snapshot, kms_changelog_operation(operation, kms_snapshot_payload(snapshot)), err));
    KMS_TRY(kms_snapshot_give(snapshot,
                              kms_changelog_operation_state(operation, kms_snapshot_payload(snapshot)), err));
    struct kms_approval_record *list = NULL;
    size_t count = 0;
    KMS_TRY(kms_sqlite_operation_approvals(txn, &operation->uuid, &list, &count, err));
    enum kms_status status = KMS_OK;
    for (size_t i = 0; i < count && status == KMS_OK; i++)
        status = kms_snapshot_give(snapshot, kms_changelog_approval(&list[i], kms_snapshot_payload(snapshot)),
                                   err);
    kms_approval_list_clear(list, count);
    return status;
}

enum kms_status kms_sqlite_operation_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                              struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_OPERATION_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
        KMS_TRY(take_operation(&query, true, &operation, err));
        KMS_TRY(give_operation(txn, snapshot, &operation, err));
    }
}
