/*
 * Purpose:   a side file for each finished segment, so that a query reads only those parts of it that can matter.
 * Owns:      an index owns its memory.
 * Threads:   one index belongs to one thread.
 * Never:     is evidence: verification does not look at it, and whoever can write it can hide a record from a query. An
 *            auditor keeps indexes of his own in a directory of his own.
 *
 * A segment is cut into blocks of equal size (a line belongs to the block in which it begins). The index knows of each
 * block between which times its records lie, and of each value of customer, identity, tenant, action and outcome in which
 * blocks it occurs. It is made from the segment alone and made again when it does not fit it: file
 * `audit-<first seq, 20 digits>.index`, integers big-endian:
 *
 *     offset  size
 *          0     8  "KMSAIDX1"
 *          8     8  number of the segment
 *         16     8  bytes of the segment
 *         24    32  hash of its last record
 *         56     8  time of its earliest record, ns since 1970
 *         64     8  time of its latest record
 *         72     8  records
 *         80     4  bytes of a block
 *         84     4  blocks, n
 *         88     8  keys, m; 2^64-1: there were too many, so every block may hold any value
 *         96    32  SHA-256 of everything behind the header
 *        128    32  SHA-256 of the header up to here
 *        160  n*24  blocks: offset of the first line (2^64-1: none), earliest and latest time
 *         ..   m*8  keys, ascending: 48 bits of a hash of field and value, 16 bits number of a block
 */
#ifndef KMS_AUDIT_INDEX_H
#define KMS_AUDIT_INDEX_H

#include "audit/fields.h"
#include "audit/segment.h"

enum {
    KMS_AUDIT_INDEX_HEADER_SIZE = 160,
    KMS_AUDIT_INDEX_BLOCK_MIN = 256 * 1024,
    KMS_AUDIT_INDEX_BLOCKS_MAX = 65536,
    KMS_AUDIT_INDEX_KEYS_MAX = 32 * 1024 * 1024,
    KMS_AUDIT_INDEX_NAME_SIZE = 6 + 20 + 6 + 1
};

struct kms_audit_index;

/** "audit-00000000000000000001.index" in `out`; returns it. */
const char *kms_audit_index_name(uint64_t first_seq, char out[KMS_AUDIT_INDEX_NAME_SIZE]);

/** Told of each line that is no record; `text` says why. May be NULL. */
typedef void (*kms_audit_index_problem)(void *context, uint64_t line, uint64_t offset, const char *text);

/** Make the index of a segment by reading all of it. IO (errno is set), NO_MEMORY. */
enum kms_status kms_audit_index_build(int segment_fd, uint64_t first_seq, kms_audit_index_problem problem,
                                      void *context, struct kms_audit_index **ret_index,
                                      struct kms_error *err) KMS_MUST_USE;
void kms_audit_index_free(struct kms_audit_index *index);

/** The index as bytes, and back (the fuzzer's way in). TAMPERED: it is none, or damaged; NO_MEMORY. */
enum kms_status kms_audit_index_pack(const struct kms_audit_index *index, struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_audit_index_parse(struct kms_slice bytes,
                                      struct kms_audit_index **ret_index) KMS_MUST_USE;

/**
 * The index of a segment from its file in `directory`. NOT_FOUND: there is none, or it is damaged or of another
 * segment: build it. With `matcher` only the header is read when the segment cannot hold a match: then `*ret_index` is
 * NULL. NO_MEMORY.
 */
enum kms_status kms_audit_index_load(const char *directory, int segment_fd, uint64_t first_seq,
                                     const struct kms_audit_matcher *matcher,
                                     struct kms_audit_index **ret_index) KMS_MUST_USE;
/** Keep it in a directory, in the place of an older one. IO (the text says why), NO_MEMORY. */
enum kms_status kms_audit_index_store(const struct kms_audit_index *index, const char *directory,
                                      struct kms_error *err) KMS_MUST_USE;

/** A part of a segment; `end` is where the next part begins. */
struct kms_audit_range {
    uint64_t begin, end;
};
/**
 * The parts that may hold a match, in rising order: call again with the same `*cursor`, 0 at first, until false.
 */
bool kms_audit_index_next(const struct kms_audit_index *index, const struct kms_audit_matcher *matcher,
                          size_t *cursor, struct kms_audit_range *ret_range);

#endif
