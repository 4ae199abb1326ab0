#include "daemon/records.h"

#include "core/clock.h"
#include "daemon/open_hsm.h"
#include "store/sqlite.h"

/*
 * Beside the queues' threads and those of the targets, so that none waits for another's transaction: main, the control worker, two that
 * run operations, detection, and a base that is being made, which reads for minutes.
 */
enum { OTHER_READERS = 6 };

enum kms_status kms_daemon_open_records(const struct kms_config *config, struct kms_store **ret_store,
                                        struct kms_audit **ret_audit, struct kms_error *err)
{
    const struct kms_store_sqlite_config store = {
        .path = config->store.path,
        .readers = config->limits.threads + config->backup.targets_count + OTHER_READERS,
    };
    const struct kms_audit_config audit = {
        .directory = config->audit.directory,
        .segment_bytes = (uint64_t)config->audit.segment_mib << 20,
        .segment_age_ns = config->audit.segment_hours * 3600 * KMS_NS_PER_SECOND,
        .write_deadline_ns = config->audit.write_deadline_ms * KMS_NS_PER_MS,
    };
    KMS_TRY(kms_store_sqlite_open(&store, ret_store, err));
    return kms_audit_open(&audit, ret_audit, err);
}

enum kms_status kms_daemon_open_backup(const struct kms_config *config, struct kms_hsm *hsm,
                                       struct kms_store *store, struct kms_backup **ret_backup,
                                       struct kms_error *err)
{
    if (config->backup.targets_count == 0)
        return KMS_OK;
    const struct kms_backup_config backup = {
        .directories = (const char *const *)config->backup.targets,
        .count = config->backup.targets_count,
        .log_bytes = (uint64_t)config->backup.log_mib << 20,
        .wait_ns = config->backup.wait_ms * KMS_NS_PER_MS,
        .keep_changes = config->backup.keep_changes,
    };
    return kms_backup_open(&backup, hsm, store, config->store.path, ret_backup, err);
}

enum kms_status kms_offline_open(const struct kms_config *config, struct kms_offline *offline,
                                 struct kms_error *err)
{
    KMS_TRY(kms_daemon_open_hsm(config, false, &offline->hsm, err));
    return kms_daemon_open_records(config, &offline->store, &offline->audit, err);
}

void kms_offline_close(struct kms_offline *offline)
{
    kms_audit_free(offline->audit);
    kms_store_free(offline->store);
    kms_hsm_free(offline->hsm);
}
