/* Shred jobs carried out: what an approved operation does, batch by batch, and again after a crash. */
#include "core/clock.h"
#include "core/log.h"
#include "ops/certificate.h"
#include "ops/shred_batch.h"

#include <stdio.h>
#include <stdlib.h>

/* A job that is being carried out. */
struct shredding {
    struct kms_ops *ops;
    struct ops_operation *operation;
    struct kms_shred_job_record job;
    struct ops_shred_batch batch;
    uint64_t total;
    char reference[KMS_BATCH_REFERENCE_MAX + 1];
};

/* What has become of the targets, as progress. */
static enum kms_status show_progress(struct shredding *run, uint64_t ret_counts[KMS_SHRED_TARGET_STATES],
                                     struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, err));
    KMS_TRY(txn.store->ops->shred.target_count(txn.txn, &run->job.uid, ret_counts, err));
    run->total = 0;
    for (int i = 0; i < KMS_SHRED_TARGET_STATES; i++)
        run->total += ret_counts[i];
    return ops_operation_progress(run->operation, run->total - ret_counts[KMS_SHRED_TARGET_PENDING],
                                  run->total);
}

/* A batch that is sealed has a certificate, if need be one that an earlier run did not get to. */
static enum kms_status certify(struct shredding *run, const struct kms_uuid *batch, struct kms_error *err)
{
    return ops_certificate_issue(run->ops, batch, &run->job, err);
}

/* The batches of the job's targets that were shredded, each once, as they come. */
struct batches {
    struct kms_uuid *list;
    size_t count;
    size_t room;
};

static enum kms_status note_batch(void *context, const struct kms_shred_target_record *target)
{
    struct batches *batches = context;
    for (size_t i = batches->count; i > 0; i--) { /* neighbours often share one */
        if (kms_uuid_equal(&batches->list[i - 1], &target->batch))
            return KMS_OK;
    }
    if (batches->count == batches->room) {
        const size_t room = batches->room == 0 ? 64 : 2 * batches->room;
        struct kms_uuid *list = realloc(batches->list, room * sizeof *list);
        if (list == NULL)
            return KMS_NO_MEMORY;
        batches->list = list;
        batches->room = room;
    }
    batches->list[batches->count++] = target->batch;
    return KMS_OK;
}

/* After a crash: finish what was committed, certify what was sealed. */
static enum kms_status catch_up(struct shredding *run, struct kms_error *err)
{
    static const struct kms_rekey_hooks no_hooks;
    KMS_TRY(kms_keys_finish_batch(run->ops->keys, &run->job.tenant, &no_hooks, err));
    struct batches batches = {0};
    const struct kms_shred_target_filter filter = {.job = &run->job.uid, .state = KMS_SHRED_TARGET_SHREDDED};
    enum kms_status status;
    {
        KMS_TXN txn = {0};
        status = kms_txn_begin(run->ops->store, false, &txn, err);
        if (status == KMS_OK)
            status = txn.store->ops->shred.target_list(txn.txn, &filter, NULL, SIZE_MAX, note_batch, &batches,
                                                       err);
    }
    for (size_t i = 0; i < batches.count && status == KMS_OK; i++)
        status = certify(run, &batches.list[i], err);
    free(batches.list);
    return status;
}

/*
 * Some of the victims. A page that was tampered with stands in the way of the whole batch, so the batch is halved until the
 * customers on that page are alone with it; they are FAILED, and everybody else goes.
 */
static enum kms_status run_part(struct shredding *run, size_t first, size_t count, struct kms_error *err)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record record = {0};
    const enum kms_status status =
        ops_shred_batch_run(&run->batch, first, count, run->reference, &record, err);
    if (status == KMS_OK)
        return kms_uuid_is_zero(&record.uuid) ? KMS_OK : certify(run, &record.uuid, err);
    if (status != KMS_TAMPERED)
        return status;
    if (count == 1)
        return ops_shred_batch_fail(&run->batch, &run->batch.victims[first],
                                    "its place in the key tree was tampered with: an operator must look",
                                    err);
    const size_t half = count / 2;
    KMS_TRY(run_part(run, first, half, err));
    return run_part(run, first + half, count - half, err);
}

