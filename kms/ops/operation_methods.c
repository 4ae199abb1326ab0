/* Operations: get, list, approve, reject, cancel. */
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/testpoint.h"
#include "evidence/signature.h"
#include "ops/checks.h"
#include "ops/messages.h"
#include "ops/operation_message.h"
#include "ops/page_token.h"
#include "ops/runner.h"
#include "ops/verdict.h"

#include <stdio.h>

enum { REASON_MAX = 256, PLACE_TEXT_SIZE = 64 };

/* An operation with its approvals, as a method works on it. */
struct subject {
    struct kms_operation_record operation;
    struct kms_approval_record *approvals;
    size_t count;
};

static void clear_subject(struct subject *subject)
{
    kms_operation_record_clear(&subject->operation);
    kms_approval_list_clear(subject->approvals, subject->count);
}
#define SUBJECT KMS_CLEANUP(clear_subject) struct subject

/* The tenant as the policy is asked about it. */
static const char *tenant_of(const struct kms_operation_record *operation)
{
    return operation->tenant[0] != '\0' ? operation->tenant : NULL;
}

/* ops_allow() in the tenant of an operation; the audit record outlives the operation's record. */
static enum kms_status allow_in_tenant(struct ops_run *run, const struct kms_operation_record *operation)
{
    const char *tenant = tenant_of(operation);
    const char *kept = tenant != NULL ? ops_string(run->call->arena, tenant) : NULL;
    if (tenant != NULL && kept == NULL)
        return KMS_NO_MEMORY;
    return ops_allow(run, kept, NULL);
}

/* The operation that a request names. Strangers do not learn whether it exists. */
static enum kms_status find(struct ops_run *run, struct kms_txn *txn, const char *uid,
                            struct subject *subject)
{
    struct kms_call *call = run->call;
    struct kms_uuid uuid;
    if (kms_uuid_parse(uid, &uuid) != KMS_OK)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "uid: is not a UUID");
    KMS_TRY(
        kms_auth_decide(run->ops->auth, call->identity, KMS_ACTION_OPERATION_READ, NULL, NULL, &call->error));
    const struct kms_store_operation_ops *store = &txn->store->ops->operation;
    const enum kms_status status = store->get(txn->txn, &uuid, &subject->operation, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "there is no operation %s", uid);
    KMS_TRY(status);
    return store->approvals(txn->txn, &uuid, &subject->approvals, &subject->count, &call->error);
}

/* The same, outside of a transaction that writes. */
static enum kms_status look_up(struct ops_run *run, const char *uid, struct subject *subject)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &run->call->error));
    return find(run, &txn, uid, subject);
}

static enum kms_status reply_with(struct ops_run *run, struct subject *subject, ProtobufCMessage **ret_reply)
{
    kms_ops_runner_progress(run->ops->runner, &subject->operation);
    return ops_operation_reply(run->call, &subject->operation, subject->approvals, subject->count, ret_reply);
}

static enum kms_status get_operation(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetOperationRequest *request = (const void *)message;
    SUBJECT subject = {0};
    KMS_TRY(look_up(run, request->uid, &subject));
    KMS_TRY(allow_in_tenant(run, &subject.operation));
    return reply_with(run, &subject, ret_reply);
}

enum kms_status kms_ops_get_operation(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_OPERATION_READ, false, get_operation, request, ret_reply);
}

/* A list under way. */
struct listing {
    struct ops_run *run;
    Kms__V1__ListOperationsResponse *reply;
    size_t seen;
    struct kms_operation_place last;
};

/* One row; what the caller may not read is left out. */
static enum kms_status list_one(void *context, const struct kms_operation_record *operation)
{
    struct listing *listing = context;
    struct ops_run *run = listing->run;
    struct kms_operation_record shown = *operation;
    listing->seen++;
    listing->last = (struct kms_operation_place){operation->created_ns, operation->uuid};
    if (kms_auth_decide(run->ops->auth, run->call->identity, run->action, tenant_of(operation), NULL, NULL) !=
        KMS_OK)
        return KMS_OK;
    kms_ops_runner_progress(run->ops->runner, &shown);
    Kms__V1__Operation *message = ops_operation_message(run->call->arena, &shown, NULL, 0);
    if (message == NULL)
        return KMS_NO_MEMORY;
    listing->reply->operations[listing->reply->n_operations++] = message;
    return KMS_OK;
}

/* Where a list goes on, from the text inside its token. */
static enum kms_status parse_place(struct kms_call *call, const char *text,
                                   struct kms_operation_place *ret_place)
{
    char *end = NULL;
    const long long created = strtoll(text, &end, 10);
    if (end == text || *end != '/' || kms_uuid_parse(end + 1, &ret_place->uuid) != KMS_OK)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "page_token: was not made by this method");
    ret_place->created_ns = created;
    return KMS_OK;
}

