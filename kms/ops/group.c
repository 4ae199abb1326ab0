#include "ops/backup.h"

/*
 * The operations that a thread runs between two commits share one unit of work, hence one HSM session. It is
 * thread-local because the RPC layer promises to call kms_ops_commit_begin() on the thread that ran them.
 */
static _Thread_local struct kms_keys_work *thread_work;

enum kms_status ops_group_work(struct kms_ops *ops, struct kms_call *call, struct kms_keys_work **ret_work)
{
    if (thread_work == NULL)
        KMS_TRY(kms_keys_work_begin(ops->keys, call->deadline_mono_ns, &thread_work, &call->error));
    *ret_work = thread_work;
    return KMS_OK;
}

/* End this thread's unit of work, and let what it has committed reach a backup. When that cannot be, the log has to say that the
 * replies, which it calls OK, were withheld. */
static enum kms_status end_work(struct kms_ops *ops, struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    if (thread_work != NULL) {
        status = kms_keys_work_commit(thread_work, err);
        kms_keys_work_end(thread_work);
        thread_work = NULL;
    }
    if (status == KMS_OK)
        status = ops_backup_await(ops, err);
    if (status == KMS_OK)
        return KMS_OK;
    const struct kms_audit_event event = {.type = "alert",
                                          .action = "group.withheld",
                                          .outcome = kms_status_name(status),
                                          .reason = kms_error_cause(err, status)};
    (void)!kms_audit_append(ops->audit, &event, NULL);
    (void)!kms_audit_commit(ops->audit, NULL);
    return status;
}

enum kms_status kms_ops_commit_begin(void *context, uint64_t *ret_ticket, struct kms_error *err)
{
    struct kms_ops *ops = context;
    KMS_TRY(end_work(ops, err));
    *ret_ticket = kms_audit_commit_start(ops->audit);
    return KMS_OK;
}

bool kms_ops_commit_is_done(void *context, uint64_t ticket)
{
    const struct kms_ops *ops = context;
    return kms_audit_is_durable(ops->audit, ticket);
}

enum kms_status kms_ops_commit_await(void *context, uint64_t ticket, int64_t ns, bool *ret_done,
                                     struct kms_error *err)
{
    const struct kms_ops *ops = context;
    return kms_audit_commit_await(ops->audit, ticket, ns, ret_done, err);
}

enum kms_status kms_ops_commit_finish(void *context, uint64_t ticket, struct kms_error *err)
{
    const struct kms_ops *ops = context;
    return kms_audit_commit_wait(ops->audit, ticket, err);
}

enum kms_status kms_ops_commit(struct kms_ops *ops, struct kms_error *err)
{
    uint64_t ticket = 0;
    KMS_TRY(kms_ops_commit_begin(ops, &ticket, err));
    return kms_ops_commit_finish(ops, ticket, err);
}
