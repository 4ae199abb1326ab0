/*
 * Purpose:   borrowed and owned byte ranges, hexadecimal and big-endian helpers, UTF-8 checks.
 * Owns:      a kms_buf owns its memory; a kms_slice owns nothing.
 * Threads:   no shared state.
 * Never:     holds secrets: those live in core/secret.h only.
 */
#ifndef KMS_CORE_BYTES_H
#define KMS_CORE_BYTES_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** Borrowed, read-only bytes. `data` may be NULL when `len` is 0. */
struct kms_slice {
    const uint8_t *data;
    size_t len;
};

static inline struct kms_slice kms_slice_of(const void *data, size_t len)
{
    return (struct kms_slice){(const uint8_t *)data, len};
}

static inline struct kms_slice kms_slice_str(const char *text)
{
    return (struct kms_slice){(const uint8_t *)text, strlen(text)};
}

static inline bool kms_slice_equal(struct kms_slice a, struct kms_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/** Growable bytes on the heap. Zero-initialised = empty. Not for secrets: growth leaves copies behind. */
struct kms_buf {
    uint8_t *data;
    size_t len;
    size_t capacity;
};

/** Free the memory and make it empty again; NULL-safe. */
void kms_buf_clear(struct kms_buf *buf);
/** Make room for `extra` more bytes. NO_MEMORY leaves the buffer as it was. */
enum kms_status kms_buf_reserve(struct kms_buf *buf, size_t extra) KMS_MUST_USE;
/** Append bytes; on NO_MEMORY nothing was appended. */
enum kms_status kms_buf_append(struct kms_buf *buf, const void *data, size_t len) KMS_MUST_USE;
enum kms_status kms_buf_append_str(struct kms_buf *buf, const char *text) KMS_MUST_USE;
enum kms_status kms_buf_printf(struct kms_buf *buf, const char *fmt, ...) KMS_PRINTF(2, 3) KMS_MUST_USE;

static inline struct kms_slice kms_buf_slice(const struct kms_buf *buf)
{
    return (struct kms_slice){buf->data, buf->len};
}

/** Lower-case hexadecimal of `len` bytes into `out`, which has room for 2*len+1 characters. */
void kms_hex_encode(const void *data, size_t len, char *out);
/** Decode exactly `len` bytes from 2*len hex digits (either case). INVALID_ARGUMENT leaves `out` undefined.
 */
enum kms_status kms_hex_decode(const char *text, size_t text_len, uint8_t *out, size_t len) KMS_MUST_USE;

/** True when the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms, max U+10FFFF). */
bool kms_utf8_valid(const void *data, size_t len);
/** True when well-formed UTF-8 without control characters (C0, DEL, C1). */
bool kms_utf8_printable(const void *data, size_t len);
/** Length of the first character (1..4 bytes) when it is well-formed and no control character, else 0. */
size_t kms_utf8_printable_prefix(const void *data, size_t len);

static inline void kms_put_be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void kms_put_be32(uint8_t *p, uint32_t v)
{
    kms_put_be16(p, (uint16_t)(v >> 16));
    kms_put_be16(p + 2, (uint16_t)v);
}

static inline void kms_put_be64(uint8_t *p, uint64_t v)
{
    kms_put_be32(p, (uint32_t)(v >> 32));
    kms_put_be32(p + 4, (uint32_t)v);
}

static inline uint16_t kms_get_be16(const uint8_t *p)
{
    return (uint16_t)((unsigned)p[0] << 8 | p[1]);
}

static inline uint32_t kms_get_be32(const uint8_t *p)
{
    return (uint32_t)kms_get_be16(p) << 16 | kms_get_be16(p + 2);
}

static inline uint64_t kms_get_be64(const uint8_t *p)
{
    return (uint64_t)kms_get_be32(p) << 32 | kms_get_be32(p + 4);
}

/*
 * A reader over untrusted bytes: every take checks what is left; after the first failure all further takes
 * fail too, so that a parser may check once at its end.
 */
struct kms_reader {
    const uint8_t *next;
    size_t left;
    bool failed;
};

static inline struct kms_reader kms_reader_of(struct kms_slice bytes)
{
    return (struct kms_reader){bytes.data, bytes.len, false};
}

/** Borrow the next `len` bytes, or NULL (and failed) when there are fewer. */
const uint8_t *kms_reader_take(struct kms_reader *reader, size_t len);
/** Next unsigned big-endian integers; 0 (and failed) at the end. */
uint8_t kms_reader_u8(struct kms_reader *reader);
uint16_t kms_reader_u16(struct kms_reader *reader);
uint32_t kms_reader_u32(struct kms_reader *reader);
uint64_t kms_reader_u64(struct kms_reader *reader);
/** True when nothing failed and nothing is left. */
static inline bool kms_reader_done(const struct kms_reader *reader)
{
    return !reader->failed && reader->left == 0;
}

#endif
