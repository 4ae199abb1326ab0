#include "backup/header.h"

enum { VERSION = 1 };

static const uint8_t magic[6] = {'K', 'M', 'S', 'B', 'A', 'K'};

/* Where each member lies: the drawing in container.h. */
enum {
    AT_VERSION = 6,
    AT_KIND = 7,
    AT_KEY_ID = 8,
    AT_FILE = 24,
    AT_CREATED = 40,
    AT_SEQ = 48,
    AT_PREVIOUS = 56,
    AT_FRAMES = 72,
    AT_TAG = 80
};

void kms_backup_header_encode(const struct kms_backup_header *header, uint8_t out[KMS_BACKUP_BOUND_SIZE])
{
    memcpy(out, magic, sizeof magic);
    out[AT_VERSION] = VERSION;
    out[AT_KIND] = (uint8_t)header->kind;
    memcpy(out + AT_KEY_ID, header->key_id, KMS_BACKUP_KEY_ID_SIZE);
    memcpy(out + AT_FILE, header->file.bytes, KMS_UUID_SIZE);
    kms_put_be64(out + AT_CREATED, (uint64_t)header->created_ns);
    kms_put_be64(out + AT_SEQ, header->seq);
    memcpy(out + AT_PREVIOUS, header->previous.file.bytes, KMS_UUID_SIZE);
    kms_put_be64(out + AT_FRAMES, header->previous.frames);
    memcpy(out + AT_TAG, header->previous.tag, KMS_BACKUP_TAG_SIZE);
}

enum kms_status kms_backup_header_decode(const uint8_t bytes[KMS_BACKUP_BOUND_SIZE],
                                         struct kms_backup_header *ret_header, struct kms_error *err)
{
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return kms_fail_public(err, KMS_TAMPERED, "is no backup file of this service");
    if (bytes[AT_VERSION] > VERSION)
        return kms_fail_public(
            err, KMS_STORE_NEWER,
            "was written by a newer version of the service (format %u, this program knows up to %d)",
            bytes[AT_VERSION], VERSION);
    if (bytes[AT_VERSION] != VERSION ||
        (bytes[AT_KIND] != KMS_BACKUP_BASE && bytes[AT_KIND] != KMS_BACKUP_LOG))
        return kms_fail_public(err, KMS_TAMPERED, "its header is damaged");
    struct kms_backup_header header = {.kind = bytes[AT_KIND],
                                       .created_ns = (int64_t)kms_get_be64(bytes + AT_CREATED),
                                       .seq = kms_get_be64(bytes + AT_SEQ),
                                       .previous.frames = kms_get_be64(bytes + AT_FRAMES)};
    memcpy(header.key_id, bytes + AT_KEY_ID, KMS_BACKUP_KEY_ID_SIZE);
    memcpy(header.file.bytes, bytes + AT_FILE, KMS_UUID_SIZE);
    memcpy(header.previous.file.bytes, bytes + AT_PREVIOUS, KMS_UUID_SIZE);
    memcpy(header.previous.tag, bytes + AT_TAG, KMS_BACKUP_TAG_SIZE);
    if (header.seq > INT64_MAX || header.previous.frames > INT64_MAX)
        return kms_fail_public(err, KMS_TAMPERED, "its header is damaged");
    *ret_header = header;
    return KMS_OK;
}
