#include "backup/header.h"
#include "backup/sealer.h"
#include "core/clock.h"
#include "core/secret.h"

#include <stdlib.h>

struct kms_backup_writer {
    struct kms_backup_sealer *sealer;
    struct kms_buf records; /* of the frame that is being filled */
    struct kms_backup_end end;
    bool closed;
};

/* A new file key, wrapped by the HSM; the plain one lives no longer than this. */
static enum kms_status make_key(const struct kms_backup_keeper *keeper, uint8_t bytes[KMS_BACKUP_HEADER_SIZE],
                                struct kms_backup_sealer **ret_sealer, struct kms_error *err)
{
    KMS_SECRET key = {0};
    if (kms_secret_new(KMS_BACKUP_FILE_KEY_SIZE, &key) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY,
                        "no locked memory for the key of a backup file: raise LimitMEMLOCK");
    kms_system_random(key.data, KMS_BACKUP_FILE_KEY_SIZE);
    KMS_TRY(keeper->wrap(keeper->context, kms_slice_of(bytes, KMS_BACKUP_BOUND_SIZE), key.data,
                         bytes + KMS_BACKUP_BOUND_SIZE, err));
    return kms_backup_sealer_new(key.data, bytes, true, ret_sealer, err);
}

enum kms_status kms_backup_writer_new(const struct kms_backup_keeper *keeper,
                                      struct kms_backup_header *header, struct kms_buf *out,
                                      struct kms_backup_writer **ret_writer, struct kms_error *err)
{
    struct kms_backup_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a backup file");
    header->file = kms_uuid_random();
    const int64_t now = kms_clock_wall_ns();
    header->created_ns = header->created_ns > now ? header->created_ns : now;
    memcpy(header->key_id, keeper->key_id, KMS_BACKUP_KEY_ID_SIZE);
    writer->end.file = header->file;
    uint8_t bytes[KMS_BACKUP_HEADER_SIZE];
    kms_backup_header_encode(header, bytes);
    enum kms_status status = make_key(keeper, bytes, &writer->sealer, err);
    if (status == KMS_OK && kms_buf_append(out, bytes, sizeof bytes) != KMS_OK)
        status = kms_fail(err, KMS_NO_MEMORY, "no memory for a backup file");
    if (status != KMS_OK) {
        kms_backup_writer_free(writer);
        return status;
    }
    *ret_writer = writer;
    return KMS_OK;
}

void kms_backup_writer_free(struct kms_backup_writer *writer)
{
    if (writer == NULL)
        return;
    kms_backup_sealer_free(writer->sealer);
    kms_buf_clear(&writer->records);
    free(writer);
}

enum kms_status kms_backup_writer_add(struct kms_backup_writer *writer, uint64_t seq, int64_t time_ns,
                                      struct kms_slice payload, struct kms_error *err)
{
    KMS_ASSERT(!writer->closed);
    if (payload.len > KMS_BACKUP_RECORD_MAX)
        return kms_fail(err, KMS_TOO_LARGE, "change %llu has %zu bytes, too many for a backup",
                        (unsigned long long)seq, payload.len);
    uint8_t head[KMS_BACKUP_RECORD_HEAD];
    kms_put_be64(head, seq);
    kms_put_be64(head + 8, (uint64_t)time_ns);
    kms_put_be32(head + 16, (uint32_t)payload.len);
    if (kms_buf_reserve(&writer->records, sizeof head + payload.len) != KMS_OK ||
        kms_buf_append(&writer->records, head, sizeof head) != KMS_OK ||
        kms_buf_append(&writer->records, payload.data, payload.len) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a backup frame");
    return KMS_OK;
}

enum kms_status kms_backup_writer_raw(struct kms_backup_writer *writer, struct kms_slice bytes)
{
    return kms_buf_append(&writer->records, bytes.data, bytes.len);
}

bool kms_backup_writer_full(const struct kms_backup_writer *writer)
{
    return writer->records.len >= KMS_BACKUP_FRAME_GOOD;
}

enum kms_status kms_backup_writer_seal(struct kms_backup_writer *writer, bool last, struct kms_buf *out,
                                       struct kms_error *err)
{
    KMS_ASSERT(!writer->closed && writer->records.len <= KMS_BACKUP_FRAME_MAX);
    const size_t len = writer->records.len;
    if (kms_buf_reserve(out, KMS_BACKUP_FRAME_HEAD + len + KMS_BACKUP_TAG_SIZE) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a backup frame");
    uint8_t head[KMS_BACKUP_FRAME_HEAD];
    kms_put_be32(head, (uint32_t)len);
    head[4] = last ? 1 : 0;
    KMS_TRY(kms_backup_sealer_seal(writer->sealer, writer->records.data, len, last, writer->end.tag, err));
    if (kms_buf_append(out, head, sizeof head) != KMS_OK ||
        kms_buf_append(out, writer->records.data, len) != KMS_OK ||
        kms_buf_append(out, writer->end.tag, KMS_BACKUP_TAG_SIZE) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a backup frame");
    writer->records.len = 0;
    writer->end.frames = kms_backup_sealer_frames(writer->sealer);
    writer->closed = last;
    return KMS_OK;
}

struct kms_backup_end kms_backup_writer_end(const struct kms_backup_writer *writer)
{
    return writer->end;
}
