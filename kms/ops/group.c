#include "ops/run.h"

/*
 * The operations that a thread runs between two commits share one unit of work, hence one HSM session. It is
 * thread-local because the RPC layer promises to call kms_ops_commit() on the thread that ran them.
 */
static _Thread_local struct kms_keys_work *thread_work;

enum kms_status ops_group_work(struct kms_ops *ops, struct kms_call *call, struct kms_keys_work **ret_work)
{
    if (thread_work == NULL)
        KMS_TRY(kms_keys_work_begin(ops->keys, call->deadline_mono_ns, &thread_work, &call->error));
    *ret_work = thread_work;
    return KMS_OK;
}

enum kms_status kms_ops_commit(void *context, struct kms_error *err)
{
    struct kms_ops *ops = context;
    enum kms_status status = KMS_OK;
    if (thread_work != NULL) {
        status = kms_keys_work_commit(thread_work, err);
        kms_keys_work_end(thread_work);
        thread_work = NULL;
    }
    if (status != KMS_OK) {
        /* The group's records say OK, but its replies will not: the log has to say so too. */
        const struct kms_audit_event event = {.type = "alert",
                                              .action = "group.withheld",
                                              .outcome = kms_status_name(status),
                                              .reason = kms_error_cause(err, status)};
        (void)!kms_audit_append(ops->audit, &event, NULL);
    }
    const enum kms_status durable = kms_audit_commit(ops->audit, err);
    return status != KMS_OK ? status : durable;
}
