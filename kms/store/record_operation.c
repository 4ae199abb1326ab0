/* What every stored operation and approval must satisfy. */
#include "store/record.h"

#include <stdlib.h>

static const char *const state_names[] = {
    [0] = "UNKNOWN",
    [KMS_OPERATION_PENDING] = "PENDING",
    [KMS_OPERATION_APPROVED] = "APPROVED",
    [KMS_OPERATION_RUNNING] = "RUNNING",
    [KMS_OPERATION_SUCCEEDED] = "SUCCEEDED",
    [KMS_OPERATION_FAILED] = "FAILED",
    [KMS_OPERATION_REJECTED] = "REJECTED",
    [KMS_OPERATION_CANCELLED] = "CANCELLED",
    [KMS_OPERATION_EXPIRED] = "EXPIRED",
};

const char *kms_operation_state_name(enum kms_operation_state state)
{
    return state <= KMS_OPERATION_EXPIRED ? state_names[state] : state_names[0];
}

const char *kms_operation_request_problem(const struct kms_operation_record *operation)
{
    if (!kms_record_text_fits(operation->kind, sizeof operation->kind, 1))
        return "operation kind: 1..63 bytes of printable UTF-8";
    if (!kms_record_text_fits(operation->tenant, sizeof operation->tenant, 0))
        return "operation tenant: at most 63 bytes of printable UTF-8";
    if (!kms_record_text_fits(operation->requester, sizeof operation->requester, 1))
        return "operation requester: 1..256 bytes of printable UTF-8";
    if (operation->approvals_needed > KMS_OPERATION_APPROVALS_MAX)
        return "operation approvals: at most 16";
    if (operation->policy_generation > INT64_MAX)
        return "operation policy generation: at most 2^63-1";
    if (operation->document == NULL || operation->document_len == 0 ||
        operation->document_len > KMS_OPERATION_DOCUMENT_MAX)
        return "operation document: 1..1,048,576 bytes";
    return NULL;
}

const char *kms_operation_progress_problem(const struct kms_operation_record *operation)
{
    if (operation->state < KMS_OPERATION_PENDING || operation->state > KMS_OPERATION_EXPIRED)
        return "operation state: unknown";
    if (operation->done > INT64_MAX || operation->total > INT64_MAX)
        return "operation progress: at most 2^63-1";
    if (!kms_record_text_fits(operation->ended_by, sizeof operation->ended_by, 0))
        return "operation ended by: at most 256 bytes of printable UTF-8";
    if (!kms_record_text_fits(operation->reason, sizeof operation->reason, 0))
        return "operation reason: at most 320 bytes of printable UTF-8";
    if (operation->result != NULL) {
        const size_t len = strnlen(operation->result, (size_t)KMS_OPERATION_RESULT_MAX + 1);
        if (len > KMS_OPERATION_RESULT_MAX || !kms_utf8_valid(operation->result, len))
            return "operation result: at most 256 KiB of UTF-8";
    }
    return NULL;
}

const char *kms_approval_problem(const struct kms_approval_record *approval)
{
    if (!kms_record_text_fits(approval->identity, sizeof approval->identity, 1) ||
        !kms_record_text_fits(approval->person, sizeof approval->person, 1))
        return "approval identity, person: 1..256 bytes of printable UTF-8";
    const size_t len = approval->certificate == NULL
                           ? 0
                           : strnlen(approval->certificate, (size_t)KMS_OPERATION_CERTIFICATE_MAX + 1);
    if (len == 0 || len > KMS_OPERATION_CERTIFICATE_MAX || !kms_utf8_valid(approval->certificate, len))
        return "approval certificate: 1..65,536 bytes of text";
    if (approval->signature == NULL || approval->signature_len == 0 ||
        approval->signature_len > KMS_OPERATION_SIGNATURE_MAX)
        return "approval signature: 1..1,024 bytes";
    return NULL;
}

void kms_operation_record_clear(struct kms_operation_record *operation)
{
    free(operation->document);
    free(operation->result);
    *operation = (struct kms_operation_record){0};
}

void kms_approval_record_clear(struct kms_approval_record *approval)
{
    free(approval->certificate);
    free(approval->signature);
    *approval = (struct kms_approval_record){0};
}

void kms_approval_list_clear(struct kms_approval_record *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        kms_approval_record_clear(&list[i]);
    free(list);
}
