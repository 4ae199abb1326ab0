/* Rotation of master keys, trees and KEKs, by hand and by schedule; versions of KEKs enabled, disabled and shredded. */
#include "core/clock.h"
#include "core/log.h"
#include "keys/rekey.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/rotation.h"
#include "ops/shred_job.h"

#include "kms/v1/rotation.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

/* The tenant that an operation belongs to. */
static enum kms_status tenant_of(struct kms_ops *ops, const struct ops_operation *operation,
                                 struct kms_tenant_record *ret_tenant, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
    return ops_find_open_tenant(operation->call, &txn, operation->record->tenant, ret_tenant);
}

/* The request of a batch. The operation's own id names the batch, so that a second run goes on with the first one's. */
static struct kms_rekey_request request_of(const struct ops_operation *operation,
                                           const struct kms_tenant_record *tenant, char reference[64])
{
    char uid[KMS_UUID_TEXT_SIZE];
    (void)snprintf(reference, 64, "operations/%s", kms_uuid_format(&operation->record->uuid, uid));
    return (struct kms_rekey_request){
        .batch = operation->record->uuid, .tenant = tenant->uuid, .reference = reference};
}

/* What a rotation has done, as its result. */
static enum kms_status result_of(const struct kms_batch_record *batch, char **ret_result,
                                 struct kms_error *err)
{
    char before[2 * KMS_BATCH_MASTER_ID_SIZE + 1];
    char after[2 * KMS_BATCH_MASTER_ID_SIZE + 1];
    kms_hex_encode(batch->old_master_id, KMS_BATCH_MASTER_ID_SIZE, before);
    kms_hex_encode(batch->new_master_id, KMS_BATCH_MASTER_ID_SIZE, after);
    json_t *result = json_pack("{s:I, s:I, s:s, s:s, s:I}", "epoch", (json_int_t)batch->old_epoch + 1,
                               "keys_rewrapped", (json_int_t)batch->keys_rewrapped, "new_master_id", after,
                               "old_master_id", before, "pages", (json_int_t)batch->pages);
    *ret_result = result != NULL ? json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(result);
    return *ret_result != NULL ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory for a result");
}

static enum kms_status execute_master(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                      struct kms_error *err)
{
    char reference[64];
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    KMS_TRY(tenant_of(ops, operation, &tenant, err));
    struct kms_rekey_request request = request_of(operation, &tenant, reference);
    KMS_TRY(kms_keys_rotate_master(ops->keys, &request, &batch, err));
    return result_of(&batch, ret_result, err);
}

const struct ops_operation_kind ops_rotate_master_kind = {
    .name = "rotate.master",
    .request = KMS_ACTION_ROTATE_MASTER,
    .approve = KMS_ACTION_ROTATE_APPROVE,
    .resumable = true,
    .execute = execute_master,
};

static enum kms_status tree_progress(void *context, uint64_t done, uint64_t total)
{
    return ops_operation_progress(context, done, total);
}

static enum kms_status execute_tree(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                    struct kms_error *err)
{
    char reference[64];
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    KMS_TRY(tenant_of(ops, operation, &tenant, err));
    struct kms_rekey_request request = request_of(operation, &tenant, reference);
    request.hooks.context = operation;
    KMS_TRY(kms_keys_rotate_tree(ops->keys, &request, tree_progress, &batch, err));
    return result_of(&batch, ret_result, err);
}

const struct ops_operation_kind ops_rotate_tree_kind = {
    .name = "rotate.tree",
    .request = KMS_ACTION_ROTATE_TREE,
    .approve = KMS_ACTION_ROTATE_APPROVE,
    .resumable = true,
    .execute = execute_tree,
};

/* Not resumable: a second run would make a second version. */
static enum kms_status execute_kek(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                   struct kms_error *err)
{
    struct kms_tenant_record tenant;
    struct kms_kek_record kek;
    struct kms_uuid customer;
    const char *uid = json_string_value(json_object_get(operation->parameters, "customer"));
    const char *purpose = json_string_value(json_object_get(operation->parameters, "purpose"));
    if (uid == NULL || purpose == NULL || kms_uuid_parse(uid, &customer) != KMS_OK)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the operation names no customer and purpose");
    KMS_TRY(tenant_of(ops, operation, &tenant, err));
    KMS_TRY(kms_keys_rotate_kek(ops->keys, &tenant.uuid, &customer, purpose, &kek, err));
    json_t *result = json_pack("{s:I}", "version", (json_int_t)kek.version);
    *ret_result = result != NULL ? json_dumps(result, JSON_COMPACT) : NULL;
    json_decref(result);
    return KMS_OK;
}

