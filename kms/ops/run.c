#include "ops/run.h"

struct ops_run ops_run_begin(struct kms_ops *ops, struct kms_call *call, enum kms_action action)
{
    return (struct ops_run){
        .ops = ops,
        .call = call,
        .action = action,
        .event = {.type = "call",
                  .action = kms_action_text(action),
                  .request_id = call->request_id,
                  .identity = call->identity != NULL ? call->identity->name : NULL,
                  .peer = call->peer},
    };
}

void ops_run_observe(const struct ops_run *run, enum kms_status status)
{
    if (run->ops->detect == NULL)
        return;
    const struct kms_detect_event event = {
        .identity = run->event.identity,
        .peer = run->event.peer,
        .action = run->event.action,
        .tenant = run->event.tenant,
        .request_id = run->event.request_id,
        .customer = run->event.customer,
        .unwraps = run->action == KMS_ACTION_DATAKEY_UNWRAP,
        .shred_scheduled = run->shred_scheduled,
        .status = status,
    };
    kms_detect_observe(run->ops->detect, &event);
}

enum kms_status ops_run_record(struct ops_run *run, enum kms_status status)
{
    ops_run_observe(run, status);
    run->event.outcome = kms_status_name(status);
    if (status != KMS_OK)
        run->event.reason = kms_error_cause(&run->call->error, status);
    struct kms_error audit_error = {0};
    const enum kms_status appended = kms_audit_append(run->ops->audit, &run->event, &audit_error);
    if (appended != KMS_OK) {
        run->call->error = audit_error;
        return appended;
    }
    return status;
}

enum kms_status ops_allow(struct ops_run *run, const char *tenant, const char *purpose)
{
    struct kms_call *call = run->call;
    run->event.tenant = tenant;
    run->event.purpose = purpose;
    KMS_TRY(kms_auth_decide(run->ops->auth, call->identity, run->action, tenant, purpose, &call->error));
    if (!run->changes)
        return KMS_OK;
    struct kms_audit_event intent = run->event;
    intent.type = "intent";
    KMS_TRY(kms_audit_append(run->ops->audit, &intent, &call->error));
    return kms_audit_commit(run->ops->audit, &call->error);
}

enum kms_status ops_control(void *context, struct kms_call *call, enum kms_action action, bool changes,
                            ops_body body, const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    struct ops_run run = ops_run_begin(context, call, action);
    run.changes = changes;
    ProtobufCMessage *reply = NULL;
    enum kms_status status = body(&run, request, &reply);
    if (changes)
        run.event.type = "outcome";
    status = ops_run_record(&run, status);
    if (status == KMS_OK)
        *ret_reply = reply;
    return status;
}

void kms_ops_refused(void *context, const struct kms_call *call, enum kms_status status)
{
    struct kms_ops *ops = context;
    const struct kms_audit_event event = {
        .type = "call",
        .action = call->method,
        .request_id = call->request_id,
        .identity = call->identity != NULL ? call->identity->name : NULL,
        .peer = call->peer,
        .outcome = kms_status_name(status),
        .reason = kms_error_cause(&call->error, status),
    };
    /* Nothing is served here, so there is nothing to withhold when the log is failing: it reports that
     * itself. */
    (void)!kms_audit_append(ops->audit, &event, NULL);
    if (ops->detect == NULL)
        return;
    const struct kms_detect_event seen = {.identity = event.identity,
                                          .peer = event.peer,
                                          .action = event.action,
                                          .request_id = event.request_id,
                                          .status = status};
    kms_detect_observe(ops->detect, &seen);
}
