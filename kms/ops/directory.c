#include "ops/directory.h"

#include "core/clock.h"

#include <openssl/evp.h>
#include <stdio.h>

enum kms_status ops_find_tenant(struct kms_call *call, struct kms_txn *txn, const char *id,
                                struct kms_tenant_record *ret_tenant)
{
    const enum kms_status status = txn->store->ops->tenant_by_id(txn->txn, id, ret_tenant, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "tenant '%s' does not exist", id);
    return status;
}

enum kms_status ops_find_open_tenant(struct kms_call *call, struct kms_txn *txn, const char *id,
                                     struct kms_tenant_record *ret_tenant)
{
    KMS_TRY(ops_find_tenant(call, txn, id, ret_tenant));
    if (ret_tenant->state != KMS_TENANT_ACTIVE)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "tenant '%s' is closed", id);
    return KMS_OK;
}

enum kms_status ops_find_purpose(struct kms_call *call, struct kms_txn *txn,
                                 const struct kms_tenant_record *tenant, const char *id,
                                 struct kms_purpose_record *ret_purpose)
{
    const enum kms_status status =
        txn->store->ops->purpose_get(txn->txn, &tenant->uuid, id, ret_purpose, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "purpose '%s' of tenant '%s' does not exist", id,
                               tenant->id);
    return status;
}

enum kms_status ops_find_customer(struct kms_call *call, struct kms_txn *txn,
                                  const struct kms_tenant_record *tenant, const char *id,
                                  struct kms_customer_record *ret_customer)
{
    const enum kms_status status =
        txn->store->ops->customer_by_id(txn->txn, &tenant->uuid, id, ret_customer, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "customer '%s' of tenant '%s' does not exist", id,
                               tenant->id);
    return status;
}

enum kms_status ops_refuse_shredded(struct ops_run *run, const struct kms_uuid *tenant, const char *id)
{
    bool shredded = false;
    KMS_TRY(kms_keys_shredded_ids(run->ops->keys, tenant, &id, 1, &shredded, &run->call->error));
    if (shredded)
        return kms_fail_public(
            &run->call->error, KMS_FAILED_PRECONDITION,
            "a customer of this id was shredded; set recreate_shredded if it shall be used "
            "again, for a customer with a new UUID");
    return KMS_OK;
}

enum kms_status ops_pack(struct kms_call *call, const ProtobufCMessage *message, struct kms_slice *ret_bytes)
{
    const size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = kms_arena_alloc(call->arena, size);
    if (bytes == NULL)
        return KMS_NO_MEMORY;
    *ret_bytes = kms_slice_of(bytes, protobuf_c_message_pack(message, bytes));
    return KMS_OK;
}

enum kms_status ops_request_used(struct kms_error *err)
{
    return kms_fail_public(err, KMS_ALREADY_EXISTS,
                           "request_id: was used for another request before; choose a new one");
}

enum kms_status ops_request_begin(struct ops_run *run, struct kms_txn *txn, const char *request_id,
                                  const ProtobufCMessage *request, struct kms_request_record *ret_record,
                                  bool *ret_done)
{
    struct kms_call *call = run->call;
    *ret_record = (struct kms_request_record){.created_ns = kms_clock_wall_ns()};
    *ret_done = false;
    if (request_id[0] == '\0')
        return KMS_OK;
    (void)snprintf(ret_record->request_id, sizeof ret_record->request_id, "%s", request_id);
    (void)snprintf(ret_record->identity, sizeof ret_record->identity, "%s", call->identity->name);
    struct kms_slice packed;
    KMS_TRY(ops_pack(call, request, &packed));
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (EVP_Q_digest(NULL, "SHA256", NULL, packed.data, packed.len, digest, NULL) != 1)
        return KMS_INTERNAL;
    memcpy(ret_record->request_hash, digest, sizeof ret_record->request_hash);

    struct kms_request_record before;
    const enum kms_status status = txn->store->ops->request_get(txn->txn, ret_record->request_id,
                                                                ret_record->identity, &before, &call->error);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    if (memcmp(before.request_hash, ret_record->request_hash, sizeof before.request_hash) != 0)
        return ops_request_used(&call->error);
    *ret_done = true;
    return KMS_OK;
}

enum kms_status ops_request_uuid(const struct kms_request_record *record, const char *what,
                                 struct kms_uuid *ret_uuid)
{
    if (record->request_id[0] == '\0') {
        *ret_uuid = kms_uuid_random();
        return KMS_OK;
    }
    struct kms_uuid request;
    uint8_t digest[EVP_MAX_MD_SIZE];
    KMS_CLEANUP(kms_buf_clear) struct kms_buf name = {0};
    KMS_TRY(kms_uuid_parse(record->request_id, &request)); /* however it was written */
    KMS_TRY(kms_buf_printf(&name, "%s\n%s\n", what, record->identity));
    KMS_TRY(kms_buf_append(&name, request.bytes, sizeof request.bytes));
    if (EVP_Q_digest(NULL, "SHA256", NULL, name.data, name.len, digest, NULL) != 1)
        return KMS_NO_MEMORY;
    memcpy(ret_uuid->bytes, digest, sizeof ret_uuid->bytes);
    ret_uuid->bytes[6] = (uint8_t)((ret_uuid->bytes[6] & 0x0f) | 0x80);
    ret_uuid->bytes[8] = (uint8_t)((ret_uuid->bytes[8] & 0x3f) | 0x80);
    return KMS_OK;
}

enum kms_status ops_request_end(struct kms_call *call, struct kms_txn *txn,
                                const struct kms_request_record *record)
{
    if (record->request_id[0] == '\0')
        return KMS_OK;
    return txn->store->ops->request_put(txn->txn, record, &call->error);
}
