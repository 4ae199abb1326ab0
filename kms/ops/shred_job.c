#include "ops/shred_job.h"

#include "core/clock.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/shred_list.h"

#include <stdio.h>

enum kms_status ops_shred_find_job(struct kms_call *call, struct kms_txn *txn, const char *uid,
                                   struct kms_shred_job_record *ret_job, struct kms_tenant_record *ret_tenant)
{
    struct kms_uuid uuid;
    if (kms_uuid_parse(uid, &uuid) != KMS_OK)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "job: is not a UUID");
    const enum kms_status status = txn->store->ops->shred.job_get(txn->txn, &uuid, ret_job, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "there is no shred job %s", uid);
    KMS_TRY(status);
    return txn->store->ops->tenant_by_uuid(txn->txn, &ret_job->tenant, ret_tenant, &call->error);
}

enum kms_status ops_shred_allow_job(struct ops_run *run, const char *uid,
                                    struct kms_shred_job_record *ret_job,
                                    struct kms_tenant_record *ret_tenant)
{
    struct kms_call *call = run->call;
    KMS_TRY(kms_auth_decide(run->ops->auth, call->identity, run->action, NULL, NULL, &call->error));
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
        KMS_TRY(ops_shred_find_job(call, &txn, uid, ret_job, ret_tenant));
    }
    char *tenant = ops_string(call->arena, ret_tenant->id);
    if (tenant == NULL)
        return KMS_NO_MEMORY;
    return ops_allow(run, tenant, NULL);
}

enum kms_status ops_shred_find_customer(struct kms_call *call, struct kms_txn *txn,
                                        const struct kms_tenant_record *tenant, const char *name,
                                        struct kms_uuid *ret_customer)
{
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    const enum kms_status status =
        txn->store->ops->customer_by_id(txn->txn, &tenant->uuid, name, &customer, &call->error);
    if (status == KMS_OK)
        *ret_customer = customer.uuid;
    else if (status == KMS_NOT_FOUND && kms_uuid_parse(name, ret_customer) != KMS_OK)
        return kms_fail_public(&call->error, status, "customer '%s' of tenant '%s' does not exist", name,
                               tenant->id);
    else if (status != KMS_NOT_FOUND)
        return status;
    return KMS_OK;
}

enum kms_status ops_shred_place_barrier(struct kms_ops *ops, struct kms_txn *txn,
                                        const struct kms_uuid *tenant, const char *purpose,
                                        char ret_barrier[OPS_SHRED_BARRIER_MAX], struct kms_error *err)
{
    struct kms_tenant_record record;
    ret_barrier[0] = '\0';
    KMS_TRY(txn->store->ops->tenant_by_uuid(txn->txn, tenant, &record, err));
    if (kms_auth_check_place(ops->auth, record.id, NULL, NULL) != KMS_OK)
        (void)snprintf(ret_barrier, OPS_SHRED_BARRIER_MAX, "the tenant is frozen");
    else if (purpose[0] != '\0' && kms_auth_check_place(ops->auth, record.id, purpose, NULL) != KMS_OK)
        (void)snprintf(ret_barrier, OPS_SHRED_BARRIER_MAX, "the purpose is frozen");
    return KMS_OK;
}

enum kms_status ops_shred_barrier(struct kms_ops *ops, struct kms_txn *txn, const struct kms_uuid *tenant,
                                  const char *purpose, const struct kms_uuid *customer,
                                  char ret_barrier[OPS_SHRED_BARRIER_MAX], struct kms_error *err)
{
    struct kms_hold_record hold;
    ret_barrier[0] = '\0';
    const enum kms_status status = txn->store->ops->shred.hold_on(txn->txn, customer, &hold, err);
    if (status == KMS_OK)
        (void)snprintf(ret_barrier, OPS_SHRED_BARRIER_MAX, "a legal hold stands against it: %s",
                       hold.reference);
    else if (status != KMS_NOT_FOUND)
        return status;
    else if (kms_auth_check_customer(ops->auth, customer, NULL) != KMS_OK)
        (void)snprintf(ret_barrier, OPS_SHRED_BARRIER_MAX, "the customer is frozen");
    else
        return ops_shred_place_barrier(ops, txn, tenant, purpose, ret_barrier, err);
    return KMS_OK;
}

