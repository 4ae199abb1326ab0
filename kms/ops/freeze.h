/*
 * Purpose:   freezing by the service itself, and the kind of operation that ends a freeze.
 * Owns:      nothing.
 * Threads:   any.
 * Never:     ends a freeze without approval.
 */
#ifndef KMS_OPS_FREEZE_H
#define KMS_OPS_FREEZE_H

#include "ops/ops.h"

struct ops_operation_kind;

/** "unfreeze". */
extern const struct ops_operation_kind ops_unfreeze_kind;

/**
 * Freeze an identity on behalf of the service: it counts from the next call on, and is stored. OK as well when it is frozen already.
 * On a failure of the store it stays frozen until the next start only.
 */
enum kms_status ops_freeze_identity(struct kms_ops *ops, const char *identity, const char *reason,
                                    struct kms_error *err) KMS_MUST_USE;

#endif