const struct ops_operation_kind ops_rotate_kek_kind = {
    .name = "rotate.kek",
    .request = KMS_ACTION_ROTATE_KEK,
    .approve = KMS_ACTION_ROTATE_APPROVE,
    .execute = execute_kek,
};

/* Master and tree: the tenant is all that they name. */
static enum kms_status request_rotation(struct ops_run *run, const struct ops_operation_kind *kind,
                                        const ProtobufCMessage *message, const char *tenant_id,
                                        ProtobufCMessage **ret_reply)
{
    struct kms_call *call = run->call;
    struct kms_tenant_record tenant;
    KMS_TRY(ops_check_id(call, "tenant", tenant_id));
    KMS_TRY(ops_allow(run, tenant_id, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
        KMS_TRY(ops_find_open_tenant(call, &txn, tenant_id, &tenant));
    }
    json_t *parameters = json_pack("{s:I}", "epoch", (json_int_t)tenant.epoch);
    return ops_operation_request(run, kind, tenant.id, parameters, 0, ret_reply);
}

static enum kms_status rotate_master(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__RotateMasterRequest *request = (const void *)message;
    return request_rotation(run, &ops_rotate_master_kind, message, request->tenant, ret_reply);
}

enum kms_status kms_ops_rotate_master(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_ROTATE_MASTER, true, rotate_master, request, ret_reply);
}

static enum kms_status rotate_tree(struct ops_run *run, const ProtobufCMessage *message,
                                   ProtobufCMessage **ret_reply)
{
    const Kms__V1__RotateTreeRequest *request = (const void *)message;
    return request_rotation(run, &ops_rotate_tree_kind, message, request->tenant, ret_reply);
}

enum kms_status kms_ops_rotate_tree(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                    ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_ROTATE_TREE, true, rotate_tree, request, ret_reply);
}

/* What the methods on KEKs name, checked and allowed. */
static enum kms_status allow_owner(struct ops_run *run, const char *tenant_id, const char *customer_id,
                                   const char *purpose_id)
{
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", tenant_id));
    KMS_TRY(ops_check_customer(call, customer_id));
    KMS_TRY(ops_check_id(call, "purpose", purpose_id));
    return ops_allow(run, tenant_id, purpose_id);
}

/* The same, found. */
static enum kms_status find_owner(struct ops_run *run, const char *tenant_id, const char *customer_id,
                                  const char *purpose_id, struct kms_tenant_record *ret_tenant,
                                  struct kms_uuid *ret_customer)
{
    struct kms_call *call = run->call;
    struct kms_purpose_record purpose;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_find_open_tenant(call, &txn, tenant_id, ret_tenant));
    KMS_TRY(ops_find_purpose(call, &txn, ret_tenant, purpose_id, &purpose));
    KMS_TRY(ops_find_customer(call, &txn, ret_tenant, customer_id, &customer));
    run->event.customer = customer.uuid;
    *ret_customer = customer.uuid;
    return KMS_OK;
}

static enum kms_status rotate_kek(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    const Kms__V1__RotateKekRequest *request = (const void *)message;
    struct kms_tenant_record tenant;
    struct kms_uuid customer;
    char uid[KMS_UUID_TEXT_SIZE];
    KMS_TRY(allow_owner(run, request->tenant, request->customer, request->purpose));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(find_owner(run, request->tenant, request->customer, request->purpose, &tenant, &customer));
    json_t *parameters =
        json_pack("{s:s, s:s}", "customer", kms_uuid_format(&customer, uid), "purpose", request->purpose);
    return ops_operation_request(run, &ops_rotate_kek_kind, tenant.id, parameters, 1, ret_reply);
}

enum kms_status kms_ops_rotate_kek(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                   ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_ROTATE_KEK, true, rotate_kek, request, ret_reply);
}

static enum kms_status check_version(struct kms_call *call, uint32_t version)
{
    return version > 0 ? KMS_OK
                       : kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "version: must be 1 or more");
}

