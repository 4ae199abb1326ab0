/*
 * Purpose:   wraps the keys of backup files under the backup key in the HSM.
 * Owns:      nothing: borrows the HSM.
 * Threads:   any.
 * Never:     keeps a file key, or a handle of the HSM beyond one call.
 */
#ifndef KMS_BACKUP_KEEPER_H
#define KMS_BACKUP_KEEPER_H

#include "backup/container.h"
#include "hsm/hsm.h"

/**
 * A keeper for that HSM, which must outlive it. Wraps and unwraps once, so that a token that cannot is noticed at start.
 * HSM_UNAVAILABLE, HSM_REFUSED.
 */
enum kms_status kms_backup_keeper_init(struct kms_hsm *hsm, struct kms_backup_keeper *ret_keeper,
                                       struct kms_error *err) KMS_MUST_USE;

#endif
