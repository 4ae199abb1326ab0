/*
 * Purpose:   open the configured token; as its security officer, once, to trust a recovery key.
 * Owns:      nothing.
 * Threads:   main thread, before others start.
 * Never:     keeps a PIN.
 */
#ifndef KMS_DAEMON_OPEN_HSM_H
#define KMS_DAEMON_OPEN_HSM_H

#include "daemon/config.h"
#include "hsm/p11.h"

/** What the configuration says of the token; `pin` gets the user's PIN and must live as long. Statuses of kms_config_read_pin(). */
enum kms_status kms_daemon_hsm_config(const struct kms_config *config, struct kms_secret *pin,
                                      struct kms_hsm_p11_config *ret_config,
                                      struct kms_error *err) KMS_MUST_USE;
/** With `create` service keys that are missing are made. Statuses of kms_hsm_p11_open(). */
enum kms_status kms_daemon_open_hsm(const struct kms_config *config, bool create, struct kms_hsm **ret_hsm,
                                    struct kms_error *err) KMS_MUST_USE;

/**
 * As the security officer, beside a running service or not: make the recovery public key in a PEM file trusted by the token, with the
 * officer's PIN from a file, and print its fingerprint. OK also when it is there already. Statuses of kms_hsm_p11_trust().
 */
enum kms_status kms_daemon_trust(const struct kms_config *config, const char *key_path, const char *pin_path,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
