/*
 * Purpose:   kinds of operations that rotate, and rotation by schedule.
 * Owns:      nothing; the place of the schedule lies in struct kms_ops.
 * Threads:   the runner's.
 * Never:     lets one tenant's keys hold up those of the others.
 */
#ifndef KMS_OPS_ROTATION_H
#define KMS_OPS_ROTATION_H

#include "ops/operation.h"

extern const struct ops_operation_kind ops_rotate_master_kind;
extern const struct ops_operation_kind ops_rotate_tree_kind;
extern const struct ops_operation_kind ops_rotate_kek_kind;

/** About once a second: a bounded number of KEKs of one tenant that are older than their purpose's period. */
void ops_rotation_tick(struct kms_ops *ops);

#endif
