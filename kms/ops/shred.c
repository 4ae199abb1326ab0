/* Shred jobs: made as a draft, filled, requested, cancelled. */
#include "core/clock.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/operation_message.h"
#include "ops/shred_job.h"

#include <stdio.h>

/* What a request id names here (ops_request_uuid()). */
static const char what_is_made[] = "kms.v1.ShredJob";

/* The job as the reply of a method, read anew. */
static enum kms_status job_reply(struct ops_run *run, const struct kms_shred_job_record *job,
                                 const char *tenant_id, ProtobufCMessage **ret_reply)
{
    KMS_TXN txn = {0};
    Kms__V1__ShredJob *message = NULL;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &run->call->error));
    KMS_TRY(ops_shred_job_message(run->call, &txn, tenant_id, job, &message));
    *ret_reply = &message->base;
    return KMS_OK;
}

/* A purpose may be shredded by name unless the law keeps it for a known time: then the service does it when that ends. */
static enum kms_status check_purpose(struct kms_call *call, struct kms_txn *txn,
                                     const struct kms_tenant_record *tenant, const char *id)
{
    struct kms_purpose_record purpose;
    KMS_TRY(ops_find_purpose(call, txn, tenant, id, &purpose));
    if (purpose.retention_seconds > 0)
        return kms_fail_public(
            &call->error, KMS_FAILED_PRECONDITION,
            "purpose '%s' is kept by law for %lld seconds after a customer's closure; it is "
            "shredded by itself when they have passed",
            id, (long long)purpose.retention_seconds);
    return KMS_OK;
}

enum kms_status ops_shred_new_job(struct ops_run *run, struct kms_txn *txn,
                                  const struct kms_tenant_record *tenant,
                                  const struct ops_shred_wanted *wanted, struct kms_shred_job_record *ret_job)
{
    struct kms_call *call = run->call;
    struct kms_shred_job_record job = {.uid = wanted->uid,
                                       .tenant = tenant->uuid,
                                       .origin = KMS_SHRED_BY_OPERATOR,
                                       .state = KMS_SHRED_JOB_DRAFT,
                                       .version = wanted->version,
                                       .requested_ns = kms_clock_wall_ns()};
    if (wanted->purpose[0] != '\0')
        KMS_TRY(check_purpose(call, txn, tenant, wanted->purpose));
    if (wanted->no_window && !kms_auth_shred_rules(run->ops->auth).allow_zero_window)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                               "no_window: the policy does not allow to shred without a waiting window");
    if (!wanted->no_window)
        KMS_TRY(ops_shred_window(run->ops, txn->txn, &tenant->uuid, &job.window_seconds, &call->error));
    (void)snprintf(job.purpose, sizeof job.purpose, "%s", wanted->purpose);
    (void)snprintf(job.reason, sizeof job.reason, "%s", wanted->reason);
    (void)snprintf(job.requested_by, sizeof job.requested_by, "%s", call->identity->name);
    KMS_TRY(txn->store->ops->shred.job_put(txn->txn, &job, &call->error));
    *ret_job = job;
    return KMS_OK;
}

/* A draft, or what became of it when the request is a repeated one. */
static enum kms_status find_or_make(struct ops_run *run, const Kms__V1__CreateShredJobRequest *request,
                                    struct kms_shred_job_record *ret_job)
{
    struct ops_shred_wanted wanted = {
        .purpose = request->purpose, .reason = request->reason, .no_window = request->no_window != 0};
    struct kms_call *call = run->call;
    struct kms_tenant_record tenant;
    bool done = false;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    KMS_TRY(ops_request_begin(run, &txn, request->request_id, &request->base, &run->once, &done));
    KMS_TRY(ops_request_uuid(&run->once, what_is_made, &wanted.uid));
    const enum kms_status found = txn.store->ops->shred.job_get(txn.txn, &wanted.uid, ret_job, &call->error);
    if (done && found == KMS_OK)
        return KMS_OK;
    if (done || found == KMS_OK) /* for another method, or more than a day ago */
        return ops_request_used(&call->error);
    if (found != KMS_NOT_FOUND)
        return found;
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    KMS_TRY(ops_shred_new_job(run, &txn, &tenant, &wanted, ret_job));
    KMS_TRY(ops_request_end(call, &txn, &run->once));
    return kms_txn_commit(&txn, &call->error);
}