/* The job is DONE when nothing is pending; what is held keeps it open. */
static enum kms_status conclude(struct shredding *run, char **ret_result, struct kms_error *err)
{
    uint64_t counts[KMS_SHRED_TARGET_STATES];
    KMS_TRY(show_progress(run, counts, err));
    if (counts[KMS_SHRED_TARGET_PENDING] == 0) {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, err));
        KMS_TRY(txn.store->ops->shred.job_get(txn.txn, &run->job.uid, &run->job, err));
        if (run->job.state == KMS_SHRED_JOB_SCHEDULED) { /* and was not cancelled with nobody left in it */
            run->job.state = KMS_SHRED_JOB_DONE;
            KMS_TRY(txn.store->ops->shred.job_put(txn.txn, &run->job, err));
        }
        KMS_TRY(kms_txn_commit(&txn, err));
    }
    char uid[KMS_UUID_TEXT_SIZE];
    json_t *result =
        json_pack("{s:I, s:I, s:I, s:s, s:I}", "cancelled", (json_int_t)counts[KMS_SHRED_TARGET_CANCELLED],
                  "failed", (json_int_t)counts[KMS_SHRED_TARGET_FAILED], "held",
                  (json_int_t)counts[KMS_SHRED_TARGET_PENDING], "job", kms_uuid_format(&run->job.uid, uid),
                  "shredded", (json_int_t)counts[KMS_SHRED_TARGET_SHREDDED]);
    *ret_result = result != NULL ? json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(result);
    return *ret_result != NULL ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory for the result of a shred");
}

/* Batch after batch, until nothing is left that is ready. */
static enum kms_status run_batches(struct shredding *run, struct kms_error *err)
{
    uint64_t counts[KMS_SHRED_TARGET_STATES];
    KMS_TRY(ops_shred_batch_begin(run->ops, &run->job, &run->batch, err));
    do {
        KMS_TRY(show_progress(run, counts, err));
        KMS_TRY(ops_shred_batch_fill(&run->batch, err));
        if (run->batch.count > 0)
            KMS_TRY(run_part(run, 0, run->batch.count, err));
    } while (run->batch.next < run->batch.order_count);
    return KMS_OK;
}

static enum kms_status carry_out(struct kms_ops *ops, struct ops_operation *operation,
                                 const struct kms_shred_job_record *job, char **ret_result,
                                 struct kms_error *err)
{
    struct shredding run = {.ops = ops, .operation = operation, .job = *job};
    char uid[KMS_UUID_TEXT_SIZE];
    char digest[2 * KMS_OPERATION_DIGEST_SIZE + 1];
    kms_hex_encode(operation->record->digest, KMS_OPERATION_DIGEST_SIZE, digest);
    (void)snprintf(run.reference, sizeof run.reference, "operations/%s sha256:%s",
                   kms_uuid_format(&operation->record->uuid, uid), digest);
    enum kms_status status = catch_up(&run, err);
    if (status == KMS_OK)
        status = run_batches(&run, err);
    if (status == KMS_OK)
        status = conclude(&run, ret_result, err);
    ops_shred_batch_clear(&run.batch);
    return status;
}

