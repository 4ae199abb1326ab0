#include "store/changelog_recovery.h"

#include "store/codec.h"

enum kms_status kms_changelog_recovery_key(const struct kms_recovery_key_record *key, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_RECOVERY_KEY));
    KMS_TRY(kms_codec_put_u64(out, key->epoch));
    KMS_TRY(kms_codec_put_text(out, key->fingerprint));
    KMS_TRY(kms_codec_put_u8(out, key->state));
    KMS_TRY(kms_codec_put_i64(out, key->enrolled_ns));
    KMS_TRY(kms_codec_put_text(out, key->enrolled_by));
    KMS_TRY(kms_buf_append(out, key->enroll_operation.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_buf_append(out, key->retire_operation.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_i64(out, key->retired_ns));
    KMS_TRY(kms_codec_put_text(out, key->retired_by));
    KMS_TRY(kms_codec_put_text(out, key->statement));
    KMS_TRY(kms_codec_put_u8(out, key->object_left));
    KMS_TRY(kms_codec_put_i64(out, key->drill_ns));
    KMS_TRY(kms_codec_put_i64(out, key->drill_took_ns));
    KMS_TRY(kms_codec_put_text(out, key->drill_by));
    return kms_codec_put_u64(out, key->drill_customers);
}

enum kms_status kms_changelog_recovery_cover(const struct kms_recovery_cover_record *cover,
                                             struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_RECOVERY_COVER));
    KMS_TRY(kms_codec_put_u64(out, cover->recovery_epoch));
    KMS_TRY(kms_buf_append(out, cover->tenant.bytes, KMS_UUID_SIZE));
    return kms_codec_put_u64(out, cover->first_epoch);
}

void kms_changelog_take_recovery_key(struct kms_reader *reader, struct kms_recovery_key_record *key)
{
    key->epoch = kms_reader_u64(reader);
    kms_codec_take_text(reader, key->fingerprint, sizeof key->fingerprint);
    key->state = kms_reader_u8(reader);
    key->enrolled_ns = kms_codec_take_i64(reader);
    kms_codec_take_text(reader, key->enrolled_by, sizeof key->enrolled_by);
    kms_codec_take_uuid(reader, &key->enroll_operation);
    kms_codec_take_uuid(reader, &key->retire_operation);
    key->retired_ns = kms_codec_take_i64(reader);
    kms_codec_take_text(reader, key->retired_by, sizeof key->retired_by);
    kms_codec_take_text(reader, key->statement, sizeof key->statement);
    const uint8_t object_left = kms_reader_u8(reader);
    reader->failed |= object_left > 1; /* one encoding of each truth */
    key->object_left = object_left == 1;
    key->drill_ns = kms_codec_take_i64(reader);
    key->drill_took_ns = kms_codec_take_i64(reader);
    kms_codec_take_text(reader, key->drill_by, sizeof key->drill_by);
    key->drill_customers = kms_reader_u64(reader);
}

void kms_changelog_take_recovery_cover(struct kms_reader *reader, struct kms_recovery_cover_record *cover)
{
    cover->recovery_epoch = kms_reader_u64(reader);
    kms_codec_take_uuid(reader, &cover->tenant);
    cover->first_epoch = kms_reader_u64(reader);
}
