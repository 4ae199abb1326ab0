/*
 * Purpose:   reads a segment line by line in bounded memory, whatever is in the file.
 * Owns:      its buffer; borrows the descriptor.
 * Threads:   one reader belongs to one thread.
 * Never:     holds more than one buffer of a file, or judges a line.
 */
#ifndef KMS_AUDIT_READER_H
#define KMS_AUDIT_READER_H

#include "core/bytes.h"

struct kms_audit_reader;

enum kms_audit_item_kind {
    KMS_AUDIT_ITEM_LINE, /* a line that ended with a newline and holds no NUL */
    KMS_AUDIT_ITEM_LONG, /* a line over KMS_AUDIT_LINE_MAX; the next call skips the rest of it */
    KMS_AUDIT_ITEM_END   /* the end of the lines: nothing, an unfinished line, zero bytes */
};

struct kms_audit_item {
    enum kms_audit_item_kind kind;
    uint64_t offset; /* where it begins in the file */
    uint64_t line;   /* its number, from 1 */
    /* LINE: without its newline, valid until the next call; END: only the length of an unfinished line */
    struct kms_slice text;
    bool zeros;            /* END: a zero byte ended the lines */
    uint64_t data_end;     /* END: offset behind the last byte that is not zero */
    bool data_after_zeros; /* END: something follows the first zero byte */
};

/** A reader of `fd` from its start; pread only. NO_MEMORY leaves NULL. */
enum kms_status kms_audit_reader_new(struct kms_audit_reader **ret_reader) KMS_MUST_USE;
void kms_audit_reader_free(struct kms_audit_reader *reader);
/** Begin with another file; or at the beginning of some line in it, whose number then counts as 1. */
void kms_audit_reader_start(struct kms_audit_reader *reader, int fd);
void kms_audit_reader_start_at(struct kms_audit_reader *reader, int fd, uint64_t offset);
/** The next item; IO (errno is set) when the file cannot be read. Not to be called after END. */
enum kms_status kms_audit_reader_next(struct kms_audit_reader *reader,
                                      struct kms_audit_item *ret_item) KMS_MUST_USE;

#endif
