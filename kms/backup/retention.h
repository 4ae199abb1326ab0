/*
 * Purpose:   remove bases and logs that nobody needs any more.
 * Owns:      nothing.
 * Threads:   no shared state; not beside another prune of the same directory.
 * Never:     removes what leads from a kept base to the newest change, or anything of a target that is not in order.
 */
#ifndef KMS_BACKUP_RETENTION_H
#define KMS_BACKUP_RETENTION_H

#include "backup/verify.h"

struct kms_backup_prune_result {
    uint64_t bases_removed, logs_removed, bytes_removed, bases_kept;
};

/**
 * Keep the newest `bases` bases and every log that leads on from the oldest of them. The target is verified first, and nothing is
 * removed unless it is in order; but with `bases` 1 and a newest base that leads to the newest change, what is older may be damaged. INVALID_ARGUMENT for `bases` 0; otherwise as kms_backup_verify(). With `dry_run` nothing is removed.
 */
enum kms_status kms_backup_prune(const struct kms_backup_keeper *keeper, const char *directory,
                                 uint64_t bases, bool dry_run, struct kms_backup_prune_result *ret_result,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
