/*
 * Purpose:   open what the service writes: the database, the audit log and the backups.
 * Owns:      nothing.
 * Threads:   main thread.
 * Never:     needs the HSM, but for backups and off-line work.
 */
#ifndef KMS_DAEMON_RECORDS_H
#define KMS_DAEMON_RECORDS_H

#include "audit/audit.h"
#include "backup/backup.h"
#include "daemon/config.h"
#include "store/store.h"

/** As configured. On failure what was opened is in the outputs all the same, for the caller to close. */
enum kms_status kms_daemon_open_records(const struct kms_config *config, struct kms_store **ret_store,
                                        struct kms_audit **ret_audit, struct kms_error *err) KMS_MUST_USE;

/** Begin to ship to the configured targets; `*ret_backup` stays NULL when there are none. */
enum kms_status kms_daemon_open_backup(const struct kms_config *config, struct kms_hsm *hsm,
                                       struct kms_store *store, struct kms_backup **ret_backup,
                                       struct kms_error *err) KMS_MUST_USE;

/** What a command works with while the service is stopped: KMS_CLEANUP(kms_offline_close) struct kms_offline offline = {0}. */
struct kms_offline {
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct kms_audit *audit;
};

/** The token's keys must be there. What was opened before a failure is the caller's to close all the same. */
enum kms_status kms_offline_open(const struct kms_config *config, struct kms_offline *offline,
                                 struct kms_error *err) KMS_MUST_USE;
void kms_offline_close(struct kms_offline *offline);

#endif
