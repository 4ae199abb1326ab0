/* Every kind of operation, and everything that is done about once a second. */
#include "ops/backup.h"
#include "ops/freeze.h"
#include "ops/operation.h"
#include "ops/policy_store.h"
#include "ops/recovery.h"
#include "ops/rotation.h"
#include "ops/shred_job.h"

const struct ops_operation_kind *const ops_operation_kinds[] = {
    &ops_policy_apply_kind,    &ops_policy_rollback_kind, &ops_unfreeze_kind,
    &ops_shred_kind,           &ops_shred_run_kind,       &ops_hold_release_kind,
    &ops_rotate_master_kind,   &ops_rotate_tree_kind,     &ops_rotate_kek_kind,
    &ops_backup_create_kind,   &ops_backup_verify_kind,   &ops_backup_prune_kind,
    &ops_recovery_enroll_kind, &ops_recovery_retire_kind, NULL,
};

void ops_tick(struct kms_ops *ops)
{
    ops_shred_tick(ops);
    ops_rotation_tick(ops);
    ops_recovery_tick(ops); /* works with the token, and waits for targets that are slow */
}

void ops_tick_at_once(struct kms_ops *ops)
{
    ops_backup_tick(ops);
}
