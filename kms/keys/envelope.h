/*
 * Purpose:   the wrapped data key (the blob that applications store) and the canonical encryption context.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     performs cryptography: it only lays out bytes.
 *
 * Blob, format version 1; sizes in bytes, no padding, KEK id and IV as raw bytes:
 *
 *     0        1        2                18           30                  30+n            46+n
 *     +--------+--------+----------------+------------+-------------------+---------------+
 *     | format | key    | KEK id         | IV         | ciphertext        | GCM tag       |
 *     | 0x01   | spec   | 16             | 12         | n = key length    | 16            |
 *     +--------+--------+----------------+------------+-------------------+---------------+
 *
 * 78 bytes for a 32-byte key. AES-256-GCM (NIST SP 800-38D) under the KEK; AAD = bytes 0..17 || canonical
 * context. Neither names the tenant, so that a wrapped data key survives a change of owner.
 *
 * Canonical context: count (u16 BE), then for each entry in ascending byte order of the keys
 * key length (u16 BE), key, value length (u16 BE), value. Keys are unique and not empty. An empty context is
 * 0x0000.
 */
#ifndef KMS_KEYS_ENVELOPE_H
#define KMS_KEYS_ENVELOPE_H

#include "core/arena.h"
#include "core/bytes.h"

enum {
    KMS_BLOB_FORMAT_1 = 1,
    KMS_BLOB_HEADER_SIZE = 18,
    KMS_BLOB_IV_SIZE = 12,
    KMS_BLOB_TAG_SIZE = 16,
    KMS_BLOB_OVERHEAD = KMS_BLOB_HEADER_SIZE + KMS_BLOB_IV_SIZE + KMS_BLOB_TAG_SIZE,
    KMS_RAW_KEY_MIN = 16,
    KMS_RAW_KEY_MAX = 4096,
    KMS_BLOB_MAX = KMS_BLOB_OVERHEAD + KMS_RAW_KEY_MAX,
    KMS_CONTEXT_MAX = 8192, /* sum of all keys and values */
    KMS_CONTEXT_ENTRIES_MAX = 64
};

/* On the wire of blobs and in the API: never renumber. */
enum kms_key_spec {
    KMS_KEY_SPEC_AES_256 = 1, /* 32 bytes */
    KMS_KEY_SPEC_AES_128 = 2, /* 16 bytes */
    KMS_KEY_SPEC_SM4 = 3,     /* 16 bytes */
    KMS_KEY_SPEC_RAW = 4      /* the caller's own material, 16..4096 bytes */
};

/** Length of a generated key of that spec; 0 for RAW and unknown ones. */
size_t kms_key_spec_length(enum kms_key_spec spec);

/** A parsed blob; slices point into the parsed bytes. */
struct kms_blob {
    enum kms_key_spec spec;
    const uint8_t *header;       /* KMS_BLOB_HEADER_SIZE bytes, the first part of the AAD */
    const uint8_t *kek_id;       /* 16 bytes */
    const uint8_t *iv;           /* 12 bytes */
    struct kms_slice ciphertext; /* ciphertext and tag */
};

/** BLOB_REFUSED for anything that is not exactly one well-formed blob of a known format. */
enum kms_status kms_blob_parse(struct kms_slice bytes, struct kms_blob *ret_blob) KMS_MUST_USE;
/** Write header and IV; returns their size (30). `out` has room for KMS_BLOB_OVERHEAD + key length. */
size_t kms_blob_begin(uint8_t *out, enum kms_key_spec spec, const uint8_t kek_id[16], const uint8_t iv[12]);

struct kms_context_entry {
    struct kms_slice key;
    struct kms_slice value;
};

/**
 * Canonical bytes of an encryption context, in the arena. `entries` is sorted in place.
 * INVALID_ARGUMENT with a public text: empty or duplicate key, not printable UTF-8, too many entries, over 8
 * KiB in all.
 */
enum kms_status kms_context_canonical(struct kms_arena *arena, struct kms_context_entry *entries,
                                      size_t count, struct kms_slice *ret_canonical,
                                      struct kms_error *err) KMS_MUST_USE;

#endif
