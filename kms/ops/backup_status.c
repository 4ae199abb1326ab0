/* The state of the backup targets. */
#include "ops/backup_status.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "ops/messages.h"

enum { COUNTED_CHANGES = 50000, BEHIND_SECONDS = 5 };

size_t ops_backup_targets(const struct kms_ops *ops)
{
    return ops->backup != NULL ? kms_backup_targets(ops->backup) : 0;
}

/* Bytes and age of what is not shipped yet. */
static enum kms_status measure_lag(const struct kms_ops *ops, struct ops_backup_target *target,
                                   struct kms_error *err)
{
    struct kms_store_waiting waiting;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
    KMS_TRY(ops->store->ops->changes.waiting(txn.txn, target->status.shipped_seq, COUNTED_CHANGES, &waiting,
                                             err));
    if (waiting.count == 0)
        return KMS_OK;
    target->lag_bytes = target->lag_changes > waiting.count
                            ? waiting.bytes / waiting.count * target->lag_changes
                            : waiting.bytes;
    const int64_t age_ns = kms_clock_wall_ns() - waiting.oldest_ns;
    target->lag_ns = age_ns > 0 ? age_ns : 0;
    return KMS_OK;
}

static Kms__V1__BackupStatus__Target__State state_of(const struct ops_backup_target *target)
{
    if (target->status.rolled_back)
        return KMS__V1__BACKUP_STATUS__TARGET__STATE__ROLLED_BACK;
    if (target->status.hanging)
        return KMS__V1__BACKUP_STATUS__TARGET__STATE__HANGING;
    if (target->status.failing)
        return KMS__V1__BACKUP_STATUS__TARGET__STATE__FAILING;
    return target->lag_ns > BEHIND_SECONDS * KMS_NS_PER_SECOND ? KMS__V1__BACKUP_STATUS__TARGET__STATE__BEHIND
                                                               : KMS__V1__BACKUP_STATUS__TARGET__STATE__OK;
}

void ops_backup_target(const struct kms_ops *ops, size_t index, struct ops_backup_target *ret_target)
{
    struct ops_backup_target target = {0};
    struct kms_error err = {0};
    kms_backup_status(ops->backup, index, &target.status);
    const uint64_t newest = ops->store->ops->changes.committed(ops->store);
    if (newest > target.status.shipped_seq)
        target.lag_changes = newest - target.status.shipped_seq;
    const enum kms_status status = target.lag_changes > 0 ? measure_lag(ops, &target, &err) : KMS_OK;
    if (status != KMS_OK)
        kms_log_warning("backup", "how far the targets are behind cannot be read: %s",
                        kms_error_cause(&err, status));
    target.state = state_of(&target);
    *ret_target = target;
}

bool ops_backup_refuses(const struct kms_ops *ops)
{
    const size_t count = ops_backup_targets(ops);
    size_t failing = 0;
    for (size_t i = 0; i < count; i++) {
        struct kms_backup_target_status status;
        kms_backup_status(ops->backup, i, &status);
        failing += status.failing || status.rolled_back;
    }
    return ops->backup_settings.sync && count > 0 && failing == count;
}

static enum kms_status target_message(struct kms_arena *arena, const struct ops_backup_target *target,
                                      Kms__V1__BackupStatus__Target **ret_message)
{
    const struct kms_backup_target_status *status = &target->status;
    Kms__V1__BackupStatus__Target *message =
        ops_message_new(arena, &kms__v1__backup_status__target__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->directory = ops_string(arena, status->directory);
    message->state = target->state;
    message->shipped_seq = status->shipped_seq;
    message->lag = target->lag_changes;
    message->lag_bytes = target->lag_bytes;
    message->lag_seconds = (double)target->lag_ns / (double)KMS_NS_PER_SECOND;
    message->base_seq = status->base_seq;
    message->base_time = status->base_created_ns != 0 ? ops_timestamp(arena, status->base_created_ns) : NULL;
    message->shipped_time = status->shipped_ns != 0 ? ops_timestamp(arena, status->shipped_ns) : NULL;
    message->failing = status->failing;
    message->failure = ops_string(arena, status->failure);
    message->same_disk = status->same_disk;
    message->last_failure = ops_string(arena, status->last_failure);
    message->last_failure_time =
        status->last_failure_ns != 0 ? ops_timestamp(arena, status->last_failure_ns) : NULL;
    *ret_message = message;
    return message->directory != NULL && message->failure != NULL && message->last_failure != NULL
               ? KMS_OK
               : KMS_NO_MEMORY;
}

enum kms_status ops_backup_message(struct ops_run *run, Kms__V1__BackupStatus **ret_message)
{
    struct kms_ops *ops = run->ops;
    struct kms_arena *arena = run->call->arena;
    const size_t targets = ops_backup_targets(ops);
    Kms__V1__BackupStatus *message = ops_message_new(arena, &kms__v1__backup_status__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->newest_seq = ops->store->ops->changes.committed(ops->store);
    message->sync = ops->backup_settings.sync;
    message->keep_bases = ops->backup_settings.keep_bases;
    message->base_hours = ops->backup_settings.base_hours;
    message->refusing = ops_backup_refuses(ops);
    message->targets = kms_arena_alloc(arena, (targets + 1) * sizeof(*message->targets));
    if (message->targets == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < targets; i++) {
        struct ops_backup_target target;
        ops_backup_target(ops, i, &target);
        KMS_TRY(target_message(arena, &target, &message->targets[message->n_targets++]));
    }
    *ret_message = message;
    return KMS_OK;
}
