/*
 * Purpose:   the header of encrypted content, and the keys that follow from it.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     believes a length before it was checked against a named limit.
 *
 * Encrypted content, version 1; integers big-endian, sizes in bytes, no padding:
 *
 *     0         6         7         8           12       44             51           53
 *     +---------+---------+---------+-----------+--------+--------------+------------+---------------+
 *     | magic   | version | key     | chunk     | salt   | nonce prefix | length n   | wrapped data  |
 *     | "KMSENC"| 0x01    | spec 01 | size      | 32     | 7            | of the key | key, n bytes  |
 *     +---------+---------+---------+-----------+--------+--------------+------------+---------------+
 *     then chunk 0, chunk 1, ..., chunk m:
 *     +------------------------------------------------------+---------+
 *     | ciphertext: chunk size bytes, in the last one 0..size | GCM tag |
 *     +------------------------------------------------------+---------+
 *
 * content key = HKDF-SHA-256 (RFC 5869) of the data key; salt from the header, info = "kms envelope 1". So every
 *               output has a key of its own, however often a data key is used again.
 * chunk i     = AES-256-GCM by the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar: Online
 *               Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, CRYPTO 2015):
 *               nonce = nonce prefix (7) || i (4) || 1 for the last chunk, else 0 (1);
 *               AAD = SHA-256 of the whole header.
 *
 * The last chunk is empty only when the content is; no more than 2^32 chunks. Chunk size is 65,536; readers accept
 * powers of two from 1 KiB to 1 MiB. Key spec 1 is AES-256, the only one of version 1.
 */
#ifndef KMS_CLIENT_FORMAT_H
#define KMS_CLIENT_FORMAT_H

#include "core/secret.h"

#include <kms/datakey.h>

enum {
    KMS_FORMAT_FIXED_SIZE = 53,
    KMS_FORMAT_HEADER_MAX = KMS_FORMAT_FIXED_SIZE + KMS_DATAKEY_WRAPPED_MAX,
    KMS_FORMAT_CHUNK_SIZE = 65536,
    KMS_FORMAT_CHUNK_MIN = 1024,
    KMS_FORMAT_CHUNK_MAX = 1 << 20,
    KMS_FORMAT_TAG_SIZE = 16,
    KMS_FORMAT_SALT_SIZE = 32,
    KMS_FORMAT_PREFIX_SIZE = 7,
    KMS_FORMAT_HASH_SIZE = 32,
    KMS_FORMAT_KEY_SIZE = 32
};

/** A header; `wrapped` points into memory of somebody else. */
struct kms_format_header {
    uint32_t chunk_size;
    uint8_t salt[KMS_FORMAT_SALT_SIZE];
    uint8_t prefix[KMS_FORMAT_PREFIX_SIZE];
    struct kms_slice wrapped;
};

/** Random salt and prefix for new content. INVALID when the wrapped key's length is 0 or over the limit. */
enum kms_client_status kms_format_new(struct kms_slice wrapped, struct kms_format_header *ret_header,
                                      struct kms_client_error *err);
/** Lay the header out; returns its size. */
size_t kms_format_write(const struct kms_format_header *header, uint8_t out[KMS_FORMAT_HEADER_MAX]);
/**
 * Check the first KMS_FORMAT_FIXED_SIZE bytes and tell how many bytes of wrapped key follow. REFUSED when it is
 * no encrypted content, UNIMPLEMENTED when its version or key spec is not known.
 */
enum kms_client_status kms_format_read_fixed(const uint8_t fixed[KMS_FORMAT_FIXED_SIZE],
                                             struct kms_format_header *ret_header, size_t *ret_wrapped_len,
                                             struct kms_client_error *err);
/** Parse a whole header; `*ret_size` is its size. As above; REFUSED when it is cut. `bytes` are borrowed. */
enum kms_client_status kms_format_parse(struct kms_slice bytes, struct kms_format_header *ret_header,
                                        size_t *ret_size, struct kms_client_error *err);

/** SHA-256 of the header's bytes. */
enum kms_client_status kms_format_hash(struct kms_slice header_bytes, uint8_t ret_hash[KMS_FORMAT_HASH_SIZE],
                                       struct kms_client_error *err);
/** The content key; cleared by the caller. REFUSED when the data key has not 32 bytes. */
enum kms_client_status kms_format_content_key(const struct kms_format_header *header,
                                              struct kms_slice data_key, struct kms_secret *ret_key,
                                              struct kms_client_error *err);

#endif
