#include "store/changelog_policy.h"

#include "store/codec.h"

enum kms_status kms_changelog_policy(const struct kms_policy_record *policy, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_POLICY));
    KMS_TRY(kms_codec_put_u64(out, policy->version));
    KMS_TRY(kms_buf_append(out, policy->sha256, sizeof policy->sha256));
    KMS_TRY(kms_codec_put_text(out, policy->identity));
    KMS_TRY(kms_codec_put_text(out, policy->operation));
    KMS_TRY(kms_codec_put_text(out, policy->comment));
    KMS_TRY(kms_codec_put_i64(out, policy->created_ns));
    KMS_TRY(kms_codec_put_u32(out, (uint32_t)policy->document_len));
    return kms_buf_append(out, policy->document, policy->document_len);
}

/* What names a freeze. */
static enum kms_status put_names(const struct kms_freeze_record *freeze, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_u8(out, freeze->scope));
    KMS_TRY(kms_codec_put_text(out, freeze->tenant));
    return kms_codec_put_text(out, freeze->name);
}

enum kms_status kms_changelog_freeze(const struct kms_freeze_record *freeze, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_FREEZE));
    KMS_TRY(put_names(freeze, out));
    KMS_TRY(kms_codec_put_text(out, freeze->reason));
    KMS_TRY(kms_codec_put_text(out, freeze->identity));
    return kms_codec_put_i64(out, freeze->created_ns);
}

enum kms_status kms_changelog_unfreeze(const struct kms_freeze_record *freeze, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_UNFREEZE));
    return put_names(freeze, out);
}

enum kms_status kms_changelog_take_policy(struct kms_reader *reader, struct kms_policy_record *policy)
{
    policy->version = kms_reader_u64(reader);
    kms_codec_take_bytes(reader, policy->sha256, sizeof policy->sha256);
    kms_codec_take_text(reader, policy->identity, sizeof policy->identity);
    kms_codec_take_text(reader, policy->operation, sizeof policy->operation);
    kms_codec_take_text(reader, policy->comment, sizeof policy->comment);
    policy->created_ns = kms_codec_take_i64(reader);
    policy->document_len = kms_reader_u32(reader);
    return kms_codec_take_copy(reader, policy->document_len, KMS_POLICY_DOCUMENT_MAX, &policy->document);
}

void kms_changelog_take_unfreeze(struct kms_reader *reader, struct kms_freeze_record *freeze)
{
    freeze->scope = kms_reader_u8(reader);
    kms_codec_take_text(reader, freeze->tenant, sizeof freeze->tenant);
    kms_codec_take_text(reader, freeze->name, sizeof freeze->name);
}

void kms_changelog_take_freeze(struct kms_reader *reader, struct kms_freeze_record *freeze)
{
    kms_changelog_take_unfreeze(reader, freeze);
    kms_codec_take_text(reader, freeze->reason, sizeof freeze->reason);
    kms_codec_take_text(reader, freeze->identity, sizeof freeze->identity);
    freeze->created_ns = kms_codec_take_i64(reader);
}