/* The job that the operation's document names. */
static enum kms_status job_of(struct kms_txn *txn, const struct ops_operation *operation,
                              struct kms_shred_job_record *ret_job, struct kms_error *err)
{
    struct kms_uuid uid;
    const char *text = json_string_value(json_object_get(operation->parameters, "job"));
    if (text == NULL || kms_uuid_parse(text, &uid) != KMS_OK)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the operation names no shred job");
    const enum kms_status status = txn->store->ops->shred.job_get(txn->txn, &uid, ret_job, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(err, status, "shred job %s does not exist any more", text);
    return status;
}

/* What was approved is what the list holds, letter by letter. */
static enum kms_status check_list(struct kms_txn *txn, const struct ops_operation *operation,
                                  const struct kms_shred_job_record *job, struct kms_error *err)
{
    struct ops_shred_list list = {0};
    char hash[2 * sizeof list.hash + 1];
    KMS_TRY(ops_shred_hash_list(txn, &job->uid, &list, err));
    json_decref(list.first);
    kms_hex_encode(list.hash, sizeof list.hash, hash);
    const char *approved = json_string_value(json_object_get(operation->parameters, "list_sha256"));
    const char *purpose = json_string_value(json_object_get(operation->parameters, "purpose"));
    if (approved == NULL || strcmp(approved, hash) != 0 || purpose == NULL ||
        strcmp(purpose, job->purpose) != 0 ||
        json_integer_value(json_object_get(operation->parameters, "version")) != job->version ||
        json_integer_value(json_object_get(operation->parameters, "window_seconds")) != job->window_seconds)
        return kms_fail_public(err, KMS_TAMPERED,
                               "the list of customers in the database is not the one that was approved");
    return KMS_OK;
}

/* Everybody on the list waits from now on. */
static enum kms_status note_waiting(void *context, const struct kms_shred_target_record *target)
{
    ops_shred_note(context, &target->customer, true);
    return KMS_OK;
}

/* REQUESTED becomes SCHEDULED; a job that is further is left as it is. */
static enum kms_status schedule(struct kms_ops *ops, const struct ops_operation *operation,
                                struct kms_shred_job_record *ret_job, struct kms_error *err)
{
    const struct ops_shred_time time = ops_shred_now(ops->shred);
    const struct kms_shred_target_filter filter = {.job = &ret_job->uid, .state = KMS_SHRED_TARGET_PENDING};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(job_of(&txn, operation, ret_job, err));
    if (ret_job->state == KMS_SHRED_JOB_CANCELLED)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "the shred job was cancelled meanwhile");
    if (ret_job->state == KMS_SHRED_JOB_DRAFT) /* its list may have been changed since it was approved */
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the shred job is a draft again: request it once more");
    if (ret_job->state != KMS_SHRED_JOB_REQUESTED)
        return KMS_OK;
    KMS_TRY(check_list(&txn, operation, ret_job, err));
    const int64_t latest = time.wall_ns > time.trusted_ns ? time.wall_ns : time.trusted_ns;
    ret_job->state = KMS_SHRED_JOB_SCHEDULED;
    ret_job->operation = operation->record->uuid;
    ret_job->due_ns = latest + ret_job->window_seconds * KMS_NS_PER_SECOND;
    KMS_TRY(txn.store->ops->shred.job_put(txn.txn, ret_job, err));
    if (ret_job->window_seconds > 0)
        KMS_TRY(txn.store->ops->shred.target_list(txn.txn, &filter, NULL, SIZE_MAX, note_waiting, ops->shred,
                                                  err));
    return kms_txn_commit(&txn, err);
}

/* Approved: the window begins, or the work itself where none was wanted. */
static enum kms_status execute_shred(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                     struct kms_error *err)
{
    struct kms_shred_job_record job = {0};
    KMS_TRY(schedule(ops, operation, &job, err));
    if (job.window_seconds == 0)
        return carry_out(ops, operation, &job, ret_result, err);
    char uid[KMS_UUID_TEXT_SIZE];
    char due[KMS_TIME_TEXT_SIZE];
    json_t *result = json_pack("{s:s, s:s}", "due", kms_clock_format(job.due_ns, due), "job",
                               kms_uuid_format(&job.uid, uid));
    *ret_result = result != NULL ? json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(result);
    return *ret_result != NULL ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory for the result of a shred");
}

/* The scheduler's: the time has come. It is looked at again, for the operation may have waited for the runner. */
static enum kms_status execute_run(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                   struct kms_error *err)
{
    struct kms_shred_job_record job = {0};
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        KMS_TRY(job_of(&txn, operation, &job, err));
    }
    if (job.state != KMS_SHRED_JOB_SCHEDULED)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the shred job is not scheduled any more: it was cancelled, or is done");
    const struct ops_shred_time time = ops_shred_now(ops->shred);
    if (time.suspect || time.now_ns < job.due_ns)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the waiting window of the shred job has not ended, or the clock is in doubt");
    return carry_out(ops, operation, &job, ret_result, err);
}

const struct ops_operation_kind ops_shred_kind = {
    .name = "shred",
    .request = KMS_ACTION_SHRED_REQUEST,
    .approve = KMS_ACTION_SHRED_APPROVE,
    .approvals = 2,
    .resumable = true,
    .execute = execute_shred,
};

const struct ops_operation_kind ops_shred_run_kind = {
    .name = "shred.run",
    .request = KMS_ACTION_SHRED_REQUEST,
    .approve = KMS_ACTION_SHRED_APPROVE,
    .approvals = 2,
    .resumable = true,
    .service = true,
    .execute = execute_run,
};