/* What ties a token to its filters. */
static enum kms_status query_of(struct kms_call *call, const Kms__V1__ListOperationsRequest *request,
                                struct kms_slice *ret_query)
{
    const char *text =
        kms_arena_printf(call->arena, "%s/%s/%d", request->tenant, request->kind, (int)request->state);
    if (text == NULL)
        return KMS_NO_MEMORY;
    *ret_query = kms_slice_str(text);
    return KMS_OK;
}

/* The page that the request asks for. */
static enum kms_status fill_page(struct listing *listing, const Kms__V1__ListOperationsRequest *request,
                                 const struct kms_operation_place *after, size_t limit)
{
    struct ops_run *run = listing->run;
    const struct kms_operation_filter filter = {.state = (enum kms_operation_state)request->state,
                                                .kind = ops_named(request->kind),
                                                .tenant = ops_named(request->tenant)};
    listing->reply->operations =
        kms_arena_alloc(run->call->arena, (limit + 1) * sizeof(*listing->reply->operations));
    if (listing->reply->operations == NULL)
        return KMS_NO_MEMORY;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &run->call->error));
    return txn.store->ops->operation.list(txn.txn, &filter, after, limit, list_one, listing,
                                          &run->call->error);
}

static enum kms_status list_operations(struct ops_run *run, const ProtobufCMessage *message,
                                       ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListOperationsRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    struct kms_slice query;
    struct kms_operation_place place;
    KMS_TRY(ops_check_optional_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_text(call, "kind", request->kind, KMS_OPERATION_KIND_MAX));
    if ((int)request->state < 0 || request->state > KMS__V1__OPERATION__STATE__EXPIRED)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "state: unknown");
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, ops_named(request->tenant), NULL));
    KMS_TRY(query_of(call, request, &query));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));
    if (after != NULL)
        KMS_TRY(parse_place(call, after, &place));
    Kms__V1__ListOperationsResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_operations_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    struct listing listing = {.run = run, .reply = reply};
    KMS_TRY(fill_page(&listing, request, after != NULL ? &place : NULL, limit));
    if (listing.seen == limit) {
        char text[PLACE_TEXT_SIZE];
        char uid[KMS_UUID_TEXT_SIZE];
        (void)snprintf(text, sizeof text, "%lld/%s", (long long)listing.last.created_ns,
                       kms_uuid_format(&listing.last.uuid, uid));
        KMS_TRY(ops_page_token_make(call, query, text, &reply->next_page_token));
    }
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_operations(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                        ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_OPERATION_READ, false, list_operations, request, ret_reply);
}

/* Ask the policy for the permission that the operation's kind wants of approvers. */
static enum kms_status allow_decision(struct ops_run *run, const struct subject *subject)
{
    const struct kms_operation_record *operation = &subject->operation;
    const struct ops_operation_kind *kind = ops_operation_kind_of(run->ops, operation->kind);
    if (kind == NULL)
        return kms_fail_public(&run->call->error, KMS_FAILED_PRECONDITION,
                               "this version of the service does not know operations of kind %s",
                               operation->kind);
    run->action = kind->approve;
    run->event.action = kms_action_text(kind->approve);
    KMS_TRY(ops_operation_note(run, operation, subject->count));
    return allow_in_tenant(run, operation);
}

/* The signature that came with the call is the caller's over the stored document. */
static enum kms_status check_signed(struct kms_call *call, const struct kms_operation_record *operation,
                                    const Kms__V1__ApproveOperationRequest *request)
{
    uint8_t digest[KMS_OPERATION_DIGEST_SIZE];
    if (kms_hex_decode(request->digest, strlen(request->digest), digest, sizeof digest) != KMS_OK ||
        memcmp(digest, operation->digest, sizeof digest) != 0)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "digest: is not that of this operation's document; read it again");
    const enum kms_status status =
        kms_signature_verify(call->certificate, kms_slice_of(operation->document, operation->document_len),
                             kms_slice_of(request->signature.data, request->signature.len), &call->error);
    if (status != KMS_TAMPERED)
        return status;
    return kms_fail_public(
        &call->error, KMS_INVALID_ARGUMENT,
        "signature: was not made over this document with the key of the certificate that this "
        "call was made with");
}

/* Add the caller's approval to the subject, and to the store. */
static enum kms_status add_approval(struct ops_run *run, struct kms_txn *txn, struct subject *subject,
                                    const Kms__V1__ApproveOperationRequest *request)
{
    struct kms_call *call = run->call;
    struct kms_approval_record *list =
        realloc(subject->approvals, (subject->count + 1) * sizeof *subject->approvals);
    if (list == NULL)
        return KMS_NO_MEMORY;
    subject->approvals = list;
    struct kms_approval_record *approval = &list[subject->count++];
    *approval = (struct kms_approval_record){
        .operation = subject->operation.uuid,
        .certificate = strndup((const char *)call->certificate.data, call->certificate.len),
        .signature = malloc(request->signature.len),
        .signature_len = request->signature.len,
        .time_ns = kms_clock_wall_ns()};
    (void)snprintf(approval->identity, sizeof approval->identity, "%s", call->identity->name);
    (void)kms_auth_person(run->ops->auth, call->identity->name, approval->person);
    if (approval->certificate == NULL || approval->signature == NULL)
        return KMS_NO_MEMORY;
    memcpy(approval->signature, request->signature.data, request->signature.len);
    const enum kms_status status = txn->store->ops->operation.approve(txn->txn, approval, &call->error);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail_public(&call->error, status, "you have approved this operation already");
    return status;
}