static enum kms_status create_job(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    const Kms__V1__CreateShredJobRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_optional_id(call, "purpose", request->purpose));
    KMS_TRY(ops_check_text(call, "reason", request->reason, KMS_SHRED_REASON_MAX));
    KMS_TRY(ops_check_request_id(call, request->request_id));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    struct kms_shred_job_record job;
    KMS_TRY(find_or_make(run, request, &job));
    return job_reply(run, &job, request->tenant, ret_reply);
}

enum kms_status kms_ops_create_shred_job(void *context, struct kms_call *call,
                                         const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_REQUEST, true, create_job, request, ret_reply);
}

/* Is the customer pending in a job that was requested? */
struct elsewhere {
    struct kms_txn *txn;
    const struct kms_uuid *job; /* this one does not count */
    struct kms_uuid found;
    struct kms_error *err;
};

static enum kms_status look_elsewhere(void *context, const struct kms_shred_target_record *target)
{
    struct elsewhere *elsewhere = context;
    struct kms_shred_job_record job;
    if (kms_uuid_equal(&target->job, elsewhere->job))
        return KMS_OK;
    KMS_TRY(
        elsewhere->txn->store->ops->shred.job_get(elsewhere->txn->txn, &target->job, &job, elsewhere->err));
    if (job.state == KMS_SHRED_JOB_REQUESTED || job.state == KMS_SHRED_JOB_SCHEDULED)
        elsewhere->found = job.uid;
    return KMS_OK;
}

/* ALREADY_EXISTS when the customer is in this list, or in another job that is under way. */
static enum kms_status check_lists(struct kms_call *call, struct kms_txn *txn,
                                   const struct kms_shred_job_record *job, const struct kms_uuid *customer)
{
    const struct kms_store_shred_ops *store = &txn->store->ops->shred;
    struct kms_shred_target_record target;
    const enum kms_status status = store->target_get(txn->txn, &job->uid, customer, &target, &call->error);
    if (status == KMS_OK)
        return kms_fail_public(&call->error, KMS_ALREADY_EXISTS, "stands in this list already");
    if (status != KMS_NOT_FOUND)
        return status;
    struct elsewhere elsewhere = {.txn = txn, .job = &job->uid, .err = &call->error};
    const struct kms_shred_target_filter filter = {.customer = customer, .state = KMS_SHRED_TARGET_PENDING};
    KMS_TRY(store->target_list(txn->txn, &filter, NULL, SIZE_MAX, look_elsewhere, &elsewhere, &call->error));
    char uid[KMS_UUID_TEXT_SIZE];
    if (!kms_uuid_is_zero(&elsewhere.found))
        return kms_fail_public(&call->error, KMS_ALREADY_EXISTS, "is in shred job %s already",
                               kms_uuid_format(&elsewhere.found, uid));
    return KMS_OK;
}

/* What is left of a customer when one purpose or version was shredded before? */
static enum kms_status check_left(struct kms_call *call, struct kms_txn *txn,
                                  const struct kms_shred_job_record *job, const struct kms_uuid *customer)
{
    struct kms_tombstone_record tombstone;
    if (job->purpose[0] == '\0')
        return KMS_OK;
    const enum kms_status status =
        txn->store->ops->rekey.tombstone_for(txn->txn, customer, job->purpose, &tombstone, &call->error);
    if (status == KMS_OK)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "purpose '%s' was shredded before",
                               job->purpose);
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

enum kms_status ops_shred_add_target(struct ops_run *run, struct kms_txn *txn,
                                     const struct kms_shred_job_record *job, const char *name,
                                     struct kms_uuid *ret_customer)
{
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_customer(call, name));
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    const enum kms_status status =
        txn->store->ops->customer_by_id(txn->txn, &job->tenant, name, &customer, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "there is no such customer");
    KMS_TRY(status);
    KMS_TRY(check_lists(call, txn, job, &customer.uuid));
    KMS_TRY(check_left(call, txn, job, &customer.uuid));
    char barrier[OPS_SHRED_BARRIER_MAX];
    KMS_TRY(
        ops_shred_barrier(run->ops, txn, &job->tenant, job->purpose, &customer.uuid, barrier, &call->error));
    if (barrier[0] != '\0')
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "%s", barrier);
    const struct kms_shred_target_record target = {.job = job->uid,
                                                   .customer = customer.uuid,
                                                   .state = KMS_SHRED_TARGET_PENDING,
                                                   .changed_ns = kms_clock_wall_ns()};
    KMS_TRY(txn->store->ops->shred.target_put(txn->txn, &target, &call->error));
    *ret_customer = customer.uuid;
    return KMS_OK;
}

