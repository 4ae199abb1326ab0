#include "store/changelog_operation.h"

#include "store/codec.h"

/* Bytes behind their number, for what may be longer than a text. */
static enum kms_status put_long(struct kms_buf *out, const void *data, size_t len)
{
    KMS_ASSERT(len <= KMS_OPERATION_DOCUMENT_MAX);
    KMS_TRY(kms_codec_put_u32(out, (uint32_t)len));
    return kms_buf_append(out, data, len);
}

enum kms_status kms_changelog_operation(const struct kms_operation_record *operation, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_OPERATION));
    KMS_TRY(kms_buf_append(out, operation->uuid.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_text(out, operation->kind));
    KMS_TRY(kms_codec_put_text(out, operation->tenant));
    KMS_TRY(kms_codec_put_text(out, operation->requester));
    KMS_TRY(kms_buf_append(out, operation->digest, sizeof operation->digest));
    KMS_TRY(kms_codec_put_u32(out, operation->approvals_needed));
    KMS_TRY(kms_codec_put_u64(out, operation->policy_generation));
    KMS_TRY(kms_codec_put_i64(out, operation->created_ns));
    KMS_TRY(kms_codec_put_i64(out, operation->expires_ns));
    return put_long(out, operation->document, operation->document_len);
}

enum kms_status kms_changelog_operation_state(const struct kms_operation_record *operation,
                                              struct kms_buf *out)
{
    const char *result = operation->result != NULL ? operation->result : "";
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_OPERATION_STATE));
    KMS_TRY(kms_buf_append(out, operation->uuid.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_u8(out, operation->state));
    KMS_TRY(kms_codec_put_u32(out, operation->attempts));
    KMS_TRY(kms_codec_put_u64(out, operation->done));
    KMS_TRY(kms_codec_put_u64(out, operation->total));
    KMS_TRY(kms_codec_put_i64(out, operation->not_before_ns));
    KMS_TRY(kms_codec_put_i64(out, operation->started_ns));
    KMS_TRY(kms_codec_put_i64(out, operation->finished_ns));
    KMS_TRY(kms_codec_put_text(out, operation->ended_by));
    KMS_TRY(kms_codec_put_text(out, operation->reason));
    return put_long(out, result, strlen(result));
}

enum kms_status kms_changelog_approval(const struct kms_approval_record *approval, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_APPROVAL));
    KMS_TRY(kms_buf_append(out, approval->operation.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_text(out, approval->identity));
    KMS_TRY(kms_codec_put_text(out, approval->person));
    KMS_TRY(put_long(out, approval->certificate, strlen(approval->certificate)));
    KMS_TRY(put_long(out, approval->signature, approval->signature_len));
    return kms_codec_put_i64(out, approval->time_ns);
}

enum kms_status kms_changelog_operation_removed(const struct kms_uuid *uuid, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_OPERATION_REMOVED));
    return kms_buf_append(out, uuid->bytes, KMS_UUID_SIZE);
}

/* Bytes behind their number; with `text` a NUL inside fails the reader. */
static enum kms_status take_long(struct kms_reader *reader, bool text, size_t max, uint8_t **ret_copy,
                                 size_t *ret_len)
{
    const size_t len = kms_reader_u32(reader);
    KMS_TRY(kms_codec_take_copy(reader, len, max, ret_copy));
    if (*ret_copy != NULL && text && memchr(*ret_copy, 0, len) != NULL)
        reader->failed = true;
    *ret_len = len;
    return KMS_OK;
}

enum kms_status kms_changelog_take_operation(struct kms_reader *reader,
                                             struct kms_operation_record *operation)
{
    kms_codec_take_uuid(reader, &operation->uuid);
    kms_codec_take_text(reader, operation->kind, sizeof operation->kind);
    kms_codec_take_text(reader, operation->tenant, sizeof operation->tenant);
    kms_codec_take_text(reader, operation->requester, sizeof operation->requester);
    kms_codec_take_bytes(reader, operation->digest, sizeof operation->digest);
    operation->approvals_needed = kms_reader_u32(reader);
    operation->policy_generation = kms_reader_u64(reader);
    operation->created_ns = kms_codec_take_i64(reader);
    operation->expires_ns = kms_codec_take_i64(reader);
    operation->state = KMS_OPERATION_PENDING;
    return take_long(reader, false, KMS_OPERATION_DOCUMENT_MAX, &operation->document,
                     &operation->document_len);
}

enum kms_status kms_changelog_take_operation_state(struct kms_reader *reader,
                                                   struct kms_operation_record *operation)
{
    kms_codec_take_uuid(reader, &operation->uuid);
    operation->state = kms_reader_u8(reader);
    operation->attempts = kms_reader_u32(reader);
    operation->done = kms_reader_u64(reader);
    operation->total = kms_reader_u64(reader);
    operation->not_before_ns = kms_codec_take_i64(reader);
    operation->started_ns = kms_codec_take_i64(reader);
    operation->finished_ns = kms_codec_take_i64(reader);
    kms_codec_take_text(reader, operation->ended_by, sizeof operation->ended_by);
    kms_codec_take_text(reader, operation->reason, sizeof operation->reason);
    uint8_t *result = NULL;
    size_t len = 0;
    KMS_TRY(take_long(reader, true, KMS_OPERATION_RESULT_MAX, &result, &len));
    operation->result = (char *)result;
    return KMS_OK;
}

enum kms_status kms_changelog_take_approval(struct kms_reader *reader, struct kms_approval_record *approval)
{
    kms_codec_take_uuid(reader, &approval->operation);
    kms_codec_take_text(reader, approval->identity, sizeof approval->identity);
    kms_codec_take_text(reader, approval->person, sizeof approval->person);
    uint8_t *certificate = NULL;
    size_t len = 0;
    KMS_TRY(take_long(reader, true, KMS_OPERATION_CERTIFICATE_MAX, &certificate, &len));
    approval->certificate = (char *)certificate;
    KMS_TRY(take_long(reader, false, KMS_OPERATION_SIGNATURE_MAX, &approval->signature,
                      &approval->signature_len));
    approval->time_ns = kms_codec_take_i64(reader);
    return KMS_OK;
}
