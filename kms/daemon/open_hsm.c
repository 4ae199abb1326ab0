#include "daemon/open_hsm.h"

#include "core/clock.h"
#include "core/file.h"

#include <stdio.h>

/* How long an operation waits for the HSM to be recovered before it gives up. */
#define HSM_TIMEOUT_NS (5 * KMS_NS_PER_SECOND)

enum kms_status kms_daemon_hsm_config(const struct kms_config *config, struct kms_secret *pin,
                                      struct kms_hsm_p11_config *ret_config, struct kms_error *err)
{
    KMS_TRY(kms_config_read_pin(config, pin, err));
    *ret_config = (struct kms_hsm_p11_config){
        .module = config->hsm.module,
        .init_args = config->hsm.init_args,
        .token_uri = config->hsm.token,
        .profile = config->hsm.profile,
        .pin = pin,
        .sessions = config->hsm.sessions,
        .startup_lock = config->hsm.startup_lock,
        .recovery = config->recovery.enabled,
        .operation_timeout_ns = HSM_TIMEOUT_NS,
    };
    return KMS_OK;
}

enum kms_status kms_daemon_open_hsm(const struct kms_config *config, bool create, struct kms_hsm **ret_hsm,
                                    struct kms_error *err)
{
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config p11;
    KMS_TRY(kms_daemon_hsm_config(config, &pin, &p11, err));
    p11.create_service_keys = create;
    return kms_hsm_p11_open(&p11, ret_hsm, err);
}

enum kms_status kms_daemon_trust(const struct kms_config *config, const char *key_path, const char *pin_path,
                                 struct kms_error *err)
{
    enum { PEM_MAX = 16 * 1024 };
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    KMS_SECRET pin = {0};
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    KMS_TRY(kms_file_read(key_path, PEM_MAX, &pem, err));
    KMS_TRY(kms_secret_read_file(pin_path, &pin, err));
    const struct kms_hsm_p11_config p11 = {
        .module = config->hsm.module,
        .init_args = config->hsm.init_args,
        .token_uri = config->hsm.token,
        .profile = config->hsm.profile,
        .pin = &pin,
        .startup_lock = config->hsm.startup_lock,
        .recovery = true,
        .operation_timeout_ns = HSM_TIMEOUT_NS,
    };
    const enum kms_status status = kms_hsm_p11_trust(&p11, kms_buf_slice(&pem), fingerprint, err);
    if (status != KMS_OK && status != KMS_ALREADY_EXISTS)
        return status;
    (void)printf("the token %s the recovery key %s\n", status == KMS_OK ? "now trusts" : "trusts already",
                 fingerprint);
    return KMS_OK;
}
