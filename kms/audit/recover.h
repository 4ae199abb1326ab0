/*
 * Purpose:   find where the chain of a directory ends, after any kind of stop.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     writes; or takes for a crash what a crash cannot explain.
 *
 * A crash leaves what was written after the last fdatasync in any state: a line without its end, zero bytes
 * where a page did not reach the disk, whole lines behind such a hole. None of that was confirmed to anybody
 * and it is at most KMS_AUDIT_TORN_MAX bytes. Everything else (a whole line that is not the next link of the
 * chain, a line that is too long, a hole that is larger) is damage.
 */
#ifndef KMS_AUDIT_RECOVER_H
#define KMS_AUDIT_RECOVER_H

#include "audit/chain.h"
#include "audit/segment.h"

enum { KMS_AUDIT_TORN_MAX = 16 * 1024 * 1024 };

struct kms_audit_recovery {
    struct kms_audit_head head; /* the last intact record */
    uint64_t segment;           /* number of the segment that it lies in; 0: the directory is empty */
    int64_t segment_begun_ns;   /* time of that segment's first record */
    int64_t newest_ns;          /* time of the last intact record; 0: there is none */
    uint64_t end;               /* offset behind it */
    uint64_t empty_segment;     /* a later segment without any intact record, to be removed; 0: none */
    uint64_t torn_bytes;        /* not zero and not intact, behind the last intact record */
    uint64_t torn_segment;      /* where they are; 0: nowhere */
};

/**
 * Read the last segment, and the end of the one before. FAILED_PRECONDITION: the chain is broken; the text
 * names file and line. IO, NOT_FOUND, NO_MEMORY.
 */
enum kms_status kms_audit_recover(const char *directory, struct kms_audit_recovery *ret_recovery,
                                  struct kms_error *err) KMS_MUST_USE;

/**
 * The part that reads one segment (the fuzzer's way in): verifies its chain from its first record on.
 * `*ret_before` is what that record says of the record before it, `*ret_lost` whether it declares a loss;
 * `ret_recovery->end` is 0 when there is no intact record at all.
 */
enum kms_status kms_audit_recover_segment(int fd, const char *name, uint64_t first_seq,
                                          struct kms_audit_recovery *ret_recovery,
                                          struct kms_audit_head *ret_before, bool *ret_lost,
                                          struct kms_error *err) KMS_MUST_USE;

#endif
