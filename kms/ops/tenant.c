/* Tenants: create (makes the master key), get, list, update, close. */
#include "core/clock.h"
#include "core/cleanup.h"
#include "ops/checks.h"
#include "ops/convert.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/page_token.h"
#include "ops/shred_job.h"

#include <stdio.h>

/* A tenant as the reply of a method. */
static enum kms_status tenant_reply(struct kms_call *call, const struct kms_tenant_record *tenant,
                                    ProtobufCMessage **ret_reply)
{
    Kms__V1__Tenant *message = ops_tenant_message(call->arena, tenant);
    if (message == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &message->base;
    return KMS_OK;
}

/* What the tenant has settled about shredding, into its message. */
static enum kms_status add_setting(struct kms_call *call, struct kms_txn *txn, const struct kms_uuid *tenant,
                                   Kms__V1__Tenant *message)
{
    struct kms_shred_setting_record setting;
    const enum kms_status status =
        txn->store->ops->shred.setting_get(txn->txn, tenant, &setting, &call->error);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    message->shred_window_seconds = setting.window_seconds;
    message->shred_closed = setting.shred_closed;
    return KMS_OK;
}

/* The same as tenant_reply(), with everything that was settled. */
static enum kms_status whole_reply(struct kms_call *call, struct kms_txn *txn,
                                   const struct kms_tenant_record *tenant, ProtobufCMessage **ret_reply)
{
    ProtobufCMessage *reply = NULL;
    KMS_TRY(tenant_reply(call, tenant, &reply));
    KMS_TRY(add_setting(call, txn, &tenant->uuid, (Kms__V1__Tenant *)reply));
    *ret_reply = reply;
    return KMS_OK;
}

/* Answer a repeated create, or say that the id is taken before a master key is made for nothing. */
static enum kms_status look_before_create(struct ops_run *run, const Kms__V1__CreateTenantRequest *request,
                                          struct kms_tenant_record *ret_tenant, bool *ret_done)
{
    struct kms_call *call = run->call;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_request_begin(run, &txn, request->request_id, &request->tenant->base, &run->once, ret_done));
    const enum kms_status found = ops_find_tenant(call, &txn, request->tenant->tenant, ret_tenant);
    if (*ret_done)
        return found;
    if (found == KMS_OK)
        return kms_fail_public(&call->error, KMS_ALREADY_EXISTS, "tenant '%s' exists already",
                               request->tenant->tenant);
    call->error = (struct kms_error){0};
    return found == KMS_NOT_FOUND ? KMS_OK : found;
}

/* The request's id, beside the tenant. */
static enum kms_status keep_request(void *context, struct kms_txn *txn, struct kms_error *err)
{
    const struct ops_run *run = context;
    KMS_ASSERT(err == &run->call->error);
    return ops_request_end(run->call, txn, &run->once);
}

static enum kms_status create_tenant(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__CreateTenantRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    if (request->tenant == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "tenant: must be given");
    KMS_TRY(ops_check_id(call, "tenant", request->tenant->tenant));
    KMS_TRY(ops_check_text(call, "display_name", request->tenant->display_name, KMS_DISPLAY_NAME_MAX));
    KMS_TRY(ops_check_request_id(call, request->request_id));
    KMS_TRY(ops_allow(run, request->tenant->tenant, NULL));

    struct kms_tenant_record tenant;
    bool done = false;
    KMS_TRY(look_before_create(run, request, &tenant, &done));
    if (done)
        return tenant_reply(call, &tenant, ret_reply);

    const int64_t now = kms_clock_wall_ns();
    tenant = (struct kms_tenant_record){.uuid = kms_uuid_random(),
                                        .state = KMS_TENANT_ACTIVE,
                                        .revision = 1,
                                        .created_ns = now,
                                        .updated_ns = now};
    (void)snprintf(tenant.id, sizeof tenant.id, "%s", request->tenant->tenant);
    (void)snprintf(tenant.display_name, sizeof tenant.display_name, "%s", request->tenant->display_name);
    const enum kms_status status =
        kms_keys_tenant_create(run->ops->keys, &tenant, keep_request, run, &call->error);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail_public(&call->error, status, "tenant '%s' exists already", tenant.id);
    KMS_TRY(status);
    return tenant_reply(call, &tenant, ret_reply);
}

