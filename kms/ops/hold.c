/* Legal holds: placed at once by one person, released by an operation that the policy may let others approve. */
#include "core/clock.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/operation.h"
#include "ops/page_token.h"
#include "ops/shred_job.h"

#include "kms/v1/hold.pb-c.h"

#include <stdio.h>

/* A hold as a message; NULL when the arena is full. */
static Kms__V1__Hold *hold_message(struct kms_arena *arena, const char *tenant_id,
                                   const struct kms_hold_record *hold)
{
    char text[KMS_UUID_TEXT_SIZE];
    Kms__V1__Hold *message = ops_message_new(arena, &kms__v1__hold__descriptor);
    if (message == NULL)
        return NULL;
    message->uid = ops_string(arena, kms_uuid_format(&hold->uid, text));
    message->name = kms_arena_printf(arena, "tenants/%s/holds/%s", tenant_id, text);
    message->tenant = ops_string(arena, tenant_id);
    message->customer_uid = ops_string(arena, kms_uuid_format(&hold->customer, text));
    message->reference = ops_string(arena, hold->reference);
    message->reason = ops_string(arena, hold->reason);
    message->placed_by = ops_string(arena, hold->placed_by);
    message->place_time = ops_timestamp(arena, hold->placed_ns);
    message->released_by = ops_string(arena, hold->released_by);
    if (hold->released_ns != 0)
        message->release_time = ops_timestamp(arena, hold->released_ns);
    const bool complete = message->uid != NULL && message->name != NULL && message->tenant != NULL &&
                          message->customer_uid != NULL && message->reference != NULL &&
                          message->reason != NULL && message->placed_by != NULL &&
                          message->place_time != NULL && message->released_by != NULL &&
                          (hold->released_ns == 0 || message->release_time != NULL);
    return complete ? message : NULL;
}

/* A text that must be there. */
static enum kms_status check_needed(struct kms_call *call, const char *field, const char *value, size_t max)
{
    if (value[0] == '\0')
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "%s: must be given", field);
    return ops_check_text(call, field, value, max);
}

/* A new hold, or the one that the same request has placed before. */
static enum kms_status find_or_place(struct ops_run *run, const Kms__V1__PlaceHoldRequest *request,
                                     struct kms_hold_record *ret_hold)
{
    struct kms_call *call = run->call;
    struct kms_tenant_record tenant;
    struct kms_hold_record hold = {.placed_ns = kms_clock_wall_ns()};
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    bool done = false;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    KMS_TRY(ops_request_begin(run, &txn, request->request_id, &request->base, &run->once, &done));
    KMS_TRY(ops_request_uuid(&run->once, "kms.v1.Hold", &hold.uid));
    const enum kms_status found = txn.store->ops->shred.hold_get(txn.txn, &hold.uid, ret_hold, &call->error);
    if (done && found == KMS_OK)
        return KMS_OK;
    if (done || found == KMS_OK) /* for another method, or more than a day ago */
        return ops_request_used(&call->error);
    if (found != KMS_NOT_FOUND)
        return found;
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    KMS_TRY(ops_find_customer(call, &txn, &tenant, request->customer, &customer));
    hold.tenant = tenant.uuid;
    hold.customer = customer.uuid;
    (void)snprintf(hold.reference, sizeof hold.reference, "%s", request->reference);
    (void)snprintf(hold.reason, sizeof hold.reason, "%s", request->reason);
    (void)snprintf(hold.placed_by, sizeof hold.placed_by, "%s", call->identity->name);
    KMS_TRY(txn.store->ops->shred.hold_put(txn.txn, &hold, &call->error));
    KMS_TRY(ops_request_end(call, &txn, &run->once));
    KMS_TRY(kms_txn_commit(&txn, &call->error));
    *ret_hold = hold;
    return KMS_OK;
}

static enum kms_status place_hold(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    const Kms__V1__PlaceHoldRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_customer(call, request->customer));
    KMS_TRY(check_needed(call, "reference", request->reference, KMS_HOLD_REFERENCE_MAX));
    KMS_TRY(check_needed(call, "reason", request->reason, KMS_SHRED_REASON_MAX));
    KMS_TRY(ops_check_request_id(call, request->request_id));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    struct kms_hold_record hold;
    KMS_TRY(find_or_place(run, request, &hold));
    run->event.customer = hold.customer;
    Kms__V1__Hold *reply = hold_message(call->arena, request->tenant, &hold);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_place_hold(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                   ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_HOLD_PLACE, true, place_hold, request, ret_reply);
}

/* The hold of that uid. */
static enum kms_status find_hold(struct kms_txn *txn, const char *uid, struct kms_hold_record *ret_hold,
                                 struct kms_error *err)
{
    struct kms_uuid uuid;
    if (uid == NULL || kms_uuid_parse(uid, &uuid) != KMS_OK)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "uid: is not a UUID");
    const enum kms_status status = txn->store->ops->shred.hold_get(txn->txn, &uuid, ret_hold, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(err, status, "there is no hold %s", uid);
    return status;
}

