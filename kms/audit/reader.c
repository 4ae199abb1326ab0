#include "audit/reader.h"

#include "audit/record.h"
#include "core/cleanup.h"

#include <errno.h>

enum { BUFFER_SIZE = 2 * KMS_AUDIT_LINE_MAX };

struct kms_audit_reader {
    int fd;
    bool at_end;       /* of the file: nothing more to read */
    bool skipping;     /* the rest of a line that was too long */
    uint64_t base;     /* file offset of buffer[0] */
    size_t start, end; /* unread part of the buffer */
    uint64_t line;     /* number of the next line, from 1 */
    uint8_t buffer[BUFFER_SIZE];
};

enum kms_status kms_audit_reader_new(struct kms_audit_reader **ret_reader)
{
    struct kms_audit_reader *reader = malloc(sizeof *reader);
    if (reader == NULL)
        return KMS_NO_MEMORY;
    kms_audit_reader_start(reader, -1);
    *ret_reader = reader;
    return KMS_OK;
}

void kms_audit_reader_free(struct kms_audit_reader *reader)
{
    free(reader);
}

void kms_audit_reader_start(struct kms_audit_reader *reader, int fd)
{
    kms_audit_reader_start_at(reader, fd, 0);
}

void kms_audit_reader_start_at(struct kms_audit_reader *reader, int fd, uint64_t offset)
{
    reader->fd = fd;
    reader->at_end = reader->skipping = false;
    reader->base = offset;
    reader->start = reader->end = 0;
    reader->line = 1;
}

/* More bytes behind what is unread, which moves to the front. */
static enum kms_status refill(struct kms_audit_reader *reader)
{
    memmove(reader->buffer, reader->buffer + reader->start, reader->end - reader->start);
    reader->base += reader->start;
    reader->end -= reader->start;
    reader->start = 0;
    ssize_t got;
    do
        got = pread(reader->fd, reader->buffer + reader->end, BUFFER_SIZE - reader->end,
                    (off_t)(reader->base + reader->end));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return KMS_IO;
    reader->at_end = got == 0;
    reader->end += (size_t)got;
    return KMS_OK;
}

/* Length of the bytes without the zeros at their end; a comparison with itself finds all-zero blocks fast. */
static size_t length_without_zeros(const uint8_t *bytes, size_t len)
{
    if (len > 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0)
        return 0;
    while (len > 0 && bytes[len - 1] == 0)
        len--;
    return len;
}

/* From the first zero byte on: is there anything else, and where does it end? Consumes the file. */
static enum kms_status scan_zeros(struct kms_audit_reader *reader, struct kms_audit_item *item)
{
    for (;;) {
        const size_t len = length_without_zeros(reader->buffer + reader->start, reader->end - reader->start);
        if (len > 0) {
            item->data_end = reader->base + reader->start + len;
            item->data_after_zeros = true;
        }
        reader->start = reader->end;
        KMS_TRY(refill(reader));
        if (reader->at_end)
            return KMS_OK;
    }
}

/* Drop what is left of a line that was too long. */
static enum kms_status skip_line(struct kms_audit_reader *reader)
{
    while (reader->skipping) {
        const size_t left = reader->end - reader->start;
        const uint8_t *from = reader->buffer + reader->start;
        const uint8_t *newline = memchr(from, '\n', left);
        const uint8_t *zero = memchr(from, 0, newline == NULL ? left : (size_t)(newline - from));
        if (zero != NULL) {
            reader->start += (size_t)(zero - from);
            reader->skipping = false;
        } else if (newline != NULL) {
            reader->start += (size_t)(newline - from) + 1;
            reader->skipping = false;
        } else {
            reader->start = reader->end;
            if (reader->at_end)
                reader->skipping = false;
            else
                KMS_TRY(refill(reader));
        }
    }
    return KMS_OK;
}

/* What the unread part of the buffer begins with; false when more bytes are needed to tell. */
static bool take_item(struct kms_audit_reader *reader, struct kms_audit_item *item)
{
    const size_t left = reader->end - reader->start;
    const uint8_t *from = reader->buffer + reader->start;
    const uint8_t *newline = memchr(from, '\n', left);
    const size_t len = newline == NULL ? left : (size_t)(newline - from);
    const uint8_t *zero = memchr(from, 0, len);
    const size_t text_len = zero == NULL ? len : (size_t)(zero - from);
    const bool ended = newline != NULL || zero != NULL || reader->at_end;
    if (!ended && len <= KMS_AUDIT_LINE_MAX)
        return false;
    *item = (struct kms_audit_item){.offset = reader->base + reader->start, .line = reader->line};
    item->text = kms_slice_of(from, text_len);
    reader->line++;
    if (text_len > KMS_AUDIT_LINE_MAX) {
        item->kind = KMS_AUDIT_ITEM_LONG;
        item->text = kms_slice_of(from, 0);
        reader->skipping = true;
    } else if (zero == NULL && newline != NULL) {
        item->kind = KMS_AUDIT_ITEM_LINE;
        reader->start += len + 1;
    } else {
        item->kind = KMS_AUDIT_ITEM_END;
        item->zeros = zero != NULL;
        item->data_end = item->offset + text_len;
        reader->start += text_len;
    }
    return true;
}

enum kms_status kms_audit_reader_next(struct kms_audit_reader *reader, struct kms_audit_item *ret_item)
{
    KMS_TRY(skip_line(reader));
    struct kms_audit_item item;
    while (!take_item(reader, &item))
        KMS_TRY(refill(reader));
    if (item.kind == KMS_AUDIT_ITEM_END) {
        item.text.data = NULL; /* the scan overwrites an unfinished line; only its length matters */
        if (item.zeros)
            KMS_TRY(scan_zeros(reader, &item));
    }
    *ret_item = item;
    return KMS_OK;
}