/* One result; a failure that is not the item's own ends the call. */
static enum kms_status add_one(struct ops_run *run, struct kms_txn *txn,
                               const struct kms_shred_job_record *job, const char *name, bool was_shredded,
                               Kms__V1__ShredTargetResult **ret_result)
{
    struct kms_call *call = run->call;
    Kms__V1__ShredTargetResult *result =
        ops_message_new(call->arena, &kms__v1__shred_target_result__descriptor);
    if (result == NULL)
        return KMS_NO_MEMORY;
    struct kms_uuid customer;
    enum kms_status status = ops_shred_add_target(run, txn, job, name, &customer);
    if (status == KMS_NOT_FOUND && was_shredded)
        status = kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "was shredded before");
    if (status == KMS_OK) {
        char text[KMS_UUID_TEXT_SIZE];
        result->result_case = KMS__V1__SHRED_TARGET_RESULT__RESULT_CUSTOMER_UID;
        result->customer_uid = ops_string(call->arena, kms_uuid_format(&customer, text));
        *ret_result = result;
        return result->customer_uid != NULL ? KMS_OK : KMS_NO_MEMORY;
    }
    if (status != KMS_NOT_FOUND && status != KMS_ALREADY_EXISTS && status != KMS_FAILED_PRECONDITION &&
        status != KMS_INVALID_ARGUMENT)
        return status;
    result->result_case = KMS__V1__SHRED_TARGET_RESULT__RESULT_ERROR;
    result->error = ops_message_new(call->arena, &google__rpc__status__descriptor);
    if (result->error == NULL)
        return KMS_NO_MEMORY;
    result->error->code = kms_status_grpc_code(status);
    result->error->message = ops_string(call->arena, kms_error_public(&call->error, status));
    call->error = (struct kms_error){0};
    *ret_result = result;
    return result->error->message != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* The draft must still be one, when the writer's lock is held. */
static enum kms_status find_draft(struct ops_run *run, struct kms_txn *txn, const char *uid,
                                  struct kms_shred_job_record *ret_job, struct kms_tenant_record *ret_tenant)
{
    KMS_TRY(ops_shred_find_job(run->call, txn, uid, ret_job, ret_tenant));
    if (ret_job->state != KMS_SHRED_JOB_DRAFT)
        return kms_fail_public(&run->call->error, KMS_FAILED_PRECONDITION,
                               "shred job %s is no draft any more: its list is closed", uid);
    return KMS_OK;
}

/* All items in one transaction. */
static enum kms_status add_all(struct ops_run *run, const Kms__V1__AddShredTargetsRequest *request,
                               const bool *was_shredded, Kms__V1__AddShredTargetsResponse *reply)
{
    struct kms_call *call = run->call;
    KMS_TXN txn = {0};
    struct kms_shred_job_record job;
    struct kms_tenant_record tenant;
    uint64_t counts[KMS_SHRED_TARGET_STATES];
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    KMS_TRY(find_draft(run, &txn, request->job, &job, &tenant));
    KMS_TRY(txn.store->ops->shred.target_count(txn.txn, &job.uid, counts, &call->error));
    if (counts[KMS_SHRED_TARGET_PENDING] + request->n_customers > OPS_SHRED_TARGETS_MAX)
        return kms_fail_public(&call->error, KMS_TOO_LARGE, "a shred job has at most %d customers",
                               OPS_SHRED_TARGETS_MAX);
    for (size_t i = 0; i < request->n_customers; i++) {
        KMS_TRY(add_one(run, &txn, &job, request->customers[i], was_shredded[i], &reply->results[i]));
        run->event.items_failed +=
            reply->results[i]->result_case == KMS__V1__SHRED_TARGET_RESULT__RESULT_ERROR;
    }
    reply->n_results = request->n_customers;
    return kms_txn_commit(&txn, &call->error);
}

