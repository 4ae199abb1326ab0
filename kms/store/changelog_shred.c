#include "store/changelog_shred.h"

#include "store/codec.h"

static enum kms_status put_uuid(struct kms_buf *out, const struct kms_uuid *uuid)
{
    return kms_buf_append(out, uuid->bytes, KMS_UUID_SIZE);
}

enum kms_status kms_changelog_shred_job(const struct kms_shred_job_record *job, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_SHRED_JOB));
    KMS_TRY(put_uuid(out, &job->uid));
    KMS_TRY(put_uuid(out, &job->tenant));
    KMS_TRY(kms_codec_put_u8(out, job->origin));
    KMS_TRY(kms_codec_put_u8(out, job->state));
    KMS_TRY(kms_codec_put_text(out, job->purpose));
    KMS_TRY(kms_codec_put_u32(out, job->version));
    KMS_TRY(kms_codec_put_text(out, job->requested_by));
    KMS_TRY(kms_codec_put_text(out, job->reason));
    KMS_TRY(kms_codec_put_i64(out, job->requested_ns));
    KMS_TRY(kms_codec_put_i64(out, job->window_seconds));
    KMS_TRY(kms_codec_put_i64(out, job->due_ns));
    KMS_TRY(put_uuid(out, &job->operation));
    return kms_buf_append(out, job->list_hash, sizeof job->list_hash);
}

void kms_changelog_take_shred_job(struct kms_reader *reader, struct kms_shred_job_record *job)
{
    kms_codec_take_uuid(reader, &job->uid);
    kms_codec_take_uuid(reader, &job->tenant);
    job->origin = kms_reader_u8(reader);
    job->state = kms_reader_u8(reader);
    kms_codec_take_text(reader, job->purpose, sizeof job->purpose);
    job->version = kms_reader_u32(reader);
    kms_codec_take_text(reader, job->requested_by, sizeof job->requested_by);
    kms_codec_take_text(reader, job->reason, sizeof job->reason);
    job->requested_ns = kms_codec_take_i64(reader);
    job->window_seconds = kms_codec_take_i64(reader);
    job->due_ns = kms_codec_take_i64(reader);
    kms_codec_take_uuid(reader, &job->operation);
    kms_codec_take_bytes(reader, job->list_hash, sizeof job->list_hash);
}

enum kms_status kms_changelog_shred_target(const struct kms_shred_target_record *target, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_SHRED_TARGET));
    KMS_TRY(put_uuid(out, &target->job));
    KMS_TRY(put_uuid(out, &target->customer));
    KMS_TRY(kms_codec_put_u8(out, target->state));
    KMS_TRY(put_uuid(out, &target->batch));
    KMS_TRY(kms_codec_put_i64(out, target->changed_ns));
    return kms_codec_put_text(out, target->reason);
}

void kms_changelog_take_shred_target(struct kms_reader *reader, struct kms_shred_target_record *target)
{
    kms_codec_take_uuid(reader, &target->job);
    kms_codec_take_uuid(reader, &target->customer);
    target->state = kms_reader_u8(reader);
    kms_codec_take_uuid(reader, &target->batch);
    target->changed_ns = kms_codec_take_i64(reader);
    kms_codec_take_text(reader, target->reason, sizeof target->reason);
}

enum kms_status kms_changelog_hold(const struct kms_hold_record *hold, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_HOLD));
    KMS_TRY(put_uuid(out, &hold->uid));
    KMS_TRY(put_uuid(out, &hold->tenant));
    KMS_TRY(put_uuid(out, &hold->customer));
    KMS_TRY(kms_codec_put_text(out, hold->reference));
    KMS_TRY(kms_codec_put_text(out, hold->reason));
    KMS_TRY(kms_codec_put_text(out, hold->placed_by));
    KMS_TRY(kms_codec_put_i64(out, hold->placed_ns));
    KMS_TRY(kms_codec_put_text(out, hold->released_by));
    return kms_codec_put_i64(out, hold->released_ns);
}

void kms_changelog_take_hold(struct kms_reader *reader, struct kms_hold_record *hold)
{
    kms_codec_take_uuid(reader, &hold->uid);
    kms_codec_take_uuid(reader, &hold->tenant);
    kms_codec_take_uuid(reader, &hold->customer);
    kms_codec_take_text(reader, hold->reference, sizeof hold->reference);
    kms_codec_take_text(reader, hold->reason, sizeof hold->reason);
    kms_codec_take_text(reader, hold->placed_by, sizeof hold->placed_by);
    hold->placed_ns = kms_codec_take_i64(reader);
    kms_codec_take_text(reader, hold->released_by, sizeof hold->released_by);
    hold->released_ns = kms_codec_take_i64(reader);
}

