/*
 * Purpose:   a hash tree over a list, so that one member can be shown to belong to it without showing the others.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     sorts: the order of the leaves is the caller's.
 *
 * The Merkle tree hash of RFC 6962, section 2.1, with SHA-256: a leaf is SHA-256(0x00 | data), an inner node
 * SHA-256(0x01 | left | right), and a list of n > 1 splits after the largest power of two below n. The hash of no leaf at all is
 * SHA-256 of nothing.
 */
#ifndef KMS_EVIDENCE_MERKLE_H
#define KMS_EVIDENCE_MERKLE_H

#include "core/bytes.h"

enum { KMS_MERKLE_SIZE = 32, KMS_MERKLE_PATH_MAX = 64 };

struct kms_merkle_hash {
    uint8_t bytes[KMS_MERKLE_SIZE];
};

/** Hash of one leaf's data. INTERNAL when the library fails, as all functions here. */
enum kms_status kms_merkle_leaf(struct kms_slice data, struct kms_merkle_hash *ret_hash) KMS_MUST_USE;
/** Root of `count` leaf hashes. */
enum kms_status kms_merkle_root(const struct kms_merkle_hash *leaves, size_t count,
                                struct kms_merkle_hash *ret_root) KMS_MUST_USE;
/** The audit path of leaf `index`: siblings from the leaf upwards, at most KMS_MERKLE_PATH_MAX. */
enum kms_status kms_merkle_path(const struct kms_merkle_hash *leaves, size_t count, size_t index,
                                struct kms_merkle_hash ret_path[KMS_MERKLE_PATH_MAX],
                                size_t *ret_len) KMS_MUST_USE;
/** TAMPERED unless the leaf is number `index` of the `count` under this root. */
enum kms_status kms_merkle_verify(const struct kms_merkle_hash *root, uint64_t count, uint64_t index,
                                  const struct kms_merkle_hash *leaf, const struct kms_merkle_hash *path,
                                  size_t path_len) KMS_MUST_USE;

#endif
