/* Every kind of operation, and everything that is done about once a second. */
#include "ops/freeze.h"
#include "ops/operation.h"
#include "ops/policy_store.h"

const struct ops_operation_kind *const ops_operation_kinds[] = {
    &ops_policy_apply_kind,
    &ops_policy_rollback_kind,
    &ops_unfreeze_kind,
    NULL,
};

void ops_tick(struct kms_ops *ops)
{
    (void)ops;
}