enum kms_status kms_changelog_certificate(const struct kms_certificate_record *certificate,
                                          struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_CERTIFICATE));
    KMS_TRY(put_uuid(out, &certificate->uid));
    KMS_TRY(put_uuid(out, &certificate->tenant));
    KMS_TRY(put_uuid(out, &certificate->batch));
    KMS_TRY(kms_codec_put_u8(out, certificate->kind));
    KMS_TRY(kms_codec_put_i64(out, certificate->created_ns));
    KMS_TRY(kms_codec_put_u32(out, (uint32_t)certificate->document_len));
    KMS_TRY(kms_buf_append(out, certificate->document, certificate->document_len));
    KMS_TRY(kms_codec_put_u8(out, (unsigned)certificate->signature_len));
    return kms_buf_append(out, certificate->signature, certificate->signature_len);
}

enum kms_status kms_changelog_take_certificate(struct kms_reader *reader,
                                               struct kms_certificate_record *certificate)
{
    kms_codec_take_uuid(reader, &certificate->uid);
    kms_codec_take_uuid(reader, &certificate->tenant);
    kms_codec_take_uuid(reader, &certificate->batch);
    certificate->kind = kms_reader_u8(reader);
    certificate->created_ns = kms_codec_take_i64(reader);
    certificate->document_len = kms_reader_u32(reader);
    KMS_TRY(
        kms_codec_take_copy(reader, certificate->document_len, KMS_CERTIFICATE_MAX, &certificate->document));
    certificate->signature_len = kms_reader_u8(reader);
    if (certificate->signature_len > sizeof certificate->signature)
        reader->failed = true;
    else
        kms_codec_take_bytes(reader, certificate->signature, certificate->signature_len);
    return KMS_OK;
}

enum kms_status kms_changelog_shred_setting(const struct kms_shred_setting_record *setting,
                                            struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_SHRED_SETTING));
    KMS_TRY(put_uuid(out, &setting->tenant));
    KMS_TRY(kms_codec_put_i64(out, setting->window_seconds));
    return kms_codec_put_u8(out, setting->shred_closed);
}

void kms_changelog_take_shred_setting(struct kms_reader *reader, struct kms_shred_setting_record *setting)
{
    kms_codec_take_uuid(reader, &setting->tenant);
    setting->window_seconds = kms_codec_take_i64(reader);
    const uint8_t closed = kms_reader_u8(reader);
    if (closed > 1)
        reader->failed = true;
    setting->shred_closed = closed == 1;
}

enum kms_status kms_changelog_retention(const struct kms_retention_record *retention, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_RETENTION));
    KMS_TRY(put_uuid(out, &retention->tenant));
    KMS_TRY(put_uuid(out, &retention->customer));
    KMS_TRY(kms_codec_put_text(out, retention->purpose));
    KMS_TRY(kms_codec_put_i64(out, retention->due_ns));
    return retention->began_ns != 0 ? kms_codec_put_i64(out, retention->began_ns) : KMS_OK;
}

void kms_changelog_take_retention(struct kms_reader *reader, struct kms_retention_record *retention)
{
    kms_codec_take_uuid(reader, &retention->tenant);
    kms_codec_take_uuid(reader, &retention->customer);
    kms_codec_take_text(reader, retention->purpose, sizeof retention->purpose);
    retention->due_ns = kms_codec_take_i64(reader);
    if (kms_reader_done(reader))
        return;
    retention->began_ns = kms_codec_take_i64(reader);
    if (retention->began_ns == 0) /* what is not known is left out */
        reader->failed = true;
}

enum kms_status kms_changelog_shred_clock(const struct kms_shred_clock_record *clock, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_SHRED_CLOCK));
    KMS_TRY(kms_codec_put_i64(out, clock->trusted_ns));
    KMS_TRY(kms_codec_put_i64(out, clock->boot_ns));
    return kms_codec_put_text(out, clock->boot_id);
}

void kms_changelog_take_shred_clock(struct kms_reader *reader, struct kms_shred_clock_record *clock)
{
    clock->trusted_ns = kms_codec_take_i64(reader);
    clock->boot_ns = kms_codec_take_i64(reader);
    kms_codec_take_text(reader, clock->boot_id, sizeof clock->boot_id);
}