enum kms_status kms_ops_create_tenant(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_TENANT_CREATE, true, create_tenant, request, ret_reply);
}

static enum kms_status get_tenant(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetTenantRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct kms_tenant_record tenant;
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    return whole_reply(call, &txn, &tenant, ret_reply);
}

enum kms_status kms_ops_get_tenant(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                   ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_TENANT_READ, false, get_tenant, request, ret_reply);
}

/* Those of the list that the caller may read; a denial hides a tenant and is no failure. */
static enum kms_status keep_readable(struct ops_run *run, struct kms_txn *txn,
                                     const struct kms_tenant_record *list, size_t count,
                                     Kms__V1__ListTenantsResponse *reply)
{
    struct kms_call *call = run->call;
    reply->tenants = kms_arena_alloc(call->arena, (count + 1) * sizeof(*reply->tenants));
    if (reply->tenants == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        if (kms_auth_decide(run->ops->auth, call->identity, run->action, list[i].id, NULL, NULL) != KMS_OK)
            continue;
        Kms__V1__Tenant *tenant = ops_tenant_message(call->arena, &list[i]);
        if (tenant == NULL)
            return KMS_NO_MEMORY;
        KMS_TRY(add_setting(call, txn, &list[i].uuid, tenant));
        reply->tenants[reply->n_tenants++] = tenant;
    }
    return KMS_OK;
}

static enum kms_status list_tenants(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListTenantsRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    const struct kms_slice query = {0};
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));

    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_FREE struct kms_tenant_record *list = NULL;
    size_t count = 0;
    KMS_TRY(txn.store->ops->tenant_list(txn.txn, after, limit, &list, &count, &call->error));
    Kms__V1__ListTenantsResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_tenants_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(keep_readable(run, &txn, list, count, reply));
    if (count == limit)
        KMS_TRY(ops_page_token_make(call, query, list[count - 1].id, &reply->next_page_token));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_tenants(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_TENANT_READ, false, list_tenants, request, ret_reply);
}

/* The shortest window that the policy lets a tenant settle. */
static enum kms_status check_window(struct ops_run *run, int64_t seconds)
{
    const int64_t minimum = kms_auth_shred_rules(run->ops->auth).minimum_window_seconds;
    KMS_TRY(ops_check_seconds(run->call, "shred_window_seconds", seconds));
    if (seconds < minimum || seconds == 0)
        return kms_fail_public(&run->call->error, KMS_INVALID_ARGUMENT,
                               "shred_window_seconds: must be at least %lld, which the policy says",
                               (long long)(minimum > 0 ? minimum : 1));
    return KMS_OK;
}

/* The new values of the fields that the mask names; *ret_settled when the setting is to be stored. */
static enum kms_status apply_update(struct ops_run *run, const Kms__V1__UpdateTenantRequest *request,
                                    struct kms_tenant_record *tenant,
                                    struct kms_shred_setting_record *setting, bool *ret_settled)
{
    struct kms_call *call = run->call;
    const Google__Protobuf__FieldMask *mask = request->update_mask;
    if (mask == NULL || mask->n_paths == 0)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "update_mask: must name the fields to change");
    *ret_settled = false;
    for (size_t i = 0; i < mask->n_paths; i++) {
        if (strcmp(mask->paths[i], "display_name") == 0) {
            KMS_TRY(
                ops_check_text(call, "display_name", request->tenant->display_name, KMS_DISPLAY_NAME_MAX));
            (void)snprintf(tenant->display_name, sizeof tenant->display_name, "%s",
                           request->tenant->display_name);
        } else if (strcmp(mask->paths[i], "shred_window_seconds") == 0) {
            KMS_TRY(check_window(run, request->tenant->shred_window_seconds));
            setting->window_seconds = request->tenant->shred_window_seconds;
            *ret_settled = true;
        } else if (strcmp(mask->paths[i], "shred_closed") == 0) {
            if (request->tenant->shred_closed && !setting->shred_closed) /* shreds without an approval */
                KMS_TRY(kms_auth_decide(run->ops->auth, call->identity, KMS_ACTION_SHRED_SETTLE,
                                        run->event.tenant, NULL, &call->error));
            setting->shred_closed = request->tenant->shred_closed != 0;
            *ret_settled = true;
        } else {
            return kms_fail_public(
                &call->error, KMS_INVALID_ARGUMENT,
                "update_mask: only display_name, shred_window_seconds and shred_closed can be changed");
        }
    }
    return KMS_OK;
}

