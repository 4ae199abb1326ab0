/*
 * Purpose:   ships changes to one backup target, durably and in order, and finds its way back after any failure.
 * Owns:      a thread, the open log and its file key.
 * Threads:   start, stop, status and wait from any thread; one thread of its own does the work.
 * Never:     holds up another target; writes behind bytes whose state is unknown; says that a change is durable before it is.
 *
 * A target without a base gets one first. A target that was away too long, so that the change log does not reach back to its
 * last change, gets a new base, too.
 */
#ifndef KMS_BACKUP_LANE_H
#define KMS_BACKUP_LANE_H

#include "backup/backup.h"
#include "backup/container.h"

struct kms_backup_lane;

/** What a lane tells the others. */
struct kms_backup_lane_config {
    const char *directory; /* borrowed, as is the rest */
    const struct kms_backup_keeper *keeper;
    struct kms_store *store;
    uint64_t log_bytes; /* a new log begins after this size */
    int64_t hang_ns;    /* a target that does not answer for so long hangs */
    /** Called on the lane's thread after `shipped` has grown or a failure came or went. */
    void (*changed)(void *context);
    void *context;
};

enum kms_status kms_backup_lane_start(const struct kms_backup_lane_config *config,
                                      struct kms_backup_lane **ret_lane, struct kms_error *err) KMS_MUST_USE;
/**
 * Wait until it has seen where the target stands, or cannot, or hangs, which is told in the log. FAILED_PRECONDITION: the target
 * knows more than the database.
 */
enum kms_status kms_backup_lane_await_look(struct kms_backup_lane *lane, int64_t deadline_mono_ns,
                                           struct kms_error *err) KMS_MUST_USE;
/** Ask it to ship what is left, if that works at once, and to end. */
void kms_backup_lane_stop(struct kms_backup_lane *lane);
/** Wait until it has ended, and free it. False at the deadline: the target hangs, and the lane stays as it is. */
bool kms_backup_lane_close(struct kms_backup_lane *lane, int64_t deadline_mono_ns) KMS_MUST_USE;
/** There is something new to ship. */
void kms_backup_lane_wake(struct kms_backup_lane *lane);
/** The directory that it was started with. */
const char *kms_backup_lane_directory(const struct kms_backup_lane *lane);
/** A base was made in the target by somebody else. */
void kms_backup_lane_note_base(struct kms_backup_lane *lane, const struct kms_backup_header *header);
void kms_backup_lane_status(struct kms_backup_lane *lane, struct kms_backup_target_status *ret_status);

#endif
