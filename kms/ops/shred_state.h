/*
 * Purpose:   what the service remembers of shredding between calls: which customers wait for it, the clock that windows are
 *            measured with, and when the scheduler looks again.
 * Owns:      a set of customers and a reading of the clocks.
 * Threads:   any; KMS_LOCK_SHRED inside, held for look-ups only.
 * Never:     decides anything by itself that is not in the store: it is filled from there at start.
 *
 * The clock of waiting windows. The machine counts (CLOCK_BOOTTIME) whatever somebody does to its wall clock, so while it runs the
 * *trusted* time goes on from the last moment that was believed by what the machine has counted. A window has ended when both
 * wall clock and trusted time say so:
 *   - set forward, the wall clock is ahead of the trusted time: due shreds wait and an alarm is raised, until it is set right or an
 *     operator confirms it (then it is believed from there on);
 *   - set back, the wall clock is behind: windows end later, never earlier, and what has ended does not begin again. Once a clock
 *     that was wrong has been confirmed and is set right, it is to be confirmed again: until then a jump forward by as much
 *     would not be noticed.
 * The last believed moment is in the store. After a restart of the machine, which ends the count, a wall clock that is at most
 * OPS_SHRED_DOWN_MAX_NS ahead of it is believed; one that is further ahead must be confirmed, and one that is behind is not believed.
 * It is kept, and counts at a start, only while somebody waits for the end of a window or of a retention.
 */
#ifndef KMS_OPS_SHRED_STATE_H
#define KMS_OPS_SHRED_STATE_H

#include "store/store.h"

struct ops_shred;

/** How far the wall clock may be ahead of the trusted time: more than clocks are corrected by. */
#define OPS_SHRED_AHEAD_MAX_NS (INT64_C(60) * 1000000000)
/** How long a machine may have been off without anybody having to confirm the clock. */
#define OPS_SHRED_DOWN_MAX_NS (INT64_C(24) * 3600 * 1000000000)

/** Read what waits, and the clock's last believed moment. */
enum kms_status ops_shred_new(struct kms_store *store, struct ops_shred **ret_shred,
                              struct kms_error *err) KMS_MUST_USE;
void ops_shred_free(struct ops_shred *shred); /* NULL-safe */

/** Does the customer wait to be shredded? Costs a load while nobody does. NULL-safe. */
bool ops_shred_waits(struct ops_shred *shred, const struct kms_uuid *customer);
/** Note that it does, or does no longer. Short of memory, the note is lost: only an alert depends on it. */
void ops_shred_note(struct ops_shred *shred, const struct kms_uuid *customer, bool waits);

/** What the clocks say. */
struct ops_shred_time {
    int64_t wall_ns;
    int64_t trusted_ns;
    int64_t now_ns; /* the earlier of both: what windows are measured with */
    bool suspect;   /* the wall clock is ahead: due shreds wait */
};
struct ops_shred_time ops_shred_now(struct ops_shred *shred);
/** Keep the believed moment in the store; about once a minute is enough, and cheap calls in between do nothing. */
enum kms_status ops_shred_keep_clock(struct ops_shred *shred, struct kms_store *store,
                                     struct kms_error *err) KMS_MUST_USE;
/** Believe the wall clock from here on, and keep that. */
enum kms_status ops_shred_believe_wall(struct ops_shred *shred, struct kms_store *store,
                                       struct kms_error *err) KMS_MUST_USE;

/**
 * May the scheduler try this again? False within `period_ns` after it was true for this key, unless ops_shred_look_again() was
 * called since.
 */
bool ops_shred_may_try(struct ops_shred *shred, const struct kms_uuid *key, int64_t period_ns);
void ops_shred_look_again(struct ops_shred *shred);
/** True while a customer waits: windows are being measured. */
bool ops_shred_any_waits(struct ops_shred *shred);

/* ---- shared with unit tests: the rule above, as a function of what was kept and what is read now */
struct ops_shred_reading {
    int64_t wall_ns, boot_ns;
    char boot_id[KMS_SHRED_BOOT_ID_MAX + 1];
};
struct ops_shred_time ops_shred_judge(const struct kms_shred_clock_record *kept,
                                      const struct ops_shred_reading *reading);

#endif