/* What was settled before, or what holds without. */
static enum kms_status read_setting(struct kms_call *call, struct kms_txn *txn, const struct kms_uuid *tenant,
                                    struct kms_shred_setting_record *ret_setting)
{
    *ret_setting = (struct kms_shred_setting_record){*tenant, OPS_SHRED_WINDOW_DEFAULT, false};
    const enum kms_status status =
        txn->store->ops->shred.setting_get(txn->txn, tenant, ret_setting, &call->error);
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* Store a changed tenant, which has its next revision. */
static enum kms_status save_tenant(struct kms_call *call, struct kms_txn *txn,
                                   const struct kms_tenant_record *tenant)
{
    KMS_TRY(txn->store->ops->tenant_update(txn->txn, tenant, &call->error));
    return kms_txn_commit(txn, &call->error);
}

static enum kms_status update_tenant(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__UpdateTenantRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    if (request->tenant == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "tenant: must be given");
    KMS_TRY(ops_check_id(call, "tenant", request->tenant->tenant));
    KMS_TRY(ops_allow(run, request->tenant->tenant, NULL));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    struct kms_tenant_record tenant;
    KMS_TRY(ops_find_open_tenant(call, &txn, request->tenant->tenant, &tenant));
    struct kms_shred_setting_record setting;
    bool settled = false;
    KMS_TRY(ops_check_etag(call, request->tenant->etag, tenant.revision));
    KMS_TRY(read_setting(call, &txn, &tenant.uuid, &setting));
    KMS_TRY(apply_update(run, request, &tenant, &setting, &settled));
    if (settled)
        KMS_TRY(txn.store->ops->shred.setting_put(txn.txn, &setting, &call->error));
    ProtobufCMessage *reply = NULL;
    tenant.revision++;
    tenant.updated_ns = kms_clock_wall_ns();
    KMS_TRY(whole_reply(call, &txn, &tenant, &reply));
    KMS_TRY(save_tenant(call, &txn, &tenant));
    *ret_reply = reply;
    return KMS_OK;
}

enum kms_status kms_ops_update_tenant(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_TENANT_UPDATE, true, update_tenant, request, ret_reply);
}

static enum kms_status close_tenant(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__CloseTenantRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    struct kms_tenant_record tenant;
    ProtobufCMessage *reply = NULL;
    {
        KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
        KMS_TRY(ops_find_open_tenant(call, &txn, request->tenant, &tenant));
        KMS_TRY(ops_check_etag(call, request->etag, tenant.revision));
        tenant.state = KMS_TENANT_CLOSED;
        tenant.revision++;
        tenant.updated_ns = kms_clock_wall_ns();
        KMS_TRY(whole_reply(call, &txn, &tenant, &reply));
        KMS_TRY(save_tenant(call, &txn, &tenant));
    }
    kms_keys_forget(run->ops->keys, &tenant.uuid, NULL);
    *ret_reply = reply;
    return KMS_OK;
}

enum kms_status kms_ops_close_tenant(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_TENANT_CLOSE, true, close_tenant, request, ret_reply);
}