static enum kms_status set_version_state(struct ops_run *run, const ProtobufCMessage *message,
                                         ProtobufCMessage **ret_reply)
{
    const Kms__V1__SetKekVersionStateRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_tenant_record tenant;
    struct kms_uuid customer;
    KMS_TRY(check_version(call, request->version));
    KMS_TRY(allow_owner(run, request->tenant, request->customer, request->purpose));
    KMS_TRY(find_owner(run, request->tenant, request->customer, request->purpose, &tenant, &customer));
    run->event.kek_version = request->version;
    const enum kms_status status = kms_keys_set_version_state(
        run->ops->keys, &tenant.uuid, &customer, request->purpose, request->version,
        request->enabled != 0 ? KMS_KEK_ENABLED : KMS_KEK_DISABLED, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "there is no version %u", request->version);
    KMS_TRY(status);
    ProtobufCMessage *reply =
        ops_message_new(call->arena, &kms__v1__set_kek_version_state_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = reply;
    return KMS_OK;
}

enum kms_status kms_ops_set_kek_version_state(void *context, struct kms_call *call,
                                              const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_KEYVERSION_UPDATE, true, set_version_state, request,
                       ret_reply);
}

/* A draft with one target. */
static enum kms_status make_job(struct ops_run *run, const Kms__V1__ShredKekVersionRequest *request,
                                const struct kms_tenant_record *tenant, struct kms_shred_job_record *ret_job)
{
    struct kms_call *call = run->call;
    struct kms_uuid customer;
    const struct ops_shred_wanted wanted = {kms_uuid_random(), request->purpose, request->reason,
                                            request->version, request->no_window != 0};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    KMS_TRY(ops_shred_new_job(run, &txn, tenant, &wanted, ret_job));
    KMS_TRY(ops_shred_add_target(run, &txn, ret_job, request->customer, &customer));
    return kms_txn_commit(&txn, &call->error);
}

static enum kms_status shred_version(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__ShredKekVersionRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_tenant_record tenant;
    struct kms_uuid customer;
    struct kms_shred_job_record job;
    char uid[KMS_UUID_TEXT_SIZE];
    KMS_TRY(check_version(call, request->version));
    KMS_TRY(ops_check_text(call, "reason", request->reason, KMS_SHRED_REASON_MAX));
    KMS_TRY(allow_owner(run, request->tenant, request->customer, request->purpose));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(find_owner(run, request->tenant, request->customer, request->purpose, &tenant, &customer));
    run->event.kek_version = request->version;
    KMS_TRY(make_job(run, request, &tenant, &job));
    return ops_shred_submit(run, kms_uuid_format(&job.uid, uid), ret_reply);
}

enum kms_status kms_ops_shred_kek_version(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_REQUEST, true, shred_version, request, ret_reply);
}

/* The next tenant whose turn it is; false at the end of the list. */
static bool next_tenant(struct kms_ops *ops, struct kms_tenant_record *ret_tenant)
{
    KMS_FREE struct kms_tenant_record *list = NULL;
    size_t count = 0;
    KMS_TXN txn = {0};
    if (kms_txn_begin(ops->store, false, &txn, NULL) != KMS_OK)
        return false;
    const char *after = ops->rotation.tenant[0] != '\0' ? ops->rotation.tenant : NULL;
    if (txn.store->ops->tenant_list(txn.txn, after, 1, &list, &count, NULL) != KMS_OK || count == 0)
        return false;
    *ret_tenant = list[0];
    return true;
}

void ops_rotation_tick(struct kms_ops *ops)
{
    enum { KEKS_AT_ONCE = 20 };
    struct ops_rotation *rotation = &ops->rotation;
    struct kms_error err = {0};
    size_t rotated = 0;
    if (ops->keys == NULL)
        return;
    if (!rotation->under_way && !next_tenant(ops, &rotation->current)) {
        rotation->tenant[0] = '\0'; /* begin again with the first one */
        return;
    }
    rotation->under_way = true;
    enum kms_status status = KMS_OK;
    if (rotation->current.state == KMS_TENANT_ACTIVE)
        status = kms_keys_rotate_due(ops->keys, &rotation->current.uuid, kms_clock_wall_ns(), KEKS_AT_ONCE,
                                     &rotation->cursor, &rotated, &err);
    if (status != KMS_OK)
        kms_log_error("rotation", "scheduled rotation of tenant %s: %s", rotation->current.id,
                      kms_error_cause(&err, status));
    if (rotated > 0)
        kms_log_info("rotation", "%zu keys of tenant %s have a new version", rotated, rotation->current.id);
    if (status == KMS_OK && rotation->cursor.purpose[0] != '\0')
        return; /* this tenant is not through */
    (void)snprintf(rotation->tenant, sizeof rotation->tenant, "%s", rotation->current.id);
    rotation->cursor = (struct kms_rotation_cursor){0};
    rotation->under_way = false;
}
