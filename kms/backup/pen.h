/*
 * Purpose:   writes one file of a target on a thread of its own, so that whoever fills it can turn away from a target that hangs.
 * Owns:      the thread, the descriptor and what waits to be written; both sides hold a reference.
 * Threads:   one owner; the thread belongs to the pen.
 * Never:     keeps its owner waiting for longer than the owner says; shows the file under its name before it is durable.
 *
 * A system call on a hung network file system or disk does not come back, and nothing can call it off. The owner leaves then, and
 * the thread tidies up when the hang ends, however late that is.
 */
#ifndef KMS_BACKUP_PEN_H
#define KMS_BACKUP_PEN_H

#include "backup/target.h"

#include <stdatomic.h>

struct kms_backup_pen;

/**
 * Begin a file under a working name. `directory` is copied. `busy` counts the threads of this target that have not ended; it must
 * live until it is zero. UNAVAILABLE when it is not zero now: the last file hangs. NO_MEMORY.
 */
enum kms_status kms_backup_pen_open(const char *directory, const char *partial, _Atomic unsigned *busy,
                                    struct kms_backup_pen **ret_pen, struct kms_error *err) KMS_MUST_USE;
/** Append a copy of `bytes`. The failure of an earlier write; UNAVAILABLE when nothing moved for `patience_ns`. */
enum kms_status kms_backup_pen_write(struct kms_backup_pen *pen, struct kms_slice bytes, int64_t patience_ns,
                                     struct kms_error *err) KMS_MUST_USE;
/** What was written becomes durable and gets its name. Failures as of kms_backup_pen_write(). */
enum kms_status kms_backup_pen_publish(struct kms_backup_pen *pen, const char *name, int64_t patience_ns,
                                       struct kms_error *err) KMS_MUST_USE;
/** Wait until the threads of a target have ended. False when they have not by then: it hangs. */
bool kms_backup_pens_end(const _Atomic unsigned *busy, int64_t deadline_mono_ns) KMS_MUST_USE;
/** From here on the calling thread takes the CPU when others leave it: a base is in nobody's hurry. */
void kms_backup_stand_back(void);
/** Let go; a file that was not published is removed. NULL-safe. */
void kms_backup_pen_drop(struct kms_backup_pen *pen);

#endif
