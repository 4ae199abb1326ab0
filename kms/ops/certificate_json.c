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

/* Who has approved an operation. A name that memory was short for would be missed by nobody, so it is not left out. */
static enum kms_status read_approvals(struct kms_txn *txn, const struct kms_uuid *operation,
                                      json_t **ret_list, struct kms_error *err)
{
    struct kms_approval_record *approvals = NULL;
    size_t count = 0;
    KMS_TRY(txn->store->ops->operation.approvals(txn->txn, operation, &approvals, &count, err));
    json_t *list = json_array();
    bool complete = list != NULL;
    for (size_t i = 0; i < count && complete; i++)
        complete = json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "identity", approvals[i].identity,
                                                         "person", approvals[i].person, "time",
                                                         ops_json_time(approvals[i].time_ns))) == 0;
    kms_approval_list_clear(approvals, count);
    if (!complete) {
        json_decref(list);
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the approvers in a certificate");
    }
    *ret_list = list;
    return KMS_OK;
}

enum kms_status ops_json_people(struct kms_txn *txn, const struct kms_uuid *operation_uid,
                                const char *requester, json_t *document, struct kms_error *err)
{
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    json_t *approvals = NULL;
    const enum kms_status status = txn->store->ops->operation.get(txn->txn, operation_uid, &operation, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    KMS_TRY(read_approvals(txn, operation_uid, &approvals, err));
    (void)json_object_set_new(document, "approvals", approvals);
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