static enum kms_status add_targets(struct ops_run *run, const ProtobufCMessage *message,
                                   ProtobufCMessage **ret_reply)
{
    const Kms__V1__AddShredTargetsRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_shred_job_record job;
    struct kms_tenant_record tenant;
    KMS_TRY(ops_check_batch(call, request->n_customers));
    KMS_TRY(ops_shred_allow_job(run, request->job, &job, &tenant));
    Kms__V1__AddShredTargetsResponse *reply =
        ops_message_new(call->arena, &kms__v1__add_shred_targets_response__descriptor);
    bool *was_shredded = kms_arena_alloc(call->arena, request->n_customers * sizeof *was_shredded);
    if (reply == NULL || was_shredded == NULL)
        return KMS_NO_MEMORY;
    reply->results = kms_arena_alloc(call->arena, request->n_customers * sizeof(*reply->results));
    if (reply->results == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(kms_keys_shredded_ids(run->ops->keys, &tenant.uuid, (const char *const *)request->customers,
                                  request->n_customers, was_shredded, &call->error));
    KMS_TRY(add_all(run, request, was_shredded, reply));
    run->event.items = (uint32_t)request->n_customers;
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_add_shred_targets(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_REQUEST, true, add_targets, request, ret_reply);
}

/* What the approvers see and sign. */
static json_t *parameters_of(const struct kms_shred_job_record *job, const struct ops_shred_list *list)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char hash[2 * sizeof list->hash + 1];
    kms_hex_encode(list->hash, sizeof list->hash, hash);
    return json_pack("{s:I, s:O, s:s, s:s, s:s, s:s, s:I, s:I}", "count", (json_int_t)list->count,
                     "customers", list->first, "job", kms_uuid_format(&job->uid, uid), "list_sha256", hash,
                     "purpose", job->purpose, "reason", job->reason, "version", (json_int_t)job->version,
                     "window_seconds", (json_int_t)job->window_seconds);
}

/* The draft as it is to be requested, and what an approver must see of it. Nothing is written yet. */
static enum kms_status read_list(struct ops_run *run, const char *job_uid,
                                 struct kms_shred_job_record *ret_job, struct kms_tenant_record *ret_tenant,
                                 json_t **ret_parameters, uint64_t *ret_count)
{
    struct kms_error *err = &run->call->error;
    struct ops_shred_list list = {0};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, err));
    KMS_TRY(find_draft(run, &txn, job_uid, ret_job, ret_tenant));
    KMS_TRY(ops_shred_hash_list(&txn, &ret_job->uid, &list, err));
    if (list.count == 0) {
        json_decref(list.first);
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "shred job %s has no customers", job_uid);
    }
    memcpy(ret_job->list_hash, list.hash, sizeof list.hash);
    *ret_count = list.count;
    *ret_parameters = parameters_of(ret_job, &list);
    json_decref(list.first);
    return KMS_OK;
}

/* The list is closed in the transaction that makes the operation, and the job remembers it. */
static enum kms_status close_list(void *context, struct kms_txn *txn,
                                  const struct kms_operation_record *operation, struct kms_error *err)
{
    const struct kms_shred_job_record *job = context;
    struct kms_shred_job_record now;
    KMS_TRY(txn->store->ops->shred.job_get(txn->txn, &job->uid, &now, err));
    if (now.state != KMS_SHRED_JOB_DRAFT)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "the shred job was forgotten meanwhile");
    now.state = KMS_SHRED_JOB_REQUESTED;
    now.operation = operation->uuid;
    memcpy(now.list_hash, job->list_hash, sizeof now.list_hash);
    return txn->store->ops->shred.job_put(txn->txn, &now, err);
}

enum kms_status ops_shred_submit(struct ops_run *run, const char *job_uid, ProtobufCMessage **ret_reply)
{
    struct kms_shred_job_record job;
    struct kms_tenant_record tenant;
    json_t *parameters = NULL;
    uint64_t count = 0;
    KMS_TRY(read_list(run, job_uid, &job, &tenant, &parameters, &count));
    const struct ops_operation_also also = {close_list, &job};
    return ops_operation_request_also(run, &ops_shred_kind, tenant.id, parameters, count, &also, ret_reply);
}

static enum kms_status request_shred(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__RequestShredRequest *request = (const void *)message;
    struct kms_shred_job_record job;
    struct kms_tenant_record tenant;
    KMS_TRY(ops_shred_allow_job(run, request->job, &job, &tenant));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    return ops_shred_submit(run, request->job, ret_reply);
}

enum kms_status kms_ops_request_shred(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_REQUEST, true, request_shred, request, ret_reply);
}
