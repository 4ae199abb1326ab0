#include "store/changelog_rekey.h"

#include "store/codec.h"
#include "store/record.h"

#include <stdlib.h>

/* What becomes of a batch: the part that is replaced. */
static enum kms_status put_progress(const struct kms_batch_record *batch, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_u8(out, batch->state));
    KMS_TRY(kms_codec_put_u64(out, batch->pages));
    KMS_TRY(kms_codec_put_u64(out, batch->keys_rewrapped));
    KMS_TRY(kms_codec_put_u64(out, batch->keys_shredded));
    KMS_TRY(kms_codec_put_u64(out, batch->customers));
    KMS_TRY(kms_buf_append(out, batch->pages_digest, sizeof batch->pages_digest));
    KMS_TRY(kms_codec_put_i64(out, batch->committed_ns));
    return kms_codec_put_i64(out, batch->sealed_ns);
}

enum kms_status kms_changelog_batch(const struct kms_batch_record *batch, struct kms_buf *out)
{
    KMS_ASSERT(batch->document_len <= KMS_BATCH_DOCUMENT_MAX);
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_BATCH));
    KMS_TRY(kms_buf_append(out, batch->uuid.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_buf_append(out, batch->tenant.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_u8(out, batch->kind));
    KMS_TRY(kms_codec_put_text(out, batch->reference));
    KMS_TRY(kms_codec_put_u64(out, batch->old_epoch));
    KMS_TRY(kms_buf_append(out, batch->old_master_id, sizeof batch->old_master_id));
    KMS_TRY(kms_buf_append(out, batch->new_master_id, sizeof batch->new_master_id));
    KMS_TRY(kms_codec_put_i64(out, batch->created_ns));
    KMS_TRY(kms_codec_put_u32(out, (uint32_t)batch->document_len));
    KMS_TRY(kms_buf_append(out, batch->document, batch->document_len));
    KMS_TRY(kms_codec_put_u8(out, (unsigned)batch->signature_len));
    KMS_TRY(kms_buf_append(out, batch->signature, batch->signature_len));
    return put_progress(batch, out);
}

enum kms_status kms_changelog_batch_state(const struct kms_batch_record *batch, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_BATCH_STATE));
    KMS_TRY(kms_buf_append(out, batch->uuid.bytes, KMS_UUID_SIZE));
    return put_progress(batch, out);
}

enum kms_status kms_changelog_tombstone(const struct kms_tombstone_record *tombstone, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_TOMBSTONE));
    KMS_TRY(kms_buf_append(out, tombstone->tenant.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_buf_append(out, tombstone->customer.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_text(out, tombstone->purpose));
    KMS_TRY(kms_codec_put_u32(out, tombstone->version));
    KMS_TRY(kms_buf_append(out, tombstone->id_mac, sizeof tombstone->id_mac));
    KMS_TRY(kms_codec_put_u64(out, tombstone->epoch));
    KMS_TRY(kms_buf_append(out, tombstone->batch.bytes, KMS_UUID_SIZE));
    return kms_codec_put_i64(out, tombstone->created_ns);
}

enum kms_status kms_changelog_slot(enum kms_change_kind kind, const struct kms_change_slot *slot,
                                   struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, kind));
    KMS_TRY(kms_buf_append(out, slot->tenant.bytes, KMS_UUID_SIZE));
    return kms_codec_put_u64(out, slot->slot);
}

enum kms_status kms_changelog_kek_shredded(const uint8_t kek_id[KMS_KEK_ID_SIZE], struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_KEK_SHREDDED));
    return kms_buf_append(out, kek_id, KMS_KEK_ID_SIZE);
}

enum kms_status kms_changelog_customer_removed(const struct kms_uuid *customer, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_CUSTOMER_REMOVED));
    return kms_buf_append(out, customer->bytes, KMS_UUID_SIZE);
}

enum kms_status kms_changelog_rewrapped(const struct kms_change_rewrapped *rewrapped, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_REWRAPPED));
    KMS_TRY(kms_buf_append(out, rewrapped->kek_id, sizeof rewrapped->kek_id));
    return kms_codec_put_u64(out, rewrapped->rewrapped);
}

enum kms_status kms_changelog_rekey(const struct kms_change *change, struct kms_buf *out)
{
    switch (change->kind) {
    case KMS_CHANGE_BATCH:
        return kms_changelog_batch(&change->batch, out);
    case KMS_CHANGE_BATCH_STATE:
        return kms_changelog_batch_state(&change->batch, out);
    case KMS_CHANGE_TOMBSTONE:
        return kms_changelog_tombstone(&change->tombstone, out);
    case KMS_CHANGE_KEK_SHREDDED:
        return kms_changelog_kek_shredded(change->kek_shredded, out);
    case KMS_CHANGE_CUSTOMER_REMOVED:
        return kms_changelog_customer_removed(&change->customer_removed, out);
    case KMS_CHANGE_REWRAPPED:
        return kms_changelog_rewrapped(&change->rewrapped, out);
    default:
        return kms_changelog_slot(change->kind, &change->slot, out);
    }
}

