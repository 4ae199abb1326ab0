#include "backup/header.h"
#include "backup/sealer.h"
#include "core/secret.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct kms_backup_reader {
    int descriptor; /* borrowed */
    struct kms_backup_sealer *sealer;
    struct kms_backup_place place;
    struct kms_buf frame;      /* room for one frame */
    struct kms_reader records; /* what is left of it */
};

/* Up to `len` bytes from an offset; fewer only at the end of the file. */
static enum kms_status read_at(int descriptor, uint64_t offset, uint8_t *out, size_t len, size_t *ret_len,
                               struct kms_error *err)
{
    size_t done = 0;
    while (done < len) {
        const ssize_t got = pread(descriptor, out + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kms_fail(err, KMS_IO, "a backup file cannot be read: %s", strerror(errno));
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_len = done;
    return KMS_OK;
}

/* The file key out of the HSM, for as long as it takes to set the cipher up. */
static enum kms_status open_key(const struct kms_backup_keeper *keeper,
                                const uint8_t bytes[KMS_BACKUP_HEADER_SIZE],
                                struct kms_backup_sealer **ret_sealer, struct kms_error *err)
{
    KMS_SECRET key = {0};
    if (kms_secret_new(KMS_BACKUP_FILE_KEY_SIZE, &key) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY,
                        "no locked memory for the key of a backup file: raise LimitMEMLOCK");
    KMS_TRY(keeper->unwrap(keeper->context, kms_slice_of(bytes, KMS_BACKUP_BOUND_SIZE),
                           bytes + KMS_BACKUP_BOUND_SIZE, key.data, err));
    return kms_backup_sealer_new(key.data, bytes, false, ret_sealer, err);
}

/* The header and what follows from it. */
static enum kms_status open_header(const struct kms_backup_keeper *keeper, struct kms_backup_reader *reader,
                                   struct kms_error *err)
{
    uint8_t bytes[KMS_BACKUP_HEADER_SIZE];
    size_t len = 0;
    KMS_TRY(read_at(reader->descriptor, 0, bytes, sizeof bytes, &len, err));
    if (len < sizeof bytes)
        return kms_fail_public(err, KMS_OUT_OF_RANGE, "ends within its header");
    KMS_TRY(kms_backup_header_decode(bytes, &reader->place.header, err));
    if (memcmp(reader->place.header.key_id, keeper->key_id, KMS_BACKUP_KEY_ID_SIZE) != 0)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "is of another deployment: this HSM does not hold its backup key");
    KMS_TRY(open_key(keeper, bytes, &reader->sealer, err));
    reader->place.end.file = reader->place.header.file;
    reader->place.offset = sizeof bytes;
    return KMS_OK;
}

enum kms_status kms_backup_reader_new(const struct kms_backup_keeper *keeper, int descriptor,
                                      struct kms_backup_reader **ret_reader, struct kms_error *err)
{
    struct kms_backup_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to read a backup file");
    reader->descriptor = descriptor;
    const enum kms_status status = open_header(keeper, reader, err);
    if (status != KMS_OK) {
        kms_backup_reader_free(reader);
        return status;
    }
    *ret_reader = reader;
    return KMS_OK;
}

void kms_backup_reader_free(struct kms_backup_reader *reader)
{
    if (reader == NULL)
        return;
    kms_backup_sealer_free(reader->sealer);
    kms_buf_clear(&reader->frame);
    free(reader);
}

const struct kms_backup_place *kms_backup_reader_place(const struct kms_backup_reader *reader)
{
    return &reader->place;
}

/* A file that was ended must end there. */
static enum kms_status check_end(struct kms_backup_reader *reader, struct kms_error *err)
{
    uint8_t more;
    size_t len = 0;
    KMS_TRY(read_at(reader->descriptor, reader->place.offset, &more, 1, &len, err));
    return len == 0 ? KMS_NOT_FOUND
                    : kms_fail_public(err, KMS_TAMPERED, "something stands behind its last frame");
}

/* Ciphertext and tag of the next frame into the buffer. */
static enum kms_status load_frame(struct kms_backup_reader *reader, size_t *ret_len, bool *ret_last,
                                  struct kms_error *err)
{
    uint8_t head[KMS_BACKUP_FRAME_HEAD];
    size_t got = 0;
    KMS_TRY(read_at(reader->descriptor, reader->place.offset, head, sizeof head, &got, err));
    if (got == 0)
        return KMS_NOT_FOUND;
    const uint32_t len = kms_get_be32(head);
    if (got == sizeof head && (len > KMS_BACKUP_FRAME_MAX || head[4] > 1))
        return kms_fail_public(err, KMS_TAMPERED, "frame %llu has a damaged head",
                               (unsigned long long)reader->place.end.frames);
    const size_t wanted = (size_t)len + KMS_BACKUP_TAG_SIZE;
    reader->frame.len = 0;
    if (got == sizeof head) {
        if (kms_buf_reserve(&reader->frame, wanted) != KMS_OK)
            return kms_fail(err, KMS_NO_MEMORY, "no memory to read a backup file");
        KMS_TRY(read_at(reader->descriptor, reader->place.offset + sizeof head, reader->frame.data, wanted,
                        &got, err));
    }
    if (got < wanted || reader->frame.data == NULL)
        return kms_fail_public(err, KMS_OUT_OF_RANGE, "ends within frame %llu",
                               (unsigned long long)reader->place.end.frames);
    *ret_len = len;
    *ret_last = head[4] == 1;
    return KMS_OK;
}

enum kms_status kms_backup_reader_frame(struct kms_backup_reader *reader, struct kms_error *err)
{
    reader->records = (struct kms_reader){0};
    if (reader->place.closed)
        return check_end(reader, err);
    size_t len = 0;
    bool last = false;
    KMS_TRY(load_frame(reader, &len, &last, err));
    uint8_t tag[KMS_BACKUP_TAG_SIZE];
    memcpy(tag, reader->frame.data + len, sizeof tag);
    KMS_TRY(kms_backup_sealer_open(reader->sealer, reader->frame.data, len, last, tag, err));
    memcpy(reader->place.end.tag, tag, sizeof tag);
    reader->place.end.frames++;
    reader->place.offset += KMS_BACKUP_FRAME_HEAD + len + KMS_BACKUP_TAG_SIZE;
    reader->place.closed = last;
    reader->records = kms_reader_of(kms_slice_of(reader->frame.data, len));
    return KMS_OK;
}

enum kms_status kms_backup_reader_record(struct kms_backup_reader *reader,
                                         struct kms_backup_record *ret_record, struct kms_error *err)
{
    struct kms_reader *records = &reader->records;
    if (records->left == 0)
        return KMS_NOT_FOUND;
    struct kms_backup_record record = {.seq = kms_reader_u64(records),
                                       .time_ns = (int64_t)kms_reader_u64(records)};
    const size_t len = kms_reader_u32(records);
    record.payload = kms_slice_of(kms_reader_take(records, len), len);
    if (records->failed)
        return kms_fail_public(err, KMS_TAMPERED, "a record does not fit into its frame");
    *ret_record = record;
    return KMS_OK;
}