/* As long as it holds. */
static enum kms_status check_standing(const struct kms_hold_record *hold, struct kms_error *err)
{
    char uid[KMS_UUID_TEXT_SIZE];
    if (hold->released_ns == 0)
        return KMS_OK;
    return kms_fail_public(err, KMS_FAILED_PRECONDITION, "hold %s was released already",
                           kms_uuid_format(&hold->uid, uid));
}

static enum kms_status execute_release(struct kms_ops *ops, struct ops_operation *operation,
                                       char **ret_result, struct kms_error *err)
{
    (void)ret_result;
    struct kms_hold_record hold;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(find_hold(&txn, json_string_value(json_object_get(operation->parameters, "hold")), &hold, err));
    KMS_TRY(check_standing(&hold, err));
    hold.released_ns = kms_clock_wall_ns();
    (void)snprintf(hold.released_by, sizeof hold.released_by, "%s", operation->record->requester);
    KMS_TRY(txn.store->ops->shred.hold_put(txn.txn, &hold, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    ops_shred_look_again(ops->shred);
    return KMS_OK;
}

const struct ops_operation_kind ops_hold_release_kind = {
    .name = "hold.release",
    .request = KMS_ACTION_HOLD_RELEASE,
    .approve = KMS_ACTION_HOLD_APPROVE,
    .approvals = 0,
    .urgent = true,
    .execute = execute_release,
};

/* The hold and its tenant, before the policy is asked. */
static enum kms_status read_hold(struct ops_run *run, const char *uid, struct kms_hold_record *ret_hold,
                                 struct kms_tenant_record *ret_tenant)
{
    struct kms_call *call = run->call;
    KMS_TXN txn = {0};
    KMS_TRY(kms_auth_decide(run->ops->auth, call->identity, run->action, NULL, NULL, &call->error));
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(find_hold(&txn, uid, ret_hold, &call->error));
    return txn.store->ops->tenant_by_uuid(txn.txn, &ret_hold->tenant, ret_tenant, &call->error);
}

static enum kms_status release_hold(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__ReleaseHoldRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_hold_record hold;
    struct kms_tenant_record tenant;
    KMS_TRY(read_hold(run, request->uid, &hold, &tenant));
    char *tenant_id = ops_string(call->arena, tenant.id);
    if (tenant_id == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(ops_allow(run, tenant_id, NULL));
    run->event.customer = hold.customer;
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(check_standing(&hold, &call->error));
    char customer[KMS_UUID_TEXT_SIZE];
    char uid[KMS_UUID_TEXT_SIZE];
    json_t *parameters =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "customer", kms_uuid_format(&hold.customer, customer), "hold",
                  kms_uuid_format(&hold.uid, uid), "placed_by", hold.placed_by, "reason", hold.reason,
                  "reference", hold.reference);
    return ops_operation_request(run, &ops_hold_release_kind, tenant.id, parameters, 1, ret_reply);
}

enum kms_status kms_ops_release_hold(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_HOLD_RELEASE, true, release_hold, request, ret_reply);
}

/* Collects the holds of one page. */
struct hold_page {
    struct kms_call *call;
    const char *tenant_id;
    Kms__V1__ListHoldsResponse *reply;
};

static enum kms_status add_hold(void *context, const struct kms_hold_record *hold)
{
    const struct hold_page *page = context;
    Kms__V1__Hold *message = hold_message(page->call->arena, page->tenant_id, hold);
    if (message == NULL)
        return KMS_NO_MEMORY;
    page->reply->holds[page->reply->n_holds++] = message;
    return KMS_OK;
}

/* One page behind `after`. */
static enum kms_status fill_page(struct ops_run *run, const Kms__V1__ListHoldsRequest *request, size_t limit,
                                 const struct kms_uuid *after, Kms__V1__ListHoldsResponse *reply)
{
    struct kms_call *call = run->call;
    KMS_TXN txn = {0};
    struct kms_tenant_record tenant;
    struct kms_uuid customer;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    if (request->customer[0] != '\0')
        KMS_TRY(ops_shred_find_customer(call, &txn, &tenant, request->customer, &customer));
    struct hold_page page = {call, request->tenant, reply};
    return txn.store->ops->shred.hold_list(
        txn.txn, &tenant.uuid, request->customer[0] != '\0' ? &customer : NULL, request->released != 0, after,
        limit, add_hold, &page, &call->error);
}

static enum kms_status list_holds(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListHoldsRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    struct kms_uuid place;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    if (request->customer[0] != '\0')
        KMS_TRY(ops_check_customer(call, request->customer));
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    Kms__V1__ListHoldsRequest unpaged = *request;
    static char empty[] = "";
    unpaged.page_size = 0;
    unpaged.page_token = empty;
    struct kms_slice query;
    KMS_TRY(ops_pack(call, &unpaged.base, &query));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));
    if (after != NULL)
        KMS_TRY(kms_uuid_parse(after, &place));
    Kms__V1__ListHoldsResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_holds_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->holds = kms_arena_alloc(call->arena, limit * sizeof(*reply->holds));
    if (reply->holds == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(fill_page(run, request, limit, after != NULL ? &place : NULL, reply));
    if (reply->n_holds == limit)
        KMS_TRY(ops_page_token_make(call, query, reply->holds[limit - 1]->uid, &reply->next_page_token));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_holds(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                   ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_HOLD_READ, false, list_holds, request, ret_reply);
}
