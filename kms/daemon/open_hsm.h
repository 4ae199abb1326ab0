/*
 * Purpose:   open the configured token.
 * Owns:      nothing.
 * Threads:   main thread, before others start.
 * Never:     keeps the PIN.
 */
#ifndef KMS_DAEMON_OPEN_HSM_H
#define KMS_DAEMON_OPEN_HSM_H

#include "daemon/config.h"
#include "hsm/hsm.h"

/** With `may_create` the service keys are made when the configuration says so. Statuses of kms_hsm_p11_open(). */
enum kms_status kms_daemon_open_hsm(const struct kms_config *config, bool may_create,
                                    struct kms_hsm **ret_hsm, struct kms_error *err) KMS_MUST_USE;

#endif
