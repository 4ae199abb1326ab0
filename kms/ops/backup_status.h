/*
 * Purpose:   how far each backup target is behind, for the status of the service, for metrics and for alerts.
 * Owns:      nothing.
 * Threads:   any.
 * Never:     touches a target: it asks the lanes and the database.
 */
#ifndef KMS_OPS_BACKUP_STATUS_H
#define KMS_OPS_BACKUP_STATUS_H

#include "backup/backup.h"
#include "ops/run.h"

#include "kms/v1/backup.pb-c.h"

/** One target with its lag: what is committed here and not durable there. */
struct ops_backup_target {
    struct kms_backup_target_status status;
    Kms__V1__BackupStatus__Target__State state;
    uint64_t lag_changes;
    uint64_t lag_bytes; /* of change records; estimated from the oldest ones when there are very many */
    int64_t lag_ns;     /* age of the oldest */
};

/** 0 when no targets are configured. */
size_t ops_backup_targets(const struct kms_ops *ops);
/** A database that cannot be read shows as no bytes and no age. */
void ops_backup_target(const struct kms_ops *ops, size_t index, struct ops_backup_target *ret_target);
/** With `durability: sync`: no target takes changes, so calls that change something are refused. */
bool ops_backup_refuses(const struct kms_ops *ops);
/** The whole of it as a message in the call's arena. */
enum kms_status ops_backup_message(struct ops_run *run, Kms__V1__BackupStatus **ret_message) KMS_MUST_USE;

#endif