static void take_progress(struct kms_reader *reader, struct kms_batch_record *batch)
{
    batch->state = kms_reader_u8(reader);
    batch->pages = kms_reader_u64(reader);
    batch->keys_rewrapped = kms_reader_u64(reader);
    batch->keys_shredded = kms_reader_u64(reader);
    batch->customers = kms_reader_u64(reader);
    kms_codec_take_bytes(reader, batch->pages_digest, sizeof batch->pages_digest);
    batch->committed_ns = kms_codec_take_i64(reader);
    batch->sealed_ns = kms_codec_take_i64(reader);
}

static enum kms_status take_batch(struct kms_reader *reader, struct kms_batch_record *batch)
{
    kms_codec_take_uuid(reader, &batch->uuid);
    kms_codec_take_uuid(reader, &batch->tenant);
    batch->kind = kms_reader_u8(reader);
    kms_codec_take_text(reader, batch->reference, sizeof batch->reference);
    batch->old_epoch = kms_reader_u64(reader);
    kms_codec_take_bytes(reader, batch->old_master_id, sizeof batch->old_master_id);
    kms_codec_take_bytes(reader, batch->new_master_id, sizeof batch->new_master_id);
    batch->created_ns = kms_codec_take_i64(reader);
    batch->document_len = kms_reader_u32(reader);
    KMS_TRY(kms_codec_take_copy(reader, batch->document_len, KMS_BATCH_DOCUMENT_MAX, &batch->document));
    batch->signature_len = kms_reader_u8(reader);
    if (batch->signature_len > sizeof batch->signature)
        reader->failed = true;
    else
        kms_codec_take_bytes(reader, batch->signature, batch->signature_len);
    take_progress(reader, batch);
    return KMS_OK;
}

static void take_tombstone(struct kms_reader *reader, struct kms_tombstone_record *tombstone)
{
    kms_codec_take_uuid(reader, &tombstone->tenant);
    kms_codec_take_uuid(reader, &tombstone->customer);
    kms_codec_take_text(reader, tombstone->purpose, sizeof tombstone->purpose);
    tombstone->version = kms_reader_u32(reader);
    kms_codec_take_bytes(reader, tombstone->id_mac, sizeof tombstone->id_mac);
    tombstone->epoch = kms_reader_u64(reader);
    kms_codec_take_uuid(reader, &tombstone->batch);
    tombstone->created_ns = kms_codec_take_i64(reader);
}

enum kms_status kms_changelog_take_rekey(struct kms_reader *reader, struct kms_change *change)
{
    switch (change->kind) {
    case KMS_CHANGE_BATCH:
        return take_batch(reader, &change->batch);
    case KMS_CHANGE_BATCH_STATE:
        kms_codec_take_uuid(reader, &change->batch.uuid);
        take_progress(reader, &change->batch);
        return KMS_OK;
    case KMS_CHANGE_TOMBSTONE:
        take_tombstone(reader, &change->tombstone);
        return KMS_OK;
    case KMS_CHANGE_KEK_SHREDDED:
        kms_codec_take_bytes(reader, change->kek_shredded, sizeof change->kek_shredded);
        return KMS_OK;
    case KMS_CHANGE_CUSTOMER_REMOVED:
        kms_codec_take_uuid(reader, &change->customer_removed);
        return KMS_OK;
    case KMS_CHANGE_REWRAPPED:
        kms_codec_take_bytes(reader, change->rewrapped.kek_id, sizeof change->rewrapped.kek_id);
        change->rewrapped.rewrapped = kms_reader_u64(reader);
        return KMS_OK;
    default:
        kms_codec_take_uuid(reader, &change->slot.tenant);
        change->slot.slot = kms_reader_u64(reader);
        return KMS_OK;
    }
}

const char *kms_changelog_rekey_problem(const struct kms_change *change)
{
    switch (change->kind) {
    case KMS_CHANGE_BATCH:
        return kms_batch_problem(&change->batch);
    case KMS_CHANGE_BATCH_STATE:
        return kms_batch_progress_problem(&change->batch);
    case KMS_CHANGE_TOMBSTONE:
        return kms_tombstone_problem(&change->tombstone);
    case KMS_CHANGE_KEK_SHREDDED:
    case KMS_CHANGE_CUSTOMER_REMOVED:
        return NULL;
    case KMS_CHANGE_REWRAPPED:
        return change->rewrapped.rewrapped > KMS_STORE_WRAPS_MAX ? "rewrapped: at most 2^62" : NULL;
    default:
        return change->slot.slot > INT64_MAX ? "slot: at most 2^63-1" : NULL;
    }
}
