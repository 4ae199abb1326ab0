/*
 * Purpose:   the log as one thread sees it: turns a group of bodies into durable lines, begins new segments,
 *            and finds its way back after any failure.
 * Owns:      the chain's head and the open segment.
 * Threads:   one log belongs to one thread at a time.
 * Never:     moves the head past what is durable, or writes behind bytes whose state is unknown.
 */
#ifndef KMS_AUDIT_LOG_H
#define KMS_AUDIT_LOG_H

#include "audit/audit.h"
#include "audit/chain.h"
#include "audit/io.h"
#include "audit/recover.h"

struct kms_audit_log;

/**
 * Open as kms_audit_open() says, without a thread. `io` lives as long as the log. A segment ends when it has
 * `segment_bytes`, or when its first record is `segment_age_ns` old (0: never for that reason).
 */
enum kms_status kms_audit_log_open(const char *directory, uint64_t segment_bytes, int64_t segment_age_ns,
                                   const struct kms_audit_io *io, struct kms_audit_log **ret_log,
                                   struct kms_error *err) KMS_MUST_USE;
/** Close; the zero bytes behind the last record are cut off if that works. NULL-safe. */
void kms_audit_log_free(struct kms_audit_log *log);
/**
 * Make a group durable: bodies (see record.h), each followed by a newline. AUDIT_UNAVAILABLE or NO_MEMORY:
 * none of them counts as written; write the same group again, which begins a new segment, after the open one
 * was cut back to its last durable record.
 */
enum kms_status kms_audit_log_write(struct kms_audit_log *log, struct kms_slice bodies,
                                    struct kms_error *err) KMS_MUST_USE;
/** Make room ahead while nobody waits. What fails here is met by the next write. */
void kms_audit_log_make_room(struct kms_audit_log *log);
/** The last durable record. */
const struct kms_audit_head *kms_audit_log_head(const struct kms_audit_log *log);
/** Time of the newest record that the log had when it was opened; 0: it was empty. */
int64_t kms_audit_log_found_ns(const struct kms_audit_log *log);
/** Number of the segment that it lies in. */
uint64_t kms_audit_log_segment(const struct kms_audit_log *log);

#endif
