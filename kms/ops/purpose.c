/* Purposes of a tenant: create, get, list, update, close. */
#include "core/clock.h"
#include "core/cleanup.h"
#include "ops/checks.h"
#include "ops/convert.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/page_token.h"

#include <stdio.h>

/* A purpose as the reply of a method. */
static enum kms_status purpose_reply(struct kms_call *call, const char *tenant_id,
                                     const struct kms_purpose_record *purpose, ProtobufCMessage **ret_reply)
{
    Kms__V1__Purpose *message = ops_purpose_message(call->arena, tenant_id, purpose);
    if (message == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &message->base;
    return KMS_OK;
}

/* The fields that a create may set and an update may change. */
enum purpose_field {
    FIELD_DISPLAY_NAME = 1,
    FIELD_LEGAL_BASIS = 2,
    FIELD_REQUIRED_BY_LAW = 4,
    FIELD_RETENTION = 8,
    FIELD_ROTATION = 16,
    FIELDS_ALL = 31
};

/* Check the fields named by `fields` and copy them from the message into the record. */
static enum kms_status set_fields(struct kms_call *call, const Kms__V1__Purpose *from, unsigned fields,
                                  struct kms_purpose_record *to)
{
    if ((fields & FIELD_DISPLAY_NAME) != 0) {
        KMS_TRY(ops_check_text(call, "display_name", from->display_name, KMS_DISPLAY_NAME_MAX));
        (void)snprintf(to->display_name, sizeof to->display_name, "%s", from->display_name);
    }
    if ((fields & FIELD_LEGAL_BASIS) != 0) {
        KMS_TRY(ops_check_text(call, "legal_basis", from->legal_basis, KMS_LEGAL_BASIS_MAX));
        (void)snprintf(to->legal_basis, sizeof to->legal_basis, "%s", from->legal_basis);
    }
    if ((fields & FIELD_REQUIRED_BY_LAW) != 0)
        to->required_by_law = from->required_by_law != 0;
    if ((fields & FIELD_RETENTION) != 0) {
        KMS_TRY(ops_check_seconds(call, "retention_seconds", from->retention_seconds));
        to->retention_seconds = from->retention_seconds;
    }
    if ((fields & FIELD_ROTATION) != 0) {
        KMS_TRY(ops_check_seconds(call, "rotation_seconds", from->rotation_seconds));
        to->rotation_seconds = from->rotation_seconds;
    }
    return KMS_OK;
}

static enum kms_status create_purpose(struct ops_run *run, const ProtobufCMessage *message,
                                      ProtobufCMessage **ret_reply)
{
    const Kms__V1__CreatePurposeRequest *request = (const void *)message;
    const Kms__V1__Purpose *wanted = request->purpose;
    struct kms_call *call = run->call;
    if (wanted == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "purpose: must be given");
    KMS_TRY(ops_check_id(call, "tenant", wanted->tenant));
    KMS_TRY(ops_check_id(call, "purpose", wanted->purpose));
    KMS_TRY(ops_check_request_id(call, request->request_id));
    const int64_t now = kms_clock_wall_ns();
    struct kms_purpose_record purpose = {
        .state = KMS_PURPOSE_ACTIVE, .revision = 1, .created_ns = now, .updated_ns = now};
    (void)snprintf(purpose.id, sizeof purpose.id, "%s", wanted->purpose);
    KMS_TRY(set_fields(call, wanted, FIELDS_ALL, &purpose));
    KMS_TRY(ops_allow(run, wanted->tenant, wanted->purpose));

    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    struct kms_request_record record;
    struct kms_tenant_record tenant;
    bool done = false;
    KMS_TRY(ops_request_begin(run, &txn, request->request_id, &wanted->base, &record, &done));
    KMS_TRY(ops_find_open_tenant(call, &txn, wanted->tenant, &tenant));
    if (done) {
        KMS_TRY(ops_find_purpose(call, &txn, &tenant, wanted->purpose, &purpose));
        return purpose_reply(call, tenant.id, &purpose, ret_reply);
    }
    purpose.tenant = tenant.uuid;
    const enum kms_status status = txn.store->ops->purpose_insert(txn.txn, &purpose, &call->error);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail_public(&call->error, status, "purpose '%s' of tenant '%s' exists already", purpose.id,
                               tenant.id);
    KMS_TRY(status);
    KMS_TRY(ops_request_end(call, &txn, &record));
    KMS_TRY(kms_txn_commit(&txn, &call->error));
    return purpose_reply(call, tenant.id, &purpose, ret_reply);
}

enum kms_status kms_ops_create_purpose(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                       ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_PURPOSE_CREATE, true, create_purpose, request, ret_reply);
}

