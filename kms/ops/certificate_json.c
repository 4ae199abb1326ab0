#include "ops/certificate_json.h"

#include "core/clock.h"

json_t *ops_json_hex(const uint8_t *data, size_t len)
{
    char text[2 * 64 + 1];
    KMS_ASSERT(len <= 64);
    kms_hex_encode(data, len, text);
    return json_string(text);
}

json_t *ops_json_uuid(const struct kms_uuid *uuid)
{
    char text[KMS_UUID_TEXT_SIZE];
    return json_string(kms_uuid_format(uuid, text));
}

json_t *ops_json_time(int64_t wall_ns)
{
    char text[KMS_TIME_TEXT_SIZE];
    return json_string(kms_clock_format(wall_ns, text));
}

enum kms_status ops_json_people(struct kms_txn *txn, const struct kms_uuid *operation_uid,
                                const char *requester, json_t *document, struct kms_error *err)
{
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    struct kms_approval_record *approvals = NULL;
    size_t count = 0;
    const struct kms_store_operation_ops *store = &txn->store->ops->operation;
    const enum kms_status status = store->get(txn->txn, operation_uid, &operation, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    KMS_TRY(store->approvals(txn->txn, operation_uid, &approvals, &count, err));
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "identity", approvals[i].identity,
                                                    "person", approvals[i].person, "time",
                                                    ops_json_time(approvals[i].time_ns)));
    kms_approval_list_clear(approvals, count);
    (void)json_object_set_new(document, "approvals", list);
    (void)json_object_set_new(document, "operation",
                              json_pack("{s:o, s:s, s:o}", "digest",
                                        ops_json_hex(operation.digest, sizeof operation.digest), "requester",
                                        requester, "uid", ops_json_uuid(operation_uid)));
    return KMS_OK;
}

enum kms_status ops_json_audit(struct kms_ops *ops, json_t *document, struct kms_error *err)
{
    struct kms_audit_status status;
    KMS_TRY(kms_audit_commit(ops->audit, err));
    kms_audit_status(ops->audit, &status);
    (void)json_object_set_new(
        document, "audit",
        json_pack("{s:s, s:I}", "hash", status.head_hash, "seq", (json_int_t)status.durable_seq));
    return KMS_OK;
}
