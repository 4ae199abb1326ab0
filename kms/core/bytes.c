#include "core/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void kms_buf_clear(struct kms_buf *buf)
{
    if (buf == NULL)
        return;
    free(buf->data);
    *buf = (struct kms_buf){0};
}

enum kms_status kms_buf_reserve(struct kms_buf *buf, size_t extra)
{
    if (extra <= buf->capacity - buf->len)
        return KMS_OK;
    size_t needed;
    if (__builtin_add_overflow(buf->len, extra, &needed) || needed > SIZE_MAX / 2)
        return KMS_NO_MEMORY;
    size_t capacity = buf->capacity < 64 ? 64 : buf->capacity;
    while (capacity < needed)
        capacity *= 2;
    uint8_t *grown = realloc(buf->data, capacity);
    if (grown == NULL)
        return KMS_NO_MEMORY;
    buf->data = grown;
    buf->capacity = capacity;
    return KMS_OK;
}

enum kms_status kms_buf_append(struct kms_buf *buf, const void *data, size_t len)
{
    if (len == 0)
        return KMS_OK;
    KMS_TRY(kms_buf_reserve(buf, len));
    memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    return KMS_OK;
}

enum kms_status kms_buf_append_str(struct kms_buf *buf, const char *text)
{
    return kms_buf_append(buf, text, strlen(text));
}

enum kms_status kms_buf_printf(struct kms_buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    const int needed = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    enum kms_status status = needed < 0 ? KMS_INTERNAL : kms_buf_reserve(buf, (size_t)needed + 1);
    if (status == KMS_OK) {
        (void)vsnprintf((char *)buf->data + buf->len, (size_t)needed + 1, fmt, again);
        buf->len += (size_t)needed;
    }
    va_end(again);
    return status;
}

void kms_hex_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = '\0';
}

/* Value of one hexadecimal digit, or -1. */
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum kms_status kms_hex_decode(const char *text, size_t text_len, uint8_t *out, size_t len)
{
    if (text_len != 2 * len)
        return KMS_INVALID_ARGUMENT;
    for (size_t i = 0; i < len; i++) {
        const int high = hex_digit(text[2 * i]);
        const int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return KMS_INVALID_ARGUMENT;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return KMS_OK;
}

/* Length of the well-formed UTF-8 sequence at p (1..4), its code point in *ret_point; 0 when malformed. */
static size_t utf8_sequence(const uint8_t *p, size_t left, uint32_t *ret_point)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = 0;
    uint32_t point = 0;
    if (p[0] < 0x80) {
        *ret_point = p[0];
        return 1;
    } else if ((p[0] & 0xe0) == 0xc0) {
        len = 2;
        point = p[0] & 0x1fU;
    } else if ((p[0] & 0xf0) == 0xe0) {
        len = 3;
        point = p[0] & 0x0fU;
    } else if ((p[0] & 0xf8) == 0xf0) {
        len = 4;
        point = p[0] & 0x07U;
    }
    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (p[i] & 0x3fU);
    }
    if (point < smallest[len] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        return 0;
    *ret_point = point;
    return len;
}

/* C0, DEL and C1. */
static bool is_control(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0);
}

/* Shared walk of the two public checks. */
static bool utf8_walk(const void *data, size_t len, bool allow_controls)
{
    const uint8_t *p = data;
    while (len > 0) {
        uint32_t point = 0;
        const size_t used = utf8_sequence(p, len, &point);
        if (used == 0)
            return false;
        if (!allow_controls && is_control(point))
            return false;
        p += used;
        len -= used;
    }
    return true;
}

bool kms_utf8_valid(const void *data, size_t len)
{
    return utf8_walk(data, len, true);
}

bool kms_utf8_printable(const void *data, size_t len)
{
    return utf8_walk(data, len, false);
}

size_t kms_utf8_printable_prefix(const void *data, size_t len)
{
    uint32_t point = 0;
    const size_t used = len > 0 ? utf8_sequence(data, len, &point) : 0;
    return is_control(point) ? 0 : used;
}

const uint8_t *kms_reader_take(struct kms_reader *reader, size_t len)
{
    if (reader->failed || reader->left < len) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *taken = reader->next;
    if (len > 0)
        reader->next += len;
    reader->left -= len;
    return taken;
}

uint8_t kms_reader_u8(struct kms_reader *reader)
{
    const uint8_t *p = kms_reader_take(reader, 1);
    return p == NULL ? 0 : p[0];
}

uint16_t kms_reader_u16(struct kms_reader *reader)
{
    const uint8_t *p = kms_reader_take(reader, 2);
    return p == NULL ? 0 : kms_get_be16(p);
}

uint32_t kms_reader_u32(struct kms_reader *reader)
{
    const uint8_t *p = kms_reader_take(reader, 4);
    return p == NULL ? 0 : kms_get_be32(p);
}

uint64_t kms_reader_u64(struct kms_reader *reader)
{
    const uint8_t *p = kms_reader_take(reader, 8);
    return p == NULL ? 0 : kms_get_be64(p);
}