static enum kms_status get_purpose(struct ops_run *run, const ProtobufCMessage *message,
                                   ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetPurposeRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_id(call, "purpose", request->purpose));
    KMS_TRY(ops_allow(run, request->tenant, request->purpose));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct kms_tenant_record tenant;
    struct kms_purpose_record purpose;
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    KMS_TRY(ops_find_purpose(call, &txn, &tenant, request->purpose, &purpose));
    return purpose_reply(call, tenant.id, &purpose, ret_reply);
}

enum kms_status kms_ops_get_purpose(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                    ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_PURPOSE_READ, false, get_purpose, request, ret_reply);
}

/* One page of the list as messages. */
static enum kms_status purpose_messages(struct kms_call *call, const char *tenant_id,
                                        const struct kms_purpose_record *list, size_t count,
                                        Kms__V1__ListPurposesResponse *reply)
{
    reply->purposes = kms_arena_alloc(call->arena, (count + 1) * sizeof(*reply->purposes));
    if (reply->purposes == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        reply->purposes[i] = ops_purpose_message(call->arena, tenant_id, &list[i]);
        if (reply->purposes[i] == NULL)
            return KMS_NO_MEMORY;
        reply->n_purposes++;
    }
    return KMS_OK;
}

static enum kms_status list_purposes(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListPurposesRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    const struct kms_slice query = kms_slice_str(request->tenant);
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));

    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct kms_tenant_record tenant;
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    KMS_FREE struct kms_purpose_record *list = NULL;
    size_t count = 0;
    KMS_TRY(txn.store->ops->purpose_list(txn.txn, &tenant.uuid, after, limit, &list, &count, &call->error));
    Kms__V1__ListPurposesResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_purposes_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(purpose_messages(call, tenant.id, list, count, reply));
    if (count == limit)
        KMS_TRY(ops_page_token_make(call, query, list[count - 1].id, &reply->next_page_token));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_purposes(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_PURPOSE_READ, false, list_purposes, request, ret_reply);
}

/* The fields that an update mask names. */
static enum kms_status fields_of_mask(struct kms_call *call, const Google__Protobuf__FieldMask *mask,
                                      unsigned *ret_fields)
{
    static const struct {
        const char *path;
        unsigned field;
    } paths[] = {{"display_name", FIELD_DISPLAY_NAME},
                 {"legal_basis", FIELD_LEGAL_BASIS},
                 {"required_by_law", FIELD_REQUIRED_BY_LAW},
                 {"retention_seconds", FIELD_RETENTION},
                 {"rotation_seconds", FIELD_ROTATION}};
    unsigned fields = 0;
    for (size_t i = 0; mask != NULL && i < mask->n_paths; i++) {
        unsigned field = 0;
        for (size_t k = 0; k < sizeof paths / sizeof paths[0]; k++)
            field |= strcmp(mask->paths[i], paths[k].path) == 0 ? paths[k].field : 0;
        if (field == 0)
            return kms_fail_public(
                &call->error, KMS_INVALID_ARGUMENT,
                "update_mask: display_name, legal_basis, required_by_law, retention_seconds and "
                "rotation_seconds can be changed, nothing else");
        fields |= field;
    }
    if (fields == 0)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "update_mask: must name the fields to change");
    *ret_fields = fields;
    return KMS_OK;
}

/*
 * The end of a retention shreds without an approval. Who closes customers must not say as well when that is: a retention that is
 * new or shorter needs another permission.
 */
