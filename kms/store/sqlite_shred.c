/* Shred jobs and their targets. */
#include "store/changelog_shred.h"
#include "store/query.h"
#include "store/sqlite_seal.h"
#include "store/sqlite_shred.h"

/* A list's end as SQLite counts. */
static uint64_t bounded(size_t limit)
{
    return limit < INT64_MAX ? limit : INT64_MAX;
}

enum kms_status kms_sqlite_row_no(struct kms_store_txn *txn, enum kms_statement which,
                                  const struct kms_uuid *uid, const char *what, int64_t *ret_no,
                                  struct kms_error *err)
{
    if (uid == NULL) {
        *ret_no = 0;
        return KMS_OK;
    }
    KMS_QUERY query = kms_query_of(txn, which);
    kms_query_uuid(&query, uid);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such %s", what);
    KMS_TRY(status);
    *ret_no = kms_query_take_i64(&query);
    return kms_query_row_ok(&query, NULL, err);
}

enum kms_status kms_sqlite_shred_job_put(struct kms_store_txn *txn, const struct kms_shred_job_record *job,
                                         struct kms_error *err)
{
    const char *problem = kms_shred_job_problem(job);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &job->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_JOB_PUT);
    kms_query_uuid(&query, &job->uid);
    kms_query_i64(&query, tenant_no);
    kms_query_i64(&query, job->origin);
    kms_query_i64(&query, job->state);
    kms_query_text(&query, job->purpose);
    kms_query_i64(&query, job->version);
    kms_query_text(&query, job->requested_by);
    kms_query_text(&query, job->reason);
    kms_query_i64(&query, job->requested_ns);
    kms_query_i64(&query, job->window_seconds);
    kms_query_i64(&query, job->due_ns);
    kms_query_uuid(&query, &job->operation);
    kms_query_blob(&query, job->list_hash, sizeof job->list_hash);
    KMS_TRY(kms_query_run(&query, "shred job", err));
    return kms_sqlite_log(txn, KMS_CHANGE_SHRED_JOB, kms_changelog_shred_job(job, kms_sqlite_payload(txn)),
                          err);
}

/* One row of KMS_SHRED_JOB_SELECT. */
static enum kms_status take_job(struct kms_query *query, struct kms_shred_job_record *ret_job,
                                struct kms_error *err)
{
    struct kms_shred_job_record job = {0};
    (void)kms_query_take_i64(query); /* its number serves the order of lists only */
    kms_query_take_uuid(query, &job.uid);
    kms_query_take_uuid(query, &job.tenant);
    job.origin = kms_query_take_state(query);
    job.state = kms_query_take_state(query);
    kms_query_take_text(query, job.purpose, sizeof job.purpose);
    job.version = kms_query_take_u32(query);
    kms_query_take_text(query, job.requested_by, sizeof job.requested_by);
    kms_query_take_text(query, job.reason, sizeof job.reason);
    job.requested_ns = kms_query_take_i64(query);
    job.window_seconds = kms_query_take_i64(query);
    job.due_ns = kms_query_take_i64(query);
    kms_query_take_uuid(query, &job.operation);
    kms_query_take_blob(query, job.list_hash, sizeof job.list_hash);
    KMS_TRY(kms_query_row_ok(query, kms_shred_job_problem(&job), err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_SHRED_JOB, shred_job, &job, err));
    *ret_job = job;
    return KMS_OK;
}

enum kms_status kms_sqlite_shred_job_get(struct kms_store_txn *txn, const struct kms_uuid *uid,
                                         struct kms_shred_job_record *ret_job, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_JOB_GET);
    kms_query_uuid(&query, uid);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such shred job");
    return status == KMS_OK ? take_job(&query, ret_job, err) : status;
}

enum kms_status kms_sqlite_shred_job_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                          enum kms_shred_job_state state, const struct kms_uuid *after,
                                          size_t limit, kms_shred_job_visit visit, void *context,
                                          struct kms_error *err)
{
    int64_t tenant_no = 0;
    int64_t after_no = 0;
    if (tenant != NULL)
        KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_TRY(kms_sqlite_row_no(txn, KMS_STATEMENT_SHRED_JOB_NO, after, "shred job", &after_no, err));
    KMS_QUERY query =
        kms_query_of(txn, state == 0 ? KMS_STATEMENT_SHRED_JOB_LIST : KMS_STATEMENT_SHRED_JOB_LIST_STATE);
    kms_query_i64(&query, after_no);
    if (tenant != NULL)
        kms_query_i64(&query, tenant_no);
    else
        kms_query_text(&query, NULL);
    kms_query_u64(&query, bounded(limit));
    if (state != 0)
        kms_query_i64(&query, state);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_shred_job_record job;
        KMS_TRY(take_job(&query, &job, err));
        KMS_TRY(visit(context, &job));
    }
}

