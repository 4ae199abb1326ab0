/*
 * Purpose:   how far the log is on the disk, for whoever follows it (checkpoints).
 * Owns:      nothing.
 * Threads:   one thread may wait; kms_audit_follow_stop() from any.
 * Never:     is on the way of a commit: a follower that sleeps costs it nothing.
 */
#ifndef KMS_AUDIT_FOLLOW_H
#define KMS_AUDIT_FOLLOW_H

#include "audit/audit.h"
#include "audit/chain.h"

/** A record and the number of the segment that it lies in; segment 0: none yet. */
struct kms_audit_mark {
    struct kms_audit_head head;
    uint64_t segment;
};

struct kms_audit_position {
    struct kms_audit_mark durable; /* the newest record */
    struct kms_audit_mark
        finished; /* the last record of the newest segment that was finished since the log was opened */
};

/**
 * Wait until record `seq` is durable, or a segment is finished that ends behind `finished_seq`, or until the deadline
 * (monotonic; < 0: none), or until kms_audit_follow_stop(). Returns where the log is then.
 */
struct kms_audit_position kms_audit_follow(struct kms_audit *audit, uint64_t seq, uint64_t finished_seq,
                                           int64_t deadline_mono_ns);
/** From now on kms_audit_follow() returns at once. */
void kms_audit_follow_stop(struct kms_audit *audit);

#endif
