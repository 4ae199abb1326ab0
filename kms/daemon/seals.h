/*
 * Purpose:   the seals of the store's records, made by the HSM: where store and HSM meet.
 * Owns:      nothing; the HSM and the audit log are the daemon's.
 * Threads:   the sealer is called from any thread.
 * Never:     seals what is there by itself: that is kmsd --seal-records, by somebody who has looked.
 */
#ifndef KMS_DAEMON_SEALS_H
#define KMS_DAEMON_SEALS_H

#include "audit/audit.h"
#include "daemon/config.h"
#include "hsm/hsm.h"
#include "store/store.h"

#include <stdatomic.h>

struct kms_seals {
    struct kms_store_sealer sealer;
    struct kms_hsm *hsm;
    struct kms_audit *audit; /* NULL: alarms go to the log only */
    _Atomic int64_t last_alarm_ns;
    _Atomic uint64_t alarms; /* since the start */
};

/**
 * From now on the store's records are sealed and checked: see kms_store_seal_ops.begin(). `seals` outlives the store. A database
 * that is refused is in the audit log.
 */
enum kms_status kms_seals_begin(struct kms_seals *seals, struct kms_hsm *hsm, struct kms_audit *audit,
                                struct kms_store *store, bool anew, struct kms_error *err) KMS_MUST_USE;

/** kmsd --seal-records: with the service stopped, seal what is in the database, whatever it is, and say so in the audit log. */
enum kms_status kms_daemon_seal_records(const struct kms_config *config, struct kms_error *err) KMS_MUST_USE;

#endif
