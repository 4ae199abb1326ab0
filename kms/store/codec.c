#include "store/codec.h"

#include <stdlib.h>

enum kms_status kms_codec_put_u8(struct kms_buf *out, unsigned value)
{
    return kms_buf_append(out, &(uint8_t){(uint8_t)value}, 1);
}

enum kms_status kms_codec_put_u32(struct kms_buf *out, uint32_t value)
{
    uint8_t bytes[4];
    kms_put_be32(bytes, value);
    return kms_buf_append(out, bytes, sizeof bytes);
}

enum kms_status kms_codec_put_u64(struct kms_buf *out, uint64_t value)
{
    uint8_t bytes[8];
    kms_put_be64(bytes, value);
    return kms_buf_append(out, bytes, sizeof bytes);
}

enum kms_status kms_codec_put_i64(struct kms_buf *out, int64_t value)
{
    return kms_codec_put_u64(out, (uint64_t)value);
}

enum kms_status kms_codec_put_text(struct kms_buf *out, const char *text)
{
    const size_t len = strlen(text);
    KMS_ASSERT(len <= UINT16_MAX);
    uint8_t bytes[2];
    kms_put_be16(bytes, (uint16_t)len);
    KMS_TRY(kms_buf_append(out, bytes, sizeof bytes));
    return kms_buf_append(out, text, len);
}

enum kms_status kms_codec_put_head(struct kms_buf *out, enum kms_change_kind kind)
{
    KMS_TRY(kms_codec_put_u8(out, KMS_CHANGELOG_VERSION));
    return kms_codec_put_u8(out, kind);
}

void kms_codec_take_bytes(struct kms_reader *reader, uint8_t *out, size_t len)
{
    const uint8_t *bytes = kms_reader_take(reader, len);
    if (bytes != NULL)
        memcpy(out, bytes, len);
}

void kms_codec_take_uuid(struct kms_reader *reader, struct kms_uuid *out)
{
    kms_codec_take_bytes(reader, out->bytes, KMS_UUID_SIZE);
}

int64_t kms_codec_take_i64(struct kms_reader *reader)
{
    return (int64_t)kms_reader_u64(reader);
}

void kms_codec_take_text(struct kms_reader *reader, char *out, size_t size)
{
    const size_t len = kms_reader_u16(reader);
    const uint8_t *bytes = kms_reader_take(reader, len);
    if (bytes == NULL)
        return;
    if (len >= size || memchr(bytes, 0, len) != NULL) {
        reader->failed = true;
        return;
    }
    memcpy(out, bytes, len);
    out[len] = '\0';
}

enum kms_status kms_codec_take_copy(struct kms_reader *reader, size_t len, size_t max, uint8_t **ret_copy)
{
    const uint8_t *bytes = len <= max ? kms_reader_take(reader, len) : NULL;
    if (bytes == NULL) {
        reader->failed = true;
        return KMS_OK;
    }
    uint8_t *copy = malloc(len + 1);
    if (copy == NULL)
        return KMS_NO_MEMORY;
    memcpy(copy, bytes, len);
    copy[len] = 0;
    *ret_copy = copy;
    return KMS_OK;
}