enum kms_status kms_sqlite_shred_target_put(struct kms_store_txn *txn,
                                            const struct kms_shred_target_record *target,
                                            struct kms_error *err)
{
    const char *problem = kms_shred_target_problem(target);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t job_no = 0;
    KMS_TRY(kms_sqlite_row_no(txn, KMS_STATEMENT_SHRED_JOB_NO, &target->job, "shred job", &job_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_TARGET_PUT);
    kms_query_i64(&query, job_no);
    kms_query_uuid(&query, &target->customer);
    kms_query_i64(&query, target->state);
    kms_query_uuid(&query, &target->batch);
    kms_query_i64(&query, target->changed_ns);
    kms_query_text(&query, target->reason);
    KMS_TRY(kms_query_run(&query, "shred target", err));
    return kms_sqlite_log(txn, KMS_CHANGE_SHRED_TARGET,
                          kms_changelog_shred_target(target, kms_sqlite_payload(txn)), err);
}

/* One row of KMS_SHRED_TARGET_SELECT. */
static enum kms_status take_target(struct kms_query *query, struct kms_shred_target_record *ret_target,
                                   struct kms_error *err)
{
    struct kms_shred_target_record target = {0};
    kms_query_take_uuid(query, &target.job);
    kms_query_take_uuid(query, &target.customer);
    target.state = kms_query_take_state(query);
    kms_query_take_uuid(query, &target.batch);
    target.changed_ns = kms_query_take_i64(query);
    kms_query_take_text(query, target.reason, sizeof target.reason);
    KMS_TRY(kms_query_row_ok(query, kms_shred_target_problem(&target), err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_SHRED_TARGET, shred_target, &target, err));
    *ret_target = target;
    return KMS_OK;
}

enum kms_status kms_sqlite_shred_target_get(struct kms_store_txn *txn, const struct kms_uuid *job,
                                            const struct kms_uuid *customer,
                                            struct kms_shred_target_record *ret_target, struct kms_error *err)
{
    int64_t job_no = 0;
    KMS_TRY(kms_sqlite_row_no(txn, KMS_STATEMENT_SHRED_JOB_NO, job, "shred job", &job_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_TARGET_GET);
    kms_query_i64(&query, job_no);
    kms_query_uuid(&query, customer);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "the shred job has no such target");
    return status == KMS_OK ? take_target(&query, ret_target, err) : status;
}

/* Every row to the visitor. */
static enum kms_status visit_targets(struct kms_query *query, kms_shred_target_visit visit, void *context,
                                     struct kms_error *err)
{
    for (;;) {
        const enum kms_status status = kms_query_row(query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_shred_target_record target;
        KMS_TRY(take_target(query, &target, err));
        KMS_TRY(visit(context, &target));
    }
}

enum kms_status kms_sqlite_shred_target_list(struct kms_store_txn *txn,
                                             const struct kms_shred_target_filter *filter,
                                             const struct kms_uuid *after, size_t limit,
                                             kms_shred_target_visit visit, void *context,
                                             struct kms_error *err)
{
    KMS_ASSERT((filter->job != NULL) + (filter->customer != NULL) + (filter->batch != NULL) == 1);
    const struct kms_slice behind =
        after != NULL ? kms_slice_of(after->bytes, KMS_UUID_SIZE) : kms_slice_of("", 0);
    if (filter->job != NULL) {
        int64_t job_no = 0;
        KMS_TRY(kms_sqlite_row_no(txn, KMS_STATEMENT_SHRED_JOB_NO, filter->job, "shred job", &job_no, err));
        KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_TARGET_LIST_JOB);
        kms_query_i64(&query, job_no);
        kms_query_blob(&query, behind.data, behind.len);
        kms_query_i64(&query, filter->state);
        kms_query_u64(&query, bounded(limit));
        return visit_targets(&query, visit, context, err);
    }
    KMS_QUERY query = kms_query_of(txn, filter->customer != NULL ? KMS_STATEMENT_SHRED_TARGET_LIST_CUSTOMER
                                                                 : KMS_STATEMENT_SHRED_TARGET_LIST_BATCH);
    kms_query_uuid(&query, filter->customer != NULL ? filter->customer : filter->batch);
    if (filter->customer != NULL)
        kms_query_i64(&query, filter->state);
    else
        kms_query_blob(&query, behind.data, behind.len);
    kms_query_u64(&query, bounded(limit));
    return visit_targets(&query, visit, context, err);
}

enum kms_status kms_sqlite_shred_target_count(struct kms_store_txn *txn, const struct kms_uuid *job,
                                              uint64_t ret_counts[KMS_SHRED_TARGET_STATES],
                                              struct kms_error *err)
{
    int64_t job_no = 0;
    KMS_TRY(kms_sqlite_row_no(txn, KMS_STATEMENT_SHRED_JOB_NO, job, "shred job", &job_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_TARGET_COUNT);
    kms_query_i64(&query, job_no);
    uint64_t counts[KMS_SHRED_TARGET_STATES] = {0};
    enum kms_status status;
    while ((status = kms_query_row(&query, err)) == KMS_OK) {
        const unsigned state = kms_query_take_state(&query);
        const uint64_t count = kms_query_take_u64(&query);
        KMS_TRY(kms_query_row_ok(
            &query, state >= KMS_SHRED_TARGET_STATES ? "shred target state: unknown" : NULL, err));
        counts[state] = count;
    }
    if (status != KMS_NOT_FOUND)
        return status;
    memcpy(ret_counts, counts, sizeof counts);
    return KMS_OK;
}