static enum kms_status allow_retention(struct ops_run *run, const struct kms_purpose_record *purpose,
                                       int64_t before)
{
    const int64_t after = purpose->retention_seconds;
    if (after == 0 || (before != 0 && after >= before))
        return KMS_OK;
    return kms_auth_decide(run->ops->auth, run->call->identity, KMS_ACTION_SHRED_SETTLE, run->event.tenant,
                           purpose->id, &run->call->error);
}

/* Store a changed purpose under the next revision. */
static enum kms_status save_purpose(struct kms_call *call, struct kms_txn *txn,
                                    struct kms_purpose_record *purpose)
{
    purpose->revision++;
    purpose->updated_ns = kms_clock_wall_ns();
    KMS_TRY(txn->store->ops->purpose_update(txn->txn, purpose, &call->error));
    return kms_txn_commit(txn, &call->error);
}

/* What update and close begin with: the open tenant and its purpose, unchanged since the caller read it. */
static enum kms_status open_for_change(struct kms_call *call, struct kms_txn *txn, const char *tenant_id,
                                       const char *purpose_id, const char *etag,
                                       struct kms_tenant_record *ret_tenant,
                                       struct kms_purpose_record *ret_purpose)
{
    KMS_TRY(ops_find_open_tenant(call, txn, tenant_id, ret_tenant));
    KMS_TRY(ops_find_purpose(call, txn, ret_tenant, purpose_id, ret_purpose));
    if (ret_purpose->state != KMS_PURPOSE_ACTIVE)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "purpose '%s' is closed", purpose_id);
    return ops_check_etag(call, etag, ret_purpose->revision);
}

static enum kms_status update_purpose(struct ops_run *run, const ProtobufCMessage *message,
                                      ProtobufCMessage **ret_reply)
{
    const Kms__V1__UpdatePurposeRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    if (request->purpose == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "purpose: must be given");
    unsigned fields = 0;
    KMS_TRY(ops_check_id(call, "tenant", request->purpose->tenant));
    KMS_TRY(ops_check_id(call, "purpose", request->purpose->purpose));
    KMS_TRY(fields_of_mask(call, request->update_mask, &fields));
    KMS_TRY(ops_allow(run, request->purpose->tenant, request->purpose->purpose));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    struct kms_tenant_record tenant;
    struct kms_purpose_record purpose;
    KMS_TRY(open_for_change(call, &txn, request->purpose->tenant, request->purpose->purpose,
                            request->purpose->etag, &tenant, &purpose));
    const int64_t retention_before = purpose.retention_seconds;
    KMS_TRY(set_fields(call, request->purpose, fields, &purpose));
    KMS_TRY(allow_retention(run, &purpose, retention_before));
    KMS_TRY(save_purpose(call, &txn, &purpose));
    if ((fields & FIELD_REQUIRED_BY_LAW) !=
        0) /* what restricted customers may use of it was decided when it was loaded */
        kms_keys_forget_purpose(run->ops->keys, &tenant.uuid, purpose.id);
    return purpose_reply(call, tenant.id, &purpose, ret_reply);
}

enum kms_status kms_ops_update_purpose(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                       ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_PURPOSE_UPDATE, true, update_purpose, request, ret_reply);
}

static enum kms_status close_purpose(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__ClosePurposeRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_id(call, "purpose", request->purpose));
    KMS_TRY(ops_allow(run, request->tenant, request->purpose));
    struct kms_tenant_record tenant;
    struct kms_purpose_record purpose;
    {
        KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
        KMS_TRY(
            open_for_change(call, &txn, request->tenant, request->purpose, request->etag, &tenant, &purpose));
        purpose.state = KMS_PURPOSE_CLOSED;
        KMS_TRY(save_purpose(call, &txn, &purpose));
    }
    kms_keys_forget_purpose(run->ops->keys, &tenant.uuid, purpose.id);
    return purpose_reply(call, tenant.id, &purpose, ret_reply);
}

enum kms_status kms_ops_close_purpose(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_PURPOSE_CLOSE, true, close_purpose, request, ret_reply);
}
