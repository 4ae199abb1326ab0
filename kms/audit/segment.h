/*
 * Purpose:   one segment file: its name, its space allocated ahead, durable writes, and whether it is still
 *            the file that its path names.
 * Owns:      the descriptor.
 * Threads:   one segment belongs to one thread at a time.
 * Never:     believes a write before fdatasync and the look at the path both said so.
 */
#ifndef KMS_AUDIT_SEGMENT_H
#define KMS_AUDIT_SEGMENT_H

#include "audit/io.h"
#include "core/bytes.h"

enum {
    KMS_AUDIT_NAME_SIZE = 6 + 20 + 6 + 1, /* audit-<20 digits>.jsonl */
    KMS_AUDIT_PATH_SIZE = 4096,
    KMS_AUDIT_SEGMENTS_MAX = 1000000 /* in one directory */
};

/** "audit-00000000000000000001.jsonl" in `out`; returns it. */
const char *kms_audit_segment_name(uint64_t first_seq, char out[KMS_AUDIT_NAME_SIZE]);

/** First sequence numbers of the segments of a directory, ascending. */
struct kms_audit_segments {
    uint64_t *first_seqs;
    size_t count;
};

/** Told of every name that is neither a segment's nor an index's (index.h); may be NULL. */
typedef void (*kms_audit_foreign)(void *context, const char *name);

/**
 * List a directory. NOT_FOUND, IO, NO_MEMORY; RESOURCE_EXHAUSTED over KMS_AUDIT_SEGMENTS_MAX. The caller
 * frees `first_seqs`.
 */
enum kms_status kms_audit_segment_list(const char *directory, kms_audit_foreign foreign, void *context,
                                       struct kms_audit_segments *ret_segments,
                                       struct kms_error *err) KMS_MUST_USE;

/** Bytes of all of them as they are now; for progress. */
uint64_t kms_audit_segments_bytes(const char *directory, const struct kms_audit_segments *segments);

/**
 * Open a segment for reading; its name is in `ret_name` in any case. FAILED_PRECONDITION: no regular file; IO.
 * The caller closes `*ret_fd`.
 */
enum kms_status kms_audit_segment_open_to_read(const char *directory, uint64_t first_seq,
                                               char ret_name[KMS_AUDIT_NAME_SIZE], int *ret_fd,
                                               struct kms_error *err) KMS_MUST_USE;

struct kms_audit_segment {
    const struct kms_audit_io *io;
    int fd;             /* -1: none */
    uint64_t end;       /* of the durable records */
    uint64_t zeroed;    /* the file's blocks are written up to here: overwriting them changes no metadata */
    uint64_t allocated; /* the file's size */
    dev_t device;
    ino_t inode;
    char directory[KMS_AUDIT_PATH_SIZE];
    char path[KMS_AUDIT_PATH_SIZE + KMS_AUDIT_NAME_SIZE];
};

/** No file yet. `io` lives longer; INVALID_ARGUMENT when the directory's name is too long. */
enum kms_status kms_audit_segment_init(struct kms_audit_segment *segment, const struct kms_audit_io *io,
                                       const char *directory) KMS_MUST_USE;
/** Make a new, empty file; the one before must have been closed. AUDIT_UNAVAILABLE. */
enum kms_status kms_audit_segment_create(struct kms_audit_segment *segment, uint64_t first_seq,
                                         struct kms_error *err) KMS_MUST_USE;
/** Open a file whose records end at `end` and cut off what follows. AUDIT_UNAVAILABLE. */
enum kms_status kms_audit_segment_continue(struct kms_audit_segment *segment, uint64_t first_seq,
                                           uint64_t end, struct kms_error *err) KMS_MUST_USE;
/**
 * Write behind the durable end, fdatasync, and look whether the file is still in its place; `end` moves only
 * when all of that went well. AUDIT_UNAVAILABLE: how much is on the disk is not known.
 */
enum kms_status kms_audit_segment_write(struct kms_audit_segment *segment, struct kms_slice bytes,
                                        struct kms_error *err) KMS_MUST_USE;
/**
 * Make room ahead when little is left: allocate in large steps, write zeros in small ones, durably, so that
 * later records overwrite blocks that exist. Best effort where the space cannot be had (the records
 * themselves will say so); AUDIT_UNAVAILABLE when the disk failed.
 */
enum kms_status kms_audit_segment_make_room(struct kms_audit_segment *segment, uint64_t segment_bytes,
                                            struct kms_error *err) KMS_MUST_USE;
/** Cut off what is behind the durable end, durably. AUDIT_UNAVAILABLE. */
enum kms_status kms_audit_segment_trim(struct kms_audit_segment *segment, struct kms_error *err) KMS_MUST_USE;

enum kms_audit_presence {
    KMS_AUDIT_PRESENT,
    KMS_AUDIT_ALTERED, /* in its place, but longer than it was made */
    KMS_AUDIT_LOST,    /* deleted, replaced or shortened */
    KMS_AUDIT_UNKNOWN  /* cannot be told: the directory is gone or cannot be read */
};
/** Compare the open file with what its path names; the text says what was found. */
enum kms_audit_presence kms_audit_segment_look(const struct kms_audit_segment *segment,
                                               struct kms_error *err);
/** Close the descriptor; no file afterwards. */
void kms_audit_segment_close(struct kms_audit_segment *segment);
/** fsync the directory, so that a new name is durable. AUDIT_UNAVAILABLE. */
enum kms_status kms_audit_segment_sync_directory(const struct kms_audit_segment *segment,
                                                 struct kms_error *err) KMS_MUST_USE;

#endif
