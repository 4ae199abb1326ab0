#include "daemon/open_hsm.h"

#include "core/clock.h"
#include "hsm/p11.h"

/* How long an operation waits for the HSM to be recovered before it gives up. */
#define HSM_TIMEOUT_NS (5 * KMS_NS_PER_SECOND)

enum kms_status kms_daemon_open_hsm(const struct kms_config *config, bool may_create,
                                    struct kms_hsm **ret_hsm, struct kms_error *err)
{
    KMS_SECRET pin = {0};
    KMS_TRY(kms_config_read_pin(config, &pin, err));
    const struct kms_hsm_p11_config p11 = {
        .module = config->hsm.module,
        .init_args = config->hsm.init_args,
        .token_uri = config->hsm.token,
        .profile = config->hsm.profile,
        .pin = &pin,
        .sessions = config->hsm.sessions,
        .startup_lock = config->hsm.startup_lock,
        .create_service_keys = may_create && config->hsm.create_service_keys,
        .operation_timeout_ns = HSM_TIMEOUT_NS,
    };
    return kms_hsm_p11_open(&p11, ret_hsm, err);
}
