/* Backups by the clock: bases on schedule, alerts when a target begins to fail, shipped changes forgotten. */
#include "ops/backup.h"

#include "backup/backup.h"
#include "core/clock.h"
#include "core/log.h"
#include "ops/backup_status.h"

#include <stdio.h>

static const char requester[] = "service:backup";

#define FORGETTING_NS (200 * KMS_NS_PER_MS) /* of each second */

/* A record of what somebody should look after, or need no more. */
static void alert(struct kms_ops *ops, const char *action, bool failing, const char *reason)
{
    const struct kms_audit_event event = {
        .type = "alert", .action = action, .outcome = failing ? "UNAVAILABLE" : "OK", .reason = reason};
    if (kms_audit_append(ops->audit, &event, NULL) != KMS_OK || kms_audit_commit(ops->audit, NULL) != KMS_OK)
        kms_log_error("backup", "the alert %s is not in the audit log: %s", action, reason);
}

/* Tell the audit log when a target begins or ends to fail, and when that is the last one. */
static void watch_targets(struct kms_ops *ops)
{
    struct kms_ops_backup_settings *settings = &ops->backup_settings;
    for (size_t i = 0; i < kms_backup_targets(ops->backup); i++) {
        struct kms_backup_target_status status;
        char reason[2 * KMS_BACKUP_TEXT_MAX + 8];
        kms_backup_status(ops->backup, i, &status);
        if (status.failing == settings->told_failing[i])
            continue;
        settings->told_failing[i] = status.failing;
        (void)snprintf(reason, sizeof reason, "%s%s%s", status.directory, status.failing ? ": " : "",
                       status.failure);
        alert(ops, status.failing ? "backup.failing" : "backup.recovered", status.failing, reason);
    }
    const bool refusing = ops_backup_refuses(ops);
    if (refusing != settings->told_refusing)
        alert(ops, refusing ? "backup.refusing" : "backup.accepting", refusing,
              refusing ? "no backup target takes changes: calls that change something are refused"
                       : "a backup target takes changes again");
    settings->told_refusing = refusing;
}

/* When the newest base was made in the target whose newest base is the oldest. 0: one has none; the lane makes it. */
static int64_t oldest_newest_base(struct kms_ops *ops)
{
    int64_t oldest = INT64_MAX;
    for (size_t i = 0; i < kms_backup_targets(ops->backup); i++) {
        struct kms_backup_target_status status;
        kms_backup_status(ops->backup, i, &status);
        oldest = status.base_created_ns < oldest ? status.base_created_ns : oldest;
    }
    return oldest;
}

/* Start a kind of operation in the service's own name. */
static void start(struct kms_ops *ops, const struct ops_operation_kind *kind, json_t *parameters)
{
    struct kms_uuid uuid;
    struct kms_error err = {0};
    const enum kms_status status =
        ops_operation_start(ops, kind, requester, NULL, parameters, 0, &uuid, &err);
    if (status != KMS_OK)
        kms_log_error("backup", "the scheduled operation %s could not be started: %s", kind->name,
                      kms_error_cause(&err, status));
}

/* A base when the last one is old enough, and behind it the pruning of what that makes superfluous. */
static void keep_schedule(struct kms_ops *ops)
{
    struct kms_ops_backup_settings *settings = &ops->backup_settings;
    const int64_t period = (int64_t)settings->base_hours * 3600 * KMS_NS_PER_SECOND;
    const int64_t newest = oldest_newest_base(ops);
    const int64_t now = kms_clock_wall_ns();
    if (period == 0 || newest == 0 || now - newest < period || now - settings->started_ns < period)
        return;
    settings->started_ns = now; /* one that fails is not repeated every second */
    start(ops, &ops_backup_create_kind, json_object());
    start(ops, &ops_backup_prune_kind,
          json_pack("{s:i,s:b}", "keep_bases", (int)settings->keep_bases, "dry_run", 0));
}

/* As fast as changes can come, but for a part of the time only, in portions between which others write. */
static enum kms_status forget_changes(struct kms_ops *ops, struct kms_error *err)
{
    const int64_t until_ns = kms_clock_mono_ns() + FORGETTING_NS;
    bool more = true;
    while (more && kms_clock_mono_ns() < until_ns) {
        more = false;
        if (ops->backup != NULL)
            KMS_TRY(kms_backup_prune_changes(ops->backup, &more, err));
        else /* nobody ships: a target that is configured later begins with a base */
            KMS_TRY(kms_backup_prune_up_to(ops->store, ops->store->ops->changes.committed(ops->store), &more,
                                           err));
    }
    return KMS_OK;
}

void ops_backup_tick(struct kms_ops *ops)
{
    struct kms_error err = {0};
    if (ops->backup != NULL) {
        watch_targets(ops);
        keep_schedule(ops);
    }
    const enum kms_status status = forget_changes(ops, &err);
    if (status != KMS_OK && status != KMS_STORE_BUSY)
        kms_log_warning("backup", "old changes could not be forgotten: %s", kms_error_cause(&err, status));
}
