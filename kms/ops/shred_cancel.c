/* Shred jobs cancelled, as a whole or for one customer, as long as their time has not come. */
#include "core/clock.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/shred_job.h"

#include <stdio.h>
#include <stdlib.h>

/* A job that is not due may be cancelled; one that is due only where something holds it up. */
static enum kms_status check_time(struct ops_run *run, const struct kms_shred_job_record *job, bool held)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char due[KMS_TIME_TEXT_SIZE];
    struct kms_error *err = &run->call->error;
    (void)kms_uuid_format(&job->uid, uid);
    if (job->state == KMS_SHRED_JOB_DONE || job->state == KMS_SHRED_JOB_CANCELLED)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "shred job %s is %s already", uid,
                               job->state == KMS_SHRED_JOB_DONE ? "done" : "cancelled");
    if (job->state != KMS_SHRED_JOB_SCHEDULED || held || ops_shred_now(run->ops->shred).now_ns < job->due_ns)
        return KMS_OK;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the waiting window of shred job %s has ended at %s: it cannot be cancelled any more", uid,
        kms_clock_format(job->due_ns, due));
}

static enum kms_status forget_waiting(void *context, const struct kms_shred_target_record *target)
{
    ops_shred_note(context, &target->customer, false);
    return KMS_OK;
}

/* The whole job. Its targets keep their state: the job's says that they are cancelled. */
static enum kms_status cancel_job(struct ops_run *run, struct kms_txn *txn, struct kms_shred_job_record *job)
{
    struct kms_error *err = &run->call->error;
    const struct kms_shred_target_filter filter = {.job = &job->uid, .state = KMS_SHRED_TARGET_PENDING};
    char barrier[OPS_SHRED_BARRIER_MAX];
    KMS_TRY(ops_shred_place_barrier(run->ops, txn, &job->tenant, job->purpose, barrier, err));
    KMS_TRY(check_time(run, job, barrier[0] != '\0'));
    job->state = KMS_SHRED_JOB_CANCELLED;
    KMS_TRY(txn->store->ops->shred.job_put(txn->txn, job, err));
    KMS_TRY(txn->store->ops->shred.target_list(txn->txn, &filter, NULL, SIZE_MAX, forget_waiting,
                                               run->ops->shred, err));
    return kms_txn_commit(txn, err);
}

/* The pending targets of a customer in jobs of its tenant that were requested: two lists may have it, and its closure. */
struct search {
    struct kms_txn *txn;
    const struct kms_uuid *tenant;
    struct kms_error *err;
    struct kms_shred_target_record *targets; /* on the heap */
    size_t count;
};

static void search_clear(struct search *search)
{
    free(search->targets);
}

static enum kms_status look(void *context, const struct kms_shred_target_record *target)
{
    struct search *search = context;
    struct kms_shred_job_record job;
    KMS_TRY(search->txn->store->ops->shred.job_get(search->txn->txn, &target->job, &job, search->err));
    if ((job.state != KMS_SHRED_JOB_REQUESTED && job.state != KMS_SHRED_JOB_SCHEDULED) ||
        !kms_uuid_equal(&job.tenant, search->tenant))
        return KMS_OK;
    struct kms_shred_target_record *targets =
        realloc(search->targets, (search->count + 1) * sizeof *search->targets);
    if (targets == NULL)
        return kms_fail(search->err, KMS_NO_MEMORY, "no memory for the shred jobs of a customer");
    search->targets = targets;
    search->targets[search->count++] = *target;
    return KMS_OK;
}

/* In one of the jobs, whose own purpose may be what is frozen. */
static enum kms_status cancel_target(struct ops_run *run, struct kms_txn *txn,
                                     struct kms_shred_target_record *target,
                                     struct kms_shred_job_record *ret_job)
{
    struct kms_call *call = run->call;
    char barrier[OPS_SHRED_BARRIER_MAX];
    KMS_TRY(txn->store->ops->shred.job_get(txn->txn, &target->job, ret_job, &call->error));
    KMS_TRY(ops_shred_barrier(run->ops, txn, &ret_job->tenant, ret_job->purpose, &target->customer, barrier,
                              &call->error));
    KMS_TRY(check_time(run, ret_job, barrier[0] != '\0'));
    target->state = KMS_SHRED_TARGET_CANCELLED;
    target->changed_ns = kms_clock_wall_ns();
    (void)snprintf(target->reason, sizeof target->reason, "cancelled by %.200s", call->identity->name);
    return txn->store->ops->shred.target_put(txn->txn, target, &call->error);
}

/* One customer, wherever it waits: everywhere or, when it is too late for one of the jobs, nowhere. */
static enum kms_status cancel_customer(struct ops_run *run, struct kms_txn *txn,
                                       const struct kms_tenant_record *tenant, const char *name,
                                       struct kms_shred_job_record *ret_job)
{
    struct kms_call *call = run->call;
    struct kms_uuid customer;
    KMS_TRY(ops_shred_find_customer(call, txn, tenant, name, &customer));
    run->event.customer = customer;
    KMS_CLEANUP(search_clear)
    struct search search = {.txn = txn, .tenant = &tenant->uuid, .err = &call->error};
    const struct kms_shred_target_filter filter = {.customer = &customer, .state = KMS_SHRED_TARGET_PENDING};
    KMS_TRY(
        txn->store->ops->shred.target_list(txn->txn, &filter, NULL, SIZE_MAX, look, &search, &call->error));
    if (search.count == 0) {
        (void)kms_fail(&call->error, KMS_FAILED_PRECONDITION,
                       "the customer does not wait to be shredded"); /* the log knows no ids */
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                               "customer '%s' does not wait to be shredded: see kmsctl shred status", name);
    }
    for (size_t i = 0; i < search.count; i++)
        KMS_TRY(cancel_target(run, txn, &search.targets[i], ret_job));
    KMS_TRY(kms_txn_commit(txn, &call->error));
    ops_shred_note(run->ops->shred, &customer, false);
    return KMS_OK;
}

/* By job, or by customer: exactly one of them is named. */
static enum kms_status cancel(struct ops_run *run, const Kms__V1__CancelShredRequest *request,
                              struct kms_shred_job_record *job, struct kms_tenant_record *tenant)
{
    struct kms_call *call = run->call;
    const bool by_job = request->job[0] != '\0';
    if (by_job == (request->tenant[0] != '\0') || by_job == (request->customer[0] != '\0'))
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "either the job is named, or tenant and customer");
    if (by_job) {
        KMS_TRY(ops_shred_allow_job(run, request->job, job, tenant));
    } else {
        KMS_TRY(ops_check_id(call, "tenant", request->tenant));
        KMS_TRY(ops_check_customer(call, request->customer));
        KMS_TRY(ops_allow(run, request->tenant, NULL));
    }
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    if (by_job) {
        KMS_TRY(ops_shred_find_job(call, &txn, request->job, job, tenant));
        return cancel_job(run, &txn, job);
    }
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, tenant));
    return cancel_customer(run, &txn, tenant, request->customer, job);
}

static enum kms_status cancel_shred(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    struct kms_shred_job_record job;
    struct kms_tenant_record tenant;
    KMS_TRY(cancel(run, (const void *)message, &job, &tenant));
    KMS_TXN txn = {0};
    Kms__V1__ShredJob *reply = NULL;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &run->call->error));
    KMS_TRY(ops_shred_job_message(run->call, &txn, tenant.id, &job, &reply));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_cancel_shred(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_CANCEL, true, cancel_shred, request, ret_reply);
}