enum kms_status ops_shred_window(struct kms_ops *ops, struct kms_store_txn *txn,
                                 const struct kms_uuid *tenant, int64_t *ret_seconds, struct kms_error *err)
{
    struct kms_shred_setting_record setting = {.window_seconds = OPS_SHRED_WINDOW_DEFAULT};
    const enum kms_status status = ops->store->ops->shred.setting_get(txn, tenant, &setting, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    const int64_t minimum = kms_auth_shred_rules(ops->auth).minimum_window_seconds;
    *ret_seconds = setting.window_seconds > minimum ? setting.window_seconds : minimum;
    return KMS_OK;
}

/* What the visitor of a list carries. */
struct hashing {
    struct ops_shred_hasher hasher;
    struct ops_shred_list *list;
};

static enum kms_status hash_target(void *context, const struct kms_shred_target_record *target)
{
    struct hashing *hashing = context;
    char uid[KMS_UUID_TEXT_SIZE];
    if (hashing->list->count < OPS_SHRED_NAMED_MAX &&
        json_array_append_new(hashing->list->first, json_string(kms_uuid_format(&target->customer, uid))) !=
            0)
        return KMS_NO_MEMORY;
    hashing->list->count++;
    ops_shred_hasher_add(&hashing->hasher, &target->customer);
    return KMS_OK;
}

enum kms_status ops_shred_hash_list(struct kms_txn *txn, const struct kms_uuid *job,
                                    struct ops_shred_list *ret_list, struct kms_error *err)
{
    struct ops_shred_list list = {.first = json_array()};
    struct hashing hashing = {ops_shred_hasher_begin(), &list};
    const struct kms_shred_target_filter filter = {.job = job};
    enum kms_status status = KMS_NO_MEMORY;
    if (list.first != NULL)
        status =
            txn->store->ops->shred.target_list(txn->txn, &filter, NULL, SIZE_MAX, hash_target, &hashing, err);
    if (status == KMS_OK)
        status = ops_shred_hasher_end(&hashing.hasher, list.hash);
    ops_shred_hasher_clear(&hashing.hasher);
    if (status == KMS_OK)
        *ret_list = list;
    else
        json_decref(list.first);
    return status;
}

/* A UUID as text in the arena; the empty string when it is zero. NULL when the arena is full. */
static char *uuid_text(struct kms_arena *arena, const struct kms_uuid *uuid)
{
    char text[KMS_UUID_TEXT_SIZE] = "";
    if (!kms_uuid_is_zero(uuid))
        (void)kms_uuid_format(uuid, text);
    return ops_string(arena, text);
}

enum kms_status ops_shred_job_message(struct kms_call *call, struct kms_txn *txn, const char *tenant_id,
                                      const struct kms_shred_job_record *job, Kms__V1__ShredJob **ret_message)
{
    struct kms_arena *arena = call->arena;
    uint64_t counts[KMS_SHRED_TARGET_STATES];
    KMS_TRY(txn->store->ops->shred.target_count(txn->txn, &job->uid, counts, &call->error));
    Kms__V1__ShredJob *message = ops_message_new(arena, &kms__v1__shred_job__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    char hash[2 * sizeof job->list_hash + 1] = "";
    if (job->state != KMS_SHRED_JOB_DRAFT)
        kms_hex_encode(job->list_hash, sizeof job->list_hash, hash);
    message->uid = uuid_text(arena, &job->uid);
    message->name = kms_arena_printf(arena, "tenants/%s/shredJobs/%s", tenant_id,
                                     message->uid != NULL ? message->uid : "");
    message->tenant = ops_string(arena, tenant_id);
    message->state = (Kms__V1__ShredJob__State)job->state;
    message->origin = (Kms__V1__ShredJob__Origin)job->origin;
    message->purpose = ops_string(arena, job->purpose);
    message->version = job->version;
    message->requester = ops_string(arena, job->requested_by);
    message->reason = ops_string(arena, job->reason);
    message->operation = uuid_text(arena, &job->operation);
    message->list_hash = ops_string(arena, hash);
    message->window_seconds = job->window_seconds;
    message->request_time = ops_timestamp(arena, job->requested_ns);
    if (job->due_ns != 0)
        message->due_time = ops_timestamp(arena, job->due_ns);
    message->pending = counts[KMS_SHRED_TARGET_PENDING];
    message->shredded = counts[KMS_SHRED_TARGET_SHREDDED];
    message->failed = counts[KMS_SHRED_TARGET_FAILED];
    message->cancelled = counts[KMS_SHRED_TARGET_CANCELLED];
    message->total = message->pending + message->shredded + message->failed + message->cancelled;
    if (job->state == KMS_SHRED_JOB_CANCELLED) {
        message->cancelled += message->pending;
        message->pending = 0;
    }
    if (message->name == NULL || message->uid == NULL || message->tenant == NULL ||
        message->purpose == NULL || message->requester == NULL || message->reason == NULL ||
        message->operation == NULL || message->list_hash == NULL || message->request_time == NULL ||
        (job->due_ns != 0 && message->due_time == NULL))
        return KMS_NO_MEMORY;
    *ret_message = message;
    return KMS_OK;
}

/* SHREDDED, SEALED or ERASED, with the certificate and what remains: as its batch says. */
static enum kms_status follow_batch(struct ops_run *run, struct kms_txn *txn,
                                    const struct kms_shred_target_record *target,
                                    Kms__V1__ShredTarget *message)
{
    struct kms_call *call = run->call;
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    KMS_TRY(txn->store->ops->rekey.batch_get(txn->txn, &target->batch, &batch, &call->error));
    message->state = KMS__V1__SHRED_TARGET__STATE__SHREDDED;
    if (batch.state != KMS_BATCH_SEALED)
        return KMS_OK;
    json_t *remaining = NULL;
    KMS_TRY(ops_shred_remaining(run->ops, txn, &batch, &remaining, NULL, &call->error));
    message->n_remaining = json_array_size(remaining);
    message->remaining =
        kms_arena_alloc(call->arena, (message->n_remaining + 1) * sizeof *message->remaining);
    bool complete = message->remaining != NULL;
    for (size_t i = 0; complete && i < message->n_remaining; i++) {
        message->remaining[i] = ops_string(call->arena, json_string_value(json_array_get(remaining, i)));
        complete = message->remaining[i] != NULL;
    }
    json_decref(remaining);
    if (!complete)
        return KMS_NO_MEMORY;
    message->state = message->n_remaining == 0 ? KMS__V1__SHRED_TARGET__STATE__ERASED
                                               : KMS__V1__SHRED_TARGET__STATE__SEALED;
    KMS_CLEANUP(kms_certificate_record_clear) struct kms_certificate_record certificate = {0};
    const enum kms_status status =
        txn->store->ops->shred.certificate_get(txn->txn, &target->batch, &certificate, &call->error);
    if (status == KMS_NOT_FOUND)
        return KMS_OK; /* it is just being made */
    KMS_TRY(status);
    message->certificate = uuid_text(call->arena, &certificate.uid);
    return message->certificate != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* PENDING, or why it is not. */
static enum kms_status follow_job(struct ops_run *run, struct kms_txn *txn,
                                  const struct kms_shred_job_record *job,
                                  const struct kms_shred_target_record *target, Kms__V1__ShredTarget *message)
{
    if (job->state == KMS_SHRED_JOB_CANCELLED) {
        message->state = KMS__V1__SHRED_TARGET__STATE__CANCELLED;
        return KMS_OK;
    }
    char barrier[OPS_SHRED_BARRIER_MAX];
    KMS_TRY(ops_shred_barrier(run->ops, txn, &job->tenant, job->purpose, &target->customer, barrier,
                              &run->call->error));
    message->state = KMS__V1__SHRED_TARGET__STATE__PENDING;
    if (barrier[0] == '\0')
        return KMS_OK;
    message->state = KMS__V1__SHRED_TARGET__STATE__HELD;
    message->reason = ops_string(run->call->arena, barrier);
    return message->reason != NULL ? KMS_OK : KMS_NO_MEMORY;
}

enum kms_status ops_shred_target_message(struct ops_run *run, struct kms_txn *txn,
                                         const struct kms_shred_job_record *job,
                                         const struct kms_shred_target_record *target,
                                         Kms__V1__ShredTarget **ret_message)
{
    struct kms_arena *arena = run->call->arena;
    Kms__V1__ShredTarget *message = ops_message_new(arena, &kms__v1__shred_target__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->job = uuid_text(arena, &job->uid);
    message->customer_uid = uuid_text(arena, &target->customer);
    message->purpose = ops_string(arena, job->purpose);
    message->batch = uuid_text(arena, &target->batch);
    message->reason = ops_string(arena, target->reason);
    message->change_time = ops_timestamp(arena, target->changed_ns);
    if (message->job == NULL || message->customer_uid == NULL || message->purpose == NULL ||
        message->batch == NULL || message->reason == NULL || message->change_time == NULL)
        return KMS_NO_MEMORY;
    if (job->due_ns != 0 && (message->due_time = ops_timestamp(arena, job->due_ns)) == NULL)
        return KMS_NO_MEMORY;
    if (target->state == KMS_SHRED_TARGET_SHREDDED)
        KMS_TRY(follow_batch(run, txn, target, message));
    else if (target->state == KMS_SHRED_TARGET_PENDING)
        KMS_TRY(follow_job(run, txn, job, target, message));
    else
        message->state = target->state == KMS_SHRED_TARGET_CANCELLED ? KMS__V1__SHRED_TARGET__STATE__CANCELLED
                                                                     : KMS__V1__SHRED_TARGET__STATE__FAILED;
    *ret_message = message;
    return KMS_OK;
}
