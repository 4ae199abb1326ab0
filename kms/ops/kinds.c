/* Every kind of operation, and everything that is done about once a second. */
#include "ops/operation.h"

const struct ops_operation_kind *const ops_operation_kinds[] = {
    NULL,
};

void ops_tick(struct kms_ops *ops)
{
    (void)ops;
}
