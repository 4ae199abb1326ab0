/*
 * Purpose:   the parts that every record of the change log is made of: see store/changelog.h for the format.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     knows a kind of record.
 */
#ifndef KMS_STORE_CODEC_H
#define KMS_STORE_CODEC_H

#include "store/changelog.h"

/* Append to `out`; NO_MEMORY. */
enum kms_status kms_codec_put_u8(struct kms_buf *out, unsigned value) KMS_MUST_USE;
enum kms_status kms_codec_put_u32(struct kms_buf *out, uint32_t value) KMS_MUST_USE;
enum kms_status kms_codec_put_u64(struct kms_buf *out, uint64_t value) KMS_MUST_USE;
/** Times and periods are signed; two's complement keeps them apart from counters. */
enum kms_status kms_codec_put_i64(struct kms_buf *out, int64_t value) KMS_MUST_USE;
/** At most 65,535 bytes, behind their number. */
enum kms_status kms_codec_put_text(struct kms_buf *out, const char *text) KMS_MUST_USE;
/** What every payload begins with. */
enum kms_status kms_codec_put_head(struct kms_buf *out, enum kms_change_kind kind) KMS_MUST_USE;

/* Take the next part; when it is not there, or not canonical, the reader has failed and the output is unchanged or 0. */
void kms_codec_take_bytes(struct kms_reader *reader, uint8_t *out, size_t len);
void kms_codec_take_uuid(struct kms_reader *reader, struct kms_uuid *out);
int64_t kms_codec_take_i64(struct kms_reader *reader);
/** Text into an array of `size` bytes; too long, or with a NUL inside, fails the reader. */
void kms_codec_take_text(struct kms_reader *reader, char *out, size_t size);
/**
 * A heap copy of `len` bytes with a terminator behind it; more than `max`, or than there are, fails the reader before memory
 * is taken. NO_MEMORY.
 */
enum kms_status kms_codec_take_copy(struct kms_reader *reader, size_t len, size_t max,
                                    uint8_t **ret_copy) KMS_MUST_USE;

#endif