static enum kms_status approve_operation(struct ops_run *run, const ProtobufCMessage *message,
                                         ProtobufCMessage **ret_reply)
{
    const Kms__V1__ApproveOperationRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    SUBJECT subject = {0};
    KMS_TRY(look_up(run, request->uid, &subject));
    KMS_TRY(allow_decision(run, &subject));
    KMS_TRY(ops_verdict_may_decide(run->ops, call, &subject.operation));
    KMS_TRY(check_signed(call, &subject.operation, request));
    clear_subject(&subject);
    subject = (struct subject){0};

    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    KMS_TRY(find(run, &txn, request->uid, &subject)); /* as it is now: others may have decided meanwhile */
    KMS_TRY(ops_verdict_may_decide(run->ops, call, &subject.operation));
    KMS_TRY(add_approval(run, &txn, &subject, request));
    if (ops_verdict_suffices(run->ops, &subject.operation, subject.approvals, subject.count)) {
        subject.operation.state = KMS_OPERATION_APPROVED;
        KMS_TRY(txn.store->ops->operation.update(txn.txn, &subject.operation, KMS_OPERATION_PENDING,
                                                 &call->error));
    }
    KMS_TRY(kms_txn_commit(&txn, &call->error));
    kms_test_point("operation.approved");
    if (subject.operation.state == KMS_OPERATION_APPROVED)
        kms_ops_runner_wake(run->ops->runner);
    KMS_TRY(ops_operation_note(run, &subject.operation, subject.count));
    return reply_with(run, &subject, ret_reply);
}

enum kms_status kms_ops_approve_operation(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_OPERATION_READ, true, approve_operation, request, ret_reply);
}

/* End a pending operation for the caller. */
static enum kms_status end_pending(struct ops_run *run, const char *uid, enum kms_operation_state state,
                                   const char *reason, struct subject *subject)
{
    struct kms_call *call = run->call;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    KMS_TRY(find(run, &txn, uid, subject));
    struct kms_operation_record *operation = &subject->operation;
    if (operation->state != KMS_OPERATION_PENDING)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "the operation is %s: too late",
                               kms_operation_state_name(operation->state));
    operation->state = state;
    operation->finished_ns = kms_clock_wall_ns();
    (void)snprintf(operation->ended_by, sizeof operation->ended_by, "%s", call->identity->name);
    (void)snprintf(operation->reason, sizeof operation->reason, "%s", reason);
    KMS_TRY(txn.store->ops->operation.update(txn.txn, operation, KMS_OPERATION_PENDING, &call->error));
    KMS_TRY(kms_txn_commit(&txn, &call->error));
    return ops_operation_note(run, operation, subject->count);
}

static enum kms_status reject_operation(struct ops_run *run, const ProtobufCMessage *message,
                                        ProtobufCMessage **ret_reply)
{
    const Kms__V1__RejectOperationRequest *request = (const void *)message;
    KMS_TRY(ops_check_text(run->call, "reason", request->reason, REASON_MAX));
    {
        SUBJECT seen = {0};
        KMS_TRY(look_up(run, request->uid, &seen));
        KMS_TRY(allow_decision(run, &seen));
        KMS_TRY(ops_verdict_may_decide(run->ops, run->call, &seen.operation));
    }
    SUBJECT subject = {0};
    KMS_TRY(end_pending(run, request->uid, KMS_OPERATION_REJECTED, request->reason, &subject));
    return reply_with(run, &subject, ret_reply);
}

enum kms_status kms_ops_reject_operation(void *context, struct kms_call *call,
                                         const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_OPERATION_READ, true, reject_operation, request, ret_reply);
}

static enum kms_status cancel_operation(struct ops_run *run, const ProtobufCMessage *message,
                                        ProtobufCMessage **ret_reply)
{
    const Kms__V1__CancelOperationRequest *request = (const void *)message;
    {
        SUBJECT seen = {0};
        KMS_TRY(look_up(run, request->uid, &seen));
        KMS_TRY(ops_operation_note(run, &seen.operation, seen.count));
        KMS_TRY(allow_in_tenant(run, &seen.operation));
        if (strcmp(seen.operation.requester, run->call->identity->name) != 0)
            return kms_fail_public(&run->call->error, KMS_PERMISSION_DENIED,
                                   "only its requester cancels an operation; an approver rejects it");
    }
    SUBJECT subject = {0};
    KMS_TRY(end_pending(run, request->uid, KMS_OPERATION_CANCELLED, "", &subject));
    return reply_with(run, &subject, ret_reply);
}

enum kms_status kms_ops_cancel_operation(void *context, struct kms_call *call,
                                         const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_OPERATION_CANCEL, true, cancel_operation, request,
                       ret_reply);
}
