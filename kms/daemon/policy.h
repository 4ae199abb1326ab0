/*
 * Purpose:   the policy at start: from the store, else from the configured file, else the first administrator's.
 * Owns:      nothing.
 * Threads:   main thread, before any other and off-line.
 * Never:     reads the file again once the store has a policy.
 */
#ifndef KMS_DAEMON_POLICY_H
#define KMS_DAEMON_POLICY_H

#include "audit/audit.h"
#include "auth/auth.h"
#include "daemon/config.h"
#include "store/store.h"

/**
 * Make the auth of the daemon. The newest version in the store is in force. When there is none, the file `policy:` becomes version 1
 * (logged and audited), and without a file `bootstrap_admin` is admin of everything until a policy is applied.
 * CONFIG_INVALID when there is none of the three, or the policy is not good.
 */
enum kms_status kms_daemon_auth_open(const struct kms_config *config, struct kms_store *store,
                                     struct kms_audit *audit, struct kms_auth **ret_auth,
                                     struct kms_error *err) KMS_MUST_USE;

/** For --check: the configured file or first administrator, and the CRL, without the store. */
enum kms_status kms_daemon_auth_check(const struct kms_config *config, struct kms_error *err) KMS_MUST_USE;

/**
 * For whoever is locked out, off-line, with the daemon stopped: the file at `path` becomes the next version, and frozen
 * identities are frozen no more. Audited as an alert. The policy must be one that can be changed again.
 */
enum kms_status kms_daemon_policy_replace(const struct kms_config *config, const char *path,
                                          struct kms_error *err) KMS_MUST_USE;

#endif
